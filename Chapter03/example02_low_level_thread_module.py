"""The module `_thread` starts threads and does nothing else for them.

`_thread.start_new_thread` is what `threading` was built on, and what Python 2 called
`thread`. It gives no object, only a number: no name, no `join()`, and
`threading.enumerate()` does not know the thread (not before it asks for
`current_thread()`, as `logging` does, and then as a dummy). To wait for it takes a
lock, which the thread releases when it is done; a lock, unlike an `RLock`, may be
released by another thread than the one that took it. An exception goes to
`sys.unraisablehook`, while the caller goes on as if all were well. And the interpreter
does not wait: when the main thread ends, the others are cut off, whatever they were
about to do.

So use `threading.Thread`, which has all of that. (Python 3.13 adds to `_thread` a
handle with a `join()`, on which `threading` is built since.)

Book: Chapter 3, example2.

Output:
    3 countdowns         complete, and waited for with one lock each
    while it runs        threading.enumerate() does not list it
    an exception         to sys.unraisablehook; the main thread goes on
    the program ends     status 0; cut off, its finally clause left out
    use threading.Thread, which is waited for, named, listed and reported
"""

import _thread
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial

LIMIT = 10.0  # seconds until a program must have ended

# A program that starts two threads. One fails, one is at work when the program ends.
PROGRAM = """
import _thread, sys

def fail():
    raise ValueError("nobody hears of this")

def report(unraisable):
    print(unraisable.exc_type.__name__, "came to sys.unraisablehook")
    reported.release()

def work():
    try:
        at_work.release()
        never_released.acquire()
    finally:
        print("cleaned up")

reported, at_work, never_released = [_thread.allocate_lock() for _ in range(3)]
for lock in (reported, at_work, never_released):
    lock.acquire()
sys.unraisablehook = report
_thread.start_new_thread(fail, ())
reported.acquire()
_thread.start_new_thread(work, ())
at_work.acquire()
print("main thread ends")
"""


def run_all(jobs: Sequence[Callable[[], object]]) -> None:
    """Call each of `jobs` in a new thread; return when all have ended.

    That a job raised, the caller does not learn.

    Raises:
        RuntimeError: the system gives no more threads. Those started have ended.
    """
    running = []
    try:
        for job in jobs:
            lock = _thread.allocate_lock()
            lock.acquire()  # released by the thread, when it is done
            _thread.start_new_thread(_run_and_release, (job, lock))
            running.append(lock)
    finally:
        for lock in running:
            lock.acquire()


def _run_and_release(job: Callable[[], object], lock: _thread.LockType) -> None:
    try:
        job()
    finally:  # or the caller would wait for ever
        lock.release()


def is_known_to_threading() -> bool:
    """Tell whether `threading.enumerate()` lists a thread that `_thread` started."""
    lock = _thread.allocate_lock()
    with lock:  # keeps the thread from ending meanwhile
        identifier = _thread.start_new_thread(lock.acquire, ())
        return identifier in {thread.ident for thread in threading.enumerate()}


def output_of(program: str) -> str:
    """Run `program` in an interpreter of its own and return what it prints.

    Raises:
        subprocess.SubprocessError: it fails, or takes longer than LIMIT.
    """
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=True,
    ).stdout


def count_down(first: int, counted: list[int]) -> None:
    for number in range(first, 0, -1):
        counted.append(number)


def main() -> None:
    countdowns: list[list[int]] = [[], [], []]
    run_all([partial(count_down, 3, counted) for counted in countdowns])
    if countdowns != [[3, 2, 1]] * 3:
        raise SystemExit(f"the countdowns are not complete: {countdowns}")
    print("3 countdowns         complete, and waited for with one lock each")

    if is_known_to_threading():
        raise SystemExit("threading.enumerate() lists the thread")
    print("while it runs        threading.enumerate() does not list it")

    printed = output_of(PROGRAM).splitlines()
    if printed != ["ValueError came to sys.unraisablehook", "main thread ends"]:
        raise SystemExit(f"the program has printed {printed}")
    print("an exception         to sys.unraisablehook; the main thread goes on")
    print("the program ends     status 0; cut off, its finally clause left out")
    print("use threading.Thread, which is waited for, named, listed and reported")


if __name__ == "__main__":
    main()
