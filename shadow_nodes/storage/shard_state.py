"""What the SQLite store keeps in memory of a shard: its record, and where its log entries are.

Model: the log is a run of closed ``Span``s, which are rows of the database, and one open tail. States are never
changed but replaced, so a reader in another thread always holds one that was true at some time.
Invariant: spans and tail are without holes; together they reach from ``log_start`` (or before) to ``last``.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import msgspec

from shadow_nodes.core.store import ReplicaRecord
from shadow_nodes.protocol.errors import CorruptError
from shadow_nodes.protocol.messages import Position
from shadow_nodes.storage.tables import SPAN_BYTES_MAX, SPAN_ENTRIES_MAX, StoredShard, StoredSpan


class Span(NamedTuple):
    """Entries of one shard and epoch, in order. ``ids``: their rows in the log table."""

    first_seq: int
    epoch: int
    size_bytes: int
    ids: array[int]

    @property
    def end_seq(self) -> int:
        return self.first_seq + len(self.ids) - 1

    @property
    def full(self) -> bool:
        return len(self.ids) >= SPAN_ENTRIES_MAX or self.size_bytes >= SPAN_BYTES_MAX

    def stored(self) -> StoredSpan:
        return StoredSpan(self.epoch, self.size_bytes, self.ids)

    def cut(self, after_seq: int) -> Span:
        """Without the entries after a seq. The size stays: it is a bound, not an account."""
        return self._replace(ids=self.ids[: after_seq - self.first_seq + 1])


class ShardState(msgspec.Struct, frozen=True, gc=False):
    space: int
    record: ReplicaRecord
    spans: list[Span]
    tail: Span | None
    rows: int
    drops: dict[int, int]
    """Kind to the key below which rows of that kind are dropped, though still there."""

    @property
    def last_id(self) -> int:
        """The log row of the last entry, 0 where the log is empty."""
        if self.tail is not None:
            return self.tail.ids[-1]
        return self.spans[-1].ids[-1] if self.spans else 0

    def stored(self) -> StoredShard:
        record = self.record
        return StoredShard(
            record.shard,
            record.promised,
            record.commit_seq,
            record.checkpoint,
            record.log_start,
            record.last,
            self.last_id,
            self.rows,
            list(self.drops.items()),
            record.retired,
        )

    def _from(self, seq: int) -> Iterator[Span]:
        """Spans and tail, from the one with the entry of a seq on."""
        for index in range(bisect_left(self.spans, seq, key=lambda span: span.end_seq), len(self.spans)):
            yield self.spans[index]
        if self.tail is not None and self.tail.end_seq >= seq:
            yield self.tail

    def position_at(self, seq: int) -> Position:
        """Of an entry that is there."""
        return Position(next(self._from(seq)).epoch, seq)

    def entries(self, after_seq: int, up_to_seq: int) -> Iterator[tuple[int, int, int]]:
        """(row of the log table, epoch, seq) of each entry after a seq, up to another, in order."""
        seq = max(after_seq, self.record.log_start.seq) + 1
        for span in self._from(seq):
            for index in range(max(seq - span.first_seq, 0), len(span.ids)):
                if span.first_seq + index > up_to_seq:
                    return
                yield span.ids[index], span.epoch, span.first_seq + index

    def epochs(self) -> list[Position]:
        """The first position of each epoch in the log."""
        first_seq = self.record.log_start.seq + 1
        positions: list[Position] = []
        for span in self._from(first_seq):
            if not positions or positions[-1].epoch != span.epoch:
                positions.append(Position(span.epoch, max(span.first_seq, first_seq)))
        return positions

    def refuse_holes(self) -> None:
        """Raises CorruptError where spans and tail do not make up the log that the record says there is."""
        record = self.record
        runs = [*self.spans, *([self.tail] if self.tail else [])]
        seq = record.log_start.seq
        if runs and runs[0].first_seq > seq + 1:
            raise CorruptError(f"shard {record.shard}: the log's beginning after {record.log_start} is missing")
        for earlier, later in pairwise(runs):
            if later.first_seq != earlier.end_seq + 1 or later.epoch < earlier.epoch:
                raise CorruptError(f"shard {record.shard}: log entries after {earlier.end_seq} are missing")
        end = Position(runs[-1].epoch, runs[-1].end_seq) if runs else record.log_start
        if end != record.last:
            raise CorruptError(f"shard {record.shard}: the log ends at {end} instead of {record.last}")
