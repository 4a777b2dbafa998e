"""The calculator on the reactor: many clients, one thread, and nobody can hold it up.

The session is a few lines that read like the blocking server of example03. What happens
around it is the reactor's business. Here clients try it: one sends three requests at
once; one stops in mid-line, and others are served meanwhile; one asks without end and
never reads, until the server does not read from it, either; and when the server is
stopped, who waits sees the end, while half a request may still be finished.

The clients and the server take turns in one thread, so that each wait is certain. Only
the stop needs a second one, for a server that winds up waits for its clients.

torture.py does far worse to it, and load_generator.py tells how fast it is.

Try:  --serve --port 8000

Output:
    three requests at once  answered in order
    half a request          others are answered before the other half comes
    never reads an answer   after 413 KiB nothing is read from it
    reads them at last      all are there, in order
    the server is stopped   half a request may be finished, and is answered
    one thread, 4 clients: none of them has held up another
"""

import argparse
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Protocol

from example01_echo_blocking import listen_or_exit, options_of
from example02_calculator import GREETING, MAX_DIGITS, Calculator
from reactor import Connection, Reactor, RefusedError

HOST = "127.0.0.1"
BUFFER = 1 << 16  # bytes that the system is to keep of what goes to and fro
TOO_MUCH = 1 << 24  # bytes; no system keeps so many then
NINES = b"9" * MAX_DIGITS + b"\n"  # a request, and its answer
INSTANT = 0.3  # seconds; timeout(1) signals a process, and then its group with it
BACKLOG = 1024  # connections that the system keeps until they are accepted
PATIENCE = 10.0  # seconds; a client that waits longer has found a fault


async def calculate(connection: Connection) -> None:
    """Talk to one client."""
    reactor = connection.reactor
    calculator = Calculator(reactor.summary)
    connection.write(GREETING)
    try:
        while not calculator.done and (lines := await connection.lines()):
            reactor.statistics.requests += len(lines)
            connection.write(calculator.answers(lines))
    except (RefusedError, TimeoutError) as error:
        connection.write(f"error: {error}\n".encode())


@contextmanager
def signals_call(stop: Callable[[], None]) -> Iterator[None]:
    """Let a first SIGINT or SIGTERM call `stop`, and a later one end the program.

    A later one raises SystemExit, with the status that shells give: 128 and the number
    of the signal. What comes in the same instant belongs to the one before and has no
    effect; so that it does not strike what comes after the block, that does not end
    until the instant is over. Then the signals do again what they did before.
    """
    stops, instant_ends = False, 0.0

    def call(number: int, frame: object) -> None:
        nonlocal stops, instant_ends
        now = time.monotonic()
        if not stops or now >= instant_ends:
            later, stops, instant_ends = stops, True, now + INSTANT
            if later:
                raise SystemExit(128 + number)
            stop()

    before = {
        int(number): signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        for number in before:
            signal.signal(number, call)
        yield
    finally:
        if stops:
            time.sleep(max(0, instant_ends - time.monotonic()))
        for number, handler in before.items():
            signal.signal(number, handler)


def listen(port: int = 0) -> socket.socket:
    """Return a socket that listens on `port`, or for 0 on a free one.

    Raises:
        OSError: the port cannot be had.
    """
    return socket.create_server((HOST, port), backlog=BACKLOG)


class Server(Protocol):
    """What the servers of this chapter can do."""

    port: int

    def run(self) -> None: ...

    def stop(self) -> None: ...

    def summary(self) -> bytes: ...


def serve_until_signal(server: Server) -> None:
    """Serve until SIGINT or SIGTERM; tell where, and in the end, what has been."""
    with signals_call(server.stop):
        print(f"serving on {HOST} port {server.port} until Ctrl-C", flush=True)
        server.run()
    print(server.summary().decode())


@contextmanager
def in_thread(reactor: Reactor) -> Iterator[None]:
    """Run it in a thread, and stop it in the end; raise what it has raised."""
    with closing(reactor), ThreadPoolExecutor(max_workers=1) as thread:
        try:
            server = thread.submit(reactor.run)
            yield
        finally:
            reactor.stop()
        server.result()


def keep_little(sock: socket.socket) -> None:
    """Have the system's buffers full soon."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)


def expect(reactor: Reactor, client: socket.socket, answers: bytes) -> None:
    """Let the reactor have turns until `client` has got these.

    Raises:
        SystemExit: it gets something else.
    """
    got = bytearray()
    while len(got) < len(answers):
        with suppress(BlockingIOError):
            if not (portion := client.recv(BUFFER)):
                break
            got += portion
            continue
        if not reactor.turn(PATIENCE):
            break
    if got != answers:
        raise SystemExit(f"{answers[:60]!r} was to come, and not {bytes(got[:60])!r}")


def ask_and_never_read(reactor: Reactor, client: socket.socket) -> int:
    """Send requests until nobody reads them any more; return how many bytes went."""
    sent = 0
    while sent < TOO_MUCH:
        with suppress(BlockingIOError):
            sent += client.send(NINES[sent % len(NINES) :])
            continue
        if not reactor.turn(0):
            return sent
    raise SystemExit("the server reads on from a client that does not read")


def demonstrate(reactor: Reactor, address: tuple[str, int]) -> None:
    """Let clients try the server; it has a turn whenever one waits for an answer."""
    with closing(reactor), ExitStack() as clients:

        def connect() -> socket.socket:
            client = clients.enter_context(socket.create_connection(address, PATIENCE))
            client.setblocking(False)
            keep_little(client)
            expect(reactor, client, GREETING)
            return client

        swift, slow, deaf, idle = connect(), connect(), connect(), connect()
        swift.sendall(b"1,2\nproduct\n3,4\n")
        expect(reactor, swift, b"3\nnow: product\n12\n")
        print("three requests at once  answered in order")

        slow.sendall(b"5,")
        reactor.turn(PATIENCE)
        swift.sendall(b"3,5\n")
        expect(reactor, swift, b"15\n")
        slow.sendall(b"6\n")
        expect(reactor, slow, b"11\n")
        print("half a request          others are answered before the other half comes")

        before = reactor.statistics.requests
        sent = ask_and_never_read(reactor, deaf)
        whole, answered = sent // len(NINES), reactor.statistics.requests - before
        if answered >= whole:
            raise SystemExit("some requests were not to be read")
        swift.sendall(b"4,5\n")
        expect(reactor, swift, b"20\n")
        print(f"never reads an answer   after {sent >> 10} KiB nothing is read from it")
        expect(reactor, deaf, whole * NINES)
        deaf.close()
        print("reads them at last      all are there, in order")

        slow.sendall(b"7,")
        reactor.turn(PATIENCE)
        slow.settimeout(PATIENCE)
        idle.settimeout(PATIENCE)
        reactor.stop()
        with in_thread(reactor), clients:
            if idle.recv(1) != b"":
                raise SystemExit("who waits was to see the end")
            slow.sendall(b"8\n")
            if slow.recv(100) != b"15\n" or slow.recv(1) != b"":
                raise SystemExit("what had begun was to be answered, and no more")
        print("the server is stopped   half a request may be finished, and is answered")
        if reactor.connections or reactor.statistics.failed:
            raise SystemExit("all sessions were to end in order")
    print("one thread, 4 clients: none of them has held up another")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options = options_of(parser)
    listener = listen_or_exit(options.port, BACKLOG)
    reactor = Reactor(calculate, listener)
    if options.serve:
        serve_until_signal(reactor)
        return
    keep_little(listener)  # what it accepts is like it
    try:
        demonstrate(reactor, listener.getsockname())
    except OSError as error:
        raise SystemExit(f"a client waited in vain: {error}") from None


if __name__ == "__main__":
    main()
