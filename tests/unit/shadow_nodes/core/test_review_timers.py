"""What a summary costs on a queue with many messages in flight: it is made with every commit."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from shadow_nodes.core.machine.message import Delivery, Message
from shadow_nodes.core.machine.timers import Timers


def message(key: int, until_ms: int) -> Message:
    return Message(key, None, 1, key, 0, 0, "", None, Delivery(1, 0, 0, until_ms))


def test_what_is_due_is_what_every_bucket_says() -> None:
    chance = random.Random(7)
    timers = Timers()
    held: dict[int, Message] = {}
    for key in range(1, 3_000):
        held[key] = message(key, chance.randrange(1, 400))
        timers.add(held[key])
        if chance.random() < 0.6:
            timers.remove(held.pop(chance.choice(list(held))))
        if key % 20 == 0:
            now_ms = chance.randrange(0, 420)
            buckets, next_ms = timers.look_due(now_ms)
            found = sorted(key for bucket in buckets for key in bucket)
            assert found == sorted(key for key, one in held.items() if one.delivery.until_ms <= now_ms)
            later = [one.delivery.until_ms for one in held.values() if one.delivery.until_ms > now_ms]
            assert next_ms == min(later, default=0)


def test_buckets_that_are_not_due_are_not_looked_at() -> None:
    class Counted(dict[int, Any]):
        looks = 0

        def get(self, key: int, default: Any = None) -> Any:
            Counted.looks += 1
            return super().get(key, default)

        def items(self) -> Any:
            raise AssertionError("all of them")

    timers = Timers()
    for key in range(1, 10_001):
        timers.add(message(key, key))
    timers.buckets = Counted(timers.buckets)
    assert isinstance(timers.buckets, Mapping)
    assert sorted(key for bucket in timers.look_due(3)[0] for key in bucket) == [1, 2, 3]
    assert timers.look_due(3)[1] == 4
    assert Counted.looks < 100
