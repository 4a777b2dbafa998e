"""Measures servers beside each other: their CPU time, answers, latencies, memory.

Each server is a process of its own. The client is this one: many connections in one
thread, in a closed loop. On each connection `depth` requests are sent at once, and the
next ones when all are answered. It checks every byte that comes.

What counts is how many requests a server answers in a second of its *own* CPU time. How
busy the machine is, and how fast the client, matters little to that. All servers that
are compared are up at the same time, and take turns of a fraction of a second, so that
a noisy moment hits all alike.

lines.py and http_servers.py measure with it.
"""

import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

CHAPTER = Path(__file__).resolve().parent.parent / "Chapter18"

HOST = "127.0.0.1"
BACKLOG = 1024
LIMIT = 10.0  # seconds for an answer when nothing else is asked, and for a start
WARM_UP = 0.2  # seconds
TICK = 0.01  # seconds: the CPU time of a process may be told in ticks
LONGER = 10.0  # seconds for what has been asked when a turn is over
PORTION = 1 << 16  # bytes
LARGE = 1 << 20  # bytes: more than asyncio asks for at once

ANNOUNCEMENT = "serving on {} port {} until Ctrl-C"
ANNOUNCED = re.compile(ANNOUNCEMENT.format(re.escape(HOST), r"(\d+)") + r"\s*")


class AnswerError(Exception):
    """A server has not answered as it should; the text says how."""


@dataclass(frozen=True, slots=True)
class Talk:
    """What a client sends and what must come back.

    Attributes:
        greeting: comes before the client has sent anything.
        answer: a pattern of the whole answer to `request`. Answers may differ, as dates
            do, but have the same length.
    """

    request: bytes
    answer: bytes
    greeting: bytes = b""


@dataclass(frozen=True, slots=True)
class Load:
    """So many connections, and so many requests at once on each."""

    connections: int
    depth: int

    def __str__(self) -> str:
        return f"{self.connections:,} x {self.depth}"


@dataclass(frozen=True, slots=True)
class Server:
    """A program to measure. It announces its port as this chapter's servers do.

    Attributes:
        command: what Python is to run.
        needs: modules that must be installed.
        most: connections that it is tried with.
    """

    name: str
    command: Sequence[str]
    needs: Sequence[str] = ()
    most: int = 2000

    def missing(self) -> list[str]:
        """Return the modules that are needed and not installed."""
        return [name for name in self.needs if find_spec(name) is None]


@dataclass(frozen=True, slots=True)
class Sample:
    """What the turns of a server have shown.

    Attributes:
        turns: requests answered in a second of the server's CPU time, in each turn.
        per_cpu_second: the same, in all turns together.
        per_second: requests answered in a second of wall time.
        p99: 99th percentile of the latencies, in seconds, from the sending of `depth`
            requests to the last of their answers.
        memory: bytes by which the server has grown for each connection.
    """

    turns: Sequence[float]
    per_cpu_second: float
    per_second: float
    p99: float
    memory: float


@dataclass(slots=True, eq=False)
class Client:
    """One connection."""

    socket: socket.socket
    received: bytes = b""
    sent: float = 0.0  # when the requests were sent that are not answered yet


class Crowd:
    """Clients that ask, and check what is answered, until they are closed."""

    def __init__(self, talk: Talk, load: Load) -> None:
        self._talk = talk
        self._load = load
        self._requests = talk.request * load.depth
        self._answers = re.compile(b"(?:%s){%d}" % (talk.answer, load.depth))
        self._last = b""  # the answers to `_requests` that came last
        self._selector = selectors.DefaultSelector()
        self._open = ExitStack()

    def __enter__(self) -> "Crowd":
        self._open.callback(self._selector.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def connect(self, address: tuple[str, int], depth: int = 1) -> None:
        """Connect all, one after the other; each hears the answers to some requests.

        Args:
            depth: how many each sends at once.

        Raises:
            AnswerError: these are wrong, or missing.
        """
        greeting = re.compile(re.escape(self._talk.greeting))
        answers = re.compile(b"(?:%s){%d}" % (self._talk.answer, depth))
        heard = b""
        for _ in range(self._load.connections):
            sock = self._open.enter_context(socket.create_connection(address, LIMIT))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            hear(sock, greeting)
            sock.sendall(self._talk.request * depth)
            heard = hear(sock, answers, len(heard))
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ, Client(sock))
        self._last = heard[: len(heard) // depth] * self._load.depth

    def run(self, seconds: float) -> list[float]:
        """Ask in a closed loop for so long, then wait for what is not answered yet.

        Returns:
            The latencies, in seconds, each of `depth` requests.

        Raises:
            AnswerError: an answer is wrong or missing, or a connection was closed.
        """
        clock, length = time.perf_counter, len(self._last)
        latencies: list[float] = []
        end = clock() + seconds
        clients = [key.data for key in self._selector.get_map().values()]
        for client in clients:
            self._send(client, clock())
        waiting = len(clients)
        while waiting:
            left = end + LONGER - clock()
            if left <= 0:
                raise AnswerError(f"{waiting} wait in vain for {LONGER:g} s")
            for key, _ in self._selector.select(left):
                client = key.data
                data = client.socket.recv(PORTION)
                if not data:
                    raise AnswerError("the server has closed a connection")
                client.received += data
                if len(client.received) >= length:
                    self._check(client.received)
                    client.received = b""
                    now = clock()
                    latencies.append(now - client.sent)
                    if now < end:
                        self._send(client, now)
                    else:
                        waiting -= 1
        return latencies

    def _check(self, answers: bytes) -> None:
        if answers != self._last:  # a date may have changed, and nothing else
            if not self._answers.fullmatch(answers):
                raise AnswerError(f"wrong answers: {answers[:200]!r}")
            self._last = answers

    def _send(self, client: Client, now: float) -> None:
        client.sent = now
        if client.socket.send(self._requests) < len(self._requests):
            raise AnswerError("a socket has no room for so many requests")


def hear(sock: socket.socket, what: re.Pattern[bytes], length: int = 0) -> bytes:
    """Return what comes, as soon as it matches as a whole.

    Args:
        length: of what comes, if that is known, or 0.

    Raises:
        AnswerError: something else comes, or nothing.
    """
    received = b""
    while not what.fullmatch(received):
        try:
            data = sock.recv(PORTION)
        except OSError as error:
            raise AnswerError(f"{error} after {received[:200]!r}") from None
        received += data
        if not data or 0 < length < len(received):
            raise AnswerError(f"wrong answers: {received[:200]!r}")
    return received


def listener() -> socket.socket:
    """Return a socket that listens on a free port; what it accepts sends at once.

    Linux and macOS give TCP_NODELAY on to what a listener accepts. Not all servers set
    it, and without it some would wait for the client's delayed acknowledgements.
    """
    sock = socket.create_server((HOST, 0), backlog=BACKLOG)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return sock


def serve(peer: Callable[[socket.socket], object]) -> None:
    """Announce a port, and let `peer` serve there until the process is killed."""
    sock = listener()
    bytes(LARGE)  # is freed at once; README.md says what for
    print(ANNOUNCEMENT.format(*sock.getsockname()), flush=True)
    peer(sock)


@contextmanager
def started(command: Sequence[str]) -> Iterator[tuple[psutil.Process, tuple[str, int]]]:
    """Start a server; give its process and its address; kill all of it in the end."""
    with subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,  # Ctrl-C is for this process, which then kills the other
    ) as popen:
        assert popen.stdout is not None
        process = psutil.Process(popen.pid)
        try:
            line = popen.stdout.readline()
            if not (match := ANNOUNCED.fullmatch(line)):
                raise AnswerError(f"the server does not start: {line!r}")
            yield process, (HOST, int(match[1]))
        finally:
            with suppress(psutil.NoSuchProcess):
                for one in tree(process):  # the parent first, or it starts others
                    with suppress(psutil.NoSuchProcess):
                        one.kill()


def tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes]
    return sum(one.user + one.system for one in times)


def memory(processes: Sequence[psutil.Process]) -> int:
    return sum(process.memory_info().rss for process in processes)


class Trial:
    """A server that is up, with its clients, and is measured in turns.

    Args:
        crowd: is connected.
        memory: bytes by which that has made the server grow.
    """

    def __init__(
        self, processes: Sequence[psutil.Process], crowd: Crowd, load: Load, memory: int
    ) -> None:
        self._processes = processes
        self._crowd = crowd
        self._load = load
        self._memory = memory
        self._turns: list[tuple[int, float, float]] = []  # answers, CPU and wall time
        self._latencies: list[float] = []

    def turn(self, seconds: float) -> None:
        """Let the clients ask for so long.

        Raises:
            AnswerError: they are not answered as they should be.
            OSError: the server resets connections.
        """
        cpu, wall = cpu_seconds(self._processes), time.perf_counter()
        latencies = self._crowd.run(seconds)
        wall = time.perf_counter() - wall
        cpu = cpu_seconds(self._processes) - cpu
        self._turns.append((len(latencies) * self._load.depth, cpu, wall))
        self._latencies += latencies

    def sample(self) -> Sample:
        """Return what all turns have shown; there must have been one."""
        answered, cpu, wall = (sum(column) for column in zip(*self._turns, strict=True))
        latencies = sorted(self._latencies)
        return Sample(
            [n / max(seconds, TICK) for n, seconds, _ in self._turns],
            answered / max(cpu, TICK),
            answered / wall,
            latencies[len(latencies) * 99 // 100],
            self._memory / self._load.connections,
        )


@contextmanager
def trial(server: Server, talk: Talk, load: Load) -> Iterator[Trial]:
    """Start a server and connect its clients; warm it up.

    Raises:
        AnswerError: it does not answer as it should.
        OSError: it resets connections, or cannot be reached.
    """
    # The clients are closed last: a server that is killed cannot complain of them.
    with Crowd(talk, load) as crowd, started(server.command) as (process, address):
        with Crowd(talk, Load(1, load.depth)) as first:  # what is done once is done
            first.connect(address, load.depth)
        processes = tree(process)
        empty = memory(processes)
        crowd.connect(address)
        grown = memory(processes) - empty
        crowd.run(WARM_UP)
        yield Trial(processes, crowd, load, grown)
