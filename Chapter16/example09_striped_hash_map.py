"""A hash map has a lock for each stripe, so updates of different keys may overlap.

The hash of a key chooses its stripe, and each stripe is a hash table of its own with a
lock of its own. Updates of one key come one after the other, and so do those of keys in
one stripe; in different stripes they run at the same time. A table that is full moves
into twice as many buckets while its lock is held, and the other stripes go on. (A dict
as the table would be shorter; then the resizing would not be seen.)

len() and items() concern all stripes. They take all locks, always in the same order, so
that no two threads wait for each other (Chapter 12), and see the map as it was at one
moment. A loop over the map holds one lock at a time. It stops nobody for long, and may
see a later key and miss an earlier one: it is weakly consistent.

The function given to `update` runs while the stripe is locked. If it raises, nothing
has changed. If it uses the map, it gets a RuntimeError. Otherwise two threads could
wait for each other's stripe, on the rare day when the hashes are such. (They still can
where a function of one map uses a second one, and a function of that uses the first.)

A dict under one lock is faster if the lock is held for a moment only, since a dict is
written in C (example17). Stripes pay when the functions wait, as below.

Striped hash set: M. Herlihy and N. Shavit, "The Art of Multiprocessor Programming",
chapter 13; there all stripes share a table, and to resize it takes all locks. A table
for each stripe: D. Lea, ConcurrentHashMap of Java 5.

Try:  --stripes 2
Try:  --threads 16

Output:
    an update is half done; another one    meanwhile  additions
      of the same key, no lock             goes on    1 of 2
      of the same key                      waits      2 of 2
      of a key in its stripe               waits      2 of 2
      of a key in another stripe           goes on    2 of 2
    a stripe is being resized; to add      meanwhile  keys
      a key to it                          waits      10 of 10
      a key to another stripe              goes on    10 of 10
    a function fails: ZeroDivisionError; uses the map: RuntimeError
    0 is added, then 1: a loop sees [1], items() [0, 1]
    updates that wait 1 ms     1 thread       4 threads
      dict, no lock             904 /s        3,610 /s
      dict, one lock            894 /s          882 /s
      StripedMap                885 /s        3,421 /s
    updates that wait: 3.9x as many with stripes as with one lock
"""

import argparse
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from interleaving import Interleaving

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
T = TypeVar("T")

FIRST_BUCKETS = 4  # of a table that is empty
LOAD = 2  # entries for each bucket, on average, of a table that is full

DURATION = 0.05  # seconds for which each throughput is measured
WAIT = 0.001  # seconds that a function waits while it has a lock


@dataclass(slots=True, eq=False)
class Entry(Generic[K, V]):
    """A key, what is left of its hash, and its value."""

    key: K
    code: int
    value: V


class Table(Generic[K, V]):
    """A hash table that grows; one thread at a time may use it.

    Args:
        on_resize: called when all entries are in the new buckets, and those are not yet
            in use.
    """

    def __init__(self, on_resize: Callable[[], object]) -> None:
        self.size = 0
        self._buckets: list[list[Entry[K, V]]] = [[] for _ in range(FIRST_BUCKETS)]
        self._on_resize = on_resize

    def find(self, key: K, code: int) -> Entry[K, V] | None:
        """Return the entry of `key`, or None."""
        for entry in self._buckets[code % len(self._buckets)]:
            if entry.code == code and (entry.key is key or entry.key == key):
                return entry
        return None

    def add(self, key: K, code: int, value: V) -> None:
        """Add a key that is not there."""
        if self.size == LOAD * len(self._buckets):
            self._resize()
        self._buckets[code % len(self._buckets)].append(Entry(key, code, value))
        self.size += 1

    def remove(self, entry: Entry[K, V]) -> None:
        self._buckets[entry.code % len(self._buckets)].remove(entry)
        self.size -= 1

    def _resize(self) -> None:
        buckets: list[list[Entry[K, V]]] = [[] for _ in range(2 * len(self._buckets))]
        for entry in self:
            buckets[entry.code % len(buckets)].append(entry)
        self._on_resize()
        self._buckets = buckets

    def __iter__(self) -> Iterator[Entry[K, V]]:
        for bucket in self._buckets:
            yield from bucket


class _Inside(threading.local):
    """Lets no thread in that is inside already. Each has its own `entered`."""

    entered = False

    def __enter__(self) -> None:
        if self.entered:
            raise RuntimeError("what runs inside the map cannot use the map")
        self.entered = True

    def __exit__(self, *_: object) -> None:
        self.entered = False


class StripedMap(Generic[K, V]):
    """A mapping for many threads, with a lock for each stripe.

    Each method but the iterator is one step to all other threads: it takes effect while
    its lock is held, or all of them. A key's `__eq__`, and a function that is passed,
    run while its stripe is locked. They may raise, and the map is as before. (What
    Python code cannot rule out is Ctrl-C between two steps that change the map. It hits
    the main thread only.)

    Args:
        n_stripes: so many updates may run at the same time.
        new_lock: makes the lock of a stripe.
        on_resize: called in the midst of each resizing, while the stripe is locked.

    Raises:
        ValueError: there are no stripes.
        RuntimeError: by every method, if what runs inside the map uses the map.
    """

    def __init__(
        self,
        n_stripes: int = 16,
        new_lock: Callable[[], AbstractContextManager[Any]] = threading.Lock,
        on_resize: Callable[[], object] = lambda: None,
    ) -> None:
        if n_stripes < 1:
            raise ValueError(f"a map of {n_stripes} stripes")
        # Each lock guards the table beside it. Who needs several takes them in the
        # order of this list.
        self._stripes: list[tuple[AbstractContextManager[Any], Table[K, V]]] = [
            (new_lock(), Table(on_resize)) for _ in range(n_stripes)
        ]
        self._inside = _Inside()

    def __getitem__(self, key: K) -> V:
        """Return the value of `key`, or raise KeyError."""
        with self._locked(key) as (table, code):
            if (entry := table.find(key, code)) is None:
                raise KeyError(key)
            return entry.value

    def get(self, key: K, default: T) -> V | T:
        """Return the value of `key`, or `default` if there is none."""
        with self._locked(key) as (table, code):
            entry = table.find(key, code)
            return default if entry is None else entry.value

    def __contains__(self, key: K) -> bool:
        with self._locked(key) as (table, code):
            return table.find(key, code) is not None

    def __setitem__(self, key: K, value: V) -> None:
        self.update(key, lambda _: value, value)

    def update(self, key: K, function: Callable[[V], V], initial: V) -> V:
        """Replace the value of `key` by what `function` makes of it; return that.

        Nobody else sees or changes the key meanwhile. If it is not there, `function`
        gets `initial`.
        """
        with self._locked(key) as (table, code):
            entry = table.find(key, code)
            # Lives on until the stripe is unlocked: its finalizer may use the map.
            old = initial if entry is None else entry.value
            value = function(old)
            if entry is None:
                table.add(key, code, value)
            else:
                entry.value = value
            return value

    def setdefault(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of `key`; if there is none, make it.

        Unlike that of a dict it takes a function, which is called only if it is needed:
        once for all threads that ask at the same time.
        """
        with self._locked(key) as (table, code):
            if (entry := table.find(key, code)) is not None:
                return entry.value
            value = make()
            table.add(key, code, value)
            return value

    def pop(self, key: K) -> V:
        """Remove `key` and return its value, or raise KeyError."""
        with self._locked(key) as (table, code):
            if (entry := table.find(key, code)) is None:
                raise KeyError(key)
            table.remove(entry)
            return entry.value

    def __delitem__(self, key: K) -> None:
        self.pop(key)

    def __len__(self) -> int:
        """Return how many keys there are at one moment. All others wait."""
        with self._all_locked():
            return sum(table.size for _, table in self._stripes)

    def items(self) -> list[tuple[K, V]]:
        """Return all keys and values as they are at one moment. All others wait."""
        with self._all_locked():
            return [(e.key, e.value) for _, table in self._stripes for e in table]

    def __iter__(self) -> Iterator[K]:
        """Yield the keys, those of each stripe as they are when it is come to.

        No lock is held in the body of the loop, which may use the map.
        """
        for lock, table in self._stripes:
            with self._inside, lock:
                keys = [entry.key for entry in table]
            yield from keys

    @contextmanager
    def _locked(self, key: K) -> Iterator[tuple[Table[K, V], int]]:
        """Lock the stripe of `key`; give its table, and the rest of the hash."""
        code = hash(key)  # may be long in coming, so before the lock is taken
        lock, table = self._stripes[code % len(self._stripes)]
        with self._inside, lock:
            yield table, code // len(self._stripes)

    @contextmanager
    def _all_locked(self) -> Iterator[None]:
        with self._inside, ExitStack() as locks:
            for lock, _ in self._stripes:
                locks.enter_context(lock)
            yield


def calls_per_second(call: Callable[[int], object], n_threads: int) -> float:
    """Measure for DURATION how often threads call `call`, each with its number."""
    over = threading.Event()

    def work(me: int) -> int:
        calls = 0
        while not over.is_set():
            call(me)
            calls += 1
        return calls

    began = time.perf_counter()
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            futures = [pool.submit(work, me) for me in range(n_threads)]
            wait(futures, DURATION, FIRST_EXCEPTION)
        finally:
            over.set()
    return sum(future.result() for future in futures) / (time.perf_counter() - began)


def two_updates(
    n_stripes: int, keys: tuple[int, int], locked: bool = True
) -> tuple[str, int]:
    """Add 1 to both keys, the second time while the first addition is half done.

    Returns:
        What the second thread does meanwhile, and the sum in the end.
    """
    interleaving = Interleaving()
    new_lock = interleaving.lock if locked else nullcontext
    counts: StripedMap[int, int] = StripedMap(n_stripes, new_lock)
    for key in keys:
        counts[key] = 0

    def add_one_slowly(number: int) -> int:
        interleaving.stop()
        return number + 1

    outcome = interleaving.run(
        lambda: counts.update(keys[0], add_one_slowly, 0),
        lambda: counts.update(keys[1], add_one, 0),
    )
    return outcome, sum(value for _, value in counts.items())


def during_a_resize(n_stripes: int, key: int) -> tuple[str, int]:
    """Add `key` while stripe 0 moves into more buckets.

    Returns:
        What the thread does that adds it, and how many keys there are in the end.
    """
    interleaving = Interleaving()
    squares: StripedMap[int, int] = StripedMap(
        n_stripes, interleaving.lock, interleaving.stop
    )

    too_many = LOAD * FIRST_BUCKETS + 1

    def fill() -> None:
        for number in range(0, too_many * n_stripes, n_stripes):
            squares[number] = number**2

    outcome = interleaving.run(fill, lambda: squares.update(key, lambda n: n, key**2))
    items = squares.items()
    if any(value != number**2 for number, value in items):
        raise SystemExit("a resize has changed a value")
    return outcome, len(items)


def seen_by_a_loop(n_stripes: int) -> tuple[list[int], list[int]]:
    """Return what a loop sees, and items(), of key 0 that is added before key 1.

    The loop is past the stripe of key 0 when both are added.
    """
    numbers: StripedMap[int, None] = StripedMap(n_stripes)
    numbers[n_stripes] = None  # in the stripe of 0
    loop = iter(numbers)
    next(loop)
    numbers[0] = None
    numbers[1] = None
    return list(loop), sorted(key for key, _ in numbers.items() if key < 2)


def what_fails(n_stripes: int) -> list[str]:
    """Return what update raises when its function fails, or uses the map itself.

    Raises:
        SystemExit: the map has changed, or is locked.
    """
    counts: StripedMap[int, int] = StripedMap(n_stripes)
    counts[0] = 7
    raised = []
    uses: list[Callable[[int], int]] = [
        lambda number: number // 0,
        lambda number: counts[0],
        lambda number: counts.setdefault(1, lambda: number),
        lambda number: len(counts),
    ]
    for function in uses:
        try:
            counts.update(0, function, 0)
        except (ArithmeticError, RuntimeError) as error:
            raised.append(type(error).__name__)
        if counts.items() != [(0, 7)]:
            raise SystemExit("a function that fails was to change nothing")
    return raised


def updates_per_second(n_stripes: int, n_threads: int) -> dict[str, float]:
    """Measure updates that wait, by a dict, one with a lock, and a map with stripes.

    Each thread has a key of its own.
    """
    counts = dict.fromkeys(range(n_threads), 0)
    lock = threading.Lock()
    striped: StripedMap[int, int] = StripedMap(n_stripes)

    def in_dict(me: int) -> None:
        counts[me] = add_one_late(counts[me])

    def under_lock(me: int) -> None:
        with lock:
            in_dict(me)

    return {
        "dict, no lock": calls_per_second(in_dict, n_threads),
        "dict, one lock": calls_per_second(under_lock, n_threads),
        "StripedMap": calls_per_second(
            lambda me: striped.update(me, add_one_late, 0), n_threads
        ),
    }


def add_one(number: int) -> int:
    return number + 1


def add_one_late(number: int) -> int:
    time.sleep(WAIT)
    return number + 1


def in_range(least: int, most: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in `least` … `most`."""

    def whole_number(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be in {least} … {most}, not {number}"
            )
        return number

    return whole_number


def demonstrate(n_stripes: int, n_threads: int) -> None:
    """Check each claim, and print it."""
    print("an update is half done; another one    meanwhile  additions")
    for what, keys, locked, expected in [
        ("of the same key, no lock", (0, 0), False, ("goes on", 1)),
        ("of the same key", (0, 0), True, ("waits", 2)),
        ("of a key in its stripe", (0, n_stripes), True, ("waits", 2)),
        ("of a key in another stripe", (0, 1), True, ("goes on", 2)),
    ]:
        outcome, total = two_updates(n_stripes, keys, locked)
        print(f"  {what:36} {outcome:10} {total} of 2")
        if (outcome, total) != expected:
            raise SystemExit(f"another one {what} was to be otherwise: {expected}")

    n_keys = LOAD * FIRST_BUCKETS + 2
    print("a stripe is being resized; to add      meanwhile  keys")
    for what, key, expected in [
        ("a key to it", -n_stripes, ("waits", n_keys)),
        ("a key to another stripe", 1, ("goes on", n_keys)),
    ]:
        outcome, size = during_a_resize(n_stripes, key)
        print(f"  {what:36} {outcome:10} {size} of {n_keys}")
        if (outcome, size) != expected:
            raise SystemExit(f"to add {what} was to be otherwise: {expected}")

    raised = what_fails(n_stripes)
    print(f"a function fails: {raised[0]}; uses the map: {raised[1]}")
    if raised != ["ZeroDivisionError"] + 3 * ["RuntimeError"]:
        raise SystemExit("a function was to fail, and three were not to use the map")

    loop, items = seen_by_a_loop(n_stripes)
    print(f"0 is added, then 1: a loop sees {loop}, items() {items}")
    if (loop, items) != ([1], [0, 1]):
        raise SystemExit("the loop was to miss 0, and items() to miss nothing")

    print(f"updates that wait {1000 * WAIT:g} ms     1 thread  {n_threads:6} threads")
    one = updates_per_second(n_stripes, 1)
    many = updates_per_second(n_stripes, n_threads)
    for name, rate in one.items():
        print(f"  {name:14} {rate:14,.0f} /s  {many[name]:11,.0f} /s")
    ratio = many["StripedMap"] / many["dict, one lock"]
    print(f"updates that wait: {ratio:.1f}x as many with stripes as with one lock")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--stripes", type=in_range(2, 1024), default=16)
    parser.add_argument("--threads", type=in_range(2, 32), default=4)
    options = parser.parse_args()
    try:
        demonstrate(options.stripes, options.threads)
    except TimeoutError as error:
        raise SystemExit(f"a wait did not end: {error}") from None


if __name__ == "__main__":
    main()
