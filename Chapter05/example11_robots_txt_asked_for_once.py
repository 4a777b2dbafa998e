# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""Before anything else: may I? `robots.txt` is asked for once, by many threads.

A site says in `/robots.txt` what programs are welcome to. Each thread needs to know
before its first request, and all of them start at once; a plain dictionary as a cache
would let every one of them ask, as none finds the answer there yet. Here the first
leaves a future in the dictionary, the others find it and wait for it: one request,
however many threads (a "single flight"). Should it fail, all who wait are told, and
the next one tries again.

If there is no such file, everything is allowed; if the site is in trouble, nothing
is, until it has recovered (RFC 9309, section 2.3.1). The standard library's
`urllib.robotparser` reads the rules.

Try:  --threads 100

Output:
    20 threads, all at once, and what the site was asked for
    /robots.txt    1
    /get          10
    /deny          0
    one thread asked for the rules, and all of them kept to them
"""

import argparse
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar
from urllib.parse import urlsplit
from urllib.robotparser import RobotFileParser

import local_site
import requests

TIMEOUT = 10.0  # seconds without a byte from the site
AGENT = "concurrency-book"
MOST_READ = 500 * 1024  # bytes of the rules, which are UTF-8 (RFC 9309, section 2.5)

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SingleFlight(Generic[K, V]):
    """A cache that computes each value once, also for threads that ask together.

    Args:
        compute: makes the value of a key. It must not ask for the same key itself.
    """

    def __init__(self, compute: Callable[[K], V]) -> None:
        self._compute = compute
        self._lock = threading.Lock()  # guards _futures; not held while computing
        self._futures: dict[K, Future[V]] = {}

    def get(self, key: K) -> V:
        """Return the value of `key`, computed by this thread or by another one.

        Raises:
            Exception: what the computation raised. It is not kept: who asks from
                then on starts anew.
            concurrent.futures.CancelledError: the computing thread was interrupted.
        """
        with self._lock:
            future = self._futures.get(key)
            first = future is None
            if future is None:
                future = self._futures[key] = Future()
        if first:
            self._fulfil(key, future)
        return future.result()

    def _fulfil(self, key: K, future: Future[V]) -> None:
        try:
            value = self._compute(key)
        except BaseException as error:
            with self._lock:  # before anybody is told, who may ask again at once
                del self._futures[key]
            if not isinstance(error, Exception):  # Ctrl-C is not the others' affair
                future.cancel()
                raise
            future.set_exception(error)
        else:
            future.set_result(value)


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, spelt alike for all URLs of a site.

    Raises:
        ValueError: the URL is malformed.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class Robots:
    """Knows what sites allow.

    Args:
        agent: the name under which one asks, also as `User-Agent`.
        get: sends a GET request for a URL.
    """

    def __init__(self, agent: str, get: Callable[[str], requests.Response]) -> None:
        self._agent = agent
        self._get = get
        self._rules: SingleFlight[str, RobotFileParser] = SingleFlight(self._read)

    def allow(self, url: str) -> bool:
        """Tell whether `url` may be asked for.

        Raises:
            requests.RequestException: the rules of its site cannot be had now, so that
                nothing may be asked for.
        """
        rules = self._rules.get(f"{origin(url)}/robots.txt")
        return rules.can_fetch(self._agent, url)

    def _read(self, robots_url: str) -> RobotFileParser:
        response = self._get(robots_url)
        if response.status_code >= 500 or response.status_code == 429:
            response.raise_for_status()  # not now is not the same as whatever you like
        rules = RobotFileParser(robots_url)
        missing = response.status_code >= 400
        text = response.content[:MOST_READ].decode("utf-8-sig", "replace")
        rules.parse([] if missing else text.splitlines())
        return rules


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= local_site.THREADS:
        raise argparse.ArgumentTypeError(
            f"must be in 2 … {local_site.THREADS}, not {number}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    parser.add_argument("--threads", type=some, default=20)
    options = parser.parse_args()
    n = options.threads

    asked: list[str] = []
    all_here = threading.Barrier(n)

    def get(url: str) -> requests.Response:
        asked.append(urlsplit(url).path)
        headers = {"User-Agent": AGENT}
        return requests.get(url, headers=headers, timeout=TIMEOUT)

    with (
        ThreadPoolExecutor(n) as pool,  # after Ctrl-C the site ends before it
        local_site.site_for(options.url) as site,
    ):
        print(f"{n} threads, all at once, and what the site was asked for")
        robots = Robots(AGENT, get)

        def visit(path: str) -> str:
            all_here.wait(TIMEOUT)
            if not robots.allow(site.url + path):
                return "not welcome"
            return str(get(site.url + path).status_code)

        paths = [("/get", "/deny")[number % 2] for number in range(n)]
        try:
            outcomes = list(pool.map(visit, paths))
        except BaseException:
            all_here.abort()  # or those at the barrier would wait for the others
            raise

    counts = {path: asked.count(path) for path in ("/robots.txt", "/get", "/deny")}
    for path, count in counts.items():
        print(f"{path:11}  {count:3}")
    if counts["/robots.txt"] != 1:
        raise SystemExit("the rules were to be asked for once")
    if counts["/deny"] or dict(zip(paths, outcomes, strict=True))["/get"] != "200":
        raise SystemExit(f"what is allowed, and that only, was to be asked: {counts}")
    print("one thread asked for the rules, and all of them kept to them")


if __name__ == "__main__":
    main()
