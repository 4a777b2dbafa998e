"""READMEs, docstrings, dependency headers and files tell the same story."""

import ast
import re
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from expected_output import disagreement, line_pattern, read_output
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from reader import (
    NEEDS_STATUS,
    ROOT,
    SCRIPTS,
    docstring_of,
    name_of,
    script_metadata,
    syntax_tree,
)

CHAPTERS = [ROOT / f"Chapter{number:02}" for number in range(1, 22)]
READMES = [ROOT / "README.md", *(chapter / "README.md" for chapter in CHAPTERS)]
EXAMPLES = [script for script in SCRIPTS if script.name.startswith("example")]

# How many listings the printed book has in each chapter.
LISTINGS = dict(
    zip(
        range(1, 20),
        [2, 1, 5, 2, 6, 8, 1, 7, 2, 6, 6, 8, 3, 3, 3, 6, 2, 6, 7],
        strict=True,
    )
)


Rule = Callable[[Path], None]


def each(paths: Sequence[Path]) -> Callable[[Rule], Callable[[], None]]:
    """Make one test of a rule that holds for each path; it names all that break it."""

    def decorate(rule: Rule) -> Callable[[], None]:
        def test() -> None:
            broken, skipped = [], []
            for path in paths:
                name = path.relative_to(ROOT).as_posix()
                try:
                    rule(path)
                except pytest.skip.Exception as skip:
                    skipped.append(f"{name} {skip}")
                except Exception as error:
                    broken.append(f"{name}: {type(error).__name__}: {error}")
            assert not broken, "\n".join(broken)
            if skipped:
                pytest.skip("; ".join(skipped))

        test.__name__, test.__doc__ = rule.__name__, rule.__doc__
        return test

    return decorate


every_script = each(SCRIPTS)
every_example = each(EXAMPLES)
every_chapter = each(CHAPTERS)


def number_of(path: Path) -> int:
    """Return the number in `Chapter07` or `example07_….py`."""
    match = re.search(r"\d\d", path.name)
    assert match is not None, f"no number in {path}"
    return int(match[0])


def first_line_of(script: Path) -> str:
    return docstring_of(script).partition("\n")[0]


# -- names and numbers


def test_all_chapters_are_there_and_no_other() -> None:
    assert sorted(ROOT.glob("Chapter*")) == CHAPTERS


@every_chapter
def test_numbers_of_examples_have_no_gap(chapter: Path) -> None:
    numbers = [number_of(path) for path in EXAMPLES if path.parent == chapter]
    assert numbers == list(range(1, len(numbers) + 1))


@every_script
def test_file_name_says_what_the_script_shows(script: Path) -> None:
    assert re.fullmatch(r"(example\d\d_)?[a-z][a-z0-9]*(_[a-z0-9]+)*\.py", script.name)


# -- docstrings


@every_script
def test_docstring_begins_with_a_sentence(script: Path) -> None:
    first, _, rest = docstring_of(script).partition("\n")
    assert first.endswith((".", "?", "!"))
    assert rest.startswith("\n"), "no empty line after the first"


@every_example
def test_docstring_names_the_listing_of_the_book(script: Path) -> None:
    chapter, number = number_of(script.parent), number_of(script)
    named = re.findall(r"^Book: .*$", docstring_of(script), re.MULTILINE)
    in_book = number <= LISTINGS.get(chapter, 0)
    assert named == ([f"Book: Chapter {chapter}, example{number}."] if in_book else [])


@every_script
def test_docstring_ends_with_a_readable_output(script: Path) -> None:
    output = read_output(docstring_of(script))
    for line in output.lines:
        line_pattern(line)  # raises where a placeholder is unknown
        recorded = re.search(r"Python 3\.\d+\.|GIL (on|off)\b|\d cores\b", line)
        assert recorded is None, f"{line}: what varies is a placeholder"
    assert output.lines[-1], "the output ends with an empty line"
    assert docstring_of(script).endswith(output.lines[-1]), "text after the output"


def lines_to_try() -> list[Any]:
    return [
        pytest.param(script, line, id=f"{name_of(script)} {line}")
        for script in SCRIPTS
        for line in re.findall(r"(?m)^Try: +(--.*)$", script.read_text("utf-8"))
    ]


@pytest.mark.parametrize(("script", "line"), lines_to_try())
def test_what_to_try_can_be_tried(
    script: Path,
    line: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With `--help` at the end, all that stands before it is still checked."""
    monkeypatch.setattr(sys, "argv", [str(script), *line.split(), "--help"])
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr()
    if exit_.value.code == NEEDS_STATUS:
        pytest.skip(printed.out.strip())
    assert not exit_.value.code, printed.err
    assert "usage: " in printed.out


# -- code


def may_be_missing(node: ast.stmt) -> bool:
    """Tell whether `node` tries an import and says what is needed where it fails."""
    return (
        isinstance(node, ast.Try)
        and all(isinstance(one, ast.Import) for one in node.body)
        and [ast.unparse(one) for one in node.handlers[0].body][1:]
        == ["raise SystemExit(77) from None"]
    )


@every_script
def test_importing_a_script_does_nothing_and_a_main_guard_ends_it(script: Path) -> None:
    *body, guard = syntax_tree(script).body
    assert ast.unparse(guard) == "if __name__ == '__main__':\n    main()"
    quiet = (
        ast.Import,
        ast.ImportFrom,
        ast.Assign,
        ast.AnnAssign,
        ast.FunctionDef,
        ast.AsyncFunctionDef,
        ast.ClassDef,
    )
    docstring, *rest = body
    assert isinstance(docstring, ast.Expr)
    assert not [
        ast.unparse(node)
        for node in rest
        if not isinstance(node, quiet) and not may_be_missing(node)
    ]


# Small helpers that scripts repeat, so that each can be copied. They must stay alike.
REPEATED = {
    "Acquirable",
    "Gauge",
    "ctrl_c_later",
    "gil_state",
    "in_range",
    "jain",
    "origin",
    "picture",
    "positive",
    "process_pool",
    "running",
    "side_by_side",
    "switch_interval",
    "usable_cores",
}


def test_repeated_helpers_are_the_same_everywhere() -> None:
    found: dict[str, dict[str, str]] = {}
    for script in SCRIPTS:
        for node in syntax_tree(script).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            if node.name in REPEATED:
                found.setdefault(node.name, {})[name_of(script)] = ast.unparse(node)
    assert found.keys() == REPEATED
    for name, sources in found.items():
        assert len(set(sources.values())) == 1, f"{name} differs: {sorted(sources)}"


# -- READMEs


@every_script
def test_chapter_readme_names_each_script_with_its_first_line(script: Path) -> None:
    readme = (script.parent / "README.md").read_text("utf-8")
    assert f"[{script.name}]({script.name}) | {first_line_of(script)} |" in readme


@every_chapter
def test_chapter_readme_says_whether_there_are_scripts(chapter: Path) -> None:
    readme = (chapter / "README.md").read_text("utf-8")
    there_are = any(script.parent == chapter for script in SCRIPTS)
    assert there_are != ("no scripts yet" in readme)


@each(READMES)
def test_links_lead_somewhere(readme: Path) -> None:
    text = readme.read_text("utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            anchors = [
                re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            ]
            assert target[1:] in anchors, f"no heading for {target}"
        elif not target.startswith("https://"):
            assert (readme.parent / target).exists(), f"{target} is not there"


@cache
def index_of_concepts() -> dict[str, list[str]]:
    """Return the top README's index: the scripts by concept."""
    readme = (ROOT / "README.md").read_text("utf-8")
    section = readme.partition("\n## Concepts\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", section, re.MULTILINE)
    return {
        concept: re.findall(r"\]\(([^)]+)\)", links)
        for concept, links in rows
        if "](" in links
    }


def test_index_is_in_alphabetical_order() -> None:
    concepts = [concept.casefold() for concept in index_of_concepts()]
    assert concepts == sorted(concepts)


def test_labels_of_the_index_say_where_they_lead() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    links = re.findall(r"\[(Chapter\d\d/[^\]]+)\]\(([^)]+)\)", readme)
    assert links
    assert not [link for link in links if not link[1].startswith(link[0])]


@every_script
def test_index_leads_to_every_script(script: Path) -> None:
    linked = {target for links in index_of_concepts().values() for target in links}
    assert name_of(script) in linked


# -- figures


@every_script
def test_what_can_be_plotted_is_shown(script: Path) -> None:
    if '"--plot"' in script.read_text("utf-8"):
        figure = f"figures/{script.stem}.png"
        assert (script.parent / figure).is_file()
        assert f"]({figure})" in (script.parent / "README.md").read_text("utf-8")


@every_chapter
def test_figures_come_from_scripts_and_are_shown(chapter: Path) -> None:
    readme = (chapter / "README.md").read_text("utf-8")
    for figure in chapter.glob("figures/*"):
        assert f"](figures/{figure.name})" in readme
        assert any(figure.name.startswith(path.stem) for path in chapter.glob("*.py"))


# -- imports and dependencies


@cache
def imported_modules(script: Path) -> set[str]:
    """Return the top-level names of all modules that a script imports anywhere."""
    modules = set()
    for node in ast.walk(syntax_tree(script)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a script cannot import relatively"
            modules.add((node.module or "").partition(".")[0])
    return modules


def outside_standard_library(script: Path) -> set[str]:
    """Return what must be installed for a script and the siblings that it imports."""
    imported = imported_modules(script)
    siblings = {path for path in script.parent.glob("*.py") if path.stem in imported}
    own = imported - sys.stdlib_module_names - {path.stem for path in siblings}
    return own.union(*map(outside_standard_library, siblings))


@cache
def distributions() -> Mapping[str, list[str]]:
    """Return by module which packages, of those that are installed, have it."""
    return packages_distributions()


@cache
def required() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    stripped = [line.partition("#")[0].strip() for line in lines]
    requirements = [Requirement(line) for line in stripped if line]
    return {canonicalize_name(one.name): one for one in requirements}


@every_script
def test_script_imports_nothing_from_another_chapter(script: Path) -> None:
    others = {path.stem for path in SCRIPTS if path.parent != script.parent}
    siblings = {path.stem for path in script.parent.glob("*.py")}
    imported = imported_modules(script)
    assert not [name for name in imported if name.startswith("Chapter")]
    assert not imported & (others - siblings)


@every_script
def test_dependencies_are_declared_and_no_more(script: Path) -> None:
    declared = [
        Requirement(one) for one in script_metadata(script).get("dependencies", [])
    ]
    needed = outside_standard_library(script)
    if missing := needed - distributions().keys():
        pytest.skip(f"needs {', '.join(missing)}")
    needed = {canonicalize_name(distributions()[module][0]) for module in needed}
    assert {canonicalize_name(one.name) for one in declared} == needed
    for one in declared:
        assert one.specifier == required()[canonicalize_name(one.name)].specifier


def test_every_requirement_has_a_minimum_and_a_reason() -> None:
    for requirement in required().values():
        assert any(one.operator == ">=" for one in requirement.specifier), requirement
    for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines():
        assert not line or "# " in line, f"no reason for {line}"


# -- what the README says of the tests


def test_ci_runs_the_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(re.findall(r"^python3 .* -m pytest$", readme, re.MULTILINE)) == 1
    run = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "grep -m 1 -E '^python3 .* -m pytest$' README.md" in run
    assert re.search(r'^eval "\$test_command', run, re.MULTILINE)


def test_readme_shows_what_the_first_script_prints() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    command, _, rest = readme.partition("```\npython3 ")[2].partition("\n```\n")
    script = ROOT / command.rpartition(" ")[2]
    shown = rest.partition("```\n")[2].partition("\n```\n")[0]
    assert disagreement(read_output(docstring_of(script)), shown.splitlines()) is None


@every_chapter
def test_readme_counts_the_scripts_of_each_chapter(chapter: Path) -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    row = re.search(rf"^\|.*\]\({chapter.name}/README\.md\).*$", readme, re.MULTILINE)
    assert row is not None
    count = sum(script.parent == chapter for script in SCRIPTS)
    assert row[0].endswith(f"| {count} scripts |" if count else "| – |")
