"""With a GIL, two threads count down no faster than one: they take turns on one core.

The work is a loop in Python and nothing else. It is done as a whole, then in halves by
two threads. With a GIL only the thread that holds it runs. One that wants it waits some
5 ms (`sys.getswitchinterval`), then asks for it, and gets it at the other one's next
backward jump or call. So each thread stands still half of the time.

The clock on the wall does not tell that from a slow core, but CPU time does. Divided by
wall time it says how many cores were busy, and with a GIL threads never keep more than
one. On a free-threaded build, `GIL off`, the same lines keep two busy if there are two.

Book: Chapter 15, example2.
Try:  --threads 4
Try:  --steps 10000000

Output:
    Python <version>, GIL <gil>, <cores> cores
    1,500,000 steps      wall       CPU  cores busy
    one thread         0.16 s    0.15 s        97 %
    2 threads          0.15 s    0.14 s        98 %
    2 threads are 1.06x as fast as one, and keep 98 % of a core busy
"""

import argparse
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

STEPS = 1_500_000  # some 0.1 s
MAX_STEPS = 10_000_000  # Ctrl-C has to wait until the threads have counted them
MAX_THREADS = 64
LIMIT = 10.0  # seconds until all threads must be there
PARALLEL = 1.5  # cores busy: more than one by far, also with a coarse clock (Windows)


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


def in_threads(n: int, n_threads: int) -> list[Countdown]:
    """Count down `n` steps in parts, each in a thread of its own.

    They begin together. Otherwise one that has done its part might do the next one's.

    Raises:
        threading.BrokenBarrierError: not all were there within LIMIT seconds.
    """
    all_there = threading.Barrier(n_threads, timeout=LIMIT)

    def count_part(n: int) -> Countdown:
        all_there.wait()
        return count_down(n)

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            return list(pool.map(count_part, split(n, n_threads)))
        finally:  # after Ctrl-C, some may wait for others that were never started
            all_there.abort()


def report(n: int, timings: Mapping[str, Timing]) -> None:
    """Print what counting down `n` steps took, a line for each name.

    Raises:
        SystemExit: another number of steps was counted.
    """
    print(f"{f'{n:,} steps':16}     wall       CPU  cores busy")
    for name, timing in timings.items():
        print(
            f"{name:16}{timing.wall:7.2f} s {timing.cpu:7.2f} s"
            f"{100 * timing.cores_busy:10.0f} %"
        )
        if timing.steps != n:
            raise SystemExit(f"{name}: counted {timing.steps} steps")


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
    parser.add_argument("--threads", type=in_range(2, MAX_THREADS), default=2)
    options = parser.parse_args()
    n, n_threads = options.steps, options.threads

    alone = measure(lambda: [count_down(n)])
    try:
        shared = measure(lambda: in_threads(n, n_threads))
    except threading.BrokenBarrierError:
        raise SystemExit(f"{n_threads} threads were to begin together") from None

    print(
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    name = f"{n_threads} threads"
    report(n, {"one thread": alone, name: shared})
    if shared.cores_busy > PARALLEL and gil_state() == "on":
        raise SystemExit("threads ran Python code side by side, in spite of the GIL")
    print(
        f"{name} are {alone.wall / shared.wall:.2f}x as fast as one, "
        f"and keep {100 * shared.cores_busy:.0f} % of a core busy"
    )


if __name__ == "__main__":
    main()
