"""Chapter 12, livelock and waiting in vain: the parts a reader would copy."""

import asyncio
import gc
import multiprocessing
import queue
import random
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import partial
from multiprocessing.queues import Queue
from typing import Any, NoReturn

import example08_polite_spouses_livelock as livelock
import example15_self_deadlock_and_rlock as selves
import example16_pool_that_waits_for_itself as pools
import example17_join_before_the_queue_is_drained as drains
import example18_asyncio_deadlock as tasks_
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

LIMIT = 30.0  # seconds that a test waits for what must come


def nothing() -> None:
    pass


# -- example08


@pytest.mark.parametrize("most", [1, 2, 7, 300])
def test_who_always_gives_way_never_eats(most: int) -> None:
    with no_thread_is_left():
        dinner = livelock.dine_together(livelock.never, most)
    assert dinner.meals == []
    assert dinner.gave_way == [most - most // 2, most // 2]


@pytest.mark.parametrize("patience", [0, 1, 5, 50])
def test_patience_ends_when_both_have_given_way_so_often(patience: int) -> None:
    dinner = livelock.dine_together(livelock.after(patience))
    assert dinner.gave_way == [patience, patience]
    assert dinner.meals == [0, 1]


@pytest.mark.parametrize("elder", [0, 1])
def test_the_elder_eats_first(elder: int) -> None:
    dinner = livelock.dine_together(livelock.by_rank(elder))
    assert dinner.meals == [elder, 1 - elder]
    assert sum(dinner.gave_way) == elder


@given(st.lists(st.booleans(), max_size=20))
def test_who_insists_eats_and_then_the_other(decisions: list[bool]) -> None:
    answers = iter(decisions)
    dinner = livelock.dine_together(lambda me, gave_way: next(answers, True))
    hand_overs = [*decisions, True].index(True)
    assert sum(dinner.gave_way) == hand_overs
    assert dinner.meals == [hand_overs % 2, 1 - hand_overs % 2]


@pytest.mark.parametrize("seed", range(5))
def test_chance_gives_way_as_often_as_the_generator_says(seed: int) -> None:
    dinner = livelock.dine_together(livelock.by_chance(random.Random(seed)))
    generator = random.Random(seed)
    assert sum(dinner.gave_way) == next(
        n for n in range(1000) if generator.random() < 0.5
    )
    assert sorted(dinner.meals) == [0, 1]


def test_how_often_one_has_given_way_is_what_the_rule_is_asked_with() -> None:
    asked = []

    def note(me: int, gave_way: int) -> bool:
        asked.append((me, gave_way))
        return False

    livelock.dine_together(note, 4)
    assert asked == [(0, 0), (1, 0), (0, 1), (1, 1)]


def test_a_rule_that_fails_ends_the_dinner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(livelock, "LIMIT", 1000.0)  # the other does not wait for that

    def fail(me: int, gave_way: int) -> NoReturn:
        raise ArithmeticError("cannot tell")

    with no_thread_is_left(), pytest.raises(ArithmeticError):
        livelock.dine_together(fail)


def test_a_spouse_without_a_spoon_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(livelock, "LIMIT", 0.01)
    with pytest.raises(TimeoutError, match="no spoon for Ben"):
        livelock.Dinner(livelock.never, 10).dine(1)


def test_nobody_waits_after_the_end() -> None:
    dinner = livelock.Dinner(livelock.never, 10)
    with ThreadPoolExecutor(1) as thread:
        ben = thread.submit(dinner.dine, 1)
        dinner.end()
        ben.result(LIMIT)
    dinner.end()
    assert (dinner.meals, dinner.gave_way) == ([], [0, 0])


def test_a_dinner_of_no_hand_overs_is_an_error() -> None:
    with pytest.raises(ValueError, match="at most 0"):
        livelock.dine_together(livelock.never, 0)


@pytest.mark.parametrize("patience", ["-1", "500", "much"])
def test_patience_has_its_limits(complaint: Callable[..., str], patience: str) -> None:
    assert "--patience" in complaint(livelock, "--patience", patience)


after, by_rank = livelock.after, livelock.by_rank


@pytest.mark.parametrize(
    ("rule", "instead"),
    [
        ("never", by_rank(1)),
        ("after", lambda patience: after(patience + 1)),
        ("by_rank", lambda elder: by_rank(1 - elder)),
        ("by_chance", lambda generator: livelock.never),
    ],
)
def test_a_dinner_that_goes_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, rule: str, instead: Any
) -> None:
    monkeypatch.setattr(livelock, "DINNERS", 3)
    monkeypatch.setattr(livelock, rule, instead)
    with pytest.raises(SystemExit, match=r"there were to be|let both eat"):
        run_main(livelock, monkeypatch)


def test_processor_time_is_that_of_the_dinner_alone() -> None:
    def burn_then_eat(dinner: livelock.Dinner) -> None:
        while time.thread_time() < 0.2:
            pass
        dinner.dine(0)

    dinner = livelock.Dinner(lambda me, gave_way: True, 10)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(burn_then_eat, dinner).result(LIMIT)
    assert dinner.meals == [0]
    assert dinner.processor_time < 0.1


# -- example15


def bank_of(
    lock: Any, on_change: Callable[[], object] = nothing, layers: bool = False
) -> selves.Bank:
    kind = selves.LayeredBank if layers else selves.Bank
    return kind({"Ann": 100, "Bob": 0}, lock, on_change)


def test_a_thread_that_wants_its_own_lock_waits_until_it_gives_up() -> None:
    lock = selves.NotedLock()
    bank = bank_of(lock)
    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        future = pool.submit(bank.transfer, "Ann", "Bob", 30)
        thread = lock.waits_for_itself(LIMIT)
        assert thread is not None
        file = selves.Bank.change.__code__.co_filename
        assert selves.functions_of(thread, file) == ["transfer", "change", "__enter__"]
        assert not future.done()
        lock.give_up()
        assert isinstance(future.exception(LIMIT), selves.DeadlockError)


def test_who_waits_for_another_does_not_wait_for_himself() -> None:
    lock = selves.NotedLock()
    entered = []

    def enter() -> None:
        with lock:
            entered.append(threading.current_thread())

    with ThreadPoolExecutor(1) as pool:
        with lock:
            future = pool.submit(enter)
            assert lock.waits_for_itself(0.02) is None
            assert not entered
        future.result(LIMIT)
    assert len(entered) == 1


def test_to_give_up_lets_everybody_out_and_nobody_in() -> None:
    lock = selves.NotedLock()
    holds, may_go_on = threading.Event(), threading.Event()
    got_in = []

    def enter_twice() -> None:
        with lock:
            holds.set()
            may_go_on.wait(LIMIT)
            with lock:
                got_in.append("twice")

    def enter() -> None:
        with lock:
            got_in.append("once")

    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(enter_twice)]
        assert holds.wait(LIMIT)
        futures += [pool.submit(enter) for _ in range(2)]
        may_go_on.set()
        assert lock.waits_for_itself(LIMIT) is not None
        lock.give_up()
        lock.give_up()
        errors = [future.exception(LIMIT) for future in futures]
    assert [type(error) for error in errors] == [selves.DeadlockError] * 3
    assert got_in == []
    assert not lock._lock.locked()


def test_given_up_before_anybody_came_nobody_gets_in() -> None:
    lock = selves.NotedLock()
    lock.give_up()
    with pytest.raises(selves.DeadlockError), lock:
        pass
    assert not lock._lock.locked()


def test_a_holder_who_comes_again_when_all_have_given_up_gets_an_error() -> None:
    lock = selves.NotedLock()
    with lock:
        lock.give_up()
        with pytest.raises(selves.DeadlockError), lock:
            pass
    assert not lock._lock.locked()


def test_who_takes_a_lock_again_after_its_release_does_not_wait_for_himself() -> None:
    lock = selves.NotedLock()
    for _ in range(2):
        with lock:
            assert lock.waits_for_itself(0) is None


def test_a_noted_lock_lets_one_in_at_a_time() -> None:
    lock, inside = selves.NotedLock(), 0

    def enter_often() -> int:
        nonlocal inside
        most = 0
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                inside -= 1
        return most

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(enter_often) for _ in range(4)]
        assert [future.result(LIMIT) for future in futures] == [1] * 4


def test_functions_of_another_thread_are_told_outermost_first() -> None:
    waits, go_on = threading.Event(), threading.Event()

    def inner() -> None:
        waits.set()
        go_on.wait(LIMIT)

    def outer() -> None:
        inner()

    thread = threading.Thread(target=outer)
    thread.start()
    try:
        assert waits.wait(LIMIT)
        assert selves.functions_of(thread, __file__) == ["outer", "inner"]
    finally:
        go_on.set()
        thread.join(LIMIT)


def test_an_rlock_shows_a_callback_half_a_transfer() -> None:
    seen: list[int] = []
    bank = bank_of(threading.RLock(), lambda: seen.append(bank.total()))
    bank.transfer("Ann", "Bob", 30)
    bank.transfer("Bob", "Ann", 30)
    assert seen == [70, 100, 70, 100]


def test_in_layers_callbacks_see_whole_transfers_whoever_makes_them() -> None:
    seen: list[int] = []
    bank = bank_of(threading.Lock(), lambda: seen.append(bank.total()), layers=True)

    def transfer_often(source: str, target: str) -> None:
        for _ in range(100):
            bank.transfer(source, target, 1)

    with ThreadPoolExecutor(4) as pool:
        orders = [("Ann", "Bob"), ("Bob", "Ann")] * 2
        wait([pool.submit(transfer_often, *order) for order in orders], LIMIT)
    assert seen == [100] * 400


def test_in_layers_a_callback_may_change_the_bank() -> None:
    def give_more() -> None:
        if bank.total() < 130:
            bank.change("Bob", 10)

    bank = bank_of(threading.Lock(), give_more, layers=True)
    bank.change("Ann", 5)
    assert bank.total() == 135


def test_names_are_forgotten_even_while_the_lock_is_held() -> None:
    names, kept = selves.LiveNames(), [selves.Thing() for _ in range(2)]
    names.add("kept", kept[0])
    names.add("lost", selves.Thing())
    names.add("late", kept[1], between=gc.collect)
    assert names.names() == ["kept", "late"]
    names.add("lost", kept[0])  # a name that another thing has had
    assert names.names() == ["kept", "late", "lost"]
    kept.clear()
    gc.collect()
    assert names.names() == []


def test_names_come_and_go_in_many_threads() -> None:
    names = selves.LiveNames()

    def come_and_go(number: int) -> None:
        for n in range(50):
            names.add(f"{number}.{n}", selves.Thing())

    with ThreadPoolExecutor(3) as pool:
        wait([pool.submit(come_and_go, number) for number in range(3)], LIMIT)
    gc.collect()
    assert names.names() == []


@pytest.mark.parametrize("interruption", [selves.in_finalizer, selves.in_handler])
def test_whoever_interrupts_the_holder_gets_an_rlock_but_no_lock(
    interruption: Callable[[Any], list[bool]],
) -> None:
    assert interruption(threading.Lock()) == [False]
    assert interruption(threading.RLock()) == [True]


def test_a_thread_that_does_not_get_stuck_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(selves, "LIMIT", 0.05)
    with no_thread_is_left(), pytest.raises(SystemExit, match="wait for itself"):
        selves.stack_when_stuck(selves.NotedLock(), nothing)


def test_layers_that_call_back_too_early_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def early(balances: Any, _: Any, on_change: Any) -> selves.Bank:
        return selves.Bank(balances, threading.RLock(), on_change)

    monkeypatch.setattr(selves, "LayeredBank", early)
    with pytest.raises(SystemExit, match="a whole transfer"):
        selves.main()


def test_a_finalizer_that_forgets_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(weakref, "finalize", lambda *_: threading.Event())
    with pytest.raises(SystemExit, match="an RLock was to let it in"):
        selves.main()


# -- example16


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_a_pool_waits_for_itself_until_one_is_given_up(n_workers: int) -> None:
    with no_thread_is_left():
        assert pools.wait_for_themselves(n_workers) == n_workers - 1


@pytest.mark.parametrize("n_tasks", [1, 2, 5])
def test_one_worker_more_is_enough(n_tasks: int) -> None:
    assert pools.one_worker_more(n_tasks) == [(n + 1) ** 2 for n in range(n_tasks)]


def test_who_waits_for_a_task_that_runs_is_not_stuck() -> None:
    runs, go_on = threading.Event(), threading.Event()

    def inner() -> int:
        runs.set()
        go_on.wait(LIMIT)
        return 42

    with pools.pool_of(2) as workers:
        pool = pools.WatchedPool(workers, 2)
        outer = pool.submit(lambda: pool.result(pool.submit(inner)))
        try:
            assert runs.wait(LIMIT)
            assert pool.deadlock(0.02) == []
        finally:
            go_on.set()
        assert outer.result(LIMIT) == 42


def test_whoever_has_his_result_is_not_stuck() -> None:
    with pools.pool_of(1) as workers:
        pool = pools.WatchedPool(workers, 1)
        first = pool.submit(int, "42")
        assert first.result(LIMIT) == 42
        assert pool.submit(pool.result, first).result(LIMIT) == 42
        assert pool.deadlock(0.01) == []
        assert pool._awaited == []


class LateResult(Future[int]):
    """Is done, but who waits for it has not been told yet."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waited_for, self.go_on = threading.Event(), threading.Event()
        self.set_result(42)

    def result(self, timeout: float | None = None) -> int:
        self.is_waited_for.set()
        self.go_on.wait(LIMIT)
        return super().result(timeout)


def test_whoever_is_about_to_get_his_result_is_not_stuck() -> None:
    future = LateResult()
    with pools.pool_of(1) as workers:
        pool = pools.WatchedPool(workers, 1)
        waiter = pool.submit(pool.result, future)
        try:
            assert future.is_waited_for.wait(LIMIT)
            assert pool.deadlock(0.01) == []
        finally:
            future.go_on.set()
        assert waiter.result(LIMIT) == 42


def test_what_an_inner_task_raises_comes_out_of_the_outer_one() -> None:
    with pools.pool_of(2) as workers:
        pool = pools.WatchedPool(workers, 2)
        outer = pool.submit(lambda: pool.result(pool.submit(int, "no number")))
        assert isinstance(outer.exception(LIMIT), ValueError)


def test_a_block_that_raises_ends_a_pool_that_waits_for_itself() -> None:
    futures: list[Future[int]] = []

    def wait_for_itself() -> None:
        with pools.pool_of(2) as workers, pools.meeting(2) as between:
            pool = pools.WatchedPool(workers, 2)
            futures.extend(
                pool.submit(pools.watched, pool, n, between) for n in range(2)
            )
            assert len(pool.deadlock(LIMIT)) == 2
            raise KeyboardInterrupt

    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        wait_for_itself()
    assert [type(future.exception()) for future in futures] == [CancelledError] * 2


def test_a_block_that_raises_lets_nobody_wait_for_who_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "LIMIT", 1000.0)  # nobody waits for that

    def let_one_come() -> None:
        with pools.pool_of(2) as pool, pools.meeting(2) as between:
            pool.submit(between)
            raise KeyboardInterrupt

    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        let_one_come()


@given(st.lists(st.integers(-9, 9), max_size=8), st.integers(1, 3), st.integers(1, 2))
def test_all_designs_find_the_same_with_any_number_of_workers(
    numbers: list[int], n_workers: int, n_inner: int
) -> None:
    expected = [(number + 1) ** 2 for number in numbers]
    with pools.pool_of(n_workers) as pool, pools.pool_of(n_inner) as second:
        assert pools.flat(pool, numbers, nothing) == expected
        assert pools.layered(pool, second, numbers, nothing) == expected
        assert pools.helping(pool, numbers, nothing) == expected


@given(st.lists(st.integers(-9, 9), max_size=40), st.integers(1, 3))
def test_a_tree_of_tasks_needs_one_worker(numbers: list[int], n_workers: int) -> None:
    with pools.pool_of(n_workers) as pool:
        total = pool.submit(pools.sum_of_squares, pool, numbers).result(LIMIT)
    assert total == sum(number * number for number in numbers)


def test_who_needs_a_task_that_has_not_begun_does_it_himself_and_once() -> None:
    begun, go_on, did_it = threading.Event(), threading.Event(), []

    def keep_busy() -> None:
        begun.set()
        go_on.wait(LIMIT)

    with pools.pool_of(1) as pool:
        busy = pool.submit(keep_busy)
        try:
            assert begun.wait(LIMIT)
            task = pools.Task(pool, lambda n: did_it.append(threading.get_ident()), 1)
            task.result()
        finally:
            go_on.set()
        busy.result(LIMIT)
    assert did_it == [threading.get_ident()]


def test_a_task_that_has_begun_is_waited_for() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def work() -> int:
        begun.set()
        go_on.wait(LIMIT)
        return threading.get_ident()

    with pools.pool_of(1) as pool:
        task = pools.Task(pool, work)
        try:
            assert begun.wait(LIMIT)
        finally:
            go_on.set()
        assert task.result() != threading.get_ident()


@pytest.mark.parametrize("busy", [False, True])
def test_a_task_that_fails_raises_wherever_it_was_done(busy: bool) -> None:
    go_on = threading.Event()
    with pools.pool_of(1) as pool:
        if busy:
            pool.submit(go_on.wait, LIMIT)
        try:
            with pytest.raises(ValueError, match="no number"):
                pools.Task(pool, int, "no number").result()
        finally:
            go_on.set()


@pytest.mark.parametrize("number", ["0", "101", "many"])
def test_number_of_workers_is_limited(
    complaint: Callable[..., str], number: str
) -> None:
    assert "--workers" in complaint(pools, "--workers", number)


def test_who_does_not_help_waits_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LIMIT", 0.05)
    monkeypatch.setattr(pools.Task, "result", lambda self: self._future.result())
    with no_thread_is_left(), pytest.raises(TimeoutError), pools.pool_of(1) as pool:
        pools.helping(pool, [1], nothing)


def test_a_design_in_which_all_wait_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait_in_vain(*_: object) -> NoReturn:
        raise TimeoutError

    monkeypatch.setattr(pools, "helping", wait_in_vain)
    with no_thread_is_left(), pytest.raises(SystemExit, match="not done in"):
        run_main(pools, monkeypatch)


def test_a_pool_that_does_not_wait_for_itself_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def helps(pool: Any, number: int, between: Callable[[], object]) -> int:
        return pools.square(pools.prepare(number, between))

    monkeypatch.setattr(pools, "LIMIT", 0.1)
    monkeypatch.setattr(pools, "watched", helps)
    with no_thread_is_left(), pytest.raises(SystemExit, match="were to wait for what"):
        run_main(pools, monkeypatch)


@pytest.mark.parametrize("design", ["flat", "layered", "helping"])
def test_a_design_that_finds_something_else_is_told(
    monkeypatch: pytest.MonkeyPatch, design: str
) -> None:
    monkeypatch.setattr(pools, design, lambda *_: [])
    with pytest.raises(SystemExit, match=f"^{design}: "):
        run_main(pools, monkeypatch)


# -- example17


@pytest.mark.usefixtures("start_method")
@pytest.mark.parametrize("size", [0, drains.SMALL])
def test_a_child_ends_with_a_small_item_unread(size: int) -> None:
    with drains.producer(size) as (process, results, report):
        assert not drains.is_stuck(process, report, LIMIT)
        assert process.exitcode == 0
        assert len(results.get(timeout=LIMIT)) == size


@pytest.mark.usefixtures("start_method")
def test_a_child_does_not_end_before_its_large_item_is_read() -> None:
    with drains.producer(drains.LARGE) as (process, results, report):
        assert drains.is_stuck(process, report, 0.05)
        assert process.exitcode is None
        (item,) = drains.get_then_join(results, 1, [process])
        assert len(item) == drains.LARGE
    assert process.exitcode == 0


@pytest.mark.usefixtures("start_method")
def test_a_block_that_raises_leaves_no_child_that_is_stuck() -> None:
    children = []

    def forget_to_read() -> None:
        with drains.producer(drains.LARGE) as (process, _, report):
            children.append(process)
            assert drains.is_stuck(process, report, 0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forget_to_read()
    assert [child.is_alive() for child in children] == [False]


@pytest.mark.usefixtures("start_method")
def test_a_child_that_fails_is_told() -> None:
    with drains.producer(-1) as (process, _, report), pytest.raises(EOFError):
        drains.is_stuck(process, report, LIMIT)
    assert process.exitcode == 1


@pytest.mark.usefixtures("start_method")
def test_who_joins_before_all_is_read_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with drains.producer(drains.LARGE) as (process, results, report):
        assert report.poll(LIMIT)
        with monkeypatch.context() as patch:
            patch.setattr(drains, "LIMIT", 0.01)
            with pytest.raises(TimeoutError, match="has not ended"):
                drains.get_then_join(results, 0, [process])
        drains.get_then_join(results, 1, [process])
    assert process.exitcode == 0


def test_a_result_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drains, "LIMIT", 0.01)
    results: Queue[bytes] = multiprocessing.Queue()
    with pytest.raises(queue.Empty):
        drains.get_then_join(results, 1, [])


def test_a_child_that_reports_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    report, reporter = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process()
    with report:
        monkeypatch.setattr(drains, "LIMIT", 0.01)
        with pytest.raises(TimeoutError):
            drains.is_stuck(process, report, 0)
        reporter.close()
        with pytest.raises(EOFError):
            drains.is_stuck(process, report, 0)


def fail_at(failing: set[int], handled: list[int]) -> Callable[[int], None]:
    def handle(number: int) -> None:
        handled.append(number)
        if number in failing:
            raise ArithmeticError(number)

    return handle


@given(st.integers(0, 8), st.sets(st.integers(0, 7)))
def test_what_fails_is_returned_and_all_is_finished(
    n_tasks: int, failing: set[int]
) -> None:
    tasks: queue.Queue[int | None] = queue.Queue()
    for number in range(n_tasks):
        tasks.put(number)
    tasks.put(None)
    handled: list[int] = []
    errors = drains.consume_fixed(tasks, fail_at(failing, handled))
    assert handled == list(range(n_tasks))
    assert [error.args for error in errors] == [
        (number,) for number in range(n_tasks) if number in failing
    ]
    assert tasks.unfinished_tasks == 0


def test_a_consumer_that_fails_leaves_the_rest_unfinished() -> None:
    tasks: queue.Queue[int | None] = queue.Queue()
    for number in range(5):
        tasks.put(number)
    with ThreadPoolExecutor(1) as pool:
        consumer = pool.submit(drains.consume_broken, tasks, fail_at({1}, []))
        assert isinstance(consumer.exception(LIMIT), ArithmeticError)
    assert drains.never_finished(tasks, [consumer]) == 4


def test_as_long_as_a_consumer_is_there_all_may_be_finished() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def handle(_: int) -> None:
        begun.set()
        go_on.wait(LIMIT)

    tasks: queue.Queue[int | None] = queue.Queue()
    tasks.put(1)
    tasks.put(None)
    with ThreadPoolExecutor(1) as pool:
        consumer = pool.submit(drains.consume_broken, tasks, handle)
        try:
            assert begun.wait(LIMIT)
            assert drains.never_finished(tasks, [consumer]) == 0
        finally:
            go_on.set()
        assert consumer.result(LIMIT) == []
    assert drains.never_finished(tasks, [consumer]) == 0


@pytest.mark.parametrize("n_tasks", [0, 1, 3])
def test_what_is_counted_off_is_not_waited_for(n_tasks: int) -> None:
    tasks: queue.Queue[int] = queue.Queue()
    for number in range(n_tasks):
        tasks.put(number)
    with ThreadPoolExecutor(1) as pool:
        joiner = pool.submit(tasks.join)
        drains.count_off(tasks)
        joiner.result(LIMIT)
    assert tasks.unfinished_tasks == 0


def test_shutdown_does_not_finish_what_was_taken() -> None:
    if sys.version_info < (3, 13):
        pytest.skip("needs Python 3.13")
    tasks: queue.Queue[int] = queue.Queue()
    for number in range(3):
        tasks.put(number)
    tasks.get()
    tasks.shutdown(immediate=True)
    assert tasks.unfinished_tasks == 1


@pytest.mark.parametrize("at_start_of", ["consumer", "joiner"])
def test_an_interrupted_wait_for_all_tasks_ends(
    monkeypatch: pytest.MonkeyPatch, at_start_of: str
) -> None:
    submit, calls = ThreadPoolExecutor.submit, 0

    def submit_or_raise(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == ["consumer", "joiner"].index(at_start_of) + 1:
            raise KeyboardInterrupt
        return submit(*arguments)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_or_raise)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        drains.invert_all(drains.consume_broken, [1, 0, 1])


@pytest.mark.parametrize(
    ("consume", "instead", "told"),
    [
        ("consume_fixed", drains.consume_broken, "all tasks were to be finished"),
        ("consume_broken", drains.consume_fixed, "were to stay unfinished"),
    ],
)
def test_consumers_that_do_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch, consume: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(drains, "show_processes", nothing)
    monkeypatch.setattr(drains, consume, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=told):
        drains.main()


@pytest.mark.usefixtures("start_method")
def test_a_large_item_that_hinders_nobody_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(drains, "LARGE", drains.SMALL)
    monkeypatch.setattr(drains, "SHORT_LIMIT", LIMIT)
    with pytest.raises(SystemExit, match="was to keep the child"):
        drains.main()


# -- example18


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(LIMIT):
            result = await main
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return result

    return asyncio.run(limited())


async def some_turns(n_turns: int = 10) -> None:
    for _ in range(n_turns):
        await asyncio.sleep(0)


async def end(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        with suppress(asyncio.CancelledError):
            task.exception()


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_ring_of_tasks_is_a_cycle_when_the_last_begins_to_wait(size: int) -> None:
    async def main() -> None:
        graph, ring = tasks_.WaitForGraph(), list[asyncio.Task[None]]()
        may_wait = [asyncio.Event() for _ in range(size)]

        async def wait_for_the_next(n: int) -> None:
            await may_wait[n].wait()
            await graph.result(ring[(n + 1) % size])

        ring.extend(asyncio.create_task(wait_for_the_next(n)) for n in range(size))
        for event in may_wait[:-1]:
            event.set()
        await some_turns()
        assert graph.cycles.empty()
        may_wait[-1].set()
        assert await graph.cycles.get() == [ring[-1], *ring[:-1]]
        ring[0].cancel()
        await asyncio.wait(ring)
        assert ring[0].cancelled()
        for n in range(1, size):
            assert isinstance(ring[n].exception(), RuntimeError)
        assert graph.cycle(ring[0]) == []

    run(main())


@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.none() | st.integers(0, n - 1), min_size=n, max_size=n)
    )
)
def test_a_task_is_in_a_cycle_if_its_waits_lead_back_to_it(
    targets: list[int | None],
) -> None:
    async def main() -> None:
        graph, never = tasks_.WaitForGraph(), asyncio.Event()
        tasks: list[asyncio.Task[Any]] = []

        async def wait_for(target: int | None) -> None:
            if target is None:
                await never.wait()
            else:
                await graph.result(tasks[target])

        tasks.extend(asyncio.create_task(wait_for(target)) for target in targets)
        await some_turns(3)
        found = 0
        for start, task in enumerate(tasks):
            expected, at = [task], targets[start]
            while at is not None and at != start and len(expected) <= len(tasks):
                expected.append(tasks[at])
                at = targets[at]
            cycle = graph.cycle(task)
            assert cycle == (expected if at == start else [])
            found += bool(cycle) and min(map(tasks.index, cycle)) == start
        assert graph.cycles.qsize() == found
        await end(*tasks)

    run(main())


def test_an_owned_lock_knows_its_owner_and_who_waits() -> None:
    async def main() -> None:
        graph = tasks_.WaitForGraph()
        lock, go_on = tasks_.OwnedLock(graph), asyncio.Event()

        async def hold() -> None:
            async with lock:
                await go_on.wait()

        a, b = (asyncio.create_task(hold()) for _ in range(2))
        await some_turns()
        assert lock.owner is a
        assert graph.cycles.empty()
        b.cancel()
        await asyncio.wait([b])
        assert lock.owner is a
        assert lock.locked()
        go_on.set()
        await a
        assert not lock.locked()
        owner = lock.owner
        assert owner is None
        with pytest.raises(RuntimeError):
            lock.release()

    run(main())


def test_an_owned_lock_is_handed_over_in_order() -> None:
    async def main() -> list[int]:
        lock, order = tasks_.OwnedLock(tasks_.WaitForGraph()), list[int]()

        async def enter(n: int) -> None:
            async with lock:
                assert lock.owner is asyncio.current_task()
                await asyncio.sleep(0)
                order.append(n)

        await asyncio.gather(*map(enter, range(4)))
        return order

    assert run(main()) == [0, 1, 2, 3]


def test_a_lock_taken_twice_by_a_task_is_a_cycle_of_one() -> None:
    async def main() -> None:
        graph = tasks_.WaitForGraph()
        lock = tasks_.OwnedLock(graph)

        async def enter_twice() -> None:
            async with lock, lock:
                pass

        task = asyncio.create_task(enter_twice())
        assert await graph.cycles.get() == [task]
        await end(task)
        assert not lock.locked()

    run(main())


def test_a_result_is_what_the_task_returns_or_raises() -> None:
    async def fail() -> NoReturn:
        raise LookupError

    async def main() -> int:
        graph = tasks_.WaitForGraph()
        with pytest.raises(LookupError):
            await graph.result(asyncio.create_task(fail()))
        return await graph.result(asyncio.create_task(asyncio.sleep(0, 42)))

    assert run(main()) == 42


def test_who_is_cancelled_while_he_waits_does_not_cancel_the_task() -> None:
    async def main() -> int:
        graph, go_on = tasks_.WaitForGraph(), asyncio.Event()
        task = asyncio.create_task(go_on.wait())
        waiter = asyncio.create_task(graph.result(task))
        await some_turns()
        waiter.cancel()
        await asyncio.wait([waiter])
        assert waiter.cancelled()
        go_on.set()
        return await task

    assert run(main()) is True


def test_a_selector_with_one_socket_tells_that_nothing_can_come() -> None:
    told: list[str] = []
    with tasks_.QuietSelector(lambda: told.append("quiet")) as selector:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            selector.register(ours, selectors.EVENT_READ)
            assert selector.select(0) == []
            assert selector.select(0.001) == []
            assert told == []
            assert selector.select() == []
            assert selector.select(None) == []
            assert told == ["quiet"] * 2
            selector.register(theirs, selectors.EVENT_READ)
            ours.send(b".")
            assert [key.fileobj for key, _ in selector.select()] == [theirs]
            assert told == ["quiet"] * 2
            selector.unregister(ours)
            selector.unregister(theirs)


def test_a_selector_that_tells_so_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timeouts: list[float | None] = []

    def select(_: Any, timeout: float | None = None) -> list[Any]:
        timeouts.append(timeout)
        return []

    monkeypatch.setattr(selectors.DefaultSelector, "select", select)
    with tasks_.QuietSelector(nothing) as selector:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            selector.register(ours, selectors.EVENT_READ)
            assert selector.select() == selector.select(5) == []
            selector.register(theirs, selectors.EVENT_READ)
            assert selector.select() == []
    assert timeouts == [0, 5, None]


def test_a_loop_with_a_timer_is_not_quiet() -> None:
    told: list[str] = []

    def loop() -> asyncio.AbstractEventLoop:
        selector = tasks_.QuietSelector(lambda: told.append("quiet"))
        return asyncio.SelectorEventLoop(selector)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.sleep(0.01))
    assert told == []


@pytest.mark.parametrize("beside_a_timer", [False, True])
def test_locks_in_two_orders_are_seen_and_ended(beside_a_timer: bool) -> None:
    seen = tasks_.watch(tasks_.two_orders, beside_a_timer)
    assert seen == ("A -> B -> A", not beside_a_timer, ["is cancelled", "ends"])


def test_who_forgets_task_done_is_seen_by_the_loop_alone() -> None:
    seen = tasks_.watch(tasks_.join_in_vain)
    assert seen == ("none", True, ["is cancelled", "ends"])


def test_a_time_limit_frees_the_other() -> None:
    seen = tasks_.watch(partial(tasks_.two_orders, timeout=0.01))
    assert seen == ("A -> B -> A", True, ["fails", "ends"])


def test_in_one_order_there_is_no_cycle() -> None:
    assert tasks_.watch(tasks_.one_order) == ("none", True, ["ends", "ends"])


def test_to_cancel_one_of_two_cycles_is_not_enough(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def two_cycles(graph: tasks_.WaitForGraph) -> list[tasks_.AnyTask]:
        return tasks_.await_each_other(graph) + tasks_.await_each_other(graph)

    with pytest.raises(RuntimeError, match="nothing is left to happen"):
        tasks_.watch(two_cycles)
    gc.collect()
    assert caplog.messages == []  # asyncio complains of nothing that is left


def test_a_cycle_of_plain_awaits_cannot_be_cancelled() -> None:
    assert tasks_.cancelling_a_cycle_fails()


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("await_each_other", tasks_.one_order, "two await each other"),
        ("one_order", tasks_.two_orders, "one order"),
        ("join_in_vain", tasks_.one_order, "join"),
        ("cancelling_a_cycle_fails", lambda: False, "round and round"),
        ("watch", lambda *_: ("none", False, ["ends"] * 2), "two await each other"),
    ],
)
def test_a_program_that_does_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(tasks_, name, instead)
    with pytest.raises(SystemExit, match=told):
        tasks_.main()


def test_two_cycles_in_the_run_are_told_in_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    two = tasks_.await_each_other
    monkeypatch.setattr(tasks_, "await_each_other", lambda g: [*two(g), *two(g)])
    with pytest.raises(SystemExit, match="other deadlocks"):
        tasks_.main()
