"""Messages that come in: sends and accepted letters."""

from __future__ import annotations

import hashlib

from shadow_nodes.core.machine.message import FRESH, Delivery
from shadow_nodes.core.machine.state import State
from shadow_nodes.core.machine.window import Duplicate
from shadow_nodes.protocol.commands import Accept, Content, Refusal, Send, Sent
from shadow_nodes.protocol.limits import VISIBILITY_TIMEOUT_MAX_MS

SWEPT_PER_SEND_MAX = 20
"""Ended deduplication records forgotten by each FIFO send: more than a send can add."""


def send(state: State, command: Send, session: int, counter: int) -> Sent | None:
    """A message's own delay counts on standard queues only. A changed queue delay concerns later messages only, on both
    kinds (on FIFO queues SQS applies it to waiting messages too)."""
    if state.settings.fifo:
        return _send_fifo(state, command, session, counter)
    shelf, order, now_ms = state.shelf, state.order, state.now_ms
    queue_delay_ms = state.settings.delay_ms
    for index, content in enumerate(command.messages):
        delay_ms = queue_delay_ms if content.delay_ms is None else content.delay_ms
        delivery = FRESH
        if delay_ms > 0:
            delivery = Delivery(0, 0, 0, now_ms + min(delay_ms, VISIBILITY_TIMEOUT_MAX_MS))
        order.add(shelf.put(content, (session, counter, index), now_ms, None, delivery), now_ms)
    return None


def _send_fifo(state: State, command: Send, session: int, counter: int) -> Sent:
    now_ms, settings = state.now_ms, state.settings
    state.duplicates.sweep(now_ms, SWEPT_PER_SEND_MAX)
    outcomes: list[tuple[int, tuple[int, int, int]] | Refusal] = []
    for index, content in enumerate(command.messages):
        if not content.group_id:
            outcomes.append(Refusal.GROUP_ID_MISSING)
            continue
        name = content.deduplication_id
        if not name and settings.content_based_deduplication:
            name = hashlib.sha256(content.body.encode("utf-8", "surrogatepass")).hexdigest()
        if not name:
            outcomes.append(Refusal.DEDUPLICATION_ID_MISSING)
            continue
        name = _scoped(content, name, settings.deduplication_scope_group)
        duplicate = state.duplicates.get(name, now_ms)
        if duplicate is not None:
            outcomes.append((duplicate.number, (duplicate.session, duplicate.counter, duplicate.index)))
            continue
        message_id = (session, counter, index)
        key = state.put(content, message_id, now_ms, None, settings.delay_ms)
        state.duplicates.put(Duplicate(key, name, now_ms, session, counter, index))
        outcomes.append((key, message_id))
    return Sent(outcomes)


def _scoped(content: Content, name: str, per_group: bool) -> str:
    """The name within its scope. The length keeps apart what would read the same when joined; no SQS id has a NUL."""
    return f"\0{len(content.group_id)}:{content.group_id}{name}" if per_group else name


def accept(state: State, command: Accept) -> int:
    """Takes letters over, with new keys but their own ids and times; without delay, without looking for duplicates.

    Numbers rise, with gaps: an outbox serves several targets. What is not above the last number taken was taken before;
    returns how many letters that were.
    """
    last = before = state.accepted.last.get(command.source, 0)
    skipped = 0
    for letter in command.letters:
        if letter.number > last:
            state.put(letter.content, letter.message_id, letter.sent_ms, letter.source, 0)
            last = letter.number
        else:
            skipped += 1
    if last > before:
        state.accepted.take(command.source, last)
    return skipped
