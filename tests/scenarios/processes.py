"""The processes of a scenario: the production cores of a node and of a manager, driven as their drivers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from distribution_manager.coordination.memory import MemoryWatch
from distribution_manager.core.manager import CoreConfig, ManagerCore
from distribution_manager.core.messages import ManagerMessage, ManagerPing, ManagerPong
from distribution_manager.core.request import Now
from distribution_manager.core.transactions import Outcome, Snapshot, Transaction
from shadow_nodes.core.node import NodeBatch, NodeConfig, NodeCore, Pull
from shadow_nodes.core.node import Now as NodeNow
from shadow_nodes.protocol.commands import shard_key
from shadow_nodes.protocol.limits import LOG_RETAINED_BYTES_DEFAULT
from shadow_nodes.protocol.messages import Load, ToManager, ToNode
from shadow_nodes.storage.memory import MemoryStore

LEASE_MS = 1 << 40
"""Sessions do not end by themselves."""

if TYPE_CHECKING:
    from tests.scenarios.engine import World

QUEUE_ID = f"{7:016x}"
SHARD = shard_key(7, 0)
EPOCH_MS = 1_700_000_000_000
"""Unix time when a scenario begins."""


class Node:
    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.stores = 1
        self.store = MemoryStore(f"{name}1")
        self.core: NodeCore | None = None
        self.life = 0
        self.writing = False
        self.disk = "ok"
        self._stuck: Callable[[], None] | None = None
        """Writes what found no room, when there is some."""

    def start(self, *, wiped: bool = False) -> None:
        if wiped:
            self.stores += 1
            self.store = MemoryStore(f"{self.name}{self.stores}")
        self.life += 1
        self.writing = False
        self._stuck = None
        self.core = NodeCore(NodeConfig(self.name, self.name, "test", LOG_RETAINED_BYTES_DEFAULT), self.store)

    def crash(self, *, kept: bool) -> None:
        """``kept``: the write under way reaches the disk all the same."""
        self.core = None
        self.store = self.store.crash(len(self.store._begun) if kept else 0)

    def now(self) -> NodeNow:
        return NodeNow(self.world.ms, self.world.ms + EPOCH_MS)

    def pump(self) -> None:
        """What the driver does. One batch is written at a time."""
        core = self.core
        if core is None:
            return
        self._send(core.take_sends())
        for pull in core.take_pulls():
            self._begin_pull(pull)
        if self.writing:
            return
        batch = core.take_batch()
        if not batch.writes:
            self._send(batch.sends)
            return
        self.writing = True
        ticket = self.store.begin(batch.writes)
        life = self.life
        self.world.post(self.name, "disk", None, lambda: self._written(life, ticket, batch))

    def _written(self, life: int, ticket: int, batch: NodeBatch) -> None:
        if self.core is None or life != self.life:
            return
        if self.disk == "full":
            self.core.out_of_room = True
            self._stuck = lambda: self._written(life, ticket, batch)
            return
        self.store.finish(ticket)
        self.core.out_of_room = False
        self.writing = False
        self._send(batch.sends)
        self.core.written(batch)
        for reading in self.core.take_readings():
            self.core.loaded(reading, reading.read())
        self.pump()

    def set_disk(self, disk: str) -> None:
        """``ok``, ``low`` (queues may not grow) or ``full`` (nothing can be written)."""
        self.disk = disk
        if self.core is not None:
            self.core.measured(Load(has_room=disk == "ok"))
        stuck, self._stuck = self._stuck, None
        if stuck is not None:
            self.world.post(self.name, "disk", None, stuck)
        self.pump()

    def _send(self, sends: list[tuple[int, ToManager]]) -> None:
        for link, message in sends:
            self.world.to_manager(self, link, message)

    def _begin_pull(self, pull: Pull) -> None:
        source = self.world.nodes[pull.source]
        words, life = self.world.words, self.life

        def failed() -> None:
            if self.core is not None and life == self.life:
                self.core.pull_failed(pull)

        def asked() -> None:
            if source.core is None:
                failed()
                return
            entries = source.core.log_for(pull.shard, pull.after_seq)
            assert entries is not None, "scripts are too short for snapshots"
            self.world.post(source.name, self.name, words.pulled(entries), lambda: came(entries), failed)

        def came(entries: Any) -> None:
            if self.core is not None and life == self.life:
                self.core.pulled(pull, entries)
                self.pump()

        self.world.post(self.name, source.name, f"Pull after {pull.after_seq}", asked, failed)


class Manager:
    """Also the core's ``Effects``."""

    def __init__(self, world: World, name: str, region: str, number: int) -> None:
        self.world, self.name, self.region, self.number = world, name, region, number
        self.life = 0
        self.core: ManagerCore | None = None
        self._attempts = 0

    def start(self) -> None:
        self.life += 1
        self.core = ManagerCore(CoreConfig(self.name, 100 * self.number + self.life, self.region), self)
        self.watch = MemoryWatch(self.world.etcd)
        self.lease = self.world.etcd.grant(LEASE_MS, self.world.ms)
        self._looking = False

    @property
    def label(self) -> str:
        return self.name + "'" * (self.life - 1)

    def step(self, action: Callable[[], object]) -> None:
        """One turn. What is for a former life does nothing."""
        core = self.core
        if core is not None:
            core.turn(Now(self.world.ms, self.world.ms + EPOCH_MS))
            action()
            core.flush()

    def look(self) -> None:
        """etcd has news for the watch."""
        if self.core is None or self._looking:
            return
        self._looking = True
        life = self.life

        def see() -> None:
            if life != self.life or self.core is None:
                return
            self._looking = False
            directory = self.core.directory
            found = self.watch.step()
            if isinstance(found, Snapshot):
                self.step(lambda: directory.snapshot(found))
            elif found:
                self.step(lambda: directory.changes(found))
            if found:
                self.look()

        self.world.post("watch", self.name, None, see)

    # --- effects

    def send_to_node(self, node: str, message: ToNode) -> None:
        self.world.to_node(self, node, message)

    def drop_node(self, node: str) -> None:
        self.world.close(self, self.world.nodes[node])

    def send_to_manager(self, manager: str, message: ManagerMessage) -> None:
        other, mine = self.world.managers[manager], self.life
        text = None if isinstance(message, ManagerPing) else self.world.words.between(message)

        def arrive() -> None:
            if mine == self.life:
                other.step(lambda: other.core.manager_asks(self.number, [message]))  # type: ignore[union-attr]

        self.world.post(self.name, manager, text, arrive)

    def reply(self, connection: int, message: ManagerMessage) -> None:
        asker = next(one for one in self.world.managers.values() if one.number == connection)
        text = None if isinstance(message, ManagerPong) else self.world.words.between(message)

        def arrive() -> None:
            asker.step(lambda: asker.core.manager_messages(self.name, [message]))  # type: ignore[union-attr]

        self.world.post(self.name, asker.name, text, arrive)

    def transact(self, transaction: Transaction, done: Callable[[Outcome | None], None]) -> None:
        world, life = self.world, self.life

        over = False

        def answer(outcome: Outcome | None) -> None:
            nonlocal over
            if life == self.life and not over:
                over = True
                self.step(lambda: done(outcome))

        def unknown() -> None:
            world.post("etcd", self.name, "outcome unknown", lambda: answer(None))

        def carry_out() -> None:
            if not world.etcd.available:
                unknown()
                return
            outcome = world.etcd.transact(transaction, self.lease)
            text = world.words.outcome(transaction, outcome)
            world.post("etcd", self.name, text, lambda: answer(outcome), unknown)

        world.post(self.name, "etcd", world.words.transaction(transaction), carry_out, unknown)

    def random_bits(self) -> int:
        self._attempts += 1
        return self.world.words.attempt(self.label, self.number * 1000 + self._attempts)
