"""Names remembered for five minutes: deduplication ids, and the attempt ids of receives.

Model: records in the order of their numbers, which is the order of their times, and by name the latest of each name.
Invariant: whether a name is remembered depends on the record's time and the clock alone, not on when ended records are
swept out; so neither sweeping nor leftover rows can be noticed.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import msgspec


class Record(msgspec.Struct, array_like=True, eq=False, gc=False):
    """``number`` rises from record to record; ``began_ms`` never falls."""

    number: int
    name: str
    began_ms: int


class Duplicate(Record, array_like=True, eq=False, gc=False):
    """A send whose repetitions add nothing. ``number`` is the message's key."""

    session: int
    counter: int
    index: int


class Attempt(Record, array_like=True, eq=False, gc=False):
    """A receive that may be repeated. ``handles``: (key, delivery), in flight until ``until_ms`` if untouched."""

    until_ms: int
    handles: list[tuple[int, int]]


R = TypeVar("R", bound=Record)


class Window(Generic[R]):
    __slots__ = ("_by_name", "_changed", "_checkpoint_first", "_records", "length_ms")

    def __init__(self, length_ms: int) -> None:
        self.length_ms = length_ms
        self._records: deque[R] = deque()
        self._by_name: dict[str, R] = {}
        self._changed: dict[int, R] = {}
        self._checkpoint_first = 0

    def get(self, name: str, now_ms: int) -> R | None:
        record = self._by_name.get(name)
        if record is None or record.began_ms + self.length_ms <= now_ms:
            return None
        return record

    def put(self, record: R) -> None:
        self._records.append(record)
        self._by_name[record.name] = record
        self._changed[record.number] = record

    def change(self, record: R) -> None:
        """A record was changed in place."""
        self._changed[record.number] = record

    def sweep(self, now_ms: int, limit: int) -> None:
        """Forgets at most ``limit`` records that have ended."""
        records = self._records
        for _ in range(min(limit, len(records))):
            if records[0].began_ms + self.length_ms > now_ms:
                break
            record = records.popleft()
            self._changed.pop(record.number, None)
            if self._by_name[record.name] is record:
                del self._by_name[record.name]

    def end_ms(self) -> int:
        """When the first record ends; 0: there is none."""
        return self._records[0].began_ms + self.length_ms if self._records else 0

    def current(self, now_ms: int) -> list[R]:
        """What is remembered, by number."""
        return [r for r in self._records if r.began_ms + self.length_ms > now_ms and self._by_name[r.name] is r]

    def changed_rows(self) -> int:
        return len(self._changed)

    def checkpoint(self, next_number: int) -> tuple[list[R], int]:
        """The records to write, and the number below which rows may go (0: as before)."""
        changed = list(self._changed.values())
        self._changed.clear()
        first = self._records[0].number if self._records else next_number
        if first == self._checkpoint_first:
            return changed, 0
        self._checkpoint_first = first
        return changed, first

    def load(self, record: R, now_ms: int) -> None:
        """A record from the store, in the order of the numbers; one that has ended is a leftover."""
        if record.began_ms + self.length_ms > now_ms:
            self._records.append(record)
            self._by_name[record.name] = record
