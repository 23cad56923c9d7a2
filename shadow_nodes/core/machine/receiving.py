"""Messages that go out: receives and move tasks.

Both take visible messages in order. Expired ones are dropped when met, and those delivered too often become letters to
the dead-letter queue; an entry does at most EXPIRE_PER_ENTRY_MAX of either, so a receive may find less than there is.
"""

from __future__ import annotations

from shadow_nodes.core.machine.message import Delivery, Message
from shadow_nodes.core.machine.state import State
from shadow_nodes.core.machine.window import Attempt
from shadow_nodes.protocol.commands import Batch, Move, Moved, Receive, Received, Refusal, Refused
from shadow_nodes.protocol.limits import (
    IN_FLIGHT_MAX_FIFO,
    IN_FLIGHT_MAX_STANDARD,
    RECEIVE_MESSAGES_MAX,
    VISIBILITY_TIMEOUT_MAX_MS,
)

SWEPT_PER_RECEIVE_MAX = 2
"""Ended attempts forgotten by each receive with an attempt id: more than it can add."""


def receive(state: State, command: Receive) -> Batch | Refused:
    """At the limit of messages in flight a standard queue refuses, a FIFO queue gives none, as SQS does."""
    settings, now_ms = state.settings, state.now_ms
    timeout_ms = command.visibility_timeout_ms
    if timeout_ms is None:
        timeout_ms = settings.visibility_timeout_ms
    until_ms = now_ms + min(max(timeout_ms, 0), VISIBILITY_TIMEOUT_MAX_MS)
    if not settings.fifo:
        room = IN_FLIGHT_MAX_STANDARD - state.order.in_flight
        if room <= 0:
            return Refused(Refusal.OVER_LIMIT)
        return Batch(_take(state, min(command.max_messages, RECEIVE_MESSAGES_MAX, room), until_ms))
    if command.attempt_id:
        repeated = _repeat(state, command.attempt_id, until_ms)
        if repeated is not None:
            return Batch(repeated)
    room = IN_FLIGHT_MAX_FIFO - state.order.in_flight
    taken = _take(state, min(command.max_messages, RECEIVE_MESSAGES_MAX, room), until_ms)
    if command.attempt_id and taken and until_ms > now_ms:
        handles = [(one.key, one.delivery) for one in taken]
        state.attempts.put(Attempt(state.next_attempt, command.attempt_id, now_ms, until_ms, handles))
        state.next_attempt += 1
    return Batch(taken)


def _take(state: State, wanted: int, until_ms: int) -> list[Received]:
    order, shelf, settings, now_ms = state.order, state.shelf, state.settings, state.now_ms
    horizon_ms = now_ms - settings.retention_ms
    deliveries_max = settings.max_receive_count if settings.dead_letter_queue else 0
    in_flight = until_ms > now_ms
    first = Delivery(1, now_ms, now_ms, until_ms)
    taken: list[Received] = []
    while len(taken) < wanted:
        message = order.pop(now_ms)
        if message is None:
            break
        delivery = message.delivery
        number = delivery.number
        if message.sent_ms <= horizon_ms or 0 < deliveries_max <= number:
            if not state.budget:
                order.stay(message)
                break
            state.budget -= 1
            if message.sent_ms <= horizon_ms:
                state.drop_popped(message)
            else:
                state.post_popped(message, settings.dead_letter_queue, "")
                order.leave_group()
            continue
        message.delivery = delivery = Delivery(number + 1, delivery.first_ms, now_ms, until_ms) if number else first
        if in_flight:
            order.fly(message)
        else:
            order.stay(message)
        if message.key < shelf.checkpoint_key:
            shelf.changed.add(message.key)
        content = message.content
        if content is None:
            content = shelf.content(message)
        taken.append(
            Received(
                message.key,
                number + 1,
                (message.session, message.counter, message.index),
                content,
                message.sent_ms,
                number + 1,
                delivery.first_ms,
                message.source or "",
            )
        )
    order.finish(now_ms)
    return taken


def received(state: State, message: Message) -> Received:
    """A message as its latest receive gave it."""
    delivery = message.delivery
    return Received(
        message.key,
        delivery.number,
        (message.session, message.counter, message.index),
        state.shelf.content(message),
        message.sent_ms,
        delivery.number,
        delivery.first_ms,
        message.source or "",
    )


def _repeat(state: State, attempt_id: str, until_ms: int) -> list[Received] | None:
    """The messages of an earlier attempt, if nothing has happened to any of them since; their time begins anew.

    It never ends earlier for that: a repeat with a shorter time-out may be executed after a longer one was answered.
    """
    now_ms = state.now_ms
    state.attempts.sweep(now_ms, SWEPT_PER_RECEIVE_MAX)
    attempt = state.attempts.get(attempt_id, now_ms)
    if attempt is None or attempt.until_ms <= now_ms:
        return None
    messages: list[Message] = []
    for key, number in attempt.handles:
        message = state.shelf.messages.get(key)
        if message is None or message.delivery.number != number or message.delivery.until_ms != attempt.until_ms:
            return None
        if message.sent_ms + state.settings.retention_ms <= now_ms:
            return None
        messages.append(message)
    until_ms = max(until_ms, attempt.until_ms)
    for message in messages:
        delivery = message.delivery
        state.order.redeliver(message, Delivery(delivery.number, delivery.first_ms, now_ms, until_ms), now_ms)
        state.changed(message)
    attempt.until_ms = until_ms
    state.attempts.change(attempt)
    return [received(state, message) for message in messages]


def move(state: State, command: Move) -> Moved:
    """Puts visible messages into the outbox, at most as many as the entry may.

    Without a target a message goes back to where it was dead-lettered from; one that came otherwise stays, and on a
    FIFO queue keeps back those behind it. When nothing was moved though messages remain, none can be until letters are
    settled or messages in flight return; if there are neither, the rest is without a source.
    """
    order, now_ms = state.order, state.now_ms
    horizon_ms = now_ms - state.settings.retention_ms
    count = 0
    exhausted = False
    while count < command.max_messages and state.budget:
        message = order.pop(now_ms)
        if message is None:
            exhausted = True
            break
        state.budget -= 1
        target = command.target or message.source
        if message.sent_ms <= horizon_ms:
            state.drop_popped(message)
        elif target:
            state.post_popped(message, target, message.source or "")
            count += 1
        else:
            order.stay(message)
            order.leave_group()
    order.finish(now_ms)
    if exhausted and not (state.settings.fifo and (state.outbox.blocked or order.in_flight)):
        return Moved(count, 0)
    return Moved(count, len(state.shelf.messages) - order.in_flight - order.delayed)
