# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""The chunk size decides whether a pool helps with small tasks, or is in the way.

A task travels to a worker and its result comes back. For a task of some microseconds
the journey costs more than the work: one by one, the tasks take longer in a pool than
without one. In chunks the cost is shared out. Too large a chunk, though, and not all
workers get one. Between the extremes throughput is flat: anything from a hundred
tasks up to a few chunks per worker will do.

Pool.map makes four chunks per worker unless told otherwise. Executor.map, imap and
imap_unordered send tasks one by one unless told otherwise, so tell them. What else the
two kinds of pool do differently is tried out below the table: a Pool forgets the task
of a worker that dies, so that its map() would wait for ever (get() takes a time-out),
and its block kills what still runs. Prefer ProcessPoolExecutor; take Pool for results
in the order of completion, in chunks (imap_unordered), or to go on after an exception.
Both renew their workers, if asked to, with `maxtasksperchild` and, not under fork,
`max_tasks_per_child`. joblib finds a chunk size by itself.

Try:  --plot throughput.png
Try:  --tasks 10000 --workers 4

Output:
    Python <version>, <cores> cores, 2 workers, 1,000 tasks
    chunk size       Pool.map     Executor.map
             1      25,675 /s         7,053 /s  default of Executor.map
             2      41,301 /s         9,501 /s
             5      61,328 /s        31,345 /s
            10      87,828 /s        67,019 /s
            20     107,369 /s        98,292 /s
            50     190,878 /s       127,070 /s
           100     207,579 /s       115,799 /s
           125     224,938 /s       114,906 /s  default of Pool.map
           200     246,573 /s       143,180 /s
           500     163,615 /s       176,074 /s
         1,000      98,978 /s        95,694 /s  all in one chunk
       no pool     174,176 /s

                       Pool                  ProcessPoolExecutor
    a task raises      imap goes on after    map ends there
    a worker dies      no result ever        BrokenProcessPool
    the block ends     tasks are killed      tasks are waited for
    in chunks, Executor.map does 25x as many tasks in the same time
"""

import argparse
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count, takewhile
from multiprocessing import resource_tracker
from multiprocessing.pool import Pool
from pathlib import Path

FIRST = 1000
ROUNDS = 2
MAX_WORKERS = 61  # of a process pool on Windows
LIMIT = 30.0  # seconds that a step of the demonstration may take
PATIENCE = 0.1  # seconds to wait for a result that never comes

POOL, EXECUTOR = "Pool.map", "Executor.map"
COLOURS = {POOL: "#1b4f8a", EXECUTOR: "#b5442e"}


def collatz_length(n: int) -> int:
    """Return after how many steps (n / 2 or 3 n + 1) `n` becomes 1: a small task."""
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def default_chunk_size(n_tasks: int, n_workers: int) -> int:
    """Return the chunk size of Pool.map: four chunks per worker, rounded up.

    (Read in CPython's multiprocessing/pool.py; the documentation does not say.)
    """
    return -(-n_tasks // (4 * n_workers))


def chunk_sizes(n_tasks: int, n_workers: int) -> list[int]:
    """Return 1, 2, 5, 10, 20, … up to all tasks, and the default of Pool.map."""
    series = (m * 10**k for k in count() for m in (1, 2, 5))
    some = takewhile(lambda size: size < n_tasks, series)
    return sorted({*some, default_chunk_size(n_tasks, n_workers), n_tasks})


def map_with(
    executor: Executor, function: Callable[[int], int], numbers: range, size: int
) -> list[int]:
    """Do with an executor what Pool.map does.

    In the midst of submit(), Ctrl-C may leave one of the executor's locks locked.
    """
    with ctrl_c_later():
        results = executor.map(function, numbers, chunksize=size)
    return list(results)


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


@contextmanager
def classic_pool(n_workers: int) -> Iterator[Pool]:
    """The same as a `multiprocessing.Pool`; what still runs at the end is killed."""
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        with ctrl_c_later():
            pool.terminate()
            pool.join()

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = multiprocessing.Pool(n_workers, signal.signal, ignore_ctrl_c)
            stack.callback(end)
        yield pool


def fastest(job: Callable[[], list[int]], expected: list[int]) -> float:
    """Return the seconds of the fastest of ROUNDS runs of `job`.

    Raises:
        ValueError: its result is not as expected.
    """
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        result = job()
        seconds.append(time.perf_counter() - began)
        if result != expected:
            raise ValueError("a pool has given another result")
    return min(seconds)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tasks per second: without a pool, and of each pool for each chunk size."""

    alone: float
    pools: dict[str, dict[int, float]]
    defaults: dict[str, int]  # the chunk size of each pool unless told otherwise

    def best(self, pool: str) -> int:
        """Return the chunk size with which `pool` is fastest."""
        rates = self.pools[pool]
        return max(rates, key=rates.__getitem__)


def measure(n_tasks: int, n_workers: int) -> Throughput:
    """Run the same tasks with each chunk size on each kind of pool.

    One pool after the other: each has threads, beside which one should not fork.
    """
    numbers = range(FIRST, FIRST + n_tasks)
    sizes = chunk_sizes(n_tasks, n_workers)
    expected = [collatz_length(number) for number in numbers]

    def rate(job: Callable[[], list[int]]) -> float:
        return n_tasks / fastest(job, expected)

    alone = rate(lambda: [collatz_length(number) for number in numbers])
    pools = {}
    with classic_pool(n_workers) as pool:
        pool.map(abs, range(n_workers), 1)  # all are at work
        pools[POOL] = {
            size: rate(partial(pool.map, collatz_length, numbers, size))
            for size in sizes
        }
    with process_pool(n_workers) as executor:
        pools[EXECUTOR] = {
            size: rate(partial(map_with, executor, collatz_length, numbers, size))
            for size in sizes
        }
    defaults = {POOL: default_chunk_size(n_tasks, n_workers), EXECUTOR: 1}
    return Throughput(alone, pools, defaults)


def reciprocal(n: int) -> float:
    return 1 / n


def all_of(results: Iterator[float]) -> list[float | str]:
    """Return what an iterator gives until it ends, and ZeroDivisionErrors by name."""
    got: list[float | str] = []
    while True:
        try:
            got.append(next(results))
        except ZeroDivisionError as error:
            got.append(type(error).__name__)
        except StopIteration:
            return got


def what_a_pool_does() -> tuple[list[float | str], str, bool]:
    """Return what a Pool does where an executor does something else.

    That is: its results around an exception; what comes of the task of a worker that
    dies; whether a task that runs at the end of the block is done after it.
    """
    after_death = "a result"
    with warnings.catch_warnings():
        # A Pool replaces the dead from a thread; to fork there is deprecated.
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        with classic_pool(2) as pool:
            around = all_of(pool.imap(reciprocal, [1, 0, 2]))
            died = pool.apply_async(os._exit, (1,))
            try:
                died.get(PATIENCE)
            except multiprocessing.TimeoutError as error:
                after_death = type(error).__name__
            running = pool.apply_async(time.sleep, (LIMIT,))
    return around, after_death, running.ready()


def what_an_executor_does() -> tuple[list[float | str], str, bool]:
    """Return the same of a ProcessPoolExecutor."""
    after_death = "a result"
    with process_pool(2) as executor:
        around = all_of(executor.map(reciprocal, [1, 0, 2]))
        running = executor.submit(time.sleep, PATIENCE)
    with process_pool(1) as executor:
        try:
            executor.submit(os._exit, 1).result(LIMIT)
        except BrokenProcessPool as error:
            after_death = type(error).__name__
    return around, after_death, running.done()


def plot(throughput: Throughput, file: Path) -> None:
    """Draw throughput against chunk size; mark the best sizes and the defaults."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(throughput.alone, ls="--", lw=2, color="#8a8a8a", label="no pool")
    for pool, rates in throughput.pools.items():
        colour = COLOURS[pool]
        axes.plot(list(rates), list(rates.values()), color=colour, lw=3, label=pool)
        size = throughput.defaults[pool]
        axes.plot(size, rates[size], "o", ms=11, mew=2.5, mfc="white", mec=colour)
        size = throughput.best(pool)
        axes.plot(size, rates[size], "*", ms=19, mec="white", mfc=colour)
    grey = "#444444"
    axes.plot([], [], "o", ms=11, mew=2.5, mfc="white", mec=grey, label="its default")
    axes.plot([], [], "*", ms=19, mec="white", mfc=grey, label="its best")
    axes.set_xscale("log")
    axes.set_xlabel("tasks in a chunk", fontsize=12)
    axes.set_yscale("log")
    axes.set_ylabel("tasks a second", fontsize=12)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_title("Small tasks pay in chunks, but not all in one", fontweight="bold")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=11, loc="lower right")
    figure.savefig(file, dpi=120)


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


def workers(text: str) -> int:
    number = positive(text)
    if number > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_WORKERS}, not {number}")
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
    parser.add_argument("--tasks", type=positive, default=1000)
    parser.add_argument("--workers", type=workers, default=2)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n_tasks = options.tasks
    print(
        f"Python {platform.python_version()}, {usable_cores()} cores, "
        f"{options.workers} workers, {n_tasks:,} tasks"
    )

    throughput = measure(n_tasks, options.workers)
    notes = {n_tasks: "all in one chunk"}
    for pool, size in throughput.defaults.items():
        notes[size] = f"default of {pool}"
    print(f"chunk size {POOL:>14} {EXECUTOR:>16}")
    for size, rate in throughput.pools[POOL].items():
        other = throughput.pools[EXECUTOR][size]
        row = f"{size:10,} {rate:11,.0f} /s {other:13,.0f} /s"
        print(f"{row}  {notes.get(size, '')}".rstrip())
    print(f"   no pool {throughput.alone:11,.0f} /s")
    if options.plot:
        plot(throughput, options.plot)

    did = what_a_pool_does()
    if did != ([1.0, "ZeroDivisionError", 0.5], "TimeoutError", False):
        raise SystemExit(f"not what a Pool was to do: {did}")
    did = what_an_executor_does()
    if did != ([1.0, "ZeroDivisionError"], "BrokenProcessPool", True):
        raise SystemExit(f"not what an executor was to do: {did}")
    print()
    print("                   Pool                  ProcessPoolExecutor")
    print("a task raises      imap goes on after    map ends there")
    print("a worker dies      no result ever        BrokenProcessPool")
    print("the block ends     tasks are killed      tasks are waited for")
    best = throughput.best(EXECUTOR)
    gain = throughput.pools[EXECUTOR][best] / throughput.pools[EXECUTOR][1]
    print(f"in chunks, Executor.map does {gain:.0f}x as many tasks in the same time")


if __name__ == "__main__":
    main()
