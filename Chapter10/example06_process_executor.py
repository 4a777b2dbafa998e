"""A computation in a pool of processes, awaited: as many cores as there are, one loop.

For work that computes, threads are no help while there is a GIL, and giving way makes
nothing faster. `run_in_executor` takes a pool of processes as well: functions and
arguments are pickled, results come back as futures, and the event loop stays free for
everybody else. How long a bystander had to wait for its turn is measured here, too.

As in Chapter 1 (example01), the numbers are handed out in chunks, and the yardstick is
what the same workers achieve when each does a whole job by itself. The pool is made
before the loop, and before any thread: what is forked later would inherit both.

Book: Chapter 10, example6.
Try:  --workers 1
Try:  --numbers 5000

Output:
    Python <version>, GIL <gil>, <cores> cores, <cores> workers
    23 primes among 600 numbers from 10,000,000,000
    sequential   0.076 s    1.00x
    processes    0.048 s    1.60x
    yardstick    0.039 s    1.93x  (each a whole job)
    meanwhile a bystander waited 7.1 ms at most
    <cores> processes on <cores> cores: 1.60x as fast as one
"""

import argparse
import asyncio
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from itertools import pairwise
from multiprocessing import resource_tracker
from typing import TypeVar

FIRST = 10**10
CHUNKS_PER_WORKER = 10
MAX_WORKERS = 61  # of a process pool on Windows
PERIOD = 0.001  # seconds for which the bystander sleeps

T = TypeVar("T")


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


def split(numbers: range, n_chunks: int) -> list[range]:
    """Cut `numbers` into at most `n_chunks` chunks, equal but for one number.

    No chunk is empty; of no numbers there are no chunks.

    Raises:
        ValueError: `n_chunks` is less than 1.
    """
    if n_chunks < 1:
        raise ValueError(f"need at least 1 chunk, not {n_chunks}")
    n_chunks = min(n_chunks, len(numbers))
    cuts = [len(numbers) * i // n_chunks for i in range(n_chunks)]
    return [numbers[a:b] for a, b in pairwise([*cuts, len(numbers)])]


async def primes_with(executor: Executor, numbers: range, n_chunks: int) -> list[int]:
    """Return the primes among `numbers`, in their order, found by `executor`.

    If this is cancelled, so are the chunks that have not begun.
    """
    loop = asyncio.get_running_loop()
    chunks = [
        loop.run_in_executor(executor, primes_in, chunk)
        for chunk in split(numbers, n_chunks)
    ]
    return [prime for primes in await asyncio.gather(*chunks) for prime in primes]


@asynccontextmanager
async def bystander(period: float) -> AsyncIterator[list[float]]:
    """Sleep again and again; give the list of how late each sleep ended, in seconds."""
    late: list[float] = []

    async def stand_by() -> None:
        while True:
            due = time.perf_counter() + period
            await asyncio.sleep(period)
            late.append(time.perf_counter() - due)

    task = asyncio.create_task(stand_by())
    try:
        yield late
    finally:
        task.cancel()
        await asyncio.wait([task])


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


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


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
    parser.add_argument("--numbers", type=positive, default=600)
    parser.add_argument(
        "--workers", type=workers, default=min(usable_cores(), MAX_WORKERS)
    )
    options = parser.parse_args()
    numbers, n = range(FIRST, FIRST + options.numbers), options.workers
    waits: list[float] = []

    with process_pool(n) as pool:

        async def in_processes() -> list[int]:
            async with bystander(PERIOD) as late:
                primes = await primes_with(pool, numbers, CHUNKS_PER_WORKER * n)
            waits.append(max(late, default=math.inf))
            return primes

        seconds, found = side_by_side(
            {
                "sequential": lambda: [primes_in(numbers)],
                "processes": lambda: [asyncio.run(in_processes())],
                # The yardstick: a whole job for every worker. There is nothing to share
                # out, nothing to put together, and nobody waits for anybody.
                "yardstick": lambda: list(pool.map(primes_in, [numbers] * n)),
            }
        )
    primes = found["sequential"][0]
    if any(answer != primes for answers in found.values() for answer in answers):
        raise SystemExit("the answers differ")
    if math.inf in waits:
        raise SystemExit("the event loop stood still until the answer was there")

    print(
        f"Python {platform.python_version()}, GIL {gil_state()}, "
        f"{usable_cores()} cores, {n} workers"
    )
    print(f"{len(primes)} primes among {len(numbers):,} numbers from {FIRST:,}")
    one, pooled = seconds["sequential"], seconds["processes"]
    a_job = seconds["yardstick"] / n
    print(f"sequential  {one:6.3f} s    1.00x")
    print(f"processes   {pooled:6.3f} s  {one / pooled:6.2f}x")
    print(f"yardstick   {a_job:6.3f} s  {one / a_job:6.2f}x  (each a whole job)")
    print(f"meanwhile a bystander waited {1000 * max(waits):.1f} ms at most")
    print(
        f"{n} processes on {usable_cores()} cores: {one / pooled:.2f}x as fast as one"
    )


if __name__ == "__main__":
    main()
