"""Every limit at its edge: what is just within it is done, what is just beyond it is refused.

Each case: the parameter, a value within, a value beyond, the error. Numbers of queue attributes are in test_attributes.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import ClientError

from . import model
from .conftest import Bench
from .examples import EXAMPLES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

MIB = 2**20
INVALID = "InvalidParameterValue"
PREFIX = "AWS.SimpleQueueService."
TEXT = {"DataType": "String", "StringValue": "v"}


class Limit(NamedTuple):
    operation: str
    parameter: str
    within: tuple[Any, ...]
    beyond: tuple[Any, ...]
    code: str = INVALID


def attributes(count: int) -> dict[str, Any]:
    return {f"a{number}": TEXT for number in range(count)}


def tags(count: int) -> dict[str, str]:
    return {f"t{number}": "v" for number in range(count)}


LIMITS = [
    # names: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
    Limit("CreateQueue", "QueueName", ("-_" * 40, "a"), ("a" * 81, "", "a.b", "a b", "é", "a.fifo")),
    Limit("GetQueueUrl", "QueueName", (), ("a" * 81, "a b")),
    # lists: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ListQueues.html
    Limit("ListQueues", "MaxResults", (1, 1_000), (0, 1_001, -1)),
    Limit("ListDeadLetterSourceQueues", "MaxResults", (1, 1_000), (0, 1_001)),
    Limit("ListQueues", "NextToken", (), ("?", "é")),
    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
    Limit("StartMessageMoveTask", "MaxNumberOfMessagesPerSecond", (1, 500), (0, 501, -1)),
    Limit("StartMessageMoveTask", "DestinationArn", (), ("q", "arn:aws:s3:::q")),
    Limit("ListMessageMoveTasks", "MaxResults", (1, 10), (0, 11)),
    Limit("CancelMessageMoveTask", "TaskHandle", (), ("x", "e30=")),
    # receiving: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html
    Limit("ReceiveMessage", "MaxNumberOfMessages", (1, 10), (0, 11, -1)),
    Limit("ReceiveMessage", "VisibilityTimeout", (0, 43_200), (-1, 43_201)),
    Limit("ReceiveMessage", "WaitTimeSeconds", (0, 20), (-1, 21)),
    Limit("ReceiveMessage", "ReceiveRequestAttemptId", ("~" * 128, "!"), ("a" * 129, "a b", "é")),
    Limit("ReceiveMessage", "MessageSystemAttributeNames", (["All"],), (["Nonsense"],), "InvalidAttributeName"),
    Limit("ReceiveMessage", "AttributeNames", (["All"],), (["Nonsense"],), "InvalidAttributeName"),
    # sending: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html
    Limit("SendMessage", "MessageGroupId", ("~" * 128, "!"), ("a" * 129, "a b", "é")),
    Limit("SendMessage", "MessageDeduplicationId", ("~" * 128, "!"), ("a" * 129, "a b", "é")),
    Limit("SendMessage", "DelaySeconds", (0,), (1,)),
    Limit("SendMessage", "MessageAttributes", (attributes(10), {"a" * 256: TEXT}), (attributes(11), {"a" * 257: TEXT})),
    Limit(
        "SendMessage",
        "MessageAttributes",
        ({"a": {**TEXT, "DataType": "String." + "x" * 249}},),
        ({"a": {**TEXT, "DataType": "String." + "x" * 250}}, {"a": {**TEXT, "DataType": "Text"}}, {"AWS.a": TEXT}),
    ),
    Limit(
        "SendMessage",
        "MessageAttributes",
        ({"a": {"DataType": "Number", "StringValue": "1" * 38}},),
        ({"a": {"DataType": "Number", "StringValue": "one"}}, {"a": {"DataType": "Number", "StringValue": ""}}),
    ),
    Limit("SendMessage", "MessageSystemAttributes", (), ({"Nonsense": TEXT},)),
    Limit("SendMessage", "MessageSystemAttributes", (), ({"AWSTraceHeader": {**TEXT, "DataType": "Number"}},)),
    # visibility
    Limit("ChangeMessageVisibility", "VisibilityTimeout", (0,), (-1, 43_201)),
    # tags: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-queues.html
    Limit(
        "TagQueue",
        "Tags",
        (tags(50), {"k" * 128: "v" * 256}, {"k": ""}),
        (tags(51), {"k" * 129: "v"}, {"k": "v" * 257}, {"": "v"}, {"aws:k": "v"}),
    ),
    Limit("CreateQueue", "tags", (), (tags(51), {"aws:k": "v"})),
    Limit("TagQueue", "Tags", (), ({"shadowq:shadow-factor": "7"}, {"shadowq:shadow-factor": "x"})),
    Limit("TagQueue", "Tags", (), ({"shadowq:allowed-regions": "/"}, {"shadowq:failback": "x"})),
    # permissions: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_AddPermission.html
    Limit("AddPermission", "Label", ("-_" * 40, "a"), ("a" * 81, "a b")),
    Limit("AddPermission", "AWSAccountIds", (["0" * 12],), (["1" * 11], ["a" * 12])),
    Limit("AddPermission", "Actions", (["SendMessage"] * 7,), (["Nonsense"], ["sendmessage"])),
    Limit("AddPermission", "Actions", (), (["SendMessage"] * 8,), "OverLimit"),
    Limit("RemovePermission", "Label", (), ("other",)),
]
CASES = [
    pytest.param(limit, value, fits, id=f"{limit.operation}-{limit.parameter}-{str(value)[:24]!a}-{fits}")
    for limit in LIMITS
    for values, fits in ((limit.within, True), (limit.beyond, False))
    for value in values
]


@pytest.mark.parametrize(("limit", "value", "fits"), CASES)
def test_limit(bench: Bench, limit: Limit, value: Any, fits: bool) -> None:
    parameters = EXAMPLES[limit.operation](bench) | {limit.parameter: value}
    if limit.operation == "CreateQueue":
        parameters = {"QueueName": "other", limit.parameter: value}
    elif limit.parameter == "MaxResults":
        parameters.pop("NextToken", None)
    call = getattr(bench.sqs, model.method_name(limit.operation))
    if fits:
        call(**parameters)
        return
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    assert caught.value.response["Error"]["Code"] == limit.code


@pytest.mark.parametrize("seconds", [0, 1, 900, -1, 901])
def test_delay_of_a_standard_message(bench: Bench, seconds: int) -> None:
    url = bench.queue()
    if 0 <= seconds <= 900:
        bench.sent(url, DelaySeconds=seconds)
        return
    with pytest.raises(ClientError, match=INVALID):
        bench.sent(url, DelaySeconds=seconds)


def test_names_of_fifo_queues(bench: Bench) -> None:
    """The suffix counts towards the 80 characters."""
    fifo = {"FifoQueue": "true"}
    bench.sqs.create_queue(QueueName="a" * 75 + ".fifo", Attributes=fifo)
    for name, attributes in (("a" * 76 + ".fifo", fifo), ("a", fifo), ("a.fifo", {}), (".fifo", fifo)):
        with pytest.raises(ClientError, match=INVALID):
            bench.sqs.create_queue(QueueName=name, Attributes=attributes)


def test_sizes_of_messages(bench: Bench) -> None:
    """Body and attributes count; of those names, types and values: https://docs.aws.amazon.com/
    AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html (1 MiB since August 2025)."""
    url = bench.queue()
    parameters: dict[str, Any] = {"MessageAttributes": {"a": TEXT}}
    largest = "é" * ((MIB - 8) // 2)
    sent = bench.sent(url, largest, **parameters)
    message = bench.received(url, MessageAttributeNames=["All"])
    assert (message["Body"], message["MessageId"]) == (largest, sent["MessageId"])
    for body in ("x" * (MIB + 1), "", "x" * (MIB - 7)):
        with pytest.raises(ClientError):
            bench.sent(url, body, **parameters)
    bench.sent(url, "x")
    assert bench.received(url)["Body"] == "x"


def test_sizes_of_batches(bench: Bench) -> None:
    url = bench.queue()
    entries = [{"Id": str(number), "MessageBody": "x" * (MIB // 8)} for number in range(8)]
    assert len(bench.sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 8
    entries[0]["MessageBody"] += "x"
    with pytest.raises(ClientError, match="BatchRequestTooLong"):
        bench.sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert bench.attributes(url, "ApproximateNumberOfMessages") == {"ApproximateNumberOfMessages": "8"}


def test_the_queues_own_size(bench: Bench) -> None:
    url = bench.queue(MaximumMessageSize=1_024)
    bench.sent(url, "x" * 1_024)
    with pytest.raises(ClientError, match="shorter than 1024 bytes"):
        bench.sent(url, "x" * 1_025)
    entries = [{"Id": "good", "MessageBody": "x" * 1_024}, {"Id": "bad", "MessageBody": "x" * 1_025}]
    answer = bench.sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"] + answer["Failed"]] == ["good", "bad"]


def test_counts_of_batches(bench: Bench) -> None:
    url = bench.queue()
    entries = [{"Id": "-_" * 39 + f"x{number}", "MessageBody": str(number)} for number in range(10)]
    assert len(bench.sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
    messages = bench.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=20)["Messages"]
    assert sorted(int(message["Body"]) for message in messages) == list(range(10))
    entries = [{"Id": f"d{m['Body']}", "ReceiptHandle": m["ReceiptHandle"], "VisibilityTimeout": 60} for m in messages]
    assert len(bench.sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
    entries = [{key: entry[key] for key in ("Id", "ReceiptHandle")} for entry in entries]
    assert len(bench.sqs.delete_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
    with pytest.raises(ClientError, match="InvalidBatchEntryId"):
        bench.sqs.send_message_batch(QueueUrl=url, Entries=[{"Id": "x" * 81, "MessageBody": "x"}])


def test_invisible_for_twelve_hours_since_the_receive(bench: Bench) -> None:
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ChangeMessageVisibility.html"""
    url = bench.queue()
    handle = bench.handle(url)
    time.sleep(1.1)
    with pytest.raises(ClientError, match="43200"):
        bench.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=43_200)
    bench.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=43_000)


def test_characters(bench: Bench) -> None:
    """What XML can say, and nothing else: #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF."""
    url = bench.queue()
    body = "\t\n\r \ud7ff\ue000\ufffd\U00010000\U0010ffff"
    bench.sent(url, body)
    assert bench.received(url)["Body"] == body
    for character in "\x00\x08\x0b\x1f\ufffe\uffff":
        with pytest.raises(ClientError, match="InvalidMessageContents"):
            bench.sent(url, f"a{character}")
        with pytest.raises(ClientError, match="InvalidMessageContents"):
            bench.sent(url, MessageAttributes={"a": {"DataType": "String", "StringValue": character}})
