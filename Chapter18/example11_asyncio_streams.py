"""The calculator on asyncio streams: the library's event loop, and the same limits.

Each client has a task, and the session reads like that of example07. This is the model
to take where a program, or a library that it needs, is on asyncio anyway, and where one
does not want to keep up an event loop of one's own. A request costs more, though: a
future, a time-out or two and a turn of the loop, where the reactor calls `send`.

Streams bring backpressure and a limit for lines. The rest is to be added:

* `start_server` takes in all who come, so a plain function looks whether there is room
  before it makes a task. When descriptors run out, asyncio tells its exception handler,
  and listens again in a second. That handler refuses who waits meanwhile.
* Time-outs: from line to line, from the first byte of a line to its end, and for the
  client to take its answer. The first byte is read by itself, to tell them apart.
* An end. `Server.close` ends the listening only, and what `wait_closed` waits for
  differs between versions. So the tasks are kept in a set. Idle ones are ended by
  moving their time-out to now; those in mid-line have some time left.

Try:  --serve --port 8000

Output:
    silence               error: nothing has come, after 0.22 s
    one in mid-line       another is answered: 7
    one too many          error: the server is busy
    too long a line       error: a line of more than 4096 bytes
    a stop in mid-line    is answered first: 8
"""

import argparse
import asyncio
import errno
import logging
import math
import socket
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict
from typing import Any

from example01_echo_blocking import listen_or_exit, options_of
from example02_calculator import GREETING, Calculator
from example07_calculator_on_the_reactor import (
    BACKLOG,
    listen,
    serve_until_signal,
)
from example08_thread_per_connection import (
    Caller,
    serving,
)
from reactor import BUSY, Limits, RefusedError, Statistics, refuse

ACCEPTS = 64  # connections taken in one turn of the loop
LIMITS = Limits()
LOG = logging.getLogger("streams")
NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
MOMENT = 0.001  # seconds, enough for a turn of the loop
SHORT = 0.2  # seconds between two requests, where a client is to be too slow


class NotReadingError(Exception):
    """A client does not take its answers."""


class StreamServer:
    """Serves each client in a task of its own, in the thread that calls `run`.

    Args:
        listener: is closed in the end.

    Attributes:
        port: the one on which it serves.
        statistics: what has happened so far.
    """

    def __init__(self, listener: socket.socket, limits: Limits = LIMITS) -> None:
        self.port: int = listener.getsockname()[1]
        self.limits = limits
        self.statistics = Statistics()
        self._listener = listener
        self._spare = socket.socket()  # a descriptor for bad times
        self._sessions: set[asyncio.Task[None]] = set()
        self._idle: set[asyncio.Timeout] = set()  # of those that wait for a request
        self._ends = math.inf  # when nobody may begin another request, by the loop
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stops = False
        self._stopping = asyncio.Event()  # the same, for the loop

    def run(self) -> None:
        """Serve until `stop`, and finish what has begun."""
        asyncio.run(self._serve())

    def stop(self) -> None:
        """Have `run` return, in order; from any thread, or from a signal handler."""
        self._stops = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._stopping.set)

    def summary(self) -> bytes:
        """Return the statistics as one line of text."""
        figures = {"open": len(self._sessions)} | asdict(self.statistics)
        return ", ".join(f"{name} {n}" for name, n in figures.items()).encode()

    async def _serve(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        if self._stops:
            self._stopping.set()
        loop.set_exception_handler(self._shed)
        # The first byte of a line is read apart from it.
        limits, limit = self.limits, self.limits.line - 1
        server = await asyncio.start_server(
            self._connected, sock=self._listener, limit=limit, backlog=ACCEPTS
        )
        self._listener.listen(BACKLOG)  # start_server has made that ACCEPTS, too
        try:
            await self._stopping.wait()
            await self._take_in_the_last()
            server.close()
            self._ends = loop.time() + limits.stop
            for scope in self._idle:
                self._end_now(scope)
            await asyncio.sleep(MOMENT)
            if self._sessions:
                patience = limits.stop + limits.linger
                await asyncio.wait(self._sessions, timeout=patience)
        finally:
            server.close()
            self._spare.close()
            for task in self._sessions:
                task.cancel()
            if self._sessions:
                await asyncio.wait(self._sessions)

    async def _take_in_the_last(self) -> None:
        """Let the loop accept all who wait in the backlog."""
        before = -1
        while before != (come := self.statistics.accepted + self.statistics.refused):
            before = come
            # Who is accepted in one turn is connected two turns later. A timer runs
            # after the accepting of its turn.
            await asyncio.sleep(MOMENT)
            await asyncio.sleep(MOMENT)

    def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if len(self._sessions) >= self.limits.connections:
            self.statistics.refused += 1
            writer.write(BUSY)
            # Until then its input is read, or closing would reset the connection.
            asyncio.get_running_loop().call_later(MOMENT, writer.close)
            return
        self.statistics.accepted += 1
        # asyncio does so only if the listener was made with IPPROTO_TCP by name.
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)

        def ended(task: asyncio.Task[None]) -> None:
            self._sessions.discard(task)
            if not task.cancelled():
                task.exception()  # or asyncio tells of a Ctrl-C that has hit the task

        task = asyncio.create_task(self._session(reader, writer))
        self._sessions.add(task)
        task.add_done_callback(ended)

    def _shed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Refuse who waits if asyncio complains that there are no descriptors."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in NO_DESCRIPTORS:
            loop.default_exception_handler(context)
            return
        self._spare.close()
        with suppress(OSError):
            for _ in range(ACCEPTS):
                refuse(self._listener.accept()[0], BUSY)
                self.statistics.refused += 1
        with suppress(OSError):
            self._spare = socket.socket()

    async def _session(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            await self._converse(reader, writer)
        except NotReadingError:
            self.statistics.too_slow += 1
        except OSError:
            pass  # the client has gone, or has reset the connection
        except Exception:
            LOG.exception("a session failed")
            self.statistics.failed += 1
        finally:
            writer.transport.abort()
            with suppress(OSError):  # why it is closed, or asyncio tells of that
                await writer.wait_closed()

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.transport.set_write_buffer_limits(0)  # drain is to wait for all of it
        calculator = Calculator(self.summary)
        await self._send(writer, GREETING)
        try:
            while (
                not calculator.done and (line := await self._line(reader)) is not None
            ):
                self.statistics.requests += 1
                await self._send(writer, calculator.answer(line))
                await asyncio.sleep(0)  # who sends much lets others have a turn
        except (RefusedError, TimeoutError) as error:
            self.statistics.too_slow += isinstance(error, TimeoutError)
            await self._send(writer, f"error: {error}\n".encode())
        # Closed with unread input, the connection would be reset, its last answer lost.
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.linger):
                writer.write_eof()
                while await reader.read(1 << 16):
                    pass

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        if not writer.transport.get_write_buffer_size():
            return  # all is sent already, as nearly always
        try:
            async with asyncio.timeout(self.limits.drain):
                await writer.drain()
        except TimeoutError:
            raise NotReadingError from None

    async def _line(self, reader: asyncio.StreamReader) -> bytes | None:
        """Return the next line without its end; None if there is none.

        Raises:
            RefusedError: it is too long, or has no end.
            TimeoutError: nothing has come, or not the end of the line.
        """
        line = await self._first_byte(reader)
        if not line:
            return None
        try:
            if line != b"\n":
                async with asyncio.timeout(self.limits.request):
                    line += await reader.readuntil(b"\n")
        except TimeoutError:
            raise TimeoutError("a request has no end") from None
        except asyncio.LimitOverrunError:
            text = f"a line of more than {self.limits.line} bytes"
            raise RefusedError(text) from None
        except asyncio.IncompleteReadError:
            raise RefusedError("the last line has no end") from None
        return line[:-1]

    async def _first_byte(self, reader: asyncio.StreamReader) -> bytes:
        """Wait for a line to begin; return nothing if none does any more."""
        if asyncio.get_running_loop().time() >= self._ends:
            return b""
        scope = asyncio.timeout(self.limits.idle)
        try:
            async with scope:
                self._idle.add(scope)
                if self._ends < math.inf:
                    self._end_now(scope)
                return await reader.read(1)
        except TimeoutError:
            if self._ends == math.inf:
                raise TimeoutError("nothing has come") from None
        finally:
            self._idle.discard(scope)
        # It may have come in the same turn as the end. Then it is here already.
        with suppress(TimeoutError):
            async with asyncio.timeout(0):
                return await reader.read(1)
        return b""

    def _end_now(self, scope: asyncio.Timeout) -> None:
        if not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options = options_of(parser)
    listener = listen_or_exit(options.port, BACKLOG)
    if options.serve:
        serve_until_signal(StreamServer(listener))
        return

    silent = StreamServer(listener, Limits(idle=SHORT, linger=SHORT))
    began = time.perf_counter()
    with serving(silent) as number, Caller(number) as caller:
        caller.line()
        said = caller.line()
        took = time.perf_counter() - began
    print(f"silence               {said}, after {took:.2f} s")
    if said != "error: nothing has come":
        raise SystemExit("who says nothing was to be told so")

    server = StreamServer(listen(), Limits(connections=3, linger=SHORT))
    with ExitStack() as stack:
        number = stack.enter_context(serving(server))
        one, other, long = (stack.enter_context(Caller(number)) for _ in range(3))
        for caller in one, other, long:
            caller.line()
        one.send("1,2,")
        answer = other.ask("3,4")
        with Caller(number) as fourth:
            refused = fourth.line()
        too_long = long.ask("1" * (server.limits.line + 1))
        server.stop()
        end = other.line()
        begun = one.ask("5")
    print(f"one in mid-line       another is answered: {answer}")
    print(f"one too many          {refused}")
    print(f"too long a line       {too_long}")
    print(f"a stop in mid-line    is answered first: {begun}")
    if answer != "7" or refused != "error: the server is busy":
        raise SystemExit("three clients were to be served, and a fourth refused")
    if too_long != f"error: a line of more than {server.limits.line} bytes":
        raise SystemExit("a line was to be too long")
    if end or begun != "8":
        raise SystemExit("what has begun was to be answered, and nothing else")


if __name__ == "__main__":
    main()
