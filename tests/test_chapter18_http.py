"""Chapter 18, HTTP on the reactor: the parts a reader would copy."""

import dataclasses
import errno
import http.client
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn, cast
from urllib.parse import quote_from_bytes

import http_parsing
import http_server
import pytest
from example07_calculator_on_the_reactor import in_thread, listen
from http_parsing import HttpError, Request
from http_server import ELSEWHERE, Response, Routes, http_reactor, serve
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main
from reactor import Connection, Limits, Reactor, Statistics

END = http_parsing.END_OF_HEAD
LIMIT = 30.0  # seconds that a test waits for what must come
SECRET = b"nobody is to read this"


# -- what the tests share


def text(*lines: str | bytes, body: bytes = b"") -> bytes:
    """Return a head and a body; the head's lines are given."""
    head = [one.encode("latin-1") if isinstance(one, str) else one for one in lines]
    return b"\r\n".join([*head, b"", b""]) + body


def get(target: str, *fields: str, method: str = "GET") -> bytes:
    return text(f"{method} {target} HTTP/1.1", "Host: a", *fields)


def post(*fields: str, body: bytes = b"", target: str = "/echo") -> bytes:
    return text(f"POST {target} HTTP/1.1", "Host: a", *fields, body=body)


def echo(request: Request) -> Response:
    """Answer with all that has been understood of a request."""
    fields = {
        name.decode(): value.decode("latin-1") for name, value in request.fields.items()
    }
    understood = {
        "method": request.method.decode(),
        "path": request.path.decode("latin-1"),
        "query": request.query.decode(),
        "fields": fields,
        "body": request.body.decode("latin-1"),
    }
    return Response(json.dumps(understood).encode(), type=http_server.JSON)


def parse(head: bytes) -> Request:
    """Return the request that a head is, without what stands at its end."""
    (request,) = http_parsing.parse([head + b"\r\n\r\n"])
    return request


ECHO: Routes = {ELSEWHERE: {b"GET": echo, b"POST": echo}}


@dataclass(frozen=True)
class Answer:
    status: int
    fields: dict[str, str]
    body: bytes


def answers_in(data: bytes, *methods: str) -> list[Answer]:
    """Return the answers that `data` consists of; fail if it is anything else.

    Args:
        methods: of the requests, as far as known; after HEAD comes no body.
    """
    found: list[Answer] = []
    final = 0
    while data:
        match = re.match(
            rb"HTTP/1\.1 (\d{3}) [ -~]+\r\n((?:[\w-]+: [ -~]+\r\n)*)\r\n", data
        )
        assert match is not None, f"no answer: {data[:200]!r}"
        data = data[match.end() :]
        pairs = [line.split(": ", 1) for line in match[2].decode().splitlines()]
        fields = {name.lower(): value for name, value in pairs}
        assert len(fields) == len(pairs), f"a field that comes twice: {pairs}"
        status, body = int(match[1]), b""
        if status >= 200:
            final += 1
            assert fields.keys() >= {"date", "connection"}
            assert ("content-type" in fields) == (fields.get("content-length") != "0")
            if final > len(methods) or methods[final - 1] != "HEAD":
                length = int(fields.get("content-length", len(data)))
                body, data = data[:length], data[length:]
                assert len(body) == length, "half an answer"
        found.append(Answer(status, fields, body))
    return found


class Talk:
    """A session and its connection, without reactor or socket.

    Attributes:
        sent: what the session has written.
        done: whether it has ended.
        unsent: for each time that it waited, how much it had written since the last.
    """

    def __init__(self, routes: Routes = ECHO) -> None:
        self.reactor = SimpleNamespace(statistics=Statistics())
        self.rest = self.sent = b""
        self.unsent = [0]
        self.done = False
        self._session = serve(routes, cast(Connection, self))
        self._session.send(None)

    def write(self, data: bytes) -> None:
        self.sent += data
        self.unsent[-1] += len(data)

    async def drain(self) -> None:
        self.unsent.append(0)

    def expect_request(self) -> None:
        pass

    def begin_request(self) -> None:
        pass

    def hear(self, data: bytes) -> None:
        """Let the session have what its client sends, unless it has ended."""
        if not self.done:
            self.unsent.append(0)
            try:
                self._session.send(data)
            except StopIteration:
                self.done = True

    def throw(self, error: Exception) -> None:
        try:
            self._session.throw(error)
        except StopIteration:
            self.done = True


def answered(
    *pieces: bytes, routes: Routes = ECHO, methods: tuple[str, ...] = ()
) -> list[Answer]:
    """Return the answers to what comes in pieces and then ends."""
    talk = Talk(routes)
    for piece in pieces:
        talk.hear(piece)
    talk.hear(b"")
    assert talk.done
    return answers_in(talk.sent, *methods)


def statuses(*pieces: bytes, routes: Routes = ECHO) -> list[int]:
    return [answer.status for answer in answered(*pieces, routes=routes)]


def refused(data: bytes) -> int:
    """Return the status with which the session refuses `data`, before its end."""
    talk = Talk()
    talk.hear(data)
    assert talk.done, f"waits for more: {talk.sent!r}"
    (answer,) = answers_in(talk.sent)
    assert answer.fields["connection"] == "close"
    return answer.status


class Site:
    """A reactor that runs in the test's own thread, turn by turn."""

    def __init__(
        self, routes: Routes | None = None, directory: Path | None = None, **limits: Any
    ) -> None:
        self.now = 1000.0
        listener = listen()
        self.port = listener.getsockname()[1]
        self.reactor = http_reactor(listener, Limits(**limits), directory)
        if routes is not None:
            self.reactor.session = partial(serve, routes)
        self.reactor._clock = lambda: self.now
        self.reactor.now = self.now
        self.reactor._next_tick = self.now + self.reactor.limits.tick

    def connect(self) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), LIMIT)
        # What is sent in pieces is to be there when the test goes on.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        return client

    def settle(self) -> None:
        """Serve until nobody has anything to be served."""
        while self.reactor.turn(0.01):
            pass

    def later(self, seconds: float) -> None:
        self.now += seconds
        self.reactor.turn(0)
        self.settle()

    def read(self, client: socket.socket) -> bytes:
        """Serve, and return what a client gets until the server closes."""
        client.setblocking(False)
        parts: list[bytes] = []
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            self.reactor.turn(0)
            with suppress(BlockingIOError):
                parts.append(client.recv(1 << 16))
                if not parts[-1]:
                    return b"".join(parts)
        raise TimeoutError("the server does not close")

    def ask(self, data: bytes) -> bytes:
        with self.connect() as client:
            client.sendall(data)
            return self.read(client)


@contextmanager
def site(*args: Any, **kwargs: Any) -> Iterator[Site]:
    one = Site(*args, **kwargs)
    with closing(one.reactor):
        yield one
        assert one.reactor.statistics.failed == 0


@pytest.fixture
def public(tmp_path: Path) -> Path:
    """A folder with files to be served, beside a file that is not."""
    root = tmp_path / "public"
    (root / "sub" / "folder").mkdir(parents=True)
    (root / "index.html").write_text("<p>hello")
    (root / "sub" / "a b.txt").write_text("blank")
    (root / "sub" / "data.tar.gz").write_bytes(b"\x1f\x8b")
    (root / "%2e").write_text("a name with a per cent sign")
    (root / ".hidden").write_bytes(SECRET)
    (tmp_path / "secret.txt").write_bytes(SECRET)
    return root


# -- parse


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", b"/", b""),
        ("/a/b?c=d?e", b"/a/b", b"c=d?e"),
        ("/a%20b%2Fc%00%ff", b"/a b/c\0\xff", b""),
        ("/%2541", b"/%41", b""),
        ("/a?%zz", b"/a", b"%zz"),
        ("http://example.org", b"/", b""),
        ("HTTP://example.org:80/a?b", b"/a", b"b"),
        ("http://example.org?b", b"/", b"b"),
        ("//a", b"//a", b""),
    ],
)
def test_a_target_is_a_path_or_a_url(target: str, path: bytes, query: bytes) -> None:
    request = parse(text(f"GET {target} HTTP/1.1", "Host: a")[:-4])
    assert (request.path, request.query) == (path, query)


def test_the_host_of_a_url_is_the_one_that_counts() -> None:
    request = parse(text("GET http://a:80/ HTTP/1.1", "Host: b")[:-4])
    assert request.fields == {b"host": b"a:80"}


def test_names_of_fields_have_no_case_and_blanks_around_values_do_not_count() -> None:
    request = parse(
        text(
            "GET / HTTP/1.1",
            "HOST:a",
            "X-Y: \t b  c \t",
            "x-y:",
            "x-Y: \xe9",
            "z:" + 99 * " ",
        )[:-4]
    )
    assert request.fields == {b"host": b"a", b"x-y": b"b  c, , \xe9", b"z": b""}


@pytest.mark.parametrize(
    ("version", "connection", "keeps_alive"),
    [
        ("1.1", None, True),
        ("1.1", "close", False),
        ("1.1", "Upgrade , Close", False),
        ("1.1", "keep-alive", True),
        ("1.1", "closed", True),
        ("1.0", None, False),
        ("1.0", "Keep-Alive", True),
        ("1.0", "keep-alive, close", False),
        ("1.0", "upgrade", False),
        ("1.9", None, True),
    ],
)
def test_version_and_client_decide_whether_the_connection_stays(
    version: str, connection: str | None, keeps_alive: bool
) -> None:
    fields = [] if connection is None else [f"Connection: {connection}"]
    head = text(f"GET / HTTP/{version}", "Host: a", *fields)
    assert parse(head[:-4]).keeps_alive == keeps_alive
    talk = Talk()
    talk.hear(head)
    assert talk.done != keeps_alive
    (answer,) = answers_in(talk.sent)
    assert answer.fields["connection"] == ("keep-alive" if keeps_alive else "close")


REFUSED_HEADS = [
    (400, ""),
    (400, "GET /"),
    (400, "GET  / HTTP/1.1|Host: a"),
    (400, "GET / HTTP/1.1 |Host: a"),
    (400, " GET / HTTP/1.1|Host: a"),
    (400, "GET / http/1.1|Host: a"),
    (400, "GET / HTTP/1|Host: a"),
    (400, "GET / HTTP/01.1|Host: a"),
    (400, "GET / HTTP/1.10|Host: a"),
    (400, "GET\t/\tHTTP/1.1|Host: a"),
    (400, "G(T / HTTP/1.1|Host: a"),
    (400, "GET /\x00 HTTP/1.1|Host: a"),
    (400, "GET /\xe9 HTTP/1.1|Host: a"),
    (400, "GET /a#b HTTP/1.1|Host: a"),
    (400, "GET /%2 HTTP/1.1|Host: a"),
    (400, "GET /%zz HTTP/1.1|Host: a"),
    (400, "GET * HTTP/1.1|Host: a"),
    (400, "GET a HTTP/1.1|Host: a"),
    (400, "GET a.example:80 HTTP/1.1|Host: a"),
    (400, "GET http:///a HTTP/1.1|Host: a"),
    (400, "GET ftp://a/ HTTP/1.1|Host: a"),
    (400, "GET http://b@a/ HTTP/1.1|Host: a"),
    (400, "GET http://:80/ HTTP/1.1|Host: a"),
    (400, "GET http://a:b/ HTTP/1.1|Host: a"),
    (400, "GET http://a/%2 HTTP/1.1|Host: a"),
    (400, "GET http://a/ HTTP/1.1"),
    (400, "GET ?a HTTP/1.1|Host: a"),
    (400, "GET / HTTP/1.1"),
    (400, "GET / HTTP/1.1|Host: a|Host: a"),
    (400, "GET / HTTP/1.1|Host: a|Host:"),
    (400, "GET / HTTP/1.0|Host: a|Host: b"),
    (400, "GET / HTTP/1.1|Host: a b"),
    (400, "GET / HTTP/1.1|Host: a/b"),
    (400, "GET / HTTP/1.1|Host: a@b"),
    (400, "GET / HTTP/1.1|Host: a:b"),
    (400, "GET / HTTP/1.1|Host: [::1"),
    (400, "GET / HTTP/1.1|Host : a"),
    (400, "GET / HTTP/1.1|Host\t: a"),
    (400, "GET / HTTP/1.1|Host: a|: b"),
    (400, "GET / HTTP/1.1|Host: a|b"),
    (400, "GET / HTTP/1.1|Host: a|b c: d"),
    (400, "GET / HTTP/1.1|Host: a|b\xe9: d"),
    (400, "GET / HTTP/1.1|Host: a| b: c"),
    (400, "GET / HTTP/1.1| Host: a"),
    (400, "GET / HTTP/1.1|Host: a|b: c| d"),
    (400, "GET / HTTP/1.1|Host: a|b: c|\td"),
    (400, "GET / HTTP/1.1|Host: a|b: \x00"),
    (400, "GET / HTTP/1.1|Host: a|b: \x7f"),
    (400, "GET / HTTP/1.1|Host: a|b: c\rd"),
    (400, "GET / HTTP/1.1|Host: a|b: c\nd: e"),
    (400, "GET / HTTP/1.1\nHost: a"),
    (400, "GET / HTTP/1.1\rHost: a"),
    (417, "GET / HTTP/1.1|Host: a|Expect: 100-continues"),
    (417, "GET / HTTP/1.1|Host: a|Expect:"),
    (501, "get / HTTP/1.1|Host: a"),
    (501, "PUT / HTTP/1.1|Host: a"),
    (501, "OPTIONS * HTTP/1.1|Host: a"),
    (501, "CONNECT a:80 HTTP/1.1|Host: a"),
    (501, "TRACE / HTTP/1.1|Host: a"),
    (505, "GET / HTTP/0.9"),
    (505, "GET / HTTP/2.0|Host: a"),
    (505, "PRI * HTTP/2.0"),
    (414, f"GET /{8000 * 'a'} HTTP/1.1|Host: a"),
]


@pytest.mark.parametrize(("status", "head"), REFUSED_HEADS)
def test_a_head_that_is_none_is_refused_with_the_status_for_it(
    status: int, head: str
) -> None:
    encoded = head.replace("|", "\r\n").encode("latin-1")
    with pytest.raises(HttpError) as error:
        parse(encoded)
    assert error.value.status == status
    assert refused(encoded + b"\r\n\r\n" + get("/hidden")) == status


def test_hosts_of_all_kinds_are_valid() -> None:
    for host in "", "a", "a.b-c:80", "127.0.0.1:", "[::1]", "[::1]:8000", "%41":
        parse(text("GET / HTTP/1.1", f"Host: {host}")[:-4])


def test_an_old_client_needs_no_host() -> None:
    assert statuses(text("GET / HTTP/1.0")) == [200]


# -- where a body ends


LENGTH = "Content-Length: 5"
CHUNKED = "Transfer-Encoding: chunked"
AMBIGUOUS = [
    # two lengths
    post(LENGTH, CHUNKED, body=b"0\r\n\r\n"),
    post(CHUNKED, LENGTH, body=b"0\r\n\r\n"),
    post(LENGTH, LENGTH, body=b"1,2,3"),
    post(LENGTH, "content-length: 6", body=b"1,2,3"),
    post("Content-Length: 0", LENGTH, body=b"1,2,3"),
    # lengths that one reads so and another otherwise
    *(
        post(f"Content-Length: {length}", body=b"1,2,3")
        for length in (
            "5, 5",
            "+5",
            "-5",
            "0x5",
            "5.0",
            "5e0",
            "5 5",
            "5;",
            "",
            "\xb2",
            "1_0",
            "five",
        )
    ),
    post("Content-Length : 5", body=b"1,2,3"),
    post("Content-Length\t: 5", body=b"1,2,3"),
    post("A: b", " Content-Length: 5", body=b"1,2,3"),
    post("Content-Length:", " 5", body=b"1,2,3"),
    post("A: b\nContent-Length: 5", body=b"1,2,3"),
    post("A: b\rContent-Length: 5", body=b"1,2,3"),
    post("A: b\0\r\nContent-Length: 5", body=b"1,2,3"),
    # codings that one takes for chunks and another does not
    *(
        post(f"Transfer-Encoding: {coding}", body=b"0\r\n\r\n")
        for coding in (
            *("xchunked", "chunkedx", "chunked, identity", "identity", "", '"chunked"'),
            *(
                "chunked;q=1",
                "chunked x",
                "\x0bchunked",
                "chunk\xe9d",
                "'chunked'",
                "gzip",
            ),
        )
    ),
    post("Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    post("Transfer_Encoding : chunked", LENGTH, body=b"0\r\n\r\n"),
    post("Transfer-Encoding:", " chunked", body=b"0\r\n\r\n"),
    post(CHUNKED, "Transfer-Encoding: identity", body=b"0\r\n\r\n"),
    post("A: b\nTransfer-Encoding: chunked", LENGTH, body=b"0\r\n\r\n"),
    text("POST / HTTP/1.0", CHUNKED, body=b"0\r\n\r\n"),
    # chunks
    *(
        post(CHUNKED, body=b"%s\r\n1,2,3\r\n0\r\n\r\n" % size)
        for size in (
            *(
                b"0x5",
                b"+5",
                b"-5",
                b"5 ",
                b" 5",
                b"5 ;a",
                b"5\t",
                b"",
                b";a",
                b"g",
                b"5_0",
            ),
            *(
                b"5\0",
                b"5;a\0",
                b"00000000000000005",
                b"5,5",
                b"0x",
                b"4",
                b"5;a\rb",
                b"\xb2",
            ),
        )
    ),
    post(CHUNKED, body=b"5\n1,2,3\r\n0\r\n\r\n"),
    post(CHUNKED, body=b"5;a\n\r\n1,2,3\r\n0\r\n\r\n"),
    post(CHUNKED, body=b"5\r\n1,2,3\n0\r\n\r\n"),
    post(CHUNKED, body=b"5\r\n1,2,30\r\n\r\n"),
    post(CHUNKED, body=b"5\r\n1,2,3XX0\r\n\r\n"),
    post(CHUNKED, body=b"5\r\n1,2,3\n\n0\r\n\r\n"),
    post(CHUNKED, body=b"5\r\r\n1,2,3\r\n0\r\n\r\n"),
    post(CHUNKED, body=b"0\r\nA : b\r\n\r\n"),
    post(CHUNKED, body=b"0\r\n A: b\r\n\r\n"),
    post(CHUNKED, body=b"0\r\nGET / HTTP/1.1\r\n\r\n"),
    post(CHUNKED, body=b"0\r\n\n"),
]


@pytest.mark.parametrize("ambiguous", AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_answered(
    ambiguous: bytes,
) -> None:
    assert refused(ambiguous + get("/hidden")) == 400
    by_bytes = Talk()
    for n in range(len(ambiguous)):
        by_bytes.hear(ambiguous[n : n + 1])
    by_bytes.hear(get("/hidden"))
    assert [one.status for one in answers_in(by_bytes.sent)] == [400]


@pytest.mark.parametrize("coding", ["gzip, chunked", "chunked, chunked", "a,CHUNKED"])
def test_codings_before_the_chunks_are_not_implemented(coding: str) -> None:
    assert refused(post(f"Transfer-Encoding: {coding}", body=b"0\r\n\r\n")) == 501


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (411, post()),
        (413, post("Content-Length: 65537")),
        (413, post(f"Content-Length: {10**15}")),
        (413, post(f"Content-Length: {5000 * '9'}")),
        (413, post(CHUNKED, body=b"10001\r\n")),
        (413, post(CHUNKED, body=b"ffffffffffffffff\r\n")),
        (413, post(CHUNKED, body=b"1\r\n1\r\nffff\r\n" + 0xFFFF * b"a" + b"\r\n1\r\n")),
        (413, post(CHUNKED, body=b"5;" + 300 * b"a")),
        (413, post(CHUNKED, body=b"0\r\n" + 3000 * b"a: bcdef\r\n")),
        (413, post(CHUNKED, body=b"0\r\n" + 5000 * b"a:\r\n")),
        (414, b"GET /" + 16_381 * b"a"),
        (431, get("/", "a: " + 16_384 * "b")),
        (431, get("/", *(6000 * ["a:"]))),
        (400, b"GET / HTTP/1.1\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\n"),
    ],
)
def test_limits_are_kept_before_all_has_come(status: int, data: bytes) -> None:
    assert refused(data) == status


def test_what_is_just_within_the_limits_is_answered() -> None:
    target = "/" + 7999 * "a"
    padding = 16_384 - len(get(target, "a: ")) + 4
    head = get(target, "a: " + padding * "b")
    assert len(head) == 16_384 + 4
    assert statuses(head) == statuses(head[:-1], head[-1:]) == [200]
    assert refused(head.replace(b"bb", b"bbb", 1)) == 431
    body = 65_536 * b"a"
    extension = b";" + 250 * b"a"
    chunks = b"10000" + extension + b"\r\n" + body + b"\r\n0000000000000000\r\n\r\n"
    (answer,) = answered(post(CHUNKED, body=chunks))
    assert json.loads(answer.body)["body"] == body.decode()
    (answer,) = answered(post("Content-Length: 000000000065536", body=body))
    assert json.loads(answer.body)["body"] == body.decode()


# -- streams of requests


STREAM = [
    get("/1"),
    post(LENGTH, body=b"1\r\n\r\n"),
    b"\r\n" + get("/3", method="HEAD"),
    post(
        "transfer-encoding: Chunked",
        body=b'2\r\n\r\n\r\n3;a="b"\r\n0\r\n\r\n00\r\nA: b\r\nc:\r\n\r\n',
    ),
    get("http://a/5?x", LENGTH) + b"GET /",
    post("Content-Length: 0"),
    text("POST /7 HTTP/1.0", "Connection: keep-alive", "Content-Length: 1", body=b"\n"),
    get("/8", "Connection: close"),
]
METHODS = ("GET", "POST", "HEAD", "POST", "GET", "POST", "POST", "GET")
BODIES = ["", "1\r\n\r\n", None, "\r\n0\r\n", "GET /", "", "\n", ""]


def understood(answers: list[Answer]) -> list[tuple[int, Any]]:
    return [
        (one.status, json.loads(one.body)["body"] if one.body else None)
        for one in answers
    ]


def test_requests_sent_at_once_are_answered_in_order_without_waiting() -> None:
    talk = Talk()
    talk.hear(b"".join(STREAM))
    assert talk.done
    assert understood(answers_in(talk.sent, *METHODS)) == [(200, one) for one in BODIES]
    assert len(talk.unsent) == 2  # one wait for the first of them, and none after it
    assert talk.reactor.statistics.requests == len(STREAM)


def test_a_stream_may_be_split_anywhere() -> None:
    stream = b"".join(STREAM)
    for n in range(1, len(stream)):
        answers = answered(stream[:n], stream[n:], methods=METHODS)
        assert understood(answers) == [(200, one) for one in BODIES], n


@given(st.sets(st.integers(1, len(b"".join(STREAM)) - 1)))
@settings(max_examples=100)
def test_a_stream_may_be_split_into_any_pieces(cuts: set[int]) -> None:
    stream = b"".join(STREAM)
    ends = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(ends)]
    assert understood(answered(*pieces, methods=METHODS)) == [
        (200, one) for one in BODIES
    ]


def test_a_stream_may_come_byte_by_byte() -> None:
    stream = b"".join(STREAM)
    pieces = [stream[n : n + 1] for n in range(len(stream))]
    assert understood(answered(*pieces, methods=METHODS)) == [
        (200, one) for one in BODIES
    ]


def test_a_stream_that_ends_amidst_a_request_has_that_one_refused() -> None:
    requests = [one for one in STREAM if b"HEAD" not in one]
    stream = b"".join(requests)
    ends = [len(b"".join(requests[:n])) for n in range(len(requests) + 1)]
    for n in range(len(stream)):
        seen = statuses(stream[:n])
        whole = sum(end <= n for end in ends) - 1
        assert seen == whole * [200] + (n not in ends) * [400], n


def test_many_large_answers_do_not_pile_up() -> None:
    talk = Talk({b"/": {b"GET": lambda _: Response(30_000 * b"a")}})
    talk.hear(30 * get("/"))
    assert [one.status for one in answers_in(talk.sent)] == 30 * [200]
    assert max(talk.unsent) < 100_000


def test_answers_that_have_gone_do_not_count_as_unsent() -> None:
    talk = Talk({b"/": {b"GET": lambda _: Response(60_000 * b"a")}})
    for _ in range(5):
        talk.hear(get("/"))
    assert len(talk.unsent) == 1 + 5  # one for each time that it waited for a request


# -- the parser


def test_the_parser_says_what_it_waits_for() -> None:
    parser = http_parsing.requests()
    assert next(parser) == "request"
    assert parser.send(post(LENGTH, "Expect: 100-continue")[:-1]) == "more"
    assert parser.send(b"\n") == "permission"
    assert parser.send(b"1,2") == "more"
    request = parser.send(b",3" + get("/2") + b"GET")
    assert isinstance(request, Request)
    assert request.body == b"1,2,3"
    assert isinstance(next(parser), Request)
    assert next(parser) == "more"
    assert isinstance(parser.send(get("/3")[3:]), Request)
    assert next(parser) == "request"
    with pytest.raises(StopIteration):
        parser.send(b"")


def test_nobody_waits_for_permission_whose_body_has_begun_to_come() -> None:
    for data in post(CHUNKED, "Expect: 100-continue", body=b"5"), get("/")[:-1]:
        parser = http_parsing.requests()
        next(parser)
        assert parser.send(data) == "more"


@contextmanager
def traced() -> Iterator[Callable[[], tuple[int, int]]]:
    """Give a function that tells how many bytes have been taken: now, and at most."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield lambda: cast(
            tuple[int, int], tuple(n - before for n in tracemalloc.get_traced_memory())
        )
    finally:
        tracemalloc.stop()


def test_an_idle_client_costs_little_memory() -> None:
    talk = Talk({b"/echo": {b"POST": lambda request: Response(request.body + b"!")}})
    with traced() as memory:
        talk.hear(2 * post("Content-Length: 60000", body=60_000 * b"a"))
        assert len(talk.sent) > 120_000
        talk.sent = b""
        assert memory()[0] < 5000


@pytest.mark.parametrize("piece", [2, 4096])
def test_a_body_in_small_pieces_costs_no_more_than_another(piece: int) -> None:
    data = post(CHUNKED, body=10_000 * b"2\r\naa\r\n" + b"0\r\n\r\n")
    if piece == 2:
        data = post("Content-Length: 20000", body=20_000 * b"a")
    pieces = [data[n : n + piece] for n in range(0, len(data), piece)]
    with traced() as memory:
        (request,) = http_parsing.parse(pieces)
        assert request.body == 20_000 * b"a"
        assert memory()[1] < 200_000


def test_a_stream_is_parsed_in_pieces_or_refused() -> None:
    assert http_parsing.parse([]) == []
    (request,) = http_parsing.parse([get("/a")[:5], get("/a")[5:]])
    assert request.path == b"/a"
    for half in get("/")[:-1], get("/") + b"G", post(CHUNKED, body=b"0\r\n"):
        with pytest.raises(HttpError, match="half a request"):
            http_parsing.parse([half])


def outcome(pieces: list[bytes]) -> object:
    """Return the requests that a stream begins with, and how it ends."""
    found, parser = [], http_parsing.requests()
    next(parser)
    try:
        for piece in pieces:
            item = parser.send(piece)
            while isinstance(item, Request):
                found.append(item)
                item = next(parser)
    except HttpError as error:
        return found, error.status
    return found, "begun" if item in {"more", "permission"} else item


def test_pieces_make_no_difference_to_garbage_either() -> None:
    chance = random.Random(20)
    for _ in range(3000):
        data = garbage(chance)
        whole = outcome([data])
        assert outcome([data[n : n + 1] for n in range(len(data))]) == whole, data
        ends = sorted(chance.choices(range(1, len(data) + 1), k=3))
        pieces = [data[a:b] for a, b in pairwise([0, *ends, len(data)]) if a < b]
        assert outcome(pieces) == whole, (data, ends)


FRAGMENTS = [
    *(
        b"GET",
        b"HEAD",
        b"POST",
        b" ",
        b"/",
        b"/a?b",
        b"http://a/",
        b"*",
        b"HTTP/1.1",
        b"HTTP/1.0",
    ),
    *(
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"\r",
        b"\t",
        b":",
        b"%",
        b"%2e",
        b"0",
        b"5",
        b"a",
        b"\0",
        b"\xff",
    ),
    *(
        b"Host: a\r\n",
        b"Host",
        b"Content-Length: 5\r\n",
        b"Content-Length",
        b"Transfer-Encoding",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"chunked",
        b"Connection: close\r\n",
        b"keep-alive",
    ),
    *(
        b"Expect: 100-continue\r\n",
        get("/", "Content-Length: 99999"),
        post(LENGTH, "Expect: 100-continue"),
        b"0\r\n\r\n",
        b"1\r\n1\r\n",
        b"ffffffffffffffff",
        b";",
        b",",
    ),
    *(get("/"), post(LENGTH), post(CHUNKED), get("/", "Connection: close")),
]


def garbage(chance: random.Random) -> bytes:
    """Return what a broken or an evil client might send."""
    match chance.randrange(3):
        case 0:
            return chance.randbytes(chance.randrange(1, 200))
        case 1:
            return b"".join(chance.choices(FRAGMENTS, k=chance.randrange(1, 20)))
        case _:
            damaged = bytearray(b"".join(chance.choices(STREAM, k=2)))
            for _ in range(chance.randrange(1, 4)):
                damaged[chance.randrange(len(damaged))] = chance.choice(
                    b"\r\n\0 :,;0a\xff%"
                )
            return bytes(damaged)


def test_garbage_is_answered_well_or_not_at_all() -> None:
    chance = random.Random(18)
    seen: set[int] = set()
    for _ in range(10_000):
        data = garbage(chance)
        talk = Talk()
        cut = chance.randrange(len(data))
        talk.hear(data[:cut])
        talk.hear(data[cut:])
        talk.hear(b"")
        assert talk.done
        methods = [one.decode() for one in re.findall(rb"GET|HEAD|POST", data)]
        if "HEAD" not in methods:  # else which answers have a body is not known
            seen.update(one.status for one in answers_in(talk.sent))
    assert seen >= {100, 200, 400, 411, 413, 501}


def test_garbage_harms_no_session_of_a_real_server() -> None:
    chance = random.Random(19)
    with site() as server:
        for _ in range(300):
            with server.connect() as client:
                client.sendall(garbage(chance))
                client.shutdown(socket.SHUT_WR)
                server.read(client)
        assert [
            one.status
            for one in answers_in(server.ask(get("/stats", "Connection: close")))
        ] == [200]
        assert server.reactor.statistics.accepted == 301


# -- expectations


def test_who_asks_is_told_to_send_the_body() -> None:
    talk = Talk()
    talk.hear(post(LENGTH, "Expect: 100-Continue"))
    assert talk.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    talk.hear(b"1,2,3")
    assert [one.status for one in answers_in(talk.sent)] == [100, 200]


@pytest.mark.parametrize(
    "data",
    [
        post(LENGTH, "Expect: 100-continue", body=b"1,2,3"),
        post("Content-Length: 0", "Expect: 100-continue"),
        text("POST / HTTP/1.0", LENGTH, "Expect: 100-continue", body=b"1,2,3"),
        text("POST / HTTP/1.0", LENGTH, "Expect: tea", body=b"1,2,3"),
    ],
)
def test_who_need_not_be_told_is_not(data: bytes) -> None:
    end = data.index(b"\r\n\r\n") + 4
    assert statuses(data) == [200]
    if b"HTTP/1.0" in data:
        assert statuses(data[:end], data[end:]) == [200]


def test_who_asks_for_too_much_is_refused_before_it_is_sent() -> None:
    assert refused(post("Content-Length: 100000", "Expect: 100-continue")) == 413


# -- answers


def test_head_is_get_without_the_body(public: Path) -> None:
    with site(directory=public) as server:
        for target in "/", "/stats", "/nothing", "/sub/a%20b.txt", "/sum":
            both = [
                answers_in(
                    server.ask(get(target, "Connection: close", method=method)), method
                )[0]
                for method in ("GET", "HEAD")
            ]
            assert both[0].status == both[1].status
            assert both[0].body
            assert both[1].body == b""
            lengths = [one.fields.pop("content-length") for one in both]
            assert lengths[0] == str(len(both[0].body))
            for one in both:
                del one.fields["date"]
            assert both[0].fields == both[1].fields
            assert target == "/stats" or lengths[0] == lengths[1]
        assert (
            b"content-length" not in server.ask(get("/events", method="HEAD")).lower()
        )


def test_a_refusal_says_why_in_its_first_line_and_has_no_body() -> None:
    for method in "GET", "HEAD":
        talk = Talk()
        talk.hear(get("/") + get("/", "Expect: tea", method=method))
        head, _, rest = talk.sent[-200:].rpartition(b"HTTP/1.1 417 ")[2].partition(END)
        assert head.splitlines()[0] == b"no such expectation can be met"
        assert rest == b""


def test_a_method_that_a_path_has_not_is_answered_with_those_that_it_has() -> None:
    routes: Routes = {
        b"/r": {b"GET": echo},
        b"/w": {b"POST": echo},
        b"/rw": {b"GET": echo, b"POST": echo},
    }
    data = (
        post(LENGTH, body=b"1,2,3", target="/r")
        + get("/w")
        + post(LENGTH, body=b"1,2,3", target="/rw")
    )
    answers = answered(data, routes=routes)
    assert [(one.status, one.fields.get("allow")) for one in answers] == [
        (405, "GET, HEAD"),
        (405, "POST"),
        (200, None),
    ]


def test_the_date_is_the_one_of_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 784111777.9)
    (answer,) = answered(get("/"))
    assert answer.fields["date"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    monkeypatch.setattr(time, "time", lambda: 784111778.0)
    (answer,) = answered(get("/"))
    assert answer.fields["date"] == "Sun, 06 Nov 1994 08:49:38 GMT"


def fail(_: Request) -> NoReturn:
    raise ArithmeticError("cannot tell")


def test_a_handler_that_fails_costs_its_client_the_connection_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = Site({b"/fails": {b"GET": fail}, b"/": {b"GET": echo}})
    with closing(one.reactor), one.connect() as other:
        other.sendall(get("/"))
        answers = answers_in(one.ask(get("/") + get("/fails") + get("/")))
        assert [answer.status for answer in answers] == [200, 500]
        assert b"cannot tell" not in answers[1].body
        assert one.reactor.statistics.failed == 1
        assert "ArithmeticError" in caplog.text
        other.sendall(get("/", "Connection: close"))
        assert [answer.status for answer in answers_in(one.read(other))] == [200, 200]


@pytest.mark.parametrize(
    ("body", "status", "answer"),
    [
        (b"1,2,3", 200, b"6\n"),
        (b"-5", 200, b"-5\n"),
        (b" 1 , -2\n", 200, b"-1\n"),
        (b"", 400, None),
        (b"1,,2", 400, None),
        (b"quit", 400, None),
        (b"product", 400, None),
        (b"stats", 400, None),
        (b"1_0", 400, None),
        (1001 * b"9", 400, None),
        (4097 * b"9", 413, None),
    ],
)
def test_the_sum_of_the_body(body: bytes, status: int, answer: bytes | None) -> None:
    seen = http_server.total(Request(b"POST", b"/sum", b"", b"1.1", {}, True, body))
    assert seen.status == status
    assert answer is None or seen.body == answer


def test_figures_tell_what_has_happened() -> None:
    with site() as server, server.connect():
        body = answers_in(server.ask(get("/") + get("/stats", "Connection: close")))[
            1
        ].body
        figures = json.loads(body)
        assert (figures["open"], figures["accepted"], figures["requests"]) == (2, 2, 2)


def test_who_comes_when_there_are_too_many_is_told_so() -> None:
    with site(connections=1) as server, server.connect(), server.connect() as late:
        server.settle()
        status_line = late.recv(1 << 16).partition(b"\r\n")[0]
        assert status_line == b"HTTP/1.1 503 Service Unavailable"
        assert late.recv(1) == b""


# -- files


OUTSIDE = [
    *("/../secret.txt", "/%2e%2e/secret.txt", "/..%2fsecret.txt", "/.%2e/secret.txt"),
    *("/%2e%2e%2fsecret.txt", "/%252e%252e/secret.txt", "/%252e%252e%252fsecret.txt"),
    *(
        "/..\\secret.txt",
        "/..%5csecret.txt",
        "/%2e%2e%5csecret.txt",
        "/sub/..%5c..%5csecret.txt",
    ),
    *("/sub/../../secret.txt", "/sub/folder/../../../secret.txt", "/./../secret.txt"),
    *(
        "/secret.txt%00",
        "/index.html%00.txt",
        "/%00",
        "//secret.txt",
        "//../secret.txt",
    ),
    *(
        "/....//secret.txt",
        "/..;/secret.txt",
        "/%c0%ae%c0%ae/secret.txt",
        "/%uff0e%uff0e/a",
    ),
    *("/C:/secret.txt", "/C:secret.txt", "/index.html::$DATA", "/index.html:a"),
    *(
        "/.hidden",
        "/sub/../.hidden",
        "/sub/../index.html",
        "/./index.html",
        "/sub//a%20b.txt",
    ),
    *("/sub", "/sub/", "/sub/folder", "/index.html/", "/index.html/a", "/" + 300 * "a"),
    *("/link", "/outside/secret.txt", "/loop", "/pipe", "/shown"),
]


@pytest.mark.parametrize("path", OUTSIDE)
def test_what_is_not_public_is_not_served(public: Path, path: str) -> None:
    with suppress(
        OSError, AttributeError
    ):  # Windows has no pipes, and not always links
        (public / "link").symlink_to(public.parent / "secret.txt")
        (public / "outside").symlink_to(public.parent)
        (public / "loop").symlink_to(public / "loop")
        (public / "shown").symlink_to(public / ".hidden")
        os.mkfifo(public / "pipe")
        for name in "index.html:a", "..\\secret.txt", "..;":
            (public / name).write_bytes(SECRET)
    absolute = "/" + quote_from_bytes(os.fsencode(public.parent / "secret.txt"))
    routes: Routes = {
        ELSEWHERE: {b"GET": partial(http_server.file_below, public.resolve())}
    }
    for target in path, absolute:
        (answer,) = answered(get(target), routes=routes)
        assert answer.status in ({400, 404} if "%u" in target else {404})
        assert SECRET not in answer.body


@pytest.mark.parametrize(
    ("target", "type_", "body"),
    [
        ("/", "text/html; charset=utf-8", b"<p>hello"),
        ("/index.html?a", "text/html; charset=utf-8", b"<p>hello"),
        ("/sub/a%20b.txt", "text/plain; charset=utf-8", b"blank"),
        ("/s%75b/data.tar.gz", "application/octet-stream", b"\x1f\x8b"),
        ("/%252e", "application/octet-stream", b"a name with a per cent sign"),
        ("/same", "text/html; charset=utf-8", b"<p>hello"),
    ],
)
def test_what_is_public_is_served(
    public: Path, target: str, type_: str, body: bytes
) -> None:
    try:
        (public / "same").symlink_to(public / "index.html")  # leads not out of it
    except OSError:
        pytest.skip("no links")
    routes: Routes = {
        ELSEWHERE: {b"GET": partial(http_server.file_below, public.resolve())}
    }
    answers = answered(2 * get(target), routes=routes)
    assert len(answers) == 2
    for answer in answers:
        assert (answer.status, answer.fields["content-type"]) == (200, type_)
        assert answer.body == body


def test_a_file_that_cannot_be_opened_now_can_be_asked_for_later(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_descriptors(*_: object) -> NoReturn:
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(Path, "open", no_descriptors)
    assert http_server.file_response(public / "index.html").status == 503
    monkeypatch.undo()
    assert http_server.file_response(public / "nothing").status == 404


@pytest.fixture
def large(public: Path) -> Path:
    path = public / "large.bin"
    path.write_bytes(random.Random(1).randbytes(8_000_000))
    return path


def slow_client(server: Site, data: bytes) -> socket.socket:
    """Send a request, and serve until the client's buffers are full."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 10_000)
    client.connect(("127.0.0.1", server.port))
    client.sendall(data)
    server.settle()
    return client


def test_a_file_waits_for_its_reader_and_others_are_served(
    public: Path, large: Path
) -> None:
    data = get("/large.bin") + get("/index.html", "Connection: close")
    with site(directory=public) as server, slow_client(server, data) as slow:
        (connection,) = server.reactor.connections
        assert connection._drains
        assert len(connection._output) < 70_000
        assert b"hello" in server.ask(get("/index.html", "Connection: close"))
        first, second = answers_in(server.read(slow))
    assert first.body == large.read_bytes()
    assert second.body == b"<p>hello"


def test_a_file_that_shrinks_ends_the_connection(public: Path, large: Path) -> None:
    with (
        site(directory=public) as server,
        slow_client(server, get("/large.bin")) as slow,
    ):
        os.truncate(large, 7_000_000)
        with pytest.raises(AssertionError, match="half an answer"):
            answers_in(server.read(slow))


def test_a_file_that_grows_is_sent_as_long_as_it_was(public: Path, large: Path) -> None:
    before = large.read_bytes()
    data = get("/large.bin") + get("/index.html", "Connection: close")
    with site(directory=public) as server, slow_client(server, data) as slow:
        with large.open("ab") as file:
            file.write(b"more")
        first, second = answers_in(server.read(slow))
    assert first.body == before
    assert second.body == b"<p>hello"


def test_a_reader_that_stops_loses_the_file_and_the_file_is_closed(
    public: Path, large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = []
    opened = Path.open

    def note(self: Path, mode: str = "r") -> Any:
        files.append(opened(self, mode))
        return files[-1]

    monkeypatch.setattr(Path, "open", note)
    with site(directory=public) as server, slow_client(server, get("/large.bin")):
        for _ in range(100):  # the system may take some more for the client
            server.later(11.0)
            if not server.reactor.connections:
                break
        assert server.reactor.statistics.too_slow == 1
        assert [file.closed for file in files] == [True]


# -- deadlines


def test_an_idle_client_is_left_without_a_word() -> None:
    with site() as server, server.connect() as client:
        client.sendall(get("/stats"))
        server.settle()
        answer = client.recv(1 << 16)
        server.later(59.0)
        assert server.reactor.connections
        server.later(2.0)
        assert client.recv(1) == b""
        assert [one.status for one in answers_in(answer)] == [200]


@pytest.mark.parametrize(
    "half",
    [
        b"G",
        b"\r\n",
        get("/")[:-1],
        post(LENGTH, body=b"1,2,"),
        post(LENGTH),
        post(CHUNKED, body=b"5"),
        post(CHUNKED, body=b"5\r\n1,"),
        post(CHUNKED, body=b"0\r\nA: b"),
        get("/stats") + b"GET",
    ],
)
def test_a_request_that_does_not_come_to_its_end_is_given_up(half: bytes) -> None:
    before = [200] * half.count(b"/stats")
    with site() as server, server.connect() as client:
        client.sendall(half)
        server.settle()
        server.later(9.0)
        assert server.reactor.connections
        server.later(2.0)
        answers = answers_in(server.read(client))
        assert [one.status for one in answers] == [*before, 408]
        assert answers[-1].fields["connection"] == "close"


def test_a_byte_now_and_then_gains_no_time() -> None:
    with site() as server, server.connect() as client:
        for byte in b"GET /a":
            client.sendall(bytes([byte]))
            server.settle()
            server.later(1.9)
        assert [one.status for one in answers_in(server.read(client))] == [408]


def test_each_request_on_a_connection_has_its_own_time() -> None:
    with site() as server, server.connect() as client:
        for _ in range(5):
            client.sendall(get("/stats")[:-3])
            server.settle()
            server.later(6.0)
            client.sendall(get("/stats")[-3:])
            server.settle()
            server.later(6.0)
        client.sendall(get("/stats", "Connection: close"))
        assert len(answers_in(server.read(client))) == 6


# -- events


def events_in(data: bytes) -> list[Any]:
    return [json.loads(one) for one in re.findall(rb"data: (.*)\n\n", data)]


def test_events_come_one_in_a_second_until_the_client_goes() -> None:
    with site() as server:
        with server.connect() as client:
            client.sendall(get("/events"))
            server.settle()
            for _ in range(3):
                server.later(1.0)
            data = client.recv(1 << 16)
            (answer,) = answers_in(data)
            assert answer.fields["content-type"] == "text/event-stream"
            assert [event["seconds"] for event in events_in(answer.body)] == [
                1000.0,
                1001.0,
                1002.0,
                1003.0,
            ]
            server.later(0.5)
            client.sendall(b"what is sent meanwhile is dropped")
            server.settle()
            assert len(server.reactor.connections) == 1
        server.settle()
        assert not server.reactor.connections


def test_events_that_nobody_reads_do_not_pile_up() -> None:
    made = 0

    def large_event() -> bytes:
        nonlocal made
        made += 1
        return 8_000_000 * b"a"

    routes: Routes = {b"/": {b"GET": lambda _: Response(events=large_event)}}
    with site(routes) as server, slow_client(server, get("/")):
        for _ in range(8):
            server.later(1.0)
        assert made == 1
        server.later(3.0)
        assert not server.reactor.connections


# -- a running server


@contextmanager
def threaded(
    routes: Routes | None = None, **limits: Any
) -> Iterator[tuple[Reactor, int]]:
    listener = listen()
    number = listener.getsockname()[1]
    reactor = http_reactor(listener, Limits(**limits))
    if routes is not None:
        reactor.session = partial(serve, routes)
    with in_thread(reactor):
        yield reactor, number
    assert reactor.statistics.failed == 0


def test_what_the_standard_client_says_is_understood_as_it_was_meant() -> None:
    field = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)
    with threaded(ECHO) as (_, number):
        client = http.client.HTTPConnection("127.0.0.1", number, timeout=LIMIT)

        @given(
            method=st.sampled_from(["GET", "POST"]),
            path=st.binary(max_size=20),
            query=st.binary(max_size=20),
            value=field,
            body=st.binary(max_size=200),
            chunks=st.none() | st.lists(st.integers(0, 200), max_size=3),
        )
        @settings(max_examples=60)
        def ask(
            method: str,
            path: bytes,
            query: bytes,
            value: str,
            body: bytes,
            chunks: list[int] | None,
        ) -> None:
            target = "/" + quote_from_bytes(path)
            if query:
                target += "?" + quote_from_bytes(query)
            if chunks is None:
                client.request(method, target, body, {"X-Value": value})
            else:
                ends = [0, *sorted(chunks), len(body)]
                parts = [body[a:b] for a, b in pairwise(ends)]
                client.request(
                    method, target, iter(parts), {"X-Value": value}, encode_chunked=True
                )
            with client.getresponse() as response:
                seen = json.loads(response.read())
                assert response.status == 200
            assert seen["method"] == method
            assert seen["path"] == "/" + path.decode("latin-1")
            assert seen["query"] == quote_from_bytes(query)
            assert seen["fields"]["x-value"] == value
            assert seen["body"] == body.decode("latin-1")

        with closing(client):
            client.connect()
            sock = client.sock
            ask()
            assert client.sock is sock


@pytest.mark.parametrize("data", STREAM)
def test_what_is_answered_the_standard_client_understands(data: bytes) -> None:
    talk = Talk()
    talk.hear(data)

    class Heard:
        def makefile(self, _: str) -> io.BytesIO:
            return io.BytesIO(talk.sent)

    method = "HEAD" if b"HEAD" in data else "GET"
    with http.client.HTTPResponse(
        cast(socket.socket, Heard()), method=method
    ) as response:
        response.begin()
        body = response.read()
    (answer, *_) = answers_in(talk.sent, method)
    assert (response.status, body) == (answer.status, answer.body)


def test_a_stop_in_the_midst_of_many_requests_halves_no_answer() -> None:
    all_are_served = threading.Barrier(5, timeout=LIMIT)

    def ask(number: int) -> bytes:
        parts = []
        with socket.create_connection(("127.0.0.1", number), LIMIT) as client:
            for n in range(100_000):
                if n == 1:
                    all_are_served.wait()
                client.sendall(5 * get("/"))
                parts.append(client.recv(1 << 16))
                if not parts[-1]:
                    break
        return b"".join(parts)

    with no_thread_is_left(), threaded(ECHO) as (reactor, number):
        with ThreadPoolExecutor(4) as threads:
            asked = [threads.submit(ask, number) for _ in range(4)]
            all_are_served.wait()
            reactor.stop()
        answers = [answers_in(one.result()) for one in asked]
    assert all(answers)
    assert {one.status for some in answers for one in some} == {200}
    assert sum(map(len, answers)) == reactor.statistics.requests


# -- main


def test_the_demonstration_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with no_thread_is_left():
        run_main(http_server, monkeypatch)
    assert "the answer that it is due" in capsys.readouterr().out


def first_length(original: Callable[[Request], Any]) -> Callable[[Request], Any]:
    def length(request: Request) -> Any:
        fields = dict(request.fields)
        for name in b"content-length", b"transfer-encoding":
            if name in fields:
                fields[name] = fields[name].partition(b",")[0]
        return original(dataclasses.replace(request, fields=fields))

    return length


def anything_below(root: Path, request: Request) -> Response:
    return http_server.file_response(root / os.fsdecode(request.path)[1:])


BREAKAGES = [
    (http_server, http_parsing, "_length", first_length, "two lengths, and a request"),
    (http_server, http_server, "file_below", lambda _: anything_below, "/../secret"),
    (http_parsing, http_parsing, "_length", first_length, "two lengths: "),
    (http_parsing, http_parsing, "MAX_HEAD", lambda _: 100_000, "bytes: "),
    (http_parsing, http_parsing, "METHODS", lambda old: old | {b"BREW"}, "a method "),
    (http_parsing, http_parsing, "_is_host", lambda _: lambda _: True, "two hosts: "),
]


@pytest.mark.parametrize(("script", "module", "name", "broken", "complaint"), BREAKAGES)
def test_a_demonstration_fails_in_one_line_without_the_mend(
    monkeypatch: pytest.MonkeyPatch,
    script: ModuleType,
    module: ModuleType,
    name: str,
    broken: Callable[[Any], Any],
    complaint: str,
) -> None:
    monkeypatch.setattr(module, name, broken(getattr(module, name)))
    with no_thread_is_left(), pytest.raises(SystemExit) as exit_:
        run_main(script, monkeypatch)
    assert re.search(complaint, str(exit_.value.code))
    assert "\n" not in str(exit_.value.code)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "70000"], "must be in 0"),
        (["--port", "8000"], "--port goes with --serve"),
        (["--directory", "."], "--directory goes with --serve"),
        (["--serve", "--directory", "nowhere"], "no folder is there: nowhere"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    complaint: Callable[..., str], arguments: list[str], message: str
) -> None:
    assert message in complaint(http_server, *arguments)


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with listen() as taken:
        number = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"^port {number}: "):
            run_main(http_server, monkeypatch, "--serve", "--port", number)


@contextmanager
def served(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Run the script with `--serve`; tell its port."""
    script = str(http_server.__file__)
    with subprocess.Popen(
        [sys.executable, "-X", "dev", script, "--serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.fullmatch(
                r"serving on 127\.0\.0\.1 port (\d+) until Ctrl-C\n", line
            )
            assert match is not None, line
            yield process, int(match[1])
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_served_site_in_order(
    number: signal.Signals, public: Path
) -> None:
    with served("--directory", str(public)) as (process, port):
        with socket.create_connection(("127.0.0.1", port), LIMIT) as client:
            client.sendall(get("/index.html") + get("/events"))
            seen = b""
            while b"data: " not in seen:
                seen += client.recv(1 << 16)
            assert b"<p>hello" in seen
            process.send_signal(number)
            while client.recv(1 << 16):
                pass
        out, err = process.communicate(timeout=LIMIT)
    assert (process.returncode, err) == (0, "")
    assert "requests 2" in out


# -- the page


BROWSERS = ["chromium", "chromium-browser", "google-chrome", "chrome"]
WATCH = b"""<!doctype html><iframe src="/" width="900" height="700"></iframe><script>
"use strict";
// Reports what the page in the frame has drawn, each time that its figures change.
let before = "";
setInterval(() => {
  const page = document.querySelector("iframe").contentDocument;
  const canvas = page.getElementById("chart");
  if (canvas === null) return;
  const shown = ["open", "rate"].map(id => page.getElementById(id).textContent);
  const drawn = canvas.toDataURL();
  if (drawn === before) return;
  before = drawn;
  fetch("/seen", {method: "POST", body: JSON.stringify([...shown, drawn.length])});
}, 50);
</script>"""


def test_a_browser_draws_what_changes(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip(f"needs a browser: {', '.join(BROWSERS)}")
    seen: list[list[Any]] = []
    enough = threading.Event()

    def note(request: Request) -> Response:
        seen.append(json.loads(request.body))
        if len({(open_, rate) for open_, rate, _ in seen}) >= 3:
            enough.set()
        return Response()

    listener = listen()
    number = listener.getsockname()[1]
    reactor = http_reactor(listener, Limits(tick=0.1), every=0.1)
    routes = cast("partial[Any]", reactor.session).args[0]
    routes[b"/watch"] = {
        b"GET": lambda _: Response(WATCH, type=b"text/html; charset=utf-8")
    }
    routes[b"/seen"] = {b"POST": note}
    command = [
        *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
        *("--no-first-run", "--disable-background-networking", "--disable-sync"),
        *("--disable-component-update", f"--user-data-dir={tmp_path}"),
        *("--remote-debugging-port=0", f"http://127.0.0.1:{number}/watch"),
    ]
    with in_thread(reactor):
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert enough.wait(LIMIT), f"the browser has drawn {seen}"
        finally:
            process.terminate()
            try:
                process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    assert reactor.statistics.failed == 0
    assert all(int(open_) >= 1 for open_, *_ in seen if open_.isdigit())
    assert len({drawn for *_, drawn in seen}) >= 2
