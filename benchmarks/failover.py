"""How long clients go without a successful operation when something dies: ``python benchmarks/failover.py``.

Three regions as real processes; per endpoint a boto3 sender and a boto3 receiver, with the SDK's default retries, as
fast as they go. Again and again the queue's owner is killed, or its primary's node, or its owner is frozen (SIGSTOP),
by the role that each has at that moment. After each blow: the longest time between two successful calls of one kind,
over all clients except those connected to the process that was hit. What was hit is started again and has caught up
before the next. Every message is reconciled at the end: a fast wrong answer would not count.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection
from pathlib import Path

from distribution_manager.drills import faults
from distribution_manager.drills.checkers import check
from distribution_manager.drills.history import History, Recorder, operations
from distribution_manager.drills.local import LocalCluster
from distribution_manager.drills.processes import ProcessState
from distribution_manager.drills.workload import Workload, WorkloadConfig, make_client

QUEUE = "failover"
REPLICAS = 3
BEFORE_S = 1.0
AFTER_S = 4.0
CAUGHT_UP_TIMEOUT_S = 30.0
DRAIN_TIMEOUT_S = 300.0
"""Senders outpace receivers while an endpoint is dead: what has piled up must be read before it can be judged."""
KINDS = {"any": ("send", "receive", "delete"), "send": ("send",), "receive or delete": ("receive", "delete")}

Blow = Callable[[LocalCluster], str]
"""Hits a member and returns its name."""


def kill_owner(cluster: LocalCluster) -> str:
    owner = faults.owner_of(cluster, QUEUE)
    cluster.kill(owner)
    return owner


def kill_primary(cluster: LocalCluster) -> str:
    primary = faults.primary_of(cluster, QUEUE)
    cluster.kill(primary)
    return primary


def freeze_owner(cluster: LocalCluster) -> str:
    owner = faults.owner_of(cluster, QUEUE)
    cluster.freeze(owner)
    return owner


BLOWS: dict[str, tuple[Blow, str]] = {
    "owner": (kill_owner, "owner killed (kill -9 of its manager)"),
    "primary": (kill_primary, "primary killed (kill -9 of its node)"),
    "frozen": (freeze_owner, "owner frozen (SIGSTOP of its manager), resumed afterwards"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blows", type=int, default=20, help="of each kind (default: 20)")
    parser.add_argument("--kinds", default=",".join(BLOWS), help=f"comma-separated (default: {','.join(BLOWS)})")
    parser.add_argument("--history", type=Path, help="directory to write what clients saw to, as JSON lines")
    options = parser.parse_args()
    valid = True
    for name in options.kinds.split(","):
        blow, text = BLOWS[name]
        with tempfile.TemporaryDirectory(prefix="shadowq-") as folder, LocalCluster(Path(folder), port=0) as cluster:
            recorder = Recorder(options.history and options.history / f"{name}.jsonl")
            with contextlib.closing(recorder):
                valid &= run(cluster, blow, text, options.blows, recorder)
    return 0 if valid else 1


def run(cluster: LocalCluster, blow: Blow, text: str, count: int, recorder: Recorder) -> bool:
    """Prints the table for one kind of blow; whether the history is valid."""
    client = make_client(cluster.endpoints["us-east-1"])
    client.create_queue(QueueName=QUEUE)
    client.close()
    config = WorkloadConfig(cluster.endpoints, (QUEUE,), send_pause_s=0.0, forget_share=0.0)
    workload = Workload(config, recorder)
    workload.start()
    gaps_ms: dict[str, list[float]] = {kind: [] for kind in KINDS}
    quiet_ms: list[float] = []
    hit_regions: set[str] = set()
    print(f"\n{text}: {count} times", flush=True)
    try:
        for number in range(1, count + 1):
            time.sleep(BEFORE_S)
            began_s = time.monotonic()
            hit = blow(cluster)
            time.sleep(AFTER_S)
            region = cluster.member(hit).region if cluster.member(hit).kind == "manager" else ""
            hit_regions.add(region)
            history = recorder.history()
            quiet_ms.append(longest_gap_ms(history, KINDS["any"], began_s - BEFORE_S, began_s, ""))
            row = {
                name: longest_gap_ms(history, kinds, began_s, began_s + AFTER_S, region)
                for name, kinds in KINDS.items()
            }
            for kind, gap_ms in row.items():
                gaps_ms[kind].append(gap_ms)
            print(f"  {number:3} {hit:<24} {_row(row)}", flush=True)
            put_back(cluster, hit)
        drained = workload.drain(DRAIN_TIMEOUT_S)
    finally:
        workload.stop()
    verdict = check(recorder.history(), failing_endpoints=hit_regions)
    differing = faults.differing(faults.settled_digests(cluster, REPLICAS), REPLICAS)
    print(
        f"  longest time without a successful call, ms (with nothing wrong: median {statistics.median(quiet_ms):.1f})"
    )
    print(f"  median  {_row({kind: statistics.median(values) for kind, values in gaps_ms.items()})}")
    print(f"  worst   {_row({kind: max(values) for kind, values in gaps_ms.items()})}")
    print(f"  {verdict}")
    print(f"  replicas: {differing or 'equal'}", flush=True)
    return drained and verdict.verdict == "valid" and not differing


def longest_gap_ms(history: History, kinds: Collection[str], begin_s: float, end_s: float, excluded: str) -> float:
    """Between two successive ends of successful calls of these kinds, or the edges of the interval."""
    ends = sorted(
        call.end_s
        for call in operations(history)
        if call.kind in kinds and call.outcome == "ok" and call.endpoint != excluded and begin_s <= call.end_s <= end_s
    )
    return max(later - earlier for earlier, later in itertools.pairwise([begin_s, *ends, end_s])) * 1000


def put_back(cluster: LocalCluster, hit: str) -> None:
    """Starts or resumes it, and waits until the queue's replicas are level again, as far as they can be under load."""
    if cluster.state_of(hit) is ProcessState.FROZEN:
        cluster.resume(hit)
    else:
        cluster.restart(hit)
    deadline = time.monotonic() + CAUGHT_UP_TIMEOUT_S
    while time.monotonic() < deadline:
        shard = faults.queue_status(cluster, QUEUE)["shards"][0]
        applied = [replica["applied_seq"] for replica in shard["replicas"] if replica["state"] == "up"]
        if len(applied) == REPLICAS and None not in applied and max(applied) - min(applied) < 100:
            return
        time.sleep(0.1)
    raise TimeoutError(f"the replicas are not level {CAUGHT_UP_TIMEOUT_S:.0f} s after {hit} came back: {shard}")


def _row(values: dict[str, float]) -> str:
    return "  ".join(f"{kind} {value:7.1f}" for kind, value in values.items())


if __name__ == "__main__":
    sys.exit(main())
