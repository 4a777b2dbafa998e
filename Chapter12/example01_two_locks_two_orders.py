"""Two transfers lock two accounts in opposite orders, and neither ever goes on.

The one holds Ann's account and waits for Bob's, the other holds Bob's and waits for
Ann's. Each waits for what only the other can give. It takes an unlucky moment, between
the first acquire and the second, and may not come for years; a barrier brings it about
in every run.

To see a deadlock, one has to know who holds each lock and who waits for which. Plain
locks do not tell; these do. From them follows who waits for whom, the wait-for graph,
and a cycle in it is a deadlock: none of them can ever run again. It is ended as a
database ends it. One is chosen to give up: its acquire raises, so it leaves its `with`
blocks, which gives back what it holds, and the other goes on. It has moved no money
yet, and may try again.

Where locks do not tell, `faulthandler.dump_traceback_later` shows which line each
thread is at after a time, and py-spy that of a program which runs already.

Book: Chapter 12, example1.

Output:
    A waits for Bob's account, which B holds
    B waits for Ann's account, which A holds
    a deadlock: A -> B -> A
    B gives up waiting for Ann's account; A has moved 30
    B tries again: Ann has 120 and Bob 80, 200 as before
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

LIMIT = 10.0  # seconds for what is bound to come


class DeadlockError(Exception):
    """Raised by the acquire of a thread that has been chosen to give up."""


@dataclass(frozen=True, slots=True)
class Wait:
    """One edge of the wait-for graph: `thread` waits for `lock`, which `holder` has."""

    thread: str
    lock: str
    holder: str


class Watch:
    """Knows of its locks who holds them and who waits for them."""

    def __init__(self) -> None:
        # Guards what stands here and in the locks; notified when a thread begins to
        # wait.
        self.changed = threading.Condition()
        self.waits: dict[threading.Thread, WatchedLock] = {}
        self.given_up: set[threading.Thread] = set()  # told to, and not yet awake

    def lock(self, name: str) -> "WatchedLock":
        """Make a lock that is watched."""
        return WatchedLock(name, self)

    def deadlock(self, timeout: float) -> list[Wait]:
        """Wait until there is a deadlock, for `timeout` seconds at most; return it.

        It is a cycle: each one's holder is the next thread, the last one's the first,
        whose name is the smallest. Nothing is returned if there is none in time.
        """
        with self.changed:
            cycle = self.changed.wait_for(self._cycle, timeout)
            first = min(range(len(cycle)), key=lambda n: cycle[n].name, default=0)
            cycle = cycle[first:] + cycle[:first]
            return [
                Wait(thread.name, self.waits[thread].name, holder.name)
                for thread, holder in zip(cycle, cycle[1:] + cycle[:1], strict=True)
            ]

    def until_waiting(self, n_threads: int, timeout: float) -> bool:
        """Wait until so many threads wait for locks; return False if they never did."""
        with self.changed:
            return self.changed.wait_for(lambda: len(self.waits) >= n_threads, timeout)

    def give_up(self, thread: str) -> None:
        """Let the acquire in which the thread of that name waits raise DeadlockError.

        Raises:
            ValueError: no thread of that name waits.
        """
        with self.changed:
            for one, lock in self.waits.items():
                if one.name == thread:
                    self.given_up.add(one)
                    lock.waiting.pop(one).release()
                    del self.waits[one]
                    return
        raise ValueError(f"thread {thread} does not wait for a lock")

    def _cycle(self) -> list[threading.Thread]:
        """Return threads each of which waits for the next one, if there are such."""
        for start in self.waits:
            path = [start]
            while (lock := self.waits.get(path[-1])) and lock.holder is not None:
                if lock.holder in path:  # not always the start: that may wait for them
                    return path[path.index(lock.holder) :]
                path.append(lock.holder)
        return []


class WatchedLock:
    """A lock that is known to a `Watch`, which makes it.

    It is handed to those who wait in the order in which they came.

    Attributes:
        name: for people to read.
        holder: the thread that holds it; None if it is free.
        waiting: for each thread that waits, the gate at which it does, a locked lock.
    """

    def __init__(self, name: str, watch: Watch) -> None:
        self.name = name
        self.holder: threading.Thread | None = None
        self.waiting: dict[threading.Thread, threading.Lock] = {}
        self._watch = watch

    def acquire(self) -> None:
        """Wait for the lock, for ever if need be.

        Raises:
            DeadlockError: another thread has said that this one is to give up.
        """
        me = threading.current_thread()
        with self._watch.changed:
            if self.holder is None:
                self.holder = me
                return
            gate = self.waiting[me] = threading.Lock()
            gate.acquire()
            self._watch.waits[me] = self
            self._watch.changed.notify_all()
        try:
            gate.acquire()  # blocks until release() or give_up() has opened it
        except BaseException:  # Ctrl-C: leave the queue, or pass on what has come
            with self._watch.changed:
                self._watch.given_up.discard(me)
                if self.waiting.pop(me, None) is not None:
                    del self._watch.waits[me]
                elif self.holder is me:
                    self.release()
            raise
        with self._watch.changed:
            if me in self._watch.given_up:
                self._watch.given_up.remove(me)
                raise DeadlockError(f"{me.name} gives up waiting for {self.name}")

    def release(self) -> None:
        """Give the lock to whoever has waited longest, or to nobody.

        Raises:
            RuntimeError: this thread does not hold it.
        """
        with self._watch.changed:
            if self.holder is not threading.current_thread():
                raise RuntimeError(f"{self.name} is not held by this thread")
            self.holder = next(iter(self.waiting), None)
            if self.holder is not None:
                del self._watch.waits[self.holder]
                self.waiting.pop(self.holder).release()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass
class Account:
    """An account; `lock` guards `balance`."""

    number: int
    balance: int
    lock: WatchedLock


def transfer(
    source: Account,
    target: Account,
    amount: int,
    between: Callable[[], object] = lambda: None,
) -> None:
    """Move money between accounts; broken: opposite transfers may wait for each other.

    Args:
        between: called when the first account is locked and the second not yet. It lets
            a caller decide who runs meanwhile.
    """
    with source.lock:
        between()
        with target.lock:
            source.balance -= amount
            target.balance += amount


class Attempt(threading.Thread):
    """A thread that keeps what its function raised.

    It is a daemon: whatever happens, it keeps no program from its end.

    Attributes:
        error: what the function raised; None if it did not, or has not ended.
    """

    def __init__(self, name: str, function: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self.error: BaseException | None = None
        self._function = function

    def run(self) -> None:
        try:
            self._function()
        except BaseException as error:
            self.error = error


def join_all(attempts: Iterable[Attempt]) -> None:
    """Wait for all of them; raise what one of them has raised.

    Raises:
        TimeoutError: one has not ended within LIMIT seconds.
    """
    for attempt in attempts:
        attempt.join(LIMIT)
        if attempt.is_alive():
            raise TimeoutError(f"thread {attempt.name} has not ended")
        if attempt.error is not None:
            raise attempt.error


def main() -> None:
    watch = Watch()
    ann = Account(1, 100, watch.lock("Ann's account"))
    bob = Account(2, 100, watch.lock("Bob's account"))
    both_hold_one = threading.Barrier(2, timeout=LIMIT)
    a = Attempt("A", lambda: transfer(ann, bob, 30, both_hold_one.wait))
    b = Attempt("B", lambda: transfer(bob, ann, 50, both_hold_one.wait))
    a.start()
    b.start()

    cycle = watch.deadlock(LIMIT)
    for wait in cycle:
        print(f"{wait.thread} waits for {wait.lock}, which {wait.holder} holds")
    names = [wait.thread for wait in cycle]
    if names != ["A", "B"]:
        raise SystemExit("A and B were to wait for each other")
    print(f"a deadlock: {' -> '.join([*names, names[0]])}")

    watch.give_up("B")
    a.join(LIMIT)
    b.join(LIMIT)
    if a.is_alive() or a.error or not isinstance(b.error, DeadlockError):
        raise SystemExit(f"B was to give up, and A to go on: {b.error!r}, {a.error!r}")
    print(f"{b.error}; A has moved 30")
    transfer(bob, ann, 50)
    if (ann.balance, bob.balance) != (120, 80):
        raise SystemExit(f"not 120 and 80 in the end: {ann.balance}, {bob.balance}")
    print(f"B tries again: Ann has {ann.balance} and Bob {bob.balance}, 200 as before")


if __name__ == "__main__":
    main()
