"""Disk space held back for when there is no more: a file that is given up so that deletes and checkpoints can go on.

Model: the file is there (``held``), or it was given up and is made again when there is room. It holds nothing.
Source: the same is done by etcd's space quota and by Kafka operators' ballast files; here the node does it itself.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from shadow_nodes.protocol.limits import MIB

RESERVE = "reserve"
RESERVE_BYTES_MAX = 32 * MIB
"""Room for a shard's checkpoint (CHECKPOINT_LOG_BYTES_MAX) in the write-ahead log and in the database."""
RESERVE_FRACTION = 0.05
"""Of a small disk, no more than this."""


class Reserve:
    def __init__(self, path_dir: Path) -> None:
        """Raises OSError where the directory cannot be looked at."""
        self._path = path_dir / RESERVE
        self.size_bytes = min(RESERVE_BYTES_MAX, int(shutil.disk_usage(path_dir).total * RESERVE_FRACTION))
        self.held = self._path.exists() and self._path.stat().st_size >= self.size_bytes

    def give_up(self) -> bool:
        """Frees the space. False where that has been done already."""
        if not self.held:
            return False
        self.held = False
        with suppress(FileNotFoundError):
            self._path.unlink()
        return True

    def take_back(self) -> bool:
        """Makes the file again. False where there is no room for it."""
        if not self.held:
            try:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
                try:
                    os.posix_fallocate(descriptor, 0, self.size_bytes)
                finally:
                    os.close(descriptor)
                self.held = True
            except OSError:
                with suppress(OSError):
                    self._path.unlink()
        return self.held
