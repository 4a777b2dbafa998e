# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0"]
# ///
"""Python gets atomic numbers: loads, stores and exchanges in machine code.

Python has no atomic variables. LLVM has: the load, the store or the exchange of a
number carries its ordering, and LLVM emits what the processor needs for it, which is
nothing on one processor and a fence on the other (example07 lists it).

`NativeCode` compiles LLVM's assembly language while the program runs. The other scripts
of this chapter hand it whole loops. A function lets go of the GIL or keeps it. What
takes a few nanoseconds keeps it; what waits for another thread must let go of it, or
the other one never comes.

`AtomicInt64` is one number, in memory of its own or in shared memory, with operations
of C++'s `std::atomic` and their orderings, but for the deprecated "consume" (ISO C++20,
[atomics.types.operations], [atomics.types.int]). Added to, it wraps around like the
number of the processor that it is; an argument that does not fit in is refused. Here
each operation is tried with each of its orderings, and held against a model in plain
Python. That it is one step cannot be seen here, as each call keeps the GIL. It is seen
in example09, where machine code counts without.

A call from Python takes many times what the instruction takes (example09), and more
than a lock of Python's own. So these numbers make nothing faster: they are for flags
and indices that processes share, and for learning. For references, or for counters of
one process, take the package cereggii.

Output:
    operation         a call    orderings
    load                 680 ns relaxed acquire seq_cst
    store               1194 ns relaxed release seq_cst
    exchange            1659 ns relaxed acquire release acq_rel seq_cst
    fetch_add           1760 ns relaxed acquire release acq_rel seq_cst
    compare_exchange    2148 ns relaxed acquire release acq_rel seq_cst
    n += 1, a lock       499 ns
    store(9223372036854775808) is refused: OverflowError
    with each ordering, all operations do what the model in Python does
"""

import ctypes
import itertools
import threading
import timeit
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Literal

try:
    import llvmlite.binding as llvm  # type: ignore[import-untyped]
except ModuleNotFoundError:  # there are no wheels for free-threaded 3.13
    print("needs llvmlite")
    raise SystemExit(77) from None

Ordering = Literal["relaxed", "acquire", "release", "acq_rel", "seq_cst"]

# LLVM's name of each ordering (LLVM Language Reference, "Atomic Memory Ordering
# Constraints"), and the strongest ordering that a load may have which belongs to it.
LLVM_NAMES = {
    "relaxed": ("monotonic", "monotonic"),
    "acquire": ("acquire", "acquire"),
    "release": ("release", "monotonic"),
    "acq_rel": ("acq_rel", "acquire"),
    "seq_cst": ("seq_cst", "seq_cst"),
}

# By operation, how many arguments it takes, and its orderings.
OPERATIONS: dict[str, tuple[int, tuple[str, ...]]] = {
    "load": (0, ("relaxed", "acquire", "seq_cst")),
    "store": (1, ("relaxed", "release", "seq_cst")),
    "exchange": (1, tuple(LLVM_NAMES)),
    "fetch_add": (1, tuple(LLVM_NAMES)),
    "compare_exchange": (2, tuple(LLVM_NAMES)),
}

LEAST, MOST = -(2**63), 2**63 - 1

TIMES = 1_000  # calls in a row
ROUNDS = 20  # of which the fastest counts: other programs can only make one slower

CODE = {
    "load": """
define i64 @load_{ordering}(ptr %cell) {{
  %value = load atomic i64, ptr %cell {llvm}, align 8
  ret i64 %value
}}
""",
    "store": """
define void @store_{ordering}(ptr %cell, i64 %value) {{
  store atomic i64 %value, ptr %cell {llvm}, align 8
  ret void
}}
""",
    "exchange": """
define i64 @exchange_{ordering}(ptr %cell, i64 %value) {{
  %old = atomicrmw xchg ptr %cell, i64 %value {llvm}
  ret i64 %old
}}
""",
    "fetch_add": """
define i64 @fetch_add_{ordering}(ptr %cell, i64 %value) {{
  %old = atomicrmw add ptr %cell, i64 %value {llvm}
  ret i64 %old
}}
""",
    "compare_exchange": """
define i64 @compare_exchange_{ordering}(ptr %cell, i64 %expected, i64 %desired) {{
  %pair = cmpxchg ptr %cell, i64 %expected, i64 %desired {llvm} {llvm_of_load}
  %found = extractvalue {{ i64, i1 }} %pair, 0
  ret i64 %found
}}
""",
}


class NativeCode:
    """Functions compiled from LLVM's assembly language.

    Raises:
        RuntimeError: the text is not in order.
    """

    def __init__(self, text: str) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        module = llvm.parse_assembly(text)
        module.verify()
        machine = llvm.Target.from_default_triple().create_target_machine(opt=2)
        self._engine = llvm.create_mcjit_compiler(module, machine)
        self._engine.finalize_object()

    def function(
        self,
        name: str,
        result: type[Any] | None,
        *arguments: type[Any],
        keeps_gil: bool = False,
    ) -> Any:
        """Return the function `name`, given the C types of its result and arguments.

        It lets go of the GIL while it runs, unless `keeps_gil`.

        Raises:
            LookupError: there is no such function.
        """
        address = self._engine.get_function_address(name)
        if not address:
            raise LookupError(f"there is no function {name}")
        prototype = ctypes.PYFUNCTYPE if keeps_gil else ctypes.CFUNCTYPE
        function: Any = prototype(result, *arguments)(address)
        function.code = self  # or the machine code would go before the function does
        return function


@cache  # two threads may compile it at once, to no harm
def _compile_operations() -> dict[tuple[str, str], Any]:
    """Return the machine code of each operation with each of its orderings."""
    text = ""
    for operation, (_, orderings) in OPERATIONS.items():
        for ordering in orderings:
            llvm_name, of_load = LLVM_NAMES[ordering]
            text += CODE[operation].format(
                ordering=ordering, llvm=llvm_name, llvm_of_load=of_load
            )
    code = NativeCode(text)
    return {
        (operation, ordering): code.function(
            f"{operation}_{ordering}",
            None if operation == "store" else ctypes.c_int64,
            ctypes.c_void_p,
            *[ctypes.c_int64] * n_values,
            keeps_gil=True,
        )
        for operation, (n_values, orderings) in OPERATIONS.items()
        for ordering in orderings
    }


def _check(value: int) -> None:
    if not LEAST <= value <= MOST:  # ctypes would take another number for it
        raise OverflowError(f"{value} does not fit in 64 bits")


class AtomicInt64:
    """A signed number of 64 bits whose operations are atomic.

    Any number of threads may use it, and any number of processes if it stands in memory
    that they share. With the ordering "seq_cst" (sequentially consistent), the default,
    all threads see all these operations in one order.

    Args:
        value: what it starts with, if it has memory of its own.
        address: where it stands otherwise, a multiple of 8; what is there is its value.
            The caller keeps that memory alive.

    Raises:
        ValueError: `address` is not a multiple of 8, or there is a value as well; or,
            from an operation, it does not have this ordering.
        OverflowError: a number does not fit in 64 bits; also from an operation.
    """

    __slots__ = ("_memory", "_operations", "address")

    def __init__(self, value: int = 0, *, address: int | None = None) -> None:
        self._operations = _compile_operations()
        if address is None:
            _check(value)
            self._memory = ctypes.c_int64(value)
            address = ctypes.addressof(self._memory)
        elif value:
            raise ValueError("the value of memory that exists stands there already")
        if address % 8:
            raise ValueError(f"{address:#x} is not a multiple of 8")
        self.address = address

    def load(self, ordering: Ordering = "seq_cst") -> int:
        """Return the number. Not "release" nor "acq_rel", which belong to stores."""
        return self._call("load", ordering)

    def store(self, value: int, ordering: Ordering = "seq_cst") -> None:
        """Set the number. Not "acquire" nor "acq_rel", which belong to loads."""
        self._call("store", ordering, value)

    def exchange(self, value: int, ordering: Ordering = "seq_cst") -> int:
        """Set the number and return what it was."""
        return self._call("exchange", ordering, value)

    def fetch_add(self, value: int, ordering: Ordering = "seq_cst") -> int:
        """Add `value` and return what the number was."""
        return self._call("fetch_add", ordering, value)

    def compare_exchange(
        self, expected: int, desired: int, ordering: Ordering = "seq_cst"
    ) -> int:
        """Set the number to `desired` if it is `expected`, and return what it was.

        So it has been set if `expected` comes back.
        """
        return self._call("compare_exchange", ordering, expected, desired)

    def _call(self, operation: str, ordering: str, *values: int) -> int:
        function = self._operations.get((operation, ordering))
        if function is None:
            raise ValueError(f"{operation} has no ordering {ordering}")
        for value in values:
            _check(value)
        result: int = function(self.address, *values)  # None, if it is a store
        return result

    def __repr__(self) -> str:
        return f"AtomicInt64({self.load()})"


def model(operation: str, number: int, *values: int) -> tuple[int | None, int]:
    """Return what an operation on `number` returns, and what the number is then."""
    match operation, values:
        case "load", ():
            return number, number
        case "store", (value,):
            return None, value
        case "exchange", (value,):
            return number, value
        case "fetch_add", (value,):
            return number, (number + value - LEAST) % 2**64 + LEAST
        case "compare_exchange", (expected, desired):
            return number, desired if number == expected else number
    raise ValueError(f"there is no operation {operation} of {len(values)} values")


def disagreement(operation: str, ordering: str) -> str | None:
    """Return a call that differs from the model, None if there is none."""
    edges = (LEAST, -1, 0, 1, MOST)
    n_values, _ = OPERATIONS[operation]
    for number, *values in itertools.product(edges, repeat=1 + n_values):
        cell = AtomicInt64(number)
        returned = getattr(cell, operation)(*values, ordering)
        if (returned, cell.load()) != model(operation, number, *values):
            return f"{operation} of {values} to {number} with {ordering}"
    return None


def nanoseconds(call: Callable[[], object]) -> float:
    """Return how long a call takes, one after the other, at best."""
    return min(timeit.repeat(call, repeat=ROUNDS, number=TIMES)) / TIMES * 1e9


class Counter:
    """A counter with a lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.value = 0  # guarded by the lock

    def add_one(self) -> None:
        with self.lock:
            self.value += 1


def main() -> None:
    print(f"{'operation':18}{'a call':10}orderings")
    for operation, (n_values, orderings) in OPERATIONS.items():
        for ordering in orderings:
            if (call := disagreement(operation, ordering)) is not None:
                raise SystemExit(f"not what the model does: {call}")
        method = getattr(AtomicInt64(), operation)
        taken = nanoseconds(partial(method, *[1] * n_values))
        print(f"{operation:18}{taken:6.0f} ns {' '.join(orderings)}")
    print(f"n += 1, a lock    {nanoseconds(Counter().add_one):6.0f} ns")

    try:
        AtomicInt64().store(MOST + 1)
    except OverflowError:
        print(f"store({MOST + 1}) is refused: OverflowError")
    else:
        raise SystemExit("a number that does not fit in was to be refused")
    print("with each ordering, all operations do what the model in Python does")


if __name__ == "__main__":
    main()
