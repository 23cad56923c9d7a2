"""Where a queue's replicas should be: the set, and the primary, with which its clients wait least.

Model: for every region that may hold the primary, and every set of regions with it, the time a client's operation takes
is its way to the owner (in the primary's region) and the owner's way to the quorum-th nearest replica. The least wins;
what the set would take if the primary's region were lost tells apart sets that are otherwise as good.
Invariant: a placement's sites are in distinct regions, and hold every site that was to be kept.

Source of the cost model: Sharov, Shraer, Merchant & Stokely, "Take me to your leader! Online optimization of
distributed storage configurations" (VLDB 2015).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Protocol

import msgspec

from distribution_manager.core.metadata import Replica
from distribution_manager.core.replication import quorum
from shadow_nodes.protocol.errors import RejectedError

UNKNOWN_ROUND_TRIP_MS = 1_000.0
"""What a way counts for that nobody has measured."""
DISK_ROOM_MIN = 0.1
"""A node with less of its disk free than this takes a new replica only where there is no other."""
FAILOVER_SHARE = 0.02
"""How much the set's time without its primary's region counts, beside the time with it: it tells ties apart."""
APART_MS_MIN = 1.0
"""Two regions are no nearer than this, whatever was measured: a millisecond is what managers' clocks resolve."""
LOAD_MS = 0.2
"""A node that is wholly busy counts as that much farther, as a primary; a replica, as FAILOVER_SHARE of it."""
REGIONS_LOOKED_AT_MAX = 10
"""Sets are made of this many regions, those nearest to the primary's: more would only be worse, and take long."""


class NotEnoughRegionsError(RejectedError):
    """There are fewer regions with nodes than the shadow factor asks for."""


class Site(msgspec.Struct, frozen=True):
    """A node that may hold a replica. Fractions are 0 to 1."""

    node: str
    region: str
    incarnation: str = ""
    reachable: bool = True
    draining: bool = False
    disk_free: float = 1.0
    cpu: float = 0.0
    shards: int = 0

    @property
    def unfit(self) -> str:
        """Why no replica should newly come here; "" where it may."""
        if not self.reachable:
            return "out of reach"
        if self.draining:
            return "draining"
        return "disk nearly full" if self.disk_free < DISK_ROOM_MIN else ""


class Wishes(msgspec.Struct, frozen=True):
    """What a queue asks for. ``allowed_regions`` empty allows all; ``primary_region`` "" prefers none."""

    allowed_regions: frozenset[str] = frozenset()
    primary_region: str = ""


NO_WISHES = Wishes()


class Latencies(Protocol):
    def round_trip_ms(self, region: str, other: str) -> float:
        """Expected, between processes of the two regions; infinite or UNKNOWN_ROUND_TRIP_MS where not known."""


class Placement(msgspec.Struct, frozen=True):
    """A set of sites, its primary first, with the terms of its score. Times in milliseconds; less is better."""

    sites: tuple[Site, ...]
    clients_ms: float
    """From the clients to the owner, over their regions, by their weights."""
    quorum_ms: float
    """From the owner to the replica that makes a quorum."""
    failover_ms: float
    """What both would be, at best, without the primary's region."""
    load_ms: float
    preferred: bool
    """The primary is where the queue wants it, or the queue does not mind."""

    @property
    def acknowledged_ms(self) -> float:
        """How long a client waits for an acknowledgement, but for the disks."""
        return self.clients_ms + self.quorum_ms

    @property
    def score_ms(self) -> float:
        return self.acknowledged_ms + FAILOVER_SHARE * self.failover_ms + self.load_ms

    @property
    def unfit(self) -> int:
        """How many of its sites should not be newly chosen."""
        return sum(1 for site in self.sites if site.unfit)

    @property
    def regions(self) -> tuple[str, ...]:
        return tuple(site.region for site in self.sites)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(Replica(node=site.node, incarnation=site.incarnation) for site in self.sites)

    @property
    def order(self) -> tuple[int, bool, float, tuple[str, ...]]:
        return (self.unfit, not self.preferred, self.score_ms, tuple(site.node for site in self.sites))


def placements(
    sites: Iterable[Site],
    count: int,
    latencies: Latencies,
    clients: Mapping[str, float],
    *,
    wishes: Wishes = NO_WISHES,
    keep: Collection[str] = (),
) -> list[Placement]:
    """Every set of ``count`` sites that may be, the best first.

    ``clients``: how much each region's clients use the queue, in any unit; empty counts every region alike. ``keep``:
    the nodes that are in every set, wherever they are. With ``count`` = the number of nodes kept, what is ranked is
    which of them should be primary; with fewer sites than are there now, which of them should stay.

    Raises NotEnoughRegionsError.
    """
    kept, others = _choosable(sites, wishes, frozenset(keep))
    if len(kept) + len(others) < count:
        names = ", ".join(sorted({*kept, *others})) or "none"
        allowed = " of AllowedRegions" if wishes.allowed_regions else ""
        raise NotEnoughRegionsError(
            f"ShadowFactor {count - 1} needs nodes in {count} regions{allowed}; there are {len(kept) + len(others)}: "
            f"{names}"
        )
    weights = _shares(clients, {*kept, *others})
    found = {
        placement.order: placement
        for chosen in _sets(kept, others, count, latencies)
        for placement in _with_each_primary(chosen, latencies, weights, wishes)
    }
    return [found[order] for order in sorted(found)]


def why_not(sites: Iterable[Site], *, wishes: Wishes = NO_WISHES, keep: Collection[str] = ()) -> list[tuple[Site, str]]:
    """The sites that ``placements`` takes into no set, or only for want of better ones, each with the reason."""
    every = list(sites)
    kept, others = _choosable(every, wishes, frozenset(keep))
    reasons = []
    for site in every:
        chosen = kept.get(site.region) or others.get(site.region)
        if chosen is site:
            reason = site.unfit and f"{site.unfit}: only where there is no other"
        elif chosen is not None:
            reason = site.unfit or f"{chosen.node}, of the same region, holds one or has less to do"
        else:
            reason = "its region is not among AllowedRegions"
        if reason:
            reasons.append((site, reason))
    return reasons


def _choosable(sites: Iterable[Site], wishes: Wishes, keep: frozenset[str]) -> tuple[dict[str, Site], dict[str, Site]]:
    """By region: the sites that are kept, and the best one of each other region that is allowed."""
    ranked = sorted(sites, key=lambda site: (site.unfit != "", site.shards, site.cpu, site.node))
    kept = {site.region: site for site in ranked if site.node in keep}
    others: dict[str, Site] = {}
    for site in ranked:
        allowed = not wishes.allowed_regions or site.region in wishes.allowed_regions
        if allowed and site.region not in kept:
            others.setdefault(site.region, site)
    return kept, others


def _shares(clients: Mapping[str, float], regions: set[str]) -> dict[str, float]:
    total = sum(clients.values())
    if total <= 0:
        return {region: 1 / len(regions) for region in regions}
    return {region: weight / total for region, weight in clients.items() if weight > 0}


def _sets(
    kept: dict[str, Site], others: dict[str, Site], count: int, latencies: Latencies
) -> Iterator[tuple[Site, ...]]:
    """Sets of sites; of many regions, only the ones near to some region of the set."""
    if count <= len(kept):
        yield from combinations(kept.values(), count)
        return
    seen = set()
    for start in kept or others:
        near = sorted(others.values(), key=lambda site: (site.unfit != "", latencies.round_trip_ms(start, site.region)))
        for chosen in combinations(near[:REGIONS_LOOKED_AT_MAX], count - len(kept)):
            names = frozenset(site.node for site in chosen)
            if names not in seen:
                seen.add(names)
                yield (*kept.values(), *chosen)


def _with_each_primary(
    chosen: tuple[Site, ...], latencies: Latencies, weights: dict[str, float], wishes: Wishes
) -> Iterator[Placement]:
    fit = [site for site in chosen if not site.unfit] or chosen
    for primary in fit:
        others = sorted(
            (site for site in chosen if site is not primary),
            key=lambda site: (latencies.round_trip_ms(primary.region, site.region), site.node),
        )
        preferred = wishes.primary_region in {"", primary.region}
        yield _placement((primary, *others), latencies, weights, preferred=preferred)


def _placement(
    sites: tuple[Site, ...], latencies: Latencies, weights: dict[str, float], *, preferred: bool
) -> Placement:
    primary, *shadows = sites
    needed = quorum(len(sites))
    failover_ms = min(
        (
            _clients_ms(site.region, latencies, weights) + _quorum_ms(site, shadows, needed, latencies)
            for site in shadows
        ),
        default=0.0,
    )
    return Placement(
        sites,
        _clients_ms(primary.region, latencies, weights),
        _quorum_ms(primary, sites, needed, latencies),
        failover_ms,
        LOAD_MS * (primary.cpu + FAILOVER_SHARE * sum(site.cpu for site in shadows)),
        preferred,
    )


def _clients_ms(region: str, latencies: Latencies, weights: dict[str, float]) -> float:
    return sum(share * _bounded(latencies, client, region) for client, share in weights.items())


def _quorum_ms(owner: Site, sites: Sequence[Site], needed: int, latencies: Latencies) -> float:
    ways = sorted(_bounded(latencies, owner.region, site.region) for site in sites)
    return ways[needed - 1] if needed <= len(ways) else UNKNOWN_ROUND_TRIP_MS


def _bounded(latencies: Latencies, region: str, other: str) -> float:
    if region == other:
        return 0.0
    return max(APART_MS_MIN, min(latencies.round_trip_ms(region, other), UNKNOWN_ROUND_TRIP_MS))


assert LOAD_MS < APART_MS_MIN, "a busy second moves no primary to another region"
