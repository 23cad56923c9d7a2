"""A deletion that nobody goes on with is finished by the owner's manager."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from distribution_manager.drills.local import LocalCluster

pytestmark = pytest.mark.cluster
WAIT_S = 60.0


def client(endpoint: str) -> Any:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=3)
    return boto3.client(
        "sqs",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=config,
    )


def test_a_queue_that_was_sealed_while_etcd_was_away_is_buried_when_it_is_back(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, regions=["near", "far"], port=0) as cluster:
        sqs = client(cluster.endpoints["near"])
        attributes = {"ShadowFactor": "1"}
        url = sqs.create_queue(QueueName="abandoned", Attributes=attributes)["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="old")
        cluster.freeze("etcd")
        with pytest.raises((BotoCoreError, ClientError)):
            sqs.delete_queue(QueueUrl=url)
        with contextlib.suppress(BotoCoreError), pytest.raises(sqs.exceptions.QueueDoesNotExist):
            sqs.send_message(QueueUrl=url, MessageBody="sealed")
        cluster.resume("etcd")

        deadline = time.monotonic() + WAIT_S
        while "QueueUrls" in sqs.list_queues():
            assert time.monotonic() < deadline, "the queue is still there"
            time.sleep(0.1)

        url = sqs.create_queue(QueueName="abandoned", Attributes=attributes)["QueueUrl"]
        sqs.send_message(QueueUrl=url, MessageBody="new")
        (message,) = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
        assert message["Body"] == "new"
