"""The suite's one option: `pytest --record` writes outputs into docstrings."""

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
