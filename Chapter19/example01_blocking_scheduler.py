# /// script
# dependencies = ["apscheduler>=3.11.3,<4"]
# ///
"""A scheduler that blocks: the main thread waits for due times, a pool runs the jobs.

`BlockingScheduler.start()` returns when the scheduler is shut down. A listener does it
here: when a job is not due again, APScheduler removes it, and an event tells so. The
listener must not wait for the last run, for APScheduler swallows what is raised in a
listener, Ctrl-C too. `run_repeatedly` waits for that run when `start()` has returned.

For a count to be exact, three defaults have to go. They drop a run that is more than a
second late (`misfire_grace_time`), make one run of several that are late (`coalesce`),
and skip one that is due while the last one still runs (`max_instances`). On a busy
machine each of these loses runs. Without them every run is made. Those that are late
follow one another: a pool of one thread keeps their order.

Due times are computed from the first one, so being late does not add up.

Book: Chapter 19, example1.
Try:  --runs 20 --interval 0.01

Output:
    start() blocks this thread
    tick 1
    tick 2
    tick 3
    tick 4
    tick 5
    start() has returned
    the latest was 13.5 ms behind its due time
    5 runs were due, and 5 were made, none of them early
"""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.events import (  # type: ignore[import-untyped]
    EVENT_JOB_ERROR,
    EVENT_JOB_EXECUTED,
    EVENT_JOB_REMOVED,
    JobEvent,
    JobExecutionEvent,
)
from apscheduler.executors.pool import (  # type: ignore[import-untyped]
    ThreadPoolExecutor,
)
from apscheduler.schedulers.blocking import (  # type: ignore[import-untyped]
    BlockingScheduler,
)


def run_repeatedly(
    job: Callable[[], object], interval: float, runs: int
) -> list[datetime]:
    """Run `job` now and each time that an interval is over; return after the last run.

    A run that raises an exception counts. APScheduler logs it and goes on.

    Args:
        job: is called in another thread, one call at a time.
        interval: seconds from one due time to the next.
        runs: how many.

    Returns:
        When the runs were due, in the order in which they were made.

    Raises:
        ValueError: the interval is not positive, or there is no run.
    """
    if not interval > 0 or runs < 1:
        raise ValueError(f"{runs} runs with an interval of {interval:g} s")
    due: list[datetime] = []

    def on_run(event: JobExecutionEvent) -> None:
        due.append(event.scheduled_run_time)

    def on_removed(_: JobEvent) -> None:
        scheduler.shutdown(wait=False)

    pool = ThreadPoolExecutor(max_workers=1)
    scheduler = BlockingScheduler(timezone=UTC, executors={"default": pool})
    scheduler.add_listener(on_run, EVENT_JOB_EXECUTED | EVENT_JOB_ERROR)
    scheduler.add_listener(on_removed, EVENT_JOB_REMOVED)
    start = datetime.now(UTC)
    scheduler.add_job(
        job,
        "interval",
        seconds=interval,
        next_run_time=start,
        end_date=start + timedelta(seconds=(runs - 0.5) * interval),
        misfire_grace_time=None,
        coalesce=False,
        max_instances=runs,
    )
    try:
        scheduler.start()
    finally:
        pool.shutdown()  # waits for runs that are late, after Ctrl-C too
    return due


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0.001 <= number <= 60:
        raise argparse.ArgumentTypeError(f"must be in 0.001 … 60, not {text}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=positive, default=5)
    parser.add_argument("--interval", type=seconds, default=0.1, help="in seconds")
    options = parser.parse_args()
    interval = timedelta(seconds=options.interval)
    ran: list[datetime] = []

    def tick() -> None:
        ran.append(datetime.now(UTC))
        print(f"tick {len(ran)}")

    print("start() blocks this thread")
    due = run_repeatedly(tick, options.interval, options.runs)
    print("start() has returned")
    if due != [due[0] + n * interval for n in range(options.runs)]:
        raise SystemExit(f"one run was to be due each {interval}, not at {due}")
    if len(ran) != options.runs or any(r < d for r, d in zip(ran, due, strict=True)):
        raise SystemExit("each run was to be made, and none before it was due")
    latest = max(r - d for r, d in zip(ran, due, strict=True))
    print(f"the latest was {1e3 * latest.total_seconds():.1f} ms behind its due time")
    print(f"{options.runs} runs were due, and {len(ran)} were made, none of them early")


if __name__ == "__main__":
    main()
