"""Threads that share a monitor run one at a time, and a test says which goes on.

A thread stops where it waits for a condition, and before each entry into the monitor
but its first. These stops are enough: if all that is shared is guarded, switches in
other places cannot be told from these. (turns.py in Chapter 16 stops at marks in the
code instead; there the structures have no locks.) So the code under test is the real
one, with StagedCondition in place of threading.Condition, and the threads are real.

What goes on is chosen from outside, step by step. Hypothesis chooses in example16; here
a getter is woken for an item that another one takes.

Switches at synchronisation only: M. Musuvathi et al., "Finding and reproducing
Heisenbugs in concurrent programs" (CHESS), OSDI 2008.

Output:
    A gets, and waits  inside 0  able -  got 0
    B puts             inside 1  able A  got 0
    C gets             inside 0  able A  got 1
    A goes on          inside 0  able -  got 1
    the woken thread has found nothing, looked again, and waits on
"""

import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from functools import partial
from queue import Empty, SimpleQueue

LIMIT = 10.0  # seconds that a thread may take for one step


class PlayIsOverError(BaseException):
    """Ends a thread that waits for its turn; no `except Exception` stops it."""


class Stage:
    """Runs one thread at a time, from one synchronisation to the next.

    Attributes:
        current: the thread whose turn it is.
        able: those that can go on. Others wait for a condition, or have ended.
    """

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        # Only who has the turn uses what follows; the queues hand it over.
        self.current = ""
        self.able: list[str] = []
        self._has_entered: set[str] = set()
        self._errors: list[BaseException] = []  # what a call has just raised
        self._is_closed = False  # then threads end at their next stop, all at once
        self._gates: dict[str, SimpleQueue[bool]] = {}  # True: run; False: end
        self._back: SimpleQueue[None] = SimpleQueue()  # the turn, to who said go_on

    def begin(self, name: str, call: Callable[[], object]) -> None:
        """Let a thread make a call, up to where it stops or ends, as `go_on` does."""

        def work() -> None:
            try:
                if gate.get():
                    call()
            except PlayIsOverError:
                pass
            except BaseException as error:
                self._errors.append(error)
            finally:
                self._back.put(None)

        gate = self._gates[name] = SimpleQueue()
        # A daemon: one that never stops must not keep the program from its end.
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        self.able.append(name)
        self.go_on(name)

    def go_on(self, name: str) -> None:
        """Let a thread that is able to run, up to where it stops or ends.

        Raises:
            TimeoutError: that took longer than LIMIT seconds.
            BaseException: what its call raises.
        """
        self.able.remove(name)
        self.current = name
        self._gates[name].put(True)
        try:
            self._back.get(timeout=LIMIT)
        except Empty:
            raise TimeoutError(f"{name} has not stopped in {LIMIT:g} s") from None
        if self._errors:
            raise self._errors.pop()

    def before_entry(self) -> None:
        """Stop here, unless this is the first time: called by the threads."""
        # A call that stops before its first entry might as well begin later.
        if self._is_closed or self.current in self._has_entered:
            self.able.append(self.current)
            self.sleep()
        self._has_entered.add(self.current)

    def sleep(self) -> None:
        """Stop here, until the thread is among the able, and chosen."""
        gate = self._gates[self.current]
        self._back.put(None)
        if self._is_closed or not gate.get():
            raise PlayIsOverError

    def close(self) -> None:
        """End all calls; wait for them, LIMIT seconds each at most."""
        self._is_closed = True
        for gate in self._gates.values():
            gate.put(False)
        for thread in self._threads:
            thread.join(LIMIT)


class StagedCondition(threading.Condition):
    """A condition of threads on a stage; as usual, who waits longest is woken first.

    The code under test may wait for nothing else. A time-out never comes.
    """

    def __init__(self, stage: Stage, lock: "threading.Lock") -> None:
        super().__init__(lock)
        self._stage = stage
        self._sleepers: deque[str] = deque()

    def __enter__(self) -> bool:
        self._stage.before_entry()
        return super().__enter__()  # free: nobody stops who holds it

    def wait(self, timeout: float | None = None) -> bool:
        self._sleepers.append(self._stage.current)
        self.release()
        try:
            self._stage.sleep()
        finally:
            self.acquire()
        return True

    def notify(self, n: int = 1) -> None:
        super().notify(n)  # nobody really waits; this raises if the lock is not held
        for _ in range(min(n, len(self._sleepers))):
            self._stage.able.append(self._sleepers.popleft())

    def notify_all(self) -> None:
        self.notify(len(self._sleepers))


def main() -> None:
    items: list[str] = []
    got: dict[str, str] = {}
    with closing(Stage()) as stage:
        not_empty = StagedCondition(stage, threading.Lock())

        def get(name: str) -> None:
            with not_empty:
                while not items:
                    not_empty.wait()
                got[name] = items.pop()

        def put(item: str) -> None:
            with not_empty:
                items.append(item)
                not_empty.notify()

        def show(what: str) -> None:
            able = " ".join(stage.able) or "-"
            print(f"{what:18} inside {len(items)}  able {able}  got {len(got)}")

        stage.begin("A", partial(get, "A"))
        show("A gets, and waits")
        stage.begin("B", partial(put, "an item"))
        show("B puts")
        stage.begin("C", partial(get, "C"))
        show("C gets")
        stage.go_on("A")
        show("A goes on")
        if got != {"C": "an item"} or stage.able:
            raise SystemExit("C was to have the item, and A to wait again")
    print("the woken thread has found nothing, looked again, and waits on")


if __name__ == "__main__":
    main()
