"""How often should a long computation give way? A table of what it costs and brings.

`await asyncio.sleep(0)` lets everybody else have a turn. Too seldom, and others wait
for long; too often, and the turns cost more than the computation. The step, so many
divisions from turn to turn, decides. Measured here are the longest time that a
bystander had to wait, and the price: the time it takes, as a multiple of that without.

A number of steps is a poor measure where steps are not alike, or the machine is another
one. The last row gives way by the clock: `Breather` lets others in only when some time
has passed, and may be asked as often as one likes.

No step makes the computation any faster: it is one thread, on one core. For that, take
processes (example06).

Book: Chapter 10, example4.
Try:  --number 99999999977

Output:
    gives way       turns  longest wait    price
    never               0       8.11 ms    1.00x
    every 100        1000       0.04 ms    1.63x
    every 1,000       100       0.15 ms    1.08x
    every 10,000       10       0.85 ms    1.01x
    0.005 s                     5.00 ms    1.07x
    the longer the steps, the cheaper, and the longer others wait
"""

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import isqrt
from typing import Any

NUMBER = 9_999_999_967  # a prime
LARGEST = 10**11
ROUNDS = 3
STEPS = [100, 1_000, 10_000]  # divisions from turn to turn
BREATH = 0.005  # seconds


class Breather:
    """Lets others have a turn, at most every `seconds`.

    Call `pause` often: it gives way only if the last turn is as long ago.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due = time.perf_counter() + seconds

    async def pause(self) -> None:
        if time.perf_counter() >= self._due:
            await asyncio.sleep(0)
            self._due = time.perf_counter() + self._seconds


async def is_prime(
    number: int, step: int, pause: Callable[[], Awaitable[None]]
) -> bool:
    """Tell whether `number` is prime; await `pause()` before each `step` divisions.

    Raises:
        ValueError: `step` is below 1.
    """
    if step < 1:
        raise ValueError(f"a step must be at least 1, not {step}")
    end = isqrt(number) + 1
    for start in range(2, end, step):
        await pause()
        for divisor in range(start, min(start + step, end)):
            if number % divisor == 0:
                return False
    return number > 1


async def nothing() -> None:
    """Await nothing, and so give nobody a turn."""


async def one_turn() -> None:
    """Let everybody else have a turn."""
    await asyncio.sleep(0)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a bystander saw of a test.

    Attributes:
        prime: the answer.
        turns: how many turns the bystander had, until the answer was there.
        longest: the longest time between two of its turns, in seconds.
        took: seconds until the answer.
    """

    prime: bool
    turns: int
    longest: float
    took: float


async def watch(test: Awaitable[bool]) -> Seen:
    """Run `test` beside a bystander that wants turn after turn."""
    moments: list[float] = []

    async def stand_by() -> None:
        while True:
            moments.append(time.perf_counter())
            await asyncio.sleep(0)

    bystander = asyncio.create_task(stand_by())
    try:
        await asyncio.sleep(0)  # it has its first turn
        prime = await test
        moments.append(time.perf_counter())
    finally:
        bystander.cancel()
        await asyncio.wait([bystander])
    longest = max(later - earlier for earlier, later in pairwise(moments))
    return Seen(prime, len(moments) - 2, longest, moments[-1] - moments[0])


def fastest_of_each(
    tests: Mapping[str, Callable[[], Coroutine[Any, Any, bool]]],
) -> dict[str, Seen]:
    """Watch each of the tests ROUNDS times; return what its fastest run was like.

    They take turns, so that a busy moment of the machine hits all alike.
    """

    async def watch_one(make: Callable[[], Coroutine[Any, Any, bool]]) -> Seen:
        return await watch(make())

    seen = [
        # Debug mode would complain of long steps, and make each turn dearer.
        (name, asyncio.run(watch_one(make), debug=False))
        for _ in range(ROUNDS)
        for name, make in tests.items()
    ]
    return {
        name: min((one for n, one in seen if n == name), key=lambda one: one.took)
        for name in tests
    }


def to_test(text: str) -> int:
    number = int(text)
    if not 2 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"must be in 2 … {LARGEST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--number", type=to_test, default=NUMBER)
    number: int = parser.parse_args().number
    divisions = isqrt(number) - 1

    tests: dict[str, Callable[[], Coroutine[Any, Any, bool]]] = {
        "never": lambda: is_prime(number, divisions, nothing)
    }
    turns = {"never": 0}  # that are given if the test goes on to its end
    for step in STEPS:
        name = f"every {step:,}"
        tests[name] = partial(is_prime, number, step, one_turn)
        turns[name] = -(-divisions // step)
    tests[f"{BREATH:g} s"] = lambda: is_prime(number, STEPS[0], Breather(BREATH).pause)

    all_seen = fastest_of_each(tests)
    alone = all_seen["never"]
    print("gives way       turns  longest wait    price")
    for name, seen in all_seen.items():
        given = turns.get(name, "")
        price = seen.took / alone.took
        print(f"{name:13} {given:7}  {1000 * seen.longest:9.2f} ms  {price:6.2f}x")
        if seen.prime != alone.prime:
            raise SystemExit("the answer depends on who had turns meanwhile")
        if alone.prime and seen.turns != turns.get(name, seen.turns):
            raise SystemExit(f"{seen.turns} turns, not {given}")
    print("the longer the steps, the cheaper, and the longer others wait")


if __name__ == "__main__":
    main()
