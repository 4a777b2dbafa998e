"""A pipe joins two processes; it ends when every copy of its other end is closed.

Pipe() makes two ends, each to send and to receive; Pipe(duplex=False) a receiving and a
sending one. The reader learns that no more will come from an EOFError. The system
raises it when *all* copies of the other end are closed, and there are more of them
than one thinks. The parent keeps a copy of what it hands to a child, so it must close
it. A child that is forked inherits a copy of all that is open, the parent's own end
too, and so waits for an end of file that it withholds itself; hand it that end as
well, and let it close it. A child forked later holds back the ends of the earlier
ones. (Where that cannot be ruled out, say goodbye with a message.)

A pipe holds some KiB, then `send` waits for a reader. Two processes that both send
first and receive afterwards agree as long as their messages are small, and wait for
each other for ever when one day they are not. A message is one piece up to 4 KiB or
so; beyond that, and of course where two messages belong together, two writers need a
lock. `send` pickles any object, `send_bytes` sends bytes as they are. For one of
many pipes, `multiprocessing.connection.wait`; to another machine, its `Listener` and
`Client`; for more than this, ZeroMQ (pyzmq).

Try:  --records 1000

Output:
    request, reply      squares by another process: 0 1 4 9 16
    parent keeps end    writer has ended, reader sees no end; closed: EOFError
    child keeps end     parent has closed, child sees no end; closed: EOFError
    send, send_bytes    1,018 and 1,000 bytes under way for 1,000
    two writers         2 of 2 records mixed up; with a lock 0 of 200
    nobody reads        64 KiB fit in a one-way pipe, 176 KiB in a duplex one
    both send first     1 MiB each way: deadlock, both wait in send; ended
    one receives first  1 MiB each way: swapped
    close what is not yours, and send only what somebody is sure to read
"""

import argparse
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier, Event
from typing import Any

LIMIT = 30.0  # seconds that a step of the demonstration may take
PATIENCE = 0.1  # seconds for which two processes are seen to stand still
LARGE = 2**20  # bytes, far more than a pipe holds
WINDOWS_PIPE = 8192  # bytes that multiprocessing asks for there
BLOCK = 4096  # bytes


def serve(function: Callable[[Any], object], end: Connection) -> None:
    """Answer each request with `function(request)` until the other end is closed."""
    while True:
        try:
            request = end.recv()
        except EOFError:
            return
        end.send(function(request))


def serve_with_one_end(
    function: Callable[[Any], object], end: Connection, other: Connection
) -> None:
    """Serve at `end`; `other` is the client's, of which a forked process has a copy."""
    other.close()  # without it, the client's close() would not end serve()
    serve(function, end)


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


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


@contextmanager
def server_process(function: Callable[[Any], object]) -> Iterator[Connection]:
    """Let another process serve `function`; give the end for requests and replies.

    The process ends with the block. If it dies, recv() raises EOFError (or
    ConnectionResetError, if it has not read all) instead of waiting for ever.
    """
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        process = multiprocessing.Process(
            target=serve_with_one_end, args=(function, theirs, ours)
        )
        with running([process]):
            theirs.close()  # without it, its death would not end our recv()
            yield ours
            ours.close()


def has_ended(end: Connection) -> bool:
    """Tell, without waiting, whether every copy of the other end is closed.

    The end of file is something to read: poll() is true of it, and recv raises.

    Raises:
        ValueError: there is a message still.
    """
    try:
        if not end.poll():
            return False
        end.recv_bytes()
    except (EOFError, BrokenPipeError):  # the latter on Windows
        return True
    raise ValueError("there is a message still")


def send_all(end: Connection, messages: Sequence[object]) -> None:
    for message in messages:
        end.send(message)


def ends_seen_by_parent() -> tuple[bool, bool]:
    """Tell whether the parent of a writer that is done sees the end of file.

    First while it keeps its copy of the writing end, then after closing that.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver, sender:
        writer = multiprocessing.Process(target=send_all, args=(sender, ["only one"]))
        with running([writer]):
            receiver.recv()
        before = has_ended(receiver)
        sender.close()
        return before, has_ended(receiver)


def look_for_the_end(
    receiver: Connection,
    sender: Connection | None,
    parent_has_closed: Event,
    answer: Connection,
) -> None:
    """Say whether the end is seen: with a copy of `sender` open (None: not given)."""
    parent_has_closed.wait(LIMIT)
    seen = [has_ended(receiver)]
    if sender is not None:
        sender.close()
        seen.append(has_ended(receiver))
    answer.send(seen)


def ends_seen_by_child(give_it_our_end: bool) -> list[bool]:
    """Tell whether a reading child sees the end after its parent has closed.

    Given the parent's end, it looks twice: before and after closing its copy.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    answer, theirs = multiprocessing.Pipe(duplex=False)
    with ctrl_c_later():
        parent_has_closed = multiprocessing.Event()
    given = sender if give_it_our_end else None
    child = multiprocessing.Process(
        target=look_for_the_end, args=(receiver, given, parent_has_closed, theirs)
    )
    with receiver, sender, answer, theirs, running([child]):
        theirs.close()
        sender.close()
        parent_has_closed.set()
        seen: list[bool] = answer.recv()
    return seen


def under_way(send: str, message: bytes) -> int:
    """Return how many bytes the method `send` makes of `message`."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver, sender:
        getattr(sender, send)(message)
        return len(receiver.recv_bytes())


def write_records(
    end: Connection,
    name: str,
    n_records: int,
    lock: AbstractContextManager[object],
    between: Callable[[], object],
) -> None:
    """Send records of two messages each, the name and the text, under `lock`.

    Args:
        between: called between the two, so that a caller may let another writer in.
    """
    for _ in range(n_records):
        with lock:
            end.send(name)
            between()
            end.send(f"text of {name}")


def nothing() -> None: ...


def count_mixed_up(
    n_records: int,
    lock: AbstractContextManager[object],
    between: Callable[[], object] = nothing,
) -> int:
    """Let two processes write records; count those that did not arrive in one piece."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    writers = [
        multiprocessing.Process(
            target=write_records, args=(sender, name, n_records, lock, between)
        )
        for name in "AB"
    ]
    with receiver, sender, running(writers):
        sender.close()
        pairs = [(receiver.recv(), receiver.recv()) for _ in range(2 * n_records)]
    return sum(text != f"text of {name}" for name, text in pairs)


def capacity(end: Connection) -> int:
    """Fill the pipe at its sending `end`; return how many bytes it holds."""
    if sys.platform == "win32":
        return WINDOWS_PIPE
    os.set_blocking(end.fileno(), False)
    written = 0
    while True:
        try:
            written += os.write(end.fileno(), bytes(BLOCK))
        except BlockingIOError:
            return written


def swap(end: Connection, send_first: bool, ready: Barrier) -> None:
    """Send a large message and receive one, in this order or in the other."""
    ready.wait(LIMIT)
    if send_first:
        end.send_bytes(bytes(LARGE))
        end.recv_bytes()
    else:
        end.recv_bytes()
        end.send_bytes(bytes(LARGE))


class DeadlockError(Exception):
    """Both processes wait for each other."""


def let_swap(first_sends_first: bool, second_sends_first: bool) -> None:
    """Let two processes swap large messages over one pipe.

    Raises:
        DeadlockError: part of either message is in the pipe, and neither moves on.
    """
    ends = multiprocessing.Pipe()
    orders = (first_sends_first, second_sends_first)
    with ctrl_c_later():
        ready = multiprocessing.Barrier(3)
    processes = [
        multiprocessing.Process(target=swap, args=(end, send_first, ready))
        for end, send_first in zip(ends, orders, strict=True)
    ]
    with ends[0], ends[1], running(processes):
        ready.wait(LIMIT)
        deadline = time.monotonic() + LIMIT
        alive = [process.sentinel for process in processes]
        while alive:
            ended = wait(alive, PATIENCE)
            alive = [sentinel for sentinel in alive if sentinel not in ended]
            # Who receives first sends only when the other's message is out of the pipe.
            if not ended and all(end.poll() for end in ends):
                raise DeadlockError("both wait in send")
            if time.monotonic() > deadline:
                raise TimeoutError(f"still at it after {LIMIT:g} s")


def square(number: int) -> int:
    return number * number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=positive, default=100)
    n_records = parser.parse_args().records

    replies = []
    with server_process(square) as server:
        for number in range(5):
            server.send(number)
            replies.append(server.recv())
    if replies != [0, 1, 4, 9, 16]:
        raise SystemExit(f"wrong replies: {replies}")
    print("request, reply      squares by another process:", *replies)

    if ends_seen_by_parent() != (False, True):
        raise SystemExit("the parent's copy was to hold back the end of file")
    print("parent keeps end    writer has ended, reader sees no end; closed: EOFError")
    if ends_seen_by_child(give_it_our_end=True) != [False, True]:
        raise SystemExit("the child's copy was to hold back the end of file")
    inherits = multiprocessing.get_start_method() == "fork"
    if ends_seen_by_child(give_it_our_end=False) != [not inherits]:
        raise SystemExit("a child was to have a copy if, and only if, it is forked")
    print("child keeps end     parent has closed, child sees no end; closed: EOFError")

    pickled, plain = (under_way(how, bytes(1000)) for how in ("send", "send_bytes"))
    print(f"send, send_bytes    {pickled:,} and {plain:,} bytes under way for 1,000")

    with ctrl_c_later():
        both_in_between = multiprocessing.Barrier(2)
    mixed = count_mixed_up(1, nullcontext(), both_in_between.wait)
    with ctrl_c_later():
        lock = multiprocessing.Lock()
    with_lock = count_mixed_up(n_records, lock)
    if (mixed, with_lock) != (2, 0):
        raise SystemExit(f"mixed up were {mixed}, with a lock {with_lock}")
    print(
        f"two writers         {mixed} of 2 records mixed up; "
        f"with a lock {with_lock} of {2 * n_records}"
    )

    kib = []
    for duplex in (False, True):
        receiver, sender = multiprocessing.Pipe(duplex)
        with receiver, sender:
            kib.append(capacity(sender) / 1024)
    print(
        f"nobody reads        {kib[0]:.0f} KiB fit in a one-way pipe, "
        f"{kib[1]:.0f} KiB in a duplex one"
    )

    try:
        let_swap(True, True)
    except DeadlockError as error:
        print(f"both send first     1 MiB each way: deadlock, {error}; ended")
    else:
        raise SystemExit("the pipe held what was to be too large for it")
    let_swap(True, False)
    print("one receives first  1 MiB each way: swapped")
    print("close what is not yours, and send only what somebody is sure to read")


if __name__ == "__main__":
    main()
