"""StartMessageMoveTask, CancelMessageMoveTask, ListMessageMoveTasks: what they take, refuse and tell."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from botocore.exceptions import ClientError

from distribution_manager.core.moves import CANCELLED, COMPLETED, MoveTasks

ARN = "arn:aws:sqs:us-east-1:000000000000:"
DEAD = ARN + "dead"


@pytest.fixture
def queues(sqs: Any) -> None:
    sqs.create_queue(QueueName="dead")
    sqs.create_queue(QueueName="other")
    sqs.create_queue(QueueName="f.fifo", Attributes={"FifoQueue": "true"})
    policy = json.dumps({"deadLetterTargetArn": DEAD, "maxReceiveCount": 1})
    sqs.create_queue(QueueName="source", Attributes={"RedrivePolicy": policy})


def refused(code: str, call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as raised:
        call(**arguments)
    assert raised.value.response["Error"]["Code"] == code, raised.value
    return str(raised.value.response["Error"]["Message"])


def end(server: Any, status: str) -> None:
    """What the runner would do."""
    (tasks,) = server.backend.moves.values()
    ended = [msgspec.structs.replace(task, status=status, moved=2) if task.active else task for task in tasks.tasks]
    (queue_id,) = server.backend.moves
    server.backend.moves[queue_id] = MoveTasks(tasks=tuple(ended))


@pytest.mark.usefixtures("queues")
def test_a_task_s_life(server: Any, sqs: Any) -> None:
    dead = sqs.get_queue_url(QueueName="dead")["QueueUrl"]
    sqs.send_message(QueueUrl=dead, MessageBody="x")
    handle = sqs.start_message_move_task(SourceArn=DEAD)["TaskHandle"]
    assert json.loads(base64.b64decode(handle))["sourceArn"] == DEAD
    (task,) = sqs.list_message_move_tasks(SourceArn=DEAD)["Results"]
    assert task == {
        "TaskHandle": handle,
        "Status": "RUNNING",
        "SourceArn": DEAD,
        "ApproximateNumberOfMessagesMoved": 0,
        "ApproximateNumberOfMessagesToMove": 1,
        "StartedTimestamp": server.backend.now_ms,
    }
    text = refused("InvalidParameterValue", sqs.start_message_move_task, SourceArn=DEAD)
    assert text.startswith("There is already a task running.")

    assert sqs.cancel_message_move_task(TaskHandle=handle)["ApproximateNumberOfMessagesMoved"] == 0
    assert sqs.list_message_move_tasks(SourceArn=DEAD)["Results"][0]["Status"] == "CANCELLING"
    end(server, CANCELLED)
    (task,) = sqs.list_message_move_tasks(SourceArn=DEAD)["Results"]
    assert (task["Status"], "TaskHandle" in task, task["ApproximateNumberOfMessagesMoved"]) == ("CANCELLED", False, 2)
    refused("AWS.SimpleQueueService.UnsupportedOperation", sqs.cancel_message_move_task, TaskHandle=handle)

    sqs.start_message_move_task(SourceArn=DEAD, DestinationArn=ARN + "other", MaxNumberOfMessagesPerSecond=7)
    (task,) = sqs.list_message_move_tasks(SourceArn=DEAD)["Results"]
    assert (task["DestinationArn"], task["MaxNumberOfMessagesPerSecond"]) == (ARN + "other", 7)


@pytest.mark.usefixtures("queues")
def test_ten_are_listed_the_newest_first(server: Any, sqs: Any) -> None:
    assert "Results" not in sqs.list_message_move_tasks(SourceArn=DEAD, MaxResults=10)
    for _ in range(12):
        server.backend.now_ms += 1_000
        sqs.start_message_move_task(SourceArn=DEAD)
        end(server, COMPLETED)
    started = [
        task["StartedTimestamp"] for task in sqs.list_message_move_tasks(SourceArn=DEAD, MaxResults=10)["Results"]
    ]
    assert started == [server.backend.now_ms - 1_000 * number for number in range(10)]
    assert len(sqs.list_message_move_tasks(SourceArn=DEAD)["Results"]) == 1


@pytest.mark.usefixtures("queues")
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        ({"SourceArn": ARN + "source"}, "InvalidParameterValue", "Source queue must be configured as a Dead Letter"),
        ({"SourceArn": ARN + "absent"}, "ResourceNotFoundException", "SourceArn parameter doesn't exist"),
        ({"SourceArn": "dead"}, "InvalidParameterValue", "You must use this format to specify the SourceArn"),
        (
            {"SourceArn": DEAD, "DestinationArn": ARN + "absent"},
            "ResourceNotFoundException",
            "DestinationArn parameter doesn't exist",
        ),
        ({"SourceArn": DEAD, "DestinationArn": DEAD}, "InvalidParameterValue", "cannot be the same"),
        ({"SourceArn": DEAD, "DestinationArn": ARN + "f.fifo"}, "InvalidParameterValue", "same type"),
        ({"SourceArn": DEAD, "MaxNumberOfMessagesPerSecond": 0}, "InvalidParameterValue", "between 1 and 500"),
        ({"SourceArn": DEAD, "MaxNumberOfMessagesPerSecond": 501}, "InvalidParameterValue", "between 1 and 500"),
    ],
)
def test_tasks_that_cannot_be(sqs: Any, arguments: dict[str, Any], code: str, text: str) -> None:
    assert text in refused(code, sqs.start_message_move_task, **arguments)


@pytest.mark.usefixtures("queues")
def test_other_refusals(sqs: Any) -> None:
    refused("InvalidParameterValue", sqs.list_message_move_tasks, SourceArn=DEAD, MaxResults=11)
    refused("ResourceNotFoundException", sqs.list_message_move_tasks, SourceArn=ARN + "absent")
    for handle in ("?", "e30=", base64.b64encode(b"[]").decode(), "x" * 3_000):
        text = refused("InvalidParameterValue", sqs.cancel_message_move_task, TaskHandle=handle)
        assert text == "Value for parameter TaskHandle is invalid."
    for queue, text in (
        ("absent", "The resource that you specified for the SourceArn"),
        ("dead", "Task does not exist."),
    ):
        handle = base64.b64encode(json.dumps({"taskId": "1", "sourceArn": ARN + queue}).encode()).decode()
        assert refused("ResourceNotFoundException", sqs.cancel_message_move_task, TaskHandle=handle).startswith(text)
