"""Each thread sees its own attributes of a `threading.local`, and no other thread's.

That suits what must not be shared and is expensive to make: a connection, a buffer, a
random generator. A subclass with `__init__` makes it on first use, once in each thread.

The trap: such data belong to the thread, not to the task. The threads of a pool live
on, and the next task finds what the last one left behind, perhaps the name of another
user. What belongs to a task is better kept in a `contextvars.ContextVar`. A task that
is run by `copy_context().run` sees the values of whoever submitted it, and what it sets
is gone when it ends. Without that, a new thread begins with an empty context; only
where `sys.flags.thread_inherit_context` is set, as it is from 3.14 on in builds without
a GIL, it begins with a copy of its starter's.

Output:
    3 threads write an attribute, and read it when all have written
      SimpleNamespace    1 reads its own
      threading.local    3 read their own
      OwnRandom          3 draw the same numbers, each its own
    one thread does a task for alice, then one for nobody
      threading.local    the second takes alice for its user
      ContextVar         the first sees alice, the second nobody
    data of a thread stay in the thread, data of a task go with its context
"""

import random
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from contextvars import ContextVar, copy_context
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

N_THREADS = 3
LIMIT = 10.0  # seconds until all threads must have begun
SEED = 3

# A context variable is made once, at module level; its values belong to contexts.
USER: ContextVar[str] = ContextVar("USER", default="nobody")

P = ParamSpec("P")
R = TypeVar("R")


class OwnRandom(threading.local):
    """A random generator for each thread; all of them begin with the same seed.

    That is to show that none disturbs another. Threads of a simulation need different
    seeds, as from `numpy.random.SeedSequence.spawn`.
    """

    def __init__(self, seed: int) -> None:
        # Called again in each thread that comes here for the first time.
        self.generator = random.Random(seed)


def submit_in_context(
    pool: Executor, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> Future[R]:
    """Like `pool.submit`, but the task runs in a copy of the caller's context.

    It sees the caller's context variables; what it sets is gone when it ends. `pool`
    is one of threads: a context cannot be sent to a process.
    """
    context = copy_context()
    return pool.submit(lambda: context.run(function, *args, **kwargs))


def in_threads(function: Callable[[Callable[[], object]], R]) -> list[R]:
    """Call `function(meet)` in N_THREADS threads at once, and return the results.

    A thread that calls `meet()` waits until all have called it.
    """
    barrier = threading.Barrier(N_THREADS, timeout=LIMIT)
    with ThreadPoolExecutor(N_THREADS) as pool:
        try:
            futures = [pool.submit(function, barrier.wait) for _ in range(N_THREADS)]
            return [future.result() for future in as_completed(futures)]
        except BaseException:  # a function has failed, or Ctrl-C has come
            barrier.abort()  # or the others would wait for those who do not come
            raise


def read_back(data: Any) -> int:
    """Let threads write an attribute, all at once; return how many read their own."""

    def write_then_read(meet: Callable[[], object]) -> bool:
        data.owner = threading.get_ident()
        meet()  # now all have written
        return bool(data.owner == threading.get_ident())

    return sum(in_threads(write_then_read))


def draw_in_turn(own: OwnRandom) -> list[tuple[float, float]]:
    """Let each of some threads draw two numbers, with those of the others between."""

    def draw(meet: Callable[[], object]) -> tuple[float, float]:
        first = own.generator.random()
        meet()
        return first, own.generator.random()

    return in_threads(draw)


def seen_after_alice() -> str:
    """Run a task for alice, then one for nobody, in one thread of a pool.

    Return the user that the second finds in a `threading.local`.
    """
    session = threading.local()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(setattr, session, "user", "alice").result()
        return pool.submit(getattr, session, "user", "nobody").result()


def seen_in_contexts() -> tuple[str, str]:
    """Return the users that two such tasks find in a context variable."""
    with ThreadPoolExecutor(1) as pool:
        token = USER.set("alice")
        try:
            first = submit_in_context(pool, USER.get).result()
            submit_in_context(pool, USER.set, "mallory").result()
        finally:
            USER.reset(token)
        return first, submit_in_context(pool, USER.get).result()


def seen_by_new_thread() -> str:
    """Return the user that a thread sees which alice has started."""
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(USER.get()))
    token = USER.set("alice")
    try:
        thread.start()
    finally:
        USER.reset(token)
    thread.join()
    return seen[0]


def main() -> None:
    common, local = read_back(SimpleNamespace()), read_back(threading.local())
    print(f"{N_THREADS} threads write an attribute, and read it when all have written")
    print(f"  SimpleNamespace    {common} reads its own")
    print(f"  threading.local    {local} read their own")
    if (common, local) != (1, N_THREADS):
        raise SystemExit("one should have read its own, then all of them")

    alone = random.Random(SEED)
    expected = (alone.random(), alone.random())
    if draw_in_turn(OwnRandom(SEED)) != [expected] * N_THREADS:
        raise SystemExit("a thread drew from the generator of another")
    print(f"  OwnRandom          {N_THREADS} draw the same numbers, each its own")

    session, contexts = seen_after_alice(), seen_in_contexts()
    print("one thread does a task for alice, then one for nobody")
    print(f"  threading.local    the second takes {session} for its user")
    print(
        f"  ContextVar         the first sees {contexts[0]}, the second {contexts[1]}"
    )
    if session != "alice" or contexts != ("alice", "nobody"):
        raise SystemExit("only the thread-local user should have been left behind")

    inherits = getattr(sys.flags, "thread_inherit_context", 0)  # from 3.14
    if seen_by_new_thread() != ("alice" if inherits else "nobody"):
        raise SystemExit("a new thread should begin with the context that flags say")
    print("data of a thread stay in the thread, data of a task go with its context")


if __name__ == "__main__":
    main()
