"""Messages, transactions and states as a reader sees them: a line each, nothing that changes from run to run.

A position is ``epoch:seq``; a token is ``epoch@manager``; what is said at every heartbeat is not worth a line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distribution_manager.core.messages import Forward, Handoff, ManagerMessage, Reply
from distribution_manager.core.metadata import NodeRecord, ShardRecord, decode_record
from distribution_manager.core.transactions import Outcome, Put, Transaction
from shadow_nodes.core.store import LogEntry
from shadow_nodes.protocol.commands import (
    Batch,
    Command,
    Delete,
    Receive,
    Refused,
    Result,
    Send,
    decode_entry,
)
from shadow_nodes.protocol.messages import (
    Answered,
    AnswerState,
    Append,
    Appended,
    Applied,
    Ask,
    Confirm,
    Confirmed,
    Fence,
    Fenced,
    Fetch,
    Gap,
    Learn,
    LinkState,
    Log,
    Ping,
    Pong,
    Position,
    Sightings,
    Stale,
    Token,
    ToManager,
    ToNode,
    Welcome,
)


def position(place: Position) -> str:
    return f"{place.epoch}:{place.seq}"


def command(item: Command) -> str:
    if isinstance(item, Send):
        return f"Send({','.join(content.body for content in item.messages)})"
    if isinstance(item, Receive):
        return f"Receive({item.max_messages})"
    if isinstance(item, Delete):
        return "Delete"
    return type(item).__name__


def entry(data: bytes) -> str:
    decoded = decode_entry(data)
    inside = "+".join(command(operation.command) for operation in decoded.operations)
    return f"{decoded.epoch}:{decoded.seq} {inside}"


def result(verdict: str, value: Result | None) -> str:
    if verdict != "DONE":
        return verdict.lower()
    if isinstance(value, Batch):
        got = [f"{item.content.body} (delivery {item.delivery})" for item in value.messages]
        return ", ".join(got) or "nothing"
    if isinstance(value, Refused):
        return f"refused: {value.refusal.name}"
    return "done"


class Words:
    """Knows by which manager each attempt's random number was drawn."""

    def __init__(self) -> None:
        self._drawn: dict[int, str] = {}
        token = self.token
        self._to_node: dict[type, Callable[[Any], str | None]] = {
            Ping: lambda message: None,
            Fence: lambda message: f"Fence {token(message.token)}",
            Append: self._append,
            Ask: lambda message: f"Ask for {len(message.operations)} results",
            Confirm: lambda message: "Confirm " + ", ".join(token(one) for _, one in message.shards),
            Fetch: lambda message: f"Fetch {token(message.token)} after {message.after_seq}",
            Learn: lambda message: f"Learn {token(message.token)} from {message.source}",
        }
        self._to_manager: dict[type, Callable[[Any], str | None]] = {
            Pong: lambda message: None,
            Welcome: lambda message: f"Welcome, store {message.incarnation}",
            Sightings: self._sightings,
            Fenced: self._fenced,
            Stale: lambda message: f"Stale {token(message.token)}, promised {token(message.promised)}",
            Appended: lambda message: f"Appended {token(message.token)} up to {message.seq}",
            Gap: lambda message: f"Gap {token(message.token)}, committed {position(message.committed)}",
            Applied: lambda message: (
                f"Applied up to {message.seq}, {len(message.results)} results, {message.summary.ready} ready"
            ),
            Answered: self._answered,
            Confirmed: lambda message: "Confirmed" + (", but not this shard" if message.refused else ""),
            Log: self._log,
        }

    def attempt(self, manager: str, number: int) -> int:
        self._drawn[number] = manager
        return number

    def token(self, token: Token) -> str:
        return f"{token.epoch}@{self._drawn.get(token.attempt, '?')}" if token.attempt else f"{token.epoch}@nobody"

    # --- between managers and nodes: None is not worth a line

    def to_node(self, message: ToNode) -> str | None:
        say = self._to_node.get(type(message))
        return type(message).__name__ if say is None else say(message)

    def to_manager(self, message: ToManager) -> str | None:
        say = self._to_manager.get(type(message))
        return type(message).__name__ if say is None else say(message)

    def _append(self, message: Append) -> str:
        entries = ", ".join(entry(data) for data in message.entries)
        body = f" [{entries}]" if entries else ""
        return (
            f"Append {self.token(message.token)} after {position(message.previous)}{body} commit {message.commit_seq}"
        )

    def _fenced(self, message: Fenced) -> str:
        return (
            f"Fenced {self.token(message.token)} store {message.incarnation} "
            f"last {position(message.last)} committed {position(message.committed)}"
            f"{' retired' if message.retired else ''}"
        )

    @staticmethod
    def _sightings(message: Sightings) -> str | None:
        seen = [f"{item.manager} {item.state.name}" for item in message.sightings if item.state != LinkState.UP]
        return f"sees {', '.join(seen)}" if seen else None

    @staticmethod
    def _answered(message: Answered) -> str:
        known = sum(state is AnswerState.DONE for _, _, state, _ in message.answers)
        return f"Answered {known} of {len(message.answers)} as of {message.summary.seq}"

    @staticmethod
    def _log(message: Log) -> str:
        if not message.available:
            return f"Log does not reach back to {message.after_seq}"
        return f"Log after {message.after_seq} [{', '.join(entry(data) for data in message.entries)}]"

    def pulled(self, entries: list[LogEntry]) -> str:
        return f"Pulled [{', '.join(entry(item.data) for item in entries)}]"

    # --- between managers

    def between(self, message: ManagerMessage) -> str:
        match message:
            case Forward():
                inside = "the counts" if message.command is None else command(message.command)
                return f"Forward {inside}" + (", repeated" if message.repeated else "")
            case Reply():
                said = result(message.verdict.name, message.result)
                where = f": epoch {message.epoch} is {message.owner.manager}'s" if message.owner is not None else ""
                return f"Reply {said}{where}"
            case Handoff():
                return f"Handoff of epoch {message.epoch}"
            case _:
                return type(message).__name__

    # --- with etcd

    def transaction(self, transaction: Transaction) -> str | None:
        records = [change for change in transaction.changes if isinstance(change, Put)]
        if _is_routine(transaction):
            return None
        if not records:
            return "read the record"
        return " ".join(self._put(change, transaction) for change in records)

    def _put(self, change: Put, transaction: Transaction) -> str:
        condition = ", ".join(f"revision {item.mod_revision}" for item in transaction.compares)
        if change.key.startswith("shards/"):
            return f"if {condition}: {self.record(decode_record(ShardRecord, change.key, change.value))}"
        if change.key.startswith("nodes/"):
            return f"node {decode_record(NodeRecord, change.key, change.value).node}"
        return change.key

    def outcome(self, transaction: Transaction, outcome: Outcome) -> str | None:
        if _is_routine(transaction):
            return None
        found = [
            f"revision {item.mod_revision}: {self.record(decode_record(ShardRecord, item.key, item.value))}"
            for item in outcome.found.values()
            if item.key.startswith("shards/")
        ]
        if transaction.changes and outcome.succeeded:
            return f"done, revision {outcome.revision}"
        said = found[0] if found else "no such record"
        return f"refused, {said}" if transaction.changes else said

    def record(self, record: ShardRecord) -> str:
        owner = record.owner.manager if record.owner is not None else "nobody"
        members = " ".join(replica.incarnation for replica in record.replicas)
        return f"epoch {record.epoch} {owner}, primary {record.primary}, set {members} (version {record.version})"


def _is_routine(transaction: Transaction) -> bool:
    """What managers publish every while."""
    return any(isinstance(change, Put) and change.key.startswith("latency/") for change in transaction.changes)


def log_line(entries: list[LogEntry], committed_seq: int) -> str:
    """A replica's log; what it knows to be committed comes before the bar."""
    parts: list[Any] = []
    for item in entries:
        if item.seq == committed_seq + 1:
            parts.append("|")
        parts.append(entry(item.data))
    return "  ".join(parts) or "empty"
