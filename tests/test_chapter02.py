"""Chapter 2: the parts a reader would copy."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from Chapter02 import example01_measured_speedup_and_amdahl as measured
from Chapter02 import example02_amdahls_law as amdahl
from Chapter02 import example03_gustafsons_law as gustafson
from Chapter02 import example04_karp_flatt_metric as karp_flatt
from Chapter02 import example05_universal_scalability_law as usl

fractions = st.floats(0, 1)
processors = st.floats(1, 1e6)

# -- example02: Amdahl's law


@pytest.mark.parametrize(
    ("p", "n", "expected"),
    [
        (0.95, 8, 5.93),
        (0.95, 1024, 19.64),
        (0.95, math.inf, 20),
        (0.5, 2, 1.33),
        (0.9, 10, 5.26),
        (0.75, 4, 2.29),
        (0, 1000, 1),
        (1, 1000, 1000),
        (1, math.inf, math.inf),
        (0.5, 1, 1),
    ],
)
def test_known_values_of_amdahls_law(p: float, n: float, expected: float) -> None:
    assert amdahl.speedup(p, n) == pytest.approx(expected, abs=0.005)
    assert measured.amdahl(p, n) == amdahl.speedup(p, n)
    if n < math.inf:
        assert gustafson.amdahl_speedup(p, n) == pytest.approx(expected, abs=0.005)


@given(fractions, processors, processors)
def test_amdahls_law_never_falls_and_keeps_its_bounds(
    p: float, a: float, b: float
) -> None:
    few, many = sorted((a, b))
    assert 1 <= amdahl.speedup(p, few) <= amdahl.speedup(p, many) <= amdahl.limit(p)
    assert amdahl.limit(p) == (1 / (1 - p) if p < 1 else math.inf)
    assert amdahl.speedup(p, 1) == 1
    assert amdahl.speedup(p, many) <= many * (1 + 1e-9)


@given(fractions, fractions, processors)
def test_more_parallel_work_never_makes_it_slower(a: float, b: float, n: float) -> None:
    less, more = sorted((a, b))
    assert amdahl.speedup(less, n) <= amdahl.speedup(more, n)


@given(st.floats(0.01, 0.99), st.integers(1, 1000))
def test_processors_for_a_speedup_is_the_inverse(p: float, n: int) -> None:
    wanted = amdahl.speedup(p, n)
    assert amdahl.processors_for(p, wanted) == n


@pytest.mark.parametrize(
    ("p", "n"), [(0.5, 9), (0.75, 27), (0.9, 81), (0.95, 171), (0.99, 891)]
)
def test_processors_for_nine_tenths_of_the_limit(p: float, n: int) -> None:
    # 9 p / (1 - p), worked out on paper
    assert amdahl.processors_for(p, 0.9 * amdahl.limit(p)) == n


def test_processors_for_the_ends_of_the_range() -> None:
    assert amdahl.processors_for(0.5, 1) == 1
    assert amdahl.processors_for(0, 1) == 1
    assert amdahl.processors_for(1, 64) == 64
    assert amdahl.processors_for(1, 63.5) == 64
    for wanted in (0.5, 2, 2.001, math.inf, math.nan):
        with pytest.raises(ValueError, match=f"{wanted}"):
            amdahl.processors_for(0.5, wanted)


@pytest.mark.parametrize(
    ("serial", "tasks", "n", "end"),
    [(3, 0, 5, 3), (0, 10, 5, 2), (0, 11, 5, 3), (2, 4, 1, 6), (2, 4, 4, 3)],
)
def test_list_scheduling(serial: int, tasks: int, n: int, end: int) -> None:
    assert amdahl.makespan(serial, tasks, n) == end


def test_impossible_jobs_are_refused() -> None:
    for job in [(1, 1, 0), (-1, 1, 1), (1, -1, 1)]:
        with pytest.raises(ValueError, match="impossible job"):
            amdahl.makespan(*job)
    with pytest.raises(ValueError, match="at least 1: 0"):
        usl.simulate(0, in_rounds=True)
    with pytest.raises(ValueError, match="not 0"):
        measured.run_job(range(10), 1, None, 0)


def test_a_law_that_is_wrong_would_not_be_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert amdahl.confirm_by_scheduling() == (103, 117)
    monkeypatch.setattr(amdahl, "speedup", lambda p, n: 1 + p * (n - 1))
    with pytest.raises(ValueError, match="tasks on"):
        amdahl.confirm_by_scheduling()


# -- example03: Gustafson's law


@pytest.mark.parametrize(
    ("p", "n", "expected"),
    [
        (0.95, 8, 7.65),
        (0.95, 64, 60.85),
        (0.996, 1024, 1019.908),
        (0, 50, 1),
        (1, 50, 50),
        (0.3, 1, 1),
    ],
)
def test_known_values_of_gustafsons_law(p: float, n: float, expected: float) -> None:
    assert gustafson.scaled_speedup(p, n) == pytest.approx(expected, abs=1e-9)


@given(fractions, processors, processors)
def test_gustafsons_law_never_falls_and_is_never_below_amdahls(
    p: float, a: float, b: float
) -> None:
    few, many = sorted((a, b))
    assert gustafson.scaled_speedup(p, few) <= gustafson.scaled_speedup(p, many)
    assert gustafson.scaled_speedup(p, 1) == 1
    scaled = gustafson.scaled_speedup(p, many)
    assert amdahl.speedup(p, many) <= scaled * (1 + 1e-9)
    assert scaled <= many


@given(fractions, st.integers(1, 10**6))
def test_both_laws_agree_about_the_grown_job(p: float, n: int) -> None:
    of_work = gustafson.fraction_of_work(p, n)
    assert 0 <= of_work <= 1
    assert amdahl.speedup(of_work, n) == pytest.approx(
        gustafson.scaled_speedup(p, n), rel=1e-6
    )


def test_a_wrong_translation_would_not_be_reconciled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert gustafson.reconcile() == 10_000
    monkeypatch.setattr(gustafson, "fraction_of_work", lambda p, n: p)
    with pytest.raises(ValueError, match="disagree"):
        gustafson.reconcile()


# -- bad input to any of the laws


@pytest.mark.parametrize(
    "law",
    [
        measured.amdahl,
        amdahl.speedup,
        gustafson.scaled_speedup,
        gustafson.amdahl_speedup,
        gustafson.fraction_of_work,
    ],
)
@pytest.mark.parametrize(
    ("p", "n", "culprit"),
    [
        (-0.1, 2, "-0.1"),
        (1.1, 2, "1.1"),
        (math.nan, 2, "nan"),
        (0.5, 0, "0"),
        (0.5, 0.99, "0.99"),
        (0.5, -4, "-4"),
        (0.5, math.nan, "nan"),
    ],
)
def test_bad_input_is_named(law: object, p: float, n: float, culprit: str) -> None:
    with pytest.raises(ValueError, match=f": {culprit}$"):
        law(p, n)  # type: ignore[operator]


# -- example04: the Karp-Flatt metric


@pytest.mark.parametrize(
    ("speedup", "n", "e"),
    [
        (2, 2, 0),
        (1, 2, 1),
        (1, 64, 1),
        (1.82, 2, 0.099),
        (4.71, 8, 0.100),
        (0.5, 2, 3),
        (4, 2, -0.5),
    ],
)
def test_known_serial_fractions(speedup: float, n: int, e: float) -> None:
    assert karp_flatt.serial_fraction(speedup, n) == pytest.approx(e, abs=0.0005)


@given(st.floats(0, 1), st.integers(2, 10**6))
def test_the_metric_finds_the_serial_fraction_of_amdahls_law(p: float, n: int) -> None:
    e = karp_flatt.serial_fraction(amdahl.speedup(p, n), n)
    assert e == pytest.approx(1 - p, abs=1e-9)


@pytest.mark.parametrize(
    ("speedup", "n", "culprit"),
    [
        (1.5, 1, "1"),
        (1.5, 0, "0"),
        (1.5, math.nan, "nan"),
        (0, 2, "0"),
        (-1, 2, "-1"),
        (math.nan, 2, "nan"),
    ],
)
def test_impossible_measurements_are_named(
    speedup: float, n: Any, culprit: str
) -> None:
    with pytest.raises(ValueError, match=f": {culprit}$"):
        karp_flatt.serial_fraction(speedup, n)


def test_the_ray_tracer_settles_at_one_twentieth() -> None:
    speedups = karp_flatt.speedups(karp_flatt.RAY_TRACER)
    e = {n: karp_flatt.serial_fraction(s, n) for n, s in speedups.items() if n > 1}
    assert e[4] < e[8] < e[12] < e[16] < e[20]
    assert all(0.047 < e[n] < 0.056 for n in e if n >= 20)
    with pytest.raises(ValueError, match="on 1 processor"):
        karp_flatt.speedups({2: 5.0})
    with pytest.raises(ValueError, match="positive number: 0"):
        karp_flatt.speedups({1: 0, 2: 5.0})


def test_the_two_models_are_told_apart() -> None:
    counts = range(2, 65)
    serial = [
        karp_flatt.serial_fraction(karp_flatt.serial_part_only(n), n) for n in counts
    ]
    overhead = [
        karp_flatt.serial_fraction(karp_flatt.overhead_only(n), n) for n in counts
    ]
    assert serial == pytest.approx([0.05] * len(serial))
    assert overhead == pytest.approx([0.001 * n for n in counts])


# -- example05: the Universal Scalability Law


def test_known_values_of_the_universal_law() -> None:
    assert usl.Scalability(1, 0, 0).throughput(50) == 50
    assert usl.Scalability(3, 0, 0).throughput(1) == 3
    law = usl.Scalability(1, 0.05, 0)  # without coherency it is Amdahl's law
    assert law.throughput(8) == pytest.approx(amdahl.speedup(0.95, 8))
    assert law.peak == math.inf
    law = usl.Scalability(1, 0.1, 0.001)
    assert law.peak == pytest.approx(30)
    best = law.throughput(30)
    assert law.throughput(29) < best > law.throughput(31)
    assert usl.Scalability(1, 0.99, 0.5).peak == 1
    with pytest.raises(ValueError, match=r": 0$"):
        law.throughput(0)


def test_the_published_fit_is_found() -> None:
    law = usl.fit(list(usl.SPEC_SDM91), list(usl.SPEC_SDM91.values()))
    assert law.one == pytest.approx(89.9952, abs=1e-4)
    assert law.contention == pytest.approx(0.0277285, abs=1e-7)
    assert law.coherency == pytest.approx(0.0001044, abs=1e-7)
    assert law.peak == pytest.approx(96.52, abs=0.005)


def test_a_coefficient_that_would_be_negative_is_left_out() -> None:
    data = karp_flatt.RAY_TRACER
    law = usl.fit(list(data), list(data.values()))
    assert law.coherency == 0
    assert law.peak == math.inf
    # What the R package "usl" finds when it is told the same.
    assert law.one == pytest.approx(21.848843, abs=1e-6)
    assert law.contention == pytest.approx(0.057771, abs=1e-6)


@given(
    st.floats(1, 1000),
    st.floats(0, 0.2),
    st.floats(5e-4, 1e-2),
    st.integers(0, 10**6),
)
def test_known_coefficients_are_recovered_from_noisy_data(
    one: float, contention: float, coherency: float, seed: int
) -> None:
    """The data are within 1 % of the truth and cover the peak (9 to 45 processors)."""
    true = usl.Scalability(one, contention, coherency)
    rng = random.Random(seed)
    sizes = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128]
    noisy = [true.throughput(n) * rng.uniform(0.99, 1.01) for n in sizes]
    found = usl.fit(sizes, noisy)
    assert found.one == pytest.approx(one, rel=0.05)
    assert found.contention == pytest.approx(contention, abs=0.02)
    assert found.coherency == pytest.approx(coherency, rel=0.15)
    assert found.peak == pytest.approx(true.peak, rel=0.07)


@given(
    st.lists(
        st.tuples(st.integers(1, 200), st.floats(0.1, 1000)),
        min_size=3,
        max_size=8,
        unique_by=lambda pair: pair[0],
    )
)
@settings(max_examples=50)
def test_whatever_is_fitted_is_a_law_or_an_error(data: list[tuple[int, float]]) -> None:
    sizes, throughputs = zip(*data, strict=True)
    try:
        law = usl.fit(sizes, throughputs)
    except ValueError as error:
        assert "no such law" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert law.one > 0
        assert law.contention >= 0
        assert law.coherency >= 0


@pytest.mark.parametrize(
    ("sizes", "throughputs"),
    [
        ([1, 2, 4, 8, 16, 32], [100, 200, 380, 600, 300, 50]),
        ([1, 2, 6, 64], [1.4, 15.8, 17.9, 13.9]),
    ],
)
def test_a_step_that_goes_too_far_is_shortened(
    sizes: list[float], throughputs: list[float]
) -> None:
    law = usl.fit(sizes, throughputs)
    assert law.one > 0

    def error(law: usl.Scalability) -> float:
        return sum(
            (law.throughput(n) - x) ** 2
            for n, x in zip(sizes, throughputs, strict=True)
        )

    for factor in (0.9, 1.1):  # a minimum: no worse neighbours
        assert error(law) <= error(replace(law, one=law.one * factor))
        assert error(law) <= error(replace(law, coherency=law.coherency * factor))


@given(st.floats(0.1, 1e6), st.floats(0, 0.5), st.floats(1e-6, 0.1))
def test_exact_data_give_exact_coefficients(
    one: float, contention: float, coherency: float
) -> None:
    true = usl.Scalability(one, contention, coherency)
    sizes = [1, 2, 4, 8, 16, 32, 64]
    found = usl.fit(sizes, [true.throughput(n) for n in sizes])
    assert found.one == pytest.approx(one, rel=1e-6)
    assert found.contention == pytest.approx(contention, abs=1e-6)
    assert found.coherency == pytest.approx(coherency, rel=1e-4)


@pytest.mark.parametrize(
    ("sizes", "throughputs", "culprit"),
    [
        ([1, 2, 3], [1, 2], "3 sizes, but 2 throughputs"),
        ([1, 2], [1, 2], r"\[1, 2\]"),
        ([1, 2, 2], [1, 2, 3], r"\[1, 2, 2\]"),
        ([0, 1, 2], [1, 2, 3], "impossible size: 0"),
        ([1, 2, 3], [1, 0, 3], "impossible throughput: 0"),
        ([1, 2, 3], [1, -2, 3], "impossible throughput: -2"),
        ([1, 2, 3], [1, math.nan, 3], "impossible throughput: nan"),
        ([1, 2, math.inf], [1, 2, 3], "impossible size: inf"),
    ],
)
def test_measurements_that_cannot_be_are_named(
    sizes: list[float], throughputs: list[float], culprit: str
) -> None:
    with pytest.raises(ValueError, match=culprit):
        usl.fit(sizes, throughputs)


def test_the_simulated_machine_obeys_the_law_in_rounds_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(usl, "JITTER", 0.0)  # then Gunther's theorem holds exactly
    cost = usl.PRIVATE + usl.LOCKED
    law = usl.Scalability(1 / cost, usl.LOCKED / cost, usl.TELLING / cost)
    for n in (1, 2, 5, 10, 50, 100):
        assert usl.simulate(n, in_rounds=True) == pytest.approx(law.throughput(n))
        assert usl.simulate(n, in_rounds=False) >= law.throughput(n) * (1 - 1e-3)
    assert usl.simulate(32, in_rounds=False) > 1.5 * law.throughput(32)


def test_a_busy_lock_is_the_limit_of_a_machine_without_rounds() -> None:
    hold = usl.LOCKED + usl.TELLING * 255
    assert usl.simulate(256, in_rounds=False) == pytest.approx(1 / hold, rel=0.01)


# -- example01


def test_seals_depend_on_every_entry_and_their_order() -> None:
    entries = [2, 3, 5, 7]
    sealed = measured.seal(entries, 10)
    assert measured.seal(entries, 10) == sealed
    assert measured.seal([], 10) == b""
    others = [[2, 3, 5], [3, 2, 5, 7], [2, 3, 5, 8], [2, 3, 57]]
    assert sealed not in [measured.seal(other, 10) for other in others]
    assert measured.seal(entries, 9) != sealed


@pytest.mark.parametrize(
    ("most", "counts"),
    [
        (2, [2]),
        (3, [2, 3]),
        (4, [2, 3, 4]),
        (8, [2, 3, 4, 8]),
        (12, [2, 3, 4, 8, 12]),
        (64, [2, 3, 4, 8, 16, 32, 64]),
    ],
)
def test_numbers_of_workers_to_measure(most: int, counts: list[int]) -> None:
    assert measured.worker_counts(most) == counts


def test_a_pool_gives_the_same_answer() -> None:
    numbers = range(1000, 1200)
    alone = measured.run_job(numbers, 2)
    with measured.process_pool(2) as pool:
        shared = measured.run_job(numbers, 2, pool, 7)
    assert (
        shared.answer == alone.answer == measured.seal(measured.primes_in(numbers), 2)
    )


def test_different_answers_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(measured.Timing(1, 1, bytes([n])) for n in range(10))
    monkeypatch.setattr(measured, "run_job", lambda *_: next(answers))
    with pytest.raises(ValueError, match="different answers"):
        measured.fastest(range(1), 1, [None, None])


# -- what all of them have


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        (measured, ["--workers", "1"], "must be in 2 … 61, not 1"),
        (measured, ["--seal", "-1"], "must not be negative: -1"),
        (measured, ["--plot", "x"], "must end in .png, .svg or .pdf: x"),
        (amdahl, ["--plot", "nowhere/x.png"], "no such folder: nowhere"),
        (gustafson, ["--workers", "62"], "must be at most 61, not 62"),
        (karp_flatt, ["--serial", "101"], "must be in 0 … 100, not 101"),
        (usl, ["--fit-up-to", "3"], "must be at least 4, not 3"),
    ],
)
def test_bad_arguments_get_one_clear_line(
    module: ModuleType,
    arguments: list[str],
    culprit: str,
    complaint: Callable[..., str],
) -> None:
    assert culprit in complaint(module, *arguments)


def test_a_law_without_a_best_number_of_workers_is_drawn(tmp_path: Path) -> None:
    machine = {1: 1.0, 2: 1.9, 64: 20.0}
    law = usl.Scalability(1, 0.02, 0.0)
    usl.plot(machine, machine, law, 2, tmp_path / "law.png")
    assert (tmp_path / "law.png").read_bytes().startswith(b"\x89PNG")
