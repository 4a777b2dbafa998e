"""Chapter 11, the chat, backpressure and TLS: the parts a reader would copy."""

import asyncio
import gc
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import nullcontext, suppress
from itertools import pairwise
from types import ModuleType
from typing import Any, TypeVar

import example10_chat_server as chat
import example11_backpressure as backpressure
import example12_tls as tls
import example17_two_hundred_chat_clients as many
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
in_both_modes = pytest.mark.parametrize("debug", [False, True])


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what asyncio has logged, but for steps that a busy machine makes long."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelname != "DEBUG" and not record.msg.startswith("Executing")
    ]


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Draw the portions in which `data` arrives."""
    places = draw(st.sets(st.integers(0, len(data))))
    ends = sorted({0, *places, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


class Transport(asyncio.Transport):
    """Takes `room` bytes; what is more waits in its buffer."""

    def __init__(self, room: int = 0) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.aborted = self.closing = False
        self._room = room

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.aborted
        self.writes.append(bytes(data))

    def get_write_buffer_size(self) -> int:
        return max(0, len(b"".join(self.writes)) - self._room)

    def is_closing(self) -> bool:
        return self.closing or self.aborted

    def abort(self) -> None:
        self.aborted = True


def reset(sock: socket.socket) -> None:
    """Have the connection reset when the socket is closed."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, chat.RESET)


# -- scripts that serve


class Nc:
    """A raw socket, as of nc: what is typed is sent as it is."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), LIMIT)
        self._lines = self.socket.makefile("rb")

    def __enter__(self) -> "Nc":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self.socket.close()

    def types(self, *portions: bytes) -> None:
        for portion in portions:
            self.socket.sendall(portion)

    def reads(self, *lines: str) -> None:
        """Check which lines come next; "" is the end."""
        got = [self._lines.readline().decode() for _ in lines]
        assert got == [f"{line}\n" if line else "" for line in lines]


@needs_posix_signals
def test_served_chat_with_two_nc() -> None:
    with served(chat) as (process, port), Nc(port) as one:
        one.reads("* you are guest1; /nick NAME, /who, /quit")
        with Nc(port) as two:
            two.reads("* you are guest2; /nick NAME, /who, /quit")
            one.reads("* guest2 has joined")
            two.types(b"/ni", b"ck Bob\r", b"\nhello\r\nto ", b"all\n")
            two.reads("* you are Bob")
            one.reads("* guest2 is now Bob", "<Bob> hello", "<Bob> to all")
            one.types("grüß dich\n".encode())
            two.reads("<guest1> grüß dich")
            two.types(b"/quit\r\n")
            two.reads("* goodbye", "")
            one.reads("* Bob has left")  # Bob's nc is still there
            one.types(b"alone\n\r\n/who\n")
            one.reads("* 1 here: guest1")
        process.send_signal(signal.SIGINT)
        one.reads("* the server is going down", "")
        ends_in_order(process)


@needs_posix_signals
def test_served_tls_is_quiet_about_failed_handshakes() -> None:
    pytest.importorskip("trustme")
    with served(tls) as (process, port):
        with Nc(port) as nc:
            nc.types(b"GET / HTTP/1.1\r\n\r\n")
            assert b"\n" not in all_of(nc.socket)
        with Nc(port), Nc(port) as nc:
            reset(nc.socket)
        with (
            Nc(port) as nc,
            pytest.raises(ssl.SSLCertVerificationError),
            tls.client_context().wrap_socket(nc.socket, server_hostname=tls.NAME),
        ):
            pass
        process.send_signal(signal.SIGINT)
        ends_in_order(process)


@pytest.mark.parametrize("module", [chat, tls], ids=["chat", "tls"])
def test_bad_port(
    module: ModuleType,
    complaint: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if module is tls:
        pytest.importorskip("trustme")
    refuses_bad_ports(module, complaint, monkeypatch)


def test_bad_arguments(complaint: Callable[..., str]) -> None:
    assert "not 1" in complaint(many, "--clients", "1")
    assert "not 501" in complaint(many, "--messages", "501")
    assert "buffer.gif" in complaint(backpressure, "--plot", "buffer.gif")


# -- example10: Room


class People:
    """A room, and what each in it has heard since one last looked."""

    def __init__(self, *names: str) -> None:
        self.room = chat.Room()
        self.heard: list[list[str]] = []
        self.members: list[chat.Member] = []
        for name in names:
            self.join()
            assert self.room.take(self.members[-1], f"/nick {name}")
        self.news()

    def join(self) -> None:
        heard: list[str] = []
        self.heard.append(heard)
        self.members.append(self.room.join(heard.append))

    def say(self, number: int, line: str) -> bool:
        return self.room.take(self.members[number], line)

    def news(self) -> list[list[str]]:
        news = [list(one) for one in self.heard]
        for one in self.heard:
            one.clear()
        return news


def test_who_joins_is_told_its_name_and_others_that_it_is_there() -> None:
    people = People()
    people.join()
    people.join()
    assert people.news() == [
        ["* you are guest1; /nick NAME, /who, /quit", "* guest2 has joined"],
        ["* you are guest2; /nick NAME, /who, /quit"],
    ]


def test_guest_gets_no_name_that_somebody_has_taken() -> None:
    people = People()
    people.join()
    people.say(0, "/nick Guest2")
    people.join()
    assert people.members[1].name == "guest3"


def test_nobody_hears_himself() -> None:
    people = People("Ann", "Bob", "Cid")
    assert people.say(0, "hello, all")
    assert people.news() == [[], ["<Ann> hello, all"], ["<Ann> hello, all"]]


def test_who_leaves_hears_nothing_more_and_leaves_but_once() -> None:
    people = People("Ann", "Bob", "Cid")
    people.room.leave(people.members[1], "has vanished")
    people.room.leave(people.members[1])
    people.say(0, "hello")
    assert people.news() == [
        ["* Bob has vanished"],
        [],
        ["* Bob has vanished", "<Ann> hello"],
    ]
    people.join()
    people.say(3, "/nick bob")  # is free again
    people.room.leave(people.members[1])  # and that is another
    people.say(0, "/who")
    assert people.heard[0][-1] == "* 3 here: Ann, Cid, bob"


def test_all_hear_of_a_new_name() -> None:
    people = People("Ann", "Bob")
    people.say(0, "/nick   Zoë_1 ")
    people.say(0, "hello")
    assert people.news() == [
        ["* you are Zoë_1"],
        ["* Ann is now Zoë_1", "<Zoë_1> hello"],
    ]


@pytest.mark.parametrize("name", ["Bob", "bob", "BOB", "STRASSE", "straße"])
def test_taken_names_are_without_regard_to_case(name: str) -> None:
    people = People("Ann", "bOb", "Straße")
    assert people.say(0, f"/nick {name}")
    assert people.news() == [[f"! {name} is taken"], [], []]
    assert people.members[0].name == "Ann"


def test_own_name_may_be_had_in_another_case() -> None:
    people = People("Ann")
    people.say(0, "/nick ANN")
    people.say(0, "/who")
    assert people.news() == [["* you are ANN", "* 1 here: ANN"]]


@pytest.mark.parametrize("name", ["", " ", "a b", "a-b", "<Bob>", "*", 21 * "x"])
def test_invalid_names_are_refused(name: str) -> None:
    people = People("Ann", "Bob")
    assert people.say(0, f"/nick {name}")
    mine, others = people.news()
    assert mine == ["! a name has 1 to 20 letters, digits and underscores"]
    assert others == []
    assert people.say(0, f"/nick {20 * 'x'}")
    assert people.members[0].name == 20 * "x"


@pytest.mark.parametrize("line", ["/dance", "/", "/WHO", "/quitter", "//", "/dance a"])
def test_unknown_commands_are_told_to_nobody_else(line: str) -> None:
    people = People("Ann", "Bob")
    assert people.say(0, line)
    assert people.news() == [[f"! no such command: {line.split()[0]}"], []]


def test_only_who_asks_hears_who_is_there() -> None:
    people = People("Cid", "Ann", "bob")
    assert people.say(0, "/who")
    assert people.news() == [["* 3 here: Ann, Cid, bob"], [], []]


def test_quit_wants_to_go_and_an_empty_line_says_nothing() -> None:
    people = People("Ann", "Bob")
    assert not people.say(0, "/quit")
    assert people.say(0, "")
    assert people.news() == [[], []]


def test_who_leaves_on_hearing_something_does_not_harm_the_telling() -> None:
    room = chat.Room()
    heard: list[str] = []
    leaves = room.join(lambda line: room.leave(leaves) if line == "go" else None)
    room.join(heard.append)
    room.tell("go")
    assert heard[1:] == ["* guest1 has left", "go"]


@given(st.data())
def test_everybody_hears_what_others_say_while_it_is_there(data: st.DataObject) -> None:
    people = People()
    here: list[int] = []
    names: dict[int, str] = {}
    expected: list[list[str]] = []
    for number in range(data.draw(st.integers(0, 30))):
        step = data.draw(
            st.sampled_from(["join", "say", "say", "say", "leave", "nick"])
        )
        if step == "join" or not here:
            here.append(len(expected))
            people.join()
            names[here[-1]] = people.members[-1].name
            expected.append([])
            continue
        who = data.draw(st.sampled_from(here))
        if step == "say":
            people.say(who, str(number))
            for other in here:
                if other != who:
                    expected[other].append(f"<{names[who]}> {number}")
        elif step == "leave":
            people.room.leave(people.members[who])
            here.remove(who)
        else:
            new = data.draw(st.sampled_from(["a", "A", "b", "guest1", "GUEST2"]))
            taken = {names[one].casefold() for one in here if one != who}
            people.say(who, f"/nick {new}")
            if new.casefold() not in taken:
                names[who] = new
        folded = [people.members[one].name.casefold() for one in here]
        assert len(set(folded)) == len(folded)
    said = [[line for line in one if line[0] == "<"] for one in people.heard]
    assert said == expected


# -- example10: lines


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"", ""),
        (b"\n", ""),
        (b"\r\n", ""),
        (b"  hello \r\n", "hello"),
        (b"hello", "hello"),
        (b"a\tb\n", "a b"),
        (b"\ta\t\r\n", "a"),
        ("grüß dich, 世界 🙂\n".encode(), "grüß dich, 世界 🙂"),
    ],
)
def test_text_of_a_line(line: bytes, text: str) -> None:
    assert chat.text_of(line) == text


@pytest.mark.parametrize(
    "line",
    [b"\xff\n", b"a\xc3\n", b"\xc0\x80", b"\xed\xa0\x80", "ü\n".encode("latin1")],
)
def test_what_is_not_utf8_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"\Anot UTF-8\Z"):
        chat.text_of(line)


@pytest.mark.parametrize(
    "character",
    ["\0", "\x07", "\x1b[2J", "\r", "\v", "\x7f", "\x9b", "\u2028", "\u202e"],
)
def test_control_characters_are_refused(character: str) -> None:
    with pytest.raises(ValueError, match=r"\Acontrol characters\Z"):
        chat.text_of(f"a{character}b\n".encode())


@given(st.one_of(st.binary(), st.text().map(str.encode)))
def test_text_is_one_printable_line_or_refused(line: bytes) -> None:
    with suppress(ValueError):
        text = chat.text_of(line)
        assert text.isprintable()
        assert text == text.strip()


async def lines_of(portions: Iterable[bytes], limit: int) -> list[bytes | None]:
    """Return the lines to the end, None for each that is refused."""
    reader = asyncio.StreamReader(limit=limit)

    async def feed() -> None:
        for portion in portions:
            reader.feed_data(portion)
            await asyncio.sleep(0)
        reader.feed_eof()

    feeding = asyncio.create_task(feed())
    lines: list[bytes | None] = []
    while True:
        try:
            line = await chat.next_line(reader)
        except ValueError as error:
            lines.append(None if "more than 1024 bytes" in str(error) else b"other")
        else:
            if not line:
                break
            lines.append(line)
    await feeding
    return lines


def expected_lines(stream: bytes, limit: int) -> list[bytes | None]:
    lines = stream.splitlines(keepends=True)
    return [line if len(line.rstrip(b"\n")) <= limit else None for line in lines]


@pytest.mark.parametrize("end", [b"", b"\n", b"\nb", b"\nb\n"])
@pytest.mark.parametrize("length", [0, 3, 4, 5, 6, 8, 9, 10, 11, 13])
def test_limit_of_a_line_wherever_it_is_cut(length: int, end: bytes) -> None:
    stream = length * b"a" + end
    expected = expected_lines(stream, 4)

    async def scenario() -> None:
        for first in range(len(stream) + 1):
            for second in range(first, len(stream) + 1):
                portions = [stream[:first], stream[first:second], stream[second:]]
                assert await lines_of(filter(None, portions), 4) == expected

    run(scenario())


@few_examples
@given(st.data())
def test_any_portions_give_the_same_lines(data: st.DataObject) -> None:
    pieces = st.sampled_from([b"\n", b"a", b"b\n", 5 * b"c", 12 * b"d"])
    stream = b"".join(data.draw(st.lists(pieces)))
    got = run(lines_of(data.draw(cut(stream)), 4))
    assert got == expected_lines(stream, 4)


def test_lost_connection_is_no_end_of_a_line() -> None:
    async def scenario() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"half a li")
        reader.set_exception(ConnectionResetError())
        await chat.next_line(reader)

    with pytest.raises(ConnectionResetError):
        run(scenario())


# -- example10: Outbox


def test_outbox_writes_once_in_a_turn() -> None:
    async def scenario() -> None:
        transport = Transport()
        outbox = chat.Outbox(transport, 1000)
        for turn in ("a", "b"):
            for number in range(3):
                outbox.put(f"{turn}{number}")
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert transport.writes == [b"a0\na1\na2\n", b"b0\nb1\nb2\n"]

    run(scenario())


def test_flush_writes_at_once_and_nothing_twice() -> None:
    async def scenario() -> None:
        transport = Transport()
        outbox = chat.Outbox(transport, 1000)
        outbox.put("ü")
        outbox.flush()
        assert transport.writes == [b"\xc3\xbc\n"]
        outbox.put("b")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert transport.writes == [b"\xc3\xbc\n", b"b\n"]

    run(scenario())


@pytest.mark.parametrize(("too_much", "overrun"), [(0, 0), (1, 11)])
def test_outbox_cuts_off_above_the_limit_and_not_at_it(
    too_much: int, overrun: int
) -> None:
    async def scenario() -> None:
        transport = Transport(room=20)
        outbox = chat.Outbox(transport, 10)
        for size in (20, 5, 5 + too_much):
            outbox.put((size - 1) * "x")
            await asyncio.sleep(0)
        assert (transport.aborted, outbox.overrun) == (bool(too_much), overrun)
        outbox.put("more")  # which would overrun it otherwise
        await asyncio.sleep(0)
        assert len(transport.writes) == (3 if too_much else 4)
        assert outbox.overrun == overrun or not too_much
        assert transport.aborted

    run(scenario())


def test_nothing_is_written_or_kept_after_closing() -> None:
    async def scenario() -> None:
        transport = Transport()
        outbox = chat.Outbox(transport, 1)
        transport.closing = True
        for _ in range(3):
            outbox.put("a")
            await asyncio.sleep(0)
        assert not outbox._lines
        assert (transport.writes, transport.aborted, outbox.overrun) == ([], False, 0)

    run(scenario())


# -- example10: ChatServer


@in_both_modes
def test_faults_are_told_to_who_makes_them(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(chat.faults(), debug=debug) == chat.EXPECTED
    assert not complaints(caplog)


def test_reset_client_is_missed_and_nobody_else_harmed() -> None:
    async def scenario() -> list[str]:
        async with chat.ChatServer() as server:
            async with chat.Client(server.port) as one, chat.Client(server.port) as two:
                heard = [await one.line()]
                with socket.create_connection((HOST, server.port)) as raw:
                    heard += [await one.line(), await two.line()]
                    raw.sendall(b"half a li")
                    reset(raw)
                heard += [await one.line(), await two.line()]
                two.writer.write(b"still here\n")
                heard.append(await one.line())
            await until(lambda: not server._clients)
            assert not server.room._members
            assert not server.overruns
            return heard

    assert run(scenario()) == [
        "* guest2 has joined",
        *2 * ["* guest3 has joined"],
        *2 * ["* guest3 has vanished"],
        "<guest2> still here",
    ]


@pytest.mark.parametrize("last", [b"/quit\n", b"bye", b""])
def test_who_quits_and_stays_connected_is_out_of_the_room(
    last: bytes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat, "GRACE", LIMIT)

    async def scenario() -> None:
        async with (
            chat.ChatServer() as server,
            chat.Client(server.port) as other,
            chat.Client(server.port) as third,
            chat.Client(server.port) as client,
        ):
            assert await other.line() == "* guest2 has joined"
            client.writer.write(last)
            if not last.endswith(b"\n"):
                client.writer.write_eof()
            assert (await client.reader.read()).decode() == "* goodbye\n"
            third.writer.write(b"one\ntwo\n")
            heard = [await other.line() for _ in range(5 if last == b"bye" else 4)]
            said = ["<guest3> bye"] if last == b"bye" else []
            assert sorted(heard) == sorted(
                [
                    "* guest3 has joined",
                    *said,
                    "* guest3 has left",
                    "<guest2> one",
                    "<guest2> two",
                ]
            )
            assert await other.ask(b"/who") == "* 2 here: guest1, guest2"
            if last == b"/quit\n":
                assert len(server._clients) == 3  # until the client's end
            client.writer.close()
            await until(lambda: len(server._clients) == 2)

    run(scenario())
    assert not complaints(caplog)


def test_slow_client_is_cut_off_while_others_hear_all() -> None:
    limit = 5000

    async def scenario() -> list[int]:
        async with (
            chat.ChatServer(buffer_limit=limit) as server,
            chat.Client(server.port) as talker,
            chat.Client(server.port) as listener,
        ):
            await talker.line()
            with socket.socket() as slow:
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.connect((HOST, server.port))
                assert await listener.line() == "* guest3 has joined"
                said = 0
                while not server.overruns:
                    talker.writer.write(b"%d %s\n" % (said, 900 * b"x"))
                    line = await listener.line()
                    if line == "* guest3 does not read, and was cut off":
                        line = await listener.line()
                    assert line.startswith(f"<guest1> {said} ")
                    said += 1
                assert await talker.line() == "* guest3 has joined"
                assert "cut off" in await talker.line()
                assert await talker.ask(b"/who") == "* 2 here: guest1, guest2"
            return server.overruns

    (waiting,) = run(scenario())
    assert limit < waiting < limit + 1000


def test_who_sends_much_lets_others_have_a_turn() -> None:
    async def scenario() -> None:
        turns: list[int] = []
        turn = 0
        async with chat.ChatServer() as server, chat.Client(server.port) as client:
            server.room.join(lambda line: turns.append(turn))
            turns.clear()
            client.writer.write(100 * b"x\n")
            while len(turns) < 100:
                await asyncio.sleep(0)
                turn += 1
        # Two in one turn if bytes come in the midst of that, never a hundred.
        assert max(map(turns.count, turns)) <= 2

    run(scenario())


@in_both_modes
def test_everybody_is_told_when_the_server_stops(
    debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with chat.ChatServer() as server:
            sockets = [
                await asyncio.open_connection(HOST, server.port) for _ in range(3)
            ]
            await until(lambda: len(server.room._members) == 3)
        assert not server._clients
        assert not server.room._members
        for reader, writer in sockets:
            heard = (await reader.read()).decode().splitlines()
            assert "* the server is going down" in heard
            assert "guest" not in "".join(
                heard[heard.index("* the server is going down") + 1 :]
            )
            writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, server.port)
        async with chat.ChatServer(server.port) as again:
            assert again.port == server.port

    run(scenario(), debug=debug)
    assert not complaints(caplog)


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize("turns", range(5))
def test_client_that_comes_with_the_end_is_not_left(turns: int, slow: bool) -> None:
    """Slow turns let the server's timers ring in the midst of the acceptance."""

    async def scenario() -> None:
        with socket.socket() as new:
            turn = slow_turns() if slow else nullcontext()
            async with turn, chat.ChatServer() as server:
                new.settimeout(LIMIT)
                new.connect((HOST, server.port))
                for _ in range(turns):  # of those in which it is accepted
                    await asyncio.sleep(0)
            assert not server._clients
            heard = all_of(new)
            assert heard == b"" or b"going down" in heard

    run(scenario())


def test_stop_does_not_wait_for_who_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chat, "GRACE", 0.01)

    async def scenario() -> None:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            async with chat.ChatServer(buffer_limit=10**7) as server:
                slow.connect((HOST, server.port))
                await until(lambda: server._clients)
                await until(lambda: server.room._members)
                (writer,) = server._clients.values()
                server.room.tell(10**6 * "x")
                await until(writer.transport.get_write_buffer_size)
            assert not server._clients
            assert not server.room._members
            assert writer.transport.get_write_buffer_size() == 0

    run(scenario())


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
def test_exception_stops_the_server_in_order(error: type[BaseException]) -> None:
    server = chat.ChatServer()

    async def scenario() -> str:
        reader = None
        try:
            async with server:
                reader, writer = await asyncio.open_connection(HOST, server.port)
                await until(lambda: server.room._members)
                raise error  # noqa: TRY301
        except error:
            pass
        assert reader is not None
        received = await reader.read()
        writer.close()
        return received.decode()

    assert run(scenario()).endswith("* the server is going down\n")
    assert not server._clients


def test_who_is_still_writing_hears_that_the_server_is_going_down() -> None:
    """What nobody has read would turn the end into a reset, which loses the news."""

    async def scenario(turns: int) -> list[str]:
        async with chat.ChatServer() as server:
            client = chat.Client(server.port)
            await client.__aenter__()
            client.writer.write(500 * b"hello\n")
            for _ in range(turns):
                await asyncio.sleep(0)
            client.writer.write(500 * b"hello\n")
            ending = asyncio.create_task(hear_the_end(client))
        return await ending

    async def hear_the_end(client: chat.Client) -> list[str]:
        lines = [await client.line(), await client.line()]
        client.writer.close()
        return lines

    for turns in range(10):
        assert run(scenario(turns)) == ["* the server is going down", ""]


def test_cancelled_stop_cuts_off_who_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "GRACE", 2 * LIMIT)

    async def scenario() -> None:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            server = chat.ChatServer(buffer_limit=10**7)

            async def serve() -> None:
                async with server:
                    slow.connect((HOST, server.port))
                    await until(lambda: server.room._members)
                    server.room.tell(10**6 * "x")

            serving = asyncio.create_task(serve())
            await until(lambda: server._clients)
            await until(lambda: not server._server.is_serving())
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(HOST, server.port)
            serving.cancel()
            await asyncio.wait([serving])
            assert serving.cancelled()
            assert not server._clients

    run(scenario())


# -- example17


@in_both_modes
@pytest.mark.parametrize(("n_clients", "n_messages"), [(2, 2), (3, 40), (12, 3)])
def test_each_client_hears_each_other_once_and_in_order(
    n_clients: int, n_messages: int, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    everybody = run(many.chat_together(n_clients, n_messages), debug=debug)
    names = {one.name for one in everybody}
    assert names == {f"guest{number}" for number in range(1, n_clients + 1)}
    for one in everybody:
        others = names - {one.name}
        assert one.messages == {name: list(range(n_messages)) for name in others}
        assert 0 < one.worst < LIMIT
    assert not complaints(caplog)


def test_nobody_speaks_before_all_are_here_or_leaves_before_all_have_heard() -> None:
    async def turns() -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    async def scenario() -> dict[str, list[int]]:
        heard: list[str] = []
        all_here = asyncio.Barrier(2)
        async with chat.ChatServer() as server:
            member = server.room.join(heard.append)
            chatting = asyncio.create_task(many.chat(server.port, 2, 2, all_here))
            await until(lambda: all_here.n_waiting)
            await turns()
            assert not [line for line in heard if line.startswith("<")]
            await all_here.wait()
            await until(lambda: heard[-1].startswith("<guest2> 1 "))
            server.room.take(member, "0 0.0")
            await turns()
            assert not all_here.n_waiting  # there is more to hear
            server.room.take(member, "1 0.0")
            await until(lambda: all_here.n_waiting or chatting.done())
            await turns()
            assert "* guest2 has left" not in heard
            await all_here.wait()
            return (await chatting).messages

    assert run(scenario()) == {"guest1": [0, 1]}


def test_message_that_is_heard_twice_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tell = chat.Room.tell

    def twice(room: chat.Room, line: str, but: chat.Member | None = None) -> None:
        tell(room, line, but)
        if line.startswith("<guest1> 1 "):
            tell(room, line, but)

    monkeypatch.setattr(chat.Room, "tell", twice)
    everybody = run(many.chat_together(3, 2))
    assert {tuple(one.messages.get("guest1", ())) for one in everybody} == {
        (),
        (0, 1, 1),
    }


def test_one_that_does_not_read_is_cut_off_just_above_the_limit() -> None:
    worst, waiting = run(many.one_does_not_read())
    assert chat.BUFFER_LIMIT < waiting < chat.BUFFER_LIMIT + 2 * chat.LINE_LIMIT
    assert 0 < worst < LIMIT


def test_server_that_hangs_up_is_noticed() -> None:
    async def scenario() -> None:
        all_here = asyncio.Barrier(2)
        async with chat.ChatServer() as server:
            chatting = asyncio.create_task(many.chat(server.port, 1, 2, all_here))
            await all_here.wait()
        with pytest.raises(ConnectionAbortedError, match="guest1: the server has"):
            await chatting

    run(scenario())


def test_part_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "TIME_LIMIT", 0.01)
    with pytest.raises(TimeoutError):
        run(many.within_limit(asyncio.Event().wait))


@pytest.mark.parametrize(
    ("soft", "hard", "set_to"),
    [(100, 1000, (200, 1000)), (100, 150, (150, 150)), (100, -1, (200, -1))],
)
def test_limit_of_descriptors_is_raised(
    soft: int, hard: int, set_to: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    limits: list[tuple[int, int]] = []
    infinity = resource.RLIM_INFINITY
    before = (soft, infinity if hard == -1 else hard)
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    many.allow_descriptors(200)
    most, ceiling = set_to
    assert limits == [(most, infinity if ceiling == -1 else ceiling)]


@pytest.mark.parametrize("soft", [200, 1000, -1])
def test_limit_of_descriptors_is_never_lowered(
    soft: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    infinity = resource.RLIM_INFINITY
    before = (infinity if soft == -1 else soft, infinity)
    monkeypatch.setattr(resource, "getrlimit", lambda _: before)
    monkeypatch.setattr(resource, "setrlimit", lambda *_: pytest.fail("it was set"))
    many.allow_descriptors(200)


# -- example11


def test_without_drain_all_that_is_not_taken_waits_in_memory() -> None:
    sizes = run(backpressure.without_drain())
    total = backpressure.CHUNKS * backpressure.CHUNK
    assert len(sizes) == backpressure.CHUNKS
    assert total // 2 < sizes[-1] == max(sizes) < total


def test_with_drain_never_more_waits_than_the_mark_and_one_chunk() -> None:
    sizes, written = run(backpressure.with_drain())
    assert len(sizes) == backpressure.CHUNKS
    assert backpressure.HIGH < max(sizes) <= backpressure.HIGH + backpressure.CHUNK
    assert 0 < written < backpressure.CHUNKS
    after = [
        b - backpressure.CHUNK for a, b in pairwise(sizes) if a > backpressure.HIGH
    ]
    assert max(after) <= backpressure.LOW


def test_drain_below_the_mark_does_not_wait() -> None:
    async def scenario() -> list[int]:
        sizes: list[int] = []
        async with backpressure.linked() as link:
            link.writer.transport.set_write_buffer_limits(2**30)
            await backpressure.send(link.writer, 50 * [bytes(10_000)], sizes.append)
        return sizes

    assert len(run(scenario())) == 50


def test_who_waits_in_drain_learns_of_a_lost_connection() -> None:
    assert run(backpressure.connection_lost())


@pytest.mark.parametrize("how", [backpressure.send, backpressure.send_carelessly])
def test_only_drain_tells_that_the_connection_has_been_lost(
    how: Callable[..., Coroutine[Any, Any, None]],
) -> None:
    async def scenario() -> None:
        async with backpressure.linked() as link:
            reset(link.peer_writer.get_extra_info("socket"))
            link.peer_writer.transport.abort()
            await until(link.writer.transport.is_closing)
            await how(link.writer, 3 * [b"x"], lambda _: None)

    if how is backpressure.send:
        with pytest.raises(ConnectionError):
            run(scenario())
    else:
        run(scenario())


@pytest.mark.parametrize("fails", [False, True])
def test_link_leaves_nothing(fails: bool) -> None:
    async def scenario() -> None:
        sockets: list[Any] = []
        with suppress(ZeroDivisionError):
            async with backpressure.linked() as link:
                for writer in (link.writer, link.peer_writer):
                    sockets.append(writer.get_extra_info("socket"))
                address = sockets[1].getsockname()
                link.writer.write(10**6 * b"x")
                if fails:
                    raise ZeroDivisionError
        assert [one.fileno() for one in sockets] == [-1, -1]
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)

    run(scenario())


def test_link_goes_both_ways() -> None:
    async def scenario() -> None:
        async with backpressure.linked() as link:
            link.writer.write(b"x")
            assert await link.peer_reader.read(10) == b"x"

    run(scenario())


def test_no_two_chunks_are_alike() -> None:
    chunks = list(backpressure.chunks())
    assert len(set(chunks)) == len(chunks) == backpressure.CHUNKS
    assert {len(chunk) for chunk in chunks} == {backpressure.CHUNK}


# -- example12


@pytest.fixture(scope="module")
def files() -> Iterator[tls.Files]:
    pytest.importorskip("trustme")
    with tls.made_on_the_spot() as files:
        yield files
    assert not files.authority.parent.exists()


async def ask_over_tls(
    port: int, line: bytes, context: ssl.SSLContext, name: str = tls.NAME
) -> bytes:
    async with tls.connection(port, context, name) as streams:
        return await tls.ask(*streams, line)


@in_both_modes
def test_what_comes_of_each_client(
    files: tls.Files, debug: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert run(tls.quietly(files), debug=debug) == tls.EXPECTED
    assert not complaints(caplog)


@pytest.mark.parametrize(
    ("trusts", "name", "certificate", "code"),
    [
        (False, "localhost", "server", {18, 19, 20, 21}),
        (True, "example.org", "server", {62}),
        (True, "localhost", "expired", {10}),
    ],
    ids=["not trusted", "another name", "expired"],
)
def test_client_gives_up_before_it_has_sent_a_byte(
    files: tls.Files, trusts: bool, name: str, certificate: str, code: set[int]
) -> None:
    async def scenario() -> int:
        context = tls.client_context(files.authority if trusts else None)
        proof = tls.server_context(getattr(files, certificate))
        async with tls.EchoServer(proof) as server:
            with pytest.raises(ssl.SSLCertVerificationError) as error:
                await ask_over_tls(server.port, b"secret\n", context, name)
        assert server.clients == []
        return error.value.verify_code

    assert run(scenario()) in code


def test_mutual_tls_lets_in_who_shows_a_certificate_of_the_authority(
    files: tls.Files,
) -> None:
    async def scenario() -> list[str]:
        proof = tls.server_context(files.server, files.authority)
        async with tls.EchoServer(proof) as server:
            known = tls.client_context(files.authority, files.client)
            assert await ask_over_tls(server.port, b"hello\n", known) == b"hello\n"
            for certificate in (None, files.stranger):
                unknown = tls.client_context(files.authority, certificate)
                with pytest.raises(OSError):  # noqa: PT011
                    await ask_over_tls(server.port, b"hello\n", unknown)
            return server.clients

    assert run(scenario()) == ["ann@example.org"]


def test_contexts_check_what_they_should(files: tls.Files) -> None:
    client = tls.client_context(files.authority)
    assert (client.verify_mode, client.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert tls.server_context(files.server).verify_mode == ssl.CERT_NONE
    mutual = tls.server_context(files.server, files.authority)
    assert mutual.verify_mode == ssl.CERT_REQUIRED
    # Those that the system trusts are no reason to let a client in.
    assert len(mutual.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, ""),
        ({}, ""),
        ({"subjectAltName": ()}, ""),
        ({"subjectAltName": (("DNS", "localhost"),)}, "localhost"),
        ({"subjectAltName": (("email", "a@b.c"), ("DNS", "x"))}, "a@b.c"),
    ],
)
def test_name_on_a_certificate(certificate: dict[str, Any] | None, name: str) -> None:
    assert tls.name_on(certificate) == name


def test_line_that_is_too_long_ends_one_conversation_only(
    files: tls.Files, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> bytes:
        trusting = tls.client_context(files.authority)
        async with tls.EchoServer(tls.server_context(files.server)) as server:
            with pytest.raises(ConnectionError):
                await ask_over_tls(server.port, 5000 * b"x" + b"\n", trusting)
            answer = await ask_over_tls(server.port, b"hello\n", trusting)
            await until(lambda: not server._conversations)
            return answer

    assert run(scenario()) == b"hello\n"
    gc.collect()  # a task whose exception nobody has asked for says so in the end
    assert not complaints(caplog)


def test_end_of_the_server_ends_conversations_and_gives_the_port_back(
    files: tls.Files,
) -> None:
    async def scenario() -> None:
        trusting = tls.client_context(files.authority)
        async with tls.EchoServer(tls.server_context(files.server)) as server:
            reader, writer = await asyncio.open_connection(
                HOST, server.port, ssl=trusting, server_hostname=tls.NAME
            )
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n"
        assert not server._conversations
        with suppress(OSError):
            assert await reader.read() == b""
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(HOST, server.port)

    run(scenario())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="needs Server.abort_clients")
def test_end_of_the_server_ends_handshakes(
    files: tls.Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "PATIENCE", 2 * LIMIT)

    async def scenario() -> None:
        context = tls.server_context(files.server)
        async with tls.EchoServer(context) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            writer.write(b"\x16")  # a handshake, says the first byte
            await until(lambda: vars(server._server)["_clients"])
        with suppress(ConnectionError):
            assert not await reader.read()
        writer.close()

    run(scenario())


def test_lines_before_one_that_is_too_long_are_answered(files: tls.Files) -> None:
    async def scenario() -> bytes:
        async with tls.EchoServer(tls.server_context(files.server)) as server:
            reader, writer = await asyncio.open_connection(
                HOST,
                server.port,
                ssl=tls.client_context(files.authority),
                server_hostname=tls.NAME,
            )
            writer.write(b"hello\n" + 100 * tls.LINE_LIMIT * b"x")
            answer = await reader.readline()
            writer.transport.abort()
            return answer

    for _ in range(5):
        assert run(scenario()) == b"hello\n"


def test_client_whose_handshake_takes_longer_than_the_block_is_not_served(
    files: tls.Files,
) -> None:
    async def scenario() -> None:
        context = tls.client_context(files.authority)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname=tls.NAME)
        async with tls.EchoServer(tls.server_context(files.server)) as server:
            reader, writer = await asyncio.open_connection(HOST, server.port)
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            writer.write(outgoing.read())
            incoming.write(await reader.read(2**16))
        with suppress(ssl.SSLWantReadError):
            client.do_handshake()
        writer.write(outgoing.read())
        with suppress(ConnectionError):
            while await reader.read(2**16):
                pass
        writer.close()
        assert not server.clients
        assert not server._conversations

    run(scenario())


@pytest.mark.parametrize("own", [False, True])
def test_other_errors_are_still_reported(
    own: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """To the application's own handler, if it has one."""
    told: list[str] = []

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        if own:
            loop.set_exception_handler(lambda _, what: told.append(what["message"]))
        transport = asyncio.Transport()
        with tls.failed_handshakes_untold():
            for context in (
                {"message": "A", "exception": RuntimeError("a bug")},
                {"message": "B", "exception": OSError(), "transport": transport},
                {"message": "C", "exception": RuntimeError(), "transport": transport},
                {"message": "D", "transport": transport},
                {
                    "message": "E",
                    "exception": OSError(),
                    "transport": transport,
                    "future": loop.create_future(),
                },
                {"message": "F", "exception": OSError()},
            ):
                loop.call_exception_handler(context)

    run(scenario())
    logged = [record.getMessage()[0] for record in caplog.records]
    assert (told, logged) == ((list("ACDEF"), []) if own else ([], list("ACDEF")))


@pytest.mark.parametrize("handler", [None, lambda loop, context: None])
def test_exception_handler_is_restored(handler: Callable[..., None] | None) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(handler)
        with suppress(ZeroDivisionError), tls.failed_handshakes_untold():
            assert loop.get_exception_handler() is not handler
            raise ZeroDivisionError
        assert loop.get_exception_handler() is handler

    run(scenario())


def test_trustme_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "trustme", None)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit) as exit_:
        tls.main()
    assert exit_.value.code == 77
    assert capsys.readouterr().out == "needs trustme: pip install trustme\n"
