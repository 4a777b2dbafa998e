"""A mean cannot be reduced; a pair that holds it can, and so can the variance.

The mean of two means depends on how many numbers each of them stands for. As an
operator on numbers it is not associative, and the mean of the chunks' means is wrong as
soon as the chunks are unequal. Carried as (sum, count) it is a reduction like any
other: pairs are added, and one division comes at the end.

The variance could be had in the same way from the sum and the sum of squares. But then
two large, nearly equal numbers are subtracted at the end, and if the data lie far from
zero, rounding is all that is left: the variance may even come out negative. So each
chunk carries (count, mean, M2), where M2 is the sum of the squared deviations from the
chunk's own mean. One pass over the chunk makes it (Welford); a formula makes that of
two chunks together (Chan, Golub, LeVeque). An empty chunk is the identity element.

Both are put to work in a pool here, on the same numbers at four distances from zero.
With the distance measured in standard deviations, the error of the deviations grows in
proportion to it, that of the squares in proportion to its square. (In your own programs
take `statistics.pvariance`, which is exact, or `numpy.var`, and for what does not fit
into memory `dask.array.var`, which merges chunks as is done here.)

Sources: B. P. Welford, "Note on a method for calculating corrected sums of squares and
products", Technometrics 4 (3), 1962; T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating
formulae and a pairwise algorithm for computing sample variances", STAN-CS-79-773, 1979,
and (the errors) "Algorithms for computing the sample variance: analysis and
recommendations", The American Statistician 37 (3), 1983.

Try:  --chunks 1
Try:  --chunks 1000

Output:
    mean(mean(1, 2), 6) is 3.75, mean(1, mean(2, 6)) is 2.5
    0 to 999 in chunks of 10, 90 and 900: mean of means 202.8
                                          of the pairs  499.5

    variance of 50,000 numbers in 8 chunks
    numbers from  exact   by squares  error   by deviations  error
               0   8.25     8.250000  0e+00        8.250000  4e-15
          10,000   8.25     8.250000  0e+00        8.250000  5e-13
       1,000,000   8.25     8.249920  1e-05        8.250000  4e-11
     100,000,000   8.25   -78.643200  1e+01        8.250000  1e-08
    the difference of squares lost all its digits, the deviations did not
"""

import argparse
import math
import os
import signal
import statistics
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import resource_tracker
from typing import TypeVar

N_NUMBERS = 50_000
OFFSETS = (0, 10**4, 10**6, 10**8)  # distances of the numbers from zero
MAX_CHUNKS = 1000
ROUNDING = sys.float_info.epsilon / 2  # largest relative error of one operation
MAX_WORKERS = 61  # of a process pool on Windows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of some numbers, carried as a pair that can be added."""

    total: float = 0
    count: int = 0

    @classmethod
    def of(cls, numbers: Sequence[float]) -> "Mean":
        """Take the sum of `math.fsum`, which rounds only once."""
        return cls(math.fsum(numbers), len(numbers))

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    def value(self) -> float:
        """Return the mean.

        Raises:
            ValueError: there were no numbers.
        """
        if not self.count:
            raise ValueError("no numbers, no mean")
        return self.total / self.count


@dataclass(frozen=True, slots=True)
class Moments:
    """How many numbers there are, their mean, and their squared deviations from it.

    Attributes:
        m2: the sum of the squared deviations.
    """

    count: int = 0
    mean: float = 0
    m2: float = 0

    @classmethod
    def of(cls, numbers: Iterable[float]) -> "Moments":
        """Look at each number once, in turn (Welford's method)."""
        count = 0
        mean: float = 0
        m2: float = 0
        for number in numbers:
            count += 1
            before = number - mean
            mean += before / count
            m2 += before * (number - mean)
        return cls(count, mean, m2)

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of both together (the formula of Chan, Golub, LeVeque)."""
        if not self.count or not other.count:  # an empty one is the identity element
            return self if self.count else other
        count = self.count + other.count
        apart = other.mean - self.mean
        return Moments(
            count,
            self.mean + apart * other.count / count,
            self.m2 + other.m2 + apart * apart * self.count * other.count / count,
        )

    def variance(self) -> float:
        """Return the variance of the population: the mean squared deviation.

        Raises:
            ValueError: there were no numbers.
        """
        if not self.count:
            raise ValueError("no numbers, no variance")
        return self.m2 / self.count


@dataclass(frozen=True, slots=True)
class Squares:
    """The same with the defect: M2 as the difference of two large numbers."""

    count: int = 0
    total: float = 0
    squares: float = 0

    @classmethod
    def of(cls, numbers: Iterable[float]) -> "Squares":
        count = 0
        total: float = 0
        squares: float = 0
        for number in numbers:
            count += 1
            total += number
            squares += number * number
        return cls(count, total, squares)

    def __add__(self, other: "Squares") -> "Squares":
        return Squares(
            self.count + other.count,
            self.total + other.total,
            self.squares + other.squares,
        )

    def variance(self) -> float:
        """Return the variance of the population, or what cancellation left of it.

        Raises:
            ZeroDivisionError: there were no numbers.
        """
        return (self.squares - self.total * self.total / self.count) / self.count


def split(items: Sequence[T], n_chunks: int) -> list[Sequence[T]]:
    """Cut `items` into `n_chunks` chunks; there are empty ones if items are fewer.

    Raises:
        ValueError: `n_chunks` is less than 1.
    """
    if n_chunks < 1:
        raise ValueError(f"need at least 1 chunk, not {n_chunks}")
    cuts = [len(items) * i // n_chunks for i in range(n_chunks + 1)]
    return [items[a:b] for a, b in pairwise(cuts)]


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


def number_of_chunks(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_CHUNKS:
        raise argparse.ArgumentTypeError(f"must be 1 to {MAX_CHUNKS}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chunks", type=number_of_chunks, default=8)
    n_chunks = parser.parse_args().chunks

    left = statistics.fmean([statistics.fmean([1, 2]), 6])
    right = statistics.fmean([1, statistics.fmean([2, 6])])
    print(f"mean(mean(1, 2), 6) is {left}, mean(1, mean(2, 6)) is {right}")

    with process_pool(min(usable_cores(), MAX_WORKERS)) as pool:
        numbers = range(1000)
        means = list(pool.map(Mean.of, [numbers[:10], numbers[10:100], numbers[100:]]))
        of_means = statistics.fmean(mean.value() for mean in means)
        of_pairs = sum(means, Mean()).value()
        print(f"0 to 999 in chunks of 10, 90 and 900: mean of means {of_means:.1f}")
        print(f"                                      of the pairs  {of_pairs:.1f}")
        if of_pairs != statistics.fmean(numbers) or of_means == of_pairs:
            raise SystemExit("the pairs were to give the mean, and the means were not")

        print()
        print(f"variance of {N_NUMBERS:,} numbers in {n_chunks} chunks")
        print("numbers from  exact   by squares  error   by deviations  error")
        for offset in OFFSETS:
            data = [float(offset + 10 * i // N_NUMBERS) for i in range(N_NUMBERS)]
            chunks = split(data, n_chunks)
            exact = statistics.pvariance(data)
            squares = sum(pool.map(Squares.of, chunks), Squares()).variance()
            moments = sum(pool.map(Moments.of, chunks), Moments()).variance()
            lost, kept = abs(squares / exact - 1), abs(moments / exact - 1)
            print(
                f"{offset:12,} {exact:6.2f} {squares:12.6f}  {lost:5.0e} "
                f"{moments:15.6f}  {kept:5.0e}"
            )
            distance = math.hypot(1, statistics.fmean(data) / math.sqrt(exact))
            if kept > N_NUMBERS * ROUNDING * distance:
                raise SystemExit("the deviations lost more than their error bound")
    if lost < 0.01:
        raise SystemExit("the squares were to lose all digits in the last row")
    print("the difference of squares lost all its digits, the deviations did not")


if __name__ == "__main__":
    main()
