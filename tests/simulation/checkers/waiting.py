"""An empty answer is only given when the queue was empty (P8: a replaced owner may not say so).

Certain is: a message whose send was acknowledged before the receive began, and whose first delivery ever began after
the receive had ended, was there to be received all the while.
"""

from __future__ import annotations

from tests.simulation.checkers.common import acknowledged, receipts
from tests.simulation.history import History


def check_empty_answers(history: History) -> list[tuple[str, str]]:
    if history.may_fall_short:
        return []
    fifo = {facts.queue for facts in history.queues if facts.fifo or facts.delayed}
    delayed = {message.body for op in history.of("send") for message in op.sent if message.delay_ms}
    acked: dict[tuple[str, tuple[int, int, int]], int] = {}
    for op, message_id, _ in acknowledged(history):
        assert op.completed_us is not None
        acked.setdefault((op.queue, message_id), op.completed_us)
    there: dict[str, list[tuple[int, int, str]]] = {}
    for op, got in receipts(history):
        since_us = acked.get((op.queue, got.message_id))
        if got.delivery == 1 and since_us is not None and got.body not in delayed and op.queue not in fifo:
            there.setdefault(op.queue, []).append((since_us, op.invoked_us, got.body))
    found = []
    for op in history.of("receive"):
        if op.status == "ok" and not op.got and op.completed_us is not None:
            for since_us, until_us, body in there.get(op.queue, []):
                if since_us < op.invoked_us and op.completed_us < until_us:
                    found.append(("empty", f"receive {op.number} was empty though {body} was there"))
    return found
