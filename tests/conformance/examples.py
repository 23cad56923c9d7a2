"""A call of every operation that uses every parameter that the model has for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from .conftest import Bench, eventually

Example = Callable[[Bench], dict[str, Any]]

ATTRIBUTES = {
    "text": {"DataType": "String.custom", "StringValue": "é"},
    "number": {"DataType": "Number", "StringValue": "-1.5e3"},
    "bytes": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
}
TRACE = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}
# the model gives system attributes a BinaryValue too; SQS knows no system attribute that takes one
UNUSABLE = frozenset({"MessageSystemAttributes.BinaryValue", "Entries.MessageSystemAttributes.BinaryValue"})


def _message(number: int = 1) -> dict[str, Any]:
    """Of a FIFO queue: those take every parameter, if DelaySeconds is 0."""
    return {
        "MessageBody": f"body {number}",
        "DelaySeconds": 0,
        "MessageAttributes": ATTRIBUTES,
        "MessageSystemAttributes": TRACE,
        "MessageDeduplicationId": f"d{number}",
        "MessageGroupId": "g",
    }


def _send_batch(bench: Bench) -> dict[str, Any]:
    return {"QueueUrl": bench.queue(fifo=True), "Entries": [{"Id": str(n), **_message(n)} for n in (1, 2)]}


def _receive(bench: Bench) -> dict[str, Any]:
    url = bench.queue(fifo=True)
    bench.sqs.send_message(QueueUrl=url, **_message())
    return {
        "QueueUrl": url,
        "AttributeNames": ["SenderId"],
        "MessageSystemAttributeNames": ["SentTimestamp", "AWSTraceHeader"],
        "MessageAttributeNames": ["text", "number", "by.*", "bytes"],
        "MaxNumberOfMessages": 10,
        "VisibilityTimeout": 60,
        "WaitTimeSeconds": 20,
        "ReceiveRequestAttemptId": "attempt",
    }


def _delete(bench: Bench) -> dict[str, Any]:
    url = bench.queue()
    return {"QueueUrl": url, "ReceiptHandle": bench.handle(url)}


def _batch_of_one(bench: Bench, **more: Any) -> dict[str, Any]:
    url = bench.queue()
    return {"QueueUrl": url, "Entries": [{"Id": "a", "ReceiptHandle": bench.handle(url), **more}]}


def _create(bench: Bench) -> dict[str, Any]:
    """The queue is there, and owned by another manager: with the same attributes, CreateQueue finds it."""
    url = bench.queue(DelaySeconds=5, tags={"team": "a"})
    return {"QueueName": url.rpartition("/")[2], "Attributes": {"DelaySeconds": "5"}, "tags": {"team": "a"}}


def _list(bench: Bench) -> dict[str, Any]:
    """With a token: the second page."""
    name = bench.queue().rpartition("/")[2]
    for number in range(2):
        bench.owner.create_queue(QueueName=f"{name}-{number}")
        bench.sqs.get_queue_url(QueueName=f"{name}-{number}")
    first = bench.sqs.list_queues(QueueNamePrefix=name, MaxResults=1)
    return {"QueueNamePrefix": name, "MaxResults": 1, "NextToken": first["NextToken"]}


def _list_sources(bench: Bench) -> dict[str, Any]:
    dead = bench.queue()
    policy = json.dumps({"deadLetterTargetArn": bench.arn(dead), "maxReceiveCount": 3})
    for _ in range(3):
        bench.queue(RedrivePolicy=policy)
    first = bench.sqs.list_dead_letter_source_queues(QueueUrl=dead, MaxResults=1)
    return {"QueueUrl": dead, "MaxResults": 1, "NextToken": first["NextToken"]}


def _remove_permission(bench: Bench) -> dict[str, Any]:
    url = bench.queue()
    bench.sqs.add_permission(QueueUrl=url, Label="l", AWSAccountIds=["123456789012"], Actions=["SendMessage"])
    return {"QueueUrl": url, "Label": "l"}


def _start_move(bench: Bench) -> dict[str, Any]:
    """Of a dead-letter queue with more messages than are moved while it is looked at."""
    dead = bench.queue()
    policy = json.dumps({"deadLetterTargetArn": bench.arn(dead), "maxReceiveCount": 3})
    entries = [{"Id": str(number), "MessageBody": "x"} for number in range(10)]
    for _ in range(3):
        bench.sqs.send_message_batch(QueueUrl=dead, Entries=entries)
    target = bench.queue(RedrivePolicy=policy)
    # which queues feed it is known from the watch
    eventually(lambda: bench.sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"])
    return {
        "SourceArn": bench.arn(dead),
        "DestinationArn": bench.arn(target),
        "MaxNumberOfMessagesPerSecond": 1,
    }


def _cancel_move(bench: Bench) -> dict[str, Any]:
    return {"TaskHandle": bench.sqs.start_message_move_task(**_start_move(bench))["TaskHandle"]}


def _list_moves(bench: Bench) -> dict[str, Any]:
    started = _start_move(bench)
    bench.sqs.start_message_move_task(**started)
    return {"SourceArn": started["SourceArn"], "MaxResults": 10}


ARN = "arn:aws:sqs:us-east-1:000000000000:"

EXAMPLES: dict[str, Example] = {
    "AddPermission": lambda bench: {
        "QueueUrl": bench.queue(),
        "Label": "l",
        "AWSAccountIds": ["123456789012"],
        "Actions": ["SendMessage", "*"],
    },
    "CancelMessageMoveTask": _cancel_move,
    "ChangeMessageVisibility": lambda bench: {**_delete(bench), "VisibilityTimeout": 60},
    "ChangeMessageVisibilityBatch": lambda bench: _batch_of_one(bench, VisibilityTimeout=60),
    "CreateQueue": _create,
    "DeleteMessage": _delete,
    "DeleteMessageBatch": _batch_of_one,
    "DeleteQueue": lambda bench: {"QueueUrl": bench.queue()},
    "GetQueueAttributes": lambda bench: {"QueueUrl": bench.queue(), "AttributeNames": ["All"]},
    "GetQueueUrl": lambda bench: {
        "QueueName": bench.queue().rpartition("/")[2],
        "QueueOwnerAWSAccountId": "000000000000",
    },
    "ListDeadLetterSourceQueues": _list_sources,
    "ListMessageMoveTasks": _list_moves,
    "ListQueueTags": lambda bench: {"QueueUrl": bench.queue(tags={"team": "a"})},
    "ListQueues": _list,
    "PurgeQueue": lambda bench: {"QueueUrl": bench.queue()},
    "ReceiveMessage": _receive,
    "RemovePermission": _remove_permission,
    "SendMessage": lambda bench: {"QueueUrl": bench.queue(fifo=True), **_message()},
    "SendMessageBatch": _send_batch,
    "SetQueueAttributes": lambda bench: {"QueueUrl": bench.queue(), "Attributes": {"DelaySeconds": "5"}},
    "StartMessageMoveTask": _start_move,
    "TagQueue": lambda bench: {"QueueUrl": bench.queue(), "Tags": {"team": "a"}},
    "UntagQueue": lambda bench: {"QueueUrl": bench.queue(tags={"team": "a"}), "TagKeys": ["team"]},
}
