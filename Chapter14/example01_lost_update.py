"""Twenty threads add one to a counter, and nineteen of the additions are lost.

Each thread reads the counter, computes, and writes the result back. While it computes,
the others may read the same old value; then all of them write the same new one. On a
quiet machine that is rare, which is what makes it dangerous. Here a barrier between
read and write brings about the unlucky timing in every run: nobody writes before all
have read.

The mend is to make read, compute and write one critical section: see example02.

Book: Chapter 14, example1.
Try:  --threads 2

Output:
    threads            20
    counter             1
    updates lost       19
"""

import argparse
import threading
from collections.abc import Callable

LIMIT = 10.0  # seconds that a thread waits for the others


class Counter:
    """A counter whose increment is three steps, not one.

    Args:
        between: called after the read and before the write. It stands for the
            computation that a real program does there, and lets a caller decide who
            runs meanwhile.
    """

    def __init__(self, between: Callable[[], object] = lambda: None) -> None:
        self.value = 0  # guarded by nothing: that is the defect
        self._between = between

    def increment(self) -> None:
        seen = self.value
        self._between()  # another thread reads the same value here ...
        self.value = seen + 1  # ... and both write the same successor


def count_with_threads(counter: Counter, n_threads: int) -> int:
    """Increment `counter` once in each of `n_threads` threads; return its value."""
    threads = [  # daemons: after Ctrl-C nobody waits for those that wait in `between`
        threading.Thread(target=counter.increment, daemon=True)
        for _ in range(n_threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counter.value


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=20)
    n_threads = parser.parse_args().threads

    all_have_read = threading.Barrier(n_threads, timeout=LIMIT)
    final = count_with_threads(Counter(between=all_have_read.wait), n_threads)

    print(f"threads      {n_threads:8}")
    print(f"counter      {final:8}")
    print(f"updates lost {n_threads - final:8}")
    if final != 1:
        raise SystemExit("the race did not show: every thread should have written 1")


if __name__ == "__main__":
    main()
