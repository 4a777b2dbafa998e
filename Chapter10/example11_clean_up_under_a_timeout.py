"""A time-out that strikes during clean-up cuts it short; clean-up needs its own time.

`finally` is no shelter. If it awaits, and a time-out around it strikes just then, the
await raises, and the rest of the clean-up does not happen: here the session is never
closed. Three rules keep it whole:

* The time-out goes around the work, not around the clean-up.
* The clean-up has a time limit of its own, or a dead peer holds us for ever.
* What somebody further out may cancel in the middle of it, runs in a task of its own,
  and is seen through: `within` does that, and passes the cancellation on afterwards.

If the clean-up itself takes too long, it is given up, and says so.

Output:
                                       raises          the session is
    time-out around work and clean-up  TimeoutError    left open
    the same, clean-up seen through    TimeoutError    closed
    time-out around the work alone     TimeoutError    closed
    cancelled twice during clean-up    CancelledError  closed
    clean-up with a dead peer          TimeoutError    left open
    clean-up that has its own time is cut short by nobody else's
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CLEAN_UP = 5.0  # seconds that a clean-up may take
SHORT = 0.01  # seconds, in place of that
TIME_LIMIT = 10.0  # seconds


async def within(seconds: float, clean_up: Coroutine[Any, Any, T]) -> T:
    """Await `clean_up` for at most `seconds`, even if this task is cancelled meanwhile.

    After that it is cancelled; one that swallows the cancel is waited for. The end of
    asyncio.run cancels it, too: wait for this task before the program ends.

    Raises:
        TimeoutError: it took longer, and was cancelled.
        asyncio.CancelledError: this task was cancelled meanwhile. Raised at the end,
            from what `clean_up` has raised, if it has.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    task = asyncio.create_task(clean_up)
    cancelled: asyncio.CancelledError | None = None
    overdue = False
    while not task.done():
        left = deadline - loop.time()
        if left <= 0 and not overdue:
            overdue = task.cancel()
        try:
            await asyncio.wait([task], timeout=None if overdue else left)
        except asyncio.CancelledError as error:
            cancelled = error  # wait() leaves the task alone
    failure: BaseException | None
    if task.cancelled() and overdue:
        failure = TimeoutError(f"the clean-up took more than {seconds:g} s")
    elif task.cancelled():
        failure = asyncio.CancelledError()  # by somebody else, as asyncio.run does
    else:
        failure = task.exception()
    if cancelled is not None:
        raise cancelled from failure
    if failure is not None:
        raise failure
    return task.result()


class Session:
    """Stands for a session that is closed by a message, which the peer confirms."""

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.confirmed = asyncio.Event()
        self.closed = False

    async def close(self) -> None:
        self.closing.set()
        await self.confirmed.wait()
        self.closed = True


async def strike_during_clean_up(session: Session, scope: asyncio.Timeout) -> None:
    """Let the time of `scope` be up while `session` is being closed, then confirm."""
    await session.closing.wait()
    scope.reschedule(asyncio.get_running_loop().time())
    while not scope.expired():
        await asyncio.sleep(0)
    for _ in range(3):
        await asyncio.sleep(0)  # whoever is cancelled ends
    session.confirmed.set()


async def around_both(session: Session, scope: asyncio.Timeout) -> None:
    """Broken: the time-out is around the clean-up, too."""
    async with scope:
        try:
            await asyncio.sleep(0)  # the work
        finally:
            await session.close()


async def clean_up_shielded(session: Session, scope: asyncio.Timeout) -> None:
    """The same, for somebody who cannot choose what is around it."""
    async with scope:
        try:
            await asyncio.sleep(0)  # the work
        finally:
            await within(CLEAN_UP, session.close())


async def outcome(task: "asyncio.Task[None]") -> str:
    """Wait for the end of a task; return the exception's name."""
    await asyncio.wait([task])
    if task.cancelled():
        return "CancelledError"
    error = task.exception()
    return "no error" if error is None else type(error).__name__


async def time_is_up_during_clean_up(shielded: bool) -> tuple[str, bool]:
    """Return how the task ends, and whether the session was closed."""
    session, scope = Session(), asyncio.timeout(None)
    work = clean_up_shielded if shielded else around_both
    striking = asyncio.create_task(strike_during_clean_up(session, scope))
    raised = await outcome(asyncio.create_task(work(session, scope)))
    await striking
    return raised, session.closed


async def time_is_up_during_work() -> tuple[str, bool]:
    """Put the time-out around the work alone; return the same."""
    session = Session()
    session.confirmed.set()

    async def work() -> None:
        try:
            async with asyncio.timeout(0):
                await asyncio.Event().wait()  # the work
        finally:
            await within(CLEAN_UP, session.close())

    return await outcome(asyncio.create_task(work())), session.closed


async def cancelled_during_clean_up() -> tuple[str, bool]:
    """Cancel the task twice while it cleans up; return the same."""
    session = Session()

    async def work() -> None:
        try:
            await asyncio.sleep(0)  # the work
        finally:
            await within(CLEAN_UP, session.close())

    task = asyncio.create_task(work())
    await session.closing.wait()
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0)
    session.confirmed.set()
    return await outcome(task), session.closed


async def dead_peer() -> tuple[str, bool]:
    """Let nobody confirm; return the same."""
    session = Session()

    async def work() -> None:
        try:
            await asyncio.sleep(0)  # the work
        finally:
            await within(SHORT, session.close())

    return await outcome(asyncio.create_task(work())), session.closed


EXPECTED = {
    "time-out around work and clean-up": ("TimeoutError", False),
    "the same, clean-up seen through": ("TimeoutError", True),
    "time-out around the work alone": ("TimeoutError", True),
    "cancelled twice during clean-up": ("CancelledError", True),
    "clean-up with a dead peer": ("TimeoutError", False),
}


async def observe() -> dict[str, tuple[str, bool]]:
    """Return for each case how the task ends, and whether the session was closed."""
    async with asyncio.timeout(TIME_LIMIT):
        outcomes = [
            await time_is_up_during_clean_up(shielded=False),
            await time_is_up_during_clean_up(shielded=True),
            await time_is_up_during_work(),
            await cancelled_during_clean_up(),
            await dead_peer(),
        ]
    return dict(zip(EXPECTED, outcomes, strict=True))


def main() -> None:
    seen = asyncio.run(observe())
    print(f"{'':35}raises          the session is")
    for case, (raised, closed) in seen.items():
        print(f"{case:35}{raised:14}  {'closed' if closed else 'left open'}")
    if seen != EXPECTED:
        raise SystemExit(f"not as expected: {EXPECTED}")
    print("clean-up that has its own time is cut short by nobody else's")


if __name__ == "__main__":
    main()
