"""Which call blocks the event loop? Debug mode names the task, a watchdog the line.

In debug mode (`asyncio.run(..., debug=True)`, `python -X dev`, PYTHONASYNCIODEBUG=1)
the loop measures each step and logs a warning if it took `slow_callback_duration` or
longer, 0.1 s by default. The warning names the task and where its coroutine stands
*afterwards*, at its next await; not where it has been blocked. It comes when all is
over: of a call that never returns you hear nothing.

`watched_loop` needs no debug mode, and costs one callback a period. A thread asks the
loop for a sign of life. If none comes within its patience, it takes the stack of the
loop's thread, which shows the blocking line while it blocks, and again after each
further time of patience. It cannot do so while C code holds the GIL;
`faulthandler.dump_traceback_later` can.

Debug mode finds more. `call_soon` from another thread raises RuntimeError; otherwise
nobody notices, and the callback waits until something else wakes the loop. And of a
coroutine that nobody awaited it says where it was created.

Output:
    debug mode     handle_request() took 0.021 s, and stands at
                     await asyncio.sleep(0)
    watchdog       handle_request() is blocked for 0.022 s at
                     block()
                   and still there after 0.042 s
                                   in debug mode    otherwise
      call_soon in a thread        RuntimeError     no error
      coroutine never awaited      told, with line  told
    debug mode names the task that was slow, the watchdog the line that is
"""

import asyncio
import gc
import linecache
import logging
import os
import re
import sys
import threading
import time
import traceback
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from queue import Empty, SimpleQueue

TIME_LIMIT = 10.0  # seconds
SLOW = 0.01  # seconds from which on debug mode is to complain
STEP = r"Executing <[^<]*<handle_request\(\) running at (.*?):(\d+)>"  # of its task
BLOCKED = 0.02  # seconds for which the loop is blocked
PATIENCE = 0.02  # seconds that the watchdog waits for a sign of life


@dataclass(frozen=True, slots=True)
class Blockage:
    """A loop that has not answered for `seconds`, and the stack of its thread."""

    seconds: float
    stack: traceback.StackSummary

    def __str__(self) -> str:
        lines = "".join(self.stack.format())
        return f"event loop blocked for {self.seconds:.2f} s at\n{lines}"


@asynccontextmanager
async def watched_loop(
    report: Callable[[Blockage], object], patience: float = 0.1, period: float = 0.1
) -> AsyncIterator[None]:
    """Let a thread watch the running loop for the length of the block.

    Args:
        report: called in that thread while the loop is blocked, each time it has not
            answered for another `patience` seconds.
        patience: a busy machine may keep a loop from answering that is not blocked.
        period: seconds from an answer to the next question.

    Raises:
        ValueError: the patience is not positive, or the period negative, or no thread
            can wait for so long.
    """
    if not (0 < patience <= threading.TIMEOUT_MAX >= period >= 0):
        raise ValueError(f"patience of {patience} s, period of {period} s")
    loop = asyncio.get_running_loop()
    thread_id = threading.get_ident()
    signs: SimpleQueue[bool] = SimpleQueue()  # True: of life; False: the block ends

    def answered() -> bool:
        """Wait for the next sign, and report while there is none."""
        asked = time.perf_counter()
        while True:
            try:
                return signs.get(timeout=patience)
            except Empty:
                frame = sys._current_frames().get(thread_id)
                stack = traceback.extract_stack(frame)
                try:
                    report(Blockage(time.perf_counter() - asked, stack))
                except Exception:  # which is no reason to watch no more
                    traceback.print_exc()

    def watch() -> None:
        while True:
            # The loop is still open: leaving the block waits for this thread.
            loop.call_soon_threadsafe(signs.put, True)
            if not answered():
                return
            try:
                signs.get(timeout=period)
            except Empty:
                continue
            return  # only the end of the block sends anything now

    watchdog = threading.Thread(target=watch, name="loop watchdog", daemon=True)
    watchdog.start()
    try:
        yield
    finally:
        signs.put(False)
        watchdog.join()


@contextmanager
def logged(name: str) -> Iterator[list[str]]:
    """Catch what a logger is told, from warnings on, instead of letting it go on."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, handler = logging.getLogger(name), Keep(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


async def handle_request(block: Callable[[], object]) -> None:
    """Call what blocks, in the midst of a coroutine."""
    await asyncio.sleep(0)
    block()
    # Here debug mode finds it afterwards.
    await asyncio.sleep(0)


def step_that_debug_mode_names() -> tuple[str, str]:
    """Block the loop for longer than it is allowed to.

    Returns:
        The warning, and the line of code to which it points.
    """

    async def main() -> None:
        asyncio.get_running_loop().slow_callback_duration = SLOW
        await asyncio.create_task(handle_request(lambda: time.sleep(BLOCKED)))

    with logged("asyncio") as messages:
        asyncio.run(main(), debug=True)
    for message in messages:  # on a busy machine any other step may be slow as well
        place = re.match(STEP, message)
        if place and float(message.split()[-2]) >= BLOCKED:
            return message, linecache.getline(place[1], int(place[2])).strip()
    return "nothing", "nowhere"


def blockages_that_the_watchdog_sees() -> list[Blockage]:
    """Block the loop until the watchdog has seen what does it, twice."""
    seen: list[Blockage] = []
    seen_twice = threading.Event()

    def report(blockage: Blockage) -> None:
        if culprit(blockage) is not None:
            seen.append(blockage)
            if len(seen) == 2:
                seen_twice.set()

    async def main() -> None:
        async with watched_loop(report, PATIENCE, PATIENCE):
            await handle_request(lambda: seen_twice.wait(TIME_LIMIT))

    asyncio.run(main(), debug=False)
    return seen


def culprit(blockage: Blockage) -> str | None:
    """Return the line at which `handle_request` stands, None if it does not run."""
    lines = [frame.line for frame in blockage.stack if frame.name == "handle_request"]
    return lines[-1] if lines else None


def call_soon_in_thread(*, debug: bool) -> str:
    """Call `call_soon` in another thread; return the error that it raises there."""

    async def main() -> str:
        loop = asyncio.get_running_loop()
        called = asyncio.Event()
        try:
            await asyncio.to_thread(loop.call_soon, called.set)
        except RuntimeError as error:
            return type(error).__name__
        await called.wait()  # the end of to_thread has woken the loop
        return "no error"

    return asyncio.run(main(), debug=debug)


def warning_of_forgotten_await(*, debug: bool) -> str:
    """Create a coroutine that nobody awaits; return what is said of it."""

    async def save() -> None: ...

    async def main() -> None:
        save()  # type: ignore[unused-coroutine]
        gc.collect()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(main(), debug=debug)
    return "\n".join(str(warning.message) for warning in caught)


async def debug_is_on() -> bool:
    """Tell whether the running loop is in debug mode."""
    return asyncio.get_running_loop().get_debug()


def main() -> None:
    wanted = os.environ.get("PYTHONASYNCIODEBUG") and not sys.flags.ignore_environment
    if asyncio.run(debug_is_on()) != (sys.flags.dev_mode or bool(wanted)):
        raise SystemExit("debug mode was to follow -X dev and PYTHONASYNCIODEBUG")

    message, afterwards = step_that_debug_mode_names()
    if afterwards != "await asyncio.sleep(0)":
        raise SystemExit(f"debug mode has warned of {message}")
    seconds = float(message.split()[-2])
    print(f"debug mode     handle_request() took {seconds:.3f} s, and stands at")
    print(f"                 {afterwards}")

    first, second, *_ = blockages_that_the_watchdog_sees()
    if culprit(first) != "block()" or culprit(second) != "block()":
        raise SystemExit(f"the watchdog has seen\n{first}\n{second}")
    if first.seconds >= second.seconds:
        raise SystemExit("the second report was to tell of the same blockage")
    print(f"watchdog       handle_request() is blocked for {first.seconds:.3f} s at")
    print(f"                 {culprit(first)}")
    print(f"               and still there after {second.seconds:.3f} s")

    print("                               in debug mode    otherwise")
    errors = [call_soon_in_thread(debug=debug) for debug in (True, False)]
    if errors != ["RuntimeError", "no error"]:
        raise SystemExit(f"call_soon in a thread, with and without debug: {errors}")
    print(f"  call_soon in a thread        {errors[0]:16} {errors[1]}")
    told, origin = "was never awaited", "save()"
    texts = [warning_of_forgotten_await(debug=debug) for debug in (True, False)]
    if not all(told in text for text in texts):
        raise SystemExit(f"nobody has missed the coroutine: {texts}")
    if [f"\n    {origin}" in text for text in texts] != [True, False]:
        raise SystemExit(f"debug mode alone was to say where: {texts}")
    print("  coroutine never awaited      told, with line  told")
    print("debug mode names the task that was slow, the watchdog the line that is")


if __name__ == "__main__":
    main()
