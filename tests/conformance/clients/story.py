"""What every boto-like client does here: a generator of calls that is sent their answers.

So it can be told to blocking and to asynchronous clients, of any version. Only the standard library is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from typing import Any

Step = tuple[str, dict[str, Any]]
Story = Generator[Step, Any, None]

ATTRIBUTES = {
    "text": {"DataType": "String", "StringValue": "é"},
    "bytes": {"DataType": "Binary", "BinaryValue": bytes(range(256))},
}


def story(standard: str, fifo: str) -> Story:
    """``standard``, ``fifo``: names of queues that are there and empty."""
    url = (yield "get_queue_url", {"QueueName": standard})["QueueUrl"]
    yield from messages(url)
    yield from batches(url)
    yield from queues(standard, url)
    yield from order((yield "get_queue_url", {"QueueName": fifo})["QueueUrl"])
    yield from errors(standard, url)


def messages(url: str) -> Story:
    body = 'é <x> & "quoted" \r\n\t \U0001f600'
    sent = yield "send_message", {"QueueUrl": url, "MessageBody": body, "MessageAttributes": ATTRIBUTES}
    assert sent["MD5OfMessageBody"] == hashlib.md5(body.encode()).hexdigest()
    asked = {"QueueUrl": url, "WaitTimeSeconds": 20, "AttributeNames": ["All"], "MessageAttributeNames": ["All"]}
    (message,) = (yield "receive_message", asked)["Messages"]
    assert (message["Body"], message["MessageId"]) == (body, sent["MessageId"])
    assert message["MessageAttributes"] == ATTRIBUTES, message["MessageAttributes"]
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    handle = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    yield "change_message_visibility", {**handle, "VisibilityTimeout": 60}
    yield "delete_message", handle
    assert not (yield "receive_message", {"QueueUrl": url}).get("Messages")


def batches(url: str) -> Story:
    entries = [{"Id": str(number), "MessageBody": str(number)} for number in range(10)]
    answer = yield "send_message_batch", {"QueueUrl": url, "Entries": entries}
    assert [entry["Id"] for entry in answer["Successful"]] == [entry["Id"] for entry in entries]
    assert not answer.get("Failed")
    found: dict[str, str] = {}
    while len(found) < len(entries):
        answer = yield "receive_message", {"QueueUrl": url, "MaxNumberOfMessages": 10, "WaitTimeSeconds": 20}
        found |= {message["Body"]: message["ReceiptHandle"] for message in answer["Messages"]}
    changes = [{"Id": body, "ReceiptHandle": handle, "VisibilityTimeout": 60} for body, handle in found.items()]
    answer = yield "change_message_visibility_batch", {"QueueUrl": url, "Entries": changes}
    assert len(answer["Successful"]) == 10
    handles = [{"Id": body, "ReceiptHandle": handle} for body, handle in found.items()]
    handles[0]["ReceiptHandle"] = "wrong"
    answer = yield "delete_message_batch", {"QueueUrl": url, "Entries": handles}
    assert len(answer["Successful"]) == 9
    assert [(entry["Code"], entry["SenderFault"]) for entry in answer["Failed"]] == [("ReceiptHandleIsInvalid", True)]
    yield "purge_queue", {"QueueUrl": url}


def queues(standard: str, url: str) -> Story:
    name = f"{standard}-mine"
    arn = (yield "get_queue_attributes", {"QueueUrl": url, "AttributeNames": ["QueueArn"]})["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "5"})
    attributes = {"VisibilityTimeout": "45", "RedrivePolicy": redrive}
    mine = (yield "create_queue", {"QueueName": name, "Attributes": attributes, "tags": {"team": "a"}})["QueueUrl"]
    held = (yield "get_queue_attributes", {"QueueUrl": mine, "AttributeNames": ["All"]})["Attributes"]
    assert held.items() >= attributes.items()
    yield "set_queue_attributes", {"QueueUrl": mine, "Attributes": {"VisibilityTimeout": "50"}}
    assert (yield "list_dead_letter_source_queues", {"QueueUrl": url})["queueUrls"] == [mine]
    yield "tag_queue", {"QueueUrl": mine, "Tags": {"cost": "b"}}
    yield "untag_queue", {"QueueUrl": mine, "TagKeys": ["team"]}
    assert (yield "list_queue_tags", {"QueueUrl": mine})["Tags"] == {"cost": "b"}
    account = {"AWSAccountIds": ["123456789012"], "Actions": ["SendMessage", "ReceiveMessage"]}
    yield "add_permission", {"QueueUrl": mine, "Label": "l", **account}
    yield "remove_permission", {"QueueUrl": mine, "Label": "l"}
    assert (yield "list_queues", {"QueueNamePrefix": name})["QueueUrls"] == [mine]
    first = yield "list_queues", {"QueueNamePrefix": standard, "MaxResults": 1}
    rest = yield "list_queues", {"QueueNamePrefix": standard, "MaxResults": 1, "NextToken": first["NextToken"]}
    assert [*first["QueueUrls"], *rest["QueueUrls"]][:2] == [url, mine]
    yield "delete_queue", {"QueueUrl": mine}


def order(url: str) -> Story:
    message = {"QueueUrl": url, "MessageBody": "x", "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    first = yield "send_message", message
    again = yield "send_message", message
    assert first["MessageId"] == again["MessageId"]
    assert first["SequenceNumber"] == again["SequenceNumber"]
    asked = {"QueueUrl": url, "WaitTimeSeconds": 20, "AttributeNames": ["SequenceNumber", "MessageGroupId"]}
    (message,) = (yield "receive_message", asked)["Messages"]
    assert message["Attributes"] == {"SequenceNumber": first["SequenceNumber"], "MessageGroupId": "g"}
    yield "delete_message", {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}


def errors(standard: str, url: str) -> Story:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("get_queue_url", {"QueueName": "none"}, "AWS.SimpleQueueService.NonExistentQueue"),
        ("create_queue", {"QueueName": standard, "Attributes": {"DelaySeconds": "7"}}, "QueueAlreadyExists"),
        ("delete_message", {"QueueUrl": url, "ReceiptHandle": "wrong"}, "ReceiptHandleIsInvalid"),
        ("set_queue_attributes", {"QueueUrl": url, "Attributes": {"DelaySeconds": "x"}}, "InvalidAttributeValue"),
        ("purge_queue", {"QueueUrl": url}, "AWS.SimpleQueueService.PurgeQueueInProgress"),
    ]
    for method, parameters, code in wrong:
        try:
            yield method, parameters
        except Exception as error:
            response = getattr(error, "response", None)
            if response is None:
                raise
            assert response["Error"]["Code"] == code, response
        else:
            raise AssertionError(f"{method} was not refused")


def tell(client: Any, told: Story) -> int:
    """To a blocking client: the number of calls."""
    calls, answer, error = 0, None, None
    while True:
        try:
            method, parameters = told.send(answer) if error is None else told.throw(error)
        except StopIteration:
            return calls
        calls += 1
        answer, error = None, None
        try:
            answer = getattr(client, method)(**parameters)
        except Exception as raised:
            error = raised


async def tell_async(client: Any, told: Story) -> int:
    """To an asynchronous client: the number of calls."""
    calls, answer, error = 0, None, None
    while True:
        try:
            method, parameters = told.send(answer) if error is None else told.throw(error)
        except StopIteration:
            return calls
        calls += 1
        answer, error = None, None
        try:
            answer = await getattr(client, method)(**parameters)
        except Exception as raised:
            error = raised
