"""A timer calls a function once, later, in a thread of its own, unless it is cancelled.

That makes it a watchdog for work that may take too long. It never fires early; how late
it fires is up to the machine. cancel() prevents what has not begun and stops nothing
that has. Each `threading.Timer` is a whole thread that waits, and not a daemon: the
program does not end before it. For many points in time take one thread and a heap
(`sched`), asyncio's `call_later`, or a scheduler such as APScheduler (Chapter 19).

A timer that starts the next one drifts: each round adds what the work took. `Repeating`
waits for points of a fixed grid instead. If the work takes longer than an interval, the
points it has missed are skipped, since catching up would be a burst. An exception is
reported and does not end it. Clock and wait can be replaced, so that its schedule is
tested without a second's sleep, as it is done here.

Try:  --timers 500

Output:
    watchdog       set to 0.05 s, fired after 0.055 s
    cancel()       prevents what has not begun, does not stop what has
    20 timers      20 threads
    every 0.01 s   5 calls, 1 of them failed, none was early
    every 10       1,000 calls of 3 each: no drift (made-up clock)
                   calls of 25 each: at 10, 40, 70, 100
    a timer may be late but not early; a grid does not drift
"""

import argparse
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

LIMIT = 10.0  # seconds that a step of the demonstration may take
A_WHILE = 0.05  # seconds
FOR_EVER = 3600.0  # seconds


@contextmanager
def watchdog(seconds: float, alarm: Callable[[], object]) -> Iterator[None]:
    """Call `alarm` in another thread if the `with` block takes more than `seconds`.

    After the block `alarm` is not running any more, and will not.

    Raises:
        ValueError: no thread can wait that long.
    """
    if not 0 <= seconds <= threading.TIMEOUT_MAX:
        raise ValueError(f"cannot wait for {seconds} s")
    timer = threading.Timer(seconds, alarm)
    timer.daemon = True  # the program may end before the time is up
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def log_error(error: Exception) -> None:
    """Report an exception and its traceback through `logging`."""
    logging.getLogger(__name__).error("a repeated action failed", exc_info=error)


def repeat(
    interval: float,
    action: Callable[[], object],
    on_error: Callable[[Exception], object],
    clock: Callable[[], float],
    wait: Callable[[float], bool],
) -> None:
    """Call `action` at 1, 2, 3 … times `interval` from now, until `wait` says True.

    A point that has passed when `action` returns is skipped.

    Args:
        interval: seconds between the points, more than 0.
        on_error: gets what `action` raises; the next point is kept all the same.
        clock: returns the time in seconds and never goes back.
        wait: returns False after so many seconds, True as soon as it is time to stop.
    """
    start = clock()
    tick = 1
    # Counted from the start, not added up: neither work nor rounding can pile up.
    while not wait(max(0.0, (due := start + tick * interval) - clock())):
        if clock() < due:
            continue  # a wait may be short by the grain of the system's clock
        try:
            action()
        except Exception as error:
            on_error(error)
        tick = max(tick + 1, math.ceil((clock() - start) / interval))


class Repeating:
    """Calls `action` every `interval` seconds, in a thread, in a `with` block.

    What `action` raises goes to `on_error`, if it is an Exception; `sys.exit()` in it
    ends the calls.

    Raises:
        ValueError: the interval is not more than 0, or longer than a thread can wait.
    """

    def __init__(
        self,
        interval: float,
        action: Callable[[], object],
        on_error: Callable[[Exception], object] = log_error,
    ) -> None:
        if not 0 < interval <= threading.TIMEOUT_MAX:
            raise ValueError(f"the interval must be more than 0, not {interval}")
        self._stopped = threading.Event()
        timing = time.monotonic, self._stopped.wait
        self._thread = threading.Thread(
            target=repeat,
            args=(interval, action, on_error, *timing),
            daemon=True,  # Ctrl-C during start() would leave nobody to stop it
        )

    def stop(self) -> None:
        """End the calls; none is running afterwards. `action` may stop it, too."""
        self._stopped.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def time_to_fire(seconds: float) -> float:
    """Return how long a watchdog set to `seconds` took to fire.

    Raises:
        TimeoutError: it did not fire within LIMIT.
    """
    fired = threading.Event()
    began = time.monotonic()
    with watchdog(seconds, fired.set):
        if not fired.wait(LIMIT):
            raise TimeoutError(f"no alarm within {LIMIT} s")
        return time.monotonic() - began


def threads_of(n_timers: int) -> int:
    """Return how many more threads there are while `n_timers` timers wait."""
    timers = [threading.Timer(FOR_EVER, print) for _ in range(n_timers)]
    before = threading.active_count()
    for timer in timers:
        timer.daemon = True  # or after Ctrl-C the program would wait for an hour
        timer.start()
    more = threading.active_count() - before
    for timer in timers:
        timer.cancel()
        timer.join()
    return more


def is_stopped_by_cancel() -> bool:
    """Tell whether cancel() stops a function that has begun."""
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def function() -> None:
        begun.set()
        go_on.wait(LIMIT)
        ended.set()

    timer = threading.Timer(0, function)
    timer.daemon = True  # or after Ctrl-C the program would wait for it
    timer.start()
    begun.wait(LIMIT)
    timer.cancel()
    go_on.set()
    timer.join()
    return not ended.is_set()


def real_calls(interval: float, n_calls: int) -> tuple[list[float], list[Exception]]:
    """Let `Repeating` call a function that fails once and stops after `n_calls`.

    Returns when the calls came, in seconds since the start, and what was reported.
    """
    calls: list[float] = []
    errors: list[Exception] = []
    done = threading.Event()

    def function() -> None:
        calls.append(time.monotonic() - began)
        if len(calls) == n_calls:
            repeating.stop()
            done.set()
        if len(calls) == 1:
            raise ConnectionError("try again")

    repeating = Repeating(interval, function, errors.append)
    began = time.monotonic()
    with repeating:
        done.wait(LIMIT)
    return calls, errors


def made_up_calls(interval: float, work: float, until: float) -> list[float]:
    """Return when `repeat` calls a function that takes `work` seconds.

    The clock is made up: waiting and working only move its hands.
    """
    now = 0.0
    calls = []

    def wait(seconds: float) -> bool:
        nonlocal now
        now += seconds
        return now > until

    def function() -> None:
        nonlocal now
        calls.append(now)
        now += work

    repeat(interval, function, log_error, lambda: now, wait)
    return calls


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--timers", type=positive, default=20)
    n_timers = parser.parse_args().timers
    grain = time.get_clock_info("monotonic").resolution
    if sys.platform == "win32":
        grain = max(grain, 0.016)  # waits end with the ticks of another clock

    taken = time_to_fire(A_WHILE)
    print(f"watchdog       set to {A_WHILE} s, fired after {taken:.3f} s")
    if taken < A_WHILE - grain:
        raise SystemExit("the watchdog was early")

    alarms: list[str] = []
    with watchdog(FOR_EVER, lambda: alarms.append("late")):
        pass  # work that ends in time
    if alarms:
        raise SystemExit("the watchdog fired although the work had ended")
    if is_stopped_by_cancel():
        raise SystemExit("cancel() was to come too late")
    print("cancel()       prevents what has not begun, does not stop what has")

    threads = threads_of(n_timers)
    print(f"{n_timers} timers      {threads} threads")
    if threads != n_timers:
        raise SystemExit("each timer was to be a thread")

    calls, errors = real_calls(interval=0.01, n_calls=5)
    early = [k for k, at in enumerate(calls, 1) if at < 0.01 * k - grain]
    if len(calls) != 5 or len(errors) != 1 or early:
        raise SystemExit(f"calls at {calls}, errors {errors}")
    print(f"every 0.01 s   {len(calls)} calls, 1 of them failed, none was early")

    if made_up_calls(10, work=3, until=10_000) != [10 * k for k in range(1, 1001)]:
        raise SystemExit("the calls were to keep to the grid")
    calls = made_up_calls(10, work=25, until=100)
    if calls != [10, 40, 70, 100]:
        raise SystemExit("points that have passed were to be skipped")
    print("every 10       1,000 calls of 3 each: no drift (made-up clock)")
    print(f"               calls of 25 each: at {', '.join(f'{at:g}' for at in calls)}")
    print("a timer may be late but not early; a grid does not drift")


if __name__ == "__main__":
    main()
