from __future__ import annotations

from typing import Any

import pytest

from distribution_manager.core.desk import ReceiveDesk
from distribution_manager.core.request import Now, Request
from shadow_nodes.protocol.commands import Content, Receive, Send, Summary


def receive(wait_ms: int = 0, most: int = 1, at_ms: int = 0) -> Request:
    return Request(
        "ab/0",
        1,
        1,
        0,
        Receive(most),
        now=Now(at_ms, at_ms),
        deadline_ms=at_ms + 10_000,
        wait_ms=wait_ms,
        hops=0,
        region="here",
        finish=lambda *_: None,
    )


def summary(seq: int, ready: int, **changes: Any) -> Summary:
    fields = {"in_flight": 0, "delayed": 0, "next_ready_ms": 0, "next_tick_ms": 0, "outbox": 0, "settings_version": 1}
    return Summary(seq=seq, ready=ready, sealed=False, **{**fields, **changes})


@pytest.fixture
def desk() -> ReceiveDesk:
    return ReceiveDesk()


def test_nothing_is_known_before_the_first_summary(desk: ReceiveDesk) -> None:
    desk.park(receive(), 0)
    assert desk.admit(0, 0) == []
    assert desk.give_up(10_000, 10_000) == []


def test_as_many_receives_go_as_there_are_messages(desk: ReceiveDesk) -> None:
    for _ in range(3):
        desk.park(receive(), 1)
    desk.learn(summary(1, ready=2))
    assert len(desk.admit(0, 0)) == 2
    assert desk.admit(0, 2) == [], "those admitted and not sequenced yet count"
    assert len(desk) == 1


def test_what_is_under_way_is_counted_until_a_summary_covers_it(desk: ReceiveDesk) -> None:
    desk.learn(summary(1, ready=0))
    desk.sequenced(2, [Send([Content("a"), Content("b")])])
    assert desk.estimate == 2
    desk.learn(summary(1, ready=0))
    assert desk.estimate == 2
    desk.learn(summary(2, ready=0))
    assert desk.estimate == 0, "perhaps their group is blocked"


def test_an_older_summary_changes_nothing(desk: ReceiveDesk) -> None:
    desk.learn(summary(5, ready=0))
    desk.learn(summary(4, ready=7))
    assert desk.estimate == 0


def test_a_message_becomes_visible_by_time_alone(desk: ReceiveDesk) -> None:
    desk.park(receive(wait_ms=1_000), 1)
    desk.park(receive(), 1)
    desk.learn(summary(1, ready=0, next_ready_ms=500))
    assert desk.admit(499, 0) == []
    assert len(desk.give_up(0, 499)) == 1
    assert desk.give_up(500, 500) == [], "something is visible: nobody is told that nothing is"
    assert len(desk.admit(500, 0)) == 1


def test_empty_needs_a_summary_as_new_as_the_request(desk: ReceiveDesk) -> None:
    desk.learn(summary(3, ready=0))
    desk.park(receive(), 4)
    assert desk.give_up(0, 0) == []
    desk.learn(summary(4, ready=0))
    assert len(desk.give_up(0, 0)) == 1


def test_a_wait_is_waited_out(desk: ReceiveDesk) -> None:
    desk.learn(summary(1, ready=0))
    desk.park(receive(wait_ms=300), 1)
    assert desk.give_up(299, 299) == []
    assert desk.next_give_up_ms(0) == 300
    assert len(desk.give_up(300, 300)) == 1


def test_what_is_finished_elsewhere_is_forgotten(desk: ReceiveDesk) -> None:
    late = receive()
    late.finished = True
    desk.park(late, 1)
    desk.learn(summary(1, ready=1))
    assert desk.admit(0, 0) == []
    assert len(desk) == 0
