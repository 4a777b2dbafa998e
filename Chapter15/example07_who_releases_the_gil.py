# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.26.0"]
# ///
"""Some calls let go of the GIL, some do when asked, and some keep it until they return.

How far does another thread get while this one is inside a call? It wants to make a
step some thousand times a second.

* Who waits lets go of the GIL: a sleep, a socket, a lock. So does C code that computes
  for long without touching objects: hashlib, zlib, numpy on large arrays of numbers.
* Python code, a key function too, lets go when another thread asks for the GIL. That
  asks when it has waited for the switch interval (`sys.setswitchinterval`, 5 ms if
  nobody sets it).
* C code that works on built-in objects keeps it until it returns, whoever asks: sum,
  sorted, pickle, re. (If it calls Python code, a generator or an `__eq__`, that lets
  go.) So does hashlib with less than 2,048 bytes: to let go and to take it again would
  cost more than the hash.

It is measured twice; 100 % is how far the other thread gets during a sleep. If the
switch interval is a minute it never asks, and only the call itself can let it on. If
the interval is 1 ms it asks soon. The steps are read before and after the call with no
bytecode in between, where the interpreter could switch threads; so 0 % means none, not
few. Without a GIL there is nothing to let go of, and the other thread always gets on.

For a program that runs, py-spy with `--gil` shows who holds the GIL.

Output:
    Python <version>, GIL <gil>
                        lets go     another thread gets on
    call                of the GIL  never asks  asks after 1 ms
    time.sleep          always         100 %          100 %
    a silent socket     always         103 %          100 %
    Lock.acquire        always         103 %          102 %
    sha256, 4 MiB       always          91 %          101 %
    zlib.compress       always          98 %          100 %
    numpy.sqrt          always          98 %          101 %
    a loop in Python    if asked         0 %           13 %
    sorted by a key     if asked         0 %            4 %
    sorted              never            0 %            0 %
    sum                 never            0 %            0 %
    pickle.dumps        never            0 %            0 %
    re, a slow pattern  never            0 %            0 %
    sha256, 2047 bytes  never            0 %            0 %
    with a GIL, a single call in C can keep all other threads out
"""

import hashlib
import operator
import pickle
import platform
import random
import re
import select
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

LIMIT = 10.0  # seconds of calls in which the other thread must have made a step
PAUSE = 0.0001  # seconds between its steps
WAIT = 0.004  # seconds for a call that does nothing but wait
NEVER, SOON = 60.0, 0.001  # seconds: switch intervals after which a thread asks
ROUNDS = 3  # of each call, at least

ALWAYS, IF_ASKED, KEEPS = "always", "if asked", "never"


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


@contextmanager
def another_thread() -> Iterator[list[None]]:
    """Run a thread that appends to the list again and again.

    It begins and ends with the block, and lets go of the GIL after each step, because
    it waits then. Begin it when the switch interval is set: who already waits for the
    GIL goes by the old one.
    """
    steps: list[None] = []
    end = threading.Lock()  # not an Event: Ctrl-C cannot strike in the midst of release
    end.acquire()

    def run() -> None:
        while not end.acquire(timeout=PAUSE):
            steps.append(None)

    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            pool.submit(run)
            yield steps
        finally:
            end.release()


def steps_during(call: Callable[[], object], times: int, steps: list[None]) -> int:
    """Call `times` times in a row; return how often another thread appended meanwhile.

    From the first reading of the length to the second, all is a single call of C code.
    A thread that holds the GIL looks for requests between bytecodes only, so that none
    is heard in between, unless `call` runs bytecode of its own. (A garbage collection
    does, if there are callbacks or finalizers written in Python.)
    """
    calls = [steps.__len__, *[call] * times, steps.__len__]
    results: list[Any] = list(map(operator.call, calls))
    return int(results[-1] - results[0])


@dataclass(frozen=True, slots=True)
class Work:
    """A call that lasts some milliseconds if it is made `times` times.

    Attributes:
        lets_go: of the GIL: ALWAYS, IF_ASKED or KEEPS.
    """

    name: str
    lets_go: str
    call: Callable[[], object]
    times: int = 1


def rate_during(work: Work, steps: list[None], until_seen: bool) -> float:
    """Return how many steps a second another thread makes during calls of `work`.

    Args:
        until_seen: go on until it has made one.

    Raises:
        TimeoutError: it has made none for LIMIT seconds.
    """
    made, taken, rounds = 0, 0.0, 0
    while rounds < ROUNDS or (until_seen and not made):
        if taken > LIMIT and not made:
            raise TimeoutError(f"{work.name}: no step of another thread in {LIMIT:g} s")
        began = time.perf_counter()
        made += steps_during(work.call, work.times, steps)
        taken += time.perf_counter() - began
        rounds += 1
    return made / taken


def loop() -> int:
    """Count a little, in Python."""
    n = 0
    for _ in range(100_000):
        n += 1
    return n


def works(silent: socket.socket) -> list[Work]:
    """Return calls of all kinds; nobody writes to the socket `silent`."""
    locked = threading.Lock()
    locked.acquire()
    data = random.Random(1).randbytes(1 << 22)
    numbers = list(data[:30_000])
    roots = np.ones(1_000_000)
    text, pattern = "1" * 1000, re.compile("1+0")  # tried from each place to the end
    return [
        Work("time.sleep", ALWAYS, partial(time.sleep, WAIT), 5),
        Work("a silent socket", ALWAYS, partial(select.select, [silent], [], [], WAIT)),
        Work("Lock.acquire", ALWAYS, partial(locked.acquire, timeout=WAIT)),
        Work("sha256, 4 MiB", ALWAYS, partial(hashlib.sha256, data)),
        Work("zlib.compress", ALWAYS, partial(zlib.compress, data[:100_000])),
        Work("numpy.sqrt", ALWAYS, partial(np.sqrt, roots, roots)),
        Work("a loop in Python", IF_ASKED, loop),
        Work("sorted by a key", IF_ASKED, partial(sorted, numbers, key=lambda n: -n)),
        Work("sorted", KEEPS, partial(sorted, numbers), 3),
        Work("sum", KEEPS, partial(sum, numbers), 20),
        Work("pickle.dumps", KEEPS, partial(pickle.dumps, numbers), 10),
        Work("re, a slow pattern", KEEPS, partial(pattern.search, text), 2),
        Work("sha256, 2047 bytes", KEEPS, partial(hashlib.sha256, data[:2047]), 1000),
    ]


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def measure(interval: float, all_works: Sequence[Work]) -> list[float]:
    """Return the other thread's rate during each work; during the first one it is 1.

    Raises:
        TimeoutError: it has made no step for LIMIT seconds where it should.
        ValueError: it has made one where it should not.
    """
    rates = []
    with switch_interval(interval), another_thread() as steps:
        for work in all_works:
            gets_on = work.lets_go == ALWAYS or gil_state() == "off"
            gets_on = gets_on or (work.lets_go == IF_ASKED and interval == SOON)
            rate = rate_during(work, steps, until_seen=gets_on)
            if rate and not gets_on:
                raise ValueError(f"{work.name}: another thread has made a step")
            rates.append(rate)
    return [rate / rates[0] for rate in rates]


def main() -> None:
    print(f"Python {platform.python_version()}, GIL {gil_state()}")
    print(f"{'':20}lets go     another thread gets on")
    print(f"{'call':20}of the GIL  never asks  asks after 1 ms")
    one_end, other_end = socket.socketpair()
    with one_end, other_end:
        all_works = works(one_end)
        try:
            columns = [measure(interval, all_works) for interval in (NEVER, SOON)]
        except (TimeoutError, ValueError) as error:
            raise SystemExit(str(error)) from None
    for work, unasked, asked in zip(all_works, *columns, strict=True):
        shares = f"{100 * unasked:6.0f} % {100 * asked:12.0f} %"
        print(f"{work.name:20}{work.lets_go:12}{shares}")
    print("with a GIL, a single call in C can keep all other threads out")


if __name__ == "__main__":
    main()
