"""A reader takes one reference to a version that never changes, and cannot fail.

Read-copy-update: a writer does not change what others may be reading. It copies what is
to be different, changes the copy, and publishes it by storing one reference. A reader
loads that reference once and has a whole network, as it was at that moment, for as long
as it likes. It takes no lock, waits for nobody, and nobody waits for it. Below, that is
the reader of example05, stopped after the same steps; and then a writer is stopped when
half its change is made.

A version is made of dicts: one holds the nodes, and for each node one its neighbours.
A new edge changes three of them; all others are in both versions (structural sharing).
The copy of the outer one is what a change costs, the more the larger the network is.
PEP 603 (frozenmap) and the libraries immutables and pyrsistent have mappings of which a
changed copy costs a logarithm only.

Two writers may start from the same version, and then the second store wipes out what
the first has changed: a lost update. So a store must be a compare-and-set: it is done
only if the version is still the one that was read; otherwise the writer tries again. A
writer fails only if another was faster, so the whole gets on, though a long change may
have to be tried often beside short ones. Many processors have compare-and-set as one
instruction, Python has not. Here a lock makes it one step: held for a comparison and a
store, never while a change is computed, never by a reader. (So the readers are free of
locks, the writers nearly: one that is stopped just there stops the other writers.)

When is an old version freed? In C that is the hard part of read-copy-update: one has to
wait until no reader can have it any more (the grace period). Python does that: a
version goes with the last reference to it.

P. E. McKenney and J. D. Slingwine, "Read-copy update: using execution history to solve
concurrency problems", PDCS 1998.

Book: Chapter 16, example6.

Output:
    the edges are 11 long, without C 7; where B is does not matter
    C removed after step 1 ... 6  the reader sees 11, the next 7
    B moved after step 1 ... 6    the reader sees 11, the next 11
    B half moved                  a reader sees 11, and need not wait
    two writers, a store          X is there, Y lost
    two writers, compare          X and Y, in 2 tries
    an old version                is there while a reader has it, then freed
        nodes  dicts kept       a change       a read
           10           8         5.2 µs          134 ns
        1,000         998        13.4 µs          135 ns
       30,000      29,998       218.8 µs          132 ns
    readers never wait nor fail; a change costs a copy
"""

import gc
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import MappingProxyType

from example05_network_whose_reader_fails import at_step, total_length

LIMIT = 10.0  # seconds that one thread waits for the other
STEPS = 6  # of a walk through the small network
SIZES = (10, 1_000, 30_000)  # nodes
REPEATS = 20  # of which the fastest counts

Neighbours = MappingProxyType[str, float]  # of one node, and how far they are


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Version:
    """An undirected network, whose edges have lengths, at one time. It never changes.

    Attributes:
        neighbours: for each node, its neighbours and how long the edges to them are.
            An edge is there twice, once for each end.
    """

    neighbours: MappingProxyType[str, Neighbours]

    @classmethod
    def of(cls, edges: Iterable[tuple[str, str, float]]) -> "Version":
        """Make a version that has all these edges.

        Raises:
            ValueError: as `connect`.
        """
        neighbours: dict[str, dict[str, float]] = {}
        for a, b, length in edges:
            check(a, b, length)
            neighbours.setdefault(a, {})[b] = length
            neighbours.setdefault(b, {})[a] = length
        return cls(
            MappingProxyType(
                {node: MappingProxyType(ends) for node, ends in neighbours.items()}
            )
        )

    def connect(self, a: str, b: str, length: float) -> "Version":
        """Return a version with this edge, in place of an older one between both.

        Raises:
            ValueError: both ends are the same node, or `length` is not positive
                and finite.
        """
        check(a, b, length)
        none: Neighbours = MappingProxyType({})
        return self._with(
            {
                a: self.neighbours.get(a, none) | {b: length},
                b: self.neighbours.get(b, none) | {a: length},
            }
        )

    def disconnect(self, a: str, b: str) -> "Version":
        """Return a version without the edge between two nodes, which stay.

        Raises:
            KeyError: there is no such edge.
        """
        if b not in self.neighbours.get(a, ()):
            raise KeyError(f"no edge between {a} and {b}")
        return self._with({a: self._ends_without(a, b), b: self._ends_without(b, a)})

    def remove(self, node: str) -> "Version":
        """Return a version without a node and its edges.

        Raises:
            KeyError: there is no such node.
        """
        if node not in self.neighbours:
            raise KeyError(f"no node {node}")
        others = self.neighbours[node]
        return self._with({one: self._ends_without(one, node) for one in others}, node)

    def _ends_without(self, node: str, other: str) -> dict[str, float]:
        ends = self.neighbours[node].copy()
        del ends[other]
        return ends

    def _with(self, changed: dict[str, dict[str, float]], *gone: str) -> "Version":
        nodes = self.neighbours.copy()  # the references, not what they refer to
        for node, ends in changed.items():
            nodes[node] = MappingProxyType(ends)
        for node in gone:
            del nodes[node]
        return Version(MappingProxyType(nodes))


def check(a: str, b: str, length: float) -> None:
    """Raise ValueError if that cannot be an edge."""
    if a == b:
        raise ValueError(f"an edge from {a} to itself")
    if not 0 < length < math.inf:  # nor NaN
        raise ValueError(f"the length must be positive and finite, not {length:g}")


class Network:
    """A network that many threads read and change at once.

    Each change is seen as a whole or not at all. One that raises changes nothing.
    """

    def __init__(self, version: Version) -> None:
        # The linearization point of a read is the load of this attribute, without a
        # lock; that of a change is the store, in compare_and_set.
        self._version = version
        self._storing = threading.Lock()  # makes one step of a comparison and a store

    @property
    def version(self) -> Version:
        """The network as it is now. Take it once for all that belongs together."""
        return self._version

    def compare_and_set(self, expected: Version, new: Version) -> bool:
        """Publish `new` if the version is still `expected`; return whether it was."""
        with self._storing:
            if self._version is not expected:
                return False
            self._version = new
            return True

    def update(self, change: Callable[[Version], Version]) -> None:
        """Replace the version by what `change` makes of it, at one stroke.

        Args:
            change: makes one new version, in as many steps as it likes. It is called
                again if another thread has published one meanwhile, so it should do
                nothing else. What it raises is raised here.
        """
        while True:
            seen = self._version
            if self.compare_and_set(seen, change(seen)):
                return

    def connect(self, a: str, b: str, length: float) -> None:
        """Make an edge, or change its length; raise what `Version.connect` does."""
        self.update(lambda version: version.connect(a, b, length))

    def disconnect(self, a: str, b: str) -> None:
        """Take an edge out; raise what `Version.disconnect` does."""
        self.update(lambda version: version.disconnect(a, b))

    def remove(self, node: str) -> None:
        """Take a node and its edges out; raise what `Version.remove` does."""
        self.update(lambda version: version.remove(node))


class LastStoreWins(Network):
    """The same; broken: it stores without comparing, and an update may be lost."""

    def compare_and_set(self, expected: Version, new: Version) -> bool:
        self._version = new
        return True


SMALL = Version.of([("A", "B", 2), ("B", "C", 4), ("B", "D", 5)])


def length_of(version: Version) -> float:
    return total_length(version.neighbours, "A")


def remove_c(version: Version) -> Version:
    return version.remove("C")


def move_b(version: Version) -> Version:
    """Move B towards C. From A to C it is as far as before."""
    return version.connect("A", "B", 3).connect("B", "C", 3)


def walk(
    pool: ThreadPoolExecutor, step: int, change: Callable[[Version], Version]
) -> tuple[float, float]:
    """Walk through a network, which another thread changes after the given step.

    Returns:
        What the reader gets that was under way, and what the next one gets.
    """
    network = Network(SMALL)

    def let_the_writer_run() -> None:
        pool.submit(network.update, change).result(LIMIT)

    hook = at_step(step, let_the_writer_run)
    seen = total_length(network.version.neighbours, "A", hook)
    return seen, length_of(network.version)


def read_during_a_change(pool: ThreadPoolExecutor) -> tuple[float, float]:
    """Let a thread read while a writer is halfway; return what it and the next get."""
    network = Network(SMALL)
    seen = []

    def change(version: Version) -> Version:
        half = version.connect("A", "B", 3)
        reader = pool.submit(lambda: length_of(network.version))
        seen.append(reader.result(LIMIT))
        return half.connect("B", "C", 3)

    network.update(change)
    return seen[0], length_of(network.version)


def two_writers(pool: ThreadPoolExecutor, network: Network) -> tuple[list[str], int]:
    """Let one writer connect X with A, and in its midst another connect Y with A.

    Returns:
        Which of X and Y are there in the end, and how often the first writer has tried.
    """
    tries = 0

    def change(version: Version) -> Version:
        nonlocal tries
        tries += 1
        if tries == 1:
            pool.submit(network.connect, "Y", "A", 1).result(LIMIT)
        return version.connect("X", "A", 1)

    network.update(change)
    return sorted(network.version.neighbours.keys() & {"X", "Y"}), tries


def freed_with_the_last_reader() -> list[bool]:
    """Replace a version; return whether it is gone while a reader has it, and then."""
    network = Network(Version.of([("A", "B", 2)]))
    held = network.version
    old = weakref.ref(held)
    network.connect("A", "B", 3)
    gc.collect()
    gone_while_held = old() is None
    del held
    gc.collect()
    return [gone_while_held, old() is None]


def fastest(job: Callable[[], object]) -> float:
    """Return the shortest time of REPEATS calls, in µs."""
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        job()
        times.append(time.perf_counter() - began)
    return 1e6 * min(times)


def measure(n_nodes: int) -> None:
    """Print what a change costs in a ring of so many nodes, and what it copies."""
    names = [str(n) for n in range(n_nodes)]
    edges = zip(names, names[1:] + names[:1], strict=True)
    network = Network(Version.of((a, b, 1) for a, b in edges))
    old = network.version
    network.connect(names[0], names[n_nodes // 2], 1)
    new = network.version
    shared = sum(new.neighbours[name] is old.neighbours[name] for name in names)
    if shared != n_nodes - 2:
        raise SystemExit(f"{n_nodes - 2} dicts were to be in both, not {shared}")

    change = fastest(lambda: network.connect(names[0], names[n_nodes // 2], 1))
    read = fastest(lambda: [network.version for _ in range(1000)])  # ns for one
    print(f"{n_nodes:9,}{shared:12,}{change:12.1f} µs{read:13.0f} ns")


def demonstrate(pool: ThreadPoolExecutor) -> None:
    """Check each claim, and print it. The pool has a thread."""
    print("the edges are 11 long, without C 7; where B is does not matter")
    for name, change, after in (("C removed", remove_c, 7), ("B moved", move_b, 11)):
        for step in range(1, STEPS + 1):
            if walk(pool, step, change) != (11, after):
                raise SystemExit(f"{name} after step {step}: 11 was to be seen")
        print(f"{name + ' after step 1 ... 6':30}the reader sees 11, the next {after}")
    if read_during_a_change(pool) != (11, 11):
        raise SystemExit("a reader was to see the old version")
    print(f"{'B half moved':30}a reader sees 11, and need not wait")

    lost, once = two_writers(pool, LastStoreWins(SMALL))
    both, tries = two_writers(pool, Network(SMALL))
    if (lost, once, both, tries) != (["X"], 1, ["X", "Y"], 2):
        raise SystemExit(f"Y was to be lost, then not: {lost}, {both}, {tries} tries")
    print(f"{'two writers, a store':30}{' and '.join(lost)} is there, Y lost")
    print(f"{'two writers, compare':30}{' and '.join(both)}, in {tries} tries")
    if freed_with_the_last_reader() != [False, True]:
        raise SystemExit("a version was to be freed with its last reader")
    print(f"{'an old version':30}is there while a reader has it, then freed")

    print("    nodes  dicts kept       a change       a read")
    for size in SIZES:
        measure(size)
    print("readers never wait nor fail; a change costs a copy")


def main() -> None:
    try:
        with ThreadPoolExecutor(1) as pool:
            demonstrate(pool)
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error!r}") from None


if __name__ == "__main__":
    main()
