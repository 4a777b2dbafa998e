"""Chapter 17, publication, initialisation, atomic numbers: what a reader would copy."""

import ctypes
import gc
import itertools
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import cores
import example04_safe_publication as publication
import example05_double_checked_initialisation as lazies
import pytest
from boundaries import at_boundaries
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

LIMIT = 30.0  # seconds that a test waits for what must come
LEAST, MOST = -(2**63), 2**63 - 1


def nothing(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def atomics() -> Any:
    pytest.importorskip("llvmlite")
    import native_atomics

    return native_atomics


@pytest.fixture(scope="module")
def adding(atomics: Any) -> Any:
    import example09_fetch_add

    return example09_fetch_add


@pytest.fixture
def two_cores(adding: Any) -> None:
    if cores.usable_cores() < 2:
        pytest.skip("needs two cores")


@pytest.fixture
def one_thread_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Ctrl-C come before a second thread has started."""
    submit = ThreadPoolExecutor.submit
    submitted: list[Any] = []

    def submit_one(*arguments: Any) -> Any:
        if submitted:
            raise KeyboardInterrupt
        submitted.append(submit(*arguments))
        return submitted[0]

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_one)


# -- native_atomics

ALL = ["relaxed", "acquire", "release", "acq_rel", "seq_cst"]
numbers = st.sampled_from([LEAST, -1, 0, 1, MOST]) | st.integers(LEAST, MOST)


def calls(names: list[str], orderings: list[str], n_values: int) -> Any:
    """Return a strategy: a name, an ordering, and so many values."""
    values = [numbers] * n_values
    return st.tuples(st.sampled_from(names), st.sampled_from(orderings), *values)


all_calls = st.one_of(
    calls(["load"], ["relaxed", "acquire", "seq_cst"], 0),
    calls(["store"], ["relaxed", "release", "seq_cst"], 1),
    calls(["exchange", "fetch_add"], ALL, 1),
    calls(["compare_exchange"], ALL, 2),
)


@settings(max_examples=50)
@given(start=numbers, history=st.lists(all_calls, max_size=10))
def test_a_number_does_what_one_of_64_bits_does(
    atomics: Any, start: int, history: Sequence[Any]
) -> None:
    atomic, number = atomics.AtomicInt64(start), start
    for name, ordering, *values in history:
        before = number
        if name == "fetch_add":
            number = ctypes.c_int64(number + values[0]).value
        elif name in {"store", "exchange"}:
            number = values[0]
        elif name == "compare_exchange" and number == values[0]:
            number = values[1]
        returned = getattr(atomic, name)(*values, ordering)
        assert returned == (None if name == "store" else before)
        assert atomic.load() == number
    assert repr(atomic) == f"AtomicInt64({number})"


@pytest.mark.parametrize("number", [LEAST - 1, MOST + 1, 2**64, -(2**64)])
def test_a_number_that_does_not_fit_in_is_refused(atomics: Any, number: int) -> None:
    atomic = atomics.AtomicInt64(7)
    for call in (
        atomics.AtomicInt64,
        atomic.store,
        atomic.exchange,
        atomic.fetch_add,
        partial(atomic.compare_exchange, 7),
        partial(atomic.compare_exchange, desired=7),
    ):
        with pytest.raises(OverflowError, match=f"{number} does not fit"):
            call(number)
    assert atomic.load() == 7


def test_loads_and_stores_have_the_orderings_that_belong_to_them(atomics: Any) -> None:
    atomic = atomics.AtomicInt64(7)
    for ordering in ("release", "acq_rel", "consume"):
        with pytest.raises(ValueError, match=f"load has no ordering {ordering}"):
            atomic.load(ordering)
    for ordering in ("acquire", "acq_rel", "consume"):
        with pytest.raises(ValueError, match=f"store has no ordering {ordering}"):
            atomic.store(1, ordering)
    assert atomic.load() == 7


def test_a_number_can_stand_in_memory_that_is_there(atomics: Any) -> None:
    memory = (ctypes.c_int64 * 2)(5, 6)
    address = ctypes.addressof(memory)
    one, same = (atomics.AtomicInt64(address=address + 8) for _ in range(2))
    one.fetch_add(1)
    assert (same.load(), list(memory)) == (7, [5, 7])
    with pytest.raises(ValueError, match="not a multiple of 8"):
        atomics.AtomicInt64(address=address + 4)
    with pytest.raises(ValueError, match="stands there already"):
        atomics.AtomicInt64(1, address=address)


def test_machine_code_lives_as_long_as_its_function(atomics: Any) -> None:
    code = atomics.NativeCode("define i64 @seven() {\n ret i64 7\n}")
    with pytest.raises(LookupError, match="no function eight"):
        code.function("eight", None)
    function = code.function("seven", ctypes.c_int64)
    del code
    gc.collect()
    assert function() == 7


def test_a_text_that_is_not_in_order_is_an_error(atomics: Any) -> None:
    with pytest.raises(RuntimeError):
        atomics.NativeCode("define i64 @seven() {\n ret i64 %eight\n}")


def add_in_shared_memory(name: str, times: int, both_are_there: Any) -> None:
    """Add 1 so often to the number at the beginning of shared memory."""
    import native_atomics

    memory = SharedMemory(name)
    try:
        buffer: Any = memory.buf
        first = ctypes.c_char.from_buffer(buffer)
        number = native_atomics.AtomicInt64(address=ctypes.addressof(first))
        del first, buffer  # or the memory could not be closed
        number.fetch_add(0)  # it is compiled now
        both_are_there.wait(LIMIT)
        for _ in range(times):
            number.fetch_add(1)
    finally:
        memory.close()


def test_processes_count_together(atomics: Any, start_method: str) -> None:
    memory = SharedMemory(create=True, size=8)
    try:
        arguments = memory.name, 100_000, multiprocessing.Barrier(2)
        process = multiprocessing.Process(target=add_in_shared_memory, args=arguments)
        process.start()
        add_in_shared_memory(*arguments)
        process.join(LIMIT)
        assert process.exitcode == 0
        assert memory.buf is not None
        counted = int.from_bytes(bytes(memory.buf[:8]), sys.byteorder)
        assert counted == 200_000
    finally:
        memory.close()
        memory.unlink()


@pytest.mark.parametrize(
    ("name", "instead", "message"),
    [
        ("model", lambda *_: (0, 1), "not what the model does"),
        ("_check", nothing, "was to be refused"),
    ],
)
def test_atomic_numbers_that_fail_are_told(
    atomics: Any,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    instead: Callable[..., object],
    message: str,
) -> None:
    monkeypatch.setattr(atomics, "TIMES", 10)
    monkeypatch.setattr(atomics, name, instead)
    with pytest.raises(SystemExit, match=message):
        run_main(atomics, monkeypatch)


# -- example04


@pytest.mark.parametrize(
    ("name", "instead", "message"),
    [
        ("publish_in_init", publication.make_then_publish, "self escapes"),
        ("publish_then_fill", publication.make_then_publish, "stored, filled"),
        ("make_then_publish", publication.publish_then_fill, "made, stored"),
        ("change_in_place", lambda place, step: step(), "changed"),
        ("look_twice", publication.look, "loaded twice"),
        ("is_refused", lambda _: False, "was to refuse"),
        ("fill_and_tell", lambda *_: "half", "Event.set"),
    ],
)
def test_publication_that_goes_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, message: str
) -> None:
    monkeypatch.setattr(publication, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=message):
        run_main(publication, monkeypatch)


# -- example05


@pytest.mark.parametrize("n_threads", [2, 3, 30])
@pytest.mark.parametrize("kind", [lazies.Lazy, lazies.AlwaysLocked, lazies.NeverLocked])
def test_however_many_ask_it_is_made_once_or_by_each(kind: Any, n_threads: int) -> None:
    made = n_threads if kind is lazies.NeverLocked else 1
    with no_thread_is_left():
        assert lazies.made_by(partial(lazies.lazily, kind), n_threads) == made


def test_ctrl_c_before_all_have_asked_ends_it(
    monkeypatch: pytest.MonkeyPatch, one_thread_only: None
) -> None:
    monkeypatch.setattr(lazies, "LIMIT", 1000.0)  # nobody waits for that
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        lazies.made_by(partial(lazies.lazily, lazies.Lazy), 2)


@pytest.mark.parametrize("thing", [None, 0, [], "thing"])
def test_anything_can_be_made_lazily(thing: object) -> None:
    asked = []

    def make() -> object:
        asked.append(1)
        return thing

    lazy = lazies.Lazy(make)
    assert [lazy.get() for _ in range(3)] == [thing] * 3
    assert asked == [1]


def test_who_finds_it_takes_no_lock() -> None:
    lazy = lazies.Lazy(lambda: 7)
    lazy.get()
    with ThreadPoolExecutor(1) as pool, lazy._lock:
        assert pool.submit(lazy.get).result(LIMIT) == 7


def test_who_waits_while_it_fails_makes_it() -> None:
    both = threading.Barrier(2, timeout=LIMIT)
    failures = [OSError("not yet")]

    def make() -> str:
        if failures:
            both.wait()  # with who finds the lock taken
            raise failures.pop()
        return "made"

    lazy = lazies.Lazy(make)
    lazy._lock = lazies.TellingLock(both.wait)
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(lazy.get) for _ in range(2)]
        wait(futures, LIMIT)
    results = [future.exception() or future.result() for future in futures]
    assert sorted(map(str, results)) == ["made", "not yet"]


def test_what_asks_for_itself_is_refused_and_not_spoiled() -> None:
    results: list[str] = []

    def make() -> str:
        if not results:
            results.append("asked")
            with pytest.raises(RuntimeError, match="asked for"):
                lazy.get()
            lazy.get()
        return "made"

    lazy = lazies.Lazy(make)
    with pytest.raises(RuntimeError, match="asked for"):
        lazy.get()
    assert lazy.get() == "made"


def test_an_interruption_before_it_is_made_leaves_nothing_behind() -> None:
    def is_interrupted(n: int) -> bool:
        """Interrupt instruction n of those before it is made, if there are so many."""
        made: list[int] = []
        numbers = itertools.count()

        def interrupt(instruction: str, within: bool) -> None:
            if next(numbers) == n and not made:
                raise KeyboardInterrupt

        lazy = lazies.Lazy(partial(made.append, 7))
        try:
            at_boundaries(lazy.get, interrupt)
        except KeyboardInterrupt:
            lazy.get()
            assert made == [7]
            return True
        return False

    assert len(list(itertools.takewhile(is_interrupted, itertools.count()))) > 20


@pytest.mark.parametrize("threads", ["1", "101", "many"])
def test_threads_that_ask_have_their_limits(
    complaint: Callable[..., str], threads: str
) -> None:
    assert "--threads" in complaint(lazies, "--threads", threads)


@pytest.mark.parametrize(
    ("name", "instead", "message"),
    [
        ("Lazy", lazies.NeverLocked, "another thread waits, then sees all"),
        ("StoredTooSoon", lambda f: lazies.Lazy(lambda: lazies.Pair(f)), "sees half"),
        ("NeverLocked", lazies.AlwaysLocked, "1 were made, not 3"),
        ("AlwaysLocked", lazies.NeverLocked, "3 were made, not 1"),
        ("is_tried_again", lambda: False, "a failure"),
        ("is_refused", lambda: False, "asks for itself"),
    ],
)
def test_initialisation_that_goes_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, message: str
) -> None:
    monkeypatch.setattr(lazies, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=message):
        run_main(lazies, monkeypatch, "--threads", 3)


# -- example09


@pytest.mark.parametrize("n_threads", [1, 2])
@pytest.mark.parametrize("name", ["compare_and_swap", "fetch_add"])
def test_atomic_increments_are_never_lost(
    adding: Any, two_cores: None, name: str, n_threads: int
) -> None:
    loop = adding.compile_loops()[name]
    with no_thread_is_left():
        tally = adding.count_in_machine_code(loop, n_threads)
    assert tally.lost == 0
    assert tally.increments == adding.ROUNDS * n_threads * adding.TIMES


def test_load_add_and_store_lose_increments(adding: Any, two_cores: None) -> None:
    plain = adding.compile_loops()["plain"]
    assert adding.count_in_machine_code(plain, 2, lambda tally: tally.lost).lost > 0
    alone = adding.count_in_machine_code(plain, 1)
    assert (alone.lost, alone.retries) == (0, 0)


def test_a_loop_waits_for_the_other_thread_and_not_for_ever(adding: Any) -> None:
    number, gate = adding.AtomicInt64(), adding.AtomicInt64()
    loop = adding.compile_loops()["fetch_add"]
    assert loop(number.address, gate.address, 2, 10, 1000) == -1
    assert number.load() == 0
    assert loop(number.address, gate.address, 2, 10, 1000) == 0
    assert number.load() == 10


def test_a_round_whose_threads_have_not_met_does_not_count(
    adding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [0, -1, 0, 0]

    def loop(number: int, gate: int, threads: int, times: int, patience: int) -> int:
        return answers.pop()

    monkeypatch.setattr(adding, "ROUNDS", 3)
    assert adding.count_in_machine_code(loop, 1).increments == 3 * adding.TIMES
    assert answers == []


def test_what_never_shows_is_not_waited_for_for_ever(
    adding: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "LIMIT", 0.05)
    with pytest.raises(TimeoutError):
        adding.count_in_machine_code(lambda *_: 0, 1, lambda tally: 0)


def test_threads_are_pinned_to_cores_of_their_own_and_no_other_is(adding: Any) -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("needs sched_setaffinity")
    pinned = []

    def note() -> int:
        pinned.append(sorted(os.sched_getaffinity(0)))
        return 0

    before = sorted(os.sched_getaffinity(0))
    adding.together(2, note)
    assert sorted(pinned) == sorted([core] for core in (before * 2)[:2])
    assert sorted(os.sched_getaffinity(0)) == before


def test_a_thread_that_fails_leaves_no_other_waiting(adding: Any) -> None:
    def fail() -> int:
        raise ArithmeticError("cannot count")

    with no_thread_is_left(), pytest.raises(ArithmeticError):
        adding.together(2, fail)


def test_ctrl_c_before_all_have_begun_ends_it(
    adding: Any, monkeypatch: pytest.MonkeyPatch, one_thread_only: None
) -> None:
    monkeypatch.setattr(adding, "LIMIT", 1000.0)  # nobody waits for that
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        adding.together(2, lambda: 0)


def test_one_core_is_not_enough(
    adding: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 1)
    with pytest.raises(SystemExit) as exit_:
        run_main(adding, monkeypatch)
    assert (exit_.value.code, capsys.readouterr().out) == (77, "needs two cores\n")


@pytest.mark.parametrize(
    ("name", "stand_in", "message"),
    [
        ("plain", "fetch_add", "has not shown within"),
        ("compare_and_swap", "fetch_add", "has not shown within"),
        ("fetch_add", None, "only load, add and store"),
    ],
)
def test_increments_that_go_otherwise_are_told(
    adding: Any,
    two_cores: None,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    stand_in: str | None,
    message: str,
) -> None:
    loops = adding.compile_loops()
    broken, whole = loops[stand_in or name], loops[name]

    def loop(number: int, gate: int, threads: int, *rest: int) -> int:
        """Do it as `stand_in` does, or not at all when there are two."""
        if stand_in is None and threads == 2:
            return 0
        return int((broken if threads == 2 else whole)(number, gate, threads, *rest))

    monkeypatch.setattr(adding, "compile_loops", lambda: loops | {name: loop})
    monkeypatch.setattr(adding, "LIMIT", 0.3 if stand_in else LIMIT)
    with no_thread_is_left(), pytest.raises(SystemExit, match=message):
        run_main(adding, monkeypatch)
