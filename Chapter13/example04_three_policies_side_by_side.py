# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Three policies for readers and writers, side by side: who waits, and what it costs.

A reader and a writer come in each tick. A reader stays for two ticks, a writer for one,
so there is more to do than can be done, and somebody has to wait.

With readers first all writers wait until the last reader has left; with writers first
it is the other way round. Both are quick, because readers come together, and share
their time. First come, first served lets both kinds wait alike, and takes longest: a
writer stands between each two readers.

Fairness is Jain's index of how long either kind waits on average: 0.5 if one kind does
all the waiting, 1 if they wait alike.

Try:  --pairs 30
Try:  --plot policies.png

Output:
    12 readers and 12 writers; waits in ticks
                             readers' wait   writers' wait             all
                             mean  longest   mean  longest  fairness  done
    readers first             0.1        1   13.0       13      0.51    25
    writers first             7.5       13    1.0        1      0.63    15
    first come first served  12.0       23   14.0       25      0.99    37
    either kind first: the other waits for all of it; in turn: nobody is overtaken
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from example01_readers_first import in_range, readers_first
from example02_writers_first import writers_first
from example03_first_come_first_served import first_come_first_served
from readers_writers import Plan, Policy, Stay, play

POLICIES: dict[str, Policy] = {
    "readers first": readers_first,
    "writers first": writers_first,
    "first come first served": first_come_first_served,
}
OPENER = Plan("opener", True, comes=0, stays=1)  # lets the first ones wait alike
MAX_PAIRS = 60


def pairs(n: int) -> list[Plan]:
    """Plan a reader and a writer in each of `n` ticks."""
    return [
        Plan(f"{'writer' if writes else 'reader'} {k}", writes, k, 1 if writes else 2)
        for k in range(n)
        for writes in (False, True)
    ]


def mean_wait(stays: Sequence[Stay], writes: bool) -> float:
    """Return for how many ticks writers, or readers, have waited on average."""
    waits = [stay.wait for stay in stays if stay.writes is writes]
    return sum(waits) / len(waits)


def jain(shares: Sequence[float]) -> float:
    """Return Jain's fairness index of what each has got: 1/n … 1, 1 if all is equal."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def fairness(stays: Sequence[Stay]) -> float:
    """Return Jain's index of the mean waits of readers and of writers."""
    return jain([mean_wait(stays, writes) for writes in (False, True)])


def plot(results: Mapping[str, Sequence[Stay]], file: Path) -> None:
    """Draw for each policy when each one waited and was inside."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    reading, writing, waiting = "#1b4f8a", "#b5442e", "#d8d8d8"
    figure = Figure(figsize=(10, 4.6), layout="constrained")
    panels = figure.subplots(1, len(results), sharey=True, sharex=True)
    for axes, (name, stays) in zip(panels, results.items(), strict=True):
        for row, stay in enumerate(stays):
            axes.barh(row, stay.wait, left=stay.came, color=waiting, height=0.9)
            colour = writing if stay.writes else reading
            inside = stay.left - stay.entered
            axes.barh(row, inside, left=stay.entered, color=colour, height=0.9)
        axes.set_title(
            f"{name}\nfairness {fairness(stays):.2f}, "
            f"done after {max(stay.left for stay in stays)} ticks",
            fontsize=11,
            fontweight="bold",
        )
        axes.set_xlabel("time [ticks]")
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    panels[0].invert_yaxis()  # of all: the first to come on top
    panels[0].set_ylabel("readers and writers, as they come")
    figure.legend(
        handles=[
            Patch(color=waiting, label="waits"),
            Patch(color=reading, label="reads"),
            Patch(color=writing, label="writes"),
        ],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    figure.suptitle("Who goes first decides who starves; fairness costs time")
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
    parser.add_argument("--pairs", type=in_range(2, MAX_PAIRS), default=12)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n = options.pairs

    results = {}
    for name, policy in POLICIES.items():
        _, *results[name] = play([OPENER, *pairs(n)], policy)
    print(f"{n} readers and {n} writers; waits in ticks")
    print("                         readers' wait   writers' wait             all")
    print("                         mean  longest   mean  longest  fairness  done")
    for name, stays in results.items():
        cells = f"{name:23}"
        for writes in (False, True):
            longest = max(stay.wait for stay in stays if stay.writes is writes)
            cells += f"{mean_wait(stays, writes):6.1f} {longest:8} "
        end = max(stay.left for stay in stays)
        print(f"{cells}{fairness(stays):9.2f} {end:5}")

    *unfair, fair = results.values()
    for stays, last in zip(unfair, (True, False), strict=True):
        end_of_first = max(stay.left for stay in stays if stay.writes is not last)
        if any(stay.entered < end_of_first for stay in stays if stay.writes is last):
            raise SystemExit("one went in before all of the others had left")
    if any(stay.overtaken for stay in fair):
        raise SystemExit("first come was not first served")
    print(
        "either kind first: the other waits for all of it; in turn: nobody is overtaken"
    )
    if options.plot is not None:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
