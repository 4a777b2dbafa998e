"""A worker process is killed in mid-job, and the job is completed all the same.

The system kills processes: for want of memory, by an administrator's `kill -9`, by a
crash in C code. Nobody can catch that, so it has to be seen from outside. What then?

* `multiprocessing.Pool` replaces the worker, but not the task that it had in hand: its
  result never comes, and whoever asks for it waits for ever.
* `ProcessPoolExecutor` raises BrokenProcessPool for everything not yet done, and does
  not say which task it was. One has to make a new pool, and submit the rest again.
* `SupervisedMap`, below, gives each worker a pipe of its own. When a worker dies, its
  pipe ends, so it is known at once which task was in hand. That task is done again by a
  new worker, a limited number of times. No lock and no queue is shared, so no worker
  can take one to the grave.

A task that is done again has been begun twice: its result comes once, but what it did
to the world outside may have happened twice. Ready-made, the package Pebble has a pool
that reports a dead worker for its task alone.

Try:  --workers 4 --tasks 50

Output:
    of 8 tasks, the worker is killed in the midst of task 2
    Pool                 7 results, task 2 never
    ProcessPoolExecutor  2 results, 6 times BrokenProcessPool
    SupervisedMap        8 results, task 2 done again
      killed each time   7 results, task 2 given up at attempt 3
    every result once, every loss reported: 1 and 3 workers
"""

import argparse
import functools
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe, Process, connection, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.pool import AsyncResult, Pool
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

VICTIM = 2  # the task in whose midst the worker is killed
LIMIT = 30.0  # seconds for what should take none
END_LIMIT = 1.0  # seconds from the end of a worker's pipe to the end of the worker


class WorkerLostError(Exception):
    """Every worker that was given a certain task has died of it."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[R]):
    """What became of one task: a result, or the error that it raised.

    Attributes:
        index: which task it was, counted from 0.
        error: a WorkerLostError if no worker survived the task.
    """

    index: int
    result: R | None = None
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Loss:
    """A worker has died with a task in hand.

    Attributes:
        index: of the task.
        attempt: at the task, counted from 1.
        exitcode: of the worker; a negative number is that of the signal.
    """

    index: int
    attempt: int
    pid: int
    exitcode: int

    @property
    def cause(self) -> str:
        """What ended the worker, in words."""
        if self.exitcode >= 0:
            return f"ended with exit status {self.exitcode}"
        try:
            return f"killed by {signal.Signals(-self.exitcode).name}"
        except ValueError:  # it has no name
            return f"killed by signal {-self.exitcode}"


def packed_outcome(function: Callable[[T], R], task: T) -> bytes:
    """Return the pickled pair of what `function` returned and what it raised.

    An exception that does not survive pickling becomes a RuntimeError of the same text;
    so does a result that cannot be pickled.
    """
    try:
        return pickle.dumps((function(task), None))
    except Exception as error:
        try:
            packed = pickle.dumps((None, error))
            pickle.loads(packed)  # or the other side would find out
        except Exception:
            text = f"{type(error).__name__}: {error}"
            packed = pickle.dumps((None, RuntimeError(text)))
        return packed


def serve(function: Callable[[Any], Any], ours: Connection, theirs: Connection) -> None:
    """Do the tasks that come through `ours` until there are no more.

    Run by a worker. There are no more either if the parent is dead: then its ends of
    all pipes are closed, in forked workers, too, which end from the last to the first.
    """
    # To stop is for the parent to decide, also if a signal goes to the whole group.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    theirs.close()  # as long as it was open here, the tasks would never end
    with suppress(EOFError, ConnectionError):
        while True:
            task = pickle.loads(ours.recv_bytes())
            ours.send_bytes(packed_outcome(function, task))


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


@dataclass(frozen=True, slots=True)
class _Attempt:
    index: int
    packed_task: bytes
    number: int  # counted from 1


class SupervisedMap(Generic[T, R]):
    """Applies a function to tasks in worker processes, whatever becomes of those.

    To be used in a `with` block, and iterated over once, which gives the outcome of
    each task as it comes. At the end of the block no worker is left; those that are
    still at work, after an exception or a `break`, are killed.

    Args:
        function: defined at module level, so that it can be pickled.
        tasks: taken one by one, when a worker is free.
        n_workers: at most so many processes.
        attempts: how often a task is begun before it is given up.
        on_loss: called with each Loss.

    Raises:
        ValueError: `n_workers` or `attempts` is less than 1.
    """

    def __init__(
        self,
        function: Callable[[T], R],
        tasks: Iterable[T],
        n_workers: int,
        attempts: int = 3,
        on_loss: Callable[[Loss], object] = lambda _: None,
    ) -> None:
        if n_workers < 1 or attempts < 1:
            raise ValueError(f"need a worker and an attempt: {n_workers}, {attempts}")
        self._function = function
        self._fresh = iter(enumerate(tasks))
        self._again: deque[_Attempt] = deque()  # what dead workers had in hand
        self._outcomes: deque[Outcome[R]] = deque()  # to be given out next
        self._n_workers, self._attempts = n_workers, attempts
        self._on_loss = on_loss
        self._workers: dict[Connection, Process] = {}  # all that have not been joined
        self._in_hand: dict[Connection, _Attempt] = {}  # what the busy ones do
        self._deadline: float | None = None  # set by stop(), once
        self._stopped, self._stop = Pipe(duplex=False)

    def __enter__(self) -> "SupervisedMap[T, R]":
        return self

    def __exit__(self, *_: object) -> None:
        with ctrl_c_later():
            for theirs in list(self._workers):
                self._end(theirs, limit=0)
            self._stopped.close()
            self._stop.close()

    def stop(self, grace: float = 0.0) -> None:
        """Begin no more tasks, and give up those that take `grace` seconds from now.

        May be called by a signal handler or another thread; only the first call counts.
        """
        if self._deadline is None:
            self._deadline = time.monotonic() + grace
            self._stop.send_bytes(b"stop")  # wakes who waits for the workers

    def __iter__(self) -> Iterator[Outcome[R]]:
        while len(self._in_hand) < self._n_workers and self._begin_next(None):
            pass
        while True:
            while self._outcomes:
                yield self._outcomes.popleft()
            if not self._in_hand:
                return
            left = None
            if self._deadline is not None:
                left = max(0.0, self._deadline - time.monotonic())
            ready = connection.wait([*self._in_hand, self._stopped], left)
            if not ready:
                return  # the grace is over
            if self._stopped in ready:
                self._stopped.recv_bytes()
            for worker in [one for one in self._in_hand if one in ready]:
                self._receive(worker)

    def _receive(self, worker: Connection) -> None:
        """Take what comes from a worker, ready or dead, and see that work goes on."""
        attempt = self._in_hand.pop(worker)
        try:
            packed = worker.recv_bytes()
        except (EOFError, OSError):  # nothing came, or not all of it
            self._bury(worker, attempt)
            self._begin_next(None)
            return
        self._begin_next(worker)
        try:
            result, error = pickle.loads(packed)
        except Exception as failure:  # a result may refuse to be unpickled
            result, error = None, failure
        self._outcomes.append(Outcome(attempt.index, result, error))

    def _bury(self, worker: Connection, attempt: _Attempt) -> None:
        """Report a dead worker; see that its task is done again, or given up."""
        process = self._end(worker, END_LIMIT)
        assert process.pid is not None
        assert process.exitcode is not None
        index, number = attempt.index, attempt.number
        loss = Loss(index, number, process.pid, process.exitcode)
        if number < self._attempts:
            self._again.append(replace(attempt, number=number + 1))
        else:
            text = f"task {index}: worker {loss.cause}, attempt {number} of {number}"
            self._outcomes.append(Outcome(index, None, WorkerLostError(text)))
        self._on_loss(loss)

    def _begin_next(self, worker: Connection | None) -> bool:
        """Give a worker, or None for a new one, a task; tell whether there was one."""
        attempt = self._next_attempt()
        if attempt is None:
            return False
        if worker is None:
            worker = self._start_worker()
        self._in_hand[worker] = attempt
        with suppress(ConnectionError):  # it has just died, and its pipe will say so
            worker.send_bytes(attempt.packed_task)
        return True

    def _next_attempt(self) -> _Attempt | None:
        if self._deadline is not None:
            return None
        if self._again:
            return self._again.popleft()
        for index, task in self._fresh:
            try:
                return _Attempt(index, pickle.dumps(task), 1)
            except Exception as error:  # it cannot be pickled: the next one, then
                self._outcomes.append(Outcome(index, None, error))
        return None

    def _start_worker(self) -> Connection:
        theirs, ours = Pipe()
        process = Process(target=serve, args=(self._function, ours, theirs))
        if sys.platform != "win32":
            resource_tracker.ensure_running()  # its start would let Ctrl-C through
        with ctrl_c_later():
            process.start()
            self._workers[theirs] = process
        ours.close()  # or the pipe would not end with the worker
        return theirs

    def _end(self, worker: Connection, limit: float) -> Process:
        """Wait `limit` seconds for a worker's end, then kill it."""
        process = self._workers[worker]
        process.join(limit)
        process.kill()  # no effect on one that has ended
        process.join()
        worker.close()
        del self._workers[worker]
        return process


def kill_this_process() -> None:
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def square(n: int, bomb: Path) -> int:
    """Return `n` squared; be killed in the midst of VICTIM if `bomb` is still there."""
    if n == VICTIM:
        with suppress(FileNotFoundError):
            bomb.unlink()  # only one process can do that
            kill_this_process()
    return n * n


def square_or_die(n: int) -> int:
    """Return `n` squared; be killed in the midst of VICTIM, always."""
    if n == VICTIM:
        kill_this_process()
    return n * n


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


@contextmanager
def old_process_pool() -> Iterator[Pool]:
    """A `multiprocessing.Pool` of one process that leaves Ctrl-C to this one."""
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)

    def end() -> None:
        with ctrl_c_later():
            pool.terminate()
            pool.join()

    with warnings.catch_warnings(), ExitStack() as stack:
        # A Pool replaces the dead from a thread; to fork there is deprecated.
        warnings.filterwarnings("ignore", ".*fork", DeprecationWarning)
        if sys.platform != "win32":
            resource_tracker.ensure_running()  # its start would let Ctrl-C through
        with ctrl_c_later():
            pool = Pool(1, signal.signal, ignore_ctrl_c)
            stack.callback(end)
            pool.apply(abs, (0,))
        yield pool


def with_old_pool(job: Callable[[int], int], n_tasks: int) -> list[AsyncResult[int]]:
    """Return the tasks of a Pool when all but VICTIM are done, of which one waits."""
    with old_process_pool() as pool:
        tasks = [pool.apply_async(job, (n,)) for n in range(n_tasks)]
        for n, task in enumerate(tasks):
            if n != VICTIM:
                task.get(LIMIT)
        return [task for task in tasks if task.ready()]


def with_executor(job: Callable[[int], int], n_tasks: int) -> Counter[type | None]:
    """Return how many tasks of a ProcessPoolExecutor ended with which exception."""
    with process_pool(1) as pool:
        tasks = [pool.submit(job, n) for n in range(n_tasks)]
        errors = [task.exception(LIMIT) for task in tasks]
    return Counter(type(error) if error else None for error in errors)


def tasks_beyond_victim(text: str) -> int:
    number = int(text)
    if number <= VICTIM:
        raise argparse.ArgumentTypeError(f"must be more than {VICTIM}, not {number}")
    return number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=positive, default=2)
    parser.add_argument("--tasks", type=tasks_beyond_victim, default=8)
    options = parser.parse_args()
    n_workers, n_tasks = options.workers, options.tasks
    others = n_tasks - 1

    print(f"of {n_tasks} tasks, the worker is killed in the midst of task {VICTIM}")
    with tempfile.TemporaryDirectory() as folder:
        bomb = Path(folder) / "bomb"
        job = functools.partial(square, bomb=bomb)

        # One worker each, so that it is certain what was done before and what after.
        bomb.touch()
        ready = with_old_pool(job, n_tasks)
        print(f"Pool                 {len(ready)} results, task {VICTIM} never")

        bomb.touch()
        ends = with_executor(job, n_tasks)
        done, broken = ends[None], ends[BrokenProcessPool]
        print(f"ProcessPoolExecutor  {done} results, {broken} times BrokenProcessPool")

        bomb.touch()
        losses: list[Loss] = []
        tasks = range(n_tasks)
        with SupervisedMap(job, tasks, n_workers, on_loss=losses.append) as outcomes:
            found = list(outcomes)
        results = {one.index: one.result for one in found}
        print(f"SupervisedMap        {len(found)} results, task {VICTIM} done again")
    if (len(ready), done, broken) != (others, VICTIM, n_tasks - VICTIM):
        raise SystemExit("a pool has learnt to bear the death of a worker")
    if len(found) != n_tasks or results != {n: n * n for n in tasks}:
        raise SystemExit(f"not every result exactly once: {found}")
    if [(loss.index, loss.attempt) for loss in losses] != [(VICTIM, 1)]:
        raise SystemExit(f"one worker was to be lost: {losses}")

    losses.clear()
    deadly = SupervisedMap(square_or_die, tasks, n_workers, on_loss=losses.append)
    with deadly as outcomes:
        errors = {one.index: one.error for one in outcomes if one.error is not None}
    given_up = [n for n, error in errors.items() if isinstance(error, WorkerLostError)]
    if given_up != [VICTIM] or [loss.attempt for loss in losses] != [1, 2, 3]:
        raise SystemExit(f"given up: {errors}, lost: {losses}")
    print(f"  killed each time   {others} results, task {VICTIM} given up at attempt 3")
    print(f"every result once, every loss reported: 1 and {len(losses)} workers")


if __name__ == "__main__":
    main()
