"""`n += 1` is not atomic: a thread is stopped within the line, and an update is lost.

The line reads `n`, adds, and writes `n`, by several instructions, whatever this version
of Python calls them. A tracer stops the thread before each of them in turn, and another
thread does the same line meanwhile. If it comes before the read or after the write,
both count. Anywhere in between its update is lost, in every run. The line is as it
stands: it calls no function, and there is no property in it.

Does that happen by itself? With a GIL, no: since 3.10 CPython looks for a request to
give it up only where a loop jumps back, where a function begins, and after most calls,
and so not within this line (Chapter 14, example04). Before that it looked between most
instructions. And without a GIL there is nothing to give up: threads run at the same
time, and lose. The language promises nothing of the kind. Take a lock around the line
(Chapter 14, example02), a counter that has one call for it (`next` of itertools.count,
see example03), or an atomic number (example09).

Book: Chapter 17, example1.

Output:
    Python <version>, GIL <gil>
    the line              n += 1      n = n + 1   x.n += 1
    n is read by          LOAD_NAME   LOAD_NAME   LOAD_ATTR
    n is written by       STORE_NAME  STORE_NAME  STORE_ATTR
    another adds before   2           2           2
      in between          1           1           1
      after               2           2           2
    left to themselves, two threads lose 0.0 % of their updates
    not atomic: a GIL may keep others out of the line, the language does not
"""

import dis
import platform
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

from boundaries import Boundary, Names, compiled, interleave_at_every_boundary

LIMIT = 10.0  # seconds that a thread waits for the other to start
INCREMENTS = 100_000  # that each of two threads makes, left to themselves

Make = Callable[[int], Names]  # what is shared, given n


def read_and_write(line: str) -> tuple[str, str]:
    """Return the names of the instructions that read and write n in a line.

    Raises:
        ValueError: there are not just these two.
    """
    code = compile(line, "<line>", "exec")
    names = [one.opname for one in dis.get_instructions(code) if one.argval == "n"]
    match names:
        case [read, write] if read.startswith("LOAD_") and write.startswith("STORE_"):
            return read, write
    raise ValueError(f"{line}: {names} instead of a read and a write")


def ends(
    boundaries: list[Boundary], read: str, write: str, make: Make
) -> list[set[int]]:
    """Return what n was in the end, if the other came before, between and after."""
    instructions = [one.instruction for one in boundaries]
    first, last = instructions.index(read) + 1, instructions.index(write) + 1
    numbers = {repr(make(n)): n for n in range(3)}
    return [
        {numbers[one.outcome.state] for one in part}
        for part in (boundaries[:first], boundaries[first:last], boundaries[last:])
    ]


def lost_if_left_alone() -> int:
    """Let two threads increment a number many times; return how many are lost."""
    x = SimpleNamespace(n=0)
    together = threading.Barrier(2, timeout=LIMIT)

    def increment() -> None:
        together.wait()
        for _ in range(INCREMENTS):
            x.n += 1

    with ThreadPoolExecutor(2) as pool:
        try:
            for future in [pool.submit(increment) for _ in range(2)]:
                future.result()
        finally:  # after Ctrl-C, one may wait for the other that was never started
            together.abort()
    return 2 * INCREMENTS - int(x.n)


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def main() -> None:
    print(f"Python {platform.python_version()}, GIL {gil_state()}")
    lines: dict[str, Make] = {
        "n += 1": lambda n: {"n": n},
        "n = n + 1": lambda n: {"n": n},
        "x.n += 1": lambda n: {"x": SimpleNamespace(n=n)},
    }
    columns = []
    for line, make in lines.items():
        try:
            read, write = read_and_write(line)
            add = compiled(line)
            boundaries = interleave_at_every_boundary(add, add, partial(make, 0))
        except (ValueError, TimeoutError) as error:
            raise SystemExit(f"a read, a write, and nobody waits: {error}") from None
        found = ends(boundaries, read, write, make)
        if found != [{2}, {1}, {2}]:
            raise SystemExit(f"{line}: lost in between was to be one update: {found}")
        columns.append([line, read, write, *(str(n) for one in found for n in one)])
    rows = [
        "the line",
        "n is read by",
        "n is written by",
        "another adds before",
        "  in between",
        "  after",
    ]
    for row, cells in zip(rows, zip(*columns, strict=True), strict=True):
        print(f"{row:20}{''.join(f'  {cell:10}' for cell in cells)}".rstrip())

    try:
        n_lost = lost_if_left_alone()
    except threading.BrokenBarrierError:
        raise SystemExit("the threads were to start together") from None
    share = 100 * n_lost / (2 * INCREMENTS)
    print(f"left to themselves, two threads lose {share:.1f} % of their updates")
    if n_lost and gil_state() == "on":
        raise SystemExit("with a GIL, nothing was to be lost by itself")
    print("not atomic: a GIL may keep others out of the line, the language does not")


if __name__ == "__main__":
    main()
