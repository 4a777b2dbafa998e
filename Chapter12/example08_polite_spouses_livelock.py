"""Two polite spouses hand their only spoon to each other, a thousand times, and starve.

Who has the spoon looks whether the other is hungry, too; if so, the other is to have
it. Both are, so the spoon wanders for ever. Nobody is blocked: every wait is over in a
moment, both threads act all the time and use the processor. This is a livelock. What
finds deadlocks does not find it: there is no cycle of threads that wait, and no time
limit of a wait runs out. Watch progress instead, meals and not steps.

It lasts as long as both give way. Once one of them insists, both eat; so let one do:

* Patience: who has given way so many times insists. The one who began is the first.
* Rank: one of the two never gives way. He always eats first, and if he is hungry again
  and again, the other starves.
* Chance: each insists with probability 1/2, so that one hand-over is to be expected
  before the first meal, and a thousand never happen. Ethernet's stations and Raft's
  candidates part in this way.

Two threads that take one lock, try the other, give up and begin anew do likewise; see
example09 for them.

Book: Chapter 12, example8.
Try:  --patience 1
Try:  --seed 2

Output:
    insists    hand-overs  eats
    never            1000  nobody
               no deadlock: each has acted 500 times,
               nobody has waited longer than 0.4 ms,
               15.2 ms of processor time are gone
    after 10           20  Ann then Ben
    Ann does            0  Ann then Ben
    Ben does            1  Ben then Ann
    by chance          99  both, in all of 100 dinners
               at most 7 in one of them
    as long as both give way nobody eats; once one insists both do
"""

import argparse
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait

SPOUSES = ("Ann", "Ben")  # Ann has the spoon at first
HAND_OVERS = 1000  # after so many without a meal the dinner is over
DINNERS = 100  # that chance has to end
LIMIT = 10.0  # seconds that a spouse may wait for the spoon

# Called with a spouse's number (0 or 1) and how often he or she has given way.
Insists = Callable[[int, int], bool]


class Dinner:
    """Two hungry spouses and one spoon.

    Args:
        insists: asked when the other one is hungry, too: does this one eat all the
            same? One call at a time.
        most: hand-overs after which the dinner ends, whoever is hungry then.

    Raises:
        ValueError: `most` is less than 1.
    """

    def __init__(self, insists: Insists, most: int) -> None:
        if most < 1:
            raise ValueError(f"a dinner of at most {most} hand-overs")
        self._insists = insists
        self._most = most
        # Guards all that follows, and is notified of every hand-over and of the end.
        self._moved = threading.Condition()
        self._holder = 0
        self._hungry = [True, True]
        self._over = False
        self.meals: list[int] = []  # who has eaten, in this order
        self.gave_way = [0, 0]  # how often each has handed over the spoon, hungry
        self.longest_wait = 0.0  # seconds that one of them waited for the spoon
        self.processor_time = 0.0  # seconds, of both

    def dine(self, me: int) -> None:
        """Eat, in this thread, or hand the spoon over until the dinner is over.

        Raises:
            TimeoutError: the spoon did not come for LIMIT seconds: a deadlock.
        """
        began = time.thread_time()
        other = 1 - me
        with self._moved:
            while self._has_spoon(me):
                gives_way = self._hungry[other] and not self._insists(
                    me, self.gave_way[me]
                )
                if gives_way:
                    self.gave_way[me] += 1
                    self._over = sum(self.gave_way) == self._most
                else:
                    self.meals.append(me)
                    self._hungry[me] = False
                self._holder = other
                self._moved.notify_all()
                if not self._hungry[me]:
                    break
            self.processor_time += time.thread_time() - began

    def _has_spoon(self, me: int) -> bool:
        """Wait for the spoon; tell whether it has come before the end."""
        began = time.perf_counter()
        if not self._moved.wait_for(lambda: self._over or self._holder == me, LIMIT):
            raise TimeoutError(f"no spoon for {SPOUSES[me]}")
        self.longest_wait = max(self.longest_wait, time.perf_counter() - began)
        return not self._over

    def end(self) -> None:
        """Let nobody wait any more. Again: no effect."""
        with self._moved:
            self._over = True
            self._moved.notify_all()


def dine_together(insists: Insists, most: int = HAND_OVERS) -> Dinner:
    """Let the spouses dine, in threads of a pool; return how it went.

    Raises:
        ValueError, TimeoutError: as by `Dinner`.
        Exception: what `insists` raises. The dinner is over then.
    """
    dinner = Dinner(insists, most)
    with ThreadPoolExecutor(max_workers=2) as threads:
        try:
            futures = [threads.submit(dinner.dine, me) for me in (0, 1)]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # also after Ctrl-C, perhaps with one of them not there yet
            dinner.end()
    for future in futures:
        future.result()
    return dinner


def never(me: int, gave_way: int) -> bool:
    """Insist under no circumstances."""
    return False


def after(patience: int) -> Insists:
    """Return the rule to insist after having given way `patience` times."""
    return lambda me, gave_way: gave_way >= patience


def by_rank(elder: int) -> Insists:
    """Return the rule that the elder of the two insists, and the younger does not."""
    return lambda me, gave_way: me == elder


def by_chance(generator: random.Random) -> Insists:
    """Return the rule to insist with probability 1/2."""
    return lambda me, gave_way: generator.random() < 0.5


def patience(text: str) -> int:
    number = int(text)
    if not 0 <= 2 * number < HAND_OVERS:
        raise argparse.ArgumentTypeError(
            f"must be at least 0 and less than {HAND_OVERS // 2}, not {number}"
        )
    return number


def report(rule: str, dinner: Dinner, hand_overs: int, meals: list[int]) -> None:
    """Print how a dinner went, and check it."""
    eaten = " then ".join(SPOUSES[me] for me in dinner.meals) or "nobody"
    print(f"{rule:10} {sum(dinner.gave_way):10}  {eaten}")
    if (sum(dinner.gave_way), dinner.meals) != (hand_overs, meals):
        raise SystemExit(f"{rule}: there were to be {hand_overs} hand-overs")


def demonstrate(n: int, seed: int) -> None:
    """Check each claim, and print it."""
    print("insists    hand-overs  eats")
    polite = dine_together(never)
    report("never", polite, HAND_OVERS, [])
    if polite.gave_way != [HAND_OVERS // 2] * 2:
        raise SystemExit("they were to take turns")
    print(f"           no deadlock: each has acted {polite.gave_way[0]} times,")
    print(
        f"           nobody has waited longer than {1e3 * polite.longest_wait:.1f} ms,"
    )
    print(f"           {1e3 * polite.processor_time:.1f} ms of processor time are gone")

    report(f"after {n}", dine_together(after(n)), 2 * n, [0, 1])
    report("Ann does", dine_together(by_rank(0)), 0, [0, 1])
    report("Ben does", dine_together(by_rank(1)), 1, [1, 0])

    insists = by_chance(random.Random(seed))
    dinners = [dine_together(insists) for _ in range(DINNERS)]
    if any(sorted(dinner.meals) != [0, 1] for dinner in dinners):
        raise SystemExit("chance was to let both eat")
    counts = [sum(dinner.gave_way) for dinner in dinners]
    print(f"by chance  {sum(counts):10}  both, in all of {DINNERS} dinners")
    print(f"           at most {max(counts)} in one of them")
    print("as long as both give way nobody eats; once one insists both do")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--patience", type=patience, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        demonstrate(options.patience, options.seed)
    except TimeoutError as error:
        raise SystemExit(f"this was to be no deadlock: {error}") from None


if __name__ == "__main__":
    main()
