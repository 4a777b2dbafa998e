"""Chapter 18, the reactor and the calculator on it: every limit, deadline and fault."""

import asyncio
import errno
import gc
import os
import random
import re
import signal
import socket
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import example07_calculator_on_the_reactor as calculator
import pytest
import reactor as reactor_
from example02_calculator import GREETING, TOO_MANY_DIGITS, UNKNOWN, Calculator
from example07_calculator_on_the_reactor import calculate, keep_little, listen
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from reactor import Connection, Limits, Reactor, RefusedError, Statistics, suspended
from serving import needs_posix_signals, refuses_bad_ports, served

LIMIT = 30.0  # seconds that a test waits for what must come
MOMENT = 0.01  # seconds until a test looks again
END = b"<end>"  # what `heard` puts where a server has closed its side
RESET = b"<reset>"
BUSY = b"error: the server is busy\n"

Session = Callable[[Connection], Coroutine[Any, Any, None]]
Start = Callable[..., "Server"]


def heard(client: socket.socket) -> bytes:
    """Return what has come by now."""
    data = b""
    try:
        while portion := client.recv(1 << 16):
            data += portion
    except BlockingIOError:
        return data
    except ConnectionError:
        return data + RESET
    return data + END


class Server:
    """A reactor that has turns when a test says so, and a clock that the test sets."""

    def __init__(
        self,
        session: Session = calculate,
        listener: socket.socket | None = None,
        *,
        narrow: bool = False,
        **limits: Any,
    ) -> None:
        """Args: narrow: the system is to keep little of what goes to and fro."""
        self.time = time.monotonic()
        self.listener = listen() if listener is None else listener
        self.address = self.listener.getsockname()
        self.narrow = narrow
        if narrow:
            keep_little(self.listener)
        self.reactor = Reactor(
            session, self.listener, Limits(**limits), clock=lambda: self.time
        )
        self.statistics = self.reactor.statistics
        self.clients = ExitStack()

    def close(self) -> None:
        self.clients.close()
        self.reactor.close()

    def call(self) -> socket.socket:
        """Return a client that the server has not noticed yet."""
        client = self.clients.enter_context(socket.socket())
        if self.narrow:
            keep_little(client)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        client.connect(self.address)
        client.setblocking(False)
        return client

    def connect(self, greeting: bytes = GREETING) -> socket.socket:
        """Return a client that has been greeted."""
        client = self.call()
        accepted = self.statistics.accepted
        self.until(lambda: self.statistics.accepted > accepted)
        self.expect(client, greeting)
        return client

    def until(self, condition: Callable[[], object]) -> None:
        """Let the server have turns until something is so."""
        end = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < end
            self.reactor.turn(MOMENT)

    def expect(self, client: socket.socket, answer: bytes) -> None:
        """Let the server have turns until just that has come."""
        got = heard(client)
        end = time.monotonic() + LIMIT
        while got != answer and answer.startswith(got) and time.monotonic() < end:
            self.reactor.turn(MOMENT)
            got += heard(client)
        assert got == answer

    def ask(self, client: socket.socket, requests: bytes, answer: bytes) -> None:
        client.sendall(requests)
        self.expect(client, answer)

    def send(self, client: socket.socket, data: bytes) -> None:
        """Let the server take in what cannot be answered yet."""
        client.sendall(data)
        self.ready(1)
        self.reactor.turn(0)

    def ready(self, n: int) -> None:
        """Wait until `n` sockets are ready, of the listener and the server's own."""
        end = time.monotonic() + LIMIT
        while len(self.reactor.selector.select(MOMENT)) < n:
            assert time.monotonic() < end

    def settle(self) -> None:
        """Let the server do what there is to do."""
        for _ in range(10_000):
            if not self.reactor.turn(0):
                return
        raise AssertionError("the server is never done")

    def passes(self, seconds: float) -> None:
        """Let time pass, and the server see it."""
        self.time += seconds
        self.settle()

    def gone(self, n: int = 0) -> bool:
        return len(self.reactor.connections) == n


@pytest.fixture
def start() -> Iterator[Start]:
    """Give a function that makes a server; all are closed after the test."""
    with ExitStack() as servers:

        def make(*arguments: Any, **limits: Any) -> Server:
            return servers.enter_context(closing(Server(*arguments, **limits)))

        yield make


@contextmanager
def one_server(*arguments: Any, **limits: Any) -> Iterator[Server]:
    with closing(Server(*arguments, **limits)) as server:
        yield server


def answers(data: bytes) -> bytes:
    return Calculator().answers(data.split(b"\n")[:-1])


# -- the protocol


@pytest.mark.parametrize(
    ("requests", "expected"),
    [
        (b"1,2\n", b"3\n"),
        (b"1, 2 ,-5\r\n", b"-2\n"),
        (b"7\nproduct\n2,3\nsum\n2,3\n", b"7\nnow: product\n6\nnow: sum\n5\n"),
        (b"\n", UNKNOWN),
        (b"1,\n2\n", UNKNOWN + b"2\n"),
        (b"\xff\xfe\n1_000\n\x00\n", 3 * UNKNOWN),
        (b"1" * 1001 + b"\n1\n", TOO_MANY_DIGITS + b"1\n"),
        (b"1\nquit\n2\n", b"1\ngoodbye\n" + END),
    ],
)
def test_each_line_has_its_answer(
    start: Start, requests: bytes, expected: bytes
) -> None:
    server = start()
    server.ask(server.connect(), requests, expected)


def test_stats_tells_what_has_happened(start: Start) -> None:
    server = start()
    server.connect()
    client = server.connect()
    server.ask(client, b"1\n", b"1\n")
    figures = b"open 2, accepted 2, refused 0, requests 2, too_slow 0, failed 0"
    server.ask(client, b"stats\n", figures + b"\n")
    assert server.reactor.summary() == figures


def test_all_that_came_at_once_is_answered_in_one_turn(start: Start) -> None:
    server = start()
    client = server.connect()
    client.sendall(b"1,2\n3,4\n" * 100)
    server.ready(1)
    server.reactor.turn(0)
    server.reactor.close()
    client.setblocking(True)
    assert client.recv(10_000, socket.MSG_WAITALL) == b"3\n7\n" * 100


def test_one_byte_at_a_time_gives_the_same_answers(start: Start) -> None:
    server = start()
    client = server.connect()
    requests = b"1,2\nproduct\n\n3,4,5\nquit\n"
    for byte in requests[:-1]:
        server.send(client, bytes([byte]))
    server.ask(client, requests[-1:], answers(requests) + END)


STREAM = b"1,2\nproduct\n%s\n-3,4\r\n\n\xff\nsum\n%s\n12\n%s" % (
    b"9" * 20,
    b",".join([b"1"] * 10),
    b"x" * 50,
)


@settings(max_examples=100)
@given(st.sets(st.integers(1, len(STREAM) - 1), max_size=12), st.integers(1, 60))
def test_answers_do_not_depend_on_how_the_stream_is_split(
    places: set[int], turn: int
) -> None:
    """Nor does the place of a line that is too long, at the end of this stream."""
    whole = STREAM[: STREAM.rindex(b"\n") + 1]
    with one_server(line=30, turn=turn) as server:
        client = server.connect()
        for a, b in pairwise([0, *sorted(places), len(STREAM)]):
            client.sendall(STREAM[a:b])
            server.ready(1)
            server.settle()
        error = b"error: a line of more than 30 bytes\n"
        server.expect(client, answers(whole) + error + END)


def test_garbage_has_an_answer_for_each_line(start: Start) -> None:
    server = start(turn=700)
    client = server.connect()
    generator = random.Random(18)
    words = [
        b"1",
        b"-2",
        b",",
        b" ",
        b"sum",
        b"product",
        b"_",
        b"\r",
        b"\x00",
        b"9" * 50,
    ]

    def line() -> bytes:
        if generator.random() < 0.5:
            return generator.randbytes(generator.randrange(30)).replace(b"\n", b"")
        return b"".join(generator.choices(words, k=generator.randrange(8)))

    garbage = b"".join(line() + b"\n" for _ in range(10_000))
    expected, got = answers(garbage), b""
    while garbage or len(got) < len(expected):
        with suppress(BlockingIOError):
            garbage = garbage[client.send(garbage[: generator.randrange(1, 3000)]) :]
        server.reactor.turn(0 if garbage else MOMENT)
        got += heard(client)
    assert got == expected
    assert server.statistics.requests == 10_000
    assert server.statistics.failed == 0


@settings(max_examples=40)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=8), st.booleans())
def test_garbage_harms_nobody(portions: list[bytes], resets: bool) -> None:
    with one_server(line=100) as server:
        innocent, client = server.connect(), server.connect()
        for portion in portions:
            with suppress(ConnectionError):
                client.sendall(portion)
            server.settle()
        if resets:
            reset(client)
        client.close()
        server.ask(innocent, b"1,2\n", b"3\n")
        server.until(lambda: server.gone(1))
        assert server.statistics.failed == 0


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()


# -- how a conversation ends


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (b"", b""),
        (b"1,2\n", b"3\n"),
        (b"1,2\n3", b"3\nerror: the last line has no end\n"),
    ],
)
def test_who_closes_one_side_is_answered(
    start: Start, sent: bytes, expected: bytes
) -> None:
    server = start()
    client = server.connect()
    client.sendall(sent)
    client.shutdown(socket.SHUT_WR)
    server.expect(client, expected + END)
    server.until(server.gone)


@pytest.mark.parametrize("sent", [b"", b"1,2", b"1,2\n", b"quit\n"])
@pytest.mark.parametrize("noticed", [False, True])
def test_a_reset_ends_a_conversation_and_no_more(
    start: Start, sent: bytes, noticed: bool
) -> None:
    server = start()
    innocent, client = server.connect(), server.connect()
    client.sendall(sent)
    if noticed:
        server.settle()
    reset(client)
    server.until(lambda: server.gone(1))
    server.ask(innocent, b"1\n", b"1\n")
    assert server.statistics.failed == 0


def test_a_reset_in_the_backlog_harms_nobody(start: Start) -> None:
    server = start()
    reset(server.call())
    server.ask(server.connect(), b"1\n", b"1\n")
    server.until(lambda: server.gone(1))


def test_the_last_answer_reaches_who_has_sent_more(start: Start) -> None:
    server = start()
    client = server.connect()
    client.sendall(b"quit\n" + b"1\n" * 50_000)
    server.expect(client, b"goodbye\n" + END)
    server.settle()
    client.sendall(b"1\n")  # it would be reset by now
    assert not server.gone()
    client.close()
    server.until(server.gone)


# -- limits


@pytest.mark.parametrize("turn", [7, 20, 4096])
def test_a_line_may_be_as_long_as_its_limit(start: Start, turn: int) -> None:
    server = start(line=20, turn=turn)
    client = server.connect()
    server.ask(client, b"1\n" + b"2" * 20 + b"\n3\n", b"1\n" + b"2" * 20 + b"\n3\n")
    error = b"error: a line of more than 20 bytes\n"
    server.ask(client, b"4\n" + b"2" * 21 + b"\n5\n", b"4\n" + error + END)


def test_a_line_without_end_is_refused_when_it_is_too_long(start: Start) -> None:
    server = start()
    client = server.connect()
    server.send(client, b"1" * 4096)
    assert heard(client) == b""
    server.ask(client, b"1", b"error: a line of more than 4096 bytes\n" + END)


def test_who_is_one_too_many_is_told_so(start: Start) -> None:
    server = start(connections=2)
    first, second = server.connect(), server.connect()
    for sent in b"", b"1\n", b"1\n" * 5000:
        client = server.call()
        client.sendall(sent)  # unread, it would reset the connection
        server.expect(client, BUSY + END)
    assert server.statistics.refused == 3
    server.ask(first, b"1\n", b"1\n")
    second.close()
    server.until(lambda: server.gone(1))
    server.ask(server.connect(), b"2\n", b"2\n")


def test_a_client_that_has_sent_much_has_one_turn_before_the_others(
    start: Start,
) -> None:
    server = start(turn=100)
    greedy, modest = server.connect(), server.connect()
    greedy.sendall(b"1\n" * 1000)
    modest.sendall(b"2\n")
    server.ready(2)
    server.reactor.turn(0)
    assert heard(modest) == b"2\n"
    assert heard(greedy) == b"1\n" * 50
    server.expect(greedy, b"1\n" * 950)


def test_many_more_than_select_can_take_are_served(start: Start) -> None:
    n = 1100
    resource = pytest.importorskip("resource")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2 * n + 200:
        pytest.skip("needs more descriptors")
    server = start()
    clients = [server.connect() for _ in range(n)]
    for client in clients:
        client.sendall(b"1,2\n")
    server.ready(n)
    server.reactor.turn(0)
    assert {heard(client) for client in clients} == {b"3\n"}


def test_an_idle_connection_needs_less_than_3_kib(start: Start) -> None:
    server = start()
    for _ in range(10):
        server.ask(server.connect(), b"1\n", b"1\n")
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(200):
            server.ask(server.connect(), b"1\n", b"1\n")
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size / 200 < 3 * 1024


def test_newcomers_have_turns_as_well(start: Start) -> None:
    server = start()
    client = server.connect()
    n = reactor_.ACCEPTS
    crowd = [server.call() for _ in range(n + 1)]
    server.ready(1)
    server.until(lambda: len(server.reactor.connections) > 1)
    assert server.gone(1 + n)
    server.ask(client, b"1\n", b"1\n")
    for one in crowd:
        server.expect(one, GREETING)


# -- deadlines


def test_who_is_idle_for_too_long_is_told_so(start: Start) -> None:
    server = start()
    client = server.connect()
    server.passes(59)
    server.ask(client, b"1\n", b"1\n")
    server.passes(59)
    assert heard(client) == b""
    server.passes(2)
    server.expect(client, b"error: nothing has come\n" + END)
    assert server.statistics.too_slow == 1


def test_a_request_has_its_time_however_its_bytes_come(start: Start) -> None:
    server = start()
    client = server.connect()
    server.passes(50)
    for _ in range(9):
        server.send(client, b"1")
        server.passes(1)
    assert heard(client) == b""
    server.send(client, b"1")
    server.passes(1.5)
    server.expect(client, b"error: a request has no end\n" + END)
    assert server.statistics.too_slow == 1


def test_a_request_that_ends_gives_the_next_one_its_time(start: Start) -> None:
    server = start()
    client = server.connect()
    server.send(client, b"1,")
    server.passes(9)
    server.ask(client, b"2\n3,", b"3\n")
    server.passes(9)
    server.ask(client, b"4\n", b"7\n")
    server.passes(59)
    server.ask(client, b"5\n", b"5\n")


def test_what_has_come_counts_even_if_the_deadline_has_passed(start: Start) -> None:
    server = start()
    client = server.connect()
    client.sendall(b"1\n")
    server.ready(1)
    server.passes(61)
    server.expect(client, b"1\n")


def test_who_does_not_close_in_the_end_is_closed(start: Start) -> None:
    server = start()
    client = server.connect()
    server.ask(client, b"quit\n", b"goodbye\n" + END)
    server.passes(1.5)
    assert not server.gone()
    server.passes(1)
    assert server.gone()
    assert server.statistics.too_slow == 0  # it was not


def test_a_session_may_go_on_after_a_deadline(start: Start) -> None:
    async def patient(connection: Connection) -> None:
        while True:
            try:
                if not await connection.lines():
                    return
            except TimeoutError as error:
                connection.write(b"%s?\n" % str(error).encode())

    server = start(patient)
    client = server.connect(b"")
    server.passes(61)
    server.expect(client, b"nothing has come?\n")
    server.passes(59)
    assert heard(client) == b""
    server.passes(2)
    server.expect(client, b"nothing has come?\n")
    server.passes(30)
    server.send(client, b"1")
    server.passes(11)
    server.expect(client, b"a request has no end?\n")


def test_who_is_busy_does_not_put_off_the_deadlines_of_others(start: Start) -> None:
    server = start()
    idle, busy = server.connect(), server.connect()
    for _ in range(61):
        busy.sendall(b"1\n")
        server.ready(1)
        server.time += 1
        server.reactor.turn(0)
    assert heard(busy) == b"1\n" * 61
    assert heard(idle) == b"error: nothing has come\n" + END


def test_small_answers_are_sent_at_once(start: Start) -> None:
    server = start()
    server.connect()
    (connection,) = server.reactor.connections
    assert connection._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# -- backpressure


NUMBER = b"7" * 999 + b"\n"  # a request, and its answer


def deafen(server: Server, client: socket.socket) -> int:
    """Send `NUMBER` and never read, until the server does not read either.

    Returns:
        How many bytes have been sent.
    """
    sent = 0
    while sent < 1 << 26:
        try:
            sent += client.send(NUMBER[sent % len(NUMBER) :])
        except BlockingIOError:
            if not server.reactor.turn(MOMENT):
                return sent
    raise AssertionError("the server reads on")


def read_all(server: Server, client: socket.socket, sent: int) -> None:
    """End the last request of these, and read the answers."""
    missing = -sent % len(NUMBER)
    size = sent + missing
    got = bytearray()
    while len(got) < size:
        if missing:
            with suppress(BlockingIOError):
                missing -= client.send(NUMBER[-missing:])
        server.reactor.turn(MOMENT)
        got += heard(client)
    assert got == NUMBER * (size // len(NUMBER))


def take(server: Server, client: socket.socket, size: int) -> None:
    """Read so many bytes, whatever they are."""
    while size > 0:
        server.reactor.turn(MOMENT)
        size -= len(heard(client))
    assert size == 0


def test_who_does_not_read_is_not_read_from(start: Start) -> None:
    server = start(narrow=True)
    innocent, client = server.connect(), server.connect()
    sent = deafen(server, client)
    done = server.statistics.requests
    assert done < sent // len(NUMBER)
    (connection,) = [one for one in server.reactor.connections if one._output]
    assert len(connection._output) + len(connection.rest) <= 2 * 4096
    for _ in range(3):
        server.ask(innocent, b"1\n", b"1\n")
    assert server.statistics.requests == done + 3
    read_all(server, client, sent)
    assert server.statistics.too_slow == 0


def test_who_does_not_take_its_answers_in_time_is_closed(start: Start) -> None:
    server = start(narrow=True)
    client = server.connect()
    deafen(server, client)
    server.passes(9)
    assert not server.gone()
    server.passes(2)
    assert server.gone()
    assert server.statistics.too_slow == 1
    assert heard(client).endswith((END, RESET))


def test_who_takes_little_of_its_answers_has_no_more_time(start: Start) -> None:
    server = start(narrow=True)
    client = server.connect()
    deafen(server, client)
    for _ in range(11):
        client.recv(100)
        server.passes(1)
    assert server.gone()


def test_who_has_taken_its_answers_has_the_usual_time_again(start: Start) -> None:
    async def answer_much(connection: Connection) -> None:
        connection.write(GREETING)
        await connection.drain()
        while await connection.lines():
            connection.write(bytes(1 << 20))

    server = start(answer_much, narrow=True)
    client = server.connect()
    server.settle()
    server.send(client, b"\n")
    server.passes(9)
    take(server, client, 1 << 20)
    server.settle()
    server.passes(59)
    assert heard(client) == b""
    server.send(client, b"\n")
    take(server, client, 1 << 20)


def test_who_resets_while_it_does_not_read_is_forgotten(start: Start) -> None:
    server = start(narrow=True)
    client = server.connect()
    deafen(server, client)
    reset(client)
    server.until(server.gone)
    assert server.statistics.failed == 0


def test_half_closed_it_gets_all_that_it_has_asked_for(start: Start) -> None:
    server = start(narrow=True)
    client = server.connect()
    sent = deafen(server, client)
    client.shutdown(socket.SHUT_WR)
    take(server, client, sent - sent % len(NUMBER))
    error = b"error: the last line has no end\n" if sent % len(NUMBER) else b""
    server.expect(client, error + END)


# -- sessions


def test_a_session_that_fails_harms_no_other(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(connection: Connection) -> None:
        connection.write(b"hello\n")
        if await connection.lines() == [b"fail"]:
            connection.write(b"half of")
            raise ArithmeticError("on purpose")
        connection.write(b"well\n")

    server = start(fail)
    one, other = server.connect(b"hello\n"), server.connect(b"hello\n")
    server.ask(one, b"fail\n", b"half of" + END)
    server.ask(other, b"go on\n", b"well\n" + END)
    assert server.statistics.failed == 1
    assert "on purpose" in caplog.text


def test_a_session_may_end_at_once(start: Start) -> None:
    async def greet(connection: Connection) -> None:
        connection.write(b"hello\n")

    server = start(greet)
    server.expect(server.call(), b"hello\n" + END)


@pytest.mark.parametrize("error", [RefusedError, TimeoutError])
def test_a_session_need_not_catch_what_the_client_has_done(
    start: Start, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(connection: Connection) -> None:
        await connection.lines()
        raise error

    server = start(refuse)
    server.ask(server.connect(b""), b"1\n", END)
    assert (server.statistics.failed, caplog.text) == (0, "")


def test_what_is_foreign_cannot_be_waited_for(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    class Foreign:
        def __await__(self) -> Generator[str, None, None]:
            yield "a foreign future"

    async def wait(connection: Connection) -> None:
        connection.write(b"hello\n")
        await Foreign()

    async def sleep(connection: Connection) -> None:
        await asyncio.sleep(1)

    for session, hello, told in (
        (wait, b"hello\n", "a foreign"),
        (sleep, b"", "no running"),
    ):
        server = start(session)
        server.expect(server.call(), hello + END)
        assert server.statistics.failed == 1
        assert told in caplog.text


async def await_when_closed(connection: Connection) -> None:
    try:
        await suspended()
    finally:
        await suspended()


async def fail_when_closed(connection: Connection) -> None:
    try:
        await suspended()
    finally:
        raise ArithmeticError("on purpose")


@pytest.mark.parametrize("session", [await_when_closed, fail_when_closed])
def test_a_session_cannot_keep_itself_from_being_closed(
    start: Start, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(session)
    client = server.connect(b"")
    server.reactor.close()
    assert heard(client) == END
    assert "when it was closed" in caplog.text
    caplog.clear()
    gc.collect()


def test_drain_gives_the_others_a_turn(start: Start) -> None:
    async def stream(connection: Connection) -> None:
        while await connection.lines():
            for n in range(3):
                connection.write(b"%d" % n)
                await connection.drain()

    server = start(stream)
    one, other = server.connect(b""), server.connect(b"")
    one.sendall(b"\n")
    other.sendall(b"\n")
    server.ready(2)
    for n in range(3):
        server.reactor.turn(0)
        assert heard(one) == heard(other) == b"%d" % n
        server.ready(2)
    server.settle()
    server.ask(one, b"\n", b"012")


def test_drain_waits_until_the_client_has_taken_it(start: Start) -> None:
    pieces = 0

    async def stream(connection: Connection) -> None:
        nonlocal pieces
        for _ in range(100):
            connection.write(bytes(1 << 18))
            await connection.drain()
            pieces += 1
        assert await connection.lines() == [b"thanks"]
        connection.write(b"welcome")

    server = start(stream, narrow=True)
    client = server.call()
    server.ready(1)
    server.settle()
    assert pieces < 100
    take(server, client, 100 << 18)
    server.ask(client, b"thanks\n", b"welcome" + END)
    assert pieces == 100


def test_a_session_whose_client_does_not_take_it_is_closed(start: Start) -> None:
    ended = []

    async def stream(connection: Connection) -> None:
        try:
            while True:
                connection.write(bytes(1 << 18))
                await connection.drain()
        except BaseException as error:
            ended.append(type(error))
            raise

    server = start(stream, narrow=True)
    server.call()
    server.ready(1)
    server.settle()
    server.passes(11)
    assert (ended, server.gone(), server.statistics.too_slow) == (
        [GeneratorExit],
        True,
        1,
    )


def test_a_deadline_of_what_has_begun_outlasts_the_answers(start: Start) -> None:
    """A session that has got a part, and answers that much, is still in a request."""

    async def permit(connection: Connection) -> None:
        connection.expect_request()
        await suspended()
        connection.begin_request()
        connection.write(bytes(1 << 20))
        assert await suspended() == b"the rest"
        connection.write(b"done")

    server = start(permit, narrow=True)
    client = server.call()
    server.ready(1)
    server.settle()
    server.send(client, b"go on?")
    take(server, client, 1 << 20)
    server.settle()
    (connection,) = server.reactor.connections
    connection.finish()
    server.ask(client, b"the rest", b"done" + END)


# -- pauses


async def tick(connection: Connection) -> None:
    """Tell the time, as server-sent events would; the first word is the pause."""
    ((seconds,),) = [await connection.lines()]
    while True:
        connection.write(b"tick\n")
        if not await connection.pause(float(seconds)):
            break
    connection.write(b"stopped\n")
    await connection.lines()


def test_a_pause_ends_when_it_is_over_and_nothing_else_ends_it(start: Start) -> None:
    server = start(tick)
    client = server.connect(b"")
    server.ask(client, b"100\n", b"tick\n")
    server.passes(99)
    client.sendall(b"hello?\n")
    server.ready(1)
    server.settle()
    assert heard(client) == b""
    for _ in range(2):
        server.passes(2)
        server.expect(client, b"tick\n")
        server.passes(98)
    assert server.statistics.too_slow == 0


def test_who_closes_in_a_pause_is_forgotten(start: Start) -> None:
    server = start(tick)
    client = server.connect(b"")
    server.ask(client, b"100\n", b"tick\n")
    client.close()
    server.until(server.gone)


def test_after_a_pause_the_usual_deadlines_hold(start: Start) -> None:
    async def think(connection: Connection) -> None:
        await connection.pause(5)
        connection.write(b"%b\n" % (await suspended() or b"nothing"))

    server = start(think)
    client = server.connect(b"")
    server.passes(6)
    server.passes(50)
    server.ask(client, b"thanks", b"thanks\n" + END)


def test_a_pause_does_not_begin_before_the_client_has_taken_what_was_written(
    start: Start,
) -> None:
    async def much_then_pause(connection: Connection) -> None:
        while True:
            connection.write(bytes(1 << 20))
            assert await connection.pause(1)

    server = start(much_then_pause, narrow=True)
    client = server.call()
    server.ready(1)
    server.settle()
    (connection,) = server.reactor.connections
    server.passes(5)
    assert len(connection._output) < 1 << 20
    take(server, client, 1 << 20)
    client.sendall(b"hello?")
    server.ready(1)
    server.settle()  # is dropped, as in any pause
    server.passes(2)
    assert len(connection._output) > 0
    server.passes(11)
    assert server.gone()
    assert (server.statistics.failed, server.statistics.too_slow) == (0, 1)


# -- no descriptors


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing more, but what it closes it may open again."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_newcomers_are_told_so_and_others_served(
    start: Start,
) -> None:
    server = start()
    client = server.connect()
    newcomers = [server.call() for _ in range(5)]
    with no_descriptors():
        for one in newcomers:
            server.expect(one, BUSY + END)
        server.ask(client, b"1\n", b"1\n")
        server.settle()
    assert server.statistics.refused == 5
    server.ask(server.connect(), b"2\n", b"2\n")


def test_without_even_a_spare_one_nobody_listens_until_the_next_tick(
    start: Start,
) -> None:
    server = start()
    client, newcomer = server.connect(), server.call()
    with no_descriptors():
        server.reactor._spare.close()
        taken = os.dup(0)
        server.ready(1)
        server.settle()  # and does not spin
        server.ask(client, b"1\n", b"1\n")
        server.passes(1)
        server.ask(client, b"2\n", b"2\n")
        os.close(taken)
        server.passes(1)
        server.expect(newcomer, BUSY + END)
    server.ask(server.connect(), b"3\n", b"3\n")


def test_a_server_stops_in_order_without_descriptors(start: Start) -> None:
    server = start(tick=MOMENT)
    client, newcomer = server.connect(), server.call()
    with no_descriptors():
        server.reactor._spare.close()
        taken = os.dup(0)
        server.ready(1)
        server.settle()
        client.sendall(b"1\n")
        wind_up(server)
        os.close(taken)
    assert heard(client) == b"1\n" + END
    assert heard(newcomer) in {GREETING + END, BUSY + END, RESET}


class Unable(socket.socket):
    """A listener that cannot accept, for a reason."""

    reason: int | None = None
    attempts = 0

    @classmethod
    def listening(cls) -> "Unable":
        listener = cls()
        listener.bind((calculator.HOST, 0))
        listener.listen()
        return listener

    def accept(self) -> tuple[socket.socket, Any]:
        self.attempts += 1
        if self.reason is not None:
            raise OSError(self.reason, "cannot accept")
        return super().accept()


@pytest.mark.parametrize(
    "reason", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EPERM]
)
def test_a_listener_that_cannot_accept_is_left_alone_for_a_tick(
    start: Start, reason: int
) -> None:
    listener = Unable.listening()
    server = start(calculate, listener)
    listener.reason = reason
    client = server.call()
    server.ready(1)
    server.settle()
    server.passes(1)
    assert listener.attempts <= 4
    listener.reason = None
    server.passes(1)
    server.expect(client, GREETING)


def test_a_server_that_does_not_listen_at_the_moment_can_be_stopped(
    start: Start,
) -> None:
    listener = Unable.listening()
    server = start(calculate, listener, tick=MOMENT)
    client, newcomer = server.connect(), server.call()
    listener.reason = errno.EMFILE
    server.ready(1)
    server.settle()
    wind_up(server)
    assert heard(client) == END
    assert heard(newcomer) == RESET


def test_a_client_that_has_gone_before_it_was_accepted_is_no_lack(start: Start) -> None:
    listener = Unable.listening()
    server = start(calculate, listener)
    listener.reason = errno.ECONNABORTED
    server.reactor.react()
    listener.reason = None
    server.ask(server.connect(), b"1\n", b"1\n")
    assert server.statistics.refused == 0


def test_a_client_that_cannot_be_registered_is_closed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    client = server.call()
    server.ready(1)
    with monkeypatch.context() as patch:

        def register(*_: object) -> None:
            raise OSError(errno.ENOSPC, "too many are watched")

        patch.setattr(server.reactor.selector, "register", register)
        server.reactor.react()
    assert heard(client) == END
    server.ask(server.connect(), b"1\n", b"1\n")
    assert server.gone(1)


# -- the stop


def wind_up(server: Server) -> None:
    """Stop the server, and let each turn of it take half a second."""
    times = count(server.time, 0.5)
    server.reactor._clock = lambda: next(times)
    server.reactor.stop()
    server.reactor.run()


def test_a_server_that_is_stopped_answers_what_has_come(start: Start) -> None:
    server = start(tick=MOMENT)
    idle, asks = server.connect(), server.connect()
    asks.sendall(b"1,2\n" * 5000)
    backlog = server.call()
    server.ready(2)
    wind_up(server)
    assert heard(idle) == END
    assert heard(asks) == b"3\n" * 5000 + END
    assert heard(backlog) == GREETING + END
    assert server.listener.fileno() == -1


def test_who_has_not_ended_a_request_when_time_is_up_is_told_so(start: Start) -> None:
    server = start(tick=MOMENT, request=100)
    client = server.connect()
    server.send(client, b"1\n2,")
    server.expect(client, b"1\n")
    began = server.time
    wind_up(server)
    assert heard(client) == b"error: a request has no end\n" + END
    assert 7 <= server.reactor.now - began <= 8  # for it has not closed


def test_a_stop_ends_pauses(start: Start) -> None:
    server = start(tick, tick=MOMENT)
    client = server.connect(b"")
    server.ask(client, b"100\n", b"tick\n")
    wind_up(server)
    assert heard(client) == b"stopped\n" + END
    assert server.statistics.failed == 0


def test_a_stop_does_not_wait_for_ever_for_who_does_not_read(start: Start) -> None:
    server = start(narrow=True, tick=MOMENT, drain=100)
    client = server.connect()
    deafen(server, client)
    wind_up(server)
    assert server.gone()


def test_who_reads_at_last_gets_all_that_was_answered_before_the_stop(
    start: Start,
) -> None:
    with no_thread_is_left(), one_server(narrow=True, tick=MOMENT) as server:
        client = server.connect()
        sent = deafen(server, client)
        server.reactor._clock = time.monotonic
        client.settimeout(LIMIT)
        server.reactor.stop()
        with calculator.in_thread(server.reactor):
            client.shutdown(socket.SHUT_WR)
            got = b""
            while portion := client.recv(1 << 16):
                got += portion
            client.close()
    got = got.removesuffix(b"error: the last line has no end\n")
    assert got == NUMBER * (sent // len(NUMBER))


def test_a_session_that_does_not_end_is_ended(start: Start) -> None:
    async def stay(connection: Connection) -> None:
        while True:
            with suppress(TimeoutError):
                await connection.lines()

    server = start(stay, tick=MOMENT)
    client = server.connect(b"")
    wind_up(server)
    assert heard(client) in {END, RESET}


def test_a_stop_before_the_start_is_a_stop(start: Start) -> None:
    server = start(tick=LIMIT)
    server.reactor.stop()
    server.reactor.stop()
    server.reactor.run()
    server.reactor.stop()
    assert server.listener.fileno() == -1


@pytest.mark.parametrize("depth", [1, 100])
def test_a_stop_under_load_leaves_no_half_answer(depth: int) -> None:
    """Clients ask all the time; each gets whole answers, and the end."""
    limits = Limits(stop=0.05, tick=0.02)
    request = b"%d,%d\n" % (10**40, 7)
    answer = b"%d\n" % (10**40 + 7)
    reactor = Reactor(calculate, listen(), limits)
    address = reactor._listener.getsockname()

    def ask_on(client: socket.socket) -> bytes:
        got = b""
        with client, suppress(ConnectionError):
            while True:
                client.sendall(request * depth)
                wanted = len(got) + depth * len(answer)
                while len(got) < wanted:
                    if not (portion := client.recv(1 << 16)):
                        return got
                    got += portion
        return got

    with no_thread_is_left(), ThreadPoolExecutor(4) as pool:
        with calculator.in_thread(reactor):
            clients = [socket.create_connection(address, LIMIT) for _ in range(4)]
            for client in clients:
                assert client.recv(100) == GREETING
            asking = [pool.submit(ask_on, client) for client in clients]
            end = time.monotonic() + LIMIT
            while reactor.statistics.requests < 50 * depth:
                assert time.monotonic() < end
                with socket.create_connection(address, LIMIT) as one:
                    assert one.recv(100) == GREETING
        for future in asking:
            got = future.result(LIMIT).removesuffix(b"error: a request has no end\n")
            assert got == answer * (len(got) // len(answer))
    assert not reactor.connections
    assert reactor.statistics.failed == 0


# -- what is left


def descriptors() -> list[str]:
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc to count descriptors")
    return sorted(path.name for path in folder.iterdir())


def test_nothing_is_left_of_a_server(caplog: pytest.LogCaptureFixture) -> None:
    before = descriptors()
    with one_server(tick) as server:
        silent, pausing, amidst, resets = (server.connect(b"") for _ in range(4))
        server.ask(pausing, b"100\n", b"tick\n")
        server.send(amidst, b"1,")
        reset(resets)
        server.reactor.close()
        assert [heard(one) for one in (silent, pausing, amidst)] == [END] * 3
        server.reactor.close()
    assert descriptors() == before
    assert caplog.text == ""


@pytest.mark.parametrize("where", ["clock", "session", "tick"])
def test_ctrl_c_closes_everything(where: str) -> None:
    before = descriptors()
    armed = False

    def interrupt() -> None:
        if armed:
            raise KeyboardInterrupt

    async def session(connection: Connection) -> None:
        while await connection.lines():
            if where == "session":
                interrupt()

    def clock() -> float:
        if where == "clock":
            interrupt()
        return 0.0

    with socket.socket() as client:
        reactor = Reactor(session, listen(), clock=clock)
        client.connect(reactor._listener.getsockname())
        while not reactor.connections:
            reactor.turn(MOMENT)
        client.sendall(b"1\n")
        armed = True
        if where == "tick":
            reactor._next_tick = 0.0
            reactor._listen_again = interrupt  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            reactor.run()
        with suppress(ConnectionError):  # what it has sent may not have been read
            assert client.recv(1) == b""
    assert descriptors() == before


def test_a_connection_that_has_ended_is_no_garbage(start: Start) -> None:
    server = start()
    client = server.connect()
    server.ask(client, b"quit\n", b"goodbye\n" + END)
    client.close()
    server.until(server.gone)
    assert server.statistics == Statistics(accepted=1, requests=1)


# -- the scripts


@needs_posix_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_when_all_is_answered(number: signal.Signals) -> None:
    with served(calculator) as (process, port), ExitStack() as stack:
        address = calculator.HOST, port
        clients = [
            stack.enter_context(socket.create_connection(address, LIMIT))
            for _ in range(20)
        ]
        for client in clients:
            assert client.recv(100) == GREETING
            client.sendall(b"1,2\n3,4\n")
        process.send_signal(number)
        for client in clients:
            assert client.recv(100, socket.MSG_WAITALL) == b"3\n7\n"
            client.close()
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (0, b"")
    expected = rb"open 0, accepted 20, refused 0, requests 40, too_slow 0, failed 0\s+"
    assert re.fullmatch(expected, out)


class Clock:
    """What signals_call uses of `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(calculator, "time", clock)
    return clock


@needs_posix_signals
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_the_program_unless_it_belongs_to_the_first(
    clock: Clock, first: signal.Signals, second: signal.Signals
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    stops: list[str] = []
    with calculator.signals_call(lambda: stops.append("stop")):
        clock.now += calculator.INSTANT
        signal.raise_signal(first)
        assert stops == ["stop"]
        clock.now += 0.9 * calculator.INSTANT
        signal.raise_signal(second)
        clock.now += 0.2 * calculator.INSTANT
        for _ in range(2):
            with pytest.raises(SystemExit) as exit_:
                signal.raise_signal(second)
            assert exit_.value.code == 128 + second
            clock.now += 0.9 * calculator.INSTANT
            signal.raise_signal(second)
            clock.now += 0.2 * calculator.INSTANT
        now = clock.now
    assert clock.now == now
    assert stops == ["stop"]
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))


@needs_posix_signals
def test_a_signal_that_belongs_to_the_first_does_not_strike_what_comes_after(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        signal.raise_signal(signal.SIGINT)
        clock.now += seconds

    monkeypatch.setattr(clock, "sleep", sleep)
    began = clock.now
    with calculator.signals_call(lambda: None):
        signal.raise_signal(signal.SIGINT)
        clock.now += 0.1
    assert clock.now == pytest.approx(began + calculator.INSTANT)


@needs_posix_signals
def test_without_a_signal_the_block_ends_at_once(clock: Clock) -> None:
    began = clock.now
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(LookupError), calculator.signals_call(lambda: None):
        raise LookupError
    assert clock.now == began
    assert signal.getsignal(signal.SIGINT) is before


def test_bad_ports_are_refused(
    complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses_bad_ports(calculator, complaint, monkeypatch)


async def hang_up(connection: Connection) -> None:
    connection.write(GREETING)
    await connection.lines()
    connection.write(b"3\n")


async def answer_one_line_only(connection: Connection) -> None:
    connection.write(GREETING)
    while lines := await connection.lines():
        connection.write(answers(lines[0] + b"\n"))


@pytest.mark.parametrize(
    ("session", "message"),
    [
        (answer_one_line_only, "was to come"),
        (hang_up, "was to come, and not b'3"),
        (tick, r"calculator: sum.+ was to come"),
    ],
)
def test_a_server_that_does_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, session: Session, message: str
) -> None:
    monkeypatch.setattr(calculator, "calculate", session)
    monkeypatch.setattr(calculator, "PATIENCE", 0.2)
    with no_thread_is_left(), pytest.raises(SystemExit, match=message):
        run_main(calculator, monkeypatch)


def test_a_reactor_that_reads_on_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calculator, "TOO_MUCH", 1 << 22)
    run_main(calculator, monkeypatch)
    monkeypatch.setattr(Connection, "_stall", lambda self: None)
    with pytest.raises(SystemExit, match="reads on"):
        run_main(calculator, monkeypatch)


def test_a_reactor_that_stops_at_once_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "finish", Connection.close)
    with no_thread_is_left(), pytest.raises(SystemExit, match=r"begun|in vain"):
        run_main(calculator, monkeypatch)


def test_an_echo_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Connection, "write", lambda self, data: self.close())
    with pytest.raises(SystemExit, match="to go on"):
        run_main(reactor_, monkeypatch)
