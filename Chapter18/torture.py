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
    OTHERS SUFFER  an innocent client is not answered within a second
    DIED           the server has ended
    STATUS 1       when told to end, it ends with this exit status instead of 0

The server of example03 falls at once. It and the others are attacked further by --all,
which takes half a minute or more, most of it for their deadlines. The one of example07
has to stand everything; its deadlines are shorter here. --connect attacks your own, if
it knows the protocol of example02.

Try:  --all
Try:  --server example07 --fault slow_line
Try:  --connect 127.0.0.1:8000

Output:
                        example03     example07
    two at once         HUNG          answered
    half a line         -             answered
    byte by byte        -             answered
    slow line           -             error line
    three at once       -             answered
    reset when idle     -             no harm
    reset in mid line   -             no harm
    reset after request -             no harm
    reset in backlog    -             no harm
    no utf8             -             error line
    nul byte            -             error line
    empty line          -             error line
    long number         -             error line
    long result         -             error line
    long product        -             error line
    endless line        -             error line
    never reads         -             closed
    end in mid line     -             error line
    end after request   -             answered
    talk after quit     -             closed
    garbage             -             answered
    a crowd             -             answered
    no descriptors      -             error line
    sigterm             -             answered
    sigint              -             answered
    example07 has stood all of 25 faults
"""

import argparse
import os
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
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
from example02_calculator import GREETING
from example07_calculator_on_the_reactor import calculate, listen, signals_call
from reactor import Limits, Reactor

Address = tuple[str, int]

SECOND = 1.0  # seconds in which whoever is served has an answer
LAST_GASP = 1.0  # seconds after which a server that dies has ended
START = 20.0  # seconds for a server to start, on a busy machine
END = 10.0  # seconds for a server to end in order
PATIENCE = 15.0  # seconds, within which the deadlines of a server pass
PACE = 0.05  # seconds from one byte of a dawdler to the next
STALL = 0.2  # seconds without progress: the other side takes no more
ENOUGH = 64 << 20  # bytes that nobody should take in for one line, or one client
CROWD = 1100  # clients; select takes descriptors below 1,024 only
ONE_CROWD = threading.Lock()  # is at work, or this program's descriptors might run out
FEW = 64  # descriptors
IN_FLIGHT = 20  # requests
MAX_SHARE = 0.03  # of a core, in idleness: less than a tick of the clock in 0.3 s

# Of the real server: what it has otherwise is too long for a run of seconds.
SHORT = Limits(request=1.0, drain=0.5, linger=0.5, tick=0.1)
SHORT_PATIENCE = 5.0  # seconds

FOLDER = Path(__file__).parent
EARLY, REAL = "example03", "example07"
SCRIPTS = {
    EARLY: "example03_calculator_server_blocking.py",
    "example05": "example05_coroutines_with_callbacks.py",
    "example06": "example06_small_reactor.py",
    REAL: "example07_calculator_on_the_reactor.py",
    "example08": "example08_thread_per_connection.py",
    "example09": "example09_thread_pool.py",
    "example10": "example10_preforked.py",
    "example11": "example11_asyncio_streams.py",
}

ANSWERED, TOLD, CLOSED, HARMLESS = "answered", "error line", "closed", "no harm"


class FallenError(Exception):
    """The server has not stood the attack; the text is a word for how."""


class NotPossibleError(Exception):
    """This cannot be done to a server that was not started here."""


class StoppedError(Exception):
    """The program is to end."""


class Client:
    """A connection to a server, which waits a second at most for anything."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, SECOND)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._rest = b""

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """Return the next line; at the end of the stream what is left, or nothing."""
        while b"\n" not in self._rest and (data := self.socket.recv(65_536)):
            self._rest += data
        line, end, self._rest = self._rest.partition(b"\n")
        return line + end

    def hear(self, *lines: bytes) -> None:
        """Receive these lines, the empty one for the end of the stream."""
        for line in lines:
            if (heard := self.line()) != line:
                raise FallenError("WRONG" if heard else "CUT OFF")

    def ask(self) -> None:
        self.say(b"1,2\n")
        self.hear(b"3\n")

    def welcome(self) -> str:
        """Receive the greeting, an error line or the end, and return which."""
        line = self.line()
        if line == GREETING:
            return ANSWERED
        if line and not line.startswith(b"error"):
            raise FallenError("WRONG")
        return TOLD if line else CLOSED

    def refusal(self) -> str:
        """Receive an error line, or at least the end, and return which."""
        if (heard := self.welcome()) == ANSWERED:
            raise FallenError("WRONG")
        return heard

    def error(self) -> str:
        """Receive an error line."""
        if self.refusal() == CLOSED:
            raise FallenError("CUT OFF")
        return TOLD

    def has_come(self) -> bool:
        """Tell whether there is something to be received, or the end."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        finally:
            self.socket.settimeout(SECOND)
        return True

    def say_no_more(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close so that the server does not see an end, but an error."""
        on_no_seconds = struct.pack("ii", 1, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, on_no_seconds)
        self.socket.close()


class Server:
    """A server that is started when needed, or, without `command`, somebody else's.

    Attributes:
        patience: seconds within which its deadlines pass.
        stopped: set when nothing is to be started any more.
    """

    def __init__(
        self,
        command: Sequence[str],
        stopped: threading.Event,
        patience: float = PATIENCE,
        address: Address | None = None,
    ) -> None:
        self.patience = patience
        self.stopped = stopped
        self._command = command
        self._address = address
        self._descriptors: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None

    @property
    def address(self) -> Address:
        """Where it is; asked for by each new client, so that it is told to end, too."""
        if self.stopped.is_set():
            raise StoppedError
        assert self._address is not None
        return self._address

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise NotPossibleError
        return self._process

    def start(self, descriptors: int | None = None) -> None:
        """Have it running, with so many descriptors, None for many.

        Raises:
            NotPossibleError: it is somebody else's.
            RuntimeError: it does not announce that it serves.
        """
        if not self._command:
            if descriptors is not None:
                raise NotPossibleError
            return
        runs = self._process is not None and self._process.poll() is None
        if runs and descriptors == self._descriptors:
            return
        self.end()
        if self.stopped.is_set():
            raise StoppedError
        limit = f'ulimit -n {descriptors} && exec "$0" "$@"'
        self._descriptors = descriptors
        self._process = subprocess.Popen(
            [*(["sh", "-c", limit] if descriptors else []), *self._command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it; and it is killed with all
        )
        output = self._process.stdout
        assert output is not None
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            said = output.readline() if selector.select(START) else b""
        match = re.fullmatch(rb"serving on (\S+) port (\d+) until Ctrl-C\r?\n", said)
        if match is None:
            raise RuntimeError(f"{Path(self._command[1]).name} does not serve")
        self._address = match[1].decode(), int(match[2])
        # What else it prints must not fill the pipe, or it would wait for ever.
        self._reader = threading.Thread(target=output.read, daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """Kill it with all its processes."""
        process = self._process  # another thread may just end it
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and wait for its end."""
        if self._process is None:
            return
        self.kill()
        self._process.wait()
        if self._reader is not None:
            self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = self._reader = None

    def has_died(self) -> bool:
        """Tell whether it has ended, or does so in a moment."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(LAST_GASP)
                return True
        return False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it do nothing during the block, so that what is sent is in flight."""
        try:
            os.killpg(self.process.pid, signal.SIGSTOP)
            _, status = os.waitpid(self.process.pid, os.WUNTRACED)  # it has stopped
        except (ProcessLookupError, ChildProcessError):
            raise FallenError("DIED") from None
        if not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
            raise FallenError("DIED")
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGCONT)

    def share(self, seconds: float) -> float:
        """Return what part of a core it uses during so many seconds."""
        own = psutil.Process(self.process.pid)
        family = [own, *own.children(recursive=True)]

        def used() -> float:
            return sum(sum(one.cpu_times()[:2]) for one in family)

        before, began = used(), time.perf_counter()
        time.sleep(seconds)
        return (used() - before) / (time.perf_counter() - began)


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

    def stranger(self) -> Client:
        """Return a client that has just connected."""
        client = Client(self.server.address)
        self._clients.append(client)
        return client

    def client(self) -> Client:
        """Return a client that has been greeted."""
        client = self.stranger()
        client.hear(GREETING)
        return client

    def others(self, newcomer: bool = True) -> None:
        """Let the innocent clients ask.

        Raises:
            FallenError: one of them is not answered.
        """
        try:
            if self.friend is not None:
                self.friend.ask()
            if newcomer:
                self.client().ask()
        except (TimeoutError, FallenError):
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

    def leave(self) -> None:
        """Close all connections but the friend's."""
        for client in self._clients:
            if client is not self.friend:
                client.socket.close()

    def close(self) -> None:
        for client in self._clients:
            client.socket.close()


# -- faults


def two_at_once(attack: Attack) -> str:
    """Be connected beside others, and nothing worse."""
    client = attack.client()
    attack.others()
    client.ask()
    return ANSWERED


def half_a_line(attack: Attack) -> str:
    """Send the other half when others have been served."""
    client = attack.client()
    client.say(b"1,2")
    attack.others()
    client.say(b",3\n")
    client.hear(b"6\n")
    return ANSWERED


def byte_by_byte(attack: Attack) -> str:
    """Send each byte in a packet of its own, and let others ask in between."""
    client = attack.client()
    for number in b"1,2,3\n":
        client.say(bytes([number]))
        attack.others()
    client.hear(b"6\n")
    return ANSWERED


def slow_line(attack: Attack) -> str:
    """Begin a line, and send a byte now and then (slowloris); only a deadline helps."""
    client = attack.client()
    client.say(b"1")
    attack.others()
    client.socket.settimeout(PACE)
    deadline = time.monotonic() + attack.server.patience
    while time.monotonic() < deadline:
        client.say(b"1")
        with suppress(TimeoutError):
            return client.refusal()
    raise FallenError("NO DEADLINE")


def three_at_once(attack: Attack) -> str:
    """Send three lines before the first answer."""
    client = attack.client()
    client.say(b"1,2\n3,4\n5,6\n")
    client.hear(b"3\n", b"7\n", b"11\n")
    attack.others()
    return ANSWERED


def reset_when_idle(attack: Attack) -> str:
    """Be gone, without saying so, before the first request."""
    attack.client().reset()
    attack.others()
    return HARMLESS


def reset_in_mid_line(attack: Attack) -> str:
    """Be gone before a line has ended."""
    client = attack.client()
    client.say(b"1,2")
    client.reset()
    attack.others()
    return HARMLESS


def reset_after_request(attack: Attack) -> str:
    """Be gone when the answer comes."""
    client = attack.client()
    client.say(b"1,2\n" * 100)
    client.reset()
    attack.others()
    return HARMLESS


def reset_in_backlog(attack: Attack) -> str:
    """Be gone before the server has accepted the connection."""
    with attack.server.frozen():
        for _ in range(3):
            attack.stranger().reset()
    attack.others()
    return HARMLESS


def not_a_number(attack: Attack, line: bytes) -> str:
    """Send a line that no integer is made of, and then one that is right."""
    client = attack.client()
    client.say(line + b"\n")
    told = client.error()
    attack.others()
    client.ask()  # one bad line is no reason to be cut off
    return told


def no_utf8(attack: Attack) -> str:
    """Send bytes that cannot be decoded."""
    return not_a_number(attack, b"\xff\xfe")


def nul_byte(attack: Attack) -> str:
    """Send a byte that ends a string in C."""
    return not_a_number(attack, b"1\x00,2")


def empty_line(attack: Attack) -> str:
    """Send nothing, and its end."""
    return not_a_number(attack, b"")


def long_number(attack: Attack) -> str:
    """Send more digits than Python converts to an integer."""
    client = attack.client()
    client.say(b"9" * 5000 + b"\n")
    told = client.error()
    attack.others()
    return told


def long_result(attack: Attack) -> str:
    """Ask for a product of more digits than Python converts to a string."""
    client = attack.client()
    client.say(b"product\n")
    client.hear(b"now: product\n")
    client.say(b",".join([b"9" * 900] * 5) + b"\n")
    told = client.error()
    attack.others()
    return told


def long_product(attack: Attack) -> str:
    """Ask for a product of so many factors that it takes seconds."""
    client = attack.client()
    client.say(b"product\n")
    client.hear(b"now: product\n")
    client.say(b",".join([b"9"] * 150_000) + b"\n")
    deadline = time.monotonic() + attack.server.patience
    while not client.has_come() and time.monotonic() < deadline:
        attack.others()
    return client.refusal()


def endless_line(attack: Attack) -> str:
    """Send a line that does not end; to refuse it after 64 MiB is too late."""
    client = attack.client()
    data, sent = b"1" * 65_536, 0
    deadline = time.monotonic() + SHORT_PATIENCE
    with suppress(ConnectionError):  # perhaps the error line has come all the same
        while not client.has_come():
            if sent >= ENOUGH or time.monotonic() > deadline:
                raise FallenError("SWALLOWS")
            client.say(data)
            sent += len(data)
    attack.others()
    try:
        return client.refusal()
    except ConnectionError:
        return CLOSED


def never_reads(attack: Attack) -> str:
    """Ask and ask, and never read an answer."""
    client = attack.client()
    data, sent = (b"9" * 999 + b"\n") * 60, 0
    for timeout in (STALL, attack.server.patience):
        client.socket.settimeout(timeout)
        try:
            while sent < ENOUGH:
                sent += client.socket.send(data)
            raise FallenError("SWALLOWS")
        except TimeoutError:
            if timeout != STALL:
                raise FallenError("NO DEADLINE") from None
        except ConnectionError:
            break
        attack.others()
    return CLOSED


def end_in_mid_line(attack: Attack) -> str:
    """Say that no more is to come, after half a line."""
    client = attack.client()
    client.say(b"1,2")
    client.say_no_more()
    told = client.refusal()
    attack.others()
    return told


def end_after_request(attack: Attack) -> str:
    """Say that no more is to come, and wait for the answer."""
    client = attack.client()
    client.say(b"1,2\n")
    client.say_no_more()
    client.hear(b"3\n", b"")
    attack.others()
    return ANSWERED


def talk_after_quit(attack: Attack) -> str:
    """Go on after the last word, which has to arrive all the same."""
    client = attack.client()
    client.say(b"quit\n" + b"1,2\n" * 10_000)
    client.hear(b"goodbye\n", b"")
    attack.others()
    return CLOSED


def garbage(attack: Attack) -> str:
    """Send what no client would; each line is answered, though."""
    chance = random.Random(18)
    for alphabet in (bytes(range(256)), b"0123456789,,,-+_ \t\r\n") * 5:
        client = attack.client()
        text = bytes(chance.choices(alphabet, k=2000)) + b"\n"
        client.say(text)
        client.say_no_more()
        for _ in range(text.count(b"\n")):
            line = client.line()
            if not re.fullmatch(rb"error: .+\n|-?\d+\n", line):
                raise FallenError("WRONG" if line else "CUT OFF")
        client.hear(b"")
    attack.others()
    return ANSWERED


def a_crowd(attack: Attack) -> str:
    """Be 1,100 clients, and say nothing; none of them is left without a word."""
    with ONE_CROWD:
        try:
            for _ in range(CROWD):
                client = attack.stranger()
                if (heard := client.welcome()) != ANSWERED:
                    return heard
            attack.others()
            client.ask()
            return ANSWERED
        finally:
            attack.leave()


def no_descriptors(attack: Attack) -> str:
    """Be more clients than the server has descriptors; then let it recover."""
    told = "waits"
    for _ in range(2 * FEW):
        client = attack.stranger()
    with suppress(TimeoutError):
        told = client.welcome()
    attack.others(newcomer=False)
    if not any(attack.server.share(0.3) < MAX_SHARE for _ in range(5)):
        raise FallenError("SPINS")
    attack.leave()
    attack.others_soon(SHORT_PATIENCE)
    return told


def stopped_by(number: signal.Signals, attack: Attack) -> str:
    """Stop the server while requests are in flight; each is answered."""
    clients = [attack.client() for _ in range(IN_FLIGHT)]
    with attack.server.frozen():
        for client in clients:
            client.say(b"1,2\n")
        attack.server.process.send_signal(number)
    try:
        for client in clients:
            client.socket.settimeout(END)
            client.hear(b"3\n", b"")
    except ConnectionError:
        raise FallenError("CUT OFF") from None
    attack.close()
    status = attack.server.process.wait(END)
    if status != 0:
        raise FallenError(f"STATUS {status}")
    return ANSWERED


def sigterm(attack: Attack) -> str:
    """Stop the server by SIGTERM while requests are in flight; each is answered."""
    return stopped_by(signal.SIGTERM, attack)


def sigint(attack: Attack) -> str:
    """Stop the server by Ctrl-C while requests are in flight; each is answered."""
    return stopped_by(signal.SIGINT, attack)


Fault = Callable[[Attack], str]

FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        two_at_once,
        half_a_line,
        byte_by_byte,
        slow_line,
        three_at_once,
        reset_when_idle,
        reset_in_mid_line,
        reset_after_request,
        reset_in_backlog,
        no_utf8,
        nul_byte,
        empty_line,
        long_number,
        long_result,
        long_product,
        endless_line,
        never_reads,
        end_in_mid_line,
        end_after_request,
        talk_after_quit,
        garbage,
        a_crowd,
        no_descriptors,
        sigterm,
        sigint,
    )
}
ENDINGS = (sigterm, sigint)


class Verdict(NamedTuple):
    """What became of the attacker, or of the server; `stood` is None if not tried."""

    word: str
    stood: bool | None


NOT_TRIED = Verdict("-", None)


def attempt(fault: Fault, server: Server, alone: bool = False) -> Verdict:
    """Try a fault on a server.

    Args:
        alone: the server has one client at a time, so that no innocent one can have
            been connected before.
    """
    attack = Attack(server)
    try:
        server.start(FEW if fault is no_descriptors else None)
        if not alone:
            attack.friend = attack.client()
        word = fault(attack)
        if fault not in ENDINGS:
            attack.leave()
            attack.others_soon(SECOND)
        return Verdict(word, True)
    except NotPossibleError:
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
    if word in {"CUT OFF", "RESET", "OTHERS SUFFER"} and fault not in ENDINGS:
        word = "DIED" if server.has_died() else word
    return Verdict(word, False)


def attack_all(
    server: Server, faults: Sequence[Fault], to_the_first_fall: bool
) -> list[Verdict]:
    """Try one fault after the other, each on a server that has not fallen yet."""
    verdicts: list[Verdict] = []
    try:
        alone = False
        for fault in faults:
            verdict = attempt(fault, server, alone)
            verdicts.append(verdict)
            if verdict.stood is False:
                server.end()
                if to_the_first_fall:
                    break
                alone |= fault is two_at_once
    finally:
        server.end()
    return verdicts + [NOT_TRIED] * (len(faults) - len(verdicts))


def serve_with_short_deadlines() -> None:
    """Serve the calculator of example07 until SIGINT or SIGTERM."""
    listener = listen()
    reactor = Reactor(calculate, listener, SHORT)
    with signals_call(reactor.stop):
        host, port = listener.getsockname()
        print(f"serving on {host} port {port} until Ctrl-C", flush=True)
        reactor.run()


def allow_descriptors(wanted: int) -> None:
    """Raise the limit of files that this process may have open, where there is one."""
    try:
        import resource
    except ImportError:  # on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def address_of(text: str) -> Address:
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError(f"must be HOST:PORT, not {text}")
    return host.strip("[]"), int(port)


def of_this_chapter(name: str, stopped: threading.Event) -> Server:
    """Return the server of an example; the real one with short deadlines."""
    if name == REAL:
        command = [sys.executable, __file__, "--real"]
        return Server(command, stopped, SHORT_PATIENCE)
    return Server([sys.executable, str(FOLDER / SCRIPTS[name]), "--serve"], stopped)


def attack_side_by_side(
    servers: Mapping[str, Server], faults: Sequence[Fault], may_stop: Container[str]
) -> dict[str, list[Verdict]]:
    """Attack all servers at the same time; return the verdicts on each.

    Args:
        may_stop: those that are attacked to their first fall only.
    """
    with ThreadPoolExecutor(len(servers)) as pool:
        try:
            attacks = {
                name: pool.submit(attack_all, server, faults, name in may_stop)
                for name, server in servers.items()
            }
            return {name: attack.result() for name, attack in attacks.items()}
        finally:  # after Ctrl-C, or if one cannot be started, the threads end soon
            for server in servers.values():
                server.stopped.set()
                server.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--all", action="store_true", help="every server of the chapter")
    whom.add_argument("--server", choices=SCRIPTS, help="only this one")
    whom.add_argument("--connect", type=address_of, metavar="HOST:PORT")
    whom.add_argument("--real", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fault", choices=FAULTS, metavar="NAME", help="only this one")
    options = parser.parse_args()
    if sys.platform == "win32":
        print("needs POSIX signals and process groups")
        sys.exit(77)
    allow_descriptors(CROWD + 2 * FEW * len(SCRIPTS) + 500)
    if options.real:
        serve_with_short_deadlines()
        return

    faults = [FAULTS[options.fault]] if options.fault else list(FAULTS.values())
    stopped = threading.Event()
    may_stop = []
    if options.connect:
        servers = {"yours": Server((), stopped, PATIENCE, options.connect)}
    elif options.all:
        servers = {name: of_this_chapter(name, stopped) for name in SCRIPTS}
    elif options.server:
        servers = {options.server: of_this_chapter(options.server, stopped)}
    else:
        servers = {name: of_this_chapter(name, stopped) for name in (EARLY, REAL)}
        may_stop = [EARLY]
    try:
        if options.connect:
            Client(options.connect).socket.close()
        table = attack_side_by_side(servers, faults, may_stop)
    except (OSError, RuntimeError) as error:
        raise SystemExit(f"no attack: {error}") from None

    print(f"{'':20}" + "".join(f"{name:14}" for name in table).rstrip())
    for fault, *verdicts in zip(faults, *table.values(), strict=True):
        name = fault.__name__.replace("_", " ")
        print(f"{name:20}" + "".join(f"{one.word:14}" for one in verdicts).rstrip())
    judged = REAL if REAL in table else next(iter(table))
    stood = [verdict.stood for verdict in table[judged]]
    if False in stood:
        raise SystemExit(f"{judged} has fallen to {stood.count(False)} faults")
    if not options.fault and any(table[name][-1].stood for name in may_stop):
        raise SystemExit(f"{EARLY} was to fall, and has not")
    print(f"{judged} has stood all of {stood.count(True)} faults")


if __name__ == "__main__":
    main()
