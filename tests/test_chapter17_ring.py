"""Chapter 17, example14: the ring in shared memory, between threads and processes."""

import ctypes
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.shared_memory import SharedMemory
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import child_tasks
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

pytest.importorskip("llvmlite")
import example14_ring_between_processes as rings
from example14_ring_between_processes import SharedRing, shared_ring
from native_atomics import AtomicInt64

LIMIT = 30.0  # seconds that a test waits for what must come


# -- one thread at both ends


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(1, 20), st.lists(st.booleans()), st.data())
def test_a_ring_is_a_queue_of_limited_size(
    n_slots: int, size: int, puts: list[bool], data: st.DataObject
) -> None:
    model = deque[bytes]()
    with shared_ring(n_slots, size) as name, SharedRing(name) as ring:
        for is_put in puts:
            if is_put and len(model) == n_slots:
                with pytest.raises(TimeoutError):
                    ring.put(b"", 0)
            elif is_put:
                model.append(data.draw(st.binary(max_size=size)))
                ring.put(model[-1], 0)
            elif model:
                assert ring.get(0) == model.popleft()
            else:
                with pytest.raises(TimeoutError):
                    ring.get(0)


@pytest.mark.parametrize("size", [1, 7, 8, 9, 1000])
def test_messages_of_all_lengths_leave_their_neighbours_alone(size: int) -> None:
    messages = [bytes([n]) * length for n, length in enumerate((size, 0, size, size))]
    with shared_ring(4, size) as name, SharedRing(name) as ring:
        assert ring.slot_size == size
        for message in messages:
            ring.put(message, 0)
        assert [ring.get(0) for _ in messages] == messages


def test_a_message_that_is_too_long_is_refused_and_harms_nothing() -> None:
    with shared_ring(2, 5) as name, SharedRing(name) as ring:
        ring.put(b"12345", 0)
        with pytest.raises(ValueError, match="6 bytes in a slot of 5"):
            ring.put(b"123456", 0)
        ring.put(b"", 0)
        assert [ring.get(0), ring.get(0)] == [b"12345", b""]


@pytest.mark.parametrize(("n_slots", "size"), [(0, 8), (-1, 8), (1, 0), (1, -8)])
def test_a_ring_needs_a_slot_with_room(n_slots: int, size: int) -> None:
    with pytest.raises(ValueError, match="a ring of"), shared_ring(n_slots, size):
        pass


def test_only_bytes_can_be_put() -> None:
    with shared_ring(2, 8) as name, SharedRing(name) as ring:
        with pytest.raises(ctypes.ArgumentError):
            ring.put("text", 0)  # type: ignore[arg-type]
        with pytest.raises(TimeoutError):
            ring.get(0)


def test_who_comes_later_goes_on_where_the_other_one_was() -> None:
    with shared_ring(3, 8) as name, SharedRing(name) as producer:
        first, second = SharedRing(name), SharedRing(name)
        with first, second:
            for n in range(5):
                producer.put(b"%d" % n, 0)
                assert (first, second)[n % 2].get(0) == b"%d" % n


# -- the end


def test_after_the_end_messages_can_be_taken_but_not_put() -> None:
    with shared_ring(3, 8) as name, SharedRing(name) as consumer:
        with SharedRing(name) as producer:
            producer.put(b"one", 0)
            producer.put(b"two", 0)
        assert [consumer.get(0), consumer.get(0)] == [b"one", b"two"]
        with pytest.raises(EOFError):
            consumer.get(LIMIT)
        with pytest.raises(BrokenPipeError):
            consumer.put(b"three", LIMIT)


def test_a_producer_whose_consumer_has_gone_is_told() -> None:
    with shared_ring(3, 8) as name, SharedRing(name) as producer:
        with SharedRing(name):
            producer.put(b"one", 0)
        with pytest.raises(BrokenPipeError):
            producer.put(b"two", LIMIT)


def test_outside_of_its_block_an_object_touches_no_memory_that_is_gone() -> None:
    with shared_ring(2, 8) as name:
        before, after = SharedRing(name), SharedRing(name)
        with after:
            after.put(b"one", 0)
    for ring in before, after:
        with pytest.raises(EOFError):
            ring.get(LIMIT)
        with pytest.raises(BrokenPipeError):
            ring.put(b"two", LIMIT)
        ring.close()


@pytest.mark.parametrize("fails", [False, True])
def test_the_memory_is_gone_after_the_block(fails: bool) -> None:
    def use() -> None:
        with shared_ring(2, 8) as name, SharedRing(name) as ring:
            names.append(name)
            ring.put(b"one", 0)
            if fails:
                raise ArithmeticError

    names: list[str] = []
    if fails:
        with pytest.raises(ArithmeticError):
            use()
    else:
        use()
    with pytest.raises(FileNotFoundError):
        SharedMemory(names[0])


# -- waiting


def test_who_waits_is_asleep_for_longer_and_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        pauses.append(seconds)
        now += seconds

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with (
        shared_ring(2, 8) as name,
        SharedRing(name) as ring,
        pytest.raises(TimeoutError, match=r"for 0\.5 s"),
    ):
        ring.get(0.5)
    assert pauses == sorted(pauses)
    assert pauses[0] == rings.SHORTEST
    assert pauses[-1] == rings.LONGEST
    assert sum(pauses) == pytest.approx(0.5, abs=2 * rings.LONGEST)


def test_what_comes_while_one_waits_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with shared_ring(1, 8) as name, SharedRing(name) as ring:
        monkeypatch.setattr(time, "sleep", lambda _: ring.put(b"late", 0))
        assert ring.get(LIMIT) == b"late"
        ring.put(b"one", 0)
        monkeypatch.setattr(time, "sleep", lambda _: ring.get(0))
        ring.put(b"two", LIMIT)
        assert ring.get(0) == b"two"


def test_what_the_dead_have_left_is_not_lost() -> None:
    """The last message comes after the looks, and just before the death."""

    def dies_after_a_last_message() -> bool:
        if not died:
            died.append(True)
            producer.put(b"last", 0)
        return False

    died: list[bool] = []
    with (
        shared_ring(1, 8) as name,
        SharedRing(name) as producer,
        SharedRing(name, dies_after_a_last_message) as consumer,
    ):
        assert consumer.get(LIMIT) == b"last"
        with pytest.raises(ConnectionResetError):
            consumer.get(LIMIT)
        producer.put(b"one", 0)
        with pytest.raises(ConnectionResetError):
            consumer.put(b"two", LIMIT)  # an end for the producer, too


def test_what_was_put_just_before_the_close_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class ClosedAtTheLastMoment(AtomicInt64):
        def load(self, ordering: Any = "seq_cst") -> int:
            monkeypatch.undo()
            producer.put(b"last", 0)
            producer.close()
            return super().load(ordering)

    with (
        shared_ring(1, 8) as name,
        SharedRing(name) as producer,
        SharedRing(name) as consumer,
    ):
        monkeypatch.setattr(rings, "AtomicInt64", ClosedAtTheLastMoment)
        assert consumer.get(LIMIT) == b"last"
        with pytest.raises(EOFError):
            consumer.get(LIMIT)


# -- threads and processes


@pytest.mark.parametrize("n_slots", [1, 2, 3, 1000])
def test_all_messages_come_once_and_in_order(n_slots: int) -> None:
    messages = rings.messages_to_send(1000)

    def produce(name: str) -> None:
        with SharedRing(name) as producer:
            for message in messages:
                producer.put(message, LIMIT)

    with (
        no_thread_is_left(),
        shared_ring(n_slots, 32) as name,
        SharedRing(name) as consumer,
        ThreadPoolExecutor(1) as pool,
    ):
        future = pool.submit(produce, name)
        assert rings.get_until_the_end(consumer)[0] == messages
        future.result(LIMIT)


def test_processes_of_each_start_method_share_a_ring(start_method: str) -> None:
    with shared_ring(2, 8) as closed, shared_ring(3, 8) as killed:
        process = multiprocessing.Process(target=rings.put_three, args=(closed, killed))
        with rings.running([process]):
            for name, end in ((closed, EOFError), (killed, ConnectionResetError)):
                with SharedRing(name, process.is_alive) as ring:
                    messages, error = rings.get_until_the_end(ring)
                assert (messages, type(error)) == (rings.THREE, end)
    assert process.exitcode not in {0, None}


def test_links_of_each_kind_are_compared(start_method: str) -> None:
    found = rings.compare(1000)
    assert tuple(found) == rings.KINDS
    assert all(one.rate > 0 and one.round_trip > 0 for one in found.values())


# -- the script


def report_a_loss(ends: rings.Ends, n: int, report: Connection) -> None:
    report.send(rings.Measurement(1.0, 1.0, False))


def test_messages_that_come_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rings, "measure", report_a_loss)
    monkeypatch.setattr(rings, "answer", child_tasks.die)
    with pytest.raises(SystemExit, match="ring: what came is not what was sent"):
        run_main(rings, monkeypatch)


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "measure", child_tasks.die)
    with pytest.raises(SystemExit, match="ring: a process does not go on"):
        run_main(rings, monkeypatch)


class Threads:
    """Two ends of one link, between threads, which changes messages of one kind."""

    def __init__(self, wrong: bytes) -> None:
        self._there, self._back = SimpleQueue[bytes](), SimpleQueue[bytes]()
        self._wrong = wrong

    def end(self, is_ours: bool) -> Any:
        def put(message: bytes) -> None:
            outgoing.put(message if message != self._wrong else b"wrong")

        outgoing, incoming = self._there, self._back
        if not is_ours:
            outgoing, incoming = incoming, outgoing

        @contextmanager
        def links() -> Iterator[list[rings.Link]]:
            yield [rings.Link(put, partial(incoming.get, timeout=LIMIT))]

        return SimpleNamespace(links=links)


# Message 250 is one of 300, message 150 comes back only, message 350 never comes.
@pytest.mark.parametrize(
    ("n", "wrong", "intact"), [(300, 250, False), (100, 150, False), (300, 350, True)]
)
def test_one_wrong_message_is_noticed(n: int, wrong: int, intact: bool) -> None:
    link = Threads(rings.messages_to_send(400)[wrong])
    reported: list[rings.Measurement] = []
    report: Any = SimpleNamespace(send=reported.append)
    with no_thread_is_left(), ThreadPoolExecutor(1) as pool:
        future = pool.submit(rings.answer, link.end(False), n)
        rings.measure(link.end(True), n, report)
        future.result(LIMIT)
    assert [one.intact for one in reported] == [intact] * rings.ROUNDS


def test_an_end_that_is_not_seen_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [b"one"], EOFError()
    monkeypatch.setattr(rings, "get_until_the_end", lambda ring: seen)
    with pytest.raises(SystemExit, match=r"closed: .*, and then EOFError"):
        run_main(rings, monkeypatch)


def test_a_wait_that_is_not_given_up_is_told() -> None:
    with pytest.raises(SystemExit, match="empty: a wait was to be given up"):
        rings.wait_in_vain("empty", lambda: b"something")


@pytest.mark.parametrize("number", ["0", "100001", "many"])
def test_a_number_of_messages_that_cannot_be_is_refused(
    complaint: Callable[..., str], number: str
) -> None:
    assert "--messages" in complaint(rings, "--messages", number)
