"""Five connections each deposit 1 in a database, and four of the deposits are lost.

A database makes each statement whole, but SELECT, compute, UPDATE is more than one.
To SQLite each connection is a client of its own, in whichever thread or process, so
that everything happens in one thread here: between the read and the write of the one
the next is called, which does the same, and so on; all read before one writes.

A transaction alone is no mend. A plain BEGIN is deferred: it takes a snapshot at the
first read, and asks for the right to write at the first write. If another has committed
since, that is SQLITE_BUSY_SNAPSHOT at once, whatever the busy time-out. (In WAL mode,
as here. In the older modes a commit has to wait for those who have read.) Nothing is
lost in silence, but who gets it must ROLLBACK and begin anew. What loses nothing:

* UPDATE … SET balance = balance + 1: one statement. RETURNING gives the new balance.
* Compare and set (optimistic locking): each row has a version; UPDATE … WHERE version
  is what was read. If no row was changed, read again. Whoever else writes the row must
  raise its version, too.
* BEGIN IMMEDIATE asks for the right to write before it reads. The others wait for it,
  as long as their busy time-out; then "database is locked", and they may try again.

Check-then-insert is the same race. A UNIQUE constraint ends it: one INSERT succeeds.

Sources: "Isolation in SQLite", "Transaction" and "Result and error codes", sqlite.org.

Try:  --connections 20

Output:
    5 connections each deposit 1, and all read before one writes
      SELECT, then UPDATE     balance  1, 4 lost
      in a deferred BEGIN     balance  1, 4 get SQLITE_BUSY_SNAPSHOT
        after 1.9 ms, with a busy time-out of 10 seconds
      balance = balance + 1   balance  5
      compare and set         balance  5, 4 try again
      BEGIN IMMEDIATE         balance  5, 4 try again after SQLITE_BUSY
        a longer time-out     balance  2 of 2, after 3.9 ms
    5 connections each insert a name that all find missing
      SELECT, then INSERT     5 in the table, 0 refused
      UNIQUE                  1 in the table, 4 refused
    read and write in one statement, or ask for the right to write before
"""

import argparse
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

LIMIT = 10.0  # seconds for what is bound to come
SHORT = 5  # milliseconds that a connection waits for what cannot come

SCHEMA = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER, version INTEGER);
    INSERT INTO account VALUES (1, 0, 0);
    CREATE TABLE name_broken (name TEXT);
    CREATE TABLE name_fixed (name TEXT UNIQUE);
"""

Between = Callable[[], object]


def connect(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Open a database, for transactions that are begun by BEGIN and not by the module.

    Args:
        busy_timeout: seconds that it waits where another has the right to write.
    """
    return sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)


def begin(connection: sqlite3.Connection, mode: str) -> sqlite3.Connection:
    """Begin a transaction, DEFERRED or IMMEDIATE, and return the connection.

    At the end of a `with` block it commits, or rolls back if the block, or the commit,
    has failed.

    Raises:
        sqlite3.OperationalError: another connection is in the way. Nothing was done.
    """
    connection.execute(f"BEGIN {mode}")
    return connection


def read(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return balance and version."""
    query = "SELECT balance, version FROM account WHERE id = 1"
    ((balance, version),) = connection.execute(query).fetchall()
    return balance, version


def deposit_broken(
    connection: sqlite3.Connection, between: Between = lambda: None
) -> None:
    """Add 1 to the balance; broken: others may do so meanwhile.

    Args:
        between: called between the read and the write. It lets a caller decide who
            comes first.
    """
    balance, _ = read(connection)
    between()
    update = "UPDATE account SET balance = ?, version = version + 1 WHERE id = 1"
    connection.execute(update, (balance + 1,))


def deposit_deferred(
    connection: sqlite3.Connection, between: Between = lambda: None
) -> None:
    """Add 1 to the balance, if nobody else does so meanwhile.

    Raises:
        sqlite3.OperationalError: somebody did. Nothing was done.
    """
    with begin(connection, "DEFERRED"):
        deposit_broken(connection, between)


def deposit_immediate(
    connection: sqlite3.Connection, between: Between = lambda: None
) -> None:
    """Add 1 to the balance; others wait meanwhile.

    Raises:
        sqlite3.OperationalError: it has waited in vain for others. Nothing was done.
    """
    with begin(connection, "IMMEDIATE"):
        deposit_broken(connection, between)


def deposit_in_one(
    connection: sqlite3.Connection, between: Between = lambda: None
) -> int:
    """Add 1 to the balance by one statement; return the new balance."""
    between()
    update = """UPDATE account SET balance = balance + 1, version = version + 1
        WHERE id = 1 RETURNING balance"""
    ((balance,),) = connection.execute(update).fetchall()
    return int(balance)


def deposit_optimistic(
    connection: sqlite3.Connection, between: Between = lambda: None
) -> int:
    """Add 1 to the balance; return how often that had to be tried again.

    Args:
        between: called between the first read and the first write.
    """
    update = """UPDATE account SET balance = ?, version = version + 1
        WHERE id = 1 AND version = ?"""
    retries = 0
    while True:
        balance, version = read(connection)
        if not retries:
            between()
        if connection.execute(update, (balance + 1, version)).rowcount:
            return retries
        retries += 1


def insert_broken(
    connection: sqlite3.Connection, between: Between = lambda: None
) -> bool:
    """Insert a name unless it is there; broken: others may do so meanwhile."""
    if connection.execute("SELECT 1 FROM name_broken WHERE name = 'Ann'").fetchall():
        return False
    between()
    connection.execute("INSERT INTO name_broken VALUES ('Ann')")
    return True


def insert_fixed(
    connection: sqlite3.Connection, between: Between = lambda: None
) -> bool:
    """Insert a name; return False if it is there."""
    between()
    try:
        connection.execute("INSERT INTO name_fixed VALUES ('Ann')")
    except sqlite3.IntegrityError:
        return False
    return True


def all_read_first(
    job: Callable[[sqlite3.Connection, Between], object],
    connections: Sequence[sqlite3.Connection],
) -> list[object]:
    """Do a job by each connection; before one writes, the next ones are called.

    Returns:
        What the job returned, or the name of its error, in the order of the writes:
        the last connection comes first.
    """
    results: list[object] = []

    def call(those: Sequence[sqlite3.Connection]) -> None:
        if those:
            try:
                results.append(job(those[0], lambda: call(those[1:])))
            except sqlite3.OperationalError as error:
                results.append(error.sqlite_errorname)

    call(connections)
    return results


def refused_then_again(connections: Sequence[sqlite3.Connection]) -> list[str]:
    """Let the first deposit, the others meanwhile, and once more after it.

    Returns:
        The errors of those that came meanwhile.
    """
    holder, *others = connections
    refused: list[str] = []

    def between() -> None:
        for other in others:
            other.execute(f"PRAGMA busy_timeout = {SHORT}")
            try:
                deposit_immediate(other)
            except sqlite3.OperationalError as error:
                refused.append(error.sqlite_errorname)

    deposit_immediate(holder, between)
    for other in others[: len(refused)]:
        deposit_immediate(other)
    return refused


def wait_for(holder: sqlite3.Connection, path: Path) -> float:
    """Let a thread's connection begin to deposit while `holder` does.

    Returns:
        The seconds from its BEGIN to its COMMIT.
    """
    has_begun = threading.Event()

    def deposit() -> float:
        with closing(connect(path, LIMIT)) as other:
            other.set_trace_callback(lambda _: has_begun.set())  # before it waits
            began = time.perf_counter()
            deposit_immediate(other)
            return time.perf_counter() - began

    def between() -> None:
        futures.append(thread.submit(deposit))
        if not has_begun.wait(LIMIT):
            raise SystemExit("the other connection was to begin")

    futures: list[Future[float]] = []
    with ThreadPoolExecutor(1) as thread:
        deposit_immediate(holder, between)
    return futures[0].result()


def check(name: str, seen: object, expected: object) -> None:
    if seen != expected:
        raise SystemExit(f"{name}: {seen} instead of {expected}")


def demonstrate(path: Path, connections: Sequence[sqlite3.Connection]) -> None:
    """Check each claim, and print it."""
    n = len(connections)

    def report(name: str) -> int:
        """Print and return the balance, and set it to 0."""
        balance, _ = read(connections[0])
        connections[0].execute("UPDATE account SET balance = 0")
        print(f"  {name:23} balance {balance:2}", end="")
        return balance

    print(f"{n} connections each deposit 1, and all read before one writes")
    all_read_first(deposit_broken, connections)
    balance = report("SELECT, then UPDATE")
    print(f", {n - balance} lost")
    check("autocommit", balance, 1)

    began = time.perf_counter()
    results = all_read_first(deposit_deferred, connections)
    taken = time.perf_counter() - began
    balance = report("in a deferred BEGIN")
    stale = "SQLITE_BUSY_SNAPSHOT"
    print(f", {n - 1} get {stale}")
    print(f"    after {1e3 * taken:.1f} ms, with a busy time-out of {LIMIT:g} seconds")
    check("deferred", (balance, results), (1, [None] + [stale] * (n - 1)))
    check("an error at once", taken < LIMIT, True)

    results = all_read_first(deposit_in_one, connections)
    balance = report("balance = balance + 1")
    print()
    check("one statement", (balance, results), (n, list(range(1, n + 1))))

    results = all_read_first(deposit_optimistic, connections)
    balance = report("compare and set")
    print(f", {n - 1} try again")
    check("compare and set", (balance, results), (n, [0] + [1] * (n - 1)))

    refused = refused_then_again(connections)
    balance = report("BEGIN IMMEDIATE")
    busy = "SQLITE_BUSY"
    print(f", {n - 1} try again after {busy}")
    check("immediate", (balance, refused), (n, [busy] * (n - 1)))
    taken = wait_for(connections[0], path)
    balance = report("  a longer time-out")
    print(f" of 2, after {1e3 * taken:.1f} ms")
    check("a longer time-out", balance, 2)

    print(f"{n} connections each insert a name that all find missing")
    for name, insert, table, rows in (
        ("SELECT, then INSERT", insert_broken, "name_broken", n),
        ("UNIQUE", insert_fixed, "name_fixed", 1),
    ):
        results = all_read_first(insert, connections)
        query = f"SELECT count(*) FROM {table}"
        ((count,),) = connections[0].execute(query).fetchall()
        print(f"  {name:23} {count} in the table, {results.count(False)} refused")
        check(name, (count, results.count(True)), (rows, rows))
    print("read and write in one statement, or ask for the right to write before")


def some(text: str) -> int:
    number = int(text)
    if not 2 <= number <= 20:
        raise argparse.ArgumentTypeError(f"must be between 2 and 20, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--connections", type=some, default=5)
    n_connections = parser.parse_args().connections
    if sqlite3.sqlite_version_info < (3, 35):
        print("needs SQLite 3.35 or later, for RETURNING")
        sys.exit(77)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        path = Path(folder) / "bank.sqlite"
        connections = [
            stack.enter_context(closing(connect(path, LIMIT)))
            for _ in range(n_connections)
        ]
        connections[0].executescript(SCHEMA)
        try:
            demonstrate(path, connections)
        except sqlite3.OperationalError as error:
            raise SystemExit(f"{error.sqlite_errorname} was not to come") from None


if __name__ == "__main__":
    main()
