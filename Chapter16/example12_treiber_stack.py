# /// script
# requires-python = ">=3.11"
# dependencies = ["cereggii>=1.0.0"]
# ///
"""A stack without a lock: an attempt fails only if another thread's has succeeded.

Treiber's stack is a chain of nodes and one reference to the topmost. Who pushes or pops
reads the reference, and replaces it by compare-and-set, which does nothing but return
False if the reference is no longer what was read; then all begins anew. Each failure is
another's success, so somebody always gets on, wherever any thread may be stopped: the
stack is lock-free. It is not wait-free, as one thread may be overtaken without end.
Exponential back-off makes that rarer; so does an elimination array, in which a push
meets a pop.

compare_and_set of cereggii.AtomicRef compares identity (`is`, not ==). It is an atomic
instruction of the processor, with acquire and release: who pops an item sees all that
was written before its push. A GIL is not needed, and is kept meanwhile if there is one.

The top may be A, then another, and A again (ABA), and compare-and-set takes it for
unchanged. That does no harm as long as A still lies on what it lay on before. Here it
does: no node is ever changed, and the collector frees none, for use elsewhere, that a
thread still refers to. Where nodes are used again, the stack breaks: below, b is popped
twice. The cures then are a tag, counted up by each change and compared together with
the reference, and hazard pointers.

Use the append and pop of a collections.deque, or queue.LifoQueue, which can wait.

R. K. Treiber, "Systems programming: coping with parallelism", IBM RJ 5118, 1986.

Try:  --overtaken 1000

Output:
    pushes that overtake one   its attempts that fail
                           0                        0
                           1                        1
                         100                      100
    one thread stops in push; another pushes and pops, 500 times each
      compare-and-set   goes on
        the first needs 1 attempt, as the top is the same again
      a lock            waits
    one thread stops in pop; another pops a, b and pushes d
      new nodes     popped a b d   left c
      used again    popped a b d   left b c
    who fails has been overtaken by one who has not: somebody always gets on
"""

import argparse
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

from example09_striped_hash_map import in_range
from interleaving import Interleaving

try:
    import cereggii  # type: ignore[import-untyped]
except ModuleNotFoundError:
    print("needs cereggii")
    raise SystemExit(77) from None

T = TypeVar("T")

LIMIT = 10.0  # seconds for what is bound to come
PAIRS = 500  # of a push and a pop of one thread while another is stopped


class Cell(Protocol[T]):
    """A reference that can be replaced if it is still what it was: AtomicRef is one."""

    def get(self) -> T: ...

    def compare_and_set(self, expected: T, desired: T, /) -> bool: ...


@dataclass(slots=True, eq=False)
class Node(Generic[T]):
    """An item, and the node that it lies on."""

    item: T
    below: "Node[T] | None"


class TreiberStack(Generic[T]):
    """A lock-free stack. The last item pushed is the first to be popped.

    It has no length: that would be out of date before the caller has it. Call pop, and
    expect IndexError.

    An exception from outside, as by Ctrl-C, leaves the stack in order. An operation has
    then happened or not; the item of a pop that has happened is lost.

    Args:
        cell: makes the reference to the top.
    """

    def __init__(self, cell: Callable[[Any], Cell[Any]] = cereggii.AtomicRef) -> None:
        # The only thing that changes, and by compare-and-set alone. The one that
        # succeeds is the linearization point of push and pop; for the pop of an empty
        # stack it is the get that returns None.
        #
        # With free threading, get of cereggii 1.0 reads first and takes hold then; in
        # between, the object may be freed, and another, of any type, made in its place.
        # So pop reads twice, before it looks into a node: then it has been the top.
        self._top: Cell[Node[T] | None] = cell(None)

    def push(self, item: T) -> None:
        """Put an item on top."""
        while True:
            top = self._top.get()
            # A node of its own for each attempt: none is changed once it is made.
            if self._top.compare_and_set(top, Node(item, top)):
                return

    def pop(self) -> T:
        """Take the topmost item.

        Raises:
            IndexError: there is none.
        """
        while (top := self._top.get()) is not None:
            if top is self._top.get() and self._top.compare_and_set(top, top.below):
                return top.item
        raise IndexError("pop from an empty stack")


class RecyclingStack(TreiberStack[T]):
    """The same, but nodes are used again, the oldest first; broken: ABA."""

    def __init__(self, cell: Callable[[Any], Cell[Any]] = cereggii.AtomicRef) -> None:
        super().__init__(cell)
        self._free: deque[Node[T]] = deque()  # its append and popleft are atomic

    def push(self, item: T) -> None:
        try:
            node = self._free.popleft()
            node.item = item
        except IndexError:
            node = Node(item, None)
        while True:
            node.below = top = self._top.get()  # a pop may hold what was below before
            if self._top.compare_and_set(top, node):
                return

    def pop(self) -> T:
        while (top := self._top.get()) is not None:
            if self._top.compare_and_set(top, top.below):
                item = top.item
                self._free.append(top)
                return item
        raise IndexError("pop from an empty stack")


class LockedStack(Generic[T]):
    """A stack with a lock.

    Args:
        new_lock: makes the lock.
        between: called with the lock held. It lets a caller decide who runs meanwhile.
    """

    def __init__(
        self,
        new_lock: Callable[[], AbstractContextManager[object]] = threading.Lock,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self._between = between
        self._lock = new_lock()  # guards what follows
        self._items: list[T] = []

    def push(self, item: T) -> None:
        """Put an item on top."""
        with self._lock:
            self._between()
            self._items.append(item)

    def pop(self) -> T:
        """Take the topmost item, or raise IndexError."""
        with self._lock:
            return self._items.pop()


class WatchedCell(Generic[T]):
    """A cell for demonstrations: it calls `before` ahead of each compare-and-set."""

    def __init__(self, before: Callable[[], object], initial: T) -> None:
        self._before = before
        self._reference = cereggii.AtomicRef(initial)

    def get(self) -> T:
        current: T = self._reference.get()
        return current

    def compare_and_set(self, expected: T, desired: T) -> bool:
        self._before()
        success: bool = self._reference.compare_and_set(expected, desired)
        return success


class Stop(Interleaving):
    """Called, it stops the thread that makes the `nth` call; the others pass.

    Attributes:
        calls: how many there were.
    """

    def __init__(self, nth: int) -> None:
        super().__init__()
        self.calls = 0  # by one thread at a time: the other waits, or has ended
        self._nth = nth

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self._nth:
            self.stop()


def failures_if_overtaken(times: int) -> int:
    """Return how often a push fails if so many of another thread come before it."""
    me = threading.current_thread()
    attempts = 0

    def overtake() -> None:
        nonlocal attempts
        if threading.current_thread() is me:
            attempts += 1
            if attempts <= times:
                another.submit(stack.push, "another's").result(LIMIT)

    stack: TreiberStack[str] = TreiberStack(partial(WatchedCell, overtake))
    with ThreadPoolExecutor(max_workers=1) as another:
        stack.push("mine")
    return attempts - 1


def push_and_pop(stack: TreiberStack[int] | LockedStack[int]) -> None:
    """Push and pop, PAIRS times each."""
    for n in range(PAIRS):
        stack.push(n)
        stack.pop()


def pop_among_others(kind: type[TreiberStack[Any]]) -> tuple[list[str], list[str]]:
    """Stop a pop when it has read the top; pop two items and push one meanwhile.

    Returns:
        The items that were popped, and those left after that.
    """
    stop = Stop(nth=4)
    stack = kind(partial(WatchedCell, stop))
    for item in ("c", "b", "a"):
        stack.push(item)
    popped: list[str] = []
    left: list[str] = []

    def others() -> None:
        popped.extend([stack.pop(), stack.pop()])
        stack.push("d")

    stop.run(lambda: popped.append(stack.pop()), others)
    with suppress(IndexError):
        while True:
            left.append(stack.pop())
    return popped, left


def demonstrate(most_overtaken: int) -> None:
    """Check each claim, and print it."""
    print("pushes that overtake one   its attempts that fail")
    for times in (0, 1, most_overtaken):
        failures = failures_if_overtaken(times)
        print(f"{times:24}{failures:25}")
        if failures != times:
            raise SystemExit("each push that overtakes was to make one attempt fail")

    print(f"one thread stops in push; another pushes and pops, {PAIRS} times each")
    stop = Stop(nth=1)
    lock_free: TreiberStack[int] = TreiberStack(partial(WatchedCell, stop))
    outcome = stop.run(partial(lock_free.push, -1), partial(push_and_pop, lock_free))
    attempts = stop.calls - 2 * PAIRS
    print(f"  compare-and-set   {outcome}")
    print(f"    the first needs {attempts} attempt, as the top is the same again")
    if (outcome, attempts, lock_free.pop()) != ("goes on", 1, -1):
        raise SystemExit("the same top again was to be no failure")
    stop = Stop(nth=1)
    locked: LockedStack[int] = LockedStack(stop.lock, between=stop)
    outcome = stop.run(partial(locked.push, -1), partial(push_and_pop, locked))
    print(f"  a lock            {outcome}")
    if outcome != "waits":
        raise SystemExit("the lock was to keep the other out")

    print("one thread stops in pop; another pops a, b and pushes d")
    for name, kind, expected in (
        ("new nodes", TreiberStack, ["c"]),
        ("used again", RecyclingStack, ["b", "c"]),
    ):
        popped, left = pop_among_others(kind)
        print(f"  {name:13} popped {' '.join(popped)}   left {' '.join(left)}")
        if (popped, left) != (["a", "b", "d"], expected):
            raise SystemExit(f"left were to be {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--overtaken", type=in_range(1, 1000), default=100)
    most_overtaken = parser.parse_args().overtaken
    try:
        demonstrate(most_overtaken)
    except TimeoutError as error:
        raise SystemExit(f"a wait did not end: {error}") from None
    print("who fails has been overtaken by one who has not: somebody always gets on")


if __name__ == "__main__":
    main()
