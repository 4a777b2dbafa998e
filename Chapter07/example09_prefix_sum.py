"""Running totals look sequential; a scan makes them in parallel for twice the work.

A loop makes each running total from the one before. As the operator is associative,
there are other ways. Judge them by their work, which is how often they apply it, and by
their span, which is how many of these applications have to wait for one another in
turn. The loop's work and span are n - 1. Hillis and Steele combine every item with that
1, 2, 4, ... places before: a span of log2 n, but n log2 n work. Blelloch's scan is
work-efficient. An up-sweep leaves the totals of ever larger blocks, as a tree reduction
does; a down-sweep hands each block the total of all that comes before it. That is
less than 2 n work, and a span of at most 2 log2 n. Operands keep their order, so the
operator need not be commutative.

So much for n processors. Processes are few, and a step is far too small for them. They
get chunks: (1) the first chunk is scanned, the others are reduced, all but the last;
(2) the few totals are scanned; (3) each of the other chunks is scanned from its offset
on. Most items are dealt with twice, so that p processes and p + 1 chunks gain at most
(p + 1) / 2, and nothing unless it takes much longer to apply the operator than to send
its operands. Adding numbers does not. (There take `itertools.accumulate`, or
`numpy.cumsum`.)

Sources: W. D. Hillis, G. L. Steele, "Data parallel algorithms", CACM 29 (12), 1986;
G. E. Blelloch, "Prefix sums and their applications", CMU-CS-90-190, 1990.

Try:  --items 300
Try:  --workers 4

Output:
    before each letter  ['', 's', 'sc', 'sca']
    up to each letter   ['s', 'sc', 'sca', 'scan']

                    loop    Hillis-Steele        Blelloch
    items     work  span     work  span     work  span
        7        6     6       14     3       10     4
    1,000      999   999    8,977    10    1,993    18
    1,024    1,023 1,023    9,217    10    2,046    19

    100,000 sums      loop 0.003 s  processes 0.015 s  0.23x
      2,000 products  loop 0.094 s  processes 0.080 s  1.19x
    a pool of <cores> gains at most 1.50x by scanning in chunks
"""

import argparse
import math
import operator
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial, reduce
from itertools import accumulate, chain, pairwise
from multiprocessing import resource_tracker
from random import Random
from typing import Any, TypeVar

LENGTHS = (7, 1000, 1024)  # numbers of items to count applications for
N_SUMS = 100_000  # numbers to add
MODULUS = 2**2203 - 1  # of the numbers in a matrix
MAX_WORKERS = 61  # of a process pool on Windows

T = TypeVar("T")

Matrix = tuple[int, int, int, int]  # 2 x 2, row by row
ONE: Matrix = (1, 0, 0, 1)

Traced = tuple[int, int]  # a number, and the longest chain of additions that led to it


def exclusive_scan(items: Sequence[T], op: Callable[[T, T], T], identity: T) -> list[T]:
    """Return for each item the total of all items before it (Blelloch's scan).

    Args:
        op: any associative operator; it need not be commutative.
        identity: its identity element, the total of no items.
    """
    if not items:
        return []
    n = len(items)
    size = 1 << (n - 1).bit_length()  # the next power of two
    tree = [*items, *[identity] * (size - n)]
    steps = [1 << level for level in range(size.bit_length() - 1)]
    # Up-sweep: tree[right] becomes the total of the block that ends there, 2 step wide.
    # Blocks that reach beyond the items are not needed.
    for step in steps:
        for right in range(2 * step - 1, n, 2 * step):
            tree[right] = op(tree[right - step], tree[right])
    # Down-sweep: tree[right] holds the total of all before the block. Its left half
    # gets the same, its right half that and the left half's total.
    tree[-1] = identity
    for step in reversed(steps):
        for left in range(step - 1, n + step - 1, 2 * step):
            right = left + step
            before, of_left_half = tree[right], tree[left]
            tree[left] = before
            if left + 1 < n:  # there are items in the right half
                tree[right] = op(before, of_left_half)
    return tree[:n]


def inclusive_scan(items: Sequence[T], op: Callable[[T, T], T], identity: T) -> list[T]:
    """Return for each item the total of all items up to it, itself included."""
    return exclusive_scan([*items, identity], op, identity)[1:]


def hillis_steele_scan(items: Sequence[T], op: Callable[[T, T], T]) -> list[T]:
    """Return what `inclusive_scan` does, in half as many steps, with more work."""
    totals = list(items)
    step = 1
    while step < len(totals):
        totals[step:] = list(map(op, totals[:-step], totals[step:]))
        step *= 2
    return totals


def scan_chunk(op: Callable[[T, T], T], offset: T, chunk: Sequence[T]) -> list[T]:
    """Return the running totals of `chunk`, `offset` included in each."""
    return list(accumulate(chunk, op, initial=offset))[1:]


def scan_in_chunks(
    executor: Executor,
    items: Sequence[T],
    op: Callable[[T, T], T],
    identity: T,
    n_chunks: int,
) -> list[T]:
    """Return the same as `inclusive_scan`, made chunk by chunk in `executor`.

    With processes, `op` must be a module's function: it is pickled.
    """
    if not items:
        return []
    first, *others = split(items, n_chunks)
    scanned = executor.submit(scan_chunk, op, identity, first)
    totals = list(executor.map(partial(reduce, op), others[:-1]))
    head = scanned.result()
    offsets = accumulate(totals, op, initial=head[-1])
    tails = executor.map(partial(scan_chunk, op), offsets, others)
    return [*head, *chain.from_iterable(tails)]


def split(items: Sequence[T], n_chunks: int) -> list[Sequence[T]]:
    """Cut `items` into at most `n_chunks` chunks, none of them empty.

    Raises:
        ValueError: `n_chunks` is less than 1.
    """
    if n_chunks < 1:
        raise ValueError(f"need at least 1 chunk, not {n_chunks}")
    n_chunks = min(n_chunks, len(items))
    cuts = [len(items) * i // n_chunks for i in range(n_chunks)]
    return [items[a:b] for a, b in pairwise([*cuts, len(items)])]


def matrix_product(left: Matrix, right: Matrix) -> Matrix:
    """Multiply 2 x 2 matrices, modulo MODULUS. Associative, but not commutative."""
    a, b, c, d = left
    e, f, g, h = right
    return (
        (a * e + b * g) % MODULUS,
        (a * f + b * h) % MODULUS,
        (c * e + d * g) % MODULUS,
        (c * f + d * h) % MODULUS,
    )


def work_and_span(
    scan: Callable[[Sequence[Traced], Callable[[Traced, Traced], Traced]], Any], n: int
) -> tuple[list[int], int, int]:
    """Let `scan` add up the numbers below `n`.

    Returns:
        The totals; the work, which is how many additions there were; and the span,
        which is how many of them had to wait for one another in turn.
    """
    work = 0

    def add(a: Traced, b: Traced) -> Traced:
        nonlocal work
        work += 1
        return a[0] + b[0], 1 + max(a[1], b[1])

    traced = list(scan([(number, 0) for number in range(n)], add))
    return [total for total, _ in traced], work, max(span for _, span in traced)


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
    parser.add_argument("--items", type=positive, default=2000, help="matrices")
    parser.add_argument(
        "--workers", type=workers, default=min(usable_cores(), MAX_WORKERS)
    )
    options = parser.parse_args()
    n_workers = options.workers

    print(f"before each letter  {exclusive_scan('scan', operator.add, '')}")
    print(f"up to each letter   {inclusive_scan('scan', operator.add, '')}")
    print()
    print("                loop    Hillis-Steele        Blelloch")
    print("items     work  span     work  span     work  span")
    for n in LENGTHS:
        totals, *of_loop = work_and_span(accumulate, n)
        same, *of_hillis_steele = work_and_span(hillis_steele_scan, n)
        before, *of_blelloch = work_and_span(
            lambda items, op: exclusive_scan(items, op, (0, 0)), n
        )
        if same != totals or before != [0, *totals[:-1]]:
            raise SystemExit("the scans do not lead to the totals of the loop")
        columns = of_loop, of_hillis_steele, of_blelloch
        print(f"{n:5,}", *(f"{work:8,} {span:5,}" for work, span in columns))
        levels = (n - 1).bit_length()
        if of_hillis_steele != [n * levels - 2**levels + 1, levels]:
            raise SystemExit("that was to be n log n, less what has nothing before it")
        if of_blelloch[0] != 2 * n - 1 - n.bit_count() or of_blelloch[1] > 2 * levels:
            raise SystemExit("that was not the work of a work-efficient scan")
    print()

    random = Random(1)
    matrices: list[Matrix] = [
        (draw(), draw(), draw(), draw())
        for draw in [partial(random.randrange, MODULUS)] * options.items
    ]
    numbers = list(range(N_SUMS))
    with process_pool(n_workers) as pool:
        scan = partial(scan_in_chunks, pool, n_chunks=n_workers + 1)
        jobs: dict[str, Callable[[], object]] = {
            "sums, loop": lambda: list(accumulate(numbers)),
            "sums, processes": lambda: scan(numbers, operator.add, 0),
            "products, loop": lambda: list(accumulate(matrices, matrix_product)),
            "products, processes": lambda: scan(matrices, matrix_product, ONE),
        }
        seconds, results = side_by_side(jobs)
    for what, count in (("sums", N_SUMS), ("products", len(matrices))):
        loop, processes = seconds[f"{what}, loop"], seconds[f"{what}, processes"]
        if results[f"{what}, loop"] != results[f"{what}, processes"]:
            raise SystemExit(f"{what}: the processes' totals are not those of the loop")
        print(
            f"{count:7,} {what:8}  loop {loop:5.3f} s  processes {processes:5.3f} s "
            f"{loop / processes:5.2f}x"
        )
    at_most = (n_workers + 1) / 2
    print(f"a pool of {n_workers} gains at most {at_most:.2f}x by scanning in chunks")


if __name__ == "__main__":
    main()
