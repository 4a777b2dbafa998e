"""The suite's one option: `pytest --record` writes outputs into docstrings."""

import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record",
        action="store_true",
        help="write what the selected scripts print into their docstrings",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    # Recording changes scripts, which a script that runs beside it would be blamed for.
    if config.getoption("record"):
        config.option.numprocesses = 0
        config.option.dist = "no"


def pytest_configure() -> None:
    # Who starts the suite in the background may have told it to ignore Ctrl-C. Scripts
    # would inherit that, and a test that interrupts them would test nothing.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
