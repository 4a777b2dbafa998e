"""Two threads get a core each, so that they run at the same time, and not in turns.

What processors do to each other's memory shows only while both are running. Two threads
that the system puts on one core take turns there, and each finds memory as the other
has left it: nothing odd happens, and nothing is proven. So each is kept on a core of
its own. That is an affinity, a set of cores that a thread may run on; Linux has one for
each thread (`sched_setaffinity`, of the calling thread if its argument is 0). Where
there is none, the system usually does well by itself.

It is no promise that a thread runs. Other programs want the core, too, and a machine
that is a guest on another one may lose it without being told. Therefore each wait in
this chapter's machine code has an end.

A pinned thread cannot go where there is room. Do it to measure, not to be faster.

Output:
    <cores> cores
    within the block a thread has one core, and all of them afterwards
    each thread of the pool has a core of its own
"""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

LIMIT = 10.0  # seconds that a thread waits for the other


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def need_two_cores() -> None:
    """End the program in one line, with status 77, if this process has one core."""
    if usable_cores() < 2:
        print("needs two cores")
        raise SystemExit(77)


@contextmanager
def on_core(n: int) -> Iterator[None]:
    """Keep this thread on one of the cores that it may use, where the system can."""
    if sys.platform != "linux":
        yield
        return
    usable = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {sorted(usable)[n % len(usable)]})
        yield
    finally:
        os.sched_setaffinity(0, usable)


def two_cores() -> ThreadPoolExecutor:
    """Return a pool of two threads, each on a core of its own where the system can.

    They are the first and the last that this process may use.
    """
    if sys.platform != "linux":
        return ThreadPoolExecutor(2)
    usable = sorted(os.sched_getaffinity(0))
    cores = [usable[0], usable[-1]]

    def stay() -> None:
        with suppress(OSError):  # the core is gone
            os.sched_setaffinity(0, {cores.pop()})

    return ThreadPoolExecutor(2, initializer=stay)


def my_cores() -> set[int]:
    """Return the cores that this thread may use; none where the system has no say."""
    return os.sched_getaffinity(0) if sys.platform == "linux" else set()


def main() -> None:
    if sys.platform != "linux":
        print("needs Linux, where each thread has an affinity")
        raise SystemExit(77)
    need_two_cores()
    print(f"{usable_cores()} cores")
    before = my_cores()
    with on_core(0):
        within = my_cores()
    if len(within) != 1 or my_cores() != before:
        raise SystemExit(f"one core, then {before}: {within}, then {my_cores()}")
    print("within the block a thread has one core, and all of them afterwards")

    both_are_there = threading.Barrier(2, timeout=LIMIT)

    def meet() -> set[int]:
        both_are_there.wait()
        return my_cores()

    with two_cores() as pool:
        try:
            first, second = [pool.submit(meet) for _ in range(2)]
            shared = first.result() & second.result()
        except threading.BrokenBarrierError:
            raise SystemExit(f"the threads have not met in {LIMIT:g} s") from None
        finally:  # after Ctrl-C, one may wait for another that was never started
            both_are_there.abort()
    if shared:
        raise SystemExit(f"both threads have got {shared}")
    print("each thread of the pool has a core of its own")


if __name__ == "__main__":
    main()
