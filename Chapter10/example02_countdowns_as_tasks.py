"""Three count-downs as tasks that wait together; and the same, awaited one by one.

An `await` lets others run while it waits, if there are others. Calling a coroutine
function starts nothing, and `await count_down(…)` runs that count-down to its end
before the next line: with one await after the other there is never more than one thing
going on, however asynchronous each of them is. What makes it concurrent is a task for
each. A TaskGroup makes them, and waits for all at the end of its block.

All count to the beat of one metronome, so that who counts when does not depend on the
clock: nine beats one by one, four together.

Book: Chapter 10, example2.
Try:  --period 0.2

Output:
    one by one  a4 a3 a2 a1 b3 b2 b1 c2 c1  9 beats
    together    a4 b3 c2 a3 b2 c1 a2 b1 a1  4 beats
    the same 9 steps: awaits one by one add up, tasks wait together
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Mapping

COUNTS = {"a": 4, "b": 3, "c": 2}
PERIOD = 0.01  # seconds from beat to beat

Tick = Callable[[], Awaitable[object]]  # waits for the next beat
CountAll = Callable[[Mapping[str, int], Tick, list[str]], Awaitable[None]]


async def count_down(name: str, start: int, tick: Tick, steps: list[str]) -> None:
    """Note `start` … 1, each at a beat."""
    for number in range(start, 0, -1):
        await tick()
        steps.append(f"{name}{number}")


async def one_by_one(counts: Mapping[str, int], tick: Tick, steps: list[str]) -> None:
    """Await each count-down: the next is not even called before it has ended."""
    for name, start in counts.items():
        await count_down(name, start, tick, steps)


async def together(counts: Mapping[str, int], tick: Tick, steps: list[str]) -> None:
    """Make a task of each count-down, and wait for all."""
    async with asyncio.TaskGroup() as group:
        for name, start in counts.items():
            group.create_task(count_down(name, start, tick, steps))


class Metronome:
    """Beats every `period` seconds, for all who wait at that moment, in their order.

    Attributes:
        heard: the number of the latest beat that anybody waited for.
    """

    def __init__(self, period: float) -> None:
        self.heard = 0
        self._beats = 0
        self._period = period
        self._next = asyncio.Event()

    async def tick(self) -> None:
        """Wait for the next beat."""
        await self._next.wait()
        self.heard = self._beats

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            self._beats += 1
            beat, self._next = self._next, asyncio.Event()
            beat.set()


async def count_all(how: CountAll, period: float) -> tuple[list[str], int]:
    """Return the steps of all count-downs in their order, and the beats they took."""
    metronome = Metronome(period)
    steps: list[str] = []
    beating = asyncio.create_task(metronome.run())
    try:
        await how(COUNTS, metronome.tick, steps)
        return steps, metronome.heard
    finally:
        beating.cancel()
        await asyncio.wait([beating])


def period(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(
            f"must be above 0 and at most 1, not {number:g}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--period", type=period, default=PERIOD)
    options = parser.parse_args()

    expected = {
        one_by_one: ("a4 a3 a2 a1 b3 b2 b1 c2 c1", sum(COUNTS.values())),
        together: ("a4 b3 c2 a3 b2 c1 a2 b1 a1", max(COUNTS.values())),
    }
    for how, (order, most) in expected.items():
        steps, beats = asyncio.run(count_all(how, options.period))
        name = how.__name__.replace("_", " ")
        print(f"{name:10}  {' '.join(steps)}  {beats} beats")
        if (" ".join(steps), beats) != (order, most):
            raise SystemExit(f"{name}: not {order} in {most} beats")
    print("the same 9 steps: awaits one by one add up, tasks wait together")


if __name__ == "__main__":
    main()
