"""The calculator with a thread for each client: blocking code, many clients at once.

A session waits by waiting: nothing is suspended but its thread, and the system sees to
the others. That is the simplest model, and a good one for some hundred clients, above
all if a session calls libraries that block. But each client costs a thread, with some
20 KiB of memory, and each request a switch of threads.

What a careless server of this kind lacks is a bound. Here who comes when all threads
are taken is told so at once, and the loop that accepts never waits for a session. How
sessions end that block, at a deadline or at the stop, is the subject of
blocking_server.py.

`socketserver.ThreadingTCPServer` is the standard library's; it has no bound.

Try:  --serve --port 8000

Output:
    a thread is started   2.51 ms from the call to the greeting
    a byte every 0.02 s   error: a request has no end, after 0.23 s
    one in mid-line       another is answered: 7
    one too many          error: the server is busy
    a stop in mid-line    is answered first: 8
    a thread for each client: none has held up another, or the end
"""

import argparse
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Self

from blocking_server import BlockingServer
from example01_echo_blocking import is_readable, listen_or_exit, options_of
from example07_calculator_on_the_reactor import (
    BACKLOG,
    HOST,
    PATIENCE,
    Server,
    listen,
    serve_until_signal,
)
from reactor import Limits

LIMITS = Limits(connections=1000)  # and as many threads
SHORT = 0.2  # seconds for a request, where a client is to be too slow
PAUSE = 0.02  # seconds from one of its bytes to the next


class ThreadPerConnection(BlockingServer):
    """Serves each client in a thread of its own, up to `limits.connections`."""

    def __init__(self, listener: socket.socket, limits: Limits = LIMITS) -> None:
        super().__init__(listener, limits)

    def serve_all(self, clients: Iterable[socket.socket]) -> Iterable[threading.Thread]:
        threads: list[threading.Thread] = []
        for sock in clients:
            if len(threads) >= self.limits.connections:
                threads = [one for one in threads if one.is_alive()]
            if len(threads) >= self.limits.connections:
                self.refuse(sock)
                continue
            thread = threading.Thread(target=self.serve, args=(sock,), daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more
                self.refuse(sock)
            else:
                threads.append(thread)
        return threads


@contextmanager
def serving(server: Server) -> Iterator[int]:
    """Run a server in a thread; give its port; stop it in the end.

    Raises:
        SystemExit: it does not end.
    """
    thread = threading.Thread(target=server.run, daemon=True)
    try:
        thread.start()
        yield server.port
    finally:
        server.stop()
        thread.join(PATIENCE)
    if thread.is_alive():
        raise SystemExit(f"the server was to end within {PATIENCE:g} s")


class Caller:
    """A client that talks in lines."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection((HOST, port), PATIENCE)
        self._stream = self._socket.makefile("rb")

    def send(self, text: str) -> None:
        self._socket.sendall(text.encode())

    def line(self) -> str:
        """Wait for the next line, and return it without its end; "" at the last."""
        try:
            return self._stream.readline().decode().strip()
        except TimeoutError:
            raise SystemExit(f"no line for {PATIENCE:g} s") from None

    def ask(self, line: str) -> str:
        """Send a line, and return the answer."""
        self.send(line + "\n")
        return self.line()

    def hears(self, seconds: float) -> bool:
        """Wait until something comes; tell whether it has, in so many seconds."""
        return is_readable(self._socket, seconds)

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def trickle(caller: Caller) -> float:
    """Send a line without end, a byte at a time, until the server says something.

    Returns:
        After how many seconds it did.

    Raises:
        SystemExit: it bears that.
    """
    began = time.perf_counter()
    while not caller.hears(PAUSE):
        if time.perf_counter() - began > PATIENCE:
            raise SystemExit(f"the server reads a line without end for {PATIENCE:g} s")
        caller.send("1")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options = options_of(parser)
    listener = listen_or_exit(options.port, BACKLOG)
    if options.serve:
        serve_until_signal(ThreadPerConnection(listener))
        return

    server = ThreadPerConnection(listener, Limits(request=SHORT, linger=SHORT))
    with serving(server) as number, Caller(number) as slow:
        slow.line()
        began = time.perf_counter()
        with Caller(number) as swift:
            swift.line()
        greeted = time.perf_counter() - began
        took = trickle(slow)
        said = slow.line()
    print(f"a thread is started   {1e3 * greeted:.2f} ms from the call to the greeting")
    print(f"a byte every {PAUSE:.2f} s   {said}, after {took:.2f} s")
    if said != "error: a request has no end":
        raise SystemExit("who never ends a line was to be told so")

    server = ThreadPerConnection(listen(), Limits(connections=2, linger=SHORT))
    with serving(server) as number, Caller(number) as one, Caller(number) as other:
        for caller in one, other:
            caller.line()
        one.send("1,2,")
        answer = other.ask("3,4")
        with Caller(number) as third:
            refused = third.line()
        server.stop()
        end = other.line()
        begun = one.ask("5")
    print(f"one in mid-line       another is answered: {answer}")
    print(f"one too many          {refused}")
    if answer != "7" or refused != "error: the server is busy":
        raise SystemExit("two clients were to be served, and a third refused")
    print(f"a stop in mid-line    is answered first: {begun}")
    if end or begun != "8":
        raise SystemExit("what has begun was to be answered, and nothing else")
    print("a thread for each client: none has held up another, or the end")


if __name__ == "__main__":
    main()
