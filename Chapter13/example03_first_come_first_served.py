"""First come, first served: nobody is overtaken, so nobody starves.

Whoever waits longest goes in next. Readers who come one after the other still share the
room; but a reader who comes after a waiting writer goes behind it, though there would
be room. So how long one waits is decided when one comes, by those who are there then.
Whoever comes later, however many there are, changes nothing: waiting is bounded.

Both floods of the examples before are tried again, of each size up to the one that is
shown: the writer and the reader wait for a tick, for the one that was inside, and are
overtaken by nobody. Then a queue of each length up to the same stands before the one
that is looked at, and a flood comes behind it. It waits just as long as the queue
ahead takes.

That has its price: a writer between them keeps apart readers who could have shared.
Example04 shows how much that is.

Book: Chapter 13, example3.
Try:  --others 20

Output:
    . waits, # is inside
    reader 0  ##
    writer     .#
    reader 1   ..##
    reader 2    .##
    reader 3     ##
    reader 4      ##
    reader 5       ##
    reader 6        ##
    the writer waits for one, not for the 6 who come later

    writer 0  #
    reader    .##
    writer 1   ..#
    writer 2    ..#
    writer 3     ..#
    writer 4      ..#
    writer 5       ..#
    writer 6        ..#
    the reader waits for one, not for the 6 who come later

    behind n others who stay for 2 ticks, the wait is 2 n, for n = 0 … 6,
    whether or not others come later: it is bounded by the queue ahead
"""

import argparse
from collections.abc import Sequence

from example01_readers_first import in_range, overlapping_readers
from example02_writers_first import queueing_writers
from readers_writers import Plan, Stay, Visit, play

MAX_OTHERS = 30


def first_come_first_served(visit: Visit, waiting: Sequence[Visit]) -> bool:
    """Let go in only who has waited longest."""
    return waiting[0] is visit


def queue_ahead(length: int, behind: int) -> list[Plan]:
    """Plan a queue of writers and readers in turn, one after it, and a flood behind.

    All come in the first tick. The one that is looked at is a writer, called "last".
    """
    return [
        *(Plan(f"ahead {k}", k % 2 == 0, comes=0, stays=2) for k in range(length)),
        Plan("last", True, comes=0, stays=1),
        *(Plan(f"behind {k}", k % 2 == 0, comes=0, stays=2) for k in range(behind)),
    ]


def find(name: str, stays: Sequence[Stay]) -> Stay:
    return next(stay for stay in stays if stay.name == name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--others", type=in_range(1, MAX_OTHERS), default=6)
    most = parser.parse_args().others

    print(". waits, # is inside")
    floods = {"writer": overlapping_readers, "reader": queueing_writers}
    for name, flood in floods.items():
        for n in range(most + 1):
            stays = play(flood(n), first_come_first_served)
            if any(stay.overtaken for stay in stays) or find(name, stays).wait != 1:
                raise SystemExit(f"{n} others: the {name} was to wait for one of them")
        for stay in stays:
            print(f"{stay.name:9} {stay.row()}")
        print(f"the {name} waits for one, not for the {most} who come later\n")

    for length in range(most + 1):
        for behind in (0, most):
            stays = play(queue_ahead(length, behind), first_come_first_served)
            if find("last", stays).wait != 2 * length:
                raise SystemExit(
                    f"not the wait for {length} ahead, with {behind} later"
                )
    print(
        f"behind n others who stay for 2 ticks, the wait is 2 n, for n = 0 … {most},\n"
        "whether or not others come later: it is bounded by the queue ahead"
    )


if __name__ == "__main__":
    main()
