"""What nodes send each other when one copies a replica from another: checked parts, with an end that says so.

Model: a part is its length, its CRC-32 and a msgpack value. A log is parts of entries, an empty one last; a
snapshot is a head, chunks of rows, and an end that counts them.
Invariant: a stream that was cut, mixed up or damaged raises BrokenStreamError.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Protocol, TypeVar
from zlib import crc32

import msgspec

from shadow_nodes.core.store import LogEntry, Row
from shadow_nodes.protocol.commands import ShardKey, Value
from shadow_nodes.protocol.errors import ShadowQError
from shadow_nodes.protocol.limits import APPEND_BYTES_MAX, FRAME_BYTES_MAX, SNAPSHOT_CHUNK_BYTES
from shadow_nodes.protocol.messages import Position

T = TypeVar("T")

PART_BYTES_MAX = FRAME_BYTES_MAX
_HEAD = struct.Struct(">II")

assert 2 * APPEND_BYTES_MAX < PART_BYTES_MAX
assert 2 * SNAPSHOT_CHUNK_BYTES < PART_BYTES_MAX


class BrokenStreamError(ShadowQError):
    """What came is not what was sent. Nothing of it may be used."""


class SnapshotHead(Value, frozen=True, tag=1):
    shard: ShardKey
    checkpoint: Position


class SnapshotRows(Value, frozen=True, tag=2):
    rows: list[Row]


class SnapshotEnd(Value, frozen=True, tag=3):
    """``rows``: how many there were in all."""

    rows: int


SnapshotPart = SnapshotHead | SnapshotRows | SnapshotEnd

_encode = msgspec.msgpack.Encoder().encode
_decode_log = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]]).decode
_decode_snapshot: Callable[[bytes], SnapshotPart] = msgspec.msgpack.Decoder(SnapshotPart).decode


def pack(value: object) -> bytes:
    """A part."""
    payload = _encode(value)
    return _HEAD.pack(len(payload), crc32(payload)) + payload


def pack_log(entries: list[LogEntry]) -> bytes:
    return pack([(entry.epoch, entry.seq, entry.data) for entry in entries])


class Stream(Protocol):
    """The part of a stream reader (aiohttp's) that is used."""

    async def readexactly(self, n: int) -> bytes: ...


async def read_part(stream: Stream) -> tuple[int, bytes]:
    """The checksum and payload of the next part, for ``unpack``. Raises BrokenStreamError."""
    try:
        length, checksum = _HEAD.unpack(await stream.readexactly(_HEAD.size))
        if length > PART_BYTES_MAX:
            raise BrokenStreamError(f"a part of {length} bytes")
        return checksum, await stream.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise BrokenStreamError("the stream ended before its end") from error


def _unpack(decode: Callable[[bytes], T], part: tuple[int, bytes]) -> T:
    checksum, payload = part
    if crc32(payload) != checksum:
        raise BrokenStreamError(f"a part of {len(payload)} bytes does not match its checksum")
    try:
        return decode(payload)
    except msgspec.MsgspecError as error:
        raise BrokenStreamError(f"not a part of a stream: {error}") from error


def unpack_log(part: tuple[int, bytes], after_seq: int) -> list[LogEntry]:
    """Entries that follow ``after_seq`` without a hole. Raises BrokenStreamError."""
    entries = [LogEntry(*item) for item in _unpack(_decode_log, part)]
    for place, entry in enumerate(entries, after_seq + 1):
        if entry.seq != place:
            raise BrokenStreamError(f"entry {entry.seq} where {place} belongs")
    return entries


def unpack_snapshot(part: tuple[int, bytes]) -> SnapshotPart:
    """Raises BrokenStreamError."""
    return _unpack(_decode_snapshot, part)
