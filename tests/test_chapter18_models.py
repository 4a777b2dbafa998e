"""Chapter 18, the other models: the parts a reader would copy."""

import errno
import os
import random
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractContextManager,
    ExitStack,
    closing,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from itertools import count, pairwise
from multiprocessing.connection import wait as wait_for
from types import ModuleType
from typing import Any

import blocking_server as blocking
import example07_calculator_on_the_reactor as calculator
import example08_thread_per_connection as threads
import example09_thread_pool as pool
import example10_preforked as preforked
import example11_asyncio_streams as streams
import psutil
import pytest
from example02_calculator import GREETING, Calculator
from example07_calculator_on_the_reactor import HOST, Server, listen
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from reactor import Limits, RefusedError
from serving import (
    LIMIT,
    all_of,
    complaints,
    needs_posix_signals,
    refuses_bad_ports,
    served,
)

BUSY = b"error: the server is busy\n"
SHORT = 0.1  # seconds

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
needs_reuse_port = pytest.mark.skipif(
    not hasattr(socket, "SO_REUSEPORT"), reason="needs SO_REUSEPORT"
)


@dataclass(frozen=True, slots=True)
class Served:
    """A server at work."""

    port: int
    stop: Callable[[], None]

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), LIMIT)

    def talk(self, data: bytes) -> bytes:
        """Send it and no more; return all that comes, without the greeting."""
        with self.connect() as client:
            client.sendall(data)
            client.shutdown(socket.SHUT_WR)
            return all_of(client).removeprefix(GREETING)

    def answers(self) -> bool:
        return self.talk(b"1,2\n") == b"3\n"

    def talks(self) -> bool:
        """Like `answers`, but it may be refused, or reset."""
        with suppress(ConnectionError), self.connect() as client:
            client.sendall(b"1,2\nquit\n")
            return all_of(client) == GREETING + b"3\ngoodbye\n"
        return False

    def listens(self) -> bool:
        """Tell whether it takes new clients, when it stops."""
        try:
            with self.connect() as client:
                # Who comes while Linux closes the listener may be reset at its next
                # packet only.
                with suppress(OSError):  # it is reset already
                    client.shutdown(socket.SHUT_WR)
                assert all_of(client) in (GREETING, b"")
        except ConnectionError:
            return False
        return True

    def until(self, condition: Callable[[dict[str, int]], bool]) -> None:
        """Ask for the statistics, which count that client, too, until they are so."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            with suppress(OSError):  # it is refused, too early, and its socket closed
                received = self.talk(b"stats\n")
                words = received.decode().replace(",", "").split()
                if received not in (BUSY, b"") and condition(
                    {name: int(n) for name, n in zip(*[iter(words)] * 2, strict=True)}
                ):
                    return
        pytest.fail("the statistics have not become so")


Model = Callable[[Limits], AbstractContextManager[Served]]


def tight_listener() -> socket.socket:
    """Return a listener whose clients stall a server soon if they do not read."""
    listener = listen()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # is inherited
    return listener


@contextmanager
def with_threads(limits: Limits) -> Iterator[Served]:
    server = threads.ThreadPerConnection(tight_listener(), limits)
    with no_thread_is_left(), threads.serving(server) as number:
        yield Served(number, server.stop)


@contextmanager
def with_pool(limits: Limits) -> Iterator[Served]:
    server = pool.ThreadPool(tight_listener(), 12, limits=limits)
    with no_thread_is_left(), threads.serving(server) as number:
        yield Served(number, server.stop)


@contextmanager
def with_process(limits: Limits) -> Iterator[Served]:
    with preforked.Supervisor(0, 1, limits) as supervisor:
        supervisor.start()
        yield Served(supervisor.port, supervisor.dismiss)
    assert supervisor.statuses == [0]


@contextmanager
def with_streams(limits: Limits) -> Iterator[Served]:
    server = streams.StreamServer(tight_listener(), limits)
    with no_thread_is_left(), threads.serving(server) as number:
        yield Served(number, server.stop)


MODELS = [
    pytest.param(with_threads, id="threads"),
    pytest.param(with_pool, id="pool"),
    pytest.param(with_process, id="preforked", marks=needs_reuse_port),
    pytest.param(with_streams, id="streams"),
]
SCRIPTS = [
    pytest.param(threads, id="threads"),
    pytest.param(pool, id="pool"),
    pytest.param(preforked, id="preforked", marks=needs_reuse_port),
    pytest.param(streams, id="streams"),
]
SERVERS = [pytest.param(calculator, id="reactor"), *SCRIPTS]
each_model = pytest.mark.parametrize("model", MODELS)
# Those that have limits of their own; the tests of the reactor see to its.
each_limited = pytest.mark.parametrize(
    "model", [one for one in MODELS if one.id != "preforked"]
)


@pytest.fixture(scope="module", params=MODELS)
def server(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Give a server for all tests that do not change it."""
    with request.param(Limits()) as running:
        yield running


def reset(client: socket.socket) -> None:
    """Close a connection so that the other side is told that it is reset."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def until_reset(client: socket.socket, data: bytes) -> None:
    """Send it again and again, until the server has closed the connection."""
    with suppress(ConnectionError):
        while True:
            client.sendall(data)


def lines_of(client: socket.socket, n: int) -> bytes:
    """Return so many lines, and nothing that comes after them."""
    received = b""
    while received.count(b"\n") < n:
        data = client.recv(1)
        assert data, received
        received += data
    return received


# -- the protocol


LINES = [
    b"1,2",
    b" 3 , -4\r",
    b"product",
    b"6,7",
    b"",
    b"\0",
    b"\xff\xfe",
    b"1,,2",
    b"1_000",
    b"9" * 1001,
    b",".join([b"9" * 800] * 5),
    b"sum",
    b"8",
]


def test_lines_are_answered_in_order(server: Served) -> None:
    data = b"".join(line + b"\n" for line in LINES)
    assert server.talk(data) == Calculator().answers(LINES)


def test_quit_ends_the_conversation(server: Served) -> None:
    with server.connect() as client:
        client.sendall(b"1\nquit\n2\n")
        assert all_of(client) == GREETING + b"1\ngoodbye\n"


def test_a_line_may_come_byte_by_byte(server: Served) -> None:
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        for byte in b"12,30\n":
            client.sendall(bytes([byte]))
        assert lines_of(client, 2) == GREETING + b"42\n"


@settings(max_examples=20)
@given(st.lists(st.integers(0, 60), max_size=5), st.randoms(use_true_random=False))
def test_answers_do_not_depend_on_how_the_stream_is_cut(
    server: Served, places: list[int], generator: random.Random
) -> None:
    lines = [b"%d,%d" % (generator.randrange(99), n) for n in range(10)]
    data = b"\n".join([*lines, b""])
    ends = sorted({0, *places, len(data)})
    with server.connect() as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        for start, end in pairwise(ends):
            client.sendall(data[start:end])
            if data[:end].endswith(b"\n"):
                assert server.answers()  # so that this portion is read by itself
        client.shutdown(socket.SHUT_WR)
        assert all_of(client) == GREETING + Calculator().answers(lines)


def test_what_is_half_closed_is_answered(server: Served) -> None:
    assert server.talk(b"1,2\n") == b"3\n"
    assert server.talk(b"") == b""
    assert server.talk(b"1,2\n3") == b"3\nerror: the last line has no end\n"


def test_a_line_of_4096_bytes_is_not_too_long(server: Served) -> None:
    words = b",".join([b"1"] * 2048)
    longest = words + b" " * (4096 - len(words))
    assert server.talk(longest + b"\n") == b"2048\n"
    refusal = b"error: a line of more than 4096 bytes\n"
    assert server.talk(b"1\n" + longest + b" \n2\n") == b"1\n" + refusal
    assert server.talk(longest * 50) == refusal


def test_who_is_refused_is_not_reset_while_it_still_sends(server: Served) -> None:
    with server.connect() as client:
        client.sendall(b"1" * 9000)
        refusal = b"error: a line of more than 4096 bytes\n"
        assert all_of(client) == GREETING + refusal
        for _ in range(3):
            client.sendall(b"1" * 1000)
            assert server.answers()


def test_garbage_is_answered_and_harms_nobody(server: Served) -> None:
    generator = random.Random(18)
    lines = [generator.randbytes(generator.randrange(40)) for _ in range(300)]
    lines = [line.replace(b"\n", b"") for line in lines]
    assert server.talk(b"\n".join([*lines, b""])) == Calculator().answers(lines)
    for _ in range(20):
        with server.connect() as client:
            client.sendall(generator.randbytes(generator.randrange(200)))
    assert server.answers()


@pytest.mark.parametrize("sent", [b"", b"1,", b"1,2\n", b"1,2\n" * 900, b"1" * 9000])
def test_a_reset_ends_one_session_alone(server: Served, sent: bytes) -> None:
    with server.connect() as innocent:
        lines_of(innocent, 1)
        for _ in range(3):
            client = server.connect()
            client.sendall(sent)
            reset(client)
        innocent.sendall(b"1,2\n")
        assert lines_of(innocent, 1) == b"3\n"
    assert server.answers()


# -- limits and deadlines


@each_limited
def test_who_says_nothing_is_told_so(model: Model) -> None:
    with model(Limits(idle=SHORT, tick=SHORT / 4)) as server:
        with server.connect() as client:
            assert all_of(client) == GREETING + b"error: nothing has come\n"
        server.until(lambda figures: figures["too_slow"] == 1)


@each_limited
def test_a_request_has_a_deadline_however_often_a_byte_comes(model: Model) -> None:
    with model(Limits(request=SHORT, tick=SHORT / 4)) as server:
        with threads.Caller(server.port) as caller:
            assert caller.line() == "calculator: sum"
            assert caller.ask("1,2") == "3"
            assert threads.trickle(caller) + threads.PAUSE >= SHORT
            assert caller.line() == "error: a request has no end"
        server.until(lambda figures: figures["too_slow"] == 1)


@each_limited
def test_who_is_wrong_is_not_counted_as_slow(model: Model) -> None:
    with model(Limits()) as server:
        assert server.talk(b"1" * 9000).startswith(b"error: a line of more")
        server.until(lambda figures: figures["accepted"] >= 2)
        server.until(lambda figures: figures["too_slow"] == 0)


@each_limited
def test_what_comes_behind_a_whole_request_has_a_deadline_too(model: Model) -> None:
    with model(Limits(request=SHORT, tick=SHORT / 4)) as server:
        with server.connect() as client:
            client.sendall(b"1,2\n3,")
            refusal = b"error: a request has no end\n"
            assert all_of(client) == GREETING + b"3\n" + refusal
        server.until(lambda figures: figures["too_slow"] == 1)


def test_a_server_that_bears_a_trickle_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with with_threads(Limits()) as server, threads.Caller(server.port) as caller:
        assert caller.line() == "calculator: sum"
        with monkeypatch.context() as patch:
            patch.setattr(threads, "PATIENCE", 2 * threads.PAUSE)
            with pytest.raises(SystemExit, match="without end"):
                threads.trickle(caller)


@each_limited
def test_who_does_not_read_is_given_up_and_others_are_served(model: Model) -> None:
    with model(Limits(drain=SHORT, tick=SHORT / 4)) as server:
        deaf = socket.socket()
        with deaf:
            deaf.settimeout(LIMIT)
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.connect((HOST, server.port))
            until_reset(deaf, b"9" * 1000 + b"\n")
        server.until(lambda figures: figures["too_slow"] == 1)


@pytest.mark.parametrize("model", [with_threads, with_pool, with_streams])
def test_small_answers_do_not_wait_for_more(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is Nagle's algorithm, which each connection has to be told to leave."""
    swift = set()
    setsockopt = socket.socket.setsockopt

    def spy(sock: socket.socket, *option: Any) -> None:
        if option == (socket.IPPROTO_TCP, socket.TCP_NODELAY, True):
            swift.add(sock.getpeername())
        setsockopt(sock, *option)

    monkeypatch.setattr(socket.socket, "setsockopt", spy)
    with model(Limits()) as server, server.connect() as client:
        assert lines_of(client, 1) == GREETING
        assert swift == {client.getsockname()}


@pytest.mark.parametrize("model", [with_threads, with_streams])
def test_who_is_too_many_is_told_so_and_may_come_again(model: Model) -> None:
    with model(Limits(connections=2)) as server:
        with server.connect() as one, server.connect() as other:
            assert lines_of(one, 1) == lines_of(other, 1) == GREETING
            for _ in range(3):
                with server.connect() as third:
                    third.sendall(b"1,2\n")
                    assert all_of(third) in (BUSY, b"")  # reset, if that was faster
        deadline = time.monotonic() + LIMIT
        while not server.talks():
            assert time.monotonic() < deadline
        server.until(lambda figures: figures["open"] == 1 and figures["refused"] >= 3)


@each_limited
def test_who_does_not_close_its_side_is_not_waited_for_for_ever(model: Model) -> None:
    limits = Limits(linger=SHORT, tick=SHORT / 4)
    with model(limits) as server, server.connect() as client:
        client.sendall(b"quit\n")
        assert all_of(client) == GREETING + b"goodbye\n"
        server.until(lambda figures: figures["open"] == 1)
        until_reset(client, b"1\n")


def test_a_session_that_fails_is_logged_and_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(calculator: Calculator, line: bytes) -> bytes:
        if line == b"fail":
            raise ArithmeticError("as it was meant to")
        return answer(calculator, line)

    answer = Calculator.answer
    monkeypatch.setattr(Calculator, "answer", fail)
    for model in with_threads, with_pool, with_streams:
        caplog.clear()
        with model(Limits()) as server:
            assert server.talk(b"fail\n") == b""
            server.until(lambda figures: figures["failed"] == 1)
            assert "as it was meant to" in caplog.text


@needs_linux
@pytest.mark.parametrize("module", [threads, pool, streams])
def test_without_descriptors_it_neither_spins_nor_ends(module: ModuleType) -> None:
    import resource

    with served(module) as (process, number):
        server = Served(number, process.terminate)
        assert server.answers()
        own = psutil.Process(process.pid)
        few = own.num_fds() + 8
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (few, few))
        clients = [server.connect() for _ in range(30)]
        try:
            before = own.cpu_times()
            assert any(client.recv(100) == GREETING for client in clients[:8])
            assert all_of(clients[-1]) == BUSY
            with suppress(subprocess.TimeoutExpired):
                process.wait(0.3)
            after = own.cpu_times()
            assert after.user + after.system - before.user - before.system < 0.2
        finally:
            for client in clients:
                client.close()
        deadline = time.monotonic() + LIMIT
        while not server.talks():
            assert time.monotonic() < deadline


# -- the end


@each_model
def test_a_stop_ends_the_idle_and_what_has_begun_may_be_finished(model: Model) -> None:
    with (
        model(Limits(stop=LIMIT)) as server,
        server.connect() as idle,
        server.connect() as one,
        server.connect() as two,
    ):
        for client in idle, one, two:
            assert lines_of(client, 1) == GREETING
        one.sendall(b"1,2\n3,")
        assert lines_of(one, 1) == b"3\n"
        two.sendall(b"1,2\n" * 50)
        server.stop()
        assert all_of(idle) == b""
        assert all_of(two) == b"3\n" * 50
        while server.listens():
            pass
        one.sendall(b"4\n")
        assert all_of(one) == b"7\n"


@each_model
def test_what_is_not_finished_is_given_up_some_time_after_the_stop(
    model: Model,
) -> None:
    limits = Limits(stop=SHORT, tick=SHORT / 4)
    with model(limits) as server, server.connect() as client:
        client.sendall(b"1,2\n3,")
        assert lines_of(client, 2) == GREETING + b"3\n"
        server.stop()
        assert all_of(client) in (b"error: a request has no end\n", b"")


@each_model
def test_under_load_each_request_is_answered_or_none_of_its_batch(model: Model) -> None:
    all_at_work = threading.Barrier(7)
    batch = b"".join(b"%d,1\n" % n for n in range(10))
    answers = b"".join(b"%d\n" % (n + 1) for n in range(10))

    def ask(server: Served) -> int:
        with server.connect() as client:
            assert lines_of(client, 1) == GREETING
            received, n = b"", 0
            with client.makefile("rb") as stream:
                while True:
                    if n == 3:
                        all_at_work.wait(LIMIT)
                    client.sendall(batch)
                    received = stream.read(len(answers))
                    if received != answers:
                        assert received == b""
                        return n
                    n += 1

    with model(Limits()) as server, ThreadPoolExecutor(6) as clients:
        futures = [clients.submit(ask, server) for _ in range(6)]
        all_at_work.wait(LIMIT)
        server.stop()
        assert all(future.result(LIMIT) >= 3 for future in futures)


@each_model
def test_a_server_may_be_stopped_before_it_runs_and_after(model: Model) -> None:
    with model(Limits()) as server:
        server.stop()
        server.stop()
    with suppress(OSError):  # the pipe of a process is closed by then
        server.stop()


@needs_posix_signals
@pytest.mark.parametrize(
    ("module", "number"),
    [
        (threads, signal.SIGINT),
        (pool, signal.SIGTERM),
        (streams, signal.SIGINT),
        pytest.param(preforked, signal.SIGINT, marks=needs_reuse_port),
        pytest.param(preforked, signal.SIGTERM, marks=needs_reuse_port),
    ],
)
def test_a_signal_ends_the_script_in_order(module: ModuleType, number: int) -> None:
    with served(module) as (process, port):
        server = Served(port, process.terminate)
        with server.connect() as idle, server.connect() as begun:
            begun.sendall(b"1,2\n3,")
            assert lines_of(idle, 1) == GREETING
            assert lines_of(begun, 2) == GREETING + b"3\n"
            process.send_signal(number)
            assert all_of(idle) == b""
            begun.sendall(b"4\n")
            assert all_of(begun) == b"7\n"
        out, err = process.communicate(timeout=LIMIT)
        assert (process.returncode, complaints(err)) == (0, "")
        assert out.count(b"\n") == 1


@pytest.mark.parametrize(
    "kind",
    [
        lambda listener: blocking.OneAtATime(listener, Limits()),
        threads.ThreadPerConnection,
        lambda listener: pool.ThreadPool(listener, 2),
        streams.StreamServer,
    ],
    ids=["one", "threads", "pool", "streams"],
)
def test_who_waits_in_the_backlog_at_the_stop_is_answered(
    kind: Callable[[socket.socket], Server],
) -> None:
    listener = listen()
    server = kind(listener)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(
                socket.create_connection(listener.getsockname()[:2], LIMIT)
            )
            for _ in range(3)
        ]
        for client in clients:
            client.sendall(b"1,2\n")
        server.stop()
        with no_thread_is_left(), threads.serving(server):
            for client in clients:
                assert all_of(client) == GREETING + b"3\n"
                client.close()


@needs_posix_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", SERVERS)
def test_a_second_signal_does_not_wait_for_what_has_begun(
    module: ModuleType, number: signal.Signals
) -> None:
    with served(module) as (process, port):
        workers = psutil.Process(process.pid).children(recursive=True)
        server = Served(port, process.terminate)
        with server.connect() as client:
            client.sendall(b"1,2\n3,")
            assert lines_of(client, 2) == GREETING + b"3\n"
            process.send_signal(number)
            while server.listens():
                pass
            time.sleep(calculator.INSTANT)  # or it would belong to the first
            process.send_signal(number)
            process.send_signal(number)
            out, err = process.communicate(timeout=LIMIT)
        assert (process.returncode, out, complaints(err)) == (128 + number, b"", "")
        all_end(workers)


@needs_posix_signals
@pytest.mark.parametrize("module", SERVERS)
def test_two_signals_at_once_are_one(module: ModuleType) -> None:
    with served(module) as (process, port):
        with Served(port, process.terminate).connect() as client:
            client.sendall(b"1,2\n3,")
            assert lines_of(client, 2) == GREETING + b"3\n"
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            client.sendall(b"4\n")
            assert all_of(client) == b"7\n"
        out, err = process.communicate(timeout=LIMIT)
        assert (process.returncode, complaints(err)) == (0, "")
        assert out.count(b"\n") == 1


@pytest.mark.parametrize("module", SCRIPTS)
def test_a_bad_port_is_named(
    module: ModuleType,
    complaint: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refuses_bad_ports(module, complaint, monkeypatch)


# -- blocking_server


def test_a_stop_wakes_who_waits_for_a_socket() -> None:
    stop = blocking.Stop(LIMIT)
    ours, theirs = socket.socketpair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        later = time.monotonic() + LIMIT
        idle = pool.submit(stop.ready, ours, selectors.EVENT_READ, later, idle=True)
        stop.set()
        assert idle.result(LIMIT) is False
        assert stop.is_set()
        assert not stop.over()
        begun = pool.submit(stop.ready, ours, selectors.EVENT_READ, later)
        theirs.sendall(b"!")
        assert begun.result(LIMIT)
        assert stop.ready(ours, selectors.EVENT_READ, later, idle=True)
        stop.close()
        stop.set()


def test_a_wait_goes_on_when_the_stop_comes_and_ends_with_the_grace() -> None:
    stop = blocking.Stop(SHORT)
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(stop), ThreadPoolExecutor(1) as pool:
        later = time.monotonic() + LIMIT
        begun = pool.submit(stop.ready, ours, selectors.EVENT_READ, later)
        stop.set()
        assert begun.result(LIMIT) is False
        assert stop.over()
        theirs.sendall(b"!")
        assert not stop.ready(ours, selectors.EVENT_READ, later)


def test_what_is_always_ready_is_not_past_its_deadline() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(blocking.Stop(LIMIT)) as stop:
        theirs.sendall(b"!")
        assert stop.ready(ours, selectors.EVENT_READ, time.monotonic() + LIMIT)
        assert not stop.ready(ours, selectors.EVENT_READ, time.monotonic())


def test_a_wait_that_ends_too_early_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Selectors of some systems measure time more finely than `time.monotonic`."""

    class Hasty(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> list[Any]:
            return [] if next(calls) < 3 else super().select(timeout)

    calls = count(0)
    monkeypatch.setattr(blocking, "Selector", Hasty)
    ours, theirs = socket.socketpair()
    with ours, theirs, closing(blocking.Stop(LIMIT)) as stop:
        theirs.sendall(b"!")
        later = time.monotonic() + LIMIT
        assert stop.ready(ours, selectors.EVENT_READ, later, idle=True)


class FullListener:
    """A listener that has no descriptor, or no client, or one, as told."""

    def __init__(self, *steps: OSError | socket.socket) -> None:
        self._steps = iter(steps)

    def accept(self) -> tuple[socket.socket, None]:
        step = next(self._steps)
        if isinstance(step, OSError):
            raise step
        return step, None

    def close(self) -> None:
        pass


WSAEMFILE = 10024  # what Windows says instead of EMFILE


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, WSAEMFILE])
def test_who_gets_no_descriptor_is_told_whatever_the_system_calls_it(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    lack = OSError(number, "none left")
    ours, theirs = socket.socketpair()
    server = blocking.OneAtATime(listen(), Limits())
    pauses: list[float] = []
    with theirs, closing(server._listener):
        listener = FullListener(lack, ours, lack, lack, lack, BlockingIOError())
        monkeypatch.setattr(server, "_listener", listener)
        monkeypatch.setattr(time, "sleep", pauses.append)
        assert server._accept() is None
        assert all_of(theirs) == BUSY
        assert pauses == []
        assert server._accept() is None  # the spare one has not helped
        assert pauses == [server.limits.tick]
        with pytest.raises(BlockingIOError):
            server._accept()
        assert server._spare.fileno() >= 0
    server._spare.close()
    server._stop.close()


def test_who_has_gone_before_it_is_accepted_is_no_reason_to_pause() -> None:
    server = blocking.OneAtATime(listen(), Limits())
    with closing(server._listener), pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "_listener", FullListener(ConnectionAbortedError()))
        spare = server._spare.fileno()
        assert server._accept() is None
        assert server._spare.fileno() == spare
    server._spare.close()
    server._stop.close()


def test_who_says_nothing_does_not_keep_the_next_out() -> None:
    server = blocking.OneAtATime(listen(), Limits(idle=SHORT))
    with no_thread_is_left(), threads.serving(server) as number:
        running = Served(number, server.stop)
        with running.connect() as one, running.connect() as other:
            other.sendall(b"1,2\n")
            assert all_of(one) == GREETING + b"error: nothing has come\n"
            one.close()
            assert lines_of(other, 2) == GREETING + b"3\n"


# -- example08


def test_a_server_that_does_not_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "PATIENCE", SHORT)
    ends, runners = threading.Event(), list[threading.Thread]()

    class Endless:
        port = 0

        def run(self) -> None:
            runners.append(threading.current_thread())
            ends.wait(LIMIT)

        def stop(self) -> None:
            pass

        def summary(self) -> bytes:
            return b""

    with no_thread_is_left():
        with pytest.raises(SystemExit, match="was to end"), threads.serving(Endless()):
            pass
        ends.set()
        runners[0].join(LIMIT)


def test_a_thread_that_cannot_be_started_is_a_refusal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with with_threads(Limits()) as server:
        assert server.answers()
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fails)
            with server.connect() as client:
                assert all_of(client) == BUSY
        assert server.answers()


def fails(*_: object) -> None:
    raise RuntimeError("as it was meant to")


# -- example09


def until_one_waits(server: pool.ThreadPool) -> None:
    """Wait for a client in the queue: it may be connected before it has come there."""
    deadline = time.monotonic() + LIMIT
    while server._queue.empty():
        assert time.monotonic() < deadline
        time.sleep(0)


def test_who_finds_no_thread_waits_and_who_finds_no_place_is_refused() -> None:
    server = pool.ThreadPool(listen(), 1, waiting=1)
    with no_thread_is_left(), threads.serving(server) as number:
        running = Served(number, server.stop)
        with running.connect() as one:
            assert lines_of(one, 1) == GREETING
            with running.connect() as other:
                with running.connect() as third:
                    assert all_of(third) == BUSY
                other.sendall(b"1,2\n")
                one.sendall(b"quit\n")
                assert all_of(one) == b"goodbye\n"
                one.close()
                assert lines_of(other, 2) == GREETING + b"3\n"


def test_nothing_is_left_of_a_pool_whose_threads_cannot_all_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = listen()
    server = pool.ThreadPool(listener, 3)
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def start_two(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start_two)
    with no_thread_is_left():
        with pytest.raises(RuntimeError, match="new thread"):
            server.run()
        for thread in started:
            thread.join(LIMIT)
    assert listener.fileno() == server._spare.fileno() == -1
    assert server._stop.is_set()
    server._stop.close()


def test_who_still_waits_when_the_server_stops_is_answered() -> None:
    server = pool.ThreadPool(listen(), 1)
    with no_thread_is_left(), threads.serving(server) as number:
        running = Served(number, server.stop)
        with running.connect() as one, running.connect() as other:
            assert lines_of(one, 1) == GREETING
            other.sendall(b"1,2\n3,4\n")
            until_one_waits(server)
            server.stop()
            assert all_of(one) == b""
            one.close()
            assert all_of(other) == GREETING + b"3\n7\n"


def test_who_still_waits_when_all_is_given_up_is_refused() -> None:
    server = pool.ThreadPool(listen(), 1, limits=Limits(stop=SHORT))
    with no_thread_is_left(), threads.serving(server) as number:
        running = Served(number, server.stop)
        with running.connect() as one, running.connect() as other:
            one.sendall(b"1,")
            assert lines_of(one, 1) == GREETING
            until_one_waits(server)
            server.stop()
            assert all_of(one) in (b"", b"error: a request has no end\n")
            assert all_of(other) == BUSY


@pytest.mark.parametrize(("n_threads", "waiting"), [(0, 1), (1, 0), (1, -1)])
def test_a_pool_has_threads_and_a_bound(n_threads: int, waiting: int) -> None:
    with listen() as listener, pytest.raises(ValueError, match="threads and"):
        pool.ThreadPool(listener, n_threads, waiting)


@pytest.mark.parametrize("n", ["0", "101", "many"])
def test_the_number_of_threads_has_its_limits(
    complaint: Callable[..., str], n: str
) -> None:
    assert "--threads" in complaint(pool, "--threads", n)


# -- example10


def is_at_work(process: psutil.Process) -> bool:
    """Tell whether a process has not ended; its parent need not have noticed."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def all_end(processes: list[psutil.Process]) -> None:
    """Wait for their end; multiprocessing's own helpers notice that of their parent."""
    deadline = time.monotonic() + LIMIT
    while any(map(is_at_work, processes)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def die(*_: object) -> None:
    os._exit(1)


@needs_reuse_port
def test_processes_that_die_at_once_are_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preforked, "serve_until_told", die)
    monkeypatch.setattr(preforked, "DEATHS", 2)
    monkeypatch.setattr(preforked, "WINDOW", 1000.0)  # starting may take long
    with preforked.Supervisor(0, 2) as supervisor:
        supervisor.start()
        with pytest.raises(preforked.DyingError, match=r"\A[56] deaths within"):
            supervisor.run()
    assert supervisor.replaced in (5, 6)


@needs_reuse_port
def test_deaths_of_long_ago_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preforked, "serve_until_told", die)
    monkeypatch.setattr(preforked, "DEATHS", 1)
    monkeypatch.setattr(preforked, "WINDOW", 0.0)
    with preforked.Supervisor(0, 1) as supervisor:
        supervisor.start()
        assert [supervisor.turn(LIMIT) for _ in range(5)] == [1] * 5


@needs_reuse_port
def test_a_process_that_is_terminated_finishes_its_work_and_is_replaced() -> None:
    with preforked.Supervisor(0, 1) as supervisor:
        supervisor.start()
        (pid,) = supervisor.pids
        assert pid is not None
        server = Served(supervisor.port, supervisor.dismiss)
        with server.connect() as client:
            client.sendall(b"1,2\n3,")
            assert lines_of(client, 2) == GREETING + b"3\n"
            os.kill(pid, signal.SIGTERM)
            client.sendall(b"4\n")
            assert all_of(client) == b"7\n"
        assert supervisor.turn(LIMIT) == 1
        assert supervisor.pids.isdisjoint({pid})
        assert server.answers()


@needs_reuse_port
def test_a_signal_may_come_when_the_supervisor_is_closed() -> None:
    with preforked.Supervisor(0, 1) as supervisor:
        pass
    supervisor.stop()


@needs_reuse_port
def test_a_signal_to_a_child_that_was_just_forked_does_not_stop_the_supervisor(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with preforked.Supervisor(0, 1) as supervisor:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 0)
            supervisor.stop()
        assert not wait_for([supervisor._stopped], 0)
        supervisor.stop()
        supervisor.run()


@needs_reuse_port
def test_who_dies_after_the_stop_is_not_replaced() -> None:
    with preforked.Supervisor(0, 1) as supervisor:
        supervisor.start()
        (pid,) = supervisor.pids
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(list(supervisor._workers), LIMIT)
        supervisor.stop()
        assert supervisor.turn(LIMIT) == 1
        assert supervisor.pids == set()


@needs_reuse_port
def test_a_process_has_the_time_that_its_limits_give_it() -> None:
    """Its client never ends its line, nor the connection."""
    limits = Limits(stop=SHORT, linger=5 * SHORT, tick=SHORT)
    with socket.socket() as client:
        with preforked.Supervisor(0, 1, limits) as supervisor:
            supervisor.start()
            client.settimeout(LIMIT)
            client.connect((HOST, supervisor.port))
            client.sendall(b"1,2\n3,")
            assert lines_of(client, 2) == GREETING + b"3\n"
        assert supervisor.statuses == [0]
        assert all_of(client) == b"error: a request has no end\n"


@needs_reuse_port
def test_processes_whose_supervisor_is_killed_end_by_themselves() -> None:
    with served(preforked) as (process, port):
        workers = psutil.Process(process.pid).children(recursive=True)
        assert len(workers) >= 2
        process.kill()
        all_end(workers)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((HOST, port), LIMIT)


@pytest.mark.parametrize("n", ["1", "33", "many"])
def test_the_number_of_processes_has_its_limits(
    complaint: Callable[..., str], n: str
) -> None:
    assert "--workers" in complaint(preforked, "--workers", n)


# -- what the scripts claim


class HastyCaller(threads.Caller):
    """One that does not wait long for what will not come."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._socket.settimeout(0.3)


def never_refuse(self: Any, sock: socket.socket) -> None:
    sock.close()


def without(missed: int, stop: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a `stop` that misses the one that the script shows, by its number."""
    calls = count(1)

    def miss_one(self: Any) -> None:
        if next(calls) != missed:
            stop(self)

    return miss_one


class ComplainingClient(blocking.Client):
    """One that is told of the stop as if that were its fault."""

    def lines(self) -> list[bytes]:
        if lines := super().lines():
            return lines
        raise RefusedError("the end")


@pytest.mark.parametrize(
    ("owner", "name", "instead", "claim"),
    [
        (blocking, "SHORT", 30.0, "broke off"),
        (
            blocking.OneAtATime,
            "stop",
            without(1, blocking.OneAtATime.stop),
            "broke off",
        ),
        (blocking.Stop, "over", blocking.Stop.is_set, "broke off"),
        (blocking.OneAtATime, "serve", blocking.OneAtATime.refuse, "the deadline was"),
        (blocking, "Client", ComplainingClient, "the stop was"),
    ],
)
def test_a_broken_server_of_one_at_a_time_is_told(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, instead: Any, claim: str
) -> None:
    if claim == "broke off":
        monkeypatch.setattr(blocking, "PATIENCE", 0.3)
    monkeypatch.setattr(owner, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=claim):
        run_main(blocking, monkeypatch)


@pytest.mark.parametrize(
    ("owner", "name", "instead", "claim"),
    [
        (threads, "SHORT", 30.0, "no line for"),
        (
            threads.ThreadPerConnection,
            "stop",
            without(2, threads.ThreadPerConnection.stop),
            "no line for",
        ),
        (threads.ThreadPerConnection, "refuse", never_refuse, "a third refused"),
    ],
)
def test_a_broken_thread_server_is_told(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, instead: Any, claim: str
) -> None:
    if claim == "no line for":
        monkeypatch.setattr(threads, "Caller", HastyCaller)
        monkeypatch.setattr(threads, "trickle", lambda caller: 0.0)
    monkeypatch.setattr(owner, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=claim):
        run_main(threads, monkeypatch)


def thread_for_each(
    listener: socket.socket, n: int, waiting: int, limits: Limits = threads.LIMITS
) -> threads.ThreadPerConnection:
    return threads.ThreadPerConnection(listener, limits)


@pytest.mark.parametrize(
    ("owner", "name", "instead", "claim"),
    [
        (pool, "SHORT", 30.0, "no line for"),
        (pool, "ThreadPool", thread_for_each, "the silent were to keep all threads"),
        (pool.ThreadPool, "refuse", never_refuse, "the silent were to keep all"),
    ],
)
def test_a_broken_pool_is_told(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, instead: Any, claim: str
) -> None:
    if claim == "no line for":
        monkeypatch.setattr(pool, "Caller", HastyCaller)
    monkeypatch.setattr(owner, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=claim):
        run_main(pool, monkeypatch)


def look_away(self: preforked.Supervisor, timeout: float) -> int:
    return 0


@needs_reuse_port
@pytest.mark.parametrize(
    ("name", "instead", "claim"),
    [
        ("turn", look_away, "one process was to die, alone, and be replaced"),
        ("dismiss", lambda self: None, "status 0"),
    ],
)
def test_a_broken_supervisor_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, claim: str
) -> None:
    monkeypatch.setattr(preforked, "LIMITS", Limits(stop=SHORT, tick=SHORT))
    monkeypatch.setattr(preforked.Supervisor, name, instead)
    with pytest.raises(SystemExit, match=claim):
        run_main(preforked, monkeypatch)


@needs_reuse_port
def test_a_system_that_does_not_share_out_connections_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(preforked, "TRIES", 1)
    wanted = iter([True])
    real = preforked.call
    monkeypatch.setattr(
        preforked, "call", lambda number, _: real(number, lambda _: next(wanted, False))
    )
    with pytest.raises(SystemExit) as exit_:
        run_main(preforked, monkeypatch)
    assert exit_.value.code == 77
    assert capsys.readouterr().out.startswith("needs a system")


@pytest.mark.parametrize(
    ("owner", "name", "instead", "claim"),
    [
        (streams, "SHORT", 30.0, "no line for"),
        (
            streams.StreamServer,
            "stop",
            without(2, streams.StreamServer.stop),
            "no line for",
        ),
        (streams, "BUSY", b"no\n", "a fourth refused"),
    ],
)
def test_a_broken_stream_server_is_told(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, instead: Any, claim: str
) -> None:
    if claim == "no line for":
        monkeypatch.setattr(streams, "Caller", HastyCaller)
    monkeypatch.setattr(owner, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=claim):
        run_main(streams, monkeypatch)
