"""The life of an event loop: made, run, tidied up, closed; and what it calls when.

`asyncio.run` is a loop's whole life in one call. It makes a loop, makes a task of the
coroutine and runs it to its end. Then it tidies up: cancels the tasks that are left and
lets them clean up, closes the asynchronous generators, waits for the threads of
`to_thread` (from 3.12 on, for five minutes at most), closes the loop. The next call
makes another loop. `asyncio.Runner` is the same step by step; between its runs, the
loop and the tasks in it just stand still.

In between, the loop calls what is ready, in the order in which it became so: what was
given to call_soon, then timers that are due, by their time. The one way in from another
thread is call_soon_threadsafe, which also wakes the loop if it sleeps.

Output:
    asked for in another order, called:
      soon, from a thread, soon, asked last, at -1 s, at +1 ms, at +2 ms
    the end of asyncio.run:
      the main coroutine returns
      the task is cancelled, and cleans up
      the generator is closed
      the thread comes to its end
      the loop is closed
    from run to run a Runner keeps:
      the same loop
      its tasks, which stood still
      context variables
    refused:
      run a loop inside a loop                 RuntimeError
      wait in another loop for the same Event  RuntimeError
      call something when it is closed         RuntimeError
    asyncio.run leaves nothing behind; its next call makes another loop
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from contextvars import ContextVar

LONG = 60.0  # seconds that nobody waits
LIMIT = 10.0  # seconds


async def order_of_calls() -> list[str]:
    """Return in which order a loop makes calls that were asked for in another."""
    loop = asyncio.get_running_loop()
    calls: list[str] = []
    all_made = asyncio.Event()

    def call(name: str) -> None:
        calls.append(name)
        if len(calls) == 6:
            all_made.set()

    now = loop.time()
    loop.call_at(now + 0.002, call, "at +2 ms")
    loop.call_at(now - 1, call, "at -1 s")
    loop.call_at(now + 0.001, call, "at +1 ms")
    loop.call_soon(call, "soon")
    thread = threading.Thread(
        target=loop.call_soon_threadsafe, args=(call, "from a thread")
    )
    thread.start()
    thread.join()
    loop.call_soon(call, "soon, asked last")
    async with asyncio.timeout(LIMIT):
        await all_made.wait()
    return calls


async def leave_all_behind(notes: list[str], kept: list[object]) -> None:
    """Return with a task waiting, a generator open, and a thread at work.

    Args:
        kept: gets them, so that nothing ends because nobody refers to it.
    """
    loop = asyncio.get_running_loop()
    closed = threading.Event()

    async def forgotten() -> None:
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.sleep(0)
            notes.append("the task is cancelled, and cleans up")

    async def numbers() -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            try:
                await asyncio.sleep(0)
                notes.append("the generator is closed")
            finally:
                closed.set()  # also if Ctrl-C comes just now: the thread waits

    def work() -> None:
        closed.wait(LIMIT)  # it takes longer than the other two
        notes.append("the thread comes to its end")

    generator = numbers()
    kept += [loop, asyncio.create_task(forgotten()), generator]
    kept.append(loop.run_in_executor(None, work))
    await anext(generator)
    await asyncio.sleep(0)  # the task begins to wait
    notes.append("the main coroutine returns")


def tidied_up() -> list[str]:
    """Return what happens after the main coroutine, in that order."""
    notes: list[str] = []
    kept: list[object] = []
    asyncio.run(leave_all_behind(notes, kept))
    assert isinstance(kept[0], asyncio.AbstractEventLoop)
    if kept[0].is_closed():
        notes.append("the loop is closed")
    return notes


def between_runs() -> list[str]:
    """Return what a Runner keeps from one run to the next."""
    kept = []
    turns = 0
    name: ContextVar[str] = ContextVar("name")

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def first() -> tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]:
        name.set("set in the first run")
        task = asyncio.create_task(count_turns())
        await asyncio.sleep(0)
        return asyncio.get_running_loop(), task

    async def second() -> tuple[asyncio.AbstractEventLoop, str]:
        await asyncio.sleep(0)
        return asyncio.get_running_loop(), name.get("not set")

    with asyncio.Runner() as runner:
        loop, task = runner.run(first())
        turns_after_first = turns
        time.sleep(0.01)  # time enough for turns, if anybody took them
        stood_still = turns == turns_after_first and not task.done()
        same_loop, value = runner.run(second())
        if same_loop is loop:
            kept.append("the same loop")
        if stood_still and turns > turns_after_first:
            kept.append("its tasks, which stood still")
        if value == "set in the first run":
            kept.append("context variables")
    return kept


def refused() -> dict[str, str]:
    """Return what a loop does not do, and with which exception it says so."""
    waited_for = asyncio.Event()
    loops = []

    async def inside() -> None:
        coroutine = asyncio.sleep(0)
        try:
            asyncio.run(coroutine)
        finally:
            coroutine.close()

    async def wait() -> None:
        loops.append(asyncio.get_running_loop())
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                await waited_for.wait()

    asyncio.run(wait())  # from now on the event belongs to that loop
    trials: dict[str, Callable[[], object]] = {
        "run a loop inside a loop": lambda: asyncio.run(inside()),
        "wait in another loop for the same Event": lambda: asyncio.run(wait()),
        "call something when it is closed": lambda: loops[0].call_soon(print),
    }
    said = {}
    for trial, function in trials.items():
        try:
            function()
        except RuntimeError as error:
            said[trial] = type(error).__name__
        else:
            said[trial] = "nothing"
    return said


def main() -> None:
    calls = asyncio.run(order_of_calls())
    print("asked for in another order, called:")
    print(f"  {', '.join(calls)}")
    if calls != [
        "soon",
        "from a thread",
        "soon, asked last",
        "at -1 s",
        "at +1 ms",
        "at +2 ms",
    ]:
        raise SystemExit("not in the order in which they became ready")

    notes = tidied_up()
    print("the end of asyncio.run:", *notes, sep="\n  ")
    if notes != [
        "the main coroutine returns",
        "the task is cancelled, and cleans up",
        "the generator is closed",
        "the thread comes to its end",
        "the loop is closed",
    ]:
        raise SystemExit("not tidied up in that order")

    kept = between_runs()
    print("from run to run a Runner keeps:", *kept, sep="\n  ")
    if len(kept) != 3:
        raise SystemExit("it was to keep more")

    said = refused()
    print("refused:")
    for trial, exception in said.items():
        print(f"  {trial:40} {exception}")
    if set(said.values()) != {"RuntimeError"}:
        raise SystemExit("something was not refused")
    print("asyncio.run leaves nothing behind; its next call makes another loop")


if __name__ == "__main__":
    main()
