"""What a shard's replica set should become next: one step at a time, until it has the size it should, all in reach.

Model: ``next_step`` is given the record, the size wanted, who is gone for good and who keeps up, and says which one of
these is to be done, or None: a newcomer begins to learn; it is admitted, in the place of one that is gone or as one
more; one too many is removed; a learner that is needed no more is let go.
Invariant: a step changes the set by one replica, and never removes the primary: another is promoted first.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from distribution_manager.core import causes
from distribution_manager.core.metadata import Replica, ShardRecord
from distribution_manager.core.placement import NO_WISHES, Latencies, Placement, Site, Wishes, placements


class Learn(msgspec.Struct, frozen=True):
    """``node`` begins to copy the shard; any other learner is let go."""

    node: str


class Admit(msgspec.Struct, frozen=True):
    """The learner joins the set, in the place of ``leaver``; "": as one more."""

    leaver: str


class Remove(msgspec.Struct, frozen=True):
    node: str


class StopLearning(msgspec.Struct, frozen=True):
    """The learner is not needed any more, or does not come back."""


Step = Learn | Admit | Remove | StopLearning


class Situation(msgspec.Struct, frozen=True):
    """What is known of a shard. Nodes are named."""

    record: ShardRecord
    count: int
    """How many replicas there should be: 1 + ShadowFactor."""
    gone: frozenset[str]
    """Replicas, and the learner, that have been out of reach for longer than they are waited for."""
    well: frozenset[str]
    """Linked, holding everything committed, and keeping up."""
    retiring: frozenset[str]
    """Nodes that were told to drop what they hold, and have not said that they did."""
    sites: list[Site]

    @property
    def members(self) -> list[str]:
        return [replica.node for replica in self.record.replicas]

    @property
    def leavers(self) -> list[str]:
        """Members to be replaced. The primary is not one: another becomes primary as soon as one can."""
        return [node for node in self.members if node in self.gone and node != self.record.primary]

    @property
    def missing(self) -> int:
        """By how many replicas in reach the shard falls short."""
        return max(0, self.count - sum(node not in self.gone for node in self.members))


def next_step(
    situation: Situation, latencies: Latencies, clients: dict[str, float], wishes: Wishes = NO_WISHES
) -> Step | None:
    """None: all is as it should be, or is waited for, or no node is there that could help."""
    record, learner, size = situation.record, situation.record.learner, len(situation.record.replicas)
    leavers = situation.leavers
    if size >= situation.count and not (leavers and size == situation.count):
        if learner:
            return StopLearning()
        return Remove(_superfluous(situation, latencies, clients, wishes)) if size > situation.count else None
    if learner in situation.well:
        return Admit("" if size < situation.count else leavers[0])
    if learner and learner not in situation.gone and _fit(situation, learner):
        return None
    kept = [node for node in situation.members if size < situation.count or node not in situation.gone]
    newcomer = _newcomer(situation, {*kept, record.primary}, latencies, clients, wishes)
    if newcomer is not None:
        return Learn(newcomer.node)
    return StopLearning() if learner in situation.gone else None


def after(step: Step, record: ShardRecord, incarnation: str) -> ShardRecord:
    """The record with the step done; ``incarnation`` is that of the learner's store."""
    replicas, learner, outside = list(record.replicas), record.learner, set(record.outside)
    match step:
        case Learn(node):
            learner = node
            outside.add(node)
        case StopLearning():
            learner = ""
        case Admit(leaver):
            replicas.append(Replica(node=learner, incarnation=incarnation))
            outside.discard(learner)
            learner = ""
    if isinstance(step, Admit | Remove):
        leaver = step.leaver if isinstance(step, Admit) else step.node
        replicas = [replica for replica in replicas if replica.node != leaver]
        outside |= {leaver} - {""}
    return msgspec.structs.replace(
        record,
        replicas=tuple(replicas),
        version=record.version + (tuple(replicas) != record.replicas),
        learner=learner,
        outside=tuple(sorted(outside)),
    )


def cause_of(step: Step) -> str:
    match step:
        case Learn():
            return causes.LEARNING
        case Admit(leaver):
            return causes.REPLACED if leaver else causes.GROWN
        case Remove():
            return causes.SHRUNK
        case StopLearning():
            return causes.NOT_NEEDED


def _fit(situation: Situation, node: str) -> bool:
    """One that is only out of reach is waited for, as long as it is not ``gone``."""
    return all(site.unfit in {"", "out of reach"} for site in situation.sites if site.node == node)


def _newcomer(
    situation: Situation, kept: set[str], latencies: Latencies, clients: dict[str, float], wishes: Wishes
) -> Site | None:
    """The first to come of the best set that has the kept ones, of the nodes that may take a replica now."""
    staying = [site for site in situation.sites if site.node in kept]
    taken = {site.region for site in staying}
    barred = {*situation.members, *situation.retiring, situation.record.learner}
    free = [
        site
        for site in situation.sites
        if not site.unfit and site.node not in barred and site.region not in taken and _allowed(site, wishes)
    ]
    if not free:
        return None
    count = min(max(situation.count, len(taken) + 1), len(taken) + len({site.region for site in free}))
    best = placements([*staying, *free], count, latencies, clients, wishes=wishes, keep=kept)[0]
    return next(site for site in best.sites if site.node not in kept)


def _allowed(site: Site, wishes: Wishes) -> bool:
    return not wishes.allowed_regions or site.region in wishes.allowed_regions


def _superfluous(situation: Situation, latencies: Latencies, clients: dict[str, float], wishes: Wishes) -> str:
    """Who goes where there are too many: whoever does not keep up, or is not where the queue may be, goes first."""
    sites = {site.node: site for site in situation.sites if site.node in situation.members}
    staying: set[str] = set()
    if len({site.region for site in sites.values()}) >= situation.count:
        ranked = placements(sites.values(), situation.count, latencies, clients, keep=set(sites))
        staying = {site.node for site in _best_with(ranked, situation)}

    def worth(node: str) -> tuple[bool, bool, bool, str]:
        well = node in situation.well and node in sites
        return (well, well and _allowed(sites[node], wishes), node in staying, node)

    return min((node for node in situation.members if node != situation.record.primary), key=worth)


def _best_with(ranked: Sequence[Placement], situation: Situation) -> tuple[Site, ...]:
    """The best set that leaves the primary where it is; the best at all, where the primary itself is unfit for it."""
    return next((item.sites for item in ranked if item.sites[0].node == situation.record.primary), ranked[0].sites)
