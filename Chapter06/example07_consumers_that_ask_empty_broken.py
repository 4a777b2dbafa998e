"""Two consumers see the last item, one gets it, and the other waits for ever.

`while not tasks.empty(): tasks.get()` asks first and takes afterwards. Between the two,
another consumer may take the item; then get() waits for one that nobody puts any more,
and the program that joins its consumers hangs. Here the parent holds both consumers in
that gap (`between`) until each has seen the last item, and then lets one go after the
other, so it happens in every run.

That a consumer waits for ever can be proven, without a time-out: it has said that it
goes to get an item, all that were put have been got, and there is no producer left. All
that remains is to kill it. Throw the queue away, too: a process that is killed in get()
may have locked it.

`multiprocessing.Queue` has a second gap, before the first: put() returns before the
feeder has written the item, so that a consumer may find the queue empty, and leave work
undone. Do not ask; see example08.

Book: Chapter 6, example7.

Output:
    items put  1, and no more will be
    A          sees an item, goes to get it, gets 0, sees none, ends
    B          sees an item, goes to get it
    items got  1: B waits in get() for one that nobody puts
    B is killed, A has returned
    Queue      empty() is True right after put(): the feeder has not written yet
    who asks and then takes, may find that another has taken
"""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue, SimpleQueue

N_ITEMS = 1  # the last one: which came before it does not matter
SILENCE = 0.05  # seconds in which nothing comes from a consumer that waits for ever
LIMIT = 30.0  # seconds that a step of the demonstration may take


def consume(
    tasks: "SimpleQueue[int]",
    log: Connection,
    between: Callable[[], object] = lambda: None,
) -> None:
    """Take items from `tasks` as long as there are any; log each step.

    Args:
        between: called after `empty()` has said no and before get(). It stands for the
            moment in which another consumer may take the item.
    """
    while not tasks.empty():
        log.send(("sees an item", None))
        between()
        log.send(("goes to get it", None))
        item = tasks.get()  # the one that was seen may be gone
        log.send(("gets", item))
    log.send(("sees none, ends", None))


@dataclass(slots=True)
class Consumer:
    """A consumer as its parent sees it.

    Attributes:
        line: what it logs comes here; what is sent here lets it leave the gap.
        steps: what it has logged.
        got: the items.
    """

    name: str
    process: BaseProcess
    line: Connection
    steps: list[str] = field(default_factory=list)
    got: list[int] = field(default_factory=list)

    def read_step(self) -> str:
        """Wait for the consumer's next step, and return it.

        Raises:
            EOFError: it has ended.
            TimeoutError: there was none for LIMIT seconds.
        """
        if not self.line.poll(LIMIT):
            raise TimeoutError(f"nothing from {self.name} in {LIMIT:g} s")
        step, item = self.line.recv()
        self.steps.append(step if item is None else f"{step} {item}")
        if item is not None:
            self.got.append(item)
        return str(step)

    def let_go(self) -> None:
        """Let it leave the gap between empty() and get()."""
        self.line.send("go on")


def waiting_for_ever(consumers: Sequence[Consumer], n_put: int) -> list[Consumer]:
    """Return the consumers that wait in get() for what will never come.

    These are the ones whose last step leads there, if all `n_put` items have been got.
    The caller is the only producer, and puts no more.
    """
    if sum(len(consumer.got) for consumer in consumers) < n_put:
        return []
    return [one for one in consumers if one.steps[-1:] == ["goes to get it"]]


def hold_in_the_gap(consumers: Sequence[Consumer], n_put: int) -> list[Consumer]:
    """Let each consumer look before any takes; return those that wait for ever.

    They are held between empty() and get(), and let go one at a time. The others have
    ended.
    """
    for consumer in consumers:
        consumer.read_step()
    stuck: list[Consumer] = []
    while in_the_gap := [one for one in consumers if one.steps[-1] == "sees an item"]:
        for consumer in in_the_gap:
            consumer.let_go()
            consumer.read_step()  # it goes to get one
            stuck = waiting_for_ever(consumers, n_put)
            if consumer not in stuck:
                consumer.read_step()  # it gets one
                consumer.read_step()  # and looks again
    return stuck


@contextmanager
def two_consumers(tasks: "SimpleQueue[int]") -> Iterator[list[Consumer]]:
    """Start consumers A and B, held between empty() and get() until they are let go."""
    consumers = []
    for name in "AB":
        line, log = multiprocessing.Pipe()
        process = multiprocessing.Process(
            target=consume, args=(tasks, log, log.recv), name=name
        )
        consumers.append(Consumer(name, process, line))
    with running([consumer.process for consumer in consumers]):
        yield consumers


def is_empty_before_the_feeder_writes() -> bool:
    """Tell what `Queue.empty()` says right after put(), with the feeder held up."""
    may_pickle = threading.Event()
    queue: Queue[Slow] = multiprocessing.Queue()
    try:
        queue.put(Slow(may_pickle.wait))
        return queue.empty()
    finally:
        may_pickle.set()
        queue.get()
        queue.close()
        queue.join_thread()


class Slow:
    """An object that is pickled when `before` returns."""

    def __init__(self, before: Callable[[], object] = lambda: None) -> None:
        self._before = before

    def __reduce__(self) -> tuple[type["Slow"], tuple[()]]:
        self._before()
        return Slow, ()


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


def main() -> None:
    with ctrl_c_later():
        tasks: SimpleQueue[int] = multiprocessing.SimpleQueue()
    for number in range(N_ITEMS):
        tasks.put(number)
    print(f"items put  {N_ITEMS}, and no more will be")
    with two_consumers(tasks) as consumers:
        stuck = hold_in_the_gap(consumers, N_ITEMS)
        for consumer in consumers:
            print(f"{consumer.name:10} {', '.join(consumer.steps)}")
        if [one.name for one in stuck] != ["B"]:
            raise SystemExit("B was to come too late")
        (late,) = stuck
        if late.line.poll(SILENCE) or not late.process.is_alive():
            raise SystemExit("B was to wait, and has not")
        n_got = sum(len(consumer.got) for consumer in consumers)
        print(f"items got  {n_got}: B waits in get() for one that nobody puts")
        late.process.kill()
    codes = [consumer.process.exitcode for consumer in consumers]
    if codes[0] != 0 or not codes[1]:
        raise SystemExit(f"A was to return and B to be killed: {codes}")
    print("B is killed, A has returned")
    with ctrl_c_later():
        if not is_empty_before_the_feeder_writes():
            raise SystemExit("Queue.empty() was to overlook what the feeder holds")
    print(
        "Queue      empty() is True right after put(): the feeder has not written yet"
    )
    print("who asks and then takes, may find that another has taken")


if __name__ == "__main__":
    main()
