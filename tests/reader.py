"""Runs a script as a reader would, only harder, and reports all that went wrong.

Harder means: development mode, warnings are errors, an empty current folder, a
temporary folder of its own, nothing on standard input, and a time limit. Afterwards
nothing may be left: no process, no temporary file, no shared memory, no change in the
repository.
"""

import ast
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted(ROOT.glob("Chapter[0-9][0-9]/*.py"))

LIMIT = 60.0  # seconds that a script may take, on a machine however busy
POLL = 0.05  # seconds from one look at a script to the next
MOMENT = 0.03  # seconds from a script's first line to the midst of its work
HELPERS_GRACE = 5.0  # seconds that multiprocessing's own helpers may take to notice
SHARED_MEMORY = Path("/dev/shm")  # where Linux shows shared memory by name
SHARED_MEMORY_GRACE = 5.0  # seconds from the end of a block's use to its end
NEEDS_STATUS = 77  # exit status of a script that this interpreter or system cannot run

# Printing a traceback, Python 3.15 warns of a module that has no `__spec__`. It spares
# `__main__`, but not `__mp_main__`, which a spawned child has instead.
OF_SPAWNED = "ignore:Module globals is missing a __spec__:DeprecationWarning"
STRICTLY = ["-X", "dev", "-W", "error", "-W", OF_SPAWNED]

# In development mode asyncio tells of each step of a task that takes 0.1 s or more. A
# busy machine makes any step that long; two seconds are the script's own fault.
SLOWED_DOWN = re.compile(r"^Executing <.*> took [01]\.\d+ seconds\n", re.MULTILINE)

# What asyncio tells of itself when Ctrl-C strikes its own code: half an event loop that
# its clean-up does not expect; a future that is cancelled just before it gets a result.
_OF_ASYNCIO = re.compile(
    r"^Exception ignored .*\bBaseEventLoop\.__del__\b.*\nTraceback .*\n(  .*\n)+"
    r"AttributeError: .*\n"
    r"|^(Exception in callback BaseSelectorEventLoop\._sock_.*\nhandle: .*\n"
    r"|Fatal error: protocol\.data_received\(\) .*\nprotocol: .*\ntransport: .*\n)"
    r"Traceback .*\n(  .*\n)+asyncio\.exceptions\.InvalidStateError: .*\n",
    re.MULTILINE,
)

# Ctrl-C that strikes while tempfile makes or removes a folder leaves a part of it. No
# with statement of a script can help that.
_IN_TEMPFILE = re.compile(r'^  File ".*\btempfile\.py", line \d+, in ', re.MULTILINE)

# What the interpreter writes between the parts of one traceback.
_CHAINED = (
    "During handling of the above exception, another exception occurred:",
    "The above exception was the direct cause of the following exception:",
)

_MARK = "SCRIPT_RUN"  # environment variable that marks every process of one run


def name_of(script: Path) -> str:
    """Return a script's path as readers write it: `Chapter01/example01_….py`."""
    return script.relative_to(ROOT).as_posix()


@dataclass(frozen=True, slots=True)
class Run:
    """One finished run of a script.

    Attributes:
        status: the exit status; None if the limit ended it.
        complaints: all that a run must not do, in sentences; empty if it was clean.
    """

    status: int | None
    stdout: str
    stderr: str
    complaints: tuple[str, ...]

    @property
    def needs(self) -> str | None:
        """The line `needs …` of a script that cannot run here, None if it can."""
        only_that = self.complaints == (f"exit status {NEEDS_STATUS}",)
        if only_that and re.fullmatch(r"needs .+\n", self.stdout):
            return self.stdout.strip()
        return None

    def report(self) -> str:
        """Return the complaints and everything that was printed."""
        return "\n".join(
            [*self.complaints, "-- stdout:", self.stdout, "-- stderr:", self.stderr]
        )


def run_script(
    script: Path,
    *arguments: str,
    limit: float = LIMIT,
    start_method: str | None = None,
    interrupt: bool = False,
) -> Run:
    """Run `script` in an interpreter of its own and watch what it does.

    Args:
        limit: seconds after which the script and all its processes are killed.
        start_method: how multiprocessing is to start processes unless the script asks
            for a certain way; None leaves the interpreter's default.
        interrupt: press Ctrl-C, as soon as the script has printed something or started
            a process. The exit status is not looked at then, stderr may hold one
            traceback, and the interpreter is in its usual mode.
    """
    complaints = []
    # Interrupted in the middle of an import, the interpreter itself leaves a file open;
    # development mode would complain of that.
    options = ["-X", "faulthandler"] if interrupt else STRICTLY
    before, memory_before = _repository(), _shared_memory()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        current, temporary = folder / "current", folder / "temporary"
        current.mkdir()
        temporary.mkdir()
        environment = _environment(temporary)
        if start_method is not None:
            (folder / "sitecustomize.py").write_text(
                f"import multiprocessing as m; m.set_start_method({start_method!r})\n"
            )
            environment["PYTHONPATH"] = name
        # Files, not pipes: a process left behind would keep a pipe open, and what was
        # printed before a hang can be read.
        out_path, err_path = folder / "out", folder / "err"
        with out_path.open("wb") as out, err_path.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, *options, script, *arguments],
                cwd=current,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            status: int | None = None
            try:
                if interrupt:
                    _wait_until_busy(process, out_path)
                    with suppress(ProcessLookupError):  # it has just ended
                        os.killpg(process.pid, signal.SIGINT)
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                complaints.append(f"still running after {limit:g} s (stacks on stderr)")
                _dump_stacks(process)
            finally:
                left = _end_all(process, environment[_MARK])
        if status is not None and left:
            complaints.append(f"left running: {', '.join(left)}")
        stdout = _text(out_path)
        stderr = SLOWED_DOWN.sub("", _text(err_path))
        files = sorted(
            path.relative_to(folder).as_posix()
            for path in (*current.rglob("*"), *temporary.rglob("*"))
        )
        if files and not (interrupt and _IN_TEMPFILE.search(stderr)):
            complaints.append(f"left behind: {', '.join(files)}")
        if blocks := _abandoned_memory(memory_before):
            complaints.append(f"left in shared memory: {', '.join(blocks)}")
    after = _repository()
    if changed := [
        Path(path).relative_to(ROOT).as_posix()
        for path in before | after
        if before.get(path) != after.get(path)
    ]:
        complaints.append(f"changed in the repository: {', '.join(sorted(changed))}")
    if interrupt:
        stderr = _OF_ASYNCIO.sub("", stderr)
        tracebacks = stderr.count("Traceback (most recent call last):")
        if tracebacks - sum(map(stderr.count, _CHAINED)) > 1:
            complaints.append("more than one traceback")
        if stderr and "KeyboardInterrupt" not in stderr and status is not None:
            complaints.append("something else than a KeyboardInterrupt on stderr")
    else:
        if status not in {0, None}:
            complaints.append(f"exit status {status}")
        if stderr and status is not None:
            complaints.append("something on stderr")
    return Run(status, stdout, stderr, tuple(complaints))


def _environment(temporary: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return kept | {
        "TMPDIR": str(temporary),
        "TEMP": str(temporary),
        "TMP": str(temporary),
        "MPLBACKEND": "Agg",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONIOENCODING": "utf-8",
        "PYTHONMALLOC": "default",  # the debugging one is slow, and meant for C
        "PYTHONUNBUFFERED": "1",
        _MARK: uuid.uuid4().hex,
    }


def _repository() -> dict[str, tuple[int, int]]:
    """Return modification time and size of all that a script might damage or add.

    Of a folder only its being there counts: its time changes with caches.
    """
    found = {}
    folders = [str(ROOT)]
    for folder in folders:
        for entry in os.scandir(folder):
            if entry.name.startswith(".") or entry.name == "__pycache__":
                continue
            if entry.is_dir():
                found[entry.path] = (0, 0)
                if folder != str(ROOT) or entry.name.startswith(("Chapter", "tests")):
                    folders.append(entry.path)  # is looked at later in this loop
            else:
                stat = entry.stat()
                found[entry.path] = (stat.st_mtime_ns, stat.st_size)
    return found


def _shared_memory() -> set[Path]:
    """Return the blocks there are; semaphores are left to the resource tracker.

    Who uses a semaphore cannot be seen: it is mapped under another name.
    """
    return {
        path for path in SHARED_MEMORY.glob("*") if not path.name.startswith("sem.")
    }


def _abandoned_memory(before: set[Path]) -> list[str]:
    """Return the new blocks of shared memory that no process uses.

    Nobody will ever remove them. Scripts that run at the same time use theirs, except
    for the moment between the use and the end.
    """
    deadline = time.monotonic() + SHARED_MEMORY_GRACE
    while blocks := _shared_memory() - before:
        for maps in Path("/proc").glob("[0-9]*/maps"):
            with suppress(OSError):  # it has ended, or is not ours
                used = maps.read_text("utf-8", "replace")
                blocks = {block for block in blocks if str(block) not in used}
        if not blocks or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    return sorted(block.name for block in blocks)


def _wait_until_busy(process: "subprocess.Popen[bytes]", out_path: Path) -> None:
    """Return when a script is at work: it has printed something, or started a process.

    A moment later, that is: KeyboardInterrupt in the middle of `Executor.submit` may
    leave one of CPython's own locks locked, and no script can help that.
    """
    own = psutil.Process(process.pid)
    with suppress(psutil.NoSuchProcess):
        while process.poll() is None and not out_path.stat().st_size:
            if own.children():
                return
            time.sleep(POLL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(MOMENT)


def _dump_stacks(process: "subprocess.Popen[bytes]") -> None:
    """Let the interpreter say where all its threads are (development mode does)."""
    if os.name == "posix":
        process.send_signal(signal.SIGABRT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(5)


def _end_all(process: "subprocess.Popen[bytes]", mark: str) -> list[str]:
    """Kill what is left of a run; return what was left, by command line.

    The resource tracker and the fork server of multiprocessing end by themselves once
    they notice that the program is gone; they get HELPERS_GRACE seconds for it. So does
    a process that has lost its command line already, because it is about to end.
    """
    deadline = time.monotonic() + HELPERS_GRACE
    while left := list(_processes_of(process.pid, mark)):
        ending = all(
            not command or "from multiprocessing." in command for _, command in left
        )
        if not ending or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    found = [command or f"process {member.pid}" for member, command in left]
    while left:  # until the system has carried out what kill() asks for
        for member, _ in left:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        time.sleep(0.01)
        left = list(_processes_of(process.pid, mark))
    process.wait()
    return found


def _processes_of(group: int, mark: str) -> Iterator[tuple[psutil.Process, str]]:
    """Yield the live processes of one run: those of its group and those marked."""
    for process in psutil.process_iter():
        try:
            ours = hasattr(os, "getpgid") and os.getpgid(process.pid) == group
            ours = ours or process.environ().get(_MARK) == mark
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                yield process, " ".join(process.cmdline())
        except (psutil.Error, ProcessLookupError, PermissionError):
            continue


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")


@cache
def syntax_tree(script: Path) -> ast.Module:
    """Return the script's syntax tree."""
    return ast.parse(script.read_text("utf-8"))


def docstring_of(script: Path) -> str:
    """Return the script's docstring, cleaned.

    Raises:
        ValueError: it has none.
    """
    docstring = ast.get_docstring(syntax_tree(script))
    if docstring is None:
        raise ValueError(f"{name_of(script)} has no docstring")
    return docstring


def script_metadata(script: Path) -> dict[str, Any]:
    """Return the script's PEP 723 block as a mapping, empty if there is none."""
    block = re.search(
        r"(?m)^# /// script$\n(?P<toml>(?:^#(?: .*)?$\n)+?)^# ///$",
        script.read_text("utf-8"),
    )
    if block is None:
        return {}
    return tomllib.loads(re.sub(r"(?m)^# ?", "", block["toml"]))
