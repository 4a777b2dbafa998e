"""Chapter 13, locks and priorities: the parts a reader would copy."""

import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, NoReturn

import example05_barging as barging
import example06_ticket_lock as fair
import example07_priority_inversion as inversion
import example08_priority_inheritance as inheritance
import fixed_priority_scheduler as scheduler
import pytest
from example06_ticket_lock import FIFOLock, TicketLock
from fixed_priority_scheduler import (
    Compute,
    Lock,
    Protocol,
    Schedule,
    Step,
    Task,
    Unlock,
    simulate,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

LIMIT = 30.0  # seconds that a test waits for what must come

KINDS = [barging.BargingLock, TicketLock, FIFOLock]
each_kind = pytest.mark.parametrize("kind", KINDS)
PROTOCOLS: tuple[Protocol, ...] = ("none", "inheritance", "ceiling")
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


# -- all three locks


@each_kind
def test_one_thread_at_a_time(kind: Any) -> None:
    lock, inside, most = kind(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(100):
            with lock:
                seen = inside
                most = max(most, seen + 1)
                inside = int(seen) + 1
                inside -= 1

    with no_thread_is_left(), ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work) for _ in range(4)]:
            future.result(LIMIT)
    assert (most, inside) == (1, 0)


@each_kind
def test_an_exception_in_the_block_frees_the_lock(kind: Any) -> None:
    lock = kind()
    with pytest.raises(ZeroDivisionError), lock:
        _ = 1 / 0
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lock.acquire).result(LIMIT)


@pytest.mark.parametrize("kind", [TicketLock, FIFOLock])
def test_who_frees_a_free_lock_is_told(kind: Any) -> None:
    lock = kind()
    with pytest.raises(RuntimeError, match="free"):
        lock.release()
    with lock:
        pass
    with pytest.raises(RuntimeError, match="free"):
        lock.release()
    with lock:
        pass


# -- example05


@pytest.mark.parametrize("times", [0, 1, 2, 37, 500])
def test_a_waiter_is_overtaken_as_often_as_one_likes(times: int) -> None:
    with no_thread_is_left():
        log = barging.overtake(times)
    assert log == [*["A has it", "B looks"] * times, "B looks", "B has it"]


def test_who_is_not_overtaken_gets_the_lock_when_it_is_woken() -> None:
    woken: list[str] = []
    lock = barging.BargingLock(on_woken=lambda: woken.append("woken"))
    with ThreadPoolExecutor(1) as pool:
        with lock:
            waiter = pool.submit(lock.acquire)
            lock.until_waiting(LIMIT)
            assert not woken
        waiter.result(LIMIT)
    assert woken == ["woken"]


def until_waiting(lock: barging.BargingLock, n: int) -> None:
    with lock._changed:
        assert lock._changed.wait_for(lambda: len(lock._gates) == n, LIMIT)


def test_who_has_waited_longest_is_woken_first() -> None:
    lock = barging.BargingLock()
    order: list[int] = []

    def take(n: int) -> None:
        with lock:
            order.append(n)

    with no_thread_is_left(), ThreadPoolExecutor(3) as pool, lock:
        for n in range(3):
            pool.submit(take, n)
            until_waiting(lock, n + 1)
    assert order == [0, 1, 2]


def test_nobody_who_comes_to_wait_is_told() -> None:
    lock = barging.BargingLock()
    with lock, pytest.raises(TimeoutError, match="nobody waits"):
        lock.until_waiting(0.01)


def test_who_is_never_woken_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(barging, "LIMIT", 0.01)
    lock = barging.BargingLock()
    with lock, pytest.raises(TimeoutError, match="woken"):
        lock.acquire()


def test_who_gives_up_passes_the_wake_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up() -> None:
        if threading.current_thread().name.startswith("first"):
            raise InterruptedError

    lock = barging.BargingLock(on_woken=give_up)
    with (
        no_thread_is_left(),
        ThreadPoolExecutor(1, "first") as first,
        ThreadPoolExecutor(1, "second") as second,
    ):
        lock.acquire()
        gone = first.submit(lock.acquire)
        until_waiting(lock, 1)
        got = second.submit(lock.acquire)
        until_waiting(lock, 2)
        lock.release()
        assert isinstance(gone.exception(LIMIT), InterruptedError)
        assert got.result(LIMIT) is None
    lock.release()


def test_who_has_given_up_is_not_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    lock = barging.BargingLock()
    lock.acquire()
    monkeypatch.setattr(barging, "LIMIT", 0.01)
    with pytest.raises(TimeoutError, match="woken"):
        lock.acquire()
    monkeypatch.setattr(barging, "LIMIT", LIMIT)
    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        got = pool.submit(lock.acquire)
        until_waiting(lock, 1)
        lock.release()
        assert got.result(LIMIT) is None


def test_a_release_that_wakes_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def free(lock: Any) -> None:
        lock._held = False

    monkeypatch.setattr(barging, "LIMIT", 0.05)
    monkeypatch.setattr(barging.BargingLock, "release", free)
    with no_thread_is_left(), pytest.raises(SystemExit, match="B was to wait"):
        run_main(barging, monkeypatch)


def test_a_lock_that_is_handed_over_cannot_be_taken_again_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def hand_over(lock: Any) -> None:
        lock._held = bool(lock._gates)
        if lock._gates:
            lock._gates.popleft().release()

    monkeypatch.setattr(barging, "LIMIT", 0.05)
    monkeypatch.setattr(barging.BargingLock, "release", hand_over)
    with no_thread_is_left(), pytest.raises(SystemExit, match="B was to wait"):
        run_main(barging, monkeypatch)


def test_a_waiter_that_was_not_overtaken_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(barging, "overtake", lambda times: ["B looks", "B has it"])
    with pytest.raises(SystemExit, match="overtaken 100 times"):
        run_main(barging, monkeypatch)


@pytest.mark.parametrize("option", ["--overtakings", "--threads"])
@pytest.mark.parametrize("value", ["0", "-1", "100000", "1.5", "many"])
def test_options_of_barging_have_limits(
    complaint: Callable[..., str], option: str, value: str
) -> None:
    assert option in complaint(barging, option, value)


def test_jains_index_of_known_shares() -> None:
    assert barging.jain([3, 3, 3]) == 1
    assert barging.jain([1, 0, 0, 0]) == 0.25
    assert barging.jain([0, 0]) == 1
    assert barging.jain([1, 2]) == pytest.approx(0.9)


def test_who_contends_with_nobody_has_it_all() -> None:
    went = barging.contend(threading.Lock(), 1, duration=0.01)
    assert (went.longest_row, went.fairness) == (1, 1)


@pytest.mark.parametrize("n_threads", [2, 5])
def test_contention_ends_and_all_have_their_share(n_threads: int) -> None:
    with no_thread_is_left():
        went = barging.contend(threading.Lock(), n_threads, duration=0.01)
    assert went.rate > 0
    assert 0 < went.longest_row <= 1
    assert went.longest_wait >= 0
    assert 1 / n_threads <= went.fairness <= 1 + 1e-9


def test_a_lock_that_fails_ends_the_contention() -> None:
    class Failing:
        n = 0

        def __enter__(self) -> None:
            self.n += 1
            if self.n > 1:  # the first holds it until all others have come
                raise OSError("broken")

        def __exit__(self, *_: object) -> None:
            pass

    with no_thread_is_left(), pytest.raises(OSError, match="broken"):
        barging.contend(Failing(), 3, 0.01)


def test_ctrl_c_ends_the_contention(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(barging, "wait", interrupt)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        barging.contend(threading.Lock(), 2, duration=1000)


def test_ctrl_c_ends_the_overtaking(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(barging, "wait", interrupt)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        barging.overtake(1_000_000)


def test_who_is_handed_the_lock_is_never_overtaken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrived = threading.Semaphore(0)

    def until_one_waits(_: float) -> None:
        for _ in range(2):  # who holds the lock, and who waits for it
            assert arrived.acquire(timeout=LIMIT)

    lock: Any = FIFOLock(on_arrival=arrived.release)
    monkeypatch.setattr(barging, "time", SimpleNamespace(sleep=until_one_waits))
    assert barging.share_overtaken(lock, 1.0, rounds=1) == 0


# -- example06


@pytest.mark.parametrize("kind", [TicketLock, FIFOLock])
@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_first_come_first_served(kind: Any, n: int) -> None:
    with no_thread_is_left():
        assert fair.order_of_service(kind, n) == [*range(n + 1), 0]


@pytest.mark.parametrize("impatient", [1, 2, 3])
def test_who_gives_up_leaves_the_others_their_order(impatient: int) -> None:
    with no_thread_is_left():
        order = fair.order_of_service(FIFOLock, 3, impatient)
    assert order == [me for me in (0, 1, 2, 3, 0) if me != impatient]


def test_numbers_are_drawn_and_called_one_by_one() -> None:
    lock = TicketLock()
    for n in range(5):
        assert (lock.next_ticket, lock.now_serving) == (n, n)
        with lock:
            assert (lock.next_ticket, lock.now_serving) == (n + 1, n)


def test_a_number_that_nobody_answers_stops_all_after_it() -> None:
    arrived = threading.Semaphore(0)
    lock = fair.leave(TicketLock)
    lock._on_arrival = arrived.release
    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        after = pool.submit(lock.acquire)
        assert arrived.acquire(timeout=LIMIT)
        assert (lock.now_serving, lock.next_ticket) == (1, 3)
        assert not after.done()
        lock.release()  # in the stead of number 1
        after.result(LIMIT)
        assert lock.now_serving == 2


def test_a_free_lock_is_got_without_waiting() -> None:
    lock = FIFOLock()
    assert lock.acquire(timeout=0)
    assert not lock.acquire(timeout=0)
    assert not lock.acquire(timeout=0.01)
    lock.release()
    assert lock.acquire()


@pytest.mark.parametrize("timeout", [-2, -0.5, 1e30])
@pytest.mark.parametrize("held", [False, True])
def test_a_time_out_that_cannot_be_leaves_the_lock_as_it_was(
    timeout: float, held: bool
) -> None:
    lock = FIFOLock()
    if held:
        lock.acquire()
    with pytest.raises((ValueError, OverflowError)):
        lock.acquire(timeout=timeout)
    assert lock.acquire(timeout=0) != held


def test_who_was_interrupted_on_arrival_is_forgotten() -> None:
    lock = fair.leave(FIFOLock)
    assert lock.acquire(timeout=0)


def test_who_was_interrupted_with_the_lock_just_got_gives_it_back() -> None:
    def interrupt() -> NoReturn:
        raise InterruptedError

    lock = FIFOLock(on_arrival=interrupt)
    with pytest.raises(InterruptedError):
        lock.acquire()
    with pytest.raises(RuntimeError, match="free"):
        lock.release()


class LateGate:
    """A lock for whose waiters time runs out, and who notice it late.

    Args:
        meanwhile: called between the end of the time and the noticing.
    """

    def __init__(self, meanwhile: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._meanwhile = meanwhile
        self.release = self._lock.release

    def acquire(self, timeout: float = -1) -> bool:
        got = self._lock.acquire(timeout=timeout)
        if not got:
            self._meanwhile()
        return got


def test_who_gives_up_as_its_gate_is_opened_passes_the_lock_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arrived = threading.Semaphore(0)
    lock = FIFOLock(on_arrival=arrived.release)
    behind: list[Future[bool]] = []

    def one_comes_and_the_holder_goes() -> None:
        behind.append(pool.submit(lock.acquire, timeout=LIMIT))
        for _ in range(3):  # the holder, the one that gives up, and the one behind
            assert arrived.acquire(timeout=LIMIT)
        lock.release()

    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        lock.acquire()
        make, late = threading.Lock, [LateGate(one_comes_and_the_holder_goes)]
        fake = SimpleNamespace(Lock=lambda: late.pop() if late else make())
        monkeypatch.setattr(fair, "threading", fake)
        assert not lock.acquire(timeout=0.01)
        assert behind[0].result(LIMIT)
        assert not lock.acquire(timeout=0)
        lock.release()
    assert lock.acquire(timeout=0)


@pytest.mark.usefixtures("no_collections")
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_ends_the_wait_of_the_main_thread_and_of_nobody_else() -> None:
    """Sent again until it is noticed: CPython overlooks one just before a wait."""
    main = threading.main_thread()
    if threading.current_thread() is not main:
        pytest.skip("needs the main thread")
    arrived = threading.Semaphore(0)
    lock = FIFOLock(on_arrival=arrived.release)
    interrupted: list[bool] = []
    waits_no_more = threading.Event()

    def on_first(*_: object) -> None:
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    def interrupt_main() -> Future[bool]:
        for _ in range(2):  # the holder, and the main thread
            assert arrived.acquire(timeout=LIMIT)
        behind = pool.submit(lock.acquire, timeout=LIMIT)
        assert arrived.acquire(timeout=LIMIT)
        while not waits_no_more.wait(0.01):
            assert main.ident is not None
            signal.pthread_kill(main.ident, signal.SIGINT)
        return behind

    handler = signal.signal(signal.SIGINT, on_first)
    try:
        with no_thread_is_left(), ThreadPoolExecutor(2) as pool:
            lock.acquire()
            behind = pool.submit(interrupt_main)
            try:
                with pytest.raises(KeyboardInterrupt):
                    lock.acquire()
            finally:
                waits_no_more.set()
            lock.release()
            assert behind.result(LIMIT).result(LIMIT)
            lock.release()
        assert lock.acquire(timeout=0)
    finally:
        signal.signal(signal.SIGINT, handler)


@settings(max_examples=10)
@given(st.lists(st.lists(st.integers(0, 20), max_size=30), min_size=1, max_size=4))
def test_no_wake_up_is_lost_whoever_gives_up_when(patience: list[list[int]]) -> None:
    lock = FIFOLock()
    holders: list[int] = []

    def come_and_go(mine: list[int]) -> None:
        for ticks in mine:
            if lock.acquire(timeout=ticks * 1e-5 if ticks else LIMIT):
                holders.append(1)
                assert len(holders) == 1
                holders.clear()
                lock.release()

    with no_thread_is_left(), ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(come_and_go, mine) for mine in patience]
        for future in futures:
            future.result(LIMIT)
    assert lock.acquire(timeout=0)


def test_a_lock_that_serves_in_another_order_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = fair.order_of_service

    def last_come_first_served(*arguments: Any) -> list[int]:
        return real(*arguments)[::-1]

    monkeypatch.setattr(fair, "order_of_service", last_come_first_served)
    with pytest.raises(SystemExit, match="TicketLock was to serve first"):
        run_main(fair, monkeypatch)


def test_a_lock_that_calls_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair, "LIMIT", 0.05)
    monkeypatch.setattr(fair, "KINDS", (FIFOLock,))
    monkeypatch.setattr(FIFOLock, "_pass_on", lambda lock: None)
    with pytest.raises(SystemExit, match="a wait did not end"):
        run_main(fair, monkeypatch)


def test_a_lock_with_a_hole_in_its_queue_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = fair.order_of_service

    def order_of_service(kind: Any, n: int, impatient: int | None = None) -> list[int]:
        if impatient is not None:  # those behind it wait in vain
            monkeypatch.setattr(fair, "LIMIT", 0.5)
        return plain(kind, n, impatient)

    monkeypatch.setattr(fair, "order_of_service", order_of_service)
    monkeypatch.setattr(FIFOLock, "_withdraw", lambda lock, gate: None)
    with pytest.raises(SystemExit, match="a wait did not end"):
        run_main(fair, monkeypatch)


@pytest.mark.parametrize("value", ["1", "21", "-1", "2.5", "many"])
def test_threads_have_limits(complaint: Callable[..., str], value: str) -> None:
    assert "--threads" in complaint(fair, "--threads", value)


# -- fixed_priority_scheduler


def section(mutex: str, ticks: int) -> list[Step]:
    return [Lock(mutex), Compute(ticks), Unlock(mutex)]


def rows(schedule: Schedule) -> list[str]:
    return [row.rstrip() for row in schedule.rows.values()]


def test_no_task_needs_no_tick() -> None:
    schedule = simulate([], "")
    assert (schedule.timeline, schedule.response) == ((), {})


def test_the_most_urgent_runs_and_preempts_at_once() -> None:
    tasks = [
        Task("high", 3, 2, [Compute(2)], deadline=2),
        Task("middle", 2, 1, [Compute(2)], deadline=3),
        Task("low", 1, 0, [Compute(2)]),
    ]
    schedule = simulate(tasks, "")
    assert rows(schedule) == ["  ##", " #..#", "#....#"]
    assert schedule.response == {"high": 2, "middle": 4, "low": 6}
    assert schedule.missed == ("middle",)
    assert not any(schedule.blocked.values())
    assert schedule.deadlock == ()


def test_the_processor_is_idle_if_nobody_is_there() -> None:
    schedule = simulate([Task("one", 1, 2, [Compute(1)])], "")
    assert schedule.timeline == (None, None, "one")


def test_steps_without_ticks_take_no_time() -> None:
    nothing = [Lock("a"), Unlock("a")]
    tasks = [
        Task("high", 2, 1, nothing, deadline=0),
        Task("low", 1, 0, [*section("a", 2), Lock("b"), Unlock("b")]),
    ]
    schedule = simulate(tasks, "ab")
    assert schedule.response == {"high": 1, "low": 2}
    assert schedule.missed == ("high",)
    assert simulate(tasks[:1], "a").response == {"high": 0}


def test_a_mutex_is_given_back_at_the_end_of_the_tick() -> None:
    tasks = [
        Task("high", 3, 2, section("a", 1)),
        Task("middle", 2, 2, [Compute(5)]),
        Task("low", 1, 0, section("a", 2)),
    ]
    schedule = simulate(tasks, "a")
    assert rows(schedule) == ["  a", "  .#####", "aa"]


@pytest.mark.parametrize(
    ("protocol", "expected"),
    [
        ("none", ["   ~~~~~b", "  ####", "bb....bb"]),
        ("inheritance", ["   ~~b", "  #...###", "bb.bb"]),
        ("ceiling", ["   ~b", "  ...####", "bbbb"]),
    ],
)
def test_known_schedules(protocol: Protocol, expected: list[str]) -> None:
    tasks = [
        Task("high", 3, 3, section("b", 1)),
        Task("middle", 2, 2, [Compute(4)]),
        Task("low", 1, 0, section("b", 4)),
    ]
    assert rows(simulate(tasks, "b", protocol)) == expected


def chain_of(n: int) -> list[Task]:
    """Return n + 1 tasks of which each needs what the next one holds, and one beside.

    That one is less urgent than the first task, and more urgent than all others.
    """
    tasks = [Task("0", n + 2, n, section("m1", 1))]
    for k in range(1, n + 1):
        inner = section(f"m{k + 1}", 1) if k < n else [Compute(n + 3)]
        program = [Lock(f"m{k}"), Compute(1), *inner, Unlock(f"m{k}")]
        tasks.append(Task(str(k), n + 1 - k, n - k, program))
    return [*tasks, Task("beside", n + 1, n + 1, [Compute(50)])]


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("protocol", ["none", "inheritance"])
def test_inheritance_goes_along_a_chain(protocol: Protocol, n: int) -> None:
    mutexes = [f"m{k}" for k in range(1, n + 1)]
    schedule = simulate(chain_of(n), mutexes, protocol)
    before_its_end = schedule.timeline[: n + schedule.response["0"]]
    assert before_its_end.count("beside") == (50 if protocol == "none" else 0)
    assert schedule.blocking("0") == schedule.response["0"] - 1


def test_inheritance_ends_with_the_unlock_of_that_mutex() -> None:
    two = [*(Lock("a"), Lock("b"), Compute(2)), Unlock("b"), Compute(2), Unlock("a")]
    tasks = [
        Task("high", 3, 1, section("b", 1)),
        Task("middle", 2, 1, [Compute(3)]),
        Task("low", 1, 0, two),
    ]
    schedule = simulate(tasks, "ab", "inheritance")
    assert rows(schedule) == [" ~b", " ..###", "bb....aa"]


def test_who_inherits_has_the_greatest_priority_of_all_that_wait() -> None:
    tasks = [
        Task("high", 4, 1, section("a", 1)),
        Task("middle", 3, 1, [Compute(1)]),
        Task("other", 2, 1, section("b", 1)),
        Task("low", 1, 0, [Lock("b"), *section("a", 2), Compute(1), Unlock("b")]),
    ]
    schedule = simulate(tasks, "ab", "inheritance")
    assert rows(schedule) == [" ~a", " ..#", " ~~~~b", "aa..b"]


def test_a_ceiling_is_that_of_the_most_urgent_task_that_locks_the_mutex() -> None:
    tasks = [
        Task("high", 4, 1, [Compute(1)]),
        Task("user", 3, 1, section("a", 1)),
        Task("middle", 2, 1, [Compute(1)]),
        Task("low", 1, 0, section("a", 3)),
    ]
    schedule = simulate(tasks, "a", "ceiling")
    assert rows(schedule) == [" #", " ~~~a", " ....#", "a.aa"]


def test_two_orders_are_a_deadlock_unless_there_are_ceilings() -> None:
    tasks = inheritance.two_orders()
    for protocol in ("none", "inheritance"):
        schedule = simulate(tasks, "ab", protocol)
        assert schedule.deadlock == ("high", "low")
        assert schedule.response == {}
        assert schedule.timeline == ("low", "high", "low")
    schedule = simulate(tasks, "ab", "ceiling")
    assert schedule.deadlock == ()
    assert schedule.response == {"high": 4, "low": 3}


def test_who_waits_for_a_deadlocked_task_is_not_in_the_cycle() -> None:
    outside = Task("outside", 3, 2, section("b", 1))
    schedule = simulate([outside, *inheritance.two_orders()], "ab")
    assert schedule.deadlock == ("low", "high")


def test_a_deadlock_misses_all_deadlines_of_those_in_it() -> None:
    tasks = [
        Task(task.name, task.priority, task.release, task.program, 1000)
        for task in inheritance.two_orders()
    ]
    assert simulate(tasks, "ab").missed == ("high", "low")
    assert simulate(tasks, "ab", "ceiling").missed == ()


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([Compute(0)], "task computes for 0 ticks"),
        ([Compute(-1)], "task computes for -1 ticks"),
        ([], "task does nothing"),
        (section("c", 1), "task locks c, which is unknown"),
        ([Lock("a"), *section("a", 1)], "task locks a, which it holds"),
        ([Unlock("a")], "task unlocks a, which it does not hold"),
        ([*section("a", 1), Unlock("a")], "task unlocks a, which it does not hold"),
        ([Lock("a"), Unlock("b")], "task unlocks b, which it does not hold"),
        ([Lock("b"), Compute(1)], "task ends while it holds b"),
    ],
)
@each_protocol
def test_a_wrong_program_is_an_error(
    protocol: Protocol, program: list[Step], message: str
) -> None:
    good = Task("good", 2, 0, section("a", 1))
    with pytest.raises(ValueError, match=message):
        simulate([good, Task("task", 1, 0, program)], "ab", protocol)


def test_tasks_have_different_names_and_priorities() -> None:
    one = Task("one", 1, 0, [Compute(1)])
    with pytest.raises(ValueError, match="same name"):
        simulate([one, Task("one", 2, 0, [Compute(1)])], "")
    with pytest.raises(ValueError, match="same priority"):
        simulate([one, Task("two", 1, 0, [Compute(1)])], "")
    with pytest.raises(ValueError, match="before the first tick"):
        simulate([Task("one", 1, -1, [Compute(1)])], "")


def test_an_unknown_protocol_is_an_error() -> None:
    unknown: Any = "prayer"
    with pytest.raises(ValueError, match="no protocol prayer"):
        simulate([], "", unknown)


def test_a_schedule_is_drawn_with_a_scale() -> None:
    tasks = [Task("one", 2, 1, [Compute(1)]), Task("longer", 1, 0, section("x", 10))]
    assert scheduler.draw(simulate(tasks, "x")) == [
        "tick    0         10",
        "one      #",
        "longer  x.xxxxxxxxx",
    ]


@each_protocol
def test_the_tool_shows_a_schedule_that_was_found_by_hand(
    protocol: Protocol,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_main(scheduler, monkeypatch, "--protocol", protocol)
    late = "too late" if protocol == "none" else "in time"
    assert capsys.readouterr().out.endswith(f"{late}\n")
    monkeypatch.setattr(scheduler, "BY_HAND", {protocol: (1, 1)})
    with pytest.raises(SystemExit, match="by hand"):
        run_main(scheduler, monkeypatch, "--protocol", protocol)


MUTEXES = "abc"
ticks = st.integers(1, 4)


def sections(mutexes: str) -> st.SearchStrategy[list[Step]]:
    """Make critical sections, with others of `mutexes` inside of some."""

    def enclose(mutex: str) -> st.SearchStrategy[list[Step]]:
        others = mutexes.replace(mutex, "")
        inner = st.just([]) if not others else st.just([]) | sections(others)
        return st.builds(
            lambda before, inside, after: [
                *(Lock(mutex), Compute(before)),
                *inside,
                *(Compute(after), Unlock(mutex)),
            ],
            ticks,
            inner,
            ticks,
        )

    return st.sampled_from(sorted(mutexes)).flatmap(enclose)


def flat_sections() -> st.SearchStrategy[list[Step]]:
    return st.builds(section, st.sampled_from(MUTEXES), ticks)


@st.composite
def task_sets(draw: st.DrawFn, parts: st.SearchStrategy[list[Step]]) -> list[Task]:
    """Make two to five tasks of ticks and `parts`."""
    n = draw(st.integers(2, 5))
    part = st.builds(lambda n: [Compute(n)], ticks) | parts
    programs = draw(
        st.lists(st.lists(part, min_size=1, max_size=4), min_size=n, max_size=n)
    )
    priorities = draw(st.permutations(range(n)))
    return [
        Task(
            name=f"task {k}",
            priority=priorities[k],
            release=draw(st.integers(0, 12)),
            program=[step for part in program for step in part],
        )
        for k, program in enumerate(programs)
    ]


class Replay:
    """Follows a timeline, and finds whether it was possible and right.

    A critical section is entered in the tick in which its task runs first, and left
    with its last tick: all sections of these tests have ticks at both ends.
    """

    def __init__(self, tasks: list[Task]) -> None:
        self.tasks = {task.name: task for task in tasks}
        self.left: dict[str, list[Step]] = {}
        for task in tasks:
            self.left[task.name] = []
            for step in task.program:
                single = isinstance(step, Compute)
                many = step.ticks if isinstance(step, Compute) else 1
                self.left[task.name] += [Compute(1)] * many if single else [step]
        self.holders: dict[str, str] = {}

    def can_run(self, name: str) -> bool:
        step = self.left[name][0]
        return not isinstance(step, Lock) or step.mutex not in self.holders

    def run(self, name: str) -> None:
        left = self.left[name]
        while isinstance(step := left.pop(0), Lock):
            assert step.mutex not in self.holders, "held by two"
            self.holders[step.mutex] = name
        assert isinstance(step, Compute)
        while left and isinstance(unlock := left[0], Unlock):
            assert self.holders.pop(unlock.mutex) == name
            left.pop(0)


@settings(max_examples=25)
@given(task_sets(sections(MUTEXES)), st.sampled_from(PROTOCOLS))
def test_every_schedule_is_possible_and_wastes_no_tick(
    tasks: list[Task], protocol: Protocol
) -> None:
    schedule = simulate(tasks, MUTEXES, protocol)
    replay = Replay(tasks)
    blocked: dict[str, list[int]] = {task.name: [] for task in tasks}
    for tick, runner in enumerate(schedule.timeline):
        ready = {
            name: task.priority
            for name, task in replay.tasks.items()
            if task.release <= tick and replay.left[name]
        }
        for name in ready:
            if runner and ready[name] > ready[runner]:
                blocked[name].append(tick)
        can_run = [name for name in ready if replay.can_run(name)]
        assert (runner is None) == (not can_run)
        if runner is None:
            continue
        assert runner in can_run
        if protocol == "none":
            assert runner == max(can_run, key=lambda name: ready[name])
        replay.run(runner)
        if not replay.left[runner]:
            end = replay.tasks[runner].release + schedule.response[runner]
            assert end == tick + 1
    for name, intervals in schedule.blocked.items():
        assert [tick for interval in intervals for tick in interval] == blocked[name]
        assert bool(replay.left[name]) == (name not in schedule.response)
    assert bool(schedule.deadlock) == any(replay.left.values())


def outermost(task: Task) -> list[tuple[int, set[str]]]:
    """Return the length and the mutexes of each outermost critical section."""
    found: list[tuple[int, set[str]]] = []
    depth = 0
    for step in task.program:
        match step:
            case Lock(mutex):
                if not depth:
                    found.append((0, set()))
                depth += 1
                found[-1][1].add(mutex)
            case Unlock():
                depth -= 1
            case Compute(n) if depth:
                found[-1] = (found[-1][0] + n, found[-1][1])
    return found


def may_block(task: Task, tasks: list[Task]) -> dict[str, int]:
    """Return by less urgent task its longest section that may block `task`, in ticks.

    Such a section has a mutex that `task`, or one that is more urgent, locks as well.
    """
    wanted = {
        step.mutex
        for one in tasks
        if one.priority >= task.priority
        for step in one.program
        if isinstance(step, Lock)
    }
    return {
        one.name: max(
            (length for length, mutexes in outermost(one) if mutexes & wanted),
            default=0,
        )
        for one in tasks
        if one.priority < task.priority
    }


@settings(max_examples=25)
@given(task_sets(flat_sections()))
def test_inheritance_blocks_for_a_section_of_each_less_urgent_task_at_most(
    tasks: list[Task],
) -> None:
    schedule = simulate(tasks, MUTEXES, "inheritance")
    assert not schedule.deadlock
    for task in tasks:
        longest = may_block(task, tasks)
        for name, limit in longest.items():
            ran = [
                tick
                for interval in schedule.blocked[task.name]
                for tick in interval
                if schedule.timeline[tick] == name
            ]
            assert len(ran) <= limit
        assert schedule.blocking(task.name) <= sum(longest.values())


@settings(max_examples=25)
@given(task_sets(sections(MUTEXES)))
def test_a_ceiling_blocks_for_one_section_and_before_the_task_begins(
    tasks: list[Task],
) -> None:
    schedule = simulate(tasks, MUTEXES, "ceiling")
    assert not schedule.deadlock
    for task in tasks:
        longest = may_block(task, tasks)
        assert schedule.blocking(task.name) <= max(longest.values(), default=0)
        begin = schedule.timeline.index(task.name)
        assert all(max(one) < begin for one in schedule.blocked[task.name])
        assert len(inheritance.blockers(schedule, task.name)) <= 1


# -- example07


@settings(max_examples=25)
@given(st.integers(0, 200))
def test_each_tick_of_communications_is_a_tick_of_waiting(length: int) -> None:
    assert inversion.blocking(length) == 2 + length
    assert inversion.blocking(length, later=1) == 2


@pytest.mark.parametrize("length", range(1, 10))
def test_the_watchdog_resets_if_communications_are_long(length: int) -> None:
    schedule = simulate(inversion.pathfinder(length), ["bus"])
    assert bool(schedule.missed) == (2 + length + 2 > inversion.DEADLINE)


def test_without_inversion_the_demonstration_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def mended(tasks: list[Task], mutexes: list[str]) -> Schedule:
        return simulate(tasks, mutexes, "inheritance")

    monkeypatch.setattr(inversion, "simulate", mended)
    with pytest.raises(SystemExit, match="were to cost as many"):
        run_main(inversion, monkeypatch)


def test_who_comes_later_and_does_harm_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = inversion.blocking
    monkeypatch.setattr(inversion, "blocking", lambda n, later=0: real(n))
    with pytest.raises(SystemExit, match="do no harm"):
        run_main(inversion, monkeypatch)


@pytest.mark.parametrize("module", [inversion, inheritance])
@pytest.mark.parametrize("value", ["0", "61", "-1", "1.5", "long"])
def test_length_has_limits(
    complaint: Callable[..., str], module: Any, value: str
) -> None:
    assert "--length" in complaint(module, "--length", value)


# -- example08


@settings(max_examples=25)
@given(st.integers(0, 200), st.sampled_from(PROTOCOLS[1:]))
def test_the_wait_for_the_bus_has_a_bound(length: int, protocol: Protocol) -> None:
    schedule = simulate(inversion.pathfinder(length), ["bus"], protocol)
    assert schedule.blocking(inversion.BUS) == 2
    assert not schedule.missed


def test_blockers_are_named_once_and_in_order() -> None:
    schedule = simulate(inheritance.chain(), "ab", "inheritance")
    assert inheritance.blockers(schedule, "high") == ["middle", "low"]
    assert inheritance.blockers(schedule, "low") == []


@pytest.mark.parametrize(
    ("instead_of", "by", "message"),
    [
        ("inheritance", "none", "inheritance: blocked for up to 62 ticks"),
        ("none", "ceiling", "none: blocked for up to 2 ticks"),
        ("inheritance", "ceiling", "middle.* were to block high"),
        ("ceiling", "inheritance", "low.* were to block high"),
    ],
)
def test_a_protocol_that_does_not_do_its_duty_is_told(
    monkeypatch: pytest.MonkeyPatch, instead_of: str, by: Protocol, message: str
) -> None:
    def other(tasks: list[Task], mutexes: Any, protocol: Protocol) -> Schedule:
        return simulate(tasks, mutexes, by if protocol == instead_of else protocol)

    monkeypatch.setattr(inheritance, "simulate", other)
    with pytest.raises(SystemExit, match=message):
        run_main(inheritance, monkeypatch)


def test_a_deadlock_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inheritance, "two_orders", inheritance.chain)
    with pytest.raises(SystemExit, match="only inheritance"):
        run_main(inheritance, monkeypatch)


def test_demonstrations_leave_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (barging, fair):
        with no_thread_is_left():
            run_main(module, monkeypatch)
