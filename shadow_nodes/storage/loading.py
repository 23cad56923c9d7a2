"""What the SQLite store reads when it opens: every shard's record and where its log is, all of it checked.

Model: records, spans and counts are read whole; of the log only the tails that no span lists, of rows nothing.
Invariant: what is returned is what was written, or CorruptError is raised.
"""

from __future__ import annotations

import sqlite3
from array import array

from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.errors import CorruptError
from shadow_nodes.storage.shard_state import ShardState, Span
from shadow_nodes.storage.tables import (
    StoredShard,
    log_crc,
    unseal,
    unseal_meta,
    unseal_shard,
    unseal_span,
)
from shadow_nodes.storage.transaction import Contents, Leftovers


def load(connection: sqlite3.Connection) -> tuple[Contents, list[int]]:
    """What the store has, and the staged spaces of copies that a restart interrupted.

    Raises CorruptError, sqlite3.Error, and what decoding damaged rows raises (see ``tables.sqlite_errors``).
    """
    rows = connection.execute("SELECT id, body FROM meta").fetchall()
    if len(rows) != 1 or rows[0][0] != 1:
        raise CorruptError("table meta does not have its one row")
    meta = unseal_meta(rows[0][1])
    leftovers = Leftovers()
    shards: dict[ShardKey, ShardState] = {}
    last_id = connection.execute("SELECT max(id) FROM log").fetchone()[0] or 0
    for space, body in connection.execute("SELECT space, body FROM shards ORDER BY space").fetchall():
        stored = unseal_shard(space, body)
        state = _load_shard(connection, space, stored, leftovers)
        shards[stored.shard] = state
        last_id = max(last_id, stored.last_id)
        if state.drops:
            leftovers.dropping.append(stored.shard)
    if len(shards) != meta.shards:
        raise CorruptError(f"table shards has {len(shards)} of {meta.shards} rows")
    for space, body in connection.execute("SELECT space, body FROM garbage").fetchall():
        unseal("garbage", space, body)
        leftovers.spaces.append(space)
    staged_spaces = [space for (space,) in connection.execute("SELECT space FROM staged").fetchall()]
    live = {state.space for state in shards.values()}
    doubtful = live.intersection(staged_spaces) | live.intersection(leftovers.spaces)
    if doubtful or max(live, default=0) >= meta.next_space:
        raise CorruptError("a space is used twice")
    return Contents(meta, last_id + 1, shards, {}, leftovers), staged_spaces


def _load_shard(connection: sqlite3.Connection, space: int, stored: StoredShard, leftovers: Leftovers) -> ShardState:
    record = stored.record()
    spans: list[Span] = []
    covered_seq = 0
    found = connection.execute("SELECT first_seq, body FROM spans WHERE space = ? ORDER BY first_seq", (space,))
    for first_seq, body in found.fetchall():
        epoch, size_bytes, ids = unseal_span(space, first_seq, body)
        span = Span(first_seq, epoch, size_bytes, ids)
        covered_seq = span.end_seq
        if span.end_seq <= record.log_start.seq:
            leftovers.spans.append((space, span))
        else:
            spans.append(span)
    tail = _load_tail(connection, space, stored, covered_seq)
    state = ShardState(space, record, spans, tail, stored.rows, dict(stored.drops))
    state.refuse_holes()
    return state


def _load_tail(connection: sqlite3.Connection, space: int, stored: StoredShard, covered_seq: int) -> Span | None:
    """Follows ``previous_id`` back from the last entry to the last span, or to where the log was trimmed."""
    ids: list[int] = []
    id_, seq, size_bytes = stored.last_id, stored.last.seq, 0
    while id_ and seq > covered_seq:
        row = connection.execute(
            "SELECT previous_id, space, epoch, seq, crc, data FROM log WHERE id = ?", (id_,)
        ).fetchone()
        if row is None or row[1] != space or row[3] != seq:
            if seq <= stored.log_start.seq:
                break  # trimmed and erased
            raise CorruptError(f"shard {stored.shard}: log entry {seq} is missing")
        previous_id, _, epoch, _, crc, data = row
        if log_crc((id_, previous_id, space, epoch, seq), data) != crc or epoch != stored.last.epoch:
            raise CorruptError(f"shard {stored.shard}: log entry {seq} is damaged")
        ids.append(id_)
        size_bytes += len(data)
        id_, seq = previous_id, seq - 1
    if not ids:
        return None
    return Span(seq + 1, stored.last.epoch, size_bytes, array("q", reversed(ids)))
