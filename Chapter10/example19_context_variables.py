"""A context variable belongs to a task: who logs for which request, across awaits.

Tasks of one thread take turns at each await, so a global variable, and a
`threading.local` as well, hold what the last one has set. A ContextVar holds a value
for each context, and each task has a context of its own: a copy of its creator's, made
by `create_task`, not when the task first runs. What the task sets then, its creator
does not see. What runs in the same task, a coroutine that is merely awaited or an async
generator, shares its context: what that sets stays set.

A callback keeps the context in which it was scheduled. `asyncio.to_thread` takes a copy
along into the thread; `loop.run_in_executor` does not, unless `in_own_context` wraps
the function. (With `-X thread_inherit_context`, from 3.14 on, a new thread begins with
the context of whoever starts it; free-threaded builds do so by default.)
`create_task(context=...)` runs a task in a context that others share.

A token resets a variable to what it was, once, and in its own context only: a generator
that another task closes (example18) cannot. From 3.14 on a token is a context manager.

Source: PEP 567.

Output:
    two tasks write, and read when both have written
      a global                a reads b, b reads b
      threading.local         a reads b, b reads b
      ContextVar              a reads a, b reads b
    requests a and b log     and the records say
      after an await          a b
      in a child task         a b
      in a callback           a b
      in to_thread            a b
      in run_in_executor      - -
        and in_own_context    a b
      after the block         - -
    child and parent see      at create_task, after create_task
    what is awaited leaves    coroutine's, generator's
    create_task(context=...)  first's, - elsewhere
    token                     again RuntimeError, in another task ValueError
    each record bears its own request, where the context goes along
"""

import asyncio
import contextvars
import functools
import logging
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

TIME_LIMIT = 10.0  # seconds

REQUEST: ContextVar[str] = ContextVar("REQUEST", default="-")


class RequestFilter(logging.Filter):
    """Adds to each record the request that its code works for.

    Attach it to a handler: `"%(request)s %(message)s"` is a format then. It runs in
    the thread and task that log, so not behind a QueueHandler, but before it.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.request = REQUEST.get()
        return True


@contextmanager
def working_for(request: str) -> Iterator[None]:
    """Set REQUEST during the block, for this task and what it starts inside."""
    token = REQUEST.set(request)
    try:
        yield
    finally:
        REQUEST.reset(token)


def in_own_context(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs in a copy of the present context, in any thread.

    Call it once: a context cannot be entered twice at a time.
    """
    return functools.partial(contextvars.copy_context().run, function)


class Records(logging.Handler):
    """Keeps the records: for each message, who has logged it and for which request."""

    def __init__(self) -> None:
        super().__init__()
        self.addFilter(RequestFilter())
        self.seen: dict[str, dict[str, str]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        by: str = getattr(record, "by", "nobody")
        request: str = getattr(record, "request", "none")
        self.seen.setdefault(record.getMessage(), {})[by] = request


async def read_back(write: Callable[[str], object], read: Callable[[], str]) -> str:
    """Let two tasks, a and b, write, and read when both have written."""
    both_have_written = asyncio.Barrier(2)

    async def work(name: str) -> str:
        write(name)
        await both_have_written.wait()
        return f"{name} reads {read()}"

    return ", ".join(await asyncio.gather(work("a"), work("b")))


async def handle(
    name: str, log: Callable[[str, str], None], pool: ThreadPoolExecutor
) -> None:
    """Log `name` for a request of that name wherever code may run for it."""
    loop = asyncio.get_running_loop()
    called = asyncio.Event()

    async def child() -> None:
        log("in a child task", name)

    def callback() -> None:
        log("in a callback", name)
        called.set()

    with working_for(name):
        await asyncio.sleep(0)  # now all have set the variable
        log("after an await", name)
        await asyncio.create_task(child())
        loop.call_soon(callback)
        await called.wait()
        await asyncio.to_thread(log, "in to_thread", name)
        await loop.run_in_executor(pool, log, "in run_in_executor", name)
        wrapped = in_own_context(log)
        await loop.run_in_executor(pool, wrapped, "  and in_own_context", name)
    log("after the block", name)


async def logged_requests(names: str) -> dict[str, dict[str, str]]:
    """Handle requests at once; return for each message who logged it for which."""
    logger = logging.getLogger("example19")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    records = Records()
    logger.addHandler(records)

    def log(message: str, by: str) -> None:
        logger.info(message, extra={"by": by})

    try:
        with ThreadPoolExecutor(1) as pool:
            # The thread starts here, for nobody: on some interpreters it inherits.
            pool.submit(int).result()
            async with asyncio.TaskGroup() as group:
                for name in names:
                    group.create_task(handle(name, log, pool))
    finally:
        logger.removeHandler(records)
    return records.seen


async def seen_by_child_and_parent() -> tuple[str, str]:
    """Return what a child sees that starts late, and its parent after it."""

    async def child() -> str:
        seen = REQUEST.get()
        REQUEST.set("child's")
        return seen

    REQUEST.set("at create_task")
    task = asyncio.create_task(child())  # copies the context; runs later
    REQUEST.set("after create_task")
    return await task, REQUEST.get()


async def left_by_what_is_awaited() -> tuple[str, str]:
    """Return what a coroutine and an async generator have set for their caller."""

    async def coroutine() -> None:
        REQUEST.set("coroutine's")

    async def generator() -> AsyncGenerator[None, None]:
        with working_for("generator's"):
            yield

    await coroutine()
    after_await = REQUEST.get()
    async with aclosing(generator()) as items:
        await anext(items)
        return after_await, REQUEST.get()


async def left_in_a_shared_context() -> tuple[str, str]:
    """Let two tasks run in one context; return what the second sees, and others do."""

    async def first() -> None:
        REQUEST.set("first's")

    async def second() -> str:
        return REQUEST.get()

    shared = contextvars.copy_context()
    await asyncio.create_task(first(), context=shared)
    seen = await asyncio.create_task(second(), context=shared)
    if shared.run(REQUEST.get) != seen:
        raise SystemExit("Context.run was to see what the tasks see")
    return seen, REQUEST.get()


async def errors_of_resets() -> tuple[str, str]:
    """Return the errors of a second reset, and of one in another task."""
    token = REQUEST.set("x")

    async def reset() -> None:
        REQUEST.reset(token)

    elsewhere = asyncio.create_task(reset())
    await asyncio.wait([elsewhere])
    REQUEST.reset(token)
    try:
        REQUEST.reset(token)
    except RuntimeError as error:
        return type(error).__name__, type(elsewhere.exception()).__name__
    return "no error", type(elsewhere.exception()).__name__


async def demonstrate() -> None:
    """Check and print it all."""
    common, local = SimpleNamespace(name=""), threading.local()
    places: dict[str, tuple[Callable[[str], Any], Callable[[], str]]] = {
        "a global": (lambda name: setattr(common, "name", name), lambda: common.name),
        "threading.local": (
            lambda name: setattr(local, "name", name),
            lambda: str(local.name),
        ),
        "ContextVar": (REQUEST.set, REQUEST.get),
    }
    print("two tasks write, and read when both have written")
    for place, (write, read) in places.items():
        seen = await read_back(write, read)
        own = place == "ContextVar"
        if seen != ("a reads a, b reads b" if own else "a reads b, b reads b"):
            raise SystemExit(f"{place}: {seen}")
        print(f"  {place:22}  {seen}")

    print("requests a and b log     and the records say")
    for message, requests in (await logged_requests("ab")).items():
        carried = message not in {"in run_in_executor", "after the block"}
        if any(requests[name] != (name if carried else "-") for name in "ab"):
            raise SystemExit(f"logged {message}: {requests}")
        print(f"  {message:22}  {requests['a']} {requests['b']}")

    # Each in a task, and so in a context, of its own.
    tasks = seen_by_child_and_parent, left_by_what_is_awaited, left_in_a_shared_context
    results = [await asyncio.create_task(task()) for task in tasks]
    if results != [
        ("at create_task", "after create_task"),
        ("coroutine's", "generator's"),
        ("first's", "-"),
    ]:
        raise SystemExit(f"seen: {results}")
    print(f"child and parent see      {', '.join(results[0])}")
    print(f"what is awaited leaves    {', '.join(results[1])}")
    print(f"create_task(context=...)  {', '.join(results[2])} elsewhere")
    resets = await asyncio.create_task(errors_of_resets())
    if resets != ("RuntimeError", "ValueError"):
        raise SystemExit(f"errors of resets: {resets}")
    print(f"token                     again {resets[0]}, in another task {resets[1]}")
    print("each record bears its own request, where the context goes along")


async def within_limit() -> None:
    async with asyncio.timeout(TIME_LIMIT):
        await demonstrate()


def main() -> None:
    asyncio.run(within_limit())


if __name__ == "__main__":
    main()
