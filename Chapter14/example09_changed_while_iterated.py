"""A thread goes through a collection while another changes it, and sees what never was.

A dict, a set and a deque raise RuntimeError if they notice. But a set notices only that
its size has changed, a dict little more (that more keys come than it had), and a list
nothing. Then an item is skipped that was there all the time, or seen twice, or seen
with others that came when it had gone. Here the change comes in every run after the
first step: the loop hands over to the other thread, and goes on when that is through.

Three mends, tried with the same hand-over. Go through a snapshot, `list(things)` or
`things.copy()`. Or hold a lock in the loop and for each change, so that whoever wants
to change must wait for the whole loop. Or never change what others may be reading: copy
it, change the copy, and replace the old one by it (copy-on-write; chapter 16 makes a
structure of it).

Is a snapshot taken at one moment? For a list, dict or set itself it is. With a GIL it
runs no Python code, so no other thread comes in between, which is how CPython is made;
without a GIL it holds the lock of the collection, which the documentation promises of
`copy()` ("Thread Safety Guarantees"), and which CPython does for `list()`, too. Of a
subclass with an `__iter__` of its own it is not, and fails like the loop; nor is
`[x for x in things]`, which is a loop.

Output:
    at 0 of 0 1 2 3 4  another thread   the loop sees
    list               removes 0        0 2 3 4
    list               puts 9 in front  0 0 1 2 3 4
    dict               puts 5 for 0     0 2 3 4 5
    set                puts 5 for 0     0 1 2 3 4 5
    dict               adds 5           RuntimeError: dictionary changed size
    set                adds 5           RuntimeError: Set changed size
    deque              adds 5           RuntimeError: deque mutated
    its own __iter__   adds 5           RuntimeError: dictionary changed size
    snapshot           puts 5 for 0     0 1 2 3 4
    lock               puts 5 for 0     0 1 2 3 4
    copy-on-write      puts 5 for 0     0 1 2 3 4
    go through a snapshot, or hold a lock, or replace instead of changing
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

LIMIT = 10.0  # seconds that one thread waits for the other
THINGS = range(5)

Change = Callable[[Any], object]  # of a collection
Start = Callable[[Callable[[], object]], Future[object]]  # in the other thread


def visit(things: Iterable[int], after_first: Callable[[], object]) -> list[int]:
    """Return what a loop sees; it calls `after_first` after its first step."""
    seen: list[int] = []
    for thing in things:
        seen.append(thing)
        if len(seen) == 1:
            after_first()
    return seen


def in_a_loop(things: Any, change: Change, start: Start) -> list[int]:
    """Return what a loop sees; broken: it may be anything."""
    return visit(things, lambda: start(partial(change, things)).result(LIMIT))


def over_a_snapshot(things: Any, change: Change, start: Start) -> list[int]:
    """Return what a loop over a copy sees: what was there when it began."""
    snapshot = list(things)
    return visit(snapshot, lambda: start(partial(change, things)).result(LIMIT))


class DictWithIter(dict[int, None]):
    """A dict whose iterator is written in Python.

    Args:
        things: the keys.
        after_first: called by each iteration after its first step.
    """

    def __init__(
        self, things: Iterable[int], after_first: Callable[[], object]
    ) -> None:
        super().__init__(dict.fromkeys(things))
        self._after_first = after_first

    def __iter__(self) -> Iterator[int]:
        return iter(visit(super().__iter__(), self._after_first))


def copied_by_python(things: Any, change: Change, start: Start) -> list[int]:
    """Return a copy that is made by Python code; broken: the copying is a loop."""
    own = DictWithIter(things, lambda: start(partial(change, own)).result(LIMIT))
    return list(own)


class NotedLock:
    """A lock that tells when somebody must wait for it.

    Attributes:
        wanted: set by a thread that has found it locked, before it waits.
    """

    def __init__(self) -> None:
        self.wanted = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self.wanted.set()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def holding_a_lock(things: Any, change: Change, start: Start) -> list[int]:
    """Return what a loop sees that holds a lock; the change must wait for its end.

    Raises:
        TimeoutError: nobody wanted the lock meanwhile.
    """
    lock = NotedLock()
    changes = []

    def locked_change() -> None:
        with lock:
            change(things)

    def after_first() -> None:
        changes.append(start(locked_change))
        if not lock.wanted.wait(LIMIT):
            raise TimeoutError("nobody wanted the lock")

    with lock:
        seen = visit(things, after_first)
    changes[0].result(LIMIT)
    return seen


class Published:
    """Things that are not changed, but replaced. Readers need no lock.

    Attributes:
        current: to be taken once, and to be left as it is.
    """

    def __init__(self, things: Any) -> None:
        self.current = things
        self._lock = threading.Lock()  # held by who replaces: they take turns

    def change(self, change: Change) -> None:
        """Let `change` be seen, all of it at once."""
        with self._lock:
            changed = self.current.copy()
            change(changed)
            self.current = changed


def with_copy_on_write(things: Any, change: Change, start: Start) -> list[int]:
    """Return what a loop sees that nobody disturbs: what was there when it began."""
    published = Published(things)
    return visit(
        published.current,
        lambda: start(partial(published.change, change)).result(LIMIT),
    )


def remove(things: Any) -> None:
    things.remove(0)


def insert(things: Any) -> None:
    things.insert(0, 9)


def append(things: Any) -> None:
    things.append(5)


def add(things: Any) -> None:
    things.update(dict.fromkeys([5]))


def replace(things: Any) -> None:
    if isinstance(things, dict):
        del things[0]
    else:
        things.remove(0)
    add(things)


Way = Callable[[Any, Change, Start], list[int]]


def outcome(
    pool: ThreadPoolExecutor, way: Way, things: Any, change: Change
) -> tuple[str, int]:
    """Return what a thread sees, or how it fails, and how often a change was made."""
    changed = 0

    def counted_change(things: Any) -> None:
        nonlocal changed
        change(things)
        changed += 1

    try:
        seen = pool.submit(way, things, counted_change, pool.submit).result(LIMIT)
        return " ".join(map(str, seen)), changed
    except RuntimeError as error:
        message = str(error).removesuffix(" during iteration")
        return f"RuntimeError: {message}", changed


def demonstrate(pool: ThreadPoolExecutor) -> None:
    """Check each claim, and print it. The pool has two threads."""
    old = " ".join(map(str, THINGS))
    of_dict = "RuntimeError: dictionary changed size"
    of_set = "RuntimeError: Set changed size"
    of_deque = "RuntimeError: deque mutated"
    make_dict = dict.fromkeys
    rows: list[tuple[str, str, Way, Callable[[Any], Any], Change, str]] = [
        ("list", "removes 0", in_a_loop, list, remove, "0 2 3 4"),
        ("list", "puts 9 in front", in_a_loop, list, insert, "0 0 1 2 3 4"),
        ("dict", "puts 5 for 0", in_a_loop, make_dict, replace, "0 2 3 4 5"),
        ("set", "puts 5 for 0", in_a_loop, set, replace, "0 1 2 3 4 5"),
        ("dict", "adds 5", in_a_loop, make_dict, add, of_dict),
        ("set", "adds 5", in_a_loop, set, add, of_set),
        ("deque", "adds 5", in_a_loop, deque, append, of_deque),
        ("its own __iter__", "adds 5", copied_by_python, make_dict, add, of_dict),
        ("snapshot", "puts 5 for 0", over_a_snapshot, make_dict, replace, old),
        ("lock", "puts 5 for 0", holding_a_lock, make_dict, replace, old),
        ("copy-on-write", "puts 5 for 0", with_copy_on_write, make_dict, replace, old),
    ]
    print(f"at 0 of {old}  another thread   the loop sees")
    for name, what, way, make, change, expected in rows:
        seen, changed = outcome(pool, way, make(THINGS), change)
        print(f"{name:19}{what:17}{seen}")
        if (seen, changed) != (expected, 1):
            raise SystemExit(f"{name}: {expected} was to be seen, after one change")
    print("go through a snapshot, or hold a lock, or replace instead of changing")


def main() -> None:
    try:
        with ThreadPoolExecutor(2) as pool:
            demonstrate(pool)
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error!r}") from None


if __name__ == "__main__":
    main()
