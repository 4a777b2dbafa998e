# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""A pool gets names of files: the workers read, compute and write, no pixel is pickled.

What a worker needs it can fetch itself, and what it makes it can leave where it is
wanted. A path goes out, nothing comes back. And more is shared out than in example05:
there, reading and writing would be left to the parent, one file after the other, and to
decompress a PNG and compress another takes several times as long as the threshold.

The price is that a worker's result is a file: something that may be there in part, or
left from yesterday. Example 10 shows how to be sure of it. And where pictures do not
come from files, and are not to end as files, they can lie in shared memory: example09.

Book: Chapter 8, example6.
Try:  --size 1000
Try:  --workers 1

Output:
    12 tiles of 500 x 500 pixels, <cores> workers
    sequential     0.060 s   1.00x
    pool           0.033 s   1.84x
    moved           1.56 KiB there, 0.05 KiB back, instead of 11.44 MiB
    each file of the pool equals the sequential one at every pixel
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
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
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

KIB, MIB = 1024, 1024 * 1024
BLOCK, LESS = 25, 8  # pixels, grey levels
MAX_WORKERS = 61  # of a process pool on Windows
MAX_TILES, MAX_SIZE = 100, 1000

Picture = NDArray[np.uint8]
Job = tuple[Path, Path]  # what to read, what to write
T = TypeVar("T")


def threshold(picture: Picture) -> Picture:
    """Return white where a pixel is about as light as its surroundings, else black.

    Takes rows x columns x 3 (blue, green, red), returns rows x columns.
    """
    grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
    method, kind = cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY
    return np.asarray(
        cv2.adaptiveThreshold(grey, 255, method, kind, BLOCK, LESS), np.uint8
    )


def threshold_file(job: Job) -> None:
    """Read a picture, threshold it, and write the result to another file.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: it is no picture.
    """
    source, target = job
    write_picture(target, threshold(read_picture(source)))


def threshold_file_alone(job: Job) -> None:
    """The same by one thread, as OpenCV counts them; this is what a worker does."""
    cv2.setNumThreads(0)  # 1 might wait for threads that a fork has left behind
    threshold_file(job)


def threshold_files_with(executor: Executor, jobs: Sequence[Job]) -> int:
    """Let `executor` do `jobs`; return how many there were.

    Raises:
        what the first job that failed has raised; the others may be done or not.
    """
    return len(list(executor.map(threshold_file_alone, jobs)))


def same_pixels(one: Path, other: Path) -> bool:
    """Tell whether two files hold the same picture, pixel by pixel."""
    return np.array_equal(read_picture(one), read_picture(other))


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tiles", type=at_most(MAX_TILES), default=12)
    parser.add_argument("--size", type=at_most(MAX_SIZE), default=500)
    parser.add_argument(
        "--workers", type=at_most(MAX_WORKERS), default=min(usable_cores(), MAX_WORKERS)
    )
    options = parser.parse_args()
    n, size = options.tiles, options.size
    print(f"{n} tiles of {size} x {size} pixels, {options.workers} workers")
    cv2.setNumThreads(1)  # before its threads start: a fork would leave them behind

    with tempfile.TemporaryDirectory() as name:
        sources = write_tiles(Path(name), n, size, size)

        def jobs(kind: str) -> list[Job]:
            folder = Path(name, kind)
            folder.mkdir()
            return [(source, folder / source.name) for source in sources]

        one_by_one, shared_out = jobs("sequential"), jobs("pool")
        with process_pool(options.workers) as pool:
            seconds, _ = side_by_side(
                {
                    "sequential": lambda: len(list(map(threshold_file, one_by_one))),
                    "pool": lambda: threshold_files_with(pool, shared_out),
                }
            )
        pairs = zip(one_by_one, shared_out, strict=True)
        if not all(same_pixels(one, other) for (_, one), (_, other) in pairs):
            raise SystemExit("the pool wrote another result")
        there = sum(len(pickle.dumps(job)) for job in shared_out)
        back = n * len(pickle.dumps(None))

    first = seconds["sequential"]
    for name, its_seconds in seconds.items():
        print(f"{name:13} {its_seconds:6.3f} s {first / its_seconds:6.2f}x")
    pixels = n * size * size * (3 + 1)  # three bytes a pixel there, one back
    print(
        f"moved         {there / KIB:6.2f} KiB there, {back / KIB:.2f} KiB back, "
        f"instead of {pixels / MIB:.2f} MiB"
    )
    print("each file of the pool equals the sequential one at every pixel")


if __name__ == "__main__":
    main()
