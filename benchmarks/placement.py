"""Whether a queue is put where its clients wait least: ``make bench-placement``, some 5 minutes.

Five regions on a line, 0, 35, 80, 150 and 220 ms out, as real processes behind a relay. For clients of a region: a
queue for every set of three regions with every primary among them, forced by AllowedRegions and
PreferredPrimaryRegion, and one that ShadowQ has placed. All are sent to from the clients' region, in turn, round after
round; what counts of a queue is the median of its sends. Prints a row for each region, and JSON with --json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import combinations
from pathlib import Path
from typing import Any

from distribution_manager.drills.relay import ways_on_a_line
from distribution_manager.drills.relayed import RelayedCluster
from distribution_manager.drills.workload import make_client

PLACES_MS = {"r0": 0, "r35": 35, "r80": 80, "r150": 150, "r220": 220}
REPLICAS = 3
KNOWN_WITHIN_S = 60.0


def wait_for_the_matrix(cluster: RelayedCluster) -> None:
    """Until every manager knows how far all regions are apart."""
    deadline = time.monotonic() + KNOWN_WITHIN_S
    for region in PLACES_MS:
        while not all(p["links"] == 4 for p in cluster.ask(f"manager-{region}", "/admin/latency", 5.0)["pairs"]):
            if time.monotonic() >= deadline:
                raise SystemExit(f"manager-{region} does not know all distances")
            time.sleep(0.1)


def create(client: Any, region: str, allowed: tuple[str, ...] = (), primary: str = "") -> str:
    wishes = {"AllowedRegions": ",".join(allowed), "PreferredPrimaryRegion": primary}
    name = f"{region}-{primary or 'chosen'}-{'-'.join(allowed)}"
    url = client.create_queue(QueueName=name, Attributes=wishes if primary else {})["QueueUrl"]
    client.send_message(QueueUrl=url, MessageBody="opens it")
    return str(url)


def measure(cluster: RelayedCluster, region: str, rounds: int) -> dict[str, Any]:
    """Medians of all sets for clients of one region, in milliseconds."""
    client = make_client(cluster.endpoints[region])
    queues = {
        (primary, *(other for other in regions if other != primary)): create(client, region, regions, primary)
        for regions in combinations(PLACES_MS, REPLICAS)
        for primary in regions
    }
    chosen_url = create(client, region)
    times: dict[str, list[float]] = {url: [] for url in (*queues.values(), chosen_url)}
    for _ in range(rounds):
        for url, taken in times.items():
            began = time.perf_counter()
            client.send_message(QueueUrl=url, MessageBody="x")
            taken.append((time.perf_counter() - began) * 1000)
    placed = cluster.ask(f"manager-{region}", f"/admin/status?queue={region}-chosen-", 5.0)["queues"][0]
    chosen = [node.removeprefix("node-") for node in (placed["primary"], *placed["shadows"])]
    medians = {place: statistics.median(times[url]) for place, url in queues.items()}
    best, second = sorted(medians, key=lambda place: medians[place])[:2]
    same = next(place for place in medians if place[0] == chosen[0] and set(place) == set(chosen))
    return {
        "clients": region,
        "chosen": chosen,
        "chosen_ms": statistics.median(times[chosen_url]),
        "same_set_forced_ms": medians[same],
        "rank_of_same_set": 1 + sorted(medians.values()).index(medians[same]),
        "best": list(best),
        "best_ms": medians[best],
        "second_ms": medians[second],
        "worst_ms": max(medians.values()),
        "slowest_replica_ms": max(abs(PLACES_MS[chosen[0]] - PLACES_MS[other]) for other in chosen),
        "all": {" ".join(place): round(ms, 1) for place, ms in sorted(medians.items(), key=lambda item: item[1])},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="sends to each queue")
    parser.add_argument("--regions", default=",".join(PLACES_MS), help="whose clients are measured, comma-separated")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = []
    with (
        tempfile.TemporaryDirectory() as data,
        RelayedCluster(Path(data), ways_on_a_line(PLACES_MS), regions=PLACES_MS) as cluster,
    ):
        wait_for_the_matrix(cluster)
        for region in options.regions.split(","):
            results.append(measure(cluster, region, options.rounds))
            row = results[-1]
            print(
                f"| {region} | {' '.join(row['chosen'])} | {row['chosen_ms']:.0f} | {' '.join(row['best'])} | "
                f"{row['best_ms']:.0f} | {row['rank_of_same_set']} of {len(row['all'])} | {row['worst_ms']:.0f} | "
                f"{row['slowest_replica_ms']} |",
                flush=True,
            )
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
