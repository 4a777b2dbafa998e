"""A thread is stopped before each instruction of a line, and another thread comes in.

Is a line of Python atomic? A tracer is told of each instruction before it is executed.
It stops the thread there, lets another one do a line of its own, and goes on. What
comes of it, the results and the state in the end, is compared with what comes of the
two lines one after the other, in either order. If it is neither, the line is not
atomic, and this interleaving is the proof. If it is one of them at each boundary, the
line is atomic towards the other one, as far as threads change places between
instructions. (The other line is done as a whole. To stop that one, swap the two;
Chapter 19 plays all interleavings.)

A function written in C is one step: no tracer looks inside. With a GIL no other thread
does, either. C code keeps it until it lets go of it, mostly to wait, or runs Python
code, such as the `__eq__` of a key; and there the tracer stops the thread, too. Without
a GIL two such functions run at once. Their objects have locks that keep them apart (PEP
703), and no tracer sees whether they do; so example03 has a stress test besides.

Source: C. Flanagan, S. N. Freund, "Atomizer: a dynamic atomicity checker for
multithreaded programs", POPL 2004, for the question; Python Library Reference,
`sys.settrace` and `f_trace_opcodes`, for the means.

Output:
    two threads  not serial         results      state
    n = 1        nowhere
    n += 1       before STORE_NAME  None, None   {'n': 1}
    Account.pay  before STORE_ATTR  True, True   Account(balance=20)
    a line is atomic if no other thread can come in, or none can tell
"""

import dis
import gc
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from queue import SimpleQueue
from types import FrameType
from typing import Any, NamedTuple, TypeVar

S = TypeVar("S")
T = TypeVar("T")

Action = Callable[[S], object]  # something done to what threads share
Names = dict[str, Any]

LIMIT = 10.0  # seconds that the stopped thread waits for the other


class Outcome(NamedTuple):
    """What came of two actions, as text: their results, or errors, and the state."""

    mine: str
    theirs: str
    state: str


class Boundary(NamedTuple):
    """Where a thread was stopped, and what came of it.

    Attributes:
        instruction: the name of the line's instruction that was about to be executed.
        within: the thread was stopped in Python code that this instruction runs.
    """

    instruction: str
    within: bool
    outcome: Outcome


def compiled(text: str, known: Mapping[str, object] | None = None) -> Action[Names]:
    """Return a function that does a line of Python, given the names that are shared.

    It returns the line's value if that is an expression. Functions and comprehensions
    within the line need not see the names that are shared.

    Args:
        known: names that the line may use, but does not share.
    """
    scope = dict(known or {})
    with suppress(SyntaxError):
        return partial(eval, compile(text, "<line>", "eval"), scope)
    return partial(eval, compile(text, "<line>", "exec"), scope)


def at_boundaries(call: Callable[[], T], visit: Callable[[str, bool], object]) -> T:
    """Call `call` and return what it returns, with a visit at each boundary.

    Args:
        call: what runs the line; the line is the first Python code that it runs.
        visit: called before each instruction with the first two attributes of Boundary.
    """
    line: FrameType | None = None
    instruction = ""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal line, instruction
        frame.f_trace_opcodes = True
        if event == "opcode":
            line = line or frame
            if frame is line:
                instruction = dis.opname[frame.f_code.co_code[frame.f_lasti]]
            visit(instruction, frame is not line)
        return trace

    usual, collecting = sys.gettrace(), gc.isenabled()
    try:
        gc.disable()  # it may call functions, whose instructions are not the line's
        sys._getframe().f_trace_opcodes = True  # 3.12 wants it before settrace
        sys.settrace(trace)
        return call()
    finally:
        sys.settrace(usual)
        if collecting:
            gc.enable()


def attempt(call: Callable[[], object]) -> str:
    """Return as text what `call` returns, or the exception that it raises."""
    try:
        return repr(call())
    except Exception as error:
        return repr(error)


def stop_at(
    n: int, line: Action[S], shared: S, let_in: Callable[[S], str]
) -> Boundary | None:
    """Do a line, and before its instruction number `n`, from 0, let the other one in.

    Returns:
        None if the line has fewer instructions.
    """
    stops: list[tuple[str, bool]] = []
    theirs: str | None = None

    def visit(instruction: str, within: bool) -> None:
        nonlocal theirs
        stops.append((instruction, within))
        if len(stops) == n + 1:
            theirs = let_in(shared)

    mine = attempt(partial(at_boundaries, partial(line, shared), visit))
    if len(stops) <= n:
        return None
    if theirs is None:  # what let_in has raised went through the line
        raise TimeoutError(f"the other thread is stuck, with this before {stops[n][0]}")
    return Boundary(*stops[n], Outcome(mine, theirs, repr(shared)))


def interleave_at_every_boundary(
    line: Action[S], other: Action[S], setup: Callable[[], S]
) -> list[Boundary]:
    """Stop this thread at each boundary of `line`, in turn; let another do `other`.

    Args:
        line: must run the same instructions each time, if nobody comes in.
        setup: makes what they share, anew for each boundary. Its repr, and that of what
            the actions return, has to tell what is to be compared.

    Raises:
        TimeoutError: the other thread did not end within LIMIT seconds. Perhaps it
            waits for a lock that the stopped one holds. If that is not released when
            the line is given up, the other thread is left behind.
    """
    entrances: SimpleQueue[tuple[S] | None] = SimpleQueue()
    answers: SimpleQueue[str] = SimpleQueue()

    def serve() -> None:
        while entrance := entrances.get():
            answers.put(attempt(partial(other, *entrance)))

    def let_in(shared: S) -> str:
        entrances.put((shared,))
        return answers.get(timeout=LIMIT)

    boundaries: list[Boundary] = []
    # A daemon, for it may wait for ever.
    thread = threading.Thread(target=serve, daemon=True)
    try:
        thread.start()
        while boundary := stop_at(len(boundaries), line, setup(), let_in):
            boundaries.append(boundary)
    finally:
        entrances.put(None)
        if thread.is_alive():  # not if Ctrl-C came while it started
            thread.join(LIMIT)
    return boundaries


def serial_outcomes(
    line: Action[S], other: Action[S], setup: Callable[[], S]
) -> set[Outcome]:
    """Return what comes of the two, one after the other, in both orders."""
    first, last = setup(), setup()  # for the line to be the first, and the last
    mine_first = attempt(partial(line, first))
    theirs_last = attempt(partial(other, first))
    theirs_first = attempt(partial(other, last))
    mine_last = attempt(partial(line, last))
    return {
        Outcome(mine_first, theirs_last, repr(first)),
        Outcome(mine_last, theirs_first, repr(last)),
    }


def changed_by(line: Action[S], setup: Callable[[], S]) -> list[str]:
    """Return the names of the line's instructions that change what is shared.

    The line may raise an exception.
    """
    shared = setup()
    states: list[tuple[str, str]] = []

    def look(instruction: str, within: bool) -> None:
        if not within:
            states.append((instruction, repr(shared)))

    attempt(partial(at_boundaries, partial(line, shared), look))
    states.append(("", repr(shared)))
    return [name for (name, old), (_, new) in pairwise(states) if old != new]


@dataclass
class Account:
    """An account; nothing guards its balance."""

    balance: int = 100

    def pay(self) -> bool:
        """Pay 80 if there is as much; tell whether there was."""
        if self.balance < 80:
            return False
        self.balance -= 80
        return True


def show(name: str, action: Action[S], setup: Callable[[], S]) -> bool:
    """Print what shows that an action is not atomic towards itself; tell if it is."""
    serial = serial_outcomes(action, action, setup)
    boundaries = interleave_at_every_boundary(action, action, setup)
    broken = [one for one in boundaries if one.outcome not in serial]
    if broken:
        mine, theirs, state = broken[-1].outcome
        where, results = f"before {broken[-1].instruction}", f"{mine}, {theirs}"
        print(f"{name:11}  {where:17}  {results:11}  {state}")
    else:
        print(f"{name:11}  nowhere")
    return not broken


def main() -> None:
    print(f"{'two threads':11}  {'not serial':17}  {'results':11}  state")
    try:
        found = [
            show("n = 1", compiled("n = 1"), lambda: {"n": 0}),
            show("n += 1", compiled("n += 1"), lambda: {"n": 0}),
            show("Account.pay", Account.pay, Account),
        ]
    except TimeoutError as error:
        raise SystemExit(f"nobody was to wait: {error}") from None
    if found != [True, False, False]:
        raise SystemExit("n = 1 was to be atomic, and nothing else")
    print("a line is atomic if no other thread can come in, or none can tell")


if __name__ == "__main__":
    main()
