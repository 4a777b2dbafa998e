"""Chapter 19, debugging: the parts a reader would copy."""

import asyncio
import faulthandler
import io
import logging
import logging.handlers
import multiprocessing
import os
import queue
import random
import re
import shutil
import signal
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import MagicMock

import example19_a_hung_program_explained as hung
import example20_tasks_and_their_awaits as tasks_
import example21_logging_from_threads_and_processes as logs
import example22_lock_contention as contention
import profiled_locks as profiled
import psutil
import pytest
from example19_a_hung_program_explained import Claim, OwnedLock
from example21_logging_from_threads_and_processes import Log
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from profiled_locks import Profile, ProfiledLock, ProfiledTaskLock, Total, Use
from serving import run, until

LIMIT = 30.0  # seconds that a test waits for what must come

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")

AnyLock = OwnedLock | ProfiledLock


@contextmanager
def held(lock: AnyLock, waits: threading.Semaphore, *others: Any) -> Iterator[Any]:
    """Hold `lock` for a block while each of `others`, called in a thread, waits."""
    with no_thread_is_left(), ThreadPoolExecutor(len(others) or 1) as pool:
        with lock:
            futures: list[Future[Any]] = []
            for other in others:
                futures.append(pool.submit(other))
                assert waits.acquire(timeout=LIMIT)
            yield futures
        for future in futures:
            future.result(LIMIT)


# -- locks that know their owners


def a_lock() -> tuple[OwnedLock, threading.Semaphore]:
    def on_wait() -> None:
        assert threading.current_thread() in [one.thread for one in lock.waiters()]
        waits.release()

    lock, waits = OwnedLock("door", on_wait), threading.Semaphore(0)
    return lock, waits


def test_an_owned_lock_knows_who_holds_it_and_where() -> None:
    lock, _ = a_lock()
    me = threading.current_thread()
    test = "test_an_owned_lock_knows_who_holds_it_and_where"
    assert lock.owner is None
    with lock:
        assert lock.owner == Claim(me, test)
    assert lock.acquire()
    assert str(lock.owner) == f"{me.name} in {test}"
    lock.release()
    owner = lock.owner
    assert owner is None


def test_an_owned_lock_knows_who_waits_and_where() -> None:
    def enter() -> None:
        threading.current_thread().name = "visitor"
        with lock:
            assert [str(one) for one in lock.waiters()] == []

    lock, waits = a_lock()
    with held(lock, waits, enter):
        assert [str(one) for one in lock.waiters()] == ["visitor in enter"]
    assert lock.waiters() == []


def test_whoever_gives_up_waits_no_more() -> None:
    lock, waits = a_lock()
    with held(lock, waits, lambda: lock.acquire(timeout=0.01)) as (future,):
        assert future.result(LIMIT) is False
        assert lock.waiters() == []
        assert lock.owner is not None
        assert lock.owner.thread is threading.current_thread()


def test_who_does_not_want_to_wait_does_not() -> None:
    lock, waits = a_lock()
    with lock, ThreadPoolExecutor(1) as pool:
        assert pool.submit(lock.acquire, blocking=False).result(LIMIT) is False
    assert not waits.acquire(blocking=False)
    assert lock.acquire(blocking=False)
    lock.release()


@pytest.mark.parametrize("lock", [OwnedLock("door"), ProfiledLock("door", Profile())])
def test_what_the_next_owner_notes_is_not_lost(
    lock: AnyLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = lock._lock

    def release_and_let_another_in() -> None:
        inner.release()
        assert pool.submit(lock.acquire).result(LIMIT)

    slow = types.SimpleNamespace(
        acquire=inner.acquire, release=release_and_let_another_in
    )
    with ThreadPoolExecutor(1) as pool:
        with monkeypatch.context() as patch:
            patch.setattr(lock, "_lock", slow)
            with lock:
                pass
        pool.submit(lock.release).result(LIMIT)


def test_an_owned_lock_is_released_by_its_owner_alone() -> None:
    lock, _ = a_lock()
    with pytest.raises(RuntimeError, match="door is held by nobody"):
        lock.release()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lock.acquire).result(LIMIT)
        with pytest.raises(RuntimeError, match="door is held by ThreadPool"):
            lock.release()
        pool.submit(lock.release).result(LIMIT)
    assert lock.acquire(blocking=False)


def test_what_raises_while_a_lock_is_held_or_awaited_leaves_it_in_order() -> None:
    def fail() -> NoReturn:
        raise LookupError

    lock = OwnedLock("door", fail)
    with pytest.raises(LookupError), lock:
        raise LookupError
    with lock, ThreadPoolExecutor(1) as pool:
        with pytest.raises(LookupError):
            pool.submit(lock.acquire).result(LIMIT)
        assert lock.waiters() == []


@pytest.mark.parametrize("lock", [OwnedLock("door"), ProfiledLock("door", Profile())])
def test_one_thread_at_a_time_has_a_lock(lock: AnyLock) -> None:
    inside, most = [0], [0]

    def enter() -> None:
        for _ in range(200):
            with lock:
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                time.sleep(0)
                inside[0] -= 1

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(enter) for _ in range(4)]:
            future.result(LIMIT)
    assert (inside, most) == ([0], [1])


# -- who waits for whom


def locks_of(owners: Sequence[int | None], awaited: Sequence[int | None]) -> Any:
    """Return threads and locks: who has each lock, which lock each thread awaits."""
    threads = [threading.Thread(name=f"{n}") for n in range(len(awaited))]
    locks = [OwnedLock(f"lock {n}") for n in range(len(owners))]
    for lock, owner in zip(locks, owners, strict=True):
        lock.owner = None if owner is None else Claim(threads[owner], "has")
    for thread, wanted in zip(threads, awaited, strict=True):
        if wanted is not None:
            locks[wanted]._waiters[thread] = Claim(thread, "wants")
    return threads, locks


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int | None], list[int | None]]:
    n_threads, n_locks = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    owner = st.none() | st.integers(0, n_threads - 1)
    awaited = st.none() | st.integers(0, n_locks - 1)
    return (
        draw(st.lists(owner, min_size=n_locks, max_size=n_locks)),
        draw(st.lists(awaited, min_size=n_threads, max_size=n_threads)),
    )


@given(graphs())
def test_a_cycle_is_found_exactly_if_there_is_one(
    graph: tuple[list[int | None], list[int | None]],
) -> None:
    owners, awaited = graph
    threads, locks = locks_of(owners, awaited)

    def following(n: int) -> int | None:
        wanted = awaited[n]
        return None if wanted is None else owners[wanted]

    def comes_back(start: int) -> bool:
        n = following(start)
        for _ in threads:
            if n is None or n == start:
                break
            n = following(n)
        return n == start

    found = [threads.index(thread) for thread in hung.cycle(locks)]
    in_cycles = [n for n in range(len(threads)) if comes_back(n)]
    assert found[:1] == in_cycles[:1]
    assert [following(n) for n in found] == found[1:] + found[:1]
    assert len(set(found)) == len(found)


def test_an_explanation_names_holders_waiters_and_the_cycle() -> None:
    _, locks = locks_of([0, 1, None], [1, 0, 0])
    assert hung.explain(locks).splitlines() == [
        "lock 0  held by 0 in has",
        "        awaited by 1 in wants",
        "        awaited by 2 in wants",
        "lock 1  held by 1 in has",
        "        awaited by 0 in wants",
        "lock 2  held by nobody",
        "deadlock: 0 -> 1 -> 0",
    ]
    assert hung.explain([]) == "deadlock: none\n"


# -- programs that explain themselves


@posix_only
def test_a_signal_is_answered_by_stacks_and_locks(tmp_path: Path) -> None:
    def enter() -> None:
        with lock:
            pass

    lock, waits = a_lock()
    before = signal.getsignal(signal.SIGUSR1)
    file = (tmp_path / "answer").open("w")
    with file, held(lock, waits, enter), hung.explained([lock], file):
        os.kill(os.getpid(), signal.SIGUSR1)
    text = Path(file.name).read_text()
    assert signal.getsignal(signal.SIGUSR1) is before
    unregister: Callable[[int], bool] = faulthandler.unregister  # type: ignore[assignment]
    assert not unregister(signal.SIGUSR1)
    assert "in _acquire" in text
    assert "in test_a_signal_is_answered_by_stacks_and_locks" in text
    assert re.search(r"awaited by \S+ in enter\ndeadlock: none\n\Z", text)


OF_FAULTHANDLER = """\
Timeout (0:00:00.100000)!
Thread 0x00007f3e22de66c0 [clerk] (most recent call first):
  File "/x/example19_a_hung_program_explained.py", line {lock} in _acquire
  File "/x/example19_a_hung_program_explained.py", line {lock} in __enter__
  File "/x/example19_a_hung_program_explained.py", line {one} in transfer
  File "/usr/lib/python3.14/threading.py", line 1025 in run

Thread 0x00007f3e231b0200 (most recent call first):
  File "/usr/lib/python3.14/threading.py", line 1025 in join
  File "/x/example19_a_hung_program_explained.py", line {two} in hang
  File "/x/example19_a_hung_program_explained.py", line {lock} in <module>
"""

OF_PY_SPY = """\
Process 17: python example19_a_hung_program_explained.py --hang
Python v3.11.7 (/usr/bin/python3.11)

Thread 17 (idle): "MainThread"
    join (threading.py:1119)
    hang (example19_a_hung_program_explained.py:{two})
    <module> (example19_a_hung_program_explained.py:{lock})
Thread 18 (idle): "clerk"
    OwnedLock._acquire (/x/example19_a_hung_program_explained.py:{lock})
    OwnedLock.__enter__ (/x/example19_a_hung_program_explained.py:{lock})
    transfer (/x/example19_a_hung_program_explained.py:{one})
    run (threading.py:982)
"""


@pytest.mark.parametrize("stacks", [OF_FAULTHANDLER, OF_PY_SPY])
def test_of_each_stack_the_line_counts_that_is_not_the_locks(stacks: str) -> None:
    lines = Path(hung.__file__).read_text("utf-8").splitlines()
    one = 1 + lines.index("        with journal:")
    two = 1 + lines.index("            thread.join()")
    lock = 1 + lines.index("class OwnedLock:")
    assert hung.places(stacks.format(one=one, two=two, lock=lock)) == [
        "hang       thread.join()",
        "transfer   with journal:",
    ]


def test_lines_are_read_up_to_one_that_matches() -> None:
    lines = iter(["one\n", "two\n", "three\n"])
    assert hung.read_until("^t", lines) == "one\ntwo\n"
    with pytest.raises(EOFError, match="three"):
        hung.read_until("^one", lines)


def script(folder: Path, text: str, name: str = "py-spy") -> Path:
    """Write an executable that is found beside the interpreter."""
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


@posix_only
def test_py_spy_is_asked_if_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "which", lambda *_, **__: None)
        with pytest.raises(OSError, match=r"\Anot installed\Z"):
            hung.py_spy(17)
    script(tmp_path, 'echo "$@"')
    assert hung.py_spy(17) == "dump --pid 17\n"
    script(tmp_path, "echo 'Permission Denied: try sudo' >&2; echo more >&2; exit 1")
    with pytest.raises(OSError, match=r"\APermission Denied: try sudo\Z"):
        hung.py_spy(17)
    script(tmp_path, "exit 1")
    with pytest.raises(OSError, match=r"\Afailed\Z"):
        hung.py_spy(17)


@posix_only
def test_a_hung_program_is_killed_at_the_end_and_at_its_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(LookupError), hung.hung_program() as process:
        raise LookupError
    assert process.returncode == -signal.SIGKILL
    assert process.stdout is not None
    assert process.stdout.closed
    monkeypatch.setattr(hung, "LIMIT", 0.05)
    with hung.hung_program() as process, pytest.raises(EOFError):
        hung.read_until("never", process.stderr)
    assert process.returncode == -signal.SIGKILL


@posix_only
def test_a_program_that_does_not_hang_as_expected_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hung, "LIMIT", 1.0)
    monkeypatch.setattr(hung, "places", lambda _: ["somewhere else"])
    with pytest.raises(SystemExit, match="was to hang elsewhere"):
        run_main(hung, monkeypatch)


@posix_only
def test_stacks_of_py_spy_that_differ_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hung, "py_spy", lambda _: "no stacks")
    with pytest.raises(SystemExit, match="not \\[\\]"):
        run_main(hung, monkeypatch)


@posix_only
def test_what_py_spy_cannot_do_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_: int) -> NoReturn:
        raise OSError("Permission denied")

    monkeypatch.setattr(hung, "py_spy", refuse)
    run_main(hung, monkeypatch)
    assert "\npy-spy dump: Permission denied\n" in capsys.readouterr().out


# -- tasks and their awaits


def names(awaitable: object) -> list[str]:
    frames = tasks_.suspended_frames(awaitable)
    return [frame.f_code.co_name for frame in frames]


class Awaitable:
    """What only `__await__` makes awaitable."""

    def __init__(self, future: "asyncio.Future[None]") -> None:
        self.future = future

    def __await__(self) -> Generator[Any, Any, None]:
        yield from self.future


async def inner(future: "asyncio.Future[None]") -> None:
    await future


async def outer(future: "asyncio.Future[None]") -> None:
    await inner(future)


async def generate(future: "asyncio.Future[None]") -> AsyncIterator[int]:
    yield 1
    await outer(future)


async def iterate(future: "asyncio.Future[None]") -> None:
    async for _ in generate(future):
        pass


async def iterate_by_hand(future: "asyncio.Future[None]") -> None:
    generator = generate(future)
    while await anext(generator, None) is not None:
        pass


async def throw_into(future: "asyncio.Future[None]") -> None:
    async def wait_in_the_end() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            await inner(future)

    generator = wait_in_the_end()
    async for _ in generator:
        await generator.aclose()  # type: ignore[attr-defined]


async def await_awaitable(future: "asyncio.Future[None]") -> None:
    await Awaitable(future)


@types.coroutine
def old_style(future: "asyncio.Future[None]") -> Generator[Any, Any, None]:
    yield from future


async def await_old_style(future: "asyncio.Future[None]") -> None:
    await old_style(future)


async def await_wrapped(future: "asyncio.Future[None]") -> None:
    class Wrapped:
        def __await__(self) -> Generator[Any, Any, None]:
            return inner(future).__await__()

    await Wrapped()


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (inner, ["inner"]),
        (outer, ["outer", "inner"]),
        (iterate, ["iterate", "generate", "outer", "inner"]),
        (iterate_by_hand, ["iterate_by_hand", "generate", "outer", "inner"]),
        (throw_into, ["throw_into", "wait_in_the_end", "inner"]),
        (await_awaitable, ["await_awaitable", "__await__"]),
        (await_old_style, ["await_old_style", "old_style"]),
        (await_wrapped, ["await_wrapped", "inner"]),
    ],
)
def test_frames_are_found_through_all_that_suspends(
    function: Any, expected: list[str]
) -> None:
    async def main() -> None:
        future = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(function(future))
        assert names(task.get_coro()) == expected[:1]  # it has not begun
        await until(lambda: getattr(task, "_fut_waiter", None) is future)
        assert names(task.get_coro()) == expected
        assert tasks_.awaited_futures(task) == {future}
        future.set_result(None)
        await task
        assert names(task.get_coro()) == []

    run(main())


def test_what_suspends_nothing_has_no_frames() -> None:
    assert names(None) == names(object()) == names([inner]) == []


async def end(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def test_a_task_awaits_all_that_it_has_combined() -> None:
    async def gather(*tasks: "asyncio.Task[Any]") -> None:
        await asyncio.gather(*tasks)

    async def wait(*tasks: "asyncio.Task[Any]") -> None:
        await asyncio.wait(tasks)

    async def one(task: "asyncio.Task[Any]", *_: Any) -> None:
        await task

    async def shield(task: "asyncio.Task[Any]", *_: Any) -> None:
        await asyncio.shield(task)

    async def main() -> None:
        event = asyncio.Event()
        for function, n_found in (gather, 3), (wait, 3), (one, 1), (shield, 0):
            parts = [asyncio.create_task(event.wait()) for _ in range(3)]
            task = asyncio.create_task(function(*parts))
            others = await tasks_.until_all_wait()
            assert set(others) == {task, *parts}
            graph = tasks_.call_graph(others)
            awaited = [part for part in parts if graph[part].awaited_by == {task}]
            assert awaited == parts[:n_found]
            assert graph[task].awaited_by == frozenset()
            assert "Event.wait" not in graph[task].stack  # which is another task's
            if function is not shield:
                same_as_asyncio(graph)
            await end(task, *parts)

    run(main())


def same_as_asyncio(graph: tasks_.Graph) -> None:
    """Compare with Python's own, where it has one."""
    with suppress(NotImplementedError):
        assert tasks_.asyncios_call_graph(graph) == graph


def test_a_task_group_awaits_its_tasks_at_its_end() -> None:
    async def main() -> None:
        before, after = asyncio.Event(), asyncio.Event()

        async def parent() -> None:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(after.wait(), name="part")
                await before.wait()

        task = asyncio.create_task(parent(), name="parent")
        graph = tasks_.call_graph(await tasks_.until_all_wait())
        assert [one.awaited_by for one in graph.values()] == [frozenset()] * 2
        before.set()
        await asyncio.sleep(0)
        graph = tasks_.call_graph(await tasks_.until_all_wait())
        by_name = {one.get_name(): suspended for one, suspended in graph.items()}
        assert by_name["part"].awaited_by == {task}
        assert tasks_.tree(graph) == [
            f"{'parent':16} {parent.__qualname__}",
            f"{'    part':16} Event.wait",
        ]
        same_as_asyncio(graph)
        await end(task)

    run(main())


def test_tasks_of_the_same_name_are_not_confused() -> None:
    async def main() -> None:
        event = asyncio.Event()
        twins = [asyncio.create_task(event.wait(), name="twin") for _ in range(2)]
        graph = tasks_.call_graph(await tasks_.until_all_wait())
        assert graph.keys() == set(twins)
        assert tasks_.tree(graph) == [f"{'twin':16} Event.wait"] * 2
        await end(*twins)

    run(main())


def test_private_functions_are_in_the_tree() -> None:
    async def _serve(future: "asyncio.Future[None]") -> None:
        await future

    async def main() -> None:
        task = asyncio.create_task(_serve(asyncio.Future()), name="server")
        graph = tasks_.call_graph(await tasks_.until_all_wait())
        assert tasks_.tree(graph) == [f"{'server':16} {_serve.__qualname__}"]
        await end(task)

    run(main())


def test_tasks_that_await_each_other_are_in_the_tree() -> None:
    async def wait_for(n: int) -> None:
        await asyncio.wait([tasks[n]])

    tasks: list[asyncio.Task[Any]] = []

    async def main() -> None:
        for n, name in enumerate("ABC"):
            tasks.append(asyncio.create_task(wait_for((1, 0, 0)[n]), name=name))
        await tasks_.until_all_wait()
        stack = f"{wait_for.__qualname__} > wait > _wait"
        assert tasks_.tree(tasks_.call_graph(tasks)) == [
            f"{'C':16} {stack}",
            f"{'    A':16} {stack}",
            f"{'        B':16} {stack}",
            f"{'            A':16} again",
        ]
        assert tasks_.tree(tasks_.call_graph(tasks[:2])) == [
            f"{'A':16} {stack}",
            f"{'    B':16} {stack}",
            f"{'        A':16} again",
        ]
        await end(*tasks)

    run(main())


def test_who_still_has_something_to_do_does_not_wait() -> None:
    async def go_on(steps: list[int], future: "asyncio.Future[None]") -> None:
        for n in range(5):
            await asyncio.sleep(0)
            steps.append(n)
        future.set_result(None)

    async def main() -> None:
        steps: list[int] = []
        future: asyncio.Future[None] = asyncio.Future()
        waiter = asyncio.create_task(outer(future))
        task = asyncio.create_task(go_on(steps, future))
        assert await tasks_.until_all_wait() == []
        assert (len(steps), task.done(), waiter.done()) == (5, True, True)

    run(main())


TABLE = """\
tid        task id       task name   coroutine stack    awaiter chain    awaiter name
-------------------------------------------------------------------------------------
28288      0x7ff037ffc9b0       Task-1               main                        \
                                               0x0            
28288      0x7ff037ffcb90       user                 Event.wait -> src -> use    \
   main -> __aexit__     Task-1          0x7ff037ffc9b0 
28288      0x7ff037ffcb90       user                 Event.wait -> src -> use    \
   other                 Task-2          0x7ff037ffc9b1
"""  # noqa: W291


def test_the_table_of_ps_is_read() -> None:
    assert tasks_.read_ps(TABLE) == {
        "Task-1": (("main",), set()),
        "user": (("use", "src", "Event.wait"), {"Task-1", "Task-2"}),
    }
    assert tasks_.read_ps("") == {}


@posix_only
def test_ps_fails_in_one_line_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"

    def python(text: str) -> None:
        monkeypatch.setattr(sys, "executable", str(script(tmp_path, text, "python")))

    async def ask_and_cancel() -> None:
        task = asyncio.create_task(tasks_.asyncios_ps(17))
        while not started.exists() or not started.read_text().endswith("\n"):
            await asyncio.sleep(0.001)
        await end(task)
        assert task.cancelled()

    python('echo "$@"')
    assert run(tasks_.asyncios_ps(17)) == "-m asyncio ps 17\n"
    python("echo one; echo 'Error: not permitted'; echo two >&2; exit 1")
    with pytest.raises(OSError, match=r"\AError: not permitted\Z"):
        run(tasks_.asyncios_ps(17))
    python("exit 1")
    with pytest.raises(OSError, match=r"\Afailed\Z"):
        run(tasks_.asyncios_ps(17))
    python(f"echo $$ > {started}; exec sleep {LIMIT}")
    run(ask_and_cancel())
    assert not psutil.pid_exists(int(started.read_text()))


def test_another_tree_than_expected_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_, "intake", tasks_.work)
    with pytest.raises(SystemExit, match="that was expected"):
        run_main(tasks_, monkeypatch)


@pytest.mark.parametrize("wrong", ["stack", "awaited_by"])
def test_another_answer_of_asyncio_is_told(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    def differing(graph: tasks_.Graph) -> tasks_.Graph:
        change: Any = {"stack": ("another",), "awaited_by": frozenset(graph)}
        return {
            task: tasks_.Suspended(
                **{"stack": one.stack, "awaited_by": one.awaited_by}
                | {wrong: change[wrong]}
            )
            for task, one in graph.items()
        }

    monkeypatch.setattr(tasks_, "asyncios_call_graph", differing)
    with pytest.raises(SystemExit, match="capture_call_graph"):
        run_main(tasks_, monkeypatch)


def test_what_asyncio_does_not_see_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def refuse(_: int) -> NoReturn:
        raise OSError("Error: not permitted")

    def show(shorten: Callable[[tuple[str, ...]], tuple[str, ...]]) -> str:
        def captured(graph: tasks_.Graph) -> tasks_.Graph:
            return {
                task: tasks_.Suspended(shorten(one.stack), one.awaited_by)
                for task, one in graph.items()
            }

        monkeypatch.setattr(tasks_, "asyncios_call_graph", captured)
        run_main(tasks_, monkeypatch)
        return capsys.readouterr().out

    monkeypatch.setattr(tasks_, "asyncios_ps", refuse)
    assert "call_graph: the same\n" in show(lambda stack: stack)
    without = show(lambda stack: stack[:1] if "rows" in stack else stack)
    assert "call_graph: the same, but nothing from rows on\n" in without
    assert "ps: Error: not permitted\n" in without


def test_another_answer_of_ps_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: int) -> str:
        return ""

    monkeypatch.setattr(tasks_, "asyncios_call_graph", lambda graph: graph)
    monkeypatch.setattr(tasks_, "asyncios_ps", nothing)
    with pytest.raises(SystemExit, match="ps: "):
        run_main(tasks_, monkeypatch)


# -- one log


def records_of(*texts: str) -> list[logging.LogRecord]:
    return [logging.makeLogRecord({"msg": text}) for text in texts]


def test_a_handler_that_waits_loses_nothing() -> None:
    came: queue.Queue[Any] = queue.Queue(1)
    handler = logs.WaitingQueueHandler(came)
    one, two = records_of("one", "two")
    with ThreadPoolExecutor(1) as pool:
        handler.handle(one)
        future = pool.submit(handler.handle, two)
        with pytest.raises(TimeoutError):
            future.result(0.02)
        assert came.get(timeout=LIMIT).message == "one"
        future.result(LIMIT)
    assert came.get(timeout=LIMIT).message == "two"


def test_a_handler_that_does_not_wait_counts_what_it_loses(
    capsys: pytest.CaptureFixture[str],
) -> None:
    came: queue.Queue[Any] = queue.Queue(2)
    handler = logs.CountingQueueHandler(came)
    for record in records_of("one", "two", "three", "four"):
        handler.handle(record)
    assert [came.get_nowait().message for _ in range(2)] == ["one", "two"]
    assert (handler.lost, came.empty()) == (2, True)
    handler.handle(records_of("five")[0])
    assert (handler.lost, came.qsize()) == (2, 1)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("size", "n"), [(1, 2), (10, 100), (3, 1000)])
def test_a_full_queue_loses_all_that_it_cannot_hold_unless_they_wait(
    size: int, n: int
) -> None:
    assert logs.full_without_waiting(size, n) == (size, n - size)
    with no_thread_is_left():
        assert logs.full_and_waiting(size, n) == (n, 0)


def test_a_queue_with_room_for_all_shows_nothing() -> None:
    with pytest.raises(RuntimeError, match="3 records fit into a queue of 3"):
        logs.full_and_waiting(3, 3)


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Give the root logger; what a test makes of it is undone."""
    logger = logging.getLogger()
    before = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = before[0]
    logger.setLevel(before[1])


def test_what_was_inherited_gets_no_records(root: logging.Logger) -> None:
    inherited, own = (logging.handlers.BufferingHandler(9) for _ in range(2))
    root.addHandler(inherited)
    logs.log_by(own)
    logging.info("a record")
    logging.debug("less than that")
    assert [record.getMessage() for record in own.buffer] == ["a record"]
    assert inherited.buffer == []


def test_printing_takes_two_writes_where_a_stream_handler_takes_one(
    tmp_path: Path, root: logging.Logger
) -> None:
    writes: list[None] = []
    turn = MagicMock()

    def between() -> None:
        writes.append(None)
        assert turn.__enter__.call_count == turn.__exit__.call_count == len(writes)

    with logs.PausingFile(tmp_path / "pieces", turn, between) as file:
        logs.log_by(logs.PrintingHandler(file))
        logging.info("a record")
        assert len(writes) == 2
    text = "long" * 10_000
    with io.TextIOWrapper(
        io.BufferedWriter(logs.PausingFile(tmp_path / "whole", turn, between))
    ) as stream:
        logs.log_by(logging.StreamHandler(stream))
        logging.info(text)
        assert len(writes) == 3
    assert (tmp_path / "pieces").read_text() == "a record\n"
    assert (tmp_path / "whole").read_text() == f"{text}\n"


SENDERS = ["process-0 thread-0", "process-0 thread-1", "process-1 thread-0"]


def lines_of(n: int) -> list[str]:
    return [
        f"{sender} {number} {logs.filling(number)}"
        for number in range(n)
        for sender in SENDERS
    ]


def lines_in_any_order_of_senders(n: int, random_: random.Random) -> list[str]:
    rest = {sender: lines_of(n)[k :: len(SENDERS)] for k, sender in enumerate(SENDERS)}
    turns = sorted(SENDERS * n)
    random_.shuffle(turns)
    return [rest[sender].pop(0) for sender in turns]


@given(st.integers(0, 70), st.randoms(use_true_random=False))
def test_a_log_is_in_order_however_the_senders_take_turns(
    n: int, random_: random.Random
) -> None:
    lines = lines_in_any_order_of_senders(n, random_)
    assert logs.examine(lines, SENDERS, n) == Log(3 * n, 3 * n, 0, True)


@given(st.integers(2, 70), st.data())
def test_what_is_torn_lost_or_out_of_order_is_seen(n: int, data: st.DataObject) -> None:
    lines = lines_of(n)
    at = data.draw(st.integers(0, len(lines) - 2))
    one, two = lines[at : at + 2]
    total = 3 * n

    def log_with(*instead: str) -> Log:
        return logs.examine([*lines[:at], *instead, *lines[at + 2 :]], SENDERS, n)

    assert log_with(two) == Log(total - 1, total - 1, 1, True)
    assert log_with(one + two, "") == Log(total, total - 2, 2, True)
    assert log_with(one[:5], two) == Log(total, total - 1, 1, True)
    assert log_with(one + "-", two) == Log(total, total - 1, 1, True)
    assert log_with(one, one, two) == Log(total + 1, total + 1, 0, False)
    assert log_with(one.replace("process", "stranger"), two).lost == 1
    if at >= len(SENDERS):
        assert log_with(lines[at - 3], two).lost == 1  # a record twice
        swapped = lines[:]
        swapped[at], swapped[at - 3] = lines[at - 3], lines[at]
        log = logs.examine(swapped, SENDERS, n)
        assert log == Log(total, total, 0, False)


def test_numbers_that_nobody_has_sent_do_not_count() -> None:
    assert logs.examine(lines_of(2), SENDERS, 1) == Log(6, 3, 0, True)


def test_one_listener_loses_and_tears_nothing(
    tmp_path: Path, start_method: str
) -> None:
    with no_thread_is_left():
        log = logs.through_one_queue(tmp_path / "log", 2, 3, 70)
    assert log == Log(420, 420, 0, True)


def test_what_is_written_in_pieces_is_torn(tmp_path: Path, start_method: str) -> None:
    file = tmp_path / "log"
    log = logs.without_a_queue(logs.log_in_pieces, file, 2, 5)
    assert log == Log(10, 0, 10, True)
    assert file.read_text().count("process-") == 10


def test_who_opens_a_file_anew_writes_over_the_others(
    tmp_path: Path, start_method: str
) -> None:
    file = tmp_path / "log"
    log = logs.without_a_queue(logs.log_from_the_start, file, 3, 7)
    assert log == Log(7, 7, 14, True)
    assert len({line.split()[0] for line in file.read_text().splitlines()}) == 1


def test_a_traceback_stays_with_its_record(root: logging.Logger) -> None:
    records: Queue[Any] = multiprocessing.Queue()
    text = io.StringIO()
    with no_thread_is_left(), logs.listening(records, logging.StreamHandler(text)):
        logs.log_by(logging.handlers.QueueHandler(records))

        def fail(n: int) -> None:
            try:
                [][n]
            except IndexError:
                logging.exception("failed %d", n)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(fail, range(20)))
    found = re.findall(
        r"failed (\d+)\nTraceback .*\n(?:  .*\n)+IndexError: .*\n", text.getvalue()
    )
    assert sorted(map(int, found)) == list(range(20))


def test_who_is_interrupted_does_not_wait_for_the_rest() -> None:
    records: Queue[Any] = multiprocessing.Queue()
    records.put(logging.makeLogRecord({"msg": "a record"}))
    entered, go_on = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            entered.set()
            go_on.wait(LIMIT)

    def interrupt() -> NoReturn:
        with logs.listening(records, Slow()):
            assert entered.wait(LIMIT)
            raise LookupError

    before = set(threading.enumerate())
    with pytest.raises(LookupError):
        interrupt()
    assert not go_on.is_set()
    assert vars(records)["_joincancelled"]  # nor does the program, at its end
    go_on.set()
    records.put(None)  # the listener's end
    left = set(threading.enumerate()) - before
    for thread in sorted(left, key=lambda thread: "Feeder" in thread.name):
        if "Feeder" in thread.name:
            records.close()  # its end
        thread.join(LIMIT)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        ("through_one_queue", lambda *_: Log(1, 1, 0, True), "one queue"),
        ("without_a_queue", lambda *_: Log(100, 100, 0, True), "in pieces"),
        ("full_without_waiting", lambda *_: (100, 0), "QueueHandler"),
        ("full_and_waiting", lambda *_: (10, 90), "one that waits"),
    ],
)
def test_another_log_than_expected_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, told: str
) -> None:
    monkeypatch.setattr(logs, name, instead)
    with pytest.raises(SystemExit, match=told):
        run_main(logs, monkeypatch, "--records", 10)


def test_bad_numbers_are_refused(complaint: Callable[..., str]) -> None:
    assert "must be in 0.01 … 3600, not 0" in complaint(hung, "--hang", "0")
    assert "must be in 0.01 … 3600, not nan" in complaint(hung, "--hang", "nan")
    assert "at least 1, not 0" in complaint(logs, "--records", "0")
    assert "at least 1, not -1" in complaint(contention, "--rounds=-1")
    assert "must end in .png" in complaint(contention, "--plot", "picture.txt")
    assert "no such folder" in complaint(contention, "--plot", "nowhere/picture.png")


# -- locks that record


def a_profiled_lock() -> tuple[Profile, ProfiledLock, threading.Semaphore]:
    profile, waits = Profile(), threading.Semaphore(0)
    return profile, ProfiledLock("door", profile, waits.release), waits


def test_a_use_tells_who_where_and_when() -> None:
    profile, lock, _ = a_profiled_lock()
    before = time.perf_counter()
    with lock:
        assert profile.uses == []
    assert lock.acquire()
    lock.release()
    function = "test_a_use_tells_who_where_and_when"
    me = threading.current_thread().name
    for use in profile.uses:
        assert (use.lock, use.who, use.function) == ("door", me, function)
        assert not use.waited
        assert before <= use.asked <= use.got <= use.released <= time.perf_counter()
        before = use.released
    assert len(profile.uses) == 2


def test_a_wait_is_recorded_with_the_use_that_comes_of_it() -> None:
    def enter() -> None:
        with lock:
            pass

    profile, lock, waits = a_profiled_lock()
    with held(lock, waits, enter):
        assert profile.uses == []
    first, second = profile.uses
    assert (first.waited, second.waited) == (False, True)
    assert first.got < second.asked < first.released <= second.got
    assert second.function == "enter"


def test_whoever_does_not_get_a_lock_has_no_use_of_it() -> None:
    profile, lock, waits = a_profiled_lock()
    with held(lock, waits, lambda: lock.acquire(timeout=0.01)) as (future,):
        assert future.result(LIMIT) is False
    with lock:
        assert not lock.acquire(blocking=False)
        assert not waits.acquire(blocking=False)
    assert [use.waited for use in profile.uses] == [False, False]
    with pytest.raises(RuntimeError, match="nobody holds door"):
        lock.release()
    assert len(profile.uses) == 2


def use(
    lock: str, who: str, asked: float, got: float, released: float, waited: bool = True
) -> Use:
    return Use(lock, who, f"f_{who}", waited, asked, got, released)


def test_a_wait_is_divided_among_those_who_had_the_lock() -> None:
    uses = [
        use("L", "A", 0, 0, 4, waited=False),
        use("L", "B", 1, 4, 6),
        use("L", "C", 2, 7, 9),  # for A, then for B; then the lock was handed over
        use("M", "A", 5, 5, 8, waited=False),
        use("M", "B", 6, 8, 9),
        use("L", "D", 10, 10, 11, waited=False),
        use("L", "A", 10.5, 11, 12),
        use("N", "A", 0, 0, 4, waited=False),
        use("N", "B", 4, 5, 6),  # the clock is too coarse to tell how long for A
    ]
    expected = {
        ("L", "B", "A"): Total(1, 3),
        ("L", "C", "A"): Total(1, 2),
        ("L", "C", "B"): Total(1, 2),
        ("M", "B", "A"): Total(1, 2),
        ("L", "A", "D"): Total(1, 0.5),
        ("N", "B", "A"): Total(1, 0),
    }
    totals = profiled.blame(reversed(uses), by=lambda use: use.who)
    assert totals == expected
    assert [one.seconds for one in totals.values()] == [3, 2, 2, 2, 0.5, 0]
    by_function = {
        (lock, f"f_{waiter}", f"f_{holder}"): total
        for (lock, waiter, holder), total in expected.items()
    }
    assert profiled.blame(uses) == by_function
    assert profiled.by_lock(uses) == {
        "L": (5, Total(3, 8.5)),
        "M": (2, Total(1, 2)),
        "N": (2, Total(1, 1)),
    }
    assert profiled.blame([]) == {}
    assert profiled.by_lock([]) == {}


def test_waits_of_one_kind_add_up() -> None:
    uses = [
        use("L", "A", 0, 0, 2, waited=False),
        use("L", "B", 1, 2, 3),
        use("L", "A", 4, 4, 7, waited=False),
        use("L", "B", 5, 7, 8),
    ]
    assert profiled.blame(uses, lambda use: use.who) == {("L", "B", "A"): Total(2, 3)}


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 30)), max_size=12
    )
)
def test_nobody_is_blamed_for_more_than_was_waited(
    pieces: list[tuple[int, int, int]],
) -> None:
    """Uses in a row, each after a gap and for a time, asked for earlier or later."""
    uses, now = list[Use](), 0
    for n, (gap, length, earlier) in enumerate(pieces):
        got = now + gap
        asked = max(got - earlier, 0)
        uses.append(use("L", f"{n}", asked, got, got + length, waited=asked < got))
        now = got + length
    totals = profiled.blame(uses, by=lambda use: use.who)
    for one in uses:
        blamed = sum(t.seconds for (_, who, _), t in totals.items() if who == one.who)
        busy = sum(
            any(other.got <= t < other.released for other in uses)
            for t in range(int(one.asked), int(one.got))
        )
        assert blamed == busy


@pytest.mark.parametrize("names", ["A", "AB", "ABCDEFGH"])
def test_a_baton_is_waited_for_by_all_but_the_first(names: str) -> None:
    with no_thread_is_left():
        uses = profiled.pass_on(names)
    assert [use.who for use in uses] == list(names)
    assert [use.waited for use in uses] == [False] + [True] * (len(names) - 1)
    totals = profiled.blame(uses, by=lambda use: use.who)
    assert {key[1:] for key in totals} == set(zip(names[1:], names, strict=False))


# -- locks for tasks


def test_a_lock_for_tasks_records_who_waited_and_lets_in_by_turns() -> None:
    async def main() -> None:
        profile, waits = Profile(), list[None]()
        lock = ProfiledTaskLock("door", profile, lambda: waits.append(None))
        event = asyncio.Event()

        async def enter() -> None:
            async with lock:
                await event.wait()

        tasks = [asyncio.create_task(enter(), name=name) for name in "ABC"]
        await until(lambda: len(waits) == 2)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        event.set()
        await asyncio.wait(tasks)
        async with lock:
            pass
        uses = [(use.who, use.function, use.waited) for use in profile.uses[:2]]
        assert uses == [("A", "enter", False), ("C", "enter", True)]
        assert [use.waited for use in profile.uses] == [False, True, False]
        assert {use.function for use in profile.uses[2:]} == {"main"}

    run(main())


def test_a_lock_that_is_promised_to_another_task_has_to_be_waited_for() -> None:
    async def main() -> None:
        profile = Profile()
        lock = ProfiledTaskLock("door", profile)

        async def enter() -> None:
            async with lock:
                pass

        async with lock:
            task = asyncio.create_task(enter(), name="first")
            await until(lambda: getattr(task, "_fut_waiter", None) is not None)
        await enter()  # the lock is not taken now, but first is to have it
        assert [use.who == "first" for use in profile.uses] == [False, True, False]
        assert [use.waited for use in profile.uses] == [False, True, True]

    run(main())


def test_each_step_of_a_task_is_recorded() -> None:
    async def work(n: int) -> str:
        for _ in range(n):
            await asyncio.sleep(0)
        return "done"

    async def main() -> None:
        profile = Profile()
        task = asyncio.create_task(profiled.stepped(profile, work, 3), name="worker")
        assert await task == "done"
        assert [step.who for step in profile.steps] == ["worker"] * 4
        times = [time for step in profile.steps for time in (step.began, step.ended)]
        assert times == sorted(times)

    run(main())


def test_a_task_in_steps_fails_and_is_cancelled_as_without() -> None:
    async def fail() -> NoReturn:
        await asyncio.sleep(0)
        raise LookupError

    async def be_cancelled(heard: list[str]) -> str:
        try:
            await asyncio.sleep(LIMIT)
        except asyncio.CancelledError:
            heard.append("cancel")
            await asyncio.sleep(0)
            raise
        return "not cancelled"

    async def survive() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(LIMIT)
        return "survived"

    async def main() -> None:
        profile, heard = Profile(), list[str]()
        with pytest.raises(LookupError):
            await profiled.stepped(profile, fail)
        assert len(profile.steps) == 2
        for function, arguments in (be_cancelled, [heard]), (survive, []):
            task = asyncio.create_task(profiled.stepped(profile, function, *arguments))
            while getattr(task, "_fut_waiter", None) is None:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled() == (function is be_cancelled)
        assert heard == ["cancel"]
        assert task.result() == "survived"
        asyncio.create_task(profiled.stepped(profile, survive)).cancel()  # not begun
        await asyncio.sleep(0)

    run(main())


def test_a_task_in_steps_can_be_closed() -> None:
    closed: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            closed.append("closed")

    async def main() -> Any:
        coroutine = profiled.stepped(Profile(), work)
        coroutine.send(None)
        return coroutine

    asyncio.run(main()).close()
    assert closed == ["closed"]


# -- the bank


@pytest.mark.parametrize("rounds", [1, 5])
def test_everybody_waits_for_the_report(rounds: int) -> None:
    threads, tasks = Profile(), Profile()
    with no_thread_is_left():
        contention.Bank(threads, copies=False).work(rounds)
    asyncio.run(contention.tasks_of_a_bank(tasks, rounds))
    for profile in threads, tasks:
        contention.check(profile, rounds)
        for wait in profile.uses:
            if wait.function == "transfer" and wait.lock == "accounts":
                assert wait.waited
        shortest = 2 * rounds * contention.FORMATTING
        assert by_functions(profile)["transfer", "report"].seconds >= 0.9 * shortest


def test_everybody_waits_however_short_the_report_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contention, "FORMATTING", 0)
    monkeypatch.setattr(contention, "WRITING", 0)
    transfer = contention.Bank.transfer

    def come_late(bank: contention.Bank) -> None:
        time.sleep(0.005)
        transfer(bank)

    monkeypatch.setattr(contention.Bank, "transfer", come_late)
    profile = Profile()
    contention.Bank(profile, copies=False).work(10)
    contention.check(profile, 10)


def by_functions(profile: Profile) -> dict[tuple[str, str], Total]:
    totals = profiled.blame(profile.uses)
    return {(waiter, holder): total for (_, waiter, holder), total in totals.items()}


def test_nobody_waits_for_the_report_of_a_copy() -> None:
    profile = Profile()
    with no_thread_is_left():
        contention.Bank(profile, copies=True).work(5)
    assert by_functions(profile).keys() <= {("transfer", "transfer")}
    taken, _ = profiled.by_lock(profile.uses)["accounts"]
    assert (taken, len(profile.steps)) == (15, 5)


@pytest.mark.parametrize("copies", [False, True])
@pytest.mark.parametrize("method", ["format", "transfer"])
def test_a_thread_that_fails_is_told_and_ends_the_others(
    monkeypatch: pytest.MonkeyPatch, copies: bool, method: str
) -> None:
    def fail(_: contention.Bank) -> NoReturn:
        time.sleep(0.01)  # the others wait for this one by now
        raise LookupError("on purpose")

    monkeypatch.setattr(contention.Bank, method, fail)
    start = time.monotonic()
    with no_thread_is_left(), pytest.raises(LookupError, match="on purpose"):
        contention.Bank(Profile(), copies).work(3)
    assert time.monotonic() - start < contention.LIMIT / 2


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda uses: uses[1:], "all clerks were to wait"),
        (lambda uses: [*uses, use("accounts", "A", 0, 0, 0)], "all clerks"),
        (
            lambda uses: [replace(one, function="audit") for one in uses],
            r"'audit', 'audit'\): 3}",
        ),
    ],
)
def test_another_profile_than_expected_is_told(
    change: Callable[[list[Use]], list[Use]], told: str
) -> None:
    profile = Profile()
    contention.Bank(profile, copies=False).work(1)
    profile.uses = change(profile.uses)
    with pytest.raises(SystemExit, match=told):
        contention.check(profile, 1)


def test_a_report_of_a_copy_that_copies_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def report_of_a_copy(bank: contention.Bank) -> None:
        with bank._accounts:
            bank._all_meet.wait()
            for _ in contention.CLERKS:
                bank._waits.acquire(timeout=LIMIT)

    monkeypatch.setattr(contention.Bank, "report_of_a_copy", report_of_a_copy)
    with pytest.raises(SystemExit, match="of a copy"):
        run_main(contention, monkeypatch, "--rounds", 1)


def test_a_profile_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "profile.svg"
    run_main(contention, monkeypatch, "--rounds", 2, "--plot", str(file))
    assert file.read_text("utf-8").startswith("<?xml")
