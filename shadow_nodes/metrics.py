"""A node's metrics, in a registry of their own: plain counts on the hot path, made into samples when scraped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from shadow_nodes.core.store import ShardWrite
from shadow_nodes.protocol.messages import ToManager

L = TypeVar("L", bound=tuple[str, ...])

WRITE_SECONDS_BUCKETS = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5),
)
BATCH_BUCKETS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)


class NodeMetrics(Collector):
    """``gauges``: name and help to a function that gives the value when scraped."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sends: Counter[type[ToManager]] = Counter()
        self.pulls: Counter[str] = Counter()
        self.frames_in = 0
        self.frames_out = 0
        self.entries = 0
        self.entry_bytes = 0
        self.fences = 0
        self.checkpoints = 0
        self.installs = 0
        self.batches_inline = 0
        self.batches_in_thread = 0
        self.gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._write_seconds = Histogram(
            "shadowq_node_write_seconds",
            "Time of one durable transaction of the store",
            buckets=WRITE_SECONDS_BUCKETS,
            registry=self.registry,
        )
        self._batch_shards = Histogram(
            "shadowq_node_batch_shards",
            "Shards written in one transaction",
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self.registry.register(self)

    def written(self, writes: list[ShardWrite], seconds: float, *, inline: bool) -> None:
        self._write_seconds.observe(seconds)
        self._batch_shards.observe(len(writes))
        if inline:
            self.batches_inline += 1
        else:
            self.batches_in_thread += 1
        for write in writes:
            self.entries += len(write.entries)
            self.entry_bytes += sum(len(entry.data) for entry in write.entries)
            self.fences += write.promised is not None and write.install is None
            self.checkpoints += write.checkpoint is not None
            self.installs += write.install is not None

    def collect(self) -> Iterator[Metric]:
        for name, help_text, value in (
            ("frames_received", "Frames from managers", self.frames_in),
            ("frames_sent", "Frames to managers", self.frames_out),
            ("entries_written", "Log entries made durable", self.entries),
            ("entry_bytes_written", "Bytes of log entries made durable", self.entry_bytes),
            ("fences", "Promises made durable", self.fences),
            ("checkpoints", "Checkpoints of shards written", self.checkpoints),
            ("snapshots_installed", "Snapshots of other nodes put in place", self.installs),
        ):
            yield _counter(name, help_text, {(): value}, ())
        batches = {("loop",): self.batches_inline, ("thread",): self.batches_in_thread}
        yield _counter("batches_written", "Transactions, by where they ran", batches, ("where",))
        sends = {(kind.__name__,): count for kind, count in self.sends.items()}
        yield _counter("messages_sent", "Messages to managers, by kind (Stale, Gap, Appended...)", sends, ("kind",))
        pulls = {(outcome,): count for outcome, count in self.pulls.items()}
        yield _counter("pulls", "Requests to copy from other nodes, by outcome", pulls, ("outcome",))
        for name, (help_text, read) in self.gauges.items():
            gauge = GaugeMetricFamily(f"shadowq_node_{name}", help_text)
            gauge.add_metric([], read())
            yield gauge

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self.registry)


def _counter(name: str, help_text: str, values: Mapping[L, int], labels: L) -> Metric:
    family = CounterMetricFamily(f"shadowq_node_{name}", help_text, labels=labels)
    for label_values, value in values.items():
        family.add_metric(list(label_values), value)
    return family
