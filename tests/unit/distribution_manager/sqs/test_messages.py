"""Messages through boto3, in both protocols."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distribution_manager.core.attributes import MESSAGE_BYTES_MAX


def refused(call: Any, **parameters: Any) -> tuple[str, str]:
    """(code, message) of the error that the call must raise."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="orders")["QueueUrl"])


@pytest.fixture
def fifo_url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="orders.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"])


def test_send_receive_delete(sqs: Any, url: str) -> None:
    body = 'é <x> & "quoted" \r\n\t 😀'
    sent = sqs.send_message(QueueUrl=url, MessageBody=body)
    assert sent["MD5OfMessageBody"] == hashlib.md5(body.encode()).hexdigest()
    assert "SequenceNumber" not in sent
    assert sent["ResponseMetadata"]["RequestId"]
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert message["Body"] == body
    assert message["MessageId"] == sent["MessageId"]
    assert message["MD5OfBody"] == sent["MD5OfMessageBody"]
    assert "Attributes" not in message
    assert sqs.receive_message(QueueUrl=url).get("Messages") is None
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    counts = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessagesNotVisible"])
    assert counts["Attributes"] == {"ApproximateNumberOfMessagesNotVisible": "0"}


def test_message_attributes_and_their_md5_as_recorded_from_sqs(sqs: Any, url: str) -> None:
    def text(value: str) -> dict[str, str]:
        return {"DataType": "String", "StringValue": value}

    attributes = {"Hello": text("There"), "General": text("Kenobi"), "Help.Me": text("Me")}
    sent = sqs.send_message(QueueUrl=url, MessageBody="msg", MessageAttributes=attributes)
    assert sent["MD5OfMessageAttributes"] == "4c360f3fdafd970e05fae2f149d997f5"
    for names, kept, md5 in (
        (["All"], {"Hello", "General", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"),
        ([".*"], {"Hello", "General", "Help.Me"}, "4c360f3fdafd970e05fae2f149d997f5"),
        (["Hello", "Nothing"], {"Hello"}, "a311262e065454b75da111d535b8dacd"),
        (["Hel.*"], {"Hello", "Help.Me"}, "83fee93c1bcd8b9a5a923ffacdc636c7"),
        (["Nothing"], set(), None),
        ([], set(), None),
    ):
        (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=names, VisibilityTimeout=0)["Messages"]
        assert message.get("MD5OfMessageAttributes") == md5
        assert message.get("MessageAttributes", {}) == {name: attributes[name] for name in kept}


def test_binary_attribute(sqs: Any, url: str) -> None:
    value = b"traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01"
    attributes = {
        "attr1": {"DataType": "Binary", "BinaryValue": value},
        "n": {"DataType": "Number.int", "StringValue": "-1.5e3"},
    }
    sqs.send_message(QueueUrl=url, MessageBody="test", MessageAttributes=attributes)
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["attr1"], VisibilityTimeout=0)["Messages"]
    assert message["MD5OfMessageAttributes"] == "8cbe4db156db8a94db8b801b7addb984"
    (message,) = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["All"])["Messages"]
    assert message["MessageAttributes"] == attributes


def test_system_attributes(server: Any, sqs: Any, url: str) -> None:
    trace = "Root=1-5e3d83c1-e6a0db584850d61342823d4c"
    sent_ms = server.backend.now_ms
    sent = sqs.send_message(
        QueueUrl=url,
        MessageBody="x",
        MessageSystemAttributes={"AWSTraceHeader": {"DataType": "String", "StringValue": trace}},
        MessageGroupId="tenant",
    )
    assert len(sent["MD5OfMessageSystemAttributes"]) == 32
    server.backend.now_ms += 5_000
    (message,) = sqs.receive_message(QueueUrl=url, MessageSystemAttributeNames=["All"], VisibilityTimeout=0)["Messages"]
    assert message["Attributes"] == {
        "SenderId": "000000000000",
        "SentTimestamp": str(sent_ms),
        "ApproximateReceiveCount": "1",
        "ApproximateFirstReceiveTimestamp": str(sent_ms + 5_000),
        "MessageGroupId": "tenant",
        "AWSTraceHeader": trace,
    }
    names = ["ApproximateReceiveCount", "SequenceNumber"]
    (message,) = sqs.receive_message(QueueUrl=url, AttributeNames=names)["Messages"]
    assert message["Attributes"] == {"ApproximateReceiveCount": "2"}
    code, _ = refused(sqs.receive_message, QueueUrl=url, MessageSystemAttributeNames=["Nonsense"])
    assert code == "InvalidAttributeName"


def test_batch_with_partial_failure(sqs: Any, url: str) -> None:
    entries = [
        {"Id": "good", "MessageBody": "a"},
        {"Id": "control", "MessageBody": "\x01"},
        {"Id": "late", "MessageBody": "b", "DelaySeconds": 901},
        {"Id": "number", "MessageBody": "c", "MessageAttributes": {"n": {"DataType": "Number", "StringValue": "x"}}},
        {"Id": "also_good-2", "MessageBody": "d"},
    ]
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["good", "also_good-2"]
    assert [(entry["Id"], entry["Code"], entry["SenderFault"]) for entry in answer["Failed"]] == [
        ("control", "InvalidMessageContents", True),
        ("late", "InvalidParameterValue", True),
        ("number", "InvalidParameterValue", True),
    ]
    messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert {message["MessageId"] for message in messages} == {entry["MessageId"] for entry in answer["Successful"]}
    handles = [
        {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]} for number, message in enumerate(messages)
    ]
    changes = [{**handle, "VisibilityTimeout": 60} for handle in handles]
    changes.append({"Id": "long", "ReceiptHandle": messages[0]["ReceiptHandle"], "VisibilityTimeout": 43_201})
    answer = sqs.change_message_visibility_batch(QueueUrl=url, Entries=changes)
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "1"]
    assert [(entry["Id"], entry["Code"]) for entry in answer["Failed"]] == [("long", "InvalidParameterValue")]
    answer = sqs.delete_message_batch(QueueUrl=url, Entries=[*handles, {"Id": "made-up", "ReceiptHandle": "x"}])
    assert [entry["Id"] for entry in answer["Successful"]] == ["0", "1"]
    assert [(entry["Id"], entry["Code"]) for entry in answer["Failed"]] == [("made-up", "ReceiptHandleIsInvalid")]


def test_whole_batch_refused(sqs: Any, url: str) -> None:
    def send(*ids: str) -> tuple[str, str]:
        return refused(sqs.send_message_batch, QueueUrl=url, Entries=[{"Id": name, "MessageBody": "x"} for name in ids])

    assert send("a", "b", "a") == ("AWS.SimpleQueueService.BatchEntryIdsNotDistinct", "Id a repeated.")
    assert send("a b")[0] == "AWS.SimpleQueueService.InvalidBatchEntryId"
    assert send("é")[0] == "AWS.SimpleQueueService.InvalidBatchEntryId"
    assert send("a" * 81)[0] == "AWS.SimpleQueueService.InvalidBatchEntryId"
    assert send(*map(str, range(11))) == (
        "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
        "Maximum number of entries per request are 10. You have sent 11.",
    )
    assert refused(sqs.send_message_batch, QueueUrl=url, Entries=[])[0] == "AWS.SimpleQueueService.EmptyBatchRequest"
    assert refused(sqs.delete_message_batch, QueueUrl=url, Entries=[])[0] == "AWS.SimpleQueueService.EmptyBatchRequest"
    assert refused(sqs.change_message_visibility_batch, QueueUrl=url, Entries=[])[0].endswith("EmptyBatchRequest")


def test_size_limits_at_their_edge(sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x" * MESSAGE_BYTES_MAX)
    attribute = {"a": {"DataType": "String", "StringValue": "v"}}
    sqs.send_message(QueueUrl=url, MessageBody="é" * ((MESSAGE_BYTES_MAX - 8) // 2), MessageAttributes=attribute)
    too_long = (
        "InvalidParameterValue",
        "One or more parameters are invalid. Reason: Message must be shorter than 1048576 bytes.",
    )
    assert refused(sqs.send_message, QueueUrl=url, MessageBody="x" * (MESSAGE_BYTES_MAX + 1)) == too_long
    parameters = {"MessageBody": "x" * (MESSAGE_BYTES_MAX - 7), "MessageAttributes": attribute}
    assert refused(sqs.send_message, QueueUrl=url, **parameters) == too_long
    half = "x" * (MESSAGE_BYTES_MAX // 2)
    entries = [{"Id": "1", "MessageBody": half}, {"Id": "2", "MessageBody": half}]
    assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 2
    entries[0]["MessageBody"] += "x"
    assert refused(sqs.send_message_batch, QueueUrl=url, Entries=entries) == (
        "AWS.SimpleQueueService.BatchRequestTooLong",
        "Batch requests cannot be longer than 1048576 bytes. You have sent 1048577 bytes.",
    )
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"MaximumMessageSize": "1024"})
    assert "shorter than 1024 bytes" in refused(sqs.send_message, QueueUrl=url, MessageBody="x" * 1_025)[1]
    answer = sqs.send_message_batch(
        QueueUrl=url, Entries=[{"Id": "1", "MessageBody": "x" * 1_025}, {"Id": "2", "MessageBody": "x"}]
    )
    assert [entry["Id"] for entry in answer["Failed"]] == ["1"]


@pytest.mark.parametrize("body", ["\x00", "a\x08", "\ufffe", "x" * 100 + "\x1f"])
def test_characters_that_sqs_refuses(sqs: Any, url: str, body: str) -> None:
    assert refused(sqs.send_message, QueueUrl=url, MessageBody=body)[0] == "InvalidMessageContents"


@pytest.mark.parametrize(
    ("attributes", "says"),
    [
        ({"": {"DataType": "String", "StringValue": "v"}}, "non-empty message (user) attribute names"),
        ({"a b": {"DataType": "String", "StringValue": "v"}}, "Invalid non-alphanumeric character"),
        ({"AWS.x": {"DataType": "String", "StringValue": "v"}}, "reserved for internal use"),
        ({".a": {"DataType": "String", "StringValue": "v"}}, "must not begin"),
        ({"a.": {"DataType": "String", "StringValue": "v"}}, "must not end"),
        ({"a..b": {"DataType": "String", "StringValue": "v"}}, "successive"),
        ({"a": {"DataType": "Text", "StringValue": "v"}}, "supported type prefixes: Binary, Number, String."),
        (
            {"a": {"DataType": "String", "StringValue": ""}},
            "Message (user) attribute 'a' must contain a non-empty value of type 'String'.",
        ),
        ({"a": {"DataType": "Binary", "BinaryValue": b""}}, "must contain a non-empty value of type 'Binary'"),
        ({"a": {"DataType": "Binary", "StringValue": "x"}}, "must use field 'Binary'"),
        (
            {"a": {"DataType": "Number", "StringValue": "1,5"}},
            "Can't cast the value of message (user) attribute 'a' to a number.",
        ),
        (
            {str(n): {"DataType": "String", "StringValue": "v"} for n in range(11)},
            "[11] exceeds the allowed maximum [10]",
        ),
    ],
)
def test_attributes_that_sqs_refuses(sqs: Any, url: str, attributes: dict[str, Any], says: str) -> None:
    code, message = refused(sqs.send_message, QueueUrl=url, MessageBody="x", MessageAttributes=attributes)
    assert code == "InvalidParameterValue"
    assert says in message


def test_parameters_out_of_range(sqs: Any, url: str) -> None:
    for parameters in (
        {"MaxNumberOfMessages": 0},
        {"MaxNumberOfMessages": 11},
        {"VisibilityTimeout": -1},
        {"VisibilityTimeout": 43_201},
        {"WaitTimeSeconds": 21},
        {"ReceiveRequestAttemptId": "only-fifo"},
    ):
        assert refused(sqs.receive_message, QueueUrl=url, **parameters)[0] == "InvalidParameterValue"
    assert refused(sqs.send_message, QueueUrl=url, MessageBody="x", DelaySeconds=-1)[0] == "InvalidParameterValue"
    assert refused(sqs.send_message, QueueUrl=url, MessageBody="")[0] == "MissingParameter"
    assert refused(sqs.send_message, QueueUrl=url, MessageBody="x", MessageDeduplicationId="d") == (
        "InvalidParameterValue",
        "Value d for parameter MessageDeduplicationId is invalid. Reason: The request includes a parameter that is not "
        "valid for this queue type.",
    )
    assert refused(sqs.send_message, QueueUrl=url, MessageBody="x", MessageGroupId="a b")[0] == "InvalidParameterValue"


def test_delay_and_wait(server: Any, sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=10)
    assert "Messages" not in sqs.receive_message(QueueUrl=url, WaitTimeSeconds=3)
    assert server.backend.waits_ms[-1] == 3_000
    names = ["ApproximateNumberOfMessagesDelayed"]
    assert sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"] == {names[0]: "1"}
    server.backend.now_ms += 10_000
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"ReceiveMessageWaitTimeSeconds": "20"})
    assert sqs.receive_message(QueueUrl=url)["Messages"][0]["Body"] == "later"
    assert server.backend.waits_ms[-1] == 20_000


def test_visibility(server: Any, sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x")
    handle = sqs.receive_message(QueueUrl=url, VisibilityTimeout=30)["Messages"][0]["ReceiptHandle"]
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert message["ReceiptHandle"] != handle
    assert refused(sqs.change_message_visibility, QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=9) == (
        "InvalidParameterValue",
        f"Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available "
        "for visibility timeout change.",
    )
    server.backend.now_ms += 30_000
    handle = message["ReceiptHandle"]
    code, _ = refused(sqs.change_message_visibility, QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=9)
    assert code == "AWS.SimpleQueueService.MessageNotInflight"
    assert refused(sqs.change_message_visibility, QueueUrl=url, ReceiptHandle="AAAA", VisibilityTimeout=9) == (
        "ReceiptHandleIsInvalid",
        'The input receipt handle "AAAA" is not a valid receipt handle.',
    )
    other = sqs.create_queue(QueueName="other")["QueueUrl"]
    assert refused(sqs.delete_message, QueueUrl=other, ReceiptHandle=handle)[0] == "ReceiptHandleIsInvalid"


def test_fifo(server: Any, sqs: Any, fifo_url: str) -> None:
    send = {"QueueUrl": fifo_url, "MessageBody": "x", "MessageGroupId": "g"}
    first = sqs.send_message(**send, MessageDeduplicationId="d1")
    again = sqs.send_message(**send, MessageDeduplicationId="d1")
    assert (first["MessageId"], first["SequenceNumber"]) == (again["MessageId"], again["SequenceNumber"])
    assert len(first["SequenceNumber"]) == 20
    second = sqs.send_message(**send, MessageDeduplicationId="d2")
    assert second["SequenceNumber"] > first["SequenceNumber"]
    answer = sqs.receive_message(
        QueueUrl=fifo_url, AttributeNames=["All"], MaxNumberOfMessages=1, ReceiveRequestAttemptId="attempt"
    )
    attributes = answer["Messages"][0]["Attributes"]
    assert attributes["SequenceNumber"] == first["SequenceNumber"]
    assert (attributes["MessageGroupId"], attributes["MessageDeduplicationId"]) == ("g", "d1")
    handle = answer["Messages"][0]["ReceiptHandle"]
    assert "Messages" not in sqs.receive_message(QueueUrl=fifo_url)
    server.backend.now_ms += 30_000
    assert refused(sqs.delete_message, QueueUrl=fifo_url, ReceiptHandle=handle) == (
        "InvalidParameterValue",
        f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.",
    )


def test_fifo_refusals(sqs: Any, fifo_url: str) -> None:
    no_id = (
        "InvalidParameterValue",
        "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
    )
    missing = "The request must contain the parameter MessageGroupId."
    send = {"QueueUrl": fifo_url, "MessageBody": "x"}
    assert refused(sqs.send_message, **send) == ("MissingParameter", missing)
    assert refused(sqs.send_message, **send, MessageGroupId="g") == no_id
    assert refused(sqs.send_message, **send, MessageGroupId="g", MessageDeduplicationId="d", DelaySeconds=2) == (
        "InvalidParameterValue",
        "Value 2 for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid "
        "for this queue type.",
    )
    entry = {"Id": "1", "MessageBody": "x", "MessageDeduplicationId": "d"}
    assert refused(sqs.send_message_batch, QueueUrl=fifo_url, Entries=[entry]) == ("InvalidParameterValue", missing)
    entry = {"Id": "1", "MessageBody": "x", "MessageGroupId": "g"}
    assert refused(sqs.send_message_batch, QueueUrl=fifo_url, Entries=[entry]) == no_id
    sqs.set_queue_attributes(QueueUrl=fifo_url, Attributes={"ContentBasedDeduplication": "true"})
    (sent,) = sqs.send_message_batch(QueueUrl=fifo_url, Entries=[entry])["Successful"]
    assert sent["SequenceNumber"]
    (message,) = sqs.receive_message(QueueUrl=fifo_url, AttributeNames=["MessageDeduplicationId"])["Messages"]
    assert message["Attributes"] == {"MessageDeduplicationId": hashlib.sha256(b"x").hexdigest()}


def test_dead_letter_names_its_source(sqs: Any, url: str) -> None:
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    policy = '{"deadLetterTargetArn": "arn:aws:sqs:us-east-1:000000000000:dead", "maxReceiveCount": "1"}'
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": policy})
    sent = sqs.send_message(QueueUrl=url, MessageBody="poison")
    sqs.receive_message(QueueUrl=url, VisibilityTimeout=0)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    (message,) = sqs.receive_message(QueueUrl=dead, AttributeNames=["DeadLetterQueueSourceArn"])["Messages"]
    assert message["MessageId"] == sent["MessageId"]
    assert message["Attributes"] == {"DeadLetterQueueSourceArn": "arn:aws:sqs:us-east-1:000000000000:orders"}
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]


def test_purge_once_a_minute(server: Any, sqs: Any, url: str) -> None:
    sqs.send_message(QueueUrl=url, MessageBody="x")
    sqs.purge_queue(QueueUrl=url)
    assert "Messages" not in sqs.receive_message(QueueUrl=url)
    assert refused(sqs.purge_queue, QueueUrl=url) == (
        "AWS.SimpleQueueService.PurgeQueueInProgress",
        "Only one PurgeQueue operation on orders is allowed every 60 seconds.",
    )
    server.backend.now_ms += 60_000
    sqs.purge_queue(QueueUrl=url)
