# /// script
# requires-python = ">=3.11"
# dependencies = ["frontrun>=0.7.0,<0.8"]
# ///
"""A library looks for the same bugs: quickly, by what instructions touch.

The package frontrun explores ordinary code, as explorer.py does, and has two ways.
Dynamic partial-order reduction (DPOR) watches which attributes, items and locks the
instructions of a program touch, and plays one schedule of those that differ only in the
order of what does not conflict. So it needs a handful where explorer.py needs hundreds,
and can explain which accesses conflict. But it is blind where it does not know what an
instruction touches: in version 0.7 that is `in`, and the iteration over a dictionary.
It sees no conflict then, and says that all is well; it misses the lost wake-up, too.

Its other way draws schedules at random. That needs no knowledge, finds two of these
three, and proves nothing if it finds nothing. (It is not asked for the third, whose
thread it waits for until a time limit; nor is either way asked for Peterson's lock,
which spins.) The explorer knows of no accesses, and finds them all.

Which to take? Frontrun, for a program of your own: it knows files, SQL and asyncio, and
comes with a plug-in for pytest. Let it draw at random besides; and if it finds nothing,
ask what it cannot see.

Source: C. Flanagan, P. Godefroid, "Dynamic partial-order reduction for model checking
software", POPL 2005.

Output:
    bug                     DPOR    random  explorer.py
    lost update             found   found   found
    check-then-act, >=      found   found   found
    check-then-act, get     found   found   found
    check-then-act, not in  missed  found   found
    opposite lock order     found   found   found
    iterate while growing   missed  found   found
    no while around wait    found   found   found
    lost wake-up            missed  -       found
    a search is as complete as what it knows of the instructions
"""

import os
from collections.abc import Callable
from typing import Any, NamedTuple

from example13_explored_races import Account, Box, Counter, Forks, Members, Signal
from explorer import Program, explore

try:
    import frontrun  # type: ignore[import-untyped, import-not-found, unused-ignore]
except ModuleNotFoundError:
    print("needs frontrun")
    raise SystemExit(77) from None

LIMIT = 10.0  # seconds for one schedule
SEED = 1  # of the schedules that are drawn
N_DRAWN = 50  # at most

Job = Callable[[Any], object]


class Registry:
    """Makes a thing on demand, and counts how often it has done so."""

    def __init__(self) -> None:
        self.things: dict[str, object] = {}
        self.n_made = 0

    def get_with_in(self) -> None:
        """Look with `not in`, then make."""
        if "it" not in self.things:
            self.things["it"] = object()
            self.n_made += 1

    def get_with_get(self) -> None:
        """Look with `get`, then make."""
        if self.things.get("it") is None:
            self.things["it"] = object()
            self.n_made += 1


class Bug(NamedTuple):
    """What two threads do to something that they share, and what must hold then."""

    make: Callable[[], Any]
    jobs: tuple[Job, Job]
    check: Callable[[Any], bool] = lambda _: True


BUGS = {
    "lost update": Bug(Counter, (Counter.add_broken,) * 2, lambda it: it.value == 2),
    "check-then-act, >=": Bug(
        Account, (lambda it: it.pay_broken(80),) * 2, lambda it: it.balance == 20
    ),
    "check-then-act, get": Bug(
        Registry, (Registry.get_with_get,) * 2, lambda it: it.n_made == 1
    ),
    "check-then-act, not in": Bug(
        Registry, (Registry.get_with_in,) * 2, lambda it: it.n_made == 1
    ),
    "opposite lock order": Bug(Forks, (Forks.take_left_first, Forks.take_right_first)),
    "iterate while growing": Bug(Members, (Members.total_broken, Members.join)),
    "no while around wait": Bug(Box, (Box.get_broken, Box.replace)),
    "lost wake-up": Bug(Signal, (Signal.wait_broken, Signal.give)),
}
MISSED = {"check-then-act, not in", "iterate while growing", "lost wake-up"}
NOT_DRAWN = "lost wake-up"


def with_frontrun(bug: Bug, **options: Any) -> str:
    """Return whether frontrun finds a bug."""
    try:
        result = frontrun.explore(
            setup=bug.make,
            workers=list(bug.jobs),
            invariant=bug.check,
            clock="virtual",  # or it waits for ever for a notify
            timeout_per_run=LIMIT,
            reproduce_on_failure=0,
            detect_io=False,
            **options,
        )
    except (IndexError, RuntimeError):  # of a worker: it comes through
        return "found"
    if result.property_holds is None:
        return "inconclusive"
    return "missed" if result.property_holds else "found"


def with_explorer(bug: Bug) -> str:
    """Return whether the explorer finds a bug."""

    def make_program() -> Program:
        shared = bug.make()
        first, second = bug.jobs
        return Program(
            {"A": lambda: first(shared), "B": lambda: second(shared)},
            lambda: bug.check(shared),
        )

    return "found" if explore(make_program).failure else "missed"


def main() -> None:
    os.environ["FRONTRUN_ACTIVE"] = "1"  # its command would set that
    print("bug                     DPOR    random  explorer.py")
    missed = set()
    for name, bug in BUGS.items():
        by_dpor = with_frontrun(bug)
        drawn = "-"
        if name != NOT_DRAWN:
            options = {"strategy": "random", "seed": SEED, "max_attempts": N_DRAWN}
            drawn = with_frontrun(bug, **options)
        by_explorer = with_explorer(bug)
        print(f"{name:22}  {by_dpor:6}  {drawn:6}  {by_explorer}")
        if by_dpor == "missed":
            missed.add(name)
        if by_explorer != "found" or drawn not in {"found", "-"}:
            raise SystemExit(f"{name} was to be found")
    if missed != MISSED:
        raise SystemExit(f"DPOR was to miss others: {', '.join(sorted(MISSED))}")
    print("a search is as complete as what it knows of the instructions")


if __name__ == "__main__":
    main()
