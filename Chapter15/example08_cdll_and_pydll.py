"""ctypes lets go of the GIL around each call through CDLL, and keeps it through PyDLL.

The same C function, a sleep of the system, is called through both. Through CDLL other
threads get on meanwhile; through PyDLL they make not a single step, although the
function needs nothing of Python. So CDLL is right for ordinary libraries.

It is wrong for functions of Python's own C API. They create objects, count references
and set exceptions, which only the thread may do that holds the GIL. PyGILState_Check
is one of the few that may be called without, and tells whether it was: 0 means that any
other function of the API might have crashed the interpreter, now or later. They are
called through PyDLL, of which `ctypes.pythonapi` is an instance; it also raises the
exception that a function has set. In a free-threaded build the same holds of being
attached to the interpreter, which is what PyGILState_Check asks about there. (In a
program that has had a subinterpreter it is 1 always.)

CFUNCTYPE and PYFUNCTYPE, the types of single C functions, differ in the same way.

For more than a few calls use Cython (`with nogil:`), cffi, which always lets go, or
nanobind; they check the types as well.

Output:
    Python <version>, GIL <gil>
    called through  another thread gets on  PyGILState_Check
    CDLL                      5846 /s                     0
    PyDLL                        0 /s                     1
    CFUNCTYPE                                             0
    PYFUNCTYPE                                            1
    through PyDLL the exceptions of the C API are raised: ValueError
    CDLL for ordinary libraries, PyDLL for the functions of Python itself
"""

import ctypes
import operator
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

LIMIT = 10.0  # seconds of calls in which the other thread must have made a step
PAUSE = 0.0001  # seconds between its steps
SLEEP = 5  # milliseconds
ROUNDS = 5  # of each call, at least


@contextmanager
def another_thread() -> Iterator[list[None]]:
    """Run a thread that appends to the list again and again.

    It begins and ends with the block. It lets go of the GIL after each step, because
    it waits then.
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


def steps_during(call: Callable[[], object], steps: list[None]) -> int:
    """Return how often another thread has appended during one call.

    The readings and the call are a single call of C code. No bytecode is run in
    between, where the interpreter could switch threads; `call` itself has to let go.
    """
    readings: list[Any] = list(map(operator.call, (steps.__len__, call, steps.__len__)))
    return int(readings[-1] - readings[0])


def steps_per_second(
    call: Callable[[], object], steps: list[None], until_seen: bool
) -> float:
    """Return how fast another thread appends during calls.

    Args:
        until_seen: go on until it has appended once.

    Raises:
        TimeoutError: it has not for LIMIT seconds.
    """
    made, taken, rounds = 0, 0.0, 0
    while rounds < ROUNDS or (until_seen and not made):
        if taken > LIMIT and not made:
            raise TimeoutError(f"no step of another thread in {LIMIT:g} s")
        began = time.perf_counter()
        made += steps_during(call, steps)
        taken += time.perf_counter() - began
        rounds += 1
    return made / taken


def sleep_of(kind: type[ctypes.CDLL]) -> Callable[[], object]:
    """Return a call of the system's own sleep, SLEEP ms, in a library of that kind."""
    if sys.platform == "win32":
        return partial(kind("kernel32").Sleep, SLEEP)
    return partial(kind(None).usleep, 1000 * SLEEP)


def python_api(kind: type[ctypes.CDLL]) -> ctypes.CDLL:
    """Return the C API of this interpreter as a library of that kind.

    Broken for all but PyGILState_Check if the kind is CDLL; see above.
    """
    return kind(ctypes.pythonapi._name, handle=ctypes.pythonapi._handle)


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def check(name: str, seen: object, expected: object) -> None:
    if seen != expected:
        raise SystemExit(f"{name}: {seen} instead of {expected}")


def main() -> None:
    print(f"Python {platform.python_version()}, GIL {gil_state()}")
    print("called through  another thread gets on  PyGILState_Check")
    with another_thread() as steps:
        for kind, keeps in ((ctypes.CDLL, 0), (ctypes.PyDLL, 1)):
            gets_on = not keeps or gil_state() == "off"
            try:
                rate = steps_per_second(sleep_of(kind), steps, until_seen=gets_on)
            except TimeoutError as error:
                raise SystemExit(f"{kind.__name__}: {error}") from None
            held = python_api(kind).PyGILState_Check()
            check(kind.__name__, (rate > 0, held), (gets_on, keeps))
            print(f"{kind.__name__:16}{rate:14.0f} /s{held:22}")
    for name, prototype, keeps in (
        ("CFUNCTYPE", ctypes.CFUNCTYPE(ctypes.c_int), 0),
        ("PYFUNCTYPE", ctypes.PYFUNCTYPE(ctypes.c_int), 1),
    ):
        held = prototype(("PyGILState_Check", ctypes.pythonapi))()
        check(name, held, keeps)
        print(f"{name:16}{held:39}")

    python_function = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)
    number_of = python_function(("PyNumber_Long", ctypes.pythonapi))
    check("PyNumber_Long of '15'", number_of("15"), 15)
    try:
        number_of("fifteen")
    except ValueError:
        print("through PyDLL the exceptions of the C API are raised: ValueError")
    else:
        raise SystemExit("PyNumber_Long was to raise an exception")
    print("CDLL for ordinary libraries, PyDLL for the functions of Python itself")


if __name__ == "__main__":
    main()
