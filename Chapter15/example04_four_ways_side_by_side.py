# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""One countdown, four ways: which of them keep two cores busy, and what does each cost?

Threads share an interpreter and its GIL. Subinterpreters (Python 3.14 and later; PEP
684, PEP 734) share a process, but each has modules, objects and a GIL of its own.
Processes share not even memory. What shares no GIL runs in parallel, on every build;
on a free-threaded one, `GIL off`, threads do, too.

Two threads start in next to no time. An interpreter first has to import this script,
and so has a process that is spawned, while one that is forked is a copy. A pool pays
for that once. The start is timed until two first tasks are done.

`concurrent.futures` has an executor for each way, so that they can be exchanged in one
line. But give subinterpreters plain values to return, as here: they cannot send back
objects of a class that the main script defines.

Try:  --steps 10000000
Try:  --plot ways.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    4,000,000 steps     start     wall      CPU  cores busy  speed-up
    sequential                  0.41 s   0.41 s       100 %     1.00x
    threads            1.1 ms   0.36 s   0.36 s       100 %     1.14x
    processes         21.3 ms   0.20 s   0.30 s       147 %     2.03x
    ...
    fastest: <model>, 2.03x as fast as sequential
"""

import argparse
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

WORKERS = 2
STEPS = 4_000_000  # some 0.2 s: the system needs a moment to spread processes
MAX_STEPS = 20_000_000  # Ctrl-C has to wait until the workers have counted them
PARALLEL = 1.5  # cores busy: more than one by far, also with a coarse clock (Windows)


def count_down(n: int) -> tuple[int, float]:
    """Count from `n` down to zero; return the steps, and the CPU time in seconds."""
    cpu = time.thread_time()
    steps = 0
    while n > 0:
        n -= 1
        steps += 1
    return steps, time.thread_time() - cpu


@dataclass(frozen=True, slots=True)
class Timing:
    """What a countdown took.

    Attributes:
        start: seconds until as many first tasks as workers were done; 0 without any.
        steps: how many were counted, by all workers together.
        wall: seconds from the beginning of the countdown to its end.
        cpu: seconds for which cores worked at it, all together.
    """

    start: float
    steps: int
    wall: float
    cpu: float

    @property
    def cores_busy(self) -> float:
        """How many cores were kept busy, on average."""
        return self.cpu / self.wall


def measure(pool: AbstractContextManager[Executor] | None, n: int) -> Timing:
    """Count down `n` steps, in WORKERS parts by the workers of `pool`, or here."""
    began = time.perf_counter()
    if pool is None:
        steps, cpu = count_down(n)
        return Timing(0.0, steps, time.perf_counter() - began, cpu)
    with pool as executor:
        list(executor.map(count_down, [1] * WORKERS))
        started = time.perf_counter()
        parts = [(n + k) // WORKERS for k in range(WORKERS)]
        counted = list(executor.map(count_down, parts))
        wall = time.perf_counter() - started
    return Timing(
        started - began,
        sum(steps for steps, _ in counted),
        wall,
        sum(cpu for _, cpu in counted),
    )


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


def measure_all(n: int) -> dict[str, Timing]:
    """Count down `n` steps in each way that this version has."""
    timings = {
        "sequential": measure(None, n),
        "threads": measure(ThreadPoolExecutor(WORKERS), n),
        # The threads have ended: a process that has some should not be forked.
        "processes": measure(process_pool(WORKERS), n),
    }
    if (pool := interpreter_pool(WORKERS)) is not None:
        timings["subinterpreters"] = measure(pool, n)
    return timings


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


def plot(timings: Mapping[str, Timing], machine: str, file: Path) -> None:
    """Draw how many cores each way keeps busy, and how long it takes to start."""
    from matplotlib.figure import Figure

    names = list(timings)
    busy = [timing.cores_busy for timing in timings.values()]
    starts = [1000 * timing.start for timing in timings.values()]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, text, label, colour in (
        (left, busy, "%.2f", "cores busy", "#1b4f8a"),
        (right, starts, "%.1f", "start of two workers [ms]", "#b5442e"),
    ):
        bars = axes.barh(names, values, color=colour)
        axes.bar_label(bars, fmt=text, padding=3, fontsize=11)
        axes.margins(x=0.15)
        axes.set_xlabel(label, fontsize=12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(left=False, labelsize=11)
    left.invert_yaxis()  # of both: the first way on top
    figure.suptitle(
        f"What keeps more than one core busy: {in_parallel(timings)}\n({machine})",
        fontsize=13,
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


def in_parallel(timings: Mapping[str, Timing]) -> str:
    """Return the names of the ways that kept more than one core busy."""
    names = [name for name, timing in timings.items() if timing.cores_busy > PARALLEL]
    return " and ".join(names) or "none"


def in_range(least: int, most: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in `least` … `most`."""

    def whole_number(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be in {least} … {most}, not {number}"
            )
        return number

    return whole_number


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
    parser.add_argument("--steps", type=in_range(STEPS, MAX_STEPS), default=STEPS)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n = options.steps

    timings = measure_all(n)
    machine = (
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(machine)
    print(f"{f'{n:,} steps':17}   start     wall      CPU  cores busy  speed-up")
    for name, timing in timings.items():
        start = f"{1000 * timing.start:5.1f} ms" if timing.start else ""
        print(
            f"{name:17}{start:>8} {timing.wall:6.2f} s {timing.cpu:6.2f} s"
            f"{100 * timing.cores_busy:10.0f} %"
            f"{timings['sequential'].wall / timing.wall:9.2f}x"
        )
        if timing.steps != n:
            raise SystemExit(f"{name}: counted {timing.steps} steps")
    if "subinterpreters" not in timings:
        print("subinterpreters  need Python 3.14")
    fastest = min(timings, key=lambda name: timings[name].wall)
    ratio = timings["sequential"].wall / timings[fastest].wall
    print(f"fastest: {fastest}, {ratio:.2f}x as fast as sequential")
    if options.plot:
        plot(timings, machine, options.plot)
    if gil_state() == "on" and timings["threads"].cores_busy > PARALLEL:
        raise SystemExit("threads ran Python code in parallel, in spite of the GIL")


if __name__ == "__main__":
    main()
