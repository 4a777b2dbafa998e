"""Every script runs as its docstring says, and leaves nothing behind.

`pytest --record -k Chapter01` runs the scripts of Chapter 1 and writes what they
printed into their docstrings. Read the diff.

`pytest --start-method forkserver` runs them as on a system with that default.

`pytest --thorough` draws their pictures, and presses Ctrl-C in the midst of each, too.
"""

import os
import platform
from pathlib import Path

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


@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_script_keeps_its_promises(
    script: Path, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    """One that can draw does so if `--thorough` is given; it prints the same."""
    draws = '"--plot"' in script.read_text("utf-8")
    drawing = draws and pytestconfig.getoption("thorough")
    picture = tmp_path / "picture.png"
    run = run_or_skip(
        script,
        *(["--plot", str(picture)] if drawing else []),
        start_method=pytestconfig.getoption("start_method"),
    )
    assert not run.complaints, run.report()
    if pytestconfig.getoption("record"):
        source = record(script.read_text("utf-8"), run.stdout.splitlines())
        script.write_text(source, "utf-8", newline="\n")
        syntax_tree.cache_clear()
    complaint = disagreement(read_output(docstring_of(script)), run.stdout.splitlines())
    assert complaint is None, f"{complaint}\n{run.report()}"
    assert not drawing or picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.thorough
@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("script", SCRIPTS, ids=name_of)
def test_ctrl_c_ends_the_script_in_order(
    script: Path, pytestconfig: pytest.Config
) -> None:
    start_method = pytestconfig.getoption("start_method")
    run = run_or_skip(script, start_method=start_method, interrupt=True)
    assert not run.complaints, run.report()
