"""Managers, nodes and etcd in one place on virtual time: their cores, messages handed between them, nothing else.

``delays`` in milliseconds, one way, per (manager, node) and (manager, manager); 1 where not said. ``deaf``: nodes whose
links are up but carry nothing.
"""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable
from typing import Any

import msgspec

from distribution_manager.coordination.memory import MemoryCluster, MemoryWatch
from distribution_manager.core.manager import CoreConfig, ManagerCore
from distribution_manager.core.messages import Greeting, ManagerMessage, Verdict
from distribution_manager.core.metadata import (
    ManagerRecord,
    NodeRecord,
    QueueMetadata,
    Replica,
    ShardRecord,
    decode_record,
    encode_record,
    manager_key,
    meta_key,
    node_key,
    queue_key,
    record_key,
)
from distribution_manager.core.promotion import PromotionConfig
from distribution_manager.core.request import Now
from distribution_manager.core.transactions import Outcome, Put, Snapshot, Transaction
from shadow_nodes.core.node import NodeConfig, NodeCore, Pull
from shadow_nodes.core.node import Now as NodeNow
from shadow_nodes.protocol.commands import Command, Result, Summary, shard_key
from shadow_nodes.protocol.errors import OutcomeUnknownError, RejectedError
from shadow_nodes.protocol.limits import HEARTBEAT_INTERVAL_MS, LOG_RETAINED_BYTES_DEFAULT, PROTOCOL_VERSION
from shadow_nodes.protocol.messages import Hello, ToManager, ToNode, Welcome
from shadow_nodes.storage.memory import MemoryStore

QUEUE_ID = f"{7:016x}"
SHARD = shard_key(7, 0)
EPOCH_MS = 1_700_000_000_000
ETCD_MS = 2
LEASE_MS = 10**9
Answer = tuple[Verdict, Result | None, Summary | None]


class Node:
    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.up = True
        self.clock_error_ms = 0
        self.seen: list[ToNode] = []
        self.open_with(MemoryStore(f"{name}-1"))

    def open_with(self, store: MemoryStore) -> None:
        self.store = store
        config = NodeConfig(self.name, self.name, "test", LOG_RETAINED_BYTES_DEFAULT)
        self.core = NodeCore(config, store)

    def now(self) -> NodeNow:
        return NodeNow(self.world.ms, self.world.ms + EPOCH_MS + self.clock_error_ms)

    def pump(self) -> None:
        """What the driver does, with writes that take no time."""
        sends = self.core.take_sends()
        while batch := self.core.take_batch():
            self.store.write(batch.writes)
            sends += batch.sends
            self.core.written(batch)
            sends += self.core.take_sends()
        for pull in self.core.take_pulls():
            self.world.later(1, lambda pull=pull: self._copy(pull))
        for link, message in sends:
            self.world.to_manager(self, link, message)

    def _copy(self, pull: Pull) -> None:
        source = self.world.nodes[pull.source.partition(":")[0]]
        entries = source.core.log_for(pull.shard, pull.after_seq)
        assert entries is not None, "no snapshots here"
        self.core.pulled(pull, entries)
        self.pump()


class Manager:
    """Also the core's Effects."""

    def __init__(self, world: World, name: str, region: str, number: int) -> None:
        self.world, self.name, self.number = world, name, number
        config = CoreConfig(name, 100 + number, region, world.promotion, world.heal_after_ms)
        self.core = ManagerCore(config, self)
        self.up = True
        self.clock_error_ms = 0
        self.alarms = 0
        self.transactions = 0
        self.sent: list[tuple[str, ToNode]] = []
        self.watch = MemoryWatch(world.etcd)
        self.bits = number * 1_000_000
        self.lease = world.etcd.grant(LEASE_MS, 0)

    def step(self, action: Callable[[], object]) -> None:
        if self.up:
            self.core.turn(Now(self.world.ms, self.world.ms + EPOCH_MS + self.clock_error_ms))
            action()
            self.core.flush()

    def ring(self) -> None:
        due = self.core.next_alarm_ms()
        if self.up and due is not None and due <= self.world.ms:
            self.alarms += 1
            self.step(self.core.alarm)

    def look(self) -> None:
        found = self.watch.step()
        if isinstance(found, Snapshot):
            self.step(lambda: self.core.directory.snapshot(found))
        elif found:
            self.step(lambda: self.core.directory.changes(found))

    # --- effects

    def send_to_node(self, node: str, message: ToNode) -> None:
        self.sent.append((node, message))
        self.world.to_node(self, node, message)

    def drop_node(self, node: str) -> None:
        pass

    def send_to_manager(self, manager: str, message: ManagerMessage) -> None:
        other = self.world.managers[manager]
        delay_ms = self.world.delays.get((self.name, manager), 1)
        self.world.later(delay_ms, lambda: other.step(lambda: other.core.manager_asks(self.number, [message])))

    def reply(self, connection: int, message: ManagerMessage) -> None:
        asker = next(one for one in self.world.managers.values() if one.number == connection)
        delay_ms = self.world.delays.get((self.name, asker.name), 1)
        self.world.later(delay_ms, lambda: asker.step(lambda: asker.core.manager_messages(self.name, [message])))

    def transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None:
        self.transactions += 1

        def carry_out() -> None:
            outcome: Outcome | None = None
            with contextlib.suppress(OutcomeUnknownError, RejectedError):
                outcome = self.world.etcd.transact(transaction, self.lease)
            self.world.later(ETCD_MS, lambda: self.step(lambda: done(outcome)))

        self.world.later(ETCD_MS, carry_out)

    def random_bits(self) -> int:
        self.bits += 1
        return self.bits


class World:
    heartbeat_ms = HEARTBEAT_INTERVAL_MS

    def __init__(
        self,
        managers: int = 1,
        name: str = "q",
        delays: dict[tuple[str, str], int] | None = None,
        promotion: PromotionConfig = PromotionConfig(),  # noqa: B008 - frozen
        *,
        spares: str = "",
        heal_after_ms: int = 0,
    ) -> None:
        """``spares``: nodes besides a, b and c, which hold the queue."""
        self.ms = 10_000
        self.promotion = promotion
        self.delays = delays or {}
        self.deaf: set[str] = set()
        self.etcd = MemoryCluster()
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._number = 0
        self.heal_after_ms = heal_after_ms
        self.nodes = {node: Node(self, node) for node in "abc" + spares}
        names = [f"m{number + 1}" for number in range(managers)]
        self.managers = {one: Manager(self, one, "abc"[i % 3], i + 1) for i, one in enumerate(names)}
        self.etcd.listeners.append(self._notice)
        self.queue = QueueMetadata(queue_id=QUEUE_ID, name=name)
        replicas = tuple(Replica(node=node, incarnation=f"{node}-1") for node in "abc")
        records: list[Any] = [
            Put(queue_key(name), QUEUE_ID.encode()),
            Put(meta_key(QUEUE_ID), encode_record(self.queue)),
            Put(record_key(SHARD), encode_record(ShardRecord(primary="a", replicas=replicas))),
        ]
        for node in self.nodes:
            record = NodeRecord(node=node, region=node, address=f"{node}:1", incarnation=f"{node}-1")
            records.append(Put(node_key(node), encode_record(record)))
        for one in self.managers.values():
            manager = ManagerRecord(
                manager=one.name, life=one.core.life, region=one.core.region, address="", endpoint=""
            )
            records.append(Put(manager_key(one.name), encode_record(manager)))
        self.etcd.transact(Transaction([], records))
        for one in self.managers.values():
            for node in self.nodes.values():
                self.link(one, node)
            for other in self.managers.values():
                if other is not one:
                    core = other.core
                    greeting = Greeting(PROTOCOL_VERSION, "test", other.name, core.life, core.region)
                    one.step(lambda one=one, greeting=greeting: one.core.manager_up(greeting))
        self._tick()

    # --- the record

    @property
    def record(self) -> ShardRecord:
        found = self.etcd.transact(Transaction([], [], [record_key(SHARD)])).found[record_key(SHARD)]
        return decode_record(ShardRecord, found.key, found.value)

    @property
    def members(self) -> str:
        return "".join(sorted(replica.node for replica in self.record.replicas))

    def set_factor(self, factor: int) -> None:
        queue = msgspec.structs.replace(self.queue, shadow_factor=factor)
        self.etcd.transact(Transaction([], [Put(meta_key(QUEUE_ID), encode_record(queue))]))

    # --- links

    def link(self, manager: Manager, node: Node) -> None:
        core = manager.core
        node.core.connected(
            manager.number, Hello(PROTOCOL_VERSION, "test", manager.name, core.life, core.region), node.now()
        )
        node.pump()

    def unlink(self, manager: Manager, node: Node) -> None:
        node.core.disconnected(manager.number)
        node.pump()
        manager.step(lambda: manager.core.node_down(node.name))

    def lose(self, name: str) -> None:
        """A node dies, and everybody sees it."""
        node = self.nodes[name]
        node.up = False
        for manager in self.managers.values():
            self.unlink(manager, node)

    def find(self, name: str) -> None:
        """It is back, with what it had on disk."""
        node = self.nodes[name]
        node.up = True
        for manager in self.managers.values():
            self.link(manager, node)

    def _delay(self, manager: Manager, node: str) -> int:
        return self.delays.get((manager.name, node), 1)

    def to_node(self, manager: Manager, name: str, message: ToNode) -> None:
        node = self.nodes[name]

        def arrive() -> None:
            if node.up and name not in self.deaf and manager.number in node.core._links:
                node.seen.append(message)
                node.core.receive(manager.number, [message], node.now())
                node.pump()

        self.later(self._delay(manager, name), arrive)

    def to_manager(self, node: Node, link: int, message: ToManager) -> None:
        manager = next(one for one in self.managers.values() if one.number == link)

        def arrive() -> None:
            if isinstance(message, Welcome):
                manager.step(lambda: manager.core.node_up(node.name, message))
            elif node.up and node.name not in self.deaf:
                manager.step(lambda: manager.core.node_messages(node.name, [message]))

        self.later(self._delay(manager, node.name), arrive)

    # --- time

    def later(self, delay_ms: int, action: Callable[[], object]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.ms + delay_ms, self._number, action))

    def _notice(self) -> None:
        for manager in self.managers.values():
            self.later(1, manager.look)

    def _tick(self) -> None:
        for node in self.nodes.values():
            if node.up:
                node.core.tick(node.now())
                node.pump()
        for manager in self.managers.values():
            manager.step(manager.core.tick)
        self.later(self.heartbeat_ms, self._tick)

    def run(self, duration_ms: int) -> None:
        end_ms = self.ms + duration_ms
        while self.ms < end_ms:
            while self._events and self._events[0][0] <= self.ms:
                heapq.heappop(self._events)[2]()
            for manager in self.managers.values():
                manager.ring()
            if not (self._events and self._events[0][0] <= self.ms):
                self.ms = max(self.ms + 1, min(self._next_ms(), end_ms))

    def _next_ms(self) -> int:
        """When something happens next: times at which nothing does are skipped."""
        alarms = [manager.core.next_alarm_ms() for manager in self.managers.values() if manager.up]
        return min([self._events[0][0], *(due_ms for due_ms in alarms if due_ms is not None)])

    # --- clients

    def submit(
        self, command: Command | None, wait_ms: int = 0, manager: str = "m1", shard: str = SHARD
    ) -> list[Answer]:
        answers: list[Answer] = []
        one = self.managers[manager]

        def done(_s: int, _c: int, verdict: Verdict, result: Result | None, summary: Summary | None) -> None:
            answers.append((verdict, result, summary))

        one.step(lambda: one.core.submit(SHARD, command, wait_ms, done))
        return answers

    def ask(self, command: Command | None, wait_ms: int = 0, manager: str = "m1", within_ms: int = 2_000) -> Answer:
        answers = self.submit(command, wait_ms, manager)
        end_ms = self.ms + within_ms
        while not answers and self.ms < end_ms:
            self.run(1)
        assert len(answers) == 1, f"{command} was not answered within {within_ms} ms: {answers}"
        return answers[0]
