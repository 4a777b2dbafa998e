"""Sessions are generators that a callback resumes: many clients at once, in one thread.

The session is that of example03, with one line more: before it reads it yields the
socket from which it waits for something. Who resumes it is a callback, called by an
event loop when that socket is readable. The loop knows nothing of sessions, only which
function to call for which socket; the selector asks the system for all of them at once.
To accept clients is a session, too: it waits for the listening socket.

This mends what broke example03. A client that is silent costs nothing but its session;
the others are served.

What still breaks it is what it has kept, a `readline` that blocks. That a socket is
readable means that some bytes are there. It does not mean a whole line: a client that
stops in mid-line stops the thread, and with it everybody. And a line need not come
alone: of three that are sent in one go, the file takes all and returns the first. The
others lie in the file's buffer, where no selector looks, until the client sends more,
which it won't while it waits for answers. (A `sendall` that blocks, as the client does
not read, is as bad.) So nothing may block, and nobody but us may keep what has come:
see example06.

Source: D. C. Schmidt, "Reactor", Pattern Languages of Program Design, 1995.

Book: Chapter 18, example5.
Try:  --serve --port 8000

Output:
    three clients    all greeted, and all answered, before one has left
    half a line      the next one's answer came when the line had ended
    3 lines at once  1 answered, 2 where no selector looks
    one line more    and 3 answers come
    readable: there are bytes, but neither a line nor all that has come
"""

import argparse
import queue
import selectors
import socket
from collections.abc import Callable, Generator
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any

from example01_echo_blocking import (
    HOST,
    in_thread,
    is_readable,
    knock,
    listen_or_exit,
    options_of,
)
from example02_calculator import GREETING, MAX_LINE, Calculator
from example03_calculator_server_blocking import expect, reply

LIMIT = 10.0  # seconds for what is bound to come
SHORT = 0.05  # seconds in which nothing comes, for the server is held up

Session = Generator[socket.socket, None, None]  # yields what it waits to read from


class EventLoop:
    """Calls functions when their sockets are readable."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._stops = False  # set once, by whichever thread

    def call_when_readable(
        self, sock: socket.socket, callback: Callable[[], object]
    ) -> None:
        """Call `callback` once; for this socket, nothing else may wait meanwhile."""
        self._selector.register(sock, selectors.EVENT_READ, callback)

    def run(self) -> None:
        """Call what is due, until `stop`."""
        with self._selector:  # whose end drops the callbacks, and closes their sessions
            while not self._stops:
                for key, _ in self._selector.select():
                    self._selector.unregister(key.fileobj)
                    key.data()

    def stop(self) -> None:
        """Have `run` return, after the next callback."""
        self._stops = True


def go_on(session: Session, loop: EventLoop) -> None:
    """Run a session to its next `yield`; the loop calls this again when it is time."""
    with suppress(StopIteration):
        loop.call_when_readable(next(session), partial(go_on, session, loop))


def accept_clients(
    listener: socket.socket,
    loop: EventLoop,
    talk: Callable[[socket.socket], Session],
) -> Session:
    """Begin a session with each client."""
    while True:
        yield listener
        with suppress(ConnectionError):  # the client has gone already
            connection, _ = listener.accept()
            go_on(talk(connection), loop)


def talk(
    connection: socket.socket,
    begins: Callable[[socket.socket], object] = lambda _: None,
) -> Session:
    """Greet a client and answer its lines, until it quits or ends its side.

    Args:
        begins: called when the session goes on, for something has come.
    """
    calculator = Calculator()
    with suppress(OSError), connection, connection.makefile("rb") as requests:
        connection.sendall(GREETING)
        while not calculator.done:
            yield connection
            begins(connection)
            line = requests.readline(MAX_LINE + 1)  # blocks: here is the defect
            if not line:
                break
            connection.sendall(reply(calculator, line))


def demonstrate(address: Any, turns: "queue.Queue[Any]") -> None:
    """Be three clients at once; check each claim, and print it.

    Args:
        turns: gets a client's address when the server goes on with its session.
    """

    def take_turn(client: socket.socket) -> None:
        """Wait until the server goes on with the session of `client`."""
        if turns.get(timeout=LIMIT) != client.getsockname():
            raise SystemExit("it was another client's turn")

    with ExitStack() as stack:
        ann, ben, eve = clients = [
            stack.enter_context(socket.create_connection(address, LIMIT))
            for _ in range(3)
        ]
        for client in clients:
            expect(client, GREETING)
        for client in reversed(clients):
            client.sendall(b"1,2\n")
            expect(client, b"3\n")
            take_turn(client)
        print("three clients    all greeted, and all answered, before one has left")

        eve.sendall(b"5,")
        take_turn(eve)
        ben.sendall(b"3,4\n")
        if is_readable(ben, SHORT) or not turns.empty():
            raise SystemExit("the half line was to hold up everybody")
        eve.sendall(b"6\n")
        expect(eve, b"11\n")
        expect(ben, b"7\n")
        take_turn(ben)
        print("half a line      the next one's answer came when the line had ended")

        ann.sendall(b"1\n2\n3\n")
        expect(ann, b"1\n")
        ben.sendall(b"4\n")
        expect(ben, b"4\n")  # so the loop has asked the selector since
        if is_readable(ann, SHORT):
            raise SystemExit("the second answer was to stay behind")
        print("3 lines at once  1 answered, 2 where no selector looks")
        ann.sendall(b"4\n")
        expect(ann, b"2\n3\n4\n")
        print("one line more    and 3 answers come")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options = options_of(parser)
    with listen_or_exit(options.port) as listener:
        address = listener.getsockname()
        loop = EventLoop()
        if options.serve:
            with suppress(KeyboardInterrupt):
                print(f"serving on {HOST} port {address[1]} until Ctrl-C", flush=True)
                go_on(accept_clients(listener, loop, talk), loop)
                loop.run()
            return

        turns: queue.Queue[Any] = queue.Queue()

        def begins(connection: socket.socket) -> None:
            turns.put(connection.getpeername())

        def stop() -> None:
            loop.stop()
            knock(address)

        go_on(accept_clients(listener, loop, partial(talk, begins=begins)), loop)
        try:
            with in_thread(loop.run, stop):
                demonstrate(address, turns)
        except (OSError, queue.Empty) as error:
            raise SystemExit(f"the demonstration broke off: {error!r}") from None
    print("readable: there are bytes, but neither a line nor all that has come")


if __name__ == "__main__":
    main()
