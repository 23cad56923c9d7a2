"""Records of access keys, the vault that seals their secrets, and limits."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distribution_manager.core.metadata import AccessKeyRecord, Grant, decode_record, encode_record
from distribution_manager.sqs.access.keys import InvalidKeyError, KeyRing, check_record, read_keys_file
from distribution_manager.sqs.access.limits import ConnectionLimit, TokenBucket
from distribution_manager.sqs.access.vault import Vault, VaultError

SECRET = "s3cr3t-s3cr3t-s3cr3t"
RECORD = AccessKeyRecord(access_key_id="AKIA1", user="me", secret=SECRET)
PHRASE, OTHER = "a" * 32, "b" * 32


# --- records -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"access_key_id": "a/b"},
        {"user": ""},
        {"account": "12"},
        {"secret": ""},
        {"secret": "short"},
        {"sealed": "both"},
        {"requests_per_second": -1},
        {"grants": (Grant(actions=()),)},
        {"grants": (Grant(actions=("SendMessages",)),)},
        {"grants": (Grant(queues=("",)),)},
    ],
)
def test_invalid_records(changes: dict[str, Any]) -> None:
    check_record(RECORD)
    with pytest.raises(InvalidKeyError) as raised:
        check_record(msgspec.structs.replace(RECORD, **changes))
    assert SECRET not in str(raised.value)


def test_secrets_are_not_shown() -> None:
    assert SECRET not in repr(RECORD)
    assert decode_record(AccessKeyRecord, "keys/AKIA1", encode_record(RECORD)) == RECORD


def test_keys_file(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    with pytest.raises(InvalidKeyError, match="cannot be read"):
        read_keys_file(path)
    path.write_text(json.dumps([{"access_key_id": "AKIA1", "user": "me", "secret": SECRET}]))
    assert read_keys_file(path) == {"AKIA1": RECORD}
    for text in (
        "{",
        '[{"user": 1}]',
        json.dumps([msgspec.to_builtins(RECORD)] * 2),
        '[{"access_key_id":"A","user":"u"}]',
    ):
        path.write_text(text)
        with pytest.raises(InvalidKeyError) as raised:
            read_keys_file(path)
        assert SECRET not in str(raised.value)


# --- vault ---------------------------------------------------------------------------------------------------------


def test_sealed_secrets_open_with_the_key_only() -> None:
    sealed = Vault([PHRASE]).seal("AKIA1", SECRET)
    assert SECRET not in sealed
    assert Vault([PHRASE]).seal("AKIA1", SECRET) != sealed
    assert Vault([OTHER, PHRASE]).open("AKIA1", sealed) == SECRET
    for vault, key_id, text in (
        (Vault([OTHER]), "AKIA1", sealed),
        (Vault([PHRASE]), "AKIA2", sealed),
        (Vault([PHRASE]), "AKIA1", sealed[:-4]),
        (Vault([PHRASE]), "AKIA1", "?"),
        (Vault([PHRASE]), "AKIA1", ""),
    ):
        with pytest.raises(VaultError) as raised:
            vault.open(key_id, text)
        assert SECRET not in str(raised.value)


def test_key_files(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(VaultError, match="cannot be read"):
        Vault.read(path)
    path.write_text("short\n")
    with pytest.raises(VaultError, match="at least 32") as raised:
        Vault.read(path)
    assert "short" not in str(raised.value)
    path.write_text(f"{os.urandom(32).hex()}\n\n{PHRASE}\n")
    assert Vault.read(path).open("AKIA1", Vault([PHRASE]).seal("AKIA1", SECRET)) == SECRET


# --- the ring ------------------------------------------------------------------------------------------------------


def test_revoked_and_changed_keys(caplog: pytest.LogCaptureFixture) -> None:
    records: dict[str, AccessKeyRecord] = {"AKIA1": RECORD}
    ring = KeyRing(records.get, "000000000000", requests_per_second=5, now_s=lambda: 0.0)
    first = ring.find("AKIA1")
    assert first is not None
    assert ring.find("AKIA1") is first
    assert (first.principal, first.bucket.rate) == ("arn:aws:iam::000000000000:user/me", 5)
    assert first.allows("SendMessage", "orders")

    records["AKIA1"] = msgspec.structs.replace(
        RECORD, account="111122223333", grants=(Grant(actions=("receive*", "GetQueueUrl"), queues=("a*", "b")),)
    )
    second = ring.find("AKIA1")
    assert second is not None
    assert second.bucket is first.bucket
    assert second.principal == "arn:aws:iam::111122223333:user/me"
    allowed = [
        (action, queue)
        for action in ("ReceiveMessage", "SendMessage", "GetQueueUrl")
        for queue in ("abc", "b", "bc", "")
        if second.allows(action, queue) and second.allows(action, queue)
    ]
    assert allowed == [("ReceiveMessage", "abc"), ("ReceiveMessage", "b"), ("GetQueueUrl", "abc"), ("GetQueueUrl", "b")]

    records["AKIA1"] = msgspec.structs.replace(RECORD, requests_per_second=7)
    third = ring.find("AKIA1")
    assert third is not None
    assert third.bucket.rate == 7

    records["AKIA1"] = AccessKeyRecord(access_key_id="AKIA1", user="me", sealed=Vault([PHRASE]).seal("AKIA1", SECRET))
    assert ring.find("AKIA1") is None
    assert ring.find("AKIA1") is None
    assert [record.getMessage() for record in caplog.records] == [
        "access key AKIA1 cannot be used: its secret is encrypted, and this manager has no key-encryption-file"
    ]
    assert KeyRing(records.get, "0" * 12, Vault([PHRASE]), now_s=lambda: 0.0).find("AKIA1") is not None

    del records["AKIA1"]
    assert ring.find("AKIA1") is None


# --- limits --------------------------------------------------------------------------------------------------------


@given(st.floats(0.5, 100), st.lists(st.floats(0, 3), max_size=60))
def test_a_bucket_never_gives_more_than_its_rate(rate: float, pauses: list[float]) -> None:
    now_s, given_away = 100.0, 0
    bucket = TokenBucket(rate, now_s)
    for pause in pauses:
        now_s += pause
        given_away += bucket.take(now_s)
    assert given_away <= max(1.0, rate) + rate * (now_s - 100.0) + 1e-6


def test_a_bucket_fills_again() -> None:
    bucket = TokenBucket(2, 0.0)
    assert [bucket.take(0.0) for _ in range(3)] == [True, True, False]
    assert [bucket.take(0.5) for _ in range(2)] == [True, False]
    assert [bucket.take(10.0) for _ in range(3)] == [True, True, False]
    assert all(TokenBucket(0, 0.0).take(0.0) for _ in range(100))


class FakeConnection:
    transport: object | None = "open"


def test_connections_count_while_they_are_open() -> None:
    one, two, three = FakeConnection(), FakeConnection(), FakeConnection()
    limit = ConnectionLimit(2)
    assert [limit.admit(item) for item in (one, two, one, three)] == [True, True, True, False]
    two.transport = None
    assert [limit.admit(item) for item in (three, one)] == [True, True]
    assert ConnectionLimit(0).admit(one)
