# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""A thread that keeps its result, and the exception in its place.

`Thread.join` says that a thread has ended, not how: what its function returned or
raised is gone. A subclass can keep either, and give it to whoever asks for the
result, much as a future does. Statuses come in the order in which they were asked
for, whichever answer came first; and one request that fails leaves the others alone.

For new code take `concurrent.futures`, which does the same for a pool of threads
(example06 and example07).

Book: Chapter 5, example4.
Try:  --url https://httpbin.org

Output:
    4 requests, a thread each
    /delay/0.3   200
    /status/404  404
    /status/503  503
    closed port  ConnectionError
    4 results in the order asked for, in 0.31 s
"""

import argparse
import socket
import threading
import time

import local_site
import requests

TIMEOUT = 10.0  # seconds without a byte from the site


class Ping(threading.Thread):
    """A thread that asks for `url` once. Start it, then ask for its `result`."""

    def __init__(self, url: str, timeout: float = TIMEOUT) -> None:
        # A daemon: after Ctrl-C nobody waits for answers that nobody wants.
        super().__init__(name=f"ping {url}", daemon=True)
        self.url = url
        self._timeout = timeout
        # Written by the thread before it ends, read by others after they have joined
        # it: the join orders the two, and no lock is needed.
        self._status: int | None = None
        self._failure: Exception | None = None

    def run(self) -> None:
        try:
            self._status = requests.get(self.url, timeout=self._timeout).status_code
        except Exception as failure:
            self._failure = failure

    def result(self, timeout: float | None = None) -> int:
        """Wait until the thread has ended; return the status of the answer.

        Args:
            timeout: seconds to wait, None for as long as it takes.

        Raises:
            TimeoutError: the thread has not ended by then.
            requests.RequestException: there was no answer, or only a part of it.
        """
        self.join(timeout)
        if self.is_alive():
            raise TimeoutError(f"no answer within {timeout:g} s: {self.url}")
        if self._failure is not None:
            raise self._failure
        assert self._status is not None
        return self._status


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    options = parser.parse_args()

    expected = {"/delay/0.3": 200, "/status/404": 404, "/status/503": 503}
    with (
        local_site.site_for(options.url) as site,
        socket.socket() as bound,  # but not listening: its port refuses
    ):
        bound.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{bound.getsockname()[1]}"
        began = time.perf_counter()
        threads = [Ping(site.url + path) for path in expected] + [Ping(closed)]
        print(f"{len(threads)} requests, a thread each")
        for thread in threads:
            thread.start()
        *others, refused = threads
        statuses = [thread.result() for thread in others]
        try:
            refused.result()
        except requests.ConnectionError as error:
            failure = type(error).__name__
        else:
            raise SystemExit(f"{closed}: an answer from a port where nobody listens")
        took = time.perf_counter() - began

    for path, status in zip(expected, statuses, strict=True):
        print(f"{path:11}  {status}")
    print(f"{'closed port':11}  {failure}")
    if statuses != list(expected.values()):
        raise SystemExit(f"unexpected statuses: {statuses}")
    print(f"{len(threads)} results in the order asked for, in {took:.2f} s")


if __name__ == "__main__":
    main()
