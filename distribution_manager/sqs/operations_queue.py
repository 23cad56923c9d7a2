"""Queues themselves: creating, finding, listing, changing, deleting. Tags and permissions are in operations_label."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from distribution_manager.core import attributes as meaning
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs import attributes as rules
from distribution_manager.sqs import errors
from distribution_manager.sqs.backend import NameTaken
from distribution_manager.sqs.errors import SqsError, invalid_parameter, invalid_value, missing_parameter
from distribution_manager.sqs.models import (
    CreateQueueRequest,
    GetQueueAttributesRequest,
    GetQueueAttributesResult,
    GetQueueUrlRequest,
    ListDeadLetterSourceQueuesRequest,
    ListDeadLetterSourceQueuesResult,
    ListQueuesRequest,
    ListQueuesResult,
    QueueRequest,
    QueueUrlResult,
    Scalars,
    SetQueueAttributesRequest,
)
from distribution_manager.sqs.operations_label import check_tags
from distribution_manager.sqs.service import Call
from distribution_manager.sqs.validation import check_range, is_queue_name
from distribution_manager.sqs.wishes import attributes_in, check_changed_wishes, check_wishes

LIST_MAX = 1_000
_NAME_RULE = "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length"
_FIFO_NAME_RULE = (
    "The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, "
    "must end with .fifo suffix and be 1 to 80 in length."
)


async def create_queue(call: Call, request: CreateQueueRequest) -> QueueUrlResult:
    name = request.queue_name
    if name is None:
        raise missing_parameter("QueueName")
    given = request.attributes or {}
    _check_name(name, given)
    call.permit(name)
    fifo = name.endswith(".fifo")
    attributes = {key: value for key, value in rules.checked(given, fifo=fifo).items() if value}
    if attributes.get("FifoQueue") == "false":
        raise invalid_parameter(_NAME_RULE)
    rules.check_throughput({**attributes})
    tags = request.tags or request.capital_tags or {}
    if tags:
        call.permit_also("TagQueue", name, None)
    check_tags(tags)
    attributes = {name: value for name, value in attributes_in(tags).items() if value} | attributes
    given_factor = attributes.pop(meaning.SHADOW_FACTOR, None)
    shadow_factor = None if given_factor is None else int(given_factor)
    check_wishes(
        attributes,
        meaning.SHADOW_FACTOR_DEFAULT if shadow_factor is None else shadow_factor,
        call.backend.regions(),
    )
    await _check_redrive(call, name, attributes.get("RedrivePolicy", ""))
    if call.service.deleted.holds(name, call.service.now_ms()):
        seconds = call.service.config.name_reuse_seconds
        raise SqsError(
            errors.QUEUE_DELETED_RECENTLY,
            f"You must wait {seconds} seconds after deleting a queue before you can create another with the same name.",
        )
    try:
        queue = await call.backend.create_queue(name, attributes, tags, shadow_factor)
    except NameTaken as taken:
        raise SqsError(
            errors.QUEUE_NAME_EXISTS,
            f"A queue already exists with the same name and a different value for attribute {taken.args[0]}",
        ) from taken
    return QueueUrlResult(call.queue_url(queue.name))


def _check_name(name: str, given: Scalars) -> None:
    wants_fifo = str(given.get("FifoQueue", "")).lower() == "true"
    if wants_fifo != name.endswith(".fifo") or not is_queue_name(name):
        raise invalid_parameter(_FIFO_NAME_RULE if wants_fifo else _NAME_RULE)


async def _check_redrive(call: Call, name: str, policy: str) -> None:
    """The dead-letter queue must exist, be of the same type, and allow it."""
    redrive = meaning.redrive_policy(policy)
    if redrive is None:
        return
    target = redrive[0]
    if target.endswith(".fifo") != name.endswith(".fifo"):
        raise invalid_value(policy, "RedrivePolicy", "Dead-letter queue must be same type of queue as the source.")
    found = call.backend.find_queue(target)
    if found is None and is_queue_name(target):
        found = await call.backend.look_up_queue(target)
    if found is None:
        raise invalid_value(policy, "RedrivePolicy", "Dead letter target does not exist.")
    if not meaning.redrive_allows(found.attributes.get("RedriveAllowPolicy", ""), name):
        raise invalid_value(
            policy,
            "RedrivePolicy",
            f"Queue {call.service.config.arn(name)} is not permitted to use this dead-letter queue.",
        )


async def get_queue_url(call: Call, request: GetQueueUrlRequest) -> QueueUrlResult:
    if not request.queue_name:
        raise missing_parameter("QueueName")
    if not is_queue_name(request.queue_name):
        raise invalid_parameter(_NAME_RULE)
    if request.owner_account and request.owner_account != call.service.config.account:
        call.permit(request.queue_name)
        raise errors.queue_does_not_exist(query=call.query)
    queue = await call.queue_named(request.queue_name)
    return QueueUrlResult(call.queue_url(queue.name))


async def delete_queue(call: Call, request: QueueRequest) -> None:
    queue = await call.queue(request.queue_url)
    await call.backend.delete_queue(queue, key=call.caller.key)
    call.service.deleted.note(queue.name, call.service.now_ms())


# --- attributes ----------------------------------------------------------------------------------------------------


async def get_queue_attributes(call: Call, request: GetQueueAttributesRequest) -> GetQueueAttributesResult:
    queue = await call.queue(request.queue_url)
    names = set(request.attribute_names or ())
    for name in names:
        if name not in rules.READABLE:
            raise rules.unknown_attribute(name)
    if not names:
        return GetQueueAttributesResult()
    every = "All" in names
    found = {"QueueArn": call.service.config.arn(queue.name)}
    if every or names & rules.COUNTS:
        summary = await call.backend.summarize(queue)
        found["ApproximateNumberOfMessages"] = str(max(0, summary.held - summary.in_flight - summary.delayed))
        found["ApproximateNumberOfMessagesNotVisible"] = str(summary.in_flight)
        found["ApproximateNumberOfMessagesDelayed"] = str(summary.delayed)
    found["CreatedTimestamp"] = str(queue.created_ms // 1000)
    found["LastModifiedTimestamp"] = str((queue.modified_ms or queue.created_ms) // 1000)
    found |= meaning.effective(queue)
    result = found if every else {name: value for name, value in found.items() if name in names}
    return GetQueueAttributesResult(result or None)


async def set_queue_attributes(call: Call, request: SetQueueAttributesRequest) -> None:
    queue = await call.queue(request.queue_url)
    if request.attributes is None:
        raise missing_parameter("Attributes")
    attributes = rules.checked(request.attributes, fifo=queue.fifo)
    if attributes.pop("FifoQueue", "true") != "true":
        raise SqsError(
            errors.INVALID_ATTRIBUTE_VALUE,
            "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
        )
    if not attributes:
        return
    rules.check_throughput({**queue.attributes, **attributes})
    await _check_redrive(call, queue.name, attributes.get("RedrivePolicy", ""))
    if attributes.keys() & meaning.TAGS.values():
        check_changed_wishes(queue, attributes, call.backend.regions())
    await call.backend.change_queue(queue, attributes=_changes(attributes), key=call.caller.key)


def _changes(attributes: dict[str, str]) -> dict[str, str | None]:
    """Empty values take away. One kind of encryption ends the other."""
    changes: dict[str, str | None] = {name: value or None for name, value in attributes.items()}
    if changes.get("KmsMasterKeyId"):
        changes["SqsManagedSseEnabled"] = None
    elif attributes.get("SqsManagedSseEnabled") == "true":
        changes |= {"KmsMasterKeyId": None, "KmsDataKeyReusePeriodSeconds": None}
    return changes


# --- lists ---------------------------------------------------------------------------------------------------------


async def list_queues(call: Call, request: ListQueuesRequest) -> ListQueuesResult:
    call.permit()
    prefix = request.queue_name_prefix or ""
    names, token = _page(
        call.backend.list_queues(), lambda queue: queue.name.startswith(prefix), request.next_token, request.max_results
    )
    return ListQueuesResult([call.queue_url(name) for name in names] or None, token)


async def list_dead_letter_source_queues(
    call: Call, request: ListDeadLetterSourceQueuesRequest
) -> ListDeadLetterSourceQueuesResult:
    target = await call.queue(request.queue_url)

    def feeds_it(queue: QueueMetadata) -> bool:
        redrive = meaning.redrive_policy(queue.attributes.get("RedrivePolicy", ""))
        return redrive is not None and redrive[0] == target.name

    names, token = _page(call.backend.list_queues(), feeds_it, request.next_token, request.max_results)
    return ListDeadLetterSourceQueuesResult([call.queue_url(name) for name in names], token)


def _page(
    queues: list[QueueMetadata], wanted: Callable[[QueueMetadata], bool], token: str | None, limit: int | None
) -> tuple[list[str], str | None]:
    """(names, next token). As SQS: without MaxResults at most 1,000 and no token. The token is the last name given."""
    if limit is not None:
        check_range(limit, 1, LIST_MAX, "MaxResults", "MaxResults must be an integer between 1 and 1000.")
    after = _decode_token(token) if token else ""
    names = [queue.name for queue in queues if queue.name > after and wanted(queue)]
    if len(names) <= (limit or LIST_MAX):
        return names, None
    page = names[: limit or LIST_MAX]
    return page, base64.urlsafe_b64encode(page[-1].encode()).decode() if limit else None


def _decode_token(token: str) -> str:
    try:
        return base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise invalid_parameter("Invalid or expired next token.") from None
