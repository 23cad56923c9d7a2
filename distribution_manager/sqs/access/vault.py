"""Secrets of access keys as they lie in etcd: encrypted under a key file that etcd never sees.

Model: the key file has one passphrase of at least KEY_CHARACTERS_MIN characters a line (``openssl rand -hex 32`` makes
one). The first encrypts; all decrypt, so that a new one is put on top and old records stay readable. A sealed secret is
bound to its access key id, and cannot be moved to another.

AES-GCM is the ``cryptography`` package's: the standard library has no cipher, and one is not written at home.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_CHARACTERS_MIN = 32
NONCE_BYTES = 12
_PURPOSE = b"shadowq access key secrets 1"


class VaultError(ValueError):
    """A key file cannot be used, or a secret cannot be opened with it. Never says anything of either."""


class Vault:
    def __init__(self, passphrases: list[str]) -> None:
        """Raises VaultError."""
        if not passphrases or any(len(phrase) < KEY_CHARACTERS_MIN for phrase in passphrases):
            raise VaultError(
                f"needs lines of at least {KEY_CHARACTERS_MIN} random characters: make one with openssl rand -hex 32"
            )
        self._ciphers = [AESGCM(_derived(phrase.encode())) for phrase in passphrases]

    @classmethod
    def read(cls, path: Path) -> Vault:
        """Raises VaultError."""
        try:
            lines = path.read_text("utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise VaultError(f"{path} cannot be read") from error
        try:
            return cls([line.strip() for line in lines if line.strip()])
        except VaultError as error:
            raise VaultError(f"{path} {error}") from None

    def seal(self, access_key_id: str, secret: str) -> str:
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[0].encrypt(nonce, secret.encode(), access_key_id.encode())
        return base64.b64encode(nonce + sealed).decode()

    def open(self, access_key_id: str, sealed: str) -> str:
        """Raises VaultError."""
        try:
            blob = base64.b64decode(sealed, validate=True)
        except (binascii.Error, ValueError) as error:
            raise VaultError(f"the secret of {access_key_id} is damaged") from error
        for cipher in self._ciphers:
            try:
                return cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], access_key_id.encode()).decode()
            except (InvalidTag, ValueError):
                continue
        raise VaultError(f"the secret of {access_key_id} is encrypted under another key file")


def _derived(passphrase: bytes) -> bytes:
    """A cipher's key. The passphrase is random, so that it needs no stretching."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=_PURPOSE).derive(passphrase)
