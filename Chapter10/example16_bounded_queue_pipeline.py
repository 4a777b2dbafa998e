# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""A pipeline with bounded queues: whoever is fast waits, and memory has a limit.

A source feeds a queue, some workers transform, a second queue feeds the consumer. `put`
waits while a queue is full. So a slow consumer stops the workers, and they stop the
source: backpressure. At any time the source is ahead of the consumer by the items in
both queues, one in the hands of each worker, and one that the source waits to put.

In an unbounded queue `put` never waits. An await that need not wait does not give way,
either: the source gives everything it has before anybody else has a turn.

The end is one sentinel that each worker passes on to the next. (`Queue.shutdown`, from
3.13 on, does the same.) All tasks belong to one TaskGroup: if one fails, all end, and
the error comes out. The group is in a context manager; an async generator must not
yield inside a TaskGroup (example18).

Try:  --workers 5 --maxsize 1
Try:  --plot ahead.png

Output:
    80 items, 3 workers, two queues of 2
    consumer held    8 items given, 2 * 2 + 3 + 1, no more
    consumer let go  8 ahead at most; each result came once
    unbounded        80 given before the first call, not 3
    worker fails     ValueError('item 5') comes out, no task is left
    consumer ends    early, or cancelled: no task is left
    a slow consumer holds the source back, and no error is lost
"""

import argparse
import asyncio
import os
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

TIME_LIMIT = 10.0  # seconds
FAILS = 5  # the item that a worker cannot transform
STOP_AFTER = 3  # items after which a consumer has enough
TURNS = 20  # of the event loop, in which nothing more may happen
SLOW = 0.001  # seconds that the consumer in the picture takes for an item


class End:
    """What comes after the last item."""


END: Final = End()


class Channel(AsyncIterator[T]):
    """A queue with an end: `async for` gets items, in any number of tasks.

    Each item goes to one of them; all of them see the end.

    Args:
        maxsize: items that fit in; 0 for any number.
    """

    def __init__(self, maxsize: int) -> None:
        self._queue: asyncio.Queue[T | End] = asyncio.Queue(maxsize)

    async def put(self, item: T) -> None:
        """Add `item`, when there is room."""
        await self._queue.put(item)

    async def close(self) -> None:
        """Say, when there is room, that no more items come. Nobody may put after it."""
        await self._queue.put(END)

    def __aiter__(self) -> AsyncIterator[T]:
        # Not a generator: one would be left open by each task that fails (example18).
        return self

    async def __anext__(self) -> T:
        item = await self._queue.get()
        if isinstance(item, End):
            # For the next task. There is room: this one has just made it, and nobody
            # else puts any more.
            self._queue.put_nowait(item)
            raise StopAsyncIteration
        return item


async def _not_merely_cancelled(stage: Callable[[], Awaitable[None]]) -> None:
    """Await `stage()`; raise an error for a CancelledError that no cancel() has caused.

    It comes from something that the stage awaits and others have cancelled. A TaskGroup
    takes it for the end of a task that is no error; the next stage would wait for ever.
    """
    try:
        await stage()
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("what a stage awaited has been cancelled") from error


@asynccontextmanager
async def bounded_map(
    function: Callable[[T], Awaitable[R]],
    items: Iterable[T] | AsyncIterable[T],
    *,
    workers: int,
    maxsize: int,
) -> AsyncIterator[AsyncIterator[R]]:
    """Give an iterator of the results of `function`, in the order they are ready.

        async with bounded_map(fetch, urls, workers=8, maxsize=16) as pages:
            async for page in pages:
                ...

    At any time at most `2 * maxsize + workers + 1` items have been taken from `items`
    whose results have not been taken. The end of the block cancels what is in progress.

    Args:
        items: are not closed; an async generator is the caller's to close (`aclosing`).
        workers: calls of `function` that are in progress at most.
        maxsize: room of each of the two queues; 0 for no limit.

    Raises:
        ValueError: there is no worker, or `maxsize` is negative.
        ExceptionGroup: of what `function`, `items` or the block has raised. The first
            error cancels everything else.
    """
    if workers < 1 or maxsize < 0:
        raise ValueError(f"{workers} workers, queues of {maxsize}")
    todo, done = Channel[T](maxsize), Channel[R](maxsize)
    working = workers

    async def produce() -> None:
        if isinstance(items, AsyncIterable):
            async for item in items:
                await todo.put(item)
        else:
            for item in items:
                await todo.put(item)
        await todo.close()

    async def work() -> None:
        nonlocal working
        async for item in todo:
            await done.put(await function(item))
        working -= 1
        if not working:  # the last one: no result is still on its way
            await done.close()

    async with asyncio.TaskGroup() as group:
        stages = [produce, *[work] * workers]
        tasks = [group.create_task(_not_merely_cancelled(stage)) for stage in stages]
        yield aiter(done)
        for task in tasks:  # the consumer may have had enough
            task.cancel()


class Source:
    """Gives numbers from 0 on, and looks each time how far it is ahead of the consumer.

    Args:
        n_items: how many there are.
        when_ahead: called with the number of items that it is ahead, after each change.
    """

    def __init__(self, n_items: int, when_ahead: Callable[[int], object]) -> None:
        self.given = 0
        self.consumed = 0
        self._n_items = n_items
        self._when_ahead = when_ahead

    def __iter__(self) -> Iterator[int]:
        for number in range(self._n_items):
            self.given += 1
            self._when_ahead(self.given - self.consumed)
            yield number

    def consume(self) -> None:
        """Say that the consumer has got one item more."""
        self.consumed += 1
        self._when_ahead(self.given - self.consumed)


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The size of the pipeline that the demonstration runs."""

    workers: int
    maxsize: int
    n_items: int

    @property
    def bound(self) -> int:
        """How many items the source is ahead of the consumer at most."""
        return 2 * self.maxsize + self.workers + 1

    def run(
        self,
        function: Callable[[int], Awaitable[R]],
        items: Iterable[int],
        maxsize: int | None = None,
    ) -> AbstractAsyncContextManager[AsyncIterator[R]]:
        """Run it; with queues of another size if `maxsize` is given."""
        maxsize = self.maxsize if maxsize is None else maxsize
        return bounded_map(function, items, workers=self.workers, maxsize=maxsize)


async def square(number: int) -> int:
    await asyncio.sleep(0)
    return number * number


async def held_consumer(line: Pipeline) -> tuple[int, int]:
    """Let a consumer take nothing until the source is ahead as far as it can be.

    Returns:
        How many items the source had given some turns later; how far it was ahead at
        most from the first to the last item.
    """
    full = asyncio.Event()
    most = 0

    def look(ahead: int) -> None:
        nonlocal most
        most = max(most, ahead)
        if ahead == line.bound:
            full.set()

    source = Source(line.n_items, look)
    got = []
    async with line.run(square, source) as results:
        await full.wait()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        given = source.given
        async for result in results:
            source.consume()
            got.append(result)
    if sorted(got) != [n * n for n in range(line.n_items)]:
        raise SystemExit("a result was lost or came twice")
    return given, most


async def given_before_first_call(line: Pipeline, maxsize: int) -> int:
    """Return how many items the source has given when a worker gets its first."""
    source = Source(line.n_items, lambda _: None)
    given: list[int] = []

    async def look(_: int) -> None:
        given.append(source.given)

    async with line.run(look, source, maxsize) as results:
        await anext(results)
    return given[0]


async def error_of_failing_worker(line: Pipeline) -> str:
    """Let a worker fail while all others wait; return what comes out."""

    async def fail(number: int) -> None:
        if number == FAILS:
            raise ValueError(f"item {number}")
        if number > FAILS:
            await asyncio.Event().wait()  # until cancelled

    try:
        async with line.run(fail, range(line.n_items)) as results:
            async for _ in results:
                pass
    except ExceptionGroup as group:
        return ", ".join(map(repr, group.exceptions))
    return "nothing"


async def consumer_that_stops(line: Pipeline) -> int:
    """Leave the block after a few items; return how many were got."""
    n_got = 0
    async with line.run(square, range(line.n_items)) as results:
        async for _ in results:
            n_got += 1
            if n_got == STOP_AFTER:
                break
    return n_got


async def cancelled_consumer(line: Pipeline) -> bool:
    """Cancel a consumer that waits for a result; return whether it ended cancelled."""
    at_work = asyncio.Event()

    async def never(_: int) -> None:
        at_work.set()
        await asyncio.Event().wait()

    async def consume() -> None:
        async with line.run(never, range(line.n_items)) as results:
            await anext(results)

    task = asyncio.create_task(consume())
    await at_work.wait()
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


async def history(line: Pipeline, maxsize: int) -> list[tuple[float, int]]:
    """Return when the source was ahead of a slow consumer, and by how many items."""
    noted: list[tuple[float, int]] = []
    source = Source(
        line.n_items, lambda ahead: noted.append((time.perf_counter(), ahead))
    )
    async with line.run(square, source, maxsize) as results:
        async for _ in results:
            source.consume()
            await asyncio.sleep(SLOW)
    return noted


def run(demonstration: Callable[..., Coroutine[Any, Any, R]], *arguments: Any) -> R:
    """Run it, TIME_LIMIT at most; no task may be left."""

    async def observed() -> R:
        async with asyncio.timeout(TIME_LIMIT):
            result = await demonstration(*arguments)
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            raise SystemExit(f"{len(left)} tasks were left")
        return result

    return asyncio.run(observed())


def plot(line: Pipeline, file: Path) -> None:
    """Run it with bounded and unbounded queues; draw how far the source was ahead."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, maxsize in {
        "unbounded": 0,
        f"queues of {line.maxsize}": line.maxsize,
    }.items():
        noted = run(history, line, maxsize)
        times = [1000 * (at - noted[0][0]) for at, _ in noted]
        ahead = [items for _, items in noted]
        axes.step(times, ahead, where="post", label=name, linewidth=2)
    axes.axhline(line.bound, color="grey", linestyle="dotted")
    axes.annotate(
        f"the bound: {line.bound}",
        (0.99, line.bound),
        (0, 4),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        fontsize=12,
    )
    axes.set_xlabel("milliseconds", fontsize=12)
    axes.set_ylabel("items ahead of the consumer", fontsize=12)
    axes.set_ylim(bottom=0)
    axes.set_title(
        "A bounded queue holds the source back; an unbounded one takes all it has",
        fontweight="bold",
    )
    axes.legend(fontsize=12)
    figure.savefig(file, dpi=120)


def number(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 200:
        raise argparse.ArgumentTypeError(f"must be in 1 … 200, not {number}")
    return number


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=number, default=3)
    parser.add_argument("--maxsize", type=number, default=2)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    workers, maxsize = options.workers, options.maxsize
    bound = 2 * maxsize + workers + 1
    line = Pipeline(workers, maxsize, n_items=10 * bound)

    print(f"{line.n_items} items, {workers} workers, two queues of {maxsize}")
    given, most = run(held_consumer, line)
    if (given, most) != (bound, bound):
        raise SystemExit(f"{given} given to a held consumer, {most} ahead at most")
    print(
        f"consumer held    {given} items given, 2 * {maxsize} + {workers} + 1, no more"
    )
    print(f"consumer let go  {most} ahead at most; each result came once")
    first = [run(given_before_first_call, line, size) for size in (maxsize, 0)]
    if first != [maxsize + 1, line.n_items]:
        raise SystemExit(f"given before the first call: {first}")
    print(f"unbounded        {first[1]} given before the first call, not {first[0]}")
    error = run(error_of_failing_worker, line)
    if error != f"ValueError('item {FAILS}')":
        raise SystemExit(f"of the failing worker came out: {error}")
    print(f"worker fails     {error} comes out, no task is left")
    if run(consumer_that_stops, line) != STOP_AFTER:
        raise SystemExit("the consumer was to stop")
    if not run(cancelled_consumer, line):
        raise SystemExit("the consumer was to be cancelled")
    print("consumer ends    early, or cancelled: no task is left")
    if options.plot:
        plot(line, options.plot)
    print("a slow consumer holds the source back, and no error is lost")


if __name__ == "__main__":
    main()
