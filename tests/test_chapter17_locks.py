"""Chapter 17, locks made of atomic numbers: the parts a reader would copy."""

import ctypes
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

pytest.importorskip("llvmlite")

import cores
import example10_spin_locks as spins
import example11_seqlock as seqlocks
import example12_aba as aba
import example15_spin_lock_between_processes as patient
import shared_block as blocks
from example11_seqlock import SharedRecord
from example12_aba import SlotStack
from example15_spin_lock_between_processes import SpinLock
from native_atomics import AtomicInt64
from shared_block import attached, process_pool, shared_block

LIMIT = 30.0  # seconds that a test waits for what must come

two_cores = pytest.mark.skipif(cores.usable_cores() < 2, reason="needs two cores")
few = settings(max_examples=30)


class Memory:
    """Zeros that stay where they are."""

    def __init__(self, n_words: int = 64) -> None:
        self.words = (ctypes.c_int64 * n_words)()
        self.address = ctypes.addressof(self.words)


@contextmanager
def nothing_is_left() -> Iterator[None]:
    with no_thread_is_left():
        yield
    assert multiprocessing.active_children() == []


class Idle(ThreadPoolExecutor):
    """Does nothing that it is asked to do."""

    def submit(self, fn: Callable[..., Any], /, *_: Any, **__: Any) -> Future[Any]:
        return super().submit(int)


class CtrlCAmidResult(ThreadPoolExecutor):
    """Lets Ctrl-C come while its first future is waited for; tells who has waited."""

    waited: ClassVar[list[bool]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **__: Any) -> Future[Any]:
        def result(timeout: float | None = None) -> Any:
            signal.raise_signal(signal.SIGINT)
            outcome = usual(timeout)
            self.waited.append(True)
            return outcome

        future = super().submit(fn, *args)
        usual, future.result = future.result, result  # type: ignore[method-assign]
        return future


class Nobody(Executor):
    """Others who never do what they are asked to."""

    def submit(self, fn: Callable[..., Any], /, *_: Any, **__: Any) -> Future[Any]:
        return Future()


def in_a_block(use: Callable[[Executor, str], object]) -> None:
    with shared_block(2048) as block, CtrlCAmidResult(1) as others:
        use(others, block)


@two_cores
@pytest.mark.parametrize(
    "use",
    [
        blocks.demonstrate,
        partial(seqlocks.read_amid_writes, True),
        partial(aba.pop_among_others, 0),
        partial(
            in_a_block, lambda others, block: spins.contend(others, block, "no_lock")
        ),
        partial(
            in_a_block, lambda others, block: seqlocks.read_beside(others, block, True)
        ),
        partial(in_a_block, lambda others, block: aba.breaks(others, block, 1, 1)),
        partial(in_a_block, lambda others, block: patient.demonstrate(block, others)),
    ],
)
def test_ctrl_c_does_not_come_within_a_wait_that_is_short(
    monkeypatch: pytest.MonkeyPatch, use: Callable[[], object]
) -> None:
    CtrlCAmidResult.waited.clear()
    for module in (blocks, seqlocks, aba):
        monkeypatch.setattr(module, "ThreadPoolExecutor", CtrlCAmidResult)
    with nothing_is_left(), pytest.raises(KeyboardInterrupt):
        use()
    assert CtrlCAmidResult.waited == [True]


@pytest.mark.parametrize("module", [cores, spins, seqlocks, aba, patient])
def test_with_one_core_the_scripts_say_what_they_need(
    module: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: 1)
    with pytest.raises(SystemExit) as exit_:
        run_main(module, monkeypatch)
    assert exit_.value.code == 77
    assert capsys.readouterr().out == "needs two cores\n"


# -- shared_block


def test_a_block_is_seen_by_all_who_attach_it_and_then_is_gone() -> None:
    with shared_block(64) as name, attached(name) as here, attached(name) as there:
        assert here != there
        AtomicInt64(address=here + 8).store(7)
        assert AtomicInt64(address=there + 8).load() == 7
        assert AtomicInt64(address=there).load() == 0
    with pytest.raises(FileNotFoundError), attached(name):
        pass


def test_a_block_is_removed_when_its_use_fails() -> None:
    with pytest.raises(ZeroDivisionError), shared_block(64) as name, attached(name):
        print(1 / 0)
    with pytest.raises(FileNotFoundError), attached(name):
        pass


def test_a_block_that_stays_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "is_there", lambda name: True)
    with nothing_is_left(), pytest.raises(SystemExit, match="to be left behind"):
        run_main(blocks, monkeypatch)


def test_a_block_that_is_not_shared_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "ThreadPoolExecutor", Idle)
    with nothing_is_left(), pytest.raises(SystemExit, match="to share it"):
        run_main(blocks, monkeypatch)


# -- cores


def test_a_thread_has_all_its_cores_again_also_after_a_failure() -> None:
    before = cores.my_cores()
    with pytest.raises(ZeroDivisionError), cores.on_core(1):
        print(1 / 0)
    assert cores.my_cores() == before


@pytest.mark.skipif(sys.platform != "linux", reason="needs sched_setaffinity")
def test_any_number_is_the_number_of_a_core() -> None:
    usable = sorted(cores.my_cores())
    for n in range(2 * len(usable)):
        with cores.on_core(n):
            assert cores.my_cores() == {usable[n % len(usable)]}


@two_cores
def test_threads_on_the_same_core_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "two_cores", lambda: ThreadPoolExecutor(2))
    if sys.platform != "linux":
        pytest.skip("needs sched_setaffinity")
    with no_thread_is_left(), pytest.raises(SystemExit, match="both threads"):
        run_main(cores, monkeypatch)


# -- example10


def acquire(lock: str, memory: Memory, party: int, looks: int = 1) -> bool:
    ticket = memory.address + spins.TICKETS + spins.LINE * party
    code = spins.machine_code()[f"acquire_{lock}"]
    return bool(code(memory.address + spins.LOCK, ticket, looks))


def release(lock: str, memory: Memory, party: int) -> None:
    ticket = memory.address + spins.TICKETS + spins.LINE * party
    spins.machine_code()[f"release_{lock}"](memory.address + spins.LOCK, ticket)


def memory_of_locks() -> Memory:
    return Memory(spins.SIZE // 8)


@pytest.mark.parametrize("lock", list(spins.LOCKS)[1:])
@few
@given(moves=st.lists(st.integers(0, 2)))
def test_a_lock_has_one_holder(lock: str, moves: list[int]) -> None:
    memory, holder = memory_of_locks(), None
    queue: list[int] = []  # of those who have drawn a ticket
    for party in moves:
        if holder == party:
            release(lock, memory, party)
            holder = None
            continue
        if lock == "ticket_lock" and party not in queue:
            queue.append(party)
        can_have_it = holder is None and (not queue or queue[0] == party)
        assert acquire(lock, memory, party) == can_have_it
        if can_have_it:
            holder = party
            queue[:1] = []


@pytest.mark.parametrize("lock", list(spins.LOCKS))
def test_additions_stop_where_the_lock_cannot_be_had(lock: str) -> None:
    memory = memory_of_locks()
    number = AtomicInt64(address=memory.address + spins.PAIR)

    def add(times: int) -> int:
        ticket = memory.address + spins.TICKETS + spins.LINE
        code = spins.machine_code()[f"add_{lock}"]
        done: int = code(memory.address + spins.LOCK, ticket, number.address, times, 9)
        return done

    assert (add(5), number.load()) == (5, 5)
    assert acquire(lock, memory, 0)
    expected = 3 if lock == "no_lock" else 0
    assert (add(3), number.load()) == (expected, 5 + expected)
    release(lock, memory, 0)
    assert (add(2), number.load()) == (2, 7 + expected)


@two_cores
@pytest.mark.parametrize("lock", list(spins.LOCKS)[1:])
def test_two_threads_lose_nothing_with_a_lock(lock: str) -> None:
    with shared_block(spins.SIZE) as block, ThreadPoolExecutor(1) as threads:
        assert spins.contend(threads, block, lock).lost == 0


def test_who_comes_alone_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spins, "LIMIT", 0.01)
    with (
        shared_block(spins.SIZE) as block,
        pytest.raises(TimeoutError, match="the other party has not come"),
    ):
        spins.contend(Nobody(), block, "ticket_lock")


def test_who_is_told_to_stop_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_of_locks()
    stop = AtomicInt64(address=memory.address + spins.STOP)
    told: list[int] = []
    monkeypatch.setattr(spins, "LIMIT", 0.5)
    monkeypatch.setattr(time, "sleep", lambda _: told.append(stop.fetch_add(1)))
    with pytest.raises(TimeoutError, match="has not come"):
        spins.meet(memory.address, 2)
    assert told == [0]


def test_who_gets_no_processor_adds_once_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spins, "DURATION", 1e-9)  # is over before the first look
    with shared_block(spins.SIZE) as block:
        assert spins.contend(None, block, "ticket_lock").lost == 0


def test_if_nothing_is_lost_without_a_lock_that_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spins, "LIMIT", 0.01)
    whole = spins.Contest(1.0, 0.5, 0.0)
    monkeypatch.setattr(spins, "contend", lambda *_: whole)
    with pytest.raises(TimeoutError, match="no_lock: no addition was lost"):
        spins.contend_until_lost(Nobody(), "", "no_lock")


@pytest.mark.parametrize(
    ("without", "with_", "order", "told"),
    [
        (0.0, 0.0, "BC", "no_lock: of the"),
        (0.5, 0.1, "BC", "test_and_set: of the"),
        (0.5, 0.0, "CB", "ticket_lock: B and C"),
    ],
)
def test_locks_that_do_otherwise_are_told(
    monkeypatch: pytest.MonkeyPatch, without: float, with_: float, order: str, told: str
) -> None:
    def contend(others: Any, block: str, lock: str) -> spins.Contest:
        return spins.Contest(1.0, 0.5, with_ if others else 0.0)

    served = spins.served
    monkeypatch.setattr(spins, "contend", contend)
    lossy = spins.Contest(1.0, 0.5, without)
    monkeypatch.setattr(spins, "contend_until_lost", lambda *_: lossy)
    monkeypatch.setattr(
        spins, "served", lambda lock: [*order] if "ticket" in lock else served(lock)
    )
    with pytest.raises(SystemExit, match=told):
        spins.show_contests("", Nobody(), Nobody())


# -- example15


def test_a_spin_lock_is_taken_once() -> None:
    memory = Memory()
    here, there = SpinLock(memory.address), SpinLock(memory.address)
    assert here.acquire(LIMIT)
    for timeout in (0.0, -1.0, 0.003, float("nan")):
        assert not there.acquire(timeout)
    here.release()
    with there:
        assert not here.acquire(0)
    assert memory.words[0] == 0


def test_a_spin_lock_that_nobody_holds_cannot_be_released() -> None:
    memory = Memory()
    lock = SpinLock(memory.address)
    with pytest.raises(RuntimeError, match="not held"):
        lock.release()


def test_a_spin_lock_is_given_back_when_the_block_fails() -> None:
    lock = SpinLock((memory := Memory()).address)
    with pytest.raises(ZeroDivisionError), lock:
        print(1 / 0)
    assert memory.words[0] == 0


def test_a_block_is_not_run_without_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "LIMIT", 0.01)
    lock = SpinLock((memory := Memory()).address)
    memory.words[0] = 1
    with pytest.raises(TimeoutError, match="not free"), lock:
        pytest.fail("the block was run")


def test_who_waits_for_a_spin_lock_sleeps_longer_and_longer_until_it_is_free(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 10:
            lock.release()

    monkeypatch.setattr(time, "sleep", sleep)
    lock, other = SpinLock((memory := Memory()).address), SpinLock(memory.address)
    assert lock.acquire(0)
    assert other.acquire(LIMIT)
    assert memory.words[0] == 1
    assert pauses == sorted(pauses)
    assert pauses[:2] == [0, patient.SHORTEST]
    assert pauses[9:] == [patient.LONGEST]


# -- example11

numbers = st.integers(-(2**63), 2**63 - 1)


@few
@given(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1))
def test_what_was_written_last_is_read(records: list[list[int]]) -> None:
    record = SharedRecord((memory := Memory()).address, 3)
    for values in records:
        record.write(values)
        assert record.read(0) == record.read_broken() == tuple(values)
    assert memory.words[0] == 2 * len(records)


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3], [1, 2**63], [-(2**63) - 1, 1]])
def test_what_is_no_record_is_refused_as_a_whole(values: list[int]) -> None:
    record = SharedRecord((memory := Memory()).address, 2)
    with pytest.raises(ValueError, match="2 numbers of 64 bits"):
        record.write(values)
    assert list(memory.words[:4]) == [0, 0, 0, 0]


@pytest.mark.parametrize("values", [[1.5, 2], [1, 2.0], [1, "2"], [None, 2]])
def test_what_is_no_integer_does_not_leave_half_a_record(values: list[Any]) -> None:
    record = SharedRecord((memory := Memory()).address, 2)
    with pytest.raises(TypeError):
        record.write(values)
    assert list(memory.words[:3]) == [0, 0, 0]


def test_a_record_that_is_half_written_is_neither_read_nor_written() -> None:
    memory = Memory()
    record = SharedRecord(memory.address, 2)
    seen = []

    def meanwhile() -> None:
        seen.append(record.read_broken())
        with pytest.raises(TimeoutError, match=r"no whole record within 0\.01 s"):
            record.read(0.01)
        with pytest.raises(RuntimeError, match="another one writes"):
            record.write([5, 5])

    SharedRecord(memory.address, 2, meanwhile).write([1, 1])
    assert seen == [(1, 0)]
    assert record.read(0) == (1, 1)


def test_two_who_begin_to_write_together_are_told_apart() -> None:
    memory = Memory()
    record = SharedRecord(memory.address, 2)
    sequence = record._sequence

    class Late:
        def load(self, *_: Any) -> int:
            even = sequence.load()
            SharedRecord(memory.address, 2).write([1, 1])  # after this one has looked
            return even

        def __getattr__(self, name: str) -> Any:
            return getattr(sequence, name)

    record._sequence = Late()  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="another one writes"):
        record.write([2, 2])
    assert list(memory.words[:3]) == [2, 1, 1]


def test_a_write_that_fails_leaves_a_record_that_nobody_takes() -> None:
    memory = Memory()
    with pytest.raises(ZeroDivisionError):
        SharedRecord(memory.address, 2, lambda: 1 // 0).write([1, 1])
    with pytest.raises(TimeoutError):
        SharedRecord(memory.address, 2).read(0)


@pytest.mark.parametrize("writes", [0, 1, 2, 7])
def test_a_reader_looks_again_as_often_as_it_met_a_write(writes: int) -> None:
    memory = Memory()
    writer = SharedRecord(memory.address, 2)
    looks = 0

    def meanwhile() -> None:
        nonlocal looks
        looks += 1
        if looks <= writes:
            writer.write([looks, looks])

    reader = SharedRecord(memory.address, 2, meanwhile)
    assert reader.read(LIMIT) == (writes, writes)
    assert looks == writes + 1


def test_machine_code_and_python_have_the_same_record() -> None:
    memory = Memory()
    record = SharedRecord(memory.address, seqlocks.WORDS)
    write, read = seqlocks.machine_code()
    refused, torn = Memory(1), Memory(1)

    def counts(checked: bool) -> tuple[int, int]:
        read(memory.address, 5, checked, refused.address, torn.address)
        return refused.words[0], torn.words[0]

    assert write(memory.address, memory.address + 256, 3, 1) == 3
    assert record.read(0) == (6,) * seqlocks.WORDS
    assert counts(checked=True) == (0, 0)
    seen = []
    half = SharedRecord(
        memory.address,
        seqlocks.WORDS,
        lambda: seen.append((counts(False), counts(True))),
    )
    half.write([9] * seqlocks.WORDS)
    assert seen == [((0, 5), (5, 0))]
    for changed in range(seqlocks.WORDS):
        record.write([int(n == changed) for n in range(seqlocks.WORDS)])
        assert counts(checked=True) == (0, 5)


def test_a_reader_that_meets_no_writer_gives_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(seqlocks, "LIMIT", 0.01)
    for checked in (False, True):
        with (
            shared_block(seqlocks.SIZE) as block,
            pytest.raises(TimeoutError, match="has not met the writer"),
        ):
            seqlocks.read_beside(Nobody(), block, checked)


@two_cores
def test_reads_beside_a_thread_are_torn_unless_checked() -> None:
    with shared_block(seqlocks.SIZE) as block, ThreadPoolExecutor(1) as threads:
        assert seqlocks.read_beside(threads, block, checked=False).torn > 0
        checked = seqlocks.read_beside(threads, block, checked=True)
    assert checked.torn == 0
    assert checked.refused > 0


@two_cores
def test_ctrl_c_cannot_keep_the_writer_from_being_told_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Ctrl-C may come within any function of Python.
    monkeypatch.setattr(AtomicInt64, "store", lambda *_: pytest.fail("Ctrl-C"))
    with shared_block(seqlocks.SIZE) as block, ThreadPoolExecutor(1) as threads:
        assert seqlocks.read_beside(threads, block, checked=True).torn == 0


@pytest.mark.parametrize(
    ("torn", "whole", "told"),
    [
        ((1000,) * 8, (1000,) * 8, "half of the old record"),
        ((0,) * 4 + (1000,) * 4, (0,) * 8, "was to look again"),
    ],
)
def test_a_record_that_is_read_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, torn: Any, whole: Any, told: str
) -> None:
    monkeypatch.setattr(
        seqlocks, "read_amid_writes", lambda checked: (whole if checked else torn, 1)
    )
    with pytest.raises(SystemExit, match=told):
        seqlocks.show_interleaving()


@pytest.mark.parametrize(("alone", "checked"), [(0.0, 0.0), (0.1, 0.1)])
def test_torn_reads_that_are_not_as_they_should_be_are_told(
    monkeypatch: pytest.MonkeyPatch, alone: float, checked: float
) -> None:
    torn = {False: alone, True: checked}
    monkeypatch.setattr(
        seqlocks,
        "read_beside",
        lambda *_, checked: seqlocks.Reading(torn[checked], 0.1, 1.0),
    )
    with pytest.raises(SystemExit, match="the seqlock alone was to refuse"):
        seqlocks.show_reads("2 threads", Nobody(), "")


# -- example12


@few
@given(st.integers(1, 5), st.lists(st.booleans()), st.sampled_from([0, 1, 2, 47]))
def test_a_slot_stack_is_a_stack(n: int, pushes: list[bool], tag_bits: int) -> None:
    memory = Memory()
    stack = SlotStack(memory.address, n, tag_bits)
    free, model = list(range(1, n + 1)), list[int]()
    for is_push in pushes:
        if is_push and free:
            model.append(free.pop())
            stack.push(model[-1])
        elif model:
            free.append(model.pop())
            assert stack.pop() == free[-1]
        else:
            with pytest.raises(IndexError, match="empty"):
                stack.pop()
    assert aba.pop_all(stack, n + 1) == model[::-1]


@pytest.mark.parametrize("slot", [-1, 0, 4])
def test_a_slot_that_is_not_there_cannot_be_pushed(slot: int) -> None:
    stack = SlotStack((memory := Memory()).address, 3)
    with pytest.raises(IndexError, match=f"no slot {slot}"):
        stack.push(slot)
    assert not any(memory.words)


@pytest.mark.parametrize(("n", "bits"), [(0, 1), (2**16, 1), (1, -1), (1, 48)])
def test_slots_and_tags_that_do_not_fit_are_refused(n: int, bits: int) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        SlotStack(0, n, bits)


def test_the_largest_tag_is_followed_by_the_first() -> None:
    memory = Memory()
    stack = SlotStack(memory.address, 1)
    memory.words[0] = (2**aba.TAG_BITS - 1) * 2**aba.SLOT_BITS + 1
    assert stack.pop() == 1
    assert memory.words[0] == 0
    stack.push(1)
    assert stack.pop() == 1


@pytest.mark.parametrize("tag_bits", [0, 1, 2, 3, aba.TAG_BITS])
def test_aba_comes_back_after_as_many_pops_as_there_are_tags(tag_bits: int) -> None:
    for n_pops in range(2, 18):
        outcome = aba.pop_among_others(tag_bits, n_pops)
        left = [2, 3] if n_pops % 2**tag_bits == 0 else [3]
        assert outcome == (1, 2, left)


@pytest.mark.parametrize("slots", [[1, 1], [1], []])
def test_a_broken_stack_is_seen(slots: list[int]) -> None:
    with shared_block(aba.SIZE) as block, attached(block) as start:
        stack = SlotStack(start + aba.STACK, aba.N_SLOTS)
        for slot in slots:  # pushed twice, it lies on itself
            stack.push(slot)
        assert aba.use_slots(block, aba.TAG_BITS, seed=1)
        assert AtomicInt64(address=start + aba.STOP).load() == 1


@two_cores
def test_slots_that_two_threads_use_break_without_a_tag_only() -> None:
    with shared_block(aba.SIZE) as block, ThreadPoolExecutor(1) as threads:
        assert aba.show_use("2 threads", threads, block) > 0


@pytest.mark.parametrize(
    ("always", "told"), [(True, "was not to break"), (False, "did not break")]
)
def test_a_stack_that_breaks_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, always: bool, told: str
) -> None:
    monkeypatch.setattr(aba, "LIMIT", 0.01)
    monkeypatch.setattr(aba, "breaks", lambda *_: always)
    with pytest.raises((SystemExit, TimeoutError), match=told):
        aba.show_use("2 threads", Nobody(), "")


@pytest.mark.parametrize("bits", [0, 2])
def test_a_tag_that_does_otherwise_is_told(
    monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    pop = aba.pop_among_others
    monkeypatch.setattr(
        aba,
        "pop_among_others",
        lambda tag_bits, n=2: (1, 2, [3]) if tag_bits == bits else pop(tag_bits, n),
    )
    with pytest.raises(SystemExit, match="was to"):
        aba.show_interleaving()


# -- two processes


@two_cores
def test_processes_use_them_however_they_are_started(start_method: str) -> None:
    with nothing_is_left(), shared_block(2048) as block, process_pool(1) as processes:
        assert spins.contend(processes, block, "ticket_lock").lost == 0
        assert seqlocks.read_beside(processes, block, checked=True).torn == 0
        assert not aba.breaks(processes, block, aba.TAG_BITS, seed=1)
        seqlocks.show_killed_writer(processes, block)
        with process_pool(1) as others:  # for those that were killed
            patient.demonstrate(block, others)
