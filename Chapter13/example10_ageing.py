"""Ageing: a job grows more important as it waits, and its wait has a bound.

Each time another job is taken, all that are left gain a little: one level of priority
in `step` gets. So a low job overtakes the urgent ones that come later than a certain
time, and from then on nobody overtakes it. In a queue of at most C jobs, one of
priority p waits for at most

    p * step + C - 1

others, whatever comes (0 is the most urgent). There is no smaller bound, since a queue
of two or more that is kept full of urgent jobs reaches this one. The urgent ones pay
for it: each low job that they let in costs those behind it one place.

It looks as if all jobs had to be sorted anew at each get. They have not: all of them
gain alike, so that the order of two jobs never changes. It is the order of

    time of arrival + p * step

and a heap sorted by that will do. Read so, the priority is the time that a job may
wait, and the sum its deadline: earliest deadline first. Time is counted in gets here,
which makes the bound exact. With `time.monotonic()` instead, and `step` in seconds, a
job gains while it waits, not while others are taken.

Try:  --step 3
Try:  --urgent 5000

Output:
    a low job, and a stream of 300 urgent ones; a level in 10 gets
            the low one waits for      an urgent one for at most
    level   sorted  ageing  at most    sorted  ageing
    1          300      11       11         0       1
    2          300      21       21         0       1
    3          300      31       31         0       1
      2 jobs at a time, all others urgent: level 3 waits for 31
     10 jobs at a time, all others urgent: level 3 waits for 39
    100 jobs at a time, all others urgent: level 3 waits for 129
    with ageing no job waits longer than its bound, whatever comes
"""

import argparse
import heapq
import itertools
import queue
import threading
from contextlib import suppress
from typing import Generic, TypeVar

from example09_priority_queue_that_starves import (
    LIMIT,
    URGENT,
    PriorityJobs,
    serve_a_stream,
    some,
)

T = TypeVar("T")

PRIORITIES = (1, 2, 3)  # of the low job, one at a time
CAPACITIES = (2, 10, 100)  # of the queues in which the bound is to be reached


class AgeingQueue(Generic[T]):
    """A queue of at most `capacity` jobs, in which no job waits longer than `bound`.

    The source is in any textbook of operating systems, under ageing (Silberschatz,
    Galvin and Gagne, Operating System Concepts, chapter CPU Scheduling).

    Args:
        step: gets after which a job has gained one level of priority.

    Raises:
        ValueError: `capacity` or `step` is less than 1.
    """

    def __init__(self, capacity: int, step: int) -> None:
        if capacity < 1 or step < 1:
            raise ValueError(f"capacity {capacity} and step {step} must be at least 1")
        self._capacity = capacity
        self._step = step
        # Guards all that follows; put() notifies it.
        self._not_empty = threading.Condition()
        self._gets = 0  # the time
        self._numbers = itertools.count()
        # Deadline; then the priority, so that at a tie the more urgent is first; then
        # the number, so that jobs are not compared and equals are served as they came.
        self._heap: list[tuple[int, int, int, T]] = []

    def put(self, job: T, priority: int) -> None:
        """Add a job; 0 is the most urgent priority.

        It does not wait for room, since who waits at the entrance could starve there.

        Raises:
            queue.Full: there are `capacity` jobs already.
            ValueError: `priority` is negative.
        """
        if priority < 0:
            raise ValueError(f"priority {priority} is negative")
        with self._not_empty:
            if len(self._heap) == self._capacity:
                raise queue.Full
            deadline = self._gets + priority * self._step
            entry = (deadline, priority, next(self._numbers), job)
            heapq.heappush(self._heap, entry)
            self._not_empty.notify()

    def get(self, timeout: float) -> T:
        """Take the job that is first by now.

        Raises:
            queue.Empty: there was none within `timeout` seconds.
        """
        with self._not_empty:
            if not self._not_empty.wait_for(lambda: self._heap, timeout):
                raise queue.Empty
            self._gets += 1
            return heapq.heappop(self._heap)[-1]

    def bound(self, priority: int) -> int:
        """Return how many jobs are taken before one of `priority`, at most."""
        return priority * self._step + self._capacity - 1


def waits(order: list[str]) -> tuple[int, int]:
    """Return the low job's wait and the longest of an urgent one, in jobs.

    Urgent job n has arrived when n jobs had been begun.
    """
    urgent = [at - int(job) for at, job in enumerate(order) if job != "low"]
    return order.index("low"), max(urgent)


def worst_case(jobs: AgeingQueue[str], priority: int) -> int:
    """Let as many urgent jobs as possible overtake one of `priority`; return how many.

    The queue is filled up with urgent ones before each get.
    """
    jobs.put("low", priority)
    taken = 0
    while True:
        with suppress(queue.Full):
            while True:
                jobs.put("urgent", URGENT)
        if jobs.get(LIMIT) == "low":
            return taken
        taken += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--urgent", type=some, default=300)
    parser.add_argument("--step", type=some, default=10)
    options = parser.parse_args()
    n_urgent, step = options.urgent, options.step

    print(f"a low job, and a stream of {n_urgent} urgent ones; a level in {step} gets")
    print("        the low one waits for      an urgent one for at most")
    print("level   sorted  ageing  at most    sorted  ageing")
    for priority in PRIORITIES:
        ageing = AgeingQueue[str](2, step)  # the low one and an urgent one
        try:
            before = waits(serve_a_stream(PriorityJobs(), n_urgent, priority))
            after = waits(serve_a_stream(ageing, n_urgent, priority))
        except (queue.Empty, queue.Full):
            raise SystemExit("each job was to be taken and served") from None
        bound = ageing.bound(priority)
        print(
            f"{priority:<7}{before[0]:7}{after[0]:8}{bound:9}{before[1]:10}{after[1]:8}"
        )
        if before != (n_urgent, 0):
            raise SystemExit("sorted by priority, the low one was to be the last")
        if after != (min(bound, n_urgent), int(bound < n_urgent)):
            raise SystemExit("ageing was to let the low one in at its bound")

    for capacity in CAPACITIES:
        ageing = AgeingQueue[str](capacity, step)
        most = worst_case(ageing, PRIORITIES[-1])
        if most != ageing.bound(PRIORITIES[-1]):
            raise SystemExit(f"{most} jobs instead of {ageing.bound(PRIORITIES[-1])}")
        print(
            f"{capacity:3} jobs at a time, all others urgent: level 3 waits for {most}"
        )
    print("with ageing no job waits longer than its bound, whatever comes")


if __name__ == "__main__":
    main()
