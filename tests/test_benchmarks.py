"""The benchmarks: what measures, what tells it, and the peers.

Figures are not looked at here but where the construction fixes them.
"""

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from in_process import no_thread_is_left, run_main
from packaging.requirements import Requirement

pytest.importorskip("resource", reason="needs a POSIX system")

import resource

import comparing
import http_servers
import lines
import measuring
from comparing import Comparison, Results, measure_all, record, table, tables
from example02_calculator import GREETING, UNKNOWN
from measuring import AnswerError, Crowd, Load, Sample, Server, Talk, started, trial

LIMIT = 30.0  # seconds that a test waits for what must come
FIXED = Talk(b"ask\n", b"answer [0-9]\n")
HTTP = Talk(http_servers.REQUEST, http_servers.ANSWER)
HEAD = b"HTTP/1.1 200 OK\r\nDate: %s\r\nContent-Length: 5\r\n\r\n"
ONE = Load(1, 1)
DATE = b"Sat, 01 Jan 2000 00:00:00 GMT"

Session = Callable[[socket.socket], object]


@contextmanager
def serving(session: Session) -> Iterator[tuple[str, int]]:
    """Talk to each client in a thread of its own, until it has gone."""
    threads: list[threading.Thread] = []

    def converse(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            session(sock)

    def accept() -> None:
        while True:
            sock, _ = listener.accept()
            if stops.is_set():
                sock.close()
                return
            threads.append(threading.Thread(target=converse, args=[sock]))
            threads[-1].start()

    stops = threading.Event()
    with no_thread_is_left(), closing(measuring.listener()) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()
        finally:
            stops.set()
            socket.create_connection(listener.getsockname(), LIMIT).close()
            for thread in [acceptor, *threads]:
                thread.join(LIMIT)


def answering(*answers: bytes, size: int = len(FIXED.request)) -> Session:
    """Return a session that has an answer for each `size` bytes, and no more."""

    def session(sock: socket.socket) -> None:
        for answer in answers:
            received = 0
            while received < size:
                if not (data := sock.recv(size - received)):
                    return
                received += len(data)
            sock.sendall(answer)
        while sock.recv(100):
            pass

    return session


# -- the crowd


def asked(session: Session, load: Load = ONE, seconds: float = 0.2) -> list[float]:
    """Return the latencies of clients who ask such a server for so long."""
    with serving(session) as address, Crowd(FIXED, load) as crowd:
        crowd.connect(address, load.depth)
        return crowd.run(seconds)


@pytest.mark.parametrize("depth", [1, 3])
def test_all_that_is_asked_is_answered_and_timed_by_whole_batches(depth: int) -> None:
    received: list[bytes] = []

    def session(sock: socket.socket) -> None:
        while data := sock.recv(depth * len(FIXED.request), socket.MSG_WAITALL):
            received.append(data)
            sock.sendall(b"answer 1\n" * depth)

    latencies = asked(session, Load(2, depth), 0.3)
    assert received.count(FIXED.request * depth) == len(received)
    assert len(latencies) == len(received) - 2  # each client has asked in `connect`
    assert len(latencies) > 2
    assert all(0 < latency < LIMIT for latency in latencies)


def test_latency_is_the_time_from_question_to_answer() -> None:
    def session(sock: socket.socket) -> None:
        while sock.recv(100):
            time.sleep(0.05)
            sock.sendall(b"answer 1\n")

    latencies = asked(session, seconds=0.5)
    assert latencies
    assert all(latency > 0.05 for latency in latencies)
    assert sum(latencies[:-1]) <= 0.5  # one follows the other, until the time is up


def test_what_has_been_asked_is_waited_for_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def session(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"answer 1\n")
        sock.recv(100)
        time.sleep(0.2)
        sock.sendall(b"answer 1\n")
        while sock.recv(100):
            pass

    with serving(session) as address, Crowd(FIXED, ONE) as crowd:
        crowd.connect(address)
        [latency] = crowd.run(0.0)
        assert latency >= 0.2
        monkeypatch.setattr(measuring, "LONGER", 0.1)
        with pytest.raises(AnswerError, match=r"^1 wait in vain for 0\.1 s"):
            crowd.run(0.0)


def test_answers_may_come_byte_by_byte() -> None:
    def session(sock: socket.socket) -> None:
        while sock.recv(100):
            for number in b"answer 1\n":
                sock.sendall(bytes([number]))

    assert asked(session)


def test_answers_may_change_where_the_pattern_lets_them() -> None:
    def session(sock: socket.socket) -> None:
        numbers = itertools.cycle([1, 2, 2])
        while sock.recv(100):
            sock.sendall(b"answer %d\n" % next(numbers))

    assert len(asked(session)) > 3


@pytest.mark.parametrize("wrong", [b"answer x\n", b"answer 1\n!", b"answer 1!\n"])
@pytest.mark.parametrize("right", [0, 1, 3])
def test_a_wrong_answer_is_an_error_whenever_it_comes(
    right: int, wrong: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "LIMIT", 0.5)  # the first might be half of one
    with pytest.raises(AnswerError, match=re.escape(repr(wrong))):
        asked(answering(*[b"answer 1\n"] * right, wrong), seconds=LIMIT)


def test_too_long_an_answer_is_not_waited_for_once_the_length_is_known() -> None:
    answers = iter([b"answer 1\n", b"answer x, and more\n"])
    with pytest.raises(AnswerError, match="answers: b'answer x, and more"):
        asked(lambda sock: answering(next(answers))(sock), Load(2, 1))


def test_a_wrong_greeting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def session(sock: socket.socket) -> None:
        sock.sendall(b"hello\n")
        sock.recv(1)

    monkeypatch.setattr(measuring, "LIMIT", 0.5)
    with (
        serving(session) as address,
        Crowd(lines.LINES, ONE) as crowd,
        pytest.raises(AnswerError, match="timed out after b'hello"),
    ):
        crowd.connect(address)


@pytest.mark.parametrize("right", [0, 1])
def test_a_connection_that_is_closed_is_an_error(right: int) -> None:
    def session(sock: socket.socket) -> None:
        for _ in range(right):
            sock.recv(100)
            sock.sendall(b"answer 1\n")
        sock.recv(100)

    with pytest.raises(AnswerError, match=r"wrong answers: b''|has closed"):
        asked(session, seconds=LIMIT)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        (HEAD % DATE + b"7146\n", True),
        ((HEAD % DATE).lower().replace(b"http", b"HTTP") + b"7146\n", False),
        (
            b"HTTP/1.1 200 OK\r\ndate: %s\r\ncontent-length: 5\r\n\r\n7146\n" % DATE,
            True,
        ),
        (HEAD % DATE + b"7147\n", False),
        (HEAD % b"today" + b"7146\n", False),
        ((HEAD % DATE).replace(b"5\r", b"50\r") + b"7146\n", False),
        ((HEAD % DATE).replace(b"200 OK", b"404 Not Found") + b"7146\n", False),
        (HEAD % DATE + b"7146\n" + HEAD % DATE, False),
        (HEAD % DATE + b"\r\n7146\n", False),
        (
            b"HTTP/1.1 200 OK\r\n\r\nDate: %s\r\nContent-Length: 5\r\n\r\n7146\n"
            % DATE,
            False,
        ),
    ],
)
def test_http_answers_need_status_date_length_and_body(
    answer: bytes, right: bool
) -> None:
    assert bool(re.fullmatch(http_servers.ANSWER, answer)) is right


def test_what_the_listener_accepts_sends_at_once() -> None:
    with closing(measuring.listener()) as listener:
        address = listener.getsockname()
        client = socket.create_connection(address, LIMIT)
        accepted, _ = listener.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# -- servers


def sample(server: Server, talk: Talk, load: Load, seconds: float) -> Sample:
    """Measure a server in two turns."""
    with trial(server, talk, load) as one:
        for _ in range(2):
            one.turn(seconds / 2)
        return one.sample()


# A parent and a worker: all memory and all CPU time is the worker's.
COSTLY = """
import os, socket, threading, time
listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
if os.fork():
    print("serving on 127.0.0.1 port", port, "until Ctrl-C", flush=True)
    os.wait()
def session(sock):
    memory = bytearray(1 << 20)
    memory[::4096] = b"x" * 256  # or it would not be there
    while sock.recv(100):
        end = time.thread_time() + 0.005
        while time.thread_time() < end:
            pass
        sock.sendall(b"answer 1\\n")
while True:
    threading.Thread(target=session, args=listener.accept()[:1], daemon=True).start()
"""


@pytest.fixture
def costly(tmp_path: Path) -> Server:
    """Give a server of 1 MiB a connection and 0.005 s a request."""
    script = tmp_path / "costly.py"
    script.write_text(COSTLY)
    return Server("costly", [str(script)])


def test_a_sample_tells_what_a_server_costs(costly: Server) -> None:
    found = sample(costly, FIXED, ONE, 0.5)
    # 200, but for the ticks of the clock.
    assert 100 < found.per_cpu_second < 300
    assert len(found.turns) == 2
    assert min(found.turns) <= found.per_cpu_second <= max(found.turns)
    assert found.per_second < 210
    assert found.p99 >= 0.005


def test_a_sample_tells_how_much_memory_each_connection_takes(costly: Server) -> None:
    found = sample(costly, FIXED, Load(20, 1), 0.5)
    assert 0.9 < found.memory / (1 << 20) < 1.5


def test_nothing_is_left_of_a_server_and_its_children(costly: Server) -> None:
    with started(costly.command) as (process, _):
        processes = measuring.tree(process)
        assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=LIMIT)[1] == []


def test_nothing_is_left_after_ctrl_c_either(costly: Server) -> None:
    processes = []
    with suppress(KeyboardInterrupt), started(costly.command) as (process, _):
        processes = measuring.tree(process)
        raise KeyboardInterrupt
    assert len(processes) == 2
    assert psutil.wait_procs(processes, timeout=LIMIT)[1] == []


def test_a_server_that_does_not_start_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "broken.py"
    script.write_text("print('serving on 127.0.0.1 port no until Ctrl-C')")
    with pytest.raises(AnswerError, match=r"does not start: 'serving on .* port no"):
        sample(Server("broken", [str(script)]), FIXED, ONE, 0.1)


def test_a_server_that_falls_silent_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "LIMIT", 2.0)
    monkeypatch.setattr(measuring, "LONGER", 0.1)
    script = tmp_path / "silent.py"
    script.write_text(
        "import socket, time\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "port = listener.getsockname()[1]\n"
        "print('serving on 127.0.0.1 port', port, 'until Ctrl-C', flush=True)\n"
        "for _ in range(2):\n"
        "    sock, _ = listener.accept()\n"
        "    sock.recv(100)\n"
        "    sock.sendall(b'answer 1\\n')\n"
        "    socks = [sock]\n"
        "time.sleep(600)\n"
    )
    with pytest.raises(AnswerError, match="1 wait in vain"):
        sample(Server("silent", [str(script)]), FIXED, ONE, 0.1)


def test_who_does_not_answer_requests_that_come_at_once_is_not_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "LIMIT", 2.0)
    script = tmp_path / "one_by_one.py"
    script.write_text(
        "import socket\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "port = listener.getsockname()[1]\n"
        "print('serving on 127.0.0.1 port', port, 'until Ctrl-C', flush=True)\n"
        "while True:\n"
        "    sock, _ = listener.accept()\n"
        "    while sock.recv(100):\n"
        "        sock.sendall(b'answer 1\\n')\n"
    )
    server = Server("one by one", [str(script)])
    assert sample(server, FIXED, ONE, 0.1).per_second > 0
    with pytest.raises(AnswerError, match=r"timed out after b'answer 1\\n'"):
        sample(server, FIXED, Load(1, 2), 0.1)


# -- peers

PEERS = [
    pytest.param(server, talk, id=f"{name} {server.name}")
    for name, servers, talk in (
        ("lines", lines.SERVERS, lines.LINES),
        ("http", http_servers.SERVERS, HTTP),
    )
    for server in servers
]
SPEAKERS = [pytest.param(one, id=one.name) for one in lines.SERVERS]
WEB = [pytest.param(one, id=one.name) for one in http_servers.SERVERS]


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    """Start a server, or skip the test; give a connection to it."""
    skip_if_missing(server)
    with started(server.command) as (_, address):
        sock = socket.create_connection(address, LIMIT)
        try:
            yield sock
        finally:
            sock.close()


def skip_if_missing(server: Server) -> None:
    if missing := server.missing():
        pytest.skip(f"needs {', '.join(missing)}")


def all_of(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1 << 16), b""))


@pytest.mark.parametrize(("server", "talk"), PEERS)
def test_peer_answers_pipelined_requests_on_many_connections_and_says_nothing(
    server: Server, talk: Talk, capfd: pytest.CaptureFixture[str]
) -> None:
    skip_if_missing(server)
    found = sample(server, talk, Load(20, 16), 0.1)
    assert found.per_cpu_second > 0
    assert found.per_second > 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("server", SPEAKERS)
def test_peer_knows_the_whole_protocol(server: Server) -> None:
    with connected(server) as sock:
        sock.sendall(b"1,2\nnonsense\nproduct\n3,")
        first = GREETING + b"3\n" + UNKNOWN + b"now: product\n"
        received = b""
        while len(received) < len(first):
            received += sock.recv(len(first) - len(received))
        assert received == first
        sock.sendall(b"4\nquit\n")
        assert all_of(sock) == b"12\ngoodbye\n"


@pytest.mark.parametrize("server", WEB)
def test_peer_reads_a_body_that_comes_later_and_then_the_next_request(
    server: Server,
) -> None:
    head, _, body = http_servers.REQUEST.partition(b"\r\n\r\n")
    with connected(server) as sock:
        sock.sendall(head + b"\r\n\r\n" + body[:4])
        time.sleep(0.05)  # most have read the head by then; no harm if not
        sock.sendall(body[4:])
        whole = re.compile(http_servers.ANSWER)
        first = measuring.hear(sock, whole)
        sock.sendall(http_servers.REQUEST)
        assert len(measuring.hear(sock, whole)) == len(first)


@pytest.mark.parametrize("server", WEB)
def test_peer_knows_one_path_only(server: Server) -> None:
    with connected(server) as sock:
        sock.sendall(http_servers.REQUEST.replace(b"/sum", b"/else"))
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 404 Not Found\r\n")


# -- results

A, B = Load(1, 1), Load(50, 16)


def results() -> Results:
    found = Results()
    found.samples["slow", A] = Sample([1000, 2000, 500], 1100, 500, 0.25, 1024)
    found.samples["fast", A] = Sample([3000, 4000, 2000], 3100, 900, 0.002, 2048)
    found.samples["fast", B] = Sample([8000], 8000, 7000, 0.1, 0)
    found.failures["slow", B] = "no answer"
    return found


def test_ratios_are_those_of_turns_at_the_same_time() -> None:
    found = results()
    assert found.ratios("fast", "slow", A) == [3, 2, 4]
    assert found.ratio("fast", "slow", A) == 3
    assert found.spread("fast", "slow", A) == pytest.approx(2 / 3)  # from 2 to 4
    assert found.figure("slow", A, "per_second") == 500
    assert found.figure("slow", B, "p99") is None
    assert found.ratio("fast", "slow", B) is None
    assert found.spread("fast", "fast", B) is None  # there was but one turn
    assert found.spread("nobody", "slow", A) is None


def compared(**changes: Any) -> Comparison:
    servers = [Server("fast", []), Server("slow", [])]
    values: dict[str, Any] = {
        "name": "test",
        "talk": FIXED,
        "servers": servers,
        "reference": "slow",
        "loads": [A, B],
        "peers": {},
    }
    return Comparison(**values | changes)


def test_tables_tell_all_that_was_measured() -> None:
    text = tables(compared(), ["fast", "slow"], results())
    assert text == (
        "| 1,000 requests per CPU second | 1 x 1 | 50 x 16 |\n"
        "|---|---:|---:|\n"
        "| fast | 3.1 (3.00x) | 8.0 |\n"
        "| slow | 1.1 (1.00x) | – |\n"
        "\n"
        "| spread of the ratio | 1 x 1 | 50 x 16 |\n"
        "|---|---:|---:|\n"
        "| fast | 67 % | – |\n"
        "| slow | 0 % | – |\n"
        "\n"
        "| 1,000 requests per second | 1 x 1 | 50 x 16 |\n"
        "|---|---:|---:|\n"
        "| fast | 0.9 | 7.0 |\n"
        "| slow | 0.5 | – |\n"
        "\n"
        "| p99 in ms | 1 x 1 | 50 x 16 |\n"
        "|---|---:|---:|\n"
        "| fast | 2.00 | 100.00 |\n"
        "| slow | 250.00 | – |\n"
        "\n"
        "* fast / slow, depth 1: 3.00x to 3.00x\n"
        "\n"
        "slow at 50 x 16: no answer"
    )


def test_memory_is_told_where_there_are_many_connections() -> None:
    found = Results()
    few, many, more = Load(500, 1), Load(10_000, 1), Load(10_000, 16)
    found.samples["fast", few] = Sample([1000], 1000, 1, 1, 2048)
    found.samples["fast", many] = Sample([800], 800, 1, 1, 1536)
    found.samples["fast", more] = Sample([800], 800, 1, 1, 512)
    text = tables(compared(loads=[few, many, more]), ["fast"], found)
    expected = table("KiB per connection", ["fast"], ["500 x 1", "10,000 x 1"], cell)
    assert expected in text
    cost = "cost of a request among 10,000 connections: 1.25x that among 500"
    assert text.endswith(f"* fast, {cost}")


def cell(name: str, column: int) -> str:
    return ["2.0", "1.5"][column]


def test_servers_take_turns_and_who_fails_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    turns = []

    class FakeTrial:
        def __init__(self, name: str, load: Load) -> None:
            self.name, self.load = name, load

        def turn(self, seconds: float) -> None:
            turns.append((self.name, self.load))
            if (self.name, self.load, len(turns)) == ("weak", B, 9):
                raise AnswerError("too much")

        def sample(self) -> Sample:
            return Sample([turns.count((self.name, self.load))], 1, 1, 1, 1)

    @contextmanager
    def started_trial(server: Server, talk: Talk, load: Load) -> Iterator[FakeTrial]:
        if server.name == "dead":
            raise AnswerError("does not start")
        yield FakeTrial(server.name, load)

    monkeypatch.setattr(comparing, "trial", started_trial)
    names = "few", "weak", "dead", "good"
    servers = [Server(name, [], most=1 if name == "few" else 50) for name in names]
    found = measure_all(servers, FIXED, [A, B], 2, 0.5)
    assert turns == [
        *[("few", A), ("weak", A), ("good", A)] * 2,
        *[("weak", B), ("good", B)] * 2,
    ]
    reasons = {("dead", A): "does not start", ("dead", B): "does not start"}
    assert found.failures == {**reasons, ("weak", B): "too much"}
    assert set(found.samples) == {("few", A), ("weak", A), ("good", A), ("good", B)}
    assert found.samples["good", B].turns == [2]


def test_recording_replaces_what_stands_between_two_comments(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text("a\n<!-- x -->\nold\n<!-- end of x -->\nb\n")
    for text in "new \\1", "newer":
        record(page, "x", text)
        expected = f"a\n<!-- x -->\n\n{text}\n\n<!-- end of x -->\nb\n"
        assert page.read_text() == expected
    with pytest.raises(ValueError, match="y"):
        record(page, "y", "text")
    assert page.read_text() == expected


# -- the programs


@pytest.fixture(autouse=True)
def sigterm_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_run_measures_prints_and_records(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "README.md"
    page.write_bytes(comparing.README.read_bytes())
    monkeypatch.setattr(comparing, "README", page)
    monkeypatch.setattr(comparing, "QUICK", [Load(1, 1)])
    monkeypatch.setattr(comparing, "SECONDS", 0.1)
    names = "reactor", "asyncio streams"
    options = "--quick", "--record", "--rounds", 2
    run_main(lines, monkeypatch, *options, "--only", *names)
    printed = capsys.readouterr().out.strip()
    assert re.search(r"(?m)^\| reactor \| \d+\.\d \(\d+\.\d\dx\) \|$", printed)
    assert re.search(r"(?m)^\* reactor / asyncio streams, depth 1: ", printed)
    assert "2 turns of 0.1 s for each figure" in printed
    assert "trio |" not in printed
    assert f"<!-- lines -->\n\n{printed}\n\n<!-- end of lines -->" in page.read_text()


def test_what_is_missing_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    servers = [Server("a", [], ["no_such_module", "sys"])]
    monkeypatch.setattr(lines, "SERVERS", servers)
    with pytest.raises(SystemExit, match="nothing is left"):
        run_main(lines, monkeypatch)
    assert capsys.readouterr().out == "not measured: a, needs no_such_module\n"


def test_too_few_descriptors_are_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(comparing, "can_open", lambda connections: connections < 2)
    monkeypatch.setattr(lines, "LOADS", [B])
    with pytest.raises(SystemExit, match="nothing is left"):
        run_main(lines, monkeypatch)
    expected = "not measured: 50 x 16, the system allows too few descriptors\n"
    assert expected in capsys.readouterr().out


def test_descriptors_are_raised_as_far_as_may_be() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert comparing.can_open(500)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 500
        assert comparing.can_open(1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 500
        assert not comparing.can_open(1 << 40)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("module", [lines, http_servers])
def test_an_unknown_server_is_named(module: Any, complaint: Callable[..., str]) -> None:
    assert "'nobody'" in complaint(module, "--only", "nobody")
    assert "at least 1, not 0" in complaint(module, "--rounds", "0")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_and_its_servers_without_a_chorus(
    number: int, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, lines.__file__, "--only", "asyncio streams"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        start_new_session=True,  # a terminal of its own, as it were
    ) as run:
        process = psutil.Process(run.pid)
        until = time.monotonic() + LIMIT
        servers: list[psutil.Process] = []
        # A client connects when the server has started; between two, there is none.
        while not (servers and process.net_connections("tcp")):
            assert time.monotonic() < until
            time.sleep(0.01)
            servers = process.children()
        assert len(servers) == 1
        assert os.getpgid(servers[0].pid) != os.getpgid(run.pid)
        os.killpg(run.pid, number)
        _, err = run.communicate(timeout=LIMIT)
    assert err.count("Traceback") == 1
    assert err.endswith("KeyboardInterrupt\n")
    assert psutil.wait_procs(servers, timeout=LIMIT)[1] == []


# -- what the page and the requirements say


@pytest.mark.parametrize("name", ["lines", "http"])
def test_page_has_a_place_for_the_tables(name: str) -> None:
    page = comparing.README.read_text("utf-8")
    assert page.count(f"<!-- {name} -->\n") == 1
    assert page.count(f"<!-- end of {name} -->\n") == 1


def test_links_of_the_page_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", comparing.README.read_text("utf-8")):
        assert (comparing.README.parent / target).exists(), target


def test_every_peer_is_required_with_a_minimum_and_a_reason() -> None:
    text = (comparing.README.parent / "requirements.txt").read_text("utf-8")
    required = [line for line in text.splitlines() if line and line[0] != "#"]
    assert all("# " in line for line in required)
    found = [Requirement(line.partition("#")[0]) for line in required]
    assert all(one.specifier for one in found)
    needed = {
        name
        for server in [*lines.SERVERS, *http_servers.SERVERS]
        for name in server.needs
    }
    assert {one.name for one in found} == needed | {"psutil"}
