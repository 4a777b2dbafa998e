"""Words are counted in parallel by offsets into a text, and counters are added up.

Map: each process counts the words of its part of the text. Reduce: the counters are
added. Adding counters is associative, and the empty counter is its identity element,
so any cut will do that leaves every word whole. Equal parts do not: they cut words in
two, and the halves are counted as words of their own. So a cut that falls inside a
word is moved to the word's end. A word longer than a part swallows the next cuts, and
the parts between them are empty.

Handed out are offsets, not pieces of the text. Each process loads the text itself (as
it would open a large file, and seek), so that two numbers go one way and one counter
comes back. The way back is the price: a counter holds nearly the whole vocabulary, no
matter how short the part, so that parts should be few and large.

The text is a real one, all that help() has to say about Python's topics. It is short;
one process counts it in a moment. To have something to measure, it is taken a few times
over. A word is a run of letters, digits and underscores, its case ignored. The case is
folded word by word, after the cut. (`str.lower` of the text would not do: it looks at a
letter's neighbours, for the Greek final sigma, which a cut may part from it.)

Source: J. Dean, S. Ghemawat, "MapReduce: simplified data processing on large clusters",
OSDI 2004, which counts words as well. (For more text than fits into one machine, take
`dask.bag` or Spark.)

Try:  --repeat 1
Try:  --repeat 20 --parts 100

Output:
    the topics of help(): 455 KiB of text
    100 equal parts          60 % of the cuts tore a word
    100 parts between words  equal to the Counter of the whole
    the text 5 times:
    one process   0.10 s  1.00x
    pool of <cores>     0.05 s  1.90x
    the most frequent word is "the": 7 % of all
"""

import argparse
import math
import os
import re
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from multiprocessing import resource_tracker
from pydoc_data.topics import topics
from typing import TypeVar

WORD = re.compile(r"\w+")
MANY = 100  # parts of a text, to have many cuts
MAX_WORKERS = 61  # of a process pool on Windows

T = TypeVar("T")


def words_in(text: str) -> Counter[str]:
    """Count the words of `text`, whatever their case."""
    return Counter(map(str.casefold, WORD.findall(text)))


def equal_cuts(text: str, n_parts: int) -> list[int]:
    """Return the offsets, from 0 to the end, that cut `text` into equal parts."""
    return [len(text) * i // n_parts for i in range(n_parts + 1)]


def cuts_between_words(text: str, n_parts: int) -> list[int]:
    """Return offsets, from 0 to the end, that cut `text` into about equal parts.

    None of them lies inside a word. A part may be empty.
    """
    return [end_of_word(text, cut) for cut in equal_cuts(text, n_parts)]


def end_of_word(text: str, offset: int) -> int:
    """Return `offset`, or where the word ends that it lies in."""
    if offset and WORD.match(text[offset - 1]):
        word = WORD.match(text, offset)
        return word.end() if word else offset
    return offset


def words_between(load: Callable[[], str], start: int, end: int) -> Counter[str]:
    """Count the words of a part of the text that `load` returns."""
    return words_in(load()[start:end])


def count_in_parts(
    executor: Executor, load: Callable[[], str], cuts: Sequence[int]
) -> Counter[str]:
    """Count the words of a text part by part, and add up the counters.

    Args:
        load: returns the text. It is called for each part, where the part is counted,
            so it should keep the text.
    """
    total = Counter[str]()
    for counter in executor.map(partial(words_between, load), cuts[:-1], cuts[1:]):
        total += counter
    return total


@cache
def topics_text(repeat: int) -> str:
    """Return the texts of help()'s topics, one after the other, `repeat` times."""
    return "\n".join([*topics.values()] * repeat)


def side_by_side(
    jobs: Mapping[str, Callable[[], T]], rounds: int = 3
) -> tuple[dict[str, float], dict[str, T]]:
    """Run `jobs` in turns; return the seconds of each one's fastest run, and results.

    In turns, so that a busy moment of the machine hits all alike, and the fastest run,
    because other programs can only make a run slower.

    Raises:
        ValueError: a job does not give the same result in every round.
    """
    seconds = dict.fromkeys(jobs, math.inf)
    results: dict[str, T] = {}
    for _ in range(rounds):
        for name, job in jobs.items():
            began = time.perf_counter()
            result = job()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
            if results.setdefault(name, result) != result:
                raise ValueError(f"{name}: not the same result in every round")
    return seconds, results


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


@contextmanager
def process_pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `n_workers` processes that leave Ctrl-C to this one.

    Ctrl-C has to wait while they start and while they end: in the midst of that, a pool
    cannot be ended in order. Make it before any thread, which would let Ctrl-C through
    and should not be forked. If the block fails, calls that have not begun are dropped:
    an interrupted `submit` may leave one that no process gets and the end would await.
    """
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)

    def end(kind: type[BaseException] | None, *_: object) -> None:
        with ctrl_c_later():
            pool.shutdown(cancel_futures=kind is not None)

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = ProcessPoolExecutor(n_workers, None, signal.signal, ignore_ctrl_c)
            stack.push(end)
            list(pool.map(abs, range(n_workers)))
        yield pool


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def workers(text: str) -> int:
    number = positive(text)
    if number > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"must be at most {MAX_WORKERS}, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeat", type=positive, default=5)
    parser.add_argument(
        "--parts", type=positive, help="as many as workers, if not given"
    )
    parser.add_argument(
        "--workers", type=workers, default=min(usable_cores(), MAX_WORKERS)
    )
    options = parser.parse_args()
    n_workers, n_parts = options.workers, options.parts or options.workers
    once, load = partial(topics_text, 1), partial(topics_text, options.repeat)
    print(f"the topics of help(): {len(once().encode()) / 1024:,.0f} KiB of text")

    with process_pool(n_workers) as pool:
        words = words_in(once())
        torn = count_in_parts(pool, once, equal_cuts(once(), MANY))
        whole = count_in_parts(pool, once, cuts_between_words(once(), MANY))
        share = (torn.total() - words.total()) / (MANY - 1)
        print(
            f"{MANY} equal parts          {100 * share:.0f} % of the cuts tore a word"
        )
        print(f"{MANY} parts between words  equal to the Counter of the whole")
        if torn == words or whole != words:
            raise SystemExit("equal parts were to count wrong, the others right")

        print(f"the text {options.repeat} times:")
        seconds, counts = side_by_side(
            {
                "one process": lambda: words_in(load()),
                f"pool of {n_workers}": lambda: count_in_parts(
                    pool, load, cuts_between_words(load(), n_parts)
                ),
            }
        )
    for name, counter in counts.items():
        if counter != Counter({word: options.repeat * n for word, n in words.items()}):
            raise SystemExit(f"{name}: not so many times the words of the text")
        gain = seconds["one process"] / seconds[name]
        print(f"{name:12} {seconds[name]:5.2f} s {gain:5.2f}x")
    word, n = words.most_common(1)[0]
    print(f'the most frequent word is "{word}": {100 * n / words.total():.0f} % of all')


if __name__ == "__main__":
    main()
