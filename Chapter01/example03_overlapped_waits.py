"""Ten waits for a slow server take ten times as long as one, or no longer than one.

Each answer of the server takes a tenth of a second, and the client has nothing to do
but wait: the work is I/O-bound. A waiting thread gives up the GIL, a waiting
coroutine gives control back to the event loop; either way the waits overlap, on a
single core, without anything being computed any faster. Threads let ordinary blocking
code wait; coroutines cost less when there are thousands of them, but all the code
that waits has to be `async`.

The server runs in this script, on a free port of the loopback interface.

Try:  --requests 100
Try:  --delay 0.5

Output:
    10 requests, each answered after 0.1 s
    one by one   1.03 s   1.00x
    threads      0.13 s   7.78x
    asyncio      0.14 s   7.26x
    overlapped waits take about as long as one
"""

import argparse
import asyncio
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

Address = tuple[str, int]

TIMEOUT = 10.0  # seconds


def ask(address: Address, question: str) -> str:
    """Send a line to the server at `address` and return the line it answers.

    Raises:
        ValueError: the question is more than one line.
        OSError: the server cannot be reached, or stays silent for TIMEOUT.
        ConnectionError: the server hung up before its answer was complete.
    """
    line = _one_line(question)
    with (
        socket.create_connection(address, timeout=TIMEOUT) as connection,
        connection.makefile("rw", encoding="utf-8", newline="\n") as lines,
    ):
        lines.write(line)
        lines.flush()
        return _complete(lines.readline())


async def ask_async(address: Address, question: str) -> str:
    """Like `ask`, but while it waits, other coroutines run.

    Raises:
        ValueError: the question is more than one line, or the answer is longer than
            64 KiB, the limit of `asyncio.StreamReader`.
        OSError: the server cannot be reached, or its answer takes longer than TIMEOUT.
        ConnectionError: the server hung up before its answer was complete.
    """
    line = _one_line(question).encode()
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(line)
            await writer.drain()
            return _complete((await reader.readline()).decode())
        finally:
            # close() would wait for a server that does not read what it was sent.
            writer.transport.abort()
            await writer.wait_closed()


def _one_line(question: str) -> str:
    if "\n" in question:
        raise ValueError(f"more than one line: {question!r}")
    return f"{question}\n"


def _complete(line: str) -> str:
    if not line.endswith("\n"):
        raise ConnectionError(f"the server hung up after {line!r}")
    return line[:-1]


def ask_one_by_one(address: Address, questions: Sequence[str]) -> list[str]:
    """Ask one question after the other; return the answers in order."""
    return [ask(address, question) for question in questions]


def ask_with_threads(address: Address, questions: Sequence[str]) -> list[str]:
    """Ask all at once, each question in a thread; return the answers in order."""
    with ThreadPoolExecutor(max_workers=max(1, len(questions))) as pool:
        return list(pool.map(lambda question: ask(address, question), questions))


async def ask_with_tasks(address: Address, questions: Sequence[str]) -> list[str]:
    """Ask all at once, each question in a task; return the answers in order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask_async(address, q)) for q in questions]
    return [task.result() for task in tasks]


@contextmanager
def slow_server(delay: float) -> Iterator[Address]:
    """Serve on the loopback: a line comes back in capitals, `delay` seconds later."""

    class Answer(socketserver.StreamRequestHandler):
        timeout = TIMEOUT  # of a client that says nothing

        def handle(self) -> None:
            with suppress(OSError):  # a client that has gone is not worth a word
                line = self.rfile.readline()
                time.sleep(delay)
                self.wfile.write(line.upper())

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 128  # all may knock at once

    server = Server(("127.0.0.1", 0), Answer)
    # A daemon, and started before the `try`: after Ctrl-C in the midst of start() there
    # may be nobody to shut down, or somebody who still needs the server open.
    serving = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    serving.start()
    try:
        yield "127.0.0.1", server.server_address[1]
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0.05 <= number < TIMEOUT:
        raise argparse.ArgumentTypeError(
            f"must be at least 0.05 and less than {TIMEOUT:g}, not {number:g}"
        )
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=positive, default=10)
    parser.add_argument("--delay", type=seconds, default=0.1)
    options = parser.parse_args()
    questions = [f"question {n}" for n in range(options.requests)]
    expected = [question.upper() for question in questions]

    print(f"{len(questions)} requests, each answered after {options.delay:g} s")
    with slow_server(options.delay) as address:
        taken = {}
        for name, ask_all in {
            "one by one": ask_one_by_one,
            "threads": ask_with_threads,
            "asyncio": lambda *args: asyncio.run(ask_with_tasks(*args)),
        }.items():
            began = time.perf_counter()
            answers = ask_all(address, questions)
            taken[name] = time.perf_counter() - began
            if answers != expected:
                raise SystemExit(f"{name}: wrong answers {answers}")
            ratio = taken["one by one"] / taken[name]
            print(f"{name:10} {taken[name]:6.2f} s {ratio:6.2f}x")

    all_waits = len(questions) * options.delay
    if len(questions) > 2 and max(taken["threads"], taken["asyncio"]) >= all_waits:
        raise SystemExit("the waits did not overlap")
    print("overlapped waits take about as long as one")


if __name__ == "__main__":
    main()
