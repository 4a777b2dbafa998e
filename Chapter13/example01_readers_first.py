"""Readers first: while readers overlap, the writer waits, and nothing ends its wait.

Readers do not disturb each other, so why should one wait? If somebody reads already,
the next one goes in, too. The rule sounds harmless, and serves readers best. But as
long as each new reader comes before the last has left, there is no moment without a
reader, and a writer needs one.

Here each reader stays for two ticks, and the next comes after one. The writer comes
when the first is inside, and waits until the last has left, however many there are: it
is overtaken by all of them. That is checked for each number of readers up to the one
that is shown.

It starves, which is not a deadlock: others get on, one does not, and it takes no cycle.

Book: Chapter 13, example1.
Try:  --readers 40

Output:
    . waits, # is inside
    reader 0  ##
    writer     .........#
    reader 1   ##
    reader 2    ##
    reader 3     ##
    reader 4      ##
    reader 5       ##
    reader 6        ##
    reader 7         ##
    reader 8          ##
    8 readers have overtaken the writer; n readers do it n times, for n = 0 … 8
"""

import argparse
from collections.abc import Callable, Sequence

from readers_writers import Plan, Visit, play

MAX_READERS = 60


def readers_first(visit: Visit, waiting: Sequence[Visit]) -> bool:
    """Let any reader go in; a writer only if no reader waits."""
    return not visit.writes or all(other.writes for other in waiting)


def overlapping_readers(n: int) -> list[Plan]:
    """Plan a reader, a writer who has to wait for it, and then `n` more readers.

    Each of them comes when the one before is still inside.
    """
    return [
        Plan("reader 0", False, comes=0, stays=2),
        Plan("writer", True, comes=1, stays=1),
        *(Plan(f"reader {k}", False, comes=k, stays=2) for k in range(1, n + 1)),
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
    parser.add_argument("--readers", type=in_range(1, MAX_READERS), default=8)
    most = parser.parse_args().readers

    for n in range(most + 1):
        stays = play(overlapping_readers(n), readers_first)
        _, writer, *readers = stays
        if writer.overtaken != n or any(reader.wait for reader in readers):
            raise SystemExit(f"{n} readers: {writer.overtaken} overtook the writer")
        if writer.entered != max(stay.left for stay in stays if stay is not writer):
            raise SystemExit(f"{n} readers: the writer was not to wait for the last")

    print(". waits, # is inside")
    for stay in stays:
        print(f"{stay.name:9} {stay.row()}")
    print(
        f"{most} readers have overtaken the writer; "
        f"n readers do it n times, for n = 0 … {most}"
    )


if __name__ == "__main__":
    main()
