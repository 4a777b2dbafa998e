"""A program that opens files and never closes them runs out of file descriptors.

A process may have only so many files open at a time. Here a child process lowers its
own limit and opens ten times as many files. Close each one, with try and finally or
with `with`, and any number can be opened; keep them, and the system says EMFILE.

Why the leak often goes unnoticed: CPython closes a file when the last reference to it
goes away. A list, a cache, a reference cycle or a stored traceback keeps that
reference, and other interpreters collect later. Only a ResourceWarning tells (shown by
`python -X dev`), and it tells even where the luck held.

Book: Chapter 4, example1.
Try:  --limit 1000
Try:  --way leak

Output:
    at most 64 descriptors, 640 files to read
    kept open             EMFILE with fewer than 64 files open
    dropped, not closed   640 read, 640 ResourceWarnings
    try and finally       640 read
    with                  640 read
    what is closed at once never adds up
"""

import argparse
import errno
import gc
import importlib.util
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

ALLOWED = range(16, 1001)  # descriptors: some that any system grants
TIME_LIMIT = 20.0  # seconds for a child, on a machine that is very busy
ERROR_FREE = "no error"


def first_lines_leaking(paths: Iterable[Path], kept: list[TextIO]) -> list[str]:
    """Return the first line of each file, and leave all the files open in `kept`.

    Raises:
        OSError: with errno EMFILE, when there is no descriptor left.
    """
    lines = []
    for path in paths:
        file = path.open(encoding="utf-8")
        kept.append(file)  # as a cache, a cycle or a traceback would keep it
        lines.append(file.readline())
    return lines


def first_lines_dropping(paths: Iterable[Path]) -> list[str]:
    """Return the first line of each file; leave closing to the interpreter."""
    return [path.open(encoding="utf-8").readline() for path in paths]


def first_lines_finally(paths: Iterable[Path]) -> list[str]:
    """Return the first line of each file; close each, also when reading raises."""
    lines = []
    for path in paths:
        file = path.open(encoding="utf-8")  # before try: if it fails, nothing is open
        try:
            lines.append(file.readline())
        finally:
            file.close()
    return lines


def first_lines_with(paths: Iterable[Path]) -> list[str]:
    """Return the first line of each file: the same in fewer lines."""
    lines = []
    for path in paths:
        with path.open(encoding="utf-8") as file:
            lines.append(file.readline())
    return lines


def limit_open_files(limit: int) -> None:
    """Let this process have only `limit` descriptors from now on (not on Windows)."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


class Outcome(NamedTuple):
    """The errno's name or ERROR_FREE, the files read, and the ResourceWarnings."""

    error: str
    files: int
    warned: int


def attempt(
    read: Callable[[Sequence[Path], list[TextIO]], list[str]], paths: Sequence[Path]
) -> Outcome:
    """Call `read`, close what it has kept, and return what came of it."""
    kept: list[TextIO] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        try:
            error, files = ERROR_FREE, len(read(paths, kept))
        except OSError as failed:
            error, files = errno.errorcode[failed.errno or 0], len(kept)
        finally:
            for file in kept:
                file.close()
        gc.collect()  # for interpreters that do not count references
    return Outcome(error, files, len(caught))


# Each takes the list of files to keep open; only the first keeps any.
WAYS: dict[str, Callable[[Sequence[Path], list[TextIO]], list[str]]] = {
    "leak": first_lines_leaking,
    "drop": lambda paths, _: first_lines_dropping(paths),
    "finally": lambda paths, _: first_lines_finally(paths),
    "with": lambda paths, _: first_lines_with(paths),
}


def attempt_in_child(way: str, limit: int) -> Outcome:
    """Let this script try one way in a process that may open `limit` files.

    Raises:
        subprocess.SubprocessError: the child failed, or took longer than TIME_LIMIT.
        ValueError: it did not say what came of it.
    """
    child = subprocess.run(
        [sys.executable, __file__, "--limit", str(limit), "--way", way],
        stdin=subprocess.DEVNULL,
        capture_output=True,  # after Ctrl-C, the child's traceback too
        check=True,
        encoding="utf-8",
        timeout=TIME_LIMIT,
    )
    said = re.fullmatch(r"(.+): (\d+) files, (\d+) warnings\n", child.stdout)
    if said is None or child.stderr:
        raise ValueError(f"the child said {child.stdout!r} and {child.stderr!r}")
    return Outcome(said[1], int(said[2]), int(said[3]))


def allowed(text: str) -> int:
    number = int(text)
    if number not in ALLOWED:
        raise argparse.ArgumentTypeError(
            f"must be between {ALLOWED[0]} and {ALLOWED[-1]}, not {number}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--limit", type=allowed, default=64)
    parser.add_argument("--way", choices=WAYS, help="only this, in this very process")
    options = parser.parse_args()
    limit, n_files = options.limit, 10 * options.limit

    if importlib.util.find_spec("resource") is None:
        print("needs the module resource (Linux, macOS) to limit open files")
        raise SystemExit(77)
    if options.way:
        limit_open_files(limit)
        came = attempt(WAYS[options.way], [Path(__file__)] * n_files)
        print(f"{came.error}: {came.files} files, {came.warned} warnings")
        return

    print(f"at most {limit} descriptors, {n_files} files to read")
    leak = attempt_in_child("leak", limit)
    if leak.error != "EMFILE" or not 0 < leak.files < limit:
        raise SystemExit(f"the leak did not show: {leak}")
    print(f"kept open             {leak.error} with fewer than {limit} files open")

    drop = attempt_in_child("drop", limit)
    if drop != Outcome(ERROR_FREE, n_files, n_files):
        raise SystemExit(f"dropped files were not closed at once: {drop}")
    print(f"dropped, not closed   {drop.files} read, {drop.warned} ResourceWarnings")

    for name, way in {"try and finally": "finally", "with": "with"}.items():
        closed = attempt_in_child(way, limit)
        if closed != Outcome(ERROR_FREE, n_files, 0):
            raise SystemExit(f"{name}: {closed}")
        print(f"{name:21} {closed.files} read")
    print("what is closed at once never adds up")


if __name__ == "__main__":
    main()
