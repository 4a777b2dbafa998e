"""A queue of limited size, with one lock and three conditions, that can be shut down.

It has the interface of `queue.Queue`, with the `shutdown` of Python 3.13 in each
version, and passes the standard library's own tests of that class. It is right because
of three rules, each of which is seen below to be needed:

* Who is woken looks again. Between the notify and the end of the wait another thread
  may take the item (a stolen wake-up); then the woken one waits on.
* One item serves one getter, so it is enough to notify one, but it must be a getter.
  Where getters and putters share a condition, a notify may reach the wrong kind, and
  all sleep though there is room.
* Who is woken and interrupted, as by Ctrl-C, notifies another in its place. In
  `queue.Queue` it does not, and so another getter may sleep beside the item.

In your own programs use `queue.Queue`, which is the same Python code in kind, or
`queue.SimpleQueue`, which is written in C but has neither a limit nor a join.

Source: C. A. R. Hoare, "Monitors: an operating system structuring concept", CACM 17
(10), 1974, has the bounded buffer; the rule to look again is from B. W. Lampson and
D. D. Redell, "Experience with processes and monitors in Mesa", CACM 23 (2), 1980.

Output:
    full           put waits beside 2 of 2 items; in a b c, out a b c
    time-out       Full from put, Empty from get, after 20 ms
    stolen item    the woken getter looks again, and gets the second item
    one condition  a getter and a putter sleep for ever, though there is room
    two            nobody sleeps
    interrupted    queue.Queue loses the wake-up: a getter sleeps beside an item
                   BlockingQueue passes it on: the getter has the item
    shutdown       wakes 3 getters and 3 putters; an item inside can be got
      immediate    wakes them as well, and join(); no item is left
    look again, wake the right kind, and pass on a wake-up that you cannot use
"""

import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, Generic, TypeVar

LIMIT = 10.0  # seconds for what is bound to come
PATIENCE = 0.02  # seconds to wait for what does not come
MOST_THREADS = 7  # that the demonstration needs at once

T = TypeVar("T")
R = TypeVar("R")


class ShutDownError(Exception):
    """What is raised before Python 3.13, which has `queue.ShutDown` for it."""


# Raised by put and get of a queue that was shut down.
ShutDown: type[Exception] = getattr(queue, "ShutDown", ShutDownError)


class BlockingQueue(Generic[T]):
    """A queue between threads, first in, first out, with the interface of queue.Queue.

    A wait that is interrupted loses no item, and passes on a wake-up that it got; so
    does a call whose `_put` or `_get` raises. (What Python code cannot rule out is
    Ctrl-C between two steps that change the queue, or begin a wait. It hits the main
    thread only.)

    Stricter than queue.Queue in one thing: a `timeout` that is negative or not a number
    is an error, also where nothing has to be waited for.

    Args:
        maxsize: how many items fit in; 0 or less means any number.

    Attributes:
        maxsize: the same.
        unfinished_tasks: items that were put, less calls of `task_done`.
        is_shutdown: whether `shutdown` was called.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self.maxsize = maxsize
        # Guards all that follows, and the items. An RLock: a wait takes that again at
        # its end even if Ctrl-C comes just then. A Lock it would not, and then the
        # `with` block around it would release what another thread holds.
        self.mutex = threading.RLock()
        self.unfinished_tasks = 0
        self.is_shutdown = False
        # Getters wait for not_empty: put() wakes one of them, shutdown() all.
        self.not_empty = threading.Condition(self.mutex)
        # Putters wait for not_full: get() wakes one of them, shutdown() all.
        self.not_full = threading.Condition(self.mutex)
        # join() waits for all_tasks_done: who finishes the last task wakes all.
        self.all_tasks_done = threading.Condition(self.mutex)
        self._init(maxsize)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        """Add `item`, as soon as there is room.

        Args:
            block: whether to wait for room.
            timeout: seconds to wait at most; None means for ever.

        Raises:
            queue.Full: there was no room, or not in time.
            ShutDown: the queue takes no more, perhaps since this call has begun.
            ValueError: `timeout` is negative or not a number.
        """
        put = partial(self._put, item)
        with self.mutex:
            self._when(self.not_full, self._may_put, put, queue.Full, block, timeout)
            self.unfinished_tasks += 1
            self.not_empty.notify()

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        """Remove and return the oldest item, as soon as there is one.

        Args:
            block, timeout: as for `put`.

        Raises:
            queue.Empty: there was no item, or not in time.
            ShutDown: there is none, and will be none.
            ValueError: `timeout` is negative or not a number.
        """
        with self.mutex:
            item = self._when(
                self.not_empty, self._may_get, self._get, queue.Empty, block, timeout
            )
            self.not_full.notify()
            return item

    def put_nowait(self, item: T) -> None:
        """Add `item`, or raise queue.Full: `put` without waiting."""
        self.put(item, block=False)

    def get_nowait(self) -> T:
        """Return the oldest item, or raise queue.Empty: `get` without waiting."""
        return self.get(block=False)

    def task_done(self) -> None:
        """Say that what was to be done with an item is done. Once for each item.

        Raises:
            ValueError: it was said more often than items were put.
        """
        with self.mutex:
            if not self.unfinished_tasks:
                raise ValueError("task_done() called more often than put()")
            self._finish(1)

    def join(self) -> None:
        """Wait until everything that was put is done, for ever if need be."""
        with self.mutex:
            self.all_tasks_done.wait_for(lambda: not self.unfinished_tasks)

    def shutdown(self, immediate: bool = False) -> None:
        """Take no more items, and wake all who wait. Again: no effect but `immediate`.

        Args:
            immediate: throw away what is inside, as done. Otherwise it can be got.
        """
        with self.mutex:
            self.is_shutdown = True
            if immediate:
                # Kept until the lock is released: a finalizer may wait for the queue.
                thrown_away = [self._get() for _ in range(self._qsize())]
                # Fewer are unfinished if some were called done before they were got.
                self._finish(min(len(thrown_away), self.unfinished_tasks))
            self.not_empty.notify_all()
            self.not_full.notify_all()

    def qsize(self) -> int:
        """Return how many items are inside, which may be wrong a moment later."""
        with self.mutex:
            return self._qsize()

    def empty(self) -> bool:
        """Return whether no item is inside, which may be wrong a moment later."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Return whether there is no room, which may be wrong a moment later."""
        with self.mutex:
            return self._is_full()

    def _when(
        self,
        condition: threading.Condition,
        ready: Callable[[], bool],
        change: Callable[[], R],
        in_vain: type[Exception],
        block: bool,
        timeout: float | None,
    ) -> R:
        """Wait until ready(), if that is wanted, and change(); or raise `in_vain`."""
        if block and timeout is not None and not timeout >= 0:
            raise ValueError(f"the time-out cannot be {timeout:g} s")
        try:  # wait_for looks again whenever it is woken
            if condition.wait_for(ready, timeout) if block else ready():
                return change()
        except BaseException:  # Ctrl-C, say, perhaps just after a notify
            condition.notify()  # that was for somebody who can go on
            raise
        raise in_vain

    def _may_put(self) -> bool:
        if self.is_shutdown:
            raise ShutDown
        return not self._is_full()

    def _may_get(self) -> bool:
        if self.is_shutdown and not self._qsize():
            raise ShutDown
        return self._qsize() > 0

    def _is_full(self) -> bool:
        return 0 < self.maxsize <= self._qsize()

    def _finish(self, n_tasks: int) -> None:
        self.unfinished_tasks -= n_tasks
        if not self.unfinished_tasks:
            self.all_tasks_done.notify_all()

    # A queue in another order overrides these, as with queue.Queue. All but the first
    # are called with the lock held.

    def _init(self, maxsize: int) -> None:
        self._items: deque[T] = deque()

    def _qsize(self) -> int:
        return len(self._items)

    def _put(self, item: T) -> None:
        self._items.append(item)

    def _get(self) -> T:
        return self._items.popleft()


class StagedCondition(threading.Condition):
    """A condition that lets a caller decide what happens to the first that is woken.

    Args:
        on_wake: called by that thread, without the lock, before its wait returns. It
            may raise, as Ctrl-C would.

    Attributes:
        sleepers: how many wait, for ever, and have not been notified; guarded by the
            lock.
    """

    def __init__(
        self,
        lock: "threading.Lock | threading.RLock",
        on_wake: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(lock)
        self._on_wake: list[Callable[[], object]] = [on_wake]
        self._waits = threading.Semaphore(0)  # one for each wait that has begun
        self.sleepers = 0

    def wait(self, timeout: float | None = None) -> bool:
        self.sleepers += 1
        self._waits.release()  # the lock is held: nobody can notify before the wait
        woken = super().wait(timeout)
        if self._on_wake:
            on_wake = self._on_wake.pop()
            self.release()
            try:
                on_wake()
            finally:
                self.acquire()
        return woken

    def notify(self, n: int = 1) -> None:
        self.sleepers -= min(n, self.sleepers)
        super().notify(n)

    def until_waits(self, n: int) -> None:
        """Return when `n` more waits have begun.

        Raises:
            TimeoutError: they did not within LIMIT seconds.
        """
        for _ in range(n):
            if not self._waits.acquire(timeout=LIMIT):
                raise TimeoutError("a thread was to wait")


@contextmanager
def threads(*queues: BlockingQueue[str]) -> Iterator[ThreadPoolExecutor]:
    """Give threads for a block; at its end nobody waits for one of the queues."""
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        try:
            yield pool
        finally:  # also after Ctrl-C
            for q in queues:
                q.shutdown(immediate=True)


def wait_for_room() -> tuple[int, str]:
    """Put three items into a queue of two, and get them.

    Returns:
        How many items were inside when the last put waited; the items as they came.
    """
    q = BlockingQueue[str](2)
    q.not_full = room = StagedCondition(q.mutex)
    with threads(q) as pool:
        q.put("a")
        q.put("b")
        putter = pool.submit(q.put, "c")
        room.until_waits(1)
        inside, first = q.qsize(), q.get_nowait()
        putter.result(LIMIT)
        return inside, first + q.get_nowait() + q.get_nowait()


def raised_by(call: Callable[..., object]) -> str:
    """Return the name of what `call` raises after PATIENCE seconds, and not before."""
    ends = time.monotonic() + PATIENCE
    try:
        call(timeout=PATIENCE)
    except Exception as error:
        if time.monotonic() >= ends:
            return type(error).__name__
    return "nothing, or something too early"


def after_a_theft() -> str:
    """Let a getter be woken for an item that is gone; return what it gets then."""
    q = BlockingQueue[str]()
    q.not_empty = items = StagedCondition(q.mutex, on_wake=q.get_nowait)
    with threads(q) as pool:
        getter = pool.submit(q.get)
        items.until_waits(1)
        q.put("the first")
        items.until_waits(1)  # it has looked again
        q.put("the second")
        return getter.result(LIMIT)


def asleep_with_conditions(n: int) -> int:
    """Let two getters wait for a queue of one; put two items; return who still waits.

    The second item is put while the first getter is woken but has not got the first.

    Args:
        n: conditions; 2 as it should be, or 1 for both getters and putters.
    """
    q = BlockingQueue[str](1)
    putter_waits = threading.Event()
    items = StagedCondition(q.mutex, on_wake=lambda: putter_waits.wait(LIMIT))
    q.not_empty = items
    q.not_full = room = StagedCondition(q.mutex) if n == 2 else items
    with threads(q) as pool, ExitStack() as in_the_end:
        in_the_end.callback(putter_waits.set)
        getters = [pool.submit(q.get) for _ in range(2)]
        items.until_waits(2)
        q.put("the first")
        pool.submit(q.put, "the second")
        room.until_waits(1)
        putter_waits.set()
        if n == 1:
            # Waiters are woken in the order in which they came: now the other getter,
            # and not the putter. It finds nothing.
            items.until_waits(1)
        else:
            for getter in getters:
                getter.result(LIMIT)
        with q.mutex:
            return items.sleepers


def asleep_beside_an_item(q: "BlockingQueue[str] | queue.Queue[str]") -> int:
    """Let two getters wait, put an item, and interrupt the one that is woken.

    Returns:
        1 if the other one sleeps though there is an item; 0 if it gets the item.
    """

    def interrupt() -> None:
        raise InterruptedError("as Ctrl-C would")

    q.not_empty = items = StagedCondition(q.mutex, interrupt)
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        try:
            getters: list[Future[str]] = [pool.submit(q.get) for _ in range(2)]
            items.until_waits(2)
            q.put("an item")
            _, others = wait(getters, LIMIT, FIRST_EXCEPTION)
            with q.mutex:
                asleep = items.sleepers
            if not asleep:
                for other in others:
                    other.result(LIMIT)
            return asleep
        finally:
            for _ in range(2):  # in Python 3.11 queue.Queue cannot be shut down
                q.put("an end")


def shut_down(immediate: bool) -> tuple[Counter[str], list[str]]:
    """Shut queues down for which three getters, three putters and a join() wait.

    Returns:
        What getters and putters have raised, and how many of them; what can be got
        afterwards.
    """
    empty, full = BlockingQueue[str](), BlockingQueue[str](1)
    empty.not_empty = items = StagedCondition(empty.mutex)
    full.not_full = room = StagedCondition(full.mutex)
    full.all_tasks_done = done = StagedCondition(full.mutex)
    left = []
    with threads(empty, full) as pool:
        full.put("an item")
        joiner = pool.submit(full.join)
        waiting: list[Future[Any]] = [pool.submit(empty.get) for _ in range(3)]
        waiting += [pool.submit(full.put, "too much") for _ in range(3)]
        items.until_waits(3)
        room.until_waits(3)
        done.until_waits(1)
        empty.shutdown(immediate)
        full.shutdown(immediate)
        raised = Counter(type(future.exception(LIMIT)).__name__ for future in waiting)
        with suppress(ShutDown):
            while True:
                left.append(full.get(timeout=LIMIT))
                full.task_done()
        joiner.result(LIMIT)
    return raised, left


def check(what: str, seen: object, expected: object) -> None:
    """End the program if something else was seen than expected."""
    if seen != expected:
        raise SystemExit(f"{what}: {expected} was to be seen, not {seen}")


def demonstrate() -> None:
    """Check each claim, and print it."""
    check("a full queue", wait_for_room(), (2, "abc"))
    print("full           put waits beside 2 of 2 items; in a b c, out a b c")
    full = BlockingQueue[str](1)
    full.put("an item")
    check("a time-out", raised_by(partial(full.put, "too much")), "Full")
    check("a time-out", raised_by(BlockingQueue[str]().get), "Empty")
    print(f"time-out       Full from put, Empty from get, after {1000 * PATIENCE:g} ms")
    check("a stolen item", after_a_theft(), "the second")
    print("stolen item    the woken getter looks again, and gets the second item")

    check("one condition", asleep_with_conditions(1), 2)
    print("one condition  a getter and a putter sleep for ever, though there is room")
    check("two conditions", asleep_with_conditions(2), 0)
    print("two            nobody sleeps")
    check("queue.Queue", asleep_beside_an_item(queue.Queue()), 1)
    print(
        "interrupted    queue.Queue loses the wake-up: a getter sleeps beside an item"
    )
    check("BlockingQueue", asleep_beside_an_item(BlockingQueue()), 0)
    print("               BlockingQueue passes it on: the getter has the item")

    sixfold = {ShutDown.__name__: 6}
    check("shutdown", shut_down(immediate=False), (sixfold, ["an item"]))
    check("shutdown", shut_down(immediate=True), (sixfold, []))
    print("shutdown       wakes 3 getters and 3 putters; an item inside can be got")
    print("  immediate    wakes them as well, and join(); no item is left")


def main() -> None:
    try:
        demonstrate()
    except (TimeoutError, RuntimeError) as error:
        raise SystemExit(f"a wait did not end, or ended wrongly: {error!r}") from None
    print("look again, wake the right kind, and pass on a wake-up that you cannot use")


if __name__ == "__main__":
    main()
