"""A semaphore limits how many are at work, not how many wait in memory.

Each task waits at `async with semaphore` until there is a permit. Who waits is served
first come, first served. A newcomer does not overtake, not even when a permit has just
been given back. Who is cancelled while it waits takes no permit along, though the
permit may be on its way to it already. `acquire` without `async with` is another
matter: a task that is cancelled between `acquire` and `release` keeps its permit for
ever.

But a task for each item is there from the start, with its coroutine and its place in
the queue: some 1 KiB each, so that a million take a gigabyte. A few workers that share
one iterator keep to the same limit with that many tasks. Each draws the next item when
it is ready for it, and the source may be long and lazy.

A `BoundedSemaphore` raises ValueError at a release when all permits are back; the plain
one would from then on let one more in. That somebody releases twice while others are
inside, neither notices.

Try:  --limit 10 --items 10000

Output:
    500 items, limit 4    tasks  at work      memory
    semaphore                500        4   524.3 KiB
    workers                    4        4     5.4 KiB
    served             1, 2, 3, newcomer
    cancelled          permits left of 2
      waiting          2
      permit under way 2
      in `async with`  2
      after acquire()  1: nobody releases it
    release too many   Semaphore(2) says nothing, lets 3 in
                       BoundedSemaphore(2): ValueError, lets 2 in
    both keep to 4 at a time; workers are 4 tasks, not 500
"""

import argparse
import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

Map = Callable[[Callable[[int], Awaitable[R]], Iterable[int], int], Awaitable[list[R]]]

TIME_LIMIT = 10.0  # seconds


async def _not_merely_cancelled(call: Awaitable[R]) -> R:
    try:
        return await call
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise RuntimeError("what a call awaited has been cancelled") from error


async def map_with_semaphore(
    function: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int
) -> list[R]:
    """Return the results in order; `limit` calls are in progress at most.

    Makes a task for each item at once: for some thousands at most.

    Raises:
        ValueError: `limit` is less than 1.
        ExceptionGroup: a call has failed; all others were cancelled, perhaps after one
            more has begun.
    """
    if limit < 1:
        raise ValueError(f"the limit must be at least 1, not {limit}")
    semaphore = asyncio.BoundedSemaphore(limit)

    async def call(item: T) -> R:
        async with semaphore:
            return await _not_merely_cancelled(function(item))

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call(item)) for item in items]
    return [task.result() for task in tasks]


async def map_with_workers(
    function: Callable[[T], Awaitable[R]], items: Iterable[T], limit: int
) -> list[R]:
    """Do what `map_with_semaphore` does with `limit` tasks.

    An item is drawn from `items` when a worker is free for it.
    """
    if limit < 1:
        raise ValueError(f"the limit must be at least 1, not {limit}")
    results: dict[int, R] = {}
    numbered = enumerate(items)

    async def work() -> None:
        # All workers draw from one iterator. No lock: next() does not await.
        for number, item in numbered:
            results[number] = await _not_merely_cancelled(function(item))

    async with asyncio.TaskGroup() as group:
        for _ in range(limit):
            group.create_task(work())
    return [results[number] for number in range(len(results))]


class Job:
    """What each call does: it waits until `limit` calls are in progress together.

    Attributes:
        most: how many calls were in progress at most.
        tasks: how many tasks there were when the first call began.
        memory: bytes that had been allocated by then.
    """

    def __init__(self, limit: int) -> None:
        self.most = 0
        self.tasks = 0
        self.memory = 0
        self._in_progress = 0
        self._all_there = asyncio.Barrier(limit)

    def __str__(self) -> str:
        return f"{self.tasks:12} {self.most:8} {self.memory / 1024:7.1f} KiB"

    async def __call__(self, number: int) -> int:
        if not self.tasks:
            self.tasks = len(asyncio.all_tasks())
            self.memory = tracemalloc.get_traced_memory()[0]
        self._in_progress += 1
        self.most = max(self.most, self._in_progress)
        await self._all_there.wait()
        self._in_progress -= 1
        return number * number


async def watch(map_: Map[int], n_items: int, limit: int) -> Job:
    """Run `map_` over items and return what its calls have noted."""
    job = Job(limit)
    tasks_before = len(asyncio.all_tasks())
    tracemalloc.start()
    try:
        memory_before = tracemalloc.get_traced_memory()[0]
        results = await map_(job, range(n_items), limit)
    finally:
        tracemalloc.stop()
    if results != [number * number for number in range(n_items)]:
        raise SystemExit(f"{map_} gave wrong results")
    job.tasks -= tasks_before
    job.memory -= memory_before
    return job


async def admitted(semaphore: asyncio.Semaphore) -> int:
    """Return how many could come in now. Nobody else may use `semaphore`."""
    count = 0
    while not semaphore.locked():
        await semaphore.acquire()  # does not wait
        count += 1
    for _ in range(count):
        semaphore.release()
    return count


async def order_of_service(n_waiting: int) -> list[str]:
    """Let some wait for a permit, then a newcomer come who sees it given back."""
    semaphore = asyncio.Semaphore(1)
    served: list[str] = []

    async def wait(name: str) -> None:
        async with semaphore:
            served.append(name)

    await semaphore.acquire()
    async with asyncio.TaskGroup() as group:
        for number in range(n_waiting):
            group.create_task(wait(f"{number + 1}"))
        await asyncio.sleep(0)  # now all wait
        semaphore.release()  # wakes the first, who has not had its turn yet ...
        await wait("newcomer")  # ... when this comes
    return served


async def permits_after_cancel(*, awake: bool) -> int:
    """Cancel a task that waits for one of two permits; return how many there are then.

    Args:
        awake: the permit has already been given to it, but it has not run since.
    """
    semaphore = asyncio.BoundedSemaphore(2)
    for _ in range(2):
        await semaphore.acquire()

    async def wait() -> None:
        async with semaphore:
            pass

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)  # now it waits
    if awake:
        semaphore.release()
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        raise SystemExit("the task was not cancelled")
    for _ in range(1 if awake else 2):
        semaphore.release()
    return await admitted(semaphore)


async def permits_after_cancel_inside(*, properly: bool) -> int:
    """Cancel a task that has one of two permits; return how many there are then.

    Args:
        properly: it uses `async with`; if not, it calls `acquire` and `release`.
    """
    semaphore = asyncio.BoundedSemaphore(2)
    never = asyncio.Event()

    async def work() -> None:
        if properly:
            async with semaphore:
                await never.wait()
        else:
            await semaphore.acquire()
            await never.wait()  # broken: who is cancelled here does not release
            semaphore.release()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)  # now it is inside
    task.cancel()
    await asyncio.wait([task])
    return await admitted(semaphore)


async def admitted_after_one_release_too_many(semaphore: asyncio.Semaphore) -> str:
    """Return what a release too many leads to."""
    try:
        semaphore.release()
    except ValueError:
        return f"ValueError, lets {await admitted(semaphore)} in"
    return f"says nothing, lets {await admitted(semaphore)} in"


async def demonstrate() -> None:
    """Check and print who is served, and what becomes of the permits."""
    served = await order_of_service(3)
    if served != ["1", "2", "3", "newcomer"]:
        raise SystemExit(f"not served in the order in which they came: {served}")
    print(f"served             {', '.join(served)}")

    waiting, awake = [await permits_after_cancel(awake=yes) for yes in (False, True)]
    inside, lost = [
        await permits_after_cancel_inside(properly=yes) for yes in (True, False)
    ]
    if (waiting, awake, inside, lost) != (2, 2, 2, 1):
        raise SystemExit(f"permits: {waiting}, {awake}, {inside}, {lost} of 2")
    print("cancelled          permits left of 2")
    print(f"  waiting          {waiting}")
    print(f"  permit under way {awake}")
    print(f"  in `async with`  {inside}")
    print(f"  after acquire()  {lost}: nobody releases it")

    plain = await admitted_after_one_release_too_many(asyncio.Semaphore(2))
    bounded = await admitted_after_one_release_too_many(asyncio.BoundedSemaphore(2))
    if (plain, bounded) != ("says nothing, lets 3 in", "ValueError, lets 2 in"):
        raise SystemExit(f"a release too many: {plain}; {bounded}")
    print(f"release too many   Semaphore(2) {plain}")
    print(f"                   BoundedSemaphore(2): {bounded}")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--limit", type=positive, default=4)
    parser.add_argument("--items", type=positive, default=500)
    options = parser.parse_args()
    # The last calls, too, are to meet: an uneven rest would wait for ever.
    n_items = options.items + -options.items % options.limit

    limit = options.limit

    async def within(demonstration: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        async with asyncio.timeout(TIME_LIMIT + n_items / 1000):
            return await demonstration(*arguments)

    print(f"{n_items} items, limit {limit}    tasks  at work      memory")
    # Debug mode keeps a stack for each task, and its memory would be counted.
    job = asyncio.run(within(watch, map_with_semaphore, n_items, limit), debug=False)
    print(f"{'semaphore':16}{job}")
    if (job.tasks, job.most) != (n_items, limit):
        raise SystemExit("each item was to have a task, and the limit to be reached")
    job = asyncio.run(within(watch, map_with_workers, n_items, limit), debug=False)
    print(f"{'workers':16}{job}")
    if (job.tasks, job.most) != (limit, limit):
        raise SystemExit("there were to be as many tasks as calls, up to the limit")

    asyncio.run(within(demonstrate))
    print(f"both keep to {limit} at a time; workers are {limit} tasks, not {n_items}")


if __name__ == "__main__":
    main()
