# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""A job with a serial part is measured on 1 … all cores and set beside Amdahl's law.

The job: find the primes of a range, then seal them like entries of a ledger, where
every seal depends on the one before it. The search can be shared out among worker
processes, the sealing cannot (Chapter 1, example2). Timing both parts without any
concurrency gives the parallel fraction p, and with it Amdahl's prediction for n
workers:

    speedup(n) = 1 / (1 - p + p / n)

The prediction knows nothing of what it costs to hand out work and to collect results,
or that cores share a memory; so it is a bound. What the machine adds to it, you
measure.

Book: Chapter 2, example1.
Try:  --workers 4
Try:  --seal 0
Try:  --plot speedup.png

Output:
    Python <version>, <cores> cores
    without workers: search 0.07 s, seal 0.02 s
    parallel fraction 82.3 %

    workers   without      with  measured  Amdahl's law
          2    0.09 s    0.06 s     1.53x         1.70x
    ...

    <cores> workers: 1.53x; Amdahl's law: 1.70x, and 5.64x for any number
"""

import argparse
import hashlib
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, pairwise
from multiprocessing import resource_tracker
from pathlib import Path

FIRST = 10**10
CHUNKS_PER_WORKER = 10
MAX_WORKERS = 61  # of a process pool on Windows
ROUNDS = 3  # of which the fastest counts: other programs can only make a run slower


def is_prime(n: int) -> bool:
    """Tell whether `n` is a prime number, by trial division up to its square root.

    Beyond 3 every prime is one less or one more than a multiple of 6.
    """
    if n < 4:
        return n > 1
    if n % 2 == 0 or n % 3 == 0:
        return False
    return all(n % d and n % (d + 2) for d in range(5, math.isqrt(n) + 1, 6))


def primes_in(numbers: range) -> list[int]:
    """Return the primes among `numbers`, in their order."""
    return [n for n in numbers if is_prime(n)]


def seal(entries: Sequence[int], strength: int) -> bytes:
    """Return the last of a chain of seals, one for each entry.

    A seal is the SHA-256 digest of the seal before it and the entry, hashed `strength`
    times more, so that nobody can quickly seal a forged ledger anew.
    """
    last = b""
    for entry in entries:
        last = hashlib.sha256(last + str(entry).encode()).digest()
        for _ in range(strength):
            last = hashlib.sha256(last).digest()
    return last


@dataclass(frozen=True, slots=True)
class Timing:
    """What one run of the job took, in seconds, and its answer."""

    searching: float
    sealing: float
    answer: bytes

    @property
    def total(self) -> float:
        return self.searching + self.sealing


def run_job(
    numbers: range, strength: int, executor: Executor | None = None, n_chunks: int = 1
) -> Timing:
    """Seal the primes among `numbers`.

    Args:
        executor: searches them in `n_chunks` chunks. Without it they are searched here.

    Raises:
        ValueError: `n_chunks` is less than 1.
    """
    began = time.perf_counter()
    if n_chunks < 1:
        raise ValueError(f"need at least 1 chunk, not {n_chunks}")
    if executor is None:
        primes = primes_in(numbers)
    else:
        cuts = [len(numbers) * i // n_chunks for i in range(n_chunks + 1)]
        chunks = [numbers[a:b] for a, b in pairwise(cuts)]
        primes = list(chain.from_iterable(executor.map(primes_in, chunks)))
    searched = time.perf_counter()
    answer = seal(primes, strength)
    return Timing(searched - began, time.perf_counter() - searched, answer)


def fastest(
    numbers: range,
    strength: int,
    executors: Sequence[Executor | None],
    n_chunks: int = 1,
) -> list[Timing]:
    """Do the job ROUNDS times with each of `executors`; return their fastest timings.

    They take turns, so that a busy moment of the machine hits all alike.

    Raises:
        ValueError: the answers differ.
    """
    rounds = [
        [run_job(numbers, strength, executor, n_chunks) for executor in executors]
        for _ in range(ROUNDS)
    ]
    if len({timing.answer for timings in rounds for timing in timings}) != 1:
        raise ValueError("the same job was given different answers")
    return [
        min(timings, key=lambda timing: timing.total)
        for timings in zip(*rounds, strict=True)
    ]


def amdahl(parallel_fraction: float, n: float) -> float:
    """Return the speed-up that Amdahl's law (1967) promises with `n` workers.

    Raises:
        ValueError: the fraction is outside 0 … 1, or `n` is less than 1.
    """
    if not 0 <= parallel_fraction <= 1:
        raise ValueError(f"the parallel fraction must be in 0…1: {parallel_fraction}")
    if not n >= 1:
        raise ValueError(f"the number of workers must be at least 1: {n}")
    time_left = 1 - parallel_fraction * (1 - 1 / n)
    return 1 / time_left if time_left else math.inf


def worker_counts(most: int) -> list[int]:
    """Return the numbers of workers to measure: 2, 3, 4, every doubling, and `most`."""
    return [n for n in range(2, most + 1) if n in {3, most} or n & (n - 1) == 0]


def plot(measured: dict[int, float], fraction: float, machine: str, file: Path) -> None:
    """Draw the measured speed-ups by number of workers on Amdahl's curve."""
    from matplotlib.figure import Figure

    most = max(*measured, 4)
    counts = [1 + i * (most - 1) / 100 for i in range(101)]
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(counts, counts, "--", color="#9aa5b1", label="no serial part")
    axes.plot(
        counts,
        [amdahl(fraction, n) for n in counts],
        color="#1b4f8a",
        linewidth=2.5,
        label=f"Amdahl's law, p = {fraction:.2f}",
    )
    axes.plot(
        list(measured),
        list(measured.values()),
        "o",
        color="#c1440e",
        markersize=11,
        label="measured",
    )
    best = max(measured, key=lambda n: measured[n])
    axes.set_title(
        f"{best} workers are {measured[best]:.2f} times as fast as one;\n"
        f"Amdahl's law allows {amdahl(fraction, best):.2f} times",
        fontsize=14,
        fontweight="bold",
    )
    axes.set_xlabel(f"number of workers ({machine})", fontsize=12)
    axes.set_ylabel("speed-up over one worker", fontsize=12)
    axes.set_xticks([1, *worker_counts(most)])
    axes.legend(fontsize=12)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


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


def workers(text: str) -> int:
    number = int(text)
    if not 2 <= number <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be in 2 … {MAX_WORKERS}, not {number}")
    return number


def natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must not be negative: {number}")
    return number


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default_workers = max(2, min(usable_cores(), MAX_WORKERS))
    parser.add_argument("--workers", type=workers, default=default_workers)
    parser.add_argument("--seal", type=natural, default=1000, help="hashes per seal")
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    numbers, strength = range(FIRST, FIRST + 1000), options.seal

    (first,) = fastest(numbers, strength, [None])
    fraction = first.searching / first.total
    machine = f"Python {platform.python_version()}, {usable_cores()} cores"
    print(machine)
    print(
        f"without workers: search {first.searching:.2f} s, seal {first.sealing:.2f} s"
    )
    print(f"parallel fraction {100 * fraction:.1f} %")
    print()
    print("workers   without      with  measured  Amdahl's law")
    measured = {1: 1.0}
    for n in worker_counts(options.workers):
        with process_pool(n) as pool:
            alone, shared = fastest(
                numbers, strength, [None, pool], CHUNKS_PER_WORKER * n
            )
        measured[n] = alone.total / shared.total
        print(
            f"{n:7}  {alone.total:6.2f} s  {shared.total:6.2f} s  {measured[n]:7.2f}x"
            f"  {amdahl(fraction, n):11.2f}x"
        )
    print()
    print(
        f"{n} workers: {measured[n]:.2f}x; Amdahl's law: {amdahl(fraction, n):.2f}x, "
        f"and {amdahl(fraction, math.inf):.2f}x for any number"
    )
    if options.plot:
        plot(measured, fraction, machine, options.plot)


if __name__ == "__main__":
    main()
