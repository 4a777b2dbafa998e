# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0"]
# ///
"""Two cores count together: with load, add and store they lose, with fetch-add nothing.

To add 1 is a load, an addition and a store. Between two cores no GIL keeps these
together: both load the same number, both store the same successor, and an increment is
lost. `volatile`, in LLVM as in C, does not help. It keeps the compiler from making one
addition of the whole loop, and does not make one step of three.

Processors offer two remedies. Fetch-add is all three as one step. With compare-and-swap
the store is done only if the number is still the one that was loaded; otherwise the
addition is tried again, with what was found. It can do anything to a number, not only
add, and its retries tell how often the cores have come in each other's way.

Two threads run each loop as machine code, each pinned to a core of its own where the
system allows that. They begin at the same moment, or the first might be through before
the second comes. The time is that of one increment, whoever makes it. If two want the
number, its cache line goes to and fro between the cores, and two together usually take
longer for an increment than one alone: shared counters do not scale, even atomic ones.

Output:
    2 threads            lost  retries   of one alone    of both
    load, add, store   40.5 %                  0.6 ns     5.3 ns
    fetch-add            none                  2.5 ns    12.3 ns
    compare-and-swap     none   37.7 %         3.1 ns     7.2 ns
    Python and a lock    none                442.1 ns   464.0 ns
    an increment is one step if the processor makes it one
"""

import ctypes
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from cores import need_two_cores, on_core
from native_atomics import AtomicInt64, NativeCode

TIMES = 200_000  # increments of each thread in a round: less than 50 ms
PYTHON_TIMES = 5_000  # the same of a counter in Python
PATIENCE = 10_000_000  # looks of a thread for the other: some 10 ms
ROUNDS = 10  # at least; of the times, the shortest counts
LIMIT = 10.0  # seconds until what is bound to show must have shown
LINE = 128  # bytes: numbers so far apart do not share a cache line

# Wait until all threads are there, and then increment. Returns the retries, or -1 if
# not all have come.
LOOP = """
define i64 @NAME(ptr %number, ptr %gate, i64 %threads, i64 %times, i64 %patience) {
entry:
  %before = atomicrmw add ptr %gate, i64 1 seq_cst
  br label %wait
wait:
  %looks = phi i64 [0, %entry], [%looks.next, %wait]
  %looks.next = add i64 %looks, 1
  %there = load atomic i64, ptr %gate seq_cst, align 8
  %open = icmp uge i64 %there, %threads
  %tired = icmp uge i64 %looks.next, %patience
  %leave = or i1 %open, %tired
  br i1 %leave, label %left, label %wait
left:
  br i1 %open, label %increment, label %in.vain
in.vain:
  ret i64 -1
increment:
  %n = phi i64 [0, %left], [%n.next, %done]
  %retries = phi i64 [0, %left], [%tries, %done]
  BODY
done:
  %n.next = add i64 %n, 1
  %more = icmp ult i64 %n.next, %times
  br i1 %more, label %increment, label %end
end:
  ret i64 %tries
}
"""
BODIES = {
    "plain": """
  %tries = add i64 %retries, 0
  %old = load volatile i64, ptr %number, align 8
  %new = add i64 %old, 1
  store volatile i64 %new, ptr %number, align 8
  br label %done
""",
    "fetch_add": """
  %tries = add i64 %retries, 0
  %old = atomicrmw add ptr %number, i64 1 seq_cst
  br label %done
""",
    "compare_and_swap": """
  %seen = load atomic i64, ptr %number monotonic, align 8
  br label %try
try:
  %old = phi i64 [%seen, %increment], [%found, %again]
  %tries = phi i64 [%retries, %increment], [%tries.next, %again]
  %new = add i64 %old, 1
  %pair = cmpxchg ptr %number, i64 %old, i64 %new seq_cst monotonic
  %found = extractvalue { i64, i1 } %pair, 0
  %is.set = extractvalue { i64, i1 } %pair, 1
  br i1 %is.set, label %done, label %again
again:
  %tries.next = add i64 %tries, 1
  br label %try
""",
}

Loop = Callable[[int, int, int, int, int], int]


def compile_loops() -> dict[str, Loop]:
    """Return the loops, by name, as functions that let go of the GIL."""
    code = NativeCode(
        "".join(
            LOOP.replace("NAME", name).replace("BODY", body)
            for name, body in BODIES.items()
        )
    )
    types: list[Any] = [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 3
    return {name: code.function(name, ctypes.c_int64, *types) for name in BODIES}


def together(n_threads: int, work: Callable[[], int]) -> tuple[list[int], float]:
    """Do `work` in several threads; return what it returns in each, and the seconds."""
    all_are_there = threading.Barrier(n_threads, timeout=LIMIT)

    def timed(me: int) -> tuple[int, float, float]:
        with on_core(me):
            all_are_there.wait()
            began = time.perf_counter()
            return work(), began, time.perf_counter()

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            futures = [pool.submit(timed, me) for me in range(n_threads)]
            results, began, ended = zip(*[f.result() for f in futures], strict=True)
        finally:  # after Ctrl-C, one may wait for another that was never started
            all_are_there.abort()
    return list(results), max(ended) - min(began)


@dataclass
class Tally:
    """What has come of some rounds.

    Attributes:
        increments: that were made.
        seconds: the shortest round took for an increment.
    """

    increments: int = 0
    lost: int = 0
    retries: int = 0
    seconds: float = float("inf")


def count_in_machine_code(
    loop: Loop, n_threads: int, until: Callable[[Tally], int] = lambda tally: 1
) -> Tally:
    """Let threads count for ROUNDS rounds, and on until what `until` returns is not 0.

    Raises:
        TimeoutError: it has not come to that within LIMIT seconds.
        threading.BrokenBarrierError: a thread has not even begun in that time.
    """
    tally = Tally()
    rounds = 0
    end = time.monotonic() + LIMIT
    while rounds < ROUNDS or not until(tally):
        if time.monotonic() > end:
            raise TimeoutError
        memory = ctypes.create_string_buffer(3 * LINE)
        first_line = -(-ctypes.addressof(memory) // LINE) * LINE
        number, gate = (AtomicInt64(address=first_line + k) for k in (0, LINE))
        work = partial(loop, number.address, gate.address, n_threads, TIMES, PATIENCE)
        retries, seconds = together(n_threads, work)
        if -1 in retries:  # the other one did not get its core in time
            continue
        rounds += 1
        made = n_threads * TIMES
        tally.increments += made
        tally.lost += made - number.load()
        tally.retries += sum(retries)
        tally.seconds = min(tally.seconds, seconds / made)
    return tally


def count_in_python(n_threads: int) -> Tally:
    """Let threads count for ROUNDS rounds, with a lock around each increment."""
    tally = Tally()
    lock = threading.Lock()
    number = 0  # guarded by the lock

    def add() -> int:
        nonlocal number
        for _ in range(PYTHON_TIMES):
            with lock:
                number += 1
        return 0

    for _ in range(ROUNDS):
        _, seconds = together(n_threads, add)
        made = n_threads * PYTHON_TIMES
        tally.increments += made
        tally.seconds = min(tally.seconds, seconds / made)
    tally.lost = tally.increments - number
    return tally


def report(name: str, alone: Tally, both: Tally) -> None:
    """Print a line, and check that nobody loses anything alone."""
    lost = f"{100 * both.lost / both.increments:.1f} %" if both.lost else "none"
    retried = f"{100 * both.retries / both.increments:.1f} %" if both.retries else ""
    print(
        f"{name:18}{lost:>7}{retried:>9}"
        f"{1e9 * alone.seconds:12.1f} ns{1e9 * both.seconds:8.1f} ns"
    )
    if alone.lost or alone.retries:
        raise SystemExit(f"{name}: nobody was there to come in the way")


def demonstrate() -> None:
    """Check each claim, and print it."""
    loops = compile_loops()
    print(f"{'2 threads':21}lost  retries   of one alone    of both")
    plain = count_in_machine_code(loops["plain"], 2, lambda tally: tally.lost)
    report("load, add, store", count_in_machine_code(loops["plain"], 1), plain)
    added = count_in_machine_code(loops["fetch_add"], 2)
    report("fetch-add", count_in_machine_code(loops["fetch_add"], 1), added)
    swap = loops["compare_and_swap"]
    swapped = count_in_machine_code(swap, 2, lambda tally: tally.retries)
    report("compare-and-swap", count_in_machine_code(swap, 1), swapped)
    locked = count_in_python(2)
    report("Python and a lock", count_in_python(1), locked)
    if added.lost or swapped.lost or locked.lost:
        raise SystemExit("only load, add and store was to lose increments")


def main() -> None:
    need_two_cores()
    try:
        demonstrate()
    except (TimeoutError, threading.BrokenBarrierError):
        raise SystemExit(f"what was to show has not shown within {LIMIT:g} s") from None
    print("an increment is one step if the processor makes it one")


if __name__ == "__main__":
    main()
