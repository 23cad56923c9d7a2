"""Nodes of a replica set killed for good, and its shadow factor changed, under continuous load of real processes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from distribution_manager.drills import faults
from distribution_manager.drills.checkers import check
from distribution_manager.drills.commands import Commands
from distribution_manager.drills.history import Recorder
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.workload import Workload, WorkloadConfig, make_client
from tests.waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

REGIONS = ["us-east-1", "eu-west-1", "ap-southeast-1", "sa-east-1", "af-south-1"]
HEAL_AFTER_S = "3"
HEALED_TIMEOUT_S = 60.0
DRAIN_TIMEOUT_S = 90.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    commands = Commands(manager_settings=("--heal-after-s", HEAL_AFTER_S))
    with LocalCluster(tmp_path / "cluster", regions=REGIONS, port=0, commands=commands) as running:
        yield running


def members(cluster: LocalCluster, queue: str) -> set[str]:
    status = faults.queue_status(cluster, queue)
    return {status["primary"], *status["shadows"]}


def test_a_set_heals_grows_and_shrinks_under_load(cluster: LocalCluster, tmp_path: Path) -> None:
    queues = ("work", "work.fifo")
    client = make_client(cluster.endpoints["us-east-1"])
    urls = [
        client.create_queue(QueueName=name, Attributes={"FifoQueue": "true"} if name.endswith(".fifo") else {})[
            "QueueUrl"
        ]
        for name in queues
    ]
    recorder = Recorder(tmp_path / "history.jsonl")
    workload = Workload(WorkloadConfig(cluster.endpoints, queues, send_pause_s=0.02), recorder)

    def without(gone: str) -> bool:
        return all(len(members(cluster, name)) == 3 and gone not in members(cluster, name) for name in queues)

    def of_size(count: int) -> bool:
        return all(len(members(cluster, name)) == count for name in queues)

    def lose(gone: str) -> None:
        cluster.kill(gone)
        recorder.mark(f"killed {gone}")
        wait_for(lambda: without(gone), HEALED_TIMEOUT_S, f"{gone} is replaced")
        recorder.mark(f"replaced {gone}")

    def want(factor: int) -> None:
        for url in urls:
            client.set_queue_attributes(QueueUrl=url, Attributes={"ShadowFactor": str(factor)})
        wait_for(lambda: of_size(1 + factor), HEALED_TIMEOUT_S, f"{1 + factor} replicas")
        recorder.mark(f"shadow factor {factor}")

    with contextlib.closing(recorder):
        workload.start()
        try:
            time.sleep(2)
            dead = [sorted(members(cluster, "work") - {faults.primary_of(cluster, "work")})[0]]
            lose(dead[0])
            dead.append(faults.primary_of(cluster, "work"))
            lose(dead[1])
            faults.start_everything(cluster)
            recorder.mark("both are back, and hold what they held")
            want(4)
            want(1)
            time.sleep(2)
            drained = workload.drain(DRAIN_TIMEOUT_S)
        finally:
            workload.stop()

    verdict = check(recorder.history(), failing_endpoints=())
    print(verdict)
    assert verdict.verdict == "valid", f"{verdict}\n(history: {tmp_path}/history.jsonl)"
    assert drained
    assert verdict.counts["sends"] > 100, "hardly any load"
    assert not faults.differing(faults.settled_digests(cluster, 2), 2)
    wait_for(lambda: nothing_outside(cluster, queues), HEALED_TIMEOUT_S, "former replicas hold nothing")
    client.close()


def nothing_outside(cluster: LocalCluster, queues: tuple[str, ...]) -> bool:
    """Whether nodes that are not in a queue's set have dropped what they held, whatever became of it meanwhile."""
    found: dict[str, Any] = faults.digests(cluster)
    return all(
        set(found[faults.queue_status(cluster, name)["shards"][0]["shard"]]) == members(cluster, name)
        for name in queues
    )
