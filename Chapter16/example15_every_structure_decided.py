# /// script
# requires-python = ">=3.11"
# dependencies = ["cereggii>=1.0.0", "matplotlib>=3.8.0"]
# ///
"""All structures of this chapter run in random schedules, and each history is decided.

Three threads make two calls each, drawn at random, and a schedule drawn at random says
who runs from one mark to the next. Marks are where another thread could do harm: before
a lock is taken, before each look at an atomic reference and each change of it, and in
the midst of critical sections and of changes to a copy, where keys are compared,
lengths taken, numbers added. So threads meet within each other's operations all the
time, as they hardly would by themselves. All draws come from a seed: a history that is
refuted comes again.

The structures are those to copy, unchanged; what they get is a lock, a deque, an atomic
reference, a key, a number or a function with marks. As a counter-check each runs
without what keeps it whole, in the same programs: with locks that let everybody in, or
with a compare-and-set that does not compare. Were none of these refuted, the histories
would be no test of the sound ones. (Without locks a structure may also raise an error
of its own, or lead a thread round in a circle of nodes. That counts as refuted, too.)

Calls that may wait for another thread's call are left out: put and get of the blocking
queue, of which the forms without waiting are here, and get_or_load of the cache. The
ring is decided in example16. The approximate counter is linearizable by get_exact(),
and not by get(), which is meant to be behind. Any number of histories without a
refutation is no proof. For that there are the linearization points, stated in each
structure.

Try:  --histories 1000
Try:  --seed 2

Output:
    100 histories of each       refuted  without lock, or compare
      LockedCounter                 0  the first is number 7
      ApproximateCounter            0  the first is number 2
      Network                       0  the first is number 14
      BlockingQueue                 0  the first is number 13
      StripedMap                    0  the first is number 13
      LRUCache                      0  the first is number 23
      CoarseList                    0  the first is number 30
      HandOverHandList              0  the first is number 2
      OptimisticList                0  the first is number 56
      TreiberStack                  0  the first is number 3
      MichaelScottQueue             0  the first is number 3
    ApproximateCounter.get() may be behind:
    A  |- get() -> 0 -|
    B                   |- add(1) -|
    C                                |- get() -> 0 -|
    11 structures are linearizable in all that was played
"""

import argparse
import random
import threading
from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from example01_lockless_counter import PausingInt
from example02_locked_counter import LockedCounter
from example04_approximate_counter import ApproximateCounter
from example06_mutex_free_network import LastStoreWins, Network, Version
from example07_bounded_blocking_queue import BlockingQueue
from example09_striped_hash_map import StripedMap, in_range
from example10_lru_cache import LRUCache
from example11_sorted_list_three_lockings import (
    CoarseList,
    HandOverHandList,
    OptimisticList,
    SortedList,
)
from example12_treiber_stack import TreiberStack
from example13_michael_scott_queue import MichaelScottQueue
from linearizability import (
    Arguments,
    Call,
    History,
    Specification,
    counter,
    decide,
    fifo,
    key_map,
    key_set,
    lifo,
    shortest_refuted_prefix,
    timeline,
)
from turns import TurnLock, Turns

try:
    import cereggii  # type: ignore[import-untyped]
except ModuleNotFoundError:
    print("needs cereggii")
    raise SystemExit(77) from None

THREADS = ("A", "B", "C")
N_CALLS = 2  # of each thread
CAPACITY = 2  # of the queue and of the cache
NUMBERS = (1, 2, 3)  # keys and items
MOST_MARKS = 1000  # of one history; then a thread goes round in a circle
MOST_HISTORIES = 10_000


class EndlessError(Exception):
    """An operation does not come to its end."""


class Marks:
    """Where threads may be stopped, and what goes with it.

    Args:
        turns: that says who runs.
        sound: locks exclude, and compare-and-set compares.
    """

    def __init__(self, turns: Turns, sound: bool) -> None:
        self.turns = turns
        self.sound = sound
        self._n_marks = 0

    def mark(self) -> None:
        """Let another thread run, perhaps.

        Raises:
            EndlessError: there were MOST_MARKS already.
        """
        self._n_marks += 1
        if self._n_marks > MOST_MARKS:
            raise EndlessError
        self.turns.mark()

    def lock(self) -> "MarkedLock":
        return MarkedLock(self)

    def cell(self, initial: object) -> "MarkedCell":
        return MarkedCell(self, initial)

    def number(self, value: int) -> "MarkedNumber":
        return MarkedNumber(value, self)


class MarkedLock:
    """A lock with a mark before it is taken."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._lock = TurnLock(marks.turns)

    def acquire(self) -> bool:
        self._marks.mark()
        if self._marks.sound:
            self._lock.__enter__()
        return True

    def release(self) -> None:
        if self._marks.sound:
            self._lock.__exit__()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def locked(self) -> bool:  # threading.Condition of 3.14 takes it over
        return self._lock.is_held

    def _is_owned(self) -> bool:  # asked by threading.Condition before a notify
        return True


class MarkedCell:
    """An atomic reference with a mark before each look at it, and each change."""

    def __init__(self, marks: Marks, initial: object) -> None:
        self._marks = marks
        self._reference = cereggii.AtomicRef(initial)

    def get(self) -> Any:
        self._marks.mark()
        return self._reference.get()

    def compare_and_set(self, expected: object, desired: object) -> bool:
        self._marks.mark()
        if self._marks.sound:
            return bool(self._reference.compare_and_set(expected, desired))
        self._reference.set(desired)
        return True


class MarkedNumber(int):
    """A number with a mark after each comparison, before its result is used."""

    _marks: Marks

    def __new__(cls, value: int, marks: Marks) -> "MarkedNumber":
        self = super().__new__(cls, value)
        self._marks = marks
        return self

    def __eq__(self, other: object) -> bool:
        result = super().__eq__(other)
        self._marks.mark()
        return result

    def __lt__(self, other: int) -> bool:
        result = super().__lt__(other)
        self._marks.mark()
        return result

    __hash__ = int.__hash__


class MarkedDeque(deque[Any]):
    """A deque with a mark when it has found its length, and has not told it."""

    def __init__(self, marks: Marks) -> None:
        super().__init__()
        self._marks = marks

    def __len__(self) -> int:
        length = super().__len__()
        self._marks.mark()
        return length


# A structure's operations, by the names that the specification has for them.
Operations = Mapping[str, Callable[..., object]]


def locked_counter(marks: Marks) -> Operations:
    made = LockedCounter(PausingInt(0, marks.mark))
    made._lock = marks.lock()
    return {"add": lambda _: made.increment(), "get": lambda: int(made.get())}


def approximate_counter(marks: Marks, exact: bool = True) -> Operations:
    made = ApproximateCounter(n_locals=1, threshold=2)
    (local,) = made.locals
    made._lock, local.lock = marks.lock(), marks.lock()  # type: ignore[assignment]
    get = made.get_exact if exact else made.get
    return {"add": lambda _: local.increment(), "get": get}


def network(marks: Marks) -> Operations:
    made = (Network if marks.sound else LastStoreWins)(Version.of([("hub", "0", 1)]))

    def connect(node: int, length: int) -> None:
        def change(version: Version) -> Version:
            marks.mark()
            return version.connect("hub", f"{node}", length)

        made.update(change)

    def length_to(node: int) -> float | None:
        return made.version.neighbours["hub"].get(f"{node}")

    return {"set": connect, "get": length_to}


def blocking_queue(marks: Marks) -> Operations:
    made = BlockingQueue[int](CAPACITY)
    lock: Any = marks.lock()
    made.mutex = lock
    made.not_empty, made.not_full = threading.Condition(lock), threading.Condition(lock)
    made._items = MarkedDeque(marks)
    return {"put": made.put_nowait, "get": made.get_nowait}


def striped_map(marks: Marks) -> Operations:
    made = StripedMap[MarkedNumber, int](2, marks.lock)

    def update(key: int, amount: int) -> int:
        return made.update(marks.number(key), lambda value: value + amount, 0)

    return {
        "get": lambda key: made.get(marks.number(key), None),
        "pop": lambda key: made.pop(marks.number(key)),
        "setdefault": lambda key, value: made.setdefault(
            marks.number(key), lambda: value
        ),
        "update": update,
    }


def lru_cache(marks: Marks) -> Operations:
    made = LRUCache[MarkedNumber, int](CAPACITY)
    made._lock = marks.lock()  # type: ignore[assignment]
    return {
        "get": lambda key: made.get(marks.number(key), None),
        "set": lambda key, value: made.put(marks.number(key), value),
    }


def lru(
    items: tuple[tuple[int, int], ...], name: str, arguments: Arguments
) -> tuple[tuple[tuple[int, int], ...], object]:
    """Specify a cache, by its pairs of key and value; the last one was used last."""
    key, *value = arguments
    others = tuple(item for item in items if item[0] != key)
    if name == "set":
        return (*others, (key, *value))[-CAPACITY:], None
    found = dict(items).get(key)
    return (items if found is None else (*others, (key, found))), found


def sorted_list(
    kind: Callable[..., SortedList[MarkedNumber]], marks: Marks
) -> Operations:
    made = kind(marks.lock)
    return {
        "add": lambda key: made.add(marks.number(key)),
        "remove": lambda key: made.remove(marks.number(key)),
        "contains": lambda key: made.contains(marks.number(key)),
    }


def treiber_stack(marks: Marks) -> Operations:
    made = TreiberStack[int](marks.cell)
    return {"push": made.push, "pop": made.pop}


def michael_scott_queue(marks: Marks) -> Operations:
    made = MichaelScottQueue[int](marks.cell)
    return {"put": made.enqueue, "get": made.dequeue}


@dataclass(frozen=True)
class Structure:
    """A structure, what it is held against, and the calls of which some are drawn."""

    name: str
    make: Callable[[Marks], Operations]
    specification: Specification[Any]
    initial: Hashable
    calls: Sequence[tuple[str, Arguments]]


def with_each(*names: str) -> list[tuple[str, Arguments]]:
    """Return the calls of these operations with each of NUMBERS."""
    return [(name, (number,)) for name in names for number in NUMBERS]


COUNTS: list[tuple[str, Arguments]] = [("add", (1,)), ("add", (1,)), ("get", ())]
QUEUES = [*with_each("put"), *3 * [("get", ())]]
STACKS = [*with_each("push"), *3 * [("pop", ())]]
SETS = with_each("add", "remove", "contains")
MAPS: list[tuple[str, Arguments]] = [
    *with_each("get", "pop"),
    *(("setdefault", (number, 10)) for number in NUMBERS),
    *(("update", (number, 1)) for number in NUMBERS),
]
PAIRS: list[tuple[str, Arguments]] = [
    *with_each("get"),
    *(("set", (key, value)) for key in NUMBERS for value in (10, 20)),
]

EMPTY_SET: frozenset[Any] = frozenset()
STRUCTURES = (
    Structure("LockedCounter", locked_counter, counter, 0, COUNTS),
    Structure("ApproximateCounter", approximate_counter, counter, 0, COUNTS),
    Structure("Network", network, key_map, EMPTY_SET, PAIRS),
    Structure(
        "BlockingQueue", blocking_queue, partial(fifo, maxsize=CAPACITY), (), QUEUES
    ),
    Structure("StripedMap", striped_map, key_map, EMPTY_SET, MAPS),
    Structure("LRUCache", lru_cache, lru, (), PAIRS),
    *(
        Structure(kind.__name__, partial(sorted_list, kind), key_set, EMPTY_SET, SETS)
        for kind in (CoarseList, HandOverHandList, OptimisticList)
    ),
    Structure("TreiberStack", treiber_stack, lifo, (), STACKS),
    Structure(
        "MichaelScottQueue",
        michael_scott_queue,
        partial(fifo, empty=IndexError),
        (),
        QUEUES,
    ),
)


def play(structure: Structure, sound: bool, draw: random.Random) -> list[Call]:
    """Make calls drawn at random in a schedule drawn at random; return the history."""
    turns, history = Turns(), History()
    operations = structure.make(Marks(turns, sound))

    def run(thread: str, calls: Sequence[tuple[str, Arguments]]) -> None:
        for name, arguments in calls:
            turns.mark()
            history.call(thread, name, operations[name], *arguments)

    jobs = {
        thread: partial(run, thread, draw.choices(structure.calls, k=N_CALLS))
        for thread in THREADS
    }
    turns.play(jobs, draw.choice)
    return history.calls()


def first_refuted(
    structure: Structure, sound: bool, n: int, seed: int
) -> tuple[int, list[Call]] | None:
    """Play up to `n` histories until one is not linearizable; return which, and it."""
    for number in range(1, n + 1):
        calls = play(structure, sound, random.Random(f"{seed} {number}"))
        if decide(calls, structure.specification, structure.initial).order is None:
            return number, calls
    return None


def explain(structure: Structure, calls: Sequence[Call]) -> str:
    """Draw the shortest beginning of a history that is not linearizable."""
    return timeline(
        shortest_refuted_prefix(calls, structure.specification, structure.initial)
    )


def demonstrate(n: int, seed: int) -> None:
    """Decide `n` histories of each structure, and look for one of its broken twin."""
    print(f"{n} histories of each       refuted  without lock, or compare")
    for structure in STRUCTURES:
        if found := first_refuted(structure, True, n, seed):
            raise SystemExit(
                f"{structure.name}: not linearizable\n{explain(structure, found[1])}"
            )
        print(f"  {structure.name:25}{0:6}  the first is number ", end="")
        if not (found := first_refuted(structure, False, MOST_HISTORIES, seed)):
            raise SystemExit("none: the histories are no test")
        print(found[0])
    behind = partial(approximate_counter, exact=False)
    get = Structure("get", behind, counter, 0, COUNTS)
    if not (found := first_refuted(get, True, MOST_HISTORIES, seed)):
        raise SystemExit("get() of the approximate counter was to be behind")
    print("ApproximateCounter.get() may be behind:")
    print(explain(get, found[1]))
    print(f"{len(STRUCTURES)} structures are linearizable in all that was played")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--histories", type=in_range(1, MOST_HISTORIES), default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    try:
        demonstrate(options.histories, options.seed)
    except (RuntimeError, TimeoutError) as error:
        raise SystemExit(f"a program was not played to its end: {error}") from None


if __name__ == "__main__":
    main()
