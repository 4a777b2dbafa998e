# /// script
# requires-python = ">=3.11"
# dependencies = ["hypothesis>=6.100"]
# ///
"""Hypothesis drives a queue, then the threads that share it, to the shortest failure.

First a state machine calls a queue from one thread, and compares it with a deque. Its
rules and their order are drawn, and what fails is shrunk: a step is dropped as long as
the test still fails. That finds the ring that computes its size wrongly, and no more.

Then threads call the queue, and each step is drawn: a new call, or a thread that goes
on (see stage.py). A history is right if its calls, in an order that respects who had
returned before whom, are those of a deque, and if none still waits that need not.
Chapter 16 has that search for larger histories: linearizability.py.

Three wrong queues pass the first test, and not the second. Shrinking alone may end with
more steps than are needed: to drop one of them, another would have to change. So the
second test tries one step, then two, and so on. Hypothesis plays no sequence twice, and
stops when there is no other one: the first fault found has the fewest steps.

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
    BoundedQueue: no fault against the model, none in all 137 sequences of 6 steps
"""

import argparse
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from queue import Empty, Full
from typing import Any, cast

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from stage import Stage, StagedCondition

STEPS, RUNS = 10, 80  # calls in a run against the model, and runs
STEPS_OF_THREADS = 6
MOST_SEQUENCES = 1000  # of them; more than there are

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

    That is if its calls that have returned are linearizable. One that has not returned
    must have had no effect yet: a call is to take effect in its last critical section.

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
        except Exception as error:
            result = type(error)
        self._steps.append(what)
        if result != expected:
            raise FaultFoundError(f"{what} is {result}, not {expected}", self._steps)


class OfThreads:
    """Lets threads call a queue, one step of one thread at a time.

    After each step it looks at the history.
    """

    def __init__(self, queue_type: type[BoundedQueue], capacity: int) -> None:
        self._stage = Stage()
        self._queue = queue_type(capacity, partial(StagedCondition, self._stage))
        self._capacity = capacity
        self._calls: list[Call] = []
        self._steps: list[str] = []

    def possible(self) -> list[str]:
        """Return what can come next: a new call, or a thread that goes on."""
        return ["put", "get", *self._stage.able]

    def do(self, step: str) -> None:
        """Take one of the possible steps.

        Raises:
            FaultFoundError: it shows a fault.
        """
        if step == "put":
            self._invoke(1 + sum(call.item is not None for call in self._calls))
        elif step == "get":
            self._invoke(None)
        else:
            call = next(call for call in self._calls if call.thread == step)
            self._step(call, "goes on", partial(self._stage.go_on, step))
        if not is_right(self._calls, self._capacity, quiet=False):
            raise FaultFoundError("no order explains what was returned", self._steps)
        quiet = not self._stage.able
        if quiet and not is_right(self._calls, self._capacity, quiet):
            raise FaultFoundError("a call waits that need not", self._steps)

    def close(self) -> None:
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


THE_SAME_EACH_TIME = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS,
    derandomize=True,
    database=None,
    deadline=None,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


def fault_against_model(
    queue_type: type[BoundedQueue], capacity: int
) -> FaultFoundError | None:
    """Let RUNS runs of a state machine look for a fault; return it, shrunk, or None."""
    machine = cast("type[AgainstModel]", partial(AgainstModel, queue_type, capacity))
    try:
        run_state_machine_as_test(machine, settings=THE_SAME_EACH_TIME)
    except FaultFoundError as fault:
        return fault
    return None


def fault_with_threads(
    queue_type: type[BoundedQueue], capacity: int, n_steps: int
) -> tuple[FaultFoundError | None, int]:
    """Look for a fault in sequences of steps of threads.

    Returns:
        The fault, shrunk, or None; and how many sequences of `n_steps` had none.
    """
    had_none: set[tuple[str, ...]] = set()

    @settings(THE_SAME_EACH_TIME, max_examples=MOST_SEQUENCES)
    @given(st.data())
    def play(data: st.DataObject) -> None:
        steps: list[str] = []
        with closing(OfThreads(queue_type, capacity)) as threads:
            for _ in range(n_steps):
                steps.append(data.draw(st.sampled_from(threads.possible())))
                threads.do(steps[-1])
        had_none.add(tuple(steps))

    try:
        play()
    except FaultFoundError as fault:
        return fault, len(had_none)
    return None, len(had_none)


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
    with nothing_left_behind():
        for queue_type, capacity in WRONG:
            fault, finder = fault_against_model(queue_type, capacity), "a model"
            for n_steps in range(1, STEPS_OF_THREADS + 1):
                if fault is None:
                    fault, _ = fault_with_threads(queue_type, capacity, n_steps)
                    finder = "threads"
            if fault is None:
                raise SystemExit(f"{queue_type.__name__} was to be found wrong")
            print(f"{queue_type.__name__}, found by {finder}: {fault}")
            for step in fault.steps:
                print(f"    {step}")
        fault = fault_against_model(BoundedQueue, 2)
        with_threads, n = fault_with_threads(BoundedQueue, 2, STEPS_OF_THREADS)
        if fault or with_threads:
            raise SystemExit(f"BoundedQueue: {fault or with_threads}")
    in_all = f"in all {n} sequences of {STEPS_OF_THREADS} steps"
    print(f"BoundedQueue: no fault against the model, none {in_all}")


if __name__ == "__main__":
    main()
