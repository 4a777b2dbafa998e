"""Chapter 13: readers and writers, and who of them starves."""

import threading
from collections.abc import Callable, Sequence
from types import ModuleType

import example01_readers_first as readers_first
import example02_writers_first as writers_first
import example03_first_come_first_served as first_come
import example04_three_policies_side_by_side as side_by_side
import pytest
import readers_writers
from hypothesis import given, settings
from hypothesis import strategies as st
from readers_writers import (
    Plan,
    Policy,
    ReadersWritersLock,
    Stay,
    Visit,
    anybody,
    play,
)

LIMIT = 10.0  # seconds for what is bound to come

POLICIES: dict[str, Policy] = {"anybody": anybody, **side_by_side.POLICIES}


few = settings(max_examples=30)  # each example starts threads


def guest_names() -> list[str]:
    return [
        thread.name
        for thread in threading.enumerate()
        if isinstance(thread, readers_writers.Guest)
    ]


def named(name: str, stays: Sequence[Stay]) -> Stay:
    return next(stay for stay in stays if stay.name == name)


@st.composite
def plans(draw: st.DrawFn) -> list[Plan]:
    visits = st.tuples(st.booleans(), st.integers(0, 6), st.integers(1, 3))
    drawn = draw(st.lists(visits, max_size=8))
    return [Plan(f"{k}", *visit) for k, visit in enumerate(drawn)]


# -- the lock, and the play


def test_nobody_plans_nothing() -> None:
    assert play([], anybody) == []


@pytest.mark.parametrize("policy", list(POLICIES))
@few
@given(plans=plans())
def test_no_writer_is_ever_beside_anybody(policy: str, plans: list[Plan]) -> None:
    stays = play(plans, POLICIES[policy])
    for one in stays:
        for other in stays:
            if one is not other and (one.writes or other.writes):
                assert one.left <= other.entered or other.left <= one.entered


@pytest.mark.parametrize("policy", list(POLICIES))
@few
@given(plans=plans())
def test_everybody_stays_as_planned(policy: str, plans: list[Plan]) -> None:
    stays = play(plans, POLICIES[policy])
    assert [stay.name for stay in stays] == [plan.name for plan in plans]
    for plan, stay in zip(plans, stays, strict=True):
        assert stay.came == plan.comes <= stay.entered
        assert stay.left == stay.entered + plan.stays


@pytest.mark.parametrize("policy", list(POLICIES))
@few
@given(plans=plans())
def test_overtaken_counts_who_came_later_and_went_in_before(
    policy: str, plans: list[Plan]
) -> None:
    stays = play(plans, POLICIES[policy])
    order = sorted(range(len(stays)), key=lambda n: (stays[n].came, n))
    for place, n in enumerate(order):
        before = sum(stays[m].entered < stays[n].entered for m in order[place + 1 :])
        not_after = sum(
            stays[m].entered <= stays[n].entered for m in order[place + 1 :]
        )
        # Of those who went in in the same tick the play does not tell who was first.
        assert before <= stays[n].overtaken <= not_after


@pytest.mark.parametrize("policy", list(POLICIES))
@few
@given(plans=plans())
def test_the_room_is_not_empty_while_somebody_waits(
    policy: str, plans: list[Plan]
) -> None:
    stays = play(plans, POLICIES[policy])
    for stay in stays:
        for tick in range(stay.came, stay.entered):
            assert any(other.entered <= tick < other.left for other in stays)


def test_readers_overlap_and_a_row_shows_waiting_and_being_inside() -> None:
    stays = play(
        [Plan("a", True, 1, 2), Plan("b", False, 2, 3), Plan("c", False, 2, 1)], anybody
    )
    assert [stay.row() for stay in stays] == [" ##", "  .###", "  .#"]


def test_a_stay_of_no_tick_is_refused_before_anybody_comes() -> None:
    with pytest.raises(ValueError, match="b comes in tick 0 and stays for 0"):
        play([Plan("a", False, 0, 1), Plan("b", False, 0, 0)], anybody)
    assert guest_names() == []


def test_nobody_can_come_before_the_first_tick() -> None:
    with pytest.raises(ValueError, match="a comes in tick -1"):
        play([Plan("a", False, -1, 1)], anybody)


def test_a_policy_that_fails_leaves_nobody_waiting() -> None:
    lock = ReadersWritersLock(lambda visit, waiting: bool(1 // 0))
    with pytest.raises(ZeroDivisionError), lock.inside_for(Visit("a", True)):
        pytest.fail("nobody is let in")
    assert lock.inside == lock.waiting == []


def test_a_policy_that_lets_nobody_in_is_found_out_and_nobody_is_left_behind() -> None:
    with pytest.raises(RuntimeError, match="a is let in by nobody"):
        play([Plan("a", False, 0, 1)], lambda visit, waiting: False)
    for thread in threading.enumerate():
        if isinstance(thread, readers_writers.Guest):
            thread.join(LIMIT)
    assert guest_names() == []


def test_a_block_that_raises_leaves() -> None:
    lock = ReadersWritersLock(anybody)
    with pytest.raises(ZeroDivisionError), lock.inside_for(Visit("a", True)):
        raise ZeroDivisionError
    assert lock.inside == lock.waiting == []


def test_who_is_interrupted_while_it_waits_is_waited_for_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = ReadersWritersLock(first_come.first_come_first_served)
    reader = readers_writers.Guest(lock, Plan("reader", False, 0, 1))
    second = readers_writers.Guest(lock, Plan("second", False, 0, 1))
    reader.come()

    def interrupted(_: Callable[[], bool]) -> bool:
        monkeypatch.undo()
        second.start()
        assert lock.changed.wait_for(lambda: second.visit in lock.waiting, LIMIT)
        raise KeyboardInterrupt

    monkeypatch.setattr(lock.changed, "wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt), lock.inside_for(Visit("writer", True)):
        pytest.fail("a writer is inside beside a reader")
    with lock.changed:
        assert lock.changed.wait_for(lambda: second.visit in lock.inside, LIMIT)
        assert lock.waiting == []
    second.leave()
    reader.leave()


def test_who_is_interrupted_when_it_has_been_let_in_leaves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = ReadersWritersLock(anybody)

    def interrupted(_: Callable[[], bool]) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(lock.changed, "wait_for", interrupted)
    with pytest.raises(KeyboardInterrupt), lock.inside_for(Visit("a", True)):
        pytest.fail("it was interrupted before")
    assert lock.inside == lock.waiting == []


@pytest.mark.parametrize("policy", list(side_by_side.POLICIES))
def test_under_load_writers_lose_nothing(policy: str) -> None:
    lock = ReadersWritersLock(POLICIES[policy])
    pair = [0, 0]
    torn = []

    def write() -> None:
        for _ in range(50):
            with lock.inside_for(Visit("writer", True)):
                pair[0] += 1
                pair[1] += 1

    def read() -> None:
        for _ in range(50):
            with lock.inside_for(Visit("reader", False)):
                if pair[0] != pair[1]:
                    torn.append(tuple(pair))

    threads = [threading.Thread(target=work) for work in (write, read) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (pair, torn) == ([150, 150], [])


# -- example01 to example03


@pytest.mark.parametrize("n", [0, 1, 2, 15])
def test_under_readers_first_the_writer_waits_for_all_readers_that_overlap(
    n: int,
) -> None:
    stays = play(readers_first.overlapping_readers(n), readers_first.readers_first)
    writer = named("writer", stays)
    assert (writer.overtaken, writer.wait) == (n, n + 1)


def test_under_readers_first_readers_go_before_a_writer_who_waits_longer() -> None:
    stays = play(
        [
            Plan("first", True, 0, 2),
            Plan("writer", True, 0, 1),
            Plan("reader", False, 1, 1),
        ],
        readers_first.readers_first,
    )
    assert named("reader", stays).entered < named("writer", stays).entered


@pytest.mark.parametrize("n", [0, 1, 2, 15])
def test_under_writers_first_the_reader_waits_for_all_writers_that_queue_up(
    n: int,
) -> None:
    stays = play(writers_first.queueing_writers(n), writers_first.writers_first)
    reader = named("reader", stays)
    assert (reader.overtaken, reader.wait) == (n, n + 1)


@few
@given(plans=plans())
def test_under_readers_first_no_reader_goes_in_after_a_writer_it_waited_with(
    plans: list[Plan],
) -> None:
    stays = play(plans, readers_first.readers_first)
    for reader in stays:
        for writer in stays:
            if writer.writes and not reader.writes:
                assert not reader.came < writer.entered < reader.entered


@few
@given(plans=plans())
def test_under_writers_first_no_writer_goes_in_after_a_reader_it_waited_with(
    plans: list[Plan],
) -> None:
    stays = play(plans, writers_first.writers_first)
    for reader in stays:
        for writer in stays:
            if writer.writes and not reader.writes:
                assert not writer.came < reader.entered < writer.entered


@few
@given(plans=plans())
def test_first_come_first_served_bounds_each_wait_by_the_queue_ahead(
    plans: list[Plan],
) -> None:
    stays = play(plans, first_come.first_come_first_served)
    order = sorted(range(len(stays)), key=lambda n: (stays[n].came, n))
    for place, n in enumerate(order):
        ahead = [stays[m] for m in order[:place] if stays[m].left > stays[n].came]
        left = sum(other.left - max(other.entered, stays[n].came) for other in ahead)
        assert stays[n].overtaken == 0
        assert stays[n].wait <= left


@pytest.mark.parametrize("behind", [0, 9])
@pytest.mark.parametrize("length", [0, 1, 5])
def test_the_bound_of_first_come_first_served_is_reached(
    length: int, behind: int
) -> None:
    queue = first_come.queue_ahead(length, behind)
    stays = play(queue, first_come.first_come_first_served)
    assert named("last", stays).wait == 2 * length


EXAMPLES = [readers_first, writers_first, first_come]


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_policy_that_serves_in_another_order_is_noticed(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = readers_first.readers_first
    if example is readers_first:
        wrong = first_come.first_come_first_served
    own = example.__name__.partition("_")[2]
    monkeypatch.setattr(example, own, wrong)
    monkeypatch.setattr("sys.argv", ["script"])
    with pytest.raises(SystemExit, match=r"\d+ (readers|writers|others): "):
        example.main()


@pytest.mark.parametrize(
    ("example", "option", "most"),
    [
        (readers_first, "--readers", 60),
        (writers_first, "--writers", 60),
        (first_come, "--others", 30),
    ],
)
def test_numbers_out_of_range_are_refused(
    example: ModuleType, option: str, most: int, complaint: Callable[..., str]
) -> None:
    for number in ("0", f"{most + 1}"):
        assert f"must be in 1 … {most}, not {number}" in complaint(
            example, option, number
        )


# -- example04


def test_the_mean_wait_is_that_of_the_kind_that_is_asked_for() -> None:
    stays = [Stay("r", False, 0, 1, 2, 0), Stay("w", True, 0, 7, 8, 0)]
    assert side_by_side.mean_wait(stays, writes=False) == 1
    assert side_by_side.mean_wait(stays, writes=True) == 7


def test_fairness_is_half_if_one_kind_does_all_the_waiting() -> None:
    waits = [Stay("r", False, 0, 0, 1, 0), Stay("w", True, 0, 7, 8, 0)]
    assert side_by_side.fairness(waits) == pytest.approx(0.5)


def test_fairness_is_one_if_both_wait_alike_or_nobody_does() -> None:
    alike = [Stay("r", False, 0, 3, 4, 0), Stay("w", True, 1, 4, 5, 0)]
    nobody = [Stay("r", False, 0, 0, 1, 0), Stay("w", True, 1, 1, 2, 0)]
    assert side_by_side.fairness(alike) == pytest.approx(1)
    assert side_by_side.fairness(nobody) == pytest.approx(1)


def test_jains_index_is_one_nth_if_one_has_all() -> None:
    assert side_by_side.jain([0, 0, 5, 0]) == pytest.approx(1 / 4)


@pytest.mark.parametrize("name", list(side_by_side.POLICIES))
def test_a_policy_that_does_not_what_its_name_says_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(side_by_side.POLICIES, name, anybody)
    monkeypatch.setattr("sys.argv", ["script"])
    if name == "readers first":  # the same, as readers always find room
        other = first_come.first_come_first_served
        monkeypatch.setitem(side_by_side.POLICIES, name, other)
    with pytest.raises(SystemExit, match=r"before all of the others|not first served"):
        side_by_side.main()


def test_too_few_pairs_are_refused(complaint: Callable[..., str]) -> None:
    assert "must be in 2 … 60, not 1" in complaint(side_by_side, "--pairs", "1")
