# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""One job under three models: tasks, threads and processes on one timeline.

Three workers do the same: compute, wait for an answer, compute again. The answer comes
a while after all have asked for it; who had to have one answer before asking for the
next would wait for ever. All three models let waits overlap.

They differ in what becomes of the computing. Tasks compute strictly one after the
other, each until it waits. Threads compute side by side, but a GIL gives each but a few
milliseconds at a time, so that all finish late. Processes compute at the same time, on
as many cores as there are, once they have started: hence the blank at the beginning.

Try:  --plot timeline.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    3 workers    in all  waiting together  computing
    tasks       0.156 s                 3     1.00x a core
    threads     0.152 s                 3     0.99x a core
    processes   0.116 s                 3     1.52x a core
    all wait together; one task at a time computes
"""

import argparse
import asyncio
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier
from pathlib import Path

WORKERS = 3
PIECE = 0.02  # seconds of a core that each of the two computations takes
ANSWER = 0.03  # seconds until the answer comes, after all have asked
LIMIT = 30.0  # seconds that all must have asked in

COMPUTING, WAITING = "computing", "waiting"
COLOURS = {COMPUTING: "#1b4f8a", WAITING: "#cfd8e3"}


@dataclass(frozen=True, slots=True)
class Interval:
    """What a worker did from `began` to `ended`, on the clock of `perf_counter`."""

    worker: int
    state: str
    began: float
    ended: float


def compute(worker: int) -> Interval:
    """Use PIECE seconds of a core."""
    began = time.perf_counter()
    end = time.thread_time() + PIECE
    while time.thread_time() < end:
        pass
    return Interval(worker, COMPUTING, began, time.perf_counter())


def work(worker: int, all_asked: "threading.Barrier | Barrier") -> list[Interval]:
    """Compute, wait for an answer, compute again; return what was done when."""
    first = compute(worker)
    all_asked.wait(LIMIT)
    time.sleep(ANSWER)
    second = compute(worker)
    return [first, Interval(worker, WAITING, first.ended, second.began), second]


async def work_async(worker: int, all_asked: asyncio.Barrier) -> list[Interval]:
    """Do what `work` does; while it waits, others compute."""
    first = compute(worker)
    await all_asked.wait()
    await asyncio.sleep(ANSWER)
    second = compute(worker)
    return [first, Interval(worker, WAITING, first.ended, second.began), second]


def in_tasks() -> list[Interval]:
    """Let tasks do the work."""

    async def all_tasks() -> list[Interval]:
        all_asked = asyncio.Barrier(WORKERS)
        async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(work_async(worker, all_asked))
                for worker in range(WORKERS)
            ]
        return [interval for task in tasks for interval in task.result()]

    return asyncio.run(all_tasks())


def in_threads() -> list[Interval]:
    """Let threads do the work."""
    all_asked = threading.Barrier(WORKERS)
    with ThreadPoolExecutor(WORKERS) as pool:
        try:
            results = list(pool.map(work, range(WORKERS), WORKERS * [all_asked]))
        except BaseException:  # Ctrl-C, for one, before all of them have started
            all_asked.abort()  # or those at the barrier would wait for the others
            raise
    return [interval for result in results for interval in result]


def report(worker: int, all_asked: Barrier, sender: Connection) -> None:
    """Do the work in a process, and send what was done when."""
    sender.send(work(worker, all_asked))
    sender.close()


def in_processes() -> list[Interval]:
    """Let processes do the work.

    Raises:
        EOFError: a process has ended without a report.
    """
    with ctrl_c_later():
        all_asked = multiprocessing.Barrier(WORKERS)
    processes: list[BaseProcess] = []
    pipes = []
    for worker in range(WORKERS):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        args = (worker, all_asked, sender)
        processes.append(multiprocessing.Process(target=report, args=args))
        pipes.append((receiver, sender))
    try:
        with running(processes):
            for _, sender in pipes:
                sender.close()  # now the children alone hold it, and its end shows
            return [one for receiver, _ in pipes for one in receiver.recv()]
    finally:
        for receiver, sender in pipes:
            receiver.close()
            sender.close()


def most_at_once(intervals: Sequence[Interval], state: str) -> int:
    """Return the greatest number of workers that were in `state` together."""
    events = sorted(
        event
        for one in intervals
        if one.state == state
        for event in ((one.began, 1), (one.ended, -1))
    )
    most = now = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def cores_busy(intervals: Sequence[Interval]) -> float:
    """Return how many cores computed, on average, while anybody was computing."""
    points = sorted({point for one in intervals for point in (one.began, one.ended)})
    computing = [one for one in intervals if one.state == COMPUTING]
    wall = sum(
        end - start
        for start, end in pairwise(points)
        if any(one.began <= start and end <= one.ended for one in computing)
    )
    return len(computing) * PIECE / wall


def plot(timelines: "dict[str, tuple[float, list[Interval]]]", file: Path) -> None:
    """Draw a row for each worker of each model; times count from the model's start."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.4), layout="constrained")
    panels = figure.subplots(len(timelines), 1, sharex=True)
    for axes, (model, (start, intervals)) in zip(
        panels, timelines.items(), strict=True
    ):
        for state, colour in COLOURS.items():
            chosen = [one for one in intervals if one.state == state]
            axes.barh(
                [one.worker for one in chosen],
                [1000 * (one.ended - one.began) for one in chosen],
                left=[1000 * (one.began - start) for one in chosen],
                color=colour,
                label=state,
                height=0.7,
            )
        axes.set_title(f"{model}: {cores_busy(intervals):.1f} cores busy", fontsize=12)
        axes.set_yticks(range(WORKERS), [f"worker {n}" for n in range(WORKERS)])
        axes.invert_yaxis()
    panels[0].set_xlim(left=0)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower right", ncols=2
    )
    panels[-1].set_xlabel("time since the start [ms]", fontsize=12)
    figure.suptitle(
        "All waits overlap; how much computes at a time is up to the model",
        fontsize=14,
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


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


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


MODELS: dict[str, Callable[[], list[Interval]]] = {
    "tasks": in_tasks,
    "threads": in_threads,
    "processes": in_processes,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()

    print(
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(f"{WORKERS} workers    in all  waiting together  computing")
    timelines = {}
    for model, run in MODELS.items():
        start = time.perf_counter()
        intervals = run()
        took = time.perf_counter() - start
        timelines[model] = start, intervals
        waiting = most_at_once(intervals, WAITING)
        busy = cores_busy(intervals)
        print(f"{model:9}  {took:6.3f} s  {waiting:16}  {busy:7.2f}x a core")
        if waiting != WORKERS:
            raise SystemExit(f"{model}: not all waited at the same time")
        if run is in_tasks and most_at_once(intervals, COMPUTING) != 1:
            raise SystemExit("two tasks computed at the same time")
    print("all wait together; one task at a time computes")
    if options.plot is not None:
        plot(timelines, options.plot)


if __name__ == "__main__":
    main()
