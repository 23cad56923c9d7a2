"""The line language of the scenario scripts: a command a line, what came of it below ``----``.

    cluster nodes=a,b,c managers=m1,m2 [set=a,b,c] [queue=q]   everything is up, nobody owns the shard
    bound append_bytes=1                 a bound of the code made small: see tests/simulation/bounds.py
    quiet on | quiet off                 messages get no lines, or again do
    take m2                              m2 takes the shard's lock, though its owner may live
    send m1 x [y]                        a client sends x through m1; its answer is a line of its own
    receive m1 [max=1] [visible_ms=30000] [wait_ms=0]
    delete m1 x                          with the handle that came with x last
    count m1
    promote m1 b                         an operator wants b primary, and the owner in its region
    factor 3                             an operator sets the queue's shadow factor
    leave m1                             m1 is to stop: it offers its shards
    hold a>m1 | release a>m1             what a has for m1 waits; either side may be ``*``, ``etcd``, ``watch``;
                                         ``a>disk`` holds a's writes
    deliver a>m1 [2]                     so many of what is held arrive all the same
    drop a>m1                            what is held is lost, but for the end of the link
    timeout m1>etcd                      m1 gives up what is held; it may be carried out all the same
    waiting                              what is held
    crash m1 | crash a [kept]            kept: the write under way reaches the disk
    restart m1 | restart a [wiped]       wiped: with an empty store, of another incarnation
    freeze m1 | thaw m1                  it does nothing and hears nothing for a while
    disk a low | full | ok               a's disk: low, queues may not grow; full, nothing can be written
    cut m1 a | link m1 a                 their link closes; is opened again
    run 500                              so many milliseconds pass, with heartbeats, alarms, retries
    etcd backup | restore | down | up
    tell a fence 3@x                     by hand, as a manager called x would; answers are a line each
    tell a append 3@x after 2:1 3:2=body 3:3=body commit 1
    tell a confirm 3@x
    status                               the record, every owner, every replica
    log a                                a's log; what it knows to be committed comes before the bar
    same a b c                           whether their states are equal, and as of which entry

After each command everything that is not held arrives (``settle``), and the invariants are checked.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import msgspec

from distribution_manager.core import causes
from distribution_manager.core.metadata import (
    QueueMetadata,
    ShardRecord,
    decode_record,
    encode_record,
    meta_key,
    record_key,
)
from distribution_manager.core.transactions import Put, Transaction
from shadow_nodes.core.replica import Replica
from shadow_nodes.protocol.commands import (
    Batch,
    Command,
    Content,
    Delete,
    Entry,
    Operation,
    Receive,
    Result,
    Send,
    Session,
    encode,
)
from shadow_nodes.protocol.messages import Append, Confirm, Fence, Position, Token
from tests.scenarios.engine import World
from tests.scenarios.processes import EPOCH_MS, QUEUE_ID, SHARD, Manager, Node
from tests.scenarios.words import log_line, position, result
from tests.simulation.bounds import bounds

COMMIT_NOTICE_MS = 20
"""Scripts are short: their replicas learn of commits sooner than they would."""
HAND = 900_000
"""Attempts of tokens written by hand are numbered from here."""


class Script:
    """One scenario: a world, and what its clients hold."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        stack.enter_context(bounds({"commit_notice_ms": COMMIT_NOTICE_MS}))
        self._world: World | None = None
        self._handles: dict[str, tuple[int, int]] = {}
        self._hands: dict[str, int] = {}

    @property
    def world(self) -> World:
        assert self._world is not None, "a script begins with: cluster"
        return self._world

    def execute(self, line: str) -> str:
        """Carries a command out; returns what is to stand below it."""
        name, *words = line.split()
        command: Callable[[list[str]], None] = getattr(self, f"do_{name}")
        command(words)
        world = self.world
        if name not in {"bound", "cluster"}:
            world.settle()
        world.check()
        lines, world.lines = world.lines, []
        return "\n".join(lines or ["ok"])

    def _manager(self, name: str) -> Manager:
        return self.world.managers[name]

    # --- the world

    def do_cluster(self, words: list[str]) -> None:
        options = dict(word.split("=") for word in words)
        nodes = options["nodes"].split(",")
        members = options.get("set", options["nodes"]).split(",")
        self._world = World(nodes, options["managers"].split(","), members, options.get("queue", "q"))

    def do_bound(self, words: list[str]) -> None:
        values = dict(word.split("=") for word in words)
        self._stack.enter_context(bounds({name: int(value) for name, value in values.items()}))

    def do_quiet(self, words: list[str]) -> None:
        self.world.talking = words == ["off"]

    def do_run(self, words: list[str]) -> None:
        self.world.run(int(words[0]))

    # --- clients

    def _submit(self, name: str, text: str, command: Command | None, wait_ms: int = 0) -> None:
        def told(verdict: str, value: Result | None) -> None:
            self.world.say(f"client: {text}: {result(verdict, value)}")
            if isinstance(value, Batch):
                for item in value.messages:
                    self._handles[item.content.body] = (item.key, item.delivery)

        self.world.submit(self._manager(name), command, wait_ms, told)

    def do_send(self, words: list[str]) -> None:
        bodies = words[1:]
        self._submit(words[0], f"send {' '.join(bodies)}", Send([Content(body) for body in bodies]))

    def do_receive(self, words: list[str]) -> None:
        options = dict(word.split("=") for word in words[1:])
        command = Receive(int(options.get("max", 1)), int(options.get("visible_ms", 30_000)))
        self._submit(words[0], "receive", command, int(options.get("wait_ms", 0)))

    def do_delete(self, words: list[str]) -> None:
        self._submit(words[0], f"delete {words[1]}", Delete([self._handles[words[1]]]))

    def do_count(self, words: list[str]) -> None:
        self._submit(words[0], "count", None)

    # --- owners

    def do_take(self, words: list[str]) -> None:
        manager = self._manager(words[0])
        assert manager.core is not None
        manager.step(lambda: manager.core.take(SHARD))  # type: ignore[union-attr]

    def do_promote(self, words: list[str]) -> None:
        manager = self._manager(words[0])
        assert manager.core is not None
        core = manager.core
        manager.step(lambda: self._refused(core.handoffs.promote(SHARD, words[1], causes.BY_HAND)))

    def _refused(self, why: str) -> None:
        if why:
            self.world.say(f"refused: {why}")

    def do_factor(self, words: list[str]) -> None:
        etcd = self.world.etcd
        found = etcd._items[meta_key(QUEUE_ID)]
        before = decode_record(QueueMetadata, found.key, found.value)
        after = msgspec.structs.replace(before, shadow_factor=int(words[0]), version=before.version + 1)
        etcd.transact(Transaction([], [Put(found.key, encode_record(after))]))

    def do_leave(self, words: list[str]) -> None:
        manager = self._manager(words[0])
        assert manager.core is not None
        manager.step(manager.core.handoffs.release)

    # --- channels

    def do_hold(self, words: list[str]) -> None:
        for pattern in words:
            self.world.hold(pattern)

    def do_release(self, words: list[str]) -> None:
        for pattern in words:
            self.world.release(pattern)

    def do_deliver(self, words: list[str]) -> None:
        self.world.deliver(words[0], int(words[1]) if len(words) > 1 else 1)

    def do_drop(self, words: list[str]) -> None:
        for pattern in words:
            self.world.drop(pattern)

    def do_timeout(self, words: list[str]) -> None:
        self.world.time_out(words[0])

    def do_waiting(self, words: list[str]) -> None:
        for line in self.world.waiting():
            self.world.say(line)

    # --- processes

    def do_crash(self, words: list[str]) -> None:
        name = words[0]
        if name in self.world.managers:
            self.world.crash_manager(self._manager(name))
        else:
            self.world.crash_node(self.world.nodes[name], kept="kept" in words)

    def do_restart(self, words: list[str]) -> None:
        name = words[0]
        if name in self.world.managers:
            self.world.start_manager(self._manager(name))
        else:
            self.world.start_node(self.world.nodes[name], wiped="wiped" in words)

    def do_freeze(self, words: list[str]) -> None:
        self.world.freeze(words[0])

    def do_thaw(self, words: list[str]) -> None:
        self.world.thaw(words[0])

    def do_disk(self, words: list[str]) -> None:
        self.world.nodes[words[0]].set_disk(words[1])

    def do_cut(self, words: list[str]) -> None:
        self.world.close(self._manager(words[0]), self.world.nodes[words[1]])

    def do_link(self, words: list[str]) -> None:
        self.world.open(self._manager(words[0]), self.world.nodes[words[1]])

    def do_etcd(self, words: list[str]) -> None:
        etcd = self.world.etcd
        match words[0]:
            case "backup":
                self.world.backup = etcd.backup()
            case "restore":
                etcd.restore(self.world.backup)
            case "down" | "up":
                etcd.set_available(words[0] == "up", self.world.ms)

    # --- by hand

    def _token(self, text: str) -> Token:
        epoch, _, name = text.partition("@")
        if name not in self._hands:
            self._hands[name] = self.world.words.attempt(name, HAND + len(self._hands))
        return Token(int(epoch), self._hands[name])

    def do_tell(self, words: list[str]) -> None:
        node, kind, token = words[0], words[1], self._token(words[2])
        if kind == "fence":
            self.world.by_hand(node, Fence(SHARD, token))
        elif kind == "confirm":
            self.world.by_hand(node, Confirm(1, [(SHARD, token)]))
        else:
            self.world.by_hand(node, self._append(token, words[3:]))

    def _append(self, token: Token, words: list[str]) -> Append:
        """``after 2:1 3:2=body 3:3=body commit 1``"""
        epoch, seq = words[1].split(":")
        entries = [self._entry(word) for word in words[2:-2]]
        return Append(SHARD, token, Position(int(epoch), int(seq)), entries, int(words[-1]), True)

    def _entry(self, word: str) -> bytes:
        place, _, body = word.partition("=")
        epoch, seq = (int(part) for part in place.split(":"))
        operation = Operation(0, seq, Send([Content(body)]))
        return encode(Entry(epoch, seq, EPOCH_MS + self.world.ms, [Session(1, 0)], [operation]))

    # --- looking

    def do_status(self, words: list[str]) -> None:
        world = self.world
        found = world.etcd._items[record_key(SHARD)]
        record = decode_record(ShardRecord, found.key, found.value)
        world.say(f"etcd: {world.words.record(record)}")
        for manager in world.managers.values():
            world.say(f"{manager.name}: {self._owner(manager)}")
        for node in world.nodes.values():
            world.say(f"{node.name}: {self._replica(node)}")

    def _owner(self, manager: Manager) -> str:
        if manager.core is None:
            return "down"
        owner = manager.core.owners.get(SHARD)
        if owner is None:
            return "owns nothing"
        token = self.world.words.token(owner.record.token)
        if owner.replication is None:
            return f"{owner.phase.value}"
        return (
            f"{owner.phase.value} {token}, log to {owner.replication.last.seq}, commit {owner.replication.commit_seq}"
        )

    def _replica(self, node: Node) -> str:
        replica = self._held(node)
        if node.core is None:
            return "down"
        if replica is None:
            return "no replica"
        return (
            f"promised {self.world.words.token(replica.promised)}, log to {position(replica.last)}, "
            f"committed {position(replica.committed)}, matched {replica.matched}"
        )

    @staticmethod
    def _held(node: Node) -> Replica | None:
        return node.core.replicas.get(SHARD) if node.core is not None else None

    def do_log(self, words: list[str]) -> None:
        for name in words:
            replica = self._held(self.world.nodes[name])
            if replica is None:
                self.world.say(f"{name}: none")
                continue
            entries = self.world.nodes[name].store.read_log(SHARD, 0, replica.last.seq, 1 << 30)
            self.world.say(f"{name}: {log_line(entries, replica.committed.seq)}")

    def do_same(self, words: list[str]) -> None:
        states = {}
        for name in words:
            replica = self._held(self.world.nodes[name])
            assert replica is not None, f"{name} has no replica"
            states[name] = (replica.committed.seq, replica.machine.digest())
        if len(set(states.values())) == 1:
            self.world.say(f"equal as of entry {next(iter(states.values()))[0]}")
        else:
            for name, (seq, digest) in states.items():
                self.world.say(f"{name}: {digest[:8]} as of entry {seq}")
