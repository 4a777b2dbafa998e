"""A waiter hands out both forks or none, so nobody holds one while waiting for another.

All forks are the waiter's. Who is hungry asks, and waits until no neighbour eats. Here
0 eats and its neighbour 1 waits. It holds nothing, so 2 may eat at the same time, where
with forks in order (example05) it would have to wait as well. The waiter is a monitor:
one lock, and a condition that those who wait look at again whenever something changes.

But 0 and 2 might eat in turns, and 1 never. So the waiter lets nobody be overtaken by
neighbours more than so many times: after that, they wait until it has eaten. If that is
0 times, it serves neighbours strictly in the order in which they ask, and lets forks
lie unused for it; that many meals of others is what fairness may cost, and earn.

A second way needs even less: of n philosophers at most n - 1 may sit down. Then one of
them always has a neighbour missing, gets that fork, eats, and gets up. A semaphore is
enough, and forks are plain locks. It leaves "hold and wait" as it was: in the worst
case, forced here, all who sit hold one fork, and a single one gets the other.

Sources: C. A. R. Hoare, "Monitors: an operating system structuring concept", CACM 17
(10), 1974; the seats, with a footman to see to them, are C. S. Scholten's, told in
Hoare's "Communicating sequential processes", 1985, section 2.5.

Try:  --philosophers 20

Output:
    waiter  0 eats, 1 waits, 2 eats, 2 waits, 1 eats, 2 eats
    seats   4 of 5 hold a fork each; then eat 0 1 2 3
    waiter  5 philosophers, 100 meals
    seats   5 philosophers, 100 meals
    both or none, or a seat too few: either way all get to eat
"""

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count

from dining_table import Table, dine
from example01_two_locks_two_orders import LIMIT, Attempt, join_all

MEALS = 20  # of each philosopher
MEAL = 0.0005  # seconds
MAX_PHILOSOPHERS = 100


class Waiter:
    """Hands out the forks of `n` dining philosophers: both or none.

    Args:
        overtaken: how often a philosopher who waits may be overtaken by neighbours.
    """

    def __init__(self, n: int, overtaken: int = 1) -> None:
        self._n = n
        self._most = overtaken
        # Guards what follows; notified when one has begun to wait, has ended to, and
        # has eaten.
        self._changed = threading.Condition()
        self._eating: set[int] = set()
        self._asked: dict[int, int] = {}  # when, as a number, by those who wait
        self._overtaken: dict[int, int] = {}  # how often, those who wait
        self._numbers = count()

    @contextmanager
    def eating(self, philosopher: int) -> Iterator[None]:
        """Have both forks of a philosopher, 0 … n - 1, for the length of a block.

        A philosopher is in one such block at a time.
        """
        with self._changed:
            self._asked[philosopher] = next(self._numbers)
            self._overtaken[philosopher] = 0
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._may_eat(philosopher))
                for other in self._passed_over(philosopher):
                    self._overtaken[other] += 1
                self._eating.add(philosopher)
            finally:
                del self._asked[philosopher], self._overtaken[philosopher]
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._eating.remove(philosopher)
                self._changed.notify_all()

    def until_waiting(self, philosopher: int, timeout: float) -> bool:
        """Return whether a philosopher waits, or comes to wait before the time-out."""
        with self._changed:
            return self._changed.wait_for(
                lambda: philosopher in self._asked and not self._may_eat(philosopher),
                timeout,
            )

    def _may_eat(self, philosopher: int) -> bool:
        return not any(
            other in self._eating for other in self._neighbours(philosopher)
        ) and all(
            self._overtaken[other] < self._most
            for other in self._passed_over(philosopher)
        )

    def _passed_over(self, philosopher: int) -> list[int]:
        """Return the neighbours who wait and have asked before."""
        return [
            other
            for other in self._neighbours(philosopher)
            if other in self._asked and self._asked[other] < self._asked[philosopher]
        ]

    def _neighbours(self, philosopher: int) -> set[int]:
        return {(philosopher - 1) % self._n, (philosopher + 1) % self._n}


class Seats:
    """Forks for `n` dining philosophers of whom at most n - 1 sit at a time.

    Args:
        between: called when a philosopher has one fork and not yet the other.
    """

    def __init__(self, n: int, between: Callable[[], object] = lambda: None) -> None:
        self._seats = threading.Semaphore(n - 1)
        self._forks = [threading.Lock() for _ in range(n)]
        self._between = between

    @contextmanager
    def eating(self, philosopher: int) -> Iterator[None]:
        """Have both forks of a philosopher, 0 … n - 1, for the length of a block.

        A philosopher is in one such block at a time.
        """
        with self._seats, self._forks[philosopher]:
            self._between()
            with self._forks[philosopher - 1]:
                yield


def overtake() -> list[str]:
    """Let 2 eat while 1 waits for 0, and want to again; return what comes of it."""
    waiter, table = Waiter(5), Table(5)
    seen: list[str] = []

    def eat(philosopher: int) -> None:
        with waiter.eating(philosopher), table.meal(philosopher):
            seen.append(f"{philosopher} eats")

    def eat_twice() -> None:
        eat(2)
        eat(2)

    one, two = Attempt("1", partial(eat, 1)), Attempt("2", eat_twice)
    with waiter.eating(0), table.meal(0):
        one.start()
        if waiter.until_waiting(1, LIMIT):
            seen.append("0 eats, 1 waits")
        two.start()
        if waiter.until_waiting(2, LIMIT):
            seen.append("2 waits")
    join_all([one, two])
    return seen


def all_seats_taken(n: int) -> list[int]:
    """Let all who sit take a fork before any takes two; return the order of eating."""
    all_hold_one = threading.Barrier(n - 1, timeout=LIMIT)
    seats = Seats(n, all_hold_one.wait)
    eaten: list[int] = []

    def eat(philosopher: int) -> None:
        with seats.eating(philosopher):
            eaten.append(philosopher)

    attempts = [Attempt(f"{k}", partial(eat, k)) for k in range(n - 1)]
    for attempt in attempts:
        attempt.start()
    join_all(attempts)
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

    seen = overtake()
    print(f"waiter  {', '.join(seen)}")
    if seen != ["0 eats, 1 waits", "2 eats", "2 waits", "1 eats", "2 eats"]:
        raise SystemExit("2 was to overtake 1 once, and not twice")
    eaten = all_seats_taken(n)
    print(
        f"seats   {n - 1} of {n} hold a fork each; then eat {' '.join(map(str, eaten))}"
    )
    if eaten != list(range(n - 1)):
        raise SystemExit("they were to eat one after the other")
    ways: dict[str, Waiter | Seats] = {"waiter": Waiter(n), "seats": Seats(n)}
    for name, forks in ways.items():
        dinner = dine(n, MEALS, forks.eating, lambda: time.sleep(MEAL))
        if dinner.meals != n * MEALS:
            raise SystemExit(f"{n * MEALS} meals were to be had, not {dinner.meals}")
        print(f"{name:7} {n} philosophers, {dinner.meals} meals")
    print("both or none, or a seat too few: either way all get to eat")


if __name__ == "__main__":
    main()
