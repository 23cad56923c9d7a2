"""Both stores against the obvious one: random writes, restarts in between, everything read back after each.

The bounds of SQLite's spans and tidying are made small, so that short histories meet them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadow_nodes.core.store import Checkpoint, LogEntry, ReplicaRecord, Row, RowChanges, ShardWrite, Store
from shadow_nodes.protocol.messages import LOG_START, Position, Token
from shadow_nodes.storage import shard_state, transaction
from shadow_nodes.storage.memory import MemoryStore
from shadow_nodes.storage.sqlite import SqliteStore
from shadow_nodes.storage.tables import StoredShard, seal, unseal_shard

SHARDS = ["00000000000000aa/0", "00000000000000bb/0", "00000000000000bb/1"]


class Restartable:
    """A store, and ways to end and reopen it."""

    def __init__(self, kind: str, path_dir: Path) -> None:
        self.kind = kind
        self.lives = 0
        self.path_dir = path_dir
        self.store: Store = MemoryStore("one") if kind == "memory" else SqliteStore(path_dir / "0")

    def restart(self, cleanly: bool) -> None:
        incarnation = self.store.incarnation
        if isinstance(self.store, MemoryStore):
            self.store = self.store.crash()
        else:
            old, self.lives = self.path_dir / str(self.lives), self.lives + 1
            new = self.path_dir / str(self.lives)
            if cleanly:
                self.store.close()
            shutil.copytree(old, new)  # of an open store: what a killed process leaves
            self.store.close()
            shutil.rmtree(old)
            self.store = SqliteStore(new)
        assert self.store.incarnation == incarnation

    def close(self) -> None:
        self.store.close()


class Model:
    """The obvious store: one shard. Also makes up writes that fit it."""

    def __init__(self, shard: str) -> None:
        self.record = ReplicaRecord(shard)
        self.log: dict[int, LogEntry] = {}
        self.rows: dict[tuple[int, int], bytes] = {}

    def update(self, **fields: object) -> None:
        self.record = msgspec.structs.replace(self.record, **fields)

    def position_at(self, seq: int) -> Position:
        if seq == self.record.log_start.seq:
            return self.record.log_start
        return Position(self.log[seq].epoch, seq)

    def append(self, count: int, epoch_step: int, size: int) -> list[LogEntry]:
        epoch, seq = self.record.last.epoch + epoch_step, self.record.last.seq
        entries = [LogEntry(max(epoch, 1), seq + n, b"%d:" % (seq + n) + b"x" * size) for n in range(1, count + 1)]
        self.log.update({entry.seq: entry for entry in entries})
        if entries:
            self.update(last=Position(entries[-1].epoch, entries[-1].seq))
        return entries

    def cut(self, seq: int) -> None:
        if seq < self.record.last.seq:
            self.update(last=self.position_at(seq))
        self.log = {at: entry for at, entry in self.log.items() if at <= seq}

    def change(self, changes: RowChanges) -> None:
        for kind, below in changes.drop:
            self.rows = {key: value for key, value in self.rows.items() if key[0] != kind or key[1] >= below}
        self.rows.update({(kind, key): value for kind, key, value in changes.puts})
        for key in changes.deletes:
            self.rows.pop(key, None)

    def trim(self, position: Position) -> None:
        if position.seq > self.record.log_start.seq:
            self.update(log_start=position)
        self.log = {at: entry for at, entry in self.log.items() if at > position.seq}

    def sorted_rows(self) -> list[Row]:
        return [(kind, key, self.rows[kind, key]) for kind, key in sorted(self.rows)]

    def epochs(self) -> list[Position]:
        firsts: dict[int, Position] = {}
        for seq in sorted(self.log):
            firsts.setdefault(self.log[seq].epoch, Position(self.log[seq].epoch, seq))
        return list(firsts.values())


def assert_same(store: Store, models: dict[str, Model]) -> None:
    records = {record.shard: record for record in store.recover()}
    assert records == {shard: model.record for shard, model in models.items()}
    for shard, model in models.items():
        assert store.read_log(shard, 0, 1 << 60, 1 << 60) == [model.log[seq] for seq in sorted(model.log)]
        assert store.log_epochs(shard) == model.epochs()
        assert list(store.read_rows(shard)) == model.sorted_rows()
        for kind, key in [*list(model.rows)[:5], (1, 3), (9, 9)]:
            assert store.read_row(shard, kind, key) == model.rows.get((kind, key))


STEP = st.tuples(
    st.sampled_from(
        ["append", "append", "cut", "checkpoint", "drop", "trim", "erase", "install", "promise", "restart"]
    ),
    st.integers(0, len(SHARDS) - 1),
    st.integers(0, 30),
    st.integers(0, 30),
)


def make_write(  # noqa: PLR0911 - one for each kind of step
    store: Store, models: dict[str, Model], number: int, step: tuple[str, int, int, int]
) -> ShardWrite:
    """A write that fits, from a step's small numbers; the model follows."""
    name, which, a, b = step
    shard = SHARDS[which]
    if name == "erase":
        models.pop(shard, None)
        return ShardWrite(shard, erase=True)
    model = models.setdefault(shard, Model(shard))
    record = model.record
    if name == "install":
        model = models[shard] = Model(shard)
        position = Position(record.last.epoch + 1, record.last.seq + a)
        rows = [(kind, key, b"snapshot") for kind in range(2) for key in range(b)]
        store.stage(shard, number, position, rows[: a + 1])
        store.stage(shard, number, position, rows[a + 1 :])
        model.rows = {(kind, key): value for kind, key, value in rows}
        model.record = ReplicaRecord(
            shard, record.promised, max(record.commit_seq, position.seq), position, position, position
        )
        return ShardWrite(shard, install=number)
    if name == "promise":
        model.update(promised=Token(a, (1 << 63) + b))
        return ShardWrite(shard, promised=Token(a, (1 << 63) + b))
    if name == "cut":
        seq = max(record.last.seq - a, record.log_start.seq, record.commit_seq, record.checkpoint.seq)
        model.cut(seq)
        return ShardWrite(shard, cut_after=seq, entries=model.append(b % 4, 1, b))
    if name in {"checkpoint", "drop"}:
        position = model.position_at(min(record.last.seq, max(record.commit_seq, record.checkpoint.seq)))
        puts = [(kind % 3, key * (1 + a % 2), b"%d" % number * b) for kind, key in enumerate(range(a))]
        changes = RowChanges(puts, [(b % 3, key) for key in range(a, a + b)], [(a % 3, b)] if name == "drop" else [])
        model.change(changes)
        model.update(checkpoint=position)
        return ShardWrite(shard, checkpoint=Checkpoint(position, changes))
    if name == "trim":
        position = model.position_at(max(record.checkpoint.seq - a, record.log_start.seq))
        model.trim(position)
        return ShardWrite(shard, trim=position)
    write = ShardWrite(shard, entries=model.append(a, b % 2, b), commit_seq=max(record.commit_seq, record.last.seq - b))
    model.update(commit_seq=write.commit_seq)
    return write


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_state, "SPAN_ENTRIES_MAX", 5)
    monkeypatch.setattr(transaction, "SPAN_ENTRIES_MAX", 5)
    monkeypatch.setattr(shard_state, "SPAN_BYTES_MAX", 60)
    monkeypatch.setattr(transaction, "SPAN_BYTES_MAX", 60)
    monkeypatch.setattr(transaction, "ROWS_ERASED_MAX", 3)
    monkeypatch.setattr(transaction, "STATEMENT_ROWS_MAX", 7)


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=st.lists(STEP, max_size=40))
def test_random_histories_read_back_the_same(
    kind: str, steps: list[tuple[str, int, int, int]], tmp_path_factory: pytest.TempPathFactory, small_bounds: None
) -> None:
    path_dir = tmp_path_factory.mktemp("store")
    restartable = Restartable(kind, path_dir)
    models: dict[str, Model] = {}
    try:
        for number, step in enumerate(steps):
            if step[0] == "restart":
                restartable.restart(cleanly=step[2] % 2 == 0)
            else:
                restartable.store.write([make_write(restartable.store, models, number, step)])
            assert_same(restartable.store, models)
    finally:
        restartable.close()
        shutil.rmtree(path_dir)


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    restartable = Restartable(request.param, tmp_path)
    yield restartable.store
    restartable.close()


A, B, _ = SHARDS


def entries(first: int, last: int, epoch: int = 1, size: int = 10) -> list[LogEntry]:
    return [LogEntry(epoch, seq, b"%d" % epoch * size) for seq in range(first, last + 1)]


def test_many_shards_in_one_write(store: Store) -> None:
    store.write([ShardWrite(shard, entries=entries(1, 300)) for shard in SHARDS])
    assert [len(store.read_log(shard, 0, 300, 1 << 30)) for shard in SHARDS] == [300, 300, 300]


def test_read_log_stops_at_its_limits(store: Store) -> None:
    store.write([ShardWrite(A, entries=entries(1, 100))])
    assert [entry.seq for entry in store.read_log(A, 3, 7, 1 << 30)] == [4, 5, 6, 7]
    assert [entry.seq for entry in store.read_log(A, 3, 100, 25)] == [4, 5, 6]
    assert [entry.seq for entry in store.read_log(A, 3, 100, 0)] == [4]
    assert store.read_log(A, 100, 200, 1000) == []
    assert store.read_log(B, 0, 200, 1000) == []


def test_an_unknown_shard_is_empty(store: Store) -> None:
    assert store.recover() == []
    assert list(store.read_rows(A)) == []
    assert store.read_row(A, 1, 1) is None
    assert store.log_epochs(A) == []
    store.write([ShardWrite(A, erase=True)])
    assert store.recover() == []
    with pytest.raises(KeyError):
        store.snapshot(A, 100)


def test_a_shard_erased_and_written_in_one_write_begins_again(store: Store) -> None:
    store.write([ShardWrite(A, entries=entries(1, 3), promised=Token(3, 3))])
    store.write([ShardWrite(A, erase=True), ShardWrite(A, promised=Token(9, 9))])
    assert store.recover() == [ReplicaRecord(A, Token(9, 9))]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_that_a_replica_has_retired_is_remembered_until_the_shard_is_erased(kind: str, tmp_path: Path) -> None:
    subject = Restartable(kind, tmp_path)
    subject.store.write([ShardWrite(A, erase=True), ShardWrite(A, promised=Token(9, 9), retired=True)])
    subject.store.write([ShardWrite(A, promised=Token(10, 1))])
    subject.restart(cleanly=True)
    assert subject.store.recover() == [ReplicaRecord(A, Token(10, 1), retired=True)]
    subject.store.write([ShardWrite(A, erase=True), ShardWrite(A, promised=Token(11, 1))])
    assert subject.store.recover() == [ReplicaRecord(A, Token(11, 1))]
    subject.close()


def test_a_shard_that_was_stored_before_replicas_could_be_retired_is_read() -> None:
    stored = StoredShard(A, Token(1, 2), 3, Position(1, 3), Position(1, 3), Position(1, 3), 0, 0, [])
    body = msgspec.msgpack.encode(msgspec.to_builtins(stored)[:-1])
    assert unseal_shard(1, seal("shards", 1, body)) == stored


def test_a_snapshot_stays_as_it_was_while_writes_go_on(store: Store) -> None:
    rows = [(kind, key, b"v" * 10) for kind in (1, 2) for key in range(50)]
    first = Checkpoint(Position(1, 1), RowChanges(puts=rows))
    store.write([ShardWrite(A, entries=entries(1, 2), checkpoint=first)])
    record, chunks = store.snapshot(A, 100)
    copied = list(next(chunks))
    store.write([ShardWrite(A, checkpoint=Checkpoint(Position(1, 2), RowChanges(drop=[(1, 99), (2, 99)])))])
    assert list(store.read_rows(A)) == []
    for chunk in chunks:
        assert sum(len(value) for _, _, value in chunk) <= 100
        copied += chunk
    assert copied == rows
    assert record.checkpoint == Position(1, 1)


def test_a_newer_copy_replaces_an_interrupted_one(store: Store) -> None:
    store.write([ShardWrite(A, promised=Token(5, 5), entries=entries(1, 5))])
    store.stage(A, 1, Position(2, 8), [(1, 1, b"old")])
    store.stage(A, 2, Position(2, 9), [(1, 2, b"new")])
    store.stage(A, 2, Position(2, 9), [(1, 3, b"new")])
    store.write([ShardWrite(A, install=2, entries=entries(10, 11, 2))])
    assert store.recover() == [ReplicaRecord(A, Token(5, 5), 9, Position(2, 9), Position(2, 9), Position(2, 11))]
    assert list(store.read_rows(A)) == [(1, 2, b"new"), (1, 3, b"new")]
    assert store.log_epochs(A) == [Position(2, 10)]


@pytest.mark.parametrize(
    "write",
    [
        ShardWrite(A, entries=entries(5, 5)),
        ShardWrite(A, entries=entries(4, 4, 0)),
        ShardWrite(A, install=3),
        ShardWrite(A, erase=True, commit_seq=2),
        ShardWrite(A, trim=Position(1, 3)),
    ],
)
def test_a_write_that_does_not_fit_is_refused(store: Store, write: ShardWrite) -> None:
    store.write([ShardWrite(A, entries=entries(1, 3))])
    with pytest.raises(ValueError, match="000aa/0"):
        store.write([write])
    with pytest.raises(OSError, match="use"):
        store.write([ShardWrite(A, commit_seq=1)])


def test_a_row_put_below_a_dropped_mark_stays(store: Store) -> None:
    rows = [(1, key, b"old") for key in range(500)]
    store.write([ShardWrite(A, checkpoint=Checkpoint(LOG_START, RowChanges(puts=rows)))])
    store.write([ShardWrite(A, checkpoint=Checkpoint(LOG_START, RowChanges(puts=[(1, 7, b"new")], drop=[(1, 600)])))])
    store.write([ShardWrite(A, checkpoint=Checkpoint(LOG_START, RowChanges(puts=[(1, 3, b"new")])))])
    for _ in range(20):
        store.write([ShardWrite(B, commit_seq=0)])
    assert list(store.read_rows(A)) == [(1, 3, b"new"), (1, 7, b"new")]


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(OSError, match="closed"):
        store.write([ShardWrite(A, commit_seq=1)])
    with pytest.raises(OSError, match="closed"):
        store.recover()
