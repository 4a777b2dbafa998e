"""An event lets any number of threads wait for what happens once: the start.

Before a service is ready its clients wait; once it is, all of them go on, and those
who come later do not wait at all. A thread that waits with a time-out learns from the
answer, True or False, whether the event was set. What the threads that wait must not
miss is a start that failed: then the event has to be set, too, with the reason beside
it, or they wait for ever.

An event is a state and not a message. One that is set and cleared at once, to say
"something has changed", is not heard by a thread that has looked at the old state and
is just about to wait. That moment is forced here. What can happen again is counted
instead, and a thread waits for a count beyond the one that it has seen.

Try:  --clients 50

Output:
    too early   TimeoutError: not started within 0.01 s
    started     3 clients went on, none before; a late one does not wait
    failed      3 clients learnt why: the port is in use
    pulse       set() and clear() before the wait: missed
    count       the same moment: change 1 seen
    an event is a state that stays; what comes again is counted
"""

import argparse
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

LIMIT = 10.0  # seconds that a step of the demonstration may take


class StartSignal:
    """Lets threads wait until a service has started, or has failed to.

    The service starts inside `with signal.starting():`. A signal is for one start: for
    another try make another signal.
    """

    def __init__(self) -> None:
        self._known = threading.Event()  # set once, never cleared
        # Written before _known is set and read after, so it needs no lock.
        self._failure: BaseException | None = None

    @contextmanager
    def starting(self) -> Iterator[None]:
        """At the end of the block let all who wait go on, also if it has failed.

        Raises:
            RuntimeError: this is not the first start.
        """
        if self._known.is_set():
            raise RuntimeError("a start signal is for one start")
        try:
            yield
        except BaseException as failure:
            self._failure = failure
            raise
        finally:
            self._known.set()

    def wait(self, timeout: float | None = None) -> None:
        """Return when the service has started.

        Raises:
            TimeoutError: nothing is known after `timeout` seconds (None: no limit).
            RuntimeError: the start has failed; the reason is its `__cause__`.
        """
        if not self._known.wait(timeout):
            raise TimeoutError(f"not started within {timeout} s")
        if self._failure is not None:
            raise RuntimeError("the start has failed") from self._failure


class ChangeCount:
    """Counts changes, so that a thread can wait for one without missing any."""

    def __init__(self) -> None:
        self._count = 0  # guarded by the lock of _changed
        self._changed = threading.Condition()  # notified, all, by each change

    @property
    def now(self) -> int:
        with self._changed:
            return self._count

    def change(self) -> None:
        """Count one change and wake all who wait for it."""
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def wait_beyond(self, seen: int, timeout: float | None = None) -> int:
        """Return the count as soon as it is more than `seen`.

        Raises:
            TimeoutError: it is not after `timeout` seconds (None: no limit).
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._count > seen, timeout):
                raise TimeoutError(f"no change within {timeout} s")
            return self._count


def wait_for_all(come: threading.Semaphore, n_clients: int) -> None:
    """Return when `come` was released by each client.

    Raises:
        TimeoutError: one has taken longer than LIMIT.
    """
    for _ in range(n_clients):
        if not come.acquire(timeout=LIMIT):
            raise TimeoutError("not all clients have come")


def log_of_clients(
    signal: StartSignal, n_clients: int, start: Callable[[], object]
) -> list[str]:
    """Call `start` when all clients have come; return what happened, in order."""
    log: list[str] = []  # append is atomic
    come = threading.Semaphore(0)

    def client() -> None:
        log.append("comes")
        come.release()
        try:
            signal.wait(LIMIT)
        except RuntimeError as error:
            log.append(f"learns: {error.__cause__}")
        else:
            log.append("goes on")

    with ThreadPoolExecutor(n_clients) as pool:
        try:
            clients = [pool.submit(client) for _ in range(n_clients)]
            wait_for_all(come, n_clients)
            log.append("start")
            start()
        except BaseException:  # Ctrl-C, for one: or they would wait on
            with suppress(BaseException), signal.starting():
                raise
            raise
        for one in clients:
            one.result()
    return log


def pulse(event: threading.Event) -> None:
    """Misuse an event to say that something has changed."""
    event.set()
    event.clear()


def elsewhere(action: Callable[[], object]) -> None:
    """Do `action` in another thread, from beginning to end."""
    thread = threading.Thread(target=action)
    thread.start()
    thread.join()


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=positive, default=3)
    n = parser.parse_args().clients

    def start(signal: StartSignal) -> None:
        with signal.starting():
            pass  # read the configuration, open the port …

    def start_in_vain(signal: StartSignal) -> None:
        with suppress(OSError), signal.starting():
            raise OSError("the port is in use")

    signal = StartSignal()
    try:
        signal.wait(0.01)
    except TimeoutError as error:
        print(f"too early   TimeoutError: {error}")
    else:
        raise SystemExit("the service has not started, but the wait has ended")

    log = log_of_clients(signal, n, lambda: start(signal))
    if log != ["comes"] * n + ["start"] + ["goes on"] * n:
        raise SystemExit(f"not in order: {log}")
    signal.wait(0)  # raises unless the event stays set
    print(f"started     {n} clients went on, none before; a late one does not wait")

    bad = StartSignal()
    log = log_of_clients(bad, n, lambda: start_in_vain(bad))
    if log != ["comes"] * n + ["start"] + ["learns: the port is in use"] * n:
        raise SystemExit(f"not all clients have learnt why: {log}")
    print(f"failed      {n} clients learnt why: the port is in use")

    event, changes = threading.Event(), ChangeCount()
    seen = changes.now
    # This thread has looked and is about to wait. Just then …
    elsewhere(lambda: pulse(event))
    elsewhere(changes.change)
    if event.wait(0.01):
        raise SystemExit("the pulse was to be missed")
    print("pulse       set() and clear() before the wait: missed")
    print(f"count       the same moment: change {changes.wait_beyond(seen, 0)} seen")
    print("an event is a state that stays; what comes again is counted")


if __name__ == "__main__":
    main()
