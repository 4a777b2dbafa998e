"""Chapter 16, what is linearizable: the parts a reader would copy."""

import itertools
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from queue import Empty, Full
from typing import Any, NoReturn

import example14_refuted_histories as refuted_
import linearizability as lin
import pytest
import turns
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from linearizability import Call, by_key, decide, fifo, program_order, real_time

LIMIT = 30.0  # seconds that a test waits for what must come

NOTHING: frozenset[Any] = frozenset()


def history(*events: tuple[Any, ...]) -> list[Call]:
    """Return the calls of events as (thread, name, arguments...) and (thread, result).

    A thread's first event is an invocation, the next one a return, and so on.
    """
    calls: dict[int, Call] = {}
    running: dict[str, int] = {}
    for tick, (thread, *what) in enumerate(events):
        if thread in running:
            n = running.pop(thread)
            result = what[0] if what else None
            calls[n] = replace(calls[n], result=result, returned=tick)
        else:
            calls[tick] = Call(thread, what[0], tuple(what[1:]), None, tick, None)
            running[thread] = tick
    return list(calls.values())


# -- linearizability: histories whose verdict is known

# M. Herlihy, J. Wing, 1990, figure 1.
H1 = history(
    ("A", "put", "x"),
    ("B", "put", "y"),
    ("B",),
    ("A",),
    ("B", "get"),
    ("B", "x"),
    ("A", "get"),
    ("A", "y"),
    ("A", "put", "z"),
)
H2 = history(
    ("A", "put", "x"), ("A",), ("B", "put", "y"), ("A", "get"), ("B",), ("A", "y")
)
H3 = history(("A", "put", "x"), ("B", "get"), ("B", "x"))
H4 = history(
    ("A", "put", "x"),
    ("B", "put", "y"),
    ("A",),
    ("B",),
    ("A", "get"),
    ("C", "get"),
    ("A", "y"),
    ("C", "y"),
)

READ_OLD_AFTER_WRITE = history(("A", "write", 1), ("A",), ("B", "read"), ("B", 0))
READ_OLD_BESIDE_WRITE = history(("A", "write", 1), ("B", "read"), ("B", 0), ("A",))
# What a regular register may do, and an atomic one not (Lamport, 1986).
NEW_THEN_OLD = history(
    ("A", "write", 1), ("B", "read"), ("B", 1), ("C", "read"), ("C", 0), ("A",)
)
OLD_THEN_NEW = history(
    ("A", "write", 1), ("B", "read"), ("B", 0), ("C", "read"), ("C", 1), ("A",)
)
BOTH_SET = history(
    ("A", "compare_and_set", 0, 1),
    ("B", "compare_and_set", 0, 2),
    ("A", True),
    ("B", True),
)
ONE_SET = [*BOTH_SET[:1], replace(BOTH_SET[1], result=False)]


@pytest.mark.parametrize(
    ("calls", "specification", "initial", "linearizable"),
    [
        pytest.param(H1, fifo, (), True, id="H1"),
        pytest.param(H2, fifo, (), False, id="H2"),
        pytest.param(H3, fifo, (), True, id="H3"),
        pytest.param(H4, fifo, (), False, id="H4"),
        pytest.param(READ_OLD_AFTER_WRITE, lin.register, 0, False, id="old after"),
        pytest.param(READ_OLD_BESIDE_WRITE, lin.register, 0, True, id="old beside"),
        pytest.param(NEW_THEN_OLD, lin.register, 0, False, id="new, then old"),
        pytest.param(OLD_THEN_NEW, lin.register, 0, True, id="old, then new"),
        pytest.param(BOTH_SET, lin.register, 0, False, id="two win"),
        pytest.param(ONE_SET, lin.register, 0, True, id="one wins"),
    ],
)
def test_histories_of_the_literature_have_the_known_verdict(
    calls: list[Call],
    specification: lin.Specification[Any],
    initial: Any,
    linearizable: bool,
) -> None:
    assert (decide(calls, specification, initial).order is not None) == linearizable


def test_what_overlaps_may_have_taken_effect_in_either_order() -> None:
    first = decide(H1[:3], fifo, ()).order
    assert first is not None
    assert [call.arguments for call in first] == [("x",), ("y",), ()]
    other = [*H1[:2], replace(H1[2], result="y"), replace(H1[3], result="x")]
    order = decide(other, fifo, ()).order
    assert order is not None
    assert [call.arguments for call in order] == [("y",), ("x",), (), ()]


@pytest.mark.parametrize(
    ("seen", "linearizable"),
    [((0,), True), ((1,), True), ((0, 1), True), ((1, 0), False), ((2,), False)],
)
def test_a_pending_call_has_taken_effect_or_not(
    seen: tuple[int, ...], linearizable: bool
) -> None:
    reads: list[tuple[Any, ...]] = []
    for value in seen:
        reads += [("B", "read"), ("B", value)]
    calls = history(("A", "write", 1), *reads)
    order = decide(calls, lin.register, 0).order
    assert (order is not None) == linearizable
    if order is not None:
        assert (calls[0] in order) == (1 in seen)


def test_an_old_value_is_sequentially_consistent_and_two_wins_are_not() -> None:
    order = decide(READ_OLD_AFTER_WRITE, lin.register, 0, program_order).order
    assert order is not None
    assert [call.name for call in order] == ["read", "write"]
    assert decide(BOTH_SET, lin.register, 0, program_order).order is None
    own = history(("A", "write", 1), ("A",), ("A", "read"), ("A", 0))
    assert decide(own, lin.register, 0, program_order).order is None


def test_a_history_without_calls_is_linearizable() -> None:
    assert decide([], fifo, ()) == lin.Verdict((), 1)


# -- linearizability: specifications


@pytest.mark.parametrize(
    ("specification", "state", "steps"),
    [
        (lin.counter, 0, [("increment", 1), ("add", 5, None), ("get", 6)]),
        (
            lin.register,
            0,
            [
                ("read", 0),
                ("write", 3, None),
                ("compare_and_set", 0, 1, False),
                ("compare_and_set", 3, 1, True),
                ("read", 1),
            ],
        ),
        (
            fifo,
            (),
            [
                ("get", Empty),
                ("put", 1, None),
                ("put", 2, None),
                ("get", 1),
                ("get", 2),
                ("get", Empty),
            ],
        ),
        (
            partial(fifo, maxsize=1, empty=IndexError),
            (),
            [("put", 1, None), ("put", 2, Full), ("get", 1), ("get", IndexError)],
        ),
        (
            lin.lifo,
            (),
            [
                ("pop", IndexError),
                ("push", 1, None),
                ("push", 2, None),
                ("pop", 2),
                ("pop", 1),
            ],
        ),
        (
            lin.key_set,
            NOTHING,
            [
                ("add", 1, True),
                ("add", 1, False),
                ("contains", 1, True),
                ("remove", 1, True),
                ("remove", 1, False),
                ("contains", 1, False),
            ],
        ),
        (
            lin.key_map,
            NOTHING,
            [
                ("get", "a", None),
                ("setdefault", "a", 1, 1),
                ("setdefault", "a", 2, 1),
                ("update", "a", 5, 6),
                ("update", "b", 5, 5),
                ("set", "a", 3, None),
                ("pop", "a", 3),
                ("pop", "a", KeyError),
                ("get", "b", 5),
            ],
        ),
    ],
)
def test_specifications_do_what_sequential_objects_do(
    specification: lin.Specification[Any], state: Any, steps: list[tuple[Any, ...]]
) -> None:
    for name, *arguments, expected in steps:
        state, result = specification(state, name, tuple(arguments))
        assert result == expected, (name, arguments)
        hash(state)


@pytest.mark.parametrize(
    ("specification", "state"),
    [
        (lin.counter, 0),
        (lin.register, 0),
        (fifo, ()),
        (lin.lifo, ()),
        (lin.key_set, NOTHING),
        (lin.key_map, NOTHING),
    ],
)
def test_an_operation_that_is_not_specified_is_an_error(
    specification: lin.Specification[Any], state: Any
) -> None:
    with pytest.raises(ValueError, match="has no fly"):
        specification(state, "fly", ())


def test_a_call_that_has_waited_takes_effect_when_it_can() -> None:
    calls = history(("A", "get"), ("B", "put", 1), ("B",), ("A", 1))
    order = decide(calls, fifo, ()).order
    assert order is not None
    assert [call.name for call in order] == ["put", "get"]


# -- linearizability: the search, against a simpler one


def explains(
    order: Sequence[Call],
    calls: Sequence[Call],
    specification: lin.Specification[Any],
    state: Any,
    in_real_time: bool,
) -> bool:
    """Tell whether `order` is one that explains the history `calls`."""
    for a, b in itertools.combinations(order, 2):
        returned = math.inf if b.returned is None else b.returned
        if (in_real_time or a.thread == b.thread) and returned < a.invoked:
            return False
    for call in order:
        state, result = specification(state, call.name, call.arguments)
        if call.returned is not None and result != call.result:
            return False
    return all(call in order for call in calls if call.returned is not None)


def is_explained(
    calls: Sequence[Call],
    specification: lin.Specification[Any],
    state: Any,
    in_real_time: bool,
) -> bool:
    """Try all orders of all subsets."""
    return any(
        explains(order, calls, specification, state, in_real_time)
        for n in range(len(calls) + 1)
        for order in itertools.permutations(calls, n)
    )


OBJECTS: dict[str, tuple[lin.Specification[Any], Any, list[tuple[Any, ...]]]] = {
    "counter": (
        lin.counter,
        0,
        [("increment", 1), ("increment", 2), ("get", 0), ("get", 1), ("add", 1, None)],
    ),
    "register": (
        lin.register,
        0,
        [
            ("read", 0),
            ("read", 1),
            ("write", 1, None),
            ("compare_and_set", 0, 1, True),
            ("compare_and_set", 0, 1, False),
        ],
    ),
    "queue": (
        partial(fifo, maxsize=2),
        (),
        [
            ("put", 1, None),
            ("put", 2, None),
            ("put", 1, Full),
            ("get", 1),
            ("get", 2),
            ("get", Empty),
        ],
    ),
    "stack": (
        lin.lifo,
        (),
        [
            ("push", 1, None),
            ("push", 2, None),
            ("pop", 1),
            ("pop", 2),
            ("pop", IndexError),
        ],
    ),
    "set": (
        lin.key_set,
        NOTHING,
        [
            (name, key, result)
            for name in ("add", "remove", "contains")
            for key in (1, 2)
            for result in (True, False)
        ],
    ),
    "map": (
        lin.key_map,
        NOTHING,
        [
            ("set", "a", 1, None),
            ("get", "a", None),
            ("get", "a", 1),
            ("setdefault", "b", 2, 2),
            ("update", "b", 1, 3),
            ("pop", "a", 1),
            ("pop", "b", KeyError),
        ],
    ),
}


@st.composite
def histories(draw: st.DrawFn, name: str, most_calls: int = 5) -> list[Call]:
    """Return calls with any results, perhaps some of them pending."""
    possible = st.sampled_from(OBJECTS[name][2])
    events: list[tuple[Any, ...]] = []
    results: dict[str, object] = {}
    n_calls = 0
    for thread in draw(st.lists(st.sampled_from("ABC"), max_size=2 * most_calls)):
        if thread in results:
            events.append((thread, results.pop(thread)))
        elif n_calls < most_calls:
            n_calls += 1
            *what, results[thread] = draw(possible)
            events.append((thread, *what))
    return history(*events)


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_the_search_finds_what_trying_all_orders_finds(name: str) -> None:
    specification, initial, _ = OBJECTS[name]

    @settings(max_examples=40)
    @given(histories(name, most_calls=4))
    def check(calls: list[Call]) -> None:
        for order in (real_time, program_order):
            in_real_time = order is real_time
            expected = is_explained(calls, specification, initial, in_real_time)
            verdict = decide(calls, specification, initial, order)
            plainly = decide(calls, specification, initial, order, memoise=False)
            assert (verdict.order is not None) == expected
            assert verdict.order == plainly.order
            assert verdict.tried <= plainly.tried
            if verdict.order is not None:
                assert explains(
                    verdict.order, calls, specification, initial, in_real_time
                )

    check()


def widened(seed: int, name: str, n_calls: int, threads: str) -> list[Call]:
    """Run a sequential object, and let each call begin earlier and end later."""
    generator = random.Random(seed)
    specification, state, steps = OBJECTS[name]
    last = dict.fromkeys(threads, -0.5)  # when a thread's last call has ended
    intervals: list[tuple[float, float, str, tuple[Any, ...], object]] = []
    effects = [(n, generator.choice(threads)) for n in range(n_calls)]
    for n, thread in effects:
        following = [m for m, other in effects if other == thread and m > n]
        end = (n + following[0]) / 2 if following else n_calls + generator.random()
        operation, *arguments, _ = generator.choice(steps)
        state, result = specification(state, operation, tuple(arguments))
        begun = generator.uniform(last[thread], n)
        last[thread] = generator.uniform(n, end)
        call = (operation, *arguments)
        intervals.append((begun, last[thread], thread, call, result))
    ticks = sorted(t for begun, ended, *_ in intervals for t in (begun, ended))
    return [
        Call(thread, call[0], call[1:], result, ticks.index(begun), ticks.index(ended))
        for begun, ended, thread, call, result in intervals
    ]


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_what_a_sequential_object_did_is_linearizable(name: str) -> None:
    specification, initial, _ = OBJECTS[name]

    @settings(max_examples=40)
    @given(st.integers(), st.integers(0, 30))
    def check(seed: int, n_calls: int) -> None:
        calls = widened(seed, name, n_calls, "ABCD")
        assert decide(calls, specification, initial).order is not None
        assert decide(calls, specification, initial, program_order).order is not None

    check()


def test_a_thousand_short_histories_need_few_configurations() -> None:
    tried = [
        decide(widened(seed, "queue", 8, "ABCD"), *OBJECTS["queue"][:2]).tried
        for seed in range(1000)
    ]
    assert max(tried) < 100
    assert sum(tried) < 15_000


def test_a_long_history_of_few_threads_needs_few_configurations() -> None:
    calls = widened(16, "counter", 300, "AB")
    verdict = decide(calls, lin.counter, 0)
    assert verdict.order is not None
    assert verdict.tried < 3000


def test_a_search_that_takes_too_long_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = lin.lost_key(6)
    monkeypatch.setattr(lin, "MOST", 64)
    assert decide(calls, lin.key_map, NOTHING).tried == 64
    monkeypatch.setattr(lin, "MOST", 63)
    with pytest.raises(RuntimeError, match="not decided after 63"):
        decide(calls, lin.key_map, NOTHING)


@pytest.mark.parametrize("name", ["map", "set"])
def test_each_key_for_itself_gives_the_same_verdict(name: str) -> None:
    specification, initial, _ = OBJECTS[name]

    @settings(max_examples=40)
    @given(histories(name, most_calls=6))
    def check(calls: list[Call]) -> None:
        whole = decide(calls, specification, initial).order is not None
        parts = [decide(part, specification, initial) for part in by_key(calls)]
        assert all(part.order is not None for part in parts) == whole
        assert sum(map(len, by_key(calls))) == len(calls)

    check()


def test_sequential_consistency_of_each_key_is_not_that_of_the_whole() -> None:
    calls = history(
        *[("A", "set", "x", 1), ("A",), ("B", "set", "y", 1), ("B",)],
        *[("A", "get", "y"), ("A", None), ("B", "get", "x"), ("B", None)],
    )
    assert decide(calls, lin.key_map, NOTHING, program_order).order is None
    for part in by_key(calls):
        assert decide(part, lin.key_map, NOTHING, program_order).order is not None
        assert decide(part, lin.key_map, NOTHING).order is None


def test_what_was_invoked_first_is_tried_first() -> None:
    calls = lin.lost_key(5)[:-1]
    assert decide(calls, lin.key_map, NOTHING) == lin.Verdict(tuple(calls), 6)
    assert decide(calls[::-1], lin.key_map, NOTHING) == lin.Verdict(tuple(calls), 6)


@pytest.mark.parametrize("n_keys", [1, 2, 5])
def test_memoisation_makes_subsets_of_permutations(n_keys: int) -> None:
    calls = lin.lost_key(n_keys)
    plainly = decide(calls, lin.key_map, NOTHING, memoise=False).tried
    assert plainly == sum(math.perm(n_keys, k) for k in range(n_keys + 1))
    assert decide(calls, lin.key_map, NOTHING).tried == 2**n_keys


# -- linearizability: the part that fails


@pytest.mark.parametrize("name", sorted(OBJECTS))
def test_the_shortest_refuted_prefix_is_refuted_and_nothing_before_it(
    name: str,
) -> None:
    specification, initial, _ = OBJECTS[name]

    @settings(max_examples=40)
    @given(histories(name, most_calls=4))
    def check(calls: list[Call]) -> None:
        if decide(calls, specification, initial).order is not None:
            with pytest.raises(ValueError, match="is linearizable"):
                lin.shortest_refuted_prefix(calls, specification, initial)
            return
        prefix = lin.shortest_refuted_prefix(calls, specification, initial)
        assert not is_explained(prefix, specification, initial, True)
        last = max(prefix, key=lambda call: call.returned or -1)
        before = [
            replace(call, result=None, returned=None) if call == last else call
            for call in prefix
        ]
        assert is_explained(before, specification, initial, True)
        assert [call.invoked for call in prefix] == [
            call.invoked for call in calls if call.invoked < (last.returned or 0)
        ]

    check()


def test_what_comes_after_the_failure_is_left_out() -> None:
    calls = [*H2, Call("B", "put", ("later",), None, 8, 9)]
    prefix = lin.shortest_refuted_prefix(calls, fifo, ())
    assert prefix == H2
    assert lin.shortest_refuted_prefix(H4, fifo, ()) == H4


def test_what_has_not_returned_by_the_failure_is_pending() -> None:
    calls = history(("A", "put", 1), ("B", "get"), ("B", 2), ("A",))
    prefix = lin.shortest_refuted_prefix(calls, fifo, ())
    assert prefix == [replace(calls[0], returned=None), calls[1]]


# -- linearizability: recording


def test_results_and_exceptions_are_recorded() -> None:
    calls = lin.History()
    items: queue.Queue[str] = queue.Queue()
    assert calls.call("A", "put", items.put, "x") is None
    assert calls.call("A", "get", items.get_nowait) == "x"
    assert calls.call("B", "get", items.get_nowait) is Empty
    assert calls.calls() == [
        Call("A", "put", ("x",), None, 0, 1),
        Call("A", "get", (), "x", 2, 3),
        Call("B", "get", (), Empty, 4, 5),
    ]
    assert list(map(str, calls.calls())) == [
        "put('x')",
        "get() -> 'x'",
        "get() -> Empty",
    ]


def test_a_call_that_is_interrupted_is_pending() -> None:
    calls = lin.History()

    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calls.call("A", "get", interrupted)
    assert calls.calls() == [Call("A", "get", (), None, 0, None)]


def test_the_clock_ticks_before_a_call_and_after_it() -> None:
    calls = lin.History()

    def look() -> list[Call]:
        calls.call("B", "inner", lambda: None)
        return calls.calls()

    seen = calls.call("A", "outer", look)
    assert seen == [
        Call("A", "outer", (), None, 0, None),
        Call("B", "inner", (), None, 1, 2),
    ]
    assert [call.returned for call in calls.calls()] == [3, 2]


def test_threads_record_each_call_with_ticks_of_its_own() -> None:
    def number(n: int) -> int:
        return n

    with no_thread_is_left():
        calls = lin.record(
            {str(t): [("number", number, (n,)) for n in range(50)] for t in range(4)}
        )
    ticks = [tick for call in calls for tick in (call.invoked, call.returned)]
    assert sorted(tick for tick in ticks if tick is not None) == list(range(400))
    assert [call.invoked for call in calls] == sorted(call.invoked for call in calls)
    for thread in "0123":
        own = [call for call in calls if call.thread == thread]
        assert [call.result for call in own] == list(range(50))
        for one, following in itertools.pairwise(own):
            assert one.returned is not None
            assert one.returned < following.invoked


def test_a_call_that_does_not_return_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lin, "LIMIT", 0.05)
    go_on = threading.Event()
    before = set(threading.enumerate())
    with pytest.raises(TimeoutError, match="not all calls"):
        lin.record({"A": [("wait", go_on.wait, (LIMIT,))]})
    go_on.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_threads_end_if_not_all_of_them_have_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_two(self: threading.Thread) -> None:
        if len(started) == 2:
            raise KeyboardInterrupt
        started.append(self)
        start(self)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with pytest.raises(KeyboardInterrupt):
        lin.record({name: [("nothing", lambda: None, ())] for name in "ABC"})
    for thread in started:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_a_queue_with_a_lock_is_linearizable_under_stress() -> None:
    with no_thread_is_left():
        for _ in range(50):
            items: queue.Queue[int] = queue.Queue(3)
            calls = lin.record(
                {
                    f"T{n}": [
                        ("put", items.put_nowait, (n,)),
                        ("get", items.get_nowait, ()),
                    ]
                    for n in range(8)
                }
            )
            assert len(calls) == 16
            order = decide(calls, partial(fifo, maxsize=3), ()).order
            assert order is not None, lin.timeline(calls)


# -- linearizability: the picture


def test_a_history_is_drawn_with_a_row_for_each_thread() -> None:
    assert lin.timeline(H1).splitlines() == [
        "A  |- put('x') -----|                    |- get() -> 'y' -| |- put('z') - ...",
        "B    |- put('y') -|   |- get() -> 'x' -|",
    ]


@settings(max_examples=40)
@given(st.sampled_from(sorted(OBJECTS)).flatmap(histories), st.integers(20, 100))
def test_no_picture_is_too_wide_and_no_call_is_missing(
    calls: list[Call], width: int
) -> None:
    picture = lin.timeline(calls, width)
    assert all(len(line) <= width for line in picture.splitlines())
    wide = lin.timeline(calls, 10_000)
    rows = wide.splitlines()
    assert len(rows) == len({call.thread for call in calls})
    for call in calls:
        assert f"|- {call} -" in wide
    ended = sum(call.returned is not None for call in calls)
    assert wide.count("|") == len(calls) + ended
    assert wide.count("...") == len(calls) - ended


def bars(row: str) -> Iterator[tuple[int, int]]:
    ends = [place for place, character in enumerate(row) if character == "|"]
    return zip(ends[::2], ends[1::2], strict=True)


@settings(max_examples=40)
@given(st.integers(), st.integers(1, 12))
def test_bars_overlap_if_and_only_if_calls_do(seed: int, n_calls: int) -> None:
    calls = widened(seed, "counter", n_calls, "ABC")
    drawn: dict[Call, tuple[int, int]] = {}
    for row in lin.timeline(calls, 10_000).splitlines():
        own = [call for call in calls if call.thread == row[0]]
        own.sort(key=lambda call: call.invoked)
        drawn.update(zip(own, bars(row), strict=True))
    for a, b in itertools.permutations(calls, 2):
        assert a.returned is not None
        assert (a.returned < b.invoked) == (drawn[a][1] < drawn[b][0])


def test_what_is_too_wide_is_folded_between_calls() -> None:
    calls = [Call("A", "get", (), n, 2 * n, 2 * n + 1) for n in range(3)]
    rows = [f"A  |- get() -> {n} -|" for n in range(3)]
    assert lin.timeline(calls, 24).splitlines() == [rows[0], "", rows[1], "", rows[2]]
    assert lin.timeline(calls, 14).splitlines()[0] == rows[0][:14]
    narrow = lin.timeline(calls, 3).splitlines()  # no room beside the names
    assert {len(line) for line in narrow} == {0, 1, 4}
    columns = (line[3:] or " " for line in narrow if line)
    assert "".join(columns) == lin.timeline(calls)[3:]
    assert lin.timeline(H4, 30).splitlines() == [
        "A  |- put('x') -|",
        "B    |- put('y') -|",
        "C",
        "",
        "A  |- get() -> 'y' -|",
        "B",
        "C    |- get() -> 'y' -|",
    ]
    assert lin.timeline([]) == ""


# -- linearizability: the demonstration


@pytest.mark.parametrize(
    ("name", "instead", "complaint_"),
    [
        ("by_key", lambda calls: [calls], "fewer"),
        ("lost_key", lambda n: [], "lost key"),
        ("decide", lambda *_: lin.Verdict(None, 1), "B was to put"),
        ("as_they_come", lambda: H2, "SimpleQueue was to be"),
    ],
)
def test_a_tool_that_decides_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, complaint_: str
) -> None:
    monkeypatch.setattr(lin, name, instead)
    with pytest.raises(SystemExit, match=complaint_):
        run_main(lin, monkeypatch)


# -- example14


@pytest.mark.parametrize("subject", refuted_.SUBJECTS, ids=lambda one: one.name)
@pytest.mark.parametrize("n_calls", [1, 2, 3])
def test_all_programs_are_made_once(subject: refuted_.Subject, n_calls: int) -> None:
    seen = set()
    for program in refuted_.programs(subject, n_calls):
        a, b = (tuple(name for name, _ in program[thread]) for thread in "AB")
        assert len(a) + len(b) == n_calls
        assert (a, b) not in seen
        seen |= {(a, b), (b, a)}
        items = [n for calls in program.values() for _, n in calls if n]
        assert len(set(items)) == len(items)
    assert len(seen) == (n_calls + 1) * 2**n_calls


def interleavings(program: refuted_.Program, marks: dict[str, int]) -> int:
    steps = [
        sum(1 + marks[name] for name, _ in program[thread]) for thread in ("A", "B")
    ]
    return math.comb(sum(steps), steps[0])


@pytest.mark.parametrize(
    ("n", "marks"),
    [
        (0, {"increment": 1, "get": 0}),
        (1, {"put": 1, "get": 0}),
        (2, {"write": 0, "read": 0}),
    ],
)
@pytest.mark.parametrize("n_calls", [1, 2, 3])
def test_each_program_is_played_in_all_interleavings(
    n: int, marks: dict[str, int], n_calls: int
) -> None:
    subject = refuted_.SUBJECTS[n]
    programs = refuted_.programs(subject, n_calls)
    expected = sum(interleavings(program, marks) for program in programs)
    assert len(refuted_.play_all(subject, n_calls)) == expected


def test_the_hasty_queue_is_a_queue_for_one_thread() -> None:
    items = refuted_.HastyQueue[int](lambda: None)
    state: tuple[int, ...] = ()
    generator = random.Random(16)
    for n in range(100):
        calls = lin.History()
        if generator.random() < 0.5:
            result, arguments = calls.call("A", "put", items.put, n), (n,)
            state, expected = fifo(state, "put", arguments)
        else:
            result = calls.call("A", "get", items.get)
            state, expected = fifo(state, "get", ())
        assert result == expected


def test_an_unfilled_place_hides_those_behind_it() -> None:
    def look_meanwhile() -> None:
        if not seen:
            seen.append("")
            items.put("second")
            with pytest.raises(Empty):
                items.get()

    seen: list[str] = []
    items = refuted_.HastyQueue[str](look_meanwhile)
    items.put("first")
    assert [items.get(), items.get()] == ["first", "second"]


def played(get: Callable[[], object], *calls: Call) -> refuted_.Played:
    return refuted_.Played(list(calls), {"get": get})


def test_a_lost_item_and_one_that_comes_twice_are_seen() -> None:
    def none_left() -> NoReturn:
        raise Empty

    put, got = Call("A", "put", (7,), None, 0, 1), Call("A", "get", (), 7, 2, 3)
    nothing = Call("B", "get", (), Empty, 4, 5)
    assert refuted_.keeps_items(played(lambda: 7, put, nothing))
    assert refuted_.keeps_items(played(none_left, put, got, nothing))
    assert not refuted_.keeps_items(played(none_left, put, nothing))
    assert not refuted_.keeps_items(played(lambda: 7, put, got))


def refuted_history() -> list[Call]:
    return history(("A", "get"), ("A", 7))  # not even of one call that is right


class WholeCounter(refuted_.LocklessCounter):
    def increment(self) -> int:
        self._value += 1
        return self._value


class ForgetfulQueue(refuted_.HastyQueue[int]):
    def get(self) -> int:
        item = super().get()
        self._items.clear()
        return item


class CautiousQueue(refuted_.HastyQueue[int]):
    def put(self, item: int) -> None:
        self._items[self._end] = item
        self._end += 1


@pytest.mark.parametrize(
    ("name", "instead", "complaint_"),
    [
        ("LocklessCounter", WholeCounter, "counter: not refuted by 3 calls"),
        ("HastyQueue", {int: ForgetfulQueue}, "each item was to come out once"),
        ("HastyQueue", {int: CautiousQueue}, "queue: not refuted by 3 calls"),
        ("in_a_lock", lambda subject: subject, "a lock was to help"),
        ("program_order", real_time, "only the register"),
        ("refute", lambda _: refuted_history(), "2, 3 and 2 calls were to do"),
    ],
)
def test_an_object_that_is_not_refuted_as_it_was_to_be_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, complaint_: str
) -> None:
    monkeypatch.setattr(refuted_, "MOST_CALLS", 3)
    monkeypatch.setattr(refuted_, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=complaint_):
        run_main(refuted_, monkeypatch)


def test_a_thread_that_does_not_go_on_ends_the_demonstration_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "LIMIT", 0.0)
    monkeypatch.setattr(refuted_.LocklessCounter, "get", lambda _: time.sleep(0.05))
    with no_thread_is_left(), pytest.raises(SystemExit, match="does not go on"):
        run_main(refuted_, monkeypatch)
