"""Chapter 16, the ring for one producer and one consumer: what readers copy."""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from queue import Empty, Full
from typing import Any

import example16_spsc_ring_buffer as rings
import pytest
from example16_spsc_ring_buffer import RingBuffer
from hypothesis import given
from hypothesis import strategies as st
from in_process import no_thread_is_left, run_main

LIMIT = 30.0  # seconds that a test waits for what must come


@given(st.integers(1, 4), st.lists(st.booleans()))
def test_a_ring_is_a_queue_of_limited_size(capacity: int, puts: list[bool]) -> None:
    ring, model = RingBuffer[int](capacity), deque[int]()
    for n, is_put in enumerate(puts):
        if is_put and len(model) == capacity:
            with pytest.raises(Full):
                ring.put_nowait(n)
        elif is_put:
            ring.put_nowait(n)
            model.append(n)
        elif model:
            assert ring.get_nowait() == model.popleft()
        else:
            with pytest.raises(Empty):
                ring.get_nowait()


def test_a_ring_needs_room() -> None:
    with pytest.raises(ValueError, match="a ring of 0 items"):
        RingBuffer(0)


def test_what_was_taken_is_not_kept_alive() -> None:
    ring = RingBuffer[rings.Item](3)
    watched = []
    for _ in range(5):
        item = rings.Item()
        watched.append(weakref.ref(item))
        ring.put_nowait(item)
        del item
        ring.get_nowait()
    assert [one() for one in watched] == [None] * 5
    assert not rings.is_kept_alive_by_the_ring()


def test_none_is_an_item_like_others() -> None:
    ring = RingBuffer[int | None](2)
    ring.put_nowait(None)
    assert ring.get_nowait() is None
    with pytest.raises(Empty):
        ring.get_nowait()


def stress(capacity: int, n: int) -> None:
    """Send `n` numbers through a ring."""
    ring = RingBuffer[int](capacity)
    assert rings.pass_items(ring.put_nowait, ring.get_nowait, n) == [*range(n)]


@pytest.mark.parametrize("capacity", [1, 2, 3, 1000])
def test_all_items_come_once_and_in_order(capacity: int) -> None:
    with no_thread_is_left():
        stress(capacity, 2000)


@pytest.mark.parametrize(
    ("kind", "programs", "is_sound"),
    [
        (RingBuffer, rings.ONE_OF_EACH, True),
        (RingBuffer, [{"P": ["put", "put", "put"], "C": ["get", "get"]}], True),
        (rings.NumberFirstRing, rings.ONE_OF_EACH, False),
        (RingBuffer, rings.TWO_PRODUCERS, False),
    ],
)
def test_what_is_linearizable_and_what_is_not(
    kind: type[RingBuffer[int]], programs: list[rings.Program], is_sound: bool
) -> None:
    n_histories, n_refuted = rings.decide_all(kind, programs)
    assert n_histories >= 70
    assert (n_refuted == 0) == is_sound


def test_a_ring_that_frees_its_slot_too_early_is_refuted() -> None:
    class EarlyRing(RingBuffer[Any]):
        def get_nowait(self) -> Any:
            n = self._n_taken
            if n == self._n_put:
                raise Empty
            self._n_taken = n + 1
            return self._slots[n % self._capacity]

    programs: list[rings.Program] = [{"P": ["put", "put"], "C": ["get"]}]
    assert rings.decide_all(EarlyRing, programs)[1] > 0


def test_who_waits_in_vain_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "LIMIT", 0.01)
    with pytest.raises(TimeoutError, match="does not go on"):
        rings.until_done(RingBuffer[int](1).get_nowait, threading.Event())


def test_after_ctrl_c_nobody_waits_for_an_item() -> None:
    waits = threading.Event()

    def get() -> int:
        waits.set()
        raise Empty

    def put(_: int) -> None:
        waits.wait(LIMIT)
        raise KeyboardInterrupt

    began = time.monotonic()
    with no_thread_is_left(), pytest.raises(KeyboardInterrupt):
        rings.pass_items(put, get)
    assert time.monotonic() - began < rings.LIMIT


@pytest.mark.parametrize(
    ("name", "instead", "complaint_"),
    [
        ("NumberFirstRing", RingBuffer, "the number before the item"),
        ("is_kept_alive_by_the_ring", lambda: True, "was not to keep"),
        ("pass_items", lambda put, get: [1, 0], "once, and in order"),
        ("RingBuffer", rings.NumberFirstRing, "a producer and a consumer"),
    ],
)
def test_what_does_not_show_fails_the_script(
    monkeypatch: pytest.MonkeyPatch, name: str, instead: Any, complaint_: str
) -> None:
    monkeypatch.setattr(rings, name, instead)
    with no_thread_is_left(), pytest.raises(SystemExit, match=complaint_):
        run_main(rings, monkeypatch)


def test_a_bad_capacity_is_named(complaint: Callable[..., str]) -> None:
    assert "must be at least 1, not 0" in complaint(rings, "--capacity", "0")
