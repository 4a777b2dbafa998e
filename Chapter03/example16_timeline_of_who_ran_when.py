# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""A timeline shows who waited for the lock, who held it, and who ran outside of it.

Each thread notes when it begins and ends to wait, to hold, to compute, to sleep; a lock
that is wrapped notes it by itself. From the notes follows what one would otherwise only
believe: the lock is never held twice at the same time, while any number of threads may
wait for it at the same time, and a thread is in one state at a time.

Here the main thread holds the lock until all others wait for it. Then they go through
it in turn, and pass the time outside with computing and sleeping. The picture of
`--plot` has one row for each thread. Much colour of waiting means: hold the lock for
less, or have more than one. Ready-made recorders are viztracer and py-spy.

Try:  --plot timeline.png
Try:  --threads 6 --rounds 2

Output:
    thread        waiting     holding   computing    sleeping
    MainThread   0.0000 s    0.0109 s    0.0000 s    0.0000 s
    worker_0     0.0508 s    0.0163 s    0.0117 s    0.0350 s
    worker_1     0.0728 s    0.0166 s    0.0129 s    0.0295 s
    worker_2     0.0716 s    0.0205 s    0.0113 s    0.0293 s
    held 13 times, never twice at once; 3 waited together
"""

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

LIMIT = 10.0  # seconds until all threads must wait for the lock
WORK = 50_000  # additions in a piece of computation: some milliseconds
WRITE = 0.004  # seconds; stands for a write to what the lock guards
ANSWER = 0.004  # seconds; stands for an answer from elsewhere

WAITING, HOLDING, COMPUTING, SLEEPING = "waiting", "holding", "computing", "sleeping"
COLOURS = {
    WAITING: "#e3b9b0",
    HOLDING: "#b3301c",
    COMPUTING: "#1b4f8a",
    SLEEPING: "#cfd8e3",
}


@dataclass(frozen=True, slots=True)
class Interval:
    """What one thread did from `began` to `ended`: seconds of the timeline's clock."""

    thread: str
    state: str
    began: float
    ended: float


class Timeline:
    """Collects the intervals of any number of threads."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._lock = threading.Lock()  # guards _intervals
        self._intervals: list[Interval] = []

    @contextmanager
    def interval(self, state: str) -> Iterator[None]:
        """Note that the current thread is in `state` for the length of the block."""
        began = self._clock()
        try:
            yield
        finally:
            ended = self._clock()
            name = threading.current_thread().name
            with self._lock:
                self._intervals.append(Interval(name, state, began, ended))

    def intervals(self) -> list[Interval]:
        """Return all intervals that have ended, in the order of their beginning."""
        with self._lock:
            return sorted(self._intervals, key=lambda one: one.began)


class RecordedLock:
    """A lock whose users, waiting and holding, appear in a timeline.

    Args:
        about_to_wait: called when a thread has noted that it waits, before it does.
    """

    def __init__(
        self, timeline: Timeline, about_to_wait: Callable[[], object] = lambda: None
    ) -> None:
        self._timeline = timeline
        self._about_to_wait = about_to_wait
        self._lock = threading.Lock()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the lock for the length of the block."""
        acquired = False
        try:
            with self._timeline.interval(WAITING):
                self._about_to_wait()
                acquired = self._lock.acquire()
            # Begins after acquire and ends before release: what is noted to overlap
            # has overlapped.
            with self._timeline.interval(HOLDING):
                yield
        finally:
            if acquired:
                self._lock.release()


def most_at_once(intervals: Sequence[Interval]) -> int:
    """Return the greatest number of intervals that were in progress together."""
    events = sorted(
        [(one.began, 1) for one in intervals] + [(one.ended, -1) for one in intervals]
    )  # at the same instant, the one ends before the other begins
    return max(accumulate(change for _, change in events), default=0)


def compute() -> None:
    total = 0
    for number in range(WORK):
        total += number


def work(
    timeline: Timeline, lock: RecordedLock, rounds: int, stop: threading.Event
) -> None:
    """Do `rounds` times what needs the lock, computes, waits; less if told to stop."""
    for _ in range(rounds):
        if stop.is_set():
            return
        with lock.held():
            time.sleep(WRITE)
        with timeline.interval(COMPUTING):
            compute()
        with timeline.interval(SLEEPING):
            time.sleep(ANSWER)


def record(n_threads: int, rounds: int) -> list[Interval]:
    """Let threads work that all have to wait for the lock at first.

    Raises:
        TimeoutError: they do not, within LIMIT.
    """
    timeline = Timeline()
    wait_for_it = threading.Semaphore(0)
    lock = RecordedLock(timeline, about_to_wait=wait_for_it.release)
    stop = threading.Event()
    with ThreadPoolExecutor(n_threads, "worker") as pool:
        try:
            with lock.held():
                args = timeline, lock, rounds, stop
                jobs = [pool.submit(work, *args) for _ in range(n_threads)]
                for _ in range(1 + n_threads):  # this thread and all others
                    if not wait_for_it.acquire(timeout=LIMIT):
                        raise TimeoutError(f"not all at work within {LIMIT} s")
                time.sleep(WRITE)
            for job in jobs:
                job.result()
        finally:  # after Ctrl-C
            stop.set()
    return timeline.intervals()


def plot(intervals: Sequence[Interval], file: Path) -> None:
    """Draw a row for each thread, with a bar for each interval."""
    from matplotlib.figure import Figure

    threads = list(dict.fromkeys(one.thread for one in intervals))
    start = intervals[0].began
    figure = Figure(figsize=(9, 1.6 + 0.55 * len(threads)), layout="constrained")
    axes = figure.add_subplot()
    for state, colour in COLOURS.items():
        for row, thread in enumerate(threads):
            bars = [
                (1000 * (one.began - start), 1000 * (one.ended - one.began))
                for one in intervals
                if (one.thread, one.state) == (thread, state)
            ]
            label = state if row == 0 else None
            axes.broken_barh(bars, (row - 0.4, 0.8), color=colour, label=label)
    axes.set_yticks(range(len(threads)), threads, fontsize=12)
    axes.invert_yaxis()
    axes.set_xlabel("milliseconds", fontsize=12)
    axes.set_title("One thread at a time holds the lock", fontweight="bold")
    figure.legend(loc="outside lower center", ncols=len(COLOURS), fontsize=12)
    figure.savefig(file, dpi=120)


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=positive, default=3)
    parser.add_argument("--rounds", type=positive, default=4)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n_threads, rounds = options.threads, options.rounds

    print(f"{'thread':12}" + "   ".join(f"{state:>9}" for state in COLOURS))
    intervals = record(n_threads, rounds)
    threads = list(dict.fromkeys(one.thread for one in intervals))
    by_state = {state: [i for i in intervals if i.state == state] for state in COLOURS}
    for thread in threads:
        sums = [
            sum(one.ended - one.began for one in some if one.thread == thread)
            for some in by_state.values()
        ]
        print(f"{thread:12}" + "   ".join(f"{seconds:7.4f} s" for seconds in sums))
    if options.plot:
        plot(intervals, options.plot)

    held, waiting = by_state[HOLDING], most_at_once(by_state[WAITING])
    own = {most_at_once([i for i in intervals if i.thread == t]) for t in threads}
    if len(held) != 1 + n_threads * rounds or most_at_once(held) != 1:
        raise SystemExit("the lock was to be held often, never twice at once")
    if own != {1}:
        raise SystemExit("a thread was in two states at once")
    if waiting != n_threads:
        raise SystemExit(f"all were to wait together, but {waiting} did")
    print(f"held {len(held)} times, never twice at once; {waiting} waited together")


if __name__ == "__main__":
    main()
