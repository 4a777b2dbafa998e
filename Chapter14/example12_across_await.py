"""Eight tasks of one thread each deposit 1, and seven deposits are lost at an await.

Tasks take turns, but only where one of them awaits something. From one await to the
next nothing comes between; at an await anything may. So whatever was read before it may
be out of date after it. `balance += await amount()` does not look like that, but Python
reads the balance first, then awaits, then writes. Here each task waits until all have
read. There are two mends: await first, then read and write; or keep an asyncio.Lock
from the read to the write.

Check-then-act is the same with a dictionary: `if key not in cache`, then an await that
loads. All that ask meanwhile find the key missing, and all load it, which is worst when
the load is slow (cache stampede). Instead, note at once that somebody loads: keep the
task, and let the others wait for it. It belongs to none of them. Who is cancelled
waits no longer, but does not cancel the load; a load that fails is told to all who
wait, and not kept. (The package async-lru has such a cache as a decorator.)

Try:  --tasks 2

Output:
    8 tasks each deposit 1, in one thread
      balance += await amount()    balance 1, 7 lost
      the await first              balance 8
      in an asyncio.Lock           balance 8
    8 tasks ask for the same key
      if missing, await load       8 loads
      a task that all wait for     1 load
        its first is cancelled     7 get the value
        the load fails             8 get its exception,
                                   who asks after that loads again
    what was read before an await may be out of date after it
"""

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

LIMIT = 10.0  # seconds for all that happens here


class Account:
    """An account for the tasks of one event loop."""

    def __init__(self) -> None:
        self.balance = 0
        self._lock = asyncio.Lock()  # held from a read of the balance to the write

    async def deposit_broken(self, amount: Callable[[], Awaitable[int]]) -> None:
        """Add what `amount` returns; broken: others read the same balance meanwhile."""
        self.balance += await amount()  # read, await, write

    async def deposit_await_first(self, amount: Callable[[], Awaitable[int]]) -> None:
        """Add what `amount` returns."""
        arrived = await amount()
        self.balance += arrived  # no await from the read to the write

    async def deposit_locked(self, amount: Callable[[], Awaitable[int]]) -> None:
        """Add what `amount` returns; deposits wait for each other."""
        async with self._lock:
            self.balance += await amount()


class CacheBroken(Generic[K, V]):
    """Keeps what was loaded; broken: a key is loaded by all who ask before it is there.

    Args:
        load: called to get the value of a key.
    """

    def __init__(self, load: Callable[[K], Coroutine[Any, Any, V]]) -> None:
        self._load = load
        self._values: dict[K, V] = {}

    async def get(self, key: K) -> V:
        if key not in self._values:
            self._values[key] = await self._load(key)
        return self._values[key]


class CacheFixed(Generic[K, V]):
    """Keeps what was loaded; each key is loaded once. For one event loop.

    Args:
        load: called to get the value of a key, in a task of its own.
    """

    def __init__(self, load: Callable[[K], Coroutine[Any, Any, V]]) -> None:
        self._load = load
        self._loads: dict[K, asyncio.Task[V]] = {}  # under way, or successful

    async def get(self, key: K) -> V:
        """Return the value of `key`, for which it may have to be loaded.

        To cancel this does not cancel the load, for which others may wait.

        Raises:
            Exception: what the load has raised. Who asks after that loads again.
            RuntimeError: the load was cancelled.
        """
        task = self._loads.get(key)
        if task is None:  # no await until the task is noted
            task = asyncio.create_task(self._load(key))
            self._loads[key] = task
            task.add_done_callback(partial(self._drop_failed, key))
        # As a shield, it leaves the task alone if it is cancelled; but from Python 3.14
        # on a shield would also log what the task raises after that.
        await asyncio.wait([task])
        if task.cancelled():  # not who asked: to its task it would look as if it were
            raise RuntimeError(f"the load of {key} was cancelled")
        return task.result()

    def _drop_failed(self, key: K, task: "asyncio.Task[V]") -> None:
        # The exception is asked for here, since everybody who waited may be gone.
        if task.cancelled() or task.exception() is not None:
            del self._loads[key]


class Meeting:
    """Where tasks wait until `n` of them have come. Once all have, nobody waits."""

    def __init__(self, n: int) -> None:
        self._missing = n
        self.complete = asyncio.Event()

    def come(self) -> None:
        self._missing -= 1
        if self._missing == 0:
            self.complete.set()

    async def __call__(self) -> int:
        """Come and wait; return 1."""
        self.come()
        await self.complete.wait()
        return 1


async def together(n: int, one: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run `one` in each of `n` tasks; return when all have ended."""
    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(one())


async def deposit_together(n: int) -> tuple[int, int, int]:
    """Let `n` tasks deposit 1 in each of the three ways; return the balances."""
    broken, first, locked = Account(), Account(), Account()
    all_have_read, all_have_come = Meeting(n), Meeting(n)
    await together(n, lambda: broken.deposit_broken(all_have_read))
    await together(n, lambda: first.deposit_await_first(all_have_come))

    # With the lock only one can have read. That one waits for the others to come to the
    # lock, all of them: from the note that one comes to its wait there is no await.
    all_at_lock = Meeting(n)

    async def amount() -> int:
        await all_at_lock.complete.wait()
        return 1

    async def deposit() -> None:
        all_at_lock.come()
        await locked.deposit_locked(amount)

    await together(n, deposit)
    return broken.balance, first.balance, locked.balance


class Loader:
    """Loads values, and counts how often.

    Args:
        fails: whether the first load is to fail.

    Attributes:
        loads: how many were begun.
        go_on: no load ends before this is set.
    """

    def __init__(self, fails: bool = False) -> None:
        self.loads = 0
        self.go_on = asyncio.Event()
        self._fails = fails

    async def __call__(self, key: str) -> str:
        self.loads += 1
        fails = self._fails and self.loads == 1
        await self.go_on.wait()
        if fails:
            raise OSError("cannot load")
        return f"value of {key}"


async def ask_together(
    cache: CacheBroken[str, str] | CacheFixed[str, str],
    load: Loader,
    n: int,
    cancel_first: bool = False,
) -> list[str]:
    """Let `n` tasks ask for the same key before it is loaded; return what they get.

    Args:
        load: by which the cache loads.
        cancel_first: whether to cancel the one that asked first before the load ends.
    """
    all_have_asked = Meeting(n)

    async def ask() -> str:
        all_have_asked.come()
        return await cache.get("k")  # looks for the key before it awaits anything

    tasks = [asyncio.create_task(ask()) for _ in range(n)]
    await all_have_asked.complete.wait()
    if cancel_first:
        tasks[0].cancel()
        await asyncio.wait(tasks[:1])
    load.go_on.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return [one if isinstance(one, str) else type(one).__name__ for one in results]


def check(name: str, seen: object, expected: object) -> None:
    if seen != expected:
        raise SystemExit(f"{name}: {seen} instead of {expected}")


async def demonstrate(n: int) -> None:
    """Check each claim, and print it."""
    broken, first, locked = await deposit_together(n)
    print(f"{n} tasks each deposit 1, in one thread")
    print(f"  balance += await amount()    balance {broken}, {n - broken} lost")
    print(f"  the await first              balance {first}")
    print(f"  in an asyncio.Lock           balance {locked}")
    check("balances", (broken, first, locked), (1, n, n))

    print(f"{n} tasks ask for the same key")
    load = Loader()
    got = await ask_together(CacheBroken(load), load, n)
    print(f"  if missing, await load       {load.loads} loads")
    check("broken", (load.loads, got), (n, ["value of k"] * n))

    load = Loader()
    got = await ask_together(CacheFixed(load), load, n, cancel_first=True)
    print(f"  a task that all wait for     {load.loads} load")
    print(f"    its first is cancelled     {got.count('value of k')} get the value")
    check("cancelled", load.loads, 1)
    check("cancelled", got, ["CancelledError"] + ["value of k"] * (n - 1))

    load = Loader(fails=True)
    cache = CacheFixed(load)
    got = await ask_together(cache, load, n)
    again = await ask_together(cache, load, 1)
    print(f"    the load fails             {got.count('OSError')} get its exception,")
    print(f"{'':31}who asks after that loads again")
    check("failed", got, ["OSError"] * n)
    check("failed", (load.loads, again), (2, ["value of k"]))
    print("what was read before an await may be out of date after it")


async def within_limit(n: int) -> None:
    async with asyncio.timeout(LIMIT):
        # In a task of its own: before Python 3.13, a TaskGroup may leave its task
        # marked as cancelled, and Ctrl-C would come out as a CancelledError.
        await asyncio.create_task(demonstrate(n))


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=some, default=8)
    n_tasks = parser.parse_args().tasks
    try:
        asyncio.run(within_limit(n_tasks))
    except TimeoutError:
        raise SystemExit(f"not done in {LIMIT:g} s") from None


if __name__ == "__main__":
    main()
