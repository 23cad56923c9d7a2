"""A disk that is really full: a tmpfs of some MiB, for which the tests must be root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow_nodes.core.store import Checkpoint, LogEntry, RowChanges, ShardWrite
from shadow_nodes.load import DISK_ROOM_FACTOR, has_room
from shadow_nodes.protocol.errors import NoRoomError
from shadow_nodes.protocol.limits import MIB
from shadow_nodes.protocol.messages import Position
from shadow_nodes.storage.directory import DATABASE, MARK, WAL
from shadow_nodes.storage.sqlite import CHECKPOINT_FRAMES, SqliteStore
from shadow_nodes.storage.tables import PAGE_BYTES
from shadow_nodes.storage.wal_scan import FRAME_HEADER_BYTES, HEADER_BYTES

A, B = "00000000000000aa/0", "00000000000000bb/0"
DISK_BYTES = 32 * MIB
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(path)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a tmpfs")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def fill(disk: Path, left_bytes: int = 0) -> Path:
    """Another file takes the disk's room, all but ``left_bytes``."""
    ballast = disk / "ballast"
    with ballast.open("ab") as file:
        free = shutil.disk_usage(disk).free - left_bytes
        os.posix_fallocate(file.fileno(), file.tell(), free // PAGE_BYTES * PAGE_BYTES)
    return ballast


def entries(first: int, last: int, size_bytes: int = 20_000) -> list[LogEntry]:
    return [LogEntry(1, seq, b"%d" % seq * (size_bytes // len(b"%d" % seq))) for seq in range(first, last + 1)]


def seqs(store: SqliteStore, shard: str) -> list[int]:
    return [entry.seq for entry in store.read_log(shard, 0, 1 << 60, 1 << 30)]


def test_a_write_without_room_changes_nothing_and_is_done_when_there_is_room(disk: Path) -> None:
    store = SqliteStore(disk / "data")
    store.write([ShardWrite(A, entries=entries(1, 5), commit_seq=3)])
    before = store.recover()
    ballast = fill(disk)
    with pytest.raises(NoRoomError):
        store.write([ShardWrite(A, entries=entries(6, 200), commit_seq=6)])
    with pytest.raises(NoRoomError):
        store.stage(B, 1, Position(1, 1), [(1, key, bytes(20_000)) for key in range(50)])
    assert store.recover() == before
    assert seqs(store, A) == [1, 2, 3, 4, 5]
    ballast.unlink()
    store.write([ShardWrite(A, entries=entries(6, 200), commit_seq=6)])
    assert seqs(store, A) == list(range(1, 201))
    incarnation = store.incarnation
    store.close()
    again = SqliteStore(disk / "data")
    assert (again.incarnation, seqs(again, A)) == (incarnation, list(range(1, 201)))
    again.close()


def test_the_reserve_is_given_up_for_a_write_and_made_again(disk: Path) -> None:
    store = SqliteStore(disk / "data")
    assert not store.reserve.held
    store.make_reserve()
    assert store.reserve.held
    assert store.spare_bytes() == 0
    ballast = fill(disk)
    store.write([ShardWrite(A, entries=entries(1, 10))])
    assert not store.reserve.held
    assert store.spare_bytes() == -store.reserve.size_bytes
    store.make_reserve()
    assert not store.reserve.held, "there is no room for it"
    ballast.unlink()
    store.make_reserve()
    assert store.reserve.held
    store.close()
    assert SqliteStore(disk / "data").reserve.held


def test_what_is_committed_stays_in_the_log_while_the_database_may_not_grow(disk: Path) -> None:
    """The write-ahead log has its space already; folding it into the database needs more."""
    store = SqliteStore(disk / "data")
    per_write = 4
    for number in range(CHECKPOINT_FRAMES // per_write // 2):
        store.write([ShardWrite(A, entries=entries(1 + number, 1 + number, PAGE_BYTES * per_write))])
    last = seqs(store, A)[-1]
    fill(disk, left_bytes=4 * MIB)
    written = 0
    try:
        while written < 1_000:
            store.write([ShardWrite(A, entries=entries(last + 1, last + 1, PAGE_BYTES * per_write))])
            last += 1
            written += 1
    except NoRoomError:
        pass
    assert written > 100, "some of the log's room was there"
    assert seqs(store, A)[-1] == last
    shutil.copytree(disk / "data", disk.parent / "after power loss")
    again = SqliteStore(disk.parent / "after power loss")
    assert seqs(again, A)[-1] == last
    again.close()


def test_frames_of_a_write_without_room_are_not_taken_for_a_lost_transaction(disk: Path, tmp_path: Path) -> None:
    """A small write goes over the first of them, and the power fails before it is whole."""
    store = SqliteStore(disk / "data")
    store.write([ShardWrite(A, entries=entries(1, 5))])
    ballast = fill(disk, left_bytes=1 * MIB)
    with pytest.raises(NoRoomError):
        store.write([ShardWrite(A, entries=entries(6, 400))])
    ballast.unlink()
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    shutil.copy(disk / "data" / MARK, crashed / MARK)
    frames = store._frames
    store.write([ShardWrite(B, entries=entries(1, 1, 100))])
    assert store._frames > frames
    shutil.copy(disk / "data" / DATABASE, crashed / DATABASE)
    with (disk / "data" / WAL).open("rb") as file:
        log = bytearray(file.read())
    assert len(log) > HEADER_BYTES + (store._frames + 20) * FRAME_BYTES, "there is something behind the end"
    log[HEADER_BYTES + frames * FRAME_BYTES + FRAME_HEADER_BYTES + 7] ^= 1
    (crashed / WAL).write_bytes(log)
    again = SqliteStore(crashed)
    assert (seqs(again, A), seqs(again, B)) == ([1, 2, 3, 4, 5], [])
    again.close()
    store.close()


def test_what_was_to_be_erased_still_is_after_a_write_without_room(disk: Path) -> None:
    store = SqliteStore(disk / "data")
    for first in range(1, 2_000, 100):
        store.write([ShardWrite(A, entries=entries(first, first + 99, 10))])
    checkpoint = Checkpoint(Position(1, 1_500), RowChanges(puts=[(1, key, bytes(100)) for key in range(200)]))
    store.write([ShardWrite(A, commit_seq=2_000, checkpoint=checkpoint, trim=Position(1, 1_000))])
    left = store._contents.leftovers
    before = (list(left.spans), list(left.spaces), list(left.dropping))
    assert before[0], "something is to be erased"
    ballast = fill(disk)
    with pytest.raises(NoRoomError):
        store.write([ShardWrite(A, entries=entries(2_001, 2_300), trim=Position(1, 1_400))])
    assert (list(left.spans), list(left.spaces), list(left.dropping)) == before
    ballast.unlink()
    for _ in range(100):
        store.write([ShardWrite(B, commit_seq=0)])
    assert seqs(store, A) == list(range(1_001, 2_001))
    assert not left
    store.close()


def test_room_is_said_to_be_back_only_when_there_is_well_enough() -> None:
    low = 256 * MIB
    total = 1 << 40
    assert has_room(low, total, True)
    assert not has_room(low - 1, total, True)
    assert not has_room(low, total, False)
    assert has_room(int(low * DISK_ROOM_FACTOR), total, False)
    assert has_room(7 * MIB, 32 * MIB, True), "of a small disk a fraction is enough"
