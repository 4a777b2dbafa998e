"""A ring for one producer and one consumer needs no lock: each number has one writer.

The items lie in a list that is used again and again. The producer counts what it has
put, the consumer what it has taken; each reads the other's number and writes its own.
If the numbers are equal the ring is empty, and if they differ by its capacity, full.
The order of two stores is all that matters: first the item, then the number that tells
of it. So whoever is told finds the item there, and whoever is not told does not look.

All that two threads share is marked here, and two puts beside a get, and a put beside
two gets, run in all of their schedules. Each history is linearizable. If the number is
raised first, or if there are two producers, some are not. That there is one of each is
up to the caller. To refuse another thread, each call would have to ask which one it is,
and no thread could take a side over from one that has ended, though it may.

Nobody waits in here. Who finds the ring full or empty may do something else, or try
again after `time.sleep(0)`, which lets others have the GIL; otherwise they would get it
at the next switch interval only. queue.SimpleQueue, which can wait and has no limit,
puts or gets in a single call of C code, and is faster (example17). Between two
processes, where there is no such queue, a ring pays (Chapter 17).

CPython documents no order in which other threads see two stores. With a GIL it is that
of the program. Without one, no item of two million was lost in the version tried (3.13,
on a processor that keeps stores in order).

Source: L. Lamport, "Specifying concurrent program modules", ACM TOPLAS 5 (2), 1983.

Try:  --capacity 1

Output:
    all schedules of a few calls  histories  not linearizable
      a producer and a consumer           71                 0
      the number before the item         137                58
      two producers                       70                68
    5,000 items from one thread to another: each once, and in order
    with one writer for each number, two stores in the right order are enough
"""

import argparse
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import Empty, Full
from typing import Any, Generic, TypeVar

from linearizability import Call, History, decide, fifo
from turns import Choose, Turns, all_schedules

T = TypeVar("T")

N_ITEMS = 5000  # that are sent to see that they come
LIMIT = 10.0  # seconds after which who waits gives up


class RingBuffer(Generic[T]):
    """A queue of limited size for one thread that puts and one that gets.

    It does not check that. If puts of two threads overlap, or gets, items are lost or
    come twice. A thread may take a side over when the other one has ended.

    Args:
        capacity: how many items fit in.

    Raises:
        ValueError: none does.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"a ring of {capacity} items")
        self._capacity = capacity
        # Item n is in slot n modulo capacity, from before it is counted as put until
        # after it is counted as taken: then only the consumer touches the slot,
        # otherwise only the producer.
        self._slots: list[Any] = [None] * capacity
        # Linearization points: the store of one's own number; of a call that finds the
        # ring full or empty, the load of the other's.
        self._n_put = 0  # written by the producer only
        self._n_taken = 0  # written by the consumer only

    def put_nowait(self, item: T) -> None:
        """Add `item`; for the producer.

        Raises:
            queue.Full: there is no room.
        """
        n = self._n_put
        if n - self._n_taken == self._capacity:
            raise Full
        self._slots[n % self._capacity] = item
        self._n_put = n + 1

    def get_nowait(self) -> T:
        """Remove and return the oldest item; for the consumer.

        Raises:
            queue.Empty: there is none.
        """
        n = self._n_taken
        if n == self._n_put:
            raise Empty
        slot = n % self._capacity
        item: T = self._slots[slot]
        self._slots[slot] = None  # the ring does not keep it alive
        self._n_taken = n + 1
        return item


class NumberFirstRing(RingBuffer[T]):
    """The same, but it tells of an item and then puts it there; broken."""

    def put_nowait(self, item: T) -> None:
        n = self._n_put
        if n - self._n_taken == self._capacity:
            raise Full
        self._n_put = n + 1
        self._slots[n % self._capacity] = item


class MarkedList(list[T]):
    """A list with a mark before each look at an item, and each change."""

    def __init__(self, items: Sequence[T], mark: Callable[[], object]) -> None:
        super().__init__(items)
        self._mark = mark

    def __getitem__(self, index: Any) -> Any:
        self._mark()
        return super().__getitem__(index)

    def __setitem__(self, index: Any, item: Any) -> None:
        self._mark()
        super().__setitem__(index, item)


# By each thread, the number that it reads and another one writes.
FOREIGN = {"P": "_n_taken", "P2": "_n_taken", "C": "_n_put"}


def with_marks(kind: type[RingBuffer[int]], turns: Turns) -> RingBuffer[int]:
    """Make a ring for one item that has a mark at each access to what is shared."""

    class MarkedRing(kind):  # type: ignore[misc, valid-type]
        def __getattribute__(self, name: str) -> Any:
            if name == FOREIGN.get(turns.current):
                turns.mark()
            return super().__getattribute__(name)

        def __setattr__(self, name: str, value: object) -> None:
            if name in FOREIGN.values() and turns.current:
                turns.mark()
            super().__setattr__(name, value)

    ring: RingBuffer[int] = MarkedRing(1)
    ring._slots = MarkedList(ring._slots, turns.mark)
    return ring


Program = dict[str, list[str]]  # by thread, the names of its calls

ONE_OF_EACH: list[Program] = [
    {"P": ["put", "put"], "C": ["get"]},
    {"P": ["put"], "C": ["get", "get"]},
]
TWO_PRODUCERS: list[Program] = [{"P": ["put"], "P2": ["put"]}]


def play(kind: type[RingBuffer[int]], program: Program, choose: Choose) -> list[Call]:
    """Play a program on a new ring; return the history."""
    turns, history = Turns(), History()
    ring = with_marks(kind, turns)
    functions: dict[str, Callable[..., object]] = {
        "put": ring.put_nowait,
        "get": ring.get_nowait,
    }

    def run(thread: str) -> None:
        for n, name in enumerate(program[thread]):
            # Items of all calls differ.
            arguments = (f"{thread}{n}",) if name == "put" else ()
            history.call(thread, name, functions[name], *arguments)

    turns.play({thread: partial(run, thread) for thread in program}, choose)
    return history.calls()


def decide_all(
    kind: type[RingBuffer[int]], programs: Sequence[Program]
) -> tuple[int, int]:
    """Play programs in all schedules; return how many histories, and how many fail."""
    of_one = partial(fifo, maxsize=1)
    histories = [
        calls
        for program in programs
        for _, calls in all_schedules(partial(play, kind, program))
    ]
    return len(histories), sum(
        decide(calls, of_one, ()).order is None for calls in histories
    )


def until_done(attempt: Callable[[], T], over: threading.Event) -> T:
    """Return what `attempt` returns as soon as it finds a queue not full or empty.

    Raises:
        TimeoutError: it has not come to that for LIMIT seconds, or when it is `over`.
    """
    end = time.monotonic() + LIMIT
    while True:
        try:
            return attempt()
        except (Full, Empty):
            if over.is_set() or time.monotonic() > end:
                raise TimeoutError("the other thread does not go on") from None
            time.sleep(0)  # somebody else may have the GIL


def pass_items(
    put: Callable[[int], object], get: Callable[[], int], n: int = N_ITEMS
) -> list[int]:
    """Put the numbers below `n` in this thread; return what another one gets.

    Raises:
        TimeoutError: a thread has waited for LIMIT seconds.
    """
    over = threading.Event()

    def receive() -> list[int]:
        return [until_done(get, over) for _ in range(n)]

    with ThreadPoolExecutor(1) as pool:
        try:
            future = pool.submit(receive)
            for item in range(n):
                until_done(partial(put, item), over)
            return future.result(LIMIT)
        finally:  # after Ctrl-C nobody waits for an item
            over.set()


class Item:
    """An object that can be watched by a weakref."""


def is_kept_alive_by_the_ring() -> bool:
    """Tell whether an item that was taken, and dropped, is still there."""
    ring = RingBuffer[Item](2)
    ring.put_nowait(Item())
    return weakref.ref(ring.get_nowait())() is not None


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def demonstrate(capacity: int) -> None:
    """Check each claim, and print it."""
    cases: list[tuple[str, type[RingBuffer[int]], list[Program], bool]] = [
        ("a producer and a consumer", RingBuffer, ONE_OF_EACH, True),
        ("the number before the item", NumberFirstRing, ONE_OF_EACH, False),
        ("two producers", RingBuffer, TWO_PRODUCERS, False),
    ]
    print("all schedules of a few calls  histories  not linearizable")
    for name, kind, programs, is_sound in cases:
        n_histories, n_refuted = decide_all(kind, programs)
        print(f"  {name:27} {n_histories:10} {n_refuted:17}")
        if (n_refuted == 0) != is_sound:
            raise SystemExit(f"{name}: it was to be otherwise")
    if is_kept_alive_by_the_ring():
        raise SystemExit("the ring was not to keep an item that was taken")

    ring = RingBuffer[int](capacity)
    if pass_items(ring.put_nowait, ring.get_nowait) != list(range(N_ITEMS)):
        raise SystemExit("each item was to come once, and in order")
    print(f"{N_ITEMS:,} items from one thread to another: each once, and in order")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--capacity", type=positive, default=100)
    capacity = parser.parse_args().capacity
    try:
        demonstrate(capacity)
    except TimeoutError as error:
        raise SystemExit(f"not all items have come: {error}") from None
    print("with one writer for each number, two stores in the right order are enough")


if __name__ == "__main__":
    main()
