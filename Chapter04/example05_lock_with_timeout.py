"""A lock that is waited for at most so long, as a context manager.

`acquire(timeout=…)` says by False that it did not get the lock, and False is easily
overlooked. Then the block runs unprotected, and its release at the end releases what
another thread holds. An RLock knows its owner and refuses; a Lock is noticed only when
the other thread wants to release it; a Semaphore lets one more in from now on. Nor does
`with lock.acquire(timeout=…)` help: it takes the lock, fails because a bool is no
context manager, and leaves the lock locked.

`with acquired(lock, timeout=…)` raises TimeoutError, which nobody overlooks. It serves
everything that has acquire and release.

Try:  --timeout 1

Output:
    held by another   acquired()    release in spite of False  holder's release
    Lock              TimeoutError  no complaint               RuntimeError
    RLock             TimeoutError  RuntimeError               no complaint
    Condition         TimeoutError  RuntimeError               no complaint
    Semaphore         TimeoutError  no complaint               no complaint
    BoundedSemaphore  TimeoutError  no complaint               ValueError
    with lock.acquire(timeout=...): TypeError, and the lock stays locked
"""

import argparse
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Protocol, TypeVar

T = TypeVar("T")

LONGEST = 10.0  # seconds that --timeout may ask for
NOTHING = "no complaint"


class Acquirable(Protocol):
    """What Lock, RLock, Semaphore and Condition have in common.

    (A Condition is its lock: two that share one are one.)
    """

    def acquire(self, *, timeout: float) -> bool: ...

    def release(self) -> None: ...


@contextmanager
def acquired(lock: Acquirable, timeout: float, name: str = "") -> Iterator[None]:
    """Hold `lock` during the block.

    Args:
        lock: anything with acquire and release.
        timeout: seconds to wait for it at most; 0 means not to wait.
        name: what the message of a TimeoutError calls the lock; its repr by default.

    Raises:
        ValueError: `timeout` is negative or not a number.
        TimeoutError: the lock was not free in time; the block is not run.
    """
    if not timeout >= 0:  # -1 would mean for ever to a Lock, and not to a Semaphore
        raise ValueError(f"the time-out cannot be {timeout:g} s")
    if not lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
        raise TimeoutError(f"{name or repr(lock)} not free within {timeout:g} s")
    try:
        yield
    finally:
        lock.release()


def call_ignoring_false(lock: Acquirable, job: Callable[[], T], timeout: float) -> T:
    """Call `job` while holding `lock`; broken: after a time-out it does not hold it."""
    lock.acquire(timeout=timeout)  # False, and nobody looks
    try:
        return job()
    finally:
        lock.release()


def call_with_result(lock: Acquirable, job: Callable[[], T], timeout: float) -> T:
    """Call `job` while holding `lock`; broken: it never gets that far."""
    with lock.acquire(timeout=timeout):  # type: ignore[attr-defined]
        return job()


def pass_through(lock: Acquirable, timeout: float, name: str) -> None:
    """Hold `lock` for a moment."""
    with acquired(lock, timeout, name):
        pass


def said(error: BaseException | None) -> str:
    return type(error).__name__ if error else NOTHING


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= LONGEST:
        raise argparse.ArgumentTypeError(
            f"must be more than 0 and at most {LONGEST:g}, not {number:g}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--timeout", type=seconds, default=0.05)
    timeout = parser.parse_args().timeout

    # What the release of who did not hold the lock raises, and the holder's after it.
    kinds: dict[str, tuple[Acquirable, str, str]] = {
        "Lock": (threading.Lock(), NOTHING, "RuntimeError"),
        "RLock": (threading.RLock(), "RuntimeError", NOTHING),
        "Condition": (threading.Condition(), "RuntimeError", NOTHING),
        "Semaphore": (threading.Semaphore(), NOTHING, NOTHING),
        "BoundedSemaphore": (threading.BoundedSemaphore(), NOTHING, "ValueError"),
    }
    print("held by another   acquired()    release in spite of False  holder's release")
    with ThreadPoolExecutor(1) as holder, ThreadPoolExecutor(1) as waiter:
        for name, (lock, *expected) in kinds.items():
            waiter.submit(pass_through, lock, timeout, name).result()
            holder.submit(lock.acquire, timeout=LONGEST).result()
            refused = waiter.submit(pass_through, lock, timeout, name).exception()
            ran: list[str] = []
            job = partial(ran.append, name)
            wrong = waiter.submit(call_ignoring_false, lock, job, timeout).exception()
            rightful = holder.submit(lock.release).exception()
            if not isinstance(refused, TimeoutError) or name not in str(refused):
                raise SystemExit(f"{name}: {refused!r} instead of a TimeoutError")
            if ran != [name] or [said(wrong), said(rightful)] != expected:
                raise SystemExit(f"{name}: ran {ran}, then {wrong!r} and {rightful!r}")
            print(f"{name:17} TimeoutError  {said(wrong):26} {said(rightful)}")

        lock = threading.Lock()
        error = waiter.submit(call_with_result, lock, lock.locked, timeout).exception()
    if not isinstance(error, TypeError) or not lock.locked():
        raise SystemExit(f"with lock.acquire(): {error!r}, locked: {lock.locked()}")
    print("with lock.acquire(timeout=...): TypeError, and the lock stays locked")


if __name__ == "__main__":
    main()
