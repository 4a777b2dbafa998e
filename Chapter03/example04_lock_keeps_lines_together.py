"""A lock keeps the lines of one entry together when several threads write a journal.

Each append is safe by itself; an entry of three lines is three of them, and between
two of them another thread may write. What belongs together needs one lock around all
of it, and the same lock wherever the journal is written.

Here B always comes when A has written the first of its lines. Without a lock, B writes
its whole entry there, in the middle of A's. With one, B finds it taken and waits until
A is done. The check is made on the list of lines, not by looking at a terminal.

`print` has the same weakness: in one call it writes each argument, each space and the
end of line one by one. `logging` holds a lock while it writes a record.

Book: Chapter 3, example4.

Output:
    no lock    A3  B3  B2  B1  A2  A1   A is torn
    one lock   A3  A2  A1  B3  B2  B1   each entry in one piece
    the lock kept together what belongs together
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

LIMIT = 10.0  # seconds until B must have come


class Journal:
    """Entries of several lines each, written by several threads.

    Args:
        lock: held while an entry is written, so that its lines stand together.
        between: called after each line, so that a caller can decide who else comes.
    """

    def __init__(
        self,
        lock: AbstractContextManager[object] | None = None,
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self.lines: list[str] = []  # guarded by _lock
        self._lock = threading.Lock() if lock is None else lock
        self._between = between

    def write(self, entry: Sequence[str]) -> None:
        """Append the lines of `entry`, one by one."""
        with self._lock:
            for line in entry:
                self.lines.append(line)
                self._between()


class ObservedLock:
    """A lock that tells when a thread finds it taken and has to wait."""

    def __init__(self, when_taken: Callable[[], object]) -> None:
        self._lock = threading.Lock()
        self._when_taken = when_taken

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            self._when_taken()
            self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def stands_together(entry: Sequence[str], lines: Sequence[str]) -> bool:
    """Tell whether `entry` is found in `lines` with nothing in between."""
    n = len(entry)
    return any(list(lines[k : k + n]) == list(entry) for k in range(len(lines) - n + 1))


def write_both(a: Sequence[str], b: Sequence[str], *, locked: bool) -> list[str]:
    """Write `a` here and `b` in another thread, which comes after A's first line.

    A goes on when B has written all it has, or has found the lock taken.

    Raises:
        TimeoutError: B has done neither within LIMIT.
    """
    b_has_come = threading.Event()

    def let_b_come() -> None:
        if len(journal.lines) == 1:  # nobody but A has written
            other.start()
            if not b_has_come.wait(LIMIT):
                raise TimeoutError(f"B has not come within {LIMIT:g} s")

    def write_b() -> None:
        journal.write(b)
        b_has_come.set()

    lock = ObservedLock(when_taken=b_has_come.set) if locked else nullcontext()
    journal = Journal(lock, between=let_b_come)
    other = threading.Thread(target=write_b)
    try:
        journal.write(a)
    finally:
        if other.is_alive():
            other.join()
    return journal.lines


def main() -> None:
    entries = [[f"{name}{number}" for number in (3, 2, 1)] for name in "AB"]
    together = {}
    for locked in (False, True):
        lines = write_both(*entries, locked=locked)
        together[locked] = [stands_together(entry, lines) for entry in entries]
        verdict = "each entry in one piece" if all(together[locked]) else "A is torn"
        label = "one lock" if locked else "no lock"
        print(f"{label:10} {'  '.join(lines)}   {verdict}")

    if together[False] != [False, True]:
        raise SystemExit("without a lock, B should have written in the middle of A")
    if not all(together[True]):
        raise SystemExit("with a lock, no entry should be torn")
    print("the lock kept together what belongs together")


if __name__ == "__main__":
    main()
