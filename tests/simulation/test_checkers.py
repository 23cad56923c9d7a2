"""The checkers on histories written by hand: what is allowed passes, and each broken promise is named."""

from __future__ import annotations

import pytest

from tests.simulation.checkers import verdict
from tests.simulation.history import GotMessage
from tests.simulation.story import D, F, S, Story


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


def test_a_change_that_was_given_up_may_come_after_a_later_one() -> None:
    story = Story()
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), at=(1_000, 1_010))
    story._add("change", S, (1_020, 1_025), handles=[(1, 1)], status="unknown", visible_ms=500)
    story._add("change", S, (1_030, 1_040), handles=[(1, 1)], done=[True], visible_ms=5_000)
    story.receive(S, ("a", 1, 1, 2), at=(3_000, 3_010))
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


def test_what_its_retention_has_ended_is_not_lost() -> None:
    story = Story(retention_ms=2_000)
    story.send(S, "a", 1)
    story.receive(S, at=(3_000, 3_100))
    assert story.found() == []


def test_a_message_after_its_retention() -> None:
    story = Story(retention_ms=2_000)
    story.send(S, "a", 1)
    story.receive(S, ("a", 1, 1, 1), at=(3_000, 3_100))
    assert story.found() == ["expiry"]


def test_a_message_gone_before_its_retention_has_ended() -> None:
    story = Story(retention_ms=2_000)
    story.send(S, "a", 1)
    story.receive(S, at=(1_000, 1_100))
    assert story.found() == ["expiry"]


def test_a_message_that_an_unanswered_receive_may_have_taken_is_not_gone_too_early() -> None:
    story = Story(retention_ms=2_000)
    story.send(S, "a", 1)
    story.receive(S, at=(200, 900), status="unknown")
    story.receive(S, at=(1_000, 1_100))
    assert story.found() == []
