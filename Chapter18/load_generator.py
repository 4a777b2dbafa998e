# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0", "psutil>=6.0"]
# ///
"""Sends requests in a closed or an open loop, and tells how long their answers take.

In a closed loop each client sends its next request when the last one is answered. That
finds out how many requests a server can take, but not how long clients have to wait:
while the server stalls, the loop sends nothing, so the longest stall is one slow answer
among thousands of quick ones. The loop and the server have agreed, as it were, when not
to look. This is called coordinated omission.

The clients of the world do not wait for each other. An open loop (--rate) has a
timetable: each request has a time at which it is due, and its latency counts from then,
also if it could not be sent yet. Here a server stalls once, for a tenth of a second.
Counted from when requests were sent, the 99th percentile knows nothing of it; counted
from when they were due, it tells what a tenth of a second does to all who come then.

Every answer is checked. Latencies are counted in cells whose width grows with them, as
in HdrHistogram, which takes little memory and errs by less than 0.8 %. For HTTP there
are such tools, wrk2 among them.

Source: G. Tene, "How NOT to Measure Latency", 2013.

Try:  --connections 100 --depth 16
Try:  --rate 2000 --seconds 1
Try:  --plot latency.png

Output:
                                         p50       p90       p99     p99.9       max
    as fast as it goes    66798 /s   0.13 ms   0.24 ms   0.29 ms   0.34 ms   1.16 ms
    a stall of 100 ms
      counted when sent    1001 /s   0.09 ms   0.12 ms   0.35 ms 102.24 ms 102.24 ms
      counted when due     1001 /s   0.17 ms  45.88 ms  96.99 ms 102.24 ms 102.24 ms
    who counts when sent sees no stall at p99; who counts when due does
"""

import argparse
import math
import os
import selectors
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from example02_calculator import GREETING, MAX_LINE, Calculator
from server_process import ServerProcess, allow_descriptors, example07

Address = tuple[str, int]

LIMIT = 10.0  # seconds that the server may take for what it owes
IN_FLIGHT = 32_768  # bytes of requests, or of answers, that a connection may wait for
COLUMNS = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99.9": 99.9, "max": 100.0}
MAX_REQUESTS = 100_000  # on their way, on all connections
MAX_CONNECTIONS = 500 if sys.platform == "win32" else 10_000  # select takes 512

STALL = 0.1  # seconds
STALL_AFTER = 0.2  # seconds
STALL_RATE = 1000.0  # requests a second
STALL_SECONDS = 0.6  # of which the stall is a sixth, much more than one in a hundred


class AnswerError(Exception):
    """The server has not answered as it should; the text says how."""


class Histogram:
    """Counts times in cells, each at most 1/128 as wide as the times that it holds.

    A time is a number of nanoseconds, of which only the leading eight bits are kept.
    """

    BITS = 8

    def __init__(self) -> None:
        self.total = 0
        self._cells: Counter[int] = Counter()

    def record(self, seconds: float) -> None:
        """Count a time, which must not be negative."""
        ns = int(seconds * 1e9)
        shift = max(0, ns.bit_length() - self.BITS)
        self._cells[(shift << self.BITS) | (ns >> shift)] += 1
        self.total += 1

    def curve(self) -> Iterator[tuple[int, float]]:
        """Yield for each cell, from the first, how many times there are up to its end.

        The end comes with it, in seconds. Empty cells are left out.
        """
        up_to = 0
        for cell in sorted(self._cells):
            up_to += self._cells[cell]
            shift, bits = cell >> self.BITS, cell % (1 << self.BITS)
            yield up_to, (((bits + 1) << shift) - 1) / 1e9

    def percentile(self, percent: float) -> float:
        """Return the time that so many of the times do not exceed, in seconds.

        It is never too short, and less than 1/128 too long.

        Raises:
            ValueError: nothing has been counted, or `percent` is not in 0 … 100.
        """
        if not self.total or not 0 <= percent <= 100:
            raise ValueError(f"no {percent:g}th percentile of {self.total} times")
        rank = math.ceil(self.total * percent / 100)
        return next(end for up_to, end in self.curve() if up_to >= rank)


@dataclass(slots=True, eq=False)
class Client:
    """One connection, and the requests that are on their way.

    Attributes:
        answers: what comes if all goes well, for one request more than may be sent
            before the first answer.
        owed: of each request that is due and not sent, when it was due.
        awaited: of each that has been sent and not answered: when due, and when sent.
    """

    name: str
    socket: socket.socket
    request: bytes
    answers: bytes
    depth: int
    owed: deque[float] = field(default_factory=deque)
    awaited: deque[tuple[float, float]] = field(default_factory=deque)
    _place: int = 0  # in the first answer: so much of it has come

    def send(self, now: float) -> None:
        """Send what is owed, as far as `depth` allows.

        Raises:
            AnswerError: there is no room for it.
        """
        n = min(len(self.owed), self.depth - len(self.awaited))
        if n <= 0:
            return
        self.awaited.extend((self.owed.popleft(), now) for _ in range(n))
        data, sent = self.request * n, 0
        with suppress(BlockingIOError):
            sent = self.socket.send(data)
        if sent < len(data):  # and yet the buffer has room for IN_FLIGHT
            raise AnswerError(f"{self.name}: takes no more requests")

    def receive(self) -> list[tuple[float, float]]:
        """Return the elements of `awaited` whose answers have come.

        Raises:
            AnswerError: something else has come.
        """
        data = self.socket.recv(IN_FLIGHT)
        if not data:
            raise AnswerError(f"{self.name}: closed by the server")
        length = len(self.answers) // (self.depth + 1)
        if not self.answers.startswith(data, self._place):
            raise AnswerError(f"{self.name}: a wrong answer: {data[:60]!r}")
        n, self._place = divmod(self._place + len(data), length)
        if n + (self._place > 0) > len(self.awaited):
            raise AnswerError(f"{self.name}: an answer too many")
        return [self.awaited.popleft() for _ in range(n)]

    def leave(self) -> None:
        """Tell the server that no more is to come, and see that it does likewise.

        Raises:
            AnswerError: it sends something, or does not close.
        """
        self.socket.settimeout(LIMIT)
        self.socket.shutdown(socket.SHUT_WR)
        if self.socket.recv(1):
            raise AnswerError(f"{self.name}: an answer too many")


@dataclass(frozen=True, slots=True)
class Result:
    """What has been measured.

    Attributes:
        seconds: from the start to the last answer.
        from_sent: latencies, counted from when each request was sent.
        from_due: the same, counted from when it was due. In a closed loop that is when
            the request before it was answered, so it is no news.
    """

    seconds: float
    from_sent: Histogram
    from_due: Histogram

    @property
    def per_second(self) -> float:
        """Requests answered in a second."""
        return self.from_sent.total / self.seconds


def connect(address: Address, greeting: bytes) -> socket.socket:
    """Return a connection to a server that has sent its greeting.

    Raises:
        AnswerError: it sent another one.
        OSError: it cannot be reached, or says nothing for LIMIT seconds.
    """
    with ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(address, LIMIT))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * IN_FLIGHT)
        received = b""
        while greeting.startswith(received) and received != greeting:
            if not (data := sock.recv(len(greeting) - len(received))):
                break
            received += data
        if received != greeting:
            raise AnswerError(f"no greeting, but {received!r}")
        sock.setblocking(False)
        stack.pop_all()
    return sock


def measure(
    address: Address,
    connections: int = 1,
    depth: int = 1,
    seconds: float = 1.0,
    rate: float = 0.0,
    request: bytes = b"1,2\n",
    answer: bytes = b"3\n",
    greeting: bytes = GREETING,
    begin: Callable[[], object] = lambda: None,
) -> Result:
    """Send requests, check their answers, and return how long they took.

    A client connects when the last one has been greeted, so that thousands of them do
    not overflow the server's backlog. In the end, all that was due has been answered.

    Args:
        depth: requests that a client may send before the first one is answered
            (pipelining).
        rate: requests a second, by turns for each client; 0: a closed loop.
        request: may be sent again and again; each is answered by `answer`.
        begin: called when all are connected, just before the first request.

    Raises:
        AnswerError: an answer is wrong, missing, or one too many.
        OSError: a connection could not be made, or was reset.
        ValueError: more than IN_FLIGHT bytes might be on their way.
    """
    if depth * max(len(request), len(answer)) > IN_FLIGHT:
        raise ValueError(f"more than {IN_FLIGHT} bytes on their way")
    clock = time.perf_counter
    from_sent = Histogram()
    from_due = Histogram() if rate else from_sent
    with ExitStack() as stack:
        clients = []
        for number in range(1, connections + 1):
            sock = stack.enter_context(connect(address, greeting))
            name = f"connection {number}"
            clients.append(Client(name, sock, request, answer * (depth + 1), depth))
        # epoll counts in milliseconds, which is too coarse for a timetable; select does
        # not, but takes small numbers only.
        small = max(client.socket.fileno() for client in clients) < 1024
        kind = selectors.SelectSelector if rate and small else selectors.DefaultSelector
        selector = stack.enter_context(kind())
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)

        begin()
        start = now = clock()
        end = start + seconds
        timetable = (start + n / rate for n in range(math.ceil(rate * seconds)))
        next_due = next(timetable, math.inf)
        by_turns = cycle(clients)
        unanswered = 0
        if not rate:
            unanswered = connections * depth
            for client in clients:
                client.owed.extend([start] * depth)
                client.send(clock())
        while unanswered or next_due < math.inf:
            if now > end + LIMIT:
                raise AnswerError(f"{unanswered} answers missing after {LIMIT:g} s")
            for key, _ in selector.select(min(LIMIT, max(0.0, next_due - now))):
                client = key.data
                answered = client.receive()
                now = clock()
                for due, sent in answered:
                    from_sent.record(now - sent)
                    if rate:
                        from_due.record(now - due)
                unanswered -= len(answered)
                if not rate and now < end:
                    client.owed.extend([now] * len(answered))
                    unanswered += len(answered)
                client.send(now)
            now = clock()
            while next_due <= now:
                client = next(by_turns)
                client.owed.append(next_due)
                client.send(now)
                unanswered += 1
                next_due = next(timetable, math.inf)
        for client in clients:
            client.leave()
    return Result(now - start, from_sent, from_due)


def show(name: str, result: Result) -> None:
    """Print one line for each way of counting."""
    ways = {name: result.from_sent}
    if result.from_due is not result.from_sent:
        print(name)
        ways = {"  counted when sent": result.from_sent}
        ways["  counted when due"] = result.from_due
    for way, latencies in ways.items():
        print(f"{way:20}{result.per_second:7.0f} /s", end="")
        for percent in COLUMNS.values():
            print(f"{1000 * latencies.percentile(percent):7.2f} ms", end="")
        print()


def plot(title: str, result: Result, file: Path) -> None:
    """Draw latency by percentile, as counted in either way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    for latencies, label, colour in (
        (result.from_due, "counted from when a request was due", "#b5442e"),
        (result.from_sent, "counted from when it was sent", "#1b4f8a"),
    ):
        before, xs, ys = 0, [], []
        for up_to, end in latencies.curve():
            xs += [latencies.total / (latencies.total - n) for n in (before, up_to - 1)]
            ys += [1000 * end] * 2
            before = up_to
        axes.plot(xs, ys, color=colour, label=label, linewidth=2)
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 10, 100, 1000], ["0", "50", "90", "99", "99.9"])
    axes.minorticks_off()
    axes.set_xlim(left=1)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("percentile")
    axes.set_ylabel("latency [ms]")
    axes.set_title(title, fontsize=12, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=120)


def stall(server: ServerProcess) -> Result:
    """Measure a server that stalls once; check what each way of counting tells."""

    def freeze() -> None:
        with server.frozen():
            time.sleep(STALL)

    timer = threading.Timer(STALL_AFTER, freeze)
    try:
        result = measure(
            server.address, seconds=STALL_SECONDS, rate=STALL_RATE, begin=timer.start
        )
    finally:
        timer.cancel()
        if timer.ident is not None:  # it has been started
            timer.join()
    hides, shows = (one.percentile(99) for one in (result.from_sent, result.from_due))
    # What is due in the first fifth of the stall waits for the rest of it at least, 20
    # of 600 requests. But only one has been sent by then.
    if not hides < 0.8 * STALL <= shows:
        raise SystemExit(f"p99 was {hides:.3f} s when sent, and {shows:.3f} s when due")
    return result


def in_range(least: int, most: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in `least` … `most`."""

    def whole_number(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be in {least} … {most}, not {number}"
            )
        return number

    return whole_number


def duration(text: str) -> float:
    number = float(text)
    if not 0.001 <= number <= 60:
        raise argparse.ArgumentTypeError(f"must be in 0.001 … 60, not {text}")
    return number


def address_of(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, not {text}")
    return host.strip("[]"), int(port)


def request_of(text: str) -> bytes:
    line = text.encode()
    if len(line) > MAX_LINE or b"\n" in line or line.strip() in {b"quit", b"stats"}:
        raise argparse.ArgumentTypeError(f"has no certain answer: {text[:20]!r}")
    return line + b"\n"


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connect", type=address_of, metavar="HOST:PORT")
    parser.add_argument("--connections", type=in_range(1, MAX_CONNECTIONS), default=10)
    parser.add_argument("--depth", type=in_range(1, 1000), default=1)
    parser.add_argument("--rate", type=in_range(0, 100_000), default=0)
    parser.add_argument("--seconds", type=duration, default=0.3)
    parser.add_argument("--request", type=request_of, default=b"1,2\n")
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    request = options.request
    answer = Calculator().answer(request[:-1])
    if options.depth * max(len(request), len(answer)) > IN_FLIGHT:
        parser.error(f"--depth: more than {IN_FLIGHT} bytes on their way")
    if options.depth * options.connections > MAX_REQUESTS:
        parser.error(f"--depth: more than {MAX_REQUESTS} requests on their way")
    allow_descriptors(options.connections + 50)

    name = f"{options.rate} /s are due" if options.rate else "as fast as it goes"
    with ExitStack() as stack:
        try:
            server, address = None, options.connect
            if address is None:
                server = stack.enter_context(example07())
                address = server.address
            result = measure(
                address,
                options.connections,
                options.depth,
                options.seconds,
                options.rate,
                request,
                answer,
            )
            stalled = None if server is None else stall(server)
        except (AnswerError, OSError) as error:
            raise SystemExit(f"no measurement: {error}") from None
    print(f"{'':30}" + "".join(f"{column:>10}" for column in COLUMNS))
    show(name, result)
    title = f"Latencies: {name}"
    if stalled is not None:
        show("a stall of 100 ms", stalled)
        print("who counts when sent sees no stall at p99; who counts when due does")
        title = "A stall of 100 ms: counted from when requests were sent, p99 hides it"
    if options.plot is not None:
        plot(title, stalled or result, options.plot)


if __name__ == "__main__":
    main()
