"""A thread that keeps what its function returned, or raised, until it is asked for.

`threading.Thread` throws away the return value of its target; an exception ends up on
stderr, and `join()` says nothing of it. A subclass can keep both: `run()`, which the
new thread calls, puts them on the object, and `result()`, which others call, joins the
thread and hands them on. That an exception is raised again where the result is asked
for, with the traceback of where it happened, is what `concurrent.futures` does, too.

Each thread here looks for the smallest factor of a number, which is prime if that is
the number itself. It is Python code that computes: with a GIL the threads take turns,
and all of them together are no faster than a loop.

Book: Chapter 3, example3.

Output:
    1,000,000,000,039  prime
      999,985,999,949  999,983 x 1,000,003
      999,999,000,001  prime
      600,851,475,143  71 x 8,462,696,833
                    1  ValueError, raised in smallest_factor, seen at result()

    in a loop          0.11 s
    in 4 threads       0.11 s
    GIL <gil>: 0.97x as fast in threads
"""

import math
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar

NUMBERS = [1_000_000_000_039, 1_000_003 * 999_983, 999_999_000_001, 600_851_475_143]

T = TypeVar("T")


class ResultThread(threading.Thread, Generic[T]):
    """A thread that calls `function` and keeps its result, or its exception.

    Who starts it must ask for the result, or an exception goes unnoticed.
    """

    def __init__(self, function: Callable[[], T], name: str | None = None) -> None:
        super().__init__(name=name)
        self._function = function
        # Written by the thread, read by others after they have joined it: no lock.
        self._result: T
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._result = self._function()
        except BaseException as error:  # also SystemExit: result() raises it again
            self._error = error

    def result(self, timeout: float | None = None) -> T:
        """Wait until the thread has ended, and return what the function returned.

        Args:
            timeout: seconds to wait at most; None for as long as it takes.

        Raises:
            TimeoutError: the thread has not ended in time. It goes on, and can be
                asked again.
            RuntimeError: the thread was not started, or asks for its own result.
            BaseException: whatever the function raised.
        """
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError(f"{self.name} is still at work after {timeout:g} s")
        if self._error is not None:
            try:
                raise self._error
            finally:
                del self  # the traceback holds this frame, which must not hold it
        return self._result


def smallest_factor(n: int) -> int:
    """Return the smallest factor of `n` above 1. It is `n` itself if `n` is prime.

    Raises:
        ValueError: `n` is less than 2.
    """
    if n < 2:
        raise ValueError(f"{n} has no prime factor")
    if n % 2 == 0:
        return 2
    return next((k for k in range(3, math.isqrt(n) + 1, 2) if n % k == 0), n)


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def main() -> None:
    began = time.perf_counter()
    expected = [smallest_factor(n) for n in NUMBERS]
    sequential = time.perf_counter() - began

    began = time.perf_counter()
    threads = [ResultThread(partial(smallest_factor, n)) for n in NUMBERS]
    for thread in threads:
        thread.start()
    factors = [thread.result() for thread in threads]
    concurrent = time.perf_counter() - began

    if factors != expected:
        raise SystemExit(f"the threads found {factors}, not {expected}")
    for n, factor in zip(NUMBERS, factors, strict=True):
        print(f"{n:17,}  {'prime' if factor == n else f'{factor:,} x {n // factor:,}'}")

    failing = ResultThread(partial(smallest_factor, 1))
    failing.start()
    try:
        failing.result()
    except ValueError as error:
        where = traceback.extract_tb(error.__traceback__)[-1].name
        print(f"{1:17,}  ValueError, raised in {where}, seen at result()")
    else:
        raise SystemExit("the exception of the thread was lost")

    print()
    print(f"in a loop       {sequential:7.2f} s")
    print(f"in {len(threads)} threads    {concurrent:7.2f} s")
    print(f"GIL {gil_state()}: {sequential / concurrent:.2f}x as fast in threads")


if __name__ == "__main__":
    main()
