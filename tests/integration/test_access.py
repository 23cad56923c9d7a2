"""A cluster that asks for signatures, used by real boto3 clients, with keys that ``shadowq keys`` makes and revokes."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import boto3
import botocore.auth
import pytest
import urllib3
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from distribution_manager.coordination.etcd import EtcdCoordination
from distribution_manager.coordination.etcd_settings import EtcdSettings
from distribution_manager.drills.commands import Commands
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.state import ClusterState, Member
from tests.waiting import wait_for

pytestmark = pytest.mark.cluster

REGIONS = ["near", "far"]
WAIT_S = 20.0
until = partial(wait_for, within_s=WAIT_S)
OTHER_ACCOUNT = "111122223333"


class GuardedCommands(Commands):
    """Managers that ask for signatures."""

    def manager(self, state: ClusterState, member: Member, data_dir: Path) -> list[str]:
        command = super().manager(state, member, data_dir)
        return [*command, "--require-auth", "--key-encryption-file", str(data_dir / "encryption")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    data = tmp_path_factory.mktemp("guarded")
    (data / "encryption").write_text(secrets.token_hex(32))
    with LocalCluster(data, regions=REGIONS, port=0, commands=GuardedCommands()) as cluster:
        yield cluster


def keys(cluster: LocalCluster, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distribution_manager", "keys", arguments[0], "--data", cluster.data_dir]
    return subprocess.run(
        [str(part) for part in (*command, *arguments[1:])], capture_output=True, text=True, timeout=WAIT_S, check=False
    )


Pair = tuple[str, str]


def create_key(cluster: LocalCluster, *arguments: str | Path, sealed: bool = True) -> Pair:
    file = ("--key-encryption-file", cluster.data_dir / "encryption") if sealed else ()
    done = keys(cluster, "create", *arguments, *file)
    assert done.returncode == 0, done.stderr
    assert ("UNENCRYPTED" in done.stderr) is not sealed
    match = re.fullmatch(r"aws_access_key_id = (\w+)\naws_secret_access_key = (\S+)\n", done.stdout)
    assert match
    return match[1], match[2]


@pytest.fixture(scope="module")
def admin(cluster: LocalCluster) -> Pair:
    return create_key(cluster, "admin")


def client(cluster: LocalCluster, pair: Pair, region: str = "near", **config: Any) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=cluster.endpoints[region],
        region_name="eu-west-3",
        aws_access_key_id=pair[0],
        aws_secret_access_key=pair[1],
        config=Config(**{"retries": {"max_attempts": 0}, **config}),
    )


def code_of(call: Callable[..., Any], **arguments: Any) -> str:
    try:
        call(**arguments)
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


@pytest.fixture(scope="module")
def url(cluster: LocalCluster, admin: Pair) -> str:
    sqs = client(cluster, admin)
    until(lambda: code_of(sqs.list_queues) == "")
    until(lambda: code_of(client(cluster, admin, "far").list_queues) == "")
    return str(sqs.create_queue(QueueName="orders", Attributes={"ShadowFactor": "1"})["QueueUrl"])


def test_signed_requests_through_every_manager(cluster: LocalCluster, admin: Pair, url: str) -> None:
    far = client(cluster, admin, "far")
    client(cluster, admin).send_message(QueueUrl=url, MessageBody="here")
    far_url = far.get_queue_url(QueueName="orders")["QueueUrl"]
    (message,) = far.receive_message(QueueUrl=far_url, WaitTimeSeconds=5, AttributeNames=["SenderId"])["Messages"]
    assert message["Attributes"]["SenderId"] == admin[0]
    far.delete_message(QueueUrl=far_url, ReceiptHandle=message["ReceiptHandle"])


def test_strangers(cluster: LocalCluster, admin: Pair, url: str) -> None:
    wrong = client(cluster, (admin[0], admin[1][:-1] + "?"))
    assert code_of(wrong.send_message, QueueUrl=url, MessageBody="x") == "SignatureDoesNotMatch"
    assert code_of(client(cluster, ("SQKAUNKNOWN", "x" * 40)).list_queues) == "InvalidClientTokenId"
    answer = urllib3.request("GET", f"{url}?Action=ReceiveMessage")
    assert (answer.status, b"MissingAuthenticationToken" in answer.data) == (403, True)


def test_expired(cluster: LocalCluster, admin: Pair, url: str) -> None:
    late = (datetime.now(UTC) - timedelta(minutes=16)).replace(tzinfo=None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=late):
        assert code_of(client(cluster, admin).list_queues) == "SignatureDoesNotMatch"


def test_presigned_urls(cluster: LocalCluster, admin: Pair, url: str) -> None:
    def presign(expires_s: int) -> str:
        request = AWSRequest("GET", f"{url}?Action=SendMessage&MessageBody=by%20URL")
        botocore.auth.SigV4QueryAuth(Credentials(*admin), "sqs", "us-east-1", expires=expires_s).add_auth(request)
        return str(request.url)

    assert urllib3.request("GET", presign(60)).status == 200
    assert urllib3.request("GET", presign(60).replace("by%20URL", "by%20me")).status == 403
    early = (datetime.now(UTC) - timedelta(seconds=61)).replace(tzinfo=None)
    with mock.patch("botocore.auth.get_current_datetime", return_value=early):
        expired = presign(60)
    answer = urllib3.request("GET", expired)
    assert (answer.status, b"<Code>RequestExpired</Code>" in answer.data) == (400, True)
    sqs = client(cluster, admin)
    (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "by URL"
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def test_grants_and_policies(cluster: LocalCluster, admin: Pair, url: str) -> None:
    reader = create_key(cluster, "reader", "--allow", "ReceiveMessage,GetQueue*:ord*")
    them = create_key(cluster, "them", "--account", OTHER_ACCOUNT)
    reading, stranger, sqs = client(cluster, reader), client(cluster, them, "far"), client(cluster, admin)
    until(lambda: code_of(reading.get_queue_url, QueueName="orders") == "")
    assert code_of(reading.receive_message, QueueUrl=url) == ""
    assert code_of(reading.send_message, QueueUrl=url, MessageBody="x") == "AccessDenied"
    assert code_of(reading.list_queues) == "AccessDenied"

    far_url = url.replace(cluster.endpoints["near"], cluster.endpoints["far"])
    until(lambda: code_of(stranger.receive_message, QueueUrl=far_url) == "AccessDenied")
    sqs.add_permission(QueueUrl=url, Label="them", AWSAccountIds=[OTHER_ACCOUNT], Actions=["ReceiveMessage"])
    until(lambda: code_of(stranger.receive_message, QueueUrl=far_url) == "")
    assert code_of(stranger.send_message, QueueUrl=far_url, MessageBody="x") == "AccessDenied"

    deny = {"Effect": "Deny", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
    condition = {"Bool": {"aws:SecureTransport": "false"}, "IpAddress": {"aws:SourceIp": "127.0.0.1"}}
    policy = {"Version": "2012-10-17", "Statement": [{**deny, "Condition": condition}]}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": json.dumps(policy)})
    until(lambda: code_of(sqs.send_message, QueueUrl=url, MessageBody="x") == "AccessDenied")
    assert code_of(stranger.receive_message, QueueUrl=far_url) in ("", "AccessDenied")
    policy["Statement"] = [{**deny, "NotPrincipal": "*"}]
    changed = {"Policy": json.dumps(policy)}
    assert code_of(sqs.set_queue_attributes, QueueUrl=url, Attributes=changed) == "InvalidAttributeValue"
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    until(lambda: code_of(stranger.receive_message, QueueUrl=far_url) == "AccessDenied")


def test_throttled_clients_back_off(cluster: LocalCluster, url: str) -> None:
    slow = create_key(cluster, "slow", "--requests-per-second", "5")
    hasty = client(cluster, slow)
    until(lambda: code_of(hasty.list_queues) == "")
    codes = [code_of(hasty.list_queues) for _ in range(20)]
    assert "RequestThrottled" in codes
    patient = client(cluster, slow, retries={"mode": "standard", "max_attempts": 10})
    began = time.monotonic()
    attempts = sum(1 + patient.list_queues()["ResponseMetadata"]["RetryAttempts"] for _ in range(10))
    assert attempts > 10
    assert time.monotonic() - began > 0.5


def test_revoked_keys(cluster: LocalCluster, url: str) -> None:
    pair = create_key(cluster, "leaver", sealed=False)
    leaver = client(cluster, pair, "far")
    until(lambda: code_of(leaver.list_queues) == "")
    listed = keys(cluster, "list").stdout
    assert re.search(rf"^{pair[0]}  leaver .* \*:\* UNENCRYPTED$", listed, re.MULTILINE)
    assert pair[1] not in listed + keys(cluster, "list", "--json").stdout
    assert keys(cluster, "revoke", pair[0]).returncode == 0
    until(lambda: code_of(leaver.list_queues) == "InvalidClientTokenId")
    again = keys(cluster, "revoke", pair[0])
    assert again.returncode == 1
    assert again.stderr.startswith(f"shadowq: {pair[0]}: there is no such access key")


def test_secrets_are_nowhere(cluster: LocalCluster, admin: Pair) -> None:
    """Neither in etcd, nor in what managers log."""

    async def read() -> bytes:
        port = cluster.member("etcd").ports["client"]
        etcd = EtcdCoordination(EtcdSettings(cluster.state.cluster, (f"127.0.0.1:{port}",)))
        await etcd.start()
        try:
            return b"".join(item.value for item in (await etcd.list_prefix("keys/")).items)
        finally:
            await etcd.close()

    stored = asyncio.run(read())
    assert admin[0].encode() in stored
    assert admin[1].encode() not in stored
    for name in cluster.names:
        assert admin[1] not in cluster.log_path(name).read_text(errors="replace")
