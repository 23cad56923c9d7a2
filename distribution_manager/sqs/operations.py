"""The table of SQS's 23 operations: request type, and the function that carries it out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import msgspec

from distribution_manager.sqs import (
    models,
    operations_handle,
    operations_label,
    operations_message,
    operations_move,
    operations_queue,
)
from distribution_manager.sqs.service import Call


class Operation(NamedTuple):
    """``run`` gives None for operations without a result. ``decode`` takes the JSON body."""

    name: str
    request: type[models.Request]
    run: Callable[[Call, Any], Awaitable[models.Result | None]]
    decode: Callable[[bytes], models.Request]


_TABLE: dict[type[models.Request], list[tuple[str, Callable[[Call, Any], Awaitable[models.Result | None]]]]] = {
    models.AddPermissionRequest: [("AddPermission", operations_label.add_permission)],
    models.CancelMessageMoveTaskRequest: [("CancelMessageMoveTask", operations_move.cancel_message_move_task)],
    models.ChangeMessageVisibilityBatchRequest: [
        ("ChangeMessageVisibilityBatch", operations_handle.change_message_visibility_batch)
    ],
    models.ChangeMessageVisibilityRequest: [("ChangeMessageVisibility", operations_handle.change_message_visibility)],
    models.CreateQueueRequest: [("CreateQueue", operations_queue.create_queue)],
    models.DeleteMessageBatchRequest: [("DeleteMessageBatch", operations_handle.delete_message_batch)],
    models.DeleteMessageRequest: [("DeleteMessage", operations_handle.delete_message)],
    models.GetQueueAttributesRequest: [("GetQueueAttributes", operations_queue.get_queue_attributes)],
    models.GetQueueUrlRequest: [("GetQueueUrl", operations_queue.get_queue_url)],
    models.ListDeadLetterSourceQueuesRequest: [
        ("ListDeadLetterSourceQueues", operations_queue.list_dead_letter_source_queues)
    ],
    models.ListMessageMoveTasksRequest: [("ListMessageMoveTasks", operations_move.list_message_move_tasks)],
    models.ListQueuesRequest: [("ListQueues", operations_queue.list_queues)],
    models.QueueRequest: [
        ("DeleteQueue", operations_queue.delete_queue),
        ("ListQueueTags", operations_label.list_queue_tags),
        ("PurgeQueue", operations_handle.purge_queue),
    ],
    models.ReceiveMessageRequest: [("ReceiveMessage", operations_message.receive_message)],
    models.RemovePermissionRequest: [("RemovePermission", operations_label.remove_permission)],
    models.SendMessageBatchRequest: [("SendMessageBatch", operations_message.send_message_batch)],
    models.SendMessageRequest: [("SendMessage", operations_message.send_message)],
    models.SetQueueAttributesRequest: [("SetQueueAttributes", operations_queue.set_queue_attributes)],
    models.StartMessageMoveTaskRequest: [("StartMessageMoveTask", operations_move.start_message_move_task)],
    models.TagQueueRequest: [("TagQueue", operations_label.tag_queue)],
    models.UntagQueueRequest: [("UntagQueue", operations_label.untag_queue)],
}

OPERATIONS: dict[str, Operation] = {
    name: Operation(name, request, run, msgspec.json.Decoder(request).decode)
    for request, runs in _TABLE.items()
    for name, run in runs
}
"""By name."""

WITHOUT_RESULT = frozenset(
    {
        "AddPermission",
        "ChangeMessageVisibility",
        "DeleteMessage",
        "DeleteQueue",
        "PurgeQueue",
        "RemovePermission",
        "SetQueueAttributes",
        "TagQueue",
        "UntagQueue",
    }
)
