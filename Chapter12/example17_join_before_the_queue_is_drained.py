"""The parent waits for the child's end, the child for somebody who reads its queue.

What a process has put into a `multiprocessing.Queue` is written to a pipe by a thread,
the feeder, and a process does not end before its feeder has. A pipe holds some 64 KiB,
on Windows less. If more was put, the feeder waits for a reader; if the reader first
waits for the process to end, both wait for ever. With a small item all goes well, so
the program hangs when its results grow. The child here has done its work, and says so;
yet join() with a time limit finds it alive, and would at any limit. To end it, read:
first get all, then join. (`cancel_join_thread()` lets it end as well, and loses items.
`SimpleQueue` has no feeder; there put() itself waits.)

A `queue.Queue` has a join(), too, which waits until task_done() has been called for
each task. A consumer that fails before it does so leaves one unfinished. When no
consumer is left, join() waits for ever. Not even shutdown(immediate=True), new in
Python 3.13, ends it: that finishes what is in the queue, but not what was taken. Call
task_done() in `finally`, and let the consumer outlive what fails.

Output:
       1 KiB, join, get  the child has ended, its item unread
    1024 KiB, join, get  the child is done, and does not end:
                         it waits for a reader, who waits for its end
                         ended by reading
    1024 KiB, get, join  the child has ended, its item is here
    a task that fails    no task_done(), and no consumer is left:
                         join() waits for ever, for 2 of 3 tasks
    mended               join() returns, and 1 task has failed
    before you wait for others, take from them what they have for you
"""

import multiprocessing
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from typing import Any, TypeVar

T = TypeVar("T")

Consume = Callable[
    ["queue.Queue[int | None]", Callable[[int], object]], list[Exception]
]

KIB = 1024  # bytes
SMALL = 1 * KIB  # fits into a pipe on every system
LARGE = 1024 * KIB  # does not
LIMIT = 30.0  # seconds for what is bound to come
NUMBERS = (4, 0, 2)  # the second cannot be inverted
SHORT_LIMIT = 0.05  # seconds of waiting for what cannot come


def produce(results: "Queue[bytes]", size: int, report: Connection) -> None:
    """Put an item of `size` bytes, and report that all is done."""
    results.put(bytes(size))
    report.send("done")


def is_stuck(process: BaseProcess, report: Connection, timeout: float) -> bool:
    """Tell whether a process has reported its last step and still does not end.

    Args:
        timeout: seconds that it gets for its end.

    Raises:
        TimeoutError: it has not reported within LIMIT seconds.
        EOFError: it has ended without a report.
    """
    if not report.poll(LIMIT):
        raise TimeoutError("the child was to be done")
    report.recv()
    process.join(timeout)
    return process.is_alive()


def get_then_join(
    results: "Queue[T]", n_results: int, processes: Sequence[BaseProcess]
) -> list[T]:
    """Return all results, and only then wait for the processes that put them to end.

    Raises:
        queue.Empty: a result did not come within LIMIT seconds.
        TimeoutError: a process has not ended LIMIT seconds after the last result.
    """
    found = [results.get(timeout=LIMIT) for _ in range(n_results)]
    for process in processes:
        process.join(LIMIT)
        if process.is_alive():
            raise TimeoutError(f"{process.name} has not ended")
    return found


def consume_broken(
    tasks: "queue.Queue[T | None]", handle: Callable[[T], object]
) -> list[Exception]:
    """Handle each of `tasks` until there comes None; broken: not if `handle` raises."""
    while (task := tasks.get()) is not None:
        handle(task)
        tasks.task_done()  # never, if handle() has raised
    tasks.task_done()
    return []


def consume_fixed(
    tasks: "queue.Queue[T | None]", handle: Callable[[T], object]
) -> list[Exception]:
    """Handle each of `tasks` until there comes None; return what was raised."""
    errors: list[Exception] = []
    while True:
        task = tasks.get()
        try:
            if task is None:
                return errors
            handle(task)
        except Exception as error:
            errors.append(error)
        finally:
            tasks.task_done()


def never_finished(
    tasks: "queue.Queue[Any]", consumers: "Sequence[Future[Any]]"
) -> int:
    """Return for how many tasks join() waits in vain, because no consumer is left.

    Nobody else may put or get at the same time.
    """
    if not all(consumer.done() for consumer in consumers):
        return 0
    return tasks.unfinished_tasks


def count_off(tasks: "queue.Queue[Any]") -> None:
    """Let join() return, whatever is unfinished."""
    with suppress(ValueError):  # one more than there are
        while True:
            tasks.task_done()


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


@contextmanager
def producer(
    size: int,
) -> Iterator[tuple[BaseProcess, "Queue[bytes]", Connection]]:
    """Run a process that puts an item; give it, its queue and its report.

    If the block does not read the item, it must raise, or nothing ends the process.
    """
    with ctrl_c_later():
        results: Queue[bytes] = multiprocessing.Queue()
    report, reporter = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(
        target=produce,
        args=(results, size, reporter),
        daemon=True,  # or else Ctrl-C just before the block would leave it for ever
    )
    with running([process]), report:
        reporter.close()  # so that the report ends if the process does
        yield process, results, report


def show_processes() -> None:
    """Join a child before its item is read, and after."""
    with producer(SMALL) as (process, _, report):
        if is_stuck(process, report, LIMIT):
            raise SystemExit("a small item was to fit into the pipe")
    print(f"{SMALL // KIB:4} KiB, join, get  the child has ended, its item unread")

    with producer(LARGE) as (process, results, report):
        if not is_stuck(process, report, SHORT_LIMIT):
            raise SystemExit("a large item was to keep the child from its end")
        print(f"{LARGE // KIB:4} KiB, join, get  the child is done, and does not end:")
        print(f"{'':20} it waits for a reader, who waits for its end")
        (item,) = get_then_join(results, 1, [process])
    if len(item) != LARGE or process.exitcode != 0:
        raise SystemExit(f"{len(item)} bytes came, then {process.exitcode}")
    print(f"{'':20} ended by reading")

    with producer(LARGE) as (process, results, _):
        (item,) = get_then_join(results, 1, [process])
    if len(item) != LARGE or process.exitcode != 0:
        raise SystemExit(f"{len(item)} bytes came, then {process.exitcode}")
    print(f"{LARGE // KIB:4} KiB, get, join  the child has ended, its item is here")


def invert_all(consume: Consume, numbers: Sequence[int]) -> tuple[int, int]:
    """Let a thread invert each number, and another wait until all is finished.

    Returns:
        How many tasks join() waited for in vain; how many errors were returned.
    """
    tasks: queue.Queue[int | None] = queue.Queue()
    for number in numbers:
        tasks.put(number)
    with ThreadPoolExecutor(1) as consumers, ThreadPoolExecutor(1) as joiners:
        try:
            consumer = consumers.submit(consume, tasks, lambda number: 1 / number)
            joiner = joiners.submit(tasks.join)
            both: list[Future[Any]] = [consumer, joiner]
            wait(both, LIMIT, FIRST_COMPLETED)
            in_vain = never_finished(tasks, [consumer])
            if joiner.done() == (in_vain > 0):
                raise SystemExit("join() was to return if and only if all is finished")
            tasks.put(None)
            wait([consumer], LIMIT)
            count_off(tasks)
            joiner.result(LIMIT)
        finally:  # once more, for Ctrl-C at any moment: some may not be there yet
            tasks.put(None)
            count_off(tasks)
        errors = [] if consumer.exception() else consumer.result()
    return in_vain, len(errors)


def show_threads() -> None:
    """Wait for tasks one of which fails, with either consumer."""
    in_vain, _ = invert_all(consume_broken, NUMBERS)
    if in_vain != 2:
        raise SystemExit("the task that fails and the next were to stay unfinished")
    print("a task that fails    no task_done(), and no consumer is left:")
    print(f"{'':20} join() waits for ever, for {in_vain} of {len(NUMBERS)} tasks")
    in_vain, n_errors = invert_all(consume_fixed, NUMBERS)
    if (in_vain, n_errors) != (0, 1):
        raise SystemExit("all tasks were to be finished, one with an error")
    print(f"mended               join() returns, and {n_errors} task has failed")


def main() -> None:
    try:
        show_processes()
        show_threads()
    except (TimeoutError, queue.Empty, EOFError) as error:
        raise SystemExit(f"not done in {LIMIT:g} s: {error!r}") from None
    print("before you wait for others, take from them what they have for you")


if __name__ == "__main__":
    main()
