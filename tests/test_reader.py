"""The runner sees every kind of misconduct: small bad scripts, each caught."""

import os
from multiprocessing import shared_memory
from pathlib import Path

import psutil
import pytest
import reader
from reader import ROOT, Run, run_script, script_metadata

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    """The run of the script whose source is the test's parameter."""
    script = tmp_path / "script.py"
    script.write_text(request.param, "utf-8")
    return run_script(script)


def complaint_of(run: Run) -> str:
    assert len(run.complaints) == 1, run.report()
    return run.complaints[0]


@pytest.mark.parametrize("run", ["print('hello, µs')"], indirect=True)
def test_a_clean_script_has_no_complaints(run: Run) -> None:
    assert run == Run(0, "hello, µs\n", "", ())


@pytest.mark.parametrize("run", ["raise SystemExit(3)"], indirect=True)
def test_the_exit_status_is_seen(run: Run) -> None:
    assert complaint_of(run) == "exit status 3"


@pytest.mark.parametrize(
    "run",
    [
        pytest.param("import sys; print('oops', file=sys.stderr)", id="printed"),
        pytest.param(
            "import threading; threading.Thread(target=lambda: 1 / 0).start()",
            id="an exception in a thread",
        ),
        pytest.param("open(__file__)", id="a file that is never closed"),
        pytest.param("import socket; socket.socket()", id="a socket never closed"),
        pytest.param(
            "async def work(): pass\nwork()", id="a coroutine that is never awaited"
        ),
        pytest.param(
            "import asyncio, time\n"
            "async def work(): time.sleep(2)\n"
            "asyncio.run(work())",
            id="a step of a task that takes two seconds",
        ),
    ],
    indirect=True,
)
def test_what_lands_on_stderr_is_seen(run: Run) -> None:
    assert "something on stderr" in run.complaints


@pytest.mark.parametrize(
    "run",
    [
        "import asyncio, time\nasync def work(): time.sleep(0.15)\nasyncio.run(work())",
    ],
    indirect=True,
)
def test_a_step_that_a_busy_machine_made_long_is_no_misconduct(run: Run) -> None:
    assert not run.complaints, run.report()


@pytest.mark.parametrize("run", ["input('Your name? ')"], indirect=True)
def test_a_script_that_asks_gets_no_answer(run: Run) -> None:
    assert "EOFError" in run.stderr


@pytest.mark.parametrize(
    "run",
    [
        pytest.param("open('x.txt', 'w').close()", id="in the current folder"),
        pytest.param("import tempfile; tempfile.mkdtemp()", id="temporary"),
    ],
    indirect=True,
)
def test_files_left_behind_are_seen(run: Run) -> None:
    assert complaint_of(run).startswith("left behind: ")


ABANDONED = """\
from multiprocessing import resource_tracker, shared_memory
block = shared_memory.SharedMemory(create=True, size=1)
resource_tracker.unregister(block._name, "shared_memory")
block.close()
print(block.name)
"""


@pytest.mark.skipif(not reader.SHARED_MEMORY.is_dir(), reason="needs /dev/shm")
def test_shared_memory_left_behind_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "SHARED_MEMORY_GRACE", 0.1)
    script = tmp_path / "script.py"
    script.write_text(ABANDONED)
    run = run_script(script)
    (reader.SHARED_MEMORY / run.stdout.strip()).unlink()
    assert complaint_of(run) == f"left in shared memory: {run.stdout.strip()}"


@pytest.mark.skipif(not reader.SHARED_MEMORY.is_dir(), reason="needs /dev/shm")
def test_shared_memory_in_use_is_not_left_behind() -> None:
    before = reader._shared_memory()
    block = shared_memory.SharedMemory(create=True, size=1)
    try:
        assert reader._shared_memory() - before
        assert reader._abandoned_memory(before) == []
    finally:
        block.close()
        block.unlink()


def test_a_change_in_the_repository_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "repository"
    chapter = repository / "Chapter01"
    (chapter / "figures").mkdir(parents=True)
    script = chapter / "script.py"
    script.write_text(
        "from pathlib import Path\nPath(__file__).with_name('figures')"
        ".joinpath('new.png').write_text('x')\n"
    )
    monkeypatch.setattr(reader, "ROOT", repository)
    expected = "changed in the repository: Chapter01/figures/new.png"
    assert complaint_of(run_script(script)) == expected


LEFT_RUNNING = """\
import subprocess, sys
child = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(60)"], {arguments}
)
child.returncode = 0  # or the warning of subprocess would betray it
print(child.pid)
"""


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(LEFT_RUNNING.format(arguments=""), id="in the group"),
        pytest.param(
            LEFT_RUNNING.format(arguments="start_new_session=True"),
            id="in a session of its own",
            marks=posix_only,
        ),
        pytest.param(
            LEFT_RUNNING.format(arguments="env={}"),
            id="without the mark",
            marks=posix_only,
        ),
    ],
    indirect=True,
)
def test_a_process_left_running_is_seen_and_killed(run: Run) -> None:
    assert complaint_of(run).startswith("left running: ")
    assert "time.sleep(60)" in complaint_of(run)
    pid = int(run.stdout)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"


HANGS = """\
import subprocess, sys, threading
print("before the hang")
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
def never_returns():
    threading.Event().wait()
never_returns()
"""


def test_a_hang_is_ended_and_shown(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(HANGS)
    run = run_script(script, limit=2)
    assert run.status is None
    assert complaint_of(run) == "still running after 2 s (stacks on stderr)"
    assert run.stdout == "before the hang\n"
    if os.name == "posix":
        assert "in never_returns" in run.stderr
    assert not [p for p in psutil.process_iter() if str(script) in _command(p)]


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


UNGUARDED = """\
import multiprocessing
def work(): print("hello")
process = multiprocessing.Process(target=work)
process.start()
process.join()
"""


def test_a_missing_main_guard_is_seen_under_spawn(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(UNGUARDED)
    run = run_script(script, start_method="spawn")
    assert "freeze_support" in run.stderr
    script.write_text(
        UNGUARDED.replace("process = ", "if __name__ == '__main__':\n    process = ")
        .replace("\nprocess.start", "\n    process.start")
        .replace("\nprocess.join", "\n    process.join")
    )
    assert run_script(script, start_method="spawn") == Run(0, "hello\n", "", ())


@pytest.mark.parametrize(
    ("source", "needs"),
    [
        ("print('needs a moon'); raise SystemExit(77)", "needs a moon"),
        ("raise SystemExit(77)", None),
        ("print('no'); raise SystemExit(77)", None),
        ("print('needs a moon')", None),
        ("print('needs a moon'); print('and stars'); raise SystemExit(77)", None),
        ("open('x', 'w').close(); print('needs a moon'); raise SystemExit(77)", None),
    ],
)
def test_a_script_says_in_one_line_what_it_needs(
    tmp_path: Path, source: str, needs: str | None
) -> None:
    script = tmp_path / "script.py"
    script.write_text(source)
    assert run_script(script).needs == needs


@posix_only
def test_a_chorus_of_tracebacks_is_heard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import time, traceback\ntry:\n    print('busy')\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    traceback.print_exc()\n    traceback.print_exc()\n"
    )
    run = run_script(script, interrupt=True)
    assert "more than one traceback" in run.complaints


HALF_AN_EVENT_LOOP = """\
import asyncio, selectors, time
class Interrupted(selectors.DefaultSelector):
    def register(self, *_):
        raise KeyboardInterrupt
try:
    print("busy")
    time.sleep(60)
except KeyboardInterrupt:
    asyncio.SelectorEventLoop(Interrupted())
"""
RESULT_THAT_COMES_WITH_CTRL_C = """\
import asyncio, socket, time
class Struck(socket.socket):
    def recv(self, size):
        data = super().recv(size)
        while not main_task.cancelling():
            time.sleep(0.001)
        return data
async def main():
    global main_task
    main_task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    with there, Struck(fileno=here.detach()) as struck:
        struck.setblocking(False)
        loop.call_later(0.01, there.send, b"x")
        await loop.sock_recv(struck, 1)
print("busy")
asyncio.run(main())
"""

DATA_THAT_COME_WITH_CTRL_C = """\
import asyncio, socket, time
class Struck(asyncio.Protocol):
    def data_received(self, data):
        while not main_task.cancelling():
            time.sleep(0.001)
        received.set_result(data)
async def main():
    global main_task, received
    main_task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    received = loop.create_future()
    here, there = socket.socketpair()
    with there:
        await loop.connect_accepted_socket(Struck, here)
        there.send(b"x")
        await received
print("busy")
asyncio.run(main())
"""


@posix_only
@pytest.mark.parametrize(
    ("source", "told"),
    [
        (HALF_AN_EVENT_LOOP, "BaseEventLoop.__del__"),
        (RESULT_THAT_COMES_WITH_CTRL_C, "InvalidStateError"),
        (DATA_THAT_COME_WITH_CTRL_C, "InvalidStateError"),
    ],
    ids=["half_an_event_loop", "result_with_ctrl_c", "data_with_ctrl_c"],
)
def test_what_asyncio_tells_of_itself_is_not_the_scripts_fault(
    tmp_path: Path, source: str, told: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(source)
    run = run_script(script, interrupt=True)
    assert "KeyboardInterrupt" in run.stderr
    assert told not in run.stderr
    assert run.complaints == ()


@posix_only
def test_an_interrupted_script_must_end_and_leave_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import time\nprint('busy')\ntime.sleep(60)\n")
    run = run_script(script, interrupt=True)
    assert run.complaints == ()
    assert run.status not in {0, None}
    script.write_text(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "print('busy')\ntime.sleep(60)\n"
    )
    run = run_script(script, interrupt=True, limit=1)
    assert complaint_of(run).startswith("still running")
    script.write_text(
        "import signal, subprocess\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])\n"
        "child.wait()\n"
    )
    run = run_script(script, interrupt=True)
    assert "left running: sleep 60" in run.complaints


def test_what_tempfile_leaves_behind_when_interrupted_is_not_the_scripts_fault(
    tmp_path: Path,
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import os, tempfile, time\n"
        "mkdir = os.mkdir\n"
        "os.mkdir = lambda *args: (mkdir(*args), print('made'), time.sleep(60))\n"
        "tempfile.mkdtemp()\n"
    )
    assert run_script(script, interrupt=True).complaints == ()
    script.write_text(
        "import tempfile, time\ntempfile.mkdtemp()\nprint('made')\ntime.sleep(60)\n"
    )
    run = run_script(script, interrupt=True)
    assert complaint_of(run).startswith("left behind: temporary/")


def test_script_metadata_is_read(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        '# /// script\n# requires-python = ">=3.14"\n# dependencies = [\n'
        '#   "numpy",\n# ]\n# ///\n"""Doc."""\n'
    )
    assert script_metadata(script) == {
        "requires-python": ">=3.14",
        "dependencies": ["numpy"],
    }
    script.write_text('"""No block."""\n')
    assert script_metadata(script) == {}


def test_the_scripts_are_found() -> None:
    assert ROOT / "Chapter01" in {script.parent for script in reader.SCRIPTS}
