"""What this manager knows of etcd: a copy of the cluster's keys that a watch keeps, by which requests find their way.

Model: each key's newest value by mod_revision, whoever told it: the watch, or the answer to a transaction of our own.
Invariant: a value is replaced by an older one only where a whole copy says so. That ours may be old costs a detour,
never safety.
"""

from __future__ import annotations

from collections.abc import Callable

from distribution_manager.core.metadata import (
    AccessKeyRecord,
    Drain,
    Grave,
    LatencyRecord,
    ManagerRecord,
    NodeRecord,
    Owner,
    Permit,
    QueueMetadata,
    ShardRecord,
    decode_record,
    node_drain_key,
    region_drain_key,
)
from distribution_manager.core.moves import MoveTasks, decode_moves
from distribution_manager.core.transactions import Change, KeyValue, Outcome, Snapshot
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.errors import CorruptError


class Directory:
    """``on_shard``, ``on_grave``, ``on_queue`` and ``on_manager`` are called after a change of one."""

    def __init__(
        self,
        *,
        on_shard: Callable[[ShardKey], None],
        on_grave: Callable[[str], None],
        on_queue: Callable[[QueueMetadata], None],
        on_manager: Callable[[str], None],
    ) -> None:
        self.managers: dict[str, ManagerRecord] = {}
        self.nodes: dict[str, NodeRecord] = {}
        self.queues: dict[str, QueueMetadata] = {}
        """By queue id, 16 hex digits."""
        self.ids: dict[str, str] = {}
        """Queue ids by name."""
        self.graves: dict[str, Grave] = {}
        self.shards: dict[ShardKey, tuple[ShardRecord, int]] = {}
        """Records with their mod_revision."""
        self.access_keys: dict[str, AccessKeyRecord] = {}
        self.moves: dict[str, MoveTasks] = {}
        """By queue id."""
        self.latencies: dict[str, LatencyRecord] = {}
        """By the manager that measured."""
        self.drains: dict[str, Drain] = {}
        """By key."""
        self.permits: dict[str, tuple[Permit, int]] = {}
        """By key, with their mod_revision."""
        self.synchronized = False
        """Whether a first whole copy has come."""
        self._revisions: dict[str, int] = {}
        self._hints: dict[ShardKey, tuple[int, Owner | None]] = {}
        self._on_shard = on_shard
        self._on_grave = on_grave
        self._on_queue = on_queue
        self._on_manager = on_manager

    # --- learning --------------------------------------------------------------------------------------------------

    def snapshot(self, snapshot: Snapshot) -> None:
        """The whole prefix: all that is so, whatever was known before. A store that was set back has older revisions;
        what a transaction of our own has told meanwhile and this does not know yet, the watch will bring again."""
        self._hints.clear()
        present = {item.key for item in snapshot.items}
        for key in [key for key in self._revisions if key not in present]:
            self._forget(key, self._revisions[key])
        for item in snapshot.items:
            self._revisions.pop(item.key, None)  # in a store that was set back the same revision is another value
            self.learn(item)
        self.synchronized = True

    def changes(self, changes: list[Change]) -> None:
        for change in changes:
            if change.value is None:
                self._forget(change.key, change.mod_revision)
            else:
                self.learn(KeyValue(change.key, change.value, change.mod_revision))

    def outcome(self, outcome: Outcome) -> None:
        """What a transaction of our own has read."""
        for item in outcome.found.values():
            self.learn(item)

    def learn(self, item: KeyValue) -> None:
        if item.mod_revision <= self._revisions.get(item.key, 0):
            return
        self._revisions[item.key] = item.mod_revision
        kind, _, name = item.key.partition("/")
        if kind == "shards":
            self.shards[name] = (decode_record(ShardRecord, item.key, item.value), item.mod_revision)
            self._on_shard(name)
        elif kind == "meta":
            metadata = decode_record(QueueMetadata, item.key, item.value)
            self.queues[name] = metadata
            self._on_queue(metadata)
        elif kind == "queues":
            self.ids[name] = item.value.decode()
        elif kind == "graves":
            self.graves[name] = decode_record(Grave, item.key, item.value)
            self._on_grave(name)
        elif kind == "managers":
            self.managers[name] = decode_record(ManagerRecord, item.key, item.value)
            self._on_manager(name)
        elif kind == "nodes":
            self.nodes[name] = decode_record(NodeRecord, item.key, item.value)
        elif kind == "latency":
            self.latencies[name] = decode_record(LatencyRecord, item.key, item.value)
        elif kind == "keys":
            self._learn_access_key(name, item)
        elif kind == "moves":
            self.moves[name] = decode_moves(item.key, item.value)
        elif kind == "drains":
            self.drains[item.key] = decode_record(Drain, item.key, item.value)
        elif kind == "promotions":
            self.permits[item.key] = (decode_record(Permit, item.key, item.value), item.mod_revision)

    def _learn_access_key(self, name: str, item: KeyValue) -> None:
        """People may write keys with tools of their own: one that cannot be read is no key, and stops nothing else."""
        try:
            self.access_keys[name] = decode_record(AccessKeyRecord, item.key, item.value)
        except CorruptError:
            self.access_keys.pop(name, None)

    def _forget(self, key: str, revision: int) -> None:
        if revision < self._revisions.get(key, 0):
            return
        self._revisions.pop(key, None)
        kind, _, name = key.partition("/")
        if kind == "shards":
            self.shards.pop(name, None)
            self._hints.pop(name, None)
            self._on_shard(name)
        elif kind == "meta":
            self.queues.pop(name, None)
        elif kind == "queues":
            self.ids.pop(name, None)
        elif kind == "graves":
            self.graves.pop(name, None)
        elif kind == "managers":
            self.managers.pop(name, None)
            self._on_manager(name)
        elif kind == "nodes":
            self.nodes.pop(name, None)
        elif kind == "latency":
            self.latencies.pop(name, None)
        elif kind == "keys":
            self.access_keys.pop(name, None)
        elif kind == "moves":
            self.moves.pop(name, None)
        elif kind == "drains":
            self.drains.pop(key, None)
        elif kind == "promotions":
            self.permits.pop(key, None)

    def hint(self, shard: ShardKey, epoch: int, owner: Owner | None) -> None:
        """Another manager says who owns a shard; believed if that is newer than what etcd has told us."""
        if epoch > self.epoch_and_owner(shard)[0]:
            self._hints[shard] = (epoch, owner)

    # --- asking ----------------------------------------------------------------------------------------------------

    def queue(self, name: str) -> QueueMetadata | None:
        queue_id = self.ids.get(name)
        return None if queue_id is None else self.queues.get(queue_id)

    def metadata(self, shard: ShardKey) -> QueueMetadata | None:
        return self.queues.get(shard.partition("/")[0])

    def is_draining(self, node: str) -> bool:
        """Whether no primary is to be on the node."""
        record = self.nodes.get(node)
        region = "" if record is None else record.region
        return node_drain_key(node) in self.drains or self.region_draining(region)

    def region_draining(self, region: str) -> bool:
        """Whether the region's managers are to own nothing."""
        return region_drain_key(region) in self.drains

    def buried(self, shard: ShardKey) -> bool:
        return shard.partition("/")[0] in self.graves

    def epoch_and_owner(self, shard: ShardKey) -> tuple[int, Owner | None]:
        """The newest that is known, from etcd or by hint."""
        known = self.shards.get(shard)
        hinted = self._hints.get(shard)
        if known is None:
            return hinted or (0, None)
        if hinted is not None and hinted[0] > known[0].epoch:
            return hinted
        return known[0].epoch, known[0].owner
