"""What the machine's tests share: a shard that is fed commands, and a store that keeps rows in a dict."""

from __future__ import annotations

from typing import Any

from shadow_nodes.core.machine import Kind, Machine
from shadow_nodes.core.store import Row, RowChanges
from shadow_nodes.protocol.commands import (
    Command,
    Configure,
    Content,
    Entry,
    Operation,
    Result,
    Send,
    Session,
    Settings,
    decode_entry,
    encode,
)
from shadow_nodes.protocol.messages import LOG_START, Position

START_MS = 1_700_000_000_000


class RowStore:
    """Rows in a dict. With ``lazy``, range drops are remembered, and carried out only by ``sweep``."""

    def __init__(self, lazy: bool = False) -> None:
        self.rows: dict[tuple[int, int], bytes] = {}
        self.position: Position = LOG_START
        self.lazy = lazy
        self.pending: list[tuple[int, int]] = []
        self.written = 0

    def write(self, position: Position, changes: RowChanges) -> None:
        self.position = position
        self.pending += changes.drop
        if not self.lazy:
            self.sweep()
        for key in changes.deletes:
            self.rows.pop(key, None)
        for kind, number, value in changes.puts:
            self.rows[(int(kind), number)] = value
        self.written += len(changes.puts) + len(changes.deletes)

    def sweep(self) -> None:
        for kind, below in self.pending:
            for row in [row for row in self.rows if row[0] == kind and row[1] < below]:
                del self.rows[row]
        self.pending.clear()

    def read_content(self, key: int) -> bytes:
        return self.rows[(Kind.CONTENT, key)]

    def sorted_rows(self) -> list[Row]:
        return [(kind, key, value) for (kind, key), value in sorted(self.rows.items())]

    def load(self) -> Machine:
        return Machine.load(self.position, self.sorted_rows(), self.read_content)


class Shard:
    """Feeds commands to a machine, each call an entry of its own, each command an operation of one session."""

    def __init__(self, store: RowStore | None = None, **settings: Any) -> None:
        self.store = store or RowStore()
        self.machine = Machine(self.store.read_content)
        self.now = START_MS
        self.counter = 0
        self.session = 7
        self.do(Configure(Settings(version=1, **settings)))

    def entry(self, operations: list[Operation], sessions: list[Session]) -> Entry:
        applied = self.machine.applied
        entry = Entry(max(applied.epoch, 1), applied.seq + 1, self.now, sessions, operations)
        return decode_entry(encode(entry))

    def do_all(self, *commands: Command) -> list[Result | None]:
        operations = [Operation(0, self.counter + place, command) for place, command in enumerate(commands, 1)]
        self.counter += len(commands)
        return self.machine.apply(self.entry(operations, [Session(self.session, 0)]))

    def do(self, command: Command) -> Any:
        return self.do_all(command)[0]

    def at(self, counter: int, command: Command, mark: int = 0, session: int = 7) -> Any:
        """One operation under an id of the test's choice."""
        entry = self.entry([Operation(0, counter, command)], [Session(session, mark)])
        return self.machine.apply(entry)[0]

    def send(self, *bodies: str, **content: Any) -> Any:
        return self.do(Send([Content(body, **content) for body in bodies]))

    def summary(self) -> Any:
        return self.machine.summary(self.now)

    def checkpoint(self) -> RowChanges:
        changes = self.machine.take_changes()
        self.store.write(self.machine.applied, changes)
        return changes

    def restart(self) -> None:
        """Checkpoint, and a machine loaded from it; it must be equal."""
        before = self.machine.digest()
        self.checkpoint()
        self.machine = self.store.load()
        assert self.machine.digest() == before


def bodies(batch: Any) -> list[str]:
    return [message.content.body for message in batch.messages]


def handles(batch: Any) -> list[tuple[int, int]]:
    return [(message.key, message.delivery) for message in batch.messages]
