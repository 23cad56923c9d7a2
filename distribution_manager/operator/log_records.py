"""A logged entry as records for people and their tools: one JSON object for each operation.

Message bodies are left out unless asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from distribution_manager.operator.log_reader import LoggedEntry
from shadow_nodes.protocol import commands
from shadow_nodes.protocol.audit import Given, Outcome, Repeated, Taken
from shadow_nodes.protocol.handles import message_id

Record = dict[str, Any]
UNTOLD = commands.Caller(0, "?", "?")
"""Told by an entry that is no longer kept."""
OWN = (commands.Open, commands.Note, commands.Tick, commands.Accept, commands.Settle, commands.Move)
"""What managers do of their own accord; the rest is asked for by clients."""


def records(logged: LoggedEntry, *, fifo: bool, bodies: bool) -> Iterator[Record]:
    """``key`` is an access key id, "" for a client without one; None, like ``region``, where nobody asked (owner)."""
    entry = logged.entry
    time = datetime.fromtimestamp(entry.now_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    for index, operation in enumerate(entry.operations):
        command = operation.command
        asked = operation.caller and not isinstance(command, OWN)
        caller = logged.callers.get(operation.caller, UNTOLD) if asked else None
        record: Record = {
            "type": "operation",
            "seq": entry.seq,
            "index": index,
            "time": time,
            "time_ms": entry.now_ms,
            "epoch": entry.epoch,
            "key": None if caller is None else caller.key,
            "region": None if caller is None else caller.region,
        }
        record |= _described(command, (entry.sessions[operation.session].id, operation.counter), bodies=bodies)
        yield record | _result(record, command, logged.outcomes.get(index), fifo=fifo)


def _described(  # noqa: PLR0911 (one case per command, and nothing else)
    command: commands.Command, operation_id: tuple[int, int], *, bodies: bool
) -> Record:
    match command:
        case commands.Send():
            contents = [_content(content, bodies=bodies) for content in command.messages]
            ids = [{"id": message_id(*operation_id, place)} for place in range(len(contents))]
            return {"operation": "send", "messages": [one | more for one, more in zip(ids, contents, strict=True)]}
        case commands.Receive():
            return {"operation": "receive"} | msgspec.structs.asdict(command)
        case commands.Delete():
            handles = [{"number": key, "delivery": delivery} for key, delivery in command.handles]
            return {"operation": "delete", "messages": handles}
        case commands.ChangeVisibility():
            changes = [
                {"number": key, "delivery": delivery, "timeout_ms": timeout_ms}
                for key, delivery, timeout_ms in command.changes
            ]
            return {"operation": "change-visibility", "messages": changes}
        case commands.Purge() | commands.Seal() | commands.Tick():
            return {"operation": type(command).__name__.lower()}
        case commands.Configure():
            return {"operation": "configure", "settings": msgspec.structs.asdict(command.settings)}
        case commands.Accept():
            letters = [
                {"id": message_id(*letter.message_id), "from": letter.source} | _content(letter.content, bodies=bodies)
                for letter in command.letters
            ]
            return {"operation": "accept", "source": command.source, "messages": letters}
        case commands.Settle() | commands.Move():
            return {"operation": type(command).__name__.lower()} | msgspec.structs.asdict(command)
        case commands.Open():
            return {"operation": "takeover"} | _told(command)
        case commands.Note():
            promoted = command.primary != command.primary_before
            return {"operation": "promotion" if promoted else "replica-set"} | _told(command)


def _told(command: commands.Open | commands.Note) -> Record:
    """Without what is there for managers: the stores' incarnations."""
    return {name: value for name, value in msgspec.structs.asdict(command).items() if name != "replica_set"}


def _content(content: commands.Content, *, bodies: bool) -> Record:
    record: Record = {"bytes": len(content.body.encode("utf-8", "surrogatepass")) + len(content.attributes)}
    if content.group_id:
        record["group"] = content.group_id
    if content.deduplication_id:
        record["deduplication_id"] = content.deduplication_id
    if bodies:
        record["body"] = content.body
    return record


def _result(  # noqa: PLR0911 (one case per outcome, and nothing else)
    record: Record, command: commands.Command, outcome: Outcome | None, *, fifo: bool
) -> Record:
    match outcome:
        case None:
            told = isinstance(command, commands.Receive | commands.Move) or (
                fifo and isinstance(command, commands.Send)
            )
            return {"result": "unknown" if told else "ok"}
        case commands.Refused():
            return {"result": "refused", "reason": outcome.refusal.name}
        case Repeated():
            return {"result": "repeated"}
        case Taken():
            return {"result": "ok", "skipped": outcome.skipped}
        case commands.Moved():
            return {"result": "ok", "moved": outcome.count, "remaining": outcome.remaining}
        case Given():
            given = [
                {"id": message_id(*identity), "number": key, "delivery": delivery}
                for key, delivery, identity in outcome.messages
            ]
            return {"result": "ok", "given": given}
        case commands.Sent():
            return _of_each(record, [_sent(one, place, record) for place, one in enumerate(outcome.messages)])
        case commands.Items():
            return _of_each(record, [{} if one is None else {"refused": one.name} for one in outcome.outcomes])


def _sent(one: tuple[int, tuple[int, int, int]] | commands.Refusal, place: int, record: Record) -> Record:
    if isinstance(one, commands.Refusal):
        return {"refused": one.name}
    number, identity = one
    first = message_id(*identity)
    return {"number": number} | ({} if first == record["messages"][place]["id"] else {"duplicate_of": first})


def _of_each(record: Record, results: list[Record]) -> Record:
    refused = sum("refused" in one for one in results)
    result = "ok" if not refused else "refused" if refused == len(results) else "partly refused"
    return {"result": result, "messages": [a | b for a, b in zip(record["messages"], results, strict=True)]}
