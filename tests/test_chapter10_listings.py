"""Chapter 10, the book's listings: the parts a reader would copy."""

import argparse
import asyncio
import math
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from Chapter10 import example01_countdowns_blocking as blocking
from Chapter10 import example02_countdowns_as_tasks as tasks
from Chapter10 import example03_primes_without_await as greedy
from Chapter10 import example04_primes_cooperatively as cooperative
from Chapter10 import example05_thread_executor as threads
from Chapter10 import example06_process_executor as processes
from Chapter10 import example07_factorials_with_gather as factorials
from Chapter10 import example08_life_of_an_event_loop as life

LIMIT = 30.0  # seconds that nothing here comes near to


def primes_below(end: int) -> list[int]:
    """Return the primes below `end`, by the definition."""
    return [n for n in range(2, end) if all(n % divisor for divisor in range(2, n))]


# -- example01 and 02


def test_blocking_count_downs_take_no_turns() -> None:
    steps = asyncio.run(blocking.count_down_all({"x": 2, "y": 0, "z": 1}, 0))
    assert steps == ["x2", "x1", "z1"]


def test_a_blocking_pause_stops_all_others() -> None:
    async def main() -> int:
        turns = 0

        async def stand_by() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        bystander = asyncio.create_task(stand_by())
        await blocking.count_down("x", 3, 0.001, [])
        bystander.cancel()
        return turns

    assert asyncio.run(main()) == 0


@pytest.mark.parametrize("how", [tasks.one_by_one, tasks.together])
def test_each_count_down_is_complete_and_in_order(how: tasks.CountAll) -> None:
    steps, beats = asyncio.run(tasks.count_all(how, 0.001))
    for name, start in tasks.COUNTS.items():
        own = [step for step in steps if step.startswith(name)]
        assert own == [f"{name}{number}" for number in range(start, 0, -1)]
    assert beats == (9 if how is tasks.one_by_one else 4)


def test_a_metronome_beats_for_all_who_wait_and_for_nobody_else() -> None:
    async def main() -> list[str]:
        metronome = tasks.Metronome(0.001)
        beating = asyncio.create_task(metronome.run())
        await asyncio.sleep(0.01)  # beats that nobody hears
        heard: list[str] = []
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
            for name, start in (("a", 1), ("b", 2)):
                group.create_task(tasks.count_down(name, start, metronome.tick, heard))
        beating.cancel()
        return heard

    assert asyncio.run(main()) == ["a1", "b2", "b1"]


# -- example03 and 04


def test_both_tests_find_the_primes() -> None:
    async def main() -> tuple[list[int], list[int]]:
        return (
            [n for n in range(100) if await greedy.is_prime(n)],
            [
                n
                for n in range(100)
                if await cooperative.is_prime(n, 3, cooperative.nothing)
            ],
        )

    assert asyncio.run(main()) == (primes_below(100), primes_below(100))


def test_a_task_that_never_waits_lets_nobody_in() -> None:
    answers = asyncio.run(greedy.test_all([97, 2, 91, 1]))
    assert answers == [(97, True, 1), (2, True, 1), (91, False, 1), (1, False, 1)]


@given(st.integers(2, 20_000), st.integers(1, 200))
def test_turns_are_given_before_each_step(number: int, step: int) -> None:
    pauses = 0

    async def pause() -> None:
        nonlocal pauses
        pauses += 1

    prime = asyncio.run(cooperative.is_prime(number, step, pause))
    divisions = math.isqrt(number) - 1
    if prime:
        assert pauses == -(-divisions // step)
    else:
        assert 1 <= pauses <= -(-divisions // step)


def test_the_bystander_has_a_turn_for_each_pause() -> None:
    async def test() -> bool:
        for _ in range(7):
            await asyncio.sleep(0)
        return True

    async def main() -> cooperative.Seen:
        return await cooperative.watch(test())

    seen = asyncio.run(main())
    assert (seen.prime, seen.turns) == (True, 7)
    assert 0 < seen.longest <= seen.took


def test_the_longest_wait_is_seen() -> None:
    async def test() -> bool:
        await asyncio.sleep(0)
        time.sleep(0.03)
        await asyncio.sleep(0)
        return False

    async def main() -> cooperative.Seen:
        return await cooperative.watch(test())

    assert asyncio.run(main()).longest >= 0.03


def test_a_breather_gives_way_when_it_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    breather = cooperative.Breather(5)

    def gives_way() -> bool:
        return bool(list(breather.pause().__await__()))

    assert not gives_way()
    now = 104.9
    assert not gives_way()
    now = 105.0
    assert gives_way()
    assert not gives_way()
    now = 111.0
    assert gives_way()


# -- example05


def test_results_come_in_order_whatever_the_calls_take() -> None:
    async def main() -> list[int]:
        second = threading.Event()

        def call(number: int) -> int:
            if number == 1:
                assert second.wait(LIMIT)
            else:
                second.set()
            return -number

        with ThreadPoolExecutor(2) as pool:
            return await threads.map_in_executor(pool, call, [1, 2])

    assert asyncio.run(main()) == [-1, -2]


def test_no_calls_have_no_results() -> None:
    async def main() -> list[Any]:
        with ThreadPoolExecutor(1) as pool:
            return await threads.map_in_executor(pool, abs, [])

    assert asyncio.run(main()) == []


def test_all_failures_are_raised_when_all_have_ended() -> None:
    ended = []

    def call(number: int) -> int:
        ended.append(number)
        if number % 2:
            raise LookupError(number)
        return number

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            await threads.map_in_executor(pool, call, range(4))

    with pytest.raises(ExceptionGroup, match="2 of 4 failed") as group:
        asyncio.run(main())
    assert [error.args for error in group.value.exceptions] == [(1,), (3,)]
    assert ended == [0, 1, 2, 3]


def test_calls_that_others_have_cancelled_are_failures() -> None:
    entered, leave = threading.Event(), threading.Event()

    def call(_: int) -> None:
        entered.set()
        assert leave.wait(LIMIT)

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            work = threads.map_in_executor(pool, call, range(3))
            async with asyncio.TaskGroup() as group:
                group.create_task(work)
                await asyncio.to_thread(entered.wait, LIMIT)
                pool.shutdown(wait=False, cancel_futures=True)
                leave.set()

    with pytest.raises(ExceptionGroup) as group:
        asyncio.run(main())
    (failed,) = group.value.exceptions
    assert isinstance(failed, ExceptionGroup)
    assert "2 of 3 failed" in str(failed)
    assert {type(error) for error in failed.exceptions} == {RuntimeError}


def test_an_exception_that_is_returned_is_a_result() -> None:
    async def main() -> list[BaseException]:
        with ThreadPoolExecutor(1) as pool:
            return await threads.map_in_executor(pool, ValueError, ["returned"])

    (result,) = asyncio.run(main())
    assert isinstance(result, ValueError)


def test_calls_that_have_not_begun_are_cancelled_with_their_caller() -> None:
    called = []
    entered, leave = threading.Event(), threading.Event()

    def call(number: int) -> None:
        called.append(number)
        entered.set()
        assert leave.wait(LIMIT)

    async def main() -> bool:
        with ThreadPoolExecutor(1) as pool:
            try:
                task = asyncio.create_task(
                    threads.map_in_executor(pool, call, range(5))
                )
                async with asyncio.timeout(LIMIT):
                    while not entered.is_set():
                        await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.wait([task])
            finally:
                leave.set()
        return task.cancelled()

    assert asyncio.run(main())
    assert called == [0]


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_calls_overlap_and_cannot_be_stopped(workers: int) -> None:
    overlap, failures, cancelled = asyncio.run(threads.observe(workers))
    assert overlap == ([n * n for n in range(2 * workers)], workers)
    assert failures == ["-1 is negative", "-2 is negative"]
    assert cancelled == (True, 1, 0)


# -- example06


def test_primes_in_a_range() -> None:
    numbers = range(200)
    assert processes.primes_in(numbers) == primes_below(200)


@given(st.integers(0, 50), st.integers(1, 60))
def test_chunks_are_the_range_again(size: int, n_chunks: int) -> None:
    numbers = range(7, 7 + size)
    chunks = processes.split(numbers, n_chunks)
    assert [number for chunk in chunks for number in chunk] == list(numbers)
    assert all(chunks)
    assert len(chunks) == min(n_chunks, size)


@pytest.mark.parametrize("n_chunks", [1, 7, 500])
def test_primes_come_in_order_from_an_executor(n_chunks: int) -> None:
    async def main() -> list[int]:
        with ThreadPoolExecutor(3) as pool:
            return await processes.primes_with(pool, range(200), n_chunks)

    assert asyncio.run(main()) == primes_below(200)


def test_primes_come_in_order_from_processes(start_method: str) -> None:
    with processes.process_pool(2) as pool:
        found = asyncio.run(processes.primes_with(pool, range(200), 10))
    assert found == primes_below(200)


def test_a_bystander_sees_how_long_the_loop_stood_still() -> None:
    async def main() -> list[float]:
        async with processes.bystander(0.001) as late:
            await asyncio.sleep(0.01)
            time.sleep(0.05)
            await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return late

    assert max(asyncio.run(main())) >= 0.04


# -- example07


@given(st.lists(st.integers(0, 30), max_size=6))
def test_factorials_come_in_order(numbers: list[int]) -> None:
    products, finished = asyncio.run(factorials.in_order(numbers))
    assert products == [math.factorial(number) for number in numbers]
    assert sorted(finished) == sorted(numbers)
    came = asyncio.run(factorials.as_they_come(numbers))
    assert came == [math.factorial(number) for number in finished]


def test_nobody_computes_on_for_who_was_cancelled() -> None:
    async def main() -> None:
        task = asyncio.create_task(factorials.as_they_come([10**6, 10**6]))
        await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_negative_number_has_no_factorial() -> None:
    with pytest.raises(ValueError, match="-1 has no factorial"):
        asyncio.run(factorials.factorial(-1, []))


def test_gather_leaves_the_others_running() -> None:
    failure = asyncio.run(factorials.one_fails([100, 1], -5))
    assert failure == factorials.Failure("-5 has no factorial", [1], [1, 100])


def test_outcomes_hold_exceptions_in_their_place() -> None:
    first, failed, last = asyncio.run(factorials.all_outcomes([3, -1, 4]))
    assert (first, last) == (6, 24)
    assert isinstance(failed, ValueError)


# -- example08


def test_the_order_of_calls_is_that_of_becoming_ready() -> None:
    for _ in range(20):
        calls = asyncio.run(life.order_of_calls())
        assert calls[:3] == ["soon", "from a thread", "soon, asked last"]
        assert calls[3:] == ["at -1 s", "at +1 ms", "at +2 ms"]


def test_the_end_of_run_comes_in_order_and_leaves_no_thread() -> None:
    before = threading.active_count()
    notes = life.tidied_up()
    assert [note.split()[1] for note in notes] == [
        "main",
        "task",
        "generator",
        "thread",
        "loop",
    ]
    assert threading.active_count() == before


def test_a_runner_keeps_its_loop() -> None:
    assert len(life.between_runs()) == 3


def test_what_a_loop_refuses() -> None:
    assert set(life.refused().values()) == {"RuntimeError"}


# -- options


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (blocking.pause, "0", "-0.1"),
        (tasks.period, "1", "0"),
        (greedy.to_test, "1", "0"),
        (cooperative.to_test, "2", "1"),
        (threads.some, "100", "101"),
        (processes.workers, "61", "62"),
        (processes.positive, "1", "0"),
        (factorials.small, "0", "-1"),
    ],
)
def test_options_name_what_is_wrong(
    check: Callable[[str], float], good: str, bad: str
) -> None:
    assert check(good) == float(good)
    with pytest.raises(argparse.ArgumentTypeError, match=f"not {bad}"):
        check(bad)


def test_a_failed_claim_ends_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(*_: object) -> list[str]:
        return ["a4"]

    monkeypatch.setattr(sys, "argv", ["script"])
    monkeypatch.setattr(blocking, "count_down_all", at_once)
    with pytest.raises(SystemExit, match="not to take turns"):
        blocking.main()
