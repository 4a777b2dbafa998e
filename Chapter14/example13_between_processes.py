"""Three processes add 1 to a shared number, and two of the additions are lost.

Memory of their own does not save processes from races: they share whatever they share.
Here it is a `multiprocessing.Value`, the lock of which makes each read whole and each
write, but not the way from the one to the other; and a number in a file, for processes
that have nothing else in common. All read before one writes: a barrier sees to that.

The mend is a lock for all of it. A Value brings one, `get_lock()`. For a file it is a
second file, locked by the operating system: flock, on Windows `msvcrt.locking` (the
package filelock has both). That lock goes away with its process, whatever ends it.
(What was being written then may be half done; example10's `write_fixed` helps.) The
lock of a Value does not: if its holder is killed, the others wait for ever. Both are
shown here. In the mended runs the first process keeps the lock until all others have
been refused it, which is the same moment that lost the additions before.

A third way needs no lock: one process owns the number, and the others send it what is
to be added, through a queue.

Try:  --processes 5

Output:
    3 processes each add 1 to a number
      Value                     1 of 3, 2 lost
      Value, with get_lock()    3 of 3, 0 lost
      file                      1 of 3, 2 lost
      file, with a lock file    3 of 3, 0 lost
    a process is killed while it holds both locks
      lock of the Value        still held, and for ever
      lock of the file         free again
    one lock, from the read to the write, that all of them know
"""

import argparse
import multiprocessing
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier, Semaphore
from pathlib import Path

LIMIT = 10.0  # seconds for what is bound to come
POLL = 0.002  # seconds from one attempt to lock a file to the next


class NumberInMemory:
    """A number that a process shares with the children that it is handed to.

    Without its lock, each read and each write is whole, and no more than that.
    """

    def __init__(self) -> None:
        self._value: Synchronized[int] = multiprocessing.Value("i", 0)

    def read(self) -> int:
        return self._value.value  # locked during the read

    def write(self, number: int) -> None:
        self._value.value = number  # locked during the write

    @contextmanager
    def locked(
        self, timeout: float, on_refused: Callable[[], object] = lambda: None
    ) -> Iterator[None]:
        """Hold the lock; `with value.get_lock()` does it without a time limit.

        Args:
            timeout: seconds to wait at most.
            on_refused: called once if the lock is taken, before waiting for it.

        Raises:
            TimeoutError: the lock was not free in time.
        """
        lock = self._value.get_lock()  # may be taken again by who has it, as in read()
        if not lock.acquire(block=False):
            on_refused()
            if not lock.acquire(timeout=timeout):
                raise TimeoutError(f"the number is not free within {timeout:g} s")
        try:
            yield
        finally:
            lock.release()


def try_lock(descriptor: int) -> bool:
    """Lock an open file for this process, unless it is locked; tell whether it is ours.

    The file has to be empty. Only those who call this are kept out.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def unlock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_UN)


class NumberInFile:
    """A number that all processes share which know the path of its file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> int:
        return int(self._path.read_text("ascii"))

    def write(self, number: int) -> None:
        self._path.write_text(str(number), "ascii")

    @contextmanager
    def locked(
        self, timeout: float, on_refused: Callable[[], object] = lambda: None
    ) -> Iterator[None]:
        """Hold the lock, which is that of a second file beside the first.

        The system gives it back if the process ends in the block. A process that is
        forked in the block holds it as well. Who waits asks again and again, so there
        is no order among those that do.

        Args, Raises: as for NumberInMemory.
        """
        deadline = time.monotonic() + timeout
        with self._path.with_suffix(".lock").open("ab") as file:
            if not try_lock(file.fileno()):
                on_refused()
                while not try_lock(file.fileno()):
                    if time.monotonic() >= deadline:
                        raise TimeoutError(
                            f"{self._path.name} is not free within {timeout:g} s"
                        )
                    time.sleep(POLL)  # the system has no wait with a time limit
            try:
                yield
            finally:
                unlock(file.fileno())


Number = NumberInMemory | NumberInFile


def add_broken(number: Number, between: Callable[[], object] = lambda: None) -> None:
    """Add 1; broken: another process may do so meanwhile.

    Args:
        between: called after the read and before the write. It lets a caller decide who
            runs meanwhile.
    """
    seen = number.read()
    between()
    number.write(seen + 1)


def add_fixed(
    number: Number,
    between: Callable[[], object] = lambda: None,
    on_refused: Callable[[], object] = lambda: None,
) -> None:
    """Add 1 while other processes may do so in the same way.

    Raises:
        TimeoutError: the others have not left the number for LIMIT seconds.
    """
    with number.locked(LIMIT, on_refused):
        seen = number.read()
        between()
        number.write(seen + 1)


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


@dataclass(frozen=True, slots=True)
class Crowd:
    """What `n` processes need to meet. Made in a block of `ctrl_c_later`.

    Attributes:
        all_have_read: nobody passes it before all have come.
        refused: counts those that found a lock taken.
    """

    n: int
    all_have_read: Barrier
    refused: Semaphore

    def add_broken(self, number: Number) -> None:
        """Add 1; nobody writes before all have read."""
        add_broken(number, lambda: self.all_have_read.wait(LIMIT))

    def add_fixed(self, number: Number) -> None:
        """Add 1; the first one keeps the lock until all others were refused it."""
        is_first = True

        def note_refusal() -> None:
            nonlocal is_first
            is_first = False
            self.refused.release()

        def between() -> None:
            for _ in range(self.n - 1 if is_first else 0):
                if not self.refused.acquire(timeout=LIMIT):
                    raise TimeoutError("the others were to come to the lock")

        add_fixed(number, between, note_refusal)


def add_to_all(crowd: Crowd, broken: Sequence[Number], fixed: Sequence[Number]) -> None:
    """Add 1 to each number, in this way or that; run in each process of the crowd."""
    for number in broken:
        crowd.add_broken(number)
    for number in fixed:
        crowd.add_fixed(number)


def hold(numbers: Sequence[Number], report: Connection) -> None:
    """Take the locks of all numbers, say so, and wait to be killed."""
    with ExitStack() as stack:
        for number in numbers:
            stack.enter_context(number.locked(LIMIT))
        report.send("held")
        report.poll(LIMIT)  # nothing comes


def is_free(number: Number, timeout: float) -> bool:
    """Tell whether the lock of a number can be had within so many seconds."""
    try:
        with number.locked(timeout):
            return True
    except TimeoutError:
        return False


def two_numbers(folder: Path, name: str) -> tuple[NumberInMemory, NumberInFile]:
    """Make a number in memory and one in a file, both 0."""
    with ctrl_c_later():
        in_memory = NumberInMemory()
    in_file = NumberInFile(folder / f"{name}.txt")
    in_file.write(0)
    return in_memory, in_file


def show_additions(folder: Path, n: int) -> None:
    """Let `n` processes add 1 in each of the ways, and check what comes of it."""
    broken, fixed = two_numbers(folder, "broken"), two_numbers(folder, "fixed")
    with ctrl_c_later():
        crowd = Crowd(n, multiprocessing.Barrier(n), multiprocessing.Semaphore(0))
    processes = [
        multiprocessing.Process(target=add_to_all, args=(crowd, broken, fixed))
        for _ in range(n)
    ]
    with running(processes):
        pass
    if any(process.exitcode for process in processes):
        raise SystemExit("a process has failed, and has said why")

    print(f"{n} processes each add 1 to a number")
    for name, number, expected in (
        ("Value", broken[0], 1),
        ("Value, with get_lock()", fixed[0], n),
        ("file", broken[1], 1),
        ("file, with a lock file", fixed[1], n),
    ):
        result = number.read()
        print(f"  {name:24} {result:2} of {n}, {n - result} lost")
        if result != expected:
            raise SystemExit(f"{name}: {result} instead of {expected}")


def show_killed_holder(folder: Path) -> None:
    """Kill a process that holds both kinds of lock, and look which is free then."""
    in_memory, in_file = two_numbers(folder, "held")
    report, reporter = multiprocessing.Pipe()
    process = multiprocessing.Process(
        target=hold, args=((in_memory, in_file), reporter)
    )
    with report, running([process]):
        reporter.close()
        if not report.poll(LIMIT):
            raise SystemExit("a process was to take the locks")
        report.recv()
        before = is_free(in_memory, 0), is_free(in_file, 0)
        process.kill()
        process.join()
    after = is_free(in_memory, 0), is_free(in_file, LIMIT)  # Windows takes its time
    if (before, after) != ((False, False), (False, True)):
        raise SystemExit(f"free locks: {before}, then {after}")
    print("a process is killed while it holds both locks")
    print("  lock of the Value        still held, and for ever")
    print("  lock of the file         free again")


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=some, default=3)
    n_processes = parser.parse_args().processes
    with tempfile.TemporaryDirectory() as folder:
        show_additions(Path(folder), n_processes)
        show_killed_holder(Path(folder))
    print("one lock, from the read to the write, that all of them know")


if __name__ == "__main__":
    main()
