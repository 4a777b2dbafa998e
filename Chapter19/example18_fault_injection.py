"""A client that trusts its connection loses count of money under injected faults.

It makes three deposits at a bank. The plans of faulty_socket.py split its messages,
delay, drop and repeat them, and reset its connections. The broken client trusts send
and recv, and tries again under a new number, which the bank takes for another deposit.
The mended one

* sends all, and reads up to the end of a line, whatever comes in a piece;
* gives the answer a deadline, and not a time-out to each of its bytes;
* keeps the number of a deposit when it tries again. The bank knows it by that, so it
  may be sent any number of times and is made once (it is idempotent);
* takes no answer but its own, and none whose checksum is wrong. TCP repeats no bytes;
  a middleman that sends a request again, or half of one, does.

The bank answers at once, on a clock of the test's own, so nothing is waited for, and a
seed is enough to have a failure again.

Try:  --plans 10000

Output:
                         broken                       mended
    no fault             right, 0 seconds             right, 0 seconds
    answer in pieces     told 100 120 12, 0 seconds   right, 0 seconds
    request in pieces    right, 10 seconds            right, 0 seconds
    a delay of 25        has 223, 10 seconds          right, 10 seconds
    request dropped      right, 10 seconds            right, 10 seconds
    answer dropped       has 223, 10 seconds          right, 10 seconds
    reset in a request   right, 10 seconds            right, 0 seconds
    reset, no answer     has 223, 0 seconds           right, 0 seconds
    request repeated     told 100 100 123, 0 seconds  right, 0 seconds
    half of it repeated  right, 10 seconds            right, 0 seconds
    of 1000 drawn plans all went right in 366; mended, in 1000
"""

import argparse
import itertools
import math
import random
from collections.abc import Callable, Iterable
from contextlib import closing
from zlib import crc32

from faulty_socket import (
    PATIENCE,
    Clock,
    Drop,
    FaultySocket,
    LineReader,
    Pass,
    Plan,
    Repeat,
    Reset,
    Stream,
    draw_plan,
    lines_broken,
    sendall,
)

TRIES = 10  # for one deposit
CONNECTIONS = 3  # that have faults; fewer than TRIES
DEPOSITS = (100, 20, 3)
SEED = 19
RIGHT = "right"


def sealed(number: int, value: int) -> bytes:
    """Return a message."""
    text = f"{number} {value}"
    return f"{text} {crc32(text.encode()):08x}\n".encode()


def opened(line: str) -> tuple[int, int] | None:
    """Return the two numbers of a message, None if it is damaged."""
    try:
        number, value, _ = line.split(" ")
        message = int(number), int(value)
    except ValueError:
        return None
    return message if sealed(*message) == f"{line}\n".encode() else None


class Bank:
    """An account. A deposit whose number is known has been made already."""

    def __init__(self) -> None:
        self.balance = 0
        self._balances: dict[int, int] = {}  # after each deposit, by its number

    def deposit(self, number: int, amount: int) -> int:
        if number not in self._balances:
            self.balance += amount
            self._balances[number] = self.balance
        return self._balances[number]


class Connection:
    """A stream to a bank that answers at once; so what is not there never comes."""

    def __init__(self, bank: Bank, clock: Clock) -> None:
        self._bank, self._clock = bank, clock
        self._request, self._answers = b"", b""
        self._timeout = math.inf

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = math.inf if seconds is None else seconds

    def send(self, data: bytes) -> int:
        *requests, self._request = (self._request + data).split(b"\n")
        for request in requests:
            if message := opened(request.decode("ascii", "replace")):
                self._answers += sealed(message[0], self._bank.deposit(*message))
        return len(data)

    def recv(self, size: int) -> bytes:
        if not self._answers:
            self._clock.sleep(self._timeout)
            raise TimeoutError("timed out")
        data, self._answers = self._answers[:size], self._answers[size:]
        return data

    def close(self) -> None:
        self._request = self._answers = b""


class ClientBroken:
    """Makes deposits, as if a connection either worked or failed at once.

    Args:
        connect: makes a new connection.
        now: the time in seconds.
    """

    def __init__(self, connect: Callable[[], Stream], now: Callable[[], float]) -> None:
        self._connect = connect
        self._now = now
        self._numbers = itertools.count(1)
        self._stream: Stream | None = None

    def deposit(self, amount: int) -> int:
        """Make a deposit; return the balance after it.

        Raises:
            ConnectionError: there was no answer, however often it was tried. The
                deposit may have been made.
        """
        for _ in range(TRIES):
            try:
                stream = self._stream = self._stream or self._connect()
                stream.settimeout(PATIENCE)
                stream.send(sealed(next(self._numbers), amount))
                return int(next(lines_broken(stream)).split()[1])
            except OSError:
                self.close()
        raise ConnectionError(f"no answer in {TRIES} tries")

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


class ClientMended(ClientBroken):
    """Makes each deposit once, whatever happens to the connection."""

    def deposit(self, amount: int) -> int:
        number = next(self._numbers)
        for _ in range(TRIES):
            try:
                if self._stream is None:
                    self._stream = self._connect()
                    self._reader = LineReader(self._stream, self._now)
                deadline = self._now() + PATIENCE
                self._stream.settimeout(PATIENCE)
                sendall(self._stream, sealed(number, amount))
                while (line := self._reader.line(deadline)) is not None:
                    # An answer to what was sent twice may still be on its way.
                    if (answer := opened(line)) and answer[0] == number:
                        return answer[1]
            except OSError:
                pass
            self.close()
        raise ConnectionError(f"no answer in {TRIES} tries")


def play(client_type: type[ClientBroken], plans: Iterable[Plan]) -> tuple[str, float]:
    """Make DEPOSITS; return what became of it, RIGHT if all is, and the seconds.

    Args:
        plans: one for each connection; those after the last have no faults.
    """
    bank, clock = Bank(), Clock()
    left = iter(plans)

    def connect() -> Stream:
        connection = Connection(bank, clock)
        return FaultySocket(connection, next(left, Plan()), clock.sleep)

    told = []
    with closing(client_type(connect, clock.now)) as client:
        try:
            for amount in DEPOSITS:
                told.append(client.deposit(amount))
        except Exception as error:
            return type(error).__name__, clock.time
    if bank.balance != sum(DEPOSITS):
        return f"has {bank.balance}", clock.time
    if told != list(itertools.accumulate(DEPOSITS)):
        return f"told {' '.join(map(str, told))}", clock.time
    return RIGHT, clock.time


SCENES = {
    "no fault": Plan(),
    "answer in pieces": Plan(received=(Pass(), Pass(), Pass(4), Pass(3))),
    "request in pieces": Plan(sent=(Pass(4), Pass(3), Pass(5))),
    "a delay of 25": Plan(received=(Pass(seconds=25),)),
    "request dropped": Plan(sent=(Drop(),)),
    "answer dropped": Plan(received=(Drop(),)),
    "reset in a request": Plan(sent=(Pass(4), Reset())),
    "reset, no answer": Plan(received=(Reset(),)),
    "request repeated": Plan(received=(Pass(len(sealed(1, 100))),), sent=(Repeat(),)),
    "half of it repeated": Plan(sent=(Pass(3), Repeat())),
}


# What becomes of the broken client where it does not come out right.
HARM = {
    "answer in pieces": "told 100 120 12",
    "a delay of 25": "has 223",
    "answer dropped": "has 223",
    "reset, no answer": "has 223",
    "request repeated": "told 100 100 123",
}


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def rightly_made(client_type: type[ClientBroken], n_plays: int) -> int:
    """Play with drawn plans; return how many times all went right."""
    dice = random.Random(SEED)
    return sum(
        play(client_type, [draw_plan(dice) for _ in range(CONNECTIONS)])[0] == RIGHT
        for _ in range(n_plays)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plans", type=positive, default=1000)
    n_plans: int = parser.parse_args().plans

    clients = (ClientBroken, ClientMended)
    print(f"{'':20} {'broken':28} mended")
    for name, plan in SCENES.items():
        became = [play(client, [plan]) for client in clients]
        cells = [f"{what}, {seconds:g} seconds" for what, seconds in became]
        print(f"{name:20} {cells[0]:28} {cells[1]}")
        if became[0][0] != HARM.get(name, RIGHT) or became[1][0] != RIGHT:
            raise SystemExit("only the broken client was to be wrong, and in its way")
    broken, mended = (rightly_made(client, n_plans) for client in clients)
    print(f"of {n_plans} drawn plans all went right in {broken}; mended, in {mended}")
    if mended != n_plans:
        raise SystemExit("the mended client was to be right")


if __name__ == "__main__":
    main()
