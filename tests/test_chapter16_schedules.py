"""Chapter 16, threads that take turns, and all structures in random schedules."""

import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import permutations
from math import comb
from queue import Empty, SimpleQueue

import example15_every_structure_decided as deciding
import pytest
import turns as turn_taking
from example10_lru_cache import LRUCache
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from linearizability import fifo, lifo
from turns import (
    Choose,
    DeadlockError,
    NoMoreTurnsError,
    TurnLock,
    Turns,
    all_schedules,
)

LIMIT = 30.0  # seconds that a test waits for what must come


def first(able: Sequence[str]) -> str:
    return able[0]


# -- turns


@given(st.integers(1, 4), st.integers(1, 4))
def test_all_schedules_are_all_orders_of_the_steps(n_first: int, n_second: int) -> None:
    def play(choose: Choose) -> str:
        turns, log = Turns(), list[str]()

        def work(me: str, steps: int) -> None:
            for n in range(steps):
                if n:
                    turns.mark()
                log.append(me)

        jobs = {"A": partial(work, "A", n_first), "B": partial(work, "B", n_second)}
        turns.play(jobs, choose)
        return "".join(log)

    played = list(all_schedules(play))
    assert all("".join(schedule) == result for schedule, result in played)
    orders = [result for _, result in played]
    assert len(set(orders)) == len(orders) == comb(n_first + n_second, n_first)


def test_a_thread_that_waits_for_a_lock_is_not_chosen() -> None:
    log: list[str] = []

    def play(choose: Choose) -> None:
        turns = Turns()
        lock = TurnLock(turns)
        inside: list[str] = []

        def work(me: str) -> None:
            with lock:
                inside.append(me)
                turns.mark()
                assert inside == [me]
                inside.remove(me)
                log.append(me)

        turns.play({name: partial(work, name) for name in "ABC"}, choose)

    n = len(list(all_schedules(play)))
    assert len(log) == 3 * n
    orders = {"".join(log[k : k + 3]) for k in range(0, len(log), 3)}
    assert orders == {"ABC", "ACB", "BAC", "BCA", "CAB", "CBA"}


def test_a_deadlock_is_named_and_ended() -> None:
    turns = Turns()
    locks = [TurnLock(turns) for _ in range(3)]

    def take(n: int) -> None:
        with locks[n]:
            turns.mark()
            with locks[(n + 1) % 3]:
                pass

    jobs = {name: partial(take, n) for n, name in enumerate("ABC")}
    order = iter("ABC" * 2)
    with no_thread_is_left(), pytest.raises(DeadlockError, match="of A, B, C"):
        turns.play(jobs, lambda _: next(order))


@pytest.mark.parametrize("culprit", ["A", "B"])
def test_what_a_thread_raises_is_raised(culprit: str) -> None:
    turns = Turns()

    def work(me: str) -> None:
        turns.mark()
        if me == culprit:
            raise ZeroDivisionError

    with no_thread_is_left(), pytest.raises(ZeroDivisionError):
        turns.play({name: partial(work, name) for name in "AB"}, first)


def test_an_interrupted_conductor_ends_all_threads() -> None:
    turns = Turns()
    ended: list[str] = []

    def work(me: str) -> None:
        try:
            while True:
                turns.mark()
        finally:
            ended.append(me)

    def interrupt(able: Sequence[str]) -> str:
        chosen.append(able[len(chosen) % 2])
        if len(chosen) == 7:
            raise KeyboardInterrupt
        return chosen[-1]

    chosen: list[str] = []
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        turns.play({name: partial(work, name) for name in "AB"}, interrupt)
    assert sorted(ended) == ["A", "B"]


def test_threads_end_that_come_to_marks_while_they_end() -> None:
    turns = Turns()
    ended: list[str] = []

    def work(me: str) -> None:
        try:
            turns.mark()
        finally:
            try:
                turns.mark()
            finally:
                ended.append(me)

    chosen = iter("AB")  # and then StopIteration
    with ThreadPoolExecutor(1) as pool:
        jobs = {name: partial(work, name) for name in "AB"}
        playing = pool.submit(turns.play, jobs, lambda _: next(chosen))
        try:
            assert isinstance(playing.exception(LIMIT), StopIteration)
        finally:
            for gate in turns._gates.values():
                for _ in range(4):
                    gate.put(False)  # in vain, unless the threads hang
    assert sorted(ended) == ["A", "B"]
    with pytest.raises(NoMoreTurnsError):
        turns.mark()


def test_who_waits_for_a_lock_or_has_ended_cannot_be_chosen() -> None:
    inside: list[str] = []

    def play(order: str) -> None:
        turns = Turns()
        lock = TurnLock(turns)

        def work(me: str) -> None:
            with lock:
                inside.append(me)
                turns.mark()
                assert inside == [me]
                inside.remove(me)

        choices = iter(order)
        with no_thread_is_left():
            jobs = {name: partial(work, name) for name in "AB"}
            turns.play(jobs, lambda _: next(choices))

    with pytest.raises(ValueError, match="B cannot run"):
        play("ABBA")
    assert inside == ["A"]
    inside.clear()
    with pytest.raises(ValueError, match="A cannot run"):
        play("AAA")


def test_what_the_choice_raises_is_raised() -> None:
    with no_thread_is_left(), pytest.raises(Empty):
        Turns().play({"A": lambda: None}, lambda _: SimpleQueue[str]().get_nowait())


def test_a_thread_that_comes_to_no_mark_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turn_taking, "LIMIT", 0.01)
    turns = Turns()
    end = time.monotonic() + LIMIT

    def work() -> None:
        while turns._gates["A"].empty() and time.monotonic() < end:
            time.sleep(0.001)  # until the conductor has given up

    with no_thread_is_left(), pytest.raises(TimeoutError, match="no mark within"):
        turns.play({"A": work}, first)


def test_a_number_that_loses_nothing_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    really = turn_taking.add_twice
    monkeypatch.setattr(turn_taking, "add_twice", lambda choose: really(choose) and 2)
    with pytest.raises(SystemExit, match="was to be lost"):
        run_main(turn_taking, monkeypatch)


# -- example15


@pytest.mark.parametrize("structure", deciding.STRUCTURES, ids=lambda one: one.name)
def test_each_structure_is_linearizable_and_its_broken_twin_is_not(
    structure: deciding.Structure,
) -> None:
    with no_thread_is_left():
        found = deciding.first_refuted(structure, sound=True, n=200, seed=2)
        assert found is None, deciding.explain(structure, found[1])
        assert deciding.first_refuted(structure, sound=False, n=10_000, seed=2)


def test_a_schedule_comes_again_with_its_seed() -> None:
    structure = deciding.STRUCTURES[-1]
    one, again = (deciding.play(structure, True, random.Random(7)) for _ in range(2))
    other = deciding.play(structure, True, random.Random(8))
    assert one == again
    assert one != other
    assert len(one) == len(deciding.THREADS) * deciding.N_CALLS


@pytest.mark.parametrize("structure", deciding.STRUCTURES, ids=lambda one: one.name)
def test_threads_meet_within_operations(structure: deciding.Structure) -> None:
    """Calls overlap in most histories, and those of all pairs of threads do."""
    pairs = []
    for seed in range(50):
        calls = deciding.play(structure, True, random.Random(seed))
        met = set()
        for a, b in permutations(calls, 2):
            assert a.returned is not None
            if a.invoked < b.invoked < a.returned:
                met.add((a.thread, b.thread))
        pairs.append(met)
    assert sum(map(bool, pairs)) > 25
    assert len(set().union(*pairs)) == 6


@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(["get", "set"]), st.integers(1, 4))),
)
def test_the_cache_is_specified_as_it_is(
    capacity: int, steps: list[tuple[str, int]]
) -> None:
    cache = LRUCache[int, int](capacity)
    state: tuple[tuple[int, int], ...] = ()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deciding, "CAPACITY", capacity)
        for n, (name, key) in enumerate(steps):
            if name == "set":
                cache.put(key, n)
                state, _ = deciding.lru(state, name, (key, n))
            else:
                state, result = deciding.lru(state, name, (key,))
                assert result == cache.get(key, None)
            assert [key for key, _ in state] == cache.keys()


def test_an_endless_operation_is_ended() -> None:
    turns = Turns()
    marks = deciding.Marks(turns, sound=True)

    def go_round() -> None:
        while True:
            marks.mark()

    with pytest.raises(deciding.EndlessError):
        turns.play({"A": go_round}, first)


def test_a_structure_that_fails_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that is held against a queue: the smallest part of it is drawn."""
    stack = deciding.STRUCTURES[-2]
    assert stack.specification is lifo

    def make(marks: deciding.Marks) -> deciding.Operations:
        operations = stack.make(marks)
        return {"put": operations["push"], "get": operations["pop"]}

    queue = partial(fifo, empty=IndexError)
    wrong = deciding.Structure("stack", make, queue, (), deciding.QUEUES)
    monkeypatch.setattr(deciding, "STRUCTURES", [wrong])
    with pytest.raises(SystemExit, match=r"stack: not linearizable\nA .*get"):
        run_main(deciding, monkeypatch)


def test_histories_that_refute_nothing_are_no_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    idle = deciding.Structure(
        "idle",
        lambda marks: {"get": lambda: IndexError},
        partial(fifo, empty=IndexError),
        (),
        [("get", ())],
    )
    monkeypatch.setattr(deciding, "STRUCTURES", [idle])
    monkeypatch.setattr(deciding, "MOST_HISTORIES", 20)
    with pytest.raises(SystemExit, match="the histories are no test"):
        run_main(deciding, monkeypatch, "--histories", 5)


@pytest.mark.parametrize("number", ["0", "10001", "x"])
def test_a_bad_number_of_histories_is_named(
    complaint: Callable[..., str], number: str
) -> None:
    assert number in complaint(deciding, "--histories", number)
