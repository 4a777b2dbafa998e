"""What `await` does: it carries a request down to whoever runs the coroutine.

Calling an `async def` function runs nothing; it makes a coroutine. `send(None)` runs it
until something yields. Only an `__await__` method can yield (or, in old libraries, a
generator marked by `types.coroutine`), at the end of a chain of awaits; what it yields
passes through all of them, and comes out of `send`. What is sent in next is the value
of that `yield`. The end of the coroutine is a StopIteration that holds its result;
`throw` lets an await raise.

So a coroutine does nothing by itself: it asks, and whoever runs it decides what the
requests mean. For asyncio they mean "call me back when this future is done". Here they
are questions. The same coroutine is run by someone who looks the answers up, by one who
does not know them all, and by one who has had enough.

Output:
    called      CORO_CREATED, nothing has run
    send(None)  asks Question(text='Lyon')
    send(Turin) asks Question(text='Turin')
    send(Milan) CORO_CLOSED, ['Lyon', 'Turin', 'Milan']

    looked up   Lyon Turin Milan Venice
    unknown     Milan Venice Venice Venice
    refused     TimeoutError: no answer to Lyon
    one coroutine, and what its awaits mean is up to who runs it
"""

import inspect
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

WAY = {"Lyon": "Turin", "Turin": "Milan", "Milan": "Venice"}


@dataclass(frozen=True, slots=True)
class Question:
    """Awaited, it is answered by whoever runs the coroutine."""

    text: str

    def __await__(self) -> "Generator[Question, str, str]":
        answer = yield self  # out of send(), and what is sent in next comes back
        return answer


async def journey(start: str, steps: int) -> list[str]:
    """Return the stations of a journey that asks its way, `steps` times."""
    stations = [start]
    for _ in range(steps):
        stations.append(await next_station(stations[-1]))
    return stations


async def next_station(station: str) -> str:
    """Ask for the way; where nobody knows it, stay."""
    try:
        return await Question(station)
    except LookupError:
        return station


def run(coroutine: Coroutine[Question, Any, T], answer: Callable[[Question], str]) -> T:
    """Run `coroutine` to its end; `answer` its questions.

    What `answer` raises comes out of the await that asked. What the coroutine raises
    comes out of here.
    """
    try:
        question = coroutine.send(None)  # up to the first question
        while True:
            try:
                answered = answer(question)
            except Exception as error:
                question = coroutine.throw(error)
            else:
                question = coroutine.send(answered)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        coroutine.close()  # if it waits for an answer that does not come


def by_hand() -> Generator[str, None, None]:
    """Run a journey of two steps send by send; yield a line for each."""
    coroutine = journey("Lyon", 2)
    yield f"called      {inspect.getcoroutinestate(coroutine)}, nothing has run"
    question = coroutine.send(None)
    yield f"send(None)  asks {question}"
    question = coroutine.send(WAY[question.text])
    yield f"send(Turin) asks {question}"
    try:
        coroutine.send(WAY[question.text])
    except StopIteration as end:
        yield f"send(Milan) {inspect.getcoroutinestate(coroutine)}, {end.value}"


def main() -> None:
    lines = list(by_hand())
    for line in lines:
        print(line)
    if "CORO_CREATED" not in lines[0] or "['Lyon', 'Turin', 'Milan']" not in lines[-1]:
        raise SystemExit("the coroutine did not run as it was sent on")

    def look_up(question: Question) -> str:
        return WAY[question.text]  # a KeyError, which is a LookupError

    def refuse(question: Question) -> str:
        raise TimeoutError(f"no answer to {question.text}")

    to_venice = run(journey("Lyon", 3), look_up)
    too_far = run(journey("Milan", 3), look_up)
    print(f"\nlooked up   {' '.join(to_venice)}")
    print(f"unknown     {' '.join(too_far)}")
    if to_venice != ["Lyon", "Turin", "Milan", "Venice"]:
        raise SystemExit("the answers did not arrive")
    if too_far != ["Milan", "Venice", "Venice", "Venice"]:
        raise SystemExit("the LookupError did not come out of the await")
    try:
        run(journey("Lyon", 3), refuse)
    except TimeoutError as error:
        print(f"refused     TimeoutError: {error}")
    else:
        raise SystemExit("the TimeoutError was lost")
    print("one coroutine, and what its awaits mean is up to who runs it")


if __name__ == "__main__":
    main()
