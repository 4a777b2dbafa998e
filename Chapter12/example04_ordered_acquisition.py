"""Locks with ranks: who takes them in a wrong order is told so at once, in every run.

To sort locks before taking them (example02) is easy where all of them are known at
that moment. Often they are not: a method that holds its object's lock calls another one
that takes a lock as well. So each lock gets a rank, and whoever holds one may take only
locks of higher ranks. That is checked at each acquire, against what the thread holds
already, so that a wrong order is found when it is first tried, without anybody else who
wants the same locks: a deadlock waiting to happen becomes an error that always does.

Ranks often are layers: the catalogue before the shelf, the shelf before the book, and
the log, which all may write to, last of all.

Philosophers whose forks have ranks never wait in a cycle: the last of them reaches for
fork 0 first, like the first one, and so never holds what closes it. How long one has to
wait is another matter: a neighbour may overtake it again and again (example12).

Source: the resource hierarchy of E. W. Dijkstra, "Hierarchical ordering of sequential
processes", Acta Informatica 1, 1971.

Book: Chapter 12, example4.
Try:  --philosophers 2

Output:
    log, catalogue    taken in the order of ranks, whatever they are named in
    shelf, catalogue  LockOrderError: catalogue (rank 0) after shelf (rank 1)
    shelf, log        taken one by one, upwards
    5 philosophers    100 meals, never two neighbours at a time
    who takes locks upwards only never waits in a cycle
"""

import argparse
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Self

from dining_table import dine

MEALS = 20  # of each philosopher
MEAL = 0.0005  # seconds
MAX_PHILOSOPHERS = 100


class LockOrderError(RuntimeError):
    """A lock is to be taken whose rank is not above those that the thread holds."""


class _Held(threading.local):
    """What the current thread holds, in the order of ranks."""

    def __init__(self) -> None:
        self.locks: list[RankedLock] = []


class RankedLock:
    """A lock that may be taken only by who holds none of the same or a higher rank.

    Args:
        rank: its place in the order of all such locks of the program.
        name: for people to read.
    """

    _held = _Held()  # of all ranked locks

    def __init__(self, rank: float, name: str = "") -> None:
        self.rank = rank
        self.name = name
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"{self.name or 'lock'} (rank {self.rank:g})"

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As of threading.Lock.

        Raises:
            LockOrderError: this thread holds a lock of the same or a higher rank.
        """
        held = self._held.locks
        if held and not self.rank > held[-1].rank:
            raise LockOrderError(f"{self} after {held[-1]}")
        taken = self._lock.acquire(blocking, timeout)
        if taken:
            held.append(self)
        return taken

    def release(self) -> None:
        """Let others have the lock. Locks may be released in any order.

        Raises:
            RuntimeError: this thread does not hold it.
        """
        if self not in self._held.locks:
            raise RuntimeError(f"{self} is not held by this thread")
        self._held.locks.remove(self)
        self._lock.release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextmanager
def holding(*locks: RankedLock) -> Iterator[None]:
    """Hold all of `locks`, named in any order, for the length of a block.

    Raises:
        LockOrderError: two have the same rank, or the thread holds a lock whose rank is
            not below that of the lowest of them.
    """
    with ExitStack() as stack:
        for lock in sorted(locks, key=lambda lock: lock.rank):
            stack.enter_context(lock)
        yield


class OrderedForks:
    """Forks for `n` dining philosophers, taken in the order of their numbers."""

    def __init__(self, n: int) -> None:
        self._forks = [RankedLock(number, f"fork {number}") for number in range(n)]

    def eating(self, philosopher: int) -> AbstractContextManager[None]:
        """Have both forks of a philosopher, 0 … n - 1, for the length of a block."""
        right = (philosopher + 1) % len(self._forks)
        return holding(self._forks[philosopher], self._forks[right])


def philosophers(text: str) -> int:
    number = int(text)
    if not 2 <= number <= MAX_PHILOSOPHERS:
        raise argparse.ArgumentTypeError(
            f"must be in 2 … {MAX_PHILOSOPHERS}, not {number}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--philosophers", type=philosophers, default=5)
    n = parser.parse_args().philosophers

    catalogue, shelf, log = (
        RankedLock(rank, name)
        for rank, name in enumerate(["catalogue", "shelf", "log"])
    )
    with holding(log, catalogue):
        print(
            "log, catalogue    taken in the order of ranks, whatever they are named in"
        )
    with shelf:
        try:
            with catalogue:
                raise SystemExit("the catalogue was not to be had after the shelf")
        except LockOrderError as error:
            print(f"shelf, catalogue  LockOrderError: {error}")
        with log:
            print("shelf, log        taken one by one, upwards")

    dinner = dine(n, MEALS, OrderedForks(n).eating, lambda: time.sleep(MEAL))
    if dinner.meals != n * MEALS:
        raise SystemExit(f"{n * MEALS} meals were to be had, not {dinner.meals}")
    print(f"{n} philosophers    {dinner.meals} meals, never two neighbours at a time")
    print("who takes locks upwards only never waits in a cycle")


if __name__ == "__main__":
    main()
