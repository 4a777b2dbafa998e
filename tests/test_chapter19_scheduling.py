"""Chapter 19, scheduling algorithms and real-time scheduling: what readers copy."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import groupby, pairwise, permutations
from pathlib import Path
from typing import Any

import cpu_scheduling as scheduling
import example11_scheduling_algorithms as compared
import example12_real_time_scheduling as real_time
import pytest
from cpu_scheduling import NEVER, Process, Slice
from example12_real_time_scheduling import Job, Task, task_set
from hypothesis import assume, given
from hypothesis import strategies as st
from in_process import run_main

ALGORITHMS: dict[str, scheduling.Algorithm] = {
    "FCFS": scheduling.first_come_first_served,
    "SJF": scheduling.shortest_job_first,
    "SRTF": scheduling.shortest_remaining_time_first,
    "priority": scheduling.by_priority,
    "priority, preemptive": partial(scheduling.by_priority, preemptive=True),
    "ageing": partial(scheduling.priority_with_ageing, step=3),
    "ageing, preemptive": partial(
        scheduling.priority_with_ageing, step=3, preemptive=True
    ),
    "round robin": partial(scheduling.round_robin, quantum=2),
    "feedback": partial(scheduling.multilevel_feedback, quanta=[1, 2, NEVER]),
    "feedback, boost": partial(
        scheduling.multilevel_feedback, quanta=[2, 3, 5], boost=7
    ),
}


@st.composite
def processes(
    draw: st.DrawFn, most: int = 7, longest: int = 9, latest: int = 20
) -> list[Process]:
    one = st.tuples(st.integers(0, latest), st.integers(1, longest), st.integers(0, 3))
    drawn = draw(st.lists(one, max_size=most))
    return [Process(f"P{n}", *values) for n, values in enumerate(drawn)]


# -- cpu_scheduling: all algorithms


@pytest.mark.parametrize("name", ALGORITHMS)
@given(given_=processes())
def test_a_schedule_has_no_fault(name: str, given_: list[Process]) -> None:
    before = list(given_)
    slices = ALGORITHMS[name](given_)
    assert given_ == before
    assert scheduling.violations(given_, slices) == []
    assert all(piece.start < piece.end for piece in slices)
    for a, b in pairwise(slices):  # or they would be one slice
        assert (a.name, a.end) != (b.name, b.start)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_all_start_over_after_an_idle_time(name: str) -> None:
    slices = ALGORITHMS[name]([Process("B", 9, 1), Process("A", 3, 2)])
    assert slices == [Slice("A", 3, 5), Slice("B", 9, 10)]
    assert ALGORITHMS[name]([]) == []


@pytest.mark.parametrize("name", ALGORITHMS)
@given(given_=processes())
def test_if_all_come_later_all_run_later(name: str, given_: list[Process]) -> None:
    shift = 21  # three times the boost
    later = [replace(one, arrival=one.arrival + shift) for one in given_]
    assert ALGORITHMS[name](later) == [
        Slice(piece.name, piece.start + shift, piece.end + shift)
        for piece in ALGORITHMS[name](given_)
    ]


@pytest.mark.parametrize(
    ("slices", "complaint_"),
    [
        ([Slice("A", 1, 3), Slice("B", 2, 4)], "B runs with A"),
        ([Slice("A", 0, 2), Slice("B", 2, 4)], "A runs before its arrival"),
        ([Slice("A", 1, 4), Slice("B", 4, 6)], "A runs for 3 ticks, not 2"),
        ([Slice("A", 1, 3)], "B runs for 0 ticks, not 2"),
        ([Slice("A", 2, 4), Slice("B", 4, 6)], "A is there, and none runs, before 2"),
        ([Slice("A", 1, 3), Slice("B", 4, 6)], "B is there, and none runs, before 4"),
    ],
)
def test_each_fault_of_a_schedule_is_told(slices: list[Slice], complaint_: str) -> None:
    wrong = scheduling.violations([Process("A", 1, 2), Process("B", 2, 2)], slices)
    assert complaint_ in wrong


def test_times_of_a_process() -> None:
    slices = [Slice("A", 1, 2), Slice("B", 2, 4), Slice("A", 4, 7)]
    found = scheduling.times([Process("B", 1, 2), Process("A", 0, 4)], slices)
    assert found == {
        "A": scheduling.Times(wait=3, turnaround=7, response=1),
        "B": scheduling.Times(wait=1, turnaround=3, response=1),
    }


def test_a_schedule_as_one_line() -> None:
    assert scheduling.gantt([]) == ""
    assert scheduling.gantt([Slice("A", 2, 3)]) == "2 A 3"
    slices = [Slice("A", 0, 3), Slice("B", 3, 4), Slice("A", 6, 8)]
    assert scheduling.gantt(slices) == "0 A 3 B 4 - 6 A 8"


@pytest.mark.parametrize(
    ("run", "complaint_"),
    [
        (lambda: scheduling.simulate([Process("A", 0, 1)] * 2), "the same name"),
        (lambda: scheduling.simulate([Process("A", -1, 1)]), "arrival=-1"),
        (lambda: scheduling.simulate([Process("A", 0, 0)]), "burst=0"),
        (lambda: scheduling.simulate([], quanta=[]), "at least 1"),
        (lambda: scheduling.round_robin([], 0), "at least 1"),
        (lambda: scheduling.multilevel_feedback([], [2, 0]), "at least 1"),
        (lambda: scheduling.multilevel_feedback([], [2], boost=0), "at least 1"),
        (lambda: scheduling.priority_with_ageing([], 0), "step 0"),
    ],
)
def test_bad_input_is_refused(run: Callable[[], object], complaint_: str) -> None:
    with pytest.raises(ValueError, match=complaint_):
        run()


# -- the textbook


@pytest.mark.parametrize(
    ("number", "mean", "schedule"),
    [
        (0, 17, "0 P1 24 P2 27 P3 30"),
        (1, 3, "0 P2 3 P3 6 P1 30"),
        (2, 7, "0 P4 3 P1 9 P3 16 P2 24"),
        (3, 6.5, "0 P1 1 P2 5 P4 10 P1 17 P3 26"),
        (4, 17 / 3, "0 P1 4 P2 7 P3 10 P1 30"),
        (5, 8.2, "0 P2 1 P5 6 P1 16 P3 18 P4 19"),
    ],
)
def test_worked_examples(number: int, mean: float, schedule: str) -> None:
    _, algorithm, given_, _ = scheduling.textbook()[number]
    slices = algorithm(given_)
    assert scheduling.gantt(slices) == schedule
    assert scheduling.mean_wait(given_, slices) == pytest.approx(mean)


def test_three_queues_of_the_textbook() -> None:
    """Quantum 8, quantum 16, then first come, first served."""
    given_ = [Process("A", 0, 30), Process("B", 10, 8), Process("C", 12, 9)]
    slices = scheduling.multilevel_feedback(given_, [8, 16, NEVER])
    # A has used 2 ticks of its 16 when B comes, and the other 14 after C's first turn.
    assert scheduling.gantt(slices) == "0 A 10 B 18 C 26 A 40 C 41 A 47"


# -- one algorithm each


def tick_by_tick(
    given_: Sequence[Process], key: Callable[[Process, int], int]
) -> list[Slice]:
    """Decide anew in each tick who runs: the least key, then arrival, then place."""
    left = {process: process.burst for process in given_}
    timeline: list[str] = []
    while any(left.values()):
        now = len(timeline)
        there = [one for one in given_ if left[one] and one.arrival <= now]
        if there:
            runs = min(there, key=lambda one: (key(one, left[one]), one.arrival))
            left[runs] -= 1
        timeline.append(runs.name if there else "")
    slices, end = [], 0
    for name, ticks in groupby(timeline):
        start, end = end, end + len(list(ticks))
        if name:
            slices.append(Slice(name, start, end))
    return slices


@given(processes())
def test_preemptive_algorithms_decide_as_if_in_each_tick(given_: list[Process]) -> None:
    assert ALGORITHMS["FCFS"](given_) == tick_by_tick(given_, lambda one, left: 0)
    assert ALGORITHMS["SRTF"](given_) == tick_by_tick(given_, lambda one, left: left)
    assert ALGORITHMS["priority, preemptive"](given_) == tick_by_tick(
        given_, lambda one, left: one.priority
    )
    assert ALGORITHMS["ageing, preemptive"](given_) == tick_by_tick(
        given_, lambda one, left: one.arrival + 3 * one.priority
    )


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("SJF", lambda one: one.burst),
        ("priority", lambda one: one.priority),
        ("ageing", lambda one: one.arrival + 3 * one.priority),
    ],
)
@given(given_=processes())
def test_others_choose_the_least_and_let_it_end(
    name: str, key: Callable[[Process], int], given_: list[Process]
) -> None:
    waiting = {process.name: process for process in given_}
    for piece in ALGORITHMS[name](given_):
        there = [one for one in waiting.values() if one.arrival <= piece.start]
        chosen = waiting.pop(piece.name)
        assert (key(chosen), chosen.arrival) == min((key(o), o.arrival) for o in there)
        assert piece.end - piece.start == chosen.burst


@given(processes(most=5))
def test_sjf_is_the_best_order_if_all_come_together(given_: list[Process]) -> None:
    assume(given_)
    together = [replace(process, arrival=0) for process in given_]
    best = min(
        scheduling.mean_wait(order, scheduling.first_come_first_served(order))
        for order in permutations(together)
    )
    slices = scheduling.shortest_job_first(together)
    assert scheduling.mean_wait(together, slices) == pytest.approx(best)


@given(processes(most=4, longest=4))
def test_srtf_is_the_best_of_all_schedules(given_: list[Process]) -> None:
    assume(given_)

    @cache
    def least_wait(now: int, left: tuple[int, ...]) -> int:
        """Try everybody who is there, and nobody if nobody is, in each tick."""
        there = [n for n, p in enumerate(given_) if left[n] and p.arrival <= now]
        if not any(left):
            return 0
        if not there:
            return least_wait(now + 1, left)
        return min(
            len(there)
            - 1
            + least_wait(now + 1, (*left[:n], left[n] - 1, *left[n + 1 :]))
            for n in there
        )

    best = least_wait(0, tuple(process.burst for process in given_))
    slices = scheduling.shortest_remaining_time_first(given_)
    waits = scheduling.times(given_, slices).values()
    assert sum(one.wait for one in waits) == best


def longest_gap(given_: Sequence[Process], slices: Sequence[Slice]) -> int:
    """Return the most ticks that a process waited, from one turn to the next."""
    gaps = [0]
    for process in given_:
        end = process.arrival
        for piece in slices:
            if piece.name == process.name:
                gaps.append(piece.start - end)
                end = piece.end
    return max(gaps)


@given(processes(most=4, latest=4), st.integers(1, 5))
def test_round_robin_bounds_the_wait_for_a_turn(
    given_: list[Process], quantum: int
) -> None:
    slices = scheduling.round_robin(given_, quantum)
    assert longest_gap(given_, slices) <= max(0, len(given_) - 1) * quantum


def test_round_robin_reaches_its_bound() -> None:
    given_ = scheduling.at_once(9, 9, 9)
    assert longest_gap(given_, scheduling.round_robin(given_, 3)) == 6


@given(processes())
def test_round_robin_with_a_long_quantum_is_first_come_first_served(
    given_: list[Process],
) -> None:
    slices = scheduling.first_come_first_served(given_)
    assert scheduling.round_robin(given_, 9) == slices


def test_who_comes_at_the_end_of_a_quantum_goes_first() -> None:
    slices = scheduling.round_robin([Process("A", 0, 3), Process("B", 2, 1)], 2)
    assert scheduling.gantt(slices) == "0 A 2 B 3 A 4"


@given(
    processes(most=4, latest=2),
    st.lists(st.integers(1, 5), min_size=1),
    st.integers(1, 9),
)
def test_a_boost_bounds_the_wait_for_a_turn(
    given_: list[Process], quanta: list[int], boost: int
) -> None:
    slices = scheduling.multilevel_feedback(given_, quanta, boost)
    most = boost + max(0, len(given_) - 1) * quanta[0]
    assert longest_gap(given_, slices) <= most


def test_who_uses_up_quanta_sinks_to_the_last_level() -> None:
    slices = scheduling.multilevel_feedback(scheduling.at_once(9, 9), [1, 2, NEVER])
    assert scheduling.gantt(slices) == "0 P1 1 P2 2 P1 4 P2 6 P1 12 P2 18"


def test_who_is_on_the_highest_level_has_no_new_quantum_by_a_boost() -> None:
    slices = scheduling.multilevel_feedback(scheduling.at_once(3, 3), [2], boost=1)
    assert scheduling.gantt(slices) == "0 P1 2 P2 4 P1 5 P2 6"


def test_a_boost_brings_all_back() -> None:
    given_ = [Process("A", 0, 9), Process("B", 4, 20)]
    slices = scheduling.multilevel_feedback(given_, [2, NEVER], boost=8)
    # Both are on the lower level when the boost comes at 8; A, which has joined it
    # first, has its quantum of the upper one, then B, then A on the lower one.
    assert scheduling.gantt(slices) == "0 A 4 B 6 A 10 B 12 A 13 B 29"


def test_who_is_preempted_keeps_place_and_quantum() -> None:
    given_ = [Process("A", 0, 7), Process("B", 0, 7), Process("C", 5, 1)]
    slices = scheduling.multilevel_feedback(given_, [2, 4, NEVER])
    assert scheduling.gantt(slices) == "0 A 2 B 4 A 5 C 6 A 9 B 13 A 14 B 15"


@pytest.mark.parametrize("preemptive", [False, True])
@given(given_=processes(), step=st.integers(1, 9))
def test_ageing_bounds_who_may_overtake(
    preemptive: bool, given_: list[Process], step: int
) -> None:
    slices = scheduling.priority_with_ageing(given_, step, preemptive=preemptive)
    ends = {piece.name: piece.end for piece in slices}
    by_name = {process.name: process for process in given_}
    for one in given_:
        for piece in slices:
            if one.arrival < piece.start < ends[one.name] and piece.name != one.name:
                other = by_name[piece.name]
                levels = one.priority - other.priority
                # At the same time, the one that has arrived first.
                late = other.arrival - one.arrival
                assert late < levels * step or (late == levels * step and late <= 0)


def test_ageing_is_the_gain_of_a_level_in_each_step() -> None:
    """The key is never computed anew; who would do so gets the same order."""
    given_ = [Process(f"P{n}", n, 4, n * 7 % 5) for n in range(12)]
    order, now, left = [], 0, list(given_)
    while left:
        there = [one for one in left if one.arrival <= now]
        aged = min(there, key=lambda p: (p.priority - (now - p.arrival) / 8, p.arrival))
        order.append(aged.name)
        left.remove(aged)
        now += aged.burst
    slices = scheduling.priority_with_ageing(given_, 8)
    assert [piece.name for piece in slices] == order


# -- example11


@pytest.mark.parametrize("quantum", [1, 100])
def test_claims_hold_for_each_quantum(
    quantum: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(compared, monkeypatch, "--quantum", quantum)
    assert "does not starve" in capsys.readouterr().out


def test_nobody_starves_but_where_the_urgent_always_go_first() -> None:
    for name, algorithm in compared.algorithms(2).items():
        waits = [compared.wait_beside_a_stream(algorithm, n) for n in (50, 100)]
        always = name in {"SJF", "SRTF", "feedback"} or name.startswith("priority")
        starves = always and name != "priority, ageing"
        assert (waits == [100, 200]) == starves, name
        assert (waits[0] == waits[1]) != starves, name


@pytest.mark.parametrize(
    ("name", "instead", "complaint_"),
    [
        ("SRTF", scheduling.first_come_first_served, "the least mean wait"),
        ("feedback", scheduling.first_come_first_served, "others were to starve"),
        ("SJF", lambda given_: [Slice("A", 0, 9)], "SJF: B runs for 0 ticks"),
    ],
)
def test_what_does_not_hold_fails_the_comparison(
    name: str,
    instead: scheduling.Algorithm,
    complaint_: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = compared.algorithms(2) | {name: instead}
    monkeypatch.setattr(compared, "algorithms", lambda quantum: wrong)
    if name == "SJF":
        monkeypatch.setattr(compared, "wait_beside_a_stream", lambda *_: 0)
    with pytest.raises(SystemExit, match=complaint_):
        run_main(compared, monkeypatch)


@pytest.mark.parametrize(
    ("name", "instead", "complaint_"),
    [
        ("mean_wait", lambda *_: 16, "FCFS: the mean wait was to be 17.00"),
        ("violations", lambda *_: ["A waits"], "FCFS: A waits"),
    ],
)
def test_what_differs_from_the_textbook_fails_the_script(
    name: str, instead: Any, complaint_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, name, instead)
    with pytest.raises(SystemExit, match=complaint_):
        run_main(scheduling, monkeypatch)


def test_bad_quanta_are_named(complaint: Callable[..., str]) -> None:
    assert "must be in 1 … 100, not 0" in complaint(compared, "--quantum", "0")
    assert "must end in .png" in complaint(compared, "--plot", "gantt.txt")


# -- example12


@st.composite
def task_sets(draw: st.DrawFn, most: int = 4) -> list[Task]:
    periods = st.sampled_from([2, 3, 4, 5, 6, 8, 10, 12])
    drawn = draw(st.lists(periods, min_size=1, max_size=most))
    return task_set(*((draw(st.integers(1, period)), period) for period in drawn))


def simulated(tasks: Sequence[Task]) -> tuple[real_time.Schedule, real_time.Schedule]:
    return (
        real_time.simulate(tasks, real_time.rate_monotonic),
        real_time.simulate(tasks, real_time.earliest_deadline_first),
    )


def test_first_example_of_the_textbook() -> None:
    by_rate, _ = simulated(task_set((20, 50), (35, 100)))
    assert scheduling.gantt(by_rate.slices) == "0 P1.1 20 P2.1 50 P1.2 70 P2.1 75"
    assert by_rate.missed() == []


def test_with_the_wrong_priorities_the_first_example_misses_a_deadline() -> None:
    p1, p2 = tasks = task_set((20, 50), (35, 100))

    def longest_period_first(job: Job) -> tuple[int, str]:
        return -job.task.period, job.task.name

    schedule = real_time.simulate(tasks, longest_period_first)
    assert schedule.missed() == [Job(p1, 0)]
    assert (schedule.worst(p1), schedule.worst(p2)) == (55, 35)


def test_second_example_of_the_textbook() -> None:
    _, p2 = tasks = task_set((25, 50), (35, 80))
    by_rate, by_deadline = simulated(tasks)
    assert by_rate.missed() == [Job(p2, 0)]
    assert by_rate.response[Job(p2, 0)] == 85
    assert by_deadline.missed() == []
    assert scheduling.gantt(by_deadline.slices).startswith(
        "0 P1.1 25 P2.1 60 P1.2 85 P2.2 100 P1.3 125 P2.2 145 - 150"
    )
    assert float(real_time.utilization(tasks)) == 0.9375


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(3, 7), (3, 12), (5, 20)], [3, 6, 20]),
        ([(40, 80), (10, 40), (5, 20)], [80, 15, 5]),
        ([(25, 50), (35, 80)], [25, None]),
        ([(5, 4)], [None]),
        ([(4, 4)], [4]),
    ],
)
def test_response_times_by_hand(
    pairs: list[tuple[int, int]], expected: list[int | None]
) -> None:
    tasks = task_set(*pairs)
    assert real_time.response_times(tasks) == expected
    assert real_time.refuted(tasks, *simulated(tasks)) is None


@given(task_sets())
def test_theory_and_simulation_agree(tasks: list[Task]) -> None:
    by_rate, by_deadline = simulated(tasks)
    found = real_time.response_times(tasks)
    assert bool(by_rate.missed()) == (None in found)
    for task, ticks in zip(tasks, found, strict=True):
        if ticks is not None:
            assert by_rate.worst(task) == ticks == by_rate.response[Job(task, 0)]
    assert bool(by_deadline.missed()) == (real_time.utilization(tasks) > 1)
    if real_time.utilization(tasks) <= real_time.liu_layland_bound(len(tasks)):
        assert by_rate.missed() == []


@given(task_sets())
def test_jobs_are_scheduled_as_in_each_tick(tasks: list[Task]) -> None:
    until = real_time.hyperperiod(tasks)
    jobs = [Job(task, at) for task in tasks for at in range(0, until, task.period)]
    given_ = [Process(job.name, job.release, job.task.cost) for job in jobs]
    policies = real_time.rate_monotonic, real_time.earliest_deadline_first
    for policy, schedule in zip(policies, simulated(tasks), strict=True):
        order = [job.name for job in sorted(jobs, key=policy)]
        rank = {name: n for n, name in enumerate(order)}
        assert schedule.slices == tick_by_tick(given_, ranked(rank))
        assert scheduling.violations(given_, schedule.slices) == []


def ranked(rank: dict[str, int]) -> Callable[[Process, int], int]:
    return lambda one, left: rank[one.name]


@given(task_sets(most=3))
def test_no_fixed_priorities_do_better_than_rate_monotonic(tasks: list[Task]) -> None:
    for order in permutations(tasks):
        ranks = {task: n for n, task in enumerate(order)}

        def fixed(job: Job, ranks: dict[Task, int] = ranks) -> tuple[int, str]:
            return ranks[job.task], ""

        if not real_time.simulate(tasks, fixed).missed():
            assert None not in real_time.response_times(tasks)


@pytest.mark.parametrize("n", [1, 2, 3, 50])
def test_the_bound_is_tight(n: int) -> None:
    """Liu and Layland's worst case: periods from 1 to 2, costs their differences."""
    bound = real_time.liu_layland_bound(n)
    periods = [2 ** (k / n) for k in range(n + 1)]
    needed = sum((b - a) / a for a, b in pairwise(periods))
    assert needed == pytest.approx(bound)


def test_values_of_the_bound() -> None:
    bounds = [real_time.liu_layland_bound(n) for n in (1, 2, 3, 10**6)]
    assert bounds == pytest.approx([1, 0.8284, 0.7798, math.log(2)], abs=1e-4)


def test_theory_that_differs_is_told() -> None:
    p1, p2 = tasks = task_set((20, 50), (35, 100))
    by_rate, by_deadline = simulated(tasks)
    late = replace(by_rate, response=by_rate.response | {Job(p2, 0): 101})
    longer = replace(by_rate, response=by_rate.response | {Job(p1, 50): 21})
    assert "whether P2 is late" in str(real_time.refuted(tasks, late, by_deadline))
    told = real_time.refuted(tasks, longer, by_deadline)
    assert told == "P1 takes 21 ticks, not 20"
    assert "EDF misses" in str(real_time.refuted(tasks, by_rate, late))


def test_the_bound_that_differs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = task_set((25, 50), (35, 80))
    monkeypatch.setattr(real_time, "liu_layland_bound", lambda n: 1.0)
    assert "RM misses" in str(real_time.refuted(tasks, *simulated(tasks)))
    with pytest.raises(SystemExit, match="RM misses a deadline"):
        run_main(real_time, monkeypatch)


@pytest.mark.parametrize(
    "tasks",
    [[Task("A", 1, 2), Task("A", 1, 3)], [Task("A", 0, 2)], [Task("A", 1, 0)]],
)
def test_bad_tasks_are_refused(tasks: list[Task]) -> None:
    with pytest.raises(ValueError, match=r"the same name|at least 1"):
        real_time.simulate(tasks, real_time.rate_monotonic)


def test_own_tasks_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(real_time, monkeypatch, "--tasks", "1/4", "2/6", "3/10")
    row = capsys.readouterr().out.splitlines()[2]
    assert row == "1/4 2/6 3/10   0.88   0.78  1 3 10           0 of 31    0 of 31"


def test_the_longest_table_has_its_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_main(real_time, monkeypatch, "--tasks", "9/1", "9/998")
    row = capsys.readouterr().out.splitlines()[2]
    assert row.endswith("  999 of 999 999 of 999")


@pytest.mark.parametrize(
    ("pairs", "until"),
    [
        (real_time.TEXTBOOK_FIRST, 100),
        (real_time.TEXTBOOK_SECOND, 160),
        (real_time.HARMONIC, 8),  # its hyperperiod; after it all would seem idle
        ([(5, 4)], 5),  # what is late is shown
    ],
)
def test_a_picture_ends_where_nothing_more_is_simulated(
    pairs: Sequence[tuple[int, int]],
    until: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure
    drawn: list[Any] = []
    monkeypatch.setattr(figure, "savefig", lambda self, *_, **__: drawn.append(self))
    tasks = task_set(*pairs)
    real_time.plot(
        tasks, dict(zip(("RM", "EDF"), simulated(tasks), strict=True)), tmp_path
    )
    assert [axes.get_xlim() for axes in drawn[0].axes] == [(0, until)] * 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["1"], "must be COST/PERIOD, in ticks: 1"),
        (["1/x"], "must be COST/PERIOD, in ticks: 1/x"),
        (["1/0"], "must be at least 1 tick each: 1/0"),
        (["9/1", "9/999"], "1000 jobs in a hyperperiod, at most 999"),
    ],
)
def test_bad_arguments_are_named(
    arguments: list[str], expected: str, complaint: Callable[..., str]
) -> None:
    assert expected in complaint(real_time, "--tasks", *arguments)
