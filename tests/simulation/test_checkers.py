"""The checkers on histories written by hand: what is allowed passes, and each broken promise is named."""

from __future__ import annotations

from typing import Any

import pytest

from tests.simulation.checkers import check_all, verdict
from tests.simulation.history import GotMessage, History, Op, QueueFacts, SentMessage
from tests.simulation.mutations import MUTATIONS, check
from tests.simulation.plan import Fault
from tests.simulation.shrink import fewest

MS = 1_000
S, F, D = "s", "f", "d"


class Story:
    """Operations one after the other, 100 ms each, or at given times (milliseconds)."""

    def __init__(self, **facts: Any) -> None:
        limit = facts.pop("max_receives", 0)
        queues = [
            QueueFacts(S, "standard", False, limit, D if limit else ""),
            QueueFacts(F, "ordered.fifo", True),
            QueueFacts(D, "dead", False),
        ]
        self.history = History(queues=queues, drained=facts.pop("drained", True), **facts)
        self.at_ms = 0

    def _add(self, kind: str, queue: str, at: tuple[int, int] | None, **fields: Any) -> Op:
        begin, end = at or (self.at_ms, self.at_ms + 100)
        self.at_ms = max(self.at_ms, end) + 10
        fields.setdefault("status", "ok")
        op = Op(len(self.history.ops) + 1, "c", kind, queue, begin * MS, end * MS, **fields)
        self.history.ops.append(op)
        return op

    def send(self, queue: str, body: str, key: int, at: tuple[int, int] | None = None, **fields: Any) -> Op:
        number = len(self.history.ops) + 1
        status = fields.pop("status", "ok")
        identity = fields.pop("message_id", (1, number, 0))
        known = identity if status == "ok" else None
        group = "g" if queue == F else ""
        dedup = fields.pop("dedup", body if queue == F else "")
        message = SentMessage(body, group, dedup, 0, known, key if known and queue == F else 0)
        return self._add("send", queue, at, sent=[message], id=(1, number), status=status)

    def receive(
        self, queue: str, *got: tuple[str, int, int, int], at: tuple[int, int] | None = None, **fields: Any
    ) -> Op:
        """``got``: (body, number of the send that made it, key, delivery) each."""
        group = "g" if queue == F else ""
        messages = [GotMessage(body, (1, send, 0), key, delivery, group, 0) for body, send, key, delivery in got]
        fields.setdefault("visible_ms", 1_000)
        return self._add("receive", queue, at, got=messages, **fields)

    def delete(self, queue: str, key: int, delivery: int, at: tuple[int, int] | None = None, **fields: Any) -> Op:
        return self._add("delete", queue, at, handles=[(key, delivery)], done=[True], **fields)

    def found(self) -> list[str]:
        return sorted({check for check, _ in check_all(self.history)})


def test_a_message_sent_received_and_deleted_is_as_it_should_be() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1))
    story.delete(S, 1, 1)
    story.receive(S)
    assert story.found() == []
    assert verdict(story.history) == "valid"


def test_what_was_not_read_to_its_end_is_unknown() -> None:
    story = Story(drained=False)
    story.send(S, "a", 1)
    assert verdict(story.history) == "unknown"


def test_lost() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S)
    assert story.found() == ["lost"]
    assert verdict(story.history) == "invalid"


def test_received_and_gone_without_a_delete_is_lost() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1))
    assert story.found() == ["lost"]


@pytest.mark.parametrize("status", ["unknown", "refused"])
def test_an_unacknowledged_send_may_be_lost(status: str) -> None:
    story = Story()
    story.send(S, "a", 1, status=status)
    assert story.found() == []


def test_a_purge_that_may_have_happened_later_explains_a_loss() -> None:
    story = Story()
    story.send(S, "a", 1)
    story._add("purge", S, None, status="unknown")
    assert story.found() == []


def test_a_purge_before_the_send_does_not() -> None:
    story = Story()
    story._add("purge", S, None)
    story.send(S, "a", 1)
    assert story.found() == ["lost"]


def test_unexpected() -> None:
    story = Story()
    story.receive(S, ("ghost", 9, 1, 1))
    story.delete(S, 1, 1)
    assert story.found() == ["duplicates", "unexpected"]


def test_resurrected_after_a_delete() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1))
    story.delete(S, 1, 1)
    story.receive(S, ("a", 1, 1, 2), at=(5_000, 5_100))
    assert story.found() == ["resurrected"]


def test_a_delete_without_an_answer_may_not_have_happened() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1))
    story.delete(S, 1, 1, status="unknown")
    story.receive(S, ("a", 1, 1, 2), at=(5_000, 5_100))
    story.delete(S, 1, 2)
    assert story.found() == []


def test_two_holders() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), at=(1_000, 1_010))
    story.receive(S, ("a", 1, 1, 2), at=(1_500, 1_510))
    story.delete(S, 1, 2)
    assert story.found() == ["holders"]


def test_one_holder_after_the_other() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), at=(1_000, 1_010))
    story.receive(S, ("a", 1, 1, 2), at=(2_000, 2_010))
    story.delete(S, 1, 2)
    assert story.found() == []


def test_clocks_that_are_apart_are_allowed_for() -> None:
    story = Story(skew_ms=600)
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), at=(1_000, 1_010))
    story.receive(S, ("a", 1, 1, 2), at=(1_500, 1_510))
    story.delete(S, 1, 2)
    assert story.found() == []


def test_one_delivery_to_two_is_two_holders() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), at=(1_000, 1_010))
    story.receive(S, ("a", 1, 1, 1), at=(9_000, 9_010))
    story.delete(S, 1, 1)
    assert story.found() == ["holders"]


def test_a_change_of_visibility_ends_a_hold() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), at=(1_000, 1_010))
    story._add("change", S, (1_020, 1_030), handles=[(1, 1)], done=[True], visible_ms=0)
    story.receive(S, ("a", 1, 1, 2), at=(1_500, 1_510))
    story.delete(S, 1, 2)
    assert story.found() == []


def test_a_change_of_visibility_prolongs_a_hold() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), at=(1_000, 1_010))
    story._add("change", S, (1_020, 1_030), handles=[(1, 1)], done=[True], visible_ms=5_000)
    story.receive(S, ("a", 1, 1, 2), at=(3_000, 3_010))
    story.delete(S, 1, 2)
    assert story.found() == ["holders"]


def ordered(story: Story) -> None:
    story.send(F, "a", 1)
    story.send(F, "b", 2)


def test_fifo_in_order() -> None:
    story = Story()
    ordered(story)
    story.receive(F, ("a", 1, 1, 1), ("b", 2, 2, 1))
    story.delete(F, 1, 1)
    story.delete(F, 2, 1)
    assert story.found() == []


def test_fifo_past_a_member_that_is_there() -> None:
    story = Story()
    ordered(story)
    story.receive(F, ("b", 2, 2, 1))
    story.receive(F, ("a", 1, 1, 1))
    story.delete(F, 1, 1)
    story.delete(F, 2, 1)
    assert story.found() == ["order"]


def test_fifo_after_the_earlier_one_is_deleted() -> None:
    story = Story()
    ordered(story)
    story.receive(F, ("a", 1, 1, 1))
    story.delete(F, 1, 1)
    story.receive(F, ("b", 2, 2, 1))
    story.delete(F, 2, 1)
    assert story.found() == []


def test_fifo_out_of_order_in_one_answer() -> None:
    story = Story()
    ordered(story)
    story.receive(F, ("b", 2, 2, 1), ("a", 1, 1, 1))
    story.delete(F, 1, 1)
    story.delete(F, 2, 1)
    assert story.found() == ["order"]


def test_sends_out_of_order() -> None:
    story = Story()
    story.send(F, "a", 2)
    story.send(F, "b", 1)
    story.receive(F, ("b", 2, 1, 1), ("a", 1, 2, 1))
    story.delete(F, 1, 1)
    story.delete(F, 2, 1)
    assert story.found() == ["order"]


def test_deduplication() -> None:
    story = Story()
    story.send(F, "a", 1, dedup="x")
    story.send(F, "a2", 2, dedup="x")
    story.receive(F, ("a", 1, 1, 1), ("a2", 2, 2, 1))
    story.delete(F, 1, 1)
    story.delete(F, 2, 1)
    assert story.found() == ["deduplication"]


def test_a_duplicate_is_told_the_first_ones_id() -> None:
    story = Story()
    story.send(F, "a", 1, dedup="x")
    story.send(F, "a2", 1, dedup="x", message_id=(1, 1, 0))
    story.receive(F, ("a", 1, 1, 1))
    story.delete(F, 1, 1)
    assert story.found() == []


def test_after_the_window_it_is_another_message() -> None:
    story = Story(window_ms=1_000)
    story.send(F, "a", 1, at=(0, 100), dedup="x")
    story.send(F, "a2", 2, at=(2_000, 2_100), dedup="x")
    op = story.receive(F, ("a", 1, 1, 1), ("a2", 2, 2, 1))
    op.got = [op.got[0], GotMessage("a2", (1, 2, 0), 2, 1, "g", 2_050)]
    story.delete(F, 1, 1)
    story.delete(F, 2, 1)
    assert story.found() == []


def test_a_message_under_two_keys() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), ("a", 1, 2, 1))
    story.delete(S, 1, 1)
    story.delete(S, 2, 1)
    assert story.found() == ["duplicates"]


def test_more_messages_than_sends() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), ("a", 7, 2, 1))
    story.delete(S, 1, 1)
    story.delete(S, 2, 1)
    assert story.found() == ["duplicates"]


def test_a_send_repeated_by_its_client_may_be_two_messages() -> None:
    story = Story()
    story.send(S, "a", 1, status="unknown")
    story.send(S, "a", 2)
    story.receive(S, ("a", 1, 1, 1), ("a", 2, 2, 1))
    story.delete(S, 1, 1)
    story.delete(S, 2, 1)
    assert story.found() == []


def test_a_delivery_that_nobody_saw() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 2))
    story.delete(S, 1, 2)
    assert story.found() == ["duplicates"]


def test_a_delivery_that_an_unanswered_receive_explains() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, status="unknown")
    story.receive(S, ("a", 1, 1, 2), at=(5_000, 5_100))
    story.delete(S, 1, 2)
    assert story.found() == []


def test_dead_lettered() -> None:
    story = Story(max_receives=1)
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1))
    story.receive(D, ("a", 1, 5, 1), at=(5_000, 5_100))
    story.delete(D, 5, 1)
    assert story.found() == []


def test_dead_lettered_twice() -> None:
    story = Story(max_receives=1)
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1))
    story.receive(D, ("a", 1, 5, 1), ("a", 1, 6, 1), at=(5_000, 5_100))
    story.delete(D, 5, 1)
    story.delete(D, 6, 1)
    assert story.found() == ["duplicates"]


def test_dead_lettered_too_late() -> None:
    story = Story(max_receives=1)
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1))
    story.receive(S, ("a", 1, 1, 2), at=(5_000, 5_100))
    story.delete(S, 1, 2)
    assert story.found() == ["dead letters"]


def test_dead_lettered_too_early() -> None:
    story = Story(max_receives=2)
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1))
    story.receive(D, ("a", 1, 5, 1), at=(5_000, 5_100))
    story.delete(D, 5, 1)
    assert story.found() == ["dead letters"]


def test_dead_lettered_and_still_there() -> None:
    story = Story(max_receives=2)
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1))
    story.receive(D, ("a", 1, 5, 1), at=(5_000, 5_100))
    story.receive(S, ("a", 1, 1, 2), at=(6_000, 6_100))
    story.delete(D, 5, 1)
    assert story.found() == ["dead letters"]


def test_empty_though_a_message_was_there() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S)
    story.receive(S, ("a", 1, 1, 1))
    story.delete(S, 1, 1)
    assert story.found() == ["empty"]


def test_empty_while_the_send_is_under_way() -> None:
    story = Story()
    story.send(S, "a", 1, at=(0, 1_000))
    story.receive(S, at=(500, 600))
    story.receive(S, ("a", 1, 1, 1), at=(2_000, 2_100))
    story.delete(S, 1, 1)
    assert story.found() == []


def given_twice(story: Story) -> None:
    story.send(F, "a", 1)
    story.receive(F, ("a", 1, 1, 1), at=(1_000, 1_010))
    story.receive(F, ("a", 1, 1, 2), at=(3_000, 3_010))


def test_a_fifo_delete_with_an_old_handle() -> None:
    story = Story()
    given_twice(story)
    story.delete(F, 1, 1)
    assert story.found() == ["handles"]


def test_a_fifo_delete_with_an_old_handle_of_what_is_gone() -> None:
    story = Story()
    given_twice(story)
    story.delete(F, 1, 2)
    story.delete(F, 1, 1)
    assert story.found() == []


def test_a_change_of_visibility_with_an_old_handle() -> None:
    story = Story()
    given_twice(story)
    story._add("change", F, None, handles=[(1, 1)], done=[True], visible_ms=9_000)
    story.delete(F, 1, 2)
    assert "handles" in story.found()


def test_shrinking_finds_the_two_faults_that_matter() -> None:
    faults = [Fault(number, "resets", 1, number) for number in range(40)]
    found = fewest(faults, lambda some: {7, 23} <= {fault.at_us for fault in some})
    assert [fault.at_us for fault in found] == [7, 23]


def test_every_mutation_still_finds_its_text() -> None:
    assert check(list(MUTATIONS)) == 0
