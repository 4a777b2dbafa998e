"""What the tests of Chapter 11 share: its scripts as servers, and event loops."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import ModuleType
from typing import Any, TypeVar

import pytest
from reader import SLOWED_DOWN

LIMIT = 30.0  # seconds that a test waits for what must come
HOST = "127.0.0.1"

T = TypeVar("T")

needs_posix_signals = pytest.mark.skipif(
    os.name != "posix", reason="needs POSIX signals"
)


def run(work: Coroutine[Any, Any, T], *, debug: bool = False) -> T:
    """Run `work`, LIMIT at most; nothing that it started may be left."""

    async def limited() -> T:
        async with asyncio.timeout(LIMIT):
            result = await work
        await asyncio.sleep(0)  # for callbacks of tasks that have just ended
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return result

    return asyncio.run(limited(), debug=debug)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0)


@asynccontextmanager
async def slow_turns() -> AsyncIterator[None]:
    """Let each turn of the loop take longer than the shortest timers."""

    async def take_long() -> None:
        while True:
            time.sleep(0.002)
            await asyncio.sleep(0)

    task = asyncio.create_task(take_long())
    yield
    task.cancel()
    await asyncio.wait([task])


@contextmanager
def served(module: ModuleType) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
    """Start a script with --serve; give it and its port; kill it if it still runs."""
    assert module.__file__ is not None
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    strictly = [sys.executable, "-X", "dev", "-W", "error"]
    with subprocess.Popen(
        [*strictly, module.__file__, "--serve", "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment | {"PYTHONDONTWRITEBYTECODE": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            announced = process.stdout.readline().decode()
            line = r"serving on 127\.0\.0\.1 port (\d+) until Ctrl-C\r?\n"
            match = re.fullmatch(line, announced)
            assert match is not None, announced
            yield process, int(match[1])
        finally:
            process.kill()


def complaints(err: bytes) -> str:
    """Return what came on stderr, without the steps that a busy machine makes long.

    asyncio's debug mode tells of these.
    """
    return SLOWED_DOWN.sub("", err.decode().replace("\r\n", "\n"))


def ends_in_order(process: "subprocess.Popen[bytes]") -> None:
    """Wait for the end after Ctrl-C; there may be nothing to complain about."""
    out, err = process.communicate(timeout=LIMIT)
    told = process.returncode, out, complaints(err)
    assert told == (0, b"", ""), told


def all_of(connection: socket.socket) -> bytes:
    """Return what comes to the other side's end, or to its reset."""
    received = b""
    with suppress(ConnectionError):
        while portion := connection.recv(65_536):
            received += portion
    return received


def refuses_bad_ports(
    module: ModuleType, complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Check that a script that serves names a port that is none, or is taken."""
    assert "65536" in complaint(module, "--serve", "--port", "65536")
    assert "-1" in complaint(module, "--serve", "--port=-1")
    assert "--port goes with --serve" in complaint(module, "--port", "8000")
    with socket.create_server((HOST, 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setattr(sys, "argv", ["script", "--serve", "--port", port])
        with pytest.raises(SystemExit, match=rf"\Aport {port}: .+\Z"):
            module.main()
