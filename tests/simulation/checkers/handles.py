"""An old receipt handle does nothing: a FIFO queue's delete and any change of visibility take only the current one."""

from __future__ import annotations

from tests.simulation.checkers.common import cleared, deletes_by_key, receipts
from tests.simulation.history import History


def check_handles(history: History) -> list[tuple[str, str]]:
    """Only where the message is surely there: for one that is gone, perhaps as a dead letter, any delete succeeds."""
    fifo = {facts.queue for facts in history.queues if facts.fifo and not facts.dead_letter}
    later: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for op, got in receipts(history):
        assert op.completed_us is not None
        later.setdefault((op.queue, got.key), []).append((op.completed_us, got.delivery))
    deletes = deletes_by_key(history)
    found = []
    for op in history.ops:
        if op.kind not in {"delete", "change"} or op.status != "ok" or (op.kind == "delete" and op.queue not in fifo):
            continue
        assert op.completed_us is not None
        if any(clear.invoked_us < op.completed_us for clear in cleared(history, op.queue)):
            continue
        for (key, delivery), done in zip(op.handles, op.done, strict=True):
            newer = [
                number
                for seen_us, number in later.get((op.queue, key), [])
                if number > delivery and seen_us < op.invoked_us
            ]
            others = [other for other, _, _ in deletes.get((op.queue, key), []) if other is not op]
            if done and newer and not any(other.invoked_us < op.completed_us for other in others):
                text = f"op {op.number} {op.kind}d key {key} with delivery {delivery}, after {max(newer)} was given"
                found.append(("handles", text))
    return found
