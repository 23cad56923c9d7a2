"""A queue's attributes as the rest of the manager needs them: what SQS's strings mean, and the defaults.

Model: ``QueueMetadata.attributes`` holds the attributes that were set, as validated strings; all else is a default.
Invariant: these functions never fail on metadata that the SQS layer let through.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.core.placement import Wishes
from distribution_manager.core.thresholds import Thresholds
from shadow_nodes.protocol.commands import Settings
from shadow_nodes.protocol.limits import MIB

MESSAGE_BYTES_MAX = 1 * MIB
"""Body and message attributes of one message, and of a whole batch."""

SHADOW_FACTOR = "ShadowFactor"
"""The attribute that sets the number of shadows; ShadowQ's own."""
SHADOW_FACTOR_TAG = "shadowq:shadow-factor"
"""The same as a tag, for tools that know only SQS's attributes."""
SHADOW_FACTOR_DEFAULT = 2
SHADOW_FACTOR_MAX = 6

ALLOWED_REGIONS = "AllowedRegions"
"""Names separated by commas: replicas are placed nowhere else. ShadowQ's own, as are the next two."""
PREFERRED_PRIMARY_REGION = "PreferredPrimaryRegion"
"""The primary is placed here while a node of this region may hold it."""
FAILBACK = "Failback"
"""Whether the primary returns there by itself when the region has been well for a while."""
PROMOTION_MESSAGE_RATE = "PromotionMessageRate"
"""Messages sent per second from which on another replica may be promoted; 0: never. Unset: the managers' default."""
PROMOTION_ACK_LATENCY_MS = "PromotionAckLatencyMs"
"""The same of the 99th percentile of acknowledgements."""
PROMOTION_CPU_PERCENT = "PromotionCpuPercent"
"""The same of the processor of the primary's node."""
PROMOTION_DISK_FREE_PERCENT = "PromotionDiskFreePercent"
"""The same of what is free of the disk of the primary's node, when it is less."""
TAGS: Mapping[str, str] = {
    SHADOW_FACTOR_TAG: SHADOW_FACTOR,
    "shadowq:allowed-regions": ALLOWED_REGIONS,
    "shadowq:preferred-primary-region": PREFERRED_PRIMARY_REGION,
    "shadowq:failback": FAILBACK,
    "shadowq:promotion-message-rate": PROMOTION_MESSAGE_RATE,
    "shadowq:promotion-ack-latency-ms": PROMOTION_ACK_LATENCY_MS,
    "shadowq:promotion-cpu-percent": PROMOTION_CPU_PERCENT,
    "shadowq:promotion-disk-free-percent": PROMOTION_DISK_FREE_PERCENT,
}
"""Tags that set attributes."""

DEFAULTS: Mapping[str, str] = {
    "DelaySeconds": "0",
    FAILBACK: "false",
    "MaximumMessageSize": str(MESSAGE_BYTES_MAX),
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "VisibilityTimeout": "30",
}
DEFAULTS_FIFO: Mapping[str, str] = {
    **DEFAULTS,
    "FifoQueue": "true",
    "ContentBasedDeduplication": "false",
    "DeduplicationScope": "queue",
    "FifoThroughputLimit": "perQueue",
}


def effective(metadata: QueueMetadata) -> dict[str, str]:
    """All that the queue has by setting or by default, except the counted ones and those derived from its name."""
    attributes = {**(DEFAULTS_FIFO if metadata.fifo else DEFAULTS), **metadata.attributes}
    attributes[SHADOW_FACTOR] = str(metadata.shadow_factor)
    if "KmsMasterKeyId" in attributes:
        attributes.setdefault("KmsDataKeyReusePeriodSeconds", "300")
        attributes["SqsManagedSseEnabled"] = "false"
    else:
        attributes.setdefault("SqsManagedSseEnabled", "true")
    return attributes


def differing_attribute(
    metadata: QueueMetadata, attributes: Mapping[str, str], shadow_factor: int | None = None
) -> str | None:
    """The first of ``attributes`` (as CreateQueue gives them) whose value is not the queue's; None where all agree.

    RedrivePolicy, RedriveAllowPolicy and Policy are compared as JSON values, so that spacing does not count.
    """
    held = effective(metadata)
    if shadow_factor is not None and shadow_factor != metadata.shadow_factor:
        return SHADOW_FACTOR
    for name, value in attributes.items():
        if held.get(name, "") != value and not (name.endswith("Policy") and _same_json(held.get(name, ""), value)):
            return name
    return None


def settings_of(metadata: QueueMetadata) -> Settings:
    """What the queue's state machine is configured with."""
    attributes = effective(metadata)
    redrive = redrive_policy(attributes.get("RedrivePolicy", ""))
    return Settings(
        version=metadata.version,
        fifo=metadata.fifo,
        visibility_timeout_ms=int(attributes["VisibilityTimeout"]) * 1000,
        delay_ms=int(attributes["DelaySeconds"]) * 1000,
        retention_ms=int(attributes["MessageRetentionPeriod"]) * 1000,
        max_receive_count=redrive[1] if redrive else 0,
        dead_letter_queue=redrive[0] if redrive else "",
        content_based_deduplication=attributes.get("ContentBasedDeduplication") == "true",
        deduplication_scope_group=attributes.get("DeduplicationScope") == "messageGroup",
    )


def wishes_of(metadata: QueueMetadata) -> Wishes:
    """What the queue asks of its placement."""
    return Wishes(
        frozenset(region_names(metadata.attributes.get(ALLOWED_REGIONS, ""))),
        metadata.attributes.get(PREFERRED_PRIMARY_REGION, ""),
    )


def wants_failback(metadata: QueueMetadata) -> bool:
    """Whether the primary is to return to the preferred region by itself; where none is preferred, never."""
    return effective(metadata).get(FAILBACK) == "true" and bool(wishes_of(metadata).primary_region)


def region_names(text: str) -> list[str]:
    """Of a list separated by commas or spaces (which AWS allows in tags, while it does not allow commas)."""
    return sorted(set(text.replace(",", " ").split()))


def thresholds_of(metadata: QueueMetadata, defaults: Thresholds) -> Thresholds:
    """The queue's thresholds of load, by its attributes; ``defaults`` for those it does not set."""

    def given(name: str, unit: float, default: float) -> float:
        text = metadata.attributes.get(name)
        return default if text is None else int(text) / unit

    return Thresholds(
        given(PROMOTION_MESSAGE_RATE, 1, defaults.message_rate),
        given(PROMOTION_ACK_LATENCY_MS, 1, defaults.ack_latency_ms),
        given(PROMOTION_CPU_PERCENT, 100, defaults.cpu),
        given(PROMOTION_DISK_FREE_PERCENT, 100, defaults.disk_free),
    )


def redrive_policy(text: str) -> tuple[str, int] | None:
    """(dead-letter queue's name, maxReceiveCount) of a RedrivePolicy attribute; None where there is none.

    ``maxReceiveCount`` may be a string: SQS takes both.
    """
    policy = _json_object(text)
    target, count = policy.get("deadLetterTargetArn"), policy.get("maxReceiveCount")
    if not isinstance(target, str) or count is None:
        return None
    return name_in_arn(target), int(count)


def redrive_allows(text: str, source_arn_name: str) -> bool:
    """Whether a dead-letter queue's RedriveAllowPolicy lets the queue of that name use it."""
    policy = _json_object(text)
    permission = policy.get("redrivePermission", "allowAll")
    if permission == "byQueue":
        return any(name_in_arn(str(arn)) == source_arn_name for arn in policy.get("sourceQueueArns", []))
    return bool(permission == "allowAll")


def name_in_arn(arn: str) -> str:
    """The queue's name. Region and account are not compared: the same queue is served in every region."""
    return arn.rpartition(":")[2]


def _json_object(text: str) -> dict[str, Any]:
    if not text:
        return {}
    value = msgspec.json.decode(text)
    return value if isinstance(value, dict) else {}


def _same_json(left: str, right: str) -> bool:
    try:
        same = bool(msgspec.json.decode(left) == msgspec.json.decode(right))
    except msgspec.DecodeError:
        return False
    return same
