"""Who asked for the operations of an epoch's entries, told in few bytes.

Model: every distinct caller has a number; an entry with an operation of a caller tells what the number means, unless
one of the CALLERS_REPEATED_ENTRIES - 1 entries before it, of the same epoch, has.
Invariant: within that many entries of an epoch a number means one caller.
"""

from __future__ import annotations

from shadow_nodes.protocol.commands import Caller
from shadow_nodes.protocol.limits import CALLERS_REPEATED_ENTRIES

CALLERS_MAX = 1_000
"""Callers remembered per shard; beyond, all are told anew, under new numbers."""


class Callers:
    def __init__(self) -> None:
        self._numbers = 0
        self._told: dict[tuple[str, str], tuple[int, int]] = {}
        """Number, and the seq of the entry that told it last, by access key id and region."""
        self._untold: list[Caller] = []

    def number(self, key: str, region: str, seq: int) -> int:
        """Of the caller of an operation of the entry at ``seq``."""
        told = self._told.get((key, region))
        if told is not None and seq - told[1] < CALLERS_REPEATED_ENTRIES:
            return told[0]
        if told is not None:
            number = told[0]
        else:
            if len(self._told) >= CALLERS_MAX:
                self._told.clear()
            self._numbers += 1
            number = self._numbers
        self._told[key, region] = (number, seq)
        self._untold.append(Caller(number, key, region))
        return number

    def take(self) -> list[Caller]:
        """What the entry has to tell."""
        untold, self._untold = self._untold, []
        return untold
