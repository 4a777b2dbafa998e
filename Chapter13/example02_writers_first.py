"""Writers first: while writers queue up, the reader waits, and nothing ends its wait.

The mirror of example01. No reader goes in while a writer waits, so no stream of readers
can keep a writer out. Where few write and many read, that is often what is wanted: what
is read is fresh. But as long as each new writer comes before the last has left, there
is always one that waits, and no reader goes in.

Here each writer is inside for a tick, and the next one is there when it leaves. The
reader comes right after the first, and is overtaken by all others, however many there
are. That is checked for each number of writers up to the one that is shown.

Neither rule is fair. They choose who is to starve, once there is enough of the others.

Book: Chapter 13, example2.
Try:  --writers 40

Output:
    . waits, # is inside
    writer 0  #
    reader    .........##
    writer 1   #
    writer 2    #
    writer 3     #
    writer 4      #
    writer 5       #
    writer 6        #
    writer 7         #
    writer 8          #
    8 writers have overtaken the reader; n writers do it n times, for n = 0 … 8
"""

import argparse
from collections.abc import Callable, Sequence

from readers_writers import Plan, Visit, play

MAX_WRITERS = 60


def writers_first(visit: Visit, waiting: Sequence[Visit]) -> bool:
    """Let any writer go in; a reader only if no writer waits."""
    return visit.writes or not any(other.writes for other in waiting)


def queueing_writers(n: int) -> list[Plan]:
    """Plan a writer, a reader who has to wait for it, and then `n` more writers.

    Each of them comes when the one before is still inside.
    """
    return [
        Plan("writer 0", True, comes=0, stays=1),
        Plan("reader", False, comes=0, stays=2),
        *(Plan(f"writer {k}", True, comes=k, stays=1) for k in range(1, n + 1)),
    ]


def in_range(least: int, most: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in `least` … `most`."""

    def whole_number(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be in {least} … {most}, not {number}"
            )
        return number

    return whole_number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--writers", type=in_range(1, MAX_WRITERS), default=8)
    most = parser.parse_args().writers

    for n in range(most + 1):
        stays = play(queueing_writers(n), writers_first)
        _, reader, *writers = stays
        if reader.overtaken != n or any(writer.overtaken for writer in writers):
            raise SystemExit(f"{n} writers: {reader.overtaken} overtook the reader")
        if reader.entered != max(stay.left for stay in stays if stay is not reader):
            raise SystemExit(f"{n} writers: the reader was not to wait for the last")

    print(". waits, # is inside")
    for stay in stays:
        print(f"{stay.name:9} {stay.row()}")
    print(
        f"{most} writers have overtaken the reader; "
        f"n writers do it n times, for n = 0 … {most}"
    )


if __name__ == "__main__":
    main()
