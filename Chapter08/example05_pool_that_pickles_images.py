# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "matplotlib>=3.8.0",
#     "numpy>=1.26.0",
#     "opencv-python-headless>=4.10.0,<5",
# ]
# ///
"""A pool gets pictures and returns pictures: every pixel is pickled, there and back.

The obvious way, `pool.map(threshold, tiles)`, gives the right answer and takes longer
than no pool at all. What a process is sent has to be pickled, written to a pipe, read
from it, and unpickled, and so has the result. The workers are many, but everything that
they are sent goes through the hands of the one parent.

The last measurement sends the same pictures to the same workers, who compute nothing
and return as many pixels as the result has. It is a bound: no filter in this pool is
done sooner. So what counts is how long a filter works on each byte that it is sent. For
a threshold that is too short. A filter that works longer would gain (see example08), or
the pixels stay where they are (see example06).

OpenCV has threads of its own, which would fight with the workers over the cores, and
which a fork leaves behind: a forked worker that waits for them waits for ever
(https://github.com/opencv/opencv/issues/5150). So the parent starts none, which is what
`cv2.setNumThreads(1)` at the beginning says, and neither do the workers. These say
`cv2.setNumThreads(0)`, because to come down to 1 is to wait for the others to end.

Book: Chapter 8, example5.
Try:  --size 1000
Try:  --workers 1

Output:
    24 tiles of 500 x 500 pixels, <cores> workers
    sequential     0.015 s   1.00x
    pool           0.026 s   0.57x
    moving alone   0.014 s   1.06x
    moved          17.17 MiB there, 5.73 MiB back
    each result of the pool equals the sequential one at every pixel
"""

import argparse
import math
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import TypeVar

import numpy as np
from generate_input import scene
from numpy.typing import NDArray

try:
    import cv2
except ModuleNotFoundError:  # there is no wheel for free-threaded builds
    print("needs opencv-python-headless")
    raise SystemExit(77) from None

MIB = 1024 * 1024
BLOCK, LESS = 25, 8  # pixels, grey levels
MAX_WORKERS = 61  # of a process pool on Windows
MAX_TILES, MAX_SIZE = 100, 1000

Picture = NDArray[np.uint8]
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


def threshold_alone(picture: Picture) -> Picture:
    """Return `threshold(picture)`, found by one thread; this is what a worker does."""
    cv2.setNumThreads(0)  # 1 might wait for threads that a fork has left behind
    return threshold(picture)


def compute_nothing(picture: Picture) -> Picture:
    """Take and return as many pixels as `threshold` does."""
    return np.zeros(picture.shape[:2], np.uint8)


def threshold_with(executor: Executor, pictures: Sequence[Picture]) -> list[Picture]:
    """Return the thresholds of `pictures`, in their order, found by `executor`."""
    return list(executor.map(threshold_alone, pictures))


def pickled_size(pictures: Sequence[Picture]) -> int:
    """Return the number of bytes that `pictures` are on their way between processes."""
    return sum(len(pickle.dumps(picture)) for picture in pictures)


def same_pixels(ones: Sequence[Picture], others: Sequence[Picture]) -> bool:
    """Tell whether two lists of pictures are the same, pixel by pixel."""
    return len(ones) == len(others) and all(map(np.array_equal, ones, others))


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
    parser.add_argument("--tiles", type=at_most(MAX_TILES), default=24)
    parser.add_argument("--size", type=at_most(MAX_SIZE), default=500)
    parser.add_argument(
        "--workers", type=at_most(MAX_WORKERS), default=min(usable_cores(), MAX_WORKERS)
    )
    options = parser.parse_args()
    n, size = options.tiles, options.size
    print(f"{n} tiles of {size} x {size} pixels, {options.workers} workers")
    cv2.setNumThreads(1)  # before its threads start: a fork would leave them behind

    tiles = [scene(size, size, seed) for seed in range(n)]
    found: dict[str, list[Picture]] = {}
    with process_pool(options.workers) as pool:

        def keep(name: str, results: list[Picture]) -> int:
            found[name] = results
            return len(results)

        seconds, _ = side_by_side(
            {
                "sequential": lambda: keep("sequential", [threshold(t) for t in tiles]),
                "pool": lambda: keep("pool", threshold_with(pool, tiles)),
                "moving alone": lambda: len(list(pool.map(compute_nothing, tiles))),
            }
        )
    if not same_pixels(found["pool"], found["sequential"]):
        raise SystemExit("the pool gave another result")

    one = seconds["sequential"]
    for name, its_seconds in seconds.items():
        print(f"{name:13} {its_seconds:6.3f} s {one / its_seconds:6.2f}x")
    there, back = pickled_size(tiles), pickled_size(found["pool"])
    print(f"moved         {there / MIB:6.2f} MiB there, {back / MIB:.2f} MiB back")
    print("each result of the pool equals the sequential one at every pixel")


if __name__ == "__main__":
    main()
