"""An exception between acquire and release leaves a lock locked for ever.

Whoever comes next would wait in vain; here it waits with a time limit, and gives up. A
`with` statement releases on every way out of its block, and so does try with finally.

In the long form, acquire stands *before* try. Inside, a failed acquire would run the
finally part as well, and release a lock that this thread never had: a Lock does not
remember who took it, and the critical section of another thread is open to everybody.

Book: Chapter 4, example2.
Try:  --timeout 2

Output:
    acquire, job, release  ValueError    lock is left locked: waited 0.1 s in vain
    acquire, try, finally  ValueError    lock is left free
    with                   ValueError    lock is left free
    try, acquire, finally  TimeoutError  and the lock of another is released
    with and finally give the lock back; a release that is skipped does not
"""

import argparse
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

LONGEST = 10.0  # seconds that --timeout may ask for


def call_leaking(lock: threading.Lock, job: Callable[[], T]) -> T:
    """Call `job` while holding `lock`; broken: if it raises, the lock stays locked."""
    lock.acquire()
    result = job()  # an exception here skips the release
    lock.release()
    return result


def call_finally(lock: threading.Lock, job: Callable[[], T]) -> T:
    """Call `job` while holding `lock`, and release it whatever happens."""
    lock.acquire()  # if this fails, there is nothing to release
    try:
        return job()
    finally:
        lock.release()


def call_with(lock: threading.Lock, job: Callable[[], T]) -> T:
    """Call `job` while holding `lock`: the same in fewer lines."""
    with lock:
        return job()


def call_releasing_anothers(
    lock: threading.Lock, job: Callable[[], T], timeout: float
) -> T:
    """Call `job` while holding `lock`; broken: a time-out releases another's lock.

    Raises:
        TimeoutError: another thread still held the lock after `timeout` seconds.
    """
    try:
        if not lock.acquire(timeout=timeout):
            raise TimeoutError(f"lock not free within {timeout:g} s")
        return job()
    finally:
        lock.release()  # after the time-out, this is not ours


def is_free(lock: threading.Lock, timeout: float) -> bool:
    """Tell whether `lock` can be had within `timeout` seconds; leave it as it was."""
    if lock.acquire(timeout=timeout):
        lock.release()
        return True
    return False


def failing_job() -> None:
    raise ValueError("the job failed")


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= LONGEST:
        raise argparse.ArgumentTypeError(
            f"must be more than 0 and at most {LONGEST:g}, not {number:g}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--timeout", type=seconds, default=0.1)
    timeout = parser.parse_args().timeout

    ways: dict[str, tuple[Callable[[threading.Lock, Callable[[], None]], None], bool]]
    ways = {
        "acquire, job, release": (call_leaking, False),
        "acquire, try, finally": (call_finally, True),
        "with": (call_with, True),
    }
    with ThreadPoolExecutor(max_workers=1) as another_thread:
        for name, (call, expected) in ways.items():
            lock = threading.Lock()
            failure = another_thread.submit(call, lock, failing_job).exception()
            free = is_free(lock, timeout)
            if not isinstance(failure, ValueError) or free is not expected:
                raise SystemExit(f"{name}: {failure!r}, then the lock free: {free}")
            left = "free" if free else f"locked: waited {timeout:g} s in vain"
            print(f"{name:21}  {type(failure).__name__:12}  lock is left {left}")

        lock = threading.Lock()
        lock.acquire()  # this thread is in its critical section, and never leaves it
        failure = another_thread.submit(
            call_releasing_anothers, lock, failing_job, timeout
        ).exception()
    if not isinstance(failure, TimeoutError) or lock.locked():
        raise SystemExit(f"the lock of another was not released: {failure!r}")
    name = "try, acquire, finally"
    print(f"{name}  {type(failure).__name__:12}  and the lock of another is released")
    print("with and finally give the lock back; a release that is skipped does not")


if __name__ == "__main__":
    main()
