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
import pickle
import platform
import sys
from concurrent.futures import Executor
from contextlib import AbstractContextManager, closing

from example02_countdown_in_threads import (
    count_down,
    gil_state,
    measure,
    usable_cores,
)
from example03_countdown_in_processes import process_pool

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


def write_into(buffer: memoryview) -> None:
    """Change the first byte."""
    buffer[0] = 7


def interpreter_pool(n_workers: int) -> AbstractContextManager[Executor] | None:
    """Return a pool of `n_workers` subinterpreters; None before Python 3.14."""
    if sys.version_info >= (3, 14):
        from concurrent.futures import InterpreterPoolExecutor

        # Each begins with the sys.path of the program's start; it may have grown since.
        same_path = f"import sys; sys.path[:] = {sys.path}"
        return InterpreterPoolExecutor(
            n_workers, initializer=exec, initargs=(same_path,)
        )
    return None


def isolated_pool(n_workers: int) -> AbstractContextManager[Executor]:
    """Return a pool of `n_workers` subinterpreters; of processes before Python 3.14."""
    return interpreter_pool(n_workers) or process_pool(n_workers)


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

        timing = measure(lambda: pool.map(count_down, [STEPS] * WORKERS))
        took = f"{timing.cpu:.2f} s of CPU time in {timing.wall:.2f} s"
        print(f"  {WORKERS} countdowns       {took}")
    if model == "processes":
        show_what_processes_lack()
    else:
        show_interpreter()
    busy = f"{100 * timing.cores_busy:.0f} % of a core busy"
    print(f"{model} share no GIL: they keep {busy}")


if __name__ == "__main__":
    main()
