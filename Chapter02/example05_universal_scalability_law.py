# /// script
# dependencies = ["matplotlib>=3.8.0", "numpy>=1.26.0"]
# ///
"""The Universal Scalability Law finds the machine size beyond which more is less.

Amdahl's curve flattens, real curves fall. Neil Gunther's law has a term for either
reason:

    capacity(n) = n / (1 + contention (n - 1) + coherency n (n - 1))

Contention is waiting for one another, as in Amdahl's law. Coherency is what every
pair of processors spends on agreeing with each other; it grows with the square of n
and wins in the end. Capacity is greatest at n = sqrt((1 - contention) / coherency).

Here a machine is simulated, event by event: processors compute, queue for a lock, and
hold it for longer the more others there are to be told. The law is fitted to what the
machine does with up to 32 processors; then it predicts the rest, up to 256, where the
machine has long passed its peak.

The same fit reads a published measurement, and finds the published coefficients.

The law has a limit too. It describes processors that meet in every round (Gunther
proved that it is their throughput, and a lower bound for others). Set free, so that
each goes on as soon as it can, they scale almost perfectly until the lock is busy all
the time; a fit to the harmless part of that curve predicts nothing, as the last
column shows.

N. J. Gunther, "A general theory of computational scalability based on rational
functions", arXiv:0808.1431, 2008.

Try:  --fit-up-to 16
Try:  --plot usl.png

Output:
        in common rounds         each on its own
      n  machine     law   error  machine     law   error
      1     0.98    0.95   -0.03     0.98    0.98    0.00   fitted
      2     1.88    1.86   -0.01     1.96    1.96    0.00   fitted
      4     3.58    3.58    0.00     3.92    3.92    0.00   fitted
      6     5.16    5.17    0.00     5.87    5.87    0.00   fitted
      8     6.63    6.64    0.00     7.82    7.82    0.00   fitted
     12     9.22    9.22    0.00    11.70   11.70    0.00   fitted
     16    11.42   11.41    0.00    15.55   15.56    0.00   fitted
     24    14.79   14.79    0.00    23.14   23.12    0.00   fitted
     32    17.12   17.12    0.00    30.43   30.44    0.00   fitted
     48    19.68   19.72    0.00    33.95   44.06    0.30
     64    20.56   20.66    0.00    30.62   56.00    0.83
     80    20.57   20.73    0.01    27.89   66.02    1.37
     96    20.13   20.34    0.01    25.61   74.07    1.89
    128    18.75   19.00    0.01    22.00   84.71    2.85
    192    15.74   16.06    0.02    17.17   90.31    4.26
    256    13.34   13.66    0.02    14.07   85.68    5.09

                            contention  coherency  peak
    fitted up to 32             0.0191   0.000182    73
    built into the machine      0.0196   0.000196    71
    fitted: SPARCcenter         0.0277   0.000104    97
    the best of the simulated machines has 80 processors
"""

import argparse
import heapq
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 192, 256)  # processors
PRIVATE = 1.0  # time that a processor computes between two uses of the lock
LOCKED = 0.02  # time that it holds the lock
TELLING = 0.0002  # additional time with the lock, for each other processor
JITTER = 0.1  # PRIVATE varies by so much, either way
OPERATIONS = 20_000  # to simulate for each size


# Throughput of a SPARCcenter 2000 by load, in the SPEC SDM 91 benchmark. The R package
# "usl" fits contention 0.0277285, coherency 0.0001044 and a peak of 96.52 to it.
SPEC_SDM91 = {
    1: 64.9, 18: 995.9, 36: 1652.4, 72: 1853.2, 108: 1828.9, 144: 1775.0, 216: 1702.2,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scalability:
    """The law with its coefficients.

    Attributes:
        one: throughput of one processor, in operations per unit of time.
        contention: fraction of an operation in which nobody else can do the same.
        coherency: cost of every pair of processors, as a fraction of an operation.
    """

    one: float
    contention: float
    coherency: float

    def throughput(self, n: float) -> float:
        """Return the throughput of `n` processors.

        Raises:
            ValueError: `n` is less than 1.
        """
        if not n >= 1:
            raise ValueError(f"number of processors must be at least 1: {n}")
        waiting = self.contention * (n - 1)
        agreeing = self.coherency * n * (n - 1)
        return self.one * n / (1 + waiting + agreeing)

    @property
    def peak(self) -> float:
        """The number of processors with the greatest throughput; `inf` without one."""
        if self.coherency == 0:
            return math.inf
        return max(1.0, math.sqrt(max(0.0, 1 - self.contention) / self.coherency))


def fit(sizes: Sequence[float], throughputs: Sequence[float]) -> Scalability:
    """Fit the law to measurements, by least squares of the throughputs.

    n / throughput is linear in three unknowns, 1 / one, contention / one and
    coherency / one. Its linear least squares are the start; Gauss-Newton steps then
    minimize the errors of the throughputs themselves. A coefficient that would become
    negative has no meaning and is left out.

    Args:
        sizes: numbers of processors, at least three different ones.
        throughputs: what was measured with each, in operations per unit of time.

    Raises:
        ValueError: too few measurements, or some that cannot be.
    """
    if len(sizes) != len(throughputs):
        raise ValueError(f"{len(sizes)} sizes, but {len(throughputs)} throughputs")
    if len(set(sizes)) < 3:
        raise ValueError(f"needs at least 3 different sizes: {list(sizes)}")
    for name, values, least in [("size", sizes, 1), ("throughput", throughputs, 0)]:
        for value in values:
            if not (least <= value < math.inf and value > 0):
                raise ValueError(f"impossible {name}: {value}")
    n = np.asarray(sizes, dtype=float)
    x = np.asarray(throughputs, dtype=float)
    terms = np.column_stack([np.ones_like(n), n - 1, n * (n - 1)])
    used = [0, 1, 2]
    while True:
        a = terms[:, used]
        c = np.linalg.lstsq(a, n / x, rcond=None)[0]
        for _ in range(100):
            time = a @ c
            slope = -(n / time**2)[:, None] * a
            step = np.linalg.lstsq(slope, x - n / time, rcond=None)[0]
            c = c + step
            if np.abs(step).max() <= 1e-12 * np.abs(c).max():
                break
        negative = [k for k, value in zip(used, c, strict=True) if k and value < 0]
        if not negative:
            break
        used.remove(negative[-1])
    found = dict(zip(used, (float(value) for value in c), strict=True))
    return Scalability(
        one=1 / found[0],
        contention=found.get(1, 0.0) / found[0],
        coherency=found.get(2, 0.0) / found[0],
    )


def simulate(n: int, in_rounds: bool, seed: int = 1) -> float:
    """Simulate `n` processors; return their throughput in operations per unit of time.

    For each operation a processor queues for the lock, holds it to take its share of
    the work and to tell the others, and then computes on its own. The lock goes to
    whoever has waited longest.

    Args:
        in_rounds: all processors meet before any begins its next operation; otherwise
            each goes on as soon as it can.
    """
    rng = random.Random(seed)
    hold = LOCKED + TELLING * (n - 1)
    at_the_lock = [
        0.0
    ] * n  # a heap: when each processor came, or will come, to the lock
    at_the_meeting: list[float] = []  # when each came there, in this round
    lock_free = now = 0.0
    done = 0
    while done < OPERATIONS:
        lock_free = max(lock_free, heapq.heappop(at_the_lock)) + hold
        finished = lock_free + PRIVATE * rng.uniform(1 - JITTER, 1 + JITTER)
        now = max(now, finished)
        done += 1
        if not in_rounds:
            heapq.heappush(at_the_lock, finished)
        else:
            at_the_meeting.append(finished)
            if not at_the_lock:
                at_the_lock = [max(at_the_meeting)] * n
                at_the_meeting.clear()
    return done / now


def plot(
    rounds: dict[int, float],
    free: dict[int, float],
    law: Scalability,
    last: int,
    file: Path,
) -> None:
    """Draw the simulated machine, and the law that was fitted to its first part."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    axes = figure.add_subplot()
    curve = [1 + i * 255 / 500 for i in range(501)]
    axes.plot(
        curve,
        [law.throughput(n) for n in curve],
        color="#1b4f8a",
        linewidth=2.5,
        label=f"the law, fitted up to {last} processors",
    )
    for known, style in [(True, "o"), (False, "D")]:
        points = {n: x for n, x in rounds.items() if (n <= last) == known}
        axes.plot(
            list(points),
            list(points.values()),
            style,
            color="#c1440e",
            markersize=8,
            fillstyle="full" if known else "none",
            label="machine: fitted" if known else "machine: predicted",
        )
    axes.plot(
        list(free), list(free.values()), "x", color="#7d8793", label="no common rounds"
    )
    if math.isfinite(law.peak):
        axes.axvline(law.peak, color="#1b4f8a", linestyle=":")
    axes.set_title(
        f"Beyond {law.peak:.0f} processors this machine gets slower;\n"
        f"what it does with up to {last} of them foretells it",
        fontsize=14,
        fontweight="bold",
    )
    axes.set_xlabel("number of processors", fontsize=12)
    axes.set_ylabel("operations per unit of time", fontsize=12)
    axes.set_ylim(0)
    axes.legend(fontsize=11)
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


def size(text: str) -> int:
    number = int(text)
    if number < SIZES[2]:
        raise argparse.ArgumentTypeError(f"must be at least {SIZES[2]}, not {number}")
    return number


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fit-up-to", type=size, default=32, metavar="PROCESSORS")
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    last = options.fit_up_to

    rounds = {n: simulate(n, in_rounds=True) for n in SIZES}
    free = {n: simulate(n, in_rounds=False) for n in SIZES}
    known = [n for n in SIZES if n <= last]
    law = fit(known, [rounds[n] for n in known])
    law_free = fit(known, [free[n] for n in known])

    print(f"{'in common rounds':>20}{'each on its own':>24}")
    print("  n  machine     law   error  machine     law   error")
    for n in SIZES:
        row = ""
        for machine, fitted in [(rounds[n], law), (free[n], law_free)]:
            error = fitted.throughput(n) / machine - 1
            row += (
                f"{machine:9.2f}{fitted.throughput(n):8.2f}{round(error, 2) + 0:8.2f}"
            )
        print(f"{n:3}{row}" + ("   fitted" if n <= last else ""))
    print()
    built_in = Scalability(1, LOCKED / (PRIVATE + LOCKED), TELLING / (PRIVATE + LOCKED))
    sparc = fit(list(SPEC_SDM91), list(SPEC_SDM91.values()))
    best = max(SIZES, key=lambda n: rounds[n])
    print("                        contention  coherency  peak")
    for name, found in [
        (f"fitted up to {last}", law),
        ("built into the machine", built_in),
        ("fitted: SPARCcenter", sparc),
    ]:
        print(
            f"{name:22}{found.contention:12.4f}{found.coherency:11.6f}{found.peak:6.0f}"
        )
    print(f"the best of the simulated machines has {best} processors")
    if options.plot:
        plot(rounds, free, law, last, options.plot)


if __name__ == "__main__":
    main()
