"""Shadows in other continents: acknowledgements and throughput with links of 40 and 80 ms, beside the same without.

    python -m benchmarks.delayed [--rounds 5] [--seconds 2]

One cluster, all of whose links between regions go through a relay (distribution_manager/drills/relay.py), in both
cases: what differs is the delay alone. The two alternate (A B A B); a figure is the median of the rounds with minimum
and maximum, a ratio is taken within a round. The client, the owner and the primary are in the first region. Raw results
and the table go to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.measuring import table
from benchmarks.systems import ShadowQ
from benchmarks.traffic import Regions
from benchmarks.works import LIFE, SEND, Bench, Work, measured
from distribution_manager.drills.plan import REGIONS_DEFAULT
from distribution_manager.drills.relay import Way, way_name
from distribution_manager.drills.relayed import RelayedCluster

NEARER_MS, FARTHER_MS = 40.0, 80.0
"""Round trips from the first region to the others."""
ACK_OVER_ROUND_TRIP_MS = 3.0
SETTLE_SECONDS = 2.0
"""For smoothed round trips to become those of the new delay."""
WORKS = [(SEND, Work(1)), (SEND, Work(256)), (SEND, Work(256, 10)), (LIFE, Work(256))]
RESULTS = Path(__file__).parent / "results"


def delays() -> dict[str, Way]:
    home, nearer, farther = REGIONS_DEFAULT
    return {
        way_name(home, nearer): Way(round_trip_ms=NEARER_MS),
        way_name(home, farther): Way(round_trip_ms=FARTHER_MS),
        way_name(nearer, farther): Way(round_trip_ms=FARTHER_MS - NEARER_MS),
    }


class Relayed(ShadowQ):
    async def start(self, folder: Path) -> None:
        self.cluster = RelayedCluster(folder / "relayed", {}, regions=REGIONS_DEFAULT)
        await asyncio.to_thread(self.cluster.start)
        self.endpoint = next(iter(self.cluster.endpoints.values()))

    def regions(self) -> Regions:
        """Not to be counted: every connection ends at the relay."""
        return {}


async def run(rounds: int, seconds: float, folder: Path) -> list[dict[str, Any]]:
    system = Relayed()
    results: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(system.stop)
        await system.start(folder)
        cluster = system.cluster
        assert isinstance(cluster, RelayedCluster)
        for number in range(rounds):
            for delayed in (False, True):
                await asyncio.to_thread(cluster.set_ways, delays() if delayed else {})
                await asyncio.sleep(SETTLE_SECONDS)
                for kind, work in WORKS:
                    values = await one(system, kind, work, seconds)
                    name = f"{kind}, {work}"
                    results.append({"work": name, "delayed": delayed, "round": number} | values)
                    rate, p50_ms = values["per_second"], values["p50_ms"]
                    print(f"round {number}, delayed {delayed}, {name}: {rate:,.0f}/s, p50 {p50_ms:.1f} ms", flush=True)
    return results


async def one(system: Relayed, kind: str, work: Work, seconds: float) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        bench = Bench(await system.open(stack, work.callers), work)
        await bench.warm_up()
        if kind == LIFE:
            return await measured(system, work, lambda: bench.run_lives(seconds), lambda: bench.taken)
        return await measured(system, work, lambda: bench.run_sends(seconds), lambda: bench.sent)


def text_of(results: list[dict[str, Any]]) -> str:
    heads = ["work", "undelayed: /s", "p50 ms", "p99 ms", "delayed: /s", "p50 ms", "p99 ms", "delayed/undelayed"]
    rows = []
    for name in dict.fromkeys(item["work"] for item in results):
        cells = [name]
        rates = []
        for delayed in (False, True):
            found = [item for item in results if item["work"] == name and item["delayed"] is delayed]
            rates.append([item["per_second"] for item in found])
            cells.append(f"{statistics.median(rates[-1]):,.0f}")
            cells += [f"{statistics.median(item[key] for item in found):.1f}" for key in ("p50_ms", "p99_ms")]
        ratios = [delayed / undelayed for undelayed, delayed in zip(*rates, strict=True) if undelayed]
        cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        rows.append(cells)
    bound_ms = NEARER_MS + ACK_OVER_ROUND_TRIP_MS
    return (
        f"shadows {NEARER_MS:.0f} and {FARTHER_MS:.0f} ms away; the target for one under way: p50 <= {bound_ms:.0f} ms;"
        f" for 256: >= 0.8 of undelayed\n{table(heads, rows)}\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args()
    began, load = datetime.now(UTC).isoformat(timespec="seconds"), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="shadowq-delayed-") as folder:
        results = uvloop.run(run(options.rounds, options.seconds, Path(folder)))
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"delayed-{began.replace(':', '')}.json"
    path.write_text(json.dumps(results, indent=1), encoding="utf-8")
    text = f"{began}, load {load:.1f} to {os.getloadavg()[0]:.1f}, {options.rounds} rounds of {options.seconds} s\n"
    text += text_of(results)
    path.with_suffix(".txt").write_text(text, encoding="utf-8")
    print(f"\n{text}\nraw: {path}")


if __name__ == "__main__":
    main()
