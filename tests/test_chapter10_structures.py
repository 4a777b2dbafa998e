"""Chapter 10: queues, semaphores, generators, contexts, threads, watchdogs, trio."""

import asyncio
import concurrent.futures
import contextvars
import gc
import logging
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, TypeVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from Chapter10 import example16_bounded_queue_pipeline as pipelines
from Chapter10 import example17_semaphore as semaphores
from Chapter10 import example18_async_generators as generators
from Chapter10 import example19_context_variables as contexts
from Chapter10 import example20_to_thread as threads
from Chapter10 import example21_slow_callbacks as slow
from Chapter10 import example22_eager_tasks as eager_tasks
from Chapter10 import example23_same_program_on_trio as both
from Chapter10.example16_bounded_queue_pipeline import Channel, bounded_map
from Chapter10.example17_semaphore import map_with_semaphore, map_with_workers
from Chapter10.example18_async_generators import each_within
from Chapter10.example20_to_thread import call_until_stopped, put_all
from Chapter10.example21_slow_callbacks import Blockage, watched_loop

T = TypeVar("T")

LIMIT = 30.0  # seconds that a test waits for what must come
SHORT = 0.02  # seconds that a test waits for what must not come

needs_eager_tasks = pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="needs Python 3.12"
)


def run(coroutine: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Run it, LIMIT at most; no task may be left."""

    async def within_limit() -> T:
        async with asyncio.timeout(LIMIT):
            result = await coroutine
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return asyncio.run(within_limit(), debug=debug)


async def turns(n_turns: int = 10) -> None:
    """Let all others run until they wait."""
    for _ in range(n_turns):
        await asyncio.sleep(0)


async def never() -> None:
    await asyncio.Event().wait()


async def double(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


async def numbers(n: int) -> AsyncIterator[int]:
    for number in range(n):
        await asyncio.sleep(0)
        yield number


# -- example16


async def piped(
    items: Any,
    workers: int,
    maxsize: int,
    function: Callable[[int], Awaitable[int]] = double,
) -> list[int]:
    async with bounded_map(
        function, items, workers=workers, maxsize=maxsize
    ) as results:
        return [result async for result in results]


@settings(max_examples=25)
@given(st.integers(0, 20), st.integers(1, 5), st.integers(0, 4))
def test_every_item_comes_through_once(n: int, workers: int, maxsize: int) -> None:
    expected = [2 * number for number in range(n)]
    assert sorted(run(piped(range(n), workers, maxsize))) == expected
    assert sorted(run(piped(numbers(n), workers, maxsize))) == expected


def test_one_worker_keeps_the_order() -> None:
    assert run(piped(range(10), 1, 2)) == list(range(0, 20, 2))


def test_results_come_in_the_order_they_are_ready() -> None:
    async def main() -> list[int]:
        last_has_come = asyncio.Event()

        async def wait_for_last(number: int) -> int:
            if number == 2:
                last_has_come.set()
            await last_has_come.wait()
            return number

        return await piped(range(3), 3, 1, wait_for_last)

    assert run(main())[0] == 2


@settings(max_examples=25)
@given(st.integers(1, 4), st.integers(1, 4))
def test_a_held_consumer_holds_the_source_at_the_bound(
    workers: int, maxsize: int
) -> None:
    bound = 2 * maxsize + workers + 1

    async def main() -> int:
        taken = 0

        def source() -> Iterator[int]:
            nonlocal taken
            for number in range(10 * bound):
                taken += 1
                yield number

        most_ahead = 0
        async with bounded_map(
            double, source(), workers=workers, maxsize=maxsize
        ) as results:
            await turns(5 * bound)
            assert taken == bound  # reached, and not passed
            got = 0
            async for _ in results:
                got += 1
                await turns(3)
                most_ahead = max(most_ahead, taken - got)
        assert got == 10 * bound
        return most_ahead

    assert run(main()) == bound


def test_at_most_so_many_calls_are_in_progress() -> None:
    async def main() -> int:
        inside = most = 0

        async def count(number: int) -> int:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await turns(3)
            inside -= 1
            return number

        await piped(range(20), 3, 4, count)
        return most

    assert run(main()) == 3


@pytest.mark.parametrize("failing", ["function", "items", "async items", "block"])
def test_the_first_error_ends_the_pipeline_and_comes_out(failing: str) -> None:
    async def function(number: int) -> int:
        if failing == "function" and number == 3:
            raise KeyError("here")
        if failing != "block" and number > 0:
            await never()
        return number

    def items() -> Iterator[int]:
        yield from range(3)
        if failing == "items":
            raise KeyError("here")
        yield from range(3, 100)

    async def async_items() -> AsyncGenerator[int, None]:
        yield 0
        raise KeyError("here")

    async def main() -> None:
        source: Any = async_items() if failing == "async items" else items()
        async with bounded_map(function, source, workers=4, maxsize=2) as results:
            async for _ in results:
                if failing == "block":
                    raise KeyError("here")

    with pytest.raises(ExceptionGroup) as group:
        run(main())
    (error,) = group.value.exceptions
    assert repr(error) == "KeyError('here')"


@pytest.mark.parametrize("cancelled", ["function", "items"])
def test_what_others_cancelled_is_an_error_and_no_hang(cancelled: str) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()

        async def function(number: int) -> int:
            if cancelled == "function":
                await future
            return number

        async def items() -> AsyncGenerator[int, None]:
            yield 1
            if cancelled == "items":
                await future

        await piped(items(), 2, 1, function)

    with pytest.raises(ExceptionGroup) as group:
        run(main())
    assert all(isinstance(one, RuntimeError) for one in group.value.exceptions)


def test_leaving_the_block_cancels_what_is_in_progress() -> None:
    async def main() -> list[str]:
        ends: list[str] = []

        async def function(number: int) -> int:
            if number:
                try:
                    await never()
                finally:
                    ends.append("cancelled")
            return number

        async with bounded_map(function, range(10), workers=3, maxsize=1) as results:
            assert await anext(results) == 0
            await turns()
        return ends

    assert run(main()) == ["cancelled"] * 3


def test_a_cancel_ends_the_pipeline_as_a_cancel() -> None:
    async def main() -> bool:
        async def wait(_: int) -> int:
            await never()
            return 0

        task = asyncio.create_task(piped(range(5), 2, 1, wait))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(main())


@pytest.mark.parametrize(("workers", "maxsize"), [(0, 1), (-1, 1), (1, -1)])
def test_a_pipeline_needs_a_worker_and_a_size(workers: int, maxsize: int) -> None:
    with pytest.raises(ValueError, match=f"{workers} workers, queues of {maxsize}"):
        run(piped([], workers, maxsize))


def test_all_tasks_see_the_end_of_a_channel() -> None:
    async def main() -> list[list[int]]:
        channel: Channel[int] = Channel(1)

        async def items() -> list[int]:
            return [item async for item in channel]

        tasks = [asyncio.create_task(items()) for _ in range(4)]
        await turns()
        await channel.put(1)
        await channel.close()
        return await asyncio.gather(*tasks)

    assert sorted(run(main())) == [[], [], [], [1]]


def test_queue_shutdown_does_what_the_sentinel_does() -> None:
    async def main() -> list[str]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        if not hasattr(queue, "shutdown"):
            pytest.skip("needs Queue.shutdown, from Python 3.13 on")
        tasks = [asyncio.create_task(queue.get()) for _ in range(3)]
        await turns()
        queue.shutdown()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        return [type(end).__name__ for end in ends]

    assert run(main()) == ["QueueShutDown"] * 3


def test_the_source_tells_how_far_it_is_ahead() -> None:
    ahead: list[int] = []
    source = pipelines.Source(3, ahead.append)
    items = iter(source)
    next(items)
    next(items)
    source.consume()
    assert (ahead, source.given) == ([1, 2, 1], 2)
    assert list(items) == [2]
    assert (ahead, source.given) == ([1, 2, 1, 2], 3)


def test_a_pipeline_that_nobody_reads_leaves_nothing_unawaited() -> None:
    async def main() -> None:
        async def double(item: int) -> int:
            return 2 * item

        async with bounded_map(double, [1, 2], workers=1, maxsize=1):
            pass  # before the first step of any stage
        gc.collect()

    run(main())  # a warning would be an error


@pytest.mark.parametrize("option", ["--workers", "--maxsize"])
def test_sizes_of_a_pipeline_have_bounds(
    option: str, complaint: Callable[..., str]
) -> None:
    assert complaint(pipelines, option, "0").endswith("must be in 1 … 200, not 0")
    assert complaint(pipelines, option, "201").endswith("must be in 1 … 200, not 201")


def test_a_picture_has_a_suffix(complaint: Callable[..., str]) -> None:
    assert "x.txt" in complaint(pipelines, "--plot", "x.txt")


# -- example17

MAPS = pytest.mark.parametrize("map_", [map_with_semaphore, map_with_workers])

AnyMap = Callable[
    [Callable[[int], Awaitable[int]], Iterable[int], int],
    Coroutine[Any, Any, list[int]],
]


@MAPS
@settings(max_examples=20)
@given(n=st.integers(0, 12), limit=st.integers(1, 5))
def test_results_are_in_order_and_the_limit_is_kept(
    map_: AnyMap, n: int, limit: int
) -> None:
    async def main() -> tuple[list[int], int]:
        inside = most = 0

        async def function(number: int) -> int:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            await turns(1 + (n - number) % 3)  # later ones may be faster
            inside -= 1
            return 2 * number

        return await map_(function, range(n), limit), most

    assert run(main()) == ([2 * number for number in range(n)], min(n, limit))


@MAPS
def test_a_failing_call_cancels_the_others(map_: AnyMap) -> None:
    cancelled = []

    async def function(number: int) -> int:
        if number == 1:
            raise LookupError("one")
        try:
            await never()
        finally:
            cancelled.append(number)
        return number

    with pytest.raises(ExceptionGroup) as group:
        run(map_(function, range(10), 3))
    assert repr(group.value.exceptions) == "(LookupError('one'),)"
    # The permit of the call that failed may still have let the next one in.
    assert set(cancelled) in ({0, 2}, {0, 2, 3})


@MAPS
@pytest.mark.parametrize("limit", [0, -1])
def test_nothing_runs_with_a_limit_of_nothing(map_: AnyMap, limit: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, not {limit}"):
        run(map_(double, [1], limit))


def test_workers_draw_an_item_when_they_are_ready_for_it() -> None:
    async def main() -> tuple[int, int]:
        drawn = 0

        def items() -> Iterator[int]:
            nonlocal drawn
            for number in range(20):
                drawn += 1
                yield number

        async def drawn_by_first_call(map_: AnyMap) -> int:
            nonlocal drawn
            drawn = 0
            seen: list[int] = []

            async def look(_: int) -> int:
                seen.append(drawn)
                await asyncio.sleep(0)
                return 0

            await map_(look, items(), 3)
            return seen[0]

        return (
            await drawn_by_first_call(map_with_workers),
            await drawn_by_first_call(map_with_semaphore),
        )

    assert run(main()) == (1, 20)


def test_a_task_for_each_item_or_for_each_permit() -> None:
    jobs = [
        run(semaphores.watch(map_, 40, 4), debug=False)
        for map_ in (map_with_semaphore, map_with_workers)
    ]
    assert [(job.tasks, job.most) for job in jobs] == [(40, 4), (4, 4)]
    assert jobs[0].memory > jobs[1].memory > 0


def test_admitted_counts_and_gives_back() -> None:
    async def main() -> tuple[int, int]:
        semaphore = asyncio.Semaphore(3)
        await semaphore.acquire()
        return await semaphores.admitted(semaphore), await semaphores.admitted(
            semaphore
        )

    assert run(main()) == (2, 2)


def test_who_waits_is_served_first_come_first_served() -> None:
    assert run(semaphores.order_of_service(2)) == ["1", "2", "newcomer"]


@pytest.mark.parametrize("awake", [False, True])
def test_a_cancelled_waiter_takes_no_permit_along(awake: bool) -> None:
    assert run(semaphores.permits_after_cancel(awake=awake)) == 2


@pytest.mark.parametrize(("properly", "left"), [(True, 2), (False, 1)])
def test_a_permit_is_lost_without_async_with(properly: bool, left: int) -> None:
    got = run(semaphores.permits_after_cancel_inside(properly=properly))
    assert got == left


@pytest.mark.parametrize("option", ["--limit", "--items"])
def test_limit_and_items_are_positive(
    option: str, complaint: Callable[..., str]
) -> None:
    assert complaint(semaphores, option, "-1").endswith("must be at least 1, not -1")


@pytest.mark.parametrize("map_", [map_with_semaphore, map_with_workers])
@pytest.mark.parametrize("limit", [1, 2])
def test_what_others_have_cancelled_loses_no_result_silently(
    map_: Callable[..., Coroutine[Any, Any, list[int]]], limit: int
) -> None:
    async def main() -> None:
        lost = asyncio.get_running_loop().create_future()
        lost.cancel()

        async def function(item: int) -> int:
            return await lost if item == 3 else item

        with pytest.raises(ExceptionGroup) as info:
            await map_(function, range(10), limit)
        assert [type(error) for error in info.value.exceptions] == [RuntimeError]

    run(main())


# -- example18


@pytest.mark.parametrize(
    ("ending", "plain"),
    [
        ("at the last row", "the consumer"),
        ("break", "nobody"),
        ("exception in the body", "nobody"),
        ("cancelled in the body", "nobody"),
        ("cancelled in a fetch", "the consumer"),
    ],
)
def test_only_aclosing_closes_a_generator_at_every_end(ending: str, plain: str) -> None:
    assert run(generators.closed_by_then(generators.plainly, ending)) == plain
    closing = generators.closed_by_then(generators.with_aclosing, ending)
    assert run(closing) == "the consumer"


def test_what_is_left_open_is_closed_by_another_task() -> None:
    assert run(generators.closed_by_garbage_collector())
    assert generators.closed_by_the_end_of_run()


def test_a_scope_around_a_yield_hits_the_consumer() -> None:
    assert run(generators.timeout_that_spans_a_yield()) == "cancelled"
    assert run(generators.timeout_in_other_hands()) == (True, False)
    assert run(generators.child_that_fails_beside_a_yield()) == "cancelled"


def test_outcome_of_tells_errors_and_cancels_apart() -> None:
    async def fail() -> None:
        raise LookupError("x")

    async def nothing() -> None: ...

    assert run(generators.outcome_of(fail())) == "LookupError('x')"
    assert run(generators.outcome_of(nothing())) == "no error"


def test_each_within_yields_all_items() -> None:
    async def main() -> list[int]:
        async with aclosing(each_within(LIMIT, counted(5, []))) as items:
            return [item async for item in items]

    assert run(main()) == [0, 1, 2, 3, 4]


async def counted(n: int, ends: list[str]) -> AsyncGenerator[int, None]:
    """Yield some numbers without ever waiting; say when that ends."""
    try:
        for number in range(n):
            yield number
    finally:
        ends.append("closed")


async def append_all(got: list[int], generator: AsyncGenerator[int, None]) -> None:
    async with aclosing(generator) as items:
        async for item in items:
            got.append(item)


def test_each_within_does_not_count_the_time_of_the_body() -> None:
    async def main() -> int:
        got = 0
        async with aclosing(each_within(SHORT / 4, counted(3, []))) as items:
            async for _ in items:
                got += 1
                await asyncio.sleep(SHORT / 2)
        return got

    assert run(main()) == 3


def test_each_within_times_out_where_the_generator_is_too_slow() -> None:
    ends: list[str] = []

    async def slow_items() -> AsyncGenerator[int, None]:
        try:
            yield 1
            await never()
        finally:
            ends.append("closed")

    async def main() -> list[int]:
        got: list[int] = []
        with pytest.raises(TimeoutError):
            await append_all(got, each_within(SHORT / 4, slow_items()))
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        return got

    assert (run(main()), ends) == ([1], ["closed"])


@pytest.mark.parametrize("how", ["break", "exception"])
def test_each_within_closes_what_it_iterates_over(how: str) -> None:
    ends: list[str] = []

    async def main() -> list[str]:
        with suppress(LookupError):
            async with aclosing(each_within(LIMIT, counted(3, ends))) as items:
                async for _ in items:
                    if how == "break":
                        break
                    raise LookupError
        return ends.copy()

    assert run(main()) == ["closed"]


# -- example19


def test_only_a_context_variable_keeps_tasks_apart() -> None:
    box = {"name": ""}

    async def main() -> tuple[str, str]:
        common = await contexts.read_back(
            lambda name: box.update(name=name), lambda: box["name"]
        )
        own = await contexts.read_back(contexts.REQUEST.set, contexts.REQUEST.get)
        return common, own

    assert run(main()) == ("a reads b, b reads b", "a reads a, b reads b")


def test_records_bear_the_request_they_were_logged_for() -> None:
    async def main() -> dict[str, dict[str, str]]:
        return await contexts.logged_requests("abc")

    seen = run(main())
    own = {name: name for name in "abc"}
    nobody = dict.fromkeys("abc", "-")
    not_carried = {"in run_in_executor", "after the block"}
    assert len(seen) == 7
    for message, requests in seen.items():
        assert requests == (nobody if message in not_carried else own), message
    assert not logging.getLogger("example19").handlers


def test_the_filter_lets_every_record_through() -> None:
    record = logging.makeLogRecord({"msg": "x"})
    with contexts.working_for("r1"):
        assert contexts.RequestFilter().filter(record)
    formatter = logging.Formatter("%(request)s %(message)s")
    assert formatter.format(record) == "r1 x"


def test_working_for_puts_back_what_was_even_after_an_error() -> None:
    with suppress(KeyError), contexts.working_for("outer"):
        with suppress(LookupError), contexts.working_for("inner"):
            assert contexts.REQUEST.get() == "inner"
            raise LookupError
        assert contexts.REQUEST.get() == "outer"
        raise KeyError
    assert contexts.REQUEST.get() == "-"


def test_in_own_context_sees_the_caller_and_leaves_nothing() -> None:
    variable = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    def work(value: str, *, last: str) -> str:
        seen.append(variable.get())
        variable.set(value)
        return last

    token = variable.set("caller's")
    wrapped = contexts.in_own_context(work)
    variable.reset(token)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(wrapped, "thread's", last="result").result() == "result"
        left = pool.submit(variable.get).result()
    assert (seen, left, variable.get()) == (["caller's"], "none", "none")


def test_contexts_are_copied_at_create_task_and_shared_by_await() -> None:
    # Each asyncio.run has a context of its own.
    child, parent = run(contexts.seen_by_child_and_parent())
    assert (child, parent) == ("at create_task", "after create_task")
    assert run(contexts.left_by_what_is_awaited()) == ("coroutine's", "generator's")
    assert run(contexts.left_in_a_shared_context()) == ("first's", "-")
    assert run(contexts.errors_of_resets()) == ("RuntimeError", "ValueError")


def test_a_token_is_a_context_manager_from_3_14_on() -> None:
    manager: Any = contextvars.copy_context().run(contexts.REQUEST.set, "x")
    assert hasattr(manager, "__exit__") == (sys.version_info >= (3, 14))


def test_a_generator_that_another_task_closes_cannot_reset() -> None:
    errors: list[str] = []

    async def working() -> AsyncGenerator[None, None]:
        token = contexts.REQUEST.set("generator's")
        try:
            yield
        finally:
            try:
                contexts.REQUEST.reset(token)
            except ValueError as error:
                errors.append(type(error).__name__)

    async def main() -> None:
        items = working()
        await asyncio.create_task(begin(items))
        await asyncio.create_task(items.aclose())

    async def begin(items: AsyncGenerator[None, None]) -> None:
        await anext(items)

    run(main())
    assert errors == ["ValueError"]


# -- example20


def test_a_call_until_stopped_returns_or_raises_what_the_function_does() -> None:
    def function(stop: threading.Event, x: int, *, y: int) -> tuple[int, bool, bool]:
        if y < 0:
            raise ValueError("negative")
        other = threading.current_thread() is not threading.main_thread()
        return x + y, stop.is_set(), other

    async def main() -> tuple[int, bool, bool]:
        with pytest.raises(ValueError, match="negative"):
            await call_until_stopped(function, 1, y=-1)
        return await call_until_stopped(function, 1, y=2)

    assert run(main()) == (3, False, True)


def test_a_call_until_stopped_sees_the_callers_context() -> None:
    async def main() -> str:
        threads.USER.set("bob")
        return await call_until_stopped(lambda _: threads.USER.get())

    assert run(main()) == "bob"


@pytest.mark.parametrize("n_cancels", [1, 3])
def test_a_cancelled_call_ends_when_the_function_has_ended(n_cancels: int) -> None:
    told, go_on = threading.Event(), threading.Event()
    ended: list[str] = []

    def function(stop: threading.Event) -> None:
        stop.wait(LIMIT)
        told.set()
        go_on.wait(LIMIT)
        ended.append("ended")

    async def main() -> bool:
        task = asyncio.create_task(call_until_stopped(function))
        await turns()
        task.cancel()
        assert await asyncio.to_thread(told.wait, LIMIT)
        for _ in range(n_cancels - 1):
            task.cancel()
            await turns()
        assert not task.done()
        go_on.set()
        await asyncio.wait([task])
        assert ended == ["ended"]
        return task.cancelled()

    assert run(main())


def test_an_error_after_a_cancel_is_the_cause_of_the_cancel() -> None:
    causes: list[str] = []

    def function(stop: threading.Event) -> None:
        stop.wait(LIMIT)
        raise LookupError("in the clean-up")

    async def call() -> None:
        try:
            await call_until_stopped(function)
        except asyncio.CancelledError as error:
            causes.append(repr(error.__cause__))
            raise

    async def main() -> bool:
        task = asyncio.create_task(call())
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert run(main())
    assert causes == ["LookupError('in the clean-up')"]


def test_the_end_of_run_stops_a_call_and_waits_for_it() -> None:
    began = threading.Event()
    events: list[str] = []

    def function(stop: threading.Event) -> None:
        began.set()
        assert stop.wait(LIMIT)
        time.sleep(SHORT)
        events.append("the function has ended")

    async def call() -> None:
        try:
            await call_until_stopped(function)
        finally:
            events.append("the call returns")

    async def main() -> "asyncio.Task[None]":
        task = asyncio.create_task(call())
        await asyncio.to_thread(began.wait, LIMIT)
        return task  # asyncio.run cancels it, and all other tasks

    assert asyncio.run(main()).cancelled()
    assert events == ["the function has ended", "the call returns"]


def test_the_end_of_run_waits_for_a_thread_whose_await_was_cancelled() -> None:
    ended = threading.Event()

    def work() -> None:
        time.sleep(SHORT)
        ended.set()

    async def main() -> bool:
        task = asyncio.create_task(asyncio.to_thread(work))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(main())
    assert ended.is_set()


def test_put_all_waits_for_room_and_keeps_the_order() -> None:
    async def main() -> list[int]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        drawn: list[int] = []

        def items() -> Iterator[int]:
            for number in range(5):
                drawn.append(number)
                yield number

        task = asyncio.create_task(put_all(items(), queue))
        got = []
        for number in range(5):
            got.append(await queue.get())
            # At most one in the queue and one that waits for room.
            assert len(drawn) <= number + 3
        await task
        return got

    assert run(main()) == [0, 1, 2, 3, 4]


def test_put_all_takes_the_context_along() -> None:
    user = contextvars.ContextVar("user", default="nobody")

    async def main() -> str:
        user.set("alice")
        queue: asyncio.Queue[str] = asyncio.Queue()
        await put_all((user.get() for _ in range(1)), queue)
        return queue.get_nowait()

    assert run(main()) == "alice"


def test_put_all_brings_the_error_of_its_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    async def main() -> None:
        await put_all(items(), asyncio.Queue())

    with pytest.raises(LookupError, match="no more"):
        run(main())


def test_put_all_ends_when_it_is_cancelled_while_there_is_no_room() -> None:
    async def main() -> tuple[bool, int]:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        second_waits = threading.Event()

        def items() -> Iterator[int]:
            yield 1
            second_waits.set()
            yield 2
            yield 3

        task = asyncio.create_task(put_all(items(), queue))
        await asyncio.to_thread(second_waits.wait, LIMIT)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled(), queue.qsize()

    assert run(main()) == (True, 1)


def test_put_all_puts_nothing_after_a_cancel_between_two_items() -> None:
    async def main() -> tuple[bool, int]:
        queue: asyncio.Queue[int] = asyncio.Queue()
        between, go_on = threading.Event(), threading.Event()

        def items() -> Iterator[int]:
            yield 1
            between.set()
            go_on.wait(LIMIT)
            yield 2
            yield 3

        task = asyncio.create_task(put_all(items(), queue))
        await asyncio.to_thread(between.wait, LIMIT)
        task.cancel()
        await turns()
        go_on.set()
        await asyncio.wait([task])
        return task.cancelled(), queue.qsize()

    assert run(main()) == (True, 1)


def test_only_a_call_in_a_thread_leaves_the_loop_alive() -> None:
    assert run(threads.waits_for_the_loop()) == (False, True)


def test_a_cancel_does_not_stop_a_thread() -> None:
    assert run(threads.cancel_await_of_thread()) == (True, True)


@pytest.mark.parametrize(
    ("n_threads", "outcome"), [(2, "3 of 3 fail"), (3, "all meet"), (4, "all meet")]
)
def test_calls_that_wait_for_one_another_need_as_many_threads(
    n_threads: int, outcome: str
) -> None:
    assert run(threads.meet(3, n_threads)) == outcome


def test_the_default_executor_has_few_threads() -> None:
    assert run(threads.threads_of_default_executor(1)) == 1
    cores = getattr(os, "process_cpu_count", os.cpu_count)() or 1
    assert run(threads.threads_of_default_executor(40)) == min(32, cores + 4)


def test_what_a_thread_makes_ready_does_not_wake_the_loop() -> None:
    selector = threads.WatchedSelector()
    with asyncio.Runner(
        debug=False, loop_factory=lambda: asyncio.SelectorEventLoop(selector)
    ) as runner:
        assert runner.run(threads.put_from_thread(selector)) == (False, True)


def test_put_that_others_cancel_is_an_error() -> None:
    async def main() -> None:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        putting = asyncio.create_task(put_all(range(5), queue))
        while not (queue.full() and len(asyncio.all_tasks()) > 2):
            await asyncio.sleep(0.001)
        for task in asyncio.all_tasks() - {asyncio.current_task(), putting}:
            task.cancel()
        with pytest.raises(RuntimeError, match="cancelled by others"):
            await putting

    run(main())


# -- example21


def blocked_until(condition: threading.Event) -> None:
    assert condition.wait(LIMIT)


def test_the_watchdog_names_the_line_while_it_blocks() -> None:
    reports: list[Blockage] = []
    seen = threading.Event()

    def report(blockage: Blockage) -> None:
        reports.append(blockage)
        if any(frame.name == "blocked_until" for frame in blockage.stack):
            seen.set()

    async def main() -> None:
        async with watched_loop(report, SHORT, SHORT):
            blocked_until(seen)

    run(main(), debug=False)
    last = reports[-1]
    assert last.seconds > SHORT / 2  # clocks may be coarse
    line = next(frame for frame in last.stack if frame.name == "blocked_until")
    assert line.line == "assert condition.wait(LIMIT)"
    assert f"event loop blocked for {last.seconds:.2f} s at\n  File " in str(last)
    assert "blocked_until" in str(last)


def test_the_watchdog_goes_on_after_a_blockage() -> None:
    seen = [threading.Event(), threading.Event()]
    number = 0

    def report(blockage: Blockage) -> None:
        if any(frame.name == "blocked_until" for frame in blockage.stack):
            seen[number].set()

    async def main() -> None:
        nonlocal number
        async with watched_loop(report, SHORT, 0.001):
            blocked_until(seen[0])
            await asyncio.sleep(SHORT)
            number = 1
            blocked_until(seen[1])

    run(main(), debug=False)


def test_the_watchdog_says_nothing_of_a_loop_that_answers() -> None:
    reports: list[Blockage] = []

    async def main() -> None:
        async with watched_loop(reports.append, LIMIT, 0.001):
            await asyncio.sleep(SHORT)

    run(main())
    assert reports == []


@pytest.mark.parametrize("error", [None, LookupError, asyncio.CancelledError])
def test_the_watchdog_ends_with_its_block(error: type[BaseException] | None) -> None:
    before = set(threading.enumerate())

    async def main() -> set[threading.Thread]:
        async with watched_loop(lambda _: None, LIMIT, LIMIT):
            inside = set(threading.enumerate())
            if error is not None:
                raise error
        return inside

    began = time.perf_counter()
    if error is None:
        assert len(run(main()) - before) == 1
    else:
        with pytest.raises(error):
            run(main())
    assert set(threading.enumerate()) <= before
    assert time.perf_counter() - began < LIMIT  # neither patience nor period is waited


def test_debug_mode_names_the_task_and_where_it_stands_afterwards() -> None:
    message, line = slow.step_that_debug_mode_names()
    assert "handle_request()" in message
    assert line == "await asyncio.sleep(0)"


def test_logged_catches_warnings_and_puts_the_logger_back() -> None:
    logger = logging.getLogger("test_logged")
    with slow.logged("test_logged") as messages:
        logger.warning("a %s", "b")
        logger.info("not this")
        assert not logger.propagate
    assert (messages, logger.handlers, logger.propagate) == (["a b"], [], True)


def test_only_debug_mode_refuses_call_soon_from_a_thread() -> None:
    assert slow.call_soon_in_thread(debug=True) == "RuntimeError"
    assert slow.call_soon_in_thread(debug=False) == "no error"


def test_only_debug_mode_says_where_a_coroutine_was_created() -> None:
    with_origin = slow.warning_of_forgotten_await(debug=True)
    without = slow.warning_of_forgotten_await(debug=False)
    assert "was never awaited" in with_origin
    assert "was never awaited" in without
    assert ("save()" in with_origin, "save()" in without) == (True, False)


@pytest.mark.parametrize(
    ("options", "variable", "debug"),
    [([], "", False), (["-X", "dev"], "", True), ([], "1", True), (["-E"], "1", False)],
)
def test_what_turns_debug_mode_on(
    options: list[str], variable: str, debug: bool
) -> None:
    code = "import asyncio.coroutines as c; print(c._is_debug_mode())"
    told = subprocess.run(
        [sys.executable, *options, "-c", code],
        env=os.environ | {"PYTHONASYNCIODEBUG": variable, "PYTHONDEVMODE": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == str(debug)


@pytest.mark.parametrize(
    ("patience", "period"),
    [(0, 0), (-1, 0), (1, -1), (math.nan, 0), (1, math.nan), (math.inf, 0), (1, 1e10)],
)
def test_watchdog_needs_patience(patience: float, period: float) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match=f"patience of {patience} s"):
            async with watched_loop(print, patience, period):
                pass

    run(main())


def test_report_that_fails_is_told_and_watching_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reports = []
    second = threading.Event()

    def report(blockage: Blockage) -> None:
        reports.append(blockage)
        if len(reports) > 1:
            second.set()
        raise ZeroDivisionError

    async def main() -> None:
        async with watched_loop(report, patience=0.01):
            assert second.wait(LIMIT)

    run(main())
    assert capsys.readouterr().err.count("ZeroDivisionError") >= 2


# -- example22


@needs_eager_tasks
@pytest.mark.parametrize("loop_is_eager", [False, True])
def test_a_task_starts_as_it_is_asked_to_whatever_the_loop(loop_is_eager: bool) -> None:
    def order(create: Callable[..., "asyncio.Task[None]"]) -> str:
        ordered = partial(eager_tasks.order, create)
        return eager_tasks.run(ordered, eager=loop_is_eager)[0]

    assert order(eager_tasks.start_eagerly) == "task begins"
    assert order(eager_tasks.start_later) == "creator goes on"
    eager = "task begins" if loop_is_eager else "creator goes on"
    assert order(asyncio.create_task) == eager


@needs_eager_tasks
def test_an_eager_task_that_does_not_wait_is_done_and_has_its_result() -> None:
    async def answer(fail: bool) -> int:
        if fail:
            raise LookupError("at once")
        return 42

    async def main() -> tuple[int, str]:
        good, bad = (eager_tasks.start_eagerly(answer(fail)) for fail in (False, True))
        assert good.done()
        assert bad.done()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return good.result(), repr(bad.exception())  # the creator is not hit by it

    assert run(main()) == (42, "LookupError('at once')")


@needs_eager_tasks
@pytest.mark.parametrize("row", eager_tasks.ROWS, ids=lambda row: row[0])
def test_what_differs_between_eager_and_scheduled_tasks(row: Any) -> None:
    _, function, expected = row
    got = tuple(eager_tasks.run(function, eager=kind) for kind in (False, True))
    assert got == expected


@needs_eager_tasks
def test_eager_start_agrees_where_there_is_one() -> None:
    eager_tasks.check_eager_start()


def test_a_cache_loads_once() -> None:
    loaded: list[int] = []

    async def load(key: int) -> str:
        loaded.append(key)
        return f"value {key}"

    async def main() -> list[str]:
        cache = eager_tasks.Cache(load)
        return [await cache.get(key) for key in (1, 2, 1)]

    assert run(main()) == ["value 1", "value 2", "value 1"]
    assert loaded == [1, 2]


@pytest.mark.skipif(
    hasattr(asyncio, "eager_task_factory"), reason="there are eager tasks here"
)
def test_without_eager_tasks_the_script_says_what_it_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as exit_:
        eager_tasks.main()
    assert exit_.value.code == 77
    assert capsys.readouterr().out.startswith("needs Python 3.12")


# -- example23

CHECKS = [
    pytest.param(both.run_asyncio, both.check_on_asyncio, id="asyncio"),
    pytest.param(both.run_trio, both.check_on_trio, id="trio"),
]


@pytest.mark.parametrize(("run_on", "check"), CHECKS)
@pytest.mark.parametrize("n_workers", [1, 2, 4])
def test_both_programs_read_all_pages(run_on: Any, check: Any, n_workers: int) -> None:
    report = run_on(check, list("abcde"), n_workers, math.inf)
    assert report == both.Report(dict.fromkeys("abcde", "fine"), n_workers)


@pytest.mark.parametrize(("run_on", "check"), CHECKS)
def test_both_programs_give_up_a_slow_page(run_on: Any, check: Any) -> None:
    report = run_on(check, ["slow", "a"], 1, SHORT / 4)
    assert report == both.Report({"slow": "too slow", "a": "fine"}, 1)


@pytest.mark.parametrize(("run_on", "check"), CHECKS)
def test_both_programs_end_at_a_broken_page_and_clean_up(
    run_on: Any, check: Any
) -> None:
    report = run_on(check, ["slow", "broken", *"abcdef"], 2, math.inf)
    assert report == both.Report({}, 2, "BrokenPageError('broken')")


@pytest.mark.parametrize(("run_on", "check"), CHECKS)
def test_both_programs_check_no_page_at_all(run_on: Any, check: Any) -> None:
    assert run_on(check, [], 2, math.inf) == both.Report({}, 2)


def test_a_cancel_is_an_event_in_asyncio_and_a_state_in_trio() -> None:
    assert both.run_asyncio(both.awaits_after_cancel_on_asyncio) == both.CHECKPOINTS
    assert both.run_trio(both.awaits_after_cancel_on_trio, shield=False) == 0
    assert (
        both.run_trio(both.awaits_after_cancel_on_trio, shield=True) == both.CHECKPOINTS
    )


def test_who_swallows_a_cancel_lives_on_in_asyncio_only() -> None:
    async def on_asyncio() -> bool:
        lives = False

        async def swallow() -> None:
            nonlocal lives
            with suppress(asyncio.CancelledError):
                await never()
            await asyncio.sleep(0)
            lives = True

        task = asyncio.create_task(swallow())
        await turns()
        task.cancel()
        await asyncio.wait([task])
        return lives

    async def on_trio() -> bool:
        with trio.CancelScope() as scope:
            scope.cancel()
            with suppress(trio.Cancelled):
                await trio.sleep_forever()
            await trio.sleep(0)
            return True
        return False

    assert (run(on_asyncio()), trio.run(on_trio)) == (True, False)


def test_ctrl_c_comes_out_of_trio_as_one_exception() -> None:
    async def interrupted() -> None:
        async with trio.open_nursery():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        both.run_trio(interrupted)


def test_another_group_comes_out_of_trio_as_it_is() -> None:
    async def failing() -> None:
        async with trio.open_nursery():
            raise LookupError("x")

    with pytest.raises(ExceptionGroup) as group:
        both.run_trio(failing)
    assert repr(group.value.exceptions) == "(LookupError('x'),)"


@pytest.mark.parametrize("name", ["Barrier"])
def test_trio_lacks_what_the_table_says(name: str) -> None:
    assert hasattr(asyncio, name)
    assert not hasattr(trio, name)
