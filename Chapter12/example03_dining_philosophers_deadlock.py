"""Dining philosophers: each holds a left fork, waits for the right one, and starves.

Between each two philosophers around a table lies one fork, and to eat takes both
neighbouring ones. All are hungry at the same time, and all take the left fork first: a
barrier sees to it that nobody takes a second one before all have the first. Then each
waits for its right neighbour, and the last one for the first: a cycle of any length,
not of two. Nobody has done anything that looks wrong by itself.

The detector of example01 finds the cycle. To break it, one philosopher has to give up:
the fork it puts down lets its neighbour eat, then the next one, once around the table.

The problem is Dijkstra's (an examination of 1965; in print EWD 310, 1971), and Hoare
gave it its name. Examples 4 to 12 seat them in ways that let all of them eat.

Book: Chapter 12, example3.
Try:  --philosophers 2
Try:  --philosophers 50

Output:
    philosopher 0 waits for fork 1, held by 1
    philosopher 1 waits for fork 2, held by 2
    philosopher 2 waits for fork 3, held by 3
    philosopher 3 waits for fork 4, held by 4
    philosopher 4 waits for fork 0, held by 0
    a cycle of 5; nobody eats
    philosopher 0 gives up waiting for fork 1; then eat 4 3 2 1
    one of a cycle gives up, and all others go on, one after the other
"""

import argparse
import threading
from collections.abc import Callable
from functools import partial

from example01_two_locks_two_orders import LIMIT, Attempt, DeadlockError, Watch

MAX_PHILOSOPHERS = 200


class LeftForkFirst:
    """Forks between `n` philosophers, all of whom take the left one first.

    Args:
        n: how many philosophers there are, 2 at least.
        between: called when a philosopher has one fork and not yet the other.

    Attributes:
        eaten: who has eaten, in order.
    """

    def __init__(self, n: int, watch: Watch, between: Callable[[], object]) -> None:
        self.eaten: list[int] = []
        # Fork n lies between the philosophers n - 1 and n.
        self._forks = [watch.lock(f"fork {number}") for number in range(n)]
        self._between = between

    def eat(self, philosopher: int) -> None:
        """Take two forks, eat, put them back; broken: it may wait for ever.

        Raises:
            DeadlockError: this one has been told to give up.
        """
        left, right = philosopher, (philosopher + 1) % len(self._forks)
        with self._forks[left]:
            self._between()
            with self._forks[right]:
                self.eaten.append(philosopher)


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

    watch = Watch()
    all_hold_one = threading.Barrier(n, timeout=LIMIT)
    table = LeftForkFirst(n, watch, all_hold_one.wait)
    attempts = [Attempt(f"{k}", partial(table.eat, k)) for k in range(n)]
    for attempt in attempts:
        attempt.start()

    watch.until_waiting(n, LIMIT)
    cycle = watch.deadlock(LIMIT)
    for wait in cycle:
        print(f"philosopher {wait.thread} waits for {wait.lock}, held by {wait.holder}")
    if [int(wait.holder) for wait in cycle] != [(k + 1) % n for k in range(n)]:
        raise SystemExit("each philosopher was to wait for the next one")
    print(f"a cycle of {n}; nobody eats")

    watch.give_up("0")
    for attempt in attempts:
        attempt.join(LIMIT)
    errors = [attempt.error for attempt in attempts]
    if not isinstance(errors[0], DeadlockError) or any(errors[1:]):
        raise SystemExit(f"philosopher 0 alone was to give up: {errors}")
    print(f"philosopher {errors[0]}; then eat {' '.join(map(str, table.eaten))}")
    if table.eaten != list(range(n - 1, 0, -1)):
        raise SystemExit("they were to eat one after the other, once around the table")
    print("one of a cycle gives up, and all others go on, one after the other")


if __name__ == "__main__":
    main()
