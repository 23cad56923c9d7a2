"""A FIFO queue: groups, deduplication, receive attempts."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from machine_driver import Shard, bodies, handles

from shadow_nodes.core.machine import machine, receiving
from shadow_nodes.protocol.commands import (
    Batch,
    ChangeVisibility,
    Configure,
    Content,
    Delete,
    Items,
    Purge,
    Receive,
    Refusal,
    Send,
    Sent,
    Settings,
)
from shadow_nodes.protocol.limits import DEDUPLICATION_WINDOW_MS, RECEIVE_ATTEMPT_WINDOW_MS


def fifo(**settings: Any) -> Shard:
    return Shard(fifo=True, **settings)


def put(shard: Shard, *names: str) -> None:
    """Messages named by their group and a number, as in "a1"."""
    shard.do(Send([Content(name, group_id=name[0], deduplication_id=name) for name in names]))


def test_a_receive_takes_as_much_of_a_group_as_it_can_then_the_next() -> None:
    shard = fifo()
    put(shard, "a1", "b1", "a2", "b2", "a3")
    assert bodies(shard.do(Receive(4))) == ["a1", "a2", "a3", "b1"]


def test_a_group_waits_while_one_of_its_messages_is_in_flight() -> None:
    shard = fifo()
    put(shard, "a1", "a2", "a3", "b1")
    first = handles(shard.do(Receive(2)))
    assert bodies(shard.do(Receive(10))) == ["b1"]
    shard.do(Delete(first[:1]))
    assert shard.summary().ready == 0
    assert bodies(shard.do(Receive(10))) == []
    shard.do(Delete(first[1:]))
    assert shard.summary().ready == 1
    assert bodies(shard.do(Receive(10))) == ["a3"]


def test_what_returns_is_again_the_first_of_its_group() -> None:
    shard = fifo(visibility_timeout_ms=1_000)
    put(shard, "a1", "a2")
    ((key, delivery),) = handles(shard.do(Receive()))
    shard.do(ChangeVisibility([(key, delivery, 0)]))
    assert bodies(shard.do(Receive())) == ["a1"]
    shard.now += 1_000
    assert bodies(shard.do(Receive(10))) == ["a1", "a2"]


def test_a_receive_with_timeout_0_gives_every_message_once() -> None:
    shard = fifo()
    put(shard, "a1", "a2", "b1")
    assert bodies(shard.do(Receive(10, 0))) == ["a1", "a2", "b1"]
    assert shard.summary().ready == 3


def test_only_the_queues_delay_counts_and_it_blocks_the_group() -> None:
    shard = fifo(delay_ms=1_000)
    shard.do(Send([Content("a1", group_id="a", deduplication_id="1", delay_ms=0)]))
    shard.do(Configure(Settings(version=2, fifo=True)))
    put(shard, "a2", "b1")
    assert bodies(shard.do(Receive(10))) == ["b1"]
    shard.now += 1_000
    assert bodies(shard.do(Receive(10))) == ["a1", "a2"]


def test_a_delete_needs_the_current_handle_of_a_message_in_flight() -> None:
    shard = fifo(visibility_timeout_ms=1_000)
    put(shard, "a1")
    old = handles(shard.do(Receive()))
    shard.now += 1_000
    assert shard.do(Delete(old)) == Items([Refusal.HANDLE_EXPIRED])
    current = handles(shard.do(Receive()))
    assert shard.do(Delete(old + current)) == Items([Refusal.HANDLE_EXPIRED, None])
    assert shard.do(Delete(current)) is None


def test_the_limit_in_flight_gives_nothing_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "IN_FLIGHT_MAX_FIFO", 2)
    monkeypatch.setattr(machine, "IN_FLIGHT_MAX_FIFO", 2)
    shard = fifo()
    put(shard, "a1", "b1", "c1")
    assert bodies(shard.do(Receive(10))) == ["a1", "b1"]
    assert shard.summary().ready == 0
    assert shard.do(Receive(10)) == Batch([])
    shard.do(Delete([(1, 1)]))
    assert bodies(shard.do(Receive(10))) == ["c1"]


# --- deduplication


def test_a_duplicate_gets_the_first_ones_answer_even_when_that_is_deleted() -> None:
    shard = fifo()
    first = shard.send("x", group_id="g", deduplication_id="d")
    shard.do(Delete(handles(shard.do(Receive()))))
    shard.now += DEDUPLICATION_WINDOW_MS - 1
    assert shard.send("y", group_id="g", deduplication_id="d") == first == Sent([(1, (7, 2, 0))])
    assert shard.machine.messages() == 0
    shard.restart()
    assert shard.send("y", group_id="g", deduplication_id="d") == first
    shard.now += 1
    again = shard.send("y", group_id="g", deduplication_id="d")
    assert again.messages[0][0] == 2


def test_the_window_counts_from_the_first_send_and_survives_a_purge() -> None:
    shard = fifo()
    shard.send("x", group_id="g", deduplication_id="d")
    shard.do(Purge())
    shard.now += 200_000
    assert shard.send("x", group_id="g", deduplication_id="d").messages[0][0] == 1
    shard.now += 200_000
    assert shard.send("x", group_id="g", deduplication_id="d").messages[0][0] == 2


def test_duplicates_within_one_batch() -> None:
    shard = fifo()
    sent = shard.send("x", "y", group_id="g", deduplication_id="d")
    assert sent.messages[0] == sent.messages[1] == (1, (7, 2, 0))


def test_content_is_the_deduplication_id_where_settings_say_so() -> None:
    shard = fifo(content_based_deduplication=True)
    shard.send("same", group_id="g")
    assert shard.send("same", group_id="h").messages[0][0] == 1
    assert shard.send("same", group_id="h", deduplication_id="own").messages[0][0] == 2
    assert shard.send("z", group_id="h", deduplication_id=hashlib.sha256(b"same").hexdigest()).messages[0][0] == 1


def test_the_scope_may_be_the_group() -> None:
    shard = fifo(deduplication_scope_group=True)
    assert shard.send("x", group_id="g", deduplication_id="d").messages[0][0] == 1
    assert shard.send("x", group_id="h", deduplication_id="d").messages[0][0] == 2
    assert shard.send("x", group_id="g", deduplication_id="d").messages[0][0] == 1


def test_what_is_missing_is_said_message_by_message() -> None:
    shard = fifo()
    contents = [Content("x"), Content("x", group_id="g"), Content("x", group_id="g", deduplication_id="d")]
    outcomes = shard.do(Send(contents)).messages
    assert outcomes == [Refusal.GROUP_ID_MISSING, Refusal.DEDUPLICATION_ID_MISSING, (1, (7, 2, 2))]


# --- receive attempts


def test_an_attempt_repeated_gives_the_same_handles_and_begins_their_time_anew() -> None:
    shard = fifo(visibility_timeout_ms=1_000)
    put(shard, "a1", "a2", "b1")
    first = shard.do(Receive(2, None, "attempt"))
    shard.now += 900
    shard.restart()
    assert shard.do(Receive(2, None, "attempt")) == first
    assert shard.summary().next_ready_ms == shard.now + 1_000
    assert bodies(shard.do(Receive(10, None, "another"))) == ["b1"]


@pytest.mark.parametrize("what", ["deleted", "changed", "expired", "window"])
def test_an_attempt_is_executed_anew_when_something_happened(what: str) -> None:
    shard = fifo(visibility_timeout_ms=2 * RECEIVE_ATTEMPT_WINDOW_MS)
    put(shard, "a1", "a2", "b1")
    first = handles(shard.do(Receive(2, None, "attempt")))
    if what == "deleted":
        shard.do(Delete(first[:1]))
    elif what == "changed":
        shard.do(ChangeVisibility([(*first[0], 60_000)]))
    else:
        shard.now += RECEIVE_ATTEMPT_WINDOW_MS * (1 if what == "window" else 2)
    again = shard.do(Receive(2, None, "attempt"))
    assert bodies(again) == (["a1", "a2"] if what == "expired" else ["b1"])
    assert handles(again) != first
