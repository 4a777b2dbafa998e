"""At the end of `with`, some things wait for their tasks, and some throw them away.

In each block one task has started and three are to follow; the first is held up until
the block has been left, or has been waiting to be left for a while. Then it is seen
what became of the tasks, both when the block ended and when it raised an exception.

Executors wait for everything, also for what has not begun, also after an exception;
`shutdown(cancel_futures=True)` of a thread pool drops what has not begun. A pool of
multiprocessing kills its processes: what was not fetched inside the block is lost, and
asking for it later waits for ever. A TaskGroup waits, but cancels its tasks if the
block raises. `asyncio.timeout` is about the block alone. A Thread is no context manager
at all.

Output:
    tasks of               block ended          block raised
    ProcessPoolExecutor    4 done               4 done
    multiprocessing.Pool   4 lost               4 lost
    subprocess.Popen       1 done               1 done
    ThreadPoolExecutor     4 done               4 done
      with cancel_futures  1 done, 3 cancelled  1 done, 3 cancelled
    asyncio.TaskGroup      4 done               4 cancelled
    asyncio.timeout        4 left running       4 left running
    threading.Thread       is no context manager: join it in finally
"""

import asyncio
import multiprocessing
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    ExitStack,
    contextmanager,
    suppress,
)
from multiprocessing import resource_tracker
from multiprocessing.pool import AsyncResult, Pool
from typing import Any, TypeVar

Task = Future[Any] | AsyncResult[Any] | asyncio.Task[Any] | subprocess.Popen[bytes]
P = TypeVar("P")

PATIENCE = 0.05  # seconds that the end of a block is given, if it waits, to be left
TIME_LIMIT = 10.0  # seconds
TURNS = 100  # of an event loop, which PATIENCE is there


class BlockFailedError(Exception):
    """What a block raises here."""


def end_block(fails: bool) -> None:
    """Stand at the end of a block; raise BlockFailedError if it is to fail."""
    if fails:
        raise BlockFailedError


class Gate:
    """Holds up a task, in whatever thread or process, until it is opened."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(TIME_LIMIT)
        self._task: socket.socket | None = None
        self.port: int = self._listener.getsockname()[1]

    def wait_for_task(self) -> None:
        """Return when a task stands before the gate.

        Raises:
            TimeoutError: none came within TIME_LIMIT.
        """
        self._task, _ = self._listener.accept()

    def open(self) -> None:
        """Let the task pass; more than once has no effect."""
        self._listener.close()
        if self._task:
            self._task.close()


def pass_gate(port: int) -> None:
    """Wait until the gate at `port` is opened; pass if it is open already.

    Raises:
        TimeoutError: it was not opened within TIME_LIMIT.
    """
    with (
        suppress(ConnectionError),
        socket.create_connection(("127.0.0.1", port), TIME_LIMIT) as connection,
    ):
        connection.recv(1)  # returns when the other end is closed


def state_of(task: Task) -> str:
    """Return what became of a task by now."""
    match task:
        case AsyncResult():
            return "done" if task.ready() else "lost"
        case subprocess.Popen():
            return "done" if task.returncode is not None else "left running"
    if task.cancelled():
        return "cancelled"
    return "done" if task.done() else "left running"


def states_after(
    manager: AbstractContextManager[P],
    start: Callable[[P, Gate], list[Task]],
    fails: bool,
    patience: float = PATIENCE,
) -> list[str]:
    """Return the states of tasks right after the block that started them.

    Args:
        manager: what the block is for.
        start: starts the tasks in the block, the first of which comes to the gate.
        fails: whether the block raises.
        patience: seconds until the gate opens, counted from the end of the block.
    """
    with ExitStack() as clean_up:
        with suppress(BlockFailedError), manager as thing:
            clean_up.enter_context(ctrl_c_later())
            gate = Gate()  # not before: forked processes would keep a copy open
            clean_up.callback(gate.open)
            opening = threading.Timer(patience, gate.open)
            try:
                tasks = start(thing, gate)
                opening.start()
            except BaseException:
                gate.open()  # or the end of the block would wait for the task
                raise
            clean_up.callback(opening.join)
            clean_up.callback(opening.cancel)
            end_block(fails)
        return [state_of(task) for task in tasks]


def submit(pool: Executor, gate: Gate) -> list[Task]:
    tasks: list[Task] = [pool.submit(pass_gate, gate.port)]
    tasks += [pool.submit(abs, n) for n in range(3)]
    gate.wait_for_task()
    return tasks


def submit_and_cancel(pool: Executor, gate: Gate) -> list[Task]:
    tasks = submit(pool, gate)
    pool.shutdown(wait=False, cancel_futures=True)
    return tasks


def apply_async(pool: Pool, gate: Gate) -> list[Task]:
    tasks: list[Task] = [pool.apply_async(pass_gate, (gate.port,))]
    tasks += [pool.apply_async(abs, (n,)) for n in range(3)]
    gate.wait_for_task()
    return tasks


def child_process() -> "subprocess.Popen[bytes]":
    """Start a process that reads a port, and waits at its gate."""
    code = (
        "import socket; socket.create_connection(('127.0.0.1', int(input()))).recv(1)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # its traceback, if no port comes
        start_new_session=True,  # Ctrl-C is not for it (Windows pays no heed)
    )


def send_to_gate(child: "subprocess.Popen[bytes]", gate: Gate) -> list[Task]:
    assert child.stdin is not None
    child.stdin.write(f"{gate.port}\n".encode())
    child.stdin.flush()
    gate.wait_for_task()
    return [child]


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
def new_process_pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `n_workers` processes that leave Ctrl-C to this one.

    It ends as its own `with` would end it. Ctrl-C has to wait meanwhile, and while they
    start: in the midst of that, a pool cannot be ended in order. Make it before any
    thread, which would let Ctrl-C through and should not be forked.
    """
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        with ctrl_c_later():
            pool.shutdown()

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = ProcessPoolExecutor(n_workers, None, signal.signal, ignore_ctrl_c)
            stack.callback(end)
            list(pool.map(abs, range(n_workers)))
        yield pool


@contextmanager
def old_process_pool() -> Iterator[Pool]:
    """A `multiprocessing.Pool` of one process, with the same care for Ctrl-C."""
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = multiprocessing.Pool(1, signal.signal, ignore_ctrl_c)
            stack.enter_context(pool)
            pool.apply(abs, (0,))
        yield pool


def one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1)


async def states_after_async(
    scope: AbstractAsyncContextManager[object],
    create_task: Callable[..., asyncio.Task[Any]],
    fails: bool,
) -> list[str]:
    """Return the states of four tasks right after the asynchronous block."""
    # On a busy machine anything may be slow: debug mode need not warn of it.
    asyncio.get_running_loop().slow_callback_duration = TIME_LIMIT
    gate = asyncio.Event()

    async def open_gate() -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
        gate.set()

    try:
        async with scope:
            tasks = [create_task(gate.wait()) for _ in range(4)]
            await asyncio.sleep(0)  # now all of them stand before the gate
            opening = asyncio.create_task(open_gate())
            end_block(fails)
    except* BlockFailedError:
        pass
    states = [state_of(task) for task in tasks]
    await asyncio.wait([opening, *tasks])
    return states


async def states_after_task_group(fails: bool) -> list[str]:
    group = asyncio.TaskGroup()
    return await states_after_async(group, group.create_task, fails)


async def states_after_timeout(fails: bool) -> list[str]:
    scope = asyncio.timeout(TIME_LIMIT)
    return await states_after_async(scope, asyncio.create_task, fails)


def tally(states: list[str]) -> str:
    """Return how many tasks are in which state, such as `1 done, 3 lost`."""
    return ", ".join(f"{n} {state}" for state, n in Counter(states).items())


def main() -> None:
    # Processes first: they should not be forked from a program with several threads.
    observe: dict[str, Callable[[bool], list[str]]] = {
        "ProcessPoolExecutor": lambda f: states_after(new_process_pool(1), submit, f),
        "multiprocessing.Pool": lambda f: states_after(
            old_process_pool(), apply_async, f, TIME_LIMIT
        ),
        "subprocess.Popen": lambda f: states_after(child_process(), send_to_gate, f),
        "ThreadPoolExecutor": lambda f: states_after(one_thread(), submit, f),
        "  with cancel_futures": lambda f: states_after(
            one_thread(), submit_and_cancel, f
        ),
        "asyncio.TaskGroup": lambda f: asyncio.run(states_after_task_group(f)),
        "asyncio.timeout": lambda f: asyncio.run(states_after_timeout(f)),
    }
    expected = {
        "ProcessPoolExecutor": ("4 done", "4 done"),
        "multiprocessing.Pool": ("4 lost", "4 lost"),
        "subprocess.Popen": ("1 done", "1 done"),
        "ThreadPoolExecutor": ("4 done", "4 done"),
        "  with cancel_futures": ("1 done, 3 cancelled", "1 done, 3 cancelled"),
        "asyncio.TaskGroup": ("4 done", "4 cancelled"),
        "asyncio.timeout": ("4 left running", "4 left running"),
    }
    print(f"{'tasks of':21}  {'block ended':19}  block raised")
    for name, states in observe.items():
        after = tally(states(False)), tally(states(True))
        if after != expected[name]:
            raise SystemExit(f"{name.strip()}: {after}, not {expected[name]}")
        print(f"{name:21}  {after[0]:19}  {after[1]}")
    if hasattr(threading.Thread, "__exit__"):
        raise SystemExit("a thread has become a context manager")
    print("threading.Thread       is no context manager: join it in finally")


if __name__ == "__main__":
    main()
