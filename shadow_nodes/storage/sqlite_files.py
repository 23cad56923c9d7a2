"""Making, checking and opening the SQLite store's files, before anything is read through SQLite.

Model: a store is a database, its write-ahead log, and the mark. Invariant: SQLite sees the files only after the log has
been scanned and compared with the mark, and after that the log is folded into the database, so that what recovery
would drop silently is noticed, and no frame of an abandoned transaction outlives an opening.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import struct
from errno import EBUSY, ENOTSUP
from pathlib import Path

from shadow_nodes.protocol.errors import CorruptError
from shadow_nodes.storage.directory import (
    CONDEMNED,
    CREATING,
    DATABASE,
    MARK,
    WAL,
    sync_directory,
    write_durably,
)
from shadow_nodes.storage.mark import LogState, Mark, MarkValue, encode_mark, read_mark, refuse_lost_frames
from shadow_nodes.storage.tables import APPLICATION_ID, FORMAT_VERSION, PAGE_BYTES, TABLES, Meta, seal_meta
from shadow_nodes.storage.wal_scan import FRAME_HEADER_BYTES, WalScan, scan_wal
from shadow_nodes.storage.wal_scan import HEADER_BYTES as WAL_HEADER_BYTES

WAL_BYTES_KEPT = 64 * 1024 * 1024
"""A log that a long snapshot made longer shrinks to this."""
_HEADER = struct.Struct(">16sHBBBBBB")
_UNSIGNED = struct.Struct(">I")


def connect(path: Path, writing: bool) -> sqlite3.Connection:
    """A connection in autocommit mode that any one thread at a time may use. Raises sqlite3.Error."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA cell_size_check = ON")
        connection.execute("PRAGMA mmap_size = 0")
        if writing:
            if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
                raise OSError(ENOTSUP, f"{path}: the file system does not allow a write-ahead log")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("PRAGMA cache_spill = OFF")
            # a damaged cell pointer must find zeros, not an older version of a row, whose checksum would be right
            connection.execute("PRAGMA secure_delete = FAST")
            connection.execute("PRAGMA cache_size = -16384")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
        else:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def create(path_dir: Path) -> None:
    """An empty store with a new incarnation, complete and durable. Raises sqlite3.Error, OSError."""
    creating = path_dir / CREATING
    for leftover in path_dir.glob(f"{CREATING}*"):
        leftover.unlink()
    connection = connect(creating, writing=True)
    try:
        connection.execute("BEGIN")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        for definition in TABLES.values():
            connection.execute(definition)
        connection.execute("INSERT INTO meta VALUES (1, ?)", (seal_meta(Meta(secrets.token_hex(8), 0, 1)),))
        connection.execute("COMMIT")
    finally:
        connection.close()
    write_durably(path_dir / MARK, encode_mark(MarkValue(LogState.EMPTY)))
    creating.rename(path_dir / DATABASE)
    sync_directory(path_dir)


def prepare(path_dir: Path) -> None:
    """Creates a store where there is none. Raises CorruptError where files of one are there but not all of them."""
    if (path_dir / CONDEMNED).exists():
        reason = (path_dir / CONDEMNED).read_text("utf-8", "replace").strip()
        raise CorruptError(f"found damaged while it was in use: {reason}")
    if (path_dir / DATABASE).exists():
        return
    if (path_dir / WAL).exists() or ((path_dir / MARK).exists() and not (path_dir / CREATING).exists()):
        raise CorruptError("the database file is missing")
    create(path_dir)


def open_writer(path_dir: Path) -> tuple[sqlite3.Connection, Mark]:
    """Checks the files and opens them for writing, with the log folded into the database.

    Raises CorruptError, sqlite3.Error, OSError.
    """
    value = read_mark(path_dir / MARK)
    scan = scan_wal(path_dir / WAL, PAGE_BYTES)
    refuse_lost_frames(value, scan)
    _refuse_bad_database(path_dir / DATABASE, scan)
    mark = Mark(path_dir / MARK)
    try:
        last_checksum = scan.checksums.get(scan.frames, (0, 0))
        mark.write_durably(MarkValue(LogState.FOLDING, scan.frames, scan.salts or bytes(8), last_checksum))
        connection = connect(path_dir / DATABASE, writing=True)
        try:
            if not fold(connection):
                raise OSError(EBUSY, f"{path_dir}: another program reads the database")
            _add_new_tables(connection)
            _refuse_other_tables(connection)
            mark.write_durably(MarkValue(LogState.EMPTY))
        except BaseException:
            connection.close()
            raise
    except BaseException:
        mark.close()
        raise
    return connection, mark


def strike_out_after(path_dir: Path, frames: int, salts: bytes) -> None:
    """Makes what a rolled-back transaction has written to the log, behind its end, no frames of this log any more.

    A scan would otherwise take them for what was lost of a later one (see ``wal_scan``). ``salts``: of the log as it is
    now; older frames stay. In place, so that it takes no room; not synced: the sync of the next transaction does that
    before anything is told of it. Raises OSError.
    """
    with (path_dir / WAL).open("r+b", buffering=0) as file:
        frame_bytes = FRAME_HEADER_BYTES + PAGE_BYTES
        for start in range(WAL_HEADER_BYTES + frames * frame_bytes, os.fstat(file.fileno()).st_size, frame_bytes):
            header = os.pread(file.fileno(), FRAME_HEADER_BYTES, start)
            if header[8:16] != salts:
                return
            os.pwrite(file.fileno(), bytes(FRAME_HEADER_BYTES), start)


def fold(connection: sqlite3.Connection) -> bool:
    """Moves the whole log into the database, durably, and empties it. Raises sqlite3.Error.

    Returns False where a reader kept it from doing so; what is in the log then stays there.
    """
    busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy


def _refuse_bad_database(path: Path, scan: WalScan) -> None:
    """What SQLite would misread instead of refusing: header fields, and a file shorter than it says it is."""
    size_bytes = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100:
        raise CorruptError(f"the database file has only {size_bytes} bytes")
    magic, page_bytes, write_version, read_version, reserved, *fractions = _HEADER.unpack_from(header)
    (pages,) = _UNSIGNED.unpack_from(header, 28)
    (schema_format,) = _UNSIGNED.unpack_from(header, 44)
    (encoding,) = _UNSIGNED.unpack_from(header, 56)
    (user_version,) = _UNSIGNED.unpack_from(header, 60)
    (application_id,) = _UNSIGNED.unpack_from(header, 68)
    constant = (magic, page_bytes, write_version, read_version, reserved, fractions, schema_format, encoding)
    if constant != (b"SQLite format 3\0", PAGE_BYTES, 2, 2, 0, [64, 32, 32], 4, 1):
        raise CorruptError("the database file's header is damaged")
    if application_id != APPLICATION_ID or user_version != FORMAT_VERSION:
        raise CorruptError("the database file is not a ShadowQ store of a known version")
    if scan.pages:
        file_pages = size_bytes // PAGE_BYTES
        missing = set(range(file_pages + 1, scan.pages + 1)) - scan.page_numbers
        if missing:
            raise CorruptError(f"the database file lacks page {min(missing)}: it has {file_pages}")
    elif header[24:28] != header[92:96] or pages * PAGE_BYTES > size_bytes:
        raise CorruptError(f"the database file has {size_bytes} bytes instead of {pages} pages")


def _add_new_tables(connection: sqlite3.Connection) -> None:
    """A store of before the operation log had outcomes lacks their table."""
    found = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    if {name for (name,) in found} == TABLES.keys() - {"outcomes"}:
        connection.execute(TABLES["outcomes"])
        fold(connection)


def _refuse_other_tables(connection: sqlite3.Connection) -> None:
    found = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
    if dict(found) != TABLES:
        raise CorruptError("the database's tables are not those of a store")


def file_sizes(path_dir: Path) -> int:
    """Bytes of the database and its log."""
    total = 0
    for name in (DATABASE, WAL):
        try:
            total += os.stat(path_dir / name).st_size
        except FileNotFoundError:
            continue
    return total
