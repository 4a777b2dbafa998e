# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""Pickled pictures, names and threads side by side: what is moved, what it brings.

Every tile is read, freed of its noise by a bilateral filter, and written again; in turn
by a loop, by a pool that gets pictures and returns them, by a pool that gets names, and
by threads. All write the same pictures; they differ in who does what.

Why do pickles lose? The pool relieves the parent of the filter alone. To read and to
write is still up to the parent, one tile after the other, and to pickle, send, receive
and unpickle is new. By Amdahl's law, what is left in the parent bounds the gain. The
longer the filter works on each byte, the less that matters: try --diameter 15.

Names leave nothing to the parent. Nor do threads, and they need not even move names:
OpenCV lets go of the GIL while it reads, filters and writes, so for pictures threads
are the simplest way and as good as any. Processes pay where Python code looks at the
pixels. OpenCV's own threads are switched off, `cv2.setNumThreads(1)`: else they would
share out each single tile, in all four alike, and get in the way of the others.

Try:  --diameter 15
Try:  --workers 1
Try:  --plot side_by_side.png

Output:
    4 tiles of 500 x 500 pixels, 2 workers, <cores> cores, GIL <gil>
    sequential    0.119 s   1.00x  moved      0.0 KiB
    pickles       0.098 s   1.21x  moved   5860.7 KiB
    names         0.064 s   1.85x  moved      0.6 KiB
    threads       0.062 s   1.92x  moved      0.0 KiB
    a tile takes 7.2 ms to read, 6.5 ms to filter, 17.8 ms to write; 3.5 ms to move
    all four wrote the same pictures, byte for byte
"""

import argparse
import math
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TypeVar

import numpy as np
from example01_read_and_look import read_picture
from generate_input import write_picture, write_tiles
from numpy.typing import NDArray

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    print("needs opencv-python-headless")
    raise SystemExit(77) from None

KIB = 1024
COLOUR, SPACE = 50.0, 50.0  # grey levels and pixels, of the bilateral filter
MAX_WORKERS = 61  # of a process pool on Windows
MAX_TILES, MAX_SIZE, MAX_DIAMETER = 100, 1000, 25

Picture = NDArray[np.uint8]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Job:
    """Read `source`, filter with this diameter (in pixels), write `target`."""

    source: Path
    target: Path
    diameter: int

    def run(self) -> None:
        """Do all of it.

        Raises:
            OSError: a file cannot be read or written.
            ValueError: it is no picture.
        """
        write_picture(self.target, denoise(read_picture(self.source), self.diameter))


def denoise(picture: Picture, diameter: int) -> Picture:
    """Average each pixel with those near it that are like it: edges stay sharp."""
    filtered = cv2.bilateralFilter(picture, diameter, COLOUR, SPACE)
    return np.asarray(filtered, np.uint8)


def denoise_alone(picture: Picture, diameter: int) -> Picture:
    """The same by one thread; this is what a worker does with a pickled picture."""
    cv2.setNumThreads(0)  # 1 might wait for threads that a fork has left behind
    return denoise(picture, diameter)


def run_alone(job: Job) -> None:
    """Run `job` by one thread; this is what a worker does with names."""
    cv2.setNumThreads(0)  # 1 might wait for threads that a fork has left behind
    job.run()


def one_by_one(jobs: Sequence[Job]) -> int:
    """Run `jobs` in a loop; return how many there were."""
    for job in jobs:
        job.run()
    return len(jobs)


def with_pickles(pool: Executor, jobs: Sequence[Job]) -> int:
    """Read and write here, let `pool` filter; return how many jobs there were.

    `map` reads all pictures before the first is filtered: they have to fit into memory.
    """
    pictures = (read_picture(job.source) for job in jobs)
    results = pool.map(denoise_alone, pictures, [job.diameter for job in jobs])
    for job, result in zip(jobs, results, strict=True):
        write_picture(job.target, result)
    return len(jobs)


def with_names(pool: Executor, jobs: Sequence[Job]) -> int:
    """Let the processes of `pool` do all; return how many jobs there were."""
    return len(list(pool.map(run_alone, jobs)))


def with_threads(threads: Executor, jobs: Sequence[Job]) -> int:
    """Let `threads` do all; return how many jobs there were."""
    return len(list(threads.map(Job.run, jobs)))


def moved_by_pickles(jobs: Sequence[Job]) -> int:
    """Return the bytes that go to and fro when pictures are pickled."""
    return sum(
        len(pickle.dumps((read_picture(job.source), job.diameter)))
        + len(pickle.dumps(read_picture(job.target)))
        for job in jobs
    )


def moved_by_names(jobs: Sequence[Job]) -> int:
    """Return the bytes that go to and fro when names are."""
    return sum(len(pickle.dumps(job)) + len(pickle.dumps(None)) for job in jobs)


def results(jobs: Sequence[Job]) -> list[bytes]:
    """Return what `jobs` have written. In a PNG, the same bytes are the same pixels."""
    return [job.target.read_bytes() for job in jobs]


def ms_per_call(function: Callable[[], object]) -> float:
    """Return the milliseconds of the fastest of three calls."""
    seconds, _ = side_by_side({"": lambda: function() is None})
    return 1000 * seconds[""]


def plot(seconds: Mapping[str, float], moved: Mapping[str, int], file: Path) -> None:
    """Draw how many times as fast each way is, and what it moves."""
    from matplotlib.figure import Figure

    ratios = {name: seconds["sequential"] / took for name, took in seconds.items()}
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    colours = ["#8a8a8a", "#b5442e", "#1b4f8a", "#1b4f8a"]
    bars = axes.barh(list(ratios), list(ratios.values()), color=colours)
    axes.bar_label(
        bars,
        [f"{ratios[name]:.2f}x, {moved[name] / KIB:,.0f} KiB moved" for name in ratios],
        label_type="center",
        color="white",
        fontweight="bold",
    )
    axes.axvline(1, color="black", linestyle="--", linewidth=1, zorder=0)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=12)
    axes.set_xlabel("times as fast as one tile after the other", fontsize=12)
    axes.set_title("What is not moved need not be waited for", fontweight="bold")
    figure.savefig(file, dpi=120)


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


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def side_by_side(
    jobs: Mapping[str, Callable[[], T]], rounds: int = 3
) -> tuple[dict[str, float], dict[str, T]]:
    """Run `jobs` in turns; return the seconds of each one's fastest run, and results.

    In turns, so that a busy moment of the machine hits all alike, and the fastest run,
    because other programs can only make a run slower.

    Raises:
        ValueError: a job does not give the same result in every round.
    """
    seconds = dict.fromkeys(jobs, math.inf)
    results: dict[str, T] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            result = job()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
            if results.setdefault(name, result) != result:
                raise ValueError(f"{name}: not the same result in every round")
    return seconds, results


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def at_most(limit: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in 1 … `limit`."""

    def whole_number(text: str) -> int:
        number = positive(text)
        if number > limit:
            raise argparse.ArgumentTypeError(f"must be at most {limit}, not {number}")
        return number

    return whole_number


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
    parser.add_argument("--tiles", type=at_most(MAX_TILES), default=4)
    parser.add_argument("--size", type=at_most(MAX_SIZE), default=500)
    parser.add_argument("--diameter", type=at_most(MAX_DIAMETER), default=5)
    parser.add_argument("--workers", type=at_most(MAX_WORKERS), default=2)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n, size, n_workers = options.tiles, options.size, options.workers
    print(
        f"{n} tiles of {size} x {size} pixels, {n_workers} workers, "
        f"{usable_cores()} cores, GIL {gil_state()}"
    )
    cv2.setNumThreads(1)  # before its threads start: a fork would leave them behind

    with tempfile.TemporaryDirectory() as folder:
        sources = write_tiles(Path(folder), n, size, size)
        jobs: dict[str, list[Job]] = {}
        for way in ("sequential", "pickles", "names", "threads"):
            target = Path(folder, way)
            target.mkdir()
            jobs[way] = [
                Job(source, target / source.name, options.diameter)
                for source in sources
            ]
        with process_pool(n_workers) as pool, ThreadPoolExecutor(n_workers) as threads:
            seconds, _ = side_by_side(
                {
                    "sequential": lambda: one_by_one(jobs["sequential"]),
                    "pickles": lambda: with_pickles(pool, jobs["pickles"]),
                    "names": lambda: with_names(pool, jobs["names"]),
                    "threads": lambda: with_threads(threads, jobs["threads"]),
                }
            )
            tile = read_picture(sources[0])
            to_move = ms_per_call(lambda: pool.submit(np.copy, tile).result())
        to_read = ms_per_call(lambda: read_picture(sources[0]))
        to_filter = ms_per_call(lambda: denoise(tile, options.diameter))
        to_write = ms_per_call(lambda: write_picture(Path(folder, "again.png"), tile))
        for way, its_jobs in jobs.items():
            if results(its_jobs) != results(jobs["sequential"]):
                raise SystemExit(f"{way}: other pictures than one by one")
        moved = {
            "sequential": 0,
            "pickles": moved_by_pickles(jobs["pickles"]),
            "names": moved_by_names(jobs["names"]),
            "threads": 0,
        }

    for way, took in seconds.items():
        print(
            f"{way:11} {took:7.3f} s {seconds['sequential'] / took:6.2f}x  "
            f"moved {moved[way] / KIB:8.1f} KiB"
        )
    print(
        f"a tile takes {to_read:.1f} ms to read, {to_filter:.1f} ms to filter, "
        f"{to_write:.1f} ms to write; {to_move:.1f} ms to move"
    )
    print("all four wrote the same pictures, byte for byte")
    if options.plot:
        plot(seconds, moved, options.plot)


if __name__ == "__main__":
    main()
