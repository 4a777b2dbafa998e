"""A checker that warns of a deadlock that could happen, in a run in which none did.

A deadlock takes an unlucky moment, and tests seldom meet it. That the locks are taken
in different orders can be seen in every run. Who asks for B while holding A says "A
before B"; if someone else says "B before A", each can wait for the other, though the
two may have been hours apart. So the checker notes each request of a thread that holds
locks, with the stack where it was first made, and looks whether the noted ones lead
from the wanted lock back to a held one. It looks before the thread waits, and so warns
even if the deadlock happens now.

Not every cycle is one that threads can be in. Those in a deadlock hold different
locks; if two of the requests were made under a common lock, a gate, the one thread
keeps the other out, and nothing is reported. A request that does not wait for ever
(`blocking=False`, or a time-out) cannot be part of a deadlock and is not noted, but
what it took is held. An RLock that is taken again is not waited for. Which threads it
was does not matter: what one has done in two orders, two may do another day.

Linux has lockdep, which takes all locks that one line of code initialises for one
class, and so need not see the same two objects twice; here each lock is its own. C and
C++ programs have ThreadSanitizer and Valgrind's Helgrind, Go has go-deadlock. None can
warn of an order in which no run has taken the locks.

Source: K. Havelund, "Using runtime analysis to guide model checking of Java programs",
SPIN 2000 (the gates); S. Bensalem, K. Havelund, "Dynamic deadlock analysis of
multi-threaded programs", Haifa Verification Conference 2005.

Output:
    pay, later audit            an inversion
        journal before account  audit > take: with lock:
        account before journal  pay > take: with lock:
        at the same time, neither thread can have its second lock
    pay, print, bill            an inversion
        printer before account  bill > take: with lock:
        account before journal  pay > take: with lock:
        journal before printer  print_out > take: with lock:
    pay, print, pay again       nothing to report
    both behind a gate          nothing to report
    audit if free               nothing to report
    inside another lock         Lock 0.13 µs, a checked one 1.84 µs
    two orders are a deadlock that waits for its moment; one order has none
"""

import threading
import timeit
import traceback
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

LIMIT = 10.0  # seconds that a step of the demonstration may take
OWN_FRAMES = 3  # of CheckedLock and LockOrder, at the end of each stack
BATCHES, BATCH = 10, 500  # acquisitions that are timed


@dataclass(eq=False, frozen=True, slots=True)
class Node:
    """What is noted of a lock. The lock itself may be gone."""

    name: str
    lock: "weakref.ref[CheckedLock]"


@dataclass(eq=False, frozen=True, slots=True)
class Request:
    """A thread that held some locks has asked for another, here for the first time."""

    held: frozenset[Node]
    wanted: Node
    thread: str
    stack: traceback.StackSummary


@dataclass(eq=False, frozen=True, slots=True)
class Inversion:
    """Requests of which each wants a lock that the next one holds, in a cycle.

    Made at the same time by as many threads, they are a deadlock. The first is the one
    that has closed the cycle. If it is the only one, a thread waits for itself.
    """

    requests: tuple[Request, ...]

    def orders(self) -> Iterator[tuple[str, str, Request]]:
        """Yield for each request the lock held, the one wanted after it, and itself."""
        for k, request in enumerate(self.requests):
            yield self.requests[k - 1].wanted.name, request.wanted.name, request

    def __str__(self) -> str:
        return "\n".join(
            f"{before} before {after}, in {request.thread}:\n"
            + "".join(request.stack.format())
            for before, after, request in self.orders()
        )


class _Held(threading.local):
    """The locks that a thread holds, in the order in which it took them."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []


class LockOrder:
    """Notes in which orders the locks that it makes are taken.

    Args:
        report: called with each Inversion, once, in the thread whose request has closed
            it, and before that waits. If it raises, the lock is not taken.

    A request that was made before costs a look-up, a new one a search through all: in
    the worst case, of many cycles behind gates, through all their combinations.
    """

    def __init__(self, report: Callable[[Inversion], object]) -> None:
        self._report = report
        # Guards what follows, and for each thread the list of what it holds. Finalizers
        # and signal handlers may interrupt its holder, and must not use checked locks.
        self._mutex = threading.Lock()
        # None for a request that was reported: no later cycle is led through it, or
        # one mistake would be reported again and again.
        self._requests: dict[tuple[frozenset[Node], Node], Request | None] = {}
        self._mine = _Held()

    def lock(self, name: str) -> "CheckedLock":
        """Make a lock, called `name` in reports."""
        return CheckedLock(self, name, threading.Lock())

    def rlock(self, name: str) -> "CheckedLock":
        """Make a lock that its holder may take again."""
        return CheckedLock(self, name, threading.RLock(), reentrant=True)

    def _ask(self, wanted: Node) -> None:
        """Note that this thread is about to wait for `wanted`; report an inversion."""
        if not self._mine.nodes:
            return
        with self._mutex:
            held = frozenset(self._mine.nodes)
            if (held, wanted) in self._requests:
                return
            self._forget()
            stack = traceback.extract_stack()
            del stack[-OWN_FRAMES:]
            thread = threading.current_thread().name
            request = Request(held, wanted, thread, stack)
            cycle = self._cycle(request)
            self._requests[held, wanted] = None if cycle else request
        if cycle:
            self._report(Inversion(cycle))

    def _forget(self) -> None:
        """Forget the locks that are gone: nobody will hold them, or want them."""
        kept = {}
        for (held, wanted), request in self._requests.items():
            left = frozenset(node for node in held if node.lock() is not None)
            if left and wanted.lock() is not None:
                kept[left, wanted] = request and replace(request, held=left)
        self._requests = kept

    def _cycle(self, new: Request) -> tuple[Request, ...]:
        """Return a shortest cycle through `new` that threads can be in, or ()."""
        if new.wanted in new.held:
            return (new,)
        # Those from which one comes back to `new` at all: mostly none.
        back: list[Request] = []
        goals = set(new.held)
        rest = [request for request in self._requests.values() if request]
        while found := [request for request in rest if request.wanted in goals]:
            back += found
            rest = [request for request in rest if request.wanted not in goals]
            goals.update(*(request.held for request in found))
        paths: deque[tuple[Request, ...]] = deque([(new,)])
        while paths:
            path = paths.popleft()
            for request in back:
                if path[-1].wanted not in request.held:
                    continue
                if any(request.held & other.held for other in path):
                    continue  # what both hold, only one can: they are never together
                if request.wanted in new.held:
                    return (*path, request)
                paths.append((*path, request))
        return ()


class CheckedLock:
    """A Lock or an RLock whose order among others is noted in a `LockOrder`.

    A Lock may be released by another thread, as usual. A Ctrl-C in the midst of acquire
    or release may leave it locked, or noted as held though it is free: Python code
    cannot rule it out.
    """

    def __init__(
        self,
        order: LockOrder,
        name: str,
        lock: "threading.Lock | threading.RLock",
        reentrant: bool = False,
    ) -> None:
        self._order = order
        self._node = Node(name, weakref.ref(self))
        self._lock = lock
        self._reentrant = reentrant
        # What the thread that holds this lock holds. Guarded by the mutex of _order.
        self._holder: list[Node] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock as the wrapped one would, once the order is noted."""
        return self._acquire(blocking, timeout)

    def release(self) -> None:
        """Release the lock; raises RuntimeError where the wrapped one would."""
        with self._order._mutex:
            self._lock.release()  # who gets it cannot note it before the next line
            self._holder.remove(self._node)

    def locked(self) -> bool:
        """Tell whether a thread holds the lock."""
        with self._order._mutex:
            return self._node in self._holder

    def __enter__(self) -> bool:
        return self._acquire(blocking=True, timeout=-1)

    def __exit__(self, *_: object) -> None:
        self.release()

    def _acquire(self, blocking: bool, timeout: float) -> bool:
        mine = self._order._mine.nodes
        again = self._reentrant and self._node in mine
        if blocking and timeout == -1 and not again:
            self._order._ask(self._node)
        got = self._lock.acquire(blocking, timeout)
        if got:
            with self._order._mutex:
                self._holder = mine
                mine.append(self._node)
        return got


Job = Callable[[CheckedLock, CheckedLock, CheckedLock], object]


def take(lock: CheckedLock) -> None:
    with lock:
        pass


def pay(account: CheckedLock, journal: CheckedLock, _: CheckedLock) -> None:
    """Take a lock, and another one in a function that it calls."""
    with account:
        take(journal)


def audit(account: CheckedLock, journal: CheckedLock, _: CheckedLock) -> None:
    """Take the same two in the other order."""
    with journal:
        take(account)


def audit_if_free(account: CheckedLock, journal: CheckedLock, _: CheckedLock) -> None:
    """Take them in the other order, and do not wait for the second."""
    with journal:
        if account.acquire(blocking=False):
            account.release()


def print_out(_: CheckedLock, journal: CheckedLock, printer: CheckedLock) -> None:
    with journal:
        take(printer)


def bill(account: CheckedLock, _: CheckedLock, printer: CheckedLock) -> None:
    with printer:
        take(account)


def alone(job: Job) -> Job:
    """Return `job` done while holding the third lock: one of these at a time."""

    def behind_gate(one: CheckedLock, two: CheckedLock, gate: CheckedLock) -> None:
        with gate:
            job(one, two, gate)

    return behind_gate


def inversions(*jobs: Job) -> list[Inversion]:
    """Do each job with the same three locks, and return what is reported.

    Each has a thread of its own, which has ended before the next one begins: none ever
    waits for a lock.
    """
    found: list[Inversion] = []
    order = LockOrder(found.append)
    locks = [order.lock(name) for name in ("account", "journal", "printer")]
    for job in jobs:
        with ThreadPoolExecutor(max_workers=1) as thread:
            thread.submit(job, *locks).result()
    return found


def can_deadlock() -> bool:
    """Let two threads each hold a lock; tell whether neither can have the other's."""
    order = LockOrder(lambda inversion: None)
    one, two = order.lock("account"), order.lock("journal")
    both_hold_one, both_have_tried = threading.Barrier(2), threading.Barrier(2)

    def hold_and_try(own: CheckedLock, other: CheckedLock) -> bool:
        with own:
            both_hold_one.wait(LIMIT)
            got = other.acquire(blocking=False)
            both_have_tried.wait(LIMIT)
            if got:
                other.release()
            return got

    with ThreadPoolExecutor(max_workers=2) as pool:
        try:
            return not any(pool.map(hold_and_try, [one, two], [two, one]))
        finally:  # after Ctrl-C, for one, perhaps before both have started
            both_hold_one.abort()
            both_have_tried.abort()


def where(request: Request) -> str:
    """Return which functions of this script have led to a request, and its line."""
    here = where.__code__.co_filename
    frames = [frame for frame in request.stack if frame.filename == here]
    return f"{' > '.join(frame.name for frame in frames)}: {frames[-1].line}"


def show(heading: str, found: list[Inversion], n_requests: int) -> None:
    """Print what was found, with the stacks in short.

    Raises:
        SystemExit: it is not one inversion of `n_requests`, or for 0 not nothing.
    """
    sizes = [len(inversion.requests) for inversion in found]
    if sizes != ([n_requests] if n_requests else []):
        raise SystemExit(f"{heading}: inversions of {sizes} requests, not {n_requests}")
    print(f"{heading:27} {'an inversion' if found else 'nothing to report'}")
    for inversion in found:
        for before, after, request in inversion.orders():
            print(f"    {f'{before} before {after}':23} {where(request)}")


def microseconds(lock: "threading.Lock | CheckedLock") -> float:
    """Return how long acquire and release take if nobody else wants `lock`."""
    calls = "lock.acquire(); lock.release()"
    taken = timeit.repeat(calls, globals={"lock": lock}, number=BATCH, repeat=BATCHES)
    return 1e6 * min(taken) / BATCH


def main() -> None:
    show("pay, later audit", inversions(pay, audit), 2)
    if not can_deadlock():
        raise SystemExit("in opposite orders, both were to miss their second lock")
    print("    at the same time, neither thread can have its second lock")
    show("pay, print, bill", inversions(pay, print_out, bill), 3)
    show("pay, print, pay again", inversions(pay, print_out, pay), 0)
    show("both behind a gate", inversions(alone(pay), alone(audit)), 0)
    show("audit if free", inversions(pay, audit_if_free), 0)

    order = LockOrder(lambda inversion: None)
    plain = microseconds(threading.Lock())
    with order.lock("outer"):
        checked = microseconds(order.lock("inner"))
    costs = f"Lock {plain:.2f} µs, a checked one {checked:.2f} µs"
    print(f"inside another lock         {costs}")
    print("two orders are a deadlock that waits for its moment; one order has none")


if __name__ == "__main__":
    main()
