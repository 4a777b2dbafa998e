"""Chapter 16: what is measured of each structure, and how."""

import sys
import threading
from collections.abc import Callable

import example17_throughput as throughput
import pytest
from example03_how_a_locked_counter_scales import seconds_for
from in_process import no_thread_is_left

MAKES = [
    pytest.param(make, id=f"{what}: {name}")
    for what, makes in throughput.KINDS.items()
    for name, make in makes.items()
]


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("n_threads", [1, 4])
def test_each_thread_has_a_call_that_can_be_repeated(
    make: throughput.Make, n_threads: int
) -> None:
    with no_thread_is_left():
        calls = make(n_threads)
        assert len(calls) == n_threads
        assert seconds_for(calls, 32) > 0


def test_the_calls_are_shared_out_and_those_of_all_threads_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(throughput, "DURATION", 0.001)
    lock = threading.Lock()
    called: dict[int, int] = {}  # by the number of threads

    def make(n: int) -> list[Callable[[], None]]:
        def call() -> None:
            with lock:
                called[n] = called.get(n, 0) + 1

        return [call] * n

    rates = throughput.measure({"counted": make}, rounds=2)
    called[1] -= throughput.PROBES
    assert len(set(called.values())) == 1
    assert called[1] > 0
    assert all(rate > 0 for rate in rates["counted"])


def test_the_best_of_ours_is_compared_at_the_largest_number_of_threads() -> None:
    rates = {"a": [9.0, 3.0], "b": [1.0, 4.0], "standard": [1.0, 2.0]}
    assert throughput.best_of_ours(rates) == 2


def test_the_switch_interval_is_as_before_also_after_a_failure() -> None:
    before = sys.getswitchinterval()

    def fail() -> None:
        with throughput.switch_interval(0.0005):
            assert sys.getswitchinterval() == pytest.approx(0.0005)
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fail()
    assert sys.getswitchinterval() == before
