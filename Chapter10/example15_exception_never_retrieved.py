"""A task fails, and nobody asks: when one learns of it, and when never.

The exception of a task waits in the task for somebody who awaits it. If nobody has by
the time the task is garbage collected, the event loop's exception handler is told:
"Task exception was never retrieved". That is late, in the middle of something else; and
as long as anybody refers to the task, a list for one, it is never. The same holds for
the futures of `run_in_executor`.

So let somebody wait: a TaskGroup raises the exception where the group is. Where nobody
can, a callback tells of it as soon as the task has ended: `tell` hands it to the
exception handler of the loop, which every program may set.

Output:
                                   the exception handler is told
    failed, kept in a list         nothing
    the list is cleared            Task exception was never retrieved: failed
    failed in a thread, kept       nothing
    the list is cleared again      Future exception was never retrieved: failed
    failed, with a callback        Task has failed: failed
    the list is cleared once more  nothing
    in a TaskGroup                 raised: failed
    awaited                        nothing
    await each task, or let it tell of its failure itself
"""

import asyncio
import gc
from contextlib import suppress
from typing import Any

TIME_LIMIT = 10.0  # seconds


def tell(task: "asyncio.Future[Any]") -> None:
    """Tell the loop's exception handler of a failure: give it to add_done_callback."""
    if not task.cancelled() and (error := task.exception()) is not None:
        task.get_loop().call_exception_handler(
            {"message": "Task has failed", "exception": error, "future": task}
        )


class Handler:
    """An exception handler that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __call__(
        self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        self.told.append(f"{context['message']}: {context['exception']}")


async def fail() -> None:
    raise ValueError("failed")


def fail_in_thread() -> None:
    raise OSError("failed")


async def never_asked(future: "asyncio.Future[Any]") -> None:
    """Wait until it has ended, without asking how."""
    await asyncio.wait([future])


async def observe(handler: Handler) -> list[tuple[str, str]]:
    """Return for each moment what the handler has been told since the one before."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handler)
    moments: list[tuple[str, str]] = []

    def now(moment: str) -> None:
        gc.collect()
        moments.append((moment, ", ".join(handler.told) or "nothing"))
        handler.told.clear()

    tasks: list[asyncio.Future[Any]] = [asyncio.create_task(fail())]
    await never_asked(tasks[0])
    now("failed, kept in a list")
    tasks.clear()
    now("the list is cleared")

    tasks.append(loop.run_in_executor(None, fail_in_thread))
    await never_asked(tasks[0])
    now("failed in a thread, kept")
    tasks.clear()
    now("the list is cleared again")

    tasks.append(asyncio.create_task(fail()))
    tasks[0].add_done_callback(tell)
    await never_asked(tasks[0])
    await asyncio.sleep(0)
    now("failed, with a callback")
    tasks.clear()
    now("the list is cleared once more")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
    except* ValueError as errors:
        moments.append(("in a TaskGroup", f"raised: {errors.exceptions[0]}"))

    task = asyncio.create_task(fail())
    with suppress(ValueError):
        await task
    del task
    now("awaited")
    return moments


EXPECTED = [
    "nothing",
    "Task exception was never retrieved: failed",
    "nothing",
    "Future exception was never retrieved: failed",
    "Task has failed: failed",
    "nothing",
    "raised: failed",
    "nothing",
]


async def within_limit(
    handler: Handler,
) -> list[tuple[str, str]]:
    async with asyncio.timeout(TIME_LIMIT):
        # In a task of its own: before Python 3.13, a TaskGroup may leave its task
        # marked as cancelled, and Ctrl-C would come out as a CancelledError.
        return await asyncio.create_task(observe(handler))


def main() -> None:
    moments = asyncio.run(within_limit(Handler()))
    print(f"{'':29}  the exception handler is told")
    for moment, told in moments:
        print(f"{moment:29}  {told}")
    if [told for _, told in moments] != EXPECTED:
        raise SystemExit(f"not as expected: {EXPECTED}")
    print("await each task, or let it tell of its failure itself")


if __name__ == "__main__":
    main()
