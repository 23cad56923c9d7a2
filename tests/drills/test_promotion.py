"""Promotions by load and drains of real processes, regions apart, under load of which every message is judged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distribution_manager.cli import main
from distribution_manager.drills import faults
from distribution_manager.drills.checkers import check
from distribution_manager.drills.history import Recorder
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.relay import Way, way_name
from distribution_manager.drills.relayed import RelayedCluster
from distribution_manager.drills.workload import make_client
from tests.drills.lean import LeanWorkload, Rate

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

HERE, THERE, FAR = REGIONS = ("us-east-1", "eu-west-1", "ap-southeast-1")
WAYS = {
    way_name(HERE, THERE): Way(round_trip_ms=35),
    way_name(HERE, FAR): Way(round_trip_ms=80),
    way_name(THERE, FAR): Way(round_trip_ms=60),
}
SETTINGS = (
    "--promotion-window-s=2",
    "--promotion-after-s=4",
    "--promotion-horizon-s=20",
    "--promotion-cooldown-s=300",
    "--promotion-cpu-percent=0",
    "--promotion-disk-free-percent=0",
)
OPERATIONS_MIN = 50_000
CALM_S, RAMP_S, HIGH_S = 10.0, 40.0, 10.0
CALM, PEAK, THRESHOLD = 60.0, 720.0, 500
"""Messages a second."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    path = tmp_path_factory.mktemp("cluster")
    with RelayedCluster(path, WAYS, regions=REGIONS, manager_settings=SETTINGS) as running:
        yield running


def create(cluster: LocalCluster, queue: str, **attributes: str) -> None:
    client = make_client(cluster.endpoints[HERE])
    client.create_queue(QueueName=queue, Attributes=attributes)
    client.close()


def drill(
    cluster: LocalCluster,
    queue: str,
    path: Path,
    rates: dict[str, Rate],
    *,
    duration_s: float,
    meanwhile: Callable[[], object],
) -> dict[str, int]:
    """Under load: every message is reconciled, no operation has failed, replicas are equal. What was counted."""
    recorder = Recorder(path / "history.jsonl")
    workload = LeanWorkload(cluster.endpoints, queue, rates, {HERE: 3, THERE: 3, FAR: 1}, recorder)
    with contextlib.closing(recorder):
        drained = asyncio.run(workload.run(duration_s, meanwhile))
    verdict = check(recorder.history())
    print(f"{verdict}; {workload.calls} calls")
    assert workload.errors == []
    assert verdict.verdict == "valid", f"{verdict}\n(history: {path}/history.jsonl)"
    assert drained
    found = faults.settled_digests(cluster, len(REGIONS))
    assert not faults.differing(found, len(REGIONS))
    return verdict.counts


def test_a_regions_load_promotes_before_its_peak(cluster: LocalCluster, tmp_path: Path) -> None:
    """The load of clients in eu-west-1 rises over the threshold of a queue whose primary is in us-east-1."""
    create(cluster, "orders", PromotionMessageRate=str(THRESHOLD))
    assert faults.region_of(cluster, faults.primary_of(cluster, "orders")) == HERE
    seen_s: list[float] = []
    began_s = time.monotonic()

    def ramp(passed_s: float) -> float:
        share = (passed_s - CALM_S) / RAMP_S
        return CALM + (PEAK - CALM) * min(1.0, max(0.0, share))

    def watch() -> None:
        while not seen_s and time.monotonic() < began_s + CALM_S + RAMP_S + HIGH_S:
            state = faults.queue_status(cluster, "orders")
            if faults.region_of(cluster, str(state["primary"])) == THERE and state["owner"] == f"manager-{THERE}":
                seen_s.append(time.monotonic() - began_s)
            time.sleep(0.2)

    duration_s = CALM_S + RAMP_S + HIGH_S
    rates: dict[str, Rate] = {HERE: lambda _: CALM, THERE: ramp}
    counts = drill(cluster, "orders", tmp_path, rates, duration_s=duration_s, meanwhile=watch)
    print(f"promoted {seen_s} s after the beginning; the peak is at {CALM_S + RAMP_S} s; {counts}")
    assert seen_s
    assert seen_s[0] < CALM_S + RAMP_S, "not before the peak"
    assert sum(counts[kind] for kind in ("sends", "deliveries", "deletes")) >= OPERATIONS_MIN
    lines = [json.loads(line) for line in cluster.log_path(f"manager-{HERE}").read_text().splitlines()]
    begun = [line for line in lines if line.get("cause") == "load" and "begun" in line["msg"]]
    assert len(begun) == 1
    assert f"threshold {THRESHOLD}" in begun[0]["msg"]
    print(begun[0]["msg"])


def test_a_region_is_drained_under_load_and_then_killed(
    cluster: LocalCluster, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    create(cluster, "drained", PromotionMessageRate="0")
    create(cluster, "unused")
    said: list[str] = []

    def drain() -> None:
        time.sleep(3)
        assert main(["drain", HERE, "--data", str(cluster.data_dir)]) == 0
        said.append(capsys.readouterr().out)
        for queue in ("drained", "unused"):
            state = faults.queue_status(cluster, queue)
            assert HERE not in {faults.region_of(cluster, state["primary"]), faults.region_of(cluster, state["owner"])}
        time.sleep(3)

    drill(cluster, "drained", tmp_path, dict.fromkeys(REGIONS, lambda _: 60.0), duration_s=12, meanwhile=drain)
    assert "safe to stop" in said[0]
    left = {region: url for region, url in cluster.endpoints.items() if region != HERE}
    members = (f"node-{HERE}", f"manager-{HERE}")
    recorder = Recorder(tmp_path / "after.jsonl")
    workload = LeanWorkload(left, "drained", dict.fromkeys(left, lambda _: 60.0), dict.fromkeys(left, 2), recorder)
    with contextlib.closing(recorder):
        assert asyncio.run(workload.run(8, lambda: cluster.kill(*members)))
    assert workload.errors == []
    assert check(recorder.history()).verdict == "valid"
    assert main(["drain", THERE, "--data", str(cluster.data_dir)]) == 1
    assert "no quorum without it" in capsys.readouterr().err
    assert main(["drain", THERE, "--undo", "--data", str(cluster.data_dir)]) == 0
    faults.start_everything(cluster)
    assert main(["drain", HERE, "--undo", "--data", str(cluster.data_dir)]) == 0
    found = faults.settled_digests(cluster, len(REGIONS))
    assert not faults.differing(found, len(REGIONS))


def test_primaries_are_spread_by_hand(cluster: LocalCluster, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(6):
        create(cluster, f"spread{number}")
    data = ["--data", str(cluster.data_dir)]
    assert main(["rebalance", "--dry-run", *data]) == 0
    assert "would be moved" in capsys.readouterr().out
    assert main(["rebalance", *data]) == 0
    regions = {faults.region_of(cluster, faults.primary_of(cluster, f"spread{number}")) for number in range(6)}
    assert regions == set(REGIONS)
