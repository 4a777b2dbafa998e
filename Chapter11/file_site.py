# /// script
# requires-python = ">=3.11"
# dependencies = ["aiohttp>=3.10.0"]
# ///
"""The web site that this chapter's clients ask: files, delays and lies, all local.

`/files/NAME?size=N` has N bytes that depend on the name alone, so that a client knows
the right checksum beforehand. Others answer late, with a status of choice, one byte at
a time, or hang up in the middle. The site has an event loop in a thread of its own and
counts requests, connections, and how many requests were in progress at a time.

A client that is to ask five times at once proves it with `?together=5`: no such request
is answered before the site has seen five in progress at a time.

Try:  --serve --port 8000

Output:
    /files/a?size=1000         200  1000 bytes, SHA-256 as announced
    /delay/0.05                200  after 0.06 s
    /status/404                404
    /truncated/a?size=1000     200  500 of 1000 bytes, then the end
    /drip/a?size=5&pause=0.02  200  5 bytes after 0.11 s
    two with ?together=2       200  neither before the other was there
    7 requests, 2 in progress at most, on 7 connections; nothing left
"""

import argparse
import asyncio
import base64
import hashlib
import http.client
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

try:
    import aiohttp.http
    import aiohttp.web
except ModuleNotFoundError:  # there may be no wheel for a free-threaded build
    print("needs aiohttp: pip install aiohttp")
    raise SystemExit(77) from None

HOST = "127.0.0.1"
LOG = logging.getLogger("file site")
LARGEST = 10_000_000  # bytes of a file
LONGEST = 60.0  # seconds of a delay
HELD = 20.0  # seconds at most that requests wait for one another
TIMEOUT = 30.0  # seconds that the demonstration waits for an answer
PAGE = """<!doctype html><title>file site</title><ul>
<li><a href="/files/a?size=1000">/files/NAME?size=N&amp;together=M</a>
<li><a href="/delay/0.5">/delay/SECONDS</a>
<li><a href="/status/404">/status/CODE</a>
<li><a href="/truncated/a?size=1000">/truncated/NAME?size=N</a>
<li><a href="/drip/a?size=50&amp;pause=0.1">/drip/NAME?size=N&amp;pause=SECONDS</a></ul>
"""


def _of_the_server(record: logging.LogRecord) -> bool:
    # What is no HTTP is the client's fault, and has been answered with status 400.
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, aiohttp.http.HttpProcessingError)


@dataclass(slots=True)
class Counts:
    """What a site has seen.

    Its own thread alone writes here, any thread may read. While nothing is in progress,
    a client may set `most` back to 0.

    Attributes:
        requests: whose handling has begun.
        in_progress: whose handling has begun and not ended. It ends before the last of
            the answer is sent: a client that has it all is counted no more.
        most: the highest number in progress so far.
        connections: accepted so far.
    """

    requests: int = 0
    in_progress: int = 0
    most: int = 0
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Site:
    """A running site: where it is, without a slash at the end, and what it has seen."""

    url: str
    counts: Counts


@dataclass(frozen=True, slots=True)
class _Handlers:
    """Answers requests; all in the thread of the site's event loop."""

    counts: Counts
    changed: asyncio.Event = field(default_factory=asyncio.Event)  # `most` has grown

    @aiohttp.web.middleware
    async def count(
        self,
        request: aiohttp.web.Request,
        handler: aiohttp.typedefs.Handler,
    ) -> aiohttp.web.StreamResponse:
        self.counts.requests += 1
        self.counts.in_progress += 1
        if self.counts.in_progress > self.counts.most:
            self.counts.most = self.counts.in_progress
            self.changed.set()
            self.changed.clear()  # who waits has been woken all the same
        try:
            return await handler(request)
        except ConnectionError:  # the client has gone, which is not worth a word
            return aiohttp.web.Response()
        finally:
            self.counts.in_progress -= 1

    async def index(self, _: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text=PAGE, content_type="text/html")

    async def file(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        """Answer with a file, after `delay` seconds, `together` with others."""
        body = _body(request)
        await asyncio.sleep(_number(request.query.get("delay", "0"), LONGEST))
        together = _number(request.query.get("together", "0"), 1000)
        try:
            async with asyncio.timeout(HELD):
                while self.counts.most < together:
                    await self.changed.wait()
        except TimeoutError:
            seen = f"{self.counts.most} at a time, not {together:g}"
            raise aiohttp.web.HTTPServiceUnavailable(text=seen) from None
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        return aiohttp.web.Response(
            body=body,
            content_type="application/octet-stream",
            headers={"Repr-Digest": f"sha-256=:{digest}:"},  # RFC 9530
        )

    async def delay(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        """Answer late, in JSON."""
        seconds = _number(request.match_info["seconds"], LONGEST)
        await asyncio.sleep(seconds)
        return aiohttp.web.json_response({"delay": seconds})

    async def status(self, request: aiohttp.web.Request) -> aiohttp.web.Response:
        code = int(request.match_info["code"])
        if not 200 <= code <= 599:
            raise aiohttp.web.HTTPBadRequest(text="a status from 200 to 599, please")
        return aiohttp.web.Response(status=code)

    async def truncated(
        self, request: aiohttp.web.Request
    ) -> aiohttp.web.StreamResponse:
        """Announce a file, send half of it, hang up."""
        body = _body(request)
        response = aiohttp.web.StreamResponse()
        response.content_length = len(body)
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if request.transport is not None:  # else the client has hung up before
            request.transport.close()  # when what is written is sent
        return response

    async def drip(self, request: aiohttp.web.Request) -> aiohttp.web.StreamResponse:
        """Send one byte, and pause, and so on; do not announce how many."""
        pause = _number(request.query.get("pause", "0.1"), LONGEST)
        response = aiohttp.web.StreamResponse()
        await response.prepare(request)
        for byte in _body(request):
            await asyncio.sleep(pause)
            await response.write(bytes([byte]))
        return response


def content(name: str, size: int) -> bytes:
    """Return the `size` bytes of the file `name`."""
    return hashlib.shake_128(name.encode()).digest(size)


def checksum(name: str, size: int) -> str:
    """Return the SHA-256 of `content(name, size)`, in hexadecimal digits."""
    return hashlib.sha256(content(name, size)).hexdigest()


def _number(text: str, largest: float) -> float:
    """Return the number that a request asks for.

    Raises:
        aiohttp.web.HTTPBadRequest: it is none, or not in 0 … `largest`.
    """
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= largest:
        raise aiohttp.web.HTTPBadRequest(text=f"a number in 0 … {largest:g}, please")
    return number


def _body(request: aiohttp.web.Request) -> bytes:
    size = int(_number(request.query.get("size", "1000"), LARGEST))
    return content(request.match_info["name"], size)


@asynccontextmanager
async def _serving(port: int, counts: Counts) -> AsyncIterator[int]:
    """Serve in this event loop; give the port."""
    handlers = _Handlers(counts)
    site = aiohttp.web.Application(middlewares=[handlers.count])
    site.router.add_get("/", handlers.index)
    site.router.add_get("/files/{name}", handlers.file)
    site.router.add_get("/delay/{seconds}", handlers.delay)
    site.router.add_get(r"/status/{code:\d{3}}", handlers.status)
    site.router.add_get("/truncated/{name}", handlers.truncated)
    site.router.add_get("/drip/{name}", handlers.drip)
    # A client that has hung up is not worked for, and at the end nobody is.
    LOG.addFilter(_of_the_server)
    runner = aiohttp.web.AppRunner(
        site,
        logger=LOG,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=0.01,
    )
    await runner.setup()
    try:
        make = runner.server
        assert make is not None

        def connected() -> asyncio.BaseProtocol:
            counts.connections += 1
            return make()

        # Not aiohttp's TCPSite: it does not tell who has connected.
        loop = asyncio.get_running_loop()
        server = await loop.create_server(connected, HOST, port)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
    finally:
        await runner.cleanup()


@contextmanager
def serve(port: int = 0) -> Iterator[Site]:
    """Serve on the loopback, on `port`, or for 0 on a free one.

    In the end, or at Ctrl-C, requests in progress are dropped.

    Raises:
        OSError: the port cannot be had.
    """
    counts = Counts()
    stop: Future[None] = Future()  # done when the site is to end
    serving: Future[int] = Future()  # the port

    async def run() -> None:
        async with _serving(port, counts) as number:
            serving.set_result(number)
            await asyncio.wrap_future(stop)

    def run_or_tell() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            if serving.done():
                raise
            serving.set_exception(error)

    # A daemon: Ctrl-C at an unlucky moment must not keep the interpreter from ending.
    thread = threading.Thread(target=run_or_tell, name="file site", daemon=True)
    try:
        thread.start()
        yield Site(f"http://{HOST}:{serving.result()}", counts)
    finally:
        stop.set_result(None)
        if thread.ident is not None:  # else Ctrl-C came before it had started
            thread.join()


def get(url: str, path: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    """Return status, body and headers, on a connection of its own.

    Raises:
        http.client.IncompleteRead: the body was shorter than announced.
        OSError: no answer.
    """
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=TIMEOUT)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def demonstrate(site: Site) -> None:
    """Ask for everything, and print what came."""
    path = "/files/a?size=1000"
    status, body, headers = get(site.url, path)
    announced = base64.b64decode(headers["Repr-Digest"].split(":")[1]).hex()
    if (body, announced) != (content("a", 1000), checksum("a", 1000)):
        raise SystemExit("not the file that was asked for")
    print(f"{path:25}  {status}  {len(body)} bytes, SHA-256 as announced")

    began = time.perf_counter()
    status = get(site.url, "/delay/0.05")[0]
    print(f"{'/delay/0.05':25}  {status}  after {time.perf_counter() - began:.2f} s")
    print(f"{'/status/404':25}  {get(site.url, '/status/404')[0]}")

    path = "/truncated/a?size=1000"
    try:
        get(site.url, path)
    except http.client.IncompleteRead as error:
        got, left = len(error.partial), error.expected or 0
        print(f"{path:25}  200  {got} of {got + left} bytes, then the end")
    else:
        raise SystemExit("a truncated file was complete")

    path = "/drip/a?size=5&pause=0.02"
    began = time.perf_counter()
    status, body, _ = get(site.url, path)
    took = time.perf_counter() - began
    print(f"{path:25}  {status}  {len(body)} bytes after {took:.2f} s")

    with ThreadPoolExecutor(2) as pool:
        path = "/files/a?together=2"
        both = [pool.submit(get, site.url, path).result for _ in range(2)]
        if [answer()[0] for answer in both] != [200, 200]:
            raise SystemExit("two requests were to be in progress at a time")
    print(f"{'two with ?together=2':25}  200  neither before the other was there")


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be in 0 … 65535, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="until Ctrl-C")
    parser.add_argument("--port", type=port, default=0, help="of --serve; 0: any free")
    options = parser.parse_args()
    if options.port and not options.serve:
        parser.error("--port goes with --serve")

    try:
        with serve(options.port) as site:
            if options.serve:
                number = site.url.rpartition(":")[2]
                print(f"serving on {HOST} port {number} until Ctrl-C", flush=True)
                while True:
                    time.sleep(1)  # Ctrl-C interrupts it, also on Windows
            demonstrate(site)
    except KeyboardInterrupt:
        if options.serve:
            return
        raise
    except OSError as error:
        raise SystemExit(f"port {options.port}: {error}") from None

    counts = site.counts
    if threading.active_count() > 1 or counts.in_progress:
        raise SystemExit(f"still there: {threading.enumerate()}, {counts}")
    if (counts.requests, counts.most) != (7, 2):
        raise SystemExit(f"7 requests, 2 at a time, were to be counted: {counts}")
    print(
        f"{counts.requests} requests, {counts.most} in progress at most, "
        f"on {counts.connections} connections; nothing left"
    )


if __name__ == "__main__":
    main()
