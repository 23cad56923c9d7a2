"""Who uses a shard: how many operations and messages, and from which regions its clients come.

Model: a shard's owner counts every operation that it is given, in slots of SLOT_MS. A slot that has ended moves into a
sliding window, for the rates, and into the regions' weights, which halve every WEIGHT_HALF_LIFE_MS.
Invariant: counting costs a comparison and two additions; memory is RATE_SLOTS_MAX pairs and a weight per region.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec

SLOT_MS = 1_000
RATE_SLOTS_MAX = 60
"""The longest window that rates can be asked for, in slots."""
RATE_SLOTS_DEFAULT = 10
WEIGHT_HALF_LIFE_MS = 300_000
"""What a region's clients did counts half as much after this: a region that fell silent is soon outweighed."""
WEIGHT_MIN = 0.01
"""A region with less weight is forgotten."""
_DECAY = 0.5 ** (SLOT_MS / WEIGHT_HALF_LIFE_MS)


class Rates(msgspec.Struct, frozen=True):
    """Per second, over ``observed_ms``, which is shorter than the window asked for while the owner is new."""

    operations: float = 0.0
    messages: float = 0.0
    observed_ms: int = 0


class Demand:
    """Of one shard, as its owner sees it. Times are monotonic milliseconds."""

    __slots__ = ("_counts", "_ended", "_messages", "_messages_before", "_operations_before", "_until_ms", "_weights")

    def __init__(self, now_ms: int) -> None:
        self._operations_before = 0
        self._messages_before = 0
        """Both in the slots that have ended."""
        self._until_ms = now_ms + SLOT_MS
        self._counts: dict[str, int] = {}
        """Operations of the slot that runs, by the region that they came in at."""
        self._messages = 0
        self._weights: dict[str, float] = {}
        self._ended: deque[tuple[int, int]] = deque(maxlen=RATE_SLOTS_MAX)
        """(operations, messages) of each slot that has ended, the newest last."""

    def count(self, region: str, messages: int, now_ms: int) -> None:
        """An operation of a client of ``region``, which sends that many messages."""
        if now_ms >= self._until_ms:
            self._roll(now_ms)
        self._counts[region] = self._counts.get(region, 0) + 1
        self._messages += messages

    @property
    def operations_total(self) -> int:
        """Since the owner began."""
        return self._operations_before + sum(self._counts.values())

    @property
    def messages_total(self) -> int:
        """Sent, since the owner began."""
        return self._messages_before + self._messages

    def inherit(self, weights: Mapping[str, float]) -> None:
        """Goes on from the weights that the owner before has told."""
        for region, weight in weights.items():
            self._weights[region] = self._weights.get(region, 0.0) + weight

    def rates(self, now_ms: int, slots: int = RATE_SLOTS_DEFAULT) -> Rates:
        """Over the newest ``slots`` that have ended; zeros before the first has."""
        self._roll(now_ms)
        looked_at = list(self._ended)[-slots:]
        if not looked_at:
            return Rates()
        seconds = len(looked_at) * SLOT_MS / 1000
        operations, messages = (sum(column) for column in zip(*looked_at, strict=True))
        return Rates(operations / seconds, messages / seconds, len(looked_at) * SLOT_MS)

    def weights(self, now_ms: int) -> dict[str, float]:
        """How much the clients of each region use the shard: operations, older ones counting less. For placements()."""
        self._roll(now_ms)
        return {
            region: self._weights.get(region, 0.0) + self._counts.get(region, 0)
            for region in sorted({*self._weights, *self._counts})
        }

    def _roll(self, now_ms: int) -> None:
        """Ends the slots whose time is over; all at once where nothing was counted for long."""
        late_ms = now_ms - self._until_ms
        if late_ms < 0:
            return
        slots = late_ms // SLOT_MS + 1
        operations = sum(self._counts.values())
        self._operations_before += operations
        self._messages_before += self._messages
        self._ended.append((operations, self._messages))
        self._ended.extend((0, 0) for _ in range(min(slots - 1, RATE_SLOTS_MAX)))
        decay = _DECAY**slots
        weights = {
            region: (self._weights.get(region, 0.0) + self._counts.get(region, 0)) * decay
            for region in {*self._weights, *self._counts}
        }
        self._weights = {region: weight for region, weight in weights.items() if weight >= WEIGHT_MIN}
        self._counts.clear()
        self._messages = 0
        self._until_ms += slots * SLOT_MS
