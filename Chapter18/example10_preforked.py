"""The calculator in several processes on one port, which a supervisor keeps alive.

Each process runs the reactor of example07, so one core each does Python's work, also
where there is a GIL. Nothing is shared but the number of the port: each process has a
listener of its own on it, with SO_REUSEPORT, and the system shares new connections out
among them. (Linux does. macOS gives all to one of them; Windows has no such option.)
That is for servers that need more than one core, or are to survive a crash.

The supervisor only watches. When a process dies, its clients lose their connections,
those of the others notice nothing, and a new one takes its place. If that happens too
often, there is no point in going on, as in Erlang's supervisors. What it takes besides:

* The supervisor holds the port by a socket that is bound and does not listen.
* It tells the processes through pipes to stop. One without a supervisor stops, too.
* A process that stops takes in who waits for its listener before it closes that, or
  they would be reset. (Reactor does.) One that is killed cannot.

gunicorn and uWSGI are such supervisors.

Source: Linux man-pages, socket(7), SO_REUSEPORT; Erlang/OTP, Supervisor Behaviour.

Try:  --workers 4
Try:  --serve --port 8000

Output:
    processes          2, on one port
    one is killed      its client is cut off; another is answered: 7
    replaced           1, in 12 ms
    the new one        answers: 9
    a stop in mid-line is answered first: 6
    all 2 end with status 0
"""

import argparse
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import Pipe, Process, parent_process, resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Self

from example01_echo_blocking import options_of
from example07_calculator_on_the_reactor import BACKLOG, HOST, calculate, signals_call
from example08_thread_per_connection import Caller
from reactor import Limits, Reactor

LIMITS = Limits()
MOST = 32  # processes
LIMIT = 20.0  # seconds for what should take a fraction of one
DEATHS, WINDOW = 5, 10.0  # of each process on the average, in so many seconds
TRIES = 1000  # connections until one has come to a certain process


class DyingError(Exception):
    """Processes die again and again."""


class OneOfMany(Reactor):
    """A reactor whose statistics begin with the number of its process."""

    def summary(self) -> bytes:
        return b"process %d, %s" % (os.getpid(), super().summary())


def serve_until_told(number: int, limits: Limits, line: Connection) -> None:
    """Serve on a port, until something comes through `line` or the parent is gone.

    Run by each process. SIGTERM stops it, too, which makes the supervisor replace it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # that is for the supervisor
    listener = socket.create_server((HOST, number), backlog=BACKLOG, reuse_port=True)
    reactor = OneOfMany(calculate, listener, limits)
    signal.signal(signal.SIGTERM, lambda *_: reactor.stop())
    parent = parent_process()
    assert parent is not None

    def stop() -> None:
        wait([line, parent.sentinel])
        reactor.stop()

    threading.Thread(target=stop, daemon=True).start()
    line.send_bytes(b"ready")
    reactor.run()


class Supervisor:
    """Keeps processes at work on a port. To be used in a `with` block.

    By the main thread, and before there are others: some systems fork.

    Args:
        number: of the port; 0: any free one.
        n_workers: how many processes.

    Attributes:
        port: the one that they serve on.
        replaced: how many have died.
        statuses: with which the last ones have ended, after the block.

    Raises:
        OSError: the port cannot be had.
    """

    def __init__(self, number: int, n_workers: int, limits: Limits = LIMITS) -> None:
        self.replaced = 0
        self.statuses: list[int | None] = []
        self._n_workers = n_workers
        self._limits = limits
        self._workers: dict[int, tuple[Process, Connection]] = {}  # by sentinel
        self._deaths: deque[float] = deque()  # when, by time.monotonic
        self._pid = os.getpid()
        self._stops = False
        self._stopped, self._stopper = Pipe(duplex=False)
        self._holder = socket.socket()
        try:
            for option in socket.SO_REUSEADDR, socket.SO_REUSEPORT:
                self._holder.setsockopt(socket.SOL_SOCKET, option, True)
            self._holder.bind((HOST, number))
        except OSError:
            self._close()
            raise
        self.port: int = self._holder.getsockname()[1]

    @property
    def pids(self) -> set[int | None]:
        return {process.pid for process, _ in self._workers.values()}

    def start(self) -> None:
        """Start all processes; return when they serve."""
        self._start(self._n_workers)

    def run(self) -> None:
        """Replace those that die, until `stop`.

        Raises:
            DyingError: too many have died.
        """
        while not self._stops:
            self.turn()

    def turn(self, timeout: float | None = None) -> int:
        """Wait until processes die, or for `stop`; replace the dead.

        Returns:
            How many there were.

        Raises:
            DyingError: too many have died.
        """
        ready = wait([*self._workers, self._stopped], timeout)
        dead = [one for one in ready if isinstance(one, int)]
        for sentinel in dead:
            process, line = self._workers.pop(sentinel)
            process.join()
            line.close()
        self.replaced += len(dead)
        now = time.monotonic()
        self._deaths.extend([now] * len(dead))
        while self._deaths and self._deaths[0] < now - WINDOW:
            self._deaths.popleft()
        if len(self._deaths) > DEATHS * self._n_workers:
            raise DyingError(f"{len(self._deaths)} deaths within {WINDOW:g} s")
        if not self._stops:
            self._start(len(dead))
        return len(dead)

    def stop(self) -> None:
        """Have `run` return; also from a signal handler."""
        # A process that has only just been forked has the handlers of this one.
        if not self._stops and os.getpid() == self._pid:
            self._stops = True
            with suppress(OSError):  # it is closed
                self._stopper.send_bytes(b"stop")

    def dismiss(self) -> None:
        """Tell all processes to stop in order, and wait for none."""
        for _, line in self._workers.values():
            with suppress(OSError):  # it has died
                line.send_bytes(b"stop")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop all processes: in order, or after an exception at once."""
        processes = [process for process, _ in self._workers.values()]
        try:
            if kind is None:
                self.dismiss()
                limits = self._limits  # as the reactor winds up, and a bit more
                patience = limits.stop + limits.linger + 2 * limits.tick
                deadline = time.monotonic() + patience
                for process in processes:
                    process.join(max(0, deadline - time.monotonic()))
        finally:
            with ctrl_c_later():
                for process in processes:
                    process.kill()  # no effect on one that has ended
                    process.join()
                self._close()
        self.statuses = [process.exitcode for process in processes]

    def _start(self, n: int) -> None:
        new = []
        for _ in range(n):
            ours, theirs = Pipe()
            arguments = self.port, self._limits, theirs
            process = Process(target=serve_until_told, args=arguments, daemon=True)
            resource_tracker.ensure_running()  # its start would let Ctrl-C through
            with ctrl_c_later():
                process.start()
                self._workers[process.sentinel] = process, ours
            theirs.close()
            new.append((process.sentinel, ours))
        for either in new:
            if not wait(either, LIMIT):
                raise DyingError(f"a process does not serve after {LIMIT:g} s")

    def _close(self) -> None:
        for _, line in self._workers.values():
            line.close()
        self._stopped.close()
        self._stopper.close()
        self._holder.close()


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


def call(number: int, wanted: Callable[[int], bool]) -> tuple[int, Caller]:
    """Connect to a port until a process answers that is `wanted`.

    Returns:
        Its number, and the client.

    Raises:
        LookupError: none does.
    """
    for _ in range(TRIES):
        caller = Caller(number)
        caller.line()
        pid = int(caller.ask("stats").split(",")[0].removeprefix("process "))
        if wanted(pid):
            return pid, caller
        caller.close()
    raise LookupError(f"none of {TRIES} connections has come to another process")


def processes(text: str) -> int:
    number = int(text)
    if not 2 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be in 2 … {MOST}, not {number}")
    return number


def serve(supervisor: Supervisor) -> None:
    """Serve until SIGINT or SIGTERM, also while the processes start or end."""
    with signals_call(supervisor.stop), supervisor:
        supervisor.start()
        print(f"serving on {HOST} port {supervisor.port} until Ctrl-C", flush=True)
        supervisor.run()
    print(f"died and replaced {supervisor.replaced}")


def demonstrate(supervisor: Supervisor) -> None:
    """Try it out, and see that all processes end in order."""
    with supervisor, ExitStack() as stack:
        supervisor.start()
        kill_one_and_stop(supervisor, stack)
    if any(supervisor.statuses):
        raise SystemExit(f"all were to end with status 0, not {supervisor.statuses}")
    print(f"all {len(supervisor.statuses)} end with status 0")


def kill_one_and_stop(supervisor: Supervisor, stack: ExitStack) -> None:
    """Kill a process, and stop the others with a line half sent."""
    first, one = call(supervisor.port, lambda pid: True)
    stack.callback(one.close)
    try:
        _, other = call(supervisor.port, lambda pid: pid != first)
    except LookupError:
        print("needs a system that shares out connections among listeners on one port")
        raise SystemExit(77) from None
    stack.callback(other.close)
    print(f"processes          {len(supervisor.pids)}, on one port")

    before = supervisor.pids
    began = time.perf_counter()
    os.kill(first, signal.SIGKILL)
    end, answer = one.line(), other.ask("3,4")
    replaced = supervisor.turn(LIMIT)
    took = time.perf_counter() - began
    print(f"one is killed      its client is cut off; another is answered: {answer}")
    print(f"replaced           {replaced}, in {1e3 * took:.0f} ms")
    if end or answer != "7" or replaced != 1:
        raise SystemExit("one process was to die, alone, and be replaced")
    _, third = call(supervisor.port, lambda pid: pid not in before)
    stack.callback(third.close)
    print(f"the new one        answers: {third.ask('4,5')}")

    other.send("1,2,")
    supervisor.dismiss()
    begun = other.ask("3")
    print(f"a stop in mid-line is answered first: {begun}")
    if begun != "6":
        raise SystemExit("what has begun was to be answered")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=processes, default=2, help="processes")
    options = options_of(parser)
    if not hasattr(socket, "SO_REUSEPORT"):
        print("needs SO_REUSEPORT")
        raise SystemExit(77)
    try:
        supervisor = Supervisor(options.port, options.workers, LIMITS)
    except OSError as error:
        raise SystemExit(f"port {options.port}: {error}") from None
    try:
        serve(supervisor) if options.serve else demonstrate(supervisor)
    except (DyingError, LookupError, ConnectionError) as error:
        raise SystemExit(f"given up: {error}") from None


if __name__ == "__main__":
    main()
