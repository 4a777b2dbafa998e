"""Coffman's four conditions: a deadlock needs all of them, so take away any one.

* Mutual exclusion: what one thread has, no other can use.
* Hold and wait: who has something waits for more.
* No preemption: nobody takes away what a thread has.
* Circular wait: each waits for what the next one has.

The philosophers of example03 meet all four, and starve. Then one condition is taken
away, in four ways, and each time all eat.

* Nothing is exclusive: all may look at the same values, which nobody changes.
* Both forks or none: the waiter of example10.
* One who waits in the cycle is chosen; what it has is taken back, and it begins anew.
* Forks in order, as in example05.

Which one to take? Values that do not change, where that can be had. Else order, which
costs next to nothing. Databases take back, for they can undo what a transaction has
done so far; threads rarely can. Both or none is for when all that is needed is known
beforehand.

Source: E. G. Coffman, M. J. Elphick, A. Shoshani, "System deadlocks", ACM Computing
Surveys 3 (2), 1971.

Try:  --philosophers 20

Output:
    taken away          eat  what is seen
    nothing               0  5 hold one, and wait in a cycle
    mutual exclusion      5  all 5 have it at the same time
    hold and wait         5  1 waits, and its neighbour eats
    no preemption         5  1 fork is taken back
    circular wait         5  4 wait, in a chain and not in a cycle
    with all four conditions a deadlock, without any one of them none
"""

import argparse
import threading
from collections.abc import Callable
from functools import partial

from dining_table import Table
from example01_two_locks_two_orders import (
    LIMIT,
    Attempt,
    DeadlockError,
    Watch,
    join_all,
)
from example03_dining_philosophers_deadlock import LeftForkFirst
from example05_what_lock_order_costs import longest_chain
from example10_waiter import Waiter

MAX_PHILOSOPHERS = 100


def start_all(n: int, eat: Callable[[int], object]) -> list[Attempt]:
    """Start a thread for each philosopher."""
    attempts = [Attempt(f"{number}", partial(eat, number)) for number in range(n)]
    for attempt in attempts:
        attempt.start()
    return attempts


def with_all_four(n: int) -> tuple[int, str]:
    """Return how many eat while all four conditions hold, and what is seen."""
    watch = Watch()
    all_hold_one = threading.Barrier(n, timeout=LIMIT)
    table = LeftForkFirst(n, watch, all_hold_one.wait)
    attempts = start_all(n, table.eat)
    watch.until_waiting(n, LIMIT)
    cycle = watch.deadlock(LIMIT)
    meals = len(table.eaten)
    watch.give_up(cycle[0].thread)
    for attempt in attempts:
        attempt.join(LIMIT)
    return meals, f"{len(cycle)} hold one, and wait in a cycle"


def without_mutual_exclusion(n: int) -> tuple[int, str]:
    """Let all look at the same recipe, which nobody changes, at the same time."""
    recipe = ("garlic", "oil", "spaghetti")
    all_are_there = threading.Barrier(n, timeout=LIMIT)
    cooked: list[tuple[str, ...]] = []

    def eat(_: int) -> None:
        all_are_there.wait()  # all have it now
        cooked.append(recipe)

    join_all(start_all(n, eat))
    return cooked.count(recipe), f"all {all_are_there.parties} have it at the same time"


def without_hold_and_wait(n: int) -> tuple[int, str]:
    """Let a waiter hand out both forks or none; let 2 ask while 1 waits for 0."""
    waiter, table = Waiter(n), Table(n)

    def eat(philosopher: int) -> None:
        with waiter.eating(philosopher), table.meal(philosopher):
            pass

    attempts = [Attempt(f"{number}", partial(eat, number)) for number in range(1, n)]
    one, two, *others = attempts
    with waiter.eating(0), table.meal(0):
        one.start()
        waiter.until_waiting(1, LIMIT)
        two.start()
        two.join(LIMIT)
        seen = f"1 waits, and its neighbour {'waits' if two.is_alive() else 'eats'}"
    for other in others:
        other.start()
    join_all(attempts)
    return sum(table.meals), seen


def with_preemption(n: int) -> tuple[int, str]:
    """Take back the fork of one who waits in the cycle, and let it begin anew."""
    watch = Watch()
    all_hold_one = threading.Barrier(n, timeout=LIMIT)
    did_hold_one: set[threading.Thread] = set()
    taken_back: list[int] = []

    def the_first_time() -> None:
        if threading.current_thread() not in did_hold_one:
            did_hold_one.add(threading.current_thread())
            all_hold_one.wait()

    table = LeftForkFirst(n, watch, the_first_time)

    def eat(philosopher: int) -> None:
        while philosopher not in table.eaten:
            try:
                table.eat(philosopher)
            except DeadlockError:
                taken_back.append(philosopher)

    attempts = start_all(n, eat)
    for wait in watch.deadlock(LIMIT)[:1]:
        watch.give_up(wait.thread)
    join_all(attempts)
    return len(table.eaten), f"{len(taken_back)} fork is taken back"


def without_circular_wait(n: int) -> tuple[int, str]:
    """Let all reach for the lower fork first, and come in the worst of orders."""
    waits, eaten = longest_chain(n)
    return len(eaten), f"{len(waits)} wait, in a chain and not in a cycle"


def philosophers(text: str) -> int:
    number = int(text)
    if not 4 <= number <= MAX_PHILOSOPHERS:
        raise argparse.ArgumentTypeError(
            f"must be in 4 … {MAX_PHILOSOPHERS}, not {number}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--philosophers", type=philosophers, default=5)
    n = parser.parse_args().philosophers

    print("taken away          eat  what is seen")
    for condition, (try_it, expected) in {
        "nothing": (with_all_four, 0),
        "mutual exclusion": (without_mutual_exclusion, n),
        "hold and wait": (without_hold_and_wait, n),
        "no preemption": (with_preemption, n),
        "circular wait": (without_circular_wait, n),
    }.items():
        meals, seen = try_it(n)
        print(f"{condition:16} {meals:6}  {seen}")
        if meals != expected:
            raise SystemExit(f"{expected} were to eat, not {meals}")
    print("with all four conditions a deadlock, without any one of them none")


if __name__ == "__main__":
    main()
