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
is fetched in a thread of a pool, with a deadline and a limit to its size, redirects
included: of these nobody needs the bodies. What libraries raise is many layers deep;
somewhere among them is what a user wants to read.

With URLs of your own, the exit status is 1 if one of them failed:
`example13_list_with_bad_urls.py https://www.python.org https://no-such-host.invalid`

Output:
    16 URLs, 8 at a time
    ok, 1000 bytes                               http://127.0.0.1:<port>/bytes/1000
    404 Not Found                                http://127.0.0.1:<port>/status/404
    unknown host                                 http://no-such-host.invalid/
    connection refused                           http://127.0.0.1:<port>/
    malformed URL                                www.example.org
    malformed URL                                http://[::1/
    TLS: unable to get local issuer certificate  https://127.0.0.1:<port>/honest
    not an HTTP answer                           http://127.0.0.1:<port>/not-http
    hung up without an answer                    http://127.0.0.1:<port>/hang-up
    redirected without end                       http://127.0.0.1:<port>/endless
    ok, 20 bytes                                 http://127.0.0.1:<port>/long-redirect
    body cut short                               http://127.0.0.1:<port>/truncated
    more than 1,000,000 bytes announced          http://127.0.0.1:<port>/gigabyte
    not complete within 3 s                      http://127.0.0.1:<port>/silent
    not complete within 3 s                      http://127.0.0.1:<port>/drip-head
    ok, 2000 bytes                               http://127.0.0.1:<port>/range/2000
    3 fetched, 13 failed, each for a reason of its own
"""

import argparse
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead, RemoteDisconnected
from typing import Any
from urllib.parse import urljoin

import local_site
import lying_site
import requests
from example08_timeouts_are_no_deadline import DeadlineSession
from requests.exceptions import (
    ChunkedEncodingError,
    ContentDecodingError,
    InvalidSchema,
    InvalidURL,
    MissingSchema,
    TooManyRedirects,
)
from urllib3.exceptions import InvalidHeader, LocationParseError, ProtocolError

DEADLINE = 3.0  # seconds for each URL
LARGEST = 1_000_000  # bytes of a body
PIECE = 64 * 1024  # bytes
N_THREADS = 8
MOST_REDIRECTS = 10
LONGEST_REASON = 60  # characters


class TooLargeError(Exception):
    """A body is longer than the client will take."""


class BadRedirectError(Exception):
    """An answer sends the client to what is no URL of a web site."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a URL: the body, or the reason why there is none."""

    url: str
    body: bytes | None
    reason: str = ""


class _Session(DeadlineSession):
    """A session that leaves redirects, and above all their bodies, to its user."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


def fetch(url: str, seconds: float = DEADLINE, largest: int = LARGEST) -> bytes:
    """Return the body of the answer for `url`, after redirects.

    Raises:
        requests.RequestException: no answer, or a part of one, or a status that is
            not 200.
        TimeoutError: the answer was not complete within `seconds`.
        TooLargeError: the body has, or is announced to have, more than `largest` bytes.
        BadRedirectError: a redirect leads to what is no URL of a web site.
        ValueError: the URL is malformed, or an answer is.
    """
    with _Session() as session, session.deadline(seconds):
        for redirects in range(MOST_REDIRECTS + 1):
            try:
                response = session.get(url, stream=True)
            except (InvalidSchema, InvalidURL, LocationParseError) as error:
                if redirects == 0:
                    raise
                raise BadRedirectError(f"redirected to {url}") from error
            with response:
                target = requests.Session.get_redirect_target(session, response)
                if target is None:
                    return _body(response, largest)
                url = urljoin(url, target)
    raise TooManyRedirects(f"more than {MOST_REDIRECTS} redirects")


def _body(response: requests.Response, largest: int) -> bytes:
    if response.status_code != 200:
        raise requests.HTTPError(str(response.status_code), response=response)
    announced = response.headers.get("Content-Length", "0")
    if len(announced) > 18 or (announced.isdecimal() and int(announced) > largest):
        raise TooLargeError(f"more than {largest:,} bytes announced")
    body = bytearray()
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


def _words_of_status(error: requests.HTTPError) -> str:
    if error.response is None:
        return str(error)
    status = error.response.status_code
    known = status in set(HTTPStatus)  # the site's own words are anybody's
    return f"{status} {HTTPStatus(status).phrase}" if known else f"{status}"


def _words_of_tls(error: ssl.SSLError) -> str:
    return f"TLS: {getattr(error, 'verify_message', '') or error}"


def _words_of_system(error: OSError) -> str:
    return error.strerror or str(error)


# What to say of an exception: words, or a function that finds them. The first row that
# fits any layer counts.
REASONS: list[tuple[tuple[type[BaseException], ...], str | Callable[[Any], str]]] = [
    ((requests.HTTPError,), _words_of_status),
    ((ssl.SSLError,), _words_of_tls),
    ((TooLargeError, BadRedirectError), str),
    ((TooManyRedirects,), "redirected without end"),
    ((MissingSchema, InvalidSchema, InvalidURL, LocationParseError), "malformed URL"),
    ((UnicodeError,), "malformed URL"),
    ((socket.gaierror,), "unknown host"),
    ((ConnectionRefusedError,), "connection refused"),
    ((RemoteDisconnected, ConnectionResetError), "hung up without an answer"),
    ((IncompleteRead, ChunkedEncodingError), "body cut short"),
    ((ContentDecodingError,), "body that cannot be decoded"),
    ((HTTPException, InvalidHeader, ValueError), "not an HTTP answer"),
    ((OSError,), _words_of_system),
]

# These are an OSError or a ValueError only by descent; what they hold says more.
NOT_ITSELF = (requests.ConnectionError, requests.Timeout, ProtocolError)


def reason(error: BaseException) -> str:
    """Say in a few words, fit for a terminal, why a URL could not be fetched."""
    words = _words(error) or type(error).__name__
    printable = "".join(c if c.isprintable() else "?" for c in words)
    return printable[:LONGEST_REASON]


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):  # the deadline
        return str(error)
    everything = list(layers(error))
    for kinds, words in REASONS:
        for layer in everything:
            if isinstance(layer, kinds) and not isinstance(layer, NOT_ITSELF):
                return words if isinstance(words, str) else words(layer)
    return str(error)


def without_password(url: str) -> str:
    """Return a URL as it may be shown: without what stands before an @."""
    before, at, rest = url.partition("@")
    return f"{before.partition('//')[0]}//{rest}" if at and "//" in before else url


def fetch_list(
    pool: Executor, urls: Sequence[str], seconds: float = DEADLINE
) -> list[Outcome]:
    """Fetch all of `urls` in the threads of `pool`; return the outcomes in order.

    Each URL has `seconds` from when its turn has come. After Ctrl-C, those whose turn
    has not come are left.
    """

    def try_one(url: str) -> Outcome:
        try:
            return Outcome(url, fetch(url, seconds))
        except Exception as error:
            return Outcome(url, None, reason(error))

    return list(pool.map(try_one, urls))


def report(outcomes: Sequence[Outcome]) -> int:
    """Print a line for each URL; return the exit status that says if all went well."""
    for outcome in outcomes:
        what = outcome.reason
        if outcome.body is not None:
            what = f"ok, {len(outcome.body)} bytes"
        print(f"{what:43}  {without_password(outcome.url)}")
    return int(any(outcome.body is None for outcome in outcomes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("urls", nargs="*", metavar="URL", help="instead of bad ones")
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    options = parser.parse_args()
    if options.urls:
        with ThreadPoolExecutor(N_THREADS) as pool:
            raise SystemExit(report(fetch_list(pool, options.urls)))

    with (
        ThreadPoolExecutor(N_THREADS) as pool,  # after Ctrl-C the sites end before it
        local_site.site_for(options.url) as site,
        lying_site.serve() as liar,
        socket.socket() as bound,  # but not listening: its port refuses
    ):
        bound.bind(("127.0.0.1", 0))
        expected = {
            f"{site.url}/bytes/1000": "ok",
            f"{site.url}/status/404": "404 Not Found",
            "http://no-such-host.invalid/": "unknown host",
            f"http://127.0.0.1:{bound.getsockname()[1]}/": "connection refused",
            "www.example.org": "malformed URL",
            "http://[::1/": "malformed URL",
            f"{liar.tls_url}/honest": "TLS: ",
            f"{liar.url}/not-http": "not an HTTP answer",
            f"{liar.url}/hang-up": "hung up",
            f"{liar.url}/endless": "redirected without end",
            f"{liar.url}/long-redirect": "ok",
            f"{liar.url}/truncated": "body cut short",
            f"{liar.url}/gigabyte": "more than 1,000,000 bytes announced",
            f"{liar.url}/silent": "not complete within",
            f"{liar.url}/drip-head": "not complete within",
            f"{site.url}/range/2000": "ok",
        }
        print(f"{len(expected)} URLs, {N_THREADS} at a time")
        outcomes = fetch_list(pool, list(expected))

    status = report(outcomes)
    for outcome, begin in zip(outcomes, expected.values(), strict=True):
        if not (outcome.reason or "ok").startswith(begin):
            raise SystemExit(f"{outcome.url}: expected {begin!r}")
    done = sum(outcome.body is not None for outcome in outcomes)
    if status != 1:
        raise SystemExit("the exit status was to say that something had failed")
    print(
        f"{done} fetched, {len(outcomes) - done} failed, each for a reason of its own"
    )


if __name__ == "__main__":
    main()
