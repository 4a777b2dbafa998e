"""Thousands of runs miss a race that a search through schedules finds at once.

A stress test lets threads do the same again and again, and hopes that they meet at the
fatal place. Here two threads start together, and the switch interval is a thousandth of
the usual one. Whether they meet is up to the interpreter all the same. With a GIL,
since CPython 3.10, threads change places only at calls and backward jumps. So the first
and the third do not go wrong, however long they run. A call in between, even of `len`
or `int`, changes that: the second loses updates in masses, and the fourth hardly ever
shows all the same. Without a GIL each of them may. The same test of the same code says
something else on another version, another machine, or another day; and if nothing goes
wrong, it has said nothing.

The explorer finds each of them within twenty schedules, and on each machine in the same
one. Of all schedules with at most two preemptions, a good part goes wrong. What it
cannot do is a large program, for schedules multiply with each step. So explore the
core, and stress the whole: that meets also what the explorer leaves out, C code and
weak memory.

Try:  --operations 1000

Output:
    stress: two threads, 100,000 operations each
                     stress:               explored:
    race             go wrong          in  found in    go wrong
    lost update       0.000 %       44 ms      5 ms        22 %
      with a call    24.137 %       70 ms      4 ms        27 %
    check, then act   0.000 %       70 ms      4 ms        27 %
      with a call     0.000 %       78 ms      4 ms        44 %
    stress may miss each of them; a systematic search finds them all
"""

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from explorer import Program, explore

LIMIT = 10.0  # seconds that a thread waits for the other
SHORT = 5e-6  # seconds; the usual switch interval is 5 ms
MOST_OPERATIONS = 1_000_000
FEW = 20  # schedules


class Shared:
    """A number, and who has made which thing; nothing guards them.

    Each operation tells whether it has made something, or counted.
    """

    def __init__(self) -> None:
        self.number = 0
        self.makers: dict[int, int] = {}

    def add(self, _: int) -> bool:
        """Add 1."""
        self.number += 1
        return True

    def add_calling(self, _: int) -> bool:
        """Add 1, with a call between the read and the write."""
        self.number = int(self.number) + 1
        return True

    def make(self, thing: int) -> bool:
        """Make a thing unless it is there."""
        if thing not in self.makers:
            self.makers[thing] = 1
            return True
        return False

    def make_calling(self, thing: int) -> bool:
        """Make a thing unless it is there, with a call between check and act."""
        if thing not in self.makers:
            self.makers[thing] = len(self.makers)
            return True
        return False


class Race(NamedTuple):
    """An operation that two threads do.

    Attributes:
        right: what is there in the end if all went well: as many as were made.
    """

    name: str
    operate: Callable[[Shared, int], bool]
    there: Callable[[Shared], int]


RACES = [
    Race("lost update", Shared.add, lambda shared: shared.number),
    Race("  with a call", Shared.add_calling, lambda shared: shared.number),
    Race("check, then act", Shared.make, lambda shared: len(shared.makers)),
    Race("  with a call", Shared.make_calling, lambda shared: len(shared.makers)),
]


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Let threads wait so long for the GIL, during the block, before they ask for it.

    Raises:
        ValueError: `seconds` is not positive.
    """
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(seconds)
        yield
    finally:
        sys.setswitchinterval(before)


def stress(race: Race, n_operations: int) -> int:
    """Let two threads do as many operations each; return how many have gone wrong."""
    together = threading.Barrier(2, timeout=LIMIT)
    shared = Shared()

    def work() -> int:
        together.wait()
        return sum(race.operate(shared, thing) for thing in range(n_operations))

    with ThreadPoolExecutor(2) as pool, switch_interval(SHORT):
        try:
            futures = [pool.submit(work) for _ in range(2)]
            return sum(future.result() for future in futures) - race.there(shared)
        finally:  # after Ctrl-C, one may wait for the other that was never started
            together.abort()


def once(race: Race) -> Program:
    """Return a program of two threads that do one operation each."""
    shared, done = Shared(), list[bool]()

    def operate() -> None:
        done.append(race.operate(shared, 0))

    return Program(
        {"A": operate, "B": operate}, lambda: sum(done) == race.there(shared)
    )


def share_of_schedules(race: Race) -> float:
    """Return which part of the schedules with at most two preemptions goes wrong."""
    results: list[object] = []

    def noting() -> Program:
        program = once(race)
        return Program(program.jobs, lambda: results.append(program.check()))

    explore(noting, bound=2)
    return results.count(False) / len(results)


def operations(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST_OPERATIONS:
        raise argparse.ArgumentTypeError(
            f"must be in 1 … {MOST_OPERATIONS}, not {number}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--operations", type=operations, default=100_000)
    n_operations = parser.parse_args().operations

    print(f"stress: two threads, {n_operations:,} operations each")
    print("                 stress:               explored:")
    print("race             go wrong          in  found in    go wrong")
    for race in RACES:
        start = time.perf_counter()
        n_wrong = stress(race, n_operations)
        middle = time.perf_counter()
        outcome = explore(partial(once, race))
        end = time.perf_counter()
        if outcome.failure is None or outcome.schedules > FEW:
            raise SystemExit(f"{race.name}: one of {FEW} was to fail: {outcome}")
        print(
            f"{race.name:15}  {100 * n_wrong / (2 * n_operations):6.3f} %  "
            f"{1000 * (middle - start):7.0f} ms  {1000 * (end - middle):5.0f} ms  "
            f"{100 * share_of_schedules(race):8.0f} %"
        )
    print("stress may miss each of them; a systematic search finds them all")


if __name__ == "__main__":
    main()
