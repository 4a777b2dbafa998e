"""A shared counter has a lock of its own, and `value += 1` loses updates all the same.

A Value lives in memory that processes share. Its lock makes each access whole: every
read, and every write. `counter.value += 1` is one of each, and another process may do
the same in between. Here a barrier stands between them, in every round: nobody writes
before all have read, so that of each round's additions only one remains. (What is to
be added is computed after the read, which is where the barrier sits.) The lock must be
held from the read to the write: `with counter.get_lock()`. It may be taken again by who
holds it, as `.value` does inside.

A RawValue has no lock; with a Lock beside it, it takes one lock where a Value takes
three. If all that is needed is the sum, let each process count in a variable of its
own, and add once. Locks are for what cannot be arranged like that.

Try:  --processes 2
Try:  --additions 2000

Output:
    4 processes add 1 to a counter, 200 times each
    Value, counter.value += 1     200 of 800: 600 updates lost
    Value, with get_lock()        800 of 800    0.47 µs for an addition
    RawValue and a Lock           800 of 800    0.27 µs for an addition
    each counts, and adds once    800 of 800    0.05 µs for an addition
    each access was locked, but not the way from the read to the write
"""

import argparse
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ctypes import c_longlong
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue, Synchronized
from multiprocessing.synchronize import Barrier, Lock
from typing import Any

LIMIT = 30.0  # seconds until all must have read
MAX_PROCESSES = 50
MEASURED = 10_000  # additions to time


def add_without_lock(
    counter: "Synchronized[int]", n: int, amount: Callable[[], int]
) -> None:
    """Add what `amount` returns to `counter`, `n` times; concurrent updates are lost.

    Python reads the counter before it calls `amount`, and writes it afterwards.
    """
    for _ in range(n):
        counter.value += amount()  # two accesses, each of them locked


def add_with_lock(counter: "Synchronized[int]", n: int) -> None:
    """Add 1 to `counter`, `n` times, while others may do the same."""
    for _ in range(n):
        with counter.get_lock():
            counter.value += 1


def add_to_raw(counter: c_longlong, lock: Lock, n: int) -> None:
    """Add 1 to `counter`, `n` times; all who use it have to take the same `lock`."""
    for _ in range(n):
        with lock:
            counter.value += 1


def add_once(counter: "Synchronized[int]", n: int) -> None:
    """Count to `n`, then add the result to `counter`."""
    own = 0
    for _ in range(n):
        own += 1
    with counter.get_lock():
        counter.value += own


class OneWhenAllHaveRead:
    """An amount of 1 that nobody gets before all parties of `barrier` ask for it."""

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier

    def __call__(self) -> int:
        self._barrier.wait(LIMIT)
        return 1


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
def running(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """Start `processes`, wait for them at the end of the block; kill those still there.

    Killed are those that have not ended when the block, or the waiting, raises.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    try:
        with ctrl_c_later():
            for process in processes:
                process.start()
        yield
        for process in processes:
            process.join()
    finally:
        with ctrl_c_later():
            for process in processes:
                if process.pid is not None:  # it has been started
                    process.kill()  # no effect on one that has ended
                    process.join()


def in_processes(n_processes: int, add: Callable[..., None], *args: Any) -> None:
    """Call `add(*args)` in each of `n_processes` processes; return when all are done.

    Raises:
        RuntimeError: it failed in one of them (which has printed a traceback).
    """
    processes = [
        multiprocessing.Process(target=add, args=args) for _ in range(n_processes)
    ]
    with running(processes):
        pass
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"{add.__name__} failed")


def microseconds(add: Callable[..., None], *args: Any) -> float:
    """Return the time of one of MEASURED additions, with nobody else at the counter."""
    began = time.perf_counter()
    add(*args, MEASURED)
    return 1e6 * (time.perf_counter() - began) / MEASURED


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def several(text: str) -> int:
    number = int(text)
    if not 2 <= number <= MAX_PROCESSES:
        raise argparse.ArgumentTypeError(
            f"must be in 2 … {MAX_PROCESSES}, not {number}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=several, default=4)
    parser.add_argument("--additions", type=positive, default=200)
    options = parser.parse_args()
    n_processes, n = options.processes, options.additions
    total = n_processes * n
    print(f"{n_processes} processes add 1 to a counter, {n:,} times each")

    with ctrl_c_later():
        counter = multiprocessing.Value("q", 0)
        barrier = multiprocessing.Barrier(n_processes)
    in_processes(n_processes, add_without_lock, counter, n, OneWhenAllHaveRead(barrier))
    print(
        f"Value, counter.value += 1  {counter.value:6,} of {total:,}: "
        f"{total - counter.value:,} updates lost"
    )
    if counter.value != n:
        raise SystemExit("all additions of a round but one were to be lost")

    raw, lock = RawValue(c_longlong, 0), multiprocessing.Lock()
    mends: list[tuple[str, Callable[..., None], list[Any]]] = [
        ("Value, with get_lock()", add_with_lock, [counter]),
        ("RawValue and a Lock", add_to_raw, [raw, lock]),
        ("each counts, and adds once", add_once, [counter]),
    ]
    for name, add, args in mends:
        shared = args[0]
        shared.value = 0
        in_processes(n_processes, add, *args, n)
        counted = shared.value
        each = microseconds(add, *args)
        print(f"{name:26} {counted:6,} of {total:,} {each:7.2f} µs for an addition")
        if counted != total:
            raise SystemExit(f"{total - counted:,} updates were lost")
    print("each access was locked, but not the way from the read to the write")


if __name__ == "__main__":
    main()
