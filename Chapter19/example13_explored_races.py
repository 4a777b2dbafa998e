"""Seven classic bugs of threads are found by exploring, and their mended twins cleared.

Nothing here is prepared for it: these are classes with locks and conditions of
`threading`, and no hook, barrier or sleep tells a thread where to stop. The explorer
stops it before each instruction that matters. A schedule that fails is found within
milliseconds, with as few preemptions as it takes: a thread that is stopped although it
could go on. Some need none at all, but an order in which nobody had thought of it.

What "none fails" says of a mended twin: no schedule with at most two preemptions fails.
For a small program all schedules can be covered (`--bound 100`, and see explorer.py).
The list in the end is the sixth bug. A `with` line comes once more where its block is
left; "..." is where another thread comes in within a line.

Source: S. Lu, S. Park, E. Seo, Y. Zhou, "Learning from mistakes: a comprehensive study
on real world concurrency bug characteristics", ASPLOS 2008, found few threads and few
accesses in most bugs, which is why this works. G. L. Peterson, "Myths about the mutual
exclusion problem", Information Processing Letters 12 (3), 1981, has the fifth.

Try:  --bound 1

Output:
                           broken: fails with                 mended: no schedule
    bug                    preemptions  an error        in     fails, known in
    lost update                      1  AssertionError    4 ms             12 ms
    check then act                   1  AssertionError    2 ms             19 ms
    opposite lock order              1  DeadlockError     3 ms             11 ms
    iterate while growing            1  RuntimeError      2 ms              8 ms
    peterson                         2  AssertionError   59 ms            371 ms
    no while around wait             1  IndexError       14 ms            323 ms
    lost wake up                     1  DeadlockError     2 ms             19 ms
    no while around wait: A gets, B replaces
      A  with self.not_empty:
      A  if not self.items:
      A  self.not_empty.wait()
      B  self.put("old")
      B  with self.not_empty:
      B  self.items.append(item)
      B  self.not_empty.notify()
      B  with self.not_empty:
      B  with self.not_empty:
      B  self.items.clear()
      B  with self.not_empty:
      A  self.items.pop()
      A  with self.not_empty:
      IndexError: pop from empty list
    7 of 7 bugs found; no mended twin fails
"""

import argparse
import threading
import time
from collections.abc import Callable
from functools import partial

from explorer import Failure, Program, explore, wait_until


class Counter:
    """Counts what two threads add."""

    def __init__(self) -> None:
        self.value = 0
        self.lock = threading.Lock()

    def add_broken(self) -> None:
        """Add 1; another addition may be lost."""
        self.value += 1

    def add_fixed(self) -> None:
        """Add 1 in a critical section."""
        with self.lock:
            self.value += 1


class Account:
    """An account from which too much may be paid."""

    def __init__(self) -> None:
        self.balance = 100
        self.lock = threading.Lock()

    def pay_broken(self, amount: int) -> None:
        """Check, then act: what was checked need not be true any more."""
        if self.balance >= amount:
            self.balance -= amount

    def pay_fixed(self, amount: int) -> None:
        """Check and act in one critical section."""
        with self.lock:
            if self.balance >= amount:
                self.balance -= amount


class Forks:
    """Two locks that two threads take, both of them."""

    def __init__(self) -> None:
        self.left = threading.Lock()
        self.right = threading.Lock()

    def take_left_first(self) -> None:
        """Take both, and put them back."""
        with self.left, self.right:
            pass

    def take_right_first(self) -> None:
        """Take both; wait for ever if another thread has taken the left one."""
        with self.right, self.left:
            pass


class Members:
    """A dictionary that grows while another thread goes through it."""

    def __init__(self) -> None:
        self.ages = {"Ada": 36}

    def join(self) -> None:
        """Add a member."""
        self.ages["Alan"] = 41

    def total_broken(self) -> None:
        """Fail with a RuntimeError if somebody joins just now."""
        for age in self.ages.values():
            assert age

    def total_fixed(self) -> None:
        """Go through a copy, which one call of C code makes."""
        for age in list(self.ages.values()):
            assert age


class Side:
    """A side of Peterson's lock for two threads, with no lock below."""

    def __init__(self, shared: "dict[str, Side]") -> None:
        self.wants = False
        self.other = self
        self.shared = shared  # whose turn it is, and who is inside

    def enter_broken(self) -> None:
        """Give the turn away too early, before this side wants it."""
        self.shared["turn"] = self.other
        self.wants = True
        self.be_inside()

    def enter_fixed(self) -> None:
        """Say first that this side wants it."""
        self.wants = True
        self.shared["turn"] = self.other
        self.be_inside()

    def be_inside(self) -> None:
        """Wait, be inside, and leave.

        Raises:
            AssertionError: both are inside.
        """
        wait_until(self.may_enter)
        self.shared["inside"] = self
        assert self.shared["inside"] is self, "both are inside"
        self.wants = False

    def may_enter(self) -> bool:
        """Tell whether the other side has no wish, or has to wait."""
        return not self.other.wants or self.shared["turn"] is self


class Box:
    """Holds items that a thread may wait for."""

    def __init__(self) -> None:
        self.items: list[str] = []
        self.not_empty = threading.Condition()

    def put(self, item: str) -> None:
        """Add an item, and wake a thread that waits for one."""
        with self.not_empty:
            self.items.append(item)
            self.not_empty.notify()

    def replace(self) -> None:
        """Put an item, take it away again, put another one."""
        self.put("old")
        with self.not_empty:
            self.items.clear()
        self.put("new")

    def get_broken(self) -> None:
        """Wait for an item; somebody may take it before this thread has woken up."""
        with self.not_empty:
            if not self.items:
                self.not_empty.wait()
            self.items.pop()

    def get_fixed(self) -> None:
        """Look again after each wait."""
        with self.not_empty:
            while not self.items:
                self.not_empty.wait()
            self.items.pop()


class Signal:
    """Something that happens once, and that a thread waits for."""

    def __init__(self) -> None:
        self.is_given = False
        self.given = threading.Condition()

    def give(self) -> None:
        """Let it happen."""
        with self.given:
            self.is_given = True
            self.given.notify_all()

    def wait_broken(self) -> None:
        """Look without the lock: the signal may be given before the wait begins."""
        if not self.is_given:
            with self.given:
                self.given.wait()

    def wait_fixed(self) -> None:
        """Look and begin to wait in one critical section."""
        with self.given:
            while not self.is_given:
                self.given.wait()


def lost_update(mended: bool) -> Program:
    counter = Counter()
    add = counter.add_fixed if mended else counter.add_broken
    return Program({"A": add, "B": add}, lambda: counter.value == 2)


def check_then_act(mended: bool) -> Program:
    account = Account()
    pay = partial(account.pay_fixed if mended else account.pay_broken, 80)
    return Program({"A": pay, "B": pay}, lambda: account.balance == 20)


def opposite_lock_order(mended: bool) -> Program:
    forks = Forks()
    second = forks.take_left_first if mended else forks.take_right_first
    return Program({"A": forks.take_left_first, "B": second})


def iterate_while_growing(mended: bool) -> Program:
    members = Members()
    total = members.total_fixed if mended else members.total_broken
    return Program({"A": total, "B": members.join})


def peterson(mended: bool) -> Program:
    shared: dict[str, Side] = {}
    a, b = Side(shared), Side(shared)
    a.other, b.other = b, a
    if mended:
        return Program({"A": a.enter_fixed, "B": b.enter_fixed})
    return Program({"A": a.enter_broken, "B": b.enter_broken})


def no_while_around_wait(mended: bool) -> Program:
    box = Box()
    get = box.get_fixed if mended else box.get_broken
    return Program({"A": get, "B": box.replace})


def lost_wake_up(mended: bool) -> Program:
    signal = Signal()
    wait = signal.wait_fixed if mended else signal.wait_broken
    return Program({"A": wait, "B": signal.give})


BUGS: list[Callable[[bool], Program]] = [
    lost_update,
    check_then_act,
    opposite_lock_order,
    iterate_while_growing,
    peterson,
    no_while_around_wait,
    lost_wake_up,
]


def at_least_0(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bound", type=at_least_0, default=2)
    bound = parser.parse_args().bound

    print(
        "                       broken: fails with                 mended: no schedule"
    )
    print("bug                    preemptions  an error        in     fails, known in")
    failures: dict[str, Failure] = {}
    for bug in BUGS:
        name = bug.__name__.replace("_", " ")
        start = time.perf_counter()
        broken = explore(partial(bug, False), bound=bound)
        middle = time.perf_counter()
        mended = explore(partial(bug, True), bound=bound)
        end = time.perf_counter()
        if mended.failure:
            raise SystemExit(f"{name}: mended, but\n{mended.failure}")
        cleared = f"{1000 * (end - middle):6.0f} ms"
        if broken.failure is None:
            print(f"{name:21}  not found with so few {'':19}{cleared}")
            continue
        failures[name] = broken.failure
        error = type(broken.failure.error).__name__
        found = f"{1000 * (middle - start):4.0f} ms"
        print(f"{name:21}  {broken.bound + 1:11}  {error:14} {found} {cleared:>17}")

    shown = "no while around wait"
    if bound >= 2 and len(failures) < len(BUGS):
        raise SystemExit(f"all bugs were to be found, not only {', '.join(failures)}")
    if shown in failures:
        print(f"{shown}: A gets, B replaces")
        for line in str(failures[shown]).splitlines():
            print(f"  {line}")
    print(f"{len(failures)} of {len(BUGS)} bugs found; no mended twin fails")


if __name__ == "__main__":
    main()
