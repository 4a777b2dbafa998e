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
for that once. The start is timed until two first tasks are done, maybe by one worker.

`concurrent.futures` has an executor for each way, so that they can be exchanged in one
line. But a subinterpreter cannot send back an object of a class that the main script
defines: its name is not known here. So the countdown is imported, from example02.

Try:  --steps 10000000
Try:  --plot ways.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    4,000,000 steps     start     wall      CPU  cores busy  speed-up
    sequential                  0.41 s   0.41 s        99 %     1.00x
    threads            1.2 ms   0.39 s   0.39 s       100 %     1.05x
    processes         29.9 ms   0.23 s   0.39 s       166 %     1.76x
    ...
    fastest: <model>, 1.76x as fast as sequential
"""

import argparse
import os
import platform
import time
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from example02_countdown_in_threads import (
    PARALLEL,
    Timing,
    count_down,
    gil_state,
    in_range,
    measure,
    split,
    usable_cores,
)
from example03_countdown_in_processes import process_pool
from example05_subinterpreters import interpreter_pool

WORKERS = 2
STEPS = 4_000_000  # some 0.2 s: the system needs a moment to spread processes
MAX_STEPS = 20_000_000  # Ctrl-C has to wait until the workers have counted them


@dataclass(frozen=True, slots=True)
class Way:
    """What a countdown took in one way.

    Attributes:
        start: seconds until as many first tasks as workers were done; 0 without any.
        timing: of the countdown, after that.
    """

    start: float
    timing: Timing


def measure_pool(pool: AbstractContextManager[Executor], n: int) -> Way:
    """Count down `n` steps, in WORKERS parts by the workers of `pool`."""
    began = time.perf_counter()
    with pool as executor:
        list(executor.map(count_down, [1] * WORKERS))
        start = time.perf_counter() - began
        return Way(start, measure(lambda: executor.map(count_down, split(n, WORKERS))))


def measure_all(n: int) -> dict[str, Way]:
    """Count down `n` steps in each way that this version has."""
    ways = {
        "sequential": Way(0.0, measure(lambda: [count_down(n)])),
        "threads": measure_pool(ThreadPoolExecutor(WORKERS), n),
        # The threads have ended: a process that has some should not be forked.
        "processes": measure_pool(process_pool(WORKERS), n),
    }
    if (pool := interpreter_pool(WORKERS)) is not None:
        ways["subinterpreters"] = measure_pool(pool, n)
    return ways


def plot(ways: Mapping[str, Way], machine: str, file: Path) -> None:
    """Draw how many cores each way keeps busy, and how long it takes to start."""
    from matplotlib.figure import Figure

    names = list(ways)
    busy = [way.timing.cores_busy for way in ways.values()]
    starts = [1000 * way.start for way in ways.values()]
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for axes, values, text, label, colour in (
        (left, busy, "%.2f", "cores busy", "#1b4f8a"),
        (right, starts, "%.1f", "until two first tasks are done [ms]", "#b5442e"),
    ):
        bars = axes.barh(names, values, color=colour)
        axes.bar_label(bars, fmt=text, padding=3, fontsize=11)
        axes.margins(x=0.15)
        axes.set_xlabel(label, fontsize=12)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(left=False, labelsize=11)
    left.invert_yaxis()  # of both: the first way on top
    figure.suptitle(
        f"What keeps more than one core busy: {in_parallel(ways)}\n({machine})",
        fontsize=13,
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


def in_parallel(ways: Mapping[str, Way]) -> str:
    """Return the names of the ways that kept more than one core busy."""
    names = [name for name, way in ways.items() if way.timing.cores_busy > PARALLEL]
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
    parser.add_argument("--steps", type=in_range(STEPS, MAX_STEPS), default=STEPS)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n = options.steps

    ways = measure_all(n)
    alone = ways["sequential"].timing.wall
    machine = (
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(machine)
    print(f"{f'{n:,} steps':17}   start     wall      CPU  cores busy  speed-up")
    for name, way in ways.items():
        timing = way.timing
        start = f"{1000 * way.start:5.1f} ms" if way.start else ""
        print(
            f"{name:17}{start:>8} {timing.wall:6.2f} s {timing.cpu:6.2f} s"
            f"{100 * timing.cores_busy:10.0f} %"
            f"{alone / timing.wall:9.2f}x"
        )
        if timing.steps != n:
            raise SystemExit(f"{name}: counted {timing.steps} steps")
    if "subinterpreters" not in ways:
        print("subinterpreters  need Python 3.14")
    fastest = min(ways, key=lambda name: ways[name].timing.wall)
    ratio = alone / ways[fastest].timing.wall
    print(f"fastest: {fastest}, {ratio:.2f}x as fast as sequential")
    if options.plot:
        plot(ways, machine, options.plot)
    if gil_state() == "on" and ways["threads"].timing.cores_busy > PARALLEL:
        raise SystemExit("threads ran Python code in parallel, in spite of the GIL")


if __name__ == "__main__":
    main()
