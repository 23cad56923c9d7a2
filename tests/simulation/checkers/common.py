"""What several checkers look up in a history."""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulation.history import GotMessage, History, MessageId, Op

NEVER_US = 1 << 62


def receipts(history: History) -> Iterator[tuple[Op, GotMessage]]:
    for op in history.ops:
        if op.kind == "receive" and op.status == "ok":
            for got in op.got:
                yield op, got


def end_us(op: Op) -> int:
    """By when it has happened, if it has: an operation without an answer may happen at any time."""
    return op.completed_us if op.completed_us is not None and op.status != "unknown" else NEVER_US


def may_have_happened(op: Op) -> bool:
    return op.status != "refused"


def deletes_by_key(history: History) -> dict[tuple[str, int], list[tuple[Op, int, bool]]]:
    """(queue, key) to the deletes that name it: (op, delivery, whether it was acknowledged)."""
    found: dict[tuple[str, int], list[tuple[Op, int, bool]]] = {}
    for op in history.ops:
        if op.kind == "delete" and may_have_happened(op):
            for index, (key, delivery) in enumerate(op.handles):
                done = op.status == "ok" and op.done[index]
                found.setdefault((op.queue, key), []).append((op, delivery, done))
    return found


def cleared(history: History, queue: str) -> list[Op]:
    """What may have emptied the queue as a whole."""
    return [op for op in history.ops if op.queue == queue and op.kind in {"purge", "drop"} and may_have_happened(op)]


def acknowledged(history: History) -> Iterator[tuple[Op, MessageId, str]]:
    """(send, message id, body) of every message that was acknowledged; duplicates by deduplication id included."""
    for op in history.ops:
        if op.kind == "send" and op.status == "ok":
            for message in op.sent:
                if message.message_id is not None:
                    yield op, message.message_id, message.body
