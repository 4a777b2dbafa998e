"""What lock order costs: some time, and a chain of philosophers who hold and wait.

With forks in order there is no cycle of waits, but there may be a chain almost as
long. Philosopher 3 eats; 2 has a fork and waits for 3; 1 has a fork and waits for 2;
0 has one and waits for 1. Here they come in that order, which is the worst. One eats
where two could, since most hold a fork that is of no use to them while they wait. When
3 has eaten, they eat one after the other, as if there were a single lock for all.

So order prevents the deadlock and leaves "hold and wait" as it was. Who takes all forks
or none (example10), or gives one back that does not help (example09), blocks nobody.

The locks themselves cost, too, whether or not somebody else wants them: below is what
it takes to get two and give them back.

Book: Chapter 12, example5.
Try:  --philosophers 20

Output:
    3 eats, alone, where 2 of 5 could at a time
        2 waits for fork 3
        1 waits for fork 2
        0 waits for fork 1
        4 waits for fork 0
    then, one after the other: 3 2 1 0 4
    two plain locks    0.48 µs
    two with ranks     1.96 µs
    sorted by rank     5.82 µs
    no deadlock, and at the worst no more at a time than with a single lock
"""

import argparse
import threading
import timeit
from collections.abc import Callable
from functools import partial

from example01_two_locks_two_orders import LIMIT, Attempt, Watch, join_all
from example04_ordered_acquisition import RankedLock, holding

TIMES = 2000  # that two locks are taken and given back, to see what it costs
MAX_PHILOSOPHERS = 100


class LowerForkFirst:
    """A table at which all take the lower one of their two forks first."""

    def __init__(self, n: int, watch: Watch) -> None:
        self.eaten: list[int] = []
        self._forks = [watch.lock(f"fork {number}") for number in range(n)]

    def eat(self, philosopher: int, eat: Callable[[], object] = lambda: None) -> None:
        right = (philosopher + 1) % len(self._forks)
        lower, upper = sorted((philosopher, right))
        with self._forks[lower], self._forks[upper]:
            eat()
            self.eaten.append(philosopher)


def longest_chain(n: int) -> tuple[list[str], list[int]]:
    """Seat `n` philosophers one by one, each when the one before eats or waits.

    Returns:
        who waits for whom, while one eats, and the order in which all have eaten.
    """
    watch = Watch()
    table = LowerForkFirst(n, watch)
    eats, enough = threading.Event(), threading.Event()

    def eat_until_told() -> None:
        eats.set()
        enough.wait(LIMIT)

    first, *others = [*range(n - 2, -1, -1), n - 1]
    attempts = [Attempt(f"{first}", partial(table.eat, first, eat_until_told))]
    attempts[0].start()
    eats.wait(LIMIT)
    for n_waiting, other in enumerate(others, 1):
        attempts.append(Attempt(f"{other}", partial(table.eat, other)))
        attempts[-1].start()
        watch.until_waiting(n_waiting, LIMIT)
    with watch.changed:
        waits = [f"{one.name} for {lock.name}" for one, lock in watch.waits.items()]
    enough.set()
    join_all(attempts)
    return waits, table.eaten


def cost_of_two() -> dict[str, float]:
    """Return the seconds that it takes to get two locks and give them back."""
    a, b = threading.Lock(), threading.Lock()
    low, high = RankedLock(1), RankedLock(2)

    def nested() -> None:
        with a, b:
            pass

    def ranked() -> None:
        with low, high:
            pass

    def held() -> None:
        with holding(high, low):
            pass

    return {
        name: min(timeit.repeat(function, number=TIMES, repeat=3)) / TIMES
        for name, function in {
            "two plain locks": nested,
            "two with ranks": ranked,
            "sorted by rank": held,
        }.items()
    }


def philosophers(text: str) -> int:
    number = int(text)
    if not 3 <= number <= MAX_PHILOSOPHERS:
        raise argparse.ArgumentTypeError(
            f"must be in 3 … {MAX_PHILOSOPHERS}, not {number}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--philosophers", type=philosophers, default=5)
    n = parser.parse_args().philosophers

    waits, eaten = longest_chain(n)
    print(f"{n - 2} eats, alone, where {n // 2} of {n} could at a time")
    for wait in waits:
        print(f"    {wait.replace('for', 'waits for', 1)}")
    if len(waits) != n - 1:
        raise SystemExit("all but one were to wait")
    print(f"then, one after the other: {' '.join(map(str, eaten))}")
    if eaten != [*range(n - 2, -1, -1), n - 1]:
        raise SystemExit("they were to eat in the order in which they came")
    for name, seconds in cost_of_two().items():
        print(f"{name:16} {seconds * 1e6:6.2f} µs")
    print("no deadlock, and at the worst no more at a time than with a single lock")


if __name__ == "__main__":
    main()
