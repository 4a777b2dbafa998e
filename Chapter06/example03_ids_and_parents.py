"""A process knows its parent, but `os.getppid()` may name another process.

Each process has an id, and a parent that started it. Here the program starts a child,
the child starts a grandchild, and both tell what they know of themselves.

`os.getppid()` asks the system, for which the parent is who made the process. With the
start methods `fork` and `spawn` that is who called start(). With `forkserver`, the
default on Linux since Python 3.14, it is another process: the fork server, a helper
that does nothing but fork. `multiprocessing.parent_process()` tells who called start(),
with any method. It is None in the program itself, and it can be joined, by a child that
has to know when its parent is gone.

Ids are for messages and for the system's tools. Once a process has ended and has been
joined, its id may be given to another, so keep the object, and end a process by its
terminate() or kill(). (`psutil` shows whole trees, and minds ids that are used again.)

Book: Chapter 6, example3.

Output:
    the program is process <pid>
    started by  process             parent_process()  os.getppid()
    ...
    spawn       child        <pid>  the program       the program
    spawn       grandchild   <pid>  the child         the child
    parent_process() is who called start(), os.getppid() who made the process
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess


@dataclass(frozen=True, slots=True)
class Member:
    """What a process that has been started by another knows of itself.

    Attributes:
        parent_pid: the id of who called start(), by `multiprocessing.parent_process()`.
        parent_name: the name of that process.
        system_ppid: the id of the process's parent as the system sees it.
    """

    pid: int
    parent_pid: int
    parent_name: str
    system_ppid: int


def member() -> Member:
    """Return what this process knows of itself.

    Raises:
        RuntimeError: it was not started by multiprocessing.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError(f"process {os.getpid()} is the program itself")
    assert parent.pid is not None
    return Member(os.getpid(), parent.pid, parent.name, os.getppid())


def descendants(generations: int) -> list[Member]:
    """Start a child, which starts a child, and so on; return what each of them knows.

    Raises:
        EOFError: one of them has ended without a word.
    """
    if generations < 1:
        return []
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.Process(target=_report, args=(generations, sender))
    # A child that is killed while it starts one of its own would leave that behind.
    with receiver, ctrl_c_later(), running([child]):
        sender.close()
        members: list[Member] = receiver.recv()
        return members


def _report(generations: int, line: Connection) -> None:
    line.send([member(), *descendants(generations - 1)])


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
    program = os.getpid()
    print(f"the program is process {program}")
    if multiprocessing.parent_process() is not None:
        raise SystemExit("the program was to have no parent in multiprocessing")
    if sys.platform != "win32":
        # Its start lets Ctrl-C through (3.11, 3.12): not while processes are started.
        resource_tracker.ensure_running()

    print("started by  process             parent_process()  os.getppid()")
    for method in sorted(multiprocessing.get_all_start_methods()):
        multiprocessing.set_start_method(method, force=True)
        child, grandchild = descendants(2)
        names = {program: "the program", child.pid: "the child"}
        for what, one in (("child", child), ("grandchild", grandchild)):
            parent = names.get(one.parent_pid, "another process")
            maker = names.get(one.system_ppid, "another process")
            print(f"{method:11} {what:10} {one.pid:7}  {parent:16}  {maker}")
            if parent != ("the program" if one is child else "the child"):
                raise SystemExit("parent_process() was to be who called start()")
            if maker != ("another process" if method == "forkserver" else parent):
                raise SystemExit("os.getppid() was to be who made the process")
    print("parent_process() is who called start(), os.getppid() who made the process")


if __name__ == "__main__":
    main()
