"""A generator is a computation that can wait without a thread: the way out of blocking.

Up to now a conversation was a function, and while it waited, so did its thread. A
generator function can stop in the middle, at a `yield`. Its local variables stay, and
who has the generator decides when it goes on, and what with:

* `next(g)` runs it to its next `yield`; the value comes out. A scheduler that lets
  several take turns has ten lines.
* `g.send(value)` goes on, too, and `value` is what the `yield` is worth. The first step
  is `next`, as there is no `yield` yet that could be worth anything.
* `g.throw(error)` goes on with an exception, raised at that `yield`: a time-out, say.
* `g.close()` ends it there, but lets `finally` and `with` clean up.
* `return value` ends it: StopIteration is raised, and carries the value.
* `value = yield from g` has another generator do a part, and is worth what that one
  returns. Whatever is sent or thrown meanwhile goes straight to it.

So the conversation below can stop wherever it waits for a line, as if it had a thread
of its own. In example05 it yields the socket that it waits for. Chapter 9 shows how
`await` came of `yield from`.

Sources: PEP 342 (send, throw, close), PEP 380 (yield from).

Book: Chapter 18, example4.

Output:
    in turns    a1 b1 a2 b2 b3
    first       send fails with a TypeError, next brings the greeting
    send        2,3,4 is 9 for the one, 24 for the other: each has its own state
                quit: goodbye
    return      2 lines, by way of StopIteration
    throw       error: too late
                and that was the end
    close       cleaned up
    yield from  all of it went through one generator to another
    three conversations side by side, and no thread
"""

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any, TypeVar

from example02_calculator import GREETING, Calculator

T = TypeVar("T")

# Yields answers, is sent lines, and returns how many there were.
Conversation = Generator[bytes, bytes, int]


def count(name: str, last: int) -> Iterator[str]:
    for number in range(1, last + 1):
        yield f"{name}{number}"


def take_turns(jobs: Iterable[Iterator[T]]) -> Iterator[T]:
    """Let each job go to its next `yield`, in turn, until all have ended."""
    waiting = deque(jobs)
    while waiting:
        job = waiting.popleft()
        try:
            value = next(job)
        except StopIteration:
            continue
        yield value
        waiting.append(job)


def converse() -> Conversation:
    """Answer each line, until `quit`."""
    calculator = Calculator()
    answer, n_lines = GREETING, 0
    while not calculator.done:
        line = yield answer
        n_lines += 1
        answer = calculator.answer(line)
    yield answer
    return n_lines


def patiently(notes: list[str]) -> Conversation:
    """Converse; answer a TimeoutError, too; note the end, however it comes."""
    try:
        n_lines = yield from converse()
    except TimeoutError as error:
        yield f"error: {error}\n".encode()
        return 0
    finally:
        notes.append("cleaned up")
    return n_lines


def result_of(generator: Generator[Any, Any, T]) -> T:
    """Run a generator to its end; return what it returns."""
    while True:
        try:
            next(generator)
        except StopIteration as end:
            value: T = end.value
            return value


def check(claim: str, shown: bool) -> None:
    if not shown:
        raise SystemExit(f"not so: {claim}")
    print(claim)


def main() -> None:
    steps = list(take_turns([count("a", 2), count("b", 3)]))
    check("in turns    a1 b1 a2 b2 b3", steps == ["a1", "b1", "a2", "b2", "b3"])

    notes: list[str] = []
    ann, ben, eve = three = [patiently(notes) for _ in range(3)]
    try:
        ann.send(b"1,2")
    except TypeError:
        print("first       send fails with a TypeError, next brings the greeting")
    else:
        raise SystemExit("there was to be no yield yet to take a value")
    if [next(conversation) for conversation in three] != 3 * [GREETING]:
        raise SystemExit("all three were to be greeted")

    ben.send(b"product")
    answers = ann.send(b"2,3,4"), ben.send(b"2,3,4")
    check(
        "send        2,3,4 is 9 for the one, 24 for the other: each has its own state",
        answers == (b"9\n", b"24\n"),
    )
    check("            quit: goodbye", ann.send(b"quit") == b"goodbye\n")
    check("return      2 lines, by way of StopIteration", result_of(ann) == 2)

    late = ben.throw(TimeoutError("too late"))
    check("throw       error: too late", late == b"error: too late\n")
    check("            and that was the end", result_of(ben) == 0)

    notes.clear()
    eve.close()
    check("close       cleaned up", notes == ["cleaned up"])
    print("yield from  all of it went through one generator to another")
    print("three conversations side by side, and no thread")


if __name__ == "__main__":
    main()
