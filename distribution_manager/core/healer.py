"""What a manager knows and bounds of its shards' healing: who has been away how long, and how many copies run at once.

Model: every heartbeat a few of this manager's shards are looked at; one that is not as it should be is woken, and its
owner asks for the ``next_step`` (healing.py) and takes it (membership.py).
Invariant: no more than LEARNERS_MAX newcomers of one manager that were begun within LEARNER_SLOT_MS copy at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from distribution_manager.core.atlas import Atlas
from distribution_manager.core.attributes import wishes_of
from distribution_manager.core.directory import Directory
from distribution_manager.core.healing import Learn, Situation, Step, next_step
from distribution_manager.core.limits import (
    HEALING_LOOKED_AT_PER_TICK,
    LEARNER_PATIENCE_MS,
    LEARNER_SLOT_MS,
    LEARNERS_MAX,
)
from distribution_manager.core.liveness import Liveness
from distribution_manager.core.metadata import ShardRecord
from distribution_manager.core.owner import Phase, ShardOwner
from distribution_manager.core.placement import Site
from distribution_manager.core.request import Now
from shadow_nodes.protocol.commands import ShardKey


class Ward(Protocol):
    """What healing asks of the manager around it."""

    now: Now
    region: str
    owners: dict[ShardKey, ShardOwner]
    directory: Directory
    liveness: Liveness
    atlas: Atlas

    on_ownership: Callable[[str, ShardOwner], None]

    def wake(self, shard: ShardKey, at_ms: int) -> None: ...


class Healer:
    """``heal_after_ms``: how long a replica's node is waited for; 0: for ever. Counts are since the start."""

    def __init__(self, ward: Ward, heal_after_ms: int) -> None:
        self.begun = 0
        self.finished = 0
        self.learners: dict[ShardKey, str] = {}
        """By shard; "" while it is being written down who is to learn."""
        self._begun_ms: dict[ShardKey, int] = {}
        """Since when each of them has been counted."""
        self._unusable: dict[ShardKey, tuple[str, int]] = {}
        """The learner, of each shard, whose node has said last that it cannot be one, and when."""
        self._ward = ward
        self._heal_after_ms = heal_after_ms
        self._left_ms: dict[str, int] = {}
        """When each node was last heard of; this manager's start, for one that never was."""
        self._scan: list[ShardKey] = []
        self._sites: list[Site] = []
        self._sites_ms = -1
        self._short: dict[ShardKey, int] = {}
        """Replicas that are missing, and that no node in reach can take."""

    # --- who is away -----------------------------------------------------------------------------------------------

    def away_ms(self, node: str) -> int:
        """For how long this manager has had no link to a node, however often its shards changed hands meanwhile."""
        now_ms = self._ward.now.monotonic_ms
        if node in self._ward.liveness.nodes:
            self._left_ms[node] = now_ms
        return now_ms - self._left_ms.setdefault(node, now_ms)

    def _gone(self, record: ShardRecord) -> frozenset[str]:
        """Our own broken link counts as much as a dead node here: for an owner, a replica out of its reach is none."""
        if self._heal_after_ms <= 0:
            return frozenset()
        nodes = {replica.node for replica in record.replicas}
        gone = {node for node in nodes if self.away_ms(node) >= self._heal_after_ms}
        if record.learner and self.away_ms(record.learner) >= LEARNER_PATIENCE_MS:
            gone.add(record.learner)
        return frozenset(gone)

    def unusable(self, shard: ShardKey, node: str) -> None:
        """A node's replica is quarantined. A learner is let go for that; a member is for people to look at."""
        owner = self._ward.owners.get(shard)
        if owner is not None and owner.record.learner == node:
            self._unusable[shard] = node, self._ward.now.monotonic_ms
            self._ward.wake(shard, self._ward.now.monotonic_ms)

    def _barred(self, shard: ShardKey) -> str:
        """The node that is not to learn this shard for now; "" where none is."""
        node, since_ms = self._unusable.get(shard, ("", 0))
        return node if self._ward.now.monotonic_ms - since_ms < LEARNER_SLOT_MS else ""

    # --- looking ---------------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Wakes the owners of shards that are not as they should be, a few of them each time."""
        ward = self._ward
        for node in ward.directory.nodes:
            self.away_ms(node)
        if not self._scan:
            self._scan = list(ward.owners)
        for _ in range(min(len(self._scan), HEALING_LOOKED_AT_PER_TICK)):
            shard = self._scan.pop()
            owner = ward.owners.get(shard)
            if owner is not None and owner.phase is Phase.SERVING and self.wanted(shard, owner.record):
                ward.wake(shard, ward.now.monotonic_ms)

    def wanted(self, shard: ShardKey, record: ShardRecord) -> bool:
        """Whether its owner has anything to do about its replica set."""
        metadata = self._ward.directory.metadata(shard)
        if metadata is None:
            return False
        wrong_size = len(record.replicas) != 1 + metadata.shadow_factor
        return wrong_size or bool(record.outside) or bool(self._gone(record))

    def missing(self) -> dict[ShardKey, int]:
        """Of the shards served here: by how many replicas in reach each falls short of its ShadowFactor, if it does."""
        found = {}
        for shard, owner in self._ward.owners.items():
            metadata = self._ward.directory.metadata(shard)
            if metadata is not None and owner.phase is Phase.SERVING:
                nodes = self._ward.liveness.nodes
                here = sum(replica.node in nodes for replica in owner.record.replicas)
                if here <= metadata.shadow_factor:
                    found[shard] = 1 + metadata.shadow_factor - here
        return found

    # --- deciding --------------------------------------------------------------------------------------------------

    def next_step(
        self, shard: ShardKey, record: ShardRecord, well: frozenset[str], retiring: frozenset[str]
    ) -> Step | None:
        """Asked again until it is done: what is due may be another meanwhile."""
        if self.learners.get(shard) == "":
            self._forget(shard)
        metadata = self._ward.directory.metadata(shard)
        if metadata is None or not self.wanted(shard, record):
            return None
        count = 1 + metadata.shadow_factor
        barred = self._barred(shard)
        gone = self._gone(record)
        if barred and barred == record.learner:
            gone |= {barred}
        sites = [site for site in self._sites_now() if site.node != barred]
        situation = Situation(record, count, gone, well, retiring, sites)
        step = next_step(situation, self._ward.atlas, {self._ward.region: 1.0}, wishes_of(metadata))
        self._say_if_short(shard, 0 if step is not None or record.learner else situation.missing)
        if isinstance(step, Learn):
            if shard not in self.learners and self._slots_taken() >= LEARNERS_MAX:
                return None
            self._count(shard, self.learners.get(shard, ""))
        return step

    def _slots_taken(self) -> int:
        now_ms = self._ward.now.monotonic_ms
        return sum(now_ms - self._begun_ms[shard] < LEARNER_SLOT_MS for shard in self.learners)

    def _count(self, shard: ShardKey, learner: str) -> None:
        if self.learners.get(shard) != learner:
            self._begun_ms[shard] = self._ward.now.monotonic_ms
        self.learners[shard] = learner

    def _say_if_short(self, shard: ShardKey, missing: int) -> None:
        if missing != self._short.get(shard, 0):
            self._short[shard] = missing
            if missing:
                self._ward.on_ownership("short", self._ward.owners[shard])

    def _sites_now(self) -> list[Site]:
        now_ms = self._ward.now.monotonic_ms
        if self._sites_ms != now_ms:
            self._sites, self._sites_ms = self._ward.atlas.sites(), now_ms
        return self._sites

    # --- what became of it -----------------------------------------------------------------------------------------

    def serving(self, shard: ShardKey, record: ShardRecord) -> None:
        """Learners of an owner before us go on learning, and count."""
        if record.learner:
            self._count(shard, record.learner)

    def record_changed(self, shard: ShardKey, record: ShardRecord) -> None:
        before = self.learners.get(shard, "")
        if record.learner:
            self._count(shard, record.learner)
            self.begun += record.learner != before
            return
        self._forget(shard)
        if before:
            self.finished += any(replica.node == before for replica in record.replicas)

    def lost(self, shard: ShardKey) -> None:
        self._forget(shard)
        self._unusable.pop(shard, None)
        self._short.pop(shard, None)

    def _forget(self, shard: ShardKey) -> None:
        self.learners.pop(shard, None)
        self._begun_ms.pop(shard, None)
