"""What this manager measures of its ways, told to the others in etcd under its lease; and what a way counts.

Model: ``due`` says what to put, if anything: a record of all ways that are up, when it differs from the one that was
put last by more than a margin, or when that is old, or gone from etcd with a lease. At most one transaction is under
way, and none comes sooner than PUBLISH_INTERVAL_MIN_MS after the last: without etcd that is how often it is tried.
Invariant: nothing waits for this; a record that is missing costs knowledge of ways between other regions, no more.
"""

from __future__ import annotations

from collections.abc import Mapping

from distribution_manager.core.directory import Directory
from distribution_manager.core.liveness import LATE_MS, Liveness, ManagerLink, NodeLink
from distribution_manager.core.metadata import LatencyRecord, Way, encode_record, latency_key
from distribution_manager.core.request import Now
from distribution_manager.core.transactions import Put, Transaction

PUBLISH_INTERVAL_MIN_MS = 5_000
PUBLISH_INTERVAL_MAX_MS = 60_000
"""A record is never older than this while its manager and etcd are well."""
PUBLISH_MARGIN_MS = 2.0
PUBLISH_MARGIN_SHARE = 0.2
"""A way has changed when what it counts differs by more than this and PUBLISH_MARGIN_MS."""
SAMPLES_MIN = 4
"""A way with fewer is not told: the first samples of a process that starts are not to be trusted."""

JITTER_WEIGHT = 1.0


def effective_ms(way: Way) -> float:
    """What a way counts for placement: the time within which most answers come, and what lost segments add to it.

    ``smoothed + jitter``, and by the share that is lost: one more round trip and a retransmission timeout.
    """
    return way.round_trip_ms + JITTER_WEIGHT * way.jitter_ms + way.loss * (way.round_trip_ms + LATE_MS)


def measured(liveness: Liveness, samples_min: int = 1) -> tuple[dict[str, Way], dict[str, Way]]:
    """The ways of this manager that are up: to nodes, and to managers."""
    nodes = {
        name: _way(link, link.welcome.region)
        for name, link in liveness.nodes.items()
        if link.round_trip.samples >= samples_min
    }
    managers = {
        name: _way(link, link.region)
        for name, link in liveness.managers.items()
        if link.round_trip.samples >= samples_min
    }
    return nodes, managers


def _way(link: NodeLink | ManagerLink, region: str) -> Way:
    trip = link.round_trip
    return Way(
        region=region,
        round_trip_ms=round(trip.smoothed_ms, 2),
        jitter_ms=round(trip.jitter_ms, 2),
        loss=round(trip.loss, 4),
    )


class LatencyReport:
    def __init__(self, manager: str, region: str, directory: Directory, liveness: Liveness) -> None:
        self._manager = manager
        self._region = region
        self._directory = directory
        self._liveness = liveness
        self._said: LatencyRecord | None = None
        """What was put last, as far as is known."""
        self._said_ms = 0
        self._tried_ms = -PUBLISH_INTERVAL_MIN_MS
        self._began_ms: int | None = None
        """Since when there has been something to say."""
        self._under_way = False

    def due(self, now: Now) -> Transaction | None:
        """What to put now; ``told`` is to be called with how that went."""
        if self._under_way or now.monotonic_ms - self._tried_ms < PUBLISH_INTERVAL_MIN_MS:
            return None
        self._forget_strangers()
        nodes, managers = measured(self._liveness, SAMPLES_MIN)
        if not self._worth_saying(nodes, managers, now.monotonic_ms):
            return None
        record = LatencyRecord(
            manager=self._manager, region=self._region, measured_ms=now.clock_ms, nodes=nodes, managers=managers
        )
        self._tried_ms = now.monotonic_ms
        self._under_way = True
        self._said = record
        return Transaction([], [Put(latency_key(self._manager), encode_record(record), leased=True)])

    def told(self, now: Now, *, known: bool) -> None:
        """The transaction has ended; ``known``: it was carried out."""
        self._under_way = False
        self._said_ms = now.monotonic_ms
        if not known:
            self._said = None

    def _worth_saying(self, nodes: dict[str, Way], managers: dict[str, Way], now_ms: int) -> bool:
        said = self._said
        if said is None or self._manager not in self._directory.latencies:
            return bool(nodes or managers) and (said is not None or self._all_measured(nodes, managers, now_ms))
        old = now_ms - self._said_ms >= PUBLISH_INTERVAL_MAX_MS
        return old or _differ(said.nodes, nodes) or _differ(said.managers, managers)

    def _all_measured(self, nodes: dict[str, Way], managers: dict[str, Way], now_ms: int) -> bool:
        """The first record waits for all that is known of to be measured, but not for long."""
        if self._began_ms is None:
            self._began_ms = now_ms
        others = [name for name in self._directory.managers if name != self._manager]
        complete = all(node in nodes for node in self._directory.nodes) and all(name in managers for name in others)
        return complete or now_ms - self._began_ms >= PUBLISH_INTERVAL_MIN_MS

    def _forget_strangers(self) -> None:
        directory = self._directory
        known = {*(f"nodes/{node}" for node in directory.nodes), *(f"managers/{one}" for one in directory.managers)}
        self._liveness.forget_all_but(known)


def _differ(said: Mapping[str, Way], now: Mapping[str, Way]) -> bool:
    if said.keys() != now.keys():
        return True
    return any(_far_from(effective_ms(said[peer]), effective_ms(way)) for peer, way in now.items())


def _far_from(said_ms: float, now_ms: float) -> bool:
    difference_ms = abs(now_ms - said_ms)
    return difference_ms > PUBLISH_MARGIN_MS and difference_ms > PUBLISH_MARGIN_SHARE * said_ms
