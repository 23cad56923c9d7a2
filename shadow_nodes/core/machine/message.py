"""A message and where it stands.

Model: a message's state is its ``Delivery`` and the time: invisible before ``until_ms`` (delayed when it was never
delivered, in flight otherwise), visible from then on. Nothing else says so, hence nothing can contradict it.
Invariant: a ``Delivery`` never changes; messages received together share one, and so do all that wait.
"""

from __future__ import annotations

import msgspec

from shadow_nodes.protocol.commands import Content


class Delivery(msgspec.Struct, frozen=True, eq=False, gc=False):
    """``number``: how often the message was delivered, which is also the receive count.

    ``first_ms``, ``last_ms``: the first and the latest receive. ``until_ms``: invisible before this.
    """

    number: int
    first_ms: int
    last_ms: int
    until_ms: int


FRESH = Delivery(0, 0, 0, 0)
"""Of a message that waits for its first receive."""
GONE = Delivery(-1, 0, 0, 0)
"""Of a message that is held no longer, where an index still mentions it."""


class Message(msgspec.Struct, eq=False, gc=False):
    """Not tracked by the collector: there must never be a cycle through a message.

    ``session``, ``counter``, ``index``: what the message id is made of. ``content`` None: released, its row has it.
    ``source`` None: sent here; otherwise accepted from another shard: the name of the queue it was dead-lettered from,
    or "".
    """

    key: int
    content: Content | None
    session: int
    counter: int
    index: int
    sent_ms: int
    group_id: str
    source: str | None
    delivery: Delivery


def content_bytes(content: Content) -> int:
    """What a content counts for against the bound on contents in memory."""
    return len(content.body) + len(content.attributes)
