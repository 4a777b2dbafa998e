"""Chapter 17, which lines of Python are atomic: the parts a reader would copy."""

import dis
import gc
import itertools
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import boundaries as tool
import example01_is_increment_atomic as increment
import example02_is_append_atomic as append
import example03_atomic_operations_table as table
import pytest
from boundaries import (
    Boundary,
    Outcome,
    at_boundaries,
    changed_by,
    compiled,
    interleave_at_every_boundary,
    serial_outcomes,
)
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

Names = dict[str, Any]

LIMIT = 30.0  # seconds that a test waits for what must come


def visits(action: Callable[[Names], object], names: Names) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = []
    at_boundaries(
        partial(action, names), lambda name, within: found.append((name, within))
    )
    return found


def states(line: str, other: str, setup: Callable[[], Names]) -> list[str]:
    found = interleave_at_every_boundary(compiled(line), compiled(other), setup)
    return [one.outcome.state for one in found]


# -- boundaries


@pytest.mark.parametrize("line", ["n += 1", "n = x", "(n, x)", "x[n] = x[n]"])
def test_there_is_a_boundary_before_each_instruction_of_a_line(line: str) -> None:
    code: Any = compiled(line).args[0]  # type: ignore[attr-defined]
    expected = [one.opname for one in dis.get_instructions(code)]
    found = visits(compiled(line), {"n": 0, "x": [0]})
    assert [name for name, _ in found if name != "RESUME"] == expected[1:]
    assert not any(within for _, within in found)


def test_code_that_an_instruction_runs_is_within_it() -> None:
    line = compiled("f()", {"f": lambda: 1 + len([])})
    found = visits(line, {})
    assert {name for name, within in found if within} == {"CALL"}
    assert not found[0][1]
    assert not found[-1][1]


def test_what_the_garbage_collector_calls_is_no_part_of_a_line() -> None:
    line = compiled("f([[], []]); f([[], []])", {"f": lambda it: [it, [it]]})
    expected = visits(line, {})

    def call_back(phase: str, info: object) -> None:
        len(phase)

    threshold = gc.get_threshold()
    gc.callbacks.append(call_back)
    gc.set_threshold(1)
    try:
        assert [visits(line, {}) for _ in range(3)] == [expected] * 3
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(call_back)


@pytest.mark.parametrize("collecting", [False, True])
def test_tracer_and_collector_are_as_before_whatever_a_line_raises(
    collecting: bool,
) -> None:
    def usual(*_: object) -> None:
        return None

    before, was_collecting = sys.gettrace(), gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    sys.settrace(usual)
    try:
        with pytest.raises(ZeroDivisionError):
            visits(compiled("1 / n"), {"n": 0})
        after = sys.gettrace(), gc.isenabled()
    finally:
        sys.settrace(before)
        (gc.enable if was_collecting else gc.disable)()
    assert after == (usual, collecting)


def test_an_expression_has_a_value_and_a_statement_has_none() -> None:
    names: Names = {"n": 2}
    assert compiled("n + m", {"m": 3})(names) == 5
    assert compiled("n = n + m", {"m": 3})(names) is None
    assert names == {"n": 5}


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_an_addition_counts_or_is_lost_wherever_it_comes_in(numbers: list[int]) -> None:
    line = "; ".join(f"n += {number}" for number in numbers)
    found = states(line, "n += 100", lambda: {"n": 0})
    assert found[0] == found[-1] == repr({"n": sum(numbers) + 100})
    assert set(found) == {repr({"n": sum(numbers) + k}) for k in (0, 100)}
    assert found.count(repr({"n": sum(numbers)})) >= len(numbers)


def test_the_other_line_is_done_once_at_each_boundary_in_one_other_thread() -> None:
    made: list[list[int]] = []

    def setup() -> list[int]:
        made.append([])
        return made[-1]

    def other(shared: list[int]) -> None:
        shared.append(threading.get_ident())

    with no_thread_is_left():
        found = interleave_at_every_boundary(len, other, setup)  # C code: no boundary
        assert found == []
        found = interleave_at_every_boundary(lambda it: len(it), other, setup)
    assert len(found) > 2
    assert [len(one) for one in made] == [0, *[1] * len(found), 0]
    (thread,) = {one for shared in made for one in shared}
    assert thread != threading.get_ident()


def test_results_and_errors_are_part_of_the_outcome() -> None:
    pop = compiled("items.pop()")
    found = interleave_at_every_boundary(pop, pop, lambda: {"items": [1]})
    empty = "IndexError('pop from empty list')"
    expected = [
        Outcome(empty, "1", "{'items': []}"),
        Outcome("1", empty, "{'items': []}"),
    ]
    assert [found[0].outcome, found[-1].outcome] == expected
    assert {one.outcome for one in found} == set(expected)
    assert serial_outcomes(pop, pop, lambda: {"items": [1]}) == set(expected)


def test_who_waits_for_the_stopped_thread_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tool, "LIMIT", 0.02)

    def hold(lock: Any) -> None:
        with lock:
            pass

    with no_thread_is_left(), pytest.raises(TimeoutError, match="thread is stuck"):
        interleave_at_every_boundary(hold, hold, threading.Lock)


def test_who_waits_for_ever_is_told_and_left_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tool, "LIMIT", 0.1)
    locks: list[threading.Lock] = []

    def setup() -> Names:
        locks.append(threading.Lock())
        return {"lock": locks[-1]}

    line = compiled("lock.acquire(); lock.release()")
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError, match="thread is stuck"):
        interleave_at_every_boundary(line, line, setup)
    for lock in locks:
        if lock.locked():
            lock.release()
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT)
        assert not thread.is_alive()


class Told:
    """Has the repr that it is told to have, or none."""

    def __init__(self, text: Any) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", ["", None])
def test_a_result_without_a_text_is_not_a_thread_that_waits(
    monkeypatch: pytest.MonkeyPatch, text: Any
) -> None:
    monkeypatch.setattr(tool, "LIMIT", 1.0)  # that is waited for only if it fails
    found = interleave_at_every_boundary(compiled("n"), lambda _: Told(text), dict)
    theirs = {one.outcome.theirs.partition("(")[0] for one in found}
    assert theirs == {"" if text == "" else "TypeError"}


@pytest.mark.parametrize("n", [1, 3])
def test_an_interruption_ends_the_other_thread(n: int) -> None:
    calls = 0

    def interrupt(names: Names) -> None:
        nonlocal calls
        calls += 1
        if calls == n:
            raise KeyboardInterrupt

    before = sys.gettrace()
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        interleave_at_every_boundary(interrupt, lambda names: None, dict)
    assert sys.gettrace() is before


@pytest.mark.parametrize(
    ("line", "changing"),
    [
        ("n", []),
        ("n = 0", []),
        ("n = m = 1", ["STORE_NAME"] * 2),
        ("f()", ["CALL"]),
        ("n = 1; m = 1 / 0", ["STORE_NAME"]),
    ],
)
def test_changes_are_laid_to_the_instruction_that_makes_them(
    line: str, changing: list[str]
) -> None:
    names: list[Names] = []

    def setup() -> Names:
        names.append({"n": 0, "m": 0})
        return names[-1]

    def change() -> None:
        names[-1]["n"] += 1
        names[-1]["m"] += 1

    assert changed_by(compiled(line, {"f": change}), setup) == changing


def instead(**lines: str) -> Callable[[str], Any]:
    """Return what compiles other lines than it is told to."""
    return lambda text: compiled(lines.get(text, text))


def test_a_line_that_comes_out_otherwise_fails_the_tool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tool, "compiled", instead(**{"n += 1": "n = 1"}))
    with pytest.raises(SystemExit, match="nothing else"):
        run_main(tool, monkeypatch)


def stuck(*_: object) -> Any:
    raise TimeoutError("the other thread is stuck")


@pytest.mark.parametrize("script", [tool, increment, append, table])
def test_a_thread_that_waits_fails_each_script_in_one_line(
    monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    monkeypatch.setattr(script, "interleave_at_every_boundary", stuck)
    with pytest.raises(SystemExit, match="the other thread is stuck"):
        run_main(script, monkeypatch)


# -- example01


@pytest.mark.parametrize(
    ("line", "instructions"),
    [
        ("n += 1", ("LOAD_NAME", "STORE_NAME")),
        ("n = f(n)", ("LOAD_NAME", "STORE_NAME")),
        ("x.y.n -= 1", ("LOAD_ATTR", "STORE_ATTR")),
    ],
)
def test_read_and_write_are_found(line: str, instructions: tuple[str, str]) -> None:
    assert increment.read_and_write(line) == instructions


@pytest.mark.parametrize("line", ["n", "n = 1", "n += n", "del n", "n = x; x = n"])
def test_a_line_that_does_not_read_and_then_write_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="instead of a read and a write"):
        increment.read_and_write(line)


def test_ends_are_told_apart_by_read_and_write() -> None:
    def stop(instruction: str, n: int) -> Boundary:
        return Boundary(instruction, False, Outcome("None", "None", repr({"n": n})))

    found = [
        stop("A", 0),
        stop("READ", 1),
        stop("B", 2),
        stop("WRITE", 2),
        stop("C", 0),
    ]
    ends = increment.ends(found, "READ", "WRITE", lambda n: {"n": n})
    assert ends == [{0, 1}, {2}, {0}]


def test_with_a_gil_nothing_is_lost_by_itself() -> None:
    with no_thread_is_left():
        n_lost = increment.lost_if_left_alone()
    assert 0 <= n_lost < 2 * increment.INCREMENTS
    assert n_lost == 0 or increment.gil_state() == "off"


def test_an_increment_that_loses_nothing_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(increment, "ends", lambda *_: [{2}, {2}, {2}])
    with pytest.raises(SystemExit, match="lost in between was to be one update"):
        run_main(increment, monkeypatch)


@pytest.mark.parametrize("gil", ["on", "off"])
def test_only_a_gil_is_to_prevent_losses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gil: str
) -> None:
    monkeypatch.setattr(increment, "gil_state", lambda: gil)
    monkeypatch.setattr(increment, "lost_if_left_alone", lambda: 20_000)
    if gil == "on":
        with pytest.raises(SystemExit, match="nothing was to be lost"):
            run_main(increment, monkeypatch)
    else:
        run_main(increment, monkeypatch)
    assert "10.0 % of their updates" in capsys.readouterr().out


# -- example02


class PythonList(list[object]):
    def append(self, item: object) -> None:
        self[len(self) :] = [item]


def test_an_append_that_is_written_in_python_is_not_atomic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(append, "empty", lambda: {"items": PythonList()})
    found = append.examine("items.append(1)", "items.append(2)")
    assert found == (1, True, {"{'items': [1]}"})


def test_an_extended_list_is_lost_if_the_name_goes_to_another_one() -> None:
    found = append.examine("items += [1]", "items = [2]")
    assert found.ends == {"{'items': [1]}"}


@pytest.mark.parametrize("script", [increment, append])
def test_threads_that_do_not_start_together_fail_the_script(
    monkeypatch: pytest.MonkeyPatch, script: Any
) -> None:
    monkeypatch.setattr(script, "LIMIT", 0)
    with pytest.raises(SystemExit, match="were to start together"):
        run_main(script, monkeypatch)


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_items_of_all_threads_are_kept_in_each_ones_order(n_threads: int) -> None:
    with no_thread_is_left():
        items = append.append_at_once(n_threads, 500)
    assert sorted(items) == list(range(n_threads * 500))
    for thread in range(n_threads):
        own = [n for n in items if n // 500 == thread]
        assert own == sorted(own)


@pytest.mark.parametrize("spoil", [list.pop, list.reverse, lambda it: it.append(0)])
def test_items_lost_disordered_or_doubled_fail_the_script(
    monkeypatch: pytest.MonkeyPatch, spoil: Callable[[list[int]], object]
) -> None:
    items = list(range(append.THREADS * append.EACH))
    spoil(items)
    monkeypatch.setattr(append, "append_at_once", lambda *_: items)
    with pytest.raises(SystemExit, match="all items were to be there once"):
        run_main(append, monkeypatch)


def test_a_line_that_loses_nothing_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = partial(interleave_at_every_boundary, compiled("items.append(1)"))
    monkeypatch.setattr(
        append, "interleave_at_every_boundary", lambda line, *rest: good(*rest)
    )
    with pytest.raises(SystemExit, match="that was not to come of it"):
        run_main(append, monkeypatch)


# -- example03


@pytest.mark.parametrize(
    "row", table.ROWS, ids=lambda row: f"{row.line} | {row.beside}"
)
def test_each_row_is_decided(row: table.Row) -> None:
    line, other = (compiled(text, table.KNOWN) for text in (row.line, row.beside))
    setup = table.making(row.setup)
    serial = serial_outcomes(line, other, setup)
    changing, said = table.verdict(line, other, setup, serial)
    assert said == row.verdict
    assert changing.startswith(("STORE_", "CALL"))


def test_a_line_that_reads_twice_and_changes_nothing_can_be_broken() -> None:
    line, other = compiled("(n, n)"), compiled("n += 1")
    setup = table.making("n = 0")
    said = table.verdict(line, other, setup, serial_outcomes(line, other, setup))
    assert said == ("", "broken at LOAD_NAME")


def numbered() -> Callable[[], int]:
    """Return what makes 0, 1, 2, … for the rounds to share."""
    return partial(next, itertools.count())


def test_no_thread_begins_a_round_before_the_other_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(table, "TIME", LIMIT)
    log: list[int] = []
    with no_thread_is_left():
        outcomes = table.at_once(log.append, log.append, numbered(), 50)
    assert log == sorted([*range(50)] * 2)
    assert outcomes == [Outcome("None", "None", str(n)) for n in range(50)]


def test_nobody_waits_for_the_other_when_the_time_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    over = threading.Event()
    now = [0.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], sleep=time.sleep)
    monkeypatch.setattr(table, "time", clock)

    def stay(n: int) -> bool:
        now[0] = 2 * table.TIME  # not before both have begun
        return over.wait(LIMIT)

    def tell(n: int) -> None:
        if n == 1:
            over.set()

    with no_thread_is_left():
        outcomes = table.at_once(stay, tell, numbered(), 2)
    assert [one.mine for one in outcomes] == ["True", "True"]


ROW = table.Row("L.sort()", "len(L)", "L = [1]", table.SERIAL)


@pytest.mark.parametrize("gil", ["on", "off"])
@pytest.mark.parametrize("needs_gil", [False, True])
def test_two_at_once_may_only_break_what_is_said_to_break(
    monkeypatch: pytest.MonkeyPatch, gil: str, needs_gil: bool
) -> None:
    broken = [Outcome("None", "0", "{'L': [1]}")] * table.ROUNDS
    monkeypatch.setattr(table, "ROWS", [ROW._replace(needs_gil=needs_gil)])
    monkeypatch.setattr(table, "gil_state", lambda: gil)
    monkeypatch.setattr(table, "at_once", lambda *_: broken)
    if needs_gil and gil == "off":
        run_main(table, monkeypatch)
    else:
        with pytest.raises(SystemExit, match="two at once were to be serial"):
            run_main(table, monkeypatch)


@pytest.mark.parametrize("verdict", [table.BEFORE, table.WITHIN, table.ENTERED])
def test_a_row_that_comes_out_otherwise_fails_the_script(
    monkeypatch: pytest.MonkeyPatch, verdict: str
) -> None:
    monkeypatch.setattr(table, "ROWS", [ROW._replace(verdict=verdict)])
    with pytest.raises(SystemExit, match=f"outcomes were to be {verdict}"):
        run_main(table, monkeypatch)
