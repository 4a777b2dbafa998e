"""A coroutine that computes and never awaits starves all other tasks of its loop.

An event loop takes nothing away from a task: it waits until the task gives way, at an
await that really waits. One that only computes does not, and nobody else has a turn,
whoever has been ready for how long. It is seen here in the record of what happened on
the loop: all chunks of the computation lie between two beats of a heart that should
beat every 5 ms, and between two turns of a task that is always ready.

The loop's own work starves as well. A time limit is a timer, and no timer runs; nor can
the task be cancelled, since who would do that has no turn either, not even after the
first Ctrl-C, which cancels a task in `asyncio.run`.

In debug mode the loop names the task, once it is over. What else finds the culprit is
in Chapter 10, example21; the mends are in example12.

Try:  --chunks 100

Output:
    longest wait for a turn beside a computation of 40 chunks
      heart      every 5 ms      40 chunks, 54.2 ms
      bystander  always ready    40 chunks, 54.0 ms
    a time limit of 0 s       goes unnoticed
    cancelled at first turn   too late, 40 chunks are done
    debug mode tells          compute_greedily() took 56 ms
    who never gives way starves all others, timers and cancels among them
"""

import argparse
import asyncio
import logging
import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

PERIOD = 0.005  # seconds from beat to beat
CHUNK = 10_000  # numbers in a chunk of the computation
MOST = 200  # chunks that may be asked for
SLOW = 0.0001  # seconds that a step may take before debug mode tells of it


@dataclass
class Record:
    """What happened on the loop.

    Attributes:
        events: who has had a turn, and when; "chunk" is the computation's.
        total: the computation's result.
        seconds: how long it took.
    """

    events: list[tuple[str, float]] = field(default_factory=list)
    total: int = 0
    seconds: float = 0.0

    def note(self, who: str) -> None:
        self.events.append((who, time.perf_counter()))

    def turns(self, who: str) -> list[int]:
        """Return the positions of somebody's turns among all events."""
        return [at for at, (name, _) in enumerate(self.events) if name == who]

    def longest_wait(self, who: str) -> tuple[int, float]:
        """Return the longest wait for a turn, in chunks and in seconds."""
        chunks, seconds = 0, 0.0
        for a, b in pairwise(self.turns(who)):
            between = [name for name, _ in self.events[a:b]]
            chunks = max(chunks, between.count("chunk"))
            seconds = max(seconds, self.events[b][1] - self.events[a][1])
        return chunks, seconds


def chunk(number: int) -> int:
    """Do one chunk of the computation: a sum over CHUNK numbers."""
    return sum(n * n % 7 for n in range(number * CHUNK, (number + 1) * CHUNK))


def compute(n_chunks: int, record: Record) -> int:
    """Return the sum of all chunks."""
    total = 0
    for number in range(n_chunks):
        total += chunk(number)
        record.note("chunk")
    return total


async def compute_greedily(n_chunks: int, record: Record) -> int:
    """Return the sum of all chunks; broken: it never gives way."""
    return compute(n_chunks, record)


async def beat(record: Record, ended: asyncio.Event) -> None:
    """Beat every PERIOD seconds, and once more when the computation has ended."""
    record.note("heart")
    while not ended.is_set():
        await asyncio.sleep(PERIOD)
        record.note("heart")


async def stand_by(name: str, record: Record, ended: asyncio.Event) -> None:
    """Be ready for a turn at any time, and for one more after the computation."""
    record.note(name)
    while not ended.is_set():
        await asyncio.sleep(0)
        record.note(name)


Computation = Callable[[int, Record], Coroutine[Any, Any, int]]


async def watch(computation: Computation, n_chunks: int, *bystanders: str) -> Record:
    """Run a computation beside a heart and some bystanders; return what happened."""
    record, ended = Record(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(beat(record, ended))
        for name in bystanders:
            group.create_task(stand_by(name, record, ended))
        # Begins when each of the others has had its first turn.
        task = group.create_task(computation(n_chunks, record), name="computation")
        began = time.perf_counter()
        try:
            record.total = await task
        finally:
            record.seconds = time.perf_counter() - began
            ended.set()
    return record


async def outlives_its_time_limit(computation: Computation, n_chunks: int) -> bool:
    """Give a computation no time at all; tell whether it ends as if it had enough."""
    try:
        async with asyncio.timeout(0):
            await computation(n_chunks, Record())
    except TimeoutError:
        return False
    return True


async def cancel_as_soon_as_possible(
    computation: Computation, n_chunks: int
) -> tuple[int, bool]:
    """Cancel a computation at the first turn that one has after its beginning.

    Returns:
        How many chunks were done; and whether it was cancelled, rather than through.
    """
    record = Record()
    task = asyncio.create_task(computation(n_chunks, record))
    while not record.events:
        await asyncio.sleep(0)
    task.cancel()  # no effect on one that has ended
    await asyncio.wait([task])
    return len(record.events), task.cancelled()


def step_named_by_debug_mode(computation: Computation, n_chunks: int) -> str:
    """Return what debug mode tells of the task "computation", or nothing."""
    messages = []

    def keep(record: logging.LogRecord) -> bool:
        messages.append(record.getMessage())
        return False  # and nobody else is told

    async def run() -> None:
        asyncio.get_running_loop().slow_callback_duration = SLOW
        await watch(computation, n_chunks)

    logger = logging.getLogger("asyncio")
    logger.addFilter(keep)
    try:
        asyncio.run(run(), debug=True)
    finally:
        logger.removeFilter(keep)
    pattern = r"Executing <Task \w+ name='computation' coro=<(\w+)\(\).* took (\S+) s"
    for message in messages:
        if found := re.match(pattern, message):
            return f"{found[1]}() took {1000 * float(found[2]):.0f} ms"
    return ""


def some(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MOST}, not {number}")
    return number


async def demonstrate(n_chunks: int) -> None:
    """Check each claim of what happens on the loop, and print it."""
    record = await watch(compute_greedily, n_chunks, "bystander")
    print(f"longest wait for a turn beside a computation of {n_chunks} chunks")
    for who, wanted in ("heart", "every 5 ms"), ("bystander", "always ready"):
        chunks, seconds = record.longest_wait(who)
        print(f"  {who:9}  {wanted:14}{chunks:4} chunks, {1000 * seconds:.1f} ms")
        if chunks != n_chunks:
            raise SystemExit(f"{who} was to have no turn during the computation")
    if not await outlives_its_time_limit(compute_greedily, n_chunks):
        raise SystemExit("the time limit was to go unnoticed")
    print("a time limit of 0 s       goes unnoticed")
    done, cancelled = await cancel_as_soon_as_possible(compute_greedily, n_chunks)
    if cancelled:
        raise SystemExit("the computation was not to be cancelled")
    print(f"cancelled at first turn   too late, {done} chunks are done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chunks", type=some, default=40)
    n_chunks = parser.parse_args().chunks

    # In debug mode it would be told at once of what is greedy on purpose.
    asyncio.run(demonstrate(n_chunks), debug=False)
    named = step_named_by_debug_mode(compute_greedily, n_chunks)
    print(f"debug mode tells          {named}")
    if not named.startswith(compute_greedily.__name__):
        raise SystemExit("debug mode was to name the computation")
    print("who never gives way starves all others, timers and cancels among them")


if __name__ == "__main__":
    main()
