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
        for source in sources.get(op.queue, []):
            if (source, got.body) not in sent_there or (op.queue, got.body) in sent_there:
                continue
            moved_us, deliveries = last.get((source, got.message_id), (0, 0))
            assert op.completed_us is not None
            if moved_us > op.completed_us:
                found.append(("dead letters", f"{got.body}: in {source} again after it was dead-lettered"))
            if deliveries < limits[source] and source not in unknown:
                found.append(("dead letters", f"{got.body}: dead-lettered after {deliveries} of {limits[source]}"))
    return found
