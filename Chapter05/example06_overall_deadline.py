# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""A deadline for a whole list of requests; the late answers are reported as late.

`concurrent.futures.wait` sleeps until all answers are there or the deadline has come,
whichever is first, and says which are missing. No loop asks again and again whether
something has ended.

A thread cannot be stopped from outside. What has not begun by the deadline is
cancelled and never asked; what waits for its answer goes on waiting, at most for its
own time limit, and what it brings is thrown away. The end of the executor's `with`
waits for it, too. To cut off an answer itself, see example08.

Book: Chapter 5, example6.
Try:  --deadline 0.5

Output:
    3 threads, deadline 1 s
    /status/200  200
    /status/404  404
    /delay/2     late
    /delay/2     late
    /delay/2     late
    /status/201  never asked
    reported after 1.00 s; the last thread ended after 2.01 s
"""

import argparse
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait

import local_site
import requests

TIMEOUT = 10.0  # seconds without a byte from the site
THREADS = 3
SLOW = 2.0  # seconds


def ping(url: str, timeout: float = TIMEOUT) -> int:
    """Return the status of the answer for `url`, after redirects.

    Raises:
        requests.RequestException: there is no answer, or only a part of it.
    """
    return requests.get(url, timeout=timeout).status_code


def ping_within(
    seconds: float, urls: Sequence[str], pool: Executor
) -> list[int | BaseException]:
    """Ask for `urls` with the threads of `pool`; return after `seconds` at the latest.

    Returns:
        For each URL, in order: the status; what went wrong; or a TimeoutError that says
        whether the answer is late or was never asked for.
    """
    futures = [pool.submit(ping, url) for url in urls]
    try:
        done, _ = wait(futures, seconds)
    except BaseException:  # Ctrl-C: what has not begun is not to begin
        for future in futures:
            future.cancel()
        raise

    outcomes: list[int | BaseException] = []
    for url, future in zip(urls, futures, strict=True):
        # Late is what was late when the deadline came, even if it is here by now.
        if future in done:
            outcomes.append(future.exception() or future.result())
        elif future.cancel():
            outcomes.append(TimeoutError(f"never asked: {url}"))
        else:
            outcomes.append(TimeoutError(f"late: {url}"))
    return outcomes


def seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < SLOW:
        raise argparse.ArgumentTypeError(
            f"must be more than 0 and less than {SLOW:g}, not {number:g}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    parser.add_argument("--deadline", type=seconds, default=1.0)
    options = parser.parse_args()

    fast = ["/status/200", "/status/404"]
    paths = [*fast, *THREADS * [f"/delay/{SLOW:g}"], "/status/201"]
    with (
        ThreadPoolExecutor(
            THREADS
        ) as pool,  # outermost: after Ctrl-C the site ends first
        local_site.site_for(options.url) as site,
    ):
        print(f"{THREADS} threads, deadline {options.deadline:g} s")
        began = time.perf_counter()
        urls = [site.url + path for path in paths]
        outcomes = ping_within(options.deadline, urls, pool)
        reported = time.perf_counter() - began
        pool.shutdown()
        ended = time.perf_counter() - began

    kinds = []
    for path, outcome in zip(paths, outcomes, strict=True):
        kinds.append(str(outcome).partition(":")[0])
        print(f"{path:11}  {kinds[-1]}")
    if kinds != ["200", "404", *THREADS * ["late"], "never asked"]:
        raise SystemExit("the slow answers, and they alone, were to be late")
    print(f"reported after {reported:.2f} s; the last thread ended after {ended:.2f} s")


if __name__ == "__main__":
    main()
