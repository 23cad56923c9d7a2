"""What is done by receipt handle: deletes and changes of visibility.

A handle is a key and a delivery number, and may be any two integers: nothing is believed of it that the message does
not say.
"""

from __future__ import annotations

from shadow_nodes.core.machine.message import Delivery
from shadow_nodes.core.machine.state import State
from shadow_nodes.protocol.commands import ChangeVisibility, Delete, Items, Refusal
from shadow_nodes.protocol.limits import VISIBILITY_TIMEOUT_MAX_MS


def delete(state: State, command: Delete) -> Items | None:
    """A standard queue takes any handle given out for the message, a FIFO queue only that of a message in flight.

    What is gone already is deleted. A handle that was never given out deletes nothing: HANDLE_EXPIRED.
    """
    shelf, order, now_ms, fifo = state.shelf, state.order, state.now_ms, state.settings.fifo
    refused = False
    outcomes: list[Refusal | None] = []
    for key, number in command.handles:
        message = shelf.messages.get(key)
        outcome: Refusal | None = None
        if message is not None:
            delivery = message.delivery
            current = number == delivery.number and delivery.until_ms > now_ms
            if 1 <= number <= delivery.number and (current or not fifo):
                shelf.drop(message)
                order.remove(message, now_ms)
            else:
                outcome = Refusal.HANDLE_EXPIRED
                refused = True
        outcomes.append(outcome)
    return Items(outcomes) if refused else None


def change_visibility(state: State, command: ChangeVisibility) -> Items | None:
    """0 makes a message visible at once. No message stays invisible for more than 12 hours from its receive."""
    outcomes = [_change_one(state, key, number, timeout_ms) for key, number, timeout_ms in command.changes]
    return Items(outcomes) if any(outcome is not None for outcome in outcomes) else None


def _change_one(state: State, key: int, number: int, timeout_ms: int) -> Refusal | None:
    now_ms = state.now_ms
    message = state.shelf.messages.get(key)
    if message is None or number < 1 or message.delivery.number != number:
        return Refusal.HANDLE_EXPIRED
    delivery = message.delivery
    if delivery.until_ms <= now_ms:
        return Refusal.NOT_IN_FLIGHT
    until_ms = now_ms + max(timeout_ms, 0)
    if until_ms - delivery.last_ms > VISIBILITY_TIMEOUT_MAX_MS:
        return Refusal.VISIBILITY_TOO_LONG
    state.order.redeliver(message, Delivery(number, delivery.first_ms, delivery.last_ms, until_ms), now_ms)
    state.changed(message)
    return None
