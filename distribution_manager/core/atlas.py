"""What this manager knows of the cluster's geography: nodes that may hold replicas, and how far regions are apart.

Model: nodes come from the directory, their state and load from our links to them. Distances are measured by every
manager on its own links (liveness.py), and those of the others come from etcd (latency.py), so that ways between two
other regions are known as well. A way is as long one way round as the other: where several links lie between two
regions, the median of what they count is taken, so that one bad link does not speak for a region.
Invariant: nothing here decides anything; see placement.py. What is not known is UNKNOWN_ROUND_TRIP_MS, never an error.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from distribution_manager.core.directory import Directory
from distribution_manager.core.latency import effective_ms, measured
from distribution_manager.core.liveness import Liveness
from distribution_manager.core.metadata import Way
from distribution_manager.core.placement import UNKNOWN_ROUND_TRIP_MS, Site


class Measured(msgspec.Struct, frozen=True):
    """A manager's way to a peer. ``kind``: node or manager. ``measured_ms``: Unix time; 0: this manager's own, now."""

    manager: str
    region: str
    peer: str
    kind: str
    way: Way
    measured_ms: int = 0


class Atlas:
    """Also the ``Latencies`` that placements are ranked by."""

    def __init__(self, manager: str, region: str, directory: Directory, liveness: Liveness) -> None:
        self._manager = manager
        self._region = region
        self._directory = directory
        self._liveness = liveness
        self._matrix: dict[tuple[str, str], list[Measured]] | None = None

    def sites(self) -> list[Site]:
        """Every node known, by its name."""
        return [self._site(node) for node in sorted(self._directory.nodes)]

    def _site(self, node: str) -> Site:
        record = self._directory.nodes[node]
        link = self._liveness.nodes.get(node)
        draining = self._directory.is_draining(node)
        if link is None:
            return Site(node, record.region, record.incarnation, reachable=False, draining=draining)
        load = link.load
        return Site(
            node,
            record.region,
            link.welcome.incarnation,
            draining=draining,
            disk_free=load.disk_free,
            cpu=load.cpu,
            shards=load.shards,
        )

    def refresh(self) -> None:
        """To be called now and then: until then distances stay as they were when they were first asked for."""
        self._matrix = None

    def round_trip_ms(self, region: str, other: str) -> float:
        """Expected, between processes of the two regions: see latency.effective_ms."""
        if region == other:
            return 0.0
        measured_ms = self._measured_ms(region, other)
        return self._detour_ms(region, other) if measured_ms is None else measured_ms

    def _measured_ms(self, region: str, other: str) -> float | None:
        found = self.between(region, other)
        return effective_ms(median_way(found)) if found else None

    def _detour_ms(self, region: str, other: str) -> float:
        """No way is longer than one round by a third region, were it to be taken: what is not measured counts that.

        Counted as UNKNOWN_ROUND_TRIP_MS, ways between two other regions, which nobody has told of in the first seconds,
        would speak against a primary at home: without it, all would seem to be lost.
        """
        known = {each for pair in self._matrix or {} for each in pair}
        ways = ((self._measured_ms(region, via), self._measured_ms(via, other)) for via in known)
        return min(
            (there + on for there, on in ways if there is not None and on is not None), default=UNKNOWN_ROUND_TRIP_MS
        )

    def between(self, region: str, other: str) -> list[Measured]:
        """The ways between two regions, those that count least first."""
        if self._matrix is None:
            self._matrix = self._regions()
        return self._matrix.get(_pair(region, other), [])

    def _regions(self) -> dict[tuple[str, str], list[Measured]]:
        matrix: dict[tuple[str, str], list[Measured]] = {}
        for item in sorted(self.ways(), key=lambda item: effective_ms(item.way)):
            matrix.setdefault(_pair(item.region, item.way.region), []).append(item)
        return matrix

    def ways(self) -> Iterator[Measured]:
        """All that is known: what this manager measures, and what the others have said."""
        nodes, managers = measured(self._liveness)
        yield from _of(self._manager, self._region, nodes, managers, 0)
        for name, record in sorted(self._directory.latencies.items()):
            if name != self._manager:
                yield from _of(name, record.region, record.nodes, record.managers, record.measured_ms)


def _of(
    manager: str, region: str, nodes: dict[str, Way], managers: dict[str, Way], measured_ms: int
) -> Iterator[Measured]:
    for kind, ways in (("node", nodes), ("manager", managers)):
        for peer, way in sorted(ways.items()):
            yield Measured(manager, region, peer, kind, way, measured_ms)


def median_way(ways: list[Measured]) -> Way:
    """The one that stands for all, of at least one, as ``Atlas.between`` gives them: of two, the shorter."""
    return ways[(len(ways) - 1) // 2].way


def _pair(region: str, other: str) -> tuple[str, str]:
    return (region, other) if region < other else (other, region)
