"""Chapter 18, the load generator and the torture client."""

import math
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import load_generator as load
import pytest
import torture
from example02_calculator import GREETING, Calculator
from example07_calculator_on_the_reactor import calculate, listen
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from load_generator import AnswerError, Histogram, Result, Timetable, measure
from reactor import Reactor
from torture import FAULTS, Fault, Server, Verdict, attempt

LIMIT = 30.0  # seconds that a test waits for what must come
HOST = "127.0.0.1"

few_examples = settings(max_examples=40)  # enough for what has few cases

Talk = Callable[[socket.socket], object]

needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")


@contextmanager
def serving(talk: Talk) -> Iterator[tuple[str, int]]:
    """Talk to each client in a thread of its own; end all in the end."""
    threads: list[threading.Thread] = []
    connections: list[socket.socket] = []

    def converse(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            talk(connection)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connections.append(listener.accept()[0])
                threads.append(threading.Thread(target=converse, args=connections[-1:]))
                threads[-1].start()

    with no_thread_is_left(), socket.create_server((HOST, 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()
        finally:
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            acceptor.join(LIMIT)
            for connection in connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join(LIMIT)


def answering(answer: Callable[[bytes], bytes], greeting: bytes = GREETING) -> Talk:
    """Make a server of lines: each is answered by what `answer` makes of it."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(greeting)
        with connection.makefile("rb") as lines:
            for line in lines:
                connection.sendall(answer(line))

    return talk


# -- load_generator: histogram

times = st.floats(1e-9, 1e5)  # seconds


@given(st.lists(times, min_size=1, max_size=200), st.floats(0, 100))
def test_a_percentile_is_never_too_short_and_hardly_too_long(
    seconds: list[float], percent: float
) -> None:
    histogram = Histogram()
    for one in seconds:
        histogram.record(one)
    ns = sorted(int(one * 1e9) for one in seconds)
    rank = max(1, math.ceil(len(ns) * percent / 100))
    exact = ns[rank - 1]
    found = round(histogram.percentile(percent) * 1e9)
    assert exact <= found <= exact + exact / 128


def test_short_times_are_kept_to_the_nanosecond() -> None:
    histogram = Histogram()
    for ns in range(256):
        histogram.record(ns / 1e9 + 1e-10)
    assert [round(end * 1e9) for _, end in histogram.curve()] == list(range(256))


@few_examples
@given(st.lists(times, max_size=200))
def test_the_curve_rises_to_the_total(seconds: list[float]) -> None:
    histogram = Histogram()
    for one in seconds:
        histogram.record(one)
    curve = list(histogram.curve())
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(curve))
    assert [up_to for up_to, _ in curve[-1:]] == [len(seconds)] * bool(seconds)
    assert histogram.total == len(seconds)


def test_memory_does_not_grow_with_the_number_of_times() -> None:
    histogram = Histogram()
    for n in range(20_000):
        histogram.record(1e-4 + n * 1e-8)
    assert histogram.total == 20_000
    assert len(list(histogram.curve())) < 300


@pytest.mark.parametrize("percent", [-1.0, 100.1, math.nan])
def test_there_is_no_such_percentile(percent: float) -> None:
    histogram = Histogram()
    histogram.record(1.0)
    with pytest.raises(ValueError, match="percentile of 1 times"):
        histogram.percentile(percent)


def test_nothing_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="percentile of 0 times"):
        Histogram().percentile(50)


# -- load_generator: timetable


@given(st.floats(0, 1e6), st.floats(0.5, 1e5), st.integers(0, 5000), st.data())
def test_so_many_are_due_as_the_timetable_says(
    start: float, rate: float, requests: int, data: st.DataObject
) -> None:
    timetable = Timetable(start, rate, requests)
    now = data.draw(st.floats(start - 1, start + 1.1 * requests / rate + 1))
    n = timetable.due_by(now)
    assert 0 <= n <= requests
    rounding = 1e-9 * max(1.0, now)
    assert n == 0 or timetable.due(n - 1) <= now + rounding
    assert n == requests or timetable.due(n) > now - rounding


def test_the_first_request_is_due_at_once_and_the_others_at_even_intervals() -> None:
    timetable = Timetable(10.0, 4.0, 5)
    assert [timetable.due(n) for n in range(5)] == [10.0, 10.25, 10.5, 10.75, 11.0]
    assert [timetable.due_by(now) for now in (9.9, 10.0, 10.3, 99.0)] == [0, 1, 2, 5]


# -- load_generator: one connection


@contextmanager
def client(depth: int, answer: bytes = b"3\n") -> Iterator[tuple[Any, socket.socket]]:
    """Give a client of the load generator and the server's end of its connection."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        yield load.Client("c", ours, b"1,2\n", answer * (depth + 1), depth), theirs


def test_no_more_is_sent_than_depth_allows() -> None:
    with client(depth=3) as (one, server):
        one.owed.extend([1.0, 2.0, 3.0, 4.0])
        one.send(9.0)
        assert server.recv(100) == b"1,2\n" * 3
        assert (list(one.owed), list(one.awaited)) == (
            [4.0],
            [(1.0, 9.0), (2.0, 9.0), (3.0, 9.0)],
        )
        server.send(b"3\n")
        assert one.receive() == [(1.0, 9.0)]
        one.send(10.0)
        assert server.recv(100) == b"1,2\n"
        one.send(11.0)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(100)


@few_examples
@given(st.sets(st.integers(0, 12)))
def test_answers_may_come_in_any_pieces(places: set[int]) -> None:
    answers = b"3000\n" * 2 + b"3000\n"[:3]
    ends = sorted({0, *(place for place in places), len(answers)})
    with client(depth=3, answer=b"3000\n") as (one, server):
        one.owed.extend([0.0, 1.0, 2.0])
        one.send(9.0)
        came = []
        for a, b in pairwise(ends):
            server.send(answers[a:b])
            came += one.receive()
        assert came == [(0.0, 9.0), (1.0, 9.0)]
        server.send(b"0\n")
        assert one.receive() == [(2.0, 9.0)]


@pytest.mark.parametrize(
    ("answers", "complaint"),
    [
        (b"4\n", "c: a wrong answer: b'4"),
        (b"3\n33\n", "c: a wrong answer"),
        (b"3\n3\n3\n", "c: an answer too many"),
        (b"3\n3\n3", "c: an answer too many"),
        (b"3\n3\n3\n3\n3\n3\n", "c: "),
        (b"error: the server is busy\n", "c: a wrong answer: b'error: the server"),
    ],
)
def test_what_was_not_to_come_is_told(answers: bytes, complaint: str) -> None:
    with client(depth=2) as (one, server):
        one.owed.extend([0.0, 0.0])
        one.send(0.0)
        server.send(answers)
        with pytest.raises(AnswerError, match=complaint):
            one.receive()


def test_a_server_that_closes_has_not_answered() -> None:
    with client(depth=2) as (one, server):
        server.close()
        with pytest.raises(AnswerError, match="c: closed by the server"):
            one.receive()


def test_a_server_that_takes_nothing_is_not_waited_for() -> None:
    with client(depth=1) as (one, _):
        with suppress(BlockingIOError):
            while True:
                one.socket.send(bytes(65_536))
        one.request = bytes(10_000_000)
        one.owed.append(0.0)
        with pytest.raises(AnswerError, match="c: takes no more requests"):
            one.send(0.0)


# -- load_generator: measure


def test_each_request_of_a_closed_loop_is_counted_once() -> None:
    requests: list[bytes] = []

    def answer(line: bytes) -> bytes:
        requests.append(line)
        return Calculator().answer(line[:-1])

    with serving(answering(answer)) as address:
        result = measure(address, 3, 2, 0.02)
    assert result.from_sent.total == len(requests) >= 6
    assert set(requests) == {b"1,2\n"}
    assert result.from_due is result.from_sent
    assert result.per_second == len(requests) / result.seconds
    assert result.seconds >= 0.02


def test_a_client_sends_as_many_as_depth_says_before_the_first_answer() -> None:
    surplus: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        while True:
            data = b""
            while data.count(b"\n") < 5:
                if not (more := connection.recv(100)):
                    return
                data += more
            surplus.append(data[20:])
            connection.sendall(b"3\n" * 5)

    with serving(talk) as address:
        result = measure(address, 2, 5, 0.02)
    assert result.from_sent.total % 5 == 0
    assert set(surplus) == {b""}


@pytest.mark.parametrize(("rate", "n"), [(100.0, 5), (1000.0, 50), (10.0, 1)])
def test_an_open_loop_sends_what_the_timetable_says(rate: float, n: int) -> None:
    with serving(answering(lambda line: b"3\n")) as address:
        result = measure(address, 3, 1, 0.05, rate)
    assert result.from_sent.total == result.from_due.total == n
    assert result.seconds >= (n - 1) / rate


def test_an_open_loop_takes_its_clients_by_turns() -> None:
    requests: list[int] = []

    def talk(connection: socket.socket) -> None:
        n = 0
        connection.sendall(GREETING)
        with connection.makefile("rb") as lines:
            while lines.readline():
                connection.sendall(b"3\n")
                n += 1
        requests.append(n)

    with serving(talk) as address:
        measure(address, 3, 1, 0.05, 100.0)
    assert sorted(requests) == [1, 2, 2]


def test_what_could_not_be_sent_counts_from_when_it_was_due() -> None:
    late = threading.Event()
    seen = 0

    def answer(line: bytes) -> bytes:
        nonlocal seen
        seen += 1
        if seen == 1:
            late.wait(0.2)  # nobody sets it: the server stalls
        return b"3\n"

    with serving(answering(answer)) as address:
        result = measure(address, 1, 1, 0.1, 100.0)
    assert result.from_due.total == 10
    assert result.from_due.percentile(0) >= 0.1  # the last was due at 0.09 s
    assert result.from_due.percentile(100) >= 0.2
    for percent in (0, 25, 50, 75, 100):
        due = result.from_due.percentile(percent)
        assert result.from_sent.percentile(percent) <= due


def test_clients_are_greeted_one_after_the_other() -> None:
    greeted = 0
    at_once: list[int] = []

    def talk(connection: socket.socket) -> None:
        nonlocal greeted
        greeted += 1
        at_once.append(greeted)
        connection.sendall(GREETING)
        answering(lambda line: b"3\n", b"")(connection)

    with serving(talk) as address:
        result = measure(address, 100, 1, 0.001)
    assert at_once == list(range(1, 101))
    assert result.from_sent.total >= 100


@pytest.mark.parametrize(
    ("talk", "complaint"),
    [
        (answering(lambda line: b"4\n"), "connection 1: a wrong answer"),
        (answering(lambda line: b"3\n3\n"), "connection 1: an answer too many"),
        (answering(lambda line: b"3\n", b"welcome\n"), "no greeting, but b'w"),
        (lambda connection: None, "no greeting, but b''"),
        (
            lambda connection: (connection.sendall(GREETING), connection.recv(9)),
            "connection 1: closed by the server",
        ),
    ],
    ids=["wrong", "surplus", "another greeting", "no greeting", "closed"],
)
def test_a_server_that_does_not_keep_to_the_protocol(
    talk: Talk, complaint: str
) -> None:
    with serving(talk) as address, pytest.raises(AnswerError, match=complaint):
        measure(address, seconds=0.05)


def test_an_answer_that_comes_after_the_end_is_told() -> None:
    def talk(connection: socket.socket) -> None:
        answering(lambda line: b"3\n")(connection)  # until the client has ended
        connection.sendall(b"3\n")

    with serving(talk) as address, pytest.raises(AnswerError, match="too many"):
        measure(address, seconds=0.01)


@pytest.mark.parametrize("rate", [0.0, 1000.0])
def test_missing_answers_are_not_waited_for_without_end(
    rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "LIMIT", 0.3)  # also for the greeting
    with (
        serving(answering(lambda line: b"")) as address,
        pytest.raises(AnswerError, match=r"\d+ answers missing after 0\.3 s"),
    ):
        measure(address, 2, 1, 0.01, rate)


def test_a_server_that_does_not_close_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    end = threading.Event()

    def talk(connection: socket.socket) -> None:
        answering(lambda line: b"3\n")(connection)
        end.wait(LIMIT)

    with serving(talk) as address:
        monkeypatch.setattr(load, "LIMIT", 0.05)
        with pytest.raises(TimeoutError):
            measure(address, seconds=0.01)
        end.set()


def test_nothing_is_open_after_a_failure() -> None:
    ended = threading.Semaphore(0)

    def talk(connection: socket.socket) -> None:
        try:
            answering(lambda line: b"4\n")(connection)
        finally:
            ended.release()

    with serving(talk) as address:
        with pytest.raises(AnswerError):
            measure(address, 5, seconds=0.01)
        for _ in range(5):
            assert ended.acquire(timeout=LIMIT)


def test_more_than_the_buffers_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 32768 bytes"):
        measure((HOST, 1), depth=10_000)


# -- load_generator: demonstration


def test_the_reactor_stalls_once_and_when_it_is_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    reactor = load.StallingReactor(calculate, listen())
    try:
        for requests, stalls in ((0, 0), (199, 0), (200, 1), (201, 1)):
            reactor.statistics.requests = requests
            reactor.turn(0)
            assert slept == [0.1] * stalls
    finally:
        reactor.close()


def test_a_server_in_another_process_is_measured(start_method: str) -> None:
    with load.serving(Reactor) as address:
        result = measure(address, 2, 2, 0.01, request=b"3,4\n", answer=b"7\n")
        assert len(multiprocessing.active_children()) == 1
    assert result.from_sent.total >= 4
    assert multiprocessing.active_children() == []


def histogram_of(*seconds: float) -> Histogram:
    histogram = Histogram()
    for one in seconds:
        histogram.record(one)
    return histogram


quick, slow = histogram_of(*[0.001] * 99, 0.1), histogram_of(*[0.001] * 90, *[0.1] * 10)


@pytest.mark.parametrize(("sent", "due"), [(quick, quick), (slow, slow), (slow, quick)])
def test_a_stall_that_does_not_show_is_told(
    sent: Histogram, due: Histogram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "serving", lambda _: nullcontext((HOST, 1)))
    monkeypatch.setattr(load, "measure", lambda *_, **__: Result(1.0, sent, due))
    with pytest.raises(SystemExit, match=r"\Ap99 was 0\.\d+ s when sent, and .*\Z"):
        load.stall()


def test_a_stall_that_one_way_of_counting_hides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    result = Result(1.0, quick, slow)
    monkeypatch.setattr(load, "serving", lambda _: nullcontext((HOST, 1)))
    monkeypatch.setattr(load, "measure", lambda *_, **__: result)
    assert load.stall() is result


def test_a_server_of_ones_own_is_measured_by_a_timetable(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: list[bytes] = []
    drawn: list[tuple[str, Result, Path]] = []

    def answer(line: bytes) -> bytes:
        asked.append(line)
        return b"13\n"

    monkeypatch.setattr(load, "plot", lambda *arguments: drawn.append(arguments))
    picture = tmp_path / "latency.png"
    with serving(answering(answer)) as (host, port):
        options: dict[str, object] = {
            "--connect": f"{host}:{port}",
            "--connections": 2,
            "--rate": 200,
            "--seconds": 0.05,
            "--request": "6,7",
            "--plot": picture,
        }
        arguments = [f"{name}={value}" for name, value in options.items()]
        run_main(load, monkeypatch, *arguments)
    assert asked == [b"6,7\n"] * 10
    heading, name, sent, due = capsys.readouterr().out.splitlines()
    assert heading.split() == ["p50", "p90", "p99", "p99.9", "max"]
    assert name == "200 /s are due"
    assert sent.startswith("  counted when sent")
    assert due.startswith("  counted when due")
    [(title, result, file)] = drawn
    assert (title, result.from_due.total, file) == (f"Latencies: {name}", 10, picture)


def test_a_server_that_answers_wrongly_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = r"\Ano measurement: connection 1: a wrong answer: .*\Z"
    with (
        serving(answering(lambda line: b"4\n")) as (host, port),
        pytest.raises(SystemExit, match=line),
    ):
        run_main(load, monkeypatch, f"--connect={host}:{port}", "--connections=1")


def test_a_server_that_is_not_there_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    for module in (load, torture):
        with pytest.raises(SystemExit, match=r"\A.+refused.*\Z"):
            run_main(module, monkeypatch, "--connect", f"{HOST}:{port}")


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ("--connections 0", "must be in 1 … "),
        ("--connections 100000", "not 100000"),
        ("--depth 0", "must be in 1 … 1000"),
        ("--depth 1000 --request 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16", "--depth"),
        ("--rate -1", "--rate"),
        ("--connections 200 --depth 1000", "--depth: more than 100000 requests"),
        ("--rate 100001", "must be in 0 … 100000"),
        ("--seconds 61", "not 61"),
        ("--seconds 0", "must be in 0.001 … 60, not 0"),
        ("--seconds nan", "not nan"),
        ("--seconds inf", "not inf"),
        ("--request stats", "has no certain answer: 'stats'"),
        ("--request quit", "has no certain answer"),
        ("--connect 127.0.0.1", "must be HOST:PORT, not 127.0.0.1"),
        ("--connect 127.0.0.1:0", "must be HOST:PORT"),
        ("--connect :80", "must be HOST:PORT"),
        ("--connect host:65536", "must be HOST:PORT"),
        ("--plot latency.txt", "must end in .png"),
    ],
)
def test_bad_options_of_the_load_generator(
    arguments: str, culprit: str, complaint: Callable[..., str]
) -> None:
    assert culprit in complaint(load, *arguments.split())


@pytest.mark.parametrize("module", [load, torture])
def test_an_address_may_be_of_either_kind(module: Any) -> None:
    assert module.address_of("localhost:80") == ("localhost", 80)
    assert module.address_of("[::1]:8000") == ("::1", 8000)


# -- torture

PATIENCE = 0.3  # seconds, after which the deadlines of the servers here have passed

# The real server, and what can be taken away from it.
REAL_SERVER = f"""
import math, os, selectors, socket, sys
from contextlib import nullcontext
sys.path.insert(0, {str(torture.FOLDER)!r})
import example07_calculator_on_the_reactor as example07
from example02_calculator import GREETING, Calculator
from example07_calculator_on_the_reactor import calculate
from reactor import Limits, Reactor, suspended


class Listener(socket.socket):
    def accept(self):
        try:
            accepted = super().accept()
            accepted[0].getpeername()
            return accepted
        except BlockingIOError:
            raise
        except OSError as error:
            self.fail(error)


def serve(session=calculate, kind=Reactor, fail=None, stops=True, **limits):
    listener = example07.listen()
    if fail:
        Listener.fail = fail
        listener = Listener(fileno=listener.detach())
    limits = dict(request=0.2, drain=0.2, linger=0.2, tick=0.05) | limits
    server = kind(session, listener, Limits(**limits))
    with example07.signals_call(server.stop) if stops else nullcontext():
        announce(listener)
        server.run()


def announce(listener):
    port = listener.getsockname()[1]
    print(f"serving on 127.0.0.1 port {{port}} until Ctrl-C", flush=True)


def die(*_):
    os._exit(1)


def answered_by(answer):
    class Bad(Calculator):
        pass

    Bad.answer = answer
    example07.Calculator = Bad


def good(self, line):
    return Calculator.answer(self, line)


def session_of(reply):
    async def session(connection):
        connection.write(GREETING)
        calculator = Calculator()
        while lines := await connection.lines():
            connection.write(reply(calculator, lines))

    return session
"""

CHUNK_IS_LINE = """
async def session(connection):
    connection.write(GREETING)
    while data := await suspended():
        connection.write(Calculator().answer(data[:-1]))
serve(session)
"""
ONE_AT_A_TIME = """
with example07.listen() as listener:
    announce(listener)
    while True:
        with listener.accept()[0] as client:
            client.sendall(GREETING)
            client.recv(5)
            client.sendall(b"goodbye\\n")
"""
NO_HANDLER = """
class Fragile(Reactor):
    def turn(self, timeout=None):
        for key, _ in self.selector.select(timeout):
            key.data.react()
        return 0
serve(kind=Fragile)
"""
DIES_OF_BAD_TEXT = """
def answer(self, line):
    try:
        line.decode()
    except UnicodeDecodeError:
        die()
    return good(self, line)
answered_by(answer)
serve()
"""
FAILS_AT_NUL = """
def answer(self, line):
    if 0 in line:
        raise ValueError("embedded null byte")
    return good(self, line)
answered_by(answer)
serve()
"""
NO_LIMIT_OF_DIGITS = """
answered_by(lambda self, line: b"%d\\n" % sum(map(int, line.split(b","))))
serve(line=1 << 30)
"""
DIES_OF_DIGITS = """
def answer(self, line):
    if line == b"product":
        return b"now: product\\n"
    try:
        return b"%d\\n" % math.prod(map(int, line.split(b",")))
    except ValueError:
        die()
answered_by(answer)
serve(line=1 << 30)
"""
REST_IS_LINE = """
async def session(connection):
    rest, calculator = b"", Calculator()
    connection.write(GREETING)
    while data := await suspended():
        *lines, rest = (rest + data).split(b"\\n")
        connection.write(calculator.answers(lines))
    if rest:
        connection.write(calculator.answer(rest))
serve(session)
"""
ONE_BEHIND = """
async def session(connection):
    connection.write(GREETING)
    answer = b""
    while lines := await connection.lines():
        connection.write(answer)
        answer = Calculator().answers(lines)
serve(session)
"""
TAKES_ALL = """
async def session(connection):
    connection.write(GREETING)
    while data := await suspended():
        if len(data) < 100:
            connection.write(Calculator().answer(data[:-1]))
serve(session)
"""
LATEST_ONLY = """
async def session(connection):
    global latest
    latest = connection
    connection.write(GREETING)
    while lines := await connection.lines():
        if connection is latest:
            connection.write(Calculator().answers(lines))
serve(session)
"""
DIES_AT_THE_END = """
async def session(connection):
    connection.write(GREETING)
    while lines := await connection.lines():
        connection.write(Calculator().answers(lines))
    die()
serve(session)
"""
SPINNING = """
def fail(self, error):
    raise BlockingIOError
serve(fail=fail)
"""
SELECT = """
selectors.DefaultSelector = selectors.SelectSelector
serve()
"""

DEFECTS = [
    ("two_at_once", "one at a time", ONE_AT_A_TIME, "HUNG"),
    ("two_at_once", "newcomers are refused", "serve(connections=2)", "OS"),
    ("two_at_once", "the latest only", LATEST_ONLY, "OS"),
    ("three_at_once", "dies when a client leaves", DIES_AT_THE_END, "DIED"),
    ("half_a_line", "no answer to others", "serve(session_of(lambda c, l: b''))", "OS"),
    ("byte_by_byte", "a chunk is a line", CHUNK_IS_LINE, "WRONG"),
    ("slow_line", "no deadline", "serve(request=60.0)", "NO DEADLINE"),
    (
        "three_at_once",
        "one answer for each chunk",
        "serve(session_of(lambda c, lines: c.answer(lines[0])))",
        "HUNG",
    ),
    ("reset_when_idle", "no handler", NO_HANDLER, "DIED"),
    ("reset_in_mid_line", "no handler", NO_HANDLER, "DIED"),
    ("reset_after_request", "no handler", NO_HANDLER, "DIED"),
    ("reset_in_backlog", "no handler", "serve(fail=die)", "DIED"),
    ("no_utf8", "dies", DIES_OF_BAD_TEXT, "DIED"),
    ("nul_byte", "session fails", FAILS_AT_NUL, "CUT OFF"),
    (
        "empty_line",
        "is left out",
        "serve(session_of(lambda c, lines: c.answers(filter(None, lines))))",
        "HUNG",
    ),
    ("long_number", "no limit", NO_LIMIT_OF_DIGITS, "CUT OFF"),
    ("long_result", "dies", DIES_OF_DIGITS, "DIED"),
    ("long_product", "no limit", "serve(line=1 << 30, request=60.0)", "OS"),
    ("endless_line", "no limit", "serve(line=1 << 30, request=60.0)", "SWALLOWS"),
    ("never_reads", "no deadline", "serve(drain=60.0)", "NO DEADLINE"),
    ("never_reads", "takes it in", TAKES_ALL, "SWALLOWS"),
    ("end_in_mid_line", "the rest is a line", REST_IS_LINE, "WRONG"),
    ("end_after_request", "one behind", ONE_BEHIND, "CUT OFF"),
    ("talk_after_quit", "no lingering close", ONE_AT_A_TIME, "RESET"),
    (
        "garbage",
        "empty lines are left out",
        "serve(session_of(lambda c, lines: c.answers(filter(None, lines))))",
        "CUT OFF",
    ),
    ("a_crowd", "select", SELECT, "DIED"),
    ("no_descriptors", "spins", SPINNING, "SPINS"),
    ("sigterm", "no handler", "serve(stops=False)", "CUT OFF"),
    ("sigterm", "another status", "serve()\nsys.exit(3)", "STATUS 3"),
    ("sigint", "no handler", "serve(stops=False)", "CUT OFF"),
]


@contextmanager
def torturable(defect: str = "serve()") -> Iterator[Server]:
    """Give a server in another process, from which something has been taken away."""
    command = [sys.executable, "-I", "-S", "-c", REAL_SERVER + defect]
    server = Server(command, threading.Event(), PATIENCE)
    try:
        yield server
    finally:
        server.end()


@needs_posix
@pytest.mark.parametrize(
    ("fault", "defect", "word"),
    [
        pytest.param(FAULTS[name], defect, word, id=f"{name}-{what}")
        for name, what, defect, word in DEFECTS
    ],
)
def test_each_fault_convicts_a_server_that_cannot_stand_it(
    fault: Fault, defect: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that dies may take its time; others are not to take ours.
    monkeypatch.setattr(torture, "SECOND", 0.5)
    monkeypatch.setattr(torture, "LAST_GASP", LIMIT if word == "DIED" else 0.0)
    enough = 16 << 20 if fault is torture.never_reads else 1 << 20
    monkeypatch.setattr(torture, "ENOUGH", enough)
    with torturable(defect) as server, no_thread_is_left():
        verdict = attempt(fault, server, alone=fault is torture.talk_after_quit)
        server.end()
    assert verdict == Verdict({"OS": "OTHERS SUFFER"}.get(word, word), False)


def test_there_is_a_defect_for_each_fault() -> None:
    assert {name for name, *_ in DEFECTS} == FAULTS.keys()


@needs_posix
def test_the_real_server_stands_on_after_a_fault_and_starts_anew_after_its_end() -> (
    None
):
    names = ["half_a_line", "reset_in_backlog", "sigint", "three_at_once", "sigterm"]
    faults = [FAULTS[name] for name in names]
    with torturable() as server, no_thread_is_left():
        verdicts = torture.attack_all(server, faults, to_the_first_fall=False)
    words = ["answered", "no harm", "answered", "answered", "answered"]
    assert verdicts == [Verdict(word, True) for word in words]


@needs_posix
def test_who_cannot_be_stopped_is_not_attacked_by_that() -> None:
    with torturable() as started:
        started.start()
        server = Server((), threading.Event(), PATIENCE, started.address)
        names = ["two_at_once", "reset_in_backlog", "no_descriptors", "sigterm"]
        faults = [FAULTS[name] for name in names]
        verdicts = torture.attack_all(server, faults, to_the_first_fall=True)
    assert verdicts == [Verdict("answered", True), *[torture.NOT_TRIED] * 3]
    assert attempt(FAULTS["half_a_line"], server) == Verdict("DIED", False)


def attack_all_with(
    words: Sequence[str], to_the_first_fall: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], list[str]]:
    """Let faults have these verdicts; return those on all, and what was done."""
    done: list[str] = []
    faults = [torture.two_at_once, *list(FAULTS.values())[1 : len(words)]]

    class Noted(Server):
        def end(self) -> None:
            done.append("end")

    def judge(fault: Fault, _: Server, alone: bool) -> Verdict:
        word = words[faults.index(fault)]
        done.append(f"{fault.__name__} {alone}")
        return Verdict(word, not word.isupper())

    monkeypatch.setattr(torture, "attempt", judge)
    server = Noted((), threading.Event())
    verdicts = torture.attack_all(server, faults, to_the_first_fall)
    return [verdict.word for verdict in verdicts], done


def test_a_server_that_has_fallen_is_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["HUNG", "answered", "DIED"]
    verdicts, done = attack_all_with(words, False, monkeypatch)
    assert verdicts == words
    assert done == [
        "two_at_once False",
        "end",
        "half_a_line True",
        "byte_by_byte True",
        "end",
        "end",
    ]


def test_an_early_server_is_attacked_to_its_first_fall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdicts, done = attack_all_with(["answered", "DIED", "no"], True, monkeypatch)
    assert verdicts == ["answered", "DIED", "-"]
    assert done == ["two_at_once False", "half_a_line False", "end", "end"]


def test_what_is_to_end_starts_nothing() -> None:
    server = Server([sys.executable, "-c", ""], threading.Event())
    server.stopped.set()
    with pytest.raises(torture.StoppedError):
        attempt(torture.two_at_once, server)


@needs_posix
@pytest.mark.parametrize("program", ["", "print('serving')", "raise SystemExit(1)"])
def test_a_program_that_does_not_serve_is_named(program: str) -> None:
    server = Server([sys.executable, "-c", program], threading.Event())
    with pytest.raises(RuntimeError, match="does not serve"):
        torture.attack_all(server, [torture.two_at_once], to_the_first_fall=True)
    with pytest.raises(torture.NotPossibleError):  # it is gone
        _ = server.process


@needs_posix
def test_a_server_that_has_ended_cannot_be_frozen() -> None:
    with torturable() as server:
        server.start()
        server.process.kill()
        server.process.wait()
        with pytest.raises(torture.FallenError, match="DIED"), server.frozen():
            pass


def test_if_one_server_cannot_be_started_the_others_are_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []

    def attack_all(server: Server, *_: object) -> list[Verdict]:
        if server.patience == 1.0:
            raise RuntimeError("does not serve")
        assert server.stopped.wait(LIMIT)
        ended.append("the other")
        return []

    monkeypatch.setattr(torture, "attack_all", attack_all)
    stopped = threading.Event()
    servers = {"a": Server((), stopped, 1.0), "b": Server((), stopped, 2.0)}
    with no_thread_is_left(), pytest.raises(RuntimeError, match="does not serve"):
        torture.attack_side_by_side(servers, [], [])
    assert ended == ["the other"]


WELL, ILL = Verdict("answered", True), Verdict("HUNG", False)


def table_of(
    verdicts: dict[str, Verdict], monkeypatch: pytest.MonkeyPatch
) -> list[Sequence[str]]:
    """Let each server have one verdict on all faults; return who may stop early."""
    stops: list[Sequence[str]] = []

    def attack_side_by_side(
        servers: dict[str, Server], faults: Sequence[Fault], may_stop: Sequence[str]
    ) -> dict[str, list[Verdict]]:
        stops.append(may_stop)
        return {name: [verdicts.get(name, WELL)] * len(faults) for name in servers}

    monkeypatch.setattr(torture, "attack_side_by_side", attack_side_by_side)
    return stops


@needs_posix
@pytest.mark.parametrize(
    ("arguments", "ill", "servers", "stops", "end"),
    [
        ((), "example03", 2, ["example03"], "example07 has stood all of 25 faults"),
        (("--all",), "example08", 8, [], "example07 has stood all of 25 faults"),
        (("--server", "example11"), "example07", 1, [], "example11 has stood"),
        (("--fault", "nul_byte"), "", 2, ["example03"], "stood all of 1 faults"),
    ],
)
def test_the_real_server_is_judged_or_the_one_that_is_named(
    arguments: Sequence[str],
    ill: str,
    servers: int,
    stops: list[str],
    end: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopping = table_of({ill: ILL}, monkeypatch)
    run_main(torture, monkeypatch, *arguments)
    heading, first, *_, last = capsys.readouterr().out.splitlines()
    assert len(heading.split()) == servers
    assert first.count("HUNG") == heading.split().count(ill)
    assert end in last
    assert stopping == [stops]


@needs_posix
@pytest.mark.parametrize(
    ("arguments", "ill"),
    [((), "example07"), (("--server", "example05"), "example05")],
)
def test_who_is_judged_must_not_fall(
    arguments: Sequence[str], ill: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_of({ill: ILL}, monkeypatch)
    with pytest.raises(SystemExit, match=rf"\A{ill} has fallen to 25 faults\Z"):
        run_main(torture, monkeypatch, *arguments)


@needs_posix
def test_the_early_server_has_to_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    table_of({}, monkeypatch)
    with pytest.raises(SystemExit, match=r"\Aexample03 was to fall, and has not\Z"):
        run_main(torture, monkeypatch)


@needs_posix
def test_a_server_of_ones_own_is_attacked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with torturable() as server:
        server.start()
        host, port = server.address
        address = f"{host}:{port}"
        run_main(torture, monkeypatch, "--connect", address, "--fault", "nul_byte")
        run_main(torture, monkeypatch, "--connect", address, "--fault", "sigterm")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [["yours"], ["nul", "byte", "error", "line"]]
    assert lines[4] == ["sigterm", "-"]


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ("--fault nothing", "--fault"),
        ("--server example01", "--server"),
        ("--all --server example07", "not allowed with"),
        ("--connect here --all", "must be HOST:PORT, not here"),
    ],
)
def test_bad_options_of_the_torture_client(
    arguments: str, culprit: str, complaint: Callable[..., str]
) -> None:
    assert culprit in complaint(torture, *arguments.split())
