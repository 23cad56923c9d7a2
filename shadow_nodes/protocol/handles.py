"""Message ids and receipt handles: what clients see of (session, counter, index) and of (shard, key, delivery)."""

from __future__ import annotations

import base64
import binascii
import struct
from functools import lru_cache
from zlib import crc32

from shadow_nodes.protocol.commands import ShardKey, shard_key

SESSION_BITS = 60
"""A manager's life is a random number of this many bits, so that a message id has room for it."""
COUNTER_BITS = 56
INDEX_BITS = 6

_HANDLE = struct.Struct(">QHQI")
_CHECKSUM = struct.Struct(">I")
HANDLE_LENGTH = 36
"""Characters of a receipt handle."""


def message_id(session: int, counter: int, index: int) -> str:
    """The UUID (version 8 of RFC 9562: custom) of a message, from the operation that sent it and its place therein."""
    low = f"{(0b10 << 62) | (counter << INDEX_BITS) | index:016x}"
    return f"{_session_part(session)}-{low[:4]}-{low[4:]}"


@lru_cache(maxsize=1024)
def _session_part(session: int) -> str:
    """The first three groups of a message id: the same for all that a manager's life sends."""
    high = f"{(session >> 12 << 16) | 0x8000 | (session & 0xFFF):016x}"
    return f"{high[:8]}-{high[8:12]}-{high[12:]}"


def encode_handle(shard: ShardKey, key: int, delivery: int) -> str:
    """A receipt handle: names one delivery of one message of one shard."""
    queue_id, _, number = shard.partition("/")
    packed = _HANDLE.pack(int(queue_id, 16), int(number), key, delivery)
    return base64.urlsafe_b64encode(packed + _CHECKSUM.pack(crc32(packed)) + b"\0").decode()


def decode_handle(handle: str) -> tuple[ShardKey, int, int] | None:
    """(shard, key, delivery), or None where it is not a handle that ``encode_handle`` made."""
    if len(handle) != HANDLE_LENGTH:
        return None
    try:
        raw = base64.b64decode(handle, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    packed, checksum = raw[: _HANDLE.size], raw[_HANDLE.size : _HANDLE.size + 4]
    if _CHECKSUM.pack(crc32(packed)) != checksum or raw[-1] != 0:
        return None
    queue_id, number, key, delivery = _HANDLE.unpack(packed)
    return shard_key(queue_id, number), key, delivery
