# /// script
# requires-python = ">=3.11"
# dependencies = ["aiohttp>=3.10.0", "requests>=2.31.0"]
# ///
"""The same files with requests and with aiohttp, in one run, against the limit.

Each answer comes after a delay. Who asks for n files, c at a time, needs n × delay / c
at least: that is the limit, and no library is faster. requests one after the other is
close to its limit, but that one is the longest. With ten at a time it matters little
whether threads wait (requests) or tasks (aiohttp): waiting is what they have in common.

What is above the limit is work: connections are made, headers parsed, bodies copied. On
the loopback client and site share the cores, and here even one interpreter, so the
site's part of the work is in all these figures. A session each for the threads:
requests does not promise that one may be shared.

Book: Chapter 11, example6.
Try:  --delay 0.2
Try:  --files 200 --at-a-time 50

Output:
    20 files, each after 0.03 s
                                 at a time  limit    took     above the limit
    requests, one after another          1  0.60 s  0.658 s  1.10x
    requests in threads                 10  0.06 s  0.100 s  1.67x
    aiohttp in tasks                    10  0.06 s  0.104 s  1.73x
    3 ways, the same 20 checksums
"""

import argparse
import asyncio
import hashlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import file_site
import requests

try:
    import aiohttp
except ModuleNotFoundError:  # there may be no wheel for a free-threaded build
    print("needs aiohttp: pip install aiohttp")
    raise SystemExit(77) from None

SIZE = 10_000  # bytes of a file
TIMEOUT = 30.0  # seconds without a byte from the site

Checksums = dict[str, str]  # SHA-256 in hexadecimal digits by URL


def _with_requests(session: requests.Session, url: str) -> str:
    with session.get(url, timeout=TIMEOUT) as response:
        response.raise_for_status()
        return hashlib.sha256(response.content).hexdigest()


def one_after_another(urls: Sequence[str]) -> Checksums:
    """Download `urls` with requests, one after another, over one connection.

    Raises:
        requests.RequestException: a download failed.
    """
    with requests.Session() as session:
        session.trust_env = False  # no proxy, and no time for looking for one
        return {url: _with_requests(session, url) for url in urls}


def in_threads(urls: Sequence[str], at_a_time: int) -> Checksums:
    """Download `urls` with requests in threads, each with a session of its own.

    Raises:
        requests.RequestException: a download failed; no further one has begun then.
    """
    rest: queue.SimpleQueue[str] = queue.SimpleQueue()
    for url in urls:
        rest.put(url)
    stopping = threading.Event()

    def work() -> Checksums:
        checksums: Checksums = {}
        with requests.Session() as session:
            session.trust_env = False
            try:
                while not stopping.is_set():
                    url = rest.get_nowait()
                    checksums[url] = _with_requests(session, url)
            except queue.Empty:
                pass
            except BaseException:
                stopping.set()
                raise
        return checksums

    checksums: Checksums = {}
    with ThreadPoolExecutor(at_a_time) as pool:
        try:
            for future in [pool.submit(work) for _ in range(at_a_time)]:
                checksums |= future.result()
        finally:
            stopping.set()  # after Ctrl-C none of them begins another download
    return checksums


async def in_tasks(urls: Sequence[str], at_a_time: int) -> Checksums:
    """Download `urls` with aiohttp in tasks, which share a session.

    Raises:
        ExceptionGroup: a download failed; the others have been cancelled.
    """
    rest = iter(urls)
    checksums: Checksums = {}

    async def work(session: aiohttp.ClientSession) -> None:
        for url in rest:
            async with session.get(url) as response:
                response.raise_for_status()
                body = await response.read()
            checksums[url] = hashlib.sha256(body).hexdigest()

    timeout = aiohttp.ClientTimeout(total=None, sock_read=TIMEOUT)
    connector = aiohttp.TCPConnector(limit=at_a_time)  # instead of 100 connections
    async with (
        aiohttp.ClientSession(timeout=timeout, connector=connector) as session,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(at_a_time):
            group.create_task(work(session))
    return checksums


def seconds(text: str) -> float:
    number = float(text)
    if not 0.001 <= number <= 10:
        raise argparse.ArgumentTypeError(f"must be in 0.001 … 10, not {number:g}")
    return number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=positive, default=20)
    parser.add_argument("--delay", type=seconds, default=0.03)
    parser.add_argument("--at-a-time", type=positive, default=10, metavar="N")
    options = parser.parse_args()
    n_files, at_a_time, delay = options.files, options.at_a_time, options.delay
    if at_a_time > n_files:
        parser.error(f"{n_files} files: {at_a_time} at a time are too many")

    def run_in_tasks(urls: Sequence[str]) -> Checksums:
        return asyncio.run(in_tasks(urls, at_a_time))

    runs: dict[str, tuple[int, Callable[[Sequence[str]], Checksums]]] = {
        "requests, one after another": (1, one_after_another),
        "requests in threads": (at_a_time, partial(in_threads, at_a_time=at_a_time)),
        "aiohttp in tasks": (at_a_time, run_in_tasks),
    }
    print(f"{n_files} files, each after {delay:g} s")
    print(f"{'':27}  at a time  limit    took     above the limit")
    with file_site.serve() as site:
        wanted = {
            f"{site.url}/files/{n}?size={SIZE}&delay={delay}": file_site.checksum(
                str(n), SIZE
            )
            for n in range(n_files)
        }
        for name, (n, run) in runs.items():
            began = time.perf_counter()
            got = run(list(wanted))
            took = time.perf_counter() - began
            limit = -(-n_files // n) * delay
            print(f"{name:27}  {n:9}  {limit:.2f} s  {took:.3f} s  {took / limit:.2f}x")
            if got != wanted:
                raise SystemExit(f"{name}: not the files that were wanted")
    print(f"3 ways, the same {n_files} checksums")


if __name__ == "__main__":
    main()
