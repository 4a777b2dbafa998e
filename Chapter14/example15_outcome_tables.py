"""All interleavings of two threads are played, and a table tells what came of them.

A test of concurrent code that runs once has seen one outcome. This harness plays two or
more actors, each in a thread of its own, many times on a fresh state, and counts the
outcomes, tuples of what the actors have returned. A judge has said beforehand which are
acceptable, interesting (allowed, yet a surprise) or forbidden. An outcome that it has
not thought of is forbidden.

The actors mark by `step()` where it matters who runs. In a dealt trial only one thread
runs from one mark to the next, and the trials are dealt over all orders in which these
steps can come. So the counts are certain, and no unlucky moment is missed, except one
within a step. Who waits for a lock, by `step(lock)`, has no turn until others have made
steps. In a free trial all are released together, and the marks do nothing; the rest is
left to the scheduler. There most of these races show seldom or never, since one actor
is through before the other has begun.

Three of the mends are a critical section. The fourth is `dict.setdefault`, one call:
two objects may be made, but both actors go on with the same one.

Source: jcstress, OpenJDK's Java Concurrency Stress tests, and its samples. There all
trials are free, and there are millions of them. So it also finds what no interleaving
explains: what compilers and processors reorder.

Try:  --trials 20

Output:
                           dealt   dealt     free
    outcome               broken  mended   broken  grade        note
    increment a number
      1, 2                   167     500   75.6 %  acceptable   one after the other
      2, 1                   166     500   24.4 %  acceptable   one after the other
      1, 1                   667       0    0.0 %  forbidden    an update is lost
    withdraw 80 of 100
      paid, refused          167     500   62.3 %  acceptable   100 is enough for one
      refused, paid          166     500   37.7 %  acceptable   100 is enough for one
      paid, paid             667       0    0.0 %  forbidden    it is overdrawn
    write and read a pair
      old old                332     500   28.1 %  acceptable   read before the write
      new new                334     500   71.9 %  acceptable   read after the write
      new old                167       0    0.0 %  forbidden    a torn pair
      old new                167       0    0.0 %  forbidden    a torn pair
    make if missing
      made, found            167     167   69.6 %  acceptable   one object
      found, made            166     166   30.4 %  acceptable   one object
      made, made in vain       0     334    0.0 %  interesting  two made, one used
      made in vain, made       0     333    0.0 %  interesting  two made, one used
      made, made             667       0    0.0 %  forbidden    two made, both used
    left to the scheduler, 0.00 % are forbidden outcomes
    dealt, 2335 of 4000 are, and none when mended
"""

import argparse
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, cycle, islice
from queue import Empty, SimpleQueue
from typing import Generic, NamedTuple, Protocol, TypeVar

S = TypeVar("S")

LIMIT = 10.0  # seconds that a trial may take
MOST_TRIALS = 10_000  # that --trials may ask for
INTERLEAVINGS = 20  # of two actors of three steps each, the first before a lock
GOOD, ODD, BAD = "acceptable", "interesting", "forbidden"
UNKNOWN = (BAD, "not known")

Outcome = tuple[object, ...]
Judge = Mapping[Outcome, tuple[str, str]]  # grade and note
Ended = tuple[int, object, BaseException | None]  # which actor, its result, its error


class Step(Protocol):
    """What an actor calls at the end of a step, and to take a lock after it."""

    def __call__(self, lock: "threading.Lock | None" = None) -> None: ...


Actor = Callable[[S, Step], object]


class Row(NamedTuple):
    """How often there was an outcome, and what the judge says of it."""

    outcome: Outcome
    times: int
    grade: str
    note: str


class EndedError(Exception):
    """Raised in an actor that waits for its turn: no more turns will come."""


class Stage(Generic[S]):
    """Plays actors, each in a thread of its own, trial after trial, until closed."""

    def __init__(self, actors: Sequence[Actor[S]]) -> None:
        self._actors = actors
        # An actor that gets True is to go on, one that gets False is to end.
        self._gates: list[SimpleQueue[bool]] = [SimpleQueue() for _ in actors]
        self._ended: SimpleQueue[Ended] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    def play(self, state: S, order: Sequence[int] | None) -> Outcome:
        """Play one trial and return what the actors return, without None.

        Args:
            order: whose turn it is, step by step, but for those that have ended or wait
                for a lock. When it is used up, they take turns. None: a free trial.

        Raises:
            TimeoutError: it has taken more than LIMIT seconds.
            BaseException: what an actor has raised; a note says which.
        """
        everybody = range(len(self._actors))
        self._state = state
        # Of a dealt trial. Only the thread whose turn it is uses what follows; the
        # gate by which it hands over the turn orders what it did before the next turn.
        self._order = None if order is None else chain(order, cycle(everybody))
        self._playing = set(everybody)
        # Those that have tried to take a lock since the last one that came any further.
        self._blocked: set[int] = set()
        for actor in everybody[len(self._threads) :]:
            thread = threading.Thread(target=self._act, args=(actor,), daemon=True)
            self._threads.append(thread)
            thread.start()
        if self._order is None:
            for gate in self._gates:
                gate.put(True)
        else:
            self._hand_over()
        results: list[object] = [None] * len(self._actors)
        for _ in everybody:
            try:
                actor, results[actor], error = self._ended.get(timeout=LIMIT)
            except Empty:
                raise TimeoutError(f"a trial has taken more than {LIMIT:g} s") from None
            if error is not None:
                error.add_note(f"raised by actor {actor}")
                raise error
        return tuple(result for result in results if result is not None)

    def close(self) -> None:
        """End all threads. After an error they are in the midst of a trial."""
        for gate in self._gates:
            gate.put(False)
        for thread in self._threads:
            if thread.ident is not None:  # Ctrl-C may come before it has started
                thread.join(LIMIT)

    def _act(self, me: int) -> None:
        while self._gates[me].get():
            try:
                result = self._actors[me](self._state, partial(self._step, me))
                if self._order is not None:
                    self._playing.remove(me)
                    self._blocked.clear()
                    if self._playing:
                        self._hand_over()
            except EndedError:
                return
            except BaseException as error:
                self._ended.put((me, None, error))
                return
            self._ended.put((me, result, None))

    def _step(self, me: int, lock: "threading.Lock | None" = None) -> None:
        if self._order is None:
            if lock is not None and not lock.acquire(timeout=LIMIT):
                raise TimeoutError("a lock was not released")
            return
        self._blocked.clear()  # what has run until here may have released their locks
        self._let_others_run(me)
        if lock is not None:
            while not lock.acquire(blocking=False):
                self._blocked.add(me)
                self._let_others_run(me)

    def _let_others_run(self, me: int) -> None:
        self._hand_over()
        if not self._gates[me].get():
            raise EndedError

    def _hand_over(self) -> None:
        able = self._playing - self._blocked
        if not able:
            raise RuntimeError("a deadlock: all wait for locks")
        assert self._order is not None
        self._gates[next(actor for actor in self._order if actor in able)].put(True)


def interleavings(steps: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield all orders in which actors can make their steps, `steps[n]` by actor n."""
    if not any(steps):
        yield ()
    for actor, left in enumerate(steps):
        if left:
            rest = [*steps[:actor], left - 1, *steps[actor + 1 :]]
            for order in interleavings(rest):
                yield (actor, *order)


def steps_alone(state: S, actor: Actor[S]) -> int:
    """Return how many steps an actor makes when it is alone with a state."""
    steps = 1

    def step(lock: "threading.Lock | None" = None) -> None:
        nonlocal steps
        steps += 1
        if lock is not None and not lock.acquire(blocking=False):
            raise RuntimeError("a deadlock: an actor alone waits for a lock")

    actor(state, step)
    return steps


def outcomes(
    make_state: Callable[[], S],
    actors: Sequence[Actor[S]],
    judge: Judge,
    trials: int,
    dealt: bool = True,
) -> list[Row]:
    """Play `actors`, each time on a fresh state, and count the outcomes.

    Args:
        actors: each is called with the state and a `Step`, and returns its part of the
            outcome, or None if it has none. It has to end when it is alone, too.
        dealt: try one interleaving of the steps after the other, again and again. Steps
            that an actor makes only in company come last.

    Returns:
        The outcomes that the judge knows, in its order, and then all others.

    Raises:
        ValueError: there are more interleavings than trials.
        RuntimeError: a deadlock: all that are left wait for locks.
        Exception: as by `Stage.play`.
    """
    orders: list[tuple[int, ...] | None] = [None]
    if dealt:
        steps = [steps_alone(make_state(), actor) for actor in actors]
        orders = list(islice(interleavings(steps), trials + 1))
        if len(orders) > trials:
            raise ValueError(f"there are more than {trials} interleavings")
    stage = Stage(actors)
    try:
        counts = Counter(
            stage.play(make_state(), order) for order in islice(cycle(orders), trials)
        )
    finally:
        stage.close()
    unknown = [outcome for outcome in counts if outcome not in judge]
    return [
        Row(outcome, counts[outcome], *verdict)
        for outcome, verdict in {**judge, **dict.fromkeys(unknown, UNKNOWN)}.items()
    ]


@dataclass
class Shared:
    """What the actors share. Nothing is guarded; the mends take `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    number: int = 0
    balance: int = 100
    left: str = "old"
    right: str = "old"
    objects: dict[str, object] = field(default_factory=dict)


def increment(shared: Shared, step: Step) -> int:
    seen = shared.number
    step()  # the other one reads the same number
    shared.number = seen + 1
    return seen + 1


def withdraw(shared: Shared, step: Step) -> str:
    if shared.balance < 80:
        return "refused"
    step()  # the other one finds enough, too
    shared.balance -= 80
    return "paid"


def write_pair(shared: Shared, step: Step) -> None:
    shared.left = "new"
    step()  # here the two do not belong together
    shared.right = "new"


def read_pair(shared: Shared, step: Step) -> str:
    left = shared.left
    step()
    return f"{left} {shared.right}"


def make_if_missing(shared: Shared, step: Step) -> str:
    if "it" in shared.objects:
        return "found"
    step()  # the other one misses it, too
    shared.objects["it"] = object()
    return "made"


def make_with_setdefault(shared: Shared, step: Step) -> str:
    if "it" in shared.objects:
        return "found"
    step()
    mine = object()
    return "made" if shared.objects.setdefault("it", mine) is mine else "made in vain"


def locked(actor: Actor[Shared]) -> Actor[Shared]:
    """Return an actor that does the same as one critical section."""

    def in_critical_section(shared: Shared, step: Step) -> object:
        step(shared.lock)
        try:
            return actor(shared, step)
        finally:
            shared.lock.release()

    return in_critical_section


INCREMENTS: Judge = {
    (1, 2): (GOOD, "one after the other"),
    (2, 1): (GOOD, "one after the other"),
    (1, 1): (BAD, "an update is lost"),
}
WITHDRAWALS: Judge = {
    ("paid", "refused"): (GOOD, "100 is enough for one"),
    ("refused", "paid"): (GOOD, "100 is enough for one"),
    ("paid", "paid"): (BAD, "it is overdrawn"),
}
READINGS: Judge = {
    ("old old",): (GOOD, "read before the write"),
    ("new new",): (GOOD, "read after the write"),
    ("new old",): (BAD, "a torn pair"),
    ("old new",): (BAD, "a torn pair"),
}
MAKINGS: Judge = {
    ("made", "found"): (GOOD, "one object"),
    ("found", "made"): (GOOD, "one object"),
    ("made", "made in vain"): (ODD, "two made, one used"),
    ("made in vain", "made"): (ODD, "two made, one used"),
    ("made", "made"): (BAD, "two made, both used"),
}


# Name, broken actors, mended actors, judge.
RACES: list[tuple[str, list[Actor[Shared]], list[Actor[Shared]], Judge]] = [
    ("increment a number", [increment] * 2, [locked(increment)] * 2, INCREMENTS),
    ("withdraw 80 of 100", [withdraw] * 2, [locked(withdraw)] * 2, WITHDRAWALS),
    (
        "write and read a pair",
        [write_pair, read_pair],
        [locked(write_pair), locked(read_pair)],
        READINGS,
    ),
    ("make if missing", [make_if_missing] * 2, [make_with_setdefault] * 2, MAKINGS),
]


def forbidden(rows: Sequence[Row]) -> int:
    """Return in how many trials there was a forbidden outcome."""
    return sum(row.times for row in rows if row.grade == BAD)


def show(name: str, broken: list[Row], mended: list[Row], free: list[Row]) -> None:
    """Print how often each outcome came of the broken, the mended, the broken in free.

    Raises:
        SystemExit: the race does not show, or the mend is none.
    """
    trials = sum(row.times for row in free)
    print(name)
    for rows in zip(broken, mended, free, strict=True):
        outcome, _, grade, note = rows[0]
        counts = f"{rows[0].times:8}{rows[1].times:8}"
        share = f"{100 * rows[2].times / trials:.1f} %"
        what = ", ".join(map(str, outcome))
        print(f"  {what:18}{counts}{share:>9}  {grade:13}{note}")
    if not forbidden(broken):
        raise SystemExit(f"{name}: the race was to show")
    if any((row.grade == BAD) != (row.times == 0) for row in mended):
        raise SystemExit(f"{name}: all that is allowed was to come, and nothing else")


def trials(text: str) -> int:
    number = int(text)
    if not INTERLEAVINGS <= number <= MOST_TRIALS:
        raise argparse.ArgumentTypeError(
            f"must be between {INTERLEAVINGS} and {MOST_TRIALS}, not {number}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=trials, default=1000)
    n = parser.parse_args().trials

    print(f"{'':20}   dealt   dealt     free")
    print(f"{'outcome':20}  broken  mended   broken  grade        note")
    n_broken = n_free = 0
    for name, broken, mended, judge in RACES:
        tables = [
            outcomes(Shared, broken, judge, n),
            outcomes(Shared, mended, judge, n),
            outcomes(Shared, broken, judge, n, dealt=False),
        ]
        if unknown := [row.outcome for one in tables for row in one[len(judge) :]]:
            raise SystemExit(f"{name}: nobody has thought of {unknown[0]}")
        show(name, *tables)
        n_broken += forbidden(tables[0])
        n_free += forbidden(tables[2])
    n_all = n * len(RACES)
    print(f"left to the scheduler, {100 * n_free / n_all:.2f} % are forbidden outcomes")
    print(f"dealt, {n_broken} of {n_all} are, and none when mended")


if __name__ == "__main__":
    main()
