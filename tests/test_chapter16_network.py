"""Chapter 16, the network: the parts a reader would copy."""

import gc
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import FrozenInstanceError
from typing import Any, TypeVar

import example05_network_whose_reader_fails as broken
import example06_mutex_free_network as mutex_free
import interleaving
import pytest
from example06_mutex_free_network import Network, Version
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from interleaving import Interleaving

T = TypeVar("T")

LIMIT = 30.0  # seconds that a test waits for what must come
STRESS = 0.3  # seconds

Edge = tuple[str, str, float]

nodes = st.sampled_from("ABCDE")
edges = st.tuples(nodes, nodes, st.integers(1, 9)).filter(
    lambda edge: edge[0] != edge[1]
)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def reachable_length(edges: list[Edge], start: str) -> float:
    """Return how long the edges are that are connected with `start`, in another way."""
    lengths = {frozenset(edge[:2]): edge[2] for edge in edges}
    reached = {start}
    for _ in lengths:
        reached.update(*(ends for ends in lengths if ends & reached))
    return sum(length for ends, length in lengths.items() if ends & reached)


# -- example05


@settings(max_examples=50)
@given(st.lists(edges, min_size=1))
def test_a_walk_counts_each_edge_once(edges: list[Edge]) -> None:
    network = broken.Network()
    for edge in edges:
        network.connect(*edge)
    start = edges[0][0]
    length = broken.total_length(network.neighbours, start)
    assert length == reachable_length(edges, start)


def test_a_node_is_removed_with_its_edges() -> None:
    network = broken.small_network()
    network.remove("B")
    assert network.neighbours == {"A": {}, "C": {}, "D": {}}
    with pytest.raises(KeyError, match="B"):
        network.remove("B")


@pytest.mark.parametrize(
    ("step", "seen"),
    [(1, "7"), (3, broken.SIZE), (5, "KeyError: 'C'"), (6, "11")],
)
def test_what_a_removal_does_depends_on_the_moment(step: int, seen: str) -> None:
    assert broken.walk(step, broken.remove_c) == (seen, "goes on")


@pytest.mark.parametrize(("step", "seen"), [(1, "10"), (2, "10"), (3, "11")])
def test_a_length_that_never_was_is_seen_without_an_error(step: int, seen: str) -> None:
    assert broken.walk(step, broken.move_b) == (seen, "goes on")


@pytest.mark.parametrize("step", range(1, 7))
@pytest.mark.parametrize("change", [broken.remove_c, broken.move_b])
def test_a_lock_lets_the_writer_wait_for_the_walk(
    step: int, change: Callable[[broken.Network], None]
) -> None:
    assert broken.walk(step, change, locked=True) == ("11", "waits")


def test_a_writer_that_fails_is_told() -> None:
    with pytest.raises(KeyError, match="Z"):
        broken.walk(1, lambda network: network.remove("Z"))


total_length = broken.total_length


def test_a_writer_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    reader_has_ended = threading.Event()

    def walk(*arguments: Any) -> float:
        try:
            return total_length(*arguments)
        finally:
            reader_has_ended.set()

    def never_end(_: broken.Network) -> None:
        assert reader_has_ended.wait(LIMIT)

    monkeypatch.setattr(broken, "total_length", walk)
    monkeypatch.setattr(interleaving, "LIMIT", 0.05)
    with no_thread_is_left(), pytest.raises(TimeoutError, match="neither"):
        broken.walk(1, never_end)


def test_an_interleaving_serves_one_run() -> None:
    once = Interleaving()
    assert once.run(once.stop, lambda: None) == "goes on"
    ran: list[None] = []
    with pytest.raises(RuntimeError, match="each run"):
        once.run(lambda: ran.append(None), once.stop)
    assert not ran


def test_the_second_thread_never_begins_before_the_first_has_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interleaving, "LIMIT", 0.01)
    late = Interleaving()
    ran: list[None] = []

    def first() -> None:
        while late._news.empty():  # until the second has waited in vain
            time.sleep(0.001)
        late.stop()

    with no_thread_is_left(), pytest.raises(TimeoutError, match="neither stops nor"):
        late.run(first, lambda: ran.append(None))
    assert not ran


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        (
            "total_length",
            lambda neighbours, *rest: total_length(deepcopy(neighbours), *rest),
            "step 1",
        ),
        ("move_b", lambda _: None, "step 1"),
        ("remove_c", lambda _: None, "step 1"),
    ],
)
def test_a_walk_that_goes_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(broken, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=told):
        run_main(broken, monkeypatch)


def test_a_lock_that_keeps_nobody_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Interleaving, "lock", lambda _: nullcontext())
    with pytest.raises(SystemExit, match="a lock was to keep the writer out"):
        run_main(broken, monkeypatch)


# -- example06


def plain(version: Version) -> dict[str, dict[str, float]]:
    return {node: dict(ends) for node, ends in version.neighbours.items()}


def small() -> Network:
    return Network(mutex_free.SMALL)


class Model:
    """A network of one thread: nodes, and lengths by the two ends."""

    def __init__(self) -> None:
        self.nodes: set[str] = set()
        self.lengths: dict[frozenset[str], float] = {}

    def connect(self, a: str, b: str, length: float) -> None:
        if a == b:
            raise ValueError
        self.nodes |= {a, b}
        self.lengths[frozenset([a, b])] = length

    def disconnect(self, a: str, b: str) -> None:
        del self.lengths[frozenset([a, b])]

    def remove(self, node: str) -> None:
        self.nodes.remove(node)
        for ends in [ends for ends in self.lengths if node in ends]:
            del self.lengths[ends]

    def plain(self) -> dict[str, dict[str, float]]:
        neighbours: dict[str, dict[str, float]] = {node: {} for node in self.nodes}
        for (a, b), length in self.lengths.items():
            neighbours[a][b] = neighbours[b][a] = length
        return neighbours


def result(call: Callable[..., object], *arguments: object) -> type[Exception] | None:
    """Make a call; return the type of what it raises."""
    try:
        call(*arguments)
    except (KeyError, ValueError) as error:
        return type(error)
    return None


calls = st.one_of(
    st.tuples(st.just("connect"), nodes, nodes, st.integers(1, 9)),
    st.tuples(st.just("disconnect"), nodes, nodes),
    st.tuples(st.just("remove"), nodes),
)


@settings(max_examples=50)
@given(st.lists(calls))
def test_all_versions_are_as_they_were(calls: list[tuple[Any, ...]]) -> None:
    network, model = Network(Version.of([])), Model()
    versions = []
    for name, *arguments in calls:
        before = network.version
        raised = result(getattr(network, name), *arguments)
        assert raised == result(getattr(model, name), *arguments)
        assert (network.version is before) == (raised is not None)
        versions.append((network.version, model.plain()))
    for version, expected in versions:
        assert plain(version) == expected


@settings(max_examples=50)
@given(st.lists(edges))
def test_a_version_of_edges_is_the_one_they_lead_to(edges: list[Edge]) -> None:
    network = Network(Version.of([]))
    for edge in edges:
        network.connect(*edge)
    assert plain(Version.of(edges)) == plain(network.version)


@pytest.mark.parametrize(
    ("call", "arguments", "changed"),
    [
        ("connect", ("A", "C", 1), "AC"),
        ("disconnect", ("B", "D"), "BD"),
        ("remove", ("D",), "BD"),
    ],
)
def test_what_a_change_does_not_concern_is_shared(
    call: str, arguments: tuple[Any, ...], changed: str
) -> None:
    network = small()
    old = network.version.neighbours
    getattr(network, call)(*arguments)
    new = network.version.neighbours
    assert {node for node in old if new.get(node) is not old[node]} == set(changed)


def test_a_version_cannot_be_changed() -> None:
    version: Any = small().version
    with pytest.raises(TypeError):
        version.neighbours["A"]["B"] = 9
    with pytest.raises(TypeError):
        del version.neighbours["A"]
    with pytest.raises(FrozenInstanceError):
        version.neighbours = {}


@pytest.mark.parametrize("length", [0, -1.5, math.nan, math.inf])
def test_a_length_must_be_positive_and_finite(length: float) -> None:
    with pytest.raises(ValueError, match="positive and finite"):
        small().connect("A", "B", length)
    with pytest.raises(ValueError, match="positive and finite"):
        Version.of([("A", "B", length)])


def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="from A to itself"):
        small().connect("A", "A", 1)
    with pytest.raises(KeyError, match="no edge between A and D"):
        small().disconnect("A", "D")
    with pytest.raises(KeyError, match="no edge between X and D"):
        small().disconnect("X", "D")
    with pytest.raises(KeyError, match="no node X"):
        small().remove("X")


def test_a_change_that_fails_changes_nothing_and_keeps_nobody_out() -> None:
    network = small()

    def fail(version: Version) -> Version:
        version.connect("A", "D", 1)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        network.update(fail)
    assert network.version is mutex_free.SMALL
    network.connect("A", "D", 1)
    assert network.version.neighbours["A"]["D"] == 1


def test_a_version_is_published_only_in_place_of_the_expected_one() -> None:
    network = small()
    old = network.version
    new, newer = old.remove("C"), old.remove("D")
    assert network.compare_and_set(old, new)
    assert not network.compare_and_set(old, newer)
    assert network.version is new


def test_a_change_is_tried_until_nobody_was_faster() -> None:
    network = small()
    tries = 0

    def change(version: Version) -> Version:
        nonlocal tries
        tries += 1
        if tries <= 3:
            network.connect("A", f"X{tries}", tries)
        return version.remove("D")

    network.update(change)
    assert tries == 4
    assert network.version.neighbours.keys() == {"A", "B", "C", "X1", "X2", "X3"}


@pytest.mark.parametrize("step", range(1, 7))
@pytest.mark.parametrize(
    ("change", "next_sees"), [(mutex_free.remove_c, 7), (mutex_free.move_b, 11)]
)
def test_a_reader_sees_one_version_however_far_it_is(
    pool: ThreadPoolExecutor,
    step: int,
    change: Callable[[Version], Version],
    next_sees: int,
) -> None:
    assert mutex_free.walk(pool, step, change) == (11, next_sees)


def test_there_are_as_many_steps_as_the_walk_has() -> None:
    steps: list[None] = []
    neighbours = mutex_free.SMALL.neighbours
    broken.total_length(neighbours, "A", lambda: steps.append(None))
    assert len(steps) == mutex_free.STEPS


def test_a_reader_does_not_wait_for_a_writer_halfway(pool: ThreadPoolExecutor) -> None:
    assert mutex_free.read_during_a_change(pool) == (11, 11)


def test_of_two_stores_one_is_lost_unless_they_compare(
    pool: ThreadPoolExecutor,
) -> None:
    lost = mutex_free.two_writers(pool, mutex_free.LastStoreWins(mutex_free.SMALL))
    assert lost == (["X"], 1)
    assert mutex_free.two_writers(pool, small()) == (["X", "Y"], 2)


def test_a_version_is_freed_with_its_last_reader() -> None:
    network = small()
    network.connect("A", "X", 1)
    readers = [network.version] * 3
    old = weakref.ref(network.version)
    network.remove("X")
    while readers:
        assert old() is not None
        readers.pop()
        gc.collect()
    assert old() is None


def stress_network(seconds: float, n_threads: int = 8) -> tuple[int, int]:
    """Let half the threads change a network, the others read it, and check all of it.

    Returns:
        How many changes were made, and how many walks.
    """
    network = Network(
        Version.of([("A", "B", 2), ("B", "C", 4), ("C", "S", 1), ("S", "T", 1)])
    )
    deadline = time.monotonic() + seconds

    def write(me: int) -> int:
        name, done = f"W{me}", 0

        def change(version: Version) -> Version:
            of_b = version.neighbours["B"]
            so_far = version.neighbours["S"]["T"]
            return (
                version.connect("A", "B", of_b["C"])  # their sum remains 6
                .connect("B", "C", of_b["A"])
                .connect("S", "T", so_far + 1)
            )

        while not done or time.monotonic() < deadline:
            network.update(change)
            network.connect(name, "C", done + 1)
            assert network.version.neighbours["C"][name] == done + 1
            network.disconnect("C", name)
            network.remove(name)
            assert name not in network.version.neighbours
            done += 1
        return done

    def read() -> int:
        done, last = 0, 0.0
        while not done or time.monotonic() < deadline:
            neighbours = network.version.neighbours
            length = broken.total_length(neighbours, "A")
            names = [node for node in neighbours["C"] if node.startswith("W")]
            assert length == 7 + neighbours["T"]["S"] + sum(
                neighbours[name]["C"] for name in names
            )
            assert all(
                neighbours[there][here] == ends[there]
                for here, ends in neighbours.items()
                for there in ends
            )
            assert neighbours["S"]["T"] >= last, "the network went back in time"
            last = neighbours["S"]["T"]
            done += 1
        return done

    with ThreadPoolExecutor(n_threads) as pool:
        writers = [pool.submit(write, n) for n in range(n_threads // 2)]
        readers = [pool.submit(read) for _ in range(n_threads - n_threads // 2)]
    changes, walks = (sum(f.result() for f in some) for some in (writers, readers))
    assert network.version.neighbours["S"]["T"] == 1 + changes, "a lost update"
    assert network.version.neighbours.keys() == set("ABCST")
    return changes, walks


def test_a_network_bears_eight_threads() -> None:
    with no_thread_is_left():
        changes, walks = stress_network(STRESS)
    assert changes
    assert walks


class ReadersWait(Network):
    """Holds a lock for each whole change, and for each read."""

    def __init__(self, version: Version) -> None:
        super().__init__(version)
        self._lock = threading.Lock()

    @property
    def version(self) -> Version:
        if not self._lock.acquire(timeout=0.05):
            raise TimeoutError
        self._lock.release()
        return self._version

    def update(self, change: Callable[[Version], Version]) -> None:
        with self._lock:
            self._version = change(self._version)


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("Network", mutex_free.LastStoreWins, "Y was to be lost, then not"),
        ("Network", ReadersWait, "nobody was to wait so long"),
        ("LastStoreWins", Network, "Y was to be lost"),
        ("freed_with_the_last_reader", lambda: [False, False], "was to be freed"),
        ("total_length", lambda *_: 10, "11 was to be seen"),
    ],
)
def test_a_network_that_is_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(mutex_free, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=told):
        run_main(mutex_free, monkeypatch)


def test_a_copy_of_everything_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = Version.connect

    def connect_a_copy(self: Version, a: str, b: str, length: float) -> Version:
        copied = [(c, d, n) for c, ends in plain(self).items() for d, n in ends.items()]
        return connect(Version.of(copied), a, b, length)

    monkeypatch.setattr(Version, "connect", connect_a_copy)
    with pytest.raises(SystemExit, match="8 dicts were to be in both, not 0"):
        mutex_free.measure(10)
