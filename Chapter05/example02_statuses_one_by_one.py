# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""The statuses of a list of pages, asked for one after the other.

Each request waits for its answer before the next one is sent, so that the whole list
takes as long as all answers together, although there is hardly anything to compute.
That is what the rest of the chapter is about.

Book: Chapter 5, example2.
Try:  --url https://httpbin.org

Output:
    page         status      time
    /status/200  200     3.6 ms
    /status/404  404     2.0 ms
    /status/418  418     1.9 ms
    /status/503  503     1.8 ms
    /redirect/1  200     3.5 ms
    /delay/0.2   200   203.1 ms
    /delay/0.3   200   303.7 ms
    one by one         519.6 ms, the sum of 7 waits
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass

import local_site
import requests

TIMEOUT = 10.0  # seconds without a byte from the site

# What each page answers, the slow ones as well.
EXPECTED = {
    "/status/200": 200,
    "/status/404": 404,
    "/status/418": 418,
    "/status/503": 503,
    "/redirect/1": 200,
    "/delay/0.2": 200,
    "/delay/0.3": 200,
}


@dataclass(frozen=True, slots=True)
class Ping:
    """The status of the answer for `url`, and the seconds until it was complete."""

    url: str
    status: int
    seconds: float


def ping(url: str, timeout: float = TIMEOUT) -> Ping:
    """Ask for `url`, following redirects.

    Raises:
        requests.RequestException: there is no answer, or only a part of it.
    """
    began = time.perf_counter()
    status = requests.get(url, timeout=timeout).status_code
    return Ping(url, status, time.perf_counter() - began)


def ping_one_by_one(urls: Sequence[str]) -> list[Ping]:
    """Ask for each URL after the answer of the one before; return pings in order.

    Raises:
        requests.RequestException: the first that failed; the rest is not asked for.
    """
    return [ping(url) for url in urls]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    options = parser.parse_args()

    with local_site.site_for(options.url) as site:
        print("page         status      time")
        began = time.perf_counter()
        pings = ping_one_by_one([site.url + path for path in EXPECTED])
        total = time.perf_counter() - began

    for (path, expected), one in zip(EXPECTED.items(), pings, strict=True):
        print(f"{path:11}  {one.status}  {1000 * one.seconds:6.1f} ms")
        if one.status != expected:
            raise SystemExit(f"{one.url}: {one.status} instead of {expected}")
    together = sum(one.seconds for one in pings)
    if total < together:
        raise SystemExit("the waits overlapped")
    print(f"one by one        {1000 * total:6.1f} ms, the sum of {len(pings)} waits")


if __name__ == "__main__":
    main()
