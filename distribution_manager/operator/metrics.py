"""Prometheus metrics of a manager."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from distribution_manager.core.manager import ManagerCore
from distribution_manager.core.owner import Phase

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
SHARDS_SHOWN_MAX = 1_000
"""Series per shard (epoch, lag) are shown for this many owned shards at the most."""


class _Seconds:
    """A histogram over ``_SECONDS``; the last bucket is for what took longer."""

    def __init__(self) -> None:
        self.buckets = [0] * (len(_SECONDS) + 1)
        self.sum = 0.0

    def cumulative(self) -> list[tuple[str, float]]:
        bounds = [*map(str, _SECONDS), "+Inf"]
        return list(zip(bounds, accumulate(self.buckets), strict=True))


class Metrics(Collector):
    """A registry per manager; the core's own numbers are read when scraped."""

    def __init__(self, core: ManagerCore) -> None:
        self.registry = CollectorRegistry()
        self._requests: dict[tuple[str, str], int] = {}
        """Counts by operation and code."""
        self._seconds: dict[str, _Seconds] = {}
        """By operation."""
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
        self.registry.register(self)
        core.on_commit = self.observe_commit

    def show_stale_names(self, count: Callable[[], int]) -> None:
        """``count``: of the questions to DNS whose last answer is used beyond its time."""
        gauge = Gauge("shadowq_dns_stale", "DNS answers used beyond their time", registry=self.registry)
        gauge.set_function(count)

    def observe_request(self, operation: str, code: str, seconds: float) -> None:
        """``code`` is "" for success."""
        key = operation, code
        self._requests[key] = self._requests.get(key, 0) + 1
        times = self._seconds.get(operation)
        if times is None:
            times = self._seconds[operation] = _Seconds()
        times.buckets[bisect_left(_SECONDS, seconds)] += 1
        times.sum += seconds

    def observe_commit(self, operations: int, wait_ms: int) -> None:
        self._batch.observe(operations)
        self._quorum.observe(wait_ms / 1000)

    def collect(self) -> Iterator[Metric]:
        """What clients asked for. Counted by hand: the client library's counters cost a request as much as its MD5s."""
        requests = CounterMetricFamily("shadowq_requests", "Client requests", labels=["operation", "code"])
        for (operation, code), count in list(self._requests.items()):
            requests.add_metric([operation or "unknown", code or "ok"], count)
        yield requests
        seconds = HistogramMetricFamily(
            "shadowq_request_seconds",
            "Time a client request took, waiting for messages included",
            labels=["operation"],
        )
        for operation, times in list(self._seconds.items()):
            seconds.add_metric([operation or "unknown"], times.cumulative(), times.sum)
        yield seconds

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _CoreCollector(Collector):
    def __init__(self, core: ManagerCore) -> None:
        self._core = core

    def collect(self) -> Iterator[Metric]:
        core = self._core
        yield CounterMetricFamily("shadowq_takeovers", "Takeovers begun by this manager", core.takeovers)
        yield CounterMetricFamily("shadowq_ownership_losses", "Shards lost to another manager", core.losses)
        text = "Times that etcd had an older record of a shard than was known, as after a restore from a backup"
        yield CounterMetricFamily("shadowq_records_put_back", text, core.records_put_back)
        healer = core.healer
        yield CounterMetricFamily("shadowq_learners_begun", "Nodes that began to copy a shard", healer.begun)
        yield CounterMetricFamily("shadowq_learners_admitted", "Nodes that joined a replica set", healer.finished)
        missing = sum(healer.missing().values())
        yield GaugeMetricFamily("shadowq_replicas_missing", "Replicas in reach that owned shards lack", missing)
        yield GaugeMetricFamily("shadowq_owned_shards", "Shards owned by this manager", len(core.owners))
        yield GaugeMetricFamily("shadowq_queues", "Queues known", len(core.directory.queues))
        yield GaugeMetricFamily("shadowq_requests_open", "Requests not finished", core.router.open_requests)
        nodes = GaugeMetricFamily(
            "shadowq_node_round_trip_seconds", "Smoothed round-trip time to a linked node", labels=["node", "region"]
        )
        jitter = GaugeMetricFamily(
            "shadowq_node_jitter_seconds",
            "Variation of the round-trip time to a linked node",
            labels=["node", "region"],
        )
        loss = GaugeMetricFamily(
            "shadowq_node_loss_ratio",
            "Share of pings to a linked node that were answered late",
            labels=["node", "region"],
        )
        for name, link in core.liveness.nodes.items():
            labels = [name, link.welcome.region]
            nodes.add_metric(labels, link.round_trip.smoothed_ms / 1000)
            jitter.add_metric(labels, link.round_trip.jitter_ms / 1000)
            loss.add_metric(labels, link.round_trip.loss)
        yield nodes
        yield jitter
        yield loss
        yield from self._shards()
        yield from self._promotions()
        yield from self._signals()

    def _promotions(self) -> Iterator[Metric]:
        relocations = self._core.promoter.relocations
        moves = CounterMetricFamily(
            "shadowq_promotions", "Moves of a shard that this manager began by itself", labels=["cause", "result"]
        )
        for result, counts in (("arrived", relocations.arrived), ("given up", relocations.given_up)):
            for cause, count in counts.items():
                moves.add_metric([cause, result], count)
        yield moves
        yield GaugeMetricFamily("shadowq_promotions_under_way", "Such moves under way", relocations.under_way)

    def _signals(self) -> Iterator[Metric]:
        """Of owned shards, the signals with thresholds."""
        labels = ["shard", "signal"]
        values = GaugeMetricFamily("shadowq_load", "A signal of a shard's load", labels=labels)
        forecasts = GaugeMetricFamily("shadowq_load_forecast", "Its peak within the horizon", labels=labels)
        over = CounterMetricFamily("shadowq_load_over_seconds", "Time it was over its threshold", labels=labels)
        promoter = self._core.promoter
        for shard in list(self._core.owners)[:SHARDS_SHOWN_MAX]:
            totals = promoter.over_total_ms(shard)
            for reading in promoter.readings(shard):
                values.add_metric([shard, reading.signal], reading.value)
                forecasts.add_metric([shard, reading.signal], reading.forecast)
                over.add_metric([shard, reading.signal], totals[reading.signal] / 1000)
        yield values
        yield forecasts
        yield over

    def _shards(self) -> Iterator[Metric]:
        epochs = GaugeMetricFamily("shadowq_shard_epoch", "Epoch of an owned shard", labels=["shard"])
        lags = GaugeMetricFamily(
            "shadowq_replica_lag_entries", "Entries that a replica lacks", labels=["shard", "node"]
        )
        operations = CounterMetricFamily(
            "shadowq_shard_operations", "Client operations that an owned shard was given", labels=["shard"]
        )
        sent = CounterMetricFamily(
            "shadowq_shard_messages_sent", "Messages that clients sent to an owned shard", labels=["shard"]
        )
        clients = GaugeMetricFamily(
            "shadowq_shard_clients_share",
            "Share of an owned shard's operations that came in at a region, newer ones counting more",
            labels=["shard", "region"],
        )
        for shard, owner in list(self._core.owners.items())[:SHARDS_SHOWN_MAX]:
            operations.add_metric([shard], owner.demand.operations_total)
            sent.add_metric([shard], owner.demand.messages_total)
            weights = owner.demand.weights(self._core.now.monotonic_ms)
            for region, weight in weights.items():
                clients.add_metric([shard, region], weight / sum(weights.values()))
            replication = owner.replication
            if owner.phase is not Phase.SERVING or replication is None:
                continue
            epochs.add_metric([shard], owner.record.epoch)
            for node, follower in replication.followers.items():
                lags.add_metric([shard, node], max(0, replication.commit_seq - follower.matched))
        yield epochs
        yield lags
        yield operations
        yield sent
        yield clients
