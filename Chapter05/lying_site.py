# /// script
# requires-python = ">=3.11"
# dependencies = ["trustme>=1.1.0"]
# ///
"""A web site that lies: the answers that a client must survive, on this machine.

Sites hang up in the middle of an answer, announce what they never send, send one byte
a second, redirect for ever, speak another protocol, or show a certificate that nobody
has signed. A client that was only tried against honest sites hangs or dies of them.

Each lie is a generator of what to send and how long to wait; this script asks for
each over a bare socket and prints what really came. The examples of this chapter, and
the tests, are asked to survive them.

Try:  --serve

Output:
    path            first line                        announced  body  then
    /honest         HTTP/1.1 200 OK                           20    20  end
    /truncated      HTTP/1.1 200 OK                         1000   100  end
    /cut-chunk      HTTP/1.1 200 OK                            -    15  end
    /gigabyte       HTTP/1.1 200 OK                   1000000000    10  silence
    /drip-body      (a byte at a time)                         -   ...  drip
    /drip-head      (a byte at a time)                         -   ...  drip
    /endless        HTTP/1.1 302 Found                         0     0  end
    /long-redirect  HTTP/1.1 302 Found                1000000000     0  silence
    /busy           HTTP/1.1 503 Service Unavailable           0     0  end
    /busy-twice     HTTP/1.1 503 Service Unavailable           0     0  end
    /not-http       220 mail.example ESMTP at hand.            -     0  end
    /hang-up                                                   -     0  end
    /silent                                                    -     0  silence
    with TLS        unable to get local issuer certificate
    14 answers, 1 of them honest
"""

import argparse
import contextlib
import re
import socket
import socketserver
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

DRIP = 0.2  # seconds from one byte to the next
TIMEOUT = 10.0  # seconds that a handler waits for a client
HELD = 60.0  # seconds at most that a lie without end keeps a client
QUIET = 1.0  # seconds without a byte that count as silence
NEEDS_STATUS = 77  # exit status of a script that cannot run here

# What to send; or for how many seconds to wait, None for as long as the client will.
Part = bytes | float | None

OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n"


def honest(_: int) -> Iterator[Part]:
    """Answer completely."""
    yield OK + b"Content-Length: 20\r\n\r\nThis is all of it.\r\n"


def truncated(_: int) -> Iterator[Part]:
    """Announce 1,000 bytes, send 100, hang up."""
    yield OK + b"Content-Length: 1000\r\n\r\n" + 100 * b"x"


def cut_chunk(_: int) -> Iterator[Part]:
    """Announce a chunk of 256 bytes, send 10, hang up."""
    yield OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"100\r\n" + 10 * b"x"


def gigabyte(_: int) -> Iterator[Part]:
    """Announce a thousand million bytes, send 10, and then nothing."""
    yield OK + b"Content-Length: 1000000000\r\n\r\n" + 10 * b"x"
    yield None


def drip_body(_before: int) -> Iterator[Part]:
    """Send the body one byte at a time."""
    yield OK + b"Content-Length: 40\r\n\r\n"
    for _ in range(40):
        yield b"x"
        yield DRIP


def drip_head(_: int) -> Iterator[Part]:
    """Send even the headers one byte at a time."""
    for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + 40 * b"x" + b"\r\n\r\n":
        yield bytes([byte])
        yield DRIP


def endless(_: int) -> Iterator[Part]:
    """Redirect to itself."""
    yield (
        b"HTTP/1.1 302 Found\r\nConnection: close\r\n"
        b"Content-Length: 0\r\nLocation: /endless\r\n\r\n"
    )


def long_redirect(_: int) -> Iterator[Part]:
    """Redirect to an honest page, with a body that is announced and never sent."""
    yield (
        b"HTTP/1.1 302 Found\r\nLocation: /honest\r\nContent-Length: 1000000000\r\n\r\n"
    )
    yield None


def busy(_: int) -> Iterator[Part]:
    """Be busy."""
    yield BUSY + b"\r\n"


def busy_twice(before: int) -> Iterator[Part]:
    """Be busy twice, and ask for a second's patience; then answer."""
    if before < 2:
        yield BUSY + b"Retry-After: 1\r\n\r\n"
    else:
        yield from honest(before)


def not_http(_: int) -> Iterator[Part]:
    """Speak another protocol."""
    yield b"220 mail.example ESMTP at hand.\r\n"


def hang_up(_: int) -> Iterator[Part]:
    """Read the request, whatever it may have caused, and hang up."""
    yield b""


def silent(_: int) -> Iterator[Part]:
    """Read the request and say nothing."""
    yield None


# What each path answers. The argument says how often the path was asked for before.
ANSWERS: dict[str, Callable[[int], Iterator[Part]]] = {
    "/honest": honest,
    "/truncated": truncated,
    "/cut-chunk": cut_chunk,
    "/gigabyte": gigabyte,
    "/drip-body": drip_body,
    "/drip-head": drip_head,
    "/endless": endless,
    "/long-redirect": long_redirect,
    "/busy": busy,
    "/busy-twice": busy_twice,
    "/not-http": not_http,
    "/hang-up": hang_up,
    "/silent": silent,
}


@dataclass(frozen=True, slots=True)
class LyingSite:
    """A running site.

    Attributes:
        url: where it is, without a slash at the end.
        tls_url: the same site behind a certificate that no client trusts.
        authority: the PEM text of who signed it, for a client that is to trust it.
    """

    url: str
    tls_url: str
    authority: bytes
    _asked: "_Counts"

    def asked(self, path: str) -> int:
        """Return how many requests for `path` were read completely."""
        return self._asked.of(path)


class _Counts:
    """Counts requests by path, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()  # guarded by _lock

    def of(self, path: str) -> int:
        with self._lock:
            return self._counts[path]

    def add(self, path: str) -> int:
        """Count a request for `path`; return how many there were before."""
        with self._lock:
            self._counts[path] += 1
            return self._counts[path] - 1


class _Handler(socketserver.StreamRequestHandler):
    timeout = TIMEOUT
    server: "_Server"

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # a client that has gone, or wants no more
            path = self._read_request()
            if path not in ANSWERS:  # not even a lie is due
                return
            for part in ANSWERS[path](self.server.asked.add(path)):
                if isinstance(part, bytes):
                    self.wfile.write(part)
                elif self.server.stopping.wait(HELD if part is None else part):
                    break

    def _read_request(self) -> str | None:
        """Read one request, body and all; return its path, None if it is none."""
        words = self.rfile.readline().decode("latin-1").split()
        length = "0"
        while (line := self.rfile.readline().decode("latin-1")) != "\r\n":
            if not line:  # the client has gone before the end
                return None
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                length = value.strip()
        if len(words) != 3 or not (length.isascii() and length.isdecimal()):
            return None
        complete = len(self.rfile.read(int(length))) == int(length)
        return words[1] if complete else None


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 128

    def __init__(self, context: ssl.SSLContext | None, asked: _Counts) -> None:
        self.asked = asked
        self.stopping = threading.Event()
        self._context = context
        self._lock = threading.Lock()
        self._clients: set[socket.socket] = set()  # guarded by _lock
        # A daemon: Ctrl-C while it starts would leave nobody to shut it down.
        self._serving = threading.Thread(
            target=self.serve_forever, args=(0.01,), daemon=True
        )
        super().__init__(("127.0.0.1", 0), _Handler)

    def start(self) -> None:
        """Serve in a thread."""
        self._serving.start()

    def get_request(self) -> tuple[socket.socket, object]:
        client, address = super().get_request()
        if self._context is not None:  # the handshake is left to the handler's thread
            client = self._context.wrap_socket(
                client, server_side=True, do_handshake_on_connect=False
            )
        with self._lock:
            self._clients.add(client)
        return client, address

    def shutdown_request(self, request: object) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            self._clients.discard(request)
        super().shutdown_request(request)

    def stop(self) -> None:
        """End all waits, let go of all clients, and wait for the handlers to end."""
        if self._serving.is_alive():  # else shutdown() would wait for it for ever
            self.shutdown()
            self._serving.join()
        self.stopping.set()
        with self._lock:
            for client in self._clients:
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(client, socket.SHUT_RDWR)
        self.server_close()


@contextmanager
def serve() -> Iterator[LyingSite]:
    """Serve the lies on the loopback, on a free port, and on another one with TLS.

    Raises:
        ModuleNotFoundError: trustme is not installed.
        OSError: the site cannot be started.
    """
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    asked = _Counts()
    with contextlib.ExitStack() as stack:
        servers = [_Server(tls, asked) for tls in (None, context)]
        for server in servers:
            stack.callback(server.stop)
        for server in servers:
            server.start()
        plain, tls = (server.server_address[1] for server in servers)
        yield LyingSite(
            f"http://127.0.0.1:{plain}",
            f"https://127.0.0.1:{tls}",
            authority.cert_pem.bytes(),
            asked,
        )


def observe(port: int, path: str) -> tuple[bytes, str]:
    """Ask for `path` over a bare socket; return what came, and how it ended.

    The end is "end", "silence" (nothing more for QUIET seconds), or "drip": as the
    other answers come in one piece, nobody waits for a fourth.
    """
    pieces: list[bytes] = []
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: liar\r\n\r\n".encode())
        connection.settimeout(QUIET)
        try:
            while len(pieces) < 3:
                piece = connection.recv(4096)
                if not piece:
                    return b"".join(pieces), "end"
                pieces.append(piece)
        except TimeoutError:
            return b"".join(pieces), "silence"
    return b"".join(pieces), "drip"


def refused(port: int) -> str:
    """Return why the certificate at `port` is refused; "" if it is not."""
    context = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        try:
            with context.wrap_socket(connection, server_hostname="127.0.0.1"):
                return ""
        except ssl.SSLCertVerificationError as error:
            return error.verify_message


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="until Ctrl-C")
    options = parser.parse_args()

    try:
        with serve() as site:
            port, tls_port = (urlsplit(u).port or 0 for u in (site.url, site.tls_url))
            if options.serve:
                print(f"serving {site.url}{{{','.join(ANSWERS)}}} until Ctrl-C")
                print(f"and     {site.tls_url}", flush=True)
                with contextlib.suppress(KeyboardInterrupt):
                    threading.Event().wait()
                return
            with ThreadPoolExecutor(len(ANSWERS)) as pool:
                seen = list(pool.map(lambda path: observe(port, path), ANSWERS))
            verdict = refused(tls_port)
    except ModuleNotFoundError as error:
        print(f"needs {error.name}: pip install {error.name}")
        raise SystemExit(NEEDS_STATUS) from None

    print("path            first line                        announced  body  then")
    honest_ones = 0
    for path, (data, then) in zip(ANSWERS, seen, strict=True):
        head, _, body = data.partition(b"\r\n\r\n")
        first, _, headers = head.decode().partition("\r\n")
        length = re.search(r"(?m)^Content-Length: (\d+)", headers)
        announced = length[1] if length else "-"
        honest_ones += " 200 " in first and announced == str(len(body))
        if then == "drip":  # how much of it has come is chance
            first, announced, size = "(a byte at a time)", "-", "..."
        else:
            size = str(len(body))
        print(f"{path:14}  {first:32}  {announced:>10}  {size:>4}  {then}")
    print(f"with TLS        {verdict}")
    if honest_ones != 1 or not verdict:
        raise SystemExit("one answer was to be honest, and the certificate refused")
    print(f"{len(ANSWERS) + 1} answers, {honest_ones} of them honest")


if __name__ == "__main__":
    main()
