"""A counter without a lock loses increments that have ended, and even runs backwards.

Whoever uses a data structure relies on its specification. That of a counter:

    get() returns at least the number of increments that had ended when it was called,
    at most the number of those that had begun when it returned, and never less than an
    earlier call did.

An increment that is a read, an addition and a write keeps it in one thread and breaks
it in two. If all threads read before any writes, all but one of the increments are
lost. And one thread that is late with its write undoes everything that the others have
counted since its read: get() returns less than it did before.

Neither needs more than an unlucky order of steps. With plain ints the standard
interpreter happens not to switch threads within `+= 1` (from 3.10 on), which nobody
promises; a free-threaded one need not switch, as all threads run at once. Here the
order is forced by the number itself: an int whose addition takes as long as one likes.
The counter knows nothing of that. Its mend is in example02.

Book: Chapter 16, example1.
Try:  --threads 2

Output:
    20 threads increment once each, and all read before any writes
        20 have ended    get() returns    1
    one thread is late: the rest comes between its read and its write
      1000 have ended    get() returns 1000
      1001 have ended    get() returns    1
    to keep its specification, an increment has to be one step
"""

import argparse
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds that a thread waits for the others
MEANWHILE = 1000  # increments between the read and the write of another one


class Counter:
    """A counter; broken if several threads use it.

    Args:
        start: what it begins with.
    """

    def __init__(self, start: int = 0) -> None:
        self._value = start  # guarded by nothing: that is the defect

    def increment(self) -> None:
        """Add 1: a read, an addition and a write, and others may come in between."""
        self._value += 1

    def get(self) -> int:
        """Return the value."""
        return self._value


class PausingInt(int):
    """An int, and so is its sum with another one, that pauses when it is added to.

    `value += 1` pauses after the read and before the write.

    Args:
        value: the int.
        pause: called before each addition. It lets a caller decide who runs meanwhile.
    """

    _pause: Callable[[], object]

    def __new__(cls, value: int, pause: Callable[[], object]) -> Self:
        self = super().__new__(cls, value)
        self._pause = pause
        return self

    def __add__(self, other: int) -> "PausingInt":
        self._pause()
        return PausingInt(int(self) + other, self._pause)


def run_together(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Do the jobs, each in a thread of its own; return what they return.

    None begins before all threads are there. Ctrl-C lets all of them begin or none, so
    that jobs which wait for each other do not wait in vain. (A barrier that is aborted
    while its threads leave it lets some of them pass.)

    Raises:
        TimeoutError: a thread was not there within LIMIT seconds.
        Exception: what a job raises.
    """
    arrived = threading.Semaphore(0)
    all_are_there = False  # written before the gate is opened, read after that
    gate = threading.Lock()  # who gets through opens it for the next one
    gate.acquire()

    def work(job: Callable[[], T]) -> T:
        arrived.release()
        with gate:
            pass
        if not all_are_there:
            raise RuntimeError("not all threads have started")
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        try:
            futures = [pool.submit(work, job) for job in jobs]
            for _ in jobs:
                if not arrived.acquire(timeout=LIMIT):
                    raise TimeoutError("a thread did not start")
            all_are_there = True
        finally:
            gate.release()  # one call in C, which Ctrl-C cannot interrupt
        return [future.result() for future in futures]


def read_together(n_threads: int) -> int:
    """Increment a counter in each thread, all read before any writes; return get()."""
    all_have_read = threading.Barrier(n_threads, timeout=LIMIT)
    counter = Counter(PausingInt(0, all_have_read.wait))
    run_together([counter.increment] * n_threads)
    return counter.get()


def write_late(times: int) -> tuple[int, int]:
    """Let a thread increment so often while this one is between read and write.

    Returns:
        What get() returns when those have ended, and after the write.
    """
    counter: Counter
    before = 0
    late = threading.current_thread()

    def count() -> None:
        for _ in range(times):
            counter.increment()

    def pause() -> None:
        nonlocal before
        if threading.current_thread() is late:
            run_together([count])
            before = counter.get()

    counter = Counter(PausingInt(0, pause))
    counter.increment()
    return before, counter.get()


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def report(ended: int, seen: int) -> None:
    print(f"  {ended:4} have ended    get() returns {seen:4}")


def demonstrate(n: int) -> None:
    """Check each claim with `n` threads, and print it."""
    print(f"{n} threads increment once each, and all read before any writes")
    seen = read_together(n)
    report(n, seen)
    if seen != 1:
        raise SystemExit("all threads were to read 0, and to write 1")
    print("one thread is late: the rest comes between its read and its write")
    before, after = write_late(MEANWHILE)
    report(MEANWHILE, before)
    report(MEANWHILE + 1, after)
    if (before, after) != (MEANWHILE, 1):
        raise SystemExit("the late write was to undo all increments but its own")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=20)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads)
    except (TimeoutError, threading.BrokenBarrierError) as error:
        raise SystemExit(f"the threads have not met: {error!r}") from None
    print("to keep its specification, an increment has to be one step")


if __name__ == "__main__":
    main()
