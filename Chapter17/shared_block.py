"""Threads and processes share a block of memory, and it is gone when they have ended.

A block of shared memory has a name, by which each process maps it into memory of its
own, at some address. It belongs to nobody: it stays, even if all who know it have
ended, until somebody removes it (unlink; Windows removes it with its last user). So who
makes it removes it, whatever happens.

Two traps are avoided here. A view of a block (an array of ctypes, `numpy.frombuffer`)
keeps it from being closed: BufferError. (`numpy.ndarray(buffer=…)` does not; who uses
that array afterwards crashes.) So only the address is kept, and each who uses it
attaches the block for himself and detaches it at the end. And up to Python 3.12 a
process that attaches a block has its resource tracker remove it as well. That does no
harm among the children of one process, which share its tracker; others need 3.13, and
`track=False`.

Processes come from a pool that leaves Ctrl-C to this process.

Output:
    a thread and a process have added 1 to one number: 2
    a view is kept: BufferError from close
    the block fails, or ends: it is gone
    the address is enough, and who makes a block removes it
"""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory

SIZE = 64  # bytes
LIMIT = 10.0  # seconds for what is bound to come


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
def process_pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `n_workers` processes that leave Ctrl-C to this one.

    Ctrl-C has to wait while they start and while they end: in the midst of that, a pool
    cannot be ended in order. Make it before any thread, which would let Ctrl-C through
    and should not be forked. If the block fails, calls that have not begun are dropped:
    an interrupted `submit` may leave one that no process gets and the end would await.
    """
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)

    def end(kind: type[BaseException] | None, *_: object) -> None:
        with ctrl_c_later():
            pool.shutdown(cancel_futures=kind is not None)

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = ProcessPoolExecutor(n_workers, None, signal.signal, ignore_ctrl_c)
            stack.push(end)
            list(pool.map(abs, range(n_workers)))
        yield pool


@contextmanager
def shared_block(size: int) -> Iterator[str]:
    """Make a block of `size` bytes, all of them 0, and remove it at the end.

    Yields:
        The name by which threads and processes attach it.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)

    def remove() -> None:
        with ctrl_c_later():
            block.close()
            block.unlink()

    with ExitStack() as stack:
        with ctrl_c_later():
            block = SharedMemory(create=True, size=size)
            stack.callback(remove)
        yield block.name


@contextmanager
def attached(name: str) -> Iterator[int]:
    """Use a block of shared memory; yield the address of its first byte.

    Each party attaches it for itself, so that nobody's address ends with another's use.
    """
    if sys.version_info >= (3, 13):
        block = SharedMemory(name, track=False)
    else:  # only in the creator's process and its children: they share a tracker
        block = SharedMemory(name)
    try:
        assert block.buf is not None  # it is, once the block is closed
        # Only the address is kept: close() refuses while there is a view.
        yield ctypes.addressof(ctypes.c_char.from_buffer(block.buf))
    finally:
        block.close()


def add_one(name: str) -> None:
    """Add 1 to the first number in a block; nobody else may do so meanwhile."""
    with attached(name) as address:
        ctypes.c_int64.from_address(address).value += 1


def is_there(name: str) -> bool:
    """Tell whether there is a block of this name."""
    try:
        with attached(name):
            return True
    except FileNotFoundError:
        return False


def closing_with_a_view() -> str:
    """Return the name of what is raised if a block is closed while there is a view."""
    with shared_block(SIZE) as name:
        block = SharedMemory(name)
        assert block.buf is not None
        view = ctypes.c_int64.from_buffer(block.buf)
        try:
            block.close()
        except BufferError as error:
            return type(error).__name__
        finally:
            del view
            block.close()
    return "nothing"


def left_behind(fails: bool) -> bool:
    """Tell whether a block is still there after its use has ended, or failed."""
    with suppress(ArithmeticError), shared_block(SIZE) as name:
        if fails:
            raise ArithmeticError
    return is_there(name)


def demonstrate() -> None:
    """Check each claim, and print it."""
    with process_pool(1) as processes, shared_block(SIZE) as name:
        with ThreadPoolExecutor(1) as threads, ctrl_c_later():
            # Amid submit or result, it could leave a lock locked.
            threads.submit(add_one, name).result(LIMIT)
            processes.submit(add_one, name).result(LIMIT)
        with attached(name) as address:
            number = ctypes.c_int64.from_address(address).value
    print(f"a thread and a process have added 1 to one number: {number}")
    if number != 2:
        raise SystemExit("they were to share it")

    raised = closing_with_a_view()
    print(f"a view is kept: {raised} from close")
    if raised != "BufferError":
        raise SystemExit("a block of which there is a view was not to be closed")

    if left_behind(fails=True) or left_behind(fails=False):
        raise SystemExit("no block was to be left behind")
    print("the block fails, or ends: it is gone")


def main() -> None:
    try:
        demonstrate()
    except TimeoutError:
        raise SystemExit(f"somebody was waited for {LIMIT:g} s, in vain") from None
    print("the address is enough, and who makes a block removes it")


if __name__ == "__main__":
    main()
