"""The production store: SQLite in WAL mode, every write one transaction, durable when it returns.

Model: one writing connection behind a lock; one reading connection for log entries and single rows; a connection of its
own for every walk over a checkpoint's rows. What is where in the log is kept in memory (``shard_state``) and replaced
after each commit, so reads never wait for a write.
Invariant: reads return what was written or raise CorruptError; a store that raised serves nothing any more, and one
that raised CorruptError, or could not read or write, is condemned: it will not be opened again. A full disk is neither:
the transaction is rolled back, what it left behind the log's end is struck out, and the store goes on.
"""

from __future__ import annotations

import os
import sqlite3
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from errno import EIO, ENOSPC
from itertools import islice
from pathlib import Path

from shadow_nodes.core.store import LogEntry, ReplicaRecord, Row, ShardWrite, Twins
from shadow_nodes.protocol.commands import ShardKey
from shadow_nodes.protocol.errors import CorruptError, NoRoomError
from shadow_nodes.protocol.messages import Position
from shadow_nodes.storage import sqlite_files
from shadow_nodes.storage.chunks import in_chunks
from shadow_nodes.storage.directory import CONDEMNED, DATABASE, WAL_INDEX, DirectoryLock, move_aside, write_durably
from shadow_nodes.storage.loading import load
from shadow_nodes.storage.mark import LogState, MarkValue
from shadow_nodes.storage.reserve import Reserve
from shadow_nodes.storage.tables import (
    PAGE_BYTES,
    StoredShard,
    is_full,
    log_crc,
    outcome_crc,
    row_crc,
    sqlite_errors,
    unseal_shard,
)
from shadow_nodes.storage.transaction import ENTRIES_PER_TIDY_STEP, Transaction

CHECKPOINT_FRAMES = 1_000
"""The log is moved into the database whenever it has grown by this many frames (4 MiB)."""
READ_ENTRIES = 32
"""Log entries asked for by one query."""
_FOLD = "PRAGMA wal_checkpoint(PASSIVE)"
_ALL_ROWS = "SELECT kind, key, crc, value FROM rows WHERE space = ? ORDER BY kind, key"
_LATER_ROWS = "SELECT kind, key, crc, value FROM rows WHERE space = ? AND kind > ? ORDER BY kind, key"
_INDEX_HEADER_BYTES = 48
_INDEX_END = struct.Struct("=16xI4xII8s")
"""Of the header of SQLite's wal-index: number of frames, checksum of the last one, salts as in the log."""


class SqliteStore:
    """``core.store.Store`` on SQLite, in a directory of its own.

    Raises DirectoryInUseError, CorruptError, OSError on opening; CorruptError, OSError from every method after that,
    and ValueError from ``write`` where a write does not fit its shard: a bug in the caller; nothing works after it.
    """

    def __init__(self, path_dir: Path | str, lock: DirectoryLock | None = None) -> None:
        """Opens the store, or creates it where the directory has none.

        ``lock``: taken already by the caller; the store's when the opening succeeds.
        """
        self._path_dir = Path(path_dir)
        self._path_dir.mkdir(parents=True, exist_ok=True)
        self._directory_lock = DirectoryLock(self._path_dir) if lock is None else lock
        self._write_lock = threading.RLock()
        self._read_lock = threading.Lock()
        """One query at a time: a cursor that is open would show the next query an older state."""
        self._failure: Exception | None = None
        self._walks: set[sqlite3.Connection] = set()
        self._checkpoint_at_frames = CHECKPOINT_FRAMES
        self._frames = 0
        self._mark_value = MarkValue(LogState.EMPTY)
        self._index_descriptor = -1
        self.reserve = Reserve(self._path_dir)
        try:
            self._open_in_what_room_there_is()
        except BaseException as error:
            if lock is None:
                self._directory_lock.release()
            if isinstance(error, OSError) and error.errno == EIO:
                raise CorruptError(f"{self._path_dir}: {error}") from error
            raise

    def _open_in_what_room_there_is(self) -> None:
        """Folding the log into the database may take room."""
        try:
            with sqlite_errors("opening"):
                self._open()
        except OSError as error:
            if error.errno != ENOSPC or not self.reserve.give_up():
                raise
            with sqlite_errors("opening"):
                self._open()

    def _open(self) -> None:
        sqlite_files.prepare(self._path_dir)
        self._writer, self._mark = sqlite_files.open_writer(self._path_dir)
        try:
            self._reader = sqlite_files.connect(self._path_dir / DATABASE, writing=False)
        except BaseException:
            self._writer.close()
            self._mark.close()
            raise
        try:
            self._index_descriptor = os.open(self._path_dir / WAL_INDEX, os.O_RDONLY)
            self._contents, staged_spaces = load(self._writer)
            if staged_spaces:
                with self._transaction() as transaction:
                    for space in staged_spaces:
                        transaction.discard_staged("", space)
        except BaseException:
            self._close_files()
            raise

    @property
    def incarnation(self) -> str:
        return self._contents.meta.incarnation

    def recover(self) -> list[ReplicaRecord]:
        self._check()
        return [state.record for state in self._contents.shards.values()]

    # --- writing

    def write(self, writes: list[ShardWrite]) -> None:
        if not writes:
            return
        try:
            self._write(writes)
        except NoRoomError:
            if not self.reserve.give_up():
                raise
            self._write(writes)

    def _write(self, writes: list[ShardWrite]) -> None:
        entries = 0
        with self._transaction() as transaction:
            for write in writes:
                transaction.add(write)
                entries += len(write.entries)
            transaction.finish(1 + entries // ENTRIES_PER_TIDY_STEP)

    def stage(self, shard: ShardKey, number: int, checkpoint: Position, rows: list[Row]) -> None:
        with self._transaction() as transaction:
            transaction.stage(shard, number, checkpoint, rows)
            transaction.finish(1)

    @contextmanager
    def _transaction(self) -> Iterator[Transaction]:
        """Commits, and then makes the outcome visible; any exception but NoRoomError makes the store useless."""
        with self._write_lock:
            self._check()
            writer = self._writer
            with self._failing("writing"):
                writer.execute("BEGIN IMMEDIATE")
                try:
                    transaction = Transaction(writer, self._contents)
                    yield transaction
                    writer.execute("COMMIT")
                except BaseException as error:
                    if is_full(error):
                        self._roll_back()
                        raise NoRoomError("the disk is full") from error
                    with suppress(sqlite3.Error):
                        writer.execute("ROLLBACK")
                    self._failure = self._failure or OSError("a write failed; the store is of no use any more")
                    raise
                self._committed(transaction)
                self._checkpoint()

    def _roll_back(self) -> None:
        """After a write for which there was no room. Raises sqlite3.Error, OSError."""
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        self._contents.leftovers.roll_back()
        frames, _, _, salts = self._index_end()
        sqlite_files.strike_out_after(self._path_dir, frames, salts)

    def _index_end(self) -> tuple[int, int, int, bytes]:
        """Of the log: number of frames, checksum of the last one, salts."""
        end: tuple[int, int, int, bytes] = _INDEX_END.unpack_from(
            os.pread(self._index_descriptor, _INDEX_HEADER_BYTES, 0)
        )
        return end

    def _committed(self, transaction: Transaction) -> None:
        frames, first, second, salts = self._index_end()
        self._mark_value = MarkValue(LogState.WRITTEN, frames, salts, (first, second))
        self._mark.write(self._mark_value)
        if frames < self._frames:
            self._checkpoint_at_frames = CHECKPOINT_FRAMES
        self._frames = frames
        self._contents.adopt(transaction)

    def _checkpoint(self) -> None:
        """Moves the log into the database once it is long enough; the next write then begins it again.

        What readers still need stays; the next try comes only when the log has grown as much again. So too where the
        database has no room to grow: what is committed is in the log, and stays there.
        """
        if self._frames >= self._checkpoint_at_frames:
            self._checkpoint_at_frames = self._frames + CHECKPOINT_FRAMES
            try:
                self._writer.execute(_FOLD).fetchone()
            except sqlite3.OperationalError as error:
                if not is_full(error):
                    raise
                if self.reserve.give_up():
                    with suppress(sqlite3.OperationalError):
                        self._writer.execute(_FOLD).fetchone()

    # --- reading

    def read_log(self, shard: ShardKey, after_seq: int, up_to_seq: int, limit_bytes: int) -> list[LogEntry]:
        self._check()
        with self._failing("reading the log"):
            try:
                return self._read_log(shard, after_seq, up_to_seq, limit_bytes)
            except CorruptError:
                # perhaps a write cut or trimmed meanwhile what was to be read: look again when none is under way
                with self._write_lock:
                    return self._read_log(shard, after_seq, up_to_seq, limit_bytes)

    def _read_log(self, shard: ShardKey, after_seq: int, up_to_seq: int, limit_bytes: int) -> list[LogEntry]:
        state = self._contents.shards.get(shard)
        entries: list[LogEntry] = []
        size_bytes = 0
        places = state.entries(after_seq, up_to_seq) if state else iter(())
        while part := list(islice(places, READ_ENTRIES)):
            marks = ",".join("?" * len(part))
            statement = (
                f"SELECT id, previous_id, space, epoch, seq, crc, data FROM log WHERE id IN ({marks}) ORDER BY id"
            )
            with self._read_lock, closing(self._reader.execute(statement, [id_ for id_, _, _ in part])) as cursor:
                for expected, (id_, previous_id, space, epoch, seq, crc, data) in zip(part, cursor, strict=False):
                    if (id_, epoch, seq) != expected or crc != log_crc((id_, previous_id, space, epoch, seq), data):
                        raise CorruptError(f"shard {shard}: log entry {expected[2]} is damaged or missing")
                    entries.append(LogEntry(epoch, seq, data))
                    size_bytes += len(data)
                    if size_bytes >= limit_bytes:
                        return entries
            if entries[-1:] == [] or entries[-1].seq != part[-1][2]:
                raise CorruptError(f"shard {shard}: a log entry up to {part[-1][2]} is missing")
        return entries

    def read_outcomes(self, shard: ShardKey, after_seq: int, up_to_seq: int) -> list[bytes]:
        self._check()
        state = self._contents.shards.get(shard)
        chunks: list[bytes] = []
        if state is None:
            return chunks
        with self._failing("reading outcomes"):
            statement = "SELECT seq, crc, value FROM outcomes WHERE space = ? AND seq > ? ORDER BY seq"
            with self._read_lock, closing(self._reader.execute(statement, (state.space, after_seq))) as cursor:
                for seq, crc, value in cursor:
                    if crc != outcome_crc(state.space, seq, value):
                        raise CorruptError(f"shard {shard}: the outcomes up to entry {seq} are damaged")
                    chunks.append(value)
                    if seq >= up_to_seq:
                        break
        return chunks

    def log_epochs(self, shard: ShardKey) -> list[Position]:
        self._check()
        state = self._contents.shards.get(shard)
        return state.epochs() if state else []

    def read_row(self, shard: ShardKey, kind: int, key: int) -> bytes | None:
        self._check()
        with self._failing("reading a row"):
            value = self._read_row(shard, kind, key)
            if value is not None:
                return value
            # rare, so worth being sure of: look again when no write is under way
            with self._write_lock:
                value = self._read_row(shard, kind, key)
                if value is None:
                    self._refuse_hidden_row(shard, kind, key)
                return value

    def _read_row(self, shard: ShardKey, kind: int, key: int) -> bytes | None:
        state = self._contents.shards.get(shard)
        if state is None or key < state.drops.get(kind, key):
            return None
        with self._read_lock:
            found = self._reader.execute(
                "SELECT crc, value FROM rows WHERE space = ? AND kind = ? AND key = ?", (state.space, kind, key)
            ).fetchone()
        if found is None:
            return None
        crc, value = found
        if crc != row_crc(state.space, kind, key, value):
            raise CorruptError(f"shard {shard}: row ({kind}, {key}) is damaged")
        return bytes(value)

    def _refuse_hidden_row(self, shard: ShardKey, kind: int, key: int) -> None:
        """A damaged inner page can lead a search astray; a walk over all keys of the space would still find the row."""
        state = self._contents.shards.get(shard)
        if state is None or key < state.drops.get(kind, key):
            return
        hidden = "SELECT 1 FROM rows WHERE space = ? AND +kind = ? AND +key = ? LIMIT 1"
        with self._read_lock:
            found = self._reader.execute(hidden, (state.space, kind, key)).fetchone()
        if found is not None:
            raise CorruptError(f"shard {shard}: row ({kind}, {key}) is out of place")

    def read_rows(self, shard: ShardKey, twins: Twins | None = None) -> Iterable[Row]:
        """From a connection of its own; raises CorruptError, OSError while it is walked, too."""
        self._check()
        try:
            _, rows = self._walk(shard, twins)
        except KeyError:
            return
        yield from rows

    def snapshot(self, shard: ShardKey, chunk_bytes: int) -> tuple[ReplicaRecord, Iterator[list[Row]]]:
        """Raises KeyError where the shard is not known. An iterator given up early is to be closed."""
        self._check()
        stored, rows = self._walk(shard)
        return stored.record(), in_chunks(rows, chunk_bytes)

    def _walk(self, shard: ShardKey, twins: Twins | None = None) -> tuple[StoredShard, Iterator[Row]]:
        """The shard's record and, in the same state of the database, its rows. Raises KeyError."""
        with self._failing("reading rows"):
            connection = sqlite_files.connect(self._path_dir / DATABASE, writing=False)
            self._walks.add(connection)
            try:
                found = self._begin_walk(connection, shard)
                if found is None:
                    # perhaps a write gave the shard another space meanwhile: look again when none is under way
                    with self._write_lock:
                        found = self._begin_walk(connection, shard)
                if found is None:
                    raise CorruptError(f"shard {shard}: its record is missing")
            except BaseException:
                self._end_walk(connection)
                raise
        rows = self._rows(connection, *found, twins)
        next(rows)  # from here on the generator sees to it that the connection is closed
        return found[1], rows

    def _begin_walk(self, connection: sqlite3.Connection, shard: ShardKey) -> tuple[int, StoredShard] | None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute("BEGIN")
        space = self._contents.shards[shard].space
        found = connection.execute("SELECT body FROM shards WHERE space = ?", (space,)).fetchone()
        return None if found is None else (space, unseal_shard(space, found[0]))

    def _rows(
        self, connection: sqlite3.Connection, space: int, stored: StoredShard, twins: Twins | None
    ) -> Iterator[Row]:
        """The first item is none; see ``_walk``. With rows dropped and still there, twins cannot be counted on."""
        drops = dict(stored.drops)
        if drops:
            twins = None
        count = twin_bytes = 0
        last: tuple[int, int] | None = None
        try:
            yield 0, 0, b""
            with self._failing("reading rows"):
                rows = connection.execute(_ALL_ROWS, (space,))
                while (row := next(rows, None)) is not None:
                    kind, key, crc, value = row
                    if crc != row_crc(space, kind, key, value) or (last is not None and (kind, key) <= last):
                        raise CorruptError(f"shard {stored.shard}: row ({kind}, {key}) is damaged or out of place")
                    last = (kind, key)
                    if twins is None or kind != twins.kind:
                        count += 1 if twins is None or kind != twins.of else 2
                    else:
                        twin_bytes += len(value)
                        if twin_bytes >= twins.bytes_max:
                            rows = connection.execute(_LATER_ROWS, (space, kind))
                    if key >= drops.get(kind, key):
                        yield kind, key, value
                if count != stored.rows:
                    raise CorruptError(f"shard {stored.shard}: {count} of {stored.rows} rows are there")
        except sqlite3.ProgrammingError:
            self._check()  # the store was closed meanwhile
            raise
        finally:
            self._end_walk(connection)

    def _end_walk(self, connection: sqlite3.Connection) -> None:
        self._walks.discard(connection)
        connection.close()

    def size_bytes(self) -> int:
        """Of the database and its log."""
        return sqlite_files.file_sizes(self._path_dir)

    def spare_bytes(self) -> int:
        self._check()
        with self._failing("looking for free pages"):
            pages: int = self._reader.execute("PRAGMA freelist_count").fetchone()[0]
        return pages * PAGE_BYTES - (0 if self.reserve.held else self.reserve.size_bytes)

    def make_reserve(self) -> None:
        self._check()
        self.reserve.take_back()

    # --- failing and closing

    def _check(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args)

    @contextmanager
    def _failing(self, doing: str) -> Iterator[None]:
        """After damage or an error of the disk the store is of no use any more, and may be condemned."""
        try:
            with sqlite_errors(doing):
                yield
        except NoRoomError:
            raise
        except CorruptError as error:
            self._failure = error
            self._condemn(error)
            raise
        except OSError as error:
            self._failure = error
            if error.errno == EIO:
                self._condemn(error)
            raise

    def _condemn(self, error: Exception) -> None:
        """The next opening must not trust these files again, whatever it finds."""
        with suppress(OSError):
            write_durably(self._path_dir / CONDEMNED, str(error).encode())

    def close(self) -> None:
        """Folds the log into the database. Harmless when closed already. No other thread may be inside a call."""
        with self._write_lock:
            if self._index_descriptor < 0:
                return
            try:
                if self._failure is None:
                    self._fold()
            finally:
                self._failure = self._failure or OSError("the store is closed")
                self._close_files()
                self._directory_lock.release()

    def _fold(self) -> None:
        for connection in list(self._walks):
            self._end_walk(connection)
        self._reader.close()
        with self._failing("closing"):
            self._mark.write_durably(self._mark_value._replace(state=LogState.FOLDING))
            if sqlite_files.fold(self._writer):
                self._mark.write_durably(MarkValue(LogState.EMPTY))

    def _close_files(self) -> None:
        """The wal-index last: closing any descriptor of it would take SQLite's locks on it away."""
        for connection in [*self._walks, self._reader, self._writer]:
            connection.close()
        self._mark.close()
        if self._index_descriptor >= 0:
            os.close(self._index_descriptor)
            self._index_descriptor = -1


def open_or_replace(path_dir: Path | str) -> tuple[SqliteStore, str | None]:
    """Opens the store, or, where it is damaged, moves it aside and creates an empty one with a new incarnation.

    Returns the store and, where it was replaced, why: for the log, loudly. The damaged files stay in ``corrupt-<n>``.
    Raises DirectoryInUseError, OSError.
    """
    path_dir = Path(path_dir)
    path_dir.mkdir(parents=True, exist_ok=True)
    lock = DirectoryLock(path_dir)
    try:
        try:
            return SqliteStore(path_dir, lock), None
        except CorruptError as error:
            reason = str(error)
        aside = move_aside(path_dir)
        return SqliteStore(path_dir, lock), f"{reason} (moved to {aside})"
    except BaseException:
        lock.release()
        raise
