"""Two race detectors find a data race in a run in which nothing went wrong.

Two threads use a variable, one of them writes, and nothing orders the two uses: that is
a data race, and can be seen without losing an update. Variables, locks, queues and
threads note in a log what is done with them, and two algorithms read it:

* Lockset, as in Eraser. Is there a lock that was held at every use by several threads?
  This checks a discipline, so it depends little on the schedule; but it gives a false
  alarm where something else than a lock orders the uses.
* Happens-before, by vector clocks as in DJIT+ and FastTrack. Is there a way from the
  one use to the other, along the threads and from each release, put, start or end of a
  thread to the acquire, get, run or join after it? This gives no false alarm if all
  that orders threads is traced. But it knows this run only: another lock that one gave
  up and the other took by chance in between hides a race.

Neither sees code that has not run. Nor does either see a race condition without a data
race: to read and to write in critical sections of their own loses an update, too.

In practice there are ThreadSanitizer for C and C++, Go's -race and Valgrind's Helgrind.
CPython can be built --with-thread-sanitizer; that checks the interpreter's own memory
and C extensions, not the variables of a Python program. For those there are young
projects only, such as PyVFT for free-threaded builds.

Source: S. Savage et al., "Eraser", ACM TOCS 15 (4), 1997; L. Lamport, "Time, clocks,
and the ordering of events", CACM 21 (7), 1978; C. Flanagan, S. N. Freund, "FastTrack",
PLDI 2009.

Output:
                       counter  lockset      happens-before
    no lock                  2  race         race
    one lock                 2  nothing      nothing
    put and get              2  false alarm  nothing
    join                     2  false alarm  nothing
    lock in between          2  race         missed
      the other first        2  race         race
    two locked halves        1  nothing      nothing
    lockset         counter: A writes in count_visit / B writes in count_click
    happens-before  counter: A writes in count_visit / B reads in count_click
    the one asks for a lock at each use, the other for an order in this run
"""

import queue
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Generic, Literal, NamedTuple, TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds for what is bound to come

Kind = Literal["read", "write", "acquire", "release", "send", "receive"]


class Event(NamedTuple):
    """What a thread did with a variable, with a lock, or with something handed over.

    What a thread does after it has received something comes after all that others did
    before they sent that.
    """

    thread: str
    kind: Kind
    what: object
    where: str = ""  # the function that did it


class Race(NamedTuple):
    """Two uses of a variable, by two threads, which show a race on it."""

    earlier: Event
    later: Event

    def __str__(self) -> str:
        return f"{self.earlier.what}: " + " / ".join(
            f"{event.thread} {event.kind}s in {event.where}" for event in self
        )


def by_lockset(events: Iterable[Event]) -> Iterator[Race]:
    """Yield a race, once, for each variable that no lock has guarded at all uses.

    Uses count from the first one by a second thread on, and one of them must write;
    what comes before is taken for initialisation. The variable is first exclusive, then
    shared, then shared and modified, in Eraser's words. The later use is the one that
    showed it, the earlier one the last use by another thread.
    """
    held: dict[str, set[object]] = defaultdict(set)
    owners: dict[object, str] = {}
    candidates: dict[object, set[object]] = {}  # locks held at all uses so far
    modified: set[object] = set()
    reported: set[object] = set()
    last: dict[object, dict[str, Event]] = defaultdict(dict)  # use, by thread
    for event in events:
        thread, kind, what, _ = event
        if kind == "acquire":
            held[thread].add(what)
        elif kind == "release":
            held[thread].remove(what)
        elif kind in ("read", "write"):
            last[what].pop(thread, None)
            last[what][thread] = event
            if owners.setdefault(what, thread) == thread and what not in candidates:
                continue
            candidates[what] = candidates.get(what, held[thread]) & held[thread]
            if kind == "write":
                modified.add(what)
            if what in modified and not candidates[what] and what not in reported:
                reported.add(what)
                *_, earlier, _ = last[what].values()
                yield Race(earlier, event)


def by_happens_before(events: Iterable[Event]) -> Iterator[Race]:
    """Yield a race for each two uses, of which one writes, that nothing orders.

    Of the earlier uses only each thread's last read and last write are looked at: what
    comes after these comes after those before them. (FastTrack is fast because one
    of them all is mostly enough.)
    """
    # The vector clock of each thread: its own count, which grows with each send, and
    # the counts of others up to which it comes after all that they did.
    clocks: dict[str, dict[str, int]] = {}
    sent: dict[object, dict[str, int]] = defaultdict(dict)  # the clocks of its senders
    # For each variable, by thread and kind of use: the count and the use.
    last: dict[object, dict[tuple[str, str], tuple[int, Event]]] = defaultdict(dict)
    for event in events:
        thread, kind, what, _ = event
        clock = clocks.setdefault(thread, {thread: 1})
        if kind in ("acquire", "receive"):
            advance(clock, sent[what])
        elif kind in ("release", "send"):
            advance(sent[what], clock)
            clock[thread] += 1
        else:
            for (other, use), (count, earlier) in last[what].items():
                if "write" in (use, kind) and clock.get(other, 0) < count:
                    yield Race(earlier, event)
            last[what][thread, kind] = clock[thread], event


def advance(clock: dict[str, int], other: dict[str, int]) -> None:
    """Let `clock` know what `other` knows."""
    for thread, count in other.items():
        clock[thread] = max(count, clock.get(thread, 0))


class Recorder:
    """Makes traced objects, each of which notes what is done with it, and by whom.

    Attributes:
        log: the events. A release and a put are noted before they are done, an acquire
            and a get after that: so what comes first in fact comes first here.
    """

    def __init__(self) -> None:
        # Guarded by nothing: append is a single call, on free-threaded builds, too.
        self.log: list[Event] = []

    def note(self, kind: Kind, what: object) -> None:
        """Note what this thread does, and which function has called the caller."""
        where = sys._getframe(2).f_code.co_name
        self.log.append(Event(threading.current_thread().name, kind, what, where))


class TracedVariable(Generic[T]):
    """A variable whose uses are noted."""

    def __init__(self, recorder: Recorder, name: str, value: T) -> None:
        self.untraced = value
        self._recorder = recorder
        self._name = name

    def get(self) -> T:
        self._recorder.note("read", self._name)
        return self.untraced

    def set(self, value: T) -> None:
        self._recorder.note("write", self._name)
        self.untraced = value


class TracedLock:
    """A lock, for `with` statements."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()
        self._recorder.note("acquire", self)

    def __exit__(self, *_: object) -> None:
        self._recorder.note("release", self)
        self._lock.release()


class TracedQueue(Generic[T]):
    """A queue; who gets an item comes after who has put it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._queue: queue.SimpleQueue[tuple[object, T]] = queue.SimpleQueue()

    def put(self, item: T) -> None:
        token = object()
        self._recorder.note("send", token)
        self._queue.put((token, item))

    def get(self) -> T:
        """Wait for an item; raises queue.Empty after LIMIT seconds."""
        token, item = self._queue.get(timeout=LIMIT)
        self._recorder.note("receive", token)
        return item


class TracedThread(threading.Thread):
    """A thread that comes after its start, and before those that have joined it.

    Args:
        name: by which it stands in the log; no other is to have the same.

    Attributes:
        error: what its function raised; None if it did not, or has not ended.
    """

    def __init__(
        self, recorder: Recorder, name: str, function: Callable[[], object]
    ) -> None:
        super().__init__(name=name, daemon=True)
        self.error: BaseException | None = None
        self._recorder = recorder
        self._function = function

    def start(self) -> None:
        self._recorder.note("send", (self, "start"))
        super().start()

    def run(self) -> None:
        self._recorder.note("receive", (self, "start"))
        try:
            self._function()
        except BaseException as error:
            self.error = error
        self._recorder.note("send", (self, "end"))

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if not self.is_alive():
            self._recorder.note("receive", (self, "end"))


class Site:
    """What the threads of the demonstration share."""

    def __init__(self, recorder: Recorder) -> None:
        self.counter = TracedVariable(recorder, "counter", 0)
        self.lines = TracedVariable(recorder, "lines", 0)  # guarded by `lock`
        self.lock = TracedLock(recorder)
        self.queue: TracedQueue[str] = TracedQueue(recorder)
        self.both_have_read = threading.Barrier(2, timeout=LIMIT)  # not traced


def count_visit(site: Site) -> None:
    site.counter.set(site.counter.get() + 1)


def count_click(site: Site) -> None:
    site.counter.set(site.counter.get() + 1)


def log_line(site: Site) -> None:
    with site.lock:
        site.lines.set(site.lines.get() + 1)


def visit_locked(site: Site) -> None:
    with site.lock:
        count_visit(site)


def click_locked(site: Site) -> None:
    with site.lock:
        count_click(site)


def visit_put(site: Site) -> None:
    count_visit(site)
    site.queue.put("yours")


def get_click(site: Site) -> None:
    site.queue.get()
    count_click(site)


def visit_log(site: Site) -> None:
    count_visit(site)
    log_line(site)


def log_click(site: Site) -> None:
    log_line(site)
    count_click(site)


def in_halves(site: Site) -> None:
    with site.lock:
        seen = site.counter.get()
    site.both_have_read.wait()
    with site.lock:
        site.counter.set(seen + 1)


Job = Callable[[Site], None]


# What is waited for before B is started: the end of A; the same, but not so that the
# log tells of it, since it stands for chance; nothing.
Wait = Literal["join", "chance", "none"]


def record(first: Job, second: Job, wait: Wait) -> tuple[int, list[Event]]:
    """Do two jobs in threads A and B; return the counter in the end, and the log.

    Raises:
        TimeoutError: a thread has not ended within LIMIT seconds.
        Exception: what a job has raised.
    """
    recorder = Recorder()
    site = Site(recorder)
    threads = [
        TracedThread(recorder, name, partial(job, site))
        for name, job in (("A", first), ("B", second))
    ]
    try:
        for thread in threads:
            thread.start()
            if wait == "join":
                thread.join(LIMIT)
            elif wait == "chance":
                threading.Thread.join(thread, LIMIT)
        for thread in threads:
            thread.join(LIMIT)
    finally:
        site.both_have_read.abort()  # after Ctrl-C one may wait there
        for thread in threads:
            if thread.ident is not None:  # or it has not been started
                threading.Thread.join(thread, LIMIT)
    for thread in threads:
        if thread.error is not None:
            raise thread.error
        if thread.is_alive():
            raise TimeoutError(f"thread {thread.name} has not ended")
    return site.counter.untraced, recorder.log


def finding(races: list[Race], is_racy: bool) -> str:
    """Return in words what a detector has found, and whether it is right."""
    if races:
        return "race" if is_racy else "false alarm"
    return "missed" if is_racy else "nothing"


# What is run: the jobs, that of A first; what is waited for; whether they have a data
# race; and what the two detectors find.
RUNS: list[tuple[str, Job, Job, Wait, bool, tuple[str, str]]] = [
    ("no lock", count_visit, count_click, "chance", True, ("race", "race")),
    ("one lock", visit_locked, click_locked, "chance", False, ("nothing", "nothing")),
    ("put and get", visit_put, get_click, "chance", False, ("false alarm", "nothing")),
    ("join", count_visit, count_click, "join", False, ("false alarm", "nothing")),
    ("lock in between", visit_log, log_click, "chance", True, ("race", "missed")),
    ("  the other first", log_click, visit_log, "chance", True, ("race", "race")),
    ("two locked halves", in_halves, in_halves, "none", False, ("nothing", "nothing")),
]


def main() -> None:
    print(f"{'':19}counter  lockset      happens-before")
    reports = []
    for name, first, second, wait, is_racy, expected in RUNS:
        try:
            counter, log = record(first, second, wait)
        except (TimeoutError, queue.Empty, threading.BrokenBarrierError) as error:
            raise SystemExit(f"{name}: {error!r}") from None
        found = list(by_lockset(log)), list(by_happens_before(log))
        findings = tuple(finding(races, is_racy) for races in found)
        print(f"{name:19}{counter:7}  {findings[0]:13}{findings[1]}")
        if findings != expected:
            raise SystemExit(f"{name}: {' and '.join(expected)} was to be found")
        if counter != (1 if first is in_halves else 2):
            raise SystemExit(f"{name}: the counter was not to be {counter}")
        reports.append([str(races[0]) for races in found if races])
    print(f"lockset         {reports[0][0]}")
    print(f"happens-before  {reports[0][1]}")
    print("the one asks for a lock at each use, the other for an order in this run")


if __name__ == "__main__":
    main()
