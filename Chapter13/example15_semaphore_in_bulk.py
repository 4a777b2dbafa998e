"""Who wants many permits at once starves beside those who want one each.

Memory, connections, slots of a machine: one task needs four of them, others need one.
If permits go to whoever is content with what is free, a small one always is, and those
that are given back one by one never add up to four. Here each small one gets its permit
before the last one gives back its own, and the big one is overtaken by all of them,
however many come. Nor may it take them one by one: two who do so, and have half each,
wait for each other for ever (hold and wait: Chapter 12, example19).

`BulkSemaphore` serves in the order of arrival. Who comes later waits behind the big
one, even if a permit is free, and so the free ones add up. The big one waits only for
those who were there before it. The price is permits that lie idle meanwhile. Whoever
gives up leaves the queue, and those behind move up at once.

Java's `Semaphore(n, true)` and Go's `semaphore.Weighted` are of this kind. Those of
Python's standard library give one permit at a time.

Try:  --small 100

Output:
    one wants all of 4 permits; small ones come later, and want one each
    small ones       served before the big one, by
    that come later  whoever is content   first come first served
                  1                   1                         0
                 10                  10                         0
                 30                  30                         0
    the price: 3 permits lie idle while a small one waits behind the big
    the big one gives up: the small one behind it is let in
    in the order of arrival, who wants many waits only for those before it
"""

import argparse
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

PERMITS = 4
LIMIT = 10.0  # seconds for what is bound to come
MOST = 100  # small ones that may be asked for


class FirstFitSemaphore:
    """Gives permits to whoever is content with what is free.

    Broken: who wants many may be overtaken for ever.

    Args:
        on_wait: called, with the lock held, by a thread that is about to wait.
    """

    def __init__(self, permits: int, on_wait: Callable[[], object]) -> None:
        self._returned = threading.Condition()  # guards the number; notified of each
        self._free = permits
        self._on_wait = on_wait

    @contextmanager
    def take(self, n: int, timeout: float) -> Iterator[None]:
        """Hold n permits during the block.

        Raises:
            TimeoutError: they were not free within `timeout` seconds.
        """
        with self._returned:
            if self._free < n:
                self._on_wait()
            if not self._returned.wait_for(lambda: self._free >= n, timeout):
                raise TimeoutError(f"no {n} permits within {timeout:g} s")
            self._free -= n
        try:
            yield
        finally:
            with self._returned:
                self._free += n
                self._returned.notify_all()


class BulkSemaphore:
    """Gives any number of permits at once, strictly in the order of arrival.

    Who holds permits must not take more, lest two wait for each other: one for what
    the other holds, and that one behind it in the queue. Ctrl-C in the midst of taking
    or giving back may lose permits, which Python code cannot rule out; it strikes the
    main thread only.

    Args:
        on_wait: called by a thread that is about to wait, and has its place in the
            queue. It lets a caller decide what happens meanwhile.

    Attributes:
        free: permits that nobody holds.

    Raises:
        ValueError: `permits` is less than 1.
    """

    def __init__(
        self, permits: int, on_wait: Callable[[], object] = lambda: None
    ) -> None:
        if permits < 1:
            raise ValueError(f"{permits} permits")
        self._permits = permits
        self._on_wait = on_wait
        # Guards all that follows.
        self._lock = threading.Lock()
        self.free = permits
        # How many each one wants, and the gate at which it waits, a locked lock. The
        # first one wants more than are free.
        self._waiting: deque[tuple[int, threading.Lock]] = deque()

    @contextmanager
    def take(self, n: int, timeout: float) -> Iterator[None]:
        """Hold n permits during the block.

        Raises:
            TimeoutError: they could not be had within `timeout` seconds.
            ValueError: n is less than 1, or more than there are.
        """
        if not 1 <= n <= self._permits:
            raise ValueError(f"{n} permits of {self._permits}")
        self._acquire(n, timeout)
        try:
            yield
        finally:
            self._give_back(n)

    def _acquire(self, n: int, timeout: float) -> None:
        gate = threading.Lock()
        with self._lock:
            if not self._waiting and n <= self.free:
                self.free -= n
                return
            gate.acquire()
            self._waiting.append((n, gate))
        in_time = False
        try:
            self._on_wait()
            in_time = gate.acquire(timeout=max(0, min(timeout, threading.TIMEOUT_MAX)))
        finally:
            if not in_time:  # also after Ctrl-C
                self._leave(n, gate)
        if not in_time:
            raise TimeoutError(f"no {n} permits within {timeout:g} s")

    def _leave(self, n: int, gate: threading.Lock) -> None:
        with self._lock:
            if (n, gate) in self._waiting:
                self._waiting.remove((n, gate))
                self._serve()  # who was behind may be content with what is free
                return
        self._give_back(n)  # the gate was opened a moment too late

    def _give_back(self, n: int) -> None:
        with self._lock:
            self.free += n
            self._serve()

    def _serve(self) -> None:
        """Let in those who are first in the queue, as long as there is enough."""
        while self._waiting and self._waiting[0][0] <= self.free:
            n, gate = self._waiting.popleft()
            self.free -= n
            gate.release()


def compete(
    kind: type[FirstFitSemaphore] | type[BulkSemaphore], n_small: int
) -> list[str]:
    """Let one thread take all permits beside threads that take one each, in step.

    One small one has a permit when the big one comes. Each of the `n_small` others
    comes before the one before it gives back its own, and gives back its own when the
    next one has come.

    Returns:
        Who has had permits, in this order.
    """
    order: list[str] = []
    moves: queue.SimpleQueue[None] = queue.SimpleQueue()  # one is in, or has to wait
    ends: queue.SimpleQueue[None] = queue.SimpleQueue()
    may_leave = [queue.SimpleQueue[None]() for _ in range(n_small + 1)]
    semaphore = kind(PERMITS, lambda: moves.put(None))

    def small(number: int) -> None:
        with suppress(TimeoutError, queue.Empty):  # which others notice as well
            with semaphore.take(1, LIMIT):
                order.append(f"small {number}")
                moves.put(None)
                may_leave[number].get(timeout=LIMIT)
            ends.put(None)

    def big() -> None:
        with suppress(TimeoutError):
            with semaphore.take(PERMITS, LIMIT):
                order.append("big")
            ends.put(None)

    def start(function: Callable[..., None], *arguments: int) -> None:
        threads.append(threading.Thread(target=function, args=arguments, daemon=True))
        threads[-1].start()
        moves.get(timeout=LIMIT)

    threads: list[threading.Thread] = []
    start(small, 0)
    start(big)
    for number in range(1, n_small + 1):
        start(small, number)
        may_leave[number - 1].put(None)
        ends.get(timeout=LIMIT)
    may_leave[-1].put(None)
    for _ in range(2):
        ends.get(timeout=LIMIT)
    for thread in threads:
        thread.join(LIMIT)
    return order


def head_gives_up() -> list[int]:
    """Let a small one wait behind a big one, which gives up then.

    Returns:
        How many permits lay idle when the small one began to wait; nothing if it never
        did.

    Raises:
        queue.Empty: the small one was not let in.
    """
    idle: list[int] = []
    big_waits: queue.SimpleQueue[None] = queue.SimpleQueue()
    small_waits: queue.SimpleQueue[None] = queue.SimpleQueue()
    let_in: queue.SimpleQueue[None] = queue.SimpleQueue()

    def on_wait() -> None:
        if threading.current_thread() is big:
            big_waits.put(None)
            small_waits.get(timeout=LIMIT)  # only then the big one's time is over
        else:
            idle.append(semaphore.free)
            small_waits.put(None)

    def take(n: int, timeout: float) -> None:
        with suppress(TimeoutError, queue.Empty), semaphore.take(n, timeout):
            let_in.put(None)

    semaphore = BulkSemaphore(PERMITS, on_wait)
    big = threading.Thread(target=take, args=(PERMITS, 0), daemon=True)
    small = threading.Thread(target=take, args=(1, LIMIT), daemon=True)
    with semaphore.take(1, LIMIT):
        big.start()
        big_waits.get(timeout=LIMIT)
        small.start()
        let_in.get(timeout=LIMIT)
    big.join(LIMIT)
    small.join(LIMIT)
    return idle


def some(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MOST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", type=some, default=30)
    most = parser.parse_args().small

    print(
        f"one wants all of {PERMITS} permits; small ones come later, and want one each"
    )
    print("small ones       served before the big one, by")
    print("that come later  whoever is content   first come first served")
    try:
        for n_small in sorted({1, min(10, most), most}):
            first_fit = compete(FirstFitSemaphore, n_small).index("big") - 1
            in_order = compete(BulkSemaphore, n_small).index("big") - 1
            print(f"{n_small:15}{first_fit:20}{in_order:26}")
            if first_fit != n_small:
                raise SystemExit("all small ones were to overtake the big one")
            if in_order != 0:
                raise SystemExit("nobody was to overtake the big one")
        idle = head_gives_up()
    except queue.Empty:
        raise SystemExit("each one was to be let in") from None
    if idle != [PERMITS - 1]:
        raise SystemExit("all permits but one were to lie idle")
    print(
        f"the price: {idle[0]} permits lie idle while a small one waits behind the big"
    )
    print("the big one gives up: the small one behind it is let in")
    print("in the order of arrival, who wants many waits only for those before it")


if __name__ == "__main__":
    main()
