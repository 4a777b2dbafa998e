"""Chapter 10, the pitfalls: the parts a reader would copy."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest

from Chapter10 import example09_task_group_or_gather as groups
from Chapter10 import example10_timeouts as timeouts
from Chapter10 import example11_clean_up_under_a_timeout as clean_ups
from Chapter10 import example12_shield_misunderstood as shields
from Chapter10 import example13_swallowed_cancellation as swallowed
from Chapter10 import example14_lost_task as lost
from Chapter10 import example15_exception_never_retrieved as unasked

LIMIT = 30.0  # seconds that nothing here comes near to


async def after(turns: int, outcome: Any) -> Any:
    for _ in range(turns):
        await asyncio.sleep(0)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


async def never() -> None:
    await asyncio.Event().wait()


# -- example09


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_the_first_that_succeeds_wins(failing: int) -> None:
    async def main() -> Any:
        losers = [after(0, OSError()) for _ in range(failing)]
        winner = await groups.race(after(9, "late"), *losers, after(3, "early"))
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return winner

    assert asyncio.run(main()) == "early"


def test_a_race_that_nobody_wins_raises_all() -> None:
    async def main() -> None:
        await groups.race(after(0, OSError("a")), after(2, ValueError("b")))

    with pytest.raises(ExceptionGroup) as group:
        asyncio.run(main())
    assert {str(error) for error in group.value.exceptions} == {"a", "b"}


def test_a_race_of_nobody_is_an_error() -> None:
    with pytest.raises(ValueError, match="nobody"):
        asyncio.run(groups.race())


def test_a_cancelled_race_leaves_nobody_running() -> None:
    async def main() -> bool:
        task = asyncio.create_task(groups.race(never(), never()))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return task.cancelled()

    assert asyncio.run(main())


def test_a_race_that_is_cancelled_twice_leaves_nobody_running() -> None:
    async def main() -> None:
        cleaned_up = []

        async def run() -> None:
            try:
                await never()
            finally:
                await after(5, None)
                cleaned_up.append(True)

        race = asyncio.create_task(groups.race(run(), run()))
        await after(3, None)
        for _ in range(2):
            race.cancel()
            await after(2, None)
        await asyncio.wait([race])
        assert race.cancelled()
        assert cleaned_up == [True, True]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


# -- example10


async def pieces(*waits: bool) -> AsyncIterator[bytes]:
    for wait in waits:
        if wait:
            await never()
        yield b"."


@pytest.mark.parametrize(
    ("waits", "each", "within", "outcome"),
    [
        ((), LIMIT, LIMIT, b""),
        ((False, False), LIMIT, LIMIT, b".."),
        ((False, True), 0.001, LIMIT, "silence after 1 bytes"),
        ((False, False, True), LIMIT, 0.001, "deadline after 2 bytes"),
    ],
)
def test_each_piece_and_the_whole_have_their_limit(
    waits: tuple[bool, ...], each: float, within: float, outcome: bytes | str
) -> None:
    async def main(deadline: float) -> bytes:
        deadline += asyncio.get_running_loop().time()
        return await timeouts.read_all(pieces(*waits), each=each, deadline=deadline)

    if isinstance(outcome, bytes):
        assert asyncio.run(main(within)) == outcome
        return
    for longer in (1, 100, 10_000):  # a busy machine needs time for what is there
        with pytest.raises(TimeoutError) as error:
            asyncio.run(main(longer * within))
        if str(error.value) == outcome:
            return
    pytest.fail(str(error.value))


def test_a_timeout_of_the_source_is_its_own() -> None:
    async def source() -> AsyncIterator[bytes]:
        yield b"."
        raise TimeoutError("the peer says so")

    async def main() -> bytes:
        deadline = asyncio.get_running_loop().time() + LIMIT
        return await timeouts.read_all(source(), each=LIMIT, deadline=deadline)

    with pytest.raises(TimeoutError, match="the peer says so"):
        asyncio.run(main())


def test_a_source_that_never_waits_is_held_to_the_deadline() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"."

    async def main() -> None:
        deadline = asyncio.get_running_loop().time() + 0.05
        source = endless()
        with pytest.raises(TimeoutError, match="deadline"):
            await timeouts.read_all(source, each=LIMIT, deadline=deadline)

    asyncio.run(main())


# -- example11


def test_a_clean_up_returns_and_raises_what_it_does() -> None:
    assert asyncio.run(clean_ups.within(LIMIT, after(2, 42))) == 42
    with pytest.raises(LookupError):
        asyncio.run(clean_ups.within(LIMIT, after(2, LookupError())))


def test_a_clean_up_that_takes_too_long_is_cancelled() -> None:
    async def main() -> None:
        try:
            await clean_ups.within(0.001, never())
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with pytest.raises(TimeoutError):
        asyncio.run(main())


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_clean_up_is_seen_through_and_the_cancel_passed_on(times: int) -> None:
    async def main() -> tuple[bool, bool]:
        done, go_on = False, asyncio.Event()

        async def clean_up() -> None:
            nonlocal done
            await go_on.wait()
            done = True

        task = asyncio.create_task(clean_ups.within(LIMIT, clean_up()))
        for _ in range(times):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        go_on.set()
        await asyncio.wait([task])
        return done, task.cancelled()

    assert asyncio.run(main()) == (True, True)


# -- example12


def test_what_is_kept_gives_its_result_and_its_exception() -> None:
    async def main() -> Any:
        async with shields.Unfinished() as unfinished:
            with pytest.raises(LookupError):
                await unfinished.keep(after(1, LookupError()))
            return await unfinished.keep(after(1, 42))

    assert asyncio.run(main()) == 42


def test_after_the_block_nothing_is_kept() -> None:
    async def main() -> None:
        async with shields.Unfinished() as unfinished:
            pass
        with pytest.raises(RuntimeError, match="the block has ended"):
            await unfinished.keep(never())

    asyncio.run(main())


def test_what_is_not_finished_in_time_is_named() -> None:
    async def main() -> None:
        async with shields.Unfinished(limit=0.001) as unfinished:
            task = asyncio.create_task(unfinished.keep(never()))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])

    with pytest.raises(ExceptionGroup) as group:
        asyncio.run(main())
    assert isinstance(group.value.exceptions[0], TimeoutError)


def test_what_is_late_is_cancelled_and_waited_for() -> None:
    cleaned_up = []

    async def work() -> None:
        try:
            await never()
        finally:
            await after(5, None)
            cleaned_up.append(True)

    async def block() -> None:
        async with shields.Unfinished(limit=0.01) as unfinished:
            caller = asyncio.create_task(unfinished.keep(work()))
            await after(2, None)
            caller.cancel()

    async def main() -> None:
        with pytest.raises(ExceptionGroup) as group:
            await block()
        assert [type(error) for error in group.value.exceptions] == [TimeoutError]
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert cleaned_up == [True]


def test_a_cancel_while_leaving_has_the_failures_as_its_cause() -> None:
    go_on = asyncio.Event()

    async def save() -> None:
        await go_on.wait()
        raise OSError("disk full")

    async def block() -> None:
        async with shields.Unfinished() as unfinished:
            caller = asyncio.create_task(unfinished.keep(save()))
            await after(2, None)
            caller.cancel()

    async def main() -> None:
        leaving = asyncio.create_task(block())
        await after(10, None)
        leaving.cancel()
        await after(2, None)
        assert not leaving.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError) as info:
            await leaving
        cause: BaseException | None = info.value
        while cause is not None and not isinstance(cause, ExceptionGroup):
            cause = cause.__cause__ or cause.__context__
        assert cause is not None
        assert [str(error) for error in cause.exceptions] == ["disk full"]

    asyncio.run(main())


def test_a_failure_is_told_once() -> None:
    async def main() -> None:
        async with shields.Unfinished() as unfinished:
            failing = after(5, OSError("disk full"))
            caller = asyncio.create_task(unfinished.keep(failing))
            await after(1, None)
        with pytest.raises(OSError, match="disk full"):
            await caller

    asyncio.run(main())


async def raise_beside_a_failure(error: BaseException) -> None:
    async with shields.Unfinished() as unfinished:
        failing = after(5, OSError("disk full"))
        caller = asyncio.create_task(unfinished.keep(failing))
        await after(2, None)
        caller.cancel()
        await after(2, None)
        raise error


def test_what_the_block_raises_and_what_was_kept_come_together() -> None:
    with pytest.raises(ExceptionGroup) as group:
        asyncio.run(raise_beside_a_failure(LookupError()))
    kinds = [type(error) for error in group.value.exceptions]
    assert kinds == [LookupError, OSError]


def test_what_the_block_raises_comes_alone_if_nothing_else_has_failed() -> None:
    async def main() -> None:
        async with shields.Unfinished() as unfinished:
            await unfinished.keep(after(1, None))
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(main())


def test_an_exit_is_not_lost_to_a_failure() -> None:
    with pytest.raises(SystemExit) as info:
        asyncio.run(raise_beside_a_failure(SystemExit(3)))
    assert info.value.code == 3
    assert isinstance(info.value.__cause__, ExceptionGroup)


# -- example13


def test_cancel_and_wait_returns_when_the_task_has_ended() -> None:
    async def main() -> bool:
        task = asyncio.create_task(never())
        await asyncio.sleep(0)
        await swallowed.cancel_and_wait(task)
        return task.cancelled()

    assert asyncio.run(main())


def test_cancel_and_wait_raises_what_the_task_raises_instead() -> None:
    async def stubborn() -> None:
        try:
            await never()
        finally:
            raise LookupError

    async def main() -> None:
        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await swallowed.cancel_and_wait(task)

    with pytest.raises(LookupError):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("stop", "goes_on"),
    [(swallowed.suppressing, True), (swallowed.cancel_and_wait, False)],
)
def test_ones_own_cancellation(stop: Any, goes_on: bool) -> None:
    assert asyncio.run(swallowed.own_cancellation(stop)) == goes_on


# -- example14


def test_background_tasks_are_kept_and_waited_for() -> None:
    async def main() -> list[object]:
        ended: list[object] = []

        async def work() -> None:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_later(0.001, future.set_result, None)
            gc.collect()
            await future
            ended.append("work")

        async with lost.BackgroundTasks(on_error=ended.append) as tasks:
            tasks.spawn(work())
        return ended

    assert asyncio.run(main()) == ["work"]


def test_failures_are_told_at_once_and_leave_the_others_alone() -> None:
    failure = LookupError()

    async def main() -> list[object]:
        told: list[object] = []
        async with lost.BackgroundTasks(on_error=told.append) as tasks:
            tasks.spawn(after(0, failure))
            tasks.spawn(after(9, None))
            await after(4, None)
            assert told == [failure]
        return told

    assert asyncio.run(main()) == [failure]


def test_background_tasks_are_cancelled_if_the_block_fails() -> None:
    async def main() -> None:
        try:
            async with lost.BackgroundTasks(on_error=lambda _: None) as tasks:
                tasks.spawn(never())
                await asyncio.sleep(0)
                raise LookupError
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with pytest.raises(LookupError):
        asyncio.run(main())


def test_background_tasks_are_cancelled_once_however_often_the_block_is() -> None:
    cleaned_up = []

    async def work() -> None:
        try:
            await never()
        finally:
            await after(5, None)
            cleaned_up.append(True)

    async def block() -> None:
        async with lost.BackgroundTasks(print) as tasks:
            for _ in range(2):
                tasks.spawn(work())

    async def main() -> None:
        leaving = asyncio.create_task(block())
        await after(3, None)
        for _ in range(3):
            leaving.cancel()
            await after(1, None)
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert cleaned_up == [True, True]


def test_a_background_task_may_start_another_but_not_after_the_end() -> None:
    async def main() -> list[int]:
        done: list[int] = []

        async def work(more: int) -> None:
            await after(1, None)
            if more:
                tasks.spawn(work(more - 1))
            done.append(more)

        async with lost.BackgroundTasks(print) as tasks:
            tasks.spawn(work(2))
        with pytest.raises(RuntimeError, match="has ended"):
            tasks.spawn(work(0))
        return done

    assert asyncio.run(main()) == [2, 1, 0]


# -- example15


@pytest.mark.parametrize(
    ("outcome", "told"),
    [(None, []), (LookupError("lost"), ["Task has failed: lost"])],
)
def test_tell_tells_of_failures_alone(outcome: object, told: list[str]) -> None:
    async def main() -> list[str]:
        handler = unasked.Handler()
        asyncio.get_running_loop().set_exception_handler(handler)
        task = asyncio.create_task(after(1, outcome))
        task.add_done_callback(unasked.tell)
        cancelled = asyncio.create_task(never())
        cancelled.add_done_callback(unasked.tell)
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([task, cancelled])
        await asyncio.sleep(0)
        return handler.told

    assert asyncio.run(main()) == told
