"""Promotion before it hurts: when a shard's primary should be another of its replicas.

Model: the owner's manager looks at its shards, a few per tick. In this order: the primary or the owner is on what is
drained; the queue's own region is well again (failback); a signal is pressing (thresholds.py) and another replica would
be better by a margin; the clients are nearer to another replica for long. A move is begun (relocation.py) unless the
shard was promoted within the cool-down; drains do not wait for that.
Invariants: no promotion to a replica that lags, whose node is not well, or whose region has no manager. One that would
not be better by the margin is not made, so a load that swings around its threshold moves nothing twice.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from distribution_manager.core import causes
from distribution_manager.core.atlas import Atlas
from distribution_manager.core.attributes import thresholds_of, wants_failback, wishes_of
from distribution_manager.core.load import AckLatencies
from distribution_manager.core.metadata import QueueMetadata, ShardRecord
from distribution_manager.core.owner import Phase, ShardOwner
from distribution_manager.core.placement import Placement, placements
from distribution_manager.core.relocation import Ground, Move, Relocations
from distribution_manager.core.thresholds import Gauge, Outlook, Pace, Reading, Signal, Thresholds
from shadow_nodes.protocol.commands import ShardKey

SHARDS_LOOKED_AT_PER_TICK = 50
LOOK_INTERVAL_MS = 1_000
"""A shard is looked at this often, where there are few; with more, SHARDS_LOOKED_AT_PER_TICK at a time."""
TAKEN_PER_TICK = 8
"""A manager whose region is drained takes so many of its unused shards at a time, to hand them over."""

SCORE_MARGIN_MS = 5.0
SCORE_MARGIN_SHARE = 0.1
"""Another primary is better if its score is lower by the greater of these, the second of what the score is."""
CPU_MARGIN = 0.2
DISK_MARGIN = 0.1
"""Another node is better if so much more of its processor, or of its disk, is free."""
SLOWER_MS = 10.0
SLOWER_SHARE = 0.25
"""For a freer processor an acknowledgement may take longer by this much and this share; for a disk that is about to
refuse what it is sent, by any."""
FOLLOW_AFTER = 5
"""The clients must be nearer to another replica for this many times as long as a signal must be over."""
FOLLOW_INTERVAL_MS = 10_000
"""How often the clients' ways are compared."""
FOLLOW_WEIGHT_MIN = 100.0
"""With less traffic than this, in weights of demand.py, clients are not followed."""
RATE_SLOTS = 60


class PromotionConfig(msgspec.Struct, frozen=True):
    """``defaults``: thresholds of queues that set none of their own. ``permits``: promotions at a time, cluster-wide.

    ``cooldown_ms``: how long a promoted shard stays where it is, but for drains. ``failback_after_ms``: how long the
    preferred region's replica must have been well.
    """

    defaults: Thresholds = Thresholds(cpu=0.85, disk_free=0.1)
    pace: Pace = Pace()
    cooldown_ms: int = 900_000
    failback_after_ms: int = 300_000
    permits: int = 2


class Site(Ground, Protocol):
    """What is asked of the manager around it."""

    atlas: Atlas

    def take(self, shard: ShardKey) -> None:
        """Takes over a shard that lives."""

    def keeps_up(self, shard: ShardKey, node: str) -> bool:
        """Whether a replica of a shard of ours holds all that is committed."""


class _Watched:
    """What is remembered of a shard of ours."""

    def __init__(self, owner: ShardOwner, pace: Pace) -> None:
        self.owner = owner
        self.gauges = {signal: Gauge(signal) for signal in Signal}
        self.outlooks: dict[Signal, Outlook] = {}
        self.readings: list[Reading] = []
        self.nearer: tuple[str, int] | None = None
        """The node that is nearer to the clients, and since when."""
        self.well: tuple[str, int] | None = None
        """The node that it may fall back to, and since when that has been well."""
        self.looked_ms = -LOOK_INTERVAL_MS
        self.ranked_ms = -FOLLOW_INTERVAL_MS
        """When its clients' ways were last compared."""
        owner.ack_latencies = AckLatencies(pace.window_ms)


class _NodeLoad:
    """A node's processor, smoothed over the window, and disk, with their forecasts."""

    def __init__(self, pace: Pace, now_ms: int) -> None:
        self._pace = pace
        self._outlooks = {Signal.CPU: Outlook(pace, now_ms), Signal.DISK: Outlook(pace, now_ms)}
        self._values: dict[Signal, float] = {}
        self._ms = now_ms

    def look(self, cpu: float, disk_used: float, now_ms: int) -> None:
        share = min(1.0, 2 * (now_ms - self._ms) / self._pace.window_ms)
        self._values[Signal.CPU] = self._values.get(Signal.CPU, cpu) * (1 - share) + cpu * share
        self._values[Signal.DISK] = disk_used
        self._ms = now_ms

    def value(self, signal: Signal) -> tuple[float, float]:
        """Now, and the forecast."""
        value = self._values[signal]
        return value, self._outlooks[signal].look(value, self._ms)


class Promoter:
    def __init__(self, site: Site, config: PromotionConfig) -> None:
        self.config = config
        self.relocations = Relocations(site, config.permits)
        self._site = site
        self._watched: dict[ShardKey, _Watched] = {}
        self._nodes: dict[str, _NodeLoad] = {}
        self._nodes_ms = -LOOK_INTERVAL_MS
        self._turn: list[ShardKey] = []

    def tick(self) -> None:
        """To be called about every HEARTBEAT_INTERVAL_MS."""
        self.relocations.tick()
        self._look_at_nodes()
        if self._site.directory.region_draining(self._site.region):
            self._take_to_give_away()
        if not self._turn:
            self._turn = list(self._site.owners)
            self._watched = {shard: item for shard, item in self._watched.items() if shard in self._site.owners}
        for _ in range(min(len(self._turn), SHARDS_LOOKED_AT_PER_TICK)):
            shard = self._turn.pop()
            owner = self._site.owners.get(shard)
            metadata = self._site.directory.metadata(shard)
            if owner is not None and owner.phase is Phase.SERVING and metadata is not None and not owner.sealed:
                self._look(shard, owner, metadata)

    def readings(self, shard: ShardKey) -> list[Reading]:
        """The shard's signals at the last look, those with thresholds."""
        item = self._watched.get(shard)
        return [] if item is None else item.readings

    def over_total_ms(self, shard: ShardKey) -> dict[Signal, int]:
        item = self._watched.get(shard)
        return {} if item is None else {signal: gauge.over_total_ms for signal, gauge in item.gauges.items()}

    # --- drains ----------------------------------------------------------------------------------------------------

    def _take_to_give_away(self) -> None:
        """Shards that this manager owns by the record only, because nobody uses them: without an owner that serves,
        nobody could hand them over."""
        taken = 0
        for shard, (record, _) in self._site.directory.shards.items():
            ours = record.owner is not None and record.owner.manager == self._site.me.manager
            if ours and shard not in self._site.owners:
                self._site.take(shard)
                taken += 1
                if taken >= TAKEN_PER_TICK:
                    return

    def _leave(self, owner: ShardOwner, metadata: QueueMetadata) -> Move | None:
        directory, record = self._site.directory, owner.record
        if directory.is_draining(record.primary):
            options = self._options(owner, metadata)
            if options:
                return Move(owner.shard, options[0].sites[0].node, causes.DRAIN, f"{record.primary} is being drained")
        if directory.region_draining(self._site.region) and self._site.handoffs.managers_in(None):
            return Move(owner.shard, record.primary, causes.DRAIN, f"{self._site.region} is being drained")
        return None

    # --- failure ---------------------------------------------------------------------------------------------------

    def succession(self, owner: ShardOwner, node: str, cause: str) -> tuple[str, str] | None:
        """Who is to be primary instead of one that has failed, or is too far from its owner: at once ``node``, the
        nearest to the owner. After a failure, another replica that is better for the clients by the margin, or fit
        where that is not: then the owner follows it, and None is returned, as where the shard is moving already.
        """
        shard = owner.shard
        if self.relocations.is_moving(shard):
            return None
        best = self._successor(owner, node) if cause == causes.FAILURE else node
        if best != node and self.relocations.may_begin(shard, cause):
            self.relocations.begin(Move(shard, best, cause, f"{owner.record.primary} has failed"))
            return None
        return node, cause

    def _successor(self, owner: ShardOwner, node: str) -> str:
        """Ranks what is left of the set, by what is known: without traffic, or without distances, it is ``node``."""
        metadata = self._site.directory.metadata(owner.shard)
        failed, replicas = owner.record.primary, [replica.node for replica in owner.record.replicas]
        left = [one for one in replicas if one != failed and (one == node or self._site.keeps_up(owner.shard, one))]
        sites = [site for site in self._site.atlas.sites() if site.node in left]
        regions = {site.region for site in sites}
        if metadata is None or len(regions) != len(left) or len(left) < 2:
            return node
        weights = owner.demand.weights(self._site.now.monotonic_ms)
        wishes = wishes_of(metadata)
        ranked = placements(sites, len(left), self._site.atlas, weights, wishes=wishes, keep=left)
        here = next((item for item in ranked if item.sites[0].node == node), None)
        best = next((item for item in ranked if self._may_be_primary(owner, item)), None)
        if best is None or (here is not None and here.preferred and wishes.primary_region):
            return node
        known = sum(weights.values()) >= FOLLOW_WEIGHT_MIN
        better = here is None or (best.preferred and not here.preferred) or (known and nearer(here, best))
        return best.sites[0].node if better else node

    # --- one shard -------------------------------------------------------------------------------------------------

    def _look(self, shard: ShardKey, owner: ShardOwner, metadata: QueueMetadata) -> None:
        now_ms = self._site.now.monotonic_ms
        item = self._watched.get(shard)
        if item is None or item.owner is not owner:
            item = self._watched[shard] = _Watched(owner, self.config.pace)
        if now_ms - item.looked_ms < LOOK_INTERVAL_MS:
            return
        item.looked_ms = now_ms
        self._read(item, metadata)
        move = self._leave(owner, metadata)
        if move is None and not self._cooling(owner.record):
            move = self._fail_back(item, metadata) or self._relieve(item, metadata) or self._follow(item, metadata)
        if move is not None and self.relocations.may_begin(shard, move.cause):
            self.relocations.begin(move)

    def _cooling(self, record: ShardRecord) -> bool:
        """By clocks of several managers: one that is wrong makes the cool-down longer or shorter by as much."""
        passed_ms = self._site.now.clock_ms - record.promoted_ms
        return record.promoted_ms > 0 and -self.config.cooldown_ms < passed_ms < self.config.cooldown_ms

    def _options(self, owner: ShardOwner, metadata: QueueMetadata) -> list[Placement]:
        """The replica set with each primary that it may have instead, the best score first."""
        return self._compared(owner, metadata)[1]

    def _compared(self, owner: ShardOwner, metadata: QueueMetadata) -> tuple[Placement | None, list[Placement]]:
        """The replica set with the primary that it has, where that is fit, and the options."""
        here, options = None, []
        for placement in self._ranked(owner, metadata):
            if placement.sites[0].node == owner.record.primary:
                here = placement
            elif self._may_be_primary(owner, placement):
                options.append(placement)
        return here, sorted(options, key=lambda option: (not option.preferred, option.score_ms))

    def _may_be_primary(self, owner: ShardOwner, placement: Placement) -> bool:
        site = placement.sites[0]
        at_home = site.region == self._site.region or bool(self._site.handoffs.managers_in(site.region))
        return not site.unfit and at_home and self._site.keeps_up(owner.shard, site.node)

    def _ranked(self, owner: ShardOwner, metadata: QueueMetadata) -> list[Placement]:
        nodes = [replica.node for replica in owner.record.replicas]
        return placements(
            [site for site in self._site.atlas.sites() if site.node in nodes],
            len(nodes),
            self._site.atlas,
            owner.demand.weights(self._site.now.monotonic_ms),
            wishes=wishes_of(metadata),
            keep=nodes,
        )

    # --- failback --------------------------------------------------------------------------------------------------

    def _fail_back(self, item: _Watched, metadata: QueueMetadata) -> Move | None:
        """To the preferred region, once its replica has been well for long enough without a break."""
        record, region = item.owner.record, wishes_of(metadata).primary_region
        well = None
        if wants_failback(metadata) and self._region_of(record.primary) != region:
            well = next(
                (
                    option.sites[0].node
                    for option in self._options(item.owner, metadata)
                    if option.sites[0].region == region and not self._loaded(option.sites[0].node, metadata)
                ),
                None,
            )
        now_ms = self._site.now.monotonic_ms
        if well is None:
            item.well = None
        elif item.well is None or item.well[0] != well:
            item.well = (well, now_ms)
        elif now_ms - item.well[1] >= self.config.failback_after_ms:
            why = f"{well} has been well for {now_ms - item.well[1]} ms"
            return Move(item.owner.shard, well, causes.FAILBACK, why)
        return None

    def _loaded(self, node: str, metadata: QueueMetadata) -> bool:
        """Whether a primary there would soon be moved away again."""
        load = self._nodes.get(node)
        limits = thresholds_of(metadata, self.config.defaults)
        return load is not None and any(
            0 < limits.of(signal) <= max(load.value(signal)) for signal in (Signal.CPU, Signal.DISK)
        )

    def _region_of(self, node: str) -> str:
        record = self._site.directory.nodes.get(node)
        return "" if record is None else record.region

    # --- load ------------------------------------------------------------------------------------------------------

    def _look_at_nodes(self) -> None:
        now_ms = self._site.now.monotonic_ms
        if now_ms - self._nodes_ms < LOOK_INTERVAL_MS:
            return
        self._nodes_ms = now_ms
        sites = {site.node: site for site in self._site.atlas.sites() if site.reachable}
        self._nodes = {node: load for node, load in self._nodes.items() if node in sites}
        for node, site in sites.items():
            if node not in self._nodes:
                self._nodes[node] = _NodeLoad(self.config.pace, now_ms)
            self._nodes[node].look(site.cpu, 1.0 - site.disk_free, now_ms)

    def _read(self, item: _Watched, metadata: QueueMetadata) -> None:
        """Looks at every signal that has a threshold."""
        limits = thresholds_of(metadata, self.config.defaults)
        now_ms = self._site.now.monotonic_ms
        readings = []
        for signal, gauge in item.gauges.items():
            threshold = limits.of(signal)
            value, forecast = self._values(item, signal) if threshold else (0.0, 0.0)
            reading = gauge.look(value, forecast, threshold, now_ms)
            if threshold:
                readings.append(reading)
        item.readings = readings

    def _values(self, item: _Watched, signal: Signal) -> tuple[float, float]:
        """A signal's value, and its greatest forecast within the horizon."""
        now_ms = self._site.now.monotonic_ms
        if signal in {Signal.CPU, Signal.DISK}:
            load = self._nodes.get(item.owner.record.primary)
            return (0.0, 0.0) if load is None else load.value(signal)
        if signal is Signal.MESSAGE_RATE:
            slots = max(1, min(RATE_SLOTS, self.config.pace.window_ms // 1000))
            value = item.owner.demand.rates(now_ms, slots).messages
        else:
            latencies = item.owner.ack_latencies
            value = 0.0 if latencies is None else latencies.p99_ms(now_ms)
        outlook = item.outlooks.get(signal)
        if outlook is None:
            outlook = item.outlooks[signal] = Outlook(self.config.pace, now_ms)
        return value, outlook.look(value, now_ms)

    def _relieve(self, item: _Watched, metadata: QueueMetadata) -> Move | None:
        pressing = [reading for reading in item.readings if reading.over_ms >= self.config.pace.after_ms]
        if not pressing:
            return None
        here, options = self._compared(item.owner, metadata)
        if here is None:
            return None
        for reading in pressing:
            for option in options:
                if self._better(reading.signal, here, option, metadata):
                    site = option.sites[0]
                    why = f"{reading}; {_comparison(here, option)}"
                    return Move(item.owner.shard, site.node, causes.LOAD, why)
        return None

    def _better(self, signal: Signal, here: Placement, option: Placement, metadata: QueueMetadata) -> bool:
        """Whether a promotion would help against what presses, by a margin."""
        now, then = here.sites[0], option.sites[0]
        slower = option.acknowledged_ms > here.acknowledged_ms * (1 + SLOWER_SHARE) + SLOWER_MS
        if self._loaded(then.node, metadata):
            return False
        if signal is Signal.DISK:
            return then.disk_free >= now.disk_free + DISK_MARGIN
        freer = self._cpu(then.node, then.cpu) <= self._cpu(now.node, now.cpu) - CPU_MARGIN and not slower
        if signal is Signal.CPU:
            return freer
        wished = bool(wishes_of(metadata).primary_region) and here.preferred
        return freer or (nearer(here, option) and not wished)

    def _cpu(self, node: str, measured: float) -> float:
        load = self._nodes.get(node)
        return measured if load is None else load.value(Signal.CPU)[0]

    # --- clients ---------------------------------------------------------------------------------------------------

    def _follow(self, item: _Watched, metadata: QueueMetadata) -> Move | None:
        """Towards the clients, where they are nearer to another replica for long; never away from a wish."""
        owner, now_ms = item.owner, self._site.now.monotonic_ms
        if now_ms - item.ranked_ms < FOLLOW_INTERVAL_MS:
            return None
        item.ranked_ms = now_ms
        found = None
        if not wishes_of(metadata).primary_region and sum(owner.demand.weights(now_ms).values()) >= FOLLOW_WEIGHT_MIN:
            here, options = self._compared(owner, metadata)
            found = (here, options[0]) if here is not None and options and nearer(here, options[0]) else None
        if found is None:
            item.nearer = None
            return None
        node = found[1].sites[0].node
        if item.nearer is None or item.nearer[0] != node:
            item.nearer = (node, now_ms)
        if now_ms - item.nearer[1] < FOLLOW_AFTER * self.config.pace.after_ms:
            return None
        return Move(owner.shard, node, causes.CLIENTS, _comparison(*found))


def nearer(here: Placement, option: Placement) -> bool:
    """Whether the other primary's score is better by the margin."""
    return option.score_ms <= here.score_ms - max(SCORE_MARGIN_MS, SCORE_MARGIN_SHARE * here.score_ms)


def _comparison(here: Placement, option: Placement) -> str:
    now, then = here.sites[0], option.sites[0]
    return (
        f"{now.node} {here.score_ms:.1f} ms, cpu {now.cpu:.2f}, disk free {now.disk_free:.2f}; "
        f"{then.node} {option.score_ms:.1f} ms, cpu {then.cpu:.2f}, disk free {then.disk_free:.2f}"
    )
