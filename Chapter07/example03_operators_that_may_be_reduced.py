"""An operator may be reduced in parts if it is associative; samples can refute that.

A reduction in parts puts brackets elsewhere than a loop does: ((a b) c) d becomes
(a b) (c d). The result is the same for any parts if, and only if, the operator is
associative: (a b) c = a (b c) for all a, b and c. An identity, which changes nothing,
is the result of an empty part. (Both together make a monoid.) The operator need not be
commutative: strings, matrices and functions are reduced in parts, in their order. If it
is, too, the parts' results may be combined as they come, whoever is first.

A search over samples proves nothing, but it refutes well. Three numbers are enough for
subtraction, the mean of two, and floating-point addition. (Of functions, all 27 from a
set of three to itself are tried, so for these the search is a proof.) Beside it stands
what comes of it: how many results there are if four of the samples are combined with
all 5 ways to put brackets, and in all 24 orders.

The mean can be saved if it is carried as the pair of sum and count: example04. How much
floating-point sums lose, in a loop and in parts, is in example07. For samples that are
made for you, and made simple when they refute, use Hypothesis.

Output:
                                                               results in
    operator        identity          associative commutative  brackets orders
    sum             0                   yes         yes               1      1
    max             -inf                yes         yes               1      1
    gcd             0                   yes         yes               1      1
    set union       frozenset()         yes         yes               1      1
    concatenation   ''                  yes         no                1     24
    dict merge      {}                  yes         no                1      6
    matrix product  ((1, 0), (0, 1))    yes         no                1     24
    composition     (0, 1, 2)           yes         no                1      3
    subtraction     none                no          no                4      4
    mean of two     none                no          yes               5     10
    float addition  0.0                 no          yes               2      2

    counterexamples to (a b) c = a (b c)
    subtraction     (0 0) 1 = -1, 0 (0 1) = 1
    mean of two     (0 0) 1 = 0.5, 0 (0 1) = 0.25
    float addition  (0.1 0.2) 0.3 = 0.6000000000000001, 0.1 (0.2 0.3) = 0.6

    8 of 11 may be reduced in parts, 4 in any order
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Matrix = tuple[tuple[int, int], tuple[int, int]]
Map = tuple[int, ...]


def counterexample_to_associativity(
    combine: Callable[[T, T], T], samples: Sequence[T]
) -> tuple[T, T, T] | None:
    """Return the first a, b, c with (a b) c != a (b c), None if there are none.

    It tries all triples of `samples`; put simple ones first, they explain most.
    """
    for a, b, c in itertools.product(samples, repeat=3):
        if combine(combine(a, b), c) != combine(a, combine(b, c)):
            return a, b, c
    return None


def counterexample_to_commutativity(
    combine: Callable[[T, T], T], samples: Sequence[T]
) -> tuple[T, T] | None:
    """Return the first a, b of `samples` with a b != b a, None if there are none."""
    for a, b in itertools.combinations(samples, 2):
        if combine(a, b) != combine(b, a):
            return a, b
    return None


def is_identity(combine: Callable[[T, T], T], element: T, samples: Sequence[T]) -> bool:
    """Tell whether `element` changes none of `samples`, from neither side."""
    return all(combine(element, a) == a == combine(a, element) for a in samples)


def bracketings(combine: Callable[[T, T], T], items: Sequence[T]) -> list[T]:
    """Return the results of all ways to put brackets: 1, 1, 2, 5, 14, 42 … of them.

    Raises:
        ValueError: there are no items.
    """
    if not items:
        raise ValueError("nothing to combine")
    if len(items) == 1:
        return list(items)
    return [
        combine(left, right)
        for cut in range(1, len(items))
        for left in bracketings(combine, items[:cut])
        for right in bracketings(combine, items[cut:])
    ]


def n_distinct(results: Sequence[T]) -> int:
    """Return how many of `results` differ; they need not be hashable."""
    return sum(result not in results[:i] for i, result in enumerate(results))


# -- operators


def mean_of_two(a: float, b: float) -> float:
    return (a + b) / 2


def matrix_product(a: Matrix, b: Matrix) -> Matrix:
    (p, q), (r, s) = a
    (t, u), (v, w) = b
    return (p * t + q * v, p * u + q * w), (r * t + s * v, r * u + s * w)


def composed(f: Map, g: Map) -> Map:
    """Return "first `f`, then `g`", for functions given as (f(0), f(1), f(2))."""
    return tuple(g[y] for y in f)


@dataclass(frozen=True, slots=True)
class Case(Generic[T]):
    """An operator, what is said of it, and samples to test that with, simple first."""

    name: str
    combine: Callable[[T, T], T]
    samples: Sequence[T]
    associative: bool
    commutative: bool
    identity: T | None = None  # None: there is none


WHOLE = [0, 1, 2, 3, 7, -5, 10**30]
CASES: list[Case[Any]] = [
    Case("sum", operator.add, WHOLE, True, True, 0),
    Case("max", max, [-math.inf, *WHOLE], True, True, -math.inf),
    Case("gcd", math.gcd, [0, 1, 4, 6, 9, 10, 15], True, True, 0),
    Case(
        "set union",
        operator.or_,
        [frozenset(letters) for letters in ["", "a", "b", "ab", "bc", "d"]],
        True,
        True,
        frozenset(),
    ),
    Case("concatenation", operator.add, ["", "a", "b", "cd", "dc"], True, False, ""),
    Case(
        "dict merge",
        operator.or_,
        [{}, {"x": 1}, {"x": 2}, {"y": 3}, {"x": 4, "y": 5}],
        True,
        False,
        {},
    ),
    Case(
        "matrix product",
        matrix_product,
        [
            ((1, 0), (0, 1)),
            ((0, 1), (1, 0)),
            ((1, 1), (0, 1)),
            ((1, 2), (3, 4)),
            ((2, 0), (5, -1)),
        ],
        True,
        False,
        ((1, 0), (0, 1)),
    ),
    Case(
        "composition",
        composed,
        sorted(itertools.product(range(3), repeat=3), key=lambda f: f != (0, 1, 2)),
        True,
        False,
        (0, 1, 2),
    ),
    Case("subtraction", operator.sub, WHOLE, False, False),
    Case("mean of two", mean_of_two, [0, 1, 2, 4, 8], False, True),
    Case("float addition", operator.add, [0.0, 0.1, 0.2, 0.3, 0.7], False, True, 0.0),
]


def yes(claim: bool) -> str:
    return "yes" if claim else "no"


def main() -> None:
    print("                                                           results in")
    print("operator        identity          associative commutative  brackets orders")
    refuted = []
    for case in CASES:
        combine, samples = case.combine, case.samples
        triple = counterexample_to_associativity(combine, samples)
        pair = counterexample_to_commutativity(combine, samples)
        if (triple is None, pair is None) != (case.associative, case.commutative):
            raise SystemExit(f"{case.name}: not as said: {triple}, {pair}")
        if case.identity is None:
            identity = "none"
        elif is_identity(combine, case.identity, samples):
            identity = repr(case.identity)
        else:
            raise SystemExit(f"{case.name}: {case.identity} changes something")
        four = samples[-4:]
        in_brackets = n_distinct(bracketings(combine, four))
        in_orders = n_distinct(
            [functools.reduce(combine, order) for order in itertools.permutations(four)]
        )
        print(
            f"{case.name:16}{identity:20}{yes(triple is None):12}{yes(pair is None):10}"
            f"{in_brackets:9}{in_orders:7}"
        )
        if triple is not None:
            refuted.append((case, *triple))
    print()
    print("counterexamples to (a b) c = a (b c)")
    for case, a, b, c in refuted:
        left = case.combine(case.combine(a, b), c)
        right = case.combine(a, case.combine(b, c))
        print(f"{case.name:16}({a} {b}) {c} = {left}, {a} ({b} {c}) = {right}")
    n_kept = len(CASES) - len(refuted)
    n_any_order = sum(case.associative and case.commutative for case in CASES)
    print()
    print(
        f"{n_kept} of {len(CASES)} may be reduced in parts, {n_any_order} in any order"
    )


if __name__ == "__main__":
    main()
