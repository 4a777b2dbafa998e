"""Chapter 16, without locks: the parts a reader would copy."""

import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

import interleaving
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

cereggii = pytest.importorskip("cereggii")

import example12_treiber_stack as stacks  # noqa: E402
import example13_michael_scott_queue as queues  # noqa: E402

LIMIT = 30.0  # seconds that a test waits for what must come
THREADS = 8  # of a stress
ROUND = 500  # operations of each thread in one round of a stress


# -- both


# An operation and what came of it: the item that was put or taken, None if there was
# nothing to take.
Call = tuple[str, int | None]


class Both:
    """A stack or a queue, with operations of the same names."""

    def __init__(self, structure: Any) -> None:
        self.last_first = isinstance(structure, stacks.TreiberStack)
        if self.last_first:
            self.put, self.take = structure.push, structure.pop
        else:
            self.put, self.take = structure.enqueue, structure.dequeue

    def call(self, name: str, item: int) -> Call:
        """Do one operation; return what came of it."""
        if name == "put":
            self.put(item)
            return name, item
        try:
            taken: int = self.take()
        except IndexError:
            return name, None
        assert taken is not None, "no item that was put"
        return name, taken

    def drain(self) -> list[Call]:
        """Take until there is nothing; return all these calls."""
        calls = [self.call("take", 0)]
        while calls[-1] != ("take", None):
            calls.append(self.call("take", 0))
        return calls

    def could_be(self, history: Sequence[Call]) -> bool:
        """Tell whether a list would have answered in this way."""
        items: list[int | None] = []
        for name, item in history:
            if name == "put":
                items.append(item)
            elif (self._take(items) if items else None) != item:
                return False
        return True

    def _take(self, items: list[int | None]) -> int | None:
        return items.pop(-1 if self.last_first else 0)


both = pytest.mark.parametrize("kind", [stacks.TreiberStack, queues.MichaelScottQueue])
kinds = st.sampled_from([stacks.TreiberStack, queues.MichaelScottQueue])
operations = st.lists(st.sampled_from(["put", "take"]), max_size=6)


class GapCell:
    """A cell that calls `gap` before it is read and before it is replaced."""

    def __init__(self, gap: Callable[[], object], initial: Any) -> None:
        self._gap = gap
        self._reference = cereggii.AtomicRef(initial)

    def get(self) -> Any:
        self._gap()
        return self._reference.get()

    def compare_and_set(self, expected: Any, desired: Any) -> Any:
        self._gap()
        return self._reference.compare_and_set(expected, desired)


@given(
    kinds,
    operations,
    st.sampled_from(["put", "take"]),
    st.dictionaries(st.integers(0, 7), operations, max_size=3),
)
@example(queues.MichaelScottQueue, ["put"] * 3, "take", {4: ["take"]})
@example(stacks.TreiberStack, ["put"] * 3, "take", {2: ["take"]})
def test_an_operation_among_others_is_as_if_it_came_at_one_moment(
    kind: type, before: list[str], name: str, gaps: dict[int, list[str]]
) -> None:
    """Others come before some of the steps that it takes."""
    calls: list[Call] = []
    steps = 0
    running = False

    def let_others_in() -> None:
        nonlocal running, steps
        if running:
            running = False  # what they do has no gaps
            for other in gaps.get(steps, ()):
                calls.append(structure.call(other, len(calls)))
            running = True
            steps += 1

    structure = Both(kind(partial(GapCell, let_others_in)))
    first = [structure.call(other, -number) for number, other in enumerate(before, 1)]
    running = True
    own = structure.call(name, -1000)
    running = False
    last = structure.drain()
    assert any(
        structure.could_be([*first, *calls[:moment], own, *calls[moment:], *last])
        for moment in range(len(calls) + 1)
    )


@both
def test_the_empty_one_says_so(kind: type) -> None:
    structure = Both(kind())
    with pytest.raises(IndexError, match="empty"):
        structure.take()
    structure.put(1)
    assert structure.take() == 1
    with pytest.raises(IndexError, match="empty"):
        structure.take()


@both
def test_none_is_an_item_and_items_are_not_compared(kind: type) -> None:
    class Incomparable:
        def __eq__(self, other: object) -> NoReturn:
            raise AssertionError("compared")

        __hash__ = None  # type: ignore[assignment]

    structure = Both(kind())
    items: list[Any] = [None, Incomparable(), None]
    for item in items:
        structure.put(item)
    taken = [structure.take() for _ in items]
    expected = items[::-1] if structure.last_first else items
    assert list(map(id, taken)) == list(map(id, expected))


@both
def test_an_item_that_was_taken_is_not_kept(kind: type) -> None:
    structure = Both(kind())
    for _ in range(3):
        structure.put(queues.Item())
    watches = [weakref.ref(structure.take()) for _ in range(3)]
    assert [watch() for watch in watches] == [None] * 3


@both
def test_a_long_one_can_be_thrown_away(kind: type) -> None:
    structure = Both(kind())
    watched = queues.Item()
    structure.put(watched)
    for n in range(50_000):
        structure.put(n)
    watch = weakref.ref(watched)
    del watched, structure
    assert watch() is None


@both
def test_an_interrupted_operation_has_happened_or_not(kind: type) -> None:
    """It is interrupted before each of its steps, one after the other."""
    for steps in range(20):
        for name in ("put", "take"):
            left = None

            def interrupt() -> None:
                nonlocal left
                if left is not None:
                    left -= 1
                    if left < 0:
                        raise KeyboardInterrupt

            structure = Both(kind(partial(GapCell, interrupt)))
            first = [structure.call("put", n) for n in (1, 2)]
            left = steps
            with suppress(KeyboardInterrupt):
                structure.call(name, 3)
            left = None
            last = [structure.call("put", 4), *structure.drain()]
            happened: Call = ("put", 3)
            if name == "take":
                happened = ("take", 2 if structure.last_first else 1)
            assert structure.could_be([*first, *last]) or structure.could_be(
                [*first, happened, *last]
            )


def stress(kind: type, seconds: float, n_threads: int = THREADS) -> int:
    """Put and take in many threads, round by round; check each round.

    Returns:
        How many operations there were.
    """

    def work(me: int) -> tuple[list[int], list[int]]:
        chance = random.Random(1000 * rounds + me)
        put: list[int] = []
        taken: list[int] = []
        start.wait()
        for number in range(ROUND):
            if chance.random() < 0.5:
                put.append(number * n_threads + me)
                structure.put(put[-1])
            else:
                with suppress(IndexError):
                    taken.append(structure.take())
        return put, taken

    structure = Both(kind())
    start = threading.Barrier(n_threads, timeout=LIMIT)
    deadline = time.monotonic() + seconds
    rounds = 0
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(n_threads) as pool:
            while rounds == 0 or time.monotonic() < deadline:
                results = list(pool.map(work, range(n_threads)))
                put = [item for one, _ in results for item in one]
                takers = [one for _, one in results]
                takers.append(
                    [item for _, item in structure.drain() if item is not None]
                )
                assert sorted(put) == sorted(item for one in takers for item in one)
                if not structure.last_first:
                    for one in takers:
                        for me in range(n_threads):
                            own = [item for item in one if item % n_threads == me]
                            assert own == sorted(own), "a producer's order"
                rounds += 1
    finally:
        sys.setswitchinterval(interval)
    return rounds * n_threads * ROUND


@both
def test_under_stress_each_item_comes_once(kind: type) -> None:
    with no_thread_is_left():
        assert stress(kind, 0.2) >= THREADS * ROUND


class Misread:
    """A cell that gives a stranger once, as one that was freed and made anew might."""

    def __init__(self, initial: Any, stranger: Any) -> None:
        self._reference = cereggii.AtomicRef(initial)
        self._strangers = [stranger]
        self.compare_and_set = self._reference.compare_and_set

    def get(self) -> Any:
        return self._strangers.pop() if self._strangers else self._reference.get()


strangers = pytest.mark.parametrize(
    "stranger", [object(), queues.Node("strange", cereggii.AtomicRef(None))]
)


# -- example12


@strangers
def test_what_is_not_the_top_is_not_popped(stranger: object) -> None:
    stack: stacks.TreiberStack[str] = stacks.TreiberStack()
    stack.push("a")
    stack._top = Misread(stack._top.get(), stranger)
    assert stack.pop() == "a"


@pytest.mark.parametrize("times", [0, 1, 2, 17])
def test_an_attempt_fails_for_each_push_that_overtakes_it(times: int) -> None:
    with no_thread_is_left():
        assert stacks.failures_if_overtaken(times) == times


def test_the_same_top_again_is_no_failure() -> None:
    """Another has pushed and popped meanwhile: what is below has not changed."""
    attempts = 0

    def push_and_pop() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            stack.push(3)
            assert stack.pop() == 3
            attempts = 1

    stack: stacks.TreiberStack[int] = stacks.TreiberStack()
    stack.push(1)
    stack.push(2)
    stack._top = stacks.WatchedCell(push_and_pop, stack._top.get())
    assert (stack.pop(), attempts) == (2, 1)
    assert stack.pop() == 1


def test_nodes_are_never_changed() -> None:
    seen = []

    def look() -> None:
        node = stack._top.get()
        while node is not None:
            seen.append((node, node.item, node.below))
            node = node.below

    stack: stacks.TreiberStack[int] = stacks.TreiberStack(
        partial(stacks.WatchedCell, look)
    )
    for n in range(3):
        stack.push(n)
    for n in range(3):
        stack.pop()
        stack.push(n)
    assert len(seen) > 3
    assert all(node.item == item and node.below is below for node, item, below in seen)


@settings(max_examples=30)
@given(operations)
def test_one_thread_alone_may_use_nodes_again(names: list[str]) -> None:
    structure = Both(stacks.RecyclingStack())
    calls = [structure.call(name, n) for n, name in enumerate(names)]
    assert structure.could_be([*calls, *structure.drain()])


def test_the_locked_stack_is_a_stack() -> None:
    stack: stacks.LockedStack[int] = stacks.LockedStack()
    stack.push(1)
    stack.push(2)
    assert [stack.pop(), stack.pop()] == [2, 1]
    with pytest.raises(IndexError):
        stack.pop()


def test_only_the_nth_call_stops() -> None:
    stop = stacks.Stop(2)
    seen = []

    def come_twice() -> None:
        for _ in range(2):
            stop()

    def pass_by() -> None:
        seen.append(stop.calls)
        stop()

    with no_thread_is_left():
        assert stop.run(come_twice, pass_by) == "goes on"
    assert (seen, stop.calls) == ([2], 3)


@pytest.mark.parametrize("number", ["0", "1001", "many"])
def test_how_often_it_is_overtaken_has_limits(
    complaint: Callable[..., str], number: str
) -> None:
    assert "--overtaken" in complaint(stacks, "--overtaken", number)


class PatientStack(stacks.TreiberStack[Any]):
    """A stack with a lock, in disguise."""

    def __init__(self, cell: Callable[[Any], Any] = cereggii.AtomicRef) -> None:
        super().__init__(cell)
        self._lock = threading.RLock()

    def push(self, item: Any) -> None:
        with self._lock:
            super().push(item)


class RestlessStack(stacks.TreiberStack[Any]):
    """A stack whose push is done anew if another has come and gone."""

    def push(self, item: Any) -> None:
        super().push(item)
        if item == -1:
            super().pop()
            super().push(item)


class CarelessStack(stacks.LockedStack[Any]):
    """A stack that forgets its lock."""

    def push(self, item: Any) -> None:
        self._between()
        self._items.append(item)


class ForgetfulStack(stacks.TreiberStack[Any]):
    """A stack without a second attempt."""

    def push(self, item: Any) -> None:
        top = self._top.get()
        self._top.compare_and_set(top, stacks.Node(item, top))


@pytest.mark.parametrize(
    ("name", "instead", "complaint"),
    [
        ("TreiberStack", ForgetfulStack, "make one attempt fail"),
        ("TreiberStack", RestlessStack, "no failure"),
        ("LockedStack", CarelessStack, "keep the other out"),
        ("RecyclingStack", stacks.TreiberStack, "left were to be"),
    ],
)
def test_a_stack_that_does_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: type, complaint: str
) -> None:
    monkeypatch.setattr(stacks, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=complaint):
        run_main(stacks, monkeypatch)


def test_a_lock_in_disguise_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "failures_if_overtaken", lambda times: times)
    monkeypatch.setattr(interleaving, "LIMIT", 0.05)
    monkeypatch.setattr(stacks, "TreiberStack", PatientStack)
    with no_thread_is_left(), pytest.raises(SystemExit, match="nor waits"):
        run_main(stacks, monkeypatch)


# -- example13


def test_who_dequeues_helps_as_well() -> None:
    stop = stacks.Stop(2)
    queue: queues.MichaelScottQueue[str] = queues.MichaelScottQueue(
        partial(stacks.WatchedCell, stop)
    )
    dummy = queue._tail.get()

    def dequeue() -> None:
        assert queue._tail.get() is dummy
        assert queue.dequeue() == "a"
        assert queue._tail.get() is queue._head.get() is dummy.next.get()

    assert stop.run(partial(queue.enqueue, "a"), dequeue) == "goes on"
    assert queue._tail.get() is queue._head.get() is dummy.next.get()


@strangers
def test_nothing_is_linked_behind_what_is_not_the_tail(stranger: object) -> None:
    queue: queues.MichaelScottQueue[str] = queues.MichaelScottQueue()
    queue._tail = Misread(queue._tail.get(), stranger)
    queue.enqueue("a")
    assert queue.dequeue() == "a"


@strangers
def test_what_is_not_the_head_does_not_make_it_seem_empty(stranger: object) -> None:
    queue: queues.MichaelScottQueue[str] = queues.MichaelScottQueue()
    queue.enqueue("a")
    queue._head = Misread(queue._head.get(), stranger)
    assert queue.dequeue() == "a"


def test_the_dummy_does_not_keep_the_item(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not queues.is_kept_alive_by_the_queue()
    monkeypatch.setattr(queues, "MichaelScottQueue", KeepingQueue)
    assert queues.is_kept_alive_by_the_queue()


class KeepingQueue(queues.MichaelScottQueue[Any]):
    """A queue whose dummy keeps its item."""

    def dequeue(self) -> Any:
        item = super().dequeue()
        self._head.get().item = item
        return item


def test_consumers_get_each_item_once_and_in_order() -> None:
    with no_thread_is_left():
        received = queues.pass_items(queues.MichaelScottQueue())
    assert list(map(len, received)) == [queues.ITEMS] * queues.CONSUMERS
    assert queues.all_once_and_in_order(received)


def everything() -> Iterator[tuple[int, int]]:
    for n in range(queues.ITEMS):
        for me in range(queues.PRODUCERS):
            yield me, n


def test_lost_doubled_and_disordered_items_are_noticed() -> None:
    items = list(everything())
    assert queues.all_once_and_in_order([items])
    assert queues.all_once_and_in_order([items[1::2], items[::2]])
    assert not queues.all_once_and_in_order([items[1:]])
    assert not queues.all_once_and_in_order([[*items, items[-1]]])
    assert not queues.all_once_and_in_order([items[::-1]])
    assert queues.all_once_and_in_order([[item] for item in items[::-1]])


def test_a_queue_that_loses_items_does_not_let_consumers_wait() -> None:
    class LossyQueue(queues.MichaelScottQueue[Any]):
        def enqueue(self, item: Any) -> None:
            if item != (0, 7):
                super().enqueue(item)

    with no_thread_is_left(), pytest.raises(IndexError, match="empty"):
        queues.pass_items(LossyQueue())


@pytest.mark.parametrize(
    ("name", "instead", "complaint"),
    [
        ("MichaelScottQueue", queues.UnhelpfulQueue, "UnhelpfulQueue"),
        ("UnhelpfulQueue", queues.TailFirstQueue, "TailFirstQueue"),
        ("TailFirstQueue", queues.MichaelScottQueue, "MichaelScottQueue"),
        ("MichaelScottQueue", KeepingQueue, "not to keep"),
        ("pass_items", lambda queue: [], "come once, and in order"),
    ],
)
def test_a_queue_that_does_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, complaint: str
) -> None:
    monkeypatch.setattr(queues, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=complaint):
        run_main(queues, monkeypatch)
