"""An echo server and a hundred clients at once, in one thread, on our own event loop.

The loop is that of `event_loop.py`. Server and clients are ordinary coroutines: they
read as if each were alone, with a loop, a `try`, a `with`. Wherever a socket would make
them wait, the loop runs somebody else. That all hundred are served side by side is not
left to luck: nobody sends a byte before all are connected, so that a server that serves
one after the other would wait for ever.

One more client hangs up in mid-message, with a reset; nobody else notices.

Try:  --clients 3 --messages 1000

Output:
    connected at the same time     101
    hung up in mid-message           1
    messages echoed               1000
    13,498 /s, in one thread
"""

import argparse
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from event_loop import CancelledError, Future, Loop, Task

SIZE = 4096  # bytes that are read at a time
MOST = 100  # clients; each takes two sockets, and some systems allow but 256


class EchoServer:
    """Sends back what it receives, to any number of clients at a time.

    Attributes:
        address: where it listens: the loopback interface, a free port.
        most: the highest number of clients connected at the same time.
        broken: how many connections have ended with an error.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._listener.setblocking(False)
        self._clients: dict[Task[None], socket.socket] = {}
        self.address: Any = self._listener.getsockname()
        self.most = self.broken = 0

    async def serve(self) -> None:
        """Accept clients until cancelled, then serve those there are to their end.

        Cancelled once more, it hangs up on them.
        """
        try:
            with self._listener:
                while True:
                    connection, _ = await self._loop.sock_accept(self._listener)
                    client = self._loop.create_task(self._echo(connection))
                    self._clients[client] = connection
                    client.when_done.append(self._ended)
                    self.most = max(self.most, len(self._clients))
        finally:
            try:
                for client in list(self._clients):
                    await client
            finally:
                for client in self._clients:
                    client.cancel()

    async def _echo(self, connection: socket.socket) -> None:
        try:
            while data := await self._loop.sock_recv(connection, SIZE):
                await self._loop.sock_sendall(connection, data)
        except OSError:  # a reset, or a network that is gone
            self.broken += 1

    def _ended(self, client: Task[None]) -> None:
        # Not in the coroutine: cancelled at once, it does not even begin.
        self._clients.pop(client).close()


async def ask(
    loop: Loop,
    address: Any,
    messages: Sequence[bytes],
    connected: Callable[[], Awaitable[None]],
) -> list[bytes]:
    """Send `messages`, each after the answer to the one before; return the answers.

    Args:
        connected: awaited between the connection and the first message.

    Raises:
        ConnectionError: the server hung up, or was not there.
    """
    answers = []
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, address)
        await connected()
        for message in messages:
            await loop.sock_sendall(connection, message)
            answer = b""
            while len(answer) < len(message):
                data = await loop.sock_recv(connection, len(message) - len(answer))
                if not data:
                    raise ConnectionAbortedError("the server hung up")
                answer += data
            answers.append(answer)
    return answers


async def hang_up(
    loop: Loop, address: Any, connected: Callable[[], Awaitable[None]]
) -> None:
    """Send the beginning of a message, and reset the connection."""
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, address)
        await connected()
        await loop.sock_sendall(connection, b"this is not all I wan")
        at_once = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)


async def exchange(
    loop: Loop, n_clients: int, n_messages: int
) -> tuple[EchoServer, bool]:
    """Let clients talk to a server; tell whether each got its own messages back."""
    server = EchoServer(loop)
    serving = loop.create_task(server.serve())
    everybody_is_there = Future[None](loop)
    connected = 0

    async def arrive() -> None:
        nonlocal connected
        connected += 1
        if connected == n_clients + 1:
            everybody_is_there.set_result(None)
        await everybody_is_there

    rude = loop.create_task(hang_up(loop, server.address, arrive))
    sent = [
        [
            f"message {number} of client {client}".encode()
            for number in range(n_messages)
        ]
        for client in range(n_clients)
    ]
    clients = [
        loop.create_task(ask(loop, server.address, messages, arrive))
        for messages in sent
    ]

    def ended(task: Task[Any]) -> None:
        try:
            task.result()
        except CancelledError:
            pass
        except Exception as error:
            if not failed:
                failed.append(error)
            for other in tasks:  # who would wait for it in vain
                other.cancel()

    failed: list[Exception] = []
    tasks: list[Task[Any]] = [serving, rude, *clients]
    for task in tasks:
        task.when_done.append(ended)
    try:
        answers = [await client for client in clients]
    except CancelledError:
        if failed:
            raise failed[0] from None
        raise
    await rude
    # Not `await serving`: the CancelledError could be its own, or for us.
    over = Future[None](loop)

    def server_ended(_: Task[None]) -> None:
        if not over.done():  # nobody has cancelled us meanwhile
            over.set_result(None)

    serving.when_done.append(server_ended)
    serving.cancel()
    await over
    return server, answers == sent


def up_to(most: int) -> Callable[[str], int]:
    """Return the check of an option whose value must be in 1 … `most`."""

    def number(text: str) -> int:
        value = int(text)
        if not 1 <= value <= most:
            raise argparse.ArgumentTypeError(f"must be in 1 … {most}, not {value}")
        return value

    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=up_to(MOST), default=MOST)
    parser.add_argument("--messages", type=up_to(10_000), default=10)
    options = parser.parse_args()

    loop = Loop()
    began = time.perf_counter()
    server, echoed = loop.run(exchange(loop, options.clients, options.messages))
    took = time.perf_counter() - began

    print(f"connected at the same time  {server.most:6}")
    print(f"hung up in mid-message      {server.broken:6}")
    if (server.most, server.broken) != (options.clients + 1, 1):
        raise SystemExit("the server did not have all of them at the same time")
    if not echoed:
        raise SystemExit("somebody got something else than their own messages")
    total = options.clients * options.messages
    print(f"messages echoed             {total:6}")
    print(f"{total / took:,.0f} /s, in one thread")


if __name__ == "__main__":
    main()
