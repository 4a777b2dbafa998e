"""An exception in a pool is lost without a word, unless somebody asks for it.

A future keeps what its task raised until `result()` or `exception()` is called. If
nobody calls them, nobody hears of it: nothing comes on stderr, the `with` block only
waits for the tasks, and goes on as if all were well. The same happens to `map()`, if
nobody walks through its iterator.

So every future belongs to somebody. Either to the one who waits for it: `wait_for_all`
waits until all are done, and raises everything that went wrong in one exception group.
Or, for tasks that are sent off and forgotten, to a callback that logs the failure.

Output:
    submit_and_forget  4 tasks tried, nothing raised, nothing on stderr
    map_and_forget     4 tasks tried, nothing raised, nothing on stderr
    wait_for_all       raises: 2 of 4 tasks failed
    log_failure        logs 2 failures, each with its traceback
    of 2 failures, the pool itself reports 0
"""

import gc
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import redirect_stderr
from typing import Any, TypeVar

TEXTS = ["1", "two", "3", "four"]  # two of them are no numbers
LOGGER = logging.getLogger(__name__)

T = TypeVar("T")


def wait_for_all(futures: Iterable[Future[T]]) -> list[T]:
    """Wait until all `futures` are done, and return their results in order.

    Raises:
        ExceptionGroup: some have failed, or were cancelled (a CancelledError). It
            holds all that was raised, in the order of `futures`; the results of the
            others are still in their futures. It is a BaseExceptionGroup if a task
            raised what is no Exception, as `sys.exit()` does.
    """
    futures = list(futures)
    outcomes = [_wait_for_failure(future) for future in futures]
    failures = [failure for failure in outcomes if failure is not None]
    if failures:
        message = f"{len(failures)} of {len(futures)} tasks failed"
        raise BaseExceptionGroup(message, failures)
    return [future.result() for future in futures]


def _wait_for_failure(future: Future[Any]) -> BaseException | None:
    # Not with concurrent.futures.wait(): for a task that was cancelled by
    # shutdown(cancel_futures=True) it waits for ever (CPython issue 109934).
    try:
        return future.exception()
    except CancelledError as error:
        return error


def log_failure(future: Future[Any]) -> None:
    """Log what a task has raised. Meant for `Future.add_done_callback`."""
    if not future.cancelled() and (error := future.exception()) is not None:
        LOGGER.error("a task failed", exc_info=error)


def submit_and_forget(work: Callable[[str], object], items: Sequence[str]) -> None:
    """The wrong way: the futures are thrown away."""
    with ThreadPoolExecutor() as pool:
        for item in items:
            pool.submit(work, item)


def map_and_forget(work: Callable[[str], object], items: Sequence[str]) -> None:
    """As wrong: nobody asks the iterator for results."""
    with ThreadPoolExecutor() as pool:
        pool.map(work, items)


def main() -> None:
    for forget in (submit_and_forget, map_and_forget):
        tried: list[str] = []

        def parse(text: str, tried: list[str] = tried) -> int:
            tried.append(text)
            return int(text)

        with redirect_stderr(io.StringIO()) as stderr:
            forget(parse, TEXTS)
            gc.collect()  # nor does anything complain when the futures are deleted
        if sorted(tried) != sorted(TEXTS) or stderr.getvalue():
            raise SystemExit(f"{tried} tried, and heard: {stderr.getvalue()}")
        name = forget.__name__
        print(f"{name:18} {len(tried)} tasks tried, nothing raised, nothing on stderr")

    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(int, text) for text in TEXTS]
    try:
        wait_for_all(futures)
    except ExceptionGroup as error:
        group = error
    else:
        raise SystemExit("wait_for_all should have raised")
    messages = [str(error) for error in group.exceptions]
    if not (len(messages) == 2 and "two" in messages[0] and "four" in messages[1]):
        raise SystemExit(f"not the failures expected: {messages}")
    print(f"wait_for_all       raises: {group.message}")

    handler = logging.StreamHandler(io.StringIO())
    LOGGER.addHandler(handler)
    with ThreadPoolExecutor() as pool:
        for text in TEXTS:
            pool.submit(int, text).add_done_callback(log_failure)
    logged = handler.stream.getvalue().count("\nValueError: ")
    print(f"log_failure        logs {logged} failures, each with its traceback")
    if logged != 2:
        raise SystemExit("both failures should have been logged")
    print("of 2 failures, the pool itself reports 0")


if __name__ == "__main__":
    main()
