# /// script
# requires-python = ">=3.11"
# dependencies = ["psutil>=6.0"]
# ///
"""Runs a server in a process of its own, where it can be frozen, counted and killed.

Who tests a server, or measures one, wants it outside: so that it has a GIL of its own,
and dies without taking the test with it. From there one sees what it cannot hide, how
many descriptors it has open, and how much memory and time of a core it uses.

A process that is frozen (SIGSTOP) still has its sockets. The system takes connections
and requests for it, so that what is sent meanwhile is certainly on its way and not
answered yet. That is how load_generator.py makes a server stall, and how torture.py
gets requests into flight before it stops one.

Output:
    it serves           1,2 is answered: 3
    frozen              3,4 has been sent; no answer in 0.10 s
    it goes on          3,4 is answered: 7
    10 clients come     10 descriptors more
    they have gone      none more
    SIGTERM             status 0
    the server was seen from outside, and nothing of it is left
"""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Self

import psutil
from example02_calculator import GREETING
from example07_calculator_on_the_reactor import HOST, PATIENCE

START = 20.0  # seconds for a server to start, on a busy machine
FREEZE = 0.1  # seconds
N_CLIENTS = 10
FOLDER = Path(__file__).parent
RESTING = psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE


class NotOursError(Exception):
    """This cannot be done to a server that was not started here."""


class StoppedError(Exception):
    """The program is to end."""


class ServerProcess:
    """A server that is started when needed, or, without `command`, somebody else's.

    As a context manager it starts at the beginning of the block, and is killed at the
    end if it is still there.

    Args:
        command: prints `serving on HOST port NUMBER until Ctrl-C` as its first line.
        port: where somebody else's is.
    """

    def __init__(self, command: Sequence[str] = (), port: int = 0) -> None:
        self.command = command
        self._port = port
        self._descriptors: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._reader = threading.Thread()
        self._stopped = False  # nothing is to be started any more

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def address(self) -> tuple[str, int]:
        """Where it is.

        Raises:
            StoppedError: `stop` has been called. So all who connect are told to end.
        """
        if self._stopped:
            raise StoppedError
        return HOST, self._port

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            raise NotOursError
        return self._process

    def start(self, descriptors: int | None = None) -> None:
        """Have it running, with so many descriptors (on POSIX), None for many.

        Raises:
            NotOursError: it is somebody else's, who gives it descriptors.
            RuntimeError: it does not announce that it serves.
            StoppedError: `stop` has been called.
        """
        if not self.command:
            if descriptors is not None:
                raise NotOursError
            return
        runs = self._process is not None and self._process.poll() is None
        if runs and descriptors == self._descriptors:
            return
        self.end()
        if self._stopped:
            raise StoppedError
        with ThreadPoolExecutor(1) as thread:  # Ctrl-C cannot come in its midst there
            thread.submit(self._launch, descriptors).result()
        said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(
            target=_read, args=(self.process.stdout, said), daemon=True
        )
        self._reader.start()
        line = b""
        with suppress(queue.Empty):
            line = said.get(timeout=START)
        match = re.fullmatch(rb"serving on \S+ port (\d+) until Ctrl-C\r?\n", line)
        if match is None:
            raise RuntimeError(f"{Path(self.command[1]).name} does not serve")
        self._port = int(match[1])

    def _launch(self, descriptors: int | None) -> None:
        limit = f'ulimit -n {descriptors} && exec "$0" "$@"'
        self._descriptors = descriptors
        self._process = subprocess.Popen(
            [*(["sh", "-c", limit] if descriptors else []), *self.command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is not for it; and it is killed with all
        )

    def stop(self) -> None:
        """Kill it, for good: it cannot be started again. From any thread."""
        self._stopped = True
        self._kill()

    def end(self) -> None:
        """Kill it with all its processes, and wait for its end."""
        if self._process is None:
            return
        self._kill()
        self._process.wait()
        if self._reader.is_alive():
            self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def _kill(self) -> None:
        process = self._process  # another thread may just end it
        if process is not None:
            with suppress(ProcessLookupError, PermissionError):
                if sys.platform == "win32":
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)

    def family(self) -> list[psutil.Process]:
        """Return its processes.

        Raises:
            NotOursError: it is somebody else's.
            psutil.NoSuchProcess: it has ended.
        """
        if self.process.poll() is not None:
            raise psutil.NoSuchProcess(self.process.pid)
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def total(self, figure: Callable[[psutil.Process], float]) -> float:
        """Return the sum of a figure of all its processes; raise like `family`."""
        total = 0.0
        for one in self.family():
            with suppress(psutil.Error):  # it ends just now
                total += figure(one)
        return total

    def descriptors(self) -> int:
        """Return how many it has open; raise like `family`."""
        return int(self.total(lambda one: one.num_fds()))

    def memory(self) -> int:
        """Return the bytes of memory it has; raise like `family`."""
        return int(self.total(lambda one: one.memory_info().rss))

    def cpu_time(self) -> float:
        """Return the seconds of cores that it has used; raise like `family`."""
        return self.total(lambda one: sum(one.cpu_times()[:2]))

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let it do nothing during the block; raise like `family`."""
        family = self.family()
        try:
            for one in family:
                one.suspend()
            while any(one.status() not in RESTING for one in family):
                time.sleep(0.001)  # a signal may take its time
            yield
        finally:
            for one in family:
                with suppress(psutil.NoSuchProcess):
                    one.resume()


def _read(output: IO[bytes], said: "queue.SimpleQueue[bytes]") -> None:
    """Hand on the first line; the others must not fill the pipe, or it would wait."""
    said.put(output.readline())
    output.read()


def example07() -> ServerProcess:
    """Return the calculator on the reactor, to be started."""
    script = FOLDER / "example07_calculator_on_the_reactor.py"
    return ServerProcess([sys.executable, str(script), "--serve"])


def allow_descriptors(wanted: int) -> None:
    """Raise the limit of files that this process may have open, where there is one.

    Those that it starts afterwards have the same limit.
    """
    try:
        import resource
    except ImportError:  # on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def hear(client: socket.socket, text: str) -> None:
    """Receive this line.

    Raises:
        SystemExit: something else has come, or nothing.
    """
    heard = b""
    while len(heard) <= len(text) and (data := client.recv(len(text) + 1 - len(heard))):
        heard += data
    if heard != text.encode() + b"\n":
        raise SystemExit(f"{text!r} was to come, and not {heard!r}")


def until(what: str, true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} was to be seen")
        time.sleep(0.001)


def main() -> None:
    if sys.platform == "win32":
        print("needs POSIX signals")
        sys.exit(77)
    with example07() as server, ExitStack() as stack:

        def connect() -> socket.socket:
            client = socket.create_connection(server.address, PATIENCE)
            stack.enter_context(client)
            hear(client, GREETING.decode().strip())
            return client

        client = connect()
        client.sendall(b"1,2\n")
        hear(client, "3")
        print("it serves           1,2 is answered: 3")
        with server.frozen():
            client.sendall(b"3,4\n")
            client.settimeout(FREEZE)
            with suppress(TimeoutError):
                raise SystemExit(f"it was to be frozen, and says {client.recv(9)!r}")
        print(f"frozen              3,4 has been sent; no answer in {FREEZE:.2f} s")
        client.settimeout(PATIENCE)
        hear(client, "7")
        print("it goes on          3,4 is answered: 7")

        before = server.descriptors()
        for _ in range(N_CLIENTS):
            connect()
        more = server.descriptors() - before
        print(f"{N_CLIENTS} clients come     {more} descriptors more")
        stack.close()
        until("no descriptor more", lambda: server.descriptors() == before - 1)
        print("they have gone      none more")
        server.process.terminate()
        status = server.process.wait(PATIENCE)
        print(f"SIGTERM             status {status}")
        if more != N_CLIENTS or status:
            raise SystemExit(
                "a descriptor was to be used for each, and status 0 to come"
            )
    print("the server was seen from outside, and nothing of it is left")


if __name__ == "__main__":
    main()
