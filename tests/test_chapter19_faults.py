"""Chapter 19: stateful property tests, a virtual clock, injected faults."""

import asyncio
import gc
import itertools
import math
import queue
import random
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import example16_stateful_property_tests as stateful
import example17_virtual_clock as virtual
import example18_fault_injection as faults
import faulty_socket
import pytest
from example16_stateful_property_tests import (
    WRONG,
    BoundedQueue,
    Call,
    CheckThenAct,
    FaultFoundError,
    OfThreads,
    TooFewWakeUps,
    WrongSize,
    fault_against_model,
    fault_with_threads,
    is_right,
)
from example17_virtual_clock import NothingCanHappenError, VirtualClockLoop, run
from example18_fault_injection import (
    Bank,
    ClientBroken,
    ClientMended,
    Connection,
    opened,
    play,
    sealed,
)
from faulty_socket import (
    Clock,
    Drop,
    Fault,
    FaultySocket,
    LineReader,
    Pass,
    Plan,
    Repeat,
    Reset,
    draw_plan,
    lines_broken,
    lines_mended,
    sendall,
    splits,
)
from hypothesis import example, given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from stage import Stage, StagedCondition

LIMIT = 30.0  # seconds that a test waits for what must come


@pytest.fixture(scope="module", autouse=True)
def first_use_of_hypothesis() -> None:
    """Begin with what is frozen in sight: Hypothesis asks who holds its random numbers.

    Without that, and outside of `given`, it warns on Python 3.15.
    """
    gc.unfreeze()
    assert fault_against_model(BoundedQueue, 1) is None
    gc.freeze()


@pytest.fixture
def stage() -> Iterator[Stage]:
    with no_thread_is_left(), closing(Stage()) as stage:
        yield stage


@pytest.mark.parametrize("script", [faults, faulty_socket])
def test_what_is_shown_does_not_take_real_time(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(_: float) -> None:
        raise AssertionError("a real sleep")

    monkeypatch.setattr("time.sleep", sleep)
    run_main(script, monkeypatch)


# -- a stage for threads


def test_a_thread_stops_where_it_waits_and_before_it_enters_again(stage: Stage) -> None:
    log: list[str] = []
    condition = StagedCondition(stage, threading.Lock())

    def work() -> None:
        with condition:
            log.append("in")
            condition.wait()
            log.append("woken")
        with condition:
            log.append("in again")

    stage.begin("A", work)
    assert (log, stage.able) == (["in"], [])
    stage.begin("B", lambda: notify(condition, condition.notify_all))
    assert (log, stage.able) == (["in"], ["A"])
    stage.go_on("A")
    assert (log, stage.able) == (["in", "woken"], ["A"])
    stage.go_on("A")
    assert (log, stage.able) == (["in", "woken", "in again"], [])


def notify(condition: threading.Condition, call: Callable[[], object]) -> None:
    with condition:
        call()


def test_who_waits_longest_is_woken_first_and_only_as_many(stage: Stage) -> None:
    condition = StagedCondition(stage, threading.Lock())
    for name in "ABC":
        stage.begin(name, lambda: notify(condition, condition.wait))
    stage.begin("D", lambda: notify(condition, lambda: condition.notify(2)))
    assert stage.able == ["A", "B"]


@pytest.mark.parametrize("method", ["wait", "notify", "notify_all"])
def test_conditions_are_used_with_the_lock_held(stage: Stage, method: str) -> None:
    condition = StagedCondition(stage, threading.Lock())
    with pytest.raises(RuntimeError):
        stage.begin("A", getattr(condition, method))


def test_what_a_call_raises_is_raised_where_it_was_let_go_on(stage: Stage) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stage.begin("A", fail)


def test_a_thread_that_does_not_stop_is_told_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stage.LIMIT", 0.05)
    may_end = threading.Event()
    with no_thread_is_left():
        with (
            pytest.raises(TimeoutError, match=r"A has not stopped in 0\.05 s"),
            closing(Stage()) as stage,
        ):
            stage.begin("A", may_end.wait)
        (thread,) = stage._threads
        was_left = thread.is_alive()
        may_end.set()
        thread.join(LIMIT)
    assert was_left
    assert thread.daemon  # the program may end


def test_the_end_of_a_stage_ends_all_threads_even_those_that_enter_once_more() -> None:
    ended: list[str] = []
    stage = Stage()
    condition = StagedCondition(stage, threading.Lock())

    def work(name: str) -> None:
        try:
            with condition:
                condition.wait()
        finally:
            ended.append(name)
            with condition:
                condition.wait()

    with no_thread_is_left():
        for name in "ABC":
            stage.begin(name, partial(work, name))
        stage.close()
    assert sorted(ended) == ["A", "B", "C"]


# -- histories and machines


def history(*calls: tuple[int | None, int, int | None, int | None]) -> list[Call]:
    """Return calls, each from its item, its two times and its result."""
    return [
        Call(str(n), item, invoked, returned, result)
        for n, (item, invoked, returned, result) in enumerate(calls)
    ]


@pytest.mark.parametrize(
    ("calls", "right"),
    [
        ([], True),
        ([(1, 0, 1, None), (None, 2, 3, 1)], True),
        ([(1, 0, 1, None), (None, 2, 3, 2)], False),
        ([(None, 0, 1, 1), (1, 2, 3, None)], False),  # got before it was put
        ([(None, 0, 3, 1), (1, 1, 2, None)], True),  # while it was put
        ([(1, 0, 3, None), (2, 1, 2, None), (None, 4, 5, 2)], False),  # capacity 1
        ([(1, 0, 5, None), (2, 1, 2, None), (None, 3, 4, 2)], True),
        ([(1, 0, 1, None), (2, 2, 3, None)], False),
        ([(1, 0, 1, None), (2, 2, None, None)], True),  # waits for room
        ([(None, 0, None, None)], True),
        ([(None, 0, 1, None)], False),
    ],
)
def test_histories_of_capacity_one(calls: list[Any], right: bool) -> None:
    assert is_right(history(*calls), 1, quiet=True) == right


@pytest.mark.parametrize(
    "calls",
    [
        [(1, 0, None, None)],
        [(1, 0, 1, None), (None, 2, None, None)],
        [(1, 0, 1, None), (2, 2, None, None), (None, 3, 4, 1)],
    ],
)
def test_nobody_waits_who_need_not_once_all_is_quiet(calls: list[Any]) -> None:
    assert is_right(history(*calls), 1, quiet=False)
    assert not is_right(history(*calls), 1, quiet=True)


def possible_after(
    steps: Sequence[str], queue_type: type[BoundedQueue], capacity: int
) -> list[str]:
    """Do steps such as "put", "get" and "A"; return those that can come next.

    Raises:
        FaultFoundError: they show a fault.
    """
    with closing(OfThreads(queue_type, capacity)) as threads:
        for step in steps:
            threads.do(step)
        return threads.possible()


def sequences(
    queue_type: type[BoundedQueue], capacity: int, most: int
) -> Iterator[tuple[str, ...]]:
    """Yield all sequences of at most so many steps, the short ones first.

    Raises:
        FaultFoundError: the next one shows a fault.
    """
    left: deque[tuple[str, ...]] = deque([()])
    while left:
        steps = left.popleft()
        following = possible_after(steps, queue_type, capacity)
        yield steps
        if len(steps) < most:
            left.extend((*steps, step) for step in following)


@pytest.mark.parametrize(("queue_type", "capacity"), WRONG[1:])
def test_threads_find_what_the_model_does_not_in_the_least_steps(
    queue_type: type[BoundedQueue], capacity: int
) -> None:
    assert fault_against_model(queue_type, capacity) is None
    with pytest.raises(FaultFoundError) as raised:
        deque(sequences(queue_type, capacity, most=6), maxlen=0)
    n_steps = len(raised.value.steps)
    assert fault_with_threads(queue_type, capacity, n_steps - 1)[0] is None
    fault, _ = fault_with_threads(queue_type, capacity, n_steps)
    assert fault is not None
    assert (str(fault), fault.steps) == (str(raised.value), raised.value.steps)


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_the_right_queue_passes_in_all_sequences(capacity: int) -> None:
    lengths = Counter(map(len, sequences(BoundedQueue, capacity, most=5)))
    with no_thread_is_left():
        assert fault_with_threads(BoundedQueue, capacity, 5) == (None, lengths[5])
    assert fault_against_model(BoundedQueue, capacity) is None


def test_a_queue_that_raises_is_found() -> None:
    class Raises(BoundedQueue):
        def get(self, block: bool = True) -> int | None:
            raise ZeroDivisionError

    fault, _ = fault_with_threads(Raises, 1, 2)
    assert fault is not None
    assert "ZeroDivisionError" in str(fault)
    assert fault.steps == ["A get()    raises"]
    fault = fault_against_model(Raises, 1)
    assert fault is not None
    assert "ZeroDivisionError" in str(fault)


class SwapsTwo(BoundedQueue):
    """Last in, first out, where two are inside."""

    def _add(self, item: int) -> None:
        super()._add(item)
        if self.size() == 2:
            n = len(self._ring)
            a, b = self._head, (self._head + 1) % n
            self._ring[a], self._ring[b] = self._ring[b], self._ring[a]


class NeverFull(BoundedQueue):
    """Raises Full one item too late."""

    def _await_room(self, block: bool) -> None:
        if self.size() == self._capacity and not block and self._tail:
            raise queue.Full


@pytest.mark.parametrize(
    ("queue_type", "capacity"), [(WrongSize, 1), (SwapsTwo, 2), (NeverFull, 2)]
)
def test_the_model_finds_what_shows_in_one_thread(
    queue_type: type[BoundedQueue], capacity: int
) -> None:
    assert fault_against_model(queue_type, capacity) is not None


def test_the_queue_works_with_real_conditions() -> None:
    q, n = BoundedQueue(2), 200
    with ThreadPoolExecutor(4) as pool:
        getters = [pool.submit(q.get) for _ in range(n)]
        for item in range(n):
            q.put(item)
        got = [getter.result(LIMIT) for getter in getters]
    assert sorted(item for item in got if item is not None) == list(range(n))


def test_hypothesis_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with stateful.nothing_left_behind():
        assert fault_against_model(WrongSize, 1) is not None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("queue_type", "capacity"), [(TooFewWakeUps, 1), (CheckThenAct, 2)]
)
def test_two_of_the_faults_need_their_capacity(
    queue_type: type[BoundedQueue], capacity: int
) -> None:
    assert len(list(sequences(queue_type, capacity, most=5))) > 50


# -- the virtual clock


async def now() -> float:
    return asyncio.get_running_loop().time()


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=8))
@example([0.3, 0.9])  # 0.3 + (0.9 - 0.3) is more than 0.9
def test_time_is_that_of_the_timers_and_all_come_in_order(delays: list[float]) -> None:
    async def main() -> list[tuple[float, float]]:
        woken: list[tuple[float, float]] = []

        async def sleep(delay: float) -> None:
            await asyncio.sleep(delay)
            woken.append((delay, await now()))

        await asyncio.gather(*map(sleep, delays))
        return woken

    woken = run(main())
    assert [delay for delay, _ in woken] == sorted(delays)
    assert all(at == delay for delay, at in woken)


def test_years_pass_and_a_timer_at_infinity_never_comes() -> None:
    async def main() -> float:
        forever = asyncio.create_task(asyncio.sleep(math.inf))
        await asyncio.sleep(10 * 365 * virtual.DAY)
        assert not forever.done()
        forever.cancel()
        return await now()

    assert run(main()) == 10 * 365 * virtual.DAY


def test_a_deadlock_names_all_that_wait() -> None:
    with pytest.raises(NothingCanHappenError) as raised:
        run(virtual.wait_for_each_other())
    first, *waits = str(raised.value).splitlines()
    assert first == "nothing is ready, and no timer is set"
    assert waits[0].startswith("A waits in forward() > Queue.get()")
    assert len(waits) == 3


def test_who_sleeps_for_ever_is_a_deadlock_too() -> None:
    with pytest.raises(NothingCanHappenError):
        run(asyncio.sleep(math.inf))


def test_a_time_out_ends_a_deadlock() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(7):
                await virtual.wait_for_each_other()
        return await now()

    assert run(main()) == 7


def test_the_clock_stands_still_while_threads_work() -> None:
    async def main() -> float:
        may_end = threading.Event()
        timer = asyncio.create_task(asyncio.sleep(1))
        work = asyncio.create_task(asyncio.to_thread(may_end.wait, LIMIT))
        other = asyncio.create_task(asyncio.to_thread(lambda: None))
        await other  # a wake-up, while the first thread works on
        for _ in range(20):
            await asyncio.sleep(0)
        assert not timer.done()
        may_end.set()
        assert await work
        assert await now() == 0
        await timer
        return await now()

    with no_thread_is_left():
        assert run(main()) == 1


def test_a_thread_that_asks_the_loop_is_answered() -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()

        async def answer() -> int:
            return 42

        def ask() -> int:
            return asyncio.run_coroutine_threadsafe(answer(), loop).result(LIMIT)

        return await asyncio.to_thread(ask)

    assert run(main()) == 42


def test_what_a_thread_raises_is_raised_and_the_clock_goes_on() -> None:
    async def main() -> float:
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(lambda: 1 // 0)
        await asyncio.sleep(5)
        return await now()

    assert run(main()) == 5


def test_a_thread_of_its_own_needs_the_clock_to_stand_still() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        future = loop.create_future()
        with loop.standing_still(), ThreadPoolExecutor(1) as pool:
            pool.submit(loop.call_soon_threadsafe, future.set_result, None)
            async with asyncio.timeout(1):
                await future
        return await now()

    assert run(main()) == 0


def test_a_thread_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual, "LIMIT", 0.05)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualClockLoop)
        with loop.standing_still():
            await loop.create_future()

    with pytest.raises(TimeoutError, match=r"0\.05 s"):
        run(main())


async def read_a_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        await asyncio.get_running_loop().sock_recv(ours, 1)


async def serve() -> None:
    await asyncio.start_server(lambda *_: None, "localhost", 0)


async def start_a_process() -> None:
    await asyncio.create_subprocess_exec("true")


@pytest.mark.parametrize(
    ("main", "name"),
    [
        (virtual.connect, "create_connection"),
        (read_a_socket, "sock_recv"),
        (serve, "create_server"),
        (start_a_process, "subprocess_exec"),
    ],
)
def test_real_io_is_refused(
    main: Callable[[], Coroutine[Any, Any, None]], name: str
) -> None:
    with pytest.raises(NotImplementedError, match=rf"no real I/O .*: {name}\(\)"):
        run(main())


def test_all_that_is_refused_is_a_method_of_event_loops() -> None:
    assert all(hasattr(asyncio.AbstractEventLoop, name) for name in virtual.REFUSED)
    io = (
        "sock_",
        "create_c",
        "create_s",
        "create_d",
        "create_u",
        "conn",
        "subp",
        "add",
    )
    methods = {
        name for name in vars(asyncio.AbstractEventLoop) if name.startswith(io)
    } | {"sendfile", "start_tls"}
    assert methods == set(virtual.REFUSED)


def test_tasks_and_generators_are_closed_at_the_end() -> None:
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.sleep(math.inf)
        finally:
            await asyncio.sleep(3)
            ended.append(f"at {await now():g}")

    async def main() -> None:
        task = asyncio.create_task(background())
        await asyncio.sleep(1)
        assert not task.done()

    run(main())
    assert ended == ["at 4"]


def test_retries_wait_twice_as_long_each_time() -> None:
    assert run(virtual.times_of_attempts()) == [0, 31, 33, 37, 45]


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_retries_end_with_the_last_failure(attempts: int) -> None:
    times: list[float] = []

    async def fail() -> None:
        times.append(await now())
        raise ConnectionResetError

    async def main() -> None:
        await virtual.retry(fail, attempts, delay=1, limit=30)

    with pytest.raises(ConnectionResetError):
        run(main())
    assert times == [0, 1, 3, 7][:attempts]


def test_another_error_is_not_tried_again_nor_is_a_cancel() -> None:
    calls: list[None] = []

    async def fail() -> None:
        calls.append(None)
        raise ZeroDivisionError

    async def cancelled() -> float:
        async def hang() -> None:
            await asyncio.sleep(math.inf)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3):
                await virtual.retry(hang, attempts=9, delay=1, limit=30)
        return await now()

    with pytest.raises(ZeroDivisionError):
        run(virtual.retry(fail, 5, 1, 30))
    assert len(calls) == 1
    assert run(cancelled()) == 3


def test_a_slow_caller_misses_ticks_but_not_their_times() -> None:
    async def main() -> list[float]:
        times = []
        ticks = virtual.ticks_fixed(10)
        async for _ in ticks:
            times.append(await now())
            if len(times) == 5:
                break
            await asyncio.sleep(25 if len(times) == 2 else 0)
        await ticks.aclose()
        return times

    assert run(main()) == [0, 10, 40, 50, 60]


def test_sleeping_between_jobs_drifts() -> None:
    times = run(virtual.times_of_runs(virtual.ticks_broken, 3000))
    assert times == [0, 650, 1300, 1950, 2600]


@pytest.mark.parametrize("days", [0, -1, 366])
def test_bad_days_are_refused(complaint: Callable[..., str], days: int) -> None:
    assert f"must be in 1 … 365, not {days}" in complaint(virtual, "--days", str(days))


# -- faults


def pair(
    plan: Plan, sleep: Callable[[float], object] | None = None
) -> tuple[FaultySocket, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(LIMIT)
    return FaultySocket(ours, plan, sleep or Clock().sleep), theirs


def test_each_call_has_its_fault_and_later_ones_have_none() -> None:
    stream, peer = pair(Plan((Pass(2), Pass(1)), (Pass(3),)))
    with closing(stream), peer:
        peer.sendall(b"abcdef")
        assert [stream.recv(9) for _ in range(3)] == [b"ab", b"c", b"def"]
        assert stream.send(b"uvwxyz") == 3
        assert stream.send(b"xyz") == 3
        assert receive(peer, 6) == b"uvwxyz"


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data))
    return data


def test_what_is_repeated_comes_twice() -> None:
    stream, peer = pair(Plan((Repeat(),), (Repeat(),)))
    with closing(stream), peer:
        peer.sendall(b"abc")
        assert [stream.recv(9), stream.recv(2), stream.recv(9)] == [b"abc", b"ab", b"c"]
        assert stream.send(b"xyz") == 3
        assert receive(peer, 6) == b"xyzxyz"


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        ((Pass(seconds=25),), [(b"abc", 25)]),
        ((Pass(1, 25), Pass(2, 9)), [(b"a", 25), (b"bc", 34)]),
    ],
)
def test_what_is_late_goes_on_in_the_next_call_and_no_call_takes_too_long(
    received: tuple[Pass, ...], expected: list[tuple[bytes, float]]
) -> None:
    clock = Clock()
    stream, peer = pair(Plan(received), clock.sleep)
    with closing(stream), peer:
        peer.sendall(b"abc")
        stream.settimeout(10)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                stream.recv(9)
        assert clock.now() == 20
        assert [(stream.recv(9), clock.now()) for _ in expected] == expected


def test_a_send_that_is_late_does_not_delay_a_recv() -> None:
    clock = Clock()
    stream, peer = pair(Plan(sent=(Pass(seconds=25),)), clock.sleep)
    with closing(stream), peer:
        peer.sendall(b"abc")
        stream.settimeout(10)
        with pytest.raises(TimeoutError):
            stream.send(b"xyz")
        assert (stream.recv(9), clock.now()) == (b"abc", 10)


def test_what_is_repeated_comes_whole_from_a_stream_that_takes_little() -> None:
    inner, peer = pair(Plan(sent=(Pass(1), Pass(1))))
    with closing(FaultySocket(inner, Plan(sent=(Repeat(),)))) as stream, peer:
        assert stream.send(b"xyz") == 3
        assert receive(peer, 6) == b"xyzxyz"


def test_what_is_repeated_in_part_is_not_lost() -> None:
    stream, peer = pair(Plan((Repeat(), Repeat())))
    with closing(stream), peer:
        peer.sendall(b"abc")
        sizes = [9, 2, 9]
        assert [stream.recv(size) for size in sizes] == [b"abc", b"ab", b"abc"]


@pytest.mark.parametrize("plan", [Plan((Drop(),)), Plan(sent=(Drop(),))])
def test_after_a_drop_nothing_comes_and_nothing_goes(plan: Plan) -> None:
    clock = Clock()
    stream, peer = pair(plan, clock.sleep)
    with closing(stream), peer:
        peer.sendall(b"abc")
        stream.settimeout(10)
        if plan.sent:
            assert stream.send(b"lost") == 4
        for _ in range(2):
            with pytest.raises(TimeoutError):
                stream.recv(9)
        assert stream.send(b"lost as well") == 12
        stream.close()
        assert clock.now() == 20
        with suppress(ConnectionResetError):  # abc was not read
            assert peer.recv(9) == b""


def test_who_would_wait_for_ever_is_told() -> None:
    stream, peer = pair(Plan((Drop(),)))
    with closing(stream), peer:
        peer.sendall(b"abc")
        with pytest.raises(RuntimeError, match="no time-out is set"):
            stream.recv(9)


@pytest.mark.parametrize("plan", [Plan((Reset(),)), Plan(sent=(Reset(),))])
def test_a_reset_ends_the_connection_for_both(plan: Plan) -> None:
    stream, peer = pair(plan)
    with closing(stream), peer:
        peer.sendall(b"abc")
        with pytest.raises(ConnectionResetError):
            stream.send(b"lost") if plan.sent else stream.recv(9)
        with suppress(ConnectionResetError):  # abc was not read
            assert peer.recv(9) == b""


def test_a_fault_of_recv_waits_for_the_peer() -> None:
    stream, peer = pair(Plan((Reset(),)))
    with closing(stream), peer, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(stream.recv, 9)
        assert not asked.done()
        peer.sendall(b"done")
        assert isinstance(asked.exception(LIMIT), ConnectionResetError)


def test_sendall_sends_all_in_pieces() -> None:
    stream, peer = pair(Plan(sent=(Pass(1), Pass(2), Pass(1))))
    with closing(stream), peer:
        sendall(stream, b"abcdefgh")
        assert receive(peer, 8) == b"abcdefgh"


def test_plans_are_the_same_for_the_same_seed_and_hold_all_faults() -> None:
    drawn = [[draw_plan(random.Random(n)) for n in range(200)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    of = {type(one) for plan in drawn[0] for one in (*plan.received, *plan.sent)}
    assert of == {Pass, Drop, Reset, Repeat}


def test_splits_are_all_ways_to_add_up() -> None:
    ways = list(splits(6))
    assert len(ways) == len(set(map(tuple, ways))) == 2**5
    assert all(sum(way) == 6 and min(way) >= 1 for way in ways)


@given(st.data(), st.lists(st.text(max_size=5)))
def test_lines_come_out_as_they_went_in(data: st.DataObject, lines: list[str]) -> None:
    lines = [line.replace("\n", "") for line in lines]
    sent = "".join(f"{line}\n" for line in lines).encode("utf-8", "ignore")
    expected = sent.decode().split("\n")[:-1]
    pieces = data.draw(st.lists(st.integers(1, 9), max_size=20))
    assert faulty_socket.read_split(lines_mended, sent, pieces) == expected


def test_the_broken_reader_is_right_in_one_way_only() -> None:
    sent = b"ab\nc\n"
    read = partial(faulty_socket.read_split, lines_broken, sent)
    assert [way for way in splits(5) if read(way) == ["ab", "c"]] == [[3, 2]]


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"half a li", "in the middle of a line"),
        (b"x" * 2000, "more than 200 bytes"),
        (b"\xff\n", "not UTF-8"),
    ],
)
def test_bad_lines_are_told(sent: bytes, complaint: str) -> None:
    stream, peer = pair(Plan())
    with closing(stream), peer:
        peer.sendall(sent)
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError, match=complaint):
            LineReader(stream).line()


@pytest.mark.parametrize("piece", [1, 7, 1024])
def test_how_long_a_line_may_be_does_not_depend_on_the_pieces(piece: int) -> None:
    def read(length: int) -> list[str] | None:
        sent = b"x" * length + b"\n"
        pieces = [piece] * (len(sent) // piece)
        return faulty_socket.read_split(lines_mended, sent, pieces)

    assert read(faulty_socket.MAX_LINE) == ["x" * faulty_socket.MAX_LINE]
    with pytest.raises(ConnectionError, match="more than 200 bytes"):
        read(faulty_socket.MAX_LINE + 1)


def test_a_deadline_that_has_passed_asks_for_no_more_bytes() -> None:
    clock = Clock()
    stream, peer = pair(Plan((Pass(1, seconds=9),) * 9), clock.sleep)
    with closing(stream), peer:
        peer.sendall(b"abc\n")
        reader = LineReader(stream, clock.now)
        with pytest.raises(TimeoutError):
            reader.line(20)
        assert clock.now() == 20
        with pytest.raises(TimeoutError):
            reader.line(20)
        assert clock.now() == 20
        assert reader.line(99) == "abc"  # what has come is not lost


def test_a_deadline_of_now_is_over() -> None:
    clock = Clock()
    stream, peer = pair(Plan(), clock.sleep)
    with closing(stream), peer, pytest.raises(TimeoutError):
        LineReader(stream, clock.now).line(clock.now())


def test_damage_to_a_message_is_seen() -> None:
    message = sealed(12, 345).decode().rstrip("\n")
    assert opened(message) == (12, 345)
    for n, other in itertools.product(range(len(message)), "05 x"):
        damaged = message[:n] + other + message[n + 1 :]
        assert damaged == message or opened(damaged) is None
        assert opened(message[:n] + message[n:] * 2) is None
        assert opened(message[:n]) is None


def test_the_bank_makes_a_deposit_once() -> None:
    bank = Bank()
    assert [bank.deposit(1, 10), bank.deposit(2, 5), bank.deposit(1, 10)] == [
        10,
        15,
        10,
    ]
    assert bank.balance == 15


def plans() -> st.SearchStrategy[Plan]:
    one = st.one_of(
        st.builds(Pass, st.integers(1, 20), st.integers(0, 15)),
        st.sampled_from([Drop(), Reset(), Repeat()]),
    )
    several = st.lists(one, max_size=8).map(tuple)
    return st.builds(Plan, several, several)


@given(st.lists(plans(), max_size=faults.TRIES - 1))
def test_the_mended_client_is_right_whatever_the_plans(drawn: list[Plan]) -> None:
    assert play(ClientMended, drawn)[0] == faults.RIGHT


@pytest.mark.parametrize("fault", [Drop(), Reset()])
def test_an_answer_that_is_lost_makes_the_broken_client_pay_twice(fault: Fault) -> None:
    assert play(ClientBroken, [Plan((fault,))])[0] == "has 223"


def test_a_drip_does_not_hold_the_mended_client_longer_than_its_patience() -> None:
    drip = Plan((Pass(1, seconds=9),) * 20)
    assert play(ClientMended, [drip]) == (faults.RIGHT, faulty_socket.PATIENCE)


def test_whoever_never_gets_through_is_told_so() -> None:
    lost = [Plan(sent=(Reset(),))] * 30
    for client_type in (ClientBroken, ClientMended):
        assert play(client_type, lost)[0] == "ConnectionError"


def test_a_client_that_gave_up_works_again_and_its_deposit_is_not_lost() -> None:
    bank, clock = Bank(), Clock()
    left = iter([Plan((Reset(),))] * faults.TRIES)

    def connect() -> FaultySocket:
        return FaultySocket(Connection(bank, clock), next(left, Plan()), clock.sleep)

    with closing(ClientMended(connect, clock.now)) as client:
        with pytest.raises(ConnectionError, match="in 10 tries"):
            client.deposit(5)
        assert bank.balance == 5  # made once, though nobody has heard of it
        assert client.deposit(2) == 7


@pytest.mark.parametrize("plans", [0, -3])
def test_bad_numbers_of_plans_are_refused(
    complaint: Callable[..., str], plans: int
) -> None:
    assert "must be at least 1" in complaint(faults, "--plans", str(plans))
