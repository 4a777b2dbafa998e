# /// script
# requires-python = ">=3.11"
# dependencies = ["trio>=0.26.0"]
# ///
"""The same program on asyncio and on trio: structured concurrency, word by word.

A parent waits for its children, an error of one cancels the others, and a scope with a
deadline cancels what is inside. trio was built on that; asyncio has since taken over
groups and timeouts. What corresponds:

    asyncio                             trio
    TaskGroup, create_task              open_nursery, start_soon
    timeout: TimeoutError               fail_after: TooSlowError
    timeout, and suppress that          move_on_after
    Queue(n), and a sentinel            open_memory_channel(n), closed by its senders
    Event, Lock, Semaphore, Barrier     Event, Lock, Semaphore (no Barrier)
    to_thread                           to_thread.run_sync
    a task of its own, shield(task)     CancelScope(shield=True)
    task.cancel()                       CancelScope.cancel()

The difference is what a cancellation is. In asyncio it is an event: `cancel` raises
CancelledError once, and the clean-up may await whatever it likes. In trio it is the
state of a scope: every await inside raises Cancelled, in the clean-up as well, unless a
shield is around it. So a shield that is missing shows in trio at the first try; in
asyncio it takes a second cancel. Who swallows the exception gets it again in trio at
the next await; in asyncio the task lives on.

What is written for anyio runs on both, with trio's rules.

Output:
    slow page    asyncio  a fine, b fine, c fine, slow too slow; 2 goodbyes
    slow page    trio     a fine, b fine, c fine, slow too slow; 2 goodbyes
    broken page  asyncio  a fine, b fine; 2 goodbyes
                          BrokenPageError('broken')
    broken page  trio     a fine, b fine; 2 goodbyes
                          BrokenPageError('broken')
    clean-up after one cancel
      asyncio             3 of 3 awaits pass
      trio                0 of 3 awaits pass
      trio, with a shield 3 of 3 awaits pass
    the same reports; what they mean by a cancellation differs
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")

TIME_LIMIT = 10.0  # seconds
PATIENCE = 0.02  # seconds that a page may take
CHECKPOINTS = 3  # awaits in a clean-up


class BrokenPageError(Exception):
    """A page that cannot be read ends the whole check."""


@dataclass(slots=True)
class Report:
    """What a check of a site has found.

    Attributes:
        results: for each page that was checked, what came of it.
        goodbyes: how many workers have said goodbye to the site.
        error: what has ended the check, None if it came to its end.
    """

    results: dict[str, str] = field(default_factory=dict)
    goodbyes: int = 0
    error: str | None = None


async def check_on_asyncio(
    pages: Sequence[str], n_workers: int, patience: float
) -> Report:
    """Read `pages` with a few workers; each page may take `patience` seconds."""
    report = Report()
    queue: asyncio.Queue[str | None] = asyncio.Queue(1)
    slow_has_begun = asyncio.Event()

    async def read(page: str) -> str:
        if page == "slow":
            slow_has_begun.set()
            await asyncio.Event().wait()
        if page == "broken":
            await slow_has_begun.wait()  # so that another worker is at work
            raise BrokenPageError(page)
        return "fine"

    async def feed() -> None:
        for page in pages:
            await queue.put(page)
        await queue.put(None)

    async def work() -> None:
        try:
            while (page := await queue.get()) is not None:
                try:
                    async with asyncio.timeout(patience):
                        report.results[page] = await read(page)
                except TimeoutError:
                    report.results[page] = "too slow"
            queue.put_nowait(None)  # for the next worker
        finally:
            await asyncio.sleep(0)  # a second cancel would end it here
            report.goodbyes += 1

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            for _ in range(n_workers):
                group.create_task(work())
    except* BrokenPageError as error:
        report.error = repr(error.exceptions[0])
    return report


async def check_on_trio(
    pages: Sequence[str], n_workers: int, patience: float
) -> Report:
    """Read `pages` with a few workers; each page may take `patience` seconds."""
    report = Report()
    into_channel, out_of_channel = trio.open_memory_channel[str](1)
    slow_has_begun = trio.Event()

    async def read(page: str) -> str:
        if page == "slow":
            slow_has_begun.set()
            await trio.sleep_forever()
        if page == "broken":
            await slow_has_begun.wait()
            raise BrokenPageError(page)
        return "fine"

    async def feed() -> None:
        async with into_channel:  # closing it is what ends the workers' loops
            for page in pages:
                await into_channel.send(page)

    async def work() -> None:
        try:
            async for page in out_of_channel:
                try:
                    with trio.fail_after(patience):
                        report.results[page] = await read(page)
                except trio.TooSlowError:
                    report.results[page] = "too slow"
        finally:
            with trio.CancelScope(shield=True):  # or this await is cancelled, too
                await trio.sleep(0)
            report.goodbyes += 1

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            for _ in range(n_workers):
                nursery.start_soon(work)
    except* BrokenPageError as error:
        report.error = repr(error.exceptions[0])
    return report


async def awaits_after_cancel_on_asyncio() -> int:
    """Return how many of some awaits in a clean-up pass after a cancellation."""
    passed = 0
    at_work = asyncio.Event()

    async def work() -> None:
        nonlocal passed
        try:
            at_work.set()
            await asyncio.Event().wait()
        finally:
            for _ in range(CHECKPOINTS):
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0)
                    passed += 1

    task = asyncio.create_task(work())
    await at_work.wait()
    task.cancel()
    await asyncio.wait([task])
    return passed


async def awaits_after_cancel_on_trio(shield: bool) -> int:
    """Return how many of some awaits in a clean-up pass after a cancellation."""
    passed = 0
    at_work = trio.Event()

    async def work() -> None:
        nonlocal passed
        try:
            at_work.set()
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=shield):
                for _ in range(CHECKPOINTS):
                    with suppress(trio.Cancelled):
                        await trio.sleep(0)
                        passed += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        await at_work.wait()
        nursery.cancel_scope.cancel()
    return passed


def run_asyncio(
    function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run an async function on asyncio, TIME_LIMIT at most."""

    async def main() -> T:
        async with asyncio.timeout(TIME_LIMIT):
            # In a task of its own: before Python 3.13, a TaskGroup may leave its task
            # marked as cancelled, and Ctrl-C would come out as a CancelledError.
            return await asyncio.create_task(function(*args, **kwargs))

    return asyncio.run(main())


def run_trio(
    function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run an async function on trio, TIME_LIMIT at most.

    Raises:
        KeyboardInterrupt: Ctrl-C; trio raises a group of it, from inside a nursery.
    """

    async def main() -> T:
        with trio.fail_after(TIME_LIMIT):
            return await function(*args, **kwargs)

    try:
        return trio.run(main)
    except BaseExceptionGroup as group:
        if group.subgroup(KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


def main() -> None:
    sites = {
        "slow page": (["a", "slow", "b", "c"], PATIENCE),
        "broken page": (["a", "slow", "b", "broken", "c"], math.inf),
    }
    expected = [
        Report({"a": "fine", "b": "fine", "c": "fine", "slow": "too slow"}, 2),
        Report({"a": "fine", "b": "fine"}, 2, "BrokenPageError('broken')"),
    ]
    for (name, site), report in zip(sites.items(), expected, strict=True):
        pages, patience = site
        on_asyncio = run_asyncio(check_on_asyncio, pages, 2, patience)
        on_trio = run_trio(check_on_trio, pages, 2, patience)
        if not on_asyncio == on_trio == report:
            raise SystemExit(f"asyncio: {on_asyncio}, trio: {on_trio}")
        for loop, seen in {"asyncio": on_asyncio, "trio": on_trio}.items():
            results = ", ".join(f"{p} {seen.results[p]}" for p in sorted(seen.results))
            print(f"{name:11}  {loop:7}  {results}; {seen.goodbyes} goodbyes")
            if seen.error:
                print(f"{'':20}  {seen.error}")

    passed = {
        "asyncio": run_asyncio(awaits_after_cancel_on_asyncio),
        "trio": run_trio(awaits_after_cancel_on_trio, shield=False),
        "trio, with a shield": run_trio(awaits_after_cancel_on_trio, shield=True),
    }
    if list(passed.values()) != [CHECKPOINTS, 0, CHECKPOINTS]:
        raise SystemExit(f"awaits that passed in a clean-up: {passed}")
    print("clean-up after one cancel")
    for name, count in passed.items():
        print(f"  {name:20}{count} of {CHECKPOINTS} awaits pass")
    print("the same reports; what they mean by a cancellation differs")


if __name__ == "__main__":
    main()
