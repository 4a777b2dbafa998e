# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""One slow answer holds everything, if all are joined before any is looked at.

The answers below are all there within milliseconds, but for one. A program that
starts its threads, joins them all, and then reports, reports nothing until the last
has come. `as_completed` hands over each answer as soon as it is there, so that the
slow one holds up only itself. It still decides when the whole is done: for that, see
the deadline of example06.

Book: Chapter 5, example5.
Try:  --slow 3

Output:
    5 fast answers and one after 1 s, reported after
    all joined    fast  1.02 s   slow  1.02 s
    as completed  fast  0.01 s   slow  1.02 s
    as completed, the slow answer holds up nothing but itself
"""

import argparse
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

import local_site
import requests

TIMEOUT = 20.0  # seconds without a byte from the site
N_FAST = 5


def ping(url: str, timeout: float = TIMEOUT) -> int:
    """Return the status of the answer for `url`, after redirects.

    Raises:
        requests.RequestException: there is no answer, or only a part of it.
    """
    return requests.get(url, timeout=timeout).status_code


def report_at_the_end(urls: Sequence[str], report: Callable[[str, int], None]) -> None:
    """Ask for all URLs at once; call `report(url, status)` for each when all are there.

    Raises:
        requests.RequestException: of the first URL that failed, nothing reported.
    """
    with ThreadPoolExecutor(max(1, len(urls))) as pool:
        statuses = list(pool.map(ping, urls))
    for url, status in zip(urls, statuses, strict=True):
        report(url, status)


def report_each(urls: Sequence[str], report: Callable[[str, int], None]) -> None:
    """Ask for all URLs at once; call `report(url, status)` for each when it is there.

    Raises:
        ExceptionGroup: what went wrong, after all others have been reported.
    """
    failures: list[Exception] = []
    with ThreadPoolExecutor(max(1, len(urls))) as pool:
        url_of = {pool.submit(ping, url): url for url in urls}
        for future in as_completed(url_of):
            try:
                status = future.result()
            except Exception as failure:
                failures.append(failure)
            else:
                report(url_of[future], status)
    if failures:
        raise ExceptionGroup(f"{len(failures)} of {len(urls)} failed", failures)


def reporting_times(
    ask: Callable[[Sequence[str], Callable[[str, int], None]], None],
    urls: Sequence[str],
) -> dict[str, float]:
    """Return after how many seconds `ask` reports each of `urls`."""
    times: dict[str, float] = {}
    began = time.perf_counter()

    def note(url: str, _status: int) -> None:
        times[url] = time.perf_counter() - began

    ask(urls, note)
    return times


def seconds(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 5:
        raise argparse.ArgumentTypeError(f"must be in 0.1 … 5, not {number:g}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    parser.add_argument("--slow", type=seconds, default=1.0)
    options = parser.parse_args()

    reported: dict[str, dict[str, float]] = {}
    with local_site.site_for(options.url) as site:
        fast = [f"{site.url}/status/{200 + n}" for n in range(N_FAST)]
        slow = f"{site.url}/delay/{options.slow:g}"
        print(f"{N_FAST} fast answers and one after {options.slow:g} s, reported after")
        for name, ask in {
            "all joined": report_at_the_end,
            "as completed": report_each,
        }.items():
            reported[name] = reporting_times(ask, [*fast, slow])

    for name, times in reported.items():
        if times.keys() != {*fast, slow}:
            raise SystemExit(f"{name}: not all reported, but {sorted(times)}")
        early = max(times[url] for url in fast)
        print(f"{name:12}  fast {early:5.2f} s   slow {times[slow]:5.2f} s")
    if min(reported["all joined"].values()) < options.slow:
        raise SystemExit("an answer was reported before the slow one had come")
    print("as completed, the slow answer holds up nothing but itself")


if __name__ == "__main__":
    main()
