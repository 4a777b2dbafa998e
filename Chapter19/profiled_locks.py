"""Locks that record who waited for whom, how long, and where.

Each acquisition leaves one record: who, in which function, asked for when, had from
when to when. All else is computed from that. A wait is divided among those who had the
lock while it lasted, so that the one to blame is found even if the lock has changed
hands in between. What is left of a wait is the hand-over, when nobody has the lock.

Whoever waits cannot say for whom: the lock may go from hand to hand meanwhile. And
nothing here needs a lock of its own: whoever has the lock makes the record.

For threads there is ProfiledLock, for tasks ProfiledTaskLock, and `stepped`, which
records when a task runs. They cost microseconds; example22 measures it. A program that
was not prepared can be asked by `py-spy dump` where its threads wait; ask repeatedly.

Output:
    baton: taken 4 times, waited for 3 times
    B waits for A: 0.08 ms
    C waits for B: 0.02 ms
    D waits for C: 0.02 ms
    0.09 ms are nobody's: the lock is handed over
    each waits for the one before, and for nobody else
"""

import asyncio
import sys
import threading
import time
import types
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar

LIMIT = 30.0  # seconds for what should take none

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Use:
    """One acquisition of a lock. Times are those of `perf_counter`, in seconds.

    Attributes:
        who: the thread's or task's name.
        function: the one that asked for the lock.
        waited: whether it found the lock taken.
    """

    lock: str
    who: str
    function: str
    waited: bool
    asked: float
    got: float
    released: float


@dataclass(frozen=True, slots=True)
class Step:
    """When a task ran between two of its waits, or a thread did something; as above."""

    who: str
    began: float
    ended: float


class Profile:
    """What locks and tasks have recorded, in the order in which it ended.

    Both lists only grow, by `append`, which needs no lock.
    """

    def __init__(self) -> None:
        self.uses: list[Use] = []
        self.steps: list[Step] = []

    @contextmanager
    def step(self, who: str) -> Iterator[None]:
        """Record when the block began and ended, however it ended."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.steps.append(Step(who, began, time.perf_counter()))


class _Recorder:
    """What the two kinds of locks have in common.

    Args:
        on_wait: called before each wait. It lets a caller know of contention.
    """

    def __init__(
        self, name: str, profile: Profile, on_wait: Callable[[], object] = lambda: None
    ) -> None:
        self._name = name
        self._profile = profile
        self._on_wait = on_wait
        # Of who has the lock, and guarded by it: all that is known of a Use by then.
        self._current: tuple[str, str, bool, float, float] | None = None

    def _note_got(self, who: str, function: str, waited: bool, asked: float) -> None:
        self._current = who, function, waited, asked, time.perf_counter()

    def _note_release(self) -> None:
        if self._current is None:
            raise RuntimeError(f"nobody holds {self._name}")
        use = Use(self._name, *self._current, time.perf_counter())
        self._current = None
        self._profile.uses.append(use)


class ProfiledLock(_Recorder):
    """A lock for threads that records its uses in a profile."""

    def __init__(
        self, name: str, profile: Profile, on_wait: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(name, profile, on_wait)
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock; return whether that was possible at all, or in time.

        Args:
            blocking: whether to wait for it.
            timeout: seconds to wait at most; -1 means for ever.
        """
        return self._acquire(sys._getframe(1).f_code.co_name, blocking, timeout)

    def _acquire(self, function: str, blocking: bool, timeout: float) -> bool:
        asked = time.perf_counter()
        waited = not self._lock.acquire(blocking=False)
        if waited:
            if not blocking:
                return False
            self._on_wait()
            if not self._lock.acquire(timeout=timeout):
                return False
        self._note_got(threading.current_thread().name, function, waited, asked)
        return True

    def release(self) -> None:
        """Let another thread in, and record the use that ends.

        Raises:
            RuntimeError: nobody holds the lock.
        """
        self._note_release()
        self._lock.release()

    def __enter__(self) -> None:
        self._acquire(sys._getframe(1).f_code.co_name, True, -1)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class ProfiledTaskLock(_Recorder):
    """A lock for tasks, with `async with` only, that records its uses in a profile."""

    def __init__(
        self, name: str, profile: Profile, on_wait: Callable[[], object] = lambda: None
    ) -> None:
        super().__init__(name, profile, on_wait)
        self._lock = asyncio.Lock()
        self._n_waiting = 0

    async def __aenter__(self) -> None:
        function = sys._getframe(1).f_code.co_name
        asked = time.perf_counter()
        # A lock that was released is not free if somebody is about to be given it.
        waited = self._lock.locked() or self._n_waiting > 0
        if waited:
            self._on_wait()
        self._n_waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._n_waiting -= 1
        self._note_got(name_of_task(), function, waited, asked)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._note_release()
        self._lock.release()


def name_of_task() -> str:
    task = asyncio.current_task()
    assert task is not None, "only a task can wait"
    return task.get_name()


async def stepped(
    profile: Profile,
    function: Callable[..., Coroutine[Any, Any, T]],
    *arguments: object,
) -> T:
    """Await what `function` returns; record when it runs, between its waits."""
    return await _steps(profile, function(*arguments))


@types.coroutine
def _steps(
    profile: Profile, coroutine: Coroutine[Any, Any, T]
) -> Generator[Any, Any, T]:
    resume: Callable[[Any], Any] = coroutine.send
    value: Any = None
    who = name_of_task()
    while True:
        with profile.step(who):
            try:
                future = resume(value)
            except StopIteration as end:
                result: T = end.value
                return result
        try:
            value = yield future
            resume = coroutine.send
        except BaseException as error:  # a cancel, for one, which is for the coroutine
            resume, value = coroutine.throw, error


# -- what can be computed from it


@dataclass(frozen=True, slots=True)
class Total:
    """How many waits there were, and how many seconds they lasted."""

    waits: int = 0
    seconds: float = 0.0

    def and_a_wait_of(self, seconds: float) -> "Total":
        return Total(self.waits + 1, self.seconds + seconds)


def function_of(use: Use) -> str:
    return use.function


def blame(
    uses: Iterable[Use], by: Callable[[Use], str] = function_of
) -> dict[tuple[str, str, str], Total]:
    """Divide each wait among those who had the lock while it lasted.

    Args:
        by: what to call who waits and who is to blame, as the function or the thread.

    Returns:
        The totals by lock, who waited, and who had the lock; the longest first.
    """
    totals: defaultdict[tuple[str, str, str], Total] = defaultdict(Total)
    earlier: defaultdict[str, list[Use]] = defaultdict(list)
    for use in sorted(uses, key=lambda use: use.got):
        holders = earlier[use.lock]
        for holder in reversed(holders) if use.waited else ():
            if holder.released < use.asked:
                break  # and so were those before
            shared = holder.released - max(holder.got, use.asked)
            key = use.lock, by(use), by(holder)
            totals[key] = totals[key].and_a_wait_of(shared)
        holders.append(use)
    return dict(sorted(totals.items(), key=lambda item: -item[1].seconds))


def by_lock(uses: Iterable[Use]) -> dict[str, tuple[int, Total]]:
    """Return by lock how often it was taken, and how it was waited for."""
    taken: defaultdict[str, int] = defaultdict(int)
    waits: defaultdict[str, Total] = defaultdict(Total)
    for use in uses:
        taken[use.lock] += 1
        if use.waited:
            waits[use.lock] = waits[use.lock].and_a_wait_of(use.got - use.asked)
    return {lock: (taken[lock], waits[lock]) for lock in sorted(taken)}


# -- a lock that goes from hand to hand


def pass_on(names: Sequence[str]) -> list[Use]:
    """Let threads have a lock one after the other, each until the next one waits."""
    profile, waits = Profile(), threading.Semaphore(0)
    baton = ProfiledLock("baton", profile, waits.release)
    has_it = [threading.Event() for _ in names]

    def run(n: int) -> None:
        threading.current_thread().name = names[n]
        with baton:
            has_it[n].set()
            if n + 1 < len(names):
                waits.acquire(timeout=LIMIT)

    with ThreadPoolExecutor(len(names)) as pool:
        futures = []
        try:
            for n, taken in enumerate(has_it):
                futures.append(pool.submit(run, n))
                taken.wait(LIMIT)
            for future in futures:
                future.result()
        except BaseException:  # Ctrl-C, for one: let go of the baton
            waits.release(len(names))
            raise
    return profile.uses


def main() -> None:
    uses = pass_on("ABCD")
    for lock, (taken, total) in by_lock(uses).items():
        print(f"{lock}: taken {taken} times, waited for {total.waits} times")
    totals = blame(uses, by=lambda use: use.who)
    for (_, waiter, holder), total in sorted(totals.items()):
        print(f"{waiter} waits for {holder}: {total.seconds * 1000:.2f} ms")
    if [key[1:] for key in sorted(totals)] != [("B", "A"), ("C", "B"), ("D", "C")]:
        raise SystemExit("each was to wait for the one before")
    waited = sum(use.got - use.asked for use in uses if use.waited)
    blamed = sum(total.seconds for total in totals.values())
    print(f"{1000 * (waited - blamed):.2f} ms are nobody's: the lock is handed over")
    print("each waits for the one before, and for nobody else")


if __name__ == "__main__":
    main()
