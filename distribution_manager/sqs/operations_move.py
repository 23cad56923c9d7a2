"""Message move tasks: redriving a dead-letter queue. What moves the messages is the manager that owns the queue.

What SQS answers where its documentation is silent is as others have recorded it from SQS itself (LocalStack's snapshots
of January and March 2024, tests/aws/services/sqs/test_sqs_move_task.snapshot.json).
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_StartMessageMoveTask.html
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from distribution_manager.core import attributes as meaning
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.core.moves import MoveRunningError, MoveTask, NoSuchMoveError
from distribution_manager.sqs import errors
from distribution_manager.sqs.attributes import is_queue_arn
from distribution_manager.sqs.errors import SqsError, invalid_parameter, missing_parameter
from distribution_manager.sqs.models import (
    CancelMessageMoveTaskRequest,
    CancelMessageMoveTaskResult,
    ListMessageMoveTasksRequest,
    ListMessageMoveTasksResult,
    ListMessageMoveTasksResultEntry,
    StartMessageMoveTaskRequest,
    StartMessageMoveTaskResult,
)
from distribution_manager.sqs.service import Call
from distribution_manager.sqs.validation import check_range, is_queue_name

RATE_MAX = 500
LISTED_MAX = 10
HANDLE_CHARACTERS_MAX = 2_048


class _Handle(msgspec.Struct, rename="camel"):
    """What a TaskHandle says, in base64 of JSON, as SQS's."""

    task_id: str
    source_arn: str


# --- operations ----------------------------------------------------------------------------------------------------


async def start_message_move_task(call: Call, request: StartMessageMoveTaskRequest) -> StartMessageMoveTaskResult:
    rate = request.max_number_of_messages_per_second
    if rate is not None:
        check_range(
            rate, 1, RATE_MAX, "MaxNumberOfMessagesPerSecond", f"You must enter a number between 1 and {RATE_MAX}."
        )
    source = await _queue(call, request.source_arn, "SourceArn")
    for operation in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes"):
        call.permit_also(operation, source.name, source)
    fed_by = _feeding(call, source.name)
    if not fed_by:
        raise invalid_parameter("Source queue must be configured as a Dead Letter Queue.")
    destinations = fed_by
    if request.destination_arn:
        destinations = [await _queue(call, request.destination_arn, "DestinationArn", "SendMessage")]
        _check_destination(source, destinations[0])
    for destination in destinations:
        call.permit_also("SendMessage", destination.name, destination)
    try:
        task = await call.backend.start_move(source, destinations[0].name if request.destination_arn else "", rate or 0)
    except MoveRunningError as error:
        raise invalid_parameter(
            "There is already a task running. Only one active task is allowed for a source queue arn at a given time."
        ) from error
    return StartMessageMoveTaskResult(_encode_handle(task.task, call.service.config.arn(source.name)))


async def cancel_message_move_task(call: Call, request: CancelMessageMoveTaskRequest) -> CancelMessageMoveTaskResult:
    if not request.task_handle:
        raise missing_parameter("TaskHandle")
    handle = _decode_handle(request.task_handle)
    source = await _queue(call, handle.source_arn, "SourceArn")
    try:
        before = await call.backend.cancel_move(source, handle.task_id)
    except NoSuchMoveError as error:
        raise SqsError(errors.RESOURCE_NOT_FOUND, "Task does not exist.") from error
    if not before.active:
        raise SqsError(errors.UNSUPPORTED_OPERATION, "Only active message movement tasks can be cancelled.")
    return CancelMessageMoveTaskResult(before.moved)


async def list_message_move_tasks(call: Call, request: ListMessageMoveTasksRequest) -> ListMessageMoveTasksResult:
    limit = 1 if request.max_results is None else request.max_results
    check_range(limit, 1, LISTED_MAX, "MaxResults", f"You must enter a number between 1 and {LISTED_MAX}.")
    source = await _queue(call, request.source_arn, "SourceArn")
    tasks = await call.backend.list_moves(source)
    return ListMessageMoveTasksResult([_entry(call, source, task) for task in tasks[:limit]] or None)


def _entry(call: Call, source: QueueMetadata, task: MoveTask) -> ListMessageMoveTasksResultEntry:
    arn = call.service.config.arn
    return ListMessageMoveTasksResultEntry(
        status=task.status,
        source_arn=arn(source.name),
        moved=task.moved,
        to_move=task.to_move,
        started_timestamp=task.started_ms,
        task_handle=_encode_handle(task.task, arn(source.name)) if task.active else None,
        destination_arn=arn(task.destination) if task.destination else None,
        max_number_of_messages_per_second=task.rate or None,
        failure_reason=task.failure or None,
    )


# --- queues --------------------------------------------------------------------------------------------------------


async def _queue(call: Call, arn: str | None, parameter: str, operation: str = "") -> QueueMetadata:
    """The queue of an ARN, if the caller may do this (or ``operation``) to it. Raises SqsError."""
    if not arn:
        raise missing_parameter(parameter)
    if not is_queue_arn(arn):
        raise invalid_parameter(
            f"You must use this format to specify the {parameter}: arn:<partition>:<service>:<region>:<account-id>:"
            "<resource-id>"
        )
    name = meaning.name_in_arn(arn)
    queue = call.backend.find_queue(name)
    if queue is None and is_queue_name(name):
        queue = await call.backend.look_up_queue(name)
    call.permit_also(operation or call.operation, name, queue)
    if queue is None:
        raise SqsError(
            errors.RESOURCE_NOT_FOUND, f"The resource that you specified for the {parameter} parameter doesn't exist."
        )
    return queue


def _feeding(call: Call, name: str) -> list[QueueMetadata]:
    """The queues whose dead-letter queue this is."""
    return [
        queue
        for queue in call.backend.list_queues()
        if (redrive := meaning.redrive_policy(queue.attributes.get("RedrivePolicy", ""))) and redrive[0] == name
    ]


def _check_destination(source: QueueMetadata, destination: QueueMetadata) -> None:
    if destination.queue_id == source.queue_id:
        raise invalid_parameter("Source queue arn and destination queue arn cannot be the same.")
    if destination.fifo != source.fifo:
        raise invalid_parameter("Source and destination queues must be of the same type.")


# --- handles -------------------------------------------------------------------------------------------------------


def _encode_handle(task: str, arn: str) -> str:
    return base64.b64encode(msgspec.json.encode(_Handle(task, arn))).decode()


def _decode_handle(text: str) -> _Handle:
    try:
        if len(text) > HANDLE_CHARACTERS_MAX:
            raise ValueError("too long")
        return msgspec.json.decode(base64.b64decode(text, validate=True), type=_Handle)
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise invalid_parameter("Value for parameter TaskHandle is invalid.") from None
