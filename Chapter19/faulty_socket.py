"""A socket splits, delays, drops, resets and repeats by plan, and readers are tried.

TCP keeps bytes in order, and promises little else: not that one send is one recv, not
that a send takes all, not that an answer comes, or comes in time. On one machine all
that holds almost always, so what relies on it passes its tests. A wrapper around the
socket makes the rare common. Its plan says what happens to each call, and a seed draws
plans, so each failure can be had again.

Here a reader of lines gets a short stream in each way in which it can be split. The
broken one takes what recv returns for a line, which is right in one way of them all.
The mended one has a buffer. It also has a deadline for the line: a time-out for each
recv begins again with each byte. example18 tries a client in the same manner.

With `sleep` and `now` the waits pass on a clock of the test's own. For whole programs
there are Toxiproxy, a proxy with such faults, and `tc netem` on Linux.

Output:
    4 lines of 11 bytes, split in all 1024 ways
        one recv, one line     1 are read rightly
        a buffer            1024 are read rightly
    a line of which a byte comes every 9 seconds
        a time-out of 10      never: the line takes 63 seconds
        a deadline of 10      gives up at 10 seconds
    a time-out is for each piece; a deadline is for the whole line
"""

import itertools
import math
import random
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

SIZE = 1024  # bytes that one recv takes, at most
MAX_LINE = 200  # bytes
PATIENCE = 10.0  # seconds
STREAM = "ab\né\n\nxyz\n"


class Stream(Protocol):
    """What is used of a socket."""

    def recv(self, size: int, /) -> bytes: ...
    def send(self, data: bytes, /) -> int: ...
    def settimeout(self, seconds: float | None, /) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Pass:
    """The call passes on at most so many bytes, after so many seconds."""

    at_most: int = SIZE
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """What the call would pass on is lost, and nothing comes any more."""


@dataclass(frozen=True, slots=True)
class Reset:
    """What the call would pass on is lost, and the connection with it."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """What the call passes on comes twice."""


Fault = Pass | Drop | Reset | Repeat
LOSSES: tuple[Fault, ...] = (Drop(), Reset(), Repeat())


@dataclass(frozen=True, slots=True)
class Plan:
    """The faults of a connection, one for each call; those after the last have none."""

    received: tuple[Fault, ...] = ()
    sent: tuple[Fault, ...] = ()


class FaultySocket:
    """A stream with the faults of a plan.

    A loss in recv takes what the peer has sent, so the peer has done its part by then.
    One in send comes before the peer has seen anything. A piece that recv gives up as
    too late is still under way: the next recv waits for the rest of its time.

    Args:
        stream: a socket, or what has its methods; is closed with this one.
        sleep: lets seconds pass.
    """

    def __init__(
        self,
        stream: Stream,
        plan: Plan,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._stream = stream
        self._received, self._sent = iter(plan.received), iter(plan.sent)
        self._sleep = sleep
        self._timeout = math.inf
        self._late: Pass | None = None  # what was longer under way than a time-out
        self._again = b""  # what is to come once more
        self._is_silent = False

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = math.inf if seconds is None else seconds
        self._stream.settimeout(seconds)

    def recv(self, size: int) -> bytes:
        """Receive as a socket does, but for the next fault.

        Raises:
            TimeoutError: nothing came in time.
            ConnectionResetError: by plan.
        """
        if self._is_silent:
            self._wait(math.inf)
        fault = self._late or next(self._received, Pass())
        self._late = None
        match fault:
            case Pass(at_most, seconds):
                if seconds > self._timeout:
                    self._late = Pass(at_most, seconds - self._timeout)
                self._wait(seconds)
                return self._read(min(at_most, size))
            case Drop():
                self._read(size)
                self._is_silent = True
                self._wait(math.inf)
            case Reset():
                self._read(size)
                self._reset()
            case Repeat():
                data = self._read(size)
                self._again = data + self._again
                return data
        raise AssertionError("a silence or a reset has raised")

    def send(self, data: bytes) -> int:
        """Send as a socket does, but for the next fault; return how many bytes.

        Raises:
            TimeoutError: they were not taken in time.
            ConnectionResetError: by plan.
        """
        if self._is_silent:
            return len(data)
        match next(self._sent, Pass()):
            case Pass(at_most, seconds):
                self._wait(seconds)
                return self._stream.send(data[:at_most])
            case Drop():
                self._is_silent = True
            case Reset():
                self._reset()
            case Repeat():
                sendall(self._stream, data * 2)
        return len(data)

    def close(self) -> None:
        self._stream.close()

    def _read(self, size: int) -> bytes:
        if self._again:
            data, self._again = self._again[:size], self._again[size:]
            return data
        return self._stream.recv(size)

    def _wait(self, seconds: float) -> None:
        if seconds > self._timeout:
            self._sleep(self._timeout)
            raise TimeoutError("timed out")
        if seconds == math.inf:
            raise RuntimeError("this would wait for ever: no time-out is set")
        self._sleep(seconds)

    def _reset(self) -> None:
        self.close()
        raise ConnectionResetError("reset, by plan")


def draw_plan(dice: random.Random, length: int = 4) -> Plan:
    """Draw up to `length` faults for each direction."""

    def draw() -> tuple[Fault, ...]:
        faults: list[Fault] = []
        for _ in range(dice.randint(0, length)):
            piece, seconds = dice.randint(1, 12), dice.randint(1, 15)
            choices = (Pass(), Pass(piece), Pass(piece, seconds), *LOSSES)
            faults.append(dice.choice(choices))
        return tuple(faults)

    return Plan(draw(), draw())


class Clock:
    """A time, in seconds, that passes only if somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


def lines_broken(stream: Stream) -> Iterator[str]:
    """Yield lines, as if each came by itself and whole."""
    while data := stream.recv(SIZE):
        yield data.decode().removesuffix("\n")


class LineReader:
    """Reads lines of UTF-8 from a stream, in whatever pieces they come.

    Args:
        now: the time in seconds, for deadlines.
    """

    def __init__(
        self, stream: Stream, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._now = now
        self._buffer = b""  # what has come after the last line

    def line(self, deadline: float | None = None) -> str | None:
        """Return the next line without its end; None at the end of the stream.

        Args:
            deadline: when the line must be there. None: the stream's time-out alone
                holds, for each piece anew.

        Raises:
            TimeoutError: it was not.
            ConnectionError: the line is too long, not UTF-8, or ends in the middle.
        """
        while b"\n" not in self._buffer and len(self._buffer) <= MAX_LINE:
            if deadline is not None:
                left = deadline - self._now()
                if left <= 0:
                    raise TimeoutError("no whole line in time")
                self._stream.settimeout(left)
            data = self._stream.recv(SIZE)
            if not data and self._buffer:
                raise ConnectionError("the stream has ended in the middle of a line")
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        if len(line) > MAX_LINE:
            raise ConnectionError(f"a line of more than {MAX_LINE} bytes")
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            raise ConnectionError(f"not UTF-8: {line!r}") from error


def lines_mended(stream: Stream) -> Iterator[str]:
    """Yield lines, in whatever pieces they come."""
    reader = LineReader(stream)
    while (line := reader.line()) is not None:
        yield line


def sendall(stream: Stream, data: bytes) -> None:
    """Send all of `data`, in as many pieces as it takes."""
    while data:
        data = data[stream.send(data) :]


def splits(length: int) -> Iterator[list[int]]:
    """Yield each way to split a stream, as the lengths of the pieces."""
    for n_cuts in range(length):
        for cuts in itertools.combinations(range(1, length), n_cuts):
            ends = (0, *cuts, length)
            yield [end - start for start, end in itertools.pairwise(ends)]


def read_split(
    read: Callable[[Stream], Iterator[str]], data: bytes, pieces: Sequence[int]
) -> list[str] | None:
    """Send `data` through a real socket; return the lines that `read` makes of it.

    Args:
        pieces: the lengths in which it is received.

    Returns:
        None if that is no UTF-8.
    """
    plan = Plan(received=tuple(Pass(n) for n in pieces))
    ours, theirs = socket.socketpair()
    with theirs, closing(FaultySocket(ours, plan, sleep=lambda _: None)) as stream:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        try:
            return list(read(stream))
        except UnicodeDecodeError:
            return None


def time_of_drip(deadline: float | None) -> tuple[str | None, float]:
    """Receive a line of which a byte comes every 9 seconds.

    Returns:
        The line, None if it was not in time; and the seconds that it took.
    """
    clock = Clock()
    drip = Plan(received=(Pass(1, seconds=9),) * SIZE)
    ours, theirs = socket.socketpair()
    with theirs, closing(FaultySocket(ours, drip, clock.sleep)) as stream:
        theirs.sendall(b"a line\n")
        stream.settimeout(PATIENCE)
        try:
            line = LineReader(stream, clock.now).line(deadline)
        except TimeoutError:
            line = None
    return line, clock.now()


def main() -> None:
    data, lines = STREAM.encode(), STREAM.splitlines()
    ways = list(splits(len(data)))
    print(f"{len(lines)} lines of {len(data)} bytes, split in all {len(ways)} ways")
    readers = {"one recv, one line": lines_broken, "a buffer": lines_mended}
    right = [
        sum(read_split(read, data, way) == lines for way in ways)
        for read in readers.values()
    ]
    for name, count in zip(readers, right, strict=True):
        print(f"    {name:18} {count:5} are read rightly")
    if right != [1, len(ways)]:
        raise SystemExit("one way, and all, were to be read rightly")

    print("a line of which a byte comes every 9 seconds")
    line, seconds = time_of_drip(deadline=None)
    never = f"never: the line takes {seconds:g} seconds"
    print(f"    a time-out of {PATIENCE:g}      {never}")
    late, given_up = time_of_drip(deadline=PATIENCE)
    print(f"    a deadline of {PATIENCE:g}      gives up at {given_up:g} seconds")
    if (line, late, given_up) != ("a line", None, PATIENCE):
        raise SystemExit("only the deadline was to end it, and in time")
    print("a time-out is for each piece; a deadline is for the whole line")


if __name__ == "__main__":
    main()
