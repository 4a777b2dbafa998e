# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Backpressure: who writes to a peer that does not read must wait, and `drain` waits.

`write` never waits. What the peer, and the buffers of both systems, do not take stays
in the transport's buffer, and the writer goes on as if all had been sent: who copies a
film to a slow client has the whole film in memory. `await writer.drain()` after each
write returns at once as long as the buffer is below its high-water mark. Above that, it
waits until the peer has read, and the buffer is down to the low-water mark. So there
never is more in it than the high-water mark and one chunk.

The other side does its part by itself: a StreamReader that nobody reads from stops
receiving, and the pressure goes back through the systems to the writer. If the
connection is lost meanwhile, drain raises. Without it, nobody would learn of it.

The same with a Protocol: example02. A client that must not be waited for: example10.

Try:  --plot buffer.png

Output:
    128 chunks of 16,384 bytes, for a peer that does not read
    without drain      1880.0 KiB wait in the buffer
    with drain           72.0 KiB at most, then the writer waits
    drain returns         8.0 KiB are left then, at most
    connection lost  ConnectionError, out of drain
    the most in memory: 65536 + 16384 bytes instead of 2097152
"""

import argparse
import asyncio
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

HOST = "127.0.0.1"
HIGH, LOW = 65_536, 16_384  # bytes: the marks of the transport's buffer
CHUNK = 16_384  # bytes
CHUNKS = 128
KERNEL_BUFFER = 16_384  # bytes, so that little fits between the two sides
KIB = 1024
TIME_LIMIT = 20.0  # seconds for each part
# SO_LINGER of 0 seconds: when the socket is closed, the connection is reset.
RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)

Note = Callable[[int], object]  # is called with the bytes in the transport's buffer


async def send_carelessly(
    writer: asyncio.StreamWriter, chunks: Iterable[bytes], note: Note
) -> None:
    """Write all chunks: broken, all that the peer does not take stays in memory."""
    for chunk in chunks:
        writer.write(chunk)
        note(writer.transport.get_write_buffer_size())
        await asyncio.sleep(0)  # even if others have their turns


async def send(
    writer: asyncio.StreamWriter, chunks: Iterable[bytes], note: Note
) -> None:
    """Write all chunks, no faster than the peer takes them.

    Raises:
        ConnectionError: the connection has been lost.
    """
    for chunk in chunks:
        writer.write(chunk)
        note(writer.transport.get_write_buffer_size())
        await writer.drain()


@dataclass(frozen=True, slots=True)
class Link:
    """Both ends of a connection. The peer reads nothing by itself."""

    writer: asyncio.StreamWriter
    peer_reader: asyncio.StreamReader
    peer_writer: asyncio.StreamWriter


@asynccontextmanager
async def linked() -> AsyncIterator[Link]:
    """Give a connection to ourselves, with little room in the system's buffers."""
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]
    connected = loop.create_future()
    with socket.socket() as listener:
        # Before listen(): accepted connections inherit it.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        listener.bind((HOST, 0))
        server = await asyncio.start_server(
            lambda *streams: connected.set_result(streams), sock=listener
        )
        _, writer = await asyncio.open_connection(*listener.getsockname())
        try:
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
            writer.transport.set_write_buffer_limits(HIGH, LOW)
            peer_reader, peer_writer = await connected
            server.close()
            yield Link(writer, peer_reader, peer_writer)
        finally:
            server.close()
            writer.transport.abort()
            if connected.done() and not connected.cancelled():
                connected.result()[1].transport.abort()
            await asyncio.sleep(0)  # the transports close


async def until(condition: Callable[[], bool]) -> None:
    """Let others have turns until it holds."""
    while not condition():
        await asyncio.sleep(0)


def chunks() -> Iterable[bytes]:
    """Yield what is sent: no two chunks alike."""
    for number in range(CHUNKS):
        yield number.to_bytes(4, "big") * (CHUNK // 4)


async def without_drain() -> list[int]:
    """Write all to a peer that reads nothing before all is written.

    Returns:
        The bytes in the buffer after each write.
    """
    sizes: list[int] = []
    async with asyncio.timeout(TIME_LIMIT), linked() as link:
        await send_carelessly(link.writer, chunks(), sizes.append)
        arrived = await link.peer_reader.readexactly(CHUNKS * CHUNK)
    if arrived != b"".join(chunks()):
        raise SystemExit("not what was sent arrived")
    return sizes


async def with_drain() -> tuple[list[int], int]:
    """Write all to a peer that reads nothing before the writer has to wait.

    Returns:
        The bytes in the buffer after each write; and how many writes there were when
        the writer waited, and the peer had stopped receiving.
    """
    sizes: list[int] = []
    async with (
        asyncio.timeout(TIME_LIMIT),
        linked() as link,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(send(link.writer, chunks(), sizes.append))
        receiver = cast(asyncio.Transport, link.peer_writer.transport)
        await until(lambda: not receiver.is_reading())
        await until(lambda: bool(sizes) and sizes[-1] > HIGH)
        written = len(sizes)
        arrived = await link.peer_reader.readexactly(CHUNKS * CHUNK)
    if arrived != b"".join(chunks()):
        raise SystemExit("not what was sent arrived")
    return sizes, written


async def connection_lost() -> bool:
    """Reset the connection while a writer waits; tell whether it learns of it."""
    sizes: list[int] = []
    told = False
    async with asyncio.timeout(TIME_LIMIT), linked() as link:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(send(link.writer, chunks(), sizes.append))
                await until(lambda: bool(sizes) and sizes[-1] > HIGH)
                sock: socket.socket = link.peer_writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                link.peer_writer.transport.abort()
        except* ConnectionError:
            told = True
    return told


def plot(careless: list[int], careful: list[int], file: Path) -> None:
    """Draw the bytes in the buffer over the chunks written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.4), layout="constrained")
    axes = figure.add_subplot()
    for sizes, colour, label in (
        (careless, "#b3301c", "without drain"),
        (careful, "#1b4f8a", "with drain"),
    ):
        kib = [size / KIB for size in sizes]
        axes.plot(range(1, CHUNKS + 1), kib, color=colour, linewidth=2, label=label)
    axes.axhline(HIGH / KIB, color="grey", linestyle="dotted", label="high-water mark")
    axes.set_xlabel(f"chunks of {CHUNK // KIB} KiB written", fontsize=12)
    axes.set_ylabel("waiting in the buffer [KiB]", fontsize=12)
    axes.legend(fontsize=12)
    axes.set_title(
        f"drain keeps {max(careful) / KIB:.0f} KiB in memory, "
        f"not {max(careless) / KIB:,.0f}",
        fontsize=14,
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()

    total = CHUNKS * CHUNK
    print(f"{CHUNKS} chunks of 16,384 bytes, for a peer that does not read")
    careless = asyncio.run(without_drain())
    print(f"without drain    {max(careless) / KIB:8.1f} KiB wait in the buffer")
    if max(careless) < total // 2:
        raise SystemExit("what the peer did not take was to wait in the buffer")
    careful, written = asyncio.run(with_drain())
    print(
        f"with drain       {max(careful) / KIB:8.1f} KiB at most, then the writer waits"
    )
    if max(careful) > HIGH + CHUNK or written >= CHUNKS:
        raise SystemExit(f"{max(careful)} bytes in the buffer after {written} writes")
    after_waiting = [b - CHUNK for a, b in pairwise(careful) if a > HIGH]
    print(
        f"drain returns    {max(after_waiting) / KIB:8.1f} KiB are left then, at most"
    )
    if max(after_waiting) > LOW:
        raise SystemExit("drain returned above the low-water mark")
    if not asyncio.run(connection_lost()):
        raise SystemExit("the writer was to learn that the connection is lost")
    print("connection lost  ConnectionError, out of drain")
    print(f"the most in memory: {HIGH} + {CHUNK} bytes instead of {total}")
    if options.plot is not None:
        plot(careless, careful, options.plot)


if __name__ == "__main__":
    main()
