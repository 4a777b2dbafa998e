"""The GIL keeps the interpreter's own data whole, but not a statement of a program.

It changes hands wherever Python code runs, and Python code runs in the midst of many a
call that looks like one step. Each is stopped there, and what may come between comes:

* dict.update compares keys, here by an `__eq__` in Python. Another thread reads when
  one of two accounts has been updated and the other has not.
* list.sort calls the key function. What another thread appends meanwhile is lost; the
  sort notices, and raises ValueError.
* `log.lines += lines()` reads the attribute, runs the generator, sets the attribute.
  Another thread takes the first line away in between and leaves an empty list. Then
  the old one is set again, and that line will be taken a second time.

Two kinds of code come in the same thread:

* `__del__` runs when the last reference goes, by any assignment. If it wants a lock
  that is held around the assignment, the thread waits for itself for ever.
* A signal handler runs in the main thread, at any call or end of a loop's round.

Against other threads a lock helps, held by all who read or write. It does not help
against what comes in the same thread. That is to leave a note and no more, to be read
later; `queue.SimpleQueue.put` is made for it. A build without a GIL does not help: the
lock of a dict or list is let go while the thread that holds it waits, as it does here.

Output:
    Python <version>, GIL <gil>
    in the midst of  comes           unprotected         mended
    dict.update      another thread  total 170           total 200
    list.sort        another thread  1 2 3, ValueError   1 2 3 0
    log += lines()   another thread  took a, left ab     took ab, left none
    slots[1] = ...   __del__         lock held           lock free
    a transfer       a signal        total 170           total 200
    one statement is not one step, with a GIL or without
"""

import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from types import SimpleNamespace
from typing import TypeAlias, TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds for what is bound to come

Guard: TypeAlias = "threading.Lock | threading.Semaphore"


class Key:
    """A key of a dict that equals others with the same letters, small or capital.

    Args:
        between: called in each comparison. It lets a caller decide who runs meanwhile.
    """

    def __init__(self, text: str, between: Callable[[], object] = lambda: None) -> None:
        self.text = text.casefold()
        self._between = between

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        self._between()
        return isinstance(other, Key) and self.text == other.text


class Slot:
    """Calls `on_del` when the last reference to it has gone."""

    def __init__(self, on_del: Callable[[], object]) -> None:
        self._on_del = on_del

    def __del__(self) -> None:
        self._on_del()


def meanwhile(
    other_thread: Executor, guard: Guard, action: Callable[[], T]
) -> "Future[T]":
    """Let another thread do something, holding `guard`.

    It is done on return, or the other thread waits for `guard` to do it.

    Raises:
        TimeoutError: neither has come about for LIMIT seconds.
    """
    done_or_waits = threading.Event()

    def act() -> T:
        if not guard.acquire(blocking=False):
            done_or_waits.set()
            guard.acquire()
        try:
            return action()
        finally:
            guard.release()

    future = other_thread.submit(act)
    future.add_done_callback(lambda _: done_or_waits.set())
    if not done_or_waits.wait(LIMIT):
        raise TimeoutError("the other thread does nothing")
    return future


def read_in_update(other_thread: Executor, guard: Guard) -> str:
    """Move 30 from Ann to Bob by one dict.update; return the total another reads."""
    totals: list[Future[int]] = []

    def read() -> None:
        total = meanwhile(other_thread, guard, lambda: sum(accounts.values()))
        totals.append(total)

    accounts = {Key("Ann"): 100, Key("Bob", between=read): 100}
    with guard:
        accounts.update({Key("ANN"): 70, Key("BOB"): 130})
    return " ".join(f"total {total.result(LIMIT)}" for total in totals)


def append_in_sort(other_thread: Executor, guard: Guard) -> str:
    """Sort 3, 1, 2 while another appends 0; return the list, and what was raised."""
    items = [3, 1, 2]
    appended: list[Future[None]] = []

    def key(item: int) -> int:
        if not appended:
            appended.append(meanwhile(other_thread, guard, lambda: items.append(0)))
        return item

    raised = ""
    try:
        with guard:
            items.sort(key=key)
    except ValueError:
        raised = ", ValueError"
    wait(appended, LIMIT)
    return " ".join(map(str, items)) + raised


def take_in_addition(other_thread: Executor, guard: Guard) -> str:
    """Add lines to a log while another takes them away; return what both have."""
    log = SimpleNamespace(lines=[])
    taken: list[Future[list[str]]] = []

    def take() -> list[str]:
        lines, log.lines = log.lines, []
        return list(lines)

    def lines() -> Iterator[str]:
        yield "a"
        taken.append(meanwhile(other_thread, guard, take))
        yield "b"

    with guard:
        log.lines += lines()
    took = ["".join(one.result(LIMIT)) for one in taken]
    return f"took {' '.join(took)}, left {''.join(log.lines) or 'none'}"


def lock_in_del(later: bool) -> str:
    """Replace an object whose `__del__` needs the lock; return how it finds the lock.

    Args:
        later: it only leaves a note, and the lock is wanted when it is free.
    """
    lock = threading.Lock()
    notes: SimpleQueue[str] = SimpleQueue()
    found: list[str] = []

    def want_lock() -> None:
        if lock.acquire(blocking=False):
            lock.release()
            found.append("lock free")
        else:  # acquire() would wait for ever
            found.append("lock held")

    slots = {1: Slot((lambda: notes.put("gone")) if later else want_lock)}
    with lock:
        slots[1] = Slot(lambda: None)
    while not notes.empty():
        notes.get()
        want_lock()
    return " ".join(found)


def signal_in_transfer(later: bool) -> str:
    """Move 30 from Ann to Bob while a signal comes; return the total its handler reads.

    In the main thread only.

    Args:
        later: the handler leaves a note, and the total is read after the transfer.
    """
    accounts = {"Ann": 100, "Bob": 100}
    notes: SimpleQueue[int] = SimpleQueue()
    totals: list[int] = []

    def handler(number: int, _: object) -> None:
        if later:
            notes.put(number)
        else:
            totals.append(sum(accounts.values()))

    before = signal.signal(signal.SIGTERM, handler)
    try:
        accounts["Ann"] -= 30
        signal.raise_signal(signal.SIGTERM)
        accounts["Bob"] += 30
    finally:
        signal.signal(signal.SIGTERM, before)
    while not notes.empty():
        notes.get()
        totals.append(sum(accounts.values()))
    return " ".join(f"total {total}" for total in totals)


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def report(call: str, comes: str, seen: list[str], expected: list[str]) -> None:
    """Print what came of a call, unprotected and mended, and check it."""
    print(f"{call:17}{comes:16}{seen[0]:20}{seen[1]}")
    if seen != expected:
        raise SystemExit(f"{call}: expected {' and '.join(expected)}")


def demonstrate() -> None:
    """Check each claim, and print it."""
    print("in the midst of  comes           unprotected         mended")
    of_threads = {
        "dict.update": (read_in_update, ["total 170", "total 200"]),
        "list.sort": (append_in_sort, ["1 2 3, ValueError", "1 2 3 0"]),
        "log += lines()": (take_in_addition, ["took a, left ab", "took ab, left none"]),
    }
    with ThreadPoolExecutor(max_workers=1) as thread:
        for call, (together, expected) in of_threads.items():
            # A semaphore of 2 lets both in, which is no protection.
            guards = threading.Semaphore(2), threading.Lock()
            seen = [together(thread, guard) for guard in guards]
            report(call, "another thread", seen, expected)
    seen = [lock_in_del(later) for later in (False, True)]
    report("slots[1] = ...", "__del__", seen, ["lock held", "lock free"])
    seen = [signal_in_transfer(later) for later in (False, True)]
    report("a transfer", "a signal", seen, ["total 170", "total 200"])


def main() -> None:
    print(f"Python {platform.python_version()}, GIL {gil_state()}")
    try:
        demonstrate()
    except TimeoutError as error:
        raise SystemExit(str(error)) from None
    print("one statement is not one step, with a GIL or without")


if __name__ == "__main__":
    main()
