"""Measures servers beside each other: their CPU time, answers, latencies, memory.

Each server is a process of its own. The client is this one: many connections in one
thread, in a closed loop. On each connection `depth` requests are sent at once, and the
next ones when all are answered. It checks every byte that comes.

What counts is how many requests a server answers in a second of its *own* CPU time. How
busy the machine is, and how fast the client, matters little to that. The servers take
turns, round by round, so that a noisy moment hits all alike; the best of the rounds
is told, and how far they lie apart.

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
LONGER = 5.0  # seconds more for a server that has not answered all clients once
PORTION = 1 << 16  # bytes

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
    """One measurement.

    Attributes:
        per_cpu_second: requests answered in a second of the server's CPU time.
        per_second: requests answered in a second of wall time.
        p99: 99th percentile of the latencies, in seconds, from the sending of `depth`
            requests to the last of their answers; infinite if no client got that far.
        memory: bytes by which the server has grown for each connection.
    """

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

    def ask(self) -> None:
        """Let all send their first requests of the closed loop."""
        for key in list(self._selector.get_map().values()):
            self._send(key.data, time.perf_counter())

    def run(
        self, seconds: float, least: int = 0, longer: float = 0.0
    ) -> tuple[float, list[float]]:
        """Go on for so long; return how many answers came, and the latencies.

        Args:
            least: answers; for them it goes on longer, if need be.
            longer: so many seconds at most.

        Raises:
            AnswerError: a wrong one came, or a connection was closed.
        """
        clock, select = time.perf_counter, self._selector.select
        length = len(self._last)
        enough = least * length / self._load.depth
        n_bytes, latencies = 0, []
        end = clock() + seconds
        while True:
            left = end - clock() + (longer if n_bytes < enough else 0.0)
            if left <= 0:
                break
            for key, _ in select(left):
                client = key.data
                data = client.socket.recv(PORTION)
                if not data:
                    raise AnswerError("the server has closed a connection")
                n_bytes += len(data)
                client.received += data
                if len(client.received) >= length:
                    self._check(client.received)
                    client.received = b""
                    now = clock()
                    latencies.append(now - client.sent)
                    self._send(client, now)
        return n_bytes * self._load.depth / length, latencies

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


def sample(server: Server, talk: Talk, load: Load, seconds: float) -> Sample:
    """Measure a server that is started for it.

    Raises:
        AnswerError: it does not answer as it should.
        OSError: it resets connections, or cannot be reached.
    """
    all_once = load.connections * load.depth
    # The clients are closed last: a server that is killed cannot complain of them.
    with Crowd(talk, load) as crowd, started(server.command) as (process, address):
        with Crowd(talk, Load(1, load.depth)) as first:  # what is done once is done
            first.connect(address, load.depth)
        processes = tree(process)
        empty = memory(processes)
        crowd.connect(address)
        grown = memory(processes) - empty
        crowd.ask()
        # Some servers read all requests that have come before they answer any.
        crowd.run(WARM_UP, 1, LIMIT)
        cpu, wall = cpu_seconds(processes), time.perf_counter()
        answered, latencies = crowd.run(seconds, all_once, LONGER)
        wall = time.perf_counter() - wall
        cpu = cpu_seconds(processes) - cpu
    if not answered:
        raise AnswerError(f"no answer in {wall:.1f} s")
    latencies.sort()
    p99 = latencies[len(latencies) * 99 // 100] if latencies else float("inf")
    # A clock of 100 ticks a second shows nothing of less than one.
    return Sample(
        answered / max(cpu, 0.01), answered / wall, p99, grown / load.connections
    )
