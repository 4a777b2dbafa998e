"""A manager is a process that keeps objects for others, who ask it by message.

What a manager's dict() gives is a proxy. Each call on it is sent to the manager, is
carried out there by a thread, one for each client, and the result comes back as a copy.
So it works between any processes (and machines), for any object; and three traps come
with it. What is taken out of a managed dict is a copy: `d["log"].append(…)` changes
the copy only. Assign it back, or put in a managed list. `d["n"] += 1` is two messages,
and another client may send its own in between: hold a managed Lock around both; or
keep an object of your own there that does it in one call, under a lock of its own,
because the manager's threads call it at the same time. And every message costs a
hundred times what shared memory costs.

The manager ends with its block. It ignores Ctrl-C, so that what it keeps can still be
asked for; when it is gone, so is all that it kept, and each call raises an OSError or
an EOFError. For data that must survive, and for many machines, use a database: Redis
speaks to this pattern, SQLite does for one machine.

Try:  --processes 4 --additions 100

Output:
    d["log"].append      0 of 3 entries arrived; assigned back 3, in a managed list 3
    d["n"] += 1          50 of 100: 50 updates lost
    with a managed Lock  100 of 100
    own class, add(1)    100 of 100, each in one message
    one read             dict 0.03 µs, Value 0.21 µs, managed dict 46 µs
    Ctrl-C               ignored by the manager, which still answers
    after the block      the manager has ended; a call raises an error
    manager killed       a call raises an error, and what it kept is lost
"""

import argparse
import multiprocessing
import os
import signal
import sys
import threading
import timeit
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from multiprocessing import resource_tracker
from multiprocessing.managers import BaseManager, SyncManager
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from typing import Any, TypeVar

LIMIT = 30.0  # seconds that a step of the demonstration may take
MAX_PROCESSES = 50
READS = 500  # of each kind, to be timed

M = TypeVar("M", bound=BaseManager)


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
def started(manager: M) -> Iterator[M]:
    """Run the process of `manager` for the length of the block."""

    def end() -> None:
        with ctrl_c_later():
            manager.shutdown()

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            manager.start()
            stack.callback(end)
        yield manager


class Tally:
    """A counter to keep in a manager, whose threads may call it at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _total
        self._total = 0

    def add(self, amount: int) -> None:
        with self._lock:
            self._total += amount

    def total(self) -> int:
        with self._lock:
            return self._total

    def reset(self) -> None:
        """Not for clients: not exposed."""
        self._total = 0


class TallyManager(BaseManager):
    """Keeps tallies.

    `make_tally` is there once `register_tally` has been called, before start().
    """

    make_tally: Callable[[], Tally]  # in fact, a proxy of one


def register_tally() -> None:
    TallyManager.register("make_tally", Tally, exposed=("add", "total"))


class OneWhenAllHaveRead:
    """An amount of 1 that nobody gets before all parties of `barrier` ask for it."""

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier

    def __call__(self) -> int:
        self._barrier.wait(LIMIT)
        return 1


def one() -> int:
    return 1


def add_to_dict(
    shared: MutableMapping[str, int],
    n: int,
    lock: AbstractContextManager[object],
    amount: Callable[[], int],
) -> None:
    """Add what `amount` returns to `shared["n"]`, `n` times, each time under `lock`.

    Python reads the item before it calls `amount`, and writes it afterwards.
    """
    for _ in range(n):
        with lock:
            shared["n"] += amount()  # a message to read, a message to write


def add_to_tally(tally: Tally, n: int) -> None:
    for _ in range(n):
        tally.add(1)


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


def in_processes(n_processes: int, add: Callable[..., None], *args: Any) -> None:
    """Call `add(*args)` in each of `n_processes` processes; return when all are done.

    Raises:
        RuntimeError: it failed in one of them (which has printed a traceback).
    """
    processes = [
        multiprocessing.Process(target=add, args=args) for _ in range(n_processes)
    ]
    with running(processes):
        pass
    if any(process.exitcode for process in processes):
        raise RuntimeError(f"{add.__name__} failed")


def entries_that_arrive(manager: SyncManager, entries: Sequence[int]) -> list[int]:
    """Log `entries` in a managed dict in three ways; return how many each one keeps."""
    shared = manager.dict(copied=[], assigned=[], managed=manager.list())
    for entry in entries:
        shared["copied"].append(entry)  # the copy that was just made, and is dropped

        log = shared["assigned"]
        log.append(entry)
        shared["assigned"] = log

        shared["managed"].append(entry)  # what was taken out is a proxy
    return [len(shared[key]) for key in ("copied", "assigned", "managed")]


def can_be_called(call: Callable[[], object]) -> bool:
    """Tell whether `call`, which asks a manager for something, gets an answer."""
    try:
        call()
    except (OSError, EOFError):  # which one, depends on how far the message got
        return False
    return True


def microseconds(read: Callable[[], object]) -> float:
    return 1e6 * timeit.timeit(read, number=READS) / READS


def several(text: str) -> int:
    number = int(text)
    if not 2 <= number <= MAX_PROCESSES:
        raise argparse.ArgumentTypeError(
            f"must be in 2 … {MAX_PROCESSES}, not {number}"
        )
    return number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=several, default=2)
    parser.add_argument("--additions", type=positive, default=50)
    options = parser.parse_args()
    n_processes, n = options.processes, options.additions
    total = n_processes * n

    with started(SyncManager(shutdown_timeout=LIMIT)) as manager:
        arrived = entries_that_arrive(manager, range(3))
        if arrived != [0, 3, 3]:
            raise SystemExit(f"arrived: {arrived}")
        print(
            f'd["log"].append      {arrived[0]} of 3 entries arrived; '
            f"assigned back {arrived[1]}, in a managed list {arrived[2]}"
        )

        shared = manager.dict(n=0)
        with ctrl_c_later():
            barrier = multiprocessing.Barrier(n_processes)
        one_of_all = OneWhenAllHaveRead(barrier)
        in_processes(n_processes, add_to_dict, shared, n, nullcontext(), one_of_all)
        print(
            f'd["n"] += 1          {shared["n"]} of {total}: '
            f"{total - shared['n']} updates lost"
        )
        if shared["n"] != n:
            raise SystemExit("all additions of a round but one were to be lost")
        shared["n"] = 0
        in_processes(n_processes, add_to_dict, shared, n, manager.Lock(), one)
        print(f"with a managed Lock  {shared['n']} of {total}")
        if shared["n"] != total:
            raise SystemExit("updates were lost in spite of the lock")

        local = {"n": 0}
        with ctrl_c_later():
            value = multiprocessing.Value("q", 0)
        costs = [
            microseconds(lambda: local["n"]),
            microseconds(lambda: value.value),
            microseconds(lambda: shared["n"]),
        ]
        (process,) = multiprocessing.active_children()
        if sys.platform != "win32":
            assert process.pid is not None
            os.kill(process.pid, signal.SIGINT)
        if not can_be_called(lambda: shared["n"]):
            raise SystemExit("the manager was to ignore Ctrl-C")

    if process.is_alive() or can_be_called(lambda: shared["n"]):
        raise SystemExit("the manager was to end with the block")

    register_tally()
    # At a port, and not at a file, which a manager that is killed leaves behind.
    with started(TallyManager(("127.0.0.1", 0), shutdown_timeout=LIMIT)) as tallies:
        tally = tallies.make_tally()
        in_processes(n_processes, add_to_tally, tally, n)
        if tally.total() != total:
            raise SystemExit(f"the tally says {tally.total()}, not {total}")
        if hasattr(tally, "reset"):
            raise SystemExit("what is not exposed can be called")
        print(f"own class, add(1)    {tally.total()} of {total}, each in one message")
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        if can_be_called(tally.total):
            raise SystemExit("a dead manager has answered")
    print(
        "one read             dict {:.2f} µs, Value {:.2f} µs, "
        "managed dict {:.0f} µs".format(*costs)
    )
    print("Ctrl-C               ignored by the manager, which still answers")
    print("after the block      the manager has ended; a call raises an error")
    print("manager killed       a call raises an error, and what it kept is lost")


if __name__ == "__main__":
    main()
