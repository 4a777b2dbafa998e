# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0"]
# ///
"""Readers of a record look again if it has changed meanwhile; the writer never waits.

A record of several words is written word by word, so who reads meanwhile gets some of
the old ones and some of the new ones: a torn read. A sequence number beside the record
tells. The writer makes it odd, writes, and makes it even. A reader takes what it has
read if the number was even before and is the same afterwards; otherwise it reads again.
Readers write nothing. So the writer never waits for them, and they do not take cache
lines away from each other. Linux keeps its clock in this way (seqcount_t).

The price is on the readers. While one writes all the time, a reader may find no whole
record for ever; and if a writer dies half-way, nobody ever does. Hence the time limit.
It suits what is read much more often than written, by one writer. Several writers take
a lock among themselves, as that of example10.

The words are read while they may be written, so they must be atomic, relaxed ones at
least. Nor may they be read after the second look at the number, which is what an
acquire fence is for, or written before the number is odd, which takes a release fence.
The machine code has these fences. `SharedRecord`, in Python, has none to use; acquire
loads and release stores of all words do the same.

H.-J. Boehm, "Can seqlocks get along with programming language memory models?", MSPC
2012.

Output:
    a reader stands half-way while 1000 records are written
      words alone   0 0 0 0 1000 1000 1000 1000: torn
      seqlock       1000 1000 1000 1000 1000 1000 1000 1000: looked at 2 times
    one writes on and on, and the other reads, in machine code
                    words alone     seqlock
      2 threads         0.8 % torn  none torn,    0.99 % read again,  120,387,248 /s
      2 processes       0.1 % torn  none torn,       1 % read again,  122,761,339 /s
    a writer is killed half-way: no whole record within 0.05 s
    a reader takes what has not changed meanwhile, and the writer never waits
"""

import ctypes
import operator
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from typing import Any, NamedTuple

from cores import need_two_cores, on_core
from native_atomics import AtomicInt64, NativeCode
from shared_block import attached, ctrl_c_later, process_pool, shared_block

WORDS = 8  # of a record
WRITES = 1000  # in the midst of a read
TIMES = 1000  # reads or writes in one call of machine code
PAUSE = 400  # looks at the stop sign between two writes: some 200 ns
READS = 100_000  # that must all be whole
REFUSED = 100  # reads that must have met a write
LIMIT = 10.0  # seconds for what is bound to come
SHORT_LIMIT = 0.05  # seconds for what cannot come

RECORD, STOP, SIZE = 0, 256, 512  # where they stand in shared memory, in bytes


class SharedRecord:
    """Some numbers in shared memory, which one party writes and any number reads.

    Args:
        address: of 1 + `n_words` numbers of 64 bits, a multiple of 8; first comes the
            sequence number. All zeros is a record of zeros. The caller keeps that
            memory alive.
        between: called in the midst of each read and of each write. It lets a caller
            decide who runs meanwhile.
    """

    def __init__(
        self,
        address: int,
        n_words: int,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self._sequence = AtomicInt64(address=address)  # odd while somebody writes
        self._words = [AtomicInt64(address=address + 8 * n + 8) for n in range(n_words)]
        self._between = between

    def write(self, values: Sequence[int]) -> None:
        """Replace the record, without waiting for anybody.

        An exception in the midst of it, as by Ctrl-C, leaves the record half written,
        and no reader takes it.

        Raises:
            ValueError: there are too many values, too few, or one has over 64 bits.
            TypeError: one is not an integer.
            RuntimeError: another one writes, or has ended half-way.
        """
        limit = 2**63
        values = [operator.index(value) for value in values]
        if len(values) != len(self._words) or not all(
            -limit <= value < limit for value in values
        ):
            raise ValueError(f"a record is {len(self._words)} numbers of 64 bits")
        even = self._sequence.load("relaxed")
        if even % 2 or self._sequence.compare_exchange(even, even + 1) != even:
            raise RuntimeError("another one writes, or has ended half-way")
        # Release: who reads one of these words sees the odd number afterwards.
        for n, (word, value) in enumerate(zip(self._words, values, strict=True)):
            if n == len(values) // 2:
                self._between()
            word.store(value, "release")
        self._sequence.store(even + 2, "release")

    def read(self, timeout: float) -> tuple[int, ...]:
        """Return the record as one write has left it.

        Raises:
            TimeoutError: each look met a write, for `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            before = self._sequence.load("acquire")
            if before % 2 == 0:
                values = self.read_broken()
                if self._sequence.load("relaxed") == before:
                    return values
            if not time.monotonic() < deadline:
                raise TimeoutError(f"no whole record within {timeout:g} s")
            time.sleep(0)  # the writer may need this processor, or the GIL

    def read_broken(self) -> tuple[int, ...]:
        """Return the words; broken: they may come from different writes."""
        values = []
        for n, word in enumerate(self._words):
            if n == len(self._words) // 2:
                self._between()
            # Acquire: the second look at the number comes after this.
            values.append(word.load("acquire"))
        return tuple(values)


# Writes records, all of whose words are the sequence number that they have then.
WRITE = """
define i64 @write(ptr %record, ptr %stop, i64 %times, i64 %pause) {{
entry:
  %first = load atomic i64, ptr %record monotonic, align 8
  br label %write
write:
  %done = phi i64 [1, %entry], [%done.next, %written]
  %even = phi i64 [%first, %entry], [%value, %written]
  %odd = add i64 %even, 1
  store atomic i64 %odd, ptr %record monotonic, align 8
  fence release
  %value = add i64 %even, 2
{stores}
  store atomic i64 %value, ptr %record release, align 8
  br label %wait
wait:
  %n = phi i64 [1, %write], [%n.next, %wait]
  %n.next = add i64 %n, 1
  %seen = load atomic i64, ptr %stop monotonic, align 8
  %go = icmp eq i64 %seen, 0
  %short = icmp ult i64 %n, %pause
  %wait.on = and i1 %go, %short
  br i1 %wait.on, label %wait, label %written
written:
  %done.next = add i64 %done, 1
  %left = icmp ult i64 %done, %times
  %more = and i1 %go, %left
  br i1 %more, label %write, label %end
end:
  ret i64 %done
}}
"""
# Reads so many times. Counts the reads that were refused, if they are checked, and the
# torn ones that were not.
READ = """
define void @read(
  ptr %record, i64 %times, i1 zeroext %checked, ptr %refused, ptr %torn
) {{
entry:
  br label %read
read:
  %done = phi i64 [1, %entry], [%done.next, %read]
  %n.refused = phi i64 [0, %entry], [%refused.next, %read]
  %n.torn = phi i64 [0, %entry], [%torn.next, %read]
  %before = load atomic i64, ptr %record acquire, align 8
{loads}
  fence acquire
  %after = load atomic i64, ptr %record monotonic, align 8
  %changed = icmp ne i64 %before, %after
  %odd = trunc i64 %before to i1
  %not.whole = or i1 %changed, %odd
  %is.refused = and i1 %not.whole, %checked
  %is.taken = xor i1 %is.refused, true
  %differ = icmp ne i64 %differ{last}, 0
  %is.torn = and i1 %differ, %is.taken
  %one.refused = zext i1 %is.refused to i64
  %one.torn = zext i1 %is.torn to i64
  %refused.next = add i64 %n.refused, %one.refused
  %torn.next = add i64 %n.torn, %one.torn
  %done.next = add i64 %done, 1
  %more = icmp ult i64 %done, %times
  br i1 %more, label %read, label %end
end:
  store i64 %refused.next, ptr %refused
  store i64 %torn.next, ptr %torn
  ret void
}}
"""


@cache
def machine_code() -> tuple[Any, Any]:
    """Return the functions that write records, and read them."""
    stores, loads = [], ["  %differ0 = add i64 0, 0"]
    for n in range(WORDS):
        place = f"getelementptr i64, ptr %record, i64 {n + 1}"
        stores += [
            f"  %word{n} = {place}",
            f"  store atomic i64 %value, ptr %word{n} monotonic, align 8",
        ]
        loads += [
            f"  %word{n} = {place}",
            f"  %value{n} = load atomic i64, ptr %word{n} monotonic, align 8",
        ]
    for n in range(1, WORDS):
        loads += [
            f"  %xor{n} = xor i64 %value0, %value{n}",
            f"  %differ{n} = or i64 %differ{n - 1}, %xor{n}",
        ]
    code = NativeCode(
        WRITE.format(stores="\n".join(stores))
        + READ.format(loads="\n".join(loads), last=WORDS - 1)
    )
    place_, count = ctypes.c_void_p, ctypes.c_int64
    return (
        code.function("write", count, place_, place_, count, count),
        code.function("read", None, place_, count, ctypes.c_bool, place_, place_),
    )


def write_on(block: str) -> None:
    """Write records until all are to stop.

    Raises:
        TimeoutError: nobody has said so within LIMIT seconds.
    """
    write, _ = machine_code()
    deadline = time.monotonic() + LIMIT
    with attached(block) as start, on_core(1):
        stop = AtomicInt64(address=start + STOP)
        while not stop.load():
            if time.monotonic() > deadline:
                raise TimeoutError("the writer was not told to stop")
            write(start + RECORD, stop.address, TIMES, PAUSE)


class Reading(NamedTuple):
    """Of reads beside a writer: shares of all, and how many were taken in a second."""

    torn: float
    refused: float
    rate: float


def read_beside(others: Executor, block: str, checked: bool) -> Reading:
    """Read while a thread or process of `others` writes.

    If checked, until READS were taken and REFUSED were not; otherwise until one that
    was taken is torn.

    Raises:
        TimeoutError: that did not come within LIMIT seconds.
    """
    _, read = machine_code()
    refused, torn = ctypes.c_int64(), ctypes.c_int64()
    counts = ctypes.addressof(refused), ctypes.addressof(torn)
    n_taken = n_refused = n_torn = 0
    with attached(block) as start:
        ctypes.memset(start, 0, SIZE)
        try:
            with ctrl_c_later():  # amid submit it could leave a lock locked
                writer = others.submit(write_on, block)
            with on_core(0):  # the writer's thread has begun, and is not to be here
                sequence = AtomicInt64(address=start + RECORD)
                deadline = time.monotonic() + LIMIT
                while not sequence.load() and time.monotonic() < deadline:
                    time.sleep(0)
                began = time.perf_counter()
                while (
                    (n_taken < READS or n_refused < REFUSED) if checked else n_torn == 0
                ):
                    if time.monotonic() > deadline:
                        raise TimeoutError("the reader has not met the writer")
                    read(start + RECORD, TIMES, checked, *counts)
                    n_taken += TIMES - refused.value
                    n_refused += refused.value
                    n_torn += torn.value
                seconds = time.perf_counter() - began
        finally:  # also after Ctrl-C, which cannot cut a call of C in two
            ctypes.memset(start + STOP, 1, 1)
        with ctrl_c_later():  # amid result, too
            writer.result(LIMIT)
    n_reads = n_taken + n_refused
    return Reading(n_torn / n_reads, n_refused / n_reads, n_taken / seconds)


def read_amid_writes(checked: bool) -> tuple[tuple[int, ...], int]:
    """Stop a reader half-way while another thread writes WRITES records.

    Returns:
        The record that is read; and how often it was looked at.

    Raises:
        TimeoutError: the writer has waited for the reader.
    """
    memory = (ctypes.c_int64 * (1 + WORDS))()
    address = ctypes.addressof(memory)
    looks = 0

    def write() -> None:
        record = SharedRecord(address, WORDS)
        for number in range(1, WRITES + 1):
            record.write([number] * WORDS)

    def half_way() -> None:
        nonlocal looks
        looks += 1
        if looks == 1:
            with ctrl_c_later():  # amid submit or result it could leave a lock locked
                another.submit(write).result(LIMIT)

    record = SharedRecord(address, WORDS, half_way)
    with ThreadPoolExecutor(1) as another:
        values = record.read(LIMIT) if checked else record.read_broken()
    return values, looks


def be_killed() -> None:
    """Kill this process."""
    os.kill(os.getpid(), signal.SIGTERM)


def be_killed_half_way(block: str) -> None:
    """Write half a record, and have this process killed."""
    with attached(block) as start:
        SharedRecord(start + RECORD, WORDS, be_killed).write([1] * WORDS)


def show_interleaving() -> None:
    """Let a reader stand between two words, and check what it gets."""
    print(f"a reader stands half-way while {WRITES} records are written")
    half, new = WORDS // 2, (WRITES,) * WORDS
    torn, looks = read_amid_writes(checked=False)
    print(f"  words alone   {' '.join(map(str, torn))}: torn")
    if (torn, looks) != ((0,) * half + new[half:], 1):
        raise SystemExit("half of the old record and half of the new were to be read")
    whole, looks = read_amid_writes(checked=True)
    print(f"  seqlock       {' '.join(map(str, whole))}: looked at {looks} times")
    if (whole, looks) != (new, 2):
        raise SystemExit("the reader was to look again, and to find the last record")


def show_reads(name: str, others: Executor, block: str) -> None:
    """Read beside a writer, and check that the seqlock alone refuses torn reads."""
    alone = read_beside(others, block, checked=False)
    checked = read_beside(others, block, checked=True)
    print(
        f"  {name:12}  {100 * alone.torn:7.2g} % torn  none torn, "
        f"{100 * checked.refused:7.2g} % read again, {checked.rate:12,.0f} /s"
    )
    if not alone.torn or checked.torn:
        raise SystemExit(f"{name}: the seqlock alone was to refuse torn reads")


def show_killed_writer(processes: Executor, block: str) -> None:
    """Kill a writer half-way, and check that readers give up."""
    with attached(block) as start:
        ctypes.memset(start, 0, SIZE)
        with ctrl_c_later():
            death = processes.submit(be_killed_half_way, block).exception(LIMIT)
        if not isinstance(death, BrokenProcessPool):
            raise SystemExit("the writer was to be killed")
        try:
            SharedRecord(start + RECORD, WORDS).read(SHORT_LIMIT)
        except TimeoutError as error:
            print(f"a writer is killed half-way: {error}")
        else:
            raise SystemExit("half a record was read")


def main() -> None:
    need_two_cores()
    machine_code()  # compiled before the pool, a forked process has it as well
    try:
        with (
            shared_block(SIZE) as block,
            process_pool(1) as processes,
            ThreadPoolExecutor(1) as threads,
        ):
            show_interleaving()
            print("one writes on and on, and the other reads, in machine code")
            print(f"{'':16}{'words alone':16}seqlock")
            show_reads("2 threads", threads, block)
            show_reads("2 processes", processes, block)
            show_killed_writer(processes, block)
    except (TimeoutError, BrokenProcessPool) as error:
        raise SystemExit(f"a wait did not end: {error}") from None
    print("a reader takes what has not changed meanwhile, and the writer never waits")


if __name__ == "__main__":
    main()
