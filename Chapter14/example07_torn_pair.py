"""Two attributes that belong together are read while one of them is old.

A span from 0 to 9 becomes one from 20 to 29. A thread writes the one end, then the
other. Who reads in between sees 20 to 9. Who reads one end before both writes and the
other end after them sees 0 to 29. Neither was ever meant, though each single read and
write is atomic: a torn pair.

There are two mends. A lock, held for both writes and for both reads, makes readers wait
for the writer, and the writer for readers. Or both ends stand in one object that never
changes: the writer makes a new one and replaces the old one by a single assignment, and
a reader takes the object once. Nobody waits; who has the old one keeps it, a snapshot.
(Of several writers, each of which changes what it has read, one may lose its update:
they need a lock among themselves.)

All are tried at the same interleavings. Who stops halfway, the writer or each reader,
waits there until the others have done what they can: have read or written, or wait for
the lock.

Try:  --threads 2

Output:
    0 to 9 becomes 20 to 29; seen by each of 19 readers
    if halfway stops          the writer     each reader
    two attributes            20 to 9         0 to 29
    the same with a lock      20 to 29        0 to 9
    one, replaced as a whole  0 to 9          0 to 9
    what belongs together is to be changed together, and read together
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from rendezvous import Rendezvous

Hook = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Span:
    """From `low` to `high`; it never changes."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low} to {self.high}"


OLD, NEW = Span(0, 9), Span(20, 29)


class TwoAttributes:
    """A span in two attributes, and a lock that is held for both.

    `read` and `write` call `between` halfway. It lets a caller decide who runs
    meanwhile.
    """

    def __init__(self, span: Span, lock: AbstractContextManager[object]) -> None:
        self._lock = lock
        self._low = span.low  # both are guarded by the lock
        self._high = span.high

    def read(self, between: Hook) -> Span:
        with self._lock:
            low = self._low
            between()
            return Span(low, self._high)

    def write(self, span: Span, between: Hook) -> None:
        with self._lock:
            self._low = span.low
            between()
            self._high = span.high


class Snapshot:
    """A span in one attribute, which is replaced as a whole; otherwise the same."""

    def __init__(self, span: Span) -> None:
        self._span = span  # guarded by nothing: one read or one write is atomic

    def read(self, between: Hook) -> Span:
        span = self._span  # once: to read it again is to get another one, perhaps
        low = span.low
        between()
        return Span(low, span.high)

    def write(self, span: Span, between: Hook) -> None:
        low = span.low
        between()
        self._span = Span(low, span.high)


Make = Callable[[Rendezvous], TwoAttributes | Snapshot]


def nothing() -> None:
    """Do not stop halfway."""


def seen(make: Make, n_readers: int, writer_stops: bool) -> list[Span]:
    """Let one writer replace OLD by NEW; return what the readers have seen.

    Args:
        make: makes the cell, and may use the rendezvous as its lock.
        writer_stops: the writer stops halfway, and begins first; or all readers do.
    """
    place = Rendezvous()
    cell = make(place)

    def stop() -> None:
        place.meet()  # the other side is about to begin
        place.meet()  # and has done what it can

    def write() -> None:
        if writer_stops:
            cell.write(NEW, stop)
        else:
            place.meet()
            cell.write(NEW, nothing)

    def read() -> Span:
        if writer_stops:
            place.meet()
            return cell.read(nothing)
        return cell.read(stop)

    jobs: list[Callable[[], Span | None]] = [write, *[read] * n_readers]
    return [span for span in place.run(jobs) if span is not None]


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def demonstrate(n_readers: int) -> None:
    """Check each claim, and print it."""
    cells: list[tuple[str, Make, list[Span]]] = [
        (
            "two attributes",
            lambda place: TwoAttributes(OLD, nullcontext()),
            [Span(NEW.low, OLD.high), Span(OLD.low, NEW.high)],
        ),
        ("the same with a lock", lambda place: TwoAttributes(OLD, place), [NEW, OLD]),
        ("one, replaced as a whole", lambda place: Snapshot(OLD), [OLD, OLD]),
    ]
    print(f"{OLD} becomes {NEW}; seen by each of {n_readers} readers")
    print(f"{'if halfway stops':26}the writer     each reader")
    for name, make, expected in cells:
        found = [set(seen(make, n_readers, stops)) for stops in (True, False)]
        print(f"{name:26}{' '.join(f'{str(*spans):15}' for spans in found)}".rstrip())
        if found != [{span} for span in expected]:
            raise SystemExit(f"{name}: {expected} were to be seen")
    print("what belongs together is to be changed together, and read together")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=20)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads - 1)
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error}") from None


if __name__ == "__main__":
    main()
