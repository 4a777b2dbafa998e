# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Amdahl's law: the serial part of a job bounds its speed-up, however many processors.

Of a job that takes one second on one processor, the fraction p can be shared out; the
rest, 1 - p, cannot. On n processors it takes 1 - p + p / n seconds, so

    speedup(p, n) = 1 / (1 - p + p / n)  ->  1 / (1 - p)  for many processors.

The law can be watched at work. A small scheduler knows only how to give the next task
to the first processor that is free. Where tasks of equal length come out even, its
schedules take exactly as long as the law says; where they do not, they take longer.

The law fixes the size of the job; example03 lets it grow. And it knows no overhead;
for machines that get slower when they get larger, see example05.

Gene M. Amdahl, "Validity of the single processor approach to achieving large scale
computing capabilities", AFIPS Spring Joint Computer Conference, 1967.

Try:  --plot amdahl.png

Output:
    speed-up by number of processors
        p        1        2        4        8       16       64    1,024    limit
     0.50     1.00     1.33     1.60     1.78     1.88     1.97     2.00     2.00
     0.75     1.00     1.60     2.29     2.91     3.37     3.82     3.99     4.00
     0.90     1.00     1.82     3.08     4.71     6.40     8.77     9.91    10.00
     0.95     1.00     1.90     3.48     5.93     9.14    15.42    19.64    20.00
     0.99     1.00     1.98     3.88     7.48    13.91    39.26    91.18   100.00
     1.00     1.00     2.00     4.00     8.00    16.00    64.00 1,024.00      inf

    processors for half of the limit, and for nine tenths of it
     0.50       1       9
     0.75       3      27
     0.90       9      81
     0.95      19     171
     0.99      99     891

    the law gives the speed-up of 103 schedules and bounds that of 117
"""

import argparse
import heapq
import math
import os
from pathlib import Path

FRACTIONS = (0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
PROCESSORS = (1, 2, 4, 8, 16, 64, 1024)


def speedup(parallel_fraction: float, n: float) -> float:
    """Return how many times as fast `n` processors are as one, by Amdahl's law.

    The formula is written so that its properties hold exactly in floating point too:
    it is 1 for one processor, never falls as `n` grows, and never exceeds `limit`.

    Args:
        parallel_fraction: the part of the work, measured as time on one processor, that
            can be shared out evenly; in 0 … 1.
        n: number of processors, at least 1; `math.inf` is allowed.

    Raises:
        ValueError: an argument is out of its range.
    """
    if not 0 <= parallel_fraction <= 1:
        raise ValueError(f"parallel fraction must be in 0 … 1: {parallel_fraction}")
    if not n >= 1:
        raise ValueError(f"number of processors must be at least 1: {n}")
    time_left = 1 - parallel_fraction * (1 - 1 / n)
    return 1 / time_left if time_left > 0 else math.inf


def limit(parallel_fraction: float) -> float:
    """Return the speed-up that no number of processors exceeds: 1 / (1 - p)."""
    return speedup(parallel_fraction, math.inf)


def processors_for(parallel_fraction: float, wanted: float) -> int:
    """Return the smallest number of processors with at least the speed-up `wanted`.

    A speed-up that falls short by no more than a rounding error will do.

    Raises:
        ValueError: `wanted` is less than 1, or no number of processors brings it about,
            or the fraction is outside 0 … 1.
    """
    if wanted == 1:
        return 1
    if not 1 < wanted < limit(parallel_fraction):
        raise ValueError(
            f"speed-up must be below {limit(parallel_fraction):g}, its limit, "
            f"and at least 1: {wanted}"
        )
    time_saved = 1 - 1 / wanted
    n = max(1, math.floor(parallel_fraction / (parallel_fraction - time_saved)) - 1)
    while speedup(parallel_fraction, n) < wanted * (1 - 1e-12):
        n += 1
    return n


def makespan(serial: int, tasks: int, n: int) -> int:
    """Return when a job ends that `n` processors do by list scheduling.

    Args:
        serial: length of the part that comes first and cannot be shared out.
        tasks: number of the tasks that follow, each of length 1.

    Raises:
        ValueError: `n` is less than 1, or a length is negative.
    """
    if n < 1 or serial < 0 or tasks < 0:
        raise ValueError(f"impossible job: {serial} + {tasks} on {n} processors")
    free_at = [serial] * n
    for _ in range(tasks):
        heapq.heapreplace(free_at, free_at[0] + 1)
    return max(free_at)


def confirm_by_scheduling() -> tuple[int, int]:
    """Compare the law with schedules of jobs of 1,000 units of work.

    Returns how many schedules came out even, and how many did not because `n` does not
    divide the number of tasks. The law must give the former and bound the latter.

    Raises:
        ValueError: a schedule contradicts the law.
    """
    even = uneven = 0
    for tasks in range(0, 1001, 100):
        for n in range(1, 21):
            scheduled = 1000 / makespan(1000 - tasks, tasks, n)
            law = speedup(tasks / 1000, n)
            if tasks % n == 0 and math.isclose(scheduled, law, rel_tol=1e-12):
                even += 1
            elif tasks % n and scheduled < law:
                uneven += 1
            else:
                raise ValueError(f"{tasks} tasks on {n}: {scheduled}, not {law}")
    return even, uneven


def plot(file: Path) -> None:
    """Draw the law's family of curves up to 65,536 processors."""
    from matplotlib.figure import Figure

    counts = [2 ** (i / 8) for i in range(129)]
    figure = Figure(figsize=(8.5, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for p, colour in zip(
        (0.99, 0.95, 0.9, 0.75, 0.5),
        ("#0b2545", "#1b4f8a", "#3a86c8", "#7fb6dd", "#9aa5b1"),
        strict=True,
    ):
        line = [speedup(p, n) for n in counts]
        axes.plot(counts, line, color=colour, linewidth=2.5)
        axes.axhline(limit(p), color=colour, linestyle=":", linewidth=1)
        axes.annotate(
            f"p = {p:g}: at most {limit(p):g}",
            (counts[-1], limit(p)),
            (-4, 4),
            textcoords="offset points",
            ha="right",
            fontsize=12,
            color=colour,
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks([4**i for i in range(9)], [f"{4**i:,}" for i in range(9)])
    axes.set_yticks([2**i for i in range(8)], [str(2**i) for i in range(8)])
    axes.set_ylim(0.9, 160)
    axes.set_xlabel("number of processors", fontsize=12)
    axes.set_ylabel("speed-up over one processor", fontsize=12)
    axes.set_title(
        "Five percent of serial work: no machine is more than 20 times as fast",
        fontsize=13,
        fontweight="bold",
    )
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


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

    print("speed-up by number of processors")
    print("    p" + "".join(f"{n:>9,}" for n in PROCESSORS) + "    limit")
    for p in FRACTIONS:
        row = "".join(f"{speedup(p, n):9,.2f}" for n in PROCESSORS)
        print(f"{p:5.2f}{row}{limit(p):9.2f}")
    print()
    print("processors for half of the limit, and for nine tenths of it")
    for p in FRACTIONS[:-1]:
        half, most = (processors_for(p, share * limit(p)) for share in (0.5, 0.9))
        print(f"{p:5.2f}{half:8,}{most:8,}")
    print()
    even, uneven = confirm_by_scheduling()
    print(f"the law gives the speed-up of {even} schedules and bounds that of {uneven}")
    if options.plot:
        plot(options.plot)


if __name__ == "__main__":
    main()
