"""How many items per second pass through each kind of queue, one by one or in batches?

Between threads a queue hands over a reference. Between processes every item is
pickled, written into a pipe, read and unpickled; most of that is the price of a
message, whatever its size. So send many items in one message, and every queue is fast.

* `queue.SimpleQueue` (threads): written in C; put() never blocks, and may even be
  called in a signal handler. No bound, no join().
* `queue.Queue` (threads): can be bounded, knows what is not done yet, can be closed.
* `multiprocessing.SimpleQueue`: a pipe with two locks, for any number of processes.
  put() writes by itself, so it fails where it is called, and waits if nobody reads.
* `multiprocessing.Queue`: a thread of the producer does the writing, so put() returns
  at once, can be bounded and take a time-out; what cannot be pickled fails in that
  thread. The usual choice.
* `multiprocessing.Pipe`: two ends, one process at each, no lock at all.
* `Manager().Queue`: lives in a third process, which put() and get() ask by message and
  reply. It can be pickled like anything else, so it also goes to a pool's tasks, and to
  other machines.

For large arrays use shared memory; between machines, a broker (Redis, RabbitMQ).

Try:  --times 10

Output:
    one producer, one consumer
    queue.SimpleQueue             100,000 items   13,825,000 /s   53.645x
    queue.Queue                    50,000 items      258,000 /s    1.000x
    multiprocessing.SimpleQueue    20,000 items      257,000 /s    0.999x
    multiprocessing.Queue          20,000 items      211,000 /s    0.818x
    Pipe                           20,000 items      262,000 /s    1.016x
    Pipe, 1,000 in a message      500,000 items   11,591,000 /s   44.976x
    Manager().Queue                   500 items       16,000 /s    0.061x
    all arrived, in their order; the last column sets queue.Queue to 1
"""

import argparse
import multiprocessing
import queue
import signal
import sys
import threading
import time
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from itertools import chain
from multiprocessing import resource_tracker
from multiprocessing.managers import SyncManager
from multiprocessing.process import BaseProcess
from typing import Any

BATCH = 1000  # items in a message
MAX_TIMES = 100
LIMIT = 60.0  # seconds for what should never take so long

Put = Callable[[Any], object]
Get = Callable[[], Any]


def checksum(items: Iterable[int]) -> int:
    """Return a number that tells which items there are, and in which order."""
    return zlib.crc32(array("q", items).tobytes())


def produce(
    put: Put, n_items: int, batch: int, answer: Put, wait_for_start: Get
) -> None:
    """Put 0, 1, 2, … one by one, or in lists of `batch`; then None, for the end."""
    items = list(range(n_items))
    answer("ready")
    wait_for_start()
    if batch == 1:
        for item in items:
            put(item)
    else:
        for first in range(0, n_items, batch):
            put(items[first : first + batch])
    put(None)


def consume(get: Get, batch: int, answer: Put) -> None:
    """Get items until None comes; say so at once, and then their checksum."""
    answer("ready")
    got = list(iter(get, None))
    answer("got all")
    answer(checksum(got if batch == 1 else list(chain.from_iterable(got))))


def transfer(start: Put, answer: Get, n_items: int) -> float:
    """Start the producer; return the seconds until the consumer has got all items.

    Raises:
        ValueError: it has got something else.
    """
    for _ in range(2):
        answer()  # both are ready
    began = time.perf_counter()
    start(None)
    answer()
    seconds = time.perf_counter() - began
    if answer() != checksum(range(n_items)):
        raise ValueError("what was got is not what was put")
    return seconds


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


@contextmanager
def simple_queue() -> Iterator[tuple[Put, Get]]:
    with ctrl_c_later():
        channel: multiprocessing.SimpleQueue[Any] = multiprocessing.SimpleQueue()
    with closing(channel):
        yield channel.put, channel.get


@contextmanager
def full_queue() -> Iterator[tuple[Put, Get]]:
    with ctrl_c_later():
        channel: multiprocessing.Queue[Any] = multiprocessing.Queue()
    with closing(channel):
        yield channel.put, channel.get


@contextmanager
def pipe() -> Iterator[tuple[Put, Get]]:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver, sender:
        yield sender.send, receiver.recv


@contextmanager
def managed_queue() -> Iterator[tuple[Put, Get]]:
    manager = SyncManager(shutdown_timeout=LIMIT)

    def end() -> None:
        with ctrl_c_later():
            manager.shutdown()

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            manager.start()
            stack.callback(end)
        channel = manager.Queue()
        yield channel.put, channel.get


def between_processes(
    channel: AbstractContextManager[tuple[Put, Get]], n_items: int, batch: int = 1
) -> float:
    """Return the seconds that `n_items` items take from one process to another."""
    with ctrl_c_later():
        answers: multiprocessing.Queue[Any] = multiprocessing.Queue()
    with closing(answers), channel as (put, get), simple_queue() as (start, wait):
        producer = (put, n_items, batch, answers.put, wait)
        consumer = (get, batch, answers.put)
        processes = [
            multiprocessing.Process(target=produce, args=producer),
            multiprocessing.Process(target=consume, args=consumer),
        ]
        with running(processes):
            return transfer(start, partial(answers.get, timeout=LIMIT), n_items)


def between_threads(
    channel: "queue.SimpleQueue[Any] | queue.Queue[Any]", n_items: int
) -> float:
    """Return the seconds that `n_items` items take from one thread to another.

    Ctrl-C hits neither: in the midst of put() or get() it may leave the queue locked.
    """
    start, answers = queue.SimpleQueue[Any](), queue.SimpleQueue[Any]()
    producer = (channel.put, n_items, 1, answers.put, start.get)
    consumer = (channel.get, 1, answers.put)
    threads = [
        threading.Thread(target=produce, args=producer, daemon=True),
        threading.Thread(target=consume, args=consumer, daemon=True),
    ]
    with ctrl_c_later():
        for thread in threads:
            thread.start()
    seconds = transfer(start.put, partial(answers.get, timeout=LIMIT), n_items)
    for thread in threads:
        thread.join()
    return seconds


def times(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_TIMES:
        raise argparse.ArgumentTypeError(f"must be in 1 … {MAX_TIMES}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--times", type=times, default=1)
    n = parser.parse_args().times
    print("one producer, one consumer", flush=True)

    rows: list[tuple[str, int, Callable[[int], float]]] = [
        ("queue.SimpleQueue", 100_000, partial(between_threads, queue.SimpleQueue())),
        ("queue.Queue", 50_000, partial(between_threads, queue.Queue())),
        (
            "multiprocessing.SimpleQueue",
            20_000,
            partial(between_processes, simple_queue()),
        ),
        ("multiprocessing.Queue", 20_000, partial(between_processes, full_queue())),
        ("Pipe", 20_000, partial(between_processes, pipe())),
        (
            f"Pipe, {BATCH:,} in a message",
            500_000,
            partial(between_processes, pipe(), batch=BATCH),
        ),
        ("Manager().Queue", 500, partial(between_processes, managed_queue())),
    ]
    rates = {name: n * items / measure(n * items) for name, items, measure in rows}
    for name, items, _ in rows:
        ratio = rates[name] / rates["queue.Queue"]
        rate = round(rates[name], -3)
        print(f"{name:27} {n * items:9,} items {rate:12,.0f} /s {ratio:8.3f}x")
    print("all arrived, in their order; the last column sets queue.Queue to 1")


if __name__ == "__main__":
    main()
