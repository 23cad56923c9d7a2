"""Manager cores, node cores, stores and etcd's twin, with every message between them in the hands of a script.

Model: time stands still unless the script lets it run. Whatever one process has for another waits in the channel
between the two, in order; ``settle`` hands over the oldest message of any channel that is not held, again and again,
until nothing is left. A store's writes go through a channel too (``a>disk``), and so do etcd's answers and its watch.
Invariant checked after every command: what any two replicas have committed at one place is the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from distribution_manager.coordination.memory import Backup, MemoryCluster
from distribution_manager.core.messages import Greeting
from distribution_manager.core.metadata import (
    ManagerRecord,
    NodeRecord,
    QueueMetadata,
    Replica,
    ShardRecord,
    encode_record,
    manager_key,
    meta_key,
    node_key,
    queue_key,
    record_key,
)
from distribution_manager.core.transactions import Put, Transaction
from shadow_nodes.protocol.commands import Command, Result, Summary
from shadow_nodes.protocol.limits import HEARTBEAT_INTERVAL_MS, PROTOCOL_VERSION
from shadow_nodes.protocol.messages import Hello, ToManager, ToNode, Welcome
from tests.scenarios.processes import QUEUE_ID, SHARD, Manager, Node
from tests.scenarios.words import Words

DELIVERIES_MAX = 20_000
"""Of one command: whoever needs more talks in circles."""


class Delivery(NamedTuple):
    """``text`` None: not worth a line. ``dropped``: what the sender learns where it never arrives, or late.

    ``certain``: the end of a link, which the kernel tells sooner or later whatever else is lost.
    """

    number: int
    text: str | None
    action: Callable[[], object]
    dropped: Callable[[], object] | None
    certain: bool


class World:
    def __init__(self, nodes: list[str], managers: list[str], replicas: list[str], queue: str) -> None:
        self.ms = 0
        self.words = Words()
        self.etcd = MemoryCluster()
        self.backup: Backup | None = None
        self.lines: list[str] = []
        self.talking = True
        self.nodes = {name: Node(self, name) for name in nodes}
        self.managers = {
            name: Manager(self, name, nodes[index % len(nodes)], index + 1) for index, name in enumerate(managers)
        }
        self._channels: dict[tuple[str, str], deque[Delivery]] = {}
        self._held: set[tuple[str, str]] = set()
        self._frozen: set[str] = set()
        self._numbers = 0
        self._links: dict[int, tuple[Manager, int, Node, int]] = {}
        """(manager, its life, node, its life) by number, while the link is up at its node."""
        self._link_of: dict[tuple[str, str], int] = {}
        self._hands: dict[int, str] = {}
        """Links over which a script speaks to a node itself."""
        self._committed: dict[int, tuple[int, bytes]] = {}
        self._begin(replicas, queue)

    def _begin(self, replicas: list[str], queue: str) -> None:
        metadata = QueueMetadata(queue_id=QUEUE_ID, name=queue, shadow_factor=len(replicas) - 1)
        records: list[Any] = [
            Put(queue_key(queue), QUEUE_ID.encode()),
            Put(meta_key(QUEUE_ID), encode_record(metadata)),
        ]
        members = tuple(Replica(node=name, incarnation=f"{name}1") for name in replicas)
        records.append(Put(record_key(SHARD), encode_record(ShardRecord(primary=replicas[0], replicas=members))))
        self.etcd.transact(Transaction([], records))
        for node in self.nodes.values():
            node.start()
            self._register_node(node)
        for manager in self.managers.values():
            manager.start()
            self._register_manager(manager)
        self.etcd.listeners.append(self._notice)
        self._notice()
        for manager in self.managers.values():
            for node in self.nodes.values():
                self.open(manager, node)
        for manager in self.managers.values():
            self._greet(manager)
        self.talking = False
        self.settle()
        self.talking = True

    def _register_node(self, node: Node) -> None:
        record = NodeRecord(node=node.name, region=node.name, address=node.name, incarnation=node.store.incarnation)
        self.etcd.transact(Transaction([], [Put(node_key(node.name), encode_record(record))]))

    def _register_manager(self, manager: Manager) -> None:
        core = manager.core
        assert core is not None
        record = ManagerRecord(manager=manager.name, life=core.life, region=manager.region, address="", endpoint="")
        self.etcd.transact(Transaction([], [Put(manager_key(manager.name), encode_record(record))]))

    def _greet(self, manager: Manager) -> None:
        """All living managers are linked with this one, both ways."""
        for one, other in ((a, b) for a in self.managers.values() for b in self.managers.values()):
            if one is not other and manager in (one, other) and one.core is not None and other.core is not None:
                greeting = Greeting(PROTOCOL_VERSION, "test", other.name, other.core.life, other.core.region)
                one.step(lambda core=one.core, greeting=greeting: core.manager_up(greeting))

    def _notice(self) -> None:
        for manager in self.managers.values():
            manager.look()

    # --- channels --------------------------------------------------------------------------------------------------

    def say(self, line: str) -> None:
        self.lines.append(line)

    def post(
        self,
        source: str,
        target: str,
        text: str | None,
        action: Callable[[], object],
        dropped: Callable[[], object] | None = None,
        *,
        certain: bool = False,
    ) -> None:
        self._numbers += 1
        delivery = Delivery(self._numbers, text, action, dropped, certain)
        self._channels.setdefault((source, target), deque()).append(delivery)

    def settle(self) -> None:
        """Everything arrives that may, and everything that comes of it."""
        for _ in range(DELIVERIES_MAX):
            ready = [
                (channel[0].number, way)
                for way, channel in self._channels.items()
                if channel and way not in self._held and way[1] not in self._frozen and way[0] not in self._frozen
            ]
            if not ready:
                return
            self._deliver_one(min(ready)[1])
        raise AssertionError("they talk in circles")

    def _deliver_one(self, way: tuple[str, str]) -> None:
        item = self._channels[way].popleft()
        if item.text is not None and self.talking:
            self.say(f"{way[0]} > {way[1]}: {item.text}")
        item.action()

    def ways(self, pattern: str) -> list[tuple[str, str]]:
        """``a>b``, either side ``*``: of all processes there are."""
        source, _, target = pattern.partition(">")
        names = [*self.managers, *self.nodes]
        sources = names if source == "*" else [source]
        targets = names if target == "*" else [target]
        return [(one, other) for one in sources for other in targets if one != other]

    def hold(self, pattern: str) -> None:
        self._held.update(self.ways(pattern))

    def release(self, pattern: str) -> None:
        self._held.difference_update(self.ways(pattern))

    def drop(self, pattern: str) -> None:
        """What waits in the channels is lost."""
        for way in self.ways(pattern):
            before = self._channels.get(way, deque())
            self._channels[way] = deque(item for item in before if item.certain)
            for item in before:
                if item.text is not None:
                    self.say(f"lost: {way[0]} > {way[1]}: {item.text}")
                if item.dropped is not None:
                    item.dropped()

    def time_out(self, pattern: str) -> None:
        """Who sent what is held gives up waiting for the outcome; it may arrive all the same."""
        for way in self.ways(pattern):
            for item in list(self._channels.get(way, ())):
                if item.dropped is not None:
                    item.dropped()

    def deliver(self, pattern: str, count: int) -> None:
        """So many of the messages of a held channel; of those that are worth a line."""
        for way in self.ways(pattern):
            left = count
            while left and self._channels.get(way):
                left -= self._channels[way][0].text is not None or way[1] == "disk"
                self._deliver_one(way)

    def waiting(self) -> list[str]:
        """What held channels hold."""
        return [
            f"{way[0]} > {way[1]}: {item.text or 'a write'}"
            for way, channel in sorted(self._channels.items())
            for item in channel
            if item.text is not None or way[1] == "disk"
        ]

    # --- links -----------------------------------------------------------------------------------------------------

    def open(self, manager: Manager, node: Node) -> None:
        """The manager dials the node."""
        core = manager.core
        if core is None or node.core is None or (manager.name, node.name) in self._link_of:
            return
        self._numbers += 1
        link = self._numbers
        self._links[link] = (manager, manager.life, node, node.life)
        self._link_of[manager.name, node.name] = link
        hello = Hello(PROTOCOL_VERSION, "test", manager.name, core.life, core.region)
        node.core.connected(link, hello, node.now())
        node.pump()

    def close(self, manager: Manager, node: Node) -> None:
        """Either end, or the network, closes the link: each learns of it after what was sent before."""
        link = self._link_of.pop((manager.name, node.name), None)
        if link is None:
            return
        _, manager_life, _, node_life = self._links[link]

        def gone_at_node() -> None:
            self._links.pop(link, None)
            if node.core is not None and node.life == node_life:
                node.core.disconnected(link)
                node.pump()

        def gone_at_manager() -> None:
            if manager.life == manager_life:
                manager.step(lambda: manager.core.node_down(node.name))  # type: ignore[union-attr]

        self.post(manager.name, node.name, None, gone_at_node, certain=True)
        self.post(node.name, manager.name, None, gone_at_manager, certain=True)

    def to_node(self, manager: Manager, name: str, message: ToNode) -> None:
        link, node = self._link_of.get((manager.name, name)), self.nodes[name]
        if link is None:
            return

        def arrive() -> None:
            if link in self._links and node.core is not None and self._links[link][3] == node.life:
                node.core.receive(link, [message], node.now())
                node.pump()

        self.post(manager.name, name, self.words.to_node(message), arrive)

    def to_manager(self, node: Node, link: int, message: ToManager) -> None:
        if link in self._hands:
            self.say(f"{node.name} > {self._hands[link]}: {self.words.to_manager(message)}")
            return
        if link not in self._links:
            return
        manager, life, _, _ = self._links[link]

        def arrive() -> None:
            core = manager.core
            if core is None or manager.life != life:
                return
            if isinstance(message, Welcome):
                manager.step(lambda: core.node_up(node.name, message))
            else:
                manager.step(lambda: core.node_messages(node.name, [message]))

        self.post(node.name, manager.name, self.words.to_manager(message), arrive)

    def by_hand(self, name: str, message: ToNode) -> None:
        """A script speaks to a node itself, as a manager called ``hand``."""
        node = self.nodes[name]
        assert node.core is not None
        link = next((link for link, hand in self._hands.items() if hand == f"hand@{name}{node.life}"), 0)
        if not link:
            self._numbers += 1
            link = self._numbers
            self._hands[link] = f"hand@{name}{node.life}"
            node.core.connected(link, Hello(PROTOCOL_VERSION, "test", "hand", 1, "nowhere"), node.now())
            node.core.take_sends()
        node.core.receive(link, [message], node.now())
        node.pump()

    # --- processes -------------------------------------------------------------------------------------------------

    def crash_manager(self, manager: Manager) -> None:
        manager.core = None
        for node in self.nodes.values():
            self.close(manager, node)
        for other in self.managers.values():
            if other is not manager and other.core is not None:
                self.post(
                    manager.name,
                    other.name,
                    None,
                    lambda other=other: other.step(lambda: other.core.manager_down(manager.name)),
                    certain=True,
                )

    def start_manager(self, manager: Manager) -> None:
        manager.start()
        self._register_manager(manager)
        manager.look()
        for node in self.nodes.values():
            self.open(manager, node)
        self._greet(manager)

    def crash_node(self, node: Node, *, kept: bool) -> None:
        node.crash(kept=kept)
        for manager in self.managers.values():
            self.close(manager, node)

    def start_node(self, node: Node, *, wiped: bool) -> None:
        node.start(wiped=wiped)
        self._register_node(node)
        for manager in self.managers.values():
            self.open(manager, node)

    def freeze(self, name: str) -> None:
        self._frozen.add(name)

    def thaw(self, name: str) -> None:
        self._frozen.discard(name)

    # --- time ------------------------------------------------------------------------------------------------------

    def run(self, duration_ms: int) -> None:
        end_ms = self.ms + duration_ms
        while self.ms < end_ms:
            self.ms += 1
            if self.ms % HEARTBEAT_INTERVAL_MS == 0:
                self._tick()
            for manager in self.managers.values():
                self._ring(manager)
            self.settle()

    def _tick(self) -> None:
        for node in self.nodes.values():
            if node.core is not None and node.name not in self._frozen:
                node.core.tick(node.now())
                node.pump()
        for manager in self.managers.values():
            if manager.core is not None and manager.name not in self._frozen:
                manager.step(manager.core.tick)

    def _ring(self, manager: Manager) -> None:
        core = manager.core
        if core is None or manager.name in self._frozen:
            return
        due_ms = core.next_alarm_ms()
        if due_ms is not None and due_ms <= self.ms:
            manager.step(core.alarm)

    # --- clients ---------------------------------------------------------------------------------------------------

    def submit(
        self, manager: Manager, command: Command | None, wait_ms: int, told: Callable[[str, Result | None], None]
    ) -> None:
        """``told``: the verdict's name, and the result."""
        life = manager.life

        def done(_s: int, _c: int, verdict: Any, result: Result | None, summary: Summary | None) -> None:
            told(verdict.name, result)
            if summary is not None and command is None:
                self.say(f"       {summary.ready} ready, {summary.in_flight} in flight")

        def arrive() -> None:
            if manager.life == life:
                manager.step(lambda: manager.core.submit(SHARD, command, wait_ms, done))  # type: ignore[union-attr]

        self.post("client", manager.name, None, arrive)

    # --- what must be so -------------------------------------------------------------------------------------------

    def check(self) -> None:
        """What is committed anywhere is the same everywhere, for ever."""
        for node in self.nodes.values():
            replica = node.core.replicas.get(SHARD) if node.core is not None else None
            if replica is None:
                continue
            entries = node.store.read_log(SHARD, replica.log_start.seq, replica.committed.seq, 1 << 30)
            for entry in entries:
                known = self._committed.setdefault(entry.seq, (entry.epoch, entry.data))
                if known != (entry.epoch, entry.data):
                    self.say(f"BROKEN: {node.name} has committed {entry.epoch}:{entry.seq}, another {known[0]}")
            if replica.quarantined:
                self.say(f"BROKEN: {node.name}: {replica.quarantined}")
