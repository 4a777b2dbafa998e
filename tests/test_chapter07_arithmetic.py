"""Chapter 7, examples 4 and 7 to 10: the parts a reader would copy."""

import math
import operator
import re
import statistics
import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from fractions import Fraction
from functools import partial, reduce
from itertools import accumulate, pairwise
from multiprocessing.shared_memory import SharedMemory
from random import Random
from types import ModuleType
from typing import Any

import pytest
from child_tasks import cannot_tell, die
from hypothesis import given
from hypothesis import strategies as st

from Chapter07 import example04_mean_and_variance as moments
from Chapter07 import example07_floating_point_sums as sums
from Chapter07 import example08_word_count as counts
from Chapter07 import example09_prefix_sum as scans
from Chapter07 import example10_stream_compaction as compaction
from Chapter07.example04_mean_and_variance import Mean, Moments, Squares
from Chapter07.example10_stream_compaction import Cells


class Backwards(Executor):
    """Runs each task in this process, and those of a `map` from the last to the first.

    So whoever relies on the order of the tasks is found out.
    """

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future

    def map(self, fn: Any, *iterables: Any, **_: Any) -> Iterator[Any]:
        tasks = list(zip(*iterables, strict=False))
        return iter([fn(*task) for task in reversed(tasks)][::-1])


def cut_at(items: Sequence[Any], cuts: Sequence[int]) -> list[Any]:
    ends = [0, *sorted(min(cut, len(items)) for cut in cuts), len(items)]
    return [items[a:b] for a, b in pairwise(ends)]


any_cuts = st.lists(st.integers(0, 30), max_size=5)

# -- example04

fractions = st.fractions(-1000, 1000, max_denominator=100)


def of_fractions(numbers: Sequence[Fraction]) -> Moments:
    """Fractions round nothing, so that the laws hold exactly."""
    return Moments.of(numbers)  # type: ignore[arg-type]


@given(st.lists(fractions, min_size=1, max_size=30), any_cuts)
def test_moments_of_any_cut_are_those_of_the_whole(
    numbers: list[Fraction], cuts: list[int]
) -> None:
    merged = sum(map(of_fractions, cut_at(numbers, cuts)), Moments())
    assert merged == of_fractions(numbers)
    assert merged.count == len(numbers)
    assert merged.mean == statistics.mean(numbers)
    assert merged.variance() == statistics.pvariance(numbers)


@given(*[st.lists(fractions, max_size=5)] * 3)
def test_moments_are_merged_associatively_with_an_identity(
    a: list[Fraction], b: list[Fraction], c: list[Fraction]
) -> None:
    x, y, z = map(of_fractions, (a, b, c))
    assert (x + y) + z == x + (y + z)
    assert x + y == y + x
    assert x + Moments() == Moments() + x == x


@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=30),
    st.integers(-(10**9), 10**9),
    any_cuts,
)
def test_rounding_moments_stays_within_the_bound(
    thousandths: list[int], offset: int, cuts: list[int]
) -> None:
    numbers = [offset + number / 1000 for number in thousandths]
    n, exact = len(numbers), statistics.pvariance(numbers)
    merged = sum(map(Moments.of, cut_at(numbers, cuts)), Moments())
    rounding, mean = n * sys.float_info.epsilon, statistics.fmean(numbers)
    bound = rounding * math.sqrt(exact * (exact + mean**2)) + (rounding * mean) ** 2
    assert abs(merged.variance() - exact) <= 2 * bound
    assert merged.mean == pytest.approx(mean, rel=1e-9, abs=1e-3)


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1), any_cuts)
def test_pairs_of_any_cut_give_the_mean(numbers: list[int], cuts: list[int]) -> None:
    pairs = sum(map(Mean.of, cut_at(numbers, cuts)), Mean())
    assert pairs.value() == statistics.fmean(numbers)


def test_means_of_unequal_chunks_are_not_the_mean() -> None:
    chunks = [[1.0], [2.0, 6.0]]
    assert statistics.fmean(map(statistics.fmean, chunks)) == 2.5
    assert sum(map(Mean.of, chunks), Mean()).value() == 3


@pytest.mark.parametrize("offset", [0, 10**9])
def test_far_from_zero_only_deviations_are_right(offset: int) -> None:
    numbers = [offset + number for number in (4.0, 7.0, 13.0, 16.0)]
    chunks = [numbers[:1], [], numbers[1:]]
    by_deviations = sum(map(Moments.of, chunks), Moments())
    by_squares = sum(map(Squares.of, chunks), Squares())
    assert by_deviations.variance() == 22.5
    assert by_squares.variance() == (-128 if offset else 22.5)


def test_no_numbers_have_neither_mean_nor_variance() -> None:
    assert Moments.of([]) == Moments() + Moments() == Moments()
    assert Mean.of([]) == Mean() + Mean() == Mean()
    with pytest.raises(ValueError, match="no mean"):
        Mean().value()
    with pytest.raises(ValueError, match="no variance"):
        Moments().variance()


def test_processes_merge_moments(start_method: str) -> None:
    numbers = [1e6 + n % 7 for n in range(1000)]
    with moments.process_pool(2) as pool:
        parts = list(pool.map(Moments.of, moments.split(numbers, 7)))
        parts += pool.map(Moments.of, [[], []])
    assert parts == list(map(Moments.of, [*moments.split(numbers, 7), [], []]))
    exact = statistics.pvariance(numbers)
    assert sum(parts, Moments()).variance() == pytest.approx(exact, rel=1e-9)


def test_a_call_that_ctrl_c_cut_short_does_not_keep_the_pool_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def put(_: object) -> None:
        raise KeyboardInterrupt

    def submit() -> None:
        with moments.process_pool(1) as pool:
            # The call is noted, but no process can be told of it any more.
            monkeypatch.setattr(vars(pool)["_work_ids"], "put", put)
            pool.submit(abs, -1)

    with pytest.raises(KeyboardInterrupt):
        submit()


# -- example04, example07 and example09


@pytest.mark.parametrize("module", [moments, sums, scans])
@given(items=st.lists(st.integers()), n_chunks=st.integers(1, 20))
def test_chunks_are_the_items_cut_into_nearly_equal_parts(
    module: Any, items: list[int], n_chunks: int
) -> None:
    chunks = module.split(items, n_chunks)
    assert [item for chunk in chunks for item in chunk] == items
    sizes = [len(chunk) for chunk in chunks]
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    expected = n_chunks if module is not scans else min(n_chunks, len(items))
    assert len(chunks) == expected


@pytest.mark.parametrize("module", [moments, sums, scans])
def test_there_must_be_a_chunk(module: Any) -> None:
    for n_chunks in (0, -1):
        with pytest.raises(ValueError, match=f"at least 1 chunk, not {n_chunks}"):
            module.split([1, 2], n_chunks)


# -- example07

floats = st.floats(-1e100, 1e100)
SUMS = [
    sums.naive_sum,
    sums.pairwise_sum,
    sums.kahan_sum,
    sums.neumaier_sum,
    sums.numpy_sum,
]


@pytest.mark.parametrize("sum_of", SUMS)
@given(numbers=st.lists(st.integers(-(2**40), 2**40), max_size=40))
def test_whole_numbers_are_summed_exactly(
    sum_of: Callable[[Sequence[float]], float], numbers: list[int]
) -> None:
    assert sum_of(numbers) == sum(numbers)
    assert sum_of([]) == 0


@given(st.lists(floats, min_size=1, max_size=40))
def test_no_sum_is_further_off_than_its_bound(numbers: list[float]) -> None:
    exact = sum(map(Fraction, numbers), Fraction())
    size = sum((abs(Fraction(number)) for number in numbers), Fraction())
    n, u = len(numbers), Fraction(sums.ROUNDING)

    def error(total: float) -> Fraction:
        return abs(Fraction(total) - exact)

    def bound(additions: int) -> Fraction:
        return Fraction(sums.error_bound(additions, 1.001)) * size

    assert error(sums.naive_sum(numbers)) <= bound(n - 1)
    assert error(sums.pairwise_sum(numbers)) <= bound((n - 1).bit_length())
    assert error(sums.kahan_sum(numbers)) <= bound(2)
    assert error(sums.neumaier_sum(numbers)) <= u * abs(exact) + (n * u) ** 2 * size * 2


def test_what_the_order_of_additions_makes_of_four_numbers() -> None:
    numbers = [1e16, 1.0, -1e16, 1.0]
    assert sums.naive_sum(numbers) == 1  # the first 1 is lost
    assert sums.pairwise_sum(numbers) == 0  # both are
    assert sums.neumaier_sum(numbers) == 2


def test_kahan_makes_up_in_the_next_addition_for_what_one_has_lost() -> None:
    numbers = [1e16, 1.0, 1.0, -1e16]
    assert sums.naive_sum(numbers) == 0
    assert sums.kahan_sum(numbers) == sums.neumaier_sum(numbers) == 2


def test_kahan_forgets_what_a_larger_number_pushes_out_neumaier_does_not() -> None:
    numbers = [1.0, 1e100, 1.0, -1e100]
    assert sums.kahan_sum(numbers) == 0
    assert sums.neumaier_sum(numbers) == 2


@given(st.lists(floats, max_size=30), any_cuts, st.randoms(use_true_random=False))
def test_exact_parts_do_not_depend_on_cut_and_order(
    numbers: list[float], cuts: list[int], random: Random
) -> None:
    whole = sums.exact_parts(numbers)
    assert sum(map(Fraction, whole)) == sum(map(Fraction, numbers))
    assert math.fsum(whole) == math.fsum(numbers)
    chunks = [sums.exact_parts(chunk) for chunk in cut_at(numbers, cuts)]
    random.shuffle(chunks)
    merged: list[float] = reduce(sums.merge, chunks)
    assert merged == whole


@given(*[st.lists(floats, max_size=5)] * 3)
def test_exact_parts_are_merged_associatively_with_an_identity(
    a: list[float], b: list[float], c: list[float]
) -> None:
    x, y, z = map(sums.exact_parts, (a, b, c))
    assert sums.merge(sums.merge(x, y), z) == sums.merge(x, sums.merge(y, z))
    assert sums.merge(x, []) == sums.merge([], x) == x


def test_exact_parts_hold_what_one_float_cannot() -> None:
    assert sums.exact_parts([1.0, 1e100, 5e-324]) == [1e100, 1.0, 5e-324]
    assert sums.exact_parts([0.1, -0.1, -0.0]) == []


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_only_finite_numbers_have_exact_parts(number: float) -> None:
    with pytest.raises(ValueError, match="only finite"):
        sums.exact_parts([1.0, number])
    with pytest.raises(OverflowError):
        sums.exact_parts([1e308, 1e308])


def test_the_series_is_always_the_same_and_ill_conditioned() -> None:
    numbers = sums.ill_conditioned(1000, Random(3))
    assert numbers == sums.ill_conditioned(1000, Random(3))
    assert numbers != sums.ill_conditioned(1000, Random(4))
    assert len(numbers) == 1000
    assert sums.condition_number(numbers) > 1e9
    assert 0 < math.fsum(numbers) < 200  # of the 200 numbers that do not cancel out


def test_condition_numbers_that_are_known() -> None:
    assert sums.condition_number([1.0, 2.0]) == 1
    assert sums.condition_number([3.0, -2.0]) == 5
    with pytest.raises(ZeroDivisionError):
        sums.condition_number([1.0, -1.0])


def test_the_cut_changes_a_naive_sum_and_not_an_exact_one(start_method: str) -> None:
    numbers = sums.ill_conditioned(1000, Random(1))
    naive = set()
    with sums.process_pool(2) as pool:
        for n_chunks in (1, 2, 3, 100):
            chunks = sums.split(numbers, n_chunks)
            naive.add(sums.naive_sum(list(pool.map(sums.naive_sum, chunks))))
            parts = reduce(sums.merge, pool.map(sums.exact_parts, chunks))
            assert parts == sums.exact_parts(numbers)
    assert len(naive) > 1


# -- example08

# Letters of one and more bytes, some that change their length when their case is
# folded, one that looks at its neighbours, and what is between words.
texts = st.text(st.sampled_from("aB9_éßΣİŉ中𝒳 \n'-\u0301"), max_size=40)


@given(texts | st.text(max_size=40), st.integers(1, 60))
def test_words_of_the_parts_are_those_of_the_whole(text: str, n_parts: int) -> None:
    cuts = counts.cuts_between_words(text, n_parts)
    parts = [counts.words_in(text[a:b]) for a, b in pairwise(cuts)]
    assert sum(parts, Counter[str]()) == counts.words_in(text)
    assert len(parts) == n_parts
    assert (cuts[0], cuts[-1]) == (0, len(text))
    assert cuts == sorted(cuts)


@given(texts, st.integers(1, 60))
def test_a_cut_is_moved_only_to_the_end_of_the_word_it_tore(
    text: str, n_parts: int
) -> None:
    for equal, cut in zip(
        counts.equal_cuts(text, n_parts),
        counts.cuts_between_words(text, n_parts),
        strict=True,
    ):
        torn = re.search(r"\w\Z", text[:equal]) and re.match(r"\w+", text[equal:])
        assert cut == equal + (len(torn[0]) if torn else 0)


def test_a_word_longer_than_a_part_leaves_parts_empty() -> None:
    assert counts.cuts_between_words("a" * 10 + " b", 6) == [0, 10, 10, 10, 10, 10, 12]


def test_equal_parts_make_two_words_of_one() -> None:
    assert counts.equal_cuts("abcd", 2) == [0, 2, 4]
    with ThreadPoolExecutor(1) as pool:
        torn = counts.count_in_parts(pool, lambda: "abcd", [0, 2, 4])
    assert torn == Counter(["ab", "cd"])


def test_case_does_not_make_another_word() -> None:
    assert counts.words_in("Straße, STRASSE! don't") == {"strasse": 2, "don": 1, "t": 1}
    assert len(counts.words_in("İstanbul")) == 1  # its small letters are no word of \w+


def test_processes_count_the_words_of_the_topics(start_method: str) -> None:
    load = partial(counts.topics_text, 2)
    words = Counter(map(str.casefold, re.findall(r"\w+", load())))
    assert words["the"] > 1000
    with counts.process_pool(2) as pool:
        for n_parts in (1, 5):
            cuts = counts.cuts_between_words(load(), n_parts)
            assert counts.count_in_parts(pool, load, cuts) == words


def test_the_text_repeated_has_each_word_so_many_times() -> None:
    once, thrice = (counts.words_in(counts.topics_text(n)) for n in (1, 3))
    assert thrice == {word: 3 * n for word, n in once.items()}


# -- example09

OPERATORS: dict[str, tuple[Callable[[Any, Any], Any], Any, st.SearchStrategy[Any]]] = {
    "addition": (operator.add, 0, st.integers()),
    "maximum": (max, -math.inf, st.integers()),
    "concatenation": (operator.add, "", st.text(max_size=2)),
    "matrices": (
        scans.matrix_product,
        scans.ONE,
        st.tuples(*[st.integers(0, scans.MODULUS - 1)] * 4),
    ),
}
every_operator = pytest.mark.parametrize("name", OPERATORS)


@every_operator
@given(data=st.data())
def test_scans_give_the_running_totals(name: str, data: st.DataObject) -> None:
    op, identity, items_of = OPERATORS[name]
    items = data.draw(st.lists(items_of, max_size=40))
    before = tuple(items)
    totals = list(accumulate(items, op))
    assert scans.inclusive_scan(items, op, identity) == totals
    assert scans.hillis_steele_scan(items, op) == totals
    assert (
        scans.exclusive_scan(items, op, identity) == [identity, *totals][: len(items)]
    )
    assert tuple(items) == before


@every_operator
@given(data=st.data(), n_chunks=st.integers(1, 12))
def test_a_scan_in_chunks_gives_the_running_totals(
    name: str, data: st.DataObject, n_chunks: int
) -> None:
    op, identity, items_of = OPERATORS[name]
    items = data.draw(st.lists(items_of, max_size=40))
    scanned = scans.scan_in_chunks(Backwards(), items, op, identity, n_chunks)
    assert scanned == list(accumulate(items, op))


@pytest.mark.parametrize("n", [*range(1, 140), 1000, 1023, 1024, 1025])
def test_every_length_is_scanned_with_the_work_and_span_stated(n: int) -> None:
    totals = list(accumulate(range(n)))
    levels = (n - 1).bit_length()
    before, work, span = scans.work_and_span(
        lambda items, op: scans.exclusive_scan(items, op, (0, 0)), n
    )
    assert before == [0, *totals[:-1]]
    assert work == 2 * n - 1 - n.bit_count()
    assert span <= 2 * levels
    assert scans.work_and_span(scans.hillis_steele_scan, n) == (
        totals,
        n * levels - 2**levels + 1,
        levels,
    )
    assert scans.work_and_span(accumulate, n) == (totals, n - 1, n - 1)


def test_a_scan_in_chunks_deals_with_each_item_at_most_twice() -> None:
    applied = 0

    def add(a: int, b: int) -> int:
        nonlocal applied
        applied += 1
        return a + b

    scans.scan_in_chunks(Backwards(), range(300), add, 0, 3)
    # 100 items scanned, 100 reduced; 1 offset; 200 items scanned
    assert applied == 100 + 99 + 1 + 200


def test_processes_scan(start_method: str) -> None:
    letters = [chr(97 + n % 26) for n in range(100)]
    with scans.process_pool(2) as pool:
        for n in (0, 1, 2, 3, 99, 100):
            items = letters[:n]
            scanned = scans.scan_in_chunks(pool, items, operator.add, "", 3)
            assert scanned == list(accumulate(items))


# -- example10


@pytest.fixture(autouse=True)
def _forget_attached_blocks() -> Iterator[None]:
    yield
    compaction.attached.cache_clear()


def in_a_block(
    executor: Executor,
    condition: Callable[[int], bool],
    numbers: Sequence[int],
    n_chunks: int,
) -> tuple[list[int], list[int]]:
    """Return the offsets, and all cells of the result."""
    n = len(numbers)
    with compaction.shared_block(Cells.size(n)) as block:
        cells = Cells(block, n)
        compaction.fill(cells, array("q", numbers))
        offsets = compaction.compact(executor, condition, cells, n_chunks)
        return offsets, cells.results(0, n).tolist()


def is_even(number: int) -> bool:
    return number % 2 == 0


@given(
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=60),
    st.integers(1, 70),
)
def test_survivors_are_written_in_order_by_any_number_of_chunks(
    numbers: list[int], n_chunks: int
) -> None:
    offsets, result = in_a_block(Backwards(), is_even, numbers, n_chunks)
    expected = list(filter(is_even, numbers))
    unused = [compaction.UNUSED] * (len(numbers) - len(expected))
    assert result == expected + unused
    assert len(offsets) == n_chunks + 1
    assert (offsets[0], offsets[-1]) == (0, len(expected))


@pytest.mark.parametrize("n_chunks", [1, 2, 3, 7, 200])
def test_every_cell_is_written_once(
    monkeypatch: pytest.MonkeyPatch, n_chunks: int
) -> None:
    writes: Counter[int] = Counter()
    compact_chunk = compaction.compact_chunk

    def write_and_count(
        name: str, n: int, start: int, stop: int, first: int, end: int
    ) -> None:
        writes.update(range(first, end))
        compact_chunk(name, n, start, stop, first, end)

    monkeypatch.setattr(compaction, "compact_chunk", write_and_count)
    in_a_block(Backwards(), is_even, range(100), n_chunks)
    assert writes == dict.fromkeys(range(50), 1)


def test_a_condition_need_not_say_true() -> None:
    def third_bit(number: int) -> int:
        return number & 4

    offsets, result = in_a_block(Backwards(), third_bit, range(10), 3)  # type: ignore[arg-type]
    assert (offsets[-1], result[:4]) == (4, [4, 5, 6, 7])


@pytest.mark.parametrize("end", [1, 3])
def test_a_chunk_that_does_not_fit_its_cells_is_refused(end: int) -> None:
    with compaction.shared_block(Cells.size(4)) as block:
        compaction.fill(Cells(block, 4), array("q", range(4)))
        assert compaction.flag_chunk(is_even, block.name, 4, 0, 4) == 2
        with pytest.raises(ValueError, match="different structures"):
            compaction.compact_chunk(block.name, 4, 0, 4, 0, end)


def test_processes_compact(start_method: str) -> None:
    numbers = compaction.scattered(2000)
    primes = list(filter(compaction.is_prime, numbers))
    with compaction.process_pool(2) as pool:
        for n_chunks in (1, 5):
            offsets, result = in_a_block(pool, compaction.is_prime, numbers, n_chunks)
            assert result[: offsets[-1]] == primes


def test_a_worker_that_dies_is_an_error_and_the_block_is_removed(
    start_method: str,
) -> None:
    with (
        pytest.raises(BrokenProcessPool),
        compaction.shared_block(Cells.size(10)) as block,
        compaction.process_pool(2) as pool,
    ):
        compaction.compact(pool, die, Cells(block, 10), 2)
    assert is_gone(block.name)


def test_the_numbers_to_filter_are_all_different_and_in_no_order() -> None:
    numbers = compaction.scattered(10_000).tolist()
    assert len(set(numbers)) == 10_000
    assert 0 <= min(numbers) <= max(numbers) < compaction.BELOW
    rises = sum(a < b for a, b in pairwise(numbers))
    assert 4000 < rises < 6000


def is_gone(name: str) -> bool:
    try:
        SharedMemory(name).close()
    except FileNotFoundError:
        return True
    return False


def test_the_block_is_removed_when_a_condition_fails_in_a_process(
    start_method: str,
) -> None:
    with (
        pytest.raises(ArithmeticError, match="cannot tell for 0"),
        compaction.shared_block(Cells.size(100)) as block,
        compaction.process_pool(2) as pool,
    ):
        compaction.compact(pool, cannot_tell, Cells(block, 100), 2)
    assert is_gone(block.name)


def test_the_block_is_removed_when_an_exception_leaves_a_function_with_a_view() -> None:
    def be_interrupted(cells: Cells) -> None:
        view = cells.numbers(0, 10)
        raise KeyboardInterrupt(len(view))

    with (
        pytest.raises(KeyboardInterrupt, match="10"),
        compaction.shared_block(Cells.size(10)) as block,
    ):
        be_interrupted(Cells(block, 10))
    assert is_gone(block.name)


def test_who_keeps_a_view_is_told_and_the_block_has_no_name_any_more() -> None:
    with (
        pytest.raises(BufferError),
        compaction.shared_block(Cells.size(10)) as block,
    ):
        view = Cells(block, 10).numbers(0, 10)
    assert is_gone(block.name)
    assert len(view) == 10
    del view
    block.close()


def test_results_and_flags_lie_behind_the_numbers() -> None:
    with compaction.shared_block(Cells.size(3)) as block:
        cells = Cells(block, 3)
        cells.numbers(0, 3)[:] = array("q", [1, 1, 1])
        cells.results(0, 3)[:] = array("q", [2, 2, 2])
        cells.flags(0, 3)[:] = bytes([True, False, True])
        assert cells.numbers(0, 6).tolist() == [1, 1, 1, 2, 2, 2]
        assert cells.results(1, 3).tolist() == [2, 2]
        assert cells.flags(1, 3).tolist() == [0, 1]


# -- options


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        (moments, ["--chunks", "0"], "--chunks: must be 1 to 1000, not 0"),
        (moments, ["--chunks", "1001"], "--chunks: must be 1 to 1000, not 1001"),
        (sums, ["--seed", "0"], "--seed: must be at least 1, not 0"),
        (counts, ["--repeat", "0"], "--repeat: must be at least 1, not 0"),
        (counts, ["--parts", "-1"], "--parts: must be at least 1, not -1"),
        (counts, ["--workers", "62"], "--workers: must be at most 61, not 62"),
        (scans, ["--items", "0"], "--items: must be at least 1, not 0"),
        (scans, ["--workers", "0"], "--workers: must be at least 1, not 0"),
        (compaction, ["--numbers", "0"], "--numbers: must be at least 1, not 0"),
        (compaction, ["--numbers", "10000001"], "--numbers: must be at most"),
        (compaction, ["--workers", "x"], "--workers: invalid workers value: 'x'"),
    ],
)
def test_a_bad_option_is_one_clear_line(
    module: ModuleType,
    arguments: list[str],
    culprit: str,
    complaint: Callable[..., str],
) -> None:
    assert culprit in complaint(module, *arguments)
