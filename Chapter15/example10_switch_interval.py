"""The switch interval bounds how long Python code keeps the GIL, but not a call in C.

A thread that waits for the GIL asks for it when nobody has let go for the switch
interval. The holder looks for such a request at calls and at the end of each round of a
loop, and then lets another thread have it. So two threads that compute in Python take
turns, each of one interval at least. With an interval longer than their work nobody
ever asks: the one waits until the other is through. And no interval helps against a
call in C that keeps the GIL: from its beginning to its end nobody looks.

The interval is one for the whole process, so set it for a measurement, as
`switch_interval` does here, or once at the start of a program. In a free-threaded build
it has no effect.

Output:
    Python <version>, GIL <gil>
              two threads  longest wait for the GIL beside
    interval     switches  a loop in Python  one call in C
    60 s             0 /s           17.1 ms        18.1 ms
    5 ms            64 /s            5.2 ms        32.2 ms
    1 ms           546 /s            1.7 ms        31.3 ms
    0.1 ms        6052 /s            0.3 ms        32.7 ms
    the interval bounds how long Python code keeps the GIL, not a call in C
"""

import operator
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

ROUNDS = 60_000  # of each of two threads: some 30 ms of work
PAUSE = 0.0005  # seconds that the waiting thread sleeps at a time
LIMIT = 10.0  # seconds for what is bound to come

INTERVALS = {"60 s": 60.0, "5 ms": 0.005, "1 ms": 0.001, "0.1 ms": 0.0001}  # seconds


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Let threads wait so long for the GIL, during the block, before they ask for it.

    Raises:
        ValueError: `seconds` is not positive.
    """
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(seconds)
        yield
    finally:
        sys.setswitchinterval(before)


def two_compute(rounds: int) -> tuple[list[str], float]:
    """Let threads A and B compute; return who did each round, and the seconds taken."""
    log: list[str] = []
    both_are_there = threading.Barrier(2, timeout=LIMIT)

    def compute(name: str) -> None:
        both_are_there.wait()
        for _ in range(rounds):
            for _ in range(10):
                pass
            log.append(name)

    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            began = time.perf_counter()
            for future in [pool.submit(compute, name) for name in "AB"]:
                future.result()
            return log, time.perf_counter() - began
        finally:
            both_are_there.abort()


def switches(log: list[str]) -> int:
    """Count how often a thread went on with its work after the other had done some."""
    changes = sum(a != b for a, b in pairwise(log))
    return changes - 1  # that to the second thread when the first has ended


def loop() -> None:
    """Compute in Python for some 20 ms."""
    for _ in range(600_000):
        pass


def wait_beside(call: Callable[[], object]) -> tuple[float, int]:
    """Let a thread sleep again and again beside `call`.

    Returns:
        The seconds it waited for the GIL after a sleep, at most, and how often it
        awoke during the call: between two readings of which all is a single call of C
        code, so that no thread switch between bytecodes comes in.
    """
    waits: list[float] = []
    begun = threading.Event()
    end = threading.Lock()  # not an Event: Ctrl-C cannot strike in the midst of release
    end.acquire()

    def sleep_often() -> None:
        begun.set()
        ended = False
        while not ended:
            began = time.perf_counter()
            ended = end.acquire(timeout=PAUSE)
            waits.append(time.perf_counter() - began - PAUSE)

    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            pool.submit(sleep_often)
            if not begun.wait(LIMIT):
                raise TimeoutError("the thread has not begun")
            calls = (waits.__len__, call, waits.__len__)
            readings: list[Any] = list(map(operator.call, calls))
        finally:
            end.release()
    return max(waits), readings[-1] - readings[0]


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def demonstrate() -> None:
    """Check each claim, and print it."""
    print("          two threads  longest wait for the GIL beside")
    print("interval     switches  a loop in Python  one call in C")
    in_c = partial(sum, range(1_000_000))
    for name, interval in INTERVALS.items():
        with switch_interval(interval):
            log, taken = two_compute(ROUNDS)
            beside_loop, _ = wait_beside(loop)
            beside_c, awoke = wait_beside(in_c)
        print(
            f"{name:8}{switches(log) / taken:10.0f} /s{1000 * beside_loop:15.1f} ms"
            f"{1000 * beside_c:12.1f} ms"
        )
        if sorted(log) != ["A"] * ROUNDS + ["B"] * ROUNDS:
            raise SystemExit("each thread was to do all of its rounds")
        if gil_state() == "on":
            if interval == max(INTERVALS.values()) and switches(log):
                raise SystemExit("nobody was to ask for the GIL so soon")
            if awoke:
                raise SystemExit("a call in C was to keep the GIL")


def main() -> None:
    print(f"Python {platform.python_version()}, GIL {gil_state()}")
    try:
        demonstrate()
    except (threading.BrokenBarrierError, TimeoutError):
        raise SystemExit(f"a thread has not begun within {LIMIT:g} s") from None
    print("the interval bounds how long Python code keeps the GIL, not a call in C")


if __name__ == "__main__":
    main()
