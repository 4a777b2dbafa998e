# /// script
# requires-python = ">=3.11"
# dependencies = ["trustme>=1.1.0"]
# ///
"""TLS: a certificate says who is at the other end, to those who trust its authority.

TLS encrypts, and proves who the server is. The proof is a certificate: a key and a
name, signed by an authority. A client that has not been told to trust that authority
gives up before it has sent a byte of what it has to say; so does one that means another
name, or comes after the last day. That is no obstacle to be switched off: without the
check, the server may be whoever sits in between. Tell the client which authority to
trust.

A server may want to know its clients, too (mutual TLS): they show a certificate, and it
trusts an authority of its own. Since TLS 1.3 a client without one takes its handshake
for done, and learns at its first read that it is not welcome.

For asyncio all that is one argument, `ssl=`; streams and protocols stay the same. Here
trustme makes authorities and certificates, which are gone in the end. For a server in
the open there is Let's Encrypt.

Try:  --serve --port 8443

Output:
    trusts the authority            hello
    does not                        not trusted: CERTIFICATE_VERIFY_FAILED
    means another name              another name: CERTIFICATE_VERIFY_FAILED
    speaks plain text               refused at its first read
    trusts, once more               hello
    trusts, but too late            expired: CERTIFICATE_VERIFY_FAILED
    certificate: of a known client  hello
    certificate: of a stranger      refused at its first read
    certificate: none               refused at its first read
    certificate: none, TLS 1.2      refused in its handshake
    so let in                       ann@example.org
    only who can be proven to be meant is talked to
"""

import argparse
import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

HOST = "127.0.0.1"
NAME = "localhost"  # that the certificate is for
LINE_LIMIT = 1024  # bytes
PATIENCE = 5.0  # seconds for a handshake, and for the end of a connection
TIME_LIMIT = 20.0  # seconds for the whole demonstration
NEEDS_STATUS = 77  # exit status of a script that cannot run here


def server_context(
    certificate: Path, clients_authority: Path | None = None
) -> ssl.SSLContext:
    """Return what a server needs to prove who it is.

    Args:
        certificate: file with the private key, the certificate, and those between it
            and its authority (PEM).
        clients_authority: file with the authority whose certificates clients have to
            show; None if they need none.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    if clients_authority is not None:
        context.load_verify_locations(clients_authority)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    authority: Path | None = None, certificate: Path | None = None
) -> ssl.SSLContext:
    """Return what a client needs to know whom to trust.

    Args:
        authority: file with the authority to trust (PEM); None for those that the
            system trusts.
        certificate: as of a server, if the client is to prove who it is.
    """
    context = ssl.create_default_context(cafile=authority)
    if certificate is not None:
        context.load_cert_chain(certificate)
    return context


@contextmanager
def failed_handshakes_untold() -> Iterator[None]:
    """Let asyncio not report, in debug mode, each client whose handshake fails.

    There always are some, and it is they who are told. All else goes to the running
    loop's handler of exceptions, as before.
    """
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()

    def on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        connecting = "transport" in context and "future" not in context
        if connecting and isinstance(context.get("exception"), OSError):
            return
        if before is None:
            loop.default_exception_handler(context)
        else:
            before(loop, context)

    loop.set_exception_handler(on_error)
    try:
        yield
    finally:
        loop.set_exception_handler(before)


class EchoServer:
    """Sends back lines over TLS, for the length of an `async with` block.

    Attributes:
        port: where it listens.
        clients: the name on the certificate of each client that was let in, "" where
            none was asked for.
    """

    def __init__(self, context: ssl.SSLContext, port: int = 0) -> None:
        self.port = port
        self.clients: list[str] = []
        self._context = context
        self._conversations: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._connected,
            HOST,
            self.port,
            limit=LINE_LIMIT,
            ssl=self._context,
            ssl_handshake_timeout=PATIENCE,
            ssl_shutdown_timeout=PATIENCE,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            # Who is being accepted in this turn is connected before the timer rings.
            await asyncio.sleep(0.001)
        finally:
            self._server.close()
            for task in self._conversations:
                task.cancel()
            if self._conversations:
                await asyncio.wait(self._conversations)
            # Who is still in its handshake. Before Python 3.13 nobody can get at these:
            # they are closed when it is over, or its time.
            if hasattr(self._server, "abort_clients"):
                self._server.abort_clients()
                await self._server.wait_closed()

    def _connected(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        # After the handshake: who fails in it does not come here.
        def ended(task: asyncio.Task[None]) -> None:
            writer.transport.abort()  # does nothing to one that is closed
            self._conversations.discard(task)

        if not self._server.is_serving():  # its handshake took longer than the block
            writer.transport.abort()
            return
        task = asyncio.create_task(self._echo(reader, writer))
        self._conversations.add(task)
        task.add_done_callback(ended)

    async def _echo(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.clients.append(name_on(writer.get_extra_info("peercert")))
        # Gone, or a line too long: nothing more to say.
        with suppress(OSError):
            with suppress(ValueError):
                while line := await reader.readline():
                    writer.write(line)
                    await writer.drain()
                    await asyncio.sleep(0)  # who sends much lets others have a turn
            writer.close()
            await writer.wait_closed()


def name_on(certificate: Mapping[str, Any] | None) -> str:
    """Return the first name on a certificate, given as by getpeercert; "" for none."""
    names = (certificate or {}).get("subjectAltName", ())
    return str(names[0][1]) if names else ""


@asynccontextmanager
async def connection(
    port: int, context: ssl.SSLContext | None, name: str = NAME
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to the server called `name`, for the length of a block.

    Args:
        context: None for plain text.

    Raises:
        ssl.SSLCertVerificationError: the server cannot prove that it is `name`.
    """
    reader, writer = await asyncio.open_connection(
        HOST, port, ssl=context, server_hostname=name if context is not None else None
    )
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):  # whoever has hung up does not say goodbye
            await writer.wait_closed()


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes
) -> bytes:
    """Send a line; return what comes back.

    Raises:
        ConnectionError: the server has hung up without an answer.
        ssl.SSLError: it says why.
    """
    writer.write(line)
    answer = await reader.readline()
    if not answer:
        raise ConnectionAbortedError("hung up without an answer")
    return answer


@dataclass(frozen=True, slots=True)
class Files:
    """Certificates and authorities, in files (PEM), as programs use to get them."""

    authority: Path
    server: Path  # its key and certificate, for NAME
    expired: Path  # the same, but no longer valid
    client: Path  # key and certificate of a client, from the same authority
    stranger: Path  # and from another


@contextmanager
def made_on_the_spot() -> Iterator[Files]:
    """Make authorities and certificates, for the length of a block.

    Raises:
        ModuleNotFoundError: trustme is not installed.
    """
    import trustme

    ours, other = trustme.CA(), trustme.CA()
    yesterday = datetime.now(UTC) - timedelta(days=1)
    made = {
        "server": ours.issue_cert(NAME),
        "expired": ours.issue_cert(NAME, not_after=yesterday),
        "client": ours.issue_cert("ann@example.org"),
        "stranger": other.issue_cert("bob@example.org"),
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ours.cert_pem.write_to_path(folder / "authority.pem")
        for kind, certificate in made.items():
            certificate.private_key_and_cert_chain_pem.write_to_path(
                folder / f"{kind}.pem"
            )
        yield Files(
            folder / "authority.pem", *(folder / f"{kind}.pem" for kind in made)
        )


async def outcome(port: int, context: ssl.SSLContext | None, name: str = NAME) -> str:
    """Return what comes of a client that sends a line."""
    connected = False
    try:
        async with connection(port, context, name) as streams:
            connected = True
            return (await ask(*streams, b"hello\n")).decode().strip()
    except ssl.SSLCertVerificationError as error:
        return REASONS.get(error.verify_code, error.verify_message)
    except OSError:  # a reset, an alert, or just the end
        return "refused at its first read" if connected else "refused in its handshake"


async def demonstrate(files: Files) -> dict[str, str]:
    """Return what comes of each client."""
    trusting = client_context(files.authority)
    async with asyncio.timeout(TIME_LIMIT):
        async with EchoServer(server_context(files.server)) as server:
            port = server.port
            got = {
                "trusts the authority": await outcome(port, trusting),
                "does not": await outcome(port, client_context()),
                "means another name": await outcome(port, trusting, "example.org"),
                "speaks plain text": await outcome(port, None),
                "trusts, once more": await outcome(port, trusting),
            }
        async with EchoServer(server_context(files.expired)) as server:
            got["trusts, but too late"] = await outcome(server.port, trusting)
        mutual = server_context(files.server, clients_authority=files.authority)
        async with EchoServer(mutual) as server:
            for kind, certificate in {
                "of a known client": files.client,
                "of a stranger": files.stranger,
                "none": None,
            }.items():
                context = client_context(files.authority, certificate)
                got[f"certificate: {kind}"] = await outcome(server.port, context)
            trusting.maximum_version = ssl.TLSVersion.TLSv1_2
            got["certificate: none, TLS 1.2"] = await outcome(server.port, trusting)
            got["so let in"] = ", ".join(server.clients)
    return got


async def quietly(files: Files) -> dict[str, str]:
    """Return the same, with nothing on stderr in debug mode either."""
    with failed_handshakes_untold():
        return await demonstrate(files)


async def serve(files: Files, port: int) -> None:
    """Serve until cancelled."""
    with failed_handshakes_untold():
        async with EchoServer(server_context(files.server), port) as server:
            print(f"serving on {HOST} port {server.port} until Ctrl-C", flush=True)
            await asyncio.Event().wait()


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"must be in 0 … 65535, not {number}")
    return number


# What OpenSSL means by its numbers, whose words differ from version to version.
REASONS = dict.fromkeys((18, 19, 20, 21), "not trusted: CERTIFICATE_VERIFY_FAILED") | {
    10: "expired: CERTIFICATE_VERIFY_FAILED",
    62: "another name: CERTIFICATE_VERIFY_FAILED",
}
EXPECTED = {
    "trusts the authority": "hello",
    "does not": REASONS[19],
    "means another name": REASONS[62],
    "speaks plain text": "refused at its first read",
    "trusts, once more": "hello",
    "trusts, but too late": REASONS[10],
    "certificate: of a known client": "hello",
    "certificate: of a stranger": "refused at its first read",
    "certificate: none": "refused at its first read",
    "certificate: none, TLS 1.2": "refused in its handshake",
    "so let in": "ann@example.org",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", action="store_true", help="until Ctrl-C")
    parser.add_argument("--port", type=port, default=0, help="of --serve; 0: any free")
    options = parser.parse_args()
    if options.port and not options.serve:
        parser.error("--port goes with --serve")
    try:
        with made_on_the_spot() as files:
            if options.serve:
                asyncio.run(serve(files, options.port))
                return
            got = asyncio.run(quietly(files))
    except ModuleNotFoundError as error:
        print(f"needs {error.name}: pip install {error.name}")
        raise SystemExit(NEEDS_STATUS) from None
    except KeyboardInterrupt:
        if options.serve:
            return  # by now all is closed
        raise
    except OSError as error:
        if options.serve:
            raise SystemExit(f"port {options.port}: {error}") from None
        raise

    for client, came in got.items():
        print(f"{client:32}{came}")
    if got != EXPECTED:
        raise SystemExit("not what was to come of them")
    print("only who can be proven to be meant is talked to")


if __name__ == "__main__":
    main()
