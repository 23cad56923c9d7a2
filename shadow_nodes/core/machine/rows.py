"""The rows that a checkpoint is made of.

Kinds rise in the order in which loading needs them. Numbers are small, so that any store's integers hold them: session
ids, which are random, are inside the rows.
"""

from __future__ import annotations

import enum

import msgspec

from shadow_nodes.core.machine.message import FRESH, Delivery, Message
from shadow_nodes.protocol.commands import (
    NO_REPLICA_SET,
    Items,
    Moved,
    Received,
    Refused,
    ReplicaSet,
    Sent,
    Settings,
    Value,
)

ROWS_VERSION = 1
"""Of the rows' layout: raised when a row changes its meaning."""


class Kind(enum.IntEnum):
    HEADER = 0
    """One, with key 0."""
    ACCEPTED = 1
    """By the order in which sources first came."""
    LETTER = 2
    """By the letter's number."""
    DUPLICATE = 3
    """By the key of the message that was sent first."""
    ATTEMPT = 4
    """By the attempt's number."""
    MESSAGE = 5
    """By the message's key: all that can change."""
    CONTENT = 6
    """By the message's key: written once."""
    SESSION = 7
    """By the session's number. After the messages, to which kept results refer."""


class HeaderRow(Value, frozen=True):
    """``purged_below``, ``outbox_first``: rows of messages and letters with a smaller key or number are leftovers."""

    version: int
    now_ms: int
    ticked_ms: int
    settings: Settings
    sealed: bool
    next_key: int
    purged_below: int
    outbox_first: int
    outbox_next: int
    next_attempt: int
    next_session: int
    replica_set: ReplicaSet = NO_REPLICA_SET


class AcceptedRow(Value, frozen=True):
    source: str
    last: int


class MessageRow(Value, frozen=True):
    session: int
    counter: int
    index: int
    sent_ms: int
    group_id: str
    source: str | None
    number: int
    first_ms: int
    last_ms: int
    until_ms: int


class KeptReceived(Value, frozen=True):
    """A message of a kept result. ``whole`` None: the message is still held, and the rest is taken from it."""

    key: int
    delivery: int
    first_received_ms: int
    whole: Received | None


class KeptBatch(Value, frozen=True, tag=30):
    messages: list[KeptReceived]


KeptResult = Refused | Sent | Items | Moved | KeptBatch


class SessionRow(Value, frozen=True):
    """``results``: (counter, result), counters rising."""

    id: int
    mark: int
    last_ms: int
    results: list[tuple[int, KeptResult | None]]


encode = msgspec.msgpack.Encoder().encode
decode_header = msgspec.msgpack.Decoder(HeaderRow).decode
decode_accepted = msgspec.msgpack.Decoder(AcceptedRow).decode
decode_message = msgspec.msgpack.Decoder(MessageRow).decode
decode_session = msgspec.msgpack.Decoder(SessionRow).decode


def message_row(message: Message) -> MessageRow:
    delivery = message.delivery
    return MessageRow(
        message.session,
        message.counter,
        message.index,
        message.sent_ms,
        message.group_id,
        message.source,
        delivery.number,
        delivery.first_ms,
        delivery.last_ms,
        delivery.until_ms,
    )


def message_from(key: int, row: MessageRow) -> Message:
    delivery = FRESH
    if row.number or row.until_ms:
        delivery = Delivery(row.number, row.first_ms, row.last_ms, row.until_ms)
    return Message(key, None, row.session, row.counter, row.index, row.sent_ms, row.group_id, row.source, delivery)
