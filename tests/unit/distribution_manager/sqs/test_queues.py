"""Queues, attributes, tags and permissions through boto3, in both protocols."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from distribution_manager.core.attributes import TAGS
from distribution_manager.sqs.config import SqsConfig

ARN = "arn:aws:sqs:us-east-1:000000000000:"


def refused(call: Any, **parameters: Any) -> tuple[str, str]:
    """(code, message) of the error that the call must raise."""
    with pytest.raises(ClientError) as caught:
        call(**parameters)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.fixture
def url(sqs: Any) -> str:
    return str(sqs.create_queue(QueueName="orders")["QueueUrl"])


def attributes(sqs: Any, url: str, *names: str) -> dict[str, str]:
    return dict(sqs.get_queue_attributes(QueueUrl=url, AttributeNames=list(names) or ["All"]).get("Attributes", {}))


def test_create_find_list_delete(server: Any, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="orders", tags={"team": "a"})["QueueUrl"]
    assert url == server.url_of("orders")
    assert sqs.create_queue(QueueName="orders")["QueueUrl"] == url
    assert sqs.create_queue(QueueName="orders", Attributes={"VisibilityTimeout": "30"})["QueueUrl"] == url
    assert sqs.get_queue_url(QueueName="orders")["QueueUrl"] == url
    assert refused(sqs.create_queue, QueueName="orders", Attributes={"DelaySeconds": "1"}) == (
        "QueueAlreadyExists",
        "A queue already exists with the same name and a different value for attribute DelaySeconds",
    )
    sqs.create_queue(QueueName="other")
    assert sqs.list_queues(QueueNamePrefix="or")["QueueUrls"] == [url]
    assert len(sqs.list_queues()["QueueUrls"]) == 2
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"team": "a"}
    sqs.delete_queue(QueueUrl=url)
    code, message = refused(sqs.send_message, QueueUrl=url, MessageBody="x")
    assert code == "AWS.SimpleQueueService.NonExistentQueue"
    assert message.startswith("The specified queue does not exist")
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.get_queue_url(QueueName="orders")
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix="or")


def test_pages(sqs: Any) -> None:
    urls = [sqs.create_queue(QueueName=f"q{number}")["QueueUrl"] for number in range(5)]
    pages = [page["QueueUrls"] for page in sqs.get_paginator("list_queues").paginate(PaginationConfig={"PageSize": 2})]
    assert pages == [urls[:2], urls[2:4], urls[4:]]
    assert refused(sqs.list_queues, MaxResults=0)[0] == "InvalidParameterValue"
    assert refused(sqs.list_queues, NextToken="é", MaxResults=1)[0] == "InvalidParameterValue"


@pytest.mark.parametrize("name", ["", "a b", "a" * 81, "a.fifo", "é", "a/b", "a.b"])
def test_names_that_sqs_refuses(sqs: Any, name: str) -> None:
    assert refused(sqs.create_queue, QueueName=name) == (
        "InvalidParameterValue",
        "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
    )


def test_fifo_names(sqs: Any) -> None:
    fifo = {"FifoQueue": "true"}
    assert "must end with .fifo" in refused(sqs.create_queue, QueueName="a", Attributes=fifo)[1]
    assert "must end with .fifo" in refused(sqs.create_queue, QueueName="a" * 76 + ".fifo", Attributes=fifo)[1]
    assert refused(sqs.create_queue, QueueName="a", Attributes={"FifoQueue": "false"})[0] == "InvalidAttributeName"
    sqs.create_queue(QueueName="a" * 75 + ".fifo", Attributes=fifo)
    sqs.create_queue(QueueName="-_" * 40)


def test_attributes_by_default(server: Any, sqs: Any, url: str) -> None:
    created = str(server.backend.now_ms // 1000)
    standard = {
        "ApproximateNumberOfMessages": "0",
        "ApproximateNumberOfMessagesDelayed": "0",
        "ApproximateNumberOfMessagesNotVisible": "0",
        "CreatedTimestamp": created,
        "DelaySeconds": "0",
        "Failback": "false",
        "LastModifiedTimestamp": created,
        "MaximumMessageSize": "1048576",
        "MessageRetentionPeriod": "345600",
        "QueueArn": ARN + "orders",
        "ReceiveMessageWaitTimeSeconds": "0",
        "ShadowFactor": "2",
        "SqsManagedSseEnabled": "true",
        "VisibilityTimeout": "30",
    }
    assert attributes(sqs, url) == standard
    assert attributes(sqs, url, "QueueArn", "Policy") == {"QueueArn": ARN + "orders"}
    assert "Attributes" not in sqs.get_queue_attributes(QueueUrl=url)
    assert refused(sqs.get_queue_attributes, QueueUrl=url, AttributeNames=["Nonsense"]) == (
        "InvalidAttributeName",
        "Unknown Attribute Nonsense.",
    )
    fifo_url = sqs.create_queue(QueueName="orders.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    assert attributes(sqs, fifo_url) == standard | {
        "ContentBasedDeduplication": "false",
        "DeduplicationScope": "queue",
        "FifoQueue": "true",
        "FifoThroughputLimit": "perQueue",
        "QueueArn": ARN + "orders.fifo",
    }


def test_set_and_take_away(server: Any, sqs: Any, url: str) -> None:
    server.backend.now_ms += 7_000
    statement = {"Effect": "Allow", "Principal": "*", "Action": "sqs:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": statement})
    sqs.set_queue_attributes(
        QueueUrl=url, Attributes={"VisibilityTimeout": "5", "Policy": policy, "KmsMasterKeyId": "k"}
    )
    held = attributes(sqs, url)
    assert (held["VisibilityTimeout"], held["Policy"]) == ("5", policy)
    assert (held["KmsMasterKeyId"], held["KmsDataKeyReusePeriodSeconds"], held["SqsManagedSseEnabled"]) == (
        "k",
        "300",
        "false",
    )
    assert int(held["LastModifiedTimestamp"]) == int(held["CreatedTimestamp"]) + 7
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": "", "SqsManagedSseEnabled": "true"})
    assert not {"Policy", "KmsMasterKeyId", "KmsDataKeyReusePeriodSeconds"} & attributes(sqs, url).keys()
    assert server.backend.machines[server.backend.queues["orders"].queue_id].settings.visibility_timeout_ms == 5_000


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("VisibilityTimeout", "43201", "InvalidAttributeValue"),
        ("VisibilityTimeout", "-1", "InvalidAttributeValue"),
        ("VisibilityTimeout", "1.5", "InvalidAttributeValue"),
        ("VisibilityTimeout", "", "InvalidAttributeValue"),
        ("VisibilityTimeout", "٣", "InvalidAttributeValue"),
        ("MaximumMessageSize", "1023", "InvalidAttributeValue"),
        ("MaximumMessageSize", "1048577", "InvalidAttributeValue"),
        ("MessageRetentionPeriod", "59", "InvalidAttributeValue"),
        ("ReceiveMessageWaitTimeSeconds", "21", "InvalidAttributeValue"),
        ("DelaySeconds", "901", "InvalidAttributeValue"),
        ("ShadowFactor", "7", "InvalidAttributeValue"),
        ("SqsManagedSseEnabled", "maybe", "InvalidAttributeValue"),
        ("Policy", "{", "InvalidAttributeValue"),
        ("Policy", "[" * 5_000, "InvalidAttributeValue"),
        ("Policy", '{"Statement": []}', "InvalidAttributeValue"),
        ("RedrivePolicy", "x", "InvalidAttributeValue"),
        ("RedrivePolicy", '{"maxReceiveCount": 3}', "InvalidParameterValue"),
        (
            "RedrivePolicy",
            '{"maxReceiveCount": 0, "deadLetterTargetArn": "arn:aws:sqs:r:0:q"}',
            "InvalidParameterValue",
        ),
        ("RedrivePolicy", '{"maxReceiveCount": 3, "deadLetterTargetArn": "dummy"}', "InvalidParameterValue"),
        (
            "RedrivePolicy",
            '{"maxReceiveCount": 3, "deadLetterTargetArn": "arn:aws:sqs:r:0:nowhere"}',
            "InvalidParameterValue",
        ),
        ("RedriveAllowPolicy", '{"redrivePermission": "sometimes"}', "InvalidAttributeValue"),
        ("RedriveAllowPolicy", '{"redrivePermission": "byQueue"}', "InvalidParameterValue"),
        ("FifoQueue", "true", "InvalidAttributeName"),
        ("ContentBasedDeduplication", "true", "InvalidAttributeName"),
        ("FifoThroughputLimit", "perQueue", "InvalidAttributeName"),
        ("QueueArn", "x", "InvalidAttributeName"),
        ("Nonsense", "x", "InvalidAttributeName"),
    ],
)
def test_values_that_sqs_refuses(sqs: Any, url: str, name: str, value: str, code: str) -> None:
    assert refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={name: value})[0] == code
    if name != "FifoQueue":
        assert refused(sqs.create_queue, QueueName="new", Attributes={name: value or "x"})[0] == code


def test_rules_between_attributes(sqs: Any, url: str) -> None:
    both = {"SqsManagedSseEnabled": "true", "KmsMasterKeyId": "k"}
    assert refused(sqs.set_queue_attributes, QueueUrl=url, Attributes=both) == (
        "InvalidAttributeName",
        "You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.",
    )
    fifo_url = sqs.create_queue(QueueName="a.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    high = {"FifoThroughputLimit": "perMessageGroupId"}
    assert refused(sqs.set_queue_attributes, QueueUrl=fifo_url, Attributes=high)[0] == "InvalidAttributeValue"
    sqs.set_queue_attributes(QueueUrl=fifo_url, Attributes=high | {"DeduplicationScope": "messageGroup"})
    assert refused(sqs.set_queue_attributes, QueueUrl=fifo_url, Attributes={"FifoQueue": "false"}) == (
        "InvalidAttributeValue",
        "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
    )
    redrive = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": ARN + "a.fifo", "maxReceiveCount": 3})}
    assert "same type" in refused(sqs.set_queue_attributes, QueueUrl=url, Attributes=redrive)[1]


def test_redrive_allow_policy(sqs: Any, url: str) -> None:
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    redrive = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": ARN + "dead", "maxReceiveCount": 3})}
    allow = {"redrivePermission": "denyAll"}
    sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": json.dumps(allow)})
    assert "not permitted" in refused(sqs.set_queue_attributes, QueueUrl=url, Attributes=redrive)[1]
    allow = {"redrivePermission": "byQueue", "sourceQueueArns": [ARN + "orders"]}
    sqs.set_queue_attributes(QueueUrl=dead, Attributes={"RedriveAllowPolicy": json.dumps(allow)})
    sqs.set_queue_attributes(QueueUrl=url, Attributes=redrive)
    assert "not permitted" in refused(sqs.create_queue, QueueName="third", Attributes=redrive)[1]
    assert sqs.list_dead_letter_source_queues(QueueUrl=dead)["queueUrls"] == [url]
    assert sqs.list_dead_letter_source_queues(QueueUrl=url).get("queueUrls", []) == []
    sqs.create_queue(QueueName="orders", Attributes={"RedrivePolicy": redrive["RedrivePolicy"].replace(" ", "")})


def test_shadow_factor(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="a", Attributes={"ShadowFactor": "1"})["QueueUrl"]
    assert attributes(sqs, url, "ShadowFactor") == {"ShadowFactor": "1"}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"ShadowFactor": "2"})
    assert attributes(sqs, url, "ShadowFactor") == {"ShadowFactor": "2"}
    sqs.tag_queue(QueueUrl=url, Tags={"shadowq:shadow-factor": "3"})
    assert attributes(sqs, url, "ShadowFactor") == {"ShadowFactor": "3"}
    four = "4 shadows need nodes in 5 regions; there are 4: a, b, c, d."
    code, message = refused(sqs.set_queue_attributes, QueueUrl=url, Attributes={"ShadowFactor": "4"})
    assert (code, four in message) == ("InvalidAttributeValue", True)
    code, message = refused(sqs.tag_queue, QueueUrl=url, Tags={"shadowq:shadow-factor": "4"})
    assert (code, four in message) == ("InvalidAttributeValue", True)
    assert attributes(sqs, url, "ShadowFactor") == {"ShadowFactor": "3"}
    url = sqs.create_queue(QueueName="b", tags={"shadowq:shadow-factor": "0"})["QueueUrl"]
    assert attributes(sqs, url, "ShadowFactor") == {"ShadowFactor": "0"}
    for value in ("7", "-1", "x", ""):
        assert (
            refused(sqs.create_queue, QueueName="c", tags={"shadowq:shadow-factor": value})[0]
            == "InvalidParameterValue"
        )
    assert refused(sqs.create_queue, QueueName="a", Attributes={"ShadowFactor": "0"})[0] == "QueueAlreadyExists"


def test_wishes_of_placement(sqs: Any) -> None:
    wishes = {"AllowedRegions": "c, a,b", "PreferredPrimaryRegion": "b", "Failback": "True"}
    kept = {"AllowedRegions": "a,b,c", "PreferredPrimaryRegion": "b", "Failback": "true"}
    url = sqs.create_queue(QueueName="a", Attributes=wishes)["QueueUrl"]
    assert attributes(sqs, url, *wishes) == kept
    again = {"AllowedRegions": "b,c,a"}
    assert sqs.create_queue(QueueName="a", Attributes=again)["QueueUrl"] == url
    other = {"AllowedRegions": "a,b,d"}
    assert refused(sqs.create_queue, QueueName="a", Attributes=other)[0] == "QueueAlreadyExists"
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"AllowedRegions": "", "PreferredPrimaryRegion": "d"})
    assert attributes(sqs, url, *wishes) == {"PreferredPrimaryRegion": "d", "Failback": "true"}
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"PreferredPrimaryRegion": "", "Failback": "false"})
    assert attributes(sqs, url, *wishes) == {"Failback": "false"}


def test_wishes_of_placement_as_tags(sqs: Any) -> None:
    names = ("AllowedRegions", "PreferredPrimaryRegion", "Failback")
    tags = {
        "shadowq:allowed-regions": "a b c",
        "shadowq:preferred-primary-region": "b",
        "shadowq:failback": "true",
    }
    url = sqs.create_queue(QueueName="a", tags=tags)["QueueUrl"]
    assert attributes(sqs, url, *names) == dict(zip(names, ("a,b,c", "b", "true"), strict=True))
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == tags
    assert refused(sqs.create_queue, QueueName="a", tags={"shadowq:preferred-primary-region": "c"})[0] == (
        "QueueAlreadyExists"
    )
    sqs.tag_queue(QueueUrl=url, Tags={"shadowq:preferred-primary-region": "c"})
    assert attributes(sqs, url, *names) == dict(zip(names, ("a,b,c", "c", "true"), strict=True))
    sqs.untag_queue(QueueUrl=url, TagKeys=list(tags))
    assert attributes(sqs, url, *names) == {"Failback": "false"}
    both = sqs.create_queue(QueueName="b", tags=tags, Attributes={"PreferredPrimaryRegion": "a"})["QueueUrl"]
    assert attributes(sqs, both, "PreferredPrimaryRegion") == {"PreferredPrimaryRegion": "a"}


THRESHOLDS = {
    "PromotionMessageRate": "300",
    "PromotionAckLatencyMs": "150",
    "PromotionCpuPercent": "60",
    "PromotionDiskFreePercent": "20",
}


def test_thresholds_of_promotion(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="a", Attributes=THRESHOLDS)["QueueUrl"]
    assert attributes(sqs, url, *THRESHOLDS) == THRESHOLDS
    changed = {"PromotionMessageRate": "0", "PromotionCpuPercent": ""}
    sqs.set_queue_attributes(QueueUrl=url, Attributes=changed)
    kept = {"PromotionMessageRate": "0", "PromotionAckLatencyMs": "150", "PromotionDiskFreePercent": "20"}
    assert attributes(sqs, url, *THRESHOLDS) == kept


def test_thresholds_of_promotion_as_tags(sqs: Any) -> None:
    tags = {tag: THRESHOLDS[name] for tag, name in TAGS.items() if name in THRESHOLDS}
    assert len(tags) == len(THRESHOLDS)
    url = sqs.create_queue(QueueName="a", tags=tags)["QueueUrl"]
    assert attributes(sqs, url, *THRESHOLDS) == THRESHOLDS
    sqs.tag_queue(QueueUrl=url, Tags={"shadowq:promotion-message-rate": "0", "shadowq:promotion-cpu-percent": ""})
    changed = {"PromotionMessageRate": "0", "PromotionAckLatencyMs": "150", "PromotionDiskFreePercent": "20"}
    assert attributes(sqs, url, *THRESHOLDS) == changed
    sqs.untag_queue(QueueUrl=url, TagKeys=list(tags))
    assert attributes(sqs, url, *THRESHOLDS) == {}


def test_tags_that_only_look_like_ours_are_refused(sqs: Any, url: str) -> None:
    slip = {"shadowq:shadowfactor": "4"}
    for operation, parameters in (
        (sqs.create_queue, {"QueueName": "other", "tags": slip}),
        (sqs.tag_queue, {"QueueUrl": url, "Tags": slip}),
    ):
        code, message = refused(operation, **parameters)
        assert code.startswith("Invalid")
        assert "There is no tag shadowq:shadowfactor; there are shadowq:shadow-factor, " in message


@pytest.mark.parametrize(
    ("wishes", "reason"),
    [
        ({"PromotionMessageRate": "-1"}, "Must be an integer from 0 to 1000000"),
        ({"PromotionAckLatencyMs": "60001"}, "Must be an integer from 0 to 60000"),
        ({"PromotionCpuPercent": "100"}, "Must be an integer from 0 to 99"),
        ({"PromotionDiskFreePercent": "half"}, "Must be an integer from 0 to 99"),
        ({"AllowedRegions": "a,b,e"}, "No node is in e; there are nodes in a, b, c, d"),
        ({"PreferredPrimaryRegion": "e"}, "No node is in e"),
        ({"PreferredPrimaryRegion": "a,b"}, "names 2 regions, and the maximum is 1"),
        ({"AllowedRegions": "a,b,/"}, "/ is not a region's name"),
        ({"AllowedRegions": "a,b"}, "ShadowFactor 2 needs 3 regions, and 2 are named"),
        ({"AllowedRegions": "a,b,c", "PreferredPrimaryRegion": "d"}, "d is not among AllowedRegions: a, b, c"),
        ({"Failback": "perhaps"}, "Must be one of true, false"),
    ],
)
def test_wishes_that_cannot_be_had_are_refused(sqs: Any, url: str, wishes: dict[str, str], reason: str) -> None:
    tags = {tag: wishes[name] for tag, name in TAGS.items() if name in wishes}
    for operation, parameters, code in (
        (sqs.create_queue, {"QueueName": "other", "Attributes": wishes}, "InvalidAttributeValue"),
        (sqs.set_queue_attributes, {"QueueUrl": url, "Attributes": wishes}, "InvalidAttributeValue"),
        (sqs.create_queue, {"QueueName": "other", "tags": tags}, "Invalid"),
        (sqs.tag_queue, {"QueueUrl": url, "Tags": tags}, "Invalid"),
    ):
        said = refused(operation, **parameters)
        assert said[0].startswith(code)
        assert reason in said[1]


def test_tags(sqs: Any, url: str) -> None:
    assert "Tags" not in sqs.list_queue_tags(QueueUrl=url)
    sqs.tag_queue(QueueUrl=url, Tags={"a": "1", "b": "", "é <&>": "x y"})
    sqs.tag_queue(QueueUrl=url, Tags={"a": "2"})
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"a": "2", "b": "", "é <&>": "x y"}
    sqs.untag_queue(QueueUrl=url, TagKeys=["b", "none", "é <&>"])
    assert sqs.list_queue_tags(QueueUrl=url)["Tags"] == {"a": "2"}
    for tags in (
        {"": "x"},
        {"aws:x": "y"},
        {"k" * 129: "x"},
        {"k": "v" * 257},
        {str(number): "" for number in range(51)},
    ):
        assert refused(sqs.tag_queue, QueueUrl=url, Tags=tags)[0] == "InvalidParameterValue"


def test_permissions_edit_the_policy(sqs: Any, url: str) -> None:
    add = {"QueueUrl": url, "AWSAccountIds": ["123456789012"], "Actions": ["ReceiveMessage"]}
    sqs.add_permission(**add, Label="one")
    accounts, actions = ["123456789012", "210987654321"], ["SendMessage", "*"]
    sqs.add_permission(QueueUrl=url, Label="two", AWSAccountIds=accounts, Actions=actions)
    policy = json.loads(attributes(sqs, url, "Policy")["Policy"])
    assert policy["Id"] == ARN + "orders/SQSDefaultPolicy"
    assert policy["Statement"] == [
        {
            "Sid": "one",
            "Effect": "Allow",
            "Principal": {"AWS": "arn:aws:iam::123456789012:root"},
            "Action": "SQS:ReceiveMessage",
            "Resource": ARN + "orders",
        },
        {
            "Sid": "two",
            "Effect": "Allow",
            "Principal": {"AWS": [f"arn:aws:iam::{account}:root" for account in accounts]},
            "Action": ["SQS:SendMessage", "SQS:*"],
            "Resource": ARN + "orders",
        },
    ]
    invalid = "InvalidParameterValue"
    assert refused(sqs.add_permission, **add, Label="one") == (
        invalid,
        "Value one for parameter Label is invalid. Reason: Already exists.",
    )
    assert refused(sqs.add_permission, **add | {"Actions": ["Fly"]}, Label="x")[0] == invalid
    assert refused(sqs.add_permission, **add | {"Actions": ["SendMessage"] * 8}, Label="x")[0] == "OverLimit"
    assert refused(sqs.add_permission, **add | {"AWSAccountIds": ["12"]}, Label="x")[0] == invalid
    sqs.remove_permission(QueueUrl=url, Label="one")
    assert refused(sqs.remove_permission, QueueUrl=url, Label="one") == (
        invalid,
        "Value one for parameter Label is invalid. Reason: can't find label.",
    )
    sqs.remove_permission(QueueUrl=url, Label="two")
    assert "Policy" not in attributes(sqs, url)


@pytest.mark.parametrize("protocol", ["json", "query"])
def test_public_url_and_name_reuse(serve: Callable[..., Any], connect: Callable[..., Any], protocol: str) -> None:
    server = serve(
        SqsConfig(
            region="eu-north-1", account="123456789012", public_url="https://q.example.com/", name_reuse_seconds=60
        )
    )
    sqs = connect(server, protocol)
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    assert url == "https://q.example.com/123456789012/orders"
    assert attributes(sqs, server.url_of("orders"), "QueueArn") == {
        "QueueArn": "arn:aws:sqs:eu-north-1:123456789012:orders"
    }
    assert refused(sqs.get_queue_url, QueueName="orders", QueueOwnerAWSAccountId="999999999999")[0].endswith(
        "NonExistentQueue"
    )
    sqs.delete_queue(QueueUrl=server.url_of("orders"))
    code, message = refused(sqs.create_queue, QueueName="orders")
    assert code == "AWS.SimpleQueueService.QueueDeletedRecently"
    assert "60 seconds" in message
    server.backend.now_ms += 60_000
    sqs.create_queue(QueueName="orders")


def test_a_queue_that_the_cache_does_not_have_yet(server: Any, sqs: Any, url: str) -> None:
    server.backend.hidden.add("orders")
    sqs.send_message(QueueUrl=url, MessageBody="x")


def test_a_sealed_namesake_in_the_cache(server: Any, sqs: Any, url: str) -> None:
    """Between the seal and the burial of a queue its machine still answers, with a refusal."""
    old = server.backend.queues["orders"]
    machine = server.backend.machines[old.queue_id]
    sqs.delete_queue(QueueUrl=url)
    server.backend.machines[old.queue_id] = machine
    server.backend.seal(old)
    server.backend.stale["orders"] = old
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.send_message(QueueUrl=url, MessageBody="x")
    server.backend.stale.clear()
    sqs.create_queue(QueueName="orders")
    server.backend.stale["orders"] = old
    sqs.send_message(QueueUrl=url, MessageBody="x")


def test_a_deleted_namesake_in_the_cache(server: Any, sqs: Any, url: str) -> None:
    old = server.backend.queues["orders"]
    sqs.send_message(QueueUrl=url, MessageBody="x")
    handle = sqs.receive_message(QueueUrl=url)["Messages"][0]["ReceiptHandle"]
    sqs.delete_queue(QueueUrl=url)
    sqs.create_queue(QueueName="orders")
    server.backend.stale["orders"] = old
    sent = sqs.send_message(QueueUrl=url, MessageBody="new")
    with pytest.raises(sqs.exceptions.QueueDoesNotExist):
        sqs.delete_message(QueueUrl=url, ReceiptHandle=handle)
    (message,) = sqs.receive_message(QueueUrl=url)["Messages"]
    assert message["MessageId"] == sent["MessageId"]
    server.backend.stale.clear()
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert refused(sqs.delete_message, QueueUrl=url, ReceiptHandle=handle)[0] == "ReceiptHandleIsInvalid"
