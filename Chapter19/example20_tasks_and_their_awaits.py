"""A service stands still, and a tree of its tasks shows who awaits whom, and where.

A stack of a thread shows the event loop, which waits, and no more. What stands still is
in coroutines that are suspended, one in the other. Start at a task, and go on:

* `cr_await` is what a coroutine awaits, `ag_await` the same of an async generator.
  `async for` awaits an object that has no attribute for its generator;
  `gc.get_referents` finds it.
* At the end is a future, in the task's `_fut_waiter`: another task, or gather's future,
  which knows its children. TaskGroup and asyncio.wait put a future of their own there;
  the tasks are in local variables of their frames.

Most of that is private to asyncio, and may change; so in Python 3.14 and later use what
is made for it: `asyncio.print_call_graph`, and from outside, for a program that has
prepared for nothing, `python -m asyncio ps PID` or `pstree PID`. Both are compared with
the tree here. In older versions let `loop.add_signal_handler` print the tree. Names of
tasks are worth their while: `create_task(…, name=…)`.

Source: PEP 492, for coroutines and what they await; PEP 525, for generators.

Output:
    nothing moves any more
        supervisor       supervise
            intake       intake > Queue.put
            report       report
                north    query > rows > Lock.acquire
                south    query > rows > Lock.acquire
            worker       work > Lock.acquire
    ...
    intake keeps the lock and awaits room; worker awaits the lock to make room
"""

import asyncio
import gc
import inspect
import os
import re
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

LIMIT = 30.0  # seconds for what should take none

AnyTask = asyncio.Task[Any]


def suspended_frames(awaitable: object) -> Iterator[FrameType]:
    """Yield the frames of a coroutine and of what it awaits, the outermost first.

    A coroutine that runs awaits nothing: what it calls is not seen.
    """
    while awaitable is not None:
        if inspect.iscoroutine(awaitable):
            frame, awaitable = awaitable.cr_frame, awaitable.cr_await
        elif inspect.isasyncgen(awaitable):
            frame, awaitable = awaitable.ag_frame, awaitable.ag_await
        elif inspect.isgenerator(awaitable):  # of types.coroutine
            frame, awaitable = awaitable.gi_frame, awaitable.gi_yieldfrom
        else:
            # What __anext__(), anext() or __await__() returns; or a future, the end.
            referents = gc.get_referents(awaitable)
            frame, awaitable = None, next(filter(_suspends, referents), None)
        if frame is not None:
            yield frame


def _suspends(thing: object) -> bool:
    if asyncio.isfuture(thing):
        return False
    return inspect.isawaitable(thing) or inspect.isasyncgen(thing)


def awaited_futures(task: AnyTask) -> "set[asyncio.Future[Any]]":
    """Return what a task waits for: one future, or all those that it has combined.

    Seen through are gather, asyncio.wait and a TaskGroup at its end. Not seen through
    are shield, as_completed and, before Python 3.12, wait_for.
    """
    futures = set()
    if (waiter := getattr(task, "_fut_waiter", None)) is not None:
        futures |= {waiter, *getattr(waiter, "_children", ())}
    for frame in suspended_frames(task.get_coro()):
        if frame.f_code is asyncio.TaskGroup.__aexit__.__code__:
            futures |= frame.f_locals["self"]._tasks
        elif frame.f_code is asyncio.wait.__code__:
            futures |= set(frame.f_locals["fs"])
    return futures


@dataclass(frozen=True, slots=True)
class Suspended:
    """How a task is suspended.

    Attributes:
        stack: the qualified names of its functions, the outermost first.
        awaited_by: the tasks that wait for it.
    """

    stack: tuple[str, ...]
    awaited_by: "frozenset[AnyTask]"

    def __str__(self) -> str:
        # How asyncio enters a lock and leaves a group differs between versions.
        internal = "_ContextManagerMixin.", "TaskGroup._"
        return " > ".join(one for one in self.stack if not one.startswith(internal))


Graph = dict[AnyTask, Suspended]


def call_graph(tasks: Iterable[AnyTask]) -> Graph:
    """Return how tasks are suspended, and which of them await which, by name in order.

    Call it in the thread of their event loop, or while that stands still. Of a task
    that runs the stack is incomplete.
    """
    in_order = sorted(tasks, key=AnyTask.get_name)
    awaited_by: defaultdict[asyncio.Future[Any], set[AnyTask]] = defaultdict(set)
    for task in in_order:
        for future in awaited_futures(task):
            awaited_by[future].add(task)
    return {
        task: Suspended(
            tuple(f.f_code.co_qualname for f in suspended_frames(task.get_coro())),
            frozenset(awaited_by[task]),
        )
        for task in in_order
    }


def tree(graph: Graph) -> list[str]:
    """Return in lines each task, and below it those that it awaits.

    A task that several await is below each; of tasks that await each other, the first
    is once more below the last.
    """
    shown: set[AnyTask] = set()
    awaits: defaultdict[AnyTask, list[AnyTask]] = defaultdict(list)
    for task, suspended in graph.items():
        for awaiter in suspended.awaited_by:
            awaits[awaiter].append(task)

    def below(task: AnyTask, *path: AnyTask) -> Iterator[str]:
        shown.add(task)
        indented = " " * 4 * len(path) + task.get_name()
        yield f"{indented:16} {'again' if task in path else graph[task]}"
        if task not in path:
            for other in awaits[task]:
                yield from below(other, *path, task)

    awaited_last = sorted(graph, key=lambda task: bool(graph[task].awaited_by))
    return [line for task in awaited_last if task not in shown for line in below(task)]


# -- what asyncio itself has for it


def asyncios_call_graph(tasks: Iterable[AnyTask]) -> Graph:
    """Return what `call_graph` does, from asyncio itself.

    Raises:
        NotImplementedError: it is there in Python 3.14 and later only.
    """
    capture: Any = getattr(asyncio, "capture_call_graph", None)
    if capture is None:
        raise NotImplementedError("needs Python 3.14")
    graph = {}
    for task in tasks:
        captured = capture(task)
        stack = [entry.frame.f_code.co_qualname for entry in captured.call_stack]
        awaited_by = frozenset(one.future for one in captured.awaited_by)
        graph[task] = Suspended(tuple(reversed(stack)), awaited_by)
    return graph


def read_ps(table: str) -> "dict[str, tuple[tuple[str, ...], set[str]]]":
    """Return by name each task's stack and who awaits it, from `python -m asyncio ps`.

    Args:
        table: what that prints. No name may have a space in it.
    """
    calls = r"\S+(?: -> \S+)*"
    row = re.compile(
        rf"^\d+ +0x\w+ +(?P<name>\S+) +(?P<stack>{calls}) +"
        rf"(?:{calls} +(?P<awaiter>\S+) +)?0x\w+ *$",
        re.MULTILINE,
    )
    tasks: dict[str, tuple[tuple[str, ...], set[str]]] = {}
    for match in row.finditer(table):
        stack = tuple(reversed(match["stack"].split(" -> ")))
        _, awaited_by = tasks.setdefault(match["name"], (stack, set()))
        awaited_by |= {match["awaiter"]} - {None}
    return tasks


async def asyncios_ps(pid: int) -> str:
    """Return what `python -m asyncio ps` prints of a process.

    Raises:
        OSError: it fails, as for want of a right; the message says so.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "asyncio", "ps", str(pid)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for this program alone
    )
    try:
        async with asyncio.timeout(LIMIT):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        errors = (line for line in out.decode().splitlines() if "Error" in line)
        raise OSError(next(errors, "failed"))
    return out.decode()


# -- a service that stands still


async def intake(orders: "asyncio.Queue[str]", database: asyncio.Lock) -> None:
    async with database:
        while True:
            await orders.put("an order")  # waits for room, and keeps the lock


async def work(orders: "asyncio.Queue[str]", database: asyncio.Lock) -> None:
    while True:
        async with database:
            await orders.get()


async def rows(database: asyncio.Lock) -> AsyncIterator[str]:
    async with database:
        yield "a row"


async def query(database: asyncio.Lock) -> list[str]:
    found = []
    async for row in rows(database):
        found.append(row)
    return found


async def report(database: asyncio.Lock) -> None:
    north = asyncio.create_task(query(database), name="north")
    south = asyncio.create_task(query(database), name="south")
    await asyncio.gather(north, south)


async def supervise() -> None:
    orders, database = asyncio.Queue[str](1), asyncio.Lock()
    async with asyncio.TaskGroup() as group:
        group.create_task(intake(orders, database), name="intake")
        group.create_task(work(orders, database), name="worker")
        group.create_task(report(database), name="report")


async def until_all_wait() -> list[AnyTask]:
    """Return all tasks but this one, as soon as each waits for what is not done.

    It never returns if one waits for a timer or a socket and goes on, again and again.
    """
    while True:
        await asyncio.sleep(0)
        others = list(asyncio.all_tasks() - {asyncio.current_task()})
        waiters = [getattr(task, "_fut_waiter", None) for task in others]
        if all(waiter is not None and not waiter.done() for waiter in waiters):
            return others


EXPECTED = """\
supervisor       supervise
    intake       intake > Queue.put
    report       report
        north    query > rows > Lock.acquire
        south    query > rows > Lock.acquire
    worker       work > Lock.acquire"""


async def compare(graph: Graph) -> None:
    """Compare a graph with what asyncio's own tools say, and print the result."""
    try:
        captured = asyncios_call_graph(graph)
    except NotImplementedError as error:
        print(f"asyncio.capture_call_graph, python -m asyncio ps: {error}")
        return
    unseen: set[str] = set()
    for task, theirs in captured.items():
        ours, depth = graph[task], len(theirs.stack)
        if theirs != Suspended(ours.stack[:depth], ours.awaited_by):
            raise SystemExit(f"capture_call_graph: {theirs} instead of {ours}")
        unseen.update(ours.stack[depth : depth + 1])
    but = f", but nothing from {', '.join(sorted(unseen))} on" if unseen else ""
    print(f"asyncio.capture_call_graph: the same{but}")
    try:
        table = read_ps(await asyncios_ps(os.getpid()))
    except OSError as error:
        print(f"python -m asyncio ps: {error}")
        return
    for task, ours in graph.items():
        awaited_by = {other.get_name() for other in ours.awaited_by}
        if table.get(task.get_name()) != (ours.stack, awaited_by):
            raise SystemExit(f"ps: {table} instead of {ours}")
    print("python -m asyncio ps: the same")


async def demonstrate() -> None:
    """Let a service stand still, and look at it in each way."""
    supervisor = asyncio.create_task(supervise(), name="supervisor")
    graph = call_graph(await until_all_wait())
    print("nothing moves any more", *tree(graph), sep="\n    ")
    if tree(graph) != EXPECTED.splitlines():
        raise SystemExit(f"that was expected:\n{EXPECTED}")
    await compare(graph)
    supervisor.cancel()
    await asyncio.wait([supervisor])
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        raise SystemExit(f"left: {left}")


def main() -> None:
    asyncio.run(demonstrate())
    print("intake keeps the lock and awaits room; worker awaits the lock to make room")


if __name__ == "__main__":
    main()
