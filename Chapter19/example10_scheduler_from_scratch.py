"""A scheduler is a heap of due times and a condition: here it is, from scratch.

The heap has the earliest job on top. The scheduler's thread waits for its due time, not
by `time.sleep` but on a condition: when a job is added it wakes, and looks again.

A job that comes back is due an interval after its last due time. A loop that sleeps for
an interval after each run adds the run's own time, and drifts.

The clock can be replaced. A virtual one jumps to the next due time instead of waiting,
so a test of hours takes no time, and its times are exact.

The standard library's `sched` has such a heap, but it sleeps: what another thread adds
meanwhile has to wait. asyncio's `call_at` puts its calls on a heap, too. APScheduler
(example01 to 04) adds stores, pools and calendars.

Output:
    a run takes 30, due every 100  starts at
    sleep after each run            0 130 260 390 520 650
    heap of due times               0 100 200 300 400 500
    a scheduler waits for a job in an hour; one is added that is due at once,
    and run 61 µs later
    a scheduler waits for the earliest due time, or until there is an earlier one
"""

import heapq
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue

INTERVAL, WORK, RUNS = 100, 30, 6  # of the virtual clock: its unit is anybody's choice
HOUR = 3600.0  # seconds
LIMIT = 10.0  # seconds for what is bound to come


class Clock:
    """The time in seconds, and how to wait for it."""

    def now(self) -> float:
        """Return the time."""
        return time.monotonic()

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Wait for a notify, or until `seconds` are over; None means for ever."""
        if seconds is not None:
            seconds = min(seconds, threading.TIMEOUT_MAX)
        condition.wait(seconds)


class VirtualClock(Clock):
    """A clock that goes on only when somebody waits or works, and then at once."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        """Let that time pass.

        Raises:
            RuntimeError: `seconds` is None: nothing would ever happen.
        """
        if seconds is None:
            raise RuntimeError("waits for ever")
        self.time += seconds


@dataclass(slots=True, eq=False)
class Job:
    """A call at a due time; None as interval: it is called only once."""

    due: float
    number: int
    call: Callable[[], object]
    interval: float | None = None

    def __lt__(self, other: "Job") -> bool:
        """Tell which comes first; those due at one time keep the order of adding."""
        return (self.due, self.number) < (other.due, other.number)


class Scheduler:
    """Calls functions at their times, one at a time, in the thread that calls `run`.

    All methods may be called from any thread, and by the functions themselves.

    Args:
        clock: tells the time, and waits for it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        # Guards all that follows, and is notified of every change; `run` waits for it.
        self._changed = threading.Condition()
        self._numbers = count()
        self._jobs: list[Job] = []  # a heap: the earliest is on top
        self._stopped = False

    def at(self, due: float, call: Callable[[], object]) -> Job:
        """Have `call` called at the time `due`, or at once if that is over."""
        return self._add(due, call, None)

    def every(self, interval: float, call: Callable[[], object]) -> Job:
        """Have `call` called now, and again each time that an interval is over.

        Late calls are made up for: there is one for each due time.

        Raises:
            ValueError: the interval is not positive.
        """
        if not interval > 0:
            raise ValueError(f"an interval of {interval:g} s")
        return self._add(self._clock.now(), call, interval)

    def cancel(self, job: Job) -> None:
        """Do not call that any more; a call that has begun goes on."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                heapq.heapify(self._jobs)
            self._changed.notify_all()

    def stop(self) -> None:
        """Have `run` return, now or after the present call, once and for all."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def run(self) -> None:
        """Call what is due when it is due, until `stop`.

        Raises:
            Exception: what a call has raised. `run` may be called again, and goes on.
        """
        while job := self._next():
            job.call()  # without the lock: it may take long, or add jobs

    def _add(
        self, due: float, call: Callable[[], object], interval: float | None
    ) -> Job:
        with self._changed:
            job = Job(due, next(self._numbers), call, interval)
            heapq.heappush(self._jobs, job)
            self._changed.notify_all()
            return job

    def _next(self) -> Job | None:
        """Wait until a job is due, and take it; return None after `stop`."""
        with self._changed:
            while not self._stopped:
                wait = self._jobs[0].due - self._clock.now() if self._jobs else None
                if wait is None or wait > 0:
                    self._clock.wait(self._changed, wait)
                    continue  # another job may be the earliest now
                job = heapq.heappop(self._jobs)
                if job.interval is not None:
                    job.due += job.interval
                    heapq.heappush(self._jobs, job)
                return job
            return None


def starts_with_sleeps() -> list[float]:
    """Work and sleep for an interval by turns; return when each run starts."""
    clock, starts = VirtualClock(), []
    for _ in range(RUNS):
        starts.append(clock.now())
        clock.time += WORK
        clock.time += INTERVAL
    return starts


def starts_at_due_times() -> list[float]:
    """Have the scheduler do the same work; return when each run starts."""
    clock, starts = VirtualClock(), []
    scheduler = Scheduler(clock)

    def work() -> None:
        starts.append(clock.now())
        clock.time += WORK
        if len(starts) == RUNS:
            scheduler.stop()

    scheduler.every(INTERVAL, work)
    scheduler.run()
    return starts


class TellingClock(Clock):
    """The real clock; it tells when somebody begins to wait."""

    def __init__(self) -> None:
        self.waits = threading.Semaphore(0)

    def wait(self, condition: threading.Condition, seconds: float | None) -> None:
        self.waits.release()  # who adds a job needs the lock, so it has to wait for us
        super().wait(condition, seconds)


def seconds_until_noticed() -> float:
    """Add a job to a scheduler that waits for a later one; return how late it is run.

    Raises:
        TimeoutError: it was not run.
    """
    clock = TellingClock()
    scheduler = Scheduler(clock)
    started: SimpleQueue[float] = SimpleQueue()
    scheduler.at(clock.now() + HOUR, scheduler.stop)
    with ThreadPoolExecutor(1) as pool:
        try:
            runner = pool.submit(scheduler.run)
            if not clock.waits.acquire(timeout=LIMIT):
                raise TimeoutError("the scheduler was to wait")
            added = clock.now()
            scheduler.at(added, lambda: started.put(clock.now()))
            noticed = started.get(timeout=LIMIT) - added
        except Empty:
            raise TimeoutError("the new job was to wake the scheduler") from None
        finally:
            scheduler.stop()
        runner.result()  # raises what a call has raised
    return noticed


def main() -> None:
    drifting, exact = starts_with_sleeps(), starts_at_due_times()
    print(f"a run takes {WORK}, due every {INTERVAL}  starts at")
    for name, starts in (
        ("sleep after each run", drifting),
        ("heap of due times", exact),
    ):
        print(f"{name:29}", *(f"{start:3g}" for start in starts))
    if exact != [INTERVAL * n for n in range(RUNS)] or drifting == exact:
        raise SystemExit("the heap was to keep the due times, the sleeps were not")
    try:
        noticed = seconds_until_noticed()
    except TimeoutError as error:
        raise SystemExit(f"it has missed a job: {error}") from None
    print("a scheduler waits for a job in an hour; one is added that is due at once,")
    print(f"and run {1e6 * noticed:.0f} µs later")
    print(
        "a scheduler waits for the earliest due time, or until there is an earlier one"
    )


if __name__ == "__main__":
    main()
