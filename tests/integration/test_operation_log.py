"""``shadowq log`` and ``shadowq replay`` on real processes: two keys, takeovers, a promotion, deaths, interruptions."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from distribution_manager.drills.commands import Commands
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.state import ClusterState, Member
from tests.waiting import wait_for

pytestmark = pytest.mark.cluster

REGIONS = ["near", "far", "away"]
WAIT_S = 60.0
until = partial(wait_for, within_s=WAIT_S)
Pair = tuple[str, str]
Record = dict[str, Any]


class GuardedCommands(Commands):
    """Managers that ask for signatures."""

    def manager(self, state: ClusterState, member: Member, data_dir: Path) -> list[str]:
        return [*super().manager(state, member, data_dir), "--require-auth"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    data = tmp_path_factory.mktemp("oplog")
    with LocalCluster(data, regions=REGIONS, port=0, commands=GuardedCommands()) as cluster:
        yield cluster


def command(cluster: LocalCluster, name: str, *arguments: object) -> list[str]:
    program = [sys.executable, "-m", "distribution_manager"]
    return [*program, *name.split(), *map(str, arguments), "--data", str(cluster.data_dir)]


def shadowq(cluster: LocalCluster, name: str, *arguments: object) -> str:
    done = subprocess.run(
        command(cluster, name, *arguments), capture_output=True, text=True, timeout=WAIT_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def log(cluster: LocalCluster, queue: str, *arguments: object) -> list[Record]:
    return [json.loads(line) for line in shadowq(cluster, "log", queue, "--json", *arguments).splitlines()]


@pytest.fixture(scope="module")
def keys(cluster: LocalCluster) -> tuple[Pair, Pair]:
    pairs = []
    for user in ("alice", "bob"):
        match = re.fullmatch(
            r"aws_access_key_id = (\w+)\naws_secret_access_key = (\S+)\n", shadowq(cluster, "keys create", user)
        )
        assert match
        pairs.append((match[1], match[2]))
    for region in REGIONS:
        for pair in pairs:
            until(lambda region=region, pair=pair: usable(client(cluster, pair, region)))
    return pairs[0], pairs[1]


def usable(sqs: Any) -> bool:
    try:
        sqs.list_queues()
    except sqs.exceptions.ClientError:
        return False
    return True


def client(cluster: LocalCluster, pair: Pair, region: str) -> Any:
    return boto3.client(
        "sqs",
        endpoint_url=cluster.endpoints[region],
        region_name="us-east-1",
        aws_access_key_id=pair[0],
        aws_secret_access_key=pair[1],
        config=Config(retries={"max_attempts": 3, "mode": "standard"}),
    )


def test_who_what_where_and_why_through_a_promotion_and_a_takeover(
    cluster: LocalCluster, keys: tuple[Pair, Pair]
) -> None:
    alice, bob = client(cluster, keys[0], "near"), client(cluster, keys[1], "away")
    url = alice.create_queue(QueueName="orders")["QueueUrl"]
    until(lambda: "orders" in str(bob.list_queues()))
    first = alice.send_message(QueueUrl=url, MessageBody="one")["MessageId"]
    second = bob.send_message(QueueUrl=url, MessageBody="two")["MessageId"]
    (held,) = bob.receive_message(QueueUrl=url, MaxNumberOfMessages=1)["Messages"]
    shadowq(cluster, "promote", "orders", "--to", "far")
    third = alice.send_message(QueueUrl=url, MessageBody="three")["MessageId"]
    cluster.kill("manager-far")
    try:
        bob.delete_message(QueueUrl=url, ReceiptHandle=held["ReceiptHandle"])
        until(lambda: any(one["operation"] == "delete" for one in log(cluster, "orders")))
        found = log(cluster, "orders")
    finally:
        cluster.restart("manager-far")

    clients = [one for one in found if one["region"] and one["result"] != "repeated"]
    asked = [(one["operation"], one["key"], one["region"], one["epoch"], one["result"]) for one in clients]
    assert asked == [
        ("send", keys[0][0], "near", 1, "ok"),
        ("send", keys[1][0], "away", 1, "ok"),
        ("receive", keys[1][0], "away", 1, "ok"),
        ("send", keys[0][0], "near", 2, "ok"),
        ("delete", keys[1][0], "away", 3, "ok"),
    ]
    sends = [message["id"] for one in found if one["operation"] == "send" for message in one["messages"]]
    assert sends == [first, second, third]
    (received,) = (one for one in found if one["operation"] == "receive")
    assert [one["id"] for one in received["given"]] == [held["MessageId"]]
    takeovers = [(one["epoch"], one["owner"], one["cause"]) for one in found if one["operation"] == "takeover"]
    assert takeovers[0] == (1, "manager-near", "created")
    assert takeovers[1] == (2, "manager-far", "handoff")
    assert (takeovers[2][0], takeovers[2][2]) == (3, "owner gone")
    promotions = [(one["primary"], one["cause"]) for one in found if one["operation"] == "promotion"]
    assert promotions in ([("node-far", "by hand")], []), "it may have been primary from the beginning"
    assert [one["seq"] for one in found] == sorted(one["seq"] for one in found)
    assert not any("body" in message for one in found for message in one.get("messages", []))
    seqs = sorted({one["seq"] for one in found})
    assert sorted({one["seq"] for one in log(cluster, "orders", "--from", seqs[2], "--to", seqs[4])}) == seqs[2:5]
    assert log(cluster, "orders", "--since", found[-1]["time"])[0]["seq"] == found[-1]["seq"]


def test_following_goes_on_when_nodes_and_managers_die(cluster: LocalCluster, keys: tuple[Pair, Pair]) -> None:
    sqs = client(cluster, keys[0], "away")
    url = sqs.create_queue(QueueName="followed")["QueueUrl"]
    sent: list[str] = []
    seen: list[str] = []

    def send(count: int) -> None:
        sent.extend(sqs.send_message(QueueUrl=url, MessageBody="m")["MessageId"] for _ in range(count))

    send(5)
    follower = subprocess.Popen(
        command(cluster, "log", "followed", "--json", "--follow"), stdout=subprocess.PIPE, text=True
    )

    def read() -> None:
        assert follower.stdout is not None
        with follower.stdout:
            for line in follower.stdout:
                record = json.loads(line)
                if record["operation"] == "send" and record["result"] != "repeated":
                    seen.extend(message["id"] for message in record["messages"])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        until(lambda: seen == sent)
        for victim in ("node-near", "node-far", "manager-near"):
            cluster.kill(victim)
            send(5)
            until(lambda: seen == sent)
            cluster.restart(victim)
    finally:
        follower.terminate()
        follower.wait(WAIT_S)
        reader.join(WAIT_S)
    assert seen == sent


def receive_all(sqs: Any, url: str) -> list[Record]:
    found: list[Record] = []
    while messages := sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
    ).get("Messages"):
        found += messages
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def test_a_standard_queue_once_more_whole(cluster: LocalCluster, keys: tuple[Pair, Pair]) -> None:
    """Interrupted halfway and gone on with, twice over: every message is there once, with what it had."""
    sqs = client(cluster, keys[0], "near")
    url = sqs.create_queue(QueueName="source")["QueueUrl"]
    target = sqs.create_queue(QueueName="target")["QueueUrl"]
    for batch in range(6):
        entries = [
            {
                "Id": str(place),
                "MessageBody": f"{batch} {place} é",
                "MessageAttributes": {"place": {"DataType": "Number", "StringValue": str(place)}},
            }
            for place in range(10)
        ]
        assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
    sent = receive_all(sqs, url)
    assert len(sent) == 60
    shadowq(cluster, "replay", "source", "--into", "target", "--dry-run")
    slow = subprocess.Popen(
        command(cluster, "replay", "source", "--into", "target", "--rate", 8), stderr=subprocess.PIPE, text=True
    )
    names = ["ApproximateNumberOfMessages"]
    until(lambda: int(sqs.get_queue_attributes(QueueUrl=target, AttributeNames=names)["Attributes"][names[0]]) >= 10)
    slow.send_signal(2)
    _, said = slow.communicate(timeout=WAIT_S)
    match = re.search(r"go on with: shadowq (replay .*)", said)
    assert match, said
    for _ in range(2):
        shadowq(cluster, *match[1].split())
    found = receive_all(sqs, target)

    def essence(messages: list[Record]) -> list[Record]:
        wanted = ("MessageId", "Body", "MD5OfMessageAttributes", "MessageAttributes")
        return sorted(({name: one[name] for name in wanted} for one in messages), key=lambda one: one["MessageId"])

    assert essence(found) == essence(sent)


def test_a_fifo_queue_once_more_in_order(cluster: LocalCluster, keys: tuple[Pair, Pair]) -> None:
    sqs = client(cluster, keys[0], "far")
    attributes = {"FifoQueue": "true"}
    url = sqs.create_queue(QueueName="source.fifo", Attributes=attributes)["QueueUrl"]
    target = sqs.create_queue(QueueName="target.fifo", Attributes=attributes)["QueueUrl"]
    for number in range(30):
        for _ in range(1 + number % 2):  # every other one is sent twice: once is a duplicate
            sqs.send_message(
                QueueUrl=url,
                MessageBody=str(number),
                MessageGroupId=str(number % 3),
                MessageDeduplicationId=f"d{number}",
            )
    sent = receive_all(sqs, url)
    assert shadowq(cluster, "replay", "source.fifo", "--into", "target.fifo").startswith("30 messages are in")
    found = receive_all(sqs, target)

    def by_group(messages: list[Record]) -> dict[str, list[tuple[str, str, str]]]:
        groups: dict[str, list[tuple[str, str, str]]] = {}
        for one in messages:
            own = one["Attributes"]
            row = (one["MessageId"], one["Body"], own["MessageDeduplicationId"])
            groups.setdefault(own["MessageGroupId"], []).append(row)
        return groups

    assert sorted(int(body) for rows in by_group(found).values() for _, body, _ in rows) == list(range(30))
    assert by_group(found) == by_group(sent)


def test_what_cannot_be_done_is_said_in_a_line(cluster: LocalCluster, keys: tuple[Pair, Pair]) -> None:
    sqs = client(cluster, keys[0], "near")
    sqs.create_queue(QueueName="plain")
    sqs.create_queue(QueueName="ordered.fifo", Attributes={"FifoQueue": "true"})
    sqs.create_queue(QueueName="unused")
    for arguments, text in (
        (("log", "nosuch"), "there is no queue 'nosuch'"),
        (("replay", "plain", "--into", "plain"), "into itself"),
        (("replay", "plain", "--into", "ordered.fifo"), "FIFO"),
        (("replay", "plain", "--into", "nosuch"), "create it first"),
    ):
        done = subprocess.run(command(cluster, *arguments), capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
        assert text in done.stderr
    sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName="plain")["QueueUrl"], MessageBody="x")
    beyond = command(cluster, "log", "plain", "--from", "999999")
    done = subprocess.run(beyond, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == "shadowq: the log of plain has nothing in this range\n"
    unused = command(cluster, "log", "unused")
    done = subprocess.run(unused, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr == "shadowq: the log of unused has nothing in this range\n"
