"""A reactor: one thread, one selector, and sessions that are coroutines; no asyncio.

A session reads like a conversation with one client, `async def` from top to bottom.
Whenever it has to wait it is suspended, by a bare `yield`, and who finds out that its
wait is over goes on with it by `send`: the loop that asks the selector which sockets
are ready. There is nothing in between, no queue of ready tasks, no future, no handle.
As one session runs at a time, and only until its next `await`, nothing needs a lock.

It is fast because it does little. For each chunk of bytes that arrives a session is
resumed once, and its answers, however many, leave by one call. A socket is watched for
writing only while its client does not take what it is sent; meanwhile nothing is read
from it, so who does not listen is not answered either (backpressure).

It is hard to harm because everything has a limit (see `Limits`). A client's turn costs
at most the answers to `Limits.turn` bytes. Deadlines are looked at once in a tick, so
that they cost nothing when nobody is late. When descriptors run out, one that was kept
for that case tells the newcomers so. `stop` ends it in order: nobody new, what has come
is answered, what has begun may be finished; then all see the end of the stream. Half
an answer is left only to who does not take the other half.

What it cannot help is a session that computes for long, or waits by other means than
`await`: all wait then. Nor does it stop one that writes on and on without `drain`.

Here two clients send by turns, and one sees which session goes on. example07 serves
with it and shows the rest; http_server.py does so, too. A professional takes asyncio,
with uvloop if speed matters; its transports and protocols do the same job.

Source: D. C. Schmidt, "Reactor", Pattern Languages of Program Design, 1995.

Output:
    A sends b'one'    its session goes on with its chunk 1
    B sends b'two'    its session goes on with its chunk 1
    A sends b'three'  its session goes on with its chunk 2
    B sends b'four'   its session goes on with its chunk 2
    one thread, 4 steps: each of one session, from wait to wait
"""

import logging
import selectors
import socket
import sys
import time
import types
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field

ACCEPTS = 64  # connections taken at one turn
BUSY = b"error: the server is busy\n"
LOG = logging.getLogger("reactor")
LIMIT = 10.0  # seconds for what is bound to come


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may use up."""

    connections: int = 500 if sys.platform == "win32" else 10_000  # select takes 512
    line: int = 4096  # bytes, without its end
    turn: int = 4096  # bytes taken from a client before it is the others' turn
    idle: float = 60.0  # seconds between two requests
    request: float = 10.0  # seconds from a request's first byte to its last
    drain: float = 10.0  # seconds until a client has taken what it was sent
    linger: float = 2.0  # seconds in which input is dropped after the last answer
    stop: float = 5.0  # seconds for what has begun when the server is stopped
    tick: float = 1.0  # seconds from one look at the deadlines to the next


@dataclass(slots=True)
class Statistics:
    """What has happened since the start."""

    accepted: int = 0
    refused: int = 0
    requests: int = 0
    too_slow: int = 0
    failed: int = 0


class RefusedError(Exception):
    """A client has broken the protocol; the text says how."""


Session = Coroutine[object, bytes | None, None]


@types.coroutine
def suspended() -> Generator[None, bytes | None, bytes | None]:
    """Wait, in a session, for what comes: bytes, none at the end of the stream.

    Raises:
        TimeoutError: the deadline has passed that `expect_request` or `begin_request`
            has started.
    """
    return (yield)


@dataclass(slots=True, eq=False)
class Connection:
    """What a session has of its client: bytes that come, bytes that go.

    Only the reactor's thread may use it, or anything else here but `Reactor.stop`.

    The reactor calls `react` when the socket is ready. Which method that is, is the
    state of the connection: `_receive` while the session waits for bytes, `_send_rest`
    while the client does not take its answers, `_ignore` while nothing is asked of it:
    the session pauses, or has ended.

    Attributes:
        rest: bytes that have come and belong to a request that is not whole yet.
    """

    reactor: "Reactor"
    rest: bytes = field(default=b"", init=False)
    react: Callable[[], object] = field(init=False)
    _socket: socket.socket
    _session: Session | None = field(default=None, init=False)  # None: it has ended
    _deadline: float = field(init=False)  # of the present wait
    _output: bytes = field(default=b"", init=False)  # written, and not sent yet
    _idle: bool = field(default=True, init=False)  # no request has begun
    _drains: bool = field(default=False, init=False)  # the session waits in `drain`

    # -- what sessions call

    @types.coroutine
    def lines(self) -> Generator[None, bytes | None, list[bytes]]:
        """Return all whole lines that have come, at least one; none at the end.

        Raises:
            RefusedError: a line is too long, or the last one has no end.
            TimeoutError: nothing has come, or not the end of a line.
        """
        limit = self.reactor.limits.line
        self._wait(idle=not self.rest)
        while data := (yield):
            lines = (self.rest + data).split(b"\n")
            if len(lines[0]) > limit:  # the others cannot be, see Reactor.portion
                raise RefusedError(f"a line of more than {limit} bytes")
            self.rest = lines.pop()
            if lines:
                return lines
            self.begin_request()
        if self.rest:
            raise RefusedError("the last line has no end")
        return []

    def write(self, data: bytes) -> None:
        """Have `data` sent when the session waits next."""
        self._output += data

    async def drain(self) -> None:
        """Wait until the client has taken what was written, and others had their turn.

        The session is closed, by GeneratorExit, if that takes longer than the limit.
        """
        self._drains = True
        self._stall()
        await suspended()

    async def pause(self, seconds: float) -> bool:
        """Wait, and drop what comes; return False if the server stops.

        It takes longer if the client has not taken by then what was written. If that
        closes, so is the session.
        """
        end = self.reactor.now + seconds
        if self._output:
            await self.drain()
        self.react, self._deadline = self._ignore, end
        goes_on = await suspended() is None
        self.react = self._receive
        self._wait(self._idle)
        return goes_on

    def expect_request(self) -> None:
        """Start the deadline of the next request."""
        self._wait(idle=not self.rest)

    def begin_request(self) -> None:
        """Start the deadline of a request whose first bytes have come."""
        if self._idle:
            self._wait(idle=False)

    # -- what the reactor calls

    def start(self) -> None:
        """Let a session begin, and run until it waits for the first time."""
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.reactor.selector.register(self._socket, selectors.EVENT_READ, self)
        self.react = self._receive
        self.expect_request()
        self._session = self.reactor.session(self)
        self._step(None)

    def expire(self) -> None:
        """Do what is due if the deadline has passed."""
        if self.reactor.now < self._deadline:
            return
        self.reactor.statistics.too_slow += self.react != self._ignore
        if self.react == self._receive:
            late = "nothing has come" if self._idle else "a request has no end"
            self._step(b"", late)
        elif self.react == self._ignore and self._session is not None:
            self._step(None)  # the pause is over
        else:
            self.close()

    def finish(self) -> None:
        """End the session, as the server stops: if nothing of a request has come.

        When time is up, it is ended in any case, but while its client takes answers.
        """
        late = "a request has no end" if self.reactor.now >= self.reactor.end else ""
        if self.react == self._receive:
            if late or (self._idle and not self._receive()):
                self._step(b"", late)
        elif self.react == self._ignore and self._session is not None:
            self._step(b"", late)

    def close(self) -> None:
        """End at once, whatever is going on."""
        self.reactor.connections.discard(self)
        with suppress(KeyError, ValueError):  # it has not been registered, or is closed
            self.reactor.selector.unregister(self._socket)
        self._socket.close()
        try:
            if self._session is not None:
                self._session.close()
        except Exception:
            LOG.exception("a session failed when it was closed")

    # -- states

    def _wait(self, idle: bool) -> None:
        limits = self.reactor.limits
        self._idle = idle
        self._deadline = self.reactor.now + (limits.idle if idle else limits.request)

    def _receive(self) -> bool:
        """Hand on what has come; return whether there was anything."""
        try:
            data = self._socket.recv(self.reactor.portion)
        except BlockingIOError:
            return False
        self._step(data)
        return True

    def _step(self, news: bytes | None, late: str = "") -> None:
        """Let the session go on to its next wait, and send what it has written.

        Args:
            news: what it waits for.
            late: that it waits in vain, and why.
        """
        session = self._session
        assert session is not None
        try:
            alien = session.throw(TimeoutError(late)) if late else session.send(news)
            if alien is not None:
                session.throw(TypeError(f"a session cannot wait for {alien!r} here"))
        except (StopIteration, RefusedError, TimeoutError):
            self._session = None
        except Exception:
            LOG.exception("a session failed")
            self.reactor.statistics.failed += 1
            self._session = None
        if self._output and not self._flush():
            self._stall()
        elif self._session is None:
            self._linger()

    def _flush(self) -> bool:
        """Send what the client takes; return whether that is all."""
        try:
            self._output = self._output[self._socket.send(self._output) :]
        except BlockingIOError:
            return False
        return not self._output

    def _stall(self) -> None:
        self.react = self._send_rest
        self._deadline = self.reactor.now + self.reactor.limits.drain
        self.reactor.selector.modify(self._socket, selectors.EVENT_WRITE, self)

    def _send_rest(self) -> None:
        if self._output and not self._flush():
            return
        if self._session is None:
            self._linger()
            return
        self.react = self._receive
        self.reactor.selector.modify(self._socket, selectors.EVENT_READ, self)
        self._wait(self._idle)
        if self._drains:
            self._drains = False
            self._step(None)

    def _linger(self) -> None:
        """Close for writing, and wait for the client to do so.

        A socket that is closed while there is input resets the connection, and its
        last answer with it.
        """
        self.react = self._ignore
        self._deadline = self.reactor.now + self.reactor.limits.linger
        self._socket.shutdown(socket.SHUT_WR)
        self.reactor.selector.modify(self._socket, selectors.EVENT_READ, self)

    def _ignore(self) -> None:
        with suppress(BlockingIOError):
            if not self._socket.recv(1 << 16):
                self.close()


def refuse(sock: socket.socket, text: bytes) -> None:
    """Tell a client that it cannot be served, and close its socket."""
    with sock, suppress(OSError):
        sock.setblocking(False)
        sock.send(text)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1 << 16)  # or closing would reset it, and the text be lost


class Reactor:
    """Serves on a listening socket, in one thread, until `stop` is called.

    Args:
        session: makes the coroutine that talks to a client.
        listener: is closed in the end.
        busy: what a client is sent that cannot be served.
        clock: gives the time in seconds.

    Attributes:
        connections: those that are open.
        statistics: what has happened so far; `requests` is counted by sessions.
        port: the one that it serves on.
        now: the time when the selector last returned.
        portion: bytes that are asked for at once; no more than a line may have, so that
            of the lines that come together only the first can be too long.
        end: the time when all that has begun must have been finished.
    """

    def __init__(
        self,
        session: Callable[[Connection], Session],
        listener: socket.socket,
        limits: Limits = Limits(),
        *,
        busy: bytes = BUSY,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.session = session
        self.limits = limits
        self.portion = min(limits.turn, limits.line)
        self.connections: set[Connection] = set()
        self.statistics = Statistics()
        self.port: int = listener.getsockname()[1]
        self.selector = selectors.DefaultSelector()
        self.now = clock()
        self._busy = busy
        self._clock = clock
        self._next_tick = self.now + limits.tick
        self._stops = False
        self.end = float("inf")
        self._spare = socket.socket()  # a descriptor for those who get none
        self._wakes, self._waker = socket.socketpair()
        self._listener = listener
        self._listener.setblocking(False)
        self.selector.register(listener, selectors.EVENT_READ, self)
        self.selector.register(self._wakes, selectors.EVENT_READ, self)

    def run(self) -> None:
        """Serve until `stop`, finish what has begun, and close everything."""
        try:
            while not self._stops:
                self.turn()
            self._wind_up()
        finally:
            self.close()

    def stop(self) -> None:
        """Have `run` return, in order; from any thread, or from a signal handler."""
        self._stops = True
        self._waker.close()  # the selector sees that

    def turn(self, timeout: float | None = None) -> int:
        """Wait for clients, by default for one tick, and serve those who are ready.

        Returns:
            How many were.
        """
        events = self.selector.select(self.limits.tick if timeout is None else timeout)
        self.now = self._clock()
        for key, _ in events:
            try:
                key.data.react()
            except OSError:  # the client has gone, or has reset the connection
                key.data.close()
        if self.now >= self._next_tick:
            self._next_tick = self.now + self.limits.tick
            self._listen_again()
            self._each(Connection.expire, self.connections)
        return len(events)

    def react(self, most: int = ACCEPTS) -> None:
        """Take in who waits in the backlog, or tell them that it cannot be."""
        for _ in range(most):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                break
            except ConnectionAbortedError:  # the client has gone already
                continue
            except OSError:  # no descriptor, or no memory
                self._shed()
                break
            if len(self.connections) >= self.limits.connections:
                self._refuse(sock)
                continue
            self.statistics.accepted += 1
            connection = Connection(self, sock)
            self.connections.add(connection)
            self._each(Connection.start, {connection})

    def summary(self) -> bytes:
        """Return the statistics as one line of text."""
        figures = {"open": len(self.connections)} | asdict(self.statistics)
        return ", ".join(f"{name} {n}" for name, n in figures.items()).encode()

    def close(self) -> None:
        """Close everything, at once."""
        self._each(Connection.close, self.connections)
        for one in self._listener, self._wakes, self._waker, self._spare, self.selector:
            one.close()

    def _shed(self) -> None:
        """Refuse a client with the spare descriptor.

        If it cannot be, nobody listens until the next tick, for the selector would
        report the backlog again and again.
        """
        self._spare.close()
        try:
            with suppress(BlockingIOError):  # nobody is there
                self._refuse(self._listener.accept()[0])
            self._spare = socket.socket()
        except OSError:
            with suppress(KeyError):
                self.selector.unregister(self._listener)

    def _listen_again(self) -> None:
        with suppress(OSError, KeyError, ValueError):  # no descriptor; listens; closed
            if self._spare.fileno() < 0:
                self._spare = socket.socket()
            self.selector.register(self._listener, selectors.EVENT_READ, self)

    def _refuse(self, sock: socket.socket) -> None:
        self.statistics.refused += 1
        refuse(sock, self._busy)

    def _wind_up(self) -> None:
        """Answer what has come, and give what has begun the time to be finished."""
        self.react(self.limits.connections)
        self.selector.unregister(self._wakes)
        with suppress(KeyError):
            self.selector.unregister(self._listener)
        self._listener.close()
        self.end = self.now + self.limits.stop
        self._each(Connection.finish, self.connections)
        while self.connections and self.now < self.end + self.limits.linger:
            self.turn()
            self._each(Connection.finish, self.connections)

    def _each(self, act: Callable[[Connection], None], whom: set[Connection]) -> None:
        for connection in whom.copy():
            try:
                act(connection)
            except OSError:  # the client has gone
                connection.close()


def main() -> None:
    told: list[str] = []

    async def echo(connection: Connection) -> None:
        n = 0
        while data := await suspended():
            n += 1
            told.append(f"chunk {n}")
            connection.write(data)

    listener = socket.create_server(("127.0.0.1", 0))
    a, b = socket.socket(), socket.socket()
    with closing(Reactor(echo, listener)) as reactor, a, b:
        for client in a, b:
            client.settimeout(LIMIT)
            client.connect(listener.getsockname())
            reactor.turn(LIMIT)  # a session begins, and is suspended
        steps = (a, b"one"), (b, b"two"), (a, b"three"), (b, b"four")
        for number, (client, data) in enumerate(steps, 1):
            client.sendall(data)
            reactor.turn(LIMIT)
            if len(told) != number or client.recv(100) != data:
                raise SystemExit(f"not one session was to go on, and echo: {told}")
            name = "A" if client is a else "B"
            print(f"{name} sends {data!r:8}  its session goes on with its {told[-1]}")
    print(f"one thread, {len(steps)} steps: each of one session, from wait to wait")


if __name__ == "__main__":
    main()
