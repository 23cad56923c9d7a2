"""What only the simulation uses of the store in memory."""

from __future__ import annotations

import pytest

from shadow_nodes.core.store import LogEntry, ShardWrite
from shadow_nodes.protocol.errors import CorruptError
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
