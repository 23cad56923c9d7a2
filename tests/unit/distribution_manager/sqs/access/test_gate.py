"""The gate behind a real HTTP server, asked by boto3 in both protocols."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import botocore.auth
import pytest
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from distribution_manager.core.metadata import AccessKeyRecord, Grant
from distribution_manager.sqs.access.gate import SignatureGate
from distribution_manager.sqs.access.keys import KeyRing
from distribution_manager.sqs.config import SqsConfig

ACCOUNT, OTHER = "000000000000", "111122223333"
SECRET = "a-secret-of-some-length"
ARN = f"arn:aws:sqs:us-east-1:{ACCOUNT}:orders"


def record(name: str, **changes: Any) -> AccessKeyRecord:
    return AccessKeyRecord(access_key_id=f"AKIA{name.upper()}", user=name, secret=SECRET, **changes)


RECORDS = {
    item.access_key_id: item
    for item in (
        record("admin"),
        record("sender", grants=(Grant(actions=("SendMessage", "GetQueueUrl"), queues=("ord*",)),)),
        record("maker", grants=(Grant(actions=("CreateQueue",)),)),
        record("mover", grants=(Grant(actions=("*MessageMoveTask*", "GetQueueAttributes", "SendMessage")),)),
        record("nobody", grants=()),
        record("stranger", account=OTHER),
        record("slow", requests_per_second=2),
        record("narrow", connections_max=1),
    )
}


class Door:
    """A server with a gate whose clocks the test moves."""

    def __init__(self, serve: Callable[..., Any]) -> None:
        self.skew_s = 0.0
        self.monotonic_s = 0.0
        config = SqsConfig()
        ring = KeyRing(RECORDS.get, config.account, now_s=lambda: self.monotonic_s)
        import time

        gate = SignatureGate(
            config, ring, now_s=lambda: time.time() + self.skew_s, monotonic_s=lambda: self.monotonic_s
        )
        self.server = serve(config, gate)


@pytest.fixture
def door(serve: Callable[..., Any]) -> Door:
    return Door(serve)


Client = Callable[..., Any]


@pytest.fixture(params=["json", "query"])
def client(door: Door, sessions: dict[str, boto3.session.Session], request: pytest.FixtureRequest) -> Iterator[Client]:
    """``client("admin")``: boto3 with that key, without retries."""
    made = []

    def make(name: str, secret: str = SECRET, **options: Any) -> Any:
        config = {"retries": {"max_attempts": 0}, "connect_timeout": 5, "read_timeout": 10, **options}
        made.append(
            sessions[request.param].client(
                "sqs",
                endpoint_url=door.server.url,
                region_name="eu-central-1",
                aws_access_key_id=f"AKIA{name.upper()}",
                aws_secret_access_key=secret,
                config=Config(**config),
            )
        )
        return made[-1]

    yield make
    for item in made:
        item.close()


def refused(code: str, call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    assert raised.value.response["Error"]["Code"] == code, raised.value
    return str(raised.value.response["Error"]["Message"])


# --- signatures ----------------------------------------------------------------------------------------------------


def test_signed_requests_are_served(client: Client) -> None:
    admin = client("admin")
    url = admin.create_queue(QueueName="orders")["QueueUrl"]
    admin.send_message(QueueUrl=url, MessageBody="é &=+%", MessageAttributes={})
    (message,) = admin.receive_message(QueueUrl=url, AttributeNames=["SenderId"])["Messages"]
    assert message["Attributes"]["SenderId"] == "AKIAADMIN"
    assert message["Body"] == "é &=+%"


def test_wrong_secrets_and_unknown_keys(client: Client) -> None:
    assert "does not match" in refused("SignatureDoesNotMatch", client("admin", SECRET + "x").list_queues)
    message = refused("InvalidClientTokenId", client("ghost").list_queues)
    assert message == "The security token included in the request is invalid."


@pytest.mark.parametrize("skew_s", [-1_000, 1_000])
def test_clocks_that_differ(door: Door, client: Client, skew_s: float) -> None:
    door.skew_s = skew_s
    text = refused("SignatureDoesNotMatch", client("admin").list_queues)
    assert text.startswith("Signature expired" if skew_s > 0 else "Signature not yet current")


def test_unsigned_requests(door: Door) -> None:
    status, headers, body = door.server.raw("{}", {"X-Amz-Target": "AmazonSQS.ListQueues", "x-amzn-query-mode": "true"})
    assert status == 403
    assert json.loads(body)["__type"].endswith("#MissingAuthenticationTokenException")
    assert headers["x-amzn-query-error"] == "MissingAuthenticationToken;Sender"
    status, _, body = door.server.raw("Action=ListQueues", {"Content-Type": "application/x-www-form-urlencoded"})
    assert (status, b"<Code>MissingAuthenticationToken</Code>" in body) == (403, True)


def test_strangers_are_refused_before_their_body_is_taken_in(door: Door) -> None:
    head = "POST / HTTP/1.1\r\nHost: x\r\nX-Amz-Target: AmazonSQS.ListQueues\r\nContent-Length: 5000000\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", door.server.port), timeout=5) as connection:
        connection.sendall(head.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 403 Forbidden")


def test_presigned_urls(door: Door, client: Client) -> None:
    client("admin").create_queue(QueueName="orders")

    def fetch(action: str, expires_s: int = 60, token: str | None = None) -> tuple[int, bytes]:
        request = AWSRequest("GET", f"{door.server.url}/?Action={action}&QueueName=orders&Version=2012-11-05")
        credentials = Credentials("AKIAADMIN", SECRET, token)
        botocore.auth.SigV4QueryAuth(credentials, "sqs", "us-east-1", expires=expires_s).add_auth(request)
        status, _, body = door.server.raw(None, method="GET", path=request.url.removeprefix(door.server.url))
        return status, body

    status, body = fetch("GetQueueUrl")
    assert (status, b"/orders</QueueUrl>" in body) == (200, True)
    assert fetch("GetQueueUrl", token="a/token+==")[0] == 200
    door.skew_s = 61
    status, body = fetch("GetQueueUrl")
    assert (status, b"<Code>RequestExpired</Code>" in body) == (400, True)


def test_compressed_bodies_are_signed_as_sent(door: Door) -> None:
    import gzip

    body = gzip.compress(b"{}")
    headers = {"X-Amz-Target": "AmazonSQS.ListQueues", "Content-Encoding": "gzip"}
    request = AWSRequest("POST", door.server.url + "/", headers, body)
    botocore.auth.SigV4Auth(Credentials("AKIAADMIN", SECRET), "sqs", "us-east-1").add_auth(request)
    assert door.server.raw(body, dict(request.headers.items()))[0] == 200


# --- permissions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def url(client: Client) -> str:
    admin = client("admin")
    admin.create_queue(QueueName="other")
    return str(admin.create_queue(QueueName="orders")["QueueUrl"])


def set_policy(client: Client, url: str, *statements: dict[str, Any]) -> None:
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    client("admin").set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})


def allow(principal: Any, action: str = "sqs:*", effect: str = "Allow", **more: Any) -> dict[str, Any]:
    return {"Effect": effect, "Principal": principal, "Action": action, "Resource": ARN, **more}


def test_grants_of_a_key(client: Client, url: str) -> None:
    sender = client("sender")
    sender.send_message(QueueUrl=url, MessageBody="x")
    sender.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "x"}])
    assert refused("AccessDenied", sender.receive_message, QueueUrl=url) == (
        f"User: arn:aws:iam::{ACCOUNT}:user/sender is not authorized to perform: sqs:receivemessage on resource: {ARN} "
        "because no identity-based policy allows the sqs:receivemessage action"
    )
    other = url.replace("orders", "other")
    refused("AccessDenied", sender.send_message, QueueUrl=other, MessageBody="x")
    refused("AccessDenied", sender.list_queues)
    refused("AccessDenied", sender.create_queue, QueueName="ordinary")
    refused("AccessDenied", sender.get_queue_url, QueueName="absent")
    refused("AWS.SimpleQueueService.NonExistentQueue", sender.get_queue_url, QueueName="ordeal")


def test_operations_that_need_several_permissions(client: Client, url: str) -> None:
    maker, mover, admin = client("maker"), client("mover"), client("admin")
    maker.create_queue(QueueName="plain")
    assert "sqs:tagqueue" in refused("AccessDenied", maker.create_queue, QueueName="tagged", tags={"a": "b"})
    policy = json.dumps({"deadLetterTargetArn": ARN, "maxReceiveCount": 1})
    admin.create_queue(QueueName="fed", Attributes={"RedrivePolicy": policy})
    assert "sqs:receivemessage" in refused("AccessDenied", mover.start_message_move_task, SourceArn=ARN)
    set_policy(client, url, allow({"AWS": f"arn:aws:iam::{ACCOUNT}:user/mover"}, "sqs:*Message"))
    mover.start_message_move_task(SourceArn=ARN)
    refused("AccessDenied", client("sender").list_message_move_tasks, SourceArn=ARN)


def test_a_policy_lets_in(client: Client, url: str) -> None:
    nobody = client("nobody")
    refused("AccessDenied", nobody.send_message, QueueUrl=url, MessageBody="x")
    set_policy(client, url, allow({"AWS": f"arn:aws:iam::{ACCOUNT}:user/nobody"}, "sqs:SendMessage"))
    nobody.send_message(QueueUrl=url, MessageBody="x")
    nobody.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "x"}])
    refused("AccessDenied", nobody.receive_message, QueueUrl=url)
    set_policy(client, url, allow({"AWS": ACCOUNT}))
    refused("AccessDenied", nobody.send_message, QueueUrl=url, MessageBody="x")


def test_a_policy_shuts_out(client: Client, url: str) -> None:
    statement = allow("*", "sqs:SendMessage", "Deny", Condition={"Bool": {"aws:SecureTransport": "false"}})
    set_policy(client, url, statement)
    text = refused("AccessDenied", client("admin").send_message, QueueUrl=url, MessageBody="x")
    assert text.endswith("with an explicit deny in a resource-based policy")
    client("admin").receive_message(QueueUrl=url)
    set_policy(client, url, allow("*", "*", "Deny", Condition={"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}}))
    client("admin").send_message(QueueUrl=url, MessageBody="x")
    set_policy(client, url, allow("*", "sqs:Receive*", "Deny", Condition={"StringLike": {"aws:UserAgent": "Boto3/*"}}))
    refused("AccessDenied", client("admin").receive_message, QueueUrl=url)


def test_another_account_needs_both(client: Client, url: str) -> None:
    stranger = client("stranger")
    text = refused("AccessDenied", stranger.send_message, QueueUrl=url, MessageBody="x")
    assert "no resource-based policy" in text
    client("admin").add_permission(QueueUrl=url, Label="l", AWSAccountIds=[OTHER], Actions=["SendMessage"])
    stranger.send_message(QueueUrl=url, MessageBody="x")
    refused("AccessDenied", stranger.receive_message, QueueUrl=url)


def test_a_stored_policy_that_cannot_be_read_lets_nobody_in(door: Door, client: Client, url: str) -> None:
    door.server.backend.queues["orders"].attributes["Policy"] = '{"Statement": "?"}'
    admin = client("admin")
    refused("AccessDenied", admin.send_message, QueueUrl=url, MessageBody="x")
    admin.set_queue_attributes(QueueUrl=url, Attributes={"Policy": ""})
    admin.send_message(QueueUrl=url, MessageBody="x")


# --- limits --------------------------------------------------------------------------------------------------------


def test_throttling_is_an_error_that_sdks_back_off_on(door: Door, client: Client) -> None:
    slow = client("slow")
    slow.list_queues()
    slow.list_queues()
    assert "throttling" in refused("RequestThrottled", slow.list_queues)
    door.monotonic_s += 0.5
    slow.list_queues()
    for mode in ("standard", "legacy"):
        patient = client("slow", retries={"mode": mode, "total_max_attempts": 4})
        events: list[int] = []

        def note(attempts: int, events: list[int] = events, **_: Any) -> None:
            events.append(attempts)
            door.monotonic_s += 0.25

        patient.meta.events.register("needs-retry.sqs", note)
        patient.list_queues()
        assert events[-1] > 1


def test_a_wrong_signature_takes_nothing_from_the_bucket(client: Client) -> None:
    for _ in range(5):
        refused("SignatureDoesNotMatch", client("slow", SECRET + "x").list_queues)
    client("slow").list_queues()


def test_connections_per_key(client: Client) -> None:
    first = client("narrow")
    first.list_queues()
    first.list_queues()
    assert "1 connections" in refused("RequestThrottled", client("narrow").list_queues)
    client("admin").list_queues()
    first.close()
    client("narrow").list_queues()
