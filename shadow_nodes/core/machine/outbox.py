"""Letters on their way to other shards, and what was taken over from them.

Model: letters have consecutive numbers and wait until the target has committed them. Per source shard, the last number
taken.
Invariant: a letter is either waiting or settled, and every number in between is waiting: nothing is lost or repeated.
``blocked`` counts the waiting letters of each group of a FIFO queue, which stays closed until they are settled.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

from shadow_nodes.protocol.commands import Letter, ShardKey


class Outbox:
    __slots__ = ("blocked", "checkpoint_first", "checkpoint_next", "first", "letters", "next")

    def __init__(self, first: int = 1) -> None:
        self.letters: deque[Letter] = deque()
        self.first = first
        self.next = first
        self.checkpoint_first = first
        self.checkpoint_next = first
        """The store has the letters below this number."""
        self.blocked: dict[str, int] = {}

    def put(self, letter: Letter, fifo: bool) -> None:
        assert letter.number == self.next
        self.next += 1
        self.letters.append(letter)
        if fifo:
            group_id = letter.content.group_id
            self.blocked[group_id] = self.blocked.get(group_id, 0) + 1

    def settle(self, through: int) -> list[str]:
        """Drops the letters up to ``through``; returns the groups that are blocked no more."""
        unblocked: list[str] = []
        while self.letters and self.first <= through:
            letter = self.letters.popleft()
            self.first += 1
            group_id = letter.content.group_id
            count = self.blocked.get(group_id, 0)
            if count > 1:
                self.blocked[group_id] = count - 1
            elif count:
                del self.blocked[group_id]
                unblocked.append(group_id)
        return unblocked

    def after(self, number: int, limit: int) -> list[Letter]:
        start = max(number + 1 - self.first, 0)
        return list(islice(self.letters, start, start + max(limit, 0)))

    def changed_rows(self) -> int:
        return self.next - max(self.checkpoint_next, self.first) + (self.first != self.checkpoint_first)

    def checkpoint(self) -> tuple[list[Letter], int]:
        """The letters to write, and the number below which rows may go (0: as before)."""
        written = self.after(self.checkpoint_next - 1, len(self.letters))
        self.checkpoint_next = self.next
        drop = self.first if self.first != self.checkpoint_first else 0
        self.checkpoint_first = self.first
        return written, drop


class Accepted:
    """Per source shard the number of the last letter taken from it."""

    __slots__ = ("changed", "last", "numbers")

    def __init__(self) -> None:
        self.last: dict[ShardKey, int] = {}
        self.numbers: dict[ShardKey, int] = {}
        """Each source's row."""
        self.changed: set[ShardKey] = set()

    def take(self, source: ShardKey, number: int) -> None:
        if source not in self.numbers:
            self.numbers[source] = len(self.numbers) + 1
        self.last[source] = number
        self.changed.add(source)
