# /// script
# requires-python = ">=3.11"
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
    4 modules of the standard library, 0.59 MiB

              sequential     asyncio     threads   processes
    parse         0.23 s       0.95x       1.09x       1.79x
    compress      0.07 s       0.98x       2.02x       1.79x
    fetch         0.21 s       3.69x       3.79x       3.82x

    to parse     <model>
    to compress  <model>
    to fetch     <model>
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
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

MODELS = ("sequential", "asyncio", "threads", "processes")  # from light to heavy
HARDLY_SLOWER = 1.25  # times the seconds of the fastest
ROUNDS = 2  # of which the faster counts: other programs can only make a run slower
SERVER_DELAY = 0.05  # seconds
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
    """Get the module from the server at `address`; return the CRC-32 of what came.

    Raises:
        OSError: the server cannot be reached, or stays silent for TIMEOUT.
    """
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        connection.sendall(f"{module.name}\n".encode())
        with connection.makefile("rb") as stream:
            return zlib.crc32(stream.read())


async def fetch_async(address: tuple[str, int], module: Path) -> int:
    """Like `fetch`, but while it waits, other coroutines run.

    Raises:
        OSError: the server cannot be reached, or its answer takes longer than TIMEOUT.
    """
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection(*address)
        try:
            writer.write(f"{module.name}\n".encode())
            return zlib.crc32(await reader.read())
        finally:
            # close() would wait for a server that does not read what it was sent.
            writer.transport.abort()
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
) -> tuple[Seconds, list[int]]:
    """Do `job` for all `modules` under each of MODELS.

    Returns the seconds of each model's fastest run, and the answers.

    Raises:
        ValueError: the answers differ between two models or two rounds.
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
    expected: list[int] = []
    seconds = dict.fromkeys(MODELS, math.inf)
    for _ in range(ROUNDS):
        for model in MODELS:
            began = time.perf_counter()
            answers = runs[model]()
            seconds[model] = min(seconds[model], time.perf_counter() - began)
            expected = expected or answers  # the first one
            if answers != expected:
                raise ValueError(f"{model}: {answers} instead of {expected}")
    return seconds, expected


def recommend(seconds: Seconds, awaits: bool) -> str:
    """Return the lightest of MODELS that is hardly slower than the fastest.

    Args:
        awaits: whether the work awaits anything. If not, asyncio cannot make it faster,
            whatever the noise of a measurement says.
    """
    models = [model for model in MODELS if awaits or model != "asyncio"]
    enough = HARDLY_SLOWER * min(seconds[model] for model in models)
    return next(model for model in models if seconds[model] <= enough)


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
        timeout = TIMEOUT  # of a client that says nothing

        def handle(self) -> None:
            with suppress(OSError):  # a client that has gone is not worth a word
                name = self.rfile.readline().decode("utf-8", "replace").strip()
                file = folder / Path(name).name
                time.sleep(delay)
                if file.is_file():
                    self.wfile.write(file.read_bytes())

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = 128  # all may knock at once

    with Server(("127.0.0.1", 0), Answer) as server, ExitStack() as stack:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        with ctrl_c_later():
            serving.start()
            stack.callback(serving.join)
            stack.callback(server.shutdown)  # the first thing to do
        yield "127.0.0.1", server.server_address[1]


def plot(
    table: Mapping[str, Seconds], advice: Mapping[str, str], machine: str, file: Path
) -> None:
    """Draw `table` (seconds by work and model) as a heat map of speed-ups.

    Args:
        advice: the recommended model for each work; it gets a frame.
    """
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
    for y, (work, row) in enumerate(table.items()):
        for x, model in enumerate(MODELS):
            best = model == advice[work]
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
    findings = ", ".join(f"{model} to {work}" for work, model in advice.items())
    axes.set_title(f"{findings}\n", fontsize=14, fontweight="bold")
    axes.set_xlabel(
        f"gain over sequential, framed: recommended ({machine})", fontsize=11
    )
    figure.savefig(file, dpi=120)


@contextmanager
def ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block.

    Processes that are started in the block leave it to this one (except on Windows).
    A lock or queue that is made in it leaves no semaphore behind, as it could if Ctrl-C
    came before the resource tracker knows of it.
    """
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread:  # the mask does not cover the threads of, say, numpy
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    if sys.platform != "win32":
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        if sys.platform != "win32":
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
            if came:
                signal.raise_signal(signal.SIGINT)


@contextmanager
def process_pool(n_workers: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of `n_workers` processes that leave Ctrl-C to this one.

    Ctrl-C has to wait while they start and while they end: in the midst of that, a pool
    cannot be ended in order. Make it before any thread, which would let Ctrl-C through
    and should not be forked. If the block fails, calls that have not begun are dropped:
    an interrupted `submit` may leave one that no process gets and the end would await.
    """
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)

    def end(kind: type[BaseException] | None, *_: object) -> None:
        with ctrl_c_later():
            pool.shutdown(cancel_futures=kind is not None)

    if sys.platform != "win32":
        resource_tracker.ensure_running()  # its start would let Ctrl-C through (3.11)
    with ExitStack() as stack:
        with ctrl_c_later():
            pool = ProcessPoolExecutor(n_workers, None, signal.signal, ignore_ctrl_c)
            stack.push(end)
            list(pool.map(abs, range(n_workers)))
        yield pool


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
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise argparse.ArgumentTypeError(f"cannot be written: {text}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--modules", type=positive, default=4)
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
            row, answers = measure(job, coroutine, modules, threads, processes)
            table[name] = row
            if name == "fetch" and answers != [
                zlib.crc32(m.read_bytes()) for m in modules
            ]:
                raise SystemExit("what was fetched is not what is there")
            gains = [row["sequential"] / row[model] for model in MODELS[1:]]
            print(
                f"{name:8}{row['sequential']:10.2f} s"
                + "".join(f"{gain:11.2f}x" for gain in gains)
            )
    print()
    advice = {name: recommend(row, name == "fetch") for name, row in table.items()}
    for name, model in advice.items():
        print(f"to {name:8}  {model}")
    if options.plot:
        plot(table, advice, machine, options.plot)


if __name__ == "__main__":
    main()
