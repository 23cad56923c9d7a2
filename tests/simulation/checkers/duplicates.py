"""Deduplication over its window (P4), and no duplicates but those that P5 allows."""

from __future__ import annotations

from itertools import pairwise

from tests.simulation.checkers.common import may_have_happened, receipts
from tests.simulation.history import GotMessage, History, MessageId, Op

MS = 1_000
ALLOWANCE_MS = 50


def check_deduplication(history: History) -> list[tuple[str, str]]:
    """Messages of one deduplication id that were made within the window of each other are one."""
    dedup_of = {
        (op.queue, message.body): message.dedup for op in history.of("send") for message in op.sent if message.dedup
    }
    made: dict[tuple[str, str], dict[MessageId, int]] = {}
    for op, got in receipts(history):
        dedup = dedup_of.get((op.queue, got.body))
        if dedup:
            made.setdefault((op.queue, dedup), {})[got.message_id] = got.sent_ms
    found = []
    for (_, dedup), times in made.items():
        ordered = sorted(times.values())
        for earlier, later in pairwise(ordered):
            if later - earlier < history.window_ms - history.skew_ms - ALLOWANCE_MS:
                found.append(("deduplication", f"{dedup}: messages made at {earlier} and {later}: {times}"))
    return found + _check_answers(history)


def _check_answers(history: History) -> list[tuple[str, str]]:
    """What sends were told: one message inside the window, and another after it."""
    answers: dict[tuple[str, str], list[tuple[Op, MessageId]]] = {}
    for op in history.of("send"):
        if op.status == "ok":
            for message in op.sent:
                if message.dedup and message.message_id is not None:
                    answers.setdefault((op.queue, message.dedup), []).append((op, message.message_id))
    slack_us = (history.skew_ms + ALLOWANCE_MS) * MS
    found = []
    for (_, dedup), items in answers.items():
        items.sort(key=lambda item: item[0].invoked_us)
        for op, message_id in items:
            for other, other_id in items:
                assert other.completed_us is not None
                assert op.completed_us is not None
                if message_id == other_id:
                    if other.invoked_us - op.completed_us > history.window_ms * MS + slack_us and _made(op, message_id):
                        found.append(("deduplication", f"{dedup}: op {other.number} was given a message too old"))
                elif (
                    _made(op, message_id)
                    and other.invoked_us > op.completed_us
                    and other.completed_us - op.invoked_us < history.window_ms * MS - slack_us
                ):
                    found.append(("deduplication", f"{dedup}: ops {op.number} and {other.number} made one each"))
    return found


def _made(op: Op, message_id: MessageId) -> bool:
    """Whether this very send made the message."""
    return message_id[:2] == op.id


def check_duplicates(history: History) -> list[tuple[str, str]]:
    """A message id is one message; a body is no more messages than there were sends of it; no delivery is wasted."""
    found: list[tuple[str, str]] = []
    keys: dict[tuple[str, MessageId], int] = {}
    ids: dict[tuple[str, str], set[MessageId]] = {}
    for op, got in receipts(history):
        if keys.setdefault((op.queue, got.message_id), got.key) != got.key:
            found.append(("duplicates", f"{got.body} {got.message_id} has two keys in {op.queue}"))
        ids.setdefault((op.queue, got.body), set()).add(got.message_id)
    sends: dict[str, int] = {}
    for op in history.of("send"):
        if may_have_happened(op):
            for message in op.sent:
                sends[message.body] = sends.get(message.body, 0) + 1
    for (queue, body), messages in ids.items():
        if len(messages) > sends.get(body, 0):
            found.append(("duplicates", f"{body} is {len(messages)} messages in {queue}: {sorted(messages)}"))
    return found + _check_wasted(history)


def _check_wasted(history: History) -> list[tuple[str, str]]:
    """Every delivery that nobody saw is explained by a receive that was not answered."""
    lost: dict[str, list[Op]] = {}
    for op in history.of("receive"):
        if op.status == "unknown":
            lost.setdefault(op.queue, []).append(op)
    deliveries: dict[tuple[str, int], dict[int, tuple[Op, GotMessage]]] = {}
    for op, got in receipts(history):
        deliveries.setdefault((op.queue, got.key), {})[got.delivery] = (op, got)
    found = []
    for (queue, key), seen in deliveries.items():
        last = max(seen)
        op, got = seen[last]
        assert op.completed_us is not None
        explained = sum(other.invoked_us < op.completed_us for other in lost.get(queue, []))
        if last - len(seen) > explained:
            text = f"{got.body} (key {key}): {last} deliveries, {len(seen)} seen, {explained} unanswered receives"
            found.append(("duplicates", text))
    return found
