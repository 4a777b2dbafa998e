"""Chapter 17, litmus tests, emitted code, Peterson's lock: what a reader would copy."""

import gc
import os
import re
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations, product
from typing import Any

import pytest

pytest.importorskip("llvmlite")

import cores
import example06_litmus_tests as litmus
import example07_emitted_code as emitted_code
import example08_peterson_lock as peterson
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

ORDERINGS = ["relaxed", "release/acquire", "seq_cst"]
ROWS = [(name, one) for name, (_, many) in litmus.TESTS.items() for one in many]

needs_two_cores = pytest.mark.skipif(cores.usable_cores() < 2, reason="needs two cores")


def sc(text: str, ordering: str = "relaxed") -> set[litmus.Outcome]:
    return litmus.outcomes(litmus.parse(text, ordering))


def tso(text: str, ordering: str = "relaxed") -> set[litmus.Outcome]:
    return litmus.outcomes(litmus.parse(text, ordering), buffered=True)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with no_thread_is_left(), cores.two_cores() as pool:
        yield pool


# -- cores


@pytest.mark.skipif(sys.platform != "linux", reason="needs sched_setaffinity")
def test_ctrl_c_as_soon_as_a_thread_has_one_core_gives_it_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = cores.my_cores()
    pin = os.sched_setaffinity
    pinned = []

    def pin_and_interrupt(thread: int, to: set[int]) -> None:
        pin(thread, to)
        pinned.append(to)
        if len(pinned) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "sched_setaffinity", pin_and_interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), cores.on_core(0):
            pass
        assert (len(pinned[0]), cores.my_cores()) == (1, before)
    finally:
        pin(0, before)


def test_where_threads_have_no_affinity_nothing_is_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(SystemExit) as exit_:
        run_main(cores, monkeypatch)
    assert exit_.value.code == 77
    assert capsys.readouterr().out.startswith("needs Linux")


# -- example06, the abstract machines


def test_a_line_of_text_becomes_threads() -> None:
    assert litmus.parse("x = 1; fence; a = y | b = x", "release/acquire") == [
        (
            litmus.Store("x", 1, "release"),
            litmus.Fence(),
            litmus.Load("y", "a", "acquire"),
        ),
        (litmus.Load("x", "b", "acquire"),),
    ]


def test_with_fences_there_is_one_between_each_two_instructions() -> None:
    (thread,) = litmus.parse("x = 1; a = y; b = z", "relaxed, fences")
    kinds = [type(one) for one in thread]
    assert kinds == [litmus.Store, litmus.Fence, litmus.Load, litmus.Fence, litmus.Load]


# What the models are known to say, of tests in the literature. The outcome is that of
# the registers in alphabetical order.
@pytest.mark.parametrize(
    ("text", "ordering", "outcome", "in_tso"),
    [
        ("x = 1; a = y | y = 1; b = x", "relaxed", (0, 0), True),
        ("x = 1; a = y | y = 1; b = x", "release/acquire", (0, 0), True),
        ("x = 1; a = y | y = 1; b = x", "seq_cst", (0, 0), False),
        ("x = 1; a = y | y = 1; b = x", "relaxed, fences", (0, 0), False),
        ("x = 1; fence; a = y | y = 1; b = x", "relaxed", (0, 0), True),
        ("x = 1; y = 1 | a = y; b = x", "relaxed", (1, 0), False),
        ("a = y; x = 1 | b = x; y = 1", "relaxed", (1, 1), False),
        ("x = 1 | a = x; b = x", "relaxed", (1, 0), False),
        # who reads its own store before others can see it
        ("x = 1; a = x; b = y | y = 1; c = y; d = x", "relaxed", (1, 0, 1, 0), True),
        # independent reads of independent writes
        ("x = 1 | y = 1 | a = x; b = y | c = y; d = x", "relaxed", (1, 0, 1, 0), False),
        # write to read causality
        ("x = 1 | a = x; y = 1 | b = y; c = x", "relaxed", (1, 1, 0), False),
    ],
)
def test_the_machines_say_what_the_literature_says(
    text: str, ordering: str, outcome: litmus.Outcome, in_tso: bool
) -> None:
    assert (outcome in tso(text, ordering)) == in_tso


def test_a_thread_alone_reads_what_it_has_stored() -> None:
    for ordering in litmus.ORDERS:
        assert sc("a = x; x = 1; b = x; x = 2; c = x", ordering) == {(0, 1, 2)}
        assert tso("a = x; x = 1; b = x; x = 2; c = x", ordering) == {(0, 1, 2)}


instructions = st.one_of(
    st.builds("{} = {}".format, st.sampled_from("xy"), st.integers(1, 2)),
    st.builds("{} = {}".format, st.sampled_from("abc"), st.sampled_from("xy")),
)
threads_of_text = st.lists(
    st.lists(instructions, min_size=1, max_size=3), min_size=1, max_size=2
)


def interleaved(threads: list[list[str]]) -> set[litmus.Outcome]:
    """Return what SC allows, by running each interleaving as it stands."""
    found = set()
    whose = [me for me, thread in enumerate(threads) for _ in thread]
    registers = sorted({one[0] for thread in threads for one in thread} & set("abc"))
    for order in set(permutations(whose)):
        left = [iter(thread) for thread in threads]
        values = dict.fromkeys("abcxy", 0)
        for me in order:
            target, _, source = next(left[me]).partition(" = ")
            values[target] = values[source] if source in "xy" else int(source)
        found.add(tuple(values[name] for name in registers))
    return found


@settings(max_examples=40)
@given(threads_of_text)
def test_sc_is_all_interleavings_and_nothing_else(threads: list[list[str]]) -> None:
    text = " | ".join("; ".join(thread) for thread in threads)
    assert sc(text) == interleaved(threads)


@settings(max_examples=40)
@given(threads_of_text, st.sampled_from(["relaxed", "release/acquire"]))
def test_tso_allows_what_sc_does_and_with_fences_no_more(
    threads: list[list[str]], ordering: str
) -> None:
    text = " | ".join("; ".join(thread) for thread in threads)
    assert tso(text, ordering) >= sc(text)
    assert tso(text, "seq_cst") == tso(text, "relaxed, fences") == sc(text)


@pytest.mark.parametrize(("name", "ordering"), ROWS)
def test_x86_keeps_what_cpp_asks_for(name: str, ordering: str) -> None:
    text, _ = litmus.TESTS[name]
    more = tso(text, ordering) - sc(text)
    assert len(set(product((0, 1), repeat=2)) - sc(text)) == 1
    assert not more or (name, ordering) in litmus.ALLOWED_BY_CPP


# -- example06, on the processor


@needs_two_cores
def test_machine_code_does_what_the_text_says(pool: ThreadPoolExecutor) -> None:
    text = "a = x; x = 7; b = x; fence; y = 5; c = y; d = z | z = 3; e = z"
    one = litmus.Litmus(litmus.parse(text, "relaxed"))
    counts = one.run(pool, litmus.ROUND + 1, set())  # more than one round
    assert {(a, b, c, e) for a, b, c, _, e in counts} == {(0, 7, 5, 3)}
    assert {d for _, _, _, d, _ in counts} <= {0, 3}


def test_llvm_leaves_the_instructions_in_their_order() -> None:
    threads = litmus.parse("z = 1; x = 2; y = 3; x = 4; z = 5 | a = x", "relaxed")
    x86 = emitted_code.PROCESSORS["x86-64"]
    code = emitted_code.emitted(litmus.machine_code(threads, 0), x86, optimise=True)
    stored = re.findall(r"movq\t\$(\d), ", "\n".join(code["thread0"]))
    assert stored == ["1", "2", "3", "4", "5"]


@needs_two_cores
@pytest.mark.parametrize("ordering", sorted(litmus.ORDERS))
def test_all_that_is_seen_is_allowed(pool: ThreadPoolExecutor, ordering: str) -> None:
    threads = litmus.parse("x = 1; y = 2; a = y; b = x | y = 1; x = 2; c = x", ordering)
    allowed = litmus.outcomes(threads, buffered=True)
    counts = litmus.Litmus(threads).run(pool, 3000, set())
    assert counts.total() >= 3000
    if litmus.IS_X86:
        assert counts.keys() <= allowed


def test_a_thread_that_waits_in_vain_gives_up() -> None:
    one = litmus.Litmus(litmus.parse("x = 1; a = y | y = 1; b = x", "relaxed"))
    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:  # one after the other
        assert one.round(pool) == Counter()


def test_who_sees_nothing_of_what_is_expected_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(litmus, "LIMIT", 0.05)
    one = litmus.Litmus(litmus.parse("x = 1; a = y | y = 1; b = x", "relaxed"))
    with no_thread_is_left(), cores.two_cores() as pool:
        assert (9, 9) not in one.run(pool, 1, {(9, 9)})


def seeing(see: Callable[[set[Any], set[Any]], Any], trials: int | None = None) -> Any:
    """Return a test that is not run; `see` tells from SC and what is expected."""

    class Told:
        def __init__(self, threads: Any) -> None:
            self.sc = litmus.outcomes(threads)

        def run(self, pool: object, least: int, expected: set[Any]) -> Counter[Any]:
            return Counter(dict.fromkeys(see(self.sc, expected), trials or least))

    return Told


@pytest.mark.parametrize("is_x86", [False, True])
@pytest.mark.parametrize(
    ("instead", "complaint"),
    [
        (seeing(lambda sc, expected: sc), r"not seen in 10 s: \[\(0, 0\)\]"),
        (seeing(lambda sc, expected: expected - {(0, 1)}), r"not seen .*\[\(0, 1\)\]"),
        (
            seeing(lambda sc, expected: expected | {(0, 0)}),
            r"not allowed: \[\(0, 0\)\]",
        ),
        (seeing(lambda sc, expected: expected, 1), r"only \d trials"),
    ],
)
def test_a_processor_that_does_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, instead: Any, complaint: str, is_x86: bool
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.setattr(litmus, "IS_X86", is_x86)
    monkeypatch.setattr(litmus, "Litmus", seeing(set.union))
    run_main(litmus, monkeypatch)
    monkeypatch.setattr(litmus, "Litmus", instead)
    with pytest.raises(SystemExit, match=complaint):
        run_main(litmus, monkeypatch)


@pytest.mark.parametrize(
    "make",
    [
        lambda: litmus.Litmus(litmus.parse("x = 1 | a = x", "relaxed")),
        lambda: peterson.Peterson("relaxed", False),
    ],
    ids=["litmus", "peterson"],
)
def test_memory_stays_there_for_threads_that_ctrl_c_leaves_behind(make: Any) -> None:
    calls = []

    class Pool:
        def submit(self, *call: Any) -> None:
            calls.append(call)
            raise KeyboardInterrupt

    test = make()
    memory = weakref.ref(test._memory)
    with pytest.raises(KeyboardInterrupt):
        test.round(Pool())
    del test
    gc.collect()
    assert memory() is not None
    calls.clear()
    gc.collect()
    assert memory() is None


@pytest.mark.parametrize("script", [litmus, peterson], ids=["litmus", "peterson"])
def test_one_core_is_too_few(
    script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 1)
    with pytest.raises(SystemExit) as exit_:
        run_main(script, monkeypatch)
    assert exit_.value.code == 77
    assert capsys.readouterr().out == "needs two cores\n"


# -- example07


Tables = dict[str, emitted_code.Table]


@pytest.fixture(scope="module")
def tables() -> Tables:
    return {
        name: emitted_code.translations(one)
        for name, one in emitted_code.PROCESSORS.items()
    }


def use(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the script have these tables, instead of what LLVM emits."""
    names = {one: name for name, one in emitted_code.PROCESSORS.items()}
    monkeypatch.setattr(emitted_code, "translations", lambda one: tables[names[one]])


def test_each_operation_has_its_instructions(tables: Tables) -> None:
    names = {
        f"{operation}.{ordering}"
        for operation, (_, orderings) in emitted_code.OPERATIONS.items()
        for ordering in orderings
    }
    for table in tables.values():
        assert table.keys() == names
        assert all(table[name] for name in names if not name.startswith("fence"))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("movq\t(%rdi), %rax", "mov"),
        ("lock\t\tcmpxchgq\t%rdx, (%rdi)", "lock cmpxchg"),
        ("lock\t\torl\t$0, -64(%rsp)", "mfence*"),
        ("mfence", "mfence*"),
        ("dmb\tishld", "dmb ishld"),
        ("fence\trw, w", "fence rw,w"),
        ("amoadd.d.aq\ta0, a1, (a0)", "amoadd.d.aq"),
    ],
)
def test_instructions_are_called_by_their_names(line: str, name: str) -> None:
    assert emitted_code.matters(line)
    assert emitted_code.name_of(line) == name


@pytest.mark.parametrize(
    "line", ["retq", "mov\tx8, x0", "cbnz\tw9, .LBB0_1", ".LBB0_1:"]
)
def test_what_stays_within_the_core_does_not_matter(line: str) -> None:
    assert not emitted_code.matters(line)


def test_a_loop_is_from_a_label_to_the_jump_back() -> None:
    lines = ["a", ".LBB0_1:", "b", "je\t.LBB0_2", "jmp\t.LBB0_1", ".LBB0_2:", "c"]
    assert emitted_code.loop_of(lines) == ["b", "je\t.LBB0_2", "jmp\t.LBB0_1"]
    assert emitted_code.loop_of(["a", "jmp\t.LBB0_1", ".LBB0_1:", "b"]) == []


@pytest.mark.parametrize("processor", emitted_code.PROCESSORS.values())
def test_nothing_is_left_of_a_plain_loop_that_must_end(processor: Any) -> None:
    text = emitted_code.WAIT_AND_PUBLISH.format(atomic="", acquire="", release="")
    text = text.replace("@wait(ptr %box)", "@wait(ptr %box) mustprogress")
    (ret,) = emitted_code.emitted(text, processor, optimise=True)["wait"]
    assert ret in {"ret", "retq"}


def test_text_that_is_not_in_order_is_an_error() -> None:
    with pytest.raises(RuntimeError):
        emitted_code.emitted("nonsense", emitted_code.PROCESSORS["ARMv8"], True)


def test_a_processor_that_llvm_does_not_know_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unknown = {"Z80": emitted_code.Processor("z80-unknown-none")}
    monkeypatch.setattr(emitted_code, "PROCESSORS", unknown)
    with pytest.raises(SystemExit) as exit_:
        run_main(emitted_code, monkeypatch)
    assert exit_.value.code == 77
    assert capsys.readouterr().out.startswith("needs an LLVM that knows")


@pytest.mark.parametrize(
    ("processor", "name", "instead", "broken"),
    [
        ("x86-64", "load.acquire", "mov; lfence", "x86-64: acquire and release"),
        ("x86-64", "fetch_add.relaxed", "inc", "x86-64: acquire and release"),
        ("x86-64", "store.seq_cst", "mov; mfence*", "x86-64: a seq_cst store"),
        ("ARMv8", "load.seq_cst", "ldar; dmb ish", "ARMv8: acquire and release"),
        ("ARMv8.1", "exchange.release", "ldxr; stlxr", "ARMv8: a read-modify-write"),
        ("RISC-V", "load.seq_cst", "ld; fence r,rw", "RISC-V: fences"),
    ],
)
def test_every_claim_can_fail(
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    processor: str,
    name: str,
    instead: str,
    broken: str,
) -> None:
    assert all(emitted_code.claims(tables).values())
    tables = {**tables, processor: {**tables[processor], name: instead}}
    (claim,) = (one for one, holds in emitted_code.claims(tables).items() if not holds)
    use(tables, monkeypatch)
    with pytest.raises(SystemExit, match=f"this was to be so: {broken}"):
        run_main(emitted_code, monkeypatch)
    assert claim.startswith(broken)


@pytest.mark.parametrize(
    ("flag", "instead", "complaint"),
    [
        ("plain", "relaxed", "x86-64, plain: the loop was"),
        ("relaxed", "plain", "x86-64, relaxed: the loop was"),
        ("relaxed", "release/acquire", "x86-64, relaxed: 3 stores"),
        ("release/acquire", "relaxed", "x86-64, release/acquire: 2 stores"),
    ],
)
def test_an_optimiser_that_does_otherwise_is_told(
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    flag: str,
    instead: str,
    complaint: str,
) -> None:
    use(tables, monkeypatch)
    flags = {flag: emitted_code.FLAGS[instead]}
    monkeypatch.setattr(emitted_code, "FLAGS", flags)
    with pytest.raises(SystemExit, match=complaint):
        run_main(emitted_code, monkeypatch)


# -- example08


def verdict(fence: str, ordering: str, buffered: bool) -> bool:
    threads = litmus.parse(peterson.ENTRY.format(fence, fence), ordering)
    return any(map(peterson.both_enter, litmus.outcomes(threads, buffered)))


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_no_interleaving_lets_both_in(ordering: str) -> None:
    assert not verdict("", ordering, buffered=False)


def test_store_buffers_let_both_in_unless_a_fence_empties_them() -> None:
    assert verdict("", "relaxed", buffered=True)
    assert verdict("", "release/acquire", buffered=True)
    assert not verdict("", "seq_cst", buffered=True)
    assert not verdict(" fence;", "relaxed", buffered=True)


def test_a_fence_in_one_thread_is_not_enough() -> None:
    threads = litmus.parse(peterson.ENTRY.format(" fence;", ""), "relaxed")
    assert any(map(peterson.both_enter, litmus.outcomes(threads, buffered=True)))


@needs_two_cores
def test_a_lock_of_seq_cst_loses_nothing(pool: ThreadPoolExecutor) -> None:
    locks = peterson.Peterson("seq_cst", False)
    locks.run(pool, 5000, until_lost=False)
    assert locks.passages >= 5000
    assert locks.lost == 0


def test_who_waits_in_vain_for_the_other_thread_takes_no_more_locks() -> None:
    locks = peterson.Peterson("relaxed", False)
    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:  # one after the other
        locks.round(pool)
    # The second one finds that the first has been there.
    assert (locks.passages, locks.lost) == (1, 0)


def losing(lose: Callable[[bool], int], passages: int | None = None) -> Any:
    """Return locks that nobody takes; `lose` tells from whether one is to be lost."""

    class Told:
        def __init__(self, ordering: str, fenced: bool) -> None:
            self.passages = self.lost = 0

        def run(self, pool: object, least: int, until_lost: bool) -> None:
            self.passages, self.lost = passages or least, lose(until_lost)

    return Told


@pytest.mark.parametrize("is_x86", [False, True])
@pytest.mark.parametrize(
    ("instead", "complaint"),
    [
        (losing(lambda must: 0), "relaxed: no update was lost in 10 s"),
        (losing(lambda must: 3), "(seq_cst|fence): 3 updates were lost"),
        (losing(int, 5), "relaxed: only 5 passages"),
    ],
)
def test_locks_that_do_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch, instead: Any, complaint: str, is_x86: bool
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 2)
    monkeypatch.setattr(peterson, "IS_X86", is_x86)
    monkeypatch.setattr(peterson, "Peterson", losing(int))
    run_main(peterson, monkeypatch)
    monkeypatch.setattr(peterson, "Peterson", instead)
    with pytest.raises(SystemExit, match=complaint):
        run_main(peterson, monkeypatch)
