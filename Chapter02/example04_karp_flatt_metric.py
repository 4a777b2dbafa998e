# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""The Karp-Flatt metric: measured speed-ups tell how much of a job is serial, and why.

Amdahl's law solved for the serial fraction gives, from a speed-up measured on n
processors, the fraction that would explain it:

    e = (1 / speedup - 1 / n) / (1 - 1 / n)

One such figure is a summary, a row of them is a diagnosis. If e stays the same for
all n, the serial part of the program is what limits it. If e grows with n, the
machine adds a cost of its own: communication, synchronization, unequal shares.
Efficiency, which falls in either case, cannot tell the two apart.

First the metric reads a published table: a ray tracer on an SGI Origin 2000,
throughput by processors (N. J. Gunther, "Guerrilla Capacity Planning", 2007). Then it
reads this machine: a job whose serial part is known, because its steps were counted.

Alan H. Karp, Horace P. Flatt, "Measuring parallel processor performance",
Communications of the ACM 33 (5), 1990.

Try:  --serial 50
Try:  --plot karp_flatt.png

Output:
             serial part         overhead       ray tracer
      n   speed-up      e   speed-up      e   speed-up      e
      4       3.48  0.050       3.95  0.004       3.90  0.009
      8       5.93  0.050       7.58  0.008       6.50  0.033
     12       7.74  0.050      10.60  0.012       8.50  0.037
     16       9.14  0.050      12.90  0.016       9.50  0.046
     20      10.26  0.050      14.49  0.020      10.00  0.053
     24      11.16  0.050      15.46  0.024      10.50  0.056
     28      11.91  0.050      15.95  0.028      11.50  0.053
     32      12.55  0.050      16.06  0.032      13.00  0.047
     48      14.33  0.050      14.74  0.048      14.00  0.052
     64      15.42  0.050      12.72  0.064      15.50  0.050

    a job with 10 of 100 steps serial, on this machine
    speed-up with <cores> processes 1.78x: e = 12.3 %
    beyond the 10 % known to be serial: overhead, and shared cores
"""

import argparse
import hashlib
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker
from pathlib import Path

# Throughput of the ray tracer by number of processors.
RAY_TRACER = {
    1: 20, 4: 78, 8: 130, 12: 170, 16: 190, 20: 200,
    24: 210, 28: 230, 32: 260, 48: 280, 64: 310,
}  # fmt: skip
JOB_STEPS = 150_000  # of hashing
ROUNDS = 8  # of which the fastest counts: other programs can only make a run slower


def serial_fraction(speedup: float, n: int) -> float:
    """Return the experimentally determined serial fraction, e.

    It is 0 for a perfect speed-up and 1 for none; less than 0 means more than perfect
    (n caches hold more than one), more than 1 that the processors were a hindrance.

    Args:
        speedup: time on one processor over time on `n`.
        n: number of processors, at least 2.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 2 <= n < math.inf:
        raise ValueError(f"needs a measurement on at least 2 processors: {n}")
    if not 0 < speedup < math.inf:
        raise ValueError(f"the speed-up must be a positive number: {speedup}")
    return (1 / speedup - 1 / n) / (1 - 1 / n)


def speedups(throughput: Mapping[int, float]) -> dict[int, float]:
    """Turn throughput by number of processors into speed-ups over one processor.

    Raises:
        ValueError: one processor was not measured, or a throughput is not positive.
    """
    if 1 not in throughput:
        raise ValueError("there is no measurement on 1 processor")
    for value in throughput.values():
        if not 0 < value < math.inf:
            raise ValueError(f"the throughput must be a positive number: {value}")
    return {n: value / throughput[1] for n, value in throughput.items()}


def serial_part_only(n: int) -> float:
    """Return the speed-up of a job of which 5 % are serial: Amdahl's law."""
    return 1 / (0.05 + 0.95 / n)


def overhead_only(n: int) -> float:
    """Return the speed-up of a job to which each further processor adds 0.1 %."""
    return 1 / (1 / n + 0.001 * (n - 1))


def work(steps: int) -> bytes:
    """Compute for a while: `steps` times SHA-256."""
    value = b""
    for _ in range(steps):
        value = hashlib.sha256(value).digest()
    return value


def job(
    serial_percent: int, n: int, pool: Executor | None
) -> tuple[float, list[bytes]]:
    """Do JOB_STEPS steps, of which `n` workers share all but the serial part.

    Returns the seconds it takes, and the answers.
    """
    serial = JOB_STEPS * serial_percent // 100
    shares = [(JOB_STEPS - serial) // n] * n
    began = time.perf_counter()
    answers = [work(serial), *(pool.map(work, shares) if pool else map(work, shares))]
    return time.perf_counter() - began, answers


def plot(file: Path) -> None:
    """Draw speed-up and serial fraction of the two models and of the ray tracer."""
    from matplotlib.figure import Figure

    measured = speedups(RAY_TRACER)
    counts = range(2, 65)
    models: list[tuple[str, Callable[[int], float], str]] = [
        ("5 % serial, no overhead", serial_part_only, "#1b4f8a"),
        ("not serial, but overhead", overhead_only, "#c1440e"),
    ]
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, model, colour in models:
        values = [model(n) for n in counts]
        left.plot(counts, values, color=colour, linewidth=2.5, label=name)
        fractions = [100 * serial_fraction(model(n), n) for n in counts]
        right.plot(counts, fractions, color=colour, linewidth=2.5)
    points = [n for n in measured if n > 1]
    left.plot(points, [measured[n] for n in points], "ko", label="ray tracer, measured")
    right.plot(points, [100 * serial_fraction(measured[n], n) for n in points], "ko")
    left.set_ylabel("speed-up", fontsize=12)
    right.set_ylabel("serial fraction e, %", fontsize=12)
    left.set_title("Both are far from perfect …", fontsize=14, fontweight="bold")
    right.set_title("… and e tells why", fontsize=14, fontweight="bold")
    left.legend(fontsize=11)
    for axes in (left, right):
        axes.set_xlabel("number of processors", fontsize=12)
        axes.set_xlim(0, 66)
        axes.set_ylim(0)
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


def percent(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"must be in 0 … 100, not {number}")
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
    parser.add_argument("--serial", type=percent, default=10, metavar="PERCENT")
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    ray_tracer = speedups(RAY_TRACER)

    print("         serial part         overhead       ray tracer")
    print("  n   speed-up      e   speed-up      e   speed-up      e")
    for n in RAY_TRACER:
        if n > 1:
            rows = (serial_part_only(n), overhead_only(n), ray_tracer[n])
            cells = (f"{s:11.2f}  {serial_fraction(s, n):.3f}" for s in rows)
            print(f"{n:3}" + "".join(cells))
    print()

    print(f"a job with {options.serial} of 100 steps serial, on this machine")
    n = max(2, min(4, usable_cores()))
    seconds: dict[str, float] = {"alone": math.inf, "together": math.inf}
    with process_pool(n) as pool:
        for _ in range(ROUNDS):
            # In turns, so that a busy moment of the machine hits both alike.
            alone, expected = job(options.serial, n, None)
            together, answers = job(options.serial, n, pool)
            if answers != expected:
                raise SystemExit("the answers differ")
            seconds["alone"] = min(seconds["alone"], alone)
            seconds["together"] = min(seconds["together"], together)
    gain = seconds["alone"] / seconds["together"]
    e = 100 * serial_fraction(gain, n)
    print(f"speed-up with {n} processes {gain:.2f}x: e = {e:.1f} %")
    print(
        f"beyond the {options.serial} % known to be serial: overhead, and shared cores"
    )
    if options.plot:
        plot(options.plot)


if __name__ == "__main__":
    main()
