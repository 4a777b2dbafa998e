"""One after the other: a single thread serves all, and there is nothing to lock.

Give what everybody wants to one thread, and let the others send it what they want done
with it. It takes the requests from a queue, in turn. No two meals happen at the same
time, so forks need no locks, and without locks there is no deadlock. An executor with
one worker is all that is needed. (Actors, event loops, GUI threads, and the only writer
of a SQLite file live by this.) Whoever asks must not be that one thread itself: it
would wait for its own queue (example16).

What is given up is doing several things at a time. While meals compute in Python, a GIL
lets only one run anyway, and the locks bought nothing. While they wait for something,
philosophers who are no neighbours could wait together, and now they queue up.

Book: Chapter 12, example6.
Try:  --meals 100

Output:
    5 philosophers, 200 meals, GIL <gil>
    meals      threads with locks    one thread
    compute               0.136 s       0.112 s  1.22x as fast
    wait                  0.114 s       0.129 s  0.88x as fast
    one thread serves all, without a lock, and one at a time
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from dining_table import Table, dine
from example04_ordered_acquisition import OrderedForks

N = 5  # philosophers
MEAL = 0.0005  # seconds that are waited
STEPS = 10_000  # that are computed
MAX_MEALS = 200


def serve(n: int, meals: int, eat: Callable[[], object]) -> Table:
    """Have one thread do `meals` meals of each of `n` philosophers, in turn.

    Args:
        eat: called for each meal.

    Raises:
        Exception: what `eat` has raised; the requests that are left are dropped.
    """
    table = Table(n)

    def meal(philosopher: int) -> None:
        with table.meal(philosopher):
            eat()

    with ThreadPoolExecutor(max_workers=1) as servant:
        try:
            requests = [
                servant.submit(meal, philosopher)
                for _ in range(meals)
                for philosopher in range(n)
            ]
            for request in requests:
                request.result()
        except BaseException:
            servant.shutdown(wait=False, cancel_futures=True)
            raise
    return table


def compute() -> int:
    total = 0
    for number in range(STEPS):
        total += number
    return total


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def meals_of_each(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_MEALS:
        raise argparse.ArgumentTypeError(f"must be in 1 … {MAX_MEALS}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--meals", type=meals_of_each, default=40)
    meals = parser.parse_args().meals

    print(f"{N} philosophers, {N * meals} meals, GIL {gil_state()}")
    print("meals      threads with locks    one thread")
    for kind, eat in {"compute": compute, "wait": lambda: time.sleep(MEAL)}.items():
        dinner = dine(N, meals, OrderedForks(N).eating, eat)
        began = time.perf_counter()
        table = serve(N, meals, eat)
        seconds = time.perf_counter() - began
        ratio = dinner.seconds / seconds
        print(
            f"{kind:10} {dinner.seconds:16.3f} s {seconds:11.3f} s"
            f"  {ratio:.2f}x as fast"
        )
        if dinner.meals != N * meals or table.meals != [meals] * N:
            raise SystemExit("all were to have all of their meals, both ways")
        if table.together != 1:
            raise SystemExit("one thread was to serve one at a time")
    print("one thread serves all, without a lock, and one at a time")


if __name__ == "__main__":
    main()
