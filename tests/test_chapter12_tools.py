"""Chapter 12, tools against deadlock: the parts a reader would copy."""

import dis
import gc
import linecache
import math
import pickle
import random
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import combinations, pairwise, permutations
from types import FrameType
from typing import Any, NoReturn, cast

import example13_lock_that_knows_who_waits as knowing
import example14_lock_order_checker as orders
import example20_bankers_algorithm as bankers
import pytest
from example13_lock_that_knows_who_waits import (
    AbortedError,
    DeadlockError,
    GraphLock,
    Wait,
    WaitGraph,
)
from example14_lock_order_checker import CheckedLock, Inversion, LockOrder
from example20_bankers_algorithm import Answer, Bank, Banker, CarelessBanker
from hypothesis import given, settings
from hypothesis import strategies as st

LIMIT = 20.0  # seconds that a test waits for what must come


class Actor:
    """A thread that does what it is told, one call after the other."""

    def __init__(self, name: str) -> None:
        self.pool = ThreadPoolExecutor(1, initializer=self._rename, initargs=(name,))

    def begin(
        self, function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        return self.pool.submit(function, *args, **kwargs)

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self.begin(function, *args, **kwargs).result(LIMIT)

    @staticmethod
    def _rename(name: str) -> None:
        threading.current_thread().name = name


@contextmanager
def actors(names: str, *graphs: WaitGraph) -> Iterator[list[Actor]]:
    """Give a thread for each letter; none waits in one of `graphs` at the end."""
    with ExitStack() as stack:
        threads = [Actor(name) for name in names]
        for thread in threads:
            stack.enter_context(thread.pool)
        for graph in graphs:
            stack.callback(graph.abort)
        yield threads


def begin_waiting(
    graph: WaitGraph, actor: Actor, lock: GraphLock, **kwargs: Any
) -> Future[Any]:
    """Let `actor` acquire a lock that is taken; return when it waits."""
    before = waiting(graph)
    future = actor.begin(lock.acquire, **kwargs)
    assert graph.wait_until_waiting(before + 1, LIMIT)
    return future


def waiting(graph: WaitGraph) -> int:
    """Return how many threads wait in `graph`."""
    count = 0
    while graph.wait_until_waiting(count + 1, 0):
        count += 1
    return count


# -- example13


@pytest.mark.parametrize("size", range(1, 11))
def test_the_last_of_a_ring_is_refused_and_told_the_cycle(size: int) -> None:
    graph = WaitGraph()
    names = "ABCDEFGHIJ"[:size]
    locks = [graph.lock(f"lock {name}") for name in names]
    with actors(names, graph) as threads:
        for thread, lock in zip(threads, locks, strict=True):
            assert thread.call(lock.acquire) is True
        *others, last = threads
        waits = [
            begin_waiting(graph, thread, lock)
            for thread, lock in zip(others, locks[1:], strict=True)
        ]
        assert not any(future.done() for future in waits)  # nobody is told too early
        refused = last.begin(locks[0].acquire).exception(LIMIT)
        assert isinstance(refused, DeadlockError)
        first = Wait(names[-1], f"lock {names[-1]}", "lock A")
        assert refused.cycle == (
            first,
            *(Wait(a, f"lock {a}", f"lock {b}") for a, b in pairwise(names)),
        )
        assert str(refused).startswith(
            f"{names[-1]} holds lock {names[-1]}, waits for lock A"
        )

        assert last.call(locks[-1].locked)
        last.call(locks[-1].release)  # it still held its own, and lets the others go on
        for k in reversed(range(size - 1)):
            assert waits[k].result(LIMIT) is True
            threads[k].call(locks[k + 1].release)
            threads[k].call(locks[k].release)
        assert not any(lock.locked() for lock in locks)
        assert last.call(locks[0].acquire)  # and the victim may try again
        last.call(locks[0].release)


def test_a_tail_that_leads_into_no_cycle_waits() -> None:
    graph = WaitGraph()
    one, two = graph.lock("1"), graph.lock("2")
    with actors("ABC", graph) as (a, b, c):
        a.call(one.acquire)
        b.call(two.acquire)
        waits = [begin_waiting(graph, b, one), begin_waiting(graph, c, two)]
        a.call(one.release)
        assert waits[0].result(LIMIT)
        b.call(two.release)
        assert waits[1].result(LIMIT)


def test_a_wait_for_one_who_is_in_no_cycle_with_me_is_no_deadlock() -> None:
    """A and B are in a cycle that a time-out will end; C only waits for one of them."""
    graph = WaitGraph()
    one, two = graph.lock("1"), graph.lock("2")
    with actors("ABC", graph) as (a, b, c):
        a.call(one.acquire)
        b.call(two.acquire)
        begin_waiting(graph, a, two, timeout=LIMIT)
        begin_waiting(graph, b, one)
        begin_waiting(graph, c, one)
        graph.abort()


def test_the_cycle_is_that_of_the_waits_and_not_of_all_that_is_held() -> None:
    graph = WaitGraph()
    one, two, three = (graph.lock(name) for name in "123")
    with actors("AB", graph) as (a, b):
        for lock in (one, three):
            a.call(lock.acquire)
        b.call(two.acquire)
        begin_waiting(graph, a, two)
        refused = b.begin(three.acquire).exception(LIMIT)
        assert isinstance(refused, DeadlockError)
        assert refused.cycle == (Wait("B", "2", "3"), Wait("A", "3", "2"))


def test_who_got_the_lock_by_hand_over_is_its_holder_at_once() -> None:
    """B gets 1 when A releases it. Who then wants what leads to B must be refused."""
    graph = WaitGraph()
    one, two = graph.lock("1"), graph.lock("2")
    with actors("ABC", graph) as (a, b, c):
        a.call(one.acquire)
        waits_b = begin_waiting(graph, b, one)
        c.call(two.acquire)
        waits_c = begin_waiting(graph, c, one)
        a.call(one.release)
        assert waits_b.result(LIMIT)
        assert not waits_c.done()
        refused = b.begin(two.acquire).exception(LIMIT)
        assert isinstance(refused, DeadlockError)
        assert refused.cycle == (Wait("B", "1", "2"), Wait("C", "2", "1"))


def test_the_lock_goes_to_who_has_waited_longest() -> None:
    graph = WaitGraph()
    lock = graph.lock("1")
    got: list[str] = []

    def take(name: str) -> None:
        with lock:
            got.append(name)

    with actors("ABCDE", graph) as threads:
        threads[0].call(lock.acquire)
        futures = []
        for k, name in enumerate("DBEC", start=1):
            futures.append(threads["ABCDE".index(name)].begin(take, name))
            assert graph.wait_until_waiting(k, LIMIT)
        threads[0].call(lock.release)
        assert not wait(futures, LIMIT).not_done
        assert got == list("DBEC")


def test_without_waiting_a_taken_lock_is_not_got() -> None:
    graph = WaitGraph()
    lock = graph.lock("1")
    assert lock.acquire()
    with actors("A", graph) as (a,):
        assert a.call(lock.acquire, False) is False
        assert a.call(lock.acquire, timeout=0) is False
        assert a.call(lock.acquire, timeout=0.001) is False
        assert lock.acquire(blocking=False) is False  # nor by its holder
        assert lock.acquire(timeout=0.001) is False
        assert waiting(graph) == 0
        lock.release()
        assert lock.acquire(timeout=LIMIT)


@pytest.mark.parametrize(
    "arguments",
    [
        (False, 1),
        (False, 0),
        (True, -2),
        (True, math.nan),
        (True, 1e300),
        (True, "1"),
        (True, None),
    ],
)
def test_bad_arguments_are_refused_as_by_a_lock(arguments: Any) -> None:
    with pytest.raises((ValueError, OverflowError, TypeError)) as of_lock:
        threading.Lock().acquire(*arguments)
    lock = WaitGraph().lock("1")
    with pytest.raises(of_lock.type) as of_ours:
        lock.acquire(*arguments)
    assert str(of_ours.value) == str(of_lock.value)
    assert not lock.locked()


def test_who_gave_up_is_in_nobodys_way() -> None:
    graph = WaitGraph()
    one, two = graph.lock("1"), graph.lock("2")
    with actors("AB", graph) as (a, b):
        a.call(one.acquire)
        b.call(two.acquire)
        assert b.call(one.acquire, timeout=0.001) is False
        wait_a = begin_waiting(graph, a, two)  # B waits no more: no cycle
        b.call(two.release)
        assert wait_a.result(LIMIT) is True
        a.call(one.release)
        assert b.call(one.acquire, timeout=LIMIT) is True


@pytest.mark.parametrize("timed_first", [False, True])
def test_a_time_out_ends_the_cycle_that_leads_through_it(timed_first: bool) -> None:
    graph = WaitGraph()
    one, two = graph.lock("1"), graph.lock("2")
    with actors("AB", graph) as (a, b):
        a.call(one.acquire)
        b.call(two.acquire)
        if timed_first:
            timed = begin_waiting(graph, b, one, timeout=LIMIT)
            begin_waiting(graph, a, two)
            assert not timed.done()
        else:
            untimed = begin_waiting(graph, a, two)
            assert b.call(one.acquire, timeout=0.001) is False
            assert not untimed.done()
            # Without a time-out it is refused, in the same situation.
            assert isinstance(b.begin(one.acquire).exception(LIMIT), DeadlockError)


def test_a_lock_has_an_owner() -> None:
    lock = WaitGraph().lock("1")
    with pytest.raises(RuntimeError, match="1 is not locked"):
        lock.release()
    with actors("A") as (a,):
        a.call(lock.acquire)
        with pytest.raises(RuntimeError, match="1 is held by A"):
            lock.release()
        assert lock.locked()
        a.call(lock.release)
        with pytest.raises(RuntimeError, match="not locked"):
            a.call(lock.release)


def test_a_with_block_releases_whatever_happens() -> None:
    lock = WaitGraph().lock("1")
    with suppress(LookupError), lock as got:
        assert got is True
        assert lock.locked()
        raise LookupError
    assert not lock.locked()
    with lock, pytest.raises(DeadlockError, match="holds 1, waits for 1"), lock:
        pass
    assert not lock.locked()


def test_an_abort_ends_all_waits_and_those_to_come() -> None:
    graph = WaitGraph()
    one, two = graph.lock("1"), graph.lock("2")
    with actors("ABCD", graph) as (a, b, c, d):
        a.call(one.acquire)
        d.call(two.acquire)
        waits = [
            begin_waiting(graph, b, one),
            begin_waiting(graph, c, one, timeout=LIMIT),
        ]
        graph.abort()
        for future in waits:
            assert isinstance(future.exception(LIMIT), AbortedError)
        assert isinstance(a.begin(two.acquire).exception(LIMIT), AbortedError)
        assert a.call(two.acquire, blocking=False) is False
        a.call(one.release)
        assert not one.locked()
        assert b.call(one.acquire)  # what is free can be had
        graph.abort()
        assert waiting(graph) == 0


def test_an_abort_ends_the_wait_for_those_who_wait() -> None:
    graph = WaitGraph()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(graph.wait_until_waiting, 1, LIMIT)
        try:
            assert not future.done()
        finally:
            graph.abort()
        assert future.result(LIMIT / 2) is False
    assert graph.wait_until_waiting(0, LIMIT) is False


def test_a_deadlock_error_survives_pickling() -> None:
    error = DeadlockError([Wait("A", "1", "2"), Wait("B", "2", "1")])
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == str(error) == "A holds 1, waits for 2; B holds 2, waits for 1"
    assert copy.cycle == error.cycle


# What CPython does before it looks for a signal: it ends a call, or begins a function.
def interrupt_at(
    step: int, call: Callable[[], object], at_line: Callable[[str], object]
) -> bool:
    """Raise KeyboardInterrupt at the `step`-th look for signals in the script.

    Args:
        at_line: called with the text of each line of the script before it runs.

    Returns:
        Whether it came to that.
    """
    looks = 0
    previous: dict[FrameType, str] = {}

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == step:
            raise KeyboardInterrupt

    def trace(frame: FrameType, event: str, _: object) -> Any:
        code = frame.f_code
        if code.co_filename != knowing.__file__:
            return None
        frame.f_trace = trace
        frame.f_trace_opcodes = True
        if event == "call":
            look()
        elif event == "line":
            at_line(linecache.getline(code.co_filename, frame.f_lineno).strip())
        elif event == "opcode":
            before = previous.get(frame, "")
            previous[frame] = dis.opname[code.co_code[frame.f_lasti]]
            if before.startswith("CALL"):
                look()
        return trace

    outer = sys.gettrace()
    sys._getframe().f_trace_opcodes = True  # 3.12 wants to know before settrace
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(outer)
    return False


def at_every_step(try_at: Callable[[int], bool], at_least: int) -> None:
    """Call `try_at` with 1, 2, … until it says that it came to no interruption."""
    step = 1
    while try_at(step):
        step += 1
    assert step > at_least


def test_ctrl_c_in_an_acquire_leaves_a_free_lock_free() -> None:
    def try_at(step: int) -> bool:
        lock = WaitGraph().lock("1")
        interrupted = interrupt_at(step, lock.acquire, lambda line: None)
        assert lock.locked() is not interrupted
        return interrupted

    at_every_step(try_at, 4)


@pytest.mark.parametrize("handed_over", [False, True])
def test_ctrl_c_in_a_wait_leaves_nobody_in_the_queue(handed_over: bool) -> None:
    """Also if the lock was just handed over: it goes to the next who waits."""

    def try_at(step: int) -> bool:
        graph = WaitGraph()
        lock = graph.lock("1")
        with actors("AB", graph) as (a, b):
            a.call(lock.acquire)
            next_one: list[Future[bool]] = []

            def release(line: str) -> None:
                if line.startswith("gate.acquire(timeout=") and not next_one:
                    next_one.append(begin_waiting(graph, b, lock))
                    if handed_over:
                        a.call(lock.release)

            wait_for_it = partial(lock.acquire, timeout=0.001)
            interrupted = interrupt_at(step, wait_for_it, release)
            if not handed_over or not next_one:
                a.call(lock.release)
            elif not interrupted:
                lock.release()
            for future in next_one:
                assert future.result(LIMIT) is True
                b.call(lock.release)
            assert not lock.locked()
        return interrupted

    at_every_step(try_at, 10)


def test_ctrl_c_in_a_release_leaves_the_lock_held_or_passes_it_on() -> None:
    def try_at(step: int) -> bool:
        graph = WaitGraph()
        lock = graph.lock("1")
        with actors("A", graph) as (a,):
            lock.acquire()
            waits = begin_waiting(graph, a, lock)
            interrupted = interrupt_at(step, lock.release, lambda line: None)
            with suppress(RuntimeError):  # if it has been released
                lock.release()
            assert waits.result(LIMIT) is True
        return interrupted

    at_every_step(try_at, 3)


@pytest.mark.parametrize("aborted", [False, True])
def test_who_was_handed_the_lock_holds_it_even_before_it_runs(aborted: bool) -> None:
    """It is no more a wait, which could be part of a cycle or be aborted."""
    graph = WaitGraph()
    lock = graph.lock("1")
    waits: list[Future[bool]] = []
    with actors("AB", graph) as (a, b):
        a.call(lock.acquire)

        def hand_over(line: str) -> None:
            if line.startswith("gate.acquire(timeout="):
                a.call(lock.release)
                waits.append(begin_waiting(graph, b, lock))
                if aborted:
                    graph.abort()

        assert not interrupt_at(0, lock.acquire, hand_over)
        assert lock.locked()
        lock.release()
        if aborted:
            assert isinstance(waits[0].exception(LIMIT), AbortedError)
        else:
            assert waits[0].result(LIMIT) is True


@pytest.mark.usefixtures("no_collections")
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_real_ctrl_c_ends_the_wait_of_the_main_thread() -> None:
    """Sent again until it is noticed: CPython overlooks one just before a wait."""
    graph = WaitGraph()
    lock = graph.lock("1")
    main = threading.main_thread()
    if threading.current_thread() is not main:
        pytest.skip("needs the main thread")
    interrupted: list[bool] = []
    waits_no_more = threading.Event()

    def on_first(*_: object) -> None:
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    def interrupt_main() -> None:
        assert graph.wait_until_waiting(1, LIMIT)
        while not waits_no_more.wait(0.01):
            assert main.ident is not None
            signal.pthread_kill(main.ident, signal.SIGINT)

    handler = signal.signal(signal.SIGINT, on_first)
    try:
        with actors("AB", graph) as (a, b):
            a.call(lock.acquire)
            done = b.begin(interrupt_main)
            try:
                with pytest.raises(KeyboardInterrupt):
                    lock.acquire()
            finally:
                waits_no_more.set()
            done.result(LIMIT)
            assert waiting(graph) == 0
            a.call(lock.release)
            assert not lock.locked()
    finally:
        signal.signal(signal.SIGINT, handler)


class Model:
    """What a wait-for graph is to do, in one thread and without any lock."""

    def __init__(self, n_locks: int) -> None:
        self.queues: list[list[int]] = [[] for _ in range(n_locks)]  # first: the holder

    def waits_for(self, actor: int) -> set[int]:
        return {queue[0] for queue in self.queues if actor in queue[1:]}

    def would_deadlock(self, actor: int, lock: int) -> bool:
        reached = {self.queues[lock][0]}
        while new := set().union(*map(self.waits_for, reached)) - reached:
            reached |= new
        return actor in reached


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["acquire", "acquire", "try", "release"]),
            st.integers(0, 3),
        ),
        max_size=40,
    )
)
def test_it_does_what_the_model_says(steps: list[tuple[int, str, int]]) -> None:
    graph = WaitGraph()
    locks = [graph.lock(str(k)) for k in range(4)]
    model = Model(len(locks))
    waits: dict[int, Future[bool]] = {}
    with actors("ABCD", graph) as threads:
        for actor, action, k in steps:
            thread, lock, queue = threads[actor], locks[k], model.queues[k]
            if actor in waits:
                continue
            if action == "release":
                if queue[:1] != [actor]:
                    with pytest.raises(RuntimeError):
                        thread.call(lock.release)
                    continue
                thread.call(lock.release)
                queue.pop(0)
                if queue:
                    assert waits.pop(queue[0]).result(LIMIT) is True
            elif not queue:
                assert thread.call(lock.acquire, action == "acquire") is True
                queue.append(actor)
            elif action == "try":
                assert thread.call(lock.acquire, False) is False
            elif model.would_deadlock(actor, k):
                refused = thread.begin(lock.acquire).exception(LIMIT)
                assert isinstance(refused, DeadlockError)
            else:
                waits[actor] = begin_waiting(graph, thread, lock)
                queue.append(actor)
            assert waiting(graph) == len(waits)
            assert [lock.locked() for lock in locks] == [bool(q) for q in model.queues]


def test_if_all_want_all_in_any_order_some_are_refused_and_all_end() -> None:
    graph = WaitGraph()
    locks = [graph.lock(str(k)) for k in range(4)]
    users = [""] * len(locks)

    def work(name: str) -> tuple[int, int]:
        chance = random.Random(name)
        done = refused = 0
        while done < 50:
            chosen = chance.sample(range(len(locks)), 3)
            try:
                with ExitStack() as held:
                    for k in chosen:
                        held.enter_context(locks[k])
                        users[k] = name
                    assert [users[k] for k in chosen] == [name] * 3
            except DeadlockError:
                refused += 1
            else:
                done += 1
        return done, refused

    with actors("ABCD", graph) as threads:
        futures = [
            thread.begin(work, name)
            for thread, name in zip(threads, "ABCD", strict=True)
        ]
        assert [future.result(LIMIT)[0] for future in futures] == [50] * 4
    assert not any(lock.locked() for lock in locks)


def test_in_one_order_nobody_is_refused() -> None:
    assert knowing.in_one_order(n_threads=4, n_locks=4, rounds=100) == 1200


def test_a_lock_that_sees_no_cycle_fails_the_demonstration_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(knowing, "LIMIT", 1.0)
    monkeypatch.setattr(knowing, "SIZES", [2])
    monkeypatch.setattr(WaitGraph, "_cycle", lambda *_: [])
    monkeypatch.setattr(sys, "argv", ["script"])
    before = threading.active_count()
    with pytest.raises(
        SystemExit, match=r"^TimeoutError: 2 threads wait for each other$"
    ):
        knowing.main()
    assert threading.active_count() == before


def test_a_lock_that_cries_wolf_fails_the_demonstration_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wolf = [Wait("A", "1", "2")]
    monkeypatch.setattr(WaitGraph, "_cycle", lambda *_: wolf)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match="A holds 1, waits for 2"):
        knowing.main()


@pytest.mark.parametrize("value", ["0", "101", "x"])
def test_rings_have_a_reasonable_size(
    complaint: Callable[..., str], value: str
) -> None:
    assert value in complaint(knowing, "--threads", value)


# -- example14


def found_by(run: Callable[[LockOrder], object]) -> list[Inversion]:
    found: list[Inversion] = []
    run(LockOrder(found.append))
    return found


def nest(*locks: CheckedLock) -> None:
    """Take all of `locks`, the first outermost, and release them."""
    with ExitStack() as held:
        for lock in locks:
            held.enter_context(lock)


def names(inversion: Inversion) -> list[tuple[str, str]]:
    return [(before, after) for before, after, _ in inversion.orders()]


def test_an_inversion_is_reported_once_with_who_did_what() -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    a, b = order.lock("a"), order.lock("b")

    def earlier() -> None:
        with a:
            b.acquire()
            b.release()

    def later() -> None:
        with b, a:
            pass

    with actors("AB") as (one, two):
        for _ in range(3):
            one.call(earlier)
        assert not found
        for _ in range(3):
            two.call(later)
    (inversion,) = found
    assert names(inversion) == [("b", "a"), ("a", "b")]
    new, old = inversion.requests
    assert (new.thread, old.thread) == ("B", "A")
    assert (new.stack[-1].name, new.stack[-1].line) == ("later", "with b, a:")
    assert (old.stack[-1].name, old.stack[-1].line) == ("earlier", "b.acquire()")
    text = str(inversion)
    assert "b before a, in B:" in text
    assert "a before b, in A:" in text
    assert text.index("in later\n") < text.index("in earlier\n")


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_a_cycle_of_any_length_is_reported_by_the_request_that_closes_it(
    size: int,
) -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    locks = [order.lock(str(k)) for k in range(size)]
    for pair in pairwise(locks):
        nest(*pair)
    assert not found
    nest(locks[-1], locks[0])
    (inversion,) = found
    assert names(inversion) == [
        (str(k - 1 if k else size - 1), str(k)) for k in range(size)
    ]


def test_the_shortest_cycle_is_reported() -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    a, b, c = (order.lock(name) for name in "abc")
    for pair in ((a, b), (b, c), (a, c), (c, a)):
        nest(*pair)
    assert [names(one) for one in found] == [[("c", "a"), ("a", "c")]]


def test_the_shortest_cycle_is_reported_though_a_longer_one_is_found_last() -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    locks = {name: order.lock(name) for name in "abxyz"}
    for a, b in ("ax", "xb", "ay", "yz", "zb", "ba"):
        nest(locks[a], locks[b])
    assert [names(one) for one in found] == [[("b", "a"), ("a", "x"), ("x", "b")]]


def test_what_was_reported_is_not_reported_as_a_part_of_something_else() -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    a, b, c = (order.lock(name) for name in "abc")
    for locks in ((a, b), (b, a), (c, a, b), (a, c, b)):
        nest(*locks)
    assert [names(one) for one in found] == [
        [("b", "a"), ("a", "b")],
        [("a", "c"), ("c", "a")],
    ]


@pytest.mark.parametrize("behind", list(combinations(range(4), 2)))
def test_a_gate_before_any_two_requests_of_a_cycle_will_do(
    behind: tuple[int, int],
) -> None:
    def run(gated: Sequence[int]) -> int:
        found: list[Inversion] = []
        order = LockOrder(found.append)
        gate, *locks = (order.lock(name) for name in "gabcd")
        for k in range(4):
            outer = [gate] if k in gated else []
            nest(*outer, locks[k], locks[(k + 1) % 4])
        return len(found)

    assert run(behind) == 0
    assert run(behind[:1]) == run(()) == 1


Nests = list[list[int]]


def has_cycle(nests: Nests) -> bool:
    """Find by brute force whether requests made in `nests` could be a deadlock."""
    requests = {
        (frozenset(locks[:k]), locks[k])
        for locks in nests
        for k in range(1, len(locks))
    }
    for length in range(2, 5):  # each holds a lock of its own, of four
        for cycle in permutations(requests, length):
            held = [one for one, _ in cycle]
            disjoint = sum(map(len, held)) == len(frozenset().union(*held))
            if disjoint and all(cycle[k - 1][1] in held[k] for k in range(length)):
                return True
    return False


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1), st.lists(st.integers(0, 3), unique=True, max_size=4)
        ),
        max_size=6,
    )
)
def test_it_reports_if_and_only_if_there_can_be_a_deadlock(
    program: list[tuple[int, list[int]]],
) -> None:
    """Two threads take locks, never at the same time; common outer ones are gates."""
    found: list[Inversion] = []
    order = LockOrder(found.append)
    locks = [order.lock(str(k)) for k in range(4)]
    done: Nests = []
    with actors("AB") as threads:
        for who, chosen in program:
            before = has_cycle(done)
            assert bool(found) is before
            threads[who].call(nest, *(locks[k] for k in chosen))
            done.append(chosen)
        assert bool(found) is has_cycle(done)
    for inversion in found:
        held = [request.held for request in inversion.requests]
        assert not any(a & b for a, b in combinations(held, 2))
        for k, request in enumerate(inversion.requests):
            assert inversion.requests[k - 1].wanted in request.held


@given(st.permutations(range(6)), st.lists(st.sets(st.integers(0, 5))))
def test_in_one_order_nothing_is_reported(
    order: list[int], nests: list[set[int]]
) -> None:
    def run(checker: LockOrder) -> None:
        locks = [checker.lock(str(k)) for k in range(6)]
        for chosen in nests:
            nest(*(locks[k] for k in order if k in chosen))

    assert not found_by(run)


def test_a_gate_counts_only_if_both_are_behind_it() -> None:
    def run(gates_1: str, gates_2: str) -> int:
        found: list[Inversion] = []
        order = LockOrder(found.append)
        locks = {name: order.lock(name) for name in "abgh"}
        nest(*(locks[name] for name in f"{gates_1}ab"))
        nest(*(locks[name] for name in f"{gates_2}ba"))
        return len(found)

    assert run("g", "g") == run("gh", "g") == run("gh", "h") == 0
    assert run("g", "") == run("", "g") == run("g", "h") == 1


def test_who_does_not_wait_for_ever_is_in_no_deadlock() -> None:
    def run(order: LockOrder) -> None:
        a, b = order.lock("a"), order.lock("b")
        nest(a, b)
        with b:
            for arguments in ((False,), (True, 0), (True, LIMIT)):
                assert a.acquire(*arguments)
                a.release()

    assert not found_by(run)


def test_what_was_got_without_waiting_is_held_all_the_same() -> None:
    def run(order: LockOrder) -> None:
        a, b = order.lock("a"), order.lock("b")
        assert a.acquire(blocking=False)
        nest(b)
        a.release()
        nest(b, a)

    assert [names(one) for one in found_by(run)] == [[("b", "a"), ("a", "b")]]


def test_what_was_not_got_is_not_held() -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    a, b = order.lock("a"), order.lock("b")
    with actors("A") as (other,):
        nest(b, a)
        other.call(a.acquire)
        assert a.acquire(blocking=False) is False
        nest(b)  # a is not held here: no order
        other.call(a.release)
    assert not found


def test_an_rlock_may_be_taken_again_and_has_its_place_in_the_order() -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    a, b = order.rlock("a"), order.lock("b")
    with a:
        nest(a, b, a)
        assert not found
    with actors("A") as (other,):
        assert other.call(a.acquire)  # it was released as often as taken
        with pytest.raises(RuntimeError):
            a.release()
        other.call(a.release)
    nest(b, a)
    assert [names(one) for one in found] == [[("b", "a"), ("a", "b")]]


class RefusedError(Exception):
    pass


def refuse(inversion: Inversion) -> NoReturn:
    raise RefusedError(str(inversion))


def test_a_thread_that_would_wait_for_itself_is_told_before_it_hangs() -> None:
    order = LockOrder(refuse)
    a = order.lock("a")
    with a, pytest.raises(RefusedError, match="a before a"):
        a.acquire()
    assert a.acquire(blocking=False)


def test_a_deadlock_that_happens_now_is_reported_before_anybody_hangs() -> None:
    order = LockOrder(refuse)
    a, b = order.lock("a"), order.lock("b")
    with actors("AB") as (one, two):
        one.call(a.acquire)
        two.call(b.acquire)
        asks = {one.begin(b.acquire): (one, a), two.begin(a.acquire): (two, b)}
        (refused,), (waits,) = wait(asks, LIMIT, return_when=FIRST_COMPLETED)
        with pytest.raises(
            RefusedError, match=r"(a before b(.|\n)*b before a|b before a)"
        ):
            refused.result()
        victim, held = asks[refused]
        victim.call(held.release)
        assert waits.result(LIMIT) is True


def test_if_the_report_raises_the_lock_is_not_taken() -> None:
    order = LockOrder(refuse)
    a, b = order.lock("a"), order.lock("b")
    nest(a, b)
    with pytest.raises(RefusedError):
        nest(b, a)
    with actors("A") as (other,):
        for lock in (a, b):
            assert other.call(lock.acquire, False)
    assert len(order._requests) == 2


def test_threads_at_the_same_time_have_each_their_own_locks() -> None:
    """Four hold a lock each, all at the same time: that is no order of these locks."""
    found: list[Inversion] = []
    order = LockOrder(found.append)
    inner = order.lock("inner")
    all_hold_one = threading.Barrier(4)

    def work(own: CheckedLock) -> None:
        for _ in range(50):
            with own:
                all_hold_one.wait(LIMIT)
                nest(inner)

    with actors("ABCD") as threads:
        own = [order.lock(str(k)) for k in range(4)]
        futures = [
            thread.begin(work, lock) for thread, lock in zip(threads, own, strict=True)
        ]
        for future in futures:
            future.result(LIMIT)
    assert not found
    assert len(order._requests) == 4
    assert {wanted.name for _, wanted in order._requests} == {"inner"}


def test_the_same_requests_again_take_no_more_memory() -> None:
    order = LockOrder(lambda inversion: None)
    a, b, c = (order.lock(name) for name in "abc")
    for _ in range(100):
        nest(a, b, c)
        nest(b, a)
    assert len(order._requests) == 3


def test_locks_that_are_gone_are_forgotten() -> None:
    order = LockOrder(lambda inversion: None)
    outer, inner = order.lock("outer"), order.lock("inner")
    for k in range(100):
        passing = order.lock(str(k))
        nest(outer, passing)
        nest(passing, inner)
        gone = weakref.ref(passing)
        del passing
        gc.collect(0)
        assert gone() is None
    nest(outer, inner)  # what is new makes it look through the old
    assert len(order._requests) == 1


def test_an_order_outlives_a_lock_that_was_held_as_well() -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    a, b = order.lock("a"), order.lock("b")
    nest(a, order.lock("passing"), b)
    gc.collect(0)
    nest(b, a)
    assert [names(one) for one in found] == [[("b", "a"), ("a", "b")]]


def test_a_lock_that_another_thread_releases_is_held_no_more() -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    a, b = order.lock("a"), order.lock("b")
    with actors("A") as (other,):
        nest(b, a)
        a.acquire()
        other.call(a.release)
        nest(b)
    assert not found


def test_release_of_a_free_lock_is_an_error() -> None:
    order = LockOrder(refuse)
    for lock in (order.lock("a"), order.rlock("b")):
        assert not lock.locked()
        with pytest.raises(RuntimeError):
            lock.release()
        with lock as got:
            assert got is True
            assert lock.locked()
        assert not lock.locked()


@pytest.mark.parametrize("arguments", [(False, 1), (True, -2), (True, math.nan)])
def test_a_checked_lock_refuses_what_a_lock_refuses(arguments: Any) -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    a, b = order.lock("a"), order.lock("b")
    with a, pytest.raises(ValueError, match=r"time-?out|NaN"):
        b.acquire(*arguments)
    nest(b, a)
    assert not found


def test_a_condition_may_use_a_checked_lock() -> None:
    found: list[Inversion] = []
    order = LockOrder(found.append)
    # typeshed knows of no Lock but its own
    changed = threading.Condition(cast("threading.Lock", order.lock("a")))
    items: list[int] = []

    def put() -> None:
        with changed:
            items.append(1)
            changed.notify()

    with actors("A") as (other,), changed:
        done = other.begin(put)
        assert changed.wait_for(lambda: items, LIMIT)
        done.result(LIMIT)
    assert not found


def test_a_checker_that_sees_no_cycle_fails_the_demonstration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(LockOrder, "_cycle", lambda *_: ())
    with pytest.raises(SystemExit, match=r"^pay, later audit: "):
        orders.main()


def test_without_a_gate_the_demonstration_of_gates_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orders, "alone", lambda job: job)
    with pytest.raises(SystemExit, match=r"^both behind a gate: "):
        orders.main()


# -- example20


def textbook() -> Banker:
    return Banker(bankers.TOTAL, bankers.CLAIMS, bankers.HELD)


def test_the_textbooks_state_is_safe_and_its_sequence_one_of_those_found() -> None:
    banker = textbook()
    assert banker.available == (3, 3, 2)
    assert [banker.need(f"P{k}") for k in range(5)] == [
        (7, 4, 3),
        (1, 2, 2),
        (6, 0, 0),
        (0, 1, 1),
        (4, 3, 1),
    ]
    assert banker.safe_sequence() == ["P1", "P3", "P4", "P0", "P2"]
    assert banker.can_finish_in(["P1", "P3", "P4", "P2", "P0"])
    assert not banker.can_finish_in(["P0", "P1", "P2", "P3", "P4"])


def test_the_textbooks_three_requests_get_the_textbooks_answers() -> None:
    banker = textbook()
    assert banker.request("P1", (1, 0, 2)) is Answer.GRANTED
    assert banker.available == (2, 3, 0)
    state = banker.available, dict(banker.held)
    assert banker.request("P4", (3, 3, 0)) is Answer.NOT_AVAILABLE
    assert banker.request("P0", (0, 2, 0)) is Answer.UNSAFE
    assert (banker.available, banker.held) == state
    banker.release("P1", (3, 0, 2))
    assert banker.available == (5, 3, 2)
    assert banker.request("P4", (3, 3, 0)) is Answer.GRANTED


def test_of_no_claims_all_can_finish() -> None:
    assert Banker((1,), {}).safe_sequence() == []
    assert Banker((), {"A": ()}).request("A", ()) is Answer.GRANTED


def test_an_unsafe_state_can_be_looked_at() -> None:
    banker = Banker((2,), {"A": (2,), "B": (2,)}, {"A": (1,), "B": (1,)})
    assert banker.safe_sequence() is None
    assert banker.request("A", (0,)) is Answer.UNSAFE
    banker.release("A", (1,))
    assert banker.safe_sequence() == ["B", "A"]


@st.composite
def states(draw: st.DrawFn) -> Banker:
    """Draw a state of up to four processes and two resources, safe or not."""
    n_resources = draw(st.integers(1, 2))
    total = [draw(st.integers(0, 5)) for _ in range(n_resources)]
    left = list(total)
    claims, held = {}, {}
    for name in "ABCD"[: draw(st.integers(1, 4))]:
        claims[name] = [draw(st.integers(0, most)) for most in total]
        held[name] = [
            draw(st.integers(0, min(claim, most)))
            for claim, most in zip(claims[name], left, strict=True)
        ]
        left = [most - own for most, own in zip(left, held[name], strict=True)]
    return Banker(total, claims, held)


def some_order_works(banker: Banker) -> bool:
    """Try all orders in which the processes can finish."""
    for order in permutations(banker.claims):
        left = list(banker.available)
        for name in order:
            claim, own = banker.claims[name], banker.held[name]
            if any(c - o > n for c, o, n in zip(claim, own, left, strict=True)):
                break
            left = [n + o for n, o in zip(left, own, strict=True)]
        else:
            return True
    return False


@given(states())
def test_a_state_is_safe_if_and_only_if_some_order_works(banker: Banker) -> None:
    sequence = banker.safe_sequence()
    assert banker.is_safe() is some_order_works(banker) is (sequence is not None)
    if sequence is not None:
        assert banker.can_finish_in(sequence)
    if not banker.is_safe():
        assert not any(map(banker.can_finish_in, permutations(banker.claims)))


@given(states(), st.data())
def test_what_is_granted_is_available_and_safe(
    banker: Banker, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(banker.claims)))
    amounts = [data.draw(st.integers(0, most)) for most in banker.need(name)]
    available, own = banker.available, banker.held[name]
    answer = banker.answer(name, amounts)
    assert (banker.available, banker.held[name]) == (available, own)
    assert banker.request(name, amounts) is answer
    there_is = all(a <= b for a, b in zip(amounts, available, strict=True))
    assert (answer is Answer.NOT_AVAILABLE) is not there_is
    if answer is Answer.GRANTED:
        assert some_order_works(banker)
        assert banker.available == tuple(
            a - b for a, b in zip(available, amounts, strict=True)
        )
        assert banker.held[name] == tuple(
            a + b for a, b in zip(own, amounts, strict=True)
        )
    else:
        assert (banker.available, banker.held[name]) == (available, own)
    if answer is Answer.UNSAFE:
        lent = {**banker.held, name: [a + b for a, b in zip(own, amounts, strict=True)]}
        total = [
            sum(all_) for all_ in zip(available, *banker.held.values(), strict=True)
        ]
        assert not some_order_works(Banker(total, banker.claims, lent))


@given(states(), st.data())
def test_what_is_given_back_never_makes_a_safe_state_unsafe(
    banker: Banker, data: st.DataObject
) -> None:
    was_safe = banker.is_safe()
    name = data.draw(st.sampled_from(sorted(banker.claims)))
    banker.release(
        name, [data.draw(st.integers(0, most)) for most in banker.held[name]]
    )
    assert banker.is_safe() or not was_safe


@given(states())
def test_in_a_safe_state_somebody_can_have_all_of_its_claim(banker: Banker) -> None:
    if banker.is_safe():
        answers = [banker.answer(name, banker.need(name)) for name in banker.claims]
        assert Answer.GRANTED in answers


@pytest.mark.parametrize(
    ("process", "amounts", "message"),
    [
        ("P9", (0, 0, 0), "P9"),
        ("P1", (0, -1, 0), r"P1.*negative.*-1"),
        ("P1", (0, 3, 0), r"P1.*\(0, 3, 0\).*\(1, 2, 2\)"),
        ("P1", (0, 0), r"P1.*2 numbers, not 3"),
        ("P1", (0, 0, 0, 0), r"P1.*4 numbers, not 3"),
    ],
)
def test_a_bad_request_is_named(
    process: str, amounts: tuple[int, ...], message: str
) -> None:
    banker = textbook()
    with pytest.raises(ValueError, match=message):
        banker.request(process, amounts)
    with pytest.raises(ValueError, match=r"P1|P9"):
        banker.release(process, amounts)
    assert banker.available == (3, 3, 2)


@pytest.mark.parametrize(
    ("total", "claims", "held", "message"),
    [
        ((-1,), {}, {}, "total"),
        ((3,), {"A": (4,)}, {}, r"A claims \(4,\)"),
        ((3,), {"A": (-1,)}, {}, r"claim of A.*negative"),
        ((3,), {"A": (1, 1)}, {}, r"claim of A.*2 numbers"),
        ((3,), {"A": (2,)}, {"A": (3,)}, r"A.*\(3,\)"),
        ((3,), {"A": (2,)}, {"B": (1,)}, "B"),
        ((3,), {"A": (2,), "B": (2,)}, {"A": (2,), "B": (2,)}, r"B.*\(1,\) are left"),
    ],
)
def test_an_impossible_state_is_named(
    total: Any, claims: Any, held: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Banker(total, claims, held)


def test_an_order_must_name_each_process_once() -> None:
    for order in (["P0"], ["P0", "P0", "P1", "P2", "P3"]):
        with pytest.raises(ValueError, match="each process once"):
            textbook().can_finish_in(order)


def claims_of(names: str, claim: int) -> dict[str, tuple[int]]:
    return dict.fromkeys(names, (claim,))


@contextmanager
def customers(bank: Bank, names: str) -> Iterator[list[Actor]]:
    with actors(names) as threads:
        try:
            yield threads
        finally:
            bank.abort()


@pytest.mark.parametrize("n_customers", [2, 3, 5])
def test_a_careless_banker_comes_to_a_deadlock_and_all_are_told(
    n_customers: int,
) -> None:
    names = "ABCDE"[:n_customers]
    bank = Bank(CarelessBanker((3 * n_customers + 1,), claims_of(names, 7)))
    outcomes = bankers.borrow_in_two_steps(bank, names)
    wants = ", ".join(f"{name} wants 4" for name in names)
    assert outcomes == [f"{wants}, 1 left"] * n_customers
    assert sorted(bank.delayed) == [(name, Answer.NOT_AVAILABLE) for name in names]


@pytest.mark.parametrize("n_customers", [2, 3, 5])
def test_with_a_careful_one_all_finish(n_customers: int) -> None:
    names = "ABCDE"[:n_customers]
    bank = Bank(Banker((3 * n_customers + 1,), claims_of(names, 7)))
    assert bankers.borrow_in_two_steps(bank, names) == ["finished"] * n_customers


def test_a_deadlock_of_some_is_noticed_when_the_last_other_one_leaves() -> None:
    bank = Bank(CarelessBanker((4,), claims_of("ABC", 3)))
    with customers(bank, "ABC") as (a, b, c):
        for actor, name in ((a, "A"), (b, "B")):
            actor.call(bank.request, name, (2,))
        waits = [a.begin(bank.request, "A", (1,)), b.begin(bank.request, "B", (1,))]
        bank.wait_until_asked(4, LIMIT)
        assert not any(future.done() for future in waits)  # C might have given back
        c.call(bank.leave, "C")
        for future in waits:
            error = future.exception(LIMIT)
            assert isinstance(error, bankers.DeadlockError)
            assert str(error) == "A wants 1, B wants 1, 0 left"
        with pytest.raises(bankers.DeadlockError):
            bank.wait_until_asked(5, LIMIT)
        a.call(bank.leave, "A")
        with pytest.raises(bankers.DeadlockError):  # although there is enough by now
            bank.request("B", (1,), LIMIT)


def test_who_waits_is_served_when_enough_comes_back() -> None:
    bank = Bank(Banker((3,), claims_of("AB", 3)))
    with customers(bank, "AB") as (a, b):
        a.call(bank.request, "A", (2,))
        waits = b.begin(bank.request, "B", (2,))
        bank.wait_until_asked(2, LIMIT)
        a.call(bank.release, "A", (1,))  # not enough
        with pytest.raises(TimeoutError):
            waits.result(0.01)
        a.call(bank.release, "A", (1,))
        assert waits.result(LIMIT) is None
        assert bank.delayed == [("B", Answer.NOT_AVAILABLE)]
        a.call(bank.leave, "A")
        with pytest.raises(ValueError, match="A"):
            bank.request("A", (1,))


def test_who_is_not_served_in_time_has_borrowed_nothing() -> None:
    banker = Banker((3,), claims_of("AB", 3))
    bank = Bank(banker)
    bank.request("A", (1,))
    with pytest.raises(TimeoutError, match=r"B was not lent \(1,\)"):
        bank.request("B", (1,), timeout=0.01)  # 2 are there, but it is unsafe
    assert banker.held["B"] == (0,)
    with pytest.raises(TimeoutError, match="only 2"):
        bank.wait_until_asked(3, 0.01)
    bank.leave("A")
    bank.request("B", (3,), timeout=LIMIT)


def test_a_bad_request_to_the_bank_is_refused_and_nobody_waits() -> None:
    bank = Bank(Banker((3,), claims_of("AB", 2)))
    for bad in ((3,), (-1,), (1, 1)):
        with pytest.raises(ValueError, match="A"):
            bank.request("A", bad, timeout=LIMIT)
    with pytest.raises(ValueError, match="A"):
        bank.release("A", (1,))
    with pytest.raises(ValueError, match="there is no process C"):
        bank.leave("C")
    bank.request("B", (2,), timeout=LIMIT)


def test_an_interrupted_question_lends_nothing() -> None:
    class Interrupted(Banker):
        def is_safe(self) -> bool:
            if any(map(any, self.held.values())):
                raise KeyboardInterrupt
            return True

    banker = Interrupted((3,), claims_of("A", 3))
    with pytest.raises(KeyboardInterrupt):
        banker.answer("A", (2,))
    assert banker.held == {"A": (0,)}
    assert banker.available == (3,)


def test_an_aborted_bank_lets_nobody_wait() -> None:
    bank = Bank(Banker((3,), claims_of("AB", 3)))
    with customers(bank, "AB") as (a, b):
        a.call(bank.request, "A", (3,))
        waits = b.begin(bank.request, "B", (1,))
        bank.wait_until_asked(2, LIMIT)
        bank.abort()
        for future in (waits, b.begin(bank.request, "B", (1,))):
            assert isinstance(future.exception(LIMIT), bankers.AbortedError)
        with pytest.raises(bankers.AbortedError):
            bank.wait_until_asked(9, LIMIT)


def test_whatever_is_asked_for_all_finish_and_nothing_is_lent_twice() -> None:
    total, claim, names = (6, 4), (4, 3), "ABCD"
    seen: list[bool] = []

    class Watched(Banker):
        def request(self, process: str, amounts: Sequence[int]) -> Answer:
            answer = super().request(process, amounts)
            columns = zip(total, self.available, *self.held.values(), strict=True)
            seen.append(all(n == sum(lent) and min(lent) >= 0 for n, *lent in columns))
            return answer

    bank = Bank(Watched(total, dict.fromkeys(names, claim)))

    def work(name: str) -> str:
        chance = random.Random(name)
        bank.request(name, (2, 1), LIMIT)  # of which there is not enough for all
        bank.wait_until_asked(len(names), LIMIT)
        bank.release(name, (2, 1))
        for _ in range(25):
            need, held = list(claim), [0, 0]
            while any(need):
                step = [chance.randint(0, most) for most in need]
                bank.request(name, step, LIMIT)
                need = [a - b for a, b in zip(need, step, strict=True)]
                held = [a + b for a, b in zip(held, step, strict=True)]
            bank.release(name, held)
        bank.leave(name)
        return name

    with customers(bank, names) as threads:
        futures = [
            thread.begin(work, name)
            for thread, name in zip(threads, names, strict=True)
        ]
        assert [future.result(LIMIT) for future in futures] == list(names)
    assert all(seen)
    assert bank.delayed


def test_a_careless_banker_fails_the_demonstration_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Banker, "is_safe", lambda _: True)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(
        SystemExit, match=r"^the banker was to grant the first request only"
    ):
        bankers.main()


def test_a_too_careful_banker_fails_the_demonstration_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(CarelessBanker, "is_safe", Banker.is_safe)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match=r"^without care all were to wait for ever"):
        bankers.main()


@pytest.mark.parametrize(
    ("question", "culprit"),
    [
        (("P9", "0", "0", "0"), "P9"),
        (("P1", "0", "-1", "0"), "-1"),
        (("P1", "0", "x", "0"), "x"),
        (("P3", "1", "0", "0"), r"(1, 0, 0)"),
        (("P1", "0", "0"), "expected 4"),
    ],
)
def test_a_bad_question_is_named(
    complaint: Callable[..., str], question: tuple[str, ...], culprit: str
) -> None:
    assert culprit in complaint(bankers, "--ask", *question)


def test_one_may_ask_more(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--ask", "P0", "0", "1", "0"] * 2
    monkeypatch.setattr(sys, "argv", ["script", *more])
    bankers.main()
    assert (
        "asks for 0 1 0     granted\nP0 asks for 0 1 0     refused: unsafe\n"
        in capsys.readouterr().out
    )
