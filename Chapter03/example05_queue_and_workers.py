"""Three workers share a queue of tasks, and each of them stops when it should.

What `empty()` and `qsize()` say may be wrong as soon as they have said it: another
worker takes the last task, and `get()` waits for ever. So workers just wait in `get()`,
and the end comes through the queue:

* as a sentinel for each worker, behind the last task. (Or as a single one that every
  worker puts back for the next one; it stays in the queue.)
* by `Queue.shutdown()`, from Python 3.13 on. What is in the queue is still handed out;
  then `get()` raises `queue.ShutDown`, also where it is waited in already.

A task that fails must not end its worker: when the last one is gone, a producer waits
for ever at the full queue. Nor must it skip `task_done()`, for which `join()` waits.
Here far more tasks fail than there are workers.

Book: Chapter 3, example5.
Try:  --workers 1

Output:
    stopped by   tasks  results  errors  not done exactly once
    sentinels       30       15      15        0
    ...
    endless tasks, the work calls sys.exit('five'): raised here
    each task was done exactly once, and no worker is left
"""

import argparse
import queue
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, Literal, TypeVar

SENTINEL = object()

Stop = Literal["sentinels", "shutdown"]
STOPS: tuple[Stop, ...] = ("sentinels", "shutdown")

A = TypeVar("A")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[A, R]):
    """What became of an item: `error` is None, or `result` is."""

    item: A
    result: R | None
    error: Exception | None


def attempt(work: Callable[[A], R], item: A) -> Outcome[A, R]:
    """Return the result of `work(item)`, or its exception."""
    try:
        return Outcome(item, work(item), None)
    except Exception as error:
        return Outcome(item, None, error)


def next_item(tasks: "queue.Queue[Any]") -> Any:
    """Wait for the next item; return SENTINEL if no more will come."""
    if sys.version_info < (3, 13):
        return tasks.get()
    try:
        return tasks.get()
    except queue.ShutDown:
        return SENTINEL


def process_all(
    items: Iterable[A],
    work: Callable[[A], R],
    n_workers: int,
    stop: Stop = "sentinels",
) -> list[Outcome[A, R]]:
    """Call `work` with each item, in `n_workers` threads.

    Returns the outcomes in the order in which they came about. `items` are taken only
    as fast as the workers can do them; there may be any number.

    If `items` raises, on Ctrl-C, and if `work` raises what is no `Exception` (as
    `sys.exit()` does), items that wait are dropped, the workers stop, and it is raised.

    Raises:
        ValueError: `n_workers` is less than 1, or `stop` needs a later Python.
        RuntimeError: the system gives no more threads.
    """
    if n_workers < 1:
        raise ValueError(f"there must be a worker, not {n_workers}")
    if stop == "shutdown" and sys.version_info < (3, 13):
        raise ValueError("Queue.shutdown() needs Python 3.13")
    # Bounded, so that `items` does not run ahead; with room for all sentinels, so that
    # these can be put also if a worker could not be started.
    tasks: queue.Queue[Any] = queue.Queue(2 * n_workers)
    # Workers append to both lists, which is atomic. When `fatal` is no longer empty,
    # items are dropped.
    outcomes: list[Outcome[A, R]] = []
    fatal: list[BaseException] = []

    def serve() -> None:
        while (item := next_item(tasks)) is not SENTINEL:
            try:
                if not fatal:
                    outcomes.append(attempt(work, item))
            except BaseException as error:  # raised in the caller's thread, below
                fatal.append(error)
            finally:
                tasks.task_done()

    # Daemons: Ctrl-C while they are being stopped would leave nobody to stop the rest.
    workers = [threading.Thread(target=serve, daemon=True) for _ in range(n_workers)]
    try:
        for worker in workers:
            worker.start()
        for item in items:
            tasks.put(item)
            if fatal:
                break
        tasks.join()  # returns when all items are done, not only taken
    except BaseException as error:
        fatal.append(error)
        raise
    finally:
        if stop == "sentinels":
            for _ in workers:
                tasks.put(SENTINEL)
        elif sys.version_info >= (3, 13):
            tasks.shutdown()
        for worker in workers:
            if worker.is_alive():
                worker.join()
    if fatal:
        raise fatal[0]
    return outcomes


def reciprocal_of_odd(n: int) -> float:
    """Stand for work that fails now and then."""
    if n % 2 == 0:
        raise ValueError(f"{n} is even")
    return 1 / n


def exit_at_five(n: int) -> None:
    """Stand for work that nobody expected to end the program."""
    if n == 5:
        sys.exit("five")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=positive, default=3)
    n_workers = parser.parse_args().workers
    items = range(1, 10 * n_workers + 1)
    threads_before = threading.active_count()

    print("stopped by   tasks  results  errors  not done exactly once")
    for stop in STOPS:
        if stop == "shutdown" and sys.version_info < (3, 13):
            print("shutdown     needs Python 3.13")
            continue
        outcomes = process_all(items, reciprocal_of_odd, n_workers, stop)
        times = Counter(outcome.item for outcome in outcomes)
        not_once = sum(times[item] != 1 for item in items)
        results = {o.result for o in outcomes if o.error is None}
        errors = len(outcomes) - len(results)
        print(f"{stop:9}{len(items):9}{len(results):9}{errors:8}{not_once:9}")
        if not_once or results != {1 / n for n in items[::2]}:
            raise SystemExit("each task should have been done exactly once, and well")

    try:
        process_all(count(), exit_at_five, n_workers)
    except SystemExit as exit_:
        print(f"endless tasks, the work calls sys.exit({exit_.code!r}): raised here")
    else:
        raise SystemExit("the exit of the worker was lost")
    left = threading.active_count() - threads_before
    if left:
        raise SystemExit(f"{left} workers are left")
    print("each task was done exactly once, and no worker is left")


if __name__ == "__main__":
    main()
