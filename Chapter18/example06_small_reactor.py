"""A small reactor runs `async def` sessions, and none of their calls blocks.

The sessions of example05 were held up by calls that block. Here no socket does. What
cannot be done at once raises BlockingIOError, so `Connection` awaits, until the socket
is ready for reading or for writing, and tries again. It keeps what has come itself, and
takes lines from that. With these two methods the session is that of example03 again,
line for line, with `await` before whatever may have to wait.

`await` goes through coroutines down to a bare `yield`, for which `types.coroutine`
makes room. What is yielded there, a socket and an event, comes out of the reactor's
`send`; it asks the selector, and goes on with the session when that event has come.

This mends what broke example05: half a line, three at once, a client that never reads.
A reset raises in its own session, and ends only that. (Any exception but an OSError
ends them all.)

What still breaks it: it has no deadlines, so silent clients stay for ever; no limit of
connections; no order in which to stop; and no answer to the day when the system has no
descriptor left for one more client. `accept` fails then, which ends its session as a
reset does: and that is the session which lets clients in. Those who are in notice
nothing. Nobody else is ever let in again. (Here `accept` is made to fail, once; after
`ulimit -n 20`, twenty clients bring it about.) For all that there is reactor.py.

Book: Chapter 18, example6.
Try:  --serve --port 8000

Output:
    half a line      the others are answered meanwhile
    3 lines at once  3 answers
    one never reads  the others are answered meanwhile
      now it does    nothing is lost
    a reset          ends its own session
    no descriptor    who is in is served
      but once       and still nobody is let in any more
    nobody holds up the others; but one failed accept, and the door stays shut
"""

import argparse
import errno
import os
import selectors
import socket
import struct
import time
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import ExitStack, suppress
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

from example01_echo_blocking import HOST, is_readable, listen_or_exit, options_of
from example02_calculator import GREETING, MAX_LINE, UNKNOWN, Calculator
from example03_calculator_server_blocking import reply

SIZE = 4096  # bytes taken at a time, at most
LIMIT = 10.0  # seconds for what is bound to come
KERNEL_BUFFER = 65_536  # bytes, so that little fits between server and client
FLOOD = 4096  # lines; their answers, 0.3 MiB, do not fit there
RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # linger for no time

Session = Coroutine[Any, Any, None]


@types.coroutine
def ready(
    sock: socket.socket, event: int
) -> Generator[tuple[socket.socket, int], None, None]:
    """Wait, in a session, for EVENT_READ or EVENT_WRITE."""
    yield sock, event


class Connection:
    """A socket that never blocks, for sessions: what would have blocked is awaited."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.sock = sock
        self._buffer = bytearray()  # has come, and has not been taken

    async def readline(self) -> bytes:
        """Return the next line, or what there is of it: as `readline(MAX_LINE + 1)`.

        That is nothing at the end of the stream.
        """
        while not (end := self._buffer.find(b"\n", 0, MAX_LINE + 1) + 1):
            if len(self._buffer) > MAX_LINE or not await self._receive():
                end = MAX_LINE + 1
                break
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        return line

    async def send(self, data: bytes) -> None:
        """Return when the system has taken all of it."""
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                await ready(self.sock, EVENT_WRITE)

    async def _receive(self) -> bytes:
        # Waits in any case: who has more for us all the time gets a turn, not the day.
        while True:
            await ready(self.sock, EVENT_READ)
            with suppress(BlockingIOError):  # ready, and yet nothing: that happens
                data = self.sock.recv(SIZE)
                self._buffer += data
                return data


class Reactor:
    """Goes on with sessions when the sockets are ready for which they wait."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stops = False

    def go_on(self, session: Session) -> None:
        """Run a session, a new one or one that has waited, to its next wait."""
        try:
            sock, event = session.send(None)
        except (StopIteration, OSError):
            pass  # it has ended, or its client is gone
        else:
            self._selector.register(sock, event, session)

    def run(self, limit: float | None = None) -> None:
        """Run all sessions until `stop`; close those that are left.

        Raises:
            TimeoutError: nobody was ready for `limit` seconds.
        """
        try:
            while not self._stops:
                events = self._selector.select(limit)
                if not events:
                    raise TimeoutError(f"nothing has happened for {limit} s")
                for key, _ in events:
                    self._selector.unregister(key.fileobj)
                    self.go_on(key.data)
        finally:
            for key in self._selector.get_map().values():
                key.data.close()
            self._selector.close()

    def stop(self) -> None:
        """Have `run` return after this turn; called by a session."""
        self._stops = True

    def waiting(self, event: int) -> int:
        """Return how many sessions wait for EVENT_READ, or for EVENT_WRITE."""
        return sum(key.events == event for key in self._selector.get_map().values())


async def talk(sock: socket.socket) -> None:
    """Greet a client and answer its lines, until it quits or ends its side."""
    with sock:
        calculator, connection = Calculator(), Connection(sock)
        await connection.send(GREETING)
        while not calculator.done and (line := await connection.readline()):
            await connection.send(reply(calculator, line))


async def accept_clients(
    listener: socket.socket,
    reactor: Reactor,
    accept: Callable[[socket.socket], tuple[socket.socket, Any]] = socket.socket.accept,
) -> None:
    """Begin a session with each client."""
    listener.setblocking(False)
    while True:
        await ready(listener, EVENT_READ)
        with suppress(BlockingIOError, ConnectionError):  # it has gone already
            sock, _ = accept(listener)
            reactor.go_on(talk(sock))


async def ask(client: Connection, line: bytes) -> bytes:
    await client.send(line + b"\n")
    return await client.readline()


def check(claim: str, shown: bool) -> None:
    if not shown:
        raise SystemExit(f"not so: {claim}")
    print(claim)


async def demonstrate(reactor: Reactor, address: Any, errors: list[OSError]) -> None:
    """Be the clients, a session like the others; check each claim, and print it.

    Args:
        errors: what `accept` is to fail with.
    """

    def connect() -> Connection:
        sock = socket.create_connection(address, LIMIT)
        stack.callback(sock.close)
        return Connection(sock)

    async def served(*clients: Connection) -> bool:
        return {await ask(client, b"1,2") for client in clients} == {b"3\n"}

    async def until(condition: Callable[[], bool]) -> bool:
        """Let Ben ask until `condition` holds; return False if he had to wait or to."""
        end = time.monotonic() + LIMIT
        while not condition():
            if time.monotonic() > end or not await served(ben):
                return False
        return True

    with ExitStack() as stack:
        ann, ben, eve = clients = [connect() for _ in range(3)]
        if [await client.readline() for client in clients] != 3 * [GREETING]:
            raise SystemExit("all three were to be greeted")
        n_others = reactor.waiting(EVENT_READ) - 1  # without Eve's session

        await eve.send(b"5,")
        meanwhile = await served(ann, ben) and await ask(eve, b"6") == b"11\n"
        check("half a line      the others are answered meanwhile", meanwhile)

        answers = [await ask(ann, b"1\n2\n3"), *[await ann.readline() for _ in "23"]]
        check("3 lines at once  3 answers", answers == [b"1\n", b"2\n", b"3\n"])

        eve.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
        await eve.send(FLOOD * b"\n")
        stuck = await until(lambda: reactor.waiting(EVENT_WRITE) == 1)
        meanwhile = await served(ann, ben) and reactor.waiting(EVENT_WRITE) == 1
        check("one never reads  the others are answered meanwhile", stuck and meanwhile)
        answers = [await eve.readline() for _ in range(FLOOD)]
        check("  now it does    nothing is lost", answers == FLOOD * [UNKNOWN])

        await eve.send(b"5,")
        eve.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        eve.sock.close()
        ended = await until(lambda: reactor.waiting(EVENT_READ) == n_others)
        check("a reset          ends its own session", ended and await served(ann, ben))

        errors.append(OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
        newcomers = [connect()]
        failed = await until(lambda: not errors)
        newcomers.append(connect())
        check("no descriptor    who is in is served", failed and await served(ann, ben))
        let_in = [is_readable(newcomer.sock) for newcomer in newcomers]
        check("  but once       and still nobody is let in any more", not any(let_in))
    reactor.stop()


async def guarded(demonstration: Session) -> None:
    """Tell of an OSError, with which the reactor would end a session silently."""
    try:
        await demonstration
    except OSError as error:
        raise SystemExit(f"the demonstration broke off: {error!r}") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options = options_of(parser)
    with listen_or_exit(options.port) as listener:
        address = listener.getsockname()
        reactor = Reactor()
        if options.serve:
            with suppress(KeyboardInterrupt):
                print(f"serving on {HOST} port {address[1]} until Ctrl-C", flush=True)
                reactor.go_on(accept_clients(listener, reactor))
                reactor.run()
            return

        errors: list[OSError] = []

        def accept(listener: socket.socket) -> tuple[socket.socket, Any]:
            if errors:
                raise errors.pop()
            return listener.accept()

        # Handed on to the sockets that are accepted.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
        reactor.go_on(accept_clients(listener, reactor, accept))
        reactor.go_on(guarded(demonstrate(reactor, address, errors)))
        try:
            reactor.run(LIMIT)
        except OSError as error:
            raise SystemExit(f"the demonstration broke off: {error!r}") from None
    print("nobody holds up the others; but one failed accept, and the door stays shut")


if __name__ == "__main__":
    main()
