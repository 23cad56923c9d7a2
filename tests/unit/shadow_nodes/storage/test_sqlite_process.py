"""Real processes: killed while they write, and competing for a directory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from shadow_nodes.storage.directory import DirectoryInUseError
from shadow_nodes.storage.sqlite import SqliteStore

WRITER = """
import sys
from shadow_nodes.core.store import Checkpoint, LogEntry, RowChanges, ShardWrite
from shadow_nodes.protocol.messages import Position
from shadow_nodes.storage.sqlite import SqliteStore

SHARDS = ["a/0", "b/0", "c/0"]
store = SqliteStore(sys.argv[1])
last = max([record.last.seq for record in store.recover()], default=0)
print("open", flush=True)
while True:
    last += 1
    writes = []
    for number, shard in enumerate(SHARDS):
        write = ShardWrite(shard, entries=[LogEntry(1, last, b"%d" % last * (1 + last * 37 % 900))], commit_seq=last)
        if last % 10 == number:
            write.checkpoint = Checkpoint(Position(1, last), RowChanges(puts=[(1, last, b"%d" % last)]))
            write.trim = Position(1, max(0, last - 300))
        writes.append(write)
    store.write(writes)
    print(last, flush=True)
"""


def start_writer(path_dir: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path_dir)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_everything_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    chance = random.Random(5)
    acknowledged = 0
    for _ in range(6):
        process = start_writer(tmp_path)
        assert process.stdout is not None
        for _ in range(chance.randrange(1, 700)):
            acknowledged = int(process.stdout.readline())
        process.kill()
        rest, _ = process.communicate()
        acknowledged = int(rest.split("\n")[-2]) if rest.count("\n") else acknowledged
        store = SqliteStore(tmp_path)
        try:
            assert_all_there(store, acknowledged)
        finally:
            store.close()


def assert_all_there(store: SqliteStore, acknowledged: int) -> None:
    lasts = {record.last.seq for record in store.recover()}
    assert len(lasts) == 1, "a transaction is there wholly or not at all"
    last = lasts.pop()
    assert acknowledged <= last <= acknowledged + 1
    for record in store.recover():
        entries = store.read_log(record.shard, 0, last, 1 << 60)
        assert [entry.seq for entry in entries] == list(range(record.log_start.seq + 1, last + 1))
        assert all(entry.data == b"%d" % entry.seq * (1 + entry.seq * 37 % 900) for entry in entries)
        rows = list(store.read_rows(record.shard))
        number = ord(record.shard[0]) - ord("a")
        assert rows == [(1, seq, b"%d" % seq) for seq in range(1, last + 1) if seq % 10 == number]


def test_a_directory_has_one_process_at_a_time(tmp_path: Path) -> None:
    process = start_writer(tmp_path)
    try:
        with pytest.raises(DirectoryInUseError, match=f"in use by process {process.pid}"):
            SqliteStore(tmp_path)
    finally:
        process.kill()
        process.communicate()
    SqliteStore(tmp_path).close()


def test_a_directory_has_one_store_at_a_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    with pytest.raises(DirectoryInUseError):
        SqliteStore(tmp_path)
    store.close()
    SqliteStore(tmp_path).close()
