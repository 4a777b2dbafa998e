# /// script
# dependencies = ["apscheduler>=3.11.3,<4"]
# ///
"""Jobs in processes leave the scheduler free, but some fail without any event.

In a pool of processes a job computes without the GIL that the scheduler's threads need.
Its function and arguments are pickled, its result or exception comes back with an
event. APScheduler starts the processes by spawn: at that time the program has threads,
and a fork would copy one of them only, with the locks that others hold.

A job that ends its process (`os._exit` here, as if memory had run out) has neither a
result nor an exception, and there is no event. Nor is there one for a job that cannot
be pickled. APScheduler only logs both. Who waits for their events waits for ever, so
`LostJobs` listens to the log as well. The broken pool is replaced when the next job is
due; whatever else was in it is lost, too.

Book: Chapter 19, example3.

Output:
     1229 primes below 10,000, counted by another process
     2262 primes below 20,000, counted by another process
     3245 primes below 30,000, counted by another process
     4203 primes below 40,000, counted by another process
    a lambda cannot be pickled: only the log tells
    a job ends its process: only the log tells, of BrokenProcessPool
    the next job has a new pool
    7 jobs, and each one's end is known: 5 by an event, 2 by the log
"""

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from datetime import UTC
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from typing import Any

from apscheduler.events import (  # type: ignore[import-untyped]
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    JobExecutionEvent,
)
from apscheduler.executors.pool import (  # type: ignore[import-untyped]
    ProcessPoolExecutor,
)
from apscheduler.schedulers.background import (  # type: ignore[import-untyped]
    BackgroundScheduler,
)

PRIMES = {10_000: 1229, 20_000: 2262, 30_000: 3245, 40_000: 4203}  # below, by limit
IGNORE_CTRL_C = (signal.SIGINT, signal.SIG_IGN)
ENDS = EVENT_JOB_EXECUTED | EVENT_JOB_ERROR
LIMIT = 60.0  # seconds for what is bound to come

# Called with a job's id and its result or exception.
Report = Callable[[str, object], object]


def count_primes(limit: int) -> tuple[int, int]:
    """Return how many primes there are below `limit`, and the process that counted."""
    primes = sum(
        all(n % divisor for divisor in range(2, math.isqrt(n) + 1))
        for n in range(2, limit)
    )
    return primes, os.getpid()


def end_process() -> None:
    """End this process without a word, as the system does when memory runs out."""
    os._exit(1)


class LostJobs(logging.Handler):
    """Tells of jobs that no event tells of: not pickled, or lost with their process.

    It belongs to the logger of an executor, `apscheduler.executors.<alias>`.

    Args:
        report: is called in a thread of the pool.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(logging.ERROR)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        match record.args, record.exc_info:
            case (str(job_id),), (_, BaseException() as error, _):
                self._report(job_id, error)


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
def scheduler_with_processes(
    n_workers: int, report: Report
) -> Iterator[BackgroundScheduler]:
    """Give a scheduler whose jobs run in processes, and report how each job ends.

    At the end of the block the jobs that the pool has got are waited for, and the
    others are dropped.
    Ctrl-C is left to this process, and waits while the pool starts or ends.

    Args:
        n_workers: processes. If jobs may end theirs, have but one on CPython 3.11. Its
            pool forgets a second that is being started while it breaks, and the
            program waits for that process at its end, for ever.
    """

    def on_end(event: JobExecutionEvent) -> None:
        failed = event.exception is not None
        report(event.job_id, event.exception if failed else event.retval)

    def end() -> None:
        with ctrl_c_later():
            scheduler.remove_all_jobs()
            scheduler.shutdown()
            logger.removeHandler(lost_jobs)

    logger = logging.getLogger("apscheduler.executors.default")
    lost_jobs = LostJobs(report)
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():  # the scheduler's thread starts the processes
            options = {"initializer": signal.signal, "initargs": IGNORE_CTRL_C}
            scheduler = BackgroundScheduler(
                timezone=UTC,
                executors={"default": ProcessPoolExecutor(n_workers, options)},
                job_defaults={"misfire_grace_time": None},
            )
            scheduler.add_listener(on_end, ENDS)
            logger.addHandler(lost_jobs)
            scheduler.start()
            stack.callback(end)
        yield scheduler


def main() -> None:
    ends: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    heard: set[str] = set()
    with scheduler_with_processes(1, lambda *end: ends.put(end)) as scheduler:

        def end_of(job: Callable[..., object], name: str) -> object:
            """Have a job run, and return its result or exception."""
            scheduler.add_job(job, id=name)
            return ends.get(timeout=LIMIT)[1]

        scheduler.add_listener(lambda event: heard.add(event.job_id), ENDS)
        for limit in PRIMES:
            scheduler.add_job(count_primes, args=[limit], id=str(limit))
        try:
            counted = dict(ends.get(timeout=LIMIT) for _ in PRIMES)
            unsendable = end_of(lambda: None, "a lambda")
            lost = end_of(end_process, "end_process")
            again = end_of(os.getpid, "os.getpid")
        except Empty:
            raise SystemExit("the end of a job was to be reported") from None
    for limit, expected in PRIMES.items():
        primes, pid = counted[str(limit)]
        print(f"{primes:5} primes below {limit:6,}, counted by another process")
        if primes != expected or pid == os.getpid():
            raise SystemExit(f"another process was to count {expected}")
    print("a lambda cannot be pickled: only the log tells")
    if not isinstance(unsendable, Exception):
        raise SystemExit(f"a lambda cannot be sent to a process, but gave {unsendable}")
    print(f"a job ends its process: only the log tells, of {type(lost).__name__}")
    if not isinstance(lost, BrokenProcessPool):
        raise SystemExit(f"the pool was to be broken, not {lost}")
    print("the next job has a new pool")
    if not isinstance(again, int) or again == os.getpid():
        raise SystemExit(f"another process was to tell its id, not {again}")
    if heard != {*counted, "os.getpid"}:
        raise SystemExit(f"no event was to tell of the other two, but there is {heard}")
    n_events = len(heard)
    print(
        f"{n_events + 2} jobs, and each one's end is known: "
        f"{n_events} by an event, 2 by the log"
    )


if __name__ == "__main__":
    main()
