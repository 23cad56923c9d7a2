"""Messages end with their retention: none comes later, and none is gone before.

That one is gone too early is certain where a receive came back empty in its time, nobody has ever been given it, and no
receive had been left without an answer until then, which might have taken it.
"""

from __future__ import annotations

from tests.simulation.checkers.common import acknowledged, cleared, receipts
from tests.simulation.history import History, QueueFacts

MS = 1_000
ALLOWANCE_MS = 50


def check_expiry(history: History) -> list[tuple[str, str]]:
    found = []
    for facts in history.queues:
        if facts.retention_ms:
            found += _check_late(history, facts) + _check_early(history, facts)
    return found


def _check_late(history: History, facts: QueueFacts) -> list[tuple[str, str]]:
    lasts_us = (facts.retention_ms + history.skew_ms + ALLOWANCE_MS) * MS
    ends = {
        (op.queue, message_id): op.completed_us + lasts_us
        for op, message_id, _ in acknowledged(history)
        if op.completed_us is not None
    }
    return [
        ("expiry", f"{got.body} came in op {op.number} after its retention")
        for op, got in receipts(history)
        if op.queue == facts.queue and op.invoked_us > ends.get((op.queue, got.message_id), op.invoked_us)
    ]


def _check_early(history: History, facts: QueueFacts) -> list[tuple[str, str]]:
    if history.may_fall_short or cleared(history, facts.queue):
        return []
    seen = {got.message_id for op, got in receipts(history) if op.queue == facts.queue}
    receives = history.of("receive", facts.queue)
    unanswered_us = min((op.invoked_us for op in receives if op.status == "unknown"), default=1 << 62)
    empty = [op for op in receives if op.status == "ok" and not op.got]
    delayed = {message.body for op in history.of("send") for message in op.sent if message.delay_ms}
    found = []
    for op, message_id, body in acknowledged(history):
        if op.queue != facts.queue or message_id in seen or body in delayed or op.completed_us is None:
            continue
        end_us = op.invoked_us + (facts.retention_ms - history.skew_ms - ALLOWANCE_MS) * MS
        for receive in empty:
            answered_us = receive.completed_us
            if answered_us is not None and op.completed_us < receive.invoked_us and answered_us < end_us:
                if answered_us < unanswered_us:
                    found.append(("expiry", f"{body} was gone in receive {receive.number}, before its time"))
                break
    return found
