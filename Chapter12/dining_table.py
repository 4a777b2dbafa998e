"""A table for dining philosophers, at which nobody eats beside a neighbour unseen.

It does not say how forks are got. It is told when a philosopher begins to eat and when
it ends, and raises if a neighbour eats at that moment: that is the invariant that every
way of sharing forks has to keep, checked inside of each single meal. It also counts.

A dinner lets every philosopher, a thread each, have so many meals, and says how it
went. As all get the same number in the end, fairness is taken at the moment when the
first has had all of its meals: how many had the others by then? Jain's index is 1 if
all had the same, and 1/n if n - 1 had nothing yet.

R. Jain, D. Chiu, W. Hawe, "A quantitative measure of fairness and discrimination", DEC
technical report 301, 1984.

Output:
    2 philosophers eat, 0 and 2: they are no neighbours
    NeighboursError: 1 eats beside 0
    fairness  0.20 if one of 5 has had all meals
              1.00 if all have had the same
    with one lock for all, 5 philosophers have 20 meals each, one at a time
    1519 /s, fairness 98 %, no two neighbours together
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from example01_two_locks_two_orders import Attempt

LIMIT = 10.0  # seconds for a whole dinner

Eating = Callable[[int], AbstractContextManager[object]]


class NeighboursError(RuntimeError):
    """Two neighbours eat at the same time: they must have the same fork."""


@dataclass(frozen=True, slots=True)
class Dinner:
    """How a dinner went.

    Attributes:
        meals: of all philosophers.
        seconds: from the beginning to the last meal's end.
        longest_wait: seconds that a hungry philosopher has waited, at the most.
        together: how many have eaten at the same time, at the most.
        fairness: Jain's index of the meals of each when the first had had all.
    """

    meals: int
    seconds: float
    longest_wait: float
    together: int
    fairness: float


class Table:
    """Counts meals, and raises if neighbours eat at the same time.

    Args:
        n: how many philosophers sit around it, 2 at least.

    Attributes:
        meals: how many each has had.
        together: how many have eaten at the same time, at the most.
    """

    def __init__(self, n: int) -> None:
        if n < 2:
            raise ValueError(f"a philosopher needs a neighbour: 2 at least, not {n}")
        self.meals = [0] * n
        self.together = 0
        self._eating: set[int] = set()
        self._lock = threading.Lock()  # guards all of these

    @contextmanager
    def meal(self, philosopher: int) -> Iterator[None]:
        """Eat, for the length of a block.

        Raises:
            NeighboursError: a neighbour eats. This one does not begin then.
        """
        n = len(self.meals)
        with self._lock:
            assert philosopher not in self._eating, "eats already"
            for neighbour in ((philosopher - 1) % n, (philosopher + 1) % n):
                if neighbour in self._eating:
                    raise NeighboursError(f"{philosopher} eats beside {neighbour}")
            self._eating.add(philosopher)
            self.together = max(self.together, len(self._eating))
        try:
            yield
        finally:
            with self._lock:
                self._eating.remove(philosopher)
                self.meals[philosopher] += 1


def jain(shares: Sequence[float]) -> float:
    """Return Jain's fairness index of what each has got: 1/n … 1, 1 if all is equal."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def dine(n: int, meals: int, eating: Eating, eat: Callable[[], object]) -> Dinner:
    """Let each of `n` philosophers have so many meals, and find out how it went.

    Args:
        eating: gives a block in which philosopher 0 … n - 1 has two forks.
        eat: called for each meal, in the thread of the philosopher.

    Raises:
        NeighboursError: neighbours ate at the same time.
        TimeoutError: not all have eaten in time. Their threads are left behind, daemons
            that keep no program from its end.
        Exception: what `eating` or `eat` has raised.
    """
    table = Table(n)
    when_first_is_done: list[int] = []
    first = threading.Lock()  # taken by the first one who is done, for good
    waits: list[float] = []
    begin = threading.Barrier(n, timeout=LIMIT)
    given_up = threading.Event()

    def philosophize(philosopher: int) -> None:
        try:
            begin.wait()
            for _ in range(meals):
                if given_up.is_set():
                    return
                hungry = time.perf_counter()
                with eating(philosopher), table.meal(philosopher):
                    waits.append(time.perf_counter() - hungry)
                    eat()
            if first.acquire(blocking=False):
                when_first_is_done[:] = table.meals
        except BaseException:
            given_up.set()
            raise

    attempts = [Attempt(f"{k}", partial(philosophize, k)) for k in range(n)]
    began = time.perf_counter()
    try:
        for attempt in attempts:
            attempt.start()
        for attempt in attempts:
            attempt.join(max(0, began + LIMIT - time.perf_counter()))
    finally:
        given_up.set()
    for attempt in attempts:
        if attempt.error is not None:
            raise attempt.error
    if hungry := [attempt.name for attempt in attempts if attempt.is_alive()]:
        raise TimeoutError(f"still hungry after {LIMIT:g} s: {', '.join(hungry)}")
    return Dinner(
        meals=sum(table.meals),
        seconds=time.perf_counter() - began,
        longest_wait=max(waits, default=0.0),
        together=table.together,
        fairness=jain(when_first_is_done),
    )


def main() -> None:
    table = Table(5)
    with table.meal(0), table.meal(2):
        print(f"{table.together} philosophers eat, 0 and 2: they are no neighbours")
        try:
            with table.meal(1):
                raise SystemExit("1 was not to eat beside 0")
        except NeighboursError as error:
            print(f"NeighboursError: {error}")

    print(f"fairness  {jain([20, 0, 0, 0, 0]):.2f} if one of 5 has had all meals")
    print(f"          {jain([4, 4, 4, 4, 4]):.2f} if all have had the same")

    lock = threading.Lock()
    dinner = dine(5, 20, lambda _: lock, lambda: time.sleep(0.0005))
    if (dinner.meals, dinner.together) != (100, 1):
        raise SystemExit("5 philosophers were to have 20 meals each, one at a time")
    print("with one lock for all, 5 philosophers have 20 meals each, one at a time")
    per_second, fairness = dinner.meals / dinner.seconds, 100 * dinner.fairness
    print(f"{per_second:.0f} /s, fairness {fairness:.0f} %, no two neighbours together")


if __name__ == "__main__":
    main()
