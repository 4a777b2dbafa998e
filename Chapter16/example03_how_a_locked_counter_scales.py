# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""More threads do not count faster if all of them need the same lock.

The same number of increments is shared out to 1, 2, 4 and 8 threads, once with a single
counter, that of example02, and once with a counter for each thread, which nobody else
touches. With a single one the critical sections come one after the other, whatever the
number of cores. So the best to hope for is a time that stays level.

Under a GIL both stay about level, as one thread runs at a time. It seldom loses the GIL
within the few bytecodes of the critical section, so the lock is nearly always free for
the next one. Without a GIL, counters of their own can be incremented on all cores at
once. A single one cannot: threads that find the lock taken may have to sleep and to be
woken, and lock and value move from the cache of one core to that of another.

A counter scales if threads that only increment need not meet: see example04.

Book: Chapter 16, example3.
Try:  --increments 200000
Try:  --plot scaling.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    32,000 increments      one counter     a counter each
      1 thread             10.5 ms 1.00x      10.4 ms 0.99x
      2 threads            10.3 ms 0.98x      10.3 ms 0.98x
      4 threads            10.5 ms 1.00x      10.7 ms 1.02x
      8 threads            10.8 ms 1.03x      11.1 ms 1.05x
    8 threads take 1.03x the time of 1; with a counter each 1.05x
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path

from example01_lockless_counter import run_together
from example02_locked_counter import LockedCounter

THREADS = (1, 2, 4, 8)
ROUNDS = 5  # of which the fastest counts
MOST = 200_000  # increments that may be asked for


def increment_often(increment: Callable[[], object], times: int) -> tuple[float, float]:
    """Increment so often; return when that began and ended, in seconds."""
    began = time.perf_counter()
    for _ in range(times):
        increment()
    return began, time.perf_counter()


def seconds_for(increments: Sequence[Callable[[], object]], times: int) -> float:
    """Call each increment so often, in a thread of its own; return how long it took.

    The time is counted from the first call of any thread to the last.
    """
    jobs = [partial(increment_often, increment, times) for increment in increments]
    begins, ends = zip(*run_together(jobs), strict=True)
    return float(max(ends) - min(begins))


@dataclass(slots=True)
class Taken:
    """Seconds that the increments took, with one counter and with one for each thread.

    The best of several rounds: what else a machine does only makes one slower.
    """

    single: float = inf
    each: float = inf


def measure(n: int) -> dict[int, Taken]:
    """Time `n` increments; return what they took by the number of threads."""
    taken = {threads: Taken() for threads in THREADS}
    for _ in range(ROUNDS):
        for threads, best in taken.items():
            single = LockedCounter()
            each = [LockedCounter() for _ in range(threads)]
            times = n // threads
            best.single = min(
                best.single, seconds_for([single.increment] * threads, times)
            )
            best.each = min(
                best.each, seconds_for([one.increment for one in each], times)
            )
            counted = single.get(), sum(one.get() for one in each)
            if counted != (n, n):
                raise SystemExit(f"{threads} threads counted {counted} instead of {n}")
    return taken


def plot(taken: Mapping[int, Taken], n: int, machine: str, file: Path) -> None:
    """Draw the nanoseconds of an increment by the number of threads."""
    from matplotlib.figure import Figure

    names = [str(threads) for threads in taken]
    single = [one.single / n * 1e9 for one in taken.values()]
    each = [one.each / n * 1e9 for one in taken.values()]
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(single[0], color="#7d8793", linestyle="--", label="level")
    for values, label, colour in (
        (single, "one counter", "#b5442e"),
        (each, "a counter for each thread", "#1b4f8a"),
    ):
        axes.plot(names, values, "o-", color=colour, label=label, linewidth=2)
    axes.set_ylim(0, 1.4 * max(single + each))
    axes.set_xlabel("threads that share the same number of increments", fontsize=12)
    axes.set_ylabel("time for an increment [ns]", fontsize=12)
    axes.set_title(
        f"8 threads, one lock: {single[-1] / single[0]:.1f} times as long as 1 thread; "
        f"a lock each: {each[-1] / single[0]:.1f}\n({machine})",
        fontsize=13,
        fontweight="bold",
    )
    axes.legend(frameon=False, fontsize=11, ncols=3)
    axes.spines[["top", "right"]].set_visible(False)
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
    parser.add_argument("--increments", type=increments, default=32_000)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n = options.increments

    machine = (
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(machine)
    try:
        taken = measure(n)
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error}") from None
    alone = taken[1].single
    print(f"{n:,} increments      one counter     a counter each")
    for threads, one in taken.items():
        print(
            f"  {threads} thread{'s' if threads > 1 else ' '}"
            f"{1000 * one.single:16.1f} ms {one.single / alone:.2f}x"
            f"{1000 * one.each:10.1f} ms {one.each / alone:.2f}x"
        )
    single, each = taken[8].single / alone, taken[8].each / alone
    print(
        f"8 threads take {single:.2f}x the time of 1; with a counter each {each:.2f}x"
    )
    if options.plot is not None:
        plot(taken, n, machine, options.plot)


if __name__ == "__main__":
    main()
