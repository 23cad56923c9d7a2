"""Faults that need several things at once, which chance alone hardly ever brings together: profiles aim at them.

Model: each begins like an ordinary partition, stall or slow disk, and does what makes it worse some time later, if it
still can. How long it lasts is its own affair. The budget is that of all faults.
"""

from __future__ import annotations

from random import Random

from distribution_manager.core.metadata import ShardRecord
from tests.simulation.healing_faults import HealingFaults
from tests.simulation.loop import MS, SECOND
from tests.simulation.manager_process import ManagerProcess
from tests.simulation.network import Connection
from tests.simulation.node_process import NodeProcess
from tests.simulation.plan import Fault


class RareFaults(HealingFaults):
    def _owned(self, random: Random) -> tuple[ManagerProcess, str, ShardRecord] | None:
        """A manager that serves a shard of several replicas."""
        records = self.world.records()
        found = [
            (manager, shard, records[shard])
            for manager in self.world.manager_list
            if manager.alive and not manager.paused
            for shard in sorted(manager.live_core().owners)
            if shard in records and len(records[shard].replicas) > 1
        ]
        return random.choice(found) if found else None

    def _follower(self, random: Random) -> tuple[str, NodeProcess, Connection] | None:
        """A shard, a replica of it other than the primary, and the link from its owner."""
        found = self._owned(random)
        if found is None:
            return None
        manager, shard, record = found
        node = random.choice([replica.node for replica in record.replicas if replica.node != record.primary])
        link = manager._links.get(node)
        return None if link is None or not link.welcomed else (shard, self.world.nodes[node], link)

    # --- an owner and one replica on their own ---------------------------------------------------------------------

    def _minority(self, random: Random, fault: Fault) -> bool | None:
        """An owner and one replica lose all the rest, and go on writing; another owner is elected meanwhile."""
        found = self._owned(random)
        if found is None:
            return False
        manager, _, record = found
        small = {manager.name, random.choice(record.replicas).node}
        self._lasting(random.uniform(1.5, 6) * SECOND, self._cut_apart(small))
        return None

    def _deserter(self, random: Random, fault: Fault) -> bool | None:
        """The same; and when another owner is there, one of its replicas is lost, and the new store hears the old owner
        only."""
        found = self._owned(random)
        if found is None or len(found[2].replicas) < 3:
            return False
        manager, shard, record = found
        small = {manager.name, random.choice(record.replicas).node}
        mend = self._cut_apart(small)
        victim = self.world.nodes[random.choice([item.node for item in record.replicas if item.node not in small])]

        def desert() -> None:
            mend()
            now = self.world.records().get(shard)
            replaced = now is not None and now.owner is not None and now.owner.manager != manager.name
            if self.world.working and replaced and victim.alive and self.can_lose(victim):
                self._count("deserted")
                victim.lost = True
                victim.crash()
                self._lasting(random.uniform(1, 4) * SECOND, self._cut_apart({*small, victim.name}))
                victim.replace_store()
                victim.start()

        self._lasting(random.uniform(2.5, 5) * SECOND, desert)
        return None

    # --- a replica that leaves its set and joins it again ----------------------------------------------------------

    def _late_retire(self, random: Random, fault: Fault) -> bool | None:
        """A replica is removed while its link to the owner stalls; it has joined again when the stall ends.

        A node keeps a link that says nothing for longer than a manager does, who has dialled again: see network.py.
        """
        found = self._follower(random)
        if found is None:
            return False
        shard, _, link = found
        link.stalled = True
        self.world.loop.later(400 * MS, self._resize, shard, -1)
        self.world.loop.later(random.uniform(4.8, 5.8) * SECOND, self._resize, shard, 1)

        self._lasting(random.uniform(6.2, 7.2) * SECOND, lambda: _go_on(link))
        return None

    def _slow_retire(self, random: Random, fault: Fault) -> bool | None:
        """A replica on a slow disk loses its link, is asked to promise anew, and is removed before it has answered.

        Half the time the owner's other links stall meanwhile, so that nothing is committed.
        """
        found = self._follower(random)
        if found is None:
            return False
        shard, node, link = found
        node.fsync_factor = 1_000
        stalled = [
            connection
            for connection in self.world.network.connections.values()
            if connection.dialler is link.dialler
            and isinstance(connection.listener, NodeProcess)
            and connection.listener not in {node, self.world.nodes[self.world.records()[shard].primary]}
        ]
        if random.random() < 0.5:
            stalled = []
        for connection in stalled:
            connection.stalled = True
        self.world.loop.later(random.uniform(50, 400) * MS, link.reset)
        self.world.loop.later(random.uniform(400, 700) * MS, self._resize, shard, -1)
        self.world.loop.later(random.uniform(700, 1_500) * MS, self._resize, shard, 1)

        def mend() -> None:
            node.fsync_factor = 1.0
            for connection in stalled:
                _go_on(connection)

        self._lasting(random.uniform(2.5, 4.2) * SECOND, mend)
        return None

    def _wavering(self, random: Random, fault: Fault) -> bool | None:
        """An operator wants a shadow less, and more, and less, while the newcomer still copies."""
        found = self._owned(random)
        if found is None:
            return False
        at_us = 0.0
        for by in (-1, 1, -1, 1):
            self.world.loop.later(at_us, self._resize, found[1], by)
            at_us += random.uniform(550, 1_500) * MS
        return None

    def _resize(self, shard: str, by: int) -> None:
        """An operator wants one shadow more, or less."""
        world = self.world
        queue = world.metadata().get(shard.partition("/")[0])
        managers = [manager for manager in world.manager_list if manager.alive and not manager.paused]
        if queue is None or not managers or not world.working:
            return
        factor = queue.shadow_factor + by
        if by < 0 and not self._whole(queue):
            return
        if 0 <= factor < sum(not node.dead for node in world.node_list):
            self.set_factor(managers[0], queue, factor)


def _go_on(link: Connection) -> None:
    link.stalled = False
    link.to_listener.release()
    link.to_dialler.release()
