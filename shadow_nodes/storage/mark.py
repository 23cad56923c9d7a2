"""The mark: how far the write-ahead log is known to be durable, in a file of its own that costs no sync.

Model: after every commit the end of the log (its salts, its number of frames, the checksum of the last one) is written
to a few bytes that are not synced. Invariant: what a mark says was durable before it was written, so a log that ends
before it, or differs at it, has lost acknowledged transactions, though no scan of the log alone could tell. After a
power loss the mark may be older than the log by as much as the kernel keeps unwritten, about 30 s; it is never newer.
"""

from __future__ import annotations

import enum
import os
import struct
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from shadow_nodes.protocol.errors import CorruptError
from shadow_nodes.storage.wal_scan import WalScan

_FORMAT = struct.Struct("<8sII8sIII")
_MAGIC = b"shadowq1"
_HALF = 1 << 31


class LogState(enum.IntEnum):
    EMPTY = 1
    """Nothing is known to be in the log."""
    WRITTEN = 2
    """The log is there, as far as the mark says."""
    FOLDING = 3
    """The log, as far as the mark says, is being moved into the database: it is whole, or gone."""


class MarkValue(NamedTuple):
    state: LogState
    frames: int = 0
    salts: bytes = bytes(8)
    checksum: tuple[int, int] = (0, 0)


def encode_mark(value: MarkValue) -> bytes:
    packed = _FORMAT.pack(_MAGIC, value.state, value.frames, value.salts, *value.checksum, 0)[:-4]
    return packed + struct.pack("<I", crc32(packed))


def read_mark(path: Path) -> MarkValue:
    """Raises CorruptError where the mark is missing or damaged, OSError."""
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        raise CorruptError("the mark file is missing") from None
    if len(packed) != _FORMAT.size or crc32(packed[:-4]) != int.from_bytes(packed[-4:], "little"):
        raise CorruptError("the mark file is damaged")
    magic, state, frames, salts, first, second, _ = _FORMAT.unpack(packed)
    if magic != _MAGIC:
        raise CorruptError("the mark file is of another kind")
    return MarkValue(LogState(state), frames, salts, (first, second))


def refuse_lost_frames(mark: MarkValue, scan: WalScan) -> None:
    """Raises CorruptError where the log lacks what the mark says was durable in it."""
    if mark.state is LogState.EMPTY or mark.frames == 0:
        return
    if not scan.salts:
        if mark.state is LogState.FOLDING:
            return
        raise CorruptError(f"the write-ahead log is missing; it had {mark.frames} frames")
    if scan.salts != mark.salts:
        restarts = (_first_salt(scan.salts) - _first_salt(mark.salts)) % (2 * _HALF)
        if 0 < restarts < _HALF:
            return  # begun again after everything in it was in the database; the mark had not reached the disk
        raise CorruptError("the write-ahead log is an older one than was last written")
    if scan.frames < mark.frames:
        raise CorruptError(f"the write-ahead log ends after {scan.frames} of {mark.frames} frames")
    if scan.checksums.get(mark.frames) != mark.checksum:
        raise CorruptError(f"frame {mark.frames} of the write-ahead log is not the one written")


def _first_salt(salts: bytes) -> int:
    return int.from_bytes(salts[:4], "big")


class Mark:
    """The mark file, open for writing. Methods raise OSError."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY)

    def write(self, value: MarkValue) -> None:
        """Not synced."""
        os.pwrite(self._descriptor, encode_mark(value), 0)

    def write_durably(self, value: MarkValue) -> None:
        self.write(value)
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
