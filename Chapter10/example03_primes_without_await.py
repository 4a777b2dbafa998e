"""`async def` alone makes nothing concurrent: a task that never waits lets nobody in.

A task runs until it has to wait. A primality test has nothing to wait for, so each of
these tasks runs from its beginning to its end in one go, and the answers come in the
order asked, the large number first. An `await` in it changes nothing, as long as what
is awaited does not wait either: an await gives way only where something at the bottom
of it really has to.

A bystander that wants a turn, again and again, counts how many it gets. It gets none
from the first test to the last. In example04 the tests give way.

Book: Chapter 10, example3.
Try:  --numbers 999999999989 4 9

Output:
        number         turns of the bystander so far
    9999999967  prime  1
         10007  prime  1
            91         1
             2  prime  1
    4 tasks, one after the other; nobody else had a turn
"""

import argparse
import asyncio
import math
from collections.abc import Sequence
from math import isqrt

NUMBERS = [9_999_999_967, 10_007, 91, 2]
LARGEST = 10**12


async def divides(divisor: int, number: int) -> bool:
    """Tell whether `divisor` divides `number`; there is nothing to wait for."""
    return number % divisor == 0


async def is_prime(number: int) -> bool:
    """Tell whether `number` is prime; awaits often, and never gives way."""
    for divisor in range(2, isqrt(number) + 1):
        if await divides(divisor, number):
            return False
    return number > 1


async def test_all(numbers: Sequence[int]) -> list[tuple[int, bool, int]]:
    """Test each number in a task of its own, beside a bystander that wants turns.

    Returns:
        In the order in which they were answered: the number, whether it is prime, and
        how many turns the bystander had had by then.
    """
    # Debug mode would complain of tests that take long, and rightly so.
    asyncio.get_running_loop().slow_callback_duration = math.inf
    answers = []
    turns = 0

    async def stand_by() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def test(number: int) -> None:
        prime = await is_prime(number)
        answers.append((number, prime, turns))

    bystander = asyncio.create_task(stand_by())  # the first to have a turn
    try:
        async with asyncio.TaskGroup() as group:
            for number in numbers:
                group.create_task(test(number))
    finally:
        bystander.cancel()
        await asyncio.wait([bystander])
    return answers


def to_test(text: str) -> int:
    number = int(text)
    if not 1 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"must be in 1 … {LARGEST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=to_test, nargs="+", default=NUMBERS)
    numbers = parser.parse_args().numbers

    answers = asyncio.run(test_all(numbers))
    print("    number         turns of the bystander so far")
    for number, prime, turns in answers:
        print(f"{number:10}  {'prime' if prime else '':5}  {turns}")
    if [number for number, *_ in answers] != numbers:
        raise SystemExit("the tests were to be answered in the order asked")
    if {turns for *_, turns in answers} != {1}:
        raise SystemExit("the bystander got a turn between two tests")
    print(f"{len(numbers)} tasks, one after the other; nobody else had a turn")


if __name__ == "__main__":
    main()
