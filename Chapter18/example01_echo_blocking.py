"""An echo server with blocking calls serves one client, and all others wait.

`accept` waits for a client, `recv` until something comes from it, `sendall` until the
system has taken what goes to it. Whoever waits does nothing else. That makes the
shortest of all servers, and the code reads as the conversation goes.

What comes is a stream of bytes, at whose end `recv` returns none: the client has ended
its side. The other direction is still open then (half-closed), and the client gets its
bytes all the same.

What breaks it: a client that stays. The second one is connected nevertheless, since the
system takes connections in before they are accepted, and it may send; but it hears
nothing until the first one has left. Even `stop` has to come as a client, for a thread
that blocks notices nothing else. And bytes are not messages yet: for those see
example03.

Book: Chapter 18, example1.
Try:  --serve --port 8000

Output:
    in two pieces  each came back before the next was sent
    a second one   connected and sent; nothing came while the first stayed
    half-closed    by then it had ended its side, and got its bytes still
    one thread that blocks: one client at a time, however long it stays
"""

import argparse
import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

HOST = "127.0.0.1"
SIZE = 4096  # bytes taken at a time, at most
LIMIT = 10.0  # seconds for what is bound to come
GRACE = 0.5  # seconds that a server has to end when something has gone wrong
SHORT = 0.05  # seconds in which nothing comes, for the server waits for another client


class Server:
    """Serves one client after another, with blocking calls.

    Args:
        listener: where clients come; it is not closed.
        talk: has the conversation with one client; a ConnectionError ends only that.
    """

    def __init__(
        self, listener: socket.socket, talk: Callable[[socket.socket], object]
    ) -> None:
        self._listener = listener
        self._talk = talk
        self._stops = False  # set once, by whichever thread; who serves looks at it

    def serve(self) -> None:
        """Serve until `stop`."""
        while not self._stops:
            with suppress(ConnectionError):
                connection, _ = self._listener.accept()
                with connection:
                    if not self._stops:
                        self._talk(connection)

    def stop(self) -> None:
        """Have `serve` return, after the client that it serves now."""
        self._stops = True
        knock(self._listener.getsockname())


def echo(connection: socket.socket) -> None:
    """Send back what comes, until the client ends its side."""
    while data := connection.recv(SIZE):
        connection.sendall(data)


def knock(address: Any) -> None:
    """Come as a client and leave at once: it wakes a server that waits for one."""
    with suppress(OSError):  # the server is gone already
        socket.create_connection(address, LIMIT).close()


@contextmanager
def in_thread(
    serve: Callable[[], object], stop: Callable[[], object]
) -> Iterator[None]:
    """Let `serve` run in a thread during the block; in the end, `stop` it.

    Raises:
        TimeoutError: it does not end.
    """
    thread = threading.Thread(target=serve, daemon=True)
    # Ctrl-C in the midst of connecting leaves a client open, for which a server waits
    # that blocks. Nobody waits for that server then.
    patience = GRACE
    try:
        thread.start()
        yield
        patience = LIMIT
    finally:
        stop()
        if thread.is_alive():
            thread.join(patience)
    if thread.is_alive():
        raise TimeoutError("the server does not end")


def receive(client: socket.socket, n_bytes: int) -> bytes:
    """Return the next `n_bytes`, in whatever portions they come; fewer at the end."""
    data = b""
    while len(data) < n_bytes and (portion := client.recv(n_bytes - len(data))):
        data += portion
    return data


def is_readable(client: socket.socket, timeout: float = 0.0) -> bool:
    """Tell whether something comes within `timeout` seconds, if only the end."""
    with selectors.DefaultSelector() as selector:
        selector.register(client, selectors.EVENT_READ)
        return bool(selector.select(timeout))


def demonstrate(address: Any) -> None:
    """Be two clients at once; check each claim, and print it."""
    with (
        socket.create_connection(address, LIMIT) as first,
        socket.create_connection(address, LIMIT) as second,
    ):
        for piece in (b"hel", b"lo"):
            first.sendall(piece)
            if receive(first, len(piece)) != piece:
                raise SystemExit(f"{piece!r} was to come back")
        print("in two pieces  each came back before the next was sent")

        second.sendall(b"you")
        second.shutdown(socket.SHUT_WR)
        if is_readable(second, SHORT):
            raise SystemExit("the second client was to wait for the first")
        first.sendall(b"!")
        if receive(first, 1) != b"!" or is_readable(second):
            raise SystemExit("the first client was to be served as long as it stays")
        print("a second one   connected and sent; nothing came while the first stayed")

        first.close()
        if receive(second, SIZE) != b"you":
            raise SystemExit("the second client was to be served in the end")
        print("half-closed    by then it had ended its side, and got its bytes still")


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be in 0 … 65535, not {number}")
    return number


def options_of(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Return the options, with two for all servers: --serve and its --port."""
    parser.add_argument("--serve", action="store_true", help="until Ctrl-C")
    parser.add_argument("--port", type=port, default=0, help="of --serve; 0: any free")
    options = parser.parse_args()
    if options.port and not options.serve:
        parser.error("--port goes with --serve")
    return options


def listen_or_exit(number: int, backlog: int | None = None) -> socket.socket:
    """Return a socket that listens on a port, or say why that cannot be had.

    Args:
        backlog: see `socket.create_server`.
    """
    try:
        return socket.create_server((HOST, number), backlog=backlog)
    except OSError as error:
        raise SystemExit(f"port {number}: {error}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options = options_of(parser)
    with listen_or_exit(options.port) as listener:
        address = listener.getsockname()
        server = Server(listener, echo)
        if options.serve:
            with suppress(KeyboardInterrupt):
                print(f"serving on {HOST} port {address[1]} until Ctrl-C", flush=True)
                server.serve()
            return
        try:
            with in_thread(server.serve, server.stop):
                demonstrate(address)
        except OSError as error:
            raise SystemExit(f"the demonstration broke off: {error!r}") from None
    print("one thread that blocks: one client at a time, however long it stays")


if __name__ == "__main__":
    main()
