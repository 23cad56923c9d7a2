"""Which queue attributes SQS takes, with which values, and what it says about others.

Rules: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SetQueueAttributes.html
Checks that need other queues (does the dead-letter queue exist?) are in operations_queue.
"""

from __future__ import annotations

from typing import Any

import msgspec

from distribution_manager.config import NAME_PATTERN
from distribution_manager.core.attributes import (
    ALLOWED_REGIONS,
    FAILBACK,
    MESSAGE_BYTES_MAX,
    PREFERRED_PRIMARY_REGION,
    PROMOTION_ACK_LATENCY_MS,
    PROMOTION_CPU_PERCENT,
    PROMOTION_DISK_FREE_PERCENT,
    PROMOTION_MESSAGE_RATE,
    SHADOW_FACTOR,
    SHADOW_FACTOR_MAX,
    region_names,
)
from distribution_manager.sqs import errors
from distribution_manager.sqs.access.conditions import PolicyError
from distribution_manager.sqs.access.policy import read_policy
from distribution_manager.sqs.errors import SqsError, invalid_value
from distribution_manager.sqs.models import Scalars
from distribution_manager.sqs.validation import find_invalid_character

POLICY_BYTES_MAX = 8_192
POLICY_STATEMENTS_MAX = 20
REDRIVE_SOURCES_MAX = 10
RECEIVES_MAX = 1_000
REGIONS_MAX = 20

NUMBERS: dict[str, tuple[int, int]] = {
    "DelaySeconds": (0, 900),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
    "MaximumMessageSize": (1_024, MESSAGE_BYTES_MAX),
    "MessageRetentionPeriod": (60, 1_209_600),
    PROMOTION_ACK_LATENCY_MS: (0, 60_000),
    PROMOTION_CPU_PERCENT: (0, 99),
    PROMOTION_DISK_FREE_PERCENT: (0, 99),
    PROMOTION_MESSAGE_RATE: (0, 1_000_000),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    SHADOW_FACTOR: (0, SHADOW_FACTOR_MAX),
    "VisibilityTimeout": (0, 43_200),
}
CHOICES: dict[str, tuple[str, ...]] = {
    "ContentBasedDeduplication": ("true", "false"),
    "DeduplicationScope": ("queue", "messageGroup"),
    FAILBACK: ("true", "false"),
    "FifoQueue": ("true", "false"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
    "SqsManagedSseEnabled": ("true", "false"),
}
PLACES = {ALLOWED_REGIONS: REGIONS_MAX, PREFERRED_PRIMARY_REGION: 1}
"""How many regions each may name."""
THRESHOLDS = frozenset(
    {PROMOTION_ACK_LATENCY_MS, PROMOTION_CPU_PERCENT, PROMOTION_DISK_FREE_PERCENT, PROMOTION_MESSAGE_RATE}
)
REMOVABLE = (
    frozenset({"KmsMasterKeyId", "Policy", "RedriveAllowPolicy", "RedrivePolicy"}) | frozenset(PLACES) | THRESHOLDS
)
"""Setting these to the empty string takes them away."""
SETTABLE = frozenset(NUMBERS) | frozenset(CHOICES) | REMOVABLE
FIFO_ONLY = frozenset({"ContentBasedDeduplication", "DeduplicationScope", "FifoQueue", "FifoThroughputLimit"})
COUNTS = frozenset(
    {"ApproximateNumberOfMessages", "ApproximateNumberOfMessagesDelayed", "ApproximateNumberOfMessagesNotVisible"}
)
READABLE = SETTABLE | COUNTS | {"All", "CreatedTimestamp", "LastModifiedTimestamp", "QueueArn"}


def checked(given: Scalars, *, fifo: bool) -> dict[str, str]:
    """The attributes as strings in SQS's spelling; "" stays, for those that it takes away. Raises SqsError."""
    result: dict[str, str] = {}
    for name, raw in given.items():
        if name not in SETTABLE:
            raise unknown_attribute(name)
        if name in FIFO_ONLY and not fifo:
            raise _not_fifo(name)
        if raw is None:
            continue
        text = _as_text(raw)
        if name in THRESHOLDS and not text:
            pass  # the managers' defaults count again
        elif name in NUMBERS:
            text = _number(name, text)
        elif name in CHOICES:
            text = _choice(name, text)
        elif name in PLACES:
            text = _places(name, text)
        elif text:
            _TEXT_CHECKS[name](text)
        result[name] = text
    if result.get("SqsManagedSseEnabled") == "true" and result.get("KmsMasterKeyId"):
        raise SqsError(
            errors.INVALID_ATTRIBUTE_NAME,
            "You can use one type of server-side encryption (SSE) at one time. "
            "You can either enable KMS SSE or SQS SSE.",
        )
    return result


def check_throughput(attributes: dict[str, str]) -> None:
    """``attributes``: all that the queue will have. Raises SqsError."""
    if (
        attributes.get("FifoThroughputLimit") == "perMessageGroupId"
        and attributes.get("DeduplicationScope") != "messageGroup"
    ):
        raise SqsError(
            errors.INVALID_ATTRIBUTE_VALUE,
            "The perMessageGroupId value is allowed only when the value for DeduplicationScope is messageGroup.",
        )


def unknown_attribute(name: str) -> SqsError:
    return SqsError(errors.INVALID_ATTRIBUTE_NAME, f"Unknown Attribute {name}.")


def _not_fifo(name: str) -> SqsError:
    if name in ("DeduplicationScope", "FifoThroughputLimit"):
        return SqsError(
            errors.INVALID_ATTRIBUTE_NAME, f"You can specify the {name} only when FifoQueue is set to true."
        )
    return unknown_attribute(name)


def _as_text(raw: str | int | float | bool) -> str:
    if isinstance(raw, bool):
        return "true" if raw else "false"
    return str(raw)


def _invalid(name: str, reason: str = "") -> SqsError:
    return SqsError(
        errors.INVALID_ATTRIBUTE_VALUE,
        f"Invalid value for the parameter {name}.{' Reason: ' if reason else ''}{reason}",
    )


def _number(name: str, text: str) -> str:
    low, high = NUMBERS[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and low <= int(text) <= high):
        raise _invalid(name, f"Must be an integer from {low} to {high}.")
    return str(int(text))


def _choice(name: str, text: str) -> str:
    lowered = text.lower() if CHOICES[name] == ("true", "false") else text
    if lowered not in CHOICES[name]:
        raise _invalid(name, f"Must be one of {', '.join(CHOICES[name])}.")
    return lowered


def _places(name: str, text: str) -> str:
    """In one spelling, by which lists are compared."""
    names = region_names(text)
    for region in names:
        if not NAME_PATTERN.fullmatch(region):
            raise _invalid(name, f"{region} is not a region's name.")
    if len(names) > PLACES[name]:
        raise _invalid(name, f"It names {len(names)} regions, and the maximum is {PLACES[name]}.")
    return ",".join(names)


def _json_object(name: str, text: str, reason: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _invalid(name, reason)
    return value


def _check_key_id(text: str) -> None:
    if len(text) > 2_048 or find_invalid_character(text):
        raise _invalid("KmsMasterKeyId")


def _check_redrive_policy(text: str) -> None:
    policy = _json_object("RedrivePolicy", text, "Redrive policy is not a valid JSON map.")
    for name in ("maxReceiveCount", "deadLetterTargetArn"):
        if name not in policy:
            raise invalid_value(text, "RedrivePolicy", f"Redrive policy does not contain mandatory attribute: {name}.")
    if len(policy) > 2:
        raise invalid_value(
            text, "RedrivePolicy", "Only following attributes are supported: [deadLetterTargetArn, maxReceiveCount]."
        )
    count = policy["maxReceiveCount"]
    is_integer = isinstance(count, int | str) and not isinstance(count, bool) and str(count).isascii()
    if not (is_integer and str(count).isdigit() and len(str(count)) <= 9 and 1 <= int(count) <= RECEIVES_MAX):
        raise invalid_value(
            text,
            "RedrivePolicy",
            f"Invalid value for maxReceiveCount: {count}, valid values are from 1 to {RECEIVES_MAX} both inclusive.",
        )
    if not is_queue_arn(policy["deadLetterTargetArn"]):
        raise invalid_value(text, "RedrivePolicy", "Invalid value for deadLetterTargetArn.")


def _check_redrive_allow_policy(text: str) -> None:
    unsupported = "Amazon SQS can't create the redrive allow policy, as it's in an unsupported format."
    policy = _json_object("RedriveAllowPolicy", text, unsupported)
    sources, permission = policy.get("sourceQueueArns"), policy.get("redrivePermission")
    if permission not in ("allowAll", "denyAll", "byQueue") or policy.keys() - {"redrivePermission", "sourceQueueArns"}:
        raise _invalid("RedriveAllowPolicy", unsupported)
    prefix = "Amazon SQS can't create the redrive allow policy. "
    if permission != "byQueue":
        if sources:
            reason = "To specify one or more source queue ARNs, you must set redrivePermission to byQueue."
            raise invalid_value(text, "RedriveAllowPolicy", prefix + reason)
        return
    if not isinstance(sources, list) or not sources:
        reason = (
            "When you specify the byQueue permission type, you must also specify one or more sourceQueueArns values."
        )
        raise invalid_value(text, "RedriveAllowPolicy", prefix + reason)
    if len(sources) > REDRIVE_SOURCES_MAX:
        reason = f"The maximum number of source queue ARNs you can specify is {REDRIVE_SOURCES_MAX}."
        raise invalid_value(text, "RedriveAllowPolicy", prefix + reason)
    if not all(is_queue_arn(source) for source in sources):
        raise _invalid("RedriveAllowPolicy", unsupported)


def _check_policy(text: str) -> None:
    """What it means is for the gate; that all of it means something is checked here."""
    if len(text.encode()) > POLICY_BYTES_MAX:
        raise _invalid("Policy", f"The policy is longer than {POLICY_BYTES_MAX} bytes.")
    statements = statements_of(_json_object("Policy", text, "The policy is not a valid JSON map."))
    if len(statements) > POLICY_STATEMENTS_MAX:
        raise SqsError(
            errors.OVER_LIMIT,
            f"{len(statements)} statements were found in the submitted policy, max allowed is {POLICY_STATEMENTS_MAX}",
        )
    try:
        read_policy(text)
    except PolicyError as error:
        raise _invalid("Policy", str(error)) from None


def statements_of(policy: dict[str, Any]) -> list[Any]:
    """A policy's statements; it may have a single one outside a list. Raises SqsError where there are none."""
    statements = policy.get("Statement")
    if isinstance(statements, dict):
        return [statements]
    if not isinstance(statements, list) or not statements:
        raise _invalid("Policy")
    return statements


def is_queue_arn(value: object) -> bool:
    parts = value.split(":") if isinstance(value, str) else []
    return len(parts) == 6 and parts[0] == "arn" and parts[1].startswith("aws") and parts[2] == "sqs" and bool(parts[5])


_TEXT_CHECKS = {
    "KmsMasterKeyId": _check_key_id,
    "Policy": _check_policy,
    "RedriveAllowPolicy": _check_redrive_allow_policy,
    "RedrivePolicy": _check_redrive_policy,
}
assert _TEXT_CHECKS.keys() | PLACES.keys() | THRESHOLDS == REMOVABLE
