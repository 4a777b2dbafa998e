"""Decides whether recorded calls of a concurrent object are linearizable.

A concurrent object is linearizable if each call seems to take effect at one instant
between its invocation and its return. For a history, what threads have called and what
they got, that means: the calls can be put in an order in which a sequential object
gives the same results, and in which a call that had returned before another was invoked
comes before it. Such an order is a linearization. A history that has none refutes the
object; one that has does not prove it, for the next history may be another.

The search tries what may have taken effect next, runs the specification, and goes back
where a result differs. To decide is NP-complete (Gibbons and Korach, 1997), so keep
histories short. Two things help. The same calls done in another order often lead to the
same state: each pair of calls done and state is tried once. And if each call concerns
one key only, each key is an object of its own and is decided for itself: a history is
linearizable if and only if those of its objects are.

The clock of a history is a counter under a lock (`next` of an itertools.count is not
promised to be atomic on free-threaded builds). It ticks before a call begins and after
it has ended. To wait for the clock only makes the call look longer, and more orders
possible. So an order of two calls may be lost, but none is invented, and what is
refuted is wrong indeed.

M. Herlihy, J. Wing, "Linearizability: a correctness condition for concurrent objects",
ACM TOPLAS 12 (3), 1990: the definition, and the theorem on several objects. J. Wing,
C. Gong, "Testing and verifying concurrent objects", Journal of Parallel and Distributed
Computing 17, 1993: the search. G. Lowe, "Testing for linearizability", Concurrency and
Computation 29 (4), 2017: each pair once. Tools for large systems: Lincheck for the JVM,
Porcupine for Go, Knossos for databases.

Output:
    A  |- put(1) -----| |- get() -> 2 -|
    B    |- put(2) -|                    |- get() -> 1 -|
    linearizable: put(2), put(1), get() -> 2, get() -> 1
    6 keys are set at once, then one is not found: not linearizable
        configurations tried     1957
        each of them once          64
        each key for itself        12
    queue.SimpleQueue, 20 histories as they come: all linearizable
"""

import math
import queue
import threading
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

S = TypeVar("S", bound=Hashable)
Arguments = tuple[Any, ...]

LIMIT = 10.0  # seconds for what is bound to come
MOST = 1_000_000  # configurations after which a search gives up
HISTORIES, THREADS = 20, 4  # that are recorded as they come


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a concurrent object.

    Attributes:
        thread: who has made it, one call after the other.
        name: the operation, as the specification calls it.
        result: what was returned; the class of an exception that was raised.
        invoked: tick of the history's clock before the call.
        returned: tick after it. None: it is pending, has perhaps taken effect, perhaps
            not, and `result` means nothing. Its thread makes no other call.
    """

    thread: str
    name: str
    arguments: Arguments
    result: object
    invoked: int
    returned: int | None

    def __str__(self) -> str:
        call = f"{self.name}({', '.join(map(repr, self.arguments))})"
        if self.result is None:
            return call
        if isinstance(self.result, type):
            return f"{call} -> {self.result.__name__}"
        return f"{call} -> {self.result!r}"


class History:
    """Records the calls that any number of threads make by means of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards both that follow
        self._ticks = 0
        self._calls: dict[int, Call] = {}  # by the tick of invocation, in its order

    def call(
        self, thread: str, name: str, function: Callable[..., object], *arguments: Any
    ) -> object:
        """Call `function` and record it.

        What is no Exception, as KeyboardInterrupt, is raised; the call is pending then.

        Returns:
            What is recorded as its result.
        """
        with self._lock:
            invoked = self._ticks
            self._ticks += 1
            self._calls[invoked] = Call(thread, name, arguments, None, invoked, None)
        try:
            result = function(*arguments)
        except Exception as error:
            result = type(error)
        with self._lock:
            returned = self._ticks
            self._ticks += 1
            self._calls[invoked] = replace(
                self._calls[invoked], result=result, returned=returned
            )
        return result

    def calls(self) -> list[Call]:
        """Return all calls so far, in the order in which they were invoked."""
        with self._lock:
            return list(self._calls.values())


# What a thread is to do: name, function and arguments of each call.
Program = Sequence[tuple[str, Callable[..., object], Arguments]]


def record(programs: Mapping[str, Program]) -> list[Call]:
    """Let threads make their calls, all at once; return the history.

    Args:
        programs: by the thread's name.

    Raises:
        TimeoutError: a thread was waited for LIMIT seconds, in vain. It is left.
    """
    history = History()
    together = threading.Barrier(len(programs))

    def work(thread: str, program: Program) -> None:
        try:
            together.wait()
        except threading.BrokenBarrierError:
            return
        for name, function, arguments in program:
            history.call(thread, name, function, *arguments)

    threads = [
        threading.Thread(target=work, args=one, daemon=True) for one in programs.items()
    ]
    try:
        for thread in threads:
            thread.start()
    except BaseException:  # also Ctrl-C, perhaps before all threads have started
        together.abort()
        raise
    for thread in threads:
        thread.join(LIMIT)
        if thread.is_alive():
            raise TimeoutError(f"not all calls have returned within {LIMIT:g} s")
    return history.calls()


# What one call does to a sequential object: given its state, the operation's name and
# the arguments, it returns the next state and the result. A call that would have to
# wait may return anything that no such call returns, as `fifo` does.
Specification = Callable[[S, str, Arguments], tuple[S, object]]


def counter(value: int, name: str, arguments: Arguments) -> tuple[int, object]:
    """Specify a counter, by its value; increment returns the new one."""
    match name, *arguments:
        case ["increment"]:
            return value + 1, value + 1
        case ["add", amount]:
            return value + amount, None
        case ["get"]:
            return value, value
    raise ValueError(f"a counter has no {name}{arguments}")


def register(value: Any, name: str, arguments: Arguments) -> tuple[Any, object]:
    """Specify a register with compare-and-set, by its value."""
    match name, *arguments:
        case ["read"]:
            return value, value
        case ["write", new]:
            return new, None
        case ["compare_and_set", expected, new]:
            return (new, True) if value == expected else (value, False)
    raise ValueError(f"a register has no {name}{arguments}")


def fifo(
    items: tuple[Any, ...],
    name: str,
    arguments: Arguments,
    maxsize: float = math.inf,
    empty: type[Exception] = queue.Empty,
) -> tuple[tuple[Any, ...], object]:
    """Specify a queue, by its items.

    Calls that wait need nothing else: one that has got an item was not told `empty`, so
    it has taken effect when there was an item.

    Args:
        maxsize: items that there is room for. For more, put raises queue.Full.
        empty: what get raises if there is no item.
    """
    match name, *arguments:
        case ["put", item]:
            if len(items) >= maxsize:
                return items, queue.Full
            return (*items, item), None
        case ["get"]:
            return (items[1:], items[0]) if items else (items, empty)
    raise ValueError(f"a queue has no {name}{arguments}")


def lifo(
    items: tuple[Any, ...], name: str, arguments: Arguments
) -> tuple[tuple[Any, ...], object]:
    """Specify a stack, by its items; pop raises IndexError if there is none."""
    match name, *arguments:
        case ["push", item]:
            return (*items, item), None
        case ["pop"]:
            return (items[:-1], items[-1]) if items else (items, IndexError)
    raise ValueError(f"a stack has no {name}{arguments}")


def key_set(
    keys: frozenset[Any], name: str, arguments: Arguments
) -> tuple[frozenset[Any], object]:
    """Specify a set, by its keys; add and remove tell whether they changed anything."""
    match name, *arguments:
        case ["add", key]:
            return keys | {key}, key not in keys
        case ["remove", key]:
            return keys - {key}, key in keys
        case ["contains", key]:
            return keys, key in keys
    raise ValueError(f"a set has no {name}{arguments}")


def key_map(
    items: frozenset[tuple[Any, Any]], name: str, arguments: Arguments
) -> tuple[frozenset[tuple[Any, Any]], object]:
    """Specify a map, by its pairs of key and value.

    get returns None for a key that is not there, pop raises KeyError; update adds to
    the value, to 0 if there is none, and returns the new one.
    """
    found = dict(items)
    result: object = None
    match name, *arguments:
        case ["get", key]:
            return items, found.get(key)
        case ["set", key, value]:
            found[key] = value
        case ["setdefault", key, value]:
            result = found.setdefault(key, value)
        case ["update", key, amount]:
            result = found[key] = found.get(key, 0) + amount
        case ["pop", key]:
            result = found.pop(key, KeyError)
        case _:
            raise ValueError(f"a map has no {name}{arguments}")
    return frozenset(found.items()), result


# Yields which calls, by their numbers, may take effect next. Given are all calls, in
# the order of invocation, and as bits which of them are done.
Order = Callable[[Sequence[Call], int], Iterator[int]]


def real_time(calls: Sequence[Call], done: int) -> Iterator[int]:
    """Yield those that were invoked before any other that is left has returned."""
    first_return = math.inf
    first_left = (~done & (done + 1)).bit_length() - 1
    for n in range(first_left, len(calls)):
        if done >> n & 1:
            continue
        if calls[n].invoked > first_return:
            return
        yield n
        first_return = min(first_return, calls[n].returned or math.inf)


def program_order(calls: Sequence[Call], done: int) -> Iterator[int]:
    """Yield the next call of each thread, whatever other threads do meanwhile."""
    threads = set()
    for n, call in enumerate(calls):
        if not done >> n & 1 and call.thread not in threads:
            threads.add(call.thread)
            yield n


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a search has found.

    Attributes:
        order: an order that explains the history, with all calls that have returned,
            and perhaps with pending ones; None if there is none.
        tried: how many configurations were tried, pairs of calls done and state.
    """

    order: tuple[Call, ...] | None
    tried: int


def decide(
    calls: Sequence[Call],
    specification: Specification[S],
    initial: S,
    order: Order = real_time,
    memoise: bool = True,
) -> Verdict:
    """Look for an order of `calls` in which a sequential object gives their results.

    Args:
        initial: the state of the object at first.
        order: with `real_time` the history is linearizable if there is such an order,
            with `program_order` it is sequentially consistent.
        memoise: try each configuration once, however it was reached.

    Raises:
        RuntimeError: MOST configurations were tried, and nothing is decided.
    """
    calls = sorted(calls, key=lambda call: call.invoked)
    completed = sum(1 << n for n, call in enumerate(calls) if call.returned is not None)
    left: list[tuple[int, S, tuple[Call, ...]]] = [(0, initial, ())]
    seen: set[tuple[int, S]] = set()
    tried = 0
    while left:
        done, state, path = left.pop()
        if (done, state) in seen:
            continue
        if memoise:
            seen.add((done, state))
        tried += 1
        if tried > MOST:
            raise RuntimeError(f"not decided after {MOST:,} configurations")
        if completed & ~done == 0:
            return Verdict(path, tried)
        # What was invoked first is tried first: it mostly took effect first.
        for n in reversed([*order(calls, done)]):
            call = calls[n]
            after, result = specification(state, call.name, call.arguments)
            if call.returned is None or result == call.result:
                left.append((done | 1 << n, after, (*path, call)))
    return Verdict(None, tried)


def by_key(calls: Sequence[Call]) -> list[list[Call]]:
    """Part the calls by their first argument, if each concerns that key only.

    The history is linearizable if and only if each part is. That does not hold for
    sequential consistency.
    """
    parts: dict[Hashable, list[Call]] = {}
    for call in calls:
        parts.setdefault(call.arguments[0], []).append(call)
    return list(parts.values())


def shortest_refuted_prefix(
    calls: Sequence[Call], specification: Specification[S], initial: S
) -> list[Call]:
    """Return the history up to the first return that no linearization explains.

    Each beginning of a linearizable history is linearizable, so the failure lies here.
    What has not returned by then is pending. Any of these calls may be needed.

    Raises:
        ValueError: the history is linearizable.
    """

    def until(tick: int) -> list[Call]:
        return [
            call
            if call.returned is not None and call.returned <= tick
            else replace(call, result=None, returned=None)
            for call in calls
            if call.invoked < tick
        ]

    def is_refuted(tick: int) -> bool:
        return decide(until(tick), specification, initial).order is None

    returns = sorted(call.returned for call in calls if call.returned is not None)
    place = bisect_left(returns, True, key=is_refuted)
    if place == len(returns):
        raise ValueError("the history is linearizable")
    return until(returns[place])


def timeline(calls: Sequence[Call], width: int = 80) -> str:
    """Draw a history, one row for each thread, one bar for each call.

    Bars overlap if and only if the calls do. A pending call has no end. What is wider
    than `width` columns is folded.
    """
    begins = {call.invoked: call for call in calls}
    ends = {call.returned: call for call in calls if call.returned is not None}
    rows = dict.fromkeys(sorted({call.thread for call in calls}), "")
    solid: set[int] = set()  # columns that a fold would tear from the one before
    column = -2
    for tick, call in sorted((begins | ends).items()):
        row = rows[call.thread]
        column += 2
        if tick == call.invoked:
            row = row.ljust(column) + f"|- {call}"
            solid.update(range(column + 1, len(row) + 1))
            row += " -"
        else:
            column = max(column, len(row))  # the bar must be long enough
            row = row.ljust(column, "-") + "|"
        rows[call.thread] = row
    for call in calls:
        if call.returned is None:
            row = rows[call.thread].ljust(column, "-") + " ..."
            solid.update(range(len(row) - 2, len(row)))
            rows[call.thread] = row

    margin = max(map(len, rows), default=0) + 2
    room = max(1, width - margin)
    lines, begin = [], 0
    while begin < max(map(len, rows.values()), default=0):
        folds = (end for end in range(begin + room, begin, -1) if end not in solid)
        end = next(folds, begin + room)  # through a call if that fills the whole width
        for thread, row in rows.items():
            lines.append(f"{thread:{margin}}{row[begin:end]}".rstrip())
        lines.append("")
        begin = end
    return "\n".join(lines[:-1])


def overtaken() -> list[Call]:
    """Let thread B put an item while the put of A has begun and has no effect yet."""
    history = History()
    items: queue.SimpleQueue[int] = queue.SimpleQueue()

    def put_late(item: int) -> None:
        b.submit(history.call, "B", "put", items.put, 2).result(LIMIT)
        items.put(item)

    with ThreadPoolExecutor(1) as b:  # this thread is A
        history.call("A", "put", put_late, 1)
        history.call("A", "get", items.get_nowait)
        b.submit(history.call, "B", "get", items.get_nowait).result(LIMIT)
    return history.calls()


def lost_key(n_keys: int) -> list[Call]:
    """Return a history: as many keys are set at once, and one of them is not found."""
    sets = [
        Call(f"T{key}", "set", (key, "x"), None, key, n_keys + key)
        for key in range(n_keys)
    ]
    return [*sets, Call("T0", "get", (0,), None, 2 * n_keys, 2 * n_keys + 1)]


def as_they_come() -> list[Call]:
    """Let threads put and get, each as fast as it can."""
    items: queue.SimpleQueue[int] = queue.SimpleQueue()
    return record(
        {
            f"T{n}": [
                ("put", items.put, (n,)),
                ("get", items.get_nowait, ()),
                ("get", items.get_nowait, ()),
            ]
            for n in range(THREADS)
        }
    )


def main() -> None:
    calls = overtaken()
    order = decide(calls, fifo, ()).order
    print(timeline(calls))
    if order is None or [call.thread for call in order] != ["B", "A", "A", "B"]:
        raise SystemExit("B was to put before A")
    print(f"linearizable: {', '.join(map(str, order))}")

    lost, nothing = lost_key(6), frozenset[tuple[int, str]]()
    plainly = decide(lost, key_map, nothing, memoise=False)
    whole = decide(lost, key_map, nothing)
    parts = [decide(part, key_map, nothing) for part in by_key(lost)]
    refuted = [verdict for verdict in (plainly, whole, *parts) if verdict.order is None]
    if len(refuted) != 3:
        raise SystemExit("the lost key was to be found, and only there")
    by_keys = sum(part.tried for part in parts)
    print("6 keys are set at once, then one is not found: not linearizable")
    print(f"    configurations tried    {plainly.tried:5}")
    print(f"    each of them once       {whole.tried:5}")
    print(f"    each key for itself     {by_keys:5}")
    if not by_keys < whole.tried < plainly.tried:
        raise SystemExit("each was to need fewer than the one before")

    for _ in range(HISTORIES):
        try:
            calls = as_they_come()
        except TimeoutError as error:
            raise SystemExit(f"nobody was to wait: {error}") from None
        if decide(calls, fifo, ()).order is None:
            print(timeline(shortest_refuted_prefix(calls, fifo, ())))
            raise SystemExit("queue.SimpleQueue was to be linearizable")
    print(f"queue.SimpleQueue, {HISTORIES} histories as they come: all linearizable")


if __name__ == "__main__":
    main()
