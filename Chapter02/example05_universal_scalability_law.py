# /// script
# requires-python = ">=3.11"
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
      n  machine   law  error in %  machine   law  error in %
      1      1.0   0.9          -3      1.0   1.0           0   fitted
      4      3.6   3.6           0      3.9   3.9           0   fitted
     16     11.4  11.4           0     15.5  15.6           0   fitted
     32     17.1  17.1           0     30.4  30.4           0   fitted
     64     20.6  20.7           0     30.6  56.0          83
    128     18.7  19.0           1     22.0  84.7         285
    256     13.3  13.7           2     14.1  85.7         509

                            contention  coherency  peak
    fitted up to 32             0.0191   0.000182    73
    built into the machine      0.0196   0.000196    71
    SPEC SDM 91 (users)         0.0277   0.000104    97
    the best of the simulated machines has 80 processors
"""

import argparse
import heapq
import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZES = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, 96, 128, 192, 256)  # processors
SHOWN = (1, 4, 16, 32, 64, 128, 256)
PRIVATE = 1.0  # time that a processor computes between two uses of the lock
LOCKED = 0.02  # time that it holds the lock
TELLING = 0.0002  # additional time with the lock, for each other processor
JITTER = 0.1  # PRIVATE varies by so much, either way
OPERATIONS = 20_000  # to simulate for each size


# Throughput of a SPARCcenter 2000 by number of simulated users, in the SPEC SDM 91
# benchmark (Gunther, "Guerrilla Capacity Planning", 2007). The R package "usl" finds
# contention 0.0277285, coherency 0.0001044 and the peak at 96.52 users.
SPEC_SDM91 = {
    1: 64.9, 18: 995.9, 36: 1652.4, 72: 1853.2, 108: 1828.9, 144: 1775.0, 216: 1702.2,
}  # fmt: skip


Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Scalability:
    """The law with its coefficients.

    Attributes:
        one: throughput of one processor, in operations per unit of time.
        contention: part of the time of an operation that only one processor at a time
            can spend, 0 … 1.
        coherency: time that each other processor adds to that part, in times of an
            operation.
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
    coherency / one. Its linear least squares are the start; Gauss-Newton steps, halved
    where they go too far, then minimize the errors of the throughputs themselves. A
    coefficient that would become negative has no meaning and is left out.

    Args:
        sizes: numbers of processors, at least three different ones.
        throughputs: what was measured with each, in operations per unit of time.

    Raises:
        ValueError: too few measurements, some that cannot be, or some that have nothing
            to do with the law.
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
        c = _least_squares(terms[:, used], n, x)
        negative = [k for k, value in zip(used, c, strict=True) if k and value < 0]
        if not negative:
            break
        used.remove(negative[-1])
    if c[0] <= 0:
        raise ValueError(
            f"no such law describes these throughputs: {list(throughputs)}"
        )
    found = dict(zip(used, (float(value) for value in c), strict=True))
    return Scalability(
        one=1 / found[0],
        contention=found.get(1, 0.0) / found[0],
        coherency=found.get(2, 0.0) / found[0],
    )


def _least_squares(terms: Floats, n: Floats, x: Floats) -> Floats:
    """Return the coefficients c that bring n / (terms @ c) closest to x."""
    weight = x / n  # relative errors, so that small sizes count as much as large ones
    c = np.linalg.lstsq(terms * weight[:, None], np.ones_like(n), rcond=None)[0]
    error = _error(terms @ c, n, x)
    if error == math.inf:  # begin with a machine that never waits instead
        c = np.zeros_like(c)
        c[0] = np.median(n / x)
        error = _error(terms @ c, n, x)
    for _ in range(100):
        time = terms @ c
        slope = -(n / time**2)[:, None] * terms
        step = np.linalg.lstsq(slope, x - n / time, rcond=None)[0]
        # Of a step that goes too far, take as much as makes the error smaller.
        while (trial := _error(terms @ (c + step), n, x)) > error:
            step = step / 2
        c, error = c + step, trial
        if np.abs(step).max() <= 1e-12 * np.abs(c).max():
            break
    return c


def _error(time: Floats, n: Floats, x: Floats) -> float:
    if time.min() <= 0:  # no throughput takes no time, or less
        return math.inf
    return float(((n / time - x) ** 2).sum())


def simulate(n: int, in_rounds: bool, seed: int = 1) -> float:
    """Simulate `n` processors; return their throughput in operations per unit of time.

    For each operation a processor queues for the lock, holds it to take its share of
    the work and to tell the others, and then computes on its own. The lock goes to
    whoever has waited longest.

    Args:
        in_rounds: all processors meet before any begins its next operation; otherwise
            each goes on as soon as it can.

    Raises:
        ValueError: `n` is less than 1.
    """
    if n < 1:
        raise ValueError(f"number of processors must be at least 1: {n}")
    rng = random.Random(seed)
    hold = LOCKED + TELLING * (n - 1)
    # A heap of when each processor came, or will come, to the lock.
    at_the_lock = [0.0] * n
    # When those that are done with the present round came to the meeting.
    at_the_meeting: list[float] = []
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
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
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

    print("         in common rounds         each on its own")
    print("  n  machine   law  error in %  machine   law  error in %")
    for n in SHOWN:
        row = f"{n:3}"
        for machine, fitted in [(rounds[n], law), (free[n], law_free)]:
            percent = round(100 * (fitted.throughput(n) / machine - 1))
            row += f"{machine:9.1f}{fitted.throughput(n):6.1f}{percent:12}"
        print(row + ("   fitted" if n <= last else ""))
    print()
    built_in = Scalability(1, LOCKED / (PRIVATE + LOCKED), TELLING / (PRIVATE + LOCKED))
    sparc = fit(list(SPEC_SDM91), list(SPEC_SDM91.values()))
    best = max(SIZES, key=lambda n: rounds[n])
    print("                        contention  coherency  peak")
    for name, found in [
        (f"fitted up to {last}", law),
        ("built into the machine", built_in),
        ("SPEC SDM 91 (users)", sparc),
    ]:
        print(
            f"{name:22}{found.contention:12.4f}{found.coherency:11.6f}{found.peak:6.0f}"
        )
    print(f"the best of the simulated machines has {best} processors")
    if options.plot:
        plot(rounds, free, law, last, options.plot)


if __name__ == "__main__":
    main()
