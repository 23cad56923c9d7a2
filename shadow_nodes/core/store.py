"""What a node's core asks of its store: a handful of methods, and the writes as plain data.

Model: per shard a ``ReplicaRecord``, a log of encoded entries, and the state machine's rows as of ``checkpoint``.
Invariant: a ``write`` is atomic and durable when it returns; what was not written before a crash is not there after it.
Methods are synchronous; the driver decides where ``write`` runs. Reads see every write that has returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import msgspec

from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.messages import LOG_START, NO_TOKEN, Position, Token

RowKey = tuple[int, int]
"""(kind, key): what a row is about is the state machine's business."""
Row = tuple[int, int, bytes]
"""(kind, key, value)."""


class ReplicaRecord(msgspec.Struct, frozen=True):
    """All that a node must remember of a shard besides its log and rows.

    ``checkpoint``: the rows are the state after this entry. ``log_start``: the log holds the entries after this one.
    ``retired``: the replica has once left its set; while the log is empty, it is a tombstone.
    """

    shard: ShardKey
    promised: Token = NO_TOKEN
    commit_seq: int = 0
    checkpoint: Position = LOG_START
    log_start: Position = LOG_START
    last: Position = LOG_START
    retired: bool = False


class LogEntry(msgspec.Struct, frozen=True, gc=False):
    epoch: int
    seq: int
    data: bytes


class RowChanges(msgspec.Struct, frozen=True):
    """``drop``: (kind, key) each: rows of that kind with a smaller key go, before the rest is done.

    They may go later and a few at a time: whoever loads rows must not be misled by ones that are still there.
    """

    puts: list[Row] = []
    deletes: list[RowKey] = []
    drop: list[RowKey] = []


class Twins(msgspec.Struct, frozen=True):
    """Rows of ``kind`` and of ``of`` have the same keys, so the one can be counted by the other."""

    kind: int
    of: int
    bytes_max: int
    """A walk may leave out rows of ``kind`` when their values have come to this."""


class Checkpoint(msgspec.Struct, frozen=True):
    """``outcomes``: (seq, chunk) of what became of operations since the last checkpoint; see core/outcomes.py.

    Kept as long as the entry at that seq is.
    """

    position: Position
    changes: RowChanges
    outcomes: list[tuple[int, bytes]] = []


class ShardWrite(msgspec.Struct):
    """What one transaction changes of one shard, in the order of the fields; None and empty change nothing."""

    shard: ShardKey
    erase: bool = False
    """Forget everything of the shard; with the other fields empty."""
    install: int | None = None
    """Replace log and rows by the staged snapshot of this number (see ``stage``); the promise stays."""
    promised: Token | None = None
    cut_after: int | None = None
    """Drop log entries with a greater seq."""
    entries: list[LogEntry] = msgspec.field(default_factory=list)
    commit_seq: int | None = None
    checkpoint: Checkpoint | None = None
    trim: Position | None = None
    """Drop log entries up to this one, which is not after the checkpoint; it becomes ``log_start``."""
    retired: bool = False
    """Remember that the replica has left its set, until the shard is erased."""


class Store(Protocol):
    """Raises OSError or CorruptError from any method; after either the node must stop using the store.

    NoRoomError, from ``write`` and ``stage`` only, is neither: nothing has changed, and the store goes on.
    """

    @property
    def incarnation(self) -> str:
        """The random name this store was created with."""

    def recover(self) -> list[ReplicaRecord]:
        """The records of all shards. Called once, first."""

    def write(self, writes: list[ShardWrite]) -> None:
        """All of them, atomically and durably."""

    def read_log(self, shard: ShardKey, after_seq: int, up_to_seq: int, limit_bytes: int) -> list[LogEntry]:
        """Entries with after_seq < seq <= up_to_seq, in order, until limit_bytes are reached; at least one."""

    def read_outcomes(self, shard: ShardKey, after_seq: int, up_to_seq: int) -> list[bytes]:
        """Chunks in order, from the first with seq > after_seq to the first with seq >= up_to_seq."""

    def log_epochs(self, shard: ShardKey) -> list[Position]:
        """The first position of each epoch in the log, in order: enough to know the epoch of every entry."""

    def read_rows(self, shard: ShardKey, twins: Twins | None = None) -> Iterable[Row]:
        """Every row of the checkpoint but what ``twins`` allows to leave out, by rising kind, and key within a kind."""

    def read_row(self, shard: ShardKey, kind: int, key: int) -> bytes | None:
        """One row of the checkpoint."""

    def snapshot(self, shard: ShardKey, chunk_bytes: int) -> tuple[ReplicaRecord, Iterator[list[Row]]]:
        """A consistent copy of the checkpoint by a reader of its own, in chunks, for another node.

        May run in another thread, while writes go on. The record says which checkpoint it is.
        """

    def stage(self, shard: ShardKey, number: int, checkpoint: Position, rows: list[Row]) -> None:
        """Puts a chunk of a snapshot aside under a number; it counts for nothing until a ShardWrite installs it.

        The first chunk of a number replaces what an interrupted copy left. May be called from another thread.
        """

    def size_bytes(self) -> int:
        """Of everything on disk."""

    def spare_bytes(self) -> int:
        """What will be written before the files on disk grow, less what is missing of the reserve for a full disk."""

    def make_reserve(self) -> None:
        """Holds disk space back again where it was given up; nothing happens where there is no room for it."""

    def close(self) -> None: ...
