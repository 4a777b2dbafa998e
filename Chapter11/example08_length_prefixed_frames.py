"""Messages over a stream of bytes: each follows its length, and no cut can harm it.

TCP does not carry where one send ended and the next began. A program that takes each
read for a message works on an idle machine, and fails when two messages come in one
read, or one in two. Here every message is a frame: its length in four bytes, most
significant first, then its bytes, whatever they are.

The decoder does no I/O. It takes bytes in any portions and yields messages, so that
threads, a Protocol or streams can use it, and a test can try every cut. It distrusts
the length: garbage read as one may ask for 4 GiB, and a length that is read as signed
may be negative, which is less than any limit. The stream may end only between frames.
Each byte is copied a fixed number of times, in however many portions it comes.

Output:
    2 messages, 10 bytes, 512 ways to cut them
    one read, one message  right in   1
    FrameDecoder           right in 512
    ended early            noticed at 8 of 8 places
    garbage                a message of 1195725856 bytes; 0 … 1048576 are allowed
    length ff ff ff ff     a message of 4294967295 bytes; 0 … 1048576 are allowed
    the same, as signed    a message of -1 bytes; 0 … 1048576 are allowed
    over a connection      2 answers, then hung up on the garbage
"""

import asyncio
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import combinations, pairwise

LIMIT = 2**20  # bytes of a message
HEADER = struct.Struct(">I")
SIGNED_HEADER = struct.Struct(">i")  # as in Java's DataOutputStream.writeInt
TIME_LIMIT = 20.0  # seconds for what goes through a socket


class FrameError(Exception):
    """The bytes are not frames. What follows cannot be understood: hang up."""


def frame(message: bytes, limit: int = LIMIT) -> bytes:
    """Return `message` with its length before it.

    Raises:
        FrameError: it is longer than `limit`, so that the other side would refuse it.
    """
    return HEADER.pack(checked_length(len(message), limit)) + message


def checked_length(length: int, limit: int) -> int:
    """Return `length` if a message may have it.

    Raises:
        FrameError: it may not.
    """
    if not 0 <= length <= limit:
        raise FrameError(f"a message of {length} bytes; 0 … {limit} are allowed")
    return length


class FrameDecoder:
    """Turns a stream of bytes, in whatever portions it comes, into messages.

    Args:
        limit: bytes that a message may have.
        signed: read lengths as signed; where others write them so, a negative one is
            named as such.
    """

    def __init__(self, limit: int = LIMIT, *, signed: bool = False) -> None:
        self._limit = limit
        self._header = SIGNED_HEADER if signed else HEADER
        self._buffer = bytearray()
        self._start = 0  # of the first frame in the buffer that has not been taken

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Add what has been read; give an iterator over the messages now complete.

        The bytes are kept even if nobody iterates: a later iterator goes on there.

        Raises:
            FrameError: from the iterator, when it comes to a length that no message
                may have. The messages before have been yielded.
        """
        # What has been taken is dropped here, once a call, and not once a message:
        # what is left to be moved is then part of the portion that came last.
        del self._buffer[: self._start]
        self._start = 0
        self._buffer += data
        return self._messages()

    def close(self) -> None:
        """Confirm that the stream may end here, when all messages have been taken.

        Raises:
            FrameError: it ends in the middle of a frame.
        """
        if left := len(self._buffer) - self._start:
            raise FrameError(f"the stream ended {left} bytes into a frame")

    def _messages(self) -> Iterator[bytes]:
        while (begin := self._start + self._header.size) <= len(self._buffer):
            (length,) = self._header.unpack_from(self._buffer, self._start)
            end = begin + checked_length(length, self._limit)
            if end > len(self._buffer):
                return
            self._start = end  # before the yield: who gets it may feed, or never return
            yield bytes(self._buffer[begin:end])


async def read_frame(reader: asyncio.StreamReader, limit: int = LIMIT) -> bytes | None:
    """Return the next message; None if the stream has ended.

    Raises:
        FrameError: its length is not allowed, or the stream ended within it.
    """
    try:
        header = await reader.readexactly(HEADER.size)
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise FrameError("the stream ended within a length") from None
        return None
    (length,) = HEADER.unpack(header)
    try:
        return await reader.readexactly(checked_length(length, limit))
    except asyncio.IncompleteReadError as error:
        got = len(error.partial)
        raise FrameError(f"the stream ended at byte {got} of {length}") from None


async def write_frame(
    writer: asyncio.StreamWriter, message: bytes, limit: int = LIMIT
) -> None:
    """Send `message`; return when the writer has room for the next.

    Raises:
        FrameError: the message is longer than `limit`; nothing has been sent.
    """
    writer.write(frame(message, limit))
    await writer.drain()


def decode(portions: Iterable[bytes], decoder: FrameDecoder) -> list[bytes]:
    """Return the messages of a whole stream.

    Raises:
        FrameError: it is not made of whole frames with allowed lengths.
    """
    messages = [message for portion in portions for message in decoder.feed(portion)]
    decoder.close()
    return messages


def one_read_one_message(portions: Iterable[bytes]) -> list[bytes]:
    """The same with the defect: each portion is taken for one frame."""
    return [portion[HEADER.size :] for portion in portions]


def every_way_to_cut(stream: bytes) -> Iterator[list[bytes]]:
    """Yield the portions of all 2 ** (n - 1) ways in which n bytes can arrive."""
    inner = range(1, len(stream))
    for n_cuts in range(len(stream)):
        for cuts in combinations(inner, n_cuts):
            yield [stream[a:b] for a, b in pairwise((0, *cuts, len(stream)))]


def complaint(stream: bytes, *, signed: bool = False) -> str:
    """Return what is wrong with `stream`."""
    try:
        decode([stream], FrameDecoder(signed=signed))
    except FrameError as error:
        return str(error)
    raise SystemExit(f"taken for frames: {stream!r}")


async def through_a_socket(stream: bytes) -> list[bytes]:
    """Send `stream` to a server that answers each message reversed; return answers."""

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            with suppress(FrameError):  # nothing that could be answered: hang up
                while (message := await read_frame(reader)) is not None:
                    await write_frame(writer, message[::-1])
            # Closed with unread bytes, the connection would be reset, and answers lost.
            writer.write_eof()
            while await reader.read(LIMIT):
                pass
        finally:
            writer.close()

    async with (
        asyncio.timeout(TIME_LIMIT),
        asyncio.TaskGroup() as group,
        await asyncio.start_server(
            lambda r, w: group.create_task(answer(r, w)), "127.0.0.1", 0
        ) as server,
    ):
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(stream)
            writer.write_eof()
            answers = []
            while (message := await read_frame(reader)) is not None:
                answers.append(message)
            return answers
        finally:
            writer.close()


def main() -> None:
    messages = [b"hi", b""]
    stream = b"".join(map(frame, messages))
    ways = list(every_way_to_cut(stream))
    naive = sum(one_read_one_message(way) == messages for way in ways)
    right = sum(decode(way, FrameDecoder()) == messages for way in ways)
    print(f"2 messages, {len(stream)} bytes, {len(ways)} ways to cut them")
    print(f"one read, one message  right in {naive:3}")
    print(f"FrameDecoder           right in {right:3}")
    if (naive, right) != (1, len(ways)):
        raise SystemExit("one way in all, and every way, were to be right")

    early = [stream[:end] for end in range(1, len(stream)) if end != len(frame(b"hi"))]
    for cut_short in early:
        complaint(cut_short)
    print(f"ended early            noticed at {len(early)} of {len(early)} places")
    print(f"garbage                {complaint(b'GET / HTTP/1.1')}")
    print(f"length ff ff ff ff     {complaint(4 * bytes([255]))}")
    print(f"the same, as signed    {complaint(4 * bytes([255]), signed=True)}")

    answers = asyncio.run(through_a_socket(stream + b"GET / HTTP/1.1"))
    if answers != [message[::-1] for message in messages]:
        raise SystemExit(f"over a connection: {answers}")
    print("over a connection      2 answers, then hung up on the garbage")


if __name__ == "__main__":
    main()
