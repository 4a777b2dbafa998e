"""Chapter 11: datagrams that are lost, doubled and overtaken, without a network."""

import math
import random

import example15_datagrams as datagrams
import pytest
from example15_datagrams import ACK, DATA, Receiver, Sender
from hypothesis import given
from hypothesis import strategies as st


def deliver(
    messages: list[bytes], chance: random.Random, trouble: float
) -> list[bytes]:
    """Send `messages` over a bad network in virtual time; return what is delivered."""
    sender, receiver = Sender(messages, overdue=1.0, attempts=1000), Receiver()
    there: list[bytes] = []
    back: list[bytes] = []
    delivered: list[bytes] = []
    now = 0.0
    while True:
        there += sender.due(now)
        if sender.done:
            return delivered
        for way in (there, back):
            chance.shuffle(way)  # they overtake each other
        for _ in range(len(there)):
            datagram = there.pop()
            if chance.random() < trouble:
                continue  # lost
            if chance.random() < trouble:
                there.append(datagram)  # comes once more, later
            arrived, answer = receiver.receive(datagram)
            delivered += arrived
            if answer is not None and chance.random() >= trouble:
                back += [answer] * chance.choice([1, 1, 2])
        while back:
            sender.receive(back.pop())
        now += 1.0


@given(
    st.lists(st.binary(max_size=5), max_size=30),
    st.randoms(use_true_random=False),
    st.sampled_from([0.0, 0.1, 0.5]),
)
def test_all_arrive_once_and_in_order(
    messages: list[bytes], chance: random.Random, trouble: float
) -> None:
    assert deliver(messages, chance, trouble) == messages


def test_who_never_answers_is_given_up() -> None:
    sender = Sender([b"hello"], overdue=1.0, attempts=3)
    assert [len(sender.due(now)) for now in (0.0, 0.5, 1.0, 2.0)] == [1, 0, 1, 1]
    with pytest.raises(ConnectionError, match="message 0: sent 3 times"):
        sender.due(3.0)


def test_no_more_than_a_window_is_under_way() -> None:
    sender = Sender([b"x"] * 10, window=4)
    assert len(sender.due(0.0)) == 4
    sender.receive(datagrams.encode(ACK, 1))  # the first is still missing
    assert sender.due(0.0) == []
    sender.receive(datagrams.encode(ACK, 0))
    assert len(sender.due(0.0)) == 2


@given(st.binary(max_size=20))
def test_whatever_else_arrives_is_ignored(datagram: bytes) -> None:
    receiver, sender = Receiver(), Sender([b"x"])
    sender.due(0.0)
    if datagrams.decode(datagram) is None:
        assert receiver.receive(datagram) == ([], None)
        sender.receive(datagram)
        assert not sender.done


def test_what_is_here_already_is_acknowledged_again_and_not_delivered() -> None:
    receiver = Receiver()
    datagram = datagrams.encode(DATA, 0, b"x")
    answer = datagrams.encode(ACK, 0)
    assert receiver.receive(datagram) == ([b"x"], answer)
    assert receiver.receive(datagram) == ([], answer)


def test_what_is_far_ahead_is_not_kept() -> None:
    receiver = Receiver(window=4)
    assert receiver.receive(datagrams.encode(DATA, 4, b"x")) == ([], None)
    assert receiver.receive(datagrams.encode(DATA, 3, b"x"))[1] is not None


@given(st.floats(0, 1e9), st.floats(1e-3, 10))
def test_who_waits_as_told_has_something_to_send(start: float, overdue: float) -> None:
    """Rounding must not make it wait for nothing, again and again."""
    sender, now = Sender([b"a"], overdue=overdue, attempts=5), start
    for _ in range(5):
        assert sender.due(now)
        while (left := sender.wait(now)) > 0:
            now = max(now + left, math.nextafter(now, math.inf))
    with pytest.raises(ConnectionError, match="sent 5 times"):
        sender.due(now)
