"""Chapter 11, servers: the parts a reader would copy."""

import asyncio
import signal
import socket
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
)
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
    suppress,
)
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any, Self, SupportsIndex, TypeVar, cast

import example01_server_that_receives as receiving
import example02_echo as echoing
import example03_echo_and_close as closing
import example07_streams_server_and_client as streams
import example08_length_prefixed_frames as frames
import example09_graceful_shutdown as graceful
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serving import (
    HOST,
    LIMIT,
    all_of,
    ends_in_order,
    needs_posix_signals,
    refuses_bad_ports,
    run,
    served,
    slow_turns,
    until,
)

T = TypeVar("T")

few_examples = settings(max_examples=30)  # of those that start an event loop each


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Draw the portions in which `data` arrives."""
    places = draw(st.sets(st.integers(0, len(data))))
    ends = sorted({0, *places, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


class Transport(asyncio.Transport):
    """Notes what a protocol asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.written = b""

    def abort(self) -> None:
        self.asked.append("abort")

    def close(self) -> None:
        self.asked.append("close")

    def pause_reading(self) -> None:
        self.asked.append("pause_reading")

    def resume_reading(self) -> None:
        self.asked.append("resume_reading")

    def set_write_buffer_limits(
        self, high: int | None = None, low: int | None = None
    ) -> None:
        self.asked.append(f"high={high}")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert "write_eof" not in self.asked
        self.written += data

    def write_eof(self) -> None:
        self.asked.append("write_eof")


class Writer(Transport):
    """What a stream has for writing, to a peer that takes everything at once."""

    async def drain(self) -> None:
        pass

    async def wait_closed(self) -> None:
        self.asked.append("wait_closed")


class CountingBytes(bytearray):
    """Counts the bytes that are looked at, moved or copied."""

    handled = 0

    def find(self, sub: Any, start: Any = 0, end: Any = None, /) -> int:
        self.handled += len(self) - start
        return super().find(sub, start)

    def __iadd__(self, data: Any) -> Self:  # type: ignore[misc]
        self.handled += len(data)
        super().__iadd__(data)
        return self

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        self.handled += len(found) if isinstance(key, slice) else 1
        return found

    def __delitem__(self, key: SupportsIndex | slice) -> None:
        before = len(self)
        super().__delitem__(key)
        if len(self) < before:
            self.handled += len(self)  # as if the rest were moved


# -- every script that serves


@needs_posix_signals
@pytest.mark.parametrize(
    ("module", "typed", "answered", "printed"),
    [
        (receiving, [b"hel", b"lo\nyou\r\n"], b"", b"hello' b'you'"),
        (echoing, [b"hel", b"lo\nyou\r\n"], b"hello\nyou\r\n", b""),
        (closing, [b"hel", b"lo\r\n"], b"hello\r\n", b""),
        (streams, [b"6", b" 3\n8 2\r\n"], b"2\n4\n", b""),
        (graceful, [b"hel", b"lo\nyou\r\n"], b"HELLO\nYOU\r\n", b""),
    ],
    ids=["receives", "echo", "echo and close", "streams", "graceful"],
)
def test_served_script_answers_nc_and_ends_at_ctrl_c(
    module: ModuleType, typed: list[bytes], answered: bytes, printed: bytes
) -> None:
    goodbye = b"goodbye\n" if module is graceful else b""
    with (
        served(module) as (process, port),
        socket.create_connection((HOST, port), LIMIT) as nc,
        socket.create_connection((HOST, port), LIMIT) as idle,
    ):
        for portion in typed:
            nc.sendall(portion)
        received = b""
        while len(received) < len(answered):
            received += nc.recv(65_536)
        assert received == answered
        if printed:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            assert lines == [b"received b'hello'\n", b"received b'you'\n"]
        process.send_signal(signal.SIGINT)
        assert all_of(nc) == (goodbye if module is not closing else b"")
        nc.close()
        assert all_of(idle) == goodbye
        idle.close()
        ends_in_order(process)


@pytest.mark.parametrize(
    "module",
    [receiving, echoing, closing, streams, graceful],
    ids=lambda module: module.__name__,
)
def test_bad_port(
    module: ModuleType,
    complaint: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuses_bad_ports(module, complaint, monkeypatch)


# -- example01


def take_all(buffer: receiving.LineBuffer) -> list[bytes]:
    lines = []
    while (line := buffer.next_line()) is not None:
        lines.append(line)
    return lines


@given(st.data())
def test_any_portions_give_the_same_lines(data: st.DataObject) -> None:
    text = b"".join(data.draw(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"bc"]))))
    buffer = receiving.LineBuffer()
    lines = []
    for portion in data.draw(cut(text)):
        buffer.feed(portion)
        if data.draw(st.booleans()):  # several portions may come before a look
            lines += take_all(buffer)
    lines += take_all(buffer)
    *whole, rest = text.split(b"\n")
    assert lines == [line.removesuffix(b"\r") for line in whole]
    assert buffer.rest == rest


@given(st.data())
def test_any_portions_are_refused_alike(data: st.DataObject) -> None:
    text = b"".join(data.draw(st.lists(st.sampled_from([b"a", b"\r", b"\n"]))))
    too_long = False
    expected = []
    for line in text.split(b"\n"):
        if too_long := len(line.removesuffix(b"\r")) > 3:
            break
        expected.append(line.removesuffix(b"\r"))
    buffer = receiving.LineBuffer(3)
    lines = []
    refused = False
    for portion in data.draw(cut(text)):
        buffer.feed(portion)
        try:
            while (next_line := buffer.next_line()) is not None:
                lines.append(next_line)
        except receiving.LineTooLongError:
            refused = True
    assert refused == too_long
    assert lines == (expected if too_long else expected[:-1])


def test_no_byte_of_a_long_line_is_searched_twice() -> None:
    buffer = receiving.LineBuffer()
    counting = buffer.rest = CountingBytes()
    for _ in range(5000):
        buffer.feed(b"x")
        assert buffer.next_line() is None
    buffer.feed(b"\n")
    assert buffer.next_line() == 5000 * b"x"
    assert counting.handled < 4 * 5000


def test_client_with_an_endless_line_is_hung_up_on() -> None:
    async def feed() -> tuple[list[bytes], list[str]]:
        lines: list[bytes] = []
        connections: set[receiving.LineReceiver] = set()
        receiver = receiving.LineReceiver(connections, lines.append, 3)
        transport = Transport()
        receiver.connection_made(transport)
        assert connections == {receiver}
        receiver.data_received(b"abc\nabcd")
        receiver.connection_lost(None)
        assert isinstance(receiver.error, receiving.LineTooLongError)
        assert not connections
        assert receiver.lost.done()
        return lines, transport.asked

    assert run(feed()) == ([b"abc"], ["abort"])


def test_error_of_one_client_is_no_matter_to_another(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    def on_line(line: bytes) -> None:
        if line == b"bad":
            raise RuntimeError("a bug")
        lines.put_nowait(line)

    async def scenario() -> bytes:
        make = partial(receiving.LineReceiver, on_line=on_line)
        async with receiving.listening(make) as port:
            _, good = await asyncio.open_connection(HOST, port)
            reader, bad = await asyncio.open_connection(HOST, port)
            bad.write(b"bad\n")
            assert await reader.read() == b""  # it is hung up on
            bad.close()
            good.write(b"good\n")
            line = await lines.get()
            good.close()
        return line

    assert run(scenario()) == b"good"
    assert "a bug" in caplog.text


@asynccontextmanager
async def graceful_port(server: graceful.GracefulServer) -> AsyncIterator[int]:
    async with server:
        yield server.port


every_listening = pytest.mark.parametrize(
    "listening",
    [
        lambda: receiving.listening(partial(receiving.LineReceiver, on_line=print)),
        echoing.listening,
        closing.listening,
        lambda: streams.listening(streams.divide),
        lambda: graceful_port(graceful.GracefulServer(capitals)),
    ],
    ids=["receives", "echo", "echo and close", "streams", "graceful"],
)


@every_listening
@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("turns", range(5))
def test_end_of_the_server_ends_clients_and_gives_the_port_back(
    listening: Callable[[], AbstractAsyncContextManager[int]], turns: int, slow: bool
) -> None:
    """Slow turns let the server's timers ring in the midst of the acceptance."""

    async def scenario() -> None:
        with socket.socket() as new:
            turn = slow_turns() if slow else nullcontext()
            async with turn, listening() as port:
                reader, writer = await asyncio.open_connection(HOST, port)
                new.settimeout(1)
                new.connect((HOST, port))
                for _ in range(turns):  # of those in which it is accepted
                    await asyncio.sleep(0)
            assert all_of(new) in {b"", b"goodbye\n"}
        assert await reader.read() in {b"", b"goodbye\n"}
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)

    run(scenario())


serves_lines = pytest.mark.parametrize(
    "listening",
    [
        lambda answer: streams.listening(answer),
        lambda answer: graceful_port(graceful.GracefulServer(answer)),
    ],
    ids=["streams", "graceful"],
)
Answer = Callable[[bytes], Awaitable[bytes]]
Listening = Callable[[Answer], AbstractAsyncContextManager[int]]


@serves_lines
def test_who_sends_much_lets_others_have_a_turn(listening: Listening) -> None:
    n_lines, n_turns, answered = 5000, 0, 0

    async def answer(_: bytes) -> bytes:
        nonlocal answered
        answered += 1
        return b""

    async def scenario() -> None:
        nonlocal n_turns
        async with listening(answer) as port:
            _, writer = await asyncio.open_connection(HOST, port)
            writer.write(n_lines * b"x\n")
            while answered < n_lines:
                await asyncio.sleep(0)
                n_turns += 1
            writer.transport.abort()

    run(scenario())
    assert n_turns >= n_lines


@serves_lines
def test_client_that_does_not_wait_for_its_answer_is_no_error(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    asked = 0

    async def answer(line: bytes) -> bytes:
        nonlocal asked
        asked += 1
        return line

    async def scenario() -> None:
        async with listening(answer) as port:
            for number in range(20):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.write(b"hello\n")
                writer.close()
                await writer.wait_closed()
                while asked <= number:
                    await asyncio.sleep(0)
                await asyncio.sleep(0.002)

    run(scenario())
    assert not caplog.records


@pytest.mark.parametrize("error", [TimeoutError("of the database"), ConnectionError()])
def test_any_error_of_an_answer_is_logged(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(line: bytes) -> bytes:
        if line.strip() == b"bad":
            raise error
        return line.strip().upper()

    async def scenario() -> bytes:
        async with streams.listening(answer) as port:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"good\nbad\nunread\n")
            try:
                return await reader.read()
            finally:
                writer.close()

    assert run(scenario()) == b"GOOD\n"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@every_listening
@pytest.mark.parametrize("turns", range(5))
def test_second_cancel_hangs_up_all_the_same(
    listening: Callable[[], AbstractAsyncContextManager[int]], turns: int
) -> None:
    async def serve(ready: "asyncio.Future[int]") -> None:
        async with listening() as port:
            ready.set_result(port)
            await asyncio.Event().wait()

    async def scenario() -> None:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(serve(ready))
        port = await ready
        reader, writer = await asyncio.open_connection(HOST, port)
        await asyncio.sleep(0.01)  # it is being served
        for _ in range(2):
            serving.cancel()
            for _ in range(turns):
                await asyncio.sleep(0)
        await asyncio.wait([serving])
        assert serving.cancelled()
        with suppress(ConnectionError):
            assert await reader.read() in {b"", b"goodbye\n"}
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, port)

    run(scenario())


@pytest.mark.parametrize(
    "make",
    [
        lambda: receiving.LineReceiver(set(), print),
        lambda: echoing.Echo(set()),
        lambda: closing.EchoAndClose(set()),
    ],
    ids=["receives", "echo", "echo and close"],
)
def test_who_waits_for_the_loss_may_be_cancelled(make: Callable[[], Any]) -> None:
    async def scenario() -> None:
        protocol = make()
        protocol.connection_made(Transport())

        async def wait() -> None:
            await protocol.lost

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        protocol.connection_lost(None)  # and nobody is told of an InvalidStateError

    run(scenario())


# -- example02


def test_reading_pauses_while_there_is_too_much_to_write() -> None:
    async def feed() -> list[str]:
        echo, transport = echoing.Echo(set(), 7), Transport()
        echo.connection_made(transport)
        echo.data_received(b"abc")
        echo.pause_writing()
        echo.resume_writing()
        echo.connection_lost(None)
        assert transport.written == b"abc"
        return transport.asked

    assert run(feed()) == ["high=7", "pause_reading", "resume_reading"]


def test_flood_stays_with_its_sender() -> None:
    echo, came_back = run(echoing.flood(echoing.Measured))
    assert echo.most_buffered <= echoing.HIGH_WATER + echo.largest_read
    assert came_back == echoing.FLOOD


def test_flood_fills_the_memory_of_a_careless_server() -> None:
    echo, came_back = run(echoing.flood(echoing.Careless))
    assert echo.most_buffered > 4 * echoing.HIGH_WATER + echo.largest_read
    assert came_back == echoing.FLOOD


@pytest.mark.parametrize("n_clients", [1, 30])
def test_each_client_gets_its_own_bytes(n_clients: int) -> None:
    async def scenario() -> bool:
        async with echoing.listening() as port:
            return await echoing.ask_together(port, n_clients)

    assert run(scenario())


@pytest.mark.parametrize("reads", [True, False])
def test_end_of_an_echo_server_waits_for_who_reads(
    reads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echoing, "FLUSH_LIMIT", LIMIT if reads else 0.01)
    made: list[echoing.Measured] = []

    def make(connections: set[echoing.Echo]) -> echoing.Echo:
        made.append(echoing.Measured(connections))
        made[-1]._high_water = 2**30  # so that all is read
        return made[-1]

    async def scenario() -> int:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setblocking(False)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
            async with asyncio.TaskGroup() as group:
                async with echoing.listening(make) as port:
                    await loop.sock_connect(client, (HOST, port))
                    sending = group.create_task(
                        loop.sock_sendall(client, echoing.FLOOD)
                    )
                    await until(lambda: made)
                    await made[0].settled.wait()
                    held = made[0].transport.get_write_buffer_size()
                    assert held > echoing.HIGH_WATER
                    await sending
                    if reads:
                        received = group.create_task(receive(client))
                assert made[0].lost.done()
            return received.result() if reads else 0

    async def receive(client: socket.socket) -> int:
        received = 0
        with suppress(ConnectionError):
            loop = asyncio.get_running_loop()
            while portion := await loop.sock_recv(client, 65_536):
                received += len(portion)
        return received

    received = run(scenario())
    if reads:
        assert received == len(echoing.FLOOD)
        assert made[0].transport.get_write_buffer_size() == 0


# -- example03


def answer_to(portions: Iterable[bytes], limit: int = 5) -> bytes:
    """Return what EchoAndClose writes; whatever it is, it must keep the order."""

    async def feed() -> bytes:
        protocol = closing.EchoAndClose(set(), limit)
        transport = Transport()
        protocol.connection_made(transport)
        for portion in portions:
            protocol.data_received(portion)
        if not transport.asked:
            assert transport.written == b""
            protocol.eof_received()
        assert transport.asked == ["write_eof"]
        assert protocol._timer.when() < asyncio.get_running_loop().time() + 10
        protocol.connection_lost(None)
        assert protocol._timer.cancelled()
        return transport.written

    return run(feed())


@few_examples
@given(st.data())
def test_any_portions_are_answered_alike(data: st.DataObject) -> None:
    text = b"".join(data.draw(st.lists(st.sampled_from([b"a", b"\n"]), max_size=12)))
    line, end, _ = text.partition(b"\n")
    expected = line + end if len(line + end) <= 5 else closing.TOO_LONG
    assert answer_to(data.draw(cut(text))) == expected


@pytest.mark.parametrize("size", [1, 9])
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (b"aaaa\n", b"aaaa\n"),
        (b"aaaa\nb", b"aaaa\n"),
        (b"aaaaa\n", closing.TOO_LONG),
        (b"aaaaa", b"aaaaa"),
        (b"aaaaaa", closing.TOO_LONG),
        (b"", b""),
    ],
)
def test_limit_of_a_line_counts_its_end(text: bytes, answer: bytes, size: int) -> None:
    portions = [text[i : i + size] for i in range(0, len(text), size)]
    assert answer_to(portions) == answer


def test_all_that_follows_the_line_is_read_and_thrown_away() -> None:
    received = 0

    class Counting(closing.EchoAndClose):
        def data_received(self, data: bytes) -> None:
            nonlocal received
            received += len(data)
            super().data_received(data)

    async def scenario() -> tuple[bytes, Exception | None]:
        made: list[Counting] = []

        def make(connections: set[closing.EchoAndClose]) -> Counting:
            made.append(Counting(connections, linger=LIMIT))
            return made[-1]

        async with closing.listening(make) as port:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"1\n")
            answer = await reader.read()  # to the server's end ...
            writer.write(bytes(100_000))  # ... after which nothing may be reset
            await writer.drain()
            writer.write_eof()
            reason = await made[0].lost
            writer.close()
            return answer, reason

    assert run(scenario()) == (b"1\n", None)
    assert received == 100_002


@pytest.mark.parametrize(
    ("patience", "linger", "sent"),
    [(0.01, LIMIT, b""), (0.01, LIMIT, b"x"), (LIMIT, 0.01, b"1\n")],
    ids=["silent", "in mid-line", "after the answer"],
)
def test_client_that_stays_is_cut_off(
    patience: float, linger: float, sent: bytes
) -> None:
    make = partial(closing.EchoAndClose, patience=patience, linger=linger)
    assert run(closing.is_cut_off(make, sent))


def test_reset_is_told_as_such() -> None:
    async def scenario() -> Exception | None:
        made: list[closing.EchoAndClose] = []

        def make(connections: set[closing.EchoAndClose]) -> closing.EchoAndClose:
            made.append(closing.EchoAndClose(connections))
            return made[-1]

        async with closing.listening(make) as port:
            await closing.vanish(port)
            await until(lambda: made)
            return await made[0].lost

    assert isinstance(run(scenario()), ConnectionResetError)


# -- example07


@pytest.mark.parametrize(
    ("line", "quotient"), [(b"6 3\n", b"2"), (b" -7  2\r\n", b"-4"), (b"0 5", b"0")]
)
def test_division(line: bytes, quotient: bytes) -> None:
    assert run(streams.divide(line)) == quotient


@pytest.mark.parametrize("line", [b"\n", b"1\n", b"1 2 3\n", b"a b\n", b"\xff \xfe\n"])
def test_what_cannot_be_divided_is_a_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match="two integers, please"):
        run(streams.divide(line))


def test_clients_are_in_conversation_together() -> None:
    assert run(streams.ask_together(7)) == [str(number) for number in range(7)]


async def talk(
    sent: bytes, answer: streams.Answer = streams.divide, patience: float = LIMIT
) -> bytes:
    """Send all that at once, end the own side, return all that comes back."""
    async with (
        streams.listening(answer, patience=patience) as port,
        streams.Client(port) as client,
    ):
        client.writer.write(sent)
        client.writer.write_eof()
        return await client.reader.read()


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b"", b""),
        (b"6 3\n8 2\r\n", b"2\n4\n"),
        (b"6 3\n8 2", b"2\n4\n"),  # the last line ends with the stream
        (b"x\n6 3\n", b"error: two integers, please\n2\n"),
        (1024 * b"1" + b"\n6 3\n", b"error: two integers, please\n2\n"),
        (b"6 3\n" + 1025 * b"1" + b"\n6 3\n", b"2\nline too long\n"),
        (b"6 3\n" + 100_000 * b"1", b"2\nline too long\n"),
    ],
)
def test_conversation(sent: bytes, received: bytes) -> None:
    assert run(talk(sent)) == received


def test_unforeseen_error_is_logged_and_ends_one_conversation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> list[str]:
        async with (
            streams.listening(streams.divide) as port,
            streams.Client(port) as one,
            streams.Client(port) as other,
        ):
            answers = [await one.ask("1 0"), await other.ask("4 2")]
            with suppress(ConnectionError):
                assert await one.reader.read() == b""
            return answers

    assert run(scenario()) == ["", "2"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


def conversation_of(
    client: Callable[[int], Awaitable[None]],
    answer: streams.Answer,
    patience: float,
) -> None:
    """Let `client` talk to `converse`, and wait for that to end while it stays."""

    async def scenario() -> None:
        tasks: list[asyncio.Task[None]] = []

        def connected(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            work = streams.converse(reader, writer, answer, patience)
            tasks.append(asyncio.create_task(work))
            tasks[0].add_done_callback(lambda _: writer.transport.abort())

        server = await asyncio.start_server(connected, HOST, 0)
        try:
            await client(server.sockets[0].getsockname()[1])
            await until(lambda: tasks)
            await tasks[0]
        finally:
            server.close()

    run(scenario())


def test_client_that_does_not_read_is_let_go() -> None:
    async def big(_: bytes) -> bytes:
        return bytes(2**23)  # more than the system takes

    with socket.socket() as sock:

        async def client(port: int) -> None:
            sock.connect((HOST, port))
            sock.sendall(b"ask\n")

        conversation_of(client, big, patience=0.05)


def test_client_that_vanishes_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    asked = asyncio.Event()

    async def late(_: bytes) -> bytes:
        asked.set()
        return bytes(2**23)

    async def client(port: int) -> None:
        with socket.create_connection((HOST, port)) as sock:
            sock.sendall(b"ask\n")
            await asked.wait()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, closing.RESET)

    conversation_of(client, late, patience=LIMIT)
    assert not caplog.records


def test_streams_are_closed_after_the_clients_end() -> None:
    async def scenario() -> list[str]:
        reader, writer = asyncio.StreamReader(), Writer()
        hanging_up = asyncio.create_task(
            streams.hang_up(reader, cast(asyncio.StreamWriter, writer), LIMIT)
        )
        for _ in range(5):
            await asyncio.sleep(0)
            reader.feed_data(b"too late")
            assert writer.asked in ([], ["write_eof"])
        reader.feed_eof()
        await hanging_up
        return writer.asked

    assert run(scenario()) == ["write_eof", "close", "wait_closed"]


def test_silent_client_is_told_and_let_go() -> None:
    async def scenario() -> bytes:
        listening = streams.listening(streams.divide, patience=0.01)
        async with listening as port, streams.Client(port) as client:
            return await client.reader.read()

    assert run(scenario()) == b"silent for too long\n"


def test_time_for_an_answer_is_not_the_clients() -> None:
    async def slow(_: bytes) -> bytes:
        await asyncio.sleep(0.05)
        return b"late"

    async def scenario() -> bytes:
        reader, writer = asyncio.StreamReader(), Writer()
        reader.feed_data(b"ask\n")  # is there already: for the client nobody waits
        reader.feed_eof()
        stream_writer = cast(asyncio.StreamWriter, writer)
        await streams.converse(reader, stream_writer, slow, patience=0.02)
        return writer.written

    assert run(scenario()) == b"late\n"


def test_conversation_that_has_not_begun_is_ended_too() -> None:
    """Cancelled before its first step, a coroutine cannot clean up."""

    async def scenario() -> bytes:
        async with streams.listening(streams.divide) as port:
            connected = asyncio.Event()
            begin = streams.converse

            def note(*args: Any) -> Coroutine[Any, Any, None]:
                connected.set()
                return begin(*args)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(streams, "converse", note)
                reader, writer = await asyncio.open_connection(HOST, port)
                await connected.wait()
            conversations = asyncio.all_tasks() - {asyncio.current_task()}
            assert len(conversations) == 1
        try:
            return await reader.read()
        finally:
            writer.close()

    assert run(scenario()) == b""


# -- example08

messages = st.lists(st.binary(max_size=9) | st.sampled_from([b"", b"\0\0\0\1", b"\n"]))


@given(st.data(), messages)
def test_any_portions_give_the_same_messages(
    data: st.DataObject, sent: list[bytes]
) -> None:
    stream = b"".join(map(frames.frame, sent))
    assert frames.decode(data.draw(cut(stream)), frames.FrameDecoder()) == sent


@given(st.data(), messages)
def test_who_takes_messages_now_and_then_gets_all(
    data: st.DataObject, sent: list[bytes]
) -> None:
    decoder = frames.FrameDecoder()
    received = []
    for portion in data.draw(cut(b"".join(map(frames.frame, sent)))):
        taken = decoder.feed(portion)
        for _ in range(data.draw(st.integers(0, 2))):
            received += [
                message for message in [next(taken, None)] if message is not None
            ]
    received += decoder.feed(b"")
    assert received == sent
    decoder.close()


@given(st.data(), messages, st.integers(11, 2**32 - 1))
def test_messages_before_a_length_that_is_too_great_are_had(
    data: st.DataObject, sent: list[bytes], length: int
) -> None:
    stream = b"".join(map(frames.frame, sent)) + length.to_bytes(4, "big")
    decoder = frames.FrameDecoder(limit=10)
    received = []
    refused = False
    for portion in data.draw(cut(stream + data.draw(st.binary(max_size=9)))):
        try:
            for message in decoder.feed(portion):
                assert not refused
                received.append(message)
        except frames.FrameError:
            refused = True
    assert (received, refused) == (sent, True)


@given(st.data(), messages)
def test_stream_may_end_between_messages_only(
    data: st.DataObject, sent: list[bytes]
) -> None:
    stream = b"".join(map(frames.frame, sent))
    ends = {0}
    for message in sent:
        ends.add(max(ends) + 4 + len(message))
    end = data.draw(st.integers(0, len(stream)))
    decoder = frames.FrameDecoder()
    for _ in decoder.feed(stream[:end]):
        pass
    if end in ends:
        decoder.close()
    else:
        with pytest.raises(frames.FrameError, match="ended"):
            decoder.close()


@given(st.binary())
def test_garbage_is_messages_or_a_frame_error_and_nothing_else(stream: bytes) -> None:
    with suppress(frames.FrameError):
        decoded = frames.decode([stream], frames.FrameDecoder(limit=300))
        assert b"".join(map(frames.frame, decoded)) == stream


def test_limit_is_inclusive_for_both_sides() -> None:
    stream = frames.frame(b"abc", limit=3)
    assert frames.decode([stream], frames.FrameDecoder(limit=3)) == [b"abc"]
    with pytest.raises(frames.FrameError, match="3 bytes; 0 … 2 are allowed"):
        frames.decode([stream[:4]], frames.FrameDecoder(limit=2))
    with pytest.raises(frames.FrameError, match="3 bytes; 0 … 2 are allowed"):
        frames.frame(b"abc", limit=2)


def test_negative_length_is_named_as_such() -> None:
    with pytest.raises(frames.FrameError, match="of -1 bytes"):
        list(frames.FrameDecoder(signed=True).feed(b"\xff\xff\xff\xff"))
    with pytest.raises(frames.FrameError, match="of 4294967295 bytes"):
        list(frames.FrameDecoder().feed(b"\xff\xff\xff\xff"))
    # Both readings agree on what is allowed.
    signed = frames.FrameDecoder(signed=True)
    assert list(signed.feed(frames.frame(b"abc"))) == [b"abc"]


def test_error_stays() -> None:
    decoder = frames.FrameDecoder(limit=2)
    for data in (b"\0\0\0\3", b"", frames.frame(b"a")):
        with pytest.raises(frames.FrameError):
            list(decoder.feed(data))


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize(
    "sent", [[bytes(10_000)], 1000 * [b"123456"], [bytes(5000), *100 * [b"1"]]]
)
def test_cost_is_linear(sent: list[bytes], size: int) -> None:
    stream = b"".join(map(frames.frame, sent))
    decoder = frames.FrameDecoder()
    counting = decoder._buffer = CountingBytes()
    portions = [stream[i : i + size] for i in range(0, len(stream), size)]
    assert frames.decode(portions, decoder) == sent
    assert counting.handled <= 3 * len(stream)


def test_what_has_been_taken_is_not_kept() -> None:
    decoder = frames.FrameDecoder()
    for _ in range(100):
        assert list(decoder.feed(frames.frame(b"abc"))) == [b"abc"]
        assert len(decoder._buffer) <= 7


def test_one_read_is_one_message_only_by_luck() -> None:
    ways = list(frames.every_way_to_cut(frames.frame(b"ab") + frames.frame(b"c")))
    assert len(ways) == len({tuple(way) for way in ways}) == 2**10
    right = [way for way in ways if frames.one_read_one_message(way) == [b"ab", b"c"]]
    assert right == [[frames.frame(b"ab"), frames.frame(b"c")]]


async def read_all(portions: Iterable[bytes], limit: int) -> list[bytes]:
    """Feed a reader while `read_frame` reads from it."""
    reader = asyncio.StreamReader()

    async def feed() -> None:
        for portion in portions:
            reader.feed_data(portion)
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    received = []
    try:
        while (message := await frames.read_frame(reader, limit)) is not None:
            received.append(message)
    finally:
        await feeding
    return received


@few_examples
@given(st.data(), messages)
def test_streams_read_any_portions_alike(
    data: st.DataObject, sent: list[bytes]
) -> None:
    stream = b"".join(map(frames.frame, sent))
    assert run(read_all(data.draw(cut(stream)), 9)) == sent


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (b"\0", "within a length"),
        (b"\0\0\0", "within a length"),
        (b"\0\0\0\2", "at byte 0 of 2"),
        (b"\0\0\0\2a", "at byte 1 of 2"),
        (b"\0\0\0\12", "10 bytes; 0 … 9 are allowed"),
        (b"GET / HTTP/1.1\r\n", "1195725856 bytes"),
    ],
)
def test_streams_refuse_what_is_no_frame(stream: bytes, why: str) -> None:
    with pytest.raises(frames.FrameError, match=why):
        run(read_all([frames.frame(b"a"), stream], 9))


def test_frame_that_is_too_long_is_not_even_begun() -> None:
    async def scenario() -> bytes:
        received = asyncio.get_running_loop().create_future()

        async def read(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            received.set_result(await reader.read())
            writer.close()

        async with await asyncio.start_server(read, HOST, 0) as server:
            address = server.sockets[0].getsockname()
            _, writer = await asyncio.open_connection(*address)
            with pytest.raises(frames.FrameError):
                await frames.write_frame(writer, b"abc", limit=2)
            await frames.write_frame(writer, b"ab", limit=2)
            writer.close()
            return bytes(await received)

    assert run(scenario()) == b"\0\0\0\2ab"


# -- example09


async def capitals(line: bytes) -> bytes:
    return line.upper()


def test_shutdown_by_a_signal_leaves_nobody_without_an_answer() -> None:
    assert run(graceful.stop_by_signal()) == {
        "idle": "goodbye",
        "new": "refused",
        "in mid-message": "HELLO, goodbye",
        "being answered": "THINK, goodbye",
        "cut off": "0",
    }


def test_answers_before_a_line_that_is_too_long_arrive() -> None:
    async def scenario() -> bytes:
        async with graceful_port(graceful.GracefulServer(capitals)) as port:
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(b"hello\n" + 100 * graceful.LINE_LIMIT * b"x")
            writer.write_eof()
            try:
                return await reader.read()
            finally:
                writer.close()

    for _ in range(5):
        assert run(scenario()) == b"HELLO\n"


def test_deadline_cuts_off_who_has_not_finished() -> None:
    cut_off, took = run(graceful.stop_at_deadline())
    assert cut_off == 2
    assert took < LIMIT / 2


async def rest_after(
    sent: bytes,
    *,
    patience: float = LIMIT,
    stop: bool = False,
    answer: Callable[[bytes], Awaitable[bytes]] = capitals,
    end: bool = False,
) -> str:
    """Return all that a client gets that sends something, ends its side, stays idle."""
    async with graceful.GracefulServer(answer, patience=patience) as server:
        reader, writer = await asyncio.open_connection(HOST, server.port)
        await until(lambda: server.idle)
        writer.write(sent)
        if end:
            writer.write_eof()
        if stop:
            await server.stop(LIMIT)
        received = await reader.read()
        writer.close()
    return received.decode()


@pytest.mark.parametrize(
    ("sent", "received"),
    [
        (b"", ""),
        (b"a\n\nb\r\n", "A\n\nB\r\n"),
        (b"a\nno line end", "A\n"),
        (b"a\n" + 70_000 * b"x" + b"\n", "A\n"),
    ],
)
def test_graceful_server_answers_until_the_clients_end(
    sent: bytes, received: str
) -> None:
    assert run(rest_after(sent, end=True)) == received


@pytest.mark.parametrize("sent", [b"", b"in mid-message"])
def test_graceful_server_does_not_wait_for_ever(sent: bytes) -> None:
    assert run(rest_after(sent, patience=0.01)) == ""


def test_error_of_an_answer_is_logged_and_ends_the_conversation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(line: bytes) -> bytes:
        if line == b"bad\n":
            raise ConnectionError("to the data base")
        return line

    assert run(rest_after(b"good\nbad\nnever\n", answer=broken)) == "good\n"
    assert "to the data base" in caplog.text


@pytest.mark.parametrize("byte_first", [True, False])
def test_message_that_begins_in_the_turn_of_the_stop_is_answered(
    byte_first: bool,
) -> None:
    async def scenario() -> bytes | None:
        server = graceful.GracefulServer(capitals)
        reader = asyncio.StreamReader()
        reading = asyncio.create_task(server._first_byte(reader))
        await until(lambda: server.idle)
        for step in (0, 1) if byte_first else (1, 0):
            if step == 0:
                reader.feed_data(b"x")
            else:
                server._stopping = True
                for scope in server.idle:
                    server._end_now(scope)
        return await reading

    assert run(scenario()) == b"x"


def test_one_message_is_answered_before_the_goodbye() -> None:
    thinking, thought = asyncio.Event(), asyncio.Event()

    async def answer(line: bytes) -> bytes:
        thinking.set()
        await thought.wait()
        return line.upper()

    async def scenario() -> bytes:
        async with graceful.GracefulServer(answer, grace=LIMIT) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(b"one\ntwo\nthr")
            await thinking.wait()
            stop = asyncio.create_task(server.stop(LIMIT))
            await asyncio.sleep(0)
            thought.set()
            answers = await reader.read()
            writer.close()
            await stop
            assert server.cut_off == 0
            return answers

    assert run(scenario()) == b"ONE\ngoodbye\n"


def test_client_that_sends_and_sends_does_not_keep_the_server() -> None:
    async def scenario() -> bytes:
        async with graceful.GracefulServer(capitals) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            answers = bytearray()

            async def read() -> None:
                while some := await reader.read(65_536):
                    answers.extend(some)

            reading = asyncio.create_task(read())
            stop = None
            while not reading.done():
                writer.write(b"on\n")  # there is always one more
                await asyncio.sleep(0)
                if stop is None and answers:
                    stop = asyncio.create_task(server.stop(2 * LIMIT))
            await reading
            writer.close()
            assert stop is not None
            await stop
            assert server.cut_off == 0
            return bytes(answers)

    assert run(scenario()).endswith(b"ON\ngoodbye\n")


def test_who_is_cut_off_counts_once() -> None:
    async def scenario() -> int:
        server = graceful.GracefulServer(capitals)
        async with server, graceful.Client(server, b"hel"):
            await asyncio.gather(server.stop(0), server.stop(0))
        return server.cut_off

    assert run(scenario()) == 1


def test_goodbye_is_followed_by_the_clients_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(graceful, "LINGER", LIMIT)

    async def scenario() -> bytes:
        async with graceful.GracefulServer(capitals) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            await until(lambda: server.idle)
            stop = asyncio.create_task(server.stop(LIMIT))
            received = await reader.read()
            for _ in range(5):
                await asyncio.sleep(0)
                writer.write(b"too late\n")
            assert server.conversations
            writer.close()
            await stop
            assert server.cut_off == 0
        return received

    assert run(scenario()) == b"goodbye\n"


def test_stop_may_come_twice_and_with_no_client() -> None:
    async def scenario() -> int:
        async with graceful.GracefulServer(capitals) as server:
            await asyncio.gather(server.stop(LIMIT), server.stop(LIMIT))
        return server.cut_off

    assert run(scenario()) == 0


def test_after_an_exception_everybody_is_cut_off_at_once() -> None:
    server = graceful.GracefulServer(capitals, grace=2 * LIMIT)

    async def scenario() -> None:
        async with AsyncExitStack() as clients, server:
            client = graceful.Client(server, b"hel")
            await clients.enter_async_context(client)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(scenario())
    assert server.cut_off == 1


def test_cancelled_stop_cuts_off_who_is_left() -> None:
    async def scenario() -> int:
        server = graceful.GracefulServer(capitals)
        async with server, graceful.Client(server, b"hel") as client:
            stop = asyncio.create_task(server.stop(2 * LIMIT))
            await asyncio.sleep(0)
            stop.cancel()
            with pytest.raises(asyncio.CancelledError):
                await stop
            assert await client.rest() == ""
        return server.cut_off

    assert run(scenario()) == 1


@pytest.mark.parametrize("number", graceful.SIGNALS)
def test_signals_do_again_what_they_did_before(number: signal.Signals) -> None:
    async def scenario() -> None:
        called = asyncio.Event()
        with graceful.signals_call(called.set):
            signal.raise_signal(number)
            await called.wait()

    before = [signal.getsignal(one) for one in graceful.SIGNALS]
    run(scenario())
    assert [signal.getsignal(one) for one in graceful.SIGNALS] == before


def test_signals_call_on_a_loop_without_signal_handlers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That of Windows has none."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def missing(*_: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(loop, "add_signal_handler", missing)
        monkeypatch.setattr(loop, "remove_signal_handler", missing)
        called = asyncio.Event()
        with graceful.signals_call(called.set, [signal.SIGTERM]):
            signal.raise_signal(signal.SIGTERM)
            await called.wait()

    before = signal.getsignal(signal.SIGTERM)
    run(scenario())
    assert signal.getsignal(signal.SIGTERM) == before


@needs_posix_signals
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_served_script_lets_a_message_end(number: signal.Signals) -> None:
    with (
        served(graceful) as (process, port),
        socket.create_connection((HOST, port), LIMIT) as idle,
        socket.create_connection((HOST, port), LIMIT) as telnet,
    ):
        telnet.sendall(b"one\r\ntw")
        assert telnet.recv(5) == b"ONE\r\n"
        process.send_signal(number)
        assert all_of(idle) == b"goodbye\n"  # so it is stopping
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port), LIMIT)
        telnet.sendall(b"o\r\n")
        assert all_of(telnet) == b"TWO\r\ngoodbye\n"
        telnet.close()
        idle.close()
        ends_in_order(process)


@needs_posix_signals
def test_second_ctrl_c_does_not_wait_for_the_deadline() -> None:
    with (
        served(graceful) as (process, port),
        socket.create_connection((HOST, port), LIMIT) as idle,
        socket.create_connection((HOST, port), LIMIT) as telnet,
    ):
        telnet.sendall(b"one\ntw")
        assert telnet.recv(4) == b"ONE\n"
        process.send_signal(signal.SIGINT)
        assert all_of(idle) == b"goodbye\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=graceful.GRACE / 2)
        assert (process.returncode, out, err) == (0, b"", b"")
        assert all_of(telnet) == b""
