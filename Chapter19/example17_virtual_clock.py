"""Tests of time-outs, retries and periodic jobs take no time: the loop's clock jumps.

An event loop waits only if nothing is ready, and then until its next timer. A loop that
does not wait there, but sets its clock to that timer, runs the same callbacks in the
same order as on an idle machine, and a day of it takes milliseconds. All times are
exact, so a test can ask for equality, and finds the job that drifts.

And it knows when nothing can happen any more: nothing is ready and no timer is set.
Under a real loop that test hangs. Here it fails, and says who waits where.

What a virtual clock cannot know is how long the outside takes. So while a thread works
for the loop (`to_thread`, `run_in_executor`) the clock stands still: its work takes no
time, and no time-out hits it. Sockets, pipes and child processes are refused; hand the
code under test a StreamReader that the test feeds, instead of a connection. Code that
asks `time.monotonic()` is not deceived: let it ask `loop.time()`.

Libraries: looptime (for pytest) and aiotools have such clocks for asyncio; trio has its
own, `trio.testing.MockClock`.

Try:  --days 365

Output:
    time-out, back-off  attempts at 0 31 33 37 45
    a periodic job      144 runs of 144; by sleeping 133
    a thread            has worked, and the clock has stood still
    a connection        no real I/O under a virtual clock: create_connection()
    a deadlock          nothing is ready, and no timer is set
                        A waits in forward() > Queue.get()
                        B waits in forward() > Queue.get()
                        main waits in wait_for_each_other()
    more than 2 days of the clock took 160 ms
"""

import argparse
import asyncio
import contextvars
import inspect
import math
import queue
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

LIMIT = 10.0  # seconds of real time that threads may take
DAY = 86_400  # seconds
PERIOD, JOB = 600, 50  # seconds from run to run of a job, and of one run
WORK = 0.02  # seconds, of real time, that a thread works

REFUSED = (
    *("add_reader", "add_writer", "add_signal_handler"),
    *("sock_recv", "sock_recv_into", "sock_recvfrom", "sock_recvfrom_into"),
    *("sock_sendall", "sock_sendto", "sock_sendfile", "sock_connect", "sock_accept"),
    *("create_connection", "create_server", "create_datagram_endpoint"),
    *("create_unix_connection", "create_unix_server", "connect_accepted_socket"),
    *("connect_read_pipe", "connect_write_pipe", "sendfile", "start_tls"),
    *("subprocess_exec", "subprocess_shell"),
)


class NothingCanHappenError(RuntimeError):
    """All tasks wait for each other: nothing is ready, and no timer is set."""


class VirtualClockLoop(asyncio.BaseEventLoop):
    """An event loop whose time, in seconds from 0, jumps from timer to timer.

    It has no descriptor, and no I/O: what asks for it raises NotImplementedError.

    A wait of the loop raises NothingCanHappenError if it would never end, and
    TimeoutError if the clock stands still for LIMIT seconds.
    """

    _scheduled: list[asyncio.TimerHandle]  # the heap of timers of BaseEventLoop

    def __init__(self) -> None:
        super().__init__()
        self._set_time(0.0)
        self._standing = 0  # reasons for the clock to stand still
        # Filled by any thread, and by signal handlers. SimpleQueue allows for both.
        self._wake_ups: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._selector = self  # what BaseEventLoop asks to wait, by select()
        for name in REFUSED:
            setattr(self, name, _refusal(name))

    def time(self) -> float:
        return self._now

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        if when == math.inf:  # never: a timer that is not set
            return asyncio.TimerHandle(when, callback, args, self, context)
        return super().call_at(when, callback, *args, context=context)

    def select(self, timeout: float | None) -> list[Any]:
        """Let time pass, instead of waiting for events; return those, none.

        Args:
            timeout: seconds to the next timer; None if there is none. 0 if something is
                ready, or the loop stops.
        """
        if timeout == 0:
            return []
        try:
            # What another thread has called in the meantime comes before any timer.
            self._wake_ups.get(timeout=LIMIT if self._standing else 0)
        except queue.Empty:
            if self._standing:
                raise TimeoutError(f"a thread works for {LIMIT:g} s") from None
            if timeout is None:
                raise NothingCanHappenError(self._who_waits()) from None
            self._set_time(self._scheduled[0].when())  # time() + timeout is rounded
        return []

    def _set_time(self, now: float) -> None:
        self._now = now
        # A timer is due before time() plus that: so exactly when its time has come.
        # The real clock's resolution would be rounded away after a year.
        self._clock_resolution = math.ulp(now)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop the clock for a block: something that has no timer is being awaited.

        Needed only for threads that the loop has not started itself.
        """
        self._standing += 1
        try:
            yield
        finally:
            self._standing -= 1

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        future = super().run_in_executor(executor, func, *args)
        self._standing += 1
        future.add_done_callback(self._has_ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        # The time-out of Python 3.12 is one of real time: LIMIT is in its place.
        with self.standing_still():
            await super().shutdown_default_executor()

    def _has_ended(self, _: object) -> None:
        self._standing -= 1

    def _who_waits(self) -> str:
        lines = sorted(
            f"{task.get_name()} waits in {_where(task)}"
            for task in asyncio.all_tasks(self)
        )
        return "\n".join(["nothing is ready, and no timer is set", *lines])

    # What BaseEventLoop leaves to its subclasses.

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        self._wake_ups.put(None)


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise NotImplementedError(f"no real I/O under a virtual clock: {name}()")

    return refuse


def _where(task: "asyncio.Task[Any]") -> str:
    """Return the names of the coroutines that a task is in, the innermost last."""
    names = []
    coroutine: Any = task.get_coro()
    while inspect.iscoroutine(coroutine):
        names.append(f"{coroutine.__qualname__}()")
        coroutine = coroutine.cr_await
    return " > ".join(names)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, as asyncio.run does, under a virtual clock that begins at 0."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(main)


def in_range(least: int, most: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in `least` … `most`."""

    def whole_number(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(
                f"must be in {least} … {most}, not {number}"
            )
        return number

    return whole_number


# What is tested: each of them knows the time by the loop only.


async def retry(
    attempt: Callable[[], Awaitable[T]], attempts: int, delay: float, limit: float
) -> T:
    """Await `attempt()` until it succeeds; after each failure wait twice as long.

    Args:
        attempts: how many to make at most; at least one.
        delay: seconds after the first.
        limit: seconds that an attempt may take.

    Raises:
        OSError: what the last attempt raised; TimeoutError is one, too.
    """
    for n in range(attempts - 1):
        with suppress(OSError):
            async with asyncio.timeout(limit):
                return await attempt()
        await asyncio.sleep(delay * 2**n)
    async with asyncio.timeout(limit):
        return await attempt()


async def ticks_broken(period: float) -> AsyncGenerator[None, None]:
    """Yield every `period` seconds, plus the time that the caller takes each time."""
    while True:
        yield
        await asyncio.sleep(period)


async def ticks_fixed(period: float) -> AsyncGenerator[None, None]:
    """Yield every `period` seconds; what a slow caller has missed is left out.

    Each time is computed from the first one, so that no delay adds up.
    """
    now = asyncio.get_running_loop().time
    start, n = now(), 0
    while True:
        yield
        n = max(n + 1, math.ceil((now() - start) / period))
        await asyncio.sleep(start + n * period - now())


# The tests.


async def times_of_attempts() -> list[float]:
    """Let one attempt get no answer, and three be refused; return when each began."""
    now = asyncio.get_running_loop().time
    times: list[float] = []

    async def attempt() -> None:
        times.append(now())
        if len(times) == 1:
            await asyncio.sleep(math.inf)
        if len(times) <= 4:
            raise ConnectionRefusedError

    await retry(attempt, attempts=5, delay=1, limit=30)
    return times


async def times_of_runs(
    ticks: Callable[[float], AsyncGenerator[None, None]], until: float
) -> list[float]:
    """Run a job of JOB seconds every PERIOD seconds; return when each run began."""
    now = asyncio.get_running_loop().time
    times: list[float] = []
    async with aclosing(ticks(PERIOD)) as its_turn:
        async for _ in its_turn:
            if now() >= until:
                break
            times.append(now())
            await asyncio.sleep(JOB)
    return times


async def work_in_a_thread() -> float:
    """Let a thread work for WORK seconds, beside a timer; return when it has ended."""
    async with asyncio.timeout(WORK / 2):
        await asyncio.to_thread(time.sleep, WORK)
    return asyncio.get_running_loop().time()


async def connect() -> None:
    await asyncio.open_connection("localhost", 80)


async def forward(source: "asyncio.Queue[int]", sink: "asyncio.Queue[int]") -> None:
    await sink.put(await source.get())


async def wait_for_each_other() -> None:
    """Let two tasks await what only the other one would do."""
    this = asyncio.current_task()
    assert this is not None
    this.set_name("main")
    one: asyncio.Queue[int] = asyncio.Queue()
    other: asyncio.Queue[int] = asyncio.Queue()
    a = asyncio.create_task(forward(one, other), name="A")
    b = asyncio.create_task(forward(other, one), name="B")
    await a
    await b


def complaint_about(main: Coroutine[Any, Any, object]) -> str:
    """Run what cannot be run; return what is said of it."""
    try:
        run(main)
    except (NothingCanHappenError, NotImplementedError) as error:
        return str(error)
    raise SystemExit("what cannot be run was to be told")


def expect(what: str, value: object, expected: object) -> None:
    if value != expected:
        raise SystemExit(f"{what}: {value}, not {expected}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--days", type=in_range(1, 365), default=1)
    days: int = parser.parse_args().days

    began = time.perf_counter()
    times = run(times_of_attempts())
    expect("attempts", times, [0, 31, 33, 37, 45])
    print(f"time-out, back-off  attempts at {' '.join(f'{t:g}' for t in times)}")

    drifted = run(times_of_runs(ticks_broken, days * DAY))
    exact = run(times_of_runs(ticks_fixed, days * DAY))
    n = round(days * DAY / PERIOD)
    expect("runs", exact, [k * PERIOD for k in range(n)])
    expect("runs with a drift", len(drifted), math.ceil(days * DAY / (PERIOD + JOB)))
    print(f"a periodic job      {len(exact)} runs of {n}; by sleeping {len(drifted)}")

    expect("the time after a thread's work", run(work_in_a_thread()), 0)
    print("a thread            has worked, and the clock has stood still")
    print(f"a connection        {complaint_about(connect())}")
    deadlock = complaint_about(wait_for_each_other()).replace("\n", "\n" + " " * 20)
    print(f"a deadlock          {deadlock}")
    took = time.perf_counter() - began
    print(f"more than {2 * days} days of the clock took {took * 1000:.0f} ms")


if __name__ == "__main__":
    main()
