"""Chapter 11, Unix domain sockets: the parts a reader would copy."""

import asyncio
import errno
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import example14_unix_sockets as unix
import pytest
from serving import LIMIT, run

pytestmark = pytest.mark.skipif(
    not hasattr(asyncio, "start_unix_server"), reason="needs Unix domain sockets"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not pytest's: its path might be too long for a socket's.
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def leave_a_dead_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()


def errno_of_binding(path: Path) -> int | None:
    try:
        unix.bind_unix(path).close()
    except OSError as error:
        return error.errno if error.filename == str(path) else None
    return None


def test_socket_is_for_its_user_alone(folder: Path) -> None:
    with unix.bind_unix(folder / "s"):
        assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o600


@pytest.mark.parametrize("letter", ["x", "é"])
def test_length_of_a_path_is_in_bytes(letter: str, folder: Path) -> None:
    room = unix.LONGEST_PATH - len(os.fsencode(folder)) - 1
    size = len(letter.encode())
    fits = folder / (room // size * letter + room % size * "y")
    too_long = fits.with_name(fits.name + "y")
    assert errno_of_binding(fits) is None
    assert errno_of_binding(too_long) == errno.ENAMETOOLONG


@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "link"])
def test_what_is_no_socket_is_refused_and_kept(kind: str, folder: Path) -> None:
    path = folder / "s"
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "link":  # to a dead socket, even
            leave_a_dead_socket(folder / "other")
            path.symlink_to(folder / "other")
    before = path.lstat()
    assert errno_of_binding(path) == errno.EEXIST
    assert os.path.samestat(path.lstat(), before)


def test_folder_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none"):
        unix.bind_unix(folder / "none" / "s")


def test_dead_socket_is_replaced(folder: Path) -> None:
    path = folder / "s"
    leave_a_dead_socket(path)
    assert not unix.is_alive(path)
    with unix.bind_unix(path):
        assert unix.is_alive(path)
    assert not unix.is_alive(path)


def test_live_server_is_refused_even_while_it_accepts_nobody(folder: Path) -> None:
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen(0)
        waiting = []
        try:
            while True:  # until there is no room in the queue
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(os.fspath(path))
        except OSError as error:
            # On Linux; elsewhere a full queue refuses, as a dead server does.
            if not isinstance(error, BlockingIOError):
                pytest.skip("this system refuses who finds the queue full")
        finally:
            for client in waiting:
                client.close()
        assert errno_of_binding(path) == errno.EADDRINUSE
        assert path.is_socket()


def test_one_of_many_replaces_a_dead_socket(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix, "PATIENCE", LIMIT)
    path = folder / "s"
    n = 8
    barrier = threading.Barrier(n)
    winners = []

    def bind(_: int) -> int | None:
        barrier.wait(LIMIT)
        try:
            winners.append(unix.bind_unix(path))
        except OSError as error:
            return error.errno
        return None

    with ThreadPoolExecutor(n) as pool:
        for _ in range(20):
            leave_a_dead_socket(path)
            outcomes = list(pool.map(bind, range(n)))
            assert sorted(outcomes, key=str) == (n - 1) * [errno.EADDRINUSE] + [None]
            assert unix.is_alive(path)
            winners.pop().close()
            path.unlink()


def test_lock_of_a_folder_excludes_and_ends_with_its_block(folder: Path) -> None:
    entered = threading.Event()

    def enter() -> None:
        with unix.folder_locked(folder):
            entered.set()

    thread = threading.Thread(target=enter)
    with unix.folder_locked(folder):
        thread.start()
        assert not entered.wait(0.02)
    thread.join(LIMIT)
    assert entered.is_set()


def test_a_lock_that_is_not_given_back_stops_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unix, "PATIENCE", 0.05)
    with unix.folder_locked(folder), pytest.raises(BlockingIOError, match=folder.name):
        unix.bind_unix(folder / "s")

    async def scenario() -> None:
        async with unix.listening(folder / "s"):
            lock.__enter__()

    lock = unix.folder_locked(folder)
    run(scenario())  # its end cannot have the lock
    lock.__exit__(None, None, None)


def test_listener_is_closed_if_it_cannot_be_had(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "chmod", fail)
    with pytest.raises(PermissionError):  # and no ResourceWarning
        unix.bind_unix(folder / "s")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_peer_is_who_has_connected(folder: Path) -> None:
    code = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX);"
        "s.connect(sys.argv[1]); sys.stdin.read()"
    )
    with (
        unix.bind_unix(folder / "s") as listener,
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder / "s")], stdin=subprocess.PIPE
        ) as process,
    ):
        listener.settimeout(LIMIT)
        connection = listener.accept()[0]
        with connection:
            expected = unix.Peer(process.pid, os.getuid(), os.getgid())
            assert unix.peer_of(connection) == expected


def test_each_client_gets_its_own_lines(folder: Path) -> None:
    async def scenario() -> list[bytes]:
        async with unix.listening(folder / "s") as echo:
            lines = [f"{n}\n".encode() for n in range(50)]
            asking = [unix.ask(folder / "s", line) for line in lines]
            assert await asyncio.gather(*asking) == lines
            assert len(echo.peers) == 50
        return lines

    run(scenario())
    assert list(folder.iterdir()) == []


def test_other_users_are_not_listened_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = unix.Peer(os.getpid(), os.getuid() + 1, os.getgid())
    monkeypatch.setattr(unix, "peer_of", lambda _: other)

    async def scenario() -> None:
        async with unix.listening(folder / "s") as echo:
            try:
                answer = await unix.ask(folder / "s", b"hello\n")
            except ConnectionError:
                answer = b""
            assert (answer, echo.peers) == (b"", [other])

    run(scenario())


def test_endless_line_ends_one_conversation_without_a_word(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with unix.listening(folder / "s"):
            _, writer = streams = await asyncio.open_unix_connection(folder / "s")
            writer.write(200_000 * b"x")
            try:
                assert await streams[0].read() == b""
            except ConnectionError:
                pass
            finally:
                writer.close()
            assert await unix.ask(folder / "s", b"hello\n") == b"hello\n"

    run(scenario())
    assert not [r for r in caplog.records if "exception" in r.getMessage()]


def test_end_of_the_server_ends_conversations(folder: Path) -> None:
    async def scenario() -> None:
        async with unix.listening(folder / "s"):
            idle = await asyncio.open_unix_connection(folder / "s")
        with pytest.raises(FileNotFoundError):
            await unix.ask(folder / "s", b"")
        try:
            assert await idle[0].read() == b""
        except ConnectionError:
            pass
        finally:
            idle[1].close()

    run(scenario())


def test_file_of_another_server_is_left_alone(folder: Path) -> None:
    path = folder / "s"

    async def scenario() -> None:
        async with unix.listening(path):
            path.unlink()
            other = unix.bind_unix(path)
        with other:
            assert unix.is_alive(path)

    run(scenario())


def test_file_goes_with_the_server_whatever_ended_it(folder: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(ZeroDivisionError):
            async with unix.listening(folder / "s"):
                raise ZeroDivisionError

    run(scenario())
    assert list(folder.iterdir()) == []


def test_answer_that_is_not_what_was_sent_is_noticed(folder: Path) -> None:
    async def scenario() -> None:
        def liar(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"pong\n")
            writer.close()

        async with await asyncio.start_unix_server(liar, folder / "s"):
            streams = await asyncio.open_unix_connection(folder / "s")
            with pytest.raises(ConnectionError, match="not what was sent"):
                await unix.trips_per_second(*streams)

    run(scenario())


def test_folder_that_is_too_deep_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = folder / (unix.LONGEST_PATH * "d")
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with pytest.raises(SystemExit, match="set TMPDIR"):
        unix.main()
