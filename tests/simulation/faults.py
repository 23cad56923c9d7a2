"""Carries out a plan's faults, within the budget: per shard, lost and corrupt replicas stay a minority.

Model: a fault begins at its time and picks its victims by its own number among what is there then; most end by
themselves. ``end_all`` mends whatever is still broken.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from distribution_manager.core import causes
from distribution_manager.core.metadata import Drain, ShardRecord, encode_record, node_drain_key, region_drain_key
from distribution_manager.core.replication import quorum
from distribution_manager.core.transactions import Put, Remove, Transaction
from shadow_nodes.protocol.errors import OutcomeUnknownError, RejectedError
from tests.simulation.etcd_front import ETCD
from tests.simulation.loop import MS, SECOND
from tests.simulation.manager_process import ManagerProcess
from tests.simulation.node_process import NodeProcess
from tests.simulation.plan import Fault
from tests.simulation.rare_faults import RareFaults

if TYPE_CHECKING:
    from tests.simulation.world import World

BEYOND_MS = 60_000
"""How far a clock jumps that is beyond CLOCK_SKEW_MAX_MS."""


class Faults(RareFaults):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.beyond: str = ""
        """The one process whose clock is beyond all bounds."""
        self.victims: list[str] = []
        """Processes that were crashed, paused or cut off."""
        for fault in world.plan.faults:
            world.loop.later(fault.at_us, self._begin, fault)

    def _begin(self, fault: Fault) -> None:
        random = Random(fault.pick)
        mend = getattr(self, f"_{fault.kind}")(random, fault)
        if mend is False:
            return
        self._count(fault.kind)
        self.world.traced("fault", fault.kind, [fault])
        if mend is not None:
            self._lasting(fault.lasts_us, mend)

    def end_all(self) -> None:
        for number in list(self._mending):
            self._end(number)
        self._undo_drains()
        self.world.etcd_loss = 0.0
        self.world.etcd_factor = 1.0
        for node in self.world.node_list:
            node.set_disk("ok")
        for process in self.world.processes.values():
            if not process.alive and not (isinstance(process, NodeProcess) and process.dead):
                process.start()
            process.resume()
            if abs(process.clock.offset_ms) > self.world.plan.skew_ms:
                process.clock.offset_ms = 0

    def _node(self, random: Random) -> NodeProcess:
        return random.choice(self.world.node_list)

    def _manager(self, random: Random) -> ManagerProcess:
        return random.choice(self.world.manager_list)

    def _node_down(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        node = self._node(random)
        node.crash()
        return self._restart(node)

    def _isolate_node(self, random: Random, fault: Fault) -> Callable[[], None]:
        return self._cut_off(self._node(random).name)

    def _isolate_manager(self, random: Random, fault: Fault) -> Callable[[], None]:
        return self._cut_off(self._manager(random).name)

    def _cut_off(self, one: str) -> Callable[[], None]:
        self.victims.append(one)
        return self._cut_apart([one])

    def _restart(self, process: NodeProcess | ManagerProcess) -> Callable[[], None]:
        def mend() -> None:
            if not process.alive and not (isinstance(process, NodeProcess) and (process.dead or process.lost)):
                process.start()

        return mend

    # --- processes -------------------------------------------------------------------------------------------------

    def _node_crash(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        node = self._node(random)
        if not node.alive:
            return False
        node.crash()
        if random.random() < 0.1:
            for other in self.world.node_list:
                if other.alive:
                    other.crash()
                    self._mending[self.world.number()] = self._restart(other)
                    self.world.loop.later(fault.lasts_us + 1, self._restart(other))
        return self._restart(node)

    def _node_pause(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        return self._pause(self._node(random))

    def _manager_pause(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        return self._pause(self._manager(random))

    def _pause(self, process: NodeProcess | ManagerProcess) -> Callable[[], None] | bool:
        if not process.alive or process.paused:
            return False
        self.victims.append(process.name)
        process.pause()
        return process.resume

    def _manager_crash(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        manager = self._manager(random)
        if not manager.alive:
            return False
        self.victims.append(manager.name)
        manager.crash()
        return self._restart(manager)

    def _manager_promote(self, random: Random, fault: Fault) -> bool | None:
        """Not a fault, but at the worst of moments: the primary and the owner of a shard move, as an operator wants."""
        manager = self._manager(random)
        if not manager.alive or manager.paused or not manager.live_core().owners:
            return False
        core = manager.live_core()
        shard = random.choice(sorted(core.owners))
        node = random.choice(core.owners[shard].record.replicas).node
        manager.enter()
        return None if core.handoffs.promote(shard, node, causes.BY_HAND) == "" else False

    def _node_slow_disk(self, random: Random, fault: Fault) -> Callable[[], None]:
        node = self._node(random)
        node.fsync_factor = random.choice((10, 100, 1_000))

        def mend() -> None:
            node.fsync_factor = 1.0

        return mend

    def _node_full(self, random: Random, fault: Fault) -> Callable[[], None]:
        """Its disk is nearly full; half the time then wholly, its reserve used up as well."""
        node = self._node(random)
        node.set_disk("low")
        if random.random() < 0.5:
            self.world.loop.later(fault.lasts_us * random.random(), self._fill_up, node)
        return lambda: node.set_disk("ok")

    @staticmethod
    def _fill_up(node: NodeProcess) -> None:
        if node.disk == "low":
            node.set_disk("full")

    def _all_full(self, random: Random, fault: Fault) -> Callable[[], None]:
        """Half of the nodes and more, as when the same load fills them."""
        count = len(self.world.node_list)
        nodes = random.sample(self.world.node_list, random.randint(count // 2, count))
        for node in nodes:
            node.set_disk(random.choice(("low", "low", "full")))

        def mend() -> None:
            for node in nodes:
                node.set_disk("ok")

        return mend

    def _node_corrupt(self, random: Random, fault: Fault) -> bool | None:
        """Only where every shard can bear it, and no queue is just being made."""
        node = self._node(random)
        if not self.can_lose(node):
            return False
        node.corrupt()
        return None

    def _node_damage(self, random: Random, fault: Fault) -> bool | None:
        """A page of its store, within the same budget, though it may never be noticed."""
        node = self._node(random)
        kind = node.damage(random) if self.can_lose(node, unnoticed=True) else ""
        if not kind:
            return False
        self._count(f"damage_{kind}")
        return None

    def _read_operations(self, random: Random, fault: Fault) -> bool | None:
        """No fault, but what finds damage in parts of the log that nobody has read for long."""
        node = self._node(random)
        if not node.alive or node.paused:
            return False
        node.input_now(node.read_operations, random)
        return None

    # --- planned moves ---------------------------------------------------------------------------------------------

    def _handoff(self, random: Random, fault: Fault) -> bool | None:
        """A manager offers all its shards to others, as before it stops."""
        manager = self._manager(random)
        if not manager.alive:
            return False

        def release() -> None:
            manager.enter()
            manager.live_core().handoffs.release()

        manager.input_now(release)
        return None

    def _drain(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        """An operator drains a node or a region, and later not any more."""
        cluster = self.world.cluster
        region = random.choice(self.world.plan.regions)
        key = random.choice((region_drain_key(region), node_drain_key(self._node(random).name)))
        if not cluster.available:
            return False
        cluster.transact(Transaction([], [Put(key, encode_record(Drain()))]))

        def undo() -> None:
            try:
                cluster.transact(Transaction([], [Remove(key)]))
            except (OutcomeUnknownError, RejectedError):
                self.world.loop.later(SECOND, undo)

        return undo

    def _undo_drains(self) -> None:
        """Those too that a backup of etcd has brought back."""
        cluster = self.world.cluster
        marks = [item.key for item in cluster.list_prefix_always("drains/")]
        try:
            cluster.transact(Transaction([], [Remove(key) for key in marks]))
        except (OutcomeUnknownError, RejectedError):
            self.world.loop.later(SECOND, self._undo_drains)

    def _busy(self, random: Random, fault: Fault) -> Callable[[], None]:
        node = self._node(random)
        node.set_cpu(0.95)
        return lambda: node.set_cpu(0.1)

    # --- network ---------------------------------------------------------------------------------------------------

    def _partition(self, random: Random, fault: Fault) -> Callable[[], None]:
        """Regions apart, or any two groups of processes."""
        names = self._names()
        if random.random() < 0.5:
            regions = random.sample(self.world.plan.regions, random.randint(1, len(self.world.plan.regions) - 1))
            side = {p.name for p in self.world.processes.values() if p.region in regions}
        else:
            side = set(random.sample(names, random.randint(1, len(names) - 1)))
        return self._cut_apart(side)

    def _one_way(self, random: Random, fault: Fault) -> Callable[[], None]:
        names = self._names()
        side = set(random.sample(names, random.randint(1, len(names) - 1)))
        return self._cut([(a, b) for a in names for b in names if a in side and b not in side])

    def _isolate(self, random: Random, fault: Fault) -> Callable[[], None]:
        return self._cut_off(random.choice(self._names()))

    def _owner_cut(self, random: Random, fault: Fault) -> bool | None:
        """An owner is cut off from all but its clients, long enough to be replaced, and may not know it."""
        owners = [manager for manager in self.world.manager_list if manager.alive and manager.live_core().owners]
        if not owners:
            return False
        self._lasting(random.uniform(3, 8) * SECOND, self._cut_off(random.choice(owners).name))
        return None

    def _manager_links(self, random: Random, fault: Fault) -> Callable[[], None]:
        """A manager loses all other managers, or one of them, but no node."""
        names = [manager.name for manager in self.world.manager_list]
        one = random.choice(names)
        others = [name for name in names if name != one]
        if random.random() < 0.5:
            others = others[:1]
        return self._cut([(one, other) for other in others] + [(other, one) for other in others])

    def _slow_link(self, random: Random, fault: Fault) -> Callable[[], None]:
        names = list(self.world.processes)
        some = random.sample(names, random.randint(1, 2))
        ways = [(a, b) for a in names for b in names if a in some or b in some]
        factor = random.choice((5, 30, 200))
        slow = self.world.network.slow
        for way in ways:
            slow[way] = factor

        def mend() -> None:
            for way in ways:
                slow.pop(way, None)

        return mend

    def _resets(self, random: Random, fault: Fault) -> None:
        connections = list(self.world.network.connections.values())
        if connections:
            for connection in random.sample(connections, random.randint(1, max(1, len(connections) // 3))):
                connection.reset()

    def _stall(self, random: Random, fault: Fault) -> Callable[[], None]:
        """One connection in three, at most, takes nothing for a while; some are then reset."""
        connections = list(self.world.network.connections.values())
        chosen = random.sample(connections, min(len(connections), random.randint(1, max(1, len(connections) // 3))))
        for connection in chosen:
            connection.stalled = True

        def mend() -> None:
            for connection in chosen:
                connection.stalled = False
                if random.random() < 0.5:
                    connection.reset()
                connection.to_listener.release()
                connection.to_dialler.release()

        return mend

    # --- etcd ------------------------------------------------------------------------------------------------------

    def _etcd_down(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        cluster = self.world.cluster
        if not cluster.available:
            return False
        cluster.set_available(False)
        return lambda: cluster.set_available(True, self.world.loop.now_us // MS)

    def _etcd_slow(self, random: Random, fault: Fault) -> Callable[[], None]:
        self.world.etcd_factor = random.choice((10, 100, 300))

        def mend() -> None:
            self.world.etcd_factor = 1.0

        return mend

    def _etcd_loss(self, random: Random, fault: Fault) -> Callable[[], None]:
        self.world.etcd_loss = random.choice((0.1, 0.5))

        def mend() -> None:
            self.world.etcd_loss = 0.0

        return mend

    def _etcd_restore(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        """A backup is taken now and put back later: epochs go back, and so do replica sets, primaries, attributes,
        registrations.

        Only where no queue is another by then, and a quorum of each old set is there that knows what became of it:
        an etcd that names sets which are gone needs people. Half the time the managers are started anew as well: no
        owner is there then to put its record back.
        """
        cluster, world = self.world.cluster, self.world
        if world.creating() or not cluster.available:
            return False
        backup, queues, records, sets = cluster.backup(), self._queues(), world.records(), self._sets()

        def restore() -> None:
            if self._queues() != queues or world.creating() or self.set_back():
                return
            now, changed = world.records(), self._sets() != sets
            forgotten = any(self._lost(now[shard]) or self._forgotten(records[shard], now[shard]) for shard in now)
            if changed and (forgotten or self._damaged()):
                return
            kind = "etcd_restored_sets" if changed else "etcd_restored"
            self._count(kind)
            self.before_restore = now
            cluster.restore(backup)
            if random.random() < 0.5:
                for manager in world.manager_list:
                    if manager.alive:
                        self.victims.append(manager.name)
                        manager.crash()
                        world.loop.later(random.uniform(0.1, 2) * SECOND, self._restart(manager))

        return restore

    @staticmethod
    def _forgotten(old: ShardRecord, new: ShardRecord) -> bool:
        """Whether too few are left of a set to tell of what it has become."""
        return sum(replica in new.replicas for replica in old.replicas) < quorum(len(old.replicas))

    def _queues(self) -> list[tuple[str, bytes]]:
        return [(item.key, item.value) for item in self.world.cluster.list_prefix_always("queues/")]

    def _sets(self) -> list[tuple[str, object]]:
        """Replica sets, who else may hold something of them, and how large they are to be."""
        records: list[tuple[str, object]] = [
            (shard, (record.replicas, record.learner, record.outside)) for shard, record in self.world.records().items()
        ]
        return records + [(queue.queue_id, queue.shadow_factor) for queue in self.world.metadata().values()]

    def _etcd_cut(self, random: Random, fault: Fault) -> Callable[[], None]:
        one = self._manager(random).name
        return self._cut([(one, ETCD), (ETCD, one)])

    def _lease_end(self, random: Random, fault: Fault) -> Callable[[], None] | bool | None:
        if random.random() < 0.5:
            self.world.cluster.expiry_delay_ms = 5_000
            return lambda: setattr(self.world.cluster, "expiry_delay_ms", 0)
        manager = self._manager(random)
        if not manager.alive or manager.etcd.lease is None:
            return False
        self.world.cluster.expire(manager.etcd.lease)
        return None

    def _watch_gap(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        manager = self._manager(random)
        if not manager.alive:
            return False
        watch = manager.etcd.watch
        watch.interrupted = True

        def mend() -> None:
            watch.interrupted = False

        return mend

    def _compact(self, random: Random, fault: Fault) -> None:
        self.world.cluster.compact()

    # --- clocks ----------------------------------------------------------------------------------------------------

    def _clock_jump(self, random: Random, fault: Fault) -> None:
        """Within what the run allows, or, for one process at a time, far beyond it."""
        processes = list(self.world.processes.values())
        process = random.choice(processes)
        if random.random() < 0.5 and self.beyond in {"", process.name}:
            self.beyond = process.name
            process.clock.offset_ms = random.choice((-BEYOND_MS, BEYOND_MS))
        else:
            if self.beyond == process.name:
                self.beyond = ""
            process.clock.offset_ms = random.randint(-self.world.plan.skew_ms, self.world.plan.skew_ms)
