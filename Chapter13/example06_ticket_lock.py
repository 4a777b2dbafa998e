"""First come, first served: a ticket lock lets nobody overtake, and that costs speed.

Who wants the lock draws a number and waits until it is called. So each waits for
exactly those who came before, a bounded wait, however often others come again. The
lock is never free while somebody waits: it passes from one to the next, and each time
the processor must pass to another thread as well. That is the lock convoy which barging
avoids (example05); below it is measured. The ticket lock pays twice: each release wakes
all who wait, and all but one in vain. So be fair where somebody would starve, and only
there.

Who has drawn a number must stay. If somebody goes away, because of a time limit or
Ctrl-C, a number is called, nobody answers, and all who come after wait for ever.
FIFOLock has a queue of gates instead, one for each waiter. A release opens the first
gate, and who stood there has the lock, without having to look again. Who gives up takes
its gate out of the queue, or passes the lock on if the gate was opened at that very
moment.

Ticket lock: D. P. Reed and R. K. Kanodia, "Synchronization with eventcounts and
sequencers", CACM 22 (2), 1979; under that name in J. M. Mellor-Crummey and M. L. Scott,
"Algorithms for scalable synchronization on shared-memory multiprocessors", ACM TOCS
9 (1), 1991.

Try:  --threads 20

Output:
    0 has the lock, 4 wait for it, and 0 comes again
      TicketLock    serves 0 1 2 3 4 0
      FIFOLock      serves 0 1 2 3 4 0
    one of those who wait goes away
      TicketLock    calls number 1, which nobody has, for ever
      FIFOLock      serves 0 1 3 4 0
    4 threads take a lock again and again
                    acquisitions  longest wait  Jain's index
      Lock             75,257 /s        0.5 ms          99 %
      TicketLock       20,460 /s        0.4 ms         100 %
      FIFOLock         50,922 /s        0.2 ms         100 %
    in order of arrival each waits for those before it, and for nobody else
"""

import argparse
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Self, TypeVar

from example05_barging import contend, in_range

LIMIT = 10.0  # seconds for what is bound to come
PATIENCE = 0.02  # seconds after which one of those who wait gives up
DURATION = 0.1  # seconds for which threads contend for each lock


class TicketLock:
    """A lock that serves in the order in which numbers were drawn.

    Drawing needs a lock of its own, an unfair one, but that is held for a moment only.
    Not for the main thread: Ctrl-C during acquire leaves a number that nobody answers.

    Args:
        on_arrival: called when a number was drawn, before the next one can be.

    Attributes:
        next_ticket: the number that will be drawn next.
        now_serving: the number that is called; the lock is free if both are equal.
    """

    def __init__(self, on_arrival: Callable[[], object] = lambda: None) -> None:
        self._on_arrival = on_arrival
        # Guards both numbers, and is notified when the next one is called.
        self._called = threading.Condition()
        self.next_ticket = 0
        self.now_serving = 0

    def acquire(self) -> None:
        """Wait for the lock, for ever if need be."""
        with self._called:
            ticket = self.next_ticket
            self.next_ticket += 1
            self._on_arrival()
            self._called.wait_for(lambda: self.now_serving == ticket)

    def release(self) -> None:
        """Call the next number.

        Raises:
            RuntimeError: nobody has the lock.
        """
        with self._called:
            if self.now_serving == self.next_ticket:
                raise RuntimeError("release of a lock that is free")
            self.now_serving += 1
            self._called.notify_all()  # each compares; only one goes on

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class FIFOLock:
    """A lock that serves in the order of arrival, and whose waiters may give up.

    Args:
        on_arrival: called when a thread has joined the queue, or got the lock without,
            before the next one can.
    """

    def __init__(self, on_arrival: Callable[[], object] = lambda: None) -> None:
        self._on_arrival = on_arrival
        self._guard = threading.Lock()  # guards both of what follows
        self._holder: threading.Lock | None = None  # the gate of who has the lock
        self._queue: deque[threading.Lock] = deque()  # the closed gates of who waits

    def acquire(self, *, timeout: float = -1) -> bool:
        """Wait for the lock; return whether it was got.

        An exception during the wait, as by Ctrl-C, is like giving up.

        Args:
            timeout: seconds to wait at most; -1 means for ever, as in threading.Lock.

        Raises:
            ValueError, OverflowError: threading.Lock would not wait so long either.
        """
        gate = threading.Lock()
        gate.acquire(timeout=timeout)  # does not wait, but checks the argument
        got = False
        try:
            with self._guard:
                if self._holder is None:
                    self._holder = gate
                else:
                    self._queue.append(gate)
                self._on_arrival()
            # If this thread has it, no other can take it away.
            got = self._holder is gate or gate.acquire(timeout=timeout)
        finally:
            if not got:
                self._withdraw(gate)
        return got

    def release(self) -> None:
        """Give the lock to whoever has waited longest, or to nobody.

        Raises:
            RuntimeError: nobody has the lock.
        """
        with self._guard:
            if self._holder is None:
                raise RuntimeError("release of a lock that is free")
            self._pass_on()

    def _withdraw(self, gate: threading.Lock) -> None:
        with self._guard:
            if gate in self._queue:
                self._queue.remove(gate)
            elif self._holder is gate:  # opened when it was too late
                self._pass_on()

    def _pass_on(self) -> None:
        self._holder = self._queue.popleft() if self._queue else None
        if self._holder is not None:
            self._holder.release()  # its owner goes on; nobody else can come between

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


KINDS = (TicketLock, FIFOLock)
K = TypeVar("K", TicketLock, FIFOLock)


def order_of_service(
    kind: type[TicketLock] | type[FIFOLock], n: int, impatient: int | None = None
) -> list[int]:
    """Return in which order threads 0 … n get a lock if they come in this order.

    Thread 0 keeps it until all others wait; then it releases it, and comes again.

    Args:
        impatient: which of the others gives up after PATIENCE, if any.

    Raises:
        TimeoutError: a thread did not come, or did not get the lock.
    """
    log: list[int] = []  # guarded by the lock
    arrived = threading.Semaphore(0)
    all_wait = threading.Event()
    lock = kind(on_arrival=arrived.release)

    def come(me: int) -> None:
        if me == impatient:
            assert isinstance(lock, FIFOLock), "no other lets waiters give up"
            if not lock.acquire(timeout=PATIENCE):
                return
        else:
            lock.acquire()
        log.append(me)
        if log == [0]:
            all_wait.wait(LIMIT)
        lock.release()

    def come_twice() -> None:
        come(0)
        come(0)

    threads = [threading.Thread(target=come_twice, daemon=True)]
    for me in range(1, n + 1):
        threads.append(threading.Thread(target=come, args=(me,), daemon=True))
    try:
        for thread in threads:
            thread.start()
            if not arrived.acquire(timeout=LIMIT):
                raise TimeoutError("a thread did not come")
        if impatient is not None:
            threads[impatient].join(LIMIT)
    finally:
        all_wait.set()
    for thread in threads:
        thread.join(LIMIT)
        if thread.is_alive():
            raise TimeoutError("a thread did not get the lock")
    return log


def leave(kind: type[K]) -> K:
    """Return a lock after one has begun to wait for it, been interrupted, and gone.

    Who had the lock meanwhile has released it.
    """
    arrivals = count()

    def interrupt() -> None:
        if next(arrivals) == 1:
            raise InterruptedError("as Ctrl-C would be")

    lock = kind(on_arrival=interrupt)
    lock.acquire()
    with suppress(InterruptedError):
        lock.acquire()
    lock.release()
    return lock


def demonstrate(n_threads: int) -> None:
    """Check each claim, and print it."""
    in_order = [*range(n_threads + 1), 0]
    print(f"0 has the lock, {n_threads} wait for it, and 0 comes again")
    for kind in KINDS:
        order = order_of_service(kind, n_threads)
        print(f"  {kind.__name__:13} serves {' '.join(map(str, order))}")
        if order != in_order:
            raise SystemExit(f"{kind.__name__} was to serve first who came first")

    print("one of those who wait goes away")
    ticket = leave(TicketLock)
    if (ticket.now_serving, ticket.next_ticket) != (1, 2):
        raise SystemExit("nobody was to answer number 1")
    print("  TicketLock    calls number 1, which nobody has, for ever")
    middle = (n_threads + 1) // 2
    order = order_of_service(FIFOLock, n_threads, impatient=middle)
    print(f"  FIFOLock      serves {' '.join(map(str, order))}")
    if order != [me for me in in_order if me != middle]:
        raise SystemExit(f"{middle} was to give up, and nobody else")
    if not leave(FIFOLock).acquire(timeout=0):
        raise SystemExit("the lock was to be free")

    print(f"{n_threads} threads take a lock again and again")
    print("                acquisitions  longest wait  Jain's index")
    for lock in (threading.Lock(), TicketLock(), FIFOLock()):
        went = contend(lock, n_threads, DURATION)
        name = type(lock).__name__.replace("lock", "Lock")  # CPython calls it "lock"
        print(
            f"  {name:13} {went.rate:9,.0f} /s  {1000 * went.longest_wait:9.1f} ms"
            f"  {100 * went.fairness:10.0f} %"
        )
    print("in order of arrival each waits for those before it, and for nobody else")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=in_range(2, 20), default=4)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads)
    except TimeoutError as error:
        raise SystemExit(f"a wait did not end: {error}") from None


if __name__ == "__main__":
    main()
