# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "tqdm>=4.66.0",
#     "trustme>=1.1.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""Files are downloaded side by side: whole and verified, or not there at all.

The body is written as it arrives, in pieces, under a temporary name in the same
folder, and its checksum is computed on the way. Only when all has come, and the
checksum is right, does the file get its name, in one step (`os.replace`), so that
nobody ever finds half of it. Whatever goes wrong, Ctrl-C included, the temporary file
is removed, and the other downloads go on.

The progress bar, of tqdm, is drawn on a terminal only; a log file has no use for it.

Try:  --files 50

Output:
    24 downloads, 4 at a time
    cut-chunk   ChunkedEncodingError
    missing     HTTPError
    other       ChecksumError
    truncated   ChunkedEncodingError
    20 files whole and verified, nothing of the 4 others
"""

import argparse
import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import local_site
import lying_site
import requests
from tqdm import tqdm

TIMEOUT = 10.0  # seconds without a byte from the site
PIECE = 64 * 1024  # bytes
N_THREADS = 4
SIZE = 100_000  # bytes of the longest file; httpbin goes to 102,400


class ChecksumError(Exception):
    """A body was complete, but not the one that was wanted."""


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    *,
    session: requests.Session | None = None,
    progress: Callable[[int], object] = lambda _: None,
    timeout: float = TIMEOUT,
) -> None:
    """Download `url` to the file `target`, which is replaced if it is there already.

    Args:
        sha256: the hexadecimal checksum that the body must have, if it is known.
        session: who asks, if connections are to be kept; it must belong to this thread.
        progress: called with the size of each piece in bytes.
        timeout: seconds without a byte from the site.

    Raises:
        requests.RequestException: there was no answer, or another status than 200, or
            a body shorter than announced.
        ChecksumError: the body was another one.
        OSError: the file cannot be written.

    After any of these the folder is as it was before.
    """
    # No two threads or processes write the same file, and it is on the same disk as
    # the target, or it could not be renamed in one step.
    part = target.with_name(f".{os.getpid()}-{threading.get_ident()}.part")
    checksum = hashlib.sha256()
    # Bytes as they are stored: neither compressed nor, by requests, decompressed.
    headers = {"Accept-Encoding": "identity"}
    ask = session or requests
    try:
        with ask.get(url, headers=headers, stream=True, timeout=timeout) as response:
            compressed = "Content-Encoding" in response.headers
            if response.status_code != 200 or compressed:  # 103, 206, 304: no file
                wrong = "compressed" if compressed else f"{response.status_code}"
                raise requests.HTTPError(f"{url}: {wrong}", response=response)
            size = 0
            with part.open("xb") as file:
                for piece in response.iter_content(PIECE):
                    file.write(piece)
                    checksum.update(piece)
                    size += len(piece)
                    progress(len(piece))
        announced = response.headers.get("Content-Length", size)
        if str(size) != str(announced):  # not every version of urllib3 looks
            raise requests.ConnectionError(f"{url}: {size} of {announced} bytes")
        if sha256 is not None and checksum.hexdigest() != sha256.lower():
            raise ChecksumError(f"{url}: wrong checksum, {checksum.hexdigest()}")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def download_all(
    wanted: Mapping[Path, tuple[str, str | None]],
    n_threads: int,
    progress: Callable[[int], object] = lambda _: None,
) -> dict[Path, Exception]:
    """Download all of `wanted`; return what went wrong, by file.

    Args:
        wanted: URL and checksum (None if unknown) by file.
        n_threads: how many downloads are under way at a time.
        progress: called with the size of each piece in bytes; in any thread, but never
            in two at once.
    """
    failures: dict[Path, Exception] = {}
    lock = threading.Lock()
    stopping = threading.Event()

    def note(size: int) -> None:
        if stopping.is_set():
            raise InterruptedError("the program is to end")
        with lock:
            progress(size)

    pool = ThreadPoolExecutor(n_threads)
    try:
        file_of = {
            pool.submit(download, url, file, sha256, progress=note): file
            for file, (url, sha256) in wanted.items()
        }
        for future in as_completed(file_of):
            try:
                future.result()
            except Exception as failure:
                failures[file_of[future]] = failure
    finally:
        stopping.set()  # after Ctrl-C: those under way stop at their next piece ...
        pool.shutdown(cancel_futures=True)  # ... and the others do not begin
    return failures


def alphabet(size: int) -> bytes:
    """Return what httpbin sends for `/range/{size}`: the alphabet, again and again."""
    return bytes(ord("a") + n % 26 for n in range(size))


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    parser.add_argument("--files", type=positive, default=20)
    options = parser.parse_args()
    n_files = options.files

    sizes = [SIZE - n % SIZE for n in range(n_files)]
    with (
        local_site.site_for(options.url) as site,
        lying_site.serve() as liar,
        tempfile.TemporaryDirectory() as name,
    ):
        folder = Path(name)
        print(f"{n_files + 4} downloads, {N_THREADS} at a time")
        right: dict[Path, tuple[str, str | None]] = {
            folder / f"{n:03}.txt": (
                f"{site.url}/range/{size}",
                hashlib.sha256(alphabet(size)).hexdigest(),
            )
            for n, size in enumerate(sizes)
        }
        wrong: dict[Path, tuple[str, str | None]] = {
            folder / "truncated": (f"{liar.url}/truncated", None),
            folder / "cut-chunk": (f"{liar.url}/cut-chunk", None),
            folder / "other": (f"{liar.url}/honest", hashlib.sha256().hexdigest()),
            folder / "missing": (f"{site.url}/status/404", None),
        }
        with tqdm(
            total=sum(sizes), unit="B", unit_scale=True, leave=False, disable=None
        ) as bar:
            failures = download_all(right | wrong, N_THREADS, bar.update)
        there = {path: path.stat().st_size for path in folder.iterdir()}

    for path in sorted(failures):
        print(f"{path.name:10}  {type(failures[path]).__name__}")
    if failures.keys() != wrong.keys():
        raise SystemExit(f"other failures than expected: {failures}")
    if there != dict(zip(right, sizes, strict=True)):
        raise SystemExit(f"not the files that were to be there: {there}")
    print(f"{len(there)} files whole and verified, nothing of the {len(wrong)} others")


if __name__ == "__main__":
    main()
