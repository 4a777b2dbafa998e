# /// script
# dependencies = ["apscheduler>=3.11.3,<4"]
# ///
"""A scheduler in the background: main goes on, and may add, pause and remove jobs.

`BackgroundScheduler.start()` returns at once. One thread waits for due times, a pool
runs what is due, and main has something else to do. That the three go on at the same
time is shown by a barrier: two jobs and main meet there, or none passes.

The scheduler's thread is a daemon. If main ends without a shutdown, that thread may
still find jobs due, while the pool takes no more, and each is logged as an error. So
the scheduler is shut down in order: that waits for the jobs that the pool has got, and
drops those that are due later.

No due time is waited for here, for all are past: a job without one is due at once, and
the others were due on days of 2024. example10 builds a scheduler from scratch.

Book: Chapter 19, example2.

Output:
    two jobs and main have met: three threads at the same time
    due:                    a b c d
    b removed, c paused:    a d
    c resumed:              c
    main goes on while jobs run, and decides which do: 5 of 6 were run, each once
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from queue import Empty, SimpleQueue

from apscheduler.executors.pool import (  # type: ignore[import-untyped]
    ThreadPoolExecutor,
)
from apscheduler.schedulers.background import (  # type: ignore[import-untyped]
    BackgroundScheduler,
)

LIMIT = 10.0  # seconds for what is bound to come


@contextmanager
def scheduler_for_block(n_threads: int) -> Iterator[BackgroundScheduler]:
    """Give a scheduler with a pool of threads; no run is dropped for being late.

    It is paused until its `resume` is called. At the end of the block the jobs that the
    pool has got are waited for, and the others are dropped.
    """
    scheduler = BackgroundScheduler(
        timezone=UTC,
        executors={"default": ThreadPoolExecutor(n_threads)},
        job_defaults={"misfire_grace_time": None},
    )
    try:
        scheduler.start(paused=True)
        yield scheduler
    finally:
        if scheduler.running:
            # What is due must not meet a shutdown: APScheduler's thread would fail.
            scheduler.remove_all_jobs()
            scheduler.shutdown()


def meet(n_jobs: int) -> set[str]:
    """Let some jobs and this thread wait for each other.

    Returns:
        The names of the jobs' threads.

    Raises:
        threading.BrokenBarrierError: they did not all run at the same time.
    """
    names = set()
    barrier = threading.Barrier(n_jobs + 1, timeout=LIMIT)

    def job() -> None:
        names.add(threading.current_thread().name)
        with suppress(threading.BrokenBarrierError):  # this thread is told of it, too
            barrier.wait()

    with scheduler_for_block(n_jobs) as scheduler:
        try:
            scheduler.resume()
            for _ in range(n_jobs):
                scheduler.add_job(job)
            barrier.wait()
        except BaseException:  # Ctrl-C, too: nobody is to wait for this thread
            barrier.abort()
            raise
    return names


def control() -> tuple[list[str], list[str]]:
    """Remove one of four jobs that are due, and pause another one for a while.

    Returns:
        Which were run before that one was resumed, and which after.

    Raises:
        queue.Empty: one was not run.
    """
    runs: SimpleQueue[str] = SimpleQueue()
    with scheduler_for_block(1) as scheduler:
        for day, name in enumerate("abcd", start=1):
            date = datetime(2024, 1, day, tzinfo=UTC)
            scheduler.add_job(runs.put, "date", run_date=date, args=[name], id=name)
        scheduler.remove_job("b")
        scheduler.pause_job("c")
        scheduler.resume()
        before = [runs.get(timeout=LIMIT)]
        while before[-1] != "d":  # the last one, by its date: c would have come earlier
            before.append(runs.get(timeout=LIMIT))
        scheduler.resume_job("c")
        after = [runs.get(timeout=LIMIT)]
    while not runs.empty():
        after.append(runs.get())
    return before, after


def main() -> None:
    try:
        names = meet(2)
        print("two jobs and main have met: three threads at the same time")
        before, after = control()
    except threading.BrokenBarrierError:
        raise SystemExit("the jobs were to run while main goes on") from None
    except Empty:
        raise SystemExit("a job that is due was to be run") from None
    if len(names) != 2 or threading.current_thread().name in names:
        raise SystemExit(f"each job was to have a thread of its own, not {names}")
    print("due:                    a b c d")
    print("b removed, c paused:   ", *before)
    print("c resumed:             ", *after)
    if (before, after) != (["a", "d"], ["c"]):
        raise SystemExit("b was to be run never, and c last")
    print(
        "main goes on while jobs run, and decides which do: 5 of 6 were run, each once"
    )


if __name__ == "__main__":
    main()
