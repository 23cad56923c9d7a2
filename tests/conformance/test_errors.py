"""Every error that the model documents for every operation: provoked, or named here with the reason why it cannot be.

Names, codes and statuses: what botocore 1.31.80 (the last with the Query protocol) has as ``error`` of each shape, and
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/ for those that came later.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from . import model
from .conftest import Bench, eventually
from .examples import ARN, EXAMPLES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PREFIX = "AWS.SimpleQueueService."
CODES = {
    "BatchEntryIdsNotDistinct": (PREFIX + "BatchEntryIdsNotDistinct", 400),
    "BatchRequestTooLong": (PREFIX + "BatchRequestTooLong", 400),
    "EmptyBatchRequest": (PREFIX + "EmptyBatchRequest", 400),
    "InvalidAddress": ("InvalidAddress", 404),
    "InvalidAttributeName": ("InvalidAttributeName", 400),
    "InvalidAttributeValue": ("InvalidAttributeValue", 400),
    "InvalidBatchEntryId": (PREFIX + "InvalidBatchEntryId", 400),
    "InvalidMessageContents": ("InvalidMessageContents", 400),
    "MessageNotInflight": (PREFIX + "MessageNotInflight", 400),
    "OverLimit": ("OverLimit", 403),
    "PurgeQueueInProgress": (PREFIX + "PurgeQueueInProgress", 403),
    "QueueDeletedRecently": (PREFIX + "QueueDeletedRecently", 400),
    "QueueDoesNotExist": (PREFIX + "NonExistentQueue", 400),
    "QueueNameExists": ("QueueAlreadyExists", 400),
    "ReceiptHandleIsInvalid": ("ReceiptHandleIsInvalid", 404),
    "ResourceNotFoundException": ("ResourceNotFoundException", 404),
    "TooManyEntriesInBatchRequest": (PREFIX + "TooManyEntriesInBatchRequest", 400),
    "UnsupportedOperation": (PREFIX + "UnsupportedOperation", 400),
}
"""Shape -> (Query code, status)."""

Call = dict[str, Any]
Change = Callable[[Bench, Call], Call]
"""Makes a call that is good into one that is refused."""

STATEMENT = {"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": "*"}
POLICY_OF_21 = json.dumps({"Statement": [{**STATEMENT, "Sid": str(number)} for number in range(21)]})
LIST_VALUE = {"a": {"DataType": "String", "StringListValues": ["x"]}}


def _entries(bench: Bench, call: Call, ids: list[str], **more: Any) -> Call:
    """The call's first entry once for each id."""
    return {**call, "Entries": [{**call["Entries"][0], "Id": entry_id, **more} for entry_id in ids]}


def _no_queue(bench: Bench, call: Call) -> Call:
    if "QueueUrl" in call:
        return {**call, "QueueUrl": f"{bench.endpoint}/000000000000/none"}
    return {**call, "QueueName": "none"}


def _visible_again(bench: Bench, call: Call) -> Call:
    bench.sqs.change_message_visibility(**{**call, "VisibilityTimeout": 0})
    return call


def _purged(bench: Bench, call: Call) -> Call:
    bench.sqs.purge_queue(**call)
    return call


def _deleted(bench: Bench, call: Call) -> Call:
    bench.sqs.delete_queue(QueueUrl=bench.sqs.get_queue_url(QueueName=call["QueueName"])["QueueUrl"])
    return call


def _cancelled(bench: Bench, call: Call) -> Call:
    bench.sqs.cancel_message_move_task(**call)
    arn = json.loads(base64.b64decode(call["TaskHandle"]))["sourceArn"]
    eventually(lambda: bench.sqs.list_message_move_tasks(SourceArn=arn)["Results"][0]["Status"] == "CANCELLED")
    return call


def _other_task(call: Call) -> str:
    """SQS's handle is JSON in base64 too; that of a task that never was has another id."""
    handle = json.loads(base64.b64decode(call["TaskHandle"]))
    return base64.b64encode(json.dumps(handle | {"taskId": "00000000-0000-0000-0000-000000000000"}).encode()).decode()


GENERIC: dict[str, Change] = {
    "BatchEntryIdsNotDistinct": lambda bench, call: _entries(bench, call, ["a", "b", "a"]),
    "EmptyBatchRequest": lambda bench, call: {**call, "Entries": []},
    "InvalidAddress": lambda bench, call: {**call, "QueueUrl": f"{bench.endpoint}/000000000000/not a name"},
    "InvalidBatchEntryId": lambda bench, call: _entries(bench, call, ["a b"]),
    "QueueDoesNotExist": _no_queue,
    "ReceiptHandleIsInvalid": lambda bench, call: {**call, "ReceiptHandle": call["ReceiptHandle"][::-1]},
    "ResourceNotFoundException": lambda _, call: {**call, "SourceArn": f"{ARN}none"},
    "TooManyEntriesInBatchRequest": lambda bench, call: _entries(bench, call, [str(n) for n in range(11)]),
}
PARTICULAR: dict[tuple[str, str], Change] = {
    ("AddPermission", "OverLimit"): lambda _, call: {
        **call,
        "Actions": ["SendMessage"] * 8,
    },
    ("ChangeMessageVisibility", "MessageNotInflight"): _visible_again,
    ("CreateQueue", "InvalidAttributeName"): lambda _, call: {**call, "Attributes": {"Nonsense": "1"}},
    ("CreateQueue", "InvalidAttributeValue"): lambda _, call: {**call, "Attributes": {"DelaySeconds": "901"}},
    ("CreateQueue", "QueueDeletedRecently"): _deleted,
    ("CreateQueue", "QueueNameExists"): lambda _, call: {**call, "Attributes": {"DelaySeconds": "6"}},
    ("GetQueueAttributes", "InvalidAttributeName"): lambda _, call: {**call, "AttributeNames": ["Nonsense"]},
    ("PurgeQueue", "PurgeQueueInProgress"): _purged,
    ("SendMessage", "InvalidMessageContents"): lambda _, call: {**call, "MessageBody": "\x0b"},
    ("SendMessage", "UnsupportedOperation"): lambda _, call: {**call, "MessageAttributes": LIST_VALUE},
    ("SendMessageBatch", "BatchRequestTooLong"): lambda bench, call: _entries(
        bench, call, ["a", "b"], MessageBody="x" * 2**20
    ),
    ("SetQueueAttributes", "InvalidAttributeName"): lambda _, call: {**call, "Attributes": {"QueueArn": "a"}},
    ("SetQueueAttributes", "InvalidAttributeValue"): lambda _, call: {**call, "Attributes": {"DelaySeconds": "x"}},
    ("SetQueueAttributes", "OverLimit"): lambda _, call: {**call, "Attributes": {"Policy": POLICY_OF_21}},
    ("CancelMessageMoveTask", "ResourceNotFoundException"): lambda _, call: {"TaskHandle": _other_task(call)},
    ("CancelMessageMoveTask", "UnsupportedOperation"): _cancelled,
}

NEVER = {
    "InvalidIdFormat": "deprecated in the model: it is ReceiptHandleIsInvalid now",
    "InvalidSecurity": "of access control, which this cluster has switched off",
    "RequestThrottled": "of access control, which this cluster has switched off",
} | dict.fromkeys(
    ("KmsAccessDenied", "KmsDisabled", "KmsInvalidKeyUsage", "KmsInvalidState", "KmsNotFound", "KmsOptInRequired"),
    "no key management service is asked",
)
NEVER["KmsThrottled"] = "no key management service is asked"
NOT_BY = {
    ("CreateQueue", "InvalidAddress"): "takes no URL",
    ("GetQueueUrl", "InvalidAddress"): "takes no URL",
    ("ListQueues", "InvalidAddress"): "takes no URL",
    ("CancelMessageMoveTask", "InvalidAddress"): "takes no URL",
    ("ListMessageMoveTasks", "InvalidAddress"): "takes no URL",
    ("StartMessageMoveTask", "InvalidAddress"): "takes no URL",
    ("ReceiveMessage", "OverLimit"): "120,000 messages: tests/unit/shadow_nodes/core/machine/test_standard.py",
}
NOTHING_UNSUPPORTED = frozenset(model.OPERATIONS) - {name for name, error in PARTICULAR if error[:3] == "Uns"}

DOCUMENTED = [(operation, error) for operation in sorted(model.OPERATIONS) for error in model.errors_of(operation)]


def change_for(operation: str, error: str) -> Change | None:
    """What provokes the error, or None, with the reason in one of the tables above."""
    if error in NEVER or (operation, error) in NOT_BY:
        return None
    if error == "UnsupportedOperation" and operation in NOTHING_UNSUPPORTED:
        return None
    return PARTICULAR.get((operation, error)) or GENERIC[error]


@pytest.mark.parametrize(("operation", "error"), model.named(each for each in DOCUMENTED if change_for(*each)))
def test_documented(bench: Bench, operation: str, error: str) -> None:
    change = change_for(operation, error)
    assert change is not None
    call = change(bench, EXAMPLES[operation](bench))
    code, status = CODES[error]
    with pytest.raises(ClientError) as caught:
        getattr(bench.sqs, model.method_name(operation))(**call)
    response = caught.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert response["Error"]["Message"]
    if bench.protocol == "json":
        assert isinstance(caught.value, getattr(bench.sqs.exceptions, error))
        headers = response["ResponseMetadata"]["HTTPHeaders"]
        assert headers["x-amzn-query-error"] == f"{code};Sender"
    else:
        assert response["Error"]["Type"] == "Sender"


def test_nothing_was_done_by_what_was_refused(bench: Bench) -> None:
    """One bad entry id, and no message of the batch is sent."""
    url = bench.queue()
    entries = [{"Id": "good", "MessageBody": "x"}, {"Id": "not good", "MessageBody": "x"}]
    with pytest.raises(ClientError):
        bench.sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert bench.attributes(url, "ApproximateNumberOfMessages") == {"ApproximateNumberOfMessages": "0"}


def test_of_a_batch_only_bad_entries_fail(bench: Bench) -> None:
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_BatchResultErrorEntry.html"""
    url = bench.queue()
    entries = [
        {"Id": "good", "MessageBody": "good"},
        {"Id": "characters", "MessageBody": "\x0b"},
        {"Id": "delay", "MessageBody": "x", "DelaySeconds": 901},
        {"Id": "list", "MessageBody": "x", "MessageAttributes": LIST_VALUE},
    ]
    answer = bench.sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    assert [(entry["Id"], entry["SenderFault"], entry["Code"]) for entry in answer["Failed"]] == [
        ("characters", True, "InvalidMessageContents"),
        ("delay", True, "InvalidParameterValue"),
        ("list", True, PREFIX + "UnsupportedOperation"),
    ]
    assert all(entry["Message"] for entry in answer["Failed"])
    handle = bench.received(url)["ReceiptHandle"]
    changes = [{"Id": "bad", "ReceiptHandle": "x", "VisibilityTimeout": 1}]
    changes += [{"Id": "good", "ReceiptHandle": handle, "VisibilityTimeout": 60}]
    changes += [{"Id": "long", "ReceiptHandle": handle, "VisibilityTimeout": 43_201}]
    answer = bench.sqs.change_message_visibility_batch(QueueUrl=url, Entries=changes)
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    assert {entry["Id"]: entry["Code"] for entry in answer["Failed"]} == {
        "bad": "ReceiptHandleIsInvalid",
        "long": "InvalidParameterValue",
    }
    handles = [{"Id": "bad", "ReceiptHandle": "x"}, {"Id": "good", "ReceiptHandle": handle}]
    answer = bench.sqs.delete_message_batch(QueueUrl=url, Entries=handles)
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    assert [(entry["Id"], entry["Code"]) for entry in answer["Failed"]] == [("bad", "ReceiptHandleIsInvalid")]
