"""What is still on a node, or in a region, that is being drained, and what stopping it would cost.

Model: a function of what etcd says (the records), of the links, and of what nodes say of their replicas.
Invariant: ``drained`` is said only of what has no primary and no owner; ``safe`` only where every queue keeps a quorum.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from distribution_manager.core.directory import Directory
from distribution_manager.core.metadata import QueueMetadata, ShardRecord, node_drain_key, region_drain_key
from distribution_manager.core.replication import quorum
from shadow_nodes.protocol.commands import ShardKey

Replicas = Mapping[str, Mapping[ShardKey, str]]
"""What each node that answers says of its shards: why one is quarantined, "" where it is well."""


class Drained(msgspec.Struct, frozen=True):
    """Queues, by name, sorted. ``marked``: it is being drained."""

    name: str
    key: str
    marked: bool
    primaries: tuple[str, ...]
    owners: tuple[str, ...]
    replicas: int
    without_quorum: tuple[str, ...]
    """Those that would have no quorum without it, as other replicas of theirs are down as well, or too few."""

    @property
    def drained(self) -> bool:
        return self.marked and not self.primaries and not self.owners

    @property
    def safe(self) -> bool:
        return self.drained and not self.without_quorum


def drain_key(directory: Directory, name: str) -> str | None:
    """A region of that name, or else a node; None where there is neither."""
    regions = {item.region for item in directory.nodes.values()}
    regions |= {item.region for item in directory.managers.values()}
    if name in regions or region_drain_key(name) in directory.drains:
        return region_drain_key(name)
    if name in directory.nodes or node_drain_key(name) in directory.drains:
        return node_drain_key(name)
    return None


def look_at(directory: Directory, name: str, key: str, replicas: Replicas) -> Drained:
    """``key``: as ``drain_key`` says."""
    of_region = key == region_drain_key(name)
    nodes = {node for node, item in directory.nodes.items() if (item.region if of_region else node) == name}
    managers = {manager for manager, item in directory.managers.items() if of_region and item.region == name}
    primaries, owners, alone, held = set(), set(), set(), 0
    for shard, queue, record in _shards(directory):
        if record.primary in nodes:
            primaries.add(queue.name)
        if record.owner is not None and record.owner.manager in managers:
            owners.add(queue.name)
        others = [replica.node for replica in record.replicas if replica.node not in nodes]
        if len(others) < len(record.replicas):
            held += 1
            well = sum(1 for node in others if replicas.get(node, {}).get(shard) == "")
            if well < quorum(len(record.replicas)):
                alone.add(queue.name)
    return Drained(name, key, key in directory.drains, _sorted(primaries), _sorted(owners), held, _sorted(alone))


def _sorted(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _shards(directory: Directory) -> Iterator[tuple[ShardKey, QueueMetadata, ShardRecord]]:
    for shard, (record, _) in directory.shards.items():
        queue = directory.metadata(shard)
        if queue is not None:
            yield shard, queue, record
