"""Two processes are at work at the same time, each in a memory of its own.

A process is a program in execution: an interpreter, its threads and its memory. What a
child assigns to a variable, of the module or handed over as an argument, changes the
child's copy, and the parent never hears of it. Whatever is to come back needs a
channel; here each child has a pipe. The end of a pipe is a message, too: it comes when
the last process that could write there is gone, so that the parent of a child that has
died without a word gets EOFError instead of waiting for ever.

That both are in progress together is proven by a barrier in the middle of their work:
nobody passes it before both have reached it. One after the other would never get there.

Where it is only the results that matter, `concurrent.futures.ProcessPoolExecutor` is
the shorter way.

Book: Chapter 6, example1.
Try:  --numbers 100000

Output:
    parent  process <pid>
    A       process <pid>, its total 500,500, its list [A was here]
    B       process <pid>, its total 1,500,500, its list [B was here]
    parent  its total 0, its list []
    through the pipes came 2,001,000, from two processes at work at once
"""

import argparse
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier

LIMIT = 30.0  # seconds until both must be in the middle of their work

total = 0  # one for each process: what a child adds here, stays in the child


@dataclass(frozen=True, slots=True)
class Report:
    """What a process has to say at its end.

    Attributes:
        total: the module's variable, as this process sees it.
        notes: the list that it was given, as it sees it.
    """

    name: str
    pid: int
    total: int
    notes: list[str]


def add_up(
    numbers: Sequence[int], halfway: Barrier, notes: list[str], reports: Connection
) -> None:
    """Add `numbers` to `total`, wait at `halfway` in the middle; send a Report."""
    global total
    half = len(numbers) // 2
    for number in numbers[:half]:
        total += number
    halfway.wait(LIMIT)
    for number in numbers[half:]:
        total += number
    name = multiprocessing.current_process().name
    notes.append(f"{name} was here")
    reports.send(Report(name, os.getpid(), total, notes))


def add_up_together(jobs: dict[str, Sequence[int]], notes: list[str]) -> list[Report]:
    """Add up each of `jobs` in a process of that name; return what they report.

    Raises:
        EOFError: a process has ended without a report.
    """
    with ctrl_c_later():
        halfway = multiprocessing.Barrier(len(jobs))
    processes: list[BaseProcess] = []
    pipes = []
    for name, numbers in jobs.items():
        receiver, sender = multiprocessing.Pipe(duplex=False)
        args = (numbers, halfway, notes, sender)
        processes.append(multiprocessing.Process(target=add_up, args=args, name=name))
        pipes.append((receiver, sender))
    try:
        with running(processes):
            for _, sender in pipes:
                sender.close()  # now the children alone hold it, and its end shows
            return [receiver.recv() for receiver, _ in pipes]
    finally:
        for receiver, sender in pipes:
            receiver.close()
            sender.close()


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
def running(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """Start `processes`, wait for them at the end of the block; kill those still there.

    Killed are those that have not ended when the block, or the waiting, raises.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    try:
        with ctrl_c_later():
            for process in processes:
                process.start()
        yield
        for process in processes:
            process.join()
    finally:
        with ctrl_c_later():
            for process in processes:
                if process.pid is not None:  # it has been started
                    process.kill()  # no effect on one that has ended
                    process.join()


def at_least_two(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--numbers", type=at_least_two, default=1000)
    n = parser.parse_args().numbers

    print(f"parent  process {os.getpid()}")
    jobs: dict[str, Sequence[int]] = {
        "A": range(1, n + 1),
        "B": range(n + 1, 2 * n + 1),
    }
    notes: list[str] = []
    reports = add_up_together(jobs, notes)
    for report, (name, numbers) in zip(reports, jobs.items(), strict=True):
        said = ", ".join(report.notes)
        print(
            f"{report.name:7} process {report.pid}, "
            f"its total {report.total:,}, its list [{said}]"
        )
        if (report.total, report.notes) != (sum(numbers), [f"{name} was here"]):
            raise SystemExit(f"{name} was to add up its own numbers, and to note it")
    print(f"parent  its total {total}, its list {notes}")
    if total or notes:
        raise SystemExit("a child has changed what belongs to its parent")
    if len({os.getpid(), *(report.pid for report in reports)}) != 3:
        raise SystemExit("there were to be three processes")
    both = sum(report.total for report in reports)
    if both != sum(range(1, 2 * n + 1)):
        raise SystemExit("the totals do not add up")
    print(f"through the pipes came {both:,}, from two processes at work at once")


if __name__ == "__main__":
    main()
