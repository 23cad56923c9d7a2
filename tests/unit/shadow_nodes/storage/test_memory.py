"""What only the simulation uses of the store in memory."""

from __future__ import annotations

import pytest

from shadow_nodes.core.store import Checkpoint, LogEntry, RowChanges, ShardWrite
from shadow_nodes.protocol.errors import CorruptError
from shadow_nodes.protocol.messages import Position
from shadow_nodes.storage.memory import MemoryStore

A = "00000000000000aa/0"


def entry(seq: int) -> ShardWrite:
    return ShardWrite(A, entries=[LogEntry(1, seq, b"x")])


@pytest.mark.parametrize("survived", [0, 1, 2])
def test_a_crash_keeps_what_was_finished_and_a_prefix_of_the_rest(survived: int) -> None:
    store = MemoryStore("one")
    store.write([entry(1)])
    store.begin([entry(2)])
    store.begin([entry(3)])
    assert len(store.read_log(A, 0, 9, 99)) == 1
    after = store.crash(survived)
    assert [item.seq for item in after.read_log(A, 0, 9, 99)] == list(range(1, 2 + survived))
    assert after.incarnation == "one"
    with pytest.raises(OSError, match="crashed"):
        store.recover()


def test_finished_writes_can_be_read_and_survive() -> None:
    store = MemoryStore("one")
    ticket = store.begin([entry(1)])
    store.finish(ticket)
    assert len(store.crash().read_log(A, 0, 9, 99)) == 1


def test_damage_is_noticed_before_and_after_a_crash() -> None:
    store = MemoryStore("one")
    store.write([entry(1)])
    store.corrupt("flipped")
    with pytest.raises(CorruptError, match="flipped"):
        store.read_log(A, 0, 9, 99)
    with pytest.raises(CorruptError, match="flipped"):
        store.crash().recover()


def checkpointed() -> MemoryStore:
    """Three entries; the rows (1, 1) and (1, 2), and the outcomes, as of the second."""
    store = MemoryStore("one")
    changes = RowChanges(puts=[(1, 1, b"a"), (1, 2, b"b")])
    checkpoint = Checkpoint(Position(1, 2), changes, [(2, b"outcomes")])
    store.write([entry(1)])
    store.write([entry(2)])
    store.write([ShardWrite(A, entries=[LogEntry(1, 3, b"x")], commit_seq=3, checkpoint=checkpoint)])
    return store


def test_a_damaged_log_entry_is_noticed_by_who_reads_it_and_condemns_the_store() -> None:
    store = checkpointed()
    store.damage_log(A, [2])
    assert store.damaged
    assert [item.seq for item in store.read_log(A, 2, 9, 99)] == [3]
    with pytest.raises(CorruptError, match="log entry 2"):
        store.read_log(A, 0, 9, 99)
    with pytest.raises(CorruptError, match="log entry 2"):
        store.read_log(A, 2, 9, 99)
    with pytest.raises(CorruptError, match="log entry 2"):
        store.crash().recover()


def test_damage_outlives_a_crash_and_goes_with_what_was_damaged() -> None:
    store = checkpointed()
    store.damage_log(A, [1, 2])
    store.damage_outcomes(A, [2])
    store = store.crash()
    assert store.damaged
    store.write([ShardWrite(A, trim=Position(1, 2))])
    assert not store.damaged
    assert [item.seq for item in store.read_log(A, 2, 9, 99)] == [3]


def test_damaged_rows_are_noticed_alone_in_a_walk_and_in_a_snapshot() -> None:
    for read in (
        lambda store: store.read_row(A, 1, 2),
        lambda store: list(store.read_rows(A)),
        lambda store: list(store.snapshot(A, 99)[1]),
    ):
        store = checkpointed()
        store.damage_rows(A, [(1, 2)])
        assert store.read_row(A, 1, 1) == b"a"
        with pytest.raises(CorruptError, match=r"row \(1, 2\)"):
            read(store)


def test_a_row_that_is_written_anew_is_whole() -> None:
    store = checkpointed()
    store.damage_rows(A, [(1, 1), (1, 2)])
    changes = RowChanges(puts=[(1, 2, b"c")], deletes=[(1, 1)])
    store.write([ShardWrite(A, checkpoint=Checkpoint(Position(1, 3), changes))])
    assert not store.damaged
    assert list(store.read_rows(A)) == [(1, 2, b"c")]


def test_damaged_outcomes_are_noticed_by_who_reads_them() -> None:
    store = checkpointed()
    store.damage_outcomes(A, [2])
    with pytest.raises(CorruptError, match="outcomes"):
        store.read_outcomes(A, 0, 9)


def test_damaged_records_are_noticed_at_the_next_start() -> None:
    store = checkpointed()
    store.damage_records()
    assert len(store.read_log(A, 0, 9, 99)) == 3
    with pytest.raises(CorruptError, match="record"):
        store.crash().recover()
