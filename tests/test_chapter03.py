"""Chapter 3: the parts a reader would copy."""

import _thread
import gc
import logging
import math
import queue
import random
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from contextvars import copy_context
from functools import partial
from itertools import count, pairwise, zip_longest
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar, NoReturn, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left

from Chapter03 import example01_two_threads_count_down as countdowns
from Chapter03 import example02_low_level_thread_module as low_level
from Chapter03 import example03_thread_subclass_primes as results
from Chapter03 import example04_lock_keeps_lines_together as journals
from Chapter03 import example05_queue_and_workers as workers
from Chapter03 import example06_executor as executors
from Chapter03 import example07_exception_nobody_asked_for as unasked
from Chapter03 import example08_thread_local_data as own_data
from Chapter03 import example09_condition_bounded_buffer as buffers
from Chapter03 import example10_event_start_signal as events
from Chapter03 import example11_barrier_phases as phases
from Chapter03 import example12_semaphore_limits_how_many as pools
from Chapter03 import example13_timer as timers
from Chapter03 import example14_polite_stop_and_daemons as stops
from Chapter03 import example15_exceptions_in_threads as uncaught
from Chapter03 import example16_timeline_of_who_ran_when as timelines
from Chapter03.example03_thread_subclass_primes import ResultThread, smallest_factor
from Chapter03.example09_condition_bounded_buffer import BoundedBuffer
from Chapter03.example13_timer import watchdog
from Chapter03.example16_timeline_of_who_ran_when import Interval

LIMIT = 10.0  # seconds that a test waits for what must come


@contextmanager
def no_more_threads_after(allowed: int) -> Iterator[None]:
    """Let only so many threads start."""
    start = threading.Thread.start
    started = 0

    def start_or_fail(thread: threading.Thread) -> None:
        nonlocal started
        if started == allowed:
            raise RuntimeError("can't start new thread")
        started += 1
        start(thread)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_or_fail)
        yield


def in_time(action: Callable[[], object]) -> None:
    """Fail, rather than hang, if `action` takes longer than LIMIT."""
    thread = ResultThread(action)
    thread.daemon = True
    thread.start()
    thread.result(LIMIT)


# -- example01


def test_a_thread_counts_down_and_says_who_ran_it() -> None:
    thread = countdowns.CountDown("A", 3, 0)
    assert (thread.counted, thread.ran_in) == ([], "no thread")
    thread.start()
    thread.join(LIMIT)
    assert (thread.counted, thread.ran_in) == ([3, 2, 1], "A")
    assert 0 < thread.began <= thread.ended


def test_run_without_start_is_an_ordinary_call() -> None:
    thread = countdowns.CountDown("A", 2, 0)
    thread.run()
    assert thread.counted == [2, 1]
    assert thread.ran_in == threading.current_thread().name != "A"


def test_nothing_is_counted_before_the_caller_says_so() -> None:
    go_on = threading.Event()
    thread = countdowns.CountDown("A", 1, 0, when_begun=lambda: go_on.wait(LIMIT))
    thread.start()
    assert thread.counted == []
    go_on.set()
    thread.join(LIMIT)
    assert thread.counted == [1]


def test_one_by_one_the_threads_never_meet() -> None:
    alive = []
    threads = [
        countdowns.CountDown(name, 1, 0, lambda: alive.append(who_is_alive()))
        for name in "ABC"
    ]

    def who_is_alive() -> str:
        return "".join(thread.name for thread in threads if thread.is_alive())

    countdowns.run_one_by_one(threads)
    assert alive == ["A", "B", "C"]
    for a, b in pairwise(threads):
        assert not countdowns.in_progress_together(a, b)


def test_at_the_same_time_all_meet() -> None:
    barrier = threading.Barrier(3, timeout=LIMIT)
    threads = [countdowns.CountDown(name, 1, 0.001, barrier.wait) for name in "ABC"]
    countdowns.run_at_the_same_time(threads)
    assert not any(thread.is_alive() for thread in threads)
    assert [thread.counted for thread in threads] == [[1]] * 3
    assert countdowns.in_progress_together(threads[0], threads[2])


@pytest.mark.parametrize(
    ("a", "b", "together"),
    [
        ((0, 1), (1, 2), False),  # the one ends as the other begins
        ((0, 1), (2, 3), False),
        ((0, 2), (1, 3), True),
        ((0, 9), (1, 2), True),
    ],
)
def test_in_progress_together(
    a: tuple[float, float], b: tuple[float, float], together: bool
) -> None:
    threads = []
    for began, ended in (a, b):
        thread = countdowns.CountDown("", 0, 0)
        thread.began, thread.ended = began, ended
        threads.append(thread)
    assert countdowns.in_progress_together(*threads) is together
    assert countdowns.in_progress_together(*reversed(threads)) is together


# -- example02


def test_all_jobs_have_ended_when_run_all_returns() -> None:
    barrier = threading.Barrier(3, timeout=LIMIT)
    ended = []

    def job() -> None:
        barrier.wait()  # all are in progress together
        ended.append(threading.get_ident())

    low_level.run_all([job] * 3)
    assert len(set(ended)) == 3
    assert threading.get_ident() not in ended


def test_a_job_that_raises_is_waited_for_and_goes_to_the_hook(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise ValueError("nobody hears of this")

    def report(unraisable: Any) -> None:
        names.put(unraisable.exc_type.__name__)

    names: queue.Queue[str] = queue.Queue()
    monkeypatch.setattr(sys, "unraisablehook", report)
    in_time(partial(low_level.run_all, [fail, fail]))
    assert [names.get(timeout=LIMIT) for _ in range(2)] == ["ValueError"] * 2


def test_jobs_that_could_be_started_have_ended_when_one_could_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = threading.Event()
    ended = []

    def job() -> None:
        go_on.wait(LIMIT)
        ended.append(True)

    def start_or_fail(function: Callable[..., object], args: tuple[Any, ...]) -> int:
        if started:
            go_on.set()
            raise RuntimeError("can't start new thread")
        started.append(True)
        return start(function, args)

    start = _thread.start_new_thread
    started: list[bool] = []
    monkeypatch.setattr(_thread, "start_new_thread", start_or_fail)
    with pytest.raises(RuntimeError, match="can't start"):
        low_level.run_all([job] * 3)
    assert ended == [True]


def test_threading_does_not_list_a_thread_that_it_has_not_started() -> None:
    assert not low_level.is_known_to_threading()


def test_the_interpreter_cuts_off_a_low_level_thread_and_waits_for_others() -> None:
    *_, last = low_level.output_of(low_level.PROGRAM).splitlines()
    assert last == "main thread ends"
    waited_for = """
import threading

def work():
    threading.main_thread().join()
    print("worker ends")

threading.Thread(target=work).start()
print("main thread ends")
"""
    assert low_level.output_of(waited_for) == "main thread ends\nworker ends\n"


def test_a_program_that_fails_or_takes_too_long_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        low_level.output_of("1 / 0")
    monkeypatch.setattr(low_level, "LIMIT", 0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        low_level.output_of("import threading; threading.Event().wait()")


# -- example03


@given(st.integers(2, 5000))
def test_the_smallest_factor_divides_and_none_below_does(n: int) -> None:
    factor = smallest_factor(n)
    assert n % factor == 0
    assert 1 < factor <= n
    assert all(n % k for k in range(2, factor))


@pytest.mark.parametrize(
    ("n", "factor"),
    [(2, 2), (4, 2), (9, 3), (25, 5), (49, 7), (999_983**2, 999_983), (97, 97)],
)
def test_factors_that_are_known(n: int, factor: int) -> None:
    assert smallest_factor(n) == factor


@pytest.mark.parametrize("n", [1, 0, -7])
def test_below_two_there_is_no_prime_factor(n: int) -> None:
    with pytest.raises(ValueError, match=f"^{n} has no prime factor"):
        smallest_factor(n)


def test_the_result_of_a_thread_can_be_asked_for_again() -> None:
    thread = ResultThread(lambda: threading.current_thread().name, name="worker")
    thread.start()
    assert [thread.result(), thread.result(LIMIT)] == ["worker", "worker"]


def test_none_is_a_result() -> None:
    thread = ResultThread(lambda: None)
    thread.start()
    assert thread.result() is None


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_what_the_function_raised_is_raised_at_the_result(
    error: BaseException, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> NoReturn:
        raise error

    thread = ResultThread(fail)
    thread.start()
    for _ in range(2):
        with pytest.raises(type(error)) as raised:
            thread.result()
        assert raised.value is error
        assert raised.traceback[-1].name == "fail"
    assert capfd.readouterr() == ("", "")


def test_a_result_is_not_waited_for_longer_than_asked() -> None:
    go_on = threading.Event()
    thread = ResultThread(lambda: go_on.wait(LIMIT), name="slow")
    thread.start()
    with pytest.raises(TimeoutError, match=r"slow is still at work after 0\.01 s"):
        thread.result(0.01)
    go_on.set()
    assert thread.result() is True


def test_a_thread_that_was_not_started_has_no_result() -> None:
    with pytest.raises(RuntimeError, match="before it is started"):
        ResultThread(lambda: 1).result()


def test_a_thread_cannot_wait_for_its_own_result() -> None:
    def ask() -> object:
        return thread.result()

    thread = ResultThread(ask)
    thread.start()
    with pytest.raises(RuntimeError, match="current thread"):
        thread.result()


# -- example04


ENTRIES = [[f"{name}{number}" for number in range(3)] for name in "AB"]


def test_without_a_lock_an_entry_is_torn_with_one_it_is_not() -> None:
    (a0, a1, a2), (b0, b1, b2) = ENTRIES
    torn = journals.write_both(*ENTRIES, locked=False)
    assert torn == [a0, b0, b1, b2, a1, a2]
    assert journals.write_both(*ENTRIES, locked=True) == [a0, a1, a2, b0, b1, b2]


def test_a_lock_that_excludes_nobody_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journals, "ObservedLock", lambda when_taken: nullcontext())
    lines = journals.write_both(*ENTRIES, locked=True)
    assert not journals.stands_together(ENTRIES[0], lines)


def test_who_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """B waits at a lock that does not tell; A gives up, and B writes all the same."""
    monkeypatch.setattr(journals, "LIMIT", 0.01)
    monkeypatch.setattr(journals, "ObservedLock", lambda when_taken: threading.Lock())
    with no_thread_is_left(), pytest.raises(TimeoutError, match="B has not come"):
        journals.write_both(*ENTRIES, locked=True)


def test_entries_of_many_threads_stand_together() -> None:
    barrier = threading.Barrier(4, timeout=LIMIT)
    journal = journals.Journal()
    entries = [[f"{who} {line}" for line in range(50)] for who in range(4)]

    def write(entry: Sequence[str]) -> None:
        barrier.wait()
        journal.write(entry)

    threads = [ResultThread(partial(write, entry)) for entry in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.result(LIMIT)
    assert len(journal.lines) == 200
    assert all(journals.stands_together(entry, journal.lines) for entry in entries)


def test_a_journal_has_a_lock_of_its_own_and_gives_it_back() -> None:
    def fail() -> None:
        if fails:
            raise KeyError

    fails = True
    journal = journals.Journal(between=fail)
    with pytest.raises(KeyError):
        journal.write(["one", "two"])
    fails = False
    in_time(partial(journal.write, ["three"]))
    assert journal.lines == ["one", "three"]
    assert type(journal._lock) is type(threading.Lock())


def test_the_lock_tells_only_who_finds_it_taken() -> None:
    told = []
    found_taken = threading.Event()

    def tell() -> None:
        told.append(threading.current_thread())
        found_taken.set()

    lock = journals.ObservedLock(when_taken=tell)
    with lock:
        pass
    assert told == []

    def take() -> None:
        with lock:
            assert left

    thread = ResultThread(take)
    left = False
    with lock:
        thread.start()
        assert found_taken.wait(LIMIT)
        left = True
    thread.result(LIMIT)
    assert told == [thread]


@pytest.mark.parametrize(
    ("entry", "lines", "together"),
    [
        ("ab", "ab", True),
        ("ab", "xaby", True),
        ("ab", "axb", False),
        ("ab", "ba", False),
        ("ab", "a", False),
        ("ab", "", False),
        ("", "", True),
    ],
)
def test_stands_together(entry: str, lines: str, together: bool) -> None:
    assert journals.stands_together(list(entry), list(lines)) is together


def test_print_writes_in_pieces() -> None:
    class Pieces(list[str]):
        write = list.append

    pieces = Pieces()
    print("A", 3, file=pieces)
    assert pieces == ["A", " ", "3", "\n"]


# -- example05


every_stop = pytest.mark.parametrize(
    "stop",
    [
        "sentinels",
        pytest.param(
            "shutdown",
            marks=pytest.mark.skipif(
                sys.version_info < (3, 13), reason="needs Python 3.13"
            ),
        ),
    ],
)


def fail_at_multiples_of_three(n: int) -> int:
    if n % 3 == 0:
        raise ValueError(n)
    return n * n


@every_stop
@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("n_items", [0, 1, 100])
def test_every_item_is_processed_once_also_if_some_fail(
    n_items: int, n_workers: int, stop: workers.Stop
) -> None:
    with no_thread_is_left():
        outcomes = workers.process_all(
            iter(range(n_items)), fail_at_multiples_of_three, n_workers, stop
        )
    assert Counter(outcome.item for outcome in outcomes) == Counter(range(n_items))
    for outcome in outcomes:
        if outcome.item % 3 == 0:
            assert repr(outcome.error) == f"ValueError({outcome.item})"
            assert outcome.result is None
        else:
            assert (outcome.result, outcome.error) == (outcome.item**2, None)


@every_stop
def test_all_workers_are_at_work_at_once(stop: workers.Stop) -> None:
    barrier = threading.Barrier(3, timeout=LIMIT)
    outcomes = workers.process_all(range(3), lambda _: barrier.wait(), 3, stop)
    assert sorted(outcome.result or 0 for outcome in outcomes) == [0, 1, 2]


@every_stop
def test_items_are_taken_no_faster_than_they_are_done(stop: workers.Stop) -> None:
    """Two workers: two items in their hands, four in the queue, one to be put."""
    taken = done = most_ahead = 0
    lock = threading.Lock()

    def items() -> Iterator[int]:
        nonlocal taken, most_ahead
        for n in range(100):
            with lock:
                taken += 1
                most_ahead = max(most_ahead, taken - done)
            yield n

    def work(_: int) -> None:
        nonlocal done
        with lock:
            done += 1

    workers.process_all(items(), work, 2, stop)
    assert (taken, done) == (100, 100)
    assert most_ahead <= 7


@every_stop
@pytest.mark.parametrize("error", [SystemExit(5), KeyboardInterrupt()])
def test_what_is_no_exception_ends_everything(
    error: BaseException, stop: workers.Stop
) -> None:
    def work(n: int) -> None:
        if n == 5:
            raise error

    def endless() -> None:
        with pytest.raises(type(error)) as raised:
            workers.process_all(count(), work, 2, stop)
        assert raised.value is error

    with no_thread_is_left():
        in_time(endless)


@every_stop
def test_when_every_worker_has_met_its_end_the_producer_does_not_hang(
    stop: workers.Stop,
) -> None:
    def endless() -> None:
        with pytest.raises(SystemExit):
            workers.process_all(count(), sys.exit, 2, stop)

    with no_thread_is_left():
        in_time(endless)


@every_stop
def test_items_that_raise_end_everything_and_what_waits_is_dropped(
    stop: workers.Stop, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_is_over = threading.Event()
    done = []

    class TellingQueue(queue.Queue[object]):
        def put(self, item: object, *args: object) -> None:
            if item is workers.SENTINEL:
                all_is_over.set()
            super().put(item)

        def shutdown(self, *args: object) -> None:
            all_is_over.set()
            getattr(super(), "shutdown")(*args)  # noqa: B009 (new in 3.13)

    def items() -> Iterator[int]:
        yield from range(3)  # one for the worker, two fill the queue
        raise KeyError("no more items")

    def work(n: int) -> None:
        all_is_over.wait(LIMIT)
        done.append(n)

    monkeypatch.setattr(queue, "Queue", TellingQueue)
    with no_thread_is_left(), pytest.raises(KeyError, match="no more items"):
        workers.process_all(items(), work, 1, stop)
    assert done == [0]


@every_stop
@pytest.mark.parametrize("allowed", [0, 1, 4])
def test_workers_that_cannot_be_started_leave_none_behind(
    allowed: int, stop: workers.Stop
) -> None:
    def start() -> None:
        with (
            no_more_threads_after(allowed),
            pytest.raises(RuntimeError, match="can't start"),
        ):
            workers.process_all(range(10), abs, 5, stop)

    with no_thread_is_left():
        in_time(start)


def test_ctrl_c_while_workers_are_stopped_does_not_keep_the_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class InterruptedQueue(queue.Queue[object]):
        def put(self, item: object, *args: object) -> None:
            queues.append(self)
            if item is workers.SENTINEL:
                raise KeyboardInterrupt
            super().put(item)

    queues: list[InterruptedQueue] = []
    before = set(threading.enumerate())
    monkeypatch.setattr(queue, "Queue", InterruptedQueue)
    with pytest.raises(KeyboardInterrupt):
        workers.process_all([1], abs, 2)
    left = set(threading.enumerate()) - before
    assert len(left) == 2
    assert all(thread.daemon for thread in left)
    for _ in left:  # what nobody has done for them
        super(InterruptedQueue, queues[0]).put(workers.SENTINEL)
    for thread in left:
        thread.join(LIMIT)


def test_shutdown_needs_python_313() -> None:
    if sys.version_info >= (3, 13):
        assert workers.process_all([], abs, 1, "shutdown") == []
    else:
        with pytest.raises(ValueError, match=r"needs Python 3\.13"):
            workers.process_all([], abs, 1, "shutdown")


@pytest.mark.parametrize("n_workers", [0, -1])
def test_there_must_be_a_worker(n_workers: int) -> None:
    with pytest.raises(ValueError, match=f"not {n_workers}"):
        workers.process_all([1], abs, n_workers)


# -- example06


def test_a_gate_holds_its_task_until_it_is_opened() -> None:
    with ThreadPoolExecutor(1) as pool, executors.Gate() as gate:
        future = pool.submit(gate)
        gate.wait_until_reached()
        assert future.running()
        gate.open()
        assert future.result(LIMIT) is None


def test_a_gate_opens_when_its_block_fails() -> None:
    def fail_inside() -> None:
        with ThreadPoolExecutor(1) as pool, executors.Gate() as gate:
            pool.submit(gate)
            raise KeyError("in the block")

    with pytest.raises(KeyError):
        in_time(fail_inside)


def test_a_gate_that_nobody_comes_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "LIMIT", 0.01)
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        executors.Gate().wait_until_reached()


def test_what_executors_do() -> None:
    with no_thread_is_left():
        assert executors.map_in_order() == ("c b a", "a b c")
        assert executors.as_they_are_completed() == "c b a"
        assert executors.map_until_failure() == ([0], [0, 1, 2])
        assert executors.cancel_three() == {
            "running": False,
            "waiting": True,
            "at shutdown": True,
        }
        assert executors.initialized_threads() == (["fetch_0", "fetch_1"], 4)


# -- example07


def future_of(outcome: object) -> Future[object]:
    """Return a future that is done; it has failed if `outcome` is an exception."""
    future: Future[object] = Future()
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
    return future


def cancelled_future() -> Future[object]:
    future: Future[object] = Future()
    assert future.cancel()
    return future


def test_all_results_come_in_order() -> None:
    assert unasked.wait_for_all([]) == []
    assert unasked.wait_for_all(map(future_of, [3, None, 1])) == [3, None, 1]


def test_all_failures_come_together() -> None:
    errors = [ValueError(1), KeyError(2)]
    futures = [future_of(0), future_of(errors[0]), future_of(0), future_of(errors[1])]
    with pytest.raises(ExceptionGroup, match="2 of 4 tasks failed") as raised:
        unasked.wait_for_all(futures)
    assert list(raised.value.exceptions) == errors


def test_a_cancelled_future_counts_as_failed() -> None:
    with pytest.raises(ExceptionGroup, match="1 of 2 tasks failed") as raised:
        unasked.wait_for_all([future_of(0), cancelled_future()])
    assert isinstance(raised.value.exceptions[0], CancelledError)


def test_an_exit_is_not_hidden_among_exceptions() -> None:
    futures = [future_of(ValueError()), future_of(SystemExit())]
    with pytest.raises(BaseExceptionGroup) as raised:
        unasked.wait_for_all(futures)
    assert not isinstance(raised.value, ExceptionGroup)


@pytest.mark.parametrize(
    "finish", [lambda last: last.set_result(None), lambda last: last.cancel()]
)
def test_a_failure_is_raised_after_the_last_task_is_done(
    finish: Callable[[Future[object]], object],
) -> None:
    last: Future[object] = Future()
    futures = [future_of(ValueError()), last]
    waiting = ResultThread(lambda: unasked.wait_for_all(futures))
    waiting.start()
    with pytest.raises(TimeoutError):
        waiting.result(0.05)
    finish(last)
    with pytest.raises(ExceptionGroup):
        waiting.result(LIMIT)


def test_what_a_shutdown_has_cancelled_is_not_waited_for() -> None:
    with ThreadPoolExecutor(1) as pool, executors.Gate() as gate:
        futures = [pool.submit(gate), pool.submit(gate)]
        gate.wait_until_reached()
        pool.shutdown(wait=False, cancel_futures=True)
    waiting = ResultThread(lambda: unasked.wait_for_all(futures))
    waiting.daemon = True
    waiting.start()
    with pytest.raises(ExceptionGroup, match="1 of 2"):
        waiting.result(LIMIT)


def test_only_failures_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    error = ValueError("why")
    for future in (future_of(1), future_of(error), cancelled_future()):
        future.add_done_callback(unasked.log_failure)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "a task failed")
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("forget", [unasked.submit_and_forget, unasked.map_and_forget])
def test_nobody_hears_of_what_is_forgotten(
    forget: Callable[[Callable[[str], object], Sequence[str]], None],
    capfd: pytest.CaptureFixture[str],
) -> None:
    tried = []

    def fail(item: str) -> None:
        tried.append(item)
        raise ValueError(item)

    forget(fail, ["a", "b"])
    assert sorted(tried) == ["a", "b"]
    assert capfd.readouterr() == ("", "")


# -- example08


def test_only_thread_local_data_survive_other_threads() -> None:
    assert own_data.read_back(SimpleNamespace()) == 1
    assert own_data.read_back(threading.local()) == own_data.N_THREADS


def test_every_thread_has_a_generator_of_its_own() -> None:
    alone = random.Random(7)
    expected = (alone.random(), alone.random())
    assert own_data.draw_in_turn(own_data.OwnRandom(7)) == [expected] * 3
    shared = SimpleNamespace(generator=random.Random(7))
    assert own_data.draw_in_turn(shared) != [expected] * 3  # type: ignore[arg-type]


def test_a_thread_that_fails_is_not_waited_for() -> None:
    turns = count()

    def fail_once(meet: Callable[[], object]) -> None:
        if next(turns) == 1:
            raise KeyError("cannot meet")
        meet()

    def run() -> None:
        with pytest.raises((KeyError, threading.BrokenBarrierError)):
            own_data.in_threads(fail_once)

    with no_thread_is_left():
        in_time(run)


def test_what_belongs_to_a_task_goes_with_its_context() -> None:
    assert own_data.seen_after_alice() == "alice"
    assert own_data.seen_in_contexts() == ("alice", "nobody")
    assert own_data.USER.get() == "nobody"


def test_a_task_runs_in_a_copy_of_the_submitters_context() -> None:
    def rename(suffix: str, *, times: int) -> str:
        own_data.USER.set(own_data.USER.get() + suffix * times)
        return own_data.USER.get()

    def submit_twice() -> list[str]:
        own_data.USER.set("bob")
        with ThreadPoolExecutor(1) as pool:
            futures = [
                own_data.submit_in_context(pool, rename, "!", times=n) for n in (1, 2)
            ]
            own_data.USER.set("eve")  # too late: the contexts are copied
            return [future.result() for future in futures]

    assert copy_context().run(submit_twice) == ["bob!", "bob!!"]
    assert own_data.USER.get() == "nobody"


def test_a_task_that_fails_in_a_context_fails_in_its_future() -> None:
    with ThreadPoolExecutor(1) as pool:
        future = own_data.submit_in_context(pool, int, "x")
        assert isinstance(future.exception(), ValueError)


def test_the_context_of_a_new_thread_is_what_the_flags_say() -> None:
    inherits = getattr(sys.flags, "thread_inherit_context", 0)
    assert own_data.seen_by_new_thread() == ("alice" if inherits else "nobody")


# -- what examples 1 to 8 have in common


def no_failure(*_: object) -> None:
    """Stand for a function that loses the exceptions it should raise or report."""


def start_once(thread: threading.Thread) -> None:
    if thread.ident is None:
        threading.Thread.start(thread)


def run_elsewhere(thread: countdowns.CountDown) -> None:
    run(thread)
    thread.ran_in = "another thread"


run = countdowns.CountDown.run


def run_quietly(thread: ResultThread[Any]) -> None:
    try:
        thread._result = thread._function()
    except ValueError:
        thread._result = None


def loudly(work: Callable[[str], object], items: Sequence[str]) -> None:
    """Stand for a pool that says what went wrong."""
    unasked.submit_and_forget(work, items)
    print("2 tasks failed", file=sys.stderr)


def without_the_first(*args: Any) -> list[Any]:
    return process_all(*args)[1:]


def the_first_twice(*args: Any) -> list[Any]:
    outcomes = process_all(*args)
    return [*outcomes, outcomes[0]]


def never_raising(items: Iterable[int], *args: Any) -> list[Any]:
    return [] if isinstance(items, count) else process_all(items, *args)


process_all = workers.process_all


@pytest.mark.parametrize(
    ("module", "name", "broken", "message"),
    [
        (countdowns, "in_progress_together", lambda *_: True, "only the last two"),
        (countdowns, "in_progress_together", lambda *_: False, "only the last two"),
        (countdowns, "CountDown.run", no_failure, "not complete"),
        (countdowns, "CountDown.run", run_elsewhere, "the thread expected"),
        (countdowns, "CountDown.start", start_once, "started twice"),
        (low_level, "count_down", no_failure, "not complete"),
        (low_level, "is_known_to_threading", lambda: True, "lists the thread"),
        (low_level, "PROGRAM", "print('cleaned up')", "has printed"),
        (results, "ResultThread.run", run_quietly, "was lost"),
        (results, "ResultThread.result", lambda _: 2, "the threads found"),
        (journals, "ObservedLock", lambda **_: nullcontext(), "no entry"),
        (journals, "stands_together", lambda *_: True, "without a lock"),
        (workers, "process_all", without_the_first, "exactly once"),
        (workers, "process_all", the_first_twice, "exactly once"),
        (workers, "process_all", never_raising, "was lost"),
        (workers, "threading.active_count", count().__next__, "workers are left"),
        (executors, "int", lambda _: 4, "should have raised"),
        (executors, "map_in_order", lambda: ("a b c", "a b c"), "another order"),
        (executors, "as_they_are_completed", lambda: "a b c", "another order"),
        (executors, "map_until_failure", lambda: ([0], [0, 1, 2, 3]), "stopped"),
        (executors, "cancel_three", dict, "others were cancelled"),
        (executors, "initialized_threads", lambda: (["fetch_0"], 4), "initializer ran"),
        (unasked, "submit_and_forget", no_failure, "tried"),
        (unasked, "map_and_forget", loudly, "heard: 2 tasks failed"),
        (unasked, "wait_for_all", no_failure, "should have raised"),
        (unasked, "log_failure", no_failure, "should have been logged"),
        (own_data, "read_back", lambda _: 1, "should have read"),
        (own_data, "read_back", lambda _: 3, "should have read"),
        (own_data, "draw_in_turn", lambda _: [(0.5, 0.5)] * 3, "of another"),
        (own_data, "seen_after_alice", lambda: "nobody", "left behind"),
        (own_data, "seen_in_contexts", lambda: ("alice", "mallory"), "left behind"),
        (own_data, "seen_by_new_thread", lambda: "mallory", "flags say"),
    ],
)
def test_a_claim_that_does_not_show_ends_the_script(
    module: ModuleType,
    name: str,
    broken: object,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["script"])
    # Not raising: a built-in function is not there yet.
    monkeypatch.setattr(f"{module.__name__}.{name}", broken, raising=False)
    with pytest.raises(SystemExit, match=message):
        module.main()


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        (countdowns, ["--delay", "0"], "must be from 0.01 to 1, not 0"),
        (countdowns, ["--delay", "1.5"], "must be from 0.01 to 1, not 1.5"),
        (countdowns, ["--delay", "nan"], "must be from 0.01 to 1, not nan"),
        (countdowns, ["--delay", "soon"], "invalid seconds value: 'soon'"),
        (workers, ["--workers", "0"], "must be at least 1, not 0"),
        (workers, ["--workers", "three"], "invalid positive value: 'three'"),
        (buffers, ["--capacity", "0"], "must be at least 1, not 0"),
        (buffers, ["--items", "many"], "invalid positive value: 'many'"),
        (events, ["--clients", "0"], "must be at least 1, not 0"),
        (phases, ["--threads", "0"], "must be at least 1, not 0"),
        (phases, ["--steps", "-1"], "must be at least 1, not -1"),
        (pools, ["--connections", "0"], "must be at least 1, not 0"),
        (timers, ["--timers", "0"], "must be at least 1, not 0"),
        (stops, ["--interval", "0"], "must be at least 1, not 0"),
        (timelines, ["--threads", "0"], "must be at least 1, not 0"),
        (timelines, ["--rounds", "0.5"], "invalid positive value: '0.5'"),
        (timelines, ["--plot", "x.txt"], "must end in .png, .svg or .pdf: x.txt"),
    ],
)
def test_bad_arguments_get_one_clear_line(
    module: ModuleType,
    arguments: list[str],
    culprit: str,
    complaint: Callable[..., str],
) -> None:
    assert culprit in complaint(module, *arguments)


T = TypeVar("T")


@pytest.fixture(autouse=True)
def every_thread_ends_with_its_test() -> Iterator[None]:
    """Every thread that a test starts ends with it."""
    before = threading.enumerate()
    yield
    started = [thread for thread in threading.enumerate() if thread not in before]
    for thread in started:
        thread.join(LIMIT)
    assert not [thread for thread in started if thread.is_alive()]


def in_background(function: Callable[..., T], *args: object) -> "Future[T]":
    """Call a function in a thread that cannot keep the tests from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def waits_at(condition: threading.Condition) -> threading.Semaphore:
    """Return a semaphore that is released whenever a thread is about to wait.

    The thread holds the lock then: whoever acquires semaphore and lock, in this order,
    finds it waiting.
    """
    waits, wait = threading.Semaphore(0), condition.wait

    def noted_wait(timeout: float | None = None) -> bool:
        waits.release()
        return wait(timeout)

    condition.wait = noted_wait  # type: ignore[method-assign]
    return waits


# -- example09


def test_a_buffer_gives_first_what_came_first() -> None:
    buffer = buffers.BoundedBuffer[str](3)
    for item in "abc":
        buffer.put(item)
    assert [buffer.get() for _ in range(3)] == ["a", "b", "c"]


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_buffer_needs_room(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"not {capacity}"):
        buffers.BoundedBuffer[int](capacity)


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_buffer_is_waited_for_only_so_long(timeout: float) -> None:
    buffer = buffers.BoundedBuffer[int](1)
    with pytest.raises(queue.Empty):
        buffer.get(timeout)
    buffer.put(1, timeout)
    with pytest.raises(queue.Full):
        buffer.put(2, timeout)
    assert buffer.get(timeout) == 1
    assert buffer.most == 1


def test_put_wakes_one_who_waits_for_an_item() -> None:
    buffer = buffers.BoundedBuffer[int](1)
    waits = waits_at(buffer._not_empty)
    getters = [in_background(buffer.get) for _ in range(2)]
    for _ in getters:
        assert waits.acquire(timeout=LIMIT)
    buffer.put(1)
    buffer.put(2, LIMIT)
    assert sorted(getter.result(LIMIT) for getter in getters) == [1, 2]


def test_get_wakes_one_who_waits_for_room() -> None:
    buffer = buffers.BoundedBuffer[int](1)
    buffer.put(0)
    waits = waits_at(buffer._not_full)
    putters = [in_background(buffer.put, item) for item in (1, 2)]
    for _ in putters:
        assert waits.acquire(timeout=LIMIT)
    assert sorted(buffer.get(LIMIT) for _ in range(3)) == [0, 1, 2]
    for putter in putters:
        putter.result(LIMIT)


def test_close_wakes_all_who_wait() -> None:
    empty, full = buffers.BoundedBuffer[int](1), buffers.BoundedBuffer[int](1)
    full.put(0)
    waits = waits_at(empty._not_empty), waits_at(full._not_full)
    getters = [in_background(empty.get) for _ in range(2)]
    putters = [in_background(full.put, 1) for _ in range(2)]
    for semaphore in waits:
        for _ in range(2):
            assert semaphore.acquire(timeout=LIMIT)
    empty.close()
    full.close()
    for getter in getters:
        assert isinstance(getter.exception(LIMIT), buffers.ClosedError)
    for putter in putters:
        assert isinstance(putter.exception(LIMIT), buffers.ClosedError)


def test_a_closed_buffer_can_be_drained() -> None:
    buffer = buffers.BoundedBuffer[int](3)
    buffer.put(1)
    buffer.put(2)
    buffer.close()
    with pytest.raises(buffers.ClosedError):
        buffer.put(3, 0)
    assert list(buffer) == [1, 2]
    with pytest.raises(buffers.ClosedError):
        buffer.get()
    buffer.close()


@pytest.mark.parametrize("capacity", [1, 5])
@pytest.mark.parametrize("n_consumers", [1, 4])
def test_every_item_reaches_one_consumer(capacity: int, n_consumers: int) -> None:
    buffer = buffers.BoundedBuffer[int](capacity)
    got = buffers.hand_over(buffer, [range(100), range(100, 150), []], n_consumers)
    assert sorted(got) == list(range(150))
    assert 1 <= buffer.most <= capacity


def test_consumers_do_not_wait_for_a_producer_that_fails() -> None:
    class Broken(Sequence[int]):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: Any) -> Any:
            raise OSError("cannot be read")

    buffer = buffers.BoundedBuffer[int](1)
    run = in_background(buffers.hand_over, buffer, [Broken(), range(3)], 2)
    with pytest.raises(OSError, match="cannot be read"):
        run.result(LIMIT)


def test_who_looks_once_comes_too_late_and_who_looks_again_waits() -> None:
    for _ in range(20):
        once = buffers.two_waiters_one_item(buffers.take_looking_once)
        assert once == ["IndexError", "takes it"]
        again = buffers.two_waiters_one_item(buffers.take_looking_again)
        assert again == ["takes it", "waits"]


def test_what_is_there_is_taken_without_a_wait() -> None:
    def never() -> None:
        raise AssertionError("waits")

    for take in (buffers.take_looking_once, buffers.take_looking_again):
        assert take(deque("ab"), threading.Condition(), never) == "a"


# -- example10


def test_nobody_knows_before_the_start() -> None:
    with pytest.raises(TimeoutError, match="not started within 0 s"):
        events.StartSignal().wait(0)


def test_after_the_start_nobody_waits() -> None:
    signal = events.StartSignal()
    with signal.starting(), pytest.raises(TimeoutError):
        signal.wait(0)
    signal.wait(0)
    signal.wait()


@pytest.mark.parametrize("failure", [OSError("no port"), KeyboardInterrupt()])
def test_all_learn_why_there_was_no_start(failure: BaseException) -> None:
    signal = events.StartSignal()
    waiting = [in_background(signal.wait) for _ in range(3)]
    with pytest.raises(type(failure)), signal.starting():
        raise failure
    for client in (*waiting, in_background(signal.wait)):
        error = client.exception(LIMIT)
        assert isinstance(error, RuntimeError)
        assert error.__cause__ is failure


def test_clients_go_on_after_the_start_and_not_before() -> None:
    signal = events.StartSignal()

    def start() -> None:
        with signal.starting():
            pass

    log = events.log_of_clients(signal, 5, start)
    assert log == ["comes"] * 5 + ["start"] + ["goes on"] * 5


def test_the_start_waits_for_clients_that_come_late(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class SlowPool(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
            def late() -> Any:
                time.sleep(0.02)
                return fn(*args, **kwargs)

            return super().submit(late)

    monkeypatch.setattr(events, "ThreadPoolExecutor", SlowPool)
    test_clients_go_on_after_the_start_and_not_before()


def test_a_change_is_counted_whether_anybody_waits_or_not() -> None:
    changes = events.ChangeCount()
    assert changes.now == 0
    with pytest.raises(TimeoutError, match="no change within 0 s"):
        changes.wait_beyond(0, 0)
    changes.change()
    changes.change()
    assert changes.now == 2
    assert changes.wait_beyond(0, 0) == 2
    assert changes.wait_beyond(1, 0) == 2
    with pytest.raises(TimeoutError):
        changes.wait_beyond(2, 0)


def test_a_change_wakes_all_who_wait_for_it() -> None:
    changes = events.ChangeCount()
    waits = waits_at(changes._changed)
    waiting = [in_background(changes.wait_beyond, seen) for seen in (0, 0, 1)]
    for _ in waiting:
        assert waits.acquire(timeout=LIMIT)
    changes.change()
    assert [one.result(LIMIT) for one in waiting[:2]] == [1, 1]
    assert waits.acquire(timeout=LIMIT)  # the third looks again, and waits again
    assert not waiting[2].done()
    changes.change()
    assert waiting[2].result(LIMIT) == 2


def test_a_pulse_leaves_nothing_behind() -> None:
    event = threading.Event()
    events.pulse(event)
    assert not event.is_set()


# -- example11


temperatures = st.lists(st.integers(0, 100).map(float), min_size=2, max_size=30)


def test_heat_spreads() -> None:
    assert phases.spread([0, 0, 16, 0, 0], 2) == [[0, 4, 8, 4, 0], [0, 4, 6, 4, 0]]
    assert phases.spread([1, 2], 2) == [[1, 2], [1, 2]]
    assert phases.spread([1, 2, 3], 0) == []


@given(temperatures, st.integers(0, 8), st.integers(1, 5))
def test_threads_in_step_do_what_the_loop_does(
    cells: list[float], steps: int, n_threads: int
) -> None:
    expected = phases.spread(cells, steps)
    assert phases.spread_with_threads(cells, steps, n_threads) == expected


@given(st.integers(2, 100), st.integers(1, 20))
def test_parts_are_all_inner_cells(n_cells: int, n_parts: int) -> None:
    parts = phases.parts_of([0.0] * n_cells, n_parts)
    assert [i for part in parts for i in part] == list(range(1, n_cells - 1))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("cells", [[], [1.0]])
def test_a_rod_has_two_ends(cells: list[float]) -> None:
    with pytest.raises(ValueError, match=f"not {len(cells)}"):
        phases.spread(cells, 1)
    with pytest.raises(ValueError, match=f"not {len(cells)}"):
        phases.spread_with_threads(cells, 1, 2)


def test_out_of_step_the_middle_is_wrong() -> None:
    # Two threads: cells 1 and 2, then cells 3 and 4.
    assert phases.spread([0, 0, 0, 64, 0, 0], 2)[-1] == [0, 4, 16, 24, 16, 0]
    # The first reads 64 again in the second step, when it should be 32. The second
    # reads in its first step what the first has written in its second.
    assert phases.spread_out_of_step([0, 0, 0, 64, 0, 0], 2) == [
        0, 4, 24, 27, 17.5, 0,
    ]  # fmt: skip


@pytest.mark.parametrize("failing_step", [1, 3])
def test_a_thread_that_fails_ends_all(failing_step: int) -> None:
    steps = 0

    def rule(left: float, own: float, right: float) -> float:
        nonlocal steps
        if own == 7:  # in one cell, and it stays so
            steps += 1
            if steps == failing_step:
                raise OverflowError("too hot")
        return own

    cells = [0.0] * 10 + [7.0] + [0.0] * 10
    run = in_background(phases.spread_with_threads, cells, 5, 4, rule)
    with pytest.raises(OverflowError, match="too hot") as error:
        run.result(LIMIT)
    assert error.value.__notes__ == ["3 threads ended with BrokenBarrierError"]


def test_a_step_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[threading.Barrier] = []

    class NotedBarrier(threading.Barrier):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self)

    def rule(left: float, own: float, right: float) -> float:
        deadline = time.monotonic() + LIMIT
        while own == 7 and not made[0].broken and time.monotonic() < deadline:
            time.sleep(0.001)  # longer than the others want to wait
        return own

    monkeypatch.setattr(phases, "LIMIT", 0.05)
    monkeypatch.setattr(threading, "Barrier", NotedBarrier)
    run = in_background(phases.spread_with_threads, [0, 7, 0, 0], 1, 2, rule)
    assert isinstance(run.exception(2 * LIMIT), threading.BrokenBarrierError)


# -- example12


def test_each_resource_is_lent_to_one() -> None:
    pool = pools.Pool("ab")
    with pool.lent(0) as first, pool.lent(0) as second:
        assert {first, second} == {"a", "b"}
        with pytest.raises(TimeoutError, match="within 0 s"), pool.lent(0):
            pass
    with pool.lent(0) as again:
        assert again == first  # given back last


def test_a_resource_is_given_back_by_a_block_that_fails() -> None:
    pool = pools.Pool(["only"])
    for _ in range(2):
        with pytest.raises(KeyError), pool.lent(0):
            raise KeyError
    with pool.lent(0) as resource:
        assert resource == "only"


def test_what_is_given_back_goes_to_one_who_waits() -> None:
    pool = pools.Pool(["only"])

    def borrow() -> str:
        with pool.lent() as resource:
            return resource

    with pool.lent(0):
        waiting = [in_background(borrow) for _ in range(3)]
        with pytest.raises(TimeoutError):
            waiting[0].result(0.01)
    assert [one.result(LIMIT) for one in waiting] == ["only"] * 3


def test_a_pool_is_not_empty() -> None:
    with pytest.raises(ValueError, match="at least one"):
        pools.Pool([])


def test_the_gauge_remembers_the_most() -> None:
    gauge = pools.Gauge()
    with gauge, gauge, suppress(KeyError), gauge:
        raise KeyError
    with gauge:
        assert gauge.most == 3


@pytest.mark.parametrize("n_connections", [1, 2, 5])
def test_all_connections_work_and_each_for_one(n_connections: int) -> None:
    connections = [pools.Connection() for _ in range(n_connections)]
    pool = pools.Pool(connections)
    most = pools.query_together(pool, n_connections, 3 * n_connections)
    assert most == n_connections
    assert {connection.users.most for connection in connections} == {1}


def test_a_connection_for_two_is_noticed() -> None:
    shared = pools.Connection()
    assert pools.query_together(pools.Pool([shared, shared]), 2, 2) == 2
    assert shared.users.most == 2


def test_too_few_connections_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LIMIT", 0.05)
    pool = pools.Pool([pools.Connection()])
    with pytest.raises((threading.BrokenBarrierError, TimeoutError)):
        pools.query_together(pool, 2, 2)


@pytest.mark.parametrize("value", [0, 1, 7])
def test_how_many_are_admitted(value: int) -> None:
    semaphore = threading.Semaphore(value)
    assert pools.admitted(semaphore) == value
    assert pools.admitted(semaphore) == value


# -- example13


def test_the_watchdog_barks_in_another_thread() -> None:
    heard: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    with timers.watchdog(0, lambda: heard.put(threading.get_ident())):
        assert heard.get(timeout=LIMIT) != threading.get_ident()


def test_the_watchdog_is_called_off() -> None:
    threads = threading.active_count()
    heard = []
    with timers.watchdog(3600, lambda: heard.append("alarm")):
        pass
    with pytest.raises(KeyError), timers.watchdog(3600, lambda: heard.append("alarm")):
        raise KeyError
    assert heard == []
    assert threading.active_count() == threads


def test_no_alarm_is_running_after_the_block() -> None:
    begun, go_on, log = threading.Event(), threading.Event(), []

    def alarm() -> None:
        begun.set()
        go_on.wait(LIMIT)
        log.append("alarm ended")

    def guarded() -> None:
        with timers.watchdog(0, alarm):
            begun.wait(LIMIT)
        log.append("block ended")

    run = in_background(guarded)
    assert begun.wait(LIMIT)
    with pytest.raises(TimeoutError):
        run.result(0.01)
    go_on.set()
    run.result(LIMIT)
    assert log == ["alarm ended", "block ended"]


def test_a_watchdog_is_not_early() -> None:
    grain = time.get_clock_info("monotonic").resolution
    assert timers.time_to_fire(0.02) >= 0.02 - grain


def test_a_watchdog_that_does_not_fire_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timers, "LIMIT", 0.01)
    with pytest.raises(TimeoutError, match="no alarm"):
        timers.time_to_fire(3600)


class NotedTimer(threading.Timer):
    """A timer that notes what becomes of it."""

    log: ClassVar[list[str]] = []

    def __init__(self, interval: float, function: Callable[[], object]) -> None:
        def noted() -> None:
            self.log.append("begins")
            function()
            self.log.append("ends")

        super().__init__(interval, noted)

    def start(self) -> None:
        self.log.append("daemon" if self.daemon else "not a daemon")
        super().start()

    def run(self) -> None:
        time.sleep(0.001)  # a thread may come late
        super().run()

    def cancel(self) -> None:
        self.log.append("cancelled")
        super().cancel()


def test_cancel_comes_too_late_for_what_has_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "Timer", NotedTimer)
    for _ in range(20):
        NotedTimer.log.clear()
        assert not timers.is_stopped_by_cancel()
        assert NotedTimer.log == ["daemon", "begins", "cancelled", "ends"]


def test_timers_of_the_demonstration_do_not_outlive_ctrl_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threading, "Timer", NotedTimer)
    NotedTimer.log.clear()
    timers.threads_of(2)
    with timers.watchdog(3600, must_not_be):
        pass
    assert NotedTimer.log.count("daemon") == 3
    assert "not a daemon" not in NotedTimer.log


def test_timers_are_threads_and_cancelled_ones_are_not() -> None:
    threads = threading.active_count()
    assert timers.threads_of(7) == 7
    assert threading.active_count() == threads


class FakeTime:
    """A clock that only waiting and working move, in whole seconds."""

    def __init__(self, until: float, work: Callable[[], int] = lambda: 0) -> None:
        self.now = 1000.0
        self.calls: list[float] = []
        self._until = until
        self._work = work

    def wait(self, seconds: float) -> bool:
        assert seconds >= 0
        self.now += seconds
        return self.now - 1000 > self._until

    def action(self) -> None:
        self.calls.append(self.now - 1000)
        self.now += self._work()

    def clock(self) -> float:
        return self.now

    def repeat(self, interval: float) -> list[float]:
        """Return when the action is called, in seconds since the start."""
        timers.repeat(interval, self.action, must_not_be, self.clock, self.wait)
        return self.calls


def must_not_be(*_: object) -> None:
    pytest.fail("called")


@given(st.integers(1, 20), st.lists(st.integers(0, 100)))
def test_calls_come_at_the_first_point_that_has_not_passed(
    interval: int, works: list[int]
) -> None:
    remaining = iter(works)
    calls = FakeTime(500, lambda: next(remaining, 0)).repeat(interval)
    last, free = 0.0, 0.0  # the call before, and when its work had ended
    for call, work in zip_longest(calls, works[: len(calls)], fillvalue=0):
        assert call % interval == 0
        assert call > last
        assert call >= free
        assert call - interval == last or call - interval < free  # none left out
        last, free = call, call + work
    following = max(last + interval, interval * math.ceil(free / interval))
    assert following > 500  # none left out at the end


def test_a_wait_that_is_short_makes_no_call_early() -> None:
    fake = FakeTime(100)
    exact = fake.wait

    def short(seconds: float) -> bool:
        return exact(seconds if seconds <= 1 else seconds / 2)

    timers.repeat(16, fake.action, must_not_be, fake.clock, short)
    assert fake.calls == [16, 32, 48, 64, 80, 96]


def test_errors_of_rounding_do_not_pile_up() -> None:
    calls = FakeTime(1000).repeat(0.1)
    assert len(calls) == 10_000
    assert max(abs(at - 0.1 * k) for k, at in enumerate(calls, 1)) < 1e-9


def test_an_action_that_fails_is_reported_and_called_again() -> None:
    fake = FakeTime(35)
    errors: list[Exception] = []

    def action() -> None:
        fake.action()
        raise ConnectionError(len(fake.calls))

    timers.repeat(10, action, errors.append, fake.clock, fake.wait)
    assert fake.calls == [10, 20, 30]
    assert [error.args for error in errors] == [(1,), (2,), (3,)]


def test_who_is_stopped_before_the_first_call_makes_none() -> None:
    timers.repeat(1, must_not_be, must_not_be, lambda: 0, lambda _: True)


@pytest.mark.parametrize("interval", [0, -1, math.nan])
def test_an_interval_is_more_than_nothing(interval: float) -> None:
    with pytest.raises(ValueError, match=f"not {interval}"):
        timers.Repeating(interval, print)


def test_a_repeating_timer_stops_while_it_waits() -> None:
    threads = threading.active_count()

    def start_and_stop() -> timers.Repeating:
        with timers.Repeating(3600, must_not_be) as repeating:
            assert threading.active_count() == threads + 2
        return repeating

    repeating = in_background(start_and_stop).result(LIMIT)
    repeating.stop()  # once more does no harm


def test_a_repeating_timer_ends_its_last_call_first() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def action() -> None:
        begun.set()
        go_on.wait(LIMIT)
        ended.set()

    with timers.Repeating(0.001, action) as repeating:
        assert begun.wait(LIMIT)
        stopping = in_background(repeating.stop)
        with pytest.raises(TimeoutError):
            stopping.result(0.01)
        go_on.set()
    stopping.result(LIMIT)
    assert ended.is_set()


def test_an_action_can_stop_its_timer() -> None:
    calls, errors = in_background(timers.real_calls, 0.001, 3).result(LIMIT)
    assert len(calls) == 3
    assert [str(error) for error in errors] == ["try again"]


def test_errors_are_logged_unless_told_otherwise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failed = threading.Event()

    def action() -> None:
        failed.set()
        raise ConnectionError("try again")

    with caplog.at_level(logging.ERROR), timers.Repeating(0.001, action):
        assert failed.wait(LIMIT)
    assert "try again" in caplog.text
    assert "in action" in caplog.text


# -- example14


def test_a_worker_works_until_it_is_stopped() -> None:
    pieces = []
    three = threading.Event()

    def work() -> None:
        pieces.append("piece")
        if len(pieces) == 3:
            three.set()

    threads = threading.active_count()
    with stops.Worker(work, 0.001):
        assert three.wait(LIMIT)
        assert threading.active_count() == threads + 1
    assert threading.active_count() == threads


def test_a_pause_ends_when_the_worker_is_stopped() -> None:
    worked = threading.Event()

    def start_and_stop() -> None:
        with stops.Worker(worked.set, 3600):
            worked.wait(LIMIT)

    in_background(start_and_stop).result(LIMIT)
    assert worked.is_set()


def test_a_worker_that_does_not_stop_is_reported_with_its_stack() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def answer_never_comes() -> None:
        begun.set()
        go_on.wait(LIMIT)

    worker = stops.Worker(answer_never_comes, 0)
    worker.start()
    assert begun.wait(LIMIT)
    with pytest.raises(TimeoutError, match=r"has not stopped in 0.01 s") as error:
        worker.stop(0.01)
    assert "in answer_never_comes" in error.value.__notes__[0]
    go_on.set()
    worker.stop()


def test_what_a_worker_raises_comes_out_of_stop() -> None:
    def work() -> None:
        raise OSError("disk full")

    worker = stops.Worker(work, 3600)
    worker.start()
    for _ in range(2):
        with pytest.raises(OSError, match="disk full"):
            worker.stop(LIMIT)


def test_a_daemon_is_cut_off_and_who_is_asked_finishes() -> None:
    assert stops.report_of("daemon") == []
    assert stops.report_of("polite") == ["first line", "last line", "signature"]


def test_a_program_that_fails_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stops, "PROGRAM", "raise SystemExit(1)")
    with pytest.raises(subprocess.CalledProcessError):
        stops.report_of("polite")


# -- example15


def run_in_thread(function: Callable[..., object], *args: object, name: str) -> None:
    thread = threading.Thread(target=function, args=args, name=name)
    thread.start()
    thread.join()


def test_uncaught_exceptions_are_collected_and_not_printed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with uncaught.collected_exceptions() as collected:
        run_in_thread(uncaught.parse, "ten", name="first")
        run_in_thread(uncaught.parse, "10", name="second")
        run_in_thread(sys.exit, 3, name="third")
    found = [(one.thread, repr(one.error)) for one in collected]
    assert found == [
        ("first", "ValueError(\"invalid literal for int() with base 10: 'ten'\")"),
        ("third", "SystemExit(3)"),
    ]
    assert capfd.readouterr() == ("", "")


def test_the_hook_is_put_back_also_after_a_failure() -> None:
    before = threading.excepthook
    with suppress(KeyError), uncaught.collected_exceptions():
        assert threading.excepthook is not before
        raise KeyError
    assert threading.excepthook is before


def test_collected_exceptions_keep_nothing_else_alive() -> None:
    class Large:
        pass

    seen = []

    def fail() -> None:
        large = Large()
        seen.append(weakref.ref(large))
        raise ValueError

    with uncaught.collected_exceptions() as collected:
        run_in_thread(fail, name="large")
    gc.collect()
    assert seen[0]() is None
    assert len(collected) == 1


def test_the_hook_copes_with_what_is_not_known() -> None:
    with uncaught.collected_exceptions() as collected:
        args = threading.ExceptHookArgs([ValueError, None, None, None])
        threading.excepthook(args)
    assert collected[0].thread == "?"
    assert isinstance(collected[0].error, ValueError)


def test_join_raises_what_the_thread_has_raised_once() -> None:
    thread = uncaught.RaisingThread(target=uncaught.parse, args=("ten",))
    thread.start()
    with pytest.raises(ValueError, match="'ten'") as error:
        thread.join(LIMIT)
    assert error.traceback[-1].name == "parse"
    thread.join()


def test_join_of_a_thread_that_still_runs_or_has_not_failed() -> None:
    go_on = threading.Event()
    thread = uncaught.RaisingThread(target=go_on.wait, args=(LIMIT,))
    thread.start()
    thread.join(0)
    assert thread.is_alive()
    go_on.set()
    thread.join()
    assert not thread.is_alive()


def test_sys_exit_in_a_raising_thread_is_not_lost() -> None:
    thread = uncaught.RaisingThread(target=sys.exit, args=(3,))
    thread.start()
    with pytest.raises(SystemExit) as exit_:
        thread.join()
    assert exit_.value.code == 3


def test_a_raised_exception_does_not_keep_its_thread_alive() -> None:
    thread = uncaught.RaisingThread(target=uncaught.parse, args=("ten",))
    thread.start()
    gone = weakref.ref(thread)
    gc.disable()
    try:
        with suppress(ValueError):
            thread.join()
        del thread
        assert gone() is None  # no cycle that only the collector could free
    finally:
        gc.enable()


def test_programs_with_a_thread_that_fails() -> None:
    for statement in ("1/0", "sys.exit(3)", "pass"):
        program = uncaught.run_program(statement)
        assert (program.returncode, program.stdout) == (0, "all is well\n")
        assert ("ZeroDivisionError" in program.stderr) == (statement == "1/0")


# -- example16


def some(*intervals: tuple[float, float]) -> list[Interval]:
    return [Interval("thread", "state", began, ended) for began, ended in intervals]


def test_overlapping_intervals_are_counted() -> None:
    assert timelines.most_at_once([]) == 0
    assert timelines.most_at_once(some((0, 1))) == 1
    assert timelines.most_at_once(some((1, 2), (0, 1))) == 1
    assert timelines.most_at_once(some((0, 2), (1, 3), (2, 4))) == 2
    assert timelines.most_at_once(some((0, 9), (1, 8), (2, 3))) == 3


def test_a_timeline_notes_also_what_fails() -> None:
    now = iter([1.0, 2.0, 5.0, 9.0])
    timeline = timelines.Timeline(lambda: next(now))
    with suppress(KeyError), timeline.interval("outer"), timeline.interval("inner"):
        raise KeyError
    name = threading.current_thread().name
    assert timeline.intervals() == [
        Interval(name, "outer", 1, 9),
        Interval(name, "inner", 2, 5),
    ]


def test_a_recorded_lock_is_a_lock() -> None:
    timeline = timelines.Timeline()
    waits = threading.Semaphore(0)
    lock = timelines.RecordedLock(timeline, waits.release)

    def use() -> None:
        with lock.held():
            pass

    with lock.held():
        waits.acquire()
        other = in_background(use)
        assert waits.acquire(timeout=LIMIT)
        with pytest.raises(TimeoutError):
            other.result(0.01)
    other.result(LIMIT)
    states = [one.state for one in timeline.intervals()]
    assert states == ["waiting", "holding", "waiting", "holding"]
    first, second = (one for one in timeline.intervals() if one.state == "holding")
    assert first.ended <= second.began
    waited = timeline.intervals()[2]
    assert waited.began <= first.ended <= waited.ended <= second.began


def test_a_recorded_lock_is_released_by_a_block_that_fails() -> None:
    lock = timelines.RecordedLock(timelines.Timeline())
    for _ in range(2):
        with pytest.raises(KeyError), lock.held():
            raise KeyError


def test_a_recorded_lock_that_was_not_acquired_is_not_released() -> None:
    def cannot_wait() -> None:
        raise TimeoutError

    lock = timelines.RecordedLock(timelines.Timeline(), cannot_wait)
    with pytest.raises(TimeoutError), lock.held():
        pass


@pytest.mark.parametrize(("n_threads", "rounds"), [(1, 1), (2, 3), (5, 1)])
def test_who_waits_and_who_holds(n_threads: int, rounds: int) -> None:
    intervals = timelines.record(n_threads, rounds)
    held = [one for one in intervals if one.state == "holding"]
    waiting = [one for one in intervals if one.state == "waiting"]
    assert len(held) == len(waiting) == 1 + n_threads * rounds
    assert timelines.most_at_once(held) == 1
    assert timelines.most_at_once(waiting) == n_threads
    assert len({one.thread for one in intervals}) == 1 + n_threads


def test_threads_that_do_not_come_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timelines, "LIMIT", 0.01)
    monkeypatch.setattr(timelines, "work", lambda *_: None)
    with pytest.raises(TimeoutError, match="not all at work"):
        timelines.record(2, 1)


# -- what examples 9 to 16 have in common


def replies(*values: T) -> Callable[..., T]:
    """Return a function that returns one value after the other."""
    following = iter(values)
    return lambda *_, **__: next(following)


def in_loop(cells: list[float], steps: int, *_: object) -> list[list[float]]:
    return phases.spread(cells, steps)


def in_step(cells: list[float], steps: int) -> list[float]:
    return phases.spread(cells, steps)[-1]


class Roomy(BoundedBuffer[T]):
    def __init__(self, capacity: int) -> None:
        super().__init__(capacity + 1)


def overfull(buffer: BoundedBuffer[int], *_: object, **__: object) -> list[int]:
    buffer.most += 1
    return list(range(-3, 2000))


def always_well(_: object, __: int, start: Callable[[], object]) -> list[str]:
    start()
    return RIGHT_LOG


class Impatient(events.StartSignal):
    def wait(self, timeout: float | None = None) -> None:
        pass


class Generous(pools.Pool[pools.Connection]):
    @contextmanager
    def lent(self, timeout: float | None = None) -> Iterator[pools.Connection]:
        if timeout == 0.01:
            yield pools.Connection()
        else:
            with super().lent(timeout) as connection:
                yield connection


@contextmanager
def nervous(seconds: float, alarm: Callable[[], object]) -> Iterator[None]:
    if seconds > 1:
        alarm()
    with watchdog(seconds, alarm):
        yield


class Eager(stops.Worker):
    def start(self) -> None:
        self._work()
        super().start()


class Forgiving(stops.Worker):
    def stop(self, timeout: float | None = LIMIT) -> None:
        with suppress(TimeoutError):
            super().stop(timeout)


class Silent(threading.Thread):
    def run(self) -> None:
        with suppress(Exception):
            super().run()


def program(status: int, stderr: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.CompletedProcess([], status, "", stderr)


TRACEBACK = program(0, "Exception in thread worker")
RIGHT_LOG = ["comes"] * 3 + ["start"] + ["goes on"] * 3
HELD = [Interval("A", "holding", k, k + 0.5) for k in range(13)]


@pytest.mark.parametrize(
    ("module", "name", "replacement", "claim"),
    [
        (buffers, "BoundedBuffer", Roomy, "took more than its capacity"),
        (buffers, "hand_over", replies([]), "lost or came twice"),
        (buffers, "hand_over", overfull, "4 items were inside, not 3"),
        (buffers, "two_waiters_one_item", replies(*[["waits"] * 2] * 2), "too late"),
        (events, "StartSignal", Impatient, "has not started"),
        (events, "log_of_clients", replies(["goes on", "start"]), "not in order"),
        (events, "log_of_clients", always_well, "not all .* learnt"),
        (events, "pulse", threading.Event.set, "the pulse was to be missed"),
        (phases, "spread_with_threads", replies([]), "something else than the loop"),
        (phases, "spread_out_of_step", in_step, "was to read old cells"),
        (phases, "spread_with_threads", in_loop, "a thread was to fail"),
        (phases, "time.perf_counter", replies(0.0, 100.0), "the others have waited"),
        (pools, "query_together", replies(4), "serve one thread at a time"),
        (pools, "Pool", Generous, "more connections than there are"),
        (pools, "admitted", replies(3), "the plain semaphore was to grow"),
        (pools, "admitted", replies(4, 4), "was to stay as it is"),
        (pools, "threading.BoundedSemaphore", threading.Semaphore, "was to refuse"),
        (timers, "time_to_fire", replies(0.01), "the watchdog was early"),
        (timers, "watchdog", nervous, "although the work had ended"),
        (timers, "is_stopped_by_cancel", replies(True), "too late"),
        (timers, "threads_of", replies(1), "each timer was to be a thread"),
        (timers, "real_calls", replies(([], [])), "calls at"),
        (timers, "made_up_calls", replies([]), "keep to the grid"),
        (
            timers,
            "made_up_calls",
            replies([10 * k for k in range(1, 1001)], [10, 20]),
            "were to be skipped",
        ),
        (stops, "Worker", Eager, "2 pieces of work"),
        (stops, "Worker", Forgiving, "does not look at the event"),
        (stops, "report_of", replies([], []), "not as expected"),
        (uncaught, "run_program", replies(program(1, ""), TRACEBACK), "status 0 were"),
        (uncaught, "run_program", replies(TRACEBACK, TRACEBACK), "without a word"),
        (uncaught, "parse", replies(10), "the hook was to see both"),
        (uncaught, "RaisingThread", Silent, "join.. was to raise"),
        (timelines, "record", replies(HELD[1:]), "held often"),
        (
            timelines,
            "record",
            replies([*HELD, Interval("A", "computing", 0, 1)]),
            "in two states",
        ),
        (timelines, "record", replies(HELD), "wait together, but 0 did"),
    ],
)
def test_a_claim_that_does_not_show_fails_the_script(
    module: ModuleType,
    name: str,
    replacement: object,
    claim: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{module.__name__}.{name}", replacement)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match=claim):
        module.main()


# -- what copied code must bear


def test_an_exception_noted_during_a_join_is_raised_by_the_next() -> None:
    class Slow(uncaught.RaisingThread):
        """A thread that notes its exception while another looks for it."""

        @property
        def _error(self) -> BaseException | None:
            seen = self.__dict__.get("noted")
            if seen is None and self.is_alive():
                go_on.set()  # between this look and what follows, the thread ends
                threading.Thread.join(self, LIMIT)
            return seen

        @_error.setter
        def _error(self, error: BaseException | None) -> None:
            self.__dict__["noted"] = error

    go_on = threading.Event()

    def fail() -> None:
        assert go_on.wait(LIMIT)
        raise ValueError("late")

    thread = Slow(target=fail)
    thread.start()
    thread.join(0.01)
    go_on.set()
    with pytest.raises(ValueError, match="late"):
        thread.join(LIMIT)


@pytest.mark.parametrize("interval", [-1, math.nan, math.inf])
def test_impossible_pauses_are_refused(interval: float) -> None:
    with pytest.raises(ValueError, match="cannot pause"):
        stops.Worker(print, interval)
    for make in (
        lambda: timers.Repeating(interval, print),
        lambda: timers.watchdog(interval, print).__enter__(),
    ):
        with pytest.raises(ValueError, match=r"must be more than 0|cannot wait"):
            make()


def test_a_worker_may_be_stopped_by_its_own_work() -> None:
    calls: list[int] = []

    def work() -> None:
        calls.append(1)
        worker.stop()

    worker = stops.Worker(work, 0)
    with worker:
        worker._thread.join(LIMIT)
    assert calls == [1]


def test_the_exception_of_a_block_goes_before_that_of_its_worker() -> None:
    def fail() -> None:
        raise ValueError("worker")

    with pytest.raises(KeyError) as error, stops.Worker(fail, 0):
        raise KeyError("block")
    assert error.value.__notes__ == [
        "nor did the worker end well: ValueError('worker')"
    ]
    with pytest.raises(ValueError, match="worker"), stops.Worker(fail, 0):
        pass


def test_a_start_signal_is_for_one_start() -> None:
    signal = events.StartSignal()
    with suppress(OSError), signal.starting():
        raise OSError
    with pytest.raises(RuntimeError, match="one start"), signal.starting():
        pass


def test_clients_learn_of_a_start_that_raises_and_it_is_not_repeated() -> None:
    signal = events.StartSignal()
    calls: list[int] = []

    def start() -> None:
        calls.append(1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        events.log_of_clients(signal, 2, start)
    assert calls == [1]
    with pytest.raises(RuntimeError, match="has failed"):
        signal.wait(0)


def test_nobody_produces_for_nobody() -> None:
    with pytest.raises(ValueError, match="must be a consumer"):
        buffers.hand_over(BoundedBuffer[int](1), [[1, 2]], 0)
