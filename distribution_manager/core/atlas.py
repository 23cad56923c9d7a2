"""What this manager knows of the cluster's geography: nodes that may hold replicas, and how far regions are apart.

Model: nodes come from the directory, their state and load from our links to them, which measure latencies as well.
Invariant: nothing here decides anything; see placement.py.
"""

from __future__ import annotations

from distribution_manager.core.directory import Directory
from distribution_manager.core.liveness import Liveness
from distribution_manager.core.placement import UNKNOWN_ROUND_TRIP_MS, Site


class Atlas:
    """Also the ``Latencies`` that placements are ranked by."""

    def __init__(self, region: str, directory: Directory, liveness: Liveness) -> None:
        self._region = region
        self._directory = directory
        self._liveness = liveness

    def sites(self) -> list[Site]:
        """Every node known, by its name."""
        return [self._site(node) for node in sorted(self._directory.nodes)]

    def _site(self, node: str) -> Site:
        record = self._directory.nodes[node]
        link = self._liveness.nodes.get(node)
        if link is None:
            return Site(node, record.region, record.incarnation, reachable=False)
        load = link.load
        return Site(
            node,
            record.region,
            link.welcome.incarnation,
            disk_free=load.disk_free,
            cpu=load.cpu,
            shards=load.shards,
        )

    def round_trip_ms(self, region: str, other: str) -> float:
        """Between processes of the two regions; UNKNOWN_ROUND_TRIP_MS where not measured."""
        if region == other:
            return 0.0
        away = other if region == self._region else region
        if self._region not in {region, other}:
            return UNKNOWN_ROUND_TRIP_MS
        measured = [
            link.round_trip.smoothed_ms for link in self._liveness.nodes.values() if link.welcome.region == away
        ]
        return min(measured, default=UNKNOWN_ROUND_TRIP_MS)
