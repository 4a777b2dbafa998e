"""A server that receives: four callbacks a connection, and bytes in any portions.

The event loop makes one Protocol object for each connection and calls connection_made
once, data_received for what has come, eof_received when the client ends its side, and
connection_lost once, with the reason. All run in the loop's thread, one at a time: many
clients need no lock, and a callback that blocks stops them all.

TCP carries a stream of bytes, not messages. One send may arrive in pieces, two may
arrive as one, even CR and LF may come apart. So the protocol assembles the lines, and
looks for a line's end in the new bytes alone. It hangs up on a client that does not end
its line, before that fills the memory.

With --serve, each line that you type into nc or telnet is printed as it comes.

Book: Chapter 11, example1.
Try:  --serve --port 8000

Output:
    4 clients, all connected before the first one sent
                  lines            left         last callbacks
    in one go     one, two, three               eof_received, connection_lost
    byte by byte  one, two, three               eof_received, connection_lost
    no line end   one, two         thr          eof_received, connection_lost
    endless line  one, two         xxxxxxxxxxx  connection_lost
    15 calls of data_received or 1: the same 3 lines
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import groupby
from typing import cast

HOST = "127.0.0.1"
LINE_LIMIT = 65_536  # bytes
TIME_LIMIT = 20.0  # seconds for the whole demonstration
SHORT = 10  # bytes that a line may have in the demonstration


class LineTooLongError(ValueError):
    """A line is longer than allowed."""


class LineBuffer:
    """Assembles lines from a stream of bytes, in whatever portions it is fed.

    A line ends with LF or, as telnet sends it, with CR LF.

    Args:
        limit: bytes that a line may have, its end not counted.
    """

    def __init__(self, limit: int = LINE_LIMIT) -> None:
        self.rest = bytearray()  # what has been fed and not been taken
        self._limit = limit
        self._searched = 0  # so many of its bytes hold no LF

    def feed(self, data: bytes) -> None:
        """Add what has arrived."""
        self.rest += data

    def next_line(self) -> bytes | None:
        """Take the next line, without its end; None if no line has ended.

        Raises:
            LineTooLongError: the next line, ended or not, has more bytes than allowed.
                It stays, so that every further call raises.
        """
        end = self.rest.find(b"\n", self._searched)
        length = len(self.rest) if end < 0 else end
        if self.rest.endswith(b"\r", 0, length):  # belongs to the end, or is about to
            length -= 1
        if length > self._limit:
            raise LineTooLongError(f"a line has more than {self._limit} bytes")
        if end < 0:
            self._searched = len(self.rest)
            return None
        line = bytes(self.rest[:length])
        del self.rest[: end + 1]  # moves nothing: a bytearray lets go of its front
        self._searched = 0
        return line


class LineReceiver(asyncio.Protocol):
    """Receives lines from one client and answers nothing.

    Args:
        connections: all that are open; this one adds and removes itself.
        on_line: called with each line, without its end.

    Attributes:
        lost: done when the connection is lost.
        error: the reason; None if the client ended it in order.
    """

    def __init__(
        self,
        connections: "set[LineReceiver]",
        on_line: Callable[[bytes], object],
        line_limit: int = LINE_LIMIT,
    ) -> None:
        self.error: Exception | None = None
        self.buffer = LineBuffer(line_limit)
        self._connections = connections
        self._on_line = on_line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.lost = asyncio.get_running_loop().create_future()
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.buffer.feed(data)
        try:
            while (line := self.buffer.next_line()) is not None:
                self._on_line(line)
        except LineTooLongError as error:
            self.error = error
            self.transport.abort()

    def eof_received(self) -> None:
        """Return None, so that the transport closes itself; see example03."""

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = self.error or exc
        self._connections.discard(self)
        if not self.lost.done():  # cancelled with a task that awaited it
            self.lost.set_result(None)


@asynccontextmanager
async def listening(
    make: Callable[[set[LineReceiver]], LineReceiver], port: int = 0
) -> AsyncIterator[int]:
    """Serve on `port`, or for 0 on a free one, which is given; in the end, hang up.

    Raises:
        OSError: the port cannot be had.
    """
    connections: set[LineReceiver] = set()
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
            for receiver in connections:
                receiver.transport.abort()
        # Not server.wait_closed(): before Python 3.12 it does not wait.
        if connections:
            await asyncio.wait([receiver.lost for receiver in connections])


class Watched(LineReceiver):
    """Keeps a journal of its callbacks, and hands over what arrives."""

    def __init__(self, connections: set[LineReceiver]) -> None:
        self.callbacks: list[str] = []
        self.lines: list[bytes] = []
        self.arrived: asyncio.Queue[bytes] = asyncio.Queue()
        super().__init__(connections, self.lines.append, SHORT)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.callbacks.append("connection_made")
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.callbacks.append("data_received")
        super().data_received(data)
        self.arrived.put_nowait(data)

    def eof_received(self) -> None:
        self.callbacks.append("eof_received")
        super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.callbacks.append("connection_lost")
        super().connection_lost(exc)


async def receive_from_all(clients: Sequence[tuple[bytes, int]]) -> list[Watched]:
    """Let clients send concurrently; return what the server's side has of each.

    Args:
        clients: what to send and how many bytes at a time. All are connected before the
            first sends, and none sends on before the server has what it sent.
    """
    receivers: list[Watched] = []
    made = asyncio.Semaphore(0)

    def make(connections: set[LineReceiver]) -> Watched:
        receivers.append(Watched(connections))
        made.release()
        return receivers[-1]

    async def send(
        data: bytes, size: int, receiver: Watched, writer: asyncio.StreamWriter
    ) -> None:
        try:
            for start in range(0, len(data), size):
                writer.write(data[start : start + size])
                await receiver.arrived.get()
        finally:
            writer.close()
        await receiver.lost

    async with asyncio.timeout(TIME_LIMIT), listening(make) as port:
        writers = []
        try:
            for _ in clients:  # one by one: receivers are in the order of clients
                writers.append((await asyncio.open_connection(HOST, port))[1])
                await made.acquire()
            async with asyncio.TaskGroup() as group:
                for client, receiver, writer in zip(
                    clients, receivers, writers, strict=True
                ):
                    group.create_task(send(*client, receiver, writer))
        finally:
            for writer in writers:
                writer.close()
    return receivers


async def serve(port: int) -> None:
    """Print each line that arrives, until cancelled."""
    on_line = partial(print, "received", flush=True)
    async with listening(lambda all_: LineReceiver(all_, on_line), port) as number:
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

    text = b"one\ntwo\r\nthree\n"
    long = (SHORT + 1) * b"x"
    clients = {  # what they send, how many bytes at a time, and what of it is left
        "in one go": (text, len(text), b""),
        "byte by byte": (text, 1, b""),
        "no line end": (text[:-3], len(text), b"thr"),
        "endless line": (text[:9] + long, 1, long),
    }
    every = asyncio.run(receive_from_all([client[:2] for client in clients.values()]))
    print(f"{len(clients)} clients, all connected before the first one sent")
    print(f"{'':14}{'lines':17}{'left':13}last callbacks")
    for (name, (*_, left)), got in zip(clients.items(), every, strict=True):
        calls = [call for call, _ in groupby(got.callbacks)]
        lines = b", ".join(got.lines).decode()
        print(f"{name:14}{lines:17}{left.decode():13}{', '.join(calls[2:])}")
        if got.lines != [b"one", b"two", b"three"][: 2 if left else 3]:
            raise SystemExit(f"not the lines that were sent: {got.lines}")
        if got.buffer.rest != left or isinstance(got.error, ValueError) != (
            left == long
        ):
            raise SystemExit(f"left {got.buffer.rest}, lost for {got.error!r}")
        eof = ["eof_received"] if got.error is None else []
        if calls != ["connection_made", "data_received", *eof, "connection_lost"]:
            raise SystemExit(f"callbacks: {calls}")

    portions = every[1].callbacks.count("data_received")
    buffer = LineBuffer()
    buffer.feed(text)  # three sends that arrived as one
    at_once = [buffer.next_line() for _ in range(4)]
    if portions != len(text) or at_once != [b"one", b"two", b"three", None]:
        raise SystemExit("the portions were to make no difference")
    print(f"{portions} calls of data_received or 1: the same 3 lines")


if __name__ == "__main__":
    main()
