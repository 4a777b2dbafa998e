"""One of several tasks fails: `gather` leaves the others running, a TaskGroup does not.

gather raises the first exception at once. The other tasks go on, though nobody waits
for them any more: what they do still happens, after the failure has been reported, and
what they raise then is told to nobody. A TaskGroup cancels them, waits until they have
cleaned up, and raises an ExceptionGroup that holds all failures, not just the first;
`except*` handles them by type. If a task fails while the block of its group still
waits, the block is cancelled, too. When it has been left, nothing of it is running:
structured concurrency.

`race` is such a structure: the first result wins, and the losers are gone when it
returns.

Output:
    one task fails    gather            TaskGroup
      raised          1 ValueError      1 ValueError
      its sibling is  running           gone
      and then        had its effect    cancelled
    a second failure  told to nobody    in the same group
    three fail in a TaskGroup, and except* gets
      ValueError      a, c
      OSError         b
    one fails beside the block of its group: the block is cancelled
    cancelled from outside: both cancel the tasks, the TaskGroup alone waits for them
    a race is won by the fastest that succeeds
    a TaskGroup leaves nothing running behind it
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

TIME_LIMIT = 10.0  # seconds


async def race(*coroutines: Coroutine[Any, Any, T]) -> T:
    """Return the first result; cancel the others, and wait until they have ended.

    One that fails has not won. Of several that are ready at once the first named wins.
    What the losers raise is dropped. Cancelled itself, it cancels all, and waits, too.

    Raises:
        ExceptionGroup: all have failed; one that was cancelled, by a RuntimeError.
        ValueError: there are none.
    """
    if not coroutines:
        raise ValueError("a race of nobody")
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    running = set(tasks)
    failures: list[BaseException] = []
    try:
        while running:
            done, running = await asyncio.wait(
                running, return_when=asyncio.FIRST_COMPLETED
            )
            for task in filter(done.__contains__, tasks):
                if task.cancelled():
                    failures.append(RuntimeError("a task was cancelled"))
                elif (error := task.exception()) is not None:
                    failures.append(error)
                else:
                    return task.result()
    finally:
        for task in tasks:
            task.cancel()  # no effect on one that has ended
        cancelled: asyncio.CancelledError | None = None
        while not all(task.done() for task in tasks):
            try:
                await asyncio.wait(tasks)
            except asyncio.CancelledError as error:
                cancelled = error  # once more: wait on
        for task in tasks:
            if not task.cancelled():
                task.exception()  # or asyncio complains that nobody has asked for it
        if cancelled is not None:
            raise cancelled
    raise BaseExceptionGroup("nobody won", failures)


class Sibling:
    """A task that waits to be told to go on, has an effect, and cleans up."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.running = self.had_effect = self.cleaned_up = False

    async def work(self) -> None:
        self.running = True
        try:
            await self.go_on.wait()
            self.had_effect = True
        finally:
            for _ in range(5):  # clean-up may await
                await asyncio.sleep(0)
            self.cleaned_up = True
            self.running = False


async def fail(error: Exception) -> None:
    """Fail after a turn, in which the others begin."""
    await asyncio.sleep(0)
    raise error


async def with_gather(sibling: Sibling, failing: Awaitable[None]) -> None:
    await asyncio.gather(sibling.work(), failing)


async def with_task_group(sibling: Sibling, failing: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(sibling.work())
        group.create_task(failing)


Together = Callable[[Sibling, Coroutine[Any, Any, None]], Coroutine[Any, Any, None]]


async def one_fails(together: Together) -> tuple[str, str, str]:
    """Let a task fail beside one that waits, which is then told to go on.

    Returns:
        What was raised; what the sibling was doing by then; and what became of it.
    """
    sibling = Sibling()
    raised = "nothing"
    try:
        await together(sibling, fail(ValueError("failed")))
    except* ValueError as group:  # also of an exception that comes alone
        raised = f"{len(group.exceptions)} ValueError"
    by_then = "running" if sibling.running else "gone"
    sibling.go_on.set()
    while sibling.running:
        await asyncio.sleep(0)
    return raised, by_then, "had its effect" if sibling.had_effect else "cancelled"


async def fails_after_the_first() -> int:
    """Let one fail, and another after gather has raised; count who is told of that."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, what: told.append(what))
    first_was_raised, second_fails = asyncio.Event(), asyncio.Event()

    async def fail_later() -> None:
        await first_was_raised.wait()
        second_fails.set()
        raise OSError("nobody hears of this")

    try:
        await asyncio.gather(fail_later(), fail(ValueError("failed")))
    except ValueError:
        first_was_raised.set()
    await second_fails.wait()
    await asyncio.sleep(0)
    gc.collect()  # when asyncio tells of exceptions that nobody has asked for
    asyncio.get_running_loop().set_exception_handler(None)
    return len(told)


async def several_fail() -> dict[str, list[str]]:
    """Let three tasks fail in the same turn; return what `except*` gets, by type."""
    handled: dict[str, list[str]] = {}
    try:
        async with asyncio.TaskGroup() as group:
            for error in (ValueError("a"), OSError("b"), ValueError("c")):
                group.create_task(fail(error))
    except* ValueError as errors:
        handled["ValueError"] = [str(error) for error in errors.exceptions]
    except* OSError as errors:
        handled["OSError"] = [str(error) for error in errors.exceptions]
    return handled


async def fails_beside_the_block() -> bool:
    """Let a task fail while its group's block waits; tell whether that ended it."""
    block_was_cancelled = False
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(ValueError("failed")))
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                block_was_cancelled = True
                raise
    except* ValueError:
        pass
    return block_was_cancelled


async def cancelled_from_outside(together: Together) -> bool:
    """Cancel the waiting for both; tell whether the sibling is gone then.

    gather is over with the first task that has ended cancelled.
    """
    sibling = Sibling()
    task = asyncio.create_task(together(sibling, asyncio.sleep(TIME_LIMIT)))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the sibling waits
    task.cancel()
    await asyncio.wait([task])
    gone = task.cancelled() and sibling.cleaned_up
    while sibling.running:
        await asyncio.sleep(0)
    if sibling.had_effect or not sibling.cleaned_up:
        raise SystemExit("the sibling was to be cancelled with both")
    return gone


async def run_race() -> tuple[str, bool]:
    """Return who wins against one that fails and one that waits; is that one gone?"""
    sibling = Sibling()

    async def win() -> str:
        for _ in range(5):
            await asyncio.sleep(0)
        return "the fastest that succeeds"

    async def wait() -> str:
        await sibling.work()
        return "nobody"

    async def lose() -> str:
        await fail(OSError("fastest, but failed"))
        return "nobody"

    return await race(wait(), lose(), win()), sibling.cleaned_up


async def demonstrate() -> None:
    """Check each claim, and print it."""
    print(f"{'one task fails':18}{'gather':18}TaskGroup")
    gathered, grouped = await one_fails(with_gather), await one_fails(with_task_group)
    for name, left, right in zip(
        ("raised", "its sibling is", "and then"), gathered, grouped, strict=True
    ):
        print(f"  {name:16}{left:18}{right}")
    if gathered != ("1 ValueError", "running", "had its effect"):
        raise SystemExit("gather was to leave the sibling running")
    if grouped != ("1 ValueError", "gone", "cancelled"):
        raise SystemExit("the TaskGroup was to leave nothing running")

    if await fails_after_the_first() != 0:
        raise SystemExit("gather was to keep the second failure to itself")
    print(f"{'a second failure':18}{'told to nobody':18}in the same group")

    handled = await several_fail()
    print("three fail in a TaskGroup, and except* gets")
    for name, messages in handled.items():
        print(f"  {name:16}{', '.join(messages)}")
    if handled != {"ValueError": ["a", "c"], "OSError": ["b"]}:
        raise SystemExit("not all failures were raised")
    if not await fails_beside_the_block():
        raise SystemExit("the block was to be cancelled")
    print("one fails beside the block of its group: the block is cancelled")
    both = with_gather, with_task_group
    if [await cancelled_from_outside(one) for one in both] != [False, True]:
        raise SystemExit("the TaskGroup alone was to wait for the sibling")
    print(
        "cancelled from outside: both cancel the tasks, the TaskGroup alone waits for "
        "them"
    )
    winner, gone = await run_race()
    print(f"a race is won by {winner}")
    if winner != "the fastest that succeeds" or not gone:
        raise SystemExit("the loser was to be gone")
    print("a TaskGroup leaves nothing running behind it")


async def within_limit() -> None:
    async with asyncio.timeout(TIME_LIMIT):
        # In a task of its own: before Python 3.13, a TaskGroup may leave its task
        # marked as cancelled, and Ctrl-C would come out as a CancelledError.
        await asyncio.create_task(demonstrate())


def main() -> None:
    asyncio.run(within_limit())


if __name__ == "__main__":
    main()
