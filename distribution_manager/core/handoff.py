"""Planned moves of a shard: its primary to another node, and its owner to a manager of that node's region.

Model: ``promote`` -> the owner changes the record's primary -> Handoff to a manager there -> that manager's ordinary
takeover, which it would else not begin, since this owner is alive. This owner serves until a node says Stale, and then
forwards what waits under the same operation ids.
Invariant: whatever is interrupted, there is an owner, and the lock's transaction says who.
"""

from __future__ import annotations

from typing import Protocol

from distribution_manager.core.directory import Directory
from distribution_manager.core.messages import Handoff, ManagerMessage
from distribution_manager.core.metadata import ManagerRecord, Owner, ShardRecord
from distribution_manager.core.owner import Phase, ShardOwner
from distribution_manager.core.request import Now
from shadow_nodes.protocol.commands import ShardKey

PROMOTION_BOUND_MS = 10_000
"""A promotion that has not come about after this is given up."""


class Holdings(Protocol):
    """What handing over asks of the manager around it."""

    now: Now
    region: str
    owners: dict[ShardKey, ShardOwner]
    directory: Directory

    def reachable(self, owner: Owner) -> bool: ...

    def send_to_manager(self, manager: str, message: ManagerMessage) -> None: ...

    def take(self, shard: ShardKey) -> None:
        """Takes the shard over from a living owner."""


class Handoffs:
    def __init__(self, holdings: Holdings) -> None:
        self._holdings = holdings
        self._wanted: dict[ShardKey, tuple[str, int]] = {}
        """The node that is to be primary, and until when that is pursued."""

    def promote(self, shard: ShardKey, node: str, cause: str) -> str:
        """Begins to move a shard of ours, for a cause (causes.py) that its log keeps.

        Returns why it cannot be done; "" where it is on its way, or so already.
        """
        owner = self._holdings.owners.get(shard)
        if owner is None or owner.phase is not Phase.SERVING:
            return "this manager does not own the shard"
        if all(replica.node != node for replica in owner.record.replicas):
            return f"{node} holds no replica of the shard"
        if self._holdings.directory.is_draining(node):
            return f"{node} is being drained"
        until_ms = self._holdings.now.monotonic_ms + PROMOTION_BOUND_MS
        self._wanted[shard] = (node, until_ms)
        if owner.record.primary == node:
            self.record_changed(shard, owner.record)
        else:
            owner.want_primary(node, until_ms, cause)
        return ""

    def record_changed(self, shard: ShardKey, record: ShardRecord) -> None:
        """The record of a shard of ours has changed: if its primary is where it is wanted, the owner follows."""
        node, until_ms = self._wanted.get(shard, ("", 0))
        if node != record.primary:
            return
        del self._wanted[shard]
        if self._holdings.now.monotonic_ms < until_ms:
            self._follow(shard, record)

    def _follow(self, shard: ShardKey, record: ShardRecord) -> None:
        home = self._holdings.directory.nodes.get(record.primary)
        if home is not None and home.region != self._holdings.region:
            self.give(shard, self.managers_in(home.region))

    def managers_in(self, region: str | None) -> list[ManagerRecord]:
        """The other managers of a region (None: of all) that may take shards over, by name."""
        draining = self._holdings.directory.region_draining
        return [item for item in self._others() if region in {None, item.region} and not draining(item.region)]

    def first_owner(self, queue_id: str, region: str) -> Owner | None:
        """Who should own a new queue whose primary is in ``region``: a manager there; None: this one."""
        managers = self.managers_in(region) if region != self._holdings.region else []
        if not managers:
            return None
        chosen = managers[int(queue_id, 16) % len(managers)]
        return Owner(manager=chosen.manager, life=chosen.life)

    def _others(self) -> list[ManagerRecord]:
        return [
            item
            for name, item in sorted(self._holdings.directory.managers.items())
            if self._holdings.reachable(Owner(manager=name, life=item.life))
        ]

    def give(self, shard: ShardKey, managers: list[ManagerRecord]) -> bool:
        """Offers a shard that we serve to one of these, always the same one. Returns whether there is any."""
        owner = self._holdings.owners.get(shard)
        if owner is None or owner.phase is not Phase.SERVING or not managers:
            return False
        number = int(shard.partition("/")[0], 16)
        self._holdings.send_to_manager(managers[number % len(managers)].manager, self._offer(shard, owner.record.epoch))
        return True

    def give_away(self, shard: ShardKey) -> bool:
        """Offers a shard to a manager of its primary's region, else to any. Returns whether there is any."""
        owner = self._holdings.owners.get(shard)
        if owner is None:
            return False
        home = self._holdings.directory.nodes.get(owner.record.primary)
        near = self.managers_in(home.region) if home is not None else []
        return self.give(shard, near or self.managers_in(None))

    def release(self) -> None:
        """This manager is to stop: offers every shard that it serves to another, even to one that is drained."""
        for shard in list(self._holdings.owners):
            if not self.give_away(shard):
                self.give(shard, self._others())

    def _offer(self, shard: ShardKey, epoch: int) -> Handoff:
        return Handoff(shard, epoch, self._holdings.owners[shard].demand.weights(self._holdings.now.monotonic_ms))

    def offered(self, message: Handoff) -> None:
        """An owner asks this manager to take its shard. A late or repeated offer does nothing."""
        epoch, _ = self._holdings.directory.epoch_and_owner(message.shard)
        if message.shard not in self._holdings.owners and epoch <= message.epoch:
            self._holdings.take(message.shard)
            owner = self._holdings.owners.get(message.shard)
            if owner is not None:
                owner.demand.inherit(message.clients)
