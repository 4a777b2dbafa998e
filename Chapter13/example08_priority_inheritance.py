"""Who holds a mutex is as urgent as who waits for it: then inversion has a bound.

The tasks of example07 at the same ticks, but the mutex has a protocol. Inheritance: the
meteorology runs at the priority of the bus management while that waits for it, so
communications do not preempt it, and the wait ends with its critical section, however
long communications are. That was the mend on Mars: a parameter of the mutex, changed
from Earth. Ceiling: the meteorology runs at that priority as soon as it has the mutex,
since the bus management might come.

Inheritance acts when the harm is done: a task may meet a mutex that is taken at each
of several locks, and wait once for each less urgent task (chained blocking). And it
does not prevent a deadlock. A ceiling rules out both: a task is kept from beginning
while anything that it may need is taken, so it waits for one critical section at most,
and for nothing once it has begun. The price: one must know which tasks use which mutex;
and tasks below the ceiling wait, even if they do not need the mutex and nobody else
comes for it.

Python's threads have no priorities, and its locks no such protocol. Where threads have
them, in C, set PTHREAD_PRIO_INHERIT (or PTHREAD_PRIO_PROTECT, the ceiling) by
pthread_mutexattr_setprotocol. For the former, Linux has futexes that inherit.

L. Sha, R. Rajkumar, J. P. Lehoczky, "Priority inheritance protocols: an approach to
real-time synchronization", IEEE Transactions on Computers 39 (9), 1990.

Try:  --length 30

Output:
    tick            0         10        20
    bus management    ~~bb
    communications     ...####################
    meteorology     bbbb......................##
    communications, ticks     0   1   2   5  10  20  60
    blocked, none             2   3   4   7  12  22  62
    blocked, inheritance      2   2   2   2   2   2   2
    blocked, ceiling          2   2   2   2   2   2   2
    high needs two mutexes, middle has one and low the other; ticks blocked:
      inheritance  high 5, by middle and low; middle 0
      ceiling      high 1, by low; middle 2
    two tasks lock two mutexes in opposite orders
      inheritance  a deadlock: high -> low -> high
      ceiling      both end
    inheritance: once for each lower task; ceiling: one critical section in all
"""

import argparse

from example07_priority_inversion import BUS, LONGEST, SECTION, in_range, pathfinder
from fixed_priority_scheduler import (
    Compute,
    Lock,
    Protocol,
    Schedule,
    Task,
    Unlock,
    draw,
    simulate,
)

PROTOCOLS: tuple[Protocol, ...] = ("none", "inheritance", "ceiling")
MENDS = PROTOCOLS[1:]


def chain() -> list[Task]:
    """Return three tasks: the first needs two mutexes, each other one of these."""
    both = [Lock("a"), Compute(1), Unlock("a"), Lock("b"), Compute(1), Unlock("b")]
    return [
        Task("high", 3, 3, both),
        Task("middle", 2, 2, [Lock("a"), Compute(4), Unlock("a")]),
        Task("low", 1, 0, [Lock("b"), Compute(4), Unlock("b")]),
    ]


def two_orders() -> list[Task]:
    """Return two tasks that lock two mutexes in opposite orders."""
    a_then_b = [Lock("a"), Compute(1), Lock("b"), Compute(1), Unlock("b"), Unlock("a")]
    b_then_a = [Lock("b"), Compute(2), Lock("a"), Compute(1), Unlock("a"), Unlock("b")]
    return [Task("high", 2, 1, a_then_b), Task("low", 1, 0, b_then_a)]


def blockers(schedule: Schedule, name: str) -> list[str]:
    """Return the less urgent tasks that ran while the task was blocked, in order."""
    ticks = [tick for interval in schedule.blocked[name] for tick in interval]
    return list(dict.fromkeys(str(schedule.timeline[tick]) for tick in ticks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--length", type=in_range(1, LONGEST), default=20)
    ticks = parser.parse_args().length

    print("\n".join(draw(simulate(pathfinder(ticks), ["bus"], "inheritance"))))
    shown = (0, 1, 2, 5, 10, 20, LONGEST)
    print(f"communications, ticks  {''.join(f'{n:4}' for n in shown)}")
    for protocol in PROTOCOLS:
        schedules = [
            simulate(pathfinder(n), ["bus"], protocol) for n in range(LONGEST + 1)
        ]
        blocked = [schedule.blocking(BUS) for schedule in schedules]
        print(f"blocked, {protocol:12}  {''.join(f'{blocked[n]:4}' for n in shown)}")
        bounded = max(blocked) <= SECTION and not any(one.missed for one in schedules)
        if bounded != (protocol in MENDS):
            raise SystemExit(f"{protocol}: blocked for up to {max(blocked)} ticks")

    print("high needs two mutexes, middle has one and low the other; ticks blocked:")
    for protocol, expected in zip(MENDS, (["middle", "low"], ["low"]), strict=True):
        schedule = simulate(chain(), "ab", protocol)
        by = " and ".join(blockers(schedule, "high"))
        high, middle = schedule.blocking("high"), schedule.blocking("middle")
        print(f"  {protocol:12} high {high}, by {by}; middle {middle}")
        if by != " and ".join(expected) or (middle > 0) != (protocol == "ceiling"):
            raise SystemExit(f"{protocol}: {expected} were to block high")

    print("two tasks lock two mutexes in opposite orders")
    for protocol, deadlock in zip(MENDS, (("high", "low"), ()), strict=True):
        schedule = simulate(two_orders(), "ab", protocol)
        cycle = " -> ".join([*schedule.deadlock, *schedule.deadlock[:1]])
        print(f"  {protocol:12} {'a deadlock: ' + cycle if cycle else 'both end'}")
        if schedule.deadlock != deadlock or len(schedule.response) != 2 - len(deadlock):
            raise SystemExit(f"{protocol}: only inheritance was to lead to a deadlock")
    print("inheritance: once for each lower task; ceiling: one critical section in all")


if __name__ == "__main__":
    main()
