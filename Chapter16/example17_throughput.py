# /// script
# requires-python = ">=3.11"
# dependencies = ["cereggii>=1.0.0", "matplotlib>=3.8.0"]
# ///
"""How fast is each structure, beside what the standard library offers in its place?

1, 2, 4 and 8 threads share a structure: they increment, read under the lock, add 1 to
a number that each thread has for itself, look something up, find a value in a cache,
add a key and remove it, push and pop, put and get. Only the ring differs, which has one
producer and one consumer: each pair of threads has a ring, and one thread is both. The
last of each kind is the standard library's.

That one is nearly always faster. Its calls are some steps of C code, and ours are
Python, where each step takes as long as a whole call in C. An algorithm does not change
that. What it changes is what threads have to wait for, and that shows if they run at
the same time, without a GIL, or wait inside (example09).

Under a GIL the rates stay level at best, since one thread runs at a time, and fall if a
thread loses the GIL while others wait for its lock. As that would be rare in so short a
time, the switch interval is a tenth of what it is otherwise: 0.5 ms.

Try:  --rounds 10
Try:  --plot throughput.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    calls a second with          1 thr.         2 thr.         4 thr.         8 thr.
    increment
      LockedCounter        1,635,035 /s   1,554,112 /s   1,628,509 /s   1,545,389 /s
      ApproximateCounter   1,411,935 /s   1,736,199 /s   1,528,934 /s   1,430,914 /s
      itertools.count     12,132,634 /s  11,158,009 /s  11,008,056 /s   9,870,275 /s
    read under a lock
      ReadersWriterLock      165,822 /s      71,151 /s      58,771 /s      59,620 /s
      threading.Lock       1,645,650 /s   1,567,683 /s   1,512,328 /s   1,404,302 /s
    add 1 in a map
      StripedMap             190,036 /s     158,697 /s     159,791 /s     141,184 /s
      dict, lock           1,163,448 /s     436,553 /s     238,190 /s     274,567 /s
    look up in a network
      Network, copied      5,791,462 /s   4,505,508 /s   4,794,849 /s   5,020,096 /s
      dicts, lock          3,033,162 /s   2,843,517 /s   2,846,491 /s   2,627,550 /s
    hit in a cache
      LRUCache             1,718,282 /s   1,239,905 /s     386,425 /s     115,757 /s
      lru_cache            8,318,242 /s   8,234,517 /s   7,553,767 /s   6,807,137 /s
    add to a sorted set, and remove
      CoarseList             105,115 /s      40,602 /s      34,263 /s      37,614 /s
      HandOverHandList        98,382 /s      23,705 /s      19,665 /s      18,915 /s
      OptimisticList         143,249 /s      78,559 /s      53,433 /s      44,689 /s
      list, bisect, lock     632,702 /s     144,329 /s      78,462 /s      44,081 /s
    push and pop
      TreiberStack           890,208 /s     839,167 /s     961,809 /s     793,004 /s
      list                 5,010,546 /s   5,058,587 /s   4,937,601 /s   4,681,059 /s
    put and get
      BlockingQueue          336,258 /s     158,135 /s      78,214 /s      46,842 /s
      MichaelScottQueue      993,263 /s     949,658 /s     855,822 /s     909,597 /s
      queue.Queue            368,288 /s     112,613 /s      37,207 /s      37,008 /s
      queue.SimpleQueue    4,908,716 /s   4,608,537 /s   4,466,605 /s   5,485,218 /s
    put or get, in pairs
      RingBuffer           2,632,289 /s   1,627,055 /s   1,413,409 /s   1,337,804 /s
      queue.SimpleQueue    2,961,579 /s   3,739,803 /s   3,379,679 /s   2,992,738 /s
    8 threads, ours beside the standard library's: 0.02x to 1.91x as fast
"""

import argparse
import functools
import itertools
import math
import platform
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from example02_locked_counter import LockedCounter
from example03_how_a_locked_counter_scales import (
    THREADS,
    gil_state,
    picture,
    seconds_for,
    usable_cores,
)
from example04_approximate_counter import ApproximateCounter
from example06_mutex_free_network import Network, Version
from example07_bounded_blocking_queue import BlockingQueue
from example08_readers_writer_lock import ReadersWriterLock
from example09_striped_hash_map import StripedMap, add_one
from example10_lru_cache import LRUCache
from example11_sorted_list_three_lockings import (
    CoarseList,
    HandOverHandList,
    OptimisticList,
    SortedArray,
)
from example12_treiber_stack import TreiberStack
from example13_michael_scott_queue import MichaelScottQueue
from example16_spsc_ring_buffer import RingBuffer, until_done

Call = Callable[[], object]
Make = Callable[
    [int], Sequence[Call]
]  # for so many threads, the call that each repeats

THRESHOLD = 64  # of the approximate counter
KEYS = 64  # in the sorted sets, before a thread adds its own
CAPACITY = 100  # of the ring
DURATION = 0.01  # seconds that a thread alone would take for the calls that are timed
PROBES = 256  # calls that show how many that are
SWITCH_INTERVAL = 0.0005  # seconds


def locked_counter(n: int) -> list[Call]:
    return [LockedCounter().increment] * n


def approximate_counter(n: int) -> list[Call]:
    return [local.increment for local in ApproximateCounter(n, THRESHOLD).locals]


def count(n: int) -> list[Call]:
    return [itertools.count().__next__] * n


def reads(visit: Callable[[], Any], n: int) -> list[Call]:
    def read() -> None:
        with visit():
            pass

    return [read] * n


def readers_writer_lock(n: int) -> list[Call]:
    return reads(ReadersWriterLock().read, n)


def plain_lock(n: int) -> list[Call]:
    lock = threading.Lock()
    return reads(lambda: lock, n)


def striped_map(n: int) -> list[Call]:
    counts: StripedMap[int, int] = StripedMap()
    return [partial(counts.update, key, add_one, 0) for key in range(n)]


def locked_dict(n: int) -> list[Call]:
    lock = threading.Lock()
    counts: dict[int, int] = {}

    def update(key: int) -> None:
        with lock:
            counts[key] = add_one(counts.get(key, 0))

    return [partial(update, key) for key in range(n)]


def lru_cache(n: int) -> list[Call]:
    cache: LRUCache[int, int] = LRUCache(n)
    return [partial(cache.get_or_load, key, add_one) for key in range(n)]


def functools_cache(n: int) -> list[Call]:
    cached = functools.lru_cache(n)(add_one)
    return [partial(cached, key) for key in range(n)]


def copied_network(n: int) -> list[Call]:
    network = Network(Version.of([("A", "B", 2)]))
    return [lambda: network.version.neighbours["A"]["B"]] * n


def locked_network(n: int) -> list[Call]:
    lock = threading.Lock()
    neighbours = {"A": {"B": 2}}

    def look_up() -> int:
        with lock:
            return neighbours["A"]["B"]

    return [look_up] * n


def sorted_set(
    kind: Callable[[], CoarseList[int] | HandOverHandList[int] | OptimisticList[int]]
    | Callable[[], SortedArray[int]],
    n: int,
) -> list[Call]:
    numbers = kind()
    for key in range(0, 2 * KEYS, 2):
        numbers.add(key)

    def add_and_remove(key: int) -> None:
        numbers.add(key)
        numbers.remove(key)

    return [partial(add_and_remove, 2 * KEYS // n * me + 1) for me in range(n)]


def in_and_out(
    put: Callable[[int], object], get: Callable[[], object], n: int
) -> list[Call]:
    def one() -> None:
        put(1)
        get()  # never in vain: each thread has put one more than it has taken

    return [one] * n


def treiber_stack(n: int) -> list[Call]:
    stack: TreiberStack[int] = TreiberStack()
    return in_and_out(stack.push, stack.pop, n)


def plain_list(n: int) -> list[Call]:
    stack: list[int] = []
    return in_and_out(stack.append, stack.pop, n)


def michael_scott_queue(n: int) -> list[Call]:
    items: MichaelScottQueue[int] = MichaelScottQueue()
    return in_and_out(items.enqueue, items.dequeue, n)


def a_queue(kind: Callable[[], Any], n: int) -> list[Call]:
    items = kind()
    return in_and_out(items.put, items.get, n)


def in_pairs(kind: Callable[[], Any], n: int) -> list[Call]:
    over = threading.Event()  # which it never is: each gets as often as it puts
    calls: list[Call] = []
    for _ in range(max(1, n // 2)):
        items = kind()
        calls += [
            partial(until_done, partial(items.put_nowait, 1), over),
            partial(until_done, items.get_nowait, over),
        ]
    if n == 1:
        turns = itertools.cycle(calls)
        return [lambda: next(turns)()]
    return calls


# What the threads do, and the structures by name, the standard library's last.
KINDS: dict[str, dict[str, Make]] = {
    "increment": {
        "LockedCounter": locked_counter,
        "ApproximateCounter": approximate_counter,
        "itertools.count": count,
    },
    "read under a lock": {
        "ReadersWriterLock": readers_writer_lock,
        "threading.Lock": plain_lock,
    },
    "add 1 in a map": {"StripedMap": striped_map, "dict, lock": locked_dict},
    "look up in a network": {
        "Network, copied": copied_network,
        "dicts, lock": locked_network,
    },
    "hit in a cache": {"LRUCache": lru_cache, "lru_cache": functools_cache},
    "add to a sorted set, and remove": {
        "CoarseList": partial(sorted_set, CoarseList),
        "HandOverHandList": partial(sorted_set, HandOverHandList),
        "OptimisticList": partial(sorted_set, OptimisticList),
        "list, bisect, lock": partial(sorted_set, SortedArray),
    },
    "push and pop": {"TreiberStack": treiber_stack, "list": plain_list},
    "put and get": {
        "BlockingQueue": partial(a_queue, BlockingQueue),
        "MichaelScottQueue": michael_scott_queue,
        "queue.Queue": partial(a_queue, queue.Queue),
        "queue.SimpleQueue": partial(a_queue, queue.SimpleQueue),
    },
    "put or get, in pairs": {
        "RingBuffer": partial(in_pairs, partial(RingBuffer, CAPACITY)),
        "queue.SimpleQueue": partial(in_pairs, queue.SimpleQueue),
    },
}

Rates = dict[
    str, list[float]
]  # by structure: calls a second with 1, 2, 4 and 8 threads


def measure(makes: Mapping[str, Make], rounds: int) -> Rates:
    """Return how many calls a second each structure takes from so many threads.

    The best of several rounds, as what else a machine does only makes one slower.
    """
    rates: Rates = {name: [0.0] * len(THREADS) for name in makes}
    for name, make in makes.items():
        seconds = seconds_for(make(1), PROBES) / PROBES
        each = math.ceil(DURATION / seconds / THREADS[-1])
        for _ in range(rounds):
            for column, n in enumerate(THREADS):
                times = each * THREADS[-1] // n
                rate = n * times / seconds_for(make(n), times)
                rates[name][column] = max(rates[name][column], rate)
    return rates


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Let threads wait so long for the GIL, during the block, before they ask for it.

    Raises:
        ValueError: `seconds` is not positive.
    """
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(seconds)
        yield
    finally:
        sys.setswitchinterval(before)


def plot(rates: Mapping[str, Rates], machine: str, file: Path) -> None:
    """Draw the rates by the number of threads, a panel for each kind."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.5), layout="constrained")
    panels = figure.subplots(3, 3).flat
    colours = ("#1b4f8a", "#b5442e", "#2e8b57")
    names = [str(n) for n in THREADS]
    for axes, (kind, of_kind) in zip(panels, rates.items(), strict=True):
        *ours, standard = of_kind
        axes.plot(names, of_kind[standard], "s--", color="#7d8793", label=standard)
        for name, colour in zip(ours, colours, strict=False):
            axes.plot(names, of_kind[name], "o-", color=colour, label=name)
        axes.set_yscale("log")
        most = max(max(values) for values in of_kind.values())
        least = min(min(values) for values in of_kind.values())
        axes.set_ylim(least / 2, most * 12)  # room for the legend
        axes.set_title(kind, fontsize=12)
        axes.legend(frameon=False, fontsize=9, loc="upper left", ncols=2)
        axes.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("threads", fontsize=12)
    figure.supylabel("calls a second, all threads together", fontsize=12)
    faster = sum(best_of_ours(of_kind) > 1 for of_kind in rates.values())
    figure.suptitle(
        f"With {THREADS[-1]} threads, the standard library's (grey) is faster in "
        f"{len(rates) - faster} of {len(rates)} cases\n({machine})",
        fontsize=13,
        fontweight="bold",
    )
    figure.savefig(file, dpi=110)


def best_of_ours(rates: Rates) -> float:
    """Return how many times as fast ours is with most threads as the standard one."""
    *ours, standard = (values[-1] for values in rates.values())
    return max(ours) / standard


def rounds(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100:
        raise argparse.ArgumentTypeError(f"must be in 1 … 100, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=rounds, default=2)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()

    machine = (
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(machine)
    print(f"{'calls a second with':20}" + "".join(f"{n:10} thr." for n in THREADS))
    rates = {}
    try:
        with switch_interval(SWITCH_INTERVAL):
            for what, makes in KINDS.items():
                print(what)
                rates[what] = measure(makes, options.rounds)
                for name, values in rates[what].items():
                    shown = "".join(f"{value:12,.0f} /s" for value in values)
                    print(f"  {name:18}{shown}")
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait so long: {error}") from None
    ratios = [best_of_ours(of_kind) for of_kind in rates.values()]
    print(
        f"{THREADS[-1]} threads, ours beside the standard library's: "
        f"{min(ratios):.2f}x to {max(ratios):.2f}x as fast"
    )
    if options.plot is not None:
        plot(rates, machine, options.plot)


if __name__ == "__main__":
    main()
