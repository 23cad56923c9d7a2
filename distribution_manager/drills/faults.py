"""What is done to a cluster in drills, and what is looked at afterwards.

Model: a fault names roles (a queue's primary, its owner) and finds out at the moment of the blow who plays them.
"""

from __future__ import annotations

import time
from typing import Any, Final

from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.processes import ProcessState
from distribution_manager.drills.state import ClusterError
from distribution_manager.drills.status import STATUS_PATH, STATUS_TIMEOUT_S

SETTLE_TIMEOUT_S: Final = 30.0
POLL_S: Final = 0.1

Digests = dict[str, dict[str, tuple[int, str]]]
"""Shard -> node -> (last seq applied, digest of the state)."""


def queue_status(cluster: LocalCluster, queue: str) -> dict[str, Any]:
    """The queue as a live manager sees it. Raises ClusterError when none answers."""
    for name in cluster.names:
        if cluster.member(name).kind == "manager" and cluster.state_of(name) is ProcessState.UP:
            report = cluster.ask(name, f"{STATUS_PATH}?queue={queue}", STATUS_TIMEOUT_S)
            for found in (report or {}).get("queues", []):
                if found["name"] == queue:
                    return dict(found)
    raise ClusterError(f"no manager knows the queue {queue}: look into {cluster.data_dir}/logs")


def primary_of(cluster: LocalCluster, queue: str) -> str:
    return str(queue_status(cluster, queue)["primary"])


def owner_of(cluster: LocalCluster, queue: str) -> str:
    """Raises ClusterError when it has none."""
    owner = queue_status(cluster, queue)["owner"]
    if not owner:
        raise ClusterError(f"{queue} has no owner: send a message first")
    return str(owner)


def region_of(cluster: LocalCluster, name: str) -> str:
    return cluster.member(name).region


def kill_everything(cluster: LocalCluster) -> None:
    cluster.kill(*(name for name in cluster.names if cluster.state_of(name) is not ProcessState.STOPPED))


def start_everything(cluster: LocalCluster) -> None:
    """Starts what is not running, in the order in which it is needed."""
    for name in cluster.names:
        if cluster.state_of(name) is ProcessState.STOPPED:
            cluster.launch(name)
    cluster.wait_ready()


def digests(cluster: LocalCluster) -> Digests:
    """Of every replica of every shard on every node that answers."""
    found: Digests = {}
    for name in cluster.names:
        if cluster.member(name).kind != "node":
            continue
        for shard in (cluster.ask(name, "/inspect?digest=1", STATUS_TIMEOUT_S) or {}).get("shards", []):
            if shard["applied_seq"]:  # else it is a learner that has just begun, or a tombstone
                found.setdefault(shard["shard"], {})[name] = (shard["applied_seq"], str(shard["digest"]))
    return found


def settled_digests(cluster: LocalCluster, replicas: int, timeout_s: float = SETTLE_TIMEOUT_S) -> Digests:
    """Once every shard has its replicas, all at the same seq; or as they are when time runs out."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = digests(cluster)
        level = all(len(nodes) == replicas and len({seq for seq, _ in nodes.values()}) == 1 for nodes in found.values())
        if (found and level) or time.monotonic() >= deadline:
            return found
        time.sleep(POLL_S)


def differing(found: Digests, replicas: int) -> list[str]:
    """What is wrong with the digests: a line for each shard whose replicas are missing or not equal."""
    return [
        f"{shard}: {', '.join(f'{node} at {seq} is {digest[:8]}' for node, (seq, digest) in sorted(nodes.items()))}"
        for shard, nodes in sorted(found.items())
        if len(nodes) != replicas or len(set(nodes.values())) != 1
    ]
