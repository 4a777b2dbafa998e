# /// script
# requires-python = ">=3.11"
# dependencies = ["hypothesis>=6.100"]
# ///
"""Hypothesis drives a queue, then the threads that share it, to the shortest failure.

Two state machines draw their own tests, rule by rule, and shrink what fails to the
least steps. The first calls a queue from one thread and compares it with a deque. It
finds the ring that computes its size wrongly, and nothing else.

The second begins calls in threads, and says which of them goes on (see stage.py). A
history is right if its calls, in an order that respects who had returned before whom,
are those of a deque, and if none still waits that need not. Chapter 16 has that search
for larger histories: linearizability.py.

Three wrong queues pass the first machine, and not the second. What it prints is the way
to the fault in the fewest steps that Hypothesis has come down to. Shrinking is greedy:
it drops a step, or a part of one, as long as the test still fails.

D. R. MacIver et al., "Hypothesis: a new approach to property-based testing", Journal of
Open Source Software 4 (43), 2019.

Output:
    WrongSize, found by a model: size() is -1, not 1
        put(1)
        get()
        put(2)
    IfForWhile, found by threads: no order explains what was returned
        A get()    waits
        B put(1)   returns, and wakes A
        C get()    returns 1
        A goes on  returns None
    TooFewWakeUps, found by threads: a call waits that need not
        A get()    waits
        B get()    waits
        C put(1)   returns, and wakes A
        D put(2)   returns
        A goes on  returns 1
    CheckThenAct, found by threads: no order explains what was returned
        A put(1)   stops
        B put(2)   stops
        A goes on  returns
        B goes on  returns
    BoundedQueue: no fault against the model, none with threads
"""

import argparse
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import Empty, Full
from typing import Any, cast

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from stage import Stage, StagedCondition

MOST_AT_ONCE = 2  # threads that one rule concerns
STEPS = 10  # rules in one run, at most
MOST_CALLS = MOST_AT_ONCE * STEPS
RUNS = 80  # of a machine, unless one fails

MakeCondition = Callable[["threading.Lock"], threading.Condition]


class BoundedQueue:
    """A queue of integers between threads, first in, first out: a ring of slots.

    Args:
        capacity: how many items fit in.
        make_condition: makes the two conditions; a test has its own.
    """

    def __init__(
        self, capacity: int, make_condition: MakeCondition = threading.Condition
    ) -> None:
        lock = threading.Lock()  # guards the ring
        self.not_empty = make_condition(lock)  # put() wakes one who waits for it
        self.not_full = make_condition(lock)  # and get() one who waits for this
        self._capacity = capacity
        self._ring: list[int | None] = [None] * (capacity + 1)  # one is always free
        self._head = self._tail = 0  # equal if it is empty

    def put(self, item: int, block: bool = True) -> None:
        """Add `item` as soon as there is room; if not `block`, raise Full instead."""
        with self.not_full:
            self._await_room(block)
            self._add(item)

    def get(self, block: bool = True) -> int | None:
        """Return the oldest item as soon as there is one; if not `block`, raise Empty.

        None is never returned, unless the queue is wrong.
        """
        with self.not_empty:
            self._await_item(block)
            item, self._ring[self._head] = self._ring[self._head], None
            self._head = (self._head + 1) % len(self._ring)
            self.not_full.notify()
            return item

    def size(self) -> int:
        """Return how many items are inside."""
        return (self._tail - self._head) % len(self._ring)

    # These are called with the lock held.

    def _await_room(self, block: bool) -> None:
        while self.size() == self._capacity:
            if not block:
                raise Full
            self.not_full.wait()

    def _await_item(self, block: bool) -> None:
        while not self.size():
            if not block:
                raise Empty
            self.not_empty.wait()

    def _add(self, item: int) -> None:
        self._ring[self._tail] = item
        self._tail = (self._tail + 1) % len(self._ring)
        self._tell_getters()

    def _tell_getters(self) -> None:
        self.not_empty.notify()


class WrongSize(BoundedQueue):
    """Forgets that the tail may have gone round."""

    def size(self) -> int:
        return self._tail - self._head


class IfForWhile(BoundedQueue):
    """Does not look again when a getter is woken."""

    def _await_item(self, block: bool) -> None:
        if not self.size():
            if not block:
                raise Empty
            self.not_empty.wait()


class TooFewWakeUps(BoundedQueue):
    """Wakes a getter only for an item that comes into an empty queue."""

    def _tell_getters(self) -> None:
        if self.size() == 1:
            self.not_empty.notify()


class CheckThenAct(BoundedQueue):
    """Sees room in one critical section, and takes it in another."""

    def put(self, item: int, block: bool = True) -> None:
        with self.not_full:
            self._await_room(block)
        with self.not_full:
            self._add(item)


# Each with the least capacity at which it can be seen.
WRONG = ((WrongSize, 1), (IfForWhile, 1), (TooFewWakeUps, 2), (CheckThenAct, 1))


@dataclass(slots=True)
class Call:
    """One call in a history; `returned` is None while it has not returned.

    Attributes:
        item: what is put; None for a get.
        invoked, returned: numbers of the steps.
    """

    thread: str
    item: int | None
    invoked: int
    returned: int | None = None
    result: int | None = None

    def __str__(self) -> str:
        return "get()" if self.item is None else f"put({self.item})"


def takes_effect(
    call: Call, inside: tuple[int, ...], capacity: int
) -> tuple[tuple[int, ...], int | None] | None:
    """Return what is inside after a call, and its result; None if it would wait."""
    if call.item is not None:
        return ((*inside, call.item), None) if len(inside) < capacity else None
    return (inside[1:], inside[0]) if inside else None


def is_right(calls: Sequence[Call], capacity: int, quiet: bool) -> bool:
    """Tell whether a history is one of a queue of this capacity.

    That is if its calls that have returned are linearizable. A call that has not has
    done nothing yet.

    Args:
        quiet: nobody can go on. Then no call may be left that need not wait.
    """

    def ends_well(left: Sequence[Call], inside: tuple[int, ...]) -> bool:
        if not left:
            return not quiet or all(
                takes_effect(call, inside, capacity) is None for call in waiting
            )
        first_return = min(one.returned or 0 for one in left)
        for call in left:
            if call.invoked <= first_return:
                effect = takes_effect(call, inside, capacity)
                if effect is not None and effect[1] == call.result:
                    rest = [one for one in left if one is not call]
                    if ends_well(rest, effect[0]):
                        return True
        return False

    waiting = [call for call in calls if call.returned is None]
    return ends_well([call for call in calls if call.returned is not None], ())


class FaultFoundError(AssertionError):
    """A queue was wrong; `steps` lead to it, and the message says what was seen."""

    def __init__(self, seen: str, steps: Sequence[str]) -> None:
        super().__init__(seen)
        self.steps = steps


class AgainstModel(RuleBasedStateMachine):
    """Calls a queue from one thread, and compares it with a deque."""

    def __init__(self, queue_type: type[BoundedQueue], capacity: int) -> None:
        super().__init__()
        self._queue = queue_type(capacity)
        self._capacity = capacity
        self._model: deque[int] = deque()
        self._n_puts = 0
        self._steps: list[str] = []

    @rule()
    def put(self) -> None:
        self._n_puts += 1
        item = self._n_puts
        expected: Any = Full
        if len(self._model) < self._capacity:
            expected = None
            self._model.append(item)
        self._compare(f"put({item})", partial(self._queue.put, item), expected)

    @rule()
    def get(self) -> None:
        expected = self._model.popleft() if self._model else Empty
        self._compare("get()", self._queue.get, expected)

    @invariant()
    def has_the_size_of_the_model(self) -> None:
        if self._queue.size() != len(self._model):
            seen = f"size() is {self._queue.size()}, not {len(self._model)}"
            raise FaultFoundError(seen, self._steps)

    def _compare(self, what: str, call: Callable[..., Any], expected: Any) -> None:
        try:
            result = call(block=False)
        except (Empty, Full) as error:
            result = type(error)
        self._steps.append(what)
        if result != expected:
            raise FaultFoundError(f"{what} is {result}, not {expected}", self._steps)


class OfThreads(RuleBasedStateMachine):
    """Lets threads call a queue, chooses who goes on, and looks at the history."""

    def __init__(
        self, queue_type: type[BoundedQueue], capacity: int, pool: ThreadPoolExecutor
    ) -> None:
        super().__init__()
        self._stage = Stage(pool)
        self._queue = queue_type(capacity, partial(StagedCondition, self._stage))
        self._capacity = capacity
        self._calls: list[Call] = []
        self._steps: list[str] = []

    @rule(n=st.integers(1, MOST_AT_ONCE))
    def put(self, n: int) -> None:
        for _ in range(n):
            self._invoke(1 + sum(call.item is not None for call in self._calls))

    @rule(n=st.integers(1, MOST_AT_ONCE))
    def get(self, n: int) -> None:
        for _ in range(n):
            self._invoke(None)

    @precondition(lambda self: self._stage.able)
    @rule(threads=st.runner().flatmap(lambda self: self.some_that_are_able()))
    def go_on(self, threads: Sequence[str]) -> None:
        for thread in threads:
            call = next(call for call in self._calls if call.thread == thread)
            self._step(call, "goes on", partial(self._stage.go_on, thread))

    def some_that_are_able(self) -> st.SearchStrategy[list[str]]:
        able = st.sampled_from(tuple(self._stage.able))
        return st.lists(able, min_size=1, max_size=MOST_AT_ONCE, unique=True)

    @invariant()
    def history_is_right(self) -> None:
        if not is_right(self._calls, self._capacity, quiet=False):
            raise FaultFoundError("no order explains what was returned", self._steps)
        quiet = not self._stage.able
        if quiet and not is_right(self._calls, self._capacity, quiet):
            raise FaultFoundError("a call waits that need not", self._steps)

    def teardown(self) -> None:
        self._stage.close()

    def _invoke(self, item: int | None) -> None:
        call = Call(chr(ord("A") + len(self._calls)), item, len(self._steps))
        self._calls.append(call)

        def make_call() -> None:
            if item is None:
                call.result = self._queue.get()
            else:
                self._queue.put(item)
            call.returned = len(self._steps)

        begin = partial(self._stage.begin, call.thread, make_call)
        self._step(call, str(call), begin)

    def _step(self, call: Call, what: str, run: Callable[[], None]) -> None:
        able_before = {*self._stage.able, call.thread}
        try:
            run()
        except Exception as error:
            self._steps.append(f"{call.thread} {what:8} raises")
            raise FaultFoundError(repr(error), self._steps) from error
        if call.returned is not None:
            then = "returns" if call.item is not None else f"returns {call.result}"
        else:
            then = "stops" if call.thread in self._stage.able else "waits"
        woken = "".join(
            f", and wakes {one}" for one in self._stage.able if one not in able_before
        )
        self._steps.append(f"{call.thread} {what:8} {then}{woken}")


def find_fault(
    machine: Callable[[], RuleBasedStateMachine], runs: int = RUNS
) -> FaultFoundError | None:
    """Let a machine look for a fault; return it, shrunk, or None.

    Args:
        machine: makes a new one for each run.
        runs: how many at most. They are the same each time.
    """
    the_same_each_time = settings(
        max_examples=runs,
        stateful_step_count=STEPS,
        derandomize=True,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(
            cast("type[RuleBasedStateMachine]", machine), settings=the_same_each_time
        )
    except FaultFoundError as fault:
        return fault
    return None


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Let Hypothesis keep what it notes of the source for a block only."""
    with tempfile.TemporaryDirectory() as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    with nothing_left_behind(), ThreadPoolExecutor(MOST_CALLS) as pool:
        for queue_type, capacity in (*WRONG, (BoundedQueue, 2)):
            machine, finder = partial(AgainstModel, queue_type, capacity), "a model"
            fault = find_fault(machine)
            if fault is None:
                finder = "threads"
                fault = find_fault(partial(OfThreads, queue_type, capacity, pool))
            if (fault is None) != (queue_type is BoundedQueue):
                raise SystemExit(f"{queue_type.__name__}: {fault}")
            if fault is not None:
                print(f"{queue_type.__name__}, found by {finder}: {fault}")
                for step in fault.steps:
                    print(f"    {step}")
    print("BoundedQueue: no fault against the model, none with threads")


if __name__ == "__main__":
    main()
