"""HTTP/1.1 on the reactor: pages, files, and figures that a browser draws live.

http_parsing.py makes requests of the bytes of a connection; the session here gives it
what comes, and answers. What is there already is taken without waiting, so that
requests sent at once are answered at once. An answer comes from a plain function,
`Request -> Response`, found by path and method in a dictionary. What all answers of a
second begin with is made once.

Files are sent in pieces, no faster than the client takes them, and none from outside
their folder. They are read in the reactor's thread, where a slow disk holds up
everybody. A request that does not come to its end is given up after a time from its
first byte, and one that the parser refuses is the last of its connection.

`--serve` shows the server's own figures in the browser. The page hears of them by
server-sent events: an answer without end, one line of JSON at a time.

A site for the public is served by nginx, with uvicorn or gunicorn behind it.

Sources: RFC 9112 (messages: sections 6, 9.3), RFC 9110 (methods: 9; statuses: 15), the
HTML standard (server-sent events: 9.2).
Try:  --serve --port 8000
Try:  --serve --directory .

Output:
    four requests sent at once       200 404 200 200
    an older client                  200
    a body in chunks                 200
    a method this path has not       405
    two lengths, and a request       400
    a file                           200
    12 paths to what is not public   404 each
    stopped in events and a body     200 100 200
    half a request and no more       408
    each got the answer that it is due, and nobody a second one
"""

import argparse
import errno
import json
import mimetypes
import os
import re
import socket
import tempfile
import time
import types
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import asdict, dataclass
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

from example01_echo_blocking import listen_or_exit, options_of
from example02_calculator import MAX_LINE, Calculator
from example07_calculator_on_the_reactor import (
    BACKLOG,
    in_thread,
    listen,
    serve_until_signal,
)
from http_parsing import HttpError, Need, Request, requests
from reactor import Connection, Limits, Reactor

PIECE = 65_536  # bytes written before the client must have taken them
PATIENCE = 10.0  # seconds; a client that waits longer has found a fault

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
EVENTS = b"text/event-stream"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)
PAGE = Path(__file__).with_name("page.html")
Address = tuple[str, int]
ELSEWHERE = b""  # the key, in routes, of all paths that have none of their own

# No name is empty, begins with a dot (the folder above; what is hidden), or has in it
# what leads to another folder or drive on Windows.
_PUBLIC = re.compile(rb"(?:/[^./\\:\0][^/\\:\0]*+)++")


@dataclass(slots=True)
class Response:
    """What is answered: a body, or a file instead, or events.

    Attributes:
        fields: more of the header, as whole lines.
        file: is sent from its beginning, and closed.
        events: gives the text of the next event, again and again, every so many
            seconds, until the client goes or the server stops.
    """

    body: bytes = b""
    status: int = 200
    type: bytes = TEXT
    fields: bytes = b""
    file: BinaryIO | None = None
    events: Callable[[], bytes] | None = None
    every: float = 1.0


Handler = Callable[[Request], Response]
Routes = dict[bytes, dict[bytes, Handler]]  # path -> method -> handler


# -- answering


@lru_cache(maxsize=64)
def start_of(status: int, type_: bytes, keeps_alive: bool, second: int) -> bytes:
    """Return the lines that all such answers of a second begin with."""
    return b"HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\nConnection: %s\r\n" % (
        status,
        HTTPStatus(status).phrase.encode(),
        formatdate(second, usegmt=True).encode(),
        type_,
        b"keep-alive" if keeps_alive else b"close",
    )


def whole(request: Request, response: Response) -> bytes:
    """Return the text of an answer that has neither a file nor events."""
    return b"%sContent-Length: %d\r\n%s\r\n%s" % (
        start_of(response.status, response.type, request.keeps_alive, int(time.time())),
        len(response.body),
        response.fields,
        b"" if request.method == b"HEAD" else response.body,
    )


def refusal(status: int, why: str) -> bytes:
    """Return the last answer of a connection; its first line says why.

    It has no body, for the request may have been HEAD, which is not always known.
    """
    date = formatdate(usegmt=True)
    return (
        f"HTTP/1.1 {status} {why}\r\nDate: {date}\r\n"
        "Connection: close\r\nContent-Length: 0\r\n\r\n"
    ).encode()


def failure(status: int, why: str = "", fields: bytes = b"") -> Response:
    """Return an answer that says what is wrong."""
    phrase = HTTPStatus(status).phrase
    text = f"{status} {phrase}: {why}\n" if why else f"{status} {phrase}\n"
    return Response(text.encode(), status, fields=fields)


def answer(routes: Routes, request: Request) -> Response:
    """Return the answer of the handler that `routes` has for a request, or an error."""
    methods = routes.get(request.path) or routes.get(ELSEWHERE)
    if methods is None:
        return failure(404)
    method = request.method
    handler = methods.get(b"GET" if method == b"HEAD" else method)
    if handler is None:
        allowed = b", ".join(methods).replace(b"GET", b"GET, HEAD")
        return failure(405, fields=b"Allow: %s\r\n" % allowed)
    return handler(request)


async def stream(connection: Connection, request: Request, response: Response) -> bool:
    """Send a file or events; return whether another request may follow."""
    file, events = response.file, response.events
    keeps_alive, length, size = request.keeps_alive and events is None, b"", 0
    if file is not None:
        size = os.fstat(file.fileno()).st_size
        length = b"Content-Length: %d\r\n" % size
    start = start_of(response.status, response.type, keeps_alive, int(time.time()))
    connection.write(start + length + response.fields + b"\r\n")
    if request.method == b"HEAD":
        if file is not None:
            file.close()
    elif file is not None:
        keeps_alive &= await send_file(connection, file, size)
    elif events is not None:
        goes_on = True
        while goes_on:
            connection.write(b"data: %s\n\n" % events())
            goes_on = await connection.pause(response.every)
    return keeps_alive


async def send_file(connection: Connection, file: BinaryIO, length: int) -> bool:
    """Send `length` bytes of `file` and close it; return False if it has fewer.

    The client has been told the length. If the file has shrunk since, only the end of
    the connection keeps the client from waiting for the rest.
    """
    with file:
        while length > 0:
            piece = file.read(min(PIECE, length))
            if not piece:
                return False
            length -= len(piece)
            connection.write(piece)
            await connection.drain()
    return True


@types.coroutine
def bytes_for(
    need: Need, connection: Connection
) -> Generator[None, bytes | None, bytes]:
    """Wait for what the parser needs; return nothing at the end of the stream.

    Raises:
        HttpError: a request has begun, and does not come to its end.
        TimeoutError: none has begun.
    """
    if need == "permission":
        connection.write(CONTINUE)
    if need != "request":
        connection.begin_request()
    try:
        return (yield) or b""
    except TimeoutError:
        if need == "request":
            raise
        raise HttpError(408, "a request took too long to come") from None


async def serve(routes: Routes, connection: Connection) -> None:
    """Talk with one client, request by request."""
    parser = requests()
    keeps_alive, unsent = True, 0
    try:
        while keeps_alive:
            connection.expect_request()
            item = next(parser)
            try:
                while not isinstance(item, Request):
                    item, unsent = parser.send(await bytes_for(item, connection)), 0
            except StopIteration:
                return
            connection.reactor.statistics.requests += 1
            try:
                response = answer(routes, item)
            except Exception:
                connection.write(refusal(500, "the server has made a mistake"))
                raise
            if response.file is None and response.events is None:
                connection.write(whole(item, response))
                keeps_alive, unsent = item.keeps_alive, unsent + len(response.body)
                if unsent > PIECE:  # many small requests for large answers
                    unsent = 0
                    await connection.drain()
            else:
                keeps_alive = await stream(connection, item, response)
            del response  # or it would be kept as long as the client is idle
    except HttpError as error:
        connection.write(refusal(error.status, str(error)))


# -- what is served


def file_response(path: Path) -> Response:
    """Return an answer with a file, or with what keeps it from being opened."""
    try:
        file = path.open("rb")
    except OSError as error:
        return failure(503 if error.errno in {errno.EMFILE, errno.ENFILE} else 404)
    type_, encoding = mimetypes.guess_type(path.name)
    if type_ is None or encoding is not None:
        type_ = "application/octet-stream"
    elif type_.startswith("text/"):
        type_ += "; charset=utf-8"
    return Response(type=type_.encode(), file=file)


def file_below(root: Path, request: Request) -> Response:
    """Return the file that a request's path names, if it is one below `root`.

    Links are followed, and where they lead must be below `root` as well. A folder
    stands for its `index.html`. Whatever begins with a dot is hidden.

    Args:
        root: without links in it, as `Path.resolve` returns it.
    """
    path = request.path
    if path.endswith(b"/"):
        path += b"index.html"
    if not _PUBLIC.fullmatch(path):
        return failure(404)
    try:
        found = root.joinpath(os.fsdecode(path[1:])).resolve(strict=True)
        names = found.relative_to(root).parts  # without the short names of Windows
        if found.is_file() and not any(name.startswith(".") for name in names):
            return file_response(found)
    except (OSError, RuntimeError, ValueError):  # no file; links in a cycle; elsewhere
        pass
    return failure(404)


def total(request: Request) -> Response:
    """Return the sum of the integers, separated by commas, in a request's body."""
    if len(request.body) > MAX_LINE:
        return failure(413, f"more than {MAX_LINE} bytes of integers")
    text = Calculator().answer(request.body)
    if not text.strip().lstrip(b"-").isdigit():
        return failure(400, "not integers separated by commas, or too large ones")
    return Response(text)


def figures(reactor: Reactor) -> bytes:
    """Return the server's figures in JSON, and its time in seconds."""
    numbers = {"seconds": round(reactor.now, 3), "open": len(reactor.connections)}
    return json.dumps(numbers | asdict(reactor.statistics)).encode()


def http_reactor(
    listener: socket.socket,
    limits: Limits,
    directory: Path | None = None,
    every: float = 1.0,
) -> Reactor:
    """Return a reactor that serves this chapter's site, not running yet.

    Args:
        directory: files in it are served, too.
        every: seconds from one of the page's events to the next.
    """
    routes: Routes = {}
    reactor = Reactor(partial(serve, routes), listener, limits, busy=BUSY)
    now = partial(figures, reactor)
    routes |= {
        b"/": {b"GET": lambda _: file_response(PAGE)},
        b"/stats": {b"GET": lambda _: Response(now(), type=JSON)},
        b"/events": {b"GET": lambda _: Response(type=EVENTS, events=now, every=every)},
        b"/sum": {b"POST": total},
    }
    if directory is not None:
        routes[ELSEWHERE] = {b"GET": partial(file_below, directory.resolve())}
    return reactor


# -- the demonstration: "|" stands for the end of a line

_AT = "HTTP/1.1|Host: localhost|"
_POST = f"POST /sum {_AT}"
_FIVE = "Content-Length: 5|"
_CLOSE = "Connection: close|"
CONVERSATIONS = [  # what, what is sent, and which statuses come back
    (
        "four requests sent at once",
        f"GET / {_AT}|GET /no {_AT}|{_POST}{_FIVE}|1,2,3HEAD /stats {_AT}{_CLOSE}|",
        "200 404 200 200",
    ),
    ("an older client", "GET /stats HTTP/1.0||", "200"),
    (
        "a body in chunks",
        f"{_POST}Transfer-Encoding: chunked|{_CLOSE}|2|1,|1|2|0||",
        "200",
    ),
    ("a method this path has not", f"GET /sum {_AT}{_CLOSE}|", "405"),
    (
        "two lengths, and a request",
        f"{_POST}{_FIVE}{_FIVE}|1,2,3GET / {_AT}{_CLOSE}|",
        "400",
    ),
    ("a file", f"GET /hello.txt {_AT}{_CLOSE}|", "200"),
]
OUTSIDE = [
    *("/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "//secret.txt"),
    *("/..\\secret.txt", "/..%5csecret.txt", "/%252e%252e/secret.txt", "/.hidden"),
    *("/folder/../../secret.txt", "/secret.txt%00.html", "/link", "/folder"),
]


def send_text(client: socket.socket, text: str) -> None:
    client.sendall(text.replace("|", "\r\n").encode())


def rest_of(client: socket.socket) -> bytes:
    """Return what comes until the server closes."""
    try:
        return b"".join(iter(lambda: client.recv(1 << 16), b""))
    except TimeoutError:
        raise SystemExit(f"a connection is still open after {PATIENCE:g} s") from None


def statuses(answers: bytes) -> str:
    return b" ".join(re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)).decode()


def exchange(address: Address, text: str) -> str:
    """Send a text; return the statuses of all answers until the server closes."""
    with socket.create_connection(address, PATIENCE) as client:
        send_text(client, text)
        return statuses(rest_of(client))


def check(what: str, seen: str, expected: str) -> None:
    print(f"{what:32} {seen}")
    if seen != expected:
        raise SystemExit(f"{what}: {seen}, not {expected}")


def stop_amidst(reactor: Reactor, address: Address) -> str:
    """Stop while one client hears events, and another has been told to send a body."""
    hears = socket.create_connection(address, PATIENCE)
    sends = socket.create_connection(address, PATIENCE)
    with hears, sends:
        send_text(hears, f"GET /events {_AT}|")
        heard = b""
        while heard.count(b"data: ") < 2:
            if not (data := hears.recv(1 << 16)):
                raise SystemExit("the events have come to an end")
            heard += data
        send_text(sends, f"{_POST}{_FIVE}Expect: 100-continue||")
        answers = sends.recv(1 << 16)
        reactor.stop()
        rest_of(hears)  # comes to its end, for the server has begun to stop
        send_text(sends, "1,2,3")
        return statuses(heard + answers + rest_of(sends))


def demonstrate(top: Path) -> None:
    """Ask a server for all that it must answer, and for all that it must not."""
    root = top / "public"
    (root / "folder").mkdir(parents=True)
    for name in "public/hello.txt", "public/.hidden", "secret.txt":
        (top / name).write_text("hello\n")
    with suppress(OSError):  # Windows lets not everybody make a link
        (root / "link").symlink_to(top / "secret.txt")

    listener = listen()
    address = listener.getsockname()
    reactor = http_reactor(listener, Limits(tick=0.02), root, every=0.02)
    with in_thread(reactor):
        for what, text, expected in CONVERSATIONS:
            check(what, exchange(address, text), expected)
        for path in OUTSIDE:
            seen = exchange(address, f"GET {path} {_AT}{_CLOSE}|")
            if seen != "404":
                raise SystemExit(f"{path} is answered with {seen}")
        print(f"{len(OUTSIDE)} paths to what is not public   404 each")
        seen = stop_amidst(reactor, address)
    check("stopped in events and a body", seen, "200 100 200")
    if reactor.statistics.failed:
        raise SystemExit(f"{reactor.statistics.failed} sessions have failed")

    listener = listen()
    address = listener.getsockname()
    with in_thread(http_reactor(listener, Limits(request=0.02, tick=0.02))):
        check("half a request and no more", exchange(address, f"GET / {_AT}"), "408")
    print("each got the answer that it is due, and nobody a second one")


def folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"no folder is there: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--directory", type=folder, help="files for --serve to serve")
    options = options_of(parser)
    if options.directory and not options.serve:
        parser.error("--directory goes with --serve")
    if options.serve:
        listener = listen_or_exit(options.port, BACKLOG)
        serve_until_signal(http_reactor(listener, Limits(), options.directory))
        return
    with tempfile.TemporaryDirectory() as name:
        demonstrate(Path(name))


if __name__ == "__main__":
    main()
