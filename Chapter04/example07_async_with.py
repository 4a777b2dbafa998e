"""`async with`: what is to be awaited at the beginning and the end of a block.

Opening and closing a session takes a message to the other side each, so both must be
awaited. A cancelled task leaves its blocks like one that raised: clean-up runs, and may
await. But a second cancel, or a time-out around it, hits that await too and cuts the
clean-up short; `to_the_end` sees it through, and the task is cancelled afterwards.

A threading.Lock held across an await is a trap. Another task that wants the lock does
not wait like a task: it stops the event loop, and with it the only task that could
release the lock. `async with asyncio.Lock()` lets the others run.

Output:
    third of three refused  hello a, hello b, goodbye b, goodbye a
                            cancelled once      cancelled twice
    class                   hello a, goodbye a  hello a
    generator               hello a, goodbye a  hello a
    generator, to_the_end   hello a, goodbye a  hello a, goodbye a
    threading.Lock          0.01 s in vain; then the loop went on: free
    asyncio.Lock            released while the other task waited for it
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

TIME_LIMIT = 10.0  # seconds
BLOCKED = 0.01  # seconds for which the event loop is stopped

Send = Callable[[str], Coroutine[Any, Any, None]]  # sends a message to the other side
OpenSession = Callable[[str, Send], AbstractAsyncContextManager[object]]


class Session:
    """Says hello before the block and goodbye after it, whatever happens."""

    def __init__(self, name: str, send: Send) -> None:
        self.name = name
        self._send = send

    async def __aenter__(self) -> "Session":
        await self._send(f"hello {self.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._send(f"goodbye {self.name}")


@asynccontextmanager
async def session(name: str, send: Send) -> AsyncIterator[str]:
    """Do what `Session` does."""
    await send(f"hello {name}")
    try:
        yield name
    finally:
        await send(f"goodbye {name}")


async def to_the_end(clean_up: Coroutine[Any, Any, T]) -> T:
    """Await `clean_up` to its end, however often this task is cancelled meanwhile.

    Give `clean_up` a time limit of its own: until it has ended, nobody gets rid of this
    task. Who cancels all tasks, as `asyncio.run` does when its main coroutine has
    returned, cancels `clean_up`, too: await such tasks before, as a TaskGroup does.

    Raises:
        asyncio.CancelledError: this task was cancelled meanwhile; it is raised at the
            end, from the exception of `clean_up` if there was one.
    """
    task = asyncio.create_task(clean_up)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])  # cancelled itself, it leaves the task alone
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()


@asynccontextmanager
async def thorough_session(name: str, send: Send) -> AsyncIterator[str]:
    """Do what `Session` does; not even a second cancel prevents the goodbye."""
    await send(f"hello {name}")
    try:
        yield name
    finally:
        await to_the_end(send(f"goodbye {name}"))


@asynccontextmanager
async def sessions(names: Iterable[str], send: Send) -> AsyncIterator[list[Session]]:
    """Open a session for each name; if one cannot be opened, close those before."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Session(n, send)) for n in names]


class Line:
    """A line to the other side, which takes a message when it is ready.

    Args:
        refused: a message at which the line breaks down.
    """

    def __init__(self, refused: str = "") -> None:
        self.messages: list[str] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.sending = asyncio.Event()  # somebody waits for the other side
        self._refused = refused

    async def send(self, message: str) -> None:
        if message == self._refused:
            raise ConnectionError(f"refused: {message}")
        self.sending.set()
        await self.ready.wait()
        self.messages.append(message)


async def messages_if_refused(names: Iterable[str], refused: str) -> list[str]:
    """Return the messages of sessions, one of which is refused."""
    line = Line(refused)
    with suppress(ConnectionError):
        async with sessions(names, line.send):
            pass
    return line.messages


async def messages_if_cancelled(session: OpenSession, times: int) -> list[str]:
    """Return the messages of a session that is cancelled once or several times.

    The first cancel hits its block, the others the waiting of its clean-up.
    """
    line = Line()
    inside = asyncio.Event()

    async def work() -> None:
        async with session("a", line.send):
            inside.set()
            await asyncio.Event().wait()  # until cancelled

    task = asyncio.create_task(work())
    await inside.wait()
    line.ready.clear()
    line.sending.clear()
    task.cancel()
    await line.sending.wait()  # for the other side to take the goodbye
    for _ in range(times - 1):
        task.cancel()
        await asyncio.sleep(0)
    line.ready.set()
    await asyncio.wait([task])
    assert task.cancelled()
    return line.messages


async def acquire_held_thread_lock(timeout: float) -> tuple[bool, bool]:
    """Let one task hold a threading.Lock across an await, and another acquire it.

    Returns:
        Whether it got the lock within `timeout` seconds, and whether the lock was free
        as soon as the event loop went on.
    """
    lock = threading.Lock()
    holding, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        with lock:  # broken: other tasks run before it is released
            holding.set()
            await leave.wait()

    holder = asyncio.create_task(hold())
    await holding.wait()
    leave.set()  # the holder will release the lock at its next turn ...
    got = lock.acquire(timeout=timeout)  # ... which cannot come before this returns
    await holder
    return got, not lock.locked()


async def acquire_held_asyncio_lock() -> bool:
    """Let one task hold an asyncio.Lock across an await, and another acquire it."""
    lock = asyncio.Lock()
    holding, leave = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        async with lock:
            holding.set()
            await leave.wait()

    holder = asyncio.create_task(hold())
    await holding.wait()
    leave.set()
    async with lock:
        return holder.done()


FORMS: dict[str, OpenSession] = {
    "class": Session,
    "generator": session,
    "generator, to_the_end": thorough_session,
}


@dataclass(frozen=True, slots=True)
class Observations:
    """What the functions above return."""

    refused: list[str]
    cancelled: dict[str, list[list[str]]]  # once and twice
    thread_lock: tuple[bool, bool]
    asyncio_lock: bool


async def observe() -> Observations:
    """Try everything, TIME_LIMIT at most."""
    # Debug mode would warn of a loop that stands still: here it does, on purpose.
    asyncio.get_running_loop().slow_callback_duration = TIME_LIMIT
    async with asyncio.timeout(TIME_LIMIT):
        return Observations(
            await messages_if_refused("abc", "hello c"),
            {
                name: [await messages_if_cancelled(form, times) for times in (1, 2)]
                for name, form in FORMS.items()
            },
            await acquire_held_thread_lock(BLOCKED),
            await acquire_held_asyncio_lock(),
        )


def main() -> None:
    seen = asyncio.run(observe())
    if seen.refused != ["hello a", "hello b", "goodbye b", "goodbye a"]:
        raise SystemExit(f"not closed in reverse: {seen.refused}")
    print(f"third of three refused  {', '.join(seen.refused)}")
    print(f"{'':22}  {'cancelled once':18}  cancelled twice")

    said = ["hello a", "goodbye a"]
    for name, (once, twice) in seen.cancelled.items():
        thorough = FORMS[name] is thorough_session
        if (once, twice) != (said, said if thorough else said[:1]):
            raise SystemExit(f"{name}: cancelled once {once}, twice {twice}")
        print(f"{name:22}  {', '.join(once):18}  {', '.join(twice)}")

    if seen.thread_lock != (False, True):
        raise SystemExit("the event loop was not stopped by its own lock")
    print(f"threading.Lock          {BLOCKED:g} s in vain; then the loop went on: free")
    if not seen.asyncio_lock:
        raise SystemExit("the asyncio.Lock was had before its holder released it")
    print("asyncio.Lock            released while the other task waited for it")


if __name__ == "__main__":
    main()
