"""Chapter 15, counts, countdowns and builds: the parts a reader would copy."""

import calendar
import pickle
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import ModuleType
from typing import Any

import example01_reference_counts as counts
import example02_countdown_in_threads as in_threads
import example03_countdown_in_processes as in_processes
import example04_four_ways_side_by_side as ways
import example05_subinterpreters as subinterpreters
import example06_free_threaded_build as builds
import in_process
import pytest
from example02_countdown_in_threads import Timing
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left

needs_subinterpreters = pytest.mark.skipif(
    sys.version_info < (3, 14), reason="needs Python 3.14"
)

LIMIT = 30.0  # seconds that a test waits for what must come


def run_main(module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_thread_is_left():
        in_process.run_main(module, monkeypatch)


# -- example01


@given(st.integers(0, 5), st.lists(st.booleans(), max_size=30))
def test_one_thread_counts_right(n: int, takes: list[bool]) -> None:
    model = counts.Model(n + 1)
    count = n + 1
    for take in takes:
        if take:
            model.take()
            count += 1
        else:
            model.drop()
            count -= 1
        assert model.count == count
        if count == 0:
            break
    assert model.freed == (count == 0)


@pytest.mark.parametrize("n", [1, 2, 10])
def test_one_of_two_references_taken_at_once_is_not_counted(n: int) -> None:
    model = counts.Model(n)
    with no_thread_is_left():
        counts.twice_at_once(model.take)
    assert model.count == n + 1
    for _ in range(n + 1):
        assert not model.freed
        model.drop()
    assert model.freed  # with one reference left


@pytest.mark.parametrize("n", [2, 3, 10])
def test_one_of_two_references_dropped_at_once_stays_counted(n: int) -> None:
    model = counts.Model(n)
    counts.twice_at_once(model.drop)
    assert model.count == n - 1
    for _ in range(n - 2):
        model.drop()
    assert not model.freed  # with no reference left


def test_a_drop_between_read_and_write_is_lost_and_frees() -> None:
    model = counts.Model(1)
    model.take(between=model.drop)
    assert (model.count, model.freed) == (2, True)
    model.drop()
    assert model.freed  # what is freed stays so


def test_a_thread_does_not_wait_for_ever_for_one_that_never_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counts, "LIMIT", 0.01)
    called = iter([True, False])

    def change(between: Callable[[], object]) -> None:
        if next(called):
            between()

    with no_thread_is_left(), pytest.raises(threading.BrokenBarrierError):
        counts.twice_at_once(change)


def test_a_change_that_fails_lets_the_other_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "LIMIT", 1000.0)
    called = iter([True, False])
    both_are_called = threading.Event()

    def change(between: Callable[[], object]) -> None:
        if next(called):
            both_are_called.wait(LIMIT)
            raise ArithmeticError("cannot count")
        both_are_called.set()
        between()

    with no_thread_is_left(), pytest.raises(ArithmeticError):
        counts.twice_at_once(change)


def test_each_reference_counts_one() -> None:
    grown = counts.count_references()
    call = grown.pop("an argument of a call")
    assert list(grown.values()) == [1, 2, 1, 1, 0]
    assert call == (0 if sys.version_info >= (3, 14) else 1)


def test_an_ordinary_object_counts_many_references() -> None:
    assert counts.growth_by_many(counts.Thing()) == counts.MANY


@pytest.mark.skipif(sys.version_info < (3, 12), reason="needs Python 3.12")
@pytest.mark.parametrize("thing", [None, True, 0, 7, ()])
def test_immortals_do_not_count(thing: object) -> None:
    assert counts.growth_by_many(thing) == 0


def test_the_last_reference_is_dropped_by_either_thread() -> None:
    assert counts.dies_with_the_last_name()
    at_once, after = counts.dropped_by_another_thread()
    assert after
    assert at_once or sysconfig.get_config_var("Py_GIL_DISABLED")


def test_the_demonstration_tells_if_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def change(model: counts.Model, by: int, between: Callable[[], object]) -> None:
        between()
        with lock:
            model.count += by

    lock = threading.Lock()
    monkeypatch.setattr(counts.Model, "_change", change)
    with pytest.raises(SystemExit, match=r"was to be lost: \(3, 1\)"):
        run_main(counts, monkeypatch)


def test_the_demonstration_tells_if_two_threads_do_not_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def change(model: counts.Model, by: int, between: Callable[[], object]) -> None:
        with lock:
            between()

    lock = threading.Lock()
    monkeypatch.setattr(counts.Model, "_change", change)
    monkeypatch.setattr(counts, "twice_at_once", meet_in_vain)
    with pytest.raises(SystemExit, match="were to meet"):
        run_main(counts, monkeypatch)


def meet_in_vain(change: Callable[[Callable[[], object]], None]) -> None:
    change(threading.Barrier(2, timeout=0.01).wait)


def test_the_demonstration_tells_if_the_interpreter_counts_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept: list[object] = []
    monkeypatch.setattr(counts, "take_and_drop", lambda thing, _: kept.append(thing))
    with pytest.raises(SystemExit, match="counts wrong by 2"):
        run_main(counts, monkeypatch)


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("count_inside", lambda thing: 10, "counted otherwise"),
        ("growth_by_many", lambda thing: 1, "times None, or 7: counted"),
        ("dies_with_the_last_name", lambda: False, "die with its last"),
        ("dropped_by_another_thread", lambda: (False, False), "die with its last"),
    ],
)
def test_the_demonstration_tells_if_counts_are_other(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(counts, name, instead)
    with pytest.raises(SystemExit, match=told):
        run_main(counts, monkeypatch)


# -- example02, example03


BOTH = [in_threads, in_processes]
both = pytest.mark.parametrize("module", BOTH, ids=["threads", "processes"])


@given(n=st.integers(0, 1000), n_parts=st.integers(1, 70))
def test_parts_are_nearly_equal_and_make_up_the_whole(n: int, n_parts: int) -> None:
    parts = in_threads.split(n, n_parts)
    assert len(parts) == n_parts
    assert sum(parts) == n
    assert max(parts) - min(parts) <= 1


@pytest.mark.parametrize("n", [0, 1, 1000])
def test_every_step_is_counted(n: int) -> None:
    counted = in_threads.count_down(n)
    assert counted.steps == n
    assert counted.cpu >= 0


def test_a_timing_sums_up_the_parts() -> None:
    parts = [in_threads.Countdown(3, 0.5), in_threads.Countdown(4, 0.25)]
    timing = in_threads.measure(lambda: parts)
    assert (timing.steps, timing.cpu) == (7, 0.75)
    assert Timing(steps=1, wall=2.0, cpu=3.0).cores_busy == 1.5


def pretend(
    module: Any, monkeypatch: pytest.MonkeyPatch, gil: str, **shared: Any
) -> None:
    """Let the first measurement find one core busy, and the second what is given."""
    alone = {"steps": module.STEPS, "wall": 1.0, "cpu": 1.0}
    timings = iter([Timing(**alone), Timing(**alone | shared)])
    monkeypatch.setattr(module, "measure", lambda job: next(timings))
    monkeypatch.setattr(module, "gil_state", lambda: gil)


@both
def test_steps_that_are_missing_are_told(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(module, monkeypatch, "on", steps=1)
    with pytest.raises(SystemExit, match=r"^2 \w+: counted 1 steps$"):
        run_main(module, monkeypatch)


@pytest.mark.parametrize(
    ("module", "gil", "cpu"),
    [
        (in_threads, "on", 1.0),
        (in_threads, "off", 1.0),
        (in_threads, "off", 1.9),
        (in_processes, "on", 1.0),
        (in_processes, "on", 1.9),
    ],
)
def test_the_last_line_tells_how_many_cores_were_busy(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: Any,
    gil: str,
    cpu: float,
) -> None:
    pretend(module, monkeypatch, gil, wall=0.5, cpu=cpu / 2)
    run_main(module, monkeypatch)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "2.00x as fast as one" in last
    assert last.endswith(f"and keep {100 * cpu:.0f} % of a core busy")


def test_each_part_has_a_thread_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    came: set[int] = set()

    def count_down(n: int) -> in_threads.Countdown:
        came.add(threading.get_ident())
        return in_threads.Countdown(n, 0.0)

    monkeypatch.setattr(in_threads, "count_down", count_down)
    with no_thread_is_left():
        counted = in_threads.in_threads(640, 64)
    assert [one.steps for one in counted] == [10] * 64
    assert len(came) == 64


def test_threads_that_do_not_come_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_too_few(n: int) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(n - 1)

    monkeypatch.setattr(in_threads, "LIMIT", 0.02)
    monkeypatch.setattr(in_threads, "ThreadPoolExecutor", one_too_few)
    with pytest.raises(SystemExit, match="were to begin together"):
        run_main(in_threads, monkeypatch)


def test_the_switch_interval_is_set_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.getswitchinterval()
    monkeypatch.setattr(builds, "STEPS", 1000)
    monkeypatch.setattr(builds, "PARALLEL", 100.0)
    monkeypatch.setattr(builds, "lost_appends", lambda: 1)
    with pytest.raises(SystemExit, match="lost"):
        run_main(builds, monkeypatch)
    assert sys.getswitchinterval() == before


def test_threads_in_parallel_in_spite_of_a_gil_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(in_threads, monkeypatch, "on", cpu=1.9)
    with pytest.raises(SystemExit, match="in spite of the GIL"):
        run_main(in_threads, monkeypatch)


def test_processes_count_as_one_does(
    start_method: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_main(in_processes, monkeypatch)
    assert "2 processes are" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("module", "option", "value"),
    [
        (in_threads, "--steps", "1"),
        (in_threads, "--steps", "10000001"),
        (in_threads, "--threads", "1"),
        (in_threads, "--threads", "65"),
        (in_processes, "--steps", "many"),
        (in_processes, "--processes", "0"),
        (in_processes, "--processes", "62"),
        (ways, "--steps", "0"),
        (ways, "--plot", "ways.txt"),
    ],
)
def test_options_have_their_limits(
    complaint: Callable[..., str], module: ModuleType, option: str, value: str
) -> None:
    assert option in complaint(module, option, value)


# -- example04


@pytest.mark.parametrize("n", [0, 1, 7])
def test_workers_count_all_steps(n: int) -> None:
    with no_thread_is_left():
        way = ways.measure_pool(ThreadPoolExecutor(ways.WORKERS), n)
    assert way.timing.steps == n
    assert way.start > 0


def way_of(cores: float, steps: int = ways.STEPS) -> ways.Way:
    return ways.Way(start=0.001, timing=Timing(steps=steps, wall=1.0, cpu=cores))


FOUR = ("sequential", "threads", "processes", "subinterpreters")


@pytest.mark.parametrize(
    ("cores", "named"),
    [
        ([1, 1, 1, 1], "none"),
        ([1, 1, 2, 2], "processes and subinterpreters"),
        ([1, 2, 2], "threads and processes"),
    ],
)
def test_ways_that_keep_more_than_one_core_busy_are_named(
    cores: list[float], named: str
) -> None:
    timings = dict(zip(FOUR, map(way_of, cores), strict=False))
    assert ways.in_parallel(timings) == named


def run_ways(monkeypatch: pytest.MonkeyPatch, gil: str, *measured: ways.Way) -> None:
    by_name = dict(zip(FOUR, measured, strict=False))
    monkeypatch.setattr(ways, "measure_all", lambda n: by_name)
    monkeypatch.setattr(ways, "gil_state", lambda: gil)
    run_main(ways, monkeypatch)


def test_a_way_that_this_version_lacks_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_ways(monkeypatch, "off", *map(way_of, [1, 2, 2]))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        "subinterpreters  need Python 3.14",
        "fastest: sequential, 1.00x as fast as sequential",
    ]


def test_steps_that_a_way_misses_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="processes: counted 3 steps"):
        run_ways(monkeypatch, "on", way_of(1), way_of(1), way_of(2, steps=3))


def test_threads_that_are_parallel_with_a_gil_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SystemExit, match="in spite of the GIL"):
        run_ways(monkeypatch, "on", *map(way_of, [1, 2, 2, 2]))


def test_pools_of_interpreters_are_there_from_3_14_on() -> None:
    assert (subinterpreters.interpreter_pool(1) is None) == (sys.version_info < (3, 14))


# -- example05


@pytest.fixture
def first_weekday() -> Iterator[None]:
    before = calendar.firstweekday()
    yield
    calendar.setfirstweekday(before)


def set_no_first_weekday(day: int) -> int:
    return day


def append_to_a_copy(items: list[int]) -> int:
    return len([*items, 0])


@pytest.mark.usefixtures("first_weekday")
@pytest.mark.parametrize(
    ("mended", "told"),
    [
        ({}, "a module was to be there twice: 6 and 6"),
        ({"set_first_weekday": set_no_first_weekday}, "a list was to be copied"),
        (
            {
                "set_first_weekday": set_no_first_weekday,
                "append_to": append_to_a_copy,
                "fail": nullcontext,
            },
            "a ValueError was to come",
        ),
    ],
)
def test_threads_are_not_isolated(
    monkeypatch: pytest.MonkeyPatch, mended: dict[str, Any], told: str
) -> None:
    monkeypatch.setattr(subinterpreters, "isolated_pool", ThreadPoolExecutor)
    for name, function in mended.items():
        monkeypatch.setattr(subinterpreters, name, function)
    with pytest.raises(SystemExit, match=told):
        run_main(subinterpreters, monkeypatch)


def test_a_buffer_that_can_be_sent_after_all_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pickle, "dumps", bytes)
    with pytest.raises(SystemExit, match="not to be pickled"):
        subinterpreters.show_what_processes_lack()


def test_processes_get_no_buffer(capsys: pytest.CaptureFixture[str]) -> None:
    subinterpreters.show_what_processes_lack()
    assert "a memoryview       TypeError" in capsys.readouterr().out


@pytest.mark.usefixtures("first_weekday")
def test_processes_do_where_there_are_no_subinterpreters(
    start_method: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    processes = in_processes.process_pool
    monkeypatch.setattr(subinterpreters, "isolated_pool", processes)
    run_main(subinterpreters, monkeypatch)
    assert "set to 6 there, still 0 here" in capsys.readouterr().out


def test_isolated_workers_share_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(subinterpreters, monkeypatch)
    printed = capsys.readouterr().out
    assert "set to 6 there, still 0 here" in printed
    assert calendar.firstweekday() == calendar.MONDAY


@needs_subinterpreters
def test_an_interpreter_is_closed_also_after_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if sys.version_info >= (3, 14):
        from concurrent import interpreters

        monkeypatch.setattr(subinterpreters, "write_into", set_no_first_weekday)
        before = interpreters.list_all()
        with pytest.raises(SystemExit, match="there was to be 7"):
            subinterpreters.show_interpreter()
        assert interpreters.list_all() == before


# -- example06


def test_a_free_threaded_build_says_so_itself() -> None:
    assert builds.can_do_without_gil() == ("free-threading" in sys.version)


def test_the_gil_can_be_asked_for() -> None:
    assert builds.gil_if_asked("1") == "on"


def test_an_interpreter_that_is_asked_for_nonsense_refuses() -> None:
    expected = "refused" if sys.version_info >= (3, 13) else "on"
    assert builds.gil_if_asked("maybe") == expected


@pytest.mark.parametrize("n_threads", [1, 2, 3])
def test_threads_count_all_steps(n_threads: int) -> None:
    with no_thread_is_left():
        wall, cpu = builds.count_down_in_threads(1000, n_threads)
    assert wall > 0
    assert cpu >= 0


def test_nothing_is_lost_where_an_operation_or_a_lock_protects() -> None:
    with no_thread_is_left():
        lost = builds.lost_appends(), builds.lost_keys()
        assert (*lost, builds.lost_additions(threading.Lock())) == (0, 0, 0)


def test_additions_without_a_lock_may_be_lost_but_never_come_out_of_nothing() -> None:
    assert 0 <= builds.lost_additions(nullcontext()) < 2 * builds.TIMES


def test_one_of_two_additions_is_lost_if_both_read_first() -> None:
    with no_thread_is_left():
        assert builds.lost_if_both_read_first() == 1


@given(st.integers())
def test_a_slow_one_calls_once_and_adds_one(n: int) -> None:
    calls: list[int] = []
    one = builds.SlowOne(1)
    one.meanwhile = lambda: calls.append(n)
    assert n + one == n + 1
    assert calls == [n]


def test_a_thread_whose_fellow_fails_does_not_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builds, "LIMIT", 1000.0)
    both_are_called = threading.Event()

    def job(k: int, meet: Callable[[], object]) -> None:
        if k == 0:
            both_are_called.wait(LIMIT)
            raise ArithmeticError("cannot begin")
        both_are_called.set()
        meet()

    with no_thread_is_left(), pytest.raises(ArithmeticError):
        builds.in_two_threads(job)


def too_few(n: int) -> in_threads.Countdown:
    return in_threads.Countdown(n - 1, 0.1)


def times_out(option: str) -> str:
    raise subprocess.TimeoutExpired("python", 1)


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("gil_if_asked", lambda option: "nonsense", "instead of"),
        ("gil_if_asked", times_out, "go well"),
        ("count_down", too_few, "counted 1499999 steps"),
        ("lost_appends", lambda: 1, "1 of 100000 lost"),
        ("lost_keys", lambda: 1, "1 of 100000 lost"),
        ("lost_additions", lambda guard: 1, "with lock: .* 1 of 100000 lost"),
        ("lost_if_both_read_first", lambda: 0, "0 additions lost"),
    ],
)
def test_what_goes_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    if name != "count_down":
        monkeypatch.setattr(builds, "STEPS", 1000)
    monkeypatch.setattr(builds, "PARALLEL", 100.0)
    owner = in_threads if name == "count_down" else builds
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises(SystemExit, match=told):
        run_main(builds, monkeypatch)


def test_two_cores_busy_in_spite_of_a_gil_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(builds, "count_down_in_threads", lambda n, k: (1.0, 1.9))
    monkeypatch.setattr(builds, "gil_state", lambda: "on")
    with pytest.raises(SystemExit, match="in spite of the GIL"):
        builds.report_countdowns()
    monkeypatch.setattr(builds, "gil_state", lambda: "off")
    builds.report_countdowns()
