"""Chapter 6, examples 1 to 8: the parts a reader would copy."""

import math
import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import example01_two_processes as two
import example02_names_of_processes as named
import example03_ids_and_parents as families
import example04_daemon_process as daemons
import example05_join_with_timeout_and_is_alive as ends
import example06_objects_through_a_queue as copies
import example07_consumers_that_ask_empty_broken as askers
import example08_poison_pills_fixed as pills
import pytest
from example08_poison_pills_fixed import WorkerDiedError, process_all
from hypothesis import given, settings
from hypothesis import strategies as st

LIMIT = 30.0  # seconds that a test waits for what must come

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    before = multiprocessing.active_children()
    yield
    assert multiprocessing.active_children() == before


@contextmanager
def child(target: Callable[..., object], *args: object) -> Iterator[BaseProcess]:
    process = multiprocessing.Process(target=target, args=args)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


# -- example01


def test_each_process_adds_in_a_memory_of_its_own(start_method: str) -> None:
    notes: list[str] = []
    jobs = {"A": range(1, 5), "B": [10, 20], "C": []}
    reports = two.add_up_together(jobs, notes)
    assert [(one.name, one.total, one.notes) for one in reports] == [
        ("A", 10, ["A was here"]),
        ("B", 30, ["B was here"]),
        ("C", 0, ["C was here"]),
    ]
    assert len({os.getpid(), *(one.pid for one in reports)}) == 4
    assert (two.total, notes) == (0, [])


def test_none_adds_the_rest_before_all_are_halfway() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    halfway = multiprocessing.Barrier(2)
    with receiver, child(two.add_up, [1, 2], halfway, [], sender):
        assert not receiver.poll(0.05)
        halfway.wait(LIMIT)
        assert receiver.recv().total == 3


@pytest.mark.parametrize("start_method", ["spawn"], indirect=True)
@pytest.mark.usefixtures("start_method")
def test_of_a_process_that_dies_without_a_report_the_caller_hears(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(EOFError):
        two.add_up_together({"A": ["no number"]}, [])  # type: ignore[list-item]
    assert "TypeError" in capfd.readouterr().err


# -- example02


def test_names_are_those_of_the_process_that_asks(start_method: str) -> None:
    here = multiprocessing.current_process().name
    names = named.names_here()
    assert (names.own, names.logged) == (here, here)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    event = multiprocessing.Event()
    process = multiprocessing.Process(
        target=named.tell_names, args=(sender, event), name="parser"
    )
    assert named.children_named("parser") == []
    with receiver, named.running([process]):
        assert named.children_named("parser") == [process]
        assert named.children_named("parse") == []
        process.name = "other"
        event.set()
        for _ in range(2):
            names = receiver.recv()
            assert (names.own, names.logged) == ("parser", "parser")
            assert names.child.endswith(":1") or names.child.endswith(":2")


# -- example03


@pytest.mark.parametrize("generations", [0, 1, 3])
def test_each_member_names_who_started_it(start_method: str, generations: int) -> None:
    members = families.descendants(generations)
    pids = [os.getpid(), *(member.pid for member in members)]
    assert len(set(pids)) == generations + 1
    assert [member.parent_pid for member in members] == pids[:-1]
    if generations:
        assert members[0].parent_name == multiprocessing.current_process().name
    for member in members:
        by_start = member.system_ppid == member.parent_pid
        assert by_start == (start_method != "forkserver")


def test_the_program_itself_is_nobody_s_child() -> None:
    with pytest.raises(RuntimeError, match="is the program itself"):
        families.member()


# -- example04


@pytest.mark.parametrize(
    ("daemon", "end", "waited", "steps"),
    [
        (False, "returns", True, ["begun", "done", "cleaned up"]),
        (True, "returns", False, ["begun"]),
        (True, "is killed", False, ["begun", "done", "cleaned up"]),
        (False, "is killed", False, ["begun", "done", "cleaned up"]),
    ],
)
def test_what_a_worker_does_when_its_program_ends(
    start_method: str, daemon: bool, end: daemons.End, waited: bool, steps: list[str]
) -> None:
    seen = daemons.watch(daemon, end)
    assert (seen.waited, seen.steps) == (waited, steps)
    assert (seen.exitcode == 0) == (end == "returns")


def test_a_daemon_has_no_children(start_method: str) -> None:
    assert "not allowed to have children" in daemons.child_of_a_daemon()


# -- example05


@posix_only
@pytest.mark.parametrize(
    ("target", "took", "exitcode"),
    [
        (ends.wait_for_word, "terminate", -signal.SIGTERM),
        (ends.ignore_sigterm, "kill", -9),
    ],
)
def test_a_process_is_ended_by_the_mildest_means(
    start_method: str, target: Callable[..., object], took: str, exitcode: int
) -> None:
    ours, its = multiprocessing.Pipe()
    with ours, child(target, its) as process:
        ours.recv()
        assert ends.end(process, LIMIT if took == "terminate" else 0.05) == took
        assert process.exitcode == exitcode
        assert ends.end(process, LIMIT) == "nothing"


def test_the_first_to_end_are_found(start_method: str) -> None:
    lines, processes = [], []
    for _ in range(3):
        ours, its = multiprocessing.Pipe()
        lines.append(ours)
        processes.append(
            multiprocessing.Process(target=ends.wait_for_word, args=(its,))
        )
    with ends.running(processes):
        assert ends.first_ended(processes, 0) == []
        waiting = list(processes)
        for number in (1, 0, 2):
            lines[number].recv()
            lines[number].send("go")
            assert ends.first_ended(waiting, LIMIT) == [processes[number]]
            waiting.remove(processes[number])
            assert processes[number].exitcode == 0
        assert ends.first_ended(processes) == processes


@pytest.mark.parametrize(
    ("exitcode", "words"),
    [
        (None, "at work"),
        (0, "status 0"),
        (3, "status 3"),
        (-250, "ended by signal 250"),
    ],
)
def test_exit_codes_in_words(exitcode: int | None, words: str) -> None:
    assert ends.describe(exitcode) == words


def test_a_signal_is_called_by_its_name() -> None:
    assert ends.describe(-signal.SIGTERM) == "ended by SIGTERM"


@pytest.mark.parametrize("grace", ["0", "-1", "nan", "31", "soon"])
def test_impossible_graces_are_refused(
    complaint: Callable[..., str], grace: str
) -> None:
    assert grace in complaint(ends, f"--grace={grace}")


# -- example06


def test_what_comes_out_is_another_object(start_method: str) -> None:
    inbox: Any = multiprocessing.Queue()
    outbox: Any = multiprocessing.SimpleQueue()
    sent = copies.Note("letter")
    with child(copies.sign, inbox, outbox):
        inbox.put(sent)
        back = outbox.get()
        inbox.put(None)
    assert (sent.text, back.text) == ("letter", "letter, signed")
    inbox.close()
    inbox.join_thread()


@pytest.mark.parametrize(
    ("change", "text"),
    [(copies.change_before_pickling, "new"), (copies.change_after_pickling, "old")],
)
def test_a_note_is_sent_as_the_feeder_finds_it(
    change: Callable[[Any], None], text: str
) -> None:
    queue: Any = multiprocessing.Queue()
    change(queue)
    assert queue.get().text == text
    queue.close()
    queue.join_thread()


def test_what_cannot_be_pickled_is_lost_and_the_rest_is_not() -> None:
    came, printed = copies.lost_in_the_feeder(["a", threading.Lock(), "b", print, iter])
    assert came == ["a", "b", print, iter]
    assert printed.count("Traceback") == 1


def test_put_now_sends_what_is_there_now_or_raises() -> None:
    queue: Any = multiprocessing.Queue()
    note = copies.Note("old")
    copies.put_now(queue, note)
    note.text = "new"
    with pytest.raises(TypeError, match="cannot pickle"):
        copies.put_now(queue, threading.Lock())
    copies.put_now(queue, "next")
    assert copies.get_item(queue).text == "old"
    assert copies.get_item(queue) == "next"
    queue.close()
    queue.join_thread()


# -- example07


@pytest.mark.parametrize(("n_items", "late"), [(1, "B"), (2, "A"), (3, "B")])
def test_one_consumer_comes_too_late_for_the_last_item(
    start_method: str, n_items: int, late: str
) -> None:
    tasks: Any = multiprocessing.SimpleQueue()
    for number in range(n_items):
        tasks.put(number)
    with askers.two_consumers(tasks) as consumers:
        stuck = askers.hold_in_the_gap(consumers, n_items)
        assert [one.name for one in stuck] == [late]
        got = [item for one in consumers for item in one.got]
        assert sorted(got) == list(range(n_items))
        assert not stuck[0].line.poll(0.02)
        tasks.put(99)  # it is in get(): what is put now, it gets
        assert stuck[0].read_step() == "gets"
        assert stuck[0].got[-1] == 99


def test_without_an_item_nobody_is_stuck(start_method: str) -> None:
    tasks: Any = multiprocessing.SimpleQueue()
    with askers.two_consumers(tasks) as consumers:
        assert askers.hold_in_the_gap(consumers, 0) == []
        assert [one.steps for one in consumers] == [["sees none, ends"]] * 2


def test_a_consumer_is_stuck_only_when_all_items_are_got() -> None:
    def consumer(step: str, *got: int) -> askers.Consumer:
        unused: Any = None
        return askers.Consumer("", unused, unused, ["sees an item", step], list(got))

    goes, gets = consumer("goes to get it", 1), consumer("gets 2", 2)
    assert askers.waiting_for_ever([goes, gets], 2) == [goes]
    assert askers.waiting_for_ever([goes, gets], 3) == []
    assert askers.waiting_for_ever([gets], 1) == []


def test_a_silent_consumer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(askers, "LIMIT", 0.01)
    line, other = multiprocessing.Pipe()
    process: Any = None
    with line, other, pytest.raises(TimeoutError, match="nothing from A"):
        askers.Consumer("A", process, line).read_step()


def test_a_queue_is_empty_until_its_feeder_has_written() -> None:
    assert askers.is_empty_before_the_feeder_writes()


# -- example08


def results(outcomes: list[pills.Outcome[Any]]) -> list[object]:
    return [one.value if one.error is None else type(one.error) for one in outcomes]


@pytest.mark.parametrize(("n_items", "n_workers"), [(0, 2), (1, 3), (7, 1), (100, 3)])
def test_each_item_has_one_outcome_in_order(
    start_method: str, n_items: int, n_workers: int
) -> None:
    items = iter(range(n_items))
    outcomes = process_all(operator.neg, items, n_workers)
    assert [one.result() for one in outcomes] == [-n for n in range(n_items)]


@settings(max_examples=15)
@given(st.lists(st.one_of(st.integers(-5, 5), st.just("no number"))), st.integers(1, 4))
def test_outcomes_are_what_a_loop_would_have(items: list[Any], n_workers: int) -> None:
    expected: list[object] = []
    for item in items:
        try:
            expected.append(math.sqrt(item))
        except Exception as error:
            expected.append(type(error))
    assert results(process_all(math.sqrt, items, n_workers)) == expected


def test_an_exception_is_surfaced_with_the_traceback_of_its_worker(
    start_method: str,
) -> None:
    (outcome,) = process_all(pills.halve, [3], 1)
    with pytest.raises(ValueError, match=r"^3 is odd") as raised:
        outcome.result()
    assert "in halve" in raised.value.__notes__[0]


def test_an_exception_that_cannot_be_restored_is_named(start_method: str) -> None:
    outcomes = process_all(pills.halve, [5, 4], 1)
    assert repr(outcomes[0].error) == "RuntimeError('RefusedError: 5: five divides it')"
    assert outcomes[1].result() == 2


def test_what_cannot_be_pickled_is_an_outcome() -> None:
    lock = threading.Lock()
    assert results(process_all(repr, [1, lock, 2], 2)) == ["1", TypeError, "2"]
    assert results(process_all(memoryview, [b"a", b"b"], 2)) == [TypeError] * 2
    assert results(process_all(repr, [lock] * 20, 2)) == [TypeError] * 20


def test_a_value_that_cannot_be_restored_is_an_outcome() -> None:
    # Its bytes are good, its unpickling is not.
    outcomes = process_all(partial(pills.RefusedError, 1), ["a", "b"], 1)
    assert results(outcomes) == [TypeError] * 2


def test_none_is_a_value() -> None:
    (outcome,) = process_all(print, [""], 1)
    assert outcome.result() is None


@pytest.mark.parametrize("n_workers", [1, 3])
def test_large_items_and_values_do_not_block_each_other(
    start_method: str, n_workers: int
) -> None:
    items = [bytes([n]) * 500_000 for n in range(20)]
    outcomes = process_all(bytes, items, n_workers)
    assert [one.result() for one in outcomes] == items


@pytest.mark.parametrize("n_workers", [1, 3])
def test_a_worker_that_dies_is_named_and_the_others_end(
    start_method: str, n_workers: int
) -> None:
    with pytest.raises(WorkerDiedError, match=r"worker \d died \(exit code 3\)"):
        process_all(pills.die_at_five, count(), n_workers)


@posix_only
def test_a_worker_that_is_killed_is_named(start_method: str) -> None:
    with pytest.raises(WorkerDiedError, match=r"exit code -9\), no .* items 0$"):
        process_all(signal.raise_signal, [signal.SIGKILL], 3)


def test_a_worker_that_exits_is_named() -> None:
    with pytest.raises(WorkerDiedError, match=r"exit code 0\), no .* items 0, 1$"):
        process_all(sys.exit, [0, 0], 1)


@posix_only
def test_half_an_outcome_is_not_waited_for(start_method: str) -> None:
    """A worker is killed while it writes more than the pipe holds; others go on."""

    def items() -> Iterator[int]:
        yield 50_000_000
        yield 1
        (victim,) = named.children_named("worker 0")
        yield 1
        os.kill(victim.pid or 0, signal.SIGKILL)
        yield from count()

    with pytest.raises(WorkerDiedError, match=r"exit code -9"):
        process_all(bytes, items(), 2)


def test_large_items_of_a_dead_worker_do_not_keep_the_program() -> None:
    program = """
from Chapter06.example08_poison_pills_fixed import WorkerDiedError, process_all
import sys

if __name__ == "__main__":
    try:
        process_all(sys.exit, [b"x" * 1_000_000] * 20, 2)
    except WorkerDiedError:
        print("dead")
"""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        timeout=LIMIT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    assert run.stdout == "dead\n"


def test_items_are_taken_only_as_fast_as_they_are_done() -> None:
    taken = count()
    with pytest.raises(WorkerDiedError):
        process_all(pills.die_at_five, taken, 1)
    assert next(taken) == 7


def test_what_the_items_raise_is_raised_and_the_workers_end(start_method: str) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("items")

    with pytest.raises(KeyError, match="items"):
        process_all(abs, items(), 2)


def test_who_is_killed_while_idle_may_have_locked_out_the_rest() -> None:
    """All outcomes are there, so nobody waits for workers that cannot take a pill."""
    killed, locked_out = (
        multiprocessing.Process(target=time.sleep, args=(600,)) for _ in range(2)
    )
    killed.start()
    locked_out.start()
    killed.kill()
    waits = threading.Thread(
        target=pills._wait_until_ended, args=([locked_out, killed],), daemon=True
    )
    waits.start()
    waits.join(LIMIT)
    still_waits = waits.is_alive()
    locked_out.kill()
    locked_out.join()
    killed.join()
    assert not still_waits


@pytest.mark.parametrize("n_workers", [0, -1])
def test_there_must_be_a_worker(n_workers: int) -> None:
    with pytest.raises(ValueError, match=f"not {n_workers}"):
        process_all(abs, [], n_workers)


@pytest.mark.parametrize(
    ("module", "option", "culprit"),
    [
        (two, "--numbers=1", "at least 2, not 1"),
        (pills, "--items=4", "at least 5, not 4"),
        (pills, "--workers=0", "at least 1, not 0"),
        (pills, "--workers=62", "at most 61, not 62"),
        (pills, "--items=x", "'x'"),
    ],
)
def test_bad_options_are_refused(
    module: ModuleType, option: str, culprit: str, complaint: Callable[..., str]
) -> None:
    assert culprit in complaint(module, option)


# -- the scripts say so when a claim does not show


def replies(*answers: Any) -> Callable[..., Any]:
    """Return a function that gives one answer after the other."""
    given = iter(answers)
    return lambda *_, **__: next(given)


@pytest.mark.parametrize(
    ("module", "name", "replacement", "claim"),
    [
        (two, "add_up_together", replies([two.Report("A", 1, 1, [])] * 2), "its own"),
        (
            daemons,
            "watch",
            replies(daemons.Observed(False, ["begun"], 0)),
            "to have begun, done, cleaned up",
        ),
        (copies, "change_before_pickling", copies.change_after_pickling, "as it was"),
        (copies, "lost_in_the_feeder", replies(([], "x")), "was to be lost"),
        (askers, "hold_in_the_gap", replies([]), "B was to come too late"),
        (
            askers,
            "is_empty_before_the_feeder_writes",
            replies(False),
            "was to overlook",
        ),
        (pills, "process_all", replies([pills.Outcome(1, None)]), "in its place"),
    ],
)
def test_a_claim_that_does_not_show_fails_the_script(
    module: ModuleType,
    name: str,
    replacement: object,
    claim: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, name, replacement)
    monkeypatch.setattr(sys, "argv", ["script"])
    with pytest.raises(SystemExit, match=claim):
        module.main()
