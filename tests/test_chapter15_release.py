"""Chapter 15, who lets go of the GIL and when: the parts a reader would copy."""

import ctypes
import importlib
import operator
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import example07_who_releases_the_gil as release
import example08_cdll_and_pydll as libraries
import example09_convoy as convoy
import example10_switch_interval as intervals
import example12_what_the_gil_does_not_protect as midst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

LIMIT = 30.0  # seconds that a test waits for what must come

GIL = release.gil_state() == "on"
needs_gil = pytest.mark.skipif(not GIL, reason="needs a GIL")

# Before Python 3.12 a garbage collection in the midst of a call runs the callbacks of
# Hypothesis, which are written in Python: a thread switch may come in.
pytestmark = pytest.mark.usefixtures("no_collections")


# -- example07


@pytest.mark.parametrize("module", [release, convoy, intervals])
def test_the_switch_interval_is_set_back_even_after_a_failure(module: Any) -> None:
    def fail() -> None:
        with module.switch_interval(0.25):
            assert sys.getswitchinterval() == 0.25
            raise ArithmeticError

    before = sys.getswitchinterval()
    with pytest.raises(ArithmeticError):
        fail()
    assert sys.getswitchinterval() == before


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_switch_interval_is_positive(seconds: float) -> None:
    before = sys.getswitchinterval()
    with pytest.raises(ValueError, match="positive"):
        release.switch_interval(seconds).__enter__()
    assert sys.getswitchinterval() == before


@pytest.mark.parametrize("module", [release, libraries])
def test_the_other_thread_ends_with_the_block_whatever_happens(module: Any) -> None:
    def fail() -> None:
        with module.another_thread() as steps:
            call = partial(time.sleep, 0.001)
            while not module.steps_during(call, *in_between, steps):
                pass
            raise ArithmeticError

    in_between = [1] if module is release else []
    with no_thread_is_left(), pytest.raises(ArithmeticError):
        fail()


@pytest.mark.parametrize("times", [1, 2, 100])
def test_all_steps_between_the_first_call_and_the_last_are_counted(times: int) -> None:
    steps: list[None] = [None] * 7
    assert release.steps_during(lambda: steps.append(None), times, steps) == times


def beside(call: Callable[[], object], interval: float, until_seen: bool) -> float:
    work = release.Work("it", release.ALWAYS, call)
    with release.switch_interval(interval), release.another_thread() as steps:
        return release.rate_during(work, steps, until_seen)


def loop() -> None:
    for _ in range(100_000):
        pass


HOLDS = partial(sum, range(200_000))


@pytest.mark.parametrize("interval", [release.NEVER, 0.00001])
def test_a_sleep_lets_others_on_whether_they_ask_or_not(interval: float) -> None:
    assert beside(partial(time.sleep, 0.002), interval, until_seen=True) > 0


@needs_gil
@pytest.mark.parametrize("interval", [release.NEVER, 0.00001])
def test_a_call_in_c_lets_nobody_on_whether_they_ask_or_not(interval: float) -> None:
    assert beside(HOLDS, interval, until_seen=False) == 0


@needs_gil
def test_python_code_lets_others_on_only_if_they_ask() -> None:
    assert beside(loop, release.NEVER, until_seen=False) == 0
    assert beside(loop, release.SOON, until_seen=True) > 0


@pytest.mark.skipif(GIL, reason="needs a build without a GIL")
@pytest.mark.parametrize("call", [loop, HOLDS])
def test_without_a_gil_others_always_get_on(call: Callable[[], object]) -> None:
    assert beside(call, release.NEVER, until_seen=True) > 0


def test_waiting_for_a_step_that_never_comes_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(release, "LIMIT", 0.01)
    monkeypatch.setattr(libraries, "LIMIT", 0.01)
    call = partial(time.sleep, 0.001)
    with pytest.raises(TimeoutError, match="idle: no step"):
        release.rate_during(release.Work("idle", release.ALWAYS, call), [], True)
    with pytest.raises(TimeoutError, match="no step"):
        libraries.steps_per_second(call, [], until_seen=True)


@needs_gil
@pytest.mark.parametrize(
    ("lets_go", "made", "complaint"),
    [
        (release.KEEPS, 1, "another thread has made a step"),
        (release.IF_ASKED, 1, "another thread has made a step"),
        (release.ALWAYS, 0, "no step of another thread"),
        (release.IF_ASKED, 0, "no step of another thread"),
    ],
)
def test_a_call_that_is_not_what_the_table_says_is_told(
    monkeypatch: pytest.MonkeyPatch, lets_go: str, made: int, complaint: str
) -> None:
    steps: list[None] = []

    @contextmanager
    def nobody() -> Iterator[list[None]]:
        yield steps

    first = release.Work("first", release.ALWAYS, lambda: steps.append(None))
    wrong = release.Work("wrong", lets_go, lambda: steps.extend([None] * made))
    monkeypatch.setattr(release, "LIMIT", 0.02)
    monkeypatch.setattr(release, "another_thread", nobody)
    monkeypatch.setattr(release, "works", lambda silent: [first, wrong])
    with pytest.raises(SystemExit, match=f"wrong: {complaint}"):
        run_main(release, monkeypatch)


# -- example08


@pytest.mark.parametrize(("kind", "holds"), [(ctypes.CDLL, 0), (ctypes.PyDLL, 1)])
def test_python_knows_who_has_let_go(kind: type[ctypes.CDLL], holds: int) -> None:
    """Ask in a process that has had no subinterpreter: after that it is always 1."""
    code = f"""if True:
        import ctypes, runpy
        script = runpy.run_path({libraries.__file__!r})
        print(script["python_api"](ctypes.{kind.__name__}).PyGILState_Check())
    """
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.stdout == f"{holds}\n", child.stderr


def test_others_get_on_during_a_call_through_cdll() -> None:
    with libraries.another_thread() as steps:
        call = libraries.sleep_of(ctypes.CDLL)
        assert libraries.steps_per_second(call, steps, until_seen=True) > 0


@needs_gil
def test_nobody_gets_on_during_a_call_through_pydll() -> None:
    with libraries.another_thread() as steps:
        call = libraries.sleep_of(ctypes.PyDLL)
        assert libraries.steps_per_second(call, steps, until_seen=False) == 0


@pytest.mark.parametrize("kind", [ctypes.CDLL, ctypes.PyDLL])
def test_both_kinds_of_library_sleep(kind: type[ctypes.CDLL]) -> None:
    began = time.monotonic()
    libraries.sleep_of(kind)()
    # Windows measures this in steps of 16 ms.
    assert time.monotonic() - began >= libraries.SLEEP / 1000 - 0.017


@needs_gil
def test_a_pydll_that_lets_go_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    call = libraries.sleep_of(ctypes.CDLL)

    def python_api(kind: type[ctypes.CDLL]) -> Any:
        return SimpleNamespace(PyGILState_Check=lambda: int(kind is ctypes.PyDLL))

    monkeypatch.setattr(libraries, "python_api", python_api)
    monkeypatch.setattr(libraries, "ROUNDS", 20)
    monkeypatch.setattr(libraries, "sleep_of", lambda kind: call)
    with pytest.raises(SystemExit, match="PyDLL: "):
        run_main(libraries, monkeypatch)


@needs_gil
def test_a_cdll_that_keeps_the_gil_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    call = libraries.sleep_of(ctypes.PyDLL)
    monkeypatch.setattr(libraries, "LIMIT", 0.05)
    monkeypatch.setattr(libraries, "sleep_of", lambda kind: call)
    with pytest.raises(SystemExit, match="CDLL: no step"):
        run_main(libraries, monkeypatch)


def test_an_api_that_is_always_called_in_order_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libraries, "python_api", lambda kind: ctypes.pythonapi)
    with pytest.raises(SystemExit, match="CDLL: "):
        run_main(libraries, monkeypatch)


# -- example09


def test_all_bytes_are_sent_back_until_the_end() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as thread:
        future = thread.submit(convoy.answer, theirs)
        ours.settimeout(LIMIT)
        for byte in (b"\0", b"\n", b"\xff"):
            ours.sendall(byte)
            assert ours.recv(1) == byte
        ours.shutdown(socket.SHUT_WR)
        future.result(LIMIT)


@pytest.mark.parametrize("answer", [b"", b"x"])
def test_a_wrong_answer_and_none_are_noticed(answer: bytes) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        server.settimeout(LIMIT)
        port = server.getsockname()[1]
        future = pool.submit(convoy.ping, port, time.monotonic() + LIMIT)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(LIMIT)
            assert connection.recv(1) == b"\0"
            connection.sendall(answer)
        with pytest.raises(ConnectionError):
            future.result(LIMIT)


@pytest.mark.parametrize("computes", [False, True])
def test_pings_are_measured_beside_a_computation_or_none(
    monkeypatch: pytest.MonkeyPatch, computes: bool
) -> None:
    monkeypatch.setattr(convoy, "SECONDS", 0.05)
    before = sys.getswitchinterval()
    with no_thread_is_left(), ThreadPoolExecutor(2) as pool:
        case = convoy.measure(pool, pool if computes else None, 0.001)
    assert case.times
    assert min(case.times) > 0
    assert (case.speed > 0) == computes
    assert sys.getswitchinterval() == before


def test_whoever_begins_too_late_measures_once() -> None:
    over = time.monotonic() - 1
    assert convoy.compute(over) > 0
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        server.settimeout(LIMIT)
        times = pool.submit(convoy.ping, server.getsockname()[1], over)
        connection, _ = server.accept()
        with connection:
            convoy.answer(connection)
        assert len(times.result(LIMIT)) == 1


def test_percentiles_are_those_of_the_nearest_rank() -> None:
    case = convoy.Case([4.0, 1.0, 3.0, 2.0], 0.0)
    percents = (1, 25, 26, 50, 75, 99, 100)
    assert [case.percentile(p) for p in percents] == [1, 1, 2, 2, 3, 4, 4]


@given(st.lists(st.floats(0, 9), min_size=1), st.floats(0.1, 100))
def test_so_many_percent_take_no_longer(times: list[float], percent: float) -> None:
    limit = convoy.Case(times, 0.0).percentile(percent)
    within = sum(one <= limit for one in times)
    less = sum(one < limit for one in times)
    assert limit in times
    assert less < percent / 100 * len(times) <= within + 1e-9


def test_pings_without_an_answer_are_told(
    monkeypatch: pytest.MonkeyPatch, start_method: str
) -> None:
    monkeypatch.setattr(convoy, "SECONDS", 0.01)
    monkeypatch.setattr(convoy, "answer", lambda connection: connection.recv(1))
    with no_thread_is_left(), pytest.raises(SystemExit, match="was not answered"):
        run_main(convoy, monkeypatch)


@pytest.mark.parametrize("file", ["convoy.txt", "no/such/folder.png"])
def test_a_picture_goes_where_a_picture_can_go(
    complaint: Callable[..., str], file: str
) -> None:
    assert "--plot" in complaint(convoy, "--plot", file)


# -- example10


@needs_gil
def test_nobody_switches_before_somebody_asks() -> None:
    with no_thread_is_left(), intervals.switch_interval(60):
        log, taken = intervals.two_compute(3000)
    assert sorted((log[0], log[-1])) == ["A", "B"]
    assert log == [log[0]] * 3000 + [log[-1]] * 3000
    assert taken > 0


def test_each_thread_does_all_of_its_rounds() -> None:
    with intervals.switch_interval(0.0001):
        log, _ = intervals.two_compute(3000)
    assert sorted(log) == ["A"] * 3000 + ["B"] * 3000


def test_a_thread_that_is_alone_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    somebody_never_comes = partial(threading.Barrier, 3, timeout=0.01)
    monkeypatch.setattr(threading, "Barrier", lambda *_, **__: somebody_never_comes())
    with no_thread_is_left(), pytest.raises(threading.BrokenBarrierError):
        intervals.two_compute(1)


def test_ctrl_c_before_both_threads_are_there_ends_the_one_that_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submit = ThreadPoolExecutor.submit
    submitted: list[Any] = []

    def interrupted(pool: Any, *arguments: Any) -> Any:
        if submitted:
            raise KeyboardInterrupt
        submitted.append(arguments)
        return submit(pool, *arguments)

    monkeypatch.setattr(intervals, "LIMIT", 1000.0)  # the one does not wait for that
    monkeypatch.setattr(ThreadPoolExecutor, "submit", interrupted)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        intervals.two_compute(1)


def test_a_thread_that_does_not_begin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(rounds: int) -> None:
        raise threading.BrokenBarrierError

    monkeypatch.setattr(intervals, "two_compute", broken)
    with pytest.raises(SystemExit, match="has not begun"):
        run_main(intervals, monkeypatch)


@pytest.mark.parametrize(
    ("log", "count"), [("AB", 0), ("AABBB", 0), ("ABA", 1), ("ABAB", 2), ("BBAABA", 2)]
)
def test_the_end_of_a_thread_is_no_switch(log: str, count: int) -> None:
    assert intervals.switches(list(log)) == count


@needs_gil
def test_who_waits_for_a_call_in_c_waits_until_its_end() -> None:
    with no_thread_is_left(), intervals.switch_interval(0.00001):
        _, awoke = intervals.wait_beside(HOLDS)
    assert awoke == 0


def test_who_sleeps_beside_a_sleep_awakes() -> None:
    while True:
        wait, awoke = intervals.wait_beside(partial(time.sleep, 0.005))
        assert wait > -intervals.PAUSE
        if awoke:  # at once, unless the machine is very busy
            break


def test_a_call_that_fails_leaves_no_thread() -> None:
    with no_thread_is_left(), pytest.raises(ZeroDivisionError):
        intervals.wait_beside(partial(operator.truediv, 1, 0))


@needs_gil
def test_a_switch_that_nobody_asked_for_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def turns(rounds: int) -> tuple[list[str], float]:
        return list(islice(cycle("AB"), 2 * rounds)), 1.0

    monkeypatch.setattr(intervals, "two_compute", turns)
    monkeypatch.setattr(intervals, "wait_beside", lambda call: (0.0, 0))
    with pytest.raises(SystemExit, match="nobody was to ask"):
        run_main(intervals, monkeypatch)


def test_rounds_that_were_not_done_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "two_compute", lambda rounds: (["A", "B"], 1.0))
    monkeypatch.setattr(intervals, "wait_beside", lambda call: (0.0, 0))
    with pytest.raises(SystemExit, match="all of its rounds"):
        run_main(intervals, monkeypatch)


@needs_gil
def test_a_call_in_c_that_lets_go_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "wait_beside", lambda call: (0.0, 1))
    with pytest.raises(SystemExit, match="was to keep the GIL"):
        run_main(intervals, monkeypatch)


# -- example11


@pytest.fixture(scope="module")
def native() -> Any:
    pytest.importorskip("llvmlite")
    return importlib.import_module("example11_machine_code_without_the_gil")


@pytest.fixture(scope="module")
def engine(native: Any) -> Any:
    return native.compile_code(native.CODE)


def stepwise(native: Any, x: int, steps: int) -> int:
    for _ in range(steps):
        x = (native.MULTIPLIER * x + native.INCREMENT) % 2**64
    return x


words = st.integers(0, 2**64 - 1)


@given(x=words, steps=st.integers(0, 200))
def test_the_formula_skips_steps(native: Any, x: int, steps: int) -> None:
    assert native.skip(x, steps) == stepwise(native, x, steps)


@given(x=words, first=st.integers(0, 2**70), then=st.integers(0, 2**70))
def test_skips_add_up(native: Any, x: int, first: int, then: int) -> None:
    assert native.skip(native.skip(x, first), then) == native.skip(x, first + then)


@given(x=words, steps=st.integers(1, 1000))
def test_machine_code_computes_the_formula(
    native: Any, engine: Any, x: int, steps: int
) -> None:
    number = ctypes.c_uint64
    address = engine.get_function_address("advance")
    for factory in (ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE):
        advance = factory(number, number, number)(address)
        assert advance(x, steps) == native.skip(x, steps)


@given(numbers=st.lists(words, max_size=5), steps=st.integers(0, 50))
def test_numpy_computes_the_formula(
    native: Any, numbers: list[int], steps: int
) -> None:
    array = np.array(numbers, dtype=np.uint64)
    advanced = native.advance_all(array, steps)
    assert advanced.tolist() == [native.skip(x, steps) for x in numbers]
    assert array.tolist() == numbers


def meeting(engine: Any, factory: Any) -> Callable[..., bool]:
    pointer = ctypes.POINTER(ctypes.c_int64)
    prototype = factory(ctypes.c_bool, pointer, pointer, ctypes.c_uint64)
    function: Callable[..., bool] = prototype(engine.get_function_address("meet"))
    return function


def test_two_threads_meet_in_machine_code(native: Any, engine: Any) -> None:
    with no_thread_is_left():
        assert native.meet_in_time(meeting(engine, ctypes.CFUNCTYPE))


@needs_gil
def test_two_threads_do_not_meet_if_the_first_keeps_the_gil(
    native: Any, engine: Any
) -> None:
    assert not native.meet(meeting(engine, ctypes.PYFUNCTYPE))


def test_waiting_for_each_other_in_vain_ends(
    native: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "LIMIT", 0.01)
    tries = []
    assert not native.meet_in_time(lambda *arguments: tries.append(arguments))
    assert len(tries) >= 2


def test_results_come_in_order_and_so_does_a_failure(native: Any) -> None:
    with no_thread_is_left():
        assert native.in_two_threads(lambda me: me + 5) == [5, 6]
        with pytest.raises(ZeroDivisionError):
            native.in_two_threads(lambda me: 1 // me)


def test_threads_that_compute_something_else_are_noticed(native: Any) -> None:
    results, timing = native.both_ways(str)
    assert results == ["0", "1"]
    assert timing.one_by_one > 0 < timing.in_threads
    main_thread = threading.current_thread()
    with pytest.raises(ValueError, match="instead of"):
        native.both_ways(lambda me: threading.current_thread() is main_thread)


def test_code_that_is_no_code_is_an_error(native: Any) -> None:
    with pytest.raises(RuntimeError):
        native.compile_code("define i64 @advance(")


@pytest.mark.parametrize(
    ("name", "instead", "complaint"),
    [
        ("meet_in_time", lambda function: False, "CFUNCTYPE: .* have not met"),
        ("skip", lambda x, steps: x, "CFUNCTYPE: .* formula"),
        ("first_of_many", lambda x: x, "numpy: .* formula"),
    ],
)
def test_machine_code_that_does_otherwise_is_told(
    native: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    instead: Any,
    complaint: str,
) -> None:
    monkeypatch.setattr(native, "STEPS", 1000)
    monkeypatch.setattr(native, name, instead)
    with pytest.raises(SystemExit, match=complaint):
        run_main(native, monkeypatch)


@needs_gil
def test_threads_that_meet_in_spite_of_the_gil_are_told(
    native: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "meet", lambda function: True)
    with pytest.raises(SystemExit, match=r"PYFUNCTYPE: .* in spite of the GIL"):
        run_main(native, monkeypatch)


def test_who_lacks_llvmlite_is_told_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "llvmlite", None)
    script = Path(release.__file__).with_name(
        "example11_machine_code_without_the_gil.py"
    )
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(script), run_name="__main__")
    assert exit_.value.code == 77
    assert capsys.readouterr().out == "needs llvmlite\n"


# -- example12


def no_guard() -> threading.Semaphore:
    return threading.Semaphore(2)


@pytest.fixture
def other_thread() -> Iterator[ThreadPoolExecutor]:
    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        yield pool


@given(st.text("aAßẞσς", max_size=3), st.text("aAßẞσς", max_size=3))
def test_keys_are_equal_if_only_their_case_differs(a: str, b: str) -> None:
    assert midst.Key(a) == midst.Key(a.casefold())
    assert hash(midst.Key(a)) == hash(midst.Key(a.casefold()))
    assert (midst.Key(a) == midst.Key(b)) == (a.casefold() == b.casefold())
    assert midst.Key(a) != a


def test_what_need_not_wait_is_done_meanwhile(other_thread: ThreadPoolExecutor) -> None:
    guard = threading.Lock()
    assert midst.meanwhile(other_thread, guard, guard.locked).done()
    assert not guard.locked()


def test_what_must_wait_is_done_afterwards(other_thread: ThreadPoolExecutor) -> None:
    guard = threading.Lock()
    with guard:
        future = midst.meanwhile(other_thread, guard, lambda: "done")
        assert not future.done()
    assert future.result(LIMIT) == "done"


def test_what_fails_meanwhile_lets_go_of_the_guard(
    other_thread: ThreadPoolExecutor,
) -> None:
    guard = threading.Lock()
    future = midst.meanwhile(other_thread, guard, partial(operator.truediv, 1, 0))
    assert isinstance(future.exception(LIMIT), ZeroDivisionError)
    assert not guard.locked()


def test_another_thread_that_is_busy_is_not_waited_for_for_ever(
    other_thread: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(midst, "LIMIT", 0.01)
    busy = threading.Event()
    other_thread.submit(busy.wait, LIMIT)
    try:
        with pytest.raises(TimeoutError):
            midst.meanwhile(other_thread, threading.Lock(), lambda: None)
    finally:
        busy.set()


@pytest.mark.parametrize(
    ("together", "unprotected", "mended"),
    [
        (midst.read_in_update, "total 170", "total 200"),
        (midst.append_in_sort, "1 2 3, ValueError", "1 2 3 0"),
        (midst.take_in_addition, "took a, left ab", "took ab, left none"),
    ],
)
def test_a_lock_keeps_another_thread_out_of_a_statement(
    other_thread: ThreadPoolExecutor, together: Any, unprotected: str, mended: str
) -> None:
    for _ in range(20):
        assert together(other_thread, no_guard()) == unprotected
        assert together(other_thread, threading.Lock()) == mended


def test_del_runs_in_an_assignment_and_a_note_is_read_later() -> None:
    assert midst.lock_in_del(later=False) == "lock held"
    assert midst.lock_in_del(later=True) == "lock free"


def test_a_signal_comes_in_a_transfer_and_a_note_is_read_later() -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert midst.signal_in_transfer(later=False) == "total 170"
    assert midst.signal_in_transfer(later=True) == "total 200"
    assert signal.getsignal(signal.SIGTERM) == before


def unguarded(together: Any) -> Callable[..., str]:
    return lambda thread, guard: together(thread, no_guard())


@pytest.mark.parametrize(
    ("name", "instead", "call"),
    [
        ("read_in_update", unguarded(midst.read_in_update), "dict.update"),
        ("append_in_sort", unguarded(midst.append_in_sort), "list.sort"),
        ("take_in_addition", unguarded(midst.take_in_addition), r"log \+= lines"),
        ("lock_in_del", lambda later: "lock held", r"slots\[1\]"),
        ("signal_in_transfer", lambda later: "total 200", "a transfer"),
        ("meanwhile", lambda thread, guard, action: thread.submit(str), "dict.update"),
    ],
)
def test_a_statement_that_is_not_stopped_or_not_mended_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, call: str
) -> None:
    monkeypatch.setattr(midst, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=f"{call}.*: expected"):
        run_main(midst, monkeypatch)


def test_a_thread_that_does_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait_in_vain(*_: object) -> None:
        raise TimeoutError("the other thread does nothing")

    monkeypatch.setattr(midst, "meanwhile", wait_in_vain)
    with no_thread_is_left(), pytest.raises(SystemExit, match="does nothing"):
        run_main(midst, monkeypatch)
