"""Shared memory is found by its name, and stays until somebody removes it.

SharedMemory(create=True) makes a block, SharedMemory(name) attaches to it from any
process: nothing is copied, nothing is pickled but the name. close() ends one process's
use of it, unlink() removes the name; those who are attached go on, and the memory is
freed when the last one has closed. (On Windows the name goes then, too, and unlink()
does nothing.) `shared_block` does both, after an exception too, and whatever becomes of
those attached. If nobody unlinks, the resource tracker does, a process that outlives
the program and complains of the leak. From 3.13 on, who only attaches says
`track=False`: before, the tracker of a program that is no child of the creator's
removed what it had merely attached.

The block is raw bytes; `memoryview.cast` or struct make numbers of them, numpy.ndarray
makes arrays. No access is locked: whoever reads a record of two words while another
process writes it finds one new word and one old. Give it a Lock. Array has a lock and
no name, and frees itself, but can only be handed to a child when that is started;
ShareableList holds a fixed number of mixed items, none of which can grow.

Try:  --words 100000

Output:
    by name         a child writes 1,000 words; their sum is 499,500
    after unlink    who is attached goes on, nobody else can attach
    nothing left    after an exception; after a worker was killed that used it
    nobody unlinks  the tracker does when the program has ended, and complains
    0 0 to 1 1      read meanwhile: [1, 0]; with a lock, after waiting: [1, 1]
    Array           [0, 1, 4, 9], handed to the child when it was started
    ShareableList   [2, 'done', 0.5, None], found by name; no item can grow
    a block needs one who removes it, and a lock that everybody takes
"""

import argparse
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    suppress,
)
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import ShareableList, SharedMemory
from multiprocessing.sharedctypes import SynchronizedArray
from multiprocessing.synchronize import Barrier, Event, Lock
from typing import Any

LIMIT = 30.0  # seconds that a step of the demonstration may take
WORD = 8  # bytes
MAX_WORDS = 10**7

# A program that makes a block, says its name, and ends without any clean-up.
LEAK = """
import multiprocessing.shared_memory, os
block = multiprocessing.shared_memory.SharedMemory(create=True, size=8)
print(block.name, flush=True)
os._exit(1)
"""


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
def shared_block(size: int) -> Iterator[SharedMemory]:
    """Make a block of at least `size` bytes, and remove it at the end.

    Views of its `buf` must be released by then, as those of `words_of` are.

    Raises:
        BufferError: one has not been; the block is removed all the same.
    """
    if sys.platform != "win32":
        # Started by the block, it would let Ctrl-C through just then (3.11, 3.12).
        resource_tracker.ensure_running()
    with ExitStack() as stack:
        with ctrl_c_later():
            block = SharedMemory(create=True, size=size)
            stack.callback(remove, block)
        yield block


def remove(block: SharedMemory) -> None:
    """End this process's use of `block`, and remove it."""
    with ctrl_c_later():
        try:
            block.close()
        finally:
            block.unlink()


@contextmanager
def attached(name: str) -> Iterator[SharedMemory]:
    """Use a block that another process has made and will remove.

    Raises:
        FileNotFoundError: there is none of this name (any more).
    """
    if sys.version_info >= (3, 13):
        block = SharedMemory(name, track=False)
    else:  # only in the creator's process and its children: they share a tracker
        block = SharedMemory(name)
    try:
        yield block
    finally:
        block.close()


@contextmanager
def words_of(block: SharedMemory, n_words: int) -> Iterator["memoryview[int]"]:
    """View the block's first words as signed numbers of 64 bits.

    The view is released at the end of the block, as it has to be before close().
    """
    assert block.buf is not None  # it is, once the block is closed
    with block.buf[: n_words * WORD].cast("q") as words:
        yield words


def is_there(name: str) -> bool:
    """Tell whether a block of this name can be attached."""
    try:
        with attached(name):
            return True
    except FileNotFoundError:
        return False


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


def write_numbers(name: str, n_words: int) -> None:
    """Write 0, 1, 2, … into the block's words."""
    with attached(name) as block, words_of(block, n_words) as words:
        for number in range(n_words):
            words[number] = number


def sum_written_by_child(n_words: int) -> int:
    """Let a child write numbers into a block; return their sum, found without it."""
    with shared_block(n_words * WORD) as block:
        child = multiprocessing.Process(
            target=write_numbers, args=(block.name, n_words)
        )
        with running([child]):
            pass
        with words_of(block, n_words) as words:
            return sum(words)


def use_after_unlink() -> tuple[int, bool]:
    """Return what is read in a block after its end, and whether one can attach then."""
    with ExitStack() as stack:
        with shared_block(WORD) as block:
            with words_of(block, 1) as words:
                words[0] = 7
            other = stack.enter_context(attached(block.name))
        with words_of(other, 1) as words:
            return words[0], is_there(block.name)


def hold(name: str, ready: Event) -> None:
    """Write into the block, say so, and keep it attached until killed."""
    with attached(name) as block, words_of(block, 1) as words:
        words[0] = 7
        ready.set()
        time.sleep(LIMIT)


def kill_who_holds_it() -> tuple[int, bool]:
    """Kill a worker in the midst of its use; return as `use_after_unlink` does.

    Raises:
        RuntimeError: the worker has ended before.
    """
    with ctrl_c_later():
        ready = multiprocessing.Event()
    with shared_block(WORD) as block:
        worker = multiprocessing.Process(target=hold, args=(block.name, ready))
        with running([worker]):
            ready.wait(LIMIT)
            worker.kill()
        if worker.exitcode == 0:
            raise RuntimeError("the worker has ended by itself")
        with words_of(block, 1) as words:
            written = words[0]
    return written, is_there(block.name)


def leak() -> tuple[str, bool]:
    """Let a program forget a block; return what it complains of, and as above.

    The resource tracker shares the program's stderr, so it has ended when that has.
    """
    program = [sys.executable, "-W", "default", "-c", LEAK]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    return done.stderr, is_there(done.stdout.strip())


class HalfWay:
    """Stops a writer in the middle of a record, until its reader has met it twice."""

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier

    def __call__(self) -> None:
        self._barrier.wait(LIMIT)
        self._barrier.wait(LIMIT)


def write_record(
    name: str,
    number: int,
    lock: AbstractContextManager[object],
    half_way: Callable[[], object],
) -> None:
    """Write a record, `number` twice, while holding `lock`."""
    with attached(name) as block, words_of(block, 2) as record, lock:
        record[0] = number
        half_way()  # who does not take the lock reads one new word and one old
        record[1] = number


def read_meanwhile(name: str, lock: Lock | None) -> list[int]:
    """Return what is read of a record, while another process writes 1 1 over 0 0.

    Args:
        lock: what reader and writer have agreed to take; None: they have not.

    Raises:
        RuntimeError: the lock can be had while the writer writes.
    """
    with ctrl_c_later():
        barrier = multiprocessing.Barrier(2)
    args = (name, 1, lock or nullcontext(), HalfWay(barrier))
    writer = multiprocessing.Process(target=write_record, args=args)
    with attached(name) as block, words_of(block, 2) as record, running([writer]):
        barrier.wait(LIMIT)
        if lock is None:
            seen = record.tolist()
            barrier.wait(LIMIT)
            return seen
        if lock.acquire(block=False):
            raise RuntimeError("the writer does not hold the lock")
        barrier.wait(LIMIT)
        with lock:
            return record.tolist()


def square_all(squares: "SynchronizedArray[int]", list_name: str) -> None:
    """Write squares into an Array, and change the items of a ShareableList."""
    with squares.get_lock():
        for number in range(len(squares)):
            squares[number] = number * number
    items: ShareableList[Any] = ShareableList(name=list_name)
    try:
        items[0] += 1
        items[1] = "done"
    finally:
        items.shm.close()


def filled_by_child() -> tuple[list[int], list[Any]]:
    """Return what a child has written into an Array and a ShareableList.

    Raises:
        RuntimeError: an item of the latter could grow.
    """
    with ctrl_c_later():
        squares = multiprocessing.Array("q", 4)
    with ExitStack() as stack:
        with ctrl_c_later():
            items: ShareableList[Any] = ShareableList([1, "text", 0.5, None])
            stack.callback(remove, items.shm)
        args = (squares, items.shm.name)
        with running([multiprocessing.Process(target=square_all, args=args)]):
            pass
        try:
            items[1] = "longer than the text"
        except ValueError:
            return squares[:], [items[i] for i in range(len(items))]
        raise RuntimeError("an item has grown")


def word_count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_WORDS:
        raise argparse.ArgumentTypeError(f"must be in 1 … {MAX_WORDS:,}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--words", type=word_count, default=1000)
    n_words = parser.parse_args().words

    total = sum_written_by_child(n_words)
    if total != n_words * (n_words - 1) // 2:
        raise SystemExit(f"the child's numbers add up to {total}")
    print(f"by name         a child writes {n_words:,} words; their sum is {total:,}")

    on_windows = sys.platform == "win32"  # there a block is there while it is attached
    if use_after_unlink() != (7, on_windows):
        raise SystemExit("who is attached was to go on, nobody else to attach")
    print("after unlink    who is attached goes on, nobody else can attach")
    with suppress(ValueError), shared_block(WORD) as block:
        int("not a number")
    if is_there(block.name):
        raise SystemExit("an exception has left a block behind")
    if kill_who_holds_it() != (7, False):
        raise SystemExit("a killed worker was to leave what it wrote, but no block")
    print("nothing left    after an exception; after a worker was killed that used it")
    complaint, there = leak()
    if there or not (on_windows or "leaked shared_memory" in complaint):
        raise SystemExit(f"the tracker was to remove a leaked block: {complaint}")
    print("nobody unlinks  the tracker does when the program has ended, and complains")

    with shared_block(2 * WORD) as block:
        torn = read_meanwhile(block.name, None)
    with shared_block(2 * WORD) as block:
        with ctrl_c_later():
            lock = multiprocessing.Lock()
        whole = read_meanwhile(block.name, lock)
    if (torn, whole) != ([1, 0], [1, 1]):
        raise SystemExit(f"read: {torn}, with lock {whole}")
    print(
        f"0 0 to 1 1      read meanwhile: {torn}; with a lock, after waiting: {whole}"
    )

    squares, items = filled_by_child()
    if (squares, items) != ([0, 1, 4, 9], [2, "done", 0.5, None]):
        raise SystemExit(f"the child has written {squares} and {items}")
    print(f"Array           {squares}, handed to the child when it was started")
    print(f"ShareableList   {items}, found by name; no item can grow")
    print("a block needs one who removes it, and a lock that everybody takes")


if __name__ == "__main__":
    main()
