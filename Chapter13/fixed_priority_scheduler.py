"""A processor with fixed priorities and mutexes, simulated tick by tick.

Always the task of highest priority runs of those that are ready, and one that becomes
ready preempts a lower one at once: so work the kernels of embedded systems, and the
classes SCHED_FIFO and SCHED_RR of POSIX. Nothing here depends on a clock or a thread,
so every schedule is the same in each run, and can be drawn.

A task that waits for a mutex is delayed by whoever holds it, even one of low priority,
and by all that preempt the holder: priority inversion. Three protocols:

* none: a task runs at its own priority, always.
* inheritance: who holds a mutex runs at the highest priority of those who wait for it.
  If the holder itself waits for another mutex, that one's holder inherits it as well.
* ceiling: who holds a mutex runs at the highest priority of all tasks that ever lock
  it. This is the immediate form, PTHREAD_PRIO_PROTECT of POSIX; the paper's own raises
  the holder only when somebody is blocked, and has the same bound.

L. Sha, R. Rajkumar, J. P. Lehoczky, "Priority inheritance protocols: an approach to
real-time synchronization", IEEE Transactions on Computers 39 (9), 1990.

Try:  --protocol none
Try:  --protocol ceiling

Output:
    tick    0         10
    high       ~~~aa
    other       ....######
    middle   a~~~b
    low     b.bbb.........#
    # runs, a or b: runs and holds it, ~ waits for one, . is ready
    high ends after 5 ticks, 3 of them blocked: in time
"""

import argparse
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, get_args

Protocol = Literal["none", "inheritance", "ceiling"]

# What a pencil finds for the tasks of main(): after how many ticks the urgent one ends,
# and for how many it is blocked.
BY_HAND = {"none": (11, 9), "inheritance": (5, 3), "ceiling": (2, 0)}


class Step:
    """One step of a task's program: one of the three below."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Compute(Step):
    """Use the processor for so many ticks."""

    ticks: int


@dataclass(frozen=True, slots=True)
class Lock(Step):
    """Take a mutex, as soon as it is free. Takes no time itself."""

    mutex: str


@dataclass(frozen=True, slots=True)
class Unlock(Step):
    """Give a mutex back. Takes no time, so it belongs to the tick before."""

    mutex: str


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done once.

    Attributes:
        priority: the greater, the more urgent; no two tasks have the same.
        release: the tick in which it may begin.
        deadline: how many ticks after that it must have ended; None if it need not.
    """

    name: str
    priority: int
    release: int
    program: Sequence[Step]
    deadline: int | None = None


@dataclass(frozen=True, slots=True)
class Schedule:
    """What happened in each tick.

    Attributes:
        timeline: for each tick the name of the task that ran; None if there was none.
        rows: by task, a character for each tick: `#` runs, a letter runs and holds the
            mutex that begins with it (the last one taken), `~` waits for a mutex, `.`
            is ready while another runs, a space is not there.
        response: by task, the ticks from its release to its end, if it has ended.
        blocked: by task, the ticks in which it was there, did not run, and one of lower
            priority did, as intervals.
        missed: the tasks that have not ended by their deadline.
        deadlock: tasks of which each waits for a mutex of the next one, and the last
            for one of the first; the schedule ends with it. Empty if there is none.
    """

    timeline: tuple[str | None, ...]
    rows: dict[str, str]
    response: dict[str, int]
    blocked: dict[str, tuple[range, ...]]
    missed: tuple[str, ...]
    deadlock: tuple[str, ...]

    def blocking(self, name: str) -> int:
        """Return in how many ticks the task was blocked."""
        return sum(len(interval) for interval in self.blocked[name])


class _Job:
    """A task on its way: what is left of its program, and what it holds."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.held: list[str] = []  # mutexes, in the order in which they were taken
        self.left: list[Step | None] = []  # None is a tick of computing
        for step in task.program:
            self.left += [None] * step.ticks if isinstance(step, Compute) else [step]

    def go_on(self) -> None:
        """Do the next step; if it is to lock a mutex, that must be free."""
        match self.left.pop(0):
            case Lock(mutex):
                self.held.append(mutex)
            case Unlock(mutex):
                self.held.remove(mutex)


class _Processor:
    """All jobs, who waits for whom, and who may run."""

    def __init__(self, tasks: Sequence[Task], protocol: Protocol) -> None:
        self._protocol = protocol
        self.jobs = [_Job(task) for task in tasks]
        self._ceilings: dict[str, int] = {}
        for task in sorted(tasks, key=lambda task: task.priority):
            for step in task.program:
                if isinstance(step, Lock):
                    self._ceilings[step.mutex] = task.priority

    def holder_for(self, job: _Job) -> _Job | None:
        """Return the job that holds what `job` needs next, if there is one.

        It does not matter whether `job` has asked for it yet: it gets no further.
        """
        match job.left:
            case [Lock(mutex), *_]:
                return next((one for one in self.jobs if mutex in one.held), None)
        return None

    def cycle(self) -> list[_Job]:
        """Return jobs of which each waits for the next, and the last for the first."""
        for start in self.jobs:
            path = [start]
            while (holder := self.holder_for(path[-1])) is not None:
                if holder in path:
                    return path[path.index(holder) :]
                path.append(holder)
        return []

    def choose(self, there: Sequence[_Job]) -> _Job | None:
        """Return which of those that are there is to run; there must be no cycle."""
        ready = [job for job in there if self.holder_for(job) is None]
        return max(ready, key=lambda job: self._rank(job, there), default=None)

    def _rank(self, job: _Job, there: Sequence[_Job]) -> tuple[int, bool]:
        # One that is raised to the priority of another goes before that: it has begun
        # already, and equals do not preempt.
        priority = self._priority(job, there)
        return priority, priority > job.task.priority

    def _priority(self, job: _Job, there: Sequence[_Job]) -> int:
        raised: list[int] = []
        if self._protocol == "inheritance":
            waiting = [one for one in there if self.holder_for(one) is job]
            raised = [self._priority(one, there) for one in waiting]
        elif self._protocol == "ceiling":
            raised = [self._ceilings[mutex] for mutex in job.held]
        return max([job.task.priority, *raised])


def simulate(
    tasks: Sequence[Task], mutexes: Collection[str], protocol: Protocol = "none"
) -> Schedule:
    """Run `tasks` on one processor until all have ended, or are deadlocked.

    Args:
        mutexes: the names of all there are.

    Raises:
        ValueError: two tasks have the same name or priority, or a program is wrong: it
            locks what is not in `mutexes` or what it holds, unlocks what it does not
            hold, ends while it holds a mutex, or does nothing.
    """
    _check(tasks, mutexes, protocol)
    processor = _Processor(tasks, protocol)
    timeline: list[str | None] = []
    rows = {task.name: "" for task in tasks}
    ends: dict[str, int] = {}
    blocked: dict[str, list[int]] = {task.name: [] for task in tasks}
    while len(ends) < len(tasks) and not processor.cycle():
        tick = len(timeline)
        there = [job for job in processor.jobs if job.left and job.task.release <= tick]
        runner = processor.choose(there)
        if runner is not None and runner.left[0] is not None:
            runner.go_on()  # takes no time; perhaps another is to run now
            if not runner.left:
                ends[runner.task.name] = tick
            continue
        for job in processor.jobs:
            name, priority = job.task.name, job.task.priority
            if job is runner:
                rows[name] += job.held[-1][0] if job.held else "#"
            elif job not in there:
                rows[name] += " "
            else:
                rows[name] += "~" if processor.holder_for(job) else "."
                if runner is not None and runner.task.priority < priority:
                    blocked[name].append(tick)
        timeline.append(runner.task.name if runner is not None else None)
        if runner is not None:
            runner.go_on()
            while runner.left and isinstance(runner.left[0], Unlock):
                runner.go_on()
            if not runner.left:
                ends[runner.task.name] = tick + 1
    response = {
        task.name: ends[task.name] - task.release for task in tasks if task.name in ends
    }
    return Schedule(
        timeline=tuple(timeline),
        rows=rows,
        response=response,
        blocked={name: tuple(_intervals(ticks)) for name, ticks in blocked.items()},
        missed=tuple(
            task.name
            for task in tasks
            if task.deadline is not None
            and not response.get(task.name, math.inf) <= task.deadline
        ),
        deadlock=tuple(job.task.name for job in processor.cycle()),
    )


def _check(tasks: Sequence[Task], mutexes: Collection[str], protocol: Protocol) -> None:
    if protocol not in get_args(Protocol):
        raise ValueError(f"there is no protocol {protocol}")
    if len({task.name for task in tasks}) < len(tasks):
        raise ValueError("two tasks have the same name")
    if len({task.priority for task in tasks}) < len(tasks):
        raise ValueError("two tasks have the same priority")
    for task in tasks:
        held: list[str] = []
        if task.release < 0 or not task.program:
            raise ValueError(f"{task.name} does nothing, or before the first tick")
        for step in task.program:
            match step:
                case Compute(ticks) if ticks < 1:
                    raise ValueError(f"{task.name} computes for {ticks} ticks")
                case Lock(mutex) if mutex not in mutexes:
                    raise ValueError(f"{task.name} locks {mutex}, which is unknown")
                case Lock(mutex) if mutex in held:
                    raise ValueError(f"{task.name} locks {mutex}, which it holds")
                case Lock(mutex):
                    held.append(mutex)
                case Unlock(mutex) if mutex not in held:
                    raise ValueError(
                        f"{task.name} unlocks {mutex}, which it does not hold"
                    )
                case Unlock(mutex):
                    held.remove(mutex)
        if held:
            raise ValueError(f"{task.name} ends while it holds {held[0]}")


def _intervals(ticks: Sequence[int]) -> Iterator[range]:
    """Join ticks that follow each other."""
    for _, run in groupby(enumerate(ticks), key=lambda pair: pair[1] - pair[0]):
        row = [tick for _, tick in run]
        yield range(row[0], row[-1] + 1)


def draw(schedule: Schedule) -> list[str]:
    """Return lines that show the schedule: a row for each task, a column a tick."""
    width = max(map(len, schedule.rows))
    scale = "".join(f"{tick:<10}" for tick in range(0, len(schedule.timeline), 10))
    rows = {"tick": scale, **schedule.rows}
    return [f"{name:{width}}  {row}".rstrip() for name, row in rows.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--protocol", choices=get_args(Protocol), default="inheritance")
    protocol = parser.parse_args().protocol
    needs_b = [Lock("b"), Compute(4), Unlock("b"), Compute(1)]
    needs_both = [Lock("a"), Compute(1), Lock("b"), Compute(1)]
    tasks = [
        Task("high", 4, 3, [Lock("a"), Compute(2), Unlock("a")], deadline=5),
        Task("other", 3, 4, [Compute(6)]),
        Task("middle", 2, 1, [*needs_both, Unlock("b"), Unlock("a")]),
        Task("low", 1, 0, needs_b),
    ]
    schedule = simulate(tasks, "ab", protocol)
    print("\n".join(draw(schedule)))
    print("# runs, a or b: runs and holds it, ~ waits for one, . is ready")
    response, blocking = schedule.response["high"], schedule.blocking("high")
    if (response, blocking) != BY_HAND[protocol]:
        raise SystemExit(f"by hand it was {BY_HAND[protocol]}: {response}, {blocking}")
    in_time = "too late" if schedule.missed else "in time"
    print(f"high ends after {response} ticks, {blocking} of them blocked: {in_time}")


if __name__ == "__main__":
    main()
