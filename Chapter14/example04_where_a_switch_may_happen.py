"""`counter.value += 1` is a read and a write, and under a GIL still loses nothing.

It is a read, an addition and a write, and another thread could come in between. It does
not, on an interpreter with a GIL: since 3.10, CPython looks for requests to give up the
GIL only where a loop jumps back, where a function begins, and after most calls. None of
these is in the line, so the classic demonstration, 400,000 increments, loses nothing.
In older versions a switch was possible between most instructions. A call in the line,
however harmless, can be enough to lose again. (Not any call: for some, as of `len`, the
interpreter has a short cut, in which it does not look.) Nobody has promised anything.

Where the interpreter looks can be seen. It looks for signals at the same places, and
tells a signal's handler how far the program has come. Here a signal comes just before
the line begins, from C code that the iterator calls, and the handler notes the latest
instruction and the counter. (That is about switches between instructions. A single one
may be interrupted, too: if it runs Python code, as in example05, or if it waits.)

An interpreter without a GIL need not stop a thread to let others run. They run at the
same time, and the plain line loses as well. PEP 703 protects the read and the write,
each for itself, and not what lies between them.

Try:  --threads 2

Output:
    Python <version>, GIL <gil>
    counter.value += 1, in a loop
    ...
    a request before                            is heard at    the counter is
      counter.value += 1                        JUMP_BACKWARD  1
      counter.value = int(counter.value) + 1    CALL           0
      counter.value = successor(counter.value)  RESUME         0
    50000 times in each of 8 threads               lost
      counter.value += 1                          0.0 %
      counter.value = int(counter.value) + 1     85.6 %
      counter.value = successor(counter.value)   58.2 %
    only the GIL keeps the plain line whole; such a call in it lets others in
"""

import _thread
import argparse
import dis
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from types import CodeType, FrameType

LIMIT = 10.0  # seconds that a thread waits for the others to start
INCREMENTS = 400_000
SHORT = 1e-4  # seconds after which a thread asks for the GIL; usually 0.005


@dataclass
class Counter:
    """A counter; nothing guards `value`."""

    value: int = 0


Loop = Callable[[Counter, Iterable[object]], None]


def plainly(counter: Counter, steps: Iterable[object]) -> None:
    """Add 1 for each of `steps`."""
    for _ in steps:
        counter.value += 1


def with_a_builtin(counter: Counter, steps: Iterable[object]) -> None:
    """Add 1 for each of `steps`, with a call between read and write."""
    for _ in steps:
        counter.value = int(counter.value) + 1


def successor(number: int) -> int:
    return number + 1


def with_a_function(counter: Counter, steps: Iterable[object]) -> None:
    """Add 1 for each of `steps`, in a function between read and write."""
    for _ in steps:
        counter.value = successor(counter.value)


@dataclass(frozen=True, slots=True)
class Heard:
    """Where a request was heard.

    Attributes:
        code: the function.
        offset: its latest instruction, in bytes of bytecode.
        value: the counter's at this moment.
    """

    code: CodeType
    offset: int
    value: int

    @property
    def instruction(self) -> str:
        """The name of that instruction."""
        return [
            one.opname
            for one in dis.get_instructions(self.code)
            if one.offset <= self.offset
        ][-1]


def where_heard(loop: Loop) -> Heard:
    """Do one step of `loop`; return where a request is heard that comes before it.

    For the main thread only, as it is with signals. SIGTERM serves, since every system
    has it; its handler is restored.

    Raises:
        ValueError: this is another thread.
    """
    counter = Counter()
    heard = []

    def note(_: int, frame: FrameType | None) -> None:
        assert frame is not None
        heard.append(Heard(frame.f_code, frame.f_lasti, counter.value))

    previous = signal.signal(signal.SIGTERM, note)
    try:
        # To get its next item is to send the signal, with no instruction of Python.
        request = partial(_thread.interrupt_main, signal.SIGTERM)
        loop(counter, islice(iter(request, "never"), 1))
    finally:
        signal.signal(signal.SIGTERM, previous)
    return heard[0]


def lost(loop: Loop, n_threads: int, each: int) -> int:
    """Return how many increments are lost of `each` in each of several threads."""
    counter = Counter()
    together = threading.Barrier(n_threads, timeout=LIMIT)

    def work() -> None:
        together.wait()
        loop(counter, range(each))

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for future in [pool.submit(work) for _ in range(n_threads)]:
                future.result()
        finally:  # after Ctrl-C, some may wait for others that were never started
            together.abort()
    return each * n_threads - counter.value


def list_loop(heard: Heard) -> None:
    """Print the instructions of a loop's body, and where a request was heard."""
    body = False
    for one in dis.get_instructions(heard.code):
        notes = {"LOAD_ATTR": "read", "STORE_ATTR": "write"}
        note = notes.get(one.opname, "")
        if one.opname == heard.instruction:
            note = "here a request is heard"
        if body:
            print(f"  {one.opname:20}{one.argrepr:12}{note}".rstrip())
        body = (body or one.opname == "FOR_ITER") and one.opname != heard.instruction


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=8)
    n_threads = parser.parse_args().threads

    print(f"Python {platform.python_version()}, GIL {gil_state()}")
    print("counter.value += 1, in a loop")
    list_loop(where_heard(plainly))

    lines: list[tuple[str, Loop, str, int]] = [
        ("counter.value += 1", plainly, "JUMP_BACKWARD", 1),
        ("counter.value = int(counter.value) + 1", with_a_builtin, "CALL", 0),
        ("counter.value = successor(counter.value)", with_a_function, "RESUME", 0),
    ]
    print(f"{'a request before':44}is heard at    the counter is")
    for line, loop, instruction, value in lines:
        heard = where_heard(loop)
        print(f"  {line:42}{heard.instruction:15}{heard.value}")
        if (heard.instruction, heard.value) != (instruction, value):
            raise SystemExit(f"it was to be heard at {instruction}, not there")

    each = INCREMENTS // n_threads
    print(f"{f'{each} times in each of {n_threads} threads':47}lost")
    usual = sys.getswitchinterval()
    sys.setswitchinterval(SHORT)
    try:
        for line, loop, _, written in lines:
            n_lost = lost(loop, n_threads, each)
            print(f"  {line:42}{100 * n_lost / (each * n_threads):5.1f} %")
            if written and n_lost and gil_state() == "on":
                raise SystemExit(
                    "no switch was possible here, and yet something is lost"
                )
    finally:
        sys.setswitchinterval(usual)
    print("only the GIL keeps the plain line whole; such a call in it lets others in")


if __name__ == "__main__":
    main()
