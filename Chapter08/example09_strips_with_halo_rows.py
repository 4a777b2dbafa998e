# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""One large picture is filtered in strips, by processes, and no pixel is pickled.

The picture lies in one block of shared memory, the result in another. A task says which
rows to write: a few hundred bytes. No lock is needed: all read the one block, which
nobody writes, and the strips of the other do not overlap.

A pixel of a filtered picture depends on its neighbours, with a kernel of 31 x 31 on
those of 15 rows above and below. Some of them belong to the next strip. So a strip is
read with that many more rows on either side, its halo, and these are cut off again
after filtering. At an edge of the picture there is no row to add; the strip ends where
the picture ends, and the filter makes up what lies beyond (here by reflection) exactly
as for the whole picture. Hence the result is the same at every pixel. Without a halo
each strip is taken for a picture of its own, and the seams show.

(OpenCV's own filters are spread over all cores already, by threads. Strips are for
filters that are not; `dask.array.map_overlap` does the same for arrays of any size.)

Try:  --strips 5000
Try:  --kernel 101
Try:  --plot seams.png

Output:
    strips: 5, kernel: 31 x 31, halo: 15 rows
    strip 0 writes rows    0 …  239, reads    0 …  254
    strip 1 writes rows  240 …  479, reads  225 …  494
    strip 2 writes rows  480 …  719, reads  465 …  734
    strip 3 writes rows  720 …  959, reads  705 …  974
    strip 4 writes rows  960 … 1199, reads  945 … 1199
    shared         5625.0 KiB, and as much for the result
    without halo      6.1 % of the pixels wrong, none farther than 15 rows from a seam
    with halo           0 pixels of 1600 x 1200 differ from the whole
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    print("needs opencv-python-headless")
    raise SystemExit(77) from None

from generate_input import scene

WIDTH, HEIGHT = 1600, 1200  # pixels
MAX_WORKERS = 61  # of a process pool on Windows
MAX_KERNEL = 301  # pixels
MAX_SHOWN = 8  # strips

Picture = NDArray[Any]  # rows, columns and perhaps channels
Filter = Callable[[Picture], Picture]


@dataclass(frozen=True, slots=True)
class Strip:
    """Some rows of a picture.

    Attributes:
        first, end: the rows from `first` up to `end` - 1 are to be written.
        halo_first, halo_end: for that, those from `halo_first` on have to be read.
    """

    first: int
    end: int
    halo_first: int
    halo_end: int


def strips_of(n_rows: int, n_strips: int, reach: int) -> list[Strip]:
    """Cut `n_rows` rows into at most `n_strips` strips, equal but for one row.

    No strip is empty: there are never more of them than rows.

    Args:
        reach: rows above and below that a pixel of the result depends on.

    Raises:
        ValueError: `n_strips` is less than 1, or `reach` less than 0.
    """
    if n_strips < 1 or reach < 0:
        raise ValueError(f"need a strip and a reach, not {n_strips} and {reach}")
    n_strips = min(n_strips, n_rows)
    cuts = [n_rows * i // n_strips for i in range(n_strips)]
    return [
        Strip(first, end, max(0, first - reach), min(n_rows, end + reach))
        for first, end in pairwise([*cuts, n_rows])
    ]


def filter_strip(
    source: Picture, target: Picture, strip: Strip, filter_: Filter
) -> None:
    """Write one strip of the filtered `source` into `target`.

    Raises:
        ValueError: the filter returns another shape or type than it was given.
    """
    # To OpenCV, rows of an array are a picture: beyond them it makes up what it needs.
    rows = source[strip.halo_first : strip.halo_end]
    filtered = filter_(rows)
    if filtered.shape != rows.shape or filtered.dtype != target.dtype:
        raise ValueError(
            f"the filter makes {filtered.dtype} {filtered.shape} "
            f"of {target.dtype} {rows.shape}"
        )
    halo = strip.first - strip.halo_first
    target[strip.first : strip.end] = filtered[halo : halo + strip.end - strip.first]


def filter_in_strips(
    picture: Picture, n_strips: int, reach: int, filter_: Filter
) -> Picture:
    """Return `filter_(picture)`, computed in strips, one after the other.

    Args:
        reach: rows above and below that a pixel of the result depends on: half the
            kernel. With less than that, the strips' seams show.
        filter_: makes a picture of the same shape and type. What it makes up beyond an
            edge (reflected, replicated or constant) must come from rows within `reach`.
    """
    result = np.empty_like(picture)
    for strip in strips_of(len(picture), n_strips, reach):
        filter_strip(picture, result, strip, filter_)
    return result


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is sent: where the pixels are, not the pixels.

    Attributes:
        source, target: names of blocks of shared memory.
        shape, type_: of the picture in either.
    """

    source: str
    target: str
    shape: tuple[int, ...]
    type_: np.dtype[Any]
    strip: Strip
    filter_: Filter


def filter_shared_strip(task: Task) -> None:
    """Filter one strip from block to block; this is what a worker does.

    Raises:
        what the filter raises.
    """
    cv2.setNumThreads(0)  # 1 might wait for threads that a fork has left behind
    source, target = SharedMemory(task.source), SharedMemory(task.target)
    try:
        filter_strip(
            array_in(source, task.shape, task.type_),
            array_in(target, task.shape, task.type_),
            task.strip,
            task.filter_,
        )
    finally:
        source.close()
        target.close()


def filter_with_processes(
    picture: Picture, n_strips: int, reach: int, filter_: Filter, n_workers: int
) -> Picture:
    """Return the same as `filter_in_strips`, computed by `n_workers` processes.

    `filter_` is pickled. Call `cv2.setNumThreads(1)` before anything else of OpenCV:
    threads that it has started should not be forked.

    Raises:
        what the filter raises.
        BrokenProcessPool: a worker died.
    """
    shape, type_ = picture.shape, picture.dtype
    with shared_block(picture.nbytes) as source, shared_block(picture.nbytes) as target:
        array_in(source, shape, type_)[...] = picture
        strips = strips_of(len(picture), n_strips, reach)
        # The blocks come before the workers, which share this process' resource tracker
        # only if it is running. A tracker of their own would remove the blocks.
        with process_pool(n_workers) as pool:
            tasks = [
                Task(source.name, target.name, shape, type_, strip, filter_)
                for strip in strips
            ]
            list(pool.map(filter_shared_strip, tasks))
        return array_in(target, shape, type_).copy()


@contextmanager
def shared_block(n_bytes: int) -> Iterator[SharedMemory]:
    """A block of shared memory that is removed at the end of the `with`, in any case.

    An array that lies in it must not be used any more then: that would crash. There is
    no empty block: it has at least one byte.
    """
    if sys.platform != "win32":
        # It would be started by the first block, and let Ctrl-C through at that.
        resource_tracker.ensure_running()
    with ExitStack() as stack:
        with ctrl_c_later():
            block = SharedMemory(create=True, size=max(1, n_bytes))
            stack.callback(block.close)
            stack.callback(block.unlink)  # first of all: this one cannot fail
        yield block


def array_in(
    block: SharedMemory, shape: tuple[int, ...], type_: np.dtype[Any]
) -> Picture:
    """Return the array that lies in `block`: its pixels, not a copy."""
    return np.ndarray(shape, type_, block.buf)


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


@contextmanager
def process_pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `n_workers` processes that leave Ctrl-C to this one.

    Ctrl-C has to wait while they start and while they end: in the midst of that, a pool
    cannot be ended in order. Make it before any thread, which would let Ctrl-C through
    and should not be forked. If the block fails, calls that have not begun are dropped:
    an interrupted `submit` may leave one that no process gets and the end would await.
    """
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)

    def end(kind: type[BaseException] | None, *_: object) -> None:
        with ctrl_c_later():
            pool.shutdown(cancel_futures=kind is not None)

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = ProcessPoolExecutor(n_workers, None, signal.signal, ignore_ctrl_c)
            stack.push(end)
            list(pool.map(abs, range(n_workers)))
        yield pool


def smooth(picture: Picture, kernel: int) -> Picture:
    """Smooth `picture` with a Gaussian of `kernel` x `kernel` pixels, an odd number.

    Beyond an edge the picture is reflected: the edge, too, is its own neighbours' mean.
    """
    smoothed = cv2.GaussianBlur(
        picture, (kernel, kernel), 0, borderType=cv2.BORDER_REFLECT_101
    )
    return np.asarray(smoothed)


def rows_that_differ(one: Picture, other: Picture) -> set[int]:
    """Return the rows in which the two pictures are not the same at every pixel."""
    differ = (one != other).reshape(len(one), -1).any(axis=1)
    return set(np.flatnonzero(differ).tolist())


def rows_near_seams(strips: Sequence[Strip], reach: int) -> set[int]:
    """Return the rows whose pixels depend on rows of another strip."""
    seams = [strip.first for strip in strips[1:]]
    return {row for seam in seams for row in range(seam - reach, seam + reach)}


def plot(page: Picture, whole: Picture, seamed: Picture, n: int, file: Path) -> None:
    """Draw the page and its `n` strips, and the seam of the worst pixel magnified."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    wrong = np.abs(whole.astype(int) - seamed.astype(int)).max(axis=2)
    row, column = np.unravel_index(wrong.argmax(), wrong.shape)
    top, left = max(0, int(row) - 40), max(0, int(column) - 70)
    window = (slice(top, top + 80), slice(left, left + 140))
    rgb = [picture[:, :, ::-1] for picture in (page, whole, seamed)]

    figure = Figure(figsize=(9, 4.4), layout="constrained")
    axes = figure.subplot_mosaic(
        [["page", "without"], ["page", "with"]], width_ratios=[3, 4]
    )
    axes["page"].imshow(
        cv2.bilateralFilter(rgb[0], 9, 30, 9)
    )  # noise makes files large
    for strip in strips_of(len(page), n, 0)[1:]:
        axes["page"].axhline(strip.first, color="#b5442e", linewidth=1.2)
    axes["page"].add_patch(
        Rectangle((left, top), 140, 80, fill=False, color="#1b4f8a", linewidth=2.5)
    )
    axes["page"].set_title(f"The page and its {n} strips", fontweight="bold")
    axes["without"].imshow(rgb[2][window])
    axes["without"].set_title("Smoothed without a halo: a seam", fontweight="bold")
    axes["with"].imshow(rgb[1][window])
    axes["with"].set_title("With a halo: as if never cut", fontweight="bold")
    for each in axes.values():
        each.set_xticks([])
        each.set_yticks([])
    figure.savefig(file, dpi=90)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def workers(text: str) -> int:
    number = positive(text)
    if number > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_WORKERS}, not {number}")
    return number


def odd(text: str) -> int:
    number = int(text)
    if number % 2 == 0 or not 1 <= number <= MAX_KERNEL:
        raise argparse.ArgumentTypeError(
            f"must be odd and in 1 … {MAX_KERNEL}, not {number}"
        )
    return number


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--strips", type=positive, default=5)
    parser.add_argument("--kernel", type=odd, default=31)
    parser.add_argument("--workers", type=workers, default=2)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    kernel, reach = options.kernel, options.kernel // 2
    cv2.setNumThreads(1)  # before its threads start: a fork would leave them behind

    page, smoothing = scene(WIDTH, HEIGHT), partial(smooth, kernel=kernel)
    strips = strips_of(HEIGHT, options.strips, reach)
    n = len(strips)
    print(f"strips: {n}, kernel: {kernel} x {kernel}, halo: {reach} rows")
    for number, strip in enumerate(strips[:MAX_SHOWN]):
        print(
            f"strip {number} writes rows {strip.first:4} … {strip.end - 1:4}, "
            f"reads {strip.halo_first:4} … {strip.halo_end - 1:4}"
        )
    if n > MAX_SHOWN:
        print("and so on")

    whole = smoothing(page)
    seamed = filter_in_strips(page, n, 0, smoothing)
    by_processes = filter_with_processes(page, n, reach, smoothing, options.workers)
    if not rows_that_differ(whole, seamed) <= rows_near_seams(strips, reach):
        raise SystemExit("without halo, pixels far from a seam are wrong")
    if n > 1 and kernel > 1 and not rows_that_differ(whole, seamed):
        raise SystemExit("without halo, the seams were to show")
    if rows_that_differ(whole, by_processes):
        raise SystemExit("the strips differ from the whole picture, filtered")
    if options.plot:
        plot(page, whole, seamed, n, options.plot)

    wrong = 100 * (whole != seamed).any(axis=2).mean()
    print(f"shared        {page.nbytes / 1024:7.1f} KiB, and as much for the result")
    print(
        f"without halo  {wrong:7.1f} % of the pixels wrong, "
        f"none farther than {reach} rows from a seam"
    )
    print(f"with halo           0 pixels of {WIDTH} x {HEIGHT} differ from the whole")


if __name__ == "__main__":
    main()
