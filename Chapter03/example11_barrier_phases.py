"""A barrier keeps threads in step: none begins a phase before all have ended the last.

Heat spreads along a rod in steps: the next temperature of each cell is a mean of its
own and its neighbours'. Several threads share the rod, each has a part; at its borders
it needs what its neighbours made of the step before. So all meet at a barrier after
each step. Two buffers suffice: all read the one and write the other, then exchange
them. The barrier's `action` runs in one thread while all others still wait, the one
moment in which the whole rod is consistent; here it takes the picture of each step.

Without the barrier nothing keeps one thread from being a step ahead, and then it has
read cells that were not yet written; that order is forced here. A thread that fails
must break the barrier (`abort`), or all others wait for ever.

Try:  --threads 7
Try:  --steps 200

Output:
    a rod of 60 cells
    barrier     4 threads, 40 steps: each step as in a loop
    no barrier  2 threads, 2 steps, one thread ahead: 3 cells wrong
    a failure   ValueError: 96 degrees is too hot, after 0.4 ms
                3 threads ended with BrokenBarrierError
    in step, the threads do what the loop does; if one fails, all end
"""

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

LIMIT = 10.0  # seconds that threads may wait for each other

Rule = Callable[[float, float, float], float]


def mean(left: float, own: float, right: float) -> float:
    """Return the next temperature of a cell between two neighbours."""
    return (left + 2 * own + right) / 4


def check(cells: Sequence[float]) -> None:
    if len(cells) < 2:
        raise ValueError(f"a rod has at least two cells, not {len(cells)}")


def spread(cells: Sequence[float], steps: int, rule: Rule = mean) -> list[list[float]]:
    """Return the cells after each of `steps` steps. The outermost two never change.

    Raises:
        ValueError: there are fewer than two cells.
    """
    check(cells)
    states = [list(cells)]
    for _ in range(steps):
        now = states[-1]
        inner = [rule(*now[i - 1 : i + 2]) for i in range(1, len(now) - 1)]
        states.append([now[0], *inner, now[-1]])
    return states[1:]


def spread_part(
    part: range,
    buffers: tuple[list[float], list[float]],
    steps: int,
    rule: Rule,
    meet: Callable[[], object],
) -> None:
    """Do the cells `part` of each step, and call `meet` after it.

    The cells are read from the first of `buffers` and written to the second, in the
    next step the other way round. That is right only if `meet` returns when all cells
    of the step are written, and not before.
    """
    now, after = buffers
    for _ in range(steps):
        for i in part:
            after[i] = rule(now[i - 1], now[i], now[i + 1])
        meet()
        now, after = after, now


def parts_of(cells: Sequence[float], n_parts: int) -> list[range]:
    """Cut all cells but the outermost into `n_parts` nearly equal parts."""
    inner = len(cells) - 2
    cuts = [1 + inner * k // n_parts for k in range(n_parts + 1)]
    return [range(a, b) for a, b in pairwise(cuts)]


def spread_with_threads(
    cells: Sequence[float], steps: int, n_threads: int, rule: Rule = mean
) -> list[list[float]]:
    """Return the same as `spread`, computed by `n_threads` threads in step.

    Raises:
        ValueError: there are fewer than two cells.
        Exception: what `rule` raises, whichever it is. All threads have ended then.
        threading.BrokenBarrierError: a thread took longer than LIMIT for a step.
    """
    check(cells)
    buffers = list(cells), list(cells)
    states: list[list[float]] = []

    def take_picture() -> None:  # while all wait: nobody writes
        states.append(list(buffers[(len(states) + 1) % 2]))

    barrier = threading.Barrier(n_threads, take_picture, LIMIT)

    def work(part: range) -> None:
        try:
            spread_part(part, buffers, steps, rule, barrier.wait)
        except BaseException:
            barrier.abort()  # the others get BrokenBarrierError instead of waiting
            raise

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            futures = [pool.submit(work, part) for part in parts_of(cells, n_threads)]
            wait(futures)
        except BaseException:  # Ctrl-C, perhaps before all threads have started
            barrier.abort()
            raise
    errors = [error for future in futures if (error := future.exception())]
    broken = [e for e in errors if isinstance(e, threading.BrokenBarrierError)]
    causes = [e for e in errors if e not in broken]
    for error in causes or broken:  # the cause, not what came of it in other threads
        error.add_note(f"{len(broken)} threads ended with BrokenBarrierError")
        raise error
    return states


def spread_out_of_step(cells: Sequence[float], steps: int) -> list[float]:
    """Return what two threads make of the cells if nobody keeps them in step.

    The one is through with all steps before the other begins. Without a barrier that
    is as good an order as any.
    """
    buffers = list(cells), list(cells)
    for part in parts_of(cells, 2):
        arguments = (part, buffers, steps, mean, lambda: None)
        thread = threading.Thread(target=spread_part, args=arguments)
        thread.start()
        thread.join()
    return buffers[steps % 2]


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=positive, default=4)
    parser.add_argument("--steps", type=positive, default=40)
    options = parser.parse_args()
    n_threads, steps = options.threads, options.steps
    cells = [float(i * i % 97) for i in range(60)]

    print(f"a rod of {len(cells)} cells")
    expected = spread(cells, steps)
    if spread_with_threads(cells, steps, n_threads) != expected:
        raise SystemExit("the threads have found something else than the loop")
    print(f"barrier     {n_threads} threads, {steps} steps: each step as in a loop")

    ahead = spread_out_of_step(cells, steps=2)
    wrong = sum(a != b for a, b in zip(ahead, spread(cells, 2)[-1], strict=True))
    if not wrong:
        raise SystemExit("a thread ahead of the other was to read old cells")
    print(f"no barrier  2 threads, 2 steps, one thread ahead: {wrong} cells wrong")

    def too_hot(left: float, own: float, right: float) -> float:
        if own == max(cells):
            raise ValueError(f"{own:g} degrees is too hot")
        return mean(left, own, right)

    began = time.perf_counter()
    try:
        spread_with_threads(cells, steps, n_threads, too_hot)
    except ValueError as error:
        taken = time.perf_counter() - began
        print(f"a failure   ValueError: {error}, after {1000 * taken:.1f} ms")
        print(f"            {error.__notes__[0]}")
    else:
        raise SystemExit("a thread was to fail")
    if taken >= LIMIT:
        raise SystemExit("the others have waited for a thread that had failed")
    print("in step, the threads do what the loop does; if one fails, all end")


if __name__ == "__main__":
    main()
