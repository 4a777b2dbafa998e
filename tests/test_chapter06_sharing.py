"""Chapter 6, examples 9 to 14 and 17: the parts a reader would copy."""

import multiprocessing
import os
import pickle
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from ctypes import c_longlong
from functools import partial
from multiprocessing.managers import SyncManager
from multiprocessing.pool import Pool
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from types import ModuleType
from typing import Any

import example09_pipe as pipes
import example10_shared_counter as counters
import example11_shared_memory_block as blocks
import example12_manager as managers
import example13_chunk_size_against_throughput as chunks
import example14_queues_compared as queues
import example17_what_cannot_be_pickled as pickles
import pytest
from child_tasks import LookerManager, die, double, fail
from hypothesis import given
from hypothesis import strategies as st

LIMIT = 30.0  # seconds that a test waits for what must come


@contextmanager
def no_process_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


# -- example09: pipes


def test_server_answers_each_request_and_ends_with_the_block(start_method: str) -> None:
    with no_process_is_left(), pipes.server_process(double) as server:
        for request in (1, 5, -3):
            server.send(request)
            assert server.poll(LIMIT)
            assert server.recv() == 2 * request


def test_client_of_a_server_that_dies_is_told(start_method: str) -> None:
    with no_process_is_left(), pipes.server_process(die) as server:
        server.send(1)
        assert server.poll(LIMIT), "the end of file does not come"
        with pytest.raises((EOFError, ConnectionResetError)):
            server.recv()


def test_server_ends_when_its_client_has_closed(start_method: str) -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(
        target=pipes.serve_with_one_end, args=(double, theirs, ours)
    )
    with ours, theirs:
        process.start()
        theirs.close()
        ours.close()
        process.join(LIMIT)
        code = process.exitcode
        process.kill()
        process.join()
    assert code == 0


def test_no_process_is_left_when_the_client_fails() -> None:
    with (
        no_process_is_left(),
        pytest.raises(ZeroDivisionError),
        pipes.server_process(double) as server,
    ):
        server.send(1 // 0)


def test_an_end_is_told_from_a_pause_and_from_a_message() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver, sender:
        assert not pipes.has_ended(receiver)
        sender.send("message")
        with pytest.raises(ValueError, match="a message"):
            pipes.has_ended(receiver)
        sender.close()
        assert pipes.has_ended(receiver)


def test_each_copy_of_an_end_holds_back_the_end_of_file(start_method: str) -> None:
    assert pipes.ends_seen_by_parent() == (False, True)
    assert pipes.ends_seen_by_child(give_it_our_end=True) == [False, True]
    inherits = start_method == "fork"
    assert pipes.ends_seen_by_child(give_it_our_end=False) == [not inherits]


def test_send_pickles_and_send_bytes_does_not() -> None:
    assert pipes.under_way("send_bytes", b"0123456789") == 10
    assert pipes.under_way("send", b"0123456789") > 10


def test_records_of_two_writers_mix_unless_they_take_a_lock(start_method: str) -> None:
    both = multiprocessing.Barrier(2)
    assert pipes.count_mixed_up(1, nullcontext(), both.wait) == 2
    assert pipes.count_mixed_up(50, multiprocessing.Lock()) == 0


def test_writer_holds_the_lock_from_the_first_message_to_the_second() -> None:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    lock = threading.Lock()
    held = []
    with receiver, sender:
        pipes.write_records(sender, "A", 2, lock, lambda: held.append(lock.locked()))
        assert held == [True, True]
        assert [receiver.recv() for _ in range(4)] == ["A", "text of A"] * 2
    assert not lock.locked()


@pytest.mark.skipif(sys.platform == "win32", reason="needs non-blocking pipes")
@pytest.mark.parametrize("duplex", [False, True])
def test_a_full_pipe_holds_what_was_counted(duplex: bool) -> None:
    receiver, sender = multiprocessing.Pipe(duplex)
    with receiver, sender:
        size = pipes.capacity(sender)
        with pytest.raises(BlockingIOError):
            os.write(sender.fileno(), b"x")
        got = 0
        while receiver.poll():
            got += len(os.read(receiver.fileno(), 2**20))
    assert got == size > 0


def test_two_who_send_first_wait_for_each_other(start_method: str) -> None:
    with no_process_is_left(), pytest.raises(pipes.DeadlockError):
        pipes.let_swap(True, True)


@pytest.mark.parametrize("orders", [(True, False), (False, True)])
def test_one_who_receives_first_is_enough(orders: tuple[bool, bool]) -> None:
    with no_process_is_left():
        pipes.let_swap(*orders)


# -- example10: shared counters


class WatchedCounter:
    """A counter that notes whether its lock was held whenever it was accessed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entered = 0
        self.held: list[bool] = []
        self._value = 0

    @contextmanager
    def get_lock(self) -> Iterator[None]:
        with self.lock:
            self.entered += 1
            yield

    @property
    def value(self) -> int:
        self.held.append(self.lock.locked())
        return self._value

    @value.setter
    def value(self, value: int) -> None:
        self.held.append(self.lock.locked())
        self._value = value


@pytest.mark.parametrize(("n_processes", "n"), [(2, 1), (3, 10)])
def test_of_each_round_one_addition_remains(
    n_processes: int, n: int, start_method: str
) -> None:
    counter = multiprocessing.Value("q", 0)
    amount = counters.OneWhenAllHaveRead(multiprocessing.Barrier(n_processes))
    counters.in_processes(n_processes, counters.add_without_lock, counter, n, amount)
    assert counter.value == n


def test_an_addition_between_read_and_write_is_lost() -> None:
    counter = multiprocessing.Value("q", 0)

    def let_one_in() -> int:
        counters.add_with_lock(counter, 1)
        return 1

    counters.add_without_lock(counter, 1, let_one_in)
    assert counter.value == 1


def test_all_mends_lose_nothing(start_method: str) -> None:
    counter = multiprocessing.Value("q", 0)
    for add in (counters.add_with_lock, counters.add_once):
        counter.value = 0
        counters.in_processes(3, add, counter, 100)
        assert counter.value == 300
    raw, lock = RawValue(c_longlong, 0), multiprocessing.Lock()
    counters.in_processes(3, counters.add_to_raw, raw, lock, 100)
    assert raw.value == 300


def test_lock_is_held_from_the_read_to_the_write() -> None:
    counter: Any = WatchedCounter()
    counters.add_with_lock(counter, 3)
    assert (counter.value, counter.entered) == (3, 3)
    assert counter.held[:-1] == [True] * 6

    counter = WatchedCounter()
    counters.add_to_raw(counter, counter.lock, 3)
    assert counter.value == 3
    assert counter.held[:-1] == [True] * 6

    counter = WatchedCounter()
    counters.add_once(counter, 3)
    assert (counter.value, counter.entered) == (3, 1)
    assert counter.held[:-1] == [True] * 2


@pytest.mark.parametrize("start_method", ["spawn"], indirect=True)
@pytest.mark.usefixtures("start_method")
def test_a_process_that_fails_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    with no_process_is_left(), pytest.raises(RuntimeError, match="fail failed"):
        counters.in_processes(2, fail)
    assert "on purpose" in capfd.readouterr().err


# -- example11: shared memory


def test_block_is_gone_after_its_end_and_after_an_exception() -> None:
    with blocks.shared_block(1) as block:
        assert blocks.is_there(block.name)
    assert not blocks.is_there(block.name)
    with pytest.raises(ZeroDivisionError), blocks.shared_block(1) as block:
        1 // 0  # noqa: B018
    assert not blocks.is_there(block.name)


def test_block_is_removed_even_if_a_view_of_it_is_alive() -> None:
    with ExitStack() as stack:
        block = stack.enter_context(blocks.shared_block(8))
        assert block.buf is not None
        view = block.buf[:1]
        with pytest.raises(BufferError):
            stack.close()
    assert not blocks.is_there(block.name)
    view.release()
    block.close()


def test_what_is_not_there_cannot_be_attached() -> None:
    with pytest.raises(FileNotFoundError), blocks.attached("no_such_block"):
        pass


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_words_are_found_as_they_were_written(numbers: list[int]) -> None:
    n = len(numbers)
    with blocks.shared_block(n * blocks.WORD) as block:
        with blocks.words_of(block, n) as words:
            for i, number in enumerate(numbers):
                words[i] = number
        with (
            blocks.attached(block.name) as other,
            blocks.words_of(other, n) as words,
        ):
            assert words.tolist() == numbers
    assert not blocks.is_there(block.name)


@pytest.mark.parametrize("n_words", [1, 1000])
def test_child_writes_what_its_parent_reads(n_words: int, start_method: str) -> None:
    assert blocks.sum_written_by_child(n_words) == sum(range(n_words))


def test_who_is_attached_goes_on_after_unlink() -> None:
    assert blocks.use_after_unlink() == (7, sys.platform == "win32")


def test_a_killed_worker_leaves_what_it_wrote_and_no_block(start_method: str) -> None:
    with no_process_is_left():
        assert blocks.kill_who_holds_it() == (7, False)


@pytest.mark.skipif(sys.platform == "win32", reason="needs the resource tracker")
def test_tracker_removes_what_was_forgotten_and_complains() -> None:
    complaint, there = blocks.leak()
    assert "leaked shared_memory" in complaint
    assert not there


STRANGER = """
import sys
sys.path.insert(0, sys.argv[1])
from Chapter06.example11_shared_memory_block import attached, words_of
with attached(sys.argv[2]) as block, words_of(block, 1) as words:
    words[0] = 7
"""


@pytest.mark.skipif(sys.version_info < (3, 13), reason="needs track=False")
def test_a_program_that_only_attaches_does_not_remove_the_block() -> None:
    root = Path(blocks.__file__).parent.parent
    with blocks.shared_block(blocks.WORD) as block:
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, root, block.name],
            capture_output=True,
            check=True,
        )
        assert done.stderr == b""
        assert blocks.is_there(block.name)
        with blocks.words_of(block, 1) as words:
            assert words[0] == 7


def test_a_record_is_torn_without_a_lock_and_whole_with_one(start_method: str) -> None:
    with blocks.shared_block(2 * blocks.WORD) as block:
        assert blocks.read_meanwhile(block.name, None) == [1, 0]
    with blocks.shared_block(2 * blocks.WORD) as block:
        lock = multiprocessing.Lock()
        assert blocks.read_meanwhile(block.name, lock) == [1, 1]


def test_writer_holds_the_lock_between_the_words() -> None:
    lock = threading.Lock()
    held = []
    with blocks.shared_block(2 * blocks.WORD) as block:
        blocks.write_record(block.name, 3, lock, lambda: held.append(lock.locked()))
        with blocks.words_of(block, 2) as record:
            assert record.tolist() == [3, 3]
    assert held == [True]


def test_array_and_list_are_filled_by_a_child(start_method: str) -> None:
    assert blocks.filled_by_child() == ([0, 1, 4, 9], [2, "done", 0.5, None])


# -- example12: managers


def test_a_copy_is_not_what_it_was_copied_from(start_method: str) -> None:
    with no_process_is_left(), managers.started(SyncManager()) as manager:
        assert managers.entries_that_arrive(manager, [5, 6]) == [0, 2, 2]


def test_additions_through_a_proxy_are_lost_without_a_lock(start_method: str) -> None:
    with managers.started(SyncManager()) as manager:
        shared = manager.dict(n=0)
        amount = managers.OneWhenAllHaveRead(multiprocessing.Barrier(2))
        add = managers.add_to_dict
        managers.in_processes(2, add, shared, 5, nullcontext(), amount)
        assert shared["n"] == 5
        shared["n"] = 0
        managers.in_processes(2, add, shared, 20, manager.Lock(), managers.one)
        assert shared["n"] == 40


def test_lock_of_a_dict_is_held_while_the_amount_is_computed() -> None:
    lock = threading.Lock()
    shared = {"n": 0}
    managers.add_to_dict(shared, 3, lock, lambda: int(lock.locked()))
    assert shared["n"] == 3


def test_tally_counts_what_all_processes_add(start_method: str) -> None:
    managers.register_tally()
    with no_process_is_left(), managers.started(managers.TallyManager()) as manager:
        tally = manager.make_tally()
        managers.in_processes(3, managers.add_to_tally, tally, 20)
        assert tally.total() == 60
        assert not hasattr(tally, "reset")


def test_tally_takes_its_lock() -> None:
    tally = managers.Tally()
    done = threading.Event()

    def add() -> None:
        tally.add(1)
        done.set()

    thread = threading.Thread(target=add)
    with tally._lock:
        thread.start()
        assert not done.wait(0.05)
        assert tally._total == 0
    thread.join(LIMIT)
    assert tally.total() == 1


def test_a_manager_ignores_ctrl_c(start_method: str) -> None:
    with managers.started(LookerManager()) as manager:
        assert manager.make_looker().ignores_ctrl_c()


def test_a_manager_that_is_gone_cannot_be_asked(start_method: str) -> None:
    with (
        suppress(ZeroDivisionError),
        no_process_is_left(),
        managers.started(SyncManager()) as manager,
    ):
        shared = manager.dict(n=1)
        assert managers.can_be_called(lambda: shared["n"])
        1 // 0  # noqa: B018
    assert not managers.can_be_called(lambda: shared["n"])


def test_a_manager_that_is_killed_cannot_be_asked() -> None:
    managers.register_tally()
    manager = managers.TallyManager(("127.0.0.1", 0))
    with managers.started(manager):
        tally = manager.make_tally()
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        assert not managers.can_be_called(tally.total)


# -- example13: chunk sizes


def test_collatz_lengths_are_those_of_the_books() -> None:
    assert [chunks.collatz_length(n) for n in (1, 2, 3, 6, 27)] == [0, 1, 7, 8, 111]


@pytest.mark.parametrize("n_workers", [1, 3])
def test_default_is_that_of_pool_map(
    n_workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def get_tasks(
        function: Callable[..., object], items: Sequence[object], size: int
    ) -> Iterator[object]:
        sizes.append(size)
        return iter(())

    counts = [1, 11, 12, 13, 100]
    with chunks.classic_pool(n_workers) as pool:
        monkeypatch.setattr(Pool, "_get_tasks", get_tasks)
        for n in counts:
            pool.map_async(abs, range(n))
    assert sizes == [chunks.default_chunk_size(n, n_workers) for n in counts]


@given(st.integers(1, 10**6), st.integers(1, 61))
def test_chunk_sizes_go_from_one_to_all(n_tasks: int, n_workers: int) -> None:
    sizes = chunks.chunk_sizes(n_tasks, n_workers)
    assert sizes == sorted(set(sizes))
    assert (sizes[0], sizes[-1]) == (1, n_tasks)
    default = chunks.default_chunk_size(n_tasks, n_workers)
    assert default in sizes
    others = [size for size in sizes if size not in (default, n_tasks)]
    assert all(str(size).rstrip("0") in ("1", "2", "5") for size in others)


def test_both_pools_are_measured_with_all_sizes(start_method: str) -> None:
    with no_process_is_left():
        throughput = chunks.measure(12, 2)
    assert throughput.defaults == {chunks.POOL: 2, chunks.EXECUTOR: 1}
    assert throughput.alone > 0
    for rates in throughput.pools.values():
        assert list(rates) == chunks.chunk_sizes(12, 2) == [1, 2, 5, 10, 12]
        assert min(rates.values()) > 0


def test_the_best_is_the_fastest() -> None:
    throughput = chunks.Throughput(1.0, {"a": {1: 2.0, 5: 9.0, 10: 3.0}}, {"a": 1})
    assert throughput.best("a") == 5


def test_another_result_stops_the_measurement() -> None:
    with pytest.raises(ValueError, match="another result"):
        chunks.fastest(lambda: [1], [2])


def test_pools_differ_as_the_table_says(start_method: str) -> None:
    error = "ZeroDivisionError"
    with no_process_is_left():
        assert chunks.what_a_pool_does() == ([1.0, error, 0.5], "TimeoutError", False)
        did = chunks.what_an_executor_does()
        assert did == ([1.0, error], "BrokenProcessPool", True)


# -- example14: queues


@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=2, unique=True))
def test_checksum_tells_order_and_items(items: list[int]) -> None:
    assert queues.checksum(items) == queues.checksum(list(items))
    assert queues.checksum(items) != queues.checksum(items[:-1])
    if items != items[::-1]:
        assert queues.checksum(items) != queues.checksum(items[::-1])


@given(st.integers(0, 30), st.integers(1, 12))
def test_all_that_is_produced_is_consumed(n_items: int, batch: int) -> None:
    channel = queue.SimpleQueue[Any]()
    said = queue.SimpleQueue[Any]()
    queues.produce(channel.put, n_items, batch, said.put, lambda: None)
    messages = n_items if batch == 1 else -(-n_items // batch)
    assert channel.qsize() == messages + 1
    queues.consume(channel.get, batch, said.put)
    got = [said.get_nowait() for _ in range(4)]
    checksum = queues.checksum(range(n_items))
    assert got == ["ready", "ready", "got all", checksum]


def test_what_arrives_otherwise_is_refused() -> None:
    said = iter(["ready", "ready", "got all", queues.checksum([0, 2, 1])])
    with pytest.raises(ValueError, match="not what was put"):
        queues.transfer(lambda _: None, partial(next, said), 3)


@pytest.mark.parametrize("channel", [queue.SimpleQueue, queue.Queue])
def test_threads_hand_over_all(
    channel: type["queue.SimpleQueue[Any] | queue.Queue[Any]"],
) -> None:
    before = threading.active_count()
    assert queues.between_threads(channel(), 100) > 0
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("channel", "batch"),
    [
        (queues.simple_queue, 1),
        (queues.full_queue, 1),
        (queues.pipe, 1),
        (queues.pipe, 30),
        (queues.managed_queue, 1),
    ],
)
def test_processes_hand_over_all(
    channel: Callable[[], Any], batch: int, start_method: str
) -> None:
    with no_process_is_left():
        assert queues.between_processes(channel(), 100, batch) > 0


# -- example17: pickling


def round_trip(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


def test_what_travels_is_told_from_what_does_not() -> None:
    assert pickles.why_not({"a": [1, None]}) is None
    assert pickles.why_not(pickles.power) is None
    assert "generator" in str(pickles.why_not(pickles.make_generator()))


def test_each_impossible_thing_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (tmp_path / "file").open() as file:
        things = pickles.impossible(file, multiprocessing.Lock())
        for thing, named in things.values():
            assert named in str(pickles.why_not(thing))


def test_what_is_done_instead_travels_and_has_its_result(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one\ntwo\n", "utf-8")
    source = pickles.OpenFile(path)
    mends = pickles.instead(source, 2)
    source.close()
    pickles.Shared.lock = multiprocessing.Lock()
    for task, expected in mends.values():
        assert round_trip(task)() == expected


def test_journal_travels_with_its_lines_and_a_lock_of_its_own() -> None:
    journal = pickles.Journal(["first"])
    copy = round_trip(journal)
    assert (copy.add("second"), copy.add("third")) == (2, 3)
    assert journal.add("another") == 2
    assert copy._lock is not journal._lock


def test_journal_is_pickled_under_its_lock() -> None:
    journal = pickles.Journal()
    done = threading.Event()

    def travel() -> None:
        round_trip(journal)
        done.set()

    thread = threading.Thread(target=travel)
    with journal._lock:
        thread.start()
        assert not done.wait(0.05)
    thread.join(LIMIT)
    assert done.is_set()


def test_mended_exception_keeps_what_it_knows() -> None:
    error = round_trip(pickles.MendedQuotaError("Ada", 3))
    assert (error.user, error.limit, str(error)) == ("Ada", 3, "Ada may keep 3")
    assert pickles.why_not(pickles.QuotaError("Ada", 3)) is not None


def test_errors_show_where_the_table_says(start_method: str) -> None:
    lock, hook = multiprocessing.Lock(), threading.excepthook
    with no_process_is_left():
        in_executor = pickles.errors_in_executor(lock)
        in_pool = pickles.errors_in_pool(lock)
    names = ["TypeError", "TypeError", "MendedQuotaError", "BrokenProcessPool"]
    assert in_executor == names
    names = ["TypeError", "MaybeEncodingError", "MendedQuotaError", "TimeoutError"]
    assert in_pool == names
    assert threading.excepthook is hook


def test_queue_drops_what_it_cannot_pickle(capfd: pytest.CaptureFixture[str]) -> None:
    items = [pickles.make_generator(), pickles.make_function(), "the next"]
    arrived, printed = pickles.through_queue(items)
    assert arrived == "the next"
    assert printed.count("Traceback") == 2
    assert capfd.readouterr().err == ""


# -- what all of them have


@pytest.mark.parametrize(
    ("module", "arguments", "culprit"),
    [
        (pipes, ["--records", "0"], "must be at least 1, not 0"),
        (counters, ["--processes", "1"], "must be in 2 … 50, not 1"),
        (counters, ["--additions", "-1"], "must be at least 1, not -1"),
        (blocks, ["--words", "0"], "must be in 1 … 10,000,000, not 0"),
        (managers, ["--processes", "51"], "must be in 2 … 50, not 51"),
        (managers, ["--additions", "x"], "invalid positive value: 'x'"),
        (chunks, ["--tasks", "0"], "must be at least 1, not 0"),
        (chunks, ["--workers", "62"], "must be at most 61, not 62"),
        (chunks, ["--plot", "x.txt"], "must end in .png, .svg or .pdf: x.txt"),
        (queues, ["--times", "101"], "must be in 1 … 100, not 101"),
        (pickles, ["--x"], "unrecognized arguments: --x"),
    ],
)
def test_bad_arguments_get_one_clear_line(
    module: ModuleType,
    arguments: list[str],
    culprit: str,
    complaint: Callable[..., str],
) -> None:
    assert culprit in complaint(module, *arguments)
