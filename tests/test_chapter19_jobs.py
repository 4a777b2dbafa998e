"""Chapter 19, jobs that run on time: the parts a reader would copy."""

import logging
import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any
from zoneinfo import ZoneInfo

import example01_blocking_scheduler as blocking
import example02_background_scheduler as background
import example03_process_pool_jobs as in_processes
import example04_cron_triggers as cron
import example08_jobs_that_survive_a_restart as survive
import example09_misfires_and_coalescing as misfires
import example10_scheduler_from_scratch as scratch
import pytest
from apscheduler.events import EVENT_JOB_SUBMITTED  # type: ignore[import-untyped]
from apscheduler.schedulers.background import (  # type: ignore[import-untyped]
    BackgroundScheduler,
)
from apscheduler.schedulers.blocking import (  # type: ignore[import-untyped]
    BlockingScheduler,
)
from apscheduler.triggers.cron import CronTrigger  # type: ignore[import-untyped]
from apscheduler.triggers.interval import (  # type: ignore[import-untyped]
    IntervalTrigger,
)
from child_tasks import double, fail
from example10_scheduler_from_scratch import Clock, Scheduler, VirtualClock
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

LIMIT = 30.0  # seconds that a test waits for what must come


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Wait for all processes to end; a pool that is broken ends its own by itself."""
    yield
    until = time.monotonic() + LIMIT
    while multiprocessing.active_children():
        assert time.monotonic() < until
        time.sleep(0.01)


BERLIN = ZoneInfo("Europe/Berlin")
DAY = timedelta(days=1)
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)

# -- example01


def test_a_job_is_run_as_often_as_asked_for_and_is_due_at_fixed_times() -> None:
    starts = []
    with no_thread_is_left():
        due = blocking.run_repeatedly(lambda: starts.append(datetime.now(UTC)), 0.02, 7)
    assert due == [due[0] + n * timedelta(seconds=0.02) for n in range(7)]
    assert all(start >= d for start, d in zip(starts, due, strict=True))


def test_runs_that_are_late_are_all_made_one_at_a_time() -> None:
    inside, most, runs = 0, 0, 0

    def slow() -> None:
        nonlocal inside, most, runs
        inside += 1
        most = max(most, inside)
        time.sleep(0.005)  # five times the interval
        inside -= 1
        runs += 1

    due = blocking.run_repeatedly(slow, 0.001, 20)
    assert (runs, most, len(set(due))) == (20, 1, 20)
    assert due == sorted(due)


def test_a_run_that_is_more_than_a_second_late_is_made() -> None:
    delays = iter([1.1, 0, 0])
    due = blocking.run_repeatedly(lambda: time.sleep(next(delays)), 0.001, 3)
    assert (len(due), list(delays)) == (3, [])


def test_runs_are_all_made_if_the_scheduler_itself_is_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process_jobs = BlockingScheduler._process_jobs

    def late(self: Any) -> Any:
        time.sleep(0.01)  # so ten runs are due at once
        return process_jobs(self)

    monkeypatch.setattr(BlockingScheduler, "_process_jobs", late)
    assert len(set(blocking.run_repeatedly(int, 0.001, 10))) == 10


def test_a_job_is_run_in_another_thread_while_start_blocks_this_one() -> None:
    threads: set[threading.Thread] = set()
    blocking.run_repeatedly(lambda: threads.add(threading.current_thread()), 0.001, 2)
    assert threads
    assert threading.current_thread() not in threads


def test_a_run_that_fails_counts(caplog: pytest.LogCaptureFixture) -> None:
    runs = 0

    def fail_at_first() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise ArithmeticError("on purpose")

    assert len(blocking.run_repeatedly(fail_at_first, 0.001, 3)) == runs == 3
    assert "ArithmeticError: on purpose" in caplog.text


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_a_schedule_needs_a_positive_interval(interval: float) -> None:
    with pytest.raises(ValueError, match="an interval of"):
        blocking.run_repeatedly(print, interval, 1)


@pytest.mark.parametrize("runs", [0, -1])
def test_a_schedule_needs_a_run(runs: int) -> None:
    with pytest.raises(ValueError, match=f"{runs} runs"):
        blocking.run_repeatedly(print, 1, runs)


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("runs", "where"), [(2, {"_main_loop", "wait"}), (1, {"shutdown", "join"})]
)
def test_ctrl_c_ends_a_blocking_scheduler(
    no_collections: None, runs: int, where: set[str]
) -> None:
    """It comes while the scheduler waits for a due time, or for the last run."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("needs the main thread")
    main = threading.main_thread().ident
    assert main is not None
    before = set(threading.enumerate())
    raised = False  # no Event: another signal may come while one sets it

    def interrupt() -> None:
        while not raised:
            signal.pthread_kill(main, signal.SIGINT)
            time.sleep(0.001)

    def on_signal(_: int, frame: FrameType | None) -> None:
        nonlocal raised
        functions = {frame.f_code.co_name for frame, _ in traceback.walk_stack(frame)}
        if raised or "submit_job" in functions:  # where APScheduler would swallow it
            return
        if where <= functions:
            raised = True
            raise KeyboardInterrupt

    handler = signal.signal(signal.SIGINT, on_signal)
    try:
        with pytest.raises(KeyboardInterrupt):
            blocking.run_repeatedly(interrupt, 60, runs)
        for thread in set(threading.enumerate()) - before:
            thread.join(LIMIT)
            assert not thread.is_alive()
    finally:
        signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize("runs", ["0", "-1", "some"])
def test_bad_numbers_of_runs_are_named(
    complaint: Callable[..., str], runs: str
) -> None:
    assert "--runs" in complaint(blocking, f"--runs={runs}")


@pytest.mark.parametrize("interval", ["0", "-1", "nan", "inf", "61", "short"])
def test_bad_intervals_are_named(complaint: Callable[..., str], interval: str) -> None:
    assert "--interval" in complaint(blocking, f"--interval={interval}")


def test_blocking_counts_what_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(blocking, monkeypatch, "--runs", 3, "--interval", "0.001")
    assert capsys.readouterr().out.count("tick") == 3


def test_blocking_says_if_a_run_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "run_repeatedly", lambda *_: [LONG_AGO] * 5)
    with pytest.raises(SystemExit, match="one run was to be due each"):
        run_main(blocking, monkeypatch)
    due = [LONG_AGO + n * timedelta(seconds=0.1) for n in range(5)]
    monkeypatch.setattr(blocking, "run_repeatedly", lambda *_: due)
    with pytest.raises(SystemExit, match="each run was to be made"):
        run_main(blocking, monkeypatch)


# -- example02


@pytest.mark.parametrize("n_jobs", [1, 2, 5])
def test_jobs_and_main_run_at_the_same_time(n_jobs: int) -> None:
    with no_thread_is_left():
        assert len(background.meet(n_jobs)) == n_jobs


def test_jobs_do_not_wait_for_a_main_thread_that_is_interrupted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add = BackgroundScheduler.add_job
    began = threading.Event()

    def add_first(self: Any, job: Callable[[], object]) -> None:
        if began.is_set():
            raise KeyboardInterrupt

        def telling_job() -> None:
            began.set()
            job()

        add(self, telling_job)
        assert began.wait(LIMIT)

    monkeypatch.setattr(BackgroundScheduler, "add_job", add_first)
    monkeypatch.setattr(background, "LIMIT", LIMIT)
    start = time.monotonic()
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        background.meet(2)
    assert time.monotonic() - start < LIMIT
    assert not caplog.text  # of failed jobs


def test_jobs_are_paused_resumed_and_removed() -> None:
    for _ in range(20):  # a removal may not meet the shutdown
        with no_thread_is_left():
            assert background.control() == (["a", "d"], ["c"])


def test_the_end_of_the_block_does_not_meet_a_removal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """APScheduler's thread would fail if the shutdown began just before a removal."""
    remove = BackgroundScheduler.remove_job

    def remove_later(self: Any, *arguments: Any) -> None:
        end = time.monotonic() + 0.2
        while self.running and time.monotonic() < end:
            time.sleep(0.001)
        remove(self, *arguments)

    monkeypatch.setattr(BackgroundScheduler, "remove_job", remove_later)
    background.meet(1)


def test_the_end_of_the_block_waits_for_what_the_pool_has_and_drops_the_rest() -> None:
    began, may_end = threading.Event(), threading.Event()
    steps = []

    def job() -> None:
        began.set()
        assert may_end.wait(LIMIT)
        steps.append("job")

    with (
        no_thread_is_left(),
        ThreadPoolExecutor(1) as pool,
        background.scheduler_for_block(1) as scheduler,
    ):
        scheduler.resume()
        scheduler.add_job(job)
        assert began.wait(LIMIT)
        handed_over: SimpleQueue[str] = SimpleQueue()
        scheduler.add_listener(
            lambda event: handed_over.put(event.job_id), EVENT_JOB_SUBMITTED
        )
        scheduler.add_job(steps.append, args=["waits for a thread"], id="second")
        while handed_over.get(timeout=LIMIT) != "second":
            pass
        scheduler.add_job(steps.append, "interval", hours=1, args=["later"])
        pool.submit(may_end.set)
    assert steps == ["job", "waits for a thread"]


def test_the_end_of_the_block_comes_after_an_exception_too() -> None:
    with (
        no_thread_is_left(),
        pytest.raises(ArithmeticError),
        background.scheduler_for_block(1),
    ):
        raise ArithmeticError


def test_background_says_if_a_job_does_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "LIMIT", 0.01)
    monkeypatch.setattr(BackgroundScheduler, "resume", lambda _: None)
    with pytest.raises(SystemExit, match="to run while main goes on"):
        run_main(background, monkeypatch)


# -- example03


@contextmanager
def ends_of_jobs() -> Iterator[tuple[Any, SimpleQueue[tuple[str, Any]]]]:
    """Give a scheduler with one process, and what it reports."""
    ends: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    logger = logging.getLogger("apscheduler.executors.default")
    handlers = list(logger.handlers)
    with no_thread_is_left():
        with in_processes.scheduler_with_processes(
            1, lambda *end: ends.put(end)
        ) as scheduler:
            yield scheduler, ends
        assert logger.handlers == handlers
        assert ends.empty()
    assert not multiprocessing.active_children()


def test_results_and_exceptions_come_from_a_process() -> None:
    with ends_of_jobs() as (scheduler, ends):
        scheduler.add_job(double, args=[21], id="result")
        assert ends.get(timeout=LIMIT) == ("result", 42)
        scheduler.add_job(double, "date", run_date=LONG_AGO, args=[0], id="false")
        assert ends.get(timeout=LIMIT) == ("false", 0)
        scheduler.add_job(fail, id="exception")
        name, error = ends.get(timeout=LIMIT)
        assert (name, type(error)) == ("exception", ValueError)
        scheduler.add_job(in_processes.count_primes, args=[100], id="primes")
        _, (primes, pid) = ends.get(timeout=LIMIT)
        assert primes == 25
        assert pid != os.getpid()


def test_a_job_that_is_lost_is_reported_and_the_next_one_run() -> None:
    with ends_of_jobs() as (scheduler, ends):
        scheduler.add_job(in_processes.end_process, id="lost")
        name, error = ends.get(timeout=LIMIT)
        assert (name, type(error)) == ("lost", BrokenProcessPool)
        scheduler.add_job(lambda: None, id="a lambda")
        name, error = ends.get(timeout=LIMIT)
        assert name == "a lambda"
        assert "cannot be serialized" in str(error)
        scheduler.add_job(double, args=[2], id="next")
        assert ends.get(timeout=LIMIT) == ("next", 4)


def test_without_the_log_nothing_is_heard_of_a_lost_job(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard = threading.Event()
    monkeypatch.setattr(in_processes.LostJobs, "emit", lambda *_: heard.set())
    with ends_of_jobs() as (scheduler, _):
        scheduler.add_job(in_processes.end_process)
        assert heard.wait(LIMIT)


def test_only_lost_jobs_are_taken_from_the_log() -> None:
    reports: list[tuple[str, object]] = []
    handler = in_processes.LostJobs(lambda *report: reports.append(report))
    logger = logging.Logger("of a test")
    logger.addHandler(handler)
    error = ArithmeticError()
    logger.error("no exception %s", "job")
    logger.error("not a job: %d", 3, exc_info=error)
    logger.error("no arguments", exc_info=error)
    logger.warning("a warning %s", "job", exc_info=error)
    assert reports == []
    logger.error("lost %s", "job", exc_info=error)
    assert reports == [("job", error)]


@pytest.mark.parametrize(
    ("changed", "to", "message"),
    [
        ("PRIMES", {10: 5}, "another process was to count 5"),
        ("end_process", os.getpid, "the pool was to be broken"),
    ],
)
def test_processes_say_what_is_not_as_it_should_be(
    monkeypatch: pytest.MonkeyPatch, changed: str, to: object, message: str
) -> None:
    monkeypatch.setattr(in_processes, changed, to)
    with pytest.raises(SystemExit, match=message):
        run_main(in_processes, monkeypatch)


# -- example04


def matches(
    local: datetime, minutes: set[int], hours: set[int], days: set[int]
) -> bool:
    return local.minute in minutes and local.hour in hours and local.weekday() in days


@settings(max_examples=30)
@given(
    st.dates(date(2020, 1, 1), date(2030, 12, 31)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"]),
    st.sets(st.integers(0, 59), min_size=1, max_size=4),
    st.sets(st.integers(0, 23), min_size=1, max_size=6),
    st.sets(st.integers(0, 6), min_size=3),
)
def test_cron_fires_in_each_minute_that_matches_and_in_no_other(
    day: date, name: str, minutes: set[int], hours: set[int], days: set[int]
) -> None:
    zone = ZoneInfo(name)
    start = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
    end = start + 2 * DAY
    # An hour that is left out is another matter, see below.
    offset = start.astimezone(zone).utcoffset()
    later = end.astimezone(zone).utcoffset()
    assert offset is not None
    assert later is not None
    assume(later <= offset)
    trigger = CronTrigger(
        minute=",".join(map(str, minutes)),
        hour=",".join(map(str, hours)),
        day_of_week=",".join(map(str, days)),
        timezone=zone,
    )
    each_minute = (start + n * timedelta(minutes=1) for n in range(2 * 24 * 60))
    assert cron.fire_times(trigger, start, end) == [
        minute
        for minute in each_minute
        if matches(minute.astimezone(zone), minutes, hours, days)
    ]


@pytest.mark.parametrize(
    ("zone", "start", "due", "comes"),
    [
        ("Europe/Berlin", datetime(2025, 3, 30), "30 2", ["03:30"]),
        ("America/New_York", datetime(2025, 3, 9), "30 2", ["03:30"]),
        ("America/Havana", datetime(2025, 3, 8, 12), "30 0", []),
        ("Europe/Berlin", datetime(2025, 3, 30), "*/15 2", ["03:00"]),
        ("Europe/Berlin", datetime(2025, 10, 26), "30 2", ["02:30", "02:30"]),
        ("America/New_York", datetime(2025, 11, 2), "30 1", ["01:30", "01:30"]),
        ("Europe/Berlin", datetime(2025, 3, 30), "0 13", ["13:00"]),
    ],
)
def test_what_is_due_in_the_hour_of_the_change(
    zone: str, start: datetime, due: str, comes: list[str]
) -> None:
    where = ZoneInfo(zone)
    start = start.replace(tzinfo=where)
    trigger = CronTrigger.from_crontab(f"{due} * * *", where)
    times = cron.fire_times(trigger, start, start + DAY)
    assert [f"{time.astimezone(where):%H:%M}" for time in times] == comes
    assert all(time.tzinfo is UTC for time in times)


def test_a_trigger_that_ends_or_never_fires_has_fewer_times() -> None:
    end = LONG_AGO + 10 * DAY
    ending = IntervalTrigger(days=1, start_date=LONG_AGO, end_date=LONG_AGO + 2 * DAY)
    assert cron.fire_times(ending, LONG_AGO, end) == [
        LONG_AGO,
        LONG_AGO + DAY,
        LONG_AGO + 2 * DAY,
    ]
    assert cron.fire_times(ending, LONG_AGO, LONG_AGO + DAY) == [LONG_AGO]
    never = CronTrigger(month=2, day=30, timezone=UTC)
    assert cron.fire_times(never, LONG_AGO, end) == []


def test_fire_times_need_a_time_zone() -> None:
    trigger = IntervalTrigger(days=1, start_date=LONG_AGO)
    naive = datetime(2024, 1, 1)
    for start, end in (naive, LONG_AGO), (LONG_AGO, naive):
        with pytest.raises(ValueError, match="need a time zone"):
            cron.fire_times(trigger, start, end)


@pytest.mark.parametrize(
    ("zone", "year", "changes"),
    [
        ("Europe/Berlin", 2025, {(3, 30, 1, 0): 60, (10, 26, 1, 0): -60}),
        ("Australia/Adelaide", 2025, {(4, 5, 16, 30): -60, (10, 4, 16, 30): 60}),
        ("Australia/Lord_Howe", 2025, {(4, 5, 15, 0): -30, (10, 4, 15, 30): 30}),
        ("Asia/Tokyo", 2025, {}),
        ("Europe/Berlin", 2024, {(3, 31, 1, 0): 60, (10, 27, 1, 0): -60}),
    ],
)
def test_changes_of_the_clock(
    zone: str, year: int, changes: dict[tuple[int, int, int, int], int]
) -> None:
    assert cron.clock_changes(ZoneInfo(zone), year) == {
        datetime(year, *when, tzinfo=UTC): timedelta(minutes=minutes)
        for when, minutes in changes.items()
    }


@pytest.mark.parametrize(
    "zone", ["Australia/Adelaide", "America/Havana", "America/St_Johns"]
)
def test_cron_is_shown_for_other_zones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], zone: str
) -> None:
    run_main(cron, monkeypatch, "--zone", zone)
    assert capsys.readouterr().out.count(zone) == 2


@pytest.mark.parametrize(
    "zone",
    [
        "Asia/Tokyo",
        "Australia/Lord_Howe",
        "America/Nuuk",  # at midnight
        "Africa/Cairo",
        "Pacific/Chatham",  # at a quarter to four
        "Nowhere",
        "../x",
        "Europe",
        "/",
        "",
    ],
)
def test_zones_that_do_not_fit_are_named(
    complaint: Callable[..., str], zone: str
) -> None:
    line = complaint(cron, "--zone", zone)
    assert "--zone" in line
    assert zone in line


def test_cron_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cron, "ZONE", "Nowhere/At_All")
    with pytest.raises(SystemExit) as exit_:
        run_main(cron, monkeypatch)
    assert exit_.value.code == 77
    assert capsys.readouterr().out == "needs the time zones: package tzdata\n"


def test_cron_says_if_the_times_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    fire_times = cron.fire_times
    monkeypatch.setattr(cron, "fire_times", lambda *_: fire_times(*_)[:2])
    with pytest.raises(SystemExit, match="other hours in between"):
        run_main(cron, monkeypatch)


# -- example08


def test_what_is_killed_at_each_moment_is_paid_so_often(
    tmp_path: Path, start_method: str
) -> None:
    with no_thread_is_left():
        assert survive.live_twice(tmp_path) == [[1, 1], [0, 1], [2, 1]]
    assert not multiprocessing.active_children()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    survive.make_orders(tmp_path)
    return tmp_path


def test_a_scheduler_pays_what_is_due_and_forgets_it(folder: Path) -> None:
    for _ in range(3):
        with no_thread_is_left():
            survive.live(folder, None)
        assert survive.times_paid(folder) == 0
    for n in range(1, 4):
        survive.live(folder, survive.pay_orders)
        survive.live(folder, None)
        assert survive.times_paid(folder) == n


def test_a_scheduler_does_not_wait_for_what_is_due_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survive, "LIMIT", 0.1)
    scheduler = scheduled(folder, survive.ClosingStore(folder / survive.JOBS))
    scheduler.modify_job("daily", next_run_time=datetime.now(UTC) + DAY)
    scheduler.shutdown()
    with no_thread_is_left():
        survive.live(folder, None)
    assert survive.times_paid(folder) == 0


def test_a_job_that_pays_what_is_open_may_be_run_at_any_time(folder: Path) -> None:
    for _ in range(3):
        survive.live(folder, survive.pay_open_orders)
        assert survive.times_paid(folder) == 1
    with closing(sqlite3.connect(folder / survive.ORDERS)) as connection, connection:
        connection.execute("INSERT INTO orders VALUES (0)")
    survive.pay_open_orders(folder / survive.ORDERS)
    with closing(sqlite3.connect(folder / survive.ORDERS)) as connection:
        assert connection.execute("SELECT paid FROM orders").fetchall() == [(1,), (1,)]


def scheduled(folder: Path, store: Any) -> Any:
    """Return a paused scheduler with a daily job that was due long ago."""
    scheduler = survive.scheduler_on(store)
    scheduler.start(paused=True)
    scheduler.add_job(
        survive.pay_orders,
        IntervalTrigger(days=1, start_date=LONG_AGO),
        args=[folder / survive.ORDERS],
        next_run_time=LONG_AGO,
        id="daily",
    )
    return scheduler


def due_time(folder: Path) -> datetime | None:
    """Return when the first job in the store is due."""
    scheduler = survive.scheduler_on(survive.ClosingStore(folder / survive.JOBS))
    scheduler.start(paused=True)
    times = [job.next_run_time for job in scheduler.get_jobs()]
    scheduler.shutdown()
    return min(times, default=None)


def test_a_store_that_is_closed_loses_no_run_at_shutdown(folder: Path) -> None:
    scheduler = scheduled(folder, survive.ClosingStore(folder / survive.JOBS))
    scheduler.shutdown()
    assert scheduler._process_jobs() is None  # what its thread may still do
    assert due_time(folder) == LONG_AGO
    assert survive.times_paid(folder) == 0


def test_a_store_that_is_not_closed_loses_a_run_at_shutdown(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Once this fails, APScheduler has been mended, and ClosingStore may go."""
    for name in "shutdown", "start", "get_due_jobs", "get_next_run_time":
        monkeypatch.delattr(survive.ClosingStore, name)
    scheduler = scheduled(folder, survive.ClosingStore(folder / survive.JOBS))
    scheduler.shutdown()
    scheduler._process_jobs()
    due = due_time(folder)
    assert due is not None
    assert due > LONG_AGO + DAY
    assert survive.times_paid(folder) == 0
    assert "cannot schedule new futures after shutdown" in caplog.text


@pytest.mark.parametrize(("grace_time", "paid"), [(None, 1), (1, 0)])
def test_what_was_due_meanwhile_is_up_to_the_misfire_policy(
    folder: Path, grace_time: int | None, paid: int
) -> None:
    scheduler = scheduled(folder, survive.ClosingStore(folder / survive.JOBS))
    if grace_time is not None:
        scheduler.modify_job("daily", misfire_grace_time=grace_time)
    scheduler.shutdown()
    survive.live(folder, None)
    assert survive.times_paid(folder) == paid


def test_a_closed_store_can_be_opened_again(folder: Path) -> None:
    store = survive.ClosingStore(folder / survive.JOBS)
    scheduler = scheduled(folder, store)
    scheduler.shutdown()
    assert store.get_due_jobs(datetime.now(UTC)) == []
    assert store.get_next_run_time() is None
    store.start(scheduler, "default")
    assert [job.id for job in store.get_due_jobs(datetime.now(UTC))] == ["daily"]
    assert store.get_next_run_time() == LONG_AGO


def test_a_job_whose_function_is_gone_is_deleted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduled(folder, survive.ClosingStore(folder / survive.JOBS)).shutdown()
    assert due_time(folder) == LONG_AGO
    with monkeypatch.context() as patch:
        patch.delattr(survive, "pay_orders")
        assert due_time(folder) is None
    assert due_time(folder) is None
    assert "removing it" in caplog.text


def test_killed_at_any_time_nothing_is_lost_or_paid_twice(folder: Path) -> None:
    """The moment is left to chance here; what holds must hold at each."""
    if sys.platform == "win32":
        pytest.skip("starting so many processes takes long")
    for n in range(5):
        process = multiprocessing.Process(
            target=survive.live, args=(folder, survive.pay_open_orders)
        )
        process.start()
        process.join(0.01 * n)
        process.kill()
        process.join()
    survive.live(folder, survive.pay_open_orders)
    assert survive.times_paid(folder) == 1


def test_processes_that_fail_are_told(start_method: str) -> None:
    assert survive.run_processes(int, partial(os._exit, 3)) == [0, 3]
    assert not multiprocessing.active_children()


def test_processes_that_go_on_for_too_long_are_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(survive, "LIMIT", 0.01)
    start = time.monotonic()
    assert survive.run_processes(partial(time.sleep, LIMIT)) == [None]
    assert time.monotonic() - start < LIMIT


def test_survival_says_if_it_is_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survive, "live_twice", lambda _: [[1, 1], [1, 1], [1, 1]])
    with pytest.raises(SystemExit, match="paid 1, 0 and 2 times"):
        run_main(survive, monkeypatch)
    monkeypatch.undo()
    monkeypatch.setattr(survive, "run_processes", lambda *_: [0])
    with pytest.raises(SystemExit, match="each scheduler was to be killed"):
        run_main(survive, monkeypatch)


# -- example09

GRACE = 3600 * 24


@pytest.mark.parametrize(
    ("policy", "run", "too_late"),
    [
        ({}, 0, 1),
        ({"coalesce": False}, 0, 5),
        ({"misfire_grace_time": None}, 1, 0),
        ({"misfire_grace_time": None, "coalesce": False}, 5, 0),
        ({"misfire_grace_time": int(6.5 * GRACE), "coalesce": False}, 1, 4),
        ({"misfire_grace_time": int(9.5 * GRACE), "coalesce": False}, 4, 1),
        ({"misfire_grace_time": int(6.5 * GRACE)}, 1, 0),
        ({"misfire_grace_time": int(5.5 * GRACE)}, 0, 1),
    ],
)
def test_what_is_made_of_runs_that_were_missed(
    policy: dict[str, Any], run: int, too_late: int
) -> None:
    with no_thread_is_left():
        counts = misfires.after_absence({"job": policy})
    assert counts == {"job": Counter({"run": run, "too late": too_late, "removed": 1})}


def test_overlap_failure_and_shutdown() -> None:
    with no_thread_is_left():
        assert misfires.overlapping() == ["skipped", "run", "run"]
        assert misfires.failing() == ["failed", "run"]
        steps = ["shutdown is called", "the job ends", "returns"]
        assert misfires.shut_down(True) == steps
        assert misfires.shut_down(False) == [steps[0], steps[2], steps[1]]


def test_a_job_does_not_wait_for_a_shutdown_that_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutdown = BackgroundScheduler.shutdown
    calls: list[tuple[bool, ...]] = []

    def interrupted_at_first(self: Any, *wait: bool) -> None:
        calls.append(wait)
        if len(calls) == 1:
            raise KeyboardInterrupt
        shutdown(self, *wait)

    monkeypatch.setattr(BackgroundScheduler, "shutdown", interrupted_at_first)
    monkeypatch.setattr(misfires, "LIMIT", LIMIT)
    start = time.monotonic()
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        misfires.shut_down(False)
    assert time.monotonic() - start < LIMIT
    assert calls == [(False,), ()]


def test_a_listener_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with misfires.Observed() as observed:
        observed.scheduler.add_listener(lambda _: 1 / 0)
        for _ in range(2):
            observed.scheduler.add_job(int)
            assert {observed.next_event(), observed.next_event()} == {"run", "removed"}
    assert "ZeroDivisionError" in caplog.text


def test_what_does_not_happen_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(misfires, "LIMIT", 0.01)
    with no_thread_is_left(), misfires.Observed() as observed, pytest.raises(Empty):
        observed.next_event()
    monkeypatch.setattr(misfires.Observed, "make_due", lambda *_: None)
    with pytest.raises(SystemExit, match="was to happen"):
        run_main(misfires, monkeypatch)


@pytest.mark.parametrize(
    ("function", "result", "message"),
    [
        ("after_absence", {"job": Counter[str]()}, "other runs were to be made"),
        ("overlapping", ["run"] * 3, "the second run was to be skipped"),
        ("failing", ["run", "run"], "a failure was to be told"),
        ("shut_down", ["returns"] * 3, "the shutdown was to wait"),
    ],
)
def test_misfires_say_what_is_not_as_it_should_be(
    monkeypatch: pytest.MonkeyPatch, function: str, result: object, message: str
) -> None:
    monkeypatch.setattr(misfires, function, lambda *_: result)
    with pytest.raises(SystemExit, match=message):
        run_main(misfires, monkeypatch)


# -- example10


@given(st.lists(st.integers(-5, 20)), st.integers(0, 10))
def test_calls_come_in_the_order_of_their_times_then_of_adding(
    times: list[int], now: int
) -> None:
    clock, calls = VirtualClock(), []
    clock.time = now
    scheduler = Scheduler(clock)

    def call(number: int, due: int) -> None:
        calls.append(number)
        assert clock.now() == max(now, due)  # at once if that is over

    for number, due in enumerate(times):
        scheduler.at(due, partial(call, number, due))
    scheduler.at(100, scheduler.stop)
    scheduler.run()
    assert calls == sorted(range(len(times)), key=lambda number: times[number])


@given(st.lists(st.integers(0, 9), max_size=8), st.data())
def test_what_is_cancelled_is_not_called_and_all_else_is(
    times: list[int], data: st.DataObject
) -> None:
    calls: list[int] = []
    scheduler = Scheduler(VirtualClock())
    jobs = [
        scheduler.at(due, partial(calls.append, number))
        for number, due in enumerate(times)
    ]
    kept = {n for n in range(len(times)) if data.draw(st.booleans())}
    for number, job in enumerate(jobs):
        if number not in kept:
            scheduler.cancel(job)
            scheduler.cancel(job)  # has no effect
    scheduler.at(10, scheduler.stop)
    scheduler.run()
    assert calls == sorted(kept, key=lambda number: times[number])


def grid(work: float, n: int) -> list[float]:
    """Return when `n` runs begin that are due each 10, and take `work`."""
    clock, starts = VirtualClock(), []
    scheduler = Scheduler(clock)

    def run() -> None:
        starts.append(clock.now())
        clock.time += work
        if len(starts) == n:
            scheduler.stop()

    scheduler.every(10, run)
    scheduler.run()
    return starts


def test_an_interval_does_not_drift_and_late_calls_are_made_up_for() -> None:
    assert grid(work=9, n=5) == [0, 10, 20, 30, 40]
    assert grid(work=25, n=4) == [0, 25, 50, 75]
    assert scratch.starts_at_due_times() == [0, 100, 200, 300, 400, 500]
    assert scratch.starts_with_sleeps() == [0, 130, 260, 390, 520, 650]


def test_after_a_late_call_the_next_ones_keep_to_their_due_times() -> None:
    clock, starts = VirtualClock(), []
    scheduler = Scheduler(clock)

    def run() -> None:
        starts.append(clock.now())
        if len(starts) == 1:
            clock.time += 25

    scheduler.every(10, run)
    scheduler.at(45, scheduler.stop)
    scheduler.run()
    assert starts == [0, 25, 25, 30, 40]


def test_a_job_that_comes_back_can_be_cancelled_by_itself() -> None:
    clock, starts = VirtualClock(), []
    scheduler = Scheduler(clock)

    def run() -> None:
        starts.append(clock.now())
        if len(starts) == 3:
            scheduler.cancel(job)

    job = scheduler.every(10, run)
    scheduler.at(100, scheduler.stop)
    scheduler.run()
    assert starts == [0, 10, 20]


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_an_interval_must_be_positive(interval: float) -> None:
    with pytest.raises(ValueError, match="an interval of"):
        Scheduler(VirtualClock()).every(interval, print)


def test_after_an_exception_the_scheduler_goes_on() -> None:
    clock = VirtualClock()
    scheduler = Scheduler(clock)
    times = []

    def fail_at_ten() -> None:
        times.append(clock.now())
        if clock.now() == 10:
            raise ArithmeticError

    scheduler.every(10, fail_at_ten)
    scheduler.at(25, scheduler.stop)
    with pytest.raises(ArithmeticError):
        scheduler.run()
    scheduler.run()
    assert times == [0, 10, 20]


def test_who_waits_for_ever_under_a_virtual_clock_is_told() -> None:
    with pytest.raises(RuntimeError, match="for ever"):
        Scheduler(VirtualClock()).run()


def test_what_is_stopped_stays_so_and_calls_nothing_more() -> None:
    calls: list[str] = []
    scheduler = Scheduler(VirtualClock())
    scheduler.at(0, scheduler.stop)
    scheduler.at(0, partial(calls.append, "called"))
    scheduler.run()
    scheduler.run()
    assert calls == []


class TellingClock(scratch.TellingClock):
    """Waits for ever, whatever is asked for: only a notify ends a wait."""

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        super().wait(condition, None)


@contextmanager
def waiting(scheduler: Scheduler, clock: TellingClock) -> Iterator[None]:
    """Have a scheduler run in a thread, and wait; stop it after the block."""
    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        runner = pool.submit(scheduler.run)
        assert clock.waits.acquire(timeout=LIMIT)
        try:
            yield
        finally:
            scheduler.stop()
            runner.result(LIMIT)


@pytest.mark.parametrize("later", [True, False])
def test_a_new_job_wakes_a_scheduler_that_waits(later: bool) -> None:
    clock, called = TellingClock(), threading.Event()
    scheduler = Scheduler(clock)
    if later:
        scheduler.at(clock.now() + 3600, called.set)
    with waiting(scheduler, clock):
        scheduler.at(clock.now(), called.set)
        assert called.wait(LIMIT)


def test_a_stop_and_a_cancel_wake_a_scheduler_that_waits() -> None:
    clock = TellingClock()
    scheduler = Scheduler(clock)
    job = scheduler.at(clock.now() + 3600, fail)
    with waiting(scheduler, clock):
        scheduler.cancel(job)
        assert clock.waits.acquire(timeout=LIMIT)  # it has looked, and waits again


def test_the_real_clock_waits_until_a_job_is_due() -> None:
    clock = Clock()
    scheduler, times = Scheduler(clock), []
    due = clock.now() + 0.02
    scheduler.at(due, lambda: times.append(clock.now()))
    scheduler.at(due, scheduler.stop)
    scheduler.run()
    assert times[0] >= due


def test_a_time_beyond_what_a_condition_can_wait_for_is_no_harm() -> None:
    clock = scratch.TellingClock()
    scheduler = Scheduler(clock)
    scheduler.at(float("inf"), fail)
    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        runner = pool.submit(scheduler.run)
        assert clock.waits.acquire(timeout=LIMIT)
        scheduler.stop()
        runner.result(LIMIT)


def test_many_threads_add_and_many_run_and_each_call_is_made_once() -> None:
    scheduler = Scheduler(Clock())
    calls: SimpleQueue[int] = SimpleQueue()

    def add(first: int) -> None:
        for number in range(first, first + 100):
            scheduler.at(
                time.monotonic() + number % 7 / 1000, partial(calls.put, number)
            )

    with no_thread_is_left(), ThreadPoolExecutor(8) as pool:
        runners = [pool.submit(scheduler.run) for _ in range(4)]
        try:
            list(pool.map(add, range(0, 400, 100)))
            called = [calls.get(timeout=LIMIT) for _ in range(400)]
        finally:
            scheduler.stop()
        for runner in runners:
            runner.result(LIMIT)
    assert sorted(called) == list(range(400))
    assert calls.empty()


def test_a_new_job_is_noticed_while_an_hour_is_waited_for() -> None:
    with no_thread_is_left():
        assert 0 <= scratch.seconds_until_noticed() < LIMIT


def test_no_new_job_is_noticed_if_it_wakes_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That is what the demonstration would say of a scheduler that sleeps."""

    def push(self: Any, due: float, call: Callable[[], object], _: None) -> None:
        with self._changed:
            self._jobs.append(scratch.Job(due, len(self._jobs), call))
            self._jobs.sort()

    monkeypatch.setattr(scratch, "LIMIT", 0.1)
    monkeypatch.setattr(Scheduler, "_add", push)
    with no_thread_is_left(), pytest.raises(TimeoutError, match="was to wake"):
        scratch.seconds_until_noticed()


def test_scratch_says_if_a_job_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "LIMIT", 0.1)
    monkeypatch.setattr(Scheduler, "at", lambda *_: None)
    with no_thread_is_left(), pytest.raises(SystemExit, match="it has missed a job"):
        run_main(scratch, monkeypatch)
