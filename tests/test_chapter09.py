"""Chapter 9: the parts a reader would copy; the event loop against asyncio's."""

import argparse
import asyncio
import math
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import event_loop
import example01_primes_one_by_one as one_by_one
import example02_primes_cooperatively as cooperative
import example03_generators_take_turns as generators
import example04_await_from_below as below
import example05_sleep_sort as sleep_sorts
import example06_echo_server_on_our_loop as echoes
import example07_ten_thousand_waits as waits
import example08_one_blocking_call as blocking
import example09_three_models_one_timeline as models
import pytest
from event_loop import CancelledError, Future, Loop
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 30.0  # seconds that nothing here comes near to
LONG = 1000.0  # seconds that nobody waits

Program = Callable[[Any, list[object]], Awaitable[object]]


# -- event_loop.py: the same programs on both loops


class Asyncio(event_loop.Asyncio):
    """What the programs below use of asyncio, under the names of `Loop`."""

    CancelledError = asyncio.CancelledError

    def call_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        asyncio.get_running_loop().call_soon(function, *arguments)

    def future(self) -> "asyncio.Future[Any]":
        return asyncio.get_running_loop().create_future()


class Ours(Loop):
    CancelledError = CancelledError

    def future(self) -> Future[Any]:
        return Future(self)


def outcome(run: Callable[[], object], notes: list[object]) -> list[object]:
    """Return what a program noted, and what it returned or raised at the end."""
    try:
        return [*notes, "returned", run(), *notes]
    except BaseException as error:
        return [*notes, "raised", type(error).__name__, str(error)]


def on_ours(program: Program) -> list[object]:
    notes: list[object] = []
    loop = Ours()
    return outcome(lambda: loop.run(program(loop, notes)), notes)  # type: ignore[arg-type]


def on_asyncio(program: Program) -> list[object]:
    notes: list[object] = []

    async def within_limit() -> object:
        async with asyncio.timeout(LIMIT):
            return await program(Asyncio(), notes)

    return outcome(lambda: asyncio.run(within_limit()), notes)


async def timers_in_disorder(loop: Any, notes: list[object]) -> None:
    now = time.monotonic()

    async def ring(number: int) -> None:
        await loop.sleep_until(now + number / 1000)
        notes.append(number)

    for task in [loop.create_task(ring(number)) for number in (5, 1, 4, 2, 3)]:
        await task


async def timers_that_are_past(loop: Any, notes: list[object]) -> None:
    now = time.monotonic()

    async def ring(number: int) -> None:
        await loop.sleep_until(now - 10 + number)
        notes.append(number)

    for task in [loop.create_task(ring(number)) for number in (2, 1, 3)]:
        await task


async def calls_in_order(loop: Any, notes: list[object]) -> None:
    def call(number: int) -> None:
        notes.append(number)
        if number < 10:
            loop.call_soon(call, 10 * number)

    for number in (1, 2, 3):
        loop.call_soon(call, number)
    notes.append("none yet")
    await loop.sleep(0)
    notes.append("the first three")
    await loop.sleep(0)


async def result_awaited_twice(loop: Any, notes: list[object]) -> object:
    async def square(number: int) -> int:
        await loop.sleep(0)
        return number**2

    task = loop.create_task(square(7))
    notes.append(task.done())
    first = await task
    notes.append((task.done(), task.result()))
    return first + await task


async def exception_to_all_who_wait(loop: Any, notes: list[object]) -> None:
    async def fail() -> None:
        await loop.sleep(0)
        raise ValueError("once")

    async def wait_for(task: Any) -> None:
        try:
            await task
        except ValueError as error:
            notes.append(str(error))

    failing = loop.create_task(fail())
    for task in [loop.create_task(wait_for(failing)) for _ in range(3)]:
        await task
    await failing  # and out of the main program


async def future_set_by_another(loop: Any, notes: list[object]) -> None:
    future = loop.future()

    async def wait(name: str) -> None:
        notes.append((name, await future))

    tasks = [loop.create_task(wait(name)) for name in "ab"]
    await loop.sleep(0)
    future.set_result(42)
    notes.append("set")
    for task in tasks:
        await task


async def cancelled_in_finally(loop: Any, notes: list[object]) -> None:
    async def wait() -> None:
        try:
            await loop.sleep(LONG)
        finally:
            notes.append("clean up")
            await loop.sleep(0.001)
            notes.append("clean")

    task = loop.create_task(wait())
    await loop.sleep(0)
    notes.append(task.cancel())
    with suppress(loop.CancelledError):
        await task
    notes.append((task.done(), task.cancel()))


async def cancelled_before_it_began(loop: Any, notes: list[object]) -> None:
    async def never() -> None:
        notes.append("began")

    task = loop.create_task(never())
    task.cancel()
    await task


async def cancelled_and_goes_on(loop: Any, notes: list[object]) -> object:
    async def stubborn() -> str:
        for _ in range(2):
            try:
                await loop.sleep(LONG)
            except loop.CancelledError:
                notes.append("no")
        return "done"

    task = loop.create_task(stubborn())
    for _ in range(2):
        await loop.sleep(0)
        task.cancel()
    return await task


async def cancelled_by_itself(loop: Any, notes: list[object]) -> None:
    tasks: list[Any] = []

    async def give_up() -> None:
        tasks[0].cancel()
        notes.append("goes on to its next await")
        try:
            await loop.sleep(LONG)
        finally:
            notes.append("there it ends")

    tasks.append(loop.create_task(give_up()))
    await tasks[0]


async def cancelled_by_itself_for_nothing(loop: Any, notes: list[object]) -> object:
    tasks: list[Any] = []

    async def stubborn() -> str:
        try:
            await loop.sleep(LONG)
        except loop.CancelledError:
            notes.append("no")
        return "done"

    async def wait_for_it() -> object:
        tasks[1].cancel()
        return await tasks[0]

    tasks += [loop.create_task(stubborn()), loop.create_task(wait_for_it())]
    return await tasks[1]


async def cancelled_twice_through_a_chain(loop: Any, notes: list[object]) -> object:
    tasks: list[Any] = []

    async def inner() -> str:
        await loop.sleep(0)
        tasks[1].cancel()  # that is, this task
        tasks[1].cancel()
        try:
            await loop.sleep(LONG)
        except loop.CancelledError:
            notes.append("once")
        return "done"

    async def outer() -> object:
        return await tasks[0]

    tasks += [loop.create_task(inner()), loop.create_task(outer())]
    return await tasks[1]


async def turns_and_a_timer(loop: Any, notes: list[object]) -> None:
    rung = False

    async def ring() -> None:
        nonlocal rung
        await loop.sleep(0.001)
        rung = True

    task = loop.create_task(ring())
    while not rung:
        await loop.sleep(0)
    await task
    notes.append("both went on")


async def cancelled_through_a_chain(loop: Any, notes: list[object]) -> None:
    async def inner() -> None:
        try:
            await loop.sleep(LONG)
        finally:
            notes.append("inner")

    async def outer(task: Any) -> None:
        try:
            await task
        finally:
            notes.append("outer")

    child = loop.create_task(inner())
    parent = loop.create_task(outer(child))
    await loop.sleep(0)
    parent.cancel()
    try:
        await parent
    finally:
        notes.append(child.done())


async def cancelled_when_its_result_is_there(loop: Any, notes: list[object]) -> None:
    future = loop.future()

    async def wait() -> None:
        try:
            await future
        finally:
            notes.append("too late for the result")

    task = loop.create_task(wait())
    await loop.sleep(0)
    future.set_result(1)
    task.cancel()
    await task


async def cancelled_when_its_timer_is_due(loop: Any, notes: list[object]) -> None:
    async def wait() -> None:
        await loop.sleep(0.001)

    task = loop.create_task(wait())
    await loop.sleep(0)
    time.sleep(0.002)
    task.cancel()
    await task


async def left_when_all_is_over(loop: Any, notes: list[object]) -> str:
    async def wait() -> None:
        try:
            await loop.sleep(LONG)
        finally:
            await loop.sleep(0)
            notes.append("cancelled, and let clean up")

    loop.create_task(wait())
    await loop.sleep(0)
    return "over"


async def left_when_all_has_failed(loop: Any, notes: list[object]) -> None:
    await left_when_all_is_over(loop, notes)
    raise LookupError("failed")


async def exit_from_a_task(loop: Any, notes: list[object]) -> None:
    async def leave() -> None:
        raise SystemExit("leave")

    loop.create_task(leave())
    try:
        await loop.sleep(LONG)
    finally:
        notes.append("cancelled")


PROGRAMS: list[Program] = [
    timers_in_disorder,
    timers_that_are_past,
    calls_in_order,
    result_awaited_twice,
    exception_to_all_who_wait,
    future_set_by_another,
    cancelled_in_finally,
    cancelled_before_it_began,
    cancelled_and_goes_on,
    cancelled_by_itself,
    cancelled_by_itself_for_nothing,
    cancelled_twice_through_a_chain,
    turns_and_a_timer,
    cancelled_through_a_chain,
    cancelled_when_its_result_is_there,
    cancelled_when_its_timer_is_due,
    left_when_all_is_over,
    left_when_all_has_failed,
    exit_from_a_task,
]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda one: one.__name__)
def test_a_program_does_the_same_on_both_loops(program: Program) -> None:
    assert on_ours(program) == on_asyncio(program)


# A step of a random task: to give way, to await an earlier task, to cancel any task, to
# fail, or to go on although it is cancelled.
STEPS = st.one_of(
    st.tuples(st.just("give way")),
    st.tuples(st.just("await"), st.integers(0, 4)),
    st.tuples(st.just("cancel"), st.integers(0, 4)),
    st.tuples(st.just("fail")),
    st.tuples(st.just("go on"), st.integers(1, 3)),
)


def random_program(plan: list[list[tuple[Any, ...]]]) -> Program:
    """Return a program of a task for each list of steps in `plan`."""

    async def program(loop: Any, notes: list[object]) -> None:
        tasks: list[Any] = []

        async def follow(number: int, steps: list[tuple[Any, ...]]) -> int:
            for step in steps:
                notes.append((number, *step))
                match step:
                    case ("await", other) if other < number:
                        await tasks[other]
                    case ("cancel", other) if other < len(tasks):
                        notes.append(tasks[other].cancel())
                    case ("fail",):
                        raise ValueError(number)
                    case ("go on", turns):
                        try:
                            for _ in range(turns):
                                await loop.sleep(0)
                        except (loop.CancelledError, ValueError) as error:
                            notes.append((number, type(error).__name__))
                    case _:
                        await loop.sleep(0)
            return number

        tasks += [loop.create_task(follow(*one)) for one in enumerate(plan)]
        for task in tasks:
            try:
                notes.append(await task)
            except (loop.CancelledError, ValueError) as error:
                notes.append(type(error).__name__)

    return program


@given(st.lists(st.lists(STEPS, max_size=6), min_size=1, max_size=5))
def test_random_tasks_take_the_same_turns_on_both_loops(
    plan: list[list[tuple[Any, ...]]],
) -> None:
    program = random_program(plan)
    assert on_ours(program) == on_asyncio(program)


# -- event_loop.py: what it does on its own


def test_the_loop_says_that_it_waits_in_vain() -> None:
    loop = Loop()

    async def wait() -> None:
        await Future[None](loop)

    with pytest.raises(RuntimeError, match="nothing is left to happen"):
        loop.run(wait())


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_circle_of_tasks_is_a_wait_in_vain(size: int) -> None:
    loop = Loop()
    tasks: list[Any] = []

    async def wait_for(other: int) -> None:
        await tasks[other]

    async def main() -> None:
        tasks.extend(
            loop.create_task(wait_for((number + 1) % size)) for number in range(size)
        )
        await tasks[0]

    with pytest.raises(RuntimeError, match="nothing is left to happen"):
        loop.run(main())


def test_a_cancelled_timer_does_not_hold_up_the_end() -> None:
    loop = Loop()

    async def main() -> None:
        task = loop.create_task(loop.sleep(LONG))
        await loop.sleep(0)
        task.cancel()
        await Future[None](loop)

    began = time.monotonic()
    with pytest.raises(RuntimeError, match="nothing is left to happen"):
        loop.run(main())
    assert time.monotonic() - began < LIMIT


def test_timers_of_the_same_time_keep_their_order() -> None:
    loop = Loop()
    rung = []
    now = time.monotonic()

    async def ring(number: int) -> None:
        await loop.sleep_until(now)
        rung.append(number)

    async def main() -> None:
        for task in [loop.create_task(ring(number)) for number in range(10)]:
            await task

    loop.run(main())
    assert rung == list(range(10))


def test_a_result_comes_once() -> None:
    future = Future[int](Loop())
    with pytest.raises(AssertionError, match="not come yet"):
        future.result()
    future.set_result(1)
    with pytest.raises(AssertionError, match="once"):
        future.set_result(2)
    assert future.result() == 1
    assert not future.cancel()


@pytest.mark.parametrize("with_socket", [True, False])
def test_a_sleeping_loop_uses_no_core(
    with_socket: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = Loop()
    waits: list[float | None] = []

    def wait(timeout: float | None) -> list[Any]:
        waits.append(timeout)
        return Loop._wait(loop, timeout)

    monkeypatch.setattr(loop, "_wait", wait)
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)

        async def main() -> None:
            if with_socket:
                reader = loop.create_task(loop.sock_recv(left, 1))
            await loop.sleep(0.1)
            if with_socket:
                reader.cancel()

        loop.run(main())
    assert len(waits) < 10  # rather than going round and round


def test_the_selector_is_closed_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[selectors.BaseSelector] = []

    class Selector(selectors.SelectSelector):
        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr(selectors, "DefaultSelector", Selector)
    loop = Loop()

    async def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011
        loop.run(fail())
    assert len(closed) == 1


def test_ctrl_c_in_a_task_ends_the_loop_and_cleans_up() -> None:
    loop = Loop()
    notes = []

    async def wait() -> None:
        try:
            await loop.sleep(LONG)
        finally:
            await loop.sleep(0)
            notes.append("clean")

    async def interrupted() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        loop.create_task(wait())
        await loop.sleep(0)
        loop.create_task(interrupted())
        await loop.sleep(LONG)

    with pytest.raises(KeyboardInterrupt):
        loop.run(main())
    assert notes == ["clean"]


def test_a_socket_has_one_who_waits_for_it() -> None:
    loop = Loop()
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)

        async def main() -> None:
            first = loop.create_task(loop.sock_recv(left, 1))
            await loop.sleep(0)
            with pytest.raises(KeyError):
                await loop.sock_recv(left, 1)
            right.send(b"x")
            assert await first == b"x"

        loop.run(main())


@given(st.integers(0, 300_000))
def test_bytes_arrive_however_many_they_are(size: int) -> None:
    loop = Loop()
    data = bytes(range(256)) * (size // 256 + 1)
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)

        async def receive() -> bytes:
            received = b""
            while piece := await loop.sock_recv(right, 65_536):
                received += piece
            return received

        async def main() -> bytes:
            receiving = loop.create_task(receive())
            await loop.sock_sendall(left, data)
            left.shutdown(socket.SHUT_WR)
            return await receiving

        assert loop.run(main()) == data


def test_a_refused_connection_is_an_os_error() -> None:
    loop = Loop()
    with socket.socket() as bound, socket.socket() as client:
        bound.bind(("127.0.0.1", 0))
        client.setblocking(False)
        with pytest.raises(ConnectionRefusedError):
            loop.run(loop.sock_connect(client, bound.getsockname()))


def test_a_cancelled_wait_for_a_socket_can_be_repeated() -> None:
    loop = Loop()
    left, right = socket.socketpair()
    with left, right:
        left.setblocking(False)

        async def main() -> bytes:
            reader = loop.create_task(loop.sock_recv(left, 1))
            await loop.sleep(0)
            right.send(b"x")  # it is there when the reader is cancelled
            reader.cancel()
            with suppress(CancelledError):
                await reader
            return await loop.sock_recv(left, 1)

        assert loop.run(main()) == b"x"


@pytest.mark.parametrize("size", [2, 3])
def test_a_circle_is_cancelled_and_cleans_up(size: int) -> None:
    loop, cleaned_up = Loop(), []

    async def wait_for_the_next(number: int) -> None:
        try:
            await circle[(number + 1) % size]
        finally:
            await loop.sleep(0)
            cleaned_up.append(number)

    async def main() -> None:
        circle.extend(loop.create_task(wait_for_the_next(n)) for n in range(size))
        for _ in range(3):
            await loop.sleep(0)

    circle: list[event_loop.Task[None]] = []
    loop.run(main())
    assert sorted(cleaned_up) == list(range(size))
    assert all(task.done() for task in circle)


def test_a_timer_may_be_longer_than_the_system_can_wait() -> None:
    loop = Loop()

    async def main() -> str:
        far_off = loop.create_task(loop.sleep(1e9))
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            reading = loop.create_task(loop.sock_recv(one, 1))
            threading.Timer(0.01, other.send, [b"x"]).start()
            data = await reading
        far_off.cancel()
        return data.decode()

    assert loop.run(main()) == "x"


def test_ctrl_c_comes_out_of_the_waiting_and_loses_no_step() -> None:
    loop, notes = Loop(), []

    async def work(name: str) -> None:
        try:
            await loop.sleep(LONG)
        finally:
            await loop.sleep(0)
            notes.append(f"{name} cleaned up")

    async def main() -> None:
        tasks = [loop.create_task(work(name)) for name in "ab"]
        await loop.sleep(0)
        signal.raise_signal(signal.SIGINT)  # here it would lose this step
        notes.append("went on")
        for task in tasks:
            await task

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        loop.run(main())
    assert notes == ["went on", "a cleaned up", "b cleaned up"]
    assert signal.getsignal(signal.SIGINT) is before


def test_second_ctrl_c_does_not_wait() -> None:
    loop, notes = Loop(), []

    async def main() -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
            notes.append("went on")

    with pytest.raises(KeyboardInterrupt):
        loop.run(main())
    assert notes == ["went on"]


def test_loop_in_a_thread_and_other_handlers_are_left_alone() -> None:
    def handler(*_: object) -> None:
        pass

    async def seen() -> object:
        return signal.getsignal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, handler)
    try:
        assert Loop().run(seen()) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Loop().run, seen()).result() is before


# -- example01 and 02


@pytest.mark.parametrize(
    ("number", "factor"), [(2, 2), (3, 3), (4, 2), (9, 3), (91, 7), (9409, 97)]
)
def test_smallest_factors(number: int, factor: int) -> None:
    assert one_by_one.smallest_factor(number) == factor
    assert asyncio.run(cooperative.smallest_factor(number)) == factor


@given(st.integers(2, 10_000), st.integers(1, 200))
def test_both_find_the_same_factor_whatever_the_step(number: int, step: int) -> None:
    factor = one_by_one.smallest_factor(number)
    assert number % factor == 0
    assert all(number % smaller for smaller in range(2, factor))
    assert asyncio.run(cooperative.smallest_factor(number, step)) == factor


@pytest.mark.parametrize("number", [1, 0, -7])
def test_numbers_below_two_have_no_such_factor(number: int) -> None:
    with pytest.raises(ValueError, match=f"not {number}"):
        one_by_one.smallest_factor(number)
    with pytest.raises(ValueError, match=f"not {number}"):
        asyncio.run(cooperative.smallest_factor(number))
    with pytest.raises(ExceptionGroup) as group:
        asyncio.run(cooperative.factor_all([7, number], lambda *_: None))
    assert group.group_contains(ValueError)


def test_numbers_one_by_one_come_in_order_and_one_at_a_time() -> None:
    answers = one_by_one.factor_all(iter([15, 7, 1]))
    assert next(answers) == (15, 3)
    assert next(answers) == (7, 7)
    with pytest.raises(ValueError, match="not 1"):
        next(answers)


@given(st.integers(2, 10_000), st.integers(1, 50))
def test_turns_are_what_the_search_takes(number: int, step: int) -> None:
    factor = 0

    async def find() -> None:
        nonlocal factor
        factor = await cooperative.smallest_factor(number, step)

    turns = len(list(find().__await__()))
    assert turns + 1 == cooperative.turns(number, factor, step)


# -- example03


def job(turns: int, result: object) -> Generator[None, None, Any]:
    for _ in range(turns):
        yield
    if isinstance(result, Exception):
        raise result
    return result


def test_no_jobs_have_no_results() -> None:
    assert generators.take_turns([]) == []


@given(st.lists(st.integers(0, 5)))
def test_results_come_in_the_order_of_the_jobs(turns: list[int]) -> None:
    jobs = [job(*reversed(one)) for one in enumerate(turns)]
    assert generators.take_turns(jobs) == list(range(len(turns)))


def test_a_job_that_fails_leaves_the_others_alone() -> None:
    failure = ValueError()
    outcomes = generators.take_turns([job(1, 1), job(0, failure), job(2, 3)])
    assert outcomes == [1, failure, 3]


def test_ctrl_c_is_not_an_outcome() -> None:
    def interrupted() -> Generator[None, None, None]:
        yield
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generators.take_turns([interrupted()])


def test_turns_are_taken_in_rounds() -> None:
    steps: list[str] = []
    generators.take_turns([generators.count_down(name, 3, steps) for name in "abc"])
    assert " ".join(steps) == "a3 b3 c3 a2 b2 c2 a1 b1 c1"


def test_a_job_of_jobs_adds_up_their_results() -> None:
    steps: list[str] = []
    assert generators.take_turns([generators.count_down_twice("x", 2, steps)]) == [4]
    assert " ".join(steps) == "x2 x1 X2 X1"


# -- example04


def test_a_coroutine_that_asks_nothing_is_run_to_its_end() -> None:
    async def plain() -> int:
        return 42

    def never(question: below.Question) -> str:
        raise AssertionError(question)

    assert below.run(plain(), never) == 42


def test_what_answers_raise_comes_out_of_the_await() -> None:
    notes = []

    async def ask() -> None:
        try:
            await below.Question("?")
        except ZeroDivisionError:
            notes.append(await below.Question("again?"))

    def answer(question: below.Question) -> str:
        return "yes" if question.text == "again?" else str(1 / 0)

    below.run(ask(), answer)
    assert notes == ["yes"]


def test_a_coroutine_that_is_given_up_cleans_up() -> None:
    notes = []

    async def ask() -> None:
        try:
            await below.Question("?")
        finally:
            notes.append("clean")

    def interrupt(question: below.Question) -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        below.run(ask(), interrupt)
    assert notes == ["clean"]


# -- example05


@given(st.lists(st.integers(-5, 5), max_size=20))
def test_sleepers_wake_in_order(numbers: list[int]) -> None:
    loop = Loop()
    assert loop.run(sleep_sorts.sleep_sort(loop, numbers, 1e-5)) == sorted(numbers)


@pytest.mark.parametrize("wrong", ["--numbers 1 x", "--numbers 0 1001", "--numbers"])
def test_what_cannot_be_slept_for(wrong: str, complaint: Callable[..., str]) -> None:
    assert "--numbers" in complaint(sleep_sorts, *wrong.split())


# -- example06


def test_the_echo_server_serves_those_who_are_connected_to_their_end() -> None:
    loop = Loop()

    async def main() -> bytes:
        server = echoes.EchoServer(loop)
        serving = loop.create_task(server.serve())
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, server.address)
            while not server.most:
                await loop.sleep(0.001)
            serving.cancel()
            await loop.sleep(0)
            await loop.sock_sendall(client, b"still there?")
            answer = await loop.sock_recv(client, 100)
            with socket.socket() as late:
                late.setblocking(False)
                with pytest.raises(ConnectionRefusedError):
                    await loop.sock_connect(late, server.address)
        with suppress(CancelledError):
            await serving
        return answer

    assert loop.run(main()) == b"still there?"


def test_the_echo_server_hangs_up_when_cancelled_twice() -> None:
    loop = Loop()

    async def main() -> bytes:
        server = echoes.EchoServer(loop)
        serving = loop.create_task(server.serve())
        with socket.socket() as client:
            client.setblocking(False)
            await loop.sock_connect(client, server.address)
            while not server.most:
                await loop.sleep(0.001)
            for _ in range(2):
                serving.cancel()
                await loop.sleep(0)
            with suppress(CancelledError):
                await serving
            return await loop.sock_recv(client, 100)

    assert loop.run(main()) == b""


def test_a_cancel_while_the_server_ends_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = Loop()
    ending = Future[None](loop)
    go_on = Future[None](loop)

    class SlowToEnd(echoes.EchoServer):
        async def serve(self) -> None:
            try:
                await super().serve()
            finally:
                ending.set_result(None)
                await go_on

    async def main() -> None:
        monkeypatch.setattr(echoes, "EchoServer", SlowToEnd)
        exchange = loop.create_task(echoes.exchange(loop, 1, 1))
        await ending
        exchange.cancel()
        await loop.sleep(0)
        go_on.set_result(None)
        await exchange

    with pytest.raises(CancelledError):
        loop.run(main())


def test_a_client_is_told_that_the_server_hung_up() -> None:
    loop = Loop()

    async def nothing() -> None:
        pass

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            address = listener.getsockname()
            client = loop.create_task(echoes.ask(loop, address, [b"hello"], nothing))
            connection, _ = await loop.sock_accept(listener)
            with connection:
                await loop.sock_recv(connection, 100)
                await loop.sock_sendall(connection, b"hel")
            await client

    with pytest.raises(ConnectionAbortedError, match="hung up"):
        loop.run(main())


# -- example07


def test_threads_wait_together_and_are_gone() -> None:
    before = threading.active_count()
    seen = []
    waits.wait_in_threads(50, lambda n: seen.append((n, threading.active_count())))
    assert seen == [(50, before + 50)]
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_none_is_left_when_what_is_done_meanwhile_fails(kind: str) -> None:
    before = threading.active_count()
    with pytest.raises((ZeroDivisionError, ExceptionGroup)):
        waits.KINDS[kind](50, lambda n: 1 // (n - 50))
    assert threading.active_count() == before


def test_threads_the_system_does_not_allow_are_not_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start
    allowed = iter(range(7))

    def start_some(thread: threading.Thread) -> None:
        if next(allowed, None) is None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_some)
    before = threading.active_count()
    seen: list[int] = []
    waits.wait_in_threads(50, seen.append)
    assert seen == [7]
    assert threading.active_count() == before


def test_tasks_wait_together() -> None:
    seen = []
    waits.wait_in_tasks(50, lambda n: seen.append((n, len(asyncio.all_tasks()))))
    assert seen == [(50, 51)]


def test_peak_memory_grows_with_what_is_used() -> None:
    code = (
        "from example07_ten_thousand_waits import peak_memory\n"
        "before = peak_memory()\n"
        "bytearray(b'x') * 50_000_000\n"
        "print(peak_memory() - before)"
    )
    grown = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(waits.__file__).parent,
        stdout=subprocess.PIPE,
        check=True,
    )
    assert 40_000_000 < int(grown.stdout) < 80_000_000


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
def test_no_process_is_left_by_a_ctrl_c_while_it_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = []

    class Interrupted(subprocess.Popen[str]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        waits.cost_in_fresh_process("nothing", 100)
    (process,) = started
    assert process.returncode is not None  # it has been waited for


def test_a_cost_is_that_of_a_fresh_process() -> None:
    ballast = bytearray(b"x") * 200_000_000
    cost = waits.cost_in_fresh_process("tasks", 100)
    assert cost.waits == 100
    assert 0 < cost.memory < len(ballast)


def test_a_measurement_that_fails_is_no_cost() -> None:
    with pytest.raises(subprocess.CalledProcessError):
        waits.cost_in_fresh_process("something", 100)


# -- example08


def test_the_heart_beats_and_stops() -> None:
    async def main() -> list[blocking.Beat]:
        async with blocking.heart(0.001) as beats:
            while len(beats) < 5:
                await asyncio.sleep(0)
        after = len(beats)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        await asyncio.sleep(0.005)
        assert len(beats) == after
        return beats

    beats = asyncio.run(main())
    assert all(beat.late >= 0 for beat in beats)
    assert len(beats) >= 6  # the last one after the block


def test_the_heart_stops_when_the_block_fails() -> None:
    async def main() -> None:
        try:
            async with blocking.heart(0.001):
                raise LookupError
        finally:
            assert asyncio.all_tasks() == {asyncio.current_task()}

    with pytest.raises(LookupError):
        asyncio.run(main())


def test_a_blocking_call_is_seen_to_the_end_of_the_block() -> None:
    async def main() -> blocking.Pulse:
        asyncio.get_running_loop().slow_callback_duration = math.inf
        return await blocking.pulse_beside(lambda: time.sleep(0.05), in_thread=False)

    pulse = asyncio.run(main())
    assert not pulse.meanwhile
    assert pulse.worst >= pulse.ended - pulse.began - blocking.PERIOD


def test_a_call_in_a_thread_lets_the_heart_beat() -> None:
    began = threading.Event()

    def until_it_has_beaten() -> None:
        began.set()
        end = time.monotonic() + LIMIT
        while time.monotonic() < end and len(beats) < 3:
            time.sleep(0.001)

    beats: list[blocking.Beat] = []

    async def main() -> None:
        nonlocal beats
        async with blocking.heart(0.001) as beats:
            await asyncio.to_thread(until_it_has_beaten)

    asyncio.run(main())
    assert began.is_set()
    assert len(beats) >= 3


# -- example09


def timeline(*states: tuple[int, str, float, float]) -> list[models.Interval]:
    return [models.Interval(*state) for state in states]


def test_most_at_once_counts_those_in_one_state() -> None:
    intervals = timeline(
        (0, "waiting", 0, 3),
        (1, "waiting", 1, 2),
        (2, "waiting", 2, 4),
        (3, "computing", 1, 2),
    )
    assert models.most_at_once(intervals, "waiting") == 2
    assert models.most_at_once(intervals, "computing") == 1
    assert models.most_at_once([], "waiting") == 0


def test_cores_busy_counts_only_the_time_of_computing() -> None:
    piece = models.PIECE
    alone = timeline((0, "computing", 0, piece), (1, "waiting", 0, 9 * piece))
    together = [*alone, *timeline((1, "computing", 0, piece))]
    in_turn = [*alone, *timeline((1, "computing", 5 * piece, 6 * piece))]
    assert models.cores_busy(alone) == pytest.approx(1)
    assert models.cores_busy(together) == pytest.approx(2)
    assert models.cores_busy(in_turn) == pytest.approx(1)


@pytest.mark.parametrize("run", [models.in_tasks, models.in_threads])
def test_all_workers_wait_at_the_same_time(
    run: Callable[[], list[models.Interval]],
) -> None:
    intervals = run()
    assert len(intervals) == 3 * models.WORKERS
    assert models.most_at_once(intervals, models.WAITING) == models.WORKERS


def test_processes_wait_at_the_same_time(start_method: str) -> None:
    intervals = models.in_processes()
    assert len(intervals) == 3 * models.WORKERS
    assert models.most_at_once(intervals, models.WAITING) == models.WORKERS


# -- options


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (one_by_one.to_test, "2", "1"),
        (cooperative.to_test, "10000000000000", "10000000000001"),
        (echoes.up_to(100), "100", "101"),
        (echoes.up_to(100), "1", "0"),
        (waits.many, "100", "99"),
        (waits.many, "100000", "100001"),
    ],
)
def test_options_name_what_is_wrong(
    check: Callable[[str], int], good: str, bad: str
) -> None:
    assert check(good) == int(good)
    with pytest.raises(argparse.ArgumentTypeError, match=f"not {bad}"):
        check(bad)
