"""A lock makes read, compute and write one step, and no addition is lost.

The twenty threads of example01 again, and the same attempt to make them lose updates:
who has read the counter waits until no other thread can come and read it, too. Without
the lock that is when all have read it. With the lock it is at once when nineteen wait
for it. The one goes on and writes, and the next one reads what it wrote.

What stands between acquire and release is a critical section, and read and write must
stand in the same one. To hold the lock for the read, and again for the write, is a
common mistake and no help: all threads meet between the two.

Book: Chapter 14, example2.
Try:  --threads 2

Output:
    20 threads            have read  updates lost
    no lock                       20            19
    a lock in each step           20            19
    one critical section           1             0
    read and write have to be one critical section
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rendezvous import Rendezvous


class Counter:
    """A counter whose increment is one critical section.

    Args:
        lock: held from before the read until after the write.
        between: called after the read and before the write. It stands for the
            computation that a real program does there, and lets a caller decide who
            runs meanwhile.
    """

    def __init__(
        self,
        lock: AbstractContextManager[object],
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self.value = 0  # guarded by the lock
        self._lock = lock
        self._between = between

    def increment(self) -> None:
        with self._lock:
            seen = self.value
            self._between()
            self.value = seen + 1


class LockedStepsCounter(Counter):
    """Broken: each step holds the lock, and nothing holds the steps together."""

    def increment(self) -> None:
        with self._lock:
            seen = self.value
        self._between()  # another thread reads the same value here
        with self._lock:
            self.value = seen + 1


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def demonstrate(n: int) -> None:
    """Check each claim, and print it."""

    def report(name: str, place: Rendezvous, counter: Counter, together: int) -> None:
        place.run([counter.increment] * n)
        print(f"{name:21} {place.most:10} {n - counter.value:13}")
        if (place.most, counter.value) != (together, n + 1 - together):
            raise SystemExit(f"{name}: {together} were to meet between read and write")

    print(f"{f'{n} threads':21} have read  updates lost")
    place = Rendezvous()
    report("no lock", place, Counter(nullcontext(), place.meet), n)
    place = Rendezvous()
    report("a lock in each step", place, LockedStepsCounter(place, place.meet), n)
    place = Rendezvous()
    report("one critical section", place, Counter(place, place.meet), 1)
    print("read and write have to be one critical section")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=20)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads)
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error}") from None


if __name__ == "__main__":
    main()
