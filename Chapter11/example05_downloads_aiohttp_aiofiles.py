# /// script
# requires-python = ">=3.11"
# dependencies = ["aiofiles>=24.1.0", "aiohttp>=3.10.0"]
# ///
"""Downloads by a few tasks of one thread: a file is whole and verified, or not there.

Bodies come in pieces, each of which is written under a temporary name in the same
folder; when all has come and the checksum is right, the file gets its name in one step.
N workers take one download after another from a common iterator, so that N are under
way at a time. What fails is named, and its worker goes on with the next.

Files have no asynchronous form that every system knows. aiofiles calls open, write and
close in threads, so that a slow disk does not stop the event loop. A cancelled `await`
leaves its thread running: the file might be created just after it was removed. Hence
`to_the_end`: opening, and closing with removal, are awaited even then.

Book: Chapter 11, example5.
Try:  --files 100 --workers 10
Try:  --output .

Output:
    25 downloads, 5 at a time
    ../escape.bin  '../escape.bin': not the name of a file
    altered.bin    http://127.0.0.1:<port>/files/a: another checksum
    huge.bin       http://127.0.0.1:<port>/files/a?size=2000000: 2,000,000 announced
    missing.bin    http://127.0.0.1:<port>/status/404: status 404
    truncated.bin  http://127.0.0.1:<port>/truncated/a?size=1000: cut short
    20 files whole and verified, nothing of the 5 others
    in progress at the site: 5 at most
    one more, cancelled in mid-file: nothing of it is left
"""

import argparse
import asyncio
import hashlib
import re
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import file_site

try:
    import aiofiles.os
    import aiofiles.threadpool.binary
    import aiohttp
except ModuleNotFoundError as error:
    print(f"needs {error.name}: pip install {error.name}")
    raise SystemExit(77) from None

T = TypeVar("T")
File = aiofiles.threadpool.binary.AsyncBufferedIOBase  # what aiofiles.open gives

PIECE = 64 * 1024  # bytes
LARGEST = 1_000_000  # bytes of a file
SIZE = 100_000  # bytes of a file in the demonstration
MAX_WORKERS = 1000  # as many requests does the site count together
TIME_LIMIT = 30.0  # seconds for the whole demonstration
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30)  # seconds


class DownloadError(Exception):
    """What was asked for cannot be had, or is not what was wanted."""


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end, however often this task is cancelled meanwhile.

    Raises:
        asyncio.CancelledError: this task was cancelled meanwhile.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])  # cancelled itself, it leaves the task alone
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()


@asynccontextmanager
async def whole_file(target: Path) -> AsyncIterator[File]:
    """Give a file to write to, which becomes `target` at the end of the block.

    Nobody finds half of it, or a new one in place of an old one before its time. After
    an exception in the block, a cancel included, the folder is as it was before.

    Raises:
        OSError: the file cannot be made, written or named.
    """
    # Nobody else has this name; and a file cannot be moved to another disk in one step.
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    file: File | None = None

    async def make() -> File:
        nonlocal file  # known even if whoever asked for it has been cancelled
        file = await aiofiles.open(part, "xb")
        return file

    async def name() -> None:
        assert file is not None
        await file.close()
        await aiofiles.os.replace(part, target)

    async def remove() -> None:
        try:
            if file is not None:
                await file.close()  # Windows removes no open file
        finally:
            await asyncio.to_thread(part.unlink, missing_ok=True)

    try:
        yield await to_the_end(make())
        await to_the_end(name())
    except BaseException:
        await to_the_end(remove())
        raise


async def download(
    session: aiohttp.ClientSession,
    url: str,
    target: Path,
    sha256: str | None = None,
    *,
    largest: int = LARGEST,
    progress: Callable[[int], object] = lambda _: None,
) -> None:
    """Download `url` to the file `target`, which is replaced if it is there already.

    Args:
        sha256: the hexadecimal checksum that the body must have, if it is known. If it
            is not, nor the length announced, the body is over when the site says so.
        largest: bytes that it may have.
        progress: called with the size of each piece, once it is written.

    Raises:
        DownloadError: another status than 200; or a body cut short, too long,
            compressed, or with another checksum.
        aiohttp.ClientError, TimeoutError: no answer.
        UnicodeError: the host's name is none, such as "a..b" (RFC 1035).
        OSError: the file cannot be written.
    """
    checksum = hashlib.sha256()
    size = 0
    # Bytes as they are stored: neither compressed nor, by aiohttp, decompressed.
    headers = {"Accept-Encoding": "identity"}
    async with session.get(url, headers=headers) as response:
        if response.status != 200:  # 204 and 206 are no errors, but no file either
            raise DownloadError(f"{url}: status {response.status}")
        if "Content-Encoding" in response.headers:
            raise DownloadError(f"{url}: compressed")
        if (response.content_length or 0) > largest:
            raise DownloadError(f"{url}: {response.content_length:,} announced")
        async with whole_file(target) as file:
            try:
                # While a piece is written the socket fills up, and the site waits.
                async for piece in response.content.iter_chunked(PIECE):
                    size += len(piece)
                    if size > largest:
                        raise DownloadError(f"{url}: more than {largest:,} bytes")
                    checksum.update(piece)
                    await file.write(piece)
                    progress(len(piece))
            except aiohttp.ClientPayloadError as error:
                raise DownloadError(f"{url}: cut short") from error
            if sha256 is not None and checksum.hexdigest() != sha256.lower():
                raise DownloadError(f"{url}: another checksum")


def file_in(folder: Path, name: str) -> Path:
    """Return the path of `name` in `folder`, for a name that somebody else has chosen.

    Raises:
        DownloadError: it leads elsewhere, or is no name of a file on every system.
    """
    # A dot at the end vanishes on Windows; there, con and its like are devices.
    reserved = r"(?i:con|prn|aux|nul|conin\$|conout\$|(com|lpt)[\d¹²³]) *(\..*)?"
    if (
        not re.fullmatch(r'[^\x00-\x1f/\\:*?"<>|\ud800-\udfff]+', name)
        or name.startswith((".", " "))
        or name.endswith((".", " "))
        or re.fullmatch(reserved, name)
        or len(name.encode()) > 255
    ):
        raise DownloadError(f"{name!r}: not the name of a file")
    return folder / name


@dataclass(frozen=True, slots=True)
class Source:
    """Where a file is, and the checksum that it must have, if that is known."""

    url: str
    sha256: str | None = None


async def download_all(
    session: aiohttp.ClientSession,
    wanted: Mapping[str, Source],
    folder: Path,
    n_workers: int,
) -> dict[str, Exception]:
    """Download all of `wanted`, `n_workers` at a time; return what failed, by name.

    A bug, that is another exception than `download` foresees, ends it all.
    """
    failures: dict[str, Exception] = {}
    rest = iter(wanted.items())  # one for all workers: each gets what is next

    async def work() -> None:
        for name, source in rest:
            try:
                target = file_in(folder, name)
                await download(session, source.url, target, source.sha256)
            # TimeoutError is an OSError, too.
            except (DownloadError, aiohttp.ClientError, UnicodeError, OSError) as error:
                failures[name] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(n_workers):
            group.create_task(work())
    return failures


async def cancel_in_mid_file(
    session: aiohttp.ClientSession, url: str, folder: Path
) -> tuple[set[Path], set[Path]]:
    """Cancel a download; return what else was in the folder before and afterwards."""
    before = set(folder.iterdir())
    some_written = asyncio.Event()
    task = asyncio.create_task(
        download(session, url, folder / "drip", progress=lambda _: some_written.set())
    )
    await some_written.wait()
    during = set(folder.iterdir()) - before
    task.cancel()
    await asyncio.wait([task])
    return during, set(folder.iterdir()) - before


async def demonstrate(
    site: file_site.Site, folder: Path, n_files: int, n_workers: int
) -> None:
    """Download good and bad files, check what is there, and print it."""
    right = {
        f"{n:03}.bin": Source(
            # Not answered before so many are in progress: the bound is reached.
            f"{site.url}/files/{n}?size={SIZE - n}&together={n_workers}",
            file_site.checksum(str(n), SIZE - n),
        )
        for n in range(n_files)
    }
    wrong = {
        "../escape.bin": Source(f"{site.url}/files/escape"),
        "altered.bin": Source(f"{site.url}/files/a", hashlib.sha256().hexdigest()),
        "huge.bin": Source(f"{site.url}/files/a?size={2 * LARGEST}"),
        "missing.bin": Source(f"{site.url}/status/404"),
        "truncated.bin": Source(f"{site.url}/truncated/a?size=1000"),
    }
    before = set(folder.iterdir()) - {folder / name for name in right}
    print(f"{n_files + len(wrong)} downloads, {n_workers} at a time")
    connector = aiohttp.TCPConnector(limit=n_workers)  # instead of 100 connections
    async with (
        asyncio.timeout(TIME_LIMIT),
        aiohttp.ClientSession(timeout=TIMEOUT, connector=connector) as session,
    ):
        failures = await download_all(session, wrong | right, folder, n_workers)
        most = site.counts.most
        drip = f"{site.url}/drip/a?size=1000&pause=0.01"
        during, afterwards = await cancel_in_mid_file(session, drip, folder)

    for name in sorted(failures):
        print(f"{name:13}  {failures[name]}")
    if failures.keys() != wrong.keys():
        others = ", ".join(sorted(failures.keys() ^ wrong.keys()))
        raise SystemExit(f"other failures than expected: {others}")
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in set(folder.iterdir()) - before
    }
    if sums != {name: source.sha256 for name, source in right.items()}:
        raise SystemExit(f"not the files that were to be there: {sums}")
    print(f"{n_files} files whole and verified, nothing of the {len(wrong)} others")
    if most != n_workers:
        raise SystemExit(f"{most} requests at a time instead of {n_workers}")
    print(f"in progress at the site: {most} at most")
    if [path.suffix for path in during] != [".part"] or afterwards:
        raise SystemExit(f"cancelled: {during} before, {afterwards} afterwards")
    print("one more, cancelled in mid-file: nothing of it is left")


def existing_folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {text}")
    return path


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=positive, default=20)
    parser.add_argument("--workers", type=positive, default=5)
    parser.add_argument("--output", type=existing_folder, metavar="FOLDER")
    options = parser.parse_args()
    if options.workers > MAX_WORKERS:
        parser.error(f"--workers: {MAX_WORKERS} at most, not {options.workers}")
    if options.workers > options.files:
        parser.error(f"{options.workers} workers for {options.files} files: too many")

    with ExitStack() as stack:
        folder = options.output or Path(
            stack.enter_context(tempfile.TemporaryDirectory())
        )
        site = stack.enter_context(file_site.serve())
        asyncio.run(demonstrate(site, folder, options.files, options.workers))


if __name__ == "__main__":
    main()
