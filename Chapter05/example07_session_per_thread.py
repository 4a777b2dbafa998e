# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""A session for each thread: sixty requests over six connections instead of sixty.

A new connection costs a round trip before the first byte of the request is sent, and
some more with TLS. A `requests.Session` keeps its connections and uses them again,
but is not promised to be safe in several threads at once (cookies, for one, are
shared). So each thread gets its own, kept in a `threading.local`, and all are closed
at the end. The site counts the connections it accepts, and finds one for each thread.

The other way is a pool of connections that is made to be shared: `urllib3`, which
stands below requests. Its threads queue for a connection when all are in use.

Try:  --threads 12

Output:
    60 requests, 6 threads             connections
    a connection each time   0.12 s           60
    a session per thread     0.09 s            6
    one pool of urllib3      0.06 s    at most 3
    6 sessions, one for each thread, and all of them closed
"""

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import local_site
import requests
import urllib3

TIMEOUT = 10.0  # seconds without a byte from the site
N_REQUESTS = 60
POOL_SIZE = 3  # connections


class ThreadSessions:
    """Gives each thread a session of its own, and closes all of them at the end.

    Use it in a `with`, which must not end before the threads have: best around that of
    their executor.

    Args:
        make: called for the first `get` in a thread, in that thread.
    """

    def __init__(self, make: Callable[[], requests.Session] = requests.Session) -> None:
        self._make = make
        self._own = threading.local()
        self._lock = threading.Lock()  # guards the two below
        self._sessions: list[requests.Session] = []
        self._closed = False

    def get(self) -> requests.Session:
        """Return the calling thread's session.

        Raises:
            RuntimeError: all sessions have been closed.
        """
        session: requests.Session | None = getattr(self._own, "session", None)
        if session is None:
            session = self._make()
            with self._lock:
                self._sessions.append(session)
            self._own.session = session
        with self._lock:
            if self._closed:
                session.close()
                raise RuntimeError("the sessions have been closed")
        return session

    def __len__(self) -> int:
        """Return the number of sessions made so far."""
        with self._lock:
            return len(self._sessions)

    def __enter__(self) -> "ThreadSessions":
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            sessions = list(self._sessions)
        for session in sessions:
            session.close()


def fetch_all(
    get: Callable[[str], int], urls: Sequence[str], n_threads: int
) -> list[int]:
    """Call `get(url)` for each URL in one of `n_threads` threads; return the results.

    Raises:
        Exception: what `get` raised for the first URL for which it did.
    """
    with ThreadPoolExecutor(n_threads) as pool:
        return list(pool.map(get, urls))


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    parser.add_argument("--threads", type=positive, default=6)
    options = parser.parse_args()
    n_threads = min(options.threads, N_REQUESTS)

    all_here = threading.Barrier(n_threads)

    def make_together() -> requests.Session:
        all_here.wait(TIMEOUT)  # no thread does the work of one that is still to come
        return requests.Session()

    with (
        local_site.site_for(options.url) as site,
        ThreadSessions(make_together) as sessions,
        urllib3.PoolManager(maxsize=POOL_SIZE, block=True) as shared,
    ):
        urls = [f"{site.url}/get"] * N_REQUESTS

        def connections_for(
            name: str, get: Callable[[str], int], shown: str = ""
        ) -> int | None:
            before, began = site.connections, time.perf_counter()
            try:
                statuses = fetch_all(get, urls, n_threads)
            except BaseException:
                all_here.abort()  # or those at the barrier would wait for the others
                raise
            took = time.perf_counter() - began
            if statuses != [200] * N_REQUESTS:
                raise SystemExit(f"{name}: unexpected statuses {set(statuses)}")
            after = site.connections
            made = None if before is None or after is None else after - before
            count = "unknown" if made is None else shown or str(made)
            print(f"{name:22}  {took:5.2f} s  {count:>11}")
            return made

        print(f"{N_REQUESTS} requests, {n_threads} threads             connections")
        made = connections_for(
            "a connection each time",
            lambda url: requests.get(url, timeout=TIMEOUT).status_code,
        )
        reused = connections_for(
            "a session per thread",
            lambda url: sessions.get().get(url, timeout=TIMEOUT).status_code,
        )
        pooled = connections_for(
            "one pool of urllib3",
            lambda url: shared.request("GET", url, timeout=TIMEOUT).status,
            f"at most {POOL_SIZE}",
        )
        if len(sessions) != n_threads:
            raise SystemExit(f"{len(sessions)} sessions for {n_threads} threads")
    if None not in {made, reused, pooled} and not (
        made == N_REQUESTS and reused == n_threads and (pooled or 0) <= POOL_SIZE
    ):
        raise SystemExit(f"connections: {made}, {reused} and {pooled}")
    print(f"{n_threads} sessions, one for each thread, and all of them closed")


if __name__ == "__main__":
    main()
