# /// script
# requires-python = ">=3.11"
# dependencies = ["pytest>=8.0", "pytest-xdist>=3.5"]
# ///
"""Tests run one after another, in threads, and in processes: what each is worth.

Tests that do not lean on each other can run at the same time. The package that the book
takes, concurrencytest, is dead. What there is instead runs the same tests here, of
which some compute and some wait; all must report the same, and the same one as failed:

* Threads, by the runner of tests_in_threads.py. They start at once. What waits
  overlaps; what computes does so only without a GIL. But all share one process, which
  not all tests can.
* Processes, by pytest-xdist: `pytest -n 2`. Each has an interpreter of its own and runs
  one test at a time, so that most suites can be run like this as they are. They start
  slowly, each importing everything: it pays if the tests take longer than that.

Two more tools: pytest-run-parallel runs each test in many threads, to find races;
`pytest --dist loadscope` keeps the tests of a class in one process.

Book: Chapter 19, example7.
Try:  --workers 4

Output:
    Python <version>, GIL <gil>, <cores> cores
    pytest <version>, pytest-xdist <version>
    one after another     11 tests   0.50 s   1.00x  failed: LargeValues.test_wrong
    2 threads             11 tests   0.31 s   1.61x  failed: LargeValues.test_wrong
    2 processes of xdist  11 tests   1.26 s   0.40x  failed: LargeValues.test_wrong
    the same tests, the same results, the same failure, in three ways
"""

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import example06_large_values as large
from tests_in_threads import run_in_threads, single_tests

try:
    import pytest
    import xdist  # type: ignore[import-untyped]
except ModuleNotFoundError:
    print("needs pytest and pytest-xdist")
    raise SystemExit(77) from None

WAIT = 0.1  # seconds; stands for an answer from elsewhere
LIMIT = 60.0  # seconds that pytest may take
MOST = 16  # workers that may be asked for
WRONG = "LargeValues.test_wrong"


def ask(whom: str) -> str:
    """Return the answer of somebody else, which takes its time."""
    time.sleep(WAIT)
    return f"{whom} is well"


class LargeValues(large.LargeValuesTests):
    """Tests that compute. One is wrong, to be reported by each way of running them."""

    def test_wrong(self) -> None:
        self.assertTrue(self.function(10**10 + 21))


class Answers(unittest.TestCase):
    """Tests that wait."""

    def test_north(self) -> None:
        self.assertEqual(ask("north"), "north is well")

    def test_east(self) -> None:
        self.assertEqual(ask("east"), "east is well")

    def test_south(self) -> None:
        self.assertEqual(ask("south"), "south is well")

    def test_west(self) -> None:
        self.assertEqual(ask("west"), "west is well")


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


def run_pytest(arguments: Sequence[str], folder: str) -> str:
    """Run pytest in `folder`; return what it prints.

    Settings and plug-ins that it would find on this machine have no effect. If this is
    interrupted, pytest and its workers are killed.

    Raises:
        RuntimeError: it could not run the tests.
        subprocess.TimeoutExpired: it took more than LIMIT seconds.
    """
    Path(folder, "pytest.ini").write_text("[pytest]\n", "utf-8")
    here = ["-c", "pytest.ini", "--basetemp=temporary"]
    alone = ["--noconftest", "-p", "no:cacheprovider"]
    environment = os.environ | {
        "PYTEST_ADDOPTS": "",
        "PYTEST_PLUGINS": "",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with ExitStack() as stack:
        with ctrl_c_later():
            process = subprocess.Popen(
                [sys.executable, "-m", "pytest", *here, *alone, *arguments],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,  # a group of its own, which can be killed
            )
            stack.callback(end, process)
        output, _ = process.communicate(timeout=LIMIT)
    if process.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise RuntimeError(f"pytest could not run the tests:\n{output}")
    return output


def end(process: "subprocess.Popen[str]") -> None:
    """Kill a process and those of its group, unless it has ended."""
    with process:
        if process.poll() is not None:
            return
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def run_in_processes(file: Path, n_processes: int) -> dict[str, bool]:
    """Run the tests of a file with pytest-xdist; return for each whether it has passed.

    If the file cannot be imported that stands for a test that has not.

    Raises:
        RuntimeError, subprocess.TimeoutExpired: as for `run_pytest`.
    """
    with tempfile.TemporaryDirectory() as folder:
        with_xdist = ["-p", "xdist", "-n", str(n_processes)]
        of_file = [f"--rootdir={file.parent}", "--junitxml=report.xml", str(file)]
        run_pytest([*with_xdist, *of_file], folder)
        found = {}
        for case in ElementTree.parse(Path(folder, "report.xml")).iter("testcase"):
            class_name = case.attrib["classname"].rpartition(".")[2]
            # What has passed has no element inside, such as <failure>.
            found[f"{class_name}.{case.attrib['name']}"] = len(case) == 0
        return found


def suite() -> unittest.TestSuite:
    """Return the tests of this file."""
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    return unittest.TestSuite([load(LargeValues), load(Answers)])


def passed(run: Callable[[unittest.TestSuite], unittest.TestResult]) -> dict[str, bool]:
    """Run the tests; return for each, as `Class.test`, whether it has passed."""
    tests = suite()
    names = [name_of(test) for test in single_tests(tests)]
    result = run(tests)
    bad = {name_of(test) for test, _ in result.failures + result.errors}
    return {name: name not in bad for name in names}


def name_of(test: unittest.TestCase) -> str:
    return ".".join(test.id().split(".")[-2:])


def one_after_another(tests: unittest.TestSuite) -> unittest.TestResult:
    """Run the tests as unittest does."""
    result = unittest.TestResult()
    tests.run(result)
    return result


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def in_range(least: int, most: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in `least` … `most`."""

    def whole_number(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be in {least} … {most}, not {number}"
            )
        return number

    return whole_number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=in_range(2, MOST), default=2)
    n = parser.parse_args().workers
    print(
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(f"pytest {pytest.__version__}, pytest-xdist {xdist.__version__}")
    ways: dict[str, Callable[[], dict[str, bool]]] = {
        "one after another": lambda: passed(one_after_another),
        f"{n} threads": lambda: passed(partial(run_in_threads, n_threads=n)),
        f"{n} processes of xdist": lambda: run_in_processes(Path(__file__), n),
    }
    seconds: dict[str, float] = {}
    found: dict[str, dict[str, bool]] = {}
    for way, run in ways.items():
        began = time.perf_counter()
        try:
            found[way] = run()
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            raise SystemExit(str(error)) from None
        seconds[way] = time.perf_counter() - began
        failed = [name for name, is_good in found[way].items() if not is_good]
        ratio = seconds["one after another"] / seconds[way]
        print(
            f"{way:20}{len(found[way]):4} tests {seconds[way]:6.2f} s {ratio:6.2f}x  "
            f"failed: {', '.join(failed)}"
        )
        if failed != [WRONG] or found[way] != found["one after another"]:
            raise SystemExit(f"{way}: not the same results")
    print("the same tests, the same results, the same failure, in three ways")


if __name__ == "__main__":
    main()
