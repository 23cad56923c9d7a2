"""Joins the gate with where access keys come from: etcd's copy in the directory, or a file."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from distribution_manager.config import ConfigError, ManagerConfig
from distribution_manager.core.directory import Directory
from distribution_manager.core.metadata import AccessKeyRecord
from distribution_manager.sqs.access.gate import SignatureGate
from distribution_manager.sqs.access.keys import InvalidKeyError, KeyRing, read_keys_file
from distribution_manager.sqs.access.vault import Vault, VaultError
from distribution_manager.sqs.config import SqsConfig

POLL_SECONDS = 2.0

log = logging.getLogger(__name__)


class KeysFile:
    """The keys of a file, read again when it changes. A file that has become wrong leaves them as they were."""

    def __init__(self, path: Path) -> None:
        """Raises InvalidKeyError."""
        self._path = path
        self._read = _state(path)
        self._keys: Mapping[str, AccessKeyRecord] = read_keys_file(path)

    def find(self, access_key_id: str) -> AccessKeyRecord | None:
        return self._keys.get(access_key_id)

    def reload(self, *, changed_only: bool = False) -> None:
        state = _state(self._path)
        if changed_only and state == self._read:
            return
        self._read = state
        try:
            self._keys = read_keys_file(self._path)
        except InvalidKeyError as error:
            log.error("the access keys stay as they were: %s", error)
        else:
            log.info("%d access keys are read from %s", len(self._keys), self._path)

    async def watch(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.reload(changed_only=True)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino, status.st_size


class Access:
    """``gate`` is None with authentication off; ``keys_file`` where keys come from a file. Raises ConfigError."""

    def __init__(self, config: ManagerConfig, sqs: SqsConfig, directory: Directory) -> None:
        self.gate: SignatureGate | None = None
        self.keys_file: KeysFile | None = None
        if not config.require_auth:
            return
        try:
            if config.keys_file is not None:
                self.keys_file = KeysFile(config.keys_file)
            vault = None if config.key_encryption_file is None else Vault.read(config.key_encryption_file)
        except InvalidKeyError as error:
            raise ConfigError(f"keys-file: {error}") from error
        except VaultError as error:
            raise ConfigError(f"key-encryption-file: {error}") from error
        ring = KeyRing(
            directory.access_keys.get if self.keys_file is None else self.keys_file.find,
            sqs.account,
            vault,
            requests_per_second=config.key_requests_per_second,
            connections_max=config.key_connections_max,
            now_s=time.monotonic,
        )
        self.gate = SignatureGate(sqs, ring, frozenset(config.signing_regions))
