"""All workers of a pool wait for tasks of the same pool, which no worker is left to do.

Each outer task submits an inner one and waits for its result. With as many outer tasks
as workers, all workers wait, and the inner tasks stay in the queue. No lock is in the
cycle: an outer task waits for an inner task, that for a worker, and the worker is
busy with an outer task. One worker more, and all goes well: so it hangs under load,
and not in the test. Here a barrier sees to it that all outer tasks have begun. A time
limit for `result()` ends the wait, but the inner task has still not been done. The same
happens to a function in asyncio.to_thread that waits for another one there. A task of a
ProcessPoolExecutor must not call its executor at all, says the manual.

A pool that knows which of its workers wait for its own tasks can tell. If all do, and
none of these tasks is done, none ever will be. To end it, cancel one that has not
begun. Whoever waits for it fails, and his worker does the others.

In each of three designs, somebody is left to do what is waited for:

* flat: no task waits. When one has ended, the caller submits what comes after it.
* layered: inner tasks have a pool of their own, and themselves wait for no task.
* helping: who needs a task that has not begun does it himself. It may nest as deep as
  it likes. Fork/join pools, as Java's, help in this way. Hold no lock when you help.

Try:  --workers 8

Output:
    workers  outer tasks
          4            4  all wait for inner tasks, of which 0 have begun
                          one is cancelled: 1 outer task fails, 3 end
          5            4  all end
        1-8      as many  the same; and with one worker more, all end
          4            4  flat: all end
          4            4  layered: all end, with 1 worker for the inner ones
          4            4  helping: all end
          1           99  helping: all end, one in the other
    whoever waits for a task must leave it a worker, or be that worker
"""

import argparse
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    CancelledError,
    Executor,
    Future,
    ThreadPoolExecutor,
    as_completed,
)
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds for what is bound to come
SIZES = range(1, 9)  # workers
LEAVES = 100  # of the tree of tasks


class WatchedPool:
    """Knows which workers of a pool wait for tasks of the same pool.

    Args:
        pool: it has `n_workers`, and gets its tasks from here only.
    """

    def __init__(self, pool: Executor, n_workers: int) -> None:
        self._pool = pool
        self._n_workers = n_workers
        # Guards _awaited, and is notified when a worker begins to wait.
        self._changed = threading.Condition()
        self._awaited: list[Future[Any]] = []  # one for each worker that waits

    def submit(self, function: Callable[..., T], *arguments: object) -> "Future[T]":
        return self._pool.submit(function, *arguments)

    def result(self, future: "Future[T]") -> T:
        """Wait, in a worker, for a task of this pool; return its result.

        Raises:
            CancelledError: it was cancelled.
            Exception: what it has raised.
        """
        with self._changed:
            self._awaited.append(future)
            self._changed.notify_all()
        try:
            return future.result()
        finally:
            with self._changed:
                self._awaited.remove(future)

    def deadlock(self, timeout: float) -> "list[Future[Any]]":
        """Wait until every worker waits for a task of this pool that is not done.

        Then no worker is left that could do one of them.

        Returns:
            These tasks; none if it does not come to that within `timeout` seconds. Some
            may have begun and wait themselves; only the others can be cancelled.
        """

        def of_all_workers() -> "list[Future[Any]]":
            awaited = [future for future in self._awaited if not future.done()]
            return awaited if len(awaited) == self._n_workers else []

        with self._changed:
            return self._changed.wait_for(of_all_workers, timeout)


class Task(Generic[T]):
    """A task of a pool, to be waited for by one other, which helps if need be."""

    def __init__(
        self, pool: Executor, function: Callable[..., T], *arguments: object
    ) -> None:
        self._function = function
        self._arguments = arguments
        self._future = pool.submit(function, *arguments)

    def result(self) -> T:
        """Return the result; if the task has not begun, do it here and now. Call once.

        Whoever waits here waits for a task that runs. It may wait in turn, but only for
        tasks that it has made itself, so there is no cycle.

        Raises:
            Exception: what the task raises.
        """
        if self._future.cancel():  # in one step: it had not begun, and never will
            return self._function(*self._arguments)
        return self._future.result()


def prepare(number: int, between: Callable[[], object]) -> int:
    """Do the outer task's own part.

    Args:
        between: called before; it lets a caller wait until all outer tasks have begun.
    """
    between()
    return number + 1


def square(number: int) -> int:
    """Do the inner task."""
    return number * number


def watched(pool: WatchedPool, number: int, between: Callable[[], object]) -> int:
    """Do an outer task; broken: it waits for a task of the pool in which it runs."""
    return pool.result(pool.submit(square, prepare(number, between)))


def flat(
    pool: Executor, numbers: Sequence[int], between: Callable[[], object]
) -> list[int]:
    """Do inner tasks when the outer ones have ended."""
    outer = [pool.submit(prepare, number, between) for number in numbers]
    inner = {
        future: pool.submit(square, future.result())
        for future in as_completed(outer, LIMIT)
    }
    return [inner[future].result(LIMIT) for future in outer]


def layered(
    pool: Executor,
    inner_pool: Executor,
    numbers: Sequence[int],
    between: Callable[[], object],
) -> list[int]:
    """Do inner tasks in a pool of their own; one worker there is enough."""

    def outer(number: int) -> int:
        return inner_pool.submit(square, prepare(number, between)).result()

    return list(pool.map(outer, numbers, timeout=LIMIT))


def helping(
    pool: Executor, numbers: Sequence[int], between: Callable[[], object]
) -> list[int]:
    """Do inner tasks where a worker is free, or else where they are waited for."""

    def outer(number: int) -> int:
        return Task(pool, square, prepare(number, between)).result()

    return list(pool.map(outer, numbers, timeout=LIMIT))


def sum_of_squares(pool: Executor, numbers: Sequence[int]) -> int:
    """Add up squares: the one half in a task, which halves again, the other here."""
    if len(numbers) <= 1:
        return sum(map(square, numbers))
    middle = len(numbers) // 2
    task = Task(pool, sum_of_squares, pool, numbers[:middle])
    return sum_of_squares(pool, numbers[middle:]) + task.result()


@contextmanager
def pool_of(n_workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool; if the block raises, do nothing that has not begun."""
    with ThreadPoolExecutor(n_workers) as pool:
        try:
            yield pool
        except BaseException:  # perhaps all workers wait for what has not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def meeting(n_tasks: int) -> Iterator[Callable[[], object]]:
    """Give what so many tasks call to wait for each other, unless the block raises."""
    barrier = threading.Barrier(n_tasks, timeout=LIMIT)
    try:
        yield barrier.wait
    except BaseException:
        barrier.abort()
        raise


def wait_for_themselves(n_workers: int) -> int:
    """Let all workers wait for inner tasks; cancel one of these, and the others go on.

    Returns:
        How many outer tasks have their results then.
    """
    with pool_of(n_workers) as workers, meeting(n_workers) as between:
        pool = WatchedPool(workers, n_workers)
        outer = [pool.submit(watched, pool, n, between) for n in range(n_workers)]
        stuck = pool.deadlock(LIMIT)
        if len(stuck) != n_workers or any(future.running() for future in stuck):
            raise SystemExit(f"{n_workers} workers were to wait for what has not begun")
        stuck[0].cancel()  # whoever waits for it gets an exception, and is free
        errors = [future.exception(LIMIT) for future in outer]
    if sum(isinstance(error, CancelledError) for error in errors) != 1:
        raise SystemExit(f"one outer task was to be given up: {errors}")
    return errors.count(None)


def one_worker_more(n_tasks: int) -> list[int]:
    """Do outer tasks in a pool with a worker more than there are of them."""
    with pool_of(n_tasks + 1) as workers, meeting(n_tasks) as between:
        pool = WatchedPool(workers, n_tasks + 1)
        outer = [pool.submit(watched, pool, n, between) for n in range(n_tasks)]
        return [future.result(LIMIT) for future in outer]


def some(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError(f"must be between 1 and 100, not {number}")
    return number


def demonstrate(n: int) -> None:
    """Check each claim, and print it."""
    numbers = range(n)
    expected = [square(number + 1) for number in numbers]

    for size in {*SIZES, n}:
        if wait_for_themselves(size) != size - 1:
            raise SystemExit("when one was given up, all others were to end")
        if one_worker_more(size) != [square(k + 1) for k in range(size)]:
            raise SystemExit("one worker more was to be enough")
    print("workers  outer tasks")
    print(f"{n:7}  {n:11}  all wait for inner tasks, of which 0 have begun")
    print(f"{'':20}  one is cancelled: 1 outer task fails, {n - 1} end")
    print(f"{n + 1:7}  {n:11}  all end")
    first, last = SIZES[0], SIZES[-1]
    print(f"{first:5}-{last}      as many  the same; and with one worker more, all end")

    with pool_of(n) as pool, pool_of(1) as second:
        with meeting(n) as between:
            found = {
                "flat": flat(pool, numbers, between),
                "layered": layered(pool, second, numbers, between),
                "helping": helping(pool, numbers, between),
            }
        total = second.submit(sum_of_squares, second, range(LEAVES)).result(LIMIT)
    for name, answers in found.items():
        if answers != expected:
            raise SystemExit(f"{name}: {answers} instead of {expected}")
        more = ", with 1 worker for the inner ones" if name == "layered" else ""
        print(f"{n:7}  {n:11}  {name}: all end{more}")
    if total != sum(map(square, range(LEAVES))):
        raise SystemExit(f"helping: the squares add up to {total}")
    print(f"{1:7}  {LEAVES - 1:11}  helping: all end, one in the other")
    print("whoever waits for a task must leave it a worker, or be that worker")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=some, default=4)
    options = parser.parse_args()
    try:
        demonstrate(options.workers)
    except (TimeoutError, threading.BrokenBarrierError) as error:
        raise SystemExit(f"not done in {LIMIT:g} s: {error!r}") from None


if __name__ == "__main__":
    main()
