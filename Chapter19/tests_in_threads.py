"""A runner of unittest suites in threads, and what tests must not share to run in it.

Tests that do not lean on each other can run at the same time. In threads they start at
once, and those that wait for answers overlap. Each part of a suite that can stand alone
goes to a pool of threads with a result of its own, and in the end there is one result,
in the order of the suite. Tests that share a setUp or tearDown of their class or module
are one part: they run in one thread, in their order.

Threads share what belongs to the process, and so do the tests in them: variables of
modules, os.environ, the current folder, and sys.stdout, which redirect_stdout replaces
for all, as `buffer=True` of unittest does. The filters of warnings are shared, too, so
that assertWarns and `-W error` become unsure (but from Python 3.14 on not where
`sys.flags.context_aware_warnings` is set). Here two tests that each set such a thing
are brought together, and fail, though each is right. One by one they pass, and so they
do if they are kept together. The other mend is a process for each: see example07.

Source: the dead package concurrencytest had such a runner, with processes by fork.

Output:
    of two tests that        one thread  two threads  two, kept together
    set the same variable      0 fail       1 fail              0 fail
    look at what they print    0 fail       2 fail              0 fail
    tests that change what threads share must not run at the same time
"""

import os
import sys
import threading
import unittest
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from io import StringIO

LIMIT = 10.0  # seconds until the other test must be there
REGION = "CHAPTER19_REGION"

# What a result holds, as lists; the last one from Python 3.12 on.
HELD = (
    "failures",
    "errors",
    "skipped",
    "expectedFailures",
    "unexpectedSuccesses",
    "collectedDurations",
)


def single_tests(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    """Yield the tests of a suite, and of the suites in it."""
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from single_tests(test)
        else:
            yield test


def owner(test: unittest.TestCase) -> object:
    """Return whose setUp or tearDown a test shares with others; itself, if nobody's."""
    kind = type(test)
    module = sys.modules.get(kind.__module__)
    if hasattr(module, "setUpModule") or hasattr(module, "tearDownModule"):
        return module
    for base in kind.__mro__[: kind.__mro__.index(unittest.TestCase)]:
        if "setUpClass" in vars(base) or "tearDownClass" in vars(base):
            return kind
    return test


def units(suite: unittest.TestSuite) -> list[unittest.TestSuite]:
    """Divide a suite into parts that may run at the same time.

    That is each test by itself, but for those which share a setUp or tearDown of their
    class or module.
    """
    parts: dict[int, unittest.TestSuite] = {}
    for test in single_tests(suite):
        # By identity: tests of the same class and method are equal.
        parts.setdefault(id(owner(test)), unittest.TestSuite()).addTest(test)
    return list(parts.values())


def run_in_threads(suite: unittest.TestSuite, n_threads: int) -> unittest.TestResult:
    """Run the tests of a suite in so many threads; return the results of all.

    If this is interrupted it ends with the tests that are running, and begins no more.

    Raises:
        ValueError: `n_threads` is less than 1.
    """
    parts = units(suite)
    # Each part has a result of its own, so that none needs a lock.
    results = [unittest.TestResult() for _ in parts]
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            list(pool.map(unittest.TestSuite.run, parts, results))
        except BaseException:
            for result in results:
                result.stop()  # who runs ends, who has not begun does not
            raise
    return merged(results)


def merged(results: Iterable[unittest.TestResult]) -> unittest.TestResult:
    """Return one result for all."""
    total = unittest.TestResult()
    for result in results:
        total.testsRun += result.testsRun
        for name in HELD:
            if hasattr(total, name):
                getattr(total, name).extend(getattr(result, name))
    return total


class SetVariable(unittest.TestCase):
    """Two tests that set the same variable of the environment.

    Attributes:
        meet: called between the steps of a test; lets a caller bring two together.
    """

    meet: Callable[[], object] = staticmethod(lambda: None)

    def see(self, value: str) -> None:
        os.environ[REGION] = value
        self.meet()
        seen = os.environ[REGION]
        self.meet()
        self.assertEqual(seen, value)

    def test_north(self) -> None:
        self.see("north")

    def test_south(self) -> None:
        self.see("south")


class CatchOutput(unittest.TestCase):
    """Two tests that look at what they print."""

    meet: Callable[[], object] = staticmethod(lambda: None)
    one_prints = threading.Lock()  # without a GIL, StringIO may need it

    def see(self, text: str) -> None:
        with redirect_stdout(StringIO()) as out:
            self.meet()
            with self.one_prints:
                print(text)
            self.meet()
        self.assertEqual(out.getvalue(), f"{text}\n")

    def test_north(self) -> None:
        self.see("north")

    def test_south(self) -> None:
        self.see("south")


Pair = type[SetVariable] | type[CatchOutput]


def brought_together(pair: Pair) -> Pair:
    """Return two tests of which each waits for the other one where they meet."""
    both = threading.Barrier(2, timeout=LIMIT)
    return type(pair.__name__, (pair,), {"meet": staticmethod(both.wait)})


def kept_together(pair: Pair) -> Pair:
    """Return two tests that share a setUpClass."""
    return type(pair.__name__, (pair,), {"setUpClass": classmethod(lambda cls: None)})


def n_failed(tests: Pair, n_threads: int) -> int:
    """Run two tests in threads; return how many have failed."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(tests)
    # Who leaves redirect_stdout last restores what the other one had set.
    with redirect_stdout(sys.stdout):
        result = run_in_threads(suite, n_threads)
    for _, traceback in result.errors:
        raise SystemExit(f"a test was to fail, but not like this:\n{traceback}")
    os.environ.pop(REGION, None)
    return len(result.failures)


def main() -> None:
    print("of two tests that        one thread  two threads  two, kept together")
    for what, pair, expected in (
        ("set the same variable", SetVariable, (0, 1, 0)),
        ("look at what they print", CatchOutput, (0, 2, 0)),
    ):
        failed = (
            n_failed(pair, 1),
            n_failed(brought_together(pair), 2),
            n_failed(kept_together(pair), 2),
        )
        print(f"{what:23}{failed[0]:5} fail{failed[1]:8} fail{failed[2]:15} fail")
        if failed != expected:
            raise SystemExit(f"{expected} of the tests were to fail, not {failed}")
    print("tests that change what threads share must not run at the same time")


if __name__ == "__main__":
    main()
