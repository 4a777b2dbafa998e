# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""Being polite: so many requests a second, and so many at a time, to each host.

A token bucket grants requests at a steady rate, and after a rest a burst of a few at
once: in any window of w seconds at most burst + rate x w. One thread at a time waits
for the next token, the others queue for its place; whoever is granted one late, because
the machine was busy, moves all that follow. Nothing fills the bucket in the background:
the time at which the next token is due says it all.

The rate bounds how often one asks. A site that slows down would still collect ever
more requests, so a semaphore bounds how many are under way, too. Each host has its own
of both.

ITU-T I.371, annex A (the generic cell rate algorithm, virtual scheduling).

Try:  --rate 50
Try:  --burst 1

Output:
    to each host 30 requests a second, 4 at once after a rest, 2 under way
    http://127.0.0.1:<port> 24 requests   0.67 s   36.0/s
    http://127.0.0.1:<port> 24 requests   0.67 s   36.0/s
    no window of time held more than its share, and no host more than its two
"""

import argparse
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import combinations
from urllib.parse import urlsplit

import local_site
import requests

TIMEOUT = 10.0  # seconds without a byte from the site
SECOND = 1_000_000_000  # nanoseconds
N_REQUESTS = 24
N_THREADS = 8
AT_A_TIME = 2  # requests under way to one host


class TokenBucket:
    """Grants tokens to any number of threads, `rate` a second and `burst` at once.

    Time is counted in whole nanoseconds, so that no rounding adds up.

    Args:
        rate: tokens a second, in the long run.
        burst: tokens that may be granted at the same moment, after a rest.
        clock: gives the time in nanoseconds; must never go back.
        sleep: spends that many seconds.

    Raises:
        ValueError: `rate` is not positive, or `burst` is less than 1.
    """

    def __init__(
        self,
        rate: float,
        burst: int = 1,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if not 0 < rate < math.inf:
            raise ValueError(f"the rate must be positive, not {rate}")
        if burst < 1:
            raise ValueError(f"the burst must be at least 1, not {burst}")
        self.interval = math.ceil(SECOND / rate)  # nanoseconds
        self._ahead = (burst - 1) * self.interval  # a token may come so much early
        self._clock = clock
        self._sleep = sleep
        self._turn = threading.Lock()  # held by the thread that waits for a token
        # When the next token is due, were there no bursts. Guarded by _turn. A time
        # that has passed is as good as now: rest is not saved up for ever.
        self._due = clock()

    def acquire(self, timeout: float | None = None) -> int:
        """Wait for a token; return when it was granted, in nanoseconds.

        Raises:
            TimeoutError: it would take longer than `timeout` seconds. No token was
                taken.
        """
        latest = math.inf if timeout is None else self._clock() + timeout * SECOND
        if not self._turn.acquire(timeout=-1 if timeout is None else max(0, timeout)):
            raise TimeoutError(f"others have waited for a token for {timeout:g} s")
        try:
            granted = self._clock()
            valid = self._due - self._ahead
            if max(granted, valid) > latest:
                wait = (valid - granted) / SECOND
                raise TimeoutError(f"{wait:.3g} s until the next token")
            while granted < valid:
                self._sleep((valid - granted) / SECOND)
                granted = self._clock()
            self._due = max(granted, self._due) + self.interval
            return granted
        finally:
            self._turn.release()


def origin(url: str) -> str:
    """Return scheme, host and port of a URL, spelt alike for all URLs of a site.

    Raises:
        ValueError: the URL is malformed.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}:{port}"


class HostLimits:
    """Limits the requests to each host: how many at a time, and how often.

    Args:
        at_a_time: requests under way to one host.
        new_bucket: makes the token bucket of a host that was not asked before.
    """

    def __init__(self, at_a_time: int, new_bucket: Callable[[], TokenBucket]) -> None:
        self._at_a_time = at_a_time
        self._new_bucket = new_bucket
        self._lock = threading.Lock()  # guards _hosts
        self._hosts: dict[str, tuple[threading.Semaphore, TokenBucket]] = {}

    @contextmanager
    def turn(self, url: str) -> Iterator[int]:
        """Wait until `url` may be asked for; the block is one request under way.

        Gives the time at which its token was granted, in nanoseconds.
        """
        host = origin(url)
        with self._lock:
            if host not in self._hosts:
                slots = threading.Semaphore(self._at_a_time)
                self._hosts[host] = slots, self._new_bucket()
            slots, bucket = self._hosts[host]
        # The slot first: a token taken too early would be used too late, and so
        # together with the next ones.
        with slots:
            yield bucket.acquire()


class Gauge:
    """Counts how many threads are inside `with gauge:`, and remembers the most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both counts
        self._inside = 0
        self.most = 0

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1


def keeps_rate(times: list[int], interval: int, at_once: int) -> bool:
    """Tell whether tokens were granted no faster than a token bucket may.

    That is: from any of `times` to the k-th after it, at least k - at_once + 1
    intervals have passed.
    """
    times = sorted(times)
    return all(
        times[last] - times[first] >= (last - first - at_once + 1) * interval
        for first, last in combinations(range(len(times)), 2)
    )


def burst(text: str) -> int:
    number = int(text)
    if not 1 <= number <= N_REQUESTS // 2:
        raise argparse.ArgumentTypeError(
            f"must be in 1 … {N_REQUESTS // 2}, not {number}"
        )
    return number


def rate(text: str) -> float:
    number = float(text)
    if not 10 <= number <= 1000:
        raise argparse.ArgumentTypeError(f"must be in 10 … 1000, not {number:g}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    parser.add_argument("--rate", type=rate, default=30.0)
    parser.add_argument("--burst", type=burst, default=4)
    options = parser.parse_args()

    limits = HostLimits(AT_A_TIME, lambda: TokenBucket(options.rate, options.burst))
    with (
        ThreadPoolExecutor(N_THREADS) as pool,  # after Ctrl-C the sites end before it
        local_site.site_for(options.url) as one,
        local_site.site_for(None) as other,
    ):
        print(
            f"to each host {options.rate:g} requests a second, {options.burst} at once"
            f" after a rest, {AT_A_TIME} under way"
        )
        hosts = [one.url, other.url]
        granted: dict[str, list[int]] = {host: [] for host in hosts}
        under_way = {host: Gauge() for host in hosts}

        def ask(host: str) -> int:
            with limits.turn(host) as when, under_way[host]:
                granted[host].append(when)
                return requests.get(f"{host}/get", timeout=TIMEOUT).status_code

        statuses = list(pool.map(ask, hosts * N_REQUESTS))

    for host, times in granted.items():
        took = (max(times) - min(times)) / SECOND
        print(
            f"{host}  {len(times)} requests  {took:5.2f} s  {len(times) / took:5.1f}/s"
        )
    if statuses != [200] * 2 * N_REQUESTS:
        raise SystemExit(f"unexpected statuses: {set(statuses)}")
    interval = TokenBucket(options.rate).interval
    if not all(keeps_rate(t, interval, options.burst) for t in granted.values()):
        raise SystemExit("asked faster than the token bucket allows")
    if any(gauge.most > AT_A_TIME for gauge in under_way.values()):
        raise SystemExit(f"more than {AT_A_TIME} requests were under way to one host")
    print("no window of time held more than its share, and no host more than its two")


if __name__ == "__main__":
    main()
