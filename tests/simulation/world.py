"""A whole cluster in one process: builds it from a plan, runs it, lets faults happen and end, and judges.

Model: load and faults for ``plan.load_us``; then everything is mended, the queues are read to their end, and the
replicas must agree. A run is a function of its plan: same plan, same trace.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec

from distribution_manager.coordination.memory import MemoryCluster
from distribution_manager.core.metadata import NodeRecord, QueueMetadata, ShardRecord, decode_record, encode_record
from distribution_manager.core.transactions import KeyValue, Put, Transaction
from tests.simulation.bounds import bounds
from tests.simulation.checkers import check_all
from tests.simulation.clients import Client
from tests.simulation.drain import Drainer
from tests.simulation.faults import Faults
from tests.simulation.history import History, QueueFacts
from tests.simulation.loop import MS, SECOND, Loop
from tests.simulation.manager_process import ManagerProcess
from tests.simulation.network import Network
from tests.simulation.node_process import NodeProcess
from tests.simulation.plan import Plan
from tests.simulation.process import Process
from tests.simulation.watch import Watch, watching

SETTLE_US = 12 * SECOND
"""After the last fault, operations may still fail for this long: an operation's hold, and a little."""
DRAIN_US = 75 * SECOND
"""After the last fault the queues must be empty, and the replicas equal, within this."""
LEASE_TICK_US = 500 * MS


class Cluster(MemoryCluster):
    def list_prefix_always(self, prefix: str) -> list[KeyValue]:
        """Even while it is unavailable: for the simulation's own eyes."""
        return [self._items[key] for key in sorted(self._items) if key.startswith(prefix)]


class Report(msgspec.Struct):
    """``verdict``: valid, invalid or unknown. ``violations``: (check, what)."""

    seed: int
    verdict: str
    violations: list[tuple[str, str]]
    simulated_s: float
    operations: int
    acknowledged: int
    entries: int
    takeovers: int
    changes: int
    snapshots: int
    digests: int
    faults: dict[str, int]
    steps: int


class World:
    def __init__(self, plan: Plan, tracing: bool = False) -> None:
        self.plan = plan
        self.random = Random(plan.seed)
        self.loop = Loop()
        self.network = Network(self)
        self.cluster = Cluster()
        self.watch = Watch(self)
        run_ms = (plan.load_us + SETTLE_US + DRAIN_US) // MS
        apart_ms = 2 * plan.skew_ms + int(2 * plan.drift * run_ms)
        self.history = History(skew_ms=apart_ms, window_ms=plan.bounds.get("window_ms", 300_000))
        self.history.may_fall_short = plan.bounds.get("expire_per_entry", 1_000) < 1_000
        self.nodes = {name: NodeProcess(self, name, region) for name, region in plan.nodes.items()}
        self.managers = {name: ManagerProcess(self, name, region) for name, region in plan.managers.items()}
        self.processes: dict[str, Process] = {**self.nodes, **self.managers}
        self.node_list = list(self.nodes.values())
        self.manager_list = list(self.managers.values())
        self.names: list[str] = []
        self.working = True
        self.etcd_factor = 1.0
        self.etcd_loss = 0.0
        self.takeovers = 0
        self.trace: list[str] | None = [] if tracing else None
        self._numbers = 0
        self._creating = 0

    def number(self) -> int:
        """Another one every time."""
        self._numbers += 1
        return self._numbers

    def traced(self, source: str, target: str, messages: list[Any]) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.loop.now_us} {source} > {target} {messages!r}")

    # --- queues ----------------------------------------------------------------------------------------------------

    def creating(self) -> bool:
        return any(op.kind == "create" and op.completed_us is None for op in self.history.ops)

    def created(self, name: str, metadata: QueueMetadata | None) -> None:
        if metadata is None or any(item.queue == metadata.queue_id for item in self.history.queues):
            return
        policy = metadata.attributes.get("RedrivePolicy")
        dead_letter, max_receives = "", 0
        if policy:
            parsed = msgspec.json.decode(policy)
            target = parsed["deadLetterTargetArn"].rpartition(":")[2]
            dead_letter = next(item.queue for item in self.history.queues if item.name == target)
            max_receives = parsed["maxReceiveCount"]
        self.history.queues.append(
            QueueFacts(
                metadata.queue_id,
                name,
                name.endswith(".fifo"),
                max_receives,
                dead_letter,
                metadata.attributes.get("DelaySeconds", "0") != "0",
                1_000 * int(metadata.attributes.get("MessageRetentionPeriod", "0")),
            )
        )

    def buried(self, shard: str) -> bool:
        """Whether the shard's queue is deleted: nodes forget such shards, promises included."""
        return f"graves/{shard.partition('/')[0]}" in self.cluster._items

    def metadata(self) -> dict[str, QueueMetadata]:
        """By queue id."""
        return {
            item.key.removeprefix("meta/"): decode_record(QueueMetadata, item.key, item.value)
            for item in self.cluster.list_prefix_always("meta/")
        }

    def records(self) -> dict[str, ShardRecord]:
        return {
            item.key.removeprefix("shards/"): decode_record(ShardRecord, item.key, item.value)
            for item in self.cluster.list_prefix_always("shards/")
        }

    # --- running ---------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        with bounds(self.plan.bounds), watching(self.watch):
            try:
                self._run()
            except Exception as error:
                self.watch.violation("exception", repr(error))
                if self.trace is not None:
                    import traceback

                    self.trace.append(traceback.format_exc())
        return self._report()

    def _run(self) -> None:
        self._lease_tick()
        for process in self.processes.values():
            if self.plan.skew_ms:
                process.clock.offset_ms = self.random.randint(-self.plan.skew_ms, self.plan.skew_ms)
            process.clock.rate = 1 + self.random.uniform(-self.plan.drift, self.plan.drift)
        for node in self.node_list:
            record = NodeRecord(node=node.name, region=node.region, address=node.name, incarnation=node.incarnation)
            self.cluster.transact(Transaction([], [Put(f"nodes/{node.name}", encode_record(record))]))
        for process in self.processes.values():
            process.start()
        self.loop.run(2 * SECOND)
        creator = Client(self, "creator")
        waiting = list(self.plan.queues)

        def create_next() -> None:
            if waiting:
                creator.create(waiting.pop(0), create_next)

        create_next()
        while len(self.history.queues) < len(self.plan.queues) and self.loop.now_us < 60 * SECOND:
            self.loop.run(self.loop.now_us + 100 * MS)
        self.names = [queue["name"] for queue in self.plan.queues if not queue["name"].startswith("d")]
        self.names += [queue["name"] for queue in self.plan.queues if queue["name"].startswith("d")][:1]
        for number in range(self.plan.clients):
            Client(self, f"c{number}").start()
        faults = self.faults = Faults(self)
        self.loop.run(self.loop.now_us + self.plan.load_us)
        self.working = False
        faults.end_all()
        self._drain()

    def _drain(self) -> None:
        mended_us = self.loop.now_us
        drainers = [Drainer(self, queue["name"], mended_us + SETTLE_US) for queue in self.plan.queues]
        for drainer in drainers:
            drainer.start()
        until_us = mended_us + DRAIN_US
        calm = 0
        while self.loop.now_us < until_us and calm < 3:
            self.loop.run(self.loop.now_us + 1 * SECOND)
            now_us = self.loop.now_us
            answering = all(
                now_us - drainer.answered_us < 3 * SECOND and now_us - drainer.sent_us > 1 * SECOND
                for drainer in drainers
            )
            calm = calm + 1 if answering and not self._why_not() else 0
        self.history.drained = calm >= 3
        if not self.history.drained:
            self.watch.violation("liveness", self._why_not() or "no answers")
        for drainer in drainers:
            drainer.stop()
        for shard, record in self.records().items():
            for replica in record.replicas:
                held = self.nodes[replica.node].core.replicas.get(shard)  # type: ignore[union-attr]
                if held is not None and not held.installing:
                    self.watch.check_digest(held)

    def _why_not(self) -> str:
        """What the cluster still lacks: "" when all is well."""
        queues = self.metadata()
        for shard, record in self.records().items():
            wrong = self._wrong_set(shard, record, queues[shard.partition("/")[0]])
            if wrong:
                return wrong
            ends = {}
            for replica in record.replicas:
                node = self.nodes[replica.node]
                held = node.core.replicas.get(shard) if node.core is not None else None
                if held is None or node.incarnation != replica.incarnation:
                    return f"{shard}: no replica of {replica} on {node.name} ({node.incarnation})"
                if held.quarantined:
                    return f"{shard}: {held.quarantined}"
                ends[node.name] = held.committed.seq
                if held.machine.messages():
                    return f"{shard}: {held.machine.messages()} messages left on {node.name}"
            if len(set(ends.values())) != 1:
                return f"{shard}: replicas end at {ends}"
        return ""

    def _wrong_set(self, shard: str, record: ShardRecord, queue: QueueMetadata) -> str:
        if len(record.replicas) != 1 + queue.shadow_factor or record.learner:
            return f"{shard}: {len(record.replicas)} replicas for a factor of {queue.shadow_factor}: {record}"
        members = {replica.node for replica in record.replicas}
        for node in self.node_list:
            held = node.core.replicas.get(shard) if node.core is not None else None
            if held is not None and not held.blank and node.name not in members:
                return f"{shard}: {node.name} still holds something, and is not of the set {sorted(members)}"
        return ""

    # --- judging ---------------------------------------------------------------------------------------------------

    def _report(self) -> Report:
        violations = list(self.watch.violations)
        violations += check_all(self.history)
        if self.plan.promises_success:
            dropped = {op.queue for op in self.history.of("drop")}
            victims = self.faults.victims if hasattr(self, "faults") else []
            violations += [
                ("availability", f"{op.kind} {op.number} of {op.client} by {op.manager} {op.status} after {us / 1e6} s")
                for op in self.history.ops
                if (us := (op.completed_us or 0) - op.invoked_us) > 0
                and op.status == "unknown"
                and op.queue not in dropped
                and op.manager not in victims
            ][:5]
        faults = self.faults.happened if hasattr(self, "faults") else {}
        return Report(
            self.plan.seed,
            "invalid" if violations else "valid" if self.history.drained else "unknown",
            violations,
            self.loop.now_us / SECOND,
            len(self.history.ops),
            sum(op.status == "ok" for op in self.history.ops),
            self.watch.entries,
            sum(len({e.epoch for e in entries.values()}) for entries in self.watch.applied.values()),
            sum(record.version - 1 for record in self.records().values()),
            self.watch.snapshots,
            self.watch.digests_checked,
            dict(sorted(faults.items())),
            self.loop.steps,
        )

    def _lease_tick(self) -> None:
        self.cluster.tick(self.loop.now_us // MS)
        self.loop.later(LEASE_TICK_US, self._lease_tick)
