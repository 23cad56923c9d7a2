"""What is written down about a local cluster: DIR/cluster.json, and the lock on DIR.

Model: one process at a time, the holder of the lock on DIR/cluster.lock, writes cluster.json; anyone reads it. The file
is replaced whole, so a reader sees the old one or the new one. Ports and names in it outlive the processes: a cluster
started again on the same DIR is the same cluster.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from pathlib import Path
from typing import Final, Literal

import msgspec

from distribution_manager.drills.processes import ProcessId

STATE_FILE: Final = "cluster.json"
LOCK_FILE: Final = "cluster.lock"
SECRET_FILE: Final = "secret"
SECRET_BYTES: Final = 32

Kind = Literal["etcd", "node", "manager"]


class ClusterError(Exception):
    """What went wrong and what to do about it, in one line."""


class Member(msgspec.Struct):
    """One process of the cluster, running or not.

    ``joins``: a node that came later: it announces itself, and its region's manager is not told of it.
    ``ports``: etcd: ``client`` and ``peer``; node: ``link``; manager: ``client`` and ``link``.
    """

    name: str
    kind: Kind
    region: str
    ports: dict[str, int]
    process: ProcessId | None = None
    joins: bool = False


class ClusterState(msgspec.Struct):
    """``supervisor``: the ``shadowq up`` in whose foreground the cluster runs; None when it is detached."""

    cluster: str
    regions: list[str]
    members: dict[str, Member]
    supervisor: ProcessId | None = None


def load_state(data_dir: Path) -> ClusterState | None:
    """None where there has never been a cluster. Raises ClusterError."""
    path = data_dir / STATE_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=ClusterState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ClusterError(f"{path} cannot be read ({error}): repair it, or use another --data directory") from error


def save_state(data_dir: Path, state: ClusterState) -> None:
    path, new = data_dir / STATE_FILE, data_dir / f"{STATE_FILE}.new"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n")
    new.replace(path)


def make_secret(data_dir: Path) -> None:
    """The secret that this cluster's managers and nodes share, made once and readable by its owner only."""
    path = data_dir / SECRET_FILE
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(secrets.token_hex(SECRET_BYTES) + "\n")


def read_secret(data_dir: Path) -> str:
    """Empty where there is none."""
    try:
        return (data_dir / SECRET_FILE).read_text().strip()
    except OSError:
        return ""


class DataLock:
    """The right to start and stop a data directory's processes; the kernel takes it from a holder that ends."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / LOCK_FILE
        self._file: int | None = None

    @property
    def held(self) -> bool:
        return self._file is not None

    def acquire(self) -> bool:
        """Without waiting: whether it is now held by this object."""
        if self._file is not None:
            return True
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(file)
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
