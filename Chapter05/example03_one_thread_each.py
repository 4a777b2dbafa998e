# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""Fifty requests in fifty threads take about as long as the slowest single answer.

A thread that waits for an answer gives up the GIL, so all of them can wait together.
Each thread writes its result into a slot of its own, which needs no lock; what goes
wrong in a thread is kept, too, and raised where the results are wanted.

The yardstick is the slowest of a few answers asked for alone. What the threads take
beyond it is the work of sending and reading, which one core does for all of them.
One thread for each request is simple, and right for a list that is not long;
example07 does with fewer threads and connections.

Book: Chapter 5, example3.
Try:  --requests 100
Try:  --delay 1 --url https://httpbin.org

Output:
    50 requests, each answered after 0.5 s
    slowest of 3 asked alone     0.51 s
    one by one they would take  25.30 s
    in a thread each they take   0.58 s
    1.15x the slowest single answer; the aim is 1.5x
"""

import argparse
import threading
import time
from collections.abc import Sequence

import local_site
import requests

TIMEOUT = 20.0  # seconds without a byte from the site
ALONE = 3  # requests that are asked alone, to know what one takes
LIMIT = 1.5  # times the slowest single answer: what overlapped requests should take


def ping(url: str, timeout: float = TIMEOUT) -> int:
    """Return the status of the answer for `url`, after redirects.

    Raises:
        requests.RequestException: there is no answer, or only a part of it.
    """
    return requests.get(url, timeout=timeout).status_code


def ping_all(urls: Sequence[str]) -> list[int]:
    """Ask for all URLs at once, each in a thread; return the statuses in order.

    Raises:
        ExceptionGroup: what went wrong, after all have been tried.
    """
    statuses = [0] * len(urls)
    failures: list[Exception] = []

    def ask(position: int) -> None:
        try:
            statuses[position] = ping(urls[position])
        except Exception as failure:
            failures.append(failure)

    # Daemons: after Ctrl-C nobody waits for answers that nobody wants.
    threads = [
        threading.Thread(target=ask, args=(position,), daemon=True)
        for position in range(len(urls))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(urls)} failed", failures)
    return statuses


def some(text: str) -> int:
    number = int(text)
    if not 1 <= number <= local_site.THREADS:
        raise argparse.ArgumentTypeError(
            f"must be in 1 … {local_site.THREADS}, not {number}"
        )
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 10:
        raise argparse.ArgumentTypeError(f"must be in 0.1 … 10, not {number:g}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    parser.add_argument("--requests", type=some, default=50)
    parser.add_argument("--delay", type=seconds, default=0.5)
    options = parser.parse_args()
    n, delay = options.requests, options.delay

    with local_site.site_for(options.url) as site:
        print(f"{n} requests, each answered after {delay:g} s")
        url = f"{site.url}/delay/{delay:g}"
        alone = 0.0
        for _ in range(ALONE):
            began = time.perf_counter()
            ping(url)
            alone = max(alone, time.perf_counter() - began)
        began = time.perf_counter()
        statuses = ping_all([url] * n)
        together = time.perf_counter() - began

    if statuses != [200] * n:
        raise SystemExit(f"unexpected statuses: {set(statuses) - {200}}")
    print(f"slowest of {ALONE} asked alone   {alone:6.2f} s")
    print(f"one by one they would take {n * alone:6.2f} s")
    print(f"in a thread each they take {together:6.2f} s")
    if n > 2 and together >= n * delay:
        raise SystemExit("the waits did not overlap")
    print(f"{together / alone:.2f}x the slowest single answer; the aim is {LIMIT:g}x")


if __name__ == "__main__":
    main()
