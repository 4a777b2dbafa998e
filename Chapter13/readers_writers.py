"""A lock for many readers or one writer, which is told by a policy who goes first.

Readers may be inside together; a writer must be alone. That much is fixed. Who goes in
first, if both kinds wait, is left to a policy: a function of one line, and on it alone
depends who starves (example01 to example03).

To see that, visits are played in ticks. Each is a thread of its own, which blocks in
the lock like any other; but it comes when it is its turn, stays as long as it is told,
and time goes on when everybody is either inside or waits. So each run goes the same
way, and waits are whole numbers.

The lock is for watching. It wakes all who wait at each change, and keeps no time-outs.

P. J. Courtois, F. Heymans, D. L. Parnas, "Concurrent control with 'readers' and
'writers'", Communications of the ACM 14 (10), 1971, solve the problem twice: first for
readers first, then for writers first.

Output:
    . waits, # is inside
    writer    ##
    reader 1   .###
    reader 2    ##
    the writer was alone, the readers came in together
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

LIMIT = 10.0  # seconds for what is bound to come


@dataclass(eq=False, slots=True)
class Visit:
    """Somebody's wish to go in, once.

    Attributes:
        name: for people to read.
        writes: whether it has to be alone inside.
        overtaken: how many who came later have gone in before it.
    """

    name: str
    writes: bool
    overtaken: int = 0


# Says whether a visit may go in now, given all who wait in the order in which they came
# (it is one of them). That there is room for it is seen to by the lock.
Policy = Callable[[Visit, Sequence[Visit]], bool]


def anybody(visit: Visit, waiting: Sequence[Visit]) -> bool:
    """Let in whoever there is room for."""
    return True


class ReadersWritersLock:
    """Lets in many readers or one writer, in the order that a policy wants.

    Attributes:
        changed: guards the lists, and the visits in them; notified at each change.
        waiting: who waits, in the order in which they came.
        inside: who is inside.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.changed = threading.Condition()
        self.waiting: list[Visit] = []
        self.inside: list[Visit] = []

    @contextmanager
    def inside_for(self, visit: Visit) -> Iterator[None]:
        """Wait until the visit may go in; it is inside for the length of a block."""
        with self.changed:
            try:
                self.waiting.append(visit)
                self._let_in()
                self.changed.wait_for(lambda: visit in self.inside)
            except BaseException:  # Ctrl-C: nobody is to wait for one who has gone
                (self.inside if visit in self.inside else self.waiting).remove(visit)
                self._let_in()
                raise
        try:
            yield
        finally:
            with self.changed:
                self.inside.remove(visit)
                self._let_in()

    def change(self, policy: Policy) -> None:
        """Let in by another policy from now on."""
        with self.changed:
            self._policy = policy
            self._let_in()

    def _let_in(self) -> None:
        """Let in all who may. Whoever comes or goes does so for those who wait."""
        for visit in tuple(self.waiting):
            if self._has_room_for(visit) and self._policy(visit, self.waiting):
                place = self.waiting.index(visit)
                for earlier in self.waiting[:place]:
                    earlier.overtaken += 1
                del self.waiting[place]
                self.inside.append(visit)
        self.changed.notify_all()

    def _has_room_for(self, visit: Visit) -> bool:
        alone = visit.writes or any(other.writes for other in self.inside)
        return not self.inside or not alone


@dataclass(frozen=True, slots=True)
class Plan:
    """When somebody comes, and how long it stays once it is inside, in ticks."""

    name: str
    writes: bool
    comes: int
    stays: int


@dataclass(frozen=True, slots=True)
class Stay:
    """How a visit went: when it came, went in and left, in ticks.

    Attributes:
        overtaken: how many who came later have gone in before it.
    """

    name: str
    writes: bool
    came: int
    entered: int
    left: int
    overtaken: int

    @property
    def wait(self) -> int:
        """Ticks from coming to going in."""
        return self.entered - self.came

    def row(self) -> str:
        """Return it as a row of a chart: a dot for a tick of waiting, # for inside."""
        return " " * self.came + "." * self.wait + "#" * (self.left - self.entered)


class Guest(threading.Thread):
    """A thread that goes in when the lock lets it, and leaves when it is told to.

    It is a daemon: whatever happens, it keeps no program from its end.
    """

    def __init__(self, lock: ReadersWritersLock, plan: Plan) -> None:
        super().__init__(name=plan.name, daemon=True)
        self.plan = plan
        self.visit = Visit(plan.name, plan.writes)
        self.entered: int | None = None  # the tick; for whoever plays
        self._lock = lock
        self.may_leave = threading.Event()

    def run(self) -> None:
        with self._lock.inside_for(self.visit):
            self.may_leave.wait()

    def come(self) -> None:
        """Start, and return as soon as the visit waits or is inside."""
        self.start()
        lock, visit = self._lock, self.visit
        with lock.changed:
            if not lock.changed.wait_for(
                lambda: visit in lock.inside or visit in lock.waiting, LIMIT
            ):
                raise TimeoutError(f"{self.name} has not come")

    def leave(self) -> None:
        """Leave, and return when that is done."""
        self.may_leave.set()
        self.join(LIMIT)
        if self.is_alive():
            raise TimeoutError(f"{self.name} has not left")


def play(plans: Sequence[Plan], policy: Policy) -> list[Stay]:
    """Let everybody come as planned; return how it went, in the order of the plans.

    In each tick first those come who are to come, in the order of the plans, and then
    those leave whose stay is over.

    Raises:
        ValueError: a stay is shorter than a tick, or begins before the first.
        RuntimeError: somebody waits, nobody is inside, and the policy lets nobody in.
    """
    for plan in plans:
        if plan.stays < 1 or plan.comes < 0:
            raise ValueError(
                f"{plan.name} comes in tick {plan.comes} and stays for {plan.stays}"
            )
    lock = ReadersWritersLock(policy)
    guests = [Guest(lock, plan) for plan in plans]
    stays: dict[Guest, Stay] = {}
    tick = 0
    try:
        while len(stays) < len(guests):
            for guest in guests:
                if guest.plan.comes == tick:
                    guest.come()
            for guest in guests:
                entered = guest.entered
                if entered is not None and entered + guest.plan.stays == tick:
                    guest.leave()
                    stays[guest] = Stay(
                        guest.plan.name,
                        guest.plan.writes,
                        guest.plan.comes,
                        entered,
                        tick,
                        guest.visit.overtaken,
                    )
            with lock.changed:
                for guest in guests:
                    if guest.entered is None and guest.visit in lock.inside:
                        guest.entered = tick
                if lock.waiting and not lock.inside:
                    raise RuntimeError(f"{lock.waiting[0].name} is let in by nobody")
            tick += 1
    finally:  # whatever has happened, no thread stays behind
        lock.change(anybody)
        for guest in guests:
            guest.may_leave.set()
    return [stays[guest] for guest in guests]


def main() -> None:
    plans = [
        Plan("writer", True, comes=0, stays=2),
        Plan("reader 1", False, comes=1, stays=3),
        Plan("reader 2", False, comes=2, stays=2),
    ]
    stays = play(plans, anybody)
    print(". waits, # is inside")
    for stay in stays:
        print(f"{stay.name:8}  {stay.row()}")
    writer, *readers = stays
    if any(reader.entered < writer.left for reader in readers):
        raise SystemExit("a reader was inside beside the writer")
    if len({reader.entered for reader in readers}) != 1:
        raise SystemExit("both readers were to go in when the writer left")
    print("the writer was alone, the readers came in together")


if __name__ == "__main__":
    main()
