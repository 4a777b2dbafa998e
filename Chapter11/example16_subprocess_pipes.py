"""Pipes to a child process: a full one deadlocks, and how to talk without that.

A pipe holds some 64 KiB. A child that writes more waits until somebody reads, and a
parent that waits for the child meanwhile waits for ever. In a test with little data all
goes well. The mend is to read all pipes, and write, at the same time: `communicate`
does that, and `run` adds a time limit.

For a dialogue, line for line, the child has to flush: its standard output is a pipe and
no terminal, so it would keep lines back until it has some thousand bytes.

A child that takes too long is asked to end, then killed, and waited for, so that no
zombie is left. It is in a session of its own: Ctrl-C reaches the parent alone, which
ends its children in order.

Output:
    nobody reads     stuck: True; read, it writes all 1000000 bytes
    communicate      1100000 bytes there and back, 1000000 on stderr
    line for line    1, 20, 300: 2, 40, 600
    ignores the end  late: True; killed and waited for: True
    read all pipes at the same time, and let no child outlive its block
"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

PATIENCE = 5.0  # seconds for a child that was asked to end
SHORT = 0.05  # seconds, in place of that
TIME_LIMIT = 20.0  # seconds for the whole demonstration

# An interpreter that starts soon: without site-packages and the user's settings.
PYTHON = (sys.executable, "-I", "-S", "-c")
MUCH = 1_000_000  # bytes: more than pipes and the buffers of asyncio hold together
CHATTERBOX = f"import sys; sys.stderr.write({MUCH} * 'x'); print('done')"
CAT = "import sys; sys.stdout.buffer.writelines(sys.stdin.buffer)"
DOUBLE = "import sys; [print(2 * int(line), flush=True) for line in sys.stdin]"
STUBBORN = """import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('here', flush=True)
time.sleep(60)
"""


@dataclass(frozen=True, slots=True)
class Completed:
    """How a child has ended.

    Attributes:
        status: its exit status; that of one killed by signal n is -n (POSIX).
    """

    status: int
    out: bytes
    err: bytes


async def end(process: asyncio.subprocess.Process, patience: float = PATIENCE) -> None:
    """Ask a child to end, kill it if it does not within `patience`; wait until it has.

    What it has written and nobody has read is thrown away.
    """
    if process.stdin is not None:
        process.stdin.close()
    with suppress(ProcessLookupError):  # it has ended
        process.terminate()
    try:
        await discard(process, patience)
    except BaseException as error:  # late, or cancelled
        kill(process)
        if not isinstance(error, TimeoutError):
            raise
        with suppress(TimeoutError):
            await discard(process, patience)
        # What the child has started in a session of its own may still hold its pipes,
        # and no public call closes our ends.
        process._transport.close()  # type: ignore[attr-defined]
        await process.wait()


def kill(process: asyncio.subprocess.Process) -> None:
    """Kill a child, with its own children, who may hold its pipes."""
    with suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


async def discard(process: asyncio.subprocess.Process, patience: float) -> None:
    """Read what is left, without keeping it, and wait for the end.

    Raises:
        TimeoutError: that has not come within `patience` seconds.
    """

    async def drain(stream: asyncio.StreamReader | None) -> None:
        while stream is not None and await stream.read(65_536):
            pass

    async with asyncio.timeout(patience):
        async with asyncio.TaskGroup() as group:
            for stream in (process.stdout, process.stderr):
                group.create_task(drain(stream))
        await process.wait()


@asynccontextmanager
async def child(
    *command: str, patience: float = PATIENCE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start a child with three pipes; at the end of the block, it ends, too.

    Raises:
        OSError: it cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # no effect on Windows
    )
    try:
        yield process
    finally:
        # Not in this task: a second cancel would leave the child alone.
        ending = asyncio.create_task(end(process, patience))
        cancelled: asyncio.CancelledError | None = None
        while not ending.done():
            try:
                await asyncio.wait([ending])
            except asyncio.CancelledError as error:
                cancelled = error
        if ending.cancelled() and process.returncode is None:
            kill(process)  # it may have been cancelled before it began
        ending.result()
        if cancelled is not None:
            raise cancelled


async def run(
    command: Sequence[str],
    given: bytes = b"",
    *,
    timeout: float,
    patience: float = PATIENCE,
) -> Completed:
    """Give a child its input, and return its output, when it has ended.

    Raises:
        OSError: it cannot be started.
        TimeoutError: it has not ended within `timeout`; by now it has been ended.
    """
    async with child(*command, patience=patience) as process:
        async with asyncio.timeout(timeout):
            out, err = await process.communicate(given)
        assert process.returncode is not None
        return Completed(process.returncode, out, err)


async def deadlock() -> tuple[bool, int]:
    """Wait for a child that waits for us to read.

    Returns:
        Whether it had not ended after SHORT; and how many bytes it then still had to
        write, which came as soon as they were read.
    """
    async with child(*PYTHON, CHATTERBOX) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        arrived = await process.stderr.readexactly(1)  # it is at work
        try:
            async with asyncio.timeout(SHORT):
                await process.wait()  # broken: nobody reads
        except TimeoutError:
            stuck = process.returncode is None
        else:
            stuck = False
        arrived += await process.stderr.read()
        out = await process.stdout.read()
        await process.wait()
    if out.strip() != b"done":
        raise SystemExit(f"the child was to go on: {out!r}")
    return stuck, len(arrived)


async def dialogue(numbers: Sequence[int]) -> list[int]:
    """Ask a child for the double of each number, one after the other."""
    doubles = []
    async with child(*PYTHON, DOUBLE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in numbers:
            process.stdin.write(f"{number}\n".encode())
            await process.stdin.drain()
            doubles.append(int(await process.stdout.readline()))
    return doubles


async def stubborn() -> tuple[bool, bool]:
    """End a child that ignores being asked; was there a TimeoutError, is it gone?"""
    async with child(*PYTHON, STUBBORN, patience=SHORT) as process:
        assert process.stdout is not None
        await process.stdout.readline()  # from now on it ignores SIGTERM
        try:
            async with asyncio.timeout(SHORT):
                await process.wait()
        except TimeoutError:
            late = True
        else:
            late = False
    return late, process.returncode is not None


async def observe() -> None:
    """Check each claim, and print it."""
    stuck, arrived = await deadlock()
    print(f"nobody reads     stuck: {stuck}; read, it writes all {arrived} bytes")
    if not stuck or arrived != MUCH:
        raise SystemExit("the child was to wait until somebody reads")

    much = MUCH // 10 * b"0123456789\n"
    same = await run([*PYTHON, CAT], much, timeout=TIME_LIMIT)
    both = await run([*PYTHON, CHATTERBOX], timeout=TIME_LIMIT)
    print(
        f"communicate      {len(same.out)} bytes there and back, "
        f"{len(both.err)} on stderr"
    )
    if same != Completed(0, much, b"") or len(both.err) != MUCH:
        raise SystemExit("not all came back")

    doubles = await dialogue([1, 20, 300])
    print(f"line for line    1, 20, 300: {', '.join(map(str, doubles))}")
    if doubles != [2, 40, 600]:
        raise SystemExit("the child was to answer each line")

    late, gone = await stubborn()
    print(f"ignores the end  late: {late}; killed and waited for: {gone}")
    if not late or not gone:
        raise SystemExit("the child was to be killed")
    print("read all pipes at the same time, and let no child outlive its block")


async def within_limit() -> None:
    async with asyncio.timeout(TIME_LIMIT):
        await observe()


def main() -> None:
    asyncio.run(within_limit())


if __name__ == "__main__":
    main()
