"""Chapter 5: the parts a reader would copy, against honest and lying sites."""

import argparse
import concurrent.futures
import gc
import hashlib
import math
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import example01_one_get as one_get
import example02_statuses_one_by_one as one_by_one
import example03_one_thread_each as each
import example04_thread_subclass_with_result as subclass
import example05_one_slow_answer as slow
import example06_overall_deadline as overall
import example07_session_per_thread as sessions
import example08_timeouts_are_no_deadline as deadlines
import example09_retries as retries
import example10_token_bucket as buckets
import example11_robots_txt_asked_for_once as robots
import example12_downloads as downloads
import example13_list_with_bad_urls as lists
import example14_throughput_against_threads as throughput
import local_site
import lying_site
import psutil
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from local_site import Site
from lying_site import LyingSite

SECOND = 1_000_000_000  # nanoseconds
LIMIT = 10.0  # seconds that nothing here comes near to


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    pytest.importorskip("httpbin")
    with local_site.serve() as running:
        yield running


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingSite]:
    pytest.importorskip("trustme")
    with lying_site.serve() as running:
        yield running


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is on this machine is not asked for by way of a proxy."""
    monkeypatch.setenv("no_proxy", "127.0.0.1,.invalid,.example")


@pytest.fixture
def closed_port() -> Iterator[str]:
    """Give the URL of a port that is taken, but where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a thread or a descriptor behind."""
    threads, files = set(threading.enumerate()), count_files()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(LIMIT)
        assert not thread.is_alive(), thread
    gc.collect()
    assert count_files() <= files


def count_files() -> int:
    return len(psutil.Process().net_connections()) + len(psutil.Process().open_files())


def answer(status: int = 200, **headers: str) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response.headers.update({k.replace("_", "-"): v for k, v in headers.items()})
    response._content = b""
    response._content_consumed = True  # type: ignore[attr-defined]
    return response


# -- local_site


def test_site_starts_and_stops_without_a_word_or_a_trace(
    nothing_left: None, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("httpbin")
    with local_site.serve() as one, local_site.serve() as other:
        assert one.url != other.url
        with requests.Session() as idle:  # its connection is open while the site stops
            assert idle.get(f"{one.url}/get", timeout=LIMIT).status_code == 200
            began = time.perf_counter()
    assert time.perf_counter() - began < LIMIT
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{one.url}/get", timeout=LIMIT)
    assert capfd.readouterr() == ("", "")


def test_connection_that_is_put_back_too_late_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def put_conn(*_: object) -> None:
        raise ValueError("I/O operation on closed epoll object")

    monkeypatch.setattr("cheroot.wsgi.Server.put_conn", put_conn)
    closed: list[bool] = []
    connection: Any = SimpleNamespace(close=lambda: closed.append(True))
    server = local_site._Server(("127.0.0.1", 0), lambda *_: [], 1)
    server.put_conn(connection)
    assert closed == [True]


def test_site_outlives_clients_that_hang_up(
    nothing_left: None, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("httpbin")
    with local_site.serve() as site:
        for path in ("/drip?numbytes=4&duration=0.4&delay=0", "/bytes/100000", "/get"):
            url = f"{site.url}{path}"
            requests.get(url, stream=True, timeout=LIMIT).close()
        port = int(site.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
            connection.sendall(b"GET /get")
        with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert b" 400 " in connection.recv(4096)
        assert requests.get(f"{site.url}/get", timeout=LIMIT).status_code == 200
    gc.collect()
    assert capfd.readouterr() == ("", "")


def answer_to(url: str) -> str:
    try:
        return str(requests.get(url, timeout=LIMIT).status_code)
    except requests.ConnectionError:
        return "no answer"


def wait_for_connection(site: Site) -> None:
    for _ in range(1000):
        if site.connections:
            return
        time.sleep(0.01)
    raise TimeoutError


def test_requests_in_progress_are_answered_before_the_site_stops() -> None:
    pytest.importorskip("httpbin")
    with ThreadPoolExecutor(1) as pool:
        with local_site.serve() as site:
            future = pool.submit(answer_to, f"{site.url}/delay/0.5")
            wait_for_connection(site)
        assert future.result() == "200"


def test_after_ctrl_c_nobody_waits_for_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("httpbin").core
    in_progress, held = threading.Event(), threading.Event()

    def sleep(_: float) -> None:
        in_progress.set()
        held.wait(LIMIT)

    monkeypatch.setattr(core, "time", SimpleNamespace(sleep=sleep))

    def interrupt(pool: ThreadPoolExecutor) -> None:
        with local_site.serve() as site:
            futures.append(pool.submit(answer_to, f"{site.url}/delay/1"))
            assert in_progress.wait(LIMIT)
            raise KeyboardInterrupt

    futures: list[Future[str]] = []
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            interrupt(pool)
        assert futures[0].result(LIMIT / 2) == "no answer"
    held.set()


def test_site_counts_connections(site: Site) -> None:
    before = site.connections or 0
    with requests.Session() as session:
        for _ in range(5):
            session.get(f"{site.url}/get", timeout=LIMIT)
    assert site.connections == before + 1
    for _ in range(3):
        requests.get(f"{site.url}/get", timeout=LIMIT)
    assert site.connections == before + 4
    assert Site("https://elsewhere.example").connections is None


def test_site_that_cannot_start_says_so(
    monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    pytest.importorskip("httpbin")

    def fail(_: object) -> None:
        raise OSError("no port left")

    monkeypatch.setattr(local_site._Server, "prepare", fail)
    with pytest.raises(OSError, match="no port left"), local_site.serve():
        pass


def test_script_without_httpbin_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "httpbin", None)
    with pytest.raises(SystemExit) as exit_, local_site.site_for(None):
        pass
    assert exit_.value.code == 77
    assert capsys.readouterr().out == "needs httpbin: pip install httpbin\n"


def test_given_site_is_used_and_must_be_there(site: Site, closed_port: str) -> None:
    with local_site.site_for(site.url) as given_site:
        assert given_site == Site(site.url)
    for bad in (closed_port, f"{site.url}/status/404?"):
        with pytest.raises(SystemExit) as exit_, local_site.site_for(bad):
            pass
        line = str(exit_.value.code)
        assert line.startswith(f"{bad}/status/200: ")
        assert "\n" not in line


def test_request_that_fails_ends_a_script_with_one_line(site: Site) -> None:
    with pytest.raises(SystemExit) as exit_, local_site.site_for(site.url):
        one_get.fetch(f"{site.url}/status/500")
    assert str(exit_.value.code).startswith(f"{site.url}/status/500: 500 Server Error")
    with pytest.raises(SystemExit, match=r"^some \(1 sub-exception\): why$"):  # noqa: SIM117
        with local_site.site_for(site.url):
            raise ExceptionGroup("some", [ValueError("why")])


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://httpbin.org", "https://httpbin.org"),
        ("http://127.0.0.1:80/", "http://127.0.0.1:80"),
        ("http://[::1]:8080/base/", "http://[::1]:8080/base"),
    ],
)
def test_base_urls(text: str, url: str) -> None:
    assert local_site.base_url(text) == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "httpbin.org",
        "ftp://a.b",
        "http://",
        "http://[",
        "http://a:b",
        "a:1",
        "http://a b",
        "http://a..b",
        "http://" + 70 * "a",
        "http://user:secret@a.b",
        "http://a.b/?x=1",
        "http://a.b/#x",
    ],
)
def test_what_is_no_base_url(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not the URL of a web site"):
        local_site.base_url(text)


# -- lying_site


def test_liars_stop_in_the_middle_of_everything(
    nothing_left: None, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trustme")
    with lying_site.serve() as liar:
        ports = [int(url.rpartition(":")[2]) for url in (liar.url, liar.tls_url)]
        held = [socket.create_connection(("127.0.0.1", p), LIMIT) for p in ports * 2]
        held[0].sendall(b"GET /silent HTTP/1.1\r\n\r\n")
        held[1].sendall(b"this is no TLS\r\n\r\n")
        held[2].sendall(b"GET /drip-head HTTP/1.1\r\n\r\n")
        assert held[2].recv(1) == b"H"
    for connection in held:
        connection.settimeout(LIMIT)
        try:
            while connection.recv(4096):
                pass
        except ConnectionError:
            pass
        connection.close()
    assert capfd.readouterr() == ("", "")


def test_liars_count_what_was_read(liar: LyingSite) -> None:
    before = liar.asked("/honest")
    reply = requests.post(f"{liar.url}/honest", data=b"x" * 100_000, timeout=LIMIT)
    assert reply.content == b"This is all of it.\r\n"
    assert liar.asked("/honest") == before + 1
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{liar.url}/no-such-lie", timeout=LIMIT)


def test_liars_do_not_count_what_was_not_read(
    liar: LyingSite, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path: liar.asked(path) for path in lying_site.ANSWERS}
    port = int(liar.url.rpartition(":")[2])
    for sent in (
        b"",
        b"GET /busy",
        b"GET /busy HTTP/1.1\r\nHost: a\r\n",
        b"POST /busy HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc",
        b"POST /busy HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /busy HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert connection.recv(4096) == b""
    assert before == {path: liar.asked(path) for path in lying_site.ANSWERS}
    assert capfd.readouterr().err == ""


def test_busy_liar_asks_for_a_second_twice() -> None:
    pytest.importorskip("trustme")
    with lying_site.serve() as liar:
        replies = [
            requests.get(f"{liar.url}/busy-twice", timeout=LIMIT) for _ in range(4)
        ]
    assert [reply.status_code for reply in replies] == [503, 503, 200, 200]
    assert [reply.headers.get("Retry-After") for reply in replies[:3]] == [
        "1",
        "1",
        None,
    ]


def test_liar_that_cannot_start_gives_up(
    monkeypatch: pytest.MonkeyPatch, nothing_left: None
) -> None:
    pytest.importorskip("trustme")

    def fail(_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(lying_site._Server, "start", fail)
    with pytest.raises(RuntimeError, match="new thread"), lying_site.serve():
        pass


def test_certificate_is_good_for_who_trusts_its_issuer(
    liar: LyingSite, tmp_path: Path
) -> None:
    url = f"{liar.tls_url}/honest"
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, timeout=LIMIT)
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(liar.authority)
    assert requests.get(url, verify=str(trusted), timeout=LIMIT).status_code == 200


# -- example01 to example05: requests, and threads for them


def test_fetch_raises_for_what_is_no_success(site: Site) -> None:
    page = one_get.fetch(f"{site.url}/base64/SGVsbG8=")
    assert page.text == "Hello"
    for status in (400, 404, 500, 599):
        with pytest.raises(requests.HTTPError) as error:
            one_get.fetch(f"{site.url}/status/{status}")
        assert error.value.response.status_code == status


def test_fetch_does_not_wait_for_ever(liar: LyingSite, closed_port: str) -> None:
    with pytest.raises(requests.ReadTimeout):
        one_get.fetch(f"{liar.url}/silent", timeout=0.1)
    with pytest.raises(requests.ConnectionError):
        one_get.fetch(closed_port)


def test_way_of_an_answer(site: Site) -> None:
    assert one_get.way_of(one_get.fetch(f"{site.url}/get")) == "200 /get"
    moved = one_get.fetch(f"{site.url}/redirect/1")
    assert one_get.way_of(moved) == "302 /redirect/1 -> 200 /get"


def test_one_by_one_in_order_up_to_the_first_failure(
    site: Site, closed_port: str
) -> None:
    paths = ["/status/201", "/delay/0.05", "/status/404"]
    pings = one_by_one.ping_one_by_one([site.url + path for path in paths])
    assert [ping.status for ping in pings] == [201, 200, 404]
    assert [ping.url for ping in pings] == [site.url + path for path in paths]
    assert pings[1].seconds >= 0.05
    before = site.connections
    with pytest.raises(requests.ConnectionError):
        one_by_one.ping_one_by_one([closed_port, f"{site.url}/get"])
    assert site.connections == before


def test_one_thread_each(site: Site) -> None:
    assert each.ping_all([]) == []
    statuses = [200, 404, 503, 201, 202]
    urls = [f"{site.url}/status/{status}" for status in statuses]
    assert each.ping_all(urls) == statuses


def test_waits_in_threads_overlap(site: Site) -> None:
    began = time.perf_counter()
    assert each.ping_all([f"{site.url}/delay/0.5"] * 20) == [200] * 20
    assert time.perf_counter() - began < 20 * 0.5


def test_fifty_requests_take_hardly_longer_than_the_slowest_alone(site: Site) -> None:
    # A busy machine takes its time for fifty requests. In a longer wait that is little,
    # while threads that do not all wait at once take twice as long as any wait.
    for delay in (1, 3, 9):
        url = f"{site.url}/delay/{delay}"
        began = time.perf_counter()
        each.ping(url)
        alone = time.perf_counter() - began
        each.ping_all([url] * 50)
        if time.perf_counter() - began - alone <= each.LIMIT * alone:
            return
    pytest.fail("never within the limit")


def test_failures_in_threads_come_together(
    site: Site, liar: LyingSite, closed_port: str
) -> None:
    before = site.connections or 0
    good, bad = f"{site.url}/get", f"{liar.url}/hang-up"
    with pytest.raises(ExceptionGroup, match="2 of 4 failed") as group:
        each.ping_all([good, closed_port, bad, good])
    assert len(group.value.exceptions) == 2
    assert site.connections == before + 2  # the others were tried all the same


def test_thread_keeps_result_or_failure(site: Site, liar: LyingSite) -> None:
    good = subclass.Ping(f"{site.url}/status/201")
    bad = subclass.Ping(f"{liar.url}/hang-up")
    late = subclass.Ping(f"{liar.url}/silent", timeout=0.5)
    for thread in (good, bad, late):
        thread.start()
    with pytest.raises(TimeoutError, match="within 0 s"):
        late.result(0)
    assert good.result() == good.result(0) == 201
    for _ in range(2):
        with pytest.raises(requests.ConnectionError):
            bad.result()
    with pytest.raises(requests.ReadTimeout):
        late.result()
    assert good.name.startswith("ping http://127.0.0.1")


@pytest.mark.parametrize("ask", [slow.report_at_the_end, slow.report_each])
def test_all_are_reported(ask: Callable[..., None], site: Site) -> None:
    reported: dict[str, int] = {}
    urls = [f"{site.url}/status/{status}" for status in (200, 404, 503)]
    ask(urls, reported.__setitem__)
    assert reported == dict(zip(urls, (200, 404, 503), strict=True))
    ask([], reported.__setitem__)


def test_one_that_fails_does_not_silence_the_others(
    site: Site, closed_port: str
) -> None:
    reported: dict[str, int] = {}
    good = f"{site.url}/status/200"
    with pytest.raises(requests.ConnectionError):
        slow.report_at_the_end([good, closed_port], reported.__setitem__)
    assert reported == {}
    with pytest.raises(ExceptionGroup, match="1 of 2 failed"):
        slow.report_each([good, closed_port], reported.__setitem__)
    assert reported == {good: 200}


def test_fast_answer_is_reported_before_the_slow_one_is_there(liar: LyingSite) -> None:
    reported = threading.Event()
    answers = {"fast": 1, "slow": 2}

    def ping(url: str) -> int:
        if url == "slow":  # answers only once the fast one has been reported
            assert reported.wait(LIMIT)
        return answers[url]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slow, "ping", ping)
        slow.report_each(["slow", "fast"], lambda *_: reported.set())


# -- example06: a deadline for a list


def test_late_is_what_is_late_at_the_deadline(
    site: Site, liar: LyingSite, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    real = overall.ping

    def ping(url: str) -> int:
        if url == "held":
            assert held.wait(LIMIT)
            return 200
        return real(url)

    monkeypatch.setattr(overall, "ping", ping)
    with ThreadPoolExecutor(1) as pool:
        assert overall.ping_within(LIMIT, [], pool) == []
        good, bad, late, never = overall.ping_within(
            0.5, [f"{site.url}/status/404", closed_port, "held", "held"], pool
        )
        held.set()
    assert good == 404
    assert isinstance(bad, requests.ConnectionError)
    assert str(late) == "late: held"
    assert str(never) == "never asked: held"


def test_late_is_what_was_late_even_if_it_is_there_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = threading.Event()
    real = concurrent.futures.wait

    def wait_and_look_away(futures: Any, seconds: float) -> Any:
        result = real(futures, seconds)
        held.set()
        real(futures, LIMIT)  # the answer comes before anybody has looked
        return result

    def ping(_: str) -> int:
        assert held.wait(LIMIT)
        return 200

    monkeypatch.setattr(overall, "ping", ping)
    monkeypatch.setattr(overall, "wait", wait_and_look_away)
    with ThreadPoolExecutor(1) as pool:
        (late,) = overall.ping_within(0.01, ["held"], pool)
    assert str(late) == "late: held"


def test_interrupted_wait_cancels_what_has_not_begun(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    begun, held = threading.Event(), threading.Event()

    def ping(url: str) -> int:
        asked.append(url)
        begun.set()
        assert held.wait(LIMIT)
        return 200

    def interrupt(*_: object) -> Any:
        assert begun.wait(LIMIT)
        raise KeyboardInterrupt

    monkeypatch.setattr(overall, "ping", ping)
    monkeypatch.setattr(overall, "wait", interrupt)
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(KeyboardInterrupt):
            overall.ping_within(LIMIT, ["a", "b", "c"], pool)
        held.set()
    assert asked == ["a"]


def test_deadline_is_not_waited_for_when_all_are_there(site: Site) -> None:
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        assert overall.ping_within(1000, [f"{site.url}/get"] * 3, pool) == [200] * 3
    assert time.perf_counter() - began < 100


# -- example07: a session for each thread


def test_each_thread_has_its_own_session_and_keeps_it() -> None:
    with sessions.ThreadSessions() as own:
        mine = own.get()
        assert own.get() is mine
        with ThreadPoolExecutor(1) as pool:
            others = [pool.submit(own.get).result() for _ in range(2)]
        assert others[0] is others[1] is not mine
        assert len(own) == 2


def test_sessions_are_closed_at_the_end() -> None:
    class Noted(requests.Session):
        closed = 0

        def close(self) -> None:
            self.closed += 1
            super().close()

    with sessions.ThreadSessions(Noted) as own:
        made = [own.get()]
        with ThreadPoolExecutor(1) as pool:
            made.append(pool.submit(own.get).result())
    assert [session.closed for session in made if isinstance(session, Noted)] == [1, 1]
    with pytest.raises(RuntimeError, match="have been closed"):
        own.get()
    latecomers: list[Noted] = []

    def make() -> Noted:
        latecomers.append(Noted())
        return latecomers[0]

    own._make = make
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError):
        pool.submit(own.get).result()
    assert [session.closed for session in latecomers] == [1]


def test_session_that_cannot_be_made_is_tried_again() -> None:
    failures = [ValueError("not yet")]

    def make() -> requests.Session:
        if failures:
            raise failures.pop()
        return requests.Session()

    with sessions.ThreadSessions(make) as own:
        with pytest.raises(ValueError, match="not yet"):
            own.get()
        assert len(own) == 0
        assert own.get() is own.get()


def test_fetch_all_keeps_the_order_and_raises() -> None:
    assert sessions.fetch_all(len, ["", "a", "bb"], 2) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        sessions.fetch_all(lambda url: 1 // len(url), ["a", ""], 2)


# -- example08: a deadline for an answer


@pytest.mark.parametrize("path", ["/silent", "/gigabyte", "/drip-body", "/drip-head"])
@pytest.mark.parametrize("tls", [False, True])
def test_deadline_holds_whatever_the_site_does(
    liar: LyingSite, path: str, tls: bool, tmp_path: Path
) -> None:
    with deadlines.DeadlineSession() as session:
        (tmp_path / "ca.pem").write_bytes(liar.authority)
        trusted = str(tmp_path / "ca.pem")
        url = (liar.tls_url if tls else liar.url) + path
        began = time.perf_counter()
        with (
            pytest.raises(TimeoutError, match=r"not complete within 0\.3 s"),
            session.deadline(0.3),
        ):
            session.get(url, verify=trusted)
        assert 0.3 <= time.perf_counter() - began < 6  # a drip goes on for eight
        with session.deadline(LIMIT):  # the session is as good as new
            honest = session.get(url.replace(path, "/honest"), verify=trusted)
        assert honest.status_code == 200


class NotingSocket:
    """Notes the time limits that it is given, and what is sent."""

    def __init__(self) -> None:
        self.did: list[object] = []

    def gettimeout(self) -> float:
        return 2.0

    def settimeout(self, timeout: float | None) -> None:
        self.did.append(timeout)

    def sendall(self, data: bytes) -> None:
        self.did.append(data)


@pytest.mark.parametrize(
    ("limit", "left", "expected"),
    [(3, 5, 3), (3, 1, 1), (None, 1, 1), (3, math.inf, 3), (None, math.inf, None)],
)
def test_connecting_and_sending_are_hurried_too(
    limit: float | None, left: float, expected: float | None
) -> None:
    class Connection:
        timeout = limit
        sock: Any = None

        def connect(self) -> None:
            self.sock = NotingSocket()
            self.sock.did.append(self.timeout)

    connection: Any = Connection()
    deadlines._connect(connection, connection.connect, lambda: left)
    hurried = connection.sock
    hurried.sendall(b"x")
    hurried.settimeout(0.5)
    hurried.sendall(b"y")
    assert hurried.did == [expected, min(2.0, left), b"x", 0.5, b"y"]


def test_nothing_is_sent_after_the_deadline() -> None:
    sock: Any = NotingSocket()
    with pytest.raises(TimeoutError):
        deadlines._HurriedSocket(sock, lambda: 0.0).sendall(b"x")
    assert sock.did == []


def test_inner_deadline_does_not_put_off_the_outer_one(liar: LyingSite) -> None:
    with deadlines.DeadlineSession() as session:
        began = time.perf_counter()
        with (
            pytest.raises(TimeoutError),
            session.deadline(0.3),
            session.deadline(LIMIT),
        ):
            session.get(f"{liar.url}/drip-body")
        assert time.perf_counter() - began < 6
        with session.deadline(LIMIT):
            with session.deadline(LIMIT / 2):
                assert session.seconds_left() <= LIMIT / 2
            assert LIMIT / 2 < session.seconds_left() <= LIMIT


def test_deadline_holds_by_way_of_a_proxy(
    liar: LyingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A site asked for an absolute URL by a client that takes it for a proxy: what it
    # answers is the client's affair.
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("http_proxy", liar.url)
    monkeypatch.setitem(lying_site.ANSWERS, "http://a.example/", lying_site.drip_head)
    began = time.perf_counter()
    with (
        deadlines.DeadlineSession() as session,
        pytest.raises(TimeoutError),
        session.deadline(0.3),
    ):
        session.get("http://a.example/")
    assert time.perf_counter() - began < 6


def test_deadline_is_for_all_requests_of_the_block_together(site: Site) -> None:
    with deadlines.DeadlineSession() as session:

        def ask_again_and_again() -> None:
            with session.deadline(0.5):
                for _ in range(100):
                    session.get(f"{site.url}/delay/0.1")

        began = time.perf_counter()
        with pytest.raises(TimeoutError):
            ask_again_and_again()
        assert time.perf_counter() - began < 100 * 0.1


def test_deadline_that_has_passed_lets_nothing_begin(site: Site) -> None:
    before = site.connections
    with (
        deadlines.DeadlineSession() as session,
        pytest.raises(TimeoutError),
        session.deadline(0),
    ):
        session.get(f"{site.url}/get")
    assert site.connections == before


def test_deadline_leaves_other_failures_and_timeouts_alone(
    site: Site, liar: LyingSite, closed_port: str
) -> None:
    with deadlines.DeadlineSession() as session:
        assert session.seconds_left() == math.inf
        with pytest.raises(requests.ReadTimeout):
            session.get(f"{liar.url}/silent", timeout=0.1)
        with session.deadline(LIMIT):
            assert 0 < session.seconds_left() <= LIMIT
            with pytest.raises(requests.ReadTimeout):
                session.get(f"{liar.url}/silent", timeout=0.1)
        for bad in (closed_port, f"{liar.url}/truncated", f"{liar.url}/endless"):
            with pytest.raises(requests.RequestException), session.deadline(LIMIT):
                session.get(bad)
        with pytest.raises(KeyError), session.deadline(0):
            raise KeyError("not the network's fault")
        assert session.seconds_left() == math.inf


def test_session_with_a_deadline_keeps_its_connection(site: Site) -> None:
    before = site.connections or 0
    with deadlines.DeadlineSession() as session, session.deadline(LIMIT):
        body = bytes(range(256)) * 400
        for _ in range(3):
            reply = session.post(f"{site.url}/anything", data=body)
            assert reply.status_code == 200
        assert len(session.get(f"{site.url}/stream-bytes/50000").content) == 50000
    assert site.connections == before + 1


# -- example09: retries


def test_retry_after() -> None:
    def parsed(value: str) -> float | None:
        return retries.retry_after(answer(503, Retry_After=value))

    assert [parsed(value) for value in ("2", "0", " 120 ")] == [2, 0, 120]
    for nothing in (
        "",
        "-1",
        "soon",
        "1.5",
        "٣",
        "Mon, 32 Foo 2026",
        "Mon, 99999999999999999999 Jan 2026 00:00:00 GMT",
        "Mon, 1 Jan 2026 00:00:00 +99999999999999999",
    ):
        assert parsed(nothing) is None
    assert retries.retry_after(answer(503)) is None
    now = datetime.now(UTC)
    later = parsed(format_datetime(now + timedelta(seconds=100), usegmt=True))
    assert later is not None
    assert 90 < later <= 100
    assert parsed(format_datetime(now - timedelta(days=1), usegmt=True)) == 0
    naive = (now + timedelta(seconds=100)).strftime("%a, %d %b %Y %H:%M:%S -0000")
    later = parsed(naive)
    assert later is not None
    assert 90 < later <= 100


class Sender:
    """Answers, or fails, as told; notes the pauses between."""

    def __init__(self, *results: requests.Response | Exception) -> None:
        self.results = list(results)
        self.sent = 0
        self.pauses: list[float] = []

    def __call__(self) -> requests.Response:
        result = self.results[self.sent]
        self.sent += 1
        if isinstance(result, Exception):
            raise result
        return result

    def retried(self, method: str = "GET", **options: Any) -> requests.Response:
        options = {"draw": lambda _, most: most, **options}
        return retries.with_retries(method, self, pause=self.pauses.append, **options)


def test_pauses_double_up_to_a_limit_and_are_drawn_below_it() -> None:
    sender = Sender(*[answer(503)] * 6)
    assert sender.retried(attempts=6, base=1, longest=5).status_code == 503
    assert (sender.sent, sender.pauses) == (6, [1, 2, 4, 5, 5])
    bounds: list[tuple[float, float]] = []

    def draw(least: float, most: float) -> float:
        bounds.append((least, most))
        return most / 4

    sender = Sender(answer(503), answer(503), answer(200))
    assert sender.retried(base=1, draw=draw).status_code == 200
    assert bounds == [(0, 1), (0, 2)]
    assert sender.pauses == [0.25, 0.5]


def test_site_that_names_a_time_is_believed_within_reason() -> None:
    sender = Sender(answer(503, Retry_After="3"), answer(429, Retry_After="0"))
    sender.results.append(answer(200))
    assert sender.retried().status_code == 200
    assert sender.pauses == [3, 0]
    sender = Sender(answer(503, Retry_After="86400"))
    assert sender.retried(longest=5).status_code == 503
    assert (sender.sent, sender.pauses) == (1, [])


@pytest.mark.parametrize("status", [200, 301, 400, 404, 500])
def test_answer_that_is_not_busy_is_final(status: int) -> None:
    sender = Sender(answer(status))
    assert sender.retried().status_code == status
    assert sender.pauses == []


@pytest.mark.parametrize(
    ("failure", "again", "again_if_idempotent"),
    [
        (requests.ConnectTimeout(), True, True),
        (requests.ReadTimeout(), False, True),
        (requests.ConnectionError(), False, True),
        (requests.ConnectionError("reset", 1), False, True),
        (requests.exceptions.ChunkedEncodingError(), False, True),
        (requests.exceptions.SSLError(), False, False),
        (requests.TooManyRedirects(), False, False),
        (requests.exceptions.InvalidURL(), False, False),
    ],
)
def test_what_may_be_sent_again(
    failure: requests.RequestException, again: bool, again_if_idempotent: bool
) -> None:
    for method, expected in (
        ("POST", again),
        ("PATCH", again),
        ("GET", again_if_idempotent),
        ("PUT", again_if_idempotent),
        ("DELETE", again_if_idempotent),
    ):
        failure.request = requests.PreparedRequest()
        failure.request.method = method
        sender = Sender(failure, answer(200))
        if expected:
            assert sender.retried(method).status_code == 200
        else:
            with pytest.raises(type(failure)):
                sender.retried(method)
        assert sender.sent == 1 + expected


def test_refused_connection_was_never_sent_and_the_last_failure_is_raised(
    closed_port: str, liar: LyingSite
) -> None:
    sent = []

    def post(url: str) -> requests.Response:
        sent.append(url)
        return requests.post(url, timeout=LIMIT)

    for url, attempts in ((closed_port, 4), (f"{liar.url}/hang-up", 1)):
        sent.clear()
        with pytest.raises(requests.ConnectionError):
            retries.with_retries(
                "POST",
                lambda url=url: post(url),  # type: ignore[misc]
                attempts=4,
                pause=lambda _: None,
            )
        assert len(sent) == attempts


def test_busy_post_is_not_sent_again() -> None:
    for status in (429, 502, 503, 504):
        sender = Sender(answer(status, Retry_After="0"), answer(200))
        assert sender.retried("POST").status_code == status
        assert sender.sent == 1
        assert sender.retried("GET").status_code == 200


def test_post_that_was_answered_with_a_redirect_is_not_sent_again(
    closed_port: str,
) -> None:
    carried_out = []

    def post() -> requests.Response:
        carried_out.append("once")
        # What requests does of itself after a status of 303: the answer to the POST is
        # to be had by a GET, from where nobody listens.
        return requests.get(closed_port, timeout=LIMIT)

    with pytest.raises(requests.ConnectionError):
        retries.with_retries("POST", post, pause=lambda _: None)
    assert carried_out == ["once"]


def test_attempts_and_pauses_keep_to_a_deadline(liar: LyingSite) -> None:
    sender = Sender(answer(503, Retry_After="3"), answer(200))
    assert sender.retried(seconds_left=lambda: 2.9).status_code == 503
    assert sender.pauses == []
    sender = Sender(requests.ReadTimeout(), answer(200))
    with pytest.raises(requests.ReadTimeout):
        sender.retried(base=3, seconds_left=lambda: 2.9)
    assert sender.retried(seconds_left=lambda: 2.9).status_code == 200
    took = retries.seconds_of_attempts(f"{liar.url}/drip-head", 0.4)
    assert 0.3 <= took < 6  # the drip goes on for longer


def test_what_is_drawn_by_default_is_not_always_the_most() -> None:
    pauses: list[float] = []
    for _ in range(20):
        sender = Sender(answer(503), answer(200))
        retries.with_retries("GET", sender, base=4, pause=pauses.append)
    assert len(set(pauses)) > 1
    assert all(0 <= pause <= 4 for pause in pauses)


def test_answer_that_is_not_wanted_is_closed_before_the_pause() -> None:
    log: list[str] = []

    busy = answer(503)
    busy.close = lambda: log.append("close")  # type: ignore[method-assign]
    retries.with_retries(
        "GET", Sender(busy, answer(200)), pause=lambda _: log.append("pause")
    )
    assert log == ["close", "pause"]


def test_what_is_busy_and_what_may_be_repeated() -> None:
    assert {429, 502, 503, 504} == retries.BUSY
    for method in ("GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"):
        assert method in retries.IDEMPOTENT
    assert not retries.IDEMPOTENT & {"POST", "PATCH", "CONNECT"}
    with retries.retrying_session(4, base=0.5) as session:
        for url in ("http://a.example", "https://a.example"):
            retry = session.get_adapter(url).max_retries  # type: ignore[attr-defined]
            assert (retry.total, retry.other) == (3, 0)
            assert (retry.backoff_factor, retry.backoff_jitter) == (0.5, 0.5)
            assert retry.status_forcelist == retries.BUSY


def test_number_of_attempts() -> None:
    for attempts in (1, 2, 5):
        sender = Sender(*[requests.ReadTimeout()] * attempts)
        with pytest.raises(requests.ReadTimeout):
            sender.retried(attempts=attempts)
        assert (sender.sent, len(sender.pauses)) == (attempts, attempts - 1)
    with pytest.raises(ValueError, match="at least one attempt, not 0"):
        Sender().retried(attempts=0)


@pytest.mark.parametrize("attempts", [1, 2, 4])
def test_session_of_urllib3_counts_alike(liar: LyingSite, attempts: int) -> None:
    for method, expected in (("GET", attempts), ("POST", 1)):
        before = liar.asked("/busy")
        with retries.retrying_session(attempts, base=0.001) as session:
            reply = session.request(method, f"{liar.url}/busy", timeout=LIMIT)
        assert reply.status_code == 503
        assert liar.asked("/busy") == before + expected


# -- example10: the token bucket


class Clock:
    """A clock that stands still until it is set; who sleeps wakes up `late`."""

    def __init__(self, late: int = 0) -> None:
        self.now = 5 * SECOND
        self._late = late

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += math.ceil(seconds * SECOND) + self._late


rates = st.floats(0.1, 1e6)
bursts = st.integers(1, 20)
gaps = st.lists(st.one_of(st.just(0), st.integers(0, 3 * SECOND)), max_size=60)


@given(rates, bursts, gaps, st.integers(0, SECOND // 10))
def test_no_window_holds_more_than_the_bucket_allows(
    rate: float, burst: int, waits: list[int], late: int
) -> None:
    clock = Clock(late)
    bucket = buckets.TokenBucket(rate, burst, clock=clock, sleep=clock.sleep)
    arrivals, granted = [], []
    for gap in waits:
        clock.now += gap
        arrivals.append(clock.now)
        granted.append(bucket.acquire())
        assert granted[-1] == clock.now
    interval = bucket.interval
    assert interval >= SECOND / rate
    for i, first in enumerate(granted):
        for j in range(i, len(granted)):
            window = granted[j] - first
            assert j - i + 1 <= burst + window * rate / SECOND + 1e-6
    assert buckets.keeps_rate(granted, interval, burst)
    # Nor does anybody wait longer than needed.
    for k, (arrived, got) in enumerate(zip(arrivals, granted, strict=True)):
        before = [g + (k - i - burst + 1) * interval for i, g in enumerate(granted[:k])]
        assert got <= max([arrived, *(at + late + 1 for at in before)])


def test_sleep_that_ends_early_is_no_token() -> None:
    clock = Clock()
    bucket = buckets.TokenBucket(
        1, clock=clock, sleep=lambda seconds: clock.sleep(seconds / 2 + 1e-9)
    )
    assert bucket.acquire() == 5 * SECOND
    assert 6 * SECOND <= bucket.acquire() == clock.now <= 6 * SECOND + 9


def test_late_token_moves_the_next_ones() -> None:
    clock = Clock(late=SECOND // 2)
    bucket = buckets.TokenBucket(1, clock=clock, sleep=clock.sleep)
    times = [bucket.acquire() / SECOND for _ in range(3)]
    assert times == pytest.approx([5, 6.5, 8])


def test_token_that_would_be_late_is_not_taken() -> None:
    clock = Clock()
    bucket = buckets.TokenBucket(2, 2, clock=clock, sleep=clock.sleep)
    assert [bucket.acquire(0) - 5 * SECOND for _ in range(2)] == [0, 0]
    for _ in range(3):
        with pytest.raises(TimeoutError, match=r"0\.5 s until the next token"):
            bucket.acquire(timeout=0.4)
    assert clock.now == 5 * SECOND
    assert bucket.acquire(0.5) == clock.now == 5 * SECOND + SECOND // 2


def test_interrupted_wait_takes_no_token() -> None:
    clock = Clock()

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    bucket = buckets.TokenBucket(1, clock=clock, sleep=interrupt)
    bucket.acquire()
    with pytest.raises(KeyboardInterrupt):
        bucket.acquire()
    clock.now += SECOND
    assert bucket.acquire(0) == clock.now


def test_threads_share_the_tokens() -> None:
    clock = Clock()
    bucket = buckets.TokenBucket(100, 3, clock=clock, sleep=clock.sleep)
    with ThreadPoolExecutor(8) as pool:
        granted = sorted(pool.map(lambda _: bucket.acquire(), range(200)))
    step = SECOND // 100
    expected = [5 * SECOND + max(0, k - 2) * step for k in range(200)]
    assert granted == pytest.approx(expected, abs=200)  # rounded when slept
    assert buckets.keeps_rate(granted, step, 3)


def test_only_one_thread_waits_for_the_next_token() -> None:
    clock = Clock()
    waiting, go_on = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        waiting.set()
        assert go_on.wait(LIMIT)
        clock.sleep(seconds)

    bucket = buckets.TokenBucket(1, clock=clock, sleep=sleep)
    bucket.acquire()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(bucket.acquire)
        assert waiting.wait(LIMIT)
        with pytest.raises(TimeoutError, match="others have waited"):
            bucket.acquire(0.01)
        go_on.set()
        assert future.result() == 6 * SECOND


def test_tokens_cost_real_time() -> None:
    bucket = buckets.TokenBucket(100, 2)
    began = time.monotonic_ns()
    granted = [bucket.acquire() for _ in range(7)]
    assert time.monotonic_ns() - began >= 5 * bucket.interval
    assert buckets.keeps_rate(granted, bucket.interval, 2)


@pytest.mark.parametrize(
    ("rate", "burst"), [(0, 1), (-1, 1), (math.inf, 1), (math.nan, 1), (1, 0)]
)
def test_impossible_buckets(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        buckets.TokenBucket(rate, burst)


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ([], True),
        ([0, 0], True),
        ([0, 0, 0], False),
        ([0, 0, 10], True),
        ([0, 0, 9], False),
        ([10, 0, 0], True),
        ([0, 5, 10, 19], False),
        ([0, 5, 10, 20], True),
    ],
)
def test_keeps_rate(times: list[int], kept: bool) -> None:
    assert buckets.keeps_rate(times, 10, 2) is kept


def test_hosts_are_limited_each_for_itself() -> None:
    limits = buckets.HostLimits(1, lambda: buckets.TokenBucket(1e6, 100))
    entered = threading.Event()

    def second() -> None:
        with limits.turn("http://ONE.example/b"):
            entered.set()

    with ThreadPoolExecutor(1) as pool:
        with limits.turn("http://one.example/a"):
            future = pool.submit(second)
            with limits.turn("http://two.example/"):
                pass
            assert not entered.wait(0.1)
        future.result(LIMIT)
    assert entered.is_set()
    with pytest.raises(KeyError), limits.turn("http://one.example/"):
        raise KeyError
    with limits.turn("http://one.example/"):
        pass


def test_token_is_taken_with_the_slot_and_not_before() -> None:
    taken: list[str] = []

    class Counted(buckets.TokenBucket):
        def acquire(self, timeout: float | None = None) -> int:
            taken.append("token")
            return super().acquire(timeout)

    limits = buckets.HostLimits(1, lambda: Counted(1e6, 100))

    def second() -> None:
        with limits.turn("http://me@one.example:80/b"):
            pass

    with ThreadPoolExecutor(1) as pool:
        with limits.turn("http://one.example/a"):
            future = pool.submit(second)
            with pytest.raises(FutureTimeoutError):
                future.result(0.1)
            assert taken == ["token"]
        future.result(LIMIT)
    assert taken == ["token"] * 2


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://a.example/x", "http://a.example:80"),
        ("HTTPS://u:p@A.example", "https://a.example:443"),
        ("http://[::1]:8080/", "http://[::1]:8080"),
    ],
)
def test_origins(url: str, origin: str) -> None:
    assert buckets.origin(url) == robots.origin(url) == origin


# -- example11: robots.txt


def test_one_computes_and_the_others_wait() -> None:
    n, calls = 8, []
    calling, release = threading.Semaphore(0), threading.Event()

    def compute(key: str) -> str:
        calls.append(key)
        assert release.wait(LIMIT)
        return key.upper()

    flight = robots.SingleFlight(compute)

    def get(_: int) -> str:
        calling.release()
        return flight.get("a")

    with ThreadPoolExecutor(n) as pool:
        futures = [pool.submit(get, number) for number in range(n)]
        for _ in range(n):
            assert calling.acquire(timeout=LIMIT)
        release.set()
        assert {future.result() for future in futures} == {"A"}
    assert calls == ["a"]
    assert (flight.get("a"), flight.get("b"), calls) == ("A", "B", ["a", "b"])


def test_failure_is_told_to_all_and_not_kept() -> None:
    begun, release = threading.Event(), threading.Event()
    failures = [OSError("down")]

    def compute(_: str) -> int:
        begun.set()
        assert release.wait(LIMIT)
        if failures:
            raise failures.pop()
        return 42

    flight = robots.SingleFlight(compute)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(flight.get, "a")
        assert begun.wait(LIMIT)
        waiting = flight._futures["a"]
        release.set()
        with pytest.raises(OSError, match="down"):
            waiting.result(LIMIT)
        with pytest.raises(OSError, match="down"):
            future.result(LIMIT)
    assert flight.get("a") == flight.get("a") == 42


def test_interrupt_is_for_one_thread_and_nobody_waits_for_it() -> None:
    interrupts = [KeyboardInterrupt()]
    waiters = []

    def compute(key: str) -> str:
        if interrupts:
            waiters.append(flight._futures[key])
            raise interrupts.pop()
        return key

    flight = robots.SingleFlight(compute)
    with pytest.raises(KeyboardInterrupt):
        flight.get("a")
    with pytest.raises(CancelledError):
        waiters[0].result(LIMIT)
    assert flight.get("a") == "a"


def rules(status: int, text: str = "") -> tuple[robots.Robots, list[str]]:
    asked: list[str] = []

    def get(url: str) -> requests.Response:
        asked.append(url)
        response = answer(status)
        response._content = text.encode()
        return response

    return robots.Robots("polite", get), asked


def test_rules_are_read_once_for_each_site() -> None:
    text = "User-agent: *\nDisallow: /private\n\nUser-agent: rude\nDisallow: /\n"
    known, asked = rules(200, text)
    assert known.allow("https://a.example/")
    assert known.allow("https://a.example/open?x=1")
    assert not known.allow("https://a.example/private/page")
    assert not known.allow("http://a.example:8080/private")
    assert not known.allow("https://me:secret@A.example:443/private")
    assert not known.allow("http://[::1]/private")
    assert asked == [
        "https://a.example:443/robots.txt",
        "http://a.example:8080/robots.txt",
        "http://[::1]:80/robots.txt",
    ]


def test_rules_are_utf_8_and_for_who_asks() -> None:
    for text in ("\ufeffUser-agent: *\nDisallow: /", "User-agent: *\nDisallow: /ü"):
        known, _ = rules(200, text)
        assert not known.allow("https://a.example/%C3%BC")
    known, _ = rules(200, "User-agent: polite\nDisallow: /\n\nUser-agent: *\nDisallow:")
    assert not known.allow("https://a.example/")


def test_site_without_rules_allows_all_and_site_in_trouble_nothing() -> None:
    for status in (404, 403, 410):
        known, _ = rules(status, "User-agent: *\nDisallow: /")
        assert known.allow("https://a.example/")
    for status in (429, 500, 503):
        known, asked = rules(status)
        for _ in range(2):
            with pytest.raises(requests.HTTPError):
                known.allow("https://a.example/")
        assert len(asked) == 2


# -- example12: downloads


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_alphabet_is_what_httpbin_sends(site: Site) -> None:
    url = f"{site.url}/range/1000"
    assert requests.get(url, timeout=LIMIT).content == downloads.alphabet(1000)


def test_download_replaces_what_was_there(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_bytes(b"old")
    pieces: list[int] = []
    body = downloads.alphabet(100_000)
    with requests.Session() as session:
        downloads.download(
            f"{site.url}/range/100000",
            target,
            hashlib.sha256(body).hexdigest().upper(),
            session=session,
            progress=pieces.append,
        )
    assert listing(tmp_path) == {"file": body}
    assert sum(pieces) == 100_000
    assert len(pieces) > 1


def test_compressed_or_not_the_file_is_what_the_site_stores(
    site: Site, tmp_path: Path
) -> None:
    downloads.download(f"{site.url}/headers", tmp_path / "file")
    assert b'"Accept-Encoding": "identity"' in (tmp_path / "file").read_bytes()


@pytest.mark.parametrize(
    ("path", "sha256", "error"),
    [
        ("/truncated", None, requests.RequestException),
        ("/cut-chunk", None, requests.RequestException),
        ("/gigabyte", None, requests.RequestException),
        ("/silent", None, requests.ReadTimeout),
        ("/hang-up", None, requests.ConnectionError),
        ("/not-http", None, requests.ConnectionError),
        ("/busy", None, requests.HTTPError),
        ("/honest", "0" * 64, downloads.ChecksumError),
    ],
)
def test_download_that_fails_leaves_the_folder_as_it_was(
    liar: LyingSite, tmp_path: Path, path: str, sha256: str | None, error: Any
) -> None:
    target = tmp_path / "file"
    for before in ({}, {"file": b"old"}):
        for name, content in before.items():
            (tmp_path / name).write_bytes(content)
        with pytest.raises(error):
            downloads.download(liar.url + path, target, sha256, timeout=0.3)
        assert listing(tmp_path) == before


def test_interrupted_download_leaves_nothing(site: Site, tmp_path: Path) -> None:
    def interrupt(_: int) -> None:
        assert len(list(tmp_path.iterdir())) == 1  # the part, under another name
        assert not (tmp_path / "file").exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        downloads.download(
            f"{site.url}/range/1000", tmp_path / "file", progress=interrupt
        )
    assert listing(tmp_path) == {}


def test_one_file_may_be_wanted_by_several_threads(site: Site, tmp_path: Path) -> None:
    target = tmp_path / ("f" * 240)
    url = f"{site.url}/range/50000"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(downloads.download, [url] * 20, [target] * 20))
    assert listing(tmp_path) == {target.name: downloads.alphabet(50_000)}


@pytest.mark.parametrize(
    "path", ["/status/204", "/status/206", "/status/304", "/gzip", "/status/103"]
)
def test_what_is_no_whole_file_is_refused(
    site: Site, tmp_path: Path, path: str
) -> None:
    with pytest.raises(requests.RequestException):
        downloads.download(f"{site.url}{path}", tmp_path / "file", timeout=LIMIT)
    assert listing(tmp_path) == {}


def test_interrupted_downloads_stop_at_their_next_piece(
    liar: LyingSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    under_way = threading.Event()

    def interrupt(_: object) -> Any:
        assert under_way.wait(LIMIT)
        raise KeyboardInterrupt

    monkeypatch.setattr(downloads, "as_completed", interrupt)
    monkeypatch.setattr(downloads, "PIECE", 1)
    wanted: dict[Path, tuple[str, str | None]] = {
        tmp_path / "drip": (f"{liar.url}/drip-body", None)
    }
    began = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        downloads.download_all(wanted, 1, lambda _: under_way.set())
    assert time.perf_counter() - began < 6  # the drip goes on for eight seconds
    assert listing(tmp_path) == {}


def test_progress_is_not_called_in_two_threads_at_once(
    site: Site, tmp_path: Path
) -> None:
    inside = threading.Lock()

    def progress(_: int) -> None:
        assert inside.acquire(blocking=False)
        time.sleep(0.001)
        inside.release()

    wanted: dict[Path, tuple[str, str | None]] = {
        tmp_path / f"{n}": (f"{site.url}/range/5000", None) for n in range(20)
    }
    assert downloads.download_all(wanted, 4, progress) == {}


def test_download_into_no_folder(site: Site, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        downloads.download(f"{site.url}/range/10", tmp_path / "no" / "file")


def test_other_downloads_go_on(site: Site, liar: LyingSite, tmp_path: Path) -> None:
    good = {
        tmp_path / f"{n}": (f"{site.url}/range/{n}", None) for n in range(1000, 1010)
    }
    bad: dict[Path, tuple[str, str | None]] = {
        tmp_path / "truncated": (f"{liar.url}/truncated", None)
    }
    pieces: list[int] = []
    failures = downloads.download_all(bad | good, 2, pieces.append)
    assert failures.keys() == bad.keys()
    assert listing(tmp_path) == {
        f"{n}": downloads.alphabet(n) for n in range(1000, 1010)
    }
    assert downloads.download_all({}, 2) == {}


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_is_shown_on_a_terminal_only(tmp_path: Path) -> None:
    pytest.importorskip("httpbin")
    script = str(Path(downloads.__file__))
    import termios

    try:
        outer, inner = os.openpty()
    except OSError as error:
        pytest.skip(f"no pseudo-terminal: {error}")
    termios.tcsetwinsize(inner, (24, 80))
    with open(outer, "rb", buffering=0) as terminal:  # noqa: PTH123
        try:
            command = [sys.executable, script, "--files", "3"]
            run = subprocess.run(
                command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=inner, check=True
            )
        finally:
            os.close(inner)
        shown = b""
        try:
            while piece := terminal.read(4096):
                shown += piece
        except OSError:  # how Linux says that nobody holds the other end
            pass
    assert b"B/s" in shown
    assert b"3 files whole and verified" in run.stdout


# -- example13: lists with bad URLs


def fetch_list(*urls: str, seconds: float = LIMIT) -> list[lists.Outcome]:
    with ThreadPoolExecutor(2) as pool:
        return lists.fetch_list(pool, urls, seconds)


def test_body_within_the_limit(site: Site) -> None:
    assert lists.fetch(f"{site.url}/range/100", largest=100) == downloads.alphabet(100)
    with pytest.raises(lists.TooLargeError, match="more than 100 bytes announced"):
        lists.fetch(f"{site.url}/range/101", largest=100)
    with pytest.raises(lists.TooLargeError, match="more than 100 bytes"):
        lists.fetch(f"{site.url}/stream-bytes/101", largest=100)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/truncated", "body cut short"),
        ("/cut-chunk", "body cut short"),
        ("/gigabyte", "more than 1,000,000 bytes announced"),
        ("/drip-body", "not complete within 0.5 s"),
        ("/drip-head", "not complete within 0.5 s"),
        ("/silent", "not complete within 0.5 s"),
        ("/endless", "redirected without end"),
        ("/busy", "503 Service Unavailable"),
        ("/not-http", "not an HTTP answer"),
        ("/hang-up", "hung up without an answer"),
    ],
)
def test_every_lie_is_told_by_its_name(liar: LyingSite, path: str, why: str) -> None:
    seconds = 0.5 if "0.5 s" in why else LIMIT
    good, bad = fetch_list(f"{liar.url}/honest", liar.url + path, seconds=seconds)
    assert good == lists.Outcome(f"{liar.url}/honest", b"This is all of it.\r\n")
    assert bad == lists.Outcome(liar.url + path, None, why)


def test_redirects_are_followed_without_their_bodies(
    site: Site, liar: LyingSite
) -> None:
    assert lists.fetch(f"{liar.url}/long-redirect") == b"This is all of it.\r\n"
    assert b'"url"' in lists.fetch(f"{site.url}/redirect/3")
    before = liar.asked("/endless")
    with pytest.raises(requests.TooManyRedirects):
        lists.fetch(f"{liar.url}/endless")
    assert liar.asked("/endless") == before + lists.MOST_REDIRECTS + 1
    for target in ("ftp://a.example/", "file:///etc/passwd"):
        url = f"{site.url}/redirect-to?url={target}"
        (outcome,) = fetch_list(url)
        assert outcome.reason == f"redirected to {target}"


def test_only_a_status_of_200_has_a_body(site: Site) -> None:
    for status, why in ((204, "204 No Content"), (299, "299"), (404, "404 Not Found")):
        (outcome,) = fetch_list(f"{site.url}/status/{status}")
        assert outcome.reason == why


def test_urls_are_fetched_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)

    def fetch(url: str, _: float) -> bytes:
        both.wait(LIMIT)
        return url.encode()

    monkeypatch.setattr(lists, "fetch", fetch)
    assert [one.body for one in fetch_list("a", "b")] == [b"a", b"b"]


def test_passwords_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    lists.report([lists.Outcome("http://me:secret@a.example/x", b"")])
    assert capsys.readouterr().out.split() == [
        "ok,",
        "0",
        "bytes",
        "http://a.example/x",
    ]
    assert lists.without_password("a@b") == "a@b"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "malformed URL"),
        ("no-scheme.example", "malformed URL"),
        ("http://", "malformed URL"),
        ("http://[::1", "malformed URL"),
        ("http://a b/", "malformed URL"),
        ("http://127.0.0.1:99999/", "malformed URL"),
        ("http://" + "a" * 70 + ".example/", "malformed URL"),
        ("ftp://127.0.0.1/", "malformed URL"),
        ("http://no-such-host.invalid/", "unknown host"),
    ],
)
def test_bad_addresses(url: str, why: str) -> None:
    assert fetch_list(url) == [lists.Outcome(url, None, why)]


def test_refusals_are_told(liar: LyingSite, closed_port: str) -> None:
    refused, untrusted = fetch_list(closed_port, f"{liar.tls_url}/honest")
    assert refused.reason == "connection refused"
    assert untrusted.reason == "TLS: unable to get local issuer certificate"


def test_layers_of_an_exception_even_in_a_circle() -> None:
    inner, outer = ValueError("inner"), RuntimeError("outer")
    outer.__cause__, inner.__context__ = inner, outer
    assert list(lists.layers(outer)) == [outer, inner]
    assert lists.reason(RuntimeError("odd")) == "odd"
    assert lists.reason(ssl.SSLError("handshake")).startswith("TLS: ")
    assert lists.reason(requests.ConnectTimeout()) == "ConnectTimeout"
    assert lists.reason(TimeoutError()) == "TimeoutError"
    assert lists.reason(OSError(113, "No route to host")) == "No route to host"
    assert lists.reason(OSError("\x1b[31m\n" + "x" * 100)) == "?[31m?" + "x" * 54


@pytest.mark.parametrize("n_bad", [0, 1])
def test_exit_status_says_whether_something_failed(
    liar: LyingSite,
    n_bad: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    urls = ["http//bad"] * n_bad + [f"{liar.url}/honest"]
    monkeypatch.setattr(sys, "argv", ["script", *urls])
    with pytest.raises(SystemExit) as exit_:
        lists.main()
    assert exit_.value.code == n_bad
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[-1] for line in lines] == urls
    assert lines[-1].startswith("ok, 20 bytes ")


# -- example14: throughput


def test_little_is_right(site: Site) -> None:
    load = throughput.measure(f"{site.url}/delay/0.02", 4, 3)
    assert load.threads == 4
    assert load.latency >= 0.02
    assert 0 < load.throughput <= 4 / 0.02
    # Little's law: as many are under way as there are threads, or fewer near the end.
    assert 1 < load.throughput * load.latency <= 4 * (1 + 1e-9)


def test_site_that_fails_stops_the_measurement(site: Site) -> None:
    with pytest.raises(requests.HTTPError):
        throughput.measure(f"{site.url}/status/500", 4)


# -- what all of them have


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        (one_get, ["--url", "httpbin.org"], "not the URL of a web site: 'httpbin.org'"),
        (one_by_one, ["--url", "http://a:b"], "not the URL of a web site"),
        (each, ["--requests", "101"], "must be in 1 … 100, not 101"),
        (each, ["--delay", "nan"], "must be in 0.1 … 10, not nan"),
        (subclass, ["--url", "ftp://x"], "not the URL of a web site"),
        (slow, ["--slow", "0"], "must be in 0.1 … 5, not 0"),
        (overall, ["--deadline", "2"], "more than 0 and less than 2, not 2"),
        (sessions, ["--threads", "0"], "must be at least 1, not 0"),
        (deadlines, ["--deadline", "9"], "must be in 0.1 … 2, not 9"),
        (retries, ["--url", "x"], "not the URL of a web site: 'x'"),
        (buckets, ["--rate", "1e9"], "must be in 10 … 1000, not 1e+09"),
        (buckets, ["--burst", "0"], "must be in 1 … 12, not 0"),
        (robots, ["--threads", "1"], "must be in 2 … 100, not 1"),
        (downloads, ["--files", "0"], "must be at least 1, not 0"),
        (lists, ["--url", "x"], "not the URL of a web site: 'x'"),
        (throughput, ["--delay", "0"], "must be in 0.01 … 10, not 0"),
        (throughput, ["--plot", "x.txt"], "must end in .png, .svg or .pdf: x.txt"),
        (local_site, ["--port"], "unrecognized arguments: --port"),
        (lying_site, ["--port"], "unrecognized arguments: --port"),
    ],
)
def test_bad_arguments_get_one_clear_line(
    module: ModuleType,
    arguments: list[str],
    culprit: str,
    complaint: Callable[..., str],
) -> None:
    assert culprit in complaint(module, *arguments)
