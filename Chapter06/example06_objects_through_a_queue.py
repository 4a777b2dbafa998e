"""What comes out of a queue between processes is a copy, made some time after put().

An object goes through a pipe as bytes: pickled on one side, built anew on the other. So
identity is lost, and nobody sees what the other does to his copy.

`multiprocessing.Queue.put` only hands the object to a thread of its own, the feeder,
which pickles it later. An object that is changed right after put() may be sent as it
was or as it is: both are brought about here, by an object that can hold up its
pickling. And one that cannot be pickled is lost: put() returns as if all were well, the
feeder prints a traceback, and the receiver waits.

Pickle in the caller, and both are gone. `put_now` does so, and `SimpleQueue.put`, which
has no feeder but waits while its pipe is full. Or send only what is never changed.

Book: Chapter 6, example6.

Output:
    sent twice       'letter'
    came back        'letter, signed' and 'letter, signed'
    put, changed     sent as it is: 'new, signed', or as it was: 'old, signed'
    3 were put       2 came: before, after; no put() has raised
    the feeder says  TypeError: cannot pickle '_thread.lock' object
    put_now          sent 'old'; of a lock the caller hears: TypeError
    put() sends a copy, made later; make the copy first, and you know which
"""

import io
import multiprocessing
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue, SimpleQueue
from typing import Any

LIMIT = 30.0  # seconds that a step of the demonstration may take


class Note:
    """A text that may be changed, and whose pickling can be held up.

    Args:
        before, after: called before and after the text is read to be pickled.
    """

    def __init__(
        self,
        text: str,
        before: Callable[[], object] = lambda: None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        self.text = text
        self._before = before
        self._after = after

    def __reduce__(self) -> tuple[type["Note"], tuple[str]]:
        self._before()
        text = self.text
        self._after()
        return Note, (text,)


def put_now(queue: "Queue[bytes]", item: object) -> None:
    """Put `item` as it is at this moment; take it out with `get_item`.

    Raises:
        Exception: `item` cannot be pickled; nothing has been put.
    """
    queue.put(pickle.dumps(item))


def get_item(queue: "Queue[bytes]") -> Any:
    """Take out, and build anew, what `put_now` has put."""
    return pickle.loads(queue.get())


def sign(inbox: "Queue[Note | None]", outbox: "SimpleQueue[Note]") -> None:
    """Add a word to each note from `inbox` until there comes None; pass it on."""
    while (note := inbox.get()) is not None:
        note.text += ", signed"
        outbox.put(note)


def change_before_pickling(queue: "Queue[Any]") -> None:
    """Put a note, and change it before the feeder has come to pickle it."""
    changed = threading.Event()
    note = Note("old", before=lambda: changed.wait(LIMIT))
    queue.put(note)
    note.text = "new"
    changed.set()


def change_after_pickling(queue: "Queue[Any]") -> None:
    """Put a note, and change it when the feeder has pickled it."""
    pickled = threading.Event()
    note = Note("old", after=pickled.set)
    queue.put(note)
    pickled.wait(LIMIT)
    note.text = "new"


def lost_in_the_feeder(items: Sequence[object]) -> tuple[list[str], str]:
    """Put `items`, then None; return what came out, and what the feeder has printed."""
    queue: Queue[Any] = multiprocessing.Queue()
    with redirect_stderr(io.StringIO()) as printed:
        for item in [*items, None]:
            queue.put(item)
        came = list(iter(queue.get, None))
        queue.close()
        queue.join_thread()  # until the feeder has ended
    return came, printed.getvalue()


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


def main() -> None:
    with ctrl_c_later():
        inbox: Queue[Note | None] = multiprocessing.Queue()
        outbox: SimpleQueue[Note] = multiprocessing.SimpleQueue()
    signer = multiprocessing.Process(target=sign, args=(inbox, outbox))
    sent = Note("letter")
    with running([signer]):
        # put() starts a thread, the feeder; interrupted, it may leave a lock locked.
        with ctrl_c_later():
            inbox.put(sent)
            inbox.put(sent)
        first, second = outbox.get(), outbox.get()
        print(f"sent twice       {sent.text!r}")
        print(f"came back        {first.text!r} and {second.text!r}")
        if (sent.text, first.text, second.text) != ("letter", *["letter, signed"] * 2):
            raise SystemExit("only the copies were to be signed")
        if len({id(sent), id(first), id(second)}) != 3:
            raise SystemExit("there were to be three objects")

        with ctrl_c_later():  # the feeder waits for this thread meanwhile
            change_before_pickling(inbox)
            change_after_pickling(inbox)
        late, early = outbox.get().text, outbox.get().text
        print(f"put, changed     sent as it is: {late!r}, or as it was: {early!r}")
        if (late, early) != ("new, signed", "old, signed"):
            raise SystemExit("one was to be sent changed, the other as it was")
        with ctrl_c_later():
            inbox.put(None)

    with ctrl_c_later():
        came, printed = lost_in_the_feeder(["before", threading.Lock(), "after"])
    print(f"3 were put       {len(came)} came: {', '.join(came)}; no put() has raised")
    *_, complaint = printed.splitlines()
    print(f"the feeder says  {complaint}")
    if came != ["before", "after"] or not complaint.startswith("TypeError"):
        raise SystemExit("the lock was to be lost, with a TypeError in the feeder")

    note = Note("old")
    with ctrl_c_later():
        queue: Queue[bytes] = multiprocessing.Queue()
        put_now(queue, note)
    note.text = "new"
    at_once = get_item(queue).text
    try:
        put_now(queue, threading.Lock())
    except TypeError:
        print(
            f"put_now          sent {at_once!r}; of a lock the caller hears: TypeError"
        )
    else:
        raise SystemExit("put_now() was to raise")
    if at_once != "old":
        raise SystemExit("put_now() was to send the note as it was then")
    print("put() sends a copy, made later; make the copy first, and you know which")


if __name__ == "__main__":
    main()
