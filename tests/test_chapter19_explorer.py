"""Chapter 19, the interleaving explorer, and the bugs that it finds."""

import dis
import gc
import importlib
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby, permutations
from pathlib import Path
from types import CodeType, ModuleType

import example13_explored_races as races
import example14_stress_against_exploration as stressing
import explorer
import pytest
from explorer import (
    DeadlockError,
    EndlessError,
    HangError,
    Outcome,
    Program,
    ScheduleError,
    cooperative,
    explore,
    replay,
    wait_until,
)
from in_process import no_thread_is_left, run_main

ALL = 1000  # a bound that no schedule here comes near
LIMIT = 30.0  # seconds that a test waits for what must come


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """All is as before, whatever was explored."""

    def state() -> list[object]:
        tools: list[str | None] = []
        if sys.version_info >= (3, 12):
            tools = [sys.monitoring.get_tool(n) for n in range(6)]
        own = threading.Lock, threading.Condition, threading.Thread.start, time.sleep
        return [tools, own, gc.isenabled(), threading.gettrace(), sys.gettrace()]

    before = state()
    with no_thread_is_left():
        yield
    assert state() == before


def in_two(job: Callable[[], object], *others: Callable[[], object]) -> Program:
    """Return a program of a job twice, or of several jobs."""
    jobs = [job, *(others or [job])]
    return Program(dict(zip("ABCD", jobs, strict=False)))


Add = Callable[[str], object]


def write_one(add: Add, a: str) -> None:
    add(a)


def write_two(add: Add, a: str, b: str) -> None:
    add(a)
    add(b)


def write_three(add: Add, a: str, b: str, c: str) -> None:
    add(a)
    add(b)
    add(c)


WRITE: list[Callable[..., None]] = [write_one, write_two, write_three]


class Log:
    """Makes programs whose threads write letters; remembers what came of them.

    To write a letter is one step.
    """

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.seen: list[str] = []

    def make(self) -> Program:
        log: list[str] = []
        jobs = {
            name: partial(WRITE[len(text) - 1], log.append, *text)
            for name, text in zip("ABC", self.texts, strict=False)
        }
        return Program(jobs, lambda: self.seen.append("".join(log)))


def merged(*texts: str) -> set[str]:
    """Return all orders of the letters that keep the order within each text."""
    letters = [(n, k) for n, text in enumerate(texts) for k in range(len(text))]
    orders = [
        order
        for order in permutations(letters)
        if all(
            order.index((n, k)) < order.index((n, k + 1))
            for n, k in letters
            if (n, k + 1) in letters
        )
    ]
    return {"".join(texts[n][k] for n, k in order) for order in orders}


# -- which schedules there are


@pytest.mark.parametrize(
    "texts",
    [("ab", "xy"), ("abc", "xyz"), ("a", "b", "c"), ("ab", "x", "yz"), ("ab",)],
)
def test_all_orders_come_up_once_and_no_other(texts: tuple[str, ...]) -> None:
    log = Log(*texts)
    outcome = explore(log.make, bound=ALL)
    assert outcome.complete
    assert outcome.failure is None
    assert outcome.schedules == len(log.seen) == len(set(log.seen))
    assert set(log.seen) == merged(*texts)


@pytest.mark.parametrize(
    ("bound", "orders"),
    [
        (0, {"abcxyz", "xyzabc"}),
        (1, {"axyzbc", "abxyzc", "xabcyz", "xyabcz", "abcxyz", "xyzabc"}),
    ],
)
def test_a_bound_keeps_preemptions_few(bound: int, orders: set[str]) -> None:
    log = Log("abc", "xyz")
    outcome = explore(log.make, bound=bound)
    assert set(log.seen) == orders
    assert (outcome.bound, outcome.complete) == (bound, False)


def test_no_schedule_is_played_twice() -> None:
    played: list[tuple[str, ...]] = []

    def make() -> Program:
        steps: list[str] = []

        def work(me: str) -> None:
            for _ in range(2):
                steps.append(me)

        jobs = {name: partial(work, name) for name in "AB"}
        return Program(jobs, lambda: played.append(tuple(steps)))

    ids: list[object] = []
    real = explorer._Schedule.play
    with pytest.MonkeyPatch.context() as patch:

        def play(self: explorer._Schedule, patience: float) -> None:
            ids.append(tuple(self.choices.items()))
            real(self, patience)

        patch.setattr(explorer._Schedule, "play", play)
        outcome = explore(make, bound=2)
    assert len(ids) == len(set(ids)) == outcome.schedules == len(played)


def test_a_thread_that_may_time_out_and_go_on_is_one_choice() -> None:
    def make() -> Program:
        lock = threading.Lock()
        lock.acquire()
        return Program({"A": partial(lock.acquire, timeout=1), "B": lock.release})

    # B first; A first, which waits for B; A first, which waits in vain
    assert explore(make, bound=ALL).schedules == 3


def needs_two_preemptions() -> Program:
    """Fails if B comes in within A, and A comes in within B, which sees one x."""
    seen: list[str] = []

    def first() -> None:
        seen.append("a")
        seen.append("b")

    def second() -> None:
        seen.append("x")
        seen.append("y")

    return Program({"A": first, "B": second}, lambda: seen != ["a", "x", "b", "y"])


def test_a_failure_has_as_few_preemptions_as_possible() -> None:
    assert explore(needs_two_preemptions, bound=1).failure is None
    outcome = explore(needs_two_preemptions, bound=5)
    assert outcome.failure is not None
    assert outcome.bound == 1


def test_what_is_played_is_always_the_same() -> None:
    def told(outcome: Outcome) -> object:
        assert outcome.failure is not None
        return outcome.failure.schedule, outcome.failure.trace, outcome.schedules

    first = told(explore(partial(races.no_while_around_wait, False)))
    for _ in range(20):
        assert told(explore(partial(races.no_while_around_wait, False))) == first


def test_the_first_play_has_the_steps_of_all_others() -> None:
    """What is compiled or instrumented on the first play is no step of its own."""
    scope: dict[str, object] = {}
    source = "def f(log):\n    for n in range(3):\n        log.append(n)\n"
    exec(compile(source, str(Path(__file__)), "exec"), scope)
    f = scope["f"]
    assert callable(f)
    steps: list[int] = []
    real = explorer._Schedule.play
    with pytest.MonkeyPatch.context() as patch:

        def play(self: explorer._Schedule, patience: float) -> None:
            real(self, patience)
            steps.append(self.n_steps)

        patch.setattr(explorer._Schedule, "play", play)
        explore(lambda: in_two(partial(f, [])), bound=0)
        explore(lambda: in_two(partial(f, [])), bound=0)
    assert len(steps) == 4
    assert len(set(steps)) == 1


def test_a_global_and_a_nonlocal_variable_have_steps() -> None:
    def make() -> Program:
        n = 0

        def add() -> None:
            nonlocal n
            n += 1

        return Program({"A": add, "B": add}, lambda: n == 2)

    assert explore(make).failure is not None


def test_code_called_by_c_code_has_steps() -> None:
    class Key:
        def __init__(self) -> None:
            self.n = 0

        def __eq__(self, other: object) -> bool:
            self.n += 1
            return True

        __hash__ = None  # type: ignore[assignment]

    def make() -> Program:
        key, keys = Key(), [Key()]
        look = partial(keys.count, key)
        return Program({"A": look, "B": look}, lambda: keys[0].n + key.n == 2)

    assert explore(make).failure is not None


def test_no_garbage_is_collected_meanwhile() -> None:
    seen: list[bool] = []
    explore(lambda: in_two(lambda: seen.append(gc.isenabled())))
    assert not any(seen)
    assert gc.isenabled()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring")
def test_another_tool_misses_nothing_afterwards() -> None:
    add = partial(write_two, sys.intern, "a", "b")

    def seen_by_another() -> int:
        seen: list[int] = []

        def note(code: CodeType, offset: int) -> None:
            if code is write_two.__code__:
                seen.append(offset)

        if sys.version_info >= (3, 12):
            monitoring, event = sys.monitoring, sys.monitoring.events.INSTRUCTION
            monitoring.use_tool_id(3, "another")
            monitoring.register_callback(3, event, note)
            monitoring.set_events(3, event)
            add()
            monitoring.set_events(3, 0)
            monitoring.register_callback(3, event, None)
            monitoring.free_tool_id(3)
        return len(seen)

    before = seen_by_another()
    explore(lambda: in_two(add))
    assert seen_by_another() == before > 0


def test_code_of_a_library_is_one_step() -> None:
    def make() -> Program:
        items = queue.Queue[int]()
        return Program({"A": partial(items.put, 1), "B": partial(items.put, 2)})

    assert explore(make, bound=ALL).schedules == 2


def test_private_instructions_are_those_that_were_thought_of() -> None:
    private = {name for name in dis.opmap if name.startswith(explorer.PRIVATE)}
    stems = ("ATTR", "SUBSCR", "GLOBAL", "NAME", "DEREF", "CALL", "SEND", "ITER")
    private -= {"PRECALL", "KW_NAMES"}  # prepare a call that comes afterwards
    assert not [name for name in private if any(stem in name for stem in stems)]
    assert {"LOAD_FAST", "STORE_FAST", "POP_TOP", "RETURN_VALUE"} <= private


# -- outcomes


def test_outcomes_tell_the_truth() -> None:
    def make(mended: bool = True) -> Program:
        return races.lost_update(mended)

    everything = explore(make, bound=ALL)
    assert everything.complete
    assert str(everything) == (
        f"all {everything.schedules} schedules covered, none fails"
    )
    bounded = explore(make, bound=1)
    assert not bounded.complete
    assert str(bounded) == (
        f"none of {bounded.schedules} schedules fails, all with at most 1 preemptions"
    )
    few = explore(make, most_schedules=1)
    assert (few.schedules, few.bound, few.complete) == (1, -1, False)
    assert str(few) == "none of 1 schedules fails, not all played"
    some = explore(make, most_schedules=bounded.schedules - 1)
    assert some.bound == 0
    late = explore(make, seconds=1e-9)
    assert (late.schedules, late.bound, late.complete) == (0, -1, False)
    failed = explore(partial(make, False))
    assert str(failed).startswith(f"schedule {failed.schedules} fails: AssertionError(")
    assert not failed.complete


def test_the_trace_shows_where_another_thread_comes_in() -> None:
    failure = explore(partial(races.lost_update, False)).failure
    assert failure is not None
    assert str(failure).splitlines() == [
        "A  self.value += 1 ...",
        "B  self.value += 1",
        "A  ... self.value += 1",
        "AssertionError: the check says no",
    ]
    assert {step.thread for step in failure.trace} == {"A", "B"}
    assert {Path(step.file).name for step in failure.trace} == {
        Path(races.__file__).name
    }
    source = Path(races.__file__).read_text("utf-8").splitlines()
    assert all(source[s.line - 1].strip() in s.source for s in failure.trace)


def test_a_failure_is_played_again_by_its_id() -> None:
    for bug in races.BUGS:
        failure = explore(partial(bug, False)).failure
        assert failure is not None
        again = replay(partial(bug, False), failure.schedule)
        assert again is not None
        assert again.schedule == failure.schedule
        assert again.trace == failure.trace
        assert repr(again.error) == repr(failure.error)


def test_replay_of_what_does_not_fail_says_so() -> None:
    assert replay(partial(races.lost_update, False), "0:A") is None


@pytest.mark.parametrize("schedule", ["", "A", "1:A", "x:A", "0:A B"])
def test_what_is_no_id_is_told(schedule: str) -> None:
    with pytest.raises(ValueError, match=r"begin|invalid literal"):
        replay(partial(races.lost_update, True), schedule)


@pytest.mark.parametrize("schedule", ["0:C", "0:A 1:C", "0:A 9999:B"])
def test_a_schedule_of_another_program_is_told(schedule: str) -> None:
    with pytest.raises(ScheduleError):
        replay(partial(races.lost_update, True), schedule)


def test_a_choice_after_the_end_is_told() -> None:
    with pytest.raises(ScheduleError, match="ends before step 1"):
        replay(lambda: Program({"A": int}), "0:A 1:A")


@pytest.mark.parametrize(
    "limits", [{"bound": -1}, {"most_schedules": 0}, {"seconds": 0}, {"patience": 0}]
)
def test_limits_have_limits(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        explore(partial(races.lost_update, True), **limits)


@pytest.mark.parametrize("names", [[], ["A B"], ["A", ""]])
def test_threads_need_names(names: list[str]) -> None:
    with pytest.raises(ValueError, match="names"):
        explore(lambda: Program(dict.fromkeys(names, int)))


def test_a_program_that_differs_is_told() -> None:
    plays = iter(range(1000))

    def make() -> Program:
        n, log = next(plays), list[int]()

        def write() -> None:
            for k in range(9 - n):
                log.append(k)

        return in_two(write)

    with pytest.raises(ScheduleError):
        explore(make)


def test_a_failure_that_does_not_come_again_is_no_failure_of_replay() -> None:
    right = iter([True, False, True, True])

    def make() -> Program:
        is_right = next(right)
        return Program({"A": int}, lambda: is_right)

    failure = explore(make).failure
    assert failure is not None
    assert replay(make, failure.schedule) is None


def test_other_threads_than_before_are_told() -> None:
    names = iter(["A", "B"])
    with pytest.raises(ScheduleError, match="other threads"):
        explore(lambda: Program({next(names): int}))


# -- programs that go wrong


def fails_with(make: Callable[[], Program], **limits: float) -> BaseException:
    failure = explore(make, **limits).failure  # type: ignore[arg-type]
    assert failure is not None
    return failure.error


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_what_a_job_raises_is_the_failure(error: type[BaseException]) -> None:
    def fail() -> None:
        raise error("in a job")

    assert type(fails_with(lambda: in_two(fail))) is error


@pytest.mark.parametrize("error", [LookupError, queue.Empty])
def test_what_the_check_raises_is_the_failure(error: type[Exception]) -> None:
    def check() -> None:
        raise error("in the check")

    assert type(fails_with(lambda: Program({"A": int}, check))) is error


def test_what_make_program_raises_comes_through() -> None:
    def make() -> Program:
        raise LookupError("in make_program")

    with pytest.raises(LookupError):
        explore(make)


def test_ctrl_c_comes_through_and_leaves_nothing() -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explore(lambda: Program({"A": int, "B": int}, interrupt))


def test_ctrl_c_in_the_midst_of_a_schedule_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, interrupted = queue.SimpleQueue[None](), queue.SimpleQueue[None]()
    ended: list[str] = []

    def work() -> None:
        try:
            begun.put(None)
            interrupted.get(timeout=LIMIT)
            ended.append("never")
        finally:
            ended.append("ended")

    class Interrupted:
        def get(self, timeout: float) -> None:
            begun.get(timeout=LIMIT)
            raise KeyboardInterrupt

        def put(self, _: None) -> None:
            pass

    real = explorer._Schedule.play

    def play(self: explorer._Schedule, patience: float) -> None:
        monkeypatch.setattr(self, "_all_have_left", Interrupted())
        real(self, patience)

    real_leave = explorer._Schedule.leave

    def leave(self: explorer._Schedule, me: explorer._Player) -> None:
        interrupted.put(None)  # B leaves, which has not begun
        real_leave(self, me)

    monkeypatch.setattr(explorer._Schedule, "leave", leave)
    monkeypatch.setattr(explorer._Schedule, "play", play)
    with pytest.raises(KeyboardInterrupt):
        explore(lambda: in_two(work))
    assert ended == ["ended"]


def test_a_deadlock_is_told_with_the_lines() -> None:
    error = fails_with(partial(races.opposite_lock_order, False))
    assert type(error) is DeadlockError
    assert str(error).startswith("all wait: ")
    assert "A at 'with self.left, self.right:'" in str(error)
    assert "B at 'with self.right, self.left:'" in str(error)


def test_a_thread_waits_for_itself() -> None:
    def make() -> Program:
        lock = threading.Lock()

        def take_twice() -> None:
            with lock, lock:
                pass

        return Program({"A": take_twice})

    assert type(fails_with(make)) is DeadlockError


def test_threads_that_are_ended_run_their_finally() -> None:
    ended: list[str] = []

    def make() -> Program:
        lock = threading.Lock()

        def take(me: str) -> None:
            try:
                lock.acquire()
                lock.acquire()
            finally:
                with lock:  # is held: the wait is given up again
                    raise AssertionError("has the lock")
                ended.append(me)

        def note(me: str) -> None:
            try:
                take(me)
            finally:
                ended.append(me)

        return Program({name: partial(note, name) for name in "AB"})

    assert type(fails_with(make)) is DeadlockError
    assert set(ended) == {"A", "B"}


def test_a_thread_that_catches_everything_is_ended() -> None:
    def make() -> Program:
        lock = threading.Lock()

        def take() -> None:
            for _ in range(3):
                try:
                    lock.acquire()
                    lock.acquire()
                except BaseException:
                    pass

        return in_two(take)

    assert type(fails_with(make)) is DeadlockError


def test_a_wait_in_a_finally_of_an_ended_thread_is_given_up() -> None:
    ended: list[str] = []

    def make() -> Program:
        lock, event = threading.Lock(), threading.Event()

        def take_twice() -> None:
            try:
                with lock, lock:
                    pass
            finally:
                try:
                    event.wait()
                finally:
                    ended.append("A")

        return Program({"A": take_twice})

    assert type(fails_with(make, patience=2)) is DeadlockError
    assert ended == ["A"]


def test_threads_are_ended_one_after_the_other() -> None:
    log: list[str] = []

    def make() -> Program:
        lock = threading.Lock()
        lock.acquire()

        def take(me: str) -> None:
            try:
                lock.acquire()
            finally:
                for _ in range(1000):
                    log.append(me)

        return Program({name: partial(take, name) for name in "ABC"})

    assert type(fails_with(make)) is DeadlockError
    assert len(log) == 3000
    assert len(list(groupby(log))) == 3


def test_a_thread_that_cannot_be_ended_is_told() -> None:
    is_done: list[int] = []

    def make() -> Program:
        lock = threading.Lock()

        def take_twice() -> None:
            try:
                with lock, lock:
                    pass
            finally:
                while not is_done:
                    pass

        return Program({"A": take_twice})

    error = fails_with(make, patience=0.1)
    is_done.append(1)
    assert type(error) is HangError
    assert "after DeadlockError(" in str(error)
    for thread in threading.enumerate():
        if thread.name == "A":
            thread.join(LIMIT)


@pytest.mark.parametrize("body", ["pass", "n += 1", "log.clear()"])
def test_an_endless_loop_is_told(
    body: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(explorer, "MOST_STEPS", 500)
    file = tmp_path / "endless.py"
    file.write_text(f"def f(log):\n  n = 0\n  while True:\n    {body}\n")
    scope: dict[str, Callable[[list[int]], None]] = {}
    exec(compile(file.read_text(), str(file), "exec"), scope)
    assert type(fails_with(lambda: in_two(partial(scope["f"], [])))) is EndlessError


def test_a_thread_that_hangs_is_told_and_left() -> None:
    real = threading.Lock()
    real.acquire()

    def wait() -> None:
        with real:
            pass

    error = fails_with(lambda: Program({"A": wait}), patience=0.1)
    real.release()
    assert type(error) is HangError
    assert str(error) == "no end within 0.1 s: A at 'with real:'"
    for thread in threading.enumerate():
        if thread.name == "A":
            thread.join(LIMIT)


def test_a_thread_that_hangs_does_not_keep_the_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "hangs.py"
    script.write_text(
        "import threading\n"
        "from explorer import Program, explore\n"
        "real = threading.Lock()\n"
        "real.acquire()\n"
        "def wait():\n"
        "    real.acquire()\n"
        "print(explore(lambda: Program({'A': wait}), patience=0.1))\n"
    )
    run = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": str(Path(explorer.__file__).parent)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert "HangError" in run.stdout


def test_a_real_lock_between_the_threads_is_told_and_nobody_is_left() -> None:
    real = threading.Lock()

    def take() -> None:
        with real:
            str(real)

    error = fails_with(lambda: in_two(take), patience=2)
    assert type(error) is HangError
    assert "with real:" in str(error)


def test_a_program_that_starts_a_thread_is_told() -> None:
    def start() -> None:
        threading.Thread(target=int).start()

    error = fails_with(lambda: in_two(start))
    assert type(error) is RuntimeError
    assert "jobs" in str(error)


# -- what programs wait for


def holds_always(make: Callable[[], Program]) -> None:
    outcome = explore(make, bound=2)
    assert outcome.failure is None, outcome.failure
    assert outcome.complete or outcome.bound == 2


def test_an_rlock_is_taken_again_and_keeps_others_out() -> None:
    def make() -> Program:
        lock, n = threading.RLock(), [0]

        def add() -> None:
            with lock, lock:
                n[0] += 1

        return Program({"A": add, "B": add}, lambda: n == [2])

    holds_always(make)


def test_a_semaphore_lets_two_in() -> None:
    most = 0

    def make() -> Program:
        places, inside = threading.Semaphore(2), list[int]()

        def visit() -> None:
            nonlocal most
            with places:
                inside.append(1)
                most = max(most, len(inside))
                inside.pop()

        return in_two(visit, visit, visit)

    assert explore(make, bound=1).failure is None
    assert most == 2


def test_threads_meet_at_a_barrier() -> None:
    def make() -> Program:
        barrier, here = threading.Barrier(2), list[int]()

        def meet() -> None:
            here.append(1)
            barrier.wait()
            assert len(here) == 2

        return in_two(meet)

    holds_always(make)


def test_an_event_ends_a_wait() -> None:
    def make() -> Program:
        event, log = threading.Event(), list[str]()

        def wait() -> None:
            event.wait()
            log.append("b")

        def let() -> None:
            log.append("a")
            event.set()

        return Program({"A": wait, "B": let}, lambda: log == ["a", "b"])

    holds_always(make)


def test_a_queue_gives_what_was_put() -> None:
    def make() -> Program:
        items, got = queue.Queue[int](1), list[int]()

        def put() -> None:
            items.put(1)
            items.put(2)

        def get() -> None:
            got.append(items.get())
            got.append(items.get())

        return Program({"A": get, "B": put}, lambda: got == [1, 2])

    holds_always(make)


def test_one_notify_wakes_one() -> None:
    def make() -> Program:
        condition, waiting = threading.Condition(), [0]

        def wait() -> None:
            with condition:
                waiting[0] += 1
                condition.wait()

        def wake() -> None:
            wait_until(lambda: waiting[0] == 2)
            with condition:
                condition.notify()

        return in_two(wait, wait, wake)

    assert type(fails_with(make)) is DeadlockError


def waited(wait: Callable[[threading.Event], object], bound: int = ALL) -> set[object]:
    """Return what a wait for an event returns in all schedules with this bound."""
    results: set[object] = set()

    def make() -> Program:
        event, got = threading.Event(), list[object]()
        jobs = {"A": lambda: got.append(wait(event)), "B": event.set}
        return Program(jobs, lambda: results.update(got))

    assert explore(make, bound=bound).failure is None
    return results


def test_a_time_out_comes_at_any_time_and_at_once() -> None:
    start = time.monotonic()
    assert waited(lambda event: event.wait(1000)) == {True, False}
    assert waited(lambda event: event.wait(0)) == {True, False}
    assert waited(lambda event: event.wait()) == {True}
    assert waited(lambda event: event.wait(1000), bound=0) == {True}
    assert time.monotonic() - start < LIMIT


def test_a_time_out_before_others_have_run_counts_as_a_preemption() -> None:
    results: dict[int, set[bool]] = {0: set(), 1: set()}

    def make(bound: int) -> Program:
        event, got = threading.Event(), list[bool]()
        jobs: dict[str, Callable[[], object]] = {}
        jobs["A"] = lambda: got.append(event.wait(1))
        jobs |= {"B": int, "C": event.set}
        return Program(jobs, lambda: results[bound].update(got))

    for bound in results:
        assert explore(partial(make, bound), bound=bound).failure is None
    assert results == {0: {True}, 1: {True, False}}


def test_time_outs_of_locks_and_queues() -> None:
    def make() -> Program:
        lock, items = threading.Lock(), queue.Queue[int]()
        condition = threading.Condition()
        lock.acquire()

        def give_up() -> None:
            assert not lock.acquire(timeout=1000)
            assert not lock.acquire(timeout=0)
            assert not lock.acquire(blocking=False)
            with pytest.raises(queue.Empty):
                items.get(timeout=1000)
            with condition:
                assert not condition.wait_for(lambda: False, timeout=1000)
            assert not threading.Semaphore(0).acquire(timeout=1000)

        return Program({"A": give_up})

    start = time.monotonic()
    holds_always(make)
    assert time.monotonic() - start < LIMIT


def test_a_sleep_orders_nothing() -> None:
    def make() -> Program:
        log: list[str] = []

        def second() -> None:
            time.sleep(1000)
            log.append("b")

        return Program(
            {"A": second, "B": partial(log.append, "a")}, lambda: log == ["a", "b"]
        )

    assert explore(make, bound=0).failure is None
    assert type(fails_with(make)) is AssertionError


def test_a_loop_that_sleeps_ends() -> None:
    def make() -> Program:
        done: list[int] = []

        def wait() -> None:
            while not done:
                time.sleep(0.1)

        return in_two(wait, partial(done.append, 1))

    assert explore(make).failure is None


def test_of_threads_that_sleep_and_time_out_none_is_starved() -> None:
    def make() -> Program:
        event, done = threading.Event(), list[int]()

        def poll() -> None:
            while not done:
                time.sleep(0.1)

        def give_up() -> None:
            assert not event.wait(1)
            done.append(1)

        return in_two(poll, give_up)

    outcome = explore(make, bound=1)
    assert outcome.failure is None, outcome.failure
    assert outcome.bound == 1


def test_wait_until_is_woken_and_sees_each_step() -> None:
    def make() -> Program:
        state = {"x": 0, "y": 0}

        def write() -> None:
            state["x"] = 1
            state["y"] = 1
            state["x"] = 2

        def wait() -> None:
            wait_until(lambda: state["y"] == 1)
            assert state["x"]

        return Program({"A": wait, "B": write})

    holds_always(make)


def test_a_condition_may_take_a_lock_and_may_fail() -> None:
    def make() -> Program:
        lock, n = threading.Lock(), [0]

        def is_two() -> bool:
            with lock:
                return n[0] == 2

        def add() -> None:
            with lock:
                n[0] += 1
                n[0] += 1

        return Program({"A": partial(wait_until, is_two), "B": add})

    holds_always(make)

    def failing() -> Program:
        state = {"x": 1}

        def wait() -> None:
            wait_until(lambda: state["x"] == 0 and state["y"])

        return Program({"A": wait, "B": partial(state.update, x=0)})

    assert type(fails_with(failing)) is KeyError


def test_two_that_wait_until_the_other_moves_are_a_deadlock() -> None:
    def make() -> Program:
        moved: list[int] = []

        def wait() -> None:
            wait_until(lambda: moved)
            moved.append(1)

        return in_two(wait)

    assert type(fails_with(make)) is DeadlockError


def test_a_condition_is_no_single_step() -> None:
    """Both halves were true, never at the same time, and yet the wait ends."""

    def make() -> Program:
        state = {"x": True, "y": False, "met": False}

        def change() -> None:
            state["x"] = False
            state["y"] = True

        def wait() -> None:
            wait_until(lambda: state["x"] and state["y"])

        def end() -> None:
            wait_until(lambda: state["met"])

        return Program({"A": wait, "B": change})

    failing = explore(make)
    assert type(failing.failure and failing.failure.error) is DeadlockError
    assert replay(make, "0:A") is not None  # A looks before x has changed

    ended = []

    def noting() -> Program:
        program = make()

        def wait() -> None:
            program.jobs["A"]()
            ended.append(1)

        return Program({**program.jobs, "A": wait})

    steps = range(1, 30)
    for step in steps:
        try:
            replay(noting, f"0:A {step}:B")
        except ScheduleError:
            break
    assert ended


def test_what_nobody_ends_is_told_outside_of_threads() -> None:
    with cooperative():
        lock = threading.Lock()
        lock.acquire()
        with pytest.raises(RuntimeError, match="no thread is left"):
            lock.acquire()
        with pytest.raises(RuntimeError, match="no thread is left"):
            wait_until(lambda: False)
        assert not lock.acquire(blocking=False)
        lock.release()
        with pytest.raises(RuntimeError, match="not held"):
            lock.release()
        wait_until(lambda: True)


def test_a_lock_that_is_left_held_is_told_by_the_check() -> None:
    def make() -> Program:
        lock = threading.Lock()

        def check() -> None:
            with lock:
                pass

        return Program({"A": lock.acquire}, check)

    assert type(fails_with(make)) is RuntimeError


def test_a_module_with_locks_of_its_own_is_imported_in_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "explored_module.py").write_text(
        "from threading import Lock\n"
        "lock = Lock()\n"
        "def take():\n"
        "    with lock:\n"
        "        assert lock.locked()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with cooperative():
        module: ModuleType = importlib.import_module("explored_module")
    monkeypatch.delitem(sys.modules, "explored_module")
    holds_always(lambda: in_two(module.take))


# -- the scripts


def test_the_explorer_shows_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(explorer, monkeypatch)
    assert "all schedules covered" in capsys.readouterr().out


PREEMPTIONS = {"peterson": 2}


@pytest.mark.parametrize("bug", races.BUGS, ids=lambda bug: bug.__name__)
def test_each_bug_is_found_and_its_mended_twin_cleared(
    bug: Callable[[bool], Program],
) -> None:
    broken = explore(partial(bug, False))
    assert broken.failure is not None
    assert broken.bound + 1 == PREEMPTIONS.get(bug.__name__, 1)
    mended = explore(partial(bug, True), bound=1)
    assert mended.failure is None, mended.failure
    assert mended.bound == 1


def test_a_bug_that_is_not_found_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(races, "BUGS", [lambda _: races.lost_update(True)])
    with pytest.raises(SystemExit, match="were to be found"):
        run_main(races, monkeypatch)


def test_a_mended_twin_that_fails_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(races, "BUGS", [lambda _: races.lost_update(False)])
    with pytest.raises(SystemExit, match=r"mended, but\nA  self\.value"):
        run_main(races, monkeypatch)


@pytest.mark.parametrize("number", ["-1", "x"])
def test_a_bad_bound_is_named(complaint: Callable[..., str], number: str) -> None:
    assert number in complaint(races, "--bound", number)


@pytest.mark.parametrize("race", stressing.RACES, ids=lambda race: race.name)
def test_exploring_finds_what_stress_may_miss(race: stressing.Race) -> None:
    assert explore(partial(stressing.once, race)).failure is not None
    assert stressing.stress(race, 100) >= 0


def test_stress_counts_what_goes_wrong() -> None:
    def nothing(shared: stressing.Shared, thing: int) -> bool:
        return thing % 4 == 0

    race = stressing.Race("always", nothing, lambda shared: shared.number)
    assert stressing.stress(race, 100) == 50
    right = stressing.Race("never", lambda *_: False, lambda shared: shared.number)
    assert stressing.stress(right, 100) == 0
    usual = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        stressing.stress(
            stressing.Race("error", lambda *_: bool(1 // 0), lambda _: 0), 1
        )
    assert sys.getswitchinterval() == usual


def test_the_share_of_schedules_that_go_wrong() -> None:
    def lose(shared: stressing.Shared, _: int) -> bool:
        return shared.number == 0  # all schedules: nobody adds

    always = stressing.Race("always", lose, lambda shared: shared.number)
    assert stressing.share_of_schedules(always) == 1
    never = stressing.Race("never", lambda *_: False, lambda shared: shared.number)
    assert stressing.share_of_schedules(never) == 0
    assert 0 < stressing.share_of_schedules(stressing.RACES[0]) < 1


def test_a_race_that_is_not_found_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = stressing.Race("never", lambda *_: False, lambda shared: shared.number)
    monkeypatch.setattr(stressing, "RACES", [never])
    with pytest.raises(SystemExit, match="never: one of 20 was to fail"):
        run_main(stressing, monkeypatch, "--operations", 1)


@pytest.mark.parametrize("number", ["0", "1000001", "x"])
def test_a_bad_number_of_operations_is_named(
    complaint: Callable[..., str], number: str
) -> None:
    assert number in complaint(stressing, "--operations", number)


def test_frontrun_misses_what_it_misses() -> None:
    pytest.importorskip("frontrun")
    library = importlib.import_module("example15_the_same_bugs_with_frontrun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRONTRUN_ACTIVE", "1")
        bugs = library.BUGS
        missed = {name for name in bugs if library.with_frontrun(bugs[name]) != "found"}
        right = library.Bug(races.Counter, (races.Counter.add_fixed,) * 2)
        assert library.with_frontrun(right) == library.with_explorer(right) == "missed"
    assert missed == library.MISSED
    assert {library.with_explorer(bug) for bug in bugs.values()} == {"found"}
