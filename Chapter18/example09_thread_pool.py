"""The calculator with a pool of threads: their number is fixed, and so is the queue.

The threads are started once, and each takes the next client from a queue as soon as it
is rid of the last one. No client costs a thread's start, and no crowd more threads than
there are; who finds the queue full is told so. That suits short conversations, such as
one request each, with a database behind that bears no more users than threads.

For long ones it is the wrong model. A thread belongs to its client to the end, also
while that says nothing: as many silent clients as threads, and nobody else is served,
however idle the processor. All that helps are deadlines, which bound how long. Both is
shown here. The mend is another division of labour: let a selector wait for all, and
hand a thread one request at a time, not a client. Then the silent cost no thread; see
example07, and `run_in_executor` of asyncio.

`concurrent.futures.ThreadPoolExecutor` is such a pool, but its queue has no bound.

Try:  --threads 1
Try:  --serve --port 8000

Output:
    threads              32
    silent clients       32, greeted
    the next              2, not greeted
    one more               error: the server is busy
    one says quit          the next is greeted: calculator: sum
    with a deadline        the silent: error: nothing has come
    after 0.41 s           the next is answered: 3
"""

import argparse
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from queue import SimpleQueue

from blocking_server import BlockingServer
from example01_echo_blocking import listen_or_exit, options_of
from example07_calculator_on_the_reactor import (
    BACKLOG,
    listen,
    serve_until_signal,
)
from example08_thread_per_connection import Caller, serving
from reactor import Limits

LIMITS = Limits()
WAITING = 100  # clients in the queue at most, of --serve
MOST = 100  # threads; the demonstration has a client for each, and some more
SHORT = 0.2  # seconds in which a client has to begin a request, where that matters


class ThreadPool(BlockingServer):
    """Serves each client by one of `n_threads` threads.

    Args:
        listener: is closed in the end.
        waiting: how many clients at most wait for a thread.
        limits: `connections` has no meaning here.

    Raises:
        ValueError: `n_threads` or `waiting` is less than 1.
    """

    def __init__(
        self,
        listener: socket.socket,
        n_threads: int,
        waiting: int = WAITING,
        limits: Limits = LIMITS,
    ) -> None:
        if n_threads < 1 or waiting < 1:  # with 0, nobody would come to a thread
            raise ValueError(f"{n_threads} threads and {waiting} that wait")
        super().__init__(listener, limits)
        self._n_threads = n_threads
        self._waiting = waiting
        self._queue: SimpleQueue[socket.socket | None] = SimpleQueue()

    def serve_all(self, clients: Iterable[socket.socket]) -> Iterable[threading.Thread]:
        threads = [
            threading.Thread(target=self._work, daemon=True)
            for _ in range(self._n_threads)
        ]
        try:
            for thread in threads:
                thread.start()
            for sock in clients:
                # Nobody else puts clients there.
                if self._queue.qsize() < self._waiting:
                    self._queue.put(sock)
                else:
                    self.refuse(sock)
        finally:
            for _ in threads:
                self._queue.put(None)  # behind the last client
        return threads

    def _work(self) -> None:
        while (sock := self._queue.get()) is not None:
            if self._stop.over():
                self.refuse(sock)
            else:
                self.serve(sock)


def threads(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MOST:
        raise argparse.ArgumentTypeError(f"must be in 1 … {MOST}, not {number}")
    return number


def occupy(number: int, n: int, stack: ExitStack) -> list[Caller]:
    """Return so many silent clients, each of which has a thread."""
    silent = []
    for _ in range(n):
        silent.append(stack.enter_context(Caller(number)))
        if silent[-1].line() != "calculator: sum":
            raise SystemExit("a thread was to be free")
    return silent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=threads, default=32)
    options = options_of(parser)
    n, listener = options.threads, listen_or_exit(options.port, BACKLOG)
    if options.serve:
        serve_until_signal(ThreadPool(listener, n))
        return

    print(f"threads             {n:3}")
    server = ThreadPool(listener, n, 2, Limits(linger=SHORT))
    with serving(server) as number, ExitStack() as stack:
        silent = occupy(number, n, stack)
        more = [stack.enter_context(Caller(number)) for _ in range(3)]
        first, second, surplus = more
        refused = surplus.line()  # so the two before it have come to the queue
        waiting = [not caller.hears(0) for caller in (first, second)]
        print(f"silent clients      {len(silent):3}, greeted")
        print(f"the next            {sum(waiting):3}, not greeted")
        print(f"one more               {refused}")
        goodbye = silent[0].ask("quit")
        silent[0].close()
        print(f"one says quit          the next is greeted: {first.line()}")
        if refused != "error: the server is busy" or not all(waiting):
            raise SystemExit(
                "the silent were to keep all threads, two to fill the queue"
            )
        if goodbye != "goodbye" or second.hears(0):
            raise SystemExit("one thread was to be free for one more client")

    limits = Limits(idle=SHORT, linger=SHORT)
    with serving(ThreadPool(listen(), n, 1, limits)) as number, ExitStack() as stack:
        began = time.perf_counter()
        silent = occupy(number, n, stack)
        patient = stack.enter_context(Caller(number))
        patient.send("1,2\n")
        answer = [patient.line(), patient.line()][1]
        took = time.perf_counter() - began
        said = {caller.line() for caller in silent}
    print(f"with a deadline        the silent: {said.pop()}")
    print(f"after {took:.2f} s           the next is answered: {answer}")
    if said or answer != "3":
        raise SystemExit("the deadline was to free a thread")


if __name__ == "__main__":
    main()
