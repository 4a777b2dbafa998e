"""Subinterpreters: several interpreters in one process, each with a GIL of its own.

They share the memory of the process, but no module and no mutable object (PEP 684). A
global variable that one of them sets is still the old one in the others. As each has
its own GIL, they run in parallel: isolated like processes, in one process like threads.
Python 3.14 has the module `concurrent.interpreters` (PEP 734) and an executor. Before
that, this script does the same with processes, and says what they lack.

What is passed to another interpreter arrives as a copy. Two things are shared: the
buffer of a memoryview, whose users have to take turns, and a queue. A function that
uses no global goes as its code. Any other goes by its name: the other interpreter
imports its module, or runs the main script once more under another name (hence the main
guard). Not every extension module can be imported there; one that cannot raises
ImportError.

Where a call fails, `Interpreter.call` raises ExecutionFailed, which describes the
exception; an executor raises the exception itself.

Output:
    Python <version>, GIL <gil>, <cores> cores
    two isolated workers: <model>
      a module's global  set to 6 there, still 0 here
      a list             3 items there, 2 here: a copy
      an exception       ValueError there, ValueError here
      2 countdowns       0.22 s of CPU time in 0.14 s
    ...
    <model> share no GIL: they keep 154 % of a core busy
"""

import calendar
import os
import pickle
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from multiprocessing import resource_tracker

WORKERS = 2
STEPS = 2_000_000  # of each countdown, some 0.1 s


def set_first_weekday(day: int) -> int:
    """Set a global variable of the module `calendar`, and return it."""
    calendar.setfirstweekday(day)
    return calendar.firstweekday()


def append_to(items: list[int]) -> int:
    """Append to `items`; return how many they are."""
    items.append(0)
    return len(items)


def fail() -> None:
    raise ValueError("this went wrong")


def count_down(n: int) -> float:
    """Count from `n` down to zero; return the CPU time in seconds."""
    cpu = time.thread_time()
    while n > 0:
        n -= 1
    return time.thread_time() - cpu


def write_into(buffer: memoryview) -> None:
    """Change the first byte."""
    buffer[0] = 7


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


def isolated_pool(n_workers: int) -> AbstractContextManager[Executor]:
    """Return a pool of `n_workers` subinterpreters; of processes before Python 3.14."""
    if sys.version_info >= (3, 14):
        from concurrent.futures import InterpreterPoolExecutor

        # Each begins with the sys.path of the program's start; it may have grown since.
        same_path = f"import sys; sys.path[:] = {sys.path}"
        return InterpreterPoolExecutor(
            n_workers, initializer=exec, initargs=(same_path,)
        )
    return process_pool(n_workers)


def show_what_processes_lack() -> None:
    """Check and print that a buffer cannot be passed to another process."""
    print("subinterpreters need Python 3.14; what processes lack:")
    try:
        pickle.dumps(memoryview(b""))  # as is done with all that is sent to a process
    except TypeError:
        print("  a memoryview       TypeError; use multiprocessing.shared_memory")
    else:
        raise SystemExit("a memoryview was not to be pickled")


def show_interpreter() -> None:
    """Check and print what else a subinterpreter can do (Python 3.14 and later)."""
    if sys.version_info >= (3, 14):
        from concurrent import interpreters

        with closing(interpreters.create()) as interpreter:
            print("one interpreter, and no pool")
            interpreter.exec(f"import sys; sys.path[:] = {sys.path}")
            buffer = bytearray(1)
            interpreter.call(write_into, memoryview(buffer))
            if buffer != b"\7":
                raise SystemExit(f"there was to be 7 in the buffer: {buffer!r}")
            print(f"  a memoryview       {buffer[0]} written there, read here: shared")

            there, back = interpreters.create_queue(), interpreters.create_queue()
            for item in (1, "two", [3]):
                there.put(item)
            interpreter.prepare_main(there=there, back=back)
            interpreter.exec("while not there.empty(): back.put(there.get())")
            items = [back.get_nowait() for _ in range(3)]
            if items != [1, "two", [3]]:
                raise SystemExit(f"other items came back by the queue: {items}")
            print(f"  two queues         {items} there and back")

            try:
                interpreter.call(fail)
            except interpreters.ExecutionFailed as error:
                kind = error.excinfo.type.__name__
            else:
                raise SystemExit("a call was to fail")
            if interpreter.call(abs, -1) != 1:
                raise SystemExit("the interpreter was to go on")
            print(
                f"  a call that fails  ExecutionFailed, of {kind}; the next one works"
            )


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def main() -> None:
    print(
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    model = "subinterpreters" if sys.version_info >= (3, 14) else "processes"
    print(f"two isolated workers: {model}")
    with isolated_pool(WORKERS) as pool:
        there = pool.submit(set_first_weekday, calendar.SUNDAY).result()
        here = calendar.firstweekday()
        if (there, here) != (calendar.SUNDAY, calendar.MONDAY):
            raise SystemExit(f"a module was to be there twice: {there} and {here}")
        print(f"  a module's global  set to {there} there, still {here} here")

        items = [1, 2]
        n_there = pool.submit(append_to, items).result()
        if (n_there, len(items)) != (3, 2):
            raise SystemExit(f"a list was to be copied: {n_there} and {items}")
        print(f"  a list             {n_there} items there, {len(items)} here: a copy")

        error = pool.submit(fail).exception()
        if not isinstance(error, ValueError):
            raise SystemExit(f"a ValueError was to come: {error!r}")
        print(f"  an exception       ValueError there, {type(error).__name__} here")

        began = time.perf_counter()
        cpu = sum(pool.map(count_down, [STEPS] * WORKERS))
        wall = time.perf_counter() - began
        print(f"  {WORKERS} countdowns       {cpu:.2f} s of CPU time in {wall:.2f} s")
    if model == "processes":
        show_what_processes_lack()
    else:
        show_interpreter()
    print(f"{model} share no GIL: they keep {100 * cpu / wall:.0f} % of a core busy")


if __name__ == "__main__":
    main()
