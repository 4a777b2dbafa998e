"""An echo server: what to do with a client that sends and never reads.

An echo needs no lines: every portion is written back as it comes. But write() never
waits. What the client does not take stays in the transport's buffer, and a client that
sends and never reads makes the server keep all that it sends.

Above its high-water mark the transport calls pause_writing, below the low one
resume_writing. The mend is to read nothing while there is too much to write. Then the
client's own sending stalls, as TCP passes the pressure back, and the buffer holds no
more than the mark and what one read brought. That is backpressure. Other clients do
not notice, and nothing is lost: as soon as it reads, it gets all.

Book: Chapter 11, example2.
Try:  --serve --port 8000
Try:  --clients 100

Output:
    20 clients at a time: each got its own bytes back
    one that does not read:
      it sends                2.0 MiB
      server reads all        1.7 MiB in its buffer
      server pauses reading   0.3 MiB in its buffer at most
    others are answered meanwhile; once it reads, it gets every byte
"""

import argparse
import asyncio
import socket
from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

HOST = "127.0.0.1"
HIGH_WATER = 65_536  # bytes to write at which reading pauses
FLUSH_LIMIT = 1.0  # seconds that clients have in the end to take what is theirs
TIME_LIMIT = 20.0  # seconds for each step of the demonstration
KERNEL_BUFFER = 65_536  # bytes, so that little fits between server and client
FLOOD = array("I", range(2**19)).tobytes()  # 2 MiB, no part of it like another
MIB = 2**20


class Echo(asyncio.Protocol):
    """Sends back to one client all that it sends, and reads no faster than it does.

    Args:
        connections: all that are open; this one adds and removes itself.
        high_water: bytes in the transport's buffer above which nothing is read.
    """

    def __init__(self, connections: "set[Echo]", high_water: int = HIGH_WATER) -> None:
        self._connections = connections
        self._high_water = high_water

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(self._high_water)
        self.lost = asyncio.get_running_loop().create_future()
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    # There is no eof_received: the transport then writes what it has, and closes.

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if not self.lost.done():  # cancelled with a task that awaited it
            self.lost.set_result(None)


@asynccontextmanager
async def listening(
    make: Callable[[set[Echo]], Echo] = Echo, port: int = 0
) -> AsyncIterator[int]:
    """Serve on `port`, or for 0 on a free one, which is given; in the end, hang up.

    Clients get what is to be written to them, if they take it within FLUSH_LIMIT and
    send nothing more; see example03.

    Raises:
        OSError: the port cannot be had.
    """
    connections: set[Echo] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(
        lambda: make(connections), HOST, port, backlog=512
    )
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
            for echo in connections:
                echo.transport.close()
            if connections:
                await asyncio.wait([e.lost for e in connections], timeout=FLUSH_LIMIT)
        finally:  # after another cancel, too
            server.close()
            for echo in connections:
                echo.transport.abort()
        if connections:
            await asyncio.wait([echo.lost for echo in connections])


class Measured(Echo):
    """Tells how much the transport's buffer held, and when nothing more will come."""

    def __init__(self, connections: set[Echo]) -> None:
        super().__init__(connections)
        self.received = self.largest_read = self.most_buffered = 0
        self.settled = asyncio.Event()  # all has been received, or reading has paused

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)

    def data_received(self, data: bytes) -> None:
        self.received += len(data)
        self.largest_read = max(self.largest_read, len(data))
        super().data_received(data)
        buffered = self.transport.get_write_buffer_size()
        self.most_buffered = max(self.most_buffered, buffered)
        if self.received == len(FLOOD) or not self.transport.is_reading():
            self.settled.set()


class Careless(Measured):
    """The same with the defect: it reads on, whatever there is to write."""

    def pause_writing(self) -> None:
        pass

    def resume_writing(self) -> None:
        pass


async def ask(port: int, data: bytes, ready: asyncio.Barrier) -> bytes:
    """Connect, wait until all are `ready`, send `data`, return what comes back."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        await ready.wait()
        writer.write(data)
        writer.write_eof()
        return await reader.read()
    finally:
        writer.close()


async def ask_together(port: int, n_clients: int) -> bool:
    """Tell whether each of many clients gets back its own bytes, and no others."""
    ready = asyncio.Barrier(n_clients)
    sent = [f"client {number}\n".encode() for number in range(n_clients)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(port, data, ready)) for data in sent]
    return [task.result() for task in tasks] == sent


async def flood(kind: type[Measured]) -> tuple[Measured, bytes]:
    """Send FLOOD to a server of that `kind`, and read only when nothing else goes on.

    Another client is answered meanwhile.

    Returns:
        The server's side, and what came back in the end.
    """
    made: list[Measured] = []

    def make(connections: set[Echo]) -> Echo:
        made.append(kind(connections))
        return made[-1]

    loop = asyncio.get_running_loop()
    came_back = bytearray()
    async with listening(make) as port:
        with socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
            await loop.sock_connect(client, (HOST, port))
            async with asyncio.TaskGroup() as group:
                group.create_task(loop.sock_sendall(client, FLOOD))
                while not made:  # accepting takes the loop a few turns
                    await asyncio.sleep(0)
                await made[0].settled.wait()
                if not await ask_together(port, 1):
                    raise SystemExit("another client was not answered meanwhile")
                while portion := await loop.sock_recv(client, MIB):
                    came_back += portion
                    if len(came_back) >= len(FLOOD):
                        break
    return made[0], bytes(came_back)


async def demonstrate(n_clients: int) -> None:
    """Check each claim, and print it."""
    async with asyncio.timeout(TIME_LIMIT), listening() as port:
        if not await ask_together(port, n_clients):
            raise SystemExit("a client did not get what it sent")
    print(f"{n_clients} clients at a time: each got its own bytes back")

    print("one that does not read:")
    print(f"  it sends                {len(FLOOD) / MIB:.1f} MiB")
    async with asyncio.timeout(TIME_LIMIT):
        careless, _ = await flood(Careless)
    if careless.most_buffered < len(FLOOD) // 2:
        raise SystemExit("the careless server did not keep what it could not write")
    kept = careless.most_buffered / MIB
    print(f"  server reads all        {kept:.1f} MiB in its buffer")
    async with asyncio.timeout(TIME_LIMIT):
        echo, came_back = await flood(Measured)
    if echo.most_buffered > HIGH_WATER + echo.largest_read:
        raise SystemExit(f"{echo.most_buffered} bytes were in the buffer")
    kept = echo.most_buffered / MIB
    print(f"  server pauses reading   {kept:.1f} MiB in its buffer at most")
    if came_back != FLOOD:
        raise SystemExit(f"{len(came_back)} bytes came back, or others than were sent")
    print("others are answered meanwhile; once it reads, it gets every byte")


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
    if not options.serve:
        asyncio.run(demonstrate(options.clients))
        return
    try:
        asyncio.run(serve(options.port))
    except KeyboardInterrupt:
        pass  # by now all is closed
    except OSError as error:
        raise SystemExit(f"port {options.port}: {error}") from None


if __name__ == "__main__":
    main()
