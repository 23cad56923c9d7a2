"""Inside its visibility timeout a message has one holder at most (P2).

Times are true: a delivery happened somewhere between its receive's beginning and end. Whoever was given the message
holds it for certain from the end of his receive until the timeout, counted from its beginning, has passed.
"""

from __future__ import annotations

from tests.simulation.checkers.common import may_have_happened, receipts
from tests.simulation.history import GotMessage, History, Op

MS = 1_000
ALLOWANCE_MS = 5
"""Entries are stamped in whole milliseconds by several clocks."""
DRIFT = 0.005


def check_holders(history: History) -> list[tuple[str, str]]:
    deliveries: dict[tuple[str, int], list[tuple[Op, GotMessage]]] = {}
    for op, got in receipts(history):
        deliveries.setdefault((op.queue, got.key), []).append((op, got))
    changes: dict[tuple[str, int, int], list[tuple[Op, bool]]] = {}
    for op in history.of("change"):
        if may_have_happened(op):
            for index, (key, delivery) in enumerate(op.handles):
                done = op.status == "ok" and op.done[index]
                if op.status == "unknown" or done:
                    changes.setdefault((op.queue, key, delivery), []).append((op, done))
    found = []
    for (queue, key), items in deliveries.items():
        items.sort(key=lambda item: (item[1].delivery, item[0].invoked_us))
        for index, (op, got) in enumerate(items):
            until_us = _held_until_us(op, changes.get((queue, key, got.delivery), []), items)
            until_us -= (history.skew_ms + ALLOWANCE_MS) * MS + int(op.visible_ms * MS * DRIFT)
            for other, again in items[index + 1 :]:
                if again.delivery == got.delivery and op.attempt and other.attempt == op.attempt:
                    continue
                assert other.completed_us is not None
                if again.delivery == got.delivery:
                    text = f"{got.body} (key {key}): delivery {got.delivery} in ops {op.number} and {other.number}"
                    found.append(("holders", text))
                elif other.completed_us < until_us:
                    text = f"{got.body} (key {key}): for {op.visible_ms} ms in {op.number}, again in {other.number}"
                    found.append(("holders", text))
    return found


def _held_until_us(op: Op, changes: list[tuple[Op, bool]], items: list[tuple[Op, GotMessage]]) -> int:
    """A change counts where no other can have come after it: one of unknown outcome may, long after it was given up."""
    until_us = op.invoked_us + op.visible_ms * MS
    for repeat, got in items:
        if op.attempt and repeat.attempt == op.attempt and repeat is not op and got.delivery:
            until_us = min(until_us, repeat.invoked_us + repeat.visible_ms * MS)
    for change, done in sorted(changes, key=lambda item: item[0].invoked_us):
        new_us = change.invoked_us + change.visible_ms * MS
        alone = all(
            other is change
            or (other.status != "unknown" and (other.completed_us or 0) < change.invoked_us)
            or other.invoked_us > (change.completed_us or 0)
            for other, _ in changes
        )
        until_us = new_us if done and alone and not op.attempt else min(until_us, new_us)
    return until_us
