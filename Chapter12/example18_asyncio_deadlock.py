"""Tasks of one thread await each other, and the event loop sleeps for ever.

No thread is blocked; there are only futures that nobody will set. Two tasks that await
each other are enough, or two asyncio.Locks taken in opposite orders. Others run at each
await, so the unlucky moment is an ordinary one; here each task has its first lock when
it asks for its second. (A task that awaits itself is told at once.)

Two detectors, neither of which sees all:

* The wait-for graph. Tasks await others, and locks know their holders, by way of what
  notes it. A cycle is a deadlock, whatever else is going on, unless one of its waits
  has a time limit. The graph does not know who would have to set an event or to call
  task_done().
* The loop. If nothing is ready, no timer runs and no socket is waited for, then nothing
  happens any more, unless a thread or a signal wakes it. asyncio keeps silent, where
  the loop of Chapter 9 does not; but it asks its selector to wait without a limit then,
  and a selector of our own can tell. One timer, and this one is blind.

To end a cycle, cancel one of it. In a cycle of plain `await task` that fails: each
task asks the one that it awaits to be cancelled, round and round. So wait through
`asyncio.wait` or `shield`, which do not pass it on. Better have no cycle: take locks
in one order; await only tasks that you have made yourself, as in a TaskGroup, since a
tree has none. A time limit, `asyncio.timeout`, is the last resort. In Python 3.14 and
later, `python -m asyncio pstree PID` shows who awaits whom in a program that runs.

Output:
                            cycle        the loop      A is cancelled
    two await each other    A -> B -> A   all wait      B fails
    two locks, two orders   A -> B -> A   all wait      B ends
      beside a timer        A -> B -> A   a timer runs  B ends
    join, no task_done      none          all wait      B ends
    plain await in a cycle cannot be cancelled: RecursionError
    a task that awaits itself: RuntimeError, at once
    two orders, a time limit: A fails, B ends
    one order: no cycle, and both end
    a deadlock needs no second thread, only two who wait for each other
"""

import asyncio
import gc
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds for what is bound to come
SHORT_LIMIT = 0.02  # seconds for what cannot come

AnyTask = asyncio.Task[Any]


class WaitForGraph:
    """Knows which task waits for which, as far as they wait by means of it.

    The tasks of one event loop take turns, so nothing here needs a lock.
    """

    def __init__(self) -> None:
        self.cycles: asyncio.Queue[list[AnyTask]] = asyncio.Queue()  # as they close
        self._awaited: dict[AnyTask, AnyTask | OwnedLock] = {}  # by who waits

    async def result(self, task: asyncio.Task[T]) -> T:
        """Wait for `task` and return its result, or raise what it has raised.

        Who is cancelled here does not cancel `task`.

        Raises:
            RuntimeError: `task` was cancelled.
        """
        with self.waiting_for(task):
            await asyncio.wait([task])
        if task.cancelled():
            raise RuntimeError(f"{task.get_name()} was cancelled")
        return task.result()

    @contextmanager
    def waiting_for(self, what: "AnyTask | OwnedLock") -> Iterator[None]:
        """Note that the current task waits for `what` during the block."""
        me = asyncio.current_task()
        assert me is not None
        self._awaited[me] = what
        if cycle := self.cycle(me):
            self.cycles.put_nowait(cycle)
        try:
            yield
        finally:
            del self._awaited[me]

    def cycle(self, task: AnyTask) -> list[AnyTask]:
        """Return tasks of which each waits for the next, and the last for the first.

        The first is `task`; if it is in no cycle, there are none. A cycle is closed
        by a task that begins to wait: who is given a lock does not wait any more.
        """
        path = [task]
        while (what := self._awaited.get(path[-1])) is not None:
            awaited = what.owner if isinstance(what, OwnedLock) else what
            if awaited is task:
                return path
            if awaited is None or awaited in path:  # a cycle without `task`
                break
            path.append(awaited)
        return []


class OwnedLock(asyncio.Lock):
    """A lock that knows its owner, and tells a graph who waits for it.

    Attributes:
        owner: the task that holds it.
    """

    def __init__(self, graph: WaitForGraph) -> None:
        super().__init__()
        self.owner: AnyTask | None = None
        self._graph = graph

    async def acquire(self) -> Literal[True]:
        with self._graph.waiting_for(self):
            await super().acquire()
        self.owner = asyncio.current_task()
        return True

    def release(self) -> None:
        super().release()
        self.owner = None


class QuietSelector(selectors.DefaultSelector):
    """A selector that tells when its event loop waits for what can never come.

    Not for programs with other threads, as those of `to_thread`: they may wake it.

    Args:
        on_quiet: called then, in the loop. It must set a future, cancel a task, or
            raise, which ends `run_forever`.
    """

    def __init__(self, on_quiet: Callable[[], object]) -> None:
        super().__init__()
        self._on_quiet = on_quiet

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        # One socket is the loop's own: other threads and signals wake it by that.
        if timeout is None and len(self.get_map()) == 1:
            self._on_quiet()
            timeout = 0
        return super().select(timeout)


def await_each_other(graph: WaitForGraph) -> list[AnyTask]:
    """Start tasks A and B, each of which awaits the other."""

    async def wait_for(other: int) -> None:
        await graph.result(tasks[other])

    tasks: list[AnyTask] = []
    tasks.append(asyncio.create_task(wait_for(1), name="A"))
    tasks.append(asyncio.create_task(wait_for(0), name="B"))
    return tasks


async def take_both(
    first: asyncio.Lock,
    second: asyncio.Lock,
    between: asyncio.Barrier,
    timeout: float | None = None,
) -> None:
    """Take two locks, and wait at `between` before taking the second.

    Raises:
        TimeoutError: the second was not free within `timeout` seconds.
    """
    async with first:
        await between.wait()
        async with asyncio.timeout(timeout), second:
            pass


def two_orders(graph: WaitForGraph, timeout: float | None = None) -> list[AnyTask]:
    """Start A and B, which take two locks in opposite orders; A has a time limit."""
    one, two, both = OwnedLock(graph), OwnedLock(graph), asyncio.Barrier(2)
    return [
        asyncio.create_task(take_both(one, two, both, timeout), name="A"),
        asyncio.create_task(take_both(two, one, both), name="B"),
    ]


def one_order(graph: WaitForGraph) -> list[AnyTask]:
    """Start A and B, which take two locks in the same order."""
    one, two, nobody = OwnedLock(graph), OwnedLock(graph), asyncio.Barrier(1)
    return [
        asyncio.create_task(take_both(one, two, nobody), name=name) for name in "AB"
    ]


def join_in_vain(_: WaitForGraph) -> list[AnyTask]:
    """Start A, which waits until all is done, and B, which forgets to say so."""
    queue: asyncio.Queue[str] = asyncio.Queue()
    queue.put_nowait("to be done")
    return [
        asyncio.create_task(queue.join(), name="A"),
        asyncio.create_task(queue.get(), name="B"),  # and no task_done()
    ]


def end_of(task: AnyTask) -> str:
    """Return in words how a task has ended."""
    if task.cancelled():
        return "is cancelled"
    return "ends" if task.exception() is None else "fails"


Program = Callable[[WaitForGraph], list[AnyTask]]

# What is seen: the cycle in the graph; whether the loop waited in vain; and the ends
# of the tasks when the first was cancelled.
Seen = tuple[str, bool, list[str]]


async def _watch(program: Program, quiet: asyncio.Event, beside_a_timer: bool) -> Seen:
    graph = WaitForGraph()
    tasks = program(graph)
    for task in tasks:  # asked how it ended, or asyncio complains, even after Ctrl-C
        task.add_done_callback(end_of)
    if beside_a_timer:
        async with asyncio.timeout(LIMIT):
            graph.cycles.put_nowait(await graph.cycles.get())
            await asyncio.sleep(SHORT_LIMIT)  # the loop has nothing to do meanwhile
    else:
        await quiet.wait()
    was_quiet = quiet.is_set()
    cycle = "none"
    if not graph.cycles.empty():
        names = sorted(task.get_name() for task in graph.cycles.get_nowait())
        cycle = " -> ".join([*names, names[0]])
    tasks[0].cancel()  # no effect if it has ended
    await asyncio.wait(tasks)
    return cycle, was_quiet, [end_of(task) for task in tasks]


def watch(program: Program, beside_a_timer: bool = False) -> Seen:
    """Run tasks until they are stuck, and cancel the first of them.

    Raises:
        RuntimeError: even then, not all of them end.
    """

    def on_quiet() -> None:
        if quiet.is_set():
            raise RuntimeError("all tasks wait, and nothing is left to happen")
        quiet.set()

    quiet = asyncio.Event()
    with asyncio.Runner(
        loop_factory=lambda: asyncio.SelectorEventLoop(QuietSelector(on_quiet))
    ) as runner:
        return runner.run(_watch(program, quiet, beside_a_timer))


def cancelling_a_cycle_fails() -> bool:
    """Let two tasks await each other plainly; tell whether cancel() raises.

    Nothing can end them. They are thrown away, of which asyncio would complain.
    """
    told: list[str] = []
    tasks: list[AnyTask] = []

    async def wait_for(other: int) -> None:
        await tasks[other]

    async def make_and_cancel() -> bool:
        tasks.extend(asyncio.create_task(wait_for(1 - n)) for n in (0, 1))
        for _ in tasks:
            await asyncio.sleep(0)  # they begin
        try:
            tasks[0].cancel()
        except RecursionError:
            return True
        return False

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _, what: told.append(what["message"]))
    try:
        raised = loop.run_until_complete(make_and_cancel())
    finally:
        tasks.clear()
        gc.collect()
        loop.close()
    return raised and told == ["Task was destroyed but it is pending!"] * 2


async def await_itself() -> None:
    me = asyncio.current_task()
    assert me is not None
    await me


def check(name: str, seen: Seen, *expected: object) -> None:
    if seen != expected:
        raise SystemExit(f"{name}: {seen} instead of {expected}")


def demonstrate() -> None:
    """Check each claim, and print it."""
    cycle, gone = "A -> B -> A", "is cancelled"
    programs: list[tuple[str, Program, bool, str, bool, str]] = [
        ("two await each other", await_each_other, False, cycle, True, "fails"),
        ("two locks, two orders", two_orders, False, cycle, True, "ends"),
        ("  beside a timer", two_orders, True, cycle, False, "ends"),
        ("join, no task_done", join_in_vain, False, "none", True, "ends"),
    ]
    print(f"{'':24}cycle        the loop      A is cancelled")
    for name, program, beside_a_timer, *expected, end in programs:
        seen = found, quiet, _ = watch(program, beside_a_timer)
        check(name, seen, *expected, [gone, end])
        waits = "all wait" if quiet else "a timer runs"
        print(f"{name:24}{found:14}{waits:14}B {end}")

    if not cancelling_a_cycle_fails():
        raise SystemExit("cancel() was to go round and round")
    print("plain await in a cycle cannot be cancelled: RecursionError")
    try:
        asyncio.run(await_itself())
    except RuntimeError as error:
        if "cannot await on itself" not in str(error):
            raise
        print("a task that awaits itself: RuntimeError, at once")
    else:
        raise SystemExit("to await oneself was to be an error")

    seen = watch(partial(two_orders, timeout=SHORT_LIMIT))
    check("a time limit", seen, cycle, True, ["fails", "ends"])
    print("two orders, a time limit: A fails, B ends")
    check("one order", watch(one_order), "none", True, ["ends", "ends"])
    print("one order: no cycle, and both end")


def main() -> None:
    try:
        demonstrate()
    except (TimeoutError, RuntimeError) as error:
        raise SystemExit(f"other deadlocks were to be seen: {error!r}") from None
    print("a deadlock needs no second thread, only two who wait for each other")


if __name__ == "__main__":
    main()
