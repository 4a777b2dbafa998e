"""Consumers wait in get(), and each of them ends by a poison pill from the queue.

Nobody asks `empty()` (example07). When all items are done, the parent puts one pill for
each consumer, who takes one and ends. What else it takes, so that nothing hangs and
nothing is lost, with any number of items and consumers:

* Each item has one outcome, a value or an exception, and they come in the items' order.
  An item, a value or an exception that cannot be pickled is an outcome, too: everything
  is pickled where an error can still be caught, not in the feeder (example06).
* The parent has at most two items per consumer under way, so items may be endless and
  memory is not. It puts another only after it has read an outcome, and never waits at a
  full queue while consumers wait to be rid of large outcomes.
* Each consumer has a pipe of its own for outcomes, rather than a second queue. One that
  dies, even while it writes half of one, ends its pipe: the parent hears of it at once,
  says who and which items, and kills the rest. A lock or a queue would stay locked.

`concurrent.futures.ProcessPoolExecutor` does all this but for the bound, which
`buffersize` of its map() adds in Python 3.14.

Book: Chapter 6, example8.
Try:  --workers 8
Try:  --items 10000

Output:
    items  workers  values  errors
        0        3       0       0
    1,000        1     400     600
    1,000        3     400     600
    item 5: RefusedError: 5: five divides it
    20 values of 1,048,576 bytes: all here
    endless items, 7 were taken: worker 0 died (exit code 3), no outcome of items 5, 6
    each item had one outcome, in order; no worker is left
"""

import argparse
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any, Generic, TypeVar

ITEMS_PER_WORKER = 2  # under way: one in work, one that waits for it
MAX_WORKERS = 61  # more handles cannot be waited for on Windows
LARGE = 1 << 20  # bytes, far more than a pipe holds

A = TypeVar("A")
R = TypeVar("R")

Task = tuple[int, bytes]  # number and pickled item


class WorkerDiedError(RuntimeError):
    """A worker ended before its pill: killed, or by os._exit() or sys.exit()."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What became of an item: `error` is None, or `value` is."""

    value: R | None
    error: Exception | None

    def result(self) -> R:
        """Return the value, or raise the error.

        The error's note is the traceback of the worker.
        """
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]  # None, if R allows for it


def process_all(
    work: Callable[[A], R], items: Iterable[A], n_workers: int
) -> list[Outcome[R]]:
    """Call `work` with each item, in `n_workers` processes; return outcomes in order.

    `items` are taken only as fast as the workers can do them. What they raise, and
    Ctrl-C, kills the workers and is raised.

    Raises:
        ValueError: `n_workers` is less than 1.
        WorkerDiedError: a worker died; the others have been killed.
    """
    if n_workers < 1:
        raise ValueError(f"there must be a worker, not {n_workers}")
    limit = ITEMS_PER_WORKER * n_workers
    # Never full: at most `limit` items are under way, and then come the pills.
    with ctrl_c_later():
        tasks: Queue[Task | None] = multiprocessing.Queue(limit)
    numbered = enumerate(items)
    outcomes: dict[int, Outcome[R]] = {}
    under_way: set[int] = set()
    try:
        with _workers(work, tasks, n_workers) as workers:
            while True:
                while len(under_way) < limit and (task := next(numbered, None)):
                    number, item = task
                    try:
                        pickled = pickle.dumps(item)
                    except Exception as error:
                        outcomes[number] = Outcome(None, error)
                    else:
                        under_way.add(number)
                        with ctrl_c_later():  # the first put() starts a thread
                            tasks.put_nowait((number, pickled))
                if not under_way:
                    break
                for number, outcome in _some_outcomes(workers, under_way):
                    under_way.remove(number)
                    outcomes[number] = outcome
            with ctrl_c_later():  # in the midst of put() it could leave a lock locked
                for _ in workers:
                    tasks.put_nowait(None)
            _wait_until_ended(workers.values())
    except BaseException:
        tasks.cancel_join_thread()  # nobody is left to take what it still has to write
        tasks.close()
        raise
    tasks.close()
    tasks.join_thread()  # or the caller's next process might be forked beside it
    return [outcomes[number] for number in range(len(outcomes))]


Workers = dict[Connection, BaseProcess]  # by the pipe from which outcomes come


@contextmanager
def _workers(
    work: Callable[[A], R], tasks: "Queue[Task | None]", n_workers: int
) -> Iterator[Workers]:
    """Start workers; kill those that are still there when the block ends."""
    workers: Workers = {}
    try:
        with ctrl_c_later():
            for number in range(n_workers):
                receiver, sender = multiprocessing.Pipe(duplex=False)
                process: BaseProcess = multiprocessing.Process(
                    target=_serve, args=(work, tasks, sender), name=f"worker {number}"
                )
                process.start()
                # Before the next one is forked, which would inherit it: the pipe is to
                # end with its worker.
                sender.close()
                workers[receiver] = process
        yield workers
    finally:
        with ctrl_c_later():
            for receiver, process in workers.items():
                process.kill()  # no effect on one that has ended
                process.join()
                receiver.close()


def _serve(
    work: Callable[[A], R], tasks: "Queue[Task | None]", outcomes: Connection
) -> None:
    """Do tasks until there comes a pill."""
    while (task := tasks.get()) is not None:
        number, item = task
        try:
            outcome = pickle.dumps((work(pickle.loads(item)), None, ""))
        except Exception as error:
            outcome = pickled_error(error)
        outcomes.send((number, outcome))


def pickled_error(error: Exception) -> bytes:
    """Return `error` and its traceback, pickled.

    What cannot be restored, as many an exception whose __init__ has arguments of its
    own, becomes a RuntimeError that names it.
    """
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(outcome := pickle.dumps((None, error, trace)))
    except Exception:
        (last,) = traceback.format_exception_only(error)[-1:]
        name_and_text = last.strip().removeprefix(f"{type(error).__module__}.")
        return pickle.dumps((None, RuntimeError(name_and_text), trace))
    return outcome


def _some_outcomes(
    workers: Workers, under_way: set[int]
) -> Iterator[tuple[int, Outcome[Any]]]:
    """Wait for outcomes; yield those that are there."""
    ready = wait(list(workers))
    for receiver, process in workers.items():
        if receiver not in ready:
            continue
        try:
            number, outcome = receiver.recv()
        except (EOFError, OSError):
            process.join()
            missing = ", ".join(map(str, sorted(under_way)))
            raise WorkerDiedError(
                f"{process.name} died (exit code {process.exitcode}), "
                f"no outcome of items {missing}"
            ) from None
        try:
            value, error, trace = pickle.loads(outcome)
        except Exception as unreadable:
            value, error, trace = None, unreadable, "its value cannot be restored"
        if error is not None:
            error.add_note(trace)
        yield number, Outcome(value, error)


def _wait_until_ended(processes: Iterable[BaseProcess]) -> None:
    """Return when all have ended well, or one has not.

    It may have been killed in get(), and have locked the others out of the queue.
    """
    running = {process.sentinel: process for process in processes}
    while running:
        for sentinel in wait(list(running)):
            assert isinstance(sentinel, int)
            process = running.pop(sentinel)
            process.join()
            if process.exitcode != 0:
                return


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


class RefusedError(Exception):
    """An exception as there are many: pickled it is well, but not restored."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"{number}: {reason}")


def halve(number: int) -> int:
    """Stand for work that fails now and then, in different ways."""
    if number % 5 == 0:
        raise RefusedError(number, "five divides it")
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number // 2


def half_or_none(number: int) -> int | None:
    """Return what `halve` returns, None where it raises."""
    return None if number % 2 or number % 5 == 0 else number // 2


def die_at_five(number: int) -> int:
    """Stand for work that takes its process along."""
    if number == 5:
        os._exit(3)
    return number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def at_least_five(text: str) -> int:
    number = int(text)
    if number < 5:
        raise argparse.ArgumentTypeError(f"must be at least 5, not {number}")
    return number


def workers(text: str) -> int:
    number = positive(text)
    if number > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_WORKERS}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=workers, default=3)
    parser.add_argument("--items", type=at_least_five, default=1000)
    options = parser.parse_args()
    n, items = options.workers, range(1, options.items + 1)

    print("items  workers  values  errors")
    for some, n_workers in ((range(0), n), (items, 1), (items, n)):
        outcomes = process_all(halve, some, n_workers)
        values = [one.value for one in outcomes if one.error is None]
        n_errors = len(outcomes) - len(values)
        print(f"{len(some):5,} {n_workers:8} {len(values):7,} {n_errors:7,}")
        if [one.value for one in outcomes] != [half_or_none(k) for k in some]:
            raise SystemExit("each item was to have its outcome, in its place")

    try:
        outcomes[4].result()
    except RuntimeError as error:
        print(f"item 5: {error}")
        if "in halve" not in error.__notes__[0]:
            raise SystemExit("the note was to say where it was raised") from None
    else:
        raise SystemExit("the exception of item 5 was lost")

    large = process_all(bytes, [LARGE] * 20, n)
    if [len(one.result()) for one in large] != [LARGE] * 20:
        raise SystemExit("each large value was to come whole")
    print(f"{len(large)} values of 1,048,576 bytes: all here")

    endless = count()
    try:
        process_all(die_at_five, endless, 1)
    except WorkerDiedError as error:
        print(f"endless items, {next(endless)} were taken: {error}")
    else:
        raise SystemExit("the death of a worker was to be heard of")
    if multiprocessing.active_children():
        raise SystemExit("a worker is left")
    print("each item had one outcome, in order; no worker is left")


if __name__ == "__main__":
    main()
