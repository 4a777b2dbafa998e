# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0", "numpy>=1.26.0"]
# ///
"""Machine code that lets go of the GIL runs on two cores at the same time.

LLVM compiles two functions from its assembly language. Nothing in them is Python's, so
they need no GIL, and `ctypes.CFUNCTYPE`, the type of a C function, lets go of it during
the call. PYFUNCTYPE keeps it. The machine code is the same.

`meet` proves it: two threads call it, and each waits in it, for so many looks at most,
until the other has come, too. Through CFUNCTYPE both meet. Through PYFUNCTYPE one has
to wait in vain, since the other does not get the GIL before it gives up.

`advance` steps a random number generator, x -> a x + c (Knuth's MMIX, modulo 2**64),
one step after the other. Calls in two threads take the time of one where there are two
cores, if they let go of the GIL. A formula that skips ahead checks the numbers.

The everyday way is a library that does all this for its users: numpy lets go of the GIL
in most operations on large arrays of numbers. Numba compiles Python functions, with
`nogil=True`; Cython has `with nogil:`.

Output:
    Python <version>, GIL <gil>, <cores> cores
    CFUNCTYPE: two threads are in the machine code at the same time
    PYFUNCTYPE: not where there is a GIL
                one by one   in threads            cores busy
    CFUNCTYPE      27.7 ms      14.8 ms    1.87x      1.94x
    PYFUNCTYPE     27.1 ms      29.0 ms    0.94x      1.01x
    numpy          26.3 ms      17.4 ms    1.51x      1.80x
    all numbers are those of the formula
"""

import ctypes
import os
import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt

try:
    import llvmlite.binding as llvm  # type: ignore[import-untyped]
except ModuleNotFoundError:  # there are no wheels for free-threaded 3.13
    print("needs llvmlite")
    raise SystemExit(77) from None

T = TypeVar("T")

MULTIPLIER, INCREMENT = 6364136223846793005, 1442695040888963407
STEPS = 10_000_000  # of the machine code, in one call: some 20 ms
LANES, LANE_STEPS = 200_000, 100  # of numpy: so many numbers, and steps of each
PATIENCE = 10_000_000  # looks of a thread for the other: some 10 ms
LIMIT = 10.0  # seconds until two threads must have met

CODE = f"""
define i64 @advance(i64 %first, i64 %steps) {{
entry:
  br label %loop
loop:
  %x = phi i64 [%first, %entry], [%next, %loop]
  %done = phi i64 [0, %entry], [%done.next, %loop]
  %product = mul i64 %x, {MULTIPLIER}
  %next = add i64 %product, {INCREMENT}
  %done.next = add i64 %done, 1
  %more = icmp ult i64 %done.next, %steps
  br i1 %more, label %loop, label %end
end:
  ret i64 %next
}}

define i1 @meet(ptr %mine, ptr %others, i64 %patience) {{
entry:
  store atomic i64 1, ptr %mine seq_cst, align 8
  br label %loop
loop:
  %looks = phi i64 [0, %entry], [%looks.next, %loop]
  %looks.next = add i64 %looks, 1
  %flag = load atomic i64, ptr %others seq_cst, align 8
  %there = icmp ne i64 %flag, 0
  %tired = icmp uge i64 %looks.next, %patience
  %leave = or i1 %there, %tired
  br i1 %leave, label %end, label %loop
end:
  ret i1 %there
}}
"""


def compile_code(code: str) -> llvm.ExecutionEngine:
    """Compile LLVM's assembly language; the machine code lives as long as the result.

    Raises:
        RuntimeError: `code` is not in order.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    module = llvm.parse_assembly(code)
    module.verify()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine


def skip(x: int, steps: int) -> int:
    """Return what x becomes in so many steps, in as many doublings as `steps` has bits.

    Two steps are again of the form a x + c.
    """
    a, c = MULTIPLIER, INCREMENT
    while steps:
        if steps & 1:
            x = (a * x + c) % 2**64
        a, c = a * a % 2**64, (a * c + c) % 2**64
        steps >>= 1
    return x


def advance_all(numbers: npt.NDArray[np.uint64], steps: int) -> npt.NDArray[np.uint64]:
    """Return what all of `numbers` become in so many steps."""
    x = numbers.copy()
    a, c = np.uint64(MULTIPLIER), np.uint64(INCREMENT)
    for _ in range(steps):
        np.multiply(x, a, out=x)
        np.add(x, c, out=x)
    return x


def first_of_many(x: int) -> int:
    """Advance LANES numbers, `x` and what follows; return the first of the results."""
    numbers = np.arange(x, x + LANES, dtype=np.uint64)
    return int(advance_all(numbers, LANE_STEPS)[0])


def advance_by(function: Callable[[int, int], int], x: int) -> int:
    """Return what `x` becomes in STEPS steps of `function`."""
    return function(x, STEPS)


def in_two_threads(call: Callable[[int], T]) -> list[T]:
    """Return `call(0)` and `call(1)`, each made in a thread of its own."""
    with ThreadPoolExecutor(max_workers=2) as pool:
        return list(pool.map(call, (0, 1)))


def meet(function: Callable[..., bool]) -> bool:
    """Tell whether two threads are in the C function `meet` at the same time.

    Each raises its flag and looks for the other's. If one has left before the other
    comes, it has looked in vain.
    """
    flags = ctypes.c_int64(), ctypes.c_int64()

    def call(me: int) -> bool:
        mine, others = flags[me], flags[1 - me]
        return function(ctypes.byref(mine), ctypes.byref(others), PATIENCE)

    return all(in_two_threads(call))


def meet_in_time(function: Callable[..., bool]) -> bool:
    """Try until two threads meet, for LIMIT seconds at most; tell whether they did."""
    deadline = time.monotonic() + LIMIT
    while not (met := meet(function)) and time.monotonic() < deadline:
        pass
    return met


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds for two calls, one by one and in threads, and processor time of these."""

    one_by_one: float
    in_threads: float
    processor: float


def both_ways(call: Callable[[int], T], rounds: int = 3) -> tuple[list[T], Timing]:
    """Return `call(0)` and `call(1)`, which are the same both ways, and the times.

    The times are those of the fastest of `rounds` runs each way, because other programs
    can only make a run slower.

    Raises:
        ValueError: the results are not the same.
    """
    one_by_one, in_threads = [], []
    for _ in range(rounds):
        began = time.perf_counter()
        expected = [call(0), call(1)]
        between, cpu_between = time.perf_counter(), time.process_time()
        results = in_two_threads(call)
        ended, cpu_ended = time.perf_counter(), time.process_time()
        if results != expected:
            raise ValueError(f"{results} in threads instead of {expected}")
        one_by_one.append(between - began)
        in_threads.append((ended - between, cpu_ended - cpu_between))
    return results, Timing(min(one_by_one), *min(in_threads))


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def main() -> None:
    cores = usable_cores()
    print(f"Python {platform.python_version()}, GIL {gil_state()}, {cores} cores")
    engine = compile_code(CODE)
    address_of = engine.get_function_address
    number, pointer = ctypes.c_uint64, ctypes.POINTER(ctypes.c_int64)
    calls: dict[str, Callable[[int], int]] = {}
    for factory in (ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE):
        name = factory.__name__
        meeting = factory(ctypes.c_bool, pointer, pointer, number)(address_of("meet"))
        keeps = factory is ctypes.PYFUNCTYPE and gil_state() == "on"
        if keeps and meet(meeting):
            raise SystemExit(f"{name}: two threads met, in spite of the GIL")
        if not keeps and not meet_in_time(meeting):
            raise SystemExit(f"{name}: two threads have not met within {LIMIT:g} s")
        advance = factory(number, number, number)(address_of("advance"))
        calls[name] = partial(advance_by, advance)
    print("CFUNCTYPE: two threads are in the machine code at the same time")
    print("PYFUNCTYPE: not where there is a GIL")
    calls["numpy"] = first_of_many

    print(f"{'':12}one by one   in threads            cores busy")
    for name, call in calls.items():
        results, timing = both_ways(call)
        steps = LANE_STEPS if name == "numpy" else STEPS
        if results != [skip(0, steps), skip(1, steps)]:
            raise SystemExit(f"{name}: {results} is not what the formula says")
        print(
            f"{name:12}{1000 * timing.one_by_one:7.1f} ms"
            f"{1000 * timing.in_threads:10.1f} ms"
            f"{timing.one_by_one / timing.in_threads:8.2f}x"
            f"{timing.processor / timing.in_threads:10.2f}x"
        )
    print("all numbers are those of the formula")


if __name__ == "__main__":
    main()
