"""To stop iterating does not close an async generator: `break` leaves it open.

A generator that has yielded stands still between `yield` and its `finally`. To get on,
it must be awaited, and the end of `async for` does not do that, whether it ends by
`break`, by an exception or by a cancellation in its body. The generator keeps its
connection or lock until the garbage collector finds it. Then the event loop closes it,
in a task of its own; at the latest `asyncio.run` does, when everything else is over.
`async with aclosing(...)` closes it at the end of the block, in the consumer's task.

An async generator should not yield inside `asyncio.timeout` or a TaskGroup. These
cancel the task that entered them, wherever that is by then: in the consumer's body,
which sees itself cancelled by nobody, or somewhere else altogether. So a TimeoutError
becomes a cancellation, and the error of a child task is lost. Put such a block around
each step, as `each_within` does, or into a context manager (example16).

Source: PEP 525 (finalization); PEP 789 (what must not span a yield).

Output:
    closed by, after the block  async for     with aclosing
      at the last row           the consumer  the consumer
      break                     nobody        the consumer
      exception in the body     nobody        the consumer
      cancelled in the body     nobody        the consumer
      cancelled in a fetch      the consumer  the consumer
    left open, and dropped      closed by another task
    left open, and kept         closed by another task, at the end of run
    around a yield, its consumer sees
      a timeout                 cancelled, no TimeoutError
      handed to another task    cancelled: the task that began it
      a child task that fails   cancelled, no ValueError
    around each step            TimeoutError()
    close it where it was opened, and let no scope span a yield
"""

import asyncio
import gc
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Coroutine,
)
from contextlib import aclosing, suppress
from typing import Any, TypeVar

T = TypeVar("T")

TIME_LIMIT = 10.0  # seconds
PATIENCE = 0.01  # seconds that the next item of a generator may take

Items = AsyncGenerator[int, None]


async def each_within(
    seconds: float, items: AsyncGenerator[T, None]
) -> AsyncGenerator[T, None]:
    """Yield `items`, each of which must come within `seconds`; close them at the end.

    What the consumer does between two items is not counted. Close this generator, too;
    closed before its first item it leaves `items` open, since it has not begun.

    Raises:
        TimeoutError: an item did not come in time. That ends `items`, too.
    """
    async with aclosing(items):
        while True:
            try:
                # Not around the loop: the consumer's body is no business of it.
                async with asyncio.timeout(seconds):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            yield item


class Cursor:
    """Stands for what a generator has open: a connection, a file, a lock."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self.closed_in: asyncio.Task[Any] | None = None

    def close(self) -> None:
        self.closed_in = asyncio.current_task()
        self.closed.set()


async def rows(cursor: Cursor, fetch: Callable[[], Awaitable[object]]) -> Items:
    """Yield a few numbers, for each of which `fetch` is awaited."""
    try:
        for number in range(3):
            await fetch()
            yield number
    finally:
        cursor.close()


async def plainly(items: Items, body: Callable[[], Awaitable[bool]]) -> None:
    """Iterate until `body` returns False."""
    async for _ in items:
        if not await body():
            break


async def with_aclosing(items: Items, body: Callable[[], Awaitable[bool]]) -> None:
    """Iterate until `body` returns False, and close `items` then."""
    async with aclosing(items):
        await plainly(items, body)


async def at_once() -> bool:
    return True


async def enough() -> bool:
    return False


async def fail() -> bool:
    raise ValueError("in the body")


async def never() -> bool:
    await asyncio.Event().wait()
    return True


# How an iteration ends: what the generator awaits for a row, and what its body does.
# A consumer that waits for ever is cancelled.
ENDINGS = {
    "at the last row": (at_once, at_once),
    "break": (at_once, enough),
    "exception in the body": (at_once, fail),
    "cancelled in the body": (at_once, never),
    "cancelled in a fetch": (never, at_once),
}

Consume = Callable[[Items, Callable[[], Awaitable[bool]]], Coroutine[Any, Any, None]]


async def closed_by_then(consume: Consume, ending: str) -> str:
    """Let a consumer end as `ending` says; return who has closed the cursor by then."""
    fetch, body = ENDINGS[ending]
    cursor = Cursor()
    items = rows(cursor, fetch)
    waits = fetch is never or body is never
    consumer = asyncio.create_task(consume(items, body))
    if waits:
        await asyncio.sleep(0)  # it runs until it waits for ever
        consumer.cancel()
    await asyncio.wait([consumer])
    if consumer.cancelled() != waits or (
        not waits and (consumer.exception() is None) == (body is fail)
    ):
        raise SystemExit(f"{ending}: {consumer}")

    if not cursor.closed.is_set():
        await items.aclose()
        return "nobody"
    return "the consumer" if cursor.closed_in is consumer else "another task"


async def closed_by_garbage_collector() -> bool:
    """Drop an open generator; return whether another task closes it."""
    cursor = Cursor()
    await plainly(rows(cursor, at_once), enough)
    gc.collect()  # CPython needs no more than the last reference gone: not so others
    await cursor.closed.wait()
    return cursor.closed_in is not asyncio.current_task()


async def leave_open(items: Items) -> asyncio.Task[Any] | None:
    """Break out of the iteration, and return the task that did it."""
    await plainly(items, enough)
    return asyncio.current_task()


def closed_by_the_end_of_run() -> bool:
    """Keep an open generator; return whether the end of `run` closes it elsewhere."""
    cursor = Cursor()
    items = rows(cursor, at_once)

    async def main() -> tuple[bool, asyncio.Task[Any] | None]:
        task = await leave_open(items)
        return cursor.closed.is_set(), task

    closed_inside, task = asyncio.run(main())
    closed_in = cursor.closed_in
    return not closed_inside and closed_in is not None and closed_in is not task


async def within_deadline(deadline: asyncio.Timeout) -> Items:
    """Broken: the timeout spans the yield."""
    async with deadline:
        yield 1
        await never()


async def beside_child(child: Coroutine[Any, Any, None]) -> Items:
    """Broken: the TaskGroup spans the yield."""
    async with asyncio.TaskGroup() as group:
        group.create_task(child)
        yield 1


def expire(deadline: asyncio.Timeout) -> None:
    deadline.reschedule(asyncio.get_running_loop().time())


async def outcome_of(consumer: Coroutine[Any, Any, None]) -> str:
    """Run it as a child of a TaskGroup; return how it ended, as the group sees it."""
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(consumer)
    except ExceptionGroup as error:
        return repr(error.exceptions[0])
    return "cancelled" if task.cancelled() else "no error"


async def timeout_that_spans_a_yield() -> str:
    """Let the time be up while the consumer is in its body."""
    deadline = asyncio.timeout(None)

    async def consume() -> None:
        async with aclosing(within_deadline(deadline)) as items:
            async for _ in items:
                expire(deadline)
                await never()

    return await outcome_of(consume())


async def timeout_in_other_hands() -> tuple[bool, bool]:
    """Let one task begin a generator, and another wait in it until the time is up.

    Returns:
        Whether the first task was cancelled, which is not in the generator any more,
        and whether the other was.
    """
    deadline = asyncio.timeout(None)
    items = within_deadline(deadline)

    async def begin() -> None:
        await anext(items)
        await never()

    async def go_on() -> None:
        await anext(items)

    first = asyncio.create_task(begin())
    await asyncio.sleep(0)
    other = asyncio.create_task(go_on())
    await asyncio.sleep(0)  # now it waits inside the block
    expire(deadline)
    await asyncio.wait([first])
    outcome = first.cancelled(), other.done()
    other.cancel()
    await asyncio.wait([other])
    with suppress(asyncio.CancelledError, TimeoutError):
        other.result()
    return outcome


async def child_that_fails_beside_a_yield() -> str:
    """Let the generator's child task fail while the consumer is in its body."""

    async def child() -> None:
        raise ValueError("in the child")

    items = beside_child(child())

    async def consume() -> None:
        async for _ in items:
            await never()

    try:
        return await outcome_of(consume())
    finally:
        with suppress(BaseExceptionGroup):  # too late, and with GeneratorExit in it
            await items.aclose()


async def timeout_for_each_step() -> str:
    """Let the generator itself be too slow, with the timeout where it belongs."""

    async def slow() -> Items:
        yield 1
        await never()

    async def consume() -> None:
        async with aclosing(each_within(PATIENCE, slow())) as items:
            async for _ in items:
                pass

    return await outcome_of(consume())


async def demonstrate() -> None:
    """Check and print it all, but for what needs a loop of its own."""
    print(f"{'closed by, after the block':26}  {'async for':12}  with aclosing")
    for ending in ENDINGS:
        plain = await closed_by_then(plainly, ending)
        closing = await closed_by_then(with_aclosing, ending)
        inside = ending in {"at the last row", "cancelled in a fetch"}
        expected = "the consumer" if inside else "nobody"
        if (plain, closing) != (expected, "the consumer"):
            raise SystemExit(f"{ending}: closed by {plain}, with aclosing by {closing}")
        print(f"  {ending:24}  {plain:12}  {closing}")

    if not await closed_by_garbage_collector():
        raise SystemExit("the consumer itself has closed what it dropped")
    print("left open, and dropped      closed by another task")


async def demonstrate_scopes() -> None:
    """Check and print what comes of a timeout or a TaskGroup around a yield."""
    spans = await timeout_that_spans_a_yield()
    other = await timeout_in_other_hands()
    child = await child_that_fails_beside_a_yield()
    step = await timeout_for_each_step()
    if (spans, child) != ("cancelled", "cancelled"):
        raise SystemExit(f"what spans a yield: {spans}, {child}")
    if other != (True, False):
        raise SystemExit(f"the task that began, the task that went on: {other}")
    if step != "TimeoutError()":
        raise SystemExit(f"each step within its time: {step}")
    print("around a yield, its consumer sees")
    print(f"  a timeout                 {spans}, no TimeoutError")
    print("  handed to another task    cancelled: the task that began it")
    print(f"  a child task that fails   {child}, no ValueError")
    print(f"around each step            {step}")


async def within_limit(
    demonstration: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    async with asyncio.timeout(TIME_LIMIT):
        # In a task of its own: before Python 3.13, a TaskGroup may leave its task
        # marked as cancelled, and Ctrl-C would come out as a CancelledError.
        await asyncio.create_task(demonstration())


def main() -> None:
    asyncio.run(within_limit(demonstrate))
    if not closed_by_the_end_of_run():
        raise SystemExit("the end of asyncio.run did not close what was left open")
    print("left open, and kept         closed by another task, at the end of run")
    asyncio.run(within_limit(demonstrate_scopes))
    print("close it where it was opened, and let no scope span a yield")


if __name__ == "__main__":
    main()
