# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Gustafson's law: a larger machine does a larger job in the same time.

Amdahl's law asks how soon a given job can be done. But nobody forecasts yesterday's
weather faster; with more processors one takes a finer grid. Let the work that can be
shared out grow with the machine, so that n processors are busy for the same time as
one was. If p is the fraction of that time in which they work in parallel, one
processor would need 1 - p + p n for the grown job:

    scaled_speedup(p, n) = 1 - p + p n

There is no limit to it, and no contradiction to Amdahl either. His p is a fraction of
the work, which changes when the job grows; put the fraction of the grown job into
Amdahl's law, and both laws give the same figure (checked below for 10,000 machines).

The last lines try it out: each worker process gets a share of the same size, so that
the job grows with the number of workers. As far as the machine really has a core for
each, the time does not.

John L. Gustafson, "Reevaluating Amdahl's law", Communications of the ACM 31 (5),
1988.

Try:  --workers 4
Try:  --plot gustafson.png

Output:
    p = 0.95      Amdahl  Gustafson
    n =     1      1.00       1.00
    n =     2      1.90       1.95
    n =     4      3.48       3.85
    n =     8      5.93       7.65
    n =    64     15.42      60.85
    n = 1,024     19.64     972.85
    about the grown job, both laws say the same (10,000 cases)

    a job                   in processes      in one
    as it is                                  0.03 s
    <cores> times the parallel part     0.03 s      0.06 s

    scaled speed-up 1.81x, by Gustafson's law 1.91x
"""

import argparse
import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path

PROCESSORS = (1, 2, 4, 8, 64, 1024)
SERIAL_STEPS = 10_000  # of hashing, before the shares are handed out
SHARE_STEPS = 90_000  # of hashing, for each worker
MAX_WORKERS = 61  # of a process pool on Windows
ROUNDS = 6  # of which the fastest counts: other programs can only make a run slower


def scaled_speedup(parallel_fraction: float, n: float) -> float:
    """Return how many times as long one processor would need for the grown job.

    Args:
        parallel_fraction: the part of the time, measured on the machine with `n`
            processors, in which all of them work; in 0 … 1.
        n: number of processors, at least 1.

    Raises:
        ValueError: an argument is out of its range.
    """
    _check(parallel_fraction, n)
    return 1 + parallel_fraction * (n - 1)  # exactly 1 for one processor


def amdahl_speedup(parallel_fraction: float, n: float) -> float:
    """Return the speed-up of a job that does not grow (example02).

    Raises:
        ValueError: an argument is out of its range.
    """
    _check(parallel_fraction, n)
    return n / (n - parallel_fraction * (n - 1))


def fraction_of_work(parallel_fraction: float, n: float) -> float:
    """Turn Gustafson's fraction of the time into Amdahl's fraction of the work.

    Raises:
        ValueError: an argument is out of its range.
    """
    return parallel_fraction * n / scaled_speedup(parallel_fraction, n)


def _check(parallel_fraction: float, n: float) -> None:
    if not 0 <= parallel_fraction <= 1:
        raise ValueError(f"parallel fraction must be in 0 … 1: {parallel_fraction}")
    if not 1 <= n < math.inf:
        raise ValueError(f"number of processors must be at least 1, and finite: {n}")


def reconcile() -> int:
    """Check for 10,000 machines that both laws agree on the grown job; return how many.

    Raises:
        ValueError: they do not.
    """
    machines = [(p / 100, n) for p in range(1, 101) for n in range(1, 101)]
    for p, n in machines:
        of_work = fraction_of_work(p, n)
        if not math.isclose(amdahl_speedup(of_work, n), scaled_speedup(p, n)):
            raise ValueError(f"the laws disagree at p = {p}, n = {n}")
    return len(machines)


def work(steps: int) -> bytes:
    """Compute for a while: `steps` times SHA-256."""
    value = b""
    for _ in range(steps):
        value = hashlib.sha256(value).digest()
    return value


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that a job took, in all and for its serial part, and its answers."""

    total: float
    serial: float
    answers: list[bytes]


def grown_job(n: int, pool: Executor | None) -> Timing:
    """Do the serial part and then `n` shares, in `pool` or one after the other."""
    began = time.perf_counter()
    work(SERIAL_STEPS)
    serial = time.perf_counter() - began
    shares = [SHARE_STEPS] * n
    answers = list(pool.map(work, shares) if pool else map(work, shares))
    return Timing(time.perf_counter() - began, serial, answers)


def plot(file: Path, parallel_fraction: float = 0.95) -> None:
    """Draw both laws for the same fraction, up to 128 processors."""
    from matplotlib.figure import Figure

    counts = [1 + i / 2 for i in range(255)]
    figure = Figure(figsize=(8.5, 5), layout="constrained")
    axes = figure.add_subplot()
    for law, colour, text in [
        (scaled_speedup, "#1b4f8a", "Gustafson: the job grows"),
        (amdahl_speedup, "#c1440e", "Amdahl: the job stays as it is"),
    ]:
        line = [law(parallel_fraction, n) for n in counts]
        axes.plot(counts, line, color=colour, linewidth=3)
        axes.annotate(
            f"{text}\n{line[-1]:.1f} on {counts[-1]:.0f} processors",
            (counts[-1], line[-1]),
            (-90, -8) if law is scaled_speedup else (-8, 10),
            textcoords="offset points",
            ha="right",
            va="top" if law is scaled_speedup else "bottom",
            fontsize=13,
            color=colour,
        )
    axes.set_xlabel("number of processors", fontsize=12)
    axes.set_ylabel("speed-up over one processor", fontsize=12)
    axes.set_title(
        f"With {100 * (1 - parallel_fraction):.0f} % serial, a job that grows "
        "with the machine has no limit",
        fontsize=13,
        fontweight="bold",
    )
    axes.set_xlim(0, 130)
    axes.set_ylim(0, 130)
    axes.grid(alpha=0.3)
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


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    parser.add_argument(
        "--workers", type=workers, default=max(2, min(4, usable_cores()))
    )
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n = options.workers

    print("p = 0.95      Amdahl  Gustafson")
    for count in PROCESSORS:
        fixed, scaled = amdahl_speedup(0.95, count), scaled_speedup(0.95, count)
        print(f"n = {count:5,}  {fixed:8.2f}  {scaled:9.2f}")
    print(f"about the grown job, both laws say the same ({reconcile():,} cases)")
    print()
    with process_pool(n) as pool:
        # In turns, so that a busy moment of the machine hits all three alike.
        runs = [
            (grown_job(1, None), grown_job(n, pool), grown_job(n, None))
            for _ in range(ROUNDS)
        ]
    small, grown, alone = (
        min(timings, key=lambda timing: timing.total)
        for timings in zip(*runs, strict=True)
    )
    if any(one.answers != all_.answers[:1] for one, all_, _ in runs) or any(
        one.answers != other.answers for _, one, other in runs
    ):
        raise SystemExit("the answers differ")
    fraction = 1 - grown.serial / grown.total
    print("a job                   in processes      in one")
    print(f"as it is                              {small.total:8.2f} s")
    print(f"{n} times the parallel part {grown.total:8.2f} s  {alone.total:8.2f} s")
    print()
    print(
        f"scaled speed-up {alone.total / grown.total:.2f}x, "
        f"by Gustafson's law {scaled_speedup(fraction, n):.2f}x"
    )
    if options.plot:
        plot(options.plot)


if __name__ == "__main__":
    main()
