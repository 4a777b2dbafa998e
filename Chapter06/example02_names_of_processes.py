"""Every process has a name: for people who read logs, not for programs.

The program's own process is MainProcess. A child that is given no name is numbered:
Process-1, the next Process-2, and the first child of Process-1 is Process-1:1. Every
Process object that is made takes a number, also one that is given a name. A good name
says what the process is for. It stands above the traceback that a child prints when it
dies, in log records (`processName`), and in `active_children()`, where one that hangs
can be found.

A name identifies nothing. Two processes may share one, and a name that the parent
changes after start() is known to the parent alone: the child has a copy of its own. The
system's tools, as `ps`, show the command line instead; the package `setproctitle`
changes that.

Book: Chapter 6, example2.

Output:
    this program  MainProcess
    in its log    own name     what its own child would be called
    Process-1     Process-1    Process-1:1
    parser        parser       Process-2:1
    Process-3     Process-3    Process-3:1
    worker        worker       Process-4:1
    worker        worker       Process-5:1
    found by name: 1 parser, 2 workers
    renamed after start(): tokenizer here, Process-1 in the child
    a name is a label for people; to a program, a process is its object
"""

import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a process finds when it asks for its own.

    Attributes:
        own: what `current_process()` says.
        logged: what stands in its log records.
        child: what a child would be called that it gives no name.
    """

    own: str
    logged: str | None
    child: str


def names_here() -> Names:
    """Return the names as this process sees them."""
    own = multiprocessing.current_process().name
    child = multiprocessing.Process()  # made, and never started
    return Names(own, logging.makeLogRecord({}).processName, child.name)


def tell_names(reports: Connection, ask_again: Event) -> None:
    """Send the names that this process sees, at once and after `ask_again` is set."""
    reports.send(names_here())
    ask_again.wait()
    reports.send(names_here())


def children_named(name: str) -> list[BaseProcess]:
    """Return this process's live children of that name: none, one, or several."""
    return [one for one in multiprocessing.active_children() if one.name == name]


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
    print(f"this program  {multiprocessing.current_process().name}")

    with ctrl_c_later():
        ask_again = multiprocessing.Event()
    children: list[BaseProcess] = []
    pipes = []
    for given in (None, "parser", None, "worker", "worker"):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.Process(
            target=tell_names, args=(sender, ask_again), name=given
        )
        children.append(child)
        pipes.append((receiver, sender))
    with running(children):
        for _, sender in pipes:
            sender.close()  # or a child that dies would be waited for
        before = [receiver.recv() for receiver, _ in pipes]
        parser, worker = children_named("parser"), children_named("worker")
        renamed = children[0]
        renamed.name = "tokenizer"
        ask_again.set()
        after = [receiver.recv() for receiver, _ in pipes]

    print("in its log    own name     what its own child would be called")
    for names in before:
        print(f"{names.logged:12}  {names.own:11}  {names.child}")
    own = ["Process-1", "parser", "Process-3", "worker", "worker"]
    numbers = range(1, 6)
    if before != [
        Names(name, name, f"Process-{number}:1")
        for name, number in zip(own, numbers, strict=True)
    ]:
        raise SystemExit("the names were to be the given ones, or numbers")
    print(f"found by name: {len(parser)} parser, {len(worker)} workers")
    if parser != [children[1]] or {*worker} != {*children[3:]}:
        raise SystemExit("each name was to find its own")
    print(f"renamed after start(): {renamed.name} here, {after[0].own} in the child")
    if [names.own for names in after] != own:
        raise SystemExit("a new name was not to reach the child")
    print("a name is a label for people; to a program, a process is its object")


if __name__ == "__main__":
    main()
