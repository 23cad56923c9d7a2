"""Real processes killed under continuous load: what clients saw is reconciled message by message.

One cluster for all; each drill has queues of its own, and puts back what it killed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import pytest

from distribution_manager.drills import faults
from distribution_manager.drills.checkers import check
from distribution_manager.drills.history import Recorder
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.workload import Workload, WorkloadConfig, make_client

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

REPLICAS = 3
BEFORE_S, DURING_S, AFTER_S = 2.0, 4.0, 2.0
DRAIN_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with LocalCluster(tmp_path_factory.mktemp("cluster"), port=0) as running:
        yield running


def drill(
    cluster: LocalCluster,
    name: str,
    fault: Callable[[str], Collection[str] | None],
    path: Path,
) -> None:
    """``fault`` gets the standard queue's name, and returns the regions at whose endpoints calls may have failed."""
    faults.start_everything(cluster)
    queues = (name, f"{name}.fifo")
    client = make_client(cluster.endpoints["us-east-1"])
    client.create_queue(QueueName=queues[0])
    client.create_queue(QueueName=queues[1], Attributes={"FifoQueue": "true"})
    client.close()

    recorder = Recorder(path / "history.jsonl")
    workload = Workload(WorkloadConfig(cluster.endpoints, queues), recorder)
    with contextlib.closing(recorder):
        workload.start()
        try:
            time.sleep(BEFORE_S)
            began = time.monotonic()
            failing = fault(name)
            recorder.mark(f"fault {name}", begin_s=began)
            time.sleep(DURING_S)
            faults.start_everything(cluster)
            recorder.mark("restarted")
            time.sleep(AFTER_S)
            drained = workload.drain(DRAIN_TIMEOUT_S)
        finally:
            workload.stop()

    verdict = check(recorder.history(), failing_endpoints=failing)
    print(verdict)
    assert verdict.verdict == "valid", f"{verdict}\n(history: {path}/history.jsonl)"
    assert drained
    assert verdict.counts["sends"] > 100, "hardly any load"
    found = faults.settled_digests(cluster, REPLICAS)
    assert not faults.differing(found, REPLICAS)


def test_the_primarys_node(cluster: LocalCluster, tmp_path: Path) -> None:
    def fault(queue: str) -> Collection[str]:
        cluster.kill(faults.primary_of(cluster, queue))
        return ()

    drill(cluster, "primary", fault, tmp_path)


def test_the_owners_manager(cluster: LocalCluster, tmp_path: Path) -> None:
    def fault(queue: str) -> Collection[str]:
        owner = faults.owner_of(cluster, queue)
        cluster.kill(owner)
        return {cluster.member(owner).region}

    drill(cluster, "owner", fault, tmp_path)


def test_a_frozen_owner(cluster: LocalCluster, tmp_path: Path) -> None:
    """It is replaced while it is frozen; what it does when it goes on is judged like everything else."""

    def fault(queue: str) -> Collection[str]:
        owner, epoch = faults.owner_of(cluster, queue), faults.queue_status(cluster, queue)["epoch"]
        cluster.freeze(owner)
        time.sleep(DURING_S)
        cluster.resume(owner)
        after = faults.queue_status(cluster, queue)
        assert after["epoch"] > epoch
        assert after["owner"] != owner
        return {cluster.member(owner).region}

    drill(cluster, "frozen", fault, tmp_path)


def test_owner_and_primary_at_once(cluster: LocalCluster, tmp_path: Path) -> None:
    """A whole region, where they are in the same one, as they mostly are."""

    def fault(queue: str) -> Collection[str]:
        owner = faults.owner_of(cluster, queue)
        cluster.kill(owner, faults.primary_of(cluster, queue))
        return {cluster.member(owner).region}

    drill(cluster, "region", fault, tmp_path)


def test_etcd(cluster: LocalCluster, tmp_path: Path) -> None:
    def fault(queue: str) -> Collection[str]:
        cluster.kill("etcd")
        return ()

    drill(cluster, "etcd", fault, tmp_path)


def test_everything_at_once(cluster: LocalCluster, tmp_path: Path) -> None:
    def fault(queue: str) -> None:
        faults.kill_everything(cluster)

    drill(cluster, "everything", fault, tmp_path)


def test_a_planned_promotion_fails_no_call(cluster: LocalCluster, tmp_path: Path) -> None:
    def fault(queue: str) -> Collection[str]:
        for name in (queue, f"{queue}.fifo"):
            for region in ("eu-west-1", "ap-southeast-1", "us-east-1", "eu-west-1"):
                done = cluster.promote(name, region)
                assert done["primary"] == f"node-{region}"
                assert done["owner"] == f"manager-{region}"
        return ()

    drill(cluster, "promotion", fault, tmp_path)


def test_a_damaged_store(cluster: LocalCluster, tmp_path: Path) -> None:
    """The primary's node comes back with flipped bytes: it says so, begins empty, is filled, and is one of the set."""
    names: list[str] = []

    def fault(queue: str) -> Collection[str]:
        name = faults.primary_of(cluster, queue)
        names.append(name)
        cluster.kill(name)
        damaged = [path for path in (cluster.data_dir / name).glob("store.db*") if damage(path)]
        assert damaged
        cluster.restart(name)
        return ()

    drill(cluster, "damaged", fault, tmp_path)
    log = (cluster.data_dir / "logs" / f"{names[0]}.log").read_text()
    assert "the store was damaged and is replaced by an empty one" in log


def damage(path: Path) -> bool:
    """Flips a byte in every page or so, behind the file's header. Whether there was anything to flip."""
    data = bytearray(path.read_bytes())
    places = range(5_000, len(data) - 100, 4_096) if not path.name.endswith("-shm") else range(0)
    for place in places:
        data[place] ^= 0xFF
    path.write_bytes(data)
    return len(places) > 0
