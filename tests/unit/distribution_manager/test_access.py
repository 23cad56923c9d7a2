"""Where access keys come from, and what ``shadowq keys`` refuses before it asks etcd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from distribution_manager import cli
from distribution_manager.access import Access, KeysFile
from distribution_manager.cli.arguments import FAILED
from distribution_manager.config import ConfigError, ManagerConfig
from distribution_manager.core.directory import Directory
from distribution_manager.core.metadata import AccessKeyRecord, encode_record
from distribution_manager.core.transactions import Change, KeyValue, Snapshot
from distribution_manager.sqs.access.keys import InvalidKeyError
from distribution_manager.sqs.config import SqsConfig

SECRET = "s3cr3t-s3cr3t-s3cr3t"


def write_keys(path: Path, *ids: str) -> None:
    path.write_text(json.dumps([{"access_key_id": name, "user": "me", "secret": SECRET} for name in ids]))


def directory() -> Directory:
    nothing = lambda _: None  # noqa: E731 - four times the same
    return Directory(on_shard=nothing, on_grave=nothing, on_queue=nothing, on_manager=nothing)


def config(**values: Any) -> ManagerConfig:
    return ManagerConfig.from_text({"name": "m", "region": "r", "etcd": "127.0.0.1:1", **values})


# --- the file ------------------------------------------------------------------------------------------------------


def test_a_keys_file_is_read_again_when_it_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    write_keys(path, "AKIA1")
    keys = KeysFile(path)
    assert keys.find("AKIA1") is not None
    same = keys.find("AKIA1")
    keys.reload(changed_only=True)
    assert keys.find("AKIA1") is same

    write_keys(path, "AKIA2", "AKIA3")
    keys.reload(changed_only=True)
    assert [keys.find(f"AKIA{number}") is not None for number in (1, 2, 3)] == [False, True, True]

    path.write_text("[")
    keys.reload()
    assert keys.find("AKIA2") is not None
    assert "the access keys stay as they were" in caplog.text
    assert SECRET not in caplog.text
    path.unlink()
    keys.reload(changed_only=True)
    assert keys.find("AKIA2") is not None
    with pytest.raises(InvalidKeyError):
        KeysFile(path)


def test_what_a_manager_lets_in(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write_keys(path, "AKIA1")
    assert Access(config(), SqsConfig(), directory()).gate is None
    assert Access(config(require_auth=True), SqsConfig(), directory()).keys_file is None
    access = Access(config(require_auth=True, keys_file=str(path)), SqsConfig(), directory())
    assert access.gate is not None
    assert access.keys_file is not None
    for name in ("keys_file", "key_encryption_file"):
        path.write_text("x")
        with pytest.raises(ConfigError, match=f"^{name.replace('_', '-')}: ") as raised:
            Access(config(require_auth=True, **{name: str(path)}), SqsConfig(), directory())
        assert "\n" not in str(raised.value)


# --- etcd ----------------------------------------------------------------------------------------------------------


def test_the_directory_follows_etcd() -> None:
    record = AccessKeyRecord(access_key_id="AKIA1", user="me", secret=SECRET)
    known = directory()
    known.snapshot(Snapshot(5, [KeyValue("keys/AKIA1", encode_record(record), 5)]))
    assert known.access_keys == {"AKIA1": record}
    known.changes([Change("keys/AKIA1", b"{", 6), Change("keys/AKIA2", encode_record(record), 6)])
    assert list(known.access_keys) == ["AKIA2"]
    known.changes([Change("keys/AKIA2", None, 7)])
    assert known.access_keys == {}


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["create", "a b"], "user: must be"),
        (["create", "me", "--account", "1"], "account: must be 12 digits"),
        (["create", "me", "--allow", "Fly:*"], "grants: 'Fly' is not an action"),
        (["create", "me", "--requests-per-second", "-1"], "requests per second"),
        (["create", "me", "--key-encryption-file", "/nowhere"], "key-encryption-file: /nowhere cannot be read"),
        (["list", "--etcd", "x"], "etcd: 'x' is not host:port"),
        (["list", "--data", "/nowhere"], "data: /nowhere holds no cluster"),
    ],
)
def test_misuse_of_keys(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["keys", *arguments]) == FAILED
    said = capsys.readouterr()
    assert said.err.startswith(f"shadowq: {text}")
    assert len(said.err.splitlines()) == 1
    assert said.out == ""


def test_grants_need_both_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["keys", "create", "me", "--allow", "SendMessage"])
    assert "is not ACTIONS:QUEUES" in capsys.readouterr().err
