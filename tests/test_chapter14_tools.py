"""Chapter 14, outcome tables, race detectors, mends without a lock: what one copies."""

import math
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import permutations
from typing import Any, NoReturn

import example15_outcome_tables as tables
import example16_race_detector as detectors
import example17_nothing_shared_nothing_lost as mends
import pytest
from example16_race_detector import Event, Race
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

LIMIT = 30.0  # seconds that a test waits for what must come


# -- example15


def n_interleavings(steps: list[int]) -> int:
    return math.factorial(sum(steps)) // math.prod(map(math.factorial, steps))


@given(st.lists(st.integers(0, 3), max_size=3))
def test_each_interleaving_comes_once(steps: list[int]) -> None:
    found = list(tables.interleavings(steps))
    assert found == sorted(set(found))
    assert len(found) == n_interleavings(steps)
    everybody = Counter({actor: n for actor, n in enumerate(steps) if n})
    assert all(Counter(order) == everybody for order in found)


def increments_of(order: tuple[int, ...], n_actors: int) -> tuple[int, ...]:
    """Return what increments of two steps return in this order, by a model of them."""
    number, seen = 0, [-1] * n_actors
    results = [0] * n_actors
    for actor in order:
        if seen[actor] < 0:
            seen[actor] = number
        else:
            number = results[actor] = seen[actor] + 1
    return tuple(results)


@pytest.mark.parametrize("n_actors", [2, 3])
def test_counts_are_those_of_a_model(n_actors: int) -> None:
    orders = list(tables.interleavings([2] * n_actors))
    expected = Counter(increments_of(order, n_actors) for order in orders)
    with no_thread_is_left():
        rows = tables.outcomes(
            tables.Shared, [tables.increment] * n_actors, {}, len(orders)
        )
    assert {row.outcome: row.times for row in rows} == expected


def test_an_interleaving_has_one_outcome() -> None:
    stage = tables.Stage([tables.increment, tables.increment])
    try:
        for order in tables.interleavings([2, 2]):
            played = {stage.play(tables.Shared(), order) for _ in range(20)}
            assert played == {increments_of(order, 2)}
    finally:
        stage.close()


def test_trials_are_dealt_in_turn() -> None:
    rows = tables.outcomes(
        tables.Shared, [tables.increment] * 2, tables.INCREMENTS, trials=9
    )
    # The first three of six orders twice: one after the other, and two that lose.
    assert [row.times for row in rows] == [2, 1, 6]


@pytest.mark.parametrize("dealt", [False, True])
def test_each_actor_has_one_thread_for_all_trials(dealt: bool) -> None:
    used: list[set[threading.Thread]] = [set(), set(), set()]

    def actor(number: int) -> tables.Actor[None]:
        def act(_: None, step: tables.Step) -> None:
            used[number].add(threading.current_thread())

        return act

    actors = [actor(number) for number in range(3)]
    tables.outcomes(lambda: None, actors, {}, 30, dealt)
    for threads in used:
        threads.discard(threading.current_thread())  # in which the steps are counted
    assert [len(threads) for threads in used] == [1, 1, 1]
    assert len(set().union(*used)) == 3


def test_a_free_trial_lets_all_run_at_once() -> None:
    both = threading.Barrier(2)

    def meet(_: None, step: tables.Step) -> str:
        step()
        both.wait(LIMIT)  # in a dealt trial the other one would not come
        return "met"

    rows = tables.outcomes(lambda: None, [meet] * 2, {}, 50, dealt=False)
    assert [(row.outcome, row.times) for row in rows] == [(("met", "met"), 50)]


@pytest.mark.parametrize("n_actors", [2, 3])
def test_steps_of_a_critical_section_are_not_interleaved(n_actors: int) -> None:
    log: list[int] = []

    def note(number: int) -> tables.Actor[tables.Shared]:
        def act(_: tables.Shared, step: tables.Step) -> None:
            log.append(number)
            step()
            log.append(number)

        return tables.locked(act)

    actors = [note(number) for number in range(n_actors)]
    trials = n_interleavings([3] * n_actors)  # one before the lock
    tables.outcomes(tables.Shared, actors, {}, trials)
    del log[: 2 * n_actors]  # of the counting
    played = {
        tuple(log[k : k + 2 * n_actors]) for k in range(0, len(log), 2 * n_actors)
    }
    assert played == {
        tuple(number for number in order for _ in range(2))
        for order in permutations(range(n_actors))
    }


def test_what_the_judge_does_not_know_is_forbidden() -> None:
    judge: tables.Judge = {
        (1, 2): ("acceptable", "as it should be"),
        (9, 9): ("interesting", "how?"),
    }
    rows = tables.outcomes(tables.Shared, [tables.increment] * 2, judge, 6)
    assert rows[:2] == [
        ((1, 2), 1, "acceptable", "as it should be"),
        ((9, 9), 0, "interesting", "how?"),
    ]
    assert {row[:3] for row in rows[2:]} == {
        ((1, 1), 4, "forbidden"),
        ((2, 1), 1, "forbidden"),
    }
    assert tables.forbidden(rows) == 5


def test_steps_that_come_only_in_company_are_made_at_the_end() -> None:
    def again_if_not_alone(shared: tables.Shared, step: tables.Step) -> int:
        shared.number += 1
        step()
        for _ in range(shared.number - 1):
            step()
        return shared.number

    rows = tables.outcomes(tables.Shared, [again_if_not_alone] * 2, {}, 6)
    assert {row.outcome: row.times for row in rows} == {(1, 2): 1, (2, 1): 1, (2, 2): 4}


@pytest.mark.parametrize("dealt", [False, True])
@pytest.mark.parametrize("culprit", [0, 1, 2])
def test_what_an_actor_raises_is_told_and_ends_all(dealt: bool, culprit: int) -> None:
    def well(shared: tables.Shared, step: tables.Step) -> None:
        step()
        step()

    def fail(shared: tables.Shared, step: tables.Step) -> None:
        step()
        if threading.current_thread() is not threading.main_thread():
            raise ArithmeticError("cannot go on")

    actors = [well, well, well]
    actors[culprit] = fail
    with no_thread_is_left(), pytest.raises(ArithmeticError) as info:
        tables.outcomes(tables.Shared, actors, {}, 1000, dealt)
    assert info.value.__notes__ == [f"raised by actor {culprit}"]


def test_who_waits_for_a_lock_may_have_it_before_its_last_holder_ends() -> None:
    def hold(shared: tables.Shared, step: tables.Step) -> int:
        step(shared.lock)
        step()
        shared.lock.release()
        step()
        return shared.number

    def write(shared: tables.Shared, step: tables.Step) -> None:
        step(shared.lock)
        shared.number = 1
        shared.lock.release()

    stage = tables.Stage([hold, write])
    try:
        assert stage.play(tables.Shared(), [0, 0, 1, 1, 0, 1, 0]) == (1,)
        assert stage.play(tables.Shared(), [0, 0, 0, 0, 1, 1]) == (0,)
    finally:
        stage.close()


def test_two_who_wait_are_no_deadlock_if_one_has_released_before() -> None:
    first, second = threading.Lock(), threading.Lock()

    def release_then_take(_: None, step: tables.Step) -> str:
        step(first)
        step()
        first.release()
        step(second)  # the other one has it, and may go on
        second.release()
        return "had both"

    def take_both(_: None, step: tables.Step) -> str:
        step(second)
        step()
        step(first)
        first.release()
        second.release()
        return "had both"

    with no_thread_is_left():
        rows = tables.outcomes(lambda: None, [release_then_take, take_both], {}, 70)
    assert [row[:2] for row in rows] == [(("had both", "had both"), 70)]


def test_ctrl_c_between_two_trials_leaves_no_thread() -> None:
    made = []

    def make() -> tables.Shared:
        made.append("state")
        if len(made) == 5:
            raise KeyboardInterrupt
        return tables.Shared()

    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        tables.outcomes(make, [tables.increment] * 2, {}, 100)


def test_a_trial_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LIMIT", 0.02)
    go_on = threading.Event()

    def hang(_: None, step: tables.Step) -> None:
        go_on.wait(LIMIT)

    stage = tables.Stage([hang])
    try:
        with pytest.raises(TimeoutError, match=r"more than 0\.02 s"):
            stage.play(None, order=None)
    finally:
        go_on.set()
        stage.close()


def wait_for_a_lock_that_is_held(order: list[int] | None) -> None:
    lock = threading.Lock()
    lock.acquire()
    stage = tables.Stage([lambda _, step: step(lock)])
    try:
        stage.play(None, order)
    finally:
        stage.close()


def test_a_lock_that_is_never_released_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with no_thread_is_left(), pytest.raises(RuntimeError, match="all wait for locks"):
        wait_for_a_lock_that_is_held(order=[0])
    monkeypatch.setattr(tables, "LIMIT", 0.02)
    with pytest.raises(TimeoutError):
        wait_for_a_lock_that_is_held(order=None)


def test_locks_in_two_orders_come_to_a_deadlock() -> None:
    def both(first: int, second: int) -> tables.Actor[list[threading.Lock]]:
        def take(locks: list[threading.Lock], step: tables.Step) -> None:
            for n in (first, second):
                step(locks[n])
            for n in (first, second):
                locks[n].release()

        return take

    def make() -> list[threading.Lock]:
        return [threading.Lock(), threading.Lock()]

    with no_thread_is_left(), pytest.raises(RuntimeError, match="all wait for locks"):
        tables.outcomes(make, [both(0, 1), both(1, 0)], {}, 20)
    rows = tables.outcomes(make, [both(0, 1), both(0, 1)], {(): ("good", "")}, 20)
    assert [(row.outcome, row.times) for row in rows] == [((), 20)]


def test_an_actor_that_waits_for_itself_is_told() -> None:
    def take_twice(shared: tables.Shared, step: tables.Step) -> None:
        step(shared.lock)
        step(shared.lock)

    with no_thread_is_left(), pytest.raises(RuntimeError, match="actor alone waits"):
        tables.outcomes(tables.Shared, [take_twice] * 2, {}, 100)


def test_a_check_before_the_lock_is_found_out() -> None:
    def make_too_late(shared: tables.Shared, step: tables.Step) -> str:
        if "it" in shared.objects:
            return "found"
        step(shared.lock)  # the other one misses it, too
        shared.objects["it"] = object()
        shared.lock.release()
        return "made"

    actors = [make_too_late] * 2
    rows = tables.outcomes(tables.Shared, actors, tables.MAKINGS, 20)
    assert tables.forbidden(rows) > 0


def test_there_are_to_be_enough_trials_for_all_interleavings() -> None:
    with no_thread_is_left(), pytest.raises(ValueError, match="more than 5"):
        tables.outcomes(tables.Shared, [tables.increment] * 2, {}, 5)


@pytest.mark.parametrize("trials", ["5", "10001", "many"])
def test_trials_have_their_limits(complaint: Callable[..., str], trials: str) -> None:
    assert "--trials" in complaint(tables, "--trials", trials)


@pytest.mark.parametrize("n", range(4))
def test_a_race_that_does_not_show_is_told(
    monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    name, _, mended, judge = tables.RACES[n]
    monkeypatch.setattr(tables, "RACES", [(name, mended, mended, judge)])
    with pytest.raises(SystemExit, match="the race was to show"):
        run_main(tables, monkeypatch, "--trials", "20")


@pytest.mark.parametrize("n", range(4))
def test_a_mend_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    name, broken, _, judge = tables.RACES[n]
    monkeypatch.setattr(tables, "RACES", [(name, broken, broken, judge)])
    with pytest.raises(SystemExit, match="and nothing else"):
        run_main(tables, monkeypatch, "--trials", "20")


def test_an_outcome_that_nobody_has_thought_of_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, broken, mended, judge = tables.RACES[0]
    known = {outcome: judge[outcome] for outcome in [(1, 2), (2, 1)]}
    monkeypatch.setattr(tables, "RACES", [(name, broken, mended, known)])
    with pytest.raises(SystemExit, match=r"thought of \(1, 1\)"):
        run_main(tables, monkeypatch, "--trials", "20")


# -- example16

USES = ("read", "write")


@st.composite
def logs(draw: st.DrawFn) -> list[Event]:
    """Draw what three threads do, in an order in which they can: locks exclude."""
    log = []
    holders: dict[str, str] = {}
    for _ in range(draw(st.integers(0, 25))):
        thread = draw(st.sampled_from("ABC"))
        kind = draw(st.sampled_from(["use", "use", "lock", "send", "receive"]))
        if kind == "use":
            variable = draw(st.sampled_from("xy"))
            log.append(Event(thread, draw(st.sampled_from(USES)), variable))
        elif kind == "lock":
            lock = draw(st.sampled_from("kl"))
            if holders.setdefault(lock, thread) != thread:
                continue
            held = Event(thread, "acquire", lock) in log
            held = held and [e for e in log if e.what == lock][-1].kind == "acquire"
            log.append(Event(thread, "release" if held else "acquire", lock))
            if held:
                del holders[lock]
        else:
            token = draw(st.sampled_from("st"))
            log.append(Event(thread, "send" if kind == "send" else "receive", token))
    return log


def what_is_ordered(log: list[Event]) -> set[tuple[int, int]]:
    """Return the pairs of which one happens before the other, by reachability."""
    passes_on = {("release", "acquire"), ("send", "receive")}
    before: list[set[int]] = []
    for k, event in enumerate(log):
        found: set[int] = set()
        for j in range(k):
            handed = (log[j].kind, event.kind) in passes_on
            if log[j].thread == event.thread or (handed and log[j].what == event.what):
                found |= {j} | before[j]
        before.append(found)
    return {(j, k) for k, found in enumerate(before) for j in found}


def conflicts(log: list[Event]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of uses that are a race if nothing orders them."""
    for k, later in enumerate(log):
        for j, earlier in enumerate(log[:k]):
            kinds = {earlier.kind, later.kind}
            if (
                kinds <= set(USES)
                and "write" in kinds
                and earlier.what == later.what
                and earlier.thread != later.thread
            ):
                yield j, k


def numbered(log: list[Event]) -> list[Event]:
    """Give each event a place of its own, so that races can be told apart."""
    return [event._replace(where=str(k)) for k, event in enumerate(log)]


def pairs(races: Iterator[Race]) -> list[tuple[int, int]]:
    return [(int(race.earlier.where), int(race.later.where)) for race in races]


@given(logs())
def test_happens_before_finds_what_nothing_orders(log: list[Event]) -> None:
    ordered = what_is_ordered(log)
    races = {pair for pair in conflicts(log) if pair not in ordered}
    found = pairs(detectors.by_happens_before(numbered(log)))
    assert len(found) == len(set(found))
    assert set(found) <= races

    def seen_from(pair: tuple[int, int]) -> tuple[str, str, int]:
        return log[pair[0]].thread, log[pair[0]].kind, pair[1]

    # Of the earlier uses of one thread and kind, only the last one is told.
    assert {*map(seen_from, found)} == {*map(seen_from, races)}


def test_the_last_earlier_use_is_told() -> None:
    log = numbered([Event("A", "write", "x")] * 3 + [Event("B", "read", "x")])
    assert pairs(detectors.by_happens_before(log)) == [(2, 3)]


def lockset_by_definition(log: list[Event]) -> dict[object, int]:
    """Return for each variable that no lock guards the use at which that shows."""
    held: dict[str, set[object]] = {thread: set() for thread in "ABC"}
    uses: dict[object, list[tuple[int, Event, set[object]]]] = {"x": [], "y": []}
    for k, event in enumerate(log):
        if event.kind == "acquire":
            held[event.thread].add(event.what)
        elif event.kind == "release":
            held[event.thread].remove(event.what)
        elif event.kind in USES:
            uses[event.what].append((k, event, {*held[event.thread]}))
    shows = {}
    for what, all_uses in uses.items():
        shared = [n for n, use in enumerate(all_uses) if use[1][0] != all_uses[0][1][0]]
        since = all_uses[shared[0] :] if shared else []
        for n, (k, _, _) in enumerate(since, 1):
            written = any(event.kind == "write" for _, event, _ in since[:n])
            if written and not set.intersection(*(locks for _, _, locks in since[:n])):
                shows[what] = k
                break
    return shows


@given(logs())
def test_lockset_finds_what_no_lock_guards(log: list[Event]) -> None:
    found = pairs(detectors.by_lockset(numbered(log)))
    shows = {log[later].what: later for _, later in found}
    assert len(found) == len(shows)
    assert shows == lockset_by_definition(log)
    for earlier, later in found:
        others = [
            k
            for k, event in enumerate(log[:later])
            if event.what == log[later].what and event.thread != log[later].thread
        ]
        assert earlier == others[-1]


@given(logs())
def test_with_locks_alone_happens_before_finds_no_more_than_lockset(
    log: list[Event],
) -> None:
    """What one lock guards is ordered by it, once the variable is shared."""
    log = [event for event in log if event.kind not in ("send", "receive")]
    guarded = {"x", "y"} - {race.later.what for race in detectors.by_lockset(log)}
    shared_at: dict[object, int] = {}
    for variable in guarded:
        uses = [k for k, event in enumerate(log) if event.what == variable]
        others = [k for k in uses if log[k].thread != log[uses[0]].thread]
        shared_at[variable] = others[0] if others else len(log)
    for earlier, later in pairs(detectors.by_happens_before(numbered(log))):
        if (what := log[later].what) in guarded:
            # Lockset has missed it, and takes the earlier one for initialisation.
            assert earlier < shared_at[what] <= later


def test_a_race_is_told_with_both_threads_and_places() -> None:
    race = Race(Event("A", "write", "n", "deposit"), Event("B", "read", "n", "audit"))
    assert str(race) == "n: A writes in deposit / B reads in audit"


def test_traced_objects_note_who_does_what_where() -> None:
    recorder = detectors.Recorder()
    variable = detectors.TracedVariable(recorder, "n", 1)
    lock = detectors.TracedLock(recorder)

    def use() -> None:
        with lock:
            variable.set(variable.get() + 1)

    thread = detectors.TracedThread(recorder, "T", use)
    thread.start()
    thread.join(LIMIT)
    assert (variable.untraced, thread.error) == (2, None)
    me = threading.current_thread().name
    assert [event[:2] for event in recorder.log] == [
        (me, "send"),
        ("T", "receive"),
        *[("T", kind) for kind in ("acquire", "read", "write", "release", "send")],
        (me, "receive"),
    ]
    assert {event.where for event in recorder.log[2:6]} == {"use"}
    assert recorder.log[0].what == recorder.log[1].what
    assert recorder.log[6].what == recorder.log[7].what


def test_start_and_join_order_what_the_threads_do() -> None:
    recorder = detectors.Recorder()
    variable = detectors.TracedVariable(recorder, "n", 0)
    for number in range(3):
        variable.set(variable.get() + 1)
        thread = detectors.TracedThread(
            recorder, f"T{number}", lambda: variable.set(variable.get() + 1)
        )
        thread.start()
        thread.join(LIMIT)
    assert variable.get() == 6
    assert not list(detectors.by_happens_before(recorder.log))


def test_who_has_not_been_joined_is_not_ordered() -> None:
    recorder = detectors.Recorder()
    variable = detectors.TracedVariable(recorder, "n", 0)
    go_on = threading.Event()

    def use() -> None:
        variable.set(1)
        go_on.wait(LIMIT)

    thread = detectors.TracedThread(recorder, "T", use)
    thread.start()
    thread.join(timeout=0)
    variable.get()
    go_on.set()
    thread.join(LIMIT)
    races = list(detectors.by_happens_before(recorder.log))
    assert [race.later.what for race in races] == ["n"]


def test_each_item_of_a_queue_orders_its_own_giver_and_taker() -> None:
    recorder = detectors.Recorder()
    items: detectors.TracedQueue[int] = detectors.TracedQueue(recorder)
    items.put(1)
    items.put(2)
    assert [items.get(), items.get()] == [1, 2]
    kinds = [event.kind for event in recorder.log]
    assert kinds == ["send", "send", "receive", "receive"]
    tokens = [event.what for event in recorder.log]
    assert tokens[:2] == tokens[2:]
    assert tokens[0] != tokens[1]


def test_what_a_traced_job_raises_is_raised() -> None:
    def fail(site: detectors.Site) -> NoReturn:
        raise ArithmeticError("cannot count")

    with no_thread_is_left(), pytest.raises(ArithmeticError):
        detectors.record(fail, detectors.count_click, "chance")


def run_instead(
    monkeypatch: pytest.MonkeyPatch, first: detectors.Job, second: detectors.Job
) -> None:
    """Demonstrate with one run, of two jobs that overlap."""
    run = ("in vain", first, second, "none", False, ("nothing", "nothing"))
    monkeypatch.setattr(detectors, "RUNS", [run])
    run_main(detectors, monkeypatch)


def test_a_job_whose_partner_breaks_off_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def break_off(site: detectors.Site) -> None:
        site.both_have_read.abort()

    with no_thread_is_left(), pytest.raises(SystemExit, match="BrokenBarrierError"):
        run_instead(monkeypatch, detectors.in_halves, break_off)


def test_ctrl_c_before_the_second_thread_starts_releases_the_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(detectors, "LIMIT", 1000.0)  # the first does not wait for that
    plain = detectors.TracedThread.start

    def start(self: detectors.TracedThread) -> None:
        if self.name == "B":
            raise KeyboardInterrupt
        plain(self)

    monkeypatch.setattr(detectors.TracedThread, "start", start)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        detectors.record(detectors.in_halves, detectors.in_halves, "none")


def test_a_job_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "LIMIT", 0.02)
    go_on = threading.Event()
    hanging: list[threading.Thread] = []

    def hang(site: detectors.Site) -> None:
        hanging.append(threading.current_thread())
        go_on.wait(LIMIT)

    with pytest.raises(SystemExit, match="thread A has not ended"):
        run_instead(monkeypatch, hang, detectors.count_click)
    go_on.set()
    for thread in hanging:
        threading.Thread.join(thread, LIMIT)
        assert not thread.is_alive()


@pytest.mark.parametrize("detector", ["by_lockset", "by_happens_before"])
@pytest.mark.parametrize("blind", [False, True])
def test_a_detector_that_errs_is_told(
    monkeypatch: pytest.MonkeyPatch, detector: str, blind: bool
) -> None:
    alarm = Race(Event("A", "write", "n"), Event("B", "write", "n"))
    monkeypatch.setattr(detectors, detector, lambda log: [] if blind else [alarm])
    with pytest.raises(SystemExit, match="was to be found"):
        run_main(detectors, monkeypatch)


def test_a_counter_that_goes_wrong_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = detectors.TracedVariable.set

    def lose(self: Any, value: int) -> None:
        plain(self, 7)

    monkeypatch.setattr(detectors.TracedVariable, "set", lose)
    with pytest.raises(SystemExit, match="not to be 7"):
        run_main(detectors, monkeypatch)


# -- example17

N_THREADS = [2, 3, 8]


@pytest.mark.parametrize("n", N_THREADS)
def test_one_addition_to_a_shared_number_is_left(n: int) -> None:
    counter = mends.Counter()
    with no_thread_is_left():
        assert mends.count(counter, n) == [1] * n
    assert counter.value == 1
    assert mends.count_in_dict(n) == 1


@pytest.mark.parametrize("n", N_THREADS)
def test_a_number_for_each_thread_is_seen_by_no_other(n: int) -> None:
    counter = mends.OwnCounter()
    counter.add(5, between=lambda: None)
    assert mends.count(counter, n) == [1] * n
    assert counter.value == 5


@pytest.mark.parametrize("n", N_THREADS)
def test_an_owner_loses_nothing(n: int) -> None:
    with no_thread_is_left():
        assert mends.count_by_owner(n) == n


@pytest.mark.parametrize("n", N_THREADS)
def test_half_a_move_is_seen_unless_a_tuple_is_exchanged(n: int) -> None:
    assert mends.points_seen(n, whole=False) == [((1, 0), (1, 1))] * (n - 1)
    assert mends.points_seen(n, whole=True) == [((0, 0), (1, 1))] * (n - 1)


@pytest.mark.parametrize("n", N_THREADS)
def test_single_calls_lose_nothing(n: int) -> None:
    assert mends.numbers_given(n) == n * mends.ROUNDS
    assert mends.items_kept([], n) == mends.items_kept(deque(), n) == n * mends.ROUNDS
    assert mends.rounds_with_one_object(n) == mends.ROUNDS
    assert mends.jobs_done_once(n) == mends.ROUNDS


def test_a_round_begins_when_all_have_ended_the_one_before() -> None:
    log: list[int] = []
    rounds = mends.all_at_once(lambda number: log.append(number), 3)
    assert len(rounds) == mends.ROUNDS
    assert sorted(log) == [number for number in range(mends.ROUNDS) for _ in range(3)]
    assert all(late - early < 2 for early, late in zip(log, sorted(log), strict=True))


def test_results_come_in_the_order_of_the_jobs() -> None:
    jobs = [lambda meet, n=n: (meet(), n)[1] for n in range(5)]
    assert mends.in_threads(jobs) == list(range(5))


@pytest.mark.parametrize("culprit", range(3))
def test_a_job_that_fails_ends_those_that_wait_for_it(
    monkeypatch: pytest.MonkeyPatch, culprit: int
) -> None:
    monkeypatch.setattr(mends, "LIMIT", 1000.0)  # the others do not wait for that

    def wait(meet: mends.Meet) -> None:
        meet()

    def fail(meet: mends.Meet) -> None:
        raise ArithmeticError("cannot come")

    jobs = [wait, wait, wait]
    jobs[culprit] = fail
    with no_thread_is_left(), pytest.raises(ArithmeticError):
        mends.in_threads(jobs)


def test_ctrl_c_before_all_have_started_releases_those_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mends, "LIMIT", 1000.0)  # they do not wait for that

    class Interrupted(ThreadPoolExecutor):
        submitted = 0

        def submit(self, *args: Any, **kwargs: Any) -> Any:
            self.submitted += 1
            if self.submitted == 3:
                raise KeyboardInterrupt
            return super().submit(*args, **kwargs)

    monkeypatch.setattr(mends, "ThreadPoolExecutor", Interrupted)
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        mends.in_threads([lambda meet: meet()] * 4)


def test_threads_do_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mends, "LIMIT", 0.02)
    with pytest.raises(threading.BrokenBarrierError):
        mends.in_threads([lambda meet: meet(), lambda meet: None])
    monkeypatch.setattr(mends, "count", lambda counter, n: mends.in_threads([meet_me]))
    with pytest.raises(SystemExit, match="have not met"):
        run_main(mends, monkeypatch)


def meet_me(meet: mends.Meet) -> NoReturn:
    raise threading.BrokenBarrierError


@pytest.mark.parametrize("threads", ["1", "51", "some"])
def test_threads_have_their_limits(complaint: Callable[..., str], threads: str) -> None:
    assert "--threads" in complaint(mends, "--threads", threads)


class Locked(mends.Counter):
    """A counter that is not in the interleaving: it meets first, then adds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def add(self, amount: int, between: Callable[[], object]) -> None:
        between()
        with self._lock:
            super().add(amount, lambda: None)


WRONG = {
    "Counter": (Locked, "read, then write"),
    "OwnCounter": (mends.Counter, "threading.local"),
    "count_by_owner": (mends.count_in_dict, "one owner"),
    "points_seen": (lambda n, whole: [], "write x, then y"),
    "numbers_given": (lambda n: n, "next"),
    "items_kept": (lambda items, n: n, "list.append"),
    "rounds_with_one_object": (lambda n: 0, "dict.setdefault"),
    "jobs_done_once": (lambda n: 0, "dict.pop"),
    "count_in_dict": (lambda n: n, "dict.get"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_result_that_is_not_as_told_ends_the_demonstration(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    instead, row = WRONG[name]
    monkeypatch.setattr(mends, "ROUNDS", 2)
    monkeypatch.setattr(mends, name, instead)
    with pytest.raises(SystemExit, match=f"^{row}.*was to be the result"):
        run_main(mends, monkeypatch)
