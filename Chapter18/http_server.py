"""HTTP/1.1 on the reactor: the text of the protocol, read with suspicion.

On one connection come request after request, each as a head of lines and perhaps a
body. Where a body ends is the protocol's weak point: a server and a proxy before it
that disagree about it take the rest of one client's body for another client's request
(request smuggling). So whatever can be read in two ways is refused, and the connection
closed: two lengths, a length with a sign, a line that ends without CR, a folded line, a
blank before a colon. The rest is limits: of a target, a head, a body, and of the time
from a request's first byte to its last.

A head is parsed by a pure function, from bytes. What is there already is taken without
waiting, so that requests sent at once are answered at once. An answer comes from a
plain function, `Request -> Response`, found by path and method in a dictionary. Files
are sent in pieces, no faster than the client takes them, and none from outside their
folder. They are read in the reactor's thread, where a slow disk holds up everybody.

`--serve` shows the server's own figures in the browser, as they change. The page hears
of them by server-sent events: an answer without end, one line of JSON at a time.

A site for the public is served by nginx, with uvicorn or gunicorn behind it.

Sources: RFC 9112 (messages: sections 2.2, 3, 5, 6, 7, 9.3), RFC 9110 (expectations:
10.1.1; methods: 9; statuses: 15), the HTML standard (server-sent events: 9.2).
Try:  --serve --port 8000
Try:  --serve --directory .

Output:
    GET, HEAD on one connection      200 200
    four requests sent at once       200 404 200 200
    chunks and a trailer             200
    a method this path has not       405
    a method that none has           501
    an unknown expectation           417
    a body without a length          411
    a body of 1 TB                   413
    a target of 10,000 bytes         414
    a head of 20,000 bytes           431
    a later version                  505
    a file                           200
    12 paths to what is not public   404 each
    13 requests with two readings    400 each
    stopped in events and a body     200 100 200
    half a request and no more       408
    each got the answer that it is due, and nobody a second one
"""

import argparse
import errno
import http.client
import json
import mimetypes
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from email.utils import formatdate
from functools import lru_cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote_to_bytes

from example02_calculator import MAX_LINE, Calculator
from example07_calculator_on_the_reactor import (
    HOST,
    in_thread,
    listen,
    port,
    signals_call,
)
from reactor import Connection, Limits, Reactor, suspended

END_OF_HEAD = b"\r\n\r\n"
MAX_HEAD = 16_384  # bytes
MAX_TARGET = 8000  # bytes
MAX_BODY = 65_536  # bytes
MAX_CHUNK_LINE = 256  # bytes: a chunk's size and what may stand behind it
PIECE = 65_536  # bytes written before the client must have taken them
PATIENCE = 10.0  # seconds; a client that waits longer has found a fault

_TOKEN = rb"[\w!#$%&'*+.^`|~-]++"
_FIELD = rb"%s:[\t -~\x80-\xff]*+" % _TOKEN
_HEAD = re.compile(  # some clients end the body before it with an empty line
    rb'(?:\r\n)?(%s) ([!"$-~]++) HTTP/(\d)\.(\d)((?:\r\n%s)*+)' % (_TOKEN, _FIELD)
)
_TRAILER = re.compile(_FIELD)
_AUTHORITY = re.compile(rb"(?i:http)://[^/?]+")
_HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[\da-fA-F:.]+\])(?::\d*)?")
_CHUNK = re.compile(rb"([\da-fA-F]{1,16})(?:;[\t -~\x80-\xff]*)?")
_NOT_IN_NAMES = re.compile(rb"[\0\\:]")
_BAD_ESCAPE = re.compile(rb"%(?![\da-fA-F]{2})")

METHODS = {b"GET", b"HEAD", b"POST"}
JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
EVENTS = b"text/event-stream"
BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: 0\r\n\r\n"
)
PAGE = Path(__file__).with_name("page.html")
ELSEWHERE = b""  # the key, in routes, of all paths that have none of their own


class HttpError(Exception):
    """A request is refused, with a status, and the connection closed."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class TooLongError(HttpError):
    """What was to end within a limit has not."""


@dataclass(slots=True)
class Request:
    """What a client asks for.

    Attributes:
        path: with its escapes resolved, once.
        query: what stands behind the question mark, as it came.
        fields: the header, by names in lower case; what came twice is joined by commas.
        length: of the body in bytes; None: it comes in chunks.
        expects: whether the client wants to be told to send the body.
        keeps_alive: whether another request may follow on the connection.
    """

    method: bytes
    path: bytes
    query: bytes
    fields: dict[bytes, bytes]
    length: int | None
    expects: bool
    keeps_alive: bool
    body: bytes = b""


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


# -- reading


def parse(head: bytes) -> Request:
    """Return the request whose head this is, without the empty line at its end.

    Raises:
        HttpError: it is none, or could be read in two ways, or asks too much.
    """
    match = _HEAD.fullmatch(head)
    if match is None:
        raise HttpError(400, "this is no head of a request")
    method, target, major, minor, lines = match.groups()
    if major != b"1":
        raise HttpError(505, "only HTTP/1.1 and 1.0 are spoken here")
    if method not in METHODS:
        raise HttpError(501, "only GET, HEAD and POST are known here")
    if len(target) > MAX_TARGET:
        raise HttpError(414, f"a target of more than {MAX_TARGET} bytes")
    fields: dict[bytes, bytes] = {}
    for line in lines.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        # What is to be there once (Host, a length, a coding) is not valid with a comma
        # and a blank in it, and so is refused where its value is looked at.
        fields[name] = b"%s, %s" % (fields[name], value) if name in fields else value
    old = minor == b"0"
    host = fields.get(b"host", b"" if old else b" ")
    if not _HOST.fullmatch(host):
        raise HttpError(400, "not one valid Host")
    if target[:1] != b"/":
        target = _origin_form(target)
    path, _, query = target.partition(b"?")
    if b"%" in path:
        if _BAD_ESCAPE.search(path):
            raise HttpError(400, "a % without two hexadecimal digits")
        path = unquote_to_bytes(path)
    keeps_alive = not old
    if b"connection" in fields:
        options = _words(fields[b"connection"])
        keeps_alive = b"close" not in options and (not old or b"keep-alive" in options)
    expects = b"expect" in fields and not old
    if expects and fields[b"expect"].lower() != b"100-continue":
        raise HttpError(417, "no such expectation can be met")
    length = _length(method, fields, old)
    return Request(method, path, query, fields, length, expects, keeps_alive)


def _words(value: bytes) -> list[bytes]:
    return [word.strip() for word in value.lower().split(b",")]


def _origin_form(target: bytes) -> bytes:
    """Return the path and the query of a target that is a whole URL."""
    match = _AUTHORITY.match(target)
    if match is None:
        raise HttpError(400, "the target is neither a path nor a URL")
    rest = target[match.end() :]
    return rest if rest[:1] == b"/" else b"/" + rest


def _length(method: bytes, fields: dict[bytes, bytes], old: bool) -> int | None:
    """Return the length of a request's body; None if it comes in chunks."""
    coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
    if coding is not None:
        if length is not None or old:
            raise HttpError(400, "Transfer-Encoding beside a length, or in HTTP/1.0")
        *others, last = _words(coding)
        if last != b"chunked":
            raise HttpError(400, "a body whose end is not known")
        if others:
            raise HttpError(501, "only chunks are decoded here")
        return None
    if length is None:
        if method == b"POST":
            raise HttpError(411, "POST without a length")
        return 0
    if not length.isdigit():
        raise HttpError(400, "a length that is no number")
    if len(length) > 15 or int(length) > MAX_BODY:
        raise HttpError(413, f"a body of more than {MAX_BODY} bytes")
    return int(length)


async def more(connection: Connection) -> bytes:
    """Wait for bytes of a request that has begun.

    Raises:
        HttpError: there are none; the request remains half a request.
    """
    try:
        data = await suspended()
    except TimeoutError:
        raise HttpError(408, "a request took too long to come") from None
    if not data:
        raise HttpError(400, "half a request")
    return data


def take(connection: Connection, end: bytes, limit: int) -> bytes | None:
    """Return the bytes up to `end`, and drop `end`; None: it is not there yet."""
    length = connection.rest.find(end, 0, limit + len(end))
    if length < 0:
        return None
    found = connection.rest[:length]
    connection.rest = connection.rest[length + len(end) :]
    return found


async def until(connection: Connection, end: bytes, limit: int) -> bytes:
    """Return the bytes up to `end`, and drop `end`.

    Raises:
        TooLongError: these are more than `limit`.
        HttpError: a line has ended without CR; or see `more`.
    """
    while (found := take(connection, end, limit)) is None:
        rest = connection.rest
        if len(rest) >= limit + len(end):
            raise TooLongError(413, f"no end within {limit} bytes")
        if rest.count(b"\n") > rest.count(b"\r\n"):  # or the end would not come
            raise HttpError(400, "a line that ends without CR")
        connection.rest += await more(connection)
    return found


async def exactly(connection: Connection, n: int) -> bytes:
    """Return `n` bytes; raise what `more` raises."""
    if len(connection.rest) < n:
        parts = [connection.rest]
        missing = n - len(connection.rest)
        while missing > 0:
            parts.append(await more(connection))
            missing -= len(parts[-1])
        connection.rest = b"".join(parts)
    found = connection.rest[:n]
    connection.rest = connection.rest[n:]
    return found


async def read_head(connection: Connection) -> bytes:
    """Return the head of a request, without the empty line at its end."""
    try:
        return await until(connection, END_OF_HEAD, MAX_HEAD)
    except TooLongError as error:
        status = 431 if b"\r\n" in connection.rest else 414
        raise HttpError(status, str(error)) from None


async def read_body(connection: Connection, request: Request) -> bytes:
    """Return the body of a request, after the permission to send it if asked for."""
    if request.expects and not connection.rest:
        connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if request.length is not None:
        return await exactly(connection, request.length)
    return await read_chunks(connection)


async def read_chunks(connection: Connection) -> bytes:
    """Return a body that comes in chunks; drop what stands behind it, the trailer."""
    parts, left = [], MAX_BODY
    while True:
        line = await until(connection, b"\r\n", MAX_CHUNK_LINE)
        match = _CHUNK.fullmatch(line)
        if match is None:
            raise HttpError(400, "a chunk without a size")
        size = int(match[1], 16)
        if size == 0:
            break
        left -= size
        if left < 0:
            raise HttpError(413, f"a body of more than {MAX_BODY} bytes")
        chunk = await exactly(connection, size + 2)
        if not chunk.endswith(b"\r\n"):
            raise HttpError(400, "a chunk that is longer than its size")
        parts.append(chunk[:-2])
    left = MAX_HEAD
    while line := await until(connection, b"\r\n", left):
        left -= len(line)
        if not _TRAILER.fullmatch(line):
            raise HttpError(400, "a trailer that is none")
    return b"".join(parts)


# -- answering


@lru_cache(maxsize=32)
def start_of(status: int, second: int) -> bytes:
    """Return the lines that all answers of a second with this status begin with."""
    phrase, date = HTTPStatus(status).phrase, formatdate(second, usegmt=True)
    return f"HTTP/1.1 {status} {phrase}\r\nDate: {date}\r\n".encode()


def head_of(response: Response, length: int | None, *, keeps_alive: bool) -> bytes:
    """Return the head of an answer; without a length it ends with the connection."""
    return b"%sContent-Type: %s\r\n%sConnection: %s\r\n%s\r\n" % (
        start_of(response.status, int(time.time())),
        response.type,
        b"" if length is None else b"Content-Length: %d\r\n" % length,
        b"keep-alive" if keeps_alive else b"close",
        response.fields,
    )


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
    keeps_alive = request.keeps_alive and events is None
    length = None if file is None else os.fstat(file.fileno()).st_size
    connection.write(head_of(response, length, keeps_alive=keeps_alive))
    if request.method == b"HEAD":
        if file is not None:
            file.close()
    elif file is not None:
        keeps_alive &= await send_file(connection, file, length or 0)
    elif events is not None:
        await send_events(connection, events, response.every)
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


async def send_events(
    connection: Connection, events: Callable[[], bytes], every: float
) -> None:
    """Send an event every so many seconds, until the server stops."""
    goes_on = True
    while goes_on:
        connection.write(b"data: %s\n\n" % events())
        goes_on = await connection.pause(every)


async def serve(routes: Routes, connection: Connection) -> None:
    """Talk with one client, request by request."""
    goes_on, unsent = True, 0
    try:
        while goes_on:
            head = b""
            connection.expect_request()
            if not connection.rest:
                connection.rest = await suspended() or b""
                if not connection.rest:
                    return
                connection.begin_request()
            # Most heads come whole, and need no waiting.
            whole = take(connection, END_OF_HEAD, MAX_HEAD)
            head = await read_head(connection) if whole is None else whole
            request = parse(head)
            if request.length != 0:
                request.body = await read_body(connection, request)
            connection.reactor.statistics.requests += 1
            try:
                response = answer(routes, request)
            except Exception:
                connection.write(_refusal(head, 500))
                raise
            if response.file is None and response.events is None:
                goes_on = request.keeps_alive
                text = head_of(response, len(response.body), keeps_alive=goes_on)
                if request.method != b"HEAD":
                    text += response.body
                connection.write(text)
                unsent += len(text)
            else:
                goes_on = await stream(connection, request, response)
            if unsent > PIECE:  # many small requests for large answers
                unsent = 0
                await connection.drain()
    except HttpError as error:
        connection.write(_refusal(head, error.status, str(error)))


def _refusal(head: bytes, status: int, why: str = "") -> bytes:
    response = failure(status, why)
    text = head_of(response, len(response.body), keeps_alive=False)
    return text if head.lstrip().startswith(b"HEAD ") else text + response.body


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
    stands for its `index.html`. Not to be had is what begins with a dot (the folder
    above, what is hidden), or has a backslash or a colon in it, which on Windows leads
    to another folder or drive.

    Args:
        root: without links in it, as `Path.resolve` returns it.
    """
    names = request.path.split(b"/")[1:]
    if names[-1] == b"":
        names[-1] = b"index.html"
    if any(name[:1] in {b"", b"."} or _NOT_IN_NAMES.search(name) for name in names):
        return failure(404)
    try:
        path = root.joinpath(*map(os.fsdecode, names)).resolve(strict=True)
        found = path.is_relative_to(root) and path.is_file()
    except (OSError, RuntimeError, ValueError):  # no file; links in a cycle; no text
        found = False
    return file_response(path) if found else failure(404)


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
_CHUNKS = "Transfer-Encoding: chunked|"
_CLOSE = "Connection: close|"
CONVERSATIONS = [  # what, what is sent, and which statuses come back
    (
        "four requests sent at once",
        f"GET / {_AT}|GET /no {_AT}|{_POST}{_FIVE}|1,2,3HEAD /stats {_AT}{_CLOSE}|",
        "200 404 200 200",
    ),
    ("chunks and a trailer", f"{_POST}{_CHUNKS}{_CLOSE}|2|1,|1;a=b|2|0|A: b||", "200"),
    ("a method this path has not", f"GET /sum {_AT}{_CLOSE}|", "405"),
    ("a method that none has", f"BREW / {_AT}{_CLOSE}|", "501"),
    ("an unknown expectation", f"GET / {_AT}Expect: tea|{_CLOSE}|", "417"),
    ("a body without a length", f"{_POST}{_CLOSE}|", "411"),
    ("a body of 1 TB", f"{_POST}Content-Length: {10**12}||", "413"),
    ("a target of 10,000 bytes", f"GET /{10_000 * 'a'} {_AT}{_CLOSE}|", "414"),
    ("a head of 20,000 bytes", f"GET / {_AT}{_CLOSE}A: {20_000 * 'a'}||", "431"),
    ("a later version", f"GET / HTTP/2.0|{_CLOSE}|", "505"),
    ("a file", f"GET /hello.txt {_AT}{_CLOSE}|", "200"),
]
OUTSIDE = [
    *("/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "//secret.txt"),
    *("/..\\secret.txt", "/..%5csecret.txt", "/%252e%252e/secret.txt", "/.hidden"),
    *("/folder/../../secret.txt", "/secret.txt%00.html", "/link", "/folder"),
]
AMBIGUOUS = [
    f"{_POST}{_FIVE}{_CHUNKS}|0||",
    f"{_POST}{_FIVE}{_FIVE}|1,2,3",
    f"{_POST}{_FIVE}Content-Length: 0||",
    f"{_POST}Content-Length: +5||1,2,3",
    f"{_POST}Content-Length : 5||1,2,3",
    f"{_POST}A: b| {_FIVE}|1,2,3",
    f"{_POST}A: b\n{_FIVE}|1,2,3",
    f"{_POST}Transfer-Encoding: xchunked||0||",
    f"{_POST}{_CHUNKS}Transfer-Encoding: identity||0||",
    f"{_POST}{_CHUNKS}|0x1|1|0||",
    f"{_POST}{_CHUNKS}|1\n1|0||",
    f"{_POST}{_CHUNKS}|1|12|0||",
    f"GET / {_AT}Host: elsewhere||",
]


def connect(number: int) -> socket.socket:
    return socket.create_connection((HOST, number), PATIENCE)


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


def exchange(number: int, text: str) -> str:
    """Send a text; return the statuses of all answers until the server closes."""
    with connect(number) as client:
        send_text(client, text)
        return statuses(rest_of(client))


def check(what: str, seen: str, expected: str) -> None:
    print(f"{what:32} {seen}")
    if seen != expected:
        raise SystemExit(f"{what}: {seen}, not {expected}")


def check_all(what: str, number: int, texts: list[str], expected: str) -> None:
    for text in texts:
        if (seen := exchange(number, text)) != expected:
            raise SystemExit(f"{text!r}: {seen}, not {expected}")
    print(f"{len(texts)} {what:29} {expected} each")


def keep_alive(number: int) -> str:
    """Let the standard library's client ask twice; return the statuses."""
    with closing(http.client.HTTPConnection(HOST, number, timeout=PATIENCE)) as client:
        client.connect()
        sock, found = client.sock, []
        for method in "GET", "HEAD":
            client.request(method, "/")
            with client.getresponse() as response:
                response.read()
                found.append((response.status, response.headers["Content-Length"]))
        if client.sock is not sock or found[0] != found[1]:
            raise SystemExit(f"not the same length on the same connection: {found}")
    return " ".join(str(status) for status, _ in found)


def stop_amidst(reactor: Reactor, number: int) -> str:
    """Stop while one client hears events, and another has been told to send a body."""
    with connect(number) as hears, connect(number) as sends:
        send_text(hears, f"GET /events {_AT}|")
        heard = b""
        while heard.count(b"data: ") < 2 and (data := hears.recv(1 << 16)):
            heard += data
        send_text(sends, f"{_POST}{_FIVE}Expect: 100-continue||")
        answers = sends.recv(1 << 16)
        if heard.count(b"data: ") < 2:
            raise SystemExit("the events have come to an end")
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
    number = listener.getsockname()[1]
    reactor = http_reactor(listener, Limits(tick=0.02), root, every=0.02)
    with in_thread(reactor):
        check("GET, HEAD on one connection", keep_alive(number), "200 200")
        for what, text, expected in CONVERSATIONS:
            check(what, exchange(number, text), expected)
        texts = [f"GET {path} {_AT}{_CLOSE}|" for path in OUTSIDE]
        check_all("paths to what is not public", number, texts, "404")
        texts = [f"{text}GET /stats {_AT}{_CLOSE}|" for text in AMBIGUOUS]
        check_all("requests with two readings", number, texts, "400")
        seen = stop_amidst(reactor, number)
    check("stopped in events and a body", seen, "200 100 200")
    if reactor.statistics.failed:
        raise SystemExit(f"{reactor.statistics.failed} sessions have failed")

    listener = listen()
    number = listener.getsockname()[1]
    with in_thread(http_reactor(listener, Limits(request=0.02, tick=0.02))):
        check("half a request and no more", exchange(number, f"GET / {_AT}"), "408")
    print("each got the answer that it is due, and nobody a second one")


def folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"no folder is there: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="until Ctrl-C")
    parser.add_argument("--port", type=port, default=0, help="of --serve; 0: any free")
    parser.add_argument("--directory", type=folder, help="files for --serve to serve")
    options = parser.parse_args()
    if options.port and not options.serve:
        parser.error("--port goes with --serve")
    if options.directory and not options.serve:
        parser.error("--directory goes with --serve")
    if not options.serve:
        with tempfile.TemporaryDirectory() as name:
            demonstrate(Path(name))
        return
    try:
        listener = listen(options.port)
    except OSError as error:
        raise SystemExit(f"port {options.port}: {error}") from None
    reactor = http_reactor(listener, Limits(), options.directory)
    with signals_call(reactor.stop):
        number = listener.getsockname()[1]
        print(f"serving on {HOST} port {number} until Ctrl-C", flush=True)
        reactor.run()
    print(reactor.summary().decode())


if __name__ == "__main__":
    main()
