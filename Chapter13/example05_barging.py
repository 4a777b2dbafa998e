"""Who comes now overtakes who waits: a lock that allows it lets a thread starve.

When a lock is released, the thread that is first in the queue is woken, but the lock is
not kept for it. Until it has been given a processor, any other may take the lock; the
woken one finds it taken, and waits again, behind all others. That is called barging.
Here A releases the lock and takes it again before B, which was woken by that, looks; a
barrier makes it happen as often as one likes. So there is no bound to how often a
waiter is overtaken: the lock is never free for long, all others make progress, and one
starves.

Most locks are made like that on purpose. The lock is not idle while the woken thread
is on its way, and who needs it often can have it often without a switch of threads.
Handing it over to the longest waiter each time would cost one switch for each critical
section: a lock convoy. See example06 for such locks, and what they cost.

`threading.Lock` promises nothing: which of the waiting threads proceeds is not defined,
says its documentation. What it does is measured below, in a loop that releases it and
takes it again at once. From Python 3.13.1 on, who has waited for more than a
millisecond is handed the lock (TIME_TO_BE_FAIR_NS in CPython's Python/lock.c), so that
nobody who has waited for 5 ms is overtaken. Before that the scheduler of the operating
system decides: from about half of them to all.

Try:  --overtakings 5000
Try:  --threads 8

Output:
    a lock that allows barging: B is woken 101 times,
      100 times A has taken it again, and B waits on
    threading.Lock, 4 threads that take it again at once
      acquisitions    133,882 /s
      longest row         0.7 % of them, by one thread
      longest wait        0.3 ms
      Jain's index         94 %
      overtaken            70 % of who has waited 5 ms
    who is woken has the lock not yet: there is no bound to being overtaken
"""

import argparse
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from typing import Self

LIMIT = 10.0  # seconds for what is bound to come
DURATION = 0.1  # seconds for which threads contend for a lock
WAITED = 0.005  # seconds after which a waiter is overtaken, or not
ROUNDS = 20  # of that


class BargingLock:
    """A lock that is open to whoever comes first after a release, woken or new.

    Args:
        on_woken: called in a thread that was woken, before it looks whether the lock is
            still free. It lets a caller decide who runs meanwhile.
    """

    def __init__(self, on_woken: Callable[[], object] = lambda: None) -> None:
        self._on_woken = on_woken
        # Guards what follows, and is notified when a thread begins to wait.
        self._changed = threading.Condition()
        self._held = False
        self._gates: deque[threading.Lock] = deque()  # a locked one for each waiter

    def acquire(self) -> None:
        """Wait for the lock.

        Raises:
            TimeoutError: this thread was not woken for LIMIT seconds.
        """
        while (gate := self._take_or_queue()) is not None:
            try:
                woken = gate.acquire(timeout=LIMIT)  # until release() has opened it
                if woken:
                    self._on_woken()  # whoever comes now overtakes this thread
            except BaseException:
                self._give_up(gate)
                raise
            if not woken:
                self._give_up(gate)
                raise TimeoutError("no release has woken this thread")

    def _take_or_queue(self) -> "threading.Lock | None":
        """Take the lock if it is free, or else return the gate to wait at."""
        with self._changed:
            if not self._held:
                self._held = True
                return None
            gate = threading.Lock()
            gate.acquire()
            self._gates.append(gate)
            self._changed.notify_all()
            return gate

    def _give_up(self, gate: threading.Lock) -> None:
        """Leave the queue; if this one was woken, the next one is woken instead."""
        with self._changed:
            if gate in self._gates:
                self._gates.remove(gate)
            elif not self._held and self._gates:
                self._gates.popleft().release()

    def release(self) -> None:
        """Free the lock, and wake who is first in the queue: a hint, not a promise."""
        with self._changed:
            self._held = False
            if self._gates:
                self._gates.popleft().release()

    def until_waiting(self, timeout: float) -> None:
        """Wait until a thread waits for the lock.

        Raises:
            TimeoutError: none did within `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._gates, timeout):
                raise TimeoutError("nobody waits for the lock")

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def overtake(times: int) -> list[str]:
    """Let A overtake B, who waits for a lock, so many times; return what happened.

    Raises:
        TimeoutError, threading.BrokenBarrierError: B did not wait, or was not woken.
    """
    log: list[str] = []
    both = threading.Barrier(2, timeout=LIMIT)

    def on_woken() -> None:
        both.wait()
        log.append("B looks")

    lock = BargingLock(on_woken)

    def a() -> None:
        with lock:
            both.wait()  # B comes
            for _ in range(times):
                lock.until_waiting(LIMIT)
                lock.release()  # B is woken ...
                lock.acquire()
                log.append("A has it")
                both.wait()  # ... and looks now
            lock.until_waiting(LIMIT)
        both.wait()

    def b() -> None:
        both.wait()
        with lock:
            log.append("B has it")

    with ThreadPoolExecutor(2) as pool:
        try:
            futures = [pool.submit(a), pool.submit(b)]
            wait(futures)
        except BaseException:  # Ctrl-C, perhaps with one of them not there yet
            both.abort()
            raise
    for future in futures:
        future.result()
    return log


@dataclass(frozen=True, slots=True)
class Contention:
    """How it went when threads took a lock, released it and took it again at once.

    Attributes:
        rate: acquisitions a second, of all threads together.
        longest_row: share of the acquisitions that were one thread's, in a row.
        longest_wait: seconds that one thread has waited for one acquisition.
        fairness: Jain's index of how often each had the lock, from 1/n to 1.
    """

    rate: float
    longest_row: float
    longest_wait: float
    fairness: float


def jain(shares: Sequence[float]) -> float:
    """Return Jain's fairness index of what each has got: 1/n … 1, 1 if all is equal."""
    squares = sum(share * share for share in shares)
    return sum(shares) ** 2 / (len(shares) * squares) if squares else 1.0


def contend(
    lock: AbstractContextManager[object], n_threads: int, duration: float
) -> Contention:
    """Let threads contend for `lock`, for `duration` seconds.

    All of them wait for it at the beginning, when nobody has had it yet.
    """
    owners: list[int] = []  # in the order in which they had the lock, which guards it
    longest_waits = [0.0] * n_threads
    come = threading.Semaphore(0)
    futures: list[Future[None]] = []
    begin = end = 0.0

    def start_all() -> None:
        nonlocal begin, end
        with lock:
            futures.extend(pool.submit(work, me) for me in range(n_threads))
            for _ in futures:
                come.acquire(timeout=LIMIT)
            begin = time.perf_counter()
            end = begin + duration

    def work(me: int) -> None:
        longest = now = 0.0
        come.release()
        while now <= end:
            asked = time.perf_counter()
            with lock:
                now = time.perf_counter()
                owners.append(me)
            longest = max(longest, now - max(asked, begin))
        longest_waits[me] = longest

    with ThreadPoolExecutor(n_threads + 1) as pool:
        try:
            pool.submit(start_all).result()
            wait(futures)
            taken = time.perf_counter() - begin
        finally:
            end = 0.0  # after Ctrl-C, threads still run
    for future in futures:
        future.result()
    return Contention(
        rate=len(owners) / taken,
        longest_row=max(len(list(row)) for _, row in groupby(owners)) / len(owners),
        longest_wait=max(longest_waits),
        fairness=jain([owners.count(me) for me in range(n_threads)]),
    )


def share_overtaken(lock: threading.Lock, waited: float, rounds: int) -> float:
    """Return how often a release and an acquire at once overtake one who waits, 0 … 1.

    Args:
        waited: seconds for which it has waited then (less on a busy machine).
    """

    been_there: list[int] = []  # the rounds in which it had the lock, which guards it

    def overtake_it() -> int:
        overtaken = 0
        for n in range(rounds):
            with lock:
                waiter = pool.submit(wait_for_it, n)
                time.sleep(waited)
                lock.release()
                lock.acquire()
                overtaken += n not in been_there
            waiter.result()
        return overtaken

    def wait_for_it(n: int) -> None:
        with lock:
            been_there.append(n)

    with ThreadPoolExecutor(2) as pool:
        return pool.submit(overtake_it).result() / rounds


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
    parser.add_argument("--overtakings", type=in_range(1, 10_000), default=100)
    parser.add_argument("--threads", type=in_range(2, 50), default=4)
    options = parser.parse_args()
    times, n_threads = options.overtakings, options.threads

    try:
        log = overtake(times)
    except (TimeoutError, threading.BrokenBarrierError) as error:
        raise SystemExit(f"B was to wait, and to be woken: {error!r}") from None
    if log != [*["A has it", "B looks"] * times, "B looks", "B has it"]:
        raise SystemExit(f"B was to be overtaken {times} times: {log[:6]} ...")
    print(f"a lock that allows barging: B is woken {log.count('B looks')} times,")
    print(f"  {log.count('A has it')} times A has taken it again, and B waits on")

    lock = threading.Lock()
    went = contend(lock, n_threads, DURATION)
    print(f"threading.Lock, {n_threads} threads that take it again at once")
    print(f"  acquisitions  {went.rate:9,.0f} /s")
    print(f"  longest row   {100 * went.longest_row:9.1f} % of them, by one thread")
    print(f"  longest wait  {1000 * went.longest_wait:9.1f} ms")
    print(f"  Jain's index  {100 * went.fairness:9.0f} %")
    overtaken = 100 * share_overtaken(lock, WAITED, ROUNDS)
    print(f"  overtaken     {overtaken:9.0f} % of who has waited {1000 * WAITED:g} ms")
    print("who is woken has the lock not yet: there is no bound to being overtaken")


if __name__ == "__main__":
    main()
