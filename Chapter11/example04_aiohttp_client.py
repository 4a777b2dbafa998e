# /// script
# requires-python = ">=3.11"
# dependencies = ["aiohttp>=3.10.0"]
# ///
"""An HTTP client with aiohttp: one session, many requests at once, no thread.

A ClientSession keeps connections open and lends one to each request: five requests one
after the other need one connection, five at once need five, and a session for each
request makes all of them anew. So make one session, for as long as the program asks.

The answer comes in two steps, each of them awaited: status and headers first, then the
body. A status such as 404 is an answer like others, unless raise_for_status is asked
for. sock_read limits the silence before each portion, so that a drip goes on and on;
total limits it all, and its TimeoutError has no text. The reason why something failed
is the exception's type as often as its text: `reason` puts it into words.

Book: Chapter 11, example4.
Try:  --url https://www.python.org

Output:
    GET /files/a          200  application/octet-stream, 1000 bytes
    GET /delay/0          200  {'delay': 0.0}
    5, one after another  1 at a time on 1 connection
    5, a session each     1 at a time on 5 connections
    5 at once             5 at a time on 5 connections
    http://127.0.0.1:<port>/status/404: status 404, Not Found
    http://127.0.0.1:<port>/truncated/a: body cut short
    http://127.0.0.1:<port>/files/a: not JSON but application/octet-stream
    http://127.0.0.1:<port>/delay/60: nothing came for 0.05 s
    http://127.0.0.1:<port>/drip/a?pause=0.01: not complete within 0.1 s
    http://127.0.0.1:<port>/: connection refused
    file:/etc/passwd: not the URL of a web site
    7 failures, each in one line; the session goes on
"""

import argparse
import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import file_site

try:
    import aiohttp
except ModuleNotFoundError:  # there may be no wheel for a free-threaded build
    print("needs aiohttp: pip install aiohttp")
    raise SystemExit(77) from None

HOST = "127.0.0.1"
AT_ONCE = 5  # requests
SHORT = 0.05  # seconds
TIME_LIMIT = 20.0  # seconds for an answer, and for the whole demonstration
DEFAULT = aiohttp.ClientTimeout(total=TIME_LIMIT)


@dataclass(frozen=True, slots=True)
class Page:
    """An answer, complete."""

    status: int
    headers: Mapping[str, str]  # whatever the case of the names
    body: bytes


async def fetch(
    session: aiohttp.ClientSession, url: str, timeout: aiohttp.ClientTimeout = DEFAULT
) -> Page:
    """Return the answer for `url`, after redirects, whatever its status.

    Raises:
        aiohttp.ClientError: no answer, or only a part of it; or the URL is malformed.
        UnicodeError: the host's name is none, such as "a..b" (RFC 1035).
        TimeoutError: the answer was late.
    """
    # Without `async with`, the connection of a body not read would not be given back.
    async with session.get(url, timeout=timeout) as response:
        return Page(response.status, response.headers, await response.read())


async def fetch_json(
    session: aiohttp.ClientSession, url: str, timeout: aiohttp.ClientTimeout = DEFAULT
) -> Any:
    """Return what the JSON at `url` says.

    Raises:
        aiohttp.ClientResponseError: the status is 400 or more, or the body no JSON by
            its own account (ContentTypeError).
        ValueError: it is JSON by its own account only.
        aiohttp.ClientError, UnicodeError, TimeoutError: as `fetch`.
    """
    async with session.get(url, timeout=timeout) as response:
        response.raise_for_status()
        return await response.json()


async def fetch_all(
    session: aiohttp.ClientSession, urls: list[str]
) -> list[Page | Exception]:
    """Ask for all `urls` at once; return, in order, answers and what went wrong.

    The session's connector sets the bound: 100 connections, unless it is told another.
    """

    async def page_or_error(url: str) -> Page | Exception:
        try:
            return await fetch(session, url)
        except (aiohttp.ClientError, UnicodeError, TimeoutError) as error:
            return error  # raised, it would cancel the other requests

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(page_or_error(url)) for url in urls]
    return [task.result() for task in tasks]


def reason(error: Exception, timeout: aiohttp.ClientTimeout = DEFAULT) -> str:
    """Say in a few words why a request with this `timeout` failed."""
    match error:
        case aiohttp.ContentTypeError():
            kind = error.headers and error.headers.get("Content-Type")
            return f"not JSON but {kind or 'of no type'}"
        case aiohttp.TooManyRedirects():
            return "redirected without end"
        case aiohttp.ClientResponseError() if error.__cause__ is not None:
            return "no answer in HTTP"  # that its parser would take
        case aiohttp.ClientResponseError():
            return f"status {error.status}, {error.message}"
        case aiohttp.ClientPayloadError():
            return "body cut short"
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError() | UnicodeError():
            return "not the URL of a web site"
        case aiohttp.ClientConnectorDNSError():
            return "unknown host"
        case aiohttp.ClientConnectorError(os_error=ConnectionRefusedError()):
            return "connection refused"
        case aiohttp.SocketTimeoutError():
            return f"nothing came for {timeout.sock_read:g} s"
        case aiohttp.ConnectionTimeoutError():
            return "no connection in time"
        case TimeoutError():
            return f"not complete within {timeout.total:g} s"
    return str(error) or type(error).__name__


async def ask_five_times(site: file_site.Site) -> dict[str, tuple[int, int]]:
    """Ask in three ways; return for each the requests at a time and the connections."""
    counts = site.counts
    url = f"{site.url}/files/a"
    seen = {}

    async def note(name: str, asking: Callable[[], Awaitable[object]]) -> None:
        before, counts.most = counts.connections, 0
        await asking()
        seen[name] = counts.most, counts.connections - before

    async def one_after_another() -> None:
        async with aiohttp.ClientSession() as session:
            for _ in range(AT_ONCE):
                await fetch(session, url)

    async def session_each() -> None:
        for _ in range(AT_ONCE):
            async with aiohttp.ClientSession() as session:
                await fetch(session, url)

    async def at_once() -> None:
        async with aiohttp.ClientSession() as session:
            # The site answers none of them before all have asked.
            pages = await fetch_all(session, AT_ONCE * [f"{url}?together={AT_ONCE}"])
            if {getattr(page, "status", page) for page in pages} != {200}:
                raise SystemExit(f"five at once: {pages}")

    await note("5, one after another", one_after_another)
    await note("5, a session each", session_each)
    await note("5 at once", at_once)
    return seen


async def fail(
    session: aiohttp.ClientSession, url: str, refusing: str
) -> dict[str, str]:
    """Fail in many ways; return the reasons by URL."""
    silent = aiohttp.ClientTimeout(total=None, sock_read=SHORT)
    whole = aiohttp.ClientTimeout(total=2 * SHORT, sock_read=TIME_LIMIT)
    reasons = {}
    for get, path, timeout in (
        (fetch_json, f"{url}/status/404", DEFAULT),
        (fetch, f"{url}/truncated/a", DEFAULT),
        (fetch_json, f"{url}/files/a", DEFAULT),
        (fetch, f"{url}/delay/60", silent),
        (fetch, f"{url}/drip/a?pause=0.01", whole),
        (fetch, refusing, DEFAULT),
        (fetch, "file:/etc/passwd", DEFAULT),
    ):
        try:
            await get(session, path, timeout)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reasons[path] = reason(error, timeout)
    return reasons


async def demonstrate(site: file_site.Site) -> None:
    """Ask the site in all ways, and print what came."""
    async with asyncio.timeout(TIME_LIMIT), aiohttp.ClientSession() as session:
        page = await fetch(session, f"{site.url}/files/a?size=1000")
        if page.body != file_site.content("a", 1000):
            raise SystemExit("not the file that was asked for")
        kind = page.headers["content-type"]
        print(f"GET /files/a          {page.status}  {kind}, {len(page.body)} bytes")
        data = await fetch_json(session, f"{site.url}/delay/0")
        print(f"GET /delay/0          200  {data}")

        seen = await ask_five_times(site)
        for name, (most, connections) in seen.items():
            plural = "s" if connections > 1 else ""
            print(f"{name:20}  {most} at a time on {connections} connection{plural}")
        if list(seen.values()) != [(1, 1), (1, AT_ONCE), (AT_ONCE, AT_ONCE)]:
            raise SystemExit("other numbers than expected")

        with socket.socket() as closed:  # bound, so that nobody else listens there
            closed.bind((HOST, 0))
            refusing = f"http://{HOST}:{closed.getsockname()[1]}/"
            reasons = await fail(session, site.url, refusing)
        for url, why in reasons.items():
            print(f"{url}: {why}")
        if (await fetch(session, f"{site.url}/delay/0")).status != 200:
            raise SystemExit("the session was to go on")
    if [why.split()[0] for why in reasons.values()] != [
        "status", "body", "not", "nothing", "not", "connection", "not",
    ]:  # fmt: skip
        raise SystemExit("other failures than expected")
    print(f"{len(reasons)} failures, each in one line; the session goes on")


async def show(url: str) -> None:
    """Print status and headers of the answer for `url`, and the size of its body."""
    try:
        async with aiohttp.ClientSession() as session:
            page = await fetch(session, url)
    except (aiohttp.ClientError, UnicodeError, TimeoutError) as error:
        raise SystemExit(f"{url}: {reason(error)}") from None
    print(f"status {page.status}, {len(page.body)} bytes")
    for name, value in page.headers.items():
        print(f"{name}: {value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="ask for this one, and for nothing else")
    options = parser.parse_args()
    if options.url is not None:
        asyncio.run(show(options.url))
        return
    with file_site.serve() as site:
        asyncio.run(demonstrate(site))


if __name__ == "__main__":
    main()
