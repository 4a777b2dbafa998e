"""Chapter 12: deadlocks seen, and philosophers who eat all the same."""

import math
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count, islice
from pathlib import Path
from types import ModuleType, SimpleNamespace

import dining_table as tables
import example01_two_locks_two_orders as seeing
import example02_two_locks_one_order as ordering
import example03_dining_philosophers_deadlock as starving
import example04_ordered_acquisition as ranks
import example05_what_lock_order_costs as costs
import example06_one_after_the_other as serving
import example07_without_locks as unlocked
import example09_back_off_with_jitter as backing
import example10_waiter as waiters
import example11_chandy_misra as dirty
import example12_philosophers_side_by_side as side_by_side
import example19_coffman_conditions as conditions
import pytest
from example01_two_locks_two_orders import (
    Account,
    Attempt,
    DeadlockError,
    Watch,
    WatchedLock,
)
from example04_ordered_acquisition import LockOrderError, RankedLock
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 10.0  # seconds, for what should never take that long


def join(*attempts: Attempt) -> None:
    for attempt in attempts:
        attempt.join(LIMIT)
        assert not attempt.is_alive()


def started(name: str, function: Callable[[], object]) -> Attempt:
    attempt = Attempt(name, function)
    attempt.start()
    return attempt


# -- example01


def take(*locks: WatchedLock, between: Callable[[], object] = lambda: None) -> None:
    with ExitStack() as stack:
        for number, lock in enumerate(locks):
            if number:
                between()
            stack.enter_context(lock)


@pytest.mark.parametrize("n", range(1, 11))
def test_a_cycle_of_any_length_is_seen_and_ended_by_one(n: int) -> None:
    watch = Watch()
    locks = [watch.lock(f"lock {number}") for number in range(n)]
    all_hold_one = threading.Barrier(n, timeout=LIMIT)
    attempts = [
        started(
            f"{k}",
            partial(take, locks[k], locks[(k + 1) % n], between=all_hold_one.wait),
        )
        for k in range(n)
    ]
    cycle = watch.deadlock(LIMIT)
    assert cycle == [
        seeing.Wait(f"{k}", f"lock {(k + 1) % n}", f"{(k + 1) % n}") for k in range(n)
    ]
    watch.give_up(f"{n - 1}")
    join(*attempts)
    assert isinstance(attempts[-1].error, DeadlockError)
    assert not any(attempt.error for attempt in attempts[:-1])
    assert watch.deadlock(0) == []
    assert all(lock.holder is None for lock in locks)


def test_who_waits_for_a_cycle_is_not_in_it() -> None:
    watch = Watch()
    a, b = watch.lock("a"), watch.lock("b")
    both, go_on = threading.Barrier(3, timeout=LIMIT), threading.Event()

    def between() -> None:
        both.wait()
        go_on.wait(LIMIT)

    others = [
        started("1", partial(take, a, b, between=between)),
        started("2", partial(take, b, a, between=between)),
    ]
    both.wait()
    outsider = started("0", partial(take, a))
    assert watch.until_waiting(1, LIMIT)
    go_on.set()
    assert [wait.thread for wait in watch.deadlock(LIMIT)] == ["1", "2"]
    watch.give_up("2")
    join(outsider, *others)
    assert outsider.error is None


def test_a_chain_of_waits_is_no_deadlock() -> None:
    watch = Watch()
    a, b, c = (watch.lock(name) for name in "abc")
    with c:
        first = started("1", partial(take, b, c))
        assert watch.until_waiting(1, LIMIT)
        second = started("2", partial(take, a, b))
        assert watch.until_waiting(2, LIMIT)
        assert watch.deadlock(0) == []
        assert not watch.until_waiting(3, 0)
    join(first, second)
    assert first.error is None
    assert second.error is None


def test_a_lock_goes_to_whoever_has_waited_longest() -> None:
    watch = Watch()
    lock = watch.lock("lock")
    got: list[int] = []

    def note(number: int) -> None:
        with lock:
            got.append(number)
            assert watch.deadlock(0) == []  # who holds it does not wait for it any more

    attempts = []
    with lock:
        for number in range(5):
            attempts.append(started(f"{number}", partial(note, number)))
            assert watch.until_waiting(number + 1, LIMIT)
        watch.give_up("2")
        assert lock.holder is threading.current_thread()
    join(*attempts)
    assert got == [0, 1, 3, 4]
    errors = [attempt.error for attempt in attempts if attempt.error is not None]
    assert list(map(str, errors)) == ["2 gives up waiting for lock"]


def test_only_who_waits_can_give_up_and_only_the_holder_release() -> None:
    watch = Watch()
    lock = watch.lock("lock")
    with pytest.raises(ValueError, match="nobody does not wait"):
        watch.give_up("nobody")
    with pytest.raises(RuntimeError, match="lock is not held by this thread"):
        lock.release()
    with lock:
        stranger = started("stranger", lock.release)
        join(stranger)
        assert isinstance(stranger.error, RuntimeError)
        assert lock.holder is threading.current_thread()


@pytest.mark.parametrize("handed_over", [False, True])
def test_an_interrupted_wait_leaves_the_lock_to_others(
    handed_over: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    lock = watch.lock("lock")
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            assert let_go.wait(LIMIT)

    class Gate:
        closed = False

        def acquire(self) -> None:
            if self.closed:
                if handed_over:
                    let_go.set()
                    join(holder)
                raise KeyboardInterrupt
            self.closed = True

        def release(self) -> None:
            assert handed_over

    holder = started("holder", hold)
    assert held.wait(LIMIT)
    fake = SimpleNamespace(Lock=Gate, current_thread=threading.current_thread)
    monkeypatch.setattr(seeing, "threading", fake)
    with pytest.raises(KeyboardInterrupt):
        lock.acquire()
    monkeypatch.undo()
    assert lock.holder is (None if handed_over else holder)
    assert (watch.waits, lock.waiting) == ({}, {})
    let_go.set()
    join(holder)
    join(started("next", partial(take, lock)))
    assert lock.holder is None


def test_what_a_thread_raises_is_raised_where_it_is_joined(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    seeing.join_all([started("fine", lambda: None)])
    with pytest.raises(ZeroDivisionError):
        seeing.join_all([started("fine", lambda: None), started("failing", fail)])
    monkeypatch.setattr(seeing, "LIMIT", 0.01)
    enough = threading.Event()
    with pytest.raises(TimeoutError, match="thread slow has not ended"):
        seeing.join_all([slow := started("slow", lambda: enough.wait(LIMIT))])
    enough.set()
    join(slow)


def test_a_demonstration_without_a_deadlock_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seeing, "LIMIT", 0.1)
    monkeypatch.setattr(seeing, "transfer", lambda *_: None)
    with pytest.raises(SystemExit, match="were to wait for each other"):
        seeing.main()


# -- example02


def test_both_transfers_are_made_at_the_fatal_moment() -> None:
    watch = Watch()
    accounts = ordering.new_accounts(watch)
    attempts = ordering.fatal_moment(ordering.transfer_in_order, watch, accounts)
    join(*attempts)
    assert [attempt.error for attempt in attempts] == [None, None]
    assert [account.balance for account in accounts] == [120, 80, 100]
    assert watch.deadlock(0) == []


def test_a_transfer_to_itself_is_refused_and_moves_nothing() -> None:
    account, other = ordering.new_accounts(Watch(), 2)
    with pytest.raises(ValueError, match="account 1 cannot transfer to itself"):
        ordering.transfer_in_order(account, account, 5)
    assert account.balance == ordering.BALANCE
    ordering.transfer_in_order(other, account, 5)
    assert (account.balance, other.balance) == (105, 95)


def test_a_mend_that_does_not_mend_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ordering, "LIMIT", 0.2)
    monkeypatch.setattr(ordering, "transfer_in_order", seeing.transfer)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match="in the order of numbers"):
        ordering.main()


def test_a_transfer_that_moves_nothing_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lock_only(
        source: Account,
        target: Account,
        amount: int,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        ordered = sorted((source, target), key=lambda account: account.number)
        with ordered[0].lock:
            between()
            with ordered[1].lock:
                pass

    monkeypatch.setattr(ordering, "transfer_in_order", lock_only)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match="both were to be made: 100, 100"):
        ordering.main()


def test_a_transfer_that_is_lost_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    transfers = ordering.transfer_at_random
    calls = count()

    def lose_one(accounts: Sequence[Account], times: int, seed: int) -> None:
        transfers(accounts, times - (next(calls) == 0), seed)

    monkeypatch.setattr(ordering, "transfer_at_random", lose_one)
    monkeypatch.setattr(sys, "argv", ["script", "--threads", "1", "--transfers", "4"])
    with pytest.raises(SystemExit, match="are not what one thread alone makes of them"):
        ordering.main()


# -- example03


@pytest.mark.parametrize("n", [2, 3, 20])
def test_philosophers_starve_and_one_who_gives_up_lets_the_others_eat(
    n: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["script", "--philosophers", str(n)])
    starving.main()
    printed = capsys.readouterr().out
    assert f"a cycle of {n}; nobody eats" in printed
    assert " ".join(map(str, range(n - 1, 0, -1))) in printed


def test_who_starves_not_fails_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    def eat(table: starving.LeftForkFirst, philosopher: int) -> None:
        table.eaten.append(philosopher)

    monkeypatch.setattr(starving.LeftForkFirst, "eat", eat)
    monkeypatch.setattr(starving, "LIMIT", 0.1)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match="was to wait for the next one"):
        starving.main()


# -- dining_table


@pytest.mark.parametrize("n", [2, 3, 5])
def test_neighbours_and_only_they_may_not_eat_together(n: int) -> None:
    for one in range(n):
        for other in range(n):
            table = tables.Table(n)
            if (other - one) % n in {1, n - 1}:
                with (
                    pytest.raises(
                        tables.NeighboursError, match=f"^{other} eats beside {one}$"
                    ),
                    table.meal(one),
                    table.meal(other),
                ):
                    raise AssertionError
                assert table.meals[one] == 1
                assert table.meals[other] == 0
            elif other != one:
                with table.meal(one), table.meal(other):
                    assert table.together == 2


def test_one_alone_is_no_table() -> None:
    with pytest.raises(ValueError, match="2 at least, not 1"):
        tables.Table(1)


def test_jains_index_of_known_shares() -> None:
    assert tables.jain([3, 3, 3]) == 1
    assert tables.jain([1, 0, 0, 0]) == 0.25
    assert tables.jain([0, 0]) == 1
    assert tables.jain([1, 2]) == pytest.approx(0.9)


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=20))
def test_jains_index_is_between_one_nth_and_one(shares: list[float]) -> None:
    index = tables.jain(shares)
    assert 1 / len(shares) - 1e-9 <= index <= 1 + 1e-9


def test_a_dinner_without_forks_is_found_out() -> None:
    all_eat = threading.Barrier(5, timeout=LIMIT)

    @contextmanager
    def eating(_: int) -> Iterator[None]:
        all_eat.wait()
        yield

    stop = threading.Event()
    with pytest.raises(tables.NeighboursError):
        tables.dine(5, 1, eating, lambda: stop.wait(0.05))


def test_a_dinner_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LIMIT", 0.2)
    full = threading.Event()

    @contextmanager
    def eating(philosopher: int) -> Iterator[None]:
        if philosopher == 1:
            full.wait(LIMIT)
        with lock:
            yield

    lock = threading.Lock()
    with pytest.raises(TimeoutError, match=r"still hungry after 0.2 s: 1"):
        tables.dine(3, 2, eating, lambda: None)
    full.set()


def test_what_a_meal_raises_ends_the_dinner() -> None:
    lock = threading.Lock()

    def eat() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        tables.dine(4, 10, lambda _: lock, eat)
    assert lock.acquire(blocking=False)


def test_who_still_eats_is_seen_when_another_has_ended() -> None:
    table = tables.Table(4)
    with table.meal(2):
        with table.meal(0):
            pass
        with (
            pytest.raises(tables.NeighboursError, match="1 eats beside 2"),
            table.meal(1),
        ):
            raise AssertionError


def test_fairness_is_what_all_have_had_when_the_first_is_done() -> None:
    threads: dict[int, threading.Thread] = {}
    first_is_there = threading.Event()
    lock = threading.Lock()

    @contextmanager
    def eating(philosopher: int) -> Iterator[None]:
        threads[philosopher] = threading.current_thread()
        if philosopher:
            first_is_there.wait(LIMIT)
            threads[0].join(LIMIT)
        first_is_there.set()
        with lock:
            yield

    dinner = tables.dine(4, 3, eating, lambda: None)
    assert (dinner.meals, dinner.together) == (12, 1)
    assert dinner.fairness == 0.25


# -- example04


def test_ranks_go_up_only() -> None:
    low, high = RankedLock(1, "low"), RankedLock(2, "high")
    with low, high:
        pass
    with high:
        with pytest.raises(
            LockOrderError, match=r"low \(rank 1\) after high \(rank 2\)"
        ):
            low.acquire()
        with pytest.raises(LockOrderError):
            low.acquire(blocking=False)
        with pytest.raises(LockOrderError):
            high.acquire()  # itself
        with pytest.raises(LockOrderError):
            RankedLock(2, "another").acquire()
        with pytest.raises(LockOrderError):
            RankedLock(math.nan).acquire()
    with low:
        pass


def test_each_thread_has_ranks_of_its_own() -> None:
    low, high = RankedLock(1), RankedLock(2)
    with high:
        other = started("other", low.acquire)
        join(other)
        assert other.error is None
        assert low._lock.locked()


def test_a_lock_is_released_by_who_holds_it_in_any_order() -> None:
    low, high, twin = RankedLock(1), RankedLock(2), RankedLock(2)
    with pytest.raises(RuntimeError, match=r"lock \(rank 1\) is not held by this"):
        low.release()
    low.acquire()
    high.acquire()
    with pytest.raises(RuntimeError, match="not held"):
        twin.release()  # has the same rank as one that is held
    stranger = started("stranger", low.release)
    join(stranger)
    assert isinstance(stranger.error, RuntimeError)
    low.release()
    high.release()
    with low, high:
        pass


def test_a_lock_that_is_not_had_leaves_no_rank() -> None:
    low, high = RankedLock(1), RankedLock(2)
    held, enough = threading.Event(), threading.Event()

    def keep() -> None:
        with high:
            held.set()
            enough.wait(LIMIT)

    keeper = started("keeper", keep)
    assert held.wait(LIMIT)
    assert not high.acquire(blocking=False)
    assert not high.acquire(timeout=0.001)
    with low:  # would fail if the rank of `high` had been noted
        enough.set()
    join(keeper)


def test_all_or_none_are_held() -> None:
    one, two, three = (RankedLock(rank) for rank in (1, 2, 3))
    with ranks.holding(three, one), pytest.raises(LockOrderError):
        two.acquire()
    with two, pytest.raises(LockOrderError), ranks.holding(three, one):
        raise AssertionError
    with pytest.raises(ZeroDivisionError), ranks.holding(one, two, three):
        raise ZeroDivisionError
    with pytest.raises(LockOrderError), ranks.holding(one, one):
        raise AssertionError
    with ranks.holding(), ranks.holding(three, two, one):
        pass


# -- all ways to share forks


def ways(n: int) -> dict[str, tables.Eating]:
    return side_by_side.ways_to_eat(n)


@pytest.mark.parametrize("name", ways(2))
@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_all_eat_and_never_two_neighbours_at_a_time(name: str, n: int) -> None:
    rng = random.Random(n)
    naps = threading.Event()
    dinner = tables.dine(
        n, 10, ways(n)[name], lambda: naps.wait(rng.choice([0, 0, 0.0005]))
    )
    assert dinner.meals == 10 * n
    assert 1 <= dinner.together <= n // 2
    assert 1 / n <= dinner.fairness <= 1


@pytest.mark.parametrize("name", ways(2))
def test_who_fails_at_table_gives_the_forks_back(name: str) -> None:
    eating = ways(3)[name]
    for philosopher in (0, 1, 2, 0):
        with pytest.raises(ZeroDivisionError), eating(philosopher):
            raise ZeroDivisionError
    dinner = tables.dine(3, 2, eating, lambda: None)
    assert dinner.meals == 6


@pytest.mark.parametrize("name", sorted(set(ways(2)) - {"a seat too few"}))
def test_two_who_are_no_neighbours_eat_at_the_same_time(name: str) -> None:
    eating = ways(4)[name]
    both = threading.Barrier(2, timeout=LIMIT)

    def eat(philosopher: int) -> None:
        with eating(philosopher):
            both.wait()

    attempts = [started(f"{k}", partial(eat, k)) for k in (0, 2)]
    join(*attempts)
    assert [attempt.error for attempt in attempts] == [None, None]


# -- example05


@pytest.mark.parametrize("n", [3, 5, 12])
def test_one_eats_and_all_others_wait_in_the_worst_of_orders(n: int) -> None:
    waits, eaten = costs.longest_chain(n)
    assert waits == [
        *(f"{number} for fork {number + 1}" for number in range(n - 3, -1, -1)),
        f"{n - 1} for fork 0",
    ]
    assert eaten == [*range(n - 2, -1, -1), n - 1]


# -- example06


def test_one_thread_serves_all_one_at_a_time() -> None:
    threads = set()
    table = serving.serve(3, 2, lambda: threads.add(threading.current_thread()))
    assert (table.meals, table.together) == ([2, 2, 2], 1)
    assert len(threads) == 1
    assert not threads & set(threading.enumerate())


def test_a_meal_that_fails_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(threading.enumerate())
    meals: list[int] = []
    given_up = threading.Event()

    class Observed(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            given_up.set()
            super().shutdown(wait)

    def eat() -> None:
        meals.append(len(meals))
        if len(meals) == 3:
            raise ZeroDivisionError
        if len(meals) == 4:  # it has begun before anybody could hear of the failure
            assert given_up.wait(LIMIT)

    monkeypatch.setattr(serving, "ThreadPoolExecutor", Observed)
    with pytest.raises(ZeroDivisionError):
        serving.serve(5, 200, eat)
    assert len(meals) in {3, 4}  # the fourth is cancelled if it has not begun
    assert set(threading.enumerate()) <= before


# -- example07


def test_uses_are_lost_where_forks_are_shared_and_not_otherwise() -> None:
    one, two, three, four = forks = [unlocked.Fork() for _ in range(4)]
    assert unlocked.eat_together([(one, two), (two, one)]) == 2
    assert [fork.used for fork in forks] == [1, 1, 0, 0]
    assert unlocked.eat_together([(one, two), (three, four)]) == 2
    assert [fork.used for fork in forks] == [2, 2, 1, 1]
    assert [fork.users.most for fork in forks] == [2, 2, 1, 1]


def test_a_count_that_is_right_by_accident_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lock = threading.Lock()

    def eat(
        left: unlocked.Fork, right: unlocked.Fork, between: Callable[[], object]
    ) -> None:
        with left.users, right.users:
            between()
            with lock:
                left.used += 1
                right.used += 1

    monkeypatch.setattr(unlocked, "eat", eat)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match="were to eat"):
        unlocked.main()


# -- example09


@pytest.mark.parametrize("n", [2, 5])
def test_in_step_nobody_ever_eats(n: int) -> None:
    assert backing.in_step(n, 20) == 0


@given(
    st.integers(),
    st.floats(1e-6, 1),
    st.floats(1, 1000),
)
def test_pauses_are_drawn_from_ranges_that_double(
    seed: int, shortest: float, factor: float
) -> None:
    longest = shortest * factor
    pauses = backing.jittered_pauses(random.Random(seed), shortest, longest)
    for number, pause in enumerate(islice(pauses, 15)):
        assert 0 <= pause <= min(shortest * 2**number, longest) * (1 + 1e-9)


def test_nothing_is_kept_while_pausing_and_an_end_of_pauses_is_an_error() -> None:
    free, taken = threading.Lock(), threading.Lock()
    looks = []

    def pauses() -> Iterator[float]:
        for _ in range(3):
            looks.append(free.locked())
            yield 0
        looks.append(free.locked())

    with (
        taken,
        pytest.raises(TimeoutError),
        backing.all_or_none([free, taken], pauses()),
    ):
        raise AssertionError
    assert looks == [False] * 4
    with backing.all_or_none([free, taken], pauses()):
        assert free.locked()
        assert taken.locked()
    assert not free.locked()
    assert not taken.locked()


def test_what_the_block_raises_is_raised_and_the_locks_are_given_back() -> None:
    locks = [threading.Lock(), threading.Lock()]
    with pytest.raises(ZeroDivisionError), backing.all_or_none(locks, [0, 0]):
        raise ZeroDivisionError
    assert not any(lock.locked() for lock in locks)


def test_seeds_make_pauses_differ_from_philosopher_to_philosopher() -> None:
    forks = backing.BackingOff(3, seed=5)
    assert len({rng.random() for rng in forks._rngs}) == 3


# -- example10


@pytest.mark.parametrize("overtaken", [0, 1, 3])
def test_nobody_is_overtaken_more_often_than_that(overtaken: int) -> None:
    waiter = waiters.Waiter(5, overtaken)
    eaten: list[int] = []

    def eat(philosopher: int) -> None:
        with waiter.eating(philosopher):
            eaten.append(philosopher)

    attempts = []
    with waiter.eating(0):
        attempts.append(started("1", partial(eat, 1)))
        assert waiter.until_waiting(1, LIMIT)
        for _ in range(overtaken):
            two = started("2", partial(eat, 2))
            join(two)
            assert two.error is None
        attempts.append(started("2", partial(eat, 2)))
        assert waiter.until_waiting(2, LIMIT)
    join(*attempts)
    assert eaten == [2] * overtaken + [1, 2]


def test_an_interrupted_wait_leaves_the_waiter_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiter = waiters.Waiter(3)

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    with waiter.eating(0), monkeypatch.context() as patch:
        patch.setattr(waiter._changed, "wait_for", interrupt)
        with pytest.raises(KeyboardInterrupt), waiter.eating(1):
            raise AssertionError
    for philosopher in range(3):
        with waiter.eating(philosopher):
            pass


def test_who_stops_waiting_lets_those_behind_it_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiter = waiters.Waiter(5, overtaken=0)
    given_up = threading.Event()
    wait_for = waiter._changed.wait_for

    def wait_or_give_up(
        condition: Callable[[], bool], timeout: float | None = None
    ) -> bool:
        if threading.current_thread().name != "1":
            return wait_for(condition, timeout)
        wait_for(given_up.is_set)
        raise KeyboardInterrupt

    def eat(philosopher: int) -> None:
        with waiter.eating(philosopher):
            pass

    with waiter.eating(0):
        monkeypatch.setattr(waiter._changed, "wait_for", wait_or_give_up)
        one = started("1", partial(eat, 1))
        assert waiter.until_waiting(1, LIMIT)
        two = started("2", partial(eat, 2))
        assert waiter.until_waiting(2, LIMIT)
        given_up.set()
        with waiter._changed:
            waiter._changed.notify_all()
        join(one, two)
        assert isinstance(one.error, KeyboardInterrupt)
        assert two.error is None


def test_all_but_one_may_hold_a_fork_and_one_gets_both() -> None:
    for n in (2, 3, 6):
        assert waiters.all_seats_taken(n) == list(range(n - 1))


def test_a_waiter_who_lets_nobody_pass_fails_the_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiter = waiters.Waiter
    monkeypatch.setattr(waiters, "Waiter", lambda n: waiter(n, overtaken=0))
    monkeypatch.setattr(waiters, "LIMIT", 0.1)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match="was to overtake 1 once"):
        waiters.main()


# -- example11


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_who_has_eaten_goes_behind_hungry_neighbours(n: int) -> None:
    first, *between, last = dirty.ask_again(n)
    assert (first, set(between), last) == (0, {1, n - 1}, 0)


def test_no_neighbour_overtakes_twice() -> None:
    n = 5
    forks = dirty.Forks(n)
    passed: dict[tuple[int, int], int] = {}
    worst: list[int] = []
    naps = threading.Event()

    def eat(philosopher: int) -> None:
        for _ in range(40):
            with forks.eating(philosopher), forks._changed:
                for neighbour in ((philosopher - 1) % n, (philosopher + 1) % n):
                    passed[philosopher, neighbour] = 0  # it has eaten itself
                    if forks._hungry[neighbour]:
                        passed[neighbour, philosopher] = (
                            passed.get((neighbour, philosopher), 0) + 1
                        )
                        worst.append(passed[neighbour, philosopher])
            if philosopher % 2:
                naps.wait(0.0005)

    attempts = [started(f"{k}", partial(eat, k)) for k in range(n)]
    join(*attempts)
    assert [attempt.error for attempt in attempts] == [None] * n
    assert max(worst, default=1) == 1


def test_in_the_beginning_nobody_is_behind_all_others_in_a_cycle() -> None:
    assert dirty.Forks(2)._holder == [0, 0]
    assert dirty.Forks(5)._holder == [0, 0, 1, 2, 3]


def test_an_interrupted_wait_gives_forks_to_the_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forks = dirty.Forks(3)

    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    with forks.eating(0), monkeypatch.context() as patch:
        patch.setattr(forks._changed, "wait_for", interrupt)
        with pytest.raises(KeyboardInterrupt), forks.eating(1):
            raise AssertionError
    for philosopher in (2, 0, 1, 2):
        eater = started("eater", partial(eat_once, forks, philosopher))
        join(eater)
        assert eater.error is None


def eat_once(forks: dirty.Forks, philosopher: int) -> None:
    with forks.eating(philosopher):
        pass


# -- example12


def test_all_ways_are_shown_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "ways.svg"
    arguments = ["--philosophers", "3", "--meals", "2", "--plot", str(file)]
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    side_by_side.main()
    printed = capsys.readouterr().out
    assert "5 times 6 meals" in printed
    assert all(name in printed for name in ways(2))
    assert file.read_text("utf-8").startswith("<?xml")


# -- example19


@pytest.mark.parametrize("n", [4, 7])
@pytest.mark.parametrize(
    ("name", "all_eat"),
    [
        ("with_all_four", False),
        ("without_mutual_exclusion", True),
        ("without_hold_and_wait", True),
        ("with_preemption", True),
        ("without_circular_wait", True),
    ],
)
def test_all_eat_if_a_condition_is_taken_away(name: str, all_eat: bool, n: int) -> None:
    meals, seen = getattr(conditions, name)(n)
    assert meals == (n if all_eat else 0)
    assert (
        seen
        == {
            "with_all_four": f"{n} hold one, and wait in a cycle",
            "without_mutual_exclusion": f"all {n} have it at the same time",
            "without_hold_and_wait": "1 waits, and its neighbour eats",
            "with_preemption": "1 fork is taken back",
            "without_circular_wait": f"{n - 1} wait, in a chain and not in a cycle",
        }[name]
    )


# -- bad input


@pytest.mark.parametrize(
    ("module", "arguments", "named"),
    [
        (ordering, ["--threads", "0"], "must be at least 1, not 0"),
        (ordering, ["--threads", "101"], "must be at most 100, not 101"),
        (ordering, ["--transfers", "1001"], "must be at most 1000, not 1001"),
        (starving, ["--philosophers", "1"], "must be in 2 … 200, not 1"),
        (ranks, ["--philosophers", "101"], "must be in 2 … 100, not 101"),
        (costs, ["--philosophers", "2"], "must be in 3 … 100, not 2"),
        (serving, ["--meals", "0"], "must be in 1 … 200, not 0"),
        (unlocked, ["--philosophers", "1"], "must be in 2 … 100, not 1"),
        (backing, ["--philosophers", "1"], "must be in 2 … 100, not 1"),
        (waiters, ["--philosophers", "1"], "must be in 2 … 100, not 1"),
        (dirty, ["--philosophers", "one"], "invalid philosophers value: 'one'"),
        (side_by_side, ["--philosophers", "51"], "must be in 2 … 50, not 51"),
        (side_by_side, ["--meals", "0"], "must be in 1 … 100, not 0"),
        (side_by_side, ["--plot", "x.txt"], "must end in .png, .svg or .pdf: x.txt"),
        (conditions, ["--philosophers", "3"], "must be in 4 … 100, not 3"),
    ],
)
def test_bad_arguments_are_named(
    complaint: Callable[..., str],
    module: ModuleType,
    arguments: Sequence[str],
    named: str,
) -> None:
    assert named in complaint(module, *arguments)
