# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "cheroot>=10.0.0",
#     "httpbin>=0.10.2",
#     "matplotlib>=3.8.0",
#     "requests>=2.31.0",
#     "urllib3>=2.0.0",
# ]
# ///
"""How many threads for requests? The throughput grows with them, until it does not.

If each request takes a time W from beginning to end, and n of them are under way, then
n / W are answered in a second (Little's law). As long as requests only wait, W stays
what it was, and twice the threads do twice the work. At some number the site, the
network or one's own interpreter is busy all the time; from there on more threads only
make W longer: each of them waits, but for the others.

Where that is, only a measurement tells. Here the site runs in the same process as the
threads that ask it, and together they keep one core busy.

J. D. C. Little, "A proof for the queuing formula L = λW", Operations Research 9, 1961.

Try:  --delay 0.2
Try:  --plot throughput.png

Output:
    answers after 0.02 s
    threads    throughput    a request takes
          1        44.2/s            22.6 ms
          2        86.6/s            23.0 ms
          4       166.8/s            23.4 ms
          8       301.0/s            24.7 ms
         16       457.4/s            32.1 ms
         32       541.1/s            54.3 ms
         64       668.6/s            89.3 ms
    64 threads, 15.1x the throughput of one
"""

import argparse
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import local_site
import requests

TIMEOUT = 20.0  # seconds without a byte from the site
EACH = 4  # requests by each thread
THREADS = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Load:
    """What `threads` requests under way at a time amount to.

    Attributes:
        throughput: answers a second.
        latency: seconds that a request takes, on average.
    """

    threads: int
    throughput: float
    latency: float


def measure(url: str, n_threads: int, each: int = EACH) -> Load:
    """Let `n_threads` threads ask for `url`, each `each` times, over one connection.

    Raises:
        requests.RequestException: an answer was missing, or its status 4xx or 5xx.
    """
    all_here = threading.Barrier(n_threads)

    def ask(_: int) -> tuple[float, float]:
        with requests.Session() as session:
            all_here.wait(TIMEOUT)
            began = time.perf_counter()
            for _ in range(each):
                session.get(url, timeout=TIMEOUT).raise_for_status()
            return began, time.perf_counter()

    with ThreadPoolExecutor(n_threads) as pool:
        try:
            times = list(pool.map(ask, range(n_threads)))
        except BaseException:
            all_here.abort()  # or those at the barrier would wait for the others
            raise
    took = max(end for _, end in times) - min(began for began, _ in times)
    latency = sum(end - began for began, end in times) / (n_threads * each)
    return Load(n_threads, n_threads * each / took, latency)


def plot(loads: Sequence[Load], delay: float, file: Path) -> None:
    """Draw throughput and latency against the number of threads."""
    from matplotlib.figure import Figure

    threads = [load.threads for load in loads]
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    upper, lower = figure.subplots(1, 2)
    upper.plot(
        threads,
        [n / delay for n in threads],
        "--",
        color="#8a8a8a",
        label="if requests only waited",
    )
    upper.plot(
        threads,
        [load.throughput for load in loads],
        "o-",
        color="#1b4f8a",
        linewidth=2.5,
        label="measured",
    )
    upper.set_yscale("log")
    upper.set_ylabel("answers a second", fontsize=12)
    upper.set_title("Throughput grows, then falls behind", fontweight="bold")
    upper.legend(fontsize=11)
    lower.axhline(1000 * delay, linestyle="--", color="#8a8a8a")
    lower.plot(
        threads,
        [1000 * load.latency for load in loads],
        "o-",
        color="#b5442e",
        linewidth=2.5,
    )
    lower.set_ylim(bottom=0)
    lower.set_ylabel("milliseconds for a request", fontsize=12)
    lower.set_title("From there on, all wait longer", fontweight="bold")
    for axes in (upper, lower):
        axes.set_xscale("log", base=2)
        axes.set_xticks(threads, [str(n) for n in threads])
        axes.set_xlabel("threads", fontsize=12)
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


def seconds(text: str) -> float:
    number = float(text)
    if not 0.01 <= number <= 10:
        raise argparse.ArgumentTypeError(f"must be in 0.01 … 10, not {number:g}")
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
    parser.add_argument("--url", type=local_site.base_url, metavar="BASE")
    parser.add_argument("--delay", type=seconds, default=0.02)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()

    loads = []
    with local_site.site_for(options.url) as site:
        print(f"answers after {options.delay:g} s")
        print("threads    throughput    a request takes")
        for n_threads in THREADS:
            load = measure(f"{site.url}/delay/{options.delay:g}", n_threads)
            loads.append(load)
            print(
                f"{n_threads:7}  {load.throughput:10.1f}/s  "
                f"{1000 * load.latency:14.1f} ms"
            )
            if load.throughput > n_threads / options.delay:
                raise SystemExit("more answers than Little's law allows")
    if options.plot:
        plot(loads, options.delay, options.plot)

    gain = loads[-1].throughput / loads[0].throughput
    print(f"{THREADS[-1]} threads, {gain:.1f}x the throughput of one")


if __name__ == "__main__":
    main()
