"""Every script runs as its docstring says, and leaves nothing behind.

`pytest --record -k Chapter01` runs the scripts of Chapter 1 and writes what they
printed into their docstrings. Read the diff.

`pytest --start-method forkserver` runs them as on a system with that default.
"""

import os
import platform
import re
from pathlib import Path
from typing import Any

import pytest
from expected_output import disagreement, read_output, record
from packaging.specifiers import SpecifierSet
from reader import (
    SCRIPTS,
    Run,
    docstring_of,
    name_of,
    run_script,
    script_metadata,
    syntax_tree,
)


def starts_processes(script: Path) -> bool:
    """Tell whether a script's code speaks of multiprocessing or a process pool."""
    _, _, code = script.read_text("utf-8").partition('\n"""\n')
    return re.search(r"\b(multiprocessing|ProcessPoolExecutor)\b", code) is not None


def run_or_skip(
    script: Path,
    *arguments: str,
    start_method: str | None = None,
    interrupt: bool = False,
) -> Run:
    """Run a script; skip the test if the script says that it cannot run here."""
    wanted = SpecifierSet(script_metadata(script).get("requires-python", ""))
    if not wanted.contains(platform.python_version(), prereleases=True):
        pytest.skip(f"needs Python {wanted}")
    run = run_script(script, *arguments, start_method=start_method, interrupt=interrupt)
    if run.needs is not None:
        pytest.skip(run.needs)
    return run


def check_output(script: Path, run: Run) -> None:
    complaint = disagreement(read_output(docstring_of(script)), run.stdout.splitlines())
    assert complaint is None, f"{complaint}\n{run.report()}"


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_script_keeps_its_promises(script: Path, pytestconfig: pytest.Config) -> None:
    run = run_or_skip(script, start_method=pytestconfig.getoption("start_method"))
    assert not run.complaints, run.report()
    if pytestconfig.getoption("record"):
        source = record(script.read_text("utf-8"), run.stdout.splitlines())
        script.write_text(source, "utf-8", newline="\n")
        syntax_tree.cache_clear()
    check_output(script, run)


def runs_in_another_way() -> list[Any]:
    """Return the one run that a script needs besides that with no arguments.

    It starts processes by spawn, if it starts any, and draws the picture, if the script
    draws one.
    """
    runs = []
    for script in SCRIPTS:
        spawn = "spawn" if starts_processes(script) else None
        plot = "plot" if '"--plot"' in script.read_text("utf-8") else None
        if spawn or plot:
            label = "-".join(filter(None, [name_of(script), spawn, plot]))
            runs.append(pytest.param(script, spawn, plot is not None, id=label))
    return runs


@pytest.mark.parametrize(("script", "start_method", "plot"), runs_in_another_way())
def test_script_does_so_in_another_way(
    script: Path, start_method: str | None, plot: bool, tmp_path: Path
) -> None:
    """Spawned children import the script: without a main guard they run it again."""
    picture = tmp_path / "picture.png"
    arguments = ["--plot", str(picture)] if plot else []
    run = run_or_skip(script, *arguments, start_method=start_method)
    assert not run.complaints, run.report()
    check_output(script, run)
    assert not plot or picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_ctrl_c_ends_the_script_in_order(
    script: Path, pytestconfig: pytest.Config
) -> None:
    start_method = pytestconfig.getoption("start_method")
    run = run_or_skip(script, start_method=start_method, interrupt=True)
    assert not run.complaints, run.report()
