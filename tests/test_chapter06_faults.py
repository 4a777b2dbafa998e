"""Chapter 6, examples 15, 16, 18 and 19: the parts a reader would copy."""

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import example15_start_methods as starts
import example16_fork_while_a_thread_holds_a_lock as forks
import example18_worker_killed_job_completed as killed
import example19_ctrl_c_and_sigterm as signals
import psutil
import pytest
from child_tasks import (
    big,
    double,
    exit_at_two,
    fail_if_odd,
    raise_what_loses_an_argument,
    return_grenade,
    return_lock,
    serve_half_an_answer,
)
from example18_worker_killed_job_completed import Loss, Outcome, SupervisedMap
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 20.0  # seconds for what should take none

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture
def no_child_left() -> Iterator[None]:
    """Fail a test that leaves a child behind, unless it was there before."""
    before = set(multiprocessing.active_children())
    yield
    assert set(multiprocessing.active_children()) <= before


# -- example15


def test_descriptors_of_one_file_are_identical(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    other.touch()
    with one.open("w") as a, one.open() as b, other.open() as c:
        assert starts.identity(a.fileno()) == starts.identity(b.fileno())
        assert starts.identity(a.fileno()) != starts.identity(c.fileno())
        descriptor = a.fileno()
    assert starts.identity(descriptor) is None


def test_what_is_changed_is_seen(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(starts, "SETTINGS", {"state": "as imported"})
    monkeypatch.setattr(starts, "GENERATOR", random.Random(1))
    monkeypatch.setenv("STATE", "before")
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = starts.view(0)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        starts.change_everything(str(tmp_path))
        monkeypatch.chdir(tmp_path)
        with (tmp_path / "file").open("w") as file:
            after = starts.view(file.fileno())
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert {what for what in before if before[what] == after[what]} == {"is the same"}


def test_a_target_must_be_picklable_unless_the_child_is_forked(
    start_method: str, no_child_left: None
) -> None:
    new_process = multiprocessing.Process
    assert starts.can_start(new_process, starts.do_nothing)
    assert starts.can_start(new_process, lambda: None) == (start_method == "fork")


# -- example16

needs_fork = pytest.mark.skipif(
    not hasattr(os, "register_at_fork"), reason="needs fork"
)


def test_a_journal_is_written_by_one_at_a_time() -> None:
    journal = forks.Journal()
    journal.write("first", between=lambda: held.append(journal.lock.locked()))
    assert (journal.lines, journal.lock.locked()) == (["first"], False)
    assert held == [True]


held: list[bool] = []


def test_a_failed_writer_lets_go_of_the_journal() -> None:
    journal = forks.Journal()
    with pytest.raises(ZeroDivisionError):
        journal.write("first", between=lambda: 1 / 0)
    assert not journal.lock.locked()


HOLD_WHILE_FORKING = """
import os, threading
from Chapter06 import example16_fork_while_a_thread_holds_a_lock as forks

lock = threading.Lock()
forks.hold_while_forking(lock)
seen = []
os.register_at_fork(after_in_parent=lambda: seen.append(lock.locked()))
lock.acquire()
threading.Timer(0.01, lock.release).start()  # the fork waits for it
pid = os.fork()
if pid == 0:
    os._exit(42 if lock.acquire(timeout=0) else 1)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(status, lock.acquire(timeout=0), *seen)
"""


@needs_fork
def test_a_fork_waits_for_the_lock_and_both_sides_get_it() -> None:
    """In a program of its own, for hooks cannot be taken back."""
    # Of the thread, which is why the fork has to wait, Python warns from 3.12 on.
    program = [sys.executable, "-W", "ignore", "-c", HOLD_WHILE_FORKING]
    ended = subprocess.run(
        program, cwd=Path(__file__).parent.parent, capture_output=True, text=True,
        timeout=LIMIT, check=False,
    )  # fmt: skip
    # Hooks of the parent run in the order of registration: the lock is free by then.
    assert (ended.stdout, ended.stderr) == ("42 True False\n", "")


# -- example18


def outcomes_of(
    function: Callable[[int], object],
    tasks: range,
    n_workers: int = 2,
    attempts: int = 3,
) -> tuple[list[Outcome[object]], list[Loss]]:
    losses: list[Loss] = []
    with SupervisedMap(function, tasks, n_workers, attempts, losses.append) as outcomes:
        return sorted(outcomes, key=lambda one: one.index), losses


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("n_tasks", [0, 1, 2, 20])
def test_every_task_has_its_outcome_once(
    start_method: str, n_tasks: int, n_workers: int, no_child_left: None
) -> None:
    found, losses = outcomes_of(double, range(n_tasks), n_workers)
    assert found == [Outcome(n, 2 * n) for n in range(n_tasks)]
    assert losses == []


def test_no_more_workers_than_tasks_or_than_allowed() -> None:
    with SupervisedMap(double, range(10), 3) as outcomes:
        list(outcomes)
        assert len(outcomes._workers) == 3
    with SupervisedMap(double, range(2), 3) as outcomes:
        list(outcomes)
        assert len(outcomes._workers) == 2


def test_tasks_are_taken_one_by_one() -> None:
    taken: list[int] = []
    tasks = (taken.append(n) or n for n in range(100))  # type: ignore[func-returns-value]
    with SupervisedMap(double, tasks, 2) as outcomes:
        next(iter(outcomes))
    assert len(taken) <= 4


def test_a_killed_worker_costs_nothing_but_time(
    start_method: str, tmp_path: Path, no_child_left: None
) -> None:
    bomb = tmp_path / "bomb"
    bomb.touch()
    found, losses = outcomes_of(partial(killed.square, bomb=bomb), range(10))
    assert found == [Outcome(n, n * n) for n in range(10)]
    assert [(loss.index, loss.attempt) for loss in losses] == [(killed.VICTIM, 1)]
    if os.name == "posix":
        assert losses[0].exitcode == -signal.SIGKILL
        assert losses[0].cause == "killed by SIGKILL"
    assert losses[0].pid != os.getpid()


@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("n_workers", [1, 2])
def test_a_task_that_kills_every_worker_is_given_up(
    attempts: int, n_workers: int, no_child_left: None
) -> None:
    found, losses = outcomes_of(killed.square_or_die, range(6), n_workers, attempts)
    victim = found.pop(killed.VICTIM)
    assert found == [Outcome(n, n * n) for n in range(6) if n != killed.VICTIM]
    assert isinstance(victim.error, killed.WorkerLostError)
    assert f"attempt {attempts} of {attempts}" in str(victim.error)
    assert [loss.attempt for loss in losses] == list(range(1, attempts + 1))


def test_the_last_task_may_kill_its_worker_too(no_child_left: None) -> None:
    found, losses = outcomes_of(killed.square_or_die, range(killed.VICTIM + 1), 1, 1)
    assert [one.error is None for one in found] == [True, True, False]
    assert len(losses) == 1


def test_an_exit_status_is_told_from_a_signal(no_child_left: None) -> None:
    found, losses = outcomes_of(exit_at_two, range(4), attempts=1)
    assert [one.index for one in found if one.error] == [2]
    assert losses[0].cause == "ended with exit status 7"
    assert Loss(0, 1, 1, -64).cause in {"killed by SIGRTMAX", "killed by signal 64"}
    assert Loss(0, 1, 1, -99).cause == "killed by signal 99"


@posix_only
def test_a_worker_killed_in_the_midst_of_its_answer(
    monkeypatch: pytest.MonkeyPatch, no_child_left: None
) -> None:
    monkeypatch.setattr(killed, "serve", serve_half_an_answer)
    found, losses = outcomes_of(double, range(2))
    assert [type(one.error) for one in found] == 2 * [killed.WorkerLostError]
    assert len(losses) == 2 * 3


def test_large_answers_block_nobody(start_method: str, no_child_left: None) -> None:
    found, _ = outcomes_of(big, range(6))
    assert [one.result for one in found] == [bytes([n]) * (1 << 20) for n in range(6)]


def test_exceptions_of_tasks_are_outcomes(
    start_method: str, no_child_left: None
) -> None:
    found, losses = outcomes_of(fail_if_odd, range(4))
    assert [one.result for one in found] == [0, None, 2, None]
    assert [str(one.error) for one in found] == ["None", "odd: 1", "None", "odd: 3"]
    assert isinstance(found[1].error, ValueError)
    assert losses == []


@pytest.mark.parametrize(
    ("function", "kind", "text"),
    [
        (raise_what_loses_an_argument, RuntimeError, "LosingAnArgumentError: 1 and 1"),
        (return_lock, TypeError, "pickle"),
        (return_grenade, ValueError, "no number"),
    ],
)
def test_what_cannot_cross_over_is_an_error_of_its_task(
    function: Callable[[int], object], kind: type, text: str, no_child_left: None
) -> None:
    found, losses = outcomes_of(function, range(2))
    assert isinstance(found[1].error, kind)
    assert text in str(found[1].error)
    assert len(found) == 2
    assert losses == []


def test_a_task_that_cannot_be_pickled_is_its_own_fault(no_child_left: None) -> None:
    tasks = [1, threading.Lock(), 3]
    with SupervisedMap(double, tasks, 2) as outcomes:  # type: ignore[arg-type]
        found = sorted(outcomes, key=lambda one: one.index)
    assert [one.result for one in found] == [2, None, 6]
    assert isinstance(found[1].error, TypeError)


def test_leaving_early_kills_who_is_at_work(no_child_left: None) -> None:
    began = time.perf_counter()
    with SupervisedMap(time.sleep, [0, 1000, 1000], 2) as outcomes:
        assert next(iter(outcomes)).index == 0
    outcomes = SupervisedMap(time.sleep, [0, 1000], 2)

    def leave() -> None:
        with outcomes:
            raise ZeroDivisionError(next(iter(outcomes)))

    with pytest.raises(ZeroDivisionError):
        leave()
    assert time.perf_counter() - began < LIMIT


def test_stopping_lets_those_in_hand_come_to_an_end(no_child_left: None) -> None:
    with SupervisedMap(double, range(100), 2) as outcomes:
        found = []
        for one in outcomes:
            found.append(one.index)
            outcomes.stop(LIMIT)
    assert 2 <= len(found) <= 4  # one or two were received, and two in hand


def test_the_first_grace_counts(no_child_left: None) -> None:
    with SupervisedMap(time.sleep, [0.0, 0.3], 2) as outcomes:
        found = []
        for one in outcomes:
            found.append(one.index)
            outcomes.stop(LIMIT)
            outcomes.stop(0)
    assert found == [0, 1]


def test_the_end_of_the_grace_ends_the_wait(no_child_left: None) -> None:
    began = time.perf_counter()
    with SupervisedMap(time.sleep, [0, 1000], 2) as outcomes:
        found = []
        for one in outcomes:
            found.append(one.index)
            outcomes.stop(0.05)
        assert found == [0]
    assert time.perf_counter() - began < LIMIT


def test_another_thread_may_stop_it(no_child_left: None) -> None:
    with SupervisedMap(time.sleep, [1000, 1000], 2) as outcomes:
        timer = threading.Timer(0.05, outcomes.stop)
        timer.start()
        assert list(outcomes) == []
        timer.join()


def test_a_lost_task_is_not_begun_again_after_stop(no_child_left: None) -> None:
    losses: list[Loss] = []

    def stop(loss: Loss) -> None:
        losses.append(loss)
        outcomes.stop(LIMIT)

    tasks = range(killed.VICTIM, 100)
    began = time.perf_counter()
    outcomes = SupervisedMap(killed.square_or_die, tasks, 1, on_loss=stop)
    with outcomes:
        assert list(outcomes) == []
    assert len(losses) == 1
    assert time.perf_counter() - began < LIMIT


@pytest.mark.parametrize(("n_workers", "attempts"), [(0, 1), (1, 0), (-1, 3)])
def test_workers_and_attempts_are_needed(n_workers: int, attempts: int) -> None:
    with pytest.raises(ValueError, match=f"{n_workers}, {attempts}"):
        SupervisedMap(double, [], n_workers, attempts)


@given(st.lists(st.integers(-3, 3), max_size=6), st.integers(1, 3))
def test_packed_outcomes_can_be_unpacked(numbers: list[int], n: int) -> None:
    def divide(divisor: int) -> float:
        return n / divisor

    for number in numbers:
        result, error = pickle.loads(killed.packed_outcome(divide, number))
        assert (result is None) == isinstance(error, ZeroDivisionError) == (not number)


ORPHANS = """
import os, sys
from Chapter06 import example18_worker_killed_job_completed as killed

def report(busy):
    os.write(1, f"{os.getpid()}\\n".encode())  # print may do that in two pieces
    if busy:
        os.read(0, 1)  # ends with the test's patience; sys.stdin is closed in a worker

if __name__ == "__main__":
    tasks = [sys.argv[1] == "busy"] * 9
    with killed.SupervisedMap(report, tasks, 3) as outcomes:
        for _ in outcomes:
            os.read(0, 1)  # meanwhile nobody takes what the workers have done
"""


@posix_only
@pytest.mark.parametrize("state", ["busy", "idle"])
def test_workers_end_when_their_parent_is_killed(state: str, tmp_path: Path) -> None:
    script = tmp_path / "orphans.py"
    script.write_text(ORPHANS)
    with subprocess.Popen(
        [sys.executable, script, state],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ
        | {"PYTHONPATH": str(Path(__file__).parent.parent), "TMPDIR": str(tmp_path)},
    ) as parent:
        assert parent.stdout is not None
        pids: set[int] = set()
        while len(pids) < 3:
            pids.add(int(parent.stdout.readline()))
        workers = [psutil.Process(pid) for pid in pids]
        assert all(one.is_running() for one in workers)
        parent.kill()
        parent.wait(LIMIT)
        assert parent.stdin is not None
        parent.stdin.close()  # the tasks in hand end
        left = psutil.wait_procs(workers, LIMIT)[1]
        assert not [one for one in left if one.status() != psutil.STATUS_ZOMBIE]


# -- example19


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_and_the_second_raises(number: signal.Signals) -> None:
    stopped = []
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with signals.signals_that_stop(lambda: stopped.append(1)) as received:
        signal.raise_signal(number)
        assert (received, stopped) == ([number], [1])
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
        assert (received, stopped) == ([number, number], [1])
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@posix_only
def test_a_job_that_nobody_stops_is_done(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)  # in forked workers
    assert signals.run_job(3, 0.0, None) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert sorted(lines) == sorted(f"{n} squared is {n * n}" for n in range(12))
    assert last == "not done:"


@posix_only
def test_the_living_and_the_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1) as process:
        assert signals.alive(process.pid)
        assert process.pid in signals.members_of(os.getpgid(0))
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.001)
        assert not signals.alive(process.pid)
        assert process.pid not in signals.members_of(os.getpgid(0))
    assert not signals.alive(process.pid)


@posix_only
def test_a_program_is_killed_with_all_its_group() -> None:
    with signals.program("--job", "--grace=9") as job:
        assert job.stdout is not None
        job.stdout.readline()
        assert len(signals.members_of(job.pid)) >= 3
    deadline = time.monotonic() + LIMIT
    while signals.members_of(job.pid):
        assert time.monotonic() < deadline


# -- bad arguments


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        (starts, ["--starts", "0"], "0"),
        (starts, ["--ballast", "-1"], "-1"),
        (killed, ["--tasks", "2"], "more than 2, not 2"),
        (killed, ["--workers", "0"], "0"),
        (killed, ["--tasks", "many"], "many"),
        (signals, ["--grace", "-1"], "-1"),
        (signals, ["--grace", "nan"], "nan"),
        (signals, ["--grace", "inf"], "inf"),
        (signals, ["--workers", "0"], "0"),
        (signals, ["--gate", "0"], "0"),
    ],
)
def test_bad_arguments_are_named(
    complaint: Callable[..., str],
    module: ModuleType,
    arguments: list[str],
    culprit: str,
) -> None:
    assert culprit in complaint(module, *arguments)
