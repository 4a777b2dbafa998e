"""HTTP/1.1 on the reactor, and on five other servers.

A request posts integers, and its answer is their sum. All answer by the same
`Calculator`; the peers have no framework above them. All parse the whole request, with
the fields that a browser's program would send, and add a date and a length.

gunicorn has one worker, of the kind that keeps connections; it and waitress have as
many threads as each other. uvicorn has its quick parts: httptools and uvloop.

Try:  --quick
"""

import http.server
import logging
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "Chapter18"))

from comparing import Comparison, compare
from example02_calculator import Calculator
from measuring import BACKLOG, CHAPTER, Load, Server, Talk

PATH = "/sum"
TYPE = "text/plain; charset=utf-8"
THREADS = 4
MOST = 20_000  # connections, where a server wants a limit
KEEP_ALIVE = 60  # seconds; uvicorn and gunicorn close sooner, while others connect

REQUEST = (
    b"POST /sum HTTP/1.1\r\n"
    b"Host: localhost:8000\r\n"
    b"User-Agent: benchmark/1.0\r\n"
    b"Accept: */*\r\n"
    b"Content-Type: text/plain\r\n"
    b"Content-Length: 11\r\n"
    b"\r\n"
    b"12,345,6789"
)
ANSWER = (
    rb"HTTP/1\.1 200 OK\r\n"
    rb"(?=(?:[^\r\n]+\r\n)*(?i:Content-Length): 5\r\n)"
    rb"(?=(?:[^\r\n]+\r\n)*(?i:Date): [^\r\n]{29}\r\n)"
    rb"(?:[^\r\n]+\r\n)+\r\n7146\n"
)
LOADS = [
    Load(connections, depth) for depth in (1, 16) for connections in (1, 50, 500, 2000)
]


def total(body: bytes) -> bytes:
    return Calculator().answer(body)


# -- asyncio


def serve_aiohttp(listener: socket.socket) -> None:
    from aiohttp import web

    async def post(request: web.Request) -> web.Response:
        body = total(await request.read())
        return web.Response(body=body, headers={"Content-Type": TYPE})

    app = web.Application()
    app.router.add_post(PATH, post)
    web.run_app(app, sock=listener, backlog=BACKLOG, print=None, access_log=None)


async def asgi_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer one request, as ASGI 3 says."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    found = (scope["method"], scope["path"]) == ("POST", PATH)
    text = total(body) if found else b"not found\n"
    headers = [
        (b"content-type", TYPE.encode()),
        (b"content-length", b"%d" % len(text)),
    ]
    status = 200 if found else 404
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})


def serve_uvicorn(listener: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(
        asgi_app,
        http="httptools",
        loop="uvloop",
        lifespan="off",
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE,
        log_level="error",
        access_log=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


# -- threads


def wsgi_app(
    environ: dict[str, Any], start_response: Callable[..., object]
) -> Iterable[bytes]:
    """Answer one request, as PEP 3333 says."""
    found = (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("POST", PATH)
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0))
    text = total(body) if found else b"not found\n"
    headers = [("Content-Type", TYPE), ("Content-Length", str(len(text)))]
    start_response("200 OK" if found else "404 Not Found", headers)
    return [text]


def serve_gunicorn(listener: socket.socket) -> None:
    from gunicorn.app import wsgiapp

    sys.argv = [
        "gunicorn",
        f"{Path(__file__).stem}:{wsgi_app.__name__}",
        f"--bind=fd://{listener.detach()}",
        "--workers=1",
        "--worker-class=gthread",
        f"--threads={THREADS}",
        f"--worker-connections={MOST}",
        f"--keep-alive={KEEP_ALIVE}",
        f"--backlog={BACKLOG}",
        "--log-level=error",
        "--no-control-socket",
    ]
    wsgiapp.run()


def serve_waitress(listener: socket.socket) -> None:
    import waitress

    # Otherwise it tells of each request that has to wait for a thread.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    waitress.serve(
        wsgi_app,
        sockets=[listener],
        threads=THREADS,
        connection_limit=MOST,
        backlog=BACKLOG,
        asyncore_use_poll=True,  # select takes no descriptor above 1,023
    )


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        found = self.path == PATH
        text = total(body) if found else b"not found\n"
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", TYPE)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing; the others say nothing, either."""


def serve_standard_library(listener: socket.socket) -> None:
    server = http.server.ThreadingHTTPServer(
        listener.getsockname(), Handler, bind_and_activate=False
    )
    server.socket.close()
    server.socket = listener
    server.serve_forever()


PEERS = {
    "aiohttp": serve_aiohttp,
    "uvicorn, httptools, uvloop": serve_uvicorn,
    "gunicorn": serve_gunicorn,
    "waitress": serve_waitress,
    "http.server": serve_standard_library,
}
NEEDS = {
    "aiohttp": ["aiohttp"],
    "uvicorn, httptools, uvloop": ["uvicorn", "httptools", "uvloop"],
    "gunicorn": ["gunicorn"],
    "waitress": ["waitress"],
}
SERVERS = [
    Server("reactor", [str(CHAPTER / "http_server.py"), "--serve"]),
    *(Server(name, [__file__, "--serve", name], NEEDS.get(name, ())) for name in PEERS),
]


def main() -> None:
    talk = Talk(REQUEST, ANSWER)
    compare(
        Comparison("http", talk, SERVERS, "aiohttp", LOADS, PEERS),
        __doc__.partition("\n")[0],
    )


if __name__ == "__main__":
    main()
