# /// script
# requires-python = ">=3.11"
# dependencies = ["aiohttp>=3.10.0"]
# ///
"""A WebSocket: messages both ways over one connection, and the server may speak first.

It begins as an HTTP request and goes on in frames, so that a message arrives whole or
not at all, text as text and bytes as bytes. Each side may close, with a code that says
why, and the other answers; a connection that just ends is closed with 1006.

Who has vanished without a word (a laptop asleep, a cable pulled) looks like one who
has nothing to say. heartbeat sends pings, and who answers none is dead. aiohttp's
client answers them while it receives, so one that never receives counts as dead. If
there is something for it besides, the server would wait until that has been read:
so sending has a time limit, and closing such a connection throws away what is unsent.

The hub publishes to all. Each subscriber has a bounded queue and a task that sends: one
whose queue is full is cut off, and the others do not wait for it.

Any page may open a WebSocket to any site: the server has to look at the Origin itself.

Try:  --serve --port 8000

Output:
    echo              5 messages, each as it was sent
    ping              a pong with the same payload
    feed              3 subscribers got both messages
    slow subscriber   cut off; the other got all messages
    page from afar    status 403
    client closes     4001
    message too long  1009
    client cancelled  1000
    server ends       1001
    no pong           1006
    never reads       1006
    6 ends, 5 codes
"""

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from urllib.parse import urlsplit

try:
    import aiohttp.http
    import aiohttp.web
except ModuleNotFoundError:  # there may be no wheel for a free-threaded build
    print("needs aiohttp: pip install aiohttp")
    raise SystemExit(77) from None

HOST = "127.0.0.1"
LOG = logging.getLogger("WebSocket server")
LARGEST = 65_536  # bytes; a message must be shorter
HEARTBEAT = 20.0  # seconds from ping to ping; half of it is time enough for the pong
ABNORMAL = 1006  # the code of a WebSocket that has ended without being closed
PATIENCE = 1.0  # seconds that a client has to answer a close
SHORT = 0.05  # seconds, in place of HEARTBEAT
BACKLOG = 100  # messages that a subscriber may be behind
TIME_LIMIT = 20.0  # seconds for the whole demonstration
PAGE = """<!doctype html><title>WebSocket</title>
<form><input name=text autofocus> <button>to all</button></form><pre></pre><script>
const socket = new WebSocket(`ws://${location.host}/feed`)
const show = text => document.querySelector("pre").textContent += text + "\\n"
socket.onopen = () => show("open; in how many tabs?")
socket.onmessage = event => show(event.data)
socket.onclose = event => show(`closed: ${event.code} ${event.reason}`)
document.forms[0].onsubmit = event => {
  event.preventDefault()
  socket.send(event.target.text.value)
  event.target.reset()
}
</script>
"""


def _of_the_server(record: logging.LogRecord) -> bool:
    # What is no HTTP is the client's fault, and has been answered with status 400.
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, aiohttp.http.HttpProcessingError)


class Hub:
    """Hands each message to all subscribers, and waits for none of them.

    Args:
        backlog: messages that a subscriber may be behind.
    """

    def __init__(self, backlog: int = BACKLOG) -> None:
        self._backlog = backlog
        # What each has not taken yet, and how to cut it off.
        self._queues: dict[asyncio.Queue[str], Callable[[], object]] = {}

    def __len__(self) -> int:
        """Return the number of subscribers."""
        return len(self._queues)

    def publish(self, message: str) -> None:
        """Put `message` into all queues; cut off those that have no room for it."""
        for queue, cut_off in list(self._queues.items()):
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                del self._queues[queue]
                cut_off()

    @contextmanager
    def subscribed(self, cut_off: Callable[[], object]) -> Iterator[asyncio.Queue[str]]:
        """Give the queue of a new subscriber, which is one until the block ends."""
        queue: asyncio.Queue[str] = asyncio.Queue(self._backlog)
        self._queues[queue] = cut_off
        try:
            yield queue
        finally:
            self._queues.pop(queue, None)


def from_elsewhere(request: aiohttp.web.Request) -> bool:
    """Tell whether a page of another site asks, with this visitor's cookies."""
    origin = request.headers.get("Origin")  # which only browsers send
    try:
        return origin is not None and urlsplit(origin).netloc != request.host
    except ValueError:  # "http://[", say
        return True


def transport_of(request: aiohttp.web.Request) -> asyncio.Transport:
    """Return the connection on which `request` came.

    Raises:
        ConnectionResetError: it is gone.
    """
    if request.transport is None:
        raise ConnectionResetError("gone before it was answered")
    return request.transport


class Sockets:
    """Answers at /echo, and publishes at /feed what any subscriber sends.

    Args:
        heartbeat: seconds from ping to ping, and for sending an answer.
        on_closed: called with the code of each WebSocket that has ended.
    """

    def __init__(
        self,
        heartbeat: float = HEARTBEAT,
        on_closed: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.hub = Hub()
        self._heartbeat = heartbeat
        self._on_closed = on_closed
        # How to cut off each that is open.
        self._open: dict[aiohttp.web.WebSocketResponse, Callable[[], object]] = {}

    @asynccontextmanager
    async def _opened(
        self, request: aiohttp.web.Request
    ) -> AsyncIterator[aiohttp.web.WebSocketResponse]:
        if from_elsewhere(request):
            raise aiohttp.web.HTTPForbidden
        transport = transport_of(request)
        ws = aiohttp.web.WebSocketResponse(
            heartbeat=self._heartbeat, max_msg_size=LARGEST, timeout=PATIENCE
        )
        await ws.prepare(request)
        self._open[ws] = transport.abort
        try:
            yield ws
        finally:
            del self._open[ws]
            code = ABNORMAL if ws.close_code is None else ws.close_code
            if code == ABNORMAL:
                transport.abort()  # close() would wait until all is sent
            self._on_closed(code)

    async def echo(self, request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        """Send each message back."""
        async with self._opened(request) as ws:
            with suppress(OSError):  # vanished, or it does not read: TimeoutError
                async for message in ws:  # until either side closes
                    async with asyncio.timeout(self._heartbeat):
                        if message.type is aiohttp.WSMsgType.TEXT:
                            await ws.send_str(message.data)
                        elif message.type is aiohttp.WSMsgType.BINARY:
                            await ws.send_bytes(message.data)
        return ws

    async def feed(self, request: aiohttp.web.Request) -> aiohttp.web.WebSocketResponse:
        """Publish what comes, and send what is published."""

        async def send() -> None:
            with suppress(ConnectionError):
                while True:
                    await ws.send_str(await queue.get())

        # Subscribed first: who is connected misses nothing.
        with self.hub.subscribed(transport_of(request).abort) as queue:
            async with self._opened(request) as ws, asyncio.TaskGroup() as group:
                sending = group.create_task(send())
                async for message in ws:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        self.hub.publish(message.data)
                sending.cancel()
        return ws

    async def page(self, _: aiohttp.web.Request) -> aiohttp.web.Response:
        """Return a page to try it in a browser."""
        return aiohttp.web.Response(text=PAGE, content_type="text/html")

    async def close_all(self, _: aiohttp.web.Application) -> None:
        """Tell all that the server is going away, and cut off who does not listen."""

        async def close(
            ws: aiohttp.web.WebSocketResponse, cut_off: Callable[[], object]
        ) -> None:
            try:
                async with asyncio.timeout(PATIENCE):
                    await ws.close(code=aiohttp.WSCloseCode.GOING_AWAY)
            except TimeoutError:  # it has not read what was sent before
                cut_off()

        async with asyncio.TaskGroup() as group:
            for ws, cut_off in self._open.items():
                group.create_task(close(ws, cut_off))


@asynccontextmanager
async def listening(sockets: Sockets, port: int = 0) -> AsyncIterator[int]:
    """Serve on `port`, or for 0 on a free one, which is given.

    Raises:
        OSError: the port cannot be had.
    """
    site = aiohttp.web.Application()
    site.router.add_get("/", sockets.page)
    site.router.add_get("/echo", sockets.echo)
    site.router.add_get("/feed", sockets.feed)
    site.on_shutdown.append(sockets.close_all)
    LOG.addFilter(_of_the_server)
    runner = aiohttp.web.AppRunner(
        site, logger=LOG, access_log=None, shutdown_timeout=1
    )
    await runner.setup()
    try:
        await aiohttp.web.TCPSite(runner, HOST, port).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def talk(session: aiohttp.ClientSession, url: str) -> None:
    """Send messages of all kinds, one after another, and only then receive."""
    messages: list[str | bytes] = ["one", "two", "", b"\0\xff", (LARGEST - 1) * "x"]
    async with session.ws_connect(f"{url}/echo") as ws:
        for sent in messages:
            await (ws.send_str(sent) if isinstance(sent, str) else ws.send_bytes(sent))
        echoes = [(await ws.receive()).data for _ in messages]
    if echoes != messages:
        raise SystemExit(f"not the messages that were sent: {echoes}")
    print(f"echo              {len(messages)} messages, each as it was sent")

    async with session.ws_connect(f"{url}/echo", autoping=False) as ws:
        await ws.ping(b"there?")
        pong = await ws.receive()
    if (pong.type, pong.data) != (aiohttp.WSMsgType.PONG, b"there?"):
        raise SystemExit(f"not the pong: {pong}")
    print("ping              a pong with the same payload")


async def subscribe(session: aiohttp.ClientSession, url: str, hub: Hub) -> None:
    """Let three subscribe; then a slow one, without a network."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(session.ws_connect(f"{url}/feed"))
            for _ in range(3)
        ]
        hub.publish("from the server")
        await clients[0].send_str("from one of you")
        for client in clients:
            got = await client.receive_str(), await client.receive_str()
            if got != ("from the server", "from one of you"):
                raise SystemExit(f"not what was published: {got}")
    print(f"feed              {len(clients)} subscribers got both messages")

    small, cut_off = Hub(backlog=2), asyncio.Event()
    with small.subscribed(cut_off.set), small.subscribed(cut_off.set) as queue:
        taken = []
        for message in "abc":
            small.publish(message)
            taken.append(queue.get_nowait())
        if not cut_off.is_set() or taken != list("abc") or len(small) != 1:
            raise SystemExit("the slow subscriber, and it alone, was to be cut off")
    print("slow subscriber   cut off; the other got all messages")


async def part(session: aiohttp.ClientSession) -> dict[str, int]:
    """End WebSockets in all ways; return the codes with which they ended."""
    codes: asyncio.Queue[int] = asyncio.Queue()
    ended = {}

    sockets = Sockets(on_closed=codes.put_nowait)
    async with listening(sockets) as port:
        url = f"http://{HOST}:{port}"
        async with session.ws_connect(f"{url}/echo") as ws:
            await ws.close(code=4001)  # from 4000 on, the application gives a meaning
        ended["client closes"] = await codes.get()

        async with session.ws_connect(f"{url}/echo") as ws:
            await ws.send_bytes(bytes(LARGEST + 1))
            too_long = await ws.receive()
        await codes.get()
        ended["message too long"] = too_long.data

        connected = asyncio.Event()

        async def receive() -> None:
            async with session.ws_connect(f"{url}/feed") as ws:
                connected.set()
                await ws.receive()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(receive())
            await connected.wait()
            task.cancel()
            ended["client cancelled"] = await codes.get()
        if len(sockets.hub):
            raise SystemExit("a cancelled client was to be no subscriber any more")
        last = await session.ws_connect(f"{url}/feed")
        leaving = asyncio.create_task(last.receive())
    ended["server ends"] = (await leaving).data

    await codes.get()
    async with listening(Sockets(SHORT, codes.put_nowait)) as port:
        url = f"http://{HOST}:{port}/echo"
        async with session.ws_connect(url):  # never receives
            ended["no pong"] = await codes.get()
        async with session.ws_connect(url) as ws:
            with suppress(ConnectionError):
                while True:  # until it is cut off
                    await ws.send_bytes(bytes(LARGEST - 1))
            ended["never reads"] = await codes.get()
    return ended


async def demonstrate() -> None:
    """Do it all, and print what came of it."""
    sockets = Sockets()
    async with asyncio.timeout(TIME_LIMIT), aiohttp.ClientSession() as session:
        async with listening(sockets) as port:
            url = f"http://{HOST}:{port}"
            await talk(session, url)
            await subscribe(session, url, sockets.hub)
            try:
                await session.ws_connect(url + "/feed", origin="http://other.example")
            except aiohttp.WSServerHandshakeError as error:
                print(f"page from afar    status {error.status}")
            else:
                raise SystemExit("a page of another site was let in")
        ended = await part(session)
    for way, code in ended.items():
        print(f"{way:16}  {code}")
    if list(ended.values()) != [4001, 1009, 1000, 1001, 1006, 1006]:
        raise SystemExit("other codes than expected")
    print(f"{len(ended)} ends, {len(set(ended.values()))} codes")


async def serve(port: int) -> None:
    """Serve until cancelled."""
    async with listening(Sockets(), port) as number:
        print(f"serving on {HOST} port {number} until Ctrl-C", flush=True)
        await asyncio.Event().wait()


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
    if options.serve:
        try:
            asyncio.run(serve(options.port))
        except KeyboardInterrupt:
            return  # by now all is closed
        except OSError as error:
            raise SystemExit(f"port {options.port}: {error}") from None
    asyncio.run(demonstrate())


if __name__ == "__main__":
    main()
