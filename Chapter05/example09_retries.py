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
refused. All attempts and pauses together keep to a deadline.

`with_retries` is the idea from scratch; for work take `Retry` of urllib3, which
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
    GET /drip-body    given up after 1.50 s, of 1.5 s
    2.56 s, of which the busy site had asked for 2 s; no POST sent twice
"""

import argparse
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import local_site
import lying_site
import requests
from example08_timeouts_are_no_deadline import DeadlineSession
from requests.adapters import HTTPAdapter
from urllib3.exceptions import NewConnectionError
from urllib3.util import Retry

TIMEOUT = 5.0  # seconds without a byte from the site
DEADLINE = 1.5  # seconds for all attempts together
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
        if until.tzinfo is None:
            until = until.replace(tzinfo=UTC)
        return max(0.0, (until - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


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


def never_sent(method: str, error: requests.RequestException) -> bool:
    """Tell whether the connection failed, so that the site cannot have seen a request.

    Args:
        method: of the request. If another one failed, the site had answered by then,
            with a redirect to where nobody is.
    """
    if error.request is None or error.request.method != method:
        return False
    if isinstance(error, requests.ConnectTimeout):
        return True
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, NewConnectionError)


def with_retries(
    method: str,
    send: Callable[[], requests.Response],
    *,
    attempts: int = ATTEMPTS,
    base: float = 0.1,
    longest: float = 5.0,
    seconds_left: Callable[[], float] = lambda: math.inf,
    pause: Callable[[float], object] = time.sleep,
    draw: Callable[[float, float], float] = random.uniform,
) -> requests.Response:
    """Call `send`, at most `attempts` times, until it brings an answer worth having.

    Args:
        method: what is sent, which decides whether it may be sent again.
        send: sends the request once.
        base: seconds; the first pause is up to that long, the second up to twice, …
        longest: seconds that a pause may last. A site that asks for more is not waited
            for.
        seconds_left: tells how long a pause may be for other reasons: a deadline.
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
    idempotent = method in IDEMPOTENT
    for attempt in range(attempts):
        wanted = response = failure = None
        try:
            response = send()
        except requests.RequestException as error:
            if not (transient(error) and (idempotent or never_sent(method, error))):
                raise
            failure = error
        else:
            if response.status_code not in BUSY or not idempotent:
                return response
            wanted = retry_after(response)
        if wanted is None:
            wanted = draw(0, min(longest, base * 2**attempt))
        if attempt + 1 == attempts or wanted > min(longest, seconds_left()):
            break
        if response is not None:
            response.close()
        pause(wanted)
    if response is None:
        assert failure is not None
        raise failure
    return response


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
        other=0,  # a TLS connection that broke: nobody knows what had been sent
        raise_on_status=False,
    )
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retry))
    session.mount("https://", HTTPAdapter(max_retries=retry))
    return session


Ask = Callable[[str, str], requests.Response]  # method and URL


def ask_from_scratch(method: str, url: str) -> requests.Response:
    """Send a request with `with_retries`."""
    return with_retries(method, lambda: requests.request(method, url, timeout=TIMEOUT))


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


def seconds_of_attempts(url: str, deadline: float) -> float:
    """Try `url` ATTEMPTS times, within a deadline for all; return the seconds it took.

    Raises:
        AssertionError: there was an answer.
    """
    began = time.perf_counter()
    with DeadlineSession() as session, suppress(TimeoutError):
        with session.deadline(deadline):
            with_retries(
                "GET",
                lambda: session.get(url, timeout=deadline / 2),
                seconds_left=session.seconds_left,
            )
        raise AssertionError(f"an answer of {url}")
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    options = parser.parse_args()

    with (
        ThreadPoolExecutor(3) as pool,  # after Ctrl-C the sites end before it
        local_site.site_for(options.url) as site,
        lying_site.serve() as one,
        lying_site.serve() as other,
    ):
        print(f"at most {ATTEMPTS} attempts")
        began = time.perf_counter()
        dripped = pool.submit(seconds_of_attempts, f"{one.url}/drip-body", DEADLINE)
        asks = [ask_from_scratch, ask_with_urllib3]
        busy = [f"{site.url}/status/503"] * 2
        scratch, library = pool.map(outcomes, asks, [one, other], busy)
        took = time.perf_counter() - began
        deadline_took = dripped.result()

    print(f"{'':16}  from scratch       urllib3")
    for request, expected in EXPECTED.items():
        print(f"{request:16}  {scratch[request]:17}  {library[request]}")
        if {scratch[request], library[request]} != {expected}:
            raise SystemExit(f"{request}: expected {expected}")
    print(f"GET /drip-body    given up after {deadline_took:.2f} s, of {DEADLINE:g} s")
    if took < ATTEMPTS - 1:
        raise SystemExit("the site had asked to be left alone for a second, twice")
    print(f"{took:.2f} s, of which the busy site had asked for 2 s; no POST sent twice")


if __name__ == "__main__":
    main()
