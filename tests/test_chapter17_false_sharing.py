"""Chapter 17, example13: counters at a distance from each other."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from in_process import no_thread_is_left, run_main

pytest.importorskip("llvmlite")
import cores
import example13_false_sharing as sharing

needs_two_cores = pytest.mark.skipif(cores.usable_cores() < 2, reason="needs two cores")


@pytest.fixture(scope="module")
def count() -> Any:
    return sharing.compile_count()


def test_counters_begin_a_cache_line_and_flags_have_pages_of_their_own() -> None:
    memory = sharing.Memory()
    first, second = memory.flags
    assert memory.counters % 4096 == 0
    assert (second - first, memory.counters - second) == (4096, 4096)


def test_one_thread_counts_alone(count: Any) -> None:
    memory = sharing.Memory()
    assert sharing.count_alone(count, memory, 1000) > 0
    assert memory.count_at(memory.counters) == 1000


def test_who_waits_in_vain_for_the_other_thread_does_not_count(count: Any) -> None:
    memory = sharing.Memory()
    mine, others = memory.flags
    assert not count(mine, others, 10, memory.counters, 5)
    assert memory.count_at(memory.counters) == 0


def in_turn(count: Any) -> Callable[..., bool]:
    """Return a `count` whose callers do not meet, as it lets nobody wait."""

    def hasty(mine: int, others: int, _: int, counter: int, n: int) -> bool:
        return bool(count(mine, mine, 1, counter, n)) and others == mine

    return hasty


def test_there_is_no_time_if_the_threads_have_not_met(count: Any) -> None:
    with ThreadPoolExecutor(2) as pool:
        memory = sharing.Memory()
        assert sharing.count_together(pool, in_turn(count), memory, 8, 5) is None


@needs_two_cores
@pytest.mark.parametrize("distance", sharing.DISTANCES)
def test_nothing_is_lost_at_any_distance(count: Any, distance: int) -> None:
    memory = sharing.Memory()
    with no_thread_is_left(), cores.two_cores() as pool:
        while sharing.count_together(pool, count, memory, distance, 1000) is None:
            pass  # until they meet
    places = memory.counters, memory.counters + distance
    assert [memory.count_at(place) for place in places] == [1000, 1000]


@needs_two_cores
def test_counters_that_are_one_are_found_out(count: Any) -> None:
    def count_one() -> None:
        with cores.two_cores() as pool:
            memory = sharing.Memory()
            while sharing.count_together(pool, count, memory, 0, 1000) is None:
                pass  # until they meet

    with pytest.raises(ValueError, match="instead of twice 1000"):
        count_one()


def test_the_script_fails_in_one_line_if_the_threads_do_not_meet(
    monkeypatch: pytest.MonkeyPatch, count: Any
) -> None:
    monkeypatch.setattr(sharing, "compile_count", lambda: in_turn(count))
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.setattr(sharing, "LIMIT", 0.01)
    with pytest.raises(SystemExit, match="did not meet"):
        run_main(sharing, monkeypatch, "--increments", "1000")


def test_what_has_taken_long_leaves_the_next_threads_time_to_meet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    met: list[float | None] = [1.0, None, 1.0]  # at one distance, and then at the next

    def meet(*_: object) -> float | None:
        now[0] += sharing.LIMIT + 1 if met[0] else 1
        return met.pop(0)

    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(sharing, "DISTANCES", (8, 16))
    monkeypatch.setattr(sharing, "ROUNDS", 1)
    monkeypatch.setattr(sharing, "count_together", meet)
    assert sharing.measure(1000)[1] == {8: 1.0, 16: 1.0}


def test_one_core_is_not_enough(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 1)
    with pytest.raises(SystemExit) as ended:
        run_main(sharing, monkeypatch)
    assert ended.value.code == 77
    assert capsys.readouterr().out == "needs two cores\n"


@pytest.mark.parametrize("number", ["0", "20000001", "many"])
def test_a_number_of_increments_that_cannot_be_is_refused(
    complaint: Callable[..., str], number: str
) -> None:
    assert "--increments" in complaint(sharing, "--increments", number)
