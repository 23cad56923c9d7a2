"""Prometheus metrics of a manager."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from distribution_manager.core.manager import ManagerCore
from distribution_manager.core.owner import Phase

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SHARDS_SHOWN_MAX = 1_000
"""Series per shard (epoch, lag) are shown for this many owned shards at the most."""


class Metrics:
    """A registry per manager; the core's own numbers are read when scraped."""

    def __init__(self, core: ManagerCore) -> None:
        self.registry = CollectorRegistry()
        self._operations = Counter("shadowq_requests", "Client requests", ["operation", "code"], registry=self.registry)
        self._seconds = Histogram(
            "shadowq_request_seconds",
            "Time a client request took, waiting for messages included",
            ["operation"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch = Histogram(
            "shadowq_entry_operations", "Operations per committed entry", buckets=_SIZES, registry=self.registry
        )
        self._quorum = Histogram(
            "shadowq_quorum_wait_seconds",
            "Time from an entry's sequencing to its commit",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.registry.register(_CoreCollector(core))
        core.on_commit = self.observe_commit

    def observe_request(self, operation: str, code: str, seconds: float) -> None:
        """``code`` is "" for success."""
        self._operations.labels(operation or "unknown", code or "ok").inc()
        self._seconds.labels(operation or "unknown").observe(seconds)

    def observe_commit(self, operations: int, wait_ms: int) -> None:
        self._batch.observe(operations)
        self._quorum.observe(wait_ms / 1000)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _CoreCollector(Collector):
    def __init__(self, core: ManagerCore) -> None:
        self._core = core

    def collect(self) -> Iterator[Metric]:
        core = self._core
        yield CounterMetricFamily("shadowq_takeovers", "Takeovers begun by this manager", core.takeovers)
        yield CounterMetricFamily("shadowq_ownership_losses", "Shards lost to another manager", core.losses)
        yield GaugeMetricFamily("shadowq_owned_shards", "Shards owned by this manager", len(core.owners))
        yield GaugeMetricFamily("shadowq_queues", "Queues known", len(core.directory.queues))
        yield GaugeMetricFamily("shadowq_requests_open", "Requests not finished", core.router.open_requests)
        nodes = GaugeMetricFamily(
            "shadowq_node_round_trip_seconds", "Smoothed round-trip time to a linked node", labels=["node", "region"]
        )
        for name, link in core.liveness.nodes.items():
            nodes.add_metric([name, link.welcome.region], link.round_trip.smoothed_ms / 1000)
        yield nodes
        yield from self._shards()

    def _shards(self) -> Iterator[Metric]:
        epochs = GaugeMetricFamily("shadowq_shard_epoch", "Epoch of an owned shard", labels=["shard"])
        lags = GaugeMetricFamily(
            "shadowq_replica_lag_entries", "Entries that a replica lacks", labels=["shard", "node"]
        )
        for shard, owner in list(self._core.owners.items())[:SHARDS_SHOWN_MAX]:
            replication = owner.replication
            if owner.phase is not Phase.SERVING or replication is None:
                continue
            epochs.add_metric([shard], owner.record.epoch)
            for node, follower in replication.followers.items():
                lags.add_metric([shard, node], max(0, replication.commit_seq - follower.matched))
        yield epochs
        yield lags
