# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0", "numpy>=1.26.0"]
# ///
"""Where more workers begin to pay depends on the work, not on the number of items.

To hand an empty job to each of n workers, and to collect what they return, takes a time
o, measured here. To share out a loop that takes t pays only if o + t / n < t, that is
from t = o n / (n - 1) on: for two workers, twice o. Below that, no operator and no
number of cores helps; above, other costs come in, so that it is a lower bound.

How many items that are is up to the operator. Multiplications modulo a prime, in
Python, get there with thousands, numpy's sum with millions. And where items have to be
sent, each of them costs more than its addition saves: a list of numbers to add up gets
nowhere, however long it is. Send what a worker needs to make or find them: a range of
indices, a file name, the name of a block of shared memory.

(A process pool hands each job through two threads and a queue, so that for it o is a
few times as long. Its `map` has `chunksize` to make fewer jobs of many.)

Try:  --workers 4
Try:  --plot speedup.png

Output:
    <cores> cores, <cores> workers
    an empty job for each: 0.10 ms, so a loop of 0.19 ms may be shared out

         items        list sent, +   range sent, *  shared, np.sum
           100               0.03x           0.12x
         1,000               0.21x           0.58x
        10,000               0.44x           1.76x           0.15x
       100,000               0.54x           1.86x           0.19x
     1,000,000                                               0.62x
    10,000,000                                               1.42x

    at best: list sent, + 0.54x; range sent, * 1.86x; shared, np.sum 1.42x
"""

import argparse
import functools
import math
import multiprocessing
import operator
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

BYTES = 8  # of a float64
PRIME = 2**61 - 1
MAX_WORKERS = 61  # of a process pool on Windows
ROUNDS = 3
EMPTY_ROUNDS = 100
SIZES = [round(10 ** (k / 2)) for k in range(4, 15)]  # 100 … 10,000,000 items
N_SIZES = 7  # of them for each reduction: three decades

T = TypeVar("T")
Floats = NDArray[np.float64]
Job = Callable[[Any], Any]


def split(items: Sequence[T], n_parts: int) -> list[Sequence[T]]:
    """Cut `items` into slices that are equal but for one item."""
    cuts = [len(items) * i // n_parts for i in range(n_parts + 1)]
    return [items[a:b] for a, b in pairwise(cuts)]


def multiply(a: int, b: int) -> int:
    """Return a times b, modulo a prime."""
    return a * b % PRIME


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


@functools.cache
def attached(name: str) -> SharedMemory:
    """Return the block of that name; a worker attaches it once and keeps it."""
    return SharedMemory(name)


def sum_in(block: SharedMemory, part: range) -> float:
    return float(np.sum(view(block, part)))


def sum_of_part(name: str, part: range) -> float:
    return sum_in(attached(name), part)


def serve(parent: Connection, far_end: Connection) -> None:
    """Do jobs, each with its items, until the parent sends None, or is gone."""
    far_end.close()  # inherited, it would keep the pipe open without the parent
    with suppress(EOFError, ConnectionError):
        while (request := parent.recv()) is not None:
            job, items = request
            parent.send(job(items))


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process and our end of the pipe to it."""

    process: BaseProcess
    connection: Connection

    def ask(self, job: Job, part: Sequence[Any]) -> None:
        """Let the worker do `job` with `part`.

        Raises:
            ChildProcessError: the worker has died.
        """
        try:
            self.connection.send((job, part))
        except OSError:
            raise self._death() from None

    def answer(self) -> Any:
        """Wait for what the job returns, and return it.

        Raises:
            ChildProcessError: the worker has died.
        """
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            raise self._death() from None

    def _death(self) -> ChildProcessError:
        self.process.join()
        return ChildProcessError(f"a worker died: exit code {self.process.exitcode}")


@contextmanager
def team_of(n_workers: int) -> Iterator[list[Worker]]:
    """So many worker processes, each at the end of a pipe of its own."""
    with ExitStack() as stack:
        team = []
        for _ in range(n_workers):
            ours, theirs = multiprocessing.Pipe()
            stack.enter_context(ours)
            # Closed here at once, the worker's end is nobody else's, not even the next
            # worker's: if this one dies, whoever sends or receives hears of it.
            with theirs:
                process = multiprocessing.Process(target=serve, args=(theirs, ours))
                stack.enter_context(running([process]))
            team.append(Worker(process, ours))
        yield team
        for worker in team:
            with suppress(OSError):  # it has died, and whoever asked it knows
                worker.connection.send(None)


def by_workers(team: Sequence[Worker], job: Job, items: Sequence[Any]) -> list[Any]:
    """Let each worker do `job` with its share of `items`; return the answers in order.

    Raises:
        ChildProcessError: a worker has died.
    """
    for worker, part in zip(team, split(items, len(team)), strict=True):
        worker.ask(job, part)
    return [worker.answer() for worker in team]


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


# -- what is measured


@dataclass(frozen=True, slots=True)
class Reduction:
    """A way to reduce items, here or by workers.

    Attributes:
        here: reduces a sequence of items in a loop.
        there: does the same in a worker.
        combine: what makes one of the workers' results.
        items: as many as are measured at most.
    """

    name: str
    here: Job
    there: Job
    combine: Callable[[Any, Any], Any]
    items: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Curves:
    """What was measured of a reduction, by number of items.

    Attributes:
        loop: the seconds of the loop.
        gains: of so many workers: how many times as fast as the loop they are.
    """

    loop: dict[int, float]
    gains: dict[int, dict[int, float]]


def measure(reduction: Reduction, teams: Mapping[int, Sequence[Worker]]) -> Curves:
    """Reduce the largest N_SIZES numbers of items in a loop, and by each of `teams`.

    Raises:
        ValueError: the results differ.
    """
    curves = Curves({}, {n: {} for n in teams})
    for size in [size for size in SIZES if size <= len(reduction.items)][-N_SIZES:]:
        items = reduction.items[:size]

        def by_team(team: Sequence[Worker], items: Sequence[Any] = items) -> Any:
            answers = by_workers(team, reduction.there, items)
            return functools.reduce(reduction.combine, answers)

        jobs = {str(n): functools.partial(by_team, team) for n, team in teams.items()}
        jobs["loop"] = functools.partial(reduction.here, items)
        seconds, results = side_by_side(jobs, ROUNDS)
        if len(set(results.values())) != 1:
            raise ValueError(f"{reduction.name}, {size} items: the results differ")
        curves.loop[size] = seconds["loop"]
        for n in teams:
            curves.gains[n][size] = seconds["loop"] / seconds[str(n)]
    return curves


def overhead(team: Sequence[Worker]) -> float:
    """Return the seconds that an empty job for each worker takes, at best."""
    jobs = {"": lambda: len(by_workers(team, len, range(len(team))))}
    seconds, _ = side_by_side(jobs, EMPTY_ROUNDS)
    return seconds[""]


def break_even(overhead: float, n_workers: int) -> float:
    """Return how long a loop must take for `n_workers` to be faster, infinite for one.

    Args:
        overhead: what an empty job for each of them takes, in the same unit.
    """
    return overhead * n_workers / (n_workers - 1) if n_workers > 1 else math.inf


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


def worker_counts(most: int) -> list[int]:
    """Return the numbers of workers to measure: 1, 2, every doubling, and `most`."""
    return [n for n in range(1, most + 1) if n == most or n & (n - 1) == 0]


def plot(measured: Mapping[str, Curves], paying: float, file: Path) -> None:
    """Draw the gains by number of items, a panel for each reduction.

    Args:
        paying: the seconds that a loop must take for the most workers to gain.
    """
    from matplotlib.figure import Figure

    limit = f"one loop: {1e3 * paying:.2f} ms"
    figure = Figure(figsize=(12, 5), layout="constrained")
    panels = figure.subplots(1, len(measured), sharey=True)
    for axes, (name, curves) in zip(panels, measured.items(), strict=True):
        axes.axhline(1, color="#7d8793", linewidth=1)
        n_curves = len(curves.gains)
        for i, (n, gains) in enumerate(curves.gains.items()):
            shade = i / max(1, n_curves - 1)  # from pale to dark blue
            axes.plot(
                list(gains),
                list(gains.values()),
                "o-",
                color=(0.62 - 0.51 * shade, 0.74 - 0.43 * shade, 0.88 - 0.34 * shade),
                linewidth=2.5,
                label=f"{n} worker" + "s" * (n > 1),
            )
        # The size at which the loop takes that long
        items = np.interp(paying, list(curves.loop.values()), list(curves.loop))
        axes.axvline(items, color="#c1440e", linestyle=":", linewidth=2, label=limit)
        axes.set_xscale("log")
        best = max(gain for gains in curves.gains.values() for gain in gains.values())
        axes.set_title(f"{name}: at best {best:.2f} times", fontsize=13)
        axes.set_xlabel("number of items", fontsize=12)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("times as fast as one loop", fontsize=12)
    panels[0].set_ylim(0)
    panels[0].legend(fontsize=12)
    most = max(max(curves.gains) for curves in measured.values())
    figure.suptitle(
        f"{most} workers may pay where one loop takes {1e3 * paying:.2f} ms or longer",
        fontsize=14,
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


def workers(text: str) -> int:
    number = int(text)
    if not 2 <= number <= MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be in 2 … {MAX_WORKERS}, not {number}")
    return number


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    default_workers = max(2, min(usable_cores(), MAX_WORKERS))
    parser.add_argument("--workers", type=workers, default=default_workers)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n = options.workers

    print(f"{usable_cores()} cores, {n} workers")
    whole = range(SIZES[-1])
    listed = list(whole[:100_000])
    with shared_block(len(whole) * BYTES) as block, team_of(n) as team:
        view(block, whole)[:] = 1
        added = functools.partial(functools.reduce, operator.add)
        multiplied = functools.partial(functools.reduce, multiply)
        sum_here = functools.partial(sum_in, block)
        sum_there = functools.partial(sum_of_part, block.name)
        reductions = [
            Reduction("list sent, +", added, added, operator.add, listed),
            Reduction(
                "range sent, *", multiplied, multiplied, multiply, whole[1:100_001]
            ),
            Reduction("shared, np.sum", sum_here, sum_there, operator.add, whole),
        ]
        empty = overhead(team)
        paying = break_even(empty, n)
        print(
            f"an empty job for each: {1e3 * empty:.2f} ms, "
            f"so a loop of {1e3 * paying:.2f} ms may be shared out"
        )
        teams = {k: team[:k] for k in worker_counts(n)}
        measured = {one.name: measure(one, teams) for one in reductions}

    print()
    print("     items    " + "".join(f"{name:>16}" for name in measured))
    for size in SIZES[::2]:
        row = f"{size:10,}    "
        for curves in measured.values():
            gain = curves.gains[n].get(size)
            row += " " * 16 if gain is None else f"{gain:15.2f}x"
        print(row.rstrip())
    print()
    best = [
        f"{name} {max(one.gains[n].values()):.2f}x" for name, one in measured.items()
    ]
    print(f"at best: {'; '.join(best)}")
    if options.plot:
        plot(measured, paying, options.plot)


if __name__ == "__main__":
    main()
