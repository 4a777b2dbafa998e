"""Without a lock nothing is lost if nothing is shared, or if all is done in one call.

All threads read a number before any of them writes it: one addition is left. In the
same interleaving nothing goes wrong if

* each thread has a number of its own (confinement), and all are added up in the end;
* one thread owns the number, and the others send it what is to be added;
* readers get what never changes: a new tuple takes the place of the old one as a whole.
  (That does not help two writers: a number never changes, either.)

Or one call of an object written in C does all of it. The library FAQ, "What kinds of
global value mutation are thread-safe?", calls list.append atomic; the documentation of
deque calls its append thread-safe. On free-threaded builds lists and dicts have locks
of their own. According to "Thread Safety Guarantees" append is atomic there, setdefault
and pop of a dict hold its lock, all the time if the keys compare in C, as str and int
do. The free-threading HOWTO advises a lock of your own all the same: this is how it is
now, not how it must stay. And two such calls are not one, as the last row shows.

No iterator is promised to be thread-safe there. On 3.13t next(count()) never gave a
number twice, but iter(a_list) gave items twice. From 3.15 on a lock is put around an
iterator by threading.serialize_iterator.

Before each call all threads meet. This makes the trial hard; a proof it is not.

Try:  --threads 20

Output:
    how                   shared           result
    read, then write      a number          1 of   8 additions
    threading.local       nothing           8 of   8 additions
    one owner             a queue           8 of   8 additions
    write x, then y       two numbers       7 of   7 see half a move
    make a new tuple      a reference       7 of   7 see old, then new
    next(count())         an iterator     400 of 400 numbers
    list.append           a list          400 of 400 items
    deque.append          a deque         400 of 400 items
    dict.setdefault       a dict           50 of  50 rounds with one object
    dict.pop              a dict           50 of  50 jobs done once
    dict.get and d[k] =   a dict            1 of   8 additions
    share nothing, share what does not change, or do all in one call
"""

import argparse
import itertools
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds that threads may wait for each other
ROUNDS = 50  # in which all threads make the same call at once
MOST_THREADS = 50  # that --threads may ask for

Meet = Callable[[], object]  # returns when all threads have called it


def in_threads(jobs: Sequence[Callable[[Meet], T]]) -> list[T]:
    """Do each job in a thread of its own; return their results.

    Raises:
        Exception: what a job has raised; the others get threading.BrokenBarrierError
            where they wait for it. So do all if they wait for LIMIT seconds.
    """
    barrier = threading.Barrier(len(jobs), timeout=LIMIT)
    with ThreadPoolExecutor(len(jobs)) as pool:
        try:
            futures = [pool.submit(job, barrier.wait) for job in jobs]
            first, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # after Ctrl-C, too, perhaps before all have started
            barrier.abort()
    for future in first:
        future.result()  # raises the cause, and not what came of it in the others
    return [future.result() for future in futures]


class Counter:
    """A number that is added to in two steps, guarded by nothing."""

    value = 0

    def add(self, amount: int, between: Callable[[], object]) -> None:
        """Add; `between` is called when the old value is read and not yet replaced."""
        seen = self.value
        between()
        self.value = seen + amount


class OwnCounter(Counter, threading.local):
    """The same, but each thread has a value of its own, which no other one sees."""


def count(counter: Counter, n_threads: int) -> list[int]:
    """Let each thread add 1, all read before any writes; return what they see then."""

    def add(meet: Meet) -> int:
        counter.add(1, between=meet)
        meet()
        return counter.value

    return in_threads([add] * n_threads)


def count_by_owner(n_threads: int) -> int:
    """Let each thread send 1 to the only one that has the counter; return its value."""
    amounts: queue.SimpleQueue[int] = queue.SimpleQueue()

    def send(meet: Meet) -> int:
        try:
            meet()
        finally:
            amounts.put(1)  # even after Ctrl-C: the owner waits for it
        return 0

    def own(meet: Meet) -> int:
        counter = Counter()
        counter.add(0, between=meet)  # all send when this has read
        for _ in range(n_threads):
            amount = amounts.get(timeout=LIMIT)
            counter.add(amount, between=lambda: None)
        return counter.value

    return in_threads([own, *[send] * n_threads])[0]


Point = tuple[int, int]


class Place:
    """Two coordinates that belong together: (0, 0) at first, then (1, 1)."""

    x = y = 0
    both: Point = (0, 0)


def points_seen(n_threads: int, whole: bool) -> list[tuple[Point, Point]]:
    """Let one thread move a place, and the others read it.

    Args:
        whole: exchange a tuple rather than write two attributes.

    Returns:
        What each reader has seen when the move was half done, and after it.
    """
    place = Place()

    def look(meet: Meet) -> Point:
        meet()
        point = place.both if whole else (place.x, place.y)
        meet()
        return point

    def move(meet: Meet) -> tuple[Point, Point]:
        if whole:
            x = 1  # half a new point, which nobody else sees
            half = look(meet)
            place.both = (x, 1)
        else:
            place.x = 1
            half = look(meet)
            place.y = 1
        return half, look(meet)

    def read(meet: Meet) -> tuple[Point, Point]:
        return look(meet), look(meet)

    return in_threads([move, *[read] * (n_threads - 1)])[1:]


def all_at_once(call: Callable[[int], T], n_threads: int) -> list[list[T]]:
    """Let all threads call `call(round)` at once, for ROUNDS rounds.

    Returns:
        For each round, what the calls have returned.
    """

    def work(meet: Meet) -> list[T]:
        results = []
        for number in range(ROUNDS):
            meet()
            results.append(call(number))
        return results

    return [list(one) for one in zip(*in_threads([work] * n_threads), strict=True)]


def numbers_given(n_threads: int) -> int:
    """Return how many different numbers were given by next() of one itertools.count."""
    numbers = itertools.count()
    return len(set().union(*all_at_once(lambda _: next(numbers), n_threads)))


def items_kept(items: "list[int] | deque[int]", n_threads: int) -> int:
    """Return how many items there are when all threads have appended theirs."""
    all_at_once(items.append, n_threads)
    return len(items)


def rounds_with_one_object(n_threads: int) -> int:
    """Return in how many rounds dict.setdefault gave all threads the same object."""
    made: dict[int, object] = {}
    rounds = all_at_once(lambda key: made.setdefault(key, object()), n_threads)
    return sum(len(set(objects)) == 1 for objects in rounds)


def jobs_done_once(n_threads: int) -> int:
    """Return how many jobs were claimed, by dict.pop, by exactly one thread."""
    jobs = dict.fromkeys(range(ROUNDS), "to be done")
    rounds = all_at_once(lambda key: jobs.pop(key, None), n_threads)
    return sum(claims.count("to be done") == 1 for claims in rounds)


def count_in_dict(n_threads: int) -> int:
    """Add 1 by dict.get and an assignment, each one call; return the sum."""
    counts: dict[str, int] = {}

    def add(meet: Meet) -> None:
        seen = counts.get("n", 0)
        meet()
        counts["n"] = seen + 1

    in_threads([add] * n_threads)
    return counts["n"]


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= MOST_THREADS:
        raise argparse.ArgumentTypeError(
            f"must be between 2 and {MOST_THREADS}, not {number}"
        )
    return number


def show(how: str, shared: str, result: int, of: int, unit: str, expected: int) -> None:
    """Print a line of the table.

    Raises:
        SystemExit: the result is not what it was to be.
    """
    print(f"{how:22}{shared:14}{result:5} of {of:3} {unit}")
    if result != expected:
        raise SystemExit(f"{how}: {expected} was to be the result")


def demonstrate(n: int) -> None:
    """Check each claim with `n` threads, and print it."""
    total = n * ROUNDS
    shared, own = Counter(), OwnCounter()
    print(f"{'how':22}{'shared':17}result")
    count(shared, n)
    show("read, then write", "a number", shared.value, n, "additions", 1)
    everybodys = [*count(own, n), own.value]  # the last is of this thread, and still 0
    show("threading.local", "nothing", sum(everybodys), n, "additions", n)
    show("one owner", "a queue", count_by_owner(n), n, "additions", n)
    readers = n - 1
    torn = points_seen(n, whole=False).count(((1, 0), (1, 1)))
    show("write x, then y", "two numbers", torn, readers, "see half a move", readers)
    whole = points_seen(n, whole=True).count(((0, 0), (1, 1)))
    show(
        "make a new tuple", "a reference", whole, readers, "see old, then new", readers
    )
    show("next(count())", "an iterator", numbers_given(n), total, "numbers", total)
    show("list.append", "a list", items_kept([], n), total, "items", total)
    show("deque.append", "a deque", items_kept(deque(), n), total, "items", total)
    one = rounds_with_one_object(n)
    show("dict.setdefault", "a dict", one, ROUNDS, "rounds with one object", ROUNDS)
    show("dict.pop", "a dict", jobs_done_once(n), ROUNDS, "jobs done once", ROUNDS)
    show("dict.get and d[k] =", "a dict", count_in_dict(n), n, "additions", 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=8)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads)
    except (threading.BrokenBarrierError, queue.Empty) as error:
        raise SystemExit(f"the threads have not met: {error!r}") from None
    print("share nothing, share what does not change, or do all in one call")


if __name__ == "__main__":
    main()
