"""Chandy and Misra: forks get dirty by eating, and only dirty ones are given away.

Nobody rules over all. Each fork is with one of the two who share it. Who is hungry and
lacks a fork asks the neighbour, who must give it away, cleaned, if it is dirty, unless
it is eating; then after the meal. A clean fork is kept: its holder has been given it to
eat, and has not yet.

Why does nobody wait for ever? Say that of two neighbours the one goes first who has the
fork clean, or lacks it while it is dirty. In the beginning all forks are dirty and with
the lower number, so those with higher numbers go first: no cycle. After a meal both
forks are dirty, so whoever has eaten goes behind both neighbours. That turns edges
toward one philosopher only, and cannot close a cycle. So somebody always goes before
both neighbours, and whoever is hungry is overtaken by each of them once at the most.
Here 0 asks again as soon as it has eaten, and has to wait until 1 and 4 have, too.

It was made for computers that send each other messages; here the lock of the condition
stands for the channels. It needs no philosophers: any processes, each of which shares
something with a few others, can take their turns like this.

Source: K. M. Chandy, J. Misra, "The drinking philosophers problem", ACM TOPLAS 6 (4),
1984.

Try:  --philosophers 20

Output:
    0 eats, meanwhile 1 and 4 ask, then 0 asks again
    its neighbours eat first, then 0
    5 philosophers, 100 meals
    whoever has eaten goes behind its neighbours, and nobody waits for ever
"""

import argparse
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial

from dining_table import Table, dine
from example01_two_locks_two_orders import LIMIT, Attempt, join_all

MEALS = 20  # of each philosopher
MEAL = 0.0005  # seconds
MAX_PHILOSOPHERS = 100


class Forks:
    """The forks of `n` dining philosophers, given from neighbour to neighbour.

    Fork number k is shared by the philosophers k - 1 and k.
    """

    def __init__(self, n: int) -> None:
        # Guards what follows; notified when a fork is given away, and when one asks.
        self._changed = threading.Condition()
        self._holder = [min(fork, (fork - 1) % n) for fork in range(n)]
        self._dirty = [True] * n  # used since it was given to its holder
        self._hungry = [False] * n  # from asking to the beginning of the meal
        self._eating = [False] * n
        self._n = n

    @contextmanager
    def eating(self, philosopher: int) -> Iterator[None]:
        """Have both forks of a philosopher, 0 … n - 1, for the length of a block.

        A philosopher is in one such block at a time.
        """
        forks = philosopher, (philosopher + 1) % self._n
        with self._changed:
            self._hungry[philosopher] = True
            self._changed.notify_all()
            try:
                for fork in forks:
                    self._give_away(fork)  # as it is asked for
                self._changed.wait_for(
                    lambda: all(self._holder[fork] == philosopher for fork in forks)
                )
            except BaseException:  # Ctrl-C: neighbours may have what has come
                self._end(philosopher, forks)
                raise
            self._hungry[philosopher] = False
            self._eating[philosopher] = True
        try:
            yield
        finally:
            with self._changed:
                self._end(philosopher, forks)

    def until_hungry(self, philosopher: int, timeout: float) -> bool:
        """Return whether a philosopher waits, or comes to wait before the time-out."""
        with self._changed:
            return self._changed.wait_for(lambda: self._hungry[philosopher], timeout)

    def _end(self, philosopher: int, forks: Iterable[int]) -> None:
        """End a meal, or the wait for it."""
        self._hungry[philosopher] = self._eating[philosopher] = False
        for fork in forks:
            if self._holder[fork] == philosopher:
                self._dirty[fork] = True
                self._give_away(fork)  # as it may have been asked for meanwhile

    def _give_away(self, fork: int) -> None:
        """Hand a fork, cleaned, to the other one, if that is to be done now."""
        holder = self._holder[fork]
        other = fork if holder != fork else (fork - 1) % self._n
        if self._hungry[other] and self._dirty[fork] and not self._eating[holder]:
            self._holder[fork] = other
            self._dirty[fork] = False
            self._changed.notify_all()


def ask_again(n: int) -> list[int]:
    """Let 0 eat, its neighbours ask, and 0 ask again; return the order of meals."""
    forks, table = Forks(n), Table(n)
    eaten: list[int] = []

    def eat(philosopher: int) -> None:
        with forks.eating(philosopher), table.meal(philosopher):
            eaten.append(philosopher)

    neighbours = [
        Attempt(f"{philosopher}", partial(eat, philosopher))
        for philosopher in sorted({1, n - 1})
    ]
    with forks.eating(0), table.meal(0):
        eaten.append(0)
        for philosopher, attempt in zip(sorted({1, n - 1}), neighbours, strict=True):
            attempt.start()
            forks.until_hungry(philosopher, LIMIT)
    eat(0)
    join_all(neighbours)
    return eaten


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

    first, *others, last = ask_again(n)
    neighbours = sorted({1, n - 1})
    hungry = " and ".join(map(str, neighbours))
    print(f"0 eats, meanwhile {hungry} ask, then 0 asks again")
    if (first, sorted(others), last) != (0, neighbours, 0):
        raise SystemExit(f"0 was to wait for its neighbours: {first, *others, last}")
    print("its neighbours eat first, then 0")
    dinner = dine(n, MEALS, Forks(n).eating, lambda: time.sleep(MEAL))
    if dinner.meals != n * MEALS:
        raise SystemExit(f"{n * MEALS} meals were to be had, not {dinner.meals}")
    print(f"{n} philosophers, {dinner.meals} meals")
    print("whoever has eaten goes behind its neighbours, and nobody waits for ever")


if __name__ == "__main__":
    main()
