"""Who is there: our own links, how good they are, and what nodes have seen of managers.

Model: each linked node tells its sightings; a manager's process is gone for a shard when a quorum of the shard's nodes,
asked through our own links, see its link closed or silent. Our own broken link to it says nothing.
"""

from __future__ import annotations

from collections.abc import Collection

from distribution_manager.core.limits import UNSEEN_GRACE_MS
from distribution_manager.core.metadata import Owner, ShardRecord
from distribution_manager.core.replication import quorum
from shadow_nodes.protocol.messages import LinkState, Load, Sighting, Welcome

_SMOOTHING = 1 / 8
"""As TCP smooths its round-trip time: RFC 6298."""


_LOSS_SMOOTHING = 1 / 64
"""Of the last minute or so, at a ping every HEARTBEAT_INTERVAL_MS."""
LATE_MS = 200
"""Linux's shortest retransmission timeout (TCP_RTO_MIN): the least that a lost last segment costs."""


class RoundTrip:
    """The way to a peer and back: smoothed round-trip time and its variation, milliseconds (RFC 6298, section 2); loss.

    Unlike there, the variation begins at nothing, and the first samples have a like share: this sets no timeout.

    Samples are the pings' answers. Pings go over the link that carries the traffic, in its frames, so that they wait
    where that waits; answers to other messages are no samples, as they wait for disks.

    ``loss`` is not what a network card would count: TCP hides that. It is the share of pings that were answered later
    than the smoothed time, four times the variation and a retransmission timeout together, or not before the link
    broke; newer ones count more. A peer that stalls for as long loses pings too.
    """

    __slots__ = ("jitter_ms", "loss", "samples", "smoothed_ms", "under_way")

    def __init__(self) -> None:
        self.smoothed_ms = 0.0
        self.jitter_ms = 0.0
        self.loss = 0.0
        self.samples = 0
        self.under_way = 0
        """Pings not answered yet."""

    def add(self, sample_ms: float) -> None:
        """A ping was answered after ``sample_ms``."""
        if self.samples == 0:
            self.smoothed_ms = sample_ms
        else:
            late = sample_ms > self.smoothed_ms + 4 * self.jitter_ms + LATE_MS
            self.loss += (late - self.loss) * _LOSS_SMOOTHING
            self.jitter_ms += (abs(self.smoothed_ms - sample_ms) - self.jitter_ms) / 4
            self.smoothed_ms += (sample_ms - self.smoothed_ms) * max(_SMOOTHING, 1 / (self.samples + 1))
        self.samples += 1
        self.under_way = max(0, self.under_way - 1)

    def broken(self) -> None:
        """The link broke: what was under way is not answered any more."""
        self.loss = 1 - (1 - self.loss) * (1 - _LOSS_SMOOTHING) ** self.under_way
        self.under_way = 0


class NodeLink:
    """A node that we are linked with."""

    def __init__(self, welcome: Welcome, round_trip: RoundTrip, now_ms: int) -> None:
        self.welcome = welcome
        self.up_since_ms = now_ms
        self.heard_ms = now_ms
        self.round_trip = round_trip
        self.load = Load()
        self.sightings: dict[str, Sighting] = {}

    def sees_gone(self, owner: Owner, now_ms: int) -> bool:
        """Whether this node sees the manager's process gone."""
        sighting = self.sightings.get(owner.manager)
        if sighting is None:
            return now_ms - self.up_since_ms >= UNSEEN_GRACE_MS
        return sighting.life != owner.life or sighting.state is not LinkState.UP


class ManagerLink:
    """A manager that we have dialled."""

    def __init__(self, life: int, region: str, round_trip: RoundTrip, now_ms: int) -> None:
        self.life = life
        self.region = region
        self.heard_ms = now_ms
        self.round_trip = round_trip


class Liveness:
    """``nodes`` and ``managers`` are the links that are up; how good a way is, is remembered while its link is not."""

    def __init__(self) -> None:
        self.nodes: dict[str, NodeLink] = {}
        self.managers: dict[str, ManagerLink] = {}
        self._round_trips: dict[str, RoundTrip] = {}

    def node_up(self, node: str, welcome: Welcome, now_ms: int) -> None:
        self.nodes[node] = NodeLink(welcome, self._round_trip(f"nodes/{node}"), now_ms)

    def node_down(self, node: str) -> bool:
        """Whether it was up."""
        link = self.nodes.pop(node, None)
        if link is not None:
            link.round_trip.broken()
        return link is not None

    def manager_up(self, manager: str, life: int, region: str, now_ms: int) -> None:
        self.managers[manager] = ManagerLink(life, region, self._round_trip(f"managers/{manager}"), now_ms)

    def manager_down(self, manager: str) -> bool:
        """Whether it was up."""
        link = self.managers.pop(manager, None)
        if link is not None:
            link.round_trip.broken()
        return link is not None

    def _round_trip(self, peer: str) -> RoundTrip:
        round_trip = self._round_trips.setdefault(peer, RoundTrip())
        round_trip.under_way = 0
        return round_trip

    def forget_all_but(self, known: Collection[str]) -> None:
        """Of ways to peers that are not linked, only those to ``known`` (nodes/..., managers/...) are remembered."""
        linked = {*(f"nodes/{node}" for node in self.nodes), *(f"managers/{manager}" for manager in self.managers)}
        for peer in [peer for peer in self._round_trips if peer not in linked and peer not in known]:
            del self._round_trips[peer]

    def grows(self, record: ShardRecord) -> bool:
        """Whether the shard may grow: as far as is known, a quorum of its nodes has room on the disk."""
        full = sum(
            (link := self.nodes.get(replica.node)) is not None and not link.load.has_room for replica in record.replicas
        )
        return len(record.replicas) - full >= quorum(len(record.replicas))

    def owner_gone(self, record: ShardRecord, owner: Owner, now_ms: int) -> bool:
        """Whether a quorum of the shard's nodes see its owner's process gone."""
        votes = 0
        for replica in record.replicas:
            link = self.nodes.get(replica.node)
            if link is not None and link.sees_gone(owner, now_ms):
                votes += 1
        return votes >= quorum(len(record.replicas))
