"""From state to rows and back.

Model: ``take_changes`` gives what turns the rows of the last checkpoint into those of this moment; ``load`` makes a
state of rows that goes on exactly like the one that wrote them.
Invariant: rows that should have gone but are still there change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from shadow_nodes.core.machine.outbox import Outbox
from shadow_nodes.core.machine.rows import (
    ROWS_VERSION,
    AcceptedRow,
    HeaderRow,
    KeptBatch,
    KeptReceived,
    KeptResult,
    Kind,
    SessionRow,
    decode_accepted,
    decode_header,
    decode_message,
    decode_session,
    encode,
    message_from,
    message_row,
)
from shadow_nodes.core.machine.sessions import SessionState
from shadow_nodes.core.machine.state import State
from shadow_nodes.core.machine.window import Attempt, Duplicate
from shadow_nodes.core.store import Row, RowChanges
from shadow_nodes.protocol.commands import Batch, Letter, Received, Result
from shadow_nodes.protocol.limits import MIB

LOAD_CONTENTS_BYTES_MAX = 64 * MIB
"""Loading keeps contents in memory up to this; the rest is read from their rows when received."""

_decode_letter = msgspec.msgpack.Decoder(Letter).decode
_decode_duplicate = msgspec.msgpack.Decoder(Duplicate).decode
_decode_attempt = msgspec.msgpack.Decoder(Attempt).decode


# --- to rows -------------------------------------------------------------------------------------------------------


def changed_rows(state: State) -> int:
    return (
        state.shelf.changed_rows()
        + state.sessions.changed_rows()
        + state.outbox.changed_rows()
        + state.duplicates.changed_rows()
        + state.attempts.changed_rows()
        + len(state.accepted.changed)
    )


def take_changes(state: State) -> RowChanges:
    changes = RowChanges([(Kind.HEADER, 0, encode(_header(state)))], [], [])
    _take_sessions(state, changes)
    _take_messages(state, changes)
    _take_letters(state, changes)
    _take_windows(state, changes)
    return changes


def _header(state: State) -> HeaderRow:
    return HeaderRow(
        ROWS_VERSION,
        state.now_ms,
        state.ticked_ms,
        state.settings,
        state.sealed,
        state.shelf.next_key,
        state.shelf.purged_below,
        state.outbox.first,
        state.outbox.next,
        state.next_attempt,
        state.sessions.next_number,
        state.replica_set,
    )


def _take_messages(state: State, changes: RowChanges) -> None:
    shelf, puts, deletes = state.shelf, changes.puts, changes.deletes
    if shelf.purged_below != shelf.purged_checkpoint:
        changes.drop.append((Kind.MESSAGE, shelf.purged_below))
        changes.drop.append((Kind.CONTENT, shelf.purged_below))
    for key in shelf.deleted:
        deletes.append((Kind.MESSAGE, key))
        deletes.append((Kind.CONTENT, key))
    for key in sorted(shelf.changed):
        puts.append((Kind.MESSAGE, key, encode(message_row(shelf.messages[key]))))
    arrivals = shelf.arrivals()
    for message in arrivals:
        puts.append((Kind.MESSAGE, message.key, encode(message_row(message))))
        puts.append((Kind.CONTENT, message.key, encode(message.content)))
    shelf.checkpointed(arrivals)


def _take_letters(state: State, changes: RowChanges) -> None:
    letters, first = state.outbox.checkpoint()
    changes.puts.extend([(Kind.LETTER, letter.number, encode(letter)) for letter in letters])
    if first:
        changes.drop.append((Kind.LETTER, first))
    accepted = state.accepted
    for source in sorted(accepted.changed):
        row = AcceptedRow(source, accepted.last[source])
        changes.puts.append((Kind.ACCEPTED, accepted.numbers[source], encode(row)))
    accepted.changed.clear()


def _take_windows(state: State, changes: RowChanges) -> None:
    duplicates, first_key = state.duplicates.checkpoint(state.shelf.next_key)
    attempts, first_attempt = state.attempts.checkpoint(state.next_attempt)
    changes.puts.extend([(Kind.DUPLICATE, one.number, encode(one)) for one in duplicates])
    changes.puts.extend([(Kind.ATTEMPT, one.number, encode(one)) for one in attempts])
    if first_key:
        changes.drop.append((Kind.DUPLICATE, first_key))
    if first_attempt:
        changes.drop.append((Kind.ATTEMPT, first_attempt))


def _take_sessions(state: State, changes: RowChanges) -> None:
    """A session with results is written anew even if unchanged: a message they mention may have gone since."""
    sessions = state.sessions
    changes.deletes.extend([(Kind.SESSION, number) for number in sessions.deleted])
    sessions.deleted.clear()
    for session in sessions.by_id.values():
        if session.changed or session.results:
            session.changed = False
            results = [(counter, _keep(state, result)) for counter, result in session.kept()]
            row = SessionRow(session.id, session.mark, session.last_ms, results)
            changes.puts.append((Kind.SESSION, session.number, encode(row)))
    sessions.changed = 0


def _keep(state: State, result: Result | None) -> KeptResult | None:
    if not isinstance(result, Batch):
        return result
    held = state.shelf.messages
    return KeptBatch(
        [
            KeptReceived(one.key, one.delivery, one.first_received_ms, None if one.key in held else one)
            for one in result.messages
        ]
    )


# --- and back ------------------------------------------------------------------------------------------------------


def load(rows: Iterable[Row], read_content: Callable[[int], bytes] | None) -> State:
    """Raises msgspec.MsgspecError on rows that are none."""
    state = State(read_content)
    for kind, key, value in rows:
        _load_row(state, kind, key, value)
    state.rebuild_order()
    return state


def _load_row(state: State, kind: int, key: int, value: bytes) -> None:
    shelf = state.shelf
    if kind == Kind.CONTENT:
        shelf.load_content(key, value, LOAD_CONTENTS_BYTES_MAX)
    elif kind == Kind.MESSAGE:
        if key >= shelf.purged_below:
            shelf.load(message_from(key, decode_message(value)))
    elif kind == Kind.DUPLICATE:
        state.duplicates.load(_decode_duplicate(value), state.now_ms)
    elif kind == Kind.ATTEMPT:
        state.attempts.load(_decode_attempt(value), state.now_ms)
    elif kind == Kind.LETTER:
        if key >= state.outbox.first:
            state.outbox.next = key
            state.outbox.put(_decode_letter(value), state.settings.fifo)
            state.outbox.checkpoint_next = state.outbox.next
    elif kind == Kind.SESSION:
        _load_session(state, key, decode_session(value))
    elif kind == Kind.ACCEPTED:
        row = decode_accepted(value)
        state.accepted.last[row.source] = row.last
        state.accepted.numbers[row.source] = key
    else:
        assert kind == Kind.HEADER, f"no such kind of row: {kind}"
        _load_header(state, decode_header(value))


def _load_header(state: State, row: HeaderRow) -> None:
    assert row.version == ROWS_VERSION, f"rows of version {row.version}"
    state.now_ms = row.now_ms
    state.ticked_ms = row.ticked_ms
    state.settings = row.settings
    state.sealed = row.sealed
    state.replica_set = row.replica_set
    state.next_attempt = row.next_attempt
    state.sessions.next_number = row.next_session
    shelf = state.shelf
    shelf.next_key = shelf.checkpoint_key = row.next_key
    shelf.purged_below = shelf.purged_checkpoint = row.purged_below
    state.outbox = Outbox(row.outbox_first)
    state.outbox.next = state.outbox.checkpoint_next = row.outbox_next


def _load_session(state: State, number: int, row: SessionRow) -> None:
    session = SessionState(row.id, number)
    session.mark = row.mark
    session.last_ms = row.last_ms
    for counter, result in row.results:
        session.keep(counter, _unkeep(state, result))
    state.sessions.load(session)


def _unkeep(state: State, result: KeptResult | None) -> Result | None:
    if not isinstance(result, KeptBatch):
        return result
    return Batch([one.whole or _received(state, one) for one in result.messages])


def _received(state: State, one: KeptReceived) -> Received:
    message = state.shelf.messages[one.key]
    return Received(
        one.key,
        one.delivery,
        (message.session, message.counter, message.index),
        state.shelf.content(message),
        message.sent_ms,
        one.delivery,
        one.first_received_ms,
        message.source or "",
    )
