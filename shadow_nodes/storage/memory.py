"""A store in memory, for tests and the deterministic simulation: no clock, chance, files or threads.

Model: ``begin`` submits a write, ``finish`` is its fsync; a crash keeps what was finished and, if the driver says
so, a prefix of what was not. Damage lies where it was done until it is read, or written over.
Invariant: reads see finished writes only, and each wholly or not at all; what is damaged is not returned, and a store
that has noticed damage is condemned, as the real one is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator

from shadow_nodes.core.store import LogEntry, ReplicaRecord, Row, RowChanges, RowKey, ShardWrite, Twins
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.errors import CorruptError
from shadow_nodes.protocol.messages import Position
from shadow_nodes.storage.chunks import in_chunks
from shadow_nodes.storage.transitions import after_write, check_erase

Ticket = int


class _Shard:
    """``log`` holds the entries after ``record.log_start``, without holes."""

    def __init__(self, record: ReplicaRecord) -> None:
        self.record = record
        self.log: deque[LogEntry] = deque()
        self.epochs: list[Position] = []
        self.rows: dict[RowKey, bytes] = {}
        self.outcomes: list[tuple[int, bytes]] = []
        self.bad_seqs: set[int] = set()
        self.bad_rows: set[RowKey] = set()
        self.bad_outcomes: set[int] = set()

    @property
    def damaged(self) -> bool:
        return bool(self.bad_seqs or self.bad_rows or self.bad_outcomes)

    def position_at(self, seq: int) -> Position:
        place = bisect_right(self.epochs, seq, key=lambda first: first.seq) - 1
        return Position(self.epochs[place].epoch, seq)

    def cut(self, after_seq: int) -> None:
        while self.log and self.log[-1].seq > after_seq:
            self.log.pop()
        while self.epochs and self.epochs[-1].seq > after_seq:
            self.epochs.pop()
        self.bad_seqs = {seq for seq in self.bad_seqs if seq <= after_seq}

    def append(self, entries: list[LogEntry]) -> None:
        for entry in entries:
            if not self.epochs or self.epochs[-1].epoch != entry.epoch:
                self.epochs.append(Position(entry.epoch, entry.seq))
        self.log.extend(entries)

    def trim(self, log_start: Position) -> None:
        self.outcomes = [chunk for chunk in self.outcomes if chunk[0] > log_start.seq]
        self.bad_outcomes = {seq for seq in self.bad_outcomes if seq > log_start.seq}
        self.bad_seqs = {seq for seq in self.bad_seqs if seq > log_start.seq}
        while self.log and self.log[0].seq <= log_start.seq:
            self.log.popleft()
        while len(self.epochs) > 1 and self.epochs[1].seq <= log_start.seq + 1:
            del self.epochs[0]
        if not self.log:
            self.epochs.clear()
        elif self.epochs[0].seq <= log_start.seq:
            self.epochs[0] = Position(self.epochs[0].epoch, log_start.seq + 1)

    def change_rows(self, changes: RowChanges) -> None:
        for kind, below in changes.drop:
            for key in [key for key in self.rows if key[0] == kind and key[1] < below]:
                del self.rows[key]
        for kind, number, value in changes.puts:
            self.rows[kind, number] = value
        for row_key in changes.deletes:
            self.rows.pop(row_key, None)
        written = {(kind, number) for kind, number, _ in changes.puts}
        self.bad_rows = {key for key in self.bad_rows if key in self.rows and key not in written}


class MemoryStore:
    """``core.store.Store`` in memory. Raises CorruptError after ``corrupt``, OSError after ``crash`` or ``close``."""

    def __init__(self, incarnation: str) -> None:
        self._incarnation = incarnation
        self._shards: dict[ShardKey, _Shard] = {}
        self._staged: dict[ShardKey, tuple[int, Position, dict[RowKey, bytes]]] = {}
        self._begun: dict[Ticket, list[ShardWrite]] = {}
        self._tickets = 0
        self._damage = ""
        self._bad_records = False
        self._gone = ""

    # --- the store's interface

    @property
    def incarnation(self) -> str:
        return self._incarnation

    def recover(self) -> list[ReplicaRecord]:
        self._check()
        if self._bad_records:
            raise self._noticed("a shard's record is damaged")
        return [shard.record for shard in self._shards.values()]

    def write(self, writes: list[ShardWrite]) -> None:
        """At once durable. Raises ValueError where a write does not fit its shard; the store is of no use then."""
        self.finish(self.begin(writes))

    def read_log(self, shard: ShardKey, after_seq: int, up_to_seq: int, limit_bytes: int) -> list[LogEntry]:
        self._check()
        state = self._shards.get(shard)
        if state is None or not state.log:
            return []
        skipped = max(0, after_seq - state.record.log_start.seq)
        entries: list[LogEntry] = []
        size_bytes = 0
        for index in range(skipped, len(state.log)):
            entry = state.log[index]
            if entry.seq > up_to_seq or (entries and size_bytes >= limit_bytes):
                break
            if entry.seq in state.bad_seqs:
                raise self._noticed(f"shard {shard}: log entry {entry.seq} is damaged")
            entries.append(entry)
            size_bytes += len(entry.data)
        return entries

    def read_outcomes(self, shard: ShardKey, after_seq: int, up_to_seq: int) -> list[bytes]:
        self._check()
        chunks: list[bytes] = []
        for seq, data in self._shards[shard].outcomes if shard in self._shards else ():
            if seq > after_seq:
                if seq in self._shards[shard].bad_outcomes:
                    raise self._noticed(f"shard {shard}: the outcomes up to entry {seq} are damaged")
                chunks.append(data)
            if seq >= up_to_seq:
                break
        return chunks

    def log_epochs(self, shard: ShardKey) -> list[Position]:
        self._check()
        state = self._shards.get(shard)
        return list(state.epochs) if state else []

    def read_rows(self, shard: ShardKey, twins: Twins | None = None) -> Iterable[Row]:
        self._check()
        state = self._shards.get(shard)
        return self._walk(shard, state) if state else []

    def read_row(self, shard: ShardKey, kind: int, key: int) -> bytes | None:
        self._check()
        state = self._shards.get(shard)
        if state and (kind, key) in state.bad_rows:
            raise self._noticed(f"shard {shard}: row ({kind}, {key}) is damaged")
        return state.rows.get((kind, key)) if state else None

    def snapshot(self, shard: ShardKey, chunk_bytes: int) -> tuple[ReplicaRecord, Iterator[list[Row]]]:
        """Raises KeyError where the shard is not known."""
        self._check()
        state = self._shards[shard]
        return state.record, in_chunks(self._walk(shard, state), chunk_bytes)

    def _walk(self, shard: ShardKey, state: _Shard) -> Iterator[Row]:
        """The rows as they are now, whatever is written meanwhile."""
        rows = [(kind, key, state.rows[kind, key]) for kind, key in sorted(state.rows)]
        return self._unless_damaged(shard, rows, set(state.bad_rows))

    def _unless_damaged(self, shard: ShardKey, rows: list[Row], bad: set[RowKey]) -> Iterator[Row]:
        for row in rows:
            if row[:2] in bad:
                raise self._noticed(f"shard {shard}: row {row[:2]} is damaged")
            yield row

    def stage(self, shard: ShardKey, number: int, checkpoint: Position, rows: list[Row]) -> None:
        self._check()
        staged = self._staged.get(shard)
        if staged is None or staged[0] != number:
            staged = self._staged[shard] = (number, checkpoint, {})
        staged[2].update({(kind, key): value for kind, key, value in rows})

    def size_bytes(self) -> int:
        """Of log bodies and row values."""
        self._check()
        return sum(
            sum(len(entry.data) for entry in state.log) + sum(map(len, state.rows.values()))
            for state in self._shards.values()
        )

    def spare_bytes(self) -> int:
        self._check()
        return 0

    def make_reserve(self) -> None:
        self._check()

    def close(self) -> None:
        self._gone = self._gone or "closed"

    # --- what only the simulation uses

    def begin(self, writes: list[ShardWrite]) -> Ticket:
        """Submits a write; nothing of it can be read, or survives a crash for sure, before ``finish``."""
        self._check()
        self._tickets += 1
        self._begun[self._tickets] = writes
        return self._tickets

    def finish(self, ticket: Ticket) -> None:
        """The write is durable. Tickets finish in the order they were begun.

        Raises ValueError where a write does not fit its shard; the store is of no use then.
        """
        self._check()
        assert ticket == next(iter(self._begun)), "writes become durable in the order they were submitted"
        self._apply(self._begun.pop(ticket))

    def crash(self, survived: int = 0) -> MemoryStore:
        """The store after a power loss: all that finished, and the first ``survived`` of the writes that did not.

        Staged snapshots do not survive. Damage done by ``corrupt`` does. This object is of no use afterwards.
        """
        assert 0 <= survived <= len(self._begun)
        after = MemoryStore(self._incarnation)
        after._shards = self._shards
        after._staged = self._staged
        after._damage = self._damage
        after._bad_records = self._bad_records
        if not after._damage:
            for writes in list(self._begun.values())[:survived]:
                after._apply(writes)
        after._staged = {}
        self._gone = "crashed"
        self._shards, self._staged, self._begun = {}, {}, {}
        return after

    def corrupt(self, reason: str) -> None:
        """Torn or flipped bytes: every later call, ``recover`` after a crash included, raises CorruptError."""
        self._damage = reason

    def damage_records(self) -> None:
        """What is read when a store is opened, and only then: noticed at the next start."""
        self._bad_records = True

    def damage_log(self, shard: ShardKey, seqs: Iterable[int]) -> None:
        """Log entries: noticed when one of them is read, if they are not cut or trimmed before."""
        self._shards[shard].bad_seqs.update(seqs)

    def damage_rows(self, shard: ShardKey, keys: Iterable[RowKey]) -> None:
        """Rows of the checkpoint: noticed when one is read alone, or all are, if they are not written anew before."""
        self._shards[shard].bad_rows.update(keys)

    def damage_outcomes(self, shard: ShardKey, seqs: Iterable[int]) -> None:
        """Chunks of outcomes, as ``read_outcomes`` finds them."""
        self._shards[shard].bad_outcomes.update(seqs)

    @property
    def damaged(self) -> bool:
        """Whether there is damage, noticed or not."""
        return bool(self._damage) or self._bad_records or any(state.damaged for state in self._shards.values())

    # --- inside

    def _check(self) -> None:
        if self._gone:
            raise OSError(f"the store {self._incarnation} is {self._gone}")
        if self._damage:
            raise CorruptError(self._damage)

    def _noticed(self, reason: str) -> CorruptError:
        """The store is condemned: it serves nothing more, and will not be opened again."""
        self._damage = reason
        return CorruptError(reason)

    def _apply(self, writes: list[ShardWrite]) -> None:
        try:
            for write in writes:
                self._apply_one(write)
        except ValueError as error:
            self._gone = f"of no use any more: {error}"
            raise

    def _apply_one(self, write: ShardWrite) -> None:
        if write.erase:
            check_erase(write)
            self._shards.pop(write.shard, None)
            self._staged.pop(write.shard, None)
            return
        state = self._shards.get(write.shard) or _Shard(ReplicaRecord(write.shard))
        number, position, rows = self._staged.get(write.shard, (None, None, {}))
        staged = position if number == write.install else None
        record = after_write(state.record, write, state.position_at, staged)
        if write.install is not None:
            state = _Shard(record)
            state.rows = rows
            del self._staged[write.shard]
        if write.cut_after is not None:
            state.cut(write.cut_after)
        state.append(write.entries)
        if write.checkpoint is not None:
            state.change_rows(write.checkpoint.changes)
            state.outcomes += write.checkpoint.outcomes
        if write.trim is not None:
            state.trim(record.log_start)
        state.record = record
        self._shards[write.shard] = state
