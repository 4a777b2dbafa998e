"""A task that nobody refers to may be gone before it has done its work.

The event loop keeps tasks by weak references only. A task that waits is kept by what it
waits for: a timer, a socket, a lock that somebody else has. If that is known to nobody
but the task itself, the two refer to each other in a circle, and the garbage collector
takes both, in the middle of an await. All one sees is a message: "Task was destroyed
but it is pending!" Mostly it works; that is what makes it dangerous.

So refer to each task until it has ended. A TaskGroup does; so does `BackgroundTasks`,
for tasks that outlive the function that starts them: it also tells of failures at once,
and lets nothing outlive its block.

Source: the documentation of asyncio.create_task, "Important".

Output:
    nobody refers to it  noted [], reported ['Task was destroyed but it is pending!']
    BackgroundTasks      noted ['answered'], reported ['one that fails']
    refer to each task until it has ended
"""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Self

TIME_LIMIT = 10.0  # seconds


class BackgroundTasks:
    """Tasks that nobody awaits: kept, watched, and waited for at the end of a block.

    If the block raises, or is cancelled, they are cancelled.

    Args:
        on_error: called with the exception of each task that fails, as soon as it does.
    """

    def __init__(self, on_error: Callable[[BaseException], object]) -> None:
        self._on_error = on_error
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = False

    async def __aenter__(self) -> Self:
        return self

    def spawn(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Start a task; its own tasks may do so, too.

        Raises:
            RuntimeError: the block has ended, and nobody would wait for it.
        """
        if self._over:
            coroutine.close()
            raise RuntimeError("the block has ended")
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(error)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            while self._tasks and kind is None:  # they may spawn others
                await asyncio.wait(self._tasks)
        finally:
            told: set[asyncio.Task[Any]] = set()  # cancelled once: clean-up goes on
            cancelled: asyncio.CancelledError | None = None
            while self._tasks:
                for task in self._tasks - told:
                    task.cancel()
                told |= self._tasks
                try:
                    await asyncio.wait(self._tasks)
                except asyncio.CancelledError as error:
                    cancelled = error
            self._over = True
            if cancelled is not None:
                raise cancelled


class Mailbox:
    """Where an answer comes in, if whoever is to answer knows of it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()


async def note_answer(notes: list[str], mailboxes: list[Mailbox]) -> None:
    """Wait for an answer, and note it.

    Args:
        mailboxes: where whoever answers looks.
    """
    mailbox = Mailbox()
    mailboxes.append(mailbox)
    notes.append(await mailbox.answer)


async def lost() -> tuple[list[str], list[str]]:
    """Start a task that nothing refers to; return its notes, and what is reported."""
    notes: list[str] = []
    mailboxes: list[Mailbox] = []
    reports: list[str] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reports.append(context["message"]))
    asyncio.create_task(note_answer(notes, mailboxes))  # noqa: RUF006
    await asyncio.sleep(0)  # it waits
    mailboxes.clear()  # whoever was to answer has forgotten it
    gc.collect()
    await asyncio.sleep(0)
    loop.set_exception_handler(None)
    return notes, reports


async def kept() -> tuple[list[str], list[str]]:
    """The same with BackgroundTasks, and with an answer in the end."""
    notes: list[str] = []
    mailboxes: list[Mailbox] = []
    reports: list[str] = []
    async with BackgroundTasks(
        on_error=lambda error: reports.append(str(error))
    ) as all_:
        all_.spawn(note_answer(notes, mailboxes))
        all_.spawn(fail())
        await asyncio.sleep(0)
        forgotten = weakref.ref(mailboxes.pop())  # as above: only the task has it
        gc.collect()
        if (mailbox := forgotten()) is not None:
            mailbox.answer.set_result("answered")
    return notes, reports


async def fail() -> None:
    raise ValueError("one that fails")


async def observe() -> None:
    """Check each claim, and print it."""
    async with asyncio.timeout(TIME_LIMIT):
        notes, reports = await lost()
        print(f"nobody refers to it  noted {notes}, reported {reports}")
        if notes or reports != ["Task was destroyed but it is pending!"]:
            raise SystemExit("the task was to be lost")
        notes, reports = await kept()
        print(f"BackgroundTasks      noted {notes}, reported {reports}")
        if (notes, reports) != (["answered"], ["one that fails"]):
            raise SystemExit("the task was to do its work, the failure to be told")
    print("refer to each task until it has ended")


def main() -> None:
    asyncio.run(observe())


if __name__ == "__main__":
    main()
