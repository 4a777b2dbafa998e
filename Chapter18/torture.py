# /// script
# requires-python = ">=3.11"
# dependencies = ["psutil>=6.0"]
# ///
"""Attacks servers in all the ways in which clients can be bad, and tells who stands it.

Each fault is what one client does: it is slow, broken, hostile or gone. Beside it are
two innocent ones, one that has been connected before and one that comes then. Whatever
the attacker does, both have to be answered within a second. The attacker has rights as
well: an answer to each whole line, or to be told why not, and an end.

What becomes of the attacker stands in the table, and in capitals what must not happen:

    HUNG           it waits in vain for what is due to it
    WRONG          it gets something else
    CUT OFF        it gets nothing, but the end of the connection
    RESET          an answer is lost, since the connection was reset
    SWALLOWS       the server takes in without end what it can never answer
    NO DEADLINE    the server waits for ever for somebody who dawdles
    SPINS          the server works without anything to do
    LEAKS          when all have gone, it keeps descriptors, memory or processes
    OTHERS SUFFER  an innocent client is not answered within a second
    DIED           the server has ended
    STATUS 1       when told to end, it ends with this exit status instead of 0

The server of example03 falls at once. It and the others are attacked further by --all,
which takes a minute, most of it for their deadlines. The one of example07
has to stand everything; its deadlines are shorter here. --port attacks your own, if it
knows the protocol of example02 and is on this machine; others cannot be attacked.

Try:  --all
Try:  --server example07 --fault slow-line
Try:  --port 8000

Output:
                        example03     example07
    two-at-once         HUNG          answered
    half-a-line         -             answered
    byte-by-byte        -             answered
    slow-line           -             error line
    three-at-once       -             answered
    line-of-telnet      -             answered
    urgent-byte         -             answered
    leave-at-once       -             no harm
    reset-when-idle     -             no harm
    reset-in-mid-line   -             no harm
    reset-after-request -             no harm
    reset-in-backlog    -             no harm
    no-utf8             -             error line
    nul-byte            -             error line
    empty-line          -             error line
    long-number         -             error line
    long-sum            -             error line
    long-result         -             error line
    long-product        -             error line
    endless-line        -             error line
    never-reads         -             closed
    end-in-mid-line     -             error line
    end-after-request   -             answered
    talk-after-quit     -             answered
    stay-after-quit     -             answered
    garbage             -             answered
    a-crowd             -             answered
    come-and-go         -             no harm
    no-descriptors      -             error line
    sigterm             -             answered
    sigint              -             answered
    example07 has stood all of 31 faults
"""

import argparse
import random
import re
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
from example01_echo_blocking import port
from example02_calculator import GREETING
from example07_calculator_on_the_reactor import calculate, listen, serve_until_signal
from reactor import Limits, Reactor
from server_process import NotOursError, ServerProcess, allow_descriptors

SECOND = 1.0  # seconds in which whoever is served has an answer
LAST_GASP = 1.0  # seconds after which a server that dies has ended
END = 10.0  # seconds for a server to end in order
LONGEST = 60.0  # seconds until no further client takes part in an attack
PATIENCE = 15.0  # seconds, within which the deadlines of a server pass
PACE = 0.05  # seconds from one byte of a dawdler to the next
STALL = 0.2  # seconds without progress: the other side takes no more
ENOUGH = 64 << 20  # bytes that nobody should take in for one line, or one client
CROWD = 1100  # clients; select takes descriptors below 1,024 only
ONE_CROWD = threading.Lock()  # is at work, or this program's descriptors might run out
FEW = 64  # descriptors
BUSY = 20  # clients with requests in flight
IN_FLIGHT = 1100  # requests of each: more than a server takes in at once
ROUNDS = 12  # after which no memory is to be added any more
VISITS = 300  # of clients that come and go, in a round
TRACE = 512  # bytes that a visit may leave behind
WORK = 0.2  # seconds of a core
MAX_SHARE = 0.1  # of what others use meanwhile, in idleness

# Of the real server: what it has otherwise is too long for a run of seconds.
SHORT = Limits(request=1.0, drain=0.3, linger=0.3, tick=0.1)
SHORT_PATIENCE = 5.0  # seconds

FOLDER = Path(__file__).parent
NAMES = [f"example{number:02}" for number in (3, 5, 6, 7, 8, 9, 10, 11)]
EARLY, REAL = "example03", "example07"

FATES = "no harm", "waits", "answered", "closed", "error line"  # a later one counts
NOT_TRIED = "-"

ERROR = rb"error: .+\n"
REFUSAL = rb"(error: .+\n)?"  # an error line, or at least the end
END_OF_STREAM = b""


class FallenError(Exception):
    """The server has not stood the attack; the text is a word for how."""


class Client:
    """A connection to a server, which waits a second at most for anything.

    Attributes:
        fate: what has become of it, one of FATES.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, SECOND)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self.fate = FATES[0]
        self._rest = b""

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """Return the next line; at the end of the stream what is left, or nothing."""
        while b"\n" not in self._rest and (data := self.socket.recv(65_536)):
            self._rest += data
        line, end, self._rest = self._rest.partition(b"\n")
        return line + end

    def hear(self, *patterns: bytes) -> None:
        """Receive lines that match `patterns`; the first one is part of its fate.

        Raises:
            FallenError: a line does not match.
        """
        for number, pattern in enumerate(patterns):
            line = self.line()
            if not re.fullmatch(pattern, line):
                raise FallenError("WRONG" if line else "CUT OFF")
            if number == 0:
                fate = "error line" if line.startswith(b"error") else "answered"
                self.fate = max(self.fate, fate if line else "closed", key=FATES.index)

    def ask(self) -> None:
        self.say(b"1,2,3\n")
        self.hear(b"6\n")  # the product as well as the sum

    def refused(self) -> str:
        """Receive an error line, or at least the end; return which it was."""
        self.fate = "closed"
        with suppress(ConnectionError):  # that is an end, too
            self.hear(REFUSAL, END_OF_STREAM)
        return self.fate

    def hears_within(self, seconds: float) -> bool:
        """Tell whether something comes until then, or the end."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def say_no_more(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def say_urgently(self) -> None:
        self.socket.send(b"!", socket.MSG_OOB)

    def reset(self) -> None:
        """Close so that the server does not see an end, but an error."""
        on_no_seconds = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on_no_seconds)
        self.socket.close()


class Server(ServerProcess):
    """One to be attacked; `patience` are seconds within which its deadlines pass."""

    def __init__(
        self, command: Sequence[str] = (), patience: float = PATIENCE, port: int = 0
    ) -> None:
        super().__init__(command, port)
        self.patience = patience

    def descriptors(self) -> int:
        """Return how many it has open; 0 if it is somebody else's."""
        return super().descriptors() if self.command else 0

    def has_died(self) -> bool:
        """Tell whether it has ended, or does so in a moment."""
        with suppress(NotOursError, subprocess.TimeoutExpired):
            self.process.wait(LAST_GASP)
            return True
        return False


class Attack:
    """One fault is tried on one server.

    Attributes:
        friend: the innocent client that has been connected before; None where a server
            has only one client at a time.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.friend: Client | None = None
        self._clients: list[Client] = []
        self._end = time.monotonic() + LONGEST

    def stranger(self) -> Client:
        """Return a client that has just connected.

        Raises:
            TimeoutError: it is one of many, and the server is too slow for them.
        """
        if time.monotonic() > self._end:
            raise TimeoutError
        client = Client(self.server.address)
        self._clients.append(client)
        return client

    def client(self) -> Client:
        """Return a client that has been greeted, which is no fate."""
        client = self.stranger()
        client.hear(GREETING)
        client.fate = FATES[0]
        return client

    def others(self, *, newcomer: bool = True) -> None:
        """Let the innocent clients ask.

        Raises:
            ConnectionRefusedError: there is no server any more.
            FallenError: one of them is not answered.
        """
        try:
            if self.friend is not None:
                self.friend.ask()
            if newcomer:
                client = Client(self.server.address)
                with client.socket:
                    client.hear(GREETING)
                    client.ask()
        except ConnectionRefusedError:
            raise
        except (TimeoutError, ConnectionError, FallenError):
            raise FallenError("OTHERS SUFFER") from None

    def others_soon(self, seconds: float) -> None:
        """Let the innocent clients ask until they are served, so long at most.

        A server may need a moment to notice that others have left.

        Raises:
            FallenError: they are not.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(FallenError):
                return self.others()
        return self.others()

    def until_told(
        self, client: Client, act: Callable[[], object], otherwise: str
    ) -> str:
        """Act until `client` is refused; return its fate.

        Raises:
            FallenError: the deadlines have passed before.
        """
        deadline = time.monotonic() + self.server.patience
        while not client.hears_within(PACE):
            if time.monotonic() > deadline:
                raise FallenError(otherwise)
            act()
        return client.refused()

    def leave(self) -> None:
        """Close all connections but the friend's."""
        for client in self._clients:
            if client is not self.friend:
                client.socket.close()

    def expect_descriptors(self, most: int) -> None:
        """Wait until the server has no more of them.

        Raises:
            FallenError: it keeps them.
        """
        deadline = time.monotonic() + SHORT_PATIENCE
        while self.server.descriptors() > most:
            if time.monotonic() > deadline:
                raise FallenError("LEAKS")
            time.sleep(PACE)

    def close(self) -> None:
        self.friend = None
        self.leave()


# -- faults: what an attacker does, and its fate

Fault = Callable[[Attack], str]
Step = bytes | None | Callable[[Client], object]

OTHERS = None  # are served meanwhile


def talk(*steps: Step) -> Fault:
    """Make a fault of what an attacker says, hears and does otherwise."""

    def fault(attack: Attack) -> str:
        client = attack.client()
        for step in steps:
            if step is OTHERS:
                attack.others()
            elif isinstance(step, bytes):
                client.say(step)
            else:
                step(client)
        return client.fate

    return fault


def hear(*patterns: bytes) -> Step:
    return lambda client: client.hear(*patterns)


def slow_line(attack: Attack) -> str:
    """Begin a line, and send a byte now and then (slowloris); only a deadline helps."""
    client = attack.client()
    client.say(b"1")
    attack.others()
    return attack.until_told(client, lambda: client.say(b"1"), "NO DEADLINE")


def long_product(attack: Attack) -> str:
    """Ask for a product of so many factors that it takes seconds."""
    client = attack.client()
    client.say(b"product\n")
    client.hear(b"now: product\n")
    client.say(b",".join([b"9"] * 150_000) + b"\n")
    return attack.until_told(client, attack.others, "HUNG")


def endless_line(attack: Attack) -> str:
    """Send a line that does not end; to refuse it after 64 MiB is too late."""
    client = attack.client()
    deadline = time.monotonic() + SHORT_PATIENCE
    with suppress(ConnectionError):  # perhaps the error line has come all the same
        for _ in range(ENOUGH >> 16):
            if client.hears_within(0) or time.monotonic() > deadline:
                break
            client.say(b"1" * (1 << 16))
    if not client.hears_within(0):
        raise FallenError("SWALLOWS")
    attack.others()
    return client.refused()


def never_reads(attack: Attack) -> str:
    """Ask and ask, and never read an answer."""
    client = attack.client()
    client.socket.settimeout(STALL)
    data, sent = (b"9" * 999 + b"\n") * 60, 0
    deadline = time.monotonic() + attack.server.patience
    while sent < ENOUGH:
        if time.monotonic() > deadline:
            raise FallenError("NO DEADLINE")
        try:
            sent += client.socket.send(data)
        except TimeoutError:
            attack.others()
        except ConnectionError:
            return "closed"
    raise FallenError("SWALLOWS")


def stay_after_quit(attack: Attack) -> str:
    """Do not close when the server has done so; it has to give up some time."""
    client = attack.client()
    client.say(b"quit\n")
    client.hear(b"goodbye\n", END_OF_STREAM)
    deadline = time.monotonic() + attack.server.patience
    with suppress(ConnectionError):  # who has given up does not take it
        while time.monotonic() < deadline:
            client.say(b"1")
            time.sleep(PACE)
        raise FallenError("NO DEADLINE")
    return client.fate


def garbage(attack: Attack) -> str:
    """Send what no client would; each line is answered, though."""
    chance = random.Random(18)
    for alphabet in (bytes(range(256)), b"0123456789,,,-+_ \t\r\n") * 5:
        client = attack.client()
        text = bytes(chance.choices(alphabet, k=2000)) + b"\n"
        client.say(text)
        client.say_no_more()
        answers = [rb"error: .+\n|-?\d+\n"] * text.count(b"\n")
        client.hear(*answers, END_OF_STREAM)
    return "answered"


def a_crowd(attack: Attack) -> str:
    """Be 1,100 clients, and say nothing; none of them is left without a word."""
    with ONE_CROWD:
        try:
            for _ in range(CROWD):
                client = attack.stranger()
                client.hear(GREETING + b"|" + REFUSAL)
                if client.fate != "answered":
                    return client.fate
            attack.others()
            client.ask()
            return client.fate
        finally:
            attack.leave()


def come_and_go(attack: Attack) -> str:
    """Say half a line, and go, again and again; no memory is spent on who has gone."""
    # Not what is taken at first tells a leak, but that there is no end of it.
    for _ in range(ROUNDS):
        before = attack.server.memory()
        for number in range(VISITS):
            client = attack.client()
            client.say(b"1" * 4000)
            client.reset() if number % 2 else client.socket.close()
        attack.others_soon(SHORT_PATIENCE)
        if attack.server.memory() - before < VISITS * TRACE:
            return client.fate
    raise FallenError("LEAKS")


def no_descriptors(attack: Attack) -> str:
    """Be more clients than the server has descriptors; then let it recover."""
    for _ in range(2 * FEW):
        client = attack.stranger()
    if client.hears_within(SECOND):
        client.hear(GREETING + b"|" + REFUSAL)
    else:
        client.fate = "waits"  # which is its right, as there is no room for it
    attack.others(newcomer=False)
    # On a busy machine a server that spins gets no more of a core than we do.
    for _ in range(3):
        before, began = attack.server.cpu_time(), time.thread_time()
        while time.thread_time() < began + WORK:
            pass
        if attack.server.cpu_time() - before < MAX_SHARE * WORK:
            break
    else:
        raise FallenError("SPINS")
    attack.leave()
    attack.others_soon(SHORT_PATIENCE)
    return client.fate


def stopped_by(number: signal.Signals) -> Fault:
    """Make a fault: the server is stopped while requests are in flight."""

    def fault(attack: Attack) -> str:
        server = attack.server
        family = server.family()
        clients = [attack.client() for _ in range(BUSY)]
        with server.frozen():
            for client in clients:
                client.say(b"1,2\n" * IN_FLIGHT)
            server.process.send_signal(number)
        try:
            for client in clients:
                client.socket.settimeout(END)
                client.hear(*[b"3\n"] * IN_FLIGHT, END_OF_STREAM)
        except ConnectionError:
            raise FallenError("CUT OFF") from None
        attack.close()
        if status := server.process.wait(END):
            raise FallenError(f"STATUS {status}")
        if psutil.wait_procs(family[1:], END)[1]:
            raise FallenError("LEAKS")
        return client.fate

    return fault


def reset_in_backlog(attack: Attack) -> str:
    """Be gone before the server has accepted the connection."""
    with attack.server.frozen():
        for _ in range(3):
            attack.stranger().reset()
    return FATES[0]


FAULTS: dict[str, Fault] = {
    "two-at-once": talk(OTHERS, Client.ask),
    "half-a-line": talk(b"1,2", OTHERS, b",3\n", hear(b"6\n")),
    "byte-by-byte": talk(
        b"1", OTHERS, b",", OTHERS, b"2", OTHERS, b"\n", OTHERS, hear(b"3\n")
    ),
    "slow-line": slow_line,
    "three-at-once": talk(b"1,2\n3,4\n5,6\n", hear(b"3\n", b"7\n", b"11\n")),
    "line-of-telnet": talk(b"1,2\r\n", hear(b"3\n")),
    "urgent-byte": talk(Client.say_urgently, OTHERS, Client.ask),
    "leave-at-once": talk(lambda client: client.socket.close()),
    "reset-when-idle": talk(Client.reset),
    "reset-in-mid-line": talk(b"1,2", Client.reset),
    "reset-after-request": talk(b"1,2\n" * 100, Client.reset),
    "reset-in-backlog": reset_in_backlog,
    # One bad line is no reason to be cut off.
    "no-utf8": talk(b"\xff\xfe\n", hear(ERROR), Client.ask),
    "nul-byte": talk(b"1\x00,2\n", hear(ERROR), Client.ask),
    "empty-line": talk(b"\n", hear(ERROR), Client.ask),
    # Python converts 4,300 digits at most, to integers and to text.
    "long-number": talk(b"9" * 5000 + b"\n", hear(ERROR)),
    "long-sum": talk(b"9" * 4300 + b",1\n", hear(ERROR)),
    "long-result": talk(
        b"product\n",
        hear(b"now: product\n"),
        b",".join([b"9" * 1000] * 5) + b"\n",
        hear(ERROR),
    ),
    "long-product": long_product,
    "endless-line": endless_line,
    "never-reads": never_reads,
    "end-in-mid-line": talk(b"1,2", Client.say_no_more, Client.refused),
    "end-after-request": talk(
        b"1,2\n", Client.say_no_more, hear(b"3\n", END_OF_STREAM)
    ),
    "talk-after-quit": talk(
        b"quit\n" + b"1,2\n" * 10_000, hear(b"goodbye\n", END_OF_STREAM)
    ),
    "stay-after-quit": stay_after_quit,
    "garbage": garbage,
    "a-crowd": a_crowd,
    "come-and-go": come_and_go,
    "no-descriptors": no_descriptors,
    "sigterm": stopped_by(signal.SIGTERM),
    "sigint": stopped_by(signal.SIGINT),
}
ENDINGS = "sigterm", "sigint"


def attempt(name: str, server: Server, alone: bool = False) -> str:
    """Try a fault on a server; return a word, in capitals if the server has fallen.

    Args:
        alone: the server has one client at a time, so that no innocent one can have
            been connected before.
    """
    attack = Attack(server)
    try:
        server.start(FEW if name == "no-descriptors" else None)
        if not alone:
            attack.friend = attack.client()
        before = server.descriptors()
        word = FAULTS[name](attack)
        if name in ENDINGS:
            return word
        attack.others()
        attack.leave()
        attack.others_soon(SECOND)
        attack.expect_descriptors(before)
    except NotOursError:
        return NOT_TRIED
    except FallenError as error:
        word = str(error)
    except (TimeoutError, subprocess.TimeoutExpired):
        word = "HUNG"
    except (ConnectionRefusedError, psutil.NoSuchProcess):
        word = "DIED"
    except ConnectionError:
        word = "RESET"
    finally:
        attack.close()
    if word.isupper() and name not in ENDINGS and server.has_died():
        return "DIED"
    return word


def attack_all(
    server: Server, names: Sequence[str], to_the_first_fall: bool
) -> list[str]:
    """Try one fault after the other, each on a server that has not fallen yet."""
    words: list[str] = []
    alone = False
    try:
        for name in names:
            words.append(attempt(name, server, alone))
            if words[-1].isupper():
                server.end()
                if to_the_first_fall:
                    break
                alone |= name == "two-at-once"
    finally:
        server.end()
    return words + [NOT_TRIED] * (len(names) - len(words))


def attack_side_by_side(
    servers: Mapping[str, Server], names: Sequence[str], may_stop: Container[str] = ()
) -> dict[str, list[str]]:
    """Attack all servers at the same time; return the words for each.

    Args:
        may_stop: those that are attacked to their first fall only.
    """
    with ThreadPoolExecutor(len(servers)) as pool:
        try:
            attacks = {
                name: pool.submit(attack_all, server, names, name in may_stop)
                for name, server in servers.items()
            }
            return {name: attack.result() for name, attack in attacks.items()}
        finally:  # after Ctrl-C, or if one cannot be started, the threads end soon
            for server in servers.values():
                server.stop()


def serve_with_short_deadlines() -> None:
    """Serve the calculator of example07 until SIGINT or SIGTERM."""
    serve_until_signal(Reactor(calculate, listen(), SHORT))


def of_this_chapter(name: str) -> Server:
    """Return the server of an example; the real one with short deadlines."""
    if name == REAL:
        return Server([sys.executable, __file__, "--real"], SHORT_PATIENCE)
    [script] = FOLDER.glob(f"{name}_*.py")
    return Server([sys.executable, str(script), "--serve"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--all", action="store_true", help="every server of the chapter")
    whom.add_argument("--server", choices=NAMES, help="only this one")
    whom.add_argument("--port", type=port, help="your own server, on this machine")
    whom.add_argument("--real", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fault", choices=FAULTS, metavar="NAME", help="only this one")
    options = parser.parse_args()
    if sys.platform == "win32":
        print("needs POSIX signals and process groups")
        sys.exit(77)
    allow_descriptors(CROWD + 2 * FEW * len(NAMES) + 500)
    if options.real:
        serve_with_short_deadlines()
        return

    names = [options.fault] if options.fault else list(FAULTS)
    by_default = not (options.all or options.server or options.port is not None)
    may_stop = [EARLY] if by_default else []
    try:
        if options.port is not None:
            servers = {"yours": Server(port=options.port)}
            client = Client(servers["yours"].address)
            with client.socket:
                if client.line() != GREETING:  # nothing else is to be attacked
                    raise SystemExit("no attack: its greeting is not that of example02")
        else:
            chosen = NAMES if options.all else [*may_stop, options.server or REAL]
            servers = {name: of_this_chapter(name) for name in chosen}
        table = attack_side_by_side(servers, names, may_stop)
    except (OSError, RuntimeError) as error:
        raise SystemExit(f"no attack: {error}") from None

    print(f"{'':20}" + "".join(f"{name:14}" for name in table).rstrip())
    for name, *words in zip(names, *table.values(), strict=True):
        print(f"{name:20}" + "".join(f"{word:14}" for word in words).rstrip())
    judged = REAL if REAL in table else next(iter(table))
    tried = [word for word in table[judged] if word != NOT_TRIED]
    if not tried:
        raise SystemExit(f"{options.fault} needs a server that is started here")
    if fallen := sum(map(str.isupper, tried)):
        raise SystemExit(f"{judged} has fallen to {fallen} of {len(tried)} faults")
    if may_stop and not options.fault and not any(map(str.isupper, table[EARLY])):
        raise SystemExit(f"{EARLY} was to fall, and has not")
    print(f"{judged} has stood all of {len(tried)} faults")


if __name__ == "__main__":
    main()
