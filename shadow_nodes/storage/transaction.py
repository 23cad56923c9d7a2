"""One transaction of the SQLite store: from ShardWrites to rows, and to the states that hold once it is committed.

Model: writes are worked into drafts of the shards' states; inserts gather and go to the database in few, large
statements, because every step of a statement gives up the interpreter lock. What a write makes superfluous is only
noted; tidying erases a bounded number of rows per transaction.
Invariant: no state outside changes before the commit, but the leftovers, which can be rolled back.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar
from zlib import crc32

from shadow_nodes.core.store import LogEntry, ReplicaRecord, Row, RowChanges, RowKey, ShardWrite
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.messages import Position
from shadow_nodes.storage.shard_state import ShardState, Span
from shadow_nodes.storage.tables import (
    SPAN_BYTES_MAX,
    SPAN_ENTRIES_MAX,
    Meta,
    Staged,
    outcome_crc,
    pack_log_key,
    row_crc,
    seal,
    seal_meta,
    seal_shard,
    seal_span,
    seal_staged,
    unseal_span,
)
from shadow_nodes.storage.transitions import after_write, check_erase

T = TypeVar("T")

STATEMENT_ROWS_MAX = 32
"""Rows of one statement; there is a prepared statement for each number up to this. Larger ones measured slower."""
ROWS_ERASED_MAX = 64
"""Checkpoint rows erased by one step of tidying."""
ENTRIES_PER_TIDY_STEP = 50
"""A step erases a span of up to twice as many entries, so tidying keeps ahead of writing."""


class Leftovers:
    """What is to be erased, a little with every transaction. Spaces and spans here belong to no shard any more."""

    def __init__(self) -> None:
        self.spans: deque[tuple[int, Span]] = deque()
        self.spaces: deque[int] = deque()
        self.dropping: deque[ShardKey] = deque()
        self._undo: list[Callable[[], None]] = []
        """How to take back what the transaction under way has done here, in the order in which it did it."""

    def __bool__(self) -> bool:
        return bool(self.spans or self.spaces or self.dropping)

    def add(self, pile: deque[T], item: T) -> None:
        pile.append(item)
        self._undo.append(lambda: _drop_last(pile))

    def take(self, pile: deque[T]) -> T:
        item = pile.popleft()
        self._undo.append(lambda: pile.appendleft(item))
        return item

    def settle(self) -> None:
        """The transaction is committed."""
        self._undo.clear()

    def roll_back(self) -> None:
        """The transaction was rolled back: what it found here is to be erased still, and nothing else."""
        while self._undo:
            self._undo.pop()()


def _drop_last(pile: deque[T]) -> None:
    pile.pop()


@dataclass
class Contents:
    """What the database has, as far as it is kept in memory."""

    meta: Meta
    next_id: int
    """The next log entry's row in the log table."""
    shards: dict[ShardKey, ShardState]
    staged: dict[ShardKey, tuple[int, Staged]]
    """Space and account of the snapshot being copied."""
    leftovers: Leftovers

    def adopt(self, transaction: Transaction) -> None:
        """The transaction is committed."""
        self.leftovers.settle()
        self.meta, self.next_id = transaction.meta, transaction.next_id
        for shard, state in transaction.shards.items():
            if state is None:
                self.shards.pop(shard, None)
            else:
                self.shards[shard] = state
        for shard, staged in transaction.staged.items():
            if staged is None:
                self.staged.pop(shard, None)
            else:
                self.staged[shard] = staged


class Transaction:
    """To be used between BEGIN and COMMIT; then the contents adopt it."""

    def __init__(self, connection: sqlite3.Connection, contents: Contents) -> None:
        self._connection = connection
        self._contents = contents
        self._leftovers = contents.leftovers
        self._log: list[Any] = []
        self._spans: list[Any] = []
        self.shards: dict[ShardKey, ShardState | None] = {}
        self.staged: dict[ShardKey, tuple[int, Staged] | None] = {}
        self.meta = contents.meta
        self.next_id = contents.next_id

    # --- steps of a write

    def add(self, write: ShardWrite) -> None:
        """Raises ValueError where the write does not fit its shard."""
        if write.erase:
            check_erase(write)
            self._erase(write.shard)
            return
        state = self._state(write.shard) or self._create(write.shard)
        space, staged = self._staged(write.shard)
        position = staged.checkpoint if staged is not None and staged.number == write.install else None
        record = after_write(state.record, write, state.position_at, position)
        if write.install is not None and staged is not None:
            state = self._install(state, space, staged)
        if write.cut_after is not None and write.cut_after < state.record.last.seq:
            state = self._cut(state, write.cut_after)
        spans, tail, rows, drops = state.spans, state.tail, state.rows, state.drops
        if write.entries:
            spans, tail = self._append(state, write.entries)
        if write.checkpoint is not None:
            rows, drops = self._change_rows(state, write.checkpoint.changes)
            self._insert_outcomes(state.space, write.checkpoint.outcomes)
        if write.trim is not None:
            spans, tail = self._trim(state.space, record.log_start.seq, spans, tail)
            self._connection.execute(
                "DELETE FROM outcomes WHERE space = ? AND seq <= ?", (state.space, record.log_start.seq)
            )
        self.shards[write.shard] = ShardState(state.space, record, spans, tail, rows, drops)

    def _state(self, shard: ShardKey) -> ShardState | None:
        return self.shards[shard] if shard in self.shards else self._contents.shards.get(shard)

    def _staged(self, shard: ShardKey) -> tuple[int, Staged | None]:
        staged = self.staged[shard] if shard in self.staged else self._contents.staged.get(shard)
        return staged if staged is not None else (0, None)

    def _new_space(self, shards: int) -> int:
        space = self.meta.next_space
        self.meta = Meta(self.meta.incarnation, self.meta.shards + shards, space + 1)
        return space

    def _create(self, shard: ShardKey) -> ShardState:
        return ShardState(self._new_space(1), ReplicaRecord(shard), [], None, 0, {})

    def _erase(self, shard: ShardKey) -> None:
        self._unstage(shard)
        state = self._state(shard)
        if state is None:
            return
        self._retire(state)
        self.shards[shard] = None
        self.meta = Meta(self.meta.incarnation, self.meta.shards - 1, self.meta.next_space)

    def _retire(self, state: ShardState) -> None:
        """The space becomes garbage; its tail becomes a span, so that the garbage can be found."""
        if state.tail is not None:
            self._close(state.space, state.tail)
        self._connection.execute("DELETE FROM shards WHERE space = ?", (state.space,))
        self._discard(state.space)

    def _discard(self, space: int) -> None:
        self._connection.execute("INSERT INTO garbage VALUES (?, ?)", (space, seal("garbage", space, b"")))
        self._leftovers.add(self._leftovers.spaces, space)

    def _install(self, state: ShardState, space: int, staged: Staged) -> ShardState:
        self._retire(state)
        self._connection.execute("DELETE FROM staged WHERE space = ?", (space,))
        self.staged[staged.shard] = None
        return ShardState(space, state.record, [], None, staged.rows, {})

    def _cut(self, state: ShardState, after_seq: int) -> ShardState:
        self._flush()
        gone: list[int] = []
        spans, tail = list(state.spans), state.tail
        while tail is not None or spans:
            if tail is None:  # a closed span is opened again
                tail = spans.pop()
                self._connection.execute(
                    "DELETE FROM spans WHERE space = ? AND first_seq = ?", (state.space, tail.first_seq)
                )
            if tail.end_seq <= after_seq:
                break
            kept = tail.cut(after_seq) if tail.first_seq <= after_seq else None
            gone += tail.ids[len(kept.ids) if kept else 0 :]
            tail = kept
        self._connection.executemany("DELETE FROM log WHERE id = ?", [(id_,) for id_ in gone])
        return ShardState(state.space, state.record, spans, tail, state.rows, state.drops)

    def _append(self, state: ShardState, entries: list[LogEntry]) -> tuple[list[Span], Span | None]:
        """The hot path: one span is filled at a time, so that nothing but its entries is touched for each of them."""
        space, spans, tail = state.space, state.spans, state.tail
        previous_id = state.last_id
        done = 0
        while done < len(entries):
            epoch = entries[done].epoch
            if tail is None or tail.full or tail.epoch != epoch:
                if tail is not None:
                    self._close(space, tail)
                    spans = [*spans, tail]
                tail = Span(entries[done].seq, epoch, 0, array("q"))
            ids, size_bytes, next_id, log = tail.ids[:], tail.size_bytes, self.next_id, self._log
            part = entries[done : done + SPAN_ENTRIES_MAX - len(ids)]
            for entry in part:
                if size_bytes >= SPAN_BYTES_MAX or entry.epoch != epoch:
                    break
                data = entry.data
                key = (next_id, previous_id, space, epoch, entry.seq)
                log += (*key, crc32(data, crc32(pack_log_key(*key))), data)
                ids.append(next_id)
                size_bytes += len(data)
                previous_id = next_id
                next_id += 1
            done += next_id - self.next_id
            self.next_id = next_id
            tail = Span(tail.first_seq, epoch, size_bytes, ids)
        return spans, tail

    def _close(self, space: int, tail: Span) -> None:
        self._spans += (space, tail.first_seq, seal_span(space, tail.first_seq, tail.stored()))

    def _trim(self, space: int, start_seq: int, spans: list[Span], tail: Span | None) -> tuple[list[Span], Span | None]:
        dead = 0
        while dead < len(spans) and spans[dead].end_seq <= start_seq:
            self._leftovers.add(self._leftovers.spans, (space, spans[dead]))
            dead += 1
        if tail is not None and tail.end_seq <= start_seq:
            self._close(space, tail)
            self._leftovers.add(self._leftovers.spans, (space, tail))
            tail = None
        return spans[dead:], tail

    # --- rows

    def _change_rows(self, state: ShardState, changes: RowChanges) -> tuple[int, dict[int, int]]:
        drops = state.drops
        if changes.drop:
            drops = dict(drops)
            for kind, below in changes.drop:
                drops[kind] = max(below, drops.get(kind, below))
            if state.record.shard not in self._leftovers.dropping:
                self._leftovers.add(self._leftovers.dropping, state.record.shard)
        rows = state.rows
        if drops:
            hidden = {kind for kind, key, _ in changes.puts if key < drops.get(kind, key)}
            for kind in hidden:  # a new row below the mark must not go with the old ones
                drops = dict(drops)
                rows -= self._connection.execute(
                    "DELETE FROM rows WHERE space = ? AND kind = ? AND key < ?", (state.space, kind, drops.pop(kind))
                ).rowcount
        puts: dict[RowKey, bytes] = {(kind, key): value for kind, key, value in changes.puts}
        for row_key in changes.deletes:
            puts.pop(row_key, None)
        rows -= self._delete_rows(state.space, [*puts, *changes.deletes])
        self._insert_rows(state.space, puts)
        return rows + len(puts), drops

    def _delete_rows(self, space: int, keys: list[RowKey]) -> int:
        """Returns how many there were. Kind by kind: for pairs, SQLite would read the whole space, not its index."""
        by_kind: dict[int, list[int]] = {}
        for kind, key in keys:
            by_kind.setdefault(kind, []).append(key)
        deleted = 0
        for kind, numbers in by_kind.items():
            for start in range(0, len(numbers), STATEMENT_ROWS_MAX):
                part = numbers[start : start + STATEMENT_ROWS_MAX]
                places = ",".join("?" * len(part))
                statement = f"DELETE FROM rows WHERE space = ? AND kind = ? AND key IN ({places})"
                deleted += self._connection.execute(statement, [space, kind, *part]).rowcount
        return deleted

    def _insert_rows(self, space: int, rows: dict[RowKey, bytes]) -> None:
        parameters: list[Any] = []
        for (kind, key), value in rows.items():
            parameters += (space, kind, key, row_crc(space, kind, key, value), value)
        insert(self._connection, "INSERT INTO rows VALUES ", 5, parameters)

    def _insert_outcomes(self, space: int, chunks: list[tuple[int, bytes]]) -> None:
        parameters: list[Any] = []
        for seq, value in chunks:
            parameters += (space, seq, outcome_crc(space, seq, value), value)
        insert(self._connection, "INSERT OR REPLACE INTO outcomes VALUES ", 4, parameters)

    def stage(self, shard: ShardKey, number: int, checkpoint: Position, rows: list[Row]) -> None:
        space, staged = self._staged(shard)
        if staged is None or staged.number != number:
            self._unstage(shard)
            space, staged = self._new_space(0), Staged(shard, number, checkpoint, 0)
        chunk = {(kind, key): value for kind, key, value in rows}
        replaced = self._delete_rows(space, list(chunk))
        self._insert_rows(space, chunk)
        staged = Staged(shard, number, checkpoint, staged.rows - replaced + len(chunk))
        self._connection.execute("INSERT OR REPLACE INTO staged VALUES (?, ?)", (space, seal_staged(space, staged)))
        self.staged[shard] = (space, staged)

    def _unstage(self, shard: ShardKey) -> None:
        space, staged = self._staged(shard)
        if staged is not None:
            self.discard_staged(shard, space)

    def discard_staged(self, shard: ShardKey, space: int) -> None:
        self._connection.execute("DELETE FROM staged WHERE space = ?", (space,))
        self.staged[shard] = None
        self._discard(space)

    # --- to the database

    def finish(self, tidy_steps: int) -> None:
        """Puts everything into the database but the commit."""
        self._flush()
        for _ in range(tidy_steps):
            if not self._leftovers:
                break
            self._tidy()
        parameters: list[Any] = []
        for state in self.shards.values():
            if state is not None:
                parameters += (state.space, seal_shard(state.space, state.stored()))
        insert(self._connection, "INSERT OR REPLACE INTO shards VALUES ", 2, parameters)
        if self.meta is not self._contents.meta:
            self._connection.execute("INSERT OR REPLACE INTO meta VALUES (1, ?)", (seal_meta(self.meta),))

    def _flush(self) -> None:
        insert(self._connection, "INSERT INTO log VALUES ", 7, self._log)
        insert(self._connection, "INSERT INTO spans VALUES ", 3, self._spans)
        self._log, self._spans = [], []

    def _tidy(self) -> None:
        if self._leftovers.spans:
            space, span = self._leftovers.take(self._leftovers.spans)
            self._erase_span(space, span.first_seq, span.ids)
        elif self._leftovers.dropping:
            self._drop_some(self._leftovers.dropping[0])
        elif self._erase_some(self._leftovers.spaces[0]):
            space = self._leftovers.take(self._leftovers.spaces)
            self._connection.execute("DELETE FROM garbage WHERE space = ?", (space,))

    def _erase_span(self, space: int, first_seq: int, ids: Iterable[int]) -> None:
        ids = list(ids)
        if ids[-1] - ids[0] + 1 == len(ids):
            self._connection.execute("DELETE FROM log WHERE id BETWEEN ? AND ?", (ids[0], ids[-1]))
        else:
            marks = ",".join("?" * len(ids))
            self._connection.execute(f"DELETE FROM log WHERE id IN ({marks})", ids)
        self._connection.execute("DELETE FROM spans WHERE space = ? AND first_seq = ?", (space, first_seq))

    def _erase_some(self, space: int) -> bool:
        """Returns whether the space is empty now."""
        connection = self._connection
        found = connection.execute("SELECT first_seq, body FROM spans WHERE space = ? LIMIT 1", (space,)).fetchone()
        if found is not None:
            first_seq, body = found
            self._erase_span(space, first_seq, unseal_span(space, first_seq, body).ids)
            connection.execute("DELETE FROM outcomes WHERE space = ? AND seq <= ?", (space, first_seq))
            return False
        end = connection.execute(
            "SELECT kind, key FROM rows WHERE space = ? ORDER BY kind, key LIMIT 1 OFFSET ?", (space, ROWS_ERASED_MAX)
        ).fetchone()
        if end is None:
            connection.execute("DELETE FROM rows WHERE space = ?", (space,))
            connection.execute("DELETE FROM outcomes WHERE space = ?", (space,))
            return True
        connection.execute("DELETE FROM rows WHERE space = ? AND (kind, key) < (?, ?)", (space, *end))
        return False

    def _drop_some(self, shard: ShardKey) -> None:
        state = self._state(shard)
        if state is None or not state.drops:
            self._leftovers.take(self._leftovers.dropping)
            return
        kind, below = next(iter(state.drops.items()))
        end = self._connection.execute(
            "SELECT key FROM rows WHERE space = ? AND kind = ? AND key < ? ORDER BY key LIMIT 1 OFFSET ?",
            (state.space, kind, below, ROWS_ERASED_MAX),
        ).fetchone()
        deleted = self._connection.execute(
            "DELETE FROM rows WHERE space = ? AND kind = ? AND key < ?",
            (state.space, kind, below if end is None else end[0]),
        ).rowcount
        drops = state.drops
        if end is None:
            drops = {other: mark for other, mark in drops.items() if other != kind}
        rows = state.rows - deleted
        self.shards[shard] = ShardState(state.space, state.record, state.spans, state.tail, rows, drops)


_statements: dict[tuple[str, int, int], str] = {}


def insert(connection: sqlite3.Connection, head: str, columns: int, parameters: list[Any]) -> None:
    """Inserts len(parameters) / columns rows."""
    size = STATEMENT_ROWS_MAX * columns
    for start in range(0, len(parameters), size):
        part = parameters[start : start + size] if len(parameters) > size else parameters
        rows = len(part) // columns
        statement = _statements.get((head, columns, rows))
        if statement is None:
            row = "(" + ",".join("?" * columns) + ")"
            statement = _statements[head, columns, rows] = head + ",".join([row] * rows)
        connection.execute(statement, part)
