"""A priority queue starves its lowest job for exactly as long as urgent ones come.

Each time the worker asks for a job an urgent one is there, and the queue does what it
is for. Here the next urgent job arrives while the last one is being done, as it does
wherever the urgent ones alone suffice to keep the worker busy; worker and client wait
for each other. The low job was there first, and is served when the stream ends,
however long that takes. Its wait has no bound.

The mend is to let jobs grow more important as they wait: see example10.

Two traps of `queue.PriorityQueue` itself. It compares whole entries, so that at equal
priorities it compares the jobs: two dicts raise TypeError, in the thread that happens
to put or get at that moment, and two strings are served in alphabetical order. A number
between priority and job ends the comparison, and makes it first come, first served.

Try:  --urgent 5000

Output:
    urgent jobs that come   served before the low one
                        1                           1
                       10                          10
                      100                         100
                     1000                        1000
    equal priorities        two dicts: TypeError; two strings: by alphabet
      numbered              first come, first served
    as long as urgent jobs come, the low one is not served at all
"""

import argparse
import itertools
import queue
import threading
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds for what is bound to come
URGENT, LOW = 0, 3  # priorities; the smallest number comes first
MOST = 20_000  # urgent jobs that may be asked for


class PriorityJobs(Generic[T]):
    """A queue that serves the lowest number first, and equals as they came.

    It starves: nothing limits how many jobs overtake one.
    """

    def __init__(self) -> None:
        self._queue: queue.PriorityQueue[tuple[int, int, T]] = queue.PriorityQueue()
        # Guards the numbers, and keeps the order of numbers the order of arrival.
        self._arrival = threading.Lock()
        self._numbers = itertools.count()

    def put(self, job: T, priority: int) -> None:
        with self._arrival:
            self._queue.put((priority, next(self._numbers), job))

    def get(self, timeout: float) -> T:
        """Take the first job.

        Raises:
            queue.Empty: there was none within `timeout` seconds.
        """
        return self._queue.get(timeout=timeout)[-1]


class Jobs(Protocol):
    """A queue of jobs with priorities."""

    def put(self, job: str, priority: int) -> None: ...

    def get(self, timeout: float) -> str: ...


def serve_a_stream(jobs: Jobs, n_urgent: int, priority: int = LOW) -> list[str]:
    """Let a thread serve one job of `priority`, and urgent ones that come after it.

    Each urgent job arrives while the one before it is being done.

    Returns:
        The jobs in the order in which they were begun: "0" to f"{n_urgent - 1}" are the
        urgent ones, "low" the first of all to arrive.

    Raises:
        queue.Empty: a job was not begun, or not to be had, within LIMIT seconds.
    """
    begun: queue.SimpleQueue[str] = queue.SimpleQueue()
    may_end: queue.SimpleQueue[None] = queue.SimpleQueue()

    def work() -> None:
        with suppress(queue.Empty):  # the client is gone, or will miss the next job
            for _ in range(n_urgent + 1):
                begun.put(jobs.get(LIMIT))
                may_end.get(timeout=LIMIT)

    jobs.put("low", priority)
    jobs.put("0", URGENT)
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    order = []
    for number in range(1, n_urgent + 2):
        order.append(begun.get(timeout=LIMIT))
        if number < n_urgent:
            jobs.put(f"{number}", URGENT)
        may_end.put(None)  # not before the next one has arrived
    worker.join(LIMIT)
    return order


def raw_queue(*jobs: object) -> "queue.PriorityQueue[tuple[int, object]]":
    """Return a PriorityQueue of those jobs, which all have the same priority."""
    entries: queue.PriorityQueue[tuple[int, object]] = queue.PriorityQueue()
    for job in jobs:
        entries.put((URGENT, job))
    return entries


def some(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be between 1 and {MOST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--urgent", type=some, default=1000)
    most = parser.parse_args().urgent

    print("urgent jobs that come   served before the low one")
    for n_urgent in sorted({1, min(10, most), min(100, most), most}):
        try:
            order = serve_a_stream(PriorityJobs(), n_urgent)
        except queue.Empty:
            raise SystemExit("each job was to be served") from None
        if order != [*map(str, range(n_urgent)), "low"]:
            raise SystemExit("the urgent jobs were to come first, then the low one")
        print(f"{n_urgent:21}   {order.index('low'):25}")

    if raw_queue("walk", "run").get()[1] != "run":
        raise SystemExit("of equal priorities the alphabet was to decide")
    try:
        raw_queue({"do": "walk"}, {"do": "run"})
    except TypeError:
        print("equal priorities        two dicts: TypeError; two strings: by alphabet")
    else:
        raise SystemExit("two dicts were not to be comparable")
    jobs = PriorityJobs[object]()
    came = [{"do": "walk"}, {"do": "run"}, "walk", "run"]
    for job in came:
        jobs.put(job, LOW)
    if [jobs.get(LIMIT) for _ in came] != came:
        raise SystemExit("equal priorities were to be served as they came")
    print("  numbered              first come, first served")
    print("as long as urgent jobs come, the low one is not served at all")


if __name__ == "__main__":
    main()
