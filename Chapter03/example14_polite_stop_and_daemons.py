"""A thread cannot be ended from outside: ask it to stop, and wait until it has.

The request is an event. The thread looks at it between two pieces of work, and pauses
with `stop.wait(seconds)` instead of `sleep`, so that a pause of a minute ends at once.
join() with a time-out returns None either way: only `is_alive` tells whether the thread
has ended. If it has not, there is nothing left but to say so, and where it hangs; work
that may hang for ever belongs in a process, which can be killed.

A daemon thread is not waited for when the program ends. It is cut off wherever it is:
what it wrote stays in the buffer of a file that nobody closes, and neither `with` nor
`finally` is carried out. Two small programs show it: they differ in that the one has a
daemon and the other asks its thread to stop. Daemons are for work that may be lost.

Try:  --interval 3600

Output:
    polite    a pause of 60 s, ended after 0.0 ms
    hanging   not stopped after 0.05 s: it is in wait_for_an_answer
    daemon    0 of 3 lines in the file when the program has ended
    asked     3 of 3 lines: first line, last line, signature
    a thread that was asked to stop has finished, a daemon was cut off
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Self

LIMIT = 10.0  # seconds that a step of the demonstration may take
PROGRAM_LIMIT = 60.0  # seconds that a small program may take on a busy machine

# A program whose thread is in the middle of its work when the main thread ends.
PROGRAM = """
import sys, threading

path, manner = sys.argv[1:]
in_the_middle, stop = threading.Event(), threading.Event()

def write_report():
    with open(path, "w") as file:
        try:
            file.write("first line\\n")
            in_the_middle.set()
            stop.wait()
            file.write("last line\\n")
        finally:
            file.write("signature\\n")

thread = threading.Thread(target=write_report, daemon=manner == "daemon")
thread.start()
try:
    in_the_middle.wait()
finally:
    if manner == "polite":
        stop.set()
        thread.join()
"""


class Worker:
    """Calls `work` again and again in a thread, with pauses, until asked to stop.

    Use it in a `with` block, or call start() and stop().

    Args:
        work: one piece of work. What it raises ends the worker and comes out of stop().
        interval: seconds to pause after each piece.

    Raises:
        ValueError: `interval` is negative, or longer than a thread can wait.
    """

    def __init__(self, work: Callable[[], object], interval: float) -> None:
        if not 0 <= interval <= threading.TIMEOUT_MAX:
            raise ValueError(f"cannot pause for {interval} s")
        self._work = work
        self._interval = interval
        self._stop = threading.Event()
        self._error: BaseException | None = None  # written before the thread ends
        # A daemon only so that a worker that hangs cannot keep the program from ending.
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._work()
                self._stop.wait(self._interval)
        except BaseException as error:
            self._error = error

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float | None = LIMIT) -> None:
        """Ask the worker to stop, and return when it has. It may be asked again.

        Asked by `work` itself, it returns at once, and stops after that piece.

        Raises:
            TimeoutError: it has not stopped after `timeout` seconds (None: wait for
                ever). A note says where it is.
            BaseException: what `work` has raised.
        """
        self._stop.set()
        if threading.current_thread() is self._thread:
            return
        self._thread.join(timeout)
        if self._thread.is_alive():
            late = TimeoutError(f"{self._thread.name} has not stopped in {timeout} s")
            if frame := sys._current_frames().get(self._thread.ident or 0):
                late.add_note("".join(traceback.format_stack(frame)))
            raise late
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        try:
            self.stop()
        except BaseException as failure:
            if error is None:
                raise
            error.add_note(f"nor did the worker end well: {failure!r}")


def report_of(manner: str) -> list[str]:
    """Return the lines in the file when a program has ended: "daemon" or "polite"."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "report")
        subprocess.run(
            [sys.executable, "-c", PROGRAM, path, manner],
            check=True,
            timeout=PROGRAM_LIMIT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        return path.read_text("utf-8").splitlines()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--interval", type=positive, default=60)
    interval = parser.parse_args().interval

    pieces: list[str] = []
    has_worked = threading.Event()

    def work() -> None:
        pieces.append("piece")
        has_worked.set()

    with Worker(work, interval) as worker:
        has_worked.wait(LIMIT)
        began = time.perf_counter()
        worker.stop()
        taken = time.perf_counter() - began
    if len(pieces) != 1:
        raise SystemExit(f"{len(pieces)} pieces of work instead of 1")
    print(f"polite    a pause of {interval} s, ended after {1000 * taken:.1f} ms")

    hangs, let_go = threading.Event(), threading.Event()

    def wait_for_an_answer() -> None:
        hangs.set()
        let_go.wait(LIMIT)

    stubborn = Worker(wait_for_an_answer, interval)
    try:
        stubborn.start()
        hangs.wait(LIMIT)
        stubborn.stop(timeout=0.05)
    except TimeoutError as error:
        if "in wait_for_an_answer" not in error.__notes__[0]:
            raise SystemExit("the note was to say where the thread is") from None
        print("hanging   not stopped after 0.05 s: it is in wait_for_an_answer")
    else:
        raise SystemExit("a thread was stopped that does not look at the event")
    finally:
        let_go.set()
    stubborn.stop()

    daemon, polite = report_of("daemon"), report_of("polite")
    print(f"daemon    {len(daemon)} of 3 lines in the file when the program has ended")
    print(f"asked     {len(polite)} of 3 lines: {', '.join(polite)}")
    if daemon or polite != ["first line", "last line", "signature"]:
        raise SystemExit(f"not as expected: {daemon}, {polite}")
    print("a thread that was asked to stop has finished, a daemon was cut off")


if __name__ == "__main__":
    main()
