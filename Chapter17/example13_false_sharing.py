# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0", "matplotlib>=3.8.0"]
# ///
"""Two threads count, each for itself, and slow each other down: false sharing.

Each thread has a counter that no other one touches. But memory moves between cores in
cache lines, and only one core at a time may write to a line. If both counters are in
one, each increment waits until the other core has given the line up, as if the counters
were shared. Some bytes in between, and they have nothing to do with each other.

The table puts the counters at growing distances from the beginning of a line. They get
fast where they come to be in different lines: at 64 bytes on most processors, at 128 on
Apple's. (Some fetch lines in pairs; therefore 128 is the usual distance.) Nothing else
changes, and the sums are right at each distance: it is no error, but for the time.

In pure Python this does not show. An increment takes many times as long, under a GIL
one thread runs at a time, and an object's reference count is next to it in any case. It
shows where machine code of several threads or processes writes to one array: numpy
without the GIL, Numba, Cython. There, give each one its own lines, or let it count in a
variable of its own and write once.

W. J. Bolosky and M. L. Scott, "False sharing and its effect on shared memory
performance", SEDMS IV, USENIX 1993.

Try:  --increments 10000000
Try:  --plot false_sharing.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    one thread, one counter    3.0 ns for an increment
    two threads, a counter each
        8 bytes apart         13.4 ns  4.39x
       16 bytes apart         14.2 ns  4.65x
       32 bytes apart         23.0 ns  7.55x
       64 bytes apart          3.2 ns  1.06x
      128 bytes apart          3.2 ns  1.04x
      256 bytes apart          3.1 ns  1.03x
    side by side 4.3x as slow as 256 bytes apart, and all counted
"""

import argparse
import ctypes
import os
import platform
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cores import need_two_cores, two_cores, usable_cores
from native_atomics import NativeCode

DISTANCES = (8, 16, 32, 64, 128, 256)  # bytes from one counter to the other
FARTHEST = DISTANCES[-1]
ALIGNMENT = 4096  # bytes: the memory begins where a line does, however long
ROUNDS = 5  # of which the fastest counts: other programs can only make one slower
PATIENCE = 10_000_000  # looks for the other thread: some 10 ms
LIMIT = 10.0  # seconds until two threads must have met
MOST = 20_000_000  # increments that may be asked for: 2 s in one call of machine code

# Waits for the other thread, up to a limit, and increments its counter so many times.
CODE = """
define zeroext i1 @count(ptr %mine, ptr %others, i64 %patience, ptr %counter, i64 %n) {
entry:
  store atomic i64 1, ptr %mine seq_cst, align 8
  br label %look
look:
  %looks = phi i64 [1, %entry], [%looks.next, %again]
  %flag = load atomic i64, ptr %others seq_cst, align 8
  %there = icmp ne i64 %flag, 0
  br i1 %there, label %loop, label %again
again:
  %looks.next = add i64 %looks, 1
  %tired = icmp uge i64 %looks, %patience
  br i1 %tired, label %vain, label %look
loop:
  %done = phi i64 [0, %look], [%done.next, %loop]
  atomicrmw add ptr %counter, i64 1 monotonic
  %done.next = add i64 %done, 1
  %more = icmp ult i64 %done.next, %n
  br i1 %more, label %loop, label %end
end:
  ret i1 true
vain:
  ret i1 false
}
"""


def compile_count() -> Any:
    """Return the machine code of `count`, which lets go of the GIL."""
    address, number = ctypes.c_void_p, ctypes.c_int64
    return NativeCode(CODE).function(
        "count", ctypes.c_bool, address, address, number, address, number
    )


class Memory:
    """Room for two flags and two counters, each flag in a page of its own."""

    def __init__(self) -> None:
        self._bytes = ctypes.create_string_buffer(4 * ALIGNMENT)
        first = -(-ctypes.addressof(self._bytes) // ALIGNMENT) * ALIGNMENT
        self.flags = first, first + ALIGNMENT
        self.counters = first + 2 * ALIGNMENT

    def clear(self) -> None:
        ctypes.memset(self.flags[0], 0, 3 * ALIGNMENT)

    def count_at(self, address: int) -> int:
        return ctypes.c_int64.from_address(address).value


def count_together(
    pool: ThreadPoolExecutor, count: Any, memory: Memory, distance: int, n: int
) -> float | None:
    """Increment two counters `n` times each, in two threads that begin together.

    Returns:
        The seconds it took, or None if a thread has waited in vain for the other.

    Raises:
        ValueError: a counter is not `n` afterwards.
    """
    memory.clear()
    places = memory.counters, memory.counters + distance

    def work(me: int) -> tuple[bool, float, float]:
        began = time.perf_counter()
        mine, others = memory.flags[me], memory.flags[1 - me]
        met = count(mine, others, PATIENCE, places[me], n)
        return met, began, time.perf_counter()

    both = list(pool.map(work, (0, 1)))
    if not all(met for met, _, _ in both):
        return None
    counted = [memory.count_at(place) for place in places]
    if counted != [n, n]:
        raise ValueError(f"{distance} bytes apart: {counted} instead of twice {n}")
    # They have met when the second one came.
    return max(ended for _, _, ended in both) - max(began for _, began, _ in both)


def count_alone(count: Any, memory: Memory, n: int) -> float:
    """Increment one counter in this thread; return the seconds it took."""
    memory.clear()
    began = time.perf_counter()
    mine = memory.flags[0]
    count(mine, mine, PATIENCE, memory.counters, n)  # it meets itself
    return time.perf_counter() - began


def measure(n: int) -> tuple[float, dict[int, float]]:
    """Return the seconds for `n` increments: of one thread alone, and by distance.

    Raises:
        TimeoutError: the threads did not meet.
    """
    count, memory = compile_count(), Memory()
    alone = min(count_alone(count, memory, n) for _ in range(ROUNDS))
    seconds: dict[int, list[float]] = {distance: [] for distance in DISTANCES}
    with two_cores() as pool:
        for _ in range(ROUNDS):
            for distance, taken in seconds.items():
                deadline = time.monotonic() + LIMIT
                while (one := count_together(pool, count, memory, distance, n)) is None:
                    if time.monotonic() > deadline:
                        raise TimeoutError
                taken.append(one)
    return alone, {distance: min(taken) for distance, taken in seconds.items()}


def plot(alone: float, together: Mapping[int, float], machine: str, file: Path) -> None:
    """Draw the time of an increment by the distance of the counters.

    Args:
        alone: nanoseconds that it takes a thread alone.
        together: nanoseconds that it takes each of two threads, by distance in bytes.
        machine: where that was.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{distance}" for distance in together]
    colours = ["#b5442e" if distance < 64 else "#1b4f8a" for distance in together]
    bars = axes.bar(names, list(together.values()), color=colours)
    axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=11)
    axes.axhline(alone, color="#7d8793", linestyle="--", label="one thread alone")
    axes.set_xlabel("bytes from the counter of one thread to the other's", fontsize=12)
    axes.set_ylabel("time for an increment [ns]", fontsize=12)
    axes.set_ylim(0, 1.2 * max(together.values()))
    ratio = together[DISTANCES[0]] / together[FARTHEST]
    axes.set_title(
        f"Counters of two threads, side by side: {ratio:.1f} times as slow\n"
        f"as {FARTHEST} bytes apart ({machine})",
        fontsize=13,
        fontweight="bold",
    )
    axes.legend(frameon=False, fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def increments(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be in 1 … {MOST}, not {number}")
    return number


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--increments", type=increments, default=500_000)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n = options.increments
    need_two_cores()

    machine = (
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(machine)
    try:
        seconds_alone, seconds = measure(n)
    except TimeoutError:
        raise SystemExit(f"two threads did not meet within {LIMIT:g} s") from None
    except ValueError as error:
        raise SystemExit(str(error)) from None
    alone = seconds_alone / n * 1e9
    together = {distance: 1e9 * one / n for distance, one in seconds.items()}
    print(f"one thread, one counter  {alone:5.1f} ns for an increment")
    print("two threads, a counter each")
    for distance, one in together.items():
        print(f"  {distance:3} bytes apart       {one:6.1f} ns  {one / alone:.2f}x")
    ratio = together[DISTANCES[0]] / together[FARTHEST]
    print(
        f"side by side {ratio:.1f}x as slow as {FARTHEST} bytes apart, and all counted"
    )
    if options.plot is not None:
        plot(alone, together, machine, options.plot)


if __name__ == "__main__":
    main()
