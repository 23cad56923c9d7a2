"""Truncation and flipped bits all over a store's files: the content is exactly right, or the damage is noticed.

The store that is damaged is a copy of an open one, as a killed process leaves it: main file, log and mark.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow_nodes.core.store import Checkpoint, LogEntry, RowChanges, ShardWrite, Store
from shadow_nodes.protocol.errors import CorruptError, NoRoomError
from shadow_nodes.protocol.messages import Position, Token
from shadow_nodes.storage.mark import LogState, MarkValue, encode_mark
from shadow_nodes.storage.sqlite import SqliteStore, open_or_replace
from shadow_nodes.storage.wal_scan import scan_wal

SHARDS = [f"{number:016x}/0" for number in range(1, 9)]
DATABASE, WAL, MARK = "store.db", "store.db-wal", "mark"
FRAME_BYTES = 24 + 4096

Contents = list[object]


def contents(store: Store) -> Contents:
    """Everything a store has, read through every method."""
    found: Contents = []
    for record in sorted(store.recover(), key=lambda record: record.shard):
        shard = record.shard
        rows = list(store.read_rows(shard))
        assert [store.read_row(shard, kind, key) for kind, key, _ in rows[:3]] == [value for _, _, value in rows[:3]]
        found += [record, store.read_log(shard, 0, 1 << 60, 1 << 60), store.log_epochs(shard), rows]
    return found


def write_some(store: Store, round_: int) -> None:
    """A transaction of entries of every shard, with rows and trims now and then."""
    writes = []
    for number, shard in enumerate(SHARDS):
        first = 3 * round_ + 1
        items = [LogEntry(1 + round_ // 7, seq, b"%d" % seq * 40 * (1 + number % 3)) for seq in range(first, first + 3)]
        write = ShardWrite(shard, promised=Token(1, round_ + 1), entries=items, commit_seq=first)
        if (round_ + number) % 4 == 3:
            position = Position(items[0].epoch, first)
            puts = [(1, first * 100 + key, b"row" * (10 + key * 20)) for key in range(9)]
            write.checkpoint = Checkpoint(position, RowChanges(puts, [(1, first * 100 - 899)], [(1, first * 50)]))
            start = max(1, first - 12)
            write.trim = Position(1 + (start - 1) // 3 // 7, start)
        writes.append(write)
    store.write(writes)


class Specimen:
    """Copies of a store's files, what they hold, and what they held before the last transaction."""

    def __init__(self, path_dir: Path, fold_after: int, rounds: int) -> None:
        """``fold_after``: the first rounds are in the database file, the later ones in the log."""
        self.path_dir = path_dir
        store = SqliteStore(path_dir / "live")
        for round_ in range(rounds):
            if round_ == fold_after:
                store.close()
                store = SqliteStore(path_dir / "live")
            if round_ == rounds - 1:
                self.before_last = contents(store)
                self.frames_before_last = scan_wal(path_dir / "live" / WAL, 4096).frames
            write_some(store, round_)
        self.incarnation = store.incarnation
        self.contents = contents(store)
        names = [DATABASE, WAL, MARK] if fold_after < rounds else [DATABASE, MARK]
        if fold_after == rounds:
            store.close()
        self.files = {name: (path_dir / "live" / name).read_bytes() for name in names}
        store.close()
        shutil.rmtree(path_dir / "live")

    def opened(self, changed: dict[str, bytes | None], stale_mark: bool = False) -> Contents | None:
        """The content of a store of these files with some changed or (None) missing; None where damage was noticed."""
        place = self.path_dir / "damaged"
        place.mkdir()
        files = self.files | ({MARK: encode_mark(MarkValue(LogState.EMPTY))} if stale_mark else {}) | changed
        for name, content in files.items():
            if content is not None:
                (place / name).write_bytes(content)
        store, replaced = open_or_replace(place)
        try:
            if replaced is None:
                assert store.incarnation == self.incarnation
                return contents(store)
            assert store.incarnation != self.incarnation
            assert store.recover() == []
            assert any((place / "corrupt-1").iterdir())
            return None
        except CorruptError:
            store.close()
            store, replaced = open_or_replace(place)
            assert replaced is not None, "a store that was found damaged must not be opened again"
            return None
        finally:
            store.close()
            shutil.rmtree(place)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return Specimen(tmp_path_factory.mktemp("live"), 20, 24)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Specimen:
    return Specimen(tmp_path_factory.mktemp("closed"), 20, 20)


def flipped(content: bytes, position: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1 << bit
    return bytes(changed)


def spread(size: int, count: int, seed: int) -> Iterator[int]:
    """Positions in every region: one somewhere in each of ``count`` equal parts."""
    chance = random.Random(seed)
    for part in range(count):
        yield chance.randrange(part * size // count, (part + 1) * size // count)


def test_untouched_files_give_everything(live: Specimen, closed: Specimen) -> None:
    assert live.opened({}) == live.contents
    assert live.opened({}, stale_mark=True) == live.contents
    assert closed.opened({}) == closed.contents


@pytest.mark.parametrize("stale_mark", [False, True])
def test_flips_in_the_log(live: Specimen, stale_mark: bool) -> None:
    """With the mark every flip is noticed; without, only those in the last transaction may shorten the store by it."""
    wal = live.files[WAL]
    last_starts = 32 + live.frames_before_last * FRAME_BYTES
    headers = [
        32 + frame * FRAME_BYTES + at for frame in range((len(wal) - 32) // FRAME_BYTES) for at in (2, 6, 11, 17)
    ]
    for position in [*range(0, 32, 3), *headers[:60], *spread(len(wal), 40, 1)]:
        found = live.opened({WAL: flipped(wal, position, position % 8)}, stale_mark)
        if stale_mark and position >= last_starts:
            assert found in (None, live.before_last), position
        else:
            assert found is None, position


def test_the_log_cut_short(live: Specimen) -> None:
    wal = live.files[WAL]
    boundaries = range(32, len(wal), FRAME_BYTES)
    for size in [0, 1, 31, *boundaries, *spread(len(wal), 30, 2)]:
        assert live.opened({WAL: wal[:size]}) is None, size
    assert live.opened({WAL: None}) is None


def test_a_last_transaction_that_power_loss_tore(live: Specimen) -> None:
    """It was never acknowledged, so the mark does not know it: any of its sectors may be missing, nothing else is."""
    wal = live.files[WAL]
    last_starts = 32 + live.frames_before_last * FRAME_BYTES
    mark_before = {MARK: _mark_at(live, live.frames_before_last)}
    for size in [last_starts, *range(last_starts + 100, len(wal), 3000), len(wal) - 1]:
        assert live.opened({WAL: wal[:size]} | mark_before) == live.before_last
    for sector in range(last_starts // 512 + 1, len(wal) // 512, 5):
        torn = wal[: sector * 512] + bytes(512) + wal[sector * 512 + 512 :]
        assert live.opened({WAL: torn[: len(wal)]} | mark_before) in (live.before_last, live.contents)


def _mark_at(specimen: Specimen, frames: int) -> bytes:
    place = specimen.path_dir / "scanned"
    place.write_bytes(specimen.files[WAL])
    scan = scan_wal(place, 4096)
    return encode_mark(MarkValue(LogState.WRITTEN, frames, scan.salts, scan.checksums[frames]))


def test_frames_of_an_older_generation_behind_the_end_are_normal(live: Specimen) -> None:
    old = bytearray(live.files[WAL][32 : 32 + 3 * FRAME_BYTES])
    for frame in range(3):
        old[frame * FRAME_BYTES + 8 : frame * FRAME_BYTES + 16] = b"oldsalts"
    assert live.opened({WAL: live.files[WAL] + bytes(old)}) == live.contents
    assert live.opened({WAL: live.files[WAL] + bytes(old[:5000])}) == live.contents


@pytest.mark.parametrize("name", ["live", "closed"])
def test_flips_in_the_database(name: str, request: pytest.FixtureRequest) -> None:
    specimen: Specimen = request.getfixturevalue(name)
    database = specimen.files[DATABASE]
    pages = range(0, len(database), 4096)
    page_headers = [page + at for page in pages for at in (0, 1, 3, 4, 6, 8, 9, 12, 20, 22, 26)]
    chance = random.Random(3)
    positions = [*range(100), *chance.sample(page_headers, 90), *spread(len(database), 70, 4)]
    noticed = 0
    for position in positions:
        found = specimen.opened({DATABASE: flipped(database, position, position % 8)})
        assert found in (None, specimen.contents), position
        noticed += found is None
    assert noticed > len(positions) // 8


@pytest.mark.parametrize("name", ["live", "closed"])
def test_the_database_cut_short(name: str, request: pytest.FixtureRequest) -> None:
    specimen: Specimen = request.getfixturevalue(name)
    database = specimen.files[DATABASE]
    for size in [0, 1, 99, 100, *range(4096, len(database), 3 * 4096), *spread(len(database), 20, 5)]:
        found = specimen.opened({DATABASE: database[:size]})
        assert found is None or (name == "live" and found == specimen.contents), size
    assert specimen.opened({DATABASE: None}) is None


def test_a_mark_that_is_missing_or_damaged(live: Specimen) -> None:
    mark = live.files[MARK]
    assert live.opened({MARK: None}) is None
    for position in range(len(mark)):
        assert live.opened({MARK: flipped(mark, position, position % 8)}) is None
        assert live.opened({MARK: mark[:position]}) is None


def test_an_older_log_beside_a_newer_mark(live: Specimen) -> None:
    """As when the file system forgot the writes of a whole generation."""
    newer = int.from_bytes(live.files[WAL][16:20], "big")
    other = encode_mark(MarkValue(LogState.WRITTEN, 1, ((newer + 1) % 2**32).to_bytes(4, "big") + b"abcd", (1, 2)))
    assert live.opened({MARK: other}) is None


def test_an_interrupted_creation_begins_again(tmp_path: Path) -> None:
    (tmp_path / "creating.db").write_bytes(b"half")
    (tmp_path / MARK).write_bytes(b"")
    store, replaced = open_or_replace(tmp_path)
    assert replaced is None
    store.close()


def test_an_io_error_while_in_use_condemns_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path)
    write_some(store, 0)

    def fail(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
        raise error

    with monkeypatch.context() as patch:
        patch.setattr("shadow_nodes.storage.transaction.Transaction.finish", fail)
        with pytest.raises(OSError, match="disk I/O error"):
            write_some(store, 1)
    with pytest.raises(OSError, match="disk I/O error"):
        store.recover()
    store.close()
    with pytest.raises(CorruptError, match="disk I/O error"):
        SqliteStore(tmp_path)


def write_until_full(store: Store) -> None:
    for round_ in range(100):
        write_some(store, round_)


def test_a_full_disk_does_not_condemn_the_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store._writer.execute("PRAGMA max_page_count = 1")
    with pytest.raises(NoRoomError):
        write_until_full(store)
    store.close()
    store, replaced = open_or_replace(tmp_path)
    assert replaced is None
    store.close()


def test_damaged_files_are_kept_apart(tmp_path: Path) -> None:
    for number in (1, 2):
        store, _ = open_or_replace(tmp_path)
        store.close()
        (tmp_path / DATABASE).write_bytes(b"nonsense")
        store, replaced = open_or_replace(tmp_path)
        assert replaced is not None
        assert f"corrupt-{number}" in replaced
        store.close()
        assert (tmp_path / f"corrupt-{number}" / DATABASE).read_bytes() == b"nonsense"
