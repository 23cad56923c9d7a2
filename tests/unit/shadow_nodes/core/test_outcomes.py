"""What became of operations, as kept beside the log: the same after a restart, on disk or not yet, trimmed with it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from shadow_nodes.core import outcomes, replica
from shadow_nodes.core.replica import Replica
from shadow_nodes.core.store import ReplicaRecord, Store
from shadow_nodes.protocol.audit import Given, LogPage, Outcome, Repeated, Taken
from shadow_nodes.protocol.commands import (
    Accept,
    Command,
    Content,
    Delete,
    Entry,
    Items,
    Letter,
    Operation,
    Receive,
    Refusal,
    Send,
    Session,
    encode,
)
from shadow_nodes.protocol.messages import LOG_START, Append, Fence, Position, Token
from shadow_nodes.storage.directory import DATABASE
from shadow_nodes.storage.memory import MemoryStore
from shadow_nodes.storage.sqlite import SqliteStore

SHARD = "0000000000000007/0"
TOKEN = Token(1, 11)
LIFE = 5
LOG_BYTES = 1 << 20


class Shard:
    """A replica that is driven by hand; every operation is an entry."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.replica = Replica(ReplicaRecord(SHARD), store, LOG_BYTES)
        self.replica.fence(Fence(SHARD, TOKEN), "i", 0)
        self.seq = 0

    def do(self, *commands: Command, counter: int = 0) -> int:
        """The seq of the entry."""
        self.seq += 1
        operations = [Operation(0, counter or self.seq * 10 + place, one) for place, one in enumerate(commands)]
        entry = encode(Entry(1, self.seq, 1_000 * self.seq, [Session(LIFE, 0)], operations))
        previous = Position(1, self.seq - 1) if self.seq > 1 else LOG_START
        self.replica.append(Append(SHARD, TOKEN, previous, [entry], self.seq, want_results=False), 10**12, None)
        self.write()
        return self.seq

    def write(self) -> None:
        write = self.replica.take_write()
        if write is not None:
            self.store.write([write])
            self.replica.written()
            if write.checkpoint is not None:
                self.replica.checkpoint_written()

    def restart(self) -> None:
        (record,) = self.store.recover()
        self.replica = Replica(record, self.store, LOG_BYTES)

    def page(self, after_seq: int = 0, since_ms: int | None = None) -> LogPage:
        return self.replica.read_page(after_seq, since_ms)

    def outcomes(self) -> dict[int, list[tuple[int, Outcome]]]:
        return dict(self.page().outcomes)


@pytest.fixture(params=["memory", "sqlite"])
def shard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shard]:
    store: Store = MemoryStore("one") if request.param == "memory" else SqliteStore(tmp_path / "s")
    yield Shard(store)
    store.close()


def story(shard: Shard) -> dict[int, list[tuple[int, Outcome]]]:
    """What is expected of the log that it makes."""
    letters = [Letter(number, (9, number, 0), Content("l"), 1, "q") for number in (1, 2, 3)]
    sent = shard.do(Send([Content("a"), Content("b")]), Send([Content("c")]))
    taken = shard.do(Receive(2))
    deleted = shard.do(Delete([(1, 1)]), Delete([(2, 7)]))
    empty = shard.do(Send([Content("d")]), Receive(1), Receive(10), Receive(10))
    copied = shard.do(Send([Content("a"), Content("b")]), counter=sent * 10)
    shard.do(Accept("0000000000000008/0", letters[:2]))
    again = shard.do(Accept("0000000000000008/0", letters))
    return {
        taken: [(0, Given([(1, 1, (LIFE, 10, 0)), (2, 1, (LIFE, 10, 1))]))],
        deleted: [(1, Items([Refusal.HANDLE_EXPIRED]))],
        empty: [(1, Given([(3, 1, (LIFE, 11, 0))])), (2, Given([(4, 1, (LIFE, 40, 0))])), (3, Given([]))],
        copied: [(0, Repeated())],
        again: [(0, Taken(2))],
    }


def test_outcomes_are_told_beside_the_log(shard: Shard) -> None:
    expected = story(shard)
    page = shard.page()
    assert dict(page.outcomes) == expected
    assert (page.begins, page.committed_seq, page.after_seq, len(page.entries)) == (LOG_START, shard.seq, 0, shard.seq)
    assert dict(shard.page(3).outcomes) == {seq: one for seq, one in expected.items() if seq > 3}


def test_a_restart_makes_them_anew(shard: Shard) -> None:
    expected = story(shard)
    shard.restart()
    assert shard.outcomes() == expected


def test_a_checkpoint_writes_them(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "CHECKPOINT_ROWS_MAX", 4)
    monkeypatch.setattr(outcomes, "OUTCOME_CHUNK_BYTES", 1)
    expected = story(shard)
    assert shard.store.read_outcomes(SHARD, 0, shard.seq), "the checkpoints had some"
    assert shard.outcomes() == expected
    shard.restart()
    assert shard.outcomes() == expected


def test_while_a_checkpoint_is_written_they_are_still_there(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = story(shard)
    monkeypatch.setattr(replica, "CHECKPOINT_ROWS_MAX", 1)
    write = shard.replica.take_write()
    assert write is not None
    assert write.checkpoint is not None
    assert shard.outcomes() == expected
    shard.store.write([write])
    shard.replica.written()
    shard.replica.checkpoint_written()
    assert shard.outcomes() == expected


def test_they_go_with_the_log(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "CHECKPOINT_ROWS_MAX", 1)
    shard.replica._log_retained_bytes = 200
    for _ in range(30):
        shard.do(Send([Content("x" * 20)]))
        shard.do(Receive(1))
    page = shard.page()
    assert page.begins.seq == page.after_seq > 30
    receives = [seq for seq in range(page.begins.seq + 1, shard.seq + 1) if seq % 2 == 0]
    assert [seq for seq, _ in page.outcomes] == receives
    kept = shard.store.read_outcomes(SHARD, 0, shard.seq)
    assert [seq for seq, _ in outcomes.between(kept, 0, shard.seq)] == receives


def test_many_outcomes_ask_for_a_checkpoint(shard: Shard, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in memory until then, and a queue that is kept empty has no rows that would ask for one."""
    monkeypatch.setattr(replica, "OUTCOME_BYTES_MAX", 200)
    for _ in range(60):
        shard.do(Receive(1))
    assert shard.replica._outcomes.size_bytes < 200
    assert shard.store.read_outcomes(SHARD, 0, shard.seq)
    assert len(shard.outcomes()) == 60


def test_a_store_of_before_there_were_outcomes(tmp_path: Path) -> None:
    """It is no damaged store: it gets the table, and keeps what it has."""
    store = SqliteStore(tmp_path)
    shard = Shard(store)
    shard.do(Send([Content("a")]))
    store.close()
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("DROP TABLE outcomes")
    connection.close()
    shard.store = SqliteStore(tmp_path)
    shard.restart()
    shard.replica.fence(Fence(SHARD, TOKEN), "i", 0)
    taken = shard.do(Receive(1))
    assert shard.outcomes() == {taken: [(0, Given([(1, 1, (LIFE, 10, 0))]))]}
    shard.store.close()


def test_by_time(shard: Shard) -> None:
    story(shard)
    assert shard.page(since_ms=3_000).after_seq == 2
    assert shard.page(since_ms=3_001).after_seq == 3
    assert shard.page(since_ms=1).after_seq == 0
    late = shard.page(since_ms=10**9)
    assert (late.after_seq, late.entries) == (shard.seq, [])
