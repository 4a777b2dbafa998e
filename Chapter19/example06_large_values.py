"""Tests with large values are slow. They are timed, and a faster algorithm helps.

Defects may show with large numbers only, so the function of example05 is also tested
with primes of up to 14 digits. Trial division tries all candidates up to the square
root, which is ten times as many for a number a hundred times as large.

Measure first: a `TestResult` is told when a test starts and when it stops, and so can
say where the time goes. (`python -m unittest --durations N` does from Python 3.12 on,
`pytest --durations N` on all.) A few tests take nearly all of it. They can be run at
the same time as others, which is for example07; or the function can be better. The
Miller-Rabin test needs some forty squarings modulo n for each of its bases, and passes
the same tests. Slow and simple code is still of use: as an oracle for fast and clever
code, for all small numbers.

Sources: the smallest primes of n digits are sequence A003617 of the On-Line
Encyclopedia of Integer Sequences. M. O. Rabin, "Probabilistic algorithm for testing
primality", Journal of Number Theory 12 (1), 1980; that 12 bases make it certain up to
3e23: J. Sorenson, J. Webster, Mathematics of Computation 86, 2017.

Book: Chapter 19, example6.

Output:
    test                        trial division  Miller-Rabin
    test_mersenne_prime               2.879 ms      0.108 ms
    test_prime_of_11_digits           5.093 ms      0.088 ms
    test_prime_of_12_digits          11.532 ms      0.083 ms
    test_prime_of_13_digits          46.373 ms      0.102 ms
    test_prime_of_14_digits         177.213 ms      0.100 ms
    test_product_of_two_primes       52.207 ms      0.019 ms
    all                             295.297 ms      0.500 ms
    the slowest of 6 tests takes 60 % of the time
    the two functions agree about all numbers below 20,000
    the better algorithm passes the same tests 591x as fast
"""

import time
import unittest
from collections.abc import Callable

from example05_unit_test_of_a_function import is_prime

BASES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
CERTAIN_BELOW = 318_665_857_834_031_151_167_461
SMALL = 20_000  # numbers for which both functions are compared


def is_prime_miller_rabin(n: int) -> bool:
    """Tell whether `n` is a prime number, by the test of Miller and Rabin.

    Raises:
        ValueError: `n` is so large that the bases do not make the answer certain.
    """
    if n >= CERTAIN_BELOW:
        raise ValueError(f"not certain from {CERTAIN_BELOW} on: {n}")
    if n < 2 or any(n % base == 0 for base in BASES):
        return n in BASES
    twos = ((n - 1) & (1 - n)).bit_length() - 1
    odd = (n - 1) >> twos
    for base in BASES:
        power = pow(base, odd, n)
        if power in (1, n - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % n
            if power == n - 1:
                break
        else:
            return False  # a square root of 1 that is neither 1 nor -1
    return True


class LargeValuesTests(unittest.TestCase):
    """Tests of a function that tells whether a number is prime, with large ones."""

    function: Callable[[int], bool] = staticmethod(is_prime)

    def test_mersenne_prime(self) -> None:
        self.assertTrue(self.function(2**31 - 1))

    def test_prime_of_11_digits(self) -> None:
        self.assertTrue(self.function(10**10 + 19))

    def test_prime_of_12_digits(self) -> None:
        self.assertTrue(self.function(10**11 + 3))

    def test_prime_of_13_digits(self) -> None:
        self.assertTrue(self.function(10**12 + 39))

    def test_prime_of_14_digits(self) -> None:
        self.assertTrue(self.function(10**13 + 37))

    def test_product_of_two_primes(self) -> None:
        self.assertFalse(self.function(999_983 * 1_000_003))


class TimedResult(unittest.TestResult):
    """A result that also knows how long each test has taken.

    Attributes:
        seconds: by the test's id, in the order in which they ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = {}
        self._began = 0.0

    def startTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        super().startTest(test)
        self._began = time.perf_counter()

    def stopTest(self, test: unittest.TestCase) -> None:  # noqa: N802
        self.seconds[test.id()] = time.perf_counter() - self._began
        super().stopTest(test)


def timed(function: Callable[[int], bool]) -> dict[str, float]:
    """Test a function with large values; return the seconds of each test by its name.

    Raises:
        AssertionError: a test fails.
    """
    tests = type("Tests", (LargeValuesTests,), {"function": staticmethod(function)})
    result = TimedResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(tests).run(result)
    for _, traceback in result.failures + result.errors:
        raise AssertionError(traceback)
    return {id_.rpartition(".")[2]: s for id_, s in result.seconds.items()}


def main() -> None:
    try:
        slow, fast = timed(is_prime), timed(is_prime_miller_rabin)
    except AssertionError as error:
        raise SystemExit(f"all tests were to pass:\n{error}") from None
    print("test                        trial division  Miller-Rabin")
    for name in slow:
        print(f"{name:28}{1000 * slow[name]:11.3f} ms{1000 * fast[name]:11.3f} ms")
    all_slow, all_fast = sum(slow.values()), sum(fast.values())
    print(f"{'all':28}{1000 * all_slow:11.3f} ms{1000 * all_fast:11.3f} ms")
    share = 100 * max(slow.values()) / all_slow
    print(f"the slowest of {len(slow)} tests takes {share:.0f} % of the time")
    for n in range(SMALL):
        if is_prime(n) != is_prime_miller_rabin(n):
            raise SystemExit(f"the two functions differ about {n}")
    print(f"the two functions agree about all numbers below {SMALL:,}")
    print(
        f"the better algorithm passes the same tests {all_slow / all_fast:.0f}x as fast"
    )


if __name__ == "__main__":
    main()
