"""One number for a whole state, to compare replicas by.

Invariant: equal exactly if the logical states are: what is merely kept for speed, not yet swept or not in memory has no
part in it, nor has the order in which anything came to be.
"""

from __future__ import annotations

import hashlib

from shadow_nodes.core.machine.rows import encode, message_row
from shadow_nodes.core.machine.state import State
from shadow_nodes.protocol.messages import Position


def digest(state: State, applied: Position) -> str:
    """Reads every content: not for a hot path."""
    total = hashlib.sha256()

    def add(part: object) -> None:
        data = encode(part)
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)

    shelf, outbox, now_ms = state.shelf, state.outbox, state.now_ms
    add((applied, now_ms, state.settings, state.sealed, shelf.next_key, outbox.first, outbox.next, state.ticked_ms))
    add(state.replica_set)
    add(len(shelf.messages))
    for message in shelf.messages.values():
        add((message.key, message_row(message)))
        add(shelf.content(message))
    add(list(outbox.letters))
    add(sorted(state.accepted.last.items()))
    add(state.next_attempt)
    add(state.duplicates.current(now_ms))
    add(state.attempts.current(now_ms))
    for session in sorted(state.sessions.by_id.values(), key=lambda one: one.id):
        add((session.id, session.mark, session.last_ms, session.kept()))
    return total.hexdigest()
