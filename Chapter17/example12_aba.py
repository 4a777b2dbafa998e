# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0"]
# ///
"""ABA: the top is what it was, and yet all has changed. A tag beside it tells.

An array in shared memory has slots, and those that are free form a stack. Nothing is
allocated: beside each slot stands the number of the one below it, and one number says
which is on top. Who pops reads the top, then what is below, and makes that the new top
by compare-and-exchange, if the top is still the same (Treiber's stack).

It may be the same again. A is about to pop slot 1, and has read that 2 is below. Before
it goes on, B pops 1, pops 2, and pushes 1. Slot 1 is on top, so A's exchange succeeds,
and puts 2 on top, which B is using. Soon 2 has another owner.

The mend: top and a tag are one number, and each pop counts the tag up. A's exchange
finds another tag, fails, and A begins anew. (To count pops is enough. A slot cannot
come back before it was popped.) A tag has so many bits, and after as many pops as it
has values it is the same again. With two bits that is shown here. The bits that the
slot does not need put it off until nobody can have waited for so long.

Other cures: an exchange of two words, compare double and swap, for which the IBM
System/370 manual shows a counter beside the address; hazard pointers, by which threads
say what they are about to use (M. M. Michael, IEEE TPDS 15(6), 2004); and a garbage
collector, which frees nothing that somebody still refers to. So in Python, with new
nodes, ABA does no harm (Chapter 16, example12).

R. K. Treiber, "Systems programming: coping with parallelism", IBM RJ 5118, 1986. IBM
System/370 Principles of Operation, GA22-7000, appendix on multiprogramming examples.

Output:
    A stands in pop; B pops 1 and 2, and pushes 1; then A goes on
      no tag    A has 1, B has 2, left 2 3
      47 bits   A has 1, B has 2, left 3
    the same with a tag of 2 bits, while B makes so many pops
      pops          2    3    4    5    6    7    8
      broken       no   no  yes   no   no   no  yes
    two use slots without a tag             with 47 bits
      2 threads   broken after     2.9 ms    not broken
      2 processes broken after     5.2 ms    not broken
    it is the same again after 2**47 pops, at this pace in 4e+09 s
    compare-and-exchange sees that a number is the same, not that nothing changed
"""

import ctypes
import random
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from cores import need_two_cores
from native_atomics import AtomicInt64
from shared_block import attached, ctrl_c_later, process_pool, shared_block

SLOT_BITS = 16  # of the number of a slot
TAG_BITS = 63 - SLOT_BITS  # and all the others, but for the sign
FEW_BITS = 2  # of a tag that is soon the same again
MOST_POPS = 2 * 2**FEW_BITS  # that are tried with it
N_SLOTS = 4  # of the stack that two use: either has two of them at most
ROUNDS = 500  # in which each pops two slots and pushes them
LIMIT = 10.0  # seconds for what is bound to come

# Where things stand in shared memory, in bytes: the stack, a mark for each slot that
# somebody has, and the stop sign.
STACK, MARKS, STOP, SIZE = 0, 128, 256, 512


class SlotStack:
    """A lock-free stack of the slots 1 to n, in memory that threads or processes share.

    All must use it with the same tag. Who pops a slot sees what was written in it
    before its push.

    Args:
        address: of 1 + `n_slots` numbers of 64 bits, a multiple of 8. All zeros is an
            empty stack. The caller keeps that memory alive.
        tag_bits: how many bits the tag has; 0 is no tag, which is broken.
        between: called in each pop when top and below are read, before the exchange. It
            lets a caller decide who runs meanwhile.

    Raises:
        ValueError: so many slots, or bits of the tag, do not fit.
    """

    def __init__(
        self,
        address: int,
        n_slots: int,
        tag_bits: int = TAG_BITS,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        if not 1 <= n_slots < 2**SLOT_BITS or not 0 <= tag_bits <= TAG_BITS:
            raise ValueError(f"{n_slots} slots and a tag of {tag_bits} bits do not fit")
        self._n_tags = 1 << tag_bits
        self._between = between
        # The tag, and below it the slot on top, or 0.
        self._top, *self._below_slot = (
            AtomicInt64(address=address + 8 * n) for n in range(n_slots + 1)
        )

    def push(self, slot: int) -> None:
        """Put a slot on top, which must not be in the stack.

        Raises:
            IndexError: there is no such slot.
        """
        if not 1 <= slot <= len(self._below_slot):
            raise IndexError(f"there is no slot {slot}")
        while True:
            top = self._top.load("relaxed")
            tag, below = divmod(top, 1 << SLOT_BITS)
            self._below_slot[slot - 1].store(below, "relaxed")
            if self._replace(top, tag, slot):
                return

    def pop(self) -> int:
        """Take the slot on top.

        Raises:
            IndexError: there is none.
        """
        while True:
            top = self._top.load("acquire")
            tag, slot = divmod(top, 1 << SLOT_BITS)
            if not slot:
                raise IndexError("pop from an empty stack")
            below = self._below_slot[slot - 1].load("relaxed")
            self._between()  # whatever happens here, the tag tells
            if self._replace(top, (tag + 1) % self._n_tags, below):
                return slot

    def _replace(self, top: int, tag: int, slot: int) -> bool:
        new = tag << SLOT_BITS | slot
        return self._top.compare_exchange(top, new, "acq_rel") == top


def pop_all(stack: SlotStack, most: int) -> list[int]:
    """Pop slots until there is none, but no more than `most`: broken, it may loop."""
    slots: list[int] = []
    try:
        while len(slots) < most:
            slots.append(stack.pop())
    except IndexError:
        pass
    return slots


def pop_among_others(tag_bits: int, n_pops: int = 2) -> tuple[int, int, list[int]]:
    """Stop A's pop of slot 1 of 3; meanwhile B pops 1 and 2, and pushes 1.

    Args:
        n_pops: how many pops B makes; after two, it pops and pushes 1.

    Returns:
        The slot that A gets; the one that B keeps; those left after that.
    """
    memory = (ctypes.c_int64 * 4)()
    address = ctypes.addressof(memory)
    stack = SlotStack(address, 3, tag_bits)
    for slot in (3, 2, 1):
        stack.push(slot)
    has_been_stopped = False
    kept = 0

    def work() -> None:
        nonlocal kept
        first, kept = stack.pop(), stack.pop()
        stack.push(first)
        for _ in range(n_pops - 2):
            stack.push(stack.pop())

    def stop_once() -> None:
        nonlocal has_been_stopped
        if not has_been_stopped:
            has_been_stopped = True
            with ctrl_c_later():  # amid submit or result it could leave a lock locked
                b.submit(work).result(LIMIT)

    with ThreadPoolExecutor(1) as b:
        got = SlotStack(address, 3, tag_bits, stop_once).pop()
    return got, kept, pop_all(stack, 3)


def use_slots(block: str, tag_bits: int, seed: int) -> bool:
    """Pop two slots, use them, and push them, ROUNDS times, or until all are to stop.

    In some pops, drawn from `seed`, others are let in before the exchange.

    Returns:
        Whether the stack was seen broken: a slot has another owner, or none is left.

    Raises:
        TimeoutError: it has taken more than LIMIT seconds.
    """
    dice, deadline = random.Random(seed), time.monotonic() + LIMIT

    def give_way() -> None:
        if dice.random() < 0.3:
            time.sleep(0)

    with attached(block) as start:
        stack = SlotStack(start + STACK, N_SLOTS, tag_bits, give_way)
        marks = [AtomicInt64(address=start + MARKS + 8 * n) for n in range(N_SLOTS)]
        stop = AtomicInt64(address=start + STOP)
        for _ in range(ROUNDS):
            if stop.load():
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done within {LIMIT:g} s")
            slots = pop_all(stack, 2)
            had_owner = [marks[slot - 1].exchange(1) for slot in slots]
            if any(had_owner) or len(slots) < 2:
                stop.store(1)
                return True
            for slot in slots:
                marks[slot - 1].store(0)
                stack.push(slot)
    return False


def breaks(others: Executor, block: str, tag_bits: int, seed: int) -> bool:
    """Use slots together with a thread or process of `others`; does the stack break?

    Raises:
        TimeoutError: it has taken more than LIMIT seconds.
    """
    with attached(block) as start:
        ctypes.memset(start, 0, SIZE)
        stack = SlotStack(start + STACK, N_SLOTS, tag_bits)
        for slot in range(1, N_SLOTS + 1):
            stack.push(slot)
        stop = AtomicInt64(address=start + STOP)
        try:
            with ctrl_c_later():  # amid submit it could leave a lock locked
                future = others.submit(use_slots, block, tag_bits, 2 * seed)
            seen = [use_slots(block, tag_bits, 2 * seed + 1)]
            with ctrl_c_later():  # amid result, too
                seen.append(future.result(LIMIT))
        finally:  # also after Ctrl-C
            stop.store(1)
        left = pop_all(stack, N_SLOTS + 1)
    return any(seen) or sorted(left) != list(range(1, N_SLOTS + 1))


def show_interleaving() -> None:
    """Check what A, B and the stack have, with each kind of tag."""
    print("A stands in pop; B pops 1 and 2, and pushes 1; then A goes on")
    for name, tag_bits, expected in (
        ("no tag", 0, (1, 2, [2, 3])),
        (f"{TAG_BITS} bits", TAG_BITS, (1, 2, [3])),
    ):
        outcome = a, b, left = pop_among_others(tag_bits)
        print(f"  {name:10}A has {a}, B has {b}, left {' '.join(map(str, left))}")
        if outcome != expected:
            raise SystemExit(f"{name}: {expected} was to be seen")

    pops = range(2, MOST_POPS + 1)
    broken = [pop_among_others(FEW_BITS, n)[2] == [2, 3] for n in pops]
    print(f"the same with a tag of {FEW_BITS} bits, while B makes so many pops")
    print(f"  {'pops':10}{''.join(f'{n:5}' for n in pops)}")
    print(f"  {'broken':10}{''.join('  yes' if one else '   no' for one in broken)}")
    if broken != [n % 2**FEW_BITS == 0 for n in pops]:
        raise SystemExit(f"it was to break after each {2**FEW_BITS} pops")


def show_use(name: str, others: Executor, block: str) -> float:
    """Use slots without a tag until that breaks, then as often with one.

    Returns:
        Seconds for a pop, and a push, with a tag.

    Raises:
        TimeoutError: without a tag it did not break within LIMIT seconds.
    """
    breaks(others, block, TAG_BITS, 0)  # not timed: a process compiles its code now
    began, n = time.perf_counter(), 1
    while not breaks(others, block, 0, n):
        if time.perf_counter() - began > LIMIT:
            raise TimeoutError(f"{name}: the stack without a tag did not break")
        n += 1
    between = time.perf_counter()
    for seed in range(1, n + 1):
        if breaks(others, block, TAG_BITS, seed):
            raise SystemExit(f"{name}: the stack with a tag was not to break")
    seconds = time.perf_counter() - between
    print(f"  {name:12}broken after {1000 * (between - began):7.1f} ms    not broken")
    return seconds / (4 * n * ROUNDS)


def main() -> None:
    need_two_cores()
    try:
        with (
            shared_block(SIZE) as block,
            process_pool(1) as processes,
            ThreadPoolExecutor(1) as threads,
        ):
            show_interleaving()
            print(f"{'two use slots':14}{'without a tag':26}with {TAG_BITS} bits")
            show_use("2 threads", threads, block)
            each = show_use("2 processes", processes, block)
    except (TimeoutError, BrokenProcessPool) as error:
        raise SystemExit(f"a wait did not end: {error}") from None
    print(
        f"it is the same again after 2**{TAG_BITS} pops, "
        f"at this pace in {2**TAG_BITS * each:.0e} s"
    )
    print(
        "compare-and-exchange sees that a number is the same, not that nothing changed"
    )


if __name__ == "__main__":
    main()
