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
"""A list of URLs, some of them bad: each gets one clear line, and the rest is done.

Hosts that nobody knows, ports where nobody listens, addresses that are none,
certificates that nobody has signed, sites that hang up, redirect for ever, drip, or
announce a gigabyte: whatever a list holds, no entry may cost more than its own. Each
is fetched in a thread of a pool, with a deadline and a limit to its size. What
libraries raise is many layers deep; the innermost that says something is what a user
wants to read.

With URLs of your own, the exit status is 1 if one of them failed:
`example13_list_with_bad_urls.py https://www.python.org https://no-such-host.invalid`

Output:
    ok, 1000 bytes                               http://127.0.0.1:<port>/bytes/1000
    404 NOT FOUND                                http://127.0.0.1:<port>/status/404
    unknown host                                 http://no-such-host.invalid/
    connection refused                           http://127.0.0.1:<port>/
    malformed URL                                www.example.org
    malformed URL                                http://[::1/
    TLS: unable to get local issuer certificate  https://127.0.0.1:<port>/honest
    not an HTTP answer                           http://127.0.0.1:<port>/not-http
    hung up without an answer                    http://127.0.0.1:<port>/hang-up
    redirected without end                       http://127.0.0.1:<port>/endless
    body cut short                               http://127.0.0.1:<port>/truncated
    1,000,000,000 bytes announced                http://127.0.0.1:<port>/gigabyte
    not complete within 2 s                      http://127.0.0.1:<port>/silent
    not complete within 2 s                      http://127.0.0.1:<port>/drip-head
    ok, 2000 bytes                               http://127.0.0.1:<port>/range/2000
    2 fetched, 13 failed: exit status 1
"""

import argparse
import socket
import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import BadStatusLine, IncompleteRead, RemoteDisconnected

import local_site
import lying_site
import requests
from example08_timeouts_are_no_deadline import DeadlineSession
from requests.exceptions import ChunkedEncodingError, TooManyRedirects
from urllib3.exceptions import LocationParseError

DEADLINE = 2.0  # seconds for each URL
LARGEST = 1_000_000  # bytes of a body
PIECE = 64 * 1024  # bytes
N_THREADS = 8
MOST_REDIRECTS = 10


class TooLargeError(Exception):
    """A body is longer than the client will take."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a URL: the body, or the reason why there is none."""

    url: str
    body: bytes | None
    reason: str = ""


def fetch(url: str, seconds: float = DEADLINE, largest: int = LARGEST) -> bytes:
    """Return the body of the answer for `url`.

    Raises:
        requests.RequestException: no answer, or a part of one, or a status of 4xx, 5xx.
        TimeoutError: the answer was not complete within `seconds`.
        TooLargeError: the body has, or is announced to have, more than `largest` bytes.
        ValueError: the URL is malformed.
    """
    body = bytearray()
    with DeadlineSession() as session:
        session.max_redirects = MOST_REDIRECTS
        with session.deadline(seconds), session.get(url, stream=True) as response:
            response.raise_for_status()
            announced = response.headers.get("Content-Length", "")
            if announced.isdecimal() and int(announced) > largest:
                raise TooLargeError(f"{int(announced):,} bytes announced")
            for piece in response.iter_content(PIECE):
                body += piece
                if len(body) > largest:
                    raise TooLargeError(f"more than {largest:,} bytes")
    return bytes(body)


def layers(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and all exceptions that it was made of, the outermost first."""
    waiting, seen = [error], set()
    while waiting:
        layer = waiting.pop(0)
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield layer
        below = [*layer.args, getattr(layer, "reason", None)]
        below += [layer.__cause__, layer.__context__]
        waiting += [one for one in below if isinstance(one, BaseException)]


def reason(error: BaseException) -> str:
    """Say in a few words why a URL could not be fetched."""
    for layer in layers(error):
        match layer:
            case TimeoutError() | TooLargeError():
                return str(layer)
            case requests.HTTPError(response=requests.Response() as response):
                return f"{response.status_code} {response.reason}"
            case requests.ConnectTimeout():
                return "no connection in time"
            case TooManyRedirects():
                return "redirected without end"
            case ssl.SSLCertVerificationError():
                return f"TLS: {layer.verify_message}"
            case ssl.SSLError():
                return f"TLS: {layer}"
            case socket.gaierror():
                return "unknown host"
            case ConnectionRefusedError():
                return "connection refused"
            case RemoteDisconnected():
                return "hung up without an answer"
            case BadStatusLine():
                return "not an HTTP answer"
            case IncompleteRead() | ChunkedEncodingError():
                return "body cut short"
            case UnicodeError() | LocationParseError():
                return "malformed URL"
    if isinstance(error, ValueError):  # requests has a dozen of them
        return "malformed URL"
    return str(error)


def fetch_list(
    urls: Sequence[str], n_threads: int = N_THREADS, seconds: float = DEADLINE
) -> list[Outcome]:
    """Fetch all of `urls`, `n_threads` at a time; return the outcomes in order."""

    def try_one(url: str) -> Outcome:
        try:
            return Outcome(url, fetch(url, seconds))
        except Exception as error:
            return Outcome(url, None, reason(error))

    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(try_one, urls))


def report(outcomes: Sequence[Outcome]) -> int:
    """Print a line for each URL; return the exit status that says if all went well."""
    for outcome in outcomes:
        what = outcome.reason
        if outcome.body is not None:
            what = f"ok, {len(outcome.body)} bytes"
        print(f"{what:43}  {outcome.url}")
    return int(any(outcome.body is None for outcome in outcomes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("urls", nargs="*", metavar="URL", help="instead of bad ones")
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    options = parser.parse_args()
    if options.urls:
        raise SystemExit(report(fetch_list(options.urls)))

    with (
        local_site.site_for(options.url) as site,
        lying_site.serve() as liar,
        socket.socket() as bound,  # but not listening: its port refuses
    ):
        bound.bind(("127.0.0.1", 0))
        expected = {
            f"{site.url}/bytes/1000": "ok",
            f"{site.url}/status/404": "404 NOT FOUND",
            "http://no-such-host.invalid/": "unknown host",
            f"http://127.0.0.1:{bound.getsockname()[1]}/": "connection refused",
            "www.example.org": "malformed URL",
            "http://[::1/": "malformed URL",
            f"{liar.tls_url}/honest": "TLS: ",
            f"{liar.url}/not-http": "not an HTTP answer",
            f"{liar.url}/hang-up": "hung up",
            f"{liar.url}/endless": "redirected without end",
            f"{liar.url}/truncated": "body cut short",
            f"{liar.url}/gigabyte": "1,000,000,000 bytes announced",
            f"{liar.url}/silent": "not complete within",
            f"{liar.url}/drip-head": "not complete within",
            f"{site.url}/range/2000": "ok",
        }
        outcomes = fetch_list(list(expected))

    status = report(outcomes)
    for outcome, begin in zip(outcomes, expected.values(), strict=True):
        if not (outcome.reason or "ok").startswith(begin):
            raise SystemExit(f"{outcome.url}: expected {begin!r}")
    done = sum(outcome.body is not None for outcome in outcomes)
    print(f"{done} fetched, {len(outcomes) - done} failed: exit status {status}")


if __name__ == "__main__":
    main()
