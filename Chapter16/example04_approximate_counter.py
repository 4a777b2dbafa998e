# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""An approximate counter is behind by a known number, and spares threads the one lock.

Each thread counts in a local counter with a lock of its own. When that has reached the
threshold S, all of it is added to the global count, under the global lock, and the
local one begins anew. So that lock is taken once in S increments. get() returns the
global count: cheap, and behind by what the local counters hold, at most S-1 each. With
n of them and the `ended` and `begun` of the counter's specification (example01),

    ended - n (S-1) <= get() <= begun

at every moment: the increment that fills a local counter ends only when all S are in
the global count, and keeps the others out until then. The bound is tight: S-1
increments in each local counter, and get() still returns 0. get_exact() takes all
locks, and everybody waits.

Is it faster than the locked counter of example02? It spares threads the wait for each
other, and nothing else: an increment takes a lock here as there. Under a GIL they
hardly wait, so it is not. With threshold 1 each increment takes two locks and twice the
time; with a large threshold the two counters are level. Without a GIL it can gain, if
there are cores for the threads to run on at once: try it on yours. What does not even
need a lock for each increment is a sum that a thread keeps to itself and adds rarely.

Source: R. H. Arpaci-Dusseau and A. C. Arpaci-Dusseau, "Operating Systems: Three Easy
Pieces", chapter 29; as sloppy counters, S. Boyd-Wickizer et al., "An Analysis of Linux
Scalability to Many Cores", OSDI 2010. Relatives are the Linux kernel's percpu_counter
and, without a threshold, Java's LongAdder. For an exact one in Python that needs no
lock, there is AtomicInt64 of the package cereggii.

Book: Chapter 16, example4.
Try:  --threads 8
Try:  --plot approximate.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    4 threads, 8192 increments each          get() may lack
                          time  to locked  at most     seen
      locked counter   10.7 ms      1.00x        0
      threshold    1   21.9 ms      2.04x        0      0 %
      threshold    4   13.8 ms      1.28x       12     25 %
      threshold   16   11.4 ms      1.07x       60     85 %
      threshold   64   10.8 ms      1.01x      252     39 %
      threshold  256   10.6 ms      0.98x     1020     85 %
      threshold 1024   10.9 ms      1.02x     4092     40 %
    threshold 1024: 1.02x the locked counter's time, and up to 4092 may be missing
"""

import argparse
import platform
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from math import inf
from pathlib import Path

from example01_lockless_counter import run_together, some
from example02_locked_counter import (
    Answer,
    LockedCounter,
    Witness,
    count_and_ask,
    keeps,
)
from example03_how_a_locked_counter_scales import (
    gil_state,
    picture,
    seconds_for,
    usable_cores,
)

THRESHOLDS = (1, 4, 16, 64, 256, 1024)
TIMED = 8192  # increments of each thread, a multiple of all thresholds
CHECKED = 1100  # of each thread, with get() after each
AUDITED = 128  # of each thread, with get_exact() after each
ROUNDS = 5  # of which the fastest counts


class LocalCounter:
    """A part of an `ApproximateCounter`, for one thread or a few; made by that."""

    def __init__(self, whole: "ApproximateCounter") -> None:
        self.lock = threading.Lock()  # guards what is left; taken before the global one
        self.left = whole.threshold  # increments until all is moved, at least 1
        self._whole = whole

    def increment(self) -> None:
        """Add 1, and move all into the global count if that reaches the threshold."""
        with self.lock:
            if self.left > 1:  # down to 1: no need to look at what all threads share
                self.left -= 1
            else:
                self._whole.take(self)


class ApproximateCounter:
    """A counter that may be behind, by `bound` at most.

    Args:
        n_locals: how many local counters it has, one for each thread at best.
        threshold: how far a local one counts before it takes the global lock.

    Attributes:
        locals: where to count. Threads may share one; they contend for its lock then.
        bound: by how much `get` may be behind.

    Raises:
        ValueError: there is no local counter, or the threshold is less than 1.
    """

    def __init__(self, n_locals: int, threshold: int) -> None:
        if n_locals < 1 or threshold < 1:
            raise ValueError(f"{n_locals} local counters with threshold {threshold}")
        self.threshold = threshold
        self.bound = n_locals * (threshold - 1)
        self.locals = [LocalCounter(self) for _ in range(n_locals)]
        self._lock = threading.Lock()  # guards the count; taken after local locks
        self._count = 0

    def take(self, local: LocalCounter) -> None:
        """Move a local counter's count, and the 1 that fills it; its lock is held."""
        with self._lock:
            self._count += self.threshold
            local.left = self.threshold  # no call comes between, so no Ctrl-C

    def get(self) -> int:
        """Return the global count, which may lack what the local counters hold."""
        with self._lock:
            return self._count

    def get_exact(self) -> int:
        """Return the number of increments. All of them wait meanwhile.

        Linearization point: when all locks are held. One after the other would not do:
        what moves between two looks would be counted twice or not at all.
        """
        with ExitStack() as held:
            for local in self.locals:  # always in this order, and the global one last
                held.enter_context(local.lock)
            held.enter_context(self._lock)
            return self._count + sum(self.threshold - one.left for one in self.locals)


def fall_behind(counter: ApproximateCounter) -> tuple[int, int]:
    """Bring a new counter behind as far as it goes; return both its values then."""
    for local in counter.locals:
        for _ in range(counter.threshold - 1):
            local.increment()
    return counter.get(), counter.get_exact()


def behind(counter: ApproximateCounter, n_checked: int, n_audited: int) -> int:
    """Count in a thread for each local counter, and ask for the value each time.

    Args:
        n_checked: how often each counts, and calls get().
        n_audited: and then, how often it counts, and calls get_exact().

    Returns:
        How many increments were missing at most in what get() returned.

    Raises:
        AssertionError: a value was less or more than it may be.
    """
    witness = Witness()

    def count(local: LocalCounter) -> tuple[list[Answer], list[Answer]]:
        return (
            count_and_ask(witness, local.increment, counter.get, n_checked),
            count_and_ask(witness, local.increment, counter.get_exact, n_audited),
        )

    most = 0
    for answers, exact_ones in run_together(
        [partial(count, x) for x in counter.locals]
    ):
        for one in answers:
            most = max(most, one.ended - one.value)
            if not one.ended - counter.bound <= one.value <= one.begun:
                raise AssertionError(f"get(): {one}, bound {counter.bound}")
        if not keeps(exact_ones):
            raise AssertionError("get_exact() was to keep the specification")
    return most


def measure(n: int) -> tuple[float, dict[int, float]]:
    """Let `n` threads count with either counter.

    Returns:
        Seconds that it takes with the locked one, and with the approximate one by its
        threshold. They take turns, and the fastest of several rounds counts.
    """
    locked, approximate = inf, dict.fromkeys(THRESHOLDS, inf)
    for _ in range(ROUNDS):
        exact = LockedCounter()
        locked = min(locked, seconds_for([exact.increment] * n, TIMED))
        for threshold in THRESHOLDS:
            counter = ApproximateCounter(n, threshold)
            seconds = seconds_for([one.increment for one in counter.locals], TIMED)
            approximate[threshold] = min(approximate[threshold], seconds)
            counted = exact.get(), counter.get(), counter.get_exact()
            if set(counted) != {n * TIMED}:
                raise AssertionError(f"{counted} instead of {n * TIMED}")
    return locked, approximate


def plot(
    locked: float, approximate: Mapping[int, float], n: int, machine: str, file: Path
) -> None:
    """Draw the time of an increment, and how far get() may be behind, by threshold."""
    from matplotlib.figure import Figure

    names = [str(threshold) for threshold in approximate]
    scale = 1e9 / (n * TIMED)
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.axhline(locked * scale, color="#b5442e", linestyle="--", label="locked")
    values = [seconds * scale for seconds in approximate.values()]
    left.plot(names, values, "o-", color="#1b4f8a", linewidth=2, label="approximate")
    left.set_ylim(0, 1.3 * max(*values, locked * scale))
    left.set_ylabel("time for an increment [ns]", fontsize=12)
    left.legend(frameon=False, fontsize=11)
    bounds = [ApproximateCounter(n, threshold).bound for threshold in approximate]
    bars = right.bar(names, bounds, color="#7d8793")
    right.bar_label(bars, padding=3, fontsize=11)
    right.set_ylabel("increments that get() may lack", fontsize=12)
    for axes in (left, right):
        axes.set_xlabel("threshold", fontsize=12)
        axes.spines[["top", "right"]].set_visible(False)
    best = min(approximate, key=lambda threshold: approximate[threshold])
    figure.suptitle(
        f"{n} threads, at best {approximate[best] / locked:.2f} times the locked "
        f"counter's time, for up to {ApproximateCounter(n, best).bound} missing\n"
        f"({machine})",
        fontsize=13,
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


def demonstrate(n: int, machine: str) -> tuple[float, dict[int, float]]:
    """Check each claim with `n` threads, print it, and return the times."""
    locked, approximate = measure(n)
    print(machine)
    print(f"{n} threads, {TIMED} increments each          get() may lack")
    print("                      time  to locked  at most     seen")
    print(f"  locked counter  {1000 * locked:5.1f} ms      1.00x {0:8}")
    for threshold, seconds in approximate.items():
        counter = ApproximateCounter(n, threshold)
        most = behind(counter, CHECKED, AUDITED)
        print(
            f"  threshold {threshold:4}  {1000 * seconds:5.1f} ms"
            f"{seconds / locked:10.2f}x {counter.bound:8}"
            f"{100 * most / max(1, counter.bound):7.0f} %"
        )
        values = fall_behind(ApproximateCounter(n, threshold))
        if values != (0, counter.bound):
            raise AssertionError(f"{values} instead of 0 and {counter.bound}")
    print(
        f"threshold {threshold}: {seconds / locked:.2f}x the locked counter's time, "
        f"and up to {counter.bound} may be missing"
    )
    return locked, approximate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=4)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n = options.threads
    machine = (
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    try:
        locked, approximate = demonstrate(n, machine)
    except AssertionError as error:
        raise SystemExit(f"a count was to keep within its bounds: {error}") from None
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error}") from None
    if options.plot is not None:
        plot(locked, approximate, n, machine, options.plot)


if __name__ == "__main__":
    main()
