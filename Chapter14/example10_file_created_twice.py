"""Eight threads find a file missing; each of them creates it, and seven texts are lost.

`path.exists()` tells what was so a moment ago. Before the file is opened, others may
have created it, and open("w") empties what it finds. That moment is short, and the
race rare; a barrier between the check and the use brings it about in every run. The
mend is to leave the check to the system, which looks and creates in one step: mode "x"
(O_CREAT and O_EXCL) either creates the file or raises FileExistsError. Exactly one
wins, and the others know that they have lost.

A file that is there already has another race, with its readers. They see half of what
is being written to it. Write to a temporary file in the same folder instead, and let
`Path.replace` give it the name: that is one step, too, so a reader gets all of the old
text or all of the new. (Not for two who read, change and write back; see example13.)

Try:  --threads 20

Output:
    8 threads create a file that each of them finds missing
      exists(), then open("w")  created by 8, 7 texts lost
      open("x")                 created by 1, 0 texts lost
    read while it is written
      in place                  half of the new text
      replace()                 all of the old text
    no check before the act: one step that does both, or fails
"""

import argparse
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

LIMIT = 10.0  # seconds until all threads must have looked for the file
OLD = b"balance 100"
NEW = (b"balance ", b"250")  # in two writes

# Path, text, and what is called between check and use; tells whether it has created.
Create = Callable[[Path, str, Callable[[], object]], bool]


def create_broken(
    path: Path, text: str, between: Callable[[], object] = lambda: None
) -> bool:
    """Create a file; return False if there is one; broken: others may do the same.

    Args:
        between: called after the check and before the use. It lets a caller decide who
            runs meanwhile.
    """
    if path.exists():
        return False
    between()  # another creates the file here ...
    path.write_text(text, "utf-8")  # ... and this one empties it
    return True


def create_fixed(
    path: Path, text: str, between: Callable[[], object] = lambda: None
) -> bool:
    """Create a file; return False if there is one, or anything else of that name.

    Whoever gets False may find the text not written yet. If writing fails, there is no
    file in the end.
    """
    between()
    try:
        file = path.open("x", encoding="utf-8")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(text)
    except BaseException:
        path.unlink()  # or nobody could ever create it
        raise
    return True


def create_together(create: Create, path: Path, n_threads: int) -> list[str]:
    """Let threads create the same file at once; return the texts of those that did.

    Nobody creates it before all have come to that point.

    Raises:
        threading.BrokenBarrierError: they have not within LIMIT seconds.
    """
    texts = [f"text {n:2}" for n in range(n_threads)]
    barrier = threading.Barrier(n_threads, timeout=LIMIT)
    with ThreadPoolExecutor(n_threads) as threads:
        try:
            futures = [
                threads.submit(create, path, text, barrier.wait) for text in texts
            ]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:  # also after Ctrl-C, perhaps before all threads have started
            barrier.abort()
    created = [future.result() for future in futures]
    return [text for text, did in zip(texts, created, strict=True) if did]


def write_broken(path: Path, parts: Iterable[bytes]) -> None:
    """Write `parts` to a file; broken: readers see those that are written so far."""
    with path.open("wb", buffering=0) as file:
        for part in parts:
            file.write(part)


def write_fixed(path: Path, parts: Iterable[bytes]) -> None:
    """Write `parts` to a file; readers see the old file until the new one is complete.

    If it fails, the old file stays. The new one is its owner's alone, as is usual for
    temporary files; `os.chmod` it before the last step if others are to read it.

    Raises:
        PermissionError: somebody has the old file open (Windows only).
        OSError: the system cannot write there.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent)  # no replace() across volumes
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(descriptor)  # the content before the name, if the power fails
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_meanwhile(write: Callable[[Path, Iterable[bytes]], None], path: Path) -> bytes:
    """Let `write` replace OLD by NEW; return what a reader finds between its writes."""
    path.write_bytes(OLD)
    seen = []

    def parts() -> Iterator[bytes]:
        yield NEW[0]
        seen.append(path.read_bytes())  # the first part is written, the second not
        yield NEW[1]

    write(path, parts())
    if path.read_bytes() != b"".join(NEW):
        raise SystemExit("the new text was to be there in the end")
    return seen[0]


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def demonstrate(folder: Path, n_threads: int) -> None:
    """Check each claim, and print it."""
    print(f"{n_threads} threads create a file that each of them finds missing")
    for name, create, n_winners in (
        ('exists(), then open("w")', create_broken, n_threads),
        ('open("x")', create_fixed, 1),
    ):
        path = folder / create.__name__
        winners = create_together(create, path, n_threads)
        left = path.read_text("utf-8")
        lost = len(winners) - winners.count(left)
        print(f"  {name:26}created by {len(winners)}, {lost} texts lost")
        if len(winners) != n_winners or left not in winners:
            raise SystemExit(f"{n_winners} of the threads were to create the file")

    print("read while it is written")
    path = folder / "balance"
    for name, write, expected in (
        ("in place", write_broken, NEW[0]),
        ("replace()", write_fixed, OLD),
    ):
        seen = read_meanwhile(write, path)
        meaning = "all of the old text" if seen == OLD else "half of the new text"
        print(f"  {name:26}{meaning}")
        if seen != expected:
            raise SystemExit(f"the reader was to see {expected!r}, not {seen!r}")
    if len(list(folder.iterdir())) != 3:
        raise SystemExit("a temporary file was left")
    print("no check before the act: one step that does both, or fails")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=8)
    n_threads = parser.parse_args().threads
    with tempfile.TemporaryDirectory() as folder:
        try:
            demonstrate(Path(folder), n_threads)
        except threading.BrokenBarrierError:
            raise SystemExit(f"not all threads came in {LIMIT:g} s") from None


if __name__ == "__main__":
    main()
