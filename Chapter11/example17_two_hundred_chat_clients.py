"""Two hundred clients chat; and one that never reads is cut off, unnoticed by others.

The server is that of example10. Every message has to reach every other client exactly
once, and in the order in which its sender sent it: that is some 80,000 lines, checked
one by one. All are sent at the same time. The server gathers what a client is to hear
in a turn of the event loop, and writes it at once, so that it takes far fewer writes
than lines.

Then one client does not read, while two others go on talking, one line at a time: the
next is said when the last has been heard. So each line shows that the slow one holds up
nobody. Its lines pile up in the server, up to the limit; then it is cut off.

Try:  --clients 20 --messages 20

Output:
    200 clients, 2 messages each, 79600 lines heard:
      each by each other client, once, in the sender's order
      233 ms at most from the sender to the last who heard it
    one does not read, two go on talking:
      cut off with 64.6 KiB waiting for it
      each line was heard by the other before the next was said,
      0.7 ms later at most
    the slow one alone pays for being slow
"""

import argparse
import asyncio
import socket
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from example10_chat_server import BUFFER_LIMIT, HOST, LINE_LIMIT, ChatServer, Client

T = TypeVar("T")

CLIENTS, MESSAGES = 200, 2
TIME_LIMIT = 20.0  # seconds for each part
KERNEL_BUFFER = 16_384  # bytes, so that little fits between server and client


@dataclass(frozen=True, slots=True)
class Heard:
    """What one client has heard: the numbers of the messages, by sender, in order."""

    name: str
    messages: dict[str, list[int]]
    worst: float  # seconds from the sender to here


async def chat(
    port: int, n_messages: int, n_clients: int, all_here: asyncio.Barrier
) -> Heard:
    """Send messages when all are there; hear those of all others."""
    heard: dict[str, list[int]] = defaultdict(list)
    worst = 0.0
    async with Client(port) as client:
        await all_here.wait()
        for number in range(n_messages):
            client.writer.write(f"{number} {time.perf_counter()}\n".encode())
        missing = n_messages * (n_clients - 1)
        last = f"* {n_clients} here:"
        rest = ""
        while not rest.startswith(last):  # the beginning of the answer to /who
            data = await client.reader.read(2**16)
            if not data:
                raise ConnectionAbortedError(f"{client.name}: the server has hung up")
            now = time.perf_counter()
            *lines, rest = (rest + data.decode()).split("\n")
            for line in lines:
                if line.startswith("<"):
                    sender, number_, sent = line[1:].split()
                    heard[sender[:-1]].append(int(number_))
                    worst = max(worst, now - float(sent))
                    missing -= 1
                    if not missing:  # one too many comes before the answer to this
                        client.writer.write(b"/who\n")
                elif line.startswith(last):
                    rest = line
        await all_here.wait()  # nobody leaves before
    return Heard(client.name, heard, worst)


async def chat_together(n_clients: int, n_messages: int) -> list[Heard]:
    """Let all clients chat at the same time; return what each has heard."""
    all_here = asyncio.Barrier(n_clients)
    async with ChatServer() as server, asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(chat(server.port, n_messages, n_clients, all_here))
            for _ in range(n_clients)
        ]
    return [task.result() for task in tasks]


async def one_does_not_read() -> tuple[float, int]:
    """Let one say a line and another hear it, in turn, until a third is cut off.

    Returns:
        The longest time from saying a line to hearing it, in seconds; and how many
        bytes waited for the third when it was cut off.
    """
    loop = asyncio.get_running_loop()
    async with (
        ChatServer() as server,
        Client(server.port) as talker,
        Client(server.port) as listener,
    ):
        await talker.line()  # the listener has joined
        with socket.socket() as slow:
            slow.setblocking(False)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
            await loop.sock_connect(slow, (HOST, server.port))
            name = (await listener.line()).split()[1]
            worst = 0.0
            for number in count():
                text = f"{number} {'x' * 900}"
                began = time.perf_counter()
                talker.writer.write(f"{text}\n".encode())
                line = await listener.line()
                if line == f"* {name} does not read, and was cut off":
                    line = await listener.line()
                if line != f"<{talker.name}> {text}":
                    raise SystemExit(f"not heard in its turn: {line[:40]}")
                worst = max(worst, time.perf_counter() - began)
                if server.overruns:
                    break
            return worst, server.overruns[0]


def allow_descriptors(wanted: int) -> None:
    """Raise the limit of files that this process may have open, where there is one."""
    try:
        import resource
    except ImportError:  # on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


async def within_limit(part: Callable[..., Awaitable[T]], *arguments: int) -> T:
    async with asyncio.timeout(TIME_LIMIT):
        return await part(*arguments)


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 500:
        raise argparse.ArgumentTypeError(f"must be in 2 … 500, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=some, default=CLIENTS)
    parser.add_argument("--messages", type=some, default=MESSAGES)
    options = parser.parse_args()
    n_clients, n_messages = options.clients, options.messages
    allow_descriptors(2 * n_clients + 50)
    # Debug mode keeps the stack of each of very many calls, and takes seconds for it.
    chatting = within_limit(chat_together, n_clients, n_messages)
    everybody = asyncio.run(chatting, debug=False)
    names = {one.name for one in everybody}
    in_order = list(range(n_messages))
    for one in everybody:
        if one.messages != dict.fromkeys(names - {one.name}, in_order):
            raise SystemExit(f"{one.name} did not hear each once and in order")
    total = n_messages * n_clients * (n_clients - 1)
    longest = 1000 * max(one.worst for one in everybody)
    print(f"{n_clients} clients, {n_messages} messages each, {total} lines heard:")
    print("  each by each other client, once, in the sender's order")
    print(f"  {longest:.0f} ms at most from the sender to the last who heard it")

    worst, waiting = asyncio.run(within_limit(one_does_not_read))
    print("one does not read, two go on talking:")
    print(f"  cut off with {waiting / 1024:.1f} KiB waiting for it")
    print("  each line was heard by the other before the next was said,")
    print(f"  {1000 * worst:.1f} ms later at most")
    if not BUFFER_LIMIT < waiting < BUFFER_LIMIT + 2 * LINE_LIMIT:
        raise SystemExit(f"cut off with {waiting} bytes waiting, not at the limit")

    print("the slow one alone pays for being slow")


if __name__ == "__main__":
    main()
