"""Copies between nodes that race with owners, writes and load: what was told to an owner stays true."""

from __future__ import annotations

from shadow_nodes.core.node import NodeConfig, NodeCore, Now
from shadow_nodes.core.store import LogEntry
from shadow_nodes.protocol.commands import Content, Entry, Letter, Operation, Send, Session, encode, shard_key
from shadow_nodes.protocol.limits import LOG_RETAINED_BYTES_DEFAULT, OPERATION_BYTES_MAX, PROTOCOL_VERSION
from shadow_nodes.protocol.messages import (
    LOG_START,
    Answered,
    Append,
    Appended,
    Ask,
    Fence,
    Hello,
    Learn,
    Position,
    Stale,
    Token,
    ToManager,
    ToNode,
)
from shadow_nodes.storage.memory import MemoryStore

SHARD = shard_key(7, 0)
LINK = 1
NOW = Now(1_000, 1_700_000_000_000)
OLD, NEW = Token(1, 11), Token(2, 22)


def entry(epoch: int, seq: int, body: str = "body") -> bytes:
    send = Operation(0, seq, Send([Content(body)]))
    return encode(Entry(epoch, seq, NOW.clock_ms, [Session(epoch, 0)], [send]))


class Node:
    """A node's core on a store in memory; ``write`` is what its driver does."""

    def __init__(self, name: str) -> None:
        self.store = MemoryStore(name)
        self.core = NodeCore(NodeConfig(name, name, "test", LOG_RETAINED_BYTES_DEFAULT), self.store)
        self.core.connected(LINK, Hello(PROTOCOL_VERSION, "test", "m1", 5, "r1"), NOW)

    def tell(self, *messages: ToNode) -> None:
        self.core.receive(LINK, list(messages), NOW)

    def write(self) -> list[ToManager]:
        batch = self.core.take_batch()
        self.store.write(batch.writes)
        self.core.written(batch)
        for reading in self.core.take_readings():
            self.core.loaded(reading, reading.read())
        return [message for _, message in [*self.core.take_sends(), *batch.sends]]

    def append(self, token: Token, previous: Position, seqs: range, commit_seq: int, epoch: int | None = None) -> None:
        entries = [entry(epoch or token.epoch, seq) for seq in seqs]
        self.tell(Append(SHARD, token, previous, entries, commit_seq, want_results=False))

    @property
    def last(self) -> Position:
        return self.core.replicas[SHARD].last


def test_a_late_snapshot_takes_away_nothing_that_an_owner_was_told_is_on_disk() -> None:
    """P1: the old owner made it learn; the new owner reaches it with appends before the snapshot is whole."""
    source = Node("source")
    source.tell(Fence(SHARD, OLD))
    source.append(OLD, LOG_START, range(1, 6), 5)
    source.core.replicas[SHARD]._make_checkpoint()
    source.write()
    record, chunks = source.store.snapshot(SHARD, 1 << 20)

    node = Node("node")
    node.tell(Fence(SHARD, OLD), Learn(SHARD, OLD, "source:1"))
    node.write()
    (pull,) = node.core.take_pulls()
    for rows in chunks:
        node.store.stage(SHARD, 1, record.checkpoint, rows)

    node.tell(Fence(SHARD, NEW))
    node.write()
    node.append(NEW, LOG_START, range(1, 6), 0, epoch=OLD.epoch)
    node.append(NEW, Position(1, 5), range(6, 9), 0)
    assert Appended(SHARD, NEW, 8) in node.write()

    node.core.install(pull, 1, record.checkpoint)
    node.write()
    node.write()

    assert node.last == Position(2, 8)
    assert [item.seq for item in node.store.read_log(SHARD, 5, 99, 1 << 20)] == [6, 7, 8]
    assert node.core.replicas[SHARD].committed.seq >= 5, "what the snapshot says is committed is so"


def test_a_snapshot_that_contradicts_the_tail_replaces_it() -> None:
    source = Node("source")
    source.tell(Fence(SHARD, NEW))
    source.append(NEW, LOG_START, range(1, 4), 3)
    source.core.replicas[SHARD]._make_checkpoint()
    source.write()
    record, chunks = source.store.snapshot(SHARD, 1 << 20)

    node = Node("node")
    node.tell(Fence(SHARD, OLD))
    node.append(OLD, LOG_START, range(1, 9), 0)
    node.tell(Fence(SHARD, NEW), Learn(SHARD, NEW, "source:1"))
    node.write()
    (pull,) = node.core.take_pulls()
    for rows in chunks:
        node.store.stage(SHARD, 1, record.checkpoint, rows)
    assert node.core.install(pull, 1, record.checkpoint)
    node.write()

    assert node.last == Position(2, 3)
    assert node.core.replicas[SHARD].committed == Position(2, 3)


def test_a_snapshot_heals_a_quarantined_replica_only_once_it_takes_nothing_away() -> None:
    """P1: entries that it acknowledged before its machine failed are on its disk, and count."""
    node = Node("node")
    node.tell(Fence(SHARD, OLD), Learn(SHARD, OLD, "source:1"))
    node.append(OLD, LOG_START, range(1, 9), 0)
    assert Appended(SHARD, OLD, 8) in node.write()
    (pull,) = node.core.take_pulls()
    node.core.replicas[SHARD].quarantined = "for the test"
    assert not node.core.snapshot_wanted(pull, Position(1, 5))
    assert not node.core.install(pull, 1, Position(1, 5))
    assert node.core.take_pulls() == [], "the owner asks again"
    node.tell(Learn(SHARD, OLD, "source:1"))
    (pull,) = node.core.take_pulls()
    assert node.core.snapshot_wanted(pull, Position(1, 8))


def test_what_is_served_as_committed_is_read_only_once_it_is_written() -> None:
    """P1, P3: a dead owner's tail is being replaced on disk; another node must not be given it as committed."""
    node = Node("node")
    node.tell(Fence(SHARD, OLD))
    node.append(OLD, LOG_START, range(1, 4), 1)
    node.write()
    node.tell(Fence(SHARD, NEW))
    node.write()

    node.append(NEW, Position(1, 1), range(2, 4), 3)
    batch = node.core.take_batch()
    ticket = node.store.begin(batch.writes)
    served = node.core.log_for(SHARD, 1)
    assert served == []

    node.store.finish(ticket)
    node.core.written(batch)
    served = node.core.log_for(SHARD, 1)
    assert served is not None
    assert [(item.epoch, item.seq) for item in served] == [(2, 2), (2, 3)]


def test_an_owner_hears_how_far_a_copy_has_come_though_its_source_never_stands_still() -> None:
    """P6: under load a copy always finds more; were only its end told, a replica would never be level again."""
    node = Node("node")
    node.tell(Fence(SHARD, OLD), Learn(SHARD, OLD, "source:1"))
    node.write()
    (pull,) = node.core.take_pulls()
    node.core.pulled(pull, [LogEntry(1, seq, entry(1, seq)) for seq in (1, 2)])
    assert Appended(SHARD, OLD, 2) in node.write()
    assert len(node.core.take_pulls()) == 1, "and goes on"


def test_letters_that_are_sent_along_fit_an_operation() -> None:
    """P6: an answer that fits no frame would end the link, and again whenever it is asked for."""
    node = Node("node")
    node.tell(Fence(SHARD, OLD))
    node.write()
    node.core.take_sends()
    outbox = node.core.replicas[SHARD].machine._state.outbox
    for number in range(1, 101):
        outbox.put(Letter(number, (1, number, 0), Content("x" * 1_000_000), 0, "dead"), fifo=False)
    node.tell(Ask(SHARD, OLD, [], letters_max=100))
    (answer,) = (message for _, message in node.core.take_sends())
    assert isinstance(answer, Answered)
    assert answer.letters
    assert sum(len(letter.content.body) for letter in answer.letters) <= OPERATION_BYTES_MAX


def test_a_quarantined_replica_does_not_copy_what_it_cannot_take_over_and_over() -> None:
    node = Node("node")
    node.tell(Fence(SHARD, OLD), Learn(SHARD, OLD, "source:1"))
    node.write()
    (pull,) = node.core.take_pulls()
    node.core.replicas[SHARD].quarantined = "for the test"
    node.core.pulled(pull, [LogEntry(1, 1, entry(1, 1))])
    assert node.core.take_pulls() == []


def test_an_owner_whose_successor_has_committed_what_was_copied_is_told_so() -> None:
    """P8: it had told the node to copy, from one that serves the next owner; what it appends is of another log."""
    node = Node("node")
    node.tell(Fence(SHARD, OLD))
    node.append(OLD, LOG_START, range(1, 3), 2)
    node.tell(Learn(SHARD, OLD, "source:1"))
    node.write()
    (pull,) = node.core.take_pulls()
    node.core.pulled(pull, [LogEntry(NEW.epoch, seq, entry(NEW.epoch, seq)) for seq in (3, 4)])
    node.write()
    assert node.last == Position(NEW.epoch, 4)

    node.append(OLD, Position(OLD.epoch, 2), range(3, 6), 2)
    answers = node.write()
    assert [item for item in answers if isinstance(item, Stale)] == [Stale(SHARD, OLD, Token(NEW.epoch, 0))]
    assert node.last == Position(NEW.epoch, 4)
