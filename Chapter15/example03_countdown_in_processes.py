"""Two processes count down nearly twice as fast as one: each has a GIL of its own.

The same countdown as in example02, in halves by two processes. They share no object, so
no reference count and no GIL, and nothing keeps them from running at the same time, on
every build. The price: to start them, which is paid once if a pool keeps them, and to
send arguments and results as pickles, which here are a few numbers.

Each process measures its own CPU time and sends it along. The sum, divided by the time
on the wall, says how many cores were busy.

Book: Chapter 15, example3.
Try:  --processes 4
Try:  --steps 10000000

Output:
    Python <version>, GIL <gil>, <cores> cores
    4,000,000 steps      wall       CPU  cores busy
    one process        0.41 s    0.41 s       100 %
    2 processes        0.23 s    0.38 s       161 %
    to start them      0.01 s
    2 processes are 1.75x as fast as one, and keep 161 % of a core busy
"""

import argparse
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker

STEPS = 4_000_000  # some 0.2 s: the system needs a moment to spread processes
MAX_STEPS = 20_000_000  # Ctrl-C has to wait until the processes have counted them
MAX_PROCESSES = 61  # of a process pool on Windows


@dataclass(frozen=True, slots=True)
class Countdown:
    """What counting down took.

    Attributes:
        steps: how many were counted.
        cpu: seconds for which cores worked at it.
    """

    steps: int
    cpu: float


def count_down(n: int) -> Countdown:
    """Count from `n` down to zero, in this thread."""
    cpu = time.thread_time()
    steps = 0
    while n > 0:
        n -= 1
        steps += 1
    return Countdown(steps, time.thread_time() - cpu)


def split(n: int, n_parts: int) -> list[int]:
    """Cut `n` into `n_parts` nearly equal parts."""
    return [(n + k) // n_parts for k in range(n_parts)]


@dataclass(frozen=True, slots=True)
class Timing:
    """What a job took.

    Attributes:
        steps: how many were counted, in all parts together.
        wall: seconds from its beginning to its end.
        cpu: seconds for which cores worked at it, all together.
    """

    steps: int
    wall: float
    cpu: float

    @property
    def cores_busy(self) -> float:
        """How many cores were kept busy, on average."""
        return self.cpu / self.wall


def measure(job: Callable[[], Iterable[Countdown]]) -> Timing:
    """Do a job that counts down in one part or several; return what it took."""
    began = time.perf_counter()
    parts = list(job())
    wall = time.perf_counter() - began
    return Timing(sum(p.steps for p in parts), wall, sum(p.cpu for p in parts))


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


def in_range(least: int, most: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in `least` … `most`."""

    def whole_number(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be in {least} … {most}, not {number}"
            )
        return number

    return whole_number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=in_range(STEPS, MAX_STEPS), default=STEPS)
    parser.add_argument("--processes", type=in_range(2, MAX_PROCESSES), default=2)
    options = parser.parse_args()
    n, n_processes = options.steps, options.processes

    alone = measure(lambda: [count_down(n)])
    began = time.perf_counter()
    with process_pool(n_processes) as pool:
        start = time.perf_counter() - began
        shared = measure(lambda: pool.map(count_down, split(n, n_processes)))

    print(
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(f"{f'{n:,} steps':16}     wall       CPU  cores busy")
    name = f"{n_processes} processes"
    for job, timing in (("one process", alone), (name, shared)):
        print(
            f"{job:16}{timing.wall:7.2f} s {timing.cpu:7.2f} s"
            f"{100 * timing.cores_busy:10.0f} %"
        )
        if timing.steps != n:
            raise SystemExit(f"{job}: counted {timing.steps} steps")
    print(f"{'to start them':16}{start:7.2f} s")
    print(
        f"{name} are {alone.wall / shared.wall:.2f}x as fast as one, "
        f"and keep {100 * shared.cores_busy:.0f} % of a core busy"
    )


if __name__ == "__main__":
    main()
