# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""The web site that this chapter asks: httpbin, on this machine alone.

httpbin answers with whatever status, delay or size its path asks for: `/status/404`,
`/delay/0.5`, `/bytes/1000`, and many more. Here it is served on a free port of the
loopback interface by a threaded WSGI server, cheroot, which keeps connections open as
a public site does, and counts them.

Every example of this chapter starts it and stops it again, unless `--url` names
another site: `https://httpbin.org`, or the one that `--serve` keeps up until Ctrl-C,
for a browser or curl.

Try:  --serve

Output:
    GET /status/404    404
    GET /delay/0.2     200 after 0.20 s
    GET /bytes/1000    200 with 1000 bytes
    answered on 1 connection; stopped, nothing left behind
"""

import argparse
import logging
import netrc  # noqa: F401
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

try:
    import cheroot.server
    import cheroot.wsgi
    import requests
    import urllib3
except ModuleNotFoundError as error:
    print(f"needs {error.name}: pip install {error.name}")
    raise SystemExit(77) from None

# netrc is what requests imports with its first request. Ctrl-C amidst an import may
# leave the module's lock taken, and threads that import it then wait for ever.

THREADS = 100  # as many requests are answered at a time
TIMEOUT = 10.0  # seconds
NEEDS_STATUS = 77  # exit status of a script that cannot run here


@dataclass(frozen=True, slots=True)
class Site:
    """A web site that answers as httpbin does.

    Attributes:
        url: where it is, without a slash at the end.
        counts: "Accepts" is the number of connections accepted so far. Empty for a
            site that is not ours: only the site itself can count.
    """

    url: str
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def connections(self) -> int | None:
        """Connections accepted so far; None if the site is not ours."""
        return self.counts.get("Accepts")


class _Connection(cheroot.server.HTTPConnection):
    server: "_Server"

    def communicate(self) -> bool:
        with self.server.lock:
            self.server.open_connections.add(self)
        return bool(super().communicate())  # type: ignore[no-untyped-call]

    def close(self) -> None:
        with self.server.lock:
            self.server.open_connections.discard(self)
        super().close()
        # Of a client that has hung up, something may be left in the buffer. Nobody
        # else lets go of that, and the interpreter would complain.
        with suppress(OSError):
            self.wfile.close()


class _Server(cheroot.wsgi.Server):
    """A threaded WSGI server that stops soon and writes nothing by itself."""

    expiration_interval = 0.05  # seconds until it notices that it is to stop
    keep_alive_conn_limit = 1000  # idle connections
    ConnectionClass = _Connection

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lock = threading.Lock()
        # Those that have asked for something. Guarded by lock.
        self.open_connections: set[_Connection] = set()

    def hang_up(self) -> None:
        """Let all clients know, from another thread, that no answer will come."""
        with self.lock:
            for connection in self.open_connections:
                with suppress(OSError):
                    connection.socket.shutdown(socket.SHUT_RDWR)

    def put_conn(self, conn: cheroot.server.HTTPConnection) -> None:
        try:
            super().put_conn(conn)
        except ValueError:  # the server has stopped since it was asked whether it runs
            conn.close()

    def error_log(
        self, msg: str = "", level: int = logging.INFO, traceback: bool = False
    ) -> None:
        logging.getLogger("local_site").log(level, msg, exc_info=traceback)


@contextmanager
def serve() -> Iterator[Site]:
    """Serve httpbin on the loopback, on a free port, THREADS requests at a time.

    At the end, requests in progress are answered first; after Ctrl-C they are not, and
    whoever waits for an answer gets an error at once.

    Raises:
        ModuleNotFoundError: httpbin is not installed.
        OSError: the site cannot be started.
    """
    # It would warn that its start page lacks a package, which nobody here needs.
    logging.getLogger("httpbin.core").setLevel(logging.ERROR)
    from httpbin import app  # type: ignore[import-untyped]

    server = _Server(("127.0.0.1", 0), app, THREADS, request_queue_size=128)
    server.stats["Enabled"] = True
    prepared: Future[None] = Future()

    def run() -> None:
        try:
            server.prepare()
        except Exception as error:
            prepared.set_exception(error)
        else:
            prepared.set_result(None)
            server.serve()

    # A daemon, and so are the threads that it starts: wherever Ctrl-C hits this one,
    # nothing keeps the interpreter from ending.
    running = threading.Thread(target=run, name="local site", daemon=True)
    running.start()
    prepared.result()
    interrupted = False
    try:
        yield Site(f"http://127.0.0.1:{server.bind_addr[1]}", server.stats)
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        stopping = threading.Thread(target=server.stop, daemon=True)
        stopping.start()
        if interrupted:  # requests in progress may take their time, but alone
            server.hang_up()
        else:
            stopping.join()
            running.join()


@contextmanager
def site_for(url: str | None) -> Iterator[Site]:
    """Give the site at `url`, or for None a local one, to a script's main function.

    What fails inside ends the script with one line that names the culprit. What is on
    this machine, or nowhere, is not asked for by way of a proxy.
    """
    before = os.environ.get("no_proxy")
    os.environ["no_proxy"] = f"{before or ''},127.0.0.1,.invalid"
    try:
        if url is None:
            with serve() as site:
                yield site
        else:
            requests.get(f"{url}/status/200", timeout=TIMEOUT).raise_for_status()
            yield Site(url)
    except ModuleNotFoundError as error:
        print(f"needs {error.name}: pip install {error.name}")
        raise SystemExit(NEEDS_STATUS) from None
    except (OSError, urllib3.exceptions.HTTPError) as error:
        request = getattr(error, "request", None)
        asked = url if request is None else request.url
        raise SystemExit(f"{asked}: {error}" if asked else str(error)) from None
    except ExceptionGroup as group:
        raise SystemExit(f"{group}: {group.exceptions[0]}") from None
    finally:
        if before is None:
            del os.environ["no_proxy"]
        else:
            os.environ["no_proxy"] = before


def base_url(text: str) -> str:
    """Check the value of `--url`; return it without a slash at the end."""
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname or "", parts.port  # a ValueError if it is no port
        host.encode("idna")  # so is this, for what can be no name
    except ValueError:
        host = ""
    # What stands before an @ would be shown in messages; what follows a ? or # would
    # stand in front of the paths to ask for.
    usable = host and parts.scheme in {"http", "https"} and not set(text) & set(" @?#")
    if not usable:
        raise argparse.ArgumentTypeError(f"not the URL of a web site: {text!r}")
    return text.rstrip("/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="until Ctrl-C")
    options = parser.parse_args()

    with site_for(None) as site:
        if options.serve:
            print(f"serving {site.url} until Ctrl-C", flush=True)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                return
        with requests.Session() as session:
            missing = session.get(f"{site.url}/status/404", timeout=TIMEOUT)
            print(f"GET /status/404    {missing.status_code}")
            late = session.get(f"{site.url}/delay/0.2", timeout=TIMEOUT)
            waited = late.elapsed.total_seconds()
            print(f"GET /delay/0.2     {late.status_code} after {waited:.2f} s")
            data = session.get(f"{site.url}/bytes/1000", timeout=TIMEOUT)
            print(
                f"GET /bytes/1000    {data.status_code} with {len(data.content)} bytes"
            )
    left = [t for t in threading.enumerate() if t is not threading.main_thread()]
    for thread in left:
        thread.join(1)  # cheroot tells one of its threads to end, and does not wait
    if threading.active_count() > 1:
        raise SystemExit(f"still running: {left}")
    print(f"answered on {site.connections} connection; stopped, nothing left behind")


if __name__ == "__main__":
    main()
