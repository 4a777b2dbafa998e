"""Double-checked: who finds the thing there takes no lock, so it must be complete then.

A thing is to be made once, when it is first asked for. A lock held by all who ask is
right, and they pay for it for ever, though after the first time there is only something
to read. So look before taking the lock, and, with the lock, again: another thread may
have made it meanwhile.

Those who look without the lock see the reference as soon as it is stored. If it is
stored before the object is complete, they use half of it; here one does, in every run.
Nobody writes it that way. But a compiler or a processor may put the store of the
reference before those of the fields, and nothing portable in Java before 5 and C++
before 11 could forbid it: double-checked locking was broken there. Today it takes
`volatile` in Java, a release store and an acquire load in C++. In CPython, to store the
reference is enough (example04).

`Lazy` is to be copied. However many ask, the thing is made once. If that fails, who
asked is told so, and the next one tries again. To make it by asking for it is an error
at once; with a plain lock, the thread would wait for itself for ever.

Usually none of this is needed. What stands in a module is made once, when it is
imported, under a lock of the import system. `functools.cache` is fast, and holds no
lock while it calls the function, nor does `cached_property` since 3.12 (Chapter 14):
threads that ask at once make one each, which is fine where another one does no harm.

Sources: D. Bacon et al., The "Double-Checked Locking is Broken" Declaration, 2000.
S. Meyers and A. Alexandrescu, C++ and the Perils of Double-Checked Locking, 2004.

Try:  --threads 2

Output:
    stored too soon  another thread sees half
    Lazy             another thread waits, then sees all
    20 threads ask at once, and make    to ask for it later
    no lock                       20                 246 ns
    always a lock                  1                 884 ns
    Lazy                           1                 243 ns
    functools.cache               20                  75 ns
    what fails is tried again, what asks for itself is refused
    complete, then stored: a look without the lock finds nothing or all of it
"""

import argparse
import enum
import functools
import queue
import threading
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds that a thread waits for others
TIMES = 1_000  # calls in a row
ROUNDS = 20  # of which the fastest counts: other programs can only make one slower


class _State(enum.Enum):
    NOT_MADE = enum.auto()


class Lazy(Generic[T]):
    """A thing that is made when it is first asked for, once.

    Two of them that need each other can deadlock, as locks do, if threads ask for them
    in opposite orders.

    Args:
        make: makes it. What it raises is raised by `get`, and it is called again the
            next time.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        # Held while it is made. It lets the same thread in again, to be refused.
        self._lock: AbstractContextManager[object] = threading.RLock()
        self._is_being_made = False  # guarded by the lock
        # Written once, with the lock held; read without. One store tells all: that it
        # is made, and where it is.
        self._thing: T | Literal[_State.NOT_MADE] = _State.NOT_MADE

    def get(self) -> T:
        """Return the thing, and make it first if need be.

        Raises:
            RuntimeError: it is being made, and asks for itself.
        """
        thing = self._thing
        return self._get_locked() if thing is _State.NOT_MADE else thing

    def _get_locked(self) -> T:
        with self._lock:
            if self._thing is not _State.NOT_MADE:  # another thread was faster
                return self._thing
            if self._is_being_made:
                raise RuntimeError("to make it, it is asked for")
            try:
                self._is_being_made = True
                thing = self._make()
            finally:
                self._is_being_made = False
            self._thing = thing  # not before it is complete
            return thing


class NeverLocked(Lazy[T]):
    """Broken: whoever finds nothing makes one."""

    def get(self) -> T:
        thing = self._thing
        if thing is _State.NOT_MADE:
            thing = self._thing = self._make()
        return thing


class AlwaysLocked(Lazy[T]):
    """Right, and dear: all take the lock, for ever."""

    def get(self) -> T:
        return self._get_locked()


class Pair:
    """Two numbers, of which the second is filled in later than the first.

    Args:
        between: called in between. It lets a caller decide who runs then.
    """

    def __init__(self, between: Callable[[], object]) -> None:
        self.first = 1
        between()
        self.second = 2


class StoredTooSoon(Lazy[Pair]):
    """Broken: what a compiler might make of `self._thing = Pair(between)`."""

    def __init__(self, between: Callable[[], object]) -> None:
        super().__init__(lambda: Pair(between))
        self._between = between

    def _get_locked(self) -> Pair:
        with self._lock:
            if self._thing is not _State.NOT_MADE:
                return self._thing
            pair = Pair.__new__(Pair)
            self._thing = pair
            pair.__init__(self._between)  # type: ignore[misc]
            return pair


class TellingLock:
    """A lock that calls `on_wait` when a thread finds it taken, before that waits."""

    def __init__(self, on_wait: Callable[[], object]) -> None:
        self._lock = threading.RLock()
        self._on_wait = on_wait

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._on_wait()
            if not self._lock.acquire(timeout=LIMIT):
                raise TimeoutError("a lock was not released")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


# Builds from a function that makes a thing, and a lock, one that gets it.
Build = Callable[[Callable[[], object], TellingLock | None], Callable[[], object]]


def lazily(
    kind: type[Lazy[object]], make: Callable[[], object], lock: TellingLock | None
) -> Callable[[], object]:
    lazy = kind(make)
    if lock is not None:
        lazy._lock = lock
    return lazy.get


def made_by(build: Build, n_threads: int) -> int:
    """Let threads ask for a thing at once; return how many are made.

    Who makes it goes on when each other thread makes it, too, or waits for the lock.

    Raises:
        threading.BrokenBarrierError: a thread did neither for LIMIT seconds.
    """
    all_make_or_wait = threading.Barrier(n_threads, timeout=LIMIT)
    made = []

    def make() -> object:
        all_make_or_wait.wait()
        thing = object()
        made.append(thing)
        return thing

    get = build(make, TellingLock(all_make_or_wait.wait))
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            for future in [pool.submit(get) for _ in range(n_threads)]:
                future.result()
        finally:  # also after Ctrl-C, perhaps with some of them not there yet
            all_make_or_wait.abort()
    return len(made)


def asked_half_way(kind: Callable[[Callable[[], object]], Lazy[Pair]]) -> str:
    """Let another thread ask for a pair that is half made; return what happens to it.

    Args:
        kind: makes what is asked, from a function that is called with the pair half
            made.
    """
    news: queue.SimpleQueue[str] = queue.SimpleQueue()
    is_half_made = threading.Event()
    happened = []

    def ask() -> None:
        pair = lazy.get()
        news.put("sees all" if hasattr(pair, "second") else "sees half")

    def half_way() -> None:
        if not is_half_made.is_set():
            is_half_made.set()
            other_thread.submit(ask)
            happened.append(news.get(timeout=LIMIT))

    lazy = kind(half_way)
    lazy._lock = TellingLock(lambda: news.put("waits"))
    with ThreadPoolExecutor(1) as other_thread:
        lazy.get()
    while not news.empty():
        happened.append(news.get())
    return ", then ".join(happened)


def is_tried_again() -> bool:
    """Tell whether one that could not be made is made the next time, and kept."""
    calls = 0

    def make() -> str:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError("not yet")
        return "made"

    lazy = Lazy(make)
    try:
        lazy.get()
    except OSError:
        return [lazy.get(), lazy.get(), calls] == ["made", "made", 2]
    return False


def is_refused() -> bool:
    """Tell whether what asks for itself is refused."""
    lazy: Lazy[object] = Lazy(lambda: lazy.get())
    try:
        lazy.get()
    except RuntimeError:
        return True
    return False


def nanoseconds(call: Callable[[], object]) -> float:
    """Return how long a call takes, one after the other, at best, after a first one."""
    call()
    return min(timeit.repeat(call, repeat=ROUNDS, number=TIMES)) / TIMES * 1e9


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 100:
        raise argparse.ArgumentTypeError(f"must be between 2 and 100, not {number}")
    return number


def demonstrate(n: int) -> None:
    """Check each claim, and print it."""
    cases: list[tuple[str, Callable[..., Lazy[Pair]], str]] = [
        ("stored too soon", StoredTooSoon, "sees half"),
        ("Lazy", lambda step: Lazy(lambda: Pair(step)), "waits, then sees all"),
    ]
    for name, kind, expected in cases:
        happened = asked_half_way(kind)
        print(f"{name:16} another thread {happened}")
        if happened != expected:
            raise SystemExit(f"{name}: it was to be: another thread {expected}")

    ways: list[tuple[str, Build, int]] = [
        ("no lock", partial(lazily, NeverLocked), n),
        ("always a lock", partial(lazily, AlwaysLocked), 1),
        ("Lazy", partial(lazily, Lazy), 1),
        ("functools.cache", lambda make, _: functools.cache(make), n),
    ]
    print(f"{n} threads ask at once, and make    to ask for it later")
    for name, build, expected_number in ways:
        number = made_by(build, n)
        print(f"{name:16}{number:16}{nanoseconds(build(object, None)):20.0f} ns")
        if number != expected_number:
            raise SystemExit(f"{name}: {number} were made, not {expected_number}")

    if not is_tried_again():
        raise SystemExit("a failure was not to be kept")
    if not is_refused():
        raise SystemExit("what asks for itself was to be refused")
    print("what fails is tried again, what asks for itself is refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=20)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads)
    except (threading.BrokenBarrierError, queue.Empty, TimeoutError):
        raise SystemExit(f"a thread has waited for {LIMIT:g} s") from None
    print("complete, then stored: a look without the lock finds nothing or all of it")


if __name__ == "__main__":
    main()
