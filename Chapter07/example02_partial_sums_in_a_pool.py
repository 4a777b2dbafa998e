"""Each worker of a pool reduces a chunk of the items, and then their results are.

That is map-reduce: the map is "reduce this chunk", and what is left to combine is one
result for each chunk, however many items there are. Compared with a tree of pairs
(example01) nearly all messages are gone. The results are combined in the order of the
chunks, so that any associative operator will do (example03 tells which are).

What is left is to bring the items to the workers. A slice of a list is pickled item by
item, and unpickled: as much work as adding up. An array is pickled in one piece, as
bytes. And where a worker can make the items, or read them, by itself, it only needs to
be told which: a `range` is a sequence like any other, and pickles to some fifty bytes.
With an operator as cheap as addition only that is worth the trouble; one that takes
longer, here a product modulo a large prime, forgives more.

(For numbers, numpy adds up faster than any pool of Python loops: example05. For data on
many machines, `dask.bag.fold` is this function: Chapter 21.)

Try:  --items 3000000
Try:  --chunks 1000

Output:
    100,000 items, <cores> cores, <cores> workers
    1,000 strings in 7 chunks: joined in order

    operator  items sent as     bytes moved         time
    add       not sent              0.0 KiB      8.4 ms   1.00x
    add       list                488.6 KiB     14.2 ms   0.59x
    add       array               781.4 KiB     10.9 ms   0.77x
    add       range                 0.1 KiB      5.8 ms   1.45x
    times     not sent              0.0 KiB     41.0 ms   1.00x
    times     list                488.6 KiB     32.4 ms   1.27x
    times     array               781.4 KiB     27.6 ms   1.49x
    times     range                 0.1 KiB     24.0 ms   1.71x

    the results agree; with nothing but ranges to send: add 1.45x, times 1.71x
"""

import argparse
import functools
import math
import operator
import os
import pickle
import signal
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from multiprocessing import resource_tracker
from typing import TypeVar

FIRST = 10**9
PRIME = 2**521 - 1
MAX_WORKERS = 61  # of a process pool on Windows

T = TypeVar("T")


def split(items: Sequence[T], n_chunks: int) -> list[Sequence[T]]:
    """Cut `items` into at most `n_chunks` chunks, equal but for one item.

    A chunk is a slice: of a list a list, of an array an array, of a range a range. No
    chunk is empty; of no items there are no chunks.

    Raises:
        ValueError: `n_chunks` is less than 1.
    """
    if n_chunks < 1:
        raise ValueError(f"need at least 1 chunk, not {n_chunks}")
    n_chunks = min(n_chunks, len(items))
    cuts = [len(items) * i // n_chunks for i in range(n_chunks)]
    return [items[a:b] for a, b in pairwise([*cuts, len(items)])]


def map_reduce(
    executor: Executor,
    combine: Callable[[T, T], T],
    items: Sequence[T],
    n_chunks: int,
    *initial: T,
) -> T:
    """Return all `items` combined, in their order, `initial` (at most one) first.

    Args:
        combine: an associative operator. Processes must be able to import it.
        n_chunks: in how many tasks to cut the work.

    Raises:
        ValueError: there are no items, and nothing initial; or no chunks are wanted.
        Exception: whatever `combine` raises, or the executor.
    """
    chunks = split(items, n_chunks)
    partial_results = executor.map(functools.partial(functools.reduce, combine), chunks)
    results: list[T] = [*initial, *partial_results]
    if not results:
        raise ValueError("nothing to reduce, and no initial item")
    return functools.reduce(combine, results)


def times(a: int, b: int) -> int:
    """Return a times b, modulo a prime."""
    return a * b % PRIME


def bytes_moved(chunks: Sequence[Sequence[T]]) -> int:
    """Return how many bytes it takes to send `chunks` to other processes."""
    return sum(len(pickle.dumps(chunk)) for chunk in chunks)


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
    parser.add_argument("--items", type=positive, default=100_000)
    parser.add_argument(
        "--workers", type=workers, default=min(usable_cores(), MAX_WORKERS)
    )
    parser.add_argument("--chunks", type=positive, help="default: one for each worker")
    options = parser.parse_args()
    n_workers = options.workers
    n_chunks = options.chunks or n_workers

    numbers = range(FIRST, FIRST + options.items)
    forms: dict[str, Sequence[int]] = {
        "list": list(numbers),
        "array": array("q", numbers),
        "range": numbers,
    }
    operators: list[Callable[[int, int], int]] = [operator.add, times]
    print(f"{len(numbers):,} items, {usable_cores()} cores, {n_workers} workers")
    with process_pool(n_workers) as pool:
        letters = [chr(0x4E00 + i) for i in range(1000)]
        if map_reduce(pool, operator.add, letters, 7) != "".join(letters):
            raise SystemExit("the chunks were combined in another order")
        print("1,000 strings in 7 chunks: joined in order")
        print()
        print("operator  items sent as     bytes moved         time")
        gains = []
        for combine in operators:
            jobs = {"not sent": functools.partial(functools.reduce, combine, numbers)}
            for form, items in forms.items():
                jobs[form] = functools.partial(
                    map_reduce, pool, combine, items, n_chunks
                )
            seconds, results = side_by_side(jobs)
            if len(set(results.values())) != 1:
                raise SystemExit(f"{combine.__name__}: the results differ")
            for form in jobs:
                moved = bytes_moved(split(forms.get(form, []), n_chunks)) / 1024
                gain = seconds["not sent"] / seconds[form]
                print(
                    f"{combine.__name__:8}  {form:15}{moved:10,.1f} KiB"
                    f"{1e3 * seconds[form]:9.1f} ms{gain:7.2f}x"
                )
            gains.append(f"{combine.__name__} {gain:.2f}x")
    print()
    print(f"the results agree; with nothing but ranges to send: {', '.join(gains)}")


if __name__ == "__main__":
    main()
