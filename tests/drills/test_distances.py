"""Five regions, 0, 35, 80, 150 and 220 ms out on a line: what managers measure, and where queues are put for it.

What is asserted of time are orders, far enough apart for a busy machine.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import combinations, permutations
from typing import Any

import pytest

from distribution_manager.cli import main
from distribution_manager.drills import probes
from distribution_manager.drills.relay import ways_on_a_line
from distribution_manager.drills.relayed import RelayedCluster
from distribution_manager.drills.workload import make_client
from tests import waiting

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PLACES_MS = {"r0": 0, "r35": 35, "r80": 80, "r150": 150, "r220": 220}
KNOWN_WITHIN_S = 60.0
wait_for = partial(waiting.wait_for, within_s=KNOWN_WITHIN_S)
SENDS = 15
SENDERS = 8
CALLS_EACH = 10
KNOWN_OPERATIONS = 150
"""More than FOLLOW_WEIGHT_MIN of promotion.py, older ones counting less."""
APART_MS = 30
"""Regions whose distances differ by less are not compared."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayedCluster]:
    """Every manager has come to know how far all regions are apart."""
    data = tmp_path_factory.mktemp("cluster")
    with RelayedCluster(data, ways_on_a_line(PLACES_MS), regions=PLACES_MS) as running:
        deadline = time.monotonic() + KNOWN_WITHIN_S
        for region in PLACES_MS:
            while (wrong := misjudged(measured(running, region))) is not None:
                assert time.monotonic() < deadline, f"{region} does not know {wrong}: {measured(running, region)}"
                time.sleep(0.1)
        yield running


def misjudged(report: dict[str, Any]) -> tuple[str, ...] | None:
    """What a manager does not know yet, or has in the wrong order; a process that starts measures itself, too."""
    known = {tuple(pair["regions"]): pair.get("round_trip_ms", 0) for pair in report["pairs"] if pair["links"] == 4}
    for one, other in combinations(sorted(PLACES_MS), 2):
        if (one, other) not in known:
            return (one, other)
    for here, place_ms in PLACES_MS.items():
        away_ms = {other: abs(place_ms - other_ms) for other, other_ms in PLACES_MS.items() if other != here}
        found_ms = {other: known[min(here, other), max(here, other)] for other in away_ms}
        for near, far in permutations(away_ms, 2):
            if away_ms[far] - away_ms[near] >= APART_MS and found_ms[near] >= found_ms[far]:
                return (here, near, far)
    return None


def measured(cluster: RelayedCluster, region: str) -> dict[str, Any]:
    report: dict[str, Any] = cluster.ask(f"manager-{region}", "/admin/latency", 5.0)
    return report


def explained(cluster: RelayedCluster, region: str, queue: str) -> dict[str, Any]:
    report: dict[str, Any] = cluster.ask(f"manager-{region}", f"/admin/explain?queue={queue}", 5.0)
    return report


def created(cluster: RelayedCluster, region: str, name: str, **attributes: str) -> tuple[Any, str]:
    """A client of the region, and the queue's URL."""
    client = make_client(cluster.endpoints[region])
    return client, client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]


def place(cluster: RelayedCluster, queue: str) -> list[str]:
    """The queue's regions, the primary's first."""
    # created elsewhere, this manager may not have heard of it yet
    (report,) = wait_for(lambda: cluster.ask("manager-r0", f"/admin/status?queue={queue}", 5.0)["queues"])
    return [node.removeprefix("node-") for node in (report["primary"], *report["shadows"])]


@pytest.mark.parametrize("region", PLACES_MS)
def test_every_manager_knows_the_distances_of_all_regions(cluster: RelayedCluster, region: str) -> None:
    """None can be shorter than the relay makes it; that they come to be in order, the cluster above has waited for."""
    known = {tuple(pair["regions"]): pair["round_trip_ms"] for pair in measured(cluster, region)["pairs"]}
    assert len(known) == 10
    for (one, other), round_trip_ms in known.items():
        assert round_trip_ms >= abs(PLACES_MS[one] - PLACES_MS[other]), (one, other)


@pytest.mark.parametrize(("region", "nearest"), [("r0", "r35"), ("r220", "r150")])
def test_a_queue_is_put_next_to_its_creator_and_a_shadow_is_the_nearest(
    cluster: RelayedCluster, region: str, nearest: str
) -> None:
    """The other shadow makes no quorum; which it is, is a matter of a few milliseconds."""
    created(cluster, region, f"chosen-{region}")
    regions = place(cluster, f"chosen-{region}")
    assert regions[0] == region
    assert nearest in regions


def test_wishes_go_before_distances_and_explain_says_so(
    cluster: RelayedCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    client, url = created(cluster, "r0", "wishing", AllowedRegions="r0,r80,r150,r220", PreferredPrimaryRegion="r150")
    regions = place(cluster, "wishing")
    assert regions[0] == "r150"
    assert set(regions) < {"r0", "r80", "r150", "r220"}
    for _ in range(SENDS):
        client.send_message(QueueUrl=url, MessageBody="x")
    assert place(cluster, "wishing") == regions
    report = explained(cluster, "r35", "wishing")
    assert report["answered_by"] == "manager-r150"
    assert report["clients"] == {"r0": 1.0}
    current = [row for row in report["candidates"] if row["current"]]
    assert [row["primary"] for row in current] == ["node-r150"]
    assert {row["primary"] for row in report["candidates"] if row["preferred"]} == {"node-r150"}
    assert report["not_candidates"] == [
        {"node": "node-r35", "region": "r35", "why": "its region is not among AllowedRegions"}
    ]
    assert main(["explain", "wishing", "--data", str(cluster.data_dir)]) == 0
    text = capsys.readouterr().out
    assert "PreferredPrimaryRegion: r150" in text
    assert "node-r35" in text
    assert main(["latency", "--all", "--data", str(cluster.data_dir)]) == 0
    assert "manager-r220" in capsys.readouterr().out
    assert main(["explain", "nowhere", "--data", str(cluster.data_dir)]) == 1
    assert "there is no queue 'nowhere'" in capsys.readouterr().err


def test_an_acknowledgement_takes_as_long_as_the_quorum_not_as_the_slowest(cluster: RelayedCluster) -> None:
    """Replicas at 0, 35 and 220 ms: a send is acknowledged by the first two."""
    client, url = created(cluster, "r0", "far", AllowedRegions="r0,r35,r220", PreferredPrimaryRegion="r0")
    times_ms = []
    for _ in range(SENDS):
        began = time.perf_counter()
        client.send_message(QueueUrl=url, MessageBody="x")
        times_ms.append((time.perf_counter() - began) * 1000)
    assert sorted(place(cluster, "far")) == ["r0", "r220", "r35"]
    assert 35 <= min(times_ms) < 150


def test_shadows_have_the_primarys_configuration(cluster: RelayedCluster) -> None:
    """All of it, access policy included, is the queue's, not a replica's: whichever becomes primary goes on with it."""
    statement = {"Sid": "s", "Effect": "Allow", "Principal": "*", "Action": "sqs:SendMessage", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    wanted = {"VisibilityTimeout": "7", "MessageRetentionPeriod": "1234", "Policy": policy, "ShadowFactor": "2"}
    client, url = created(cluster, "r0", "mirrored", **wanted)
    client.send_message(QueueUrl=url, MessageBody="x")
    names = [*wanted, "AllowedRegions", "Failback"]
    before = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert wanted.items() <= before.items()
    cluster.promote("mirrored", "r80")
    for region, endpoint in cluster.endpoints.items():
        other = make_client(endpoint)
        url = other.get_queue_url(QueueName="mirrored")["QueueUrl"]
        assert other.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"] == before, region
    (message,) = other.receive_message(QueueUrl=url, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "x"
    assert place(cluster, "mirrored")[0] == "r80"


def test_a_failed_primarys_successor_is_where_the_clients_are(cluster: RelayedCluster) -> None:
    """r35 is nearest to the owner in r0, but the clients are in r220. No call fails, and the owner follows."""
    created(cluster, "r0", "followed", AllowedRegions="r0,r35,r220")
    assert place(cluster, "followed")[0] == "r0"
    killed = threading.Event()

    def send(number: int) -> int:
        """Until a while after the kill. How many were sent: one that fails raises."""
        client = make_client(cluster.endpoints["r220"])
        url = client.get_queue_url(QueueName="followed")["QueueUrl"]
        sent = 0
        while not killed.is_set() or sent % CALLS_EACH:
            client.send_message(QueueUrl=url, MessageBody=f"{number}.{sent}")
            sent += 1
        return sent

    with ThreadPoolExecutor(SENDERS) as senders:
        sending = [senders.submit(send, number) for number in range(SENDERS)]
        try:
            wait_for(lambda: explained(cluster, "r0", "followed")["clients"].get("r220", 0) > 0.9)
            wait_for(lambda: operations(cluster, "manager-r0", "followed") > KNOWN_OPERATIONS)
            cluster.kill("node-r0")
            wait_for(lambda: home(cluster, "followed") == ("node-r220", "manager-r220"))
        finally:
            killed.set()
            cluster.restart("node-r0")
        sent = sum(done.result() for done in sending)
    client = make_client(cluster.endpoints["r220"])
    url = client.get_queue_url(QueueName="followed")["QueueUrl"]
    names = ["ApproximateNumberOfMessages"]
    held = client.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    assert int(held["ApproximateNumberOfMessages"]) == sent


def home(cluster: RelayedCluster, queue: str) -> tuple[str, str]:
    report = cluster.ask("manager-r35", f"/admin/status?queue={queue}", 5.0)["queues"][0]
    return report["primary"], report["owner"]


def operations(cluster: RelayedCluster, manager: str, queue: str) -> float:
    """How many its owner has counted."""
    shard = cluster.ask(manager, f"/admin/status?queue={queue}", 5.0)["queues"][0]["shards"][0]["shard"]
    answer = probes.get(cluster.member(manager).ports["link"], "/metrics", 5.0)
    assert answer is not None
    counts = [
        float(line.rpartition(" ")[2])
        for line in answer[1].decode().splitlines()
        if line.startswith(f'shadowq_shard_operations_total{{shard="{shard}"}}')
    ]
    return sum(counts)
