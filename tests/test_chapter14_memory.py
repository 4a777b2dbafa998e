"""Chapter 14, races in the memory of one process: the parts a reader would copy."""

import _thread
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress
from functools import cache, partial
from itertools import islice
from types import SimpleNamespace
from typing import Any, NoReturn

import example01_lost_update as lost_update
import example02_lost_update_with_a_lock as with_lock
import example03_what_a_lock_costs as costs
import example04_where_a_switch_may_happen as switches
import example05_the_same_line_loses as lines
import example06_withdrawal as withdrawal
import example07_torn_pair as torn
import example08_lazy_initialisation as lazy
import example09_changed_while_iterated as changed
import pytest
import rendezvous
from example01_lost_update import Counter, count_with_threads
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from rendezvous import Rendezvous

LIMIT = 30.0  # seconds that a test waits for what must come

THREADS = pytest.mark.parametrize("n_threads", [2, 3, 20])

ALL = [
    lost_update,
    with_lock,
    costs,
    switches,
    lines,
    withdrawal,
    torn,
    lazy,
    changed,
]


def nothing() -> None:
    pass


def interrupt_submit(
    module: Any, monkeypatch: pytest.MonkeyPatch, submitted: int
) -> None:
    """Let Ctrl-C come when so many jobs have been submitted to a pool of `module`."""

    class InterruptedPool(ThreadPoolExecutor):
        count = 0

        def submit(self, *arguments: Any) -> Any:  # type: ignore[override]
            if self.count == submitted:
                raise KeyboardInterrupt
            self.count += 1
            return super().submit(*arguments)

    monkeypatch.setattr(module, "ThreadPoolExecutor", InterruptedPool)
    monkeypatch.setattr(module, "LIMIT", 1000.0)  # nobody waits for that


# -- all of them


@pytest.mark.parametrize("module", ALL, ids=lambda module: module.__name__)
def test_a_demonstration_can_be_repeated(
    module: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(costs, "PAUSE", 0.001)
    monkeypatch.setattr(switches, "INCREMENTS", 40_000)
    options = ["--increments", "8000"] if module is costs else []
    with no_thread_is_left():
        run_main(module, monkeypatch, *options)
        first = capsys.readouterr().out.splitlines()
        run_main(module, monkeypatch, *options)
        second = capsys.readouterr().out.splitlines()
    assert len(first) == len(second) >= 3
    assert first[-1] == second[-1]


@THREADS
@pytest.mark.parametrize(
    "module",
    [lost_update, with_lock, lines, withdrawal, torn, lazy],
    ids=lambda module: module.__name__,
)
def test_as_many_threads_may_race_as_one_likes(
    module: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    n_threads: int,
) -> None:
    with no_thread_is_left():
        run_main(module, monkeypatch, "--threads", str(n_threads))
    words = capsys.readouterr().out.split()
    assert str(n_threads - 1 if module is torn else n_threads) in words


@pytest.mark.parametrize("threads", ["1", "21", "-3", "many"])
@pytest.mark.parametrize(
    "module",
    [lost_update, with_lock, switches, lines, withdrawal, torn, lazy],
    ids=lambda module: module.__name__,
)
def test_the_number_of_threads_has_its_limits(
    complaint: Callable[..., str], module: Any, threads: str
) -> None:
    assert "--threads" in complaint(module, "--threads", threads)


# -- rendezvous


@pytest.mark.parametrize("n_threads", [1, 2, 3, 20])
def test_threads_that_nothing_keeps_apart_meet_all_at_once(n_threads: int) -> None:
    place = Rendezvous()

    def job() -> int:
        place.meet()
        return place.most

    with no_thread_is_left():
        assert place.run([job] * n_threads) == [n_threads] * n_threads


@pytest.mark.parametrize("n_threads", [1, 2, 3, 20])
def test_threads_that_a_lock_keeps_apart_come_one_by_one(n_threads: int) -> None:
    place = Rendezvous()
    inside: list[int] = []

    def job(number: int) -> None:
        with place:
            inside.append(number)
            place.meet()
            assert inside[-1] == number

    place.run([partial(job, number) for number in range(n_threads)])
    assert sorted(inside) == list(range(n_threads))
    assert place.most == 1


def test_those_who_wait_for_the_lock_have_all_come_before_the_first_goes_on() -> None:
    place = Rendezvous()
    came: list[str] = []

    def job() -> None:
        came.append("comes")
        with place:
            place.meet()
            came.append("goes on")

    place.run([job] * 5)
    assert came == ["comes"] * 5 + ["goes on"] * 5


def test_nobody_is_waited_for_who_has_ended() -> None:
    place = Rendezvous()
    place.run([place.meet, nothing, place.meet, nothing])
    assert place.most == 2


def test_who_is_handed_the_lock_is_waited_for_even_before_it_wakes_up() -> None:
    place = Rendezvous()

    def hand_over() -> None:
        with place:
            place.meet()  # the other waits for the lock
        place.meet()

    place.run([hand_over] * 2)
    assert place.most == 2


def test_threads_may_meet_again_and_again() -> None:
    place = Rendezvous()
    steps: list[int] = []

    def job() -> None:
        for step in range(5):
            steps.append(step)
            place.meet()

    place.run([job] * 4)
    assert steps == sorted(steps)


def test_where_there_is_nobody_else_nobody_is_waited_for() -> None:
    place = Rendezvous()
    place.meet()
    assert place.run([place.meet]) == [None]


def test_the_error_of_a_job_is_raised_and_no_other_waits() -> None:
    def fail() -> NoReturn:
        raise ArithmeticError("cannot")

    place = Rendezvous()
    with no_thread_is_left(), pytest.raises(ArithmeticError):
        place.run([place.meet, fail, place.meet])


def test_who_waits_in_vain_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "LIMIT", 0.02)
    place = Rendezvous()
    given_up = threading.Event()

    def meet() -> None:
        try:
            place.meet()
        finally:
            given_up.set()

    def be_busy() -> None:
        assert given_up.wait(LIMIT)

    with no_thread_is_left(), pytest.raises(TimeoutError, match=r"0\.02 s"):
        place.run([meet, be_busy])


@pytest.mark.parametrize("submitted", [0, 1, 3])
@pytest.mark.parametrize("locked", [False, True])
def test_after_ctrl_c_nobody_waits_for_those_who_never_started(
    monkeypatch: pytest.MonkeyPatch, submitted: int, locked: bool
) -> None:
    interrupt_submit(rendezvous, monkeypatch, submitted)
    place = Rendezvous()

    def job() -> None:
        with place if locked else nullcontext():
            place.meet()

    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        place.run([job] * 4)


@settings(max_examples=50)
@given(
    st.lists(
        st.lists(st.sampled_from(["meet", "lock", "lock and meet"]), max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_whatever_threads_do_they_end_and_one_at_a_time_has_the_lock(
    programs: list[list[str]],
) -> None:
    place = Rendezvous()
    holders: list[int] = []

    def job(number: int) -> int:
        for step in programs[number]:
            if step == "meet":
                place.meet()
                continue
            with place:
                holders.append(number)
                if step == "lock and meet":
                    place.meet()
                assert holders.pop() == number
                assert not holders
        return len(programs[number])

    done = place.run([partial(job, number) for number in range(len(programs))])
    assert done == [len(program) for program in programs]


# -- example01


def test_one_thread_loses_nothing() -> None:
    assert count_with_threads(Counter(), 1) == 1


@pytest.mark.parametrize("n_threads", [2, 3, 20])
def test_all_updates_but_one_are_lost_when_all_read_first(n_threads: int) -> None:
    all_have_read = threading.Barrier(n_threads)
    assert count_with_threads(Counter(all_have_read.wait), n_threads) == 1


def test_a_whole_increment_between_read_and_write_is_lost() -> None:
    increments = 0

    def let_one_in() -> None:
        nonlocal increments
        increments += 1
        if increments == 1:
            counter.increment()

    counter = Counter(between=let_one_in)
    counter.increment()
    assert (increments, counter.value) == (2, 1)


def test_a_race_that_does_not_show_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lost_update, "count_with_threads", lambda counter, n: n)
    with pytest.raises(SystemExit, match="did not show"):
        run_main(lost_update, monkeypatch)


# -- example02


@pytest.mark.parametrize("n_threads", [1, 2, 3, 20])
def test_with_a_lock_nothing_is_lost(n_threads: int) -> None:
    place = Rendezvous()
    counter = with_lock.Counter(place, place.meet)
    place.run([counter.increment] * n_threads)
    assert (counter.value, place.most) == (n_threads, 1)


@THREADS
def test_without_it_at_the_same_moment_all_updates_but_one_are_lost(
    n_threads: int,
) -> None:
    place = Rendezvous()
    counter = with_lock.Counter(nullcontext(), place.meet)
    place.run([counter.increment] * n_threads)
    assert (counter.value, place.most) == (1, n_threads)


@THREADS
def test_a_lock_in_each_step_is_no_help(n_threads: int) -> None:
    place = Rendezvous()
    counter = with_lock.LockedStepsCounter(place, place.meet)
    place.run([counter.increment] * n_threads)
    assert (counter.value, place.most) == (1, n_threads)


def test_a_counter_takes_a_plain_lock_and_gives_it_back() -> None:
    lock = threading.Lock()
    counter = with_lock.Counter(lock, lambda: held.append(lock.locked()))
    held: list[bool] = []
    counter.increment()
    assert (counter.value, held, lock.locked()) == (1, [True], False)


class UnlockedCounter(with_lock.Counter):
    def __init__(self, lock: Any, between: Any) -> None:
        super().__init__(nullcontext(), between)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("Counter", UnlockedCounter), ("LockedStepsCounter", with_lock.Counter)],
)
def test_a_counter_that_behaves_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any
) -> None:
    monkeypatch.setattr(with_lock, name, instead)
    with pytest.raises(SystemExit, match="were to meet between read and write"):
        run_main(with_lock, monkeypatch)


@pytest.mark.parametrize("module", [with_lock, withdrawal, torn, lazy])
def test_threads_that_never_come_are_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    def wait_for_nothing(self: Any, jobs: Any) -> None:
        with self._changed:
            self._wait_for(lambda: False)

    monkeypatch.setattr(rendezvous, "LIMIT", 0.01)
    monkeypatch.setattr(Rendezvous, "run", wait_for_nothing)
    with pytest.raises(SystemExit, match=r"nobody was to wait so long: .* 0\.01 s"):
        run_main(module, monkeypatch)


# -- example03


@pytest.mark.parametrize("name", ["add", "add_at_the_end"])
def test_every_design_counts_right(name: str) -> None:
    counter = costs.Counter()
    costs.seconds_for([partial(getattr(counter, name), 2_000)] * 5)
    assert counter.value == 10_000
    assert not counter.lock.locked()


@pytest.mark.parametrize(("name", "times"), [("add", 5), ("add_at_the_end", 1)])
def test_how_often_the_lock_is_taken(name: str, times: int) -> None:
    values: list[int] = []  # when the lock is taken, and when it is given back

    class Lock:
        def __enter__(self) -> None:
            values.append(counter.value)

        def __exit__(self, *_: object) -> None:
            values.append(counter.value)

    counter = costs.Counter()
    counter.lock = Lock()  # type: ignore[assignment]
    getattr(counter, name)(5)
    assert len(values) == 2 * times
    assert (values[0], values[-1]) == (0, 5)


@pytest.mark.parametrize("name", ["update_holding", "update_after"])
def test_each_update_adds_one(name: str) -> None:
    counter = costs.Counter()
    costs.seconds_for([partial(getattr(counter, name), 0.001)] * 5)
    assert counter.value == 5


def test_the_book_pauses_while_holding_the_lock_and_the_mend_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counter = costs.Counter()
    held: list[bool] = []
    monkeypatch.setattr(time, "sleep", lambda _: held.append(counter.lock.locked()))
    counter.update_holding(1)
    counter.update_after(1)
    assert held == [True, False]
    assert counter.value == 2


def test_without_a_lock_one_thread_counts_right() -> None:
    counter = costs.Counter()
    counter.add_unlocked(100)
    assert counter.value == 100


@settings(max_examples=30)
@given(st.lists(st.integers(0, 50), max_size=5))
def test_the_total_is_the_sum_of_the_shards(counts: list[int]) -> None:
    shards = [costs.Counter() for _ in counts]
    for shard, count in zip(shards, counts, strict=True):
        shard.add(count)
    assert costs.total(shards) == sum(counts)


def test_jobs_begin_when_all_threads_are_there() -> None:
    together = threading.Barrier(5, timeout=LIMIT)  # each needs all others at once
    assert costs.seconds_for([together.wait] * 5) > 0


def test_the_error_of_a_job_is_raised() -> None:
    def fail() -> NoReturn:
        raise ArithmeticError("cannot")

    with no_thread_is_left(), pytest.raises(ArithmeticError):
        costs.seconds_for([nothing, fail])


@pytest.mark.parametrize(
    ("module", "measure"),
    [
        (costs, lambda: costs.seconds_for([nothing] * 4)),
        (switches, lambda: switches.lost(switches.plainly, 4, 10)),
        (lines, lambda: lines.lost(lines.with_call, 4)),
    ],
)
def test_after_ctrl_c_nobody_waits_at_a_barrier(
    monkeypatch: pytest.MonkeyPatch, module: Any, measure: Callable[[], object]
) -> None:
    interrupt_submit(module, monkeypatch, 3)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        measure()


@pytest.mark.parametrize("increments", ["0", "-8", "7", "1001", "80000000", "much"])
def test_increments_can_be_shared_among_eight(
    complaint: Callable[..., str], increments: str
) -> None:
    assert "--increments" in complaint(costs, "--increments", increments)


@pytest.mark.parametrize(
    ("name", "instead", "message"),
    [
        ("add", lambda counter, times: None, "0 increments instead of 80"),
        ("add_at_the_end", lambda counter, times: None, "0 increments instead of 80"),
        ("update_holding", lambda counter, pause: None, "0 updates instead of"),
        ("update_after", lambda counter, pause: None, "0 updates instead of"),
    ],
)
def test_a_design_that_counts_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, message: str
) -> None:
    monkeypatch.setattr(costs, "PAUSE", 0.001)
    monkeypatch.setattr(costs.Counter, name, instead)
    with pytest.raises(SystemExit, match=message):
        run_main(costs, monkeypatch, "--increments", "80")


def test_pauses_that_overlap_in_spite_of_the_lock_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def in_no_time(jobs: Any) -> float:
        for job in jobs:
            job()
        return 0.0

    monkeypatch.setattr(costs, "PAUSE", 0.001)
    monkeypatch.setattr(costs, "seconds_for", in_no_time)
    with pytest.raises(SystemExit, match="one by one"):
        run_main(costs, monkeypatch, "--increments", "80")


# -- example04


@pytest.mark.parametrize(
    ("loop", "instruction", "value"),
    [
        (switches.plainly, "JUMP_BACKWARD", 1),
        (switches.with_a_builtin, "CALL", 0),
        (switches.with_a_function, "RESUME", 0),
    ],
)
def test_a_request_is_heard_where_the_interpreter_looks(
    loop: Any, instruction: str, value: int
) -> None:
    heard = switches.where_heard(loop)
    assert (heard.instruction, heard.value) == (instruction, value)


def test_every_request_is_heard_when_the_line_is_done() -> None:
    """Not only the first time: also when the interpreter has specialised the loop."""
    counter = switches.Counter()
    heard: list[int] = []
    previous = signal.signal(signal.SIGTERM, lambda *_: heard.append(counter.value))
    try:
        request = partial(_thread.interrupt_main, signal.SIGTERM)
        switches.plainly(counter, islice(iter(request, "never"), 1000))
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert heard == list(range(1, 1001))


def test_the_handler_of_the_signal_is_restored_even_after_an_error() -> None:
    def fail(counter: Any, steps: Any) -> NoReturn:
        raise ArithmeticError("cannot")

    before = signal.getsignal(signal.SIGTERM)
    switches.where_heard(switches.plainly)
    assert signal.getsignal(signal.SIGTERM) == before
    with pytest.raises(ArithmeticError):
        switches.where_heard(fail)
    assert signal.getsignal(signal.SIGTERM) == before


def test_only_the_main_thread_can_tell_where_a_request_is_heard() -> None:
    with ThreadPoolExecutor(1) as pool:
        error = pool.submit(switches.where_heard, switches.plainly).exception(LIMIT)
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    "loop", [switches.plainly, switches.with_a_builtin, switches.with_a_function]
)
def test_a_single_thread_loses_nothing_whatever_the_loop(loop: Any) -> None:
    assert switches.lost(loop, 1, 1000) == 0


@pytest.mark.skipif(switches.gil_state() == "off", reason="needs a GIL")
def test_under_a_gil_the_plain_line_loses_nothing() -> None:
    assert switches.lost(switches.plainly, 4, 20_000) == 0


def test_what_is_lost_is_counted() -> None:
    def add_once(counter: switches.Counter, steps: Any) -> None:
        counter.value = 1

    assert switches.lost(add_once, 3, 10) == 29


def test_the_loop_is_listed_from_its_read_to_where_it_looks(
    capsys: pytest.CaptureFixture[str],
) -> None:
    switches.list_loop(switches.where_heard(switches.plainly))
    out = capsys.readouterr().out.splitlines()
    notes = [line.split()[-1] for line in out if line.endswith(("read", "write"))]
    assert notes == ["read", "write"]
    assert out[-1].endswith("here a request is heard")
    assert out[-1].split()[0] == "JUMP_BACKWARD"


def test_the_switch_interval_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> NoReturn:
        assert sys.getswitchinterval() == pytest.approx(switches.SHORT)
        raise ArithmeticError("cannot")

    monkeypatch.setattr(switches, "lost", fail)
    usual = sys.getswitchinterval()
    sys.setswitchinterval(0.004)
    try:
        with pytest.raises(ArithmeticError):
            run_main(switches, monkeypatch)
        assert sys.getswitchinterval() == pytest.approx(0.004)
    finally:
        sys.setswitchinterval(usual)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("plainly", switches.with_a_builtin),
        ("with_a_builtin", switches.plainly),
        ("with_a_function", switches.plainly),
    ],
)
def test_a_request_that_is_heard_elsewhere_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any
) -> None:
    monkeypatch.setattr(switches, name, instead)
    with pytest.raises(SystemExit, match="was to be heard at"):
        run_main(switches, monkeypatch)


def test_a_loss_under_a_gil_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switches, "lost", lambda *_: 1)
    monkeypatch.setattr(switches, "gil_state", lambda: "on")
    with pytest.raises(SystemExit, match="no switch was possible"):
        run_main(switches, monkeypatch)


# -- example05


@THREADS
@pytest.mark.parametrize(
    "make", [lines.with_property, lines.with_number, lines.with_call]
)
def test_where_a_function_is_called_all_updates_but_one_are_lost(
    make: Any, n_threads: int
) -> None:
    with no_thread_is_left():
        assert lines.lost(make, n_threads) == n_threads - 1


@pytest.mark.parametrize(
    "make", [lines.with_property, lines.with_number, lines.with_call]
)
def test_in_one_thread_each_of_them_counts(make: Any) -> None:
    add_one, result = make(nothing)
    for _ in range(3):
        add_one()
    assert result() == 3


def test_the_plain_line_calls_nothing() -> None:
    counter = lines.PlainCounter(0)
    assert lines.calls_during(partial(lines.increment, counter)) == []
    assert counter.value == 1


def test_the_calls_of_a_job_are_noted_and_the_profile_restored() -> None:
    def inner() -> None:
        pass

    def fail() -> NoReturn:
        inner()
        raise ArithmeticError("cannot")

    def job() -> None:
        inner()
        lines.nothing()
        inner()

    def profile(*_: object) -> None:
        pass

    usual = sys.getprofile()
    sys.setprofile(profile)
    try:
        assert lines.calls_during(job) == ["inner", "inner"]
        with pytest.raises(ArithmeticError):
            lines.calls_during(fail)
        assert sys.getprofile() is profile
    finally:
        sys.setprofile(usual)


def count_nothing(between: Callable[[], object]) -> lines.Case:
    return nothing, lambda: 0


def property_without_a_barrier(between: Callable[[], object]) -> lines.Case:
    counter = lines.PropertyCounter(nothing)
    return partial(lines.increment, counter), lambda: counter.value


def come_alone(between: Callable[[], object]) -> lines.Case:
    """Let one thread come to the barrier, and no other."""
    hooks = deque([between])

    def add_one() -> None:
        with suppress(IndexError):
            hooks.popleft()()

    return add_one, lambda: 1


@pytest.mark.parametrize(
    ("instead", "message"),
    [
        (count_nothing, "but one"),
        (property_without_a_barrier, "but one"),
        (come_alone, "were to meet between read and write"),
    ],
)
def test_a_line_that_loses_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, instead: Any, message: str
) -> None:
    monkeypatch.setattr(lines, "LIMIT", 0.02 if instead is come_alone else LIMIT)
    monkeypatch.setattr(lines, "with_property", instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=message):
        run_main(lines, monkeypatch)


def test_a_plain_line_that_calls_something_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        lines, "PlainCounter", lambda value: lines.PropertyCounter(nothing)
    )
    with pytest.raises(SystemExit, match="was to call nothing"):
        run_main(lines, monkeypatch)


# -- example06


def account(lock: Any, between: Any, balance: int = 100) -> withdrawal.Account:
    return withdrawal.Account(balance, lock, between)


@THREADS
def test_without_a_lock_all_are_paid(n_threads: int) -> None:
    place = Rendezvous()
    victim = account(nullcontext(), place.meet)
    assert all(place.run([lambda: victim.withdraw(100)] * n_threads))
    assert victim.balance() == 100 - n_threads * 100


@THREADS
def test_with_a_lock_as_many_are_paid_as_there_is_money_for(n_threads: int) -> None:
    place = Rendezvous()
    safe = account(place, place.meet, balance=250)
    paid = place.run([lambda: safe.withdraw(100)] * n_threads)
    assert sum(paid) == 2
    assert safe.balance() == 50
    assert place.most == 1


@THREADS
def test_thread_safe_steps_make_no_thread_safe_whole(n_threads: int) -> None:
    place = Rendezvous()
    victim = withdrawal.LockedStepsAccount(100, place, place.meet)
    assert all(place.run([lambda: victim.withdraw(100)] * n_threads))
    assert place.most == n_threads


@settings(max_examples=50)
@given(st.integers(0, 100), st.lists(st.integers(0, 60), max_size=8))
def test_who_is_alone_gets_what_there_is(balance: int, amounts: list[int]) -> None:
    for kind in (withdrawal.Account, withdrawal.LockedStepsAccount):
        one = kind(balance, threading.Lock())
        left = balance
        for amount in amounts:
            assert one.withdraw(amount) == (amount <= left)
            left -= amount if amount <= left else 0
            assert one.balance() == left


class UnlockedAccount(withdrawal.Account):
    def __init__(self, balance: int, lock: Any, between: Any) -> None:
        super().__init__(balance, nullcontext(), between)


@pytest.mark.parametrize(
    ("name", "instead"),
    [("Account", UnlockedAccount), ("LockedStepsAccount", withdrawal.Account)],
)
def test_an_account_that_behaves_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any
) -> None:
    monkeypatch.setattr(withdrawal, name, instead)
    with pytest.raises(SystemExit, match="were to get there"):
        run_main(withdrawal, monkeypatch)


# -- example07

BROKEN = [torn.Span(20, 9), torn.Span(0, 29)]


def unlocked(place: Rendezvous) -> torn.TwoAttributes:
    return torn.TwoAttributes(torn.OLD, nullcontext())


def locked(place: Rendezvous) -> torn.TwoAttributes:
    return torn.TwoAttributes(torn.OLD, place)


def snapshot(place: Rendezvous) -> torn.Snapshot:
    return torn.Snapshot(torn.OLD)


@pytest.mark.parametrize("n_readers", [1, 2, 19])
@pytest.mark.parametrize("writer_stops", [True, False])
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (unlocked, BROKEN),
        (locked, [torn.NEW, torn.OLD]),
        (snapshot, [torn.OLD, torn.OLD]),
    ],
)
def test_what_readers_see(
    make: Any, expected: list[torn.Span], writer_stops: bool, n_readers: int
) -> None:
    found = torn.seen(make, n_readers, writer_stops)
    assert found == [expected[not writer_stops]] * n_readers


@pytest.mark.parametrize("make", [unlocked, locked, snapshot])
def test_what_is_written_is_read_afterwards(make: Any) -> None:
    cell = make(Rendezvous())
    assert cell.read(nothing) == torn.OLD
    cell.write(torn.NEW, nothing)
    assert cell.read(nothing) == torn.NEW


def test_a_lock_is_held_halfway_and_not_afterwards() -> None:
    lock = threading.Lock()
    held: list[bool] = []
    cell = torn.TwoAttributes(torn.OLD, lock)
    cell.write(torn.NEW, lambda: held.append(lock.locked()))
    cell.read(lambda: held.append(lock.locked()))
    assert (held, lock.locked()) == ([True, True], False)


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("TwoAttributes", lambda span, lock: torn.Snapshot(span)),
        ("Snapshot", partial(torn.TwoAttributes, lock=nullcontext())),
    ],
)
def test_a_pair_that_behaves_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any
) -> None:
    monkeypatch.setattr(torn, name, instead)
    with pytest.raises(SystemExit, match="were to be seen"):
        run_main(torn, monkeypatch)


def test_a_lock_for_writers_only_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(self: Any, between: Any) -> torn.Span:
        low = self._low
        between()
        return torn.Span(low, self._high)

    monkeypatch.setattr(torn.TwoAttributes, "read", read)
    with pytest.raises(SystemExit, match="with a lock"):
        run_main(torn, monkeypatch)


# -- example08


def lazily(make: Any, lock: Any) -> Any:
    return lazy.Lazy(make, lock).get


def lazily_unlocked(make: Any, lock: Any) -> Any:
    return lazy.Lazy(make, nullcontext()).get


def too_late(make: Any, lock: Any) -> Any:
    return lazy.LockedTooLate(make, lock).get


def double_checked(make: Any, lock: Any) -> Any:
    return lazy.DoubleChecked(make, lock).get


@THREADS
@pytest.mark.parametrize("build", [lazily, double_checked, lazy.at_the_start])
def test_with_a_lock_the_thing_is_made_once(build: Any, n_threads: int) -> None:
    assert lazy.ask(build, n_threads) == (1, 1)


@THREADS
@pytest.mark.parametrize(
    "build", [lazily_unlocked, too_late, lambda make, lock: cache(make)]
)
def test_without_one_each_makes_its_own(build: Any, n_threads: int) -> None:
    assert lazy.ask(build, n_threads) == (n_threads, n_threads)


@THREADS
def test_cached_property_has_had_no_lock_since_3_12(n_threads: int) -> None:
    made = 1 if sys.version_info < (3, 12) else n_threads
    assert lazy.ask(lazy.by_cached_property, n_threads) == (made, made)


@pytest.mark.parametrize("kind", [lazy.Lazy, lazy.LockedTooLate, lazy.DoubleChecked])
def test_what_cannot_be_made_is_tried_again(kind: Any) -> None:
    attempts: list[int] = []

    def make() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError("not now")
        return "thing"

    lock = threading.Lock()
    one = kind(make, lock)
    with pytest.raises(OSError, match="not now"):
        one.get()
    assert not lock.locked()
    assert [one.get(), one.get()] == ["thing", "thing"]
    assert len(attempts) == 2


def test_once_the_thing_is_there_the_first_check_spares_the_lock() -> None:
    lock = threading.Lock()
    one = lazy.DoubleChecked(object, lock)
    thing = one.get()
    with lock, ThreadPoolExecutor(1) as pool:
        assert pool.submit(one.get).result(LIMIT) is thing


@pytest.mark.parametrize(
    ("name", "instead", "message"),
    [
        ("Lazy", lambda make, lock: SimpleNamespace(get=object), "no lock: 20"),
        ("Lazy", lazy.LockedTooLate, "lock, check: 1"),
        ("LockedTooLate", lazy.DoubleChecked, "check, lock: 20"),
        ("DoubleChecked", lazy.LockedTooLate, "check, lock, check: 1"),
        ("DoubleChecked", lazy.Lazy, "spare the lock"),
        ("by_cached_property", too_late, "cached_property: 1"),
        ("at_the_start", too_late, "before the threads: 1"),
    ],
)
def test_a_way_that_makes_more_or_fewer_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, message: str
) -> None:
    if name == "by_cached_property" and sys.version_info >= (3, 12):
        instead, message = double_checked, "cached_property: 20"
    monkeypatch.setattr(lazy, name, instead)
    with pytest.raises(SystemExit, match=message):
        run_main(lazy, monkeypatch)


# -- example09


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


SAFE = [changed.over_a_snapshot, changed.holding_a_lock, changed.with_copy_on_write]


@pytest.mark.parametrize("way", SAFE)
@pytest.mark.parametrize("make", [dict.fromkeys, set])
@pytest.mark.parametrize("change", [changed.add, changed.replace])
def test_a_mend_sees_what_was_there(
    pool: ThreadPoolExecutor, way: Any, make: Any, change: Any
) -> None:
    things = make(changed.THINGS)
    assert changed.outcome(pool, way, things, change) == ("0 1 2 3 4", 1)


@pytest.mark.parametrize("way", SAFE)
@pytest.mark.parametrize("change", [changed.remove, changed.insert, changed.append])
def test_so_it_is_with_a_list(pool: ThreadPoolExecutor, way: Any, change: Any) -> None:
    things = list(changed.THINGS)
    assert changed.outcome(pool, way, things, change) == ("0 1 2 3 4", 1)


@pytest.mark.parametrize(
    ("make", "change", "expected"),
    [
        (list, changed.remove, "0 2 3 4"),
        (list, changed.insert, "0 0 1 2 3 4"),
        (list, changed.append, "0 1 2 3 4 5"),
        (dict.fromkeys, changed.replace, "0 2 3 4 5"),
        (set, changed.replace, "0 1 2 3 4 5"),
        (dict.fromkeys, changed.add, "RuntimeError: dictionary changed size"),
        (set, changed.add, "RuntimeError: Set changed size"),
        (deque, changed.append, "RuntimeError: deque mutated"),
    ],
)
def test_a_loop_sees_what_never_was_or_fails(
    pool: ThreadPoolExecutor, make: Any, change: Any, expected: str
) -> None:
    things = make(changed.THINGS)
    seen = changed.outcome(pool, changed.in_a_loop, things, change)
    assert seen == (expected, 1)


def test_copying_a_dict_calls_no_python_code_unless_its_iterator_is_python() -> None:
    plain = dict.fromkeys(changed.THINGS)
    own = changed.DictWithIter(changed.THINGS, nothing)

    def copy(things: Any) -> None:
        list(things)

    assert lines.calls_during(partial(copy, plain)) == []
    assert "__iter__" in lines.calls_during(partial(copy, own))
    assert list(own) == list(changed.THINGS)


def test_the_lock_is_given_back_when_the_loop_fails(pool: ThreadPoolExecutor) -> None:
    lock = changed.NotedLock()

    def fail() -> NoReturn:
        with lock:
            raise ArithmeticError("cannot")

    def take() -> bool:
        with lock:
            return True

    assert isinstance(pool.submit(fail).exception(LIMIT), ArithmeticError)
    assert pool.submit(take).result(LIMIT)
    assert not lock.wanted.is_set()


def test_a_lock_tells_when_somebody_waits_for_it(pool: ThreadPoolExecutor) -> None:
    lock = changed.NotedLock()
    order: list[str] = []

    def take() -> None:
        with lock:
            order.append("second")

    with lock:
        future = pool.submit(take)
        assert lock.wanted.wait(LIMIT)
        order.append("first")
    future.result(LIMIT)
    assert order == ["first", "second"]


def test_a_change_that_needs_no_lock_is_told(
    pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed, "LIMIT", 0.02)

    def start_elsewhere(job: Callable[[], object]) -> Future[object]:
        return pool.submit(nothing)

    with pytest.raises(TimeoutError, match="nobody wanted the lock"):
        changed.holding_a_lock([1], nothing, start_elsewhere)  # type: ignore[arg-type]


def test_who_has_the_old_one_keeps_it() -> None:
    published = changed.Published([1, 2])
    old = published.current
    published.change(lambda things: things.append(3))
    assert (old, published.current) == ([1, 2], [1, 2, 3])


def test_those_who_replace_take_turns(pool: ThreadPoolExecutor) -> None:
    published = changed.Published([])
    first_is_in, second_has_come = threading.Event(), threading.Event()

    def first(things: list[int]) -> None:
        first_is_in.set()
        assert second_has_come.wait(LIMIT)
        things.append(1)

    def second() -> None:
        assert first_is_in.wait(LIMIT)
        second_has_come.set()
        published.change(lambda things: things.append(2))

    futures = [pool.submit(published.change, first), pool.submit(second)]
    for future in futures:
        future.result(LIMIT)
    assert published.current == [1, 2]


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("in_a_loop", changed.over_a_snapshot),
        ("copied_by_python", changed.over_a_snapshot),
        ("over_a_snapshot", changed.in_a_loop),
        ("holding_a_lock", changed.in_a_loop),
        ("with_copy_on_write", changed.in_a_loop),
        ("over_a_snapshot", lambda things, change, start: list(things)),
    ],
)
def test_a_way_that_behaves_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any
) -> None:
    monkeypatch.setattr(changed, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match="was to be seen"):
        run_main(changed, monkeypatch)


def test_a_change_that_never_comes_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait_in_vain(*_: Any) -> NoReturn:
        raise TimeoutError

    monkeypatch.setattr(changed, "in_a_loop", wait_in_vain)
    with pytest.raises(SystemExit, match="nobody was to wait so long"):
        run_main(changed, monkeypatch)
