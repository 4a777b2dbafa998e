"""Lets servers take turns, round by round, and tells their figures as Markdown tables.

`compare` is the program that lines.py and http_servers.py share: its options, the
rounds, the tables, and where README.md keeps them.
"""

import argparse
import os
import platform
import re
import resource
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from measuring import AnswerError, Load, Sample, Server, Talk, sample, serve

README = Path(__file__).with_name("README.md")

MANY = 500  # connections from which on their memory can be told from noise
DESCRIPTORS = 100  # that a process needs besides those of its connections
# Noise only adds to what a request costs. Memory errs to both sides.
BEST: dict[str, Callable[[list[float]], float]] = {
    "per_cpu_second": max,
    "per_second": max,
    "p99": min,
    "memory": statistics.median,
}
QUICK = [Load(1, 1), Load(50, 1), Load(50, 16), Load(500, 1)]
ROUNDS = 5
SECONDS = 0.7
QUICK_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Comparison:
    """What is compared.

    Attributes:
        name: of the part of README.md where the tables stand.
        servers: the first one is what the others are compared with.
        reference: the name of the one whose figures are 1 in the tables.
        peers: what runs the servers that are not scripts of the chapter, by name.
    """

    name: str
    talk: Talk
    servers: Sequence[Server]
    reference: str
    loads: Sequence[Load]
    peers: Mapping[str, Callable[..., object]]


@dataclass(slots=True)
class Results:
    """What has been measured so far, and what could not be."""

    samples: dict[tuple[str, Load], list[Sample]] = field(default_factory=dict)
    failures: dict[tuple[str, Load], str] = field(default_factory=dict)

    def best(self, name: str, load: Load, figure: str) -> float | None:
        """Return a figure of the round that was disturbed least.

        None if a server has not stood that load.
        """
        samples = self.samples.get((name, load))
        if samples is None or (name, load) in self.failures:
            return None
        values: list[float] = [getattr(one, figure) for one in samples]
        return BEST[figure](values)

    def shortfall(self, name: str, load: Load) -> float | None:
        """Return what part of the best rate the median lacks; None for one round."""
        best = self.best(name, load, "per_cpu_second")
        if best is None or len(self.samples[name, load]) < 2:
            return None
        rates = [one.per_cpu_second for one in self.samples[name, load]]
        return 1 - statistics.median(rates) / best

    def ratio(self, name: str, other: str, load: Load) -> float | None:
        """Return how many times as many requests `name` answers per CPU second."""
        a, b = (self.best(who, load, "per_cpu_second") for who in (name, other))
        return None if a is None or b is None else a / b


def measure_all(
    servers: Sequence[Server],
    talk: Talk,
    loads: Sequence[Load],
    rounds: int,
    seconds: float,
) -> Results:
    """Measure each server under each load; they take turns."""
    results = Results()
    for number in range(rounds):
        for load in loads:
            print(f"round {number + 1} of {rounds}: {load}", file=sys.stderr)
            for server in servers:
                key = server.name, load
                if load.connections > server.most or key in results.failures:
                    continue
                try:
                    measured = sample(server, talk, load, seconds)
                except (AnswerError, OSError) as error:
                    results.failures[key] = str(error)
                else:
                    results.samples.setdefault(key, []).append(measured)
    return results


# -- tables


def table(
    title: str,
    names: Sequence[str],
    columns: Sequence[object],
    cell: Callable[[str, int], str],
) -> str:
    """Return a Markdown table.

    Args:
        cell: gives the text for a name and the number of a column.
    """
    lines = [
        f"| {title} | {' | '.join(map(str, columns))} |",
        "|---|" + "---:|" * len(columns),
    ]
    for name in names:
        cells = [cell(name, number) for number in range(len(columns))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def shown(value: float | None, form: str, scale: float = 1.0) -> str:
    if value is None or value == float("inf"):
        return "–"
    return form.format(value * scale)


def tables(comparison: Comparison, names: Sequence[str], results: Results) -> str:
    """Return all tables, one after the other, and what could not be measured."""
    loads = [
        load
        for load in comparison.loads
        if any((name, load) in results.samples for name in names)
    ]
    many = [load for load in loads if load.connections >= MANY and load.depth == 1]

    def figure(name: str, load: Load, what: str, form: str, scale: float = 1.0) -> str:
        return shown(results.best(name, load, what), form, scale)

    def per_cpu_second(name: str, column: int) -> str:
        load = loads[column]
        ratio = results.ratio(name, comparison.reference, load)
        rate = figure(name, load, "per_cpu_second", "{:.1f}", 1e-3)
        return rate if ratio is None else f"{rate} ({ratio:.2f}x)"

    def shortfall(name: str, column: int) -> str:
        return shown(results.shortfall(name, loads[column]), "{:.0f} %", 100)

    def per_second(name: str, column: int) -> str:
        return figure(name, loads[column], "per_second", "{:.1f}", 1e-3)

    def p99(name: str, column: int) -> str:
        return figure(name, loads[column], "p99", "{:.2f}", 1e3)

    def memory(name: str, column: int) -> str:
        return figure(name, many[column], "memory", "{:.1f}", 1 / 1024)

    parts = [
        table("1,000 requests per CPU second", names, loads, per_cpu_second),
        table("the median is less by", names, loads, shortfall),
        table("1,000 requests per second", names, loads, per_second),
        table("p99 in ms", names, loads, p99),
    ]
    if many:
        parts.append(table("KiB per connection", names, many, memory))
    parts.append("\n".join(findings(names, loads, results)))
    parts.extend(
        f"{name} at {load}: {why}" for (name, load), why in results.failures.items()
    )
    return "\n\n".join(part for part in parts if part)


def findings(
    names: Sequence[str], loads: Sequence[Load], results: Results
) -> list[str]:
    """Return lines that compare the first server with the others, and with itself."""
    first, *others = names
    lines = []
    for other in others:
        for depth in sorted({load.depth for load in loads}):
            ratios = [
                ratio
                for load in loads
                if load.depth == depth
                and (ratio := results.ratio(first, other, load)) is not None
            ]
            if ratios:
                lines.append(
                    f"* {first} / {other}, depth {depth}: "
                    f"{min(ratios):.2f}x to {max(ratios):.2f}x"
                )
    at = {load: results.best(first, load, "per_cpu_second") for load in loads}
    most = max(loads, key=lambda load: (-load.depth, load.connections))
    few, most_rate = at.get(Load(MANY, 1)), at[most]
    if few and most_rate and most.connections > MANY:
        lines.append(
            f"* {first}, cost of a request among {most.connections:,} connections: "
            f"{few / most_rate:.2f}x that among {MANY}"
        )
    return lines


def record(readme: Path, name: str, text: str) -> None:
    """Put a text between the two comments of a file that bear a name.

    Raises:
        ValueError: they are not there.
    """
    before = readme.read_text("utf-8")
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    pattern = f"(?s)(?<={re.escape(start)}).*?(?={re.escape(end)})"
    after, n = re.subn(pattern, lambda _: f"\n{text}\n\n", before)
    if n != 1:
        raise ValueError(f"{readme}: not once between {start.strip()} and {end}")
    readme.write_text(after, "utf-8")


# -- the program


def can_open(connections: int) -> bool:
    """Allow this process, and those that it starts, so many connections at a time."""
    needed = connections + DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY:
        hard = max(hard, needed)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    except (OSError, ValueError):
        return False
    return True


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def setting(names: Sequence[str], rounds: int, seconds: float) -> str:
    """Return a line that says on what was measured, and how long."""
    packages = [f"{name} {version(name)}" for name in names]
    system = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return (
        f"{', '.join([f'Python {platform.python_version()}', *packages])}; {system}; "
        f"{rounds} x {seconds:g} s for each figure"
    )


def compare(comparison: Comparison, description: str) -> None:
    """Run the benchmark as its options say."""
    names = [server.name for server in comparison.servers]
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=positive, help=f"instead of {ROUNDS}")
    parser.add_argument("--record", action="store_true", help="into README.md")
    parser.add_argument("--only", nargs="+", choices=names, metavar="SERVER")
    parser.add_argument("--serve", choices=comparison.peers, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(comparison.peers[options.serve])
        return
    loads = [load for load in comparison.loads if not options.quick or load in QUICK]
    rounds, seconds = (1, QUICK_SECONDS) if options.quick else (ROUNDS, SECONDS)
    rounds = options.rounds or rounds
    # What stops this program otherwise than Ctrl-C is not to leave a server behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for load in list(loads):
        if not can_open(load.connections):
            print(f"not measured: {load}, the system allows too few descriptors")
            loads.remove(load)
    servers = []
    for server in comparison.servers:
        if options.only and server.name not in options.only:
            continue
        if missing := server.missing():
            print(f"not measured: {server.name}, needs {', '.join(missing)}")
            continue
        servers.append(server)
    if not servers or not loads:
        raise SystemExit("nothing is left to measure")
    packages = sorted({name for server in servers for name in server.needs})
    results = measure_all(servers, comparison.talk, loads, rounds, seconds)
    if not results.samples:
        raise SystemExit("\n".join(results.failures.values()))
    told = [server.name for server in servers]
    text = (
        f"{setting(packages, rounds, seconds)}\n\n{tables(comparison, told, results)}"
    )
    print(text)
    if options.record:
        record(README, comparison.name, text)
