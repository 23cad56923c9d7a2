"""What a node keeps of its log while its disk is nearly full, and what it refuses while that is full."""

from __future__ import annotations

import pytest

from shadow_nodes.core import replica as replica_module
from shadow_nodes.core.node import SPARING_CHECKPOINT_BYTES, NodeConfig, NodeCore, Now
from shadow_nodes.protocol.commands import Content, Entry, Operation, Send, Session, encode, shard_key
from shadow_nodes.protocol.limits import LOG_RETAINED_BYTES_DEFAULT, PROTOCOL_VERSION
from shadow_nodes.protocol.messages import LOG_START, Append, Fence, Hello, Learn, Load, NoRoom, Position, Token
from shadow_nodes.storage.memory import MemoryStore

SHARD = shard_key(7, 0)
TOKEN = Token(1, 1)
NOW = Now(1_000, 1_700_000_000_000)
BODY = "x" * (SPARING_CHECKPOINT_BYTES // 4)


class Node:
    def __init__(self) -> None:
        self.store = MemoryStore("a")
        self.core = NodeCore(NodeConfig("a", "r", "c", LOG_RETAINED_BYTES_DEFAULT), self.store)
        self.core.connected(1, Hello(PROTOCOL_VERSION, "c", "m", 1, "r"), NOW)
        self.core.receive(1, [Fence(SHARD, TOKEN)], NOW)
        self.write()

    def write(self) -> None:
        batch = self.core.take_batch()
        self.store.write(batch.writes)
        self.core.written(batch)

    def append(self, seq: int) -> None:
        """One more entry; the one before is committed by it."""
        operation = Operation(0, seq, Send([Content(BODY)]))
        data = encode(Entry(1, seq, NOW.clock_ms, [Session(1, seq)], [operation]))
        previous = Position(1, seq - 1) if seq > 1 else LOG_START
        self.core.receive(1, [Append(SHARD, TOKEN, previous, [data], seq - 1, want_results=False)], NOW)
        self.write()

    @property
    def log_start(self) -> int:
        return self.store.recover()[0].log_start.seq


def test_a_nearly_full_disk_keeps_no_log_that_is_in_a_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica_module, "CHECKPOINT_ROWS_MAX", 4)
    node = Node()
    for seq in range(1, 21):
        node.append(seq)
    checkpoint = node.core.replicas[SHARD].checkpoint.seq
    assert checkpoint > 4
    assert node.log_start == 0, "kept, for it is less than LOG_RETAINED_BYTES_DEFAULT"
    node.core.measured(Load(has_room=False))
    node.write()
    assert node.log_start == checkpoint


def test_a_shard_on_a_nearly_full_disk_is_checkpointed_often() -> None:
    node = Node()
    node.core.measured(Load(has_room=False))
    for seq in range(1, 21):
        node.append(seq)
    assert node.log_start >= 20 - 6
    node.core.measured(Load(has_room=True))
    before = node.log_start
    for seq in range(21, 41):
        node.append(seq)
    assert node.log_start == before


def test_while_the_disk_is_full_nothing_is_promised_or_taken() -> None:
    node = Node()
    node.core.take_sends()
    node.core.out_of_room = True
    replica = node.core.replicas[SHARD]
    append = Append(SHARD, TOKEN, LOG_START, [], 0, want_results=True)
    node.core.receive(1, [Fence(SHARD, Token(2, 2)), append, Learn(SHARD, TOKEN, "b")], NOW)
    node.core.receive(1, [Fence(shard_key(8, 0), TOKEN)], NOW)
    assert [type(message) for _, message in node.core.take_sends()] == [NoRoom] * 4
    assert replica.promised == TOKEN
    assert list(node.core.replicas) == [SHARD]
    assert not node.core.take_batch()
