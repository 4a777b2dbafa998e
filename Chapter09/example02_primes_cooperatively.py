"""The same numbers as tasks that give way to one another: the small ones come first.

Each test is a coroutine that lets all others have a turn after a thousand divisions, by
`await asyncio.sleep(0)`. A number that needs few divisions is done in one of its first
turns, whatever was asked for before it; a large one takes many turns. Nobody had to
know which numbers are the small ones.

It is still one core that divides, so the whole takes no less time than before, but some
more: the price of giving way, of which Chapter 10 (example04) has more to say. What is
gained is the time until a small answer comes.

Book: Chapter 9, example2.
Try:  --numbers 999999999989 4 9
Try:  --step 100000

Output:
          number                in turn  answered after
              91  7 divides           1         3.2 ms
            9409  97 divides          1         3.6 ms
               2  prime               1         3.6 ms
         1000003  prime               2         4.0 ms
    499999999979  prime             709       260.9 ms
    999999999989  prime            1001       322.2 ms
    6 numbers, answered in the order of the turns they needed
"""

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from math import isqrt

NUMBERS = [999_999_999_989, 1_000_003, 91, 499_999_999_979, 9_409, 2]
LARGEST = 10**13  # some tenths of a second of division
STEP = 1000  # divisions in a turn


async def smallest_factor(number: int, step: int = STEP) -> int:
    """Return the smallest factor of `number` that is above 1; of a prime, itself.

    Args:
        step: after as many divisions, let other tasks have a turn.

    Raises:
        ValueError: `number` is below 2, or `step` below 1.
    """
    if number < 2:
        raise ValueError(f"must be at least 2, not {number}")
    if step < 1:
        raise ValueError(f"a step must be at least 1, not {step}")
    end = isqrt(number) + 1
    for start in range(2, end, step):
        for factor in range(start, min(start + step, end)):
            if number % factor == 0:
                return factor
        await asyncio.sleep(0)
    return number


async def factor_all(
    numbers: Sequence[int], report: Callable[[int, int], object], step: int = STEP
) -> None:
    """Call `report(number, smallest factor)` for each number, as soon as it is known.

    Raises:
        ExceptionGroup: of ValueErrors, for numbers below 2; the others are given up.
    """

    async def answer(number: int) -> None:
        report(number, await smallest_factor(number, step))

    async with asyncio.TaskGroup() as group:
        for number in numbers:
            group.create_task(answer(number))


def turns(number: int, factor: int, step: int) -> int:
    """Return in which turn the smallest factor of `number` is known."""
    if factor == number:  # all divisions were in vain, and gave way at the end
        return 1 + -(-(isqrt(number) - 1) // step)
    return 1 + (factor - 2) // step


def to_test(text: str) -> int:
    number = int(text)
    if not 2 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"must be in 2 … {LARGEST}, not {number}")
    return number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=to_test, nargs="+", default=NUMBERS)
    parser.add_argument("--step", type=positive, default=STEP)
    options = parser.parse_args()

    answered: list[tuple[int, int]] = []
    print("      number                in turn  answered after")
    began = time.perf_counter()

    def report(number: int, factor: int) -> None:
        answer = "prime" if factor == number else f"{factor} divides"
        turn = turns(number, factor, options.step)
        took = time.perf_counter() - began
        print(f"{number:12}  {answer:14}{turn:7}     {1000 * took:7.1f} ms")
        answered.append((turn, number))

    asyncio.run(factor_all(options.numbers, report, options.step))

    # Tasks that end in the same round do so in the order in which they were started.
    expected = sorted(answered, key=lambda one: (one[0], options.numbers.index(one[1])))
    if answered != expected or len(answered) != len(options.numbers):
        raise SystemExit(f"not answered in the order of their work: {answered}")
    print(f"{len(answered)} numbers, answered in the order of the turns they needed")


if __name__ == "__main__":
    main()
