"""A daemon process is ended with its program, in the middle of whatever it does.

When a program ends, it waits for its children, but for those that are daemons: to
these it sends SIGTERM, as terminate() does, for which Python has no handler, so neither
`with` nor `finally` is carried out. If it is the program that is killed, it cannot end
anybody: its daemon goes on, with nobody to end it. (A Unix daemon, which is meant to
outlive its program, is something else.) And a daemon may not start processes, which
would be left behind.

So a daemon is for work that may be lost, and a promise that nobody waits for it; other
children are asked to stop, and joined. Here the "program" is a child process, so that
its end can be watched; its worker waits in the middle of its work until then.

Book: Chapter 6, example4.

Output:
    worker    its program  which         the worker has
    no daemon returns      waits for it  begun, done, cleaned up
    a daemon  returns      is gone       begun
    a daemon  is killed    is gone       begun, done, cleaned up
    a daemon's own child: daemonic processes are not allowed to have children
    a daemon's work is lost at the end of its program, clean-up and all
"""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal

GRACE = 0.1  # seconds after which a program that is still there waits for something
LIMIT = 30.0  # seconds that a program may take to end on a busy machine

End = Literal["returns", "is killed"]


def work(log: Connection, go_on: Connection) -> None:
    """Log the steps of a piece of work; in the middle of it, wait until told."""
    try:
        log.send("begun")
        go_on.recv()
        log.send("done")
    finally:
        log.send("cleaned up")


def program(
    daemon: bool, log: Connection, go_on: Connection, may_end: Connection
) -> None:
    """Start a worker, wait for leave to end, and return: no join, no farewell."""
    worker = multiprocessing.Process(target=work, args=(log, go_on), daemon=daemon)
    worker.start()
    may_end.recv()


@dataclass(frozen=True, slots=True)
class Observed:
    """What could be seen of a program and its worker.

    Attributes:
        waited: the program did not end while the worker was in the middle of its work.
        steps: what the worker logged, from its beginning to its end.
        exitcode: the program's.
    """

    waited: bool
    steps: list[str]
    exitcode: int | None


def watch(daemon: bool, end: End) -> Observed:
    """Run a program with a worker, daemon or not, and see what its end does to both."""
    log, log_in = multiprocessing.Pipe(duplex=False)
    # Pipes, not events: set() waits until all waiters wake, also those that are dead.
    go_on, tell_worker = multiprocessing.Pipe(duplex=False)
    may_end, tell_program = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.Process(
        target=program, args=(daemon, log_in, go_on, may_end)
    )
    # Ctrl-C has to wait: a program that is killed may leave its worker behind.
    with log, go_on, tell_worker, may_end, tell_program, ctrl_c_later():
        with running([process]):
            log_in.close()  # now the log ends when the worker and the program have
            steps = [log.recv()]
            if end == "is killed":
                process.kill()
                # With a limit, join() would watch a pipe that a forked worker holds.
                process.join()
            else:
                tell_program.send("end")
                process.join(LIMIT if daemon else GRACE)
            waited = process.is_alive()
            tell_worker.send("go on")
            with suppress(EOFError):
                while True:
                    steps.append(log.recv())
        return Observed(waited, steps, process.exitcode)


def have_a_child(answer: Connection) -> None:
    """Try to start a process; send what came of it."""
    child = multiprocessing.Process()
    try:
        child.start()
        child.join()
        answer.send("a child")
    except AssertionError as error:
        answer.send(str(error))


def child_of_a_daemon() -> str:
    """Return what a daemon hears that starts a process."""
    answer, sender = multiprocessing.Pipe(duplex=False)
    daemon = multiprocessing.Process(target=have_a_child, args=(sender,), daemon=True)
    with answer, running([daemon]):
        sender.close()
        return str(answer.recv())


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


@contextmanager
def running(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """Start `processes`, wait for them at the end of the block; kill those still there.

    Killed are those that have not ended when the block, or the waiting, raises.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    try:
        with ctrl_c_later():
            for process in processes:
                process.start()
        yield
        for process in processes:
            process.join()
    finally:
        with ctrl_c_later():
            for process in processes:
                if process.pid is not None:  # it has been started
                    process.kill()  # no effect on one that has ended
                    process.join()


def main() -> None:
    if sys.platform != "win32":
        # Its start lets Ctrl-C through (3.11, 3.12): not while processes are started.
        resource_tracker.ensure_running()

    print("worker    its program  which         the worker has")
    cases: list[tuple[bool, End, bool, list[str]]] = [
        (False, "returns", True, ["begun", "done", "cleaned up"]),
        (True, "returns", False, ["begun"]),
        (True, "is killed", False, ["begun", "done", "cleaned up"]),
    ]
    for daemon, end, waits, steps in cases:
        seen = watch(daemon, end)
        kind = "a daemon" if daemon else "no daemon"
        then = "waits for it" if seen.waited else "is gone"
        print(f"{kind:9} {end:12} {then:13} {', '.join(seen.steps)}")
        if (seen.waited, seen.steps) != (waits, steps):
            raise SystemExit(f"the worker was to have {', '.join(steps)}")
        if (seen.exitcode == 0) != (end == "returns"):
            raise SystemExit(f"the program was not to end with {seen.exitcode}")
    refusal = child_of_a_daemon()
    print(f"a daemon's own child: {refusal}")
    if "not allowed" not in refusal:
        raise SystemExit("a daemon was to have no children")
    print("a daemon's work is lost at the end of its program, clean-up and all")


if __name__ == "__main__":
    main()
