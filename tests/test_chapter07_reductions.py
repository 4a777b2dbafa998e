"""Chapter 7, examples 1, 2, 3, 5 and 6: the parts a reader would copy."""

import functools
import itertools
import math
import multiprocessing
import operator
import os
import re
import shutil
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from pickle import PicklingError
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
from child_tasks import (
    Matrix,
    after_a_while,
    die,
    divide_or_wait,
    exit_with_3,
    kill,
    product,
    raise_unpicklable,
    return_unpicklable,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from Chapter07 import example01_tree_reduction as trees
from Chapter07 import example02_partial_sums_in_a_pool as pools
from Chapter07 import example03_operators_that_may_be_reduced as operators
from Chapter07 import example05_zero_copy_reduction as blocks
from Chapter07 import example06_speedup_against_size_and_workers as speedups
from Chapter07.example01_tree_reduction import TreeReducer

T = TypeVar("T")

LIMIT = 30.0  # seconds for what should take no time


@contextmanager
def leaving_no_child() -> Iterator[None]:
    before = set(multiprocessing.active_children())
    yield
    assert not set(multiprocessing.active_children()) - before


# -- example01


@pytest.fixture(scope="module")
def adder() -> Iterator[TreeReducer[Any]]:
    with TreeReducer[Any](operator.add, 3) as reducer:
        yield reducer


@pytest.fixture(scope="module")
def multiplier() -> Iterator[TreeReducer[Matrix]]:
    with TreeReducer[Matrix](product, 2) as reducer:
        yield reducer


@given(st.integers(0, 100))
def test_one_level_combines_neighbours(length: int) -> None:
    letters = [chr(0x4E00 + i) for i in range(length)]
    level = trees.one_level(operator.add, letters)
    assert level == ["".join(letters[i : i + 2]) for i in range(0, length, 2)]


def test_500_reductions_of_every_length_are_right_in_every_way(
    start_method: str,
) -> None:
    with leaving_no_child(), TreeReducer[Any](operator.add, 2) as reducer:
        for run in range(500):
            letters = [chr(0x4E00 + i) for i in range(run % 101)]
            joined = reducer.reduce(letters, "", pairs_at_once=1 + run % 6)
            assert joined == "".join(letters)


@pytest.mark.parametrize("n_workers", [1, 2, 5])
def test_any_number_of_workers_keeps_the_order(n_workers: int) -> None:
    with TreeReducer[str](operator.add, n_workers) as reducer:
        for length in range(1, 40):
            letters = [chr(0x4E00 + i) for i in range(length)]
            assert reducer.reduce(letters, pairs_at_once=1) == "".join(letters)


@settings(max_examples=50)
@given(
    matrices=st.lists(st.tuples(*[st.integers(-9, 9)] * 4), min_size=1, max_size=60),
    pairs=st.integers(1, 40),
)
def test_a_tree_of_any_shape_equals_a_loop(
    multiplier: TreeReducer[Matrix], matrices: list[Matrix], pairs: int
) -> None:
    result = multiplier.reduce(matrices, pairs_at_once=pairs)
    assert result == functools.reduce(product, matrices)


def test_answers_in_any_order_are_put_in_order() -> None:
    with TreeReducer[int](after_a_while, 3) as reducer:
        assert reducer.reduce(range(60), pairs_at_once=1) == sum(range(60))


def test_items_may_be_large(adder: TreeReducer[Any]) -> None:
    items = [bytes([i]) * 1_000_000 for i in range(9)]  # more than a pipe holds
    assert adder.reduce(items, pairs_at_once=1) == b"".join(items)


def test_an_iterator_will_do(adder: TreeReducer[Any]) -> None:
    assert adder.reduce(iter("abc"), "0") == "0abc"


def test_nothing_is_reduced_to_the_initial_item(adder: TreeReducer[Any]) -> None:
    assert adder.reduce([], "") == ""
    assert adder.reduce(["one"]) == "one"
    with pytest.raises(ValueError, match="nothing to reduce"):
        adder.reduce([])
    assert adder.reduce([1, 2]) == 3  # no harm was done


@pytest.mark.parametrize("n_workers", [0, -1, 62])
def test_there_must_be_a_few_workers(n_workers: int) -> None:
    with pytest.raises(ValueError, match=f"not {n_workers}"):
        TreeReducer(operator.add, n_workers)


@pytest.mark.parametrize("pairs", [0, -1])
def test_a_message_holds_a_pair_at_least(adder: TreeReducer[Any], pairs: int) -> None:
    with pytest.raises(ValueError, match=f"not {pairs}"):
        adder.reduce([1, 2, 3], pairs_at_once=pairs)


def test_what_an_operator_raises_is_raised_here_and_ends_all(start_method: str) -> None:
    began = time.monotonic()
    with leaving_no_child():
        reducer = TreeReducer[float](divide_or_wait, 2).__enter__()
        with pytest.raises(ZeroDivisionError) as error:
            reducer.reduce([1, 7, 1, 0], pairs_at_once=1)  # 1/7 is still waited for
    assert "divide_or_wait" in error.value.__notes__[0]
    assert time.monotonic() - began < LIMIT
    with pytest.raises(RuntimeError, match="no workers"):
        reducer.reduce([1, 2])


@pytest.mark.parametrize(
    ("combine", "error", "words"),
    [
        (raise_unpicklable, RuntimeError, "UnpicklableError: reason"),
        (return_unpicklable, Exception, "[Pp]ickle"),
        (exit_with_3, ChildProcessError, "exit code 3"),
    ],
)
def test_nobody_waits_for_what_will_not_come(
    combine: Callable[[int, int], int], error: type[Exception], words: str
) -> None:
    with (
        leaving_no_child(),
        TreeReducer[int](combine, 2) as reducer,
        pytest.raises(error, match=words),
    ):
        reducer.reduce([1, 2, 3, 4])


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("when", ["at work", "idle"])
def test_a_killed_worker_is_noticed(start_method: str, when: str) -> None:
    combine = kill if when == "at work" else operator.add
    with leaving_no_child(), TreeReducer[Any](combine, 2) as reducer:
        if when == "idle":
            assert reducer.reduce([1, 2]) == 3
            for process in reducer._workers.values():
                process.kill()
                process.join()
        with pytest.raises(ChildProcessError, match="exit code -9"):
            reducer.reduce([1, 2, 3], pairs_at_once=1)


def test_items_that_cannot_be_pickled_are_refused() -> None:
    with leaving_no_child(), TreeReducer[Any](operator.add, 2) as reducer:
        with pytest.raises((AttributeError, PicklingError)):
            reducer.reduce([lambda: None, 1, 2])
        with pytest.raises(RuntimeError, match="no workers"):
            reducer.reduce([1, 2])


def test_an_operator_that_cannot_be_pickled_leaves_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spawn = multiprocessing.get_context("spawn")
    monkeypatch.setattr(multiprocessing, "Process", spawn.Process)
    with leaving_no_child(), pytest.raises((AttributeError, PicklingError)):
        TreeReducer[int](lambda a, b: a, 2).__enter__()


def test_a_failing_block_ends_the_workers() -> None:
    with leaving_no_child(), suppress(KeyError), TreeReducer(operator.add, 2):
        raise KeyError


def test_without_a_parent_the_workers_end(start_method: str) -> None:
    """A program that is killed cannot clean up; its workers have to notice."""
    program = """
import multiprocessing, operator, os, sys
sys.path.insert(0, {root!r})
from Chapter07.example01_tree_reduction import TreeReducer
if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    with TreeReducer(operator.add, 3) as reducer:
        reducer.reduce(range(100), pairs_at_once=1)
        print(*(process.pid for process in reducer._workers.values()), flush=True)
        os._exit(0)
"""
    root = str(Path(trees.__file__).parents[1])
    source = program.format(root=root, method=start_method)
    command = [sys.executable, "-c", source]
    with TemporaryDirectory() as folder:  # it leaves its fork server's socket there
        environment = {**os.environ, "TMPDIR": folder}
        output = subprocess.check_output(
            command, text=True, timeout=3 * LIMIT, env=environment
        )
    left = []
    for pid in map(int, output.split()):
        with suppress(psutil.NoSuchProcess):
            left.append(psutil.Process(pid))
    assert len(output.split()) == 3
    assert not psutil.wait_procs(left, LIMIT)[1]


def test_a_sentinel_overtakes_an_item(start_method: str) -> None:
    assert trees.order_of_item_and_sentinel() == [None, 7]


# -- example02


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(3) as pool:
        yield pool


@given(st.lists(st.integers()), st.integers(1, 30))
def test_chunks_are_nearly_equal_slices(items: list[int], n_chunks: int) -> None:
    chunks = pools.split(items, n_chunks)
    assert [item for chunk in chunks for item in chunk] == items
    assert len(chunks) == min(n_chunks, len(items))
    sizes = [len(chunk) for chunk in chunks]
    assert not sizes or 1 <= min(sizes) >= max(sizes) - 1


@pytest.mark.parametrize("n_chunks", [0, -1])
def test_there_must_be_a_chunk(n_chunks: int) -> None:
    with pytest.raises(ValueError, match=f"not {n_chunks}"):
        pools.split(range(10), n_chunks)


@given(
    st.lists(st.tuples(*[st.integers(-9, 9)] * 4), min_size=1, max_size=30),
    st.integers(1, 40),
)
def test_chunks_are_combined_in_their_order(
    pool: ThreadPoolExecutor, matrices: list[Matrix], n_chunks: int
) -> None:
    expected = functools.reduce(product, matrices)
    assert pools.map_reduce(pool, product, matrices, n_chunks) == expected
    first = (1, 2, 3, 4)
    expected = functools.reduce(product, matrices, first)
    assert pools.map_reduce(pool, product, matrices, n_chunks, first) == expected


def test_map_reduce_by_processes(start_method: str) -> None:
    numbers = range(1, 1000)
    with leaving_no_child(), pools.process_pool(2) as processes:
        for items in (numbers, list(numbers), array("q", numbers)):
            result = pools.map_reduce(processes, pools.times, items, 7)
            assert result == math.factorial(999) % pools.PRIME
        with pytest.raises(ZeroDivisionError):
            pools.map_reduce(processes, operator.floordiv, [1, 0, 1, 0], 2)
        with pytest.raises(BrokenProcessPool):
            pools.map_reduce(processes, die, [1, 2, 3], 1)


def test_map_reduce_of_nothing(pool: ThreadPoolExecutor) -> None:
    assert pools.map_reduce(pool, operator.add, [], 3, 5) == 5
    with pytest.raises(ValueError, match="nothing to reduce"):
        pools.map_reduce(pool, operator.add, [], 3)


def test_bytes_that_move_grow_with_a_list_and_not_with_a_range() -> None:
    def moved(items: Sequence[int]) -> int:
        return pools.bytes_moved(pools.split(items, 4))

    few, many = range(10**9, 10**9 + 1000), range(10**9, 10**9 + 100_000)
    assert moved(many) == moved(few) < 400
    assert moved(list(many)) > 90 * moved(list(few)) > 90 * 5 * 1000
    assert 8 * 100_000 < moved(array("q", many)) < 8 * 100_000 + 1000


# -- example03

TABLES = st.lists(st.integers(0, 2), min_size=9, max_size=9)


@given(TABLES)
def test_counterexamples_are_found_if_there_are_any(table: list[int]) -> None:
    """Of the 19,683 operators on three elements, 113 are associative."""

    def combine(a: int, b: int) -> int:
        return table[3 * a + b]

    three = range(3)
    found = operators.counterexample_to_associativity(combine, three)
    exist = [
        (a, b, c)
        for a in three
        for b in three
        for c in three
        if combine(combine(a, b), c) != combine(a, combine(b, c))
    ]
    assert found == (exist[0] if exist else None)
    pair = operators.counterexample_to_commutativity(combine, three)
    different = [(a, b) for a in three for b in three if combine(a, b) != combine(b, a)]
    assert pair == (different[0] if different else None)
    for e in three:
        changes = [a for a in three if not combine(e, a) == a == combine(a, e)]
        assert operators.is_identity(combine, e, three) is not bool(changes)


def test_there_are_113_associative_operators_on_three_elements() -> None:
    count = 0
    for table in itertools.product(range(3), repeat=9):
        combine = functools.partial(lambda t, a, b: t[3 * a + b], table)
        count += operators.counterexample_to_associativity(combine, range(3)) is None
    assert count == 113  # OEIS A023814


def test_no_samples_refute_nothing() -> None:
    assert operators.counterexample_to_associativity(operator.sub, []) is None
    assert operators.counterexample_to_commutativity(operator.sub, [1]) is None


@pytest.mark.parametrize(("n", "catalan"), [*enumerate([1, 1, 2, 5, 14, 42, 132], 1)])
def test_ways_to_put_brackets(n: int, catalan: int) -> None:
    letters = "abcdefg"[:n]
    ways = operators.bracketings(lambda a, b: f"({a}{b})", letters)
    assert len(ways) == len(set(ways)) == catalan
    assert all(way.replace("(", "").replace(")", "") == letters for way in ways)


def test_nothing_cannot_be_bracketed() -> None:
    with pytest.raises(ValueError, match="nothing"):
        operators.bracketings(operator.add, [])


def test_distinct_results_are_counted() -> None:
    assert operators.n_distinct([]) == 0
    assert operators.n_distinct([{1}, {1}, {2}, {1}, [1]]) == 3


@given(*[st.tuples(*[st.tuples(*[st.integers(-99, 99)] * 2)] * 2)] * 2)
def test_matrix_product(a: operators.Matrix, b: operators.Matrix) -> None:
    expected = np.array(a) @ np.array(b)
    assert np.array_equal(operators.matrix_product(a, b), expected)


def test_composed_functions_are_applied_one_after_the_other() -> None:
    f, g = (1, 2, 0), (0, 0, 1)
    assert operators.composed(f, g) == tuple(g[f[x]] for x in range(3))


@pytest.mark.parametrize("case", operators.CASES, ids=lambda case: case.name)
def test_associative_operators_give_one_result_in_any_chunks(
    case: operators.Case[Any],
) -> None:
    """What the table says is what reductions in parts and in threads do."""
    samples = case.samples[-5:]
    results = operators.bracketings(case.combine, samples)
    assert (operators.n_distinct(results) == 1) is case.associative


# -- example05


@pytest.mark.parametrize("n", [1, 2, 1023, 1024, 1025, 5000])
def test_values_and_their_sum(n: int) -> None:
    assert blocks.values(0, n).tolist() == [i % 1024 for i in range(n)]
    assert blocks.values(3, 3).tolist() == []
    assert blocks.sum_of_values(n) == sum(i % 1024 for i in range(n))


@given(st.integers(0, 10_000), st.integers(1, 100))
def test_ranges_cover_all_numbers_once(length: int, n_parts: int) -> None:
    for parts in (
        blocks.split(length, n_parts),
        speedups.split(range(length), n_parts),
    ):
        assert [i for part in parts for i in part] == list(range(length))
        sizes = [len(part) for part in parts]
        assert len(parts) == n_parts
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(("n_workers", "length"), [(1, 1), (3, 2), (2, 100_001)])
def test_workers_fill_and_add_up_a_block(
    n_workers: int, length: int, start_method: str
) -> None:
    parts = blocks.split(length, n_workers)
    with (
        leaving_no_child(),
        blocks.shared_block(8 * length) as block,
        blocks.workers_at(block, n_workers) as team,
    ):
        for worker, part in zip(team, parts, strict=True):
            worker.ask(functools.partial(blocks.fill, first=part.start), part)
        for worker in team:
            worker.answer()
        written = blocks.view(block, range(length)).tolist()
        assert written == [i % 1024 for i in range(length)]
        for job in (blocks.total, blocks.plain_total):
            answers = blocks.by_workers(team, job, parts)
            assert answers == [sum(written[p.start : p.stop]) for p in parts]
        arrays = [blocks.values(0, n) for n in range(n_workers)]
        sums = blocks.by_workers(team, blocks.total, arrays)
        assert sums == [n * (n - 1) / 2 for n in range(n_workers)]


def test_a_block_is_filled_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "AT_ONCE", 700)
    numbers = np.empty(3000)
    blocks.fill(numbers, 500)
    assert numbers.tolist() == [i % 1024 for i in range(500, 3500)]


def test_jobs_with_an_array() -> None:
    numbers = np.array([3.0, -4.0, 1.0])
    assert blocks.total(numbers) == blocks.plain_total(numbers) == 0
    assert blocks.largest(numbers) == 3
    assert blocks.squares(numbers) == 26
    assert blocks.largest(numbers[:0]) == -math.inf


def block_is_there(name: str) -> bool:
    try:
        SharedMemory(name).close()
    except FileNotFoundError:
        return False
    return True


@pytest.mark.parametrize("module", [blocks, speedups])
def test_a_block_is_removed_also_when_a_view_is_in_the_traceback(
    module: ModuleType,
) -> None:
    def interrupted(block: SharedMemory) -> None:
        numbers = module.view(block, range(3, 5))
        numbers[:] = 1
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), module.shared_block(80) as block:
        assert block_is_there(block.name)
        interrupted(block)
    assert not block_is_there(block.name)
    assert block.buf is None


def test_a_view_that_is_kept_is_noticed_and_the_block_removed_all_the_same() -> None:
    with pytest.raises(BufferError), blocks.shared_block(80) as block:
        kept = blocks.view(block, range(10))
    assert not block_is_there(block.name)
    assert kept.tolist() == [0] * 10  # what can be used is still there
    del kept
    block.close()


def test_a_block_cannot_be_closed_while_there_is_a_view(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with blocks.shared_block(8) as block:
        assert blocks.close_is_refused(block)
    with blocks.shared_block(8) as block:
        monkeypatch.setattr(blocks, "view", lambda *_: None)
        assert not blocks.close_is_refused(block)


def test_views_are_no_copies() -> None:
    with blocks.shared_block(80) as block:
        blocks.view(block, range(10))[:] = np.arange(10)
        assert blocks.view(block, range(3, 6)).tolist() == [3, 4, 5]
        blocks.view(block, range(4, 5))[:] = 0
        assert blocks.view(block, range(3, 6)).tolist() == [3, 0, 5]
        assert blocks.view(block, range(10, 10)).tolist() == []


@pytest.mark.parametrize("module", [blocks, speedups])
def test_a_worker_that_dies_is_noticed(
    module: ModuleType, start_method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as stack:
        stack.enter_context(leaving_no_child())
        stack.enter_context(pytest.raises(ChildProcessError, match="exit code 3"))
        team: Sequence[Any]
        if module is blocks:
            block = stack.enter_context(blocks.shared_block(80))
            team = stack.enter_context(blocks.workers_at(block, 2))
        else:
            team = stack.enter_context(speedups.team_of(2))
        module.by_workers(team, exit_with_3, [range(5), range(5, 10)])


@pytest.mark.parametrize("module", [blocks, speedups])
def test_a_worker_that_has_died_is_noticed_when_asked(module: ModuleType) -> None:
    with ExitStack() as stack:
        stack.enter_context(leaving_no_child())
        if module is blocks:
            block = stack.enter_context(blocks.shared_block(80))
            both: Sequence[Any] = stack.enter_context(blocks.workers_at(block, 2))
        else:
            both = stack.enter_context(speedups.team_of(2))
        team = both[:1]  # the first one's pipe must not be kept open by the second
        team[0].process.terminate()
        team[0].process.join()
        large = [bytes(1_000_000)]  # more than a pipe holds: to send it would block
        for _ in range(2):
            with pytest.raises(ChildProcessError, match="exit code"):
                module.by_workers(team, len, [large])


def test_how_much_shared_memory_there_is() -> None:
    room = blocks.room_for_shared_memory()
    assert 0 <= room < 2**60
    if sys.platform == "linux":
        assert room <= shutil.disk_usage("/dev/shm").total
        assert room <= psutil.virtual_memory().total


# -- example06


@pytest.mark.parametrize(
    ("most", "counts"),
    [(2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (12, [1, 2, 4, 8, 12])],
)
def test_numbers_of_workers(most: int, counts: list[int]) -> None:
    assert speedups.worker_counts(most) == counts


@given(st.floats(1e-6, 1), st.integers(2, 100))
def test_at_break_even_both_take_the_same_time(overhead: float, n: int) -> None:
    loop = speedups.break_even(overhead, n)
    assert overhead + loop / n == pytest.approx(loop)
    assert speedups.break_even(overhead, 1) == math.inf


def test_reductions_by_workers_equal_the_loop(start_method: str) -> None:
    with leaving_no_child(), speedups.team_of(3) as team:
        join = functools.partial(functools.reduce, operator.add)
        letters = [chr(0x4E00 + i) for i in range(1000)]
        answers = speedups.by_workers(team, join, letters)
        assert "".join(answers) == "".join(letters)
        assert [len(answer) for answer in answers] == [333, 333, 334]
        assert 0 < speedups.overhead(team) < LIMIT


def test_a_shared_array_is_added_up_by_workers(start_method: str) -> None:
    with speedups.shared_block(800) as block, speedups.team_of(2) as team:
        speedups.view(block, range(100))[:] = np.arange(100)
        assert speedups.sum_in(block, range(10, 20)) == sum(range(10, 20))
        job = functools.partial(speedups.sum_of_part, block.name)
        assert speedups.by_workers(team, job, range(100)) == [1225, 3725]


def test_measured_are_the_largest_sizes_by_every_team(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(speedups, "by_workers", lambda _, job, items: [job(items)])
    one = speedups.Reduction("sum", sum, sum, operator.add, range(10_000))
    curves = speedups.measure(one, {1: [], 2: []})
    sizes = [100, 316, 1000, 3162, 10_000]
    assert list(curves.loop) == list(curves.gains[1]) == list(curves.gains[2]) == sizes
    wrong = speedups.Reduction("wrong", sum, len, operator.add, range(10_000))
    with pytest.raises(ValueError, match="wrong, 100 items: the results differ"):
        speedups.measure(wrong, {1: []})


@pytest.mark.parametrize("most", [2, 8])
def test_gains_are_drawn(most: int, tmp_path: Path) -> None:
    sizes = [100, 1000, 10_000]
    loop = {size: size * 1e-7 for size in sizes}
    gains = {n: dict.fromkeys(sizes, n / 2) for n in speedups.worker_counts(most)}
    curves = {name: speedups.Curves(loop, gains) for name in "abc"}
    speedups.plot(curves, 1e-4, tmp_path / "gains.png")
    assert (tmp_path / "gains.png").read_bytes().startswith(b"\x89PNG")


# -- what the scripts have in common


@pytest.mark.parametrize(
    ("module", "arguments", "words"),
    [
        (trees, "--runs 0", "--runs: must be at least 1, not 0"),
        (trees, "--items 0", "--items: must be at least 1, not 0"),
        (trees, "--items x", "--items: invalid positive value: 'x'"),
        (trees, "--workers 62", "--workers: must be at most 61, not 62"),
        (pools, "--workers 0", "--workers: must be at least 1, not 0"),
        (pools, "--chunks -1", "--chunks: must be at least 1, not -1"),
        (pools, "--items 0", "--items: must be at least 1, not 0"),
        (blocks, "--workers 0", "--workers: must be at least 1, not 0"),
        (blocks, "--elements 0", "--elements: must be at least 1, not 0"),
        (blocks, f"--elements {10**15}", "--elements: .* bytes of shared memory"),
        (speedups, "--workers 1", "--workers: must be in 2 … 61, not 1"),
        (speedups, "--workers 62", "--workers: must be in 2 … 61, not 62"),
        (speedups, "--plot x.txt", "--plot: must end in .png"),
    ],
)
def test_bad_values_are_named(
    module: ModuleType, arguments: str, words: str, complaint: Callable[..., str]
) -> None:
    assert re.search(words, complaint(module, *arguments.split()))


class Unordered(TreeReducer[T]):
    def reduce(self, items: Iterable[Any], *initial: Any, **pairs: int) -> Any:
        items = sorted(items, reverse=True)
        return super().reduce(items, *initial, **pairs)


class OffByOne(TreeReducer[T]):
    def reduce(self, items: Iterable[Any], *initial: Any, **pairs: int) -> Any:
        result = super().reduce(items, *initial, **pairs)
        return result + 1 if isinstance(result, int) else result


class Tolerant(TreeReducer[T]):
    def reduce(self, items: Iterable[Any], *initial: Any, **pairs: int) -> Any:
        with suppress(ZeroDivisionError):
            return super().reduce(items, *initial, **pairs)


SUBTRACTION = operators.Case("subtraction", operator.sub, [0, 1], True, False)
NO_ONE = operators.Case("product", operator.mul, [0, 1, 2], True, True, 0)


@pytest.mark.parametrize(
    ("module", "name", "replacement", "arguments", "claim"),
    [
        (trees, "order_of_item_and_sentinel", lambda: [7, None], "", "to overtake"),
        (trees, "TreeReducer", Unordered, "", "2 strings were joined in another"),
        (trees, "TreeReducer", OffByOne, "", "run 0: 1 is not the sum"),
        (trees, "TreeReducer", Tolerant, "--runs 1", "went unnoticed"),
        (trees, "multiprocessing.active_children", lambda: [1], "--runs 1", "was left"),
        (pools, "map_reduce", lambda *_: "", "", "in another order"),
        (operators, "CASES", [SUBTRACTION], "", "subtraction: not as said"),
        (operators, "CASES", [NO_ONE], "", "product: 0 changes something"),
        (blocks, "sum_of_values", lambda _: 0.5, "--elements 99", "is not the sum"),
        (blocks, "close_is_refused", lambda _: False, "--elements 99", "be refused"),
    ],
)
def test_a_claim_that_does_not_show_fails_the_script(
    module: ModuleType,
    name: str,
    replacement: object,
    arguments: str,
    claim: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{module.__name__}.{name}", replacement)
    monkeypatch.setattr(sys, "argv", ["script", *arguments.split()])
    with pytest.raises(SystemExit, match=claim):
        module.main()
