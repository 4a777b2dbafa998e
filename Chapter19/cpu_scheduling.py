"""Seven algorithms that decide which process has the processor, as pure functions.

An algorithm gets the processes, each with its arrival and its burst (the ticks that it
needs), and returns slices: who runs from when to when. One simulation does for all of
them. Of those that are ready the one with the least key runs, at a tie the one that has
joined its queue first:

* first come, first served (FCFS): there is no key;
* shortest job first (SJF): the burst; shortest remaining time first (SRTF): what is
  left of it, and who arrives may preempt;
* priority: a number, the smaller the more urgent; with ageing: arrival + step *
  priority, which is the same as to gain one level in each `step` ticks (Chapter 13);
* round robin: no key, but after a quantum a process goes to the end of the queue;
* multilevel feedback: the level of its queue, one lower after each quantum. Every
  `boost` ticks all go back to the highest level, or long processes would starve.

Here they do the worked examples of the textbook. example11 compares them, example12
takes them for tasks with deadlines.

Sources: A. Silberschatz, P. B. Galvin, G. Gagne, Operating System Concepts, chapter CPU
Scheduling, also for the examples; for feedback with a boost R. H. and A. C.
Arpaci-Dusseau, Operating Systems: Three Easy Pieces, chapter 8.

Output:
    textbook     mean wait  schedule
    FCFS             17.00  0 P1 24 P2 27 P3 30
    FCFS              3.00  0 P2 3 P3 6 P1 30
    SJF               7.00  0 P4 3 P1 9 P3 16 P2 24
    SRTF              6.50  0 P1 1 P2 5 P4 10 P1 17 P3 26
    round robin       5.67  0 P1 4 P2 7 P3 10 P1 30
    priority          8.20  0 P2 1 P5 6 P1 16 P3 18 P4 19
    each mean wait is that of the textbook
"""

import math
import sys
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from statistics import fmean

NEVER = sys.maxsize  # ticks: more than any schedule has


@dataclass(frozen=True, slots=True)
class Process:
    """What is to be scheduled.

    Attributes:
        arrival: the tick in which it may begin, 0 or more.
        burst: how many ticks it needs, 1 or more.
        priority: the smaller, the more urgent.
    """

    name: str
    arrival: int
    burst: int
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """The process `name` runs from tick `start` to just before tick `end`."""

    name: str
    start: int
    end: int


@dataclass(slots=True, eq=False)
class Job:
    """A process on its way.

    Attributes:
        left: ticks that it still needs.
        joined: the tick in which it joined its queue; then 0 if it arrived, 1 if its
            quantum was over, since who arrives at that moment goes first.
        level: of its queue, from 0.
        used: ticks of its present quantum that are over.
    """

    process: Process
    left: int
    joined: tuple[int, int]
    level: int = 0
    used: int = 0


def simulate(
    processes: Sequence[Process],
    key: Callable[[Job], int] = lambda job: 0,
    *,
    preemptive: bool = True,
    quanta: Sequence[int] = (NEVER,),
    boost: int = NEVER,
) -> list[Slice]:
    """Run `processes` on one processor until all have ended.

    A slice is as long as it can be: it ends when another process runs, or none.

    Args:
        key: who has the least of those that are ready runs.
        preemptive: who arrives may take the processor from who has it.
        quanta: for each level, after how many ticks a process has to join the queue of
            the next level, or that of the last level anew. One that is preempted keeps
            its place, and has the rest of its quantum later.
        boost: every so many ticks all go back to level 0.

    Raises:
        ValueError: two processes have the same name; an arrival is negative; a burst,
            a quantum or `boost` is less than 1; there is no quantum.
    """
    _check(processes, quanta, boost)
    coming = deque(sorted(processes, key=lambda process: process.arrival))
    ready: list[Job] = []
    slices: list[Slice] = []
    now, next_boost = 0, boost
    while coming or ready:
        if not ready:
            now = max(now, coming[0].arrival)
        while coming and coming[0].arrival <= now:
            process = coming.popleft()
            ready.append(Job(process, process.burst, (process.arrival, 0)))
        if now >= next_boost:
            next_boost = (now // boost + 1) * boost
            for job in ready:
                if job.level > 0:  # who is there already must not use a quantum anew
                    job.level = job.used = 0
        job = min(ready, key=lambda job: (key(job), job.joined))
        ticks = min(job.left, quanta[job.level] - job.used, next_boost - now)
        if preemptive and coming:
            ticks = min(ticks, coming[0].arrival - now)
        assert ticks > 0
        _extend(slices, Slice(job.process.name, now, now + ticks))
        now += ticks
        job.left -= ticks
        job.used += ticks
        if not job.left:
            ready.remove(job)
        elif job.used == quanta[job.level]:
            job.level = min(job.level + 1, len(quanta) - 1)
            job.used = 0
            job.joined = (now, 1)
    return slices


def _check(processes: Sequence[Process], quanta: Sequence[int], boost: int) -> None:
    if len({process.name for process in processes}) < len(processes):
        raise ValueError("two processes have the same name")
    for process in processes:
        if process.arrival < 0 or process.burst < 1:
            raise ValueError(f"{process} needs an arrival from 0, a burst from 1")
    if min(quanta, default=0) < 1 or boost < 1:
        raise ValueError(f"quanta {quanta} and boost {boost} must be at least 1")


def _extend(slices: list[Slice], new: Slice) -> None:
    if slices and (slices[-1].name, slices[-1].end) == (new.name, new.start):
        new = Slice(new.name, slices.pop().start, new.end)
    slices.append(new)


Algorithm = Callable[[Sequence[Process]], list[Slice]]


def first_come_first_served(processes: Sequence[Process]) -> list[Slice]:
    """Let each process run to its end, in the order of arrival."""
    return simulate(processes)


def shortest_job_first(processes: Sequence[Process]) -> list[Slice]:
    """Let the process with the shortest burst, of those that are there, run to its end.

    If all arrive together, no other order has a smaller mean wait.
    """
    return simulate(processes, lambda job: job.process.burst, preemptive=False)


def shortest_remaining_time_first(processes: Sequence[Process]) -> list[Slice]:
    """Let run what will be done first. No other schedule has a smaller mean wait."""
    return simulate(processes, lambda job: job.left)


def by_priority(
    processes: Sequence[Process], *, preemptive: bool = False
) -> list[Slice]:
    """Let the most urgent process run. Others may starve."""
    return simulate(processes, lambda job: job.process.priority, preemptive=preemptive)


def priority_with_ageing(
    processes: Sequence[Process], step: int, *, preemptive: bool = False
) -> list[Slice]:
    """Let the most urgent process run, where each gains one level in `step` ticks.

    A process that is more urgent by n levels goes before one that is ready only if it
    arrives less than n * step ticks later.

    Raises:
        ValueError: `step` is less than 1, or as for `simulate`.
    """
    if step < 1:
        raise ValueError(f"step {step} must be at least 1")

    def key(job: Job) -> int:
        return job.process.arrival + step * job.process.priority

    return simulate(processes, key, preemptive=preemptive)


def round_robin(processes: Sequence[Process], quantum: int) -> list[Slice]:
    """Let each process in turn run for `quantum` ticks at most.

    Of n processes none waits longer than (n - 1) * quantum ticks for its next turn.
    """
    return simulate(processes, quanta=[quantum])


def multilevel_feedback(
    processes: Sequence[Process], quanta: Sequence[int], boost: int = NEVER
) -> list[Slice]:
    """Let run the process of the highest level; who uses up a quantum sinks.

    So short bursts are done soon, though it is not known beforehand which are short.
    With a boost none of n processes waits longer than boost + (n - 1) * quanta[0] ticks
    for its next turn. Without one, some may starve.
    """
    return simulate(processes, lambda job: job.level, quanta=quanta, boost=boost)


@dataclass(frozen=True, slots=True)
class Times:
    """What a process has met with, in ticks.

    Attributes:
        wait: in which it was there and did not run.
        turnaround: from its arrival to its end.
        response: from its arrival until it ran first.
    """

    wait: int
    turnaround: int
    response: int


def times(processes: Sequence[Process], slices: Sequence[Slice]) -> dict[str, Times]:
    """Return the times of each process in a schedule."""
    starts = {piece.name: piece.start for piece in reversed(slices)}
    ends = {piece.name: piece.end for piece in slices}
    return {
        process.name: Times(
            wait=ends[process.name] - process.arrival - process.burst,
            turnaround=ends[process.name] - process.arrival,
            response=starts[process.name] - process.arrival,
        )
        for process in processes
    }


def mean_wait(processes: Sequence[Process], slices: Sequence[Slice]) -> float:
    """Return how many ticks a process waits on average."""
    return fmean(one.wait for one in times(processes, slices).values())


def violations(processes: Sequence[Process], slices: Sequence[Slice]) -> list[str]:
    """Return, in sentences, what is wrong with a schedule for one processor.

    Wrong is: two run at once; one runs before its arrival, or not for just its burst;
    none runs though one is there (the work is not conserved).
    """
    wrong = [
        f"{b.name} runs with {a.name}" for a, b in pairwise(slices) if b.start < a.end
    ]
    ends = {piece.name: piece.end for piece in slices}
    gaps = [(a.end, b.start) for a, b in pairwise([Slice("", 0, 0), *slices])]
    for process in processes:
        own = [piece for piece in slices if piece.name == process.name]
        if any(piece.start < process.arrival for piece in own):
            wrong.append(f"{process.name} runs before its arrival")
        ran = sum(piece.end - piece.start for piece in own)
        if ran != process.burst:
            wrong.append(f"{process.name} runs for {ran} ticks, not {process.burst}")
        for start, end in gaps:
            if max(start, process.arrival) < min(end, ends.get(process.name, NEVER)):
                wrong.append(f"{process.name} is there, and none runs, before {end}")
    return wrong


def gantt(slices: Sequence[Slice]) -> str:
    """Return a schedule as one line, as `0 P1 24 P2 27`; a dash where none runs."""
    parts: list[object] = []
    end = None
    for piece in slices:
        if end is None:
            parts.append(piece.start)
        elif piece.start != end:
            parts += ["-", piece.start]
        parts += [piece.name, piece.end]
        end = piece.end
    return " ".join(map(str, parts))


def at_once(*bursts: int) -> list[Process]:
    """Return processes P1, P2, … that all arrive in tick 0."""
    return [Process(f"P{n}", 0, burst) for n, burst in enumerate(bursts, 1)]


def textbook() -> list[tuple[str, Algorithm, list[Process], float]]:
    """Return the worked examples: title, algorithm, processes, their mean wait."""
    p1, p2, p3 = at_once(24, 3, 3)
    one_by_one = [
        Process(f"P{n + 1}", n, burst) for n, burst in enumerate((8, 4, 9, 5))
    ]
    priorities = [
        Process(f"P{n}", 0, burst, priority)
        for n, (burst, priority) in enumerate(
            [(10, 3), (1, 1), (2, 4), (1, 5), (5, 2)], 1
        )
    ]
    return [
        ("FCFS", first_come_first_served, [p1, p2, p3], 17),
        ("FCFS", first_come_first_served, [p2, p3, p1], 3),
        ("SJF", shortest_job_first, at_once(6, 8, 7, 3), 7),
        ("SRTF", shortest_remaining_time_first, one_by_one, 6.5),
        ("round robin", partial(round_robin, quantum=4), [p1, p2, p3], 17 / 3),
        ("priority", by_priority, priorities, 8.2),
    ]


def main() -> None:
    print("textbook     mean wait  schedule")
    for title, algorithm, processes, expected in textbook():
        slices = algorithm(processes)
        wait = mean_wait(processes, slices)
        print(f"{title:11}{wait:11.2f}  {gantt(slices)}")
        if wrong := violations(processes, slices):
            raise SystemExit(f"{title}: {wrong[0]}")
        if not math.isclose(wait, expected):
            raise SystemExit(f"{title}: the mean wait was to be {expected:.2f} ticks")
    print("each mean wait is that of the textbook")


if __name__ == "__main__":
    main()
