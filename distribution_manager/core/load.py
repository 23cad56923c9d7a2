"""How long acknowledgements take, over a sliding window.

Model: a ring of slots, each a histogram with buckets a fourth of an octave wide: a percentile is at most 19 % more than
it should be, and a slot is small. What is counted of an operation is the time from its owner's having it until its
entry was committed: the way of its client to the owner comes on top, and is placement's (placement.py) to know.
Invariant: adding costs a few operations, whatever the load.
"""

from __future__ import annotations

import math
from array import array
from collections import deque

BUCKETS_PER_OCTAVE = 4
BUCKETS = 16 * BUCKETS_PER_OCTAVE + 1
"""Up to 65 s; the last is for all that took longer."""
SLOTS = 6
"""Of a window."""
SAMPLES_MIN = 20
"""With fewer in its window, nothing is said: a percentile of a few is chance."""
PERCENTILE = 0.99


def bucket_of(latency_ms: float) -> int:
    """The bucket whose bound is the first that is not below it."""
    if latency_ms <= 1:
        return 0
    return min(BUCKETS - 1, math.ceil(BUCKETS_PER_OCTAVE * math.log2(latency_ms)))


def bound_of(bucket: int) -> float:
    return float(2 ** (bucket / BUCKETS_PER_OCTAVE))


class AckLatencies:
    """``window_ms``: what is looked at."""

    def __init__(self, window_ms: int) -> None:
        self._slot_ms = max(1, window_ms // SLOTS)
        self._slots: deque[tuple[int, array[int]]] = deque(maxlen=SLOTS + 1)
        """(number, histogram) of the slots in which there was anything."""

    def add(self, latency_ms: float, operations: int, now_ms: int) -> None:
        number = now_ms // self._slot_ms
        if not self._slots or self._slots[-1][0] != number:
            self._slots.append((number, array("L", bytes(8 * BUCKETS))))
        self._slots[-1][1][bucket_of(latency_ms)] += operations

    def p99_ms(self, now_ms: int) -> float:
        """Of the slots that are no older than the window; 0 where there is too little to say."""
        oldest = now_ms // self._slot_ms - SLOTS
        counted = [histogram for number, histogram in self._slots if number >= oldest]
        totals = [sum(column) for column in zip(*counted, strict=True)]
        left = sum(totals)
        if left < SAMPLES_MIN:
            return 0.0
        beyond = left * (1 - PERCENTILE)
        for bucket in range(BUCKETS - 1, -1, -1):
            left = totals[bucket]
            if beyond < left:
                return bound_of(bucket)
            beyond -= left
        return bound_of(0)
