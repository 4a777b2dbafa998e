"""Generators take turns: a scheduler in a dozen lines, without threads.

A generator stops at each `yield` and keeps its local variables, so that it can go on
later. That is all it takes for several jobs in one thread: run one, and when it yields,
run the next. With `yield from` a job consists of jobs: what the innermost yields goes
straight to the scheduler, and what it returns is the value of the `yield from`. A
coroutine is such a generator with a keyword of its own: `await` is `yield from`, made
safe (PEP 342, PEP 380, PEP 492).

Turns are given, not taken: that is cooperative multitasking. Between two yields nobody
interferes, so that what happens there needs no lock. But whoever does not yield keeps
everybody waiting: the greedy job below gets its ten steps in one turn.

Output:
    first round  a4 b2 g10 g9 g8 g7 g6 g5 g4 g3 g2 g1 x!
    after that   a3 b1 a2 B2 a1 B1
    results      4 4 10 ValueError('x failed')
    4 jobs in one thread: one was greedy, one failed, and all have ended
"""

from collections import deque
from collections.abc import Generator, Sequence
from typing import TypeVar

T = TypeVar("T")

Job = Generator[None, None, T]  # yields to give way, returns its result


def take_turns(jobs: Sequence[Job[T]]) -> list[T | Exception]:
    """Run all jobs, each up to its next yield in turn; return results in order.

    Returns:
        For each job what it returned, or the exception that ended it. One that fails
        leaves the others alone.
    """
    outcomes: dict[int, T | Exception] = {}
    ready = deque(enumerate(jobs))
    while ready:
        number, job = ready.popleft()
        try:
            next(job)
        except StopIteration as end:
            outcomes[number] = end.value
        except Exception as error:
            outcomes[number] = error
        else:
            ready.append((number, job))  # behind all others
    return [outcomes[number] for number in range(len(jobs))]


def count_down(name: str, start: int, steps: list[str]) -> Job[int]:
    """Note a step for each number down to 1; return how many there were."""
    for number in range(start, 0, -1):
        steps.append(f"{name}{number}")
        yield
    return start


def count_down_twice(name: str, start: int, steps: list[str]) -> Job[int]:
    """Count down, and then once more: a job that consists of jobs."""
    first = yield from count_down(name, start, steps)
    second = yield from count_down(name.upper(), start, steps)
    return first + second


def count_down_greedily(name: str, start: int, steps: list[str]) -> Job[int]:
    """Count down without giving way until the end."""
    steps += [f"{name}{number}" for number in range(start, 0, -1)]
    yield
    return start


def fail(name: str, steps: list[str]) -> Job[int]:
    """Fail in the second turn."""
    steps.append(f"{name}!")
    yield
    raise ValueError(f"{name} failed")


def main() -> None:
    steps: list[str] = []
    outcomes = take_turns(
        [
            count_down("a", 4, steps),
            count_down_twice("b", 2, steps),
            count_down_greedily("g", 10, steps),
            fail("x", steps),
        ]
    )
    first_round = steps.index("a3")
    print("first round ", *steps[:first_round])
    print("after that  ", *steps[first_round:])
    print("results     ", *map(repr, outcomes))
    greedy = " ".join(f"g{number}" for number in range(10, 0, -1))
    if " ".join(steps) != f"a4 b2 {greedy} x! a3 b1 a2 B2 a1 B1":
        raise SystemExit("the jobs did not take turns")
    *results, failure = outcomes
    if results != [4, 4, 10] or not isinstance(failure, ValueError):
        raise SystemExit("not the results of the jobs")
    print("4 jobs in one thread: one was greedy, one failed, and all have ended")


if __name__ == "__main__":
    main()
