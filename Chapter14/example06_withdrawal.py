"""Twenty threads find 100 in the account, each wants 100, and all of them are paid.

Each checks that there is enough, then pays. Between the two others check as well, and
what they find is true then, but no longer when they act on it. No single step is at
fault: the account is a list of payments, to append to it is atomic, and no payment is
lost. The gap between the steps makes the race, which is called check-then-act. It has
many faces: is the file there, is the key in the dictionary, is the seat free?

A lock in each step makes each step atomic, which is of no use here. (Nor is a class
whose methods are thread-safe, if its callers make up an `if` of them.) The mend is to
make check and act one critical section. All are tried at the same interleaving: who has
checked waits until no other thread can get that far, and behind the lock none can.

Where the act says whether it succeeded, no check is needed before: `dict.setdefault`,
`open(path, "x")` and, in a database, `UPDATE … WHERE balance >= …` do both in one.

Try:  --threads 2

Output:
    20 withdrawals       have checked    paid   balance
    no lock                          20      20     -1900
    a lock in each step              20      20     -1900
    one critical section              1       1         0
    a check holds as long as nobody else can act
"""

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from rendezvous import Rendezvous

AMOUNT = 100  # what is in the account, and what everybody wants


class Account:
    """An account that is never overdrawn.

    Args:
        balance: what is in it at first.
        lock: held from before the check until after the payment.
        between: called between the two. It lets a caller decide who runs meanwhile.
    """

    def __init__(
        self,
        balance: int,
        lock: AbstractContextManager[object],
        between: Callable[[], object] = lambda: None,
    ) -> None:
        self._payments = [balance]  # guarded by the lock
        self._lock = lock
        self._between = between

    def balance(self) -> int:
        with self._lock:
            return sum(self._payments)

    def withdraw(self, amount: int) -> bool:
        """Pay `amount` if there is so much; tell whether it was paid."""
        with self._lock:
            if sum(self._payments) < amount:
                return False
            self._between()
            self._payments.append(-amount)
            return True


class LockedStepsAccount(Account):
    """Broken: each step holds the lock, and nothing holds the steps together."""

    def withdraw(self, amount: int) -> bool:
        if self.balance() < amount:
            return False
        self._between()  # another thread finds the same balance here
        with self._lock:
            self._payments.append(-amount)
        return True


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def demonstrate(n: int) -> None:
    """Check each claim, and print it."""

    def report(name: str, place: Rendezvous, account: Account, expected: int) -> None:
        paid = sum(place.run([lambda: account.withdraw(AMOUNT)] * n))
        print(f"{name:20} {place.most:14} {paid:7} {account.balance():9}")
        balance = AMOUNT - expected * AMOUNT
        if (place.most, paid, account.balance()) != (expected, expected, balance):
            raise SystemExit(f"{name}: {expected} were to get there, and to be paid")

    print(f"{f'{n} withdrawals':20} have checked    paid   balance")
    place = Rendezvous()
    report("no lock", place, Account(AMOUNT, nullcontext(), place.meet), n)
    place = Rendezvous()
    account = LockedStepsAccount(AMOUNT, place, place.meet)
    report("a lock in each step", place, account, n)
    place = Rendezvous()
    report("one critical section", place, Account(AMOUNT, place, place.meet), 1)
    print("a check holds as long as nobody else can act")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=some, default=20)
    n_threads = parser.parse_args().threads
    try:
        demonstrate(n_threads)
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error}") from None


if __name__ == "__main__":
    main()
