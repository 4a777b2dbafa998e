# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
#     "tqdm>=4.66.0",
# ]
# ///
"""A batch goes on where it was interrupted, and names the files that are no picture.

A pool of processes gets the names of the files. What makes the batch one to rely on:

* A result is written under another name and gets its own in one step (`os.replace`):
  what is there is whole. There is no `fsync`, which helps against power cuts only; what
  they take can be made again. (An empty result does not count.)
* A result bears the time of its source, looked up before the source was read. Where the
  times differ, the source has changed and is done again. All else is not even read.
* A file that is empty, truncated, no picture, or gone when its turn comes gets one line
  at the end and keeps nobody waiting.
* After Ctrl-C, the few pictures in flight are finished, and nothing new begins.
* When a worker dies, the whole pool is broken. The batch makes a new one, and tries
  what was in flight again, one at a time, to find out which picture kills its worker.

The workers call `cv2.setNumThreads(0)`: the pool occupies the cores already. (With 1, a
forked worker hangs if OpenCV had threads in the parent: it waits for them to end.)

Here an interruption and a death are forced. With `--input`, black and white pictures
are made of your own. The progress bar, of tqdm, is drawn on terminals only.

Try:  --input photographs --output thresholded
Try:  --workers 4

Output:
    17 files, 12 of them pictures, 2 workers
    run 1  interrupted: 6 finished, 6 not begun
    run 2  1 worker killed: 6 finished, 0 of run 1 read again
    run 3  tile_00.jpg has changed: read again tile_00.jpg

    empty.png    empty
    gone.jpg     No such file or directory
    half.jpg     truncated or damaged
    half.png     truncated or damaged
    letter.jpg   no picture that OpenCV can read
    12 pictures finished, 5 files named, nothing left
"""

import argparse
import os
import signal
import sys
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from queue import SimpleQueue

import numpy as np
from example01_read_and_look import read_picture
from generate_input import write_picture, write_tiles
from tqdm import tqdm

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    print("needs opencv-python-headless")
    raise SystemExit(77) from None

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
IN_FLIGHT = 2  # pictures for each worker: one in work, and the next
MAX_WORKERS = 61  # of a process pool on Windows
WHITE, BLOCK, LESS = 255, 35, 10  # of the threshold: see example04
OUTCOMES = 8  # of the demonstration's first run, before it is interrupted

Witness = Callable[[str, Path], object]


def nobody(step: str, source: Path) -> None:
    """Watch nothing. (A worker must be able to import it.)"""


def pictures_in(folder: Path) -> list[Path]:
    """Return the files in `folder` that are called pictures, by name."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )


def result_of(source: Path, output: Path) -> Path:
    """Return where the result goes; `a.png` and `a.jpg` may stand side by side."""
    return output / f"{source.name}.png"


def is_finished(source: Path, output: Path) -> bool:
    """Tell whether there is a result that was made from `source` as it is now."""
    try:
        given, made = source.stat(), result_of(source, output).stat()
    except OSError:
        return False
    return made.st_size > 0 and made.st_mtime_ns == given.st_mtime_ns


def threshold_file(source: Path, output: Path, parts: Path, witness: Witness) -> None:
    """Make a black and white picture of `source`: the job of a worker.

    Args:
        parts: the folder for what is not finished, on the same disk as `output`.
        witness: called with "read", and with "written" before the result is in place.

    Raises:
        OSError: the source cannot be read, or the result not be written.
        ValueError: the source is not a whole picture.
    """
    cv2.setNumThreads(0)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    # Looked up before reading: if the source changes meanwhile, the next run notices.
    time = source.stat().st_mtime_ns
    picture = read_picture(source)
    witness("read", source)
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    method, kind = cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY
    cut = cv2.adaptiveThreshold(grey, WHITE, method, kind, BLOCK, LESS)
    result = result_of(source, output)
    part = parts / result.name
    write_picture(part, np.asarray(cut, np.uint8))
    os.utime(part, ns=(time, time))
    witness("written", source)
    part.replace(result)


def run_batch(
    sources: Sequence[Path],
    output: Path,
    n_workers: int,
    progress: Callable[[Path], object] = lambda _: None,
    witness: Witness = nobody,
) -> dict[Path, str]:
    """Make the results that are not there yet; return what is wrong with which file.

    Args:
        progress: called with each source, in this thread: finished, now or before, or
            given up. If it raises, or at Ctrl-C, what is in flight is still finished.

    Raises:
        OSError: nothing can be written in `output`.
    """
    failures: dict[Path, str] = {}
    waiting: deque[Path] = deque()
    suspects: deque[Path] = deque()  # in flight when a worker died

    def note(source: Path, failure: BaseException | None = None) -> None:
        if failure is not None:
            failures[source] = reason(source, failure)
        progress(source)

    for source in sources:
        if is_finished(source, output):
            note(source)
        else:
            waiting.append(source)
    with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=output) as name:
        job = partial(threshold_file, output=output, parts=Path(name), witness=witness)
        while waiting or suspects:
            alone = bool(suspects)
            n, most = (1, 1) if alone else (n_workers, IN_FLIGHT * n_workers)
            with process_pool(n) as pool:
                lost = work_off(suspects or waiting, pool, job, most, note)
            for source in lost:
                if is_finished(source, output):  # at the very last moment
                    note(source)
                elif alone:
                    note(source, ChildProcessError("kills whoever works on it"))
                else:
                    suspects.append(source)
    return failures


def work_off(
    sources: deque[Path],
    pool: ProcessPoolExecutor,
    job: Callable[[Path], None],
    most: int,
    note: Callable[[Path, BaseException | None], object],
) -> list[Path]:
    """Do the job for all `sources`, `most` at a time, until a worker dies.

    Args:
        note: called with a source whose job is done, and the exception if it failed.

    Returns:
        those that were in flight when a worker died. What had not begun then is still
        in `sources`.
    """
    in_flight: dict[Future[None], Path] = {}
    done: SimpleQueue[Future[None]] = SimpleQueue()
    lost: list[Path] = []
    broken = False
    try:
        while True:
            while sources and not broken and len(in_flight) < most:
                with ctrl_c_later():  # amid submit it could leave a lock locked
                    try:
                        future = pool.submit(job, sources[0])
                    except BrokenProcessPool:
                        broken = True
                        break
                    in_flight[future] = sources.popleft()
                    future.add_done_callback(done.put)
            if not in_flight:
                return lost
            future = done.get()
            source, failure = in_flight.pop(future), future.exception()
            if isinstance(failure, BrokenProcessPool):
                broken = True
                lost.append(source)
            else:
                note(source, failure)
    finally:
        wait(in_flight)  # also after Ctrl-C


def reason(source: Path, failure: BaseException) -> str:
    """Return in a few words what went wrong with `source`."""
    match failure:
        case OSError(strerror=str(words), filename=name):
            return words if name in {str(source), None} else f"{name}: {words}"
        case OSError() | ValueError():
            return str(failure).removeprefix(f"{source}: ")
    return f"{type(failure).__name__}: {failure}"  # a mistake in the program


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


@dataclass(frozen=True, slots=True)
class Notebook:
    """A witness that writes down what it sees, and kills one worker, once.

    Attributes:
        deadly: the file whose result is written, but not in place, when this happens.
    """

    file: Path
    deadly: Path

    def __call__(self, step: str, source: Path) -> None:
        kill = step == "written" and source == self.deadly
        kill = kill and not self.seen(step)[source.name]
        with self.file.open("a", encoding="utf-8") as file:
            file.write(f"{step} {source.name}\n")  # one small write: lines stay whole
        if kill:
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    def seen(self, step: str) -> Counter[str]:
        """Return how often each name was seen at `step`."""
        lines = [line.split() for line in self.file.read_text("utf-8").splitlines()]
        return Counter(name for one, name in lines if one == step)


def fill(folder: Path, n_tiles: int) -> None:
    """Write into `folder` what is whole, and what is not."""
    (folder / "empty.png").touch()
    (folder / "gone.jpg").touch()
    (folder / "letter.jpg").write_text("Dear reader, this is no picture.")
    for suffix in (".png", ".jpg"):
        (file,) = write_tiles(folder, 1, suffix=suffix)
        data = file.read_bytes()
        file.replace(folder / f"half{suffix}").write_bytes(data[: len(data) // 2])
    write_tiles(folder, n_tiles, suffix=".jpg")


class ForcedInterrupt(KeyboardInterrupt):
    """Ctrl-C, but not the reader's own: that one ends the demonstration."""


def interrupted_at(count: int) -> Callable[[Path], None]:
    """Return a progress that raises at its call number `count`."""
    calls = iter(range(1, count))

    def progress(_: Path) -> None:
        if next(calls, None) is None:
            raise ForcedInterrupt

    return progress


def demonstrate(folder: Path, n_workers: int) -> None:
    given, output = folder / "given", folder / "output"
    given.mkdir()
    output.mkdir()
    fill(given, OUTCOMES + IN_FLIGHT * n_workers)  # not all begin in the first run
    sources = pictures_in(given)
    (given / "gone.jpg").unlink()  # between the listing and the reading
    tiles = [source for source in sources if source.stem.startswith("tile")]
    print(f"{len(sources)} files, {len(tiles)} of them pictures, {n_workers} workers")

    notebook = Notebook(folder / "notes", deadly=tiles[-3])
    notebook.file.touch()
    with suppress(ForcedInterrupt):
        run_batch(sources, output, n_workers, interrupted_at(OUTCOMES), notebook)
    first = [tile for tile in tiles if is_finished(tile, output)]
    rest = len(tiles) - len(first)
    print(f"run 1  interrupted: {len(first)} finished, {rest} not begun")
    if not first or not rest or len(list(output.iterdir())) != len(first):
        raise SystemExit("some pictures were to be finished, and nothing else be there")
    if notebook.seen("read") != Counter(tile.name for tile in first):
        raise SystemExit("what was begun was to be read once, and be finished")

    run_batch(sources, output, n_workers, witness=notebook)
    reads = notebook.seen("read")
    again = sum(reads[tile.name] > 1 for tile in first)
    deaths = notebook.seen("written")[notebook.deadly.name] - 1
    print(
        f"run 2  {deaths} worker killed: {rest} finished, {again} of run 1 read again"
    )
    if deaths != 1 or again or not all(is_finished(tile, output) for tile in tiles):
        raise SystemExit(
            "a worker was to die, and the rest to be finished all the same"
        )

    changed = tiles[0]
    changed.write_bytes(tiles[1].read_bytes())
    os.utime(changed, ns=(0, 0))
    failures = run_batch(sources, output, n_workers, witness=notebook)
    read = " ".join((notebook.seen("read") - reads).elements())
    print(f"run 3  {changed.name} has changed: read again {read}")
    if read != changed.name:
        raise SystemExit(f"nothing else was to be read than {changed.name}")
    print()
    for source, why in sorted(failures.items()):
        print(f"{source.name:12} {why}")
    if failures.keys() != set(sources) - set(tiles):
        raise SystemExit("all files that are no whole picture were to be named")
    if len(list(output.iterdir())) != len(tiles):
        raise SystemExit(
            "there was to be one result for each picture, and nothing else"
        )
    print(f"{len(tiles)} pictures finished, {len(failures)} files named, nothing left")


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--input", type=Path, metavar="FOLDER")
    parser.add_argument("--output", type=Path, metavar="FOLDER")
    parser.add_argument("--workers", type=workers)
    options = parser.parse_args()
    given, output = options.input, options.output
    if (given is None) != (output is None):
        parser.error("--input and --output belong together")
    cv2.setNumThreads(0)  # threads should not be forked
    if given is None:
        with tempfile.TemporaryDirectory() as folder:
            demonstrate(Path(folder), options.workers or 2)
        return

    try:
        sources = pictures_in(given)
        output.mkdir(parents=True, exist_ok=True)
        if output.samefile(given):
            parser.error("--output must be another folder than --input")
        tqdm.monitor_interval = 0  # no thread of its own: processes are forked after it
        with tqdm(total=len(sources), unit="picture", disable=None) as bar:
            n_workers = options.workers or min(usable_cores(), MAX_WORKERS)
            failures = run_batch(sources, output, n_workers, lambda _: bar.update())
    except OSError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        n = sum(is_finished(source, output) for source in sources)
        print(f"interrupted: {n} of {len(sources)} finished; run it again for the rest")
        raise SystemExit(130) from None
    for source, why in failures.items():
        print(f"{source}: {why}")
    print(f"{len(sources) - len(failures)} of {len(sources)} finished")
    if failures:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
