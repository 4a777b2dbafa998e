"""Some context managers change the whole process, and other threads feel it.

`redirect_stdout` replaces `sys.stdout` and `chdir` the current folder; there is one of
each for all threads. A line that another thread prints meanwhile lands in the wrong
place, and a relative path leads elsewhere. If two redirections overlap, and the first
to begin is the first to end, the second puts back what it found: the stream of the
first, for good.

`decimal.localcontext` has no such effect: it changes the context of the thread or
asyncio task that calls it, and no other. With a ContextVar, `setting` does the same for
any value. Better still, pass the stream or the path as an argument.

Output:
    while one thread is inside   another one
    redirect_stdout              prints into the buffer of the first
    chdir                        is in the folder of the first
    decimal.localcontext         computes with 28 digits, as before
    setting(OUT, ...)            prints to where it did before
    after two blocks that overlapped
    redirect_stdout              stdout is the buffer of the first, for good
    setting(OUT, ...)            each thread has printed to its own
"""

import decimal
import io
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractContextManager,
    ExitStack,
    chdir,
    contextmanager,
    redirect_stdout,
)
from contextvars import ContextVar
from pathlib import Path
from typing import TextIO, TypeVar

T = TypeVar("T")

# Where `say` writes; None stands for what sys.stdout is at that moment.
OUT: ContextVar[TextIO | None] = ContextVar("OUT", default=None)


@contextmanager
def setting(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Give a context variable a value during the block, in this thread or task only."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)


def say(text: str) -> None:
    """Print a line to where the caller's context says."""
    print(text, file=OUT.get())


def seen_by_another_thread(
    manager: AbstractContextManager[object], look: Callable[[], T]
) -> T:
    """Return what `look` returns in another thread, with this one inside `manager`."""
    with ThreadPoolExecutor(max_workers=1) as another:
        another.submit(int).result()  # start it: inside, it might inherit a context
        with manager:
            return another.submit(look).result()


def overlap(
    first: AbstractContextManager[object], second: AbstractContextManager[object]
) -> None:
    """Enter `first` in one thread, `second` in another, and leave them in that order.

    With both inside, the one thread says `one`, the other `two`.
    """
    with ThreadPoolExecutor(1) as thread_1, ThreadPoolExecutor(1) as thread_2:
        stack_1, stack_2 = ExitStack(), ExitStack()
        try:
            thread_1.submit(stack_1.enter_context, first).result()
            thread_2.submit(stack_2.enter_context, second).result()
            thread_1.submit(say, "one").result()
            thread_2.submit(say, "two").result()
        finally:  # also after Ctrl-C: each is left where it was entered
            thread_1.submit(stack_1.close).result()  # while thread 2 is still inside
            thread_2.submit(stack_2.close).result()


def main() -> None:
    print("while one thread is inside   another one")
    buffer = io.StringIO()
    seen_by_another_thread(redirect_stdout(buffer), lambda: print("from elsewhere"))
    if buffer.getvalue() != "from elsewhere\n":
        raise SystemExit(f"the line did not go astray: {buffer.getvalue()!r}")
    print("redirect_stdout              prints into the buffer of the first")

    root = Path(Path.cwd().anchor)
    if seen_by_another_thread(chdir(root), Path.cwd) != root:
        raise SystemExit("the other thread has a current folder of its own")
    print("chdir                        is in the folder of the first")

    digits = seen_by_another_thread(
        decimal.localcontext(prec=3), lambda: decimal.getcontext().prec
    )
    if digits != decimal.getcontext().prec:
        raise SystemExit(f"the other thread computes with {digits} digits")
    print(f"decimal.localcontext         computes with {digits} digits, as before")
    if seen_by_another_thread(setting(OUT, buffer), OUT.get) is not None:
        raise SystemExit("the other thread feels the setting")
    print("setting(OUT, ...)            prints to where it did before")

    print("after two blocks that overlapped")
    one, two = io.StringIO(), io.StringIO()
    with redirect_stdout(sys.stdout):  # puts back what is there now
        overlap(redirect_stdout(one), redirect_stdout(two))
        left_wrong = sys.stdout is one
    if not left_wrong or (one.getvalue(), two.getvalue()) != ("", "one\ntwo\n"):
        raise SystemExit("stdout is as it was")
    print("redirect_stdout              stdout is the buffer of the first, for good")

    mine, yours = io.StringIO(), io.StringIO()
    overlap(setting(OUT, mine), setting(OUT, yours))
    if (mine.getvalue(), yours.getvalue()) != ("one\n", "two\n"):
        raise SystemExit(f"mixed up: {mine.getvalue()!r} and {yours.getvalue()!r}")
    print("setting(OUT, ...)            each thread has printed to its own")


if __name__ == "__main__":
    main()
