"""Faults that replica sets change by: nodes gone for long or for good, and shadow factors changed by operators.

Invariant: what is lost stays a minority of every replica set, before and after whatever change is under way.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from distribution_manager.core import procedures
from distribution_manager.core.metadata import QueueMetadata, ShardRecord
from distribution_manager.core.replica_sets import put_right, told
from tests.simulation.loop import SECOND
from tests.simulation.manager_process import ManagerProcess
from tests.simulation.mending import Mending
from tests.simulation.node_process import NodeProcess
from tests.simulation.plan import Fault

if TYPE_CHECKING:
    from tests.simulation.world import World

FACTORS = (0, 1, 2, 3, 4, 6)
FACTORS_AVAILABLE = (2, 3, 4, 6)
"""Those with which no operation fails while one process is away."""


class HealingFaults(Mending):
    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._changing = 0
        """Changes of a shadow factor whose outcome is not known: one may still come."""
        self.before_restore: dict[str, ShardRecord] = {}
        """Before etcd was last restored to an older state."""

    # --- nodes -----------------------------------------------------------------------------------------------------

    def _node_gone(self, random: Random, fault: Fault) -> Callable[[], None] | bool:
        """Away for longer than is waited for; it comes back as it was, or empty, or never."""
        node = random.choice(self.world.node_list)
        after = random.choice(("as it was", "empty", "never"))
        if not node.alive:
            return False
        if after != "as it was":
            if not self.can_lose(node):
                return False
            node.lost = True
        if after == "never" and self.world.plan.heal_after_ms and self._spare():
            node.dead = True
        node.crash()

        def mend() -> None:
            if node.alive or node.dead:
                return
            if node.lost:
                node.replace_store()
            node.start()

        return mend

    def _spare(self) -> bool:
        """Whether there are enough nodes for every queue with one less."""
        left = sum(not node.dead for node in self.world.node_list) - 1
        wanted = [queue["factor"] for queue in self.world.plan.queues]
        return left > max([*wanted, *(queue.shadow_factor for queue in self.world.metadata().values())])

    def can_lose(self, node: NodeProcess, unnoticed: bool = False) -> bool:
        """Whether every shard can bear the loss of what this node holds; no queue is just being made or changed.

        ``unnoticed``: damage that may be noticed only when the node has joined another set.
        """
        if node.lost or node.corrupted or self._changing or self.world.creating() or self.set_back():
            return False
        queues = self.world.metadata()
        for shard, record in self.world.records().items():
            outside = node.name != record.learner and all(replica.node != node.name for replica in record.replicas)
            if outside and not unnoticed:
                continue
            queue = queues.get(shard.partition("/")[0])
            if queue is None or len(record.replicas) != 1 + queue.shadow_factor:
                return False
            lost = self._lost(record) | self._damaged()
            if node.name in lost or len(lost) + 1 > queue.shadow_factor // 2:
                return False
        return True

    def _damaged(self) -> set[str]:
        """These may join any set before anybody notices."""
        return {node.name for node in self.world.node_list if node.corrupted}

    def set_back(self) -> bool:
        """Whether a restored etcd still says less of some replica set than it did before."""
        records = self.world.records()
        known = {shard: record for shard, record in self.before_restore.items() if shard in records}
        return any(put_right(records[shard], told(record)) is not records[shard] for shard, record in known.items())

    def _lost(self, record: ShardRecord) -> set[str]:
        holders = {replica.node: self.world.nodes[replica.node] for replica in record.replicas}
        return {
            replica.node
            for replica in record.replicas
            if (holder := holders[replica.node]).lost
            or holder.corrupted
            or holder.dead
            or holder.incarnation != replica.incarnation
        }

    # --- factors ---------------------------------------------------------------------------------------------------

    def _factor(self, random: Random, fault: Fault) -> bool | None:
        """An operator wants more or fewer shadows; sometimes yet another number before that is so."""
        if not self._change_factor(random):
            return False
        if random.random() < 0.4:
            self.world.loop.later(random.uniform(0.05, 2) * SECOND, self._change_factor, random)
        return None

    def _change_factor(self, random: Random) -> bool:
        world = self.world
        managers = [manager for manager in world.manager_list if manager.alive and not manager.paused]
        queues = sorted(world.metadata().values(), key=lambda queue: queue.queue_id)
        if not managers or not queues or not world.working:
            return False
        queue = random.choice(queues)
        left = sum(not node.dead for node in world.node_list)
        wanted = FACTORS_AVAILABLE if world.plan.promises_success else FACTORS
        factor = random.choice([factor for factor in wanted if factor < left])
        if factor < queue.shadow_factor and not self._whole(queue):
            return False
        self.set_factor(random.choice(managers), queue, factor)
        return True

    def set_factor(self, manager: ManagerProcess, queue: QueueMetadata, factor: int) -> None:
        """A change that may still come counts as under way."""
        self._changing += 1

        def ended(status: str, value: object) -> None:
            if status != "unknown":
                self._changing -= 1

        manager.run(lambda: procedures.change_queue(queue.queue_id, {}, {}, factor, manager.clock_ms()), ended)

    def _whole(self, queue: QueueMetadata) -> bool:
        """Whether nothing of it is lost: a smaller set might be made of what is left, and of what is lost."""
        if self.set_back():
            return False
        records = self.world.records()
        return not self._damaged() and not any(
            self._lost(records[shard]) for shard in records if shard.startswith(queue.queue_id)
        )
