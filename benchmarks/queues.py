"""10,000 queues: what they cost an operation on one of them, and what each costs in memory while idle.

    python -m benchmarks.queues [--queues 10000] [--operations 2000] [--data DIR]

Starts a local cluster. Measures one queue's operations before there are others, with the others created, and with the
others used once each (only then do nodes hold replicas of them); the processes' memory and idle CPU time at each point.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import uvloop

from benchmarks.client import SqsClient
from benchmarks.measuring import KINDS, Timings, by_kind, cpu_seconds, resident_bytes, table, under_way
from distribution_manager.drills.local import LocalCluster

UNDER_WAY = 64
CREATE_UNDER_WAY = 32
IDLE_SECONDS = 3.0
BODY = "x" * 512


class Stage:
    """What was measured at one point, with ``queues`` others there."""

    def __init__(self, name: str, queues: int) -> None:
        self.name = name
        self.queues = queues
        self.timings: dict[str, Timings] = {}
        self.resident: dict[str, int] = {}
        self.idle_cpu: dict[str, float] = {}
        self.cpu_us: dict[str, float] = {}
        """Processor time of an operation, microseconds: what other work on the machine changes least."""


async def operations(client: SqsClient, url: str, count: int) -> dict[str, Timings]:
    """Send, receive and delete on one queue: one at a time, then 64 under way."""
    timings: dict[str, Timings] = {}
    for callers in (1, UNDER_WAY):
        calls = count if callers > 1 else count // 4
        handles: list[str] = []

        async def receive(handles: list[str] = handles) -> None:
            handles.extend(message["ReceiptHandle"] for message in await client.receive(url))

        async def delete(handles: list[str] = handles) -> None:
            if handles:
                await client.delete(url, handles.pop())

        timings[f"send, {callers}"] = await under_way(callers, lambda: client.send(url, BODY), calls=calls)
        timings[f"receive, {callers}"] = await under_way(callers, receive, calls=calls)
        timings[f"delete, {callers}"] = await under_way(callers, delete, calls=calls)
    return timings


async def measure(cluster: LocalCluster, client: SqsClient, url: str, stage: Stage, count: int) -> Stage:
    await asyncio.sleep(2.0)
    before = by_kind(cluster, cpu_seconds)
    await asyncio.sleep(IDLE_SECONDS)
    after = by_kind(cluster, cpu_seconds)
    stage.idle_cpu = {kind: (after[kind] - before[kind]) / IDLE_SECONDS for kind in KINDS}
    stage.timings = await operations(client, url, count)
    done = sum(len(timings.seconds) for timings in stage.timings.values())
    spent = by_kind(cluster, cpu_seconds)
    stage.cpu_us = {kind: (spent[kind] - after[kind]) / done * 1e6 for kind in KINDS}
    stage.resident = {kind: int(value) for kind, value in by_kind(cluster, resident_bytes).items()}
    print(f"measured: {stage.name}", flush=True)
    return stage


async def each(clients: list[SqsClient], names: Iterable[str], what: object) -> Timings:
    """``what(client, name)`` for every name, over all endpoints in turn."""
    turn = itertools.cycle(clients)
    queue = iter(list(names))
    timings = Timings()
    started = time.perf_counter()

    async def caller() -> None:
        for name in queue:
            before = time.perf_counter()
            await what(next(turn), name)  # type: ignore[operator]
            timings.seconds.append(time.perf_counter() - before)

    await asyncio.gather(*(caller() for _ in range(CREATE_UNDER_WAY)))
    timings.elapsed = time.perf_counter() - started
    return timings


async def use_once(client: SqsClient, name: str) -> None:
    url = f"http://{client.host}:{client.port}/000000000000/{name}"
    await client.send(url, BODY)
    for message in await client.receive(url):
        await client.delete(url, message["ReceiptHandle"])


async def run(data: Path, queues: int, count: int) -> list[Stage]:
    stages = []
    with LocalCluster(data, port=0) as cluster:
        clients = [SqsClient(endpoint, UNDER_WAY) for endpoint in cluster.endpoints.values()]
        url = await clients[0].create_queue("measured")
        await operations(clients[0], url, count)
        stages.append(await measure(cluster, clients[0], url, Stage("alone", 0), count))
        names = [f"idle-{number}" for number in range(queues)]
        created = await each(clients, names, lambda client, name: client.create_queue(name))
        print_pace("created", created)
        stages.append(await measure(cluster, clients[0], url, Stage("others created", queues), count))
        print_pace("used once", await each(clients, names, use_once))
        stages.append(await measure(cluster, clients[0], url, Stage("others used once", queues), count))
        for client in clients:
            await client.__aexit__()
    return stages


def print_pace(what: str, timings: Timings) -> None:
    print(
        f"{what}: {len(timings.seconds)} queues in {timings.elapsed:.1f} s ({timings.per_second:.0f}/s),"
        f" ms p50 {timings.quantile_ms(0.5):.1f} p99 {timings.quantile_ms(0.99):.1f}"
        f" max {timings.quantile_ms(1):.0f}",
        flush=True,
    )


def report(stages: list[Stage]) -> None:
    first = stages[0]
    heads = ["operation, under way"]
    for stage in stages:
        heads += [f"{stage.name}: p50 ms", "p99", "per s"]
    rows = []
    for name in first.timings:
        row = [name]
        for stage in stages:
            timings = stage.timings[name]
            row += [f"{timings.quantile_ms(0.5):.2f}", f"{timings.quantile_ms(0.99):.2f}", f"{timings.per_second:,.0f}"]
        rows.append(row)
    print("\n" + table(heads, rows))
    heads = ["sum over processes", *(f"{kind} MiB" for kind in KINDS), *(f"{kind} KB/queue" for kind in KINDS)]
    heads += [*(f"{kind} idle CPU %" for kind in KINDS), *(f"{kind} us/operation" for kind in KINDS)]
    rows = []
    for stage in stages:
        grown = [(stage.resident[kind] - first.resident[kind]) / max(1, stage.queues) / 1000 for kind in KINDS]
        rows.append(
            [
                stage.name,
                *(f"{stage.resident[kind] / 2**20:.0f}" for kind in KINDS),
                *(f"{value:.1f}" if stage is not first else "" for value in grown),
                *(f"{stage.idle_cpu[kind] * 100:.1f}" for kind in KINDS),
                *(f"{stage.cpu_us[kind]:.0f}" for kind in KINDS),
            ]
        )
    print("\n" + table(heads, rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queues", type=int, default=10_000)
    parser.add_argument("--operations", type=int, default=4_000, help="of each kind, at each point")
    parser.add_argument("--data", type=Path, help="a directory for the cluster; one that goes away, if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shadowq-queues-") as folder:
        report(uvloop.run(run(options.data or Path(folder), options.queues, options.operations)))


if __name__ == "__main__":
    main()
