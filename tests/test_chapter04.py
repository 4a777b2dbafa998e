"""Chapter 4: the parts a reader would copy."""

import asyncio
import errno
import importlib.util
import io
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import (
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    redirect_stdout,
    suppress,
)
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, TextIO, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from Chapter04 import example01_too_many_open_files as files
from Chapter04 import example02_lock_left_behind as left_behind
from Chapter04 import example03_own_context_managers as own
from Chapter04 import example04_exit_stack_over_locks as stacks
from Chapter04 import example05_lock_with_timeout as timed
from Chapter04 import example06_what_the_end_of_with_waits_for as ends
from Chapter04 import example07_async_with as async_with
from Chapter04 import example08_with_that_everybody_feels as everybody

T = TypeVar("T")

LIMIT = 10.0  # seconds, for what should never take that long


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, LIMIT at most."""
    return asyncio.run(asyncio.wait_for(work, LIMIT))


@pytest.fixture
def script_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[ModuleType], str]:
    """Give a function that runs a script; it returns what the script complains of."""

    def run_main(module: ModuleType) -> str:
        monkeypatch.setattr(sys, "argv", ["script"])
        with pytest.raises(SystemExit) as exit_:
            module.main()
        return str(exit_.value.code)

    return run_main


@pytest.fixture
def another_thread() -> Iterator[ThreadPoolExecutor]:
    """Give a pool with a single thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


# -- example01


needs_resource = pytest.mark.skipif(
    importlib.util.find_spec("resource") is None, reason="needs the module resource"
)

CLOSING = [files.first_lines_finally, files.first_lines_with]


@pytest.fixture
def three_files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{n}.txt" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_text(f"first of {n}\nsecond\n", "utf-8")
    return paths


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[TextIO]:
    """Give a list of the files that are opened; at most one is to be open at a time."""
    seen: list[TextIO] = []
    open_path: Callable[..., TextIO] = Path.open

    def note(path: Path, *args: Any, **options: Any) -> TextIO:
        assert all(file.closed for file in seen)
        seen.append(open_path(path, *args, **options))
        return seen[-1]

    monkeypatch.setattr(Path, "open", note)
    return seen


@pytest.mark.parametrize("read", CLOSING)
def test_each_file_is_closed_before_the_next_is_opened(
    read: Callable[[Sequence[Path]], list[str]],
    three_files: list[Path],
    opened: list[TextIO],
) -> None:
    assert read(three_files) == [f"first of {n}\n" for n in range(3)]
    assert [file.closed for file in opened] == [True] * 3


@pytest.mark.parametrize("read", CLOSING)
def test_a_file_that_cannot_be_read_is_closed(
    read: Callable[[Sequence[Path]], list[str]],
    three_files: list[Path],
    opened: list[TextIO],
) -> None:
    three_files[1].write_bytes(b"\xff\n")
    opened.clear()
    with pytest.raises(UnicodeDecodeError):
        read(three_files)
    assert [file.closed for file in opened] == [True] * 2


def test_files_that_are_kept_stay_open(three_files: list[Path]) -> None:
    kept: list[TextIO] = []
    lines = files.first_lines_leaking(three_files, kept)
    assert lines == [f"first of {n}\n" for n in range(3)]
    assert [file.closed for file in kept] == [False] * 3
    for file in kept:
        file.close()


@pytest.mark.parametrize(
    ("way", "warned"), [("leak", 0), ("drop", 3), ("finally", 0), ("with", 0)]
)
def test_files_that_are_dropped_give_warnings(
    way: str, warned: int, three_files: list[Path]
) -> None:
    if way == "drop" and sys.implementation.name != "cpython":
        pytest.skip("needs reference counting")
    outcome = files.attempt(files.WAYS[way], three_files)
    assert outcome == (files.ERROR_FREE, 3, warned)


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "too many"), KeyError("bug")])
def test_what_an_attempt_keeps_is_closed_after_an_error(
    error: Exception, three_files: list[Path]
) -> None:
    seen: list[TextIO] = []

    def read(paths: Sequence[Path], kept: list[TextIO]) -> list[str]:
        files.first_lines_leaking(paths, kept)
        seen.extend(kept)
        raise error

    if isinstance(error, OSError):
        assert files.attempt(read, three_files) == ("EMFILE", 3, 0)
    else:
        with pytest.raises(KeyError):
            files.attempt(read, three_files)
    assert [file.closed for file in seen] == [True] * 3


@needs_resource
def test_only_the_leak_runs_into_the_limit() -> None:
    error, n_files, warned = files.attempt_in_child("leak", 20)
    assert (error, warned) == ("EMFILE", 0)
    assert 0 < n_files < 20
    assert files.attempt_in_child("with", 20) == (files.ERROR_FREE, 200, 0)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("print('nonsense')", ValueError),
        (
            "import sys; print('x: 1 files, 2 warnings'); sys.stderr.write('!')",
            ValueError,
        ),
        ("raise SystemExit(1)", subprocess.CalledProcessError),
        ("import threading; threading.Event().wait()", subprocess.TimeoutExpired),
    ],
)
def test_a_child_that_fails_is_noticed(
    code: str, error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child.py"
    child.write_text(code)
    monkeypatch.setattr(files, "__file__", str(child))
    if error is subprocess.TimeoutExpired:
        monkeypatch.setattr(files, "TIME_LIMIT", 0.05)
    with pytest.raises(error):
        files.attempt_in_child("with", 64)


def test_without_limits_the_script_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script"])
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SystemExit) as exit_:
        files.main()
    assert exit_.value.code == 77
    out = capsys.readouterr().out
    assert out.startswith("needs ")
    assert out.count("\n") == 1


# -- example02


every_way = pytest.mark.parametrize(
    ("call", "leaves_free"),
    [
        (left_behind.call_leaking, False),
        (left_behind.call_finally, True),
        (left_behind.call_with, True),
    ],
)


@every_way
def test_a_job_that_ends_well_gives_its_result_and_the_lock(
    call: Callable[..., object], leaves_free: bool
) -> None:
    lock = threading.Lock()
    assert call(lock, lambda: (lock.locked(), "result")) == (True, "result")
    assert not lock.locked()


@every_way
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_only_the_bare_release_is_skipped_by_an_exception(
    call: Callable[..., object], leaves_free: bool, error: type[BaseException]
) -> None:
    lock = threading.Lock()

    def job() -> None:
        assert lock.locked()
        raise error

    with pytest.raises(error):
        call(lock, job)
    assert left_behind.is_free(lock, 0.01) is leaves_free
    assert lock.locked() is not leaves_free  # looking did not change it


def test_an_acquire_inside_try_releases_the_lock_of_another(
    another_thread: ThreadPoolExecutor,
) -> None:
    lock = threading.Lock()
    assert left_behind.call_releasing_anothers(lock, lock.locked, 0.01) is True
    assert not lock.locked()
    another_thread.submit(lock.acquire).result()
    with pytest.raises(TimeoutError, match=r"not free within 0\.01 s"):
        left_behind.call_releasing_anothers(lock, lock.locked, 0.01)
    assert not lock.locked()


# -- example03


FORMS: dict[str, Callable[[own.Clock], own.Watch]] = {
    "class": own.Stopwatch,
    "local": own.StopwatchOfEachThread,
    "generator": own.stopwatch,
}
every_form = pytest.mark.parametrize("make", FORMS.values(), ids=FORMS)
every_catcher = pytest.mark.parametrize("catch", [own.Catching, own.catching])


@every_form
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_block_is_timed_however_it_ends(
    make: Callable[[own.Clock], own.Watch], error: type[BaseException] | None
) -> None:
    clock = own.HandSetClock()
    clock.now = 100.0
    with pytest.raises(error) if error else nullcontext(), make(clock) as reading:
        clock.now += 7
        if error:
            raise error
    clock.now += 1
    assert reading.seconds == 7


def test_the_usual_clock_counts_seconds() -> None:
    for watch in (own.Stopwatch(), own.StopwatchOfEachThread(), own.stopwatch()):
        began = time.perf_counter()
        with watch as reading:
            before = time.perf_counter()
            while time.perf_counter() == before:
                pass
        assert 0 < reading.seconds <= time.perf_counter() - began


@every_catcher
def test_only_what_is_named_is_caught(catch: Callable[..., own.Catcher]) -> None:
    assert own.swallows(catch(ValueError, OSError), OSError())
    assert own.swallows(catch(ValueError), UnicodeError())  # a subclass
    assert not own.swallows(catch(ValueError), KeyError())
    assert not own.swallows(catch(), ValueError())
    with pytest.raises(KeyboardInterrupt), catch(Exception):
        raise KeyboardInterrupt


def test_what_was_caught_is_kept() -> None:
    catcher = own.Catching(ValueError)
    error = ValueError()
    with catcher:
        raise error
    assert catcher.caught is error
    with catcher:
        pass
    assert catcher.caught is None
    with pytest.raises(KeyError), catcher:
        raise KeyError
    assert catcher.caught is None
    with own.catching(ValueError) as caught:
        raise error
    assert caught == [error]
    with own.catching(ValueError) as caught:
        pass
    assert caught == []


def test_an_object_of_a_class_can_be_used_again() -> None:
    clock = own.HandSetClock()
    assert own.can_be_used_twice(own.Stopwatch(clock))
    assert own.can_be_used_twice(own.StopwatchOfEachThread(clock))
    assert not own.can_be_used_twice(own.stopwatch(clock))


def test_one_stopwatch_cannot_serve_two_threads() -> None:
    clock = own.HandSetClock()
    shared, local = own.Stopwatch(clock), own.StopwatchOfEachThread(clock)
    assert own.time_beside_another(shared, shared, clock) == 2
    assert own.time_beside_another(local, local, clock) == 12
    for make in FORMS.values():
        assert own.time_beside_another(make(clock), make(clock), clock) == 12


# -- example04


class NotingLock:
    """A lock that is always free, and notes what is done with it."""

    def __init__(
        self, name: int, log: list[tuple[str, int]], error: BaseException | None = None
    ) -> None:
        self.name = name
        self._log = log
        self._error = error

    def acquire(self, *, timeout: float) -> bool:
        if isinstance(self._error, TimeoutError):
            return False
        if self._error:
            raise self._error
        self._log.append(("acquire", self.name))
        return True

    def release(self) -> None:
        self._log.append(("release", self.name))


def name_of_lock(lock: NotingLock) -> int:
    return lock.name


N_LOCKS = 5


@pytest.mark.parametrize("k", range(N_LOCKS))
@pytest.mark.parametrize(
    "error", [TimeoutError(), RuntimeError(), KeyboardInterrupt(), SystemExit()]
)
def test_what_was_taken_before_the_failure_is_given_back(
    k: int, error: BaseException
) -> None:
    log: list[tuple[str, int]] = []
    locks = [NotingLock(n, log, error if n == k else None) for n in range(N_LOCKS)]
    with (
        pytest.raises(type(error)),
        stacks.acquire_all(locks[::-1], LIMIT, rank=name_of_lock),
    ):
        pytest.fail("the block must not be run")
    assert log == [
        *(("acquire", n) for n in range(k)),
        *(("release", n) for n in reversed(range(k))),
    ]


@pytest.mark.parametrize("k", range(N_LOCKS))
@pytest.mark.parametrize(
    "make", [threading.Lock, threading.RLock, threading.Condition, threading.Semaphore]
)
def test_exactly_the_others_are_free_after_a_time_out(
    k: int, make: Callable[[], timed.Acquirable], another_thread: ThreadPoolExecutor
) -> None:
    locks = [make() for _ in range(N_LOCKS)]
    another_thread.submit(locks[k].acquire, timeout=LIMIT).result()
    with (
        pytest.raises(TimeoutError, match=rf"^lock {k} not free within 0\.01 s$"),
        stacks.acquire_all(locks, 0.01),
    ):
        pytest.fail("the block must not be run")
    others = [n for n in range(N_LOCKS) if n != k]
    with ThreadPoolExecutor(max_workers=1) as third_thread:
        assert third_thread.submit(stacks.free_ones, locks).result() == others
    another_thread.submit(locks[k].release).result()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_all_are_held_in_the_block_and_released_after_it(
    error: type[BaseException] | None,
) -> None:
    locks = [threading.Lock() for _ in range(N_LOCKS)]
    with (
        pytest.raises(error) if error else nullcontext(),
        stacks.acquire_all(locks, LIMIT),
    ):
        assert stacks.free_ones(locks) == []
        if error:
            raise error
    assert stacks.free_ones(locks) == list(range(N_LOCKS))


@given(st.permutations(range(N_LOCKS)))
def test_the_order_does_not_depend_on_the_caller(order: list[int]) -> None:
    log: list[tuple[str, int]] = []
    locks = [NotingLock(n, log) for n in range(N_LOCKS)]
    with stacks.acquire_all([locks[n] for n in order], LIMIT):
        by_id = sorted(range(N_LOCKS), key=lambda n: id(locks[n]))
        assert log == [("acquire", n) for n in by_id]
        log.clear()
    assert log == [("release", n) for n in reversed(by_id)]
    log.clear()
    with stacks.acquire_all([locks[n] for n in order], LIMIT, rank=lambda _: 0):
        assert log == [("acquire", n) for n in by_id]  # equals are sorted by id
    log.clear()
    with stacks.acquire_all(
        [locks[n] for n in order], LIMIT, rank=lambda lock: -lock.name
    ):
        assert log == [("acquire", n) for n in reversed(range(N_LOCKS))]


def test_one_time_limit_holds_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = own.HandSetClock()
    monkeypatch.setattr(time, "monotonic", clock)
    limits = []

    class SlowLock(NotingLock):
        def acquire(self, *, timeout: float) -> bool:
            limits.append(timeout)
            clock.now += 2
            return True

    locks = [SlowLock(n, []) for n in range(4)]
    with stacks.acquire_all(locks, 5):
        pass
    assert limits == [5, 3, 1, 0]
    limits.clear()
    with stacks.acquire_all(locks[:1], math.inf):
        pass
    assert limits == [threading.TIMEOUT_MAX]


def test_what_cannot_be_acquired_is_refused() -> None:
    lock, other = threading.Lock(), threading.Lock()
    with (
        pytest.raises(ValueError, match="named twice"),
        stacks.acquire_all([lock, other, lock], LIMIT),
    ):
        pytest.fail("the block must not be run")
    for timeout in (-1, -0.001, math.nan):
        for manager in (
            stacks.acquire_all([lock], timeout),
            timed.acquired(lock, timeout),
        ):
            with pytest.raises(ValueError, match="cannot be"), manager:
                pytest.fail("the block must not be run")
    assert stacks.free_ones([lock, other]) == [0, 1]


def test_no_locks_are_quickly_acquired() -> None:
    with stacks.acquire_all(list[threading.Lock](), 0):
        pass
    with stacks.acquire_all([threading.Lock()], 0):  # free: no waiting needed
        pass


def test_the_others_are_released_even_if_one_cannot_be() -> None:
    locks = [threading.Lock() for _ in range(N_LOCKS)]
    with (
        pytest.raises(RuntimeError, match="unlocked"),
        stacks.acquire_all(locks, LIMIT),
    ):
        locks[2].release()  # a mistake of the block
    assert stacks.free_ones(locks) == list(range(N_LOCKS))


def test_opposite_orders_do_not_deadlock() -> None:
    locks = [threading.Lock() for _ in range(2)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        orders = [locks, locks[::-1]] * 2
        assert list(pool.map(stacks.take_often, orders, [50] * 4)) == [50] * 4


def test_a_reservation_lasts_until_it_is_closed() -> None:
    locks = [threading.Lock() for _ in range(N_LOCKS)]
    reservation = stacks.Reservation(locks, LIMIT)
    assert stacks.free_ones(locks) == []
    reservation.close()
    assert stacks.free_ones(locks) == list(range(N_LOCKS))
    with locks[0]:
        reservation.close()  # again: releases nothing
        assert locks[0].locked()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_reservation_half_made_holds_nothing(error: type[BaseException]) -> None:
    locks = [threading.Lock() for _ in range(N_LOCKS)]

    def prepare() -> None:
        assert stacks.free_ones(locks) == []
        raise error

    with pytest.raises(error):
        stacks.Reservation(locks, LIMIT, prepare)
    assert stacks.free_ones(locks) == list(range(N_LOCKS))
    with locks[1], pytest.raises(TimeoutError):
        stacks.Reservation(locks, 0.01)
    assert stacks.free_ones(locks) == list(range(N_LOCKS))


# -- example05


KINDS: list[Callable[[], timed.Acquirable]] = [
    threading.Lock,
    threading.RLock,
    threading.Condition,
    threading.Semaphore,
    threading.BoundedSemaphore,
]
every_kind = pytest.mark.parametrize("make", KINDS)


@every_kind
@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_every_kind_of_lock_is_held_in_the_block_only(
    make: Callable[[], timed.Acquirable],
    error: type[BaseException] | None,
    another_thread: ThreadPoolExecutor,
) -> None:
    lock = make()
    with (
        pytest.raises(error) if error else nullcontext(),
        timed.acquired(lock, math.inf),
    ):
        assert another_thread.submit(stacks.free_ones, [lock]).result() == []
        if error:
            raise error
    assert another_thread.submit(stacks.free_ones, [lock]).result() == [0]


@every_kind
@pytest.mark.parametrize("timeout", [0, 0.01])
def test_a_lock_that_is_not_free_in_time_is_left_alone(
    make: Callable[[], timed.Acquirable],
    timeout: float,
    another_thread: ThreadPoolExecutor,
) -> None:
    lock = make()
    another_thread.submit(lock.acquire, timeout=LIMIT).result()
    with (
        pytest.raises(TimeoutError, match=f"^printer not free within {timeout} s$"),
        timed.acquired(lock, timeout, "printer"),
    ):
        pytest.fail("the block must not be run")
    assert stacks.free_ones([lock]) == []
    another_thread.submit(lock.release).result()


def test_a_lock_without_a_name_is_called_by_its_repr() -> None:
    lock = threading.Lock()
    with lock:
        called = repr(lock)
        with pytest.raises(TimeoutError) as error, timed.acquired(lock, 0):
            pytest.fail("the block must not be run")
    assert str(error.value) == f"{called} not free within 0 s"


def test_a_lock_that_becomes_free_in_time_is_acquired(
    another_thread: ThreadPoolExecutor,
) -> None:
    lock = threading.Lock()
    lock.acquire()
    waiting = threading.Event()

    class Waiter:
        release = lock.release

        def acquire(self, *, timeout: float) -> bool:
            waiting.set()
            return lock.acquire(timeout=timeout)

    done = another_thread.submit(timed.pass_through, Waiter(), LIMIT, "lock")
    assert waiting.wait(LIMIT)
    lock.release()
    done.result()
    assert not lock.locked()


def test_ignoring_false_runs_the_job_without_the_lock(
    another_thread: ThreadPoolExecutor,
) -> None:
    lock, reentrant = threading.Lock(), threading.RLock()
    assert timed.call_ignoring_false(lock, lock.locked, 0.01) is True
    assert not lock.locked()
    another_thread.submit(lock.acquire).result()
    assert timed.call_ignoring_false(lock, lambda: "ran", 0.01) == "ran"
    assert not lock.locked()  # the other thread still believes that it holds it
    another_thread.submit(reentrant.acquire).result()
    with pytest.raises(RuntimeError, match="un-acquired"):
        timed.call_ignoring_false(reentrant, lambda: "ran", 0.01)
    another_thread.submit(reentrant.release).result()


def test_with_and_the_result_of_acquire_leak_the_lock() -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="context manager"):
        timed.call_with_result(lock, lambda: pytest.fail("was run"), 0.01)
    assert lock.locked()


# -- example06


def test_nobody_passes_a_gate_before_it_is_opened(
    another_thread: ThreadPoolExecutor,
) -> None:
    gate = ends.Gate()
    task = another_thread.submit(ends.pass_gate, gate.port)
    gate.wait_for_task()
    assert not task.done()
    gate.open()
    gate.open()
    assert task.result(LIMIT) is None


def test_a_gate_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, another_thread: ThreadPoolExecutor
) -> None:
    monkeypatch.setattr(ends, "TIME_LIMIT", 0.01)
    gate = ends.Gate()
    with pytest.raises(TimeoutError):
        gate.wait_for_task()
    gate.open()
    gate = ends.Gate()
    with pytest.raises(TimeoutError):
        another_thread.submit(ends.pass_gate, gate.port).result()
    gate.open()


@pytest.mark.parametrize("fails", [False, True])
def test_a_pool_of_threads_waits(fails: bool) -> None:
    threads = threading.active_count()
    assert ends.states_after(ends.one_thread(), ends.submit, fails) == ["done"] * 4
    states = ends.states_after(ends.one_thread(), ends.submit_and_cancel, fails)
    assert states == ["done", *["cancelled"] * 3]
    assert threading.active_count() == threads


@pytest.mark.parametrize("fails", [False, True])
def test_a_block_that_does_not_wait_is_seen_through(fails: bool) -> None:
    pools: list[Executor] = []

    @contextmanager
    def impatient() -> Iterator[Executor]:
        pools.append(ThreadPoolExecutor(max_workers=1))
        try:
            yield pools[0]
        finally:
            pools[0].shutdown(wait=False)

    states = ends.states_after(impatient(), ends.submit, fails, patience=LIMIT)
    assert states == ["left running"] * 4
    pools[0].shutdown()


def test_tasks_are_let_go_if_they_cannot_all_be_started() -> None:
    started: list[ends.Task] = []

    def start(pool: Executor, gate: ends.Gate) -> list[ends.Task]:
        started.extend(ends.submit(pool, gate))
        raise KeyError("no more")

    with pytest.raises(KeyError):
        ends.states_after(ends.one_thread(), start, False, patience=LIMIT)
    for task in started:
        assert isinstance(task, Future)
        assert task.exception(0) is None  # the first has not waited in vain


@pytest.mark.parametrize("fails", [False, True])
def test_the_block_fails_if_it_is_to_fail(fails: bool) -> None:
    failed: list[bool] = []

    @contextmanager
    def noting() -> Iterator[Executor]:
        with ends.one_thread() as pool:
            try:
                yield pool
            except ends.BlockFailedError:
                failed.append(True)
                raise

    ends.states_after(noting(), ends.submit, fails)
    assert failed == [True] * fails


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_is_waited_for(fails: bool) -> None:
    states = ends.states_after(ends.child_process(), ends.send_to_gate, fails)
    assert states == ["done"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_ctrl_c_waits_also_if_another_thread_is_the_one_that_gets_it() -> None:
    """The system gives it to any thread that does not block it, one of numpy's, say."""
    log: list[str] = []
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, set())

    def blocks() -> None:
        with ends.ctrl_c_later():
            with ends.ctrl_c_later():
                os.kill(os.getpid(), signal.SIGINT)
                assert heard.recv(1)  # that thread has got it
                for _ in range(10_000):
                    pass  # each round is an occasion for this one to learn of it
                log.append("inner")
            log.append("outer")

    heard, hears = socket.socketpair()
    hears.setblocking(False)
    signal.set_wakeup_fd(hears.fileno())
    try:
        with heard, hears, pytest.raises(KeyboardInterrupt):
            blocks()
    finally:
        signal.set_wakeup_fd(-1)
        leave.set()
        thread.join()
    assert log == ["inner", "outer"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == mask


def test_ctrl_c_can_wait_in_any_thread() -> None:
    handler = signal.getsignal(signal.SIGINT)

    def block() -> Any:
        with ends.ctrl_c_later():
            return signal.getsignal(signal.SIGINT)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(block).result() is handler


@pytest.mark.skipif(sys.platform == "win32", reason="needs signal masks")
def test_ctrl_c_waits_for_the_end_of_the_block() -> None:
    reached = False

    def block() -> None:
        nonlocal reached
        with ends.ctrl_c_later():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            reached = True

    with pytest.raises(KeyboardInterrupt):
        block()
    assert reached
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, set())


def test_states_of_tasks() -> None:
    future: Future[None] = Future()
    assert ends.state_of(future) == "left running"
    future.set_result(None)
    assert ends.state_of(future) == "done"
    cancelled: Future[None] = Future()
    cancelled.cancel()
    assert ends.state_of(cancelled) == "cancelled"
    assert ends.tally(["done", "lost", "lost"]) == "1 done, 2 lost"
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        assert ends.state_of(child) == "left running"  # nobody has asked it yet
    assert ends.state_of(child) == "done"


def test_a_task_group_waits_and_cancels() -> None:
    assert run(ends.states_after_task_group(False)) == ["done"] * 4
    assert run(ends.states_after_task_group(True)) == ["cancelled"] * 4


@pytest.mark.parametrize("fails", [False, True])
def test_a_time_out_leaves_tasks_running(fails: bool) -> None:
    assert run(ends.states_after_timeout(fails)) == ["left running"] * 4


# -- example07


def received(line: async_with.Line) -> str:
    return ", ".join(line.messages)


@pytest.mark.parametrize(
    "form", [async_with.Session, async_with.session, async_with.thorough_session]
)
@pytest.mark.parametrize("error", [None, ValueError])
def test_a_session_says_goodbye_however_it_ends(
    form: async_with.OpenSession, error: type[Exception] | None
) -> None:
    async def talk() -> str:
        line = async_with.Line()
        with pytest.raises(error) if error else nullcontext():
            async with form("a", line.send):
                assert received(line) == "hello a"
                if error:
                    raise error
        return received(line)

    assert run(talk()) == "hello a, goodbye a"


@pytest.mark.parametrize(
    "form", [async_with.Session, async_with.session, async_with.thorough_session]
)
def test_a_session_that_never_began_does_not_end(form: async_with.OpenSession) -> None:
    async def talk() -> str:
        line = async_with.Line(refused="hello a")
        with pytest.raises(ConnectionError, match="refused: hello a"):
            async with form("a", line.send):
                pytest.fail("the block must not be run")
        return received(line)

    assert run(talk()) == ""


@pytest.mark.parametrize("k", range(4))
def test_sessions_opened_before_the_failure_are_closed(k: int) -> None:
    async def talk() -> list[str]:
        line = async_with.Line(refused=f"hello {k}")
        with pytest.raises(ConnectionError) if k < 3 else nullcontext():
            async with async_with.sessions("012", line.send) as opened:
                assert [one.name for one in opened] == ["0", "1", "2"]
        return line.messages

    opened = range(min(k, 3))
    assert run(talk()) == [
        *(f"hello {n}" for n in opened),
        *(f"goodbye {n}" for n in reversed(opened)),
    ]


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_second_cancel_cuts_an_ordinary_clean_up_short(times: int) -> None:
    whole = ["hello a", "goodbye a"]
    cut: dict[async_with.OpenSession, bool] = {
        async_with.Session: times > 1,
        async_with.session: times > 1,
        async_with.thorough_session: False,
    }
    for form in cut:
        messages = run(async_with.messages_if_cancelled(form, times))
        assert messages == (whole[:1] if cut[form] else whole)


def test_a_clean_up_gives_its_result_or_its_exception() -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def fail() -> int:
        await asyncio.sleep(0)
        raise ValueError("clean-up")

    assert run(async_with.to_the_end(answer())) == 42
    with pytest.raises(ValueError, match="clean-up"):
        run(async_with.to_the_end(fail()))


@pytest.mark.parametrize("error", [None, ValueError("clean-up")])
def test_a_clean_up_ends_before_its_cancelled_task(error: Exception | None) -> None:
    async def scenario() -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()
        ended = False

        async def clean_up() -> None:
            nonlocal ended
            begun.set()
            await go_on.wait()
            ended = True
            if error:
                raise error

        task = asyncio.create_task(async_with.to_the_end(clean_up()))
        await begun.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
            assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        assert ended
        assert cancelled.value.__cause__ is error

    run(scenario())


def test_a_clean_up_that_cancels_itself_ends_too() -> None:
    async def clean_up() -> None:
        raise asyncio.CancelledError

    async def scenario() -> None:
        with pytest.raises(asyncio.CancelledError):
            await async_with.to_the_end(clean_up())

    run(scenario())


def test_a_time_out_does_not_cut_a_thorough_clean_up_short() -> None:
    async def talk(line: async_with.Line) -> None:
        async with (
            asyncio.timeout(LIMIT) as limit,
            async_with.thorough_session("a", line.send),
        ):
            line.ready.clear()
            loop = asyncio.get_running_loop()
            limit.reschedule(loop.time())  # expires in the clean-up, and before this:
            loop.call_later(0.01, line.ready.set)

    async def scenario() -> str:
        line = async_with.Line()
        with pytest.raises(TimeoutError):
            await talk(line)
        return received(line)

    assert run(scenario()) == "hello a, goodbye a"


def test_a_thread_lock_stops_the_loop_that_could_release_it() -> None:
    assert run(async_with.acquire_held_thread_lock(0.01)) == (False, True)
    assert run(async_with.acquire_held_asyncio_lock()) is True


# -- example08


NUMBER: ContextVar[int] = ContextVar("NUMBER", default=0)


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_a_setting_ends_with_its_block(error: type[BaseException] | None) -> None:
    with pytest.raises(error) if error else nullcontext(), everybody.setting(NUMBER, 1):
        with everybody.setting(NUMBER, 2):
            assert NUMBER.get() == 2
        assert NUMBER.get() == 1
        if error:
            raise error
    assert NUMBER.get() == 0


def test_a_setting_is_felt_by_its_own_task_only() -> None:
    async def scenario() -> None:
        inside, leave = asyncio.Event(), asyncio.Event()

        async def work() -> int:
            with everybody.setting(NUMBER, 1):
                inside.set()
                await leave.wait()
                return NUMBER.get()

        task = asyncio.create_task(work())
        await inside.wait()
        assert NUMBER.get() == 0
        leave.set()
        assert await task == 1

    run(scenario())


def test_what_another_thread_sees() -> None:
    seen = everybody.seen_by_another_thread(everybody.setting(NUMBER, 1), NUMBER.get)
    assert seen == 0
    inside: list[int] = []

    @contextmanager
    def block() -> Iterator[None]:
        inside.append(threading.get_ident())
        yield
        inside.clear()

    seen_inside, elsewhere = everybody.seen_by_another_thread(
        block(), lambda: (list(inside), threading.get_ident())
    )
    assert seen_inside == [threading.get_ident()] != [elsewhere]
    assert not inside


def test_overlapping_blocks_are_left_in_the_order_of_entering() -> None:
    log: list[tuple[str, str, int]] = []

    @contextmanager
    def noting(name: str) -> Iterator[None]:
        log.append(("enter", name, threading.get_ident()))
        with everybody.setting(everybody.OUT, io.StringIO()):
            yield
        log.append(("leave", name, threading.get_ident()))

    everybody.overlap(noting("first"), noting("second"))
    assert [step[:2] for step in log] == [
        ("enter", "first"),
        ("enter", "second"),
        ("leave", "first"),
        ("leave", "second"),
    ]
    assert log[0][2] == log[2][2] != log[1][2] == log[3][2]


def test_overlapping_redirections_are_left_wrong() -> None:
    before = sys.stdout
    one, two = io.StringIO(), io.StringIO()
    with redirect_stdout(before):
        everybody.overlap(redirect_stdout(one), redirect_stdout(two))
        assert sys.stdout is one
    assert sys.stdout is before
    assert (one.getvalue(), two.getvalue()) == ("", "one\ntwo\n")


def test_a_line_is_said_where_the_context_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = io.StringIO()
    with everybody.setting(everybody.OUT, stream):
        everybody.say("there")
    everybody.say("here")
    assert (stream.getvalue(), capsys.readouterr().out) == ("there\n", "here\n")


# -- what all of them have


def test_a_leak_that_does_not_show_is_an_error(
    monkeypatch: pytest.MonkeyPatch, script_fails: Callable[[ModuleType], str]
) -> None:
    right = {
        "leak": files.Outcome("EMFILE", 60, 0),
        "drop": files.Outcome(files.ERROR_FREE, 640, 640),
        "finally": files.Outcome(files.ERROR_FREE, 640, 0),
        "with": files.Outcome(files.ERROR_FREE, 640, 0),
    }
    for way, wrong in [
        ("leak", files.Outcome(files.ERROR_FREE, 640, 0)),
        ("leak", files.Outcome("EMFILE", 64, 0)),
        ("leak", files.Outcome("EMFILE", 0, 0)),
        ("leak", files.Outcome("EACCES", 60, 0)),
        ("drop", files.Outcome(files.ERROR_FREE, 640, 639)),
        ("finally", files.Outcome("EMFILE", 0, 0)),
        ("with", files.Outcome(files.ERROR_FREE, 640, 1)),
    ]:
        outcomes = right | {way: wrong}
        monkeypatch.setattr(
            files, "attempt_in_child", lambda way, _, outcomes=outcomes: outcomes[way]
        )
        assert repr(wrong) in script_fails(files)


@contextmanager
def stopwatch_without_finally(clock: own.Clock) -> Iterator[own.Reading]:
    reading = own.Reading()
    began = clock()
    yield reading
    reading.seconds = clock() - began


@contextmanager
def catching_all(*_: object) -> Iterator[None]:
    with suppress(Exception):  # that is the defect
        yield


@contextmanager
def acquire_some(locks: Iterable[Any], timeout: float, **_: Any) -> Iterator[None]:
    """Keep what was taken, when one lock cannot be had."""
    for n, lock in enumerate(locks):
        if not lock.acquire(timeout=timeout):
            raise TimeoutError(f"lock {n} not free")
    yield


class ReservationThatKeeps:
    def __init__(
        self, locks: Sequence[Any], timeout: float, prepare: Callable[[], object] = int
    ) -> None:
        for lock in locks:
            lock.acquire(timeout=0)
        prepare()

    def close(self) -> None:
        pass


def call_without_lock(_: object, job: Callable[[], T], __: float) -> T:
    return job()


def release_without_job(lock: timed.Acquirable, *_: object) -> None:
    lock.release()


def overlap_in_order(_: object, second: AbstractContextManager[object]) -> None:
    with second:
        print("one")
        print("two")


async def no_messages(*_: object) -> list[str]:
    return []


async def got_it(*_: object) -> tuple[bool, bool]:
    return True, True


async def not_yet() -> bool:
    return False


@asynccontextmanager
async def one_session(names: str, send: async_with.Send) -> AsyncIterator[None]:
    await send(f"hello {names[0]}")
    await send("hello c")
    yield


@contextmanager
def setting_for_all(_: object, stream: TextIO) -> Iterator[None]:
    with redirect_stdout(stream):
        yield


@pytest.mark.parametrize(
    ("module", "attribute", "replacement", "message"),
    [
        (left_behind, "call_leaking", left_behind.call_with, "acquire, job, release: "),
        (left_behind, "call_finally", left_behind.call_leaking, "acquire, try, fin"),
        (left_behind, "call_with", left_behind.call_leaking, "with: "),
        (left_behind, "call_releasing_anothers", call_without_lock, "not released"),
        (own, "stopwatch", stopwatch_without_finally, "generator: "),
        (own, "catching", catching_all, "generator: "),
        (own, "Catching", catching_all, "class: "),
        (own, "Stopwatch", own.stopwatch, "class: "),
        (own, "Stopwatch", own.StopwatchOfEachThread, "one object for both: 12"),
        (own, "StopwatchOfEachThread", own.Stopwatch, "attributes of each thread: 2"),
        (stacks, "acquire_all", acquire_some, "lock 1 not free"),
        (stacks, "acquire_all", lambda *_, **__: nullcontext(), "took a lock"),
        (stacks, "Reservation", ReservationThatKeeps, "reservation: "),
        (timed, "acquired", lambda *_: nullcontext(), "instead of a TimeoutError"),
        (timed, "call_ignoring_false", call_without_lock, "Lock: ran"),
        (timed, "call_ignoring_false", release_without_job, "Lock: ran []"),
        (timed, "call_with_result", call_without_lock, "with lock.acquire(): None"),
        (ends, "states_after", lambda *_: ["done"] * 3, "3 done"),
        (ends, "state_of", lambda _: "lost", "4 lost"),
        (async_with, "sessions", one_session, "not closed in reverse"),
        (async_with, "messages_if_cancelled", no_messages, "class: "),
        (async_with, "acquire_held_thread_lock", got_it, "not stopped"),
        (async_with, "acquire_held_asyncio_lock", not_yet, "asyncio.Lock"),
        (everybody, "redirect_stdout", nullcontext, "did not go astray"),
        (everybody, "chdir", nullcontext, "a current folder of its own"),
        (everybody, "setting", setting_for_all, "mixed up"),
        (everybody, "overlap", lambda *_: None, "stdout is as it was"),
        (everybody, "overlap", overlap_in_order, "stdout is as it was"),
    ],
)
def test_a_claim_that_does_not_show_is_an_error(
    module: ModuleType,
    attribute: str,
    replacement: object,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    script_fails: Callable[[ModuleType], str],
) -> None:
    monkeypatch.setattr(module, attribute, replacement)
    assert message in script_fails(module)


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        (files, ["--limit", "15"], "must be between 16 and 1000, not 15"),
        (files, ["--limit", "1001"], "must be between 16 and 1000, not 1001"),
        (files, ["--limit", "few"], "invalid allowed value: 'few'"),
        (files, ["--way", "hope"], "invalid choice: 'hope'"),
        (left_behind, ["--timeout", "0"], "more than 0 and at most 10, not 0"),
        (left_behind, ["--timeout", "nan"], "more than 0 and at most 10, not nan"),
        (left_behind, ["--timeout", "soon"], "invalid seconds value: 'soon'"),
        (stacks, ["--locks", "1"], "must be between 2 and 20, not 1"),
        (stacks, ["--locks", "21"], "must be between 2 and 20, not 21"),
        (timed, ["--timeout", "-1"], "more than 0 and at most 10, not -1"),
        (timed, ["--timeout", "inf"], "more than 0 and at most 10, not inf"),
    ],
)
def test_bad_arguments_get_one_clear_line(
    module: ModuleType,
    arguments: list[str],
    culprit: str,
    complaint: Callable[..., str],
) -> None:
    assert culprit in complaint(module, *arguments)
