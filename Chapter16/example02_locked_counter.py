"""A lock makes the increment one step, and the counter keeps its specification.

Read, addition and write of an increment stand in one critical section. So the moment
at which it takes effect, its linearization point, is the write: as nobody can come
between, it is as if the whole increment happened there. The unlucky order of example01
is tried again. Who has read waits until each other thread has read, too, or has asked
for the lock. Now all others have asked, none of them has read, and none can.

Then many threads count, and ask for the value after each increment of their own. A
witness notes when increments begin and end, so that each answer can be held against the
specification: no less than had ended before, no more than had begun after, and no less
than the same thread was told before.

get() takes the lock as well. In CPython it need not: to read one attribute is one step
on every build, and finds a value that the counter has at that moment. But that is a
property of this interpreter, and of this value, one reference. A mean of a sum and a
count, read without the lock, may be made of two moments. To touch state only with its
lock held is a rule that needs no second thought.

Book: Chapter 16, example2.
Try:  --threads 2

Output:
    20 threads, once each  have read     get()
    no lock                       20         1
    one critical section           1        20
    20 threads, 500 times each
      20 of 20 were told what the specification allows, each time
      at the end get() returns 10000
    what is one step under a lock keeps the specification
"""

import argparse
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

from example01_lockless_counter import Counter, PausingInt, run_together, some

LIMIT = 10.0  # seconds that a thread waits for the others
INCREMENTS = 500  # of each thread that counts in front of the witness


class LockedCounter:
    """A counter for many threads.

    Linearization points: of `increment`, the write; of `get`, the read.

    Args:
        start: what it begins with.
    """

    def __init__(self, start: int = 0) -> None:
        # Guards the value, for reading and for writing.
        self._lock: AbstractContextManager[object] = threading.Lock()
        self._value = start

    def increment(self) -> None:
        """Add 1."""
        with self._lock:
            self._value += 1

    def get(self) -> int:
        """Return the value."""
        with self._lock:
            return self._value


class Meeting:
    """A place, and a lock before it: threads wait there until all have come to either.

    Args:
        n_threads: that will come, each once.

    Attributes:
        most: how many threads have been at the place at once, at most.
    """

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._lock = threading.Lock()
        # Guards what follows, and is notified when a thread has come.
        self._changed = threading.Condition()
        self._come: set[int] = set()  # to the lock or to the place
        self._here = self.most = 0

    def __enter__(self) -> None:
        with self._changed:
            self._come_in()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def meet(self) -> None:
        """Wait at the place until each thread is there, or has asked for the lock.

        Raises:
            TimeoutError: one did not within LIMIT seconds.
        """
        with self._changed:
            self._come_in()
            self._here += 1
            self.most = max(self.most, self._here)
            if not self._changed.wait_for(self._complete, LIMIT):
                raise TimeoutError("a thread did not come")
            self._here -= 1

    def _come_in(self) -> None:
        self._come.add(threading.get_ident())
        self._changed.notify_all()

    def _complete(self) -> bool:
        return len(self._come) == self._n_threads


class MeetingCounter(LockedCounter):
    """The same, but its threads wait at a meeting: for the lock, and after the read."""

    def __init__(self, meeting: Meeting) -> None:
        super().__init__(PausingInt(0, meeting.meet))
        self._lock = meeting


class Answer(NamedTuple):
    """What a counter has returned, and what it may return at least and at most.

    Attributes:
        ended: increments that had ended when the counter was asked.
        value: what it returned.
        begun: increments that had begun when it returned.
    """

    ended: int
    value: int
    begun: int


class Witness:
    """Knows how many increments have begun and ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both numbers
        self._begun = self._ended = 0

    def call(self, increment: Callable[[], object]) -> None:
        """Increment. Not one at a time: the lock is free meanwhile."""
        with self._lock:
            self._begun += 1
        increment()
        with self._lock:
            self._ended += 1

    def ask(self, get: Callable[[], int]) -> Answer:
        """Ask a counter for its value, and return it with what it is to be held to."""
        with self._lock:
            ended = self._ended
        value = get()
        with self._lock:
            return Answer(ended, value, self._begun)


def count_and_ask(
    witness: Witness,
    increment: Callable[[], object],
    get: Callable[[], int],
    times: int,
) -> list[Answer]:
    """Increment so often, and ask after each time; return the answers."""
    answers = []
    for _ in range(times):
        witness.call(increment)
        answers.append(witness.ask(get))
    return answers


def keeps(answers: Sequence[Answer]) -> bool:
    """Tell whether what one thread was told, in this order, is what it may be told."""
    values = [one.value for one in answers]
    return values == sorted(values) and all(
        one.ended <= one.value <= one.begun for one in answers
    )


def demonstrate(n: int) -> None:
    """Check each claim with `n` threads, and print it."""

    def try_to_meet(
        name: str, meeting: Meeting, counter: Counter | LockedCounter, together: int
    ) -> None:
        run_together([counter.increment] * n)
        print(f"{name:22}{meeting.most:10}{counter.get():10}")
        if (meeting.most, counter.get()) != (together, n + 1 - together):
            raise SystemExit(f"{name}: {together} were to meet between read and write")

    print(f"{f'{n} threads, once each':22} have read     get()")
    meeting = Meeting(n)
    try_to_meet("no lock", meeting, Counter(PausingInt(0, meeting.meet)), n)
    meeting = Meeting(n)
    try_to_meet("one critical section", meeting, MeetingCounter(meeting), 1)

    counter, witness = LockedCounter(), Witness()
    job = partial(count_and_ask, witness, counter.increment, counter.get, INCREMENTS)
    told = run_together([job] * n)
    total = n * INCREMENTS
    print(f"{n} threads, {INCREMENTS} times each")
    kept = sum(keeps(answers) for answers in told)
    print(f"  {kept} of {n} were told what the specification allows, each time")
    print(f"  at the end get() returns {counter.get()}")
    if kept != n or counter.get() != total:
        raise SystemExit(f"get() was to keep its specification, and to end at {total}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=20)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads)
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error}") from None
    print("what is one step under a lock keeps the specification")


if __name__ == "__main__":
    main()
