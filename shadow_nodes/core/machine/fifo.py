"""The order of a FIFO queue: groups by the key of their first message, and within a group by key.

Model: a group is *open* when its first message is visible, none of its messages is in flight and none of its letters
waits in the outbox. ``_fronts`` is a heap of the first keys of open groups.
Invariant: between commands every open group's first key is in ``_fronts``; a key there whose message is gone or not the
first of an open group means nothing. Messages in flight are a part of the group's beginning, so a group's list is only
ever consumed from its front.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import cast

import msgspec
from msgspec.structs import force_setattr

from shadow_nodes.core.machine.message import GONE, Delivery, Message
from shadow_nodes.core.machine.order import Container, Order

CONSUMED_MAX = 64
"""A group's list is shortened when more than this many, and more than half, of its places are consumed."""


class Group(msgspec.Struct, eq=False, gc=False):
    """``items[head:]``, without those that are gone: its messages, ``live`` in number, by key."""

    id: str
    items: list[Message]
    head: int = 0
    live: int = 0
    in_flight: int = 0
    open: bool = False


class FifoOrder(Order):
    """``blocked`` counts the outbox's letters by group; it is the outbox's, and outlives a purge."""

    __slots__ = ("_at", "_blocked", "_fronts", "_groups", "_messages", "_ready", "_turn", "_visited")

    def __init__(self, messages: dict[int, Message], blocked: Mapping[str, int]) -> None:
        super().__init__()
        self._messages = messages
        self._blocked = blocked
        self._groups: dict[str, Group] = {}
        self._fronts: list[int] = []
        self._ready = 0
        self._turn: Group | None = None
        self._at = 0
        self._visited: list[Group] = []

    def add(self, message: Message, now_ms: int) -> None:
        group = self._append(message, now_ms)
        if group.open:
            self._ready += 1
        elif group.live == 1:
            self._evaluate(group, now_ms)

    def restore(self, messages: Iterable[Message], now_ms: int) -> None:
        for message in messages:
            self._append(message, now_ms)
        for group in list(self._groups.values()):
            self._evaluate(group, now_ms)

    def pop(self, now_ms: int) -> Message | None:
        while True:
            group = self._turn
            if group is None:
                group = self._next_open()
                if group is None:
                    return None
                group.open = False
                self._ready -= group.live
                self._turn = group
                self._at = group.head
            items, at = group.items, self._at
            while at < len(items) and items[at].delivery is GONE:
                at += 1
            if at < len(items) and items[at].delivery.until_ms <= now_ms:
                self._at = at + 1
                return items[at]
            self.leave_group()

    def fly(self, message: Message) -> None:
        assert self._turn is not None
        self._turn.in_flight += 1
        self.in_flight += 1
        self.timers.add(message)

    def stay(self, message: Message) -> None:
        pass

    def drop_popped(self, message: Message) -> None:
        assert self._turn is not None
        self._turn.live -= 1
        message.delivery = GONE
        message.content = None

    def leave_group(self) -> None:
        if self._turn is not None:
            self._visited.append(self._turn)
            self._turn = None

    def finish(self, now_ms: int) -> None:
        self.leave_group()
        for group in self._visited:
            self._evaluate(group, now_ms)
        self._visited.clear()

    def remove(self, message: Message, now_ms: int) -> None:
        group = self._groups[message.group_id]
        delivery = message.delivery
        if delivery.until_ms > now_ms:
            self.timers.remove(message)
            self._count_invisible(delivery, -1)
            if delivery.number:
                group.in_flight -= 1
        message.delivery = GONE
        message.content = None
        group.live -= 1
        if not group.open:
            self._evaluate(group, now_ms)
            return
        self._ready -= 1
        if group.items[group.head] is message:
            self._ready -= group.live
            group.open = False
            self._evaluate(group, now_ms)

    def redeliver(self, message: Message, delivery: Delivery, now_ms: int) -> None:
        self.timers.remove(message)
        message.delivery = delivery
        if delivery.until_ms > now_ms:
            self.timers.add(message)
        else:
            self._land(message, now_ms)

    def advance(self, now_ms: int) -> None:
        for message in self.timers.pop_due(now_ms):
            if message.delivery.number:
                self._land(message, now_ms)
                continue
            self.delayed -= 1
            group = self._groups[message.group_id]
            if not group.open:
                self._evaluate(group, now_ms)

    def unblock(self, group_id: str, now_ms: int) -> None:
        group = self._groups.get(group_id)
        if group is not None and not group.open:
            self._evaluate(group, now_ms)

    def ready(self) -> int:
        return self._ready

    def containers(self) -> list[Container]:
        return [self._fronts, self.timers.buckets, cast("dict[str, object]", self._groups)]

    def _append(self, message: Message, now_ms: int) -> Group:
        group = self._groups.get(message.group_id)
        if group is None:
            group = self._groups[message.group_id] = Group(message.group_id, [message])
        else:
            message.group_id = group.id  # one string for all of a group
            if message.content is not None:
                force_setattr(message.content, "group_id", group.id)
            group.items.append(message)
        group.live += 1
        delivery = message.delivery
        if delivery.until_ms > now_ms:
            self.timers.add(message)
            self._count_invisible(delivery, 1)
            if delivery.number:
                group.in_flight += 1
        return group

    def _land(self, message: Message, now_ms: int) -> None:
        group = self._groups[message.group_id]
        assert not group.open
        self.in_flight -= 1
        group.in_flight -= 1
        self._evaluate(group, now_ms)

    def _next_open(self) -> Group | None:
        while self._fronts:
            message = self._messages.get(heappop(self._fronts))
            if message is None:
                continue
            group = self._groups[message.group_id]
            if group.open and group.items[group.head] is message:
                return group
        return None

    def _evaluate(self, group: Group, now_ms: int) -> None:
        """Forgets a closed group that is empty, opens one that may be."""
        items, head = group.items, group.head
        while head < len(items) and items[head].delivery is GONE:
            head += 1
        if head == len(items):
            del self._groups[group.id]
            return
        if head > CONSUMED_MAX and head * 2 > len(items):
            del items[:head]
            head = 0
        group.head = head
        if group.in_flight or group.id in self._blocked:
            return
        front = items[head]
        if front.delivery.until_ms <= now_ms:
            group.open = True
            self._ready += group.live
            heappush(self._fronts, front.key)
