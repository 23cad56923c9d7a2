"""Primaries spread over the nodes, by their number, without making anybody wait longer for it than a bound.

Model: as long as one node has two primaries more than another, one of them goes from the first to the second, of those
that may (placement.py) at the least cost. What would be placed better anyway, by the margin of promotions, goes first.
Invariant: every step makes the numbers more even, or a score better, so that it ends, and done twice it does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from distribution_manager.core.placement import Placement

COST_MAX_MS = 10.0
"""A primary is moved for balance only if its clients wait no longer than this for it."""


class Candidate(msgspec.Struct, frozen=True):
    """A queue, its placement, and those with the other primaries that it may have. ``follows``: its owner is, or
    cannot be, in the primary's region. ``used``: it has clients, so that scores say what they wait."""

    queue: str
    here: Placement
    options: Sequence[Placement]
    follows: bool = True
    used: bool = True

    def cost_ms(self, option: Placement) -> float:
        """How much longer its clients would wait."""
        return option.score_ms - self.here.score_ms if self.used else 0.0


class Step(msgspec.Struct, frozen=True):
    """``queue``'s primary goes ``to`` a node, of ``region``; its owner with it. ``node`` = ``to``: only the owner."""

    queue: str
    node: str
    to: str
    region: str
    why: str


def plan(candidates: Iterable[Candidate], nodes: Iterable[str], better: float) -> list[Step]:
    """``nodes``: those that primaries may be on. ``better``: what score, in milliseconds, is worth a move by itself."""
    places = {item.queue: item for item in candidates}
    at = {queue: item.here for queue, item in places.items()}
    steps = dict[str, Step]()
    for queue, item in sorted(places.items()):
        best = min(item.options, key=item.cost_ms, default=item.here)
        if item.cost_ms(best) <= -better:
            at[queue] = best
            steps[queue] = _step(item, best, f"{-item.cost_ms(best):.1f} ms nearer to its clients")
        elif not item.follows:
            steps[queue] = _step(item, item.here, "its owner is elsewhere")
    while True:
        counts = dict.fromkeys(nodes, 0)
        for placement in at.values():
            node = placement.sites[0].node
            counts[node] = counts.get(node, 0) + 1
        found = _evener([item for item in places.values() if at[item.queue] is item.here], counts)
        if found is None:
            return list(steps.values())
        item, option = found
        source, target = item.here.sites[0].node, option.sites[0].node
        at[item.queue] = option
        steps[item.queue] = _step(item, option, f"{source} has {counts[source]} primaries, {target} {counts[target]}")


def _evener(candidates: Iterable[Candidate], counts: dict[str, int]) -> tuple[Candidate, Placement] | None:
    """The move that evens most, and of those the cheapest."""
    moves = [
        (counts[option.sites[0].node] - counts[item.here.sites[0].node], cost_ms, item.queue, item, option)
        for item in candidates
        for option in item.options
        if option.preferred >= item.here.preferred
        and (cost_ms := item.cost_ms(option)) <= COST_MAX_MS
        and counts[item.here.sites[0].node] >= counts[option.sites[0].node] + 2
    ]
    return min(moves, key=lambda move: move[:3])[3:] if moves else None


def _step(item: Candidate, option: Placement, why: str) -> Step:
    site = option.sites[0]
    return Step(item.queue, item.here.sites[0].node, site.node, site.region, why)
