"""A program hangs, and says why: where its threads are, and who holds which lock.

Three tools, here for a program that is started in a process of its own and hangs:

* `faulthandler.dump_traceback_later` is a watchdog: each call starts the time anew, so
  call it when there is progress. If no call comes in time, it writes the stacks of all
  threads. It is C code in a thread of its own, and works even if the program never
  comes back from other C code.
* `faulthandler.register` writes the stacks when a signal comes. Stacks show who waits,
  but not for whom: a `threading.Lock` does not know its owner (an RLock names it in its
  repr). OwnedLock below does. A handler in Python, to which faulthandler passes the
  signal on (`chain`), tells of all locks. It runs in the main thread, which has to be
  in Python code, or to wait in what signals interrupt: a lock, `join`, `sleep`.
* `py-spy dump --pid PID` reads the memory of a program that has prepared for nothing.
  It needs the right to trace the process: be root, or see ptrace(2).

Not everybody who hangs is to blame. The printer waits, but nobody waits for it. Who is
to blame is in the cycle.

Try:  --hang 10

Output:
    dump_traceback_later
        audit      with accounts:
        hang       thread.join()
        statement  with accounts:
        transfer   with journal:
    at a signal, the same and
        accounts  held by clerk in transfer
                  awaited by auditor in audit
                  awaited by printer in statement
        journal   held by auditor in audit
                  awaited by clerk in transfer
        deadlock: auditor -> clerk -> auditor
    ...
    stacks tell who waits; locks that know their owners tell for whom
"""

import argparse
import faulthandler
import linecache
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

AFTER = 0.1  # seconds without progress, after which stacks are written
LIMIT = 30.0  # seconds for what should take none


@dataclass(frozen=True, slots=True)
class Claim:
    """A thread that holds or awaits a lock, and the function that asked for it."""

    thread: threading.Thread
    function: str

    def __str__(self) -> str:
        return f"{self.thread.name} in {self.function}"


class OwnedLock:
    """A lock that can be asked who holds it and who waits for it.

    Args:
        name: what reports call it.
        on_wait: called before each wait, when the lock can tell of it already. It lets
            a caller know when the lock is contended.

    Attributes:
        name: the same.
        owner: who holds the lock; None if nobody does, or a thread is just about to
            note that it does.
    """

    def __init__(self, name: str, on_wait: Callable[[], object] = lambda: None) -> None:
        self.name = name
        self._on_wait = on_wait
        self._lock = threading.Lock()
        # Written only by who holds the lock.
        self.owner: Claim | None = None
        # By thread. Each writes its own entry only; nothing else guards them, so that
        # a signal handler can read them whatever it has interrupted.
        self._waiters: dict[threading.Thread, Claim] = {}

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; return whether that was possible at all, or in time.

        Args:
            blocking: whether to wait for it.
            timeout: seconds to wait at most; -1 means for ever.
        """
        return self._acquire(sys._getframe(1).f_code.co_name, blocking, timeout)

    def _acquire(self, function: str, blocking: bool, timeout: float) -> bool:
        me = Claim(threading.current_thread(), function)
        if not self._lock.acquire(blocking=False):
            if not blocking:
                return False
            self._waiters[me.thread] = me
            try:
                self._on_wait()
                if not self._lock.acquire(timeout=timeout):
                    return False
            finally:
                del self._waiters[me.thread]
        self.owner = me
        return True

    def release(self) -> None:
        """Let the next thread in.

        Raises:
            RuntimeError: another thread holds the lock, or none does.
        """
        owner = self.owner
        if owner is None or owner.thread is not threading.current_thread():
            raise RuntimeError(f"{self.name} is held by {owner or 'nobody'}")
        self.owner = None
        self._lock.release()

    def waiters(self) -> list[Claim]:
        """Return who waits for the lock at this moment, by name."""
        return sorted(self._waiters.copy().values(), key=str)

    def __enter__(self) -> None:
        self._acquire(sys._getframe(1).f_code.co_name, True, -1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def cycle(locks: Sequence[OwnedLock]) -> list[threading.Thread]:
    """Return threads each of which waits for the next one, and the last for the first.

    There are none if there is no such cycle. While the program runs, what is read of
    one lock may be over when the next is read; of threads that hang all is true.
    """
    awaits = {
        waiter.thread: owner.thread
        for lock in locks
        if (owner := lock.owner) is not None
        for waiter in lock.waiters()
    }
    for start in sorted(awaits, key=lambda thread: thread.name):
        path = [start]
        while (following := awaits.get(path[-1])) not in {None, *path}:
            assert following is not None
            path.append(following)
        if following is start:
            return path
    return []


def explain(locks: Sequence[OwnedLock]) -> str:
    """Return in lines who holds and awaits each lock, and whether in a deadlock."""
    width = max((len(lock.name) for lock in locks), default=0)
    lines = []
    for lock in locks:
        lines.append(f"{lock.name:{width}}  held by {lock.owner or 'nobody'}")
        lines += [f"{'':{width}}  awaited by {waiter}" for waiter in lock.waiters()]
    names = [thread.name for thread in cycle(locks)]
    lines.append(f"deadlock: {' -> '.join([*names, *names[:1]]) or 'none'}")
    return "".join(f"{line}\n" for line in lines)


@contextmanager
def explained(locks: Sequence[OwnedLock], file: IO[str]) -> Iterator[None]:
    """Answer SIGUSR1 during the block by all stacks, and what `explain` says of locks.

    To be used in the main thread. `file` must have a descriptor.
    """
    descriptor = file.fileno()

    def tell(_: int, __: object) -> None:
        # Not print: the signal may have come in the midst of one.
        os.write(descriptor, explain(locks).encode())

    before = signal.signal(signal.SIGUSR1, tell)
    faulthandler.register(signal.SIGUSR1, file, all_threads=True, chain=True)
    try:
        yield
    finally:
        faulthandler.unregister(signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, before)


# -- a program that hangs


def transfer(accounts: OwnedLock, journal: OwnedLock, ready: threading.Barrier) -> None:
    with accounts:
        ready.wait()
        with journal:
            raise AssertionError("the auditor holds the journal for ever")


def audit(accounts: OwnedLock, journal: OwnedLock, ready: threading.Barrier) -> None:
    with journal:
        ready.wait()
        with accounts:
            raise AssertionError("the clerk holds the accounts for ever")


def statement(accounts: OwnedLock, _: OwnedLock, ready: threading.Barrier) -> None:
    ready.wait()
    with accounts:
        raise AssertionError("the clerk holds the accounts for ever")


def hang(after: float) -> None:
    """Start threads that wait for each other, and wait for them.

    Args:
        after: seconds without progress, after which stacks are written, each time.
    """
    waits = threading.Semaphore(0)
    locks = [OwnedLock(name, waits.release) for name in ("accounts", "journal")]
    roles = {"clerk": transfer, "auditor": audit, "printer": statement}
    ready = threading.Barrier(len(roles))
    threads = [
        threading.Thread(target=role, args=(*locks, ready), name=name, daemon=True)
        for name, role in roles.items()
    ]
    for thread in threads:
        thread.start()
    for _ in threads:
        waits.acquire()
    with explained(locks, sys.stdout):
        print(f"ask by kill -USR1 {os.getpid()}, end by Ctrl-C", flush=True)
        faulthandler.dump_traceback_later(after, repeat=True)  # no progress from now on
        for thread in threads:
            thread.join()


# -- who looks at it

LOCKS_OWN = {"acquire", "_acquire", "__enter__"}


def places(stacks: str) -> list[str]:
    """Return the line where each thread is, of those in this file.

    Args:
        stacks: as written by faulthandler or py-spy, innermost calls first.
    """
    here = re.escape(Path(__file__).name)
    frame = re.compile(
        rf'^ +(?:File ".*{here}", line (?P<line>\d+) in (?P<function>.+)'
        rf"|(?P<name>.+) \((?:.*[/\\])?{here}:(?P<number>\d+)\))$",
        re.MULTILINE,
    )
    found = []
    for stack in re.split(r"(?m)^.*Thread .*$", stacks, flags=re.IGNORECASE):
        for match in frame.finditer(stack):
            function = (match["function"] or match["name"]).rpartition(".")[2]
            if function not in LOCKS_OWN:
                line = linecache.getline(
                    __file__, int(match["line"] or match["number"])
                )
                found.append(f"{function:9}  {line.strip()}")
                break
    return sorted(found)


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
def hung_program() -> Iterator["subprocess.Popen[str]"]:
    """Start a program that hangs; kill it at the end of the block, or after LIMIT."""
    process: subprocess.Popen[str] | None = None
    try:
        with ctrl_c_later():
            process = subprocess.Popen(
                [sys.executable, __file__, "--hang", str(AFTER)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
            )
        limit = threading.Timer(LIMIT, process.kill)
        limit.daemon = True
        limit.start()
        try:
            yield process
        finally:
            limit.cancel()
    finally:
        if process is not None:
            process.kill()
            with process:  # closes the pipes, waits for the end
                pass


def read_until(pattern: str, lines: Iterable[str] | None) -> str:
    """Return lines up to one that `pattern` is found in.

    Raises:
        EOFError: there is none.
    """
    assert lines is not None, "a pipe"
    read = ""
    for line in lines:
        read += line
        if re.search(pattern, line):
            return read
    raise EOFError(read)


def py_spy(pid: int) -> str:
    """Return what `py-spy dump` writes of a process.

    Raises:
        OSError: it is not installed, or fails; the message says so.
    """
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    program = shutil.which("py-spy", path=os.pathsep.join(folders))
    if program is None:
        raise OSError("not installed")
    done = subprocess.run(
        [program, "dump", "--pid", str(pid)],
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT,
        start_new_session=True,  # Ctrl-C is for this program alone
    )
    if done.returncode:
        raise OSError((done.stderr.splitlines() or ["failed"])[0])
    return done.stdout


def demonstrate() -> None:
    """Let a program hang, ask it in each way, and check the answers."""
    expected = [
        "audit      with accounts:",
        "hang       thread.join()",
        "statement  with accounts:",
        "transfer   with journal:",
    ]
    with hung_program() as process:
        stacks: list[str] = []
        while stacks != expected:  # not yet: the main thread has to begin its wait
            stacks = places(read_until("in <module>", process.stderr))
        process.send_signal(signal.SIGUSR1)
        answer = read_until("^deadlock: ", process.stdout)
        report = answer.rpartition("in <module>\n")[2].splitlines()
        print("dump_traceback_later", *stacks, sep="\n    ")
        print("at a signal, the same and", *report, sep="\n    ")
        if places(answer) != expected:
            raise SystemExit(f"{expected} was expected, not {places(answer)}")
        if report[-1] != "deadlock: auditor -> clerk -> auditor":
            raise SystemExit("the clerk and the auditor were to wait for each other")
        try:
            spied = places(py_spy(process.pid))
        except OSError as error:
            print(f"py-spy dump: {error}")
        else:
            if spied != expected:
                raise SystemExit(f"{expected} was expected, not {spied}")
            print("py-spy dump: the same stacks, and nothing to prepare")
    print("stacks tell who waits; locks that know their owners tell for whom")


def seconds(text: str) -> float:
    number = float(text)
    if not 0.01 <= number <= 3600:  # not a number, either
        raise argparse.ArgumentTypeError(f"must be in 0.01 … 3600, not {text}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--hang", type=seconds, metavar="SECONDS", help="hang; write stacks that often"
    )
    after = parser.parse_args().hang
    if not hasattr(faulthandler, "register"):
        print("needs POSIX signals")
        raise SystemExit(77)
    if after is not None:
        hang(after)
        return
    try:
        demonstrate()
    except EOFError as error:
        raise SystemExit(f"the program was to hang elsewhere: {error}") from None


if __name__ == "__main__":
    main()
