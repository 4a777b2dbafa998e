# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""The same processes under each scheduling algorithm: who waits, and who starves.

The algorithms of cpu_scheduling.py get five processes that differ in length, arrival
and priority. SRTF has the least mean wait that there can be, but must know the bursts.
An algorithm that does not know them can take turns: round robin and feedback let every
process begin soon, and pay with switches. All times are in ticks.

Then a process of low priority meets a stream of others, short and urgent, of which the
next arrives when one ends. Where these always go first it waits for the end of the
stream, however long that is: it starves. Where turns come round, or waiting counts, the
length of the stream does not matter.

The picture of `--plot` is a Gantt chart, with a row for each algorithm.

Try:  --quantum 1
Try:  --plot gantt.png

Output:
                          mean      mean              a low one waits beside
    algorithm             wait  response  switches   100 urgent    200 urgent
    FCFS                   9.6       9.6         4            2             2
    SJF                    6.6       6.6         4          200           400
    SRTF                   3.8       0.2         6          200           400
    priority               8.4       8.4         4          200           400
    priority, preemptive   6.4       4.2         6          200           400
    priority, ageing       9.2       9.2         4           16            16
    round robin            8.2       2.4        10           12            12
    feedback               7.6       1.2         8          200           400
    feedback, boost        7.4       1.2         9           16            16
    SRTF waits least; with turns, ageing or a boost the low one does not starve
"""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from cpu_scheduling import (
    NEVER,
    Algorithm,
    Process,
    Slice,
    by_priority,
    first_come_first_served,
    mean_wait,
    multilevel_feedback,
    priority_with_ageing,
    round_robin,
    shortest_job_first,
    shortest_remaining_time_first,
    times,
    violations,
)

MOST = 100  # ticks of a quantum that may be asked for
QUANTA = (2, 4, NEVER)  # ticks, of the three levels of feedback
BOOST = 10  # ticks
STEP = 5  # ticks of waiting that are worth a level of priority
FEW, MANY = 100, 200  # urgent processes in a stream


def workload() -> list[Process]:
    """Return long and short processes, of which the shortest come last."""
    return [
        Process("A", 0, 9, 3),
        Process("B", 1, 6, 1),
        Process("C", 2, 3, 4),
        Process("D", 4, 1, 2),
        Process("E", 6, 2, 0),
    ]


def algorithms(quantum: int) -> dict[str, Algorithm]:
    """Return all algorithms by name."""
    return {
        "FCFS": first_come_first_served,
        "SJF": shortest_job_first,
        "SRTF": shortest_remaining_time_first,
        "priority": by_priority,
        "priority, preemptive": partial(by_priority, preemptive=True),
        "priority, ageing": partial(priority_with_ageing, step=STEP),
        "round robin": partial(round_robin, quantum=quantum),
        "feedback": partial(multilevel_feedback, quanta=QUANTA),
        "feedback, boost": partial(multilevel_feedback, quanta=QUANTA, boost=BOOST),
    }


def wait_beside_a_stream(algorithm: Algorithm, n: int) -> int:
    """Return how long a process waits beside `n` that are more urgent, and shorter.

    Those have the processor to themselves, if they may: when one ends the next arrives.
    """
    stream = [Process(f"urgent {i}", 2 * i, 2) for i in range(n)]
    processes = [*stream, Process("low", 0, 6, priority=3)]
    return times(processes, algorithm(processes))["low"].wait


def plot(schedules: Mapping[str, Sequence[Slice]], file: Path) -> None:
    """Draw the schedules of the workload, that with the least mean wait on top."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    colours = ["#1b4f8a", "#8fb3d9", "#b5442e", "#e8b04a", "#5b8c5a"]
    processes = workload()
    waits = {name: mean_wait(processes, slices) for name, slices in schedules.items()}
    names = sorted(waits, key=lambda name: waits[name])
    figure = Figure(figsize=(10, 4.8), layout="constrained")
    axes = figure.subplots()
    for row, name in enumerate(names):
        for process, colour in zip(processes, colours, strict=True):
            bars = [
                (piece.start, piece.end - piece.start)
                for piece in schedules[name]
                if piece.name == process.name
            ]
            axes.broken_barh(bars, (row - 0.38, 0.76), color=colour, edgecolor="white")
    labels = [f"{name}   {waits[name]:.1f}" for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("time [ticks]")
    axes.set_ylabel("algorithm, mean wait [ticks]")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(
        handles=[
            Patch(
                color=colour,
                label=f"{process.name}: arrives at {process.arrival}, "
                f"needs {process.burst}, priority {process.priority}",
            )
            for process, colour in zip(processes, colours, strict=True)
        ],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    least, most = names[0], names[-1]
    figure.suptitle(
        f"The same five processes, all done by tick {schedules[least][-1].end}, "
        f"wait {waits[least]:.1f} ticks on average under {least}, "
        f"{waits[most]:.1f} under {most}"
    )
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
    parser.add_argument("--quantum", type=in_range(1, MOST), default=2)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()

    print("                      mean      mean              a low one waits beside")
    print(
        f"algorithm             wait  response  switches  "
        f"{FEW:4} urgent {MANY:6} urgent"
    )
    schedules, waits, starving = {}, {}, set()
    for title, algorithm in algorithms(options.quantum).items():
        processes = workload()
        slices = schedules[title] = algorithm(processes)
        if wrong := violations(processes, slices):
            raise SystemExit(f"{title}: {wrong[0]}")
        waits[title] = mean_wait(processes, slices)
        response = fmean(one.response for one in times(processes, slices).values())
        few, many = (wait_beside_a_stream(algorithm, n) for n in (FEW, MANY))
        print(
            f"{title:20}{waits[title]:6.1f}{response:10.1f}{len(slices) - 1:10}"
            f"{few:13}{many:14}"
        )
        if many > few:
            starving.add(title)
    if waits["SRTF"] > min(waits.values()):
        raise SystemExit("SRTF was to have the least mean wait")
    if starving != {"SJF", "SRTF", "priority", "priority, preemptive", "feedback"}:
        raise SystemExit(f"others were to starve, not those of {sorted(starving)}")
    if options.plot:
        plot(schedules, options.plot)
    print("SRTF waits least; with turns, ageing or a boost the low one does not starve")


if __name__ == "__main__":
    main()
