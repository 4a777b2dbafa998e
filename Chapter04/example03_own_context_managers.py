"""One context manager written twice: as a class, and as a generator.

A stopwatch takes the time of a block, also when the block raises: the class because
`__exit__` is always called, the generator only thanks to try and finally. An exception
goes on after the block, unless `__exit__` returns true or the generator catches it.

An object made from a generator serves a single `with`; one of the class can be used
again. But it can be in use only once at a time: it remembers its block in attributes,
and a second thread overwrites them. That is forced here, with a clock set by hand.
Either make a fresh stopwatch for each `with`, or keep the attributes in a
`threading.local`.

Output:
    class      times a block that raises, and lets the exception go on
               can end the exceptions it names, and no others
               can be used again
    generator  times a block that raises, and lets the exception go on
               can end the exceptions it names, and no others
               serves a single with
    a block of 12 seconds, while another thread times 1 second:
    one object for both          2  wrong
    attributes of each thread   12
    a fresh object each         12
    a fresh generator each      12
    what a block has to remember must belong to it alone
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from types import TracebackType

Clock = Callable[[], float]  # seconds


class Stopwatch:
    """Takes the time of `with stopwatch:`; for one block at a time.

    Attributes:
        seconds: how long the last block took.
    """

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self.seconds = 0.0
        self._clock = clock
        self._began = 0.0  # guarded by nothing: a second thread overwrites it

    def __enter__(self) -> "Stopwatch":
        self._began = self._clock()
        return self

    def __exit__(self, *_: object) -> None:  # None is not true: exceptions go on
        self.seconds = self._clock() - self._began


class StopwatchOfEachThread(threading.local, Stopwatch):
    """A stopwatch with attributes that each thread has for itself.

    One block at a time in each: a `with` inside another, or two asyncio tasks of one
    thread, disturb each other all the same. A fresh object each has none of that.
    """


class Reading:
    """How long a block took, once it has ended."""

    seconds = 0.0


@contextmanager
def stopwatch(clock: Clock = time.perf_counter) -> Iterator[Reading]:
    """Take the time of one block; its local variables belong to that block alone."""
    reading = Reading()
    began = clock()
    try:
        yield reading  # an exception of the block is raised here
    finally:
        reading.seconds = clock() - began


class Catching:
    """Ends the block at an exception of certain types, and goes on after it.

    For one block at a time.

    Attributes:
        caught: the exception that ended the last block, None if none of them did.
    """

    def __init__(self, *types: type[BaseException]) -> None:
        self._types = types
        self.caught: BaseException | None = None

    def __enter__(self) -> "Catching":
        self.caught = None
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, self._types):
            return False  # the exception goes on, if there is one
        self.caught = error
        return True


@contextmanager
def catching(*types: type[BaseException]) -> Iterator[list[BaseException]]:
    """Do what `Catching` does; the list then holds the exception, if there was one."""
    caught: list[BaseException] = []
    try:
        yield caught
    except types as error:  # not raised again: the exception ends here
        caught.append(error)


Catcher = AbstractContextManager[object]
Watch = AbstractContextManager[Stopwatch | Reading]


class HandSetClock:
    """A clock that shows what it was set to, in seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def time_failing_block(watch: Watch, clock: HandSetClock) -> float:
    """Return what `watch` shows after a block that raised when 3 s had passed."""
    with suppress(ValueError), watch as reading:
        clock.now += 3
        raise ValueError("the block failed")
    return reading.seconds


def time_beside_another(mine: Watch, others: Watch, clock: HandSetClock) -> float:
    """Time a block of 12 s; another thread times 1 s after 10. Return my time."""

    def another_block() -> None:
        with others:
            clock.now += 1

    with ThreadPoolExecutor(max_workers=1) as another_thread:
        with mine as reading:
            clock.now += 10
            another_thread.submit(another_block).result()  # enters while I am inside
            clock.now += 1
        return reading.seconds


def swallows(manager: AbstractContextManager[object], error: Exception) -> bool:
    """Tell whether `with manager` lets the program go on after `error`."""
    try:
        with manager:
            raise error
    except type(error):
        return False
    return True


def can_be_used_twice(manager: AbstractContextManager[object]) -> bool:
    """Tell whether a second `with` on the same object works."""
    with manager:
        pass
    try:
        with manager:
            return True
    except (AttributeError, RuntimeError):
        return False


def main() -> None:
    clock = HandSetClock()
    forms: dict[str, tuple[Callable[[Clock], Watch], Callable[..., Catcher]]] = {
        "class": (Stopwatch, Catching),
        "generator": (stopwatch, catching),
    }
    for name, (watch, catch) in forms.items():
        timed = time_failing_block(watch(clock), clock)
        goes_on = not swallows(watch(clock), ValueError())
        ends = [swallows(catch(ValueError), e) for e in (ValueError(), OSError())]
        twice = can_be_used_twice(watch(clock))
        if (timed, goes_on, ends, twice) != (3, True, [True, False], name == "class"):
            raise SystemExit(f"{name}: {timed}, {goes_on}, {ends}, {twice}")
        print(f"{name:10} times a block that raises, and lets the exception go on")
        print(f"{'':10} can end the exceptions it names, and no others")
        print(f"{'':10} {'can be used again' if twice else 'serves a single with'}")

    shared, of_each_thread = Stopwatch(clock), StopwatchOfEachThread(clock)
    pairs: dict[str, tuple[Watch, Watch]] = {
        "one object for both": (shared, shared),
        "attributes of each thread": (of_each_thread, of_each_thread),
        "a fresh object each": (Stopwatch(clock), Stopwatch(clock)),
        "a fresh generator each": (stopwatch(clock), stopwatch(clock)),
    }
    print("a block of 12 seconds, while another thread times 1 second:")
    for name, (mine, others) in pairs.items():
        taken = time_beside_another(mine, others, clock)
        if (taken != 12) != (mine is shared):
            raise SystemExit(f"{name}: {taken} seconds")
        print(f"{name:26} {taken:3g}{'  wrong' if taken != 12 else ''}")
    print("what a block has to remember must belong to it alone")


if __name__ == "__main__":
    main()
