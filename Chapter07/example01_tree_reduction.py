"""Processes reduce items pair by pair, in a tree, right for every number of items.

Neighbours are combined, then neighbours of the results, until one item is left. n items
take log2(n) levels, rounded up, and an item without a neighbour is in the next level as
it is. As nobody changes places with anybody, the operator need only be associative.

The obvious design puts the items of a level into a queue, a sentinel behind them, and
lets processes take until they see it. That gives wrong sums now and then, and now and
then it hangs: put() only hands the item to a feeder thread of its own process, and the
sentinel of one process may overtake an item that another one has put before. What comes
late is lost, or somebody waits for it for ever. Here that is made to happen.

In the mend nobody has to find out where a level ends. The parent cuts it into parts,
numbers them, and counts the answers. Each worker has a pipe of its own, which breaks
when the worker dies. (A shared queue has a lock; a process that dies while it holds it
takes it along, and the others wait.) A failure of any kind ends all workers.

Honestly: a message takes a thousand times as long as an addition. Many pairs in a
message help, but each item still travels at every level. So in earnest give each worker
a chunk to reduce, and combine only what comes of the chunks: example02.

Book: Chapter 7, example1.
Try:  --runs 10000 --workers 4
Try:  --items 100000

Output:
    a sentinel, put after an item, came out before it
    0 to 100 strings: joined in order by 2 workers
    500 runs: every sum is right
    operator that raises: ZeroDivisionError, and no worker is left
    worker that dies: ChildProcessError, and no worker is left

    adding up 2,000 numbers, time for each of them
    functools.reduce                     38 ns
    tree, 1 pair in a message        19,105 ns
    tree, 100 pairs in a message        680 ns
    the tree is right, and at best 18x as slow as the loop
"""

import argparse
import functools
import math
import multiprocessing
import operator
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

LIMIT = 30.0  # seconds that a step of the demonstration may take
MAX_WORKERS = 61  # that Windows can wait for at once
LENGTHS = range(101)

T = TypeVar("T")


def one_level(combine: Callable[[T, T], T], items: Sequence[T]) -> list[T]:
    """Return `items` with each pair of neighbours combined; an odd one stays as it is.

    >>> one_level(operator.add, ["a", "b", "c", "d", "e"])
    ['ab', 'cd', 'e']
    """
    pairs = [combine(a, b) for a, b in zip(items[::2], items[1::2], strict=False)]
    return [*pairs, *items[len(pairs) * 2 :]]


def work(combine: Callable[[T, T], T], parent: Connection, far_end: Connection) -> None:
    """Answer each part of a level that comes, until the parent closes its end.

    The answer is (next level, None), or (None, what was raised).
    """
    far_end.close()  # inherited, it would keep the pipe open without the parent
    with parent, suppress(EOFError, OSError):  # the parent has closed it, or is gone
        while True:
            part = parent.recv()
            try:
                answer = one_level(combine, part), None
                parent.send(answer)
            except Exception as error:
                where = traceback.format_exc()
                error.add_note(f"in a worker:\n{where}")
                try:
                    parent.send((None, error))
                except Exception:  # it cannot be pickled
                    parent.send((None, RuntimeError(where)))


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


class TreeReducer(Generic[T]):
    """`n_workers` processes that combine items, pair by pair, level by level.

    It is a context manager; the workers live until the end of the block, or until a
    call of reduce() fails. To be called from one thread at a time.

    Args:
        combine: an associative operator that can be pickled.

    Raises:
        ValueError: there is no worker, or there are too many.
    """

    def __init__(self, combine: Callable[[T, T], T], n_workers: int) -> None:
        if not 1 <= n_workers <= MAX_WORKERS:
            raise ValueError(f"need 1 to {MAX_WORKERS} workers, not {n_workers}")
        self._combine = combine
        self._n_workers = n_workers
        self._workers: dict[Connection, BaseProcess] = {}  # empty: not running

    def __enter__(self) -> "TreeReducer[T]":
        if sys.platform != "win32":
            resource_tracker.ensure_running()  # its start would let Ctrl-C through
        try:
            with ctrl_c_later():
                for _ in range(self._n_workers):
                    ours, theirs = multiprocessing.Pipe()
                    # Closed here at once, the worker's end is nobody else's, not even
                    # the next worker's: if this one dies, reading ends with EOFError.
                    with theirs:
                        process = multiprocessing.Process(
                            target=work, args=(self._combine, theirs, ours)
                        )
                        self._workers[ours] = process
                        process.start()
        except BaseException:
            self._end(kill=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self._end(kill=error is not None)

    def reduce(self, items: Iterable[T], *initial: T, pairs_at_once: int = 100) -> T:
        """Return all `items` combined, in their order, `initial` (at most one) first.

        A failure ends the workers.

        Args:
            pairs_at_once: how many pairs are sent in one message.

        Raises:
            ValueError: there are no items, and nothing initial; or no pairs at once.
            ChildProcessError: a worker has died.
            RuntimeError: the workers have not been started, or have been ended.
            Exception: whatever `combine` raises; a note says where in the worker.
        """
        if not self._workers:
            raise RuntimeError("there are no workers (any more)")
        level = [*initial, *items]
        if not level:
            raise ValueError("nothing to reduce, and no initial item")
        if pairs_at_once < 1:
            raise ValueError(f"need at least 1 pair at once, not {pairs_at_once}")
        step = 2 * pairs_at_once
        while len(level) > 1:
            parts = [level[i : i + step] for i in range(0, len(level), step)]
            try:
                level = list(chain.from_iterable(self._one_level_of(parts)))
            except BaseException:  # answers may be under way that nobody asks for
                self._end(kill=True)
                raise
        return level[0]

    def _one_level_of(self, parts: Sequence[list[T]]) -> list[list[T]]:
        """Return each of `parts` one level on, in their order.

        A worker gets a part when it has answered the last one, so that two processes
        never wait for each other to read.
        """
        answers: list[list[T]] = [[] for _ in parts]
        numbers = iter(range(len(parts)))
        idle = list(self._workers)
        at_work: dict[Connection, int] = {}  # number of the part
        while True:
            for connection, number in zip(idle, numbers, strict=False):
                self._send(connection, parts[number])
                at_work[connection] = number
            if not at_work:
                return answers
            idle = cast(list[Connection], wait(list(at_work)))
            for connection in idle:
                answers[at_work.pop(connection)] = self._receive(connection)

    def _send(self, connection: Connection, part: list[T]) -> None:
        try:
            connection.send(part)
        except OSError:
            raise self._death(connection) from None

    def _receive(self, connection: Connection) -> list[T]:
        try:
            answer, error = connection.recv()
        except (EOFError, OSError):
            raise self._death(connection) from None
        if error is not None:
            raise error
        return cast(list[T], answer)

    def _death(self, connection: Connection) -> ChildProcessError:
        process = self._workers[connection]
        process.join(LIMIT)
        return ChildProcessError(f"a worker died: exit code {process.exitcode}")

    def _end(self, kill: bool) -> None:
        with ctrl_c_later():
            for connection in self._workers:
                connection.close()
            for process in self._workers.values():
                if process.pid is not None:  # it has been started
                    if kill:
                        process.kill()
                    process.join()
            self._workers.clear()


@contextmanager
def running(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """Start `processes`, wait for them at the end of the block; kill those still there.

    Killed are those that have not ended when the block, or the waiting, raises.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    try:
        with ctrl_c_later():
            for process in processes:
                process.start()
        yield
        for process in processes:
            process.join()
    finally:
        with ctrl_c_later():
            for process in processes:
                if process.pid is not None:  # it has been started
                    process.kill()  # no effect on one that has ended
                    process.join()


class LateItem:
    """A number whose pickling waits: so late, the feeder thread may get to an item."""

    def __init__(self, number: int, may_leave: Event) -> None:
        self._number = number
        self._may_leave = may_leave

    def __reduce__(self) -> tuple[type[int], tuple[int]]:
        self._may_leave.wait(LIMIT)
        return int, (self._number,)


def put_one_item(
    queue: "Queue[int | LateItem | None]", has_put: Event, may_leave: Event
) -> None:
    queue.put(LateItem(7, may_leave))
    has_put.set()  # which is true of put(), but not of the item


def order_of_item_and_sentinel() -> list[int | None]:
    """Return how an item comes out of a queue, and a sentinel that was put after it."""
    with ctrl_c_later():
        queue: Queue[int | LateItem | None] = multiprocessing.Queue()
        has_put, may_leave = multiprocessing.Event(), multiprocessing.Event()
    producer = multiprocessing.Process(
        target=put_one_item, args=(queue, has_put, may_leave)
    )
    with running([producer]):
        if not has_put.wait(LIMIT):
            raise TimeoutError("the process has put nothing")
        with ctrl_c_later():  # in the midst of put() it could leave a lock locked
            queue.put(None)
        first = queue.get(timeout=LIMIT)
        may_leave.set()
        second = queue.get(timeout=LIMIT)
    queue.close()
    queue.join_thread()  # or the next process might be forked beside it
    return [cast(int | None, one) for one in (first, second)]


def die(_: object, __: object) -> None:
    os._exit(1)


def side_by_side(
    jobs: Mapping[str, Callable[[], T]], rounds: int = 3
) -> tuple[dict[str, float], dict[str, T]]:
    """Run `jobs` in turns; return the seconds of each one's fastest run, and results.

    In turns, so that a busy moment of the machine hits all alike, and the fastest run,
    because other programs can only make a run slower.

    Raises:
        ValueError: a job does not give the same result in every round.
    """
    seconds = dict.fromkeys(jobs, math.inf)
    results: dict[str, T] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            result = job()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
            if results.setdefault(name, result) != result:
                raise ValueError(f"{name}: not the same result in every round")
    return seconds, results


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def workers(text: str) -> int:
    number = positive(text)
    if number > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_WORKERS}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=positive, default=500)
    parser.add_argument("--items", type=positive, default=2000)
    parser.add_argument("--workers", type=workers, default=2)
    options = parser.parse_args()
    n_runs, n_workers = options.runs, options.workers

    if order_of_item_and_sentinel() != [None, 7]:
        raise SystemExit("the sentinel was to overtake the item")
    print("a sentinel, put after an item, came out before it")

    numbers = list(range(options.items))
    with TreeReducer[Any](operator.add, n_workers) as adder:
        for length in LENGTHS:
            letters = [chr(0x4E00 + i) for i in range(length)]
            joined = adder.reduce(letters, "", pairs_at_once=1)
            if joined != "".join(letters):
                raise SystemExit(f"{length} strings were joined in another order")
        print(f"0 to {length} strings: joined in order by {n_workers} workers")

        for run in range(n_runs):
            length = run % len(LENGTHS)
            total = adder.reduce(range(length), 0, pairs_at_once=1 + run % 5)
            if total != length * (length - 1) // 2:
                raise SystemExit(f"run {run}: {total} is not the sum of 0 to {length}")
        print(f"{n_runs} runs: every sum is right")

        ways: dict[str, Callable[[], int]] = {
            "functools.reduce": lambda: functools.reduce(operator.add, numbers),
            "tree, 1 pair in a message": lambda: adder.reduce(numbers, pairs_at_once=1),
            "tree, 100 pairs in a message": lambda: adder.reduce(numbers),
        }
        seconds, totals = side_by_side(ways)
        if len(set(totals.values())) != 1:
            raise SystemExit(f"the sums differ: {totals}")

    for what, combine, expected in [
        ("operator that raises", operator.floordiv, ZeroDivisionError),
        ("worker that dies", die, ChildProcessError),
    ]:
        try:
            with TreeReducer[int](combine, n_workers) as reducer:
                reducer.reduce([1, 0])
        except expected as error:
            raised = type(error).__name__
        else:
            raise SystemExit(f"{what}: it went unnoticed")
        if multiprocessing.active_children():
            raise SystemExit(f"{what}: a worker was left")
        print(f"{what}: {raised}, and no worker is left")
    print()
    print(f"adding up {len(numbers):,} numbers, time for each of them")
    for way, taken in seconds.items():
        print(f"{way:28} {taken / len(numbers) * 1e9:10,.0f} ns")
    loop, *trees = seconds.values()
    print(
        f"the tree is right, and at best {min(trees) / loop:,.0f}x as slow as the loop"
    )


if __name__ == "__main__":
    main()
