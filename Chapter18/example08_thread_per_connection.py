"""The calculator with a thread for each client: blocking code, many clients at once.

A session waits by waiting: nothing is suspended but its thread, and the system sees to
the others. That is the simplest model, and a good one for some hundred clients, above
all if a session calls libraries that block. But each client costs a thread, with some
20 KiB of memory, and each request a switch of threads. What a careless server of this
kind lacks:

* A bound. Who comes when all threads are taken is told so at once; the loop that
  accepts never waits for a session.
* A deadline for the whole request. The time-out of a socket starts anew with each byte,
  so that a byte now and then keeps the thread for ever.
* An end. A thread that waits cannot be interrupted. So each waits for two sockets at a
  time, its client's and one that becomes readable when the server stops. (Shutting the
  client's down for reading wakes a thread, too, but on macOS that throws away what has
  come, and on Windows it may reset the connection.)

`socketserver.ThreadingTCPServer` is the standard library's; it has none of the three.

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
import logging
import math
import selectors
import socket
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Self

from example02_calculator import GREETING, Calculator
from example07_calculator_on_the_reactor import (
    HOST,
    Server,
    listen,
    listen_or_exit,
    options_of,
    serve_until_signal,
)
from reactor import BUSY, Limits, RefusedError, refuse

LIMITS = Limits(connections=1000)  # and as many threads
LOG = logging.getLogger("threads")
PATIENCE = 10.0  # seconds; a client that waits longer has found a fault
SHORT = 0.2  # seconds for a request, where a client is to be too slow
PAUSE = 0.02  # seconds from one of its bytes to the next

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
# Unlike epoll, poll needs no descriptor, and unlike select it takes those above 1,023.
# Windows has select alone, which takes any there.
Selector = getattr(selectors, "PollSelector", selectors.SelectSelector)


class NotReadingError(Exception):
    """A client does not take its answers."""


class Stop:
    """An event that can be waited for together with a socket.

    Args:
        grace: seconds from `set` until what has begun is given up.

    Attributes:
        deadline: when that is, by `time.monotonic`; infinite before `set`.
    """

    def __init__(self, grace: float) -> None:
        self.deadline = math.inf
        self._grace = grace
        self._reader, self._writer = socket.socketpair()

    def set(self) -> None:
        """From any thread, or from a signal handler. Again: no effect."""
        if not self.is_set():
            self.deadline = time.monotonic() + self._grace
            with suppress(OSError):  # it is closed
                self._writer.send(b"!")  # nobody takes it away, so all see it

    def is_set(self) -> bool:
        return self.deadline < math.inf

    def over(self) -> bool:
        """Tell whether the grace is over, too."""
        return time.monotonic() >= self.deadline

    def ready(
        self, sock: socket.socket, event: int, deadline: float, *, idle: bool = False
    ) -> bool:
        """Wait until a socket is ready for `event`; tell whether it is.

        If it is not, `deadline` or the end of the grace has come; or, for one that is
        `idle`, the stop.
        """
        while (left := min(deadline, self.deadline) - time.monotonic()) > 0:
            with Selector() as selector:
                selector.register(sock, event)
                if idle or not self.is_set():
                    selector.register(self._reader, READ)
                ready = [key.fileobj for key, _ in selector.select(left)]
            if sock in ready:
                return True
            if idle and ready:
                break
        return False

    def close(self) -> None:
        self._reader.close()
        self._writer.close()


class Client:
    """A client's socket, on which no wait is without a deadline."""

    def __init__(self, sock: socket.socket, limits: Limits, stop: Stop) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._socket = sock
        self._limits = limits
        self._stop = stop
        self._rest = b""  # of what has come: a request that is not whole yet

    def lines(self) -> list[bytes]:
        """Return all whole lines that have come, at least one; none at the end.

        The end is that of the stream, or of the server unless a request has begun.

        Raises:
            RefusedError: a line is too long, or the last one has no end.
            TimeoutError: nothing has come, or not the end of a line.
        """
        limits, idle = self._limits, not self._rest
        deadline = time.monotonic() + (limits.idle if idle else limits.request)
        while self._stop.ready(self._socket, READ, deadline, idle=idle):
            data = self._socket.recv(limits.turn)
            if not data:
                if self._rest:
                    raise RefusedError("the last line has no end")
                return []
            *lines, self._rest = (self._rest + data).split(b"\n")
            if max(map(len, (*lines, self._rest))) > limits.line:
                raise RefusedError(f"a line of more than {limits.line} bytes")
            if lines:
                return lines
            if idle:
                idle, deadline = False, time.monotonic() + limits.request
        if self._rest:
            raise TimeoutError("a request has no end")
        if not self._stop.is_set():
            raise TimeoutError("nothing has come")
        return []

    def send(self, data: bytes) -> None:
        """Send it all.

        Raises:
            NotReadingError: the client has not taken it in time.
        """
        deadline = time.monotonic() + self._limits.drain
        while data:
            try:
                data = data[self._socket.send(data) :]
            except BlockingIOError:
                if not self._stop.ready(self._socket, WRITE, deadline):
                    raise NotReadingError from None

    def linger(self) -> None:
        """Close for writing, and wait for the client to do so.

        A socket that is closed while there is input resets the connection, and its
        last answer with it.
        """
        self._socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + self._limits.linger
        while self._stop.ready(self._socket, READ, deadline):
            if not self._socket.recv(1 << 16):
                break


class BlockingServer:
    """What servers have in common whose sessions block.

    Args:
        listener: is closed in the end.

    Attributes:
        port: the one on which it serves.
    """

    def __init__(self, listener: socket.socket, limits: Limits = LIMITS) -> None:
        self.port: int = listener.getsockname()[1]
        self.limits = limits
        self._listener = listener
        self._listener.setblocking(False)
        self._stop = Stop(limits.stop)
        self._spare = socket.socket()  # a descriptor for bad times
        self._lock = threading.Lock()  # guards the figures
        names = "open", "accepted", "refused", "requests", "too_slow", "failed"
        self._figures = dict.fromkeys(names, 0)

    def run(self) -> None:
        """Serve until `stop`, and finish what has begun."""
        with closing(self._clients()) as clients:
            threads = self.serve_all(clients)
        for thread in threads:
            while thread.is_alive():
                thread.join(self.limits.tick)  # Windows lets Ctrl-C wait for its end
        self._stop.close()

    def stop(self) -> None:
        """Have `run` return, in order; from any thread, or from a signal handler."""
        self._stop.set()

    def summary(self) -> bytes:
        """Return the statistics as one line of text."""
        with self._lock:
            figures = self._figures.copy()
        return ", ".join(f"{name} {n}" for name, n in figures.items()).encode()

    def serve_all(self, clients: Iterable[socket.socket]) -> Iterable[threading.Thread]:
        """Have each client served, or refuse it.

        Returns:
            Those threads that may still be at it. They should be daemons, so that
            nobody waits for them if the program ends otherwise.
        """
        raise NotImplementedError

    def serve(self, sock: socket.socket) -> None:
        """Talk to a client to the end, and close its socket whatever happens."""
        self._count(accepted=1, open=1)
        try:
            with sock:
                self._converse(Client(sock, self.limits, self._stop))
        except NotReadingError:
            self._count(too_slow=1)
        except OSError:
            pass  # the client has gone, or has reset the connection
        except Exception:
            LOG.exception("a session failed")
            self._count(failed=1)
        finally:
            self._count(open=-1)

    def refuse(self, sock: socket.socket) -> None:
        """Tell a client that it cannot be served."""
        self._count(refused=1)
        refuse(sock, BUSY)

    def _converse(self, client: Client) -> None:
        calculator = Calculator(self.summary)
        client.send(GREETING)
        try:
            while not calculator.done and (lines := client.lines()):
                self._count(requests=len(lines))
                client.send(calculator.answers(lines))
        except (RefusedError, TimeoutError) as error:
            self._count(too_slow=isinstance(error, TimeoutError))
            client.send(f"error: {error}\n".encode())
        client.linger()

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, n in more.items():
                self._figures[name] += n

    def _clients(self) -> Generator[socket.socket, None, None]:
        """Yield who comes until the stop, and at last who has come by then."""
        try:
            while not self._stop.over():
                try:
                    sock = self._accept()
                except BlockingIOError:
                    if self._stop.is_set():
                        break
                    # Windows lets Ctrl-C wait for the end of this wait.
                    tick = time.monotonic() + self.limits.tick
                    self._stop.ready(self._listener, READ, tick, idle=True)
                else:
                    if sock is not None:
                        yield sock
        finally:
            self._stop.set()
            self._listener.close()
            self._spare.close()

    def _accept(self) -> socket.socket | None:
        """Return a client; None if one could not be taken in.

        Raises:
            BlockingIOError: nobody is there.
        """
        try:
            return self._listener.accept()[0]
        except BlockingIOError:
            raise
        except ConnectionAbortedError:
            return None  # the client has gone already
        except OSError:
            self._spare.close()  # which makes room for one, to be told
        try:
            self.refuse(self._listener.accept()[0])
        except BlockingIOError:
            raise
        except OSError:  # somebody else was faster; do not try again and again
            time.sleep(self.limits.tick)
        finally:
            with suppress(OSError):
                self._spare = socket.socket()
        return None


class ThreadPerConnection(BlockingServer):
    """Serves each client in a thread of its own, up to `limits.connections`."""

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
        with Selector() as selector:
            selector.register(self._socket, READ)
            return bool(selector.select(seconds))

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
    listener = listen_or_exit(options.port)
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
