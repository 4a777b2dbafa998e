# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0"]
# ///
"""Three spin locks keep two threads apart, and two processes: no update is lost.

A spin lock is a number in memory. Who waits for it looks again and again, and does not
ask the operating system for anything. So it works wherever there is shared memory.

* Test-and-set: exchange the number for 1 until what comes back is 0. Each attempt is a
  write, which takes the cache line away from the holder.
* Test-and-test-and-set: look first, and exchange only if the number is 0.
* Ticket lock: draw a number by fetch-add and wait until it is served. It is first come,
  first served, and nobody can give up: a ticket that is not used stops the queue.

The first two give it to whoever looks first. That may be the last holder again, which
still has the cache line: unfair, and quick. The ticket lock passes the line on.

Taking it has acquire ordering and releasing it release, so all that one holder did is
seen by the next. All three run in machine code, on a critical section that adds 1 to
two numbers by plain loads and stores. Without a lock, that loses additions.

A spin lock is for some instructions, and for when the holder has a processor. If that
one is suspended, all who wait burn theirs. And who spins and keeps the GIL keeps it
from a holder that needs it (Chapter 15, example11, shows two threads that wait for each
other in vain). So Python's own locks ask the system to wake who waits; a spin lock in
Python has to be a patient one (example15).

T. E. Anderson, "The performance of spin lock alternatives for shared-memory
multiprocessors", IEEE TPDS 1(1), 1990. J. M. Mellor-Crummey, M. L. Scott, "Algorithms
for scalable synchronization on shared-memory multiprocessors", ACM TOCS 9(1), 1991.

Output:
    additions in machine code: time for each, share of the first of two
                               alone     2 threads      2 processes   lost
      no lock                 6.0 ns     9.0 ns  53 %     8.5 ns  49 %   45 %
      test and set            6.1 ns    33.4 ns  40 %    35.8 ns  53 %   none
      test and test and set   6.6 ns    42.7 ns  52 %    49.6 ns  45 %   none
      ticket lock             6.9 ns   343.7 ns  30 %    99.7 ns  44 %   none
    A has the lock, B comes, C comes; A releases it, and C looks first
      test and set          C has it, and then B
      test and test and set C has it, and then B
      ticket lock           B has it, and then C
    whoever holds a spin lock must be running, or all who wait burn time
"""

import ctypes
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from statistics import median_low
from typing import Any, NamedTuple

from cores import need_two_cores, on_core
from native_atomics import AtomicInt64, NativeCode
from shared_block import attached, ctrl_c_later, process_pool, shared_block

DURATION = 0.005  # seconds for which two parties add to a pair
ROUNDS = 5  # of which the fastest counts for one alone, and the median for two
TIMES = 10_000  # additions in one call of machine code
SPINS = 10_000  # looks at a lock in one call of it, which take some 10 µs, or 100
LIMIT = 10.0  # seconds for what is bound to come

# Where things stand in the block of shared memory, in bytes. Each has two cache lines
# of its own: what one processor writes takes the whole line away from the others.
LINE = 128
LOCK, SERVED, PAIR, ARRIVED, STOP, TICKETS = range(0, 6 * LINE, LINE)
SIZE = TICKETS + 3 * LINE

# Acquire, in at most so many looks; tells whether the lock is ours now. (In real use,
# each look also tells the processor that it spins, by `pause` on x86-64.)
ACQUIRE = """
define zeroext i1 @acquire_{lock}(ptr %lock, ptr %ticket, i64 %spins) {{
entry:{prepare}
  br label %look
look:
  %n = phi i64 [1, %entry], [%n.next, %again]{look}
  br i1 %got, label %yes, label %again
again:
  %n.next = add i64 %n, 1
  %more = icmp ult i64 %n, %spins
  br i1 %more, label %look, label %no
yes:
  ret i1 true
no:
  ret i1 false
}}
define void @release_{lock}(ptr %lock, ptr %ticket) {{{release}
  ret void
}}
"""
EXCHANGE = """
  %old = atomicrmw xchg ptr %lock, i64 1 acquire
  %got = icmp eq i64 %old, 0"""
LOOK = """
  %seen = load atomic i64, ptr %lock monotonic, align 8
  %free = icmp eq i64 %seen, 0
  br i1 %free, label %try, label %again
try:"""
FREE = """
  store atomic i64 0, ptr %lock release, align 8"""

# A ticket that is not served yet is kept for the next call; 0 is none, so they begin
# with 1. %lock counts those that were drawn.
DRAW = f"""
  %served = getelementptr i8, ptr %lock, i64 {SERVED - LOCK}
  %kept = load i64, ptr %ticket
  %none = icmp eq i64 %kept, 0
  %one = zext i1 %none to i64
  %drawn = atomicrmw add ptr %lock, i64 %one monotonic
  %new = add i64 %drawn, 1
  %mine = select i1 %none, i64 %new, i64 %kept
  store i64 %mine, ptr %ticket
  %before = sub i64 %mine, 1"""
IS_SERVED = """
  %last = load atomic i64, ptr %served acquire, align 8
  %got = icmp eq i64 %last, %before"""
SERVE_NEXT = f"""
  %served = getelementptr i8, ptr %lock, i64 {SERVED - LOCK}
  %mine = load i64, ptr %ticket
  store i64 0, ptr %ticket
  store atomic i64 %mine, ptr %served release, align 8"""

# Name, what is done once, with each look, and to release.
LOCKS = {
    "no_lock": ("", "\n  %got = icmp eq i64 0, 0", ""),
    "test_and_set": ("", EXCHANGE, FREE),
    "test_and_test_and_set": ("", LOOK + EXCHANGE, FREE),
    "ticket_lock": (DRAW, IS_SERVED, SERVE_NEXT),
}

# Adds 1 to both of a pair so many times, with the lock; ends before, if the lock cannot
# be had. Returns how often it has done so. All is loaded before anything is stored:
# "volatile" keeps that as it is.
ADD = """
define i64 @add_{lock}(ptr %lock, ptr %ticket, ptr %pair, i64 %times, i64 %spins) {{
entry:
  %second = getelementptr i64, ptr %pair, i64 1
  br label %loop
loop:
  %done = phi i64 [0, %entry], [%done.next, %inside]
  %more = icmp ult i64 %done, %times
  br i1 %more, label %take, label %end
take:
  %got = call i1 @acquire_{lock}(ptr %lock, ptr %ticket, i64 %spins)
  br i1 %got, label %inside, label %end
inside:
  %a = load volatile i64, ptr %pair
  %b = load volatile i64, ptr %second
  %a.next = add i64 %a, 1
  %b.next = add i64 %b, 1
  store volatile i64 %a.next, ptr %pair
  store volatile i64 %b.next, ptr %second
  call void @release_{lock}(ptr %lock, ptr %ticket)
  %done.next = add i64 %done, 1
  br label %loop
end:
  ret i64 %done
}}
"""


@cache
def machine_code() -> dict[str, Any]:
    """Return the functions that acquire and release each lock, and add with it."""
    text = "".join(
        (ACQUIRE + ADD).format(lock=lock, prepare=prepare, look=look, release=release)
        for lock, (prepare, look, release) in LOCKS.items()
    )
    code, place, count = NativeCode(text), ctypes.c_void_p, ctypes.c_int64
    functions = {}
    for lock in LOCKS:
        for name, *types in (
            (f"acquire_{lock}", ctypes.c_bool, place, place, count),
            (f"release_{lock}", None, place, place),
            (f"add_{lock}", count, place, place, place, count, count),
        ):
            functions[name] = code.function(name, *types)
    return functions


def meet(start: int, parties: int) -> None:
    """Wait until so many parties have come, each in a thread or process of its own.

    Raises:
        TimeoutError: they have not come within LIMIT seconds, or all are to stop.
    """
    arrived, stop = (AtomicInt64(address=start + place) for place in (ARRIVED, STOP))
    deadline = time.monotonic() + LIMIT
    arrived.fetch_add(1)
    while arrived.load() < parties:
        if stop.load() or time.monotonic() > deadline:
            raise TimeoutError("the other party has not come")
        time.sleep(0)


def add_for_a_while(
    block: str, lock: str, party: int, parties: int
) -> tuple[int, float]:
    """When all parties have come, add 1 to the pair, for DURATION seconds.

    Returns:
        How often it has added, and the seconds that took.

    Raises:
        TimeoutError: the others have not come.
    """
    add = machine_code()[f"add_{lock}"]
    with attached(block) as start, on_core(party):
        places = LOCK, TICKETS + LINE * party, PAIR
        meet(start, parties)
        done, seconds, began = 0, 0.0, time.perf_counter()
        while seconds < DURATION:
            added = add(*(start + place for place in places), TIMES, SPINS)
            done += added
            if added < TIMES:
                time.sleep(0)  # the holder may need this processor
            seconds = time.perf_counter() - began
        return done, seconds


class Contest(NamedTuple):
    """What came of it when two parties, or one, added to a pair of numbers.

    Attributes:
        each: seconds for one addition, of whichever party.
        share: of the first party in the additions.
        lost: of the additions, the share that is missing in one of the pair.
    """

    each: float
    share: float
    lost: float


def contend(others: Executor | None, block: str, lock: str) -> Contest:
    """Add to a new pair, alone or together with a thread or process of `others`.

    Raises:
        TimeoutError: the other one has not come.
    """
    with attached(block) as start:
        ctypes.memset(start, 0, SIZE)
        try:
            if others is None:
                mine, seconds = add_for_a_while(block, lock, 0, 1)
                theirs = 0
            else:
                with ctrl_c_later():  # amid submit it could leave a lock locked
                    future = others.submit(add_for_a_while, block, lock, 1, 2)
                mine, seconds = add_for_a_while(block, lock, 0, 2)
                with ctrl_c_later():  # amid result, too
                    theirs, _ = future.result(LIMIT)
        finally:  # also after Ctrl-C
            AtomicInt64(address=start + STOP).store(1)
        total = mine + theirs
        pair = [AtomicInt64(address=start + PAIR + n).load() for n in (0, 8)]
    return Contest(seconds / total, mine / total, 1 - min(pair) / total)


def contend_until_lost(others: Executor, block: str, lock: str) -> Contest:
    """Contend again and again, until additions are lost.

    Raises:
        TimeoutError: none was, for LIMIT seconds.
    """
    deadline = time.monotonic() + LIMIT
    while not (contest := contend(others, block, lock)).lost:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{lock}: no addition was lost")
    return contest


def served(lock: str) -> list[str]:
    """A holds the lock, B comes and then C. A releases it, and C looks first.

    Returns:
        B and C, in the order in which they get it.
    """
    words = (ctypes.c_int64 * (SIZE // 8))()
    start = ctypes.addressof(words)
    tickets = {name: start + TICKETS + LINE * n for n, name in enumerate("ABC")}
    acquire, release = (
        machine_code()[f"acquire_{lock}"],
        machine_code()[f"release_{lock}"],
    )
    if [acquire(start, tickets[name], 1) for name in "ABC"] != [True, False, False]:
        raise SystemExit(f"{lock}: A alone was to have the lock")
    release(start, tickets["A"])
    order: list[str] = []
    for name in "CBC":
        if name not in order and acquire(start, tickets[name], 1):
            order.append(name)
            release(start, tickets[name])
    return order


def show_contests(block: str, threads: Executor, processes: Executor) -> None:
    """Let two add with each lock, and without one, and check the pair."""
    print("additions in machine code: time for each, share of the first of two")
    print(f"{'':27}alone     2 threads      2 processes   lost")
    for lock in LOCKS:
        attempt = contend_until_lost if lock == "no_lock" else contend
        alone = [contend(None, block, lock) for _ in range(ROUNDS)]
        both = [
            [attempt(others, block, lock) for _ in range(ROUNDS)]
            for others in (threads, processes)
        ]
        losses = [contest.lost for contests in both for contest in contests]
        if any(contest.lost for contest in alone):
            raise SystemExit(f"{lock}: one alone was to lose nothing")
        if any(losses) != (lock == "no_lock"):
            raise SystemExit(f"{lock}: of the additions were lost {losses}")
        columns = "".join(
            f"{1e9 * usual.each:8.1f} ns {100 * usual.share:3.0f} %"
            for usual in map(median_low, both)
        )
        lost = f"{100 * max(losses):.0f} %" if any(losses) else "none"
        name = lock.replace("_", " ")
        print(f"  {name:22}{1e9 * min(alone).each:5.1f} ns{columns}   {lost}")

    print("A has the lock, B comes, C comes; A releases it, and C looks first")
    for lock in list(LOCKS)[1:]:
        order = served(lock)
        print(f"  {lock.replace('_', ' '):22}{order[0]} has it, and then {order[1]}")
        if order != (["B", "C"] if lock == "ticket_lock" else ["C", "B"]):
            raise SystemExit(f"{lock}: B and C were to get it in another order")


def main() -> None:
    need_two_cores()
    machine_code()  # compiled before the pool, a forked process has it as well
    try:
        with (
            shared_block(SIZE) as block,
            process_pool(1) as processes,
            ThreadPoolExecutor(1) as threads,
        ):
            show_contests(block, threads, processes)
    except (TimeoutError, BrokenProcessPool) as error:
        raise SystemExit(f"a wait did not end: {error}") from None
    print("whoever holds a spin lock must be running, or all who wait burn time")


if __name__ == "__main__":
    main()
