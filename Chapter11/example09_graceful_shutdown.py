"""Graceful shutdown: nobody new, what has begun is finished, and then a deadline.

A service manager sends SIGTERM and kills what is still there some seconds later; at a
terminal, Ctrl-C sends SIGINT. Until then the server has this order to keep:

1. Close the listener, so that new clients are refused and can go elsewhere.
2. Tell idle clients goodbye. Those in mid-message may finish it, and are answered
   first. Whoever has sent several learns from the goodbye that the rest was not taken,
   as from HTTP/2's GOAWAY; else a busy client would keep the server until the deadline.
3. Whoever has not finished at the deadline is cut off.

So a conversation must know whether it is idle. It waits for the first byte of a message
under a time-out; shutting down moves that time-out to now, and leaves those alone that
wait for the rest of a message, for its answer, or for the client to read. A handler of
signals only sets an event: it may run between any two steps. A second Ctrl-C does not
wait for the deadline. Server.wait_closed alone will not do: before Python 3.12 it does
not wait, and from then on it waits for clients that nobody has told anything.

Try:  --serve --port 8000

Output:
    SIGTERM comes, and each client gets:
    idle             goodbye
    new              refused
    in mid-message   HELLO, goodbye
    being answered   THINK, goodbye
    cut off          0
    with a deadline  2 that did not finish, cut off after 0.05 s
"""

import argparse
import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Self

HOST = "127.0.0.1"
GRACE = 5.0  # seconds from the stop to the deadline
PATIENCE = 60.0  # seconds that a client may be silent, in mid-message, or not read
LINGER = 0.5  # seconds that a client has in the end to end its side, too
LINE_LIMIT = 65_536  # bytes
LOG = logging.getLogger("graceful server")
TIME_LIMIT = 20.0  # seconds for the whole demonstration
SHORT = 0.05  # seconds, in place of GRACE
SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGBREAK")  # the last on Windows alone
    if hasattr(signal, name)
]


class GracefulServer:
    """Answers lines on `port` (0: a free one) and stops in order at the end of a block.

    After an exception, a cancel for one, everybody is cut off at once.

    Args:
        answer: called with each line; returns what is sent back. What it raises is
            logged, and ends the conversation.
        grace: seconds that clients have to finish when the server stops.

    Attributes:
        port: the one that it has.
        conversations: a task for each client that is connected.
        idle: a time-out for each of them that has not begun a message.
        cut_off: how many had not finished at the deadline.
    """

    def __init__(
        self,
        answer: Callable[[bytes], Awaitable[bytes]],
        port: int = 0,
        grace: float = GRACE,
        patience: float = PATIENCE,
    ) -> None:
        self.port = port
        self.cut_off = 0
        self._answer = answer
        self._grace = grace
        self._patience = patience
        self.conversations: set[asyncio.Task[None]] = set()
        self.idle: set[asyncio.Timeout] = set()
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected, HOST, self.port, limit=LINE_LIMIT
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.stop(self._grace if kind is None else 0)

    async def stop(self, grace: float) -> None:
        """Take nobody new; return when all have finished or been cut off.

        Cancelled, it cuts off all that are left.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        self._stopping = True
        try:
            # Who is accepted in this turn of the loop is attached to the server in the
            # next, which fails if that is closed by then, and connected in one more. A
            # timer runs after the accepting of its turn, and we go on a turn later.
            await asyncio.sleep(0.001)
            self._server.close()
            for scope in self.idle:
                self._end_now(scope)
            await asyncio.sleep(0.001)
            while self.conversations and loop.time() < deadline:
                left = deadline - loop.time()
                await asyncio.wait(self.conversations, timeout=left)
        finally:
            self._server.close()
            late = [task for task in self.conversations if not task.cancelling()]
            self.cut_off += len(late)
            for task in late:
                task.cancel()
            if self.conversations:
                await asyncio.wait(self.conversations)
        await self._server.wait_closed()  # by now at once

    def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # A plain function: no client is connected without being in the set.
        def ended(task: asyncio.Task[None]) -> None:
            writer.transport.abort()  # does nothing to one that is closed
            self.conversations.discard(task)

        task = asyncio.create_task(self._converse(reader, writer))
        self.conversations.add(task)
        task.add_done_callback(ended)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # Silent for too long, gone, gone in mid-message, line too long: no more to say.
        with suppress(OSError, asyncio.IncompleteReadError):
            while line := await self._first_byte(reader):
                try:
                    async with asyncio.timeout(self._patience):
                        if line != b"\n":
                            line += await reader.readuntil(b"\n")
                except asyncio.LimitOverrunError:
                    break
                try:
                    writer.write(await self._answer(line))
                except Exception:
                    LOG.exception("no answer to %r", line)
                    break
                async with asyncio.timeout(self._patience):
                    await writer.drain()
                await asyncio.sleep(0)  # who sends much lets others have a turn
                if self._stopping:  # the rest of what it has sent is not taken
                    line = None
                    break
            if line is None:
                writer.write(b"goodbye\n")
            # Closed with unread bytes, the connection would be reset, and the reset
            # may overtake the answer. So read to the client's end; see example03.
            async with asyncio.timeout(LINGER):
                writer.write_eof()
                while await reader.read(LINE_LIMIT):
                    pass
                writer.close()
                await writer.wait_closed()

    async def _first_byte(self, reader: asyncio.StreamReader) -> bytes | None:
        """Wait for a message to begin. b"": the client has ended; None: stopping."""
        scope = asyncio.timeout(self._patience)
        try:
            async with scope:
                self.idle.add(scope)
                if self._stopping:
                    self._end_now(scope)
                return await reader.read(1)
        except TimeoutError:
            if not self._stopping:
                raise
            # The byte may have come in the same turn. Then it is here already, and
            # read returns before the time-out strikes.
            with suppress(TimeoutError):
                async with asyncio.timeout(0):
                    return await reader.read(1)
            return None
        finally:
            self.idle.discard(scope)

    def _end_now(self, scope: asyncio.Timeout) -> None:
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())


@contextmanager
def signals_call(
    callback: Callable[[], object], numbers: Iterable[signal.Signals] = SIGNALS
) -> Iterator[None]:
    """Call `callback` in the running loop at a signal, which then does nothing else.

    In the main thread only. In the end, the signals do again what they did before.
    """
    loop = asyncio.get_running_loop()
    before = {}
    for number in numbers:
        before[number] = signal.getsignal(number)
        try:
            loop.add_signal_handler(number, callback)
        except NotImplementedError:  # on Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(callback))
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, handler)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop take turns until it holds."""
    while not condition():
        await asyncio.sleep(0)


class Client:
    """A client of `server` that has sent something, if only a part of a message."""

    def __init__(self, server: GracefulServer, sends: bytes = b"") -> None:
        self._server = server
        self._sends = sends

    async def __aenter__(self) -> Self:
        idle = len(self._server.idle)
        streams = await asyncio.open_connection(HOST, self._server.port)
        self._reader, self.writer = streams
        await until(lambda: len(self._server.idle) == idle + 1)
        if self._sends:
            self.writer.write(self._sends)
            await until(lambda: len(self._server.idle) == idle)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def rest(self) -> str:
        """Return all that the server sends, to its end."""
        return (await self._reader.read()).decode().strip().replace("\n", ", ")


async def stop_by_signal() -> dict[str, str]:
    """Send SIGTERM to this process, with clients in every state.

    Returns:
        By state, what the client gets.
    """
    stopping, thought = asyncio.Event(), asyncio.Event()

    async def answer(line: bytes) -> bytes:
        if line == b"think\n":
            await thought.wait()
        return line.upper()

    server = GracefulServer(answer, grace=TIME_LIMIT)
    async with (
        server,
        Client(server) as idle,
        Client(server, b"hel") as in_message,
        Client(server, b"think\n") as being_answered,
    ):
        with signals_call(stopping.set, [signal.SIGTERM]):
            signal.raise_signal(signal.SIGTERM)
            await stopping.wait()
        stop = asyncio.create_task(server.stop(TIME_LIMIT))
        got = {"idle": await idle.rest()}  # while the others go on
        try:
            async with Client(server):
                got["new"] = "connected"
        except ConnectionRefusedError:
            got["new"] = "refused"
        in_message.writer.write(b"lo\n")
        thought.set()
        got["in mid-message"] = await in_message.rest()
        got["being answered"] = await being_answered.rest()
    await stop
    return {**got, "cut off": str(server.cut_off)}


async def stop_at_deadline() -> tuple[int, float]:
    """Call stop() with two clients that will not finish.

    Returns:
        How many were cut off, and after how many seconds.
    """

    async def answer(_: bytes) -> bytes:
        await asyncio.Event().wait()  # for ever
        return b""

    server = GracefulServer(answer)
    async with server, Client(server, b"hel") as one, Client(server, b"think\n") as two:
        began = time.perf_counter()
        await server.stop(SHORT)
        took = time.perf_counter() - began
        if await one.rest() or await two.rest():
            raise SystemExit("who is cut off was not to be answered")
    return server.cut_off, took


async def serve(port: int) -> None:
    """Answer lines in capitals, until a signal comes; then stop in order."""

    async def capitals(line: bytes) -> bytes:
        return line.upper()

    stopping = asyncio.Event()
    async with GracefulServer(capitals, port) as server:
        with signals_call(stopping.set):
            print(f"serving on {HOST} port {server.port} until Ctrl-C", flush=True)
            await stopping.wait()
        # From here on, Ctrl-C cancels this task, and so cuts off who is left.


async def demonstrate() -> tuple[dict[str, str], tuple[int, float]]:
    """Return what the two functions above return."""
    async with asyncio.timeout(TIME_LIMIT):
        return await stop_by_signal(), await stop_at_deadline()


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be in 0 … 65535, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="until Ctrl-C or SIGTERM")
    parser.add_argument("--port", type=port, default=0, help="of --serve; 0: any free")
    options = parser.parse_args()
    if options.port and not options.serve:
        parser.error("--port goes with --serve")
    if options.serve:
        try:
            asyncio.run(serve(options.port))
        except OSError as error:
            raise SystemExit(f"port {options.port}: {error}") from None
        except KeyboardInterrupt:
            pass  # the second Ctrl-C
        return

    got, (cut_off, took) = asyncio.run(demonstrate())
    print("SIGTERM comes, and each client gets:")
    for client, what in got.items():
        print(f"{client:15}  {what}")
    if got != {
        "idle": "goodbye",
        "new": "refused",
        "in mid-message": "HELLO, goodbye",
        "being answered": "THINK, goodbye",
        "cut off": "0",
    }:
        raise SystemExit("not all were told goodbye, refused or answered")
    if cut_off != 2:
        raise SystemExit(f"{cut_off} cut off at the deadline, not 2")
    print(f"with a deadline  2 that did not finish, cut off after {took:.2f} s")


if __name__ == "__main__":
    main()
