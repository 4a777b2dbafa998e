# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""One call that blocks stops everybody: seen on the pulse of the event loop.

A heart that beats every 10 ms runs beside the work. How late a beat comes is how long
any other task would have had to wait. A coroutine that calls something blocking, here a
wait and a computation of 0.1 s each, does not give the loop back, and there is no beat
at all before the call returns. Nothing warns of that but debug mode.

The mend is `asyncio.to_thread`. A wait gives up the GIL, and the heart beats as if it
were alone. A computation holds the GIL, and each beat has to ask for it: that takes a
few milliseconds, none without a GIL, more on a busy machine. Long computations belong
in processes (Chapter 10, example06), or have to give way (example02).

Try:  --plot pulse.png

Output:
    beside a call of 0.1 s, a beat that is due every 0.01 s
    a wait         in the coroutine  stands still    92.0 ms late
    a wait         in a thread       goes on          1.8 ms late
    a computation  in the coroutine  stands still    90.6 ms late
    a computation  in a thread       goes on         10.9 ms late
    a wait delays everybody by 92.0 ms, in a thread by 1.8 ms
"""

import argparse
import asyncio
import math
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

PERIOD = 0.01  # seconds from beat to beat
CALL = 0.1  # seconds that a blocking call takes


@dataclass(frozen=True, slots=True)
class Beat:
    """A beat: when it was due and when it came, on the clock of `perf_counter`."""

    due: float
    came: float

    @property
    def late(self) -> float:
        """Seconds for which everybody who was ready had to wait for the loop."""
        return self.came - self.due


@asynccontextmanager
async def heart(period: float) -> AsyncIterator[list[Beat]]:
    """Beat every `period` seconds; give the list of beats, which grows.

    The last beat comes after the block, so that it also tells of a loop that stood
    still to the end of it.
    """
    beats: list[Beat] = []
    beating = asyncio.Event()

    async def beat() -> None:
        while True:
            due = time.perf_counter() + period
            beating.set()
            await asyncio.sleep(period)
            beats.append(Beat(due, time.perf_counter()))

    task = asyncio.create_task(beat())
    try:
        await beating.wait()
        yield beats
        before = len(beats)
        while len(beats) == before:
            await asyncio.sleep(period)
    finally:
        task.cancel()
        await asyncio.wait([task])


@dataclass(frozen=True, slots=True)
class Pulse:
    """The beats beside a call that lasted from `began` to `ended`."""

    beats: Sequence[Beat]
    began: float
    ended: float

    @property
    def worst(self) -> float:
        """Seconds by which the latest beat was late."""
        return max(beat.late for beat in self.beats)

    @property
    def meanwhile(self) -> int:
        """The number of beats that came during the call."""
        return sum(self.began < beat.came < self.ended for beat in self.beats)


async def pulse_beside(call: Callable[[], object], in_thread: bool) -> Pulse:
    """Return the pulse beside `call()`, made in a thread or in this coroutine."""
    times: list[float] = []

    def timed() -> None:
        times.append(time.perf_counter())
        call()
        times.append(time.perf_counter())

    async with heart(PERIOD) as beats:
        if in_thread:
            await asyncio.to_thread(timed)
        else:
            timed()  # nobody else runs before it returns
    return Pulse(beats, *times)


def wait_blocking() -> None:
    """Wait CALL seconds, as a client does that looks again and again for its answer."""
    for _ in range(10):
        time.sleep(CALL / 10)


def compute() -> None:
    """Use CALL seconds of a core."""
    end = time.thread_time() + CALL
    while time.thread_time() < end:
        pass


CALLS = {"a wait": wait_blocking, "a computation": compute}


async def pulses() -> dict[tuple[str, bool], Pulse]:
    """Return the pulse beside each call, by its name and whether it is in a thread."""
    # Debug mode would complain of what blocks here on purpose.
    asyncio.get_running_loop().slow_callback_duration = math.inf
    return {
        (name, in_thread): await pulse_beside(call, in_thread)
        for name, call in CALLS.items()
        for in_thread in (False, True)
    }


def plot(seen: dict[tuple[str, bool], Pulse], file: Path) -> None:
    """Draw the pulses of the wait over time, in the coroutine and in a thread."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.6), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True, sharey=True)
    for axes, in_thread in zip(panels, (False, True), strict=True):
        pulse = seen["a wait", in_thread]
        axes.axvspan(
            0, 1000 * (pulse.ended - pulse.began), color="#cfd8e3", label="the call"
        )
        due = [1000 * (beat.due - pulse.began) for beat in pulse.beats]
        came = [1000 * (beat.came - pulse.began) for beat in pulse.beats]
        late = [1000 * beat.late for beat in pulse.beats]
        axes.vlines(came, 0, late, color="#b3301c", linewidth=2)
        axes.plot(came, late, "o", color="#b3301c", markersize=5, label="a beat")
        axes.plot(due, [0] * len(due), "|", color="black", markersize=9, label="due")
        where = "in a thread" if in_thread else "in the coroutine"
        axes.set_title(
            f"{where}: {pulse.meanwhile or 'no'} beats during the call", fontsize=12
        )
        axes.set_ylabel("late [ms]", fontsize=12)
    panels[0].legend(loc="upper left", fontsize=11)
    panels[1].set_xlabel("time since the call began [ms]", fontsize=12)
    worst = 1000 * seen["a wait", False].worst
    figure.suptitle(
        f"One call that blocks stops the loop: a beat comes {worst:.0f} ms late",
        fontsize=14,
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()

    print(f"beside a call of {CALL:g} s, a beat that is due every {PERIOD:g} s")
    seen = asyncio.run(pulses())
    for (name, in_thread), pulse in seen.items():
        where = "in a thread" if in_thread else "in the coroutine"
        beats = "goes on" if pulse.meanwhile else "stands still"
        print(f"{name:14} {where:17} {beats:13} {1000 * pulse.worst:6.1f} ms late")
        if in_thread != bool(pulse.meanwhile):
            raise SystemExit(f"{name} {where}: {pulse.meanwhile} beats meanwhile")
        if not in_thread and pulse.worst < pulse.ended - pulse.began - PERIOD:
            raise SystemExit(f"{name}: the heart was not stopped")
    before, after = seen["a wait", False].worst, seen["a wait", True].worst
    print(
        f"a wait delays everybody by {1000 * before:.1f} ms, "
        f"in a thread by {1000 * after:.1f} ms"
    )
    if options.plot is not None:
        plot(seen, options.plot)


if __name__ == "__main__":
    main()
