"""Chapter 11, WebSockets: the parts a reader would copy, and peers that lie."""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import (
    HOST,
    LIMIT,
    all_of,
    ends_in_order,
    needs_posix_signals,
    refuses_bad_ports,
    run,
    served,
    until,
)

aiohttp = pytest.importorskip("aiohttp")

import example13_websocket as websocket  # noqa: E402
from aiohttp.test_utils import make_mocked_request  # noqa: E402
from example13_websocket import Hub, Sockets, listening  # noqa: E402

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10  # opcodes, RFC 6455, 5.2
HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
    "{more}\r\n"
)


def handshake(path: str, more: str = "") -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    return HANDSHAKE.format(path=path, key=key, more=more).encode()


def frame(opcode: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """Return a frame as a client sends it, masked (with zeros)."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 65_536:
        length = b"\xfe" + struct.pack(">H", size)
    else:
        length = b"\xff" + struct.pack(">Q", size)
    return bytes([last << 7 | opcode]) + length + bytes(4) + payload


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return opcode and payload of what a server sends: whole and not masked."""
    first, size = await reader.readexactly(2)
    assert first & 0xF0 == 0x80
    if size == 126:
        (size,) = struct.unpack(">H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack(">Q", await reader.readexactly(8))
    return first & 0x0F, await reader.readexactly(size)


@contextlib.asynccontextmanager
async def raw(
    port: int, path: str = "/echo"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Give a connection on which the handshake is over."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(handshake(path))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        yield reader, writer
    finally:
        writer.transport.abort()


# -- Hub


class Subscribers:
    """Some subscribers of a hub, and who of them has been cut off."""

    def __init__(self, hub: Hub, n: int) -> None:
        self.cut_off: list[int] = []
        self._stack = contextlib.ExitStack()
        self.queues = [
            self._stack.enter_context(
                hub.subscribed(partial(self.cut_off.append, number))
            )
            for number in range(n)
        ]

    def leave(self) -> None:
        self._stack.close()


@given(
    st.integers(1, 3),
    st.lists(st.one_of(st.integers(0, 2), st.text(max_size=2)), max_size=40),
)
def test_each_gets_all_until_it_is_too_far_behind(
    backlog: int, steps: list[int | str]
) -> None:
    """A number lets that subscriber take a message, a text is published."""
    hub = Hub(backlog)
    all_ = Subscribers(hub, 3)
    waiting: list[list[str]] = [[], [], []]
    late: list[int] = []
    for step in steps:
        if isinstance(step, str):
            hub.publish(step)
            for number, messages in enumerate(waiting):
                if number not in late:
                    if len(messages) == backlog:
                        late.append(number)
                    else:
                        messages.append(step)
        elif waiting[step]:
            assert all_.queues[step].get_nowait() == waiting[step].pop(0)
        assert all_.cut_off == late  # once each
        assert len(hub) == 3 - len(late)
    all_.leave()
    assert len(hub) == 0


def test_who_leaves_while_a_message_is_published_is_no_error() -> None:
    hub = Hub(1)
    all_ = Subscribers(hub, 2)

    with hub.subscribed(all_.leave):
        hub.publish("a")
        for queue in all_.queues:
            queue.get_nowait()
        hub.publish("b")
    assert len(hub) == 0


# -- from which page


@pytest.mark.parametrize(
    ("origin", "elsewhere"),
    [
        (None, False),
        ("http://localhost:8000", False),
        ("https://localhost:8000", False),  # of a proxy in front of the server
        ("http://localhost", True),
        ("http://localhost:8000.example.org", True),
        ("http://example.org", True),
        ("null", True),  # of a file, or a page in a sandbox
        ("", True),
        ("http://[", True),
    ],
)
def test_page_from_elsewhere(origin: str | None, elsewhere: bool) -> None:
    headers = {"Host": "localhost:8000"}
    if origin is not None:
        headers["Origin"] = origin
    request = make_mocked_request("GET", "/feed", headers=headers)
    assert websocket.from_elsewhere(request) is elsewhere


@pytest.mark.parametrize("path", ["/echo", "/feed"])
def test_page_from_elsewhere_is_not_let_in(path: str) -> None:
    async def scenario() -> None:
        sockets = Sockets()
        async with listening(sockets) as port:
            for origin in ("http://example.org", "http://["):
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(handshake(path, f"Origin: {origin}\r\n"))
                assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
                writer.transport.abort()
            assert not len(sockets.hub)

    run(scenario())


# -- the codes with which a connection ends


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (frame(CLOSE, b"\x03"), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"x", last=False) + frame(TEXT, b"y"), 1002),
        (frame(0, b"y"), 1002),  # nothing that it could continue
        (frame(3), 1002),
        (frame(PING, 126 * b"x"), 1002),
        (frame(PING, last=False), 1002),
        (b"\xf1\x80\0\0\0\0", 1002),  # bits that nobody has agreed on
        (frame(BINARY, bytes(websocket.LARGEST + 1)), 1009),
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0", 1009),
    ],
    ids=[
        "half", "UTF-8", "interleaved", "continuation",
        "opcode", "long ping", "ping in parts", "bits", "long", "endless",
    ],
)  # fmt: skip
def test_who_breaks_the_rules_is_told_which(frames: bytes, code: int) -> None:
    async def scenario() -> None:
        async with listening(Sockets()) as port, raw(port) as (reader, writer):
            writer.write(frames)
            opcode, payload = await read_frame(reader)
            assert (opcode, *struct.unpack(">H", payload[:2])) == (CLOSE, code)

    run(scenario())


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"", 0), (b"\x03\xe8", 1000), (b"\x0f\xa1bye", 4001)],
    ids=["none", "1000", "4001"],
)
def test_client_that_closes_is_answered(payload: bytes, code: int) -> None:
    async def scenario() -> None:
        codes: asyncio.Queue[int] = asyncio.Queue()
        async with (
            listening(Sockets(on_closed=codes.put_nowait)) as port,
            raw(port) as (reader, writer),
        ):
            writer.write(frame(CLOSE, payload))
            assert (await read_frame(reader))[0] == CLOSE
            assert await codes.get() == code
            assert await reader.read() == b""

    run(scenario())


def test_message_in_parts_is_one_with_pings_in_between() -> None:
    async def scenario() -> None:
        async with listening(Sockets()) as port, raw(port) as (reader, writer):
            parts = ["grü".encode()[:-1], "grü".encode()[-1:], b"\xc3", b"\x9f"]
            writer.write(frame(TEXT, parts[0], last=False) + frame(PING, b"1"))
            for part in parts[1:-1]:
                writer.write(frame(0, part, last=False))
            assert await read_frame(reader) == (PONG, b"1")
            writer.write(frame(0, parts[-1]))
            assert await read_frame(reader) == (TEXT, "grüß".encode())

    run(scenario())


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_any_portions_give_the_same_messages(size: int) -> None:
    messages = [b"", b"one", 200 * b"2", 5000 * b"3"]
    stream = b"".join(frame(BINARY, message) for message in messages)

    async def scenario() -> None:
        async with listening(Sockets()) as port, raw(port) as (reader, writer):
            for start in range(0, len(stream), size):
                writer.write(stream[start : start + size])
                if start < 50 * size:
                    await asyncio.sleep(0)
            for message in messages:
                assert await read_frame(reader) == (BINARY, message)

    run(scenario())


@pytest.mark.parametrize("path", ["/echo", "/feed"])
def test_who_vanishes_is_closed_with_1006_and_no_subscriber(path: str) -> None:
    async def scenario() -> None:
        codes: asyncio.Queue[int] = asyncio.Queue()
        sockets = Sockets(on_closed=codes.put_nowait)
        async with listening(sockets) as port:
            async with raw(port, path):
                pass
            assert await codes.get() == 1006
            await until(lambda: not len(sockets.hub))

    run(scenario())


def test_subscriber_that_never_reads_is_cut_off_and_the_others_get_all() -> None:
    async def scenario() -> None:
        codes: asyncio.Queue[int] = asyncio.Queue()
        sockets = Sockets(on_closed=codes.put_nowait)
        async with (
            listening(sockets) as port,
            raw(port, "/feed") as (reader, _),
            raw(port, "/feed") as (slow, _),
        ):
            slow._transport.pause_reading()  # type: ignore[attr-defined]
            await until(lambda: len(sockets.hub) == 2)
            n_messages = 0
            while len(sockets.hub) == 2:
                message = f"{n_messages} {60_000 * 'x'}"
                sockets.hub.publish(message)
                n_messages += 1
                assert await read_frame(reader) == (TEXT, message.encode())
            assert n_messages > websocket.BACKLOG
            sockets.hub.publish("after")
            assert await read_frame(reader) == (TEXT, b"after")
            assert await codes.get() == 1006

    run(scenario())


async def flood(writer: asyncio.StreamWriter) -> None:
    """Send until the server takes no more (TimeoutError), or hangs up."""
    while True:
        writer.write(frame(BINARY, bytes(60_000)))
        async with asyncio.timeout(1):
            await writer.drain()


def test_who_never_reads_its_echoes_is_cut_off() -> None:
    async def scenario() -> None:
        codes: asyncio.Queue[int] = asyncio.Queue()
        async with (
            listening(Sockets(0.1, codes.put_nowait)) as port,
            raw(port) as (reader, writer),
        ):
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            with contextlib.suppress(ConnectionError):
                await flood(writer)
            assert await codes.get() == 1006

    run(scenario())


def test_end_of_the_server_does_not_wait_for_who_never_reads() -> None:
    async def scenario() -> None:
        codes: asyncio.Queue[int] = asyncio.Queue()
        async with contextlib.AsyncExitStack() as stack:
            async with listening(Sockets(on_closed=codes.put_nowait)) as port:
                reader, writer = await stack.enter_async_context(raw(port))
                reader._transport.pause_reading()  # type: ignore[attr-defined]
                with pytest.raises(TimeoutError):
                    await flood(writer)
            assert codes.get_nowait() == 1006

    run(scenario())


def test_what_one_says_all_hear_and_once() -> None:
    async def scenario() -> None:
        sockets = Sockets()
        async with listening(sockets) as port, contextlib.AsyncExitStack() as stack:
            all_ = [
                await stack.enter_async_context(raw(port, "/feed")) for _ in range(20)
            ]
            for number, (_, writer) in enumerate(all_):
                writer.write(frame(TEXT, str(number).encode()))
                for reader, _ in all_:
                    assert await read_frame(reader) == (TEXT, str(number).encode())
            all_[0][1].write(frame(BINARY, b"for nobody") + frame(TEXT, b"end"))
            for reader, _ in all_:
                assert await read_frame(reader) == (TEXT, b"end")

    run(scenario())


def test_end_of_the_server_is_told_to_all() -> None:
    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with listening(Sockets()) as port:
                clients = [
                    await stack.enter_async_context(raw(port, path))
                    for path in ("/echo", "/feed", "/feed")
                ]

                async def answer(client: Any) -> None:
                    reader, writer = client
                    assert await read_frame(reader) == (CLOSE, b"\x03\xe9")  # 1001
                    writer.write(frame(CLOSE, b"\x03\xe9"))

                answering = [asyncio.create_task(answer(one)) for one in clients]
                await asyncio.sleep(0)
            await asyncio.gather(*answering)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, port)

    run(scenario())


@needs_posix_signals
def test_served_script_in_the_words_of_the_protocol() -> None:
    with (
        served(websocket) as (process, port),
        socket.create_connection((HOST, port), LIMIT) as nc,
        socket.create_connection((HOST, port), LIMIT) as idle,
    ):
        idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"new WebSocket(" in all_of(idle)
        nc.sendall(handshake("/echo"))
        received = b""
        while not received.endswith(b"\r\n\r\n"):
            received += nc.recv(65_536)
        nc.sendall(frame(TEXT, b"hel", last=False))
        nc.sendall(frame(0, b"lo"))
        assert nc.recv(65_536) == b"\x81\x05hello"
        process.send_signal(signal.SIGINT)
        assert nc.recv(65_536) == b"\x88\x02\x03\xe9"
        nc.sendall(frame(CLOSE, b"\x03\xe9"))
        assert all_of(nc) == b""
        ends_in_order(process)


def test_bad_port(
    complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses_bad_ports(websocket, complaint, monkeypatch)
