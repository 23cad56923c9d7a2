"""What concerns the queue as a whole: settings, purge, settled letters, and what time alone asks for."""

from __future__ import annotations

from shadow_nodes.core.machine.state import State
from shadow_nodes.protocol.commands import Configure, Settle
from shadow_nodes.protocol.limits import EXPIRE_PER_ENTRY_MAX


def configure(state: State, command: Configure) -> None:
    """Retention and the dead-letter limit concern the messages that are there; delays and time-outs only later ones."""
    settings = command.settings
    if settings.version <= state.settings.version:
        return
    changes_kind = settings.fifo != state.settings.fifo
    state.settings = settings
    if changes_kind:
        state.rebuild_order()


def purge(state: State) -> None:
    """Swaps a generation: the messages are gone at once, their memory by and by. Letters and duplicates stay known."""
    containers = state.order.containers()
    state.shelf.purge(containers)
    state.order = state.new_order()


def settle(state: State, command: Settle) -> None:
    for group_id in state.outbox.settle(command.through):
        state.order.unblock(group_id, state.now_ms)


def tick(state: State) -> None:
    """Drops expired messages, in flight or not; then sweeps windows and sessions.

    Sweeping must not use up the entry's budget: a machine loaded from rows has less to sweep than one that never
    stopped, and would drop more messages.
    """
    shelf, now_ms = state.shelf, state.now_ms
    horizon_ms = now_ms - state.settings.retention_ms
    while state.budget:
        message = shelf.expired_accepted(horizon_ms)
        if message is None:
            break
        state.budget -= 1
        state.drop(message)
    for message in shelf.expired(horizon_ms, state.budget):
        state.budget -= 1
        state.drop(message)
    state.duplicates.sweep(now_ms, EXPIRE_PER_ENTRY_MAX)
    state.attempts.sweep(now_ms, EXPIRE_PER_ENTRY_MAX)
    state.sessions.end_idle(now_ms)
    state.ticked_ms = now_ms
