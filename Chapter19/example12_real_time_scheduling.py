# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Periodic tasks with deadlines: earliest deadline first, and rate monotonic.

A task has a job to be done in each period, before the next one begins. Two ways to
choose who runs, both preemptive:

* rate monotonic (RM): each task has a fixed priority, the shorter its period the more
  urgent. No other fixed priorities do better, and fixed ones are what the kernels of
  embedded systems offer.
* earliest deadline first (EDF): the priority of each job is its deadline. Nothing at
  all does better: it meets all deadlines if the tasks need no more time than there is,
  that is, if their utilization U, the sum of cost / period, is at most 1.

Whether RM meets all deadlines is known before anything runs. It does if U is at most
n * (2**(1/n) - 1) for n tasks, the bound of Liu and Layland: 0.83 for two, 0.69 for
many. Above it the exact answer is the response time of each task when all are released
together, the worst case. It is the least R with

    R = cost + the cost of all more urgent jobs released in R ticks

and no R may be more than its period. A simulation must agree, and is asked for all
small task sets. One hyperperiod, the least common multiple of the periods, is enough:
if no job is late in it, all begins anew after it.

The first two sets are the textbook's. The third is far above the bound and no job is
late: the bound is sufficient, not necessary. The fourth needs more time than there is.

Sources: C. L. Liu, J. W. Layland, "Scheduling algorithms for multiprogramming in a
hard-real-time environment", JACM 20 (1), 1973; M. Joseph, P. Pandya, "Finding response
times in a real-time system", The Computer Journal 29 (5), 1986; the textbook is
Silberschatz, Galvin and Gagne, Operating System Concepts, Real-Time CPU Scheduling.

Try:  --tasks 1/4 2/6 3/10
Try:  --plot deadlines.png

Output:
                               worst response  deadlines missed
    cost/period       U  bound  times under RM  by RM     by EDF
    20/50 35/100   0.75   0.83  20 75            0 of 3     0 of 3
    25/50 35/80    0.94   0.83  25 late          1 of 13    0 of 13
    1/2 1/4 2/8    1.00   0.78  1 2 8            0 of 7     0 of 7
    3/4 2/5        1.15   0.83  3 late           4 of 9     4 of 9

    RM   0 P1.1 25 P2.1 50 P1.2 75 P2.1 85 P2.2 100 P1.3 125 P2.2 145 - 150 P1.4 175
    EDF  0 P1.1 25 P2.1 60 P1.2 85 P2.2 100 P1.3 125 P2.2 145 - 150 P1.4 175 P2.3 210

    all sets of 2 or 3 tasks with periods up to 7 and U up to 1:
      U up to the bound  RM meets all in 126 of 126
      above the bound    RM meets all in 182 of 206
    EDF meets all deadlines up to U = 1, RM just where the analysis says so
"""

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations_with_replacement
from pathlib import Path

from cpu_scheduling import Process, Slice, by_priority, gantt, times
from example11_scheduling_algorithms import picture

MOST_JOBS = 999  # in a hyperperiod; more would not fit into the table
TEXTBOOK_FIRST = (20, 50), (35, 100)  # costs and periods in ticks
TEXTBOOK_SECOND = (25, 50), (35, 80)
HARMONIC = (1, 2), (1, 4), (2, 8)
TOO_MUCH = (3, 4), (2, 5)
SETS = (TEXTBOOK_FIRST, TEXTBOOK_SECOND, HARMONIC, TOO_MUCH)
SLICES = 8  # that are printed
LONGEST = 7  # ticks: the longest period when all sets are tried


@dataclass(frozen=True, slots=True)
class Task:
    """A job of `cost` ticks in each period of so many ticks, from tick 0 on.

    Each job may begin with its period, and has to end with it.
    """

    name: str
    cost: int
    period: int


@dataclass(frozen=True, slots=True)
class Job:
    """What a task has to do in the period that begins with tick `release`."""

    task: Task
    release: int

    @property
    def name(self) -> str:
        """The task's name, and the job's number from 1."""
        return f"{self.task.name}.{self.release // self.task.period + 1}"

    @property
    def deadline(self) -> int:
        """The tick before which the job has to end."""
        return self.release + self.task.period


# Orders the jobs: the least is the most urgent. At a tie the task's name decides, since
# a fixed priority that two tasks share would depend on who comes first.
Policy = Callable[[Job], tuple[int, str]]


def rate_monotonic(job: Job) -> tuple[int, str]:
    """Prefer the task with the shortest period, that is, with the highest rate."""
    return job.task.period, job.task.name


def earliest_deadline_first(job: Job) -> tuple[int, str]:
    """Prefer the job that has to end first."""
    return job.deadline, job.task.name


@dataclass(frozen=True, slots=True)
class Schedule:
    """One hyperperiod.

    Attributes:
        slices: which job runs when, by name.
        response: for each job the ticks from its release to its end. Of a job that
            ends after the hyperperiod, and so is late, it is the least that it can be:
            jobs of the next hyperperiod may delay it.
    """

    slices: Sequence[Slice]
    response: dict[Job, int]

    def missed(self) -> list[Job]:
        """Return the jobs that end after their deadline."""
        return [job for job, ticks in self.response.items() if ticks > job.task.period]

    def worst(self, task: Task) -> int:
        """Return the longest response time of a task."""
        return max(ticks for job, ticks in self.response.items() if job.task == task)


def hyperperiod(tasks: Sequence[Task]) -> int:
    """Return after how many ticks all periods begin together again."""
    return math.lcm(*(task.period for task in tasks))


def simulate(tasks: Sequence[Task], policy: Policy) -> Schedule:
    """Run all jobs of one hyperperiod on one processor, with preemption.

    Raises:
        ValueError: two tasks have the same name; a cost or period is less than 1.
    """
    for task in tasks:
        if task.cost < 1 or task.period < 1:
            raise ValueError(f"cost and period must be at least 1: {task}")
    until = hyperperiod(tasks)
    jobs = [Job(task, at) for task in tasks for at in range(0, until, task.period)]
    order = sorted({policy(job) for job in jobs})
    priority = {rank: n for n, rank in enumerate(order)}
    processes = [
        Process(job.name, job.release, job.task.cost, priority[policy(job)])
        for job in jobs
    ]
    slices = by_priority(processes, preemptive=True)
    ended = times(processes, slices)
    return Schedule(slices, {job: ended[job.name].turnaround for job in jobs})


def utilization(tasks: Sequence[Task]) -> Fraction:
    """Return which part of the time the tasks need."""
    return sum((Fraction(task.cost, task.period) for task in tasks), Fraction())


def liu_layland_bound(n: int) -> float:
    """Return up to which utilization RM is sure to meet all deadlines of `n` tasks."""
    return n * (2 ** (1 / n) - 1)


def response_times(tasks: Sequence[Task]) -> list[int | None]:
    """Return the longest response time of each task under RM, found by analysis.

    None stands for one that is longer than the task's period: a deadline is missed.
    """
    by_urgency = sorted(tasks, key=lambda task: (task.period, task.name))
    found = {
        task.name: _response_time(task, by_urgency[:n])
        for n, task in enumerate(by_urgency)
    }
    return [found[task.name] for task in tasks]


def _response_time(task: Task, more_urgent: Sequence[Task]) -> int | None:
    ticks = 0
    needed = task.cost
    while ticks < needed <= task.period:
        ticks = needed
        releases = [(one.cost, -(-ticks // one.period)) for one in more_urgent]
        needed = task.cost + sum(cost * n for cost, n in releases)
    return ticks if needed <= task.period else None


def task_set(*costs_and_periods: tuple[int, int]) -> list[Task]:
    """Return tasks P1, P2, … with these costs and periods in ticks."""
    return [Task(f"P{n}", *pair) for n, pair in enumerate(costs_and_periods, 1)]


def sets_that_fit() -> Iterator[list[Task]]:
    """Yield all sets of two or three tasks of periods up to LONGEST with U up to 1."""
    pairs = [(c, t) for t in range(2, LONGEST + 1) for c in range(1, t)]
    for size in (2, 3):
        for chosen in combinations_with_replacement(pairs, size):
            tasks = task_set(*chosen)
            if utilization(tasks) <= 1:
                yield tasks


def refuted(
    tasks: Sequence[Task], by_rate: Schedule, by_deadline: Schedule
) -> str | None:
    """Return what the simulations say against the theory, None if they agree.

    Where the analysis says that a task is late, one of its jobs has to be; where it
    gives a response time, that has to be the longest one.
    """
    late = {job.task for job in by_rate.missed()}
    for task, ticks in zip(tasks, response_times(tasks), strict=True):
        if (ticks is None) != (task in late):
            return f"the analysis is wrong about whether {task.name} is late"
        if ticks is not None and ticks != by_rate.worst(task):
            return f"{task.name} takes {by_rate.worst(task)} ticks, not {ticks}"
    if utilization(tasks) <= liu_layland_bound(len(tasks)) and late:
        return "RM misses a deadline, though U is up to the bound"
    if (utilization(tasks) <= 1) == bool(by_deadline.missed()):
        return "EDF misses a deadline with U up to 1, or none with more"
    return None


def plot(tasks: Sequence[Task], schedules: Mapping[str, Schedule], file: Path) -> None:
    """Draw who runs when, a panel for each policy, with all that is late in red."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    running, late, period = "#1b4f8a", "#d0342c", "#9a9a9a"
    # Nothing is released after the hyperperiod, but what is late may still run.
    last = max(schedule.slices[-1].end for schedule in schedules.values())
    until = max(last, hyperperiod(tasks))
    until = min(until, 2 * max(task.period for task in tasks))
    figure = Figure(figsize=(10, 1.6 + 0.8 * len(tasks)), layout="constrained")
    panels = figure.subplots(len(schedules), sharex=True)
    for axes, (name, schedule) in zip(panels, schedules.items(), strict=True):
        jobs = {job.name: job for job in schedule.response}
        for piece in schedule.slices:
            job = jobs[piece.name]
            middle = min(piece.end, max(piece.start, job.deadline))
            place = tasks.index(job.task) - 0.3, 0.6
            for start, end, colour in (
                (piece.start, middle, running),
                (middle, piece.end, late),
            ):
                if start < end:
                    axes.broken_barh([(start, end - start)], place, color=colour)
        for row, task in enumerate(tasks):
            ends = range(0, until + 1, task.period)
            axes.vlines(ends, row - 0.45, row + 0.45, color=period)
        axes.set_xlim(0, until)
        labels = [f"{task.name}, {task.cost} of {task.period}" for task in tasks]
        axes.set_yticks(range(len(tasks)), labels)
        axes.invert_yaxis()
        axes.set_title(name, loc="left", fontweight="bold")
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("time [ticks]")
    figure.legend(
        handles=[
            Patch(color=running, label="runs"),
            Patch(color=late, label="runs after its deadline"),
            Patch(color=period, label="deadline, and next release"),
        ],
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    missed = [
        f"{name} misses {len(schedule.missed())} of {len(schedule.response)}"
        for name, schedule in schedules.items()
    ]
    figure.suptitle(
        f"The tasks need {100 * float(utilization(tasks)):.0f} % of the time. "
        f"Deadlines in {hyperperiod(tasks)} ticks: {', '.join(missed)}"
    )
    figure.savefig(file, dpi=120)


def checked(tasks: Sequence[Task]) -> tuple[Schedule, Schedule]:
    """Return the schedules of RM and EDF; end the program if they refute the theory."""
    by_rate = simulate(tasks, rate_monotonic)
    by_deadline = simulate(tasks, earliest_deadline_first)
    if wrong := refuted(tasks, by_rate, by_deadline):
        raise SystemExit(f"{tasks}: {wrong}")
    return by_rate, by_deadline


def show(tasks: Sequence[Task]) -> None:
    """Print a set of tasks, what the analysis says, and how many jobs are late."""
    by_rate, by_deadline = checked(tasks)
    print(
        f"{' '.join(f'{task.cost}/{task.period}' for task in tasks):14}"
        f"{float(utilization(tasks)):5.2f}{liu_layland_bound(len(tasks)):7.2f}"
        f"  {' '.join(str(t or 'late') for t in response_times(tasks)):14}"
        f"{len(by_rate.missed()):4} of {len(by_rate.response):<3}"
        f"{len(by_deadline.missed()):4} of {len(by_deadline.response)}"
    )


def try_all() -> None:
    """Print of how many sets of tasks RM meets all deadlines, by whether U is low."""
    n_sets = {True: 0, False: 0}  # by whether the bound holds
    n_met = {True: 0, False: 0}  # of these, those of which RM meets all deadlines
    for tasks in sets_that_fit():
        by_rate, _ = checked(tasks)
        is_below = utilization(tasks) <= liu_layland_bound(len(tasks))
        n_sets[is_below] += 1
        n_met[is_below] += not by_rate.missed()
    print(f"all sets of 2 or 3 tasks with periods up to {LONGEST} and U up to 1:")
    print(f"  U up to the bound  RM meets all in {n_met[True]} of {n_sets[True]}")
    print(f"  above the bound    RM meets all in {n_met[False]} of {n_sets[False]}")


def cost_and_period(text: str) -> tuple[int, int]:
    cost, slash, period = text.partition("/")
    if not (slash and cost.isdecimal() and period.isdecimal()):
        raise argparse.ArgumentTypeError(f"must be COST/PERIOD, in ticks: {text}")
    if int(cost) < 1 or int(period) < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1 tick each: {text}")
    return int(cost), int(period)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--tasks", type=cost_and_period, nargs="+", metavar="COST/PERIOD"
    )
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    shown = task_set(*(options.tasks or TEXTBOOK_SECOND))
    if (n := sum(hyperperiod(shown) // task.period for task in shown)) > MOST_JOBS:
        parser.error(
            f"argument --tasks: {n} jobs in a hyperperiod, at most {MOST_JOBS}"
        )

    print("                           worst response  deadlines missed")
    print("cost/period       U  bound  times under RM  by RM     by EDF")
    for tasks in [shown] if options.tasks else [task_set(*pairs) for pairs in SETS]:
        show(tasks)
    print()
    schedules = dict(zip(("RM", "EDF"), checked(shown), strict=True))
    for name, schedule in schedules.items():
        print(f"{name:4} {gantt(schedule.slices[:SLICES])}")
    print()
    try_all()
    if options.plot:
        plot(shown, schedules, options.plot)
    print("EDF meets all deadlines up to U = 1, RM just where the analysis says so")


if __name__ == "__main__":
    main()
