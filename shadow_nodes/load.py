"""What a node reports of its resources: its own processor and memory, the disk under its data."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from shadow_nodes.protocol.messages import Load

LOAD_INTERVAL_SECONDS = 1.0
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class LoadMeter:
    """``cpu`` is the share of one core since the last measurement, 1 at most: the event loop has only one."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._wall = time.monotonic()
        self._cpu = time.process_time()

    def measure(self, shards: int) -> Load:
        wall, cpu = time.monotonic(), time.process_time()
        share = (cpu - self._cpu) / max(wall - self._wall, 1e-6)
        self._wall, self._cpu = wall, cpu
        disk = shutil.disk_usage(self._data)
        return Load(min(share, 1.0), _resident_bytes(), disk.free, disk.free / disk.total, shards)


def _resident_bytes() -> int:
    """0 where the system does not say."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0
