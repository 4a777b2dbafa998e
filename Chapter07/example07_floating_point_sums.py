# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.26.0"]
# ///
"""Why a parallel sum of floats differs from the sequential one, and one that does not.

Each addition of floats rounds, so a sum depends on the order of the additions: with
floats (1 + 1e16) - 1e16 is 0, and 1 + (1e16 - 1e16) is 1. Each cut into chunks is
another order and has another sum. None of them is the right one; that is the sum of
`math.fsum`, exact and rounded once. For the same reason a parallel sum varies from run
to run only if its partial sums are added as they arrive. With fixed chunks, added in a
fixed order, it is the same every time, and every time as wrong.

How wrong it may be depends on the numbers, on their condition number sum |x| / |sum x|.
Times the rounding error of one addition, times the additions that a number takes part
in, it bounds the relative error. One by one these are n - 1, pairwise log2 n, in k
chunks n / k + k. Kahan's sum takes what an addition lost into the next one; Neumaier's
keeps it to the end. Below its bound, an error is a matter of luck: with `--seed 1` one
by one comes out better than pairwise.

To be independent of the cut, a sum has to be carried without rounding. A few floats can
do that: the first is the sum, rounded; the second what is missing to it, rounded; and
so on until nothing is missing. They depend on nothing but the exact sum. So merging two
such lists is truly associative, and any cut in any order leads to the same list. (For
work in earnest there is the library ReproBLAS.)

Sources: W. Kahan, "Further remarks on reducing truncation errors", CACM 8 (1), 1965;
A. Neumaier, "Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen",
ZAMM 54 (1), 1974; N. J. Higham, "The accuracy of floating point summation", SIAM
J. Sci. Comput. 14 (4), 1993, and T. Ogita, S. M. Rump, S. Oishi, "Accurate sum and
dot product", ibid. 26 (6), 2005 (the bounds); J. R. Shewchuk, "Adaptive precision
floating-point arithmetic and fast robust geometric predicates", Discrete Comput. Geom.
18 (3), 1997 (exact sums as lists of floats, fsum's method as well).

Try:  --seed 1

Output:
    100,000 numbers, condition 1.1e+11, sum 9898.237077553
                                   relative error  at most
    one by one             9898.174203515   6e-06    1e+00
    pairwise               9898.232421875   5e-07    2e-04
    Kahan                  9898.236703515   4e-08    3e-05
    Neumaier               9898.237077553   0e+00    1e-11
    2 chunks               9898.137695312   1e-05    6e-01
    4 chunks               9898.042968750   2e-05    3e-01
    8 chunks               9898.180175781   6e-06    2e-01
    8 chunks, fsum         9898.238098145   1e-07    3e-05
    8 chunks, exact        9898.237077553   0e+00    0e+00

    the 8 partial sums, added in any order: 50 different sums
    numpy.sum is 2e-05 % off
    the built-in sum adds as Neumaier from Python 3.12 on, one by one before
    any cut, any order: exact parts lead to the same floats, the sum of fsum
"""

import argparse
import math
import operator
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import reduce
from itertools import pairwise, permutations
from multiprocessing import resource_tracker
from random import Random

N_NUMBERS = 100_000
BINADES = 40  # the large numbers spread over so many powers of two
CHUNK_COUNTS = (2, 4, 8)
ROUNDING = sys.float_info.epsilon / 2  # largest relative error of one addition
MAX_WORKERS = 61  # of a process pool on Windows


def naive_sum(numbers: Sequence[float]) -> float:
    """Add one number after the other. (The built-in sum did that before 3.12.)"""
    return reduce(operator.add, numbers, 0.0)


def pairwise_sum(numbers: Sequence[float]) -> float:
    """Add neighbours, then the neighbouring sums, and so on: a tree of additions."""
    sums = list(numbers)
    while len(sums) > 1:
        odd_one = sums[len(sums) // 2 * 2 :]
        sums = list(map(operator.add, sums[::2], sums[1::2])) + odd_one
    return sums[0] if sums else 0.0


def kahan_sum(numbers: Sequence[float]) -> float:
    """Add one by one; take what an addition lost into account in the next one."""
    total = lost = 0.0
    for number in numbers:
        mended = number - lost
        rounded = total + mended
        lost = (rounded - total) - mended
        total = rounded
    return total


def neumaier_sum(numbers: Sequence[float]) -> float:
    """Add one by one; add up apart what the additions lost, and add that at the end."""
    total = lost = 0.0
    for number in numbers:
        rounded = total + number
        if abs(total) >= abs(number):
            lost += (total - rounded) + number
        else:
            lost += (number - rounded) + total
        total = rounded
    return total + lost


def exact_parts(numbers: Sequence[float]) -> list[float]:
    """Return a few floats whose sum is exactly that of `numbers`, each one rounded.

    They are the same for all numbers of the same exact sum; for a sum of 0 there are
    none. `math.fsum` of them is the sum, rounded once.

    Raises:
        ValueError: a number is infinite or no number at all.
        OverflowError: a sum on the way is too large for a float.
    """
    if not all(map(math.isfinite, numbers)):
        raise ValueError("only finite numbers have an exact sum")
    parts: list[float] = []
    while missing := math.fsum([*numbers, *map(operator.neg, parts)]):
        parts.append(missing)
    return parts


def merge(left: list[float], right: list[float]) -> list[float]:
    """Return the exact parts of both together. Associative; [] is the identity."""
    return exact_parts([*left, *right])


def numpy_sum(numbers: Sequence[float]) -> float:
    """Add as numpy does: pairwise, but in blocks; the order is its own business."""
    # Not at the top: numpy starts threads, and whoever has threads cannot keep Ctrl-C
    # from a pool that is being made.
    import numpy as np

    return float(np.sum(np.array(numbers)))


def split(numbers: Sequence[float], n_chunks: int) -> list[Sequence[float]]:
    """Cut `numbers` into `n_chunks` chunks, equal but for one number.

    Raises:
        ValueError: `n_chunks` is less than 1.
    """
    if n_chunks < 1:
        raise ValueError(f"need at least 1 chunk, not {n_chunks}")
    cuts = [len(numbers) * i // n_chunks for i in range(n_chunks + 1)]
    return [numbers[a:b] for a, b in pairwise(cuts)]


def ill_conditioned(n: int, random: Random) -> list[float]:
    """Return `n` numbers, four fifths of which cancel out, in random order."""
    large = [
        random.random() * 2.0 ** int(BINADES * random.random())
        for _ in range(2 * n // 5)
    ]
    small = [random.random() for _ in range(n - 2 * len(large))]
    numbers = [*large, *map(operator.neg, large), *small]
    # Of all methods, random() alone is promised to stay the same in later versions.
    return sorted(numbers, key=lambda _: random.random())


def condition_number(numbers: Sequence[float]) -> float:
    """Return how many times a relative error of the numbers may grow in their sum.

    Raises:
        ZeroDivisionError: the sum is 0.
    """
    return math.fsum(map(abs, numbers)) / abs(math.fsum(numbers))


def error_bound(additions: int, condition: float) -> float:
    """Bound a sum's relative error if no number goes through more than `additions`."""
    return additions * ROUNDING / (1 - additions * ROUNDING) * condition


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


@contextmanager
def process_pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `n_workers` processes that leave Ctrl-C to this one.

    Ctrl-C has to wait while they start and while they end: in the midst of that, a pool
    cannot be ended in order. Make it before any thread, which would let Ctrl-C through
    and should not be forked. If the block fails, calls that have not begun are dropped:
    an interrupted `submit` may leave one that no process gets and the end would await.
    """
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)

    def end(kind: type[BaseException] | None, *_: object) -> None:
        with ctrl_c_later():
            pool.shutdown(cancel_futures=kind is not None)

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = ProcessPoolExecutor(n_workers, None, signal.signal, ignore_ctrl_c)
            stack.push(end)
            list(pool.map(abs, range(n_workers)))
        yield pool


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=positive, default=3)
    numbers = ill_conditioned(N_NUMBERS, Random(parser.parse_args().seed))
    n, truth, condition = len(numbers), math.fsum(numbers), condition_number(numbers)

    print(f"{n:,} numbers, condition {condition:.1e}, sum {truth:.9f}")
    print("                               relative error  at most")

    def show(name: str, total: float, bound: float) -> None:
        error = abs(total - truth) / abs(truth)
        print(f"{name:18} {total:18.9f} {error:7.0e} {bound:8.0e}")
        if error > bound:
            raise SystemExit(f"{name}: the error is beyond its bound")

    one_by_one, compensated = naive_sum(numbers), neumaier_sum(numbers)
    depth = (n - 1).bit_length()  # of the tree
    show("one by one", one_by_one, error_bound(n - 1, condition))
    show("pairwise", pairwise_sum(numbers), error_bound(depth, condition))
    show("Kahan", kahan_sum(numbers), error_bound(2, condition))
    show("Neumaier", compensated, ROUNDING + error_bound(n - 1, 1) ** 2 * condition)
    by_cut: dict[int, list[list[float]]] = {}
    with process_pool(min(usable_cores(), MAX_WORKERS)) as pool:
        for k in CHUNK_COUNTS:
            chunks = split(numbers, k)
            sums = list(pool.map(naive_sum, chunks))
            show(f"{k} chunks", naive_sum(sums), error_bound(-(-n // k) + k, condition))
            by_cut[k] = list(pool.map(exact_parts, chunks))
        if list(pool.map(naive_sum, chunks)) != sums:
            raise SystemExit("the same chunks were to have the same sums again")
        rounded = math.fsum(pool.map(math.fsum, chunks))
    show(f"{k} chunks, fsum", rounded, error_bound(2, condition))
    exact: list[float] = reduce(merge, by_cut[k])
    show(f"{k} chunks, exact", math.fsum(exact), 0)
    print()

    orders = len({naive_sum(order) for order in permutations(sums)})
    print(f"the {k} partial sums, added in any order: {orders} different sums")
    if orders == 1:
        raise SystemExit("the order of the partial sums was to matter")
    whole = exact_parts(numbers)
    for parts in by_cut.values():
        for order in (parts, parts[::-1], parts[1::2] + parts[::2]):
            if reduce(merge, order) != whole:
                raise SystemExit("the exact parts were not to depend on cut and order")

    error = abs(numpy_sum(numbers) - truth) / abs(truth)
    print(f"numpy.sum is {100 * error:.0e} % off")
    if error > error_bound(n - 1, condition):
        raise SystemExit("numpy.sum: the error is beyond the bound of any order")
    is_compensated = sum([1e16, 1.0, -1e16]) == 1.0
    if sum(numbers) != (compensated if is_compensated else one_by_one):
        raise SystemExit("the built-in sum adds in a way of its own")
    print("the built-in sum adds as Neumaier from Python 3.12 on, one by one before")
    print("any cut, any order: exact parts lead to the same floats, the sum of fsum")


if __name__ == "__main__":
    main()
