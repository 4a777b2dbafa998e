"""The line that loses nothing loses all updates but one, once it calls a function.

Over a plain attribute, `counter.value += 1` calls nothing, and under a GIL no other
thread gets in between; without one it does (see example04 for both). But the line does
not tell whether it is as plain as that. `value` may be a property, today or after the
next change of its class. Its type may have an `__add__` written in Python, as
`Fraction` has. Then functions run between read and write, and a thread may be stopped
in any of them.

Here all threads meet there, at a barrier, so that all have read before any writes. In
the plain line there is no place for a barrier: a profile, which is told of each call of
a Python function, sees none. The mend is example02's, and does not ask what is called:
a lock around the whole line.

Try:  --threads 2

Output:
    20 threads                 functions called    updates lost
    counter.value += 1
      value is an attribute    none                no place for a barrier
      value is a property      value value         19
      its type has an __add__  __add__ __init__    19
    a call between the two     successor           19
    the text of a line does not tell whether it is atomic
"""

import argparse
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import FrameType
from typing import Any, Protocol

LIMIT = 10.0  # seconds that a thread waits for the others

Hook = Callable[[], object]


def nothing() -> None:
    """Do nothing, where a hook is to be called."""


class Counter(Protocol):
    """What `increment` needs."""

    value: Any


def increment(counter: Counter) -> None:
    """Add 1; broken: other threads may write between the read and the write."""
    counter.value += 1


def increment_by_call(counter: Counter, successor: Callable[[Any], Any]) -> None:
    """Add 1 by a function; broken for the same reason."""
    counter.value = successor(counter.value)


class PlainCounter:
    """A counter whose value is an attribute like any other."""

    def __init__(self, value: Any) -> None:
        self.value = value


class PropertyCounter:
    """A counter whose value is a property.

    Args:
        between: called when the value has been read.
    """

    def __init__(self, between: Hook) -> None:
        self._value = 0
        self._between = between

    @property
    def value(self) -> int:
        value = self._value
        self._between()
        return value

    @value.setter
    def value(self, value: int) -> None:
        self._value = value


class Number:
    """A number that Python code adds to.

    Args:
        between: called in each addition.
    """

    def __init__(self, number: int, between: Hook) -> None:
        self.number = number
        self._between = between

    def __add__(self, other: int) -> "Number":
        self._between()
        return Number(self.number + other, self._between)


def calls_during(job: Callable[[], object]) -> list[str]:
    """Return the names of the Python functions that `job` calls, in this thread."""
    names = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code is not nothing.__code__:
            names.append(frame.f_code.co_name)

    usual = sys.getprofile()
    sys.setprofile(note)
    try:
        job()
    finally:
        sys.setprofile(usual)
    return names[1:]  # without `job` itself


# How 1 is added to some counter, and how to get its number in the end.
Case = tuple[Callable[[], None], Callable[[], int]]


def with_property(between: Hook) -> Case:
    counter = PropertyCounter(between)
    return partial(increment, counter), lambda: counter._value


def with_number(between: Hook) -> Case:
    counter = PlainCounter(Number(0, between))
    return partial(increment, counter), lambda: counter.value.number


def with_call(between: Hook) -> Case:
    def successor(number: int) -> int:
        between()
        return number + 1

    counter = PlainCounter(0)
    return partial(increment_by_call, counter, successor), lambda: counter.value


def lost(make: Callable[[Hook], Case], n_threads: int) -> int:
    """Let all threads read before any writes; return how many updates are lost.

    Raises:
        threading.BrokenBarrierError: they did not come together within LIMIT seconds.
    """
    all_have_read = threading.Barrier(n_threads, timeout=LIMIT)
    add_one, result = make(all_have_read.wait)
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for future in [pool.submit(add_one) for _ in range(n_threads)]:
                future.result()
        finally:  # after Ctrl-C, some may wait for others that were never started
            all_have_read.abort()
    return n_threads - result()


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=20)
    n = parser.parse_args().threads

    print(f"{f'{n} threads':27}functions called    updates lost")
    if calls := calls_during(partial(increment, PlainCounter(0))):
        raise SystemExit(f"the plain line was to call nothing, not {calls}")
    print("counter.value += 1")
    print("  value is an attribute    none                no place for a barrier")
    cases: list[tuple[str, Callable[[Hook], Case], list[str]]] = [
        ("  value is a property", with_property, ["value", "value"]),
        ("  its type has an __add__", with_number, ["__add__", "__init__"]),
        ("a call between the two", with_call, ["successor"]),
    ]
    for name, make, expected in cases:
        calls = calls_during(make(nothing)[0])
        try:
            n_lost = lost(make, n)
        except threading.BrokenBarrierError:
            raise SystemExit(
                "the threads were to meet between read and write"
            ) from None
        print(f"{name:27}{' '.join(calls):20}{n_lost}")
        if calls != expected or n_lost != n - 1:
            raise SystemExit(f"{expected} were to let all updates be lost but one")
    print("the text of a line does not tell whether it is atomic")


if __name__ == "__main__":
    main()
