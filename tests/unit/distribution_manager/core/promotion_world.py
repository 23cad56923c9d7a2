"""Three regions 40 ms apart, a manager in each, and clients whose load is a function of time."""

from __future__ import annotations

import math
from collections.abc import Callable

import msgspec

from distribution_manager.core.messages import Verdict
from distribution_manager.core.metadata import ShardRecord, encode_record, meta_key
from distribution_manager.core.promotion import PromotionConfig
from distribution_manager.core.thresholds import Pace, Thresholds
from distribution_manager.core.transactions import Put, Transaction
from shadow_nodes.protocol.commands import Content, Send
from shadow_nodes.protocol.messages import Load
from tests.unit.distribution_manager.core.review_world import Answer, World

MANAGERS = {"a": "m1", "b": "m2", "c": "m3"}
ONE_WAY_MS = 20
QUICK = PromotionConfig(
    defaults=Thresholds(message_rate=50),
    pace=Pace(window_ms=2_000, after_ms=3_000, horizon_ms=20_000),
    cooldown_ms=20_000,
    failback_after_ms=5_000,
)
BATCH = 10
"""Messages of a send: a rate is reached with a tenth as many calls."""


class PromotionWorld(World):
    """``promotions``: (when, from, to, cause) of every change of the primary; ``moves``: what was said of moves."""

    def __init__(self, config: PromotionConfig = QUICK, one_way_ms: int = ONE_WAY_MS, **attributes: str) -> None:
        delays = {
            (manager, peer): one_way_ms
            for region, manager in MANAGERS.items()
            for other in "abc"
            if other != region
            for peer in (other, MANAGERS[other])
        }
        super().__init__(managers=3, delays=delays, promotion=config)
        self.answers: list[list[Answer]] = []
        self.promotions: list[tuple[int, str, str, str]] = []
        self.moves: list[tuple[str, str, str]] = []
        self.etcd.listeners.append(self._look)
        self._primary = "a"
        for manager in self.managers.values():
            manager.core.promoter.relocations.on_move = lambda event, move: self.moves.append(
                (event, move.node, move.why)
            )
        self.run(500)
        if attributes:
            self.change_queue(**attributes)
        self.ask(Send([Content("x")]))

    def change_queue(self, **attributes: str) -> None:
        self.queue = msgspec.structs.replace(
            self.queue, attributes={**self.queue.attributes, **attributes}, version=self.queue.version + 1
        )
        self.put(meta_key(self.queue.queue_id), encode_record(self.queue))

    def put(self, key: str, value: bytes) -> None:
        self.etcd.transact(Transaction([], [Put(key, value)]))
        self.run(10)

    @property
    def record(self) -> ShardRecord:
        return msgspec.json.decode(self.etcd.list_prefix("shards/").items[0].value, type=ShardRecord)

    @property
    def owner(self) -> str:
        return self.record.owner.manager if self.record.owner else ""

    def _look(self) -> None:
        for item in self.etcd.list_prefix("shards/").items:
            record = msgspec.json.decode(item.value, type=ShardRecord)
            if record.primary != self._primary:
                self.promotions.append((self.ms, self._primary, record.primary, record.promoted_for))
                self._primary = record.primary

    def load_node(self, node: str, cpu: float = 0.0, disk_free: float = 0.9) -> None:
        self.nodes[node].core.load = Load(cpu=cpu, disk_free=disk_free)

    def drive(self, region: str, duration_ms: int, rate: Callable[[int], float]) -> None:
        """Clients of a region send ``rate(milliseconds since now)`` messages a second."""
        began_ms, owed = self.ms, 0.0
        while (passed_ms := self.ms - began_ms) < duration_ms:
            owed += rate(passed_ms) * 0.1
            for _ in range(math.floor(owed / BATCH)):
                owed -= BATCH
                self.answers.append(self.submit(Send([Content("x")] * BATCH), manager=MANAGERS[region]))
            self.run(100)

    def failed(self) -> int:
        """Operations that were not done, once all have been answered."""
        self.run(3_000)
        return sum(1 for answer in self.answers if len(answer) != 1 or answer[0][0] is not Verdict.DONE)

    def permits(self) -> list[str]:
        return [item.key for item in self.etcd.list_prefix("promotions/").items]
