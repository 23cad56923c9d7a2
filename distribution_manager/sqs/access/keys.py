"""Access keys as the gate uses them: secrets opened, grants compiled, limits counting.

Model: a source (etcd's copy in the directory, or a file) says what record an access key id has now; a Credential is
made of a record when it is first asked for, and anew when the record is another.
Invariant: a key that is revoked, or changed, is so with the next request.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from distribution_manager.core.metadata import AccessKeyRecord, Grant
from distribution_manager.sqs.access.limits import ConnectionLimit, TokenBucket
from distribution_manager.sqs.access.patterns import Matcher, any_matcher, matcher
from distribution_manager.sqs.access.policy import ACTIONS
from distribution_manager.sqs.access.signature import SigningKeys
from distribution_manager.sqs.access.vault import Vault, VaultError

ACCESS_KEY_ID = re.compile(r"[A-Za-z0-9]{3,128}", re.ASCII)
USER = re.compile(r"[A-Za-z0-9+=,.@_-]{1,64}", re.ASCII)
ACCOUNT = re.compile(r"\d{12}", re.ASCII)
SECRET_CHARACTERS_MIN = 16
ALLOWED_CACHE_MAX = 10_000

_log = logging.getLogger(__name__)


class InvalidKeyError(ValueError):
    """An access key's record is not valid; the message begins with the setting."""


def check_record(record: AccessKeyRecord) -> None:
    """Raises InvalidKeyError."""
    if not ACCESS_KEY_ID.fullmatch(record.access_key_id):
        raise InvalidKeyError("access key id: must be 3 to 128 letters and digits")
    if not USER.fullmatch(record.user):
        raise InvalidKeyError("user: must be 1 to 64 letters, digits and any of + = , . @ _ -")
    if record.account and not ACCOUNT.fullmatch(record.account):
        raise InvalidKeyError("account: must be 12 digits")
    if bool(record.secret) == bool(record.sealed):
        raise InvalidKeyError("secret: must be given, in plain or sealed")
    if record.secret and len(record.secret) < SECRET_CHARACTERS_MIN:
        raise InvalidKeyError(f"secret: must have at least {SECRET_CHARACTERS_MIN} characters")
    if record.requests_per_second < 0 or record.connections_max < 0:
        raise InvalidKeyError("requests per second, connections: must not be negative")
    for grant in record.grants:
        _check_grant(grant)


def _check_grant(grant: Grant) -> None:
    if not grant.actions or not grant.queues or not all((*grant.actions, *grant.queues)):
        raise InvalidKeyError("grants: each must name actions and queues")
    for action in grant.actions:
        matches = matcher(action, ignore_case=True)
        if not any(matches(known) for known in ACTIONS):
            raise InvalidKeyError(f"grants: {action!r} is not an action of SQS")


class Credential:
    """``allows``: whether the key's own grants let it do an action on a queue of that name."""

    __slots__ = (
        "_allowed",
        "_grants",
        "account",
        "bucket",
        "connections",
        "keys",
        "principal",
        "record",
        "sender_id",
    )

    def __init__(
        self, record: AccessKeyRecord, secret: str, account: str, bucket: TokenBucket, connections: ConnectionLimit
    ) -> None:
        self.record = record
        self.account = record.account or account
        self.sender_id = record.access_key_id
        self.principal = f"arn:aws:iam::{self.account}:user/{record.user}"
        self.keys = SigningKeys(secret)
        self.bucket = bucket
        self.connections = connections
        self._grants = [_compiled(grant) for grant in record.grants]
        self._allowed: dict[tuple[str, str], bool] = {}

    def __repr__(self) -> str:
        return f"Credential({self.record.access_key_id!r})"

    def allows(self, action: str, queue_name: str) -> bool:
        asked = (action, queue_name)
        allowed = self._allowed.get(asked)
        if allowed is None:
            if len(self._allowed) >= ALLOWED_CACHE_MAX:
                self._allowed.clear()
            allowed = any(actions(action) and queues(queue_name) for actions, queues in self._grants)
            self._allowed[asked] = allowed
        return allowed


def _compiled(grant: Grant) -> tuple[Matcher, Matcher]:
    return any_matcher(grant.actions, ignore_case=True), any_matcher(grant.queues)


class KeyRing:
    """``find_record``: the record of an access key id as of now. ``account``: of keys that name none.

    ``requests_per_second`` and ``connections_max``: of keys that name none; 0 for no limit.
    """

    def __init__(
        self,
        find_record: Callable[[str], AccessKeyRecord | None],
        account: str,
        vault: Vault | None = None,
        *,
        requests_per_second: int = 0,
        connections_max: int = 0,
        now_s: Callable[[], float],
    ) -> None:
        self._find_record = find_record
        self._account = account
        self._vault = vault
        self._requests_per_second = requests_per_second
        self._connections_max = connections_max
        self._now_s = now_s
        self._credentials: dict[str, Credential] = {}
        self._complained: set[str] = set()

    def find(self, access_key_id: str) -> Credential | None:
        record = self._find_record(access_key_id)
        known = self._credentials.get(access_key_id)
        if record is None:
            if known is not None:
                del self._credentials[access_key_id]
            return None
        if known is not None and known.record is record:
            return known
        return self._renew(record, known)

    def _renew(self, record: AccessKeyRecord, known: Credential | None) -> Credential | None:
        """A changed record does not refill the bucket, or forget connections, unless these limits changed."""
        try:
            secret = self._secret(record)
        except VaultError as error:
            if record.access_key_id not in self._complained:
                self._complained.add(record.access_key_id)
                _log.error("access key %s cannot be used: %s", record.access_key_id, error)
            return None
        rate = record.requests_per_second or self._requests_per_second
        bucket = known.bucket if known is not None and known.bucket.rate == rate else TokenBucket(rate, self._now_s())
        limit = record.connections_max or self._connections_max
        connections = ConnectionLimit(limit) if known is None or known.connections.limit != limit else known.connections
        credential = Credential(record, secret, self._account, bucket, connections)
        self._credentials[record.access_key_id] = credential
        self._complained.discard(record.access_key_id)
        return credential

    def _secret(self, record: AccessKeyRecord) -> str:
        """Raises VaultError."""
        if not record.sealed:
            return record.secret
        if self._vault is None:
            raise VaultError("its secret is encrypted, and this manager has no key-encryption-file")
        return self._vault.open(record.access_key_id, record.sealed)


def read_keys_file(path: Path) -> Mapping[str, AccessKeyRecord]:
    """A JSON list of records, as in etcd. Raises InvalidKeyError, whose message says nothing of secrets."""
    try:
        records = msgspec.json.decode(path.read_bytes(), type=list[AccessKeyRecord])
    except OSError as error:
        raise InvalidKeyError(f"{path} cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise InvalidKeyError(f"{path} is not a JSON list of access keys: {error}") from None
    keys: dict[str, AccessKeyRecord] = {}
    for record in records:
        try:
            check_record(record)
        except InvalidKeyError as error:
            raise InvalidKeyError(f"{path}: {record.access_key_id[:128]!r}: {error}") from None
        if record.access_key_id in keys:
            raise InvalidKeyError(f"{path}: {record.access_key_id!r} is there twice")
        keys[record.access_key_id] = record
    return keys
