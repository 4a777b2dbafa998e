"""A free-threaded build runs Python code on all cores, and shows who relied on the GIL.

Python 3.13 and later can be built without a GIL (PEP 703). Such a build is a program of
its own, `python3.14t`, with its own wheels; `uv python install 3.14t` gets one, and so
do the installers of python.org. There are two questions: can this build do without
(`sysconfig.get_config_var("Py_GIL_DISABLED")`), and does it, right now
(`sys._is_gil_enabled()`)? For `-X gil=1` or `PYTHON_GIL=1` turn the GIL on, and so does
the import of an extension module that does not say it is safe without: for all threads,
with a RuntimeWarning.

What is gained: threads that compute run in parallel. What it costs: each step of a
single thread takes longer (PEP 779 asks for 15 % at most; 3.13 needs more). What
stays safe: a list or a dict has a lock of its own for each operation, so none is lost.
What is not: `+=` reads, adds and writes. With a GIL, the interpreter does not let
another thread in between when plain integers are added, but it does when adding calls
Python code or waits. Such an addition is forced here, and it loses on each build; the
mend is a lock, on each build.

Output:
    Python <version>, GIL <gil>, <cores> cores
    ...
    threads keep up to 98 % of a core busy
    2 threads, 50000 times each  lost
      items.append(x)            none
      values[key] = x            none
      with lock: n += 1          none
      n += 1                     0.0 %
      n += 1, both read first    1 of 2
    one operation of a list or a dict is safe, += is not: take a lock
"""

import platform
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

from example02_countdown_in_threads import (
    PARALLEL,
    gil_state,
    in_threads,
    measure,
    usable_cores,
)

STEPS = 1_500_000  # of a countdown, some 0.1 s
TIMES = 50_000  # that each of two threads changes what they share
SHORT = 0.0001  # seconds after which a thread asks for the GIL meanwhile
LIMIT = 10.0  # seconds that a thread may wait for another, or a child may take

Meet = Callable[[], object]


def can_do_without_gil() -> bool:
    """Tell whether this is a free-threaded build, whether or not its GIL is off now."""
    return bool(sysconfig.get_config_var("Py_GIL_DISABLED"))


def gil_if_asked(option: str) -> str:
    """Start this Python with `-X gil=…`; return whether its GIL is "on" or "off" then.

    An interpreter that cannot do what it is asked is "refused".
    """
    code = "import sys; print(getattr(sys, '_is_gil_enabled', lambda: True)())"
    child = subprocess.run(
        [sys.executable, "-I", "-S", "-X", f"gil={option}", "-c", code],
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    if child.returncode != 0:
        return "refused"
    return "on" if child.stdout.strip() == "True" else "off"


def count_down_in_threads(n: int, n_threads: int) -> tuple[float, float]:
    """Count down `n` steps in equal parts; return wall time and CPU time in seconds.

    Raises:
        ValueError: another number of steps was counted.
    """
    timing = measure(lambda: in_threads(n, n_threads))
    if timing.steps != n:
        raise ValueError(f"counted {timing.steps} steps, not {n}")
    return timing.wall, timing.cpu


def in_two_threads(job: Callable[[int, Meet], None]) -> None:
    """Call `job` in two threads, with 0 and with 1, and with a way to meet the other.

    Raises:
        threading.BrokenBarrierError: one has waited LIMIT seconds for the other.
    """
    barrier = threading.Barrier(2, timeout=LIMIT)
    with ThreadPoolExecutor(max_workers=2) as threads:
        try:
            list(threads.map(job, range(2), [barrier.wait] * 2))
        finally:  # also after Ctrl-C, perhaps with one of them not there yet
            barrier.abort()


class Counter:
    """A number that threads share."""

    def __init__(self) -> None:
        self.n = 0  # guarded by nothing, unless a caller does it


def lost_appends() -> int:
    """Let two threads append to one list; return how many items are not there."""
    items: list[int] = []

    def append(k: int, meet: Meet) -> None:
        meet()
        for _ in range(TIMES):
            items.append(k)

    in_two_threads(append)
    return 2 * TIMES - len(items)


def lost_keys() -> int:
    """Let two threads set keys of one dict; return how many are not there."""
    values: dict[int, int] = {}

    def set_keys(k: int, meet: Meet) -> None:
        meet()
        for i in range(TIMES):
            values[2 * i + k] = i

    in_two_threads(set_keys)
    return 2 * TIMES - len(values)


def lost_additions(guard: AbstractContextManager[object]) -> int:
    """Let two threads add to one number, holding `guard`; return what is missing."""
    counter = Counter()

    def add(_: int, meet: Meet) -> None:
        meet()
        for _ in range(TIMES):
            with guard:
                counter.n += 1

    in_two_threads(add)
    return 2 * TIMES - counter.n


class SlowOne(int):
    """A 1 that takes its time to be added: it calls `meanwhile` before it is.

    Python asks a subclass of int how to add it, before it asks the int on the left.
    """

    meanwhile: Meet

    def __radd__(self, other: int) -> int:
        self.meanwhile()
        return other + int(self)


def lost_if_both_read_first() -> int:
    """Let each of two threads add 1, when both have read; return what is missing."""
    counter = Counter()

    def add(_: int, meet: Meet) -> None:
        one = SlowOne(1)
        one.meanwhile = meet
        counter.n += one  # the other has read the same n, and both write its successor

    in_two_threads(add)
    return 2 - counter.n


def report_build() -> None:
    """Check and print which build this is, and whether its GIL can be turned off."""
    asked = [gil_if_asked("0"), gil_if_asked("1")]
    if can_do_without_gil():
        expected = ["off", "on"]
        print("a free-threaded build: -X gil=1 turns the GIL on, -X gil=0 off")
    elif sys.version_info >= (3, 13):
        expected = ["refused", "on"]
        print("a build that needs its GIL: -X gil=0 is refused")
    else:  # no version complains of -X options that it does not know
        expected = ["on", "on"]
        print("a build that needs its GIL: -X gil=0 has no effect")
    if asked != expected:
        raise SystemExit(f"-X gil=0 and -X gil=1: {asked} instead of {expected}")
    if not can_do_without_gil():
        print("to get one that does not: uv python install 3.14t")


def report_countdowns() -> None:
    """Print how countdowns scale with threads; check that a GIL keeps one core busy."""
    print(f"threads  {STEPS:,} steps  speed-up  efficiency")
    most_busy = 0.0
    for n in (1, 2, 4, 8):
        if n > max(2, usable_cores()):
            break
        wall, cpu = count_down_in_threads(STEPS, n)
        if n == 1:
            alone = wall
        faster = alone / wall
        print(f"{n:7}  {wall:13.2f} s {faster:8.2f}x {100 * faster / n:9.0f} %")
        most_busy = max(most_busy, cpu / wall)
    print(f"one thread: {1e9 * alone / STEPS:.0f} ns a step")
    print(f"threads keep up to {100 * most_busy:.0f} % of a core busy")
    if most_busy > PARALLEL and gil_state() == "on":
        raise SystemExit("threads ran Python code in parallel, in spite of the GIL")


def report_losses() -> None:
    """Check and print what gets lost when two threads change the same object."""
    print(f"2 threads, {TIMES} times each  lost")
    for name, lost in (
        ("items.append(x)", lost_appends()),
        ("values[key] = x", lost_keys()),
        ("with lock: n += 1", lost_additions(threading.Lock())),
    ):
        if lost != 0:
            raise SystemExit(f"{name}: {lost} of {2 * TIMES} lost")
        print(f"  {name:27}none")
    lost = lost_additions(nullcontext())
    print(f"  {'n += 1':27}{100 * lost / (2 * TIMES):.1f} %")
    lost = lost_if_both_read_first()
    if lost != 1:
        raise SystemExit(f"{lost} additions lost, where both threads had read first")
    print(f"  {'n += 1, both read first':27}{lost} of 2")


def main() -> None:
    print(
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    usual = sys.getswitchinterval()
    try:
        report_build()
        report_countdowns()
        sys.setswitchinterval(SHORT)  # or each would be through in one turn
        report_losses()
    except (ValueError, threading.BrokenBarrierError, subprocess.TimeoutExpired) as e:
        raise SystemExit(f"this was to go well: {e!r}") from None
    finally:
        sys.setswitchinterval(usual)
    print("one operation of a list or a dict is safe, += is not: take a lock")


if __name__ == "__main__":
    main()
