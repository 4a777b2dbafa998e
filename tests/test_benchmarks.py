"""The benchmarks: what measures, what tells it, and the peers.

Figures are not looked at here but where the construction fixes them.
"""

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
from measuring import AnswerError, Crowd, Load, Sample, Server, Talk, sample, started

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


def asked(
    session: Session, load: Load = ONE, seconds: float = 0.2
) -> tuple[float, list[float]]:
    """Return what clients find who ask such a server for so long."""
    with serving(session) as address, Crowd(FIXED, load) as crowd:
        crowd.connect(address, load.depth)
        crowd.ask()
        return crowd.run(seconds)


@pytest.mark.parametrize("depth", [1, 3])
def test_answers_are_counted_and_latencies_are_those_of_whole_batches(
    depth: int,
) -> None:
    whole = b"answer 1\n" * depth
    third = whole[: len(whole) // 3]
    session = answering(*[whole] * 5, third, size=depth * len(FIXED.request))
    # The first answer goes to `connect`.
    answered, latencies = asked(session, Load(2, depth), 0.5)
    assert answered == pytest.approx(2 * depth * (4 + 1 / 3))
    assert len(latencies) == 2 * 4
    assert all(0 < latency < 0.5 for latency in latencies)


def test_latency_is_the_time_from_question_to_answer() -> None:
    def session(sock: socket.socket) -> None:
        while sock.recv(100):
            time.sleep(0.05)
            sock.sendall(b"answer 1\n")

    _, latencies = asked(session, seconds=0.5)
    assert latencies
    assert all(latency > 0.05 for latency in latencies)
    assert sum(latencies) <= 0.6  # one follows the other, until the time is up


@pytest.mark.parametrize(("least", "expected"), [(0, 0), (2, 2), (9, 3)])
def test_a_slow_server_is_given_longer_until_it_has_answered_enough(
    least: int, expected: int
) -> None:
    goes_on = threading.Event()

    def session(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(b"answer 1\n")
        for _ in range(3):
            sock.recv(100)
            goes_on.wait(LIMIT)
            sock.sendall(b"answer 1\n")
        sock.recv(100)  # the next question, and
        sock.recv(100)  # the end

    longer = LIMIT if expected == least else 1.0
    with serving(session) as address, Crowd(FIXED, ONE) as crowd:
        crowd.connect(address)
        crowd.ask()
        assert crowd.run(0.05) == (0, [])
        if least:
            goes_on.set()
        answered, latencies = crowd.run(0, least, longer)
        goes_on.set()
    assert answered == len(latencies) == expected


def test_answers_may_come_byte_by_byte() -> None:
    def session(sock: socket.socket) -> None:
        while sock.recv(100):
            for number in b"answer 1\n":
                sock.sendall(bytes([number]))

    answered, latencies = asked(session)
    assert answered >= len(latencies) > 0


def test_answers_may_change_where_the_pattern_lets_them() -> None:
    session = answering(b"answer 1\n", b"answer 2\n", b"answer 2\n", b"answer 1\n")
    assert asked(session, seconds=0.5)[0] == 3


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
    # 200, but for the ticks of the clock and the requests at both ends.
    assert 100 < found.per_cpu_second < 300
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
    with pytest.raises(AnswerError, match=r"no answer in \d\.\d s"):
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
    for rate in 1000.0, 3000.0, 2000.0:
        found.samples.setdefault(("slow", A), []).append(Sample(rate, 500, 0.25, 1024))
        found.samples.setdefault(("fast", A), []).append(
            Sample(3 * rate, 900, 0.002, 2048)
        )
    found.samples["fast", B] = [Sample(8000, 7000, float("inf"), 0)]
    found.samples["slow", B] = [Sample(1000, 7000, 0.1, 0)]
    found.failures["slow", B] = "no answer"
    return found


def test_the_best_round_ratios_and_what_the_median_lacks() -> None:
    found = results()
    assert found.best("slow", A, "per_cpu_second") == 3000
    assert found.ratio("fast", "slow", A) == 3
    assert found.shortfall("slow", A) == pytest.approx(1 / 3)  # 2000 instead of 3000
    assert found.shortfall("fast", B) is None  # of one round
    assert found.best("slow", B, "p99") is None  # it failed in a later round
    assert found.ratio("fast", "slow", B) is None
    assert found.shortfall("nobody", A) is None
    several = [Sample(1, rate, 1 / rate, rate) for rate in (1.0, 4.0, 2.0)]
    found.samples["slow", Load(2, 1)] = several
    figures = {"per_second": 4, "p99": 0.25, "memory": 2}
    for figure, expected in figures.items():
        assert found.best("slow", Load(2, 1), figure) == expected


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
        "| fast | 9.0 (3.00x) | 8.0 |\n"
        "| slow | 3.0 (1.00x) | – |\n"
        "\n"
        "| the median is less by | 1 x 1 | 50 x 16 |\n"
        "|---|---:|---:|\n"
        "| fast | 33 % | – |\n"
        "| slow | 33 % | – |\n"
        "\n"
        "| 1,000 requests per second | 1 x 1 | 50 x 16 |\n"
        "|---|---:|---:|\n"
        "| fast | 0.9 | 7.0 |\n"
        "| slow | 0.5 | – |\n"
        "\n"
        "| p99 in ms | 1 x 1 | 50 x 16 |\n"
        "|---|---:|---:|\n"
        "| fast | 2.00 | – |\n"
        "| slow | 250.00 | – |\n"
        "\n"
        "* fast / slow, depth 1: 3.00x to 3.00x\n"
        "\n"
        "slow at 50 x 16: no answer"
    )


def test_memory_is_told_where_there_are_many_connections() -> None:
    found = Results()
    few, many, more = Load(500, 1), Load(10_000, 1), Load(10_000, 16)
    found.samples["fast", few] = [Sample(1000, 1, 1, 2048)]
    found.samples["fast", many] = [Sample(800, 1, 1, 1536)]
    found.samples["fast", more] = [Sample(800, 1, 1, 512)]
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

    def measured(server: Server, talk: Talk, load: Load, seconds: float) -> Sample:
        turns.append((server.name, load))
        if server.name == "weak" and load == B:
            raise AnswerError("too much")
        return Sample(len(turns), seconds, 0, 0)

    monkeypatch.setattr(comparing, "sample", measured)
    servers = [Server("few", [], most=1), Server("weak", []), Server("good", [])]
    found = measure_all(servers, FIXED, [A, B], 2, 0.5)
    once = [("few", A), ("weak", A), ("good", A)]
    assert turns == [*once, ("weak", B), ("good", B), *once, ("good", B)]
    assert found.failures == {("weak", B): "too much"}
    assert [one.per_cpu_second for one in found.samples["good", A]] == [3, 8]
    assert ("few", B) not in found.samples


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
    monkeypatch.setattr(comparing, "QUICK_SECONDS", 0.1)
    names = "reactor", "asyncio streams"
    options = "--quick", "--record", "--rounds", 2
    run_main(lines, monkeypatch, *options, "--only", *names)
    printed = capsys.readouterr().out.strip()
    assert re.search(r"(?m)^\| reactor \| \d+\.\d \(\d+\.\d\dx\) \|$", printed)
    assert re.search(r"(?m)^\* reactor / asyncio streams, depth 1: ", printed)
    assert "2 x 0.1 s for each figure" in printed
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
