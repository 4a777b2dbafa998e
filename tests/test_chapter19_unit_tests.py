"""Chapter 19, unit tests, large values, tests run concurrently: what readers copy."""

import os
import runpy
import sys
import threading
import time
import unittest
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from types import ModuleType
from typing import Any

import example05_unit_test_of_a_function as unit
import example06_large_values as large
import example07_tests_run_concurrently as concurrent
import psutil
import pytest
import tests_in_threads as threads
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

# pytest would collect what stands here under its own name.
load = unittest.defaultTestLoader.loadTestsFromTestCase


# -- example05


def test_the_sieve_finds_the_primes() -> None:
    assert sorted(unit.sieve(30)) == [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]
    assert unit.sieve(2) == unit.sieve(0) == set()
    assert 29 not in unit.sieve(29)


def test_the_function_agrees_with_the_sieve() -> None:
    primes = unit.sieve(5000)
    assert {n for n in range(-50, 5000) if unit.is_prime(n)} == primes


def test_who_fails_is_told() -> None:
    every = {f"test_{name}" for name in unit.TESTS}
    assert unit.failing(unit.is_prime) == set()
    assert unit.failing(lambda n: n != 7) == every
    assert unit.failing(lambda n: pow(2, n - 1, n) == 1 if n > 2 else n == 2) == {
        "test_pseudoprimes",
        "test_sieve",
    }


def test_a_function_that_raises_fails() -> None:
    def fail(n: int) -> bool:
        raise OverflowError(n)

    assert unit.failing(fail) == {f"test_{name}" for name in unit.TESTS}


def test_a_mutant_differs_in_just_what_was_replaced() -> None:
    first, second = unit.mutants(unit.is_prime, [("n > 1", "n > 2"), ("n < 4", "1")])
    assert [n for n in range(10) if first(n) != unit.is_prime(n)] == [2]
    assert [n for n in range(7) if second(n)] == [2, 3, 4, 5, 6]
    assert unit.is_prime(2)


@pytest.mark.parametrize(("old", "times"), [("n > 7", 0), ("return", 3)])
def test_a_mutation_must_be_in_one_place(old: str, times: int) -> None:
    with pytest.raises(ValueError, match=f"'{old}' is {times} times"):
        list(unit.mutants(unit.is_prime, [(old, "")]))


@pytest.mark.parametrize(
    ("mutation", "complaint_"),
    [
        (("n < 4", "n <= 3"), "no test finds this one"),
        (("return False", "return True"), "the sieve was to find all"),
    ],
)
def test_what_does_not_show_fails_the_script(
    mutation: tuple[str, str], complaint_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit, "MUTATIONS", [mutation])
    with pytest.raises(SystemExit, match=complaint_):
        run_main(unit, monkeypatch)


def test_a_wrong_function_fails_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unit, "is_prime", lambda n: n == 2)
    with pytest.raises(SystemExit, match="does not pass"):
        run_main(unit, monkeypatch)


@pytest.mark.parametrize(("module", "n_tests"), [(unit, 5), (large, 6)])
def test_unittest_runs_the_class_as_it_is(
    module: ModuleType, n_tests: int, capsys: pytest.CaptureFixture[str]
) -> None:
    unittest.main(module, argv=["unittest"], exit=False, warnings="error")
    printed = capsys.readouterr().err
    assert f"Ran {n_tests} tests" in printed
    assert printed.endswith("OK\n")


# -- example06


@given(st.integers(-10, 10**6))
def test_both_functions_agree(n: int) -> None:
    assert large.is_prime_miller_rabin(n) == unit.is_prime(n)


@pytest.mark.parametrize("exponent", [13, 17, 19, 31, 61])
def test_mersenne_primes(exponent: int) -> None:
    assert large.is_prime_miller_rabin(2**exponent - 1)


# Each is the least number that is no prime and passes the test for the first n primes
# as bases (sequence A014233 of the On-Line Encyclopedia of Integer Sequences).
STRONG_PSEUDOPRIMES = [
    (1, 2047),
    (2, 1373653),
    (3, 25326001),
    (4, 3215031751),
    (5, 2152302898747),
    (6, 3474749660383),
    (8, 341550071728321),
    (11, 3825123056546413051),
]


@pytest.mark.parametrize(("n_bases", "number"), STRONG_PSEUDOPRIMES)
def test_each_base_is_needed(
    n_bases: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not large.is_prime_miller_rabin(number)
    monkeypatch.setattr(large, "BASES", large.BASES[:n_bases])
    assert large.is_prime_miller_rabin(number)


def test_where_it_is_not_certain_there_is_no_answer() -> None:
    assert not large.is_prime_miller_rabin(large.CERTAIN_BELOW - 1)
    with pytest.raises(ValueError, match="not certain"):
        large.is_prime_miller_rabin(large.CERTAIN_BELOW)


def test_ten_times_as_many_divisors_for_a_hundredfold() -> None:
    class Counting(int):
        divisions = 0

        def __mod__(self, other: int) -> int:
            Counting.divisions += 1
            return int(self) % other

    def divisions(n: int) -> int:
        Counting.divisions = 0
        assert unit.is_prime(Counting(n))
        return Counting.divisions

    ratio = divisions(10**8 + 7) / divisions(10**6 + 3)
    assert ratio == pytest.approx(10, rel=0.01)


def test_a_timed_result_knows_each_test() -> None:
    class Cases(unittest.TestCase):
        def test_a(self) -> None:
            time.sleep(0.02)

        def test_b(self) -> None:
            self.fail()

        def test_c(self) -> None:
            for n in range(2):
                with self.subTest(n=n):
                    assert n == 0

    result = large.TimedResult()
    load(Cases).run(result)
    names = [name.rpartition(".")[2] for name in result.seconds]
    assert names == ["test_a", "test_b", "test_c"]
    a, b, c = result.seconds.values()
    assert a >= 0.02
    assert b >= 0 <= c
    assert (result.testsRun, len(result.failures)) == (3, 2)


def test_a_function_that_fails_is_not_timed() -> None:
    with pytest.raises(AssertionError, match="test_product_of_two_primes"):
        large.timed(lambda n: True)
    assert len(large.timed(large.is_prime_miller_rabin)) == 6


@pytest.mark.parametrize(
    ("instead", "complaint_"),
    [
        (lambda n: True, "all tests were to pass"),
        (lambda n: n != 9 and large_is_prime(n), "differ about 7"),
    ],
)
def test_functions_that_differ_fail_the_script(
    instead: Callable[[int], bool], complaint_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(large, "is_prime_miller_rabin", instead)
    with pytest.raises(SystemExit, match=complaint_):
        run_main(large, monkeypatch)


def large_is_prime(n: int) -> bool:
    """Be wrong about 7."""
    return n != 7 and unit.is_prime(n)


# -- tests_in_threads


class Mixed(unittest.TestCase):
    __test__ = False  # for pytest; unittest does not look at it

    def test_a_passes(self) -> None:
        pass

    def test_b_fails(self) -> None:
        self.fail("on purpose")

    def test_c_raises(self) -> None:
        raise OverflowError

    @unittest.skip("on purpose")
    def test_d_is_skipped(self) -> None:
        pass

    @unittest.expectedFailure
    def test_e_fails_as_expected(self) -> None:
        self.fail()

    @unittest.expectedFailure
    def test_f_passes_unexpectedly(self) -> None:
        pass

    def test_g_has_subtests(self) -> None:
        for n in range(3):
            with self.subTest(n=n):
                assert n == 1


class BadFixture(unittest.TestCase):
    __test__ = False

    @classmethod
    def setUpClass(cls) -> None:
        raise OverflowError

    def test_a(self) -> None:
        pass


class Coroutines(unittest.IsolatedAsyncioTestCase):
    __test__ = False

    async def test_a(self) -> None:
        pass

    async def test_b(self) -> None:
        self.fail()


def summary(result: unittest.TestResult) -> dict[str, Any]:
    lists = [name for name in threads.HELD[:5] if name != "unexpectedSuccesses"]
    found: dict[str, Any] = {
        name: [test.id() for test, _ in getattr(result, name)] for name in lists
    }
    found["unexpectedSuccesses"] = [test.id() for test in result.unexpectedSuccesses]
    return found | {"run": result.testsRun, "good": result.wasSuccessful()}


def mixed_suite() -> unittest.TestSuite:
    missing = unittest.defaultTestLoader.loadTestsFromName("no_such_module.Tests")
    both = unittest.TestSuite([load(BadFixture), load(Coroutines)])
    return unittest.TestSuite([load(Mixed), both, missing])


@pytest.mark.parametrize("n_threads", [1, 3, 20])
def test_results_are_those_of_one_thread(n_threads: int) -> None:
    expected = unittest.TestResult()
    mixed_suite().run(expected)
    with no_thread_is_left():
        result = threads.run_in_threads(mixed_suite(), n_threads)
    assert summary(result) == summary(expected)
    assert (len(result.failures), len(result.errors)) == (4, 3)
    assert not result.wasSuccessful()
    if sys.version_info >= (3, 12):
        assert len(result.collectedDurations) == len(expected.collectedDurations)


def test_an_empty_suite_is_good() -> None:
    result = threads.run_in_threads(unittest.TestSuite(), 2)
    assert (result.testsRun, result.wasSuccessful()) == (0, True)


def test_tests_of_a_class_run_at_the_same_time() -> None:
    all_are_here = threading.Barrier(3, timeout=30)

    class Cases(unittest.TestCase):
        def test_a(self) -> None:
            all_are_here.wait()

        test_b = test_c = test_a

    result = threads.run_in_threads(load(Cases), 3)
    assert (result.testsRun, result.wasSuccessful()) == (3, True)


def test_equal_tests_run_at_the_same_time() -> None:
    """Tests of the same class and method are equal, whatever else they hold."""
    both_are_here = threading.Barrier(2, timeout=30)

    class Case(unittest.TestCase):
        def runTest(self) -> None:  # noqa: N802
            both_are_here.wait()

    assert Case() == Case()
    result = threads.run_in_threads(unittest.TestSuite([Case(), Case()]), 2)
    assert (result.testsRun, result.wasSuccessful()) == (2, True)


def test_who_shares_a_fixture_stays_in_one_thread_and_in_order() -> None:
    calls: list[tuple[str, int]] = []

    class Base(unittest.TestCase):
        @classmethod
        def setUpClass(cls) -> None:
            calls.append(("up", threading.get_ident()))

        @classmethod
        def tearDownClass(cls) -> None:
            calls.append(("down", threading.get_ident()))

    class Cases(Base):  # the fixture is inherited
        def test_a(self) -> None:
            calls.append(("a", threading.get_ident()))

        def test_b(self) -> None:
            calls.append(("b", threading.get_ident()))

    assert threads.run_in_threads(load(Cases), 4).testsRun == 2
    assert [what for what, _ in calls] == ["up", "a", "b", "down"]
    assert len({ident for _, ident in calls}) == 1


def test_classes_do_not_share_the_fixture_that_they_inherit() -> None:
    class Some(unittest.TestCase):
        @classmethod
        def tearDownClass(cls) -> None: ...

        def test_a(self) -> None: ...

        def test_b(self) -> None: ...

    class Others(Some): ...

    suite = unittest.TestSuite([load(Some), load(Others)])
    assert [unit_.countTestCases() for unit_ in threads.units(suite)] == [2, 2]


@pytest.mark.parametrize("fixture", ["setUpModule", "tearDownModule"])
def test_who_shares_the_fixture_of_a_module_stays_together(
    fixture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(unittest.TestCase):
        def test_x(self) -> None: ...

    suite = unittest.TestSuite([load(Mixed), load(Other)])
    assert len(threads.units(suite)) == 8
    calls: list[str] = []
    monkeypatch.setattr(
        sys.modules[__name__], fixture, lambda: calls.append(fixture), raising=False
    )
    assert [unit_.countTestCases() for unit_ in threads.units(suite)] == [8]
    threads.run_in_threads(suite, 3)
    assert calls == [fixture]


def test_an_interrupt_ends_it_and_begins_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[str] = []
    b_runs, all_stopped = threading.Event(), threading.Event()
    stopped: list[unittest.TestResult] = []

    class Interrupted(unittest.TestCase):
        def test_a(self) -> None:
            assert b_runs.wait(30)
            raise KeyboardInterrupt

    class KeptTogether(unittest.TestCase):
        @classmethod
        def setUpClass(cls) -> None: ...

        def test_b(self) -> None:
            b_runs.set()
            assert all_stopped.wait(30)

        def test_c(self) -> None:
            begun.append("c")

    class Later(unittest.TestCase):
        def test_d(self) -> None:
            begun.append("d")
            assert all_stopped.wait(30)

    later = [load(Later) for _ in range(10)]
    suite = unittest.TestSuite([load(Interrupted), load(KeptTogether), *later])

    def stop(result: unittest.TestResult) -> None:
        result.shouldStop = True
        stopped.append(result)
        if len(stopped) == 12:
            all_stopped.set()

    monkeypatch.setattr(unittest.TestResult, "stop", stop)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        threads.run_in_threads(suite, 2)
    # The interrupted thread may begin a test before the others are cancelled.
    assert begun in ([], ["d"])


@pytest.mark.parametrize(
    ("pair", "expected"), [(threads.SetVariable, 1), (threads.CatchOutput, 2)]
)
def test_pairs_fail_together_and_pass_apart(
    pair: threads.Pair, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    out = sys.stdout
    for _ in range(20):
        with no_thread_is_left():
            assert threads.n_failed(threads.brought_together(pair), 2) == expected
        assert threads.n_failed(threads.kept_together(pair), 2) == 0
        assert threads.n_failed(pair, 1) == 0
    assert sys.stdout is out
    assert threads.REGION not in os.environ
    assert capsys.readouterr().out == ""


def test_warnings_are_shared_but_where_the_context_has_them() -> None:
    both = threading.Barrier(2, timeout=30)

    class Cases(unittest.TestCase):
        def test_a(self) -> None:
            with self.assertWarns(UserWarning):
                both.wait()
                warnings.warn("mine", UserWarning, stacklevel=1)
                both.wait()

        test_b = test_a

    apart = getattr(sys.flags, "context_aware_warnings", False)
    with warnings.catch_warnings():
        result = threads.run_in_threads(load(Cases), 2)
    assert len(result.failures) == (0 if apart else 1)
    assert not result.errors


def test_a_buffered_result_catches_what_others_print() -> None:
    """So `buffer` of unittest is among what threads share."""
    caught = threading.Event()
    printed = threading.Event()

    class Cases(unittest.TestCase):
        def test_a(self) -> None:
            caught.set()
            assert printed.wait(30)
            self.fail("to see what was printed")

    def print_elsewhere() -> None:
        assert caught.wait(30)
        print("from elsewhere")
        printed.set()

    result = unittest.TestResult()
    result.buffer = True
    thread = threading.Thread(target=print_elsewhere)
    thread.start()
    load(Cases).run(result)
    thread.join()
    assert "from elsewhere" in result.failures[0][1]


def test_pairs_that_do_not_fail_fail_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "n_failed", lambda tests, n: 0)
    with pytest.raises(SystemExit, match=r"\(0, 1, 0\) of the tests"):
        run_main(threads, monkeypatch)


def test_output_goes_where_it_went_whatever_tests_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdout", out := StringIO())
    meet = {"meet": lambda self: setattr(sys, "stdout", StringIO())}
    threads.n_failed(type("Leaves", (threads.SetVariable,), meet), 1)
    assert sys.stdout is out


def test_an_error_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = type("Broken", (threads.SetVariable,), {"meet": lambda self: 1 / 0})
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        threads.n_failed(broken, 2)
    monkeypatch.delenv(threads.REGION, raising=False)


# -- example07

TESTS = """
import unittest

class Some(unittest.TestCase):
    def test_a(self):
        pass
    def test_b(self):
        self.fail()
    def test_c(self):
        raise OverflowError

def test_d():
    pass
"""


def test_xdist_reports_each_test_whatever_stands_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "conftest.py").write_text("raise OverflowError")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option-either")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    file = tmp_path / "some_tests.py"
    file.write_text(TESTS)
    before = sorted(tmp_path.iterdir())
    assert concurrent.run_in_processes(file, 2) == {
        "Some.test_a": True,
        "Some.test_b": False,
        "Some.test_c": False,
        "some_tests.test_d": True,
    }
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_that_cannot_be_imported_is_no_success(tmp_path: Path) -> None:
    file = tmp_path / "some_tests.py"
    file.write_text("import no_such_module")
    assert list(concurrent.run_in_processes(file, 2).values()) == [False]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no tests ran"):
        concurrent.run_in_processes(tmp_path / "none.py", 2)


@pytest.mark.skipif(os.name != "posix", reason="needs process groups")
def test_after_the_limit_nobody_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some_tests.py").write_text(
        "import pathlib, time\n"
        "def test_a():\n"
        f"    pathlib.Path({str(tmp_path / 'begun')!r}).touch()\n"
        "    time.sleep(60)\n"
    )
    members: list[psutil.Process] = []

    def wait_until_begun(self: "Popen[str]", **_: Any) -> tuple[str, str]:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        started = psutil.Process(self.pid)
        members.extend([started, *started.children(recursive=True)])
        raise TimeoutExpired("pytest", 60)

    monkeypatch.setattr(Popen, "communicate", wait_until_begun)
    with pytest.raises(TimeoutExpired):
        concurrent.run_in_processes(tmp_path / "some_tests.py", 2)
    assert len(members) == 3
    _, alive = psutil.wait_procs(members, timeout=30)
    left = [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    assert not left


def test_what_has_passed_has_its_name() -> None:
    found = concurrent.passed(concurrent.one_after_another)
    assert len(found) == 11
    assert [name for name, is_good in found.items() if not is_good] == [
        concurrent.WRONG
    ]


@pytest.mark.parametrize(
    "found", [{}, {concurrent.WRONG: False}, {"Answers.test_east": False}]
)
def test_other_results_fail_the_script(
    found: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(concurrent, "run_in_processes", lambda *_: found)
    with pytest.raises(SystemExit, match="2 processes of xdist: not the same results"):
        run_main(concurrent, monkeypatch)


def test_a_failure_that_nobody_reports_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(concurrent, "passed", lambda run: {concurrent.WRONG: True})
    with pytest.raises(SystemExit, match="one after another: not the same results"):
        run_main(concurrent, monkeypatch)


def test_what_pytest_says_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> dict[str, bool]:
        raise RuntimeError("pytest could not run the tests")

    monkeypatch.setattr(concurrent, "run_in_processes", fail)
    with pytest.raises(SystemExit, match="could not run"):
        run_main(concurrent, monkeypatch)


def test_without_xdist_it_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "xdist", None)
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(concurrent.__file__ or "", run_name="__main__")
    assert exit_.value.code == 77
    assert capsys.readouterr().out == "needs pytest and pytest-xdist\n"


def test_bad_workers_are_named(complaint: Callable[..., str]) -> None:
    assert "must be in 2 … 16, not 1" in complaint(concurrent, "--workers", "1")
