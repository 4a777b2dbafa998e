"""Three objects are refuted, each by a smallest history that is not linearizable.

Programs for two threads are made, first all of one call, then all of two, and so on.
Each is played in all interleavings of its marked steps, and each history is decided.
None of fewer calls has failed when the first one fails, so no smaller one fails at all:
it would need no more threads than it has calls, and two are enough here.

* A counter is read, and then written: two increments return the same number.
* A queue gives out its places under a lock and lets each be filled outside, to keep the
  critical section short. Each item comes out, once; a test that counts them finds
  nothing. But a place that is not yet filled hides those behind it: `get` finds no item
  after a `put` that has returned. Of all interleavings of three calls, one shows that.
* A register has a copy for each thread, as a cache has that nobody invalidates. There
  is an order of the calls that explains the results and keeps to each thread's own. But
  it puts a read before a write that had returned when the read was invoked. This is
  sequential consistency, which is weaker. No lock helps, for nothing is shared.

In the counter and the queue a lock around each operation helps: no history of the same
programs is refuted. That holds for these programs and these steps, and proves nothing
of larger ones; for all histories, show for each operation its linearization point.

The threads are real, but only one runs at a time, from one mark to the next, so each
run goes the same way.

Output:
    refuted histories of  1 call  2 calls  3 calls
    lockless counter      0 of  2  4 of 15
      in a lock           0 of  2  0 of 13
    hasty queue           0 of  2  0 of 15  1 of 65
      in a lock           0 of  2  0 of 13  0 of 54
    register of copies    0 of  2  1 of 10
      in a lock           0 of  2  1 of 10
    the first of them
    lockless counter: not even sequentially consistent
    A  |- increment() -> 1 -|
    B    |- increment() -> 1 -|
    hasty queue: not even sequentially consistent
    A  |- put(1) ------------------------ ...
    B    |- put(2) -| |- get() -> Empty -|
    register of copies: sequentially consistent by read() -> 0, write(1)
    A  |- write(1) -|
    B                 |- read() -> 0 -|
    2 or 3 calls refute each; a lock helps where something is shared
"""

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from queue import Empty
from typing import Any, Generic, NamedTuple, TypeVar

from linearizability import (
    Call,
    History,
    Order,
    Specification,
    counter,
    decide,
    fifo,
    program_order,
    real_time,
    register,
    shortest_refuted_prefix,
    timeline,
)
from turns import Choose, TurnLock, Turns, all_schedules

T = TypeVar("T")

MOST_CALLS = 4  # in a program; then the search for a refuted history gives up
THREADS = ("A", "B")


class LocklessCounter:
    """A counter that is incremented in two steps; broken: updates may be lost."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._value = 0  # guarded by nothing: that is the defect
        self._step = step

    def increment(self) -> int:
        """Add 1 and return the new value."""
        seen = self._value
        self._step()  # another thread reads the same value here
        self._value = seen + 1
        return seen + 1

    def get(self) -> int:
        return self._value


class HastyQueue(Generic[T]):
    """A queue that gives out places one by one; broken: it fills them when it likes."""

    def __init__(self, step: Callable[[], object]) -> None:
        self._lock = threading.Lock()  # guards the numbers of places, and no more
        self._first = self._end = 0  # the places that are given out, and not yet empty
        self._items: dict[int, T] = {}  # by place
        self._step = step

    def put(self, item: T) -> None:
        """Add `item`."""
        with self._lock:
            place = self._end
            self._end += 1
        self._step()  # here the place hides those behind it
        self._items[place] = item

    def get(self) -> T:
        """Take the first item, or raise queue.Empty."""
        with self._lock:
            if self._first not in self._items:
                raise Empty
            self._first += 1
            return self._items.pop(self._first - 1)


class CopiedRegister(threading.local):
    """A register of which each thread has a copy; broken: others see no write."""

    value = 0

    def write(self, value: int) -> None:
        self.value = value

    def read(self) -> int:
        return self.value


Operations = Mapping[str, Callable[..., object]]


def lockless_counter(turns: Turns) -> Operations:
    made = LocklessCounter(turns.mark)
    return {"increment": made.increment, "get": made.get}


def hasty_queue(turns: Turns) -> Operations:
    made = HastyQueue[int](turns.mark)
    return {"put": made.put, "get": made.get}


def copied_register(_: Turns) -> Operations:
    made = CopiedRegister()
    return {"write": made.write, "read": made.read}


@dataclass(frozen=True)
class Subject:
    """An object that is to be refuted, and what it is held against."""

    name: str
    make: Callable[[Turns], Operations]
    specification: Specification[Any]
    initial: Hashable
    with_argument: str = ""  # the operation that has one

    def explain(self, calls: Sequence[Call], order: Order) -> tuple[Call, ...] | None:
        """Return the calls in an order that gives their results, if there is one."""
        return decide(calls, self.specification, self.initial, order).order


SUBJECTS = (
    Subject("lockless counter", lockless_counter, counter, 0),
    Subject("hasty queue", hasty_queue, fifo, (), "put"),
    Subject("register of copies", copied_register, register, 0, "write"),
)


def in_a_lock(subject: Subject) -> Subject:
    """Return the same object with each operation as one critical section."""

    def call(
        lock: TurnLock, function: Callable[..., object], *arguments: int
    ) -> object:
        with lock:
            return function(*arguments)

    def make(turns: Turns) -> Operations:
        operations, lock = subject.make(turns), TurnLock(turns)
        return {name: partial(call, lock, operations[name]) for name in operations}

    return replace(subject, name="  in a lock", make=make)


Program = dict[str, list[tuple[str, tuple[int, ...]]]]  # each thread's calls


def programs(subject: Subject, n_calls: int) -> Iterator[Program]:
    """Yield all programs of so many calls for two threads, whichever is called A."""
    for n_first in range(n_calls // 2 + 1):
        for names in product(subject.make(Turns()), repeat=n_calls):
            if 2 * n_first == n_calls and names[:n_first] < names[n_first:]:
                continue  # comes the other way round
            calls: list[tuple[str, tuple[int, ...]]] = [
                (name, (n,) if name == subject.with_argument else ())
                for n, name in enumerate(names, start=1)
            ]
            yield {"A": calls[:n_first], "B": calls[n_first:]}


class Played(NamedTuple):
    """A history, and the operations of the object that it is of."""

    calls: list[Call]
    operations: Operations


def play(subject: Subject, program: Program, choose: Choose) -> Played:
    """Play a program on a new object; `choose` and exceptions as of `Turns.play`."""
    turns, history = Turns(), History()
    operations = subject.make(turns)

    def run(thread: str) -> None:
        for n, (name, arguments) in enumerate(program[thread]):
            if n > 0:
                turns.mark()
            history.call(thread, name, operations[name], *arguments)

    jobs = {thread: partial(run, thread) for thread in THREADS if program[thread]}
    turns.play(jobs, choose)
    return Played(history.calls(), operations)


def play_all(subject: Subject, n_calls: int) -> list[Played]:
    """Play all programs of so many calls, each in all interleavings of its steps."""
    return [
        played
        for program in programs(subject, n_calls)
        for _, played in all_schedules(partial(play, subject, program))
    ]


def keeps_items(played: Played) -> bool:
    """Tell whether each item that was put into a queue comes out of it, and once."""
    put = [call.arguments[0] for call in played.calls if call.name == "put"]
    results = [call.result for call in played.calls if call.name == "get"]
    got = [result for result in results if result is not Empty]
    with suppress(Empty):
        for _ in put:
            got.append(played.operations["get"]())
    return Counter(put) == Counter(got)


def refute(subject: Subject) -> list[Call]:
    """Return a smallest history that is not linearizable; print how many there are.

    Raises:
        SystemExit: there is none; or an item is lost; or a lock does not help, or it
            helps where nothing is shared.
    """
    versions = subject, in_a_lock(subject)
    rows = [f"{version.name:20}" for version in versions]
    for n_calls in range(1, MOST_CALLS + 1):
        refuted: list[list[list[Call]]] = []
        for n, version in enumerate(versions):
            played = play_all(version, n_calls)
            if subject.make is hasty_queue and not all(map(keeps_items, played)):
                raise SystemExit(f"{subject.name}: each item was to come out once")
            refuted.append(
                [
                    one.calls
                    for one in played
                    if version.explain(one.calls, real_time) is None
                ]
            )
            rows[n] += f"{len(refuted[n]):3} of {len(played):2}"
        broken, locked = refuted
        if bool(locked) != (bool(broken) and subject.make is copied_register):
            raise SystemExit(f"{subject.name}: a lock was to help if it is shared")
        if broken:
            print("\n".join(rows))
            return broken[0]
    raise SystemExit(f"{subject.name}: not refuted by {MOST_CALLS} calls")


def main() -> None:
    print(f"{'refuted histories of':22}1 call  2 calls  3 calls")
    try:
        smallest = [refute(subject) for subject in SUBJECTS]
    except TimeoutError as error:
        raise SystemExit(f"a thread does not go on: {error}") from None
    if [len(calls) for calls in smallest] != [2, 3, 2]:
        raise SystemExit("2, 3 and 2 calls were to do")
    print("the first of them")
    for subject, calls in zip(SUBJECTS, smallest, strict=True):
        order = subject.explain(calls, program_order)
        kind = "not even sequentially consistent"
        if order is not None:
            kind = f"sequentially consistent by {', '.join(map(str, order))}"
        print(f"{subject.name}: {kind}")
        prefix = shortest_refuted_prefix(calls, subject.specification, subject.initial)
        print(timeline(prefix))
        if (order is None) != (subject.make is not copied_register):
            raise SystemExit("only the register was to be sequentially consistent")
    print("2 or 3 calls refute each; a lock helps where something is shared")


if __name__ == "__main__":
    main()
