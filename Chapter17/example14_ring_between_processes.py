# /// script
# requires-python = ">=3.11"
# dependencies = ["llvmlite>=0.45.0", "matplotlib>=3.8.0"]
# ///
"""Two processes pass messages through shared memory, and not through the system.

Pipe and multiprocessing.Queue have the operating system copy each message in and out.
A ring does without that. Messages lie in slots of one size, in memory that both
processes see. The producer counts what it has put, the consumer what it has taken, and
each reads the other's number and writes its own. If they are equal the ring is empty,
and if they differ by the number of slots, full.

* The message is written first, and then the number that tells of it, with release
  ordering. Who reads that number with acquire ordering finds the message in its slot.
  On the way back it is the same: read first, and then counted as taken.
* Each number has cache lines of its own (example13). Beside it is a copy of the other
  one, which is looked up anew only if by the copy the ring is full or empty.
* To put or to get is one call of machine code, which Ctrl-C cannot cut in two.

Nobody wakes who waits. So it looks some times, which catches what comes within some
20 µs, and then sleeps between looks, up to 1 ms, and asks whether the other process is
alive. A pipe's reader is woken: where all cores are busy, its answers come sooner.

A ring has one producer and one consumer; two would need a lock, or two rings. Chapter
16, example16, puts the ring of one process through all schedules. For many producers
and objects of any kind, there is the package faster-fifo.

L. Lamport, "Specifying concurrent program modules", ACM TOPLAS 5(2), 1983. M. Thompson
et al., "Disruptor", LMAX, 2011, for the cache lines.

Try:  --messages 100000
Try:  --plot ring.png

Output:
    a ring of three slots
      empty                 given up after 50 ms, awake for 2.5 ms
      full                  given up after 50 ms, awake for 2.5 ms
      closed                3 messages, then EOFError
      killed                3 messages, then ConnectionResetError
    5,000 messages, and then 200 there and back
      ring                     464,482 /s   5.42x    7.1 µs there and back
      Pipe                     238,536 /s   2.78x   28.0 µs there and back
      multiprocessing.Queue     85,729 /s   1.00x   87.2 µs there and back
    all came, once and in order; the ring 5.4x as fast as multiprocessing.Queue
"""

import argparse
import ctypes
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import connection, parent_process, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple, Self

from cores import usable_cores
from example13_false_sharing import picture
from native_atomics import AtomicInt64, NativeCode
from shared_block import attached, ctrl_c_later, shared_block

N_SLOTS = 4096
SLOT_SIZE = 56  # bytes that a message may have; with its length a slot is 64
ROUNDS = 6  # of which the fastest counts: other programs can only make one slower
ROUND_TRIPS = 200  # in each round
MOST = 100_000  # messages that may be asked for
LIMIT = 10.0  # seconds for what is bound to come
SHORT_LIMIT = 0.05  # seconds for what cannot come
KINDS = "ring", "Pipe", "multiprocessing.Queue"
INTACT = b"intact"  # the answer if all has come as it was sent
THREE = [b"one", b"", b"three"]

LOOKS = 50  # before who waits begins to sleep: some 20 µs
SHORTEST, LONGEST = 2e-5, 1e-3  # seconds that it sleeps then

# Where things stand in shared memory, in bytes. What different processes write is two
# cache lines apart, because some processors fetch lines in pairs.
LINE = 128
SIZES, PUT, TAKEN, CLOSED, SLOTS = range(0, 5 * LINE, LINE)
WORD = 8

# `put` returns 0, or -1 if the ring is full or closed; `get` returns the length of the
# message, or -1 if there is none. Message n is in slot n modulo the number of slots.
# While it is counted as put and not as taken, only the consumer touches that slot,
# otherwise only the producer.
CODE = f"""
declare void @llvm.memcpy.p0.p0.i64(ptr, ptr, i64, i1)

define ptr @slot(ptr %ring, i64 %n) {{
  %stride.place = getelementptr i64, ptr %ring, i64 1
  %slots = load i64, ptr %ring
  %stride = load i64, ptr %stride.place
  %index = urem i64 %n, %slots
  %distance = mul i64 %index, %stride
  %first = getelementptr i8, ptr %ring, i64 {SLOTS}
  %slot = getelementptr i8, ptr %first, i64 %distance
  ret ptr %slot
}}

define i64 @put(ptr %ring, ptr %message, i64 %length) {{
  %put = getelementptr i8, ptr %ring, i64 {PUT}
  %copy = getelementptr i64, ptr %put, i64 1
  %taken = getelementptr i8, ptr %ring, i64 {TAKEN}
  %closed = getelementptr i8, ptr %ring, i64 {CLOSED}
  %is.closed = load atomic i64, ptr %closed monotonic, align 8
  %is.open = icmp eq i64 %is.closed, 0
  br i1 %is.open, label %open, label %no
open:
  %n = load atomic i64, ptr %put monotonic, align 8
  %slots = load i64, ptr %ring
  %known = load i64, ptr %copy
  %used = sub i64 %n, %known
  %room = icmp ult i64 %used, %slots
  br i1 %room, label %write, label %look
look:
  ; acquire: what is counted as taken has been read
  %now = load atomic i64, ptr %taken acquire, align 8
  store i64 %now, ptr %copy
  %used.now = sub i64 %n, %now
  %room.now = icmp ult i64 %used.now, %slots
  br i1 %room.now, label %write, label %no
write:
  %slot = call ptr @slot(ptr %ring, i64 %n)
  %place = getelementptr i64, ptr %slot, i64 1
  store i64 %length, ptr %slot
  call void @llvm.memcpy.p0.p0.i64(ptr %place, ptr %message, i64 %length, i1 false)
  %next = add i64 %n, 1
  ; release: who reads this finds the message
  store atomic i64 %next, ptr %put release, align 8
  ret i64 0
no:
  ret i64 -1
}}

define i64 @get(ptr %ring, ptr %buffer) {{
  %put = getelementptr i8, ptr %ring, i64 {PUT}
  %taken = getelementptr i8, ptr %ring, i64 {TAKEN}
  %copy = getelementptr i64, ptr %taken, i64 1
  %n = load atomic i64, ptr %taken monotonic, align 8
  %known = load i64, ptr %copy
  %there = icmp ne i64 %n, %known
  br i1 %there, label %read, label %look
look:
  ; acquire: what is counted as put has been written
  %now = load atomic i64, ptr %put acquire, align 8
  store i64 %now, ptr %copy
  %there.now = icmp ne i64 %n, %now
  br i1 %there.now, label %read, label %no
read:
  %slot = call ptr @slot(ptr %ring, i64 %n)
  %place = getelementptr i64, ptr %slot, i64 1
  %length = load i64, ptr %slot
  call void @llvm.memcpy.p0.p0.i64(ptr %buffer, ptr %place, i64 %length, i1 false)
  %next = add i64 %n, 1
  ; release: who reads this may write to the slot
  store atomic i64 %next, ptr %taken release, align 8
  ret i64 %length
no:
  ret i64 -1
}}
"""


@cache
def machine_code() -> tuple[Callable[[int, bytes, int], int], Callable[..., int]]:
    """Return `put` and `get`."""
    code, place, number = NativeCode(CODE), ctypes.c_void_p, ctypes.c_int64
    return (
        code.function("put", number, place, ctypes.c_char_p, number, keeps_gil=True),
        code.function("get", number, place, place, keeps_gil=True),
    )


@contextmanager
def shared_ring(n_slots: int, slot_size: int) -> Iterator[str]:
    """Make a ring, and remove it at the end of the block.

    Args:
        slot_size: bytes that a message may have.

    Yields:
        The name by which `SharedRing` uses it, in any process.

    Raises:
        ValueError: there is no slot, or it has no room for a byte.
    """
    if n_slots < 1 or slot_size < 1:
        raise ValueError(f"a ring of {n_slots} slots of {slot_size} bytes")
    stride = WORD + -(-slot_size // WORD) * WORD  # the length, and room for the message
    with shared_block(SLOTS + n_slots * stride) as name:
        with attached(name) as start:
            for n, size in enumerate((n_slots, stride, slot_size)):
                AtomicInt64(address=start + SIZES + WORD * n).store(size)
        yield name


class SharedRing:
    """The use of a ring in shared memory, by its one producer or by its one consumer.

    Each has an object of its own, and uses it in a `with` block. The end of either
    block closes the ring. Before and after its block, an object is a ring that is
    closed and empty.

    Args:
        name: of a ring that `shared_ring` has made. Before Python 3.13, only processes
            that `multiprocessing` starts may use it, and their parent.
        is_alive: tells whether the other process is, such as `Process.is_alive`.

    Attributes:
        slot_size: bytes that a message may have, known in the block.
    """

    def __init__(self, name: str, is_alive: Callable[[], bool] = lambda: True) -> None:
        self._name = name
        self._is_alive = is_alive
        self._put, self._get = machine_code()
        self._attached = ExitStack()
        self._elsewhere = (ctypes.c_int64 * (SLOTS // WORD))()
        self._elsewhere[CLOSED // WORD] = 1
        self._start = ctypes.addressof(self._elsewhere)
        self.slot_size = sys.maxsize  # not known yet
        self._buffer = ctypes.create_string_buffer(0)

    def __enter__(self) -> Self:
        start = self._attached.enter_context(attached(self._name))
        self.slot_size = AtomicInt64(address=start + SIZES + 2 * WORD).load()
        self._buffer = ctypes.create_string_buffer(self.slot_size)
        self._start = start
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._start = ctypes.addressof(self._elsewhere)
        self._attached.close()

    def close(self) -> None:
        """Let no more messages in. Those that are there can still be taken."""
        AtomicInt64(address=self._start + CLOSED).store(1)

    def put(self, message: bytes, timeout: float) -> None:
        """Add a message, and wait for room if need be.

        That it is in the ring does not mean that anybody will take it.

        Raises:
            ValueError: it is longer than a slot.
            TimeoutError: there was no room for `timeout` seconds.
            BrokenPipeError: the ring is closed.
            ConnectionResetError: there is no room, and the other process has died.
        """
        length = len(message)
        if length > self.slot_size:
            raise ValueError(f"{length} bytes in a slot of {self.slot_size}")
        if self._put(self._start, message, length) < 0:
            attempt = partial(self._put, self._start, message, length)
            self._wait(attempt, timeout, BrokenPipeError)

    def get(self, timeout: float) -> bytes:
        """Take the oldest message, and wait for one if need be.

        An exception from outside, as by Ctrl-C, may come when it is taken already.

        Raises:
            TimeoutError: there was none for `timeout` seconds.
            EOFError: there is none, and the ring is closed.
            ConnectionResetError: there is none, and the other process has died.
        """
        length = self._get(self._start, self._buffer)
        if length < 0:
            attempt = partial(self._get, self._start, self._buffer)
            length = self._wait(attempt, timeout, EOFError)
        # A slice of characters is bytes, and `raw` would copy the whole slot.
        return self._buffer[:length]  # type: ignore[return-value]

    def _wait(
        self, attempt: Callable[[], int], timeout: float, end: type[Exception]
    ) -> int:
        """Return what `attempt` does as soon as it is not negative.

        Raises:
            Exception: `end` if the ring is closed, others as by `put` and `get`.
        """
        for _ in range(LOOKS):
            if (result := attempt()) >= 0:
                return result
        closed = AtomicInt64(address=self._start + CLOSED)
        deadline = time.monotonic() + timeout
        pause = SHORTEST
        while True:
            is_closed, is_alive = closed.load(), self._is_alive()
            # After that look: what was put before the end is not to be missed.
            if (result := attempt()) >= 0:
                return result
            if is_closed:
                raise end("the ring is closed")
            if not is_alive:
                raise ConnectionResetError("the other process has died")
            if not time.monotonic() < deadline:
                raise TimeoutError(f"the other process did nothing for {timeout:g} s")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST)


@dataclass(frozen=True, slots=True)
class Link:
    """How a process sends messages to another one, and receives messages from it."""

    put: Callable[[bytes], object]
    get: Callable[[], bytes]

    def send(self, messages: Sequence[bytes]) -> None:
        for message in messages:
            self.put(message)

    def receive(self, n: int) -> list[bytes]:
        return [self.get() for _ in range(n)]


class Ends(NamedTuple):
    """What a process is given: a ring for either direction, and the other links."""

    outgoing: str
    incoming: str
    pipe: Link
    queue: Link

    @contextmanager
    def links(self) -> Iterator[list[Link]]:
        """Yield one link of each of KINDS."""
        parent = parent_process()
        assert parent is not None  # who would end this process, if it hung
        with (
            SharedRing(self.outgoing, parent.is_alive) as outgoing,
            SharedRing(self.incoming, parent.is_alive) as incoming,
        ):
            put = partial(outgoing.put, timeout=LIMIT)
            get = partial(incoming.get, timeout=LIMIT)
            yield [Link(put, get), self.pipe, self.queue]


@contextmanager
def two_ends() -> Iterator[tuple[Ends, Ends]]:
    """Make two rings, two pipes and two queues, to connect two processes."""
    with ExitStack() as stack:
        ring, ring_back = (
            stack.enter_context(shared_ring(N_SLOTS, SLOT_SIZE)) for _ in range(2)
        )
        (get, put_back), (get_back, put) = (
            map(stack.enter_context, multiprocessing.Pipe(duplex=False))
            for _ in range(2)
        )
        with ctrl_c_later():
            queue: multiprocessing.Queue[bytes] = multiprocessing.Queue()
            stack.enter_context(closing(queue))
            queue_back: multiprocessing.Queue[bytes] = multiprocessing.Queue()
            stack.enter_context(closing(queue_back))
        yield (
            Ends(
                ring,
                ring_back,
                Link(put.send_bytes, get.recv_bytes),
                Link(queue.put, queue_back.get),
            ),
            Ends(
                ring_back,
                ring,
                Link(put_back.send_bytes, get_back.recv_bytes),
                Link(queue_back.put, queue.get),
            ),
        )


class Measurement(NamedTuple):
    """What was seen of one kind of link.

    Attributes:
        rate: messages in a second, in one direction.
        round_trip: seconds from a message to its answer, the median.
        intact: whether all came, once and in order, and came back.
    """

    rate: float
    round_trip: float
    intact: bool


def messages_to_send(n: int) -> list[bytes]:
    """Return `n` different messages of 32 bytes."""
    return [4 * i.to_bytes(8, "little") for i in range(n)]


def measure(ends: Ends, n: int, report: Connection) -> None:
    """Send `n` messages over each link, and some that come back; report what is seen.

    The process at the other ends runs `answer`.
    """
    messages = messages_to_send(n)
    with ends.links() as links:
        for link in ROUNDS * links:
            link.send([b"begin"])
            link.receive(1)
            began = time.perf_counter()
            link.send(messages)
            intact = link.receive(1) == [INTACT]
            rate = n / (time.perf_counter() - began)
            times = []
            for message in messages_to_send(ROUND_TRIPS):
                began = time.perf_counter()
                link.send([message])
                intact &= link.receive(1) == [message]
                times.append(time.perf_counter() - began)
            report.send(Measurement(rate, statistics.median(times), intact))


def answer(ends: Ends, n: int) -> None:
    """Receive messages over each link and compare them; then send some back."""
    messages = messages_to_send(n)
    with ends.links() as links:
        for link in ROUNDS * links:
            link.send(link.receive(1))
            intact = link.receive(n) == messages
            link.send([INTACT if intact else b"other messages"])
            for _ in range(ROUND_TRIPS):
                link.send(link.receive(1))


@contextmanager
def running(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """Start `processes`, wait for them at the end of the block; kill those still there.

    Killed are those that have not ended when the block, or the waiting, raises.
    """
    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    try:
        with ctrl_c_later():
            for process in processes:
                process.start()
        yield
        for process in processes:
            process.join()
    finally:
        with ctrl_c_later():
            for process in processes:
                if process.pid is not None:  # it has been started
                    process.kill()  # no effect on one that has ended
                    process.join()


def compare(n: int) -> dict[str, Measurement]:
    """Let two processes send each other messages, over links of all kinds.

    Raises:
        RuntimeError: what came is not what was sent.
        TimeoutError: nothing came.
    """
    found: dict[str, list[Measurement]] = {kind: [] for kind in KINDS}
    reports, report = multiprocessing.Pipe(duplex=False)
    with reports, report, two_ends() as (ours, theirs):
        measuring = multiprocessing.Process(target=measure, args=(ours, n, report))
        answering = multiprocessing.Process(target=answer, args=(theirs, n))
        with running([measuring, answering]):
            for kind in ROUNDS * KINDS:
                connection.wait([reports, measuring.sentinel], LIMIT)
                if not reports.poll():
                    raise TimeoutError(f"{kind}: a process does not go on")
                found[kind].append(reports.recv())
                if not found[kind][-1].intact:
                    raise RuntimeError(f"{kind}: what came is not what was sent")
    return {
        kind: Measurement(
            max(one.rate for one in rounds), min(one.round_trip for one in rounds), True
        )
        for kind, rounds in found.items()
    }


def put_three(closed: str, killed: str) -> None:
    """Put three messages into each ring; close the one, and be killed in the other."""
    with SharedRing(closed) as ring:
        for message in THREE:
            ring.put(message, LIMIT)
    with SharedRing(killed) as ring:
        for message in THREE:
            ring.put(message, LIMIT)
        os.kill(os.getpid(), signal.SIGTERM)


def get_until_the_end(ring: SharedRing) -> tuple[list[bytes], Exception]:
    """Get messages until there are no more; return them, and what was raised then."""
    messages = []
    while True:
        try:
            messages.append(ring.get(LIMIT))
        except (EOFError, OSError) as error:
            return messages, error


def wait_in_vain(how: str, wait: Callable[[], object]) -> None:
    """Call what waits for SHORT_LIMIT seconds; print what that takes."""
    began = time.thread_time()
    try:
        wait()
    except TimeoutError:
        awake = 1000 * (time.thread_time() - began)
        waited = f"given up after {1000 * SHORT_LIMIT:.0f} ms, awake for {awake:.1f} ms"
        print(f"  {how:22}{waited}")
    else:
        raise SystemExit(f"{how}: a wait was to be given up")


def show_ends() -> None:
    """Wait in vain for another process, and for one that ends; print what comes."""
    with ExitStack() as stack:
        rings = [stack.enter_context(shared_ring(3, SLOT_SIZE)) for _ in range(3)]
        with SharedRing(rings[0]) as consumer, SharedRing(rings[0]) as producer:
            wait_in_vain("empty", partial(consumer.get, SHORT_LIMIT))
            for message in THREE:
                producer.put(message, LIMIT)
            wait_in_vain("full", partial(producer.put, b"four", SHORT_LIMIT))
        process = multiprocessing.Process(target=put_three, args=rings[1:])
        with running([process]):
            for ring, how, expected in (
                (rings[1], "closed", EOFError),
                (rings[2], "killed", ConnectionResetError),
            ):
                with SharedRing(ring, process.is_alive) as consumer:
                    messages, error = get_until_the_end(consumer)
                if messages != THREE or type(error) is not expected:
                    raise SystemExit(f"{how}: {messages}, and then {error!r}")
                print(f"  {how:22}{len(messages)} messages, then {expected.__name__}")


def plot(best: Mapping[str, Measurement], machine: str, file: Path) -> None:
    """Draw messages a second and the time of a round trip, by kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    rates = [one.rate / 1000 for one in best.values()]
    times = [1e6 * one.round_trip for one in best.values()]
    for axes, values, label, colour in zip(
        figure.subplots(1, 2, sharey=True),
        (rates, times),
        ("messages in a second [thousands]", "round trip, median [µs]"),
        ("#1b4f8a", "#b5442e"),
        strict=True,
    ):
        bars = axes.barh(list(best), values, color=colour)
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=11)
        axes.set_xlabel(label, fontsize=12)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=11)
    axes.invert_yaxis()  # of both: the first kind on top
    figure.suptitle(
        f"A ring in shared memory hands over {rates[0] / rates[-1]:.1f} times as many "
        f"messages\nas multiprocessing.Queue ({machine})",
        fontsize=13,
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


def message_count(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be in 1 … {MOST}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=message_count, default=5000)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    n = options.messages

    try:
        print("a ring of three slots", flush=True)
        show_ends()
        print(f"{n:,} messages, and then {ROUND_TRIPS} there and back")
        best = compare(n)
    except (TimeoutError, RuntimeError) as error:
        raise SystemExit(str(error)) from None
    of_queue = best[KINDS[-1]].rate
    for kind, one in best.items():
        print(
            f"  {kind:22}{one.rate:10,.0f} /s  {one.rate / of_queue:5.2f}x"
            f"{1e6 * one.round_trip:7.1f} µs there and back"
        )
    ratio = best[KINDS[0]].rate / of_queue
    print(f"all came, once and in order; the ring {ratio:.1f}x as fast as {KINDS[-1]}")
    if options.plot is not None:
        machine = f"Python {platform.python_version()}, {usable_cores()} cores"
        plot(best, machine, options.plot)


if __name__ == "__main__":
    main()
