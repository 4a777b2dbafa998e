# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy>=1.26.0"]
# ///
"""Two processes add up one array in shared memory, and nobody copies it.

Numbers that are sent to a process are pickled, copied through a pipe, and unpickled:
more work than to add them up. In shared memory they lie once. Each worker attaches the
block when it first needs it, keeps it, and is told no more than where to begin and
where to end; what it sends back is one number.

How good is that? A sum reads every number once, so memory is the limit. The yardstick,
in the same run: the fastest of several ways to read the block with all cores. (So does
STREAM: an array much larger than the caches, and the best of several runs. J. D.
McCalpin, "Memory bandwidth and machine balance in current high performance computers",
IEEE TCCA Newsletter, December 1995.) np.sum stays below it because it adds pairwise, to
round less; einsum just adds. As numpy lets go of the GIL, threads do as well as
processes, with no block at all: the block is for what holds the GIL, and for programs
that are several processes anyway. It is dear. To make and fill it takes longer than to
add it up many times over.

What to mind: make the block before the workers, so that all have one resource tracker.
Make views with np.frombuffer, and let them die before close(), which raises BufferError
otherwise; a view by np.ndarray(buffer=...) does not keep the block open, and using it
later crashes (numpy issue 23305). Look first how much there is: on Linux, a block
larger than /dev/shm can be made, and who writes to it dies (CPython issue 114390).

Try:  --elements 1000000
Try:  --workers 4

Output:
    Python <version>, <cores> cores, 2 workers
    a block of 305 MiB: created in 0.00 s, filled in 0.32 s

    to add up, or only read  time for one     bandwidth    share
    sum of a list                 8.57 ns      0.9 GB/s      5 %
    2 processes, pickled         10.55 ns      0.8 GB/s      4 %
    numpy alone                   0.86 ns      9.3 GB/s     54 %
    2 threads                     0.92 ns      8.7 GB/s     51 %
    2 processes                   0.60 ns     13.4 GB/s     78 %
    numpy alone, einsum           0.79 ns     10.1 GB/s     59 %
    2 threads, einsum             0.48 ns     16.6 GB/s     97 %
    2 processes, einsum           0.55 ns     14.6 GB/s     86 %
    all cores only read           0.47 ns     17.1 GB/s    100 %

    every sum is exact; close() while there is a view: BufferError
    2 processes: 1.44x as fast as numpy alone, 1.45x with einsum
"""

import argparse
import functools
import math
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

ELEMENTS = 4 * 10**7  # unless there is too little memory
SAMPLE = 10**6  # of them, for the ways that are slow
BYTES = 8  # of a float64
PERIOD = 2**10  # element i is i modulo PERIOD: a whole number, so that sums are exact
AT_ONCE = 2**16  # elements that are made in one step
ROUNDS = 3
MAX_WORKERS = 61

T = TypeVar("T")
Floats = NDArray[np.float64]
Job = Callable[[Floats], float]


def values(start: int, stop: int) -> Floats:
    """Return the elements from `start` up to `stop`, made anew."""
    return (np.arange(start, stop) & (PERIOD - 1)).astype(np.float64)


def sum_of_values(stop: int) -> float:
    """Return the sum of the elements up to `stop`, by Gauss's formula."""
    full, rest = divmod(stop, PERIOD)
    return float(full * PERIOD * (PERIOD - 1) // 2 + rest * (rest - 1) // 2)


def split(length: int, n_parts: int) -> list[range]:
    """Cut the numbers up to `length` into ranges that are equal but for one number."""
    cuts = [length * i // n_parts for i in range(n_parts + 1)]
    return [range(a, b) for a, b in pairwise(cuts)]


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
def shared_block(n_bytes: int) -> Iterator[SharedMemory]:
    """A new block of shared memory that is removed at the end, whatever happens.

    By then all views of it must be gone. Those that a traceback keeps alive, because a
    function that had one was left by an exception (Ctrl-C, say), are seen to here.

    Raises:
        BufferError: there is still a view. The block has no name any more; its memory
            is given back when the last process that uses it ends.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start lets Ctrl-C through, up to 3.12

    def remove() -> None:
        with ctrl_c_later():
            block.unlink()
            block.close()

    with ExitStack() as stack:
        with ctrl_c_later():
            block = SharedMemory(create=True, size=n_bytes)
            stack.callback(remove)
        try:
            yield block
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)
            raise


def view(block: SharedMemory, part: range) -> Floats:
    """Return the elements of `block` with these numbers, without copying them.

    Do not keep it: a block with views cannot be closed.
    """
    assert block.buf is not None, "closed"
    return np.frombuffer(block.buf, np.float64, len(part), part.start * BYTES)


# -- jobs to do with a view, or with any other array


def total(numbers: Floats) -> float:
    return float(np.sum(numbers))


def plain_total(numbers: Floats) -> float:
    return float(np.einsum("i->", numbers))


def largest(numbers: Floats) -> float:
    return float(np.max(numbers, initial=-np.inf))


def squares(numbers: Floats) -> float:
    return float(np.dot(numbers, numbers))


def fill(numbers: Floats, first: int) -> float:
    """Put element `first` and those that follow it into `numbers`."""
    for start in range(0, len(numbers), AT_ONCE):
        part = numbers[start : start + AT_ONCE]
        part[:] = values(first + start, first + start + len(part))
    return 0.0


# -- the worker processes


def serve(parent: Connection, far_end: Connection, name: str) -> None:
    """Attach the block `name` and do jobs, until the parent sends None, or is gone.

    A request is a job and what to do it with: an array, or a range, for a part of the
    block. The answer is what the job returns.
    """
    far_end.close()  # inherited, it would keep the pipe open without the parent
    block = SharedMemory(name)
    with suppress(EOFError, ConnectionError):
        while (request := parent.recv()) is not None:
            job, part = request
            parent.send(job(view(block, part) if isinstance(part, range) else part))
    block.close()  # no view is left: they were arguments, and the calls are over


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process and our end of the pipe to it. Ask, then get the answer."""

    process: BaseProcess
    connection: Connection

    def ask(self, job: Job, part: range | Floats) -> None:
        """Let the worker do `job` with `part`.

        Raises:
            ChildProcessError: the worker has died.
        """
        try:
            self.connection.send((job, part))
        except OSError:
            raise self._death() from None

    def answer(self) -> float:
        """Wait for what the job returns, and return it.

        Raises:
            ChildProcessError: the worker has died.
        """
        try:
            return cast(float, self.connection.recv())
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> ChildProcessError:
        self.process.join()
        return ChildProcessError(f"a worker died: exit code {self.process.exitcode}")


@contextmanager
def workers_at(block: SharedMemory, n_workers: int) -> Iterator[list[Worker]]:
    """Processes that have attached `block`, and keep it until the end."""
    with ExitStack() as stack:
        team = []
        for _ in range(n_workers):
            ours, theirs = multiprocessing.Pipe()
            stack.enter_context(ours)
            # Closed here at once, the worker's end is nobody else's, not even the next
            # worker's: if this one dies, whoever sends or receives hears of it.
            with theirs:
                process = multiprocessing.Process(
                    target=serve, args=(theirs, ours, block.name)
                )
                stack.enter_context(running([process]))
            team.append(Worker(process, ours))
        yield team
        for worker in team:
            with suppress(OSError):  # it has died, and whoever asked it knows
                worker.connection.send(None)


def by_workers(
    workers: Sequence[Worker], job: Job, parts: Sequence[range | Floats]
) -> list[float]:
    """Let each worker do `job` with its part; return the answers, in this order."""
    for worker, part in zip(workers, parts, strict=True):
        worker.ask(job, part)
    return [worker.answer() for worker in workers]


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


def close_is_refused(block: SharedMemory) -> bool:
    """Tell whether `block` cannot be closed while there is a view of it.

    To try means to lose `block.buf`: views can no longer be made.
    """
    held = view(block, range(1))
    try:
        block.close()
    except BufferError:
        return True
    finally:
        del held
    return False


def room_for_shared_memory() -> int:
    """Return how many bytes of shared memory there are; 1 GiB where nobody tells."""
    rooms = []
    if Path("/dev/shm").is_dir():
        rooms.append(shutil.disk_usage("/dev/shm").free)
    if (meminfo := Path("/proc/meminfo")).is_file():
        for line in meminfo.read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                rooms.append(1024 * int(line.split()[1]))
    return min(rooms, default=2**30)


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def side_by_side(
    jobs: Mapping[str, Callable[[], T]], rounds: int = 3
) -> tuple[dict[str, float], dict[str, T]]:
    """Run `jobs` in turns; return the seconds of each one's fastest run, and results.

    In turns, so that a busy moment of the machine hits all alike, and the fastest run,
    because other programs can only make a run slower.

    Raises:
        ValueError: a job does not give the same result in every round.
    """
    seconds = dict.fromkeys(jobs, math.inf)
    results: dict[str, T] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            result = job()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
            if results.setdefault(name, result) != result:
                raise ValueError(f"{name}: not the same result in every round")
    return seconds, results


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def workers(text: str) -> int:
    number = positive(text)
    if number > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_WORKERS}, not {number}")
    return number


def elements(text: str) -> int:
    number = positive(text)
    if number * BYTES > (room := room_for_shared_memory()):
        raise argparse.ArgumentTypeError(
            f"{number:,} elements need {number * BYTES:,} bytes of shared memory, "
            f"and there are {room:,}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--elements", type=elements, help=f"default: {ELEMENTS:,}")
    parser.add_argument("--workers", type=workers, default=2)
    options = parser.parse_args()
    n, cores = options.workers, usable_cores()
    room = room_for_shared_memory() // 4 // BYTES  # others may want some, too
    length = options.elements or max(1, min(ELEMENTS, room))
    whole, parts = range(length), split(length, n)
    short = min(length, SAMPLE)
    sample = values(0, short)
    listed = sample.tolist()
    slices = [sample[part.start : part.stop] for part in split(short, n)]

    print(f"Python {platform.python_version()}, {cores} cores, {n} workers")
    began = time.perf_counter()
    with shared_block(length * BYTES) as block:
        created = time.perf_counter()
        with workers_at(block, n) as team, ThreadPoolExecutor(max(n, cores)) as threads:
            started = time.perf_counter()
            for worker, part in zip(team, parts, strict=True):
                worker.ask(functools.partial(fill, first=part.start), part)
            for worker in team:
                worker.answer()
            filled = time.perf_counter()
            print(
                f"a block of {length * BYTES / 2**20:.0f} MiB: created in "
                f"{created - began:.2f} s, filled in {filled - started:.2f} s"
            )

            def alone(job: Job) -> float:
                return job(view(block, whole))

            def by_threads(job: Job, n_threads: int) -> list[float]:
                return list(
                    threads.map(
                        lambda part: job(view(block, part)), split(length, n_threads)
                    )
                )

            slow: dict[str, Callable[[], float]] = {
                "sum of a list": lambda: sum(listed),
                f"{n} processes, pickled": lambda: sum(by_workers(team, total, slices)),
            }
            sums: dict[str, Callable[[], float]] = {
                "numpy alone": lambda: alone(total),
                f"{n} threads": lambda: sum(by_threads(total, n)),
                f"{n} processes": lambda: sum(by_workers(team, total, parts)),
                "numpy alone, einsum": lambda: alone(plain_total),
                f"{n} threads, einsum": lambda: sum(by_threads(plain_total, n)),
                f"{n} processes, einsum": lambda: sum(
                    by_workers(team, plain_total, parts)
                ),
            }
            readings: dict[str, Callable[[], float]] = {
                "max": lambda: max(by_threads(largest, cores)),
                "dot": lambda: alone(squares),  # uses all cores by itself
                "dots": lambda: sum(by_threads(squares, cores)),
            }
            seconds, results = side_by_side(slow | sums | readings, ROUNDS)
        refused = close_is_refused(block)

    n_read = {way: short if way in slow else length for way in seconds}
    for way in slow | sums:
        if results[way] != sum_of_values(n_read[way]):
            raise SystemExit(f"{way}: {results[way]} is not the sum")
    if not refused:
        raise SystemExit("close() was to be refused")
    each = {way: 1e9 * seconds[way] / n_read[way] for way in seconds}  # ns
    reading = min(each[way] for way in sums | readings)  # who adds up has read, too
    print()
    print("to add up, or only read  time for one     bandwidth    share")
    shown = {way: each[way] for way in slow | sums} | {"all cores only read": reading}
    for way, nanoseconds in shown.items():
        print(
            f"{way:24}{nanoseconds:10.2f} ns{BYTES / nanoseconds:9.1f} GB/s"
            f"{100 * reading / nanoseconds:7.0f} %"
        )
    print()
    print("every sum is exact; close() while there is a view: BufferError")
    gains = [
        each[f"numpy alone{kind}"] / each[f"{n} processes{kind}"]
        for kind in ("", ", einsum")
    ]
    print(
        f"{n} processes: {gains[0]:.2f}x as fast as numpy alone, "
        f"{gains[1]:.2f}x with einsum"
    )


if __name__ == "__main__":
    main()
