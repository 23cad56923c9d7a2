"""Requests and results of the 23 operations as typed structs: JSON bytes decode straight into them.

Field names are SQS's own (``rename="pascal"``, or spelt out). Everything is optional here, because SQS has its own
errors for what is missing, which a decoder cannot give; the operations check.
"""

from __future__ import annotations

import msgspec
from msgspec import field


class Request(msgspec.Struct, rename="pascal", gc=False):
    """Base of requests. Unknown members are ignored, as AWS does."""


class Result(msgspec.Struct, rename="pascal", gc=False, omit_defaults=True):
    """Base of results. Members at their default (None, mostly) are left out."""


Scalars = dict[str, str | int | float | bool | None]
"""Attribute maps: strings by the model, but AWS takes numbers and booleans for them too."""


class QueueRequest(Request):
    """Base of requests that name their queue by its URL."""

    queue_url: str | None = None


# --- messages ------------------------------------------------------------------------------------------------------


class AttributeValue(msgspec.Struct, rename="pascal", gc=False, omit_defaults=True):
    """A message attribute's value. JSON carries BinaryValue in base64; here it is bytes."""

    data_type: str | None = None
    string_value: str | None = None
    binary_value: bytes | None = None
    string_list_values: list[str] | None = None
    binary_list_values: list[bytes] | None = None


AttributeValues = dict[str, AttributeValue]


class SendMessageRequest(QueueRequest):
    message_body: str | None = None
    delay_seconds: int | None = None
    message_attributes: AttributeValues | None = None
    message_system_attributes: AttributeValues | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessageResult(Result):
    message_id: str
    body_md5: str = field(name="MD5OfMessageBody")
    attributes_md5: str | None = field(name="MD5OfMessageAttributes", default=None)
    system_attributes_md5: str | None = field(name="MD5OfMessageSystemAttributes", default=None)
    sequence_number: str | None = None


class SendEntry(Request):
    id: str | None = None
    message_body: str | None = None
    delay_seconds: int | None = None
    message_attributes: AttributeValues | None = None
    message_system_attributes: AttributeValues | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessageBatchRequest(QueueRequest):
    entries: list[SendEntry] | None = None


class SendResultEntry(Result):
    id: str
    message_id: str
    body_md5: str = field(name="MD5OfMessageBody")
    attributes_md5: str | None = field(name="MD5OfMessageAttributes", default=None)
    system_attributes_md5: str | None = field(name="MD5OfMessageSystemAttributes", default=None)
    sequence_number: str | None = None


class FailedEntry(Result):
    id: str
    sender_fault: bool
    code: str
    message: str | None = None


class SendMessageBatchResult(Result):
    successful: list[SendResultEntry] | None = None
    failed: list[FailedEntry] | None = None


class ReceiveMessageRequest(QueueRequest):
    attribute_names: list[str] | None = None
    message_system_attribute_names: list[str] | None = None
    message_attribute_names: list[str] | None = None
    max_number_of_messages: int | None = None
    visibility_timeout: int | None = None
    wait_time_seconds: int | None = None
    receive_request_attempt_id: str | None = None


class Message(Result):
    message_id: str
    receipt_handle: str
    body_md5: str = field(name="MD5OfBody")
    body: str
    attributes: dict[str, str] | None = None
    attributes_md5: str | None = field(name="MD5OfMessageAttributes", default=None)
    message_attributes: AttributeValues | None = None


class ReceiveMessageResult(Result):
    messages: list[Message] | None = None


class DeleteMessageRequest(QueueRequest):
    receipt_handle: str | None = None


class DeleteEntry(Request):
    id: str | None = None
    receipt_handle: str | None = None


class DeleteMessageBatchRequest(QueueRequest):
    entries: list[DeleteEntry] | None = None


class IdEntry(Result):
    id: str


class BatchResult(Result):
    """DeleteMessageBatch and ChangeMessageVisibilityBatch."""

    successful: list[IdEntry] | None = None
    failed: list[FailedEntry] | None = None


class ChangeMessageVisibilityRequest(QueueRequest):
    receipt_handle: str | None = None
    visibility_timeout: int | None = None


class ChangeEntry(Request):
    id: str | None = None
    receipt_handle: str | None = None
    visibility_timeout: int | None = None


class ChangeMessageVisibilityBatchRequest(QueueRequest):
    entries: list[ChangeEntry] | None = None


# --- queues --------------------------------------------------------------------------------------------------------


class CreateQueueRequest(Request):
    """The model calls the tags ``tags`` here and ``Tags`` elsewhere; both are understood."""

    queue_name: str | None = None
    attributes: Scalars | None = None
    tags: dict[str, str] | None = field(name="tags", default=None)
    capital_tags: dict[str, str] | None = field(name="Tags", default=None)


class QueueUrlResult(Result):
    queue_url: str


class GetQueueUrlRequest(Request):
    queue_name: str | None = None
    owner_account: str | None = field(name="QueueOwnerAWSAccountId", default=None)


class ListQueuesRequest(Request):
    queue_name_prefix: str | None = None
    next_token: str | None = None
    max_results: int | None = None


class ListQueuesResult(Result):
    queue_urls: list[str] | None = None
    next_token: str | None = None


class ListDeadLetterSourceQueuesRequest(QueueRequest):
    next_token: str | None = None
    max_results: int | None = None


class ListDeadLetterSourceQueuesResult(Result):
    """The model spells ``queueUrls`` in lower case here, and requires it."""

    queue_urls: list[str] = field(name="queueUrls")
    next_token: str | None = None


class GetQueueAttributesRequest(QueueRequest):
    attribute_names: list[str] | None = None


class GetQueueAttributesResult(Result):
    attributes: dict[str, str] | None = None


class SetQueueAttributesRequest(QueueRequest):
    attributes: Scalars | None = None


class TagQueueRequest(QueueRequest):
    tags: dict[str, str] | None = None


class UntagQueueRequest(QueueRequest):
    tag_keys: list[str] | None = None


class ListQueueTagsResult(Result):
    tags: dict[str, str] | None = None


class AddPermissionRequest(QueueRequest):
    label: str | None = None
    account_ids: list[str] | None = field(name="AWSAccountIds", default=None)
    actions: list[str] | None = None


class RemovePermissionRequest(QueueRequest):
    label: str | None = None


# --- message move tasks --------------------------------------------------------------------------------------------


class StartMessageMoveTaskRequest(Request):
    source_arn: str | None = None
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None


class CancelMessageMoveTaskRequest(Request):
    task_handle: str | None = None


class ListMessageMoveTasksRequest(Request):
    source_arn: str | None = None
    max_results: int | None = None


class StartMessageMoveTaskResult(Result):
    task_handle: str


class CancelMessageMoveTaskResult(Result):
    moved: int = field(name="ApproximateNumberOfMessagesMoved")


class ListMessageMoveTasksResultEntry(Result, kw_only=True):
    status: str
    source_arn: str
    moved: int = field(name="ApproximateNumberOfMessagesMoved")
    to_move: int = field(name="ApproximateNumberOfMessagesToMove")
    started_timestamp: int
    task_handle: str | None = None
    destination_arn: str | None = None
    max_number_of_messages_per_second: int | None = None
    failure_reason: str | None = None


class ListMessageMoveTasksResult(Result):
    results: list[ListMessageMoveTasksResultEntry] | None = None
