"""When a snapshot may replace a log: never what may have been acknowledged."""

from __future__ import annotations

import pytest

from shadow_nodes.core.machine import Machine
from shadow_nodes.core.node import NodeConfig, NodeCore, Now, Pull
from shadow_nodes.core.store import LogEntry
from shadow_nodes.protocol.commands import Entry, encode, shard_key
from shadow_nodes.protocol.limits import PROTOCOL_VERSION
from shadow_nodes.protocol.messages import (
    LOG_START,
    Append,
    Erase,
    Fence,
    Gap,
    Hello,
    Inspect,
    Learn,
    Position,
    Retire,
    Token,
)
from shadow_nodes.storage.memory import MemoryStore

SHARD = shard_key(7, 0)
TOKEN = Token(1, 1)
NOW = Now(0, 1_000)


def write(core: NodeCore) -> None:
    batch = core.take_batch()
    core._store.write(batch.writes)
    core.written(batch)
    for reading in core.take_readings():
        core.loaded(reading, reading.read())


@pytest.fixture
def core() -> NodeCore:
    """Entries 1 to 20 of epoch 1, of which this node knows 5 to be committed, and a Learn to carry out."""
    core = NodeCore(NodeConfig("n", "r", "c", 1 << 20), MemoryStore("inc"))
    core.connected(1, Hello(PROTOCOL_VERSION, "c", "m", 1, "r"), NOW)
    core.receive(1, [Fence(SHARD, TOKEN)], NOW)
    write(core)
    entries = [encode(Entry(1, seq, 1_000, [], [])) for seq in range(1, 21)]
    core.receive(1, [Append(SHARD, TOKEN, LOG_START, entries, 5, False)], NOW)
    write(core)
    core.receive(1, [Learn(SHARD, TOKEN, "source:1")], NOW)
    return core


def test_entries_after_a_snapshot_that_the_log_agrees_with_stay(core: NodeCore) -> None:
    (pull,) = core.take_pulls()
    assert not core.install(pull, 1, Position(1, 18))
    replica = core.replicas[SHARD]
    assert (replica.committed, replica.last) == (Position(1, 18), Position(1, 20))
    assert core.take_pulls() == [Pull(SHARD, "source:1", 18, pull.learning)]


@pytest.mark.parametrize("position", [Position(2, 18), Position(1, 21)])
def test_a_snapshot_that_the_log_does_not_reach_replaces_it(core: NodeCore, position: Position) -> None:
    (pull,) = core.take_pulls()
    assert core.snapshot_wanted(pull, position)
    core._store.stage(SHARD, 1, position, [])
    assert core.install(pull, 1, position)
    assert core.replicas[SHARD].installing


def test_a_snapshot_for_an_erased_shard_is_not_wanted(core: NodeCore) -> None:
    (pull,) = core.take_pulls()
    del core.replicas[SHARD]
    assert not core.install(pull, 1, Position(1, 21))


def test_a_copy_that_began_before_the_replica_retired_is_not_taken_for_the_next(core: NodeCore) -> None:
    """What was staged of it went with the replica: what is staged since is its end only."""
    (before,) = core.take_pulls()
    core._store.stage(SHARD, 1, Position(2, 30), [])
    core.receive(1, [Retire(SHARD, TOKEN)], NOW)
    write(core)
    core.receive(1, [Fence(SHARD, TOKEN), Learn(SHARD, TOKEN, "source:2")], NOW)
    core._store.stage(SHARD, 1, Position(2, 30), [])
    assert not core.install(before, 1, Position(2, 30))
    core.pulled(before, [LogEntry(1, 1, encode(Entry(1, 1, 1_000, [], [])))])
    core.pull_failed(before)
    assert core.replicas[SHARD].blank
    (pull,) = core.take_pulls()
    assert (pull.source, pull.after_seq) == ("source:2", 0)
    assert core.snapshot_wanted(pull, Position(2, 30))


def test_until_a_snapshot_has_been_read_the_node_goes_on_without_the_shard(core: NodeCore) -> None:
    """Reading a deep queue takes seconds; a replica erased meanwhile wants nothing of it."""
    (pull,) = core.take_pulls()
    position = Position(2, 30)
    source = Machine()
    rows = [(kind, key, value) for kind, key, value in source.take_changes().puts]
    core._store.stage(SHARD, 1, position, rows)
    assert core.install(pull, 1, position)
    batch = core.take_batch()
    core._store.write(batch.writes)
    core.written(batch)
    (reading,) = core.take_readings()
    replica = core.replicas[SHARD]
    core.receive(1, [Append(SHARD, TOKEN, Position(1, 20), [encode(Entry(1, 21, 1_000, [], []))], 20, False)], NOW)
    core.receive(1, [Fence(SHARD, Token(2, 1)), Inspect(1, None, digest=True)], NOW)
    batch = core.take_batch()
    assert [type(message) for _, message in batch.sends] == [Gap]
    assert core.log_for(SHARD, 5) is None
    machine = reading.read()
    assert core.awaited(reading)
    core.loaded(reading, machine)
    assert not replica.installing
    assert replica.committed == replica.machine.applied == position
    assert core.take_pulls() == [Pull(SHARD, "source:1", 30, pull.learning)]
    core.receive(1, [Erase(SHARD)], NOW)
    assert not core.awaited(reading)
    core.loaded(reading, machine)
    assert core.replicas == {}
