"""Two processes count down nearly twice as fast as one: each has a GIL of its own.

The same countdown as in example02, in halves by two processes. They share no object, so
no reference count and no GIL, and nothing keeps them from running at the same time, on
every build. The price: to start them, which is paid once if a pool keeps them, and to
send arguments and results as pickles, which here are a few numbers.

Each process measures its own CPU time and sends it along. The sum, divided by the time
on the wall, says how many cores were busy.

Book: Chapter 15, example3.
Try:  --processes 4
Try:  --steps 10000000

Output:
    Python <version>, GIL <gil>, <cores> cores
    4,000,000 steps      wall       CPU  cores busy
    one process        0.41 s    0.41 s       100 %
    2 processes        0.23 s    0.38 s       161 %
    to start them      0.01 s
    2 processes are 1.75x as fast as one, and keep 161 % of a core busy
"""

import argparse
import platform
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import resource_tracker

from example02_countdown_in_threads import (
    count_down,
    gil_state,
    in_range,
    measure,
    report,
    split,
    usable_cores,
)

STEPS = 4_000_000  # some 0.2 s: the system needs a moment to spread processes
MAX_STEPS = 20_000_000  # Ctrl-C has to wait until the processes have counted them
MAX_PROCESSES = 61  # of a process pool on Windows


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


@contextmanager
def process_pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `n_workers` processes that leave Ctrl-C to this one.

    Ctrl-C has to wait while they start and while they end: in the midst of that, a pool
    cannot be ended in order. Make it before any thread, which would let Ctrl-C through
    and should not be forked. If the block fails, calls that have not begun are dropped:
    an interrupted `submit` may leave one that no process gets and the end would await.
    """
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)

    def end(kind: type[BaseException] | None, *_: object) -> None:
        with ctrl_c_later():
            pool.shutdown(cancel_futures=kind is not None)

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = ProcessPoolExecutor(n_workers, None, signal.signal, ignore_ctrl_c)
            stack.push(end)
            list(pool.map(abs, range(n_workers)))
        yield pool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=in_range(STEPS, MAX_STEPS), default=STEPS)
    parser.add_argument("--processes", type=in_range(2, MAX_PROCESSES), default=2)
    options = parser.parse_args()
    n, n_processes = options.steps, options.processes

    alone = measure(lambda: [count_down(n)])
    began = time.perf_counter()
    with process_pool(n_processes) as pool:
        start = time.perf_counter() - began
        shared = measure(lambda: pool.map(count_down, split(n, n_processes)))

    print(
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    name = f"{n_processes} processes"
    report(n, {"one process": alone, name: shared})
    print(f"{'to start them':16}{start:7.2f} s")
    print(
        f"{name} are {alone.wall / shared.wall:.2f}x as fast as one, "
        f"and keep {100 * shared.cores_busy:.0f} % of a core busy"
    )


if __name__ == "__main__":
    main()
