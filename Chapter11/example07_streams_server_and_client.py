"""Streams: each conversation is a coroutine that reads and writes from top to bottom.

start_server calls back for each client with a reader and a writer, and each gets a task
of its own. A Protocol is called when something happens and has to remember where it
was; a coroutine just stands there, so time-outs, loops and clean-up are ordinary code.
Take streams for conversations; take a Protocol where each byte counts (proxies, very
many connections), as it needs no task, or for a library that others build upon.

A line may be longer than the reader's limit: readline raises ValueError, readuntil
LimitOverrunError. A client may be silent, or not read: drain waits for it, so limit
that, too. It may end too early: readexactly raises IncompleteReadError. And an error
that nobody foresaw is to end one conversation, and not the others.

The callback here is a plain function, which starts the task and keeps it. Of a
coroutine asyncio makes a task that nobody else can cancel or wait for.

Try:  --serve --port 8000
Try:  --clients 100

Output:
    20 clients, all connected before the first was answered
    6 3              2
    six 3            error: two integers, please
    1 0              no answer, but a log entry
    1025 times 1     line too long
    8 4, end         2 of 10 bytes, then the end
    9 3, the first   3
    nothing          silent for too long
    never reads      cut off
    one client's error ended one conversation
"""

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from logging.handlers import BufferingHandler

HOST = "127.0.0.1"
LINE_LIMIT = 1024  # bytes
PATIENCE = 60.0  # seconds that a client may be silent, or not read
LINGER = 2.0  # seconds that it has in the end to end its side, too
SHORT = 0.05  # seconds, in place of PATIENCE
MUCH = 2**24  # bytes, more than any system takes for who does not read
TIME_LIMIT = 20.0  # seconds for the whole demonstration
LOG = logging.getLogger("line server")

Answer = Callable[[bytes], Awaitable[bytes]]  # raises ValueError at a bad question


async def converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Answer,
    patience: float = PATIENCE,
) -> None:
    """Answer each line of one client, until it ends or does what it must not.

    Errors end here: a ValueError of `answer` is told to the client, any other one is
    logged. The caller aborts the transport, if need be.
    """
    try:
        while True:
            try:
                async with asyncio.timeout(patience):
                    line = await reader.readline()
            except ValueError:
                writer.write(b"line too long\n")
                break
            except TimeoutError:
                writer.write(b"silent for too long\n")
                break
            if not line:
                break
            try:
                writer.write(await answer(line) + b"\n")
            except ValueError as error:
                writer.write(f"error: {error}\n".encode())
            except Exception:
                LOG.exception("conversation with %s", writer.get_extra_info("peername"))
                break
            async with asyncio.timeout(patience):
                await writer.drain()
            await asyncio.sleep(0)  # who sends much lets others have a turn
        await hang_up(reader, writer)
    except OSError:
        pass  # it has vanished, or does not read


async def hang_up(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, linger: float = LINGER
) -> None:
    """End the own side, read on to the client's end, close: see example03.

    Raises:
        ConnectionError: the client has vanished.
        TimeoutError: it has not ended its side within `linger` seconds.
    """
    async with asyncio.timeout(linger):
        writer.write_eof()  # when all is written; not over TLS
        while await reader.read(LINE_LIMIT):
            pass
        writer.close()
        await writer.wait_closed()


@asynccontextmanager
async def listening(
    answer: Answer, port: int = 0, patience: float = PATIENCE, limit: int = LINE_LIMIT
) -> AsyncIterator[int]:
    """Serve on `port`, or for 0 on a free one, which is given.

    In the end, all conversations are cancelled.

    Raises:
        OSError: the port cannot be had.
    """
    conversations: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def ended(task: asyncio.Task[None]) -> None:
            # Not in the coroutine: cancelled at once, it does not even begin.
            writer.transport.abort()
            conversations.discard(task)

        task = asyncio.create_task(converse(reader, writer, answer, patience))
        conversations.add(task)
        task.add_done_callback(ended)

    server = await asyncio.start_server(connected, HOST, port, limit=limit, backlog=512)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        # Neither serve_forever() nor wait_closed(): before Python 3.12 they do not wait
        # for clients, and from then on for some that nobody has told to go.
        try:
            # Who is accepted in this turn of the loop is attached to the server in the
            # next, which fails if that is closed by then, and connected in one more. A
            # timer runs after the accepting of its turn, and we go on a turn later.
            await asyncio.sleep(0.001)
            server.close()
            await asyncio.sleep(0.001)
        finally:  # after another cancel, too
            server.close()
            for task in conversations:
                task.cancel()
        if conversations:
            await asyncio.wait(conversations)


class Client:
    """One end of a connection to `port`, as an asynchronous context manager."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "Client":
        streams = await asyncio.open_connection(HOST, self._port)
        self.reader, self.writer = streams
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def ask(self, line: str) -> str:
        """Send a line; return the answer; nothing if the server ends first."""
        self.writer.write(f"{line}\n".encode())
        await self.writer.drain()
        return (await self.reader.readline()).decode().strip()


async def divide(line: bytes) -> bytes:
    """Divide the first of two integers by the second. (Its author forgot zero.)

    Raises:
        ValueError: the line does not hold two integers.
    """
    try:
        dividend, divisor = map(int, line.split())
    except ValueError:
        raise ValueError("two integers, please") from None
    return str(dividend // divisor).encode()


async def ask_together(n_clients: int) -> list[str]:
    """Let many clients ask; nobody is answered before all have asked."""
    all_have_asked = asyncio.Barrier(n_clients)

    async def divide_together(line: bytes) -> bytes:
        await all_have_asked.wait()
        return await divide(line)

    async def ask(port: int, number: int) -> str:
        async with Client(port) as client:
            return await client.ask(f"{3 * number} 3")

    async with listening(divide_together) as number, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(number, n)) for n in range(n_clients)]
    return [task.result() for task in tasks]


async def misbehave() -> dict[str, str]:
    """Return by question what came back; one client is there from first to last."""
    got = {}
    async with listening(divide) as port, Client(port) as steady:
        got["6 3"] = await steady.ask("6 3")
        got["six 3"] = await steady.ask("six 3")
        async with Client(port) as other:
            got["1 0"] = await other.ask("1 0") or "no answer, but a log entry"
        async with Client(port) as other:
            got["1025 times 1"] = await other.ask((LINE_LIMIT + 1) * "1")
        async with Client(port) as other:
            other.writer.write(b"8 4\n")
            other.writer.write_eof()
            try:
                await other.reader.readexactly(10)
            except asyncio.IncompleteReadError as error:
                got["8 4, end"] = f"{len(error.partial)} of 10 bytes, then the end"
        got["9 3, the first"] = await steady.ask("9 3")
    async with listening(divide, patience=SHORT) as port, Client(port) as silent:
        got["nothing"] = (await silent.reader.readline()).decode().strip()

    conversation = asyncio.get_running_loop().create_future()

    async def much(_: bytes) -> bytes:
        conversation.set_result(asyncio.current_task())
        return bytes(MUCH)

    async with listening(much, patience=SHORT) as port, Client(port) as other:
        other.writer.write(b"\n")
        await asyncio.wait([await conversation])  # never over, without the limit
        got["never reads"] = "cut off"
    return got


async def demonstrate(n_clients: int) -> tuple[list[str], dict[str, str]]:
    """Return what the two functions above return."""
    async with asyncio.timeout(TIME_LIMIT):
        return await ask_together(n_clients), await misbehave()


async def serve(port: int) -> None:
    """Divide until cancelled."""
    async with listening(divide, port) as number:
        print(f"serving on {HOST} port {number} until Ctrl-C", flush=True)
        await asyncio.Event().wait()


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be in 0 … 65535, not {number}")
    return number


def some(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 400:
        raise argparse.ArgumentTypeError(f"must be in 1 … 400, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=some, default=20)
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

    log = BufferingHandler(100)
    LOG.addHandler(log)
    together, got = asyncio.run(demonstrate(options.clients))
    if together != [str(number) for number in range(options.clients)]:
        raise SystemExit(f"answers to clients that asked together: {together}")
    print(f"{options.clients} clients, all connected before the first was answered")
    for question, answer in got.items():
        print(f"{question:15}  {answer}")
    if list(got.values()) != [
        "2",
        "error: two integers, please",
        "no answer, but a log entry",
        "line too long",
        "2 of 10 bytes, then the end",
        "3",
        "silent for too long",
        "cut off",
    ]:
        raise SystemExit("the answers were to be others")
    errors = [record.exc_info[0] for record in log.buffer if record.exc_info]
    if errors != [ZeroDivisionError]:
        raise SystemExit(f"the bug, and nothing else, was to be logged: {errors}")
    print("one client's error ended one conversation")


if __name__ == "__main__":
    main()
