"""One shard on this node: the promise, the log, and the state machine behind it.

Model: log = committed prefix + a tail that an owner may still cut. ``matched`` is the end of what this token's owner
has itself placed or confirmed here; beyond it the tail may be a dead owner's.
Invariants: the promised token never goes back; nothing at or below ``committed`` is ever cut; only what is committed is
applied.
Sources: Ongaro & Ousterhout 2014, section 5.3 (log matching); the BookKeeper protocol document (fencing).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque

import msgspec

from shadow_nodes.core.machine import Machine
from shadow_nodes.core.machine.checkpoint import LOAD_CONTENTS_BYTES_MAX
from shadow_nodes.core.machine.rows import Kind
from shadow_nodes.core.outcomes import OUTCOME_BYTES_MAX, Outcomes, between
from shadow_nodes.core.portions import fitting, result_bytes
from shadow_nodes.core.store import Checkpoint, LogEntry, ReplicaRecord, ShardWrite, Store, Twins
from shadow_nodes.protocol.audit import EntryOutcomes, LogPage
from shadow_nodes.protocol.commands import Entry, Result, decode_entry
from shadow_nodes.protocol.errors import CorruptError, ProtocolError
from shadow_nodes.protocol.limits import (
    APPEND_BYTES_MAX,
    CHECKPOINT_LOG_BYTES_MAX,
    CHECKPOINT_ROWS_MAX,
    CLOCK_SKEW_MAX_MS,
    CONTENT_BYTES_MAX,
    KIB,
    RESULTS_BYTES_MAX,
)
from shadow_nodes.protocol.messages import (
    LOG_START,
    Answered,
    AnswerState,
    Append,
    Applied,
    Ask,
    ClockRefused,
    Fence,
    Fenced,
    Fetch,
    Gap,
    Inspection,
    Log,
    Position,
    Quarantined,
    Stale,
    Token,
)

COPY_BYTES_MAX = 256 * KIB
"""Entries given to, or adopted from, another node at once: 4 MiB of them would hold up a node's loop for 100 ms."""

CONTENTS = Twins(Kind.CONTENT, Kind.MESSAGE, LOAD_CONTENTS_BYTES_MAX)
"""Contents that a restart would not keep in memory it need not read: they are by far the most bytes of a deep queue."""

Results = list[tuple[int, int, Result]]
Refusal = Stale | Gap | ClockRefused | Quarantined


class TailEntry(msgspec.Struct, frozen=True, gc=False):
    """An entry that is not applied yet, decoded once."""

    entry: Entry
    size_bytes: int


class Replica:
    """A shard's replica. Methods are given the time; what must be written is gathered until ``take_write``."""

    def __init__(self, record: ReplicaRecord, store: Store, log_retained_bytes: int) -> None:
        """Loads the checkpoint and replays the log up to the recorded commit. Raises CorruptError, OSError."""
        self.shard = record.shard
        self.promised = record.promised
        self._retired = record.retired
        self.quarantined = ""
        self._store = store
        self._log_retained_bytes = log_retained_bytes
        self._checkpoint_log_bytes = CHECKPOINT_LOG_BYTES_MAX
        self._write: ShardWrite | None = None
        self._writing_from: int | None = None
        """The first entry of the write that is under way: the store may still hold another in its place."""
        self.install_number = 0
        self.install_position = LOG_START
        self._load(record)

    def _load(self, record: ReplicaRecord, machine: Machine | None = None) -> None:
        """``machine``: what the rows of the record's checkpoint make, where they have been read already."""
        if not record.checkpoint.seq <= record.commit_seq <= record.last.seq:
            raise CorruptError(f"shard {self.shard}: checkpoint, commit and log end are out of order: {record}")
        self.last = record.last
        self.log_start = record.log_start
        self.checkpoint = record.checkpoint
        self.installing = False
        self._epochs = self._store.log_epochs(self.shard) if record.last != LOG_START else []
        self._tail: dict[int, TailEntry] = {}
        self._segments: deque[tuple[Position, int]] = deque()
        self._log_bytes = 0
        self._outcomes = Outcomes()
        self.machine = self.read_machine(record.checkpoint) if machine is None else machine
        self.committed = record.checkpoint
        self.matched = record.checkpoint.seq
        after = record.checkpoint.seq
        while after < record.last.seq:
            chunk = self._store.read_log(self.shard, after, record.last.seq, APPEND_BYTES_MAX)
            if not chunk or chunk[0].seq != after + 1:
                raise CorruptError(f"shard {self.shard}: the log lacks the entry after {after}")
            for item in chunk:
                self._tail[item.seq] = TailEntry(_decode(item.data), len(item.data))
            after = chunk[-1].seq
            self._advance(min(after, record.commit_seq), None)
        self.matched = self.committed.seq

    def read_machine(self, checkpoint: Position) -> Machine:
        """What the rows in the store make, which are those of this checkpoint. May run in another thread.

        Raises CorruptError, OSError.
        """
        rows = self._store.read_rows(self.shard, CONTENTS) if checkpoint != LOG_START else ()
        return Machine.load(checkpoint, rows, self._read_content)

    def _read_content(self, key: int) -> bytes:
        value = self._store.read_row(self.shard, Kind.CONTENT, key)
        if value is None:
            raise CorruptError(f"shard {self.shard}: the content of message {key} is not in the store")
        return value

    @property
    def time_ms(self) -> int:
        """The time of the newest entry in the log; it never goes back along it."""
        newest = self._tail.get(self.last.seq)
        return self.machine.now_ms if newest is None else newest.entry.now_ms

    # --- what an owner asks ----------------------------------------------------------------------------------------

    @property
    def blank(self) -> bool:
        """Nothing is held but the promise: a replica just made, or the tombstone of one that left its set."""
        return self.last == LOG_START and not self.installing

    def refuses(self, token: Token) -> bool:
        """A promise is kept against every token but a greater epoch's, and the promised one itself."""
        return token != self.promised and token.epoch <= self.promised.epoch

    def fence(self, message: Fence, incarnation: str, clock_ms: int) -> Fenced | Stale:
        """Promises the token, if it is greater or the same. The answer must wait for the write."""
        token = message.token
        if self.refuses(token):
            return Stale(self.shard, token, self.promised)
        if token != self.promised:
            self.promised = token
            self.matched = self.committed.seq
            self._pending().promised = token
        retired = self._retired and self.last == LOG_START
        last, known = self.last, self.machine.replica_set
        return Fenced(self.shard, token, incarnation, last, self.committed, clock_ms, self.time_ms, retired, known)

    def retire(self) -> None:
        """It has left its set, and holds nothing: until it has learned, its empty log is no vote for an empty log."""
        if not self._retired:
            self._retired = True
            self._pending().retired = True

    def append(self, message: Append, clock_ms: int, results: Results | None) -> int | Refusal:
        """Takes the entries over and applies what is committed. The matched seq may be told once all is written.

        ``results``, where given, is added to. Raises ProtocolError for entries that cannot follow each other.
        """
        if message.token != self.promised:
            return Stale(self.shard, message.token, self.promised)
        if message.token.epoch < self.last.epoch:
            # told by this owner to copy, it has copied what a later one had committed
            return Stale(self.shard, message.token, Token(self.last.epoch, 0))
        if self.quarantined:
            return Quarantined(self.shard, message.token, self.quarantined)
        previous = message.previous
        if self.installing or previous.seq > self.last.seq or not self._holds(previous):
            return Gap(self.shard, message.token, self.committed)
        end = previous.seq
        if message.entries:
            entries = [(_decode(data), data) for data in message.entries]
            newest = entries[-1][0]
            if newest.epoch == message.token.epoch and newest.now_ms > clock_ms + CLOCK_SKEW_MAX_MS:
                return ClockRefused(self.shard, message.token, clock_ms)
            end = self._place(previous, entries)
        self.matched = max(self.matched, end)
        self._advance(min(message.commit_seq, self.matched), results)
        return self.matched

    def _holds(self, position: Position) -> bool:
        """Whether the log agrees with the owner's at this position. What is committed always does."""
        return position.seq <= self.committed.seq or self.epoch_at(position.seq) == position.epoch

    def _place(self, previous: Position, entries: list[tuple[Entry, bytes]]) -> int:
        """Puts entries after ``previous``, cutting a tail that conflicts. Returns the last seq."""
        seq = previous.seq
        for entry, data in entries:
            seq += 1
            if entry.seq != seq:
                raise ProtocolError(f"shard {self.shard}: entry {entry.seq} where {seq} belongs")
            if seq <= self.committed.seq:
                continue
            if seq <= self.last.seq:
                if self.epoch_at(seq) == entry.epoch:
                    continue
                self._cut_after(seq - 1)
            self._add(entry, data)
        return seq

    def _add(self, entry: Entry, data: bytes) -> None:
        if entry.epoch < self.last.epoch:
            raise ProtocolError(f"shard {self.shard}: epoch {entry.epoch} after {self.last.epoch}")
        if entry.epoch != self.last.epoch:
            self._epochs.append(Position(entry.epoch, entry.seq))
        self.last = Position(entry.epoch, entry.seq)
        self._tail[entry.seq] = TailEntry(entry, len(data))
        self._pending().entries.append(LogEntry(entry.epoch, entry.seq, data))

    def _cut_after(self, seq: int) -> None:
        assert seq >= self.committed.seq, f"shard {self.shard}: cut at {seq} below the commit at {self.committed}"
        for gone in range(seq + 1, self.last.seq + 1):
            del self._tail[gone]
        while self._epochs and self._epochs[-1].seq > seq:
            self._epochs.pop()
        self.last = Position(self.epoch_at(seq), seq)
        write = self._pending()
        write.entries = [item for item in write.entries if item.seq <= seq]
        write.cut_after = seq if write.cut_after is None else min(seq, write.cut_after)

    def epoch_at(self, seq: int) -> int:
        """The epoch of the entry at ``seq``, which is between the log's start and its end."""
        index = bisect_right(self._epochs, seq, key=lambda position: position.seq)
        return self._epochs[index - 1].epoch if index else self.log_start.epoch

    # --- commit and apply ------------------------------------------------------------------------------------------

    def _advance(self, seq: int, results: Results | None) -> None:
        """Applies entries up to ``seq``, which are committed."""
        if seq <= self.committed.seq or self.quarantined:
            return
        for number in range(self.committed.seq + 1, seq + 1):
            tail = self._tail.pop(number)
            try:
                outcomes = self.machine.apply(tail.entry)
            except (OSError, CorruptError):
                raise
            except Exception as error:
                self.quarantined = f"apply of entry {number} raised {error!r}"
                self._tail[number] = tail
                return
            self.committed = Position(tail.entry.epoch, number)
            self._log_bytes += tail.size_bytes
            self._outcomes.add(tail.entry, outcomes, self.machine.asides)
            if results is not None:
                results += [(number, i, outcome) for i, outcome in enumerate(outcomes) if outcome is not None]

    def applied(self, after_seq: int, results: Results, now_ms: int) -> Applied:
        """What applying the entries after ``after_seq`` gave; what is too much for one message is to be asked for."""
        summary = self.machine.summary(now_ms)
        if sum(result_bytes(result) for _, _, result in results) > RESULTS_BYTES_MAX:
            return Applied(self.shard, self.promised, self.committed.seq, self.committed.seq, [], summary)
        return Applied(self.shard, self.promised, after_seq, self.committed.seq, results, summary)

    def answer(self, message: Ask, now_ms: int) -> Answered | Stale:
        """What became of operations, by their ids, as of the applied state; what there is no room for stays pending."""
        if message.token != self.promised:
            return Stale(self.shard, message.token, self.promised)
        answers: list[tuple[int, int, AnswerState, Result | None]] = []
        size_bytes = 0
        for session, counter in message.operations:
            known, result = self.machine.answer(session, counter)
            size_bytes += result_bytes(result)
            if known and (size_bytes <= RESULTS_BYTES_MAX or not answers):
                answers.append((session, counter, AnswerState.DONE, result))
            else:
                answers.append((session, counter, AnswerState.PENDING, None))
        letters = fitting(self.machine.outbox(0, message.letters_max)) if message.letters_max else []
        return Answered(self.shard, message.token, answers, self.machine.summary(now_ms), letters)

    # --- copying ---------------------------------------------------------------------------------------------------

    def fetch(self, message: Fetch) -> Log | Stale:
        """The log after a place, uncommitted tail included. Only what is already written may be asked for."""
        if message.token != self.promised:
            return Stale(self.shard, message.token, self.promised)
        if message.after_seq < self.log_start.seq:
            return Log(self.shard, message.token, message.after_seq, [], available=False)
        entries = self._store.read_log(self.shard, message.after_seq, self.last.seq, APPEND_BYTES_MAX)
        return Log(self.shard, message.token, message.after_seq, [item.data for item in entries], available=True)

    def committed_log(self, after_seq: int) -> list[LogEntry] | None:
        """Committed entries after a place, for another node; None where the log no longer reaches back so far."""
        if self.installing:
            return None if after_seq < self.install_position.seq else []
        if after_seq < self.log_start.seq:
            return None
        return self._store.read_log(self.shard, after_seq, self._durable_seq(), COPY_BYTES_MAX)

    def read_page(self, after_seq: int, since_ms: int | None) -> LogPage:
        """The committed log after a place, with what became of it, for people.

        ``since_ms`` instead: the entries from this time on.
        """
        if self.installing:
            position = self.install_position
            return LogPage(position, position.seq, max(after_seq, position.seq), [], [])
        durable_seq = self._durable_seq()
        if since_ms is not None:
            after_seq = self._before(since_ms, durable_seq)
        after_seq = max(after_seq, self.log_start.seq)
        entries = self._store.read_log(self.shard, after_seq, durable_seq, COPY_BYTES_MAX)
        outcomes: list[EntryOutcomes] = []
        if entries:
            end_seq = entries[-1].seq
            chunks = [*self._store.read_outcomes(self.shard, after_seq, end_seq), *self._outcomes.chunks()]
            outcomes = between(chunks, after_seq, end_seq)
        return LogPage(self.log_start, durable_seq, after_seq, [item.data for item in entries], outcomes)

    def _before(self, time_ms: int, durable_seq: int) -> int:
        """The seq before the first entry of this time or later; times never go back along the log."""
        seqs = range(self.log_start.seq + 1, durable_seq + 1)

        def entry_ms(seq: int) -> int:
            return _decode(self._store.read_log(self.shard, seq - 1, seq, 1)[0].data).now_ms

        return self.log_start.seq + bisect_left(seqs, time_ms, key=entry_ms)

    def _durable_seq(self) -> int:
        """How far the committed log is on disk, and may be read."""
        durable_seq = self.committed.seq
        if self._write is not None and self._write.entries:
            durable_seq = min(durable_seq, self._write.entries[0].seq - 1)
        if self._writing_from is not None:
            durable_seq = min(durable_seq, self._writing_from - 1)
        return durable_seq

    def adopt(self, entries: list[LogEntry]) -> int:
        """Takes over entries that another node has committed. Returns the matched seq, for telling once written."""
        if entries and not self.quarantined and not self.installing and entries[0].seq <= self.committed.seq + 1:
            previous = Position(0, entries[0].seq - 1)
            end = self._place(previous, [(_decode(item.data), item.data) for item in entries])
            self.matched = max(self.matched, end)
            self._advance(end, None)
        return self.matched

    def commit_held(self, position: Position) -> bool:
        """Another node has committed up to ``position``. True where the log agrees there, and it is applied that far.

        Then no snapshot is needed, and none may be installed: what follows in the log may have been acknowledged
        (Ongaro & Ousterhout 2014, section 7: the receiver of a snapshot retains the entries that follow it).
        """
        if position.seq <= self.committed.seq:
            return True
        if self.quarantined or self.installing or position.seq > self.last.seq or not self._holds(position):
            return False
        self.matched = max(self.matched, position.seq)
        self._advance(position.seq, None)
        return position.seq <= self.committed.seq

    def would_lose(self, position: Position) -> bool:
        """Whether a snapshot of ``position`` would take away entries acknowledged before the machine failed."""
        return bool(self.quarantined) and position.seq < self.last.seq and self._holds(position)

    def begin_install(self, number: int, position: Position) -> None:
        """A staged snapshot is to replace log and rows. Until it is written and loaded, owners are told Gap."""
        self.installing = True
        self.install_number = number
        self.install_position = position
        self._write = ShardWrite(self.shard, install=number, promised=self.promised, commit_seq=position.seq)

    def finish_install(self, machine: Machine) -> None:
        """The snapshot is in place, and has been loaded. A promise made meanwhile stays."""
        self.quarantined = ""
        position = self.install_position
        self._load(ReplicaRecord(self.shard, self.promised, position.seq, position, position, position), machine)

    # --- writes ----------------------------------------------------------------------------------------------------

    def _pending(self) -> ShardWrite:
        if self._write is None:
            self._write = ShardWrite(self.shard)
        return self._write

    @property
    def trimming(self) -> bool:
        """Whether log entries are to be erased."""
        return self._write is not None and self._write.trim is not None

    @property
    def dirty(self) -> bool:
        return self._write is not None or self._checkpoint_due()

    def _checkpoint_due(self) -> bool:
        return not self.installing and (
            self.machine.changed_rows() >= CHECKPOINT_ROWS_MAX
            or self._log_bytes >= self._checkpoint_log_bytes
            or self._outcomes.size_bytes >= OUTCOME_BYTES_MAX
        )

    def take_write(self) -> ShardWrite | None:
        """What must be written now, in one transaction with everything else of this node."""
        if self._checkpoint_due() and not self.quarantined:
            self._make_checkpoint()
        write, self._write = self._write, None
        if write is not None and write.install is None:
            write.commit_seq = self.committed.seq
        self._writing_from = write.entries[0].seq if write is not None and write.entries else None
        return write

    def written(self) -> None:
        """What ``take_write`` gave is on disk."""
        self._writing_from = None

    def _make_checkpoint(self) -> None:
        write = self._pending()
        self.checkpoint = self.machine.applied
        write.checkpoint = Checkpoint(self.checkpoint, self.machine.take_changes(), self._outcomes.take())
        self._segments.append((self.checkpoint, self._log_bytes))
        self._log_bytes = 0
        self._trim_segments()

    def retain_log(self, retained_bytes: int, checkpoint_bytes: int) -> None:
        """Applied and checkpointed entries are kept up to ``retained_bytes`` from now on, and a checkpoint is made when
        the log beyond the last has ``checkpoint_bytes``."""
        self._log_retained_bytes = retained_bytes
        self._checkpoint_log_bytes = checkpoint_bytes
        if not self.installing:
            self._trim_segments()

    def _trim_segments(self) -> None:
        """With nothing to be retained, up to the newest checkpoint; else that one's entries always stay."""
        kept = 1 if self._log_retained_bytes else 0
        retained = sum(size for _, size in self._segments)
        while len(self._segments) > kept and retained > self._log_retained_bytes:
            position, size = self._segments.popleft()
            retained -= size
            self._pending().trim = position
            self._trim(position)

    def _trim(self, position: Position) -> None:
        self.log_start = position
        index = bisect_right(self._epochs, position.seq, key=lambda item: item.seq)
        if index > 1:
            del self._epochs[: index - 1]

    def checkpoint_written(self) -> None:
        """Contents and outcomes that are on disk now need not all stay in memory."""
        self._outcomes.written()
        self.machine.release_contents(CONTENT_BYTES_MAX)

    def inspect(self, digest: bool) -> Inspection:
        return Inspection(
            self.shard,
            self.promised,
            self.last,
            self.committed.seq,
            self.machine.applied.seq,
            self.checkpoint.seq,
            self.machine.messages(),
            self.machine.digest() if digest and not self.installing else "",
            self.quarantined,
        )


def _decode(data: bytes) -> Entry:
    try:
        return decode_entry(data)
    except msgspec.MsgspecError as error:
        raise ProtocolError(f"not an entry: {error}") from error
