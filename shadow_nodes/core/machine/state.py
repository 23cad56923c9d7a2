"""Everything that a shard's entries have made of it, and the few changes that several commands share.

Model: plain parts, each with an invariant of its own; see their files.
Invariant: a message is on the shelf exactly if the order knows it; every way of coming and going is below.
"""

from __future__ import annotations

from collections.abc import Callable

from shadow_nodes.core.machine.fifo import FifoOrder
from shadow_nodes.core.machine.message import FRESH, Delivery, Message
from shadow_nodes.core.machine.order import Order
from shadow_nodes.core.machine.outbox import Accepted, Outbox
from shadow_nodes.core.machine.sessions import Sessions
from shadow_nodes.core.machine.shelf import Shelf
from shadow_nodes.core.machine.standard import StandardOrder
from shadow_nodes.core.machine.window import Attempt, Duplicate, Window
from shadow_nodes.protocol.commands import NO_REPLICA_SET, Content, Letter, Settings
from shadow_nodes.protocol.limits import DEDUPLICATION_WINDOW_MS, RECEIVE_ATTEMPT_WINDOW_MS, VISIBILITY_TIMEOUT_MAX_MS

TICK_INTERVAL_MS = 60_000
"""Ended windows and idle sessions ask for no more than one Tick in this time; retention asks when it is due."""


class State:
    """``budget``: how many messages the present entry may yet expire or put into the outbox."""

    __slots__ = (
        "accepted",
        "attempts",
        "budget",
        "duplicates",
        "next_attempt",
        "now_ms",
        "order",
        "outbox",
        "replica_set",
        "sealed",
        "sessions",
        "settings",
        "shelf",
        "ticked_ms",
    )

    def __init__(self, read_content: Callable[[int], bytes] | None) -> None:
        self.now_ms = 0
        self.settings = Settings()
        self.sealed = False
        self.replica_set = NO_REPLICA_SET
        self.ticked_ms = 0
        self.budget = 0
        self.shelf = Shelf(read_content)
        self.sessions = Sessions()
        self.outbox = Outbox()
        self.accepted = Accepted()
        self.duplicates: Window[Duplicate] = Window(DEDUPLICATION_WINDOW_MS)
        self.attempts: Window[Attempt] = Window(RECEIVE_ATTEMPT_WINDOW_MS)
        self.next_attempt = 1
        self.order: Order = self.new_order()

    def new_order(self) -> Order:
        if self.settings.fifo:
            return FifoOrder(self.shelf.messages, self.outbox.blocked)
        return StandardOrder(self.shelf.messages)

    def rebuild_order(self) -> None:
        """The order as the messages make it: after loading, and if a queue should ever change its kind."""
        self.order = self.new_order()
        self.order.restore(self.shelf.messages.values(), self.now_ms)

    # --- messages

    def put(
        self, content: Content, message_id: tuple[int, int, int], sent_ms: int, source: str | None, delay_ms: int
    ) -> int:
        """Adds a message; returns its key."""
        now_ms = self.now_ms
        delivery = FRESH
        if delay_ms > 0:
            delivery = Delivery(0, 0, 0, now_ms + min(delay_ms, VISIBILITY_TIMEOUT_MAX_MS))
        message = self.shelf.put(content, message_id, sent_ms, source, delivery)
        self.order.add(message, now_ms)
        return message.key

    def drop(self, message: Message) -> None:
        """A message that was not popped goes for good."""
        self.shelf.drop(message)
        self.order.remove(message, self.now_ms)

    def drop_popped(self, message: Message) -> None:
        self.shelf.drop(message)
        self.order.drop_popped(message)

    def post_popped(self, message: Message, target: str, source: str) -> None:
        """A popped message goes into the outbox."""
        content = self.shelf.content(message)
        message_id = (message.session, message.counter, message.index)
        letter = Letter(self.outbox.next, message_id, content, message.sent_ms, target, source)
        self.drop_popped(message)
        self.outbox.put(letter, self.settings.fifo)

    def changed(self, message: Message) -> None:
        """The message's delivery is another than the store knows."""
        if message.key < self.shelf.checkpoint_key:
            self.shelf.changed.add(message.key)

    # --- time

    def next_tick_ms(self, now_ms: int) -> int:
        """When a Tick has work; 0: never, as things are."""
        retention_ms = self.shelf.expiry_ms(now_ms, self.settings.retention_ms)
        ends = [end for end in (self.duplicates.end_ms(), self.attempts.end_ms(), self.sessions.due_ms()) if end]
        if not ends:
            return retention_ms
        window_ms = max(min(ends), self.ticked_ms + TICK_INTERVAL_MS)
        return min(retention_ms, window_ms) if retention_ms else window_ms
