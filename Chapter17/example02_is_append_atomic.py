"""`list.append` is atomic in CPython: no thread can be stopped while the list grows.

To append is to read the list's length, to write the item there, and to write the
length. In `items.append(1)` all of that is one instruction, a call of C code that runs
no Python code. A tracer stops the thread before it and after it, and nowhere within;
another thread that appends at any of these boundaries loses nothing. The other lines
change the list in one instruction as well. What counts is whether they have read
something before that is no longer true.

* `items += [1]` reads the name, extends that list in place, and writes the name again.
  Both items are kept, as all do it to the same list.
* `items[len(items):] = [1]` has read the length, `items = items + [1]` the whole list.
  Who appends after that is overwritten.
* `items.append(len(items))` loses nothing, and yet both items are the same number.

Without a GIL two appends run at once. There each list has a lock of its own, which
append takes (PEP 703). Several threads that append at once show that nothing is lost,
doubled, or out of its thread's order; a proof it is not.

The language promises nothing. CPython's FAQ, "What kinds of global value mutation are
thread-safe?", counts append among the atomic operations, and so does "Thread Safety
Guarantees" in its library reference, for builds without a GIL. The HOWTO on free
threading calls this a description, not a guarantee, and advises locks. To hand items to
other threads take `queue.SimpleQueue`, which is made for it.

Book: Chapter 17, example2.

Output:
    two threads add an item   changed by     Python inside  one in between
    items.append(1)           1 instruction  no             loses nothing
    items += [1]              1 instruction  no             loses nothing
    items[len(items):] = [1]  1 instruction  no             leaves [1]
    items = items + [1]       1 instruction  no             leaves [1]
    items.append(len(items))  1 instruction  no             leaves [0, 0]
    4 threads have appended 100000 items at once, and all are there
    append is one instruction from the length it reads to the length it writes
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from boundaries import (
    Names,
    changed_by,
    compiled,
    interleave_at_every_boundary,
    serial_outcomes,
)

LIMIT = 10.0  # seconds that a thread waits for the others to start
THREADS = 4
EACH = 25_000  # items that each of them appends


def empty() -> Names:
    return {"items": []}


class Found(NamedTuple):
    """What a line does, and what comes of it if another thread does it as well.

    Attributes:
        changing: how many instructions change what is shared.
        runs_python: one of them runs Python code.
        ends: the lists in the end that are none of those of one line after the other.
    """

    changing: int
    runs_python: bool
    ends: set[str]


def examine(line: str, other: str) -> Found:
    """Try a line, which adds an item, at each boundary with another one like it."""
    one, two = compiled(line), compiled(other)
    serial = serial_outcomes(one, two, empty)
    boundaries = interleave_at_every_boundary(one, two, empty)
    return Found(
        len(changed_by(one, empty)),
        any(each.within for each in boundaries),
        {each.outcome.state for each in boundaries if each.outcome not in serial},
    )


def append_at_once(n_threads: int, each: int) -> list[int]:
    """Let threads append numbers to one list at once; return the list.

    Thread k appends the numbers from k * each on, in their order.
    """
    items: list[int] = []
    together = threading.Barrier(n_threads, timeout=LIMIT)

    def append(first: int) -> None:
        together.wait()
        for n in range(first, first + each):
            items.append(n)

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            firsts = range(0, n_threads * each, each)
            for future in [pool.submit(append, first) for first in firsts]:
                future.result()
        finally:  # after Ctrl-C, some may wait for others that were never started
            together.abort()
    return items


def main() -> None:
    # Two lines, and what may be left of the list if the one comes within the other.
    cases = [
        ("items.append(1)", "items.append(2)", ""),
        ("items += [1]", "items += [2]", ""),
        ("items[len(items):] = [1]", "items[len(items):] = [2]", "[1]"),
        ("items = items + [1]", "items = items + [2]", "[1]"),
        ("items.append(len(items))", "items.append(len(items))", "[0, 0]"),
    ]
    print(f"{'two threads add an item':26}changed by     Python inside  one in between")
    for line, other, left in cases:
        try:
            found = examine(line, other)
        except TimeoutError as error:
            raise SystemExit(f"nobody was to wait: {error}") from None
        python = "yes" if found.runs_python else "no"
        comes_out = f"leaves {left}" if left else "loses nothing"
        print(f"{line:26}{found.changing} instruction  {python:15}{comes_out}")
        expected = {f"{{'items': {left}}}"} if left else set()
        if found != (1, False, expected):
            raise SystemExit(f"{line}: that was not to come of it: {found}")

    try:
        items = append_at_once(THREADS, EACH)
    except threading.BrokenBarrierError:
        raise SystemExit("the threads were to start together") from None
    by_thread = sorted(items, key=lambda n: n // EACH)  # keeps each one's order
    if by_thread != list(range(THREADS * EACH)):
        raise SystemExit("all items were to be there once, each thread's in its order")
    print(
        f"{THREADS} threads have appended {len(items)} items at once, and all are there"
    )
    print("append is one instruction from the length it reads to the length it writes")


if __name__ == "__main__":
    main()
