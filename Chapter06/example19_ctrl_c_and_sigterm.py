# /// script
# requires-python = ">=3.11"
# dependencies = ["psutil>=6.0"]
# ///
"""After Ctrl-C or SIGTERM a job keeps what is done, names the rest, leaves no process.

Ctrl-C sends SIGINT to all processes of a terminal's foreground group, `kill` sends
SIGTERM to one, a service manager sends it to all. Without care, Ctrl-C gives a chorus
of tracebacks, and SIGTERM kills the parent and leaves its workers behind. With care:

* Workers ignore both signals. Whether and when they end is for the parent to decide.
* In the parent, the first signal begins no more tasks, and gives those in hand a time
  of grace. Their results count. A second signal, or the end of the grace, kills them.
* The handler of a signal runs between any two steps of the main thread, so it does next
  to nothing: it notes the wish, and wakes the loop that waits for results.
* SIGKILL cannot be handled. What was handed over before is kept, and the workers see
  their pipes end, and end too.

The job is done by the SupervisedMap of example18. Here it is started as a program of
its own and stopped in mid-job, with two tasks in hand that wait until they are let go,
or for ever; then its process group is searched for survivors. With --job, the job runs
by itself, for your own Ctrl-C, once or twice.

Try:  --job
Try:  --job --workers 4 --grace 0

Output:
    12 tasks, 4 done and 2 in hand when it comes:
                                    done  exit status
    SIGINT to all                      6          130
    SIGTERM to all                     6          143
    SIGTERM to parent, grace over      4          143
    SIGINT to all, twice               4          130
    SIGKILL to parent                  4           -9
    no process left, every task accounted for unless killed
"""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import psutil
from example18_worker_killed_job_completed import SupervisedMap

LIMIT = 10.0  # seconds for what should take none
N_TASKS = 12
AT_ONCE = 4  # tasks are done before the others come to the gate
N_WORKERS = 2
GRACE = 0.3  # seconds


@contextmanager
def signals_that_stop(stop: Callable[[], object]) -> Iterator[list[int]]:
    """Call `stop` at the first SIGINT or SIGTERM in the block; raise at the second.

    To be used in the main thread. Gives the list of the signals that have come.

    Raises:
        KeyboardInterrupt: there was a second signal.
    """
    received: list[int] = []

    def handle(number: int, _: object) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt
        stop()

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def square(n: int, gate: int | None) -> int:
    """Return `n` squared: after some time, or when it is let through at a port."""
    if gate is None:
        time.sleep(0.5)
    elif n >= AT_ONCE:
        with (
            suppress(ConnectionError),
            socket.create_connection(("127.0.0.1", gate), LIMIT) as connection,
        ):
            connection.sendall(f"{os.getpid()}\n".encode())
            connection.recv(1)  # returns when the other end is closed
    return n * n


def run_job(n_workers: int, grace: float, gate: int | None) -> int:
    """Do the job, print each result as it comes, and what was not done.

    Returns:
        The exit status: 0, or 128 and the number of the signal that ended it.
    """
    done = set()

    def stop() -> None:
        job.stop(grace)
        os.write(2, b"stopping; once more to stop at once\n")  # print might be at work

    with (
        SupervisedMap(partial(square, gate=gate), range(N_TASKS), n_workers) as job,
        signals_that_stop(stop) as signals,
    ):
        try:
            for outcome in job:
                done.add(outcome.index)
                print(f"{outcome.index} squared is {outcome.result}", flush=True)
        except KeyboardInterrupt:
            pass  # done is what counts
    print("not done:", *sorted(set(range(N_TASKS)) - done))
    return 128 + signals[0] if signals else 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """How a job is stopped.

    Attributes:
        to_all: whether it is for all processes of the group, or for the parent.
        twice: whether it comes once more, to stop at once.
        grace: seconds that the tasks in hand have for their end.
        go_on: whether they come to their end.
    """

    signal: signal.Signals
    to_all: bool
    twice: bool = False
    grace: float = LIMIT
    go_on: bool = True


@dataclass(frozen=True, slots=True)
class End:
    """What was seen of a job that was stopped.

    Attributes:
        done: the tasks whose results were handed over.
        not_done: what the job itself said of the others.
        status: its exit status, negative for the signal that killed it.
    """

    done: list[int]
    not_done: list[int]
    status: int


def alive(pid: int) -> bool:
    """Tell whether a process is there, and not just waiting to be noticed as dead."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def members_of(group: int) -> list[int]:
    """Return the ids of the processes of a group that are alive."""
    members = []
    for pid in psutil.pids():
        with suppress(ProcessLookupError):
            if os.getpgid(pid) == group and alive(pid):
                members.append(pid)
    return members


@contextmanager
def program(*arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run this script with `arguments`, in a process group of its own, and end that."""
    command = [sys.executable, __file__, *arguments]

    def end_all() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    came: list[int] = []
    with ExitStack() as stack:
        # Ctrl-C has to wait until the stack knows what there is to be ended. It is not
        # masked, for the program would inherit that.
        handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
        try:
            # A fork server has a socket there, left behind if its program is killed.
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            process = stack.enter_context(
                subprocess.Popen(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=os.environ | {"TMPDIR": folder},
                    start_new_session=True,
                )
            )
            stack.callback(end_all)
        finally:
            signal.signal(signal.SIGINT, handler)
        if came:
            raise KeyboardInterrupt
        yield process


def stop_in_mid_job(scenario: Scenario) -> End:
    """Start the job, stop it when AT_ONCE tasks are done, and see what becomes of it.

    Raises:
        RuntimeError: a process is left.
    """
    with ExitStack() as stack:
        gate = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        gate.settimeout(LIMIT)
        port = gate.getsockname()[1]
        job = stack.enter_context(
            program("--job", f"--grace={scenario.grace}", f"--gate={port}")
        )
        assert job.stdout is not None
        output = "".join(job.stdout.readline() for _ in range(AT_ONCE))
        in_hand = [stack.enter_context(gate.accept()[0]) for _ in range(N_WORKERS)]
        workers = [int(connection.makefile().readline()) for connection in in_hand]

        send = os.killpg if scenario.to_all else os.kill
        send(job.pid, scenario.signal)
        if scenario.signal == signal.SIGKILL:
            job.wait(LIMIT)
        else:
            job.stdout.readline()  # says that it has begun to stop
        if scenario.twice:
            send(job.pid, scenario.signal)
        if scenario.go_on:
            for connection in in_hand:
                connection.close()
        output += job.communicate(timeout=LIMIT)[0]  # when all have closed the pipe
        if job.returncode >= 0 and any(map(alive, workers)):
            raise RuntimeError("the parent did not wait for its workers")
        # The helpers of multiprocessing end when they notice the end of the parent;
        # so do the workers, if it was killed.
        deadline = time.monotonic() + LIMIT
        while left := members_of(job.pid):
            if time.monotonic() > deadline:
                raise RuntimeError(f"left: {left}")
            time.sleep(0.01)
    done = [int(n) for n in re.findall(r"^(\d+) squared is", output, re.MULTILINE)]
    not_done = re.findall(r"^not done: (.*)$", output, re.MULTILINE)
    return End(
        sorted(done), [int(n) for n in " ".join(not_done).split()], job.returncode
    )


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= threading.TIMEOUT_MAX:  # not a number, either
        raise argparse.ArgumentTypeError(f"must be 0 or more, not {text}")
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--job", action="store_true", help="do the job, and only that")
    parser.add_argument("--workers", type=positive, default=N_WORKERS)
    parser.add_argument("--grace", type=seconds, default=LIMIT, help="in seconds")
    parser.add_argument("--gate", type=positive, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        sys.exit(run_job(options.workers, options.grace, options.gate))
    if sys.platform == "win32":
        print("needs POSIX signals and process groups")
        sys.exit(77)

    print(f"{N_TASKS} tasks, {AT_ONCE} done and {N_WORKERS} in hand when it comes:")
    print(f"{'':32}done  exit status")
    ctrl_c = Scenario(signal.SIGINT, to_all=True)
    manager = Scenario(signal.SIGTERM, to_all=True)
    kill = Scenario(signal.SIGTERM, to_all=False, grace=GRACE, go_on=False)
    impatient = Scenario(signal.SIGINT, to_all=True, twice=True, go_on=False)
    kill_9 = Scenario(signal.SIGKILL, to_all=False)
    with_those_in_hand = AT_ONCE + N_WORKERS
    for name, scenario, n_done, status in (
        ("SIGINT to all", ctrl_c, with_those_in_hand, 130),
        ("SIGTERM to all", manager, with_those_in_hand, 143),
        ("SIGTERM to parent, grace over", kill, AT_ONCE, 143),
        ("SIGINT to all, twice", impatient, AT_ONCE, 130),
        ("SIGKILL to parent", kill_9, AT_ONCE, -9),
    ):
        end = stop_in_mid_job(scenario)
        if (len(end.done), end.status) != (n_done, status):
            raise SystemExit(f"{name}: {end}")
        if status > 0 and sorted(end.done + end.not_done) != list(range(N_TASKS)):
            raise SystemExit(f"{name}: not every task is accounted for: {end}")
        print(f"{name:30}  {n_done:4}  {status:11}")
    print("no process left, every task accounted for unless killed")


if __name__ == "__main__":
    main()
