# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0"]
# ///
"""Peterson's lock lets both threads in, unless it keeps loads behind its stores.

Who wants to enter raises a flag and gives the turn to the other one, then waits until
the other one's flag is down or the turn comes back. By any interleaving of these loads
and stores, at most one thread is in its critical section. Real hardware knows more than
interleavings: as in example06, a store waits in its core's buffer while the thread goes
ahead and finds the other's flag down. Both enter, both add 1 to the same number, and an
update is lost.

Two threads do this in machine code. The critical section is a plain load, an addition
and a plain store. They come to each lock at the same time, and each lock is a new one:
a core that has its flag's cache line from the last time has no need to wait with its
store, and would seldom lose. The abstract machines of example06 tell beforehand whether
both can get in.

Release and acquire do not help, since they let a load overtake a store. One fence in
between does, on x86-64. Elsewhere it need not, because the two stores may change places
as well. If all four are seq_cst, the lock is right everywhere.

So elsewhere only seq_cst is held to its promise here, and only relaxed must lose. (An
ARM is likely to lose nothing with release and acquire: its `ldar` waits for earlier
releases.)

In plain Python, where a GIL interleaves the threads, two flags and a turn are a lock,
if a slow one that burns processor time. Take `threading.Lock`.

Source: G. L. Peterson, "Myths about the mutual exclusion problem", Information
Processing Letters 12(3), 1981.

Output:
    both get in at once    SC     TSO    updates lost
      relaxed              never  may        0.3150 %
      release/acquire      never  may        0.1450 %
      relaxed, a fence     never  never      0.0000 %
      seq_cst              never  never      0.0000 %
    seq_cst loses nothing, where relaxed loses updates
"""

import ctypes
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from cores import need_two_cores, two_cores
from example06_litmus_tests import (
    IS_X86,
    LINE,
    ORDERS,
    PATIENCE,
    Outcome,
    outcomes,
    parse,
)
from native_atomics import NativeCode

ROUND = 1000  # locks of a round, each of which both threads take once
PASSAGES = 20_000  # through critical sections, of both threads, at least
ENOUGH = 10  # updates to be lost, if any must be
LIMIT = 10.0  # seconds that it may take to see so much

# What a thread does before it enters, with the flags f and g. Thread 1 then enters if
# it has found flag g down, or that it is its turn (a = 0 or b = 1), thread 2 likewise.
# It looks only once here: looks in vain change nothing.
ENTRY = "f = 1; turn = 2;{} a = g; b = turn | g = 1; turn = 1;{} c = f; d = turn"
LOCKS = {  # ordering of all loads and stores, and whether there is a fence in between
    "relaxed": ("relaxed", False),
    "release/acquire": ("release/acquire", False),
    "relaxed, a fence": ("relaxed", True),
    "seq_cst": ("seq_cst", False),
}

# Memory begins with the number of the lock that each thread has come to. Then come the
# locks: two flags, the turn, and the number that is counted in the critical section.
CODE = """
define i64 @thread{me}(ptr %memory) {{
entry:
  %my.count = getelementptr i8, ptr %memory, i64 {mine}
  %others.count = getelementptr i8, ptr %memory, i64 {others}
  br label %come
come:
  %done = phi i64 [0, %entry], [%next, %critical]
  %next = add i64 %done, 1
  store atomic i64 %next, ptr %my.count release, align 8
  br label %meet
meet:  ; so that both come to a lock at the same time
  %looks = phi i64 [0, %come], [%looks.next, %alone]
  %count = load atomic i64, ptr %others.count acquire, align 8
  %both = icmp uge i64 %count, %next
  br i1 %both, label %want, label %alone
alone:
  %looks.next = add i64 %looks, 1
  %nobody = icmp eq i64 %looks.next, {patience}
  br i1 %nobody, label %end, label %meet
want:
  %place = mul i64 %next, {size}
  %lock = getelementptr i8, ptr %memory, i64 %place
  %my.flag = getelementptr i8, ptr %lock, i64 {mine}
  %others.flag = getelementptr i8, ptr %lock, i64 {others}
  %turn = getelementptr i8, ptr %lock, i64 {turn}
  %number = getelementptr i8, ptr %lock, i64 {number}
  store atomic volatile i64 1, ptr %my.flag {store}, align 8
  store atomic volatile i64 {other}, ptr %turn {store}, align 8
  {fence}
  br label %wait
wait:  ; until the other's flag is down, or this one goes first
  %waits = phi i64 [0, %want], [%waits.next, %again]
  %flag = load atomic volatile i64, ptr %others.flag {load}, align 8
  %first = load atomic volatile i64, ptr %turn {load}, align 8
  %down = icmp eq i64 %flag, 0
  %mine = icmp eq i64 %first, {me}
  %enter = or i1 %down, %mine
  br i1 %enter, label %critical, label %again
again:
  %waits.next = add i64 %waits, 1
  %tired = icmp eq i64 %waits.next, {patience}
  br i1 %tired, label %give.up, label %wait
critical:  ; section
  %seen = load volatile i64, ptr %number
  %sum = add i64 %seen, 1
  store volatile i64 %sum, ptr %number
  store atomic volatile i64 0, ptr %my.flag {store}, align 8
  %more = icmp ult i64 %next, {round}
  br i1 %more, label %come, label %end
give.up:  ; the other thread has lost its core for too long
  store atomic volatile i64 0, ptr %my.flag {store}, align 8
  br label %end
end:
  %result = phi i64 [%done, %alone], [%next, %critical], [%done, %give.up]
  ret i64 %result
}}
"""


def both_enter(outcome: Outcome) -> bool:
    """Tell whether ENTRY lets both threads in, given a, b, c and d."""
    a, b, c, d = outcome
    return (a == 0 or b == 1) and (c == 0 or d == 2)


def machine_code(ordering: str, fenced: bool, me: int) -> str:
    """Return thread `me` (1 or 2) in LLVM's assembly language.

    It takes ROUND locks, or fewer if it has waited too long for the other thread, and
    returns how many.
    """
    store, load = (one.replace("relaxed", "monotonic") for one in ORDERS[ordering])
    return CODE.format(
        me=me,
        other=3 - me,
        mine=LINE * (me - 1),
        others=LINE * (2 - me),
        turn=LINE * 2,
        number=LINE * 3,
        size=LINE * 4,
        store=store,
        load=load,
        fence="fence seq_cst" if fenced else "",
        patience=PATIENCE,
        round=ROUND,
    )


class Peterson:
    """Locks, and two threads in machine code that take them.

    Attributes:
        passages: through critical sections so far.
        lost: updates that others have overwritten.
    """

    def __init__(self, ordering: str, fenced: bool) -> None:
        text = "".join(machine_code(ordering, fenced, me) for me in (1, 2))
        code = NativeCode(text)
        self._functions = [
            code.function(f"thread{me}", ctypes.c_int64, ctypes.c_void_p)
            for me in (1, 2)
        ]
        self._memory = ctypes.create_string_buffer(LINE * (4 * (ROUND + 1) + 1))
        self.passages = self.lost = 0

    def round(self, pool: ThreadPoolExecutor) -> None:
        """Let two threads of `pool` take ROUND new locks, or fewer."""
        start = -ctypes.addressof(self._memory) % LINE
        # A reference, not an address: after Ctrl-C the threads keep their memory.
        line = ctypes.byref(self._memory, start)
        ctypes.memset(line, 0, LINE * 4 * (ROUND + 1))
        futures = [pool.submit(one, line) for one in self._functions]
        passages = sum(future.result() for future in futures)
        self.passages += passages
        numbers = range(start + LINE * 7, start + LINE * 4 * (ROUND + 1), LINE * 4)
        number_at = partial(ctypes.c_int64.from_buffer, self._memory)
        self.lost += passages - sum(number_at(one).value for one in numbers)

    def run(self, pool: ThreadPoolExecutor, passages: int, until_lost: bool) -> None:
        """Run rounds for so many passages, and until ENOUGH updates are lost if told.

        After LIMIT seconds it gives up.
        """
        deadline = time.monotonic() + LIMIT
        while self.passages < passages or (until_lost and self.lost < ENOUGH):
            if time.monotonic() > deadline:
                break
            self.round(pool)


def main() -> None:
    need_two_cores()
    passages = PASSAGES
    print("both get in at once    SC     TSO    updates lost")
    with two_cores() as pool:
        for name, (ordering, fenced) in LOCKS.items():
            fence = " fence;" if fenced else ""
            threads = parse(ENTRY.format(fence, fence), ordering)
            in_sc, in_tso = (
                any(map(both_enter, outcomes(threads, buffered)))
                for buffered in (False, True)
            )
            must_lose = in_tso if IS_X86 else name == "relaxed"
            must_hold = not in_tso if IS_X86 else name == "seq_cst"
            locks = Peterson(ordering, fenced)
            locks.run(pool, passages, must_lose)
            share = 100 * locks.lost / (locks.passages or 1)
            columns = "".join(
                f"{'may' if may else 'never':7}" for may in (in_sc, in_tso)
            )
            print(f"  {name:21}{columns}{share:10.4f} %")
            if in_sc:
                raise SystemExit(f"{name}: no interleaving was to let both in")
            if locks.passages < PASSAGES:
                raise SystemExit(
                    f"{name}: only {locks.passages} passages in {LIMIT:g} s"
                )
            if must_lose and not locks.lost:
                raise SystemExit(f"{name}: no update was lost in {LIMIT:g} s")
            if must_hold and locks.lost:
                raise SystemExit(f"{name}: {locks.lost} updates were lost")
            passages = max(passages, locks.passages)
    print("seq_cst loses nothing, where relaxed loses updates")


if __name__ == "__main__":
    main()
