"""Time-outs: a deadline for a block, whose it was, and what is no time-out at all.

`asyncio.timeout` cancels the block when the time is up, and at its end turns that
cancellation into a TimeoutError. It may be moved while it runs (`reschedule`), and says
afterwards whether it has struck (`expired`). That matters: a TimeoutError may also come
from a time-out further in, or from what the block calls, and `expired` alone tells. A
cancel from outside stays a CancelledError.

A time-out for each step is no deadline for all: a peer that sends one byte now and then
never exceeds it. `timeout_at` takes a point in time, which can be handed on from step
to step; whatever they are, together they end by then.

Output:
    the time is up            TimeoutError, expired True
    moved in time             no error, expired False
    raised in the block       TimeoutError, expired False
    nested, inner             TimeoutError from the inner, expired True
    nested, outer             TimeoutError from the outer, expired True
    cancelled                 CancelledError, expired False
    wait_for                  cleaned up, then TimeoutError
    read from an honest peer  all 3 bytes
    from one that drips       TimeoutError: deadline
    from one that is silent   TimeoutError: silence
    expired() tells whose time was up; only a deadline bounds the whole
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import Any

TIME_LIMIT = 10.0  # seconds
DRIP = 0.005  # seconds from byte to byte of a slow peer
DEADLINE = 0.03  # seconds, after which it still sends
PATIENCE = 0.01  # seconds of silence


async def read_all(
    source: AsyncIterator[bytes], *, each: float, deadline: float
) -> bytes:
    """Return what `source` yields until its end.

    Args:
        each: seconds that a piece may take.
        deadline: the time of the event loop's clock by which all must be there.

    Raises:
        TimeoutError: a piece has taken too long, or the deadline has come. It says
            which, and how many bytes there were by then.
    """
    received = bytearray()
    whole, piece = asyncio.timeout_at(deadline), asyncio.timeout(each)
    try:
        async with whole:
            while True:
                # A new one each time: a Timeout cannot be entered twice.
                async with (piece := asyncio.timeout(each)):
                    received += await anext(source)
                await asyncio.sleep(0)  # a source that never waits lets nothing strike
    except StopAsyncIteration:
        return bytes(received)
    except TimeoutError:
        if whole.expired():
            raise TimeoutError(f"deadline after {len(received)} bytes") from None
        if piece.expired():
            raise TimeoutError(f"silence after {len(received)} bytes") from None
        raise  # of the source itself


def now(scope: asyncio.Timeout) -> None:
    """Let the time be up for `scope`."""
    scope.reschedule(asyncio.get_running_loop().time())


async def never() -> None:
    await asyncio.Event().wait()


async def says_so() -> None:
    raise TimeoutError("the peer says so")


async def strikes() -> str:
    """Let the time be up while the block waits."""
    scope = asyncio.timeout(None)
    try:
        async with scope:
            now(scope)
            await never()
    except TimeoutError:
        return f"TimeoutError, expired {scope.expired()}"
    return "nothing"


async def moved() -> str:
    """Give the block more time, after what it had is over, but before it waits."""
    scope = asyncio.timeout(0)
    async with scope:
        scope.reschedule(None)
        await asyncio.sleep(0)
    return f"no error, expired {scope.expired()}"


async def of_the_block() -> str:
    """Let the block raise a TimeoutError of its own."""
    scope = asyncio.timeout(TIME_LIMIT)
    try:
        async with scope:
            await says_so()
    except TimeoutError:
        return f"TimeoutError, expired {scope.expired()}"
    return "nothing"


async def nested(strike_inner: bool) -> str:
    """Let the time be up for one of two scopes; return where its error came out."""
    inner, outer = asyncio.timeout(None), asyncio.timeout(None)
    try:
        async with outer:
            try:
                async with inner:
                    now(inner if strike_inner else outer)
                    await never()
            except TimeoutError:
                return f"TimeoutError from the inner, expired {inner.expired()}"
    except TimeoutError:
        return f"TimeoutError from the outer, expired {outer.expired()}"
    return "nothing"


async def cancelled_from_outside() -> str:
    """Cancel a task that waits within a time-out."""
    scope = asyncio.timeout(TIME_LIMIT)

    async def wait() -> None:
        async with scope:
            await never()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    return (
        f"{'CancelledError' if task.cancelled() else 'none'}, expired {scope.expired()}"
    )


async def wait_for_cleans_up() -> str:
    """Let wait_for end a coroutine; it returns after the clean-up, not before."""
    notes = []

    async def work() -> None:
        try:
            await never()
        finally:
            await asyncio.sleep(0)
            notes.append("cleaned up")

    try:
        await asyncio.wait_for(work(), 0.001)
    except TimeoutError:
        notes.append("TimeoutError")
    return ", then ".join(notes)


async def brief() -> AsyncIterator[bytes]:
    """Yield three bytes."""
    for _ in range(3):
        await asyncio.sleep(0)
        yield b"."


async def drip() -> AsyncIterator[bytes]:
    """Yield a byte now and then, for ever."""
    while True:
        await asyncio.sleep(DRIP)
        yield b"."


async def stall() -> AsyncIterator[bytes]:
    """Yield three bytes, and then nothing."""
    for _ in range(3):
        yield b"."
    await never()


async def read(source: Callable[[], Any], each: float, within: float) -> str:
    """Return how `read_all` ends."""
    deadline = asyncio.get_running_loop().time() + within
    async with aclosing(source()) as pieces:
        try:
            data = await read_all(pieces, each=each, deadline=deadline)
        except TimeoutError as error:
            return f"TimeoutError: {str(error).partition(' after')[0]}"
        return f"all {len(data)} bytes"


EXPECTED = {
    "the time is up": "TimeoutError, expired True",
    "moved in time": "no error, expired False",
    "raised in the block": "TimeoutError, expired False",
    "nested, inner": "TimeoutError from the inner, expired True",
    "nested, outer": "TimeoutError from the outer, expired True",
    "cancelled": "CancelledError, expired False",
    "wait_for": "cleaned up, then TimeoutError",
    "read from an honest peer": "all 3 bytes",
    "from one that drips": "TimeoutError: deadline",
    "from one that is silent": "TimeoutError: silence",
}


async def observe() -> dict[str, str]:
    """Return how each of them ends."""
    # Not coroutines, but what makes them: after Ctrl-C none is there unawaited.
    cases: dict[str, Callable[[], Coroutine[Any, Any, str]]] = {
        "the time is up": strikes,
        "moved in time": moved,
        "raised in the block": of_the_block,
        "nested, inner": partial(nested, strike_inner=True),
        "nested, outer": partial(nested, strike_inner=False),
        "cancelled": cancelled_from_outside,
        "wait_for": wait_for_cleans_up,
        "read from an honest peer": partial(read, brief, TIME_LIMIT, TIME_LIMIT),
        "from one that drips": partial(read, drip, TIME_LIMIT, DEADLINE),
        "from one that is silent": partial(read, stall, PATIENCE, TIME_LIMIT),
    }
    async with asyncio.timeout(TIME_LIMIT):
        return {name: await case() for name, case in cases.items()}


def main() -> None:
    seen = asyncio.run(observe())
    for name, outcome in seen.items():
        print(f"{name:24}  {outcome}")
    if seen != EXPECTED:
        raise SystemExit(f"not as expected: {EXPECTED}")
    print("expired() tells whose time was up; only a deadline bounds the whole")


if __name__ == "__main__":
    main()
