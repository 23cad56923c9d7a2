"""A queue of 1,000,000 waiting messages: latencies as with 1,000, memory per message, restart time of a node.

    python -m benchmarks.depth [--messages 1000000] [--operations 2000] [--body 512] [--data DIR]

Starts a local cluster. Fills one queue in batches of ten, measures sends, receives and deletes with 1,000 messages
waiting and with all of them, then kills one node and starts it again. Memory per message is the growth of a node's
resident memory; the bytes of the bodies that are in memory, at most CONTENT_BYTES_MAX of them, are subtracted.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop

from benchmarks.client import SqsClient, send_batch_body
from benchmarks.measuring import KINDS, Timings, by_kind, cpu_seconds, resident_bytes, table, under_way
from distribution_manager.drills.local import LocalCluster
from shadow_nodes.protocol.limits import CONTENT_BYTES_MAX

FILLERS = 16
BATCH = 10
SHALLOW = 1_000
UNDER_WAY = 64
QUEUE = "deep"
CATCH_UP_SECONDS_MAX = 120.0


async def fill(client: SqsClient, url: str, count: int, body_bytes: int) -> Timings:
    """Sends ``count`` messages; the timings are of calls, of ten messages each."""
    body = msgspec.json.encode(send_batch_body(url, ["x" * body_bytes] * BATCH))

    async def send() -> None:
        answer = await client.call_encoded("SendMessageBatch", body)
        assert b'"Failed"' not in answer, answer

    return await under_way(FILLERS, send, calls=count // BATCH)


async def operations(client: SqsClient, url: str, count: int, body_bytes: int) -> dict[str, Timings]:
    """One at a time, then 64 under way. What is sent is deleted: the depth stays."""
    body = "x" * body_bytes
    timings: dict[str, Timings] = {}
    for callers in (1, UNDER_WAY):
        calls = count if callers > 1 else count // 4
        handles: list[str] = []

        async def receive(handles: list[str] = handles) -> None:
            messages = await client.receive(url)
            assert messages, "the queue has messages, and a receive found none"
            handles.append(messages[0]["ReceiptHandle"])

        async def delete(handles: list[str] = handles) -> None:
            await client.delete(url, handles.pop())

        timings[f"send, {callers}"] = await under_way(callers, lambda: client.send(url, body), calls=calls)
        timings[f"receive, {callers}"] = await under_way(callers, receive, calls=calls)
        timings[f"delete, {callers}"] = await under_way(callers, delete, calls=len(handles))
    return timings


def node_bytes(cluster: LocalCluster) -> dict[str, int]:
    return {
        name: resident_bytes(pid) for name, pid in cluster.pids.items() if pid and cluster.member(name).kind == "node"
    }


def waiting_on(cluster: LocalCluster, node: str) -> tuple[int, int]:
    """(entries applied, messages) of all shards of a node; zeros where it does not answer."""
    answer = cluster.ask(node, "/inspect", 5.0)
    shards = (answer or {}).get("shards", [])
    return sum(shard["applied_seq"] for shard in shards), sum(shard["messages"] for shard in shards)


def restart(cluster: LocalCluster, node: str, url_owner: str) -> tuple[float, float]:
    """kill -9 and start. Returns seconds until it is ready, and until it holds what ``url_owner`` holds."""
    wanted = waiting_on(cluster, url_owner)[0]
    cluster.kill(node)
    began = time.perf_counter()
    cluster.restart(node)
    ready = time.perf_counter() - began
    while waiting_on(cluster, node)[0] < wanted and time.perf_counter() - began < CATCH_UP_SECONDS_MAX:
        time.sleep(0.05)
    return ready, time.perf_counter() - began


async def run(data: Path, messages: int, count: int, body_bytes: int) -> None:
    with LocalCluster(data, port=0) as cluster:
        async with SqsClient(next(iter(cluster.endpoints.values())), UNDER_WAY) as client:
            url = await client.create_queue(QUEUE, VisibilityTimeout="3600")
            await operations(client, url, 2 * UNDER_WAY, body_bytes)
            await fill(client, url, SHALLOW, body_bytes)
            spent = [by_kind(cluster, cpu_seconds)]
            shallow = await operations(client, url, count, body_bytes)
            spent.append(by_kind(cluster, cpu_seconds))
            before = node_bytes(cluster)
            filled = await fill(client, url, messages - SHALLOW, body_bytes)
            print(
                f"filled: {messages:,} messages of {body_bytes} bytes, {filled.per_second * BATCH:,.0f}/s,"
                f" ms per batch p50 {filled.quantile_ms(0.5):.1f} p99 {filled.quantile_ms(0.99):.1f}"
                f" p99.9 {filled.quantile_ms(0.999):.1f} max {filled.quantile_ms(1):.0f}",
                flush=True,
            )
            after = node_bytes(cluster)
            spent.append(by_kind(cluster, cpu_seconds))
            deep = await operations(client, url, count, body_bytes)
            spent.append(by_kind(cluster, cpu_seconds))
        report(shallow, deep, messages)
        for depth, timings, (before_s, after_s) in (
            (SHALLOW, shallow, spent[:2]),
            (messages, deep, spent[2:]),
        ):
            calls = sum(len(item.seconds) for item in timings.values())
            each_us = {kind: (after_s[kind] - before_s[kind]) / calls * 1e6 for kind in KINDS}
            print(f"{depth:,} deep: CPU us per operation: " + ", ".join(f"{k} {us:.0f}" for k, us in each_us.items()))
        for node in before:
            grown, added = after[node] - before[node], max(1, messages - SHALLOW)
            bodies = min(added * body_bytes, CONTENT_BYTES_MAX)
            print(
                f"{node}: {after[node] / 2**20:.0f} MiB resident, {grown / added:.0f} bytes per waiting"
                f" message, {(grown - bodies) / added:.0f} besides the bodies that are in memory"
            )
        nodes = list(before)
        ready, caught_up = await asyncio.to_thread(restart, cluster, nodes[0], nodes[1])
        print(f"{nodes[0]} killed and started: ready after {ready:.1f} s, caught up after {caught_up:.1f} s")
        pid = cluster.pids[nodes[0]]
        assert pid is not None
        print(f"  resident then: {resident_bytes(pid) / 2**20:.0f} MiB; messages {waiting_on(cluster, nodes[0])[1]:,}")


def report(shallow: dict[str, Timings], deep: dict[str, Timings], messages: int) -> None:
    heads = ["operation, under way"]
    for depth in (SHALLOW, messages):
        heads += [f"{depth:,} deep: p50 ms", "p99", "max", "per s"]
    rows = []
    for (name, before), after in zip(shallow.items(), deep.values(), strict=True):
        row = [name]
        for timings in (before, after):
            row += [f"{timings.quantile_ms(share):.2f}" for share in (0.5, 0.99, 1)]
            row.append(f"{timings.per_second:,.0f}")
        rows.append(row)
    print("\n" + table(heads, rows) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--operations", type=int, default=2_000, help="of each kind, at each depth")
    parser.add_argument("--body", type=int, default=512, help="bytes")
    parser.add_argument("--data", type=Path, help="a directory for the cluster; one that goes away, if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="shadowq-depth-") as folder:
        uvloop.run(run(options.data or Path(folder), options.messages, options.operations, options.body))


if __name__ == "__main__":
    main()
