"""A simulated node: the real core over a store in memory, driven as shadow_nodes/driver.py drives it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

from shadow_nodes.core.node import NodeBatch, NodeConfig, NodeCore, Now, Pull, Reading, Send
from shadow_nodes.core.store import LogEntry, Row
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.errors import CorruptError, ProtocolError
from shadow_nodes.protocol.limits import HEARTBEAT_INTERVAL_MS
from shadow_nodes.protocol.messages import Load, Position, ToManager, decode_to_node, encode_frame
from shadow_nodes.storage.memory import MemoryStore, Ticket
from tests.simulation.loop import MS, SECOND
from tests.simulation.network import Connection
from tests.simulation.process import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

PULL_TIMEOUT_US = 5 * SECOND
ROOM_RETRY_US = 250 * MS
"""ROOM_RETRY_SECONDS."""
FSYNC_US_MAX = 3 * SECOND
PAGE_ITEMS_MAX = 5
"""Neighbours that are damaged together."""
LOADING_US = 300 * MS
"""How long a node reads a snapshot that it has installed."""


class NodeProcess(Process):
    def __init__(self, world: World, name: str, region: str) -> None:
        super().__init__(world, name, region)
        self.stores = 0
        self.store = self._new_store()
        self.core: NodeCore | None = None
        self.fsync_factor = 1.0
        self.cpu = 0.1
        self.disk = "ok"
        """"low": its reserve is in use, queues may not grow. "full": nothing can be written."""
        self.lost = False
        """Its store is gone, though it is not started again yet."""
        self.dead = False
        """It is never started again."""

    @property
    def corrupted(self) -> bool:
        """Something in its store is damaged, noticed or not."""
        return self.store.damaged

    @property
    def incarnation(self) -> str:
        return self.store.incarnation

    def _new_store(self) -> MemoryStore:
        self.stores += 1
        return MemoryStore(f"{self.name}.{self.stores}")

    # --- lives -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self.begin_life()
        self._links: dict[int, Connection] = {}
        self._woken = False
        self._writing = False
        self._pulling: dict[ShardKey, Pull] = {}
        self._next: dict[ShardKey, Pull] = {}
        config = NodeConfig(self.name, self.region, "sim", self.world.plan.log_retained_bytes)
        try:
            self.core = NodeCore(config, self.store)
        except CorruptError:
            self.store = self._new_store()
            self.core = NodeCore(config, self.store)
        self.core.load = Load(self.cpu, has_room=self.disk == "ok")
        self.world.watch.node_started(self)
        self.timer(self.world.random.randrange(HEARTBEAT_INTERVAL_MS * MS), self._tick)

    def crash(self) -> None:
        """Power loss: of the write under way all, a part or nothing survives."""
        self.end_life()
        self.core = None
        begun = len(self.store._begun)
        self.store = self.store.crash(self.world.random.randint(0, begun))
        self.world.network.died(self)

    def corrupt(self) -> None:
        """Whatever is done next with the store notices it."""
        self.store.corrupt("flipped bytes")

    def damage(self, random: Random) -> str:
        """A page of the store, which only those notice who read it; returns of what it is."""
        store = self.store
        shards = [shard for shard, state in store._shards.items() if state.log or state.rows]
        kind = random.choice(("records", "log", "log", "rows", "rows", "outcomes"))
        if not shards or kind == "records":
            store.damage_records()
            return "records"
        shard = random.choice(shards)
        state = store._shards[shard]
        places: dict[str, list[Any]] = {
            "log": [entry.seq for entry in state.log],
            "rows": sorted(state.rows),
            "outcomes": [seq for seq, _ in state.outcomes],
        }
        found = places[kind]
        if not found:
            return ""
        first = random.randrange(len(found))
        page = found[first : first + random.randint(1, PAGE_ITEMS_MAX)]
        {"log": store.damage_log, "rows": store.damage_rows, "outcomes": store.damage_outcomes}[kind](shard, page)
        return kind

    def read_operations(self, random: Random) -> None:
        """Somebody reads a page of the operation log, as of a shard that this node has."""
        assert self.core is not None
        shards = [shard for shard, replica in self.core.replicas.items() if not replica.blank]
        if shards:
            shard = random.choice(shards)
            page = self.core.page_for(shard, random.randint(0, self.core.replicas[shard].committed.seq), None)
            if page is not None:
                self.world.watch.page_read(shard, page)

    def replace_store(self) -> None:
        self.store = self._new_store()
        self.lost = False

    def _fatal(self, error: Exception) -> None:
        """As a real node, it ends itself; something starts it again."""
        if not self.corrupted:
            raise error
        self.crash()
        self.world.loop.later(self.world.random.uniform(0.2, 2) * SECOND, self._start_again)

    def _start_again(self) -> None:
        if not (self.alive or self.lost or self.dead):
            self.start()

    def set_disk(self, disk: str) -> None:
        self.disk = disk
        self._measure()

    def set_cpu(self, cpu: float) -> None:
        self.cpu = cpu
        self._measure()

    def _measure(self) -> None:
        if self.core is not None:
            self.core.measured(Load(self.cpu, has_room=self.disk == "ok"))
            self._wake()

    def now(self) -> Now:
        return Now(self.monotonic_ms(), self.clock_ms())

    def _reach(self, life_number: int, timer: bool, action: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            super()._reach(life_number, timer, action, args)
        except CorruptError as error:
            self._fatal(error)

    # --- input -----------------------------------------------------------------------------------------------------

    def accepted(self, connection: Connection, first: Any) -> None:
        assert self.core is not None
        self._links[connection.number] = connection
        self.core.connected(connection.number, first, self.now())
        self._wake()

    def disconnected(self, connection: Connection) -> None:
        assert self.core is not None
        if self._links.pop(connection.number, None) is not None:
            self.core.disconnected(connection.number)
            self._wake()

    def received(self, connection: Connection, messages: Any) -> None:
        assert self.core is not None
        if isinstance(messages, bytes):
            messages = decode_to_node(messages)
        try:
            self.core.receive(connection.number, messages, self.now())
        except ProtocolError as error:
            self.world.watch.violation("protocol", f"{self.name}: {error}")
            connection.close_end(self)
        except CorruptError as error:
            self._fatal(error)
            return
        self._wake()

    def _tick(self) -> None:
        assert self.core is not None
        self.timer(HEARTBEAT_INTERVAL_MS * MS, self._tick)
        self.core.tick(self.now())
        self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self.timer(self.world.plan.turn_us, self._turn)

    # --- output ----------------------------------------------------------------------------------------------------

    def _turn(self) -> None:
        assert self.core is not None
        self._woken = False
        self._send(self.core.take_sends())
        if not self._writing:
            try:
                self._begin_batch(self.core)
            except CorruptError as error:
                self._fatal(error)

    def _begin_batch(self, core: NodeCore) -> None:
        for pull in core.take_pulls():
            self._start_pull(pull)
        batch = core.take_batch()
        if not batch.writes:
            self._send(batch.sends)
            return
        ticket = self.store.begin(batch.writes)
        self._writing = True
        delay_us = self.world.random.expovariate(1 / self.world.plan.fsync_us) * self.fsync_factor
        self.timer(min(delay_us, FSYNC_US_MAX), self._written, ticket, batch)

    def _written(self, ticket: Ticket, batch: NodeBatch) -> None:
        assert self.core is not None
        if self.disk == "full":
            self.core.out_of_room = True
            self.timer(ROOM_RETRY_US, self._written, ticket, batch)
            return
        try:
            self.store.finish(ticket)
            self._writing = False
            self.core.out_of_room = False
            self._send(batch.sends)
            self.core.written(batch)
            for reading in self.core.take_readings():
                self.timer(LOADING_US, self._load, reading)
        except CorruptError as error:
            self._fatal(error)
            return
        self._turn()

    def _load(self, reading: Reading) -> None:
        assert self.core is not None
        if not self.core.awaited(reading):
            return
        try:
            self.core.loaded(reading, reading.read())
        except CorruptError as error:
            self._fatal(error)
            return
        self._turn()

    def _send(self, sends: list[Send]) -> None:
        by_link: dict[int, list[ToManager]] = {}
        for link, message in sends:
            self.world.watch.node_told(self, message)
            by_link.setdefault(link, []).append(message)
        for link, messages in by_link.items():
            connection = self._links.get(link)
            if connection is not None:
                payload = encode_frame(messages) if self.world.plan.codec else messages
                self.world.traced(self.name, connection.dialler.name, messages)
                connection.send(self, payload)

    # --- copying from another node, as shadow_nodes/replication.py does ---------------------------------------------

    def _start_pull(self, pull: Pull) -> None:
        if pull.shard in self._pulling:
            self._next[pull.shard] = pull
            return
        self._pulling[pull.shard] = pull
        source = self.world.nodes[pull.source]
        network = self.world.network
        delay_us = network.delay_us(self, source) + network.delay_us(source, self)
        reachable = source.alive and not (network.cut(self, source) or network.cut(source, self))
        if reachable:
            source.input(delay_us / 2, self._asked, source, pull, self.life_number)
        self.timer(PULL_TIMEOUT_US, self._pull_ended, pull, True)

    def _asked(self, source: NodeProcess, pull: Pull, life_number: int) -> None:
        """At the source."""
        core = source.core
        assert core is not None
        if life_number != self.life_number or pull.shard not in core.replicas:
            return
        delay_us = self.world.network.delay_us(source, self)
        try:
            entries = core.log_for(pull.shard, pull.after_seq)
            if entries is not None:
                self.input(delay_us, self._entries_came, pull, entries)
                return
            record, chunks = source.store.snapshot(pull.shard, self.world.plan.chunk_bytes)
            self.world.watch.snapshots += 1
            self.input(delay_us, self._snapshot_came, pull, record.checkpoint, [*chunks, []])
        except CorruptError as error:
            source._fatal(error)
        except KeyError:
            return

    def _entries_came(self, pull: Pull, entries: list[LogEntry]) -> None:
        assert self.core is not None
        if self._pulling.get(pull.shard) is not pull:
            return
        self.core.pulled(pull, entries)
        self._pull_ended(pull, False)

    def _snapshot_came(self, pull: Pull, checkpoint: Position, chunks: list[list[Row]]) -> None:
        assert self.core is not None
        replica = self.core.replicas.get(pull.shard)
        if replica is None or checkpoint.seq <= replica.committed.seq:
            self._pull_ended(pull, True)
            return
        self._stage(pull, self.world.number(), checkpoint, chunks)

    def _stage(self, pull: Pull, number: int, checkpoint: Position, chunks: list[list[Row]]) -> None:
        assert self.core is not None
        if self._pulling.get(pull.shard) is not pull:
            return
        if self.disk == "full":
            self._pull_ended(pull, True)
            return
        try:
            self.store.stage(pull.shard, number, checkpoint, chunks[0])
        except CorruptError as error:
            self._fatal(error)
            return
        if len(chunks) > 1:
            self.timer(
                self.world.random.uniform(0, self.world.plan.chunk_us),
                self._stage,
                pull,
                number,
                checkpoint,
                chunks[1:],
            )
            return
        self.core.install(pull, number, checkpoint)
        self._pull_ended(pull, False)

    def _pull_ended(self, pull: Pull, failed: bool) -> None:
        """Also the time-out of a pull that may have ended long ago."""
        assert self.core is not None
        if self._pulling.get(pull.shard) is not pull:
            return
        del self._pulling[pull.shard]
        if failed:
            self.core.pull_failed(pull)
        following = self._next.pop(pull.shard, None)
        if following is not None:
            self._start_pull(following)
        self._wake()
