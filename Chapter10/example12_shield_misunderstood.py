"""`shield` protects what is awaited, not who awaits it, nor from the end of the loop.

`await asyncio.shield(save())` looks as if it could not be interrupted. It can: a cancel
makes the await raise at once. What goes on is the task behind it, alone, and nobody
waits for it any more. If the program ends now, asyncio.run cancels it like any other,
and the order is half written.

Who shields something must keep it, and wait for it before leaving. `Unfinished` does
both: `keep` shields, and the end of its `async with` block waits for whatever was
kept and is not finished, for a limited time, and raises what nobody else has got.

Output:
    shielded, then cancelled: the await is over, 1 of 2 written
    the loop goes on:         2 of 2 written in the end
    asyncio.run ends:         1 of 2 written
    kept, and waited for:     2 of 2 written
    kept, and failed:         disk full, raised at the end
    a shield does not wait: keep the task, and wait for it before leaving
"""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Self, TypeVar

T = TypeVar("T")

LIMIT = 5.0  # seconds that what was kept may take after the end of the block
TIME_LIMIT = 10.0  # seconds


class Unfinished:
    """What must be finished, whoever stops waiting for it: a context manager.

    The end of the block waits for what was kept, up to `limit` seconds, also if it is
    cancelled meanwhile; what is not finished by then is cancelled. It raises an
    ExceptionGroup of what failed after its caller had gone, with a TimeoutError for
    each that was not finished, and with what the block has raised. A CancelledError
    stays what it is, and has the group as its cause.
    """

    def __init__(self, limit: float = LIMIT) -> None:
        self._limit = limit
        self._kept: set[asyncio.Task[Any]] = set()  # whose outcome nobody has got
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def keep(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Await `coroutine`; it goes on even if this is cancelled.

        Raises:
            RuntimeError: the block has ended, and nobody would wait for it.
        """
        if self._ended:
            coroutine.close()
            raise RuntimeError("the block has ended")
        task = asyncio.create_task(coroutine)
        self._kept.add(task)
        # Cancelled, this leaves the task alone, as a shield does; but from Python 3.14
        # on a shield would also log what the task raises after that.
        await asyncio.wait([task])
        self._kept.discard(task)  # the caller gets it
        return task.result()

    async def __aexit__(
        self, _: object, error: BaseException | None, __: object
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limit
        # A cancel, a SystemExit: what ends more than this block must not be lost.
        ending = None if isinstance(error, Exception) else error
        late: set[asyncio.Task[Any]] = set()
        while pending := {task for task in self._kept if not task.done()}:
            left = deadline - loop.time()
            if left <= 0:
                for task in pending - late:
                    task.cancel()
                late |= pending
            try:  # cancelled, it leaves the tasks alone
                await asyncio.wait(pending, timeout=None if left <= 0 else left)
            except asyncio.CancelledError as again:
                ending = ending or again
        self._ended = True
        ended = [task for task in self._kept if not task.cancelled()]
        failures = [task.exception() for task in ended]
        errors = [failure for failure in failures if isinstance(failure, Exception)]
        errors += [TimeoutError(f"not finished: {task.get_coro()}") for task in late]
        self._kept.clear()
        if errors and isinstance(error, Exception):
            errors.insert(0, error)
        group = ExceptionGroup("nobody else has got these", errors) if errors else None
        if ending is not None:
            raise ending from group
        if group is not None:
            raise group


class Order:
    """Is written in two steps, between which it is half written."""

    def __init__(self) -> None:
        self.written = 0
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def save(self) -> None:
        self.written = 1
        self.begun.set()
        await self.go_on.wait()
        self.written = 2


async def cancel_who_saves(order: Order, saving: Coroutine[Any, Any, None]) -> bool:
    """Cancel a task that awaits `saving`; tell whether it ended before the order."""
    task = asyncio.create_task(saving)
    await order.begun.wait()
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled() and order.written == 1


async def shielded(order: Order, leave_at_once: bool) -> tuple[bool, int, int]:
    """Let somebody shield the saving, and be cancelled.

    Returns:
        Whether the await was over before the saving; what is written by then; and what
        when we leave.
    """
    over = await cancel_who_saves(order, shield(order))
    by_then = order.written
    if not leave_at_once:
        order.go_on.set()
        while order.written < 2:
            await asyncio.sleep(0)
    return over, by_then, order.written


async def shield(order: Order) -> None:
    await asyncio.shield(order.save())


async def kept(order: Order) -> bool:
    """The same, but what was shielded is waited for before leaving."""
    async with Unfinished() as unfinished:
        over = await cancel_who_saves(order, unfinished.keep(order.save()))
        order.go_on.set()
    return over


async def kept_and_failed() -> list[str]:
    """Let what was kept fail, after its caller has gone; return what is raised."""
    order = Order()

    async def save_and_fail() -> None:
        await order.save()
        raise OSError("disk full")

    errors: list[str] = []
    try:
        async with Unfinished() as unfinished:
            await cancel_who_saves(order, unfinished.keep(save_and_fail()))
            order.go_on.set()
    except* OSError as group:
        errors += [str(error) for error in group.exceptions]
    return errors


async def within_limit(part: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async with asyncio.timeout(TIME_LIMIT):
        return await part()


def main() -> None:
    order = Order()
    over, by_then, written = asyncio.run(
        within_limit(partial(shielded, order, leave_at_once=False))
    )
    print(f"shielded, then cancelled: the await is over, {by_then} of 2 written")
    print(f"the loop goes on:         {written} of 2 written in the end")
    if (over, by_then, written) != (True, 1, 2):
        raise SystemExit("the await was to end at once, and the saving to go on")

    order = Order()
    asyncio.run(within_limit(partial(shielded, order, leave_at_once=True)))
    print(f"asyncio.run ends:         {order.written} of 2 written")
    if order.written != 1:
        raise SystemExit("the end of the loop was to cancel the saving")

    order = Order()
    over = asyncio.run(within_limit(partial(kept, order)))
    print(f"kept, and waited for:     {order.written} of 2 written")
    if not over or order.written != 2:
        raise SystemExit("what was kept was to be finished")
    errors = asyncio.run(within_limit(kept_and_failed))
    print(f"kept, and failed:         {', '.join(errors)}, raised at the end")
    if errors != ["disk full"]:
        raise SystemExit("the failure was to be raised")
    print("a shield does not wait: keep the task, and wait for it before leaving")


if __name__ == "__main__":
    main()
