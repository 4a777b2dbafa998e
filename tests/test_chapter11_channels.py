"""Chapter 11: child processes and pipes, as a reader would copy them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import example16_subprocess_pipes as pipes
import psutil
import pytest
from serving import run

LIMIT = 30.0  # seconds that nothing here comes near to


def python(code: str) -> list[str]:
    return [*pipes.PYTHON, code]


def test_a_child_gets_its_input_and_gives_its_output() -> None:
    code = "import sys; sys.stderr.write('err'); print(sys.stdin.read()); sys.exit(3)"
    done = asyncio.run(pipes.run(python(code), b"hello", timeout=LIMIT))
    assert (done.status, done.out.split(), done.err) == (3, [b"hello"], b"err")


@pytest.mark.parametrize("size", [0, 1, 65_536, 1_000_000])
def test_no_size_is_too_large_for_the_pipes(size: int) -> None:
    done = asyncio.run(pipes.run(python(pipes.CAT), size * b"x", timeout=LIMIT))
    assert (done.status, len(done.out)) == (0, size)


def test_a_child_that_does_not_read_its_input_is_no_error() -> None:
    done = asyncio.run(pipes.run(python("pass"), 1_000_000 * b"x", timeout=LIMIT))
    assert done.status == 0


def test_a_late_child_is_ended_and_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec

    async def noted(*command: str, **options: Any) -> asyncio.subprocess.Process:
        started.append(await start(*command, **options))
        return started[-1]

    async def main() -> None:
        monkeypatch.setattr(asyncio, "create_subprocess_exec", noted)
        with pytest.raises(TimeoutError):
            await pipes.run(python("import time; time.sleep(60)"), timeout=0.05)

    asyncio.run(main())
    (process,) = started
    assert process.returncode is not None
    if hasattr(os, "WNOHANG"):
        with pytest.raises(ChildProcessError):
            os.waitpid(process.pid, os.WNOHANG)


def test_a_child_does_not_outlive_a_cancelled_block() -> None:
    async def main() -> int | None:
        started: asyncio.Future[asyncio.subprocess.Process]
        started = asyncio.get_running_loop().create_future()

        async def work() -> None:
            async with pipes.child(*python("import time; time.sleep(60)")) as process:
                started.set_result(process)
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        process = await started
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([task])
        assert task.cancelled()
        return process.returncode

    assert asyncio.run(main()) is not None


CHATTERBOX_AT_THE_END = """
import signal, sys, time
def end(*_):
    sys.stderr.write(1_000_000 * "x")
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
print("here", flush=True)
time.sleep(60)
"""

needs_posix_signals = pytest.mark.skipif(
    os.name != "posix", reason="needs POSIX signals"
)


@needs_posix_signals
def test_a_child_may_write_much_at_its_end() -> None:
    async def main() -> int | None:
        async with pipes.child(*python(CHATTERBOX_AT_THE_END)) as process:
            assert process.stdout is not None
            await process.stdout.readline()
        return process.returncode

    assert asyncio.run(main()) == 3


@needs_posix_signals
def test_a_grandchild_does_not_hold_the_block() -> None:
    async def main() -> None:
        script = "sleep 60 & echo here; wait"
        async with pipes.child("sh", "-c", script, patience=0.05) as process:
            assert process.stdout is not None
            await process.stdout.readline()

    run(main())


@needs_posix_signals
@pytest.mark.parametrize("lives", [True, False])
def test_a_daemon_that_keeps_the_pipes_does_not_hold_the_block(lives: bool) -> None:
    pids = []

    async def main() -> None:
        script = f"""import subprocess, sys, time
command = [sys.executable, "-c", "import time; time.sleep(60)"]
print(subprocess.Popen(command, start_new_session=True).pid, flush=True)
time.sleep({60 * lives})
"""
        async with pipes.child(*python(script), patience=0.05) as process:
            assert process.stdout is not None
            pids.append(int(await process.stdout.readline()))
        assert process.returncode is not None

    try:
        run(main())
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


IMPATIENT = """
import asyncio
import sys
import example16_subprocess_pipes as pipes

async def leave(pids):
    async with pipes.child(*pipes.PYTHON, pipes.STUBBORN) as process:
        await process.stdout.readline()
        pids.append(process.pid)

async def main():
    pids = []
    leaving = asyncio.create_task(leave(pids))
    while not pids or len(asyncio.all_tasks()) < 3:
        await asyncio.sleep(0)
    for _ in range(int(sys.argv[1])):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await asyncio.wait([leaving])
    print(*pids)

asyncio.run(main())
"""


@needs_posix_signals
@pytest.mark.parametrize("turns", range(3))
def test_a_second_ctrl_c_kills_the_child(turns: int) -> None:
    """asyncio.run cancels all tasks in the end, those that end children, too."""
    # asyncio may complain of a child that has not been waited for: not our concern.
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, str(turns)],
        cwd=Path(pipes.__file__).parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=LIMIT,
        check=True,
    )
    deadline = time.monotonic() + LIMIT
    with suppress(psutil.NoSuchProcess):
        child = psutil.Process(int(done.stdout))
        while child.status() != psutil.STATUS_ZOMBIE:  # one that nobody waits for
            assert time.monotonic() < deadline


def test_what_cannot_be_started_is_an_os_error() -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(pipes.run([sys.executable + "-none"], timeout=LIMIT))


def test_a_dialogue_is_line_for_line() -> None:
    assert asyncio.run(pipes.dialogue([1, -2, 3])) == [2, -4, 6]
