"""The queue state machine: entries in, results out.

Model: ``apply`` alone changes the state, by the entry alone; there is no clock, no randomness and no I/O besides
reading back contents that were released from memory.
Invariant: machines that have applied the same entries are equal, whether or not they were loaded from rows in between.
A command checks first, then mutates; what is not possible asserts, and the caller quarantines the shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shadow_nodes.core.machine import checkpoint, handling, receiving, sending, upkeep
from shadow_nodes.core.machine.digest import digest
from shadow_nodes.core.machine.sessions import SessionState
from shadow_nodes.core.machine.state import State
from shadow_nodes.core.store import Row, RowChanges
from shadow_nodes.protocol.audit import Outcome, Repeated, Taken
from shadow_nodes.protocol.commands import (
    Accept,
    ChangeVisibility,
    Command,
    Configure,
    Delete,
    Entry,
    Letter,
    Move,
    Note,
    Open,
    Operation,
    Purge,
    Receive,
    Refusal,
    Refused,
    ReplicaSet,
    Result,
    Seal,
    Send,
    Settings,
    Settle,
    Summary,
    Tick,
)
from shadow_nodes.protocol.limits import EXPIRE_PER_ENTRY_MAX, IN_FLIGHT_MAX_FIFO
from shadow_nodes.protocol.messages import LOG_START, Position

_SEALED = Refused(Refusal.SEALED)
_REPEATED = Repeated()
_SESSION_PASSED = Refused(Refusal.SESSION_PASSED)


class Machine:
    """The state of one shard. ``applied`` is the position of the last applied entry.

    ``read_content(key)`` gives the stored bytes of a message's content row, of the last checkpoint; it is needed once
    contents have been released from memory.
    """

    __slots__ = ("_applied_since_checkpoint", "_state", "applied", "asides")

    def __init__(self, read_content: Callable[[int], bytes] | None = None) -> None:
        self.applied: Position = LOG_START
        self.asides: list[tuple[Command, Outcome]] = []
        """What the last entry's results do not say of its operations: for the log's readers only."""
        self._applied_since_checkpoint = False
        self._state = State(read_content)

    @property
    def now_ms(self) -> int:
        """The time of the last applied entry, Unix milliseconds."""
        return self._state.now_ms

    @property
    def settings(self) -> Settings:
        return self._state.settings

    @property
    def replica_set(self) -> ReplicaSet:
        """The newest that the log has told of."""
        return self._state.replica_set

    # --- entries

    def apply(self, entry: Entry) -> list[Result | None]:
        """Executes the entry; one result per operation, in their order, None standing for plain success."""
        state, now_ms = self._state, entry.now_ms
        assert entry.seq == self.applied.seq + 1, f"entry {entry.seq} after {self.applied.seq}"
        assert entry.epoch >= self.applied.epoch, f"epoch {entry.epoch} after {self.applied.epoch}"
        assert now_ms >= state.now_ms, f"time goes back from {state.now_ms} to {now_ms}"
        if now_ms > state.now_ms:
            state.now_ms = now_ms
            state.order.advance(now_ms)
        state.budget = EXPIRE_PER_ENTRY_MAX
        if self.asides:
            self.asides = []
        sessions = [state.sessions.enter(session, now_ms) for session in entry.sessions]
        results = [self._once(sessions[operation.session], operation) for operation in entry.operations]
        self.applied = Position(entry.epoch, entry.seq)
        self._applied_since_checkpoint = True
        if not state.shelf.buried():
            state.shelf.bury()
        return results

    def _once(self, session: SessionState, operation: Operation) -> Result | None:
        counter = operation.counter
        if counter < session.mark:
            return _SESSION_PASSED
        if counter in session.results:
            self.asides.append((operation.command, _REPEATED))
            return session.results[counter]
        command = operation.command
        if type(command) is not Tick and (session.last_ms != self._state.now_ms or not session.changed):
            self._state.sessions.use(session, self._state.now_ms)
        result = self._execute(session.id, counter, command)
        if session.known:
            session.results[counter] = result
            session.counters.append(counter)
        return result

    def _execute(  # noqa: PLR0911, PLR0912 (one case per command, and nothing else)
        self, session: int, counter: int, command: Command
    ) -> Result | None:
        state = self._state
        if state.sealed and isinstance(command, Send | Receive | Delete | ChangeVisibility | Purge | Move):
            return _SEALED
        match command:
            case Send():
                return sending.send(state, command, session, counter)
            case Receive():
                return receiving.receive(state, command)
            case Delete():
                return handling.delete(state, command)
            case ChangeVisibility():
                return handling.change_visibility(state, command)
            case Tick():
                upkeep.tick(state)
            case Accept():
                skipped = sending.accept(state, command)
                if skipped:
                    self.asides.append((command, Taken(skipped)))
            case Settle():
                upkeep.settle(state, command)
            case Move():
                return receiving.move(state, command)
            case Purge():
                upkeep.purge(state)
            case Configure():
                upkeep.configure(state, command)
            case Seal():
                state.sealed = True
            case Open() | Note():
                if command.replica_set.version:
                    state.replica_set = command.replica_set
        return None

    # --- questions

    def summary(self, now_ms: int) -> Summary:
        """What the owner must know to let receives wait.

        While ``ready`` is 0, a receive without an attempt id finds nothing before ``next_ready_ms`` or another command.
        """
        state = self._state
        order, settings = state.order, state.settings
        ready, in_flight, delayed = order.ready(), order.in_flight, order.delayed
        next_ready_ms = order.timers.next_ms()
        if next_ready_ms and next_ready_ms <= now_ms:
            due_in_flight, due_delayed, next_ready_ms = self._due(now_ms)
            ready += due_in_flight + due_delayed
            in_flight -= due_in_flight
            delayed -= due_delayed
        if settings.fifo and in_flight >= IN_FLIGHT_MAX_FIFO:
            ready = 0
        return Summary(
            self.applied.seq,
            ready,
            in_flight,
            delayed,
            next_ready_ms,
            state.next_tick_ms(max(now_ms, state.now_ms)),
            state.outbox.next - state.outbox.first,
            settings.version,
            state.sealed,
            len(state.shelf.messages),
        )

    def _due(self, now_ms: int) -> tuple[int, int, int]:
        """Messages in flight and delayed ones, visible by now though no entry has said so yet, and the next time."""
        in_flight = delayed = 0
        buckets, next_ms = self._state.order.timers.look_due(now_ms)
        for bucket in buckets:
            delivered = sum(1 for message in bucket.values() if message.delivery.number)
            in_flight += delivered
            delayed += len(bucket) - delivered
        return in_flight, delayed, next_ms

    def answer(self, session_id: int, counter: int) -> tuple[bool, Result | None]:
        """Whether the operation was executed and its result is kept, and that result."""
        session = self._state.sessions.by_id.get(session_id)
        if session is None or counter < session.mark or counter not in session.results:
            return False, None
        return True, session.results[counter]

    def outbox(self, after: int, limit: int) -> list[Letter]:
        """The first ``limit`` waiting letters with a number greater than ``after``, in order."""
        return self._state.outbox.after(after, limit)

    def messages(self) -> int:
        """How many messages are held, letters waiting in the outbox included."""
        return len(self._state.shelf.messages) + len(self._state.outbox.letters)

    def digest(self) -> str:
        """Hexadecimal; equal exactly if the logical state is, contents included. Reads everything."""
        return digest(self._state, self.applied)

    # --- checkpoints

    def changed_rows(self) -> int:
        """How many rows ``take_changes`` would change, about."""
        return checkpoint.changed_rows(self._state) + self._applied_since_checkpoint

    def take_changes(self) -> RowChanges:
        """The rows that changed since the last call; the caller writes Checkpoint(self.applied, changes)."""
        self._applied_since_checkpoint = False
        return checkpoint.take_changes(self._state)

    def release_contents(self, bytes_max: int) -> int:
        """Forgets contents that a checkpoint has, until at most ``bytes_max`` are in memory or none is left to forget.

        To be called when the last ``take_changes`` is durable. Counts characters of bodies and bytes of attributes;
        returns how many remain.
        """
        return self._state.shelf.release(bytes_max)

    @classmethod
    def load(
        cls, checkpoint_position: Position, rows: Iterable[Row], read_content: Callable[[int], bytes] | None = None
    ) -> Machine:
        """The machine whose ``applied`` was this when its rows were taken. Rows come in the order of (kind, key).

        Raises msgspec.MsgspecError on bytes that are no row.
        """
        machine = cls(read_content)
        machine._state = checkpoint.load(rows, read_content)
        machine.applied = checkpoint_position
        return machine
