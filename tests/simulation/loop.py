"""Virtual time: a heap of what is to happen, and nothing else.

Invariant: what happens at the same time happens in the order in which it was asked for; so a run is a function of its
seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

MS = 1_000
SECOND = 1_000_000


class Loop:
    """Times are virtual microseconds since the beginning."""

    def __init__(self) -> None:
        self.now_us = 0
        self.steps = 0
        self._heap: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        self._number = 0

    def later(self, delay_us: float, action: Callable[..., Any], *args: Any) -> None:
        self._number += 1
        heappush(self._heap, (self.now_us + max(0, int(delay_us)), self._number, action, args))

    def run(self, until_us: int) -> None:
        """Everything that is to happen up to a time; what it brings about, too."""
        heap = self._heap
        while heap and heap[0][0] <= until_us:
            self.now_us, _, action, args = heappop(heap)
            self.steps += 1
            action(*args)
        self.now_us = max(self.now_us, until_us)
