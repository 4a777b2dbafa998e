# /// script
# requires-python = ">=3.11"
# dependencies = ["psutil>=6.0"]
# ///
"""Ten thousand waits at the same time: what a thread costs, and what a task.

Threads and tasks do the same here: each begins, and waits; measured is what it takes
until all are waiting. A thread is started by the system, and needs stacks, in the
program and in the system's kernel. A task is an object or two, and what it takes to run
it are calls of functions. For a handful of waits it does not matter which they are; for
thousands it does.

Each kind is measured in a fresh process, because what memory was once needed shows for
ever after in a process's peak; that of a process which starts nothing is subtracted.
The threads' memory is only what they have touched in the program. They also reserve
address space, 8 MiB each on many systems, which costs nothing until it runs out.

Try:  --waits 1000

Output:
    10000 waits at a time             each of them
    threads   1.43 s   157.2 MiB        142.6 µs   16.10 KiB
    tasks     0.14 s    11.5 MiB         13.9 µs    1.18 KiB
    10x the time of a task goes into a thread
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

WAITS = 10_000
MOST = 100_000
NEEDS_STATUS = 77  # exit status of a script that cannot run here
KIB = 1024  # bytes


def wait_in_threads(count: int, meanwhile: Callable[[int], object]) -> None:
    """Let `count` threads wait at the same time; call `meanwhile`; let all end.

    Args:
        meanwhile: is told how many they are: fewer if the system allows no more.
    """
    threads: list[threading.Thread] = []
    # They wait for data, of which there is none. Had they one lock to wait for, Linux
    # would look through thousands of them whenever it wakes another one.
    reading, writing = os.pipe()
    try:
        with suppress(RuntimeError):  # no more of them
            for _ in range(count):
                # Of daemons, Python before 3.13 keeps no list that each start looks
                # through; it would cost more than the rest.
                thread = threading.Thread(
                    target=os.read, args=(reading, 1), daemon=True
                )
                thread.start()  # returns when it runs
                threads.append(thread)
        meanwhile(len(threads))
    finally:
        os.close(writing)  # the end of the data, for all of them
        for thread in threads:
            thread.join()
        os.close(reading)


def wait_in_tasks(count: int, meanwhile: Callable[[int], object]) -> None:
    """Let `count` tasks wait at the same time; call `meanwhile(count)`; let all end."""

    async def wait_in_all() -> None:
        go_on = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            tasks = {group.create_task(go_on.wait()) for _ in range(count)}
            await asyncio.sleep(0)  # all begin
            meanwhile(len(tasks))
            go_on.set()

    asyncio.run(wait_in_all(), debug=False)  # which would be measured, too


def wait_in_nothing(_: int, meanwhile: Callable[[int], object]) -> None:
    """Call `meanwhile(0)`, for what there is without any waits."""
    meanwhile(0)


def peak_memory() -> int:
    """Return the bytes of physical memory that this process has had at most."""
    status = Path("/proc/self/status")
    if status.exists():  # of Linux, whose getrusage counts the parent's memory, too
        fields = dict(line.split(":") for line in status.read_text().splitlines())
        return int(fields["VmHWM"].removesuffix("kB")) * KIB
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * KIB


@dataclass(frozen=True, slots=True)
class Cost:
    """What it took until there were `waits` waits: seconds, and bytes at the peak."""

    waits: int
    seconds: float
    memory: int


def tell_cost(kind: str, count: int) -> NoReturn:
    """Print what `count` waits of this kind cost this process, and end it.

    It should be a fresh one. Its end does not wait for that of the waits: to end one of
    ten thousand threads takes Python 3.13 without a GIL a millisecond or two.
    """
    began = time.perf_counter()

    def tell(waits: int) -> None:
        cost = Cost(waits, time.perf_counter() - began, peak_memory())
        print(json.dumps(asdict(cost)), flush=True)
        os._exit(0)

    KINDS[kind](count, tell)
    raise AssertionError("nobody has been told")


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


KINDS: dict[str, Callable[[int, Callable[[int], object]], None]] = {
    "nothing": wait_in_nothing,
    "threads": wait_in_threads,
    "tasks": wait_in_tasks,
}


def cost_in_fresh_process(kind: str, count: int) -> Cost:
    """Let a process of its own find out what `count` waits of this kind cost.

    Raises:
        CalledProcessError: it did not.
    """
    command = [sys.executable, __file__, "--waits", f"{count}", "--cost-of", kind]
    with ExitStack() as stack:
        with ctrl_c_later():  # until the end of this block will kill it
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)  # no effect on one that has ended
        printed, _ = process.communicate()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Cost(**json.loads(printed))


def many(text: str) -> int:
    number = int(text)
    if not 100 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be in 100 … {MOST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--waits", type=many, default=WAITS)
    parser.add_argument("--cost-of", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    count: int = options.waits
    if options.cost_of is not None:
        tell_cost(options.cost_of, count)

    costs = {kind: cost_in_fresh_process(kind, count) for kind in KINDS}
    possible = costs["threads"].waits
    if possible < count:
        print(f"needs {count} threads at a time; {possible} are allowed (see --waits)")
        raise SystemExit(NEEDS_STATUS)
    print(f"{count} waits at a time             each of them")
    nothing = costs.pop("nothing")
    for kind, one in costs.items():
        memory = one.memory - nothing.memory
        print(
            f"{kind:8}{one.seconds:6.2f} s {memory / KIB**2:7.1f} MiB"
            f"{1e6 * one.seconds / count:13.1f} µs {memory / KIB / count:7.2f} KiB"
        )
        if one.waits != count:
            raise SystemExit(f"{one.waits} waits instead of {count}")
    seconds = costs["threads"].seconds / costs["tasks"].seconds
    print(f"{seconds:.0f}x the time of a task goes into a thread")


if __name__ == "__main__":
    main()
