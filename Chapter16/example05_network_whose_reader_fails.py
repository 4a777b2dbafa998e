"""A thread walks through a network while another changes it, and fails or is misled.

The network is a dict of dicts: for each node its neighbours, and how far they are. The
reader goes from node to node and adds up the lengths of all edges. It needs many steps,
and none of them is wrong. But between two of them a writer may run, and then the rest
of the walk is through another network.

Here the reader stops after each step in turn, until another thread has made a change.
If that removes node C, it depends on the moment what comes of it. Where the reader is
just going through the neighbours of B, the dict loses a key, and its iterator notices.
Where the reader has noted C, to go there later, C is gone. Otherwise all is well, with
C counted or not. The other change moves B along the line from A to C: two lengths
become others, and their sum stays. No dict changes its size, nothing is raised, and the
reader returns a length that the network never had: a torn view. That is the worst, for
nobody is told.

A lock, held for the whole walk and for each whole change, mends it. The price is paid
by all: the writer waits until the walk has ended, and readers wait for writers and for
each other. The readers of example06 neither fail nor take a lock.

Book: Chapter 16, example5.

Output:
    the edges are 11 long, without C 7; where B is does not matter
             C is removed                            B is moved
    step 1   7                                       10
    step 2   RuntimeError: dictionary changed size   10
    step 3   RuntimeError: dictionary changed size   11
    step 4   RuntimeError: dictionary changed size   11
    step 5   KeyError: 'C'                           11
    step 6   11                                      11
    lock     11 at each step, the writer waits       11, the writer waits
    who walks through what another changes may fail, or be wrong unawares
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import count

from interleaving import Interleaving

Neighbours = Mapping[str, Mapping[str, float]]  # by node: neighbour and length
Hook = Callable[[], object]


class Network:
    """An undirected network whose edges have lengths; broken: nothing guards it.

    Attributes:
        neighbours: for each node, its neighbours and how long the edges to them are.
    """

    def __init__(self) -> None:
        self.neighbours: dict[str, dict[str, float]] = {}  # guarded by nothing

    def connect(self, a: str, b: str, length: float) -> None:
        """Make an edge, or change its length if there is one."""
        self.neighbours.setdefault(a, {})[b] = length
        self.neighbours.setdefault(b, {})[a] = length

    def remove(self, node: str) -> None:
        """Remove a node with all its edges.

        Raises:
            KeyError: there is no such node.
        """
        for other in self.neighbours.pop(node):
            del self.neighbours[other][node]


def total_length(
    neighbours: Neighbours, start: str, after_step: Hook = lambda: None
) -> float:
    """Return how long all edges are together that can be reached from a node.

    Args:
        after_step: called after each look at a neighbour. It lets a caller decide who
            runs meanwhile.

    Raises:
        KeyError: there is no node `start`; or a node that was seen is gone.
        RuntimeError: another thread has added or removed a neighbour of the node
            at which the walk was.
    """
    total = 0.0
    visited: set[str] = set()
    to_visit = [start]
    while to_visit:
        here = to_visit.pop()
        if here in visited:
            continue
        visited.add(here)
        for there, length in neighbours[here].items():
            if there not in visited:  # or the edge has been counted, from its other end
                total += length
                to_visit.append(there)
            after_step()
    return total


def small_network() -> Network:
    network = Network()
    network.connect("A", "B", 2)
    network.connect("B", "C", 4)
    network.connect("B", "D", 5)
    return network


def remove_c(network: Network) -> None:
    network.remove("C")


def move_b(network: Network) -> None:
    """Move B towards C. From A to C it is as far as before."""
    network.connect("A", "B", 3)
    network.connect("B", "C", 3)


def at_step(number: int, action: Hook) -> Hook:
    """Return a hook that calls `action` when it is called for the `number`th time."""
    steps = count(1)
    return lambda: next(steps) == number and action()


def walk(
    step: int, change: Callable[[Network], object], locked: bool = False
) -> tuple[str, str]:
    """Let one thread walk through the network, and another change it meanwhile.

    Args:
        step: when the change is to be made: after that step of the walk.
        locked: let both hold a lock.

    Returns:
        What the reader returns or raises; and whether the writer "waits" for it or
        "goes on".

    Raises:
        TimeoutError: one of them has waited too long for the other.
    """
    network, seen = small_network(), ""
    interleaving = Interleaving()
    lock: AbstractContextManager[object] = nullcontext()
    if locked:
        lock = interleaving.lock()

    def write() -> None:
        with lock:
            change(network)

    def read() -> None:
        nonlocal seen
        hook = at_step(step, interleaving.stop)
        try:
            with lock:
                seen = f"{total_length(network.neighbours, 'A', hook):g}"
        except (KeyError, RuntimeError) as error:
            message = str(error).removesuffix(" during iteration")
            seen = f"{type(error).__name__}: {message}"

    outcome = interleaving.run(read, write)
    return seen, outcome


SIZE = "RuntimeError: dictionary changed size"
EXPECTED = [  # after each step, if C is removed, and if B is moved
    ("7", "10"),
    (SIZE, "10"),
    (SIZE, "11"),
    (SIZE, "11"),
    ("KeyError: 'C'", "11"),
    ("11", "11"),
]


def demonstrate() -> None:
    """Check each claim, and print it."""
    print("the edges are 11 long, without C 7; where B is does not matter")
    print(f"{'':9}{'C is removed':40}B is moved")
    for step, expected in enumerate(EXPECTED, 1):
        seen = walk(step, remove_c)[0], walk(step, move_b)[0]
        print(f"step {step:<4}{seen[0]:40}{seen[1]}")
        if seen != expected:
            raise SystemExit(f"step {step}: {expected} was to be seen")

    for step in range(1, len(EXPECTED) + 1):
        for change in (remove_c, move_b):
            if walk(step, change, locked=True) != ("11", "waits"):
                raise SystemExit(f"step {step}: a lock was to keep the writer out")
    print(f"{'lock':9}{'11 at each step, the writer waits':40}11, the writer waits")
    print("who walks through what another changes may fail, or be wrong unawares")


def main() -> None:
    try:
        demonstrate()
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error!r}") from None


if __name__ == "__main__":
    main()
