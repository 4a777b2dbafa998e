"""A process is forked while a thread holds a lock, and in the child nobody releases it.

fork() copies the memory of a process, but of its threads only the one that calls it. A
lock that another thread holds at that moment is held in the copy, too, by a thread that
does not exist there; who wants it waits for ever. It may be a lock that you never see:
of a log handler, a queue, a C library. That is why Python 3.12 and later warn of it,
and why 3.14 and later do not fork unless they are asked to.

Here the lock is held for certain. The child is seen to wait for it, by the stack that
it dumps when asked to, and is ended. Three mends follow:

* Start processes before threads, or by spawn, so that they inherit no locks.
* Hold the lock while forking. The fork waits for it, so that no other thread has it,
  and what it guards is whole. (`os.register_at_fork`; it takes that for every lock.)
* Make the lock new in the child. What it guards may be half changed there, so that is
  made new, too. The standard library does so with the locks of its log handlers.

Output:
    forked              finds the lock held by no thread there, half a line
      waits in          self.lock.acquire(), until it is ended
    spawned             finds new lock, empty journal; writes its line
    forked, waited for  finds the lock free, a whole line; writes its line
    forked, renewed     finds new lock, empty journal; writes its line
    one of 4 children would have waited for ever
"""

import faulthandler
import linecache
import multiprocessing
import os
import queue
import re
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

LIMIT = 30.0  # seconds for what should take none
FRAME = r'call first\):\n  File "(.+)", line (\d+)'  # the innermost, of a dump
LINE = "one line of the journal"


class Journal:
    """Lines that are written by several threads, in pieces."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards lines
        self.lines: list[str] = []

    def write(self, line: str, between: Callable[[], object] = lambda: None) -> None:
        """Add a line.

        Args:
            between: called when half of it is written.
        """
        self.lock.acquire()
        try:
            self.lines.append(line[: len(line) // 2])
            between()
            self.lines[-1] = line
        finally:
            self.lock.release()

    def renew(self) -> None:
        """Forget everything, and who holds the lock."""
        self.lock = threading.Lock()
        self.lines = []


def hold_while_forking(lock: threading.Lock) -> None:
    """Let every fork wait for `lock`, from now on; then no other thread holds it."""
    os.register_at_fork(
        before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release
    )


# Like the handlers of a log, they are there as soon as the module is imported.
JOURNALS = {name: Journal() for name in ("plain", "waited for", "renewed")}


@dataclass(frozen=True, slots=True)
class Seen:
    """What a child finds when it begins: the lock, its threads, the lines."""

    locked: bool
    n_threads: int
    lines: list[str]


def write_in_child(name: str, report: Connection) -> None:
    """Report what is found here, write a line, report that it is written."""
    if hasattr(faulthandler, "register"):  # not on Windows
        faulthandler.register(signal.SIGUSR1, file=report.fileno())
    journal = JOURNALS[name]
    n_threads = threading.active_count()
    report.send(Seen(journal.lock.locked(), n_threads, journal.lines))
    journal.write(LINE)
    report.send("written")


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


def where_it_waits(process: BaseProcess, dumps: Connection) -> str:
    """Return the line of code in which a process waits for a lock.

    Raises:
        TimeoutError: it does not, within LIMIT.
    """
    assert process.pid is not None
    deadline = time.monotonic() + LIMIT
    text = ""
    while time.monotonic() < deadline:
        os.kill(process.pid, signal.SIGUSR1)
        if dumps.poll(LIMIT):
            text += os.read(dumps.fileno(), 1 << 16).decode()
        for file, number in re.findall(FRAME, text):
            line = linecache.getline(file, int(number)).strip()
            if "acquire()" in line:
                return line
    raise TimeoutError(f"it does not wait for a lock: {text}")


def start_while_held(
    new_process: Callable[..., BaseProcess], name: str, about_to_fork: bool = False
) -> tuple[Seen, str]:
    """Start a process while a thread has written half a line in a journal.

    Args:
        new_process: the class of the process.
        name: of the journal that is to be written in there, too.
        about_to_fork: let the thread go on when the fork is about to begin. Otherwise
            it goes on when all is over.

    Returns:
        What the child saw, and where it waited for ever: "" if it did not.
    """
    half = threading.Event()
    go_on: queue.SimpleQueue[None] = queue.SimpleQueue()

    def pause() -> None:
        half.set()
        with suppress(queue.Empty):
            go_on.get(timeout=LIMIT)

    if about_to_fork:  # the hook that was registered last is called first
        os.register_at_fork(before=partial(go_on.put, None))
    reader, writer = multiprocessing.Pipe(duplex=False)
    process = new_process(target=write_in_child, args=(name, writer))
    thread = threading.Thread(target=JOURNALS[name].write, args=(LINE, pause))
    try:
        thread.start()
        half.wait(LIMIT)
        with running([process]), reader:
            writer.close()
            seen: Seen = reader.recv()
            waits = ""
            if seen.locked and seen.n_threads == 1:  # nobody is there to release it
                waits = where_it_waits(process, reader)
                process.kill()
            elif reader.recv() != "written":
                raise AssertionError
    finally:
        go_on.put(None)  # C code, which Ctrl-C cannot interrupt, as it could set()
        if thread.is_alive():  # Ctrl-C may come while it starts
            thread.join()
    return seen, waits


def main() -> None:
    if not hasattr(os, "register_at_fork"):
        print("needs fork")
        raise SystemExit(77)
    # Forking with threads is what Python 3.12 and later warn of, and the point here.
    warnings.simplefilter("ignore", DeprecationWarning)
    fork = multiprocessing.get_context("fork").Process
    spawn = multiprocessing.get_context("spawn").Process

    seen, waits = start_while_held(fork, "plain")
    if seen != Seen(True, 1, [LINE[: len(LINE) // 2]]) or not waits:
        raise SystemExit(f"the child was to wait for ever: {seen}")
    print("forked              finds the lock held by no thread there, half a line")
    print(f"  waits in          {waits}, until it is ended")

    hold_while_forking(JOURNALS["waited for"].lock)
    os.register_at_fork(after_in_child=JOURNALS["renewed"].renew)
    new, whole = Seen(False, 1, []), Seen(False, 1, [LINE])
    for name, expected, (seen, waits) in (
        ("spawned", new, start_while_held(spawn, "plain")),
        ("forked, waited for", whole, start_while_held(fork, "waited for", True)),
        ("forked, renewed", new, start_while_held(fork, "renewed")),
    ):
        if (seen, waits) != (expected, ""):
            raise SystemExit(f"{name}: {expected} was expected, not {seen} {waits}")
        what = (
            "the lock free, a whole line" if seen.lines else "new lock, empty journal"
        )
        print(f"{name:18}  finds {what}; writes its line")
    print("one of 4 children would have waited for ever")


if __name__ == "__main__":
    main()
