"""A Unix domain socket: streams between processes of one machine, named by a file.

There is no port that any user could connect to: the file's mode, and above all the
folder's, says who may, and Linux tells the server which process and user has connected.
The path has room for about 100 bytes, much less than other paths.

The file outlives a server that crashes, and bind fails at what is there. So asyncio's
start_unix_server(path) removes any socket that it finds, even one of a server that is
alive and goes on, with no client ever finding it again. `bind_unix` tries to connect
first: only where nobody answers it removes the file. A lock of the folder keeps two
that start at the same time from removing each other's.

Output:
    another file   refused, and kept
    200 characters refused: the path is too long
    dead server    its file was replaced
    who may        the owner: folder 0700, socket 0600
    who has        this process and user (Linux; not known elsewhere)
    live server    refused; the server goes on
    asyncio alone  the second server answers; the first lives on, unheard
    round trips    4763/s, over TCP 4517/s: 1.05x
    in the end no file is left
"""

import asyncio
import errno
import os
import signal
import socket
import stat
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
LONGEST_PATH = 103  # bytes that every system has room for; Linux for 4 more
ROUND_TRIPS = 200
PATIENCE = 0.5  # seconds for the lock of a folder, which is held but for a moment
TIME_LIMIT = 20.0  # seconds for the whole demonstration
NEEDS_STATUS = 77  # exit status of a script that cannot run here


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Hold a lock on `folder`; the system releases it if this process dies.

    Raises:
        BlockingIOError: somebody else has held it for PATIENCE seconds. Whoever may
            read the folder can do so, and is not to stop an event loop by that.
    """
    import fcntl  # Windows has none

    deadline = time.monotonic() + PATIENCE
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    error.filename = str(folder)
                    raise
            time.sleep(PATIENCE / 100)
        yield
    finally:
        os.close(descriptor)


def is_alive(path: Path) -> bool:
    """Tell whether a server listens at the socket `path`.

    Raises:
        OSError: nobody can tell, say for want of permission.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # it would wait where the backlog is full
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
        return True


def bind_unix(path: Path) -> socket.socket:
    """Return a socket that listens at `path`, for this user alone.

    A socket that a dead server has left there is replaced.

    Raises:
        OSError: the path is too long, or is something else than a socket; or a live
            server has it (EADDRINUSE); or the file cannot be made; as `folder_locked`.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:  # bind would not say which
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    with folder_locked(path.parent):
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise FileExistsError(errno.EEXIST, "not a socket", str(path))
            if is_alive(path):
                raise OSError(errno.EADDRINUSE, "has a live server", str(path))
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(os.fspath(path))
            path.chmod(0o600)  # before anybody can connect
            listener.listen(100)
        except BaseException:
            listener.close()
            raise
    return listener


@dataclass(frozen=True, slots=True)
class Peer:
    """Who has connected."""

    pid: int
    uid: int
    gid: int


def peer_of(connection: socket.socket) -> Peer | None:
    """Return who has connected, by the kernel's word; None where it does not say.

    `connection` may be the one that asyncio gives as get_extra_info("socket").
    """
    if sys.platform != "linux":
        return None
    packed = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")
    )
    return Peer(*struct.unpack("3i", packed))


class Echo:
    """Sends lines back, as long as its block lasts; give `connected` to a server."""

    def __init__(self) -> None:
        self.peers: list[Peer | None] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Begin a conversation, unless another user has connected."""

        def ended(task: asyncio.Task[None]) -> None:
            writer.transport.abort()
            self._tasks.discard(task)

        connection = writer.get_extra_info("socket")
        if connection.family != socket.AF_INET:
            peer = peer_of(connection)
            self.peers.append(peer)
            if peer is not None and peer.uid != os.getuid():
                writer.transport.abort()
                return
        task = asyncio.create_task(self._converse(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(ended)

    async def _converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError, ValueError):  # a line of more than 64 KiB
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()

    async def __aenter__(self) -> "Echo":
        return self

    async def __aexit__(self, *_: object) -> None:
        for _turn in range(3):  # by then who was accepted is here
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@asynccontextmanager
async def listening(path: Path) -> AsyncIterator[Echo]:
    """Send lines back at `path`; remove the file in the end.

    Raises:
        OSError: as `bind_unix`.
    """
    with bind_unix(path) as listener:
        ours = path.lstat()
        async with Echo() as echo:
            server = await asyncio.start_unix_server(echo.connected, sock=listener)
            try:
                yield echo
            finally:
                try:
                    # Who is being accepted is connected before the timer rings.
                    await asyncio.sleep(0.001)
                finally:
                    server.close()
                    # From 3.13 on asyncio has done so. It may be another's by now. If
                    # it cannot be removed, the next server replaces it.
                    gone = suppress(FileNotFoundError, BlockingIOError)
                    with gone, folder_locked(path.parent):
                        if os.path.samestat(path.lstat(), ours):
                            path.unlink()


async def ask(path: Path, line: bytes) -> bytes:
    """Return what the server at `path` answers to `line`.

    Raises:
        OSError: there is none.
    """
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        writer.write(line)
        return await reader.readline()
    finally:
        writer.close()


async def trips_per_second(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> float:
    """Send a line and wait for it to come back, again and again."""
    try:
        began = time.perf_counter()
        for _ in range(ROUND_TRIPS):
            writer.write(b"ping\n")
            if await reader.readline() != b"ping\n":
                raise ConnectionError("not what was sent")
        return ROUND_TRIPS / (time.perf_counter() - began)
    finally:
        writer.close()


async def try_one_path(path: Path) -> None:
    """Let a server meet all that may be at `path` already; print what happens."""
    path.write_text("precious")
    refusals = []
    for there, kind in ((path, FileExistsError), (path.parent / (200 * "x"), OSError)):
        try:
            bind_unix(there).close()
        except kind as error:
            refusals.append(error.errno)
    if refusals != [errno.EEXIST, errno.ENAMETOOLONG]:
        raise SystemExit(f"a file and a long path were to be refused: {refusals}")
    print("another file   refused, and kept")
    print("200 characters refused: the path is too long")
    path.unlink()

    bind_unix(path).close()  # what a server leaves that is killed
    if not path.is_socket() or is_alive(path):
        raise SystemExit("a dead server's file was to be there")
    async with listening(path) as echo:
        if await ask(path, b"hello\n") != b"hello\n":
            raise SystemExit("not the answer of the new server")
        print("dead server    its file was replaced")
        modes = [stat.S_IMODE(where.stat().st_mode) for where in (path.parent, path)]
        if modes != [0o700, 0o600]:
            raise SystemExit(f"others might connect: {modes}")
        print("who may        the owner: folder 0700, socket 0600")
        if echo.peers[0] not in {None, Peer(os.getpid(), os.getuid(), os.getgid())}:
            raise SystemExit(f"another peer than expected: {echo.peers[0]}")
        print("who has        this process and user (Linux; not known elsewhere)")
        try:
            bind_unix(path).close()
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            raise SystemExit("a live server's file was replaced")
        if await ask(path, b"still there?\n") != b"still there?\n":
            raise SystemExit("the live server has gone")
        print("live server    refused; the server goes on")
    if path.exists():
        raise SystemExit("the server has left its file")


async def steal(path: Path) -> None:
    """Start two servers at one path as asyncio does; print which of them answers."""

    def answering(line: bytes) -> "asyncio.streams._ClientConnectedCallback":
        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(line)
            writer.close()

        return connected

    async with (
        await asyncio.start_unix_server(answering(b"first\n"), path) as first,
        await asyncio.start_unix_server(answering(b"second\n"), path),
    ):
        answer = await ask(path, b"")
        if (answer, first.is_serving()) != (b"second\n", True):
            raise SystemExit(f"the second was to answer, not {answer!r}")
    print("asyncio alone  the second server answers; the first lives on, unheard")
    path.unlink(missing_ok=True)  # before 3.13, asyncio leaves it


async def demonstrate(folder: Path) -> None:
    """Show all that may happen, and compare with TCP."""
    async with asyncio.timeout(TIME_LIMIT):
        path = folder / "s"
        await try_one_path(path)
        await steal(path)

        async with listening(path):
            streams = await asyncio.open_unix_connection(path)
            unix = await trips_per_second(*streams)
        tcp = await over_tcp()
        print(f"round trips    {unix:.0f}/s, over TCP {tcp:.0f}/s: {unix / tcp:.2f}x")
        if left := list(folder.iterdir()):
            raise SystemExit(f"left behind: {left}")
        print("in the end no file is left")


async def over_tcp() -> float:
    """Return round trips per second over the loopback."""
    async with Echo() as echo:
        server = await asyncio.start_server(echo.connected, HOST, 0)
        try:
            port = server.sockets[0].getsockname()[1]
            return await trips_per_second(*await asyncio.open_connection(HOST, port))
        finally:
            server.close()


def main() -> None:
    if not hasattr(asyncio, "start_unix_server"):  # as on Windows
        print("needs Unix domain sockets")
        raise SystemExit(NEEDS_STATUS)
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        name = stack.enter_context(tempfile.TemporaryDirectory())  # for this user alone
        # Ctrl-C while the folder is removed would leave it behind.
        stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)
        if len(name) + 2 > LONGEST_PATH:
            raise SystemExit(f"{name}: too long for a socket's path; set TMPDIR")
        asyncio.run(demonstrate(Path(name)))


if __name__ == "__main__":
    main()
