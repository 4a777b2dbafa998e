"""Lets servers take turns, and tells their figures as Markdown tables.

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from measuring import AnswerError, Load, Sample, Server, Talk, Trial, serve, trial

README = Path(__file__).with_name("README.md")

MANY = 500  # connections from which on their memory can be told from noise
DESCRIPTORS = 100  # that a process needs besides those of its connections
QUICK = [Load(1, 1), Load(50, 1), Load(50, 16), Load(500, 1)]
ROUNDS, QUICK_ROUNDS = 16, 4
SECONDS = 0.25


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

    samples: dict[tuple[str, Load], Sample] = field(default_factory=dict)
    failures: dict[tuple[str, Load], str] = field(default_factory=dict)

    @contextmanager
    def noting_failure(self, name: str, load: Load) -> Iterator[None]:
        """Keep in mind why a server has not stood a load; go on behind the block."""
        try:
            yield
        except (AnswerError, OSError) as error:
            self.failures[name, load] = str(error)

    def figure(self, name: str, load: Load, figure: str) -> float | None:
        """Return a figure; None if a server has not stood that load."""
        measured = self.samples.get((name, load))
        value: float | None = None if measured is None else getattr(measured, figure)
        return value

    def ratios(self, name: str, other: str, load: Load) -> list[float]:
        """Return how many times as many requests `name` answers per CPU second.

        One ratio for each turn, which both have had at nearly the same time; none if
        one of them has not stood that load.
        """
        a, b = (self.samples.get((who, load)) for who in (name, other))
        if a is None or b is None:
            return []
        return [mine / theirs for mine, theirs in zip(a.turns, b.turns, strict=True)]

    def ratio(self, name: str, other: str, load: Load) -> float | None:
        """Return the median of these ratios; None if there are none."""
        ratios = self.ratios(name, other, load)
        return statistics.median(ratios) if ratios else None

    def spread(self, name: str, other: str, load: Load) -> float | None:
        """Return how far the quartiles of the ratios lie apart, by their median."""
        ratios = self.ratios(name, other, load)
        if len(ratios) < 2:
            return None
        low, median, high = statistics.quantiles(ratios, n=4)
        return (high - low) / median


def measure_all(
    servers: Sequence[Server],
    talk: Talk,
    loads: Sequence[Load],
    rounds: int,
    seconds: float,
) -> Results:
    """Measure all servers under each load; they take turns of so many seconds."""
    results = Results()
    for load in loads:
        print(load, file=sys.stderr)
        with ExitStack() as stack:
            trials: dict[str, Trial] = {}
            for server in servers:
                if load.connections <= server.most:
                    with results.noting_failure(server.name, load):
                        begun = trial(server, talk, load)
                        trials[server.name] = stack.enter_context(begun)
            for _ in range(rounds):
                for name, one in trials.items():
                    if (name, load) not in results.failures:
                        with results.noting_failure(name, load):
                            one.turn(seconds)
            for name, one in trials.items():
                if (name, load) not in results.failures:
                    results.samples[name, load] = one.sample()
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
    if value is None:
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
        return shown(results.figure(name, load, what), form, scale)

    def per_cpu_second(name: str, column: int) -> str:
        load = loads[column]
        ratio = results.ratio(name, comparison.reference, load)
        rate = figure(name, load, "per_cpu_second", "{:.1f}", 1e-3)
        return rate if ratio is None else f"{rate} ({ratio:.2f}x)"

    def spread(name: str, column: int) -> str:
        by = results.spread(name, comparison.reference, loads[column])
        return shown(by, "{:.0f} %", 100)

    def per_second(name: str, column: int) -> str:
        return figure(name, loads[column], "per_second", "{:.1f}", 1e-3)

    def p99(name: str, column: int) -> str:
        return figure(name, loads[column], "p99", "{:.2f}", 1e3)

    def memory(name: str, column: int) -> str:
        return figure(name, many[column], "memory", "{:.1f}", 1 / 1024)

    parts = [
        table("1,000 requests per CPU second", names, loads, per_cpu_second),
        table("spread of the ratio", names, loads, spread),
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
    at = {load: results.figure(first, load, "per_cpu_second") for load in loads}
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
        f"{rounds} turns of {seconds:g} s for each figure"
    )


def compare(comparison: Comparison, description: str) -> None:
    """Run the benchmark as its options say."""
    names = [server.name for server in comparison.servers]
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer loads and turns")
    parser.add_argument("--rounds", type=positive, help=f"instead of {ROUNDS}")
    parser.add_argument("--record", action="store_true", help="into README.md")
    parser.add_argument("--only", nargs="+", choices=names, metavar="SERVER")
    parser.add_argument("--serve", choices=comparison.peers, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(comparison.peers[options.serve])
        return
    loads = [load for load in comparison.loads if not options.quick or load in QUICK]
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    # What stops this program otherwise than Ctrl-C is not to leave a server behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    servers = []
    for server in comparison.servers:
        if options.only and server.name not in options.only:
            continue
        if missing := server.missing():
            print(f"not measured: {server.name}, needs {', '.join(missing)}")
            continue
        servers.append(server)
    for load in list(loads):
        n = sum(load.connections <= server.most for server in servers)
        if not can_open(n * load.connections):
            print(f"not measured: {load}, the system allows too few descriptors")
            loads.remove(load)
    if not servers or not loads:
        raise SystemExit("nothing is left to measure")
    packages = sorted({name for server in servers for name in server.needs})
    results = measure_all(servers, comparison.talk, loads, rounds, SECONDS)
    if not results.samples:
        raise SystemExit("\n".join(results.failures.values()))
    told = [server.name for server in servers]
    text = (
        f"{setting(packages, rounds, SECONDS)}\n\n{tables(comparison, told, results)}"
    )
    print(text)
    if options.record:
        record(README, comparison.name, text)
