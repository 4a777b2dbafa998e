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
"""A time-out starts anew with every byte; only a deadline bounds the whole answer.

The `timeout` of requests is for the connection, and then for each single wait: a site
that sends one byte a second, of the body or of the headers, keeps a client with a
time limit of two seconds for as long as it likes. A deadline is a point in time. What
is left until then is the time limit of the next wait, whichever it is, so here it is
applied where all waits are: at the connection's socket, below the headers, the body,
the redirects and TLS.

A deadline for a list is example06. What no deadline bounds: looking up the name of a
host, which Python cannot interrupt, and connecting to one that has several addresses,
where the time limit is for each.

Try:  --deadline 0.5

Output:
    time-out 1.5 s for each wait
    /drip       200            2.21 s
    deadline 1 s for the whole answer
    /get        200            0.01 s
    /drip       TimeoutError   1.00 s
    /silent     TimeoutError   1.00 s
    /gigabyte   TimeoutError   1.00 s
    /drip-body  TimeoutError   1.00 s
    /drip-head  TimeoutError   1.00 s
    the deadline held, whatever the site did
"""

import argparse
import io
import math
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import local_site
import lying_site
import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

READ_TIMEOUT = 1.5  # seconds
GRAIN = 0.05  # seconds: how coarse clocks and time-outs of some systems are
N_DRIPS, DRIP_SECONDS = 12, 2.4  # the honest site's: one byte each 0.2 s


class DeadlineSession(requests.Session):
    """A session, for one thread, whose answers can be given a deadline.

    Use it as `with session.deadline(2.0): response = session.get(url)`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._expires = math.inf  # on the clock of time.monotonic
        adapter = _DeadlineAdapter(self.seconds_left)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def seconds_left(self) -> float:
        """Return the seconds until the deadline, infinite if there is none."""
        return self._expires - time.monotonic()

    @contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Give all that is asked for within the block, together, at most `seconds`.

        An earlier deadline around the block stays in force.

        Raises:
            TimeoutError: the deadline passed while there was something to wait for.
        """
        outer = self._expires
        self._expires = min(outer, time.monotonic() + seconds)
        try:
            yield
        except requests.RequestException as error:
            if self.seconds_left() > GRAIN:
                raise
            raise TimeoutError(f"not complete within {seconds:g} s") from error
        finally:
            self._expires = outer


# What stands on what:
#
#   requests.Session          asks, follows redirects
#   _DeadlineAdapter          has urllib3 make pools of connections of another class,
#   Plain, Tls                which are as ever, but wrap their socket once connected:
#   _HurriedSocket            sends, and makes the file that http.client reads from:
#   _HurriedReader            headers and body come through here, piece by piece


class _DeadlineAdapter(HTTPAdapter):
    """Opens connections that wait no longer than `seconds_left()` says."""

    def __init__(self, seconds_left: Callable[[], float]) -> None:
        self._seconds_left = seconds_left
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        seconds_left = self._seconds_left

        class Plain(HTTPConnection):
            def connect(self) -> None:
                _connect(self, super().connect, seconds_left)

        class Tls(HTTPSConnection):
            def connect(self) -> None:
                _connect(self, super().connect, seconds_left)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class TlsPool(HTTPSConnectionPool):
            ConnectionCls = Tls

        self._pools = {"http": PlainPool, "https": TlsPool}
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):  # these have pools of their own
            manager.pool_classes_by_scheme = self._pools
        return manager


def _connect(
    connection: HTTPConnection,
    connect: Callable[[], None],
    seconds_left: Callable[[], float],
) -> None:
    connection.timeout = _shorter(connection.timeout, seconds_left())
    connect()
    hurried: Any = _HurriedSocket(connection.sock, seconds_left)
    connection.sock = hurried


def _shorter(timeout: float | None, left: float) -> float | None:
    """Return the shorter of a time-out (None for none) and the time that is left."""
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    if left == math.inf:
        return timeout
    return left if timeout is None else min(timeout, left)


class _HurriedSocket:
    """A connected socket, with or without TLS, each of whose waits is cut short."""

    def __init__(self, sock: socket.socket, seconds_left: Callable[[], float]) -> None:
        self._sock = sock
        self._seconds_left = seconds_left
        self._timeout = sock.gettimeout()

    def hurry(self) -> None:
        """Set the time limit of the next wait.

        Raises:
            TimeoutError: no time is left.
        """
        self._sock.settimeout(_shorter(self._timeout, self._seconds_left()))

    def settimeout(self, timeout: float | None) -> None:
        self._timeout = timeout

    def sendall(self, data: bytes) -> None:
        self.hurry()
        self._sock.sendall(data)

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_HurriedReader(self, self._sock))

    def __getattr__(self, name: str) -> Any:  # fileno, close, getpeercert, …
        return getattr(self._sock, name)


class _HurriedReader(io.RawIOBase):
    """The reading end of a connection: headers and body come through here."""

    def __init__(self, hurried: _HurriedSocket, sock: socket.socket) -> None:
        self._hurried = hurried
        # Keeps the socket open until it is closed itself, as http.client relies on.
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._hurried.hurry()
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


def outcome_within(seconds: float, url: str) -> tuple[str, float]:
    """Ask for `url` with a deadline; return how it ended, and the seconds it took."""
    began = time.perf_counter()
    with DeadlineSession() as session:
        try:
            with session.deadline(seconds):
                outcome = str(session.get(url).status_code)
        except (TimeoutError, requests.RequestException) as error:
            outcome = type(error).__name__
    return outcome, time.perf_counter() - began


def deadline(text: str) -> float:
    number = float(text)
    if not 0.1 <= number <= 2:
        raise argparse.ArgumentTypeError(f"must be in 0.1 … 2, not {number:g}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    parser.add_argument("--deadline", type=deadline, default=1.0)
    options = parser.parse_args()

    lies = ["/silent", "/gigabyte", "/drip-body", "/drip-head"]
    with (
        ThreadPoolExecutor(8) as pool,  # outermost: after Ctrl-C the sites end first
        local_site.site_for(options.url) as site,
        lying_site.serve() as liar,
    ):
        drip = f"{site.url}/drip?numbytes={N_DRIPS}&duration={DRIP_SECONDS}&delay=0"
        urls = [f"{site.url}/get", drip, *(liar.url + path for path in lies)]
        futures = [pool.submit(outcome_within, options.deadline, url) for url in urls]
        print(f"time-out {READ_TIMEOUT:g} s for each wait")
        began = time.perf_counter()
        response = requests.get(drip, timeout=READ_TIMEOUT)
        dripped = time.perf_counter() - began
        outcomes = [future.result() for future in futures]

    print(f"{'/drip':10}  {response.status_code}           {dripped:5.2f} s")
    print(f"deadline {options.deadline:g} s for the whole answer")
    for path, (outcome, took) in zip(["/get", "/drip", *lies], outcomes, strict=True):
        print(f"{path:10}  {outcome:12}  {took:5.2f} s")
    if response.status_code != 200 or dripped < READ_TIMEOUT:
        raise SystemExit("the dripping site was to be slow, and to be waited for")
    if [outcome for outcome, _ in outcomes] != ["200"] + 5 * ["TimeoutError"]:
        raise SystemExit("only the honest answer was to be complete in time")
    print("the deadline held, whatever the site did")


if __name__ == "__main__":
    main()
