"""Chapter 16, counters: the parts a reader would copy."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, NoReturn

import example01_lockless_counter as lockless
import example02_locked_counter as locked
import example03_how_a_locked_counter_scales as scales
import example04_approximate_counter as approximate
import pytest
from example01_lockless_counter import Counter, PausingInt, run_together
from example02_locked_counter import (
    Answer,
    LockedCounter,
    Meeting,
    MeetingCounter,
    Witness,
    count_and_ask,
    keeps,
)
from example03_how_a_locked_counter_scales import seconds_for
from example04_approximate_counter import ApproximateCounter, LocalCounter
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from interleaving import TellingLock

LIMIT = 30.0  # seconds that a test waits for what must come

ALL = [lockless, locked, scales, approximate]

THREADS = pytest.mark.parametrize("n_threads", [2, 3, 20])


def nothing() -> None:
    pass


def stress(seconds: float, n_threads: int = 8, threshold: int = 64) -> int:
    """Let threads count so long with either counter, in front of a witness.

    Returns:
        How many answers were checked.
    """

    def count(
        witness: Witness,
        increment: Callable[[], object],
        gets: Sequence[tuple[Callable[[], int], int]],
    ) -> int:
        end = time.monotonic() + seconds / 2
        last, checked = [0] * len(gets), 0
        while time.monotonic() < end:
            for which, (get, bound) in enumerate(gets):
                for one in count_and_ask(witness, increment, get, 100):
                    assert one.ended - bound <= one.value <= one.begun
                    assert one.value >= last[which]
                    last[which] = one.value
                    checked += 1
        return checked

    exact, witness = LockedCounter(), Witness()
    job = partial(count, witness, exact.increment, [(exact.get, 0)])
    checked = sum(run_together([job] * n_threads))
    assert exact.get() == checked

    vague, witness = ApproximateCounter(n_threads, threshold), Witness()
    gets = [(vague.get, vague.bound), (vague.get_exact, 0)]
    jobs = [partial(count, witness, one.increment, gets) for one in vague.locals]
    total = sum(run_together(jobs))
    assert vague.get_exact() == total
    assert vague.get() >= total - vague.bound
    return checked + total


# -- all of them


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.__name__)
def test_a_demonstration_can_be_repeated(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module_, name, less in (
        (locked, "INCREMENTS", 50),
        (scales, "ROUNDS", 1),
        (approximate, "TIMED", 1024),
        (approximate, "ROUNDS", 1),
    ):
        monkeypatch.setattr(module_, name, less)
    with no_thread_is_left():
        for _ in range(3):
            run_main(module, monkeypatch)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) % 3 == 0
    assert lines[0] == lines[len(lines) // 3]


@pytest.mark.parametrize("module", [lockless, locked, approximate])
@pytest.mark.parametrize("n_threads", ["1", "21", "-3", "many"])
def test_threads_have_their_limits(
    complaint: Callable[..., str], module: Any, n_threads: str
) -> None:
    assert "--threads" in complaint(module, "--threads", n_threads)


def test_counters_keep_their_specification_under_stress() -> None:
    with no_thread_is_left():
        assert stress(0.4) > 0


# -- example01


@pytest.mark.parametrize("kind", [Counter, LockedCounter])
@pytest.mark.parametrize("start", [0, -3, 10**20])
def test_one_thread_counts_right(kind: Any, start: int) -> None:
    counter = kind(start)
    for n in range(5):
        assert counter.get() == start + n
        counter.increment()


@THREADS
def test_all_increments_but_one_are_lost_when_all_read_first(n_threads: int) -> None:
    assert lockless.read_together(n_threads) == 1


@pytest.mark.parametrize("times", [0, 1, 7, 300])
def test_a_late_write_undoes_what_was_counted_meanwhile(times: int) -> None:
    assert lockless.write_late(times) == (times, 1)


def test_the_pause_is_between_read_and_write() -> None:
    seen = []
    counter = Counter(PausingInt(5, lambda: seen.append(counter.get())))
    counter.increment()
    counter.increment()
    assert seen == [5, 6]
    assert counter.get() == 7


@THREADS
def test_jobs_run_together_and_results_come_in_their_order(n_threads: int) -> None:
    barrier = threading.Barrier(n_threads, timeout=LIMIT)

    def job(n: int) -> tuple[int, int]:
        barrier.wait()
        return n, threading.get_ident()

    with no_thread_is_left():
        results = run_together([partial(job, n) for n in range(n_threads)])
    assert [n for n, _ in results] == list(range(n_threads))
    assert len({thread for _, thread in results}) == n_threads


def test_no_job_begins_before_all_threads_are_there() -> None:
    threads: list[None] = []

    def job() -> int:
        return len(threads)

    class NotedPool(ThreadPoolExecutor):
        def submit(self, *arguments: Any) -> Any:  # type: ignore[override]
            threads.append(None)
            return super().submit(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lockless, "ThreadPoolExecutor", NotedPool)
        assert run_together([job] * 10) == [10] * 10


def test_what_a_job_raises_is_raised() -> None:
    def fail() -> NoReturn:
        raise ArithmeticError("cannot count")

    with no_thread_is_left(), pytest.raises(ArithmeticError):
        run_together([nothing, fail, nothing])


@pytest.mark.parametrize("submitted", range(4))
def test_ctrl_c_before_all_have_started_leaves_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch, submitted: int
) -> None:
    class InterruptedPool(ThreadPoolExecutor):
        count = 0

        def submit(self, *arguments: Any) -> Any:  # type: ignore[override]
            if self.count == submitted:
                raise KeyboardInterrupt
            self.count += 1
            return super().submit(*arguments)

    monkeypatch.setattr(lockless, "ThreadPoolExecutor", InterruptedPool)
    monkeypatch.setattr(lockless, "LIMIT", 1000.0)  # nobody waits for that
    ran: list[None] = []
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        run_together([partial(ran.append, None)] * 4)
    assert not ran


def test_ctrl_c_when_all_have_started_lets_all_of_them_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class InterruptedFuture(Future[Any]):
        def result(self, timeout: float | None = None) -> NoReturn:
            raise KeyboardInterrupt

    class InterruptedPool(ThreadPoolExecutor):
        def submit(self, *arguments: Any) -> Any:  # type: ignore[override]
            super().submit(*arguments)
            return InterruptedFuture()

    monkeypatch.setattr(lockless, "ThreadPoolExecutor", InterruptedPool)
    barrier = threading.Barrier(4, timeout=LIMIT)
    met: list[int] = []
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        run_together([lambda: met.append(barrier.wait())] * 4)
    assert sorted(met) == [0, 1, 2, 3]


@pytest.mark.parametrize("started", range(3))
def test_a_thread_that_does_not_start_is_not_waited_for_in_vain(
    monkeypatch: pytest.MonkeyPatch, started: int
) -> None:
    class LazyPool(ThreadPoolExecutor):
        count = 0

        def submit(self, *arguments: Any) -> Any:  # type: ignore[override]
            self.count += 1
            return super().submit(*arguments) if self.count <= started else Future()

    monkeypatch.setattr(lockless, "ThreadPoolExecutor", LazyPool)
    monkeypatch.setattr(lockless, "LIMIT", 0.05)
    ran: list[None] = []
    with no_thread_is_left(), pytest.raises(TimeoutError, match="did not start"):
        run_together([partial(ran.append, None)] * 3)
    assert not ran


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.__name__)
def test_threads_that_do_not_start_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    def fail(*_: object) -> NoReturn:
        raise TimeoutError("a thread did not start")

    monkeypatch.setattr(module, "run_together", fail, raising=False)
    monkeypatch.setattr(scales, "run_together", fail)
    with pytest.raises(SystemExit, match="a thread did not start"):
        run_main(module, monkeypatch)


def test_a_counter_that_loses_nothing_refutes_the_first_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lockless, "Counter", LockedCounter)
    monkeypatch.setattr(lockless, "LIMIT", 0.1)
    with no_thread_is_left(), pytest.raises(SystemExit, match="have not met"):
        run_main(lockless, monkeypatch, "--threads", 2)


@pytest.mark.parametrize(
    ("function", "instead", "message"),
    [("read_together", 2, "write 1"), ("write_late", (1000, 1001), "late write")],
)
def test_a_race_that_does_not_show_is_told(
    monkeypatch: pytest.MonkeyPatch, function: str, instead: Any, message: str
) -> None:
    monkeypatch.setattr(lockless, function, lambda _: instead)
    with pytest.raises(SystemExit, match=message):
        run_main(lockless, monkeypatch)


# -- example02


@THREADS
def test_threads_that_ask_for_the_lock_do_not_meet_behind_it(n_threads: int) -> None:
    meeting = Meeting(n_threads)
    counter = MeetingCounter(meeting)
    with no_thread_is_left():
        run_together([counter.increment] * n_threads)
    assert (meeting.most, counter.get()) == (1, n_threads)


@THREADS
def test_threads_meet_where_no_lock_is(n_threads: int) -> None:
    meeting = Meeting(n_threads)
    counter = Counter(PausingInt(0, meeting.meet))
    run_together([counter.increment] * n_threads)
    assert (meeting.most, counter.get()) == (n_threads, 1)


def test_who_waits_for_nobody_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locked, "LIMIT", 0.01)
    meeting = Meeting(2)
    with pytest.raises(TimeoutError), meeting:
        meeting.meet()
    with meeting:  # the lock is free
        pass


@pytest.mark.parametrize("method", ["increment", "get"])
def test_both_methods_wait_for_an_increment_that_has_begun(method: str) -> None:
    asked = threading.Event()
    later: list[Future[Any]] = []

    def pause() -> None:
        if not later:
            later.append(pool.submit(getattr(counter, method)))
            assert asked.wait(LIMIT)

    counter = LockedCounter(PausingInt(0, pause))
    counter._lock = TellingLock(asked.set)
    with ThreadPoolExecutor(1) as pool:
        counter.increment()
        assert later[0].result(LIMIT) == {"increment": None, "get": 1}[method]
    assert counter.get() == {"increment": 2, "get": 1}[method]


def test_one_thread_is_told_the_exact_value() -> None:
    counter = LockedCounter()
    answers = count_and_ask(Witness(), counter.increment, counter.get, 3)
    assert answers == [(1, 1, 1), (2, 2, 2), (3, 3, 3)]


def test_a_witness_counts_what_has_begun_apart_from_what_has_ended() -> None:
    witness = Witness()
    inside: list[Answer] = []
    witness.call(lambda: inside.append(witness.ask(lambda: 7)))
    assert inside == [(0, 7, 1)]
    assert witness.ask(lambda: 8) == (1, 8, 1)


def test_what_begins_and_ends_during_get_bounds_it_from_above_only() -> None:
    witness = Witness()

    def get() -> int:
        witness.call(nothing)
        return 1

    assert witness.ask(get) == (0, 1, 1)


def test_a_witness_lets_increments_overlap() -> None:
    witness = Witness()
    barrier = threading.Barrier(3, timeout=LIMIT)
    run_together([partial(witness.call, barrier.wait)] * 3)
    assert witness.ask(lambda: 3) == (3, 3, 3)


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        ([], True),
        ([(1, 1, 1), (2, 4, 5)], True),
        ([(1, 3, 4), (2, 3, 4)], True),
        ([(1, 0, 1)], False),  # lost
        ([(1, 2, 1)], False),  # never begun
        ([(1, 3, 4), (2, 2, 4)], False),  # less than before
    ],
)
def test_answers_are_held_against_the_specification(
    answers: list[tuple[int, int, int]], kept: bool
) -> None:
    assert keeps([Answer(*one) for one in answers]) == kept


def increment_unlocked(self: Any) -> None:
    self._value += 1


def get_too_little(self: Any) -> int:
    value: int = self._value
    return value if type(value) is PausingInt else value // 2


@pytest.mark.parametrize(
    ("method", "instead", "message"),
    [
        ("increment", increment_unlocked, "one critical section"),
        ("increment", lambda self: None, "one critical section"),
        ("get", get_too_little, "keep its specification"),
    ],
)
def test_a_broken_mend_is_told(
    monkeypatch: pytest.MonkeyPatch, method: str, instead: Any, message: str
) -> None:
    monkeypatch.setattr(LockedCounter, method, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=message):
        run_main(locked, monkeypatch, "--threads", 3)


# -- example03


def test_each_increment_is_called_in_a_thread_of_its_own() -> None:
    called: list[list[int]] = [[], [], []]

    def increment(which: int) -> None:
        called[which].append(threading.get_ident())

    with no_thread_is_left():
        seconds_for([partial(increment, which) for which in range(3)], 5)
    assert [len(one) for one in called] == [5, 5, 5]
    assert [len(set(one)) for one in called] == [1, 1, 1]
    assert len({one[0] for one in called}) == 3


def test_the_time_is_from_the_first_call_to_the_last() -> None:
    times: list[float] = []
    turns = [threading.Event(), threading.Event()]

    def increment(which: int) -> None:
        assert which == 0 or turns[0].wait(LIMIT)  # the one after the other
        times.append(time.perf_counter())
        turns[which].set()

    before = time.perf_counter()
    seconds = seconds_for([partial(increment, which) for which in (0, 1)], 1)
    after = time.perf_counter()
    assert times[1] - times[0] <= seconds <= after - before


@pytest.mark.parametrize("n", [8, 160])
def test_all_numbers_of_threads_are_measured(n: int) -> None:
    with no_thread_is_left():
        taken = scales.measure(n)
    assert list(taken) == [1, 2, 4, 8]
    assert all(0 < one.single < 10 and 0 < one.each < 10 for one in taken.values())


def test_a_counter_that_loses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LockedCounter, "increment", lambda self: None)
    with pytest.raises(SystemExit, match="counted"):
        run_main(scales, monkeypatch)


@pytest.mark.parametrize("n", ["0", "-8", "12", "200008", "all"])
def test_increments_are_shared_out_evenly_and_not_too_many(
    complaint: Callable[..., str], n: str
) -> None:
    assert "--increments" in complaint(scales, "--increments", n)


# -- example04


@given(st.integers(1, 4), st.integers(1, 6), st.data())
def test_the_bound_holds_after_each_increment(
    n_locals: int, threshold: int, data: st.DataObject
) -> None:
    counter = ApproximateCounter(n_locals, threshold)
    where = st.lists(st.integers(0, n_locals - 1), max_size=60)
    last = 0
    for count, which in enumerate(data.draw(where), 1):
        counter.locals[which].increment()
        value = counter.get()
        assert counter.get_exact() == count
        assert count - counter.bound <= value <= count
        assert value % threshold == 0
        assert value >= last
        last = value


@given(st.integers(1, 5), st.integers(1, 50))
def test_the_bound_can_be_reached(n_locals: int, threshold: int) -> None:
    counter = ApproximateCounter(n_locals, threshold)
    assert approximate.fall_behind(counter) == (0, counter.bound)
    for moved, local in enumerate(counter.locals, 1):
        local.increment()
        assert counter.get() == moved * threshold
    assert counter.get() == counter.get_exact() == counter.bound + n_locals


@pytest.mark.parametrize(("n_locals", "threshold"), [(0, 1), (1, 0), (-1, 5), (2, -1)])
def test_what_cannot_count_is_refused(n_locals: int, threshold: int) -> None:
    with pytest.raises(ValueError, match=f"{n_locals} local"):
        ApproximateCounter(n_locals, threshold)


@pytest.mark.parametrize("threshold", [1, 2, 7, 100])
def test_threads_may_share_a_local_counter(threshold: int) -> None:
    counter = ApproximateCounter(2, threshold)
    seconds_for([one.increment for one in counter.locals * 3], 500)
    assert counter.get_exact() == 3000
    assert 3000 - counter.bound <= counter.get() <= 3000


@pytest.mark.parametrize("threshold", [1, 3, 64])
def test_the_bound_holds_while_threads_count(threshold: int) -> None:
    counter = ApproximateCounter(4, threshold)
    with no_thread_is_left():
        assert approximate.behind(counter, 300, 50) <= counter.bound
    assert counter.get_exact() == 4 * 350


class PausingCounter(ApproximateCounter):
    """One that calls a function before it takes what a local counter has."""

    def __init__(
        self, n_locals: int, threshold: int, pause: Callable[[], object]
    ) -> None:
        super().__init__(n_locals, threshold)
        self.pause = pause

    def take(self, local: LocalCounter) -> None:
        self.pause()
        super().take(local)


@pytest.mark.parametrize("full", [0, 1, 2])
def test_the_exact_value_is_not_taken_in_the_midst_of_a_move(full: int) -> None:
    def pause() -> None:
        exact.append(pool.submit(counter.get_exact))
        assert asked.wait(LIMIT)

    exact: list[Future[int]] = []
    asked = threading.Event()
    lock: Any = TellingLock(asked.set)
    counter = PausingCounter(3, 2, pause)
    for local in counter.locals:
        local.increment()
    counter.locals[full].lock = lock
    with ThreadPoolExecutor(1) as pool:
        counter.locals[full].increment()
        assert exact[0].result(LIMIT) == 4
    assert counter.get() == 2


def test_others_count_on_while_one_moves() -> None:
    def pause() -> None:
        run_together([counter.locals[1].increment])
        values.append(counter.get())

    values: list[int] = []
    counter = PausingCounter(2, 3, pause)
    for _ in range(3):
        counter.locals[0].increment()
    assert values == [0]
    assert (counter.get(), counter.get_exact()) == (3, 4)


def test_the_global_lock_is_taken_once_in_as_many_as_the_threshold() -> None:
    taken: list[None] = []
    counter = PausingCounter(2, 5, partial(taken.append, None))
    for local in counter.locals:
        for _ in range(5 * 7 + 4):
            local.increment()
    assert len(taken) == 14


def test_ctrl_c_before_a_move_leaves_the_counter_as_it_was() -> None:
    def interrupt() -> NoReturn:
        raise KeyboardInterrupt

    counter = PausingCounter(1, 3, interrupt)
    (local,) = counter.locals
    local.increment()
    local.increment()
    with pytest.raises(KeyboardInterrupt):
        local.increment()
    assert (counter.get(), counter.get_exact()) == (0, 2)
    counter.pause = nothing
    local.increment()
    assert (counter.get(), counter.get_exact()) == (3, 3)


def test_ctrl_c_after_a_move_leaves_no_part_of_it_undone() -> None:
    class Interrupted:
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> NoReturn:
            raise KeyboardInterrupt

    counter: Any = ApproximateCounter(1, 2)
    (local,) = counter.locals
    local.increment()
    lock, counter._lock = counter._lock, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        local.increment()
    counter._lock = lock
    assert (counter.get(), counter.get_exact()) == (2, 2)


def take_too_late(self: Any, local: Any) -> None:
    if self.threshold == 1:
        local.left = 1  # lost
    else:
        take(self, local)


take = ApproximateCounter.take


@pytest.mark.parametrize(
    ("method", "instead"),
    [
        ("take", take_too_late),
        ("get", lambda self: self.get_exact() + 1),
        ("get", lambda self: self.get_exact()),
        ("get_exact", lambda self: self.get()),
    ],
)
def test_an_approximate_counter_out_of_its_bounds_is_told(
    monkeypatch: pytest.MonkeyPatch, method: str, instead: Any
) -> None:
    monkeypatch.setattr(approximate, "TIMED", 1024)
    monkeypatch.setattr(approximate, "ROUNDS", 1)
    monkeypatch.setattr(ApproximateCounter, method, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match="within its bounds"):
        run_main(approximate, monkeypatch, "--threads", 2)


@pytest.mark.parametrize(
    ("get", "lag"), [("get", 2), ("get", -1), ("get_exact", 1), ("get_exact", -1)]
)
def test_a_value_that_may_not_be_is_found(
    monkeypatch: pytest.MonkeyPatch, get: str, lag: int
) -> None:
    counter = ApproximateCounter(1, 2)  # one may be missing, in get() only
    monkeypatch.setattr(counter, "get", counter.get_exact)
    value = counter.get_exact
    monkeypatch.setattr(counter, get, lambda: value() - lag)
    with pytest.raises(AssertionError, match=rf"{get}\(\)"):
        approximate.behind(counter, 5, 5)


def test_an_exact_value_that_runs_backwards_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = [Answer(1, 3, 4), Answer(2, 2, 4)]
    monkeypatch.setattr(approximate, "count_and_ask", lambda *_: answers)
    with pytest.raises(AssertionError, match=r"get_exact\(\)"):
        approximate.behind(ApproximateCounter(1, 1), 0, 0)


def test_how_far_behind_is_the_most_that_an_answer_lacked() -> None:
    counter = ApproximateCounter(1, 8)
    assert approximate.behind(counter, 5, 0) == 5
    assert approximate.behind(ApproximateCounter(1, 8), 20, 0) == 7
