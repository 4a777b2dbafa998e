"""An event loop from scratch: timers, sockets, tasks, `await`, cancellation.

All there is to an event loop is one `while`: sleep until a timer is due or a socket can
be used, then call whoever waits for it. The rest is bookkeeping about who that is. A
`Future` is a result that will come. To await it means to yield it, through all the
coroutines that await one another, to the `Task` that runs them; the task asks the
future to call it back, and returns to the loop. To cancel a task means to cancel the
future that it waits for, so that the exception comes out of the task's `await`.

Names and order of events are asyncio's. Left out are threads, debug mode and context
variables; only one task at a time may wait for a socket; and nobody is told of the
exception of a task that nobody awaits. In exchange, this loop knows when it waits in
vain: if nothing is ready, no timer runs and no socket is waited for, nothing can ever
happen again. It says so, where asyncio hangs.

Sources: PEP 492 (await), PEP 3156 (asyncio), CPython's `Lib/asyncio`.

Output:
                          this loop                     asyncio
    timers of 3, 1, 2 ms  rung in the order [1, 2, 3]   rung in the order [1, 2, 3]
    results               9 + 16, in turns              9 + 16, in turns
    an exception          ValueError from below         ValueError from below
    a cancelled wait      cleaned up, CancelledError    cleaned up, CancelledError
    a deadlock            all wait, and nothing is left to happen
    4 programs, on both loops the same
"""

import asyncio
import heapq
import os
import selectors
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")

LONG = 60.0  # seconds that nobody waits
LONGEST_WAIT = 86_400.0  # seconds; systems have a limit of their own


class CancelledError(BaseException):
    """Comes out of the `await` at which a task was cancelled."""


class Future(Generic[T]):
    """A result that will come: a value or an exception. `await` it, or ask for it."""

    def __init__(self, loop: "Loop") -> None:
        self._loop = loop
        self.when_done: list[Callable[[Any], object]] = []  # the loop calls them
        self._done = False
        self._value: T | None = None
        self._error: BaseException | None = None

    def done(self) -> bool:
        return self._done

    def result(self) -> T:
        """Return the value, or raise the exception, once it has come."""
        assert self._done, "it has not come yet"
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def set_result(self, value: T) -> None:
        self._finish(value, None)

    def set_exception(self, error: BaseException) -> None:
        self._finish(None, error)

    def _finish(self, value: T | None, error: BaseException | None) -> None:
        assert not self._done, "a result comes once"
        self._value, self._error, self._done = value, error, True
        for function in self.when_done:
            self._loop.call_soon(function, self)

    def cancel(self) -> bool:
        """Let whoever waits get a CancelledError; return False if it is too late."""
        if self._done:
            return False
        self.set_exception(CancelledError())
        return True

    def __await__(self) -> "Generator[Future[T], None, T]":
        if not self._done:
            yield self  # to Task._step, which comes back when the result is there
        return self.result()


class Turn:
    """Awaited, it lets everybody else who is ready have a turn."""

    def __await__(self) -> Generator[None, None, None]:
        yield


class Task(Future[T]):
    """A coroutine that the loop runs; the result is what it returns or raises."""

    def __init__(self, loop: "Loop", coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__(loop)
        self._coroutine = coroutine
        self._waits_for: Future[Any] | None = None  # or, running, has waited for
        self._to_be_cancelled = False
        self._asking = False
        loop.call_soon(self._step)

    def cancel(self) -> bool:
        """Let the `await` at which the coroutine is raise a CancelledError.

        The coroutine may clean up, awaiting, and may even go on. Return False if it has
        ended.
        """
        if self._done:
            return False
        if self._asking:  # a circle: none of it would ever take a step
            assert self._waits_for is not None
            self._waits_for.when_done.remove(self._step)
            self._waits_for = None
            self._to_be_cancelled = True
            self._loop.call_soon(self._step)
            return True
        self._asking = True
        if self._waits_for is None or not self._waits_for.cancel():
            self._to_be_cancelled = True  # at its next step, which is about to come
        self._asking = False
        return True

    def _step(self, _: Future[Any] | None = None) -> None:
        """Run the coroutine to the next `await` that has to wait, or to its end."""
        try:
            if self._to_be_cancelled:
                self._to_be_cancelled = False
                waits_for = self._coroutine.throw(CancelledError())
            else:
                waits_for = self._coroutine.send(None)
        except StopIteration as end:
            if self._to_be_cancelled:  # by itself, and there was no await after that
                self.set_exception(CancelledError())
            else:
                self.set_result(end.value)
        except BaseException as error:
            self.set_exception(error)
            if not isinstance(error, Exception | CancelledError):
                raise  # Ctrl-C ends the loop as well
        else:
            if waits_for is None:  # a Turn
                self._loop.call_soon(self._step)
                return
            self._waits_for = waits_for
            waits_for.when_done.append(self._step)
            if self._to_be_cancelled:  # by itself, before this await
                self._to_be_cancelled = not waits_for.cancel()


@contextmanager
def handling_ctrl_c(handler: Callable[..., object]) -> Iterator[None]:
    """Call `handler` at Ctrl-C, where Python would raise KeyboardInterrupt."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not (in_main_thread and usual):
        yield
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Loop:
    """Runs tasks in turn, in one thread: each until it has to wait."""

    def __init__(self) -> None:
        self._ready: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        # A heap, the earliest first. The number keeps those of equal time in order.
        self._timers: list[tuple[float, int, Future[None]]] = []
        self._numbers = count()
        self._waiting = self._interrupted = False
        self._selector = selectors.DefaultSelector()
        self._tasks: dict[Task[Any], None] = {}  # those that have not ended, in order

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` and all tasks that it starts; return what it returns.

        Tasks that are left when it has ended are cancelled, and run to their end.

        Raises:
            RuntimeError: it waits for what can never happen.
        """
        main = self.create_task(coroutine)
        with self._selector, handling_ctrl_c(self._interrupt):
            try:
                while not main.done():
                    self._run_once()
            finally:
                for task in self._tasks:
                    task.cancel()
                while self._tasks:
                    self._run_once()
        return main.result()

    def _run_once(self) -> None:
        """Wait until something is ready, then call all that is."""
        while self._timers and self._timers[0][2].done():
            heapq.heappop(self._timers)  # cancelled
        due = self._timers[0][0] - time.monotonic() if self._timers else None
        for future in self._wait(0 if self._ready else due):
            self.call_soon(self._wake, future)
        while self._timers and self._timers[0][0] <= time.monotonic():
            self.call_soon(self._wake, heapq.heappop(self._timers)[2])
        for _ in range(len(self._ready)):  # what these add is for the next round
            function, arguments = self._ready.popleft()
            function(*arguments)

    def _wait(self, timeout: float | None) -> list[Future[None]]:
        """Wait until a socket is usable, or for `timeout`; return who waits for it."""
        try:
            self._waiting = True
            if self._interrupted:
                raise KeyboardInterrupt
            if timeout is not None:
                timeout = min(max(0, timeout), LONGEST_WAIT)
            if self._selector.get_map():
                return [key.data for key, _ in self._selector.select(timeout)]
            if timeout is None:
                raise RuntimeError("all wait, and nothing is left to happen")
            time.sleep(timeout)  # Windows cannot select from nothing
            return []
        finally:
            self._interrupted = self._waiting = False

    def _interrupt(self, *_: object) -> None:
        # Ctrl-C comes out of the waiting. Raised in a callback, or between two, it
        # would lose the steps of tasks. A second one does not wait.
        if self._waiting or self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True

    def _wake(self, future: Future[None]) -> None:
        if not future.done():  # cancelled since
            future.set_result(None)

    def call_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call `function(*arguments)` after all that is ready before it."""
        self._ready.append((function, arguments))

    def create_task(self, coroutine: Coroutine[Any, Any, T]) -> Task[T]:
        """Let `coroutine` begin in the next round; return the task, to be awaited."""
        task = Task(self, coroutine)
        self._tasks[task] = None
        task.when_done.append(self._tasks.pop)
        return task

    async def sleep(self, seconds: float) -> None:
        """Let others run for at least `seconds`; for 0, let each have a turn."""
        if seconds > 0:
            await self.sleep_until(time.monotonic() + seconds)
        else:
            await Turn()

    async def sleep_until(self, when: float) -> None:
        """Let others run until `time.monotonic()` is at least `when`."""
        future = Future[None](self)
        heapq.heappush(self._timers, (when, next(self._numbers), future))
        await future

    async def _usable(self, sock: socket.socket, event: int) -> None:
        """Wait until `sock`, for which nobody else waits, can be read or written."""
        future = Future[None](self)
        self._selector.register(sock, event, future)
        try:
            await future
        finally:
            self._selector.unregister(sock)

    async def _retry(
        self, sock: socket.socket, event: int, call: Callable[..., T], *arguments: Any
    ) -> T:
        while True:
            try:
                return call(*arguments)
            except BlockingIOError:
                await self._usable(sock, event)

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Wait for a client; return the connection, which does not block, and address.

        As in all these: `sock` must not block, and OSError is what the socket raises.
        """
        connection, address = await self._retry(sock, EVENT_READ, sock.accept)
        connection.setblocking(False)
        return connection, address

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        with suppress(BlockingIOError):
            sock.connect(address)
        await self._usable(sock, EVENT_WRITE)
        if error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(error, os.strerror(error))

    async def sock_recv(self, sock: socket.socket, size: int) -> bytes:
        return await self._retry(sock, EVENT_READ, sock.recv, size)

    async def sock_sendall(self, sock: socket.socket, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[await self._retry(sock, EVENT_WRITE, sock.send, rest) :]


class Asyncio:
    """What the programs below use of asyncio, under the names of `Loop`."""

    create_task = staticmethod(asyncio.create_task)
    sleep = staticmethod(asyncio.sleep)

    async def sleep_until(self, when: float) -> None:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_at(when, future.set_result, None)
        await future


async def timers(loop: Any) -> str:
    """Set timers in another order than that of their times."""
    now, rung = time.monotonic(), []

    async def ring(milliseconds: int) -> None:
        await loop.sleep_until(now + milliseconds / 1000)
        rung.append(milliseconds)

    for task in [loop.create_task(ring(ms)) for ms in (3, 1, 2)]:
        await task
    return f"rung in the order {rung}"


async def result(loop: Any) -> str:
    """Await two tasks that take turns."""
    turns = []

    async def square(number: int) -> int:
        for turn in range(2):
            turns.append((number, turn))
            await loop.sleep(0)
        return number**2

    tasks = [loop.create_task(square(number)) for number in (3, 4)]
    squares = [await task for task in tasks]
    assert turns == [(3, 0), (4, 0), (3, 1), (4, 1)], turns
    return f"{squares[0]} + {squares[1]}, in turns"


async def exception(loop: Any) -> str:
    """Await a task that fails, two coroutines below."""

    async def fail() -> None:
        await loop.sleep(0)
        raise ValueError("from below")

    async def between() -> None:
        await fail()

    try:
        await loop.create_task(between())
    except ValueError as error:
        return f"ValueError {error}"
    return "lost"


async def cancellation(loop: Any) -> str:
    """Cancel a task that waits, and that awaits once more while it cleans up."""
    notes = []

    async def wait() -> None:
        try:
            await loop.sleep(LONG)
        finally:
            await loop.sleep(0.001)
            notes.append("cleaned up")

    task = loop.create_task(wait())
    await loop.sleep(0)  # it begins to wait
    assert task.cancel()
    try:
        await task
    except BaseException as error:
        notes.append(type(error).__name__)
    return ", ".join(notes)


async def vain(loop: Any) -> None:
    """Let a task wait for one that waits for it."""
    tasks: list[Any] = []

    async def wait_for(other: int) -> None:
        await tasks[other]

    tasks += [loop.create_task(wait_for(1)), loop.create_task(wait_for(0))]
    await tasks[0]


PROGRAMS = {
    "timers of 3, 1, 2 ms": timers,
    "results": result,
    "an exception": exception,
    "a cancelled wait": cancellation,
}


def main() -> None:
    with asyncio.Runner() as runner:
        print(f"{'':22}{'this loop':30}asyncio")
        for name, program in PROGRAMS.items():
            loop = Loop()
            ours, theirs = loop.run(program(loop)), runner.run(program(Asyncio()))
            print(f"{name:22}{ours:30}{theirs}")
            if ours != theirs:
                raise SystemExit("the two loops differ")

    loop = Loop()
    try:
        loop.run(vain(loop))
    except RuntimeError as error:
        print(f"{'a deadlock':22}{error}")
    else:
        raise SystemExit("the deadlock was not found")
    print(f"{len(PROGRAMS)} programs, on both loops the same")


if __name__ == "__main__":
    main()
