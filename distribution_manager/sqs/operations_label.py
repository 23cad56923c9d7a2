"""Tags, and the permissions that AddPermission writes into the queue's Policy attribute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.sqs import attributes as rules
from distribution_manager.sqs import errors
from distribution_manager.sqs.access.policy import ACTIONS
from distribution_manager.sqs.backend import ChangedMeanwhile, Unavailable
from distribution_manager.sqs.errors import SqsError, invalid_parameter, invalid_value, missing_parameter
from distribution_manager.sqs.models import (
    AddPermissionRequest,
    ListQueueTagsResult,
    QueueRequest,
    RemovePermissionRequest,
    TagQueueRequest,
    UntagQueueRequest,
)
from distribution_manager.sqs.service import Call
from distribution_manager.sqs.validation import find_invalid_character, is_name
from distribution_manager.sqs.wishes import attributes_in, attributes_without, check_changed_wishes

TAGS_MAX = 50
TAG_KEY_CHARACTERS_MAX = 128
TAG_VALUE_CHARACTERS_MAX = 256
PERMISSION_ACTIONS_MAX = 7
POLICY_ATTEMPTS_MAX = 16
LABEL_CHARACTERS_MAX = 80
MOVE_TASKS = frozenset({"CancelMessageMoveTask", "ListMessageMoveTasks", "StartMessageMoveTask"})
PERMISSION_ACTIONS = ACTIONS - MOVE_TASKS | {"*"}
"""AddPermission knows of no move tasks; a Policy may name them."""

# --- tags ----------------------------------------------------------------------------------------------------------


def check_tags(tags: dict[str, str]) -> None:
    if len(tags) > TAGS_MAX:
        raise invalid_parameter(f"Too many tags added: {len(tags)}. Maximum allowed is {TAGS_MAX}.")
    for key, value in tags.items():
        if not 0 < len(key) <= TAG_KEY_CHARACTERS_MAX or find_invalid_character(key):
            raise invalid_parameter("Tag keys must be between 1 and 128 characters in length.")
        if key.lower().startswith("aws:"):
            raise invalid_parameter("Tag keys beginning with 'aws:' are reserved for internal use.")
        if len(value) > TAG_VALUE_CHARACTERS_MAX or find_invalid_character(value):
            raise invalid_parameter("Tag values must be between 0 and 256 characters in length.")


async def tag_queue(call: Call, request: TagQueueRequest) -> None:
    queue = await call.queue(request.queue_url)
    if not request.tags:
        raise missing_parameter("Tags")
    check_tags({**queue.tags, **request.tags})
    attributes: dict[str, str | None] = {name: value or None for name, value in attributes_in(request.tags).items()}
    if attributes:
        check_changed_wishes(queue, attributes, call.backend.regions())
    await call.backend.change_queue(queue, attributes=attributes or None, tags={**request.tags}, key=call.caller.key)


async def untag_queue(call: Call, request: UntagQueueRequest) -> None:
    queue = await call.queue(request.queue_url)
    if not request.tag_keys:
        raise missing_parameter("TagKeys")
    gone: dict[str, str | None] = {key: None for key in request.tag_keys if key in queue.tags}
    if gone:
        await call.backend.change_queue(
            queue, attributes=attributes_without(gone) or None, tags=gone, key=call.caller.key
        )


async def list_queue_tags(call: Call, request: QueueRequest) -> ListQueueTagsResult:
    queue = await call.queue(request.queue_url)
    return ListQueueTagsResult(dict(queue.tags) or None)


# --- permissions ---------------------------------------------------------------------------------------------------


async def add_permission(call: Call, request: AddPermissionRequest) -> None:
    queue = await call.queue(request.queue_url)
    label, accounts, actions = _permission(request)
    principals = [f"arn:aws:iam::{account}:root" for account in accounts]
    added = {
        "Sid": label,
        "Effect": "Allow",
        "Principal": {"AWS": principals if len(principals) > 1 else principals[0]},
        "Action": [f"SQS:{action}" for action in actions] if len(actions) > 1 else f"SQS:{actions[0]}",
        "Resource": call.service.config.arn(queue.name),
    }

    def add(statements: list[Any], again: bool) -> list[Any]:
        if again and added in statements:  # by us, though we were not told
            return statements
        if any(_is_labelled(statement, label) for statement in statements):
            raise invalid_value(label, "Label", "Already exists.")
        return [*statements, added]

    await _change_policy(call, queue, add)


async def remove_permission(call: Call, request: RemovePermissionRequest) -> None:
    queue = await call.queue(request.queue_url)
    label = request.label
    if not label:
        raise missing_parameter("Label")

    def remove(statements: list[Any], again: bool) -> list[Any]:
        left = [statement for statement in statements if not _is_labelled(statement, label)]
        if len(left) == len(statements) and not again:
            raise invalid_value(label, "Label", "can't find label.")
        return left

    await _change_policy(call, queue, remove)


def _is_labelled(statement: Any, label: str) -> bool:
    return isinstance(statement, dict) and statement.get("Sid") == label


async def _change_policy(call: Call, queue: QueueMetadata, edit: Callable[[list[Any], bool], list[Any]]) -> None:
    """``edit``: new statements from old ones; whether they were edited before, with an outcome that did not hold.

    The policy is written back whole, so only if it is still what was read, in etcd. Raises SqsError.
    """
    for attempt in range(POLICY_ATTEMPTS_MAX):
        latest = await call.backend.look_up_queue(queue.name)
        if latest is None or latest.queue_id != queue.queue_id:
            raise errors.queue_does_not_exist(query=call.query)
        policy = _policy(call, latest)
        statements = edit(policy["Statement"], attempt > 0)
        text = msgspec.json.encode({**policy, "Statement": statements}).decode() if statements else None
        if text is not None:
            rules.checked({"Policy": text}, fifo=queue.fifo)
        before = latest.attributes.get("Policy")
        try:
            await call.backend.change_queue(
                latest, attributes={"Policy": text}, provided={"Policy": before}, key=call.caller.key
            )
        except ChangedMeanwhile:
            continue
        return
    raise Unavailable(f"The policy of queue {queue.name} is being changed by others.")


def _permission(request: AddPermissionRequest) -> tuple[str, list[str], list[str]]:
    """(label, accounts, actions), checked."""
    label, accounts, actions = request.label, request.account_ids, request.actions
    if not label:
        raise missing_parameter("Label")
    if not accounts:
        raise missing_parameter("AWSAccountIds")
    if not actions:
        raise missing_parameter("Actions")
    if not is_name(label, LABEL_CHARACTERS_MAX):
        raise invalid_value(label, "Label", "Can only include alphanumeric characters, hyphens, or underscores.")
    for account in accounts:
        if not (len(account) == 12 and account.isascii() and account.isdigit()):
            raise invalid_value(account, "PrincipalId", "Unable to verify.")
    for action in actions:
        if action not in PERMISSION_ACTIONS:
            raise invalid_value(
                f"SQS:{action}", "ActionName", "Please refer to the appropriate WSDL for a list of valid actions."
            )
    if len(actions) > PERMISSION_ACTIONS_MAX:
        raise SqsError(
            errors.OVER_LIMIT, f"{len(actions)} Actions were found, maximum allowed is {PERMISSION_ACTIONS_MAX}."
        )
    return label, accounts, actions


def _policy(call: Call, queue: QueueMetadata) -> dict[str, Any]:
    """The queue's policy, or the empty one that SQS begins with; its Statement is a list of its own."""
    text = queue.attributes.get("Policy")
    if not text:
        arn = call.service.config.arn(queue.name)
        return {"Version": "2008-10-17", "Id": f"{arn}/SQSDefaultPolicy", "Statement": []}
    policy: dict[str, Any] = msgspec.json.decode(text)
    return {**policy, "Statement": rules.statements_of(policy)}
