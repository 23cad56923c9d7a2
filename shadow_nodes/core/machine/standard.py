"""The order of a standard queue: the smallest key first, whether it comes for the first time or again.

Model: ``_arrived`` holds messages in the order of their keys, ``_returned`` is a heap of the keys that became visible
later.
Invariant: every visible message is in exactly one of the two; what is there besides is gone and skipped when met.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from heapq import heappop, heappush

from shadow_nodes.core.machine.message import FRESH, GONE, Delivery, Message
from shadow_nodes.core.machine.order import Container, Order


class StandardOrder(Order):
    __slots__ = ("_arrived", "_messages", "_returned", "_staying")

    def __init__(self, messages: dict[int, Message]) -> None:
        super().__init__()
        self._messages = messages
        self._arrived: deque[Message] = deque()
        self._returned: list[int] = []
        self._staying: list[int] = []

    def add(self, message: Message, now_ms: int) -> None:
        if message.delivery is FRESH or message.delivery.until_ms <= now_ms:
            self._arrived.append(message)
        else:
            self._count_invisible(message.delivery, 1)
            self.timers.add(message)

    def restore(self, messages: Iterable[Message], now_ms: int) -> None:
        for message in messages:
            self.add(message, now_ms)

    def pop(self, now_ms: int) -> Message | None:
        arrived, returned = self._arrived, self._returned
        while True:
            message: Message | None
            if returned and (not arrived or returned[0] < arrived[0].key):
                message = self._messages.get(heappop(returned))
                if message is not None:
                    return message
            elif arrived:
                message = arrived.popleft()
                if message.delivery is not GONE:
                    return message
            else:
                return None

    def fly(self, message: Message) -> None:
        self.in_flight += 1
        self.timers.add(message)

    def stay(self, message: Message) -> None:
        self._staying.append(message.key)

    def drop_popped(self, message: Message) -> None:
        pass

    def leave_group(self) -> None:
        pass

    def finish(self, now_ms: int) -> None:
        if self._staying:
            for key in self._staying:
                heappush(self._returned, key)
            self._staying.clear()

    def remove(self, message: Message, now_ms: int) -> None:
        delivery = message.delivery
        if delivery.until_ms > now_ms:
            self._count_invisible(delivery, -1)
            self.timers.remove(message)
        else:
            message.delivery = GONE
            message.content = None

    def redeliver(self, message: Message, delivery: Delivery, now_ms: int) -> None:
        self.timers.remove(message)
        message.delivery = delivery
        if delivery.until_ms > now_ms:
            self.timers.add(message)
        else:
            self.in_flight -= 1
            heappush(self._returned, message.key)

    def advance(self, now_ms: int) -> None:
        for message in self.timers.pop_due(now_ms):
            self._count_invisible(message.delivery, -1)
            heappush(self._returned, message.key)

    def unblock(self, group_id: str, now_ms: int) -> None:
        pass

    def ready(self) -> int:
        return len(self._messages) - self.in_flight - self.delayed

    def containers(self) -> list[Container]:
        return [self._arrived, self._returned, self.timers.buckets]
