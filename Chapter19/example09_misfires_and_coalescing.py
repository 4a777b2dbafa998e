# /// script
# dependencies = ["apscheduler>=3.11.3,<4"]
# ///
"""Which runs are made of those that were missed, that overlap, that fail.

A scheduler that was off, or busy, finds runs whose due time is over. What becomes of
them is up to two options of the job. `coalesce` makes one run of all that are due at
once, the last of them; no event tells of the others. `misfire_grace_time` drops what is
later than that many seconds, with an event. The defaults, True and one second, drop all
runs here without one being made: for a job that has to be done, set the time to None.

A job that is due while it still runs is skipped (`max_instances`, 1 by default). One
that raises is logged and comes again. One that the pool has got when the scheduler is
shut down is waited for, or goes on by itself with `wait=False`; the pool gets no other.

Nothing here depends on time. Due times are whole days ago, or jobs are told to be due
now; runs wait for events.

Output:
    5 runs, due 10 to 6 days ago  run  too late  never heard of
      the default                   0         1               4
      one second, each              0         5               0
      for ever                      1         0               4
      for ever, each                5         0               0
      7.5 days                      1         0               4
      7.5 days, each                2         3               0
    due while it runs, and again: skipped run run
    raises when run first:        failed run
    wait=True   shutdown is called, the job ends, returns
    wait=False  shutdown is called, returns, the job ends
    what was missed is made up for only if its job says so
"""

import logging
import threading
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from queue import Empty, SimpleQueue
from typing import Any, Self

from apscheduler.events import (  # type: ignore[import-untyped]
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_MAX_INSTANCES,
    EVENT_JOB_MISSED,
    EVENT_JOB_REMOVED,
    JobEvent,
)
from apscheduler.executors.pool import (  # type: ignore[import-untyped]
    ThreadPoolExecutor,
)
from apscheduler.schedulers.background import (  # type: ignore[import-untyped]
    BackgroundScheduler,
)

DAY = timedelta(days=1)
FIRST, MISSED = 10, 5  # the first of five missed runs was due ten days ago
GRACE = 7.5 * DAY  # so three of them are too late, and two are not
LIMIT = 10.0  # seconds for what is bound to come

EVENTS = {
    EVENT_JOB_EXECUTED: "run",
    EVENT_JOB_ERROR: "failed",
    EVENT_JOB_MISSED: "too late",
    EVENT_JOB_MAX_INSTANCES: "skipped",
    EVENT_JOB_REMOVED: "removed",
}

Policy = dict[str, Any]  # arguments of `add_job`


class TellingPool(ThreadPoolExecutor):  # type: ignore[misc]
    """A pool of threads that tells when it is asked to shut down."""

    def __init__(self, n_threads: int) -> None:
        super().__init__(n_threads)
        self.asked = threading.Event()

    def shutdown(self, wait: bool = True) -> None:
        self.asked.set()
        super().shutdown(wait)


class Observed:
    """A scheduler, and what its events tell; for use in a with statement.

    At the end of the block the jobs that the pool has got are waited for, and the
    others are dropped.

    Attributes:
        scheduler: with a pool of two threads.
        events: the id of a job and what happened to it, one of EVENTS.
    """

    def __init__(self) -> None:
        self.events: SimpleQueue[tuple[str, str]] = SimpleQueue()
        self.pool = TellingPool(2)
        self.scheduler = BackgroundScheduler(
            timezone=UTC, executors={"default": self.pool}
        )
        self.scheduler.add_listener(self._hear, sum(EVENTS))

    def __enter__(self) -> Self:
        self.scheduler.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.scheduler.running:
            # What is due must not meet a shutdown: APScheduler's thread would fail.
            self.scheduler.remove_all_jobs()
            self.scheduler.shutdown()
        self.pool.shutdown()

    def _hear(self, event: JobEvent) -> None:
        self.events.put((event.job_id, EVENTS[event.code]))

    def next_event(self) -> str:
        """Return what happens next.

        Raises:
            queue.Empty: nothing does.
        """
        return self.events.get(timeout=LIMIT)[1]

    def make_due(self, job_id: str) -> None:
        """Have a job be due now, once, besides its usual times."""
        self.scheduler.modify_job(job_id, next_run_time=datetime.now(UTC))


def after_absence(policies: Mapping[str, Policy]) -> dict[str, Counter[str]]:
    """Find out what is made of runs that were due while the scheduler was off.

    There were MISSED of them, one a day, the first of them FIRST days ago.

    Args:
        policies: `misfire_grace_time` and `coalesce` of some jobs, by the jobs' names.

    Returns:
        By name, how many runs were made ("run") and how many were "too late".

    Raises:
        queue.Empty: a job was not looked at.
    """
    first = datetime.now(UTC) - FIRST * DAY
    counts = {name: Counter[str]() for name in policies}
    with Observed() as observed:
        for name, policy in policies.items():
            observed.scheduler.add_job(
                int,  # does nothing
                "interval",
                days=1,
                next_run_time=first,
                end_date=first + (MISSED - 0.5) * DAY,
                id=name,
                **policy,
            )
        looked_at = 0
        while looked_at < len(policies):  # each is removed, for it is not due again
            name, what = observed.events.get(timeout=LIMIT)
            counts[name][what] += 1
            looked_at += what == "removed"
    while not observed.events.empty():
        name, what = observed.events.get()
        counts[name][what] += 1
    return counts


def overlapping() -> list[str]:
    """Let a job be due while it still runs, and again afterwards; return the events."""
    began, may_end = threading.Semaphore(0), threading.Event()

    def job() -> None:
        began.release()
        may_end.wait(LIMIT)

    with Observed() as observed:
        try:
            observed.scheduler.add_job(job, "interval", days=1, id="slow")
            observed.make_due("slow")
            if not began.acquire(timeout=LIMIT):
                raise Empty
            observed.make_due("slow")
            events = [observed.next_event()]
        finally:
            may_end.set()
        events.append(observed.next_event())
        observed.make_due("slow")
        return [*events, observed.next_event()]


def failing() -> list[str]:
    """Let a job fail when it is run first, and be due again; return the events."""
    divisors = iter([0, 1])
    with Observed() as observed:
        observed.scheduler.add_job(
            lambda: 1 / next(divisors), "interval", days=1, id="fails once"
        )
        events = []
        for _ in range(2):
            observed.make_due("fails once")
            events.append(observed.next_event())
        return events


def shut_down(wait: bool) -> list[str]:
    """Shut a scheduler down while a job runs; return the steps in their order.

    The job ends when the shutdown has begun; if that does not wait, when it is over.

    Raises:
        queue.Empty: the job was not run.
    """
    steps: list[str] = []
    began, returned = threading.Event(), threading.Event()

    def job() -> None:
        began.set()
        (observed.pool.asked if wait else returned).wait(LIMIT)
        steps.append("the job ends")

    with Observed() as observed:
        try:
            observed.scheduler.add_job(job, "interval", days=1, id="long")
            observed.make_due("long")
            if not began.wait(LIMIT):
                raise Empty
            steps.append("shutdown is called")
            observed.scheduler.shutdown(wait)
            steps.append("returns")
        finally:
            returned.set()
    return steps


def main() -> None:
    logging.getLogger("apscheduler").addHandler(logging.NullHandler())  # events tell
    late = int(GRACE.total_seconds())
    policies: dict[str, Policy] = {
        "the default": {},
        "one second, each": {"coalesce": False},
        "for ever": {"misfire_grace_time": None},
        "for ever, each": {"misfire_grace_time": None, "coalesce": False},
        "7.5 days": {"misfire_grace_time": late},
        "7.5 days, each": {"misfire_grace_time": late, "coalesce": False},
    }
    try:
        counts = after_absence(policies)
        overlap, failure = overlapping(), failing()
        steps = shut_down(True), shut_down(False)
    except Empty:
        raise SystemExit("something was to happen, and did not") from None

    last = FIRST - MISSED + 1
    print(
        f"{MISSED} runs, due {FIRST} to {last} days ago  run  too late  never heard of"
    )
    found = []
    for name, count in counts.items():
        run, too_late = count["run"], count["too late"]
        print(f"  {name:26}{run:5}{too_late:10}{MISSED - run - too_late:16}")
        found.append((run, too_late))
    if found != [(0, 1), (0, 5), (1, 0), (5, 0), (1, 0), (2, 3)]:
        raise SystemExit(f"other runs were to be made, or too late, than {found}")
    print("due while it runs, and again:", *overlap)
    if overlap != ["skipped", "run", "run"]:
        raise SystemExit("the second run was to be skipped, and no other")
    print("raises when run first:       ", *failure)
    if failure != ["failed", "run"]:
        raise SystemExit("a failure was to be told, and to end nothing")
    for wait, happened in zip((True, False), steps, strict=True):
        print(f"wait={wait!s:5} ", ", ".join(happened))
    begin, end, leave = "shutdown is called", "the job ends", "returns"
    if steps != ([begin, end, leave], [begin, leave, end]):
        raise SystemExit("the shutdown was to wait for the job, and then not to")
    print("what was missed is made up for only if its job says so")


if __name__ == "__main__":
    main()
