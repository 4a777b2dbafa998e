"""In a pool whose workers all do long tasks, short ones wait until one of those ends.

Nothing is slow and no core is busy: n long tasks wait for something, each in one of n
workers, and the short tasks behind them are not even begun. More workers only put it
off, until there are as many long tasks. Here these last until they are let go. While
they run no short task is done; as soon as one of them ends, all are.

A semaphore inside the long tasks looks like a mend, and is none. The task that it stops
waits in a worker, and the short ones are where they were. Two mends:

* A pool of its own for each class, as bulkheads divide a ship. Each may have what it
  needs, and none takes anything from the other.
* A limit in front of the pool: `Limited` hands on fewer long tasks than there are
  workers, and keeps the rest in a queue, where they occupy nothing.

Then the short tasks are done while all the long ones run.

Try:  --workers 2
Try:  --workers 20

Output:
    4 workers, 4 long tasks, then 10 short ones; of these are done
                        while all long ones run  after the end of one
    one pool                                  0                    10
    a semaphore inside                        0                    10
    a limit in front                         10                    10
    two pools                                10                    10
    short tasks need a worker that no long one can take
"""

import argparse
import queue
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

LIMIT = 10.0  # seconds for what is bound to come
SHORT_LIMIT = 0.02  # seconds for what cannot come
SHORT_TASKS = 10
MOST = 100  # workers that may be asked for


class Limited:
    """Hands tasks on to a pool of threads, at most `limit` of them at a time.

    Those that wait do so here, not in the pool's workers. Its `shutdown` waits for them
    as well; `cancel_futures` must not be used. (In a pool of processes this cannot be:
    its lock is not to be pickled.)

    Raises:
        ValueError: `limit` is less than 1.
    """

    def __init__(self, executor: ThreadPoolExecutor, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"limit {limit} is less than 1")
        self._executor = executor
        self._limit = limit
        # Guards all that follows.
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._workers = 0  # that `_work` occupies, or soon will

    def submit(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Have `function` called when its turn comes; those before it come first.

        Raises:
            RuntimeError: a worker was needed, and the executor has been shut down.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._workers < self._limit:
                self._executor.submit(self._work)
                self._workers += 1
            self._waiting.append((future, partial(function, *args, **kwargs)))
        return future

    def _work(self) -> None:
        """Do what waits, and leave the worker when there is nothing more."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._workers -= 1
                    return
                future, call = self._waiting.popleft()
            _fulfil(future, call)
            del future, call  # what they hold is not kept for the next one's time


def _fulfil(future: Future[T], call: Callable[[], T]) -> None:
    """Call what was submitted, unless it has been cancelled meanwhile."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:
        future.set_exception(error)
        del future, call  # or the error would refer to itself, by its traceback
    else:
        future.set_result(result)


Submit = Callable[[Callable[[], object]], "Future[Any]"]


def short_tasks_done(
    submit_long: Submit,
    submit_short: Submit,
    inside: AbstractContextManager[object],
    n_long: int,
    n_begin: int,
    timeout: float,
) -> tuple[int, int]:
    """Submit long tasks, and short ones when the long ones have begun; count those.

    Args:
        inside: what each long task is in while it lasts.
        n_begin: how many of the `n_long` long tasks begin.
        timeout: seconds to wait for the short ones while no long task ends.

    Returns:
        How many short tasks are done before any long one has ended; and after one has.
    """
    begun: queue.SimpleQueue[None] = queue.SimpleQueue()
    let_go: queue.SimpleQueue[None] = queue.SimpleQueue()

    def last() -> None:
        begun.put(None)
        with inside:
            let_go.get()

    try:
        long = [submit_long(last) for _ in range(n_long)]
        for _ in range(n_begin):
            begun.get(timeout=LIMIT)
        short = [submit_short(threading.get_ident) for _ in range(SHORT_TASKS)]
        meanwhile = len(wait(short, timeout).done)
        if any(task.done() for task in long):
            raise SystemExit("the long tasks were to last")
        let_go.put(None)
        afterwards = len(wait(short, LIMIT).done)
    except queue.Empty:
        raise SystemExit("a long task was to begin") from None
    finally:  # also after Ctrl-C: the pool waits for its tasks
        for _ in range(n_long):
            let_go.put(None)
    return meanwhile, afterwards


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be between 2 and {MOST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=some, default=4)
    n = parser.parse_args().workers

    results: dict[str, tuple[int, int]] = {}
    with ThreadPoolExecutor(n) as pool:
        results["one pool"] = short_tasks_done(
            pool.submit, pool.submit, nullcontext(), n, n, SHORT_LIMIT
        )
    with ThreadPoolExecutor(n) as pool:
        results["a semaphore inside"] = short_tasks_done(
            pool.submit, pool.submit, threading.Semaphore(n - 1), n, n, SHORT_LIMIT
        )
    with ThreadPoolExecutor(n) as pool:
        results["a limit in front"] = short_tasks_done(
            Limited(pool, n - 1).submit, pool.submit, nullcontext(), n, n - 1, LIMIT
        )
    with ThreadPoolExecutor(n) as pool, ThreadPoolExecutor(1) as pool_of_short:
        results["two pools"] = short_tasks_done(
            pool.submit, pool_of_short.submit, nullcontext(), n, n, LIMIT
        )

    print(
        f"{n} workers, {n} long tasks, then {SHORT_TASKS} short ones; of these are done"
    )
    print("                    while all long ones run  after the end of one")
    for name, (meanwhile, afterwards) in results.items():
        print(f"{name:18}{meanwhile:25}{afterwards:22}")
        expected = 0 if name in ("one pool", "a semaphore inside") else SHORT_TASKS
        if (meanwhile, afterwards) != (expected, SHORT_TASKS):
            raise SystemExit(f"{name}: {expected} short tasks were to be done at once")
    print("short tasks need a worker that no long one can take")


if __name__ == "__main__":
    main()
