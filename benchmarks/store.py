"""How near the SQLite store comes to bare SQLite, measured in the same run: python benchmarks/store.py [--seconds 2].

Per line: transactions and log entries per second, processor time per transaction (which other work on the machine
changes little), and how long a write takes at the median, the 99th percentile and worst. The floor is one table, one
connection, WAL, synchronous=FULL, fsync per transaction.
"""

from __future__ import annotations

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from shadow_nodes.core.store import Checkpoint, LogEntry, RowChanges, ShardWrite
from shadow_nodes.protocol.commands import shard_key
from shadow_nodes.protocol.messages import Position, Token
from shadow_nodes.storage.sqlite import SqliteStore

KIB = 1024
CASES = [(1, 1, 200), (1, 100, 200), (50, 1, 200), (10, 10, 200), (50, 100, 200), (10, 1, 4 * KIB), (1, 1, 64 * KIB)]
"""(shards, entries of each, bytes of each) per transaction."""
TRIM_EVERY = 200
TRIM_KEPT = 1_000


def measure(name: str, entries: int, write: Callable[[int], None], seconds: float) -> None:
    durations: list[float] = []
    started = time.perf_counter()
    cpu_started = time.process_time()
    before = started
    while before - started < seconds:
        write(len(durations))
        now = time.perf_counter()
        durations.append(now - before)
        before = now
    cpu = (time.process_time() - cpu_started) / len(durations)
    rate = len(durations) / (before - started)
    durations.sort()
    median, late, worst = durations[len(durations) // 2], durations[len(durations) * 99 // 100], durations[-1]
    print(
        f"{name:44} {rate:8,.0f} tx/s {rate * entries:10,.0f} entries/s"
        f"   cpu {cpu * 1e6:6,.0f} µs   {median * 1e6:7,.0f} µs  p99 {late * 1e6:7,.0f} µs  max {worst * 1e3:6.1f} ms"
    )


def floor(path_dir: Path, rows: int, size_bytes: int, seconds: float) -> None:
    connection = sqlite3.connect(path_dir / "floor.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE log(id INTEGER PRIMARY KEY, data BLOB)")
    body = [(b"x" * size_bytes,)] * rows

    def write(_: int) -> None:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO log(data) VALUES (?)", body)
        connection.execute("COMMIT")

    measure(f"bare SQLite: {rows} rows of {size_bytes} B", rows, write, seconds)
    connection.close()


def writer(store: SqliteStore, case: tuple[int, int, int], trim: bool) -> Callable[[int], None]:
    shards, entries, size_bytes = case
    keys = [shard_key(number, 0) for number in range(1, shards + 1)]
    body = b"x" * size_bytes

    def write(number: int) -> None:
        first = number * entries + 1
        writes = [
            ShardWrite(
                key,
                promised=Token(1, 1),
                entries=[LogEntry(1, seq, body) for seq in range(first, first + entries)],
                commit_seq=first - 1,
            )
            for key in keys
        ]
        if trim and number % TRIM_EVERY == TRIM_EVERY - 1:
            for one in writes:
                rows = [(1, number * 10 + key, body) for key in range(10)]
                one.checkpoint = Checkpoint(Position(1, first - 1), RowChanges(puts=rows))
                one.trim = Position(1, max(0, first - TRIM_KEPT))
        store.write(writes)

    return write


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="per line")
    parser.add_argument("--directory", type=Path, help="where to write; a temporary directory by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        for case in CASES:
            shards, entries, size_bytes = case
            for trim in (False, True):
                path_dir = Path(name) / f"{case} {trim}"
                path_dir.mkdir()
                if not trim:
                    floor(path_dir, shards * entries, size_bytes, options.seconds)
                store = SqliteStore(path_dir)
                text = f"SqliteStore: {shards} x {entries} of {size_bytes} B{' trimmed' if trim else ''}"
                measure(text, shards * entries, writer(store, case, trim), options.seconds)
                store.close()


if __name__ == "__main__":
    main()
