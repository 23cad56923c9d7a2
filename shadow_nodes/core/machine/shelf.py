"""The messages of a queue, which of them the store knows, and how long they are kept.

Model: messages by key in the order of their keys; keys are given out from 1 and never again.
Invariant: the store's rows are those of the last checkpoint: it has seen every message below ``checkpoint_key``, but
for those in ``changed`` and ``deleted`` as they are now; it has seen none from there on. So a message that came and
went between two checkpoints is nowhere mentioned.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

import msgspec

from shadow_nodes.core.machine.message import Delivery, Message, content_bytes
from shadow_nodes.core.machine.order import Container
from shadow_nodes.protocol.commands import Content

_KEY_BITS = 64
_KEY_MASK = (1 << _KEY_BITS) - 1
SHARED_SENDERS_MAX = 1_000
"""Sender ids kept to be shared between messages."""
BURIED_PER_ENTRY_MAX = 2_000
"""What a purge dropped is freed at most this many objects at a time."""
STALE_MAX = 1_000
"""An index that names more than twice what there is, and this many, is rebuilt."""

decode_content = msgspec.msgpack.Decoder(Content).decode


class Shelf:
    __slots__ = (
        "_accepted",
        "_graves",
        "_oldest_sent_ms",
        "_read_content",
        "_resident",
        "_senders",
        "arrived",
        "changed",
        "checkpoint_key",
        "contents_bytes",
        "deleted",
        "messages",
        "next_key",
        "purged_below",
        "purged_checkpoint",
    )

    def __init__(self, read_content: Callable[[int], bytes] | None) -> None:
        self._read_content = read_content
        self.messages: dict[int, Message] = {}
        self.next_key = 1
        self.purged_below = 1
        """Messages with a smaller key were dropped by a purge."""
        self.purged_checkpoint = 1
        """``purged_below`` as the store knows it."""
        self.contents_bytes = 0
        self.checkpoint_key = 1
        self.arrived = 0
        """How many messages have a key from ``checkpoint_key`` on."""
        self.changed: set[int] = set()
        self.deleted: list[int] = []
        self._accepted: list[int] = []
        """Heap of (sent_ms, key) in one integer: accepted messages are older than their keys say."""
        self._oldest_sent_ms = 0
        """Not later than the first message's."""
        self._resident: list[int] = []
        """Keys of checkpointed messages with their contents in memory, rising; some are gone or released."""
        self._senders: dict[str, str] = {}
        self._graves: list[Any] = []

    # --- coming and going

    def put(
        self, content: Content, message_id: tuple[int, int, int], sent_ms: int, source: str | None, delivery: Delivery
    ) -> Message:
        """A new message, with the next key."""
        session, counter, index = message_id
        key = self.next_key
        self.next_key = key + 1
        if content.sender_id:
            self._share_sender(content)
        message = Message(key, content, session, counter, index, sent_ms, content.group_id, source, delivery)
        if not self.messages:
            self._oldest_sent_ms = sent_ms
        self.messages[key] = message
        self.arrived += 1
        self.contents_bytes += len(content.body) + len(content.attributes)
        if source is not None:
            heappush(self._accepted, sent_ms << _KEY_BITS | key)
        return message

    def drop(self, message: Message) -> None:
        key = message.key
        del self.messages[key]
        if key < self.checkpoint_key:
            self.changed.discard(key)
            self.deleted.append(key)
        else:
            self.arrived -= 1
        content = message.content
        if content is not None:
            self.contents_bytes -= len(content.body) + len(content.attributes)

    def content(self, message: Message) -> Content:
        """The message's content, from its row if it was released."""
        if message.content is not None:
            return message.content
        assert self._read_content is not None, "contents were released without a way to read them"
        return decode_content(self._read_content(message.key))

    def purge(self, containers: list[Container]) -> None:
        """Drops every message; what it held, and ``containers``, are freed by and by."""
        self._graves += [*containers, self._resident, self._accepted, self.messages]
        self.messages = {}
        self._resident = []
        self._accepted = []
        self.changed.clear()
        self.deleted.clear()
        self.arrived = 0
        self.contents_bytes = 0
        self.purged_below = self.next_key

    def bury(self) -> None:
        """Frees some of what purges left."""
        budget = BURIED_PER_ENTRY_MAX
        graves = self._graves
        while graves and budget:
            grave = graves[0]
            some = min(budget, len(grave))
            take = grave.popitem if isinstance(grave, dict) else grave.pop
            for _ in range(some):
                take()
            budget -= some
            if not grave:
                del graves[0]

    def buried(self) -> bool:
        return not self._graves

    def _share_sender(self, content: Content) -> None:
        """Every decoded entry has strings of its own; the few senders' need be kept only once."""
        sender_id = content.sender_id
        shared = self._senders.get(sender_id)
        if shared is None:
            if len(self._senders) >= SHARED_SENDERS_MAX:
                self._senders.clear()
            self._senders[sender_id] = sender_id
        elif shared is not sender_id:
            msgspec.structs.force_setattr(content, "sender_id", shared)

    # --- retention

    def expiry_ms(self, now_ms: int, retention_ms: int) -> int:
        """When the retention of a message may end, 0 if there is none. Never too late, and exact once it has come."""
        if not self.messages:
            return 0
        oldest_ms = self._oldest_sent_ms
        if oldest_ms + retention_ms <= now_ms:
            oldest_ms = self._oldest_sent_ms = next(iter(self.messages.values())).sent_ms
        accepted = self._accepted
        while accepted and accepted[0] & _KEY_MASK not in self.messages:
            heappop(accepted)
        if accepted:
            oldest_ms = min(oldest_ms, accepted[0] >> _KEY_BITS)
        return oldest_ms + retention_ms

    def expired_accepted(self, horizon_ms: int) -> Message | None:
        """An accepted message sent at or before ``horizon_ms``; the caller drops it."""
        accepted = self._accepted
        while accepted and accepted[0] >> _KEY_BITS <= horizon_ms:
            message = self.messages.get(heappop(accepted) & _KEY_MASK)
            if message is not None:
                return message
        return None

    def expired(self, horizon_ms: int, limit: int) -> list[Message]:
        """The first messages that were sent at or before ``horizon_ms``.

        A message is sent no earlier than all before it, so the first that may stay ends the search.
        """
        found: list[Message] = []
        for message in self.messages.values():
            if len(found) >= limit or message.sent_ms > horizon_ms:
                break
            found.append(message)
        return found

    # --- checkpoints

    def changed_rows(self) -> int:
        purged = self.purged_below != self.purged_checkpoint
        return 2 * self.arrived + len(self.changed) + 2 * len(self.deleted) + purged

    def arrivals(self) -> list[Message]:
        """The messages that the store has never seen, by key."""
        found: list[Message] = []
        for message in reversed(self.messages.values()):
            if message.key < self.checkpoint_key:
                break
            found.append(message)
        found.reverse()
        return found

    def checkpointed(self, arrivals: list[Message]) -> None:
        """The store gets to know everything."""
        self._resident.extend([message.key for message in arrivals])
        if len(self._resident) > 2 * len(self.messages) + STALE_MAX:
            self._resident = [key for key in self._resident if key in self.messages]
        if len(self._accepted) > 2 * len(self.messages) + STALE_MAX:
            self._accepted = [one for one in self._accepted if one & _KEY_MASK in self.messages]
            heapify(self._accepted)
        self.checkpoint_key = self.next_key
        self.purged_checkpoint = self.purged_below
        self.arrived = 0
        self.changed.clear()
        self.deleted.clear()

    def release(self, bytes_max: int) -> int:
        """Forgets contents that the store has, those needed last first. Returns how many bytes remain."""
        resident = self._resident
        while self.contents_bytes > bytes_max and resident:
            message = self.messages.get(resident.pop())
            if message is not None and message.content is not None:
                self.contents_bytes -= content_bytes(message.content)
                message.content = None
        return self.contents_bytes

    def load(self, message: Message) -> None:
        """A message from the store, without its content; in the order of the keys."""
        if not self.messages:
            self._oldest_sent_ms = message.sent_ms
        self.messages[message.key] = message
        if message.source is not None:
            heappush(self._accepted, message.sent_ms << _KEY_BITS | message.key)

    def load_content(self, key: int, data: bytes, bytes_max: int) -> None:
        """A content from the store; kept in memory while there are less than ``bytes_max`` of them."""
        message = self.messages.get(key)
        if message is None or (self._read_content is not None and self.contents_bytes >= bytes_max):
            return
        content = message.content = decode_content(data)
        if content.sender_id:
            self._share_sender(content)
        self.contents_bytes += content_bytes(content)
        self._resident.append(key)
