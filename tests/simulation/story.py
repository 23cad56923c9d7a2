"""Histories written by hand, for the checkers' tests."""

from __future__ import annotations

from typing import Any

from tests.simulation.checkers import check_all
from tests.simulation.history import GotMessage, History, Op, QueueFacts, SentMessage

MS = 1_000
S, F, D = "s", "f", "d"


class Story:
    """Operations one after the other, 100 ms each, or at given times (milliseconds)."""

    def __init__(self, **facts: Any) -> None:
        limit = facts.pop("max_receives", 0)
        retention_ms = facts.pop("retention_ms", 0)
        queues = [
            QueueFacts(S, "standard", False, limit, D if limit else "", retention_ms=retention_ms),
            QueueFacts(F, "ordered.fifo", True),
            QueueFacts(D, "dead", False),
        ]
        self.history = History(queues=queues, drained=facts.pop("drained", True), **facts)
        self.at_ms = 0

    def _add(self, kind: str, queue: str, at: tuple[int, int] | None, **fields: Any) -> Op:
        begin, end = at or (self.at_ms, self.at_ms + 100)
        self.at_ms = max(self.at_ms, end) + 10
        fields.setdefault("status", "ok")
        op = Op(len(self.history.ops) + 1, "c", kind, queue, begin * MS, end * MS, **fields)
        self.history.ops.append(op)
        return op

    def send(self, queue: str, body: str, key: int, at: tuple[int, int] | None = None, **fields: Any) -> Op:
        number = len(self.history.ops) + 1
        status = fields.pop("status", "ok")
        identity = fields.pop("message_id", (1, number, 0))
        known = identity if status == "ok" else None
        group = "g" if queue == F else ""
        dedup = fields.pop("dedup", body if queue == F else "")
        message = SentMessage(body, group, dedup, 0, known, key if known and queue == F else 0)
        return self._add("send", queue, at, sent=[message], id=(1, number), status=status)

    def receive(
        self, queue: str, *got: tuple[str, int, int, int], at: tuple[int, int] | None = None, **fields: Any
    ) -> Op:
        """``got``: (body, number of the send that made it, key, delivery) each."""
        group = "g" if queue == F else ""
        messages = [GotMessage(body, (1, send, 0), key, delivery, group, 0) for body, send, key, delivery in got]
        fields.setdefault("visible_ms", 1_000)
        return self._add("receive", queue, at, got=messages, **fields)

    def delete(self, queue: str, key: int, delivery: int, at: tuple[int, int] | None = None, **fields: Any) -> Op:
        return self._add("delete", queue, at, handles=[(key, delivery)], done=[True], **fields)

    def found(self) -> list[str]:
        return sorted({check for check, _ in check_all(self.history)})
