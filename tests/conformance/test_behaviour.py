"""What operations do together, across managers: time, order, deduplication, dead letters, counts.

Nothing here asserts how long something took: what must be there is waited for, what must not be there has long to go.
"""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from . import model
from .conftest import Bench, eventually
from .examples import ATTRIBUTES, TRACE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

DELAYED = "ApproximateNumberOfMessagesDelayed"
IN_FLIGHT = "ApproximateNumberOfMessagesNotVisible"
VISIBLE = "ApproximateNumberOfMessages"


def counts(bench: Bench, url: str) -> tuple[int, int, int]:
    """(visible, in flight, delayed), which both managers must agree on."""
    names = [VISIBLE, IN_FLIGHT, DELAYED]
    here = bench.attributes(url, *names)
    there = bench.owner.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert here == there
    visible, in_flight, delayed = (int(here[name]) for name in names)
    return visible, in_flight, delayed


def test_one_message_through_its_life(bench: Bench) -> None:
    """Counts are exact here; SQS's are approximate."""
    url = bench.queue(VisibilityTimeout=600)
    bench.sent(url, DelaySeconds=900)
    bench.sent(url, "one")
    bench.sent(url, "two")
    assert counts(bench, url) == (2, 0, 1)
    message = bench.received(url)
    assert counts(bench, url) == (1, 1, 1)
    bench.owner.change_message_visibility(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    assert counts(bench, url) == (2, 0, 1)
    for _ in range(2):
        bench.owner.delete_message(QueueUrl=url, ReceiptHandle=bench.received(url)["ReceiptHandle"])
    assert counts(bench, url) == (0, 0, 1)
    bench.sqs.purge_queue(QueueUrl=url)
    assert counts(bench, url) == (0, 0, 0)


def test_handles_and_protocols_are_interchangeable(benches: dict[str, Bench]) -> None:
    one, other = benches["json"], benches["query"]
    url = one.queue()
    sent = one.sent(url, "é", MessageAttributes=ATTRIBUTES, MessageSystemAttributes=TRACE)
    message = other.received(url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"])
    assert (message["MessageId"], message["Body"], message["MessageAttributes"]) == (sent["MessageId"], "é", ATTRIBUTES)
    assert message["MD5OfBody"] == sent["MD5OfMessageBody"]
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert message["Attributes"]["AWSTraceHeader"] == TRACE["AWSTraceHeader"]["StringValue"]
    one.owner.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert counts(one, url) == (0, 0, 0)


def test_a_long_poll_is_woken(bench: Bench) -> None:
    url = bench.queue(ReceiveMessageWaitTimeSeconds=20)
    timer = threading.Timer(0.5, lambda: bench.owner.send_message(QueueUrl=url, MessageBody="x"))
    timer.start()
    try:
        assert bench.received(url)["Body"] == "x"
    finally:
        timer.join()
    assert "Messages" not in bench.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1)


def test_delays_end(bench: Bench) -> None:
    url = bench.queue(DelaySeconds=900)
    bench.sent(url, "the queue's delay")
    bench.sent(url, "its own", DelaySeconds=1)
    assert bench.received(url)["Body"] == "its own"
    assert counts(bench, url) == (0, 1, 1)


def test_invisibility_ends(bench: Bench) -> None:
    url = bench.queue(VisibilityTimeout=1)
    bench.sent(url)
    first = bench.received(url)
    again = bench.received(url, VisibilityTimeout=600, MessageSystemAttributeNames=["ApproximateReceiveCount"])
    assert again["MessageId"] == first["MessageId"]
    assert again["ReceiptHandle"] != first["ReceiptHandle"]
    assert again["Attributes"] == {"ApproximateReceiveCount": "2"}
    with pytest.raises(ClientError, match="InvalidParameterValue"):
        bench.sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"], VisibilityTimeout=60)


def test_fifo_order_within_groups(bench: Bench) -> None:
    """https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queues-understanding-logic.html"""
    url = bench.queue(fifo=True, VisibilityTimeout=600)
    numbers = [bench.sent(url, body, MessageGroupId=body[0])["SequenceNumber"] for body in ("a1", "b1", "a2", "b2")]
    assert numbers == sorted(numbers)
    first = bench.received(url)
    assert first["Body"] == "a1"
    assert bench.received(url)["Body"] == "b1"  # a2 is held back by a1
    assert "Messages" not in bench.sqs.receive_message(QueueUrl=url)
    bench.sqs.delete_message(QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert bench.received(url)["Body"] == "a2"


def test_fifo_duplicates(bench: Bench) -> None:
    """Within five minutes, whichever manager they come by, and after the first was deleted too."""
    url = bench.queue(fifo=True, ContentBasedDeduplication="true")
    first = bench.sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="g")
    again = bench.owner.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="h")
    assert [again[name] for name in ("MessageId", "SequenceNumber")] == [
        first[name] for name in ("MessageId", "SequenceNumber")
    ]
    bench.sqs.delete_message(QueueUrl=url, ReceiptHandle=bench.received(url)["ReceiptHandle"])
    bench.sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="g")
    assert counts(bench, url) == (0, 0, 0)
    bench.sqs.send_message(QueueUrl=url, MessageBody="x", MessageGroupId="g", MessageDeduplicationId="other")
    assert counts(bench, url) == (1, 0, 0)


def test_fifo_duplicates_by_group(bench: Bench) -> None:
    url = bench.queue(fifo=True, DeduplicationScope="messageGroup")
    for group in ("g", "h", "g"):
        bench.sent(url, MessageGroupId=group, MessageDeduplicationId="d")
    assert counts(bench, url) == (2, 0, 0)


def test_fifo_receive_attempts(bench: Bench) -> None:
    """The same attempt gets the same messages again, whichever manager it is made at."""
    url = bench.queue(fifo=True, VisibilityTimeout=600)
    bench.sent(url)
    first = bench.received(url, ReceiveRequestAttemptId="attempt")
    again = bench.owner.receive_message(QueueUrl=url, ReceiveRequestAttemptId="attempt")["Messages"]
    assert [message["MessageId"] for message in again] == [first["MessageId"]]
    assert "Messages" not in bench.sqs.receive_message(QueueUrl=url, ReceiveRequestAttemptId="other")


@pytest.mark.parametrize("fifo", [False, True])
def test_dead_letters(bench: Bench, fifo: bool) -> None:
    """To a queue of another shard, once, under its id, with every system attribute that the model has."""
    dead = bench.queue(fifo=fifo)
    policy = json.dumps({"deadLetterTargetArn": bench.arn(dead), "maxReceiveCount": 2})
    url = bench.queue(fifo=fifo, RedrivePolicy=policy)
    sent = bench.sent(url, "poison", MessageAttributes=ATTRIBUTES, MessageSystemAttributes=TRACE)
    for _ in range(2):
        bench.received(url, VisibilityTimeout=0)
    assert "Messages" not in bench.sqs.receive_message(QueueUrl=url)
    message = bench.received(dead, MessageSystemAttributeNames=["All"], MessageAttributeNames=["All"])
    assert (message["MessageId"], message["Body"]) == (sent["MessageId"], "poison")
    assert message["MessageAttributes"] == ATTRIBUTES
    held = message["Attributes"]
    expected = set(model.enumeration("MessageSystemAttributeName")) - {"All"}
    if not fifo:
        expected -= {"MessageDeduplicationId", "MessageGroupId", "SequenceNumber"}
    assert held.keys() == expected
    assert held["DeadLetterQueueSourceArn"] == bench.arn(url)
    assert counts(bench, dead) == (0, 1, 0)
    assert counts(bench, url) == (0, 0, 0)


def test_each_system_attribute_alone(bench: Bench) -> None:
    url = bench.queue(fifo=True)
    bench.sent(url, MessageSystemAttributes=TRACE)
    for name in model.enumeration("MessageSystemAttributeName"):
        if name not in ("All", "DeadLetterQueueSourceArn"):
            message = bench.received(url, VisibilityTimeout=0, MessageSystemAttributeNames=[name])
            assert message["Attributes"].keys() == {name}


def test_a_deleted_queue_is_gone_everywhere(bench: Bench) -> None:
    url = bench.queue()
    handle = bench.handle(url)
    name = url.rpartition("/")[2]
    bench.sqs.delete_queue(QueueUrl=url)
    calls: list[tuple[Any, dict[str, Any]]] = [
        (bench.sqs.send_message, {"QueueUrl": url, "MessageBody": "x"}),
        (bench.owner.receive_message, {"QueueUrl": url}),
        (bench.sqs.get_queue_url, {"QueueName": name}),
        (bench.sqs.delete_queue, {"QueueUrl": url}),
    ]
    for call, parameters in calls:
        with pytest.raises(ClientError, match="NonExistentQueue"):
            call(**parameters)
    eventually(lambda: "QueueUrls" not in bench.owner.list_queues(QueueNamePrefix=name))
    bench.owner.create_queue(QueueName=name)
    bench.sqs.send_message(QueueUrl=url, MessageBody="in the namesake")
    with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
        bench.sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
    assert bench.received(url)["Body"] == "in the namesake"


def test_changes_hold_at_once_for_messages(bench: Bench) -> None:
    """SQS takes up to 60 seconds; here the state machine has it when SetQueueAttributes returns."""
    url = bench.queue(VisibilityTimeout=600)
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "0", "DelaySeconds": "0"})
    bench.sent(url)
    assert bench.received(url)["MessageId"] == bench.received(url)["MessageId"]


def test_tags_and_permissions_are_seen_elsewhere(bench: Bench) -> None:
    url = bench.queue(tags={"a": "1", "b": "2"})
    bench.sqs.tag_queue(QueueUrl=url, Tags={"b": "3", "c": ""})
    bench.sqs.untag_queue(QueueUrl=url, TagKeys=["a", "none"])
    assert bench.sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"b": "3", "c": ""}
    eventually(lambda: bench.owner.list_queue_tags(QueueUrl=url)["Tags"] == {"b": "3", "c": ""})
    bench.sqs.add_permission(QueueUrl=url, Label="l", AWSAccountIds=["123456789012"], Actions=["SendMessage"])
    (statement,) = json.loads(bench.attributes(url, "Policy")["Policy"])["Statement"]
    assert statement == {
        "Sid": "l",
        "Effect": "Allow",
        "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
        "Action": "SQS:SendMessage",
        "Resource": bench.arn(url),
    }
    bench.sqs.remove_permission(QueueUrl=url, Label="l")
    assert bench.attributes(url, "Policy") == {}


def test_dead_letters_go_back(bench: Bench) -> None:
    """Without a destination, each to the queue that it came from; which was told at a manager that owns neither."""
    dead = bench.queue()
    policy = json.dumps({"deadLetterTargetArn": bench.arn(dead), "maxReceiveCount": 1})
    urls = [bench.queue(RedrivePolicy=policy) for _ in range(2)]
    for url in urls:
        bench.sent(url, url)
        bench.received(url, VisibilityTimeout=0)
        assert "Messages" not in bench.sqs.receive_message(QueueUrl=url)
    eventually(lambda: bench.attributes(dead, VISIBLE)[VISIBLE] == "2")
    assert counts(bench, dead) == (2, 0, 0), "and only now, as one may come between two managers' answers"
    arn = bench.arn(dead)
    bench.sqs.start_message_move_task(SourceArn=arn)
    assert [bench.received(url)["Body"] for url in urls] == urls
    eventually(lambda: bench.owner.list_message_move_tasks(SourceArn=arn)["Results"][0]["Status"] == "COMPLETED")
    (task,) = bench.sqs.list_message_move_tasks(SourceArn=arn)["Results"]
    assert (task["SourceArn"], task["ApproximateNumberOfMessagesMoved"]) == (arn, 2)
    assert counts(bench, dead) == (0, 0, 0)


def test_permissions_added_at_the_same_time_stay(bench: Bench) -> None:
    """The policy is read, changed and written back whole; no statement of another may be lost by that."""
    url = bench.queue()

    def add(number: int) -> None:
        at = bench.sqs if number % 2 else bench.owner
        at.add_permission(QueueUrl=url, Label=f"l{number}", AWSAccountIds=["123456789012"], Actions=["SendMessage"])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(8)))

    def found() -> set[str]:
        policy = json.loads(bench.attributes(url, "Policy").get("Policy", '{"Statement": []}'))
        return {statement["Sid"] for statement in policy["Statement"]}

    eventually(lambda: found() == {f"l{number}" for number in range(8)})


def test_a_long_poll_ends_with_its_queue(bench: Bench) -> None:
    url = bench.queue()
    timer = threading.Timer(0.5, lambda: bench.owner.delete_queue(QueueUrl=url))
    timer.start()
    try:
        with pytest.raises(ClientError, match="NonExistentQueue"):
            bench.sqs.receive_message(QueueUrl=url, WaitTimeSeconds=20)
    finally:
        timer.join()


def test_created_at_both_managers_at_once(bench: Bench) -> None:
    """One queue comes of it, whoever wins."""
    name = f"{bench.queue().rpartition('/')[2]}-raced"
    with ThreadPoolExecutor(4) as pool:
        clients = [bench.sqs, bench.owner] * 2
        futures = [pool.submit(client.create_queue, QueueName=name) for client in clients]
        assert {future.result()["QueueUrl"].rpartition("/")[2] for future in futures} == {name}
    url = bench.sqs.get_queue_url(QueueName=name)["QueueUrl"]
    sent = bench.owner.send_message(QueueUrl=url, MessageBody="x")
    assert bench.received(url)["MessageId"] == sent["MessageId"]


@pytest.mark.parametrize("fifo", [False, True])
def test_dead_letters_whose_queue_was_deleted(bench: Bench, fifo: bool) -> None:
    """Not lost: a standard queue gets them back; a FIFO queue's wait, in no count, for the next queue of that name."""
    dead = bench.queue(fifo=fifo)
    policy = json.dumps({"deadLetterTargetArn": bench.arn(dead), "maxReceiveCount": 1})
    url = bench.queue(fifo=fifo, RedrivePolicy=policy)
    bench.sqs.delete_queue(QueueUrl=dead)
    sent = bench.sent(url)
    bench.received(url, VisibilityTimeout=0)
    assert "Messages" not in bench.sqs.receive_message(QueueUrl=url)
    if not fifo:
        assert bench.received(url)["MessageId"] == sent["MessageId"]
        return
    assert counts(bench, url) == (0, 0, 0)
    bench.owner.create_queue(QueueName=dead.rpartition("/")[2], Attributes={"FifoQueue": "true"})
    assert bench.received(dead)["MessageId"] == sent["MessageId"]
