"""``shadowq keys create|list|revoke``: access keys in etcd, made, shown without their secrets, and taken away.

Model: one transaction per command, over a connection of its own; managers learn of it from their watch.
Invariant: a secret is printed once, when it is made, and nowhere else; with a key file it reaches etcd encrypted only.
"""

from __future__ import annotations

import argparse
import secrets
import string
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from distribution_manager.cli.etcd import add_etcd_options, with_etcd
from distribution_manager.config import ConfigError
from distribution_manager.coordination.etcd import EtcdCoordination
from distribution_manager.core.metadata import (
    AccessKeyRecord,
    Grant,
    access_key_key,
    decode_record,
    encode_record,
)
from distribution_manager.core.transactions import ABSENT, Compare, Put, Remove, Transaction
from distribution_manager.sqs.access.keys import InvalidKeyError, check_record
from distribution_manager.sqs.access.vault import Vault, VaultError

ID_PREFIX = "SQKA"
ID_CHARACTERS = 16
SECRET_BYTES = 30
"""40 characters, as AWS's secrets have."""


def add_commands(commands: Any) -> None:
    """``commands``: argparse's, of ``shadowq``."""
    keys = commands.add_parser("keys", help="access keys of clients", description="Access keys of clients, in etcd.")
    actions = keys.add_subparsers(metavar="ACTION", required=True)

    create = _action(actions, "create", run_create, "make an access key; its secret is shown once")
    create.add_argument("user", metavar="USER", help="who it is for: the last part of arn:aws:iam::ACCOUNT:user/USER")
    create.add_argument(
        "--allow",
        action="append",
        type=_grant,
        metavar="ACTIONS:QUEUES",
        help="e.g. 'SendMessage,GetQueue*:orders-*'; may be repeated (default: everything, '*:*'; '' for nothing)",
    )
    create.add_argument("--account", default="", metavar="X", help="12 digits (default: the managers' own)")
    create.add_argument(
        "--requests-per-second", type=int, default=0, metavar="N", help="of each manager (default: any)"
    )
    create.add_argument("--connections-max", type=int, default=0, metavar="N", help="of each manager (default: any)")
    create.add_argument(
        "--key-encryption-file", type=Path, metavar="FILE", help="encrypt the secret in etcd under this file"
    )

    show = _action(actions, "list", run_list, "show access keys, without their secrets")
    show.add_argument("--json", action="store_true", help="as a JSON list")

    revoke = _action(actions, "revoke", run_revoke, "take access keys away, at once")
    revoke.add_argument("ids", metavar="ID", nargs="+", help="access key ids, as list shows them")


def _action(actions: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    add_etcd_options(parser)
    return parser


def _grant(text: str) -> Grant | None:
    if not text:
        return None
    actions, colon, queues = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{text!r} is not ACTIONS:QUEUES")
    return Grant(actions=tuple(actions.split(",")), queues=tuple(queues.split(",")))


# --- commands ------------------------------------------------------------------------------------------------------


def run_create(options: argparse.Namespace) -> int:
    access_key_id = ID_PREFIX + "".join(
        secrets.choice(string.ascii_uppercase + string.digits) for _ in range(ID_CHARACTERS)
    )
    secret = secrets.token_urlsafe(SECRET_BYTES)
    record = AccessKeyRecord(
        access_key_id=access_key_id,
        user=options.user,
        secret=secret,
        account=options.account,
        grants=(Grant(),) if options.allow is None else tuple(item for item in options.allow if item is not None),
        requests_per_second=options.requests_per_second,
        connections_max=options.connections_max,
        created_ms=time.time_ns() // 1_000_000,
    )
    try:
        check_record(record)
        if options.key_encryption_file is not None:
            sealed = Vault.read(options.key_encryption_file).seal(access_key_id, secret)
            record = msgspec.structs.replace(record, secret="", sealed=sealed)
    except InvalidKeyError as error:
        raise ConfigError(str(error)) from error
    except VaultError as error:
        raise ConfigError(f"key-encryption-file: {error}") from error
    key = access_key_key(access_key_id)

    async def create(etcd: EtcdCoordination) -> bool:
        outcome = await etcd.transact(Transaction([Compare(key, ABSENT)], [Put(key, encode_record(record))]))
        return outcome.succeeded

    if not with_etcd(options, create):
        raise ConfigError(f"access key id: {access_key_id} is taken: try again")
    if not record.sealed:
        print(
            "shadowq: WARNING: the secret lies in etcd UNENCRYPTED: whoever can read etcd, or a backup of it, can use "
            "this key. Give --key-encryption-file here and to every manager.",
            file=sys.stderr,
        )
    print(f"aws_access_key_id = {access_key_id}\naws_secret_access_key = {secret}", flush=True)
    print("shadowq: this is the only time that the secret is shown", file=sys.stderr)
    return 0


def run_list(options: argparse.Namespace) -> int:
    async def read(etcd: EtcdCoordination) -> list[AccessKeyRecord]:
        snapshot = await etcd.list_prefix(access_key_key(""))
        return [decode_record(AccessKeyRecord, item.key, item.value) for item in snapshot.items]

    shown = [_shown(record) for record in with_etcd(options, read)]
    if options.json:
        print(msgspec.json.format(msgspec.json.encode(shown), indent=2).decode())
        return 0
    for row in shown:
        grants = " ".join(f"{','.join(grant['actions'])}:{','.join(grant['queues'])}" for grant in row["grants"])
        account = f" account {row['account']}" if row["account"] else ""
        encrypted = "" if row["encrypted"] else " UNENCRYPTED"
        print(f"{row['access_key_id']}  {row['user']:<20} {row['created']}  {grants or 'nothing'}{account}{encrypted}")
    return 0


def _shown(record: AccessKeyRecord) -> dict[str, Any]:
    """What may be seen of a key."""
    row: dict[str, Any] = msgspec.to_builtins(record)
    for name in ("secret", "sealed", "created_ms"):
        row.pop(name, None)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created_ms // 1000))
    grants = [{"actions": grant.actions, "queues": grant.queues} for grant in record.grants]
    return {**row, "account": record.account, "grants": grants, "created": created, "encrypted": bool(record.sealed)}


def run_revoke(options: argparse.Namespace) -> int:
    async def revoke(etcd: EtcdCoordination) -> list[str]:
        missing = []
        for access_key_id in options.ids:
            key = access_key_key(access_key_id)
            found = await etcd.get(key)
            if found is None:
                missing.append(access_key_id)
            else:
                await etcd.transact(Transaction([], [Remove(key)]))
        return missing

    missing = with_etcd(options, revoke)
    if missing:
        raise ConfigError(f"{', '.join(missing)}: there is no such access key: see shadowq keys list")
    return 0
