"""A day on links of 300 ms that lose one segment in a hundred: not one promotion that need not be.

The cores of managers and nodes as in production, on virtual time that skips what is idle. To make a day a matter of
seconds, heartbeats come every thirty seconds (cores forgive a late one).
"""

from __future__ import annotations

import math
from random import Random

from distribution_manager.core.messages import Verdict
from distribution_manager.core.promotion import PromotionConfig
from distribution_manager.core.thresholds import Signal, Thresholds
from shadow_nodes.protocol.commands import Content, Send
from shadow_nodes.protocol.messages import Load
from tests.unit.distribution_manager.core.promotion_world import MANAGERS, PromotionWorld
from tests.unit.distribution_manager.core.review_world import SHARD, Node

ONE_WAY_MS = 150
RETRANSMISSION_MS = 500
LOSS = 0.01
DAY_MS = 24 * 3_600_000
STEP_MS = 30_000
MESSAGE_RATE_MAX = 0.8
PEAK_RATE, LOW_RATE = 0.7, 0.45
ACK_LATENCY_MS = 1_500
CONFIG = PromotionConfig(Thresholds(MESSAGE_RATE_MAX, ACK_LATENCY_MS, cpu=0.85, disk_free=0.1))


class LossyWorld(PromotionWorld):
    heartbeat_ms = STEP_MS

    def __init__(self) -> None:
        self.random = Random(1)
        self._arrived_ms: dict[tuple[str, str], int] = {}
        super().__init__(CONFIG, ONE_WAY_MS)

    def _delay(self, manager: object, node: str) -> int:
        """Nothing overtakes on a connection; a lost segment holds up what follows."""
        name = str(getattr(manager, "name", ""))
        delay_ms = self.delays.get((name, node), 1)
        if delay_ms > 1:
            delay_ms += int(self.random.expovariate(1 / 5))
            delay_ms += RETRANSMISSION_MS if self.random.random() < LOSS else 0
        arrives_ms = max(self.ms + delay_ms, self._arrived_ms.get((name, node), 0))
        self._arrived_ms[name, node] = arrives_ms
        return arrives_ms - self.ms


def wobble(node: Node, random: Random) -> None:
    """The primary's node is rather busy, the others are not: only the threshold keeps it where it is."""
    cpu = 0.6 + random.gauss(0, 0.08) if node.name == "a" else 0.1
    node.core.load = Load(cpu=min(1.0, max(0.0, cpu)), disk_free=0.4)


def test_a_day_without_a_false_promotion() -> None:
    world = LossyWorld()
    random = Random(2)
    done: list[int] = []
    most = dict.fromkeys(Signal, 0.0)
    owed = 0.0
    core = world.managers["m1"].core
    for step in range(DAY_MS // STEP_MS):
        for node in world.nodes.values():
            wobble(node, random)
        share = 0.5 - 0.5 * math.cos(2 * math.pi * step * STEP_MS / DAY_MS)
        owed += (LOW_RATE + (PEAK_RATE - LOW_RATE) * share) * STEP_MS / 1_000
        while owed >= 1:
            owed -= 1
            region = random.choices("abc", (45, 50, 5))[0]
            world.answers.append(world.submit(Send([Content("x")]), manager=MANAGERS[region]))
        world.run(STEP_MS)
        for reading in core.promoter.readings(SHARD):
            most[reading.signal] = max(most[reading.signal], reading.value)
        done += [1 for answer in world.answers if answer and answer[0][0] is Verdict.DONE]
        world.answers = [answer for answer in world.answers if not answer]
    assert world.promotions == []
    assert world.moves == []
    assert world.owner == "m1"
    assert len(done) + len(world.answers) > DAY_MS / 1_000 * LOW_RATE
    assert most[Signal.MESSAGE_RATE] > 0.6, "the load has come near its threshold"
    assert most[Signal.ACK_LATENCY] > 2 * ONE_WAY_MS + RETRANSMISSION_MS / 2, "losses were seen"
