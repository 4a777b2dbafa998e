"""Two mends of the greedy coroutine: give way now and then, or compute in a thread.

`await asyncio.sleep(0)` gives everybody who is ready one turn, and the computation goes
on with the next chunk. So nobody who is ready waits for longer than one chunk and the
turns of the others: that is seen in the record, turn by turn. It costs as many turns as
there are chunks; how large these should be is measured in Chapter 10, example04. Such a
computation can also be cancelled, and keeps time limits.

In a thread (`asyncio.to_thread`) the computation need not know of the loop at all. With
a GIL the two share one core: the loop asks for the GIL and gets it after the switch
interval, 5 ms by default, so that each turn may come so much later. (If the heart has
not beaten in the midst of the computation, it was too short to tell, and is made
longer.) A thread cannot be cancelled, though: Chapter 10, example20.

Where the computation is heavy, neither makes it faster. Give it to a process, with
`loop.run_in_executor` and a ProcessPoolExecutor (Chapter 10, example06): that has a
core and a GIL of its own.

Try:  --chunks 100
Try:  --bystanders 10

Output:
               longest wait of heart   computation
    greedy                33.1 ms             33.1 ms
    sleep(0)               8.1 ms             34.7 ms
    a thread              10.4 ms             34.5 ms
    sleep(0), 39 times: each of 3 bystanders has one turn
    sleep(0) keeps a time limit, and can be cancelled: after chunk 1 of 40
    who gives way, or computes elsewhere, starves nobody
"""

import argparse
import asyncio
from itertools import pairwise

from example11_greedy_coroutine import (
    Record,
    cancel_as_soon_as_possible,
    chunk,
    compute,
    compute_greedily,
    outlives_its_time_limit,
    some,
    watch,
)

DOUBLINGS = 8  # of the computation in a thread, until it is long enough to be seen


async def compute_politely(n_chunks: int, record: Record) -> int:
    """Return the sum of all chunks; after each of them everybody else has a turn."""
    total = 0
    for number in range(n_chunks):
        total += chunk(number)
        record.note("chunk")
        await asyncio.sleep(0)
    return total


async def compute_in_thread(n_chunks: int, record: Record) -> int:
    """Return the sum of all chunks, computed in a thread beside the loop."""
    return await asyncio.to_thread(compute, n_chunks, record)


def turns_between_chunks(record: Record) -> list[list[str]]:
    """Return who had turns, heart apart, between each two chunks."""
    names = [name for name, _ in record.events]
    return [
        [name for name in names[a + 1 : b] if name != "heart"]
        for a, b in pairwise(record.turns("chunk"))
    ]


def beats_meanwhile(record: Record) -> int:
    """Return how often the heart has beaten between the first chunk and the last."""
    chunks = record.turns("chunk")
    return sum(chunks[0] < beat < chunks[-1] for beat in record.turns("heart"))


def report(name: str, record: Record, expected: int) -> None:
    """Print how long heart and computation took, and check the result."""
    _, wait = record.longest_wait("heart")
    print(f"{name:10} {1000 * wait:15.1f} ms {1000 * record.seconds:16.1f} ms")
    if record.total != expected:
        raise SystemExit(f"{name}: the sum is not {record.total}")


async def demonstrate(n_chunks: int, n_bystanders: int) -> None:
    """Check each claim, and print it."""
    print("           longest wait of heart   computation")
    expected = sum(map(chunk, range(n_chunks)))
    report("greedy", await watch(compute_greedily, n_chunks), expected)
    report("sleep(0)", await watch(compute_politely, n_chunks), expected)
    for doublings in range(DOUBLINGS):
        n = n_chunks * 2**doublings
        record = await watch(compute_in_thread, n)
        if beats_meanwhile(record):
            break
    else:
        raise SystemExit("the heart was to beat beside the thread")
    report("a thread", record, sum(map(chunk, range(n))))

    names = [f"bystander {n}" for n in range(n_bystanders)]
    record = await watch(compute_politely, n_chunks, *names)
    turns = turns_between_chunks(record)
    if turns != [names] * (n_chunks - 1):
        raise SystemExit("each bystander was to have one turn after each chunk")
    print(
        f"sleep(0), {len(turns)} times: each of {n_bystanders} bystanders has one turn"
    )

    if await outlives_its_time_limit(compute_politely, n_chunks):
        raise SystemExit("the time limit was to be noticed")
    done, cancelled = await cancel_as_soon_as_possible(compute_politely, n_chunks)
    if (done, cancelled) != (1, True):
        raise SystemExit("the computation was to be cancelled after its first chunk")
    print("sleep(0) keeps a time limit, and can be cancelled:", end=" ")
    print(f"after chunk {done} of {n_chunks}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chunks", type=some, default=40)
    parser.add_argument("--bystanders", type=some, default=3)
    options = parser.parse_args()
    # Debug mode looks at files when it notes where a future was made. Each look gives
    # the GIL away, and the thread keeps it for a switch interval.
    asyncio.run(demonstrate(options.chunks, options.bystanders), debug=False)
    print("who gives way, or computes elsewhere, starves nobody")


if __name__ == "__main__":
    main()
