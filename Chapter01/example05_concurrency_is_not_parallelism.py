# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Two tasks in progress at the same time need not run at the same time.

Concurrent tasks are in progress together: each has begun before the other has ended.
Parallel tasks run together: at one instant, on two cores. The clock on the wall
cannot tell the one from the other, CPU time can. Divided by wall time, it says how
many cores were busy: 100 % is one core, as in `top`.

Two threads that compute are concurrent, but with a GIL they take turns, some 5 ms
each (`sys.getswitchinterval`), and keep one core busy. Two processes keep two busy.
Two threads that wait keep none busy, and still wait together. The picture of `--plot`
shows all four.

Try:  --plot timeline.png

Output:
    Python <version>, GIL <gil>, <cores> cores

    two tasks        in progress      CPU     wall  cores busy
    one by one            1        0.19 s   0.19 s       100 %
    threads               2        0.15 s   0.15 s       100 %
    processes             2        0.18 s   0.09 s       199 %
    waiting threads       2        0.00 s   0.15 s         0 %

    concurrent:  threads and processes and waiting threads
    parallel:    <model>
"""

import argparse
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median

SLICES = 200  # that a computation consists of
SLICE = 10_000  # additions in a slice: some tenths of a millisecond
WAIT = 0.15  # seconds
START_LIMIT = 30.0  # seconds until all tasks must have begun


@dataclass(frozen=True, slots=True)
class Trace:
    """What one task did. Points in time are of `time.perf_counter`, in seconds.

    Attributes:
        slices: beginning and end of each slice of the computation.
        cpu: CPU time that the task's thread used, in seconds.
    """

    began: float
    ended: float
    cpu: float
    slices: tuple[tuple[float, float], ...] = ()

    def running(self) -> list[tuple[float, float]]:
        """Return when the task ran, as intervals.

        A slice in which the thread had to stop takes longer than the others; it counts
        as time spent waiting.
        """
        if not self.slices:
            return []
        usual = median(end - start for start, end in self.slices)
        intervals: list[tuple[float, float]] = []
        for start, end in self.slices:
            if end - start > 2 * usual:
                continue
            if intervals and start - intervals[-1][1] < usual:
                intervals[-1] = intervals[-1][0], end
            else:
                intervals.append((start, end))
        return intervals


def compute() -> Trace:
    """Keep a core busy, slice by slice."""
    slices = []
    cpu = time.thread_time()
    for _ in range(SLICES):
        start = time.perf_counter()
        total = 0
        for n in range(SLICE):
            total += n
        slices.append((start, time.perf_counter()))
    cpu = time.thread_time() - cpu
    return Trace(slices[0][0], slices[-1][1], cpu, tuple(slices))


def wait() -> Trace:
    """Wait, as for an answer from elsewhere."""
    cpu, began = time.thread_time(), time.perf_counter()
    time.sleep(WAIT)
    return Trace(began, time.perf_counter(), time.thread_time() - cpu)


def most_at_once(traces: Sequence[Trace]) -> int:
    """Return the greatest number of tasks that were in progress together."""
    events = sorted(
        [(trace.began, 1) for trace in traces] + [(trace.ended, -1) for trace in traces]
    )
    most = now = 0
    for _, change in events:
        now += change
        most = max(most, now)
    return most


def cores_busy(traces: Sequence[Trace]) -> float:
    """Return CPU time per wall time: the number of cores kept busy, on average."""
    wall = max(trace.ended for trace in traces) - min(trace.began for trace in traces)
    return sum(trace.cpu for trace in traces) / wall


def begin_together(task: Callable[[], Trace], all_of_them: threading.Barrier) -> Trace:
    """Do `task`, begun in all places before any goes on: none ends before that."""
    all_of_them.wait(START_LIMIT)  # they are there
    began = time.perf_counter()
    all_of_them.wait(START_LIMIT)  # they have begun
    return replace(task(), began=began)


def trace_threads(task: Callable[[], Trace], n_threads: int) -> list[Trace]:
    """Do `task` in each of `n_threads` threads, all begun before any goes on."""
    all_begun = threading.Barrier(n_threads)
    with ThreadPoolExecutor(n_threads) as pool:
        try:
            return list(
                pool.map(begin_together, [task] * n_threads, [all_begun] * n_threads)
            )
        except BaseException:  # Ctrl-C, for one, before all of them have started
            all_begun.abort()  # or those at the barrier would wait for the others
            raise


def trace_processes(task: Callable[[], Trace], n_processes: int) -> list[Trace]:
    """Do `task` in each of `n_processes` processes, all begun before any goes on."""
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ctrl_c_later():
        all_begun = multiprocessing.Barrier(n_processes)
    with ExitStack() as stack:
        try:
            with ctrl_c_later():  # half started, a pool cannot be ended in order
                pool = stack.enter_context(
                    ProcessPoolExecutor(n_processes, None, _start_worker, (all_begun,))
                )
                traces = pool.map(_begin_together, [task] * n_processes)
            return list(traces)
        except BaseException:
            all_begun.abort()
            raise


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


_all_begun: Barrier  # in a worker process: set once, before its first task


def _start_worker(all_begun: Barrier) -> None:
    global _all_begun
    _all_begun = all_begun
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees to it


def _begin_together(task: Callable[[], Trace]) -> Trace:
    return begin_together(task, _all_begun)


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


def plot(runs: Mapping[str, Sequence[Trace]], machine: str, file: Path) -> None:
    """Draw when each task of each run was in progress (pale) and when it ran (dark)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.add_subplot()
    y, ticks = 0.0, []
    for traces in runs.values():
        start = min(trace.began for trace in traces)
        ticks.append(y + 0.5 * (len(traces) - 1))
        for trace in traces:
            in_progress = [(trace.began, trace.ended)]
            for intervals, colour in (
                (in_progress, "#cfd8e3"),
                (trace.running(), "#1b4f8a"),
            ):
                bars = [(1000 * (a - start), 1000 * (b - a)) for a, b in intervals]
                axes.broken_barh(bars, (y - 0.4, 0.8), color=colour, linewidth=0)
            y += 1
        y += 0.6
    labels = [
        f"{name}\n{100 * cores_busy(traces):.0f} % CPU" for name, traces in runs.items()
    ]
    axes.set_yticks(ticks, labels, fontsize=12)
    axes.invert_yaxis()
    axes.set_xlabel(f"milliseconds ({machine})", fontsize=12)
    axes.set_title(
        "Pale: in progress. Dark: running.\n"
        f"Concurrent: {concurrent(runs)}. Parallel: {parallel(runs)}.",
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


def concurrent(runs: Mapping[str, Sequence[Trace]]) -> str:
    """Return the names of the runs with more than one task in progress together."""
    return " and ".join(n for n, traces in runs.items() if most_at_once(traces) > 1)


def parallel(runs: Mapping[str, Sequence[Trace]]) -> str:
    """Return the names of the runs that kept clearly more than one core busy."""
    names = [name for name, traces in runs.items() if cores_busy(traces) > 1.1]
    return " and ".join(names) or "none"


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
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()

    in_processes = trace_processes(compute, 2)  # before there has been any thread
    runs = {
        "one by one": [compute(), compute()],
        "threads": trace_threads(compute, 2),
        "processes": in_processes,
        "waiting threads": trace_threads(wait, 2),
    }

    machine = (
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(machine)
    print()
    print(f"{'two tasks':15}  in progress      CPU     wall  cores busy")
    for name, traces in runs.items():
        wall = max(t.ended for t in traces) - min(t.began for t in traces)
        print(
            f"{name:15}  {most_at_once(traces):^11}  "
            f"{sum(trace.cpu for trace in traces):5.2f} s  {wall:5.2f} s"
            f"  {100 * cores_busy(traces):8.0f} %"
        )
    print()
    print(f"concurrent:  {concurrent(runs)}")
    print(f"parallel:    {parallel(runs)}")
    if options.plot:
        plot(runs, machine, options.plot)

    if [most_at_once(traces) for traces in runs.values()] != [1, 2, 2, 2]:
        raise SystemExit("all but the first were to be in progress together")
    if cores_busy(runs["waiting threads"]) > 0.5:
        raise SystemExit("waiting took CPU time")
    if gil_state() == "on" and cores_busy(runs["threads"]) > 1.5:
        raise SystemExit("two threads ran Python code in parallel, in spite of the GIL")


if __name__ == "__main__":
    main()
