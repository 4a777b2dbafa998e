"""Without locks nobody waits, neighbours share a fork, and what it counts is wrong.

All take their forks without asking. There is no deadlock, since nobody waits; but two
neighbours eat at the same time with one and the same fork. What they do to it is done
by reading and writing, so half of it is lost: here each fork counts how often it is
used, and all have read before any of them writes. Locks are not there to make threads
wait. They guard something, and without them it breaks.

What can be done without locks is what is not shared. Give each philosopher two forks of
its own, and all of them may eat at the same time; nothing is left to be exclusive. In
programs that is a copy for each thread, a value that nobody changes, a queue from one
to the next, or a counter that an atomic instruction raises (Chapter 17).

Book: Chapter 12, example7.
Try:  --philosophers 50

Output:
    forks  eat at a time  users of a fork  times used  of which it knows
        5              5                2           2                  1
       10              5                1           1                  1
    without locks: wrong where forks are shared, right where nothing is
"""

import argparse
import threading
from collections.abc import Callable, Sequence
from functools import partial

from example01_two_locks_two_orders import LIMIT, Attempt, join_all

MAX_PHILOSOPHERS = 100


class Gauge:
    """Counts how many threads are inside `with gauge:`, and remembers the most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both counts
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


class Fork:
    """Counts how often it is used, and shows by how many at a time.

    Attributes:
        used: how often; guarded by nothing, and that is the defect.
        users: how many use it at a time.
    """

    def __init__(self) -> None:
        self.used = 0
        self.users = Gauge()


def eat(left: Fork, right: Fork, between: Callable[[], object]) -> None:
    """Use two forks, once; broken: a use by somebody else may be lost.

    Args:
        between: called after the counts are read and before they are written.
    """
    with left.users, right.users:
        seen = left.used, right.used
        between()  # others read the same numbers here, and all write the same ones
        left.used, right.used = seen[0] + 1, seen[1] + 1


def eat_together(pairs: Sequence[tuple[Fork, Fork]]) -> int:
    """Let all eat at once, each with its pair; return how many do at a time."""
    all_have_read = threading.Barrier(len(pairs), timeout=LIMIT)
    eaters = Gauge()

    def meal(left: Fork, right: Fork) -> None:
        with eaters:
            eat(left, right, all_have_read.wait)

    attempts = [
        Attempt(f"{number}", partial(meal, *pair)) for number, pair in enumerate(pairs)
    ]
    for attempt in attempts:
        attempt.start()
    join_all(attempts)
    return eaters.most


def all_the_same(values: Sequence[int]) -> int:
    """Return the value that all have.

    Raises:
        ValueError: not all have the same.
    """
    (value,) = set(values)
    return value


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

    print("forks  eat at a time  users of a fork  times used  of which it knows")
    for n_forks, users in ((n, 2), (2 * n, 1)):
        forks = [Fork() for _ in range(n_forks)]
        second = n_forks // n  # from one's own first fork to the second of all
        pairs = [
            (forks[k * second], forks[(k * second + 1) % n_forks]) for k in range(n)
        ]
        together = eat_together(pairs)
        at_a_time = all_the_same([fork.users.most for fork in forks])
        known = all_the_same([fork.used for fork in forks])
        print(f"{n_forks:5}{together:15}{at_a_time:17}{users:12}{known:19}")
        if (together, at_a_time, known) != (n, users, 1):
            raise SystemExit(f"{n} were to eat, {users} with a fork, all at a time")
    print("without locks: wrong where forks are shared, right where nothing is")


if __name__ == "__main__":
    main()
