"""Chapter 18, servers in processes of their own, and the two clients."""

import math
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import load_generator as load
import psutil
import pytest
import server_process
import torture
from example02_calculator import GREETING, Calculator
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from load_generator import AnswerError, Histogram, Result, measure
from server_process import NotOursError, ServerProcess, StoppedError
from torture import FAULTS, Server, attempt

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


def until(true: Callable[[], object]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# -- server_process

ANNOUNCED = "print('serving on 127.0.0.1 port 9 until Ctrl-C', flush=True)\n"
SLEEPS = "import os, sys, time\n" + ANNOUNCED + "time.sleep(99)"


def python(program: str) -> ServerProcess:
    return ServerProcess([sys.executable, "-I", "-S", "-c", program])


@needs_posix
def test_a_server_is_killed_at_the_end_of_the_block_with_its_children() -> None:
    forks = "import os\nif os.fork(): pass\nelse:\n import time; time.sleep(99)\n"
    with no_thread_is_left(), python(forks + SLEEPS) as server:
        assert server.address == (HOST, 9)
        family = server.family()
    assert len(family) == 2
    assert psutil.wait_procs(family, LIMIT)[1] == []
    with pytest.raises(NotOursError):
        _ = server.process


@needs_posix
@pytest.mark.parametrize("program", ["", "print('serving')", "raise SystemExit(1)"])
def test_a_program_that_does_not_serve_is_named(program: str) -> None:
    server = python(program)
    with (
        no_thread_is_left(),
        pytest.raises(RuntimeError, match="does not serve"),
        server,
    ):
        pass
    with pytest.raises(NotOursError):  # it is gone
        _ = server.process


def test_a_program_that_says_nothing_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_process, "START", 0.1)
    server = python("import time; time.sleep(99)")
    with no_thread_is_left(), pytest.raises(RuntimeError, match="not serve"), server:
        pass


def test_what_a_server_prints_does_not_fill_the_pipe() -> None:
    with python(ANNOUNCED + "print('x' * 1_000_000)") as server:
        assert server.process.wait(LIMIT) == 0


def test_a_server_is_started_anew_only_if_it_has_ended() -> None:
    with python(SLEEPS) as server:
        first = server.process
        server.start()
        assert server.process is first
        first.kill()
        first.wait(LIMIT)
        with pytest.raises(psutil.NoSuchProcess):
            server.family()
        with pytest.raises(psutil.NoSuchProcess), server.frozen():
            pass
        server.start()
        assert server.process is not first


@needs_posix
def test_a_server_has_as_many_descriptors_as_wanted() -> None:
    program = "import resource as r\nN = r.getrlimit(r.RLIMIT_NOFILE)[0]\n"
    program += "print(f'serving on {N} port {N} until Ctrl-C', flush=True)\ninput()"
    with python("import time\n" + program.replace("input()", "time.sleep(99)")) as one:
        for descriptors in 40, 41, 41:
            one.start(descriptors)
            assert one.address[1] == descriptors
        before = one.process
        one.start(41)
        assert one.process is before
        one.start()
        assert one.address[1] > 41


def test_who_is_stopped_is_killed_and_starts_no_more() -> None:
    with no_thread_is_left(), python(SLEEPS) as server:
        process = server.process
        server.stop()
        assert process.wait(LIMIT) != 0
        with pytest.raises(StoppedError):
            _ = server.address
        with pytest.raises(StoppedError):
            server.start()


def test_somebody_elses_server_is_neither_started_nor_counted() -> None:
    with ServerProcess(port=9) as server:
        assert server.address == (HOST, 9)
        for act in server.descriptors, server.memory, server.cpu_time:
            with pytest.raises(NotOursError):
                act()
        with pytest.raises(NotOursError):
            server.start(descriptors=64)
        with pytest.raises(NotOursError), server.frozen():
            pass


@needs_posix
def test_what_is_frozen_uses_no_time_and_goes_on() -> None:
    with python(ANNOUNCED + "while True: pass") as server:
        until(lambda: server.cpu_time() > 0)
        with server.frozen():
            before = server.cpu_time()
            time.sleep(0.1)
            assert server.cpu_time() == before
        until(lambda: server.cpu_time() > before)


@needs_posix
def test_nothing_is_done_before_all_processes_are_frozen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []

    def status(process: psutil.Process) -> str:
        asked.append(process.pid)
        return psutil.STATUS_RUNNING if len(asked) < 5 else psutil.STATUS_STOPPED

    monkeypatch.setattr(psutil.Process, "status", status)
    with python(SLEEPS) as server, server.frozen():
        assert len(asked) == 5


@needs_posix
def test_all_processes_of_a_server_are_counted() -> None:
    opens = "import os\nos.fork()\nfiles = [os.dup(0) for _ in range(50)]\n"
    with python(SLEEPS) as one, python(opens + SLEEPS) as two:
        until(lambda: two.descriptors() >= 2 * (one.descriptors() + 50))
        assert two.memory() > one.memory()


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


def test_who_measures_is_told_when_all_are_connected() -> None:
    greeted: list[bool] = []
    asked: list[bytes] = []
    seen: list[tuple[int, int]] = []

    def talk(connection: socket.socket) -> None:
        greeted.append(True)
        connection.sendall(GREETING)
        with connection.makefile("rb") as lines:
            for line in lines:
                asked.append(line)
                connection.sendall(b"3\n")

    with serving(talk) as address:
        measure(
            address, 3, 1, 0.01, begin=lambda: seen.append((len(greeted), len(asked)))
        )
    assert seen == [(3, 0)]


class Freezable:
    """Stands for a server; counts how often it is frozen, and for how long."""

    address = (HOST, 1)

    def __init__(self) -> None:
        self.frozen_for: list[float] = []
        self.thawed = threading.Event()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.frozen_for.append(time.perf_counter() - began)
        self.thawed.set()


def stall(server: Freezable, result: Result, monkeypatch: pytest.MonkeyPatch) -> Result:
    """Have a stall measured, with this result; wait for its end if it is to begin."""

    def measure(*_: object, begin: Callable[[], None], **__: object) -> Result:
        begin()
        assert server.thawed.wait(LIMIT)
        return result

    monkeypatch.setattr(load, "measure", measure)
    monkeypatch.setattr(load, "STALL_AFTER", 0.01)
    with no_thread_is_left():
        return load.stall(server)  # type: ignore[arg-type]


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
    with pytest.raises(SystemExit, match=r"\Ap99 was 0\.\d+ s when sent, and .*\Z"):
        stall(Freezable(), Result(1.0, sent, due), monkeypatch)


def test_a_stall_that_one_way_of_counting_hides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, result = Freezable(), Result(1.0, quick, slow)
    assert stall(server, result, monkeypatch) is result
    [seconds] = server.frozen_for
    assert seconds >= load.STALL


@pytest.mark.parametrize("begins", [False, True])
def test_no_stall_comes_after_a_measurement_that_fails(
    begins: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, begin: Callable[[], None], **__: object) -> Result:
        if begins:
            begin()
        raise AnswerError

    server = Freezable()
    monkeypatch.setattr(load, "measure", fail)
    monkeypatch.setattr(load, "STALL_AFTER", LIMIT)
    with no_thread_is_left(), pytest.raises(AnswerError):
        load.stall(server)  # type: ignore[arg-type]
    assert server.frozen_for == []


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
    for module, where in (
        (load, f"--connect={HOST}:{port}"),
        (torture, f"--port={port}"),
    ):
        with pytest.raises(SystemExit, match=r"\A.+refused.*\Z"):
            run_main(module, monkeypatch, where)


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


def test_an_address_may_be_of_either_kind() -> None:
    assert load.address_of("localhost:80") == ("localhost", 80)
    assert load.address_of("[::1]:8000") == ("::1", 8000)


# -- torture

PATIENCE = 0.3  # seconds, after which the deadlines of the servers here have passed

# The real server, and what can be taken away from it.
REAL_SERVER = f"""
import math, os, selectors, socket, sys
from contextlib import nullcontext, suppress
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
        with suppress(OSError), listener.accept()[0] as client:
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
TAKES_SLOWLY = """
import time
async def session(connection):
    connection.write(GREETING)
    while data := await suspended():
        if len(data) < 100:
            connection.write(Calculator().answer(data[:-1]))
        else:
            time.sleep(0.01)
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
KEEPS_WHAT_WAS_SAID = """
kept = []
async def session(connection):
    connection.write(GREETING)
    while data := await suspended():
        kept.append(data)
        connection.write(Calculator().answers(data.split(b"\\n")[:-1]))
serve(session)
"""
KEEPS_CONNECTIONS = """
kept = []
async def session(connection):
    kept.append(connection)
    await calculate(connection)
serve(session)
"""
KEEPS_DESCRIPTORS = """
async def session(connection):
    os.dup(1)
    await calculate(connection)
serve(session)
"""
KEEPS_A_PROCESS = """
import time
if os.fork():
    serve()
else:
    os.close(1)
    time.sleep(99)
"""
URGENT_IS_INLINE = """
listen = example07.listen
def listen_inline():
    listener = listen()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    return listener
example07.listen = listen_inline
serve()
"""
NO_CR = """
def answer(self, line):
    return b"error: CR\\n" if b"\\r" in line else good(self, line)
answered_by(answer)
serve()
"""
TELLS_AND_WAITS = """
async def session(connection):
    connection.write(GREETING)
    calculator = Calculator()
    try:
        while lines := await connection.lines():
            connection.write(calculator.answers(lines))
    except TimeoutError:
        connection.write(b"error: too slow\\n")
        while True:
            with suppress(TimeoutError):
                await suspended()
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

HALF_AN_ANSWER = "serve(session_of(lambda c, lines: c.answers(lines)[:-1]))"
HALF_AND_END = """
async def session(connection):
    connection.write(GREETING)
    connection.write(Calculator().answers(await connection.lines())[:-1])
serve(session)
"""

DEFECTS = [
    ("two-at-once", "one at a time", ONE_AT_A_TIME, "HUNG"),
    ("two-at-once", "newcomers are refused", "serve(connections=2)", "OS"),
    ("two-at-once", "the latest only", LATEST_ONLY, "OS"),
    ("three-at-once", "dies when a client leaves", DIES_AT_THE_END, "DIED"),
    ("half-a-line", "no answer to others", "serve(session_of(lambda c, l: b''))", "OS"),
    ("byte-by-byte", "a chunk is a line", CHUNK_IS_LINE, "WRONG"),
    ("slow-line", "no deadline", "serve(request=60.0)", "NO DEADLINE"),
    (
        "three-at-once",
        "one answer for each chunk",
        "serve(session_of(lambda c, lines: c.answer(lines[0])))",
        "HUNG",
    ),
    ("three-at-once", "keeps descriptors", KEEPS_DESCRIPTORS, "LEAKS"),
    ("three-at-once", "half an answer", HALF_AN_ANSWER, "HUNG"),
    ("three-at-once", "half an answer, and the end", HALF_AND_END, "WRONG"),
    ("slow-line", "tells, and does not close", TELLS_AND_WAITS, "HUNG"),
    ("line-of-telnet", "is refused", NO_CR, "WRONG"),
    ("urgent-byte", "is taken for text", URGENT_IS_INLINE, "WRONG"),
    ("leave-at-once", "dies when a client leaves", DIES_AT_THE_END, "DIED"),
    ("reset-when-idle", "no handler", NO_HANDLER, "DIED"),
    ("reset-in-mid-line", "no handler", NO_HANDLER, "DIED"),
    ("reset-after-request", "no handler", NO_HANDLER, "DIED"),
    ("reset-in-backlog", "no handler", "serve(fail=die)", "DIED"),
    ("no-utf8", "dies", DIES_OF_BAD_TEXT, "DIED"),
    ("nul-byte", "session fails", FAILS_AT_NUL, "CUT OFF"),
    (
        "empty-line",
        "is left out",
        "serve(session_of(lambda c, lines: c.answers(filter(None, lines))))",
        "HUNG",
    ),
    ("long-number", "no limit", NO_LIMIT_OF_DIGITS, "CUT OFF"),
    ("long-sum", "no limit", NO_LIMIT_OF_DIGITS, "CUT OFF"),
    ("long-result", "dies", DIES_OF_DIGITS, "DIED"),
    ("come-and-go", "keeps what was said", KEEPS_WHAT_WAS_SAID, "LEAKS"),
    ("come-and-go", "keeps connections", KEEPS_CONNECTIONS, "LEAKS"),
    ("sigterm", "keeps a process", KEEPS_A_PROCESS, "LEAKS"),
    ("long-product", "no limit", "serve(line=1 << 30, request=60.0)", "OS"),
    ("endless-line", "no limit", "serve(line=1 << 30, request=60.0)", "SWALLOWS"),
    ("never-reads", "no deadline", "serve(drain=60.0)", "NO DEADLINE"),
    ("never-reads", "takes it in", TAKES_ALL, "SWALLOWS"),
    ("never-reads", "takes it in slowly", TAKES_SLOWLY, "NO DEADLINE"),
    ("end-in-mid-line", "the rest is a line", REST_IS_LINE, "WRONG"),
    ("end-after-request", "one behind", ONE_BEHIND, "CUT OFF"),
    ("talk-after-quit", "no lingering close", ONE_AT_A_TIME, "RESET"),
    (
        "garbage",
        "empty lines are left out",
        "serve(session_of(lambda c, lines: c.answers(filter(None, lines))))",
        "CUT OFF",
    ),
    ("stay-after-quit", "no deadline", "serve(linger=60.0)", "NO DEADLINE"),
    ("a-crowd", "select", SELECT, "DIED"),
    ("no-descriptors", "spins", SPINNING, "SPINS"),
    ("sigterm", "no handler", "serve(stops=False)", "CUT OFF"),
    ("sigterm", "another status", "serve()\nsys.exit(3)", "STATUS 3"),
    ("sigint", "no handler", "serve(stops=False)", "CUT OFF"),
]


@contextmanager
def torturable(defect: str = "serve()") -> Iterator[Server]:
    """Give a server in another process, from which something has been taken away."""
    command = [sys.executable, "-I", "-S", "-c", REAL_SERVER + defect]
    server = Server(command, PATIENCE)
    try:
        yield server
    finally:
        server.end()


@needs_posix
@pytest.mark.parametrize(
    ("fault", "defect", "word"),
    [
        pytest.param(name, defect, word, id=f"{name}-{what}")
        for name, what, defect, word in DEFECTS
    ],
)
def test_each_fault_convicts_a_server_that_cannot_stand_it(
    fault: str, defect: str, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A process that dies may take its time; others are not to take ours.
    waits = word not in {"WRONG", "CUT OFF", "RESET", "DIED", "LEAKS"}
    monkeypatch.setattr(torture, "SECOND", 0.5 if waits else 5.0)
    monkeypatch.setattr(torture, "LAST_GASP", LIMIT if word == "DIED" else 0.0)
    if word == "LEAKS":
        monkeypatch.setattr(torture, "SHORT_PATIENCE", 1.0)
        monkeypatch.setattr(torture, "END", 1.0)
    enough = 16 << 20 if fault == "never-reads" else 1 << 20
    monkeypatch.setattr(torture, "ENOUGH", enough)
    with torturable(defect) as server, no_thread_is_left():
        found = attempt(fault, server, alone=fault == "talk-after-quit")
        server.end()
    assert found == {"OS": "OTHERS SUFFER"}.get(word, word)


@needs_posix
def test_a_server_that_is_slow_to_many_does_not_hold_up_the_attack(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torture, "LONGEST", 0.3)
    greets_late = "import time\nasync def session(connection):\n time.sleep(0.1)\n"
    with torturable(
        greets_late + " await calculate(connection)\nserve(session)"
    ) as one:
        assert attempt("a-crowd", one) == "HUNG"
        assert attempt("three-at-once", one) == "answered"


def test_there_is_a_defect_for_each_fault() -> None:
    assert {name for name, *_ in DEFECTS} == FAULTS.keys()


@needs_posix
def test_the_real_server_stands_on_after_a_fault_and_starts_anew_after_its_end() -> (
    None
):
    names = ["half-a-line", "reset-in-backlog", "sigint", "three-at-once", "sigterm"]
    with torturable() as server, no_thread_is_left():
        words = torture.attack_all(server, names, to_the_first_fall=False)
    assert words == ["answered", "no harm", "answered", "answered", "answered"]


@needs_posix
def test_who_cannot_be_stopped_is_not_attacked_by_that() -> None:
    with torturable() as started:
        started.start()
        server = Server((), PATIENCE, started.address[1])
        names = ["two-at-once", "reset-in-backlog", "come-and-go", "no-descriptors"]
        words = torture.attack_all(server, [*names, "sigterm"], to_the_first_fall=True)
    assert words == ["answered", *[torture.NOT_TRIED] * 4]
    assert attempt("half-a-line", server) == "DIED"


def attack_all_with(
    words: Sequence[str], to_the_first_fall: bool, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], list[str]]:
    """Let faults have these words; return those for all, and what was done."""
    done: list[str] = []
    names = list(FAULTS)[: len(words)]

    class Noted(Server):
        def end(self) -> None:
            done.append("end")

    def judge(name: str, _: Server, alone: bool) -> str:
        done.append(f"{name} {alone}")
        return words[names.index(name)]

    monkeypatch.setattr(torture, "attempt", judge)
    return torture.attack_all(Noted(), names, to_the_first_fall), done


def test_a_server_that_has_fallen_is_started_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["HUNG", "answered", "DIED"]
    verdicts, done = attack_all_with(words, False, monkeypatch)
    assert verdicts == words
    assert done == [
        "two-at-once False",
        "end",
        "half-a-line True",
        "byte-by-byte True",
        "end",
        "end",
    ]


def test_an_early_server_is_attacked_to_its_first_fall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verdicts, done = attack_all_with(["answered", "DIED", "no"], True, monkeypatch)
    assert verdicts == ["answered", "DIED", "-"]
    assert done == ["two-at-once False", "half-a-line False", "end", "end"]


def test_what_is_to_end_starts_nothing_and_connects_to_nobody() -> None:
    for server in (Server([sys.executable, "-c", ""]), Server(port=1)):
        server.stop()
        with pytest.raises(StoppedError):
            attempt("two-at-once", server)


def test_if_one_server_cannot_be_started_the_others_are_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: list[str] = []

    def attack_all(server: Server, *_: object) -> list[str]:
        if server.patience == 1.0:
            raise RuntimeError("does not serve")
        until(lambda: server._stopped)
        ended.append("the other")
        return []

    monkeypatch.setattr(torture, "attack_all", attack_all)
    servers = {"a": Server(patience=1.0), "b": Server(patience=2.0)}
    with no_thread_is_left(), pytest.raises(RuntimeError, match="does not serve"):
        torture.attack_side_by_side(servers, [], [])
    assert ended == ["the other"]


def table_of(
    words: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> list[Sequence[str]]:
    """Let each server have one word for all faults; return who may stop early."""
    stops: list[Sequence[str]] = []

    def attack_side_by_side(
        servers: dict[str, Server], names: Sequence[str], may_stop: Sequence[str]
    ) -> dict[str, list[str]]:
        stops.append(may_stop)
        return {name: [words.get(name, "answered")] * len(names) for name in servers}

    monkeypatch.setattr(torture, "attack_side_by_side", attack_side_by_side)
    return stops


N = len(FAULTS)


@needs_posix
@pytest.mark.parametrize(
    ("arguments", "ill", "servers", "stops", "end"),
    [
        ((), "example03", 2, ["example03"], f"example07 has stood all of {N} faults"),
        (("--all",), "example08", 8, [], f"example07 has stood all of {N} faults"),
        (("--server", "example11"), "example07", 1, [], "example11 has stood"),
        (("--fault", "nul-byte"), "", 2, ["example03"], "stood all of 1 faults"),
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
    stopping = table_of({ill: "STATUS -9"}, monkeypatch)
    run_main(torture, monkeypatch, *arguments)
    heading, first, *_, last = capsys.readouterr().out.splitlines()
    assert len(heading.split()) == servers
    assert first.count("STATUS -9") == heading.split().count(ill)
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
    table_of({ill: "HUNG"}, monkeypatch)
    with pytest.raises(SystemExit, match=rf"\A{ill} has fallen to {N} of {N} faults\Z"):
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
        _, port = server.address
        run_main(torture, monkeypatch, "--port", port, "--fault", "nul-byte")
        with pytest.raises(SystemExit, match="sigterm needs a server that is started"):
            run_main(torture, monkeypatch, "--port", port, "--fault", "sigterm")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:2] == [["yours"], ["nul-byte", "error", "line"]]


@needs_posix
@pytest.mark.parametrize("greeting", [b"", b"220 mail.example ESMTP\r\n"])
def test_what_is_no_calculator_is_not_attacked(
    greeting: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        connection.sendall(greeting)
        if greeting:
            heard.append(connection.recv(100))

    with (
        serving(talk) as (_, port),
        pytest.raises(SystemExit, match="no attack: its greeting is not"),
    ):
        run_main(torture, monkeypatch, "--port", port)
    assert heard == [b""] * bool(greeting)


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ("--fault nothing", "--fault"),
        ("--server example01", "--server"),
        ("--all --server example07", "not allowed with"),
        ("--port 80 --all", "not allowed with"),
        ("--port here", "invalid port value"),
        ("--port 65536", "must be in 0 … 65535"),
        ("--connect 192.0.2.1:80", "unrecognized arguments"),
    ],
)
def test_bad_options_of_the_torture_client(
    arguments: str, culprit: str, complaint: Callable[..., str]
) -> None:
    assert culprit in complaint(torture, *arguments.split())
