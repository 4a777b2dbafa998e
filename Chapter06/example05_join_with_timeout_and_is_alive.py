"""join() with a time-out returns None either way: ask `is_alive()`, or `exitcode`.

`exitcode` is None while the process is there. Afterwards it is 0, or 1 if the process
has raised, or the status of its `sys.exit(status)`; if a signal has ended it, it is the
signal's number, negative. terminate() sends SIGTERM, which a process may handle or
ignore. kill() sends SIGKILL, which it cannot; so that comes last. (On Windows both end
the process at once.) Ended either way, a process cleans nothing up, and a lock that it
holds, as that of a queue, stays locked.

To wait for the first of several, hand their sentinels to `connection.wait`. close()
lets go of what the object holds of a process that has ended.

Book: Chapter 6, example5.
Try:  --grace 1

Output:
    a process that   was ended by     exitcode
    waits            join(0.01)       None, at work
    waits            close()          None, ValueError
    raises           nothing             1, status 1
    exits with 3     nothing             3, status 3
    returns          nothing             0, status 0
    ...
    join() returns None; is_alive() and exitcode tell what has come of it
"""

import argparse
import io
import math
import multiprocessing
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

LIMIT = 30.0  # seconds that a step of the demonstration may take


def first_ended(
    processes: Sequence[BaseProcess], timeout: float | None = None
) -> list[BaseProcess]:
    """Wait until a process has ended; return all that have, in their order.

    Returns an empty list after `timeout` seconds (None: wait for ever).
    """
    ready = wait([process.sentinel for process in processes], timeout)
    for process in processes:
        if process.sentinel in ready:
            process.join()  # a moment, until it has its exit code
    return [process for process in processes if process.exitcode is not None]


def end(process: BaseProcess, grace: float) -> str:
    """End a process that has been started; return what it took.

    That is "nothing" if it had ended, "terminate" if it ended within `grace` seconds
    after that, or "kill".
    """
    if not process.is_alive():
        return "nothing"
    process.terminate()
    process.join(grace)
    if not process.is_alive():
        return "terminate"
    process.kill()
    process.join()
    return "kill"


def describe(exitcode: int | None) -> str:
    """Return in words what an exit code means."""
    if exitcode is None:
        return "at work"
    if exitcode >= 0:
        return f"status {exitcode}"
    try:
        return f"ended by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"ended by signal {-exitcode}"


def wait_for_word(line: Connection) -> None:
    """Say that this process is ready, and wait for a word."""
    line.send("ready")
    line.recv()


def ignore_sigterm(line: Connection) -> None:
    """Do the same, deaf to terminate()."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    wait_for_word(line)


def exit_with_three(line: Connection) -> None:
    wait_for_word(line)
    sys.exit(3)


def fail(line: Connection) -> None:
    wait_for_word(line)
    sys.stderr = io.StringIO()  # here nobody wants to read the traceback
    raise ValueError("as it was meant to")


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


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= LIMIT or math.isnan(number):
        raise argparse.ArgumentTypeError(f"must be 0 to {LIMIT:g} s, not {text}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--grace", type=seconds, default=0.2, metavar="SECONDS")
    grace = parser.parse_args().grace

    behaviour = {
        "waits": wait_for_word,
        "returns": wait_for_word,
        "exits with 3": exit_with_three,
        "raises": fail,
        "ignores SIGTERM": ignore_sigterm,
    }
    lines: dict[str, Connection] = {}
    processes: dict[str, BaseProcess] = {}
    for name, target in behaviour.items():
        lines[name], its_end = multiprocessing.Pipe()
        processes[name] = multiprocessing.Process(target=target, args=(its_end,))

    with running(list(processes.values())):
        for line in lines.values():
            line.recv()
        print("a process that   was ended by     exitcode")
        waiting = processes["waits"]
        waiting.join(0.01)
        if not waiting.is_alive() or waiting.exitcode is not None:
            raise SystemExit("join() was to return with the process at work")
        print(f"waits            join(0.01)       None, {describe(waiting.exitcode)}")
        try:
            waiting.close()
        except ValueError:
            print("waits            close()          None, ValueError")
        else:
            raise SystemExit("a process at work was not to be closed")

        remaining = list(processes.values())
        expected = {"raises": 1, "exits with 3": 3, "returns": 0}
        for name, exitcode in expected.items():
            lines[name].send("go")
            first = first_ended(remaining, LIMIT)
            if first != [processes[name]] or first[0].exitcode != exitcode:
                raise SystemExit(f"{name}: was to be the first, with {exitcode}")
            took = end(processes[name], grace)
            print(f"{name:16} {took:15} {exitcode:5}, {describe(exitcode)}")
            remaining.remove(processes[name])
        for name, means in {"waits": "terminate", "ignores SIGTERM": "kill"}.items():
            took, code = end(processes[name], grace), processes[name].exitcode
            print(f"{name:16} {took:15} {code:5}, {describe(code)}")
            if sys.platform != "win32" and took != means:
                raise SystemExit(f"{name}: was to be ended by {means}()")
    for process in processes.values():
        process.close()
    print("join() returns None; is_alive() and exitcode tell what has come of it")


if __name__ == "__main__":
    main()
