# /// script
# requires-python = ">=3.11"
# dependencies = ["cereggii>=1.0.0"]
# ///
"""A queue without a lock: who stops between two steps has the second done by others.

To enqueue takes two changes, and compare-and-set makes one at a time. The item is
linked behind the last node; then the tail is swung to it. Who stops in between leaves a
tail that lags behind. In Michael and Scott's queue nobody waits for that thread: others
see that the tail has a successor, and swing it themselves. They help, so the queue is
lock-free.

Help and order are both needed. If nobody helps, all wait for the one that has stopped.
If the tail is swung first and the item linked then, others can enqueue behind it, but
what they have enqueued cannot be reached, and the queue seems empty.

The head refers to a dummy, a node whose item has been taken, so that head and tail are
never nothing. The node of the first item becomes the next dummy. It must not keep the
item alive: who has swung the head to it, and nobody else, reads the item and clears it.
(The paper has it read before; afterwards the node might have been used again. Here that
does not happen, see example12.)

What this gives is progress, whoever stops, and not speed. Each item needs two objects
more, a node and the AtomicRef in it; and where a lock would have a thread wait, work is
done again. Queues in C are several times faster (example17), as each operation is one
call. Use queue.SimpleQueue, which can wait for items as well, or the append and popleft
of a collections.deque.

M. M. Michael and M. L. Scott, "Simple, fast, and practical non-blocking and blocking
concurrent queue algorithms", PODC 1996.

Output:
                        a stops  meanwhile               afterwards
                        having   enqueue b  dequeue      dequeue
    MichaelScottQueue   linked   done       a, b, empty  empty
    UnhelpfulQueue      linked   stuck      stuck        a, empty
    TailFirstQueue      swung    done       empty        a, b, empty
    the dummy does not keep the last item that was dequeued alive
    8 threads, 1000 items: each once, those of each producer in order
    nobody waits for a thread that has stopped: others do its second step
"""

import threading
import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from example12_treiber_stack import Cell, Stop, WatchedCell

try:
    import cereggii  # type: ignore[import-untyped]
except ModuleNotFoundError:
    print("needs cereggii")
    raise SystemExit(77) from None

T = TypeVar("T")

LIMIT = 10.0  # seconds for what is bound to come
TRIES = 1000  # after which who needs help gives up
PRODUCERS, CONSUMERS, ITEMS = 4, 4, 250  # so many items of each producer


@dataclass(slots=True, eq=False)
class Node:
    """An item, and a cell with the node behind it, or None. That is set only once."""

    item: Any
    next: Cell["Node | None"]


class MichaelScottQueue(Generic[T]):
    """A lock-free queue. The first item enqueued is the first to be dequeued.

    An exception from outside, as by Ctrl-C, leaves the queue in order. An operation has
    then happened or not; the item of a dequeue that has happened is lost.

    Args:
        cell: makes the references.
    """

    def __init__(self, cell: Callable[[Any], Cell[Any]] = cereggii.AtomicRef) -> None:
        self._cell = cell
        dummy = Node(None, cell(None))
        # The head refers to the dummy, the tail to the last node or the one before.
        # Only compare-and-set changes them, and each `next`. They never go back, and
        # the head never overtakes the tail. Linearization points: enqueue, when `next`
        # of the last node is set; dequeue, when the head is swung, or, if there is no
        # item, when `next` of the dummy is read.
        #
        # Both are read twice: only then has it been that node for sure (see example12).
        # The paper looks again when `next` is read, since its nodes are used again.
        self._head: Cell[Node] = cell(dummy)
        self._tail: Cell[Node] = cell(dummy)

    def enqueue(self, item: T) -> None:
        """Put an item at the end."""
        node = Node(item, self._cell(None))
        while True:
            tail = self._tail.get()
            if tail is not self._tail.get():
                continue
            successor = tail.next.get()
            if successor is not None:
                self._help(tail, successor)
            elif tail.next.compare_and_set(None, node):
                self._tail.compare_and_set(tail, node)  # if not, another has helped
                return

    def dequeue(self) -> T:
        """Take the first item.

        Raises:
            IndexError: there is none.
        """
        while True:
            head = self._head.get()
            if head is not self._head.get():
                continue
            tail = self._tail.get()  # after the head, or that might be ahead of it
            first = head.next.get()
            if first is None:
                raise IndexError("dequeue from an empty queue")
            if head is tail:
                self._help(tail, first)
            elif self._head.compare_and_set(head, first):
                item: T = first.item
                first.item = None  # nobody else reads it: it is the dummy now
                return item

    def _help(self, tail: Node, successor: Node) -> None:
        """Swing a tail that lags behind, unless that has been done meanwhile."""
        self._tail.compare_and_set(tail, successor)


class StuckError(Exception):
    """Raised by who has waited for another's help, TRIES times in vain."""


class UnhelpfulQueue(MichaelScottQueue[T]):
    """The same, but each leaves the tail to the one who has linked; broken."""

    tries = 0  # to see another tail, by one thread at a time

    def _help(self, tail: Node, successor: Node) -> None:
        self.tries += 1
        if self.tries % TRIES == 0:
            raise StuckError("another has stopped")


class TailFirstQueue(MichaelScottQueue[T]):
    """The same, but the tail is swung first, then the item is linked; broken."""

    def enqueue(self, item: T) -> None:
        node = Node(item, self._cell(None))
        while True:
            tail = self._tail.get()
            if self._tail.compare_and_set(tail, node):
                tail.next.compare_and_set(None, node)  # out of reach until now
                return


def drain(queue: MichaelScottQueue[str]) -> str:
    """Dequeue until that fails; return in words what came."""
    words = []
    while True:
        try:
            words.append(queue.dequeue())
        except (IndexError, StuckError) as error:
            words.append("stuck" if isinstance(error, StuckError) else "empty")
            return ", ".join(words)


def beside_one_that_stops(
    kind: type[MichaelScottQueue[Any]],
) -> list[str]:
    """Stop a thread that enqueues a between its two steps, and go on beside it.

    Returns:
        Which step it has done; what came of enqueuing b, and of dequeuing, meanwhile;
        and of dequeuing when it has gone on.
    """
    stop = Stop(nth=2)
    queue = kind(partial(WatchedCell, stop))
    seen: list[str] = []

    def go_on() -> None:
        dummy = queue._head.get()
        linked, swung = dummy.next.get() is not None, queue._tail.get() is not dummy
        seen.append({(True, False): "linked", (False, True): "swung"}[linked, swung])
        try:
            queue.enqueue("b")
            seen.append("done")
        except StuckError:
            seen.append("stuck")
        seen.append(drain(queue))

    stop.run(partial(queue.enqueue, "a"), go_on)
    return [*seen, drain(queue)]


class Item:
    """An object that can be watched by a weakref."""


def is_kept_alive_by_the_queue() -> bool:
    """Tell whether an item that was dequeued, and dropped, is still there."""
    queue: MichaelScottQueue[Item] = MichaelScottQueue()
    queue.enqueue(Item())
    return weakref.ref(queue.dequeue())() is not None


def pass_items(
    queue: MichaelScottQueue[tuple[int, int]],
) -> list[list[tuple[int, int]]]:
    """Let producers and consumers share a queue; return what each consumer got.

    Items are a producer's number and the number of the item. Before each dequeue a
    consumer waits until one more has been enqueued, so it finds no empty queue.
    """
    enqueued = threading.Semaphore(0)

    def produce(me: int) -> None:
        for n in range(ITEMS):
            queue.enqueue((me, n))
            enqueued.release()

    def consume() -> list[tuple[int, int]]:
        received = []
        for _ in range(ITEMS * PRODUCERS // CONSUMERS):
            if not enqueued.acquire(timeout=LIMIT):
                raise TimeoutError("a consumer has waited in vain")
            received.append(queue.dequeue())
        return received

    with ThreadPoolExecutor(PRODUCERS + CONSUMERS) as pool:
        try:
            consumers = [pool.submit(consume) for _ in range(CONSUMERS)]
            producers = [pool.submit(produce, me) for me in range(PRODUCERS)]
            futures: list[Future[Any]] = [*producers, *consumers]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # after Ctrl-C, too: nobody waits any more
            enqueued.release(ITEMS * PRODUCERS)
    for producer in producers:
        producer.result()
    return [consumer.result() for consumer in consumers]


def all_once_and_in_order(received: list[list[tuple[int, int]]]) -> bool:
    """Tell whether each item came once, and each producer's in order."""
    for one in received:
        for me in range(PRODUCERS):
            numbers = [n for producer, n in one if producer == me]
            if numbers != sorted(numbers):
                return False
    everything = [(me, n) for me in range(PRODUCERS) for n in range(ITEMS)]
    return sorted(item for one in received for item in one) == everything


def demonstrate() -> None:
    """Check each claim, and print it."""
    print(f"{'':20}a stops  meanwhile               afterwards")
    print(f"{'':20}having   enqueue b  dequeue      dequeue")
    for kind, *expected in (
        (MichaelScottQueue, "linked", "done", "a, b, empty", "empty"),
        (UnhelpfulQueue, "linked", "stuck", "stuck", "a, empty"),
        (TailFirstQueue, "swung", "done", "empty", "a, b, empty"),
    ):
        seen = state, outcome, meanwhile, afterwards = beside_one_that_stops(kind)
        print(f"{kind.__name__:20}{state:9}{outcome:11}{meanwhile:13}{afterwards}")
        if seen != expected:
            raise SystemExit(f"{kind.__name__}: {', '.join(expected)} was to be seen")
    if is_kept_alive_by_the_queue():
        raise SystemExit("the dummy was not to keep its item")
    print("the dummy does not keep the last item that was dequeued alive")
    if not all_once_and_in_order(pass_items(MichaelScottQueue())):
        raise SystemExit("each item was to come once, and in order")
    print(
        f"{PRODUCERS + CONSUMERS} threads, {PRODUCERS * ITEMS} items: each once, those "
        "of each producer in order"
    )


def main() -> None:
    try:
        demonstrate()
    except (TimeoutError, IndexError) as error:
        raise SystemExit(f"not all items came: {error!r}") from None
    print("nobody waits for a thread that has stopped: others do its second step")


if __name__ == "__main__":
    main()
