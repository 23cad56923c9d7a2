"""ShadowQ's own attributes, which SQS's model has not: set as attributes or as tags, asked at another manager."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from distribution_manager.core.attributes import SHADOW_FACTOR, TAGS

from .conftest import Bench, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

OWN = {
    "ShadowFactor": ("1", "2"),
    "AllowedRegions": ("ap-southeast-1,eu-west-1,us-east-1", "eu-west-1,us-east-1"),
    "PreferredPrimaryRegion": ("eu-west-1", "us-east-1"),
    "Failback": ("true", "false"),
    "PromotionMessageRate": ("300", "0"),
    "PromotionAckLatencyMs": ("150", "0"),
    "PromotionCpuPercent": ("60", "0"),
    "PromotionDiskFreePercent": ("20", "0"),
}
"""Of each: what it is when the queue is made, and what it is changed to."""
FIRST = {name: first for name, (first, _) in OWN.items()}
SECOND = {name: second for name, (_, second) in OWN.items() if name not in {"ShadowFactor", "AllowedRegions"}}
AFTER_ALL = {"ShadowFactor": "1", "Failback": "false"}
"""What is left when all is taken away: shadows as many as there were, and a default."""


def tags(attributes: dict[str, str]) -> dict[str, str]:
    return {tag: attributes[name] for tag, name in TAGS.items() if name in attributes}


def own(client: Any, url: str) -> dict[str, str]:
    found = client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return {name: value for name, value in found.items() if name in OWN}


def test_all_are_here() -> None:
    assert set(TAGS.values()) == set(OWN)


def test_as_attributes(bench: Bench) -> None:
    url = bench.queue(**FIRST)
    assert own(bench.sqs, url) == FIRST
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes=SECOND)
    assert own(bench.sqs, url) == FIRST | SECOND
    eventually(lambda: own(bench.owner, url) == FIRST | SECOND)
    removed = {name: "" for name in OWN if name not in {SHADOW_FACTOR, "Failback"}}
    bench.sqs.set_queue_attributes(QueueUrl=url, Attributes=removed)
    assert own(bench.sqs, url) == AFTER_ALL


def test_as_tags(bench: Bench) -> None:
    url = bench.queue(tags=tags(FIRST))
    assert own(bench.sqs, url) == FIRST
    assert bench.sqs.list_queue_tags(QueueUrl=url)["Tags"] == tags(FIRST)
    bench.sqs.tag_queue(QueueUrl=url, Tags=tags(SECOND))
    assert own(bench.sqs, url) == FIRST | SECOND
    eventually(lambda: own(bench.owner, url) == FIRST | SECOND)
    bench.sqs.untag_queue(QueueUrl=url, TagKeys=list(TAGS))
    assert own(bench.sqs, url) == AFTER_ALL


@pytest.mark.parametrize(
    ("tag", "value"),
    [(tag, "x y z" if "region" in tag else "many") for tag in TAGS] + [("shadowq:shadowfactor", "2")],
)
def test_bad_tags(bench: Bench, tag: str, value: str) -> None:
    url = bench.queue()
    with pytest.raises(ClientError, match=tag if tag != "shadowq:allowed-regions" else "AllowedRegions"):
        bench.sqs.tag_queue(QueueUrl=url, Tags={tag: value})
    assert "Tags" not in bench.sqs.list_queue_tags(QueueUrl=url)
