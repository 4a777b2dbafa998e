"""Give back what you hold if the rest is not to be had, and try again after a while.

A thread that holds a lock takes the next one only if it is free. If not, it gives all
back, so nobody ever holds something and waits. There is no deadlock; but there may be a
livelock: all take a first lock, all find the second one taken, all give back, and all
begin anew at the same time. Here a barrier keeps them in step, and they go on like that
for as many rounds as one likes. Without a barrier pauses of the same length may keep
threads in step, too.

So the pauses are drawn at random, and from a range that doubles with each failure, up
to a limit (back-off with jitter; Chapter 5 asks a busy web site the same way). Somebody
comes back while the others still pause, and gets both. When that is, nobody can say,
and unlucky ones may try for long: fair it is not. Where locks can be sorted, sort them
(example02); take this where they cannot, as when they are found one by one.

Source: R. M. Metcalfe, D. R. Boggs, "Ethernet: distributed packet switching for local
computer networks", CACM 19 (7), 1976.

Try:  --philosophers 20

Output:
    in step      5 philosophers, 100 rounds, 0 meals: a livelock
    with jitter  5 philosophers, 100 meals
                 25.6 ms the longest wait
    who never waits with a lock in hand deadlocks nobody; chance lets all eat
"""

import argparse
import random
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from itertools import repeat
from typing import Protocol

from dining_table import dine
from example01_two_locks_two_orders import LIMIT, Attempt, join_all

ROUNDS = 100  # of those who are kept in step
MEALS = 20  # of each philosopher
MEAL = 0.0005  # seconds
SHORTEST = 0.0001  # seconds, the upper end of the first pause
LONGEST = 0.01  # seconds, the upper end of any pause
MAX_PHILOSOPHERS = 100


class TryLock(Protocol):
    """What is needed of a lock: Lock, RLock and Semaphore have it."""

    def acquire(self, blocking: bool) -> bool: ...

    def release(self) -> None: ...


def jittered_pauses(
    rng: random.Random, shortest: float = SHORTEST, longest: float = LONGEST
) -> Iterator[float]:
    """Yield seconds to pause: at random, from ranges that double up to `longest`."""
    while True:
        yield rng.uniform(0, shortest)
        shortest = min(2 * shortest, longest)


@contextmanager
def all_or_none(locks: Iterable[TryLock], pauses: Iterable[float]) -> Iterator[None]:
    """Hold all of `locks` for the length of a block; never wait while holding any.

    Args:
        locks: in any order; none of them twice.
        pauses: one for each try, the seconds to wait if they could not all be had.

    Raises:
        TimeoutError: the pauses are used up.
    """
    wanted = list(locks)
    for pause in pauses:
        with ExitStack() as taken:
            for lock in wanted:
                if not lock.acquire(blocking=False):
                    break
                taken.callback(lock.release)
            else:
                yield
                return
        time.sleep(pause)
    raise TimeoutError("the locks were never free together")


class BackingOff:
    """Forks for `n` dining philosophers who put one down if the other is not free."""

    def __init__(self, n: int, seed: int = 1) -> None:
        self._forks = [threading.Lock() for _ in range(n)]
        # Each of them is used by one thread.
        self._rngs = [random.Random(seed + number) for number in range(n)]

    def eating(self, philosopher: int) -> AbstractContextManager[None]:
        """Have both forks of a philosopher, 0 … n - 1, for the length of a block."""
        forks = self._forks[philosopher], self._forks[philosopher - 1]
        return all_or_none(forks, jittered_pauses(self._rngs[philosopher]))


class LockInStep:
    """A lock whose acquire returns when all have tried to acquire theirs."""

    def __init__(self, all_have_tried: threading.Barrier) -> None:
        self._lock = threading.Lock()
        self._all_have_tried = all_have_tried

    def acquire(self, blocking: bool) -> bool:
        taken = self._lock.acquire(blocking)
        self._all_have_tried.wait()
        return taken

    def release(self) -> None:
        self._lock.release()


def in_step(n: int, rounds: int) -> int:
    """Let all take a fork, find the other one taken, and give back, at the same time.

    Returns:
        how many have got both, in all these rounds.
    """
    all_have_tried = threading.Barrier(n, timeout=LIMIT)
    forks = [LockInStep(all_have_tried) for _ in range(n)]
    eaten: list[int] = []

    def philosophize(philosopher: int) -> None:
        pair = forks[philosopher], forks[philosopher - 1]
        with suppress(TimeoutError), all_or_none(pair, repeat(0, rounds)):
            eaten.append(philosopher)

    attempts = [Attempt(f"{k}", partial(philosophize, k)) for k in range(n)]
    for attempt in attempts:
        attempt.start()
    join_all(attempts)
    return len(eaten)


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

    eaten = in_step(n, ROUNDS)
    print(f"in step      {n} philosophers, {ROUNDS} rounds, {eaten} meals: a livelock")
    if eaten:
        raise SystemExit("nobody was to get both forks")
    dinner = dine(n, MEALS, BackingOff(n).eating, lambda: time.sleep(MEAL))
    print(f"with jitter  {n} philosophers, {dinner.meals} meals")
    if dinner.meals != n * MEALS:
        raise SystemExit(f"{n * MEALS} meals were to be had")
    print(f"             {1000 * dinner.longest_wait:.1f} ms the longest wait")
    print("who never waits with a lock in hand deadlocks nobody; chance lets all eat")


if __name__ == "__main__":
    main()
