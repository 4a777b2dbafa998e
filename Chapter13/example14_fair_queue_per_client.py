"""A queue for each client, served in turn: nobody waits for one who puts in too much.

One loud client has a thousand jobs in the queue, and ten quiet ones come with one each.
First come, first served is fair to jobs, not to clients: all quiet ones wait for the
thousand. A limit to the length makes it worse: the loud one fills the queue, and the
quiet ones are refused.

Here each client has a queue of its own, and the queues have turns. Whoever comes with
one job waits for at most one turn of each other client, however many jobs these have. A
turn is one job, if all cost the same. The loud one loses little: its last job is
delayed by the ten of the others. The limit is one for each client, so that only who has
filled it is refused.

Jobs that cost more are to have fewer turns. That is deficit round robin: a turn gives a
client some credit, and lasts until its next job costs more than is left, which is kept
for the next turn. Clients who always have jobs get equal shares of the work, however
large their jobs. Linux shares a network line in this way (fq_codel, RFC 8290).

Try:  --jobs 20000

Output:
    a loud client with 1000 jobs, then 10 quiet ones with one each
    jobs that come before      first come first served    in turn
      a quiet one's, at most                      1009         10
      the loud one's last                          999       1009
    if full, refused is        whoever comes                 loud
    work done for jobs of 1 and of 5           30 and 150      50 and 50
    in turn, who comes with one job waits for one turn of each other client
"""

import argparse
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

C = TypeVar("C", bound=Hashable)
T = TypeVar("T")

LIMIT = 10.0  # seconds for what is bound to come
QUIET = 10  # clients with one job each
SMALL, LARGE = 1, 5  # costs of a job
SERVED = 60  # jobs of those costs
MOST = 100_000  # jobs that may be asked for


class ClosedError(Exception):
    """Raised by a queue that has been closed."""


class ClientFullError(queue.Full):
    """Raised if a client, which is named, has as many jobs in a queue as it may."""


class FairQueue(Generic[C, T]):
    """A queue in which clients are served in turn, each client's jobs as they came.

    A job that is its client's first waits for at most one turn of each other client.
    In a turn jobs are served that cost less than twice `quantum`; with costs and
    quantum of 1 that is one job.

    Deficit round robin is from M. Shreedhar and G. Varghese, "Efficient Fair Queuing
    Using Deficit Round Robin", SIGCOMM 1995; a queue for each source of packets, from
    J. Nagle, RFC 970, 1985.

    Args:
        per_client: jobs that a client may have in the queue.
        quantum: credit that a turn gives; no job may cost more.

    Raises:
        ValueError: `per_client` or `quantum` is less than 1.
    """

    def __init__(self, per_client: int, quantum: int = 1) -> None:
        if per_client < 1 or quantum < 1:
            raise ValueError(
                f"{per_client} jobs and quantum {quantum}: both at least 1"
            )
        self._per_client = per_client
        self._quantum = quantum
        # Guards all that follows; put() and close() notify it.
        self._changed = threading.Condition()
        self._closed = False
        # Clients that have jobs, and no others. The first one's turn is now.
        self._turns: deque[C] = deque()
        self._jobs: dict[C, deque[tuple[int, T]]] = {}  # with their costs
        self._credit: dict[C, int] = {}  # left of this turn, or given for the next one

    def put(self, client: C, job: T, cost: int = 1) -> None:
        """Add a job of `client`; never waits.

        Raises:
            ClientFullError: the client has `per_client` jobs in the queue already.
            ClosedError: the queue has been closed.
            ValueError: `cost` is not between 1 and `quantum`.
        """
        if not 1 <= cost <= self._quantum:
            raise ValueError(f"cost {cost} is not between 1 and {self._quantum}")
        with self._changed:
            if self._closed:
                raise ClosedError(f"no job of {client} is taken any more")
            if client not in self._jobs:
                self._turns.append(client)
                self._jobs[client] = deque()
                self._credit[client] = self._quantum
            elif len(self._jobs[client]) == self._per_client:
                raise ClientFullError(f"{client} has {self._per_client} jobs waiting")
            self._jobs[client].append((cost, job))
            self._changed.notify()

    def get(self, timeout: float) -> T:
        """Take the job whose turn it is.

        Raises:
            queue.Empty: there was none within `timeout` seconds.
            ClosedError: the queue has been closed, and no job is left.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._turns or self._closed, timeout):
                raise queue.Empty
            if not self._turns:
                raise ClosedError("no job is left")
            client = self._turns[0]
            if self._credit[client] < self._jobs[client][0][0]:
                self._credit[client] += self._quantum
                self._turns.rotate(-1)
                client = self._turns[0]  # it has a whole turn: enough for any job
            cost, job = self._jobs[client].popleft()
            self._credit[client] -= cost
            if not self._jobs[client]:
                self._turns.popleft()
                del self._jobs[client], self._credit[client]
            return job

    def close(self) -> None:
        """Take no more jobs; those that are there can be got. Again: no effect."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def waits(order: list[str]) -> tuple[int, int]:
    """Return how many jobs come before the last quiet one, and the last loud one."""
    last = {client: at for at, client in enumerate(order)}
    loud = last.pop("loud")
    return max(last.values()), loud


def is_refused(put: Callable[[], object]) -> bool:
    """Tell whether there is no room for what is put."""
    try:
        put()
    except queue.Full:
        return True
    return False


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be between 2 and {MOST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--jobs", type=some, default=1000)
    n_jobs = parser.parse_args().jobs

    print(f"a loud client with {n_jobs} jobs, then {QUIET} quiet ones with one each")
    clients = ["loud"] * n_jobs + [f"quiet {n}" for n in range(QUIET)]
    one_queue: queue.Queue[str] = queue.Queue()
    fair: FairQueue[str, str] = FairQueue(n_jobs)
    for client in clients:
        one_queue.put(client)
        fair.put(client, client)
    first_come = waits([one_queue.get(timeout=LIMIT) for _ in clients])
    in_turn = waits([fair.get(LIMIT) for _ in clients])
    print("jobs that come before      first come first served    in turn")
    print(f"  a quiet one's, at most {first_come[0]:25} {in_turn[0]:10}")
    print(f"  the loud one's last    {first_come[1]:25} {in_turn[1]:10}")
    if first_come != (n_jobs + QUIET - 1, n_jobs - 1):
        raise SystemExit("the quiet ones were to wait for the loud one")
    if in_turn != (QUIET, n_jobs + QUIET - 1):
        raise SystemExit("the quiet ones were to wait for one job of each other client")

    one_queue = queue.Queue(n_jobs)  # as many as the loud one alone can fill
    for _ in range(n_jobs):
        one_queue.put("loud")
        fair.put("loud", "loud")
    if not is_refused(lambda: one_queue.put("quiet", block=False)):
        raise SystemExit("one queue was to be full for the quiet ones, too")
    if not is_refused(lambda: fair.put("loud", "loud")):
        raise SystemExit("the loud one was to be refused")
    if is_refused(lambda: fair.put("quiet", "quiet")):
        raise SystemExit("the quiet one was not to be refused")
    print(f"{'if full, refused is':27}{'whoever comes':23}{'loud':>11}")

    sizes = SMALL, LARGE
    weighed: FairQueue[int, int] = FairQueue(SERVED, quantum=LARGE)
    arrivals = [size for _ in range(SERVED) for size in sizes]
    for size in arrivals:
        weighed.put(size, size, cost=size)
    served = [weighed.get(LIMIT) for _ in range(SERVED)]
    before = [size * arrivals[:SERVED].count(size) for size in sizes]
    after = [size * served.count(size) for size in sizes]
    print(
        f"work done for jobs of {SMALL} and of {LARGE} {before[0]:12} and {before[1]} "
        f"{after[0]:7} and {after[1]}"
    )
    if after[0] != after[1]:
        raise SystemExit("both clients were to have the same share")
    print("in turn, who comes with one job waits for one turn of each other client")


if __name__ == "__main__":
    main()
