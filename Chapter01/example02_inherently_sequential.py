"""A chain of steps, each made from the one before, gains nothing from more workers.

f(f(f(x))): the input of every step is the output of the step before. Here f is
SHA-256; ledgers and password hashes are such chains, built so that nobody can take a
short cut.

If the dependency is forgotten, the answer is wrong. Eight threads that read a shared
value, apply f and write the result back have made one step, not eight, if all of them
read before one has written; a barrier between read and write brings that about in
every run. If it is respected, the answer is right, but as each thread waits for its
predecessor, there is never more than one at work, and handing over costs more than
the work.

What concurrency can do is to work on several chains at once. That makes more steps in
a second; no single chain ends any sooner.

Book: Chapter 1, example2.
Try:  --threads 2
Try:  --steps 1000000

Output:
    8 steps in a loop    df75644f620a5adc
    8 threads at once    fa15fd975010c2bb  wrong: 1 step, not 8
    8 threads in turn    right, but at most 1 is at work

    a step in a loop     0.6 µs
    a step in turn      29.4 µs

    1 chain of 200,000 steps   0.12 s
    <cores> chains in processes      0.12 s
    more chains, 1.97x the steps in a second, none sooner
"""

import argparse
import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import (
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from typing import TypeVar

MAX_WORKERS = 61  # more has no process pool on Windows
FEW_STEPS = 1000  # enough to measure what handing over costs

T = TypeVar("T")


def step(value: bytes) -> bytes:
    """Return f(value): its SHA-256 digest."""
    return hashlib.sha256(value).digest()


def chain(seed: bytes, steps: int) -> bytes:
    """Return f(f(… f(seed))), with `steps` applications of f.

    Raises:
        ValueError: `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"the number of steps cannot be negative: {steps}")
    value = seed
    for _ in range(steps):
        value = step(value)
    return value


class SharedValue:
    """A value that threads replace by its successor: read, compute, write.

    Args:
        value: the first value.
        between: called after the read and before the write, so that a caller can decide
            which other threads run meanwhile.
    """

    def __init__(
        self, value: bytes, between: Callable[[], object] = lambda: None
    ) -> None:
        self.value = value  # guarded by nothing: that is the defect
        self._between = between

    def advance(self) -> None:
        """Make one step, if nobody else does at the same time."""
        seen = self.value
        self._between()
        self.value = step(seen)


def run_together(
    target: Callable[[], object], n_threads: int, barrier: threading.Barrier
) -> None:
    """Call `target`, which waits at `barrier`, in each of `n_threads` threads."""
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for future in as_completed([pool.submit(target) for _ in range(n_threads)]):
                future.result()
        except BaseException:  # of a target, or Ctrl-C before all of them have started
            barrier.abort()  # or those at the barrier would wait for the others
            raise


class Gauge:
    """Counts how many threads are inside `with gauge:`, and remembers the most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both counts
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


def chain_with_threads(seed: bytes, steps: int, n_threads: int, gauge: Gauge) -> bytes:
    """Return `chain(seed, steps)`, each step a task of its own for `n_threads` threads.

    `gauge` sees how many threads are at work at a time.

    A task waits for the future of its predecessor. That cannot deadlock, however few
    threads there are: tasks start in the order of submission, so the one that all the
    others wait for is never stuck behind them.

    Raises:
        ValueError: `steps` is negative.
    """
    if steps < 0:
        raise ValueError(f"the number of steps cannot be negative: {steps}")

    def successor_of(before: Future[bytes]) -> bytes:
        value = before.result()
        with gauge:
            return step(value)

    last: Future[bytes] = Future()
    last.set_result(seed)
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(steps):
            last = pool.submit(successor_of, last)
        return last.result()


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


def at_least_two(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=at_least_two, default=8)
    parser.add_argument("--steps", type=positive, default=200_000)
    options = parser.parse_args()
    n, steps, seed = options.threads, options.steps, b"mastering concurrency"

    cores = min(usable_cores(), MAX_WORKERS)

    all_have_read = threading.Barrier(n)
    shared = SharedValue(seed, between=all_have_read.wait)
    gauge = Gauge()
    with process_pool(cores) as pool:
        run_together(shared.advance, n, all_have_read)
        seconds, ends = side_by_side(
            {
                "one chain": lambda: [chain(seed, steps)],
                "some chains": lambda: list(
                    pool.map(chain, [seed] * cores, [steps] * cores)
                ),
                "few steps": lambda: [chain(seed, FEW_STEPS)],
                "in turn": lambda: [chain_with_threads(seed, FEW_STEPS, n, gauge)],
            }
        )
    right = chain(seed, n)
    made = next(k for k in range(n + 1) if chain(seed, k) == shared.value)
    if made != 1:
        raise SystemExit("the race did not show: all threads should have made one step")
    if ends["in turn"] != ends["few steps"] or gauge.most != 1:
        raise SystemExit("the steps were not made in their order")
    if ends["some chains"] != ends["one chain"] * cores:
        raise SystemExit("the chains differ")

    print(f"{n} steps in a loop    {right.hex()[:16]}")
    print(
        f"{n} threads at once    {shared.value.hex()[:16]}  wrong: {made} step, not {n}"
    )
    print(f"{n} threads in turn    right, but at most {gauge.most} is at work")
    print()
    print(f"a step in a loop   {1e6 * seconds['few steps'] / FEW_STEPS:5.1f} µs")
    print(f"a step in turn     {1e6 * seconds['in turn'] / FEW_STEPS:5.1f} µs")
    print()
    one, some = seconds["one chain"], seconds["some chains"]
    print(f"1 chain of {steps:,} steps  {one:5.2f} s")
    print(f"{cores} chains in processes     {some:5.2f} s")
    print(f"more chains, {cores * one / some:.2f}x the steps in a second, none sooner")


if __name__ == "__main__":
    main()
