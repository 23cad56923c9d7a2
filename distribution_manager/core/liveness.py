"""Who is there: our own links, and what nodes have seen of managers.

Model: each linked node tells its sightings; a manager's process is gone for a shard when a quorum of the shard's nodes,
asked through our own links, see its link closed or silent. Our own broken link to it says nothing.
"""

from __future__ import annotations

from distribution_manager.core.limits import UNSEEN_GRACE_MS
from distribution_manager.core.metadata import Owner, ShardRecord
from distribution_manager.core.replication import quorum
from shadow_nodes.protocol.messages import LinkState, Load, Sighting, Welcome

_SMOOTHING = 1 / 8
"""As TCP smooths its round-trip time: RFC 6298."""


class RoundTrip:
    """Smoothed round-trip time and its variation, milliseconds (RFC 6298, section 2)."""

    __slots__ = ("jitter_ms", "samples", "smoothed_ms")

    def __init__(self) -> None:
        self.smoothed_ms = 0.0
        self.jitter_ms = 0.0
        self.samples = 0

    def add(self, sample_ms: float) -> None:
        if self.samples == 0:
            self.smoothed_ms, self.jitter_ms = sample_ms, sample_ms / 2
        else:
            self.jitter_ms += (abs(self.smoothed_ms - sample_ms) - self.jitter_ms) / 4
            self.smoothed_ms += (sample_ms - self.smoothed_ms) * _SMOOTHING
        self.samples += 1


class NodeLink:
    """A node that we are linked with."""

    def __init__(self, welcome: Welcome, now_ms: int) -> None:
        self.welcome = welcome
        self.up_since_ms = now_ms
        self.heard_ms = now_ms
        self.round_trip = RoundTrip()
        self.load = Load()
        self.sightings: dict[str, Sighting] = {}

    def sees_gone(self, owner: Owner, now_ms: int) -> bool:
        """Whether this node sees the manager's process gone."""
        sighting = self.sightings.get(owner.manager)
        if sighting is None:
            return now_ms - self.up_since_ms >= UNSEEN_GRACE_MS
        return sighting.life != owner.life or sighting.state is not LinkState.UP


class Liveness:
    def __init__(self) -> None:
        self.nodes: dict[str, NodeLink] = {}

    def owner_gone(self, record: ShardRecord, owner: Owner, now_ms: int) -> bool:
        """Whether a quorum of the shard's nodes see its owner's process gone."""
        votes = 0
        for replica in record.replicas:
            link = self.nodes.get(replica.node)
            if link is not None and link.sees_gone(owner, now_ms):
                votes += 1
        return votes >= quorum(len(record.replicas))
