# /// script
# requires-python = ">=3.11"
# dependencies = ["matplotlib>=3.8.0"]
# ///
"""Everybody waits for a lock, and one line is to blame: a report made with it held.

That threads wait is not the question, but for which lock, and what is done meanwhile
with that lock held. Locks that record their uses (profiled_locks.py) answer it.

Here two clerks and a printer share the accounts. The printer formats its report, which
takes long, with the lock held; whoever waits, waits for the function `report`, or for
the other clerk, who has waited for it. The mend is to copy under the lock what the
report needs, and to format the copy. The journal is locked as often as a clerk has an
entry, and nobody ever waits for it, since it is taken under the other lock only: it
guards nothing.

Tasks are no better off: an asyncio.Lock that is held over an await makes all others
wait as long, although nobody blocks the event loop.

Barriers see to it that both clerks come while the report has the accounts, so that the
counts are certain. Only how long it takes is not.

Try:  --rounds 10
Try:  --plot contention.png

Output:
    threads                  taken   waits      waited
      accounts                  18      12     70.4 ms
      journal                   12       0      0.0 ms
      transfer for report               12     62.4 ms
      transfer for transfer              6      6.7 ms
    tasks                    taken   waits      waited
      accounts                  18      12     79.4 ms
      journal                   12       0      0.0 ms
      transfer for report               12     67.8 ms
      transfer for transfer              6      8.1 ms
    nobody waits: Lock 0.54 µs, this one 4.83 µs
    all wait for report, which formats under the lock; for one of a copy, none
"""

import argparse
import asyncio
import os
import threading
import time
import timeit
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from profiled_locks import (
    Profile,
    ProfiledLock,
    ProfiledTaskLock,
    blame,
    by_lock,
    stepped,
)

ROUNDS = 6
CLERKS = "clerk 1", "clerk 2"
N_CLERKS = len(CLERKS)
FORMATTING, WRITING = 0.005, 0.001  # seconds: of a report, of an entry
LIMIT = 30.0  # seconds for what should take none
BATCHES, BATCH = 10, 1000  # acquisitions that are timed


class Bank:
    """Threads that share the accounts; what they wait for is known beforehand.

    Args:
        copies: whether the printer formats a copy, and not the accounts themselves.
    """

    def __init__(self, profile: Profile, copies: bool) -> None:
        self._profile = profile
        self._waits = threading.Semaphore(0)
        self._accounts = ProfiledLock("accounts", profile, self._waits.release)
        self._journal = ProfiledLock("journal", profile)
        self._all_meet = threading.Barrier(1 + N_CLERKS, timeout=LIMIT)
        self._report = self.report_of_a_copy if copies else self.report

    def transfer(self) -> None:
        with self._accounts, self._journal:
            time.sleep(WRITING)

    def report(self) -> None:
        with self._accounts:
            self._all_meet.wait()
            for _ in range(N_CLERKS):
                self._waits.acquire(timeout=LIMIT)
            self.format()

    def report_of_a_copy(self) -> None:
        with self._accounts:
            pass  # this is where it is copied
        self._all_meet.wait()
        self.format()

    def format(self) -> None:
        with self._profile.step(threading.current_thread().name):
            time.sleep(FORMATTING)

    def printer(self, rounds: int) -> None:
        for _ in range(rounds):
            self._report()
            self._all_meet.wait()

    def clerk(self, rounds: int) -> None:
        for _ in range(rounds):
            self._all_meet.wait()
            self.transfer()
            self._all_meet.wait()

    def work(self, rounds: int) -> None:
        """Let a printer and clerks work in threads with these names."""
        jobs = {"printer": self.printer} | dict.fromkeys(CLERKS, self.clerk)
        errors: list[BaseException] = []

        def work(name: str, job: Callable[[int], None]) -> None:
            threading.current_thread().name = name
            try:
                self._all_meet.wait()  # the start of a thread would look like a wait
                job(rounds)
            except BaseException as error:
                errors.append(error)  # the first has the others find a broken barrier
                self._abort()

        with ThreadPoolExecutor(len(jobs)) as pool:
            try:
                for _ in pool.map(work, jobs, jobs.values()):
                    pass
            except BaseException:  # Ctrl-C, for one
                self._abort()
                raise
        if errors:
            raise errors[0]

    def _abort(self) -> None:
        """Let nobody wait for the others any more."""
        self._all_meet.abort()
        self._waits.release(N_CLERKS)


async def tasks_of_a_bank(profile: Profile, rounds: int) -> None:
    """Let tasks do what the threads of a Bank do, without copies."""
    waits = asyncio.Semaphore(0)
    accounts = ProfiledTaskLock("accounts", profile, waits.release)
    journal = ProfiledTaskLock("journal", profile)
    all_meet = asyncio.Barrier(1 + N_CLERKS)

    async def report() -> None:
        async with accounts:
            await all_meet.wait()
            for _ in range(N_CLERKS):
                await waits.acquire()
            await asyncio.sleep(FORMATTING)

    async def transfer() -> None:
        async with accounts, journal:
            await asyncio.sleep(WRITING)

    async def printer() -> None:
        for _ in range(rounds):
            await report()
            await all_meet.wait()

    async def clerk() -> None:
        for _ in range(rounds):
            await all_meet.wait()
            await transfer()
            await all_meet.wait()

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as group:
        group.create_task(stepped(profile, printer), name="printer")
        for name in CLERKS:
            group.create_task(stepped(profile, clerk), name=name)


# -- what is shown of it


def plot(profiles: dict[str, Profile], file: Path) -> None:
    """Draw for each profile a row for each thread or task: when it waited, and had."""
    from matplotlib.figure import Figure

    colours = {
        "waits for accounts": "#d1603d",
        "report has accounts": "#1b4f8a",
        "transfer has accounts": "#7ba3cf",
        "formats, or a task runs": "black",
    }
    rows = ["printer", *CLERKS]
    figure = Figure(figsize=(9, 6), layout="constrained")
    panels = figure.subplots(len(profiles), 1, sharex=True)
    for axes, (name, profile) in zip(panels, profiles.items(), strict=True):
        start = min(use.asked for use in profile.uses)
        bars: dict[str, list[tuple[str, float, float]]] = {
            label: [] for label in colours
        }
        for use in profile.uses:
            if use.lock == "accounts":
                if use.waited:
                    bars["waits for accounts"].append((use.who, use.asked, use.got))
                has = f"{use.function.removesuffix('_of_a_copy')} has accounts"
                bars[has].append((use.who, use.got, use.released))
        *_, runs = bars
        bars[runs] = [(step.who, step.began, step.ended) for step in profile.steps]
        for label, intervals in bars.items():
            axes.barh(
                [rows.index(who) for who, _, _ in intervals],
                [1000 * (ended - began) for _, began, ended in intervals],
                left=[1000 * (began - start) for _, began, _ in intervals],
                height=0.25 if label == runs else 0.7,
                color=colours[label],
                label=label,
            )
        axes.set_title(name, loc="left", fontsize=12)
        axes.set_yticks(range(len(rows)), rows)
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("time since the first acquire [ms]", fontsize=12)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4
    )
    figure.suptitle(
        "Clerks wait as long as the report has the accounts; a copy sets them free",
        fontsize=14,
        fontweight="bold",
    )
    figure.savefig(file, dpi=120)


def microseconds(lock: "threading.Lock | ProfiledLock") -> float:
    """Return what to take and release a free lock takes, at best."""

    def take() -> None:
        with lock:
            pass

    return 1e6 * min(timeit.repeat(take, repeat=BATCHES, number=BATCH)) / BATCH


def show(name: str, profile: Profile) -> None:
    """Print how often each lock was waited for, and who is to blame."""
    print(f"{name:24}{'taken':>6}{'waits':>8}{'waited':>12}")
    for lock, (taken, total) in by_lock(profile.uses).items():
        print(f"  {lock:22}{taken:6}{total.waits:8}{1000 * total.seconds:9.1f} ms")
    for (_, waiter, holder), total in blame(profile.uses).items():
        line = f"  {waiter} for {holder}"
        print(f"{line:30}{total.waits:8}{1000 * total.seconds:9.1f} ms")


def check(profile: Profile, rounds: int) -> None:
    """End the program if not everybody waited for the report, in each round."""
    n = rounds * N_CLERKS
    counts = {
        lock: (taken, t.waits) for lock, (taken, t) in by_lock(profile.uses).items()
    }
    if counts != {"accounts": (rounds + n, n), "journal": (n, 0)}:
        raise SystemExit(f"all clerks were to wait, for the accounts: {counts}")
    waits = {key: total.waits for key, total in blame(profile.uses).items()}
    expected = {
        ("accounts", "transfer", "report"): n,
        ("accounts", "transfer", "transfer"): rounds * sum(range(N_CLERKS)),
    }
    if waits != expected:
        raise SystemExit(f"{expected} was expected, not {waits}")


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
    parser.add_argument("--rounds", type=positive, default=ROUNDS)
    parser.add_argument("--plot", type=picture, metavar="FILE")
    options = parser.parse_args()

    threads, tasks, copying = Profile(), Profile(), Profile()
    Bank(threads, copies=False).work(options.rounds)
    asyncio.run(tasks_of_a_bank(tasks, options.rounds))
    Bank(copying, copies=True).work(options.rounds)

    for name, profile in ("threads", threads), ("tasks", tasks):
        show(name, profile)
        check(profile, options.rounds)
    if to_blame := {holder for _, _, holder in blame(copying.uses)} - {"transfer"}:
        raise SystemExit(f"nobody was to wait for a report of a copy: {to_blame}")
    plain = microseconds(threading.Lock())
    profiled = microseconds(ProfiledLock("free", Profile()))
    print(f"nobody waits: Lock {plain:.2f} µs, this one {profiled:.2f} µs")
    print("all wait for report, which formats under the lock; for one of a copy, none")
    if options.plot is not None:
        plot(
            {
                "threads: the printer formats with the lock held": threads,
                "tasks: the same, over an await": tasks,
                "threads: the printer formats a copy": copying,
            },
            options.plot,
        )


if __name__ == "__main__":
    main()
