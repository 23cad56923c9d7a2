"""How many transactions a second coordination carries, and how long one takes: what a takeover waits for.

    python -m benchmarks.coordination [seconds]

One etcd on loopback, fsync on; every transaction replaces a lock by compare on its mod_revision and reads it, as a
takeover does. Prints transactions/s and percentiles for 1, 16 and 64 callers at once, for a listing, and for a change
to reach a watch.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

from distribution_manager.coordination.embedded import EmbeddedEtcd
from distribution_manager.coordination.etcd import EtcdCoordination
from distribution_manager.coordination.etcd_settings import EtcdSettings
from distribution_manager.core.transactions import Compare, Put, Transaction

CALLERS = (1, 16, 64)
VALUE = bytes(200)


async def callers(coordination: EtcdCoordination, count: int, seconds: float) -> None:
    times_ms: list[float] = []
    end_s = time.perf_counter() + seconds

    async def call(key: str) -> None:
        found = await coordination.get(key)
        revision = found.mod_revision if found else 0
        while (begin_s := time.perf_counter()) < end_s:
            outcome = await coordination.transact(Transaction([Compare(key, revision)], [Put(key, VALUE)], [key]))
            assert outcome.succeeded
            revision = outcome.revision
            times_ms.append((time.perf_counter() - begin_s) * 1e3)

    await asyncio.gather(*(call(f"shards/{i}/0") for i in range(count)))
    print(f"{count:3} callers: {len(times_ms) / seconds:7.0f} transactions/s, {percentiles(times_ms)}")


async def watched(coordination: EtcdCoordination, count: int) -> None:
    times_ms: list[float] = []
    async with aclosing(coordination.watch()) as watch:
        await anext(watch)
        for _ in range(count):
            begin_s = time.perf_counter()
            put = asyncio.create_task(coordination.transact(Transaction([], [Put("watched", VALUE)])))
            await anext(watch)
            times_ms.append((time.perf_counter() - begin_s) * 1e3)
            await put
    print(f"put to watch: {percentiles(times_ms)}")


async def listed(coordination: EtcdCoordination, keys: int) -> None:
    for start in range(0, keys, 100):
        await coordination.transact(Transaction([], [Put(f"meta/{start + i:06}", VALUE) for i in range(100)]))
    begin_s = time.perf_counter()
    items = (await coordination.list_prefix("meta/")).items
    print(f"listing {len(items)} keys: {(time.perf_counter() - begin_s) * 1e3:.0f} ms")


def percentiles(times_ms: list[float]) -> str:
    cuts = statistics.quantiles(times_ms, n=100)
    return f"ms p50 {cuts[49]:.2f} p99 {cuts[98]:.2f} max {max(times_ms):.2f}"


async def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        etcd = EmbeddedEtcd(Path(folder) / "data")
        await etcd.start()
        coordination = EtcdCoordination(EtcdSettings("benchmark", (etcd.endpoint,)))
        await coordination.start()
        try:
            for count in CALLERS:
                await callers(coordination, count, seconds)
            await watched(coordination, 500)
            await listed(coordination, 10_000)
        finally:
            await coordination.close()
            await etcd.stop()


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 3.0))
