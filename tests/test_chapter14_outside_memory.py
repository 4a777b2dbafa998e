"""Chapter 14, races outside memory: the parts a reader would copy."""

import asyncio
import gc
import multiprocessing
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import example10_file_created_twice as files
import example11_symlink_swapped_in as links
import example12_across_await as tasks_
import example13_between_processes as processes_
import example14_database_lost_deposit as databases
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

LIMIT = 30.0  # seconds that a test waits for what must come

posix = pytest.mark.skipif(os.name != "posix", reason="needs O_NOFOLLOW and dir_fd")
one_folder = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@contextmanager
def nothing_is_left() -> Iterator[None]:
    with no_thread_is_left():
        yield
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("module", "option"),
    [
        (files, "--threads"),
        (tasks_, "--tasks"),
        (processes_, "--processes"),
        (databases, "--connections"),
    ],
)
@pytest.mark.parametrize("number", ["1", "21", "some"])
def test_between_two_and_twenty_take_part(
    complaint: Callable[..., str], module: ModuleType, option: str, number: str
) -> None:
    assert option in complaint(module, option, number)


# -- example10


@pytest.mark.parametrize("n_threads", [2, 3, 20])
def test_all_create_the_file_if_all_have_looked_before(
    tmp_path: Path, n_threads: int
) -> None:
    path = tmp_path / "file"
    with nothing_is_left():
        created = files.create_together(files.create_broken, path, n_threads)
    assert len(created) == n_threads
    assert path.read_text() in created


@pytest.mark.parametrize("n_threads", [2, 3, 20])
def test_one_creates_the_file_exclusively(tmp_path: Path, n_threads: int) -> None:
    path = tmp_path / "file"
    created = files.create_together(files.create_fixed, path, n_threads)
    assert created == [path.read_text()]


@pytest.mark.parametrize("create", [files.create_broken, files.create_fixed])
def test_a_file_that_is_there_is_not_created(
    tmp_path: Path, create: files.Create
) -> None:
    path = tmp_path / "file"
    assert create(path, "first", lambda: None)
    assert not create(path, "second", lambda: None)
    assert path.read_text() == "first"


def test_who_comes_between_check_and_use_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.create_broken(path, "mine", lambda: path.write_text("theirs"))
    assert path.read_text() == "mine"
    path.unlink()
    assert not files.create_fixed(path, "mine", lambda: path.write_text("theirs"))
    assert path.read_text() == "theirs"


@posix
def test_a_link_to_nowhere_is_not_followed_by_exclusive_creation(
    tmp_path: Path,
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    assert not files.create_fixed(tmp_path / "link", "text")
    assert not (tmp_path / "target").exists()


def test_who_does_not_come_is_not_waited_for_without_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stay_away(path: Path, text: str, between: Callable[[], object]) -> bool:
        return text == "text  0" or bool(between())

    monkeypatch.setattr(files, "LIMIT", 0.02)
    with nothing_is_left(), pytest.raises(threading.BrokenBarrierError):
        files.create_together(stay_away, tmp_path / "file", 3)
    monkeypatch.setattr(files, "create_broken", stay_away)
    with pytest.raises(SystemExit, match="not all threads came"):
        run_main(files, monkeypatch)


def test_who_fails_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path, text: str, between: Callable[[], object]) -> bool:
        if text == "text  2":
            raise PermissionError("not here")
        return bool(between())

    monkeypatch.setattr(files, "LIMIT", 1000.0)
    with (
        nothing_is_left(),
        pytest.raises((PermissionError, threading.BrokenBarrierError)),
    ):
        files.create_together(fail, tmp_path / "file", 3)


@one_folder
@given(old=st.none() | st.binary(max_size=9), parts=st.lists(st.binary(max_size=9)))
def test_readers_see_all_of_the_old_file_or_all_of_the_new(
    tmp_path: Path, old: bytes | None, parts: list[bytes]
) -> None:
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    if old is not None:
        path.write_bytes(old)

    def parts_with_a_reader() -> Iterator[bytes]:
        for part in parts:
            assert (path.read_bytes() if path.exists() else None) == old
            yield part
        assert len(set(tmp_path.iterdir()) - {path}) == 1  # the new one
        assert (path.read_bytes() if path.exists() else None) == old

    files.write_fixed(path, parts_with_a_reader())
    assert path.read_bytes() == b"".join(parts)
    assert list(tmp_path.iterdir()) == [path]


def test_readers_of_a_file_written_in_place_see_a_part_of_it(tmp_path: Path) -> None:
    path, seen = tmp_path / "file", []

    def parts() -> Iterator[bytes]:
        for part in (b"a", b"b", b"c"):
            seen.append(path.read_bytes())
            yield part

    files.write_broken(path, parts())
    assert seen == [b"", b"a", b"ab"]


def test_a_writer_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def parts() -> Iterator[bytes]:
        yield b"new"
        raise ArithmeticError("no more")

    with pytest.raises(ArithmeticError):
        files.write_fixed(path, parts())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_can_be_created_later(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UnicodeEncodeError):
        files.create_fixed(path, "\udc80")
    assert files.create_fixed(path, "good")
    assert path.read_text() == "good"


@pytest.mark.parametrize(
    ("broken", "instead"),
    [
        ("create_broken", "create_fixed"),
        ("create_fixed", "create_broken"),
        ("write_broken", "write_fixed"),
        ("write_fixed", "write_broken"),
    ],
)
def test_files_that_go_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch, broken: str, instead: str
) -> None:
    monkeypatch.setattr(files, broken, getattr(files, instead))
    with pytest.raises(SystemExit, match=r"was to see|were to create"):
        run_main(files, monkeypatch)


# -- example11

OPENERS = [
    links.open_broken,
    links.open_no_follow,
    links.open_same,
    links.open_in_folder,
]

each_opener = pytest.mark.parametrize("open_", OPENERS)


def append(open_: links.Open, path: Path, between: links.Between = int) -> None:
    with os.fdopen(open_(path, between), "wb") as file:
        file.write(b"new")


@posix
@each_opener
def test_a_file_that_nobody_attacks_is_appended_to(
    tmp_path: Path, open_: links.Open
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old ")
    append(open_, path)
    assert path.read_bytes() == b"old new"


@posix
@each_opener
@pytest.mark.parametrize("missing", [True, False])
def test_neither_a_missing_file_nor_a_link_is_opened(
    tmp_path: Path, open_: links.Open, missing: bool
) -> None:
    path, target = tmp_path / "file", tmp_path / "target"
    if not missing:
        target.touch()
        path.symlink_to(target)
    with pytest.raises(FileNotFoundError if missing else OSError):
        append(open_, path)
    assert missing or target.read_bytes() == b""


@posix
@each_opener
@pytest.mark.parametrize(
    "attack", [links.swap_in_symlink, links.swap_in_hard_link, links.swap_folder]
)
def test_the_mended_ways_are_not_fooled_and_leave_no_descriptor(
    tmp_path: Path, open_: links.Open, attack: links.Attack
) -> None:
    before = psutil.Process().num_fds()
    result = links.attacked(open_, attack, tmp_path / "scene")
    assert psutil.Process().num_fds() == before
    if open_ in {links.open_same, links.open_in_folder}:
        assert result != "fooled"
    if open_ == links.open_broken:
        assert result == "fooled"


@posix
@pytest.mark.parametrize("open_", OPENERS[1:])
def test_nobody_waits_for_the_other_end_of_a_fifo(
    tmp_path: Path, open_: links.Open
) -> None:
    path = tmp_path / "file"
    path.touch()

    def swap_in_fifo() -> None:
        path.unlink()
        os.mkfifo(path)

    with pytest.raises(OSError, match=r"No such device|not configured"):
        append(open_, path, swap_in_fifo)


@posix
def test_a_fifo_that_is_read_is_no_regular_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        for open_ in (links.open_same, links.open_in_folder):
            with pytest.raises(PermissionError):
                open_(path, int)
    finally:
        os.close(reader)


@posix
def test_a_file_with_two_names_is_refused_from_the_start(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    (tmp_path / "other name").hardlink_to(path)
    with pytest.raises(PermissionError, match="single name"):
        links.open_in_folder(path)


@posix
def test_a_new_file_is_not_created_through_a_link(tmp_path: Path) -> None:
    path, target = tmp_path / "file", tmp_path / "target"
    os.close(links.create_broken(path, lambda: path.symlink_to(target)))
    assert target.exists()
    path.unlink()
    target.unlink()
    with pytest.raises(FileExistsError):
        links.create_exclusively(path, lambda: path.symlink_to(target))
    assert not target.exists()
    path.unlink()
    for create in (links.create_exclusively, links.create_broken):
        path.unlink(missing_ok=True)
        os.close(create(path))
        assert path.stat().st_mode & 0o777 == 0o600
        with pytest.raises(FileExistsError):
            create(path)


@posix
@pytest.mark.parametrize(
    ("way", "instead"),
    [
        ("open_broken", "open_same"),
        ("open_no_follow", "open_broken"),
        ("open_same", "open_no_follow"),
        ("open_in_folder", "open_same"),
        ("create_broken", "create_exclusively"),
        ("create_exclusively", "create_broken"),
    ],
)
def test_attacks_that_go_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch, way: str, instead: str
) -> None:
    function = getattr(links, instead)
    monkeypatch.setattr(links, way, lambda path, between: function(path, between))
    getattr(links, way).__name__ = way  # which names its folder
    with pytest.raises(SystemExit, match="was to be"):
        run_main(links, monkeypatch)


def test_windows_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(SystemExit) as exit_:
        links.main()
    assert exit_.value.code == 77
    assert capsys.readouterr().out.startswith("needs O_NOFOLLOW")


# -- example12


def run(part: Any) -> Any:
    """Run a coroutine; nothing may be reported to the loop by the end."""
    told: list[str] = []

    async def within_limit() -> Any:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["message"]))
        async with asyncio.timeout(LIMIT):
            return await part

    result = asyncio.run(within_limit())
    gc.collect()
    assert told == []
    return result


@pytest.mark.parametrize("n", [2, 3, 20])
def test_deposits_are_lost_across_await_and_nowhere_else(n: int) -> None:
    assert run(tasks_.deposit_together(n)) == (1, n, n)


def test_a_deposit_that_fails_leaves_the_account_to_the_others() -> None:
    async def fail() -> int:
        raise ArithmeticError("no amount")

    async def one() -> int:
        return 1

    async def deposit() -> int:
        account = tasks_.Account()
        with pytest.raises(ArithmeticError):
            await account.deposit_locked(fail)
        await account.deposit_locked(one)
        return account.balance

    assert run(deposit()) == 1


class Loads:
    """Notes what is loaded; a load ends when it is let go on, or fails."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.go_on = asyncio.Event()
        self.error: Exception | None = None

    async def __call__(self, key: str) -> str:
        self.keys.append(key)
        await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return key.upper()


async def turns() -> None:
    """Let all other tasks come to the point where they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


@settings(max_examples=10)
@given(cancelled=st.sets(st.integers(0, 5)))
def test_whoever_is_cancelled_the_others_get_the_value(cancelled: set[int]) -> None:
    async def ask() -> None:
        load = Loads()
        cache = tasks_.CacheFixed(load)
        tasks = [asyncio.create_task(cache.get("a")) for _ in range(6)]
        await turns()
        for n in cancelled:
            tasks[n].cancel()
        await turns()
        assert {n for n, task in enumerate(tasks) if task.done()} == cancelled
        load.go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for n, result in enumerate(results):
            if n in cancelled:
                assert isinstance(result, asyncio.CancelledError)
            else:
                assert result == "A"
        assert await cache.get("a") == "A"
        assert load.keys == ["a"]

    run(ask())


def test_each_key_is_loaded_once() -> None:
    async def ask() -> list[str]:
        load = Loads()
        load.go_on.set()
        cache = tasks_.CacheFixed(load)
        assert await asyncio.gather(*map(cache.get, "abab")) == ["A", "B", "A", "B"]
        assert await cache.get("b") == "B"
        return load.keys

    assert run(ask()) == ["a", "b"]


def test_a_load_that_fails_is_not_kept() -> None:
    async def ask() -> list[str]:
        load = Loads()
        load.go_on.set()
        load.error = OSError("first time")
        cache = tasks_.CacheFixed(load)
        for _ in range(2):
            with pytest.raises(OSError, match="first time"):
                await cache.get("a")
        load.error = None
        assert await cache.get("a") == "A"
        return load.keys

    assert run(ask()) == ["a", "a", "a"]


def test_a_load_that_fails_when_nobody_waits_any_more_is_not_reported() -> None:
    async def ask() -> list[str]:
        load = Loads()
        load.error = OSError("nobody asks")
        cache = tasks_.CacheFixed(load)
        task = asyncio.create_task(cache.get("a"))
        await turns()
        task.cancel()
        await turns()
        load.go_on.set()
        await turns()
        load.error = None
        assert await cache.get("a") == "A"
        return load.keys

    assert run(ask()) == ["a", "a"]


def test_a_load_that_is_cancelled_itself_is_not_kept() -> None:
    async def ask() -> str:
        load = Loads()
        cache = tasks_.CacheFixed(load)
        waiter = asyncio.create_task(cache.get("a"))
        await turns()
        (loading,) = asyncio.all_tasks() - {asyncio.current_task(), waiter}
        loading.cancel()
        await asyncio.wait([waiter])
        assert isinstance(waiter.exception(), RuntimeError)
        load.go_on.set()
        return await cache.get("a")

    assert run(ask()) == "A"


def test_a_load_that_is_cancelled_cancels_nobody_who_asked() -> None:
    async def load(_: str) -> str:
        raise asyncio.CancelledError

    async def ask() -> None:
        cache = tasks_.CacheFixed(load)
        for _ in range(2):  # it is not kept, either
            with pytest.raises(RuntimeError, match="load of k was cancelled"):
                await cache.get("k")

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("owner", "name", "instead"),
    [
        (tasks_.Account, "deposit_broken", tasks_.Account.deposit_locked),
        (tasks_.Account, "deposit_await_first", tasks_.Account.deposit_broken),
        (tasks_.Account, "deposit_locked", tasks_.Account.deposit_broken),
        (tasks_, "CacheBroken", tasks_.CacheFixed),
        (tasks_, "CacheFixed", tasks_.CacheBroken),
    ],
)
def test_tasks_that_go_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, instead: Any
) -> None:
    monkeypatch.setattr(tasks_, "LIMIT", 0.2)
    monkeypatch.setattr(owner, name, instead)
    with pytest.raises(SystemExit, match=r"instead of|not done in 0\.2 s"):
        run_main(tasks_, monkeypatch)


def test_a_failed_load_that_is_kept_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(*_: object) -> None:
        pass

    monkeypatch.setattr(tasks_.CacheFixed, "_drop_failed", keep)
    with pytest.raises(SystemExit, match="instead of"):
        run_main(tasks_, monkeypatch)


# -- example13


def number_in_file(folder: Path) -> processes_.NumberInFile:
    number = processes_.NumberInFile(folder / "number.txt")
    number.write(0)
    return number


@pytest.fixture(params=["memory", "file"])
def number(request: pytest.FixtureRequest, tmp_path: Path) -> processes_.Number:
    if request.param == "memory":
        return processes_.NumberInMemory()
    return number_in_file(tmp_path)


def test_a_whole_addition_between_read_and_write_is_lost(
    number: processes_.Number,
) -> None:
    processes_.add_broken(number, lambda: processes_.add_broken(number))
    assert number.read() == 1
    processes_.add_fixed(number)
    assert number.read() == 2


def test_nobody_else_adds_between_read_and_write(
    number: processes_.Number, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes_, "LIMIT", 0.01)
    refused: list[str] = []

    def add_in_vain() -> None:
        with ThreadPoolExecutor(1) as thread:  # to whom a lock is not free, either
            error = thread.submit(
                processes_.add_fixed, number, on_refused=lambda: refused.append("once")
            ).exception()
        assert isinstance(error, TimeoutError)
        assert "not free within 0.01 s" in str(error)

    processes_.add_fixed(number, add_in_vain)
    assert number.read() == 1
    assert refused == ["once"]


def test_who_waits_gets_the_lock_when_it_is_free(number: processes_.Number) -> None:
    waits = threading.Event()
    with ThreadPoolExecutor(1) as thread:

        def let_another_come() -> None:
            futures.append(
                thread.submit(processes_.add_fixed, number, on_refused=waits.set)
            )
            assert waits.wait(LIMIT)
            assert not futures[0].done()

        futures: list[Any] = []
        processes_.add_fixed(number, let_another_come)
        futures[0].result(LIMIT)
    assert number.read() == 2


def test_an_addition_that_fails_gives_the_lock_back(
    number: processes_.Number,
) -> None:
    def fail() -> None:
        raise ArithmeticError("cannot compute")

    with pytest.raises(ArithmeticError):
        processes_.add_fixed(number, fail)
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(processes_.is_free, number, 0).result(LIMIT)
    assert number.read() == 0


@posix
def test_a_lock_is_free_after_the_block_even_if_a_child_still_has_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, inherited = number_in_file(tmp_path), []
    plain = processes_.try_lock

    def try_lock(descriptor: int) -> bool:
        inherited.append(os.dup(descriptor))  # as fork() does
        return plain(descriptor)

    monkeypatch.setattr(processes_, "try_lock", try_lock)
    try:
        with number.locked(0):
            pass
        assert processes_.is_free(number, 0)
    finally:
        for descriptor in inherited:
            os.close(descriptor)


@posix
def test_a_lock_that_cannot_be_had_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        processes_.try_lock(987_654)


def test_no_process_is_left_after_the_additions(
    tmp_path: Path, start_method: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with nothing_is_left():
        processes_.show_additions(tmp_path, 2)
    assert "2 of 2, 0 lost" in capfd.readouterr().out


@contextmanager
def lock_of_nobody(*_: object) -> Iterator[None]:
    yield


def no_addition(*_: object) -> None:
    pass


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(),
    reason="needs fork: other children have the function as it was",
)
@pytest.mark.parametrize(
    ("owner", "name", "instead"),
    [
        (processes_, "add_broken", no_addition),
        (processes_.NumberInMemory, "locked", lock_of_nobody),
        (processes_.NumberInFile, "locked", lock_of_nobody),
    ],
)
def test_processes_that_go_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, owner: Any, name: str, instead: Any
) -> None:
    fork = multiprocessing.get_context("fork")
    monkeypatch.setattr(multiprocessing, "Process", fork.Process)
    monkeypatch.setattr(processes_, "LIMIT", 0.2)
    monkeypatch.setattr(owner, name, instead)
    with nothing_is_left(), pytest.raises(SystemExit, match=r"instead of|has failed"):
        processes_.show_additions(tmp_path, 2)


def test_a_lock_that_its_dead_holder_keeps_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes_, "is_free", lambda number, timeout: False)
    with nothing_is_left(), pytest.raises(SystemExit, match="free locks"):
        processes_.show_killed_holder(tmp_path)


# -- example14

Connections = Sequence[sqlite3.Connection]


@pytest.fixture
def connections(tmp_path: Path) -> Iterator[Connections]:
    with ExitStack() as stack:
        opened = [
            stack.enter_context(closing(databases.connect(tmp_path / "bank", 0)))
            for _ in range(4)
        ]
        opened[0].executescript(databases.SCHEMA)
        yield opened


DEPOSITS = [
    databases.deposit_broken,
    databases.deposit_deferred,
    databases.deposit_immediate,
    databases.deposit_in_one,
    databases.deposit_optimistic,
]


def balance_of(connection: sqlite3.Connection) -> int:
    return databases.read(connection)[0]


def test_a_connection_waits_as_long_as_it_was_told(tmp_path: Path) -> None:
    with closing(databases.connect(tmp_path / "bank", 2.5)) as connection:
        assert connection.execute("PRAGMA busy_timeout").fetchall() == [(2500,)]
        assert connection.isolation_level is None


@pytest.mark.parametrize("deposit", DEPOSITS)
def test_deposits_one_after_the_other_are_all_there(
    connections: Connections, deposit: Callable[..., object]
) -> None:
    for connection in connections:
        deposit(connection)
    assert balance_of(connections[0]) == 4


@pytest.mark.parametrize(
    ("deposit", "balance", "results"),
    [
        (databases.deposit_broken, 1, [None] * 4),
        (databases.deposit_deferred, 1, [None] + ["SQLITE_BUSY_SNAPSHOT"] * 3),
        (databases.deposit_immediate, 1, ["SQLITE_BUSY", None]),
        (databases.deposit_in_one, 4, [1, 2, 3, 4]),
        (databases.deposit_optimistic, 4, [0, 1, 1, 1]),
    ],
)
def test_what_becomes_of_deposits_if_all_read_first(
    connections: Connections,
    deposit: Callable[[sqlite3.Connection, databases.Between], object],
    balance: int,
    results: list[object],
) -> None:
    assert databases.all_read_first(deposit, connections) == results
    assert balance_of(connections[0]) == balance
    assert not any(connection.in_transaction for connection in connections)


def test_without_wal_the_one_who_writes_waits_for_the_readers(
    connections: Connections,
) -> None:
    (mode,) = connections[0].execute("PRAGMA journal_mode = DELETE").fetchone()
    assert mode == "delete"
    results = databases.all_read_first(databases.deposit_deferred, connections[:2])
    assert results == ["SQLITE_BUSY", None]
    assert balance_of(connections[0]) == 1


@pytest.mark.parametrize("mode", ["DEFERRED", "IMMEDIATE"])
def test_a_transaction_that_fails_is_rolled_back(
    connections: Connections, mode: str
) -> None:
    def fail() -> None:
        with databases.begin(connections[0], mode):
            databases.deposit_broken(connections[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not connections[0].in_transaction
    databases.deposit_immediate(connections[1])
    assert balance_of(connections[1]) == 1


def test_compare_and_set_goes_on_until_nobody_came_between(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, *_ = connections
    interruptions = 0
    plain = databases.read

    def interrupted_read(connection: sqlite3.Connection) -> tuple[int, int]:
        nonlocal interruptions
        seen = plain(connection)
        if connection is one and interruptions < 3:
            interruptions += 1
            databases.deposit_optimistic(other)
        return seen

    monkeypatch.setattr(databases, "read", interrupted_read)
    assert databases.deposit_optimistic(one) == 3
    assert plain(one) == (4, 4)


def test_the_refused_try_again_and_get_in(connections: Connections) -> None:
    assert databases.refused_then_again(connections) == ["SQLITE_BUSY"] * 3
    assert balance_of(connections[0]) == 4


def test_who_has_time_waits_for_the_holder(
    connections: Connections, tmp_path: Path
) -> None:
    with nothing_is_left():
        assert 0 < databases.wait_for(connections[0], tmp_path / "bank") < LIMIT
    assert balance_of(connections[0]) == 2


def test_a_name_is_inserted_once_where_it_must_be_unique(
    connections: Connections,
) -> None:
    for insert in (databases.insert_broken, databases.insert_fixed):
        assert insert(connections[0])
        assert not insert(connections[1])
        connections[0].execute("DELETE FROM name_broken")
        connections[0].execute("DELETE FROM name_fixed")
    insert_all = databases.all_read_first
    assert insert_all(databases.insert_broken, connections) == [True] * 4
    assert insert_all(databases.insert_fixed, connections) == [True] + [False] * 3


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("deposit_broken", databases.deposit_in_one),
        ("deposit_deferred", databases.deposit_broken),
        ("deposit_in_one", databases.deposit_broken),
        ("deposit_optimistic", databases.deposit_broken),
        ("deposit_immediate", databases.deposit_broken),
        ("deposit_immediate", databases.deposit_deferred),
        ("insert_broken", databases.insert_fixed),
        ("insert_fixed", databases.insert_broken),
    ],
)
def test_databases_that_go_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Callable[..., object]
) -> None:
    monkeypatch.setattr(databases, name, instead)
    with nothing_is_left(), pytest.raises(SystemExit, match=r"instead of|not to come"):
        run_main(databases, monkeypatch)


def test_an_old_sqlite_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(SystemExit) as exit_:
        run_main(databases, monkeypatch)
    assert exit_.value.code == 77
    assert capsys.readouterr().out.startswith("needs SQLite 3.35")


@pytest.mark.parametrize(
    "other", [databases.deposit_in_one, databases.deposit_immediate]
)
def test_another_way_to_deposit_is_noticed_by_compare_and_set(
    connections: Connections, other: Callable[..., object]
) -> None:
    ours, theirs, *_ = connections
    assert databases.deposit_optimistic(ours, lambda: other(theirs)) == 1
    assert databases.read(ours)[0] == 2
