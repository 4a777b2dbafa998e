"""Chapter 18, the stages up to a small reactor: the parts a reader would copy."""

import errno
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from selectors import EVENT_READ, EVENT_WRITE
from types import ModuleType
from typing import Any, NoReturn, cast

import example01_echo_blocking as echoing
import example02_calculator as calculating
import example03_calculator_server_blocking as blocking
import example04_generators as generators
import example05_coroutines_with_callbacks as callbacks
import example06_small_reactor as small
import pytest
from example02_calculator import GREETING, MAX_DIGITS, MAX_LINE, UNKNOWN, Calculator
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from serving import (
    HOST,
    LIMIT,
    all_of,
    ends_in_order,
    needs_posix_signals,
    refuses_bad_ports,
    served,
)

SERVERS = [echoing, blocking, callbacks, small]
CALCULATORS = [blocking, callbacks, small]
RESET = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # for SO_LINGER

few_examples = settings(max_examples=30)  # where each takes its time


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Draw the portions in which `data` arrives."""
    places = draw(st.sets(st.integers(0, len(data))))
    ends = sorted({0, *places, len(data)})
    return [data[a:b] for a, b in pairwise(ends)]


def connect(address: Any) -> socket.socket:
    client = socket.create_connection(address, LIMIT)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return client


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    client.close()


def take(client: socket.socket, expected: bytes) -> None:
    assert echoing.receive(client, len(expected)) == expected


@contextmanager
def in_background(module: ModuleType) -> Iterator[Any]:
    """Let a stage serve in a thread; give its address."""
    serve: Callable[[], None]
    stop: Callable[[], None]
    with socket.create_server((HOST, 0)) as listener, no_thread_is_left():
        address = listener.getsockname()
        if module in (callbacks, small):
            reactor = small.Reactor()
            reactor.go_on(small.accept_clients(listener, reactor))

            async def knocked() -> None:
                with ears:
                    await small.ready(ears, EVENT_READ)
                reactor.stop()

            ears, knocker = socket.socketpair()
            reactor.go_on(knocked())
            serve, stop = reactor.run, knocker.close
        elif module is callbacks:
            loop = callbacks.EventLoop()
            accepting = callbacks.accept_clients(listener, loop, callbacks.talk)
            callbacks.go_on(accepting, loop)
            serve = loop.run

            def stop() -> None:
                loop.stop()
                echoing.knock(address)

        else:
            talk = echoing.echo if module is echoing else blocking.talk
            server = echoing.Server(listener, talk)
            serve, stop = server.serve, server.stop
        with echoing.in_thread(serve, stop):
            yield address


def serve_all_at_once(server: echoing.Server) -> None:
    """Do as `serve`, but with a thread for each client."""
    threads = []
    while not server._stops:
        connection, _ = server._listener.accept()

        def talk(connection: socket.socket = connection) -> None:
            with connection, suppress(ConnectionError):
                server._talk(connection)

        threads.append(threading.Thread(target=talk))
        threads[-1].start()
    for thread in threads:
        thread.join(LIMIT)


# -- every script that serves


@needs_posix_signals
@pytest.mark.parametrize("module", SERVERS, ids=lambda module: module.__name__)
def test_served_script_answers_and_ends_at_ctrl_c(module: ModuleType) -> None:
    with (
        served(module) as (process, port),
        connect((HOST, port)) as client,
        connect((HOST, port)) as other,
    ):
        if module in (callbacks, small):
            take(other, GREETING)  # in the midst of an accept, its socket would be lost
        if module is echoing:
            client.sendall(b"hello")
            take(client, b"hello")
        else:
            take(client, GREETING)
            client.sendall(b"1,2\r\n")
            take(client, b"3\n")
        process.send_signal(signal.SIGINT)
        ends_in_order(process)
        assert all_of(client) == b""


@pytest.mark.parametrize("module", SERVERS, ids=lambda module: module.__name__)
def test_bad_port(
    module: ModuleType, complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses_bad_ports(module, complaint, monkeypatch)


@pytest.mark.parametrize(
    "module",
    [calculating, generators, *SERVERS],
    ids=lambda module: module.__name__,
)
def test_main_can_be_called_again_and_leaves_no_thread(
    module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    printed = []
    for _ in range(2):
        with no_thread_is_left():
            run_main(module, monkeypatch)
        printed.append(capsys.readouterr().out)
    assert len(printed[0].splitlines()) == len(printed[1].splitlines()) > 3


@pytest.mark.parametrize("module", SERVERS, ids=lambda module: module.__name__)
def test_a_reset_harms_nobody_else(module: ModuleType) -> None:
    greeting = b"" if module is echoing else GREETING
    with in_background(module) as address:
        for sent in (b"", b"1,", b"1\n"):
            client = connect(address)
            take(client, greeting)
            client.sendall(sent)
            reset(client)
        with connect(address) as client:
            take(client, greeting)
            client.sendall(b"3\n")
            take(client, b"3\n")


WORDS = st.sampled_from(
    [b"1,2", b"3,x", b"", b"\xff", b"product", b"sum", b"12,12", b"5\r"]
)


@few_examples
@given(st.data())
@pytest.mark.parametrize("module", [blocking, small], ids=["blocking", "reactor"])
def test_any_portions_get_the_same_answers(
    module: ModuleType, data: st.DataObject
) -> None:
    lines = [*data.draw(st.lists(WORDS, max_size=6)), b"quit"]
    text = b"".join(line + b"\n" for line in lines)
    with in_background(module) as address, connect(address) as client:
        for portion in data.draw(cut(text)):
            client.sendall(portion)
        assert all_of(client) == GREETING + Calculator().answers(lines)


@few_examples
@given(st.data())
@pytest.mark.parametrize("module", CALCULATORS, ids=lambda module: module.__name__)
def test_any_portions_of_a_line_get_its_answer(
    module: ModuleType, data: st.DataObject
) -> None:
    calculator = Calculator()
    with in_background(module) as address, connect(address) as client:
        take(client, GREETING)
        for line in data.draw(st.lists(WORDS, max_size=4)):
            for portion in data.draw(cut(line + b"\n")):
                client.sendall(portion)
            take(client, calculator.answer(line))


@pytest.mark.parametrize("module", CALCULATORS, ids=lambda module: module.__name__)
@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"1" * MAX_LINE + b"\n", calculating.TOO_MANY_DIGITS),
        (b"1," * (MAX_LINE // 2 - 1) + b"11\n", b"2058\n"),
        (b"1" * (MAX_LINE + 1), blocking.TOO_LONG),
        (b"1" * MAX_LINE + b"\r\n", blocking.TOO_LONG),
        (b"1,2", blocking.UNFINISHED),
        (b"1,2\r", blocking.UNFINISHED),
        (b"1" * MAX_LINE, blocking.UNFINISHED),
        (b"", b""),
        (b"quit\n", b"goodbye\n"),
    ],
    ids=[
        "full",
        "full sum",
        "long",
        "long CR",
        "cut",
        "CR",
        "full cut",
        "none",
        "quit",
    ],
)
def test_ends_of_lines_and_of_the_stream(
    module: ModuleType, sent: bytes, answered: bytes
) -> None:
    with in_background(module) as address, connect(address) as client:
        client.sendall(sent)
        if sent != b"1" * (MAX_LINE + 1):  # refused without waiting for more
            client.shutdown(socket.SHUT_WR)
        assert all_of(client) == GREETING + answered


@pytest.mark.parametrize("module", [callbacks, small], ids=["callbacks", "reactor"])
def test_many_clients_are_served_at_once(module: ModuleType) -> None:
    with in_background(module) as address:
        clients = [connect(address) for _ in range(50)]
        for client in clients:
            take(client, GREETING)
        for _ in range(3):
            for number, client in enumerate(clients):
                client.sendall(b"1000,%d\n" % number)
            for number, client in reversed(list(enumerate(clients))):
                take(client, b"%d\n" % (1000 + number))
        for client in clients:
            client.close()


@pytest.mark.parametrize("module", [callbacks, small], ids=["callbacks", "reactor"])
def test_sessions_that_are_left_are_closed_in_the_end(module: ModuleType) -> None:
    with in_background(module) as address:
        client = connect(address)
        take(client, GREETING)
    with client:
        assert all_of(client) == b""


# -- example01


@few_examples
@given(st.data())
def test_every_portion_comes_back(data: st.DataObject) -> None:
    text = data.draw(st.binary(max_size=300))
    with in_background(echoing) as address, connect(address) as client:
        for portion in data.draw(cut(text)):
            client.sendall(portion)
            take(client, portion)
        client.shutdown(socket.SHUT_WR)
        assert all_of(client) == b""


def test_a_server_that_is_stopped_serves_its_client_to_the_end_and_nobody_else() -> (
    None
):
    with socket.create_server((HOST, 0)) as listener:
        address = listener.getsockname()
        server = echoing.Server(listener, echoing.echo)
        with no_thread_is_left(), connect(address) as first:
            thread = threading.Thread(target=server.serve)
            thread.start()
            first.sendall(b"a")
            take(first, b"a")
            with connect(address) as second:
                second.sendall(b"b")
                server.stop()
                first.sendall(b"c")
                take(first, b"c")
                first.close()
                thread.join(LIMIT)
                assert not echoing.is_readable(second)


def test_who_comes_while_a_server_stops_is_let_go() -> None:
    client, connection = socket.socketpair()
    spoken_to: list[socket.socket] = []

    class Listener:
        def accept(self) -> tuple[socket.socket, None]:
            server._stops = True
            return connection, None

    server = echoing.Server(cast(Any, Listener()), spoken_to.append)
    with client:
        server.serve()
        assert spoken_to == []
        assert client.recv(1) == b""


def test_a_server_is_stopped_when_the_block_raises() -> None:
    with socket.create_server((HOST, 0)) as listener, no_thread_is_left():
        server = echoing.Server(listener, echoing.echo)
        serving = echoing.in_thread(server.serve, server.stop)
        serving.__enter__()
        error = ArithmeticError()
        assert not serving.__exit__(ArithmeticError, error, None)


def test_after_an_error_nobody_waits_long_for_a_server_that_waits_for_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(echoing, "GRACE", 0.01)
    with socket.create_server((HOST, 0)) as listener, no_thread_is_left():
        server = echoing.Server(listener, echoing.echo)
        serving = echoing.in_thread(server.serve, server.stop)
        before = set(threading.enumerate())
        serving.__enter__()
        (thread,) = set(threading.enumerate()) - before
        with connect(listener.getsockname()) as client:
            client.sendall(b"a")
            take(client, b"a")
            error = KeyboardInterrupt()
            assert not serving.__exit__(KeyboardInterrupt, error, None)
            assert thread.is_alive()
        thread.join(LIMIT)


def test_a_server_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echoing, "LIMIT", 0.01)
    threads: list[threading.Thread] = []
    may_end = threading.Event()

    def serve() -> None:
        threads.append(threading.current_thread())
        may_end.wait(LIMIT)

    with (
        pytest.raises(TimeoutError, match="does not end"),
        echoing.in_thread(serve, lambda: None),
    ):
        pass
    may_end.set()
    threads[0].join(LIMIT)
    assert not threads[0].is_alive()


def test_nobody_has_to_be_there_to_be_knocked_at() -> None:
    with socket.socket() as closed:  # bound, so that nobody else listens there
        closed.bind((HOST, 0))
        with pytest.raises(ConnectionError):
            connect(closed.getsockname())
        echoing.knock(closed.getsockname())


def test_receive_returns_fewer_bytes_at_the_end() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(b"abc")
        assert echoing.receive(other, 2) == b"ab"
        assert not echoing.is_readable(one)
        assert echoing.is_readable(other)
        one.close()
        assert echoing.receive(other, 2) == b"c"
        assert echoing.receive(other, 2) == b""


@pytest.mark.parametrize("module", [echoing, blocking], ids=["echo", "calculator"])
def test_a_server_of_many_clients_is_not_what_is_demonstrated(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHORT", LIMIT)
    monkeypatch.setattr(echoing.Server, "serve", serve_all_at_once)
    with (
        no_thread_is_left(),
        pytest.raises(SystemExit, match="second client was"),
    ):
        run_main(module, monkeypatch)


def shout(connection: socket.socket) -> None:
    while data := connection.recv(echoing.SIZE):
        connection.sendall(data.upper())


def hang_up(connection: socket.socket) -> None:
    pass


@pytest.mark.parametrize(
    ("broken", "told"),
    [(shout, "b'hel' was to come back"), (hang_up, "broke off|back")],
)
def test_an_echo_that_is_none_is_told(
    broken: Any, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(echoing, "echo", broken)
    with no_thread_is_left(), pytest.raises(SystemExit, match=told):
        run_main(echoing, monkeypatch)


# -- example02


@given(st.lists(st.integers(-(10**40), 10**40), min_size=1, max_size=30))
def test_answers_are_sums_and_products(numbers: list[int]) -> None:
    line = ",".join(map(str, numbers)).encode()
    calculator, product = Calculator(), 1
    for number in numbers:
        product *= number
    assert calculator.answer(line) == b"%d\n" % sum(numbers)
    assert calculator.answer(b"product") == b"now: product\n"
    assert calculator.answer(line) == b"%d\n" % product
    assert calculator.answer(b"sum") == b"now: sum\n"
    assert calculator.answer(line) == b"%d\n" % sum(numbers)


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"1,2\r", b"3\n"),
        (b" 1 ,\t2 ", b"3\n"),
        (b"+1,-2", b"-1\n"),
        (b"007", b"7\n"),
        (b"1_000", UNKNOWN),
        (b"1,", UNKNOWN),
        (b"1.5", UNKNOWN),
        (b"0x10", UNKNOWN),
        ("١".encode(), UNKNOWN),  # an Arabic one
        ("²".encode("latin-1"), UNKNOWN),
        (b"1\x00", UNKNOWN),
        (b" product\r", b"now: product\n"),
        (b"PRODUCT", UNKNOWN),
        (b"sum,", UNKNOWN),
    ],
)
def test_what_an_integer_is_and_what_a_word(line: bytes, answer: bytes) -> None:
    assert Calculator().answer(line) == answer


@pytest.mark.parametrize(
    ("number", "n_digits"),
    [
        (b"9" * MAX_DIGITS, MAX_DIGITS),
        (b"-" + b"9" * MAX_DIGITS, MAX_DIGITS),
        (b" +" + b"9" * MAX_DIGITS + b"\r", MAX_DIGITS),
        (b"9" * (MAX_DIGITS + 1), None),
        (b"1,-" + b"9" * (MAX_DIGITS + 1), None),
        (b"0" * MAX_LINE, None),
    ],
)
def test_a_number_has_a_limit_of_digits(number: bytes, n_digits: int | None) -> None:
    answer = Calculator().answer(number)
    if n_digits is None:
        assert answer == calculating.TOO_MANY_DIGITS
    else:
        assert len(answer.strip(b"-\n")) == n_digits


def test_long_garbage_is_not_taken_for_a_number() -> None:
    assert Calculator().answer(b"x" * MAX_LINE) == UNKNOWN
    assert Calculator().answer(b"1_" * 1500 + b"1") == UNKNOWN


@pytest.mark.parametrize("sign", [b"", b"-"])
def test_a_result_has_a_limit_of_digits(sign: bytes) -> None:
    calculator = Calculator()
    calculator.answer(b"product")
    thousand = b"1" + b"0" * (MAX_DIGITS - 1)
    power = b",".join([sign + thousand, thousand, thousand, thousand])
    largest = calculator.answer(power + b",1000")  # 10 ** 3999
    assert largest == sign + b"1" + b"0" * (calculating.MAX_RESULT_DIGITS - 1) + b"\n"
    assert calculator.answer(power + b",10000") == calculating.RESULT_TOO_LARGE


def test_limits_are_within_those_of_python() -> None:
    own_limit = sys.int_info.default_max_str_digits
    assert MAX_DIGITS < calculating.MAX_RESULT_DIGITS < own_limit


@given(st.binary(max_size=200).filter(lambda line: b"\n" not in line), st.booleans())
def test_any_line_gets_one_line(line: bytes, product: bool) -> None:
    calculator = Calculator()
    if product:
        calculator.answer(b"product")
    answer = calculator.answer(line)
    assert answer.endswith(b"\n")
    assert answer.count(b"\n") == 1
    assert len(answer) <= calculating.MAX_RESULT_DIGITS + 2


@few_examples
@given(st.lists(st.sampled_from([b"1,2", b"x", b"product", b"sum", b"stats", b"quit"])))
def test_answers_are_those_to_the_lines_up_to_quit(lines: list[bytes]) -> None:
    together, one_by_one = Calculator(), Calculator()
    answers = b""
    for line in lines:
        answers += one_by_one.answer(line)
        if line == b"quit":
            break
    assert together.answers(lines) == answers
    assert together.done == (b"quit" in lines)


def test_statistics_are_asked_for_when_they_are_wanted() -> None:
    asked = iter([b"open 1", b"open 2"])
    calculator = Calculator(lambda: next(asked))
    assert calculator.answers([b"stats", b"1", b"stats"]) == b"open 1\n1\nopen 2\n"
    assert Calculator().answer(b"stats") == b"no statistics\n"


def test_a_calculator_without_a_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calculating, "TOO_LARGE", 10**4200)
    with pytest.raises(SystemExit, match="the same, and a 9"):
        run_main(calculating, monkeypatch)


@pytest.mark.parametrize("answer", [b"", b"error", b"two\nlines\n"])
def test_garbage_that_gets_no_line_or_two_is_told(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    obey = Calculator._obey

    def broken(calculator: Calculator, word: bytes) -> bytes:
        return answer if b"-" in word else obey(calculator, word)

    monkeypatch.setattr(Calculator, "_obey", broken)
    with pytest.raises(SystemExit, match="was to get one line"):
        run_main(calculating, monkeypatch)


def test_answers_that_do_not_stop_at_quit_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        Calculator, "answers", lambda self, lines: b"".join(map(self.answer, lines))
    )
    with pytest.raises(SystemExit, match="one by one"):
        run_main(calculating, monkeypatch)


# -- example03


def test_the_answer_to_a_whole_line_leaves_the_conversation_open() -> None:
    calculator = Calculator()
    assert blocking.reply(calculator, b"1,2\n") == b"3\n"
    assert not calculator.done
    assert blocking.reply(calculator, b"1,2") == blocking.UNFINISHED
    assert calculator.done


def talk_to_the_end(connection: socket.socket) -> None:
    """Do as `talk`, with a `readline` that has no limit."""
    calculator = Calculator()
    with connection.makefile("rb") as requests:
        connection.sendall(GREETING)
        while not calculator.done and (line := requests.readline()):
            connection.sendall(blocking.reply(calculator, line))


def test_a_line_without_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "LIMIT", 0.2)
    monkeypatch.setattr(blocking, "talk", talk_to_the_end)
    with (
        no_thread_is_left(),
        pytest.raises(SystemExit, match="broke off: TimeoutError"),
    ):
        run_main(blocking, monkeypatch)


def test_half_a_number_that_is_taken_for_a_whole_one_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reply = blocking.reply

    def trusting(calculator: Calculator, line: bytes) -> bytes:
        if len(line) > MAX_LINE or line.endswith(b"\n"):
            return reply(calculator, line)
        return calculator.answer(line)

    monkeypatch.setattr(blocking, "reply", trusting)
    with (
        no_thread_is_left(),
        pytest.raises(SystemExit, match="the last line has no end"),
    ):
        run_main(blocking, monkeypatch)


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere TIME_WAIT may not matter"
)
def test_a_port_is_taken_after_a_server_closed_a_connection_but_for_reuseaddr() -> None:
    with in_background(blocking) as address, connect(address) as client:
        client.sendall(b"quit\n")
        assert all_of(client) == GREETING + b"goodbye\n"
    with socket.socket() as without, pytest.raises(OSError, match="in use") as taken:
        without.bind(address)
    assert taken.value.errno == errno.EADDRINUSE
    with socket.create_server(address) as again:
        assert again.getsockname() == address


# -- example04


@few_examples
@given(st.lists(st.integers(0, 5), max_size=5))
def test_turns_go_round_until_all_have_ended(lengths: list[int]) -> None:
    jobs = [generators.count(f"job{n} ", length) for n, length in enumerate(lengths)]
    expected = [
        f"job{n} {step}"
        for step in range(1, max(lengths, default=0) + 1)
        for n, length in enumerate(lengths)
        if step <= length
    ]
    assert list(generators.take_turns(jobs)) == expected


@few_examples
@given(st.lists(st.sampled_from([b"1,2", b"x", b"product", b"3,4"])))
def test_a_conversation_answers_as_the_calculator_does(lines: list[bytes]) -> None:
    conversation = generators.converse()
    answers = [next(conversation)]
    answers += [conversation.send(line) for line in [*lines, b"quit"]]
    assert b"".join(answers) == GREETING + Calculator().answers([*lines, b"quit"])
    assert generators.result_of(conversation) == len(lines) + 1


def test_another_error_goes_through_a_conversation_which_cleans_up() -> None:
    notes: list[str] = []
    conversation = generators.patiently(notes)
    next(conversation)
    with pytest.raises(ArithmeticError):
        conversation.throw(ArithmeticError())
    assert notes == ["cleaned up"]
    with pytest.raises(StopIteration):
        next(conversation)


def test_a_conversation_that_does_not_clean_up_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def careless(notes: list[str]) -> generators.Conversation:
        try:
            return (yield from generators.converse())
        except TimeoutError as error:
            yield f"error: {error}\n".encode()
            return 0

    monkeypatch.setattr(generators, "patiently", careless)
    with pytest.raises(SystemExit, match="not so: close"):
        run_main(generators, monkeypatch)


def test_a_scheduler_that_runs_one_after_the_other_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def one_by_one(jobs: list[Iterator[str]]) -> Iterator[str]:
        for job in jobs:
            yield from job

    monkeypatch.setattr(generators, "take_turns", one_by_one)
    with pytest.raises(SystemExit, match="not so: in turns"):
        run_main(generators, monkeypatch)


# -- example05


def test_a_callback_is_called_once_for_each_time_it_is_asked_for() -> None:
    one, other = socket.socketpair()
    loop = callbacks.EventLoop()
    called = []

    def call() -> None:
        called.append(other.recv(1))
        if called[-1] == b"b":
            loop.stop()
        else:
            loop.call_when_readable(other, call)

    with one, other:
        one.sendall(b"abc")
        loop.call_when_readable(other, call)
        loop.run()
    assert called == [b"a", b"b"]


def test_a_session_that_ends_is_not_called_again() -> None:
    one, other = socket.socketpair()
    loop = callbacks.EventLoop()
    steps = []

    def session() -> callbacks.Session:
        steps.append("begins")
        yield other
        steps.append("ends")
        loop.stop()

    with one, other:
        callbacks.go_on(session(), loop)
        assert steps == ["begins"]
        one.sendall(b"ab")
        loop.run()
    assert steps == ["begins", "ends"]


def talk_without_blocking(
    connection: socket.socket, begins: Callable[[socket.socket], object]
) -> callbacks.Session:
    """Do as `talk`, but wait for the rest of a line as for its beginning."""
    calculator, rest = Calculator(), b""
    with suppress(OSError), connection:
        connection.sendall(GREETING)
        while not calculator.done:
            yield connection
            begins(connection)
            if not (data := connection.recv(4096)):
                break
            *lines, rest = (rest + data).split(b"\n")
            connection.sendall(calculator.answers(lines))


def talk_unbuffered(
    connection: socket.socket, begins: Callable[[socket.socket], object]
) -> callbacks.Session:
    """Do as `talk`, but leave the lines to come to the system."""
    calculator = Calculator()
    with (
        suppress(OSError),
        connection,
        connection.makefile("rb", buffering=0) as requests,
    ):
        connection.sendall(GREETING)
        while not calculator.done:
            yield connection
            begins(connection)
            if not (line := requests.readline(MAX_LINE + 1)):
                break
            connection.sendall(blocking.reply(calculator, line))


@pytest.mark.parametrize(
    ("mended", "timeouts", "told"),
    [
        (talk_without_blocking, [LIMIT], "half line was to hold up everybody"),
        (talk_unbuffered, [0.0, LIMIT], "second answer was to stay behind"),
    ],
)
def test_sessions_that_are_mended_are_told(
    mended: Any, timeouts: list[float], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = iter(timeouts)
    monkeypatch.setattr(
        callbacks,
        "is_readable",
        lambda client, _: echoing.is_readable(client, next(left)),
    )
    monkeypatch.setattr(callbacks, "talk", mended)
    with no_thread_is_left(), pytest.raises(SystemExit, match=told):
        run_main(callbacks, monkeypatch)


def test_turns_that_do_not_come_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = callbacks.talk
    monkeypatch.setattr(callbacks, "LIMIT", 0.2)
    monkeypatch.setattr(callbacks, "talk", lambda connection, begins: talk(connection))
    with no_thread_is_left(), pytest.raises(SystemExit, match="broke off"):
        run_main(callbacks, monkeypatch)


# -- example06


def run_together(*sessions: small.Session) -> None:
    """Run sessions until the last of them ends, which it has to."""
    reactor = small.Reactor()

    async def to_the_end() -> None:
        await sessions[-1]
        reactor.stop()

    for session in sessions[:-1]:
        reactor.go_on(session)
    reactor.go_on(to_the_end())
    reactor.run(LIMIT)


@contextmanager
def pair() -> Iterator[tuple[small.Connection, small.Connection]]:
    with (
        socket.create_server((HOST, 0)) as listener,
        connect(listener.getsockname()) as client,
        listener.accept()[0] as server,
    ):
        yield small.Connection(client), small.Connection(server)


@few_examples
@given(st.data())
def test_lines_come_as_from_a_file(data: st.DataObject) -> None:
    text = data.draw(
        st.lists(st.sampled_from([b"a", b"\n", b"bcd", b"\r"])).map(b"".join)
    )
    portions = data.draw(cut(text))
    lines: list[bytes] = []

    async def write(connection: small.Connection) -> None:
        for portion in portions:
            await connection.send(portion)
            await small.ready(connection.sock, EVENT_WRITE)  # lets the other read
        connection.sock.shutdown(socket.SHUT_WR)

    async def read(connection: small.Connection) -> None:
        while line := await connection.readline():
            lines.append(line)
        assert await connection.readline() == b""

    with pytest.MonkeyPatch.context() as patch, pair() as (one, other):
        patch.setattr(small, "MAX_LINE", 3)
        run_together(write(one), read(other))
    file = io.BytesIO(text)
    assert lines == list(iter(lambda: file.readline(4), b""))


def test_what_does_not_fit_is_sent_when_it_does() -> None:
    data = b"".join(b"%d\n" % n for n in range(400_000))
    received = []

    async def read(connection: small.Connection) -> None:
        while portion := await connection._receive():
            received.append(portion)

    async def write(connection: small.Connection) -> None:
        await connection.send(data)
        connection.sock.close()

    with pair() as (one, other):
        run_together(write(one), read(other))
    assert b"".join(received) == data


def test_a_reactor_counts_who_waits_for_what() -> None:
    reactor = small.Reactor()
    with pair() as (one, other):

        async def wait(connection: small.Connection, event: int) -> None:
            await small.ready(connection.sock, event)

        async def stop() -> None:
            reactor.stop()

        assert (reactor.waiting(EVENT_READ), reactor.waiting(EVENT_WRITE)) == (0, 0)
        reactor.go_on(wait(one, EVENT_READ))
        reactor.go_on(wait(other, EVENT_WRITE))
        assert (reactor.waiting(EVENT_READ), reactor.waiting(EVENT_WRITE)) == (1, 1)
        reactor.go_on(stop())
        reactor.run()


def test_who_always_has_something_to_read_gets_one_turn_at_a_time() -> None:
    turns: list[str] = []

    async def read(name: str, connection: small.Connection) -> None:
        for _ in range(4):
            await connection._receive()
            turns.append(name)

    with pytest.MonkeyPatch.context() as patch, pair() as a, pair() as b:
        patch.setattr(small, "SIZE", 1)
        for one, _ in (a, b):
            one.sock.sendall(b"1234")
        run_together(read("a", a[1]), read("b", b[1]))
    assert sorted(turns[:2]) == sorted(turns[2:4]) == sorted(turns[4:6]) == ["a", "b"]


def test_a_socket_that_is_not_ready_after_all_is_waited_for_again() -> None:
    with pair() as (one, other):

        class Fickle(socket.socket):
            alarms = 2

            def recv(self, *arguments: Any) -> bytes:
                if self.alarms:
                    self.alarms -= 1
                    raise BlockingIOError
                return super().recv(*arguments)

        received = []
        with Fickle(fileno=os.dup(other.sock.fileno())) as sock:

            async def read() -> None:
                received.append(await small.Connection(sock).readline())

            one.sock.sendall(b"abc\n")
            run_together(read())
            assert (received, sock.alarms) == ([b"abc\n"], 0)


def test_a_reactor_does_not_wait_longer_than_its_limit_and_closes_what_is_left() -> (
    None
):
    notes = []
    with pair() as (one, _):

        async def wait() -> None:
            try:
                await small.ready(one.sock, EVENT_READ)
            finally:
                notes.append("closed")

        reactor = small.Reactor()
        left = wait()  # kept, so that only the reactor can close it
        reactor.go_on(left)
        with pytest.raises(TimeoutError, match=r"nothing has happened for 0\.01 s"):
            reactor.run(0.01)
        assert notes == ["closed"]
        left.close()


def test_who_does_not_read_holds_up_nobody() -> None:
    """And its answers are neither lost nor kept in the server."""
    n_lines = 20_000
    with in_background(small) as address, connect(address) as deaf:
        take(deaf, GREETING)
        sender = threading.Thread(target=deaf.sendall, args=(b"\n" * n_lines,))
        sender.start()
        for _ in range(20):
            with connect(address) as client:
                take(client, GREETING)
                client.sendall(b"1,2\n")
                take(client, b"3\n")
        received = 0
        while received < n_lines * len(UNKNOWN):
            received += len(deaf.recv(1 << 20))
        sender.join(LIMIT)


def ask_often(client: socket.socket) -> None:
    for _ in range(30):
        client.sendall(b"1,2\n")
        take(client, b"3\n")


@pytest.mark.skipif(os.name != "posix", reason="needs a limit of descriptors")
def test_without_descriptors_nobody_is_let_in_any_more() -> None:
    """What the script makes `accept` do, the system does with `ulimit`."""
    assert small.__file__ is not None
    command = f'ulimit -n 20; exec "{sys.executable}" "{small.__file__}" --serve'
    with subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=Path(small.__file__).parent,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline().split()[4])
            first, *others = [connect((HOST, port)) for _ in range(20)]
            with first:
                take(first, GREETING)
                ask_often(first)  # each time somebody is accepted, or accept fails
                greeted = [echoing.is_readable(client) for client in others]
                assert not all(greeted)
                for client in others:
                    client.close()  # descriptors enough
                with connect((HOST, port)) as newcomer:
                    ask_often(first)
                    assert not echoing.is_readable(newcomer)
                    process.send_signal(signal.SIGINT)
                    ends_in_order(process)
        finally:
            process.kill()


def test_an_exception_that_is_a_fault_ends_all_sessions() -> None:
    notes = []
    with pair() as (one, other):

        async def wait() -> None:
            try:
                await small.ready(one.sock, EVENT_READ)
            finally:
                notes.append("closed")

        async def fail() -> None:
            await small.ready(other.sock, EVENT_WRITE)
            raise ArithmeticError

        reactor = small.Reactor()
        reactor.go_on(wait())
        reactor.go_on(fail())
        with pytest.raises(ArithmeticError):
            reactor.run(LIMIT)
    assert notes == ["closed"]


async def accept_for_ever(
    listener: socket.socket, reactor: small.Reactor, accept: Any
) -> None:
    """Do as `accept_clients`, whatever happens."""
    listener.setblocking(False)
    while True:
        await small.ready(listener, EVENT_READ)
        with suppress(OSError):
            reactor.go_on(small.talk(accept(listener)[0]))


async def accept_one(
    listener: socket.socket, reactor: small.Reactor, accept: Any
) -> None:
    await small.ready(listener, EVENT_READ)
    reactor.go_on(small.talk(accept(listener)[0]))


async def raise_reset(self: small.Connection) -> NoReturn:
    await small.ready(self.sock, EVENT_READ)
    raise ConnectionResetError


@pytest.mark.parametrize(
    ("owner", "name", "instead", "limit", "told"),
    [
        (small, "accept_clients", accept_for_ever, LIMIT, "not so:   but once"),
        (small, "accept_clients", accept_one, 0.3, "broke off: TimeoutError"),
        (small.Connection, "readline", raise_reset, LIMIT, "broke off: Connection"),
    ],
)
def test_a_reactor_that_behaves_otherwise_is_told(
    owner: Any,
    name: str,
    instead: Any,
    limit: float,
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(small, "LIMIT", limit)
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises(SystemExit, match=told):
        run_main(small, monkeypatch)
