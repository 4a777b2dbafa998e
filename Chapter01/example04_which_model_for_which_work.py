# /// script
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Threads, processes or asyncio? It depends on the work; here it is measured.

The input is real: the largest modules of the standard library of this Python. Three
things are done to each of them, and each is a kind of work of its own:

* parse: find the names it uses, in Python code, which needs the GIL (CPU-bound);
* compress: pack it with zlib, in C code that gives up the GIL meanwhile (CPU-bound);
* fetch: get it from a server that takes its time (I/O-bound).

Every kind of work is done sequentially and under the three models of concurrency,
with a worker for every module; all answers must be equal. The recommendation is read
off the figures: the fastest, or a lighter one if that is hardly slower. It is a
recommendation for this machine and this interpreter. Try a free-threaded one.

Try:  --modules 16
Try:  --plot models.png

Output:
    Python <version>, GIL <gil>, <cores> cores
    5 modules of the standard library, 0.69 MiB

              sequential     asyncio     threads   processes
    parse         0.39 s       1.03x       0.86x       1.73x
    compress      0.08 s       1.06x       1.68x       1.58x
    fetch         0.21 s       4.56x       4.65x       4.61x

    to parse     <fastest>
    to compress  <fastest>
    to fetch   <fastest>
"""

import argparse
import ast
import asyncio
import math
import os
import platform
import signal
import socket
import socketserver
import sys
import sysconfig
import threading
import time
import zlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

MODELS = ("sequential", "asyncio", "threads", "processes")  # from light to heavy
HARDLY_SLOWER = 1.2  # times the seconds of the fastest
ROUNDS = 2  # of which the faster counts: other programs can only make a run slower
SERVER_DELAY = 0.04  # seconds
TIMEOUT = 10.0  # seconds that a client waits for the server

Seconds = dict[str, float]  # by model
Job = Callable[[Path], int]
AsyncJob = Callable[[Path], Coroutine[None, None, int]]


def parse(module: Path) -> int:
    """Return how many different names the module's code uses."""
    tree = ast.parse(module.read_bytes())
    return len({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})


def compress(module: Path) -> int:
    """Return the module's size in bytes after compression by zlib."""
    return len(zlib.compress(module.read_bytes(), level=9))


def fetch(address: tuple[str, int], module: Path) -> int:
    """Get the module from the server at `address`; return how many bytes came."""
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        connection.sendall(f"{module.name}\n".encode())
        with connection.makefile("rb") as stream:
            return len(stream.read())


async def fetch_async(address: tuple[str, int], module: Path) -> int:
    """Like `fetch`, but while it waits, other coroutines run."""
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(f"{module.name}\n".encode())
            return len(await reader.read())
        finally:
            writer.close()
            await writer.wait_closed()


def in_coroutine(job: Job) -> AsyncJob:
    """Wrap a computation in a coroutine. It awaits nothing, so it lets nobody in."""

    async def coroutine(module: Path) -> int:
        return job(module)

    return coroutine


def measure(
    job: Job,
    coroutine: AsyncJob,
    modules: Sequence[Path],
    threads: Executor,
    processes: Executor,
) -> Seconds:
    """Do `job` for all `modules` under each of MODELS; return the seconds of each.

    Raises:
        ValueError: the answers are not equal.
    """

    async def all_coroutines() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine(module)) for module in modules]
        return [task.result() for task in tasks]

    runs: dict[str, Callable[[], list[int]]] = {
        "sequential": lambda: [job(module) for module in modules],
        # Debug mode would complain of computations in coroutines, and rightly so.
        "asyncio": lambda: asyncio.run(all_coroutines(), debug=False),
        "threads": lambda: list(threads.map(job, modules)),
        "processes": lambda: list(processes.map(job, modules)),
    }
    seconds = dict.fromkeys(MODELS, math.inf)
    answers = {}
    for _ in range(ROUNDS):
        for model in MODELS:
            began = time.perf_counter()
            answers[model] = runs[model]()
            seconds[model] = min(seconds[model], time.perf_counter() - began)
    if answers != dict.fromkeys(MODELS, answers["sequential"]):
        raise ValueError(f"the answers differ: {answers}")
    return seconds


def recommend(seconds: Seconds) -> str:
    """Return the lightest of MODELS that is hardly slower than the fastest."""
    enough = HARDLY_SLOWER * min(seconds.values())
    return next(model for model in MODELS if seconds[model] <= enough)


def largest_modules(count: int) -> list[Path]:
    """Return the `count` largest modules of the standard library, largest first.

    Largest first also serves the workers: what comes last should not take long.

    Raises:
        LookupError: there are not so many, or the library is not kept in files.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    modules = sorted(folder.glob("*.py"), key=lambda path: -path.stat().st_size)
    if len(modules) < count:
        raise LookupError(f"{folder} has {len(modules)} modules, not {count}")
    return modules[:count]


@contextmanager
def slow_server(folder: Path, delay: float) -> Iterator[tuple[str, int]]:
    """Serve the files of `folder` on the loopback, each after `delay` seconds.

    The protocol: one line with a file's name; the answer is the file, to its end, or
    nothing if there is no such file.
    """

    class Answer(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # a client need not wait for its answer
                name = self.rfile.readline().decode("utf-8", "replace").strip()
                file = folder / Path(name).name
                time.sleep(delay)
                if file.is_file():
                    self.wfile.write(file.read_bytes())

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 128  # all may knock at once

    with Server(("127.0.0.1", 0), Answer) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            yield "127.0.0.1", server.server_address[1]
        finally:
            server.shutdown()
            serving.join()


def plot(table: Mapping[str, Seconds], machine: str, picture: Path) -> None:
    """Draw `table` (seconds by work and model) as a heat map of speed-ups."""
    from matplotlib.colors import TwoSlopeNorm
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    gains = [
        [row["sequential"] / row[model] for model in MODELS] for row in table.values()
    ]
    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.add_subplot()
    logs = [[math.log2(gain) for gain in row] for row in gains]
    # Pale at its darkest, so that black figures can be read on it.
    darkest = 2 * max(1, *map(max, logs))
    scale = TwoSlopeNorm(0, vmin=-darkest, vmax=darkest)
    axes.imshow(logs, cmap="PRGn", norm=scale, aspect="auto")
    for y, row in enumerate(table.values()):
        for x, model in enumerate(MODELS):
            best = model == recommend(row)
            axes.text(
                x,
                y,
                f"{gains[y][x]:.1f}x\n{row[model]:.2f} s",
                ha="center",
                va="center",
                fontsize=13,
                fontweight="bold" if best else "normal",
            )
            if best:
                axes.add_patch(
                    Rectangle(
                        (x - 0.48, y - 0.46), 0.96, 0.92, fill=False, linewidth=2.5
                    )
                )
    axes.set_xticks(range(len(MODELS)), MODELS, fontsize=13)
    axes.set_yticks(range(len(table)), table, fontsize=13)
    findings = ", ".join(f"{recommend(row)} to {work}" for work, row in table.items())
    axes.set_title(f"{findings}\n", fontsize=14, fontweight="bold")
    axes.set_xlabel(
        f"gain over sequential, framed: recommended ({machine})", fontsize=11
    )
    figure.savefig(picture, dpi=120)


@contextmanager
def process_pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `n_workers` processes that leave Ctrl-C to this one."""
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)
    with ProcessPoolExecutor(n_workers, None, signal.signal, ignore_ctrl_c) as pool:
        with ctrl_c_has_to_wait():  # half started, a pool cannot be ended in order
            list(pool.map(abs, range(n_workers)))
        yield pool


@contextmanager
def ctrl_c_has_to_wait() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends; what starts in it never gets to see it."""
    if sys.platform == "win32":  # has no signal masks
        yield
        return
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def usable_cores() -> int:
    """Return the number of cores this process may use (`taskset` may allow fewer)."""
    if hasattr(os, "process_cpu_count"):  # from 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gil_state() -> str:
    """Return "on" or "off". Before 3.13 there was no interpreter without a GIL."""
    return "on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "off"


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def picture(text: str) -> Path:
    path = Path(text)
    if path.suffix not in {".png", ".svg", ".pdf"}:
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {path.parent}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--modules", type=positive, default=5)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()
    try:
        modules = largest_modules(options.modules)
    except LookupError as error:
        parser.error(str(error))
    n, size = len(modules), sum(module.stat().st_size for module in modules)
    machine = (
        f"Python {platform.python_version()}, GIL {gil_state()}, {usable_cores()} cores"
    )
    print(machine)
    print(f"{n} modules of the standard library, {size / 2**20:.2f} MiB")
    print()
    print(f"{'':8}" + "".join(f"{model:>12}" for model in MODELS))

    table: dict[str, Seconds] = {}
    with (
        process_pool(n) as processes,
        ThreadPoolExecutor(n) as threads,
        slow_server(modules[0].parent, SERVER_DELAY) as address,
    ):
        works: dict[str, tuple[Job, AsyncJob]] = {
            "parse": (parse, in_coroutine(parse)),
            "compress": (compress, in_coroutine(compress)),
            "fetch": (partial(fetch, address), partial(fetch_async, address)),
        }
        for name, (job, coroutine) in works.items():
            row = table[name] = measure(job, coroutine, modules, threads, processes)
            gains = [row["sequential"] / row[model] for model in MODELS[1:]]
            print(
                f"{name:8}{row['sequential']:10.2f} s"
                + "".join(f"{gain:11.2f}x" for gain in gains)
            )
    print()
    for name, row in table.items():
        print(f"to {name:8}  {recommend(row)}")
    if options.plot:
        plot(table, machine, options.plot)


if __name__ == "__main__":
    main()
