"""Every queue attribute of the model: its values at their edges, where it may be set, what it is afterwards.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from . import model
from .conftest import Bench, eventually
from .examples import ARN

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

RANGES = {
    "DelaySeconds": (0, 900),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
    "MaximumMessageSize": (1_024, 1_048_576),
    "MessageRetentionPeriod": (60, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
}
CHOICES = {
    "ContentBasedDeduplication": ("true", "false"),
    "DeduplicationScope": ("messageGroup", "queue"),
    "FifoThroughputLimit": ("perQueue",),
    "SqsManagedSseEnabled": ("true", "false"),
}
FIFO_ONLY = frozenset({"ContentBasedDeduplication", "DeduplicationScope", "FifoQueue", "FifoThroughputLimit"})
STATEMENT = {"Effect": "Deny", "Principal": "*", "Action": "SQS:DeleteQueue", "Resource": "*"}
TEXTS = {
    "KmsMasterKeyId": ("alias/aws/sqs", "x" * 2_048),
    "Policy": (json.dumps({"Statement": [STATEMENT]}),),
    "RedriveAllowPolicy": (
        '{"redrivePermission": "denyAll"}',
        json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [f"{ARN}q{n}" for n in range(10)]}),
    ),
}
READ_ONLY = frozenset(
    {
        "All",
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesDelayed",
        "ApproximateNumberOfMessagesNotVisible",
        "CreatedTimestamp",
        "LastModifiedTimestamp",
        "QueueArn",
    }
)
BY_THEMSELVES = frozenset({"FifoQueue", "RedrivePolicy"})
"""With tests of their own below."""

GOOD = [(name, str(value)) for name, values in RANGES.items() for value in values]
GOOD += [(name, value) for name, values in (CHOICES | TEXTS).items() for value in values]
BAD = [(name, str(value)) for name, (low, high) in RANGES.items() for value in (low - 1, high + 1, "", "1.0", "x")]
BAD += [(name, value) for name in CHOICES for value in ("", "maybe")]
BAD += [
    ("DeduplicationScope", "TRUE"),
    ("FifoThroughputLimit", "perMessageGroupId"),  # only with DeduplicationScope messageGroup
    ("KmsMasterKeyId", "x" * 2_049),
    ("Policy", "no json"),
    ("Policy", json.dumps({"Statement": STATEMENT, "Id": "x" * 8_192})),
    ("RedriveAllowPolicy", "{}"),
    ("RedriveAllowPolicy", '{"redrivePermission": "byQueue"}'),
    (
        "RedriveAllowPolicy",
        json.dumps({"redrivePermission": "byQueue", "sourceQueueArns": [f"{ARN}q{n}" for n in range(11)]}),
    ),
    ("RedriveAllowPolicy", json.dumps({"redrivePermission": "denyAll", "sourceQueueArns": [f"{ARN}q"]})),
]


def cases(pairs: list[tuple[str, str]]) -> list[Any]:
    return [pytest.param(name, value, id=f"{name}-{value[:20]}") for name, value in pairs]


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> str:
    return str(caught.value.response["Error"]["Code"])


def test_every_attribute_is_here() -> None:
    tested = RANGES.keys() | CHOICES.keys() | TEXTS.keys() | READ_ONLY | BY_THEMSELVES
    assert tested == set(model.enumeration("QueueAttributeName"))


@pytest.mark.parametrize("name", model.enumeration("QueueAttributeName"))
def test_each_can_be_asked_for(bench: Bench, name: str) -> None:
    url = bench.queue(fifo=name in FIFO_ONLY)
    every = bench.attributes(url)
    if name == "All":
        assert every.keys() >= RANGES.keys() - {"KmsDataKeyReusePeriodSeconds"}
    else:
        assert bench.attributes(url, name) == {key: value for key, value in every.items() if key == name}


@pytest.mark.parametrize(("name", "value"), cases(GOOD))
def test_good_values(bench: Bench, name: str, value: str) -> None:
    """Set through one manager, read through it and through the owner; and the same at creation."""
    fifo = name in FIFO_ONLY
    # two of them show nowhere alone
    base = {"KmsMasterKeyId": "k"} if name == "KmsDataKeyReusePeriodSeconds" else {}
    url = bench.queue(fifo=fifo)
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={**base, name: value})
    assert bench.attributes(url, name) == {name: value}
    asked = {"QueueUrl": url, "AttributeNames": [name]}
    eventually(lambda: bench.owner.get_queue_attributes(**asked).get("Attributes") == {name: value})
    assert bench.attributes(bench.queue(fifo=fifo, **base, **{name: value}), name) == {name: value}


@pytest.mark.parametrize(("name", "value"), cases(BAD))
def test_bad_values(bench: Bench, name: str, value: str) -> None:
    url = bench.queue(fifo=name in FIFO_ONLY)
    before = bench.attributes(url)
    with pytest.raises(ClientError) as caught:
        bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={name: value})
    assert code_of(caught) in ("InvalidAttributeValue", "InvalidParameterValue")
    assert bench.attributes(url) == before


@pytest.mark.parametrize("name", sorted(READ_ONLY))
def test_what_cannot_be_set(bench: Bench, name: str) -> None:
    with pytest.raises(ClientError) as caught:
        bench.sqs.set_queue_attributes(QueueUrl=bench.queue(), Attributes={name: "1"})
    assert code_of(caught) == "InvalidAttributeName"


@pytest.mark.parametrize("name", sorted(FIFO_ONLY))
def test_what_only_a_fifo_queue_has(bench: Bench, name: str) -> None:
    value = {**CHOICES, "FifoQueue": ("true",)}[name][0]
    with pytest.raises(ClientError) as caught:
        bench.sqs.set_queue_attributes(QueueUrl=bench.queue(), Attributes={name: value})
    assert code_of(caught) == "InvalidAttributeName"


def test_the_type_of_a_queue_stays(bench: Bench) -> None:
    url = bench.queue(fifo=True)
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={"FifoQueue": "true"})
    with pytest.raises(ClientError) as caught:
        bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={"FifoQueue": "false"})
    assert code_of(caught) == "InvalidAttributeValue"


def test_throughput_per_group(bench: Bench) -> None:
    """Both attributes in one call, or in this order: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/
    SQSDeveloperGuide/high-throughput-fifo.html"""
    url = bench.queue(fifo=True, DeduplicationScope="messageGroup")
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={"FifoThroughputLimit": "perMessageGroupId"})
    assert bench.attributes(url, "FifoThroughputLimit") == {"FifoThroughputLimit": "perMessageGroupId"}
    with pytest.raises(ClientError) as caught:
        bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={"DeduplicationScope": "queue"})
    assert code_of(caught) == "InvalidAttributeValue"


@pytest.mark.parametrize("name", ["KmsMasterKeyId", "Policy", "RedriveAllowPolicy", "RedrivePolicy"])
def test_empty_takes_away(bench: Bench, name: str) -> None:
    url = bench.queue()
    value = (
        json.dumps({"deadLetterTargetArn": bench.arn(url), "maxReceiveCount": 1})
        if name == "RedrivePolicy"
        else TEXTS[name][0]
    )
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={name: value})
    assert bench.attributes(url, name) == {name: value}
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={name: ""})
    assert bench.attributes(url, name) == {}


@pytest.mark.parametrize("count", [1, 1_000, "1", "1000"])
def test_redrive_policy(bench: Bench, count: object) -> None:
    dead = bench.queue()
    policy = json.dumps({"deadLetterTargetArn": bench.arn(dead), "maxReceiveCount": count})
    url = bench.queue()
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    assert bench.attributes(url, "RedrivePolicy") == {"RedrivePolicy": policy}
    assert bench.sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]


def test_bad_redrive_policies(bench: Bench) -> None:
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html"""
    url = bench.queue()
    fifo, denying = bench.queue(fifo=True), bench.queue(RedriveAllowPolicy='{"redrivePermission": "denyAll"}')
    good = {"deadLetterTargetArn": bench.arn(url), "maxReceiveCount": 3}
    bad = [{**good, "maxReceiveCount": count} for count in (0, 1_001, -1, "x", 1.5, True, None)]
    bad += [{**good, "deadLetterTargetArn": arn} for arn in ("q", f"{ARN}no-such-queue", bench.arn(fifo))]
    bad += [{**good, "deadLetterTargetArn": bench.arn(denying)}, {**good, "other": 1}]
    bad += [{"maxReceiveCount": 3}, {"deadLetterTargetArn": good["deadLetterTargetArn"]}]
    for policy in bad:
        with pytest.raises(ClientError, match="RedrivePolicy") as caught:
            bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(policy)})
        assert code_of(caught) == "InvalidParameterValue", policy
    assert bench.attributes(url, "RedrivePolicy") == {}


def test_one_kind_of_encryption_ends_the_other(bench: Bench) -> None:
    url = bench.queue(SqsManagedSseEnabled="true")
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={"KmsMasterKeyId": "k"})
    assert bench.attributes(url)["SqsManagedSseEnabled"] == "false"
    with pytest.raises(ClientError) as caught:
        bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={"KmsMasterKeyId": "k", "SqsManagedSseEnabled": "true"})
    assert code_of(caught) == "InvalidAttributeName"
