"""A sorted linked list is locked as a whole, hand over hand, or optimistically.

It is a set: add, remove and contains look for the window of a key, the two neighbours
between which it belongs. The three lists differ only in how they lock that window.

* Coarse: one lock for the whole list. A thread inside keeps all others out.
* Hand over hand (lock coupling): each node has a lock, and a thread takes the next
  node's before it releases the one behind. Several are in the list at once, but nobody
  overtakes: a thread that stops holds up all that are to go farther.
* Optimistic: walk without locks, lock the window, and look whether it is still the
  window, by walking again (validation). If not, begin anew. Walkers pass locked nodes.
  Without validation an item may be lost: what it was to follow is already removed.

All take locks in the order of the list, so there is no deadlock (Chapter 12). A walker
may stand on a node that has been removed. Its `next` still leads back into the list,
and Python keeps the node as long as somebody refers to it. In C it might be freed and
used for something else; this takes hazard pointers, or RCU.

Short walks are over before finer locking pays for what it costs: more locks, or a
second walk. And an array under one lock, SortedArray, is several times as fast as any
of the three (example17): in your own program use `bisect`, or SortedSet of the package
sortedcontainers.

M. Herlihy and N. Shavit, "The Art of Multiprocessor Programming", chapter 9. Its next
step is the lazy list, in which contains takes no lock. Lock coupling: R. Bayer and
M. Schkolnick, "Concurrency of operations on B-trees", Acta Informatica 9, 1977.

Output:
    10 20 30 40 50, and a thread has locked the window of 25; another thread adds
                        5         26        45
      CoarseList        waits     waits     waits
      HandOverHandList  goes on   waits     waits
      OptimisticList    goes on   waits     goes on
    10 20 30, and a thread has found the window of 25; another removes 20
                        meanwhile  in the end  retries
      HandOverHandList  waits      10 25 30          0
      OptimisticList    goes on    10 25 30          1
      UnvalidatedList   goes on    10 30             0
    without validation 25 is lost; with it, who comes too late begins anew
"""

import bisect
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Generic, Protocol, TypeVar

from interleaving import Interleaving


class Comparable(Protocol):
    """What has an order. `<` is all that is used of it."""

    def __lt__(self, other: Any, /) -> bool: ...


K = TypeVar("K", bound=Comparable)


class Lock(Protocol):
    """What is used of a threading.Lock."""

    def acquire(self) -> bool: ...
    def release(self) -> None: ...
    def __enter__(self) -> bool: ...
    def __exit__(self, kind: Any, error: Any, trace: Any, /) -> None: ...


class Node(Generic[K]):
    """An item of a list; the first and the last one of each list have no key."""

    __slots__ = ("key", "lock", "next")

    key: K
    next: "Node[K]"

    def __init__(self, lock: Lock) -> None:
        self.lock = lock


class SortedList(ABC, Generic[K]):
    """A set in a sorted linked list, for many threads.

    A comparison may raise; then the list is as before, and no lock is held. It must not
    use the list, for it runs with locks held. (What Python code cannot rule out is
    Ctrl-C between two steps of taking or releasing locks. It may leave one held.)

    Args:
        new_lock: makes the locks.
    """

    def __init__(self, new_lock: Callable[[], Lock] = threading.Lock) -> None:
        self._new_lock = new_lock
        # All nodes in between are in ascending order. Only who has locked a window
        # writes the `next` of its first node. Linearization points: a change, when that
        # is written; of what changes nothing, any moment while the window is locked.
        self._head: Node[K] = Node(new_lock())
        self._tail: Node[K] = Node(new_lock())
        self._head.next = self._tail

    @abstractmethod
    def _window(self, key: K) -> AbstractContextManager[tuple[Node[K], Node[K]]]:
        """Lock the window of `key` during a block.

        It is the last node before `key`, and the one after that. Nobody else changes
        what is between them, or removes one of them, while they are locked.
        """

    def add(self, key: K) -> bool:
        """Add `key`; return False if it is there already."""
        with self._window(key) as (before, here):
            if self._has(here, key):
                return False
            node: Node[K] = Node(self._new_lock())
            node.key, node.next = key, here
            before.next = node  # the moment from which on others find it
            return True

    def remove(self, key: K) -> bool:
        """Remove `key`; return False if it is not there."""
        with self._window(key) as (before, here):
            if not self._has(here, key):
                return False
            before.next = here.next  # that of `here` stays, for who stands on it
            return True

    def contains(self, key: K) -> bool:
        with self._window(key) as (_, here):
            return self._has(here, key)

    def keys(self) -> list[K]:
        """Return the keys, without a lock: a state, if nobody changes the list."""
        keys, node = [], self._head.next
        while node is not self._tail:
            keys.append(node.key)
            node = node.next
        return keys

    def _is_before(self, node: Node[K], key: K) -> bool:
        return node is not self._tail and node.key < key

    def _has(self, here: Node[K], key: K) -> bool:
        """Tell, for the second node of the window of `key`, whether it is its own."""
        return here is not self._tail and not key < here.key

    def _walk(self, key: K) -> tuple[Node[K], Node[K]]:
        """Return the window of `key`, locked by nothing."""
        before, here = self._head, self._head.next
        while self._is_before(here, key):
            before, here = here, here.next
        return before, here


class CoarseList(SortedList[K]):
    """Sorted, with one lock, which guards all nodes."""

    def __init__(self, new_lock: Callable[[], Lock] = threading.Lock) -> None:
        lock = new_lock()
        super().__init__(lambda: lock)  # the same for each node

    @contextmanager
    def _window(self, key: K) -> Iterator[tuple[Node[K], Node[K]]]:
        with self._head.lock:
            yield self._walk(key)


class HandOverHandList(SortedList[K]):
    """Sorted; the lock of each node guards its `next`, for readers, too."""

    @contextmanager
    def _window(self, key: K) -> Iterator[tuple[Node[K], Node[K]]]:
        before = self._head
        before.lock.acquire()
        try:
            here = before.next
            here.lock.acquire()
            try:
                while self._is_before(here, key):
                    following = here.next
                    following.lock.acquire()  # before one is released: no gap
                    behind, before, here = before, here, following
                    behind.lock.release()  # and never again, whatever is raised here
                yield before, here
            finally:
                here.lock.release()
        finally:
            before.lock.release()


class OptimisticList(SortedList[K]):
    """Sorted; the lock of each node guards its `next` against writers only.

    Who is to remove a node has locked it and the one before it, so a locked node that
    is in the list stays there.

    Attributes:
        retries: how often a window was not valid any more.
    """

    def __init__(self, new_lock: Callable[[], Lock] = threading.Lock) -> None:
        super().__init__(new_lock)
        self._counting = threading.Lock()  # guards `retries`
        self.retries = 0

    @contextmanager
    def _window(self, key: K) -> Iterator[tuple[Node[K], Node[K]]]:
        while True:
            before, here = self._walk(key)
            with before.lock, here.lock:
                if self._is_valid(key, before, here):
                    yield before, here
                    return
            with self._counting:
                self.retries += 1

    def _is_valid(self, key: K, before: Node[K], here: Node[K]) -> bool:
        """Tell whether both nodes, now locked, are still in the list, and neighbours.

        A walk comes only to nodes that are in the list at some time while it lasts, for
        the `next` of one that is removed does not change any more.
        """
        return self._walk(key) == (before, here)


class UnvalidatedList(OptimisticList[K]):
    """Broken: it takes for granted that what it has locked is what it has found."""

    def _is_valid(self, key: K, before: Node[K], here: Node[K]) -> bool:
        return True


class SortedArray(Generic[K]):
    """The same set in a sorted `list`, with one lock, which guards it."""

    def __init__(self) -> None:
        self._keys: list[K] = []
        self._lock = threading.Lock()

    def add(self, key: K) -> bool:
        with self._lock:
            index, there = self._find(key)
            if not there:
                self._keys.insert(index, key)
            return not there

    def remove(self, key: K) -> bool:
        with self._lock:
            index, there = self._find(key)
            if there:
                del self._keys[index]
            return there

    def contains(self, key: K) -> bool:
        with self._lock:
            return self._find(key)[1]

    def _find(self, key: K) -> tuple[int, bool]:
        index = bisect.bisect_left(self._keys, key)
        return index, index < len(self._keys) and not key < self._keys[index]


class Probe(int):
    """A number whose thread can be stopped while it looks for it in a list.

    Comparisons are the only code of the caller that a list runs in its midst.
    """

    when_found: Callable[[], object] = staticmethod(lambda: None)
    when_locked: Callable[[], object] = staticmethod(lambda: None)

    def __gt__(self, other: int) -> bool:  # asked for by each step of a walk
        greater = super().__gt__(other)
        if not greater:
            self.when_found()
        return greater

    def __lt__(self, other: int) -> bool:  # asked for in the window
        self.when_locked()
        return super().__lt__(other)


Kind = type[SortedList[int]]


def beside_a_window(kind: Kind, key: int) -> str:
    """Lock the window of 25, and return whether a thread that adds `key` waits."""
    interleaving = Interleaving()
    numbers = kind(interleaving.lock)
    for number in (10, 20, 30, 40, 50):
        numbers.add(number)
    probe = Probe(25)
    probe.when_locked = interleaving.stop
    outcome = interleaving.run(lambda: numbers.add(probe), lambda: numbers.add(key))
    if numbers.keys() != sorted({10, 20, 25, 30, 40, 50, key}):
        raise SystemExit(f"{kind.__name__}: an item is lost, or not in its place")
    return outcome


def removed_before_locked(kind: Kind) -> tuple[str, SortedList[int]]:
    """Add 25 after 20, which is removed when the place for 25 is found.

    Returns:
        Whether the thread waits that removes 20, and the list in the end.
    """
    interleaving = Interleaving()
    numbers = kind(interleaving.lock)
    for number in (10, 20, 30):
        numbers.add(number)
    probe = Probe(25)
    probe.when_found = interleaving.stop
    outcome = interleaving.run(lambda: numbers.add(probe), lambda: numbers.remove(20))
    return outcome, numbers


def demonstrate() -> None:
    """Check each claim, and print it."""
    print(
        "10 20 30 40 50, and a thread has locked the window of 25; another thread adds"
    )
    print(" " * 20 + "".join(f"{number:<10}" for number in (5, 26, 45)).rstrip())
    in_window: list[tuple[Kind, list[str]]] = [
        (CoarseList, ["waits", "waits", "waits"]),
        (HandOverHandList, ["goes on", "waits", "waits"]),
        (OptimisticList, ["goes on", "waits", "goes on"]),
    ]
    for kind, expected in in_window:
        outcomes = [beside_a_window(kind, number) for number in (5, 26, 45)]
        print(
            f"  {kind.__name__:18}{''.join(f'{one:10}' for one in outcomes).rstrip()}"
        )
        if outcomes != expected:
            raise SystemExit(f"{kind.__name__}: it was to be {', '.join(expected)}")

    print("10 20 30, and a thread has found the window of 25; another removes 20")
    print("                    meanwhile  in the end  retries")
    after_walk: list[tuple[Kind, str, list[int]]] = [
        (HandOverHandList, "waits", [10, 25, 30]),
        (OptimisticList, "goes on", [10, 25, 30]),
        (UnvalidatedList, "goes on", [10, 30]),
    ]
    for kind, as_expected, left in after_walk:
        outcome, numbers = removed_before_locked(kind)
        shown = " ".join(map(str, numbers.keys()))
        retries = numbers.retries if isinstance(numbers, OptimisticList) else 0
        print(f"  {kind.__name__:18}{outcome:9}  {shown:10}  {retries:7}")
        if (outcome, numbers.keys()) != (as_expected, left):
            raise SystemExit(f"{kind.__name__}: it was to be {as_expected}, {left}")
        if retries != (kind is OptimisticList):
            raise SystemExit(
                f"{kind.__name__}: only validation was to begin anew, once"
            )

    print("without validation 25 is lost; with it, who comes too late begins anew")


def main() -> None:
    try:
        demonstrate()
    except TimeoutError as error:
        raise SystemExit(f"a wait did not end: {error}") from None


if __name__ == "__main__":
    main()
