"""Two threads count down, one after the other or at the same time.

`start()` makes a new thread, and that thread calls `run()`. A call of `run()` itself
makes no thread: it is a call like any other, in the caller's thread. `join()` waits
until a thread has ended; to start it once more is an error.

If each thread is joined before the next is started, their waits add up. If both are
started first, they are in progress at the same time: each has begun before the other
has ended. Here that shows in every run, because neither goes on before both have met
at a barrier.

Book: Chapter 3, example1.
Try:  --delay 0.5

Output:
    called run()         in MainThread: no new thread
    called start()       in A and B, which count 3 2 1
    started once more    RuntimeError: threads can only be started once

    two countdowns
      one by one           0.31 s   B began when A had ended
      at the same time     0.15 s   each began before either ended
    overlapped, they are   1.99x as fast
"""

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

FIRST = 3  # the number that a countdown begins with
START_LIMIT = 10.0  # seconds until both threads must have begun


class CountDown(threading.Thread):
    """A thread that counts down from `first` to 1 and waits before each number.

    Args:
        delay: seconds to wait before a number.
        when_begun: called in the new thread before it counts, so that a caller can
            decide when it goes on.

    Attributes:
        counted: the numbers so far.
        ran_in: the name of the thread that called `run`.
        began, ended: when, by `time.perf_counter`.

    The attributes are written by one thread only. Others read them after `join`.
    """

    def __init__(
        self,
        name: str,
        first: int,
        delay: float,
        when_begun: Callable[[], object] = lambda: None,
    ) -> None:
        super().__init__(name=name)  # must come first: it makes this a thread
        self.counted: list[int] = []
        self.ran_in = "no thread"
        self.began = self.ended = 0.0
        self._first = first
        self._delay = delay
        self._when_begun = when_begun

    def run(self) -> None:
        self.ran_in = threading.current_thread().name
        self.began = time.perf_counter()
        self._when_begun()
        for number in range(self._first, 0, -1):
            time.sleep(self._delay)
            self.counted.append(number)
        self.ended = time.perf_counter()


def run_one_by_one(threads: Sequence[threading.Thread]) -> None:
    """Start each thread when the one before has ended."""
    for thread in threads:
        thread.start()
        thread.join()


def run_at_the_same_time(threads: Sequence[threading.Thread]) -> None:
    """Start all threads, then wait for all of them.

    If one cannot be started, those before it are left running.
    """
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def in_progress_together(a: CountDown, b: CountDown) -> bool:
    """Tell whether each of two ended threads had begun before the other ended."""
    return max(a.began, b.began) < min(a.ended, b.ended)


def seconds(text: str) -> float:
    number = float(text)
    if not 0.01 <= number <= 1:
        raise argparse.ArgumentTypeError(f"must be from 0.01 to 1, not {number:g}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--delay", type=seconds, default=0.05)
    delay = parser.parse_args().delay

    called = CountDown("called", FIRST, 0)
    called.run()
    print(f"called run()         in {called.ran_in}: no new thread")

    one_by_one = [CountDown(name, FIRST, delay) for name in "AB"]
    began = time.perf_counter()
    run_one_by_one(one_by_one)
    sequential = time.perf_counter() - began

    both_have_begun = threading.Barrier(2, timeout=START_LIMIT)

    def meet() -> None:
        with suppress(threading.BrokenBarrierError):  # the others have given up
            both_have_begun.wait()

    together = a, b = [CountDown(name, FIRST, delay, meet) for name in "AB"]
    began = time.perf_counter()
    try:
        run_at_the_same_time(together)
    except BaseException:  # Ctrl-C, perhaps before B has started
        both_have_begun.abort()  # A need not wait for it any longer
        raise
    concurrent = time.perf_counter() - began

    counted = " ".join(map(str, a.counted))
    print(f"called start()       in {a.ran_in} and {b.ran_in}, which count {counted}")
    try:
        a.start()
    except RuntimeError as error:
        print(f"started once more    RuntimeError: {error}")
    else:
        raise SystemExit("a thread was started twice")

    everything = list(range(FIRST, 0, -1))
    if any(thread.counted != everything for thread in [called, *one_by_one, *together]):
        raise SystemExit("a countdown is not complete")
    if called.ran_in != "MainThread" or (a.ran_in, b.ran_in) != ("A", "B"):
        raise SystemExit("run() was not called in the thread expected")
    if in_progress_together(*one_by_one) or not in_progress_together(a, b):
        raise SystemExit("only the last two threads should have run together")
    print()
    print("two countdowns")
    print(f"  one by one         {sequential:6.2f} s   B began when A had ended")
    print(f"  at the same time   {concurrent:6.2f} s   each began before either ended")
    print(f"overlapped, they are {sequential / concurrent:6.2f}x as fast")


if __name__ == "__main__":
    main()
