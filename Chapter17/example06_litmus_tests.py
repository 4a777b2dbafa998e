# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0"]
# ///
"""Litmus tests: two cores see what no interleaving of their instructions explains.

One thread stores 1 in x and reads y, the other stores 1 in y and reads x. In whichever
order these four come, a store is the first, so one of the threads must read 1. On real
hardware both read 0: a store waits in a buffer of its core, while the read behind it
goes ahead. This is store buffering. Message passing is what programs rely on: who finds
the flag y raised finds the data in x, too.

Each test is a line of text. From it come the machine code, which two threads run again
and again, always on new cells, and the outcomes that each model allows:

* SC, sequential consistency: what an interleaving explains, and nothing else.
* TSO, total store order, which is what x86-64 keeps to: each thread has a queue of
  stores on their way to memory, and finds its own ones there. A fence, or a store
  that is seq_cst, waits until the queue is empty.
* C++20, whose orderings LLVM has taken over: what holds on any processor. Here the
  verdict on the odd outcome, which no interleaving explains, is not computed but known.

On x86-64 all outcomes must be those of TSO, and what TSO adds to SC must be seen; the
trials go on until it has been, ten times. A test that must not show its odd outcome
gets no fewer trials than it took to see the others. Either thread must have been first,
at times.

Elsewhere all outcomes must be those of C++20, and only relaxed store buffering must be
seen. An ARM may show the odd outcome of relaxed message passing and load buffering. It
does not show that of store buffering with release and acquire, since `ldar`, which LLVM
takes here to acquire, waits for earlier releases.

Professionals run such tests with litmus7, and compute outcomes with herd7.

Sources: P. Sewell et al., "x86-TSO: a rigorous and usable programmer's model for x86
multiprocessors", CACM 53(7), 2010. J. Alglave, L. Maranget, M. Tautschnig, "Herding
cats", TOPLAS 36(2), 2014.

Output:
                            seen in   SC     TSO    C++20
    store buffering: x = 1; a = y | y = 1; b = x, then a = 0, b = 0
      relaxed             10.2900 %   never  may    may
      release/acquire      0.6899 %   never  may    may
      seq_cst              0.0000 %   never  never  never
      relaxed, fences      0.0000 %   never  never  never
    message passing: x = 1; y = 1 | a = y; b = x, then a = 1, b = 0
      relaxed              0.0000 %   never  never  may
      release/acquire      0.0000 %   never  never  never
    load buffering: a = y; x = 1 | b = x; y = 1, then a = 1, b = 1
      relaxed              0.0000 %   never  never  may
      release/acquire      0.0000 %   never  never  never
    read coherence: x = 1 | a = x; b = x, then a = 1, b = 0
      relaxed              0.0000 %   never  never  never
    all was seen that must be seen, and nothing that must not
"""

import ctypes
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import NamedTuple

from cores import need_two_cores, two_cores
from native_atomics import NativeCode

TRIALS = 10_000  # of each test, at least
ENOUGH = 10  # times that an outcome is to be seen, if it is one that must be
ROUND = 1000  # trials of a round
PATIENCE = 1_000_000  # looks of a thread for the other: about a millisecond
LIMIT = 10.0  # seconds that a test may take
LINE = 128  # bytes from one number to the next: each has a cache line of its own
IS_X86 = platform.machine().lower() in {"x86_64", "amd64"}

ORDERS = {  # of stores and of loads
    "relaxed": ("relaxed", "relaxed"),
    "release/acquire": ("release", "acquire"),
    "seq_cst": ("seq_cst", "seq_cst"),
    "relaxed, fences": ("relaxed", "relaxed"),  # one between each two instructions
}
TESTS = {
    "store buffering": ("x = 1; a = y | y = 1; b = x", list(ORDERS)),
    "message passing": ("x = 1; y = 1 | a = y; b = x", ["relaxed", "release/acquire"]),
    "load buffering": ("a = y; x = 1 | b = x; y = 1", ["relaxed", "release/acquire"]),
    "read coherence": ("x = 1 | a = x; b = x", ["relaxed"]),
}
ALLOWED_BY_CPP = {  # where C++20 allows what no interleaving explains
    ("store buffering", "relaxed"),
    ("store buffering", "release/acquire"),
    ("message passing", "relaxed"),
    ("load buffering", "relaxed"),
}


class Store(NamedTuple):
    """`cell = value`."""

    cell: str
    value: int
    order: str


class Load(NamedTuple):
    """`register = cell`."""

    cell: str
    register: str
    order: str


class Fence(NamedTuple):
    """A fence that is sequentially consistent."""


Instruction = Store | Load | Fence
Thread = tuple[Instruction, ...]
Outcome = tuple[int, ...]  # the registers at the end, in alphabetical order


def parse(text: str, ordering: str) -> list[Thread]:
    """Return the threads of a test such as `x = 1; fence; a = y | y = 1`."""
    of_stores, of_loads = ORDERS[ordering]
    if ordering == "relaxed, fences":
        text = text.replace(";", "; fence;")

    def instruction(text: str) -> Instruction:
        target, _, source = text.strip().partition(" = ")
        if target == "fence":
            return Fence()
        if source.isdecimal():
            return Store(target, int(source), of_stores)
        return Load(source, target, of_loads)

    return [tuple(map(instruction, one.split(";"))) for one in text.split("|")]


def registers_of(threads: Sequence[Thread]) -> list[str]:
    return sorted({i.register for one in threads for i in one if isinstance(i, Load)})


def cells_of(threads: Sequence[Thread]) -> list[str]:
    return sorted({i.cell for one in threads for i in one if not isinstance(i, Fence)})


class State(NamedTuple):
    """Of an abstract machine, in the midst of a test."""

    left: tuple[Thread, ...]  # what each thread has still to do
    buffers: tuple[tuple[Store, ...], ...]  # of each: stores on their way to memory
    values: frozenset[tuple[str, int]]  # of registers and memory, where they are not 0

    def then(
        self, me: int, left: Thread, buffer: tuple[Store, ...], **values: int
    ) -> "State":
        """Return the state after a step of thread `me`, which sets `values`."""
        return State(
            (*self.left[:me], left, *self.left[me + 1 :]),
            (*self.buffers[:me], buffer, *self.buffers[me + 1 :]),
            frozenset((dict(self.values) | values).items()),
        )


def steps(state: State, buffered: bool) -> Iterator[State]:
    """Yield each state that one step of a thread, or of its buffer, leads to."""
    for me, (left, buffer) in enumerate(zip(state.left, state.buffers, strict=True)):
        if buffer:  # the oldest store reaches memory
            yield state.then(me, left, buffer[1:], **{buffer[0].cell: buffer[0].value})
        match left[:1]:
            case [Store() as store] if buffered and store.order != "seq_cst":
                yield state.then(me, left[1:], (*buffer, store))
            case [Store() as store] if not buffer:
                yield state.then(me, left[1:], (), **{store.cell: store.value})
            case [Load() as load]:
                own = {store.cell: store.value for store in buffer}  # the newest wins
                value = (dict(state.values) | own).get(load.cell, 0)
                yield state.then(me, left[1:], buffer, **{load.register: value})
            case [Fence()] if not buffer:
                yield state.then(me, left[1:], ())


def outcomes(threads: Sequence[Thread], buffered: bool = False) -> set[Outcome]:
    """Return what can come of a test by SC, or by TSO if stores are `buffered`."""
    start = State(tuple(threads), ((),) * len(threads), frozenset())
    reached, to_do, ends = {start}, [start], set()
    while to_do:
        state = to_do.pop()
        following = set(steps(state, buffered))
        if not following:
            values = dict(state.values)
            ends.add(tuple(values.get(name, 0) for name in registers_of(threads)))
        to_do += following - reached
        reached |= following
    return ends


def machine_code(threads: Sequence[Thread], me: int) -> str:
    """Return thread `me` of two in LLVM's assembly language, for ROUND trials.

    Each time it waits for the other thread, runs its instructions on cells that nobody
    has used, and notes its registers. It returns how often, which is less than ROUND if
    it has waited in vain.

    The instructions are volatile, so that LLVM keeps their order. What changes places
    does so in the processor.
    """
    cells, registers = cells_of(threads), registers_of(threads)
    body, notes = [], []
    for n, instruction in enumerate(threads[me]):
        if isinstance(instruction, Fence):
            body.append("fence seq_cst")
            continue
        place = LINE * cells.index(instruction.cell)
        body.append(f"%cell{n} = getelementptr i8, ptr %cells, i64 {place}")
        if isinstance(instruction, Store):
            what = f"store atomic volatile i64 {instruction.value}, ptr %cell{n}"
        else:
            what = f"%value{n} = load atomic volatile i64, ptr %cell{n}"
            column = ROUND * registers.index(instruction.register)
            notes += [
                f"%row{n} = add i64 %done, {column}",
                f"%note{n} = getelementptr i64, ptr %notes, i64 %row{n}",
                f"store i64 %value{n}, ptr %note{n}",
            ]
        order = instruction.order.replace("relaxed", "monotonic")  # LLVM's name of it
        body.append(f"{what} {order}, align 8")
    instructions = "\n  ".join(body + notes)
    return f"""
define i64 @thread{me}(ptr %memory, ptr %notes) {{
entry:
  %mine = getelementptr i8, ptr %memory, i64 {LINE * me}
  %others = getelementptr i8, ptr %memory, i64 {LINE * (1 - me)}
  %first = getelementptr i8, ptr %memory, i64 {LINE * 2}
  br label %trial
trial:
  %done = phi i64 [0, %entry], [%next, %run]
  %next = add i64 %done, 1
  store atomic i64 %next, ptr %mine release, align 8
  br label %look
look:  ; until the other thread has come to this trial
  %looks = phi i64 [0, %trial], [%looks.next, %again]
  %others.next = load atomic i64, ptr %others acquire, align 8
  %both = icmp uge i64 %others.next, %next
  br i1 %both, label %run, label %again
again:
  %looks.next = add i64 %looks, 1
  %tired = icmp eq i64 %looks.next, {PATIENCE}
  br i1 %tired, label %end, label %look
run:
  %place = mul i64 %done, {LINE * len(cells)}
  %cells = getelementptr i8, ptr %first, i64 %place
  {instructions}
  %more = icmp ult i64 %next, {ROUND}
  br i1 %more, label %trial, label %end
end:
  %result = phi i64 [%done, %again], [%next, %run]
  ret i64 %result
}}
"""


class Litmus:
    """A test of two threads in machine code, and memory for the trials of a round."""

    def __init__(self, threads: Sequence[Thread]) -> None:
        code = NativeCode(machine_code(threads, 0) + machine_code(threads, 1))
        pointer = ctypes.c_void_p
        self._functions = [
            code.function(f"thread{me}", ctypes.c_int64, pointer, pointer)
            for me in (0, 1)
        ]
        # For each thread the number of the trial that it has come to; then the cells.
        self._size = LINE * (2 + ROUND * len(cells_of(threads)))
        self._memory = ctypes.create_string_buffer(self._size + LINE)
        # For each register its value at the end of each trial.
        self._notes = (ctypes.c_int64 * ROUND * len(registers_of(threads)))()

    def round(self, pool: ThreadPoolExecutor) -> Counter[Outcome]:
        """Run a round in two threads of `pool` and count the outcomes.

        There are fewer than ROUND, or none, if a thread has waited in vain.
        """
        # A reference, not an address: after Ctrl-C the threads keep their memory.
        line = ctypes.byref(self._memory, -ctypes.addressof(self._memory) % LINE)
        ctypes.memset(line, 0, self._size)
        futures = [pool.submit(one, line, self._notes) for one in self._functions]
        done = min(future.result() for future in futures)
        return Counter(zip(*(column[:done] for column in self._notes), strict=True))

    def run(
        self, pool: ThreadPoolExecutor, trials: int, expected: set[Outcome]
    ) -> Counter[Outcome]:
        """Run rounds for so many trials, and until all expected is seen ENOUGH times.

        After LIMIT seconds it gives up.
        """
        counts: Counter[Outcome] = Counter()
        deadline = time.monotonic() + LIMIT
        while counts.total() < trials or any(counts[one] < ENOUGH for one in expected):
            if time.monotonic() > deadline:
                break
            counts += self.round(pool)
        return counts


def main() -> None:
    need_two_cores()
    trials = TRIALS
    print(f"{'seen in':>31}   SC     TSO    C++20")
    with two_cores() as pool:
        for name, (text, orderings) in TESTS.items():
            for ordering in orderings:
                threads = one, other = parse(text, ordering)
                sc, tso = outcomes(threads), outcomes(threads, buffered=True)
                (odd,) = set(product((0, 1), repeat=2)) - sc
                in_cpp = (name, ordering) in ALLOWED_BY_CPP
                allowed = tso if IS_X86 else sc | ({odd} if in_cpp else set())
                expected = outcomes([one + other]) | outcomes([other + one])
                if IS_X86 or ordering == "relaxed":
                    expected |= tso - sc
                counts = Litmus(threads).run(pool, trials, expected)

                if ordering == orderings[0]:
                    print(f"{name}: {text}, then a = {odd[0]}, b = {odd[1]}")
                share = 100 * counts[odd] / (counts.total() or 1)
                verdicts = [odd in sc, odd in tso, in_cpp]
                columns = "".join(f"{'may' if may else 'never':7}" for may in verdicts)
                print(f"  {ordering:18}{share:9.4f} %   {columns}".rstrip())
                if counts.total() < TRIALS:
                    raise SystemExit(f"only {counts.total()} trials in {LIMIT:g} s")
                if missing := expected - counts.keys():
                    raise SystemExit(f"not seen in {LIMIT:g} s: {sorted(missing)}")
                if wrong := counts.keys() - allowed:
                    raise SystemExit(f"seen, and not allowed: {sorted(wrong)}")
                trials = max(trials, counts.total())
    print("all was seen that must be seen, and nothing that must not")


if __name__ == "__main__":
    main()
