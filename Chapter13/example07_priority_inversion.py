"""An urgent task waits for a mutex of a lowly one, which others keep from running.

In 1997, on Mars, the computer of Pathfinder reset itself again and again. Its urgent
tasks moved data over a bus. So did the meteorology now and then, which mattered least;
a mutex kept them apart. To wait for somebody who is about to give it back does no harm.
But communications, of middling priority and long, came in between. They needed no
mutex; they preempted the meteorology, as they should, and while they ran the mutex was
not given back. So the urgent task waits for one that is less urgent and has nothing to
do with it, however long that takes: unbounded priority inversion. A watchdog saw that
the deadline was missed, and reset all.

The pattern of it is simulated here. For each tick more of communications the urgent
task waits a tick more. If they come at another time, or are short, nothing is seen: so
it was on Earth, where the few resets were put down to the hardware. For the mend see
example08.

M. Jones, "What really happened on Mars?", 1997, about a talk by D. Wilner of Wind River
Systems; and the answer under the same title by G. Reeves, who led the software team. He
tells that the mutex was in the operating system, below a pipe from task to task.

Try:  --length 30

Output:
    tick            0         10        20
    bus management    ~~~~~~~~~~~~~~~~~~~~~~bb
    communications     ####################
    meteorology     bbb....................b..##
    # runs, b: runs and has the mutex of the bus, ~ waits for it, . is ready
    bus management ends after 24 ticks, 8 are allowed: reset
    communications, ticks     0   1   2   5  10  20  60
    it is blocked, ticks      2   3   4   7  12  22  62
      if those come later     2   2   2   2   2   2   2
    for who has the mutex it waits 2 ticks, for who has not any number
"""

import argparse
from collections.abc import Callable

from fixed_priority_scheduler import Compute, Lock, Task, Unlock, draw, simulate

BUS, COMMUNICATIONS, WEATHER = "bus management", "communications", "meteorology"
DEADLINE = 8  # ticks from its release in which the bus management must have ended
SECTION = 4  # ticks for which the meteorology has the mutex of the bus
LONGEST = 60  # ticks for which communications may run


def pathfinder(length: int, later: int = 0) -> list[Task]:
    """Return the three tasks, the most urgent first.

    Args:
        length: ticks of computing that communications need; 0 leaves them out.
        later: ticks by which they come later than at the worst moment.
    """
    bus = [Lock("bus"), Compute(2), Unlock("bus")]
    weather = [Lock("bus"), Compute(SECTION), Unlock("bus"), Compute(2)]
    tasks = [
        Task(BUS, 3, 2, bus, DEADLINE),
        Task(COMMUNICATIONS, 2, 3 + later, [Compute(length)]),
        Task(WEATHER, 1, 0, weather),
    ]
    return tasks if length else [tasks[0], tasks[2]]


def blocking(length: int, later: int = 0) -> int:
    """Return for how many ticks the bus management is blocked."""
    return simulate(pathfinder(length, later), ["bus"]).blocking(BUS)


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
    parser.add_argument("--length", type=in_range(1, LONGEST), default=20)
    ticks = parser.parse_args().length

    schedule = simulate(pathfinder(ticks), ["bus"])
    print("\n".join(draw(schedule)))
    print("# runs, b: runs and has the mutex of the bus, ~ waits for it, . is ready")
    print(f"{BUS} ends after {schedule.response[BUS]} ticks, ", end="")
    print(f"{DEADLINE} are allowed: {'reset' if schedule.missed else 'in time'}")

    alone = blocking(0)
    for n in range(1, LONGEST + 1):
        if blocking(n) != alone + n:
            raise SystemExit(f"{n} ticks of communications were to cost as many")
        if blocking(n, later=1) != alone:
            raise SystemExit("who comes later was to do no harm")
    shown = (0, 1, 2, 5, 10, 20, LONGEST)
    print(f"communications, ticks  {''.join(f'{n:4}' for n in shown)}")
    print(f"it is blocked, ticks   {''.join(f'{blocking(n):4}' for n in shown)}")
    print(f"  if those come later  {''.join(f'{blocking(n, 1):4}' for n in shown)}")
    print(f"for who has the mutex it waits {alone} ticks, for who has not any number")


if __name__ == "__main__":
    main()
