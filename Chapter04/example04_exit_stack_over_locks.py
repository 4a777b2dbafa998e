"""All of several locks or none of them, with a single time limit for all.

How many locks are needed is often known only at run time: one for each account that a
transfer touches. An ExitStack collects what has been taken so far. When the third
cannot be had, the two before are given back, the last first, and no other.

The locks are taken in one global order, whatever order the caller names them in, so
that two callers cannot each hold what the other wants. `id` is such an order, as good
as any within one process. A rank that the program gives (a level in a hierarchy, an
account number) also is the same in every run and can be read in a log.

Try:  --locks 8

Output:
    held by another  missed in time  free afterwards
    lock 0           lock 0          1 2 3 4
    lock 1           lock 1          0 2 3 4
    lock 2           lock 2          0 1 3 4
    lock 3           lock 3          0 1 2 4
    lock 4           lock 4          0 1 2 3
    named in opposite orders by 2 threads: all taken 400 times
    a reservation that fails half made keeps none, one that is made keeps all
"""

import argparse
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Protocol, TypeVar

TIME_LIMIT = 10.0  # seconds for locks that nobody keeps
ROUNDS = 200


class Acquirable(Protocol):
    """What Lock, RLock, Semaphore and Condition have in common.

    (A Condition is its lock: two that share one are one.)
    """

    def acquire(self, *, timeout: float) -> bool: ...

    def release(self) -> None: ...


L = TypeVar("L", bound=Acquirable)


@contextmanager
def acquire_all(
    locks: Iterable[L], timeout: float, rank: Callable[[L], Any] = id
) -> Iterator[None]:
    """Hold all of `locks` during the block; if they cannot all be had, hold none.

    A Ctrl-C between an acquire and the note that it succeeded leaves that one lock
    locked: Python code cannot rule it out. It hits the main thread only.

    Args:
        locks: in any order.
        timeout: seconds that all of them together may be waited for.
        rank: what to sort by, the same for all callers. Equals are sorted by `id`.

    Raises:
        ValueError: a lock is named twice, or `timeout` is negative or not a number.
        TimeoutError: a lock was not free in time; the message says which.
    """
    named = list(locks)
    if len({id(lock) for lock in named}) < len(named):
        raise ValueError("a lock is named twice")
    if not timeout >= 0:
        raise ValueError(f"the time-out cannot be {timeout:g} s")
    position = {id(lock): n for n, lock in enumerate(named)}
    deadline = time.monotonic() + timeout
    with ExitStack() as taken:
        for lock in sorted(named, key=lambda lock: (rank(lock), id(lock))):
            left = min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
            if not lock.acquire(timeout=left):
                n = position[id(lock)]
                raise TimeoutError(f"lock {n} not free within {timeout:g} s")
            taken.callback(lock.release)
        yield


class Reservation:
    """Holds all of `locks` from its making until `close`, for a job without a block.

    Args:
        locks, timeout: as for `acquire_all`, whose exceptions are raised.
        prepare: called with the locks held; if it raises, they are given back.
    """

    def __init__(
        self,
        locks: Iterable[Acquirable],
        timeout: float,
        prepare: Callable[[], object] = lambda: None,
    ) -> None:
        with ExitStack() as undo:
            undo.enter_context(acquire_all(locks, timeout))
            prepare()
            self._undo = undo.pop_all()  # all went well: nothing is undone yet

    def close(self) -> None:
        """Release the locks, in the thread that took them. Again: no effect."""
        self._undo.close()


def free_ones(locks: Iterable[Acquirable]) -> list[int]:
    """Return the positions of the locks that can be had at once."""
    free = []
    for n, lock in enumerate(locks):
        if lock.acquire(timeout=0):
            lock.release()
            free.append(n)
    return free


def take_often(locks: Sequence[threading.Lock], times: int) -> int:
    """Take all of `locks` again and again; return how often that went well."""
    for _ in range(times):
        with acquire_all(locks, TIME_LIMIT):
            assert not free_ones(locks)
    return times


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--locks", type=some, default=5)
    n_locks = parser.parse_args().locks
    locks = [threading.Lock() for _ in range(n_locks)]

    print("held by another  missed in time  free afterwards")
    with ThreadPoolExecutor(max_workers=1) as another_thread:
        for k, lock in enumerate(locks):
            others = [n for n in range(n_locks) if n != k]
            another_thread.submit(lock.acquire).result()
            message = ""
            try:
                with acquire_all(locks, 0.01, rank=locks.index):
                    raise SystemExit("took a lock that another thread holds")
            except TimeoutError as error:
                message = str(error)
            if not message.startswith(f"lock {k} ") or free_ones(locks) != others:
                raise SystemExit(f"{message}; free: {free_ones(locks)}")
            print(f"lock {k:<11} lock {k:<10} {' '.join(map(str, others))}")
            another_thread.submit(lock.release).result()

    # Not in this thread, which Ctrl-C might stop with a lock in its hands.
    with ThreadPoolExecutor(max_workers=2) as threads:
        orders = [locks, locks[::-1]]
        taken = list(threads.map(take_often, orders, [ROUNDS] * 2))
    print(f"named in opposite orders by 2 threads: all taken {sum(taken)} times")

    def failing() -> None:
        assert not free_ones(locks)  # all of them are held
        raise OSError("cannot prepare")

    with suppress(OSError):
        Reservation(locks, TIME_LIMIT, prepare=failing)
    after_failure = free_ones(locks)
    reservation = Reservation(locks, TIME_LIMIT)
    during = free_ones(locks)
    reservation.close()
    if (len(after_failure), during, len(free_ones(locks))) != (n_locks, [], n_locks):
        raise SystemExit(f"reservation: {after_failure}, then {during}")
    print("a reservation that fails half made keeps none, one that is made keeps all")


if __name__ == "__main__":
    main()
