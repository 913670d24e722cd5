"""What goes in at one end comes out at the other, and whatever else arrives is an error, at once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cxr_edge.channel import LENGTHS, LONGEST, Channel

TEXTS = st.text(st.characters(exclude_categories=())) | st.integers() | st.booleans() | st.none()
WORDS = st.recursive(TEXTS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Channel]]:
    one, other = socket.socketpair()
    channel = Channel(other, 0.2)
    yield one, channel
    one.close()
    channel.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WORDS, st.binary())
def test_a_message_arrives_as_it_was_sent(ends: tuple[socket.socket, Channel], words: object, payload: bytes) -> None:
    sender = Channel(ends[0].dup())
    sender.send(words, payload)
    sender.send("next")
    assert ends[1].receive() == (words, payload)
    assert ends[1].receive() == ("next", b"")
    sender.close()


def test_a_message_may_be_longer_than_the_system_holds(ends: tuple[socket.socket, Channel]) -> None:
    sender, payload = Channel(ends[0].dup()), bytes(range(256)) * 2**15
    thread = threading.Thread(target=sender.send, args=("long", payload))
    thread.start()
    assert ends[1].receive() == ("long", payload)
    thread.join()
    sender.close()


def test_who_does_not_read_keeps_nobody(ends: tuple[socket.socket, Channel]) -> None:
    with pytest.raises(TimeoutError):
        ends[1].send("long", bytes(2**24))


def test_silence_is_over_in_time(ends: tuple[socket.socket, Channel]) -> None:
    with pytest.raises(TimeoutError):
        ends[1].receive()


@pytest.mark.parametrize("said", [b"", b"\0" * 15, LENGTHS.pack(2, 4) + b"{}abc"])
def test_an_end_in_the_middle_is_an_end(ends: tuple[socket.socket, Channel], said: bytes) -> None:
    ends[0].sendall(said)
    ends[0].close()
    with pytest.raises(EOFError):
        ends[1].receive()


def test_a_claim_to_be_endless_is_not_believed(ends: tuple[socket.socket, Channel]) -> None:
    ends[0].sendall(LENGTHS.pack(2, LONGEST + 1) + b"{}")
    with pytest.raises(EOFError):
        ends[1].receive()
