# /// script
# dependencies = ["apscheduler>=3.11.3,<4", "sqlalchemy>=2.0.36"]
# ///
"""A scheduler is killed and started anew: what its job store remembers, and what not.

With a job store on disk the jobs are there again after a crash, and with
`misfire_grace_time=None` those that were due meanwhile are run. But the store says when
a job is due, not whether it was done. APScheduler hands a job to a thread, and then
stores when it is due again. If the process is killed before that, a run that was made
is made again; if it is killed later, while the job runs or waits for a thread, the run
is lost. Here each run pays an order, and the order is paid 0, 1 or 2 times.

The mend is a job that pays what is still open, and marks it as paid in the same
transaction (it is idempotent). However often it is run, nothing is paid twice; and as
it is made due at each start, nothing is lost. The scheduler only decides when. (To pay
by way of another system takes a key, by which that system knows a repeated request.)

Even an orderly shutdown may lose a run: APScheduler 3.11 looks for due jobs once more
after its pool has ended. `ClosingStore` has none then.

A job is stored as the name of its function, `module:function`. If that cannot be
imported after the restart, the job is deleted.

Output:
    killed                 job that pays       job that pays what is open
    before it is due       paid 1 times        paid 1 times
    while it runs          paid 0 times        paid 1 times
    before that is stored  paid 2 times        paid 1 times
    a job store remembers when; what was done stands with what it was done to
"""

import multiprocessing
import os
import signal
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from apscheduler.events import (  # type: ignore[import-untyped]
    EVENT_JOB_EXECUTED,
    EVENT_JOB_SUBMITTED,
)
from apscheduler.jobstores.sqlalchemy import (  # type: ignore[import-untyped]
    SQLAlchemyJobStore,
)
from apscheduler.schedulers.background import (  # type: ignore[import-untyped]
    BackgroundScheduler,
)
from sqlalchemy import NullPool, create_engine

LIMIT = 60.0  # seconds for what is bound to come
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # on Windows that kills, too

BEFORE = "before it is due"
DURING = "while it runs"
AFTER = "before that is stored"
JOBS, ORDERS = "jobs.sqlite", "orders.sqlite"
MOMENTS = (BEFORE, DURING, AFTER)


class ClosingStore(SQLAlchemyJobStore):  # type: ignore[misc]
    """Jobs in a SQLite file; after `shutdown` none is due any more.

    Otherwise a scheduler that is shut down could find one that it cannot run, and store
    it as if it had.

    Args:
        path: of the file, which is made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        # Without a pool no connection is left open, nor used by two threads.
        super().__init__(engine=create_engine(f"sqlite:///{path}", poolclass=NullPool))
        self._closed = False

    def start(self, scheduler: Any, alias: str) -> None:
        self._closed = False
        super().start(scheduler, alias)

    def shutdown(self) -> None:
        self._closed = True
        super().shutdown()

    def get_due_jobs(self, now: datetime) -> list[Any]:
        return [] if self._closed else super().get_due_jobs(now)

    def get_next_run_time(self) -> datetime | None:
        return None if self._closed else super().get_next_run_time()


def scheduler_on(store: ClosingStore) -> BackgroundScheduler:
    """Return a scheduler of the jobs in a store, which are run however late."""
    return BackgroundScheduler(
        timezone=UTC,
        jobstores={"default": store},
        job_defaults={"misfire_grace_time": None},
    )


def pay_orders(orders: Path) -> None:
    """Pay all orders in a database, all or none: to be run once."""
    with closing(sqlite3.connect(orders, timeout=LIMIT)) as connection, connection:
        connection.execute("UPDATE orders SET paid = paid + 1")


def pay_open_orders(orders: Path) -> None:
    """Pay the orders that are not paid, all or none: may be run at any time."""
    with closing(sqlite3.connect(orders, timeout=LIMIT)) as connection, connection:
        connection.execute("UPDATE orders SET paid = paid + 1 WHERE paid = 0")


Job = Callable[[Path], None]


def make_orders(folder: Path) -> None:
    """Make a database of one order, which is paid 0 times."""
    with closing(sqlite3.connect(folder / ORDERS)) as connection, connection:
        connection.execute("CREATE TABLE orders (paid INTEGER)")
        connection.execute("INSERT INTO orders VALUES (0)")


def times_paid(folder: Path) -> int:
    """Return how often the order was paid."""
    with closing(sqlite3.connect(folder / ORDERS)) as connection:
        [[paid]] = connection.execute("SELECT paid FROM orders")
    assert isinstance(paid, int)
    return paid


def live(folder: Path, job: Job | None) -> None:
    """Start a scheduler, let it do all that is due, and shut it down.

    Args:
        job: is added before, to be due at once, even if it is in the store already;
            None: what is in the store has to do.

    Raises:
        TimeoutError: what is due was not run.
    """
    handed_over = threading.Event()
    store = ClosingStore(folder / JOBS)
    scheduler = scheduler_on(store)
    scheduler.add_listener(lambda _: handed_over.set(), EVENT_JOB_SUBMITTED)
    scheduler.start(paused=True)
    if job:
        add(scheduler, job, folder)
    some_are_due = bool(store.get_due_jobs(datetime.now(UTC)))
    scheduler.resume()
    if some_are_due and not handed_over.wait(LIMIT):
        raise TimeoutError("the scheduler was to run what is due")
    scheduler.shutdown()


def live_until(moment: str, folder: Path, job: Job) -> None:
    """Start a scheduler, add a job that is due at once, and kill this process.

    Args:
        moment: one of MOMENTS.
    """
    handed_over, updated, done, never = (threading.Event() for _ in range(4))

    class StuckConnection(sqlite3.Connection):
        """Does what is asked, but does not get to the commit."""

        def __exit__(self, *_: object) -> Literal[False]:
            updated.set()
            never.wait(LIMIT)
            return False

    store = ClosingStore(folder / JOBS)
    scheduler = scheduler_on(store)
    # This event comes after the store has been told that the job is not due again.
    scheduler.add_listener(lambda _: handed_over.set(), EVENT_JOB_SUBMITTED)
    scheduler.add_listener(lambda _: done.set(), EVENT_JOB_EXECUTED)
    scheduler.start(paused=True)
    add(scheduler, job, folder)
    if moment == DURING:
        connect = partial(sqlite3.connect, factory=StuckConnection)
        patch.object(sqlite3, "connect", connect).start()
    if moment == AFTER:
        store.remove_job = lambda _: never.wait(LIMIT)
    if moment != BEFORE:
        scheduler.resume()
    for event in {BEFORE: [], DURING: [handed_over, updated], AFTER: [done]}[moment]:
        event.wait(LIMIT)
    os.kill(os.getpid(), KILL)  # nothing is cleaned up, nothing is written


def add(scheduler: BackgroundScheduler, job: Job, folder: Path) -> None:
    """Have a job be due now, and not again. If it is in the store, it is replaced."""
    scheduler.add_job(job, args=[folder / ORDERS], id="pay", replace_existing=True)


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


def run_processes(*calls: Callable[[], object]) -> list[int | None]:
    """Make each call in a process of its own, all at once; return their exit codes."""
    processes: list[multiprocessing.Process] = []
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    try:
        with ctrl_c_later():
            for call in calls:
                process = multiprocessing.Process(target=call)
                process.start()
                processes.append(process)
        for started in processes:
            started.join(LIMIT)
        return [started.exitcode for started in processes]
    finally:
        for started in processes:
            started.kill()
            started.join()


def live_twice(folder: Path) -> list[list[int]]:
    """Let both programs be killed at each moment, and start them anew.

    Returns:
        For each moment, how often the order was paid: by the job that pays, which is
        not added again, and by the one that pays what is open.

    Raises:
        ChildProcessError: a process has ended otherwise than it was to.
    """
    cases = {
        (moment, job): folder / f"{number}-{job.__name__}"
        for number, moment in enumerate(MOMENTS)
        for job in (pay_orders, pay_open_orders)
    }
    first, second = [], []
    for (moment, job), own in cases.items():
        own.mkdir()
        make_orders(own)
        first.append(partial(live_until, moment, own, job))
        second.append(partial(live, own, job if job is pay_open_orders else None))
    if {*run_processes(*first)} - {KILL, -KILL}:
        raise ChildProcessError("each scheduler was to be killed")
    if {*run_processes(partial(call_all, second))} != {0}:
        raise ChildProcessError("each scheduler was to be shut down in order")
    paid = iter(map(times_paid, cases.values()))
    return [[next(paid), next(paid)] for _ in MOMENTS]


def call_all(calls: Iterable[Callable[[], None]]) -> None:
    for call in calls:
        call()


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        try:
            paid = live_twice(Path(name))
        except ChildProcessError as error:
            raise SystemExit(str(error)) from None
    print("killed                 job that pays       job that pays what is open")
    for moment, (once, looks) in zip(MOMENTS, paid, strict=True):
        print(f"{moment:21}  paid {once} times        paid {looks} times")
    if paid != [[1, 1], [0, 1], [2, 1]]:
        raise SystemExit("it was to be paid 1, 0 and 2 times, and 1 time each")
    print("a job store remembers when; what was done stands with what it was done to")


if __name__ == "__main__":
    main()
