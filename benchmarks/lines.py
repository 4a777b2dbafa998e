"""The calculator's line protocol on the reactor, and on seven other models.

Each peer is what its library's manual shows, as short as can be: no limits, no
deadlines, which the reactor has. All answer by the same `Calculator`. asyncio streams
and socketserver go from line to line, as their interfaces suggest; where one gets
chunks of bytes, all lines of a chunk are answered at once, as the reactor does.

Try:  --quick
"""

import asyncio
import socket
import socketserver
import sys
from pathlib import Path
from typing import cast

sys.path.append(str(Path(__file__).resolve().parent.parent / "Chapter18"))

from comparing import Comparison, compare
from example02_calculator import GREETING, Calculator
from measuring import BACKLOG, CHAPTER, PORTION, Load, Server, Talk

LINES = Talk(b"1,2,3\n", rb"6\n", GREETING)
LOADS = [
    *(Load(connections, 1) for connections in (1, 50, 500, 2000, 10_000)),
    *(Load(connections, 16) for connections in (1, 50, 500, 2000)),
]


class Session:
    """What a server that gets chunks of bytes keeps for each client."""

    __slots__ = ("calculator", "rest")

    def __init__(self) -> None:
        self.calculator = Calculator()
        self.rest = b""

    def answers(self, data: bytes) -> bytes:
        """Return the answers to all lines that are whole now."""
        lines = (self.rest + data).split(b"\n")
        self.rest = lines.pop()
        return self.calculator.answers(lines)


# -- asyncio


async def stream_session(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    calculator = Calculator()
    writer.write(GREETING)
    while not calculator.done and (line := await reader.readline()):
        writer.write(calculator.answer(line.removesuffix(b"\n")))
        await writer.drain()
    writer.close()


async def streams(listener: socket.socket) -> None:
    server = await asyncio.start_server(stream_session, sock=listener, backlog=BACKLOG)
    await server.serve_forever()


class CalculatorProtocol(asyncio.Protocol):
    """One client's side of the conversation is called back with what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.session = Session()
        self.transport.write(GREETING)

    def data_received(self, data: bytes) -> None:
        if answers := self.session.answers(data):
            self.transport.write(answers)
        if self.session.calculator.done:
            self.transport.close()


async def protocol(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        CalculatorProtocol, sock=listener, backlog=BACKLOG
    )
    await server.serve_forever()


def serve_streams(listener: socket.socket) -> None:
    asyncio.run(streams(listener))


def serve_protocol(listener: socket.socket) -> None:
    asyncio.run(protocol(listener))


def serve_uvloop(listener: socket.socket) -> None:
    import uvloop

    uvloop.run(protocol(listener))


# -- threads


class ThreadSession(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        calculator = Calculator()
        self.wfile.write(GREETING)
        for line in self.rfile:
            self.wfile.write(calculator.answer(line.removesuffix(b"\n")))
            if calculator.done:
                break


def serve_threads(listener: socket.socket) -> None:
    server = socketserver.ThreadingTCPServer(
        listener.getsockname(), ThreadSession, bind_and_activate=False
    )
    server.socket.close()
    server.socket = listener
    server.serve_forever()


# -- gevent and trio


def serve_gevent(listener: socket.socket) -> None:
    import gevent.server
    import gevent.socket

    def session(sock: socket.socket, _: object) -> None:
        state = Session()
        sock.sendall(GREETING)
        while not state.calculator.done and (data := sock.recv(PORTION)):
            if answers := state.answers(data):
                sock.sendall(answers)

    own = gevent.socket.socket(fileno=listener.detach())
    gevent.server.StreamServer(own, session).serve_forever()


def serve_trio(listener: socket.socket) -> None:
    import trio

    async def session(stream: trio.SocketStream) -> None:
        state = Session()
        await stream.send_all(GREETING)
        while not state.calculator.done and (data := await stream.receive_some()):
            if answers := state.answers(data):
                await stream.send_all(answers)
        await stream.aclose()

    async def main() -> None:
        own = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        await trio.serve_listeners(session, [own])

    listener.setblocking(False)
    trio.run(main)


PEERS = {
    "asyncio streams": serve_streams,
    "asyncio Protocol": serve_protocol,
    "asyncio Protocol, uvloop": serve_uvloop,
    "socketserver.ThreadingTCPServer": serve_threads,
    "gevent": serve_gevent,
    "trio": serve_trio,
}
NEEDS = {
    "asyncio Protocol, uvloop": ["uvloop"],
    "gevent": ["gevent"],
    "trio": ["trio"],
}
SERVERS = [
    Server(
        "reactor",
        [str(CHAPTER / "example07_calculator_on_the_reactor.py"), "--serve"],
        most=10_000,
    ),
    *(Server(name, [__file__, "--serve", name], NEEDS.get(name, ())) for name in PEERS),
]


def main() -> None:
    compare(
        Comparison("lines", LINES, SERVERS, "asyncio streams", LOADS, PEERS),
        __doc__.partition("\n")[0],
    )


if __name__ == "__main__":
    main()
