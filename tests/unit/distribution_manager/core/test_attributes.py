"""What SQS's attributes mean."""

from __future__ import annotations

import json

import msgspec

from distribution_manager.core.attributes import (
    differing_attribute,
    redrive_allows,
    redrive_policy,
    settings_of,
    thresholds_of,
    wants_failback,
    wishes_of,
)
from distribution_manager.core.metadata import QueueMetadata
from distribution_manager.core.placement import Wishes
from distribution_manager.core.thresholds import Thresholds
from shadow_nodes.protocol.commands import Settings


def queue(name: str, **attributes: str) -> QueueMetadata:
    return QueueMetadata(queue_id="1", name=name, attributes=attributes, version=3)


def test_settings_by_default() -> None:
    assert settings_of(queue("a")) == Settings(version=3)
    assert settings_of(queue("a.fifo", FifoQueue="true")) == Settings(version=3, fifo=True)


def test_settings_of_everything() -> None:
    redrive = json.dumps(
        {"deadLetterTargetArn": "arn:aws:sqs:eu-west-1:000000000000:dead.fifo", "maxReceiveCount": "4"}
    )
    given = queue(
        "a.fifo",
        VisibilityTimeout="5",
        DelaySeconds="6",
        MessageRetentionPeriod="60",
        RedrivePolicy=redrive,
        ContentBasedDeduplication="true",
        DeduplicationScope="messageGroup",
    )
    assert settings_of(given) == Settings(
        version=3,
        fifo=True,
        visibility_timeout_ms=5_000,
        delay_ms=6_000,
        retention_ms=60_000,
        max_receive_count=4,
        dead_letter_queue="dead.fifo",
        content_based_deduplication=True,
        deduplication_scope_group=True,
    )


def test_differing_attribute() -> None:
    policy = '{"a": 1}'
    held = queue("a", VisibilityTimeout="5", Policy=policy)
    assert differing_attribute(held, {}) is None
    assert differing_attribute(held, {"VisibilityTimeout": "5", "DelaySeconds": "0", "Policy": '{"a":1}'}, 2) is None
    assert differing_attribute(held, {"VisibilityTimeout": "30"}) == "VisibilityTimeout"
    assert differing_attribute(held, {"Policy": "{}"}) == "Policy"
    assert differing_attribute(held, {"RedrivePolicy": "{}"}) == "RedrivePolicy"
    assert differing_attribute(held, {"ShadowFactor": "2"}) is None
    assert differing_attribute(held, {}, 1) == "ShadowFactor"


def test_redrive() -> None:
    assert redrive_policy("") is None
    assert redrive_policy("{}") is None
    assert redrive_allows("", "a")
    assert redrive_allows('{"redrivePermission": "allowAll"}', "a")
    assert not redrive_allows('{"redrivePermission": "denyAll"}', "a")
    by_queue = '{"redrivePermission": "byQueue", "sourceQueueArns": ["arn:aws:sqs:r:1:a"]}'
    assert redrive_allows(by_queue, "a")
    assert not redrive_allows(by_queue, "b")


def test_wishes() -> None:
    plain = QueueMetadata(queue_id="0" * 16, name="q")
    assert (wishes_of(plain), wants_failback(plain)) == (Wishes(), False)
    wishing = QueueMetadata(
        queue_id="0" * 16, name="q", attributes={"AllowedRegions": "a,b,c", "PreferredPrimaryRegion": "b"}
    )
    assert wishes_of(wishing) == Wishes(frozenset("abc"), "b")
    assert not wants_failback(wishing)
    back = msgspec.structs.replace(wishing, attributes={**wishing.attributes, "Failback": "true"})
    assert wants_failback(back)
    assert not wants_failback(msgspec.structs.replace(plain, attributes={"Failback": "true"}))


def test_thresholds_are_the_queues_own_or_the_default() -> None:
    defaults = Thresholds(message_rate=5, ack_latency_ms=7, cpu=0.85, disk_free=0.1)
    assert thresholds_of(QueueMetadata(queue_id="0" * 16, name="q"), defaults) == defaults
    own = {
        "PromotionMessageRate": "100",
        "PromotionAckLatencyMs": "0",
        "PromotionCpuPercent": "70",
        "PromotionDiskFreePercent": "20",
    }
    metadata = QueueMetadata(queue_id="0" * 16, name="q", attributes=own)
    assert thresholds_of(metadata, defaults) == Thresholds(100, 0, 0.7, 0.2)
