# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "trustme>=1.1.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""Retries: how often, after what pause, and what must never be sent twice.

A busy site is helped by patience. It may say itself for how long (`Retry-After`);
if it does not, the pause doubles with each attempt, up to a limit, and is drawn at
random from nothing to that length, lest all clients come back at the same moment
(full jitter). Pauses longer than a limit are not worth it: then it is better to fail.

A POST that was sent may have been carried out, whatever came back, so it is not sent
again. A GET may be; and so may anything that never left, as when the connection was
refused.

`get_with_retries` is the idea from scratch; for work take `Retry` of urllib3, which
requests knows how to use. The site counts the attempts of both.

M. Brooker, "Exponential backoff and jitter", AWS Architecture Blog, 2015; RFC 9110,
sections 9.2.2 (idempotent methods) and 10.2.3 (Retry-After).

Output:
    at most 3 attempts
                      from scratch       urllib3
    GET /busy-twice   200, 3 sent        200, 3 sent
    GET /hang-up      no answer, 3 sent  no answer, 3 sent
    POST /hang-up     no answer, 1 sent  no answer, 1 sent
    POST /busy        503, 1 sent        503, 1 sent
    GET /status/503   503                503
    2.50 s, of which the busy site had asked for 2 s; no POST sent twice
"""

import argparse
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import local_site
import lying_site
import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError
from urllib3.util import Retry

TIMEOUT = 5.0  # seconds without a byte from the site
ATTEMPTS = 3
BUSY = frozenset({429, 502, 503, 504})
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


def retry_after(response: requests.Response) -> float | None:
    """Return for how many seconds a site asks to be left alone; None if it does not.

    The header holds seconds, or a date; what is neither counts as none.
    """
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        until = parsedate_to_datetime(value)
    except ValueError:
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def transient(error: requests.RequestException) -> bool:
    """Tell whether another attempt may fare better: not so for a bad certificate."""
    may_pass = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    )
    return isinstance(error, may_pass) and not isinstance(
        error, requests.exceptions.SSLError
    )


def never_sent(error: requests.RequestException) -> bool:
    """Tell whether the connection failed, so that the site cannot have seen it."""
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, NewConnectionError)


def with_retries(
    send: Callable[[], requests.Response],
    *,
    idempotent: bool,
    attempts: int = ATTEMPTS,
    base: float = 0.1,
    longest: float = 5.0,
    pause: Callable[[float], object] = time.sleep,
    draw: Callable[[float, float], float] = random.uniform,
) -> requests.Response:
    """Call `send`, at most `attempts` times, until it brings an answer worth having.

    Args:
        send: sends the request once.
        idempotent: whether sending twice has the effect of sending once.
        base: seconds; the first pause is up to that long, the second up to twice, …
        longest: seconds that a pause may last. A site that asks for more is not waited
            for.
        pause: how to spend the seconds; a test passes something faster.
        draw: a random number between two others.

    Returns:
        The last answer: with a status of BUSY if the site would not be ready in time.

    Raises:
        requests.RequestException: what `send` raised last.
        ValueError: `attempts` is less than 1.
    """
    if attempts < 1:
        raise ValueError(f"there must be at least one attempt, not {attempts}")
    for attempt in range(attempts):
        last = attempt == attempts - 1
        wanted = None
        try:
            response = send()
        except requests.RequestException as error:
            repeatable = transient(error) and (idempotent or never_sent(error))
            if last or not repeatable:
                raise
        else:
            wanted = retry_after(response)
            worth_it = idempotent and (wanted or 0) <= longest
            if last or response.status_code not in BUSY or not worth_it:
                return response
            response.close()
        pause(draw(0, min(longest, base * 2**attempt)) if wanted is None else wanted)
    raise AssertionError("the last attempt returns or raises")


def retrying_session(attempts: int = ATTEMPTS, base: float = 0.1) -> requests.Session:
    """Return a session that does the same with urllib3's `Retry`.

    An answer that is still BUSY after the last attempt is returned, not raised. It has
    no limit like `longest`: it waits as long as the site asks.
    """
    retry = Retry(
        attempts - 1,
        status_forcelist=BUSY,
        allowed_methods=IDEMPOTENT,
        backoff_factor=base,  # no pause before the second attempt; then it doubles
        backoff_jitter=base,  # up to so much is added
        raise_on_status=False,
    )
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retry))
    session.mount("https://", HTTPAdapter(max_retries=retry))
    return session


Ask = Callable[[str, str], requests.Response]  # method and URL


def ask_from_scratch(method: str, url: str) -> requests.Response:
    """Send a request with `with_retries`."""
    return with_retries(
        lambda: requests.request(method, url, timeout=TIMEOUT),
        idempotent=method in IDEMPOTENT,
    )


def ask_with_urllib3(method: str, url: str) -> requests.Response:
    """Send a request with `retrying_session`."""
    with retrying_session() as session:
        return session.request(method, url, timeout=TIMEOUT)


def outcomes(ask: Ask, liar: lying_site.LyingSite, busy_url: str) -> dict[str, str]:
    """Return how each request ended, and how many the site counted.

    Args:
        busy_url: a page that answers 503 whenever it is asked.
    """
    results = {}
    for method, path in [
        ("GET", "/busy-twice"),
        ("GET", "/hang-up"),
        ("POST", "/hang-up"),
        ("POST", "/busy"),
    ]:
        before = liar.asked(path)
        try:
            ended = str(ask(method, liar.url + path).status_code)
        except requests.RequestException:
            ended = "no answer"
        results[f"{method} {path}"] = f"{ended}, {liar.asked(path) - before} sent"
    results["GET /status/503"] = str(ask("GET", busy_url).status_code)
    return results


EXPECTED = {
    "GET /busy-twice": f"200, {ATTEMPTS} sent",
    "GET /hang-up": f"no answer, {ATTEMPTS} sent",
    "POST /hang-up": "no answer, 1 sent",
    "POST /busy": "503, 1 sent",
    "GET /status/503": "503",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    options = parser.parse_args()

    with (
        ThreadPoolExecutor(2) as pool,  # outermost: after Ctrl-C the sites end first
        local_site.site_for(options.url) as site,
        lying_site.serve() as one,
        lying_site.serve() as other,
    ):
        began = time.perf_counter()
        asks = [ask_from_scratch, ask_with_urllib3]
        busy = [f"{site.url}/status/503"] * 2
        scratch, library = pool.map(outcomes, asks, [one, other], busy)
        took = time.perf_counter() - began

    print(f"at most {ATTEMPTS} attempts")
    print(f"{'':16}  from scratch       urllib3")
    for request, expected in EXPECTED.items():
        print(f"{request:16}  {scratch[request]:17}  {library[request]}")
        if {scratch[request], library[request]} != {expected}:
            raise SystemExit(f"{request}: expected {expected}")
    if took < ATTEMPTS - 1:
        raise SystemExit("the site had asked to be left alone for a second, twice")
    print(f"{took:.2f} s, of which the busy site had asked for 2 s; no POST sent twice")


if __name__ == "__main__":
    main()
