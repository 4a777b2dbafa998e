"""A scan tells each worker where to write, so that all write at once without a lock.

To filter numbers is easy for one worker: it appends what passes. Several of them would
have to take turns at appending, and the order would be lost. Stream compaction first
asks how many pass. Each worker flags the survivors of its chunk and counts them. An
exclusive scan of the counts gives for each chunk the number of survivors before it, and
that is where in the result its worker begins to write. The ranges follow one another
without gap or overlap. No two workers write the same cell, nobody waits, and the order
is kept.

Numbers, flags and result lie in shared memory. What travels between the processes is
the block's name, a range, and a count. One worker alone would go through the numbers
once; to go through them twice, and two rounds of tasks, are the price. It is small if
the condition takes some time, as here. (If it takes none, one process with numpy,
`numbers[numbers % 3 == 0]`, is ahead of any pool.)

A worker that dies leaves its cells unwritten: the pool raises BrokenProcessPool, and
nobody may use the result. The block itself outlives all processes unless it is
unlinked, which happens here whatever happens.

Source: G. E. Blelloch, "Prefix sums and their applications", CMU-CS-90-190, 1990. (On
a GPU there is `copy_if` of the library Thrust.)

Try:  --numbers 1000
Try:  --workers 1

Output:
    the primes among 50,000 numbers, in their order

    chunk 1 writes cells         0 up to       965
    chunk 2 writes cells       965 up to     1,944
    chunk 3 writes cells     1,944 up to     2,927
    chunk 4 writes cells     2,927 up to     3,908

    one process  0.054 s  1.00x  3,908 primes
    pool of <cores>    0.031 s  1.75x  3,908 primes
    every cell written by one worker, in order, without a lock
"""

import argparse
import math
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from itertools import accumulate, compress, pairwise
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TypeVar

BYTES = 8  # of a number, a signed one
BELOW = 2**20  # are all numbers
UNUSED = -1  # in cells of the result that nobody has written
N_CHUNKS = 4
MAX_NUMBERS = 10**7
MAX_WORKERS = 61  # of a process pool on Windows

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


@dataclass(frozen=True, slots=True)
class Cells:
    """What lies in a block of shared memory: `n` numbers, `n` results, `n` flags.

    The methods return views of the cells from `start` up to `stop`. Do not keep one: a
    block with views cannot be closed.
    """

    block: SharedMemory
    n: int

    @staticmethod
    def size(n: int) -> int:
        """Return how many bytes a block for `n` numbers must have."""
        return n * (2 * BYTES + 1)

    def numbers(self, start: int, stop: int) -> memoryview:
        return self._bytes(start * BYTES, stop * BYTES).cast("q")

    def results(self, start: int, stop: int) -> memoryview:
        return self.numbers(self.n + start, self.n + stop)

    def flags(self, start: int, stop: int) -> memoryview:
        behind_results = 2 * self.n * BYTES
        return self._bytes(behind_results + start, behind_results + stop)

    def _bytes(self, start: int, stop: int) -> memoryview:
        assert self.block.buf is not None, "the block is closed"
        return self.block.buf[start:stop]


@cache
def attached(name: str) -> SharedMemory:
    """Return the block of that name; a worker attaches it once and keeps it."""
    return SharedMemory(name)


def flag_chunk(
    condition: Callable[[int], bool], name: str, n: int, start: int, stop: int
) -> int:
    """Flag the numbers that fulfil `condition`; return how many do."""
    cells = Cells(attached(name), n)
    flags = bytes(map(condition, cells.numbers(start, stop)))
    cells.flags(start, stop)[:] = flags
    return len(flags) - flags.count(False)


def compact_chunk(
    name: str, n: int, start: int, stop: int, first: int, end: int
) -> None:
    """Write the numbers that have a flag to the results from `first` up to `end`.

    Raises:
        ValueError: there are more of them, or fewer.
    """
    cells = Cells(attached(name), n)
    survivors = compress(cells.numbers(start, stop), cells.flags(start, stop))
    cells.results(first, end)[:] = array("q", survivors)


def compact(
    executor: Executor, condition: Callable[[int], bool], cells: Cells, n_chunks: int
) -> list[int]:
    """Write the numbers that fulfil `condition` to the results, in their order.

    Returns:
        Where the results of each chunk begin, and behind them where the last ones end.
    """
    name, n = cells.block.name, cells.n
    cuts = [n * i // n_chunks for i in range(n_chunks + 1)]
    flag_one = partial(flag_chunk, condition, name, n)
    counts = executor.map(flag_one, cuts[:-1], cuts[1:])
    offsets = list(accumulate(counts, initial=0))  # the scan: few, and quickly made
    compact_one = partial(compact_chunk, name, n)
    list(executor.map(compact_one, cuts[:-1], cuts[1:], offsets[:-1], offsets[1:]))
    return offsets


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
def shared_block(n_bytes: int) -> Iterator[SharedMemory]:
    """A new block of shared memory that is removed at the end, whatever happens.

    By then all views of it must be gone. Those that a traceback keeps alive, because a
    function that had one was left by an exception (Ctrl-C, say), are seen to here.

    Raises:
        BufferError: there is still a view. The block has no name any more; its memory
            is given back when the last process that uses it ends.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start lets Ctrl-C through, up to 3.12

    def remove() -> None:
        with ctrl_c_later():
            block.unlink()
            block.close()

    with ExitStack() as stack:
        with ctrl_c_later():
            block = SharedMemory(create=True, size=n_bytes)
            stack.callback(remove)
        try:
            yield block
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise


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


def scattered(n: int) -> "array[int]":
    """Return `n` numbers below BELOW without any order, always the same."""
    return array("q", (i * 2_654_435_761 % BELOW for i in range(n)))


def fill(cells: Cells, numbers: "array[int]") -> None:
    cells.numbers(0, cells.n)[:] = numbers
    cells.results(0, cells.n)[:] = array("q", [UNUSED]) * cells.n


def number_count(text: str) -> int:
    number = positive(text)
    if number > MAX_NUMBERS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_NUMBERS}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=number_count, default=50_000)
    parser.add_argument(
        "--workers", type=workers, default=min(usable_cores(), MAX_WORKERS)
    )
    options = parser.parse_args()
    n, n_workers = options.numbers, options.workers
    room = Path("/dev/shm")  # who writes to a block that is larger dies (Linux)
    if room.is_dir() and Cells.size(n) > shutil.disk_usage(room).free:
        parser.error(f"argument --numbers: no shared memory for {n}")

    numbers = scattered(n)
    print(f"the primes among {n:,} numbers, in their order")
    with shared_block(Cells.size(n)) as block, process_pool(n_workers) as pool:
        cells = Cells(block, n)
        fill(cells, numbers)
        offsets = compact(pool, is_prime, cells, N_CHUNKS)
        seconds, results = side_by_side(
            {
                "one process": lambda: list(filter(is_prime, numbers)),
                f"pool of {n_workers}": lambda: cells.results(
                    0, compact(pool, is_prime, cells, N_CHUNKS)[-1]
                ).tolist(),
            }
        )
        untouched = set(cells.results(offsets[-1], n))
    primes = results["one process"]
    if any(result != primes for result in results.values()):
        raise SystemExit("the results are not those of the sequential filter")
    if untouched - {UNUSED}:
        raise SystemExit("somebody wrote behind the last survivor")
    print()
    for number, (first, end) in enumerate(pairwise(offsets), 1):
        print(f"chunk {number} writes cells {first:9,} up to {end:9,}")
    print()
    for name, taken in seconds.items():
        gain = seconds["one process"] / taken
        print(f"{name:12} {taken:5.3f} s {gain:5.2f}x  {len(results[name]):,} primes")
    print("every cell written by one worker, in order, without a lock")


if __name__ == "__main__":
    main()
