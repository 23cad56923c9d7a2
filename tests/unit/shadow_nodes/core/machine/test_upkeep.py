"""Retention, dead letters, moves, purge, seal, sessions."""

from __future__ import annotations

from typing import Any

import pytest
from machine_driver import START_MS, Shard, bodies, handles

from shadow_nodes.protocol.commands import (
    Accept,
    Batch,
    ChangeVisibility,
    Configure,
    Content,
    Delete,
    Entry,
    Letter,
    Move,
    Moved,
    Open,
    Purge,
    Receive,
    Refusal,
    Refused,
    Seal,
    Send,
    Session,
    Settings,
    Settle,
    Tick,
)
from shadow_nodes.protocol.limits import EXPIRE_PER_ENTRY_MAX, SESSION_IDLE_MS

# --- retention


def test_nothing_is_delivered_past_its_retention_even_without_a_tick() -> None:
    shard = Shard(retention_ms=1_000)
    shard.send("old")
    shard.now += 500
    shard.send("new")
    shard.now += 500
    assert bodies(shard.do(Receive(10))) == ["new"]
    assert shard.machine.messages() == 1


def test_a_tick_drops_expired_messages_in_flight_ones_too_and_says_when_it_is_due() -> None:
    shard = Shard(retention_ms=60_000, visibility_timeout_ms=100_000)
    shard.send("in flight", "waiting")
    shard.do(Receive())
    assert shard.summary().next_tick_ms == START_MS + 60_000
    shard.now += 59_999
    shard.do(Tick())
    assert shard.machine.messages() == 2
    shard.now += 1
    assert shard.summary().next_tick_ms <= shard.now
    shard.do(Tick())
    assert shard.machine.messages() == 0
    assert shard.summary().in_flight == 0


def test_a_tick_drops_a_bounded_number() -> None:
    shard = Shard(retention_ms=1_000)
    for _ in range(3):
        shard.send(*map(str, range(500)))
    shard.now += 1_000
    shard.do(Tick())
    assert shard.machine.messages() == 1_500 - EXPIRE_PER_ENTRY_MAX
    assert shard.summary().next_tick_ms <= shard.now
    shard.do(Tick())
    assert shard.machine.messages() == 0


def test_a_shorter_retention_concerns_the_messages_that_are_there() -> None:
    shard = Shard(retention_ms=100_000)
    shard.send("a")
    shard.now += 50_000
    shard.do(Configure(Settings(version=2, retention_ms=50_000)))
    assert shard.summary().next_tick_ms <= shard.now
    shard.do(Tick())
    assert shard.machine.messages() == 0


def test_an_accepted_message_expires_by_the_time_it_was_first_sent() -> None:
    shard = Shard(retention_ms=60_000)
    shard.send("sent here")
    shard.do(Accept("s/0", [Letter(1, (1, 2, 3), Content("old"), START_MS - 30_000, "q", "s")]))
    assert shard.summary().next_tick_ms == START_MS + 30_000
    shard.now += 30_000
    shard.do(Tick())
    assert bodies(shard.do(Receive(10))) == ["sent here"]


# --- dead letters


def dead_lettering(**settings: Any) -> Shard:
    return Shard(max_receive_count=1, dead_letter_queue="dlq", visibility_timeout_ms=1_000, **settings)


def test_a_message_received_too_often_becomes_a_letter() -> None:
    shard = dead_lettering()
    shard.send("poison", "fine")
    shard.do(Receive(1))
    shard.now += 1_000
    assert bodies(shard.do(Receive(1))) == ["fine"]
    (letter,) = shard.machine.outbox(0, 10)
    assert letter == Letter(1, (7, 2, 0), Content("poison"), START_MS, "dlq", "")
    assert (shard.summary().outbox, shard.machine.messages()) == (1, 2)
    assert shard.machine.outbox(1, 10) == shard.machine.outbox(0, 0) == []
    shard.restart()
    assert shard.machine.outbox(0, 10) == [letter]
    shard.do(Settle(1))
    assert shard.machine.outbox(0, 10) == []


def test_a_group_stays_blocked_until_its_letter_is_settled_whatever_is_purged() -> None:
    shard = dead_lettering(fifo=True)
    contents = [Content(str(i), group_id="g", deduplication_id=str(i)) for i in range(3)]
    shard.do(Send(contents))
    shard.do(Receive(1))
    shard.now += 1_000
    assert shard.do(Receive(10)) == Batch([])
    assert shard.summary().ready == 0
    shard.do(Purge())
    shard.send("after", group_id="g", deduplication_id="after")
    shard.restart()
    assert shard.do(Receive(10)) == Batch([])
    shard.do(Settle(1))
    assert bodies(shard.do(Receive(10))) == ["after"]


def test_letters_become_messages_once_each() -> None:
    shard = Shard(delay_ms=5_000)
    letters = [Letter(n, (1, n, 0), Content(f"l{n}"), START_MS - n, "here", "source") for n in range(1, 5)]
    assert shard.do(Accept("s/0", letters[:2])) is None
    assert shard.do(Accept("s/0", letters[:3])) is None
    assert shard.do(Accept("t/0", letters[:1])) is None
    assert shard.do(Accept("s/0", letters)) is None
    shard.restart()
    got = shard.do(Receive(10)).messages
    assert [(m.content.body, m.message_id, m.sent_ms, m.receive_count, m.source) for m in got[:1]] == [
        ("l1", (1, 1, 0), START_MS - 1, 1, "source")
    ]
    assert [m.content.body for m in got] == ["l1", "l2", "l3", "l1", "l4"]


def test_letters_between_went_elsewhere_and_none_is_taken_twice() -> None:
    shard = Shard()
    letters = [Letter(n, (1, n, 0), Content(f"l{n}"), START_MS, "here") for n in (2, 5, 9)]
    shard.do_all(Accept("s/0", letters[:2]), Accept("s/0", letters), Accept("s/0", letters[:1]))
    assert bodies(shard.do(Receive(10))) == ["l2", "l5", "l9"]


def test_a_move_sends_visible_messages_to_the_target() -> None:
    shard = Shard()
    shard.send("in flight", "a", "b", "c")
    shard.do(Receive(1))
    assert shard.do(Move("t", 2, "target")) == Moved(2, 1)
    assert shard.do(Move("t", 2, "target")) == Moved(1, 0)
    assert [letter.target for letter in shard.machine.outbox(0, 9)] == ["target"] * 3


@pytest.mark.parametrize("fifo", [False, True])
def test_a_move_without_target_sends_back_what_has_a_source(fifo: bool) -> None:
    shard = Shard(fifo=fifo)
    letters = [Letter(n, (1, n, 0), Content(f"l{n}", group_id="g"), START_MS, "here", f"s{n}") for n in (1, 2)]
    shard.do(Accept("s/0", letters))
    shard.send("own", group_id="h", deduplication_id="d")
    moved = shard.do(Move("t", 10))
    assert moved == Moved(2, 1 if fifo else 0)
    assert [(letter.target, letter.source) for letter in shard.machine.outbox(0, 9)] == [("s1", "s1"), ("s2", "s2")]
    shard.do(Settle(2))
    assert shard.do(Move("t", 10)) == Moved(0, 0)
    assert bodies(shard.do(Receive(10))) == ["own"]


# --- purge, seal


@pytest.mark.parametrize("fifo", [False, True])
def test_a_purge_drops_what_was_sent_before_and_frees_it_bit_by_bit(fifo: bool) -> None:
    shard = Shard(fifo=fifo)
    for start in range(0, 5_000, 500):
        shard.do(Send([Content("x", group_id=str(i), deduplication_id=str(i)) for i in range(start, start + 500)]))
    old = handles(shard.do(Receive(5)))
    shard.checkpoint()
    shard.do(Purge())
    shard.send("after", group_id="g", deduplication_id="d")
    assert shard.machine.messages() == 1
    assert (shard.summary().ready, shard.summary().in_flight) == (1, 0)
    assert shard.do(Delete(old)) is None
    assert bodies(shard.do(Receive(10))) == ["after"]
    for _ in range(10):
        shard.do(Tick())
    assert shard.machine._state.shelf.buried()
    shard.restart()


def test_a_sealed_queue_refuses_clients_but_settles_letters() -> None:
    shard = dead_lettering()
    shard.send("a")
    shard.do(Receive())
    shard.now += 1_000
    shard.do(Receive())
    shard.do(Seal())
    refused = shard.do_all(
        Send([Content("x")]), Receive(), Delete([(1, 1)]), ChangeVisibility([(1, 1, 1)]), Purge(), Move("t", 1)
    )
    assert refused == [Refused(Refusal.SEALED)] * 6
    assert shard.do_all(Tick(), Settle(1), Open("o")) == [None] * 3
    assert shard.summary().sealed
    shard.restart()
    assert shard.summary().sealed


# --- sessions


def test_an_operation_repeated_gets_its_first_result_and_changes_nothing() -> None:
    shard = Shard()
    shard.send("a", "b")
    first = shard.at(50, Receive())
    shard.do(Delete(handles(first)))
    assert shard.at(50, Receive()) == first
    assert shard.machine.answer(7, 50) == (True, first)
    shard.restart()
    assert shard.at(50, Receive()) == first
    assert shard.machine.answer(7, 51) == (False, None)
    assert shard.machine.answer(8, 50) == (False, None)
    assert shard.summary().ready == 1


def test_below_the_mark_results_are_forgotten_and_stray_copies_refused() -> None:
    shard = Shard()
    shard.at(50, Send([Content("a")]))
    assert shard.at(60, Receive(), mark=51) != Refused(Refusal.SESSION_PASSED)
    assert shard.machine.answer(7, 50) == (False, None)
    assert shard.at(50, Send([Content("a")]), mark=2) == Refused(Refusal.SESSION_PASSED)
    assert shard.machine.messages() == 1


def test_counters_may_come_out_of_order() -> None:
    shard = Shard()
    shard.at(60, Send([Content("a")]))
    shard.at(55, Send([Content("b")]))
    assert shard.at(55, Send([Content("b")])) is None
    assert shard.at(57, Send([Content("c")]), mark=56) is None
    assert shard.at(55, Send([Content("b")])) == Refused(Refusal.SESSION_PASSED)
    shard.restart()
    assert shard.at(70, Send([Content("d")]), mark=62) is None
    assert shard.machine.messages() == 4


def test_an_idle_session_is_forgotten_and_ticks_do_not_keep_any_alive() -> None:
    shard = Shard()
    shard.send("a")
    due_ms = shard.summary().next_tick_ms
    assert due_ms == START_MS + SESSION_IDLE_MS
    shard.now = due_ms
    shard.at(1_000, Tick(), session=8)
    assert shard.machine.answer(7, 2) == (False, None)
    shard.do(Configure(Settings(version=2)))
    assert shard.summary().next_tick_ms == due_ms + SESSION_IDLE_MS
    shard.now += SESSION_IDLE_MS
    shard.do(Tick())
    assert shard.summary().next_tick_ms == START_MS + shard.machine.settings.retention_ms


def test_an_idle_session_is_forgotten_when_it_comes_again_without_a_tick() -> None:
    shard = Shard()
    shard.at(50, Send([Content("a")]), mark=40)
    shard.now += SESSION_IDLE_MS
    assert shard.at(50, Send([Content("a")])) is None
    assert shard.machine.messages() == 2


def test_windows_ask_for_a_tick_once_a_minute_at_most() -> None:
    shard = Shard(fifo=True)
    for i in range(50):
        shard.send("x", group_id="g", deduplication_id=str(i))
        shard.now += 1_000
    ticks = 0
    shard.now += 240_000
    for _ in range(60):
        shard.now += 1_000
        if 0 < shard.summary().next_tick_ms <= shard.now:
            shard.do(Tick())
            ticks += 1
    assert ticks <= 2


# --- what cannot be


@pytest.mark.parametrize(
    "entry",
    [
        Entry(1, 3, START_MS, [], []),
        Entry(1, 1, START_MS, [], []),
        Entry(0, 2, START_MS, [], []),
        Entry(1, 2, START_MS - 1, [], []),
    ],
    ids=["a gap", "a repetition", "an older epoch", "time going back"],
)
def test_impossible_entries_assert(entry: Entry) -> None:
    shard = Shard()
    with pytest.raises(AssertionError):
        shard.machine.apply(entry)


def test_an_entry_without_operations_is_one() -> None:
    shard = Shard()
    assert shard.machine.apply(Entry(2, 2, START_MS, [Session(1, 1)], [])) == []
    assert shard.machine.applied.seq == shard.summary().seq == 2
