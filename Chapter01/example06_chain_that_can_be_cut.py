"""A chain of steps that looks sequential, and can be cut into pieces all the same.

x, f(x), f(f(x)), … cannot be shared out if f is a hash (example02). But if f is
affine, f(x) = a x + c, then so is f(f(x)), and so is any number of steps in one:
composing maps is associative, so that a million steps take no more than 27
compositions, by squaring. Nobody has to walk to where a piece of the chain begins;
one can jump there.

The chain here is a linear congruential generator of random numbers, the one beneath
PCG and MMIX. Pairs of its numbers are darts thrown at a square; pi is four times the
share that hits the quarter circle. Each process throws the darts of its own piece of
the chain, and all together throw exactly the darts that a single one would have
thrown. Parallel and yet reproducible: what is called sequential may only lack an
algorithm.

F. B. Brown, "Random number generation with arbitrary strides", Transactions of the
American Nuclear Society 71, 1994. (For work rather than an example, take the same
from `numpy.random.PCG64.advance`, or independent streams from
`numpy.random.SeedSequence`.)

Try:  --darts 1000000

Output:
    one walk   157,008 of 200,000 hit   0.10 s  1.00x
    in pieces  157,008 of 200,000 hit   0.05 s  1.84x
    a jump over 1,000,000,000,000,000,000 steps takes 91 µs
    the same darts either way, and pi is about 3.140
"""

import argparse
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import resource_tracker
from typing import TypeVar

MODULUS = 2**64
SEED = 2018
CHUNKS_PER_WORKER = 10
MAX_WORKERS = 61  # of a process pool on Windows

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Affine:
    """The map x -> (a x + c) mod 2**64."""

    a: int
    c: int

    def __call__(self, x: int) -> int:
        """Return a x + c, modulo 2**64."""
        return (self.a * x + self.c) % MODULUS

    def then(self, after: "Affine") -> "Affine":
        """Return the one map that does what this one and then `after` do."""
        return Affine(after.a * self.a % MODULUS, after(self.c))

    def repeated(self, times: int) -> "Affine":
        """Return the one map that does what this one does `times` times.

        That takes about two compositions for each binary digit of `times`.

        Raises:
            ValueError: `times` is negative.
        """
        if times < 0:
            raise ValueError(f"cannot be repeated {times} times")
        result, power = Affine(1, 0), self
        while times:
            if times % 2:
                result = result.then(power)
            power = power.then(power)
            times //= 2
        return result


GENERATOR = Affine(6364136223846793005, 1442695040888963407)


def hits(first_dart: int, n_darts: int) -> int:
    """Return how many of `n_darts` darts, from `first_dart` on, hit the quarter circle.

    Dart number i is made of numbers 2 i and 2 i + 1 of the generator's sequence.
    """
    x = GENERATOR.repeated(2 * first_dart)(SEED)
    a, c = GENERATOR.a, GENERATOR.c
    hit = 0
    for _ in range(n_darts):
        y = (a * x + c) % MODULUS
        hit += (x >> 32) ** 2 + (y >> 32) ** 2 < MODULUS  # the lower bits vary little
        x = (a * y + c) % MODULUS
    return hit


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


def side_by_side(
    jobs: Mapping[str, Callable[[], T]], rounds: int = 3
) -> tuple[dict[str, float], dict[str, T]]:
    """Run `jobs` in turns; return the seconds of each one's fastest run, and results.

    In turns, so that a busy moment of the machine hits all alike, and the fastest run,
    because other programs can only make a run slower.

    Raises:
        ValueError: a job does not give the same result in every round.
    """
    seconds = dict.fromkeys(jobs, math.inf)
    results: dict[str, T] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            result = job()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
            if results.setdefault(name, result) != result:
                raise ValueError(f"{name}: not the same result in every round")
    return seconds, results


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def workers(text: str) -> int:
    number = positive(text)
    if number > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_WORKERS}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--darts", type=positive, default=200_000)
    parser.add_argument(
        "--workers", type=workers, default=min(usable_cores(), MAX_WORKERS)
    )
    options = parser.parse_args()
    n, n_workers = options.darts, options.workers

    n_chunks = CHUNKS_PER_WORKER * n_workers
    cuts = [n * i // n_chunks for i in range(n_chunks + 1)]
    firsts, lengths = cuts[:-1], [b - a for a, b in pairwise(cuts)]
    with process_pool(n_workers) as pool:
        seconds, counts = side_by_side(
            {
                "one walk": lambda: hits(0, n),
                "in pieces": lambda: sum(pool.map(hits, firsts, lengths)),
            }
        )
    if counts["one walk"] != counts["in pieces"]:
        raise SystemExit(f"not the same darts: {counts}")
    began = time.perf_counter()
    far = GENERATOR.repeated(10**18)
    jump = time.perf_counter() - began
    if far != GENERATOR.repeated(10**9).repeated(10**9):
        raise SystemExit("two ways to the same place lead to different ones")

    for name, hit in counts.items():
        gain = seconds["one walk"] / seconds[name]
        print(f"{name:9}  {hit:,} of {n:,} hit  {seconds[name]:5.2f} s {gain:5.2f}x")
    print(f"a jump over 1,000,000,000,000,000,000 steps takes {1e6 * jump:.0f} µs")
    print(
        f"the same darts either way, and pi is about {4 * counts['one walk'] / n:.3f}"
    )


if __name__ == "__main__":
    main()
