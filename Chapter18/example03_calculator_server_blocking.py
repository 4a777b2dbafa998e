"""A calculator server with blocking calls: messages are lines, and whole ones only.

A stream has no messages, so a protocol makes them: here each ends with a newline.
`makefile` turns the socket into a file, whose `readline` puts the pieces together. It
has its traps:

* Without an argument, `readline` and `for line in file` keep a line that never ends,
  until the memory is full. `readline(n)` returns after n bytes at the latest.
* At the end of the stream they return what has come of the last line as if it were
  whole. A client that meant 1,22 and was cut off at 1,2 would be told 3. Look for the
  newline.
* Text mode, the default, decodes, and raises at what is no text. Stay with bytes.

`create_server` sets SO_REUSEADDR where that is needed. Connections that a server has
closed keep its port for a while (TIME_WAIT, on Linux a minute), and without this option
it could not be started anew meanwhile.

What still breaks it: the server is that of example01, one client at a time. One that is
connected and silent, by malice or out to lunch, keeps all others out, ungreeted. For
work there is `socketserver`, which has the same loop and can make a thread of each
client, as example08 does.

Book: Chapter 18, example3.
Try:  --serve --port 8000

Output:
    three lines at once  3; now: product; 12
    a line without end   error: a line of more than 4096 bytes
    a line cut off       11; error: the last line has no end
    two clients          the second has asked; it is not even greeted
    the first one quits  the second is greeted, and answered 7
    started anew         on the same port, at once
    one silent client is enough to keep all others out
"""

import argparse
import socket
from contextlib import suppress
from typing import Any

from example01_echo_blocking import (
    HOST,
    Server,
    in_thread,
    is_readable,
    listen_or_exit,
    options_of,
    receive,
)
from example02_calculator import GREETING, MAX_LINE, Calculator

LIMIT = 10.0  # seconds for what is bound to come
SHORT = 0.05  # seconds in which nothing comes, for the server waits for another client

TOO_LONG = b"error: a line of more than %d bytes\n" % MAX_LINE
UNFINISHED = b"error: the last line has no end\n"


def reply(calculator: Calculator, line: bytes) -> bytes:
    """Return the answer to what `readline(MAX_LINE + 1)` has returned.

    A line without its end is the last one, whatever comes after it.
    """
    if line.endswith(b"\n"):
        return calculator.answer(line[:-1])
    calculator.done = True
    return TOO_LONG if len(line) > MAX_LINE else UNFINISHED


def talk(connection: socket.socket) -> None:
    """Greet a client and answer its lines, until it quits or ends its side."""
    calculator = Calculator()
    with connection.makefile("rb") as requests:
        connection.sendall(GREETING)
        while not calculator.done and (line := requests.readline(MAX_LINE + 1)):
            connection.sendall(reply(calculator, line))


def expect(client: socket.socket, text: bytes) -> None:
    if (received := receive(client, len(text))) != text:
        raise SystemExit(f"{text!r} was to come, not {received!r}")


def demonstrate(address: Any) -> None:
    """Be the clients; check each claim, and print it."""
    for name, requests, ends, answers in (
        ("three lines at once", b"1,2\nproduct\n3,4\n", True, b"3\nnow: product\n12\n"),
        ("a line without end", b"1" * (MAX_LINE + 1), False, TOO_LONG),
        ("a line cut off", b"5,6\n1,2", True, b"11\n" + UNFINISHED),
    ):
        with socket.create_connection(address, LIMIT) as client:
            client.sendall(requests)
            if ends:
                client.shutdown(socket.SHUT_WR)
            expect(client, GREETING + answers)
            if client.recv(1):
                raise SystemExit(f"{name}: no more was to come")
        print(f"{name:21}{'; '.join(answers.decode().splitlines())}")

    with (
        socket.create_connection(address, LIMIT) as first,
        socket.create_connection(address, LIMIT) as second,
    ):
        expect(first, GREETING)
        second.sendall(b"3,4\n")
        if is_readable(second, SHORT):
            raise SystemExit("the second client was not to be greeted yet")
        first.sendall(b"1,2\n")
        expect(first, b"3\n")
        if is_readable(second):
            raise SystemExit("the second client was to wait for the first")
        print("two clients          the second has asked; it is not even greeted")
        first.sendall(b"quit\n")
        expect(first, b"goodbye\n")
        expect(second, GREETING + b"7\n")
        print("the first one quits  the second is greeted, and answered 7")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options = options_of(parser)
    with listen_or_exit(options.port) as listener:
        address = listener.getsockname()
        server = Server(listener, talk)
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
    try:
        socket.create_server(address).close()
    except OSError as error:
        raise SystemExit(f"the port was to be free again: {error}") from None
    print("started anew         on the same port, at once")
    print("one silent client is enough to keep all others out")


if __name__ == "__main__":
    main()
