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
from distribution_manager.core.metadata import Owner, ShardRecord
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
        directory = self._holdings.directory
        home = directory.nodes.get(record.primary)
        if home is None or home.region == self._holdings.region:
            return
        for name, item in sorted(directory.managers.items()):
            if item.region == home.region and self._holdings.reachable(Owner(manager=name, life=item.life)):
                self._holdings.send_to_manager(name, self._offer(shard, record.epoch))
                return

    def release(self) -> None:
        """This manager is to stop: offers every shard that it serves to another, of the primary's region first."""
        directory = self._holdings.directory
        others = [
            item
            for name, item in sorted(directory.managers.items())
            if self._holdings.reachable(Owner(manager=name, life=item.life))
        ]
        for shard, owner in self._holdings.owners.items():
            if owner.phase is Phase.SERVING and others:
                home = directory.nodes.get(owner.record.primary)
                best = min(others, key=lambda item: home is None or item.region != home.region)
                self._holdings.send_to_manager(best.manager, self._offer(shard, owner.record.epoch))

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
