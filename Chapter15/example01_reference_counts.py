"""Every object counts its references; two threads that count unprotected count wrong.

A name counts one, and so does a place in a list, or a variable of a frame that a
traceback keeps. CPython counts up and down with almost every step, and frees an object
when its count is zero. `sys.getrefcount` tells the count; how much of that is the call
itself depends on the version, so compare two calls. From Python 3.12 on, None, True,
small integers and others do not count: they are immortal (PEP 683).

To count is to read, add, and write. If two threads read before either writes, one of
the two changes is lost. A count too low frees an object that is in use, one too high
never frees it. A model shows both; a barrier brings about the unlucky moment. CPython
itself loses none. With a GIL one thread runs at a time, and it gives up the GIL only
where all counts are right. A free-threaded build keeps two counts of each object, one
for the thread that made it and one for all others, who count by atomic instructions
(biased reference counting: PEP 703; Choi, Shull and Torrellas, PACT 2018). If one of
the others drops the last reference, the maker adds the two up when it goes on, and the
object is freed then.

Who refers to an object? `gc.get_referrers` tells.

Book: Chapter 15, example1.

Output:
    Python <version>, GIL <gil>
    references to one object           counted
      a second name                    +1
      twice in a list                  +2
      a value in a dictionary          +1
      an argument in a kept traceback  +1
      an argument of a call            +1, from 3.14 +0
      all of these gone                +0
      1000 times None, or 7            +1000, from 3.12 +0
    the last one dropped: freed at once (by another thread, in a
      free-threaded build: when the thread that made the object goes on)
    2 threads take and drop 200000 each: none is lost
    a model without protection, 2 threads at once
      1 reference, and both take one   counted 2 instead of 3: freed too early
      3 references, and both drop one  counted 2 instead of 1: never freed
    a count that is not protected frees too early, or never
"""

import platform
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

LIMIT = 10.0  # seconds that a thread may wait for the other
MANY = 1000  # references to an immortal object
TIMES = 200_000  # that each of two threads takes a reference and drops it

Between = Callable[[], object]


class Thing:
    """An object like any other."""


def count_inside(thing: Thing) -> int:
    """Return the count of an object that is an argument."""
    return sys.getrefcount(thing)


def fail(thing: Thing) -> None:
    """Raise an exception, whose traceback keeps this frame, and so the argument."""
    raise ValueError


def count_references() -> dict[str, int]:
    """Return by how much the count of an object grows with each kind of reference."""
    thing = Thing()
    before = sys.getrefcount(thing)
    grown = {}

    name = thing
    grown["a second name"] = sys.getrefcount(thing) - before
    del name
    items = [thing, thing]
    grown["twice in a list"] = sys.getrefcount(thing) - before
    del items
    values = {"key": thing}
    grown["a value in a dictionary"] = sys.getrefcount(thing) - before
    del values
    try:
        fail(thing)
    except ValueError as error:
        kept = error
    grown["an argument in a kept traceback"] = sys.getrefcount(thing) - before
    del kept
    grown["an argument of a call"] = count_inside(thing) - before
    grown["all of these gone"] = sys.getrefcount(thing) - before
    return grown


def growth_by_many(thing: object) -> int:
    """Return by how much the count of `thing` grows with MANY references more."""
    before = sys.getrefcount(thing)
    items = [thing] * MANY
    after = sys.getrefcount(thing)
    del items
    return after - before


def dies_with_the_last_name() -> bool:
    """Tell whether an object is gone as soon as its last name is."""
    thing = Thing()
    reference = weakref.ref(thing)
    del thing
    return reference() is None


def dropped_by_another_thread() -> tuple[bool, bool]:
    """Let another thread drop the last reference to an object that this one has made.

    Returns:
        Whether the object was gone at once; and when this thread had gone on.
    """
    items = [Thing()]
    reference = weakref.ref(items[0])

    def drop() -> bool:
        items.clear()
        return reference() is None

    with ThreadPoolExecutor(max_workers=1) as other:
        at_once = other.submit(drop).result(LIMIT)
    return at_once, reference() is None


def take_and_drop(thing: Thing, meet: Between) -> None:
    """Meet the other thread, then refer to `thing` from a list, TIMES times."""
    meet()
    for _ in range(TIMES):
        [thing].clear()


class Model:
    """An object that counts its references as if there were one thread only.

    Args:
        references: how many there are at first.
    """

    def __init__(self, references: int) -> None:
        self.count = references  # guarded by nothing: that is the defect
        self.freed = False

    def take(self, between: Between = lambda: None) -> None:
        """Count one reference more; `between` is called between read and write."""
        self._change(1, between)

    def drop(self, between: Between = lambda: None) -> None:
        """Count one less, and free the object if that was the last."""
        self._change(-1, between)
        self.freed = self.freed or self.count == 0

    def _change(self, by: int, between: Between) -> None:
        seen = self.count
        between()  # the other thread reads the same count here ...
        self.count = seen + by  # ... and both write the same new one


def twice_at_once(change: Callable[[Between], None]) -> None:
    """Call `change` in two threads; both have read before either writes.

    Raises:
        threading.BrokenBarrierError: they did not meet within LIMIT seconds.
    """
    both_have_read = threading.Barrier(2, timeout=LIMIT)
    with ThreadPoolExecutor(max_workers=2) as threads:
        try:
            for _ in threads.map(change, [both_have_read.wait] * 2):
                pass
        finally:  # also after Ctrl-C, perhaps with one of them not there yet
            both_have_read.abort()


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def check_real_counts() -> None:
    """Check and print how this interpreter counts."""
    grown = count_references()
    # From 3.14 on an argument borrows the reference of the caller's variable.
    argument = 0 if sys.version_info >= (3, 14) else 1
    if list(grown.values()) != [1, 2, 1, 1, argument, 0]:
        raise SystemExit(f"counted otherwise: {grown}")
    for name, more in grown.items():
        call = name == "an argument of a call"
        print(f"  {name:33}{'+1, from 3.14 +0' if call else f'{more:+}'}")
    many = [growth_by_many(None), growth_by_many(7)]
    if sys.version_info >= (3, 12):
        as_expected = many == [0, 0]
    else:  # nearly: other threads of the program refer to them, too
        as_expected = min(many) > MANY // 2
    if not as_expected:
        raise SystemExit(f"{MANY} times None, or 7: counted {many}")
    print(f"  {f'{MANY} times None, or 7':33}+{MANY}, from 3.12 +0")

    at_once, after = dropped_by_another_thread()
    at_once = at_once or bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    if not (dies_with_the_last_name() and at_once and after):
        raise SystemExit("an object was to die with its last reference")
    print("the last one dropped: freed at once (by another thread, in a")
    print("  free-threaded build: when the thread that made the object goes on)")


def main() -> None:
    print(f"Python {platform.python_version()}, GIL {gil_state()}")
    print("references to one object           counted")
    check_real_counts()

    thing = Thing()
    before = sys.getrefcount(thing)
    low, high = Model(references=1), Model(references=3)
    try:
        twice_at_once(partial(take_and_drop, thing))
        if (lost := sys.getrefcount(thing) - before) != 0:
            raise SystemExit(f"the interpreter counts wrong by {lost}")
        print(f"2 threads take and drop {TIMES} each: none is lost")
        twice_at_once(low.take)
        twice_at_once(high.drop)
    except threading.BrokenBarrierError:
        raise SystemExit("two threads were to meet") from None
    counts = low.count, high.count
    low.drop()
    low.drop()
    high.drop()
    if (*counts, low.freed, high.freed) != (2, 2, True, False):
        raise SystemExit(f"one change of each two was to be lost: {counts}")
    print("a model without protection, 2 threads at once")
    print("  1 reference, and both take one   counted 2 instead of 3: freed too early")
    print("  3 references, and both drop one  counted 2 instead of 1: never freed")
    print("a count that is not protected frees too early, or never")


if __name__ == "__main__":
    main()
