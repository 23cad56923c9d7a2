"""When invisible messages become visible.

Model: one bucket of messages per millisecond, and a heap of the buckets' times.
Invariant: every invisible message is in the bucket of its ``until_ms`` and in no other. The heap may name buckets that
are gone, and is rebuilt when most are: a deleted message leaves nothing behind but its share of one integer.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from shadow_nodes.core.machine.message import Message

STALE_TIMES_MAX = 64
"""The heap is rebuilt when it names more than twice as many times as there are buckets, and this many."""


class Timers:
    __slots__ = ("_times", "buckets")

    def __init__(self) -> None:
        self.buckets: dict[int, dict[int, Message]] = {}
        self._times: list[int] = []

    def add(self, message: Message) -> None:
        until_ms = message.delivery.until_ms
        bucket = self.buckets.get(until_ms)
        if bucket is not None:
            bucket[message.key] = message
            return
        self.buckets[until_ms] = {message.key: message}
        if len(self._times) > 2 * len(self.buckets) + STALE_TIMES_MAX:
            self._times = list(self.buckets)
            heapify(self._times)
        else:
            heappush(self._times, until_ms)

    def remove(self, message: Message) -> None:
        until_ms = message.delivery.until_ms
        bucket = self.buckets[until_ms]
        del bucket[message.key]
        if not bucket:
            del self.buckets[until_ms]

    def next_ms(self) -> int:
        """When the next message becomes visible; 0: none will."""
        times = self._times
        while times:
            if times[0] in self.buckets:
                return times[0]
            heappop(times)
        return 0

    def look_due(self, now_ms: int) -> tuple[list[dict[int, Message]], int]:
        """The buckets whose time has come, left where they are, and the next time after them (0: none).

        Walks the heap no further than that: there may be a bucket for every millisecond of a long time-out.
        """
        times, buckets = self._times, self.buckets
        due: dict[int, dict[int, Message]] = {}
        next_ms = 0
        places = [0]
        while places:
            place = places.pop()
            if place >= len(times) or 0 < next_ms <= times[place]:
                continue
            until_ms = times[place]
            bucket = buckets.get(until_ms)
            if bucket is not None and until_ms > now_ms:
                next_ms = until_ms
                continue
            if bucket is not None:
                due[until_ms] = bucket
            places += (2 * place + 1, 2 * place + 2)
        return list(due.values()), next_ms

    def pop_due(self, now_ms: int) -> list[Message]:
        """The messages that have become visible, which are waited for no more."""
        due: list[Message] = []
        times = self._times
        while times and times[0] <= now_ms:
            bucket = self.buckets.pop(heappop(times), None)
            if bucket is not None:
                due.extend(bucket.values())
        return due
