"""What clients did and saw, as plain data: all that checkers are given.

Model: one ``Op`` per call of a client, from when it was asked to when it was answered, in virtual microseconds of true
time. ``status``: "ok", "refused" (it has not happened), or "unknown" (no answer, or an answer that says so).
"""

from __future__ import annotations

from typing import Any

import msgspec

MessageId = tuple[int, int, int]


class SentMessage(msgspec.Struct, frozen=True):
    """``body`` names the message; who repeats a send repeats the body. ``message_id``, ``key``: as answered."""

    body: str
    group: str = ""
    dedup: str = ""
    delay_ms: int = 0
    message_id: MessageId | None = None
    key: int = 0


class GotMessage(msgspec.Struct, frozen=True):
    body: str
    message_id: MessageId
    key: int
    delivery: int
    group: str = ""
    sent_ms: int = 0


class Op(msgspec.Struct):
    """``kind``: send, receive, delete, change, purge, create, drop, configure.

    ``queue`` is the queue's id: a queue that was deleted and made again has another. ``visible_ms``: the visibility
    timeout of a receive, or the new one of a change. ``handles``: (key, delivery) of deletes and changes.
    """

    number: int
    client: str
    kind: str
    queue: str
    invoked_us: int
    completed_us: int | None = None
    status: str = "unknown"
    sent: list[SentMessage] = []
    got: list[GotMessage] = []
    handles: list[tuple[int, int]] = []
    done: list[bool] = []
    """Of a delete or change that was answered: whether each handle's part was done."""
    visible_ms: int = 0
    attempt: str = ""
    wait_ms: int = 0
    id: tuple[int, int] = (0, 0)
    """Of a send that was answered: what the ids of the messages that it made begin with."""
    manager: str = ""
    """Through which manager it was asked."""


class QueueFacts(msgspec.Struct, frozen=True):
    """``dead_letter``: the id of the queue that takes messages received ``max_receives`` times; "" for none."""

    queue: str
    name: str
    fifo: bool
    max_receives: int = 0
    dead_letter: str = ""
    delayed: bool = False
    retention_ms: int = 0
    """0: longer than any run."""


class History(msgspec.Struct):
    """``skew_ms``: how far clocks may be apart in this run. ``window_ms``: the deduplication window.

    ``drained``: whether the queues were read to their end, so that what was not seen is lost.
    ``may_fall_short``: a receive may find less than there is, because much expires or is dead-lettered at once.
    """

    ops: list[Op] = []
    queues: list[QueueFacts] = []
    skew_ms: int = 0
    window_ms: int = 300_000
    drained: bool = False
    may_fall_short: bool = False

    def facts(self, queue: str) -> QueueFacts:
        return next(item for item in self.queues if item.queue == queue)

    def of(self, kind: str, queue: str | None = None) -> list[Op]:
        return [op for op in self.ops if op.kind == kind and (queue is None or op.queue == queue)]


def as_data(history: History) -> Any:
    return msgspec.to_builtins(history)
