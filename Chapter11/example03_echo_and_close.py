"""Answer one message, then close: in which order, or the answer may be lost.

close() writes what is left in the transport's buffer first; abort() throws it away.
Neither helps what is in the system's hands: closed while unread bytes of the client
are there, a connection is reset, and the reset may overtake the answer. So the order
is: write; end the own side (write_eof); read on, and throw away, to the client's end;
then close. A client that never ends is cut off after a while.

A client may end its side first and still read. eof_received that returns None closes
at once, after what has been written; True keeps the connection for an answer that is
yet to come. A message that is too long is refused, in the same order. A client may
vanish at any moment: connection_lost tells why, and nobody else notices.

Book: Chapter 11, example3.
Try:  --serve --port 8000

Output:
    a line                echoed, and the end
    two lines             the second thrown away
    no line end           echoed at eof
    eof alone             nothing
    too long              refused
    reset                 connection_lost told
    then another          echoed
    much more             thrown away
    the same, hasty       reset
    stays on              cut off
    write, close()        all arrives
    write, abort()        a part
    eof_received None     too late
    eof_received True     in time
    write, write_eof, read to the client's end, close
"""

import argparse
import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import cast

HOST = "127.0.0.1"
LINE_LIMIT = 1024  # bytes, with the line's end
PATIENCE = 60.0  # seconds that a client has for its line
LINGER = 2.0  # seconds that it has then to end its side
TOO_LONG = b"line too long\n"
SHORT = 0.01  # seconds, in place of LINGER
TIME_LIMIT = 20.0  # seconds for the whole demonstration
BIG = 2**21 * b"x"  # far more than fits between server and client
KERNEL_BUFFER = 65_536  # bytes
# SO_LINGER of 0 seconds: when the socket is closed, the connection is reset.
RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)


class EchoAndClose(asyncio.Protocol):
    """Sends back the first line of one client, or refuses it, and ends in order.

    Args:
        connections: all that are open; this one adds and removes itself.

    Attributes:
        lost: done when the connection is lost; its result is the reason, or None.
    """

    def __init__(
        self,
        connections: "set[EchoAndClose]",
        line_limit: int = LINE_LIMIT,
        patience: float = PATIENCE,
        linger: float = LINGER,
    ) -> None:
        self._connections = connections
        self._line_limit = line_limit
        self._patience = patience
        self._linger = linger
        self._line = bytearray()
        self._answered = False
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception | None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._connections.add(self)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._patience, self.transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return  # it has to be read all the same, see above
        searched = len(self._line)
        self._line += data
        end = self._line.find(b"\n", searched) + 1
        if (end or len(self._line)) > self._line_limit:
            self._answer(TOO_LONG)
        elif end:
            self._answer(bytes(self._line[:end]))

    def eof_received(self) -> None:
        """Take what there is as the line; what is written goes out before the end."""
        if not self._answered:
            self._answer(bytes(self._line))

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        self._connections.discard(self)
        if not self.lost.done():  # cancelled with a task that awaited it
            self.lost.set_result(exc)

    def _answer(self, answer: bytes) -> None:
        self._answered = True
        self.transport.write(answer)
        self.transport.write_eof()  # when the answer is written; not over TLS
        self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._linger, self.transport.abort)


class HastyEcho(EchoAndClose):
    """The same with the defect: it closes although the client may be still sending."""

    def _answer(self, answer: bytes) -> None:
        self._answered = True
        self.transport.write(answer)
        self.transport.close()


@asynccontextmanager
async def listening(
    make: Callable[[set[EchoAndClose]], EchoAndClose] = EchoAndClose, port: int = 0
) -> AsyncIterator[int]:
    """Serve on `port`, or for 0 on a free one, which is given; in the end, hang up.

    Raises:
        OSError: the port cannot be had.
    """
    connections: set[EchoAndClose] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: make(connections), HOST, port)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        try:
            # Who is accepted in this turn of the loop is attached to the server in the
            # next, which fails if that is closed by then, and connected in one more. A
            # timer runs after the accepting of its turn, and we go on a turn later.
            await asyncio.sleep(0.001)
            server.close()
            await asyncio.sleep(0.001)
        finally:  # after another cancel, too
            server.close()
            for protocol in connections:
                protocol.transport.abort()
        if connections:
            await asyncio.wait([protocol.lost for protocol in connections])


class BigAnswer(asyncio.Protocol):
    """Writes BIG to a new client, and immediately calls close() or abort()."""

    def __init__(self, end: str) -> None:
        self._end = end

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        cast(asyncio.Transport, transport).write(BIG)
        getattr(transport, self._end)()


class LateAnswer(asyncio.Protocol):
    """Answers after the client's end: it has to think, for a turn of the loop."""

    def __init__(self, keep_open: bool | None) -> None:
        self._keep_open = keep_open

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def eof_received(self) -> bool | None:
        asyncio.get_running_loop().call_soon(self._answer)
        return self._keep_open

    def _answer(self) -> None:
        self._transport.write(b"late")
        self._transport.close()


async def ask(port: int, data: bytes = b"", end: bool = False) -> bytes:
    """Connect, send `data`, perhaps end the own side, return all that comes back."""
    loop = asyncio.get_running_loop()
    answer = bytearray()
    with socket.socket() as client:
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        await loop.sock_connect(client, (HOST, port))
        await loop.sock_sendall(client, data)
        if end:
            client.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while portion := await loop.sock_recv(client, KERNEL_BUFFER):
                answer += portion
    return bytes(answer)


async def reply_to_much(
    make: Callable[[set[EchoAndClose]], EchoAndClose],
) -> bytes | None:
    """Send a line and much more, then return what comes back; None after a reset."""
    async with listening(make) as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(b"1\n" + BIG)
            await writer.drain()
            return await reader.read()
        except ConnectionError:
            return None
        finally:
            writer.transport.abort()


async def ask_protocol(make: Callable[[], asyncio.Protocol]) -> bytes:
    """Return what a server of such protocols answers to a client that says nothing."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, HOST, 0)
    try:
        return await ask(server.sockets[0].getsockname()[1], end=True)
    finally:
        server.close()


async def is_cut_off(
    make: Callable[[set[EchoAndClose]], EchoAndClose], data: bytes
) -> bool:
    """Tell whether the server ends a connection while its client stays."""
    made: list[EchoAndClose] = []

    def make_and_keep(connections: set[EchoAndClose]) -> EchoAndClose:
        made.append(make(connections))
        return made[-1]

    async with listening(make_and_keep) as port:
        reader, writer = await asyncio.open_connection(HOST, port)
        try:
            writer.write(data)
            await reader.read()  # to the server's end
            return await made[0].lost is None
        finally:
            writer.close()


async def vanish(port: int) -> None:
    """Connect, send half a line, and reset the connection."""
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"hel")
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def demonstrate() -> dict[str, bool]:
    """Return of each claim whether it holds."""
    made: list[EchoAndClose] = []

    def make(connections: set[EchoAndClose]) -> EchoAndClose:
        made.append(EchoAndClose(connections))
        return made[-1]

    async with asyncio.timeout(TIME_LIMIT), listening(make) as port:
        long = (LINE_LIMIT + 1) * b"x"
        holds = {
            "a line: echoed, and the end": await ask(port, b"hi\n") == b"hi\n",
            "two lines: the second thrown away": await ask(port, b"1\n2\n") == b"1\n",
            "no line end: echoed at eof": await ask(port, b"hi", True) == b"hi",
            "eof alone: nothing": await ask(port, b"", True) == b"",
            "too long: refused": await ask(port, long) == TOO_LONG,
        }
        await vanish(port)
        while len(made) == len(holds):  # accepting takes the loop a few turns
            await asyncio.sleep(0)
        reason = await made[len(holds)].lost
        holds["reset: connection_lost told"] = isinstance(reason, ConnectionResetError)
        holds["then another: echoed"] = await ask(port, b"hi\n") == b"hi\n"
        patient = partial(EchoAndClose, linger=TIME_LIMIT)
        holds["much more: thrown away"] = await reply_to_much(patient) == b"1\n"
        holds["the same, hasty: reset"] = await reply_to_much(HastyEcho) is None
        impatient = partial(EchoAndClose, linger=SHORT)
        holds["stays on: cut off"] = await is_cut_off(impatient, b"hi\n")
        close, abort = partial(BigAnswer, "close"), partial(BigAnswer, "abort")
        holds["write, close(): all arrives"] = await ask_protocol(close) == BIG
        holds["write, abort(): a part"] = len(await ask_protocol(abort)) < len(BIG)
        none, true = partial(LateAnswer, None), partial(LateAnswer, True)
        holds["eof_received None: too late"] = await ask_protocol(none) == b""
        holds["eof_received True: in time"] = await ask_protocol(true) == b"late"
    return holds


async def serve(port: int) -> None:
    """Serve until cancelled."""
    async with listening(port=port) as number:
        print(f"serving on {HOST} port {number} until Ctrl-C", flush=True)
        await asyncio.Event().wait()


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be in 0 … 65535, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="until Ctrl-C")
    parser.add_argument("--port", type=port, default=0, help="of --serve; 0: any free")
    options = parser.parse_args()
    if options.port and not options.serve:
        parser.error("--port goes with --serve")
    if options.serve:
        try:
            asyncio.run(serve(options.port))
        except KeyboardInterrupt:
            return  # by now all is closed
        except OSError as error:
            raise SystemExit(f"port {options.port}: {error}") from None

    for claim, holds in asyncio.run(demonstrate()).items():
        case, _, outcome = claim.partition(": ")
        print(f"{case:20}  {outcome}")
        if not holds:
            raise SystemExit(f"not so: {claim}")
    print("write, write_eof, read to the client's end, close")


if __name__ == "__main__":
    main()
