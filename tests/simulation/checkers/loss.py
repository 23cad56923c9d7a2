"""Nothing acknowledged is lost (P1), nothing comes that was not sent, nothing deleted comes back (P3)."""

from __future__ import annotations

from tests.simulation.checkers.common import acknowledged, cleared, deletes_by_key, end_us, receipts
from tests.simulation.history import History


def check_lost(history: History) -> list[tuple[str, str]]:
    """An acknowledged message was received, or may have been purged, or the queue was deleted.

    Only where the queues were read to their end: a message that nobody has seen may still be there otherwise. One that
    was received and not deleted must have come again, in its queue or in the dead-letter queue, until it was deleted.
    Queues with a short retention: see expiry.py.
    """
    if not history.drained:
        return []
    kept = {facts.queue for facts in history.queues if not facts.retention_ms}
    seen: dict[tuple[str, tuple[int, int, int]], list[tuple[str, int]]] = {}
    for op, got in receipts(history):
        seen.setdefault((op.queue, got.message_id), []).append((op.queue, got.key))
    deletes = deletes_by_key(history)
    found = []
    for op, message_id, body in acknowledged(history):
        if op.queue not in kept:
            continue
        queues = [op.queue, *(item.dead_letter for item in history.queues if item.queue == op.queue)]
        since_us = op.invoked_us if message_id[:2] == op.id else 0
        if any(clear for queue in queues for clear in cleared(history, queue) if end_us(clear) > since_us):
            continue
        handles = [handle for queue in queues for handle in seen.get((queue, message_id), [])]
        if not handles:
            found.append(("lost", f"{body} {message_id}: acknowledged by op {op.number}, never received"))
        elif not any(handle in deletes for handle in handles):
            found.append(("lost", f"{body} {message_id}: received, never deleted, and gone"))
    return found


def check_unexpected(history: History) -> list[tuple[str, str]]:
    """What is received was sent to that queue, or to one whose dead letters it takes, and is as it was sent."""
    sources: dict[str, set[str]] = {}
    for facts in history.queues:
        sources.setdefault(facts.queue, set()).add(facts.queue)
        if facts.dead_letter:
            sources.setdefault(facts.dead_letter, set()).add(facts.queue)
    sent: dict[tuple[str, str], int] = {}
    groups: dict[tuple[str, str], str] = {}
    for op in history.of("send"):
        for message in op.sent:
            name = (op.queue, message.body)
            sent[name] = min(op.invoked_us, sent.get(name, op.invoked_us))
            groups[name] = message.group
    found = []
    for op, got in receipts(history):
        names = [(queue, got.body) for queue in sorted(sources.get(op.queue, ())) if (queue, got.body) in sent]
        assert op.completed_us is not None
        if not names:
            found.append(("unexpected", f"{got.body} came from {op.queue} and was never sent there"))
        elif min(sent[name] for name in names) > op.completed_us:
            found.append(("unexpected", f"{got.body} came before it was sent"))
        elif got.group not in [groups[name] for name in names]:
            found.append(("unexpected", f"{got.body} came in group {got.group!r}"))
    return found


def check_resurrected(history: History) -> list[tuple[str, str]]:
    """A receive that began after a delete (or purge) was acknowledged does not give the message."""
    deleted: dict[tuple[str, int], int] = {}
    for handle, items in deletes_by_key(history).items():
        ends = [end_us(op) for op, _, done in items if done]
        if ends:
            deleted[handle] = min(ends)
    acked = {(op.queue, message_id): op for op, message_id, _ in acknowledged(history)}
    found = []
    for op, got in receipts(history):
        if deleted.get((op.queue, got.key), op.invoked_us) < op.invoked_us:
            found.append(("resurrected", f"{got.body} (key {got.key}) came in op {op.number} after its delete"))
        send = acked.get((op.queue, got.message_id))
        for purge in history.of("purge", op.queue):
            purged = purge.status == "ok" and send is not None and end_us(send) < purge.invoked_us
            if purged and end_us(purge) < op.invoked_us:
                found.append(("resurrected", f"{got.body} came in op {op.number} after purge {purge.number}"))
    return found
