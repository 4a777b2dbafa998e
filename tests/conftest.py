"""What the tests share: three options, Ctrl-C as usual, and fixtures."""

import gc
import multiprocessing
import multiprocessing.util
import signal
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is up to whatever else the machine has to do.
settings.register_profile(
    "unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record",
        action="store_true",
        help="write what the selected scripts print into their docstrings",
    )
    parser.addoption(
        "--thorough",
        action="store_true",
        help="have the scripts draw their pictures, and press Ctrl-C in each",
    )
    parser.addoption(
        "--start-method",
        choices=multiprocessing.get_all_start_methods(),
        help="how scripts are to start processes unless they ask for another way; "
        "tests that are there once for each way run for this one only, and without "
        "this option for the system's way",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    # Recording changes scripts, which a script that runs beside it would be blamed for.
    if config.getoption("record"):
        config.option.numprocesses = 0
        config.option.dist = "no"


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    default, *_ = multiprocessing.get_all_start_methods()
    wanted = config.getoption("start_method") or default

    def fits(item: pytest.Item) -> bool:
        if item.get_closest_marker("thorough") and not config.getoption("thorough"):
            return False
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        return "start_method" not in parameters or parameters["start_method"] == wanted

    config.hook.pytest_deselected(items=[item for item in items if not fits(item)])
    items[:] = filter(fits, items)


def pytest_collection_finish() -> None:
    # Modules and tests stay to the end; no garbage collection has to look at them.
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    # Who starts the suite in the background may have told it to ignore Ctrl-C. Scripts
    # would inherit that, and a test that interrupts them would test nothing.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def complaint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Give a function that runs a script with bad arguments; it returns the last line.

    That line is the one that names the culprit. The exit status must be 2.
    """

    def run(module: ModuleType, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["script", *arguments])
        with pytest.raises(SystemExit) as exit_:
            module.main()
        assert exit_.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return run


@pytest.fixture
def no_collections() -> Iterator[None]:
    """Keep the garbage collector away: Ctrl-C in one of its callbacks would be lost.

    Hypothesis has such a callback.
    """
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(params=multiprocessing.get_all_start_methods())
def start_method(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run a test once for each way of starting processes, of those that are wanted."""
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(request.param, force=True)
    # Children share this folder; one of their own would outlive those that are killed.
    multiprocessing.util.get_temp_dir()
    yield request.param
    multiprocessing.set_start_method(before, force=True)
