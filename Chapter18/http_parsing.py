"""HTTP/1.1 parsed with suspicion, and without I/O: bytes in, requests out.

On one connection come request after request, each as a head of lines and perhaps a
body. Where a body ends is the protocol's weak point: a server and a proxy before it
that disagree about it take the rest of one client's body for another client's request
(request smuggling). So whatever can be read in two ways is refused: two lengths, a
length with a sign, a line that ends without CR, a folded line, a blank before a colon.
The rest is limits: of a target, a head, a body.

The parser is a generator (see example04). It says what it waits for, is sent bytes, and
goes on where it was, so that it does not matter into which pieces a stream is cut. As
it neither reads nor waits, a test needs no socket, and it serves threads as well as any
event loop; http_server.py has it on the reactor. A head is checked by one regular
expression, and then only has to be taken apart.

A professional takes h11, which has no I/O either, or llhttp.

Sources: RFC 9112 (messages: sections 2.2, 3, 5, 6, 7), RFC 9110 (fields: 5; Host: 7.2;
expectations: 10.1.1; statuses: 15).

Output:
    GET /a b     a body of 0 bytes, and the connection stays
    POST /       a body of 5 bytes, and the connection stays
    HEAD /       a body of 0 bytes, and the connection closes
    POST /       a body of 5 bytes, and the connection stays
    GET /        a body of 0 bytes, and the connection stays
    cut in two after each of 341 bytes, and byte by byte: the same
    a head of 4 lines takes 2.9 µs
    400  two lengths
    400  a length that is no number
    400  a blank before a colon
    400  a folded line
    400  a line that ends without CR
    400  a coding that is not chunks
    400  a chunk that is longer
    400  two hosts
    411  a body without a length
    413  a body of 1 TB
    414  a target of 10,000 bytes
    417  an unknown expectation
    431  a head of 20,000 bytes
    501  a method that none has
    505  a later version
    all 19 are refused, and what follows them is not looked at
"""

import re
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Literal
from urllib.parse import unquote_to_bytes

END_OF_HEAD = b"\r\n\r\n"
MAX_HEAD = 16_384  # bytes
MAX_TARGET = 8000  # bytes
MAX_BODY = 65_536  # bytes
MAX_CHUNK_LINE = 256  # bytes: a chunk's size and what may stand behind it
METHODS = {b"GET", b"HEAD", b"POST"}

_TOKEN = rb"[\w!#$%&'*+.^`|~-]++"
_FIELD = rb"%s:[\t -~\x80-\xff]*+" % _TOKEN
_HOST_NAME = rb"[\w.~!$&'()*+,;=%-]"
_PORT = rb"(?::\d*+)?"
_match_head = re.compile(
    rb"(?:\r\n)?"  # some clients end the body before it with an empty line
    rb'(%s) ([!"$->@-~]++)(?:\?([!"$-~]*+))? HTTP/(\d\.\d)\r\n((?:%s\r\n)*+)\r\n'
    % (_TOKEN, _FIELD)
).match
_TRAILER = re.compile(_FIELD)
_HOST = re.compile(rb"(?:%s*+|\[[\da-fA-F:.]++\])%s" % (_HOST_NAME, _PORT))
_URL = re.compile(
    rb"(?i:http)://((?:%s++|\[[\da-fA-F:.]++\])%s)(/.*)?" % (_HOST_NAME, _PORT)
)
_CHUNK = re.compile(rb"([\da-fA-F]{1,16})(?:;[\t -~\x80-\xff]*)?")
_BAD_ESCAPE = re.compile(rb"%(?![\da-fA-F]{2})")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_SLASH, _PERCENT, _ONE = b"/%1"  # as numbers, which are faster to look for


class HttpError(Exception):
    """A request is refused, with a status, and the connection is to be closed."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(slots=True)
class Request:
    """What a client asks for.

    Attributes:
        path: with its escapes resolved, once.
        query: what stands behind the question mark, as it came.
        version: b"1.0", or b"1.1" and what may follow it.
        fields: the header, by names in lower case; what came twice is joined by commas.
        keeps_alive: whether another request may follow on the connection.
    """

    method: bytes
    path: bytes
    query: bytes
    version: bytes
    fields: dict[bytes, bytes]
    keeps_alive: bool
    body: bytes = b""


# What is waited for: the first bytes of a request; more of it; the same, from a client
# that waits to be told to send the body (100 Continue).
Need = Literal["request", "more", "permission"]
Parser = Generator[Request | Need, bytes | None, None]


def requests() -> Parser:
    """Parse what comes on one connection.

    Yields:
        A request; then `next` asks for the one after it. Or what is waited for; then
        bytes are to be sent, none at the end of the stream. If that is between two
        requests, it is the generator's end, too.

    Raises:
        HttpError: what has come is no request, or could be read in two ways, or asks
            too much. Where the next one would begin is not known then.
    """
    stream = _Stream()
    while True:
        while stream.at == len(stream.data):
            stream.data, stream.at = b"", 0
            stream.data = (yield "request") or b""
            if not stream.data:
                return
        match = stream.head()
        if match is None:
            # Both have the same limit: until its line ends, all of a head is target.
            yield from stream.find(b"\r\n", MAX_HEAD, 414)
            yield from stream.find(END_OF_HEAD, MAX_HEAD, 431)
            match = stream.head()
            if match is None:
                raise HttpError(400, "this is no head of a request")
        stream.at = match.end()
        request = _request(*match.groups())
        length = _length(request)
        if length != 0:
            expects = b"expect" in request.fields and request.version != b"1.0"
            if expects and stream.at == len(stream.data):
                stream.data, stream.at = (yield from _more("permission")), 0
            if length is None:
                request.body = yield from _chunks(stream)
            else:
                request.body = yield from stream.take(length)
        yield request
        del match, request  # or they would be kept as long as the client is idle


def parse(pieces: Iterable[bytes]) -> list[Request]:
    """Return the requests in a stream that has come in pieces, and then ended.

    Raises:
        HttpError: see `requests`; or the last one is not whole.
    """
    found, parser = [], requests()
    next(parser)
    with suppress(StopIteration):
        for piece in chain(pieces, [b""]):
            item = parser.send(piece)
            while isinstance(item, Request):
                found.append(item)
                item = next(parser)
    return found


def _request(
    method: bytes, path: bytes, query: bytes | None, version: bytes, lines: bytes
) -> Request:
    """Return the request that has such a head, still without its body."""
    query = query or b""
    if version[0] != _ONE:
        raise HttpError(505, "only HTTP/1.1 and 1.0 are spoken here")
    if method not in METHODS:
        raise HttpError(501, "only GET, HEAD and POST are known here")
    if len(path) + len(query) > MAX_TARGET:
        raise HttpError(414, f"a target of more than {MAX_TARGET} bytes")
    fields: dict[bytes, bytes] = {}
    for line in lines.splitlines():
        name, _, value = line.partition(b":")
        name, value = name.lower(), value.strip()
        # What is to be there once (Host, a length, a coding) is not valid with a comma
        # and a blank in it, and so is refused where its value is looked at.
        fields[name] = b"%s, %s" % (fields[name], value) if name in fields else value
    old = version == b"1.0"
    if not _is_host(fields.get(b"host", b"" if old else b" ")):
        raise HttpError(400, "not one valid Host")
    if path[0] != _SLASH:
        url = _URL.fullmatch(path)
        if url is None:
            raise HttpError(400, "the target is neither a path nor a URL")
        fields[b"host"], path = url[1], url[2] or b"/"
    if _PERCENT in path:
        if _BAD_ESCAPE.search(path):
            raise HttpError(400, "a % without two hexadecimal digits")
        path = unquote_to_bytes(path)
    keeps_alive = not old
    if b"connection" in fields:
        options = _words(fields[b"connection"])
        keeps_alive = b"close" not in options and (not old or b"keep-alive" in options)
    if b"expect" in fields and fields[b"expect"].lower() != b"100-continue" and not old:
        raise HttpError(417, "no such expectation can be met")
    return Request(method, path, query, version, fields, keeps_alive)


@lru_cache(maxsize=64)  # nearly all requests have the same
def _is_host(value: bytes) -> bool:
    return _HOST.fullmatch(value) is not None


def _words(value: bytes) -> list[bytes]:
    return [word.strip() for word in value.lower().split(b",")]


def _length(request: Request) -> int | None:
    """Return the length of a request's body; None if it comes in chunks."""
    fields = request.fields
    if b"transfer-encoding" in fields:
        if b"content-length" in fields or request.version == b"1.0":
            raise HttpError(400, "Transfer-Encoding beside a length, or in HTTP/1.0")
        *others, last = _words(fields[b"transfer-encoding"])
        if last != b"chunked":
            raise HttpError(400, "a body whose end is not known")
        if others:
            raise HttpError(501, "only chunks are decoded here")
        return None
    if b"content-length" not in fields:
        if request.method == b"POST":
            raise HttpError(411, "POST without a length")
        return 0
    length = fields[b"content-length"]
    if not length.isdigit():
        raise HttpError(400, "a length that is no number")
    if len(length) > 15 or int(length) > MAX_BODY:
        raise HttpError(413, f"a body of more than {MAX_BODY} bytes")
    return int(length)


def _more(need: Need = "more") -> Generator[Need, bytes | None, bytes]:
    """Wait for bytes of a request that has begun."""
    data = yield need
    if not data:
        raise HttpError(400, "half a request")
    return data


@dataclass(slots=True)
class _Stream:
    """Bytes that have come; those of `data` from `at` on have not been parsed yet."""

    data: bytes = b""
    at: int = 0

    def head(self) -> re.Match[bytes] | None:
        """Return the head of a request, if it is whole, valid and not too long."""
        return _match_head(self.data, self.at, self.at + MAX_HEAD + len(END_OF_HEAD))

    def find(
        self, end: bytes, limit: int, status: int
    ) -> Generator[Need, bytes | None, int]:
        """Wait for `end`; return where it is.

        Raises:
            HttpError: it does not come within `limit` bytes; or a line has ended
                without CR, so that it would not come at all.
        """
        seen = 0  # in so many bytes it is not
        while True:
            start, most = self.at + seen, self.at + limit + len(end)
            if (found := self.data.find(end, start, most)) >= 0:
                return found
            if _BARE_LF.search(self.data, start, most):
                raise HttpError(400, "a line that ends without CR")
            if len(self.data) >= most:
                raise HttpError(status, f"no end within {limit} bytes")
            seen = max(0, len(self.data) - self.at - len(end) + 1)
            more = yield from _more()
            self.data, self.at = self.data[self.at :] + more, 0

    def line(self, limit: int) -> Generator[Need, bytes | None, bytes]:
        """Wait for the end of a line; return the line without it."""
        end = yield from self.find(b"\r\n", limit, 413)
        start, self.at = self.at, end + 2
        return self.data[start:end]

    def take(self, n: int) -> Generator[Need, bytes | None, bytes]:
        """Wait for `n` bytes, and return them."""
        if len(self.data) - self.at < n:
            found = bytearray(self.data[self.at :])
            while len(found) < n:
                found += yield from _more()
            self.data, self.at = bytes(found), 0
        start, self.at = self.at, self.at + n
        return self.data[start : self.at]


def _chunks(stream: _Stream) -> Generator[Need, bytes | None, bytes]:
    """Return a body that comes in chunks; drop what stands behind it, the trailer."""
    body, left = bytearray(), MAX_BODY
    while True:
        match = _CHUNK.fullmatch((yield from stream.line(MAX_CHUNK_LINE)))
        if match is None:
            raise HttpError(400, "a chunk without a size")
        size = int(match[1], 16)
        if size == 0:
            break
        left -= size
        if left < 0:
            raise HttpError(413, f"a body of more than {MAX_BODY} bytes")
        chunk = yield from stream.take(size + 2)
        if not chunk.endswith(b"\r\n"):
            raise HttpError(400, "a chunk that is longer than its size")
        body += chunk[:-2]
    left = MAX_HEAD
    while line := (yield from stream.line(left)):
        left -= len(line) + 2
        if not _TRAILER.fullmatch(line):
            raise HttpError(400, "a trailer that is none")
    return bytes(body)


# -- the demonstration: "|" stands for the end of a line

_AT = "HTTP/1.1|Host: localhost|"
_POST = f"POST / {_AT}"
_FIVE = "Content-Length: 5|"
_CHUNKED = "Transfer-Encoding: chunked|"
STREAM = [  # requests that are sent one after the other
    f"GET /a%20b?c=d {_AT}|",
    f"{_POST}{_FIVE}|1||",
    f"|HEAD http://elsewhere/ {_AT}Connection: close|X: y|x: z||",
    f'{_POST}{_CHUNKED}|2|||3;a="b"|1||0|Trailer: is dropped||',
    "GET / HTTP/1.0|Connection: Keep-Alive||",
]
BODIES = [b"", b"1\r\n\r\n", b"", b"\r\n1\r\n", b""]
REFUSED = [  # why, with what status, and what
    (400, "two lengths", f"{_POST}{_FIVE}{_CHUNKED}|0||"),
    (400, "two lengths", f"{_POST}{_FIVE}{_FIVE}|1,2,3"),
    (400, "two lengths", f"{_POST}Content-Length: 5, 6||1,2,3"),
    (400, "a length that is no number", f"{_POST}Content-Length: +5||1,2,3"),
    (400, "a length that is no number", f"{_POST}{_CHUNKED}|0x1|1|0||"),
    (400, "a blank before a colon", f"{_POST}Content-Length : 5||1,2,3"),
    (400, "a folded line", f"{_POST}A: b| {_FIVE}|1,2,3"),
    (400, "a line that ends without CR", f"{_POST}A: b\n{_FIVE}|1,2,3"),
    (400, "a line that ends without CR", f"{_POST}{_CHUNKED}|1\n1|0||"),
    (400, "a coding that is not chunks", f"{_POST}Transfer-Encoding: xchunked||0||"),
    (400, "a chunk that is longer", f"{_POST}{_CHUNKED}|1|12|0||"),
    (400, "two hosts", f"GET / {_AT}Host: elsewhere||"),
    (411, "a body without a length", f"{_POST}|"),
    (413, "a body of 1 TB", f"{_POST}Content-Length: {10**12}||"),
    (414, "a target of 10,000 bytes", f"GET /{10_000 * 'a'} {_AT}|"),
    (417, "an unknown expectation", f"GET / {_AT}Expect: tea||"),
    (431, "a head of 20,000 bytes", f"GET / {_AT}A: {20_000 * 'a'}||"),
    (501, "a method that none has", f"BREW / {_AT}|"),
    (505, "a later version", "GET / HTTP/2.0|Host: localhost||"),
]


def encoded(text: str) -> bytes:
    return text.replace("|", "\r\n").encode()


def status_of(pieces: Iterable[bytes]) -> int:
    """Return the status with which a stream is refused; 200: it is not."""
    try:
        parse(pieces)
    except HttpError as error:
        return error.status
    return 200


def by_bytes(data: bytes) -> list[bytes]:
    return [data[n : n + 1] for n in range(len(data))]


def time_of(head: bytes, n: int = 1000) -> float:
    """Return the seconds that it takes to parse a head, one of `n`."""
    parser = requests()
    next(parser)
    began = time.perf_counter()
    for _ in range(n):
        parser.send(head)
        next(parser)
    return (time.perf_counter() - began) / n


def main() -> None:
    stream = encoded("".join(STREAM))
    found = parse([stream])
    if [request.body for request in found] != BODIES:
        raise SystemExit(f"the bodies were to be {BODIES}")
    for request in found:
        line, size = request.method + b" " + request.path, len(request.body)
        stays = "stays" if request.keeps_alive else "closes"
        print(f"{line.decode():13}a body of {size} bytes, and the connection {stays}")
    for n in range(1, len(stream)):
        if parse([stream[:n], stream[n:]]) != found:
            raise SystemExit(f"cut in two after byte {n}, it is read otherwise")
    if parse(by_bytes(stream)) != found:
        raise SystemExit("byte by byte, it is read otherwise")
    print(
        f"cut in two after each of {len(stream) - 1} bytes, and byte by byte: the same"
    )

    head = encoded(f"GET / {_AT}User-Agent: none|Accept: */*||")
    print(
        f"a head of 4 lines takes {min(time_of(head) for _ in range(9)) * 1e6:.1f} µs"
    )
    reasons: dict[str, int] = {}
    for status, what, text in REFUSED:
        data = encoded(f"{text}GET /hidden {_AT}|")
        for pieces in [data], by_bytes(data):
            if (seen := status_of(pieces)) != status:
                raise SystemExit(f"{what}: {seen} for {text[:200]!r}, not {status}")
        reasons[what] = status
    for what, status in reasons.items():
        print(f"{status}  {what}")
    print(f"all {len(REFUSED)} are refused, and what follows them is not looked at")


if __name__ == "__main__":
    main()
