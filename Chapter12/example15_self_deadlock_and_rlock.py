"""A method that holds a lock calls one that takes it: the thread waits for itself.

`transfer` locks the bank and calls `change`, which locks it, too. A Lock asks nobody
who he is. It is taken, so whoever wants it waits, its holder for ever. Here the lock
notes its holder, so that it can tell. Of a program that hangs, `faulthandler` and
py-spy show the stack, with the method that holds the lock and the one that waits.

An RLock lets its owner in again, and nobody else may release it; a Condition has one
unless told otherwise. Then nothing hangs, but whoever is called in the middle of a
change sees it half done. A self-deadlock would have told. Better is a second layer:
public methods take the lock; private ones, named `..._locked`, rely on it; callbacks
are called when it has been released. Then a Lock will do.

Finalizers and signal handlers are called in the middle of anything, in a thread that
may hold the very lock that they want. They should take none. That is what
`queue.SimpleQueue` is for: its `put` may interrupt itself.

Output:
    waits for itself: transfer -> change -> __enter__
    called by the holder  finds a Lock      finds an RLock
      another method      waits for itself  goes on
      a callback          waits for itself  sees a total of 70
      a finalizer         would wait        gets in
      a signal handler    would wait        gets in
    in two layers, with a Lock: a callback sees a total of 100
    with a SimpleQueue: a finalizer leaves a note, and takes no lock
    an RLock lets its owner in, even where he should not be; layers need none
"""

import gc
import signal
import sys
import threading
import traceback
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from queue import SimpleQueue
from typing import Any

LIMIT = 10.0  # seconds for what is bound to come


class DeadlockError(Exception):
    """Raised by an acquire that would wait for ever."""


class NotedLock:
    """A Lock that notes its holder, and whether he waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted = threading.Lock()  # guards the next three
        self._holder: threading.Thread | None = None
        self._stuck: threading.Thread | None = None
        self._given_up = False
        self._is_stuck = threading.Event()

    def __enter__(self) -> None:
        """Wait for the lock; as with a Lock, for ever if this thread holds it.

        Raises:
            DeadlockError: somebody has called `give_up`.
        """
        me = threading.current_thread()
        with self._noted:
            if self._given_up:
                raise DeadlockError(f"{me.name} gives up")
            if self._holder is me:
                self._stuck = me
                self._is_stuck.set()
        self._lock.acquire()  # blocks the holder, until somebody gives up
        with self._noted:
            if self._given_up:
                if self._stuck is not me:  # or else the outer block releases it
                    self._lock.release()
                raise DeadlockError(f"{me.name} gives up")
            self._holder = me

    def __exit__(self, *_: object) -> None:
        with self._noted:
            self._holder = None
            self._lock.release()

    def waits_for_itself(self, timeout: float) -> threading.Thread | None:
        """Return the thread that holds the lock and waits for it.

        Return None if there is none within `timeout` seconds.
        """
        self._is_stuck.wait(timeout)
        return self._stuck

    def give_up(self) -> None:
        """Let all who wait, and who would from now on, get a DeadlockError.

        A Lock may be released by any thread, at the price of mutual exclusion. There is
        no harm in it here: whoever is woken leaves, and has changed nothing.
        """
        with self._noted:
            first, self._given_up = not self._given_up, True
            if first and self._stuck is not None:
                self._lock.release()


def functions_of(thread: threading.Thread, file: str) -> list[str]:
    """Return in which functions of `file` a live thread is, the outermost first."""
    assert thread.ident is not None, "it has not been started"
    stack = traceback.extract_stack(sys._current_frames()[thread.ident])
    return [summary.name for summary in stack if summary.filename == file]


class Bank:
    """Accounts, and transfers that do not change their total.

    Args:
        lock: an RLock; with a Lock, `transfer` waits for itself.
        on_change: called after each change of an account, while the lock is held.
    """

    def __init__(
        self,
        balances: Mapping[str, int],
        lock: AbstractContextManager[Any],
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        self._lock = lock
        self._balances = dict(balances)  # guarded by _lock
        self._on_change = on_change

    def change(self, name: str, amount: int) -> None:
        with self._lock:
            self._balances[name] += amount
            self._on_change()

    def transfer(self, source: str, target: str, amount: int) -> None:
        with self._lock:
            self.change(source, -amount)
            self.change(target, amount)

    def total(self) -> int:
        with self._lock:
            return sum(self._balances.values())


class LayeredBank(Bank):
    """The same in two layers: no method that takes the lock calls another that does.

    Args:
        lock: a Lock will do.
        on_change: called after each call of `change` and `transfer`, when the lock has
            been released. By then, another thread may have made the next change.
    """

    def change(self, name: str, amount: int) -> None:
        with self._lock:
            self._change_locked(name, amount)
        self._on_change()

    def transfer(self, source: str, target: str, amount: int) -> None:
        with self._lock:
            self._change_locked(source, -amount)
            self._change_locked(target, amount)
        self._on_change()

    def _change_locked(self, name: str, amount: int) -> None:
        self._balances[name] += amount  # the caller holds _lock


class LiveNames:
    """The names of those objects that are still there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._names: Counter[str] = Counter()  # how many have it; guarded by _lock
        # Here finalizers put whom to forget. They may interrupt a thread that holds
        # _lock, so they must not take it.
        self._gone: SimpleQueue[str] = SimpleQueue()

    def add(
        self, name: str, thing: object, between: Callable[[], object] = lambda: None
    ) -> None:
        """Add the name of `thing`, for as long as it is there.

        Args:
            between: called while the lock is held; a finalizer may run there.
        """
        weakref.finalize(thing, self._gone.put, name).atexit = False
        with self._lock:
            between()
            self._names[name] += 1

    def names(self) -> list[str]:
        with self._lock:
            while not self._gone.empty():
                self._names[self._gone.get()] -= 1
            return sorted(+self._names)


def can_take(lock: "threading.Lock | threading.RLock") -> bool:
    """Tell whether this thread would get `lock`, rather than wait for it."""
    if not lock.acquire(blocking=False):
        return False
    lock.release()
    return True


class Thing:
    """An object that refers to itself, so that only the garbage collector finds it."""

    def __init__(self) -> None:
        self.itself = self


def in_finalizer(lock: "threading.Lock | threading.RLock") -> list[bool]:
    """Let a finalizer tell whether it could take `lock` in the thread that holds it."""
    found: list[bool] = []
    with lock:
        finalizer = weakref.finalize(Thing(), lambda: found.append(can_take(lock)))
        finalizer.atexit = False
        gc.collect()  # as may happen by itself, whenever something is made
    return found


def in_handler(lock: "threading.Lock | threading.RLock") -> list[bool]:
    """Let a signal handler tell whether it could take `lock` if its thread holds it."""
    found: list[bool] = []
    before = signal.signal(signal.SIGTERM, lambda *_: found.append(can_take(lock)))
    try:
        with lock:
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    return found


def stack_when_stuck(lock: NotedLock, job: Callable[[], object]) -> list[str]:
    """Let `job` wait for itself in a thread, and end it; return where it waited."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        try:
            future = pool.submit(job)
            thread = lock.waits_for_itself(LIMIT)
            if thread is None:
                raise SystemExit("a thread was to wait for itself")
            functions = functions_of(thread, Bank.change.__code__.co_filename)
            lock.give_up()
        finally:  # once more: Ctrl-C may have come before it, or in the midst of it
            lock.give_up()
        if not isinstance(future.exception(LIMIT), DeadlockError):
            raise SystemExit("the thread was to give up")
    return functions


def main() -> None:
    balances = {"Ann": 100, "Bob": 0}
    seen: list[int] = []

    lock = NotedLock()
    transfer = partial(Bank(balances, lock).transfer, "Ann", "Bob", 30)
    stack = stack_when_stuck(lock, transfer)
    print(f"waits for itself: {' -> '.join(stack)}")
    if stack != ["transfer", "change", "__enter__"]:
        raise SystemExit("the stack was to show who holds the lock and who waits")

    lock = NotedLock()
    bank = Bank(balances, lock, lambda: seen.append(bank.total()))
    stack_when_stuck(lock, partial(bank.change, "Ann", 1))
    if seen:
        raise SystemExit("the callback was to wait")

    reentrant = Bank(
        balances, threading.RLock(), lambda: seen.append(reentrant.total())
    )
    reentrant.transfer("Ann", "Bob", 30)
    if seen != [70, 100]:
        raise SystemExit(f"the callback was to see half a transfer, not {seen}")
    for interruption in (in_finalizer, in_handler):
        answers = interruption(threading.Lock()), interruption(threading.RLock())
        if answers != ([False], [True]):
            raise SystemExit(f"an RLock was to let it in, a Lock was not: {answers}")
    print("called by the holder  finds a Lock      finds an RLock")
    print("  another method      waits for itself  goes on")
    print(f"  a callback          waits for itself  sees a total of {seen[0]}")
    print("  a finalizer         would wait        gets in")
    print("  a signal handler    would wait        gets in")

    seen.clear()
    layered = LayeredBank(
        balances, threading.Lock(), lambda: seen.append(layered.total())
    )
    layered.transfer("Ann", "Bob", 30)
    if seen != [100]:
        raise SystemExit(f"the callback was to see a whole transfer, not {seen}")
    print("in two layers, with a Lock: a callback sees a total of 100")

    things, new = LiveNames(), Thing()
    things.add("old", Thing())
    things.add("new", new, between=gc.collect)
    names = things.names()
    if names != ["new"]:
        raise SystemExit(f"the old thing was to be forgotten: {names}")
    print("with a SimpleQueue: a finalizer leaves a note, and takes no lock")
    print("an RLock lets its owner in, even where he should not be; layers need none")


if __name__ == "__main__":
    main()
