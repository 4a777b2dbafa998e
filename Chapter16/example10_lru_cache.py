"""A cache loads each value once, however many threads ask for it at the same time.

Its capacity is limited: what was not used for the longest time has to go (least
recently used, LRU). One lock guards the entries and their order. It is not held while a
value is loaded, or a slow load would keep everybody waiting, also for what is there.
So others may ask for a value that is just being loaded. They find the load and wait for
it: single flight. With functools.lru_cache, whose lock does not cover the call either,
they all load it, which is called a cache stampede.

If a load fails, all who wait for it get the exception, and the next one tries again. If
it is interrupted, as by Ctrl-C, that concerns its own thread only, and one of those who
wait loads instead. What was put in meanwhile is newer than what is being loaded: it
stays, and the load serves those who have waited for it.

OrderedDict is a dict with a doubly linked list through its keys, both in C; thus
moving a key to the end takes the same time in a cache of any size.

In your own program, cachetools.cached does much the same for its LRUCache, if it gets a
`condition`; with only a `lock` it loads as functools does. Single flight: the package
of that name in Go's x/sync. Loads that are out of date: "leases" in R. Nishtala et al.,
"Scaling Memcache at Facebook", NSDI 2013.

Try:  --threads 16

Output:
      4 threads ask for one value  loads  what they get
      functools.lru_cache             4  4 x value
      LRUCache                        1  4 x value
      the load fails                  1  4 x ValueError
      it is interrupted               2  1 x KeyboardInterrupt, 3 x value
    "a" is being loaded         meanwhile  value of "a" in the end
      to load "a"               waits      loaded
      to load "b"               goes on    loaded
      to put "a"                goes on    put
      to discard "a"            goes on    none
    a, b, a, c in a cache of 2: in the end a, c
    one lock, not held while loading, and one load for all who ask at once
"""

import argparse
import functools
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import count
from typing import Generic, NamedTuple, NoReturn, TypeVar

from example09_striped_hash_map import in_range
from interleaving import Interleaving

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
D = TypeVar("D")

LIMIT = 10.0  # seconds that threads may wait for each other


class CacheInfo(NamedTuple):
    """What a cache has seen so far.

    Attributes:
        hits: looks that found their key.
        misses: looks that did not; after a load is interrupted, who waited looks again.
        loads: loads that were begun.
        evictions: entries that had to go.
        size: entries there are.
    """

    hits: int
    misses: int
    loads: int
    evictions: int
    size: int


class _Load(Future[V]):
    """A value that is being loaded, by `thread`; cancelled if that was interrupted."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()


class LRUCache(Generic[K, V]):
    """At most `capacity` values, those that were used last; for many threads.

    Loaders may use the cache, but not wait for each other: that would be a deadlock. A
    key's `__eq__` and `__hash__` must not use it, nor a finalizer that the garbage
    collector calls: they may run while the lock is held. (What Python code cannot rule
    out is Ctrl-C between two steps that change the cache, or a load. It hits the main
    thread only.)

    Args:
        on_wait: called when a thread is about to wait for another one's load.

    Raises:
        ValueError: `capacity` is less than 1.
    """

    def __init__(
        self, capacity: int, on_wait: Callable[[], object] = lambda: None
    ) -> None:
        if capacity < 1:
            raise ValueError(f"a cache of {capacity} entries")
        self._capacity = capacity
        self._on_wait = on_wait
        # Guards all that follows. While it is held no loader runs and nobody waits.
        # Each step that others can see is taken while it is held.
        self._lock = threading.Lock()
        self._entries: OrderedDict[K, V] = OrderedDict()  # the last was used last
        self._loading: dict[K, _Load[V]] = {}  # what is loaded, and to be kept
        self._hits = self._misses = self._loads = self._evictions = 0

    def get(self, key: K, default: D) -> V | D:
        """Return the value of `key`, or `default` if there is none."""
        with self._lock:
            if key in self._entries:
                return self._hit(key)
            self._misses += 1
            return default

    def get_or_load(self, key: K, loader: Callable[[K], V]) -> V:
        """Return the value of `key`; if there is none, load it or wait for its load.

        Raises:
            Exception: what the loader raises; all who wait get the same one.
            RuntimeError: the loader itself asks for `key`.
        """
        with self._lock:
            if key in self._entries:
                return self._hit(key)
        mine: _Load[V] = _Load()
        load = mine
        try:
            while True:
                with self._lock:
                    if key in self._entries:
                        return self._hit(key)
                    self._misses += 1
                    load = self._loading.setdefault(key, mine)
                    self._loads += load is mine
                if load is mine:
                    return self._load(key, mine, loader)
                if load.thread == mine.thread:
                    raise RuntimeError(f"the loader of {key!r} asks for {key!r}")
                self._on_wait()
                with suppress(CancelledError):
                    load.exception()  # waits, and does not raise it
                if not load.cancelled():
                    return load.result()
        finally:
            if not mine.done():  # interrupted, or not needed
                self._drop(key, mine)
                mine.cancel()
            # A load has its error, that has a traceback, and that has this frame.
            del load, mine

    def put(self, key: K, value: V) -> None:
        """Set the value of `key`. A load that runs will not replace it."""
        with self._lock:
            self._loading.pop(key, None)
            gone = self._store(key, value)
        del gone  # with the lock released: its finalizer may use the cache

    def discard(self, key: K) -> None:
        """Forget the value of `key`, and the one that is being loaded, if any."""
        with self._lock:
            self._loading.pop(key, None)
            gone = self._entries.pop(key, None)
        del gone

    def keys(self) -> list[K]:
        """Return the keys as they are at one moment; the one used last is the last."""
        with self._lock:
            return list(self._entries)

    def info(self) -> CacheInfo:
        """Return what the cache has seen so far."""
        with self._lock:
            return CacheInfo(
                self._hits,
                self._misses,
                self._loads,
                self._evictions,
                len(self._entries),
            )

    def _hit(self, key: K) -> V:
        self._hits += 1
        self._entries.move_to_end(key)
        return self._entries[key]

    def _load(self, key: K, load: _Load[V], loader: Callable[[K], V]) -> V:
        try:
            value = loader(key)
        except Exception as error:
            self._drop(key, load)  # first, so that whoever comes now loads again
            load.set_exception(error)
            del load  # as above
            raise
        gone: object = None
        with self._lock:
            if self._loading.get(key) is load:  # nothing was put, or discarded
                del self._loading[key]
                gone = self._store(key, value)
        del gone
        load.set_result(value)
        return value

    def _drop(self, key: K, load: _Load[V]) -> None:
        with self._lock:
            if self._loading.get(key) is load:
                del self._loading[key]

    def _store(self, key: K, value: V) -> object:
        """Set a value, and return what had to go for it."""
        gone: object = self._entries.get(key)
        if key not in self._entries and len(self._entries) == self._capacity:
            gone = self._entries.popitem(last=False)
            self._evictions += 1
        self._entries[key] = value
        self._entries.move_to_end(key)
        assert len(self._entries) <= self._capacity
        return gone


def stampede(n_threads: int) -> int:
    """Let threads ask a functools.lru_cache for one value; return how many load it."""
    all_load = threading.Barrier(n_threads, timeout=LIMIT)

    @functools.lru_cache(maxsize=1)
    def load(key: str) -> str:
        all_load.wait()
        return key

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            futures = [pool.submit(load, "key") for _ in range(n_threads)]
            wait(futures)
        finally:  # also after Ctrl-C, perhaps with some of them not there yet
            all_load.abort()
    for future in futures:
        future.result()
    return load.cache_info().misses


def single_flight(
    n_threads: int, load: Callable[[int], str]
) -> tuple[list[str], CacheInfo]:
    """Let threads ask an LRUCache for one value, and load when all others wait for it.

    Args:
        load: makes the value, given how often it has been called before.

    Returns:
        For each thread the value, or the name of what was raised; and the cache's info.
    """
    waits = threading.Semaphore(0)
    cache: LRUCache[str, str] = LRUCache(1, on_wait=waits.release)
    loads = count()

    def load_when_all_wait(key: str) -> str:
        before = next(loads)
        for _ in range(n_threads - 1 - before):
            if not waits.acquire(timeout=LIMIT):
                raise TimeoutError("the others do not wait for the load")
        return load(before)

    def ask() -> str:
        try:
            return cache.get_or_load("key", load_when_all_wait)
        except (ValueError, KeyboardInterrupt) as error:
            return type(error).__name__

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            futures = [pool.submit(ask) for _ in range(n_threads)]
            wait(futures)
        finally:
            waits.release(n_threads**2)  # as many as all loads together wait for
    return sorted(future.result() for future in futures), cache.info()


def succeed(before: int) -> str:
    return "value"


def fail(before: int) -> NoReturn:
    raise ValueError("there is no such value")


def be_interrupted(before: int) -> str:
    """Load the value, but not the first time."""
    if before == 0:
        raise KeyboardInterrupt
    return "value"


Cache = LRUCache[str, str]


def during_a_load(act: Callable[[Cache], object]) -> tuple[str, str]:
    """Let a thread do something with a cache while another one loads the value of "a".

    Returns:
        Whether it waits or goes on, and the value of "a" in the end.
    """
    interleaving = Interleaving()
    cache: Cache = LRUCache(2, on_wait=interleaving.wait)

    def load(key: str) -> str:
        interleaving.stop()
        return "loaded"

    outcome = interleaving.run(lambda: cache.get_or_load("a", load), lambda: act(cache))
    return outcome, cache.get("a", "none")


def demonstrate(n_threads: int) -> None:
    """Check each claim, and print it."""
    print(f"{n_threads:3} threads ask for one value  loads  what they get")
    n_loads = stampede(n_threads)
    print(f"  functools.lru_cache {n_loads:13}  {n_threads} x value")
    if n_loads != n_threads:
        raise SystemExit("with functools.lru_cache all were to load the value")
    others = n_threads - 1
    for what, load, n_loads, expected in [
        ("LRUCache", succeed, 1, {"value": n_threads}),
        ("the load fails", fail, 1, {"ValueError": n_threads}),
        (
            "it is interrupted",
            be_interrupted,
            2,
            {"KeyboardInterrupt": 1, "value": others},
        ),
    ]:
        got, info = single_flight(n_threads, load)
        results = Counter(got)
        shown = ", ".join(f"{n} x {result}" for result, n in results.items())
        print(f"  {what:20} {info.loads:12}  {shown}")
        if (info.loads, results) != (n_loads, expected):
            raise SystemExit(f"{what}: {n_loads} loads were to give {expected}")

    print('"a" is being loaded         meanwhile  value of "a" in the end')
    acts: list[tuple[str, Callable[[Cache], object], str, str]] = [
        ('to load "a"', lambda c: c.get_or_load("a", str.upper), "waits", "loaded"),
        ('to load "b"', lambda c: c.get_or_load("b", str.upper), "goes on", "loaded"),
        ('to put "a"', lambda c: c.put("a", "put"), "goes on", "put"),
        ('to discard "a"', lambda c: c.discard("a"), "goes on", "none"),
    ]
    for what, act, *as_expected in acts:
        outcome, value = during_a_load(act)
        print(f"  {what:24}  {outcome:9}  {value}")
        if [outcome, value] != as_expected:
            raise SystemExit(f"{what} during a load was to be otherwise: {as_expected}")

    cache: LRUCache[str, str] = LRUCache(2)
    for key in ("a", "b", "a", "c"):
        cache.get_or_load(key, str.upper)
    print(f"a, b, a, c in a cache of 2: in the end {', '.join(cache.keys())}")
    if (cache.keys(), cache.info()) != (["a", "c"], CacheInfo(1, 3, 3, 1, 2)):
        raise SystemExit("b was to go, which was used least recently")

    print("one lock, not held while loading, and one load for all who ask at once")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=in_range(2, 50), default=4)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads)
    except (TimeoutError, threading.BrokenBarrierError) as error:
        raise SystemExit(f"a wait did not end: {error}") from None


if __name__ == "__main__":
    main()
