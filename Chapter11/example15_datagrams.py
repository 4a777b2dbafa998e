"""Datagrams keep their boundaries, but may be lost, doubled, or overtake each other.

UDP sends each datagram as one, and that is all it promises: no connection, no order, no
answer to say that one has arrived. A relay between the two ends here loses one, and
lets another overtake the one before it. The receiver can tell by sequence numbers only.

The mend is what TCP does: every datagram is acknowledged, and sent again when that is
overdue; the receiver puts them in order and drops what it has already. Only so many are
under way at a time, so that the receiver needs no more room than that. `Sender` and
`Receiver` know neither sockets nor clocks: here the clock is put forward whenever
nothing is under way any more, and a test tries every pattern of losses on them.

J. F. Kurose, K. W. Ross, "Computer Networking", section 3.4.4 (selective repeat).

Output:
    sent              0 1 2 3 4 5 6 7
    arrived           0 1 3 4 6 5 7
    acknowledged, all but 1 the first time; window 4
    arrived           0 1 3 4 1 2 6 5 7
    delivered         0 1 2 3 4 5 6 7
    65,508 bytes      error_received; nothing was sent
    nobody there      error_received, later and not on every system
    8 messages whole, once and in order; 2 were sent again
"""

import asyncio
import errno
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import cast

HOST = "127.0.0.1"
DATA, ACK = 0, 1  # kinds of datagrams
HEADER = struct.Struct("!BI")  # kind, sequence number
LARGEST = 1200  # bytes of a message: no network on the way takes it to pieces
WINDOW = 4  # datagrams under way at a time
OVERDUE = 0.2  # seconds until a datagram without acknowledgement is sent again
ATTEMPTS = 10  # to send a datagram
TIME_LIMIT = 20.0  # seconds for the whole demonstration

Address = tuple[str, int]


def encode(kind: int, number: int, message: bytes = b"") -> bytes:
    """Return a datagram.

    Raises:
        ValueError: the message has more than LARGEST bytes.
    """
    if len(message) > LARGEST:
        raise ValueError(f"{len(message)} bytes are too many for a datagram")
    return HEADER.pack(kind, number) + message


def decode(datagram: bytes) -> tuple[int, int, bytes] | None:
    """Return kind, number and message; None if it is not one of ours.

    Anybody may send anything to a port.
    """
    if not HEADER.size <= len(datagram) <= HEADER.size + LARGEST:
        return None
    kind, number = HEADER.unpack_from(datagram)
    message = datagram[HEADER.size :]
    if kind not in {DATA, ACK} or (kind == ACK and message):
        return None
    return kind, number, message


class Sender:
    """Decides what to send, and when again, so that all messages arrive.

    Args:
        messages: what to send, LARGEST bytes each at most; 2**32 of them at most.
        window: how many may be under way at a time; not more than the receiver's.
        overdue: seconds to wait for an acknowledgement.
        attempts: to send a message.
    """

    def __init__(
        self,
        messages: Sequence[bytes],
        window: int = WINDOW,
        overdue: float = OVERDUE,
        attempts: int = ATTEMPTS,
    ) -> None:
        self.sent_again = 0
        self._datagrams = [encode(DATA, n, m) for n, m in enumerate(messages)]
        self._window = window
        self._overdue = overdue
        self._attempts = attempts
        self._next = 0  # the first that has never been sent
        # By number, in order: those sent and not acknowledged; how often, and when.
        self._waiting: dict[int, tuple[int, float]] = {}

    @property
    def done(self) -> bool:
        """All messages have been acknowledged."""
        return not self._waiting and self._next == len(self._datagrams)

    def due(self, now: float) -> list[bytes]:
        """Return what is to be sent at time `now`, and take it for sent.

        Raises:
            ConnectionError: a message was sent in vain so often as is allowed.
        """
        due = []
        for number, (times, when) in self._waiting.items():
            if now >= when + self._overdue:  # as in wait(): no rounding apart
                if times == self._attempts:
                    raise ConnectionError(f"message {number}: sent {times} times")
                self._waiting[number] = times + 1, now
                self.sent_again += 1
                due.append(self._datagrams[number])
        # The window begins at the first without acknowledgement: the receiver keeps
        # what comes after a gap, but not more than a window of it.
        first = min(self._waiting, default=self._next)
        end = min(first + self._window, len(self._datagrams))
        for number in range(self._next, end):
            self._waiting[number] = 1, now
            due.append(self._datagrams[number])
        self._next = max(self._next, end)
        return due

    def receive(self, datagram: bytes) -> None:
        """Take note of an acknowledgement; ignore everything else."""
        match decode(datagram):
            case (kind, number, _) if kind == ACK:
                self._waiting.pop(number, None)  # it may come twice

    def wait(self, now: float) -> float:
        """Return the seconds from `now` until something will be overdue, 0 at least."""
        sent = [when for _, when in self._waiting.values()]
        return max(0.0, min(sent, default=now) + self._overdue - now)


class Receiver:
    """Puts messages in order, each of them once.

    Args:
        window: how many it keeps that have overtaken another.
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._next = 0  # the number of the message that is to be delivered next
        self._early: dict[int, bytes] = {}  # less than a window of them

    def receive(self, datagram: bytes) -> tuple[list[bytes], bytes | None]:
        """Return the messages that can be delivered now, and what to answer, if any."""
        match decode(datagram):
            case (kind, number, message) if (
                kind == DATA and number < self._next + self._window
            ):
                # What is here already is acknowledged again: the sender asks because
                # the first acknowledgement was lost.
                if number >= self._next:
                    self._early[number] = message
            case _:
                return [], None
        deliverable = []
        while self._next in self._early:
            deliverable.append(self._early.pop(self._next))
            self._next += 1
        return deliverable, encode(ACK, number)


async def send_all(
    sender: Sender,
    send: Callable[[bytes], object],
    next_datagram: Callable[[float], Awaitable[bytes | None]],
    now: Callable[[], float],
) -> None:
    """Send until all has been acknowledged.

    Args:
        next_datagram: waits for so many seconds at most; returns None if nothing came.
        now: the time in seconds.

    Raises:
        ConnectionError: the other side does not answer.
    """
    while True:
        for datagram in sender.due(now()):
            send(datagram)
        if sender.done:
            return
        arrived = await next_datagram(sender.wait(now()))
        if arrived is not None:
            sender.receive(arrived)


class Endpoint(asyncio.DatagramProtocol):
    """Hands over what arrives at a socket.

    Args:
        on_datagram: called with each datagram.

    Attributes:
        errors: what the system has reported. That is about datagrams sent before.
    """

    transport: asyncio.DatagramTransport

    def __init__(self, on_datagram: Callable[[bytes, Address], object]) -> None:
        self.errors: asyncio.Queue[Exception] = asyncio.Queue()
        self.closed = asyncio.Event()
        self._on_datagram = on_datagram

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._on_datagram(data, addr)

    def error_received(self, exc: Exception) -> None:
        self.errors.put_nowait(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    @property
    def address(self) -> Address:
        """Where it is."""
        return cast(Address, self.transport.get_extra_info("sockname"))


@asynccontextmanager
async def endpoint(
    on_datagram: Callable[[bytes, Address], object], remote: Address | None = None
) -> AsyncIterator[Endpoint]:
    """Give a datagram socket on a free port; one that talks with `remote` only, if any.

    Raises:
        OSError: there is none.
    """
    _, made = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: Endpoint(on_datagram),
        local_addr=None if remote else (HOST, 0),
        remote_addr=remote,
    )
    try:
        yield made
    finally:
        made.transport.close()
        await made.closed.wait()


class Relay:
    """Stands between two ends, loses some datagrams and lets others be overtaken.

    Args:
        lose: each of these is lost, the first time that it comes by.
        hold: each of these is held, the first time, until the next one has gone by.
    """

    def __init__(self, lose: Iterable[bytes], hold: Iterable[bytes]) -> None:
        self._lose = set(lose)
        self._hold = set(hold)
        self._held: list[bytes] = []

    def pass_on(self, datagram: bytes) -> list[bytes]:
        """Return what is to be sent on, now that `datagram` has come."""
        if datagram in self._lose:
            self._lose.remove(datagram)
            return []
        if datagram in self._hold:
            self._hold.remove(datagram)
            self._held.append(datagram)
            return []
        passed = [datagram, *self._held]
        self._held.clear()
        return passed


class Network:
    """A sender, the relay and a receiver, each at a socket of its own.

    Attributes:
        arrived: the datagrams that the receiver got, in order.
        answers: those that came back to the sender and have not been taken.
        under_way: datagrams that are neither lost nor held nor there yet.
    """

    def __init__(self, relay: Relay, answer: Callable[[bytes], bytes | None]) -> None:
        self.arrived: list[bytes] = []
        self.answers: list[bytes] = []
        self.under_way = 0
        self._relay = relay
        self._answer = answer

    @asynccontextmanager
    async def connected(self) -> "AsyncIterator[Network]":
        """Open the sockets; close them in the end."""
        async with (
            endpoint(self._at_receiver) as self._receiver,
            endpoint(self._at_relay) as self._between,
            endpoint(self._at_sender, self._between.address) as self._sender,
        ):
            yield self

    def send(self, datagram: bytes) -> None:
        """Send a datagram from the sender to the receiver."""
        self._send(self._sender, datagram, None)

    def _send(self, from_: Endpoint, datagram: bytes, to: Address | None) -> None:
        self.under_way += 1
        from_.transport.sendto(datagram, to)

    def _at_relay(self, datagram: bytes, sender: Address) -> None:
        self.under_way -= 1
        back = sender == self._receiver.address
        to = self._sender.address if back else self._receiver.address
        for passed in self._relay.pass_on(datagram):
            self._send(self._between, passed, to)

    def _at_receiver(self, datagram: bytes, sender: Address) -> None:
        self.under_way -= 1
        self.arrived.append(datagram)
        answer = self._answer(datagram)
        if answer is not None:
            self._send(self._receiver, answer, sender)

    def _at_sender(self, datagram: bytes, _: Address) -> None:
        self.under_way -= 1
        self.answers.append(datagram)


def numbers(datagrams: Iterable[bytes]) -> list[int]:
    """Return the sequence numbers of datagrams."""
    return [decoded[1] for datagram in datagrams if (decoded := decode(datagram))]


def text(numbers: Iterable[int]) -> str:
    return " ".join(map(str, numbers))


async def unprotected(messages: Sequence[bytes], relay: Relay) -> list[bytes]:
    """Send each message once; return the datagrams that arrive."""
    async with Network(relay, lambda _: None).connected() as network:
        for number, message in enumerate(messages):
            network.send(encode(DATA, number, message))
        while network.under_way:
            await asyncio.sleep(0)
    return network.arrived


async def protected(
    messages: Sequence[bytes], relay: Relay
) -> tuple[list[bytes], list[bytes], int]:
    """Return the datagrams that arrive, what is delivered, and how many were resent."""
    delivered: list[bytes] = []
    receiver, sender = Receiver(), Sender(messages)
    clock = 0.0

    def receive(datagram: bytes) -> bytes | None:
        deliverable, answer = receiver.receive(datagram)
        delivered.extend(deliverable)
        return answer

    async def next_datagram(seconds: float) -> bytes | None:
        nonlocal clock
        while not network.answers:
            if not network.under_way:  # nothing will come, however long one waits
                clock += seconds
                return None
            await asyncio.sleep(0)
        return network.answers.pop(0)

    async with Network(relay, receive).connected() as network:
        await send_all(sender, network.send, next_datagram, lambda: clock)
    return network.arrived, delivered, sender.sent_again


async def refused_by_the_system() -> None:
    """Send what is too large, and to nobody; print how one gets to know."""
    async with endpoint(lambda *_: None) as large:
        large.transport.sendto(bytes(65_508), large.address)  # 65,507 fit into IPv4
        error = await large.errors.get()
    if not isinstance(error, OSError):
        raise SystemExit(f"too large a datagram: {error!r}")
    print("65,508 bytes      error_received; nothing was sent")

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind((HOST, 0))
        taken.connect(taken.getsockname())  # hears itself alone: nobody is there
        async with endpoint(lambda *_: None, taken.getsockname()) as lonely:
            lonely.transport.sendto(b"anybody there?")
            patience = TIME_LIMIT if sys.platform == "linux" else OVERDUE
            try:
                async with asyncio.timeout(patience):
                    error = await lonely.errors.get()
            except TimeoutError:  # not every system tells
                error = ConnectionRefusedError(errno.ECONNREFUSED, "")
    if not isinstance(error, ConnectionError):
        raise SystemExit(f"a datagram to nobody: {error!r}")
    print("nobody there      error_received, later and not on every system")


async def demonstrate() -> None:
    """Lose and swap datagrams, without and with acknowledgements."""
    messages = [bytes([n]) * (100 * n) for n in range(8)]
    lost, overtaken = (encode(DATA, n, messages[n]) for n in (2, 5))
    async with asyncio.timeout(TIME_LIMIT):
        arrived = await unprotected(messages, Relay([lost], [overtaken]))
        print(f"sent              {text(range(len(messages)))}")
        print(f"arrived           {text(numbers(arrived))}")
        if arrived != [encode(DATA, n, messages[n]) for n in (0, 1, 3, 4, 6, 5, 7)]:
            raise SystemExit("2 was to be lost, and 5 to be overtaken")

        relay = Relay([lost, encode(ACK, 1)], [overtaken])
        arrived, delivered, again = await protected(messages, relay)
        print(f"acknowledged, all but 1 the first time; window {WINDOW}")
        print(f"arrived           {text(numbers(arrived))}")
        print(f"delivered         {text(messages.index(one) for one in delivered)}")
        if delivered != messages or again != 2:
            raise SystemExit("all was to be delivered, once and in order")
        await refused_by_the_system()
    print(f"{len(messages)} messages whole, once and in order; {again} were sent again")


def main() -> None:
    asyncio.run(demonstrate())


if __name__ == "__main__":
    main()
