"""The calculator of this chapter's servers, without a network: bytes in, bytes out.

A client sends lines. A line of integers separated by commas is answered with their sum,
after the line `product` with their product, until `sum`. `stats` asks for the server's
figures, `quit` ends the conversation. Each line gets one line as its answer, in the
order of the lines, so that a client may send many before it reads the first answer.

What decides between a toy and a server stands here already, where no socket is in the
way of a test: any line has an answer, also garbage, and none costs more than a limited
time and memory. Python itself refuses to convert integers of more than 4,300 digits;
here limits of our own say so in words, before the work is done.

Book: Chapter 18, example2.

Output:
    1,2,3                     6
    -4, +10                   6
    product                   now: product
    2,3,7                     42
    4 numbers of 1000 digits  4000 digits
    the same, and a 9         error: a result of more than 4000 digits
    1 number of 1001 digits   error: a number of more than 1000 digits
    an empty line             error: neither integers separated by commas nor ...
    bytes that are no text    error: neither integers separated by commas nor ...
    stats                     no statistics
    quit                      goodbye
    the slowest of these took 0.43 ms
    each line has one line as its answer, also 2000 lines of garbage
"""

import math
import random
import textwrap
import time
from collections.abc import Callable, Iterable

MAX_LINE = 4096  # bytes, without the end of the line
MAX_DIGITS = 1000  # of a number in a request
MAX_RESULT_DIGITS = 4000
TOO_LARGE = 10**MAX_RESULT_DIGITS
UNDERSCORE = ord("_")  # a byte is found several times as fast as bytes
GARBAGE = 2000  # lines of the demonstration

GREETING = b"calculator: sum\n"
UNKNOWN = b"error: neither integers separated by commas nor sum, product, stats, quit\n"
TOO_MANY_DIGITS = b"error: a number of more than %d digits\n" % MAX_DIGITS
RESULT_TOO_LARGE = b"error: a result of more than %d digits\n" % MAX_RESULT_DIGITS


def no_statistics() -> bytes:
    return b"no statistics"


class Calculator:
    """What one client talks to.

    Args:
        statistics: gives the answer to `stats`, a line without its end.

    Attributes:
        done: whether the client has said `quit`; nothing is to be answered any more.
    """

    __slots__ = ("_fold", "_statistics", "done")

    def __init__(self, statistics: Callable[[], bytes] = no_statistics) -> None:
        self._fold: Callable[[Iterable[int]], int] = sum
        self._statistics = statistics
        self.done = False

    def answer(self, line: bytes) -> bytes:
        """Return the answer to a line of at most `MAX_LINE` bytes, without its end."""
        numbers = line.split(b",")
        long = len(line) > MAX_DIGITS
        if long and any(map(_has_too_many, numbers)):
            return TOO_MANY_DIGITS
        try:
            result = self._fold(map(int, numbers))
        except ValueError:
            return self._obey(line.strip())
        if UNDERSCORE in line:  # 1_000 is an integer to Python only
            return UNKNOWN
        # A result has no more digits than its line has bytes.
        if long and not -TOO_LARGE < result < TOO_LARGE:
            return RESULT_TOO_LARGE
        return b"%d\n" % result

    def answers(self, lines: Iterable[bytes]) -> bytes:
        """Return the answers to lines, up to `quit`."""
        answers = []
        for line in lines:
            answers.append(self.answer(line))
            if self.done:
                break
        return b"".join(answers)

    def _obey(self, word: bytes) -> bytes:
        match word:
            case b"sum":
                self._fold = sum
            case b"product":
                self._fold = math.prod
            case b"stats":
                return self._statistics() + b"\n"
            case b"quit":
                self.done = True
                return b"goodbye\n"
            case _:
                return UNKNOWN
        return b"now: %s\n" % word


def _has_too_many(number: bytes) -> bool:
    digits = number.strip().lstrip(b"+-")
    return len(digits) > MAX_DIGITS and digits.isdigit()


def shown(answer: bytes) -> str:
    """Return an answer as it fits into a column."""
    text = answer.decode().rstrip()
    if text.isdigit() and len(text) > 10:
        text = f"{len(text)} digits"
    return textwrap.shorten(text, 55, placeholder=" ...")


def main() -> None:
    nines = MAX_DIGITS * b"9"
    four = b",".join([nines] * 4)
    talk: dict[str, tuple[bytes, bytes]] = {  # each with its line, and the answer
        "1,2,3": (b"1,2,3", b"6\n"),
        "-4, +10": (b"-4, +10", b"6\n"),
        "product": (b"product", b"now: product\n"),
        "2,3,7": (b"2,3,7", b"42\n"),
        "4 numbers of 1000 digits": (four, b"%d\n" % int(nines) ** 4),
        "the same, and a 9": (four + b",9", RESULT_TOO_LARGE),
        "1 number of 1001 digits": (nines + b"9", TOO_MANY_DIGITS),
        "an empty line": (b"", UNKNOWN),
        "bytes that are no text": (b"1,\xff\x00", UNKNOWN),
        "stats": (b"stats", b"no statistics\n"),
        "quit": (b"quit", b"goodbye\n"),
    }
    calculator, slowest = Calculator(), 0.0
    for name, (line, expected) in talk.items():
        began = time.perf_counter()
        answer = calculator.answer(line)
        slowest = max(slowest, time.perf_counter() - began)
        if answer != expected:
            raise SystemExit(f"{name}: {answer!r} instead of {expected!r}")
        print(f"{name:26}{shown(answer)}")
    print(f"the slowest of these took {slowest * 1000:.2f} ms")

    lines, answers = zip(*talk.values(), strict=True)
    if Calculator().answers([*lines, b"after quit"]) != b"".join(answers):
        raise SystemExit("all lines at once were to be answered as one by one")
    generator, calculator = random.Random(GARBAGE), Calculator()
    for _ in range(GARBAGE):
        size = generator.randint(0, 12)
        line = bytes(generator.choices(b"0123456789,-+_ \r\0e\xc3", k=size))
        answer = calculator.answer(line)
        if answer.count(b"\n") != 1 or not answer.endswith(b"\n"):
            raise SystemExit(f"{line!r} was to get one line, not {answer!r}")
    print(f"each line has one line as its answer, also {GARBAGE} lines of garbage")


if __name__ == "__main__":
    main()
