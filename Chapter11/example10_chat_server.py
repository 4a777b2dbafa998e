"""A chat server: everybody hears everybody, and who does not listen holds up nobody.

`Room` knows who is there and who is to hear what; it has no sockets and never waits.
`ChatServer` lends it a network: a task that reads for each client, and an outbox for
each, which is written once in a turn of the event loop, however many lines are in it.

Nobody waits for a client to read: to `await drain()` in a broadcast would let the
slowest decide for all. What a client does not take piles up in its transport's buffer,
and above BUFFER_LIMIT the client is cut off. That is the price of a slow reader, and it
pays it alone: example17 shows it, with two hundred clients.

Whatever arrives is a line of printable UTF-8, or refused: control characters in it
could fake other lines, or worse, on somebody's terminal. A line that is too long is
skipped to its end, for its rest would be a line of its own.

Try:  --serve --port 8000

Output:
    /nick Ann             * you are Ann
    others hear           * guest2 is now Ann
    /nick ann, another    ! ann is taken
    /nick a b             ! a name has 1 to 20 letters, digits and underscores
    /dance                ! no such command: /dance
    bytes FF FE           ! refused: not UTF-8
    escape sequence       ! refused: control characters
    2048 times x          ! refused: more than 1024 bytes
    empty line, /who      * 2 here: Ann, guest1
    /quit                 * goodbye
    the end               ''
    others hear then      * Ann has left
    reset in mid-line     * guest3 has vanished
    whoever is at fault is told, and the others hear nothing of it
"""

import argparse
import asyncio
import re
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

HOST = "127.0.0.1"
LINE_LIMIT = 1024  # bytes
BUFFER_LIMIT = 65_536  # bytes that wait for a client to take them
GRACE = 1.0  # seconds that clients have in the end to take what is theirs
TIME_LIMIT = 20.0  # seconds for the demonstration
# SO_LINGER of 0 seconds: when the socket is closed, the connection is reset.
RESET = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


@dataclass(eq=False, slots=True)
class Member:
    """Somebody in the room; `hear` is called with each line, and must not wait."""

    name: str
    hear: Callable[[str], object]


class Room:
    """Who is there, and who hears what."""

    def __init__(self) -> None:
        self._members: dict[str, Member] = {}  # by name without regard to case
        self._guests = 0

    def join(self, hear: Callable[[str], object]) -> Member:
        """Let somebody in, under a name that is free; tell all."""
        while True:
            self._guests += 1
            name = f"guest{self._guests}"
            if name not in self._members:
                break
        member = Member(name, hear)
        hear(f"* you are {name}; /nick NAME, /who, /quit")
        self.tell(f"* {name} has joined")
        self._members[name] = member
        return member

    def leave(self, member: Member, why: str = "has left") -> None:
        """Let somebody out; tell all others. Does nothing for who is not there."""
        if self._members.get(member.name.casefold()) is member:
            del self._members[member.name.casefold()]
            self.tell(f"* {member.name} {why}")

    def tell(self, line: str, but: Member | None = None) -> None:
        """Let all hear `line`, `but` one."""
        for member in list(self._members.values()):
            if member is not but:
                member.hear(line)

    def close(self) -> None:
        """Let all out at once: nobody hears who leaves."""
        self._members.clear()

    def take(self, member: Member, line: str) -> bool:
        """Pass on what a member says, or do what it asks for; False: it wants to go."""
        command, _, argument = line.partition(" ")
        match command:
            case "":
                pass
            case "/quit":
                return False
            case "/who":
                names = sorted(one.name for one in self._members.values())
                member.hear(f"* {len(names)} here: {', '.join(names)}")
            case "/nick":
                self._rename(member, argument.strip())
            case _ if command.startswith("/"):
                member.hear(f"! no such command: {command}")
            case _:
                self.tell(f"<{member.name}> {line}", but=member)
        return True

    def _rename(self, member: Member, name: str) -> None:
        key = name.casefold()
        if not re.fullmatch(r"\w{1,20}", name):
            member.hear("! a name has 1 to 20 letters, digits and underscores")
        elif self._members.get(key, member) is not member:
            member.hear(f"! {name} is taken")
        else:
            del self._members[member.name.casefold()]
            self.tell(f"* {member.name} is now {name}")
            member.name = name
            self._members[key] = member
            member.hear(f"* you are {name}")


def text_of(line: bytes) -> str:
    """Return what a line says, without its end.

    Raises:
        ValueError: it is not UTF-8, or holds what cannot be printed.
    """
    try:
        text = line.decode().strip().replace("\t", " ")
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    if not text.isprintable():
        raise ValueError("control characters")
    return text


async def next_line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line; b"" at the end.

    Raises:
        ValueError: the line was longer than the reader's limit; it has been skipped.
        ConnectionError: the client has vanished.
    """
    too_long = False
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.LimitOverrunError as error:
            await reader.readexactly(error.consumed)  # is there, and thrown away
            too_long = True
            continue
        except asyncio.IncompleteReadError as error:
            line = error.partial  # the last may lack its end
        if too_long:
            raise ValueError(f"more than {LINE_LIMIT} bytes")
        return line


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """End the own side, read on to the client's end, close: see example03.

    Raises:
        ConnectionError: the client has vanished.
        TimeoutError: it has not ended its side within GRACE.
    """
    async with asyncio.timeout(GRACE):
        writer.write_eof()  # when all is written
        while await reader.read(LINE_LIMIT):
            pass
        writer.close()
        await writer.wait_closed()


class Outbox:
    """Writes lines to a client without ever waiting for it.

    Attributes:
        overrun: bytes that waited for the client when it was cut off; 0 if it was not.
    """

    def __init__(self, transport: asyncio.WriteTransport, limit: int) -> None:
        self.overrun = 0
        self._transport = transport
        self._limit = limit
        self._lines: list[str] = []

    def put(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_soon(self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what there is; cut the client off if too much is left."""
        if self._lines and not self._transport.is_closing():
            self._transport.write("".join(f"{one}\n" for one in self._lines).encode())
            waiting = self._transport.get_write_buffer_size()
            if waiting > self._limit:
                self.overrun = waiting
                self._transport.abort()
        self._lines.clear()


class ChatServer:
    """A room on `port` (0: a free one), open for the length of an `async with` block.

    Attributes:
        port: the one that it has.
        overruns: bytes that waited for each client that was cut off.
    """

    def __init__(self, port: int = 0, buffer_limit: int = BUFFER_LIMIT) -> None:
        self.port = port
        self.overruns: list[int] = []
        self.room = Room()
        self._buffer_limit = buffer_limit
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._talking: set[asyncio.Timeout] = set()  # until the server ends
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, HOST, self.port, limit=LINE_LIMIT, backlog=512
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Tell all goodbye, and hang up."""
        try:
            # Who is being accepted in this turn is connected before the timer rings.
            await asyncio.sleep(0.001)
            self._server.close()
            self._stopping = True
            self.room.close()
            await asyncio.sleep(0.001)  # who was just accepted begins its conversation
            for talking in self._talking:
                talking.reschedule(asyncio.get_running_loop().time())
            if self._clients:
                await asyncio.wait(self._clients, timeout=GRACE)
        finally:
            self._server.close()
            for task in self._clients:
                task.cancel()
            if self._clients:
                await asyncio.wait(self._clients)

    def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # A plain function: no client is connected without being known here.
        def ended(task: asyncio.Task[None]) -> None:
            writer.transport.abort()  # does nothing to one that is closed
            del self._clients[task]

        # What a client does not take is to wait here, where it is seen, not in a
        # buffer of the system that may grow to megabytes.
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_LIMIT)
        task = asyncio.create_task(self._converse(reader, writer))
        self._clients[task] = writer
        task.add_done_callback(ended)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        outbox = Outbox(writer.transport, self._buffer_limit)
        member = self.room.join(outbox.put)
        why = "has left"
        talking = asyncio.timeout(None)
        try:
            try:
                async with talking:
                    self._talking.add(talking)
                    await self._take_lines(reader, member, outbox)
            except TimeoutError:
                if not talking.expired():  # but the system gave up an idle connection
                    raise
            finally:
                self._talking.discard(talking)
            if outbox.overrun:
                why = "does not read, and was cut off"
                self.overruns.append(outbox.overrun)
                return
            outbox.put("* the server is going down" if self._stopping else "* goodbye")
            outbox.flush()
            self.room.leave(member)  # nothing can be written after hanging up
            await hang_up(reader, writer)
        except OSError:  # among them TimeoutError
            why = "has vanished"
        finally:
            self.room.leave(member, why)

    async def _take_lines(
        self, reader: asyncio.StreamReader, member: Member, outbox: Outbox
    ) -> None:
        while not self._stopping:
            try:
                line = await next_line(reader)
                if self._stopping or not line:
                    return
                if not self.room.take(member, text_of(line)):
                    return
            except ValueError as error:
                outbox.put(f"! refused: {error}")
            await asyncio.sleep(0)  # who sends much lets others have a turn


class Client:
    """A client of the server at `port`, as an asynchronous context manager."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        streams = await asyncio.open_connection(HOST, self._port)
        self.reader, self.writer = streams
        self.name = (await self.line()).split()[3].rstrip(";")
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    async def line(self) -> str:
        """Return the next line that the client hears; "" at the end."""
        return (await self.reader.readline()).decode().rstrip("\n")

    async def ask(self, line: bytes) -> str:
        """Send a line, and return the next that the client hears."""
        self.writer.write(line + b"\n")
        return await self.line()


async def faults() -> dict[str, str]:
    """Return what is answered to all kinds of lines, and what others hear."""
    got = {}
    async with (
        asyncio.timeout(TIME_LIMIT),
        ChatServer() as server,
        Client(server.port) as other,
    ):
        async with Client(server.port) as client:
            await other.line()  # it has joined
            got["/nick Ann"] = await client.ask(b"/nick Ann")
            got["others hear"] = await other.line()
            got["/nick ann, another"] = await other.ask(b"/nick ann")
            got["/nick a b"] = await client.ask(b"/nick a b")
            got["/dance"] = await client.ask(b"/dance")
            got["bytes FF FE"] = await client.ask(b"\xff\xfe")
            got["escape sequence"] = await client.ask(b"\x1b[2J")
            got[f"{2 * LINE_LIMIT} times x"] = await client.ask(2 * LINE_LIMIT * b"x")
            got["empty line, /who"] = await client.ask(b"\r\n/who\r")
            got["/quit"] = await client.ask(b"/quit")
            got["the end"] = repr(await client.line())
            client.writer.close()
            got["others hear then"] = await other.line()
        async with Client(server.port) as client:
            await other.line()
            client.writer.write(b"half a li")
            sock = client.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.writer.transport.abort()
            got["reset in mid-line"] = await other.line()
    return got


EXPECTED = {
    "/nick Ann": "* you are Ann",
    "others hear": "* guest2 is now Ann",
    "/nick ann, another": "! ann is taken",
    "/nick a b": "! a name has 1 to 20 letters, digits and underscores",
    "/dance": "! no such command: /dance",
    "bytes FF FE": "! refused: not UTF-8",
    "escape sequence": "! refused: control characters",
    f"{2 * LINE_LIMIT} times x": f"! refused: more than {LINE_LIMIT} bytes",
    "empty line, /who": "* 2 here: Ann, guest1",
    "/quit": "* goodbye",
    "the end": "''",
    "others hear then": "* Ann has left",
    "reset in mid-line": "* guest3 has vanished",
}


def demonstrate() -> None:
    """Check what is answered, and print it."""
    got = asyncio.run(faults())
    for said, heard in got.items():
        print(f"{said:20}  {heard}")
    if got != EXPECTED:
        raise SystemExit("the answers were to be others")
    print("whoever is at fault is told, and the others hear nothing of it")


async def serve(port: int) -> None:
    """Serve until cancelled."""
    async with ChatServer(port) as server:
        print(f"serving on {HOST} port {server.port} until Ctrl-C", flush=True)
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
    if not options.serve:
        demonstrate()
        return
    try:
        asyncio.run(serve(options.port))
    except KeyboardInterrupt:
        pass  # by now all is closed
    except OSError as error:
        raise SystemExit(f"port {options.port}: {error}") from None


if __name__ == "__main__":
    main()
