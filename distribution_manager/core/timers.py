"""What is to happen later: a shard's owner is to be woken, or an action done.

Model: a heap of (time, number, target); a shard has at most one alarm that counts, its earliest.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

from shadow_nodes.protocol.commands import ShardKey

Target = ShardKey | Callable[[], None]


class Timers:
    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Target]] = []
        self._alarms: dict[ShardKey, int] = {}
        self._number = 0

    def wake(self, shard: ShardKey, at_ms: int) -> None:
        """A later time than the one that is set changes nothing: whoever is woken early asks again."""
        known = self._alarms.get(shard)
        if known is None or at_ms < known:
            self._alarms[shard] = at_ms
            self.at(at_ms, shard)

    def at(self, at_ms: int, target: Target) -> None:
        self._number += 1
        heapq.heappush(self._heap, (at_ms, self._number, target))

    def forget(self, shard: ShardKey) -> None:
        self._alarms.pop(shard, None)

    def next_ms(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def take_due(self, now_ms: int) -> list[Target]:
        """What is due, in order. What that asks for in turn is due at the next call, at the earliest."""
        due: list[Target] = []
        while self._heap and self._heap[0][0] <= now_ms:
            due_ms, _, target = heapq.heappop(self._heap)
            if isinstance(target, str):
                if self._alarms.get(target) != due_ms:
                    continue
                del self._alarms[target]
            due.append(target)
        return due
