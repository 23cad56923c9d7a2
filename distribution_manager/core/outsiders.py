"""Nodes outside a shard's replica set that may hold something of it: a learner follows, all others are told to Retire.

Model: who they are is in the record (``outside``), written before anything is. They are told once per epoch, and over
each link anew until they have answered. Invariants: one that was told learns again only after it has answered: messages
between two processes keep their order, so nothing it said before can then be taken for what it says as a learner. None
is told before a quorum of the set knows of that set: whoever retires forgets, and an etcd may be restored to a set with
it in which no quorum is then left (membership.py).
"""

from __future__ import annotations

from distribution_manager.core.metadata import ShardRecord
from distribution_manager.core.replication import Replication
from distribution_manager.core.request import Surroundings
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.messages import Retire


class Outsiders:
    def __init__(self, shard: ShardKey, around: Surroundings) -> None:
        self._shard = shard
        self._around = around
        self._retiring: set[str] = set()
        self._retired: set[str] = set()

    @property
    def retiring(self) -> frozenset[str]:
        """Told over the link that is up; their answers are on the way."""
        return frozenset(self._retiring)

    def see_to(self, record: ShardRecord, replication: Replication) -> None:
        """Only the learner and the set follow."""
        for node in [node for node in replication.followers if not _follows(node, record)]:
            replication.unfollow(node)
        if record.learner:
            replication.follow(record.learner)

    def to_retire(self, record: ShardRecord) -> list[str]:
        """Those in reach that are to be told."""
        self._retired.intersection_update(node for node in record.outside if node != record.learner)
        known = {*self._retiring, *self._retired, record.learner}
        return [node for node in record.outside if node not in known and self._around.linked(node)]

    def retire(self, nodes: list[str], record: ShardRecord) -> None:
        for node in nodes:
            self._retiring.add(node)
            self._around.send(node, Retire(self._shard, record.token))

    def retired(self, node: str) -> None:
        """It has answered."""
        if node in self._retiring:
            self._retiring.discard(node)
            self._retired.add(node)

    def link_down(self, node: str) -> None:
        """Its answer, if it was on the way, is lost."""
        self._retiring.discard(node)


def _follows(node: str, record: ShardRecord) -> bool:
    return node == record.learner or any(replica.node == node for replica in record.replicas)
