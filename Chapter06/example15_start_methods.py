"""Fork, spawn, forkserver: what a child has from its parent, and what its start costs.

* fork copies the parent as it is, memory, open files and all, except for its threads.
  That is quick, and goes wrong if the parent has threads (example16).
* spawn starts a new interpreter, which imports the script again and is sent, pickled,
  the target and its arguments. It is slow, and the same on every system.
* forkserver spawns one process before all others, which forks each child. Nothing is
  inherited from the parent; the environment is that of the server's own start.

The default is fork on Linux up to Python 3.13 and forkserver from 3.14 on; on macOS and
Windows it is spawn. So write programs that do not notice: targets at module level, a
main guard, and all that a child needs among its arguments.

Each child below is asked what it sees of what its parent changed since it was imported.
The time is that from start() to the end of join(), for a child that does nothing; the
first of forkserver starts the server.

Try:  --starts 50 --ballast 1000

Output:
    the child                        fork       spawn      forkserver
    has the variables as changed     yes        no         no
    has the environment as changed   yes        yes        no
    has the current folder           yes        yes        yes
    has sys.path as changed          yes        yes        yes
    has the same open file           yes        no         no
    has the signal handler           yes        no         no
    has the random generator's state yes        no         no
    can have a lambda as its target  yes        no         no
    imports the script again         no         yes        yes

    the first start to end           2.9 ms     78.8 ms    45.8 ms
    start to end                     2.1 ms     52.8 ms    19.7 ms
      beside 256 MiB                 13.6 ms    54.4 ms    18.7 ms
    rely on what stands in all three columns, and on arguments
"""

import argparse
import multiprocessing
import os
import pickle
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

METHODS = ("fork", "spawn", "forkserver")
EXPECTED = {
    "has the variables as changed": [True, False, False],
    "has the environment as changed": [True, True, False],
    "has the current folder": [True, True, True],
    "has sys.path as changed": [True, True, True],
    "has the same open file": [True, False, False],
    "has the signal handler": [True, False, False],
    "has the random generator's state": [True, False, False],
    "can have a lambda as its target": [True, False, False],
    "imports the script again": [False, True, True],
}

# What a parent may change, and a child may see.
SETTINGS = {"state": "as imported"}
GENERATOR = random.Random(1)


def handle(*_: Any) -> None:
    """Handle a signal; it never comes."""


def identity(descriptor: int) -> tuple[int, int] | None:
    """Return what tells an open file from all others, None if it is not open."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def view(descriptor: int) -> dict[str, Any]:
    """Return what is seen of the things that a child may have from its parent."""
    return {
        "has the variables as changed": SETTINGS["state"],
        "has the environment as changed": os.environ.get("STATE"),
        "has the current folder": Path.cwd(),
        "has sys.path as changed": list(sys.path),
        "has the same open file": identity(descriptor),
        "has the signal handler": signal.getsignal(signal.SIGTERM) is handle,
        "has the random generator's state": GENERATOR.getstate(),
        "is the same": __name__,
    }


def send_view(descriptor: int, report: Connection) -> None:
    report.send(view(descriptor))


def do_nothing() -> None:
    """Be a target."""


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


def view_of_child(new_process: type[BaseProcess], descriptor: int) -> dict[str, Any]:
    """Return what a child sees."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    with reader, running([new_process(target=send_view, args=(descriptor, writer))]):
        writer.close()
        seen: dict[str, Any] = reader.recv()
    return seen


def can_start(new_process: type[BaseProcess], target: Callable[[], object]) -> bool:
    """Tell whether a child can have that target; if not, it cannot be pickled."""
    try:
        with running([new_process(target=target)]):
            return True
    except (AttributeError, TypeError, pickle.PicklingError):
        return False


def seconds_to_start_and_end(new_process: type[BaseProcess]) -> float:
    """Return how long it takes to start a child that does nothing, and to join it."""
    began = time.perf_counter()
    with running([new_process(target=do_nothing)]):
        pass
    return time.perf_counter() - began


def change_everything(folder: str) -> None:
    """Change in this process what `view` looks at; its current folder is changed."""
    SETTINGS["state"] = "as changed"
    os.environ["STATE"] = "as changed"
    sys.path.append(folder)
    signal.signal(signal.SIGTERM, handle)
    GENERATOR.seed(2)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--starts", type=positive, default=5)
    parser.add_argument("--ballast", type=positive, default=256, help="in MiB")
    options = parser.parse_args()
    if set(multiprocessing.get_all_start_methods()) != set(METHODS):
        print("needs fork, spawn and forkserver")
        raise SystemExit(77)

    print(f"{'the child':33}" + "".join(f"{method:11}" for method in METHODS).rstrip())
    classes: Sequence[type[BaseProcess]] = (
        multiprocessing.get_context("fork").Process,
        multiprocessing.get_context("spawn").Process,
        multiprocessing.get_context("forkserver").Process,
    )
    resource_tracker.ensure_running()  # which is not to be counted
    first = [seconds_to_start_and_end(new_process) for new_process in classes]
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryFile() as file,
        chdir(folder),
    ):
        change_everything(folder)
        own = view(file.fileno())
        views = [view_of_child(new_process, file.fileno()) for new_process in classes]
    table = {
        what: [seen[what] == value for seen in views] for what, value in own.items()
    }
    table["can have a lambda as its target"] = [
        can_start(new_process, lambda: None) for new_process in classes
    ]
    table["imports the script again"] = [not same for same in table.pop("is the same")]
    if table != EXPECTED:
        raise SystemExit(f"another table was expected: {table}")
    for what, answers in table.items():
        words = ["yes" if answer else "no" for answer in answers]
        print(f"{what:33}" + "".join(f"{word:11}" for word in words).rstrip())
    print()

    def typical(new_process: type[BaseProcess]) -> float:
        return statistics.median(
            seconds_to_start_and_end(new_process) for _ in range(options.starts)
        )

    plain = [typical(new_process) for new_process in classes]
    ballast = b"x" * (options.ballast << 20)  # written to, so that it is really there
    loaded = [typical(new_process) for new_process in classes]
    rows = {
        "the first start to end": first,
        "start to end": plain,
        f"  beside {len(ballast) >> 20} MiB": loaded,
    }
    for what, seconds in rows.items():
        cells = [f"{1000 * one:.1f} ms" for one in seconds]
        print(f"{what:33}" + "".join(f"{cell:11}" for cell in cells).rstrip())
    print("rely on what stands in all three columns, and on arguments")


if __name__ == "__main__":
    main()
