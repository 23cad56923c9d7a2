"""Which message comes next: what standard and FIFO queues have in common.

Model: a command takes visible messages by ``pop``, says of each what became of it (``fly``, ``stay`` or
``drop_popped``), and closes with ``finish``. Every other change of a message's visibility is told as it happens.
Invariant: the order is a function of the messages and the time alone, never of how they came to be so; a machine loaded
from rows goes on exactly like one that never stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from shadow_nodes.core.machine.message import Delivery, Message
from shadow_nodes.core.machine.timers import Timers

Container = dict[int, Message] | dict[int, dict[int, Message]] | deque[Message] | list[int] | dict[str, object]
"""What a purge leaves to be emptied a little at a time."""


class Order:
    """``in_flight`` and ``delayed`` count the invisible messages."""

    __slots__ = ("delayed", "in_flight", "timers")

    def __init__(self) -> None:
        self.timers = Timers()
        self.in_flight = 0
        self.delayed = 0

    def add(self, message: Message, now_ms: int) -> None:
        """A new message, waiting or delayed."""
        raise NotImplementedError

    def restore(self, messages: Iterable[Message], now_ms: int) -> None:
        """Messages in whatever state, in the order of their keys, into an empty order."""
        raise NotImplementedError

    def pop(self, now_ms: int) -> Message | None:
        """The next visible message. It is the caller's until one of the next four methods."""
        raise NotImplementedError

    def fly(self, message: Message) -> None:
        """A popped message has been delivered: its delivery says until when it is in flight."""
        raise NotImplementedError

    def stay(self, message: Message) -> None:
        """A popped message remains visible; it is not popped again before ``finish``."""
        raise NotImplementedError

    def drop_popped(self, message: Message) -> None:
        """A popped message is held no longer."""
        raise NotImplementedError

    def leave_group(self) -> None:
        """Nothing more of the last popped message's group, please, until ``finish``."""
        raise NotImplementedError

    def finish(self, now_ms: int) -> None:
        """Ends what the first ``pop`` began."""
        raise NotImplementedError

    def remove(self, message: Message, now_ms: int) -> None:
        """A message that was not popped is held no longer."""
        raise NotImplementedError

    def redeliver(self, message: Message, delivery: Delivery, now_ms: int) -> None:
        """A message in flight stays so until another time, or becomes visible at once."""
        raise NotImplementedError

    def advance(self, now_ms: int) -> None:
        """Time has come to ``now_ms``."""
        raise NotImplementedError

    def unblock(self, group_id: str, now_ms: int) -> None:
        """The last letter of this group has been settled."""
        raise NotImplementedError

    def ready(self) -> int:
        """How many messages ``pop`` would give; on FIFO queues at least right about none."""
        raise NotImplementedError

    def containers(self) -> list[Container]:
        """Everything in it that may be large, for whoever empties it."""
        raise NotImplementedError

    def _count_invisible(self, delivery: Delivery, by: int) -> None:
        if delivery.number:
            self.in_flight += by
        else:
            self.delayed += by
