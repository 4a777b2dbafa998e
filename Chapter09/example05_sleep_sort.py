"""Sleep sort: each number sleeps as long as it is large, and then joins the queue.

The toy that everybody writes first with timers, here on the loop of `event_loop.py`.
It seems to sort without comparing anything. Who compares is the loop, which keeps its
timers in a heap; sleep sort is heap sort, with pauses.

All numbers count from the same moment. If each slept for its own time from whenever it
happened to begin, a slow start would put neighbours in the wrong order. From one moment
on the order is certain, however late the loop comes: all that is due is called by the
time it was due at, not by the time it is now. Equal numbers even keep their order.

Try:  --numbers 3 1 -2 3 0

Output:
    asleep  61 5 34 5 89 0 21 55 13 2 8 1 3
    awake   0 1 2 3 5 5 8 13 21 34 55 61 89
    sorted by sleeping, in 0.090 s
"""

import argparse
import time
from collections.abc import Sequence

from event_loop import Loop

UNIT = 0.001  # seconds of sleep for a difference of 1
NUMBERS = [61, 5, 34, 5, 89, 0, 21, 55, 13, 2, 8, 1, 3]
LARGEST = 1000  # difference


async def sleep_sort(loop: Loop, numbers: Sequence[int], unit: float) -> list[int]:
    """Return `numbers` in ascending order, after `unit` seconds times their range."""
    awake: list[int] = []
    began = time.monotonic()
    smallest = min(numbers, default=0)

    async def sleep(number: int) -> None:
        await loop.sleep_until(began + unit * (number - smallest))
        awake.append(number)

    for task in [loop.create_task(sleep(number)) for number in numbers]:
        await task
    return awake


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=int, nargs="+", default=NUMBERS)
    numbers = parser.parse_args().numbers
    spread = max(numbers) - min(numbers)
    if spread > LARGEST:
        parser.error(f"--numbers: {spread} apart, at most {LARGEST} can be waited for")

    print("asleep ", *numbers)
    loop = Loop()
    began = time.monotonic()
    awake = loop.run(sleep_sort(loop, numbers, UNIT))
    took = time.monotonic() - began
    print("awake  ", *awake)
    if awake != sorted(numbers):
        raise SystemExit("not sorted")
    if took < UNIT * spread:
        raise SystemExit(f"after {took:.3f} s: somebody woke up too early")
    print(f"sorted by sleeping, in {took:.3f} s")


if __name__ == "__main__":
    main()
