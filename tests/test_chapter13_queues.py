"""Chapter 13, queues, loops and pools that starve: the parts a reader would copy."""

import asyncio
import itertools
import logging
import queue
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Future,
    ThreadPoolExecutor,
    wait,
)
from contextlib import nullcontext, suppress
from typing import Any, NoReturn, Self, TypeVar

import example09_priority_queue_that_starves as starving
import example10_ageing as ageing
import example11_greedy_coroutine as greedy
import example12_greedy_coroutine_mended as polite
import example13_long_tasks_starve_short_ones as pools
import example14_fair_queue_per_client as fairness
import example15_semaphore_in_bulk as bulk
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

T = TypeVar("T")

LIMIT = 30.0  # seconds that a test waits for what must come
SHORT = 0.02  # seconds that a test waits for what must not come


class NotedCondition(threading.Condition):
    """A condition that tells when somebody begins to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: queue.SimpleQueue[None] = queue.SimpleQueue()

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.put(None)  # who notifies needs the lock, so that must come later
        return super().wait(timeout)


# -- example09


@given(st.lists(st.integers(-2, 2)))
def test_jobs_of_equal_priority_are_served_as_they_came(priorities: list[int]) -> None:
    jobs: starving.PriorityJobs[object] = starving.PriorityJobs()
    came: list[tuple[int, object, int]]
    came = [(priority, {}, number) for number, priority in enumerate(priorities)]
    for job in came:
        jobs.put(job, job[0])
    served = [jobs.get(LIMIT) for _ in came]
    assert served == sorted(came, key=lambda job: job[0])


def test_an_empty_queue_says_so_in_time() -> None:
    with pytest.raises(queue.Empty):
        starving.PriorityJobs[str]().get(0.001)


def test_of_several_clients_nothing_is_lost_and_each_ones_order_is_kept() -> None:
    jobs: starving.PriorityJobs[tuple[int, int]] = starving.PriorityJobs()
    start = threading.Barrier(3, timeout=LIMIT)

    def put_all(client: int) -> None:
        start.wait()
        for number in range(200):
            jobs.put((client, number), 0)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(put_all, range(3)))
    served = [jobs.get(LIMIT) for _ in range(600)]
    for client in range(3):
        assert [n for c, n in served if c == client] == list(range(200))


@pytest.mark.parametrize("n_urgent", [1, 2, 150])
def test_the_low_job_waits_for_all_urgent_ones(n_urgent: int) -> None:
    with no_thread_is_left():
        order = starving.serve_a_stream(starving.PriorityJobs(), n_urgent)
    assert order == [*map(str, range(n_urgent)), "low"]


def test_each_urgent_job_comes_while_the_one_before_it_is_done() -> None:
    class Noted(starving.PriorityJobs[str]):
        def put(self, job: str, priority: int) -> None:
            noted.append(f"put {job}")
            super().put(job, priority)

        def get(self, timeout: float) -> str:
            noted.append("get")
            return super().get(timeout)

    noted: list[str] = []
    starving.serve_a_stream(Noted(), 3)
    assert noted == ["put low", "put 0", "get", "put 1", "get", "put 2", "get", "get"]


def test_a_queue_that_fails_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing(starving.PriorityJobs[str]):
        def get(self, timeout: float) -> NoReturn:
            raise queue.Empty

    monkeypatch.setattr(starving, "LIMIT", 0.05)
    with no_thread_is_left(), pytest.raises(queue.Empty):
        starving.serve_a_stream(Failing(), 3)


class InOrder(starving.PriorityJobs[str]):
    """Serves all jobs as they come."""

    def put(self, job: str, priority: int) -> None:
        super().put(job, 0)


def test_a_queue_that_does_not_starve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starving, "PriorityJobs", InOrder)
    with pytest.raises(SystemExit, match="then the low one"):
        run_main(starving, monkeypatch)


@pytest.mark.parametrize(
    ("module", "option", "value"),
    [
        (starving, "--urgent", "0"),
        (starving, "--urgent", "20001"),
        (ageing, "--urgent", "-1"),
        (ageing, "--step", "0"),
        (greedy, "--chunks", "0"),
        (greedy, "--chunks", "201"),
        (polite, "--chunks", "many"),
        (polite, "--bystanders", "0"),
        (pools, "--workers", "1"),
        (pools, "--workers", "101"),
        (fairness, "--jobs", "1"),
        (fairness, "--jobs", "100001"),
        (bulk, "--small", "0"),
        (bulk, "--small", "101"),
    ],
)
def test_options_have_their_limits(
    complaint: Callable[..., str], module: Any, option: str, value: str
) -> None:
    assert option in complaint(module, option, value)


# -- example10

# What happens to a queue: a job of that priority is put in, or (None) one is taken.
events_of_a_queue = st.lists(st.none() | st.integers(0, 4), max_size=30)


@given(
    st.lists(st.lists(st.integers(0, 2), max_size=4), max_size=40),
    st.integers(1, 6),
    st.integers(1, 5),
)
def test_no_job_waits_longer_than_its_bound(
    arrivals: list[list[int]], capacity: int, step: int
) -> None:
    """Jobs of some priorities arrive before each get."""
    jobs: ageing.AgeingQueue[tuple[int, int]] = ageing.AgeingQueue(capacity, step)
    gets = left = 0
    for priorities in [*arrivals, *[list[int]()] * capacity]:
        for priority in priorities:
            with suppress(queue.Full):
                jobs.put((priority, gets), priority)
                left += 1
        if left:
            priority, arrival = jobs.get(LIMIT)
            assert gets - arrival <= jobs.bound(priority)
            gets += 1
            left -= 1
    assert left == 0


@given(events_of_a_queue, st.integers(1, 5))
def test_it_serves_as_if_all_were_sorted_anew_at_each_get(
    events: list[int | None], step: int
) -> None:
    """That job is first whose priority is the smallest, less what it has gained."""
    jobs: ageing.AgeingQueue[tuple[int, int, int]] = ageing.AgeingQueue(100, step)
    waiting: list[tuple[int, int, int]] = []  # priority, number, time of arrival
    gets = 0
    for number, event in enumerate([*events, *[None] * len(events)]):
        if event is not None:
            waiting.append((event, number, gets))
            jobs.put(waiting[-1], event)
        elif waiting:
            first = min(
                waiting, key=lambda job: (step * job[0] - (gets - job[2]), job[0])
            )
            waiting.remove(first)
            assert jobs.get(LIMIT) == first
            gets += 1


@given(st.integers(2, 20), st.integers(1, 20), st.integers(0, 5))
def test_the_bound_is_reached(capacity: int, step: int, priority: int) -> None:
    jobs: ageing.AgeingQueue[str] = ageing.AgeingQueue(capacity, step)
    if priority:
        assert ageing.worst_case(jobs, priority) == jobs.bound(priority)
        return
    for number in range(capacity):
        jobs.put(f"{number}", priority)
    assert [jobs.get(LIMIT) for _ in range(capacity)].index(f"{capacity - 1}") == (
        jobs.bound(priority)
    )


@pytest.mark.parametrize(("capacity", "step"), [(0, 1), (1, 0), (-1, 5)])
def test_a_queue_without_room_or_gain_is_an_error(capacity: int, step: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ageing.AgeingQueue(capacity, step)


def test_a_full_queue_refuses_at_once_and_has_room_again() -> None:
    jobs: ageing.AgeingQueue[str] = ageing.AgeingQueue(1, 1)
    jobs.put("one", 3)
    with pytest.raises(queue.Full):
        jobs.put("two", 0)
    assert jobs.get(LIMIT) == "one"
    jobs.put("three", 0)
    assert jobs.get(LIMIT) == "three"


def test_a_negative_priority_is_an_error() -> None:
    jobs: ageing.AgeingQueue[str] = ageing.AgeingQueue(1, 1)
    with pytest.raises(ValueError, match="-1"):
        jobs.put("one", -1)
    with pytest.raises(queue.Empty):
        jobs.get(0)


def test_who_waits_in_get_is_woken_by_put() -> None:
    jobs: ageing.AgeingQueue[int] = ageing.AgeingQueue(5, 1)
    jobs._not_empty = condition = NotedCondition()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(jobs.get, 2 * LIMIT) for _ in range(3)]
        for _ in waiting:
            condition.waits.get(timeout=LIMIT)
        for number in range(3):
            jobs.put(number, 1)
        assert sorted(future.result(LIMIT) for future in waiting) == [0, 1, 2]


def test_of_several_clients_and_workers_none_loses_a_job() -> None:
    jobs: ageing.AgeingQueue[int] = ageing.AgeingQueue(400, 3)

    def put_all(client: int) -> None:
        for number in range(100):
            jobs.put(100 * client + number, number % 5)

    def get_all(_: int) -> list[int]:
        return [jobs.get(LIMIT) for _ in range(100)]

    with ThreadPoolExecutor(8) as pool:
        got = pool.map(get_all, range(4))
        list(pool.map(put_all, range(4)))
        assert sorted(itertools.chain.from_iterable(got)) == list(range(400))


class SlowlyAgeing(ageing.AgeingQueue[T]):
    """Breaks its own bound."""

    def put(self, job: T, priority: int) -> None:
        super().put(job, priority * 2)


def test_ageing_that_breaks_the_bound_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ageing, "AgeingQueue", SlowlyAgeing)
    with pytest.raises(SystemExit, match="at its bound"):
        run_main(ageing, monkeypatch)


def test_a_bound_that_is_not_reached_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ageing, "worst_case", lambda jobs, priority: 3)
    with pytest.raises(SystemExit, match="3 jobs instead of 31"):
        run_main(ageing, monkeypatch)


def test_sorted_jobs_that_do_not_starve_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ageing, "PriorityJobs", InOrder)
    with pytest.raises(SystemExit, match="the low one was to be the last"):
        run_main(ageing, monkeypatch)


# -- example11


def seen_beside(
    computation: greedy.Computation, n_chunks: int, *bystanders: str
) -> greedy.Record:
    return asyncio.run(greedy.watch(computation, n_chunks, *bystanders))


def sum_of(n_chunks: int) -> int:
    return sum(n * n % 7 for n in range(n_chunks * greedy.CHUNK))


@pytest.mark.parametrize("n_chunks", [1, 2, 15])
def test_nobody_has_a_turn_beside_a_greedy_coroutine(n_chunks: int) -> None:
    record = seen_beside(greedy.compute_greedily, n_chunks, "a", "b")
    for who in ("heart", "a", "b"):
        chunks, seconds = record.longest_wait(who)
        assert chunks == n_chunks
        assert (
            seconds
            >= record.events[record.turns("chunk")[-1]][1]
            - (record.events[record.turns("chunk")[0]][1])
        )
    assert record.total == sum_of(n_chunks)


def test_a_wait_is_counted_between_two_turns() -> None:
    names = ["a", "chunk", "a", "chunk", "b", "chunk", "a", "a", "chunk"]
    record = greedy.Record([(name, 2.0**at) for at, name in enumerate(names)])
    assert record.turns("a") == [0, 2, 6, 7]
    assert record.longest_wait("a") == (2, 2.0**7 - 2.0**6)
    assert record.longest_wait("b") == (0, 0.0)


@pytest.mark.parametrize("n_chunks", [1, 5])
def test_a_greedy_coroutine_cannot_be_stopped(n_chunks: int) -> None:
    computation = greedy.compute_greedily
    assert asyncio.run(greedy.outlives_its_time_limit(computation, n_chunks))
    ended = greedy.cancel_as_soon_as_possible(computation, n_chunks)
    assert asyncio.run(ended) == (n_chunks, False)


def test_debug_mode_names_the_coroutine_and_then_nobody_listens() -> None:
    logger = logging.getLogger("asyncio")
    before = list(logger.filters)
    named = greedy.step_named_by_debug_mode(greedy.compute_greedily, 20)
    assert named.startswith("compute_greedily() took ")
    assert float(named.split()[-2]) >= 1
    assert logger.filters == before


def test_a_computation_that_fails_ends_those_beside_it() -> None:
    async def fail(n_chunks: int, record: greedy.Record) -> NoReturn:
        raise ArithmeticError("cannot tell")

    async def run() -> int:
        with pytest.raises(ExceptionGroup) as error:
            await greedy.watch(fail, 3, "bystander")
        assert error.group_contains(ArithmeticError, match="cannot tell")
        return len(asyncio.all_tasks())

    assert asyncio.run(run()) == 1


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("compute_greedily", polite.compute_politely, "no turn"),
        ("step_named_by_debug_mode", lambda *_: "", "debug mode"),
    ],
)
def test_a_coroutine_that_is_not_greedy_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(greedy, name, instead)
    with pytest.raises(SystemExit, match=told):
        run_main(greedy, monkeypatch)


# -- example12


@pytest.mark.parametrize("n_bystanders", [1, 2, 20])
def test_who_gives_way_lets_each_other_have_one_turn(n_bystanders: int) -> None:
    names = [f"bystander {n}" for n in range(n_bystanders)]
    record = seen_beside(polite.compute_politely, 10, *names)
    assert polite.turns_between_chunks(record) == [names] * 9
    assert {record.longest_wait(name)[0] for name in names} == {1}
    assert record.total == sum_of(10)


def test_who_gives_way_can_be_stopped() -> None:
    computation = polite.compute_politely
    assert not asyncio.run(greedy.outlives_its_time_limit(computation, 3))
    ended = greedy.cancel_as_soon_as_possible(computation, 3)
    assert asyncio.run(ended) == (1, True)


def test_the_loop_runs_while_the_thread_computes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    others_ran = threading.Event()

    async def run() -> int:
        computation = asyncio.create_task(polite.compute_in_thread(2, greedy.Record()))
        await asyncio.sleep(0)
        others_ran.set()
        return await computation

    monkeypatch.setattr(greedy, "chunk", lambda number: others_ran.wait(LIMIT))
    with no_thread_is_left():
        assert asyncio.run(run()) == 2


def test_the_thread_computes_the_same() -> None:
    assert seen_beside(polite.compute_in_thread, 4).total == sum_of(4)


def test_turns_and_beats_are_counted_between_chunks() -> None:
    names = ["heart", "a", "chunk", "a", "heart", "b", "chunk", "chunk", "heart", "a"]
    record = greedy.Record([(name, 0.0) for name in names])
    assert polite.turns_between_chunks(record) == [["a", "b"], []]
    assert polite.beats_meanwhile(record) == 1


compute = greedy.compute


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("compute_politely", greedy.compute_greedily, "each bystander"),
        ("compute_in_thread", greedy.compute_greedily, "beside the thread"),
        ("compute", lambda n_chunks, record: compute(n_chunks, record) + 1, "the sum"),
    ],
)
def test_a_mend_that_does_not_mend_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    if name == "compute_in_thread":
        monkeypatch.setattr(polite, "DOUBLINGS", 1)
    monkeypatch.setattr(polite, name, instead)
    with pytest.raises(SystemExit, match=told):
        run_main(polite, monkeypatch)


# -- example13


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_so_many_tasks_run_at_a_time_and_no_more(limit: int) -> None:
    running, most = 0, 0
    lock, together = threading.Lock(), threading.Barrier(limit, timeout=LIMIT)

    def work() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()  # only so many make it go on
        with lock:
            running -= 1
        together.wait()

    with ThreadPoolExecutor(5) as pool:
        limited = pools.Limited(pool, limit)
        for future in [limited.submit(work) for _ in range(4 * limit)]:
            future.result(LIMIT)
    assert most == limit


def test_tasks_get_their_arguments_and_are_done_in_order() -> None:
    done: list[tuple[int, str]] = []

    def work(number: int, *, name: str) -> int:
        done.append((number, name))
        return 2 * number

    with ThreadPoolExecutor(3) as pool:
        limited = pools.Limited(pool, 1)
        futures = [limited.submit(work, n, name=f"{n}") for n in range(50)]
    # Leaving the pool has waited for all of them.
    assert [future.result(0) for future in futures] == [2 * n for n in range(50)]
    assert done == [(n, f"{n}") for n in range(50)]


def test_what_a_task_raises_reaches_its_future_and_stops_no_other() -> None:
    def fail() -> NoReturn:
        raise ArithmeticError("cannot tell")

    with ThreadPoolExecutor(2) as pool:
        limited = pools.Limited(pool, 1)
        futures = [limited.submit(fail), limited.submit(fail)]
        assert limited.submit(int, "7").result(LIMIT) == 7
        for future in futures:
            assert isinstance(future.exception(LIMIT), ArithmeticError)


def test_a_task_that_waits_can_be_cancelled() -> None:
    go_on = threading.Event()
    done: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        limited = pools.Limited(pool, 1)
        first = limited.submit(go_on.wait, LIMIT)
        second = limited.submit(done.append, "second")
        third = limited.submit(done.append, "third")
        assert second.cancel()
        go_on.set()
        assert first.result(LIMIT)
        third.result(LIMIT)
        with pytest.raises(CancelledError):
            second.result(LIMIT)
    assert done == ["third"]


def test_a_worker_is_left_when_nothing_waits_and_taken_again() -> None:
    with ThreadPoolExecutor(1) as pool:
        limited = pools.Limited(pool, 1)
        for number in range(20):
            assert limited.submit(abs, -number).result(LIMIT) == number
            assert pool.submit(int, "1").result(LIMIT) == 1


def test_after_the_executors_end_nothing_is_taken() -> None:
    with ThreadPoolExecutor(1) as pool:
        limited = pools.Limited(pool, 1)
    for _ in range(2):  # the first refusal has taken no worker
        with pytest.raises(RuntimeError):
            limited.submit(int)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_no_task_is_an_error(limit: int) -> None:
    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match=f"{limit}"):
        pools.Limited(pool, limit)


@pytest.mark.parametrize("n", [2, 3, 20])
def test_short_tasks_wait_for_a_long_one_unless_a_worker_is_kept_free(n: int) -> None:
    all_, none = pools.SHORT_TASKS, 0
    inside: Any
    with no_thread_is_left():
        for inside in (nullcontext(), threading.Semaphore(n - 1)):
            with ThreadPoolExecutor(n) as pool:
                done = pools.short_tasks_done(
                    pool.submit, pool.submit, inside, n, n, SHORT
                )
            assert done == (none, all_)
        with ThreadPoolExecutor(n) as pool:
            limited = pools.Limited(pool, n - 1)
            done = pools.short_tasks_done(
                limited.submit, pool.submit, nullcontext(), 2 * n, n - 1, LIMIT
            )
        assert done == (all_, all_)


def test_a_long_task_that_does_not_begin_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "LIMIT", 0.01)
    with (
        no_thread_is_left(),
        ThreadPoolExecutor(1) as pool,
        pytest.raises(SystemExit, match="was to begin"),
    ):
        pools.short_tasks_done(pool.submit, pool.submit, nullcontext(), 2, 2, SHORT)


def test_a_pool_that_does_not_starve_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "SHORT_LIMIT", LIMIT)
    monkeypatch.setattr(
        pools, "ThreadPoolExecutor", lambda n: ThreadPoolExecutor(n + 1)
    )
    with no_thread_is_left(), pytest.raises(SystemExit, match="one pool: 0"):
        run_main(pools, monkeypatch)


@pytest.mark.parametrize(
    ("meanwhile", "told"),
    [(0, "limit in front: 10"), (pools.SHORT_TASKS, "one pool: 0")],
)
def test_short_tasks_that_are_done_too_late_or_too_soon_are_told(
    monkeypatch: pytest.MonkeyPatch, meanwhile: int, told: str
) -> None:
    monkeypatch.setattr(
        pools, "short_tasks_done", lambda *_: (meanwhile, pools.SHORT_TASKS)
    )
    with pytest.raises(SystemExit, match=told):
        run_main(pools, monkeypatch)


# -- example14

# A client puts in a job of that cost, or (None) a job is taken.
events_of_clients = st.lists(
    st.none() | st.tuples(st.sampled_from("abcd"), st.integers(1, 5)), max_size=40
)


@given(events_of_clients)
def test_a_job_waits_for_one_of_each_other_client_for_each_place_in_its_queue(
    events: list[tuple[str, int] | None],
) -> None:
    jobs: fairness.FairQueue[str, tuple[str, int]] = fairness.FairQueue(100)
    before: dict[tuple[str, int], Counter[str]] = {}  # who was served, by waiting job
    place: dict[tuple[str, int], int] = {}
    for number, event in enumerate([*events, *[None] * len(events)]):
        if event is not None:
            client, _ = event
            place[client, number] = sum(client == other for other, _ in before)
            before[client, number] = Counter()
            jobs.put(client, (client, number))
        elif before:
            served = jobs.get(LIMIT)
            overtaken_by = before.pop(served)
            own = overtaken_by.pop(served[0], 0)
            assert own == place[served]
            assert max(overtaken_by.values(), default=0) <= own + 1
            for others in before.values():
                others[served[0]] += 1
    with pytest.raises(queue.Empty):
        jobs.get(0)


@given(events_of_clients, st.integers(5, 8))
def test_a_clients_first_job_waits_for_one_turn_of_each_other(
    events: list[tuple[str, int] | None], quantum: int
) -> None:
    jobs: fairness.FairQueue[str, tuple[str, int, int]] = fairness.FairQueue(
        100, quantum
    )
    waiting: Counter[str] = Counter()  # jobs by client
    work: dict[str, Counter[str]] = {}  # that first ones have waited for
    for number, event in enumerate([*events, *[None] * len(events)]):
        if event is not None:
            client, cost = event
            jobs.put(client, (client, cost, number), cost)
            if not waiting[client]:
                work[client] = Counter()
            waiting[client] += 1
        elif waiting.total():
            client, cost, _ = jobs.get(LIMIT)
            waiting[client] -= 1
            assert max(work.pop(client, Counter()).values(), default=0) < 2 * quantum
            for others in work.values():
                others[client] += cost


@given(st.lists(st.integers(1, 7), min_size=2, max_size=4), st.integers(7, 12))
def test_clients_who_always_have_jobs_share_the_work(
    costs: list[int], quantum: int
) -> None:
    jobs: fairness.FairQueue[int, int] = fairness.FairQueue(100, quantum)
    for client, cost in enumerate(costs):
        for _ in range(100):
            jobs.put(client, client, cost)
    work = [0 for _ in costs]
    for _ in range(100):
        client = jobs.get(LIMIT)
        work[client] += costs[client]
        assert max(work) - min(work) <= quantum + 2 * max(costs)


def test_what_a_client_puts_in_comes_out_in_order() -> None:
    jobs: fairness.FairQueue[int, tuple[int, int]] = fairness.FairQueue(50)
    for number in range(150):
        jobs.put(number % 3, (number % 3, number))
    served = [jobs.get(LIMIT) for _ in range(150)]
    for client in range(3):
        numbers = [number for one, number in served if one == client]
        assert numbers == sorted(numbers)


def test_who_has_filled_his_queue_is_refused_by_name_and_no_other() -> None:
    jobs: fairness.FairQueue[str, str] = fairness.FairQueue(2)
    jobs.put("Ann", "1")
    jobs.put("Ann", "2")
    with pytest.raises(queue.Full, match="Ann has 2 jobs"):
        jobs.put("Ann", "3")
    jobs.put("Ben", "4")
    assert [jobs.get(LIMIT) for _ in range(3)] == ["1", "4", "2"]
    jobs.put("Ann", "5")
    assert jobs.get(LIMIT) == "5"


@pytest.mark.parametrize("cost", [-1, 0, 4])
def test_a_job_costs_something_and_no_more_than_a_turn_gives(cost: int) -> None:
    jobs: fairness.FairQueue[str, str] = fairness.FairQueue(2, quantum=3)
    with pytest.raises(ValueError, match=f"cost {cost} "):
        jobs.put("Ann", "job", cost)
    with pytest.raises(queue.Empty):
        jobs.get(0)


@pytest.mark.parametrize(("per_client", "quantum"), [(0, 1), (1, 0)])
def test_a_queue_for_nothing_is_an_error(per_client: int, quantum: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        fairness.FairQueue(per_client, quantum)


def test_a_closed_queue_gives_what_it_has_and_takes_nothing() -> None:
    jobs: fairness.FairQueue[str, str] = fairness.FairQueue(2)
    jobs.put("Ann", "1")
    jobs.close()
    jobs.close()
    with pytest.raises(fairness.ClosedError, match="Ben"):
        jobs.put("Ben", "2")
    assert jobs.get(LIMIT) == "1"
    with pytest.raises(fairness.ClosedError):
        jobs.get(LIMIT)


def test_who_waits_in_get_is_woken_by_a_job_and_by_the_end() -> None:
    jobs: fairness.FairQueue[str, str] = fairness.FairQueue(2)
    jobs._changed = condition = NotedCondition()
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(jobs.get, 2 * LIMIT) for _ in range(3)]
        for _ in waiting:
            condition.waits.get(timeout=LIMIT)
        jobs.put("Ann", "job")
        done, _ = wait(waiting, LIMIT, FIRST_COMPLETED)
        assert [future.result() for future in done] == ["job"]
        jobs.close()
        errors = [future.exception(LIMIT) for future in waiting if future not in done]
        assert [type(error) for error in errors] == [fairness.ClosedError] * 2


def test_of_several_workers_none_loses_a_job() -> None:
    jobs: fairness.FairQueue[int, int] = fairness.FairQueue(100)

    def put_all(client: int) -> None:
        for number in range(100):
            jobs.put(client, 100 * client + number)

    def get_all(_: int) -> list[int]:
        return [jobs.get(LIMIT) for _ in range(100)]

    with ThreadPoolExecutor(8) as pool:
        got = pool.map(get_all, range(4))
        list(pool.map(put_all, range(4)))
        assert sorted(itertools.chain.from_iterable(got)) == list(range(400))


class OneForAll(fairness.FairQueue[str, Any]):
    """Takes all for jobs of one client."""

    def __init__(self, per_client: int, quantum: int = 1) -> None:
        super().__init__(2 * per_client, quantum)

    def put(self, client: str, job: Any, cost: int = 1) -> None:
        super().put("all", job, cost)


class NeverFull(fairness.FairQueue[str, Any]):
    def __init__(self, per_client: int, quantum: int = 1) -> None:
        super().__init__(2 * per_client, quantum)


class WithoutCosts(fairness.FairQueue[str, Any]):
    def put(self, client: str, job: Any, cost: int = 1) -> None:
        super().put(client, job)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (OneForAll, "for one job of each"),
        (NeverFull, "to be refused"),
        (WithoutCosts, "the same share"),
    ],
)
def test_an_unfair_queue_is_told(
    monkeypatch: pytest.MonkeyPatch, kind: type, told: str
) -> None:
    monkeypatch.setattr(fairness, "FairQueue", kind)
    with pytest.raises(SystemExit, match=told):
        run_main(fairness, monkeypatch)


# -- example15

PERMITS = 4


@pytest.mark.parametrize("n_small", [1, 2, 25])
def test_whoever_is_content_overtakes_and_in_order_nobody_does(n_small: int) -> None:
    small = [f"small {n}" for n in range(n_small + 1)]
    with no_thread_is_left():
        assert bulk.compete(bulk.FirstFitSemaphore, n_small) == [*small, "big"]
        order = bulk.compete(bulk.BulkSemaphore, n_small)
    assert order[:2] == ["small 0", "big"]
    assert sorted(order[2:]) == sorted(small[1:])


def test_who_has_no_time_left_is_told_so() -> None:
    semaphore = bulk.BulkSemaphore(PERMITS)
    with semaphore.take(PERMITS, LIMIT):
        for timeout in (0, -0.001, -1):
            with pytest.raises(TimeoutError), semaphore.take(1, timeout):
                pytest.fail("there is no permit")
    assert semaphore.free == PERMITS


class Queued:
    """A BulkSemaphore, and threads that stand in its queue, one behind the other.

    When the block ends, all of them are let go.
    """

    def __init__(self) -> None:
        self.semaphore = bulk.BulkSemaphore(PERMITS, lambda: self._waits.put(None))
        self._pool = ThreadPoolExecutor(10)
        self._waits: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._inside: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._threads: list[tuple[threading.Event, Future[None]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for may_leave, _thread in self._threads:
            may_leave.set()
        self._pool.shutdown()

    def add(self, n: int) -> None:
        """Let one more thread wait for n permits."""
        number, may_leave = len(self._threads), threading.Event()

        def work() -> None:
            with self.semaphore.take(n, LIMIT):
                self._inside.put(number)
                may_leave.wait(LIMIT)

        self._threads.append((may_leave, self._pool.submit(work)))
        self._waits.get(timeout=LIMIT)

    def entered(self, n_threads: int) -> set[int]:
        """Return who are the next ones that have got their permits."""
        return {self._inside.get(timeout=LIMIT) for _ in range(n_threads)}

    def let_go(self, number: int) -> None:
        """Let one of them give back its permits."""
        may_leave, thread = self._threads[number]
        may_leave.set()
        thread.result(LIMIT)


@given(st.lists(st.integers(1, PERMITS), min_size=1, max_size=5))
def test_permits_go_to_the_first_in_the_queue_as_far_as_they_suffice(
    wishes: list[int],
) -> None:
    with Queued() as queued:
        with queued.semaphore.take(PERMITS, LIMIT):
            for n in wishes:
                queued.add(n)
        waiting, inside = list(enumerate(wishes)), list[tuple[int, int]]()
        free = PERMITS
        while waiting or inside:
            admitted = set()
            while waiting and waiting[0][1] <= free:
                inside.append(waiting.pop(0))
                admitted.add(inside[-1][0])
                free -= inside[-1][1]
            assert queued.entered(len(admitted)) == admitted
            assert queued.semaphore.free == free
            number, n = inside.pop(0)
            queued.let_go(number)
            free += n
    assert queued.semaphore.free == PERMITS


def take(semaphore: bulk.BulkSemaphore, n: int, timeout: float) -> str:
    with semaphore.take(n, timeout):
        return "taken"


def test_a_head_that_gives_up_lets_the_next_ones_in() -> None:
    with no_thread_is_left():
        assert bulk.head_gives_up() == [bulk.PERMITS - 1]


def test_who_gives_up_in_the_middle_leaves_no_hole() -> None:
    with Queued() as queued:
        with queued.semaphore.take(PERMITS, LIMIT):
            queued.add(1)
            with pytest.raises(TimeoutError, match="no 2 permits"):
                take(queued.semaphore, 2, 0)
            queued.add(1)
        assert queued.entered(2) == {0, 1}
        assert queued.semaphore.free == PERMITS - 2


class Interrupted(BaseException):
    """Stands for Ctrl-C."""


@pytest.mark.parametrize("given_back", [True, False])
def test_who_is_interrupted_leaves_no_hole(given_back: bool) -> None:
    """Also if the permits have been given to him already."""

    def on_wait() -> None:
        if given_back:
            holder.__exit__(None, None, None)
        raise Interrupted

    semaphore = bulk.BulkSemaphore(PERMITS, on_wait)
    holder = semaphore.take(3, LIMIT)
    holder.__enter__()
    with pytest.raises(Interrupted):
        take(semaphore, 2, LIMIT)
    assert semaphore.free == (PERMITS if given_back else 1)
    assert take(semaphore, semaphore.free, 0) == "taken"


def test_a_block_that_raises_gives_back_its_permits() -> None:
    semaphore = bulk.BulkSemaphore(PERMITS)
    with pytest.raises(ArithmeticError), semaphore.take(3, LIMIT):
        raise ArithmeticError
    assert take(semaphore, PERMITS, 0) == "taken"


@pytest.mark.parametrize("n", [-1, 0, PERMITS + 1])
def test_what_could_never_be_given_is_an_error(n: int) -> None:
    semaphore = bulk.BulkSemaphore(PERMITS)
    with pytest.raises(ValueError, match=f"{n} permits of 4"):
        take(semaphore, n, LIMIT)
    assert semaphore.free == PERMITS


def test_a_semaphore_of_no_permits_is_an_error() -> None:
    with pytest.raises(ValueError, match="0 permits"):
        bulk.BulkSemaphore(0)


def test_never_more_permits_are_out_than_there_are() -> None:
    semaphore = bulk.BulkSemaphore(PERMITS)
    lock, out, most = threading.Lock(), 0, 0

    def work(n: int) -> None:
        nonlocal out, most
        for _ in range(50):
            with semaphore.take(n, LIMIT):
                with lock:
                    out += n
                    most = max(most, out)
                with lock:
                    out -= n

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, [1, 2, 3, 4, 1, 2]))
    assert most <= PERMITS
    assert (out, semaphore.free) == (0, PERMITS)


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("FirstFitSemaphore", bulk.BulkSemaphore, "all small ones"),
        ("BulkSemaphore", bulk.FirstFitSemaphore, "nobody was to overtake"),
        ("head_gives_up", lambda: [0], "lie idle"),
        ("head_gives_up", list, "lie idle"),
    ],
)
def test_permits_that_go_elsewhere_are_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(bulk, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=told):
        run_main(bulk, monkeypatch)


def test_a_queue_with_a_hole_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class WithHole(bulk.BulkSemaphore):
        def _acquire(self, n: int, timeout: float) -> None:
            super()._acquire(n, min(timeout, SHORT))

        def _leave(self, n: int, gate: threading.Lock) -> None:
            pass

    def compete(kind: type, n_small: int) -> list[str]:
        return ["0", "big", "1"] if kind is WithHole else ["0", "1", "big"]

    monkeypatch.setattr(bulk, "compete", compete)
    monkeypatch.setattr(bulk, "BulkSemaphore", WithHole)
    monkeypatch.setattr(bulk, "LIMIT", 1.0)  # for who is not let in
    with pytest.raises(SystemExit, match="to be let in"):
        run_main(bulk, monkeypatch, "--small", "1")
