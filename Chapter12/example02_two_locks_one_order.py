"""Two transfers lock two accounts in one order, and none waits in vain.

Whoever holds a lock waits only for a greater one, so along any chain of waits the
numbers grow, and no chain can come back to where it began. That holds for any number of
threads and locks, as long as all of them keep to one order. Which one does not matter,
but it must be the same everywhere: a number that the program has given, which can be
read in a log; or `id()`, good enough within one process.

It is tried at the moment that is fatal to the broken version of example01: the first
transfer holds one account when the second begins, and takes no other before the second
waits. In the order of naming that is a deadlock. In the order of numbers the second
waits for the very first lock, and holds nothing that anybody else could want.

A transfer from an account to itself is refused: it would wait for itself (example15).

Book: Chapter 12, example2.
Try:  --threads 20 --transfers 100

Output:
    order of naming   A holds 1, B holds 2: a deadlock
    order of numbers  A holds 1, B waits for it: both transfers are made
    4 threads, 2,000 transfers between 3 accounts
    all are made, and the accounts hold 300 as before
"""

import argparse
import random
import threading
from collections.abc import Callable, Sequence
from functools import partial

from example01_two_locks_two_orders import (
    LIMIT,
    Account,
    Attempt,
    Watch,
    join_all,
    transfer,
)

N_ACCOUNTS = 3
BALANCE = 100  # of each account, in the beginning
MAX_THREADS = 100
MAX_TRANSFERS = 1000

Transfer = Callable[[Account, Account, int, Callable[[], object]], None]


def transfer_in_order(
    source: Account,
    target: Account,
    amount: int,
    between: Callable[[], object] = lambda: None,
) -> None:
    """Move money between accounts.

    Args:
        between: called when the first account is locked and the second not yet.

    Raises:
        ValueError: they are one and the same account.
    """
    if source.number == target.number:
        raise ValueError(f"account {source.number} cannot transfer to itself")
    first, second = sorted((source, target), key=lambda account: account.number)
    with first.lock:
        between()
        with second.lock:
            source.balance -= amount
            target.balance += amount


def new_accounts(watch: Watch, n: int = N_ACCOUNTS) -> list[Account]:
    return [
        Account(number, BALANCE, watch.lock(f"account {number}"))
        for number in range(1, n + 1)
    ]


def fatal_moment(
    transfer: Transfer, watch: Watch, accounts: Sequence[Account]
) -> tuple[Attempt, Attempt]:
    """Start a transfer of 30, and one of 50 back while it holds its first account.

    The first takes its second account when the other waits.
    """
    one, two, *_ = accounts
    holds_one = threading.Event()

    def until_the_other_waits() -> None:
        holds_one.set()
        if not watch.until_waiting(1, LIMIT):
            raise TimeoutError("the other transfer was to wait")

    a = Attempt("A", lambda: transfer(one, two, 30, until_the_other_waits))
    b = Attempt("B", lambda: transfer(two, one, 50, lambda: None))
    a.start()
    holds_one.wait(LIMIT)
    b.start()
    return a, b


def transfer_at_random(accounts: Sequence[Account], times: int, seed: int) -> None:
    """Move money between accounts that are drawn at random, again and again."""
    rng = random.Random(seed)
    for _ in range(times):
        source, target = rng.sample(accounts, 2)
        transfer_in_order(source, target, rng.randrange(10))


def at_most(limit: int) -> Callable[[str], int]:
    """Return the type of an option whose value is in 1 … `limit`."""

    def whole_number(text: str) -> int:
        number = positive(text)
        if number > limit:
            raise argparse.ArgumentTypeError(f"must be at most {limit}, not {number}")
        return number

    return whole_number


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=at_most(MAX_THREADS), default=4)
    parser.add_argument("--transfers", type=at_most(MAX_TRANSFERS), default=500)
    options = parser.parse_args()
    n_threads, times = options.threads, options.transfers

    watch = Watch()
    a, b = fatal_moment(transfer, watch, new_accounts(watch))
    cycle = watch.deadlock(LIMIT)
    if len(cycle) != 2:
        raise SystemExit("in the order of naming, A and B were to wait for each other")
    watch.give_up("B")
    a.join(LIMIT)
    b.join(LIMIT)
    print("order of naming   A holds 1, B holds 2: a deadlock")

    watch = Watch()
    one, two, *_ = new_accounts(watch)
    a, b = fatal_moment(transfer_in_order, watch, [one, two])
    a.join(LIMIT)
    b.join(LIMIT)
    if a.is_alive() or b.is_alive() or a.error or b.error:
        raise SystemExit(
            f"in the order of numbers: {watch.waits}, {a.error}, {b.error}"
        )
    if (one.balance, two.balance) != (BALANCE + 20, BALANCE - 20):
        raise SystemExit(f"both were to be made: {one.balance}, {two.balance}")
    print("order of numbers  A holds 1, B waits for it: both transfers are made")

    accounts = new_accounts(watch)
    attempts = [
        Attempt(f"{n}", partial(transfer_at_random, accounts, times, n))
        for n in range(n_threads)
    ]
    for attempt in attempts:
        attempt.start()
    join_all(attempts)
    alone = new_accounts(watch)
    for n in range(n_threads):
        transfer_at_random(alone, times, n)
    if [a.balance for a in accounts] != [a.balance for a in alone]:
        raise SystemExit("the balances are not what one thread alone makes of them")
    total = sum(account.balance for account in accounts)
    if total != N_ACCOUNTS * BALANCE:
        raise SystemExit(f"the accounts hold {total}, not {N_ACCOUNTS * BALANCE}")
    made = n_threads * times
    print(f"{n_threads} threads, {made:,} transfers between {N_ACCOUNTS} accounts")
    print(f"all are made, and the accounts hold {total} as before")


if __name__ == "__main__":
    main()
