"""A store's directory: its files, its lock, and where damaged files go.

Model: one process holds the lock on ``lock`` while it has the directory open; the kernel takes it back.
Invariant: a database file has its final name only once it is complete and durable, so whatever lacks it beside other
files of a store is damage, not a beginning.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from shadow_nodes.protocol.errors import ShadowQError

DATABASE = "store.db"
WAL = "store.db-wal"
WAL_INDEX = "store.db-shm"
MARK = "mark"
CONDEMNED = "condemned"
CREATING = "creating.db"
LOCK = "lock"
FILES = (DATABASE, WAL, WAL_INDEX, CONDEMNED, MARK)
"""All files of a store, in the order in which they are moved aside: what is left by a crash in between is not empty."""


class DirectoryInUseError(ShadowQError):
    """Another process, or another store object of this one, has the directory open."""


class DirectoryLock:
    """Held from construction to ``release`` or the end of the process. Raises DirectoryInUseError, OSError."""

    def __init__(self, path_dir: Path) -> None:
        self._descriptor = os.open(path_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._descriptor)
            raise DirectoryInUseError(f"data directory {path_dir} is in use by process {holder}") from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def sync_directory(path_dir: Path) -> None:
    """Makes names created, renamed or removed in a directory durable. Raises OSError."""
    descriptor = os.open(path_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Creates or replaces a small file. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


def move_aside(path_dir: Path) -> Path:
    """Moves every file of a store into a new ``corrupt-<n>`` ; the caller holds the lock. Raises OSError."""
    number = 1
    while (path_dir / f"corrupt-{number}").exists():
        number += 1
    aside = path_dir / f"corrupt-{number}"
    aside.mkdir()
    for name in FILES:
        if (path_dir / name).exists():
            (path_dir / name).rename(aside / name)
            sync_directory(path_dir)
    sync_directory(aside)
    return aside
