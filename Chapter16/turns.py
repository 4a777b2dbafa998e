"""Threads run one at a time, from mark to mark, and somebody says who runs next.

So any interleaving of the marked steps can be had, and had again: all of them, one
after the other, or one that is drawn from a seed. The threads are real. Each waits at a
gate of its own until it is its turn, and hands the turn back at its next mark.

A lock that a thread waits for has to be known, or the thread that has the turn would
block, and nobody could hand it on. `TurnLock` is such a lock. Its thread is not chosen
until it is free; if nobody can be chosen, that is a deadlock, and an error.

Lincheck does the same for the JVM, and the explorer of Chapter 19 with bytecodes as its
steps, where nothing needs to be marked.

Output:
    1 is added twice, in all orders of the four steps
      A A B B  2
      A B A B  1
      A B B A  1
      B A A B  1
      B A B A  1
      B B A A  2
    two locks are taken in opposite orders, in turns: a deadlock of A, B
    a seed makes the same schedule each time
"""

import itertools
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")

# Given those that can run, says who does.
Choose = Callable[[Sequence[str]], str]

LIMIT = 10.0  # seconds that a thread may take from one mark to the next


class NoMoreTurnsError(BaseException):
    """Raised in a thread that waits for its turn when there are no more.

    It is no Exception, so code that catches those lets it pass.
    """


class DeadlockError(RuntimeError):
    """All threads that have not ended wait for locks."""


class Turns:
    """Lets threads run one at a time, from one mark to the next. Plays once only.

    Attributes:
        current: the thread whose turn it is; "" before the first.
    """

    def __init__(self) -> None:
        # Only who has the turn uses what follows, the conductor or the thread that it
        # has chosen; they hand it over by the queues, which order all they do.
        self.current = ""
        self._waits_for: dict[str, TurnLock] = {}
        # A thread that gets True is to run, one that gets False is to end.
        self._gates: dict[str, SimpleQueue[bool]] = {}
        self._back: SimpleQueue[None] = SimpleQueue()  # to the conductor

    def mark(self) -> None:
        """End a step: here another thread may run."""
        me = self.current
        self._back.put(None)
        self._await_turn(me)

    def play(
        self,
        jobs: Mapping[str, Callable[[], object]],
        choose: Choose,
    ) -> None:
        """Do the jobs, each in a thread of its own.

        Args:
            jobs: by the thread's name.
            choose: called at each step with those that can run, in the order of `jobs`;
                returns who does.

        Raises:
            DeadlockError: nobody can run.
            ValueError: `choose` has returned somebody who cannot run.
            TimeoutError: a thread has come to no mark within LIMIT seconds. It is
                waited for all the same.
            Exception: what a job, or `choose`, raises.
        """

        def work(me: str) -> None:
            with suppress(NoMoreTurnsError):
                self._await_turn(me)
                try:
                    jobs[me]()
                finally:
                    running.remove(me)
                    self._back.put(None)

        running = list(jobs)
        self._gates = {thread: SimpleQueue() for thread in jobs}
        with ThreadPoolExecutor(len(jobs)) as pool:
            try:
                futures = [pool.submit(work, thread) for thread in jobs]
                while running:
                    able = [one for one in running if not self._is_blocked(one)]
                    if not able:
                        raise DeadlockError(f"a deadlock of {', '.join(running)}")
                    self.current = choose(able)
                    if self.current not in able:
                        raise ValueError(f"{self.current} cannot run")
                    self._gates[self.current].put(True)
                    try:
                        self._back.get(timeout=LIMIT)
                    except Empty:
                        raise TimeoutError(f"no mark within {LIMIT:g} s") from None
            finally:  # also after Ctrl-C, perhaps before all threads have started
                for gate in self._gates.values():
                    gate.put(False)
        for future in futures:
            future.result()

    def _await_turn(self, me: str) -> None:
        gate = self._gates[me]
        if not gate.get():
            gate.put(False)  # for the next mark, perhaps in a `finally`
            raise NoMoreTurnsError

    def _is_blocked(self, thread: str) -> bool:
        lock = self._waits_for.get(thread)
        return lock is not None and lock.is_held


class TurnLock:
    """A lock for threads that take turns; it is no mark if it is free."""

    def __init__(self, turns: Turns) -> None:
        self.is_held = False  # used by the thread only that has the turn
        self._turns = turns

    def __enter__(self) -> None:
        turns = self._turns
        if self.is_held:
            me = turns.current
            turns._waits_for[me] = self
            turns.mark()  # comes back when the lock is free
            del turns._waits_for[me]
        self.is_held = True

    def __exit__(self, *_: object) -> None:
        self.is_held = False


def all_schedules(play: Callable[[Choose], T]) -> Iterator[tuple[list[str], T]]:
    """Play a program in each of its schedules; yield each with what `play` returns.

    Args:
        play: plays the program on something new, and gives `Turns.play` what it gets to
            choose by. It must do the same each time.
    """
    left: list[list[str]] = [[]]  # beginnings of schedules that are still to be played
    while left:
        beginning = left.pop()
        schedule: list[str] = []
        result = play(partial(_next_choice, beginning, schedule, left))
        yield schedule, result


def _next_choice(
    beginning: Sequence[str],
    schedule: list[str],
    left: list[list[str]],
    able: Sequence[str],
) -> str:
    """Choose as `beginning` does, then the first; note what is left to be played."""
    n = len(schedule)
    if n < len(beginning):
        schedule.append(beginning[n])
    else:
        left.extend([*schedule, other] for other in reversed(able[1:]))
        schedule.append(able[0])
    return schedule[-1]


def add_twice(choose: Choose) -> int:
    """Let two threads add 1 to a number in two steps; return what it is then."""
    turns = Turns()
    number = 0

    def add() -> None:
        nonlocal number
        seen = number
        turns.mark()
        number = seen + 1

    turns.play({"A": add, "B": add}, choose)
    return number


def take_both(choose: Choose) -> None:
    """Let two threads take two locks in opposite orders, with a mark in between."""
    turns = Turns()
    one, two = TurnLock(turns), TurnLock(turns)

    def take(first: TurnLock, second: TurnLock) -> None:
        with first:
            turns.mark()
            with second:
                pass

    turns.play({"A": lambda: take(one, two), "B": lambda: take(two, one)}, choose)


def note_choice(drawn: list[str], dice: random.Random, able: Sequence[str]) -> str:
    drawn.append(dice.choice(able))
    return drawn[-1]


def main() -> None:
    print("1 is added twice, in all orders of the four steps")
    played = list(all_schedules(add_twice))
    for schedule, result in played:
        print(f"  {' '.join(schedule)}  {result}")
        if result != (2 if schedule[0] == schedule[1] else 1):
            raise SystemExit("an addition was to be lost if both have read first")
    if len(played) != 6:
        raise SystemExit(f"there are 6 orders, not {len(played)}")

    turn = itertools.cycle("AB")
    try:
        take_both(lambda _: next(turn))
    except DeadlockError as error:
        print(f"two locks are taken in opposite orders, in turns: {error}")
    else:
        raise SystemExit("A and B were to wait for each other")

    drawn: list[list[str]] = [[], []]
    for schedule in drawn:
        add_twice(partial(note_choice, schedule, random.Random(1)))
    if drawn[0] != drawn[1]:
        raise SystemExit("the same seed was to make the same schedule")
    print("a seed makes the same schedule each time")


if __name__ == "__main__":
    main()
