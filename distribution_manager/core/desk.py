"""Receives that wait at the owner, so that an empty queue is polled without writing anything.

Model: ``summary`` is what the acting primary last said of its state; ``_under_way`` is what the entries sequenced since
then may change about it; ``estimate`` is the sum: how many messages a receive would likely find.
Invariant: a receive is answered empty only from a summary of a state no older than the receive itself.
"""

from __future__ import annotations

from collections import deque
from math import inf

from distribution_manager.core.request import Request
from shadow_nodes.protocol.commands import Command, Receive, Send, Summary


class ReceiveDesk:
    def __init__(self) -> None:
        self.summary: Summary | None = None
        self.estimate = 0
        self._parked: deque[tuple[Request, int]] = deque()
        """(request, the last sequenced seq when it came)."""
        self._under_way: deque[tuple[int, int]] = deque()
        self._next_over_ms: float = inf
        """No wait is over before this: until then, nobody need be looked at."""

    def __len__(self) -> int:
        return len(self._parked)

    def park(self, request: Request, last_seq: int) -> None:
        self._parked.append((request, last_seq))
        self._next_over_ms = min(self._next_over_ms, request.wait_until_ms)

    def sequenced(self, seq: int, commands: list[Command]) -> None:
        """An entry is under way: what it will do to the number of ready messages, roughly."""
        change = 0
        for command in commands:
            if isinstance(command, Send):
                change += len(command.messages)
            elif isinstance(command, Receive):
                change -= command.max_messages
        if change:
            self._under_way.append((seq, change))
            self.estimate += change

    def learn(self, summary: Summary) -> None:
        """A newer summary than the last takes its place."""
        if self.summary is not None and summary.seq < self.summary.seq:
            return
        self.summary = summary
        while self._under_way and self._under_way[0][0] <= summary.seq:
            self._under_way.popleft()
        self.estimate = summary.ready + sum(change for _, change in self._under_way)

    def admit(self, now_ms: int, promised: int) -> list[Request]:
        """Receives to be sequenced now: those that will likely find something.

        ``now_ms`` is the shard's time; ``promised``: what the receives that wait to be sequenced may take.
        """
        summary = self.summary
        if summary is None or not self._parked:
            return []
        if self.estimate <= 0 and 0 < summary.next_ready_ms <= now_ms and not self._under_way:
            self.estimate = 1
        admitted = []
        expected = self.estimate - promised
        while expected > 0 and self._parked:
            request, _ = self._parked.popleft()
            if request.finished:
                continue
            assert isinstance(request.command, Receive)
            expected -= request.command.max_messages
            admitted.append(request)
        return admitted

    def give_up(self, monotonic_ms: int, now_ms: int) -> list[Request]:
        """Receives whose wait is over and that the latest summary shows to have come to an empty queue."""
        summary = self.summary
        if monotonic_ms < self._next_over_ms:
            return []
        if summary is None or summary.ready > 0 or 0 < summary.next_ready_ms <= now_ms:
            return []
        over = []
        kept: deque[tuple[Request, int]] = deque()
        for request, seen_seq in self._parked:
            if request.finished:
                continue
            if monotonic_ms >= request.wait_until_ms and summary.seq >= seen_seq:
                over.append(request)
            else:
                kept.append((request, seen_seq))
        self._parked = kept
        self._next_over_ms = min((request.wait_until_ms for request, _ in kept), default=inf)
        return over

    def next_give_up_ms(self, now_ms: int) -> int | None:
        """When the next wait is over. One that is over already waits for a summary, which comes by itself."""
        if now_ms < self._next_over_ms < inf:
            return int(self._next_over_ms)
        return min((one.wait_until_ms for one, _ in self._parked if one.wait_until_ms > now_ms), default=None)

    def drop_finished(self) -> None:
        """Lets go of what waited until its deadline."""
        if any(request.finished for request, _ in self._parked):
            self._parked = deque(parked for parked in self._parked if not parked[0].finished)

    def drain(self) -> list[Request]:
        requests = [request for request, _ in self._parked]
        self._parked.clear()
        return requests
