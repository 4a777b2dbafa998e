"""An exception ends its thread and nobody else hears of it, unless you see to it.

The traceback goes to stderr, join() returns as if all were well, and the program's exit
status is 0. After `sys.exit(3)` in a thread there is not even a traceback: SystemExit
vanishes without a word. Both are seen here in programs of their own.

Two ways out. `threading.excepthook` is called for every exception that a thread does
not catch; `collected_exceptions` installs one for a while and collects them, for tests
and for programs that have to end with a status. And a thread whose result matters keeps
its exception and raises it where it is joined, with the traceback of where it happened,
as `RaisingThread` does; futures (example06) do the same.

Output:
    int('ten') in a thread
        exit status  0
        after join   all is well
        on stderr    ValueError: invalid literal for int() with base 10: 'ten'
    sys.exit(3) in a thread
        exit status  0
        after join   all is well
        on stderr    nothing
    excepthook sees ValueError in thread A, SystemExit in thread B
    join() raises ValueError, from parse()
    uncaught in a thread is unheard, unless a hook or join() tells
"""

import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

LIMIT = 60.0  # seconds that a small program may take on a busy machine

# A program that has a thread do what stands in its argument.
PROGRAM = """
import sys, threading

def work():
    exec(sys.argv[1])

thread = threading.Thread(target=work, name="worker")
thread.start()
thread.join()
print("all is well")
"""


@dataclass(frozen=True, slots=True)
class Uncaught:
    """An exception that a thread did not catch.

    Attributes:
        thread: the thread's name; "?" if the interpreter does not know it any more.
        error: the exception, with its traceback.
    """

    thread: str
    error: BaseException


@contextmanager
def collected_exceptions() -> Iterator[list[Uncaught]]:
    """Collect what threads do not catch during a `with` block, in order.

    It is not printed, and SystemExit is collected, too. Join the threads before the
    block ends. The hook is one for the whole program: no two such blocks side by side.
    """
    collected: list[Uncaught] = []

    def collect(args: threading.ExceptHookArgs, /) -> None:
        error = args.exc_type() if args.exc_value is None else args.exc_value
        # The traceback keeps the frames, and they would keep all the thread worked on.
        traceback.clear_frames(args.exc_traceback)
        collected.append(Uncaught(args.thread.name if args.thread else "?", error))

    before = threading.excepthook
    threading.excepthook = collect
    try:
        yield collected
    finally:
        threading.excepthook = before


class RaisingThread(threading.Thread):
    """A thread whose join() raises, once, what its function has raised.

    Join it: of a thread that nobody joins, nobody hears.
    """

    _error: BaseException | None = None  # written by the thread before it ends

    def run(self) -> None:
        try:
            super().run()
        except BaseException as error:
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, or for `timeout` seconds.

        Raises:
            BaseException: what the thread did not catch, with the traceback of there.
        """
        super().join(timeout)
        if self.is_alive():
            return  # what it raises may be noted at this very moment: look next time
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback holds this frame, which must not hold it


def run_program(statement: str) -> "subprocess.CompletedProcess[str]":
    """Run a program whose thread does `statement`."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, statement],
        check=False,
        timeout=LIMIT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def parse(line: str) -> int:
    """Return the number in a line.

    Raises:
        ValueError: there is none.
    """
    return int(line)


def main() -> None:
    failed, vanished = run_program("int('ten')"), run_program("sys.exit(3)")
    for statement, program in {"int('ten')": failed, "sys.exit(3)": vanished}.items():
        print(f"{statement} in a thread")
        print(f"    exit status  {program.returncode}")
        print(f"    after join   {program.stdout.strip()}")
        print(f"    on stderr    {(program.stderr.splitlines() or ['nothing'])[-1]}")
    if failed.returncode != 0 or "Exception in thread worker" not in failed.stderr:
        raise SystemExit("a traceback and exit status 0 were to come")
    if vanished.returncode != 0 or vanished.stderr:
        raise SystemExit("SystemExit was to vanish without a word")

    with collected_exceptions() as collected:
        for plain in (
            threading.Thread(target=parse, args=("ten",), name="A"),
            threading.Thread(target=sys.exit, args=(3,), name="B"),
        ):
            plain.start()
            plain.join()
    found = [(one.thread, type(one.error)) for one in collected]
    if found != [("A", ValueError), ("B", SystemExit)]:
        raise SystemExit(f"the hook was to see both: {found}")
    print("excepthook sees ValueError in thread A, SystemExit in thread B")

    thread = RaisingThread(target=parse, args=("ten",))
    thread.start()
    try:
        thread.join()
    except ValueError as error:
        where = traceback.extract_tb(error.__traceback__)[-1].name
        if where != "parse":
            raise SystemExit(f"raised in parse(), not in {where}()") from None
        print(f"join() raises ValueError, from {where}()")
    else:
        raise SystemExit("join() was to raise what the thread had raised")
    print("uncaught in a thread is unheard, unless a hook or join() tells")


if __name__ == "__main__":
    main()
