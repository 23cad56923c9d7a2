"""Reads an SQLite write-ahead log and says whether SQLite's own recovery would silently lose something from it.

Model (sqlite.org/fileformat2.html, section 4): a 32-byte header with two salts, then frames of a 24-byte header and a
page; each frame repeats the salts and carries a checksum over everything before it. SQLite replays up to the last
commit frame before the first frame that does not fit, and drops the rest without a word.

A transaction is synced before the next one writes. So power loss leaves at most one transaction that is not whole:
behind the first bad frame there may be frames of that transaction, its commit frame at the very end, then frames of an
older generation (other salts) or nothing. A frame of this generation behind such a commit frame proves that a
transaction began after the broken one had been synced: what was durable is damaged. Where the broken transaction is the
last one, only the mark (see ``mark``) knows whether it had been acknowledged.
Precondition: whoever opens a database empties its log first (wal_checkpoint(TRUNCATE)), never rolls back frames already
written (cache_spill off), and strikes out those of a transaction for which the disk had no room, so that no frames of
an abandoned transaction stay behind the end.
"""

from __future__ import annotations

import struct
from array import array
from pathlib import Path
from typing import BinaryIO, NamedTuple

from shadow_nodes.protocol.errors import CorruptError

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
_MAGIC = 0x377F0682
_HEADER = struct.Struct(">IIII8sII")
_FRAME = struct.Struct(">II8sII")
_SWAPPED = array("I", [1]).tobytes()[0] == 0
"""This machine is big-endian; the logs read here are little-endian ones."""


class WalScan(NamedTuple):
    """What SQLite will replay. ``frames`` 0 and ``salts`` empty where there is no log."""

    frames: int
    """Up to and including the last commit frame."""
    salts: bytes
    """Both salts, 8 bytes as in the file."""
    checksums: dict[int, tuple[int, int]]
    """Of every commit frame, by its number, counted from 1."""
    pages: int
    """Size of the database after the last commit, in pages; 0 where there is none."""
    page_numbers: set[int]
    """The pages that the log replaces."""


NO_WAL = WalScan(0, b"", {}, 0, set())


def scan_wal(path: Path, page_bytes: int) -> WalScan:
    """Raises CorruptError where frames that had been synced are damaged; OSError."""
    try:
        with path.open("rb") as file:
            return _scan(file, page_bytes)
    except FileNotFoundError:
        return NO_WAL


def _scan(file: BinaryIO, page_bytes: int) -> WalScan:
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return NO_WAL  # the header is synced before the first frame is written
    magic, version, stored_page_bytes, _, salts, first, second = _HEADER.unpack(header)
    chain = checksum(header[:24], (0, 0))
    if chain != (first, second) or magic != _MAGIC or version != 3_007_000 or stored_page_bytes != page_bytes:
        if header == bytes(HEADER_BYTES) and not file.read(1):
            return NO_WAL  # created, its header never synced
        raise CorruptError("the write-ahead log's header is damaged")
    frames, pages, number = 0, 0, 0
    checksums: dict[int, tuple[int, int]] = {}
    page_numbers: set[int] = set()
    uncommitted: list[int] = []
    frame_bytes = FRAME_HEADER_BYTES + page_bytes
    while len(frame := file.read(frame_bytes)) == frame_bytes:
        page_number, size_pages, frame_salts, first, second = _FRAME.unpack_from(frame)
        if frame_salts != salts or page_number == 0:
            break
        following = checksum(frame[FRAME_HEADER_BYTES:], checksum(frame[:8], chain))
        if following != (first, second):
            break
        chain, number = following, number + 1
        uncommitted.append(page_number)
        if size_pages:
            frames, pages = number, size_pages
            checksums[number] = chain
            page_numbers.update(uncommitted)
            uncommitted = []
    _refuse_damage(file, number, frame_bytes, salts)
    return WalScan(frames, salts, checksums, pages, page_numbers)


def _refuse_damage(file: BinaryIO, good_frames: int, frame_bytes: int, salts: bytes) -> None:
    """Looks through what lies behind the last good frame; see the top of this file."""
    number = good_frames
    committed = False
    while True:
        file.seek(HEADER_BYTES + number * frame_bytes)
        header = file.read(FRAME_HEADER_BYTES)
        if len(header) < FRAME_HEADER_BYTES:
            return
        _, size_pages, frame_salts, _, _ = _FRAME.unpack(header)
        if frame_salts == salts:
            if committed:
                raise CorruptError(f"frame {good_frames + 1} of the write-ahead log is damaged; later ones are there")
            committed = size_pages != 0
        number += 1


def checksum(content: bytes, seed: tuple[int, int]) -> tuple[int, int]:
    """SQLite's running checksum over a multiple of 8 bytes, little-endian words."""
    words = array("I", content)
    if _SWAPPED:
        words.byteswap()
    first, second = seed
    pairs = iter(words)
    for even, odd in zip(pairs, pairs, strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
