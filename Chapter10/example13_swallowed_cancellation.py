"""A task that swallows its cancellation cannot be stopped, not even by a time-out.

A cancel is an exception that comes out of an await, and whoever catches it and goes on
has not been cancelled. `except Exception` lets it pass, since it is a BaseException; a
bare `except` or `except BaseException` does not. Then a TaskGroup waits for the task
for ever, and `asyncio.timeout` strikes in vain: there is no TimeoutError, although its
time was up. So clean up, and raise it again.

A trap is `suppress(CancelledError)` around `await task`, for a task that one has just
cancelled. The CancelledError may be one's own: somebody has cancelled us, too, while we
waited. `cancel_and_wait` tells the two apart: `asyncio.wait` raises only our own.

Code that means to end its own cancellation, as `asyncio.timeout` does, says so by
`task.uncancel()`.

Output:
    cancelled 3 times     ended   caught
      except BaseException  no          3
      except Exception      yes         0
      clean up and raise    yes         1
    around one that swallows: TimeoutError False, expired True
    a TaskGroup that is cancelled goes on waiting for it
    cancelled while waiting for a task that one has cancelled oneself:
      suppress          goes on as if nothing was
      cancel_and_wait   ends
    who catches a cancel has to raise it again
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

TIMES = 3  # that a task is cancelled
TIME_LIMIT = 10.0  # seconds


async def cancel_and_wait(task: "asyncio.Task[Any]") -> None:
    """Cancel `task`, and wait until it has ended.

    Raises:
        asyncio.CancelledError: this task was cancelled meanwhile. The other one may
            still be cleaning up.
        Exception: what the task has raised instead of ending cancelled.
    """
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


class Worker:
    """Waits for work in vain, until it is told to stop. Counts what it has caught."""

    def __init__(self) -> None:
        self.caught = 0
        self.stop = asyncio.Event()

    async def swallow(self) -> None:
        while not self.stop.is_set():
            try:
                await self.stop.wait()
            except BaseException:  # broken: also a cancel
                self.caught += 1

    async def only_exceptions(self) -> None:
        while not self.stop.is_set():
            try:
                await self.stop.wait()
            except Exception:
                self.caught += 1

    async def clean_up_and_raise(self) -> None:
        try:
            await self.stop.wait()
        except asyncio.CancelledError:
            self.caught += 1  # the clean-up
            raise


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def cancelled(work: Callable[[Worker], Awaitable[None]]) -> tuple[bool, int]:
    """Cancel a worker TIMES times; return whether it ended, and what it caught."""
    worker = Worker()

    async def run() -> None:
        await work(worker)

    task = asyncio.create_task(run())
    try:
        await turns()
        for _ in range(TIMES):
            task.cancel()
            await turns()
        ended = task.done()
    finally:
        worker.stop.set()  # also at Ctrl-C, whose cancel it swallows like any other
    await asyncio.wait([task])
    return ended, worker.caught


async def time_out_in_vain() -> tuple[bool, bool]:
    """Let the time be up for a worker that swallows.

    Returns:
        Whether there was a TimeoutError; and whether the time-out says that it struck.
    """
    worker = Worker()
    scope = asyncio.timeout(0)
    stopping = asyncio.create_task(stop_after_catching(worker))
    raised = False
    try:
        async with scope:
            await worker.swallow()
    except TimeoutError:
        raised = True
    await stopping
    return raised, scope.expired()


async def stop_after_catching(worker: Worker) -> None:
    try:
        while not worker.caught:
            await asyncio.sleep(0)
    finally:
        worker.stop.set()


async def group_waits() -> bool:
    """Cancel a TaskGroup with a worker that swallows; tell whether it waits on."""
    worker = Worker()

    async def run() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(worker.swallow())

    task = asyncio.create_task(run())
    try:
        await turns()
        task.cancel()
        await turns(20)
        waits = not task.done()
    finally:
        worker.stop.set()
    await asyncio.wait([task])
    return waits


async def suppressing(task: "asyncio.Task[Any]") -> None:
    """Broken: wait for the end of a cancelled task, and swallow our own cancel."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def own_cancellation(
    stop: Callable[["asyncio.Task[Any]"], Coroutine[Any, Any, None]],
) -> bool:
    """Cancel a task while it waits for the end of another; tell whether it went on."""
    may_end = asyncio.Event()
    went_on = False

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await may_end.wait()  # its clean-up takes a while

    async def parent() -> None:
        nonlocal went_on
        task = asyncio.create_task(child())
        try:
            await turns()
            await stop(task)
            went_on = True
        finally:
            may_end.set()
            await asyncio.wait([task])

    task = asyncio.create_task(parent())
    await turns(10)
    task.cancel()
    await asyncio.wait([task])
    return went_on


async def observe() -> None:
    """Check each claim, and print it."""
    print(f"cancelled {TIMES} times     ended   caught")
    for name, work, expected in (
        ("except BaseException", Worker.swallow, (False, TIMES)),
        ("except Exception", Worker.only_exceptions, (True, 0)),
        ("clean up and raise", Worker.clean_up_and_raise, (True, 1)),
    ):
        ended, caught = await cancelled(work)
        print(f"  {name:20}  {'yes' if ended else 'no':5}  {caught:6}")
        if (ended, caught) != expected:
            raise SystemExit(f"{name}: not as expected: {expected}")

    raised, expired = await time_out_in_vain()
    print(f"around one that swallows: TimeoutError {raised}, expired {expired}")
    if raised or not expired:
        raise SystemExit("the time-out was to strike in vain")
    if not await group_waits():
        raise SystemExit("the TaskGroup was to wait")
    print("a TaskGroup that is cancelled goes on waiting for it")
    print("cancelled while waiting for a task that one has cancelled oneself:")
    for name, stop, expected_to_go_on in (
        ("suppress", suppressing, True),
        ("cancel_and_wait", cancel_and_wait, False),
    ):
        went_on = await own_cancellation(stop)
        print(f"  {name:16}  {'goes on as if nothing was' if went_on else 'ends'}")
        if went_on != expected_to_go_on:
            raise SystemExit(f"{name}: not as expected")
    print("who catches a cancel has to raise it again")


async def within_limit() -> None:
    async with asyncio.timeout(TIME_LIMIT):
        await observe()


def main() -> None:
    asyncio.run(within_limit())


if __name__ == "__main__":
    main()
