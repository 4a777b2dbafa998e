"""A lock for many readers or one writer, to copy: three policies, with time limits.

Readers may be inside together, a writer must be alone. If both kinds wait, a policy
says who goes in first. With READERS a reader never stands behind a writer that waits,
with WRITERS it never goes in before one; either may starve the other kind (Chapter 13
shows it). With FAIR all go in as they came, so a wait is bounded by the queue ahead,
whoever comes later; readers who stand one behind the other still go in together.

Each who waits has a gate of its own. Who leaves opens the gates of those whose turn it
is, and of nobody else; they need not look again, and nobody can come between. Who gives
up, because of a time limit or Ctrl-C, leaves no gap: readers behind a writer that has
gone go in at once.

The lock is not reentrant. A thread that is inside and comes again might wait for
itself, as would one that reads and wants to write (an upgrade). It gets a RuntimeError
instead; it has to leave first, and to look again at what it has read.

It pays where readers stay long and wait inside, for a disk or the network, or compute
without the GIL. Otherwise take a `threading.Lock`, which is many times cheaper. The
packages readerwriterlock and fasteners have such locks, aiorwlock has one for asyncio.

Source: P. J. Courtois, F. Heymans, D. L. Parnas, "Concurrent control with 'readers' and
'writers'", CACM 14 (10), 1971 (readers first, writers first); J. M. Mellor-Crummey and
M. L. Scott, "Scalable reader-writer synchronization for shared-memory multiprocessors",
PPoPP 1991 (a fair queue in which each waits for a flag of its own).

Output:
    r0 is inside; then come w1 r2 r3 w4 r5
      fair            r0 | w1 | r2 r3 | w4 | r5
      readers first   r0 r2 r3 r5 | w1 | w4
      writers first   r0 | w1 | w4 | r2 r3 r5
    fair, 30 queues: nobody is overtaken, neighbours read together
    a writer gives up, by its time limit or interrupted: who was behind reads
    who is inside and comes again, or wants to write as well: RuntimeError
                   free  4 readers, 10 stays of 1 ms each
      Lock       501 ns    46.8 ms
      read()   6,729 ns    22.5 ms
      write()  5,011 ns    51.9 ms
    in a fair queue each waits for those before it; readers share the room
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from enum import Enum
from itertools import groupby, product

LIMIT = 10.0  # seconds for what is bound to come
PATIENCE = 0.02  # seconds after which a writer gives up
STAY = 0.001  # seconds that a reader stays when the time is measured
VISITS = 10  # of each reader then
N_READERS = 4  # that come again and again then
TIMES = 2000  # that a free lock is taken to measure what that costs
ROUNDS = 5  # of which the fastest counts: other programs can only make one slower


class Policy(Enum):
    """Who goes in first if readers and writers wait."""

    FAIR = "fair"
    READERS = "readers first"
    WRITERS = "writers first"


class Visit:
    """A thread's wish to go in, once."""

    __slots__ = ("gate", "thread", "ticket", "writes")

    def __init__(self, thread: int, writes: bool, ticket: int) -> None:
        self.thread = thread
        self.writes = writes
        self.ticket = ticket
        # Closed; opened once, by who lets the visit in.
        self.gate = threading.Lock()
        self.gate.acquire()


class ReadersWriterLock:
    """Lets in many readers or one writer: `with lock.read():`, `with lock.write():`.

    Not reentrant, and not to be upgraded: a thread that is inside cannot come again.
    (What Python code cannot rule out is Ctrl-C between two steps of going in or out. It
    hits the main thread only.)

    Args:
        policy: who goes in first if both kinds wait.
        on_wait: called by each thread that has joined the queue, before it waits. If it
            raises, as Ctrl-C would, the thread gives up.
    """

    def __init__(
        self,
        policy: Policy = Policy.FAIR,
        on_wait: Callable[[], object] = lambda: None,
    ) -> None:
        self.policy = policy
        self._on_wait = on_wait
        # Guards all that follows, and is held for a few steps only. Whoever has changed
        # something lets in those who now may go in, before giving it back.
        self._guard = threading.Lock()
        self._readers: set[int] = set()  # the threads inside that read
        self._writer: int | None = None  # the thread inside that writes
        # Who waits, in the order of arrival: readers at False, writers at True.
        self._waiting: tuple[deque[Visit], deque[Visit]] = (deque(), deque())
        self._tickets = 0  # drawn by those who had to wait

    @contextmanager
    def read(self, timeout: float | None = None) -> Iterator[None]:
        """Be inside, perhaps with other readers, for the length of a block.

        Args:
            timeout: seconds to wait at most; 0 means not to wait, None for ever.

        Raises:
            ValueError: `timeout` is negative or not a number.
            TimeoutError: it was not this thread's turn in time; the block is not run.
            RuntimeError: this thread is inside already, and might wait for itself.
        """
        self._enter(False, timeout)
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def write(self, timeout: float | None = None) -> Iterator[None]:
        """Be inside alone for the length of a block; all else is as for `read`."""
        self._enter(True, timeout)
        try:
            yield
        finally:
            self._leave()

    @property
    def inside(self) -> int:
        """How many are inside, which may be wrong a moment later."""
        with self._guard:
            return len(self._readers) + (self._writer is not None)

    def __repr__(self) -> str:
        with self._guard:
            readers, writers = map(len, self._waiting)
            inside = (
                f"{len(self._readers)} readers, {self._writer is not None:d} writers"
            )
        return (
            f"<{type(self).__name__}, {self.policy.value}: {inside} inside;"
            f" {readers} readers, {writers} writers wait>"
        )

    def _enter(self, writes: bool, timeout: float | None) -> None:
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"the time-out cannot be {timeout:g} s")
        me = threading.get_ident()
        with self._guard:
            if me == self._writer or me in self._readers:
                kind = "writes" if me == self._writer else "reads"
                wanted = "write" if writes else "read"
                name = threading.current_thread().name
                raise RuntimeError(f"{name} {kind} already, and wants to {wanted}")
            overtakes = not writes and self.policy is Policy.READERS
            if self._has_room(writes) and (overtakes or not any(self._waiting)):
                self._let_in(me, writes)
                return
            visit = Visit(me, writes, self._tickets)
            self._tickets += 1
            self._waiting[writes].append(visit)
        went_in = False
        try:
            self._on_wait()
            went_in = visit.gate.acquire(
                timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)
            )
        finally:
            if not went_in:
                self._withdraw(visit)
        if not went_in:
            kind = "write" if writes else "read"
            raise TimeoutError(f"no turn to {kind} within {timeout:g} s")

    def _leave(self) -> None:
        me = threading.get_ident()
        with self._guard:
            if self._writer == me:
                self._writer = None
            else:
                self._readers.remove(me)
            self._let_in_all()

    def _withdraw(self, visit: Visit) -> None:
        with self._guard:
            waiting = self._waiting[visit.writes]
            if visit in waiting:
                waiting.remove(visit)
                self._let_in_all()  # who stood behind it, perhaps
                return
        self._leave()  # it was let in when it was too late

    def _let_in_all(self) -> None:
        while (visit := self._first()) and self._has_room(visit.writes):
            self._waiting[visit.writes].popleft()
            self._let_in(visit.thread, visit.writes)
            visit.gate.release()

    def _first(self) -> Visit | None:
        """Return who is to go in next, whether there is room or not."""
        readers, writers = self._waiting
        if not readers or not writers:
            return next(iter(readers or writers), None)
        if self.policy is Policy.READERS:
            return readers[0]
        if self.policy is Policy.WRITERS or writers[0].ticket < readers[0].ticket:
            return writers[0]
        return readers[0]

    def _has_room(self, writes: bool) -> bool:
        return self._writer is None and not (writes and self._readers)

    def _let_in(self, thread: int, writes: bool) -> None:
        assert self._writer is None, "nobody goes in beside a writer"
        if writes:
            assert not self._readers, "a writer goes in alone"
            self._writer = thread
        else:
            self._readers.add(thread)


def groups_inside(policy: Policy, kinds: str) -> list[list[str]]:
    """Let visitors come one by one; return who was inside together, in this order.

    All stay until the last has come. From then on whoever is inside stays until all
    are who were let in at once.

    Args:
        kinds: r for a reader, w for a writer. Their names are r0, w1 and so on.

    Raises:
        TimeoutError: one did not come, or did not get in.
    """
    signals = threading.Semaphore(0)  # one when a visitor must wait, one when it is in
    lock = ReadersWriterLock(policy, on_wait=signals.release)
    entered: list[str] = []
    may_leave = {f"{kind}{n}": threading.Event() for n, kind in enumerate(kinds)}

    def visit(name: str) -> None:
        with (lock.write if name[0] == "w" else lock.read)(LIMIT):
            entered.append(name)
            signals.release()
            may_leave[name].wait(LIMIT)

    def until_signals(n: int) -> None:
        for _ in range(n):
            if not signals.acquire(timeout=LIMIT):
                raise TimeoutError("a visitor was to come, or to go in")

    groups: list[list[str]] = []
    with ThreadPoolExecutor(len(kinds)) as pool:
        try:
            visits: dict[str, Future[None]] = {}
            for name in may_leave:
                visits[name] = pool.submit(visit, name)
                until_signals(1)
            while (n_seen := sum(map(len, groups))) < len(kinds):
                group = sorted(entered[n_seen:])
                if not group:
                    raise TimeoutError("visitors wait, and nobody is inside")
                groups.append(group)
                for name in group:
                    may_leave[name].set()
                for name in group:
                    visits[name].result(LIMIT)
                until_signals(lock.inside)  # the last to leave has let them in
        finally:  # also after Ctrl-C, perhaps before all have come
            for event in may_leave.values():
                event.set()
    return groups


def give_up(policy: Policy, interrupt: bool) -> tuple[str, int]:
    """Let a writer wait for a reader, and a reader behind it; let the writer give up.

    Args:
        interrupt: end its wait as Ctrl-C would, and not by its time limit.

    Returns:
        What the writer has raised; how many are inside when the second reader is.

    Raises:
        TimeoutError: a thread did not come, or did not get in.
    """
    behind = threading.Event()  # set when the second reader waits
    writer_waits = threading.Event()
    is_inside, may_leave = threading.Semaphore(0), threading.Event()

    def on_wait() -> None:
        if writer_waits.is_set():
            behind.set()
            return
        writer_waits.set()
        behind.wait(LIMIT)
        if interrupt:
            raise InterruptedError("as Ctrl-C would")

    lock = ReadersWriterLock(policy, on_wait)

    def read() -> None:
        with lock.read(LIMIT):
            is_inside.release()
            may_leave.wait(LIMIT)

    def write() -> None:
        with lock.write(PATIENCE):
            pass

    with ThreadPoolExecutor(3) as pool:
        try:
            pool.submit(read)
            if not is_inside.acquire(timeout=LIMIT):
                raise TimeoutError("a reader was to go in")
            writer = pool.submit(write)
            if not writer_waits.wait(LIMIT):
                raise TimeoutError("the writer was to wait")
            pool.submit(read)
            if not is_inside.acquire(timeout=LIMIT):
                raise TimeoutError("a reader waits behind a writer that has gone")
            n_inside = lock.inside
            return type(writer.exception(LIMIT)).__name__, n_inside
        finally:
            behind.set()
            may_leave.set()


def refusal(lock: ReadersWriterLock, first: str, then: str) -> str:
    """Let this thread go in twice; return what it is told.

    Args:
        first, then: "read" or "write".
    """
    with getattr(lock, first)():
        try:
            with getattr(lock, then)(LIMIT):
                return "nothing"
        except RuntimeError as error:
            return str(error)


def cost(make: Callable[[], AbstractContextManager[object]]) -> float:
    """Return the nanoseconds that it takes to go in and out: the fastest of ROUNDS.

    Args:
        make: returns what is to stand behind `with`.
    """

    def once() -> float:
        began = time.perf_counter()
        for _ in range(TIMES):
            with make():
                pass
        return 1e9 * (time.perf_counter() - began) / TIMES

    return min(once() for _ in range(ROUNDS))


def milliseconds_of_visits(make: Callable[[], AbstractContextManager[object]]) -> float:
    """Return what N_READERS threads take that stay, VISITS times each, for STAY."""

    def visit(_: int) -> None:
        for _ in range(VISITS):
            with make():
                time.sleep(STAY)

    began = time.perf_counter()
    with ThreadPoolExecutor(N_READERS) as pool:
        list(pool.map(visit, range(N_READERS)))
    return 1000 * (time.perf_counter() - began)


def check(what: str, seen: object, expected: object) -> None:
    """End the program if something else was seen than expected."""
    if seen != expected:
        raise SystemExit(f"{what}: {expected} was to be seen, not {seen}")


def demonstrate() -> None:
    """Check each claim, and print it."""
    print("r0 is inside; then come w1 r2 r3 w4 r5")
    for policy, expected in (
        (Policy.FAIR, "r0 | w1 | r2 r3 | w4 | r5"),
        (Policy.READERS, "r0 r2 r3 r5 | w1 | w4"),
        (Policy.WRITERS, "r0 | w1 | w4 | r2 r3 r5"),
    ):
        seen = " | ".join(map(" ".join, groups_inside(policy, "rwrrwr")))
        check(policy.value, seen, expected)
        print(f"  {policy.value:15} {seen}")

    queues = ["".join(kinds) for n in range(1, 5) for kinds in product("rw", repeat=n)]
    for kinds in queues:
        names = [f"{kind}{n}" for n, kind in enumerate(kinds)]
        alike = groupby(names, key=lambda name: name if name[0] == "w" else "r")
        expected_groups = [list(group) for _, group in alike]
        check(kinds, groups_inside(Policy.FAIR, kinds), expected_groups)
    print(f"fair, {len(queues)} queues: nobody is overtaken, neighbours read together")

    for interrupt, error in ((False, "TimeoutError"), (True, "InterruptedError")):
        check("giving up", give_up(Policy.FAIR, interrupt), (error, 2))
    print("a writer gives up, by its time limit or interrupted: who was behind reads")

    lock = ReadersWriterLock()
    for first, then in product(("read", "write"), repeat=2):
        name = threading.current_thread().name
        told = f"{name} {first}s already, and wants to {then}"
        check("coming again", refusal(lock, first, then), told)
    print("who is inside and comes again, or wants to write as well: RuntimeError")

    plain = threading.Lock()
    makers: dict[str, Callable[[], AbstractContextManager[object]]] = {
        "Lock": lambda: plain,
        "read()": lock.read,
        "write()": lock.write,
    }
    print(
        f"{'':15}free  {N_READERS} readers, {VISITS} stays of {1000 * STAY:g} ms each"
    )
    for name, make in makers.items():
        print(
            f"  {name:8}{cost(make):6,.0f} ns  {milliseconds_of_visits(make):6.1f} ms"
        )


def main() -> None:
    try:
        demonstrate()
    except TimeoutError as error:
        raise SystemExit(f"a wait did not end: {error}") from None
    print("in a fair queue each waits for those before it; readers share the room")


if __name__ == "__main__":
    main()
