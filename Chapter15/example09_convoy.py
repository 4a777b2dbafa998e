# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Beside a thread that computes, an answer of another takes a switch interval or two.

A thread answers pings of one byte, which a client in another process sends. There is
hardly anything to do, so alone it answers at once. But each of its calls that receives
or sends lets go of the GIL, and a thread that computes in Python takes it. Then the
answering thread has to ask for the GIL, which it does when it has waited for the switch
interval: 5 ms, unless `sys.setswitchinterval` says otherwise. So it is with each ping,
before the answer and after it. This is the convoy effect: a moment's work queues up
behind a long one, again and again.

A shorter interval shortens the wait, at the price of more switches. The mend is to
compute in another process, whose GIL is its own. In a free-threaded build there is no
convoy.

David Beazley found it ("Understanding the Python GIL", PyCon 2010). Proposals to let
threads that come from a wait go first are discussed in bpo-7946.

Try:  --plot convoy.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    an answer takes            p50       p90       p99       max     answers computed
    alone                     0.06 ms   0.09 ms   0.12 ms   0.18 ms     820 /s
    beside a thread, 5 ms     9.28 ms   9.39 ms  11.31 ms  11.31 ms     108 /s     97 %
    beside a thread, 0.5 ms   0.66 ms   0.70 ms   0.85 ms   1.88 ms     568 /s     99 %
    beside a thread, 0.05 ms  0.21 ms   0.24 ms   0.29 ms   0.33 ms     772 /s     94 %
    beside a process          0.06 ms   0.07 ms   0.10 ms   0.47 ms     860 /s     96 %
    all pings were answered in order
"""

import argparse
import math
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from example02_countdown_in_threads import gil_state, usable_cores
from example03_countdown_in_processes import process_pool

SECONDS = 0.25  # that each case is measured
PAUSE = 0.001  # seconds from an answer to the next ping
LIMIT = 10.0  # seconds for what is bound to come
USUAL = 0.005  # seconds: the switch interval, unless it is set
INTERVALS = (USUAL, 0.0005, 0.00005)  # seconds


@contextmanager
def switch_interval(seconds: float) -> Iterator[None]:
    """Let threads wait so long for the GIL, during the block, before they ask for it.

    Raises:
        ValueError: `seconds` is not positive.
    """
    before = sys.getswitchinterval()
    try:
        sys.setswitchinterval(seconds)
        yield
    finally:
        sys.setswitchinterval(before)


def answer(connection: socket.socket) -> None:
    """Send back each byte that the connection brings, until it ends."""
    while byte := connection.recv(1):
        connection.sendall(byte)


def ping(port: int, until: float) -> list[float]:
    """Send pings to `port`; return for each the seconds to its answer.

    Args:
        until: when to end, by `time.monotonic`, which is the same in all processes. On
            a busy machine that may be over before this begins; there is one ping then.

    Raises:
        ConnectionError: an answer is missing, or not the one to the latest ping.
        TimeoutError: none came for LIMIT seconds.
    """
    times: list[float] = []
    with socket.create_connection(("127.0.0.1", port), LIMIT) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while not times or time.monotonic() < until:
            byte = bytes([len(times) % 256])
            began = time.perf_counter()
            connection.sendall(byte)
            if (got := connection.recv(1)) != byte:
                raise ConnectionError(f"ping {byte!r}, answer {got!r}")
            times.append(time.perf_counter() - began)
            time.sleep(PAUSE)
    return times


def compute(until: float) -> float:
    """Run through a loop in Python, `until` as for `ping`; return rounds a second."""
    began = time.perf_counter()
    rounds = 0
    while not rounds or time.monotonic() < until:
        for _ in range(500):
            pass
        rounds += 500
    return rounds / (time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class Case:
    """What was measured beside one way of computing.

    Attributes:
        times: for each ping, seconds until it was answered.
        speed: of the computation, in rounds a second; 0 if there was none.
    """

    times: list[float]
    speed: float

    def percentile(self, percent: float) -> float:
        """Return the time within which so many of the pings were answered."""
        return sorted(self.times)[
            max(math.ceil(percent / 100 * len(self.times)), 1) - 1
        ]


def measure(
    clients: Executor, computing: Executor | None, interval: float = USUAL
) -> Case:
    """Answer pings in this thread, while a computation runs.

    Args:
        clients: runs the client; its processes, not threads, or they would queue, too.
        computing: runs the computation; None if there is to be none.
        interval: the switch interval meanwhile, in seconds.

    Raises:
        ConnectionError, TimeoutError: not all pings were answered.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener, switch_interval(interval):
        listener.settimeout(LIMIT)
        until = time.monotonic() + SECONDS
        times = clients.submit(ping, listener.getsockname()[1], until)
        connection, _ = listener.accept()
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            speed = computing.submit(compute, until) if computing else None
            answer(connection)
        return Case(times.result(LIMIT), speed.result(LIMIT) if speed else 0.0)


def measure_all() -> dict[str, Case]:
    """Return by name each case."""
    with process_pool(2) as processes, ThreadPoolExecutor(max_workers=1) as thread:
        cases = {"alone": measure(processes, None)}
        for interval in INTERVALS:
            name = f"beside a thread, {1000 * interval:g} ms"
            cases[name] = measure(processes, thread, interval)
        cases["beside a process"] = measure(processes, processes)
    return cases


def plot(cases: Mapping[str, Case], file: Path) -> None:
    """Draw for each case which part of its pings was answered within which time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4.6), layout="constrained")
    axes = figure.add_subplot()
    colours = ("#7d8793", "#b5442e", "#d98c3f", "#d9b93f", "#1b4f8a")
    for (name, case), colour in zip(cases.items(), colours, strict=True):
        milliseconds = [1000 * one for one in case.times]
        style = "--" if name == "alone" else "-"
        axes.ecdf(milliseconds, label=name, color=colour, lw=2.5, linestyle=style)
    axes.set_xscale("log")
    axes.set_xlabel("time to the answer [ms]")
    axes.set_ylabel("part of the pings")
    if gil_state() == "on":
        title = (
            "Beside a thread that computes, an answer takes a switch interval or two"
        )
    else:
        title = "Without a GIL, a thread that computes hardly delays answers"
    axes.set_title(title, fontsize=13, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
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

    cores = usable_cores()
    print(f"Python {platform.python_version()}, GIL {gil_state()}, {cores} cores")
    alone = compute(time.monotonic() + SECONDS)
    try:
        cases = measure_all()
    except (ConnectionError, TimeoutError) as error:
        raise SystemExit(f"a ping was not answered: {error}") from None
    heads = "".join(f"{head:>10}" for head in ("p50", "p90", "p99", "max"))
    print(f"{'an answer takes':20}{heads}     answers computed")
    for name, case in cases.items():
        columns = [f"{1000 * case.percentile(p):6.2f} ms " for p in (50, 90, 99, 100)]
        answers = f"{len(case.times) / SECONDS:7.0f} /s"
        computed = f"{100 * case.speed / alone:7.0f} %" if case.speed else ""
        print(f"{name:24}{''.join(columns)}{answers}{computed}")
    print("all pings were answered in order")
    if options.plot is not None:
        plot(cases, options.plot)


if __name__ == "__main__":
    main()
