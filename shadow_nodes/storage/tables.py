"""The SQLite store's tables, and how each of their rows is packed and checked.

Model: everything of a shard hangs on a *space*, a number; a snapshot is staged in a space of its own and installed by
giving the shard that space. Log entries of all shards are in one table in the order they were written, so that a
transaction over many shards fills a page or two; *spans* (runs of at most SPAN_ENTRIES_MAX entries of one shard and
epoch) say which they are. Entries that no span lists yet are found from the shard's ``last_id`` along ``previous_id``.
Invariant: every row carries a crc32 of itself and its key, and what could vanish without a trace is counted elsewhere.
"""

from __future__ import annotations

import sqlite3
import struct
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EACCES, EBUSY, EIO, ENOMEM, ENOSPC
from typing import NamedTuple
from zlib import crc32

import msgspec

from shadow_nodes.core.store import ReplicaRecord
from shadow_nodes.protocol.errors import CorruptError
from shadow_nodes.protocol.messages import Position, Token

PAGE_BYTES = 4096
APPLICATION_ID = 0x53514E44
FORMAT_VERSION = 1
SPAN_ENTRIES_MAX = 100
"""The numbers of a span's entries fit into its index cell without an overflow page."""
SPAN_BYTES_MAX = 1024 * 1024
"""A span takes no further entry beyond this many bytes of bodies: log space comes back a span at a time."""

TABLES = {
    "meta": "CREATE TABLE meta(id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "shards": "CREATE TABLE shards(space INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "log": (
        "CREATE TABLE log(id INTEGER PRIMARY KEY, previous_id INTEGER NOT NULL, space INTEGER NOT NULL,"
        " epoch INTEGER NOT NULL, seq INTEGER NOT NULL, crc INTEGER NOT NULL, data BLOB NOT NULL)"
    ),
    "spans": (
        "CREATE TABLE spans(space INTEGER NOT NULL, first_seq INTEGER NOT NULL, body BLOB NOT NULL,"
        " PRIMARY KEY(space, first_seq)) WITHOUT ROWID"
    ),
    "rows": (
        "CREATE TABLE rows(space INTEGER NOT NULL, kind INTEGER NOT NULL, key INTEGER NOT NULL,"
        " crc INTEGER NOT NULL, value BLOB NOT NULL, PRIMARY KEY(space, kind, key)) WITHOUT ROWID"
    ),
    "outcomes": (
        "CREATE TABLE outcomes(space INTEGER NOT NULL, seq INTEGER NOT NULL, crc INTEGER NOT NULL,"
        " value BLOB NOT NULL, PRIMARY KEY(space, seq)) WITHOUT ROWID"
    ),
    "garbage": "CREATE TABLE garbage(space INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    "staged": "CREATE TABLE staged(space INTEGER PRIMARY KEY, body BLOB NOT NULL)",
}
"""``garbage``: spaces whose log and rows are erased a few at a time. ``staged``: spaces of snapshots being copied.
``outcomes``: what became of the log's operations, in chunks; it is for people, so nothing counts its rows."""


class Meta(msgspec.Struct, array_like=True, frozen=True):
    """The one row of ``meta``, key 1. ``shards``: how many rows the table of that name has."""

    incarnation: str
    shards: int
    next_space: int


class StoredShard(msgspec.Struct, array_like=True, frozen=True):
    """A row of ``shards``, besides its space: a ReplicaRecord and where the rest is."""

    shard: str
    promised: Token
    commit_seq: int
    checkpoint: Position
    log_start: Position
    last: Position
    last_id: int
    """The log row of the entry at ``last``; 0 where the log is empty."""
    rows: int
    """How many rows the space has, dropped ones that are still there included."""
    drops: list[tuple[int, int]]
    """(kind, key): rows of that kind with a smaller key are dropped, though still there."""
    retired: bool = False

    def record(self) -> ReplicaRecord:
        return ReplicaRecord(
            self.shard, self.promised, self.commit_seq, self.checkpoint, self.log_start, self.last, self.retired
        )


class Staged(msgspec.Struct, array_like=True, frozen=True):
    """A row of ``staged``, besides its space."""

    shard: str
    number: int
    checkpoint: Position
    rows: int


class StoredSpan(NamedTuple):
    epoch: int
    size_bytes: int
    ids: array[int]


_pack = msgspec.msgpack.Encoder().encode
_decode_meta = msgspec.msgpack.Decoder(Meta).decode
_decode_shard = msgspec.msgpack.Decoder(StoredShard).decode
pack_log_key = struct.Struct("<qqqqq").pack
_pack_row_key = struct.Struct("<qqq").pack
_pack_outcome_key = struct.Struct("<qq").pack
_SPAN = struct.Struct("<qq")


def seal(table: str, key: int, body: bytes) -> bytes:
    """A body with the crc32 of itself, its table and its key behind it."""
    return body + crc32(body, crc32(f"{table} {key}".encode())).to_bytes(4, "little")


def unseal(table: str, key: int, sealed: bytes) -> bytes:
    """Raises CorruptError."""
    body = sealed[:-4]
    if seal(table, key, body) != sealed:
        raise CorruptError(f"row {key} of table {table} is damaged")
    return body


def seal_meta(meta: Meta) -> bytes:
    return seal("meta", 1, _pack(meta))


def unseal_meta(sealed: bytes) -> Meta:
    return _decode_meta(unseal("meta", 1, sealed))


def seal_shard(space: int, shard: StoredShard) -> bytes:
    return seal("shards", space, _pack(shard))


def unseal_shard(space: int, sealed: bytes) -> StoredShard:
    return _decode_shard(unseal("shards", space, sealed))


def seal_staged(space: int, staged: Staged) -> bytes:
    return seal("staged", space, _pack(staged))


def seal_span(space: int, first_seq: int, span: StoredSpan) -> bytes:
    return seal(f"spans {space}", first_seq, _SPAN.pack(span.epoch, span.size_bytes) + span.ids.tobytes())


def unseal_span(space: int, first_seq: int, sealed: bytes) -> StoredSpan:
    body = unseal(f"spans {space}", first_seq, sealed)
    epoch, size_bytes = _SPAN.unpack_from(body)
    return StoredSpan(epoch, size_bytes, array("q", body[_SPAN.size :]))


def log_crc(key: tuple[int, int, int, int, int], data: bytes) -> int:
    """``key``: id, previous_id, space, epoch, seq."""
    return crc32(data, crc32(pack_log_key(*key)))


def outcome_crc(space: int, seq: int, value: bytes) -> int:
    return crc32(value, crc32(_pack_outcome_key(space, seq)))


def row_crc(space: int, kind: int, key: int, value: bytes) -> int:
    return crc32(value, crc32(_pack_row_key(space, kind, key)))


@contextmanager
def sqlite_errors(doing: str) -> Iterator[None]:
    """Turns SQLite's errors, and those of decoding what it returned, into OSError and CorruptError."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.InterfaceError):
        raise  # misuse: a bug here
    except sqlite3.Error as error:
        raise translated(error, doing) from error
    except (TypeError, UnicodeDecodeError, struct.error, msgspec.MsgspecError, MemoryError) as error:
        raise CorruptError(f"{doing}: what is stored cannot be read: {error}") from error


_ERRNO = {
    sqlite3.SQLITE_IOERR: EIO,
    sqlite3.SQLITE_FULL: ENOSPC,
    sqlite3.SQLITE_NOMEM: ENOMEM,
    sqlite3.SQLITE_BUSY: EBUSY,
    sqlite3.SQLITE_LOCKED: EBUSY,
    sqlite3.SQLITE_PROTOCOL: EBUSY,
    sqlite3.SQLITE_CANTOPEN: EACCES,
    sqlite3.SQLITE_READONLY: EACCES,
    sqlite3.SQLITE_PERM: EACCES,
}
"""Only EIO condemns a store (see ``sqlite``): the others say nothing about what is stored."""


def is_full(error: BaseException) -> bool:
    """Whether SQLite, or the system, says that there is no room on the disk."""
    if isinstance(error, OSError):
        return error.errno == ENOSPC
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL


def translated(error: sqlite3.Error, doing: str) -> Exception:
    """Everything that is not known to be harmless to the files is damage, a table not found for example."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_IOERR_NOMEM:
        return OSError(ENOMEM, f"{doing}: {error}")
    if code & 0xFF in _ERRNO:
        return OSError(_ERRNO[code & 0xFF], f"{doing}: {error}")
    return CorruptError(f"{doing}: {error}")
