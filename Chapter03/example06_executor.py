"""What an executor does with tasks: submit, map, as_completed, cancel, shut down.

`submit()` gives a future for each task; what the task raises, `result()` raises again.
`map()` gives results in the order of the arguments, `as_completed()` gives futures in
the order in which they are done. When `map()` comes to a task that failed, it raises
and cancels the tasks that have not begun; those that have begun go on, and nobody will
see what becomes of them. A future that waits in the queue can be cancelled, one that is
running cannot. `shutdown(cancel_futures=True)` cancels all that wait.

An initializer runs once in each thread of the pool, before the thread's first task.

Gates decide here which tasks wait, so that all of this shows in every run.

Output:
    submit         result() returns 4, or raises ValueError
    map            a b c, although they end as c b a
    as_completed   c b a
    map, 1 fails   results [0], begun [0, 1, 2], never begun [3, 4]
    cancelled      running no, waiting yes, at shutdown yes
    initializer    once each in fetch_0 and fetch_1, for 4 tasks
"""

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress

LIMIT = 10.0  # seconds until a task must have come to its gate, or a result is there


class Gate:
    """Holds tasks back: a task that calls it waits until it is opened.

    Use it as a context manager, inside that of the pool: the pool waits for its tasks
    when its block ends, the tasks wait for the gate, and it opens when its own ends.
    """

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def __call__(self) -> None:
        self._reached.set()
        self._opened.wait()

    def open(self) -> None:
        self._opened.set()

    def wait_until_reached(self) -> None:
        """Return when a task is at the gate, and so in progress.

        Raises:
            TimeoutError: none has come within LIMIT.
        """
        if not self._reached.wait(LIMIT):
            raise TimeoutError(f"no task has come to the gate within {LIMIT:g} s")

    def __enter__(self) -> "Gate":
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


def map_in_order() -> tuple[str, str]:
    """Return the tasks' names in the order of their ends, and as `map()` gives them."""
    ended = []
    with ThreadPoolExecutor(3) as pool, Gate() as a, Gate() as b, Gate() as c:
        c.open()  # lets c end, which lets b end, which lets a end

        def task(name: str, gate: Gate, following: Gate) -> str:
            gate()
            ended.append(name)
            following.open()
            return name

        given = list(pool.map(task, "abc", [a, b, c], [a, a, b], timeout=LIMIT))
    return " ".join(ended), " ".join(given)


def as_they_are_completed() -> str:
    """Return the tasks' names as `as_completed()` gives them; c ends first, a last."""
    names = []
    with ThreadPoolExecutor(3) as pool, Gate() as a, Gate() as b, Gate() as c:
        name_of = {
            pool.submit(gate): name for name, gate in zip("abc", [a, b, c], strict=True)
        }
        c.open()
        for future, following in zip(
            as_completed(name_of, LIMIT), [b, a, c], strict=True
        ):
            future.result()
            names.append(name_of[future])
            following.open()
    return " ".join(names)


def map_until_failure() -> tuple[list[int], list[int]]:
    """Map tasks 0 to 4, of which 1 fails; return the results, and who has begun.

    When the failure is looked at, task 2 is running in the only thread.
    """
    results, begun = [], []
    with ThreadPoolExecutor(1) as pool, Gate() as gate:

        def task(n: int) -> int:
            begun.append(n)
            if n == 1:
                raise ValueError(f"task {n} fails")
            if n == 2:
                gate()
            return n

        iterator = pool.map(task, range(5), timeout=LIMIT)
        gate.wait_until_reached()
        with suppress(ValueError):
            for result in iterator:
                results.append(result)
    return results, begun


def cancel_three() -> dict[str, bool]:
    """Cancel a task that runs, one that waits, and one by shutting the pool down.

    Return for each whether it was cancelled.
    """
    with ThreadPoolExecutor(1) as pool, Gate() as gate:
        running = pool.submit(gate)
        waiting, last = pool.submit(abs, -1), pool.submit(abs, -2)
        gate.wait_until_reached()
        cancelled = {"running": running.cancel(), "waiting": waiting.cancel()}
        pool.shutdown(wait=False, cancel_futures=True)
        cancelled["at shutdown"] = last.cancelled()
    running.result()
    return cancelled


def initialized_threads() -> tuple[list[str], int]:
    """Return in which threads a pool of two ran its initializer, and how many tasks.

    Raises:
        RuntimeError: a task came before the initializer of its thread.
    """
    names: list[str] = []

    def initialize() -> None:
        names.append(threading.current_thread().name)

    def task(gate: Gate) -> bool:
        gate()
        return threading.current_thread().name in names

    with (
        ThreadPoolExecutor(2, "fetch", initialize) as pool,
        Gate() as first,
        Gate() as second,
    ):
        futures = [pool.submit(task, gate) for gate in (first, second, first, second)]
        first.wait_until_reached()
        second.wait_until_reached()  # at the same time, so there are two threads
    if not all(future.result() for future in futures):
        raise RuntimeError("a task came before the initializer")
    return sorted(names), len(futures)


def main() -> None:
    with ThreadPoolExecutor(1) as pool:
        good, bad = pool.submit(int, "4"), pool.submit(int, "four")
    try:
        bad.result()
    except ValueError:
        print(f"submit         result() returns {good.result()}, or raises ValueError")
    else:
        raise SystemExit("result() should have raised what the task raised")

    ended, given = map_in_order()
    completed = as_they_are_completed()
    if (ended, given, completed) != ("c b a", "a b c", "c b a"):
        raise SystemExit(f"another order: {ended}, {given}, {completed}")
    print(f"map            {given}, although they end as {ended}")
    print(f"as_completed   {completed}")

    results, begun = map_until_failure()
    if (results, begun) != ([0], [0, 1, 2]):
        raise SystemExit(f"map() should have stopped at task 1: {results}, {begun}")
    print(f"map, 1 fails   results {results}, begun {begun}, never begun [3, 4]")

    cancelled = cancel_three()
    if cancelled != {"running": False, "waiting": True, "at shutdown": True}:
        raise SystemExit(f"others were cancelled: {cancelled}")
    verdicts = (f"{name} {'yes' if was else 'no'}" for name, was in cancelled.items())
    print(f"cancelled      {', '.join(verdicts)}")

    threads, n_tasks = initialized_threads()
    if threads != ["fetch_0", "fetch_1"] or n_tasks <= len(threads):
        raise SystemExit(f"the initializer ran in {threads}, for {n_tasks} tasks")
    print(f"initializer    once each in {' and '.join(threads)}, for {n_tasks} tasks")


if __name__ == "__main__":
    main()
