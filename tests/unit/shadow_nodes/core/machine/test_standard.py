"""A standard queue: order, visibility, handles, delays, limits."""

from __future__ import annotations

import pytest
from machine_driver import START_MS, Shard, bodies, handles

from shadow_nodes.core.machine import receiving
from shadow_nodes.protocol.commands import (
    ChangeVisibility,
    Configure,
    Content,
    Delete,
    Items,
    Open,
    Receive,
    Refusal,
    Refused,
    Send,
    Settings,
)
from shadow_nodes.protocol.limits import VISIBILITY_TIMEOUT_MAX_MS


def test_messages_come_in_order_with_all_that_was_sent() -> None:
    shard = Shard()
    content = Content("body", b"attributes", "group", "dedup", "sender", "trace", 0)
    assert shard.do_all(Open("owner"), Send([content]), Send([Content("second")])) == [None, None, None]
    shard.now += 5
    first, second = shard.do(Receive(10)).messages
    assert first.content == content
    assert (first.key, first.delivery, first.receive_count, first.source) == (1, 1, 1, "")
    assert (first.sent_ms, first.first_received_ms) == (START_MS, START_MS + 5)
    assert first.message_id == (shard.session, 3, 0)
    assert second.content.body == "second"


def test_a_message_in_flight_is_seen_by_nobody_until_its_time_has_run_out() -> None:
    shard = Shard(visibility_timeout_ms=1_000)
    shard.send("a")
    shard.do(Receive())
    shard.now += 999
    assert shard.summary().ready == 0
    assert shard.summary().next_ready_ms == START_MS + 1_000
    assert bodies(shard.do(Receive())) == []
    shard.now += 1
    assert shard.summary().ready == 1
    again = shard.do(Receive()).messages[0]
    assert (again.delivery, again.receive_count, again.first_received_ms) == (2, 2, START_MS)


def test_what_returns_comes_before_what_was_sent_later() -> None:
    shard = Shard(visibility_timeout_ms=1_000)
    shard.send("a", "b")
    shard.do(Receive(2))
    shard.send("c")
    shard.now += 1_000
    assert bodies(shard.do(Receive(10))) == ["a", "b", "c"]


def test_a_receive_with_timeout_0_leaves_the_message_visible_and_gives_it_once() -> None:
    shard = Shard()
    shard.send("a", "b")
    assert bodies(shard.do(Receive(10, 0))) == ["a", "b"]
    assert shard.summary().ready == 2
    assert [m.receive_count for m in shard.do(Receive(10)).messages] == [2, 2]


def test_a_message_is_delayed_by_its_own_delay_or_the_queues() -> None:
    shard = Shard(delay_ms=1_000)
    shard.do(Send([Content("queue's"), Content("own", delay_ms=2_000), Content("none", delay_ms=0)]))
    assert bodies(shard.do(Receive(10))) == ["none"]
    assert (shard.summary().delayed, shard.summary().next_ready_ms) == (2, START_MS + 1_000)
    shard.now += 1_000
    assert bodies(shard.do(Receive(10))) == ["queue's"]
    shard.now += 1_000
    assert bodies(shard.do(Receive(10))) == ["own"]


def test_any_handle_given_out_deletes_and_deleting_twice_succeeds() -> None:
    shard = Shard(visibility_timeout_ms=1_000)
    shard.send("a")
    old = handles(shard.do(Receive()))
    shard.now += 1_000
    shard.do(Receive())
    assert shard.do(Delete(old)) is None
    assert shard.do(Delete(old)) is None
    assert shard.machine.messages() == 0


def test_a_visible_message_can_be_deleted_by_an_old_handle_and_is_not_received_again() -> None:
    shard = Shard(visibility_timeout_ms=1_000)
    shard.send("a", "b")
    old = handles(shard.do(Receive(2)))
    shard.now += 1_000
    assert shard.do(Delete(old[:1])) is None
    assert bodies(shard.do(Receive(10))) == ["b"]


@pytest.mark.parametrize("number", [-1, 0, 2, 2**63])
def test_a_handle_never_given_out_deletes_nothing(number: int) -> None:
    shard = Shard()
    shard.send("a")
    shard.do(Receive())
    assert shard.do(Delete([(1, number), (77, number)])) == Items([Refusal.HANDLE_EXPIRED, None])
    assert shard.machine.messages() == 1


def test_visibility_can_be_changed_by_the_current_handle_while_in_flight() -> None:
    shard = Shard(visibility_timeout_ms=1_000)
    shard.send("a")
    (handle,) = handles(shard.do(Receive()))
    assert shard.do(ChangeVisibility([(*handle, 5_000)])) is None
    shard.now += 4_999
    assert shard.summary().ready == 0
    shard.now += 1
    assert shard.do(ChangeVisibility([(*handle, 1)])) == Items([Refusal.NOT_IN_FLIGHT])
    (newer,) = handles(shard.do(Receive()))
    outcomes = shard.do(ChangeVisibility([(*handle, 1), (9, 9, 1), (*newer, 0)]))
    assert outcomes == Items([Refusal.HANDLE_EXPIRED, Refusal.HANDLE_EXPIRED, None])
    assert shard.summary().ready == 1


def test_a_message_stays_invisible_for_12_hours_from_its_receive_at_most() -> None:
    shard = Shard(visibility_timeout_ms=2_000, retention_ms=2 * VISIBILITY_TIMEOUT_MAX_MS)
    shard.send("a")
    (handle,) = handles(shard.do(Receive()))
    shard.now += 1_000
    too_long = shard.do(ChangeVisibility([(*handle, VISIBILITY_TIMEOUT_MAX_MS - 999)]))
    assert too_long == Items([Refusal.VISIBILITY_TOO_LONG])
    assert shard.do(ChangeVisibility([(*handle, VISIBILITY_TIMEOUT_MAX_MS - 1_000)])) is None
    assert shard.summary().next_ready_ms == START_MS + VISIBILITY_TIMEOUT_MAX_MS


def test_too_many_in_flight_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "IN_FLIGHT_MAX_STANDARD", 3)
    shard = Shard()
    shard.send("a", "b", "c", "d")
    assert bodies(shard.do(Receive(2))) == ["a", "b"]
    assert bodies(shard.do(Receive(2))) == ["c"]
    assert shard.do(Receive(1)) == Refused(Refusal.OVER_LIMIT)
    shard.do(Delete([(1, 1)]))
    assert bodies(shard.do(Receive(1))) == ["d"]


@pytest.mark.parametrize("wanted", [-3, 0, 10_000])
def test_garbage_numbers_do_no_harm(wanted: int) -> None:
    shard = Shard()
    shard.do(Send([Content(str(i), delay_ms=-5) for i in range(12)]))
    got = shard.do(Receive(wanted, -7))
    assert len(got.messages) == min(max(wanted, 0), 10)
    shard.do(Receive(10, 2**60))
    assert shard.summary().next_ready_ms == START_MS + VISIBILITY_TIMEOUT_MAX_MS
    shard.do(ChangeVisibility([(1, 2, -(2**60)), (2, 2, 2**60)]))
    shard.restart()


def test_settings_change_with_higher_versions_only() -> None:
    shard = Shard()
    shard.do(Configure(Settings(version=5, delay_ms=9)))
    shard.do(Configure(Settings(version=5, delay_ms=10)))
    shard.do(Configure(Settings(version=4, delay_ms=11)))
    assert shard.machine.settings == Settings(version=5, delay_ms=9)
    assert shard.summary().settings_version == 5


def test_a_queue_that_changes_its_kind_keeps_its_messages() -> None:
    shard = Shard()
    shard.send("a", "b", group_id="g")
    shard.do(Receive(1))
    shard.do(Configure(Settings(version=2, fifo=True)))
    assert bodies(shard.do(Receive(10))) == []
    shard.do(Delete([(1, 1)]))
    assert bodies(shard.do(Receive(10))) == ["b"]
    shard.restart()
