"""What is told of a shard's log to those who read it later: entries, and what became of their operations.

Model: entries say who asked for what; outcomes are what applying them gave, small (no message bodies). An operation
without an outcome did plainly what it asked.
"""

from __future__ import annotations

import msgspec

from shadow_nodes.protocol.commands import Items, Moved, Refused, Sent, Value
from shadow_nodes.protocol.errors import ProtocolError
from shadow_nodes.protocol.messages import Position


class Given(Value, frozen=True, tag=40):
    """What a receive gave: (key, delivery, message id) of each message; may be none."""

    messages: list[tuple[int, int, tuple[int, int, int]]]


class Repeated(Value, frozen=True, tag=41):
    """A copy of an operation that had been executed, under the same id: it did nothing."""


class Taken(Value, frozen=True, tag=42):
    """An Accept some of whose letters had been taken before: the first ``skipped`` of them."""

    skipped: int


Outcome = Refused | Sent | Items | Moved | Given | Repeated | Taken
EntryOutcomes = tuple[int, list[tuple[int, Outcome]]]
"""An entry's seq, and the index and outcome of each of its operations that has one."""


class LogPage(Value, frozen=True):
    """A piece of a shard's log as a node holds it: committed, and on its disk."""

    begins: Position
    """The log holds the entries after this one; what came before is no longer kept."""
    committed_seq: int
    """How far the log could be read when this was asked."""
    after_seq: int
    """``entries`` follow this one: what was asked for, or where the log begins if that is later."""
    entries: list[bytes]
    outcomes: list[EntryOutcomes]


encode_page = msgspec.msgpack.Encoder().encode
_decode_page = msgspec.msgpack.Decoder(LogPage).decode


def decode_page(data: bytes) -> LogPage:
    """Raises ProtocolError."""
    try:
        return _decode_page(data)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not a page of a log: {error}") from error
