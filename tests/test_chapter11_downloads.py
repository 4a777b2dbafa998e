"""Chapter 11, clients of web sites, and the site that they ask."""

import asyncio
import contextlib
import errno
import hashlib
import http.client
import itertools
import re
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from serving import (
    HOST,
    LIMIT,
    all_of,
    ends_in_order,
    needs_posix_signals,
    refuses_bad_ports,
    run,
    served,
)

aiohttp = pytest.importorskip("aiohttp")

import example04_aiohttp_client as client  # noqa: E402
import example05_downloads_aiohttp_aiofiles as downloads  # noqa: E402
import example06_downloads_requests_compared as compared  # noqa: E402
import file_site  # noqa: E402
import requests  # noqa: E402
from example05_downloads_aiohttp_aiofiles import DownloadError, Source  # noqa: E402

OLD = b"what was there before"
IN_TIME = aiohttp.ClientTimeout(total=LIMIT)


@pytest.fixture
def site() -> Iterator[file_site.Site]:
    with file_site.serve() as running:
        yield running
    assert running.counts.in_progress == 0
    assert "file site" not in {thread.name for thread in threading.enumerate()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@contextlib.asynccontextmanager
async def answering(raw: bytes) -> AsyncIterator[str]:
    """Give the URL of a site that has one answer to whatever it is asked."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(raw)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/file"
    finally:
        server.close()
        # For the tasks of clients that have gone: they end by themselves.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def in_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- the site


def test_content_depends_on_the_name_alone() -> None:
    assert file_site.content("a", 20) == file_site.content("a", 20)
    assert file_site.content("a", 20) != file_site.content("b", 20)
    for size in (0, 1, 100_000):
        content = file_site.content("a", size)
        assert len(content) == size
        assert file_site.checksum("a", size) == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    "path",
    [
        "/files/a?size=-1",
        "/files/a?size=10000001",
        "/files/a?size=many",
        "/files/a?size=nan",
        "/files/a?size=1e99",
        "/files/a?delay=61",
        "/files/a?together=1001",
        "/delay/-1",
        "/delay/inf",
        "/drip/a?pause=-1",
        "/truncated/a?size=-1",
        "/status/199",
        "/status/600",
    ],
)
def test_what_the_site_cannot_do_is_a_bad_request(
    site: file_site.Site, path: str
) -> None:
    status, text, _ = file_site.get(site.url, path)
    assert status == 400
    assert text.endswith(b", please")


def test_all_pages_that_the_index_names_are_there(site: file_site.Site) -> None:
    status, page, _ = file_site.get(site.url, "/")
    paths = re.findall(r'href="([^"]+)"', page.decode().replace("&amp;", "&"))
    assert (status, len(paths)) == (200, 5)
    kinds = set()
    for path in paths:
        path = re.sub(r"(?<=pause=|delay/)[\d.]+", "0", path)
        try:
            kinds.add(file_site.get(site.url, path)[0])
        except http.client.IncompleteRead:
            kinds.add(-1)
    assert kinds == {200, 404, -1}
    assert file_site.get(site.url, "/nowhere")[0] == 404
    assert (site.counts.requests, site.counts.connections) == (7, 7)


@pytest.mark.parametrize("n", [2, 10])
def test_requests_are_answered_together(site: file_site.Site, n: int) -> None:
    with ThreadPoolExecutor(n) as pool:
        path = f"/files/a?size=5&together={n}"
        answers = [pool.submit(file_site.get, site.url, path) for _ in range(n)]
        for answer in answers:
            assert answer.result()[:2] == (200, file_site.content("a", 5))
    assert site.counts.most == n


def test_who_waits_in_vain_for_another_request_is_told(
    site: file_site.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_site, "HELD", 0.01)
    status, text, _ = file_site.get(site.url, "/files/a?together=2")
    assert (status, text) == (503, b"1 at a time, not 2")


@pytest.mark.parametrize("path", ["/delay/60", "/drip/a?pause=60", "/files/a?delay=60"])
def test_client_that_has_hung_up_is_not_worked_for(
    site: file_site.Site, path: str
) -> None:
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), LIMIT) as nc:
        nc.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        wait_until(lambda: site.counts.in_progress)
    wait_until(lambda: not site.counts.in_progress)


@pytest.mark.parametrize("path", ["/delay/60", "/drip/a?pause=60", "/files/a?delay=60"])
def test_end_of_the_site_does_not_wait_for_answers(path: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        with file_site.serve() as site:
            answer = pool.submit(file_site.get, site.url, path)
            wait_until(lambda: site.counts.in_progress)
        assert isinstance(
            answer.exception(LIMIT), ConnectionError | http.client.HTTPException
        )
    assert site.counts.in_progress == 0


def test_site_ends_with_its_block_whatever_ended_that() -> None:
    with pytest.raises(ZeroDivisionError), file_site.serve() as site:
        raise ZeroDivisionError
    with pytest.raises(ConnectionRefusedError):
        file_site.get(site.url, "/")
    assert "file site" not in {thread.name for thread in threading.enumerate()}


def test_sites_do_not_share_their_counts(site: file_site.Site) -> None:
    with file_site.serve() as other:
        assert other.url != site.url
        file_site.get(other.url, "/")
    assert (site.counts.requests, other.counts.requests) == (0, 1)


@needs_posix_signals
def test_served_site_answers_nc_and_ends_at_ctrl_c() -> None:
    with (
        served(file_site) as (process, port),
        socket.create_connection((HOST, port), LIMIT) as nc,
        socket.create_connection((HOST, port), LIMIT) as idle,
        socket.create_connection((HOST, port), LIMIT) as kept,
    ):
        for portion in (b"GET /files/a?si", b"ze=5 HTTP/1.1\r\nHost: a\r\n", b"\r\n"):
            nc.sendall(portion)
        received = b""
        while not received.endswith(file_site.content("a", 5)):
            received += nc.recv(65_536)
        head = received.partition(b"\r\n\r\n")[0].decode()
        assert head.startswith("HTTP/1.1 200 OK\r\n")
        assert "Content-Length: 5" in head.split("\r\n")
        idle.sendall(b"no HTTP at all\r\n\r\n")
        assert b" 400 " in all_of(idle)
        kept.sendall(b"GET /status/404 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 404 " in kept.recv(65_536)
        kept.sendall(b"no HTTP at all\r\n\r\n")
        assert b" 400 " in all_of(kept)
        process.send_signal(signal.SIGINT)
        assert all_of(nc) == b""
        ends_in_order(process)


def test_site_with_a_bad_port(
    complaint: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refuses_bad_ports(file_site, complaint, monkeypatch)


# -- example04


def reason_for(raw: bytes, *, json: bool = False, timeout: Any = IN_TIME) -> str:
    """Return the reason why a request with the answer `raw` fails."""

    async def scenario() -> str:
        get = client.fetch_json if json else client.fetch
        async with answering(raw) as url, aiohttp.ClientSession() as session:
            with pytest.raises((aiohttp.ClientError, TimeoutError, ValueError)) as info:
                await get(session, url, timeout)
            return client.reason(info.value, timeout)

    return run(scenario())


OK = b"HTTP/1.1 200 OK\r\n"
JSON = OK + b"Content-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"HTTP/1.1 302 Found\r\nLocation: /file\r\n\r\n", "redirected without end"),
        (OK + b"Content-Length: 9\r\n\r\nshort", "body cut short"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nsh", "body cut short"),
        (b"", "Server disconnected"),
        (b"\x16\x03\x01 this is TLS\r\n\r\n", "no answer in HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "no answer in HTTP"),
        (OK + b"Content-Length: -1\r\n\r\n", "no answer in HTTP"),
    ],
    ids=["redirect", "length", "chunk", "nothing", "TLS", "garbled", "negative"],
)
def test_reason(raw: bytes, why: str) -> None:
    assert reason_for(raw) == why


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"HTTP/1.1 500 Oh\r\n\r\n", "status 500, Oh"),
        (OK + b"Content-Type: text/html\r\n\r\n{}", "not JSON but text/html"),
        (JSON + b"\r\n{1}", "Expecting property name"),
    ],
    ids=["status", "type", "content"],
)
def test_reason_why_it_is_no_json(raw: bytes, why: str) -> None:
    assert reason_for(raw, json=True).startswith(why)


def test_host_that_nobody_knows_is_named_as_such() -> None:
    class Nobody(aiohttp.abc.AbstractResolver):  # type: ignore[name-defined,misc]
        async def resolve(self, *_: object, **__: object) -> list[Any]:
            raise OSError(errno.ENOENT, "no such host")

        async def close(self) -> None:
            pass

    async def scenario() -> str:
        connector = aiohttp.TCPConnector(resolver=Nobody())
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(aiohttp.ClientError) as info:
                await client.fetch(session, "http://nobody.example/")
        return client.reason(info.value)

    assert run(scenario()) == "unknown host"


def test_answers_come_in_the_order_of_the_urls(site: file_site.Site) -> None:
    bad = f"{site.url}/truncated/a"
    urls = [f"{site.url}/files/{n}?size={n}&together=5" for n in range(5)]

    async def scenario() -> list[client.Page | Exception]:
        async with aiohttp.ClientSession() as session:
            return await client.fetch_all(session, [*urls[:2], bad, *urls[2:]])

    pages = run(scenario())
    error = pages.pop(2)
    assert isinstance(error, aiohttp.ClientPayloadError)
    bodies = [page.body for page in pages if isinstance(page, client.Page)]
    assert bodies == [file_site.content(str(n), n) for n in range(5)]


@pytest.mark.parametrize("host", ["a..b", ".example", 64 * "a"])
def test_host_that_cannot_be_one_harms_no_other_request(
    site: file_site.Site, host: str
) -> None:
    async def scenario() -> list[client.Page | Exception]:
        async with aiohttp.ClientSession() as session:
            urls = [f"http://{host}/", f"{site.url}/delay/0"]
            return await client.fetch_all(session, urls)

    error, page = run(scenario())
    assert isinstance(error, Exception)
    assert client.reason(error) == "not the URL of a web site"
    assert isinstance(page, client.Page)


def test_connector_sets_the_bound(site: file_site.Site) -> None:
    async def scenario() -> list[client.Page | Exception]:
        connector = aiohttp.TCPConnector(limit=3)
        async with aiohttp.ClientSession(connector=connector) as session:
            url = f"{site.url}/files/a?together=3"
            return await client.fetch_all(session, 12 * [url])

    pages = run(scenario())
    assert {getattr(page, "status", page) for page in pages} == {200}
    assert (site.counts.most, site.counts.connections) == (3, 3)


def test_cancelled_requests_are_given_up(site: file_site.Site) -> None:
    async def scenario() -> None:
        async with aiohttp.ClientSession() as session:
            urls = 3 * [f"{site.url}/delay/60"]
            asking = asyncio.create_task(client.fetch_all(session, urls))
            while site.counts.in_progress < 3:
                await asyncio.sleep(0.001)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()

    run(scenario())
    wait_until(lambda: not site.counts.in_progress)


def test_any_url_may_be_shown(
    site: file_site.Site, capsys: pytest.CaptureFixture[str]
) -> None:
    run(client.show(f"{site.url}/files/a?size=7"))
    first, *headers = capsys.readouterr().out.splitlines()
    assert first == "status 200, 7 bytes"
    assert "Content-Length: 7" in headers


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mailto:a@example.org", "not the URL of a web site"),
        ("http://", "not the URL of a web site"),
        (f"http://{HOST}:1/", "connection refused"),
    ],
)
def test_url_that_cannot_be_shown_is_named(
    url: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["script", "--url", url])
    with pytest.raises(SystemExit) as exit_:
        client.main()
    assert exit_.value.code == f"{url}: {why}"


# -- example05


def download(url: str, target: Path, *details: Any, **more: Any) -> None:
    """Download with a session of its own, in an event loop of its own."""

    async def scenario() -> None:
        async with aiohttp.ClientSession(timeout=IN_TIME) as session:
            await downloads.download(session, url, target, *details, **more)

    run(scenario())


def test_file_replaces_what_was_there(site: file_site.Site, folder: Path) -> None:
    target = folder / "a"
    target.write_bytes(OLD)
    pieces: list[int] = []
    size = 200_000
    download(
        f"{site.url}/files/a?size={size}",
        target,
        file_site.checksum("a", size).upper(),  # as some sites write it
        progress=pieces.append,
    )
    assert in_folder(folder) == {"a": file_site.content("a", size)}
    assert sum(pieces) == size
    assert max(pieces) <= downloads.PIECE


def test_nothing_is_a_file_too(site: file_site.Site, folder: Path) -> None:
    download(f"{site.url}/files/a?size=0", folder / "a", hashlib.sha256().hexdigest())
    assert in_folder(folder) == {"a": b""}


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", "status 204"),
        (b"HTTP/1.1 206 Partial\r\nContent-Length: 1\r\n\r\na", "status 206"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "status 404"),
        (OK + b"Content-Length: 9\r\n\r\nshort", "cut short"),
        (CHUNKED + b"\r\n5\r\nshort\r\n", "cut short"),
        (OK + b"Content-Length: 101\r\n\r\n" + 101 * b"a", "101 announced"),
        (
            CHUNKED + b"\r\n65\r\n" + 101 * b"a" + b"\r\n0\r\n\r\n",
            "more than 100 bytes",
        ),
        (OK + b"\r\n" + 101 * b"a", "more than 100 bytes"),
        (OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nab", "compressed"),
        (OK + b"Content-Length: 5\r\n\r\nother", "another checksum"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
@pytest.mark.parametrize("before", [OLD, None], ids=["replacing", "new"])
def test_failure_is_named_and_the_folder_is_as_before(
    raw: bytes, why: str, before: bytes | None, folder: Path
) -> None:
    target = folder / "a"
    if before is not None:
        target.write_bytes(before)
    checksum = hashlib.sha256(b"short").hexdigest()

    async def scenario() -> str:
        async with answering(raw) as url, aiohttp.ClientSession() as session:
            with pytest.raises(DownloadError) as info:
                await downloads.download(session, url, target, checksum, largest=100)
            return str(info.value).removeprefix(url)

    assert run(scenario()) == f": {why}"
    assert in_folder(folder) == ({} if before is None else {"a": before})


def test_largest_file_is_still_one(site: file_site.Site, folder: Path) -> None:
    download(f"{site.url}/files/a?size=100", folder / "a", largest=100)
    assert in_folder(folder) == {"a": file_site.content("a", 100)}


def test_file_that_cannot_be_written_is_an_os_error(
    site: file_site.Site, folder: Path
) -> None:
    url = f"{site.url}/files/a"
    (folder / "taken").mkdir()
    (folder / "taken" / "by").touch()
    for target in (folder / "none" / "a", folder / "taken"):
        with pytest.raises(OSError):  # noqa: PT011 (of which kind, the system says)
            download(url, target)
    assert [path.name for path in folder.iterdir()] == ["taken"]


def test_bug_of_the_caller_leaves_nothing(site: file_site.Site, folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        download(f"{site.url}/files/a", folder / "a", progress=lambda n: n // 0)
    assert in_folder(folder) == {}


@pytest.mark.parametrize("operation", ["open", "close"])
@pytest.mark.parametrize("cancels", [1, 3])
def test_cancel_while_the_disk_is_slow_leaves_nothing(
    operation: str,
    cancels: int,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached, go_on = threading.Event(), threading.Event()
    before = {"a": OLD}

    class Slow:
        """A file whose operation, in a thread, takes as long as the test says."""

        def __init__(self, path: Path) -> None:
            if operation == "open":
                self._wait()
            self._file = path.open("xb")

        def _wait(self) -> None:
            reached.set()
            assert go_on.wait(LIMIT)

        def write(self, data: bytes) -> int:
            return self._file.write(data)

        def close(self) -> None:
            if operation == "close":
                self._wait()
            self._file.close()

    class Threaded:
        def __init__(self, slow: Slow) -> None:
            self._slow = slow

        async def write(self, data: bytes) -> int:
            return await asyncio.to_thread(self._slow.write, data)

        async def close(self) -> None:
            await asyncio.to_thread(self._slow.close)

    async def open_slowly(path: Path, _: str) -> Threaded:
        return Threaded(await asyncio.to_thread(Slow, path))

    async def write() -> None:
        async with downloads.whole_file(folder / "a") as file:
            await file.write(b"new")

    async def scenario() -> None:
        writing = asyncio.create_task(write())
        while not reached.is_set():
            await asyncio.sleep(0.001)
        for _ in range(cancels):
            writing.cancel()
            await asyncio.sleep(0)
        assert not writing.done()  # it waits for the thread
        go_on.set()
        await asyncio.wait([writing])
        assert writing.cancelled()

    (folder / "a").write_bytes(OLD)
    monkeypatch.setattr("aiofiles.open", open_slowly)
    run(scenario())
    if operation == "close":  # all was written: by then the block had ended
        before = {"a": b"new"}
    assert in_folder(folder) == before


def test_cancel_at_any_moment_leaves_a_whole_file(
    site: file_site.Site, folder: Path
) -> None:
    size = 3 * downloads.PIECE
    target = folder / "a"
    outcomes: list[tuple[bool, dict[str, bytes]]] = []

    async def scenario() -> None:
        async with aiohttp.ClientSession(timeout=IN_TIME) as session:
            for delay in range(30):
                target.write_bytes(OLD)
                url = f"{site.url}/files/a?size={size}"
                task = asyncio.create_task(downloads.download(session, url, target))
                await asyncio.sleep(delay / 5000)
                task.cancel()
                await asyncio.wait([task])
                outcomes.append((task.cancelled(), in_folder(folder)))

    run(scenario())
    old, new = {"a": OLD}, {"a": file_site.content("a", size)}
    # Cancelled while it gets its name, it has it.
    assert all(
        files in (old, new) if cancelled else files == new
        for cancelled, files in outcomes
    )
    assert (True, old) in outcomes  # there was something to cancel


async def settled(task: "asyncio.Task[Any]") -> None:
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()


def test_to_the_end_means_what_it_says() -> None:
    async def scenario() -> None:
        release = asyncio.Event()
        notes = []

        async def work() -> str:
            await release.wait()
            notes.append("done")
            return "result"

        task = asyncio.create_task(downloads.to_the_end(work()))
        await settled(task)
        for _ in range(3):
            task.cancel()
            await settled(task)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert notes == ["done"]
        assert await downloads.to_the_end(work()) == "result"

    run(scenario())


def test_error_after_a_cancel_is_the_cause() -> None:
    async def scenario() -> None:
        async def fail() -> None:
            await asyncio.sleep(0)
            raise OSError("disk full")

        task = asyncio.create_task(downloads.to_the_end(fail()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as info:
            await task
        cause = info.value.__cause__ or info.value.__context__
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        assert str(cause) == "disk full"
        with pytest.raises(OSError, match="disk full"):
            await downloads.to_the_end(fail())

    run(scenario())


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", ".hidden", "../up", "a/b", "/etc/passwd", "a\\b", "C:", "c:a",
        "a\0b", "a\nb", "a ", " a", "a.", "con", "COM1.txt", "lpt9", "nul.tar.gz",
        "COM¹", "lpt².txt", "CONIN$", "conout$.bin", "con .txt", "nul  .tar.gz",
        "what?", "*", "<a>", "a|b", '"', 256 * "a", 128 * "é", "\ud800", "a\udc80",
    ],
    ids=ascii,
)  # fmt: skip
def test_name_that_is_none(name: str, folder: Path) -> None:
    with pytest.raises(DownloadError, match="not the name of a file") as info:
        downloads.file_in(folder, name)
    assert ascii(name)[1:-1] in ascii(str(info.value)).replace("\\\\", "\\")


@pytest.mark.parametrize(
    "name", ["a", "a.bin", "con1", "com", "lpt10", "Zoë", 255 * "a", "a b", "-rf"]
)
def test_name_of_a_file(name: str, folder: Path) -> None:
    assert downloads.file_in(folder, name) == folder / name


@given(st.text())
def test_any_name_stays_in_the_folder_or_is_refused(name: str) -> None:
    folder = Path("folder")
    try:
        path = downloads.file_in(folder, name)
    except DownloadError:
        return
    assert path.parent == folder
    assert path.name == name


@pytest.mark.parametrize(("n_files", "n_workers"), [(1, 1), (7, 1), (20, 5), (10, 10)])
def test_so_many_are_in_progress_at_a_time(
    site: file_site.Site, folder: Path, n_files: int, n_workers: int
) -> None:
    wanted = {
        str(n): Source(f"{site.url}/files/{n}?size={n}&together={n_workers}")
        for n in range(n_files)
    }

    async def scenario() -> dict[str, Exception]:
        async with aiohttp.ClientSession(timeout=IN_TIME) as session:
            return await downloads.download_all(session, wanted, folder, n_workers)

    assert run(scenario()) == {}
    assert in_folder(folder) == {
        str(n): file_site.content(str(n), n) for n in range(n_files)
    }
    assert site.counts.most == n_workers


def test_failures_are_named_and_the_others_completed(
    site: file_site.Site, folder: Path
) -> None:
    wrong = {
        "../up": Source(f"{site.url}/files/a"),
        "refused": Source(f"http://{HOST}:1/"),
        "malformed": Source("http://["),
        "no host": Source(f"http://{64 * 'a'}.example/"),
        "missing": Source(f"{site.url}/status/404"),
        "silent": Source(f"{site.url}/delay/60"),
        "altered": Source(f"{site.url}/files/a", 64 * "0"),
    }
    right = {str(n): Source(f"{site.url}/files/{n}") for n in range(7)}
    pairs = zip(wrong.items(), right.items(), strict=True)
    wanted = dict(itertools.chain.from_iterable(pairs))

    async def scenario() -> dict[str, Exception]:
        timeout = aiohttp.ClientTimeout(sock_read=0.2)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            return await downloads.download_all(session, wanted, folder, 2)

    failures = run(scenario())
    assert failures.keys() == wrong.keys()
    assert isinstance(failures["silent"], TimeoutError)
    assert isinstance(failures["refused"], aiohttp.ClientConnectorError)
    assert isinstance(failures["malformed"], aiohttp.InvalidURL)
    assert in_folder(folder).keys() == right.keys()


def test_bug_ends_it_all(site: file_site.Site, folder: Path) -> None:
    wanted = {
        "slow": Source(f"{site.url}/drip/a?pause=1"),
        "bug": Source(f"{site.url}/files/a", sha256=7),  # type: ignore[arg-type]
    }

    async def scenario() -> None:
        async with aiohttp.ClientSession(timeout=IN_TIME) as session:
            with pytest.raises(ExceptionGroup) as info:
                await downloads.download_all(session, wanted, folder, 2)
        assert [type(error) for error in info.value.exceptions] == [AttributeError]

    run(scenario())
    assert in_folder(folder) == {}


def test_bad_arguments(complaint: Callable[..., str], folder: Path) -> None:
    assert "not 0" in complaint(downloads, "--files", "0")
    assert "not 1001" in complaint(downloads, "--workers=1001", "--files=2000")
    assert "6 workers for 5" in complaint(downloads, "--workers=6", "--files=5")
    assert "no such folder" in complaint(downloads, "--output", str(folder / "none"))
    assert "not 0" in complaint(compared, "--at-a-time", "0")
    assert "not nan" in complaint(compared, "--delay", "nan")
    assert "too many" in complaint(compared, "--files=3", "--at-a-time=4")


# -- example06


@pytest.mark.parametrize("at_a_time", [1, 4, 120])
def test_all_ways_download_the_same(site: file_site.Site, at_a_time: int) -> None:
    n_files = max(8, at_a_time)
    urls = [f"{site.url}/files/{n}?together={at_a_time}" for n in range(n_files)]
    sums = {
        url: file_site.checksum(str(n), 1000) for n, url in enumerate(urls)
    }  # fmt: skip
    assert compared.in_threads(urls, at_a_time) == sums
    assert site.counts.most == at_a_time
    site.counts.most = 0
    assert run(compared.in_tasks(urls, at_a_time)) == sums
    assert site.counts.most == at_a_time
    assert compared.one_after_another(urls) == sums


def test_proxy_is_not_asked(
    site: file_site.Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://{HOST}:1")
    urls = [f"{site.url}/files/a"]
    expected = {urls[0]: file_site.checksum("a", 1000)}
    assert compared.one_after_another(urls) == expected
    assert compared.in_threads(urls, 1) == expected
    assert run(compared.in_tasks(urls, 1)) == expected


def test_failure_ends_the_downloads(site: file_site.Site) -> None:
    bad = f"{site.url}/status/500"
    many = [f"{site.url}/files/{n}?delay=0.01" for n in range(100)]
    with pytest.raises(requests.HTTPError, match="500"):
        compared.one_after_another([bad, *many])
    assert site.counts.requests == 1
    with pytest.raises(requests.HTTPError, match="500"):
        compared.in_threads([*many[:3], bad, *many[3:]], 2)
    with pytest.raises(ExceptionGroup) as info:
        run(compared.in_tasks([*many[:3], bad, *many[3:]], 2))
    (error,) = info.value.exceptions
    assert isinstance(error, aiohttp.ClientResponseError)
    assert error.status == 500
    assert site.counts.requests < 50  # of 205
    wait_until(lambda: not site.counts.in_progress)
