"""What only the SQLite store promises: reads beside writes, bounded work per write, space that comes back."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from shadow_nodes.core.store import Checkpoint, LogEntry, RowChanges, ShardWrite, Twins
from shadow_nodes.protocol.errors import CorruptError
from shadow_nodes.protocol.messages import LOG_START, Position
from shadow_nodes.storage import sqlite
from shadow_nodes.storage.sqlite import SqliteStore
from shadow_nodes.storage.transaction import ROWS_ERASED_MAX

A, B = "00000000000000aa/0", "00000000000000bb/0"
IDLE = ShardWrite(B, commit_seq=0)


def entries(first: int, last: int, epoch: int = 1) -> list[LogEntry]:
    return [LogEntry(epoch, seq, b"%d" % seq * 50) for seq in range(first, last + 1)]


def count(store: SqliteStore, table: str) -> int:
    found: int = store._reader.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found


def test_reads_and_snapshots_beside_writes_see_what_was_written(tmp_path: Path) -> None:
    """One thread appends, cuts, trims, erases, installs; the other must never see a hole or take a race for damage."""
    store = SqliteStore(tmp_path)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for round_ in range(60):
                write_round(store, round_)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    reads = 0
    while thread.is_alive() or not reads:
        found = store.read_log(A, 0, 1 << 60, 1 << 20)
        seqs = [entry.seq for entry in found]
        assert seqs == list(range(seqs[0], seqs[0] + len(seqs))) if seqs else True
        assert all(entry.data == b"%d" % entry.seq * 50 for entry in found)
        rows = list(store.read_rows(A))
        assert len({value for _, _, value in rows}) <= 1, "all rows are of one checkpoint"
        assert store.read_row(A, 1, 5) != b""
        store.log_epochs(A)
        reads += 1
    thread.join()
    store.close()
    assert failures == []


def write_round(store: SqliteStore, round_: int) -> None:
    rows = [(1, key, b"%d" % round_) for key in range(40)]
    store.write([ShardWrite(A, entries=entries(1, 150))])
    store.write([ShardWrite(A, cut_after=120, entries=entries(121, 250, 2))])
    store.write([ShardWrite(A, checkpoint=Checkpoint(Position(1, 110), RowChanges(puts=rows)), trim=Position(1, 110))])
    store.stage(A, round_, Position(2, 300), [(1, key, b"staged") for key in range(30)])
    store.write([ShardWrite(A, install=round_, entries=entries(301, 420, 2))])
    store.write([ShardWrite(A, erase=True), IDLE])


@pytest.mark.parametrize("restart", [False, True])
def test_a_big_shard_is_erased_a_little_with_every_write(tmp_path: Path, restart: bool) -> None:
    store = SqliteStore(tmp_path)
    rows = [(kind, key, b"v" * 100) for kind in (1, 2) for key in range(1000)]
    checkpoint = Checkpoint(LOG_START, RowChanges(puts=rows))
    store.write([ShardWrite(A, entries=entries(1, 2000), checkpoint=checkpoint)])
    store.write([ShardWrite(A, erase=True)])
    assert store.recover() == []
    assert count(store, "rows") + count(store, "log") > 3500
    for _ in range(2000 // 100 + 2000 // ROWS_ERASED_MAX + 5):
        if restart:
            store.close()
            store = SqliteStore(tmp_path)
        store.write([IDLE])
    assert [count(store, table) for table in ("rows", "log", "spans", "garbage")] == [0, 0, 0, 0]
    store.close()


@pytest.mark.parametrize("restart", [False, True])
def test_trimmed_entries_and_dropped_rows_go_a_little_with_every_write(tmp_path: Path, restart: bool) -> None:
    store = SqliteStore(tmp_path)
    rows = [(kind, key, b"v" * 100) for kind in (1, 2) for key in range(1000)]
    checkpoint = Checkpoint(Position(1, 2000), RowChanges(puts=rows))
    store.write([ShardWrite(A, entries=entries(1, 2000), checkpoint=checkpoint)])
    changes = RowChanges(drop=[(1, 990), (2, 2000)])
    store.write([ShardWrite(A, checkpoint=Checkpoint(Position(1, 2000), changes), trim=Position(1, 1995))])
    assert count(store, "rows") + count(store, "log") > 3500
    assert list(store.read_rows(A)) == rows[990:1000]
    if restart:
        store.close()
        store = SqliteStore(tmp_path)
    for _ in range(2000 // 100 + 2000 // ROWS_ERASED_MAX + 5):
        store.write([IDLE])
    assert list(store.read_rows(A)) == rows[990:1000]
    assert [entry.seq for entry in store.read_log(A, 0, 3000, 1 << 30)] == [1996, 1997, 1998, 1999, 2000]
    assert count(store, "rows") == 10
    assert count(store, "log") <= 100
    store.close()


def test_a_walk_leaves_out_twins_past_a_bound_and_still_counts_the_rest(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    rows = [(kind, key, b"v" * 100) for kind in (1, 2, 3, 4) for key in range(100)]
    store.write([ShardWrite(A, checkpoint=Checkpoint(LOG_START, RowChanges(puts=rows)))])
    twins = Twins(3, 2, 950)
    assert list(store.read_rows(A, twins)) == rows[:210] + rows[300:]
    assert list(store.read_rows(A, Twins(3, 2, 1 << 20))) == rows
    assert list(store.read_rows(A)) == rows
    store._writer.execute("DELETE FROM rows WHERE kind = 2 AND key = 7")
    with pytest.raises(CorruptError, match="398 of 400 rows"):
        list(store.read_rows(A, twins))
    store.close()


def test_no_twin_is_left_out_while_dropped_rows_are_there(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    rows = [(kind, key, b"v" * 100) for kind in (2, 3) for key in range(1000)]
    store.write([ShardWrite(A, checkpoint=Checkpoint(LOG_START, RowChanges(puts=rows)))])
    dropped = RowChanges(drop=[(2, 500), (3, 500)])
    store.write([ShardWrite(A, checkpoint=Checkpoint(LOG_START, dropped))])
    assert count(store, "rows") > 1000
    assert list(store.read_rows(A, Twins(3, 2, 950))) == rows[500:1000] + rows[1500:]
    store.close()


def test_the_space_of_trimmed_entries_is_used_again(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    pages: list[int] = []
    for round_ in range(100):
        first = round_ * 100 + 1
        position = Position(1, first)
        write = ShardWrite(A, entries=entries(first, first + 99), checkpoint=Checkpoint(position, RowChanges()))
        write.trim = position
        store.write([write])
        pages += store._writer.execute("PRAGMA page_count").fetchone()
    store.close()
    assert pages[-1] < 2 * pages[10]


def test_the_log_file_is_folded_while_a_snapshot_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may grow as long as the snapshot is open, and begins again afterwards."""
    monkeypatch.setattr(sqlite, "CHECKPOINT_FRAMES", 50)
    store = SqliteStore(tmp_path)
    rows = [(1, key, b"v" * 100) for key in range(100)]
    store.write([ShardWrite(A, checkpoint=Checkpoint(LOG_START, RowChanges(puts=rows)))])
    _, chunks = store.snapshot(A, 500)
    copied = list(next(chunks))
    for seq in range(1, 400):
        store.write([ShardWrite(A, entries=entries(seq, seq))])
    assert store._frames > 400
    for chunk in chunks:
        copied += chunk
    assert copied == rows
    for seq in range(400, 600):
        store.write([ShardWrite(A, entries=entries(seq, seq))])
    assert store._frames < 400
    store.close()


def test_a_snapshot_given_up_holds_nothing(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.write([ShardWrite(A, checkpoint=Checkpoint(LOG_START, RowChanges(puts=[(1, 1, b"v")] * 9)))])
    _, chunks = store.snapshot(A, 1)
    assert len(store._walks) == 1
    del chunks
    assert len(store._walks) == 0
    _, kept = store.snapshot(A, 1)
    store.close()
    with pytest.raises(OSError, match="closed"):
        next(kept)
