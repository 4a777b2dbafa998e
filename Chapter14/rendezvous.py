"""A place in the code where threads meet, unless something keeps them apart.

To see a race every time, stop each thread at the fatal place until all others are there
as well. A barrier does that; but to see that a mend helps, the same must be tried with
the mend, and behind a lock only one gets there: at a barrier it would wait for ever.
This meeting place is the lock, too, so it knows who waits for it. It lets a thread go
on as soon as no other can come: each of them is there already, waits for the lock, or
has ended. No time limit decides that, and no sleep.

So one hook between two steps serves for both versions. In the broken one all threads
meet there, in the mended one each is alone.

Output:
    5 threads       met, at most
    no lock                    5
    in the lock                1
    2 have ended               3
    those meet whom nothing keeps apart
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds that a thread waits for the others


class Rendezvous:
    """A place in the code where each thread waits until no other can come there.

    Those cannot come that have ended, or wait for the lock which this is as well. So
    threads that nothing keeps apart meet all at once, and those that the lock keeps
    apart come one by one.

    Attributes:
        most: how many threads have been here at once, at most.
    """

    def __init__(self) -> None:
        # Guards all that follows; notified when some who wait for it may go on.
        self._changed = threading.Condition()
        self._running = 0  # threads that may still come here
        self._here = self.most = 0
        self._openings = 0  # how often those who were here have been let go
        self._asked = self._released = 0  # how often the lock was
        self._aborted = False

    def run(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        """Do the jobs, each in a thread of its own; return what they return. Once only.

        Raises:
            TimeoutError: a thread has waited for LIMIT seconds.
            Exception: what a job raises.
        """

        def work(job: Callable[[], T]) -> T:
            try:
                return job()
            finally:
                with self._changed:
                    self._stop()

        self._running = len(jobs)
        with ThreadPoolExecutor(len(jobs)) as pool:
            try:
                return [f.result() for f in [pool.submit(work, job) for job in jobs]]
            finally:  # also after Ctrl-C, perhaps with some of them not there yet
                with self._changed:
                    self._aborted = True
                    self._changed.notify_all()

    def meet(self) -> None:
        """Wait, in a job, until each other thread is here, too, or cannot come."""
        with self._changed:
            self._here += 1
            self.most = max(self.most, self._here)
            before = self._openings
            self._stop()
            self._wait_for(lambda: self._openings > before)

    def __enter__(self) -> None:
        with self._changed:
            before = self._asked
            self._asked += 1
            if before > self._released:
                self._stop()
                self._wait_for(lambda: self._released == before)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._released += 1
            if self._asked > self._released:
                self._running += 1  # the next one, even before it wakes up
                self._changed.notify_all()

    def _stop(self) -> None:
        self._running -= 1
        if self._running <= 0:  # less: this is no job, and there are no others
            self._running, self._here = self._here, 0
            self._openings += 1
            self._changed.notify_all()

    def _wait_for(self, condition: Callable[[], bool]) -> None:
        if not self._changed.wait_for(lambda: self._aborted or condition(), LIMIT):
            raise TimeoutError(f"a thread has waited for {LIMIT:g} s")
        if self._aborted:
            raise threading.BrokenBarrierError("the rendezvous was aborted")


def main() -> None:
    def in_the_lock() -> None:
        with place:
            place.meet()

    print("5 threads       met, at most")
    for name, met in (("no lock", 5), ("in the lock", 1), ("2 have ended", 3)):
        place = Rendezvous()
        try:
            if name == "in the lock":
                place.run([in_the_lock] * 5)
            elif name == "no lock":
                place.run([place.meet] * 5)
            else:
                place.run([place.meet] * 3 + [lambda: None] * 2)
        except TimeoutError as error:
            raise SystemExit(f"nobody was to wait so long: {error}") from None
        print(f"{name:14} {place.most:13}")
        if place.most != met:
            raise SystemExit(f"{name}: {met} threads were to meet")
    print("those meet whom nothing keeps apart")


if __name__ == "__main__":
    main()
