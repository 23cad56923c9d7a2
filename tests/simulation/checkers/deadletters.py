"""A message is dead-lettered once, when it was received as often as the queue allows, and never before."""

from __future__ import annotations

from tests.simulation.checkers.common import receipts
from tests.simulation.history import History, MessageId


def check_dead_letters(history: History) -> list[tuple[str, str]]:
    limits = {facts.queue: facts.max_receives for facts in history.queues if facts.dead_letter}
    sources: dict[str, list[str]] = {}
    for facts in history.queues:
        if facts.dead_letter:
            sources.setdefault(facts.dead_letter, []).append(facts.queue)
    found: list[tuple[str, str]] = []
    last: dict[tuple[str, MessageId], tuple[int, int]] = {}
    """When it was last asked for with success, and how often it was delivered."""
    for op, got in receipts(history):
        limit = limits.get(op.queue)
        if limit is not None and got.delivery > limit:
            found.append(("dead letters", f"{got.body}: received {got.delivery} times of {limit} in op {op.number}"))
        name = (op.queue, got.message_id)
        asked_us, deliveries = last.get(name, (0, 0))
        last[name] = max(op.invoked_us, asked_us), max(got.delivery, deliveries)
    unknown = {op.queue for op in history.of("receive") if op.status == "unknown"}
    sent_there = {(op.queue, message.body) for op in history.of("send") for message in op.sent}
    for op, got in receipts(history):
        origins = sources.get(op.queue, [])
        if not origins or (op.queue, got.body) in sent_there:
            continue
        seen = [(*last.get((source, got.message_id), (0, 0)), source) for source in origins]
        assert op.completed_us is not None
        if max(asked_us for asked_us, _, _ in seen) > op.completed_us:
            found.append(("dead letters", f"{got.body}: in its queue again after it was dead-lettered"))
        if not unknown.intersection(origins) and all(count < limits[source] for _, count, source in seen):
            found.append(("dead letters", f"{got.body}: dead-lettered after {seen} of {limits}"))
    return found
