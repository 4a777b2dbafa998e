"""Factorials side by side: `gather` puts results in order, whoever is ready first.

Each factorial is a task that multiplies, and gives way before each factor, so that the
small ones are ready before the large ones. `gather` makes tasks of the coroutines,
waits for all, and returns the results in the order of its arguments. `as_completed`
hands them over as they come.

If one fails, gather raises at once, and the others go on, though nobody will look at
what they find: here the factorial of 6 is finished after the failure of -1 has been
reported. With return_exceptions=True the exceptions stand among the results, and gather
waits for all. A TaskGroup instead cancels the others: see example09.

Take a library for the numbers themselves: `math.factorial`.

Try:  --numbers 20 3 11 0

Output:
    asked for          6 2 4
    finished           2 4 6
    gather             720 2 24
    as_completed       2 24 720
    and of -1, raised  -1 has no factorial
    finished by then   2
    finished later     2 4 6
    return_exceptions  720 2 24 ValueError('-1 has no factorial')
    3 factorials in the order asked, finished in their own
"""

import argparse
import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass

NUMBERS = [6, 2, 4]
LARGEST = 1000


async def factorial(number: int, finished: list[int]) -> int:
    """Return `number`!, and note the number in `finished` when it is there.

    Raises:
        ValueError: the number is negative.
    """
    if number < 0:
        raise ValueError(f"{number} has no factorial")
    product = 1
    for factor in range(2, number + 1):
        await asyncio.sleep(0)  # others have a turn
        product *= factor
    finished.append(number)
    return product


async def in_order(numbers: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the factorials in order, and the numbers as they were finished."""
    finished: list[int] = []
    products = await asyncio.gather(*(factorial(n, finished) for n in numbers))
    return products, finished


async def as_they_come(numbers: Sequence[int]) -> list[int]:
    """Return the factorials in the order in which they were finished."""
    finished: list[int] = []
    tasks = [asyncio.create_task(factorial(number, finished)) for number in numbers]
    try:
        return [await product for product in asyncio.as_completed(tasks)]
    finally:  # unlike gather, as_completed does not pass a cancel on
        for task in tasks:
            task.cancel()


@dataclass(frozen=True, slots=True)
class Failure:
    """What became of the others, when one of them failed.

    Attributes:
        raised: what gather raised.
        by_then: the numbers that were finished when it did.
        later: those that were finished when the others had ended, too.
    """

    raised: str
    by_then: list[int]
    later: list[int]


async def one_fails(numbers: Sequence[int], wrong: int) -> Failure:
    """Ask for the factorials of `numbers` and of `wrong`, which has none."""
    finished: list[int] = []
    tasks = [asyncio.create_task(factorial(n, finished)) for n in [*numbers, wrong]]
    try:
        await asyncio.gather(*tasks)
    except ValueError as error:
        raised, by_then = str(error), finished.copy()
    await asyncio.wait(tasks)
    return Failure(raised, by_then, finished)


async def all_outcomes(numbers: Sequence[int]) -> list[int | BaseException]:
    """Return for each number its factorial, or the exception."""
    coroutines = (factorial(number, []) for number in numbers)
    return await asyncio.gather(*coroutines, return_exceptions=True)


def small(text: str) -> int:
    number = int(text)
    if not 0 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"must be in 0 … {LARGEST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=small, nargs="+", default=NUMBERS)
    numbers: list[int] = parser.parse_args().numbers

    products, finished = asyncio.run(in_order(numbers))
    came = asyncio.run(as_they_come(numbers))
    failure = asyncio.run(one_fails(numbers, -1))
    outcomes = asyncio.run(all_outcomes([*numbers, -1]))
    print("asked for         ", *numbers)
    print("finished          ", *finished)
    print("gather            ", *products)
    print("as_completed      ", *came)
    print("and of -1, raised ", failure.raised)
    print("finished by then  ", *failure.by_then)
    print("finished later    ", *failure.later)
    print("return_exceptions ", *map(repr, outcomes))

    if products != [math.factorial(number) for number in numbers]:
        raise SystemExit("not the factorials, in order")
    by_work = sorted(numbers, key=lambda number: max(number, 1))
    if finished != by_work or came != [math.factorial(n) for n in finished]:
        raise SystemExit("the small ones were to be finished first")
    late = max(numbers) < 4 or max(numbers) not in failure.by_then
    if not late or failure.later != finished:
        raise SystemExit("the others were to go on after the failure")
    if outcomes[:-1] != products or not isinstance(outcomes[-1], ValueError):
        raise SystemExit("the exception was to stand among the results")
    print(f"{len(numbers)} factorials in the order asked, finished in their own")


if __name__ == "__main__":
    main()
