"""What a node reports of its resources: its own processor and memory, the disk under its data.

A disk is nearly full while less is free than DISK_LOW_BYTES or DISK_LOW_FRACTION of it, whichever is less; it has room
again when half as much again is free, so that a queue at the edge does not go back and forth.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from shadow_nodes.protocol.limits import MIB
from shadow_nodes.protocol.messages import Load

LOAD_INTERVAL_SECONDS = 1.0
DISK_LOW_BYTES = 256 * MIB
"""More than a node can write in LOAD_INTERVAL_SECONDS: it says that its disk is nearly full before it is full."""
DISK_LOW_FRACTION = 0.2
DISK_ROOM_FACTOR = 1.5
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class LoadMeter:
    """``cpu`` is the share of one core since the last measurement, 1 at most: the event loop has only one."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._wall = time.monotonic()
        self._cpu = time.process_time()
        self._has_room = True

    def measure(self, shards: int, spare_bytes: int) -> Load:
        """``spare_bytes``: what the store can write without taking any of the disk's free space. Raises OSError."""
        wall, cpu = time.monotonic(), time.process_time()
        share = (cpu - self._cpu) / max(wall - self._wall, 1e-6)
        self._wall, self._cpu = wall, cpu
        disk = shutil.disk_usage(self._data)
        self._has_room = has_room(disk.free + spare_bytes, disk.total, self._has_room)
        return Load(min(share, 1.0), _resident_bytes(), disk.free, disk.free / disk.total, shards, self._has_room)


def has_room(free_bytes: int, total_bytes: int, had_room: bool) -> bool:
    """Whether queues on this disk may grow."""
    low_bytes = min(DISK_LOW_BYTES, total_bytes * DISK_LOW_FRACTION)
    return free_bytes >= low_bytes * (1 if had_room else DISK_ROOM_FACTOR)


def _resident_bytes() -> int:
    """0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
