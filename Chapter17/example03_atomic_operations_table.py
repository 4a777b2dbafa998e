"""Twenty-three lines of Python: whether each is atomic is decided in this very run.

Each line is stopped at each boundary between instructions, and another thread does the
line beside it. `serial` says that the outcome was always that of one line after the
other. Otherwise another thread may come in before the instruction that changes what
they share, when the line has read something, or within it, if that runs Python code.
(L is a list, d a dict, q a deque, c an itertools.count, two() a generator; k and m, and
the items of M, are compared by methods written in Python.)

* One call of C code that runs no Python code, and keeps the GIL to its end, is one
  step. (`sock.sendall` lets go of it.) With a generator or with such items the same
  call is more than that: `extend` is stopped half way, and `remove` removes the wrong
  item. (A dict looks a key up again if it has been changed meanwhile: the line is
  entered, and still right.)
* Two such calls are two steps, and so are a read and a write.

With a GIL that settles it: a line is atomic if nobody can be stopped in it. But mind
destructors: an object that is replaced may have a `__del__`, which is Python code.

Without a GIL two calls of C code run at once, and what keeps them apart are the locks
of the list or the dict (PEP 703), as long as both take them. So in the last column two
threads do both lines at once, again and again; it tells how many outcomes are not
serial. What is 0 % has not been seen, no more. One line marked serial is not atomic
there: `len` takes no lock, and may find the list empty while it is sorted.

The language promises none of this. What CPython says of itself: FAQ, "What kinds of
global value mutation are thread-safe?"; library reference, "Thread Safety Guarantees",
for builds without a GIL, and on `collections.deque`. Of iterators it promises nothing,
not even of itertools.count. Where it matters, take a lock.

Output:
    Python <version>, GIL <gil>
    line                        beside it      changed by    outcomes            at once
    x.n = 1                     x.n = 2        STORE_ATTR    serial               0.00 %
    d['k'] = 1                  d['k'] = 2     STORE_SUBSCR  serial               0.00 %
    d.setdefault('k', 1)        d['k'] = 2     CALL          serial               0.00 %
    d.pop('k', 0)               d.pop('k', 0)  CALL          serial               0.00 %
    d.update(e)                 d.copy()       CALL          serial               0.00 %
    d[k] = 1                    d[m] = 2       STORE_SUBSCR  serial, but entered  0.00 %
    L.append(1)                 L.append(2)    CALL          serial               0.00 %
    L.pop()                     L.pop()        CALL          serial               0.00 %
    L.extend(t)                 L.append(0)    CALL          serial               0.00 %
    L.sort()                    L.append(0)    CALL          serial               0.00 %
    L.sort()                    len(L)         CALL          serial               0.00 %
    q.popleft()                 q.append(2)    CALL          serial               0.00 %
    next(c)                     next(c)        CALL          serial               0.00 %
    n += 1                      n += 1         STORE_NAME    broken before it     0.00 %
    x.n += 1                    x.n += 1       STORE_ATTR    broken before it     0.00 %
    d['k'] += 1                 d['k'] += 1    STORE_SUBSCR  broken before it     0.00 %
    a, b = b, a                 a, b = b, a    STORE_NAME    broken before it     0.00 %
    if 'k' not in d: d['k'] = 1 d['k'] = 2     STORE_SUBSCR  broken before it     0.00 %
    if L: L.pop()               L.pop()        CALL          broken before it     0.00 %
    L.append(L[-1])             L.append(2)    CALL          broken before it     0.00 %
    L.extend(two())             L.append(0)    CALL          broken within it     0.00 %
    M.sort()                    len(M)         CALL          broken within it     0.00 %
    M.remove(k)                 M.insert(0, 0) CALL          broken within it     0.00 %
    C code that keeps the GIL is one step; anything else may be several
"""

import itertools
import platform
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import NamedTuple, TypeVar

from boundaries import (
    Action,
    Names,
    Outcome,
    attempt,
    changed_by,
    compiled,
    interleave_at_every_boundary,
    serial_outcomes,
)

S = TypeVar("S")

ROUNDS = 2000  # in which two threads do their lines at once
TIME = 0.04  # seconds for these rounds, for one row
SPINS = 200  # looks for the other thread before this one lets go of the GIL


@dataclass(frozen=True)
class Key:
    """A key that is compared by Python code. All of them have the same hash."""

    number: int

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.number == other.number

    def __lt__(self, other: "Key") -> bool:
        return self.number < other.number

    def __hash__(self) -> int:
        return 0


def two() -> Iterator[int]:
    """Yield two items, from Python code."""
    yield 1
    yield 2


KNOWN = {
    "Key": Key,
    "count": itertools.count,
    "deque": deque,
    "namespace": SimpleNamespace,
    "two": two,
}


class Row(NamedTuple):
    """A line, another one beside it, and what is to come of that.

    Attributes:
        setup: a line that makes what the two share.
        verdict: SERIAL, ENTERED, BEFORE or WITHIN.
        needs_gil: two threads at once may break it, where there is no GIL.
    """

    line: str
    beside: str
    setup: str
    verdict: str
    needs_gil: bool = False


# All outcomes are serial; they are, although the line runs Python code, in which
# another thread comes in; not all are, if it comes before the instruction that changes
# what they share; or within that instruction.
SERIAL, ENTERED = "serial", "serial, but entered"
BEFORE, WITHIN = "broken before it", "broken within it"

ROWS = [
    Row("x.n = 1", "x.n = 2", "x = namespace(n=0)", SERIAL),
    Row("d['k'] = 1", "d['k'] = 2", "d = {}", SERIAL),
    Row("d.setdefault('k', 1)", "d['k'] = 2", "d = {}", SERIAL),
    Row("d.pop('k', 0)", "d.pop('k', 0)", "d = {'k': 1}", SERIAL),
    Row("d.update(e)", "d.copy()", "d = {1: 0, 2: 0}; e = {1: 1, 2: 1}", SERIAL),
    Row("d[k] = 1", "d[m] = 2", "k, m = Key(1), Key(2); d = {Key(0): 0}", ENTERED),
    Row("L.append(1)", "L.append(2)", "L = []", SERIAL),
    Row("L.pop()", "L.pop()", "L = [1, 2]", SERIAL),
    Row("L.extend(t)", "L.append(0)", "L = []; t = (1, 2)", SERIAL),
    Row("L.sort()", "L.append(0)", "L = [2, 1]", SERIAL),
    Row("L.sort()", "len(L)", "L = [*range(50), 0]", SERIAL, needs_gil=True),
    Row("q.popleft()", "q.append(2)", "q = deque([1])", SERIAL),
    Row("next(c)", "next(c)", "c = count()", SERIAL),
    Row("n += 1", "n += 1", "n = 0", BEFORE),
    Row("x.n += 1", "x.n += 1", "x = namespace(n=0)", BEFORE),
    Row("d['k'] += 1", "d['k'] += 1", "d = {'k': 0}", BEFORE),
    Row("a, b = b, a", "a, b = b, a", "a, b = 1, 2", BEFORE),
    Row("if 'k' not in d: d['k'] = 1", "d['k'] = 2", "d = {}", BEFORE),
    Row("if L: L.pop()", "L.pop()", "L = [1]", BEFORE),
    Row("L.append(L[-1])", "L.append(2)", "L = [1]", BEFORE),
    Row("L.extend(two())", "L.append(0)", "L = []", WITHIN),
    Row("M.sort()", "len(M)", "M = [Key(2), Key(1)]", WITHIN),
    Row("M.remove(k)", "M.insert(0, 0)", "k = Key(2); M = [Key(1), Key(2)]", WITHIN),
]


def verdict(
    line: Action[S], other: Action[S], setup: Callable[[], S], serial: set[Outcome]
) -> tuple[str, str]:
    """Let another thread come in at each boundary of a line.

    Returns:
        The instructions that change what they share, and what is to be said of that.
    """
    changing = list(dict.fromkeys(changed_by(line, setup)))
    boundaries = interleave_at_every_boundary(line, other, setup)
    broken = [one for one in boundaries if one.outcome not in serial]
    said = ENTERED if any(one.within for one in boundaries) else SERIAL
    if broken:
        where, _, _ = broken[-1]
        said = WITHIN if broken[-1].within else BEFORE
        if where not in changing:
            said = f"broken at {where}"
    return ", ".join(changing), said


def at_once(
    line: Action[S], other: Action[S], setup: Callable[[], S], most: int
) -> list[Outcome]:
    """Let two threads do the two lines at once, again and again.

    They do not on one core, nor with a GIL, except in what they run in Python.

    Args:
        most: how often at most. It is less often if that would take longer than TIME.
    """
    shared = [setup() for _ in range(most)]
    arrived = [0, 0]  # in how many rounds; each thread writes its own number only
    end = time.perf_counter() + TIME

    def work(me: int, action: Action[S]) -> list[str]:
        results: list[str] = []
        late = False
        while not late and len(results) < most:
            arrived[me] += 1
            spins = 0
            while arrived[1 - me] < arrived[me] and not late:
                spins += 1
                if spins > SPINS:
                    time.sleep(0)  # with a GIL, or on one core, the other cannot come
                    late = time.perf_counter() > end
            results.append(attempt(partial(action, shared[len(results)])))
        return results

    with ThreadPoolExecutor(2) as pool:
        mine, theirs = pool.map(work, (0, 1), (line, other))
    both = zip(mine, theirs, shared, strict=False)  # one may have stopped before
    return [Outcome(one, two, repr(state)) for one, two, state in both]


def making(text: str) -> Callable[[], Names]:
    """Return a function that makes a namespace, each time anew, by a line of Python."""
    fill = compiled(text, KNOWN)

    def make() -> Names:
        names: Names = {}
        fill(names)
        return names

    return make


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def main() -> None:
    print(f"Python {platform.python_version()}, GIL {gil_state()}")
    # With a GIL the two take turns all the same.
    rounds = ROUNDS if gil_state() == "off" else ROUNDS // 10
    print(f"{'line':28}{'beside it':15}{'changed by':14}{'outcomes':19} at once")
    for row in ROWS:
        line, other = compiled(row.line, KNOWN), compiled(row.beside, KNOWN)
        setup = making(row.setup)
        serial = serial_outcomes(line, other, setup)
        try:
            changing, said = verdict(line, other, setup, serial)
        except TimeoutError as error:
            raise SystemExit(f"nobody was to wait: {error}") from None
        outcomes = at_once(line, other, setup, rounds)
        share = 100 * sum(one not in serial for one in outcomes) / len(outcomes)
        print(
            f"{row.line:28}{row.beside:15}{changing:14}{said:19} {f'{share:.2f} %':>7}"
        )
        if said != row.verdict:
            raise SystemExit(f"{row.line}: outcomes were to be {row.verdict}")
        may_break = row.verdict in (BEFORE, WITHIN)
        may_break |= row.needs_gil and gil_state() == "off"
        if share and not may_break:
            raise SystemExit(f"{row.line}: two at once were to be serial as well")
    print("C code that keeps the GIL is one step; anything else may be several")


if __name__ == "__main__":
    main()
