"""Message move tasks in a real cluster: back to their source, at a rate, cancelled, through an owner's death."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from distribution_manager.drills.local import LocalCluster
from tests.waiting import wait_for

pytestmark = pytest.mark.cluster

REGIONS = ["near", "far"]
WAIT_S = 60.0
until = partial(wait_for, within_s=WAIT_S)
ARN = "arn:aws:sqs:us-east-1:000000000000:"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("moves"), regions=REGIONS, port=0) as cluster:
        yield cluster


def client(cluster: LocalCluster, region: str) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=cluster.endpoints[region],
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=Config(retries={"max_attempts": 3, "mode": "standard"}),
    )


class Queues:
    """A source queue ``name`` and its dead-letter queue, in which ``count`` messages have ended up."""

    def __init__(self, sqs: Any, name: str, count: int) -> None:
        self.sqs = sqs
        self.name = name
        attributes = {"ShadowFactor": "1"}
        self.dead_arn = f"{ARN}{name}-dead"
        self.dead_url = sqs.create_queue(QueueName=f"{name}-dead", Attributes=attributes)["QueueUrl"]
        policy = json.dumps({"deadLetterTargetArn": self.dead_arn, "maxReceiveCount": 1})
        self.url = sqs.create_queue(QueueName=name, Attributes={**attributes, "RedrivePolicy": policy})["QueueUrl"]
        self.bodies = {f"{name} {number}" for number in range(count)}
        for body in self.bodies:
            sqs.send_message(QueueUrl=self.url, MessageBody=body)
        deadline = time.monotonic() + WAIT_S
        while self.count(self.dead_url) < count:
            assert time.monotonic() < deadline
            sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0)

    def count(self, url: str) -> int:
        names = ["ApproximateNumberOfMessages"]
        found = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return int(found["ApproximateNumberOfMessages"])

    def task(self, sqs: Any = None) -> dict[str, Any]:
        (task,) = (sqs or self.sqs).list_message_move_tasks(SourceArn=self.dead_arn)["Results"]
        return dict(task)

    def receive_all(self, sqs: Any, url: str) -> list[str]:
        bodies: list[str] = []
        while messages := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            bodies += [message["Body"] for message in messages]
        return bodies


def test_back_to_where_they_came_from(cluster: LocalCluster) -> None:
    queues = Queues(client(cluster, "near"), "back", 25)
    client(cluster, "far").start_message_move_task(SourceArn=queues.dead_arn)
    until(lambda: queues.task()["Status"] == "COMPLETED")
    task = queues.task()
    assert (task["ApproximateNumberOfMessagesMoved"], task["ApproximateNumberOfMessagesToMove"]) == (25, 25)
    assert (queues.count(queues.dead_url), queues.count(queues.url)) == (0, 25)
    assert sorted(queues.receive_all(queues.sqs, queues.url)) == sorted(queues.bodies)


def test_messages_without_a_source_fail_the_task(cluster: LocalCluster) -> None:
    queues = Queues(client(cluster, "near"), "sent", 1)
    queues.sqs.send_message(QueueUrl=queues.dead_url, MessageBody="sent here")
    queues.sqs.start_message_move_task(SourceArn=queues.dead_arn)
    until(lambda: queues.task()["Status"] == "FAILED")
    assert queues.task()["FailureReason"] == "CouldNotDetermineMessageSource"
    queues.sqs.start_message_move_task(SourceArn=queues.dead_arn, DestinationArn=f"{ARN}sent")
    until(lambda: queues.task()["Status"] == "COMPLETED")
    assert sorted(queues.receive_all(queues.sqs, queues.url)) == ["sent 0", "sent here"]


def test_fifo_queues_keep_their_order(cluster: LocalCluster) -> None:
    sqs = client(cluster, "near")
    attributes = {"ShadowFactor": "1", "FifoQueue": "true", "ContentBasedDeduplication": "true"}
    dead = sqs.create_queue(QueueName="dead.fifo", Attributes=attributes)["QueueUrl"]
    policy = json.dumps({"deadLetterTargetArn": f"{ARN}dead.fifo", "maxReceiveCount": 1})
    source = sqs.create_queue(QueueName="source.fifo", Attributes={**attributes, "RedrivePolicy": policy})["QueueUrl"]
    sent = [(f"group-{number % 3}", f"message {number}") for number in range(12)]
    for group, body in sent:
        sqs.send_message(QueueUrl=source, MessageBody=body, MessageGroupId=group)

    def waiting() -> int:
        sqs.receive_message(QueueUrl=source, MaxNumberOfMessages=10, VisibilityTimeout=0)
        names = ["ApproximateNumberOfMessages"]
        found = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=names)["Attributes"]
        return int(found["ApproximateNumberOfMessages"])

    until(lambda: waiting() == len(sent))
    sqs.start_message_move_task(SourceArn=f"{ARN}dead.fifo")
    until(lambda: sqs.list_message_move_tasks(SourceArn=f"{ARN}dead.fifo")["Results"][0]["Status"] == "COMPLETED")
    received: list[tuple[str, str]] = []
    while messages := sqs.receive_message(
        QueueUrl=source, MaxNumberOfMessages=10, AttributeNames=["MessageGroupId"]
    ).get("Messages"):
        for message in messages:
            received.append((message["Attributes"]["MessageGroupId"], message["Body"]))
            sqs.delete_message(QueueUrl=source, ReceiptHandle=message["ReceiptHandle"])
    for group in ("group-0", "group-1", "group-2"):
        assert [item for item in received if item[0] == group] == [item for item in sent if item[0] == group]
    assert len(received) == len(sent)


def test_cancelled_at_its_rate(cluster: LocalCluster) -> None:
    queues = Queues(client(cluster, "near"), "slowly", 20)
    began = time.monotonic()
    handle = queues.sqs.start_message_move_task(SourceArn=queues.dead_arn, MaxNumberOfMessagesPerSecond=4)["TaskHandle"]
    until(lambda: queues.count(queues.url) >= 4)
    client(cluster, "far").cancel_message_move_task(TaskHandle=handle)
    until(lambda: queues.task()["Status"] == "CANCELLED")
    moved = queues.task()["ApproximateNumberOfMessagesMoved"]
    assert 4 <= moved <= 1 + 4 * (time.monotonic() - began)
    until(lambda: queues.count(queues.url) == moved)
    assert queues.count(queues.dead_url) == 20 - moved


def test_a_deleted_destination(cluster: LocalCluster) -> None:
    queues = Queues(client(cluster, "near"), "lost", 5)
    target = queues.sqs.create_queue(QueueName="target", Attributes={"ShadowFactor": "1"})["QueueUrl"]
    queues.sqs.start_message_move_task(
        SourceArn=queues.dead_arn, DestinationArn=f"{ARN}target", MaxNumberOfMessagesPerSecond=1
    )
    queues.sqs.delete_queue(QueueUrl=target)
    until(lambda: queues.task()["Status"] == "FAILED")
    assert queues.task()["FailureReason"] == "AWS.SimpleQueueService.NonExistentQueue"


def test_a_task_survives_its_manager(cluster: LocalCluster) -> None:
    """Last, as it kills the owner."""
    near, far = client(cluster, "near"), client(cluster, "far")
    queues = Queues(near, "orders", 60)
    near.start_message_move_task(SourceArn=queues.dead_arn, MaxNumberOfMessagesPerSecond=20)
    until(lambda: queues.task()["ApproximateNumberOfMessagesMoved"] >= 5)
    report = cluster.ask("manager-far", "/admin/status?queue=orders-dead")
    assert report["queues"][0]["owner"] == "manager-near"
    cluster.kill("manager-near")

    def status() -> str:
        try:
            return str(queues.task(far)["Status"])
        except (BotoCoreError, ClientError):
            return ""

    until(lambda: status() == "COMPLETED")
    url = far.get_queue_url(QueueName="orders")["QueueUrl"]
    assert sorted(queues.receive_all(far, url)) == sorted(queues.bodies)
