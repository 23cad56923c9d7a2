"""Sending and receiving. Deleting and visibility are in operations_handle."""

from __future__ import annotations

from hashlib import sha256
from typing import TypeAlias

from distribution_manager.core.attributes import MESSAGE_BYTES_MAX
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs import errors
from distribution_manager.sqs.backend import Executed
from distribution_manager.sqs.digests import Attribute, attributes_md5, pack_attributes, text_md5, unpack_attributes
from distribution_manager.sqs.errors import SqsError, invalid_parameter, invalid_value, missing_parameter
from distribution_manager.sqs.models import (
    AttributeValue,
    FailedEntry,
    Message,
    ReceiveMessageRequest,
    ReceiveMessageResult,
    SendEntry,
    SendMessageBatchRequest,
    SendMessageBatchResult,
    SendMessageRequest,
    SendMessageResult,
    SendResultEntry,
)
from distribution_manager.sqs.service import DEDUPLICATION_ID_MISSING, Call, refusal_error
from distribution_manager.sqs.validation import (
    DELAY_SECONDS_MAX,
    RECEIVE_MAX,
    TRACE_HEADER,
    WAIT_SECONDS_MAX,
    attributes_size,
    check_batch,
    check_body,
    check_fifo_id,
    check_range,
    check_visibility,
    trace_header,
    user_attributes,
    utf8_length,
)
from shadow_nodes.protocol.commands import Batch, Content, Receive, Received, Refusal, Send, Sent
from shadow_nodes.protocol.handles import encode_handle, message_id

TRACE_HEADER_CHARACTERS_MAX = 1_024

Prepared: TypeAlias = tuple[Content, str | None, str | None]
"""(what is sent, MD5 of its attributes, MD5 of its system attributes)"""


# --- sending -------------------------------------------------------------------------------------------------------


async def send_message(call: Call, request: SendMessageRequest) -> SendMessageResult:
    queue = await call.queue(request.queue_url)
    if request.message_body is None or request.message_body == "":
        raise missing_parameter("MessageBody")
    if queue.fifo and not request.message_group_id:
        raise missing_parameter("MessageGroupId")
    content, attributes, system_attributes = _prepare(call, queue, request)
    _, executed = await call.execute(queue, Send([content]))
    identity, sequence_number = _identity(executed, 0)
    if isinstance(identity, Refusal):
        raise refusal_error(identity)
    return SendMessageResult(identity, text_md5(content.body), attributes, system_attributes, sequence_number)


async def send_message_batch(call: Call, request: SendMessageBatchRequest) -> SendMessageBatchResult:
    """One command for the whole call; entries that are invalid by themselves fail by themselves."""
    queue = await call.queue(request.queue_url)
    check_batch(request.entries, "SendMessageBatchRequestEntry")
    entries = request.entries or []
    _check_whole_batch(queue, entries)
    contents: list[Content] = []
    sent: list[tuple[str, Prepared]] = []
    failed: list[FailedEntry] = []
    for entry in entries:
        try:
            prepared = _prepare(call, queue, entry)
        except SqsError as error:
            failed.append(failed_entry(entry.id or "", error))
        else:
            contents.append(prepared[0])
            sent.append((entry.id or "", prepared))
    successful: list[SendResultEntry] = []
    if contents:
        _, executed = await call.execute(queue, Send(contents))
        for index, (entry_id, (content, attributes, system_attributes)) in enumerate(sent):
            identity, number = _identity(executed, index)
            if isinstance(identity, Refusal):
                failed.append(failed_entry(entry_id, refusal_error(identity)))
            else:
                body_md5 = text_md5(content.body)
                successful.append(SendResultEntry(entry_id, identity, body_md5, attributes, system_attributes, number))
    return SendMessageBatchResult(successful or None, failed or None)


def failed_entry(entry_id: str, error: Exception) -> FailedEntry:
    """Raises ``error`` itself where it is not about the entry alone (the queue is gone)."""
    if not isinstance(error, SqsError):
        raise error
    return FailedEntry(entry_id, error.kind.sender, error.kind.query_code, str(error))


def _identity(executed: Executed, index: int) -> tuple[str | Refusal, str | None]:
    """(message id, sequence number) of a command's message, or its refusal."""
    result = executed.result
    if result is None:
        return message_id(executed.session, executed.counter, index), None
    assert isinstance(result, Sent), "a send is answered by Sent or nothing"
    message = result.messages[index]
    if isinstance(message, Refusal):
        return message, None
    return message_id(*message[1]), f"{message[0]:020d}"


def _check_whole_batch(queue: QueueMetadata, entries: list[SendEntry]) -> None:
    size = 0
    by_content = queue.attributes.get("ContentBasedDeduplication") == "true"
    for number, entry in enumerate(entries, 1):
        if not entry.message_body:
            raise missing_parameter(f"SendMessageBatchRequestEntry.{number}.MessageBody")
        if queue.fifo and not entry.message_group_id:
            raise invalid_parameter("The request must contain the parameter MessageGroupId.")
        if queue.fifo and not entry.message_deduplication_id and not by_content:
            raise invalid_parameter(DEDUPLICATION_ID_MISSING)
        size += _size(entry)
    if size > MESSAGE_BYTES_MAX:
        raise SqsError(
            errors.BATCH_TOO_LONG,
            f"Batch requests cannot be longer than {MESSAGE_BYTES_MAX} bytes. You have sent {size} bytes.",
        )


def _size(message: SendMessageRequest | SendEntry) -> int:
    """Bytes of body and message attributes; system attributes do not count."""
    attributes = message.message_attributes
    return utf8_length(message.message_body or "") + (attributes_size(attributes) if attributes else 0)


def _prepare(call: Call, queue: QueueMetadata, message: SendMessageRequest | SendEntry) -> Prepared:
    """Raises SqsError where the message cannot be sent to this queue."""
    body = message.message_body or ""
    limit = int(queue.attributes.get("MaximumMessageSize", MESSAGE_BYTES_MAX))
    if _size(message) > limit:
        raise invalid_parameter(
            f"One or more parameters are invalid. Reason: Message must be shorter than {limit} bytes."
        )
    check_body(body)
    group_id, deduplication_id = message.message_group_id or "", message.message_deduplication_id or ""
    if group_id:
        check_fifo_id(group_id, "MessageGroupId")
    if deduplication_id or queue.fifo:
        _check_deduplication(queue, deduplication_id)
    packed, md5, system_md5 = b"", None, None
    if message.message_attributes:
        attributes = user_attributes(message.message_attributes)
        packed, md5 = pack_attributes(attributes), attributes_md5(attributes)
    trace = ""
    if message.message_system_attributes:
        trace = trace_header(message.message_system_attributes)
        system_md5 = attributes_md5([(TRACE_HEADER, "String", trace)])
    delay_ms = _delay_ms(queue, message.delay_seconds)
    return (
        Content(body, packed, group_id, deduplication_id, call.caller.sender_id, trace or _http_trace(call), delay_ms),
        md5,
        system_md5,
    )


def _check_deduplication(queue: QueueMetadata, deduplication_id: str) -> None:
    if not queue.fifo:
        raise invalid_value(
            deduplication_id,
            "MessageDeduplicationId",
            "The request includes a parameter that is not valid for this queue type.",
        )
    if deduplication_id:
        check_fifo_id(deduplication_id, "MessageDeduplicationId")
    elif queue.attributes.get("ContentBasedDeduplication") != "true":
        raise invalid_parameter(DEDUPLICATION_ID_MISSING)


def _delay_ms(queue: QueueMetadata, seconds: int | None) -> int | None:
    """A FIFO queue has only its own delay; a message may say 0, which then means nothing."""
    if seconds is None:
        return None
    if queue.fifo:
        if seconds != 0:
            raise invalid_value(
                seconds, "DelaySeconds", "The request include parameter that is not valid for this queue type."
            )
        return None
    check_range(seconds, 0, DELAY_SECONDS_MAX, "DelaySeconds", "DelaySeconds must be >= 0 and <= 900.")
    return seconds * 1000


def _http_trace(call: Call) -> str:
    """Instrumented SDKs send the X-Ray header over HTTP instead of as a system attribute."""
    header = call.request.headers.get("x-amzn-trace-id", "")
    if header and header.isascii() and header.isprintable() and len(header) <= TRACE_HEADER_CHARACTERS_MAX:
        return header
    return ""


# --- receiving -----------------------------------------------------------------------------------------------------

SYSTEM_ATTRIBUTES = frozenset(
    {
        "All",
        "AWSTraceHeader",
        "ApproximateFirstReceiveTimestamp",
        "ApproximateReceiveCount",
        "DeadLetterQueueSourceArn",
        "MessageDeduplicationId",
        "MessageGroupId",
        "SenderId",
        "SentTimestamp",
        "SequenceNumber",
    }
)


async def receive_message(call: Call, request: ReceiveMessageRequest) -> ReceiveMessageResult:
    queue = await call.queue(request.queue_url)
    command, wait_ms = _receive_command(queue, request)
    names = _system_names(request)
    queue, executed = await call.execute(queue, command, wait_ms=wait_ms)
    result = executed.result
    assert isinstance(result, Batch), "a receive is answered by Batch"
    shard, filters = queue.shard(), request.message_attribute_names
    messages = []
    for received in result.messages:
        content = received.content
        attributes = _filtered(unpack_attributes(content.attributes), filters) if filters else []
        messages.append(
            Message(
                message_id(*received.message_id),
                encode_handle(shard, received.key, received.delivery),
                text_md5(content.body),
                content.body,
                _system_attributes(call, queue, received, names) if names else None,
                attributes_md5(attributes) if attributes else None,
                {name: _value(data_type, value) for name, data_type, value in attributes} if attributes else None,
            )
        )
    return ReceiveMessageResult(messages or None)


def _receive_command(queue: QueueMetadata, request: ReceiveMessageRequest) -> tuple[Receive, int]:
    """(command, how many milliseconds it may wait for messages)"""
    count, visibility, wait = request.max_number_of_messages, request.visibility_timeout, request.wait_time_seconds
    if count is None:
        count = 1
    check_range(count, 1, RECEIVE_MAX, "MaxNumberOfMessages", "Must be between 1 and 10, if provided.")
    if visibility is not None:
        check_visibility(visibility)
    if wait is None:
        wait = int(queue.attributes.get("ReceiveMessageWaitTimeSeconds", 0))
    check_range(wait, 0, WAIT_SECONDS_MAX, "WaitTimeSeconds", "Must be >= 0 and <= 20, if provided.")
    attempt_id = request.receive_request_attempt_id or ""
    if attempt_id:
        if not queue.fifo:
            raise invalid_value(
                attempt_id,
                "ReceiveRequestAttemptId",
                "The request includes a parameter that is not valid for this queue type.",
            )
        check_fifo_id(attempt_id, "ReceiveRequestAttemptId")
    return Receive(count, None if visibility is None else visibility * 1000, attempt_id), wait * 1000


def _system_names(request: ReceiveMessageRequest) -> frozenset[str]:
    """Of both parameters: AttributeNames is what MessageSystemAttributeNames was called before."""
    names = [*(request.message_system_attribute_names or ()), *(request.attribute_names or ())]
    if not names:
        return frozenset()
    for name in names:
        if name not in SYSTEM_ATTRIBUTES:
            raise SqsError(errors.INVALID_ATTRIBUTE_NAME, f"Unknown Attribute {name}.")
    return SYSTEM_ATTRIBUTES if "All" in names else frozenset(names)


def _system_attributes(call: Call, queue: QueueMetadata, received: Received, names: frozenset[str]) -> dict[str, str]:
    content = received.content
    attributes = {
        "SenderId": content.sender_id,
        "SentTimestamp": str(received.sent_ms),
        "ApproximateReceiveCount": str(received.receive_count),
        "ApproximateFirstReceiveTimestamp": str(received.first_received_ms),
    }
    if content.group_id:
        attributes["MessageGroupId"] = content.group_id
    if queue.fifo:
        attributes["MessageDeduplicationId"] = content.deduplication_id or sha256(content.body.encode()).hexdigest()
        attributes["SequenceNumber"] = f"{received.key:020d}"
    if content.trace_header:
        attributes[TRACE_HEADER] = content.trace_header
    if received.source:
        attributes["DeadLetterQueueSourceArn"] = call.service.config.arn(received.source)
    if names is SYSTEM_ATTRIBUTES:
        return attributes
    return {name: value for name, value in attributes.items() if name in names}


def _filtered(attributes: list[Attribute], filters: list[str]) -> list[Attribute]:
    """``filters``: names; ``All`` or ``.*`` for every one; ``prefix.*`` for those that begin so."""
    if "All" in filters or ".*" in filters:
        return attributes
    exact = frozenset(filters)
    prefixes = tuple(name[:-2] for name in filters if name.endswith(".*"))
    return [attribute for attribute in attributes if attribute[0] in exact or attribute[0].startswith(prefixes)]


def _value(data_type: str, value: str | bytes) -> AttributeValue:
    if isinstance(value, bytes):
        return AttributeValue(data_type, binary_value=value)
    return AttributeValue(data_type, value)
