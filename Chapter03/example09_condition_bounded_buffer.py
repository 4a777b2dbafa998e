"""A bounded buffer makes producers wait for room and consumers wait for items.

To wait for a state that other threads bring about is the job of a condition: wait()
lets go of the lock, sleeps, and holds the lock again when it returns. The buffer has
one lock and two conditions, one for each state to wait for, so that whoever takes an
item wakes a producer and not another consumer.

Woken is not served. Two threads wait for one item, and both are woken: one of them
comes too late. (A single `notify` does not help: a third thread may take the lock
before the woken one.) If it looks once (`if`), it takes what is gone; if it looks
again (`while`, `wait_for`), it goes on waiting. In your own programs use
`queue.Queue`, which is built like this and since 3.13 has a close(), too: `shutdown`.

Source: C. A. R. Hoare, "Monitors: an operating system structuring concept", CACM 17
(10), 1974; the rule to look again is from B. W. Lampson, D. D. Redell, "Experience with
processes and monitors in Mesa", CACM 23 (2), 1980.

Try:  --capacity 1
Try:  --items 100000

Output:
    capacity 3    one item more: queue.Full after its time-out
    2 producers   2,000 items, 3 consumers got each exactly once
    most inside   3; after close() all three drained it and ended
    with `if`     two woken for one item: one takes it, one IndexError
    with `while`  two woken for one item: one takes it, one waits
    who is woken has to look again
"""

import argparse
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

LIMIT = 10.0  # seconds that a step of the demonstration may take

T = TypeVar("T")


class ClosedError(Exception):
    """The buffer takes no more items, or will never have another one to give."""


class BoundedBuffer(Generic[T]):
    """A queue of at most `capacity` items between threads, first in, first out.

    Iterating over it gets items until it is closed and empty.

    Raises:
        ValueError: there is no room even for one item.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"the capacity must be at least 1, not {capacity}")
        self._capacity = capacity
        lock = threading.Lock()  # guards all that follows
        self._items: deque[T] = deque()
        self._closed = False
        self.most = 0  # items that were ever inside together
        # Consumers wait for not_empty: put() wakes one of them, close() all.
        self._not_empty = threading.Condition(lock)
        # Producers wait for not_full: get() wakes one of them, close() all.
        self._not_full = threading.Condition(lock)

    def put(self, item: T, timeout: float | None = None) -> None:
        """Add `item`, when there is room.

        Raises:
            queue.Full: there was none for `timeout` seconds (None: wait for ever).
            ClosedError: the buffer was closed, perhaps while this call waited.
        """
        with self._not_full:
            if not self._not_full.wait_for(self._room_or_closed, timeout):
                raise queue.Full
            if self._closed:
                raise ClosedError
            self._items.append(item)
            self.most = max(self.most, len(self._items))
            self._not_empty.notify()

    def get(self, timeout: float | None = None) -> T:
        """Remove and return the oldest item, when there is one.

        Raises:
            queue.Empty: there was none for `timeout` seconds (None: wait for ever).
            ClosedError: the buffer is closed and empty.
        """
        with self._not_empty:
            if not self._not_empty.wait_for(self._item_or_closed, timeout):
                raise queue.Empty
            if not self._items:
                raise ClosedError
            item = self._items.popleft()
            self._not_full.notify()
            return item

    def close(self) -> None:
        """Take no more items; what is inside can still be got. Wakes all who wait."""
        with self._not_empty:  # the one lock of both
            self._closed = True
            self._not_empty.notify_all()
            self._not_full.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                item = self.get()
            except ClosedError:
                return
            yield item

    def _room_or_closed(self) -> bool:
        return self._closed or len(self._items) < self._capacity

    def _item_or_closed(self) -> bool:
        return self._closed or bool(self._items)


def hand_over(
    buffer: BoundedBuffer[T], parts: Sequence[Sequence[T]], n_consumers: int
) -> list[T]:
    """Put each of `parts` in a thread of its own; return all that `n_consumers` got.

    The buffer is closed afterwards.

    Raises:
        ValueError: there is no consumer, so that the producers would wait for ever.
    """
    if n_consumers < 1:
        raise ValueError(f"there must be a consumer, not {n_consumers}")

    def put_all(part: Sequence[T]) -> None:
        for item in part:
            buffer.put(item)

    with ThreadPoolExecutor(len(parts) + n_consumers) as pool:
        try:
            consumers = [pool.submit(list, buffer) for _ in range(n_consumers)]
            for producer in [pool.submit(put_all, part) for part in parts]:
                producer.result()
            buffer.close()
        except BaseException:  # Ctrl-C, for one: nobody may wait for what will not come
            buffer.close()
            raise
        return [item for consumer in consumers for item in consumer.result()]


def take_looking_again(
    items: deque[T], changed: threading.Condition, about_to_wait: Callable[[], object]
) -> T:
    """Take an item when there is one; `changed` is notified when one is added."""
    with changed:
        while not items:
            about_to_wait()  # the lock is held: nobody can notify before the wait
            changed.wait()
        return items.popleft()


def take_looking_once(
    items: deque[T], changed: threading.Condition, about_to_wait: Callable[[], object]
) -> T:
    """The same with the defect: raises IndexError if the item is gone again."""
    with changed:
        if not items:
            about_to_wait()
            changed.wait()  # between notify and return, another thread takes the item
        return items.popleft()


def two_waiters_one_item(take: Callable[..., object]) -> list[str]:
    """Let two threads wait, wake both for one item, and return what each did then."""
    items: deque[str] = deque()
    changed = threading.Condition()
    did: queue.SimpleQueue[str] = queue.SimpleQueue()

    def taker() -> None:
        try:
            take(items, changed, lambda: did.put("waits"))
        except Exception as error:
            did.put(type(error).__name__)
        else:
            did.put("takes it")

    def add_item() -> None:
        with changed:
            items.append("item")
            changed.notify_all()

    with ThreadPoolExecutor(2) as pool:
        try:
            for _ in range(2):
                pool.submit(taker)
            for _ in range(2):  # until both wait
                did.get(timeout=LIMIT)
            add_item()
            what = sorted(did.get(timeout=LIMIT) for _ in range(2))
            add_item()  # for who still waits
        except BaseException:  # after Ctrl-C both may
            add_item()
            add_item()
            raise
    return what


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--capacity", type=positive, default=3)
    parser.add_argument("--items", type=positive, default=2000)
    options = parser.parse_args()
    capacity, n_items = options.capacity, options.items

    buffer = BoundedBuffer[int](capacity)
    for number in range(-capacity, 0):
        buffer.put(number, timeout=0)
    try:
        buffer.put(0, timeout=0.01)
    except queue.Full:
        print(f"capacity {capacity}    one item more: queue.Full after its time-out")
    else:
        raise SystemExit("the buffer took more than its capacity")

    items = range(n_items)
    got = hand_over(buffer, [items[::2], items[1::2]], n_consumers=3)
    if sorted(got) != list(range(-capacity, n_items)):
        raise SystemExit("an item was lost or came twice")
    if buffer.most != capacity:
        raise SystemExit(f"{buffer.most} items were inside, not {capacity}")
    print(f"2 producers   {n_items:,} items, 3 consumers got each exactly once")
    print(f"most inside   {buffer.most}; after close() all three drained it and ended")

    once = two_waiters_one_item(take_looking_once)
    again = two_waiters_one_item(take_looking_again)
    print(f"with `if`     two woken for one item: one {once[1]}, one {once[0]}")
    print(f"with `while`  two woken for one item: one {again[0]}, one {again[1]}")
    if once != ["IndexError", "takes it"] or again != ["takes it", "waits"]:
        raise SystemExit("one thread was to come too late, and to wait again")
    print("who is woken has to look again")


if __name__ == "__main__":
    main()
