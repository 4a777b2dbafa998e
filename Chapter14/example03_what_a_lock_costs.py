# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""A lock itself costs nanoseconds; what is done while holding it is done one by one.

The book's third listing lets twenty threads add to a counter, each with a pause between
read and write, and a lock held all the while. They take as long as one thread that does
everything, so the book says that locks make a concurrent program sequential. That is
true of what is done while a lock is held, and in the listing nothing else is done. But
the pause stands for a computation that does not need the counter. Moved before the
acquire, it is done by all threads at the same time.

What remains is the price of acquire and release, nanoseconds for each increment. Under
a GIL threads seldom want the lock at the same moment, as only one runs, and on a quiet
machine the price hardly depends on how many they are. Without a GIL they do want it at
once, put each other to sleep and wake each other, and the price rises.

Two designs spare that. Each thread counts for itself and adds its sum once, which
nobody else sees before. Or each has a shard, a counter with a lock of its own, for
which it has to wait only while somebody asks for the total.

Book: Chapter 14, example3.
Try:  --increments 1000000
Try:  --plot locks.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    10 updates, each with a pause of 0.02 s
      1 thread                       0.202 s
      10 threads, lock held          0.203 s
      10 threads, lock not held      0.021 s
    100000 increments, the time for each
      1 thread, no lock               75.6 ns
      1 thread, a lock               518.2 ns
      2 threads, the same lock       507.0 ns
      4 threads, the same lock       516.4 ns
      8 threads, the same lock       543.7 ns
      8 threads, a lock for each     553.2 ns
      8 threads, the lock once each   69.0 ns
    all of them count right, and they differ in what that costs
"""

import argparse
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

LIMIT = 10.0  # seconds that a thread waits for the others to start
UPDATES = 10  # each with a pause
PAUSE = 0.02  # seconds
MOST = 10_000_000  # increments that may be asked for


class Counter:
    """A counter for many threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value = 0  # guarded by the lock

    def add_unlocked(self, times: int) -> None:
        """Add 1 so often; broken if another thread uses the counter meanwhile."""
        for _ in range(times):
            self.value += 1

    def add(self, times: int) -> None:
        """Add 1 so often, and hold the lock for each addition."""
        for _ in range(times):
            with self.lock:
                self.value += 1

    def add_at_the_end(self, times: int) -> None:
        """Add 1 so often to a number of this thread, and then that to the counter."""
        own = 0
        for _ in range(times):
            own += 1
        with self.lock:
            self.value += own

    def update_holding(self, pause: float) -> None:
        """Add 1, and compute while holding the lock, as the book does."""
        with self.lock:
            seen = self.value
            time.sleep(pause)
            self.value = seen + 1

    def update_after(self, pause: float) -> None:
        """Add 1, and compute before."""
        time.sleep(pause)
        with self.lock:
            self.value += 1


def total(shards: Sequence[Counter]) -> int:
    """Return the sum of several counters.

    They are read one after the other. While threads add to them, the sum may be one
    that they never had at any one moment.
    """
    value = 0
    for shard in shards:
        with shard.lock:
            value += shard.value
    return value


def seconds_for(jobs: Sequence[Callable[[], object]]) -> float:
    """Do all jobs, each in a thread of its own; return how long it took.

    The time is counted from when all threads are there.

    Raises:
        Exception: what a job raises.
    """
    began = 0.0

    def start_the_clock() -> None:
        nonlocal began
        began = time.perf_counter()

    together = threading.Barrier(len(jobs), start_the_clock, LIMIT)

    def work(job: Callable[[], object]) -> None:
        together.wait()
        job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        try:
            futures = [pool.submit(work, job) for job in jobs]
            for future in futures:
                future.result()
            return time.perf_counter() - began
        finally:  # after Ctrl-C, some may wait for others that were never started
            together.abort()


def compare_pauses() -> None:
    """Time the book's listing, and its mend."""

    def report(name: str, counter: Counter, jobs: list[Callable[[], object]]) -> float:
        seconds = seconds_for(jobs)
        print(f"  {name:29}{seconds:7.3f} s")
        if counter.value != UPDATES:
            raise SystemExit(f"{name}: {counter.value} updates instead of {UPDATES}")
        return seconds

    print(f"{UPDATES} updates, each with a pause of {PAUSE:g} s")
    counter = Counter()
    pause = partial(counter.update_holding, PAUSE)
    report("1 thread", counter, [lambda: [pause() for _ in range(UPDATES)]])
    counter = Counter()
    jobs = [partial(counter.update_holding, PAUSE)] * UPDATES
    seconds = report(f"{UPDATES} threads, lock held", counter, [*jobs])
    if seconds < 0.9 * UPDATES * PAUSE:  # the clock of a sleep may be a coarse one
        raise SystemExit("while holding the lock, they were to pause one by one")
    counter = Counter()
    jobs = [partial(counter.update_after, PAUSE)] * UPDATES
    report(f"{UPDATES} threads, lock not held", counter, [*jobs])


def compare_locks(n: int) -> dict[str, float]:
    """Time n increments in several designs; return nanoseconds for each, by name."""
    taken: dict[str, float] = {}

    def report(name: str, shards: list[Counter], jobs: list[partial[None]]) -> None:
        taken[name] = seconds_for(jobs) / n * 1e9
        print(f"  {name:29}{taken[name]:7.1f} ns")
        if total(shards) != n:
            raise SystemExit(f"{name}: {total(shards)} increments instead of {n}")

    print(f"{n} increments, the time for each")
    counter = Counter()
    report("1 thread, no lock", [counter], [partial(counter.add_unlocked, n)])
    counter = Counter()
    report("1 thread, a lock", [counter], [partial(counter.add, n)])
    for threads in (2, 4, 8):
        counter = Counter()
        jobs = [partial(counter.add, n // threads)] * threads
        report(f"{threads} threads, the same lock", [counter], jobs)
    shards = [Counter() for _ in range(8)]
    jobs = [partial(shard.add, n // 8) for shard in shards]
    report("8 threads, a lock for each", shards, jobs)
    counter = Counter()
    jobs = [partial(counter.add_at_the_end, n // 8)] * 8
    report("8 threads, the lock once each", [counter], jobs)
    return taken


def plot(taken: Mapping[str, float], file: Path) -> None:
    """Draw the nanoseconds of an increment in each design."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    colours = ["#1b4f8a" if "lock once" in name else "#7d8793" for name in taken]
    bars = axes.barh(list(taken), list(taken.values()), color=colours)
    axes.bar_label(bars, fmt="%.0f ns", padding=3, fontsize=11)
    axes.margins(x=0.12)
    axes.set_xlabel("time for an increment [ns]")
    axes.set_title(
        f"A lock taken once by each thread costs next to nothing (GIL {gil_state()})",
        fontsize=13,
        fontweight="bold",
    )
    axes.invert_yaxis()  # the first design on top
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(left=False, labelsize=11)
    figure.savefig(file, dpi=120)


def increments(text: str) -> int:
    number = int(text)
    if not 8 <= number <= MOST or number % 8:
        raise argparse.ArgumentTypeError(
            f"must be a multiple of 8 from 8 to {MOST}, not {number}"
        )
    return number


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
    parser.add_argument("--increments", type=increments, default=100_000)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    version = platform.python_version()
    print(f"Python {version}, GIL {gil_state()}, {usable_cores()} cores")
    compare_pauses()
    taken = compare_locks(options.increments)
    if options.plot is not None:
        plot(taken, options.plot)
    print("all of them count right, and they differ in what that costs")


if __name__ == "__main__":
    main()
