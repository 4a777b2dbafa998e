"""A semaphore lets at most so many threads in: here, as many as there are connections.

A semaphore is a counter that never goes below zero: acquire() takes one and waits
while there is none, release() gives one back. A lock is the special case of one, save
that a lock guards data and a semaphore counts what there is. A pool of connections has
both: the semaphore says how many are free, the pool which.

Any thread may release, whether or not it has acquired. Of one release too many a
`Semaphore` says nothing, and from then on lets one thread more in. A
`BoundedSemaphore` raises ValueError. So take the bounded one for a limit; the plain
one is for signals, where one thread acquires what another has released.

Source: E. W. Dijkstra, "Cooperating sequential processes", EWD 123, 1965.

Try:  --connections 8

Output:
    3 connections, 12 threads
    at work           at most 3, on each connection 1
    all lent          TimeoutError: nothing free within 0.01 s
    release too many  Semaphore(3) says nothing and lets 4 in
    release too many  BoundedSemaphore(3): ValueError, lets 3 in
    a limit holds if nobody can give back what was not taken
"""

import argparse
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Generic, TypeVar

LIMIT = 10.0  # seconds that a step of the demonstration may take

T = TypeVar("T")


class Pool(Generic[T]):
    """Lends resources to threads, each to one at a time.

    Raises:
        ValueError: there are no resources to lend.
    """

    def __init__(self, resources: Iterable[T]) -> None:
        # Both ends of a deque may be used without a lock. Whoever has acquired _free
        # finds a resource in it: one is put back before the release.
        self._resources = deque(resources)
        if not self._resources:
            raise ValueError("a pool needs at least one resource")
        self._free = threading.BoundedSemaphore(len(self._resources))

    @contextmanager
    def lent(self, timeout: float | None = None) -> Iterator[T]:
        """Lend a resource for the length of a `with` block.

        Raises:
            TimeoutError: none was free for `timeout` seconds (None: wait for ever).
        """
        if not self._free.acquire(timeout=timeout):
            raise TimeoutError(f"nothing free within {timeout} s")
        resource = self._resources.pop()  # the one used last: most likely still warm
        try:
            yield resource
        finally:
            self._resources.append(resource)
            self._free.release()


class Gauge:
    """Counts how many threads are inside `with gauge:`, and remembers the most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both counts
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


class Connection:
    """Stands for a connection to a database, which serves one query at a time."""

    def __init__(self) -> None:
        self.users = Gauge()

    def query(self, barrier: threading.Barrier) -> None:
        with self.users:
            barrier.wait(LIMIT)


def admitted(semaphore: threading.Semaphore) -> int:
    """Return how many threads could come in now. Nobody else may use `semaphore`."""
    count = 0
    while semaphore.acquire(blocking=False):
        count += 1
    for _ in range(count):
        semaphore.release()
    return count


def query_together(pool: Pool[Connection], n_together: int, n_queries: int) -> int:
    """Do queries, `n_together` at a time; return how many were at most in progress.

    Each query waits until `n_together` are in progress, so a pool that lends fewer
    connections ends in a BrokenBarrierError. `n_queries` is a multiple of `n_together`.
    """
    in_progress = Gauge()
    full = threading.Barrier(n_together)

    def query() -> None:
        with pool.lent(LIMIT) as connection, in_progress:
            connection.query(full)

    with ThreadPoolExecutor(n_queries) as threads:
        try:
            for future in [threads.submit(query) for _ in range(n_queries)]:
                future.result()
        except BaseException:  # Ctrl-C, perhaps before all threads have started
            full.abort()
            raise
    return in_progress.most


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=positive, default=3)
    k = parser.parse_args().connections
    n_queries = 4 * k

    connections = [Connection() for _ in range(k)]
    pool = Pool(connections)
    print(f"{k} connections, {n_queries} threads")
    most = query_together(pool, k, n_queries)
    shared = max(connection.users.most for connection in connections)
    print(f"at work           at most {most}, on each connection {shared}")
    if most != k or shared != 1:
        raise SystemExit("each connection was to serve one thread at a time")

    with ExitStack() as all_lent:
        for _ in range(k):
            all_lent.enter_context(pool.lent(0))
        try:
            with pool.lent(0.01):
                raise SystemExit("lent more connections than there are")
        except TimeoutError as error:
            print(f"all lent          TimeoutError: {error}")

    plain, bounded = threading.Semaphore(k), threading.BoundedSemaphore(k)
    plain.release()
    growth = admitted(plain)
    if growth != k + 1:
        raise SystemExit("the plain semaphore was to grow")
    print(f"release too many  Semaphore({k}) says nothing and lets {growth} in")
    try:
        bounded.release()
    except ValueError:
        left = admitted(bounded)
    else:
        raise SystemExit("the bounded semaphore was to refuse")
    if left != k:
        raise SystemExit("the bounded semaphore was to stay as it is")
    print(f"release too many  BoundedSemaphore({k}): ValueError, lets {left} in")
    print("a limit holds if nobody can give back what was not taken")


if __name__ == "__main__":
    main()
