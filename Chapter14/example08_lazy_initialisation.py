"""A thing that is made when it is first asked for is made by each of twenty threads.

"If there is none, make it" is check-then-act. While one thread makes it, all others
find that there is none, and make one as well. Each uses its own, and only the last to
be assigned remains: the others use a connection, a cache or, worst, a lock of which
nobody else knows.

The check must be made with the lock held. A check before it spares threads the lock
once the thing is there: double-checked locking. It is notorious, because where memory
is weakly ordered a thread might see the reference before what it refers to. Not so in
CPython: a reference is read and written as a whole, and who reads it sees all that was
done before it was written, by the hand-over of the GIL or, without one, by the atomic
operations of PEP 703. That is how CPython is made, not a promise of the language.

`functools.cache` holds no lock while it calls the function, nor does `cached_property`
since 3.12 (before that, one lock for all instances). The simplest mend is to make the
thing before there are threads, as a module does with its constants.

Try:  --threads 2

Output:
    20 threads                made  in use
    no lock                     20      20
    check, lock                 20      20
    lock, check                  1       1
    check, lock, check           1       1
    functools.cache             20      20
    made before the threads      1       1
    cached_property            20x     20x
    check with the lock held, or make it before there are threads
"""

import argparse
import functools
import sys
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

from rendezvous import Rendezvous

T = TypeVar("T")


class Lazy(Generic[T]):
    """A thing that is made when it is first asked for, once if the lock is one.

    Args:
        make: makes it. It must not return None, which stands for "not there yet".
        lock: held by each who asks.
    """

    def __init__(
        self, make: Callable[[], T], lock: AbstractContextManager[object]
    ) -> None:
        self._make = make
        self._lock = lock
        self._thing: T | None = None  # written with the lock held, if by anybody

    def get(self) -> T:
        with self._lock:
            thing = self._thing
            if thing is None:
                thing = self._thing = self._make()
            return thing


class LockedTooLate(Lazy[T]):
    """Broken: whoever has found nothing makes one, if only after the others."""

    def get(self) -> T:
        thing = self._thing
        if thing is None:
            with self._lock:
                thing = self._thing = self._make()
        return thing


class DoubleChecked(Lazy[T]):
    """Takes the lock only as long as the thing is not there."""

    def get(self) -> T:
        thing = self._thing
        if thing is None:
            with self._lock:
                thing = self._thing  # another may have made it meanwhile
                if thing is None:
                    thing = self._thing = self._make()
        return thing


# Builds from a function that makes a thing, and a lock, one that gets it.
Build = Callable[[Callable[[], object], Rendezvous], Callable[[], object]]


def by_cached_property(
    make: Callable[[], object], lock: Rendezvous
) -> Callable[[], object]:
    class Owner:
        thing = functools.cached_property(lambda self: make())

    if sys.version_info < (3, 12):
        vars(Owner)["thing"].lock = lock  # in place of its own, to see who waits
    owner = Owner()
    return lambda: owner.thing


def at_the_start(make: Callable[[], object], lock: Rendezvous) -> Callable[[], object]:
    thing = make()
    return lambda: thing


def ask(build: Build, n_threads: int) -> tuple[int, int]:
    """Let threads ask for a thing; return how many are made, and how many in use.

    Who makes it waits until each other thread does so, too, or cannot.
    """
    place = Rendezvous()
    made = []

    def make() -> object:
        place.meet()
        thing = object()
        made.append(thing)
        return thing

    used = place.run([build(make, place)] * n_threads)
    return len(made), len(set(used))


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def demonstrate(n: int) -> None:
    """Check each claim, and print it."""
    before_3_12 = sys.version_info < (3, 12)
    ways: list[tuple[str, Build, int]] = [
        ("no lock", lambda make, _: Lazy(make, nullcontext()).get, n),
        ("check, lock", lambda make, lock: LockedTooLate(make, lock).get, n),
        ("lock, check", lambda make, lock: Lazy(make, lock).get, 1),
        ("check, lock, check", lambda make, lock: DoubleChecked(make, lock).get, 1),
        ("functools.cache", lambda make, _: functools.cache(make), n),
        ("made before the threads", at_the_start, 1),
        ("cached_property", by_cached_property, 1 if before_3_12 else n),
    ]
    print(f"{f'{n} threads':24}  made  in use")
    for name, build, expected in ways:
        made, used = ask(build, n)
        times = "x" if build is by_cached_property else ""
        print(f"{name:24}{f'{made}{times}':>6}{f'{used}{times}':>8}")
        if (made, used) != (expected, expected):
            raise SystemExit(f"{name}: {expected} were to be made, and to be in use")

    place = Rendezvous()
    lazy = DoubleChecked(object, place)
    place.run([lazy.get])
    with place:  # who asks for it as well is refused, as the run is over
        try:
            lazy.get()
        except threading.BrokenBarrierError:
            raise SystemExit("the first check was to spare the lock") from None
    print("check with the lock held, or make it before there are threads")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=20)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads)
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error}") from None


if __name__ == "__main__":
    main()
