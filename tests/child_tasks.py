"""What tests give to processes of their own.

A child that is not forked imports the module in which its task is. This one is imported
in no time, unlike the tests, which import pytest, Hypothesis, and all that they test.
"""

import os
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LONG = 30.0  # seconds: longer than anything should take

Matrix = tuple[int, int, int, int]


# -- with a result


def double(number: int) -> int:
    return 2 * number


def big(number: int) -> bytes:
    return bytes([number]) * (1 << 20)


def product(a: Matrix, b: Matrix) -> Matrix:
    """Return the product of two 2 x 2 matrices, given row by row."""
    p, q, r, s = a
    t, u, v, w = b
    return p * t + q * v, p * u + q * w, r * t + s * v, r * u + s * w


def after_a_while(a: int, b: int) -> int:
    """Add, later or earlier, so that answers come in any order."""
    time.sleep(0.002 * ((a * 7 + b) % 3))
    return a + b


class Looker:
    """Is asked by way of a manager."""

    def ignores_ctrl_c(self) -> bool:
        return signal.getsignal(signal.SIGINT) is signal.SIG_IGN


class LookerManager(BaseManager):
    make_looker: Callable[[], Looker]


LookerManager.register("make_looker", Looker)


# -- that raise


def fail() -> NoReturn:
    raise ValueError("on purpose")


def fail_if_odd(number: int) -> int:
    if number % 2:
        raise ValueError(f"odd: {number}")
    return number


def cannot_tell(number: int) -> bool:
    raise ArithmeticError(f"cannot tell for {number}")


def divide_or_wait(a: float, b: float) -> float:
    if b == 7:
        time.sleep(LONG)  # still at work when another one fails: nobody waits
    return a / b


def no_such_filter(picture: "NDArray[np.uint8]") -> NoReturn:
    raise ArithmeticError(f"no such filter for {picture.shape}")


# -- whose results or exceptions do not arrive


class LosingAnArgumentError(Exception):
    """Can be pickled, but not unpickled."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def raise_what_loses_an_argument(number: int) -> int:
    raise LosingAnArgumentError(number, number)


class UnpicklableError(Exception):
    def __reduce__(self) -> Any:
        raise TypeError("cannot be pickled")


def raise_unpicklable(a: object, b: object) -> None:
    raise UnpicklableError("reason")


def return_unpicklable(a: object, b: object) -> object:
    return lambda: None


def return_lock(_: int) -> object:
    return threading.Lock()


class Grenade:
    """Can be pickled, but raises when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return int, ("no number",)


def return_grenade(_: int) -> Grenade:
    return Grenade()


# -- that end or interrupt a process


def die(*_: object) -> Any:
    os._exit(3)


def kill(*_: object) -> Any:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def exit_with_3(*_: object) -> None:
    sys.exit(3)


def exit_at_two(number: int) -> int:
    if number == 2:
        sys.exit(7)  # no Exception: it ends the worker
    return number


def serve_half_an_answer(_: object, ours: Connection, __: object) -> None:
    os.write(ours.fileno(), struct.pack("!i", 1000) + b"half of it")
    kill()


@dataclass(frozen=True, slots=True)
class Deadly:
    """A witness that kills every worker that has read a certain file."""

    name: str

    def __call__(self, step: str, source: Path) -> None:
        if (step, source.name) == ("read", self.name):
            kill()


def interrupting(
    picture: "NDArray[np.uint8]", parent: int, heard: Path
) -> "NDArray[np.uint8]":
    """Send Ctrl-C to `parent`; return when `heard` is there."""
    if not heard.exists():
        os.kill(parent, signal.SIGINT)
    deadline = time.monotonic() + LONG
    while not heard.exists() and time.monotonic() < deadline:
        time.sleep(0.001)
    return picture
