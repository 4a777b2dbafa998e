"""Numbers are tested for being prime one by one, and the small ones wait for the large.

Each test takes microseconds or milliseconds, depending on the number. But a small one
that is asked for after a large one is answered after both times. Nothing is wrong with
that as long as nobody waits for the small one in particular: no order, and no
concurrency, makes a computation on one core any shorter. Who waits for whom can be
changed, though: see example02.

Book: Chapter 9, example1.
Try:  --numbers 999999999989 4 9

Output:
          number               own time  answered after
    999999999989  prime         100.600 ms    100.6 ms
         1000003  prime           0.105 ms    100.8 ms
              91  7 divides       0.004 ms    100.8 ms
    499999999979  prime          74.372 ms    175.2 ms
            9409  97 divides      0.017 ms    175.3 ms
               2  prime           0.002 ms    175.4 ms
    the answer for 2 took 0.002 ms, and came after 175.1 ms
"""

import argparse
import time
from collections.abc import Iterable, Iterator
from math import isqrt

NUMBERS = [999_999_999_989, 1_000_003, 91, 499_999_999_979, 9_409, 2]
LARGEST = 10**13  # some tenths of a second of division


def smallest_factor(number: int) -> int:
    """Return the smallest factor of `number` that is above 1; of a prime, itself.

    Raises:
        ValueError: `number` is below 2.
    """
    if number < 2:
        raise ValueError(f"must be at least 2, not {number}")
    for factor in range(2, isqrt(number) + 1):
        if number % factor == 0:
            return factor
    return number


def factor_all(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield each number with its smallest factor, as soon as it is known."""
    for number in numbers:
        yield number, smallest_factor(number)


def to_test(text: str) -> int:
    number = int(text)
    if not 2 <= number <= LARGEST:
        raise argparse.ArgumentTypeError(f"must be in 2 … {LARGEST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=to_test, nargs="+", default=NUMBERS)
    numbers = parser.parse_args().numbers

    print("      number               own time  answered after")
    answered: list[int] = []
    own_times: list[float] = []
    began = before = time.perf_counter()
    for number, factor in factor_all(numbers):
        now = time.perf_counter()
        own_times.append(now - before)
        answer = "prime" if factor == number else f"{factor} divides"
        print(
            f"{number:12}  {answer:14}"
            f"{1000 * own_times[-1]:7.3f} ms  {1000 * (now - began):7.1f} ms"
        )
        answered.append(number)
        before = time.perf_counter()

    if answered != numbers:
        raise SystemExit(f"not answered in the order asked: {answered}")
    smallest = numbers.index(min(numbers))
    print(
        f"the answer for {numbers[smallest]} took {1000 * own_times[smallest]:.3f} ms, "
        f"and came after {1000 * sum(own_times[: smallest + 1]):.1f} ms"
    )


if __name__ == "__main__":
    main()
