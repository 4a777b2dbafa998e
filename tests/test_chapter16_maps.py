"""Chapter 16, a map, a cache and sorted lists for many threads: what readers copy."""

import random
import threading
import time
import weakref
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

import example09_striped_hash_map as maps
import example10_lru_cache as caches
import example11_sorted_list_three_lockings as lists
import interleaving as interleavings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from interleaving import Interleaving, TellingLock

T = TypeVar("T")

LIMIT = 30.0  # seconds that a test waits for what must come
STRESS = 0.1  # seconds for which threads work on one thing in a test
THREADS = 8  # that do so


def in_threads(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Do each job in a thread of its own, all at once; return their results."""
    barrier = threading.Barrier(len(jobs), timeout=LIMIT)

    def work(job: Callable[[], T]) -> T:
        barrier.wait()
        return job()

    with no_thread_is_left(), ThreadPoolExecutor(len(jobs)) as pool:
        futures = [pool.submit(work, job) for job in jobs]
        wait(futures)
    return [future.result() for future in futures]


def for_a_while(seconds: float, step: Callable[[random.Random], object]) -> None:
    """Call `step` again and again in THREADS threads, each with a generator."""
    end = time.monotonic() + seconds

    def work(generator: random.Random) -> None:
        while time.monotonic() < end:
            for _ in range(20):
                step(generator)

    in_threads([partial(work, random.Random(me)) for me in range(THREADS)])


def let_others_run() -> None:
    """Give up the GIL, so that threads meet within each other's steps."""
    time.sleep(1e-6)


# -- example09

NUMBERS = st.integers(0, 30)


class Collides:
    """A key that is equal to others of its number, all of which have one hash."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __hash__(self) -> int:
        return -7

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Collides) and other.number == self.number


@pytest.mark.parametrize("make_key", [int, str, Collides])
@settings(max_examples=50)
@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(
            st.sampled_from(["set", "pop", "del", "get", "in", "update", "setdefault"]),
            NUMBERS,
        )
    ),
)
def test_a_map_does_what_a_dict_does(
    make_key: Callable[[int], Any], n_stripes: int, steps: list[tuple[str, int]]
) -> None:
    striped: maps.StripedMap[Any, int] = maps.StripedMap(n_stripes)
    plain: dict[Any, int] = {}
    for n, (what, number) in enumerate(steps):
        key = make_key(number)
        match what:
            case "set":
                striped[key] = plain[key] = n
            case "pop" | "del" if key not in plain:
                with pytest.raises(KeyError):
                    striped.pop(key)
            case "pop":
                assert striped.pop(key) == plain.pop(key)
            case "del":
                del striped[key], plain[key]
            case "get":
                assert striped.get(key, None) == plain.get(key)
            case "in":
                assert (key in striped) == (key in plain)
            case "update":
                plain[key] = plain.get(key, 100) + 1
                assert striped.update(key, lambda old: old + 1, 100) == plain[key]
            case "setdefault":
                value = striped.setdefault(make_key(number), partial(int, n))
                assert value == plain.setdefault(key, n)
    assert dict(striped.items()) == plain
    assert len(striped.items()) == len(striped) == len(plain)
    assert sorted(map(hash, striped)) == sorted(map(hash, plain))
    assert all(striped[key] == value for key, value in plain.items())


def test_a_key_that_is_not_there_is_a_key_error() -> None:
    striped: maps.StripedMap[str, int] = maps.StripedMap()
    with pytest.raises(KeyError, match="'a'"):
        striped["a"]
    with pytest.raises(KeyError, match="'a'"):
        del striped["a"]


def test_a_map_holds_more_than_it_has_buckets_for_at_first() -> None:
    resizes = []
    striped: maps.StripedMap[int, int] = maps.StripedMap(
        2, on_resize=lambda: resizes.append(1)
    )
    for key in range(1000):
        striped[key] = -key
    assert sorted(striped.items()) == [(key, -key) for key in range(1000)]
    # 500 in each stripe: 8, 16, 32, 64, 128 and 256 were not enough.
    assert len(resizes) == 2 * 6


@pytest.mark.parametrize("n_stripes", [0, -3])
def test_a_map_needs_a_stripe(n_stripes: int) -> None:
    with pytest.raises(ValueError, match=f"{n_stripes} stripes"):
        maps.StripedMap(n_stripes)


@pytest.mark.parametrize("n_keys", [1, 3])
def test_no_update_is_lost_however_many_threads_there_are(n_keys: int) -> None:
    striped: maps.StripedMap[int, int] = maps.StripedMap(2)

    def add_one(old: int) -> int:
        let_others_run()
        return old + 1

    def count() -> None:
        for n in range(100):
            striped.update(n % n_keys, add_one, 0)

    in_threads([count] * THREADS)
    assert sum(value for _, value in striped.items()) == THREADS * 100


def test_functions_in_different_stripes_run_at_the_same_time() -> None:
    striped: maps.StripedMap[int, int] = maps.StripedMap(THREADS)
    all_inside = threading.Barrier(THREADS, timeout=LIMIT)

    def update(key: int) -> None:
        striped.update(key, lambda _: all_inside.wait(), 0)

    in_threads([partial(update, key) for key in range(THREADS)])
    assert sorted(value for _, value in striped.items()) == list(range(THREADS))


def test_what_is_missing_is_made_once_for_all_who_ask() -> None:
    interleaving = Interleaving()
    striped: maps.StripedMap[str, object] = maps.StripedMap(4, interleaving.lock)
    made: list[object] = []

    def make() -> object:
        interleaving.stop()
        made.append(object())
        return made[-1]

    got = []
    outcome = interleaving.run(
        lambda: got.append(striped.setdefault("a", make)),
        lambda: got.append(striped.setdefault("a", make)),
    )
    assert outcome == "waits"
    assert got == [made[0], made[0]]
    assert len(made) == 1


def boom(*_: object) -> NoReturn:
    raise ArithmeticError("boom")


class Bomb:
    """A key that cannot be compared."""

    def __hash__(self) -> int:
        return 0

    __eq__ = boom


def test_what_raises_inside_leaves_the_map_as_it_was_and_open_to_all() -> None:
    striped: maps.StripedMap[Any, int] = maps.StripedMap(1)
    striped[0] = 1
    acts: list[Callable[[], object]] = [
        lambda: striped.update(0, boom, 0),
        lambda: striped.update(5, boom, 0),
        lambda: striped.setdefault(5, boom),
        lambda: striped.pop(Bomb()),
        lambda: striped.update(Bomb(), abs, 0),
    ]
    for act in acts:
        with pytest.raises(ArithmeticError):
            act()
        assert in_threads([striped.items]) == [[(0, 1)]]


def test_only_keys_of_one_hash_are_compared() -> None:
    striped: maps.StripedMap[Any, int] = maps.StripedMap(1)
    striped[Bomb()] = 1
    assert 5 not in striped
    with pytest.raises(ArithmeticError):
        0 in striped  # noqa: B015


def test_a_value_that_is_replaced_may_use_the_map_when_it_is_let_go() -> None:
    class Value:
        def __del__(self) -> None:
            sizes.append(len(striped))

    sizes: list[int] = []
    striped: maps.StripedMap[int, object] = maps.StripedMap(1)
    for act in (
        lambda: striped.update(0, lambda _: Value(), None) and None,
        lambda: striped.update(0, lambda _: None, None),
        lambda: striped.__setitem__(1, Value()),
        lambda: striped.__setitem__(1, None),
        lambda: striped.__setitem__(1, Value()),
        lambda: striped.__delitem__(1),
    ):
        in_threads([act])
    assert sizes == [1, 2, 1]


def test_a_resize_that_fails_leaves_all_keys_where_they_are() -> None:
    fails = True

    def on_resize() -> None:
        if fails:
            raise MemoryError

    striped: maps.StripedMap[int, int] = maps.StripedMap(1, on_resize=on_resize)
    room = maps.LOAD * maps.FIRST_BUCKETS
    for key in range(room):
        striped[key] = key
    with pytest.raises(MemoryError):
        striped[room] = room
    assert sorted(striped) == list(range(room))
    fails = False
    striped[room] = room
    assert sorted(striped) == list(range(room + 1))


def uses_of(striped: maps.StripedMap[int, int]) -> list[Callable[[], object]]:
    return [
        lambda: striped[0],
        lambda: striped.get(1, None),
        lambda: 1 in striped,
        lambda: striped.update(1, abs, 0),
        lambda: striped.setdefault(2, int),
        lambda: striped.pop(0),
        lambda: len(striped),
        striped.items,
        lambda: list(striped),
    ]


@pytest.mark.parametrize("use", range(9))
@pytest.mark.parametrize("n_stripes", [1, 2, 3])
def test_what_runs_inside_cannot_use_the_map(n_stripes: int, use: int) -> None:
    striped: maps.StripedMap[int, int] = maps.StripedMap(n_stripes)
    striped[0] = 7

    def function(_: int) -> int:
        uses_of(striped)[use]()
        return 0

    for _ in range(2):  # the first refusal does not open the door
        with pytest.raises(RuntimeError, match="inside the map"):
            striped.update(0, function, 0)
    assert striped.items() == [(0, 7)]
    assert in_threads([lambda: striped.update(0, abs, 0)]) == [7]


def test_what_runs_inside_a_map_may_use_another() -> None:
    outer: maps.StripedMap[int, int] = maps.StripedMap(1)
    inner: maps.StripedMap[int, int] = maps.StripedMap(1)
    outer.update(0, lambda n: inner.update(0, lambda m: m + 1, n), 10)
    assert (outer[0], inner[0]) == (11, 11)


def test_the_body_of_a_loop_may_change_the_map() -> None:
    striped: maps.StripedMap[int, int] = maps.StripedMap(3)
    for key in range(50):
        striped[key] = key
    for key in striped:
        assert striped.pop(key) == key
    assert len(striped) == 0


@pytest.mark.parametrize("look", [len, lambda striped: striped.items()])
def test_who_looks_at_the_whole_map_waits_for_every_stripe(
    look: Callable[[maps.StripedMap[int, int]], object],
) -> None:
    for key in range(3):
        interleaving = Interleaving()
        striped: maps.StripedMap[int, int] = maps.StripedMap(3, interleaving.lock)

        def slowly(n: int, stop: Callable[[], None] = interleaving.stop) -> int:
            stop()
            return n

        outcome = interleaving.run(
            partial(striped.update, key, slowly, 0),
            partial(look, striped),
        )
        assert outcome == "waits"


def stress_map(seconds: float) -> None:
    """Add, move and remove; every addition must be found again, and nothing else."""
    striped: maps.StripedMap[int, int] = maps.StripedMap(4)
    added, popped, fresh = Counter[int](), Counter[int](), Counter[int]()
    guard = threading.Lock()  # of the counters, which are not what is tested

    def note(counter: Counter[int], key: int, n: int) -> int:
        with guard:
            counter[key] += n
        return n

    def add_one(old: int) -> int:
        let_others_run()
        return old + 1

    def step(generator: random.Random) -> None:
        key = generator.randrange(300)
        match generator.randrange(8):
            case 0:
                with suppress(KeyError):
                    note(popped, key, striped.pop(key))
            case 1:
                striped.setdefault(key, partial(note, fresh, key, 1))
            case 2:
                items = striped.items()
                assert len(dict(items)) == len(items)
                assert all(value > 0 for _, value in items)
            case _:
                striped.update(key, add_one, 0)
                note(added, key, 1)

    for_a_while(seconds, step)
    left = Counter(dict(striped.items()))
    assert added + fresh == popped + left
    assert len(striped) == len(left)


def test_a_map_survives_stress() -> None:
    stress_map(STRESS)


def test_interleaving_tells_who_waits_and_who_goes_on() -> None:
    interleaving = Interleaving()
    lock = interleaving.lock()

    def hold() -> None:
        with lock:
            interleaving.stop()

    assert interleaving.run(hold, lock.acquire) == "waits"
    interleaving = Interleaving()
    assert interleaving.run(interleaving.stop, lambda: None) == "goes on"
    assert Interleaving().run(lambda: None, lambda: None) == "never stopped"


@pytest.mark.parametrize("broken", [0, 1])
def test_interleaving_raises_what_either_raises(broken: int) -> None:
    interleaving = Interleaving()
    jobs: list[Callable[[], object]] = [interleaving.stop, lambda: None]
    jobs[broken] = boom
    with no_thread_is_left(), pytest.raises(ArithmeticError):
        interleaving.run(*jobs)


def test_interleaving_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interleavings, "LIMIT", 0.01)
    with pytest.raises(TimeoutError, match="neither ends nor waits"):
        Interleaving().stop()
    lock = TellingLock(lambda: None)
    with lock, pytest.raises(TimeoutError, match="not released"):
        in_threads([lock.acquire])


def test_calls_are_counted_and_errors_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "DURATION", 0.01)
    seen: set[int] = set()
    assert maps.calls_per_second(seen.add, 3) > 0
    assert seen == {0, 1, 2}
    monkeypatch.setattr(maps, "DURATION", LIMIT)  # an error ends it before that
    with no_thread_is_left(), pytest.raises(ArithmeticError):
        maps.calls_per_second(boom, 2)


class NoLocks(maps.StripedMap[Any, Any]):
    def __init__(self, n_stripes: int, _: object = None, on_resize: Any = int) -> None:
        super().__init__(n_stripes, nullcontext, on_resize)


class OneLock(maps.StripedMap[Any, Any]):
    def __init__(self, n_stripes: int, new_lock: Any = nullcontext, *rest: Any) -> None:
        lock = new_lock()
        super().__init__(n_stripes, lambda: lock, *rest)

    def _all_locked(self) -> Any:
        return nullcontext()


class LetsIn(maps.StripedMap[Any, Any]):
    def __init__(self, n_stripes: int, lock: Any = threading.RLock, *_: Any) -> None:
        super().__init__(n_stripes, lock, *_)
        self._inside = nullcontext()  # type: ignore[assignment]


class LoopsAtOnce(maps.StripedMap[Any, Any]):
    def __iter__(self) -> Iterator[Any]:
        return (key for key, _ in self.items())


class Forgetful(maps.Table[Any, Any]):
    def _resize(self) -> None:
        super()._resize()
        self._buckets[0].clear()


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("StripedMap", NoLocks, "of the same key was to be"),
        ("StripedMap", OneLock, "of a key in another stripe was to be"),
        ("StripedMap", LetsIn, "was to change nothing"),
        ("StripedMap", LoopsAtOnce, "the loop was to miss 0"),
        ("Table", Forgetful, "a key to it was to be"),
    ],
)
def test_a_map_that_does_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(maps, "DURATION", 0.001)
    monkeypatch.setattr(maps, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=told):
        run_main(maps, monkeypatch)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--stripes", "1"),
        ("--stripes", "1025"),
        ("--threads", "1"),
        ("--threads", "33"),
        ("--threads", "many"),
    ],
)
def test_stripes_and_threads_have_their_limits(
    complaint: Callable[..., str], option: str, value: str
) -> None:
    assert option in complaint(maps, option, value)


# -- example10


def always(value: T) -> Callable[[object], T]:
    """Return a loader that gives `value` for each key."""
    return lambda key: value


class Model:
    """A cache as it is to be, for one thread."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.entries: OrderedDict[int, int] = OrderedDict()
        self.hits = self.misses = self.loads = self.evictions = 0

    def get(self, key: int) -> int | None:
        if key not in self.entries:
            self.misses += 1
            return None
        self.hits += 1
        self.entries.move_to_end(key)
        return self.entries[key]

    def put(self, key: int, value: int) -> None:
        self.entries.pop(key, None)
        if len(self.entries) == self.capacity:
            del self.entries[next(iter(self.entries))]
            self.evictions += 1
        self.entries[key] = value

    def get_or_load(self, key: int, value: int) -> int:
        found = self.get(key)
        if found is not None:
            return found
        self.loads += 1
        self.put(key, value)
        return value


@settings(max_examples=60)
@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(
            st.sampled_from(["get", "put", "load", "load", "fail", "discard"]),
            st.integers(0, 7),
        ),
        max_size=60,
    ),
)
def test_a_cache_keeps_what_was_used_last(
    capacity: int, steps: list[tuple[str, int]]
) -> None:
    cache: caches.LRUCache[int, int] = caches.LRUCache(capacity)
    model = Model(capacity)
    for n, (what, key) in enumerate(steps):
        match what:
            case "get":
                assert cache.get(key, None) == model.get(key)
            case "put":
                cache.put(key, n)
                model.put(key, n)
            case "load":
                loaded = cache.get_or_load(key, always(n))
                assert loaded == model.get_or_load(key, n)
            case "fail" if key not in model.entries:
                with pytest.raises(ArithmeticError):
                    cache.get_or_load(key, boom)
                model.get(key)
                model.loads += 1
            case "discard":
                cache.discard(key)
                model.entries.pop(key, None)
        assert cache.keys() == list(model.entries)
    counts = model.hits, model.misses, model.loads, model.evictions
    assert cache.info() == (*counts, len(model.entries))


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_cache_needs_room(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"{capacity} entries"):
        caches.LRUCache(capacity)


@pytest.mark.parametrize("n_threads", [1, 2, THREADS])
def test_one_thread_loads_and_the_others_get_the_same(n_threads: int) -> None:
    results, info = caches.single_flight(n_threads, lambda before: f"load {before}")
    assert results == ["load 0"] * n_threads
    assert info == (0, n_threads, 1, 0, 1)


@pytest.mark.parametrize("n_threads", [2, THREADS])
def test_a_load_that_fails_is_not_kept(n_threads: int) -> None:
    results, info = caches.single_flight(n_threads, caches.fail)
    assert results == ["ValueError"] * n_threads
    assert info == (0, n_threads, 1, 0, 0)


@pytest.mark.parametrize("n_interrupted", [1, 2, THREADS - 1, THREADS])
def test_if_loads_are_interrupted_the_others_load(n_interrupted: int) -> None:
    def load(before: int) -> str:
        if before < n_interrupted:
            raise KeyboardInterrupt
        return "value"

    results, info = caches.single_flight(THREADS, load)
    loaded = THREADS - n_interrupted
    assert results == ["KeyboardInterrupt"] * n_interrupted + ["value"] * loaded
    assert info.loads == min(n_interrupted + 1, THREADS)
    assert info.size == (loaded > 0)


def test_a_loader_may_raise_even_what_means_cancelled() -> None:
    interleaving = Interleaving()
    cache: caches.LRUCache[str, str] = caches.LRUCache(1, interleaving.wait)
    raised = []

    def cancel(key: str) -> NoReturn:
        interleaving.stop()
        raise CancelledError(key)

    def ask() -> None:
        try:
            cache.get_or_load("a", cancel)
        except CancelledError as error:
            raised.append(error)

    assert interleaving.run(ask, ask) == "waits"
    assert len(raised) == 2
    assert raised[0] is raised[1]
    assert cache.info().loads == 1


def test_a_loader_that_asks_for_its_own_key_is_told() -> None:
    cache: caches.LRUCache[int, int] = caches.LRUCache(2)

    def load(key: int) -> int:
        return cache.get_or_load(key, load)

    with pytest.raises(RuntimeError, match="the loader of 3 asks for 3"):
        cache.get_or_load(3, load)
    assert cache.get_or_load(3, abs) == 3


def test_a_loader_may_ask_for_other_keys() -> None:
    cache: caches.LRUCache[int, int] = caches.LRUCache(100)

    def fibonacci(n: int) -> int:
        if n < 2:
            return n
        one, two = (cache.get_or_load(n - k, fibonacci) for k in (1, 2))
        return one + two

    assert cache.get_or_load(90, fibonacci) == 2880067194370816120
    assert cache.info().loads == 91


def test_after_a_discard_the_next_one_loads_anew() -> None:
    interleaving = Interleaving()
    cache: caches.LRUCache[str, str] = caches.LRUCache(2, interleaving.wait)

    def load(key: str) -> str:
        interleaving.stop()
        return "old"

    def change() -> str:
        cache.discard("a")
        return cache.get_or_load("a", lambda _: "new")

    got = []
    outcome = interleaving.run(
        lambda: got.append(cache.get_or_load("a", load)),
        lambda: got.append(change()),
    )
    assert (outcome, got) == ("goes on", ["new", "old"])
    assert cache.get("a", "nothing") == "new"


def test_a_load_that_is_not_wanted_any_more_does_not_end_the_next_one() -> None:
    interleaving = Interleaving()
    cache: caches.LRUCache[str, str] = caches.LRUCache(2, interleaving.wait)
    first_has_failed = threading.Event()

    def fail(key: str) -> NoReturn:
        interleaving.stop()
        raise ArithmeticError("boom")

    def ask_and_fail() -> None:
        with pytest.raises(ArithmeticError):
            cache.get_or_load("a", fail)
        first_has_failed.set()

    def load_anew() -> None:
        cache.discard("a")
        cache.get_or_load("a", load_when_the_first_has_failed)

    def load_when_the_first_has_failed(key: str) -> str:
        interleaving.wait()  # lets the first go on
        assert first_has_failed.wait(LIMIT)
        return "new"

    assert interleaving.run(ask_and_fail, load_anew) == "waits"
    assert cache.get("a", "nothing") == "new"


def test_what_is_let_go_may_use_the_cache() -> None:
    class Value:
        def __del__(self) -> None:
            sizes.append(cache.info().size)

    sizes: list[int] = []
    cache: caches.LRUCache[int, object] = caches.LRUCache(1)
    for act in (
        lambda: cache.put(1, Value()),
        lambda: cache.put(1, Value()),  # replaces
        lambda: cache.put(2, Value()),  # evicts
        lambda: cache.get_or_load(3, lambda _: Value()) and None,
        lambda: cache.discard(3),
    ):
        in_threads([act])
    assert sizes == [1, 1, 1, 0]


@pytest.mark.usefixtures("no_collections")
def test_a_load_that_has_failed_leaves_nothing_behind() -> None:
    class Local:
        pass

    interleaving = Interleaving()
    cache: caches.LRUCache[int, int] = caches.LRUCache(1, interleaving.wait)
    locals_of_loaders: list[weakref.ref[Local]] = []

    def load(key: int) -> NoReturn:
        local = Local()
        locals_of_loaders.append(weakref.ref(local))
        interleaving.stop()
        raise OSError("broken")

    def ask() -> None:
        with suppress(OSError):
            cache.get_or_load(1, load)

    assert interleaving.run(ask, ask) == "waits"
    assert [ref() for ref in locals_of_loaders] == [None]


class Yielding(int):
    """A key that lets other threads run when it is looked for."""

    def __hash__(self) -> int:
        let_others_run()
        return super().__hash__()


def stress_cache(seconds: float) -> None:
    """Load, put and discard; no value is wrong, none is loaded twice at a time."""
    capacity = 12
    cache: caches.LRUCache[int, int] = caches.LRUCache(capacity)
    plain: caches.LRUCache[int, int] = caches.LRUCache(capacity)
    guard = threading.Lock()  # of what follows
    running: set[int] = set()
    asked = loads = 0

    def load(key: int) -> int:
        nonlocal loads
        with guard:
            assert key not in running, f"{key} is loaded twice at a time"
            running.add(key)
            loads += 1
        value = int(str(key)) ** 2
        with guard:
            running.remove(key)
        if key % 5 == 0:
            raise ArithmeticError("boom")
        return value

    def step(generator: random.Random) -> None:
        nonlocal asked
        key = Yielding(generator.randrange(30))
        with guard:
            asked += 1
        try:
            assert plain.get_or_load(key, load) == key**2
            assert key % 5 != 0
        except ArithmeticError:
            assert key % 5 == 0
        act = generator.randrange(4)
        if act == 0:
            cache.put(key, key**2)
        elif act == 1:
            cache.discard(key)
        assert cache.get_or_load(key, lambda key: key**2) == key**2
        assert len(cache.keys()) <= capacity

    for_a_while(seconds, step)
    info = plain.info()
    assert info.hits + info.misses == asked
    assert info.loads == loads
    assert len(plain.keys()) == info.size == capacity


def test_a_cache_survives_stress() -> None:
    stress_cache(STRESS)


class LoadsUnderLock(caches.LRUCache[Any, Any]):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._outer = threading.Lock()

    def get_or_load(self, key: Any, loader: Any) -> Any:
        if not self._outer.acquire(blocking=False):
            self._on_wait()
            self._outer.acquire()
        try:
            return super().get_or_load(key, loader)
        finally:
            self._outer.release()


class LoadsTwice(caches.LRUCache[Any, Any]):
    def get_or_load(self, key: Any, loader: Any) -> Any:
        value = loader(key)
        self.put(key, value)
        return value


class KeepsStale(caches.LRUCache[Any, Any]):
    def _load(self, key: Any, load: Any, loader: Any) -> Any:
        value = super()._load(key, load, loader)
        self.put(key, value)
        return value


class FirstInFirstOut(caches.LRUCache[Any, Any]):
    def _hit(self, key: Any) -> Any:
        self._hits += 1
        return self._entries[key]


@pytest.mark.parametrize(
    ("instead", "told"),
    [
        (LoadsUnderLock, "the others do not wait"),
        (LoadsTwice, "a wait did not end"),
        (KeepsStale, 'to put "a" during a load'),
        (FirstInFirstOut, "b was to go"),
    ],
)
def test_a_cache_that_does_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, instead: Any, told: str
) -> None:
    monkeypatch.setattr(caches, "LIMIT", 0.2)
    monkeypatch.setattr(caches, "LRUCache", instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=told):
        run_main(caches, monkeypatch)


def test_a_functools_cache_that_loads_once_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(caches, "stampede", lambda n_threads: 1)
    with pytest.raises(SystemExit, match="all were to load"):
        run_main(caches, monkeypatch)


@pytest.mark.parametrize("value", ["1", "51", "some"])
def test_threads_of_a_cache_have_their_limits(
    complaint: Callable[..., str], value: str
) -> None:
    assert "--threads" in complaint(caches, "--threads", value)


# -- example11

SORTED: list[Any] = [
    lists.CoarseList,
    lists.HandOverHandList,
    lists.OptimisticList,
    lists.SortedArray,
]
LINKED = SORTED[:3]


def keys_of(numbers: Any) -> list[Any]:
    return list(numbers.keys()) if hasattr(numbers, "keys") else list(numbers._keys)


@pytest.mark.parametrize("kind", SORTED)
@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from(["add", "remove", "contains"]), st.integers(-5, 5))
    )
)
def test_a_list_does_what_a_set_does(kind: Any, steps: list[tuple[str, int]]) -> None:
    numbers, model = kind(), set[int]()
    for what, number in steps:
        there = number in model
        assert getattr(numbers, what)(number) == (there != (what == "add"))
        if what == "add":
            model.add(number)
        elif what == "remove":
            model.discard(number)
        assert keys_of(numbers) == sorted(model)


@pytest.mark.parametrize("kind", SORTED)
def test_any_keys_do_that_have_an_order(kind: Any) -> None:
    words = kind()
    for word in ["to", "be", "or", "not", "to", "be"]:
        words.add(word)
    assert keys_of(words) == ["be", "not", "or", "to"]


@pytest.mark.parametrize("kind", SORTED)
@pytest.mark.parametrize("what", ["add", "contains", "remove"])
def test_a_comparison_that_fails_leaves_the_list_open(kind: Any, what: str) -> None:
    numbers = kind()
    for number in (10, 20, 30):
        numbers.add(number)
    with pytest.raises(TypeError, match="not supported"):
        getattr(numbers, what)("20")
    probe = lists.Probe(20)
    probe.when_locked = boom
    with pytest.raises(ArithmeticError):
        getattr(numbers, what)(probe)
    assert in_threads([lambda: numbers.add(25), lambda: numbers.add(40)]) == [True] * 2
    assert keys_of(numbers) == [10, 20, 25, 30, 40]


def test_no_lock_is_released_twice_if_a_release_is_interrupted() -> None:
    interrupts = 0

    class InterruptedLock(TellingLock):
        def release(self) -> None:
            nonlocal interrupts
            super().release()
            if interrupts:
                interrupts -= 1
                raise KeyboardInterrupt

    numbers = lists.HandOverHandList[int](partial(InterruptedLock, int))
    for number in (10, 20, 30):
        numbers.add(number)
    interrupts = 1
    with pytest.raises(KeyboardInterrupt):
        numbers.contains(30)
    assert in_threads([lambda: numbers.remove(30)]) == [True]


@pytest.mark.parametrize(
    ("kind", "held"),
    [
        (lists.CoarseList, [1, 0]),
        # The head and 10; then always two, and a third while it moves on.
        (lists.HandOverHandList, [1, 2, 3, 2, 3, 2, 1, 0]),
        (lists.OptimisticList, [1, 2, 1, 0]),
    ],
)
def test_so_many_locks_are_held_on_the_way(kind: Any, held: list[int]) -> None:
    noted = [0]

    class NotedLock(TellingLock):
        def acquire(self) -> bool:
            noted.append(noted[-1] + 1)
            return super().acquire()

        def release(self) -> None:
            super().release()
            noted.append(noted[-1] - 1)

    numbers = kind(partial(NotedLock, boom))
    for number in (30, 20, 10):
        numbers.add(number)
    del noted[1:]
    assert numbers.contains(30)
    assert noted[1:] == held


@pytest.mark.parametrize("kind", LINKED)
@pytest.mark.parametrize("neighbour", [20, 30])
def test_a_node_of_a_locked_window_cannot_be_removed(kind: Any, neighbour: int) -> None:
    interleaving = Interleaving()
    numbers = kind(interleaving.lock)
    for number in (10, 20, 30, 40):
        numbers.add(number)
    probe = lists.Probe(25)
    probe.when_locked = interleaving.stop
    outcome = interleaving.run(
        lambda: numbers.add(probe), lambda: numbers.remove(neighbour)
    )
    assert outcome == "waits"
    assert numbers.keys() == sorted({10, 20, 25, 30, 40} - {neighbour})


@pytest.mark.parametrize("kind", [lists.OptimisticList, lists.UnvalidatedList])
@pytest.mark.parametrize(
    ("act", "expected", "broken"),
    [
        ("remove 20", [10, 25, 30], [10, 30]),  # its predecessor is gone
        ("remove 30", [10, 20, 25], [10, 20, 25, 30]),  # its successor is: it is back
        ("add 26", [10, 20, 25, 26, 30], [10, 20, 25, 30]),  # no neighbours any more
        ("add 25", [10, 20, 25, 30], [10, 20, 25, 30]),
        ("add 15", [10, 15, 20, 25, 30], [10, 15, 20, 25, 30]),  # no harm done
    ],
)
def test_validation_sees_what_has_changed_since_the_walk(
    kind: Any, act: str, expected: list[int], broken: list[int]
) -> None:
    numbers = kind()
    for number in (10, 20, 30):
        numbers.add(number)
    interleaving = Interleaving()
    probe = lists.Probe(25)
    probe.when_found = interleaving.stop
    method, operand = act.split()
    other = partial(getattr(numbers, method), int(operand))
    outcome = interleaving.run(partial(numbers.add, probe), other)
    validated = kind is lists.OptimisticList
    assert outcome == "goes on"
    assert numbers.keys() == (expected if validated else broken)
    assert numbers.retries == (validated and act != "add 15")


def test_a_walker_goes_on_from_a_node_that_is_removed() -> None:
    numbers: lists.OptimisticList[int] = lists.OptimisticList()
    for number in (10, 20, 30, 40):
        numbers.add(number)

    class Walker(int):
        def __gt__(self, other: int) -> bool:
            if other == 20:  # it stands there, and holds nothing
                for gone in (20, 30):
                    in_threads([partial(numbers.remove, gone)])
            return super().__gt__(other)

    assert numbers.contains(Walker(40))
    assert numbers.keys() == [10, 40]


def stress_list(kind: Any, seconds: float, n_keys: int = 24) -> None:
    """Add and remove; what is in the list follows from what calls have returned."""
    numbers = kind()
    guard = threading.Lock()
    net = Counter[int]()  # additions that returned True, less such removals

    def step(generator: random.Random) -> None:
        key = generator.randrange(n_keys)
        what = generator.randrange(3)
        if what == 0 and numbers.add(key):
            with guard:
                net[key] += 1
        elif what == 1 and numbers.remove(key):
            with guard:
                net[key] -= 1
        elif what == 2:
            numbers.contains(key)
            assert not numbers.contains(-1)

    for_a_while(seconds, step)
    assert set(net.values()) <= {0, 1}
    assert keys_of(numbers) == sorted(key for key, n in net.items() if n == 1)
    assert all(numbers.contains(key) == (net[key] == 1) for key in range(n_keys))


@pytest.mark.parametrize("kind", SORTED)
def test_a_list_survives_stress(kind: Any) -> None:
    stress_list(kind, STRESS)


def test_stress_on_few_keys_loses_nothing_either() -> None:
    stress_list(lists.OptimisticList, STRESS, n_keys=3)


class HeldThroughout(lists.HandOverHandList[int]):
    @contextmanager
    def _window(self, key: int) -> Iterator[Any]:
        with self._all, super()._window(key) as window:
            yield window

    def __init__(self, new_lock: Any = threading.Lock) -> None:
        super().__init__(new_lock)
        self._all = new_lock()


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("CoarseList", lists.HandOverHandList, "to be waits, waits, waits"),
        ("HandOverHandList", HeldThroughout, "to be goes on, waits, waits"),
        ("HandOverHandList", lists.OptimisticList, "to be goes on, waits, waits"),
        ("OptimisticList", lists.HandOverHandList, "to be goes on, waits, goes on"),
        ("OptimisticList", lists.UnvalidatedList, "an item is lost"),
        ("UnvalidatedList", lists.OptimisticList, r"to be goes on, \[10, 30\]"),
    ],
)
def test_a_list_that_does_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(lists, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=told):
        run_main(lists, monkeypatch)
