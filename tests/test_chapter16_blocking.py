"""Chapter 16, the structures that block: the parts a reader would copy."""

import heapq
import queue
import random
import signal
import sys
import threading
import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any, NoReturn

import example07_bounded_blocking_queue as blocking
import example08_readers_writer_lock as rw
import pytest
from example07_bounded_blocking_queue import BlockingQueue, ShutDown, StagedCondition
from example08_readers_writer_lock import Policy, ReadersWriterLock
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

LIMIT = 30.0  # seconds that a test waits for what must come
STRESS = 0.2  # seconds that a structure is stressed
N_THREADS = 8  # that stress it

NOT_A_TIME_OUT = [-1.0, -1e-9, float("nan")]

posix_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="needs POSIX signals"
)


@contextmanager
def main_interrupted(
    until: threading.Semaphore, sent: threading.Semaphore | None = None
) -> Iterator[None]:
    """Press Ctrl-C in the main thread, which the block is in, after `until`.

    It is sent again until it is noticed: CPython overlooks one just before a wait. Each
    time `sent` is released.
    """
    main = threading.main_thread()
    if threading.current_thread() is not main:
        pytest.skip("needs the main thread")
    interrupted: list[bool] = []
    is_over = threading.Event()

    def on_first(*_: object) -> None:
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    def interrupt() -> None:
        assert until.acquire(timeout=LIMIT)
        while not is_over.wait(0.01):
            assert main.ident is not None
            signal.pthread_kill(main.ident, signal.SIGINT)
            if sent:
                sent.release()

    handler = signal.signal(signal.SIGINT, on_first)
    try:
        with ThreadPoolExecutor(1) as pool:
            sender = pool.submit(interrupt)
            try:
                with pytest.raises(KeyboardInterrupt):
                    yield
            finally:
                is_over.set()
            sender.result(LIMIT)
    finally:
        signal.signal(signal.SIGINT, handler)


def interrupting(step: int, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return `call` with a Ctrl-C instead of its call number `step`."""
    steps = iter(range(1000))

    def instead(*arguments: Any, **options: Any) -> Any:
        if next(steps) == step:
            raise KeyboardInterrupt
        return call(*arguments, **options)

    return instead


# -- example07


class Stack(BlockingQueue[Any]):
    def _get(self) -> Any:
        return self._items.pop()


class Heap(BlockingQueue[Any]):
    def _init(self, maxsize: int) -> None:
        self.heap: list[Any] = []

    def _qsize(self) -> int:
        return len(self.heap)

    def _put(self, item: Any) -> None:
        heapq.heappush(self.heap, item)

    def _get(self) -> Any:
        return heapq.heappop(self.heap)


@pytest.mark.parametrize(("kind", "at_least"), [("Queue", 6), ("FailingQueue", 1)])
def test_the_standard_librarys_own_tests_of_the_class_pass(
    kind: str, at_least: int
) -> None:
    """They know a class by its name, and take it and its exceptions from a module.

    Python 3.11 has 6 for Queue, 3.13 has 24. Some systems install none.
    """
    theirs = pytest.importorskip("test.test_queue", reason="needs the package test")
    module = SimpleNamespace(
        Queue=type("Queue", (BlockingQueue,), {}),
        Empty=queue.Empty,
        Full=queue.Full,
        ShutDown=ShutDown,
    )
    bases = (getattr(theirs, f"{kind}Test"), unittest.TestCase)
    case = type(f"Blocking{kind}Test", bases, {"queue": module})
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun >= at_least
    assert (result.failures, result.errors, result.skipped) == ([], [], [])


calls = st.sampled_from(
    ["put", "put in time", "get", "get in time", "task_done", "shutdown", "at once"]
)


def do(q: Any, call: str, item: int) -> Any:
    """Do a call; return its result or what it has raised, and what is seen then."""
    result = None
    try:
        match call:
            case "put":
                q.put_nowait(item)
            case "put in time":
                q.put(item, timeout=0)
            case "get":
                result = q.get_nowait()
            case "get in time":
                result = q.get(timeout=0)
            case "task_done":
                q.task_done()
            case _:
                q.shutdown(immediate=call == "at once")
    except Exception as error:
        result = type(error)
    return result, q.qsize(), q.empty(), q.full(), q.unfinished_tasks


@settings(max_examples=50)
@given(st.integers(-1, 3), st.lists(calls, max_size=30))
def test_one_thread_sees_what_it_would_see_of_the_standard_librarys(
    maxsize: int, calls: list[str]
) -> None:
    if not hasattr(queue, "ShutDown"):
        calls = [call for call in calls if call not in {"shutdown", "at once"}]
    ours, theirs = BlockingQueue[int](maxsize), queue.Queue[int](maxsize)
    for item, call in enumerate(calls):
        assert do(ours, call, item) == do(theirs, call, item), call


@pytest.mark.parametrize(
    ("kind", "order"), [(BlockingQueue, "bca"), (Stack, "acb"), (Heap, "abc")]
)
def test_a_subclass_may_choose_another_order(kind: Any, order: str) -> None:
    q = kind()
    for item in "bca":
        q.put(item)
    assert "".join(q.get() for _ in order) == order


@pytest.mark.parametrize("timeout", NOT_A_TIME_OUT)
def test_a_time_out_that_is_none_is_an_error_even_if_nobody_has_to_wait(
    timeout: float,
) -> None:
    q = BlockingQueue[int]()
    with pytest.raises(ValueError, match="time-out"):
        q.put(1, timeout=timeout)
    q.put(1)
    with pytest.raises(ValueError, match="time-out"):
        q.get(timeout=timeout)
    assert q.get(block=False, timeout=timeout) == 1  # ignored, as by queue.Queue


def test_who_waits_in_vain_waits_as_long_as_was_said() -> None:
    q = BlockingQueue[int](1)
    began = time.monotonic()
    with pytest.raises(queue.Empty):
        q.get(timeout=0.02)
    q.put(1)
    with pytest.raises(queue.Full):
        q.put(2, timeout=0.02)
    assert time.monotonic() - began >= 0.04
    assert q.get() == 1


def test_what_is_raised_is_the_standard_librarys_where_it_has_that() -> None:
    assert getattr(queue, "ShutDown", blocking.ShutDownError) is ShutDown


def test_after_shutdown_what_is_inside_can_be_got_and_joined() -> None:
    q = BlockingQueue[int](2)
    q.put(1)
    q.put(2)
    q.shutdown()
    with pytest.raises(ShutDown):
        q.put(3, timeout=0)
    got = [q.get(), q.get(timeout=0)]
    for call in (q.get, q.get_nowait):
        with pytest.raises(ShutDown):
            call()
    q.task_done()
    q.task_done()
    q.join()
    assert (got, q.is_shutdown) == ([1, 2], True)


def test_immediate_shutdown_counts_what_it_throws_away_as_done() -> None:
    q = BlockingQueue[int]()
    for item in range(3):
        q.put(item)
    q.get()
    q.shutdown()
    q.shutdown(immediate=True)
    assert (q.qsize(), q.unfinished_tasks) == (0, 1)
    q.task_done()
    q.join()
    with pytest.raises(ValueError, match="task_done"):
        q.task_done()


def test_tasks_called_done_before_they_are_got_are_not_done_twice() -> None:
    q = BlockingQueue[int]()
    q.put(1)
    q.task_done()
    q.shutdown(immediate=True)
    q.join()
    assert (q.qsize(), q.unfinished_tasks) == (0, 0)


def test_join_is_woken_when_nothing_is_left_to_do_and_not_before() -> None:
    q = BlockingQueue[str]()
    q.all_tasks_done = done = StagedCondition(q.mutex)
    with no_thread_is_left(), blocking.threads(q) as pool:
        for item in "abc":
            q.put(item)
        joiner = pool.submit(q.join)
        done.until_waits(1)
        for _ in range(3):
            assert done.sleepers == 1
            q.task_done()
        joiner.result(LIMIT)
    assert done.sleepers == 0


def test_who_runs_out_of_time_when_it_is_woken_takes_the_item() -> None:
    """Its wake-up would be lost otherwise."""
    q = BlockingQueue[str]()

    class Late(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            super().wait(timeout)  # in vain
            self.release()
            q.put("just in time")
            self.acquire()
            return False

    q.not_empty = Late(q.mutex)
    assert q.get(timeout=0.01) == "just in time"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_putter_passes_its_wake_up_on(
    error: type[BaseException],
) -> None:
    q = BlockingQueue[str](1)

    def fail() -> NoReturn:
        raise error

    q.not_full = room = StagedCondition(q.mutex, fail)
    q.put("first")
    with no_thread_is_left(), blocking.threads(q) as pool:
        putters = [pool.submit(q.put, "second") for _ in range(2)]
        room.until_waits(2)
        assert [q.get(), q.get(timeout=LIMIT)] == ["first", "second"]
        errors = [putter.exception(LIMIT) for putter in putters]
    assert Counter(map(type, errors)) == {type(None): 1, error: 1}
    assert q.empty()


@pytest.mark.usefixtures("no_collections")
@posix_signals
def test_ctrl_c_ends_the_get_of_the_main_thread_and_leaves_the_queue_whole() -> None:
    q = BlockingQueue[int]()
    waits = threading.Semaphore(0)

    class Noted(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            waits.release()
            return super().wait(timeout)

    q.not_empty = Noted(q.mutex)
    with no_thread_is_left(), main_interrupted(waits):
        q.get()
    q.put(1)
    assert q.get(timeout=0) == 1


@pytest.mark.parametrize("change", ["_put", "_get"])
def test_a_change_that_fails_passes_the_wake_up_on(change: str) -> None:
    q, errors = BlockingQueue[str](1), [OSError("broken")]
    condition = StagedCondition(q.mutex)
    calls: list[Callable[[], object]] = [q.get, partial(q.put, "item")]
    if change == "_put":
        calls.reverse()
        q.put("first")
    call, wake = calls
    q.not_empty, q.not_full = condition, condition
    works = getattr(q, change)

    def fail_first(*arguments: str) -> Any:
        if errors:
            raise errors.pop()
        return works(*arguments)

    setattr(q, change, fail_first)
    with no_thread_is_left(), blocking.threads(q) as pool:
        futures = [pool.submit(call) for _ in range(2)]
        condition.until_waits(2)
        wake()
        raised = Counter(type(future.exception(LIMIT)) for future in futures)
    assert raised == {OSError: 1, type(None): 1}


@pytest.mark.usefixtures("no_collections")
@posix_signals
def test_ctrl_c_at_the_end_of_a_wait_does_not_release_another_threads_lock() -> None:
    q = BlockingQueue[int]()
    q.not_empty = items = StagedCondition(q.mutex)
    notified, sent = threading.Semaphore(0), threading.Semaphore(0)

    def hold() -> None:
        items.until_waits(1)
        with q.mutex:
            q._put(1)
            items.notify()
            notified.release()
            assert sent.acquire(timeout=LIMIT)
            time.sleep(0.05)  # enough for a wait for the lock that can be interrupted

    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        holder = pool.submit(hold)
        with main_interrupted(notified, sent):
            q.get()
        holder.result(LIMIT)
    assert q.get(timeout=0) == 1


def test_what_is_thrown_away_is_let_go_when_the_lock_is_free() -> None:
    q, free = BlockingQueue[object](), list[bool]()

    def is_free() -> bool:
        if not q.mutex.acquire(blocking=False):
            return False
        q.mutex.release()
        return True

    class Item:
        def __del__(self) -> None:
            with ThreadPoolExecutor(1) as pool:
                free.append(pool.submit(is_free).result())

    q.put(Item())
    q.put(Item())
    q.shutdown(immediate=True)
    assert free == [True, True]


def stress_queue(seconds: float, n_threads: int, maxsize: int = 3) -> int:
    """Put and get in `n_threads` threads for a time; return how many items were got.

    Each thread puts, gets, or does both, with patience or without. Checked are: each
    item comes out once; those of one putter come to one getter in their order; never
    more are inside than fit; join() returns; shutdown() ends everybody.
    """
    q = BlockingQueue[tuple[int, int]](maxsize)
    ends = time.monotonic() + seconds
    put: list[int] = [0] * n_threads
    got: list[list[tuple[int, int]]] = [[] for _ in range(n_threads)]

    def put_until_the_end(me: int) -> None:
        rng = random.Random(me)
        while time.monotonic() < ends:
            with suppress(queue.Full):
                q.put((me, put[me]), rng.random() < 0.8, rng.choice([None, 0, 1e-4]))
                put[me] += 1
            assert q.qsize() <= maxsize

    def get_until_shutdown(me: int) -> None:
        rng = random.Random(me)
        with suppress(ShutDown):
            while True:
                with suppress(queue.Empty):
                    item = q.get(rng.random() < 0.8, rng.choice([None, 0, 1e-4]))
                    got[me].append(item)
                    q.task_done()

    with no_thread_is_left(), ThreadPoolExecutor(n_threads) as pool:
        half = n_threads // 2
        getters = [pool.submit(get_until_shutdown, n) for n in range(half, n_threads)]
        try:
            for putter in [pool.submit(put_until_the_end, n) for n in range(half)]:
                putter.result(seconds + LIMIT)
            q.join()
        finally:
            q.shutdown()
        for getter in getters:
            getter.result(LIMIT)
    every_item = [item for items in got for item in items]
    assert sorted(every_item) == [(me, n) for me in range(half) for n in range(put[me])]
    for items, me in product(got, range(half)):
        mine = [n for putter, n in items if putter == me]
        assert mine == sorted(mine)
    assert q.unfinished_tasks == q.qsize() == 0
    return len(every_item)


def test_a_stressed_queue_loses_nothing() -> None:
    assert stress_queue(STRESS, N_THREADS) > 0


class LooksOnce(StagedCondition):
    def wait_for(self, predicate: Any, timeout: float | None = None) -> Any:
        return predicate() or self.wait(timeout)


def wait_and_keep_the_wake_up(
    self: Any,
    condition: Any,
    ready: Any,
    change: Any,
    in_vain: Any,
    block: bool,
    timeout: float | None,
) -> Any:
    if condition.wait_for(ready, timeout) if block else ready():
        return change()
    raise in_vain


when: Any = BlockingQueue._when


def wait_for_ever_or_not_at_all(*arguments: Any) -> Any:
    *others, block, timeout = arguments
    return when(*others, block and timeout is None, None)


def shut_down_quietly(self: Any, immediate: bool = False) -> None:
    self.is_shutdown = True
    if immediate:  # as the end of each demonstration does
        with self.mutex:
            self._items.clear()
            for condition in (self.not_empty, self.not_full, self.all_tasks_done):
                condition.notify_all()
            self.unfinished_tasks = 0


@pytest.mark.parametrize(
    ("owner", "name", "instead", "message"),
    [
        (BlockingQueue, "_is_full", lambda self: False, "a wait did not end"),
        (BlockingQueue, "_get", lambda self: self._items.pop(), "'abc'"),
        (BlockingQueue, "_when", wait_and_keep_the_wake_up, "0 was to be seen, not 1"),
        (BlockingQueue, "_when", wait_for_ever_or_not_at_all, "something too early"),
        (BlockingQueue, "shutdown", shut_down_quietly, "a wait did not end"),
        (blocking, "StagedCondition", LooksOnce, "a wait did not end"),
        (queue, "Queue", BlockingQueue, "1 was to be seen, not 0"),
    ],
)
def test_a_queue_that_breaks_a_rule_is_told(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, instead: Any, message: str
) -> None:
    if "wait" in message:
        monkeypatch.setattr(blocking, "LIMIT", 0.2)
    monkeypatch.setattr(owner, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=message):
        run_main(blocking, monkeypatch)


@pytest.mark.parametrize("step", range(16))
def test_ctrl_c_at_each_step_of_the_demonstration_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    until_waits = interrupting(step, StagedCondition.until_waits)
    monkeypatch.setattr(StagedCondition, "until_waits", until_waits)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        run_main(blocking, monkeypatch)


# -- example08


def expected_groups(policy: Policy, kinds: str) -> list[list[str]]:
    """Return who is inside together, found by following the policy's rule by hand."""
    names = [f"{kind}{n}" for n, kind in enumerate(kinds)]
    groups, waiting = [names[:1]], list[str]()
    for name in names[1:]:  # may a reader go in at once?
        joins = kinds[0] == name[0] == "r"
        if joins and (policy is Policy.READERS or not waiting):
            groups[0].append(name)
        else:
            waiting.append(name)
    if policy is not Policy.FAIR:  # the preferred kind, and then the other
        preferred = "r" if policy is Policy.READERS else "w"
        waiting.sort(key=lambda name: name[0] != preferred)
    for name in waiting:
        if groups[-1][0][0] == name[0] == "r":
            groups[-1].append(name)
        else:
            groups.append([name])
    return [sorted(group) for group in groups]


@pytest.mark.parametrize("policy", Policy)
def test_the_policy_alone_says_who_goes_in_when(policy: Policy) -> None:
    for n in range(1, 5):
        for kinds in map("".join, product("rw", repeat=n)):
            seen = rw.groups_inside(policy, kinds)
            assert seen == expected_groups(policy, kinds), kinds


@settings(max_examples=20)
@given(st.sampled_from(Policy), st.text("rw", min_size=5, max_size=12))
def test_so_it_does_in_longer_queues(policy: Policy, kinds: str) -> None:
    assert rw.groups_inside(policy, kinds) == expected_groups(policy, kinds)


@pytest.mark.parametrize("policy", [Policy.FAIR, Policy.WRITERS])
@pytest.mark.parametrize("interrupt", [False, True])
def test_who_gives_up_lets_those_in_who_stood_behind(
    policy: Policy, interrupt: bool
) -> None:
    error = "InterruptedError" if interrupt else "TimeoutError"
    with no_thread_is_left():
        assert rw.give_up(policy, interrupt) == (error, 2)


@pytest.mark.parametrize("policy", Policy)
@pytest.mark.parametrize("first", ["read", "write"])
def test_a_lock_that_is_not_free_in_time_is_not_held(
    policy: Policy, first: str
) -> None:
    lock = ReadersWriterLock(policy)

    def wait_in_vain(then: str, timeout: float) -> None:
        refused = pytest.raises(TimeoutError, match=f"no turn to {then} within")
        with refused, getattr(lock, then)(timeout):
            pass

    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        with getattr(lock, first)():
            for then, timeout in product(("read", "write"), (0, 0.001)):
                if {first, then} != {"read"}:
                    pool.submit(wait_in_vain, then, timeout).result(LIMIT)
            assert lock.inside == 1
        for then in ("read", "write"):
            with getattr(lock, then)(timeout=0):
                assert lock.inside == 1
    assert lock.inside == 0


@pytest.mark.parametrize("timeout", NOT_A_TIME_OUT)
def test_a_time_out_that_is_none_is_an_error(timeout: float) -> None:
    lock = ReadersWriterLock()
    for enter in (lock.read, lock.write):
        with pytest.raises(ValueError, match="time-out"), enter(timeout):
            pass
    assert lock.inside == 0


@pytest.mark.parametrize("timeout", [None, 1e9, float("inf")])
def test_a_time_limit_may_be_as_long_as_one_likes(timeout: float | None) -> None:
    waits = threading.Event()
    lock = ReadersWriterLock(on_wait=waits.set)

    def read() -> int:
        with lock.read(timeout):
            return lock.inside

    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        with lock.write():
            reader = pool.submit(read)
            assert waits.wait(LIMIT)
        assert reader.result(LIMIT) == 1


@pytest.mark.parametrize("first", ["read", "write"])
@pytest.mark.parametrize("then", ["read", "write"])
def test_who_is_inside_cannot_come_again(first: str, then: str) -> None:
    lock = ReadersWriterLock()
    with getattr(lock, first)():
        refused = pytest.raises(RuntimeError, match=f"{first}s already, .* to {then}")
        with refused, getattr(lock, then)():
            pass
        assert lock.inside == 1
        with getattr(ReadersWriterLock(), then)():  # another lock is another matter
            pass
    with getattr(lock, then)(timeout=0):
        assert lock.inside == 1


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_block_that_fails_leaves_the_lock(kind: str) -> None:
    lock = ReadersWriterLock()
    with pytest.raises(OSError, match="broken"), getattr(lock, kind)():
        raise OSError("broken")
    assert lock.inside == 0


@pytest.mark.parametrize("kind", ["read", "write"])
def test_a_turn_that_comes_when_its_owner_gives_up_is_passed_on(kind: str) -> None:
    """Interrupted after it was let in, and before it could go on."""

    def leave_and_interrupt() -> NoReturn:
        may_leave.set()
        holder.result(LIMIT)
        assert lock.inside == 1  # this thread, which does not know it
        raise InterruptedError

    is_inside, may_leave = threading.Event(), threading.Event()
    lock = ReadersWriterLock(on_wait=leave_and_interrupt)

    def hold() -> None:
        with lock.write():
            is_inside.set()
            may_leave.wait(LIMIT)

    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        holder = pool.submit(hold)
        assert is_inside.wait(LIMIT)
        with pytest.raises(InterruptedError), getattr(lock, kind)():
            pass
        assert lock.inside == 0
        with lock.write(timeout=0):
            assert lock.inside == 1


def test_who_leaves_wakes_nobody_whose_turn_it_is_not() -> None:
    waits, went_in = threading.Semaphore(0), threading.Semaphore(0)
    lock, may_leave = ReadersWriterLock(on_wait=waits.release), threading.Semaphore(0)

    def write() -> None:
        with lock.write(LIMIT):
            went_in.release()
            may_leave.acquire(timeout=LIMIT)

    with no_thread_is_left(), ThreadPoolExecutor(5) as pool:
        with lock.write():
            writers = [pool.submit(write) for _ in range(5)]
            for _ in writers:
                assert waits.acquire(timeout=LIMIT)
            gates = [visit.gate for visit in lock._waiting[True]]
        for n in range(1, 6):
            assert went_in.acquire(timeout=LIMIT)
            assert f"1 writers inside; 0 readers, {5 - n} writers wait" in repr(lock)
            assert sum(gate.locked() for gate in gates[n:]) == 5 - n
            may_leave.release()
        for writer in writers:
            writer.result(LIMIT)


@pytest.mark.usefixtures("no_collections")
@posix_signals
@pytest.mark.parametrize("kind", ["read", "write"])
def test_ctrl_c_ends_the_wait_of_the_main_thread(kind: str) -> None:
    waits, is_inside = threading.Semaphore(0), threading.Event()
    lock, may_leave = ReadersWriterLock(on_wait=waits.release), threading.Event()

    def hold() -> None:
        with lock.write():
            is_inside.set()
            may_leave.wait(LIMIT)

    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        holder = pool.submit(hold)
        assert is_inside.wait(LIMIT)
        try:
            with main_interrupted(waits), getattr(lock, kind)():
                pass
        finally:
            may_leave.set()
        holder.result(LIMIT)
        assert "0 readers, 0 writers wait" in repr(lock)
        with lock.write(timeout=0):
            assert lock.inside == 1


@pytest.mark.parametrize(("inside", "then"), ["rw", "wr", "ww"])
def test_what_must_not_happen_is_asserted(inside: str, then: str) -> None:
    lock = ReadersWriterLock()
    lock._let_in(1, inside == "w")
    with pytest.raises(AssertionError):
        lock._let_in(2, then == "w")


def stress_lock(policy: Policy, seconds: float, n_threads: int) -> Counter[str]:
    """Read and write two numbers in `n_threads` threads; count what happens.

    Half of the attempts have a time limit. Checked are: no reader sees half a write; no
    write is lost; the lock is free afterwards.
    """
    lock = ReadersWriterLock(policy)
    ends = time.monotonic() + seconds
    a = b = 0

    def visit_until_the_end(me: int) -> Counter[str]:
        nonlocal a, b
        rng, happened = random.Random(me), Counter[str]()
        while time.monotonic() < ends:
            timeout = rng.choice([None, None, 0, 1e-4])
            try:
                if rng.random() < 0.3:
                    with lock.write(timeout):
                        before = a
                        a += 1
                        time.sleep(1e-6)  # lets others run
                        b = before + 1
                    happened["writes"] += 1
                else:
                    with lock.read(timeout):
                        first = b
                        time.sleep(1e-6)
                        assert a == first
                    happened["reads"] += 1
            except TimeoutError:
                happened["time-outs"] += 1
        return happened

    happened = Counter[str]()
    with no_thread_is_left(), ThreadPoolExecutor(n_threads) as pool:
        for visits in [pool.submit(visit_until_the_end, n) for n in range(n_threads)]:
            happened += visits.result(seconds + LIMIT)
    assert a == b == happened["writes"]
    assert lock.inside == 0
    assert "0 readers, 0 writers wait" in repr(lock)
    return happened


@pytest.mark.parametrize("policy", Policy)
def test_a_stressed_lock_keeps_writers_alone(policy: Policy) -> None:
    happened = stress_lock(policy, STRESS, N_THREADS)
    assert happened["reads"] > 0


def leave_and_let_nobody_in(self: Any, visit: Any) -> None:
    with self._guard:
        self._waiting[visit.writes].remove(visit)


def first_come(self: Any) -> Any:
    waiting = [visit for visits in self._waiting for visit in visits]
    return min(waiting, key=lambda visit: visit.ticket, default=None)


def writers_first(self: Any) -> Any:
    readers, writers = self._waiting
    return next(iter(writers or readers), None)


@pytest.mark.parametrize(
    ("name", "instead", "message"),
    [
        ("_withdraw", leave_and_let_nobody_in, "wait did not end|not .*, 1"),
        ("_first", first_come, "w1 . w4 . r2 r3 r5 was to be seen"),
        ("_first", writers_first, "r2 r3 . w4 . r5 was to be seen"),
        ("_let_in_all", lambda self: None, "a wait did not end"),
    ],
)
def test_a_lock_that_breaks_a_rule_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, message: str
) -> None:
    if "wait" in message:
        monkeypatch.setattr(rw, "LIMIT", 0.2)
    monkeypatch.setattr(ReadersWriterLock, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=message):
        run_main(rw, monkeypatch)


@pytest.mark.parametrize("step", [0, 1, 5, 6, 7, 10, 13])
def test_ctrl_c_while_visitors_come_and_go_leaves_no_thread(
    monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    class Interrupted(threading.Semaphore):
        acquire = interrupting(step, threading.Semaphore.acquire)

    fake = SimpleNamespace(**vars(threading) | {"Semaphore": Interrupted})
    monkeypatch.setattr(rw, "threading", fake)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        run_main(rw, monkeypatch)
