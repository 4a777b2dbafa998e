# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Five ways to share forks, side by side: how fast, how many at a time, how fair.

All let everybody eat, and never two neighbours at a time: the table checks each meal.
They differ in what they leave unused, and in who has to wait for it.

* Forks in order: no cycle of waits, but chains of those who hold one and wait.
* A seat too few: the same, with plain locks and a semaphore.
* A waiter: both forks or none, from one who knows them all.
* Back-off: both or none as well, by trying; pauses, in which a fork lies unused, and
  chance decide who gets them.
* Chandy and Misra: whoever has eaten goes behind its neighbours.

A meal is a short wait, as for a disk, so that those who eat at the same time gain from
it. Fairness is Jain's index of the meals that each has had when the first has had all
of its own (dining_table.py).

Try:  --philosophers 8 --meals 50
Try:  --plot philosophers.png

Output:
    5 philosophers, 20 meals each, of 1 ms
                        meals  at a time  longest wait  fairness
    forks in order    1104 /s       2x       24.9 ms      79 %
    a seat too few    1077 /s       2x       59.5 ms      68 %
    waiter            1337 /s       2x        6.0 ms      99 %
    back-off          1344 /s       2x       51.3 ms      40 %
    Chandy-Misra      1692 /s       2x        2.5 ms     100 %
    5 times 100 meals, and never two neighbours at a time
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dining_table import Dinner, Eating, dine
from example04_ordered_acquisition import OrderedForks
from example09_back_off_with_jitter import BackingOff
from example10_waiter import Seats, Waiter
from example11_chandy_misra import Forks

MEAL = 0.001  # seconds
MAX_PHILOSOPHERS = 50
MAX_MEALS = 100


def ways_to_eat(n: int) -> dict[str, Eating]:
    """Return by name each way of getting two forks, for `n` philosophers."""
    return {
        "forks in order": OrderedForks(n).eating,
        "a seat too few": Seats(n).eating,
        "waiter": Waiter(n).eating,
        "back-off": BackingOff(n).eating,
        "Chandy-Misra": Forks(n).eating,
    }


def plot(dinners: Mapping[str, Dinner], file: Path) -> None:
    """Draw meals a second, longest wait and fairness of each dinner."""
    from matplotlib.figure import Figure

    names = list(dinners)
    panels: dict[str, Callable[[Dinner], float]] = {
        "meals a second": lambda dinner: dinner.meals / dinner.seconds,
        "longest wait [ms]": lambda dinner: 1000 * dinner.longest_wait,
        "fairness [%]": lambda dinner: 100 * dinner.fairness,
    }
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    colours = ("#1b4f8a", "#b5442e", "#4c7a34")
    for axes, (title, value), colour in zip(
        figure.subplots(1, 3, sharey=True), panels.items(), colours, strict=True
    ):
        bars = axes.barh(names, [value(dinner) for dinner in dinners.values()])
        for bar in bars:
            bar.set_color(colour)
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=11)
        axes.margins(x=0.2)
        axes.set_title(title, fontsize=12, fontweight="bold")
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_xticks([])
        axes.tick_params(left=False, labelsize=11)
    axes.invert_yaxis()  # of all three: the first way on top
    figure.savefig(file, dpi=120)


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
    parser.add_argument("--philosophers", type=in_range(2, MAX_PHILOSOPHERS), default=5)
    parser.add_argument("--meals", type=in_range(1, MAX_MEALS), default=20)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n, meals = options.philosophers, options.meals

    print(f"{n} philosophers, {meals} meals each, of {1000 * MEAL:g} ms")
    print("                    meals  at a time  longest wait  fairness")
    dinners = {}
    for name, eating in ways_to_eat(n).items():
        dinners[name] = dinner = dine(n, meals, eating, lambda: time.sleep(MEAL))
        print(
            f"{name:14} {dinner.meals / dinner.seconds:7.0f} /s "
            f"{dinner.together:7}x  {1000 * dinner.longest_wait:9.1f} ms"
            f"{100 * dinner.fairness:8.0f} %"
        )
        if dinner.meals != n * meals:
            raise SystemExit(f"{n * meals} meals were to be had, not {dinner.meals}")
    print(f"{len(dinners)} times {n * meals} meals, and never two neighbours at a time")
    if options.plot is not None:
        plot(dinners, options.plot)


if __name__ == "__main__":
    main()
