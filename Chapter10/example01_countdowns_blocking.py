"""Three count-downs in three tasks, one after the other: each blocks while it waits.

`async def` makes a function whose waits *can* let others run. These do not: they call
time.sleep, which knows nothing of the event loop, and keeps the only thread until it
returns. The tasks are there, all three, but the second does not even begin before the
first has ended. Nothing fails, and nothing warns; it is only slow.

The mend is one word and one name: `await asyncio.sleep(…)`. See example02.

Book: Chapter 10, example1.
Try:  --pause 0.5

Output:
    a4 a3 a2 a1 b3 b2 b1 c2 c1
    9 pauses, 0.09 s in all, took 0.10 s
    3 tasks, one after the other
"""

import argparse
import asyncio
import math
import time
from collections.abc import Mapping

COUNTS = {"a": 4, "b": 3, "c": 2}
PAUSE = 0.01  # seconds before each number


async def count_down(name: str, start: int, pause: float, steps: list[str]) -> None:
    """Note `start` … 1, each after a pause in which nobody else runs."""
    for number in range(start, 0, -1):
        time.sleep(pause)  # broken: it keeps the loop
        steps.append(f"{name}{number}")


async def count_down_all(counts: Mapping[str, int], pause: float) -> list[str]:
    """Count down in a task for each of `counts`; return the steps in their order."""
    # Debug mode would complain of pauses that are long, and rightly so.
    asyncio.get_running_loop().slow_callback_duration = math.inf
    steps: list[str] = []
    async with asyncio.TaskGroup() as group:
        for name, start in counts.items():
            group.create_task(count_down(name, start, pause, steps))
    return steps


def pause(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be in 0 … 1, not {number:g}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pause", type=pause, default=PAUSE)
    options = parser.parse_args()

    began = time.perf_counter()
    steps = asyncio.run(count_down_all(COUNTS, options.pause))
    took = time.perf_counter() - began
    print(*steps)
    if steps != [f"{name}{n}" for name, c in COUNTS.items() for n in range(c, 0, -1)]:
        raise SystemExit("the count-downs were not to take turns")
    waits = options.pause * len(steps)
    if took < waits:
        raise SystemExit(f"after {took:.3f} s: some of the pauses overlapped")
    print(f"{len(steps)} pauses, {waits:.2f} s in all, took {took:.2f} s")
    print("3 tasks, one after the other")


if __name__ == "__main__":
    main()
