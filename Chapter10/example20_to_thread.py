"""`asyncio.to_thread` lets a blocking call block a thread instead of the event loop.

The loop goes on meanwhile; the call may even wait for something that a task has yet to
do. Its result or exception arrives as from an await, and context variables go along.

What does not go along is cancellation. It ends the await, not the thread: that goes on
to the end, and holds up the end of `asyncio.run`, which waits for it (from 3.12 on, for
five minutes at most). The function must look by itself whether it should stop:
`call_until_stopped` hands it an event for that, and does not return before the function
has.

The threads are those of the loop's default executor, min(32, cores + 4) of them. Calls
beyond that wait in its queue, without a limit and without a word. Calls that wait for
one another need as many threads; else they wait for ever.

The way back: a thread may not touch what belongs to the loop. If it calls
`queue.put_nowait`, a waiting task is made ready, but the loop sleeps on, for nothing
has woken it. (In debug mode such a call raises RuntimeError: example21.)
`call_soon_threadsafe` wakes it; `run_coroutine_threadsafe` also brings back a result,
so that the thread can wait for room in the queue (`put_all`).

Output:
    a call waits for a task     called directly: in vain; in a thread: it comes
    context and exception       alice; LookupError: in the thread
    the await cancelled         the thread goes on to its end
    call_until_stopped          the function was told to stop, then cancelled
    put_all, a queue of 2       the thread waits for room; 20 items in order
    3 calls wait for each other in 3 threads: all meet; 2: 3 of 3 fail
    33 calls at once            min(32, <cores> + 4) begin, the rest waits
    put_nowait in the thread    the loop sleeps on; call_soon_threadsafe wakes it
    a thread is not stopped by a cancel, and does not touch the loop's things
"""

import asyncio
import os
import selectors
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

TIME_LIMIT = 10.0  # seconds
IN_VAIN = 0.02  # seconds that a call waits for what cannot come

USER: ContextVar[str] = ContextVar("USER", default="nobody")


async def call_until_stopped(
    function: Callable[Concatenate[threading.Event, P], R],
    *args: P.args,
    **kwargs: P.kwargs,
) -> R:
    """Call `function(stop, ...)` in a thread, and never return before it does.

    `stop` is set when this task is cancelled; the function should look at it, or wait
    with it (`stop.wait(seconds)`), and return soon.

    Raises:
        asyncio.CancelledError: this task was cancelled, and the function has returned;
            raised from its exception, if it raised one.
    """
    stop = threading.Event()
    call = partial(copy_context().run, partial(function, stop, *args, **kwargs))
    # A future, not a task: nobody who cancels all tasks can get at it.
    future = asyncio.get_running_loop().run_in_executor(None, call)
    return await _to_the_end(future, when_cancelled=stop.set)


async def _to_the_end(
    future: "asyncio.Future[R]", when_cancelled: Callable[[], object]
) -> R:
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])  # cancelled itself, it leaves the future alone
        except asyncio.CancelledError as error:
            cancelled = error
            when_cancelled()
    if cancelled is not None:
        raise cancelled from future.exception()
    return future.result()


async def put_all(items: Iterable[T], queue: "asyncio.Queue[T]") -> None:
    """Iterate over `items` in a thread, which waits for room in `queue` for each.

    Cancelled, it drops the item that has found no room yet, and returns when the thread
    has ended: if `items` waits for something just then, when that has come.
    """
    loop = asyncio.get_running_loop()
    # Both are for the loop's thread only.
    putting: asyncio.Task[None] | None = None
    stopped = False

    async def put(item: T) -> None:
        nonlocal putting
        if stopped:  # the thread was between two items
            raise asyncio.CancelledError
        putting = asyncio.current_task()
        await queue.put(item)

    def stop() -> None:
        nonlocal stopped
        stopped = True
        if putting is not None:
            putting.cancel()

    def iterate() -> None:
        try:
            for item in items:
                asyncio.run_coroutine_threadsafe(put(item), loop).result()
        except CancelledError:
            if not stopped:  # by whoever cancels all tasks
                raise RuntimeError("a put was cancelled by others") from None

    future = loop.run_in_executor(None, copy_context().run, iterate)
    await _to_the_end(future, when_cancelled=stop)


class WatchedSelector(selectors.DefaultSelector):
    """Tells when a loop sleeps in it: what becomes ready then does not wake it."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = threading.Event()

    def select(
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout > 0:
            self.asleep.set()
        try:
            return super().select(timeout)
        finally:
            self.asleep.clear()


async def waits_for_the_loop() -> tuple[bool, bool]:
    """Call a function that waits for a task: directly, then in a thread.

    Returns:
        Whether it has seen what it waits for, in each case.
    """
    done_by_task = threading.Event()

    async def task() -> None:
        done_by_task.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(task())
        # The task's turn comes at the next await, and the call returns before that.
        direct = done_by_task.wait(IN_VAIN)
    done_by_task.clear()
    async with asyncio.TaskGroup() as group:
        call = group.create_task(asyncio.to_thread(done_by_task.wait, TIME_LIMIT))
        group.create_task(task())
    return direct, call.result()


async def what_comes_back() -> tuple[str, str]:
    """Return what a function in a thread sees of the context, and what it raises."""

    def fail() -> None:
        raise LookupError("in the thread")

    USER.set("alice")
    user = await asyncio.to_thread(USER.get)
    try:
        await asyncio.to_thread(fail)
    except LookupError as error:
        return user, str(error)
    return user, "no error"


async def cancel_await_of_thread() -> tuple[bool, bool]:
    """Cancel a task that awaits a thread.

    Returns:
        Whether the task was cancelled while the thread was in its call, and whether the
        call has come to its end nevertheless.
    """
    began, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        began.set()
        if go_on.wait(TIME_LIMIT):
            ended.set()

    task = asyncio.create_task(asyncio.to_thread(work))
    try:
        await asyncio.to_thread(began.wait, TIME_LIMIT)
        task.cancel()
        await asyncio.wait([task])
        outcome = task.cancelled() and not ended.is_set()
    finally:
        go_on.set()
    return outcome, await asyncio.to_thread(ended.wait, TIME_LIMIT)


async def cancel_call_until_stopped() -> tuple[bool, str]:
    """Return whether such a call was cancelled, and what its function did last."""
    began = threading.Event()
    did: list[str] = []

    def work(stop: threading.Event) -> None:
        began.set()
        did.append("was told to stop" if stop.wait(TIME_LIMIT) else "was told nothing")

    task = asyncio.create_task(call_until_stopped(work))
    await asyncio.to_thread(began.wait, TIME_LIMIT)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled(), did[-1]


async def meet(n_calls: int, n_threads: int) -> str:
    """Let calls wait for one another, in a default executor of so many threads."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(n_threads))
    barrier = threading.Barrier(n_calls)
    wait = IN_VAIN if n_threads < n_calls else TIME_LIMIT
    calls = [asyncio.to_thread(barrier.wait, wait) for _ in range(n_calls)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    broken = sum(isinstance(result, threading.BrokenBarrierError) for result in results)
    return f"{broken} of {n_calls} fail" if broken else "all meet"


async def threads_of_default_executor(n_calls: int) -> int:
    """Return how many of many calls are in progress when no more can begin."""
    go_on = threading.Event()
    began = threading.Semaphore(0)

    def block() -> None:
        began.release()
        go_on.wait(TIME_LIMIT)

    def threads() -> int:
        names = [thread.name for thread in threading.enumerate()]
        return sum(name.startswith("asyncio_") for name in names)

    calls = [asyncio.create_task(asyncio.to_thread(block)) for _ in range(n_calls)]
    try:
        await asyncio.sleep(0)  # now all calls are submitted; nobody is free meanwhile
        return threads()
    finally:
        go_on.set()
        await asyncio.wait(calls)


async def put_from_thread(selector: WatchedSelector) -> tuple[bool, bool]:
    """Let a thread put an item, while a task waits for it and the loop sleeps.

    Returns:
        Whether the task has got it when the thread has called `put_nowait` alone, and
        when it has woken the loop after that.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[str] = asyncio.Queue()
    got = threading.Event()

    async def get() -> None:
        try:
            await queue.get()
        finally:  # after Ctrl-C, too: the thread waits for it
            got.set()

    def put() -> tuple[bool, bool]:
        if not selector.asleep.wait(TIME_LIMIT):
            raise SystemExit("the loop did not come to rest")
        queue.put_nowait("item")  # broken: the loop does not notice
        alone = got.wait(IN_VAIN)
        loop.call_soon_threadsafe(lambda: None)
        return alone, got.wait(TIME_LIMIT)

    async with asyncio.TaskGroup() as group:
        group.create_task(get())
        await asyncio.sleep(0)  # now it waits
        call = group.create_task(asyncio.to_thread(put))
    return call.result()


async def wait_for_room(n_items: int) -> tuple[int, int]:
    """Fill a queue of two from a thread, before anything is taken out.

    Returns:
        How many items were drawn then, and how many were in the queue.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[int] = asyncio.Queue(2)
    third_drawn = asyncio.Event()
    drawn = 0

    def items() -> Iterator[int]:
        nonlocal drawn
        for drawn in range(1, n_items + 1):
            if drawn == 3:  # two are in the queue
                loop.call_soon_threadsafe(third_drawn.set)
            yield drawn - 1

    async with asyncio.TaskGroup() as group:
        group.create_task(put_all(items(), queue))
        await third_drawn.wait()
        for _ in range(20):  # time enough to draw more, if it would
            await asyncio.sleep(0.001)
        held = drawn, queue.qsize()
        got = [await queue.get() for _ in range(n_items)]
    if got != list(range(n_items)):
        raise SystemExit(f"from the thread came {got}")
    return held


async def demonstrate() -> None:
    """Check and print what is the same for every loop and executor."""
    direct, in_thread = await waits_for_the_loop()
    if (direct, in_thread) != (False, True):
        raise SystemExit("the loop was to be blocked by the direct call only")
    print("a call waits for a task     called directly: in vain; in a thread: it comes")
    user, error = await what_comes_back()
    if (user, error) != ("alice", "in the thread"):
        raise SystemExit(f"context and exception: {user}, {error}")
    print(f"context and exception       {user}; LookupError: {error}")

    cancelled, ended = await cancel_await_of_thread()
    if not (cancelled and ended):
        raise SystemExit("the await was to be cancelled, and the thread to go on")
    print("the await cancelled         the thread goes on to its end")
    cancelled, did = await cancel_call_until_stopped()
    if (cancelled, did) != (True, "was told to stop"):
        raise SystemExit(f"cancelled: {cancelled}, and the function {did}")
    print(f"call_until_stopped          the function {did}, then cancelled")

    drawn, waiting = await wait_for_room(20)
    if (drawn, waiting) != (3, 2):
        raise SystemExit(f"{drawn} items were drawn for a queue with {waiting}")
    print("put_all, a queue of 2       the thread waits for room; 20 items in order")


def main() -> None:
    def run(demonstration: Callable[..., Awaitable[R]], *arguments: int) -> R:
        async def within_limit() -> R:
            async with asyncio.timeout(TIME_LIMIT):
                return await demonstration(*arguments)

        return asyncio.run(within_limit())

    run(demonstrate)

    meetings = [run(meet, 3, n_threads) for n_threads in (3, 2)]
    if meetings != ["all meet", "3 of 3 fail"]:
        raise SystemExit(f"three calls in three threads, and in two: {meetings}")
    print(f"3 calls wait for each other in 3 threads: {meetings[0]}; 2: {meetings[1]}")
    n_cores = getattr(os, "process_cpu_count", os.cpu_count)() or 1  # from 3.13
    n_threads = run(threads_of_default_executor, 33)
    if n_threads != min(32, n_cores + 4):
        raise SystemExit(f"the default executor has {n_threads} threads")
    print(f"33 calls at once            min(32, {n_cores} + 4) begin, the rest waits")

    selector = WatchedSelector()
    # In debug mode put_nowait would raise, and the waiting task never wake.
    with asyncio.Runner(
        debug=False, loop_factory=lambda: asyncio.SelectorEventLoop(selector)
    ) as runner:
        alone, awake = runner.run(put_from_thread(selector))
    if (alone, awake) != (False, True):
        raise SystemExit("the loop was to sleep on, until it is woken")
    print(
        "put_nowait in the thread    the loop sleeps on; call_soon_threadsafe wakes it"
    )
    print("a thread is not stopped by a cancel, and does not touch the loop's things")


if __name__ == "__main__":
    main()
