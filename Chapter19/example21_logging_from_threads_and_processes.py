"""Threads of several processes write one log: no record is lost, torn or out of order.

A handler's lock keeps the threads of one process apart, but processes know nothing of
each other's locks. So one listener alone writes, and all others put their records into
its queue: QueueHandler and QueueListener, of the standard library. What to mind:

* A process that was forked has its parent's handlers; it must replace them.
* QueueHandler puts without waiting. If the queue has a size and is full, the record is
  lost (on macOS each queue between processes has one). In a handler that waits, whoever
  logs faster than the listener writes is slowed down.
* Stop the listener only when all senders have ended: what comes later is lost. A
  process that is killed may take its last records with it; one that is killed while it
  writes to the queue spoils the queue for all.

Beside it, three ways to lose records, each of them forced:

* Text that goes out in pieces. `print` to a stream without a buffer writes the text and
  the end of the line separately, and stdout has none under `python -u`. Here all have
  written their text before any ends its line. (A FileHandler that appends writes text
  and end at once, so that on many systems lines stay whole. Nobody promises it.)
* A file that each process opens for itself with mode "w". Each has a position of its
  own, which starts at 0, and writes over the others, even if they take turns.
* A full queue, and a QueueHandler that does not wait.

Rotating files belong behind the listener, too: two processes that both rotate rename
and delete each other's. Packages: loguru has such a queue (`enqueue=True`), and
concurrent-log-handler a lock that holds between processes.

Try:  --records 100

Output:
                                lines    whole     lost  in order
    one queue, one listener    10,000   10,000        0       yes
    each prints in pieces         100        0      100         –
    each opens it anew             25       25       75       yes
    100 records, a queue of 10
    QueueHandler                   10       10       90
    one that waits                100      100        0
    10,000 records of 8 processes: none lost, none torn, in order
"""

import argparse
import io
import logging
import logging.handlers
import multiprocessing
import queue
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier, Lock
from pathlib import Path
from typing import Any

LIMIT = 30.0  # seconds for what should take none
N_PROCESSES, N_THREADS = 8, 2
N_RECORDS = 625  # of each thread
N_CLASHING, N_FORCED = 4, 25  # processes, and records of each, that are lost
SMALL, MANY = 10, 100  # room of a queue that is to be full, and records for it
PATIENCE = 0.02  # seconds to wait for what does not come

FORMAT = "%(processName)s %(threadName)s %(message)s"
LINE = re.compile(r"(?P<sender>\S+ \S+) (?P<number>\d+) (?P<filling>-*)")


class WaitingQueueHandler(logging.handlers.QueueHandler):
    """A QueueHandler that waits for room. Threads that log meanwhile wait as well."""

    def __init__(self, records: "queue.Queue[Any]") -> None:
        super().__init__(records)
        self._put = records.put

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put `record` into the queue, as soon as there is room."""
        self._put(record)


class CountingQueueHandler(logging.handlers.QueueHandler):
    """A QueueHandler that does not wait, and counts what it loses.

    Attributes:
        lost: how many records found the queue full. Guarded by the handler's lock.
    """

    lost = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        """Put `record` into the queue if there is room."""
        try:
            super().enqueue(record)
        except queue.Full:
            self.lost += 1


def log_by(handler: logging.Handler) -> None:
    """Send what this process logs to `handler`, and to nothing that is inherited."""
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)


@contextmanager
def listening(records: "Queue[Any]", handler: logging.Handler) -> Iterator[None]:
    """Let a thread hand over to `handler` what comes from a queue, for a block.

    All who send must have ended at the end of the block. It closes the queue.
    """
    listener = logging.handlers.QueueListener(records, handler)
    listener.start()
    try:
        yield
    except BaseException:
        # Perhaps a sender was killed in the midst of a record. Then the listener, a
        # daemon, waits for the rest, and nobody can write to the queue any more.
        records.cancel_join_thread()
        raise
    listener.stop()
    records.close()
    records.join_thread()  # it wrote the end, for stop()


# -- who logs


def filling(number: int) -> str:
    return "-" * (number % 60)


def log_some(n_records: int) -> None:
    """Log records, each with a number and the filling that belongs to it."""
    for number in range(n_records):
        logging.info("%d %s", number, filling(number))


def log_by_queue(records: "Queue[Any]", n_threads: int, n_records: int) -> None:
    """Let threads of a process log by way of a queue."""
    log_by(logging.handlers.QueueHandler(records))
    threads = [
        threading.Thread(target=log_some, args=(n_records,), name=f"thread-{n}")
        for n in range(n_threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class PausingFile(io.FileIO):
    """A file, written at its end, that lets a caller decide what comes between writes.

    Args:
        turn: held during each write. On Windows, a write at the end is two steps.
        between: called after each write.
    """

    def __init__(
        self, file: Path, turn: AbstractContextManager[Any], between: Callable[[], Any]
    ) -> None:
        super().__init__(file, "a")
        self._turn = turn
        self._between = between

    def write(self, data: Any) -> int:
        with self._turn:
            written = super().write(data)
        self._between()
        return written


class PrintingHandler(logging.Handler):
    """Broken: it prints records, to a stream like stdout under `python -u`."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._stream = io.TextIOWrapper(file, "utf-8", write_through=True)

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=self._stream)


def log_in_pieces(file: Path, meeting: Barrier, turn: Lock, n_records: int) -> None:
    """Broken: print records to a file, to which other processes print at that time."""
    with PausingFile(file, turn, lambda: meeting.wait(LIMIT)) as shared:
        handler = PrintingHandler(shared)
        handler.setFormatter(logging.Formatter(FORMAT))
        log_by(handler)
        log_some(n_records)


def log_from_the_start(
    file: Path, meeting: Barrier, turn: Lock, n_records: int
) -> None:
    """Broken: log to a file that other processes have opened, too, to write it anew."""
    with closing(logging.FileHandler(file, "w", "utf-8")) as handler:
        handler.setFormatter(logging.Formatter(FORMAT))
        log_by(handler)
        meeting.wait(LIMIT)  # now all have opened, and so emptied, the file
        with turn:
            log_some(n_records)


# -- what has come of it


@dataclass(frozen=True, slots=True)
class Log:
    """What is in a log.

    Attributes:
        lines: how many there are.
        whole: how many of them are a record and nothing else.
        lost: how many of the records have no line of their own.
        in_order: whether each sender's records stand in the order of their numbers.
    """

    lines: int
    whole: int
    lost: int
    in_order: bool


def examine(lines: Sequence[str], senders: Iterable[str], n_records: int) -> Log:
    """Look in the lines of a log for records 0 … `n_records` - 1 of each sender."""
    numbers: dict[str, list[int]] = {sender: [] for sender in senders}
    for line in lines:
        match = LINE.fullmatch(line)
        if match and match["sender"] in numbers:
            number = int(match["number"])
            if number < n_records and match["filling"] == filling(number):
                numbers[match["sender"]].append(number)
    return Log(
        lines=len(lines),
        whole=sum(map(len, numbers.values())),
        lost=sum(n_records - len(set(found)) for found in numbers.values()),
        in_order=all(found == sorted(set(found)) for found in numbers.values()),
    )


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


def processes(
    n: int, target: Callable[..., None], *arguments: object
) -> list[BaseProcess]:
    return [
        multiprocessing.Process(target=target, args=arguments, name=f"process-{k}")
        for k in range(n)
    ]


def through_one_queue(
    file: Path, n_processes: int, n_threads: int, n_records: int
) -> Log:
    """Let threads of several processes log to `file` through a queue."""
    with ctrl_c_later():
        records: Queue[Any] = multiprocessing.Queue()
    arguments = records, n_threads, n_records
    # Mode "w": once closed, it writes nothing more, even if a listener was left behind.
    with closing(logging.FileHandler(file, "w", "utf-8")) as handler:
        handler.setFormatter(logging.Formatter(FORMAT))
        with (
            listening(records, handler),
            running(processes(n_processes, log_by_queue, *arguments)),
        ):
            pass
    senders = (
        f"process-{n} thread-{m}" for n in range(n_processes) for m in range(n_threads)
    )
    return examine(file.read_text("utf-8").splitlines(), senders, n_records)


def without_a_queue(
    way: Callable[[Path, Barrier, Lock, int], None], file: Path, n: int, n_records: int
) -> Log:
    """Let `n` processes log to `file` in a broken way."""
    with ctrl_c_later():
        meeting, turn = multiprocessing.Barrier(n), multiprocessing.Lock()
    with running(processes(n, way, file, meeting, turn, n_records)):
        pass
    senders = (f"process-{k} MainThread" for k in range(n))
    return examine(file.read_text("utf-8").splitlines(), senders, n_records)


def full_without_waiting(size: int, n_records: int) -> tuple[int, int]:
    """Log to a queue that nobody reads; return how many records came, and were lost."""
    records: queue.Queue[Any] = queue.Queue(size)
    handler = CountingQueueHandler(records)
    for _ in range(n_records):
        handler.handle(logging.makeLogRecord({"msg": "a record"}))
    return records.qsize(), handler.lost


def full_and_waiting(size: int, n_records: int) -> tuple[int, int]:
    """Log to a queue that nobody reads while there is room.

    Returns:
        How many records came in the end, and how many were lost.

    Raises:
        RuntimeError: who logs did not wait.
    """
    records: queue.Queue[Any] = queue.Queue(size)
    handler = WaitingQueueHandler(records)

    def log() -> None:
        for _ in range(n_records):
            handler.handle(logging.makeLogRecord({"msg": "a record"}))

    thread = threading.Thread(target=log, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if not thread.is_alive():
        raise RuntimeError(f"{n_records} records fit into a queue of {size}")
    with closing(logging.handlers.BufferingHandler(n_records + 1)) as came:
        listener = logging.handlers.QueueListener(records, came)
        listener.start()
        thread.join()
        records.join()  # stop() itself needs room in the queue
        listener.stop()
        return len(came.buffer), n_records - len(came.buffer)


def show(way: str, log: Log, expected: Log) -> None:
    """Print what came of a way to log; end the program if it is not as expected."""
    order = "yes" if log.in_order else "no"
    if not log.whole:
        order = "–"
    print(f"{way:24}{log.lines:9,}{log.whole:9,}{log.lost:9,}{order:>10}")
    if log != expected:
        raise SystemExit(f"{way}: {expected} was expected, not {log}")


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=positive, default=N_RECORDS)
    n_records = parser.parse_args().records
    n, n_forced = N_PROCESSES * N_THREADS * n_records, N_CLASHING * N_FORCED
    print(f"{'':24}{'lines':>9}{'whole':>9}{'lost':>9}{'in order':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = through_one_queue(folder / "a", N_PROCESSES, N_THREADS, n_records)
        show("one queue, one listener", log, Log(n, n, 0, True))
        log = without_a_queue(log_in_pieces, folder / "b", N_CLASHING, N_FORCED)
        show("each prints in pieces", log, Log(n_forced, 0, n_forced, True))
        log = without_a_queue(log_from_the_start, folder / "c", N_CLASHING, N_FORCED)
        kept = Log(N_FORCED, N_FORCED, n_forced - N_FORCED, True)
        show("each opens it anew", log, kept)
    print(f"{MANY} records, a queue of {SMALL}")
    for way, log_to_full_queue, expected in (
        ("QueueHandler", full_without_waiting, (SMALL, MANY - SMALL)),
        ("one that waits", full_and_waiting, (MANY, 0)),
    ):
        came, lost = log_to_full_queue(SMALL, MANY)
        print(f"{way:24}{came:9}{came:9}{lost:9}")
        if (came, lost) != expected:
            raise SystemExit(f"{way}: {expected} was expected")
    print(f"{n:,} records of {N_PROCESSES} processes: none lost, none torn, in order")


if __name__ == "__main__":
    main()
