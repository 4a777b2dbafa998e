"""A thread is stopped in the midst of its work: does another one wait, or go on?

That is what tells one way of locking from another. Two threads begin a job each; the
first comes to its stop, and only then the second begins. Either it ends while the first
one stands there; then it goes on. Or it comes to a lock, or to anything else where it
would have to wait for the first; then it waits. Both are events, so no time limit
decides.

Where to stop is up to the job: it calls `stop`, from a function that it passes, or from
a comparison of a key of its own. The locks are made by `lock`, and tell when a thread
finds them taken.

Output:
    the first thread has added 1 to half of the pair; the second reads
      one lock   waits    then (1, 1)
      no lock    goes on  with (1, 0)
    whoever waits cannot see what is half done
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext

LIMIT = 10.0  # seconds that a thread may wait for another


class TellingLock:
    """A lock that calls `on_wait` when a thread finds it taken and is about to wait."""

    def __init__(self, on_wait: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._on_wait = on_wait

    def acquire(self) -> bool:
        if not self._lock.acquire(blocking=False):
            self._on_wait()
            if not self._lock.acquire(timeout=LIMIT):
                raise TimeoutError("a lock was not released")
        return True

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Interleaving:
    """Stops a thread in the midst of its work, and sees how far another one gets.

    Each serves one run.
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()  # the first thread has come to its stop
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()  # of the second one
        self._outcome = "never stopped"

    def lock(self) -> TellingLock:
        """Return a lock at which it is seen that the second thread waits."""
        return TellingLock(self.wait)

    def wait(self) -> None:
        """Tell that the second thread is about to wait for the first."""
        self._news.put("waits")

    def stop(self) -> None:
        """Let the second thread begin; return when it has ended, or waits.

        Only the first call does so.

        Raises:
            TimeoutError: it did neither for LIMIT seconds.
        """
        if not self._stopped.is_set():
            self._stopped.set()
            try:
                self._outcome = self._news.get(timeout=LIMIT)
            except queue.Empty:
                raise TimeoutError("the second thread neither ends nor waits") from None

    def run(self, first: Callable[[], object], second: Callable[[], object]) -> str:
        """Run both; return "goes on" if the second ended during the first's stop.

        Otherwise "waits", or "never stopped" if the first did not call `stop`.

        Raises:
            RuntimeError: this is not the first run.
            TimeoutError: one has waited for the other for LIMIT seconds.
            Exception: what `first` or `second` raises.
        """
        if self._stopped.is_set():
            raise RuntimeError("each run needs an Interleaving of its own")

        def when_stopped() -> None:
            try:
                if not self._stopped.wait(LIMIT):
                    raise TimeoutError("the first thread neither stops nor ends")
                second()
            finally:
                self._news.put("goes on")

        with ThreadPoolExecutor(2) as pool:
            try:
                futures = [pool.submit(job) for job in (first, when_stopped)]
                wait(futures[:1])
            finally:  # also after Ctrl-C, perhaps with one of them not there yet
                self._stopped.set()
                self._news.put("aborted")
        for future in futures:
            future.result()
        return self._outcome


def read_half_way(
    lock: Callable[[], AbstractContextManager[object]], interleaving: Interleaving
) -> tuple[str, tuple[int, int]]:
    """Read a pair of numbers while 1 is being added to both; say what that did."""
    guard, pair, seen = lock(), [0, 0], (0, 0)

    def add() -> None:
        with guard:
            pair[0] += 1
            interleaving.stop()
            pair[1] += 1

    def read() -> None:
        nonlocal seen
        with guard:
            seen = pair[0], pair[1]

    return interleaving.run(add, read), seen


def main() -> None:
    print("the first thread has added 1 to half of the pair; the second reads")
    interleaving = Interleaving()
    locked = read_half_way(interleaving.lock, interleaving)
    print(f"  one lock   {locked[0]:7}  then {locked[1]}")
    unlocked = read_half_way(nullcontext, Interleaving())
    print(f"  no lock    {unlocked[0]:7}  with {unlocked[1]}")
    if (locked, unlocked) != (("waits", (1, 1)), ("goes on", (1, 0))):
        raise SystemExit("with a lock the second was to wait, and without to go on")
    print("whoever waits cannot see what is half done")


if __name__ == "__main__":
    main()
