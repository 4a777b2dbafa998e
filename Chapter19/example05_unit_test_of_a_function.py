"""A unit test of a function is worth the defects that it finds; so some are put in.

The function tells primes from other numbers. A prime and a number that is none look
like a test of it, and it passes them. What defects would they find? A token or two of
its source are changed, as by a slip, and each such mutant is tested. The two examples
let most mutants pass. Chosen numbers find more: the edges, the squares of primes,
numbers that weaker algorithms take for primes. An oracle finds all of these mutants: it
gets the same answers in another way, and is compared for a thousand numbers.

Nothing here is concurrent, and that is the point. A concurrent program should have a
core that is not, a function of its arguments, for which such tests are enough. They
share nothing, so they can also run side by side: see example07.

`python -m unittest` and pytest run the same class. For mutants of whole programs there
are mutmut and cosmic-ray.

Source: R. A. DeMillo, R. J. Lipton, F. G. Sayward, "Hints on test data selection: help
for the practicing programmer", Computer 11 (4), 1978.

Book: Chapter 19, example5.

Output:
    mutant                             examples  edges  squares  pseudoprimes  sieve
    n < 4         -> n < 3             .         x      .        .             x
    n < 4         -> n < 5             .         x      x        .             x
    n > 1         -> n > 0             .         x      .        .             x
    n > 1         -> n > 2             .         x      .        .             x
    n % 2 == 0 or -> n % 2 == 0 and    x         x      x        .             x
    n % 3 == 0    -> n % 3 == 1        x         .      x        .             x
    return False  -> return True       x         x      x        x             x
    n % d and     -> n % d or          .         .      x        x             x
    (d + 2)       -> (d + 1)           .         .      x        x             x
    range(5,      -> range(7,          .         .      x        x             x
    isqrt(n) + 1  -> isqrt(n)          .         .      x        .             x
    + 1, 6)       -> + 1, 7)           .         .      x        x             x
    found, of 12                       3         6      9        5             12
    two examples find a few mutants, an oracle finds all
"""

import inspect
import math
import sys
import unittest
from collections.abc import Callable, Iterable, Iterator

TESTS = ("examples", "edges", "squares", "pseudoprimes", "sieve")
PSEUDOPRIMES = (341, 561, 1105, 1729, 2465, 2821, 6601, 8911)
MUTATIONS = (
    ("n < 4", "n < 3"),
    ("n < 4", "n < 5"),
    ("n > 1", "n > 0"),
    ("n > 1", "n > 2"),
    ("n % 2 == 0 or", "n % 2 == 0 and"),
    ("n % 3 == 0", "n % 3 == 1"),
    ("return False", "return True"),
    ("n % d and", "n % d or"),
    ("(d + 2)", "(d + 1)"),
    ("range(5,", "range(7,"),
    ("isqrt(n) + 1", "isqrt(n)"),
    ("+ 1, 6)", "+ 1, 7)"),
)


def is_prime(n: int) -> bool:
    """Tell whether `n` is a prime number, by trial division up to its square root.

    Beyond 3 every prime is one less or one more than a multiple of 6.
    """
    if n < 4:
        return n > 1
    if n % 2 == 0 or n % 3 == 0:
        return False
    return all(n % d and n % (d + 2) for d in range(5, math.isqrt(n) + 1, 6))


def sieve(n: int) -> set[int]:
    """Return the primes below `n`, by the sieve of Eratosthenes."""
    left = set(range(2, n))
    for number in range(2, math.isqrt(n) + 1):
        left -= set(range(number * number, n, number))
    return left


class PrimalityTests(unittest.TestCase):
    """Tests of a function that tells whether a number is prime."""

    function: Callable[[int], bool] = staticmethod(is_prime)

    def test_examples(self) -> None:
        self.assertTrue(self.function(7))
        self.assertFalse(self.function(8))

    def test_edges(self) -> None:
        answers = [self.function(n) for n in (-7, 0, 1, 2, 3, 4)]
        self.assertEqual(answers, [False, False, False, True, True, False])

    def test_squares(self) -> None:
        for prime in (2, 3, 5, 7, 11, 13, 17, 19):
            with self.subTest(prime=prime):
                self.assertFalse(self.function(prime * prime))

    def test_pseudoprimes(self) -> None:
        for number in PSEUDOPRIMES:
            with self.subTest(number=number):
                self.assertFalse(self.function(number))

    def test_sieve(self) -> None:
        self.assertEqual({n for n in range(1000) if self.function(n)}, sieve(1000))


def failing(function: Callable[[int], bool]) -> set[str]:
    """Return the names of the tests that `function` does not pass."""
    tests = type("Tests", (PrimalityTests,), {"function": staticmethod(function)})
    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(tests).run(result)
    # A subtest has the test that it is part of as `test_case`.
    failed = [test for test, _ in result.failures + result.errors]
    return {getattr(t, "test_case", t).id().rpartition(".")[2] for t in failed}


def mutants(
    function: Callable[..., bool], mutations: Iterable[tuple[str, str]]
) -> Iterator[Callable[..., bool]]:
    """Yield the function anew for each mutation, with the first text made the second.

    Raises:
        ValueError: the first text is not in the function's source, or more than once.
    """
    source = inspect.getsource(function)
    for old, new in mutations:
        if source.count(old) != 1:
            raise ValueError(f"{old!r} is {source.count(old)} times in the source")
        names = dict(vars(sys.modules[function.__module__]))
        exec(source.replace(old, new), names)
        yield names[function.__name__]


def main() -> None:
    if failed := failing(is_prime):
        raise SystemExit(f"the function itself does not pass {failed}")
    tests = ["test_" + name for name in TESTS]
    found = dict.fromkeys(tests, 0)
    print(f"{'mutant':33}  {'  '.join(TESTS)}")
    mutated = mutants(is_prime, MUTATIONS)
    for (old, new), mutant in zip(MUTATIONS, mutated, strict=True):
        by = failing(mutant)
        marks = ["x" if test in by else "." for test in tests]
        columns = zip(marks, TESTS, strict=True)
        row = "  ".join(f"{mark:{len(name)}}" for mark, name in columns)
        print(f"{old:13} -> {new:16}  {row}".rstrip())
        if not by:
            raise SystemExit("no test finds this one")
        for test in by:
            found[test] += 1
    n = len(MUTATIONS)
    counts = [f"{found[test]:<{len(test) - 5}}" for test in tests]
    print(f"{f'found, of {n}':33}  {'  '.join(counts)}".rstrip())
    if not found["test_examples"] < found["test_sieve"] == n:
        raise SystemExit("the sieve was to find all, and the two examples not")
    print("two examples find a few mutants, an oracle finds all")


if __name__ == "__main__":
    main()
