"""What goes to another process has to be pickled; what cannot be, and what to do then.

A function or a class is pickled by name: module and qualified name, no code. A lambda
or what is defined in a function has no name that another process could import; what
is defined in an interactive session has no module to import it from. (A script has
one: where children are not forked, they import it anew, hence the main guard.) Locks,
files, connections and generators stand for something that this process has. Send what
to make them from, and let the other one make its own; `__getstate__` and `__reduce__`
do so for attributes and objects.

Where the error shows depends on the means. A pool hands it over with the result. A
multiprocessing.Queue pickles in a thread, long after put() has returned: a traceback on
stderr, an item missing. Worst is what can be pickled but not unpickled: an exception
with arguments of its own for `__init__` ends a whole ProcessPoolExecutor, and a Pool
waits for ever. Hand all arguments to `super().__init__`, and try the round trip in a
test. cloudpickle pickles lambdas and local classes with their code (joblib and Dask
use it).

Output:
    cannot be pickled        the error names  instead, carried out by a worker
    lambda                   lambda           operator.itemgetter
    nested function          local object     partial of a named function
    object of a local class  local object     class at module level
    lock (attribute)         _thread.lock     __getstate__ without it
    open file                TextIOWrapper    __reduce__ to its path
    generator                generator        list of what it yields
    module                   module           its name, import it there
    multiprocessing.Lock     inheritance      initializer of the pool
    function of __main__     attribute        module to import it from
    own exception            missing 1        super().__init__(all arguments)

    raised for a task's      ProcessPoolExecutor  Pool
    argument                 TypeError            TypeError
    result                   TypeError            MaybeEncodingError
    exception, mended        MendedQuotaError     MendedQuotaError
    exception, not mended    BrokenProcessPool    TimeoutError
    Queue.put shows nothing; its thread prints a traceback, the item is missing
    SimpleQueue.put raises at once, as pickle.dumps does before any put
"""

import argparse
import importlib
import io
import math
import multiprocessing
import operator
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager, redirect_stderr, suppress
from functools import partial
from multiprocessing.pool import AsyncResult, Pool
from multiprocessing.synchronize import Lock
from pathlib import Path
from typing import Any, ClassVar, TextIO

Task = Callable[[], object]

LIMIT = 30.0  # seconds that a step of the demonstration may take
PATIENCE = 0.1  # seconds to wait for a result that never comes


def why_not(thing: object) -> str | None:
    """Return why `thing` cannot go to another process and be restored; None if it can.

    The round trip is made here, where everything is imported already.
    """
    try:
        pickle.loads(pickle.dumps(thing))
    except Exception as error:  # of any type: each class may raise what it likes
        return str(error)
    return None


def power(exponent: int, base: int) -> int:
    return int(base**exponent)


class Journal:
    """Lines, guarded by a lock that does not travel: each process makes its own."""

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._lock = threading.Lock()  # guards _lines
        self._lines = list(lines)

    def add(self, line: str) -> int:
        """Add a line; return how many there are now."""
        with self._lock:
            self._lines.append(line)
            return len(self._lines)

    def __getstate__(self) -> dict[str, object]:
        with self._lock:
            return {"_lines": self._lines.copy()}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()


class OpenFile:
    """A file to read, which another process opens anew, at its beginning."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open(encoding="utf-8")

    def __reduce__(self) -> tuple[type["OpenFile"], tuple[Path]]:
        return OpenFile, (self._path,)

    def count_lines(self) -> int:
        """Return how many lines there are from here on, and close the file."""
        with self._file:
            return sum(1 for _ in self._file)

    def close(self) -> None:
        self._file.close()


def call_in(module: str, function: str, *args: Any) -> Any:
    """Call a function of a module that goes by its name."""
    return getattr(importlib.import_module(module), function)(*args)


class QuotaError(Exception):
    """Can be pickled, but not unpickled: its `args` are not those of `__init__`."""

    def __init__(self, user: str, limit: int) -> None:
        super().__init__(f"{user} may keep {limit}")


class MendedQuotaError(Exception):
    """The same, with all that `__init__` takes in `args`."""

    def __init__(self, user: str, limit: int) -> None:
        super().__init__(user, limit)
        self.user, self.limit = user, limit

    def __str__(self) -> str:
        return f"{self.user} may keep {self.limit}"


def exceed(error_class: Callable[[str, int], Exception]) -> None:
    raise error_class("Ada", 100)


def make_generator() -> Iterator[int]:
    yield from range(3)


def make_function() -> Callable[[], int]:
    def nested() -> int:
        return 1

    return nested


def make_object() -> object:
    class Local:
        pass

    return Local()


class Shared:
    """What a worker is given at its start, because it cannot go with a task."""

    lock: ClassVar[Lock]


def begin_worker(lock: Lock) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Shared.lock = lock


def hold_shared_lock() -> bool:
    with Shared.lock:
        return True


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
def sharing_pool(lock: Lock) -> Iterator[ProcessPoolExecutor]:
    """A pool of one process that has `lock`, and leaves Ctrl-C to this one."""

    def end() -> None:
        with ctrl_c_later():
            pool.shutdown()

    with ExitStack() as stack:
        with ctrl_c_later():
            pool = ProcessPoolExecutor(1, None, begin_worker, (lock,))
            stack.callback(end)
            pool.submit(abs, 1).result()
        yield pool


@contextmanager
def classic_pool(lock: Lock) -> Iterator[Pool]:
    """The same as a `multiprocessing.Pool`, which also ends if it has been broken."""

    def end() -> None:
        with ctrl_c_later():
            with suppress(AssertionError):  # its thread that takes results has died
                pool.terminate()
            pool.join()

    with ExitStack() as stack:
        with ctrl_c_later():
            pool = multiprocessing.Pool(1, begin_worker, (lock,))
            stack.callback(end)
        yield pool


def raised_by(call: Task) -> str:
    """Return the name of the exception that `call` raises."""
    try:
        call()
    except Exception as error:  # of any type: it is the question which
        # The traceback has frames of the pool's threads, and these its buffers.
        return type(error.with_traceback(None)).__name__
    return "nothing"


def errors_in_executor(lock: Lock) -> list[str]:
    """Return what a task raises whose argument, result, exception cannot travel."""
    with sharing_pool(lock) as pool:
        tasks: list[Future[object]] = [
            pool.submit(list, make_generator()),
            pool.submit(make_generator),
            pool.submit(exceed, MendedQuotaError),
            pool.submit(exceed, QuotaError),
        ]
        return [raised_by(task.result) for task in tasks]


def errors_in_pool(lock: Lock) -> list[str]:
    """Return the same of a `multiprocessing.Pool`."""
    hook, threading.excepthook = threading.excepthook, lambda _: None
    try:
        with classic_pool(lock) as pool:
            tasks: list[AsyncResult[Any]] = [
                pool.apply_async(list, (make_generator(),)),
                pool.apply_async(make_generator),
                pool.apply_async(exceed, (MendedQuotaError,)),
            ]
            raised = [raised_by(partial(task.get, LIMIT)) for task in tasks]
            never = pool.apply_async(exceed, (QuotaError,))
            return [*raised, raised_by(partial(never.get, PATIENCE))]
    finally:
        threading.excepthook = hook


def through_queue(items: Iterable[object]) -> tuple[object, str]:
    """Put `items` into a queue; return the first that arrives, and what is printed."""
    with ctrl_c_later():
        channel: multiprocessing.Queue[object] = multiprocessing.Queue()
    with redirect_stderr(io.StringIO()) as printed:
        with ctrl_c_later():  # in the midst of put() it could leave a lock locked
            for item in items:
                channel.put(item)
        arrived = channel.get(timeout=LIMIT)
        channel.close()
        channel.join_thread()
    return arrived, printed.getvalue()


def error_elsewhere(thing: object) -> str:
    """Return what an interpreter says that has to restore `thing`.

    It knows nothing of this program, like a process started from a session.
    """
    program = [
        sys.executable,
        "-c",
        "import pickle, sys; pickle.load(sys.stdin.buffer)",
    ]
    done = subprocess.run(
        program, input=pickle.dumps(thing), capture_output=True, check=False
    )
    return done.stderr.decode().strip().rpartition("\n")[2]


def impossible(file: TextIO, lock: Lock) -> dict[str, tuple[object, str]]:
    """Return what cannot be pickled, and how the error calls it."""
    return {
        "lambda": (lambda pair: pair[1], "lambda"),
        "nested function": (make_function(), "local object"),
        "object of a local class": (make_object(), "local object"),
        "lock (attribute)": (threading.Lock(), "_thread.lock"),
        "open file": (file, "TextIOWrapper"),
        "generator": (make_generator(), "generator"),
        "module": (math, "module"),
        "multiprocessing.Lock": (lock, "inheritance"),
    }


def instead(file: OpenFile, n_lines: int) -> dict[str, tuple[Task, object]]:
    """Return, in the same order, what can be, as a task with its result."""
    return {
        "operator.itemgetter": (partial(operator.itemgetter(1), (4, 9)), 9),
        "partial of a named function": (partial(power, 2, 3), 9),
        "class at module level": (partial(Journal().add, "first"), 1),
        "__getstate__ without it": (partial(Journal(["first"]).add, "second"), 2),
        "__reduce__ to its path": (file.count_lines, n_lines),
        "list of what it yields": (partial(sum, list(make_generator())), 3),
        "its name, import it there": (partial(call_in, "math", "isqrt", 9), 3),
        "initializer of the pool": (hold_shared_lock, True),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args()
    with ctrl_c_later():
        lock = multiprocessing.Lock()

    print("cannot be pickled        the error names  instead, carried out by a worker")
    path = Path(__file__)
    n_lines = len(path.read_text("utf-8").splitlines())
    with (
        sharing_pool(lock) as pool,
        path.open(encoding="utf-8") as file,
        closing(OpenFile(path)) as own_file,
    ):
        things, mends = impossible(file, lock), instead(own_file, n_lines)
        for what, mend in zip(things, mends, strict=True):
            (thing, named), (task, expected) = things[what], mends[mend]
            error = why_not(thing)
            if error is None or named not in error:
                raise SystemExit(f"{what}: {error}")
            if (result := pool.submit(task).result(LIMIT)) != expected:
                raise SystemExit(f"{mend}: {result}, not {expected}")
            print(f"{what:24} {named:16} {mend}")
    elsewhere = error_elsewhere(power)
    if "AttributeError" not in elsewhere or "'power'" not in elsewhere:
        raise SystemExit(f"a new interpreter was not to know power: {elsewhere}")
    print("function of __main__     attribute        module to import it from")

    error = why_not(QuotaError("Ada", 100))
    if error is None or "missing 1 required" not in error:
        raise SystemExit(f"was not to be unpickled: {error}")
    if why_not(MendedQuotaError("Ada", 100)):
        raise SystemExit("the mended one was to survive the round trip")
    print("own exception            missing 1        super().__init__(all arguments)")

    in_executor, in_pool = errors_in_executor(lock), errors_in_pool(lock)
    if in_executor != [
        "TypeError",
        "TypeError",
        "MendedQuotaError",
        "BrokenProcessPool",
    ]:
        raise SystemExit(f"executor: {in_executor}")
    if in_pool != [
        "TypeError",
        "MaybeEncodingError",
        "MendedQuotaError",
        "TimeoutError",
    ]:
        raise SystemExit(f"pool: {in_pool}")
    print()
    print("raised for a task's      ProcessPoolExecutor  Pool")
    for what, *names in zip(
        ("argument", "result", "exception, mended", "exception, not mended"),
        in_executor,
        in_pool,
        strict=True,
    ):
        print(f"{what:24} {names[0]:20} {names[1]}")

    arrived, printed = through_queue([make_generator(), "the next"])
    if arrived != "the next" or "TypeError" not in printed:
        raise SystemExit(f"queue: {arrived} arrived, printed was {printed}")
    with ctrl_c_later():
        simple: multiprocessing.SimpleQueue[object] = multiprocessing.SimpleQueue()
    with closing(simple):
        if raised_by(partial(simple.put, make_generator())) != "TypeError":
            raise SystemExit("SimpleQueue.put was to raise")
    print("Queue.put shows nothing; its thread prints a traceback, the item is missing")
    print("SimpleQueue.put raises at once, as pickle.dumps does before any put")


if __name__ == "__main__":
    main()
