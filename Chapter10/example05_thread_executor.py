"""Blocking calls in a pool of threads: the event loop goes on, and awaits the results.

Much useful code blocks, and will never have an `async` version. `run_in_executor` hands
such a call to a thread and gives a future: its result, or its exception, comes out of
the await. Calls overlap, as many as the pool has threads; others queue up. Meanwhile
the loop goes on: here, no call returns before the loop has taken a hundred turns.

What cannot be had is a way to stop a call. If its await is cancelled, the task is free,
but the thread is not, and the end of the pool waits for it. So a blocking call needs a
time limit of its own.

`asyncio.to_thread` is the short form, with a pool that belongs to the loop: example20.

Book: Chapter 10, example5.
Try:  --workers 20

Output:
    6 calls, 3 threads
    in progress at the same time  3
    turns of the loop meanwhile   100
    out of the await              -1 is negative, -2 is negative
    cancelled: the task is free, calls in progress: 1
    later, when the call returns, calls in progress: 0
    calls that block overlap in threads, and cannot be stopped
"""

import argparse
import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
T = TypeVar("T")

WORKERS = 3  # threads
TURNS = 100
LIMIT = 10.0  # seconds


async def map_in_executor(
    executor: Executor, function: Callable[[A], T], arguments: Sequence[A]
) -> list[T]:
    """Call `function` with each of `arguments`, in the executor; return the results.

    If this is cancelled, so are the calls that have not begun; others go on, unheard.

    Raises:
        ExceptionGroup: what calls have raised, when all have ended; for one that
            others have cancelled, a RuntimeError.
    """
    loop = asyncio.get_running_loop()
    futures = [loop.run_in_executor(executor, function, one) for one in arguments]
    try:
        await asyncio.gather(*futures, return_exceptions=True)
    finally:
        for future in futures:
            future.cancel()  # no effect on one that is done
    failures: list[BaseException] = []
    for future in futures:
        if future.cancelled():  # by others: the executor was shut down
            failures.append(RuntimeError("a call was cancelled"))
        elif (error := future.exception()) is not None:
            failures.append(error)
    if failures:
        message = f"{len(failures)} of {len(futures)} failed"
        raise BaseExceptionGroup(message, failures)  # mostly, an ExceptionGroup
    return [future.result() for future in futures]


class Service:
    """Stands for something that blocks: its calls return when it is told to answer."""

    def __init__(self, at_a_time: int) -> None:
        self.answer = threading.Event()
        self.inside = self.most = 0  # calls in progress now, and at most
        self._lock = threading.Lock()  # guards both
        self._all_here = threading.Barrier(at_a_time)

    def square(self, number: int) -> int:
        """Return the square of `number`, which no thread gets alone.

        Raises:
            ValueError: the number is negative.
            TimeoutError: no answer within LIMIT seconds.
        """
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        try:
            self._all_here.wait(LIMIT)  # for as many others
            if not self.answer.wait(LIMIT):
                raise TimeoutError("no answer")
            if number < 0:
                raise ValueError(f"{number} is negative")
            return number**2
        finally:
            with self._lock:
                self.inside -= 1

    def give_up(self) -> None:
        """Let all who wait go."""
        self._all_here.abort()
        self.answer.set()


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until `condition()` is true."""
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.001)


async def overlap(pool: Executor, workers: int) -> tuple[list[int], int]:
    """Ask for twice as many squares as there are workers, while the loop takes turns.

    Returns:
        The squares, and the highest number of calls in progress at the same time.
    """
    service = Service(workers)

    async def take_turns() -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
        service.answer.set()  # not before that does any call return

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(take_turns())
            squares = group.create_task(
                map_in_executor(pool, service.square, range(2 * workers))
            )
        return squares.result(), service.most
    finally:
        service.give_up()


async def failures(pool: Executor) -> list[str]:
    """Return what the failures of two calls out of three say, from the await."""
    service = Service(1)
    service.answer.set()
    try:
        await map_in_executor(pool, service.square, [-1, 1, -2])
    except* ValueError as group:
        messages = [str(error) for error in group.exceptions]
    return messages


async def cancelled(pool: Executor) -> tuple[bool, int, int]:
    """Cancel a task that awaits a call, and let the call return only after that.

    Returns:
        Whether the task was cancelled; how many calls were in progress then; and how
        many after the answer.
    """
    service = Service(1)
    try:
        task = asyncio.create_task(map_in_executor(pool, service.square, [7]))
        await until(lambda: service.inside == 1)
        task.cancel()
        await asyncio.wait([task])
        still_inside = service.inside
        service.answer.set()
        await until(lambda: service.inside == 0)
        return task.cancelled(), still_inside, service.inside
    finally:
        service.give_up()


async def observe(
    workers: int,
) -> tuple[tuple[list[int], int], list[str], tuple[bool, int, int]]:
    """Try all of the above with one pool."""
    with ThreadPoolExecutor(workers) as pool:
        return await overlap(pool, workers), await failures(pool), await cancelled(pool)


def some(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError(f"must be in 1 … 100, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=some, default=WORKERS)
    workers: int = parser.parse_args().workers

    (squares, most), messages, (free, during, after) = asyncio.run(observe(workers))
    print(f"{2 * workers} calls, {workers} threads")
    print(f"in progress at the same time  {most}")
    print(f"turns of the loop meanwhile   {TURNS}")
    print(f"out of the await              {', '.join(messages)}")
    print(f"cancelled: the task is free, calls in progress: {during}")
    print(f"later, when the call returns, calls in progress: {after}")
    if squares != [number**2 for number in range(2 * workers)] or most != workers:
        raise SystemExit(f"{squares}, {most} at a time")
    if messages != ["-1 is negative", "-2 is negative"]:
        raise SystemExit(f"not what the calls raised: {messages}")
    if (free, during, after) != (True, 1, 0):
        raise SystemExit("the call was to outlive the task that awaited it")
    print("calls that block overlap in threads, and cannot be stopped")


if __name__ == "__main__":
    main()
