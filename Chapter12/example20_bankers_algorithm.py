"""The banker's algorithm: nobody is lent what could make it impossible to serve all.

Each process declares its claim, the most that it will ever hold of each resource. A
state is safe if there is an order in which all can finish: the first with what it
holds and what is left, the next with what the first gives back, and so on. A banker
who starts in a safe state and grants only what leads to another one never comes to a
deadlock: whoever is first in that order can always be served. An unsafe state is no
deadlock yet, but the processes decide whether it becomes one, and no longer the banker.

To look for such an order takes no backtracking. Whoever can finish may as well be the
first to do so, for what is left only grows by it. With n processes and m resources
that is O(m n²) for each request.

The price is that all claims must be known beforehand, that each process finishes in
time, and that some wait for what nobody uses. Hardly any operating system does it;
an order of the resources (example02) costs less. Nor is it fair: small requests may
overtake a large one for ever.

Source: E. W. Dijkstra, "Een algorithme ter voorkoming van de dodelijke omarming", EWD
108, and "Cooperating sequential processes", EWD 123, 1965; for several resources A. N.
Habermann, "Prevention of system deadlocks", CACM 12 (7), 1969. The textbook's state is
that of A. Silberschatz, P. B. Galvin, G. Gagne, "Operating System Concepts", chapter
"Deadlocks".

Try:  --ask P0 0 1 0 --ask P0 0 1 0

Output:
    the textbook's state  3 3 2 of 10 5 7 are left
    all can finish        P1 P3 P4 P0 P2, or P1 P3 P4 P2 P0
    P1 asks for 1 0 2     granted
    P4 asks for 3 3 0     refused: not available
    P0 asks for 0 2 0     refused: unsafe
    10 florins            Ann, Bob, Cas claim 7 each, ask for 3, and then for 4
    lent if available     deadlock: Ann wants 4, Bob wants 4, Cas wants 4, 1 left
    lent if safe too      4 left, 3 for Cas are unsafe: Cas waits, all finish
    who knows all claims can avoid deadlocks, and pays for it with waits
"""

import argparse
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

LIMIT = 10.0  # seconds that a step of the demonstration may take

Amounts = tuple[int, ...]  # units of each resource

# The textbook's state.
TOTAL = (10, 5, 7)
CLAIMS = {
    "P0": (7, 5, 3),
    "P1": (3, 2, 2),
    "P2": (9, 0, 2),
    "P3": (2, 2, 2),
    "P4": (4, 3, 3),
}
HELD = {
    "P0": (0, 1, 0),
    "P1": (2, 0, 0),
    "P2": (3, 0, 2),
    "P3": (2, 1, 1),
    "P4": (0, 0, 2),
}
BOOKS = ("P1", "P3", "P4", "P2", "P0")  # the safe sequence that it names
ASKED = [("P1", (1, 0, 2)), ("P4", (3, 3, 0)), ("P0", (0, 2, 0))]

# The customers of a bank with florins, each of whom borrows in two steps.
CUSTOMERS = ("Ann", "Bob", "Cas")
FLORINS, CLAIM, FIRST, SECOND = (10,), (7,), (3,), (4,)


class Answer(Enum):
    """What the banker says to a request."""

    GRANTED = "granted"
    NOT_AVAILABLE = "refused: not available"
    UNSAFE = "refused: unsafe"


def plus(a: Sequence[int], b: Sequence[int]) -> Amounts:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def minus(a: Sequence[int], b: Sequence[int]) -> Amounts:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def covers(a: Sequence[int], b: Sequence[int]) -> bool:
    """Tell whether `a` is enough for `b`, of each resource."""
    return all(x >= y for x, y in zip(a, b, strict=True))


def written(amounts: Sequence[int]) -> str:
    return " ".join(map(str, amounts))


class Banker:
    """Lends units of some resources to processes; not safe for threads by itself.

    Args:
        total: how many units there are of each resource.
        claims: the most that each process will hold at a time.
        held: what each process holds already; nothing if it is not named.

    Raises:
        ValueError: a number is negative, there are not as many as resources, a claim is
            more than there is, or more is held than claimed or than there is.
    """

    def __init__(
        self,
        total: Sequence[int],
        claims: Mapping[str, Sequence[int]],
        held: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self.available: Amounts = tuple(total)
        self.claims: dict[str, Amounts] = {}
        self.held: dict[str, Amounts] = {}
        self._check_numbers("the total", total)
        for process, claim in claims.items():
            self._check_numbers(f"the claim of {process}", claim)
            if not covers(total, claim):
                raise ValueError(f"{process} claims {claim}, but there are {total}")
            self.claims[process] = tuple(claim)
            self.held[process] = (0,) * len(total)
        for process, amounts in (held or {}).items():
            self._check(process, amounts)
            if not covers(self.available, amounts):
                raise ValueError(
                    f"{process} cannot hold {amounts}, {self.available} are left"
                )
            self._move(process, amounts)

    def answer(self, process: str, amounts: Sequence[int]) -> Answer:
        """Say what `request` would say, and change nothing.

        Raises:
            ValueError: as `request`.
        """
        self._check(process, amounts)
        if not covers(self.available, amounts):
            return Answer.NOT_AVAILABLE
        self._move(process, amounts)
        try:
            safe = self.is_safe()
        finally:
            self._move(process, [-amount for amount in amounts])
        return Answer.GRANTED if safe else Answer.UNSAFE

    def request(self, process: str, amounts: Sequence[int]) -> Answer:
        """Lend `amounts` to `process`, if the state is safe then.

        Raises:
            ValueError: `process` is unknown, an amount is negative, there are not as
                many as resources, or the process would hold more than it has claimed.
        """
        answer = self.answer(process, amounts)
        if answer is Answer.GRANTED:
            self._move(process, amounts)
        return answer

    def release(self, process: str, amounts: Sequence[int]) -> None:
        """Take `amounts` back from `process`.

        Raises:
            ValueError: as for `request`, or the process does not hold as much.
        """
        self._check(process, amounts, asks=False)
        if not covers(self.held[process], amounts):
            raise ValueError(f"{process} holds {self.held[process]}, not {amounts}")
        self._move(process, [-amount for amount in amounts])

    def need(self, process: str) -> Amounts:
        """Return what `process` may still ask for."""
        return minus(self.claims[process], self.held[process])

    def safe_sequence(self) -> list[str] | None:
        """Return an order in which all can finish; None if the state is unsafe.

        Each can have all of its claim when its turn comes, and gives it back then.
        """
        left, sequence, rest = self.available, list[str](), list(self.claims)
        while rest:
            cannot_yet = []
            for process in rest:
                if covers(left, self.need(process)):
                    left = plus(left, self.held[process])
                    sequence.append(process)
                else:
                    cannot_yet.append(process)
            if cannot_yet == rest:
                return None
            rest = cannot_yet
        return sequence

    def is_safe(self) -> bool:
        """Tell whether there is an order in which all can finish."""
        return self.safe_sequence() is not None

    def can_finish_in(self, order: Sequence[str]) -> bool:
        """Tell whether all can finish in this order.

        Raises:
            ValueError: `order` does not name each process once.
        """
        if sorted(order) != sorted(self.claims):
            raise ValueError(f"{order} does not name each process once")
        left = self.available
        for process in order:
            if not covers(left, self.need(process)):
                return False
            left = plus(left, self.held[process])
        return True

    def _check(self, process: str, amounts: Sequence[int], asks: bool = True) -> None:
        if process not in self.claims:
            raise ValueError(f"there is no process {process}")
        self._check_numbers(f"{process}: an amount", amounts)
        if asks and not covers(self.need(process), amounts):
            raise ValueError(
                f"{process}: {amounts} is more than its need {self.need(process)}"
            )

    def _check_numbers(self, what: str, numbers: Sequence[int]) -> None:
        if len(numbers) != len(self.available):
            raise ValueError(
                f"{what} has {len(numbers)} numbers, not {len(self.available)}"
            )
        if min(numbers, default=0) < 0:
            raise ValueError(f"{what} is negative: {numbers}")

    def _move(self, process: str, amounts: Sequence[int]) -> None:
        """Lend `amounts` to `process`; negative ones are given back."""
        self.available = minus(self.available, amounts)
        self.held[process] = plus(self.held[process], amounts)


class CarelessBanker(Banker):
    """Lends whatever is available."""

    def is_safe(self) -> bool:
        return True


class DeadlockError(RuntimeError):
    """All processes wait, and none can be served unless one of them gives up."""


class AbortedError(RuntimeError):
    """The bank was aborted, so nobody may wait in it."""


class Bank:
    """A monitor in which threads wait until their banker grants what they ask for.

    Each process of `banker` is one thread, which calls `leave` at its end.
    """

    def __init__(self, banker: Banker) -> None:
        # Guards all that follows, the banker, too. Notified when a request is made,
        # when something is given back, when a process leaves, and when all is over.
        self._changed = threading.Condition()
        self._banker = banker
        self._active = set(banker.claims)  # those that have not left
        self._waiting: dict[str, Amounts] = {}
        self._n_asked = 0
        self._over: type[RuntimeError] | None = None  # what whoever waits has to raise
        self._reason = ""
        self.delayed: list[tuple[str, Answer]] = []  # who could not be served at once

    def request(
        self, process: str, amounts: Sequence[int], timeout: float | None = None
    ) -> None:
        """Lend `amounts` to `process`, as soon as the banker grants it.

        Raises:
            TimeoutError: that was not within `timeout` seconds (None: wait for ever).
            DeadlockError: all wait now, with a time-out or without, and none can be
                served. All of them get this, and so does every later request.
            AbortedError: the bank was aborted, perhaps while this call waited.
            ValueError: as `Banker.request`, or `process` has left.
        """
        with self._changed:
            if process not in self._active:
                raise ValueError(f"there is no process {process} any more")
            answer = self._banker.answer(process, amounts)
            if answer is not Answer.GRANTED:
                self.delayed.append((process, answer))
            self._n_asked += 1
            self._waiting[process] = tuple(amounts)
            self._changed.notify_all()
            try:
                in_time = self._changed.wait_for(lambda: self._served(process), timeout)
            finally:
                del self._waiting[process]
            self._raise_if_over()
            if not in_time:
                raise TimeoutError(f"{process} was not lent {amounts} in {timeout} s")

    def release(self, process: str, amounts: Sequence[int]) -> None:
        """Give `amounts` back.

        Raises:
            ValueError: as `Banker.release`.
        """
        with self._changed:
            self._banker.release(process, amounts)
            self._changed.notify_all()

    def leave(self, process: str) -> None:
        """Give everything back, and ask for nothing any more. Again: no effect.

        Raises:
            ValueError: there is no such process.
        """
        with self._changed:
            if process not in self._banker.held:
                raise ValueError(f"there is no process {process}")
            self._banker.release(process, self._banker.held[process])
            self._active.discard(process)
            self._changed.notify_all()

    def wait_until_asked(self, n_requests: int, timeout: float) -> None:
        """Wait until there have been `n_requests` requests, served or not.

        Raises:
            TimeoutError: that was not within `timeout` seconds.
            DeadlockError, AbortedError: it will not come to that.
        """
        with self._changed:
            if not self._changed.wait_for(
                lambda: self._over or self._n_asked >= n_requests, timeout
            ):
                raise TimeoutError(f"only {self._n_asked} requests, not {n_requests}")
            self._raise_if_over()

    def abort(self) -> None:
        """End all waits, now and in future, with AbortedError."""
        with self._changed:
            self._end(AbortedError, "the bank was aborted")

    def _served(self, process: str) -> bool:
        """Lend what `process` waits for; tell whether it need not wait any longer."""
        if self._over is None:
            answer = self._banker.request(process, self._waiting[process])
            if answer is Answer.GRANTED:
                return True
            if self._waiting.keys() == self._active and not any(
                self._banker.answer(*one) is Answer.GRANTED
                for one in self._waiting.items()
            ):
                wants = [f"{a} wants {written(b)}" for a, b in self._waiting.items()]
                left = f"{written(self._banker.available)} left"
                self._end(DeadlockError, ", ".join([*sorted(wants), left]))
        return self._over is not None

    def _end(self, error: type[RuntimeError], reason: str) -> None:
        if self._over is None:
            self._over, self._reason = error, reason
            self._changed.notify_all()

    def _raise_if_over(self) -> None:
        if self._over is not None:
            raise self._over(self._reason)


def borrow_in_two_steps(bank: Bank, names: Sequence[str]) -> list[str]:
    """Let threads called `names` borrow FIRST, SECOND when all have asked for FIRST.

    They ask for FIRST in the order of `names`.

    Returns:
        For each what came of it: "finished", or the message of DeadlockError.

    Raises:
        TimeoutError: it took longer than LIMIT.
    """

    def work(k: int) -> str:
        try:
            bank.wait_until_asked(k, LIMIT)
            bank.request(names[k], FIRST, LIMIT)
            bank.wait_until_asked(len(names), LIMIT)
            bank.request(names[k], SECOND, LIMIT)
        except DeadlockError as error:
            return str(error)
        finally:
            bank.leave(names[k])
        return "finished"

    with ThreadPoolExecutor(len(names)) as pool:
        try:
            return list(pool.map(work, range(len(names))))
        finally:  # after Ctrl-C, for one, perhaps before all threads have started
            bank.abort()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--ask",
        nargs=4,
        action="append",
        default=[],
        metavar=("PROCESS", "A", "B", "C"),
        help="one more request to the textbook's banker",
    )
    more = parser.parse_args().ask
    banker = Banker(TOTAL, CLAIMS, HELD)
    left, sequence = banker.available, banker.safe_sequence()
    if sequence is None or not all(map(banker.can_finish_in, (sequence, BOOKS))):
        raise SystemExit("all were to be able to finish, also in the book's order")
    try:
        asked = [*ASKED, *((name, tuple(map(int, amounts))) for name, *amounts in more)]
        answers = [banker.request(*one) for one in asked]
    except ValueError as error:
        parser.error(f"argument --ask: {error}")
    if answers[:3] != [Answer.GRANTED, Answer.NOT_AVAILABLE, Answer.UNSAFE]:
        raise SystemExit(f"the banker was to grant the first request only: {answers}")
    print(f"the textbook's state  {written(left)} of {written(TOTAL)} are left")
    print(f"all can finish        {' '.join(sequence)}, or {' '.join(BOOKS)}")
    for (name, amounts), answer in zip(asked, answers, strict=True):
        print(f"{f'{name} asks for {written(amounts)}':21} {answer.value}")

    claims = dict.fromkeys(CUSTOMERS, CLAIM)
    careless = Bank(CarelessBanker(FLORINS, claims))
    careful = Bank(Banker(FLORINS, claims))
    try:
        without_care = borrow_in_two_steps(careless, CUSTOMERS)
        with_care = borrow_in_two_steps(careful, CUSTOMERS)
    except (TimeoutError, RuntimeError) as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from None
    if "finished" in without_care:
        raise SystemExit(f"without care all were to wait for ever: {without_care}")
    first_delay = careful.delayed[:1]
    if set(with_care) != {"finished"} or first_delay != [("Cas", Answer.UNSAFE)]:
        raise SystemExit(f"Cas was to wait, and all to finish: {careful.delayed}")
    print("10 florins            Ann, Bob, Cas claim 7 each, ask for 3, and then for 4")
    print(f"lent if available     deadlock: {without_care[0]}")
    print("lent if safe too      4 left, 3 for Cas are unsafe: Cas waits, all finish")
    print("who knows all claims can avoid deadlocks, and pays for it with waits")


if __name__ == "__main__":
    main()
