"""A server whose sessions block, and yet each wait ends: by a deadline, or by a stop.

A session that may block reads like the conversation it has, and calls any library.
What it lacks is an end. A thread that waits cannot be interrupted, and the time-out of
a socket starts anew with each byte, so that a byte now and then keeps the thread for
ever. So nobody here waits for a socket alone:

* `Stop` is an event that is readable, like a socket. A selector waits for both, up to a
  deadline that bytes do not put off. (To shut the socket down for reading wakes the
  thread, too, but on macOS that throws away what has come, and on Windows it may reset
  the connection.)
* `Client` waits so for a whole request, for the client to take its answers, and in the
  end for it to close its side.
* `BlockingServer` waits so for clients. Who has come by the stop is still served. When
  descriptors run out, one that was kept for that case is given up, to tell a newcomer.

Who serves is left to subclasses: example08 has a thread for each client, example09 a
fixed number of them. Here it is the thread that accepts, one client at a time. In
example03 a silent client keeps all others out that way; here it has to go.

`socketserver` divides the work likewise, but has neither such deadlines nor an end for
sessions.

Source: D. J. Bernstein, "The self-pipe trick", for an event that is readable.

Output:
    half a request        error: a request has no end, after 0.20 s
    who waited behind it  is answered: 7
    idle at the stop      sees the end after 0.13 ms
    who has come by then  is greeted: calculator: sum
    one client at a time, and no silent one keeps out the next, or the end
"""

import logging
import math
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress

from example01_echo_blocking import in_thread, is_readable, receive
from example02_calculator import GREETING, Calculator
from example07_calculator_on_the_reactor import HOST, PATIENCE, listen
from reactor import BUSY, Limits, RefusedError, refuse

LOG = logging.getLogger("blocking_server")
SHORT = 0.2  # seconds for a request, where a client is to be too slow
MUCH = 1000  # bytes; more than a client gets here

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

    def __init__(self, listener: socket.socket, limits: Limits) -> None:
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
        try:
            threads = self.serve_all(self._clients())
        finally:
            self._stop.set()
            self._listener.close()
            self._spare.close()
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

    def _clients(self) -> Iterator[socket.socket]:
        """Yield who comes until the stop, and at last who has come by then."""
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


class OneAtATime(BlockingServer):
    """Serves each client to the end before the next, in the thread that calls `run`."""

    def serve_all(self, clients: Iterable[socket.socket]) -> Iterable[threading.Thread]:
        for sock in clients:
            self.serve(sock)
        return ()


def demonstrate(listener: socket.socket, server: OneAtATime) -> None:
    """Be three clients; see that the server waits for none of them for ever."""
    with in_thread(server.run, server.stop), ExitStack() as stack:

        def come() -> socket.socket:
            address = HOST, server.port
            return stack.enter_context(socket.create_connection(address, PATIENCE))

        def greeting_of(client: socket.socket) -> str:
            return receive(client, len(GREETING)).decode().strip()

        slow = come()
        greeting_of(slow)
        patient = come()
        patient.sendall(b"3,4\n")
        began = time.perf_counter()
        slow.sendall(b"1,")
        told = receive(slow, MUCH).decode().strip()
        took = time.perf_counter() - began
        slow.close()
        greeting_of(patient)
        answer = receive(patient, 2).decode().strip()
        print(f"half a request        {told}, after {took:.2f} s")
        print(f"who waited behind it  is answered: {answer}")
        if (told, answer) != ("error: a request has no end", "7"):
            raise SystemExit("the deadline was to end the wait, for the next one")

        late = come()
        # A client may be connected before it has come to the listener.
        if not is_readable(listener, PATIENCE):
            raise SystemExit("a client was to come")
        began = time.perf_counter()
        server.stop()
        end = receive(patient, MUCH)
        took = time.perf_counter() - began
        patient.close()
        greeting = greeting_of(late)
        print(f"idle at the stop      sees the end after {1e3 * took:.2f} ms")
        print(f"who has come by then  is greeted: {greeting}")
        if end or greeting != "calculator: sum":
            raise SystemExit("the stop was to end the wait, for the last one")


def main() -> None:
    listener = listen()
    server = OneAtATime(listener, Limits(request=SHORT, linger=SHORT))
    try:
        demonstrate(listener, server)
    except OSError as error:
        raise SystemExit(f"the demonstration broke off: {error!r}") from None
    print("one client at a time, and no silent one keeps out the next, or the end")


if __name__ == "__main__":
    main()
